//! What every ledger must do, run against each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends by a panic"
)]

mod support;

use std::sync::Arc;

use billing_sink::{ChargesPage, Filter, Ledger, Moved, NO_CURSOR, RANGES_KEPT, Usage, Window};
use proto::delivery::v1::outcome::Kind::{AlreadyApplied, Applied, Conflict, Gap};
use proto::delivery::v1::{Charge, UsageEntry};

use support::{Home, charge, checked, deliver, kinds, outcome, part, source};

macro_rules! contract {
    ($($scenario:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $scenario() { super::$scenario(crate::support::SqliteHome::new().await).await; })+
        }
        mod postgres {
            $(#[tokio::test] async fn $scenario() { super::$scenario(crate::support::PostgresHome::new().await).await; })+
        }
    };
}

contract! {
    ranges_that_continue_each_other_are_applied,
    a_partition_without_a_cursor_begins_with_its_first_part_only,
    an_exact_replay_is_already_applied_and_charges_nothing,
    a_replay_with_another_digest_is_a_conflict,
    an_overlap_is_a_conflict,
    a_range_too_old_to_be_known_is_a_conflict,
    a_range_after_the_cursor_is_a_gap,
    an_empty_range_moves_the_cursor,
    one_refused_part_leaves_the_others_alone,
    pipelines_topics_and_partitions_have_cursors_of_their_own,
    a_meter_keeps_the_unit_and_scale_of_its_first_charge,
    negative_and_extreme_quantities_are_kept_and_summed_exactly,
    a_window_takes_its_start_and_leaves_its_end,
    every_window_is_the_sum_of_the_charges_in_it,
    the_same_range_from_two_clients_is_charged_once,
    texts_of_clients_come_back_as_they_were,
    entries_come_in_order_without_gaps_and_the_filter_skips_none,
    a_reader_beside_many_writers_sees_each_entry_once_and_in_order,
    charges_are_listed_by_offset_in_pages,
    everything_is_there_after_the_ledger_is_opened_again,
    a_cursor_is_moved_ahead_and_back_and_made_where_there_was_none,
    a_cursor_does_not_go_back_past_charges,
}

async fn usage(ledger: &impl Ledger) -> (i128, u64) {
    let window = Window {
        tenant: "acme".to_owned(),
        meter: "revenue".to_owned(),
        event_time_ms: i64::MIN..i64::MAX,
    };
    let usage = ledger.usage(window).await.expect("an answer");
    (usage.quantity, usage.charges)
}

async fn all_entries(ledger: &impl Ledger) -> Vec<UsageEntry> {
    ledger
        .entries(0, Filter::default(), usize::MAX)
        .await
        .expect("an answer")
        .entries
}

async fn ranges_that_continue_each_other_are_applied(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    let outcomes = deliver(&ledger, vec![part(0, 0, 5, 1, vec![charge(0, 3, 250)])]).await;
    assert_eq!(outcomes, [outcome(Applied, 5, "")]);
    let two = vec![
        part(0, 5, 6, 2, vec![charge(0, 5, 1)]),
        part(0, 6, 9, 3, vec![charge(0, 6, 2), charge(0, 8, 3)]),
    ];
    assert_eq!(
        deliver(&ledger, two).await,
        [outcome(Applied, 6, ""), outcome(Applied, 9, "")]
    );
    assert_eq!(ledger.cursor(source(0)).await, Ok(Some(9)));
    assert_eq!(usage(&ledger).await, (256, 4));
}

async fn a_partition_without_a_cursor_begins_with_its_first_part_only(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    assert_eq!(ledger.cursor(source(0)).await, Ok(None));
    let outcomes = deliver(&ledger, vec![part(0, 40, 50, 1, vec![charge(0, 41, 1)])]).await;
    let reason = "nothing was ever applied of this partition, and [40, 50) is not said to be its first range";
    assert_eq!(outcomes, [outcome(Gap, NO_CURSOR, reason)]);
    assert_eq!(ledger.cursor(source(0)).await, Ok(None));
    let mut first = part(0, 40, 50, 1, vec![charge(0, 41, 1)]);
    first.first = true;
    assert_eq!(deliver(&ledger, vec![first.clone()]).await, [outcome(Applied, 50, "")]);
    // The answer was lost: the same part comes again, still said to be the first.
    assert_eq!(
        deliver(&ledger, vec![first.clone()]).await,
        [outcome(AlreadyApplied, 50, "")]
    );
    // A sender that believes to begin, elsewhere: it has lost its offsets, or this is another topic of the same name.
    (first.start, first.end, first.charges) = (0, 10, Vec::new());
    assert_eq!(kinds(&deliver(&ledger, vec![first]).await), [(Conflict, 50)]);
}

