//! What holds for any record: its frame, and its bytes against the shop's schemas and one that is nothing like them.
//! The crate that takes this in has the product's `decode` and `frame` at its root.

use std::path::Path;
use std::sync::LazyLock;

use apache_avro::Schema;
use pipeline::Source;
use pipeline::shape::Shape;

use crate::decode::{Columns, Plan};
use crate::frame::frame;
use crate::grow::{Grown, grow, long};

/// One schema, with the whole of its columns and with a single one of them.
pub struct World {
    pub name: &'static str,
    pub schema: Schema,
    pub shape: Shape,
    pub plan: Plan,
    /// A table that lags behind: all fields but one have no column.
    narrow: (Shape, Plan),
}

/// The shop's schemas first, then `everything`.
pub fn worlds() -> &'static [World] {
    static WORLDS: LazyLock<Vec<World>> = LazyLock::new(|| {
        let texts = [
            ("order", include_str!("../../proto/avro/order.created.v2.avsc")),
            ("payment", include_str!("../../proto/avro/payment.processed.v1.avsc")),
            ("pageview", include_str!("../../proto/avro/user.pageview.v2.avsc")),
            ("session", include_str!("../../proto/avro/session.end.v1.avsc")),
            ("error", include_str!("../../proto/avro/error.captured.v1.avsc")),
            ("everything", include_str!("everything.avsc")),
        ];
        texts.map(|(name, text)| world(name, text)).into()
    });
    &WORLDS
}

fn world(name: &'static str, text: &str) -> World {
    let schema = Schema::parse_str(text).unwrap();
    let shape = Shape::of(std::slice::from_ref(&schema)).unwrap();
    let plan = Plan::compile(&schema, &shape).unwrap();
    let one = r#"{"type":"record","name":"One","fields":[{"name":"never_written","type":["null","long"]}]}"#;
    let lagging = Shape::of(&[Schema::parse_str(one).unwrap()]).unwrap();
    let narrow = Plan::compile(&schema, &lagging).unwrap();
    World {
        name,
        schema,
        shape,
        plan,
        narrow: (lagging, narrow),
    }
}

/// The first byte chooses the schema, the second whether the others are a payload as they are, or decide what one
/// looks like; then the third says how many of the last are edits of it.
pub fn record(bytes: &[u8]) {
    let [world, mode, rest @ ..] = bytes else { return };
    let worlds = worlds();
    let world = &worlds[usize::from(*world) % worlds.len()];
    match (mode % 4, rest) {
        (0, payload) => decode(world, payload),
        (1, [edits, rest @ ..]) => {
            let edits = rest.len().min(usize::from(*edits) % 32);
            let (choices, edits) = rest.split_at(rest.len() - edits);
            decode(world, &edited(&grow(&world.schema, choices), edits));
        }
        (2, [header, rest @ ..]) => {
            let header = rest.len().min(usize::from(*header) % 8);
            let (header, value) = rest.split_at(header);
            framed(Some(value), Some(header));
        }
        (_, value) => framed(Some(value), None),
    }
}

/// What no reader may believe.
pub const NUMBERS: [i64; 12] = [
    0,
    1,
    -1,
    -2,
    64,
    65_537,
    i32::MAX as i64,
    i32::MAX as i64 + 1,
    1 << 40,
    i64::MAX,
    i64::MIN,
    i64::MIN + 1,
];

/// A valid payload with some of it made wrong, three bytes for each edit.
pub fn edited(grown: &Grown, edits: &[u8]) -> Vec<u8> {
    let mut bytes = grown.bytes.clone();
    // From the end on, so that the places before an edit stay what they were.
    let mut numbers: Vec<(usize, i64)> = Vec::new();
    for edit in edits.chunks_exact(3) {
        let (place, value) = (usize::from(edit[1]), edit[2]);
        match edit[0] % 4 {
            0 if !bytes.is_empty() => {
                let place = place * 31 % bytes.len();
                bytes[place] ^= value;
            }
            1 if !grown.numbers.is_empty() => {
                numbers.push((place % grown.numbers.len(), NUMBERS[usize::from(value) % NUMBERS.len()]))
            }
            2 => bytes.truncate(bytes.len() - (place * usize::from(value)).min(bytes.len())),
            _ => bytes.extend(std::iter::repeat_n(value, place)),
        }
    }
    numbers.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
    for (number, value) in numbers {
        let place = grown.numbers[number].clone();
        if place.end <= bytes.len() {
            bytes.splice(place, long(value));
        }
    }
    bytes
}

/// Decodes a payload between two good rows: whatever becomes of it, they are what they would be without it.
pub fn decode(world: &World, payload: &[u8]) {
    let good = grow(&world.schema, &[1; 64]).bytes;
    let mut columns = Columns::new(&world.shape);
    world.plan.decode(&mut columns, &good).unwrap();
    let before = columns.bytes();
    let outcome = world.plan.decode(&mut columns, payload);
    match &outcome {
        Ok(()) => assert_eq!(columns.len(), 2),
        Err(error) => {
            assert_eq!((columns.len(), columns.bytes()), (1, before), "{error}");
            assert!(error.reason.len() < 200 && !error.code.is_empty(), "{error}");
        }
    }
    world.plan.decode(&mut columns, &good).unwrap();
    let batch = columns.finish().unwrap();
    assert_eq!(batch.num_rows(), 2 + usize::from(outcome.is_ok()));
    let mut untouched = Columns::new(&world.shape);
    world.plan.decode(&mut untouched, &good).unwrap();
    let alone = untouched.finish().unwrap();
    assert_eq!(batch.slice(0, 1), alone);
    assert_eq!(batch.slice(batch.num_rows() - 1, 1), alone);
    lagging(world, payload, outcome.err().map(|error| error.code));
}

/// A table that lags behind does not decide what a dead letter is.
fn lagging(world: &World, payload: &[u8], code: Option<&'static str>) {
    let (shape, plan) = &world.narrow;
    let mut columns = Columns::new(shape);
    let narrow = plan.decode(&mut columns, payload).err().map(|error| error.code);
    assert_eq!(narrow, code, "{}", world.name);
    assert_eq!(columns.finish().unwrap().num_rows(), usize::from(narrow.is_none()));
}

fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let text = include_str!("../../examples/shop/pipeline.yaml");
        let words = ["auto", "prefix", "header"];
        let source = |word: &str| {
            let text = text.replace("schema_id: header}", &format!("schema_id: {word}}}"));
            let pipeline = pipeline::check("pipeline.yaml", &text, Path::new(".")).unwrap();
            pipeline.sources[2].clone()
        };
        words.map(source).into()
    });
    &SOURCES
}

/// Whatever is found is the end of the value.
pub fn framed(value: Option<&[u8]>, header: Option<&[u8]>) {
    for source in sources() {
        match (frame(source, value, header), value) {
            (Ok((_, body)), Some(value)) => assert!(value.ends_with(body)),
            (Ok(_), None) => panic!("a record without a value has no frame"),
            (Err(fault), _) => assert!(!fault.code().is_empty() && !fault.reason().is_empty()),
        }
    }
}
