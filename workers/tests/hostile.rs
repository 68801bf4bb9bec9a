//! No record whatever makes the frame or the decoder panic, leaves a trace of a row that was refused, or takes more
//! memory than a fixed amount and a multiple of its own length.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../fuzz/bodies/counted.rs"]
mod counted;
#[path = "../../fuzz/bodies/decode.rs"]
#[allow(dead_code)]
mod hostile;
#[path = "../../fuzz/bodies/grow.rs"]
mod grow;

use hostile::{NUMBERS, World, worlds};
use proptest::prelude::*;
use workers::decode::{Columns, TEXT_BYTES_MAX, ZERO_WIDTH_ITEMS_MAX};
use workers::{decode, frame};

#[global_allocator]
static COUNTED: counted::Counted = counted::Counted;

/// What one byte of a payload may take: one item of a list of decimals is sixteen bytes in a column and in a vector
/// that grows by doubling, which for a moment is there twice.
const BYTES_FOR_ONE: usize = 64;
/// What a row of few bytes may take where no item is without bytes of its own.
const PLAIN_BYTES_MAX: usize = 64 << 10;
/// What a row of few bytes may take where text and items grow out of nothing: both limits, in a vector that grows.
const GROWN_BYTES_MAX: usize = 3 * (TEXT_BYTES_MAX + 32 * ZERO_WIDTH_ITEMS_MAX as usize);

fn bytes_max(world: &World, payload: &[u8]) -> usize {
    let fixed = if world.name == "everything" {
        GROWN_BYTES_MAX
    } else {
        PLAIN_BYTES_MAX
    };
    fixed + BYTES_FOR_ONE * payload.len()
}

/// Everything that holds for a payload, and what decoding it takes.
fn check(world: &World, payload: &[u8]) {
    hostile::decode(world, payload);
    let mut columns = Columns::new(&world.shape);
    let (outcome, bytes) = counted::peak(|| world.plan.decode(&mut columns, payload));
    assert!(
        bytes <= bytes_max(world, payload),
        "{bytes} bytes for {} of {}: {outcome:?}",
        payload.len(),
        world.name
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic_whatever_the_schema(
        world in any::<prop::sample::Index>(),
        payload in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        check(&worlds()[world.index(worlds().len())], &payload);
    }

    #[test]
    fn a_valid_payload_made_wrong_never_panics_and_leaves_no_trace(
        world in any::<prop::sample::Index>(),
        choices in prop::collection::vec(any::<u8>(), 0..200),
        edits in prop::collection::vec(any::<u8>(), 0..18),
    ) {
        let world = &worlds()[world.index(worlds().len())];
        let grown = grow::grow(&world.schema, &choices);
        prop_assert!(world.plan.decode(&mut Columns::new(&world.shape), &grown.bytes).is_ok());
        check(world, &hostile::edited(&grown, &edits));
    }

    #[test]
    fn no_value_and_no_header_whatever_make_the_frame_panic(
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..12)),
        header in prop::option::of(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..8),
            "[0-9]{0,30}".prop_map(String::into_bytes),
        ]),
    ) {
        hostile::framed(value.as_deref(), header.as_deref());
    }
}

/// Every length, count, branch and symbol of a large payload, each replaced by each number that no reader may believe.
#[test]
fn no_number_of_a_payload_is_believed() {
    let choices: Vec<u8> = (0..600_u32).map(|at| (at * 7 + at / 5) as u8).collect();
    let mut replaced = 0;
    for world in worlds() {
        let grown = grow::grow(&world.schema, &choices);
        for place in &grown.numbers {
            for number in NUMBERS {
                let mut payload = grown.bytes.clone();
                payload.splice(place.clone(), grow::long(number));
                check(world, &payload);
                replaced += 1;
            }
        }
    }
    assert!(replaced > 1000, "{replaced}");
}

/// The payload of a row of `everything` in which one field is these bytes.
fn with_field(field: &str, value: &[u8]) -> Vec<u8> {
    grow::with_field(&worlds().last().unwrap().schema, field, value)
}

#[test]
fn what_takes_the_most_memory_for_its_bytes_stays_within_the_bound() {
    let world = worlds().last().unwrap();
    let long = grow::long;
    let block = |count: usize, item: &[u8]| [long(count as i64), item.repeat(count), long(0)].concat();
    for (field, value) in [
        ("longs", block(100_000, &[0])),
        ("optional_ints", block(100_000, &[0])),
        ("prices", block(100_000, &[0])),
        ("choices", block(100_000, &[2])),
        ("lists", block(100_000, &[0])),
        ("zeros", block(ZERO_WIDTH_ITEMS_MAX as usize, &[])),
        ("nothings", block(ZERO_WIDTH_ITEMS_MAX as usize, &[])),
        ("empties", block(ZERO_WIDTH_ITEMS_MAX as usize, &[])),
        ("texts", block(50_000, &[2, 1, 0])),
        ("maps", block(50_000, &[2, 1, 0])),
        ("tree", [long(0), block(100_000, &[0, 0, 0, 0]), vec![0, 0]].concat()),
        ("mixed", [long(3), block(100_000, &[0])].concat()),
    ] {
        check(world, &with_field(field, &value));
    }
}

#[test]
fn a_value_nested_without_end_is_refused_on_a_small_stack() {
    let world = worlds().last().unwrap();
    // `next`, a list of lists of trees, a map of maps of trees.
    for level in [&[0, 0, 0, 2][..], &[0, 2][..], &[0, 0, 2, 0][..]] {
        let payload = with_field("tree", &level.repeat(100_000));
        let refused = std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
            let mut columns = Columns::new(&world.shape);
            world.plan.decode(&mut columns, &payload).unwrap_err().code
        });
        assert_eq!(refused.unwrap().join().unwrap(), "too_deep");
    }
}