async fn an_exact_replay_is_already_applied_and_charges_nothing(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    let first = part(0, 0, 5, 1, vec![charge(0, 3, 250)]);
    let second = part(0, 5, 9, 2, vec![charge(0, 5, 1)]);
    deliver(&ledger, vec![first.clone(), second.clone()]).await;
    let again = deliver(&ledger, vec![second, first]).await;
    assert_eq!(again, [outcome(AlreadyApplied, 9, ""), outcome(AlreadyApplied, 9, "")]);
    assert_eq!(usage(&ledger).await, (251, 2));
}

async fn a_replay_with_another_digest_is_a_conflict(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    deliver(&ledger, vec![part(0, 0, 5, 0xab, vec![charge(0, 3, 250)])]).await;
    let outcomes = deliver(&ledger, vec![part(0, 0, 5, 0xcd, vec![charge(0, 3, 999)])]).await;
    let (known, other) = ("ab".repeat(16), "cd".repeat(16));
    let reason = format!("[0, 5) was applied with 1 charges and digest {known}, and comes now with 1 and {other}");
    assert_eq!(outcomes, [outcome(Conflict, 5, &reason)]);
    assert_eq!(usage(&ledger).await, (250, 1));
}

async fn an_overlap_is_a_conflict(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    deliver(&ledger, vec![part(0, 0, 5, 1, vec![charge(0, 3, 250)])]).await;
    for (start, end, reason) in [
        (0, 4, "[0, 4) was applied as [0, 5)".to_owned()),
        (0, 6, "[0, 6) was applied as [0, 5)".to_owned()),
        (
            1,
            5,
            format!("[1, 5) overlaps what was applied up to 5, and is none of the {RANGES_KEPT} newest ranges"),
        ),
        (
            4,
            6,
            format!("[4, 6) overlaps what was applied up to 5, and is none of the {RANGES_KEPT} newest ranges"),
        ),
    ] {
        let outcomes = deliver(&ledger, vec![part(0, start, end, 1, vec![charge(0, 3.max(start), 1)])]).await;
        assert_eq!(outcomes, [outcome(Conflict, 5, &reason)]);
    }
    assert_eq!(usage(&ledger).await, (250, 1));
}

async fn a_range_too_old_to_be_known_is_a_conflict(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    let ranges = (0..1_250).map(|i| part(0, i, i + 1, 1, Vec::new()));
    let end = 1_250;
    for some in ranges.collect::<Vec<_>>().chunks(50) {
        deliver(&ledger, some.to_vec()).await;
    }
    let replay = |start| part(0, start, start + 1, 1, Vec::new());
    let outcomes = deliver(&ledger, vec![replay(249), replay(250), replay(1_249)]).await;
    assert_eq!(
        kinds(&outcomes),
        [(Conflict, end), (AlreadyApplied, end), (AlreadyApplied, end)]
    );
}

