//! The same bytes through the plan and through `apache-avro` must be the same row, or no row in both.

use apache_avro::Schema;
use proptest::prelude::*;

use super::generate::{Choices, event, schema, value};
use super::oracle;
use super::{Columns, encode, ready};
use crate::decode::Plan;
use pipeline::shape::Shape;

/// Faults of which `apache-avro` knows nothing: our limits.
const LIMITS: [&str; 3] = ["too_large", "too_deep", "decimal_out_of_range"];

struct World {
    schema: Schema,
    shape: Shape,
    plan: Plan,
    payloads: Vec<Vec<u8>>,
}

fn world(choices: &[u8]) -> World {
    let mut choices = Choices::new(choices);
    let model = event(&mut choices);
    let schema = Schema::parse(&schema(&model)).unwrap();
    let (shape, plan, _) = ready(&schema);
    let payloads = (0..4).map(|_| encode(&schema, &value(&model, &mut choices))).collect();
    World {
        schema,
        shape,
        plan,
        payloads,
    }
}

/// Decodes all payloads, good and bad, and compares row by row.
fn compare(world: &World, payloads: &[Vec<u8>]) {
    let mut columns = Columns::new(&world.shape);
    let mut expected = Vec::new();
    for payload in payloads {
        let decoded = world.plan.decode(&mut columns, payload);
        match (decoded, oracle::decode(&world.schema, payload)) {
            (Ok(()), Some(value)) => expected.push(oracle::row(&world.shape, &value)),
            (Err(_), None) => {}
            (Err(error), Some(_)) if LIMITS.contains(&error.code) => {}
            (ours, theirs) => panic!("{ours:?} but {theirs:?} of {payload:?}"),
        }
        assert_eq!(columns.len(), expected.len());
        assert!(columns.columns.iter().all(|column| column.len() == expected.len()));
    }
    let batch = columns.finish().unwrap();
    assert_eq!(batch.num_rows(), expected.len());
    for (row, expected) in expected.iter().enumerate() {
        assert_eq!(&oracle::batch_row(&world.shape, &batch, row), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_values_of_generated_schemas_become_the_rows_that_apache_avro_sees(
        choices in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let world = world(&choices);
        for payload in &world.payloads {
            prop_assert!(world.plan.decode(&mut Columns::new(&world.shape), payload).is_ok());
        }
        compare(&world, &world.payloads);
    }

    #[test]
    fn flipped_bytes_give_the_row_or_the_refusal_that_apache_avro_gives(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let world = world(&choices);
        let mut payloads = world.payloads.clone();
        for (number, (place, byte)) in flips.iter().enumerate() {
            let mut flipped = world.payloads[number % world.payloads.len()].clone();
            let place = place.index(flipped.len());
            flipped[place] ^= byte;
            payloads.push(flipped);
        }
        compare(&world, &payloads);
    }

    #[test]
    fn a_record_cut_anywhere_is_refused_and_leaves_the_columns_as_they_were(
        choices in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let world = world(&choices);
        let (mut columns, mut untouched) = (Columns::new(&world.shape), Columns::new(&world.shape));
        for payload in &world.payloads {
            world.plan.decode(&mut columns, payload).unwrap();
            world.plan.decode(&mut untouched, payload).unwrap();
            for cut in 0..payload.len() {
                let error = world.plan.decode(&mut columns, &payload[..cut]).unwrap_err();
                prop_assert_eq!(error.code, "truncated");
                // As text: a NaN is not equal to itself.
                prop_assert_eq!(format!("{:?}", columns.columns), format!("{:?}", untouched.columns));
            }
        }
    }
}
