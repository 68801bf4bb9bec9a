use proto::delivery::v1::Charge;

use super::*;

fn part(start: i64, end: i64, charges: &[(&str, u32)]) -> CheckedPart {
    let source = Source {
        pipeline: "p".to_owned(),
        topic: "t".to_owned(),
        partition: 0,
    };
    let charges = charges.iter().enumerate().map(|(n, (unit, scale))| {
        let n = u32::try_from(n).unwrap();
        let id = crate::check::id(&source, start, n);
        let (meter, unit, scale) = (format!("in {unit}"), (*unit).to_owned(), *scale);
        Arc::new(CheckedCharge {
            n,
            key: MeterKey::of("acme", &meter),
            charge: Charge {
                id,
                tenant: "acme".to_owned(),
                meter,
                unit,
                scale,
                offset: start,
                ..Charge::default()
            },
        })
    });
    let charges = charges.collect();
    CheckedPart {
        source,
        start,
        end,
        digest: [1; 16],
        first: true,
        charges,
    }
}

fn kinds(decided: &Decided) -> Vec<(Kind, i64)> {
    decided
        .outcomes
        .iter()
        .map(|outcome| (outcome.kind(), outcome.cursor))
        .collect()
}

/// What a store would hold after `decided`, as far as the next decision needs it.
fn after(decided: &Decided) -> Held {
    Held {
        head: decided.head,
        sources: decided
            .sources
            .iter()
            .map(|row| (row.source.clone(), row.clone()))
            .collect(),
        ranges: decided
            .ranges
            .iter()
            .map(|row| ((row.source_id, row.start), row.clone()))
            .collect(),
        meters: decided.meters.iter().map(|row| (row.key, row.clone())).collect(),
    }
}

#[test]
fn the_same_range_twice_in_one_transaction_is_charged_once() {
    let decided = decide(
        Held::default(),
        vec![part(0, 5, &[("EUR", 2)]), part(0, 5, &[("EUR", 2)])],
    );
    assert_eq!(kinds(&decided), [(Kind::Applied, 5), (Kind::AlreadyApplied, 5)]);
    assert_eq!(decided.charges.len(), 1);
    assert_eq!(decided.head, Head { cursor: 1, id: 2 });
}

#[test]
fn parts_of_one_partition_continue_each_other() {
    let decided = decide(
        Held::default(),
        vec![part(3, 5, &[]), part(5, 9, &[("EUR", 2), ("USD", 2)])],
    );
    assert_eq!(kinds(&decided), [(Kind::Applied, 5), (Kind::Applied, 9)]);
    assert_eq!(
        decided
            .sources
            .iter()
            .map(|row| (row.id, row.cursor, row.ranges))
            .collect::<Vec<_>>(),
        [(1, 9, 2)]
    );
    let charges = decided
        .charges
        .iter()
        .map(|row| (row.cursor, row.meter_id, row.charge.charge.unit.as_str()));
    assert_eq!(charges.collect::<Vec<_>>(), [(1, 2, "EUR"), (2, 3, "USD")]);
}

#[test]
fn a_part_that_contradicts_itself_pins_nothing() {
    let mut torn = part(0, 5, &[("EUR", 2), ("USD", 0), ("USD", 0)]);
    Arc::make_mut(&mut torn.charges[2]).charge.scale = 1;
    let decided = decide(Held::default(), vec![torn]);
    assert_eq!(kinds(&decided), [(Kind::Conflict, NO_CURSOR)]);
    assert_eq!(
        decided.outcomes[0].reason,
        "charge t/0/0/2 of tenant \"acme\" is in \"USD\" with scale 1, but meter \"in USD\" counts in \"USD\" with scale 0"
    );
    assert_eq!(
        Decided {
            outcomes: Vec::new(),
            ..decided
        },
        Decided::default()
    );
}

#[test]
fn equal_digests_over_another_number_of_charges_are_a_conflict() {
    let held = after(&decide(Held::default(), vec![part(0, 5, &[("EUR", 2)])]));
    let decided = decide(held, vec![part(0, 5, &[])]);
    assert_eq!(kinds(&decided), [(Kind::Conflict, 5)]);
    let digest = "01".repeat(16);
    assert_eq!(
        decided.outcomes[0].reason,
        format!("[0, 5) was applied with 1 charges and digest {digest}, and comes now with 0 and {digest}")
    );
}

#[test]
fn old_ranges_are_forgotten_some_at_a_time() {
    let parts = (0..RANGES_KEPT + 2 * RANGES_REMOVED_AT_ONCE)
        .map(|i| part(i, i + 1, &[]))
        .collect();
    let decided = decide(Held::default(), parts);
    assert_eq!(
        decided.forget,
        [(1, RANGES_REMOVED_AT_ONCE), (1, 2 * RANGES_REMOVED_AT_ONCE)]
    );
    assert_eq!(
        decided.ranges.last().map(|row| (row.number, row.end)),
        Some((1_500, 1_500))
    );
}
