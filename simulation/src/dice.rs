//! The only source of chance: one small generator, made from the seed alone.

/// Xorshift with 64 bits of state. Good enough to choose what happens next; never zero.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Neighbouring seeds give unrelated rolls.
    pub fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            dice.roll(2);
        }
        dice
    }

    /// A number below `sides`, which must not be 0.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    /// As [`roll`](Self::roll), for times.
    pub fn ms(&mut self, below: i64) -> i64 {
        self.roll(below.unsigned_abs().max(1)) as i64
    }

    /// An index of something that has `length` entries.
    pub fn index(&mut self, length: usize) -> usize {
        self.roll(length.max(1) as u64) as usize
    }

    /// True once in `sides`; never if `sides` is 0.
    pub fn one_in(&mut self, sides: u64) -> bool {
        sides > 0 && self.roll(sides) == 0
    }
}