async fn a_range_after_the_cursor_is_a_gap(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    deliver(&ledger, vec![part(0, 0, 5, 1, Vec::new())]).await;
    let outcomes = deliver(
        &ledger,
        vec![part(0, 6, 9, 2, vec![charge(0, 7, 1)]), part(0, 9, 12, 3, Vec::new())],
    )
    .await;
    let expected = [
        outcome(Gap, 5, "[6, 9) starts after the cursor 5"),
        outcome(Gap, 5, "[9, 12) starts after the cursor 5"),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(
        (ledger.cursor(source(0)).await, usage(&ledger).await),
        (Ok(Some(5)), (0, 0))
    );
}

async fn an_empty_range_moves_the_cursor(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    assert_eq!(
        deliver(&ledger, vec![part(0, 0, 5, 1, Vec::new())]).await,
        [outcome(Applied, 5, "")]
    );
    assert_eq!(
        deliver(&ledger, vec![part(0, 0, 5, 1, Vec::new())]).await,
        [outcome(AlreadyApplied, 5, "")]
    );
    assert_eq!(ledger.cursor(source(0)).await, Ok(Some(5)));
    assert_eq!(all_entries(&ledger).await, []);
}

async fn one_refused_part_leaves_the_others_alone(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    deliver(&ledger, (0..4).map(|p| part(p, 0, 5, 1, Vec::new())).collect()).await;
    let mut other_unit = charge(2, 5, 100);
    other_unit.unit = "USD".to_owned();
    let parts = vec![
        part(0, 5, 9, 2, vec![charge(0, 5, 1)]),
        part(1, 4, 9, 2, vec![charge(1, 5, 10)]),
        part(2, 5, 9, 2, vec![charge(2, 8, 1_000), other_unit]),
        part(3, 6, 9, 2, vec![charge(3, 6, 10_000)]),
        part(0, 9, 10, 3, vec![charge(0, 9, 100_000)]),
    ];
    let outcomes = deliver(&ledger, parts).await;
    assert_eq!(
        kinds(&outcomes),
        [(Applied, 9), (Conflict, 5), (Conflict, 5), (Gap, 5), (Applied, 10)]
    );
    assert_eq!(usage(&ledger).await, (100_001, 2));
    assert_eq!(
        all_entries(&ledger)
            .await
            .iter()
            .map(|entry| entry.cursor)
            .collect::<Vec<_>>(),
        [1, 2]
    );
}

async fn pipelines_topics_and_partitions_have_cursors_of_their_own(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    let request = |pipeline: &str, topic: &str, partition: i32, end: i64| {
        let mut charge = charge(partition, 0, 1);
        charge.id = format!("{topic}/{partition}/0/0");
        let mut part = part(partition, 0, end, 1, vec![charge]);
        part.topic = topic.to_owned();
        let parts = vec![part];
        billing_sink::check(proto::delivery::v1::DeliverRequest {
            pipeline: pipeline.to_owned(),
            parts,
        })
        .expect("obeys")
    };
    let places = [("a", "t", 0), ("a", "t", 1), ("a", "u", 0), ("b", "t", 0)];
    for (end, (pipeline, topic, partition)) in (1..).zip(places) {
        let outcomes = ledger
            .deliver(request(pipeline, topic, partition, end))
            .await
            .expect("an answer");
        assert_eq!(outcomes, [outcome(Applied, end, "")]);
    }
    for (end, (pipeline, topic, partition)) in (1..).zip(places) {
        let source = billing_sink::source(pipeline.to_owned(), topic.to_owned(), partition).expect("a source");
        assert_eq!(ledger.cursor(source).await, Ok(Some(end)));
    }
    assert_eq!(usage(&ledger).await, (4, 4));
}

async fn a_meter_keeps_the_unit_and_scale_of_its_first_charge(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    deliver(&ledger, vec![part(0, 0, 5, 1, vec![charge(0, 3, 250)])]).await;
    let with = |change: fn(&mut Charge)| {
        let mut charge = charge(0, 5, 1);
        change(&mut charge);
        vec![part(0, 5, 9, 2, vec![charge])]
    };
    let outcomes = deliver(&ledger, with(|charge| charge.unit = "USD".to_owned())).await;
    let reason = "charge orders/0/5/0 of tenant \"acme\" is in \"USD\" with scale 2, but meter \"revenue\" counts in \"EUR\" with scale 2";
    assert_eq!(outcomes, [outcome(Conflict, 5, reason)]);
    let outcomes = deliver(&ledger, with(|charge| charge.scale = 3)).await;
    assert_eq!(kinds(&outcomes), [(Conflict, 5)]);
    // Another tenant's meter of the same name is another meter.
    let other = |charge: &mut Charge| (charge.tenant, charge.unit) = ("umbrella".to_owned(), "USD".to_owned());
    assert_eq!(kinds(&deliver(&ledger, with(other)).await), [(Applied, 9)]);
    let window = Window {
        tenant: "umbrella".to_owned(),
        meter: "revenue".to_owned(),
        event_time_ms: 0..9_999,
    };
    let expected = Usage {
        quantity: 1,
        scale: 2,
        unit: "USD".to_owned(),
        charges: 1,
    };
    assert_eq!(ledger.usage(window).await, Ok(expected));
}

async fn negative_and_extreme_quantities_are_kept_and_summed_exactly(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    let (max, min) = (i64::MAX, i64::MIN);
    let quantities = [max, max, 1, min, min, min, -1, 0, -5_000_000_000];
    let charges: Vec<Charge> = (0..)
        .zip(quantities)
        .map(|(offset, quantity)| charge(0, offset, quantity))
        .collect();
    deliver(&ledger, vec![part(0, 0, 9, 1, charges)]).await;
    let kept: Vec<i64> = all_entries(&ledger)
        .await
        .into_iter()
        .filter_map(|entry| Some(entry.charge?.quantity))
        .collect();
    assert_eq!(kept, quantities);
    let sum = |count: usize| {
        quantities
            .iter()
            .take(count)
            .map(|quantity| i128::from(*quantity))
            .sum::<i128>()
    };
    for count in 0..=quantities.len() {
        let end = 1_000 + i64::try_from(count).expect("small");
        let window = Window {
            tenant: "acme".to_owned(),
            meter: "revenue".to_owned(),
            event_time_ms: 0..end,
        };
        assert_eq!(
            ledger.usage(window).await.expect("an answer").quantity,
            sum(count),
            "of {count}"
        );
    }
}

async fn a_window_takes_its_start_and_leaves_its_end(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    let mut charges: Vec<Charge> = (0..5)
        .map(|offset| charge(0, offset, 10_i64.pow(offset as u32)))
        .collect();
    for (charge, time) in charges.iter_mut().zip([i64::MIN, -1, 0, 10, i64::MAX]) {
        charge.event_time_ms = time;
    }
    deliver(&ledger, vec![part(0, 0, 5, 1, charges)]).await;
    for (from, to, quantity) in [
        (0, 10, 100),
        (0, 11, 1_100),
        (-1, 10, 110),
        (1, 10, 0),
        (10, 10, 0),
        (i64::MIN, -1, 1),
        (10, i64::MAX, 1_000),
    ] {
        let window = Window {
            tenant: "acme".to_owned(),
            meter: "revenue".to_owned(),
            event_time_ms: from..to,
        };
        assert_eq!(
            ledger.usage(window).await.expect("an answer").quantity,
            quantity,
            "[{from}, {to})"
        );
    }
    for (tenant, meter) in [("acme", "other"), ("other", "revenue"), ("", "")] {
        let window = Window {
            tenant: tenant.to_owned(),
            meter: meter.to_owned(),
            event_time_ms: 0..10,
        };
        assert_eq!(ledger.usage(window).await, Ok(Usage::default()));
    }
}

async fn every_window_is_the_sum_of_the_charges_in_it(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    // Around the bounds of minutes, before 1970 too, and where i64 ends within one.
    let mut times: Vec<i64> = [-120_000, -60_000, 0, 60_000, 240_000]
        .into_iter()
        .flat_map(|bound| [bound - 1, bound, bound + 1])
        .collect();
    times.extend([i64::MIN, i64::MIN + 1, i64::MIN + 59_999, 30_000]);
    times.extend([i64::MAX - 59_999, i64::MAX - 1, i64::MAX]);
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random >> 1
    };
    let mut expected = Vec::new();
    for delivery in 0..4 {
        let parts = (0..3).map(|partition| {
            let offsets = 20 * delivery..20 * delivery + 20;
            let charges = offsets.clone().map(|offset| {
                let mut charge = charge(partition, offset, (next() << 1).cast_signed());
                charge.tenant = ["acme", "umbrella"][usize::try_from(next() % 2).expect("small")].to_owned();
                charge.event_time_ms = times[usize::try_from(next()).expect("64 bits") % times.len()];
                charge
            });
            let charges: Vec<Charge> = charges.collect();
            expected.extend(charges.clone());
            part(partition, offsets.start, offsets.end, 1, charges)
        });
        deliver(&ledger, parts.collect()).await;
    }
    // Inverted windows and empty ones are among them.
    for (start, end) in times
        .iter()
        .flat_map(|start| times.iter().map(move |end| (*start, *end)))
    {
        for tenant in ["acme", "umbrella"] {
            let within = |charge: &&Charge| charge.tenant == tenant && (start..end).contains(&charge.event_time_ms);
            let quantities = expected.iter().filter(within).map(|charge| charge.quantity);
            let window = Window {
                tenant: tenant.to_owned(),
                meter: "revenue".to_owned(),
                event_time_ms: start..end,
            };
            let expected = Usage {
                quantity: quantities.clone().map(i128::from).sum(),
                scale: 2,
                unit: "EUR".to_owned(),
                charges: quantities.count() as u64,
            };
            assert_eq!(ledger.usage(window).await, Ok(expected), "{tenant} [{start}, {end})");
        }
    }
}

