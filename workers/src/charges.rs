//! The charges of one range as a request to a gRPC sink has them: written once, while they are made, so that neither several
//! sinks nor repetitions copy them text by text.

use prost::Message;
use prost::encoding::{WireType, encode_key};
use proto::delivery::v1::Charge;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Of the field `charges` in `Part` (`delivery.proto`).
const FIELD: u32 = 6;

/// Charges of one range, in log order.
#[derive(Clone, Default)]
pub struct Charges {
    written: Vec<u8>,
    count: usize,
    hasher: Xxh3,
}

impl std::fmt::Debug for Charges {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Charges")
            .field("count", &self.count)
            .field("bytes", &self.written.len())
            .finish_non_exhaustive()
    }
}

impl Charges {
    /// Adds a charge behind the others. Answers the hash of its content, for the range's digest.
    pub fn push(&mut self, charge: &Charge) -> u64 {
        let length = charge.encoded_len();
        encode_key(FIELD, WireType::LengthDelimited, &mut self.written);
        prost::encoding::encode_varint(length as u64, &mut self.written);
        let begin = self.written.len();
        charge.encode_raw(&mut self.written);
        let hash = xxh3_64(&self.written[begin..]);
        self.hasher.update(&hash.to_le_bytes());
        self.count += 1;
        hash
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// As fields of a `Part` (protobuf), each with its number and length.
    pub fn written(&self) -> &[u8] {
        &self.written
    }

    /// What a gRPC sink keeps with a range: 16 bytes over its charges.
    pub fn digest(&self) -> [u8; 16] {
        self.hasher.digest128().to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proto::delivery::v1::Part;

    use super::*;

    fn charge(offset: i64) -> Charge {
        Charge {
            id: format!("orders/0/{offset}/0"),
            tenant: "acme".repeat(60),
            meter: "revenue".to_owned(),
            quantity: -5,
            event_id: "e".to_owned(),
            offset,
            ..Charge::default()
        }
    }

    #[test]
    fn what_is_written_are_the_charges_of_a_part() {
        let mut charges = Charges::default();
        let made: Vec<Charge> = (0..3).map(charge).collect();
        let hashes: Vec<u64> = made.iter().map(|charge| charges.push(charge)).collect();
        let part = Part::decode(charges.written()).unwrap();
        assert_eq!(part.charges, made);
        assert_eq!(charges.len(), 3);
        // Promises and sinks hold both from before charges were written at once.
        let expected: Vec<u64> = made.iter().map(|charge| xxh3_64(&charge.encode_to_vec())).collect();
        assert_eq!(hashes, expected);
        let mut hasher = Xxh3::new();
        expected.iter().for_each(|hash| hasher.update(&hash.to_le_bytes()));
        assert_eq!(charges.digest(), hasher.digest128().to_le_bytes());
    }

    #[test]
    fn of_no_charges_the_digest_is_that_of_nothing() {
        assert_eq!(Charges::default().digest(), Xxh3::new().digest128().to_le_bytes());
        assert!(Charges::default().is_empty());
    }
}
