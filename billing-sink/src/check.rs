//! From a request as it came to parts that a ledger can take. Pure.
//!
//! What is checked here is what only a broken sender does. It must never depend on what a client's event contains (an odd tenant
//! name, a NUL in an event id): such a part would be refused for ever and stop its partition.

use std::collections::HashSet;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use proto::delivery::v1::{Charge, DeliverRequest, Part};
use sha2::{Digest, Sha256};

use crate::ledger::Source;

/// A pipeline's and a topic's name; Kafka's own limit for a topic is 249.
const NAME_BYTES_MAX: usize = 249;

/// A part that obeys the contract as far as one can see without the store.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedPart {
    pub(crate) source: Source,
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) digest: [u8; 16],
    pub(crate) first: bool,
    /// Shared: a part is kept until it is known that the store has taken it.
    pub(crate) charges: Vec<Arc<CheckedCharge>>,
}

/// A charge whose id agrees with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CheckedCharge {
    /// Number within the event: the last piece of the id.
    pub n: u32,
    pub key: MeterKey,
    pub charge: Charge,
}

/// SHA-256 of tenant and meter: of a fixed size, because a name may be longer than a PostgreSQL index takes (2,704 bytes), and
/// not to be collided with by a client who chooses names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MeterKey(pub [u8; 32]);

impl Hash for MeterKey {
    /// Eight bytes tell keys apart as well as all of them: it's asked several times for each charge.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl MeterKey {
    pub fn of(tenant: &str, meter: &str) -> Self {
        let mut hash = Sha256::new();
        // With the length in front ("ab", "c") and ("a", "bc") differ.
        hash.update((tenant.len() as u64).to_be_bytes());
        hash.update(tenant.as_bytes());
        hash.update(meter.as_bytes());
        Self(hash.finalize().into())
    }
}

/// The parts of a request, or which part and field breaks the contract.
///
/// # Errors
/// A sentence for the sender's operator. Nothing may be applied then.
pub fn check(request: DeliverRequest) -> Result<Vec<CheckedPart>, String> {
    let DeliverRequest { pipeline, parts } = request;
    name("pipeline", &pipeline)?;
    let parts = parts.into_iter().enumerate();
    parts
        .map(|(i, part)| check_part(&pipeline, part).map_err(|fault| format!("parts[{i}]: {fault}")))
        .collect()
}

/// The partition that a question is about, or what is wrong with it.
///
/// # Errors
/// A sentence that names the field.
pub fn source(pipeline: String, topic: String, partition: i32) -> Result<Source, String> {
    name("pipeline", &pipeline)?;
    name("topic", &topic)?;
    if partition < 0 {
        return Err(format!("partition is {partition}, but partitions count from 0"));
    }
    Ok(Source {
        pipeline,
        topic,
        partition,
    })
}

fn check_part(pipeline: &str, part: Part) -> Result<CheckedPart, String> {
    let source = source(pipeline.to_owned(), part.topic, part.partition)?;
    let (start, end) = (part.start, part.end);
    if start < 0 || end <= start {
        return Err(format!("[{start}, {end}) is no range of offsets: 0 <= start < end"));
    }
    let digest = <[u8; 16]>::try_from(part.digest.as_slice())
        .map_err(|_| format!("digest has {} bytes, not 16", part.digest.len()))?;
    let mut ids = Ids::of(&source);
    let mut charges = Vec::with_capacity(part.charges.len());
    for (i, charge) in part.charges.into_iter().enumerate() {
        let n = check_charge(&mut ids, start..end, &charge).map_err(|fault| format!("charges[{i}]: {fault}"))?;
        let key = MeterKey::of(&charge.tenant, &charge.meter);
        charges.push(Arc::new(CheckedCharge { n, key, charge }));
    }
    check_once(&charges)?;
    Ok(CheckedPart {
        source,
        start,
        end,
        digest,
        first: part.first,
        charges,
    })
}

fn check_charge(ids: &mut Ids, range: std::ops::Range<i64>, charge: &Charge) -> Result<u32, String> {
    let offset = charge.offset;
    if !range.contains(&offset) {
        return Err(format!("offset {offset} is outside [{}, {})", range.start, range.end));
    }
    let n = charge.id.rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let expected = ids.id(offset, n);
    if charge.id != expected {
        return Err(format!("id \"{}\" should be {expected}, with its own n", charge.id));
    }
    Ok(n)
}

/// No two charges may have one id.
fn check_once(charges: &[Arc<CheckedCharge>]) -> Result<(), String> {
    let place = |charge: &Arc<CheckedCharge>| (charge.charge.offset, charge.n);
    // A sender goes through its events in their order, so that the order alone shows it. It needn't.
    if charges.is_sorted_by(|a, b| place(a) < place(b)) {
        return Ok(());
    }
    let mut seen = HashSet::with_capacity(charges.len());
    match charges.iter().position(|charge| !seen.insert(place(charge))) {
        Some(i) => Err(format!("charges[{i}]: id \"{}\" is there twice", charges[i].charge.id)),
        None => Ok(()),
    }
}