async fn the_same_range_from_two_clients_is_charged_once(home: impl Home) {
    // Two services on one store, as after a restart whose old process still lives; four clients on each.
    let ledgers = [
        Arc::new(home.open().await.expect("opens")),
        Arc::new(home.open().await.expect("opens")),
    ];
    for round in 0..10 {
        let parts = vec![part(0, round, round + 1, 1, vec![charge(0, round, 1)])];
        let clients = (0..8).map(|client: usize| {
            let (ledger, parts) = (Arc::clone(&ledgers[client % 2]), parts.clone());
            tokio::spawn(async move { deliver(&*ledger, parts).await })
        });
        let mut answers = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            answers.extend(kinds(&client.await.expect("a client")));
        }
        answers.sort_by_key(|(kind, _)| *kind as i32);
        let mut expected = vec![(AlreadyApplied, round + 1); 8];
        expected[0] = (Applied, round + 1);
        assert_eq!(answers, expected);
    }
    assert_eq!(usage(&*ledgers[0]).await, (10, 10));
}

async fn texts_of_clients_come_back_as_they_were(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    // Longer than any index takes, and of bytes that don't compress.
    let mut random = 1_u64;
    let mut letter = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + u8::try_from((random >> 33) % 89).expect("below 89"))
    };
    let long: String = (0..1_000_000).map(|_| letter()).collect();
    let texts = [
        "",
        "\0",
        "a\0b",
        "\\",
        "\\0",
        "'; DROP TABLE charges; --",
        "ünï ☃ 🦀",
        "%_",
        &long,
    ];
    let charges = (0..).zip(texts).map(|(offset, text)| {
        let mut charge = charge(0, offset, offset + 1);
        let text = text.to_owned();
        (charge.tenant, charge.meter, charge.unit) = (text.clone(), text.clone(), text.clone());
        (charge.rule, charge.event_id, charge.rules_revision, charge.scale) = (text.clone(), text, u64::MAX, u32::MAX);
        charge
    });
    let charges: Vec<Charge> = charges.collect();
    let end = i64::try_from(texts.len()).expect("few");
    assert_eq!(
        kinds(&deliver(&ledger, vec![part(0, 0, end, 1, charges.clone())]).await),
        [(Applied, end)]
    );
    let read: Vec<Charge> = all_entries(&ledger)
        .await
        .into_iter()
        .filter_map(|entry| entry.charge)
        .collect();
    assert!(read == charges, "the texts differ");
    for (charge, text) in charges.iter().zip(texts) {
        let window = Window {
            tenant: text.to_owned(),
            meter: text.to_owned(),
            event_time_ms: 0..9_999,
        };
        let expected = Usage {
            quantity: charge.quantity.into(),
            scale: u32::MAX,
            unit: text.to_owned(),
            charges: 1,
        };
        assert!(ledger.usage(window).await == Ok(expected), "usage of {:.20?}", text);
        let filter = Filter {
            tenant: text.to_owned(),
            meter: text.to_owned(),
        };
        let found = ledger.entries(0, filter, 100).await.expect("an answer").entries.len();
        assert_eq!(found, if text.is_empty() { texts.len() } else { 1 });
    }
}

