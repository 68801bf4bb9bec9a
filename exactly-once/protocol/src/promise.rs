//! What stands in the metadata of a committed offset: the promise (what will be delivered for the range that begins here,
//! and by when; it is committed before anything leaves the process), from where on rollups have not been fed, and marks
//! that tell the next owner whether the offset still belongs to what it finds.

use thiserror::Error;

/// Kafka's default limit of `offset.metadata.max.bytes`.
pub const METADATA_CHARS_MAX: usize = 4096;

/// A batch is closed before one of its ranges has more unknown schema ids than this, so that the promise fits.
pub const UNKNOWN_SCHEMAS_MAX: usize = 64;

const VERSION: &str = "s3";
const FIELDS: usize = 16;
/// Version, topic, sinks, fed, checksum.
const SETTLED_FIELDS: usize = 5;
/// The version before there were marks, with and without a promise.
const VERSION_2: &str = "s2";
const FIELDS_2: usize = 14;
const UNFED_FIELDS_2: usize = 3;
/// The version before rollups were fed by the lanes: its promises lack `fed`, which was always their start.
const VERSION_1: &str = "s1";
const FIELDS_1: usize = 13;

/// The metadata of a committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Metadata {
    /// There is none: no lane has committed this offset.
    Nothing,
    /// Nothing is pending.
    Settled {
        /// What the next owner compares.
        marks: Marks,
        /// No row from this offset on is in a rollup yet; the committed offset itself if all are.
        fed: i64,
    },
    /// A range is promised.
    Promised(Promise),
}

/// What an offset was committed for. Where it doesn't fit what an owner finds, somebody has changed the topic, the group's
/// offsets or a sink meanwhile, and going on would lose or double something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    /// Kafka's id of the topic, which a topic that is deleted and made again does not keep (KIP-516). `None`: a version that
    /// did not write it, or a broker that does not tell.
    pub topic: Option<u128>,
    /// The gRPC sinks that have a cursor for the partition ([`sink_id`]), ascending.
    pub sinks: Vec<u64>,
}

/// How marks name a gRPC sink.
pub fn sink_id(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}

/// What will be delivered for `[start, end)` of one partition. The range is empty when nothing is delivered and only
/// rollups are fed.
///
/// **Invariant:** everything that decides the bytes of a delivery is either in the log or in here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Promise {
    /// As they were when the range was promised for the first time: they say nothing of what this promise delivers.
    pub marks: Marks,
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
    /// Everything before this offset is in the rollups; what follows may be in them once this promise is delivered.
    pub fed: i64,
    /// Schema ids that were definitely unknown when the range was transformed, ascending.
    pub unknown_schemas: Vec<u32>,
}

/// Why a text is not the metadata of a committed offset. Nothing is guessed from such a text: the partition stops.
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

impl Metadata {
    /// ASCII text: nothing, or version first, checksum last, at most about 260 characters, 17 for each gRPC sink, and the
    /// unknown schemas.
    pub fn encode(&self) -> String {
        match self {
            Metadata::Nothing => String::new(),
            Metadata::Settled { marks, fed } => sealed(format!("{VERSION};{};{fed};", marks.encode())),
            Metadata::Promised(promise) => promise.encode(),
        }
    }

    /// Reads the metadata of a committed offset.
    pub fn decode(metadata: &[u8]) -> Result<Metadata, PromiseFault> {
        if metadata.is_empty() {
            return Ok(Metadata::Nothing);
        }
        if metadata.len() > METADATA_CHARS_MAX {
            return Err(PromiseFault::Foreign(format!("{} bytes long", metadata.len())));
        }
        let text = std::str::from_utf8(metadata)
            .ok()
            .filter(|text| text.is_ascii())
            .ok_or_else(|| PromiseFault::Foreign("not ASCII".into()))?;
        let mut fields: Vec<&str> = text.split(';').collect();
        if !fields[0].starts_with('s') || !fields[0][1..].bytes().all(|b| b.is_ascii_digit()) || fields[0].len() < 2 {
            return Err(PromiseFault::Foreign("it does not begin with a version".into()));
        }
        let counts: &[usize] = match fields[0] {
            VERSION => &[FIELDS, SETTLED_FIELDS],
            VERSION_2 => &[FIELDS_2, UNFED_FIELDS_2],
            VERSION_1 => &[FIELDS_1],
            other => return Err(PromiseFault::Version(other.chars().take(16).collect())),
        };
        if !counts.contains(&fields.len()) {
            return Err(PromiseFault::Foreign(format!(
                "{} fields instead of {}",
                fields.len(),
                counts[0]
            )));
        }
        let checksum = fields.pop().unwrap_or_default();
        let body = &text[..text.len() - checksum.len()];
        if checksum != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
            return Err(PromiseFault::Checksum);
        }
        // Earlier versions lack fields of this one, whose values are known.
        match fields[0] {
            VERSION_1 => {
                fields.insert(FIELDS_1 - 2, fields[1]);
                fields.splice(1..1, ["", ""]);
            }
            VERSION_2 => {
                fields.splice(1..1, ["", ""]);
            }
            _ => {}
        }
        let marks = Marks::from_fields(fields[1], fields[2])?;
        if fields.len() + 1 == SETTLED_FIELDS {
            let fed = decimal(fields[3], "offset")?;
            return if fed >= 0 {
                Ok(Metadata::Settled { marks, fed })
            } else {
                Err(PromiseFault::Foreign(format!("{fed} is not an offset")))
            };
        }
        Promise::from_fields(marks, &fields[3..]).map(Metadata::Promised)
    }

    /// The marks, if a lane wrote this.
    pub fn marks(&self) -> Option<&Marks> {
        match self {
            Metadata::Nothing => None,
            Metadata::Settled { marks, .. } => Some(marks),
            Metadata::Promised(promise) => Some(&promise.marks),
        }
    }
}

