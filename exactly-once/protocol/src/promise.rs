//! The promise: what will be delivered for one range, and by when. It is committed as the metadata of the range's start
//! offset before anything leaves the process.

use thiserror::Error;

/// Kafka's default limit of `offset.metadata.max.bytes`.
pub const METADATA_CHARS_MAX: usize = 4096;

/// A batch is closed before one of its ranges has more unknown schema ids than this, so that the promise fits.
pub const UNKNOWN_SCHEMAS_MAX: usize = 64;

const VERSION: &str = "s1";
const FIELDS: usize = 13;

/// What will be delivered for `[start, end)` of one partition.
///
/// **Invariant:** everything that decides the bytes of a delivery is either in the log or in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// First offset.
    pub start: i64,
    /// One past the last offset.
    pub end: i64,
    /// Rows, alerts, charges and dead letters together.
    pub outputs: u32,
    /// Digest over all outputs in log order.
    pub digest: u128,
    /// Rules revision: number, and digest of its content.
    pub rules: (u64, u64),
    /// Revision of the pipeline file.
    pub pipeline: u64,
    /// Names the attempt in insert tokens and query ids.
    pub token: u64,
    /// 0 for the first promise of a range, one more each time it is promised again.
    pub attempt: u16,
    /// The sink's clock, Unix milliseconds: no insert of this promise may start after it.
    pub deadline_ms: i64,
    /// Schema ids that were definitely unknown when the range was transformed, ascending.
    pub unknown_schemas: Vec<u32>,
}

/// Why a text is not a promise. Nothing is guessed from such a text: the partition stops.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PromiseFault {
    /// Written by a version that this one does not know.
    #[error("the metadata is of version `{0}`, this program reads version `{VERSION}`")]
    Version(String),
    /// Cut, or not Sluice's at all.
    #[error("the metadata is not a promise: {0}")]
    Foreign(String),
    /// The checksum does not match.
    #[error("the metadata's checksum does not match its text")]
    Checksum,
}

impl Promise {
    /// ASCII text for the offset's metadata: version first, checksum last, about 200 characters.
    pub fn encode(&self) -> String {
        let unknown = self
            .unknown_schemas
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(",");
        let body = format!(
            "{VERSION};{};{};{};{:032x};{};{:016x};{:016x};{:016x};{};{};{};",
            self.start,
            self.end,
            self.outputs,
            self.digest,
            self.rules.0,
            self.rules.1,
            self.pipeline,
            self.token,
            self.attempt,
            self.deadline_ms,
            unknown,
        );
        let crc = crc32fast::hash(body.as_bytes());
        format!("{body}{crc:08x}")
    }

