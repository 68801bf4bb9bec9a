//! No metadata whatever makes the codec of promises panic, or take more memory than a page or two.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../fuzz/bodies/counted.rs"]
mod counted;
#[path = "../../../fuzz/bodies/promise.rs"]
mod promise;

use exactly_once_protocol::{METADATA_CHARS_MAX, Marks, Metadata, Promise};
use proptest::prelude::*;

#[global_allocator]
static COUNTED: counted::Counted = counted::Counted;

/// What reading one text and writing it again may take: a list of numbers of one digit is written with sixteen for each,
/// in a text of its own that is then joined with the others.
const READ_BYTES_MAX: usize = 64 * METADATA_CHARS_MAX;

fn whole() -> String {
    let promise = Promise {
        marks: Marks {
            topic: Some(7),
            sinks: vec![1, 2],
        },
        start: 100,
        end: 250,
        outputs: 150,
        digest: 5,
        rules: (3, 4),
        pipeline: 6,
        token: 8,
        attempt: 1,
        deadline_ms: 1_795_228_766_362,
        fed: 90,
        unknown_schemas: vec![9, 10],
    };
    Metadata::Promised(promise).encode()
}

/// Texts that no number is, or that is too large, and lists that are too long.
fn field() -> impl Strategy<Value = String> {
    let odd = [
        "",
        "-",
        "+",
        "0",
        "-1",
        "+5",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "18446744073709551615",
        "340282366920938463463374607431768211456",
        "ffffffffffffffffffffffffffffffff",
        "fffffffffffffffffffffffffffffffff",
        "+ffff",
        "0x1f",
        "1e9",
        " 1",
        ",",
        "1,",
        ",,,,",
        "s1",
        "s2",
        "s3",
        "s4",
        "s99999999999999999999",
    ];
    prop_oneof![
        3 => prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
        1 => (1_usize..3000).prop_map(|count| vec!["1"; count].join(",")),
        1 => (1_usize..5000).prop_map(|count| "9".repeat(count)),
        1 => "[0-9a-fA-F,;+-]{0,40}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_promise_with_other_fields_and_a_checksum_that_fits_never_panics_and_stays_small(
        changes in prop::collection::vec((any::<prop::sample::Index>(), field()), 1..4),
        version in prop::sample::select(vec!["s1", "s2", "s3"]),
        kept in 3_usize..17,
    ) {
        let text = whole();
        let mut fields: Vec<String> = text.split(';').take(kept).map(str::to_owned).collect();
        fields[0] = version.to_owned();
        for (at, field) in changes {
            let at = at.index(fields.len());
            fields[at] = field;
        }
        let text = fields.join(";") + ";";
        let ((), bytes) = counted::peak(|| promise::promise(text.as_bytes()));
        prop_assert!(bytes < READ_BYTES_MAX, "{bytes} bytes for {} of {text}", text.len());
    }

    #[test]
    fn arbitrary_bytes_behind_a_version_never_panic(
        version in prop::sample::select(vec!["s1;", "s2;", "s3;", "s", ""]),
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        promise::promise(&[version.as_bytes(), &bytes].concat());
    }
}

#[test]
fn a_text_beyond_the_brokers_limit_is_refused_before_it_is_taken_apart() {
    let long = format!("s3;{};", ";1".repeat(1 << 20));
    let (read, bytes) = counted::peak(|| Metadata::decode(long.as_bytes()));
    assert_eq!(
        read.unwrap_err().to_string(),
        format!("the metadata is not a promise: {} bytes long", long.len())
    );
    assert!(bytes < 1024, "{bytes}");
}