impl Marks {
    fn encode(&self) -> String {
        let topic = self.topic.map(|id| format!("{id:032x}")).unwrap_or_default();
        let sinks: Vec<String> = self.sinks.iter().map(|sink| format!("{sink:016x}")).collect();
        format!("{topic};{}", sinks.join(","))
    }

    fn from_fields(topic: &str, sinks: &str) -> Result<Marks, PromiseFault> {
        let topic = match topic {
            "" => None,
            id => Some(hex(id, "topic id")?),
        };
        let sinks = match sinks {
            "" => Vec::new(),
            list => list
                .split(',')
                .map(|sink| hex64(sink, "sink"))
                .collect::<Result<_, _>>()?,
        };
        Ok(Marks { topic, sinks })
    }
}

/// With the checksum behind it.
fn sealed(body: String) -> String {
    let crc = crc32fast::hash(body.as_bytes());
    format!("{body}{crc:08x}")
}

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

impl Promise {
    fn encode(&self) -> String {
        let unknown = self
            .unknown_schemas
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(",");
        sealed(format!(
            "{VERSION};{};{};{};{};{:032x};{};{:016x};{:016x};{:016x};{};{};{};{};",
            self.marks.encode(),
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
            self.fed,
            unknown,
        ))
    }

    fn from_fields(marks: Marks, fields: &[&str]) -> Result<Promise, PromiseFault> {
        let promise = Promise {
            marks,
            start: decimal(fields[0], "start")?,
            end: decimal(fields[1], "end")?,
            outputs: decimal(fields[2], "outputs")?,
            digest: hex(fields[3], "digest")?,
            rules: (decimal(fields[4], "rules revision")?, hex64(fields[5], "rules digest")?),
            pipeline: hex64(fields[6], "pipeline revision")?,
            token: hex64(fields[7], "token")?,
            attempt: decimal(fields[8], "attempt")?,
            deadline_ms: decimal(fields[9], "deadline")?,
            fed: decimal(fields[10], "fed")?,
            unknown_schemas: match fields[11] {
                "" => Vec::new(),
                list => list
                    .split(',')
                    .map(|id| decimal(id, "schema id"))
                    .collect::<Result<_, _>>()?,
            },
        };
        let idle = promise.end == promise.start && promise.fed == promise.start;
        if promise.start < 0 || promise.end < promise.start || idle {
            return Err(PromiseFault::Foreign(format!(
                "[{}, {}) is not a range",
                promise.start, promise.end
            )));
        }
        if promise.fed < 0 || promise.fed > promise.start {
            return Err(PromiseFault::Foreign(format!(
                "fed to {}, promised from {}",
                promise.fed, promise.start
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
            (1i64..i64::MAX / 2, 0i64..1_000_000, any::<u32>(), any::<u128>()),
            (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()),
            (
                any::<u16>(),
                any::<i64>(),
                proptest::collection::vec(any::<u32>(), 0..UNKNOWN_SCHEMAS_MAX),
                any::<prop::sample::Index>(),
            ),
        )
            .prop_map(
                |((start, length, outputs, digest), (rules, rules_digest, pipeline, token), rest)| Promise {
                    marks: Marks {
                        topic: rules.is_multiple_of(2).then_some(digest),
                        sinks: vec![token, pipeline],
                    },
                    start,
                    end: start + length,
                    outputs,
                    digest,
                    rules: (rules, rules_digest),
                    pipeline,
                    token,
                    attempt: rest.0,
                    deadline_ms: rest.1,
                    // A promise of nothing at all is not made.
                    fed: rest.3.index(start as usize + usize::from(length > 0)) as i64,
                    unknown_schemas: rest.2,
                },
            )
    }

    fn anything() -> impl Strategy<Value = Metadata> {
        prop_oneof![
            promises().prop_map(Metadata::Promised),
            (
                0i64..i64::MAX,
                any::<Option<u128>>(),
                proptest::collection::vec(any::<u64>(), 0..4)
            )
                .prop_map(|(fed, topic, sinks)| Metadata::Settled {
                    marks: Marks { topic, sinks },
                    fed
                }),
        ]
    }

    proptest! {
        #[test]
        fn metadata_reads_back_as_it_was_written_and_fits_the_brokers_limit(metadata in anything()) {
            let text = metadata.encode();
            prop_assert!(text.is_ascii() && text.len() <= METADATA_CHARS_MAX);
            prop_assert_eq!(Metadata::decode(text.as_bytes()), Ok(metadata));
        }

        #[test]
        fn any_single_changed_byte_is_noticed(metadata in anything(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut text = metadata.encode().into_bytes();
            let at = at.index(text.len());
            prop_assume!(text[at] != to);
            text[at] = to;
            prop_assert!(Metadata::decode(&text).is_err());
        }

        #[test]
        fn a_cut_text_is_never_read_as_another_one(metadata in anything(), cut in any::<prop::sample::Index>()) {
            let text = metadata.encode();
            let cut = cut.index(text.len() - 1) + 1;
            prop_assert!(Metadata::decode(&text.as_bytes()[..cut]).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let read = Metadata::decode(&bytes);
            prop_assert!(bytes.is_empty() == matches!(read, Ok(Metadata::Nothing)));
        }
    }

    #[test]
    fn a_later_version_is_named_and_not_guessed_at() {
        assert_eq!(Metadata::decode(b"s4;1;2;3"), Err(PromiseFault::Version("s4".into())));
    }

    fn marks() -> Marks {
        Marks {
            topic: Some(0x1f),
            sinks: vec![0xb111, 0xb112],
        }
    }

    fn golden(marks: Marks, fed: i64) -> Metadata {
        Metadata::Promised(Promise {
            marks,
            start: 100,
            end: 250,
            outputs: 150,
            digest: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
            rules: (4711, 0xabcd),
            pipeline: 7,
            token: 0xfeed,
            attempt: 2,
            deadline_ms: 1_795_228_766_362,
            fed,
            unknown_schemas: vec![9, 12],
        })
    }

    #[test]
    fn the_golden_texts_of_all_versions_are_still_read() {
        let sealed = |body: &str| format!("{body}{:08x}", crc32fast::hash(body.as_bytes()));
        let version_1 = "s1;100;250;150;0123456789abcdef0011223344556677;4711;000000000000abcd;0000000000000007;\
                         000000000000feed;2;1795228766362;9,12;";
        let old = golden(Marks::default(), 100);
        assert_eq!(Metadata::decode(sealed(version_1).as_bytes()), Ok(old));
        let version_2 = "s2;100;250;150;0123456789abcdef0011223344556677;4711;000000000000abcd;0000000000000007;\
                         000000000000feed;2;1795228766362;70;9,12;";
        let old = golden(Marks::default(), 70);
        assert_eq!(Metadata::decode(sealed(version_2).as_bytes()), Ok(old));
        let old = Metadata::Settled {
            marks: Marks::default(),
            fed: 70,
        };
        assert_eq!(Metadata::decode(sealed("s2;70;").as_bytes()), Ok(old));
        let version_3 = "s3;0000000000000000000000000000001f;000000000000b111,000000000000b112;\
                         100;250;150;0123456789abcdef0011223344556677;4711;000000000000abcd;0000000000000007;\
                         000000000000feed;2;1795228766362;70;9,12;";
        assert_eq!(golden(marks(), 70).encode(), sealed(version_3));
        assert_eq!(Metadata::decode(sealed(version_3).as_bytes()), Ok(golden(marks(), 70)));
        let settled = Metadata::Settled {
            marks: marks(),
            fed: 70,
        };
        let version_3 = "s3;0000000000000000000000000000001f;000000000000b111,000000000000b112;70;";
        assert_eq!(settled.encode(), sealed(version_3));
    }

    #[test]
    fn what_no_lane_writes_is_not_believed() {
        let empty = |start: i64, end: i64, fed: i64| {
            let Metadata::Promised(promise) = golden(marks(), 70) else {
                panic!()
            };
            Metadata::Promised(Promise {
                start,
                end,
                fed,
                ..promise
            })
        };
        assert!(Metadata::decode(empty(100, 100, 70).encode().as_bytes()).is_ok());
        for wrong in [
            empty(100, 100, 100),
            empty(100, 99, 70),
            empty(100, 110, 101),
            Metadata::Settled {
                marks: marks(),
                fed: -1,
            },
        ] {
            let read = Metadata::decode(wrong.encode().as_bytes());
            assert!(matches!(read, Err(PromiseFault::Foreign(_))), "{wrong:?}: {read:?}");
        }
    }
}