/// The ids of a partition's charges, written one over the other.
struct Ids {
    id: String,
    /// How long the piece is that they share.
    shared: usize,
}

impl Ids {
    fn of(source: &Source) -> Self {
        let id = format!("{}/{}/", source.topic, source.partition);
        Self { shared: id.len(), id }
    }

    /// The id of the n-th charge of an event.
    fn id(&mut self, offset: i64, n: u32) -> &str {
        self.id.truncate(self.shared);
        // Writing to a string doesn't fail.
        write!(self.id, "{offset}/{n}").ok();
        &self.id
    }
}

/// The id of the n-th charge of an event.
pub(crate) fn id(source: &Source, offset: i64, n: u32) -> String {
    let mut ids = Ids::of(source);
    ids.id(offset, n);
    ids.id
}

fn name(field: &str, text: &str) -> Result<(), String> {
    // PostgreSQL can't hold a NUL in a text; no pipeline or topic has one.
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains('\0') {
        return Err(format!("{field} must have 1 to {NAME_BYTES_MAX} bytes and no NUL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut DeliverRequest)) -> Result<Vec<CheckedPart>, String> {
        let charge = |id: &str, offset| Charge {
            id: id.to_owned(),
            offset,
            ..Charge::default()
        };
        let part = Part {
            topic: "t".to_owned(),
            partition: 1,
            start: 5,
            end: 9,
            digest: vec![7; 16],
            charges: vec![charge("t/1/5/0", 5), charge("t/1/5/1", 5), charge("t/1/8/0", 8)],
            first: false,
        };
        let mut request = DeliverRequest {
            pipeline: "p".to_owned(),
            parts: vec![part.clone(), part],
        };
        change(&mut request);
        check(request)
    }

    #[test]
    fn a_request_that_obeys_is_taken_whole() {
        let parts = request(|_| ()).expect("obeys");
        assert_eq!(parts.len(), 2);
        assert_eq!(
            parts[0].charges.iter().map(|charge| charge.n).collect::<Vec<_>>(),
            [0, 1, 0]
        );
    }

    #[test]
    fn a_fault_names_part_and_field() {
        type Change = fn(&mut DeliverRequest);
        let faults: [(Change, &str); 9] = [
            (|r| r.pipeline.clear(), "pipeline must have 1 to 249 bytes and no NUL"),
            (
                |r| r.parts[1].topic = "a\0b".to_owned(),
                "parts[1]: topic must have 1 to 249 bytes and no NUL",
            ),
            (
                |r| r.parts[0].partition = -1,
                "parts[0]: partition is -1, but partitions count from 0",
            ),
            (
                |r| r.parts[0].end = 5,
                "parts[0]: [5, 5) is no range of offsets: 0 <= start < end",
            ),
            (
                |r| r.parts[0].start = -1,
                "parts[0]: [-1, 9) is no range of offsets: 0 <= start < end",
            ),
            (
                |r| r.parts[0].digest = vec![0; 15],
                "parts[0]: digest has 15 bytes, not 16",
            ),
            (
                |r| r.parts[0].charges[2].offset = 9,
                "parts[0]: charges[2]: offset 9 is outside [5, 9)",
            ),
            (
                |r| r.parts[0].charges[1].id = "t/1/5/01".to_owned(),
                "parts[0]: charges[1]: id \"t/1/5/01\" should be t/1/5/1, with its own n",
            ),
            (
                |r| r.parts[0].charges[1].id = "t/1/5/0".to_owned(),
                "parts[0]: charges[1]: id \"t/1/5/0\" is there twice",
            ),
        ];
        for (change, expected) in faults {
            assert_eq!(request(change).expect_err("a fault"), expected);
        }
    }

    #[test]
    fn charges_may_come_in_any_order_but_only_once() {
        let charges = |order: &'static [usize]| {
            request(move |r| {
                let charges = std::mem::take(&mut r.parts[1].charges);
                r.parts[1].charges = order.iter().map(|i| charges[*i].clone()).collect();
            })
            .map(|parts| parts[1].charges.len())
        };
        assert_eq!(charges(&[0, 1, 2]), Ok(3));
        assert_eq!(charges(&[2, 0, 1]), Ok(3));
        assert_eq!(
            charges(&[2, 0, 1, 0]),
            Err("parts[1]: charges[3]: id \"t/1/5/0\" is there twice".to_owned())
        );
        assert_eq!(
            charges(&[0, 1, 2, 2]),
            Err("parts[1]: charges[3]: id \"t/1/8/0\" is there twice".to_owned())
        );
    }

    #[test]
    fn meters_are_told_apart_wherever_the_names_are_cut() {
        assert_ne!(MeterKey::of("ab", "c"), MeterKey::of("a", "bc"));
        assert_ne!(MeterKey::of("a", ""), MeterKey::of("", "a"));
        assert_eq!(MeterKey::of("a", "b"), MeterKey::of("a", "b"));
    }
}