    /// Reads the metadata of a committed offset. Empty metadata means that nothing is pending.
    pub fn decode(metadata: &[u8]) -> Result<Option<Promise>, PromiseFault> {
        if metadata.is_empty() {
            return Ok(None);
        }
        if metadata.len() > METADATA_CHARS_MAX {
            return Err(PromiseFault::Foreign(format!("{} bytes long", metadata.len())));
        }
        let text = std::str::from_utf8(metadata)
            .ok()
            .filter(|text| text.is_ascii())
            .ok_or_else(|| PromiseFault::Foreign("not ASCII".into()))?;
        let fields: Vec<&str> = text.split(';').collect();
        if !fields[0].starts_with('s') || !fields[0][1..].bytes().all(|b| b.is_ascii_digit()) || fields[0].len() < 2 {
            return Err(PromiseFault::Foreign("it does not begin with a version".into()));
        }
        if fields[0] != VERSION {
            return Err(PromiseFault::Version(fields[0].chars().take(16).collect()));
        }
        if fields.len() != FIELDS {
            return Err(PromiseFault::Foreign(format!(
                "{} fields instead of {FIELDS}",
                fields.len()
            )));
        }
        let body = &text[..text.len() - fields[FIELDS - 1].len()];
        if fields[FIELDS - 1] != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
            return Err(PromiseFault::Checksum);
        }
        Self::from_fields(&fields).map(Some)
    }

    fn from_fields(fields: &[&str]) -> Result<Promise, PromiseFault> {
        fn decimal<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, PromiseFault> {
            text.parse()
                .map_err(|_| PromiseFault::Foreign(format!("{name} is not a number")))
        }
        fn hex(text: &str, name: &str) -> Result<u128, PromiseFault> {
            u128::from_str_radix(text, 16).map_err(|_| PromiseFault::Foreign(format!("{name} is not hexadecimal")))
        }
        fn hex64(text: &str, name: &str) -> Result<u64, PromiseFault> {
            u64::from_str_radix(text, 16).map_err(|_| PromiseFault::Foreign(format!("{name} is not hexadecimal")))
        }
        let promise = Promise {
            start: decimal(fields[1], "start")?,
            end: decimal(fields[2], "end")?,
            outputs: decimal(fields[3], "outputs")?,
            digest: hex(fields[4], "digest")?,
            rules: (decimal(fields[5], "rules revision")?, hex64(fields[6], "rules digest")?),
            pipeline: hex64(fields[7], "pipeline revision")?,
            token: hex64(fields[8], "token")?,
            attempt: decimal(fields[9], "attempt")?,
            deadline_ms: decimal(fields[10], "deadline")?,
            unknown_schemas: match fields[11] {
                "" => Vec::new(),
                list => list
                    .split(',')
                    .map(|id| decimal(id, "schema id"))
                    .collect::<Result<_, _>>()?,
            },
        };
        if promise.start < 0 || promise.end <= promise.start {
            return Err(PromiseFault::Foreign(format!(
                "[{}, {}) is not a range",
                promise.start, promise.end
            )));
        }
        Ok(promise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn promises() -> impl Strategy<Value = Promise> {
        (
            (0i64..i64::MAX / 2, 1i64..1_000_000, any::<u32>(), any::<u128>()),
            (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()),
            (
                any::<u16>(),
                any::<i64>(),
                proptest::collection::vec(any::<u32>(), 0..UNKNOWN_SCHEMAS_MAX),
            ),
        )
            .prop_map(
                |((start, length, outputs, digest), (rules, rules_digest, pipeline, token), rest)| Promise {
                    start,
                    end: start + length,
                    outputs,
                    digest,
                    rules: (rules, rules_digest),
                    pipeline,
                    token,
                    attempt: rest.0,
                    deadline_ms: rest.1,
                    unknown_schemas: rest.2,
                },
            )
    }

    proptest! {
        #[test]
        fn a_promise_reads_back_as_it_was_written_and_fits_the_brokers_limit(promise in promises()) {
            let text = promise.encode();
            prop_assert!(text.is_ascii() && text.len() <= METADATA_CHARS_MAX);
            prop_assert_eq!(Promise::decode(text.as_bytes()), Ok(Some(promise)));
        }

        #[test]
        fn any_single_changed_byte_is_noticed(promise in promises(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut text = promise.encode().into_bytes();
            let at = at.index(text.len());
            prop_assume!(text[at] != to);
            text[at] = to;
            prop_assert!(Promise::decode(&text).is_err());
        }

        #[test]
        fn a_cut_promise_is_never_read_as_another_one(promise in promises(), cut in any::<prop::sample::Index>()) {
            let text = promise.encode();
            let cut = cut.index(text.len() - 1) + 1;
            prop_assert!(Promise::decode(&text.as_bytes()[..cut]).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let read = Promise::decode(&bytes);
            prop_assert!(bytes.is_empty() == matches!(read, Ok(None)));
        }
    }

    #[test]
    fn a_later_version_is_named_and_not_guessed_at() {
        assert_eq!(Promise::decode(b"s2;1;2;3"), Err(PromiseFault::Version("s2".into())));
    }

    #[test]
    fn the_golden_promise_of_version_1_is_still_read() {
        let golden = Promise {
            start: 100,
            end: 250,
            outputs: 150,
            digest: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
            rules: (4711, 0xabcd),
            pipeline: 7,
            token: 0xfeed,
            attempt: 2,
            deadline_ms: 1_795_228_766_362,
            unknown_schemas: vec![9, 12],
        };
        let text = "s1;100;250;150;0123456789abcdef0011223344556677;4711;000000000000abcd;0000000000000007;\
                    000000000000feed;2;1795228766362;9,12;";
        let text = format!("{text}{:08x}", crc32fast::hash(text.as_bytes()));
        assert_eq!(golden.encode(), text);
        assert_eq!(Promise::decode(text.as_bytes()), Ok(Some(golden)));
    }
}