async fn entries_come_in_order_without_gaps_and_the_filter_skips_none(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    let mut expected = Vec::new();
    for offset in 0..10 {
        let mut charge = charge(0, offset, offset);
        charge.tenant = if offset % 3 == 0 {
            "acme".to_owned()
        } else {
            "umbrella".to_owned()
        };
        deliver(&ledger, vec![part(0, offset, offset + 1, 1, vec![charge.clone()])]).await;
        expected.push(UsageEntry {
            cursor: u64::try_from(offset).expect("positive") + 1,
            charge: Some(charge),
        });
    }
    for entries_max in [1, 3, 10, 100] {
        let (mut all, mut of_acme, mut after) = (Vec::new(), Vec::new(), 0);
        loop {
            let page = ledger
                .entries(after, Filter::default(), entries_max)
                .await
                .expect("an answer");
            let filter = Filter {
                tenant: "acme".to_owned(),
                meter: String::new(),
            };
            let filtered = ledger.entries(after, filter, entries_max).await.expect("an answer");
            assert_eq!((page.read_to, page.newest), (filtered.read_to, 10));
            if page.read_to == after {
                break;
            }
            after = page.read_to;
            all.extend(page.entries);
            of_acme.extend(filtered.entries);
        }
        assert_eq!(all, expected);
        assert_eq!(
            of_acme.iter().map(|entry| entry.cursor).collect::<Vec<_>>(),
            [1, 4, 7, 10]
        );
    }
    let page = ledger.entries(11, Filter::default(), 5).await.expect("an answer");
    assert_eq!((page.entries, page.read_to, page.newest), (Vec::new(), 11, 10));
    assert_eq!(
        ledger
            .entries(u64::MAX, Filter::default(), 5)
            .await
            .expect("an answer")
            .read_to,
        u64::MAX
    );
}

async fn a_reader_beside_many_writers_sees_each_entry_once_and_in_order(home: impl Home) {
    const WRITERS: i32 = 6;
    const RANGES: i64 = 15;
    let ledgers = [
        Arc::new(home.open().await.expect("opens")),
        Arc::new(home.open().await.expect("opens")),
    ];
    let writers: Vec<_> = (0..WRITERS)
        .map(|partition| {
            let ledger = Arc::clone(&ledgers[usize::try_from(partition % 2).expect("positive")]);
            tokio::spawn(async move {
                for i in 0..RANGES {
                    let charges = (0..3).map(|n| charge(partition, 3 * i + n, 1)).collect();
                    let outcomes = deliver(&*ledger, vec![part(partition, 3 * i, 3 * i + 3, 1, charges)]).await;
                    assert_eq!(kinds(&outcomes), [(Applied, 3 * i + 3)]);
                }
            })
        })
        .collect();
    let total = u64::try_from(i64::from(WRITERS) * RANGES * 3).expect("positive");
    let mut seen = Vec::new();
    while (seen.len() as u64) < total {
        let after = seen.len() as u64;
        let page = ledgers[0]
            .entries(after, Filter::default(), 7)
            .await
            .expect("an answer");
        let expected: Vec<u64> = (after + 1..=page.read_to).collect();
        assert_eq!(
            page.entries.iter().map(|entry| entry.cursor).collect::<Vec<_>>(),
            expected
        );
        seen.extend(
            page.entries
                .into_iter()
                .filter_map(|entry| entry.charge)
                .map(|charge| charge.id),
        );
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    let mut expected: Vec<String> = (0..WRITERS)
        .flat_map(|p| (0..RANGES * 3).map(move |offset| format!("orders/{p}/{offset}/0")))
        .collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
}

async fn charges_are_listed_by_offset_in_pages(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    let mut charges = Vec::new();
    for (offset, n) in [(2, 0), (2, 10), (2, 9), (0, 0), (7, 1)] {
        charges.push(Charge {
            id: format!("orders/0/{offset}/{n}"),
            ..charge(0, offset, n)
        });
    }
    deliver(
        &ledger,
        vec![part(0, 0, 9, 1, charges), part(1, 0, 9, 1, vec![charge(1, 2, 5)])],
    )
    .await;
    let mut page = ChargesPage {
        offsets: 0..7,
        after: None,
        charges_max: 2,
    };
    let mut listed = Vec::new();
    loop {
        let charges = ledger.charges(source(0), page.clone()).await.expect("an answer");
        let Some(last) = charges.last() else { break };
        page.after = Some((last.offset, u32::try_from(last.quantity).expect("n")));
        listed.push(charges.into_iter().map(|charge| charge.id).collect::<Vec<_>>());
    }
    assert_eq!(
        listed,
        [
            vec!["orders/0/0/0", "orders/0/2/0"],
            vec!["orders/0/2/9", "orders/0/2/10"]
        ]
    );
    let elsewhere = ChargesPage {
        offsets: i64::MIN..i64::MAX,
        after: None,
        charges_max: 9,
    };
    assert_eq!(ledger.charges(source(2), elsewhere).await, Ok(Vec::new()));
}

async fn everything_is_there_after_the_ledger_is_opened_again(home: impl Home) {
    let first = part(0, 0, 5, 1, vec![charge(0, 3, 250)]);
    let before = {
        let ledger = home.open().await.expect("opens");
        deliver(&ledger, vec![first.clone()]).await;
        all_entries(&ledger).await
    };
    let ledger = home.open().await.expect("opens again");
    assert_eq!(all_entries(&ledger).await, before);
    assert_eq!(ledger.ping().await, Ok(()));
    assert_eq!(deliver(&ledger, vec![first]).await, [outcome(AlreadyApplied, 5, "")]);
    assert_eq!(
        deliver(&ledger, vec![part(0, 5, 6, 2, vec![charge(0, 5, 1)])]).await,
        [outcome(Applied, 6, "")]
    );
    assert_eq!(
        all_entries(&ledger)
            .await
            .iter()
            .map(|entry| entry.cursor)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(ledger.deliver(checked(Vec::new())).await, Ok(Vec::new()));
}

async fn a_cursor_is_moved_ahead_and_back_and_made_where_there_was_none(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    deliver(&ledger, vec![part(0, 0, 5, 1, vec![charge(0, 3, 250)])]).await;
    // What lies between counts as applied: a gap is none any more.
    assert_eq!(ledger.move_cursor(source(0), 20).await, Ok(Moved::From(Some(5))));
    let later = part(0, 20, 30, 2, Vec::new());
    assert_eq!(deliver(&ledger, vec![later]).await, [outcome(Applied, 30, "")]);
    // Back to where no charge lies behind: the same offsets come in other ranges, and are no repetition and no conflict.
    assert_eq!(ledger.move_cursor(source(0), 4).await, Ok(Moved::From(Some(30))));
    assert_eq!(ledger.cursor(source(0)).await, Ok(Some(4)));
    let again = part(0, 4, 22, 3, vec![charge(0, 20, 7)]);
    assert_eq!(deliver(&ledger, vec![again]).await, [outcome(Applied, 22, "")]);
    // A store that has lost a partition.
    assert_eq!(ledger.move_cursor(source(1), 40).await, Ok(Moved::From(None)));
    let next = part(1, 40, 50, 1, vec![charge(1, 41, 1)]);
    assert_eq!(deliver(&ledger, vec![next]).await, [outcome(Applied, 50, "")]);
    // Its number is its own: other partitions and meters get others.
    let other = part(2, 0, 5, 1, vec![charge(2, 1, 1)]);
    assert_eq!(deliver(&ledger, vec![other]).await, [outcome(Applied, 5, "")]);
    assert_eq!(usage(&ledger).await, (259, 4));
}

async fn a_cursor_does_not_go_back_past_charges(home: impl Home) {
    let ledger = home.open().await.expect("opens");
    let charges = vec![charge(0, 3, 250), charge(0, 7, 1), charge(0, 8, 1)];
    deliver(&ledger, vec![part(0, 0, 10, 1, charges)]).await;
    assert_eq!(ledger.move_cursor(source(0), 7).await, Ok(Moved::Charged(2)));
    assert_eq!(ledger.cursor(source(0)).await, Ok(Some(10)));
    assert_eq!(ledger.move_cursor(source(0), 9).await, Ok(Moved::From(Some(10))));
    assert_eq!(usage(&ledger).await, (252, 3));
}
