//! Reading Avro's binary encoding. Nothing here allocates, and no length is believed before it is compared with the bytes
//! that are left.

use super::error::Fault;
use super::{TEXT_BYTES_MAX, ZERO_WIDTH_ITEMS_MAX};

/// A place in one payload, and what that payload may still claim.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    zero_width_left: u32,
    text_left: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor {
            bytes,
            at: 0,
            zero_width_left: ZERO_WIDTH_ITEMS_MAX,
            text_left: TEXT_BYTES_MAX,
        }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Goes to a place where this cursor has been.
    pub(super) fn seek(&mut self, position: usize) {
        self.at = position.min(self.bytes.len());
    }

    /// Runs a walk whose bytes will be read once more, so that only the second reading is charged.
    pub(super) fn uncharged<T>(&mut self, walk: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let zero_width_left = self.zero_width_left;
        let text_left = std::mem::replace(&mut self.text_left, usize::MAX);
        let walked = walk(self);
        (self.zero_width_left, self.text_left) = (zero_width_left, text_left);
        walked
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Claims `bytes` of text that have no bytes of their own in the payload.
    pub(super) fn expand(&mut self, bytes: usize) -> Result<(), Fault> {
        self.text_left = self.text_left.checked_sub(bytes).ok_or(Fault::TooMuchText)?;
        Ok(())
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let rest = self.bytes.get(self.at..).ok_or(Fault::Truncated)?;
        let taken = rest.get(..length).ok_or(Fault::Truncated)?;
        self.at += length;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let taken = self.take(N)?;
        <[u8; N]>::try_from(taken).map_err(|_| Fault::Truncated)
    }

    /// A `long`. Bits past the 64th are dropped, as the Java and Rust Avro libraries do.
    // A branch, a length and a small number are one byte: only that is written wherever a number is read.
    #[inline(always)]
    pub(super) fn long(&mut self) -> Result<i64, Fault> {
        match self.bytes.get(self.at) {
            Some(first) if *first < 0x80 => {
                self.at += 1;
                Ok(unzigzag(u64::from(*first)))
            }
            _ => self.longer(),
        }
    }

    #[inline(never)]
    fn longer(&mut self) -> Result<i64, Fault> {
        let rest = self.bytes.get(self.at..).ok_or(Fault::Truncated)?;
        let first = *rest.first().ok_or(Fault::Truncated)?;
        let mut value = u64::from(first & 0x7f);
        for index in 1..10 {
            let byte = *rest.get(index).ok_or(Fault::Truncated)?;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(unzigzag(value));
            }
        }
        Err(Fault::Varint)
    }

    #[inline]
    pub(super) fn int(&mut self) -> Result<i32, Fault> {
        i32::try_from(self.long()?).map_err(|_| Fault::IntRange)
    }

    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Fault::Boolean),
        }
    }

    #[inline]
    pub(super) fn float(&mut self) -> Result<f32, Fault> {
        self.array().map(f32::from_le_bytes)
    }

    #[inline]
    pub(super) fn double(&mut self) -> Result<f64, Fault> {
        self.array().map(f64::from_le_bytes)
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.long()?).map_err(|_| Fault::NegativeLength)?;
        self.take(length)
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::Utf8)
    }

    /// The bytes of a text. Most are short and ASCII, which is seen sooner than that they are UTF-8.
    #[inline]
    pub(super) fn text_bytes(&mut self) -> Result<&'a [u8], Fault> {
        let bytes = self.bytes()?;
        match bytes.is_ascii() || std::str::from_utf8(bytes).is_ok() {
            true => Ok(bytes),
            false => Err(Fault::Utf8),
        }
    }

    /// What begins with the last `length` bytes that were taken, if the payload has so much there.
    #[inline]
    pub(super) fn seen_from<const N: usize>(&self, length: usize) -> Option<&'a [u8; N]> {
        self.bytes.get(self.at.checked_sub(length)?..)?.first_chunk()
    }

    /// Which of `branches` a union holds.
    #[inline]
    pub(super) fn branch(&mut self, branches: usize) -> Result<usize, Fault> {
        let index = usize::try_from(self.long()?).map_err(|_| Fault::Union)?;
        if index < branches { Ok(index) } else { Err(Fault::Union) }
    }

    /// Which of `symbols` an enum holds.
    #[inline]
    pub(super) fn symbol(&mut self, symbols: usize) -> Result<usize, Fault> {
        let index = usize::try_from(self.int()?).map_err(|_| Fault::Enum)?;
        if index < symbols { Ok(index) } else { Err(Fault::Enum) }
    }

    /// The item count of the next block of an array or map, 0 at its end. The byte size that follows a negative count is
    /// read and not believed: it only helps readers that skip, and this one checks what it skips.
    #[inline]
    pub(super) fn block(&mut self, item_bytes_min: usize) -> Result<usize, Fault> {
        let count = self.long()?;
        if count == 0 {
            return Ok(0);
        }
        if count < 0 {
            self.long()?;
        }
        let count = usize::try_from(count.unsigned_abs()).map_err(|_| Fault::TooManyItems)?;
        if item_bytes_min == 0 {
            let claimed = u32::try_from(count).map_err(|_| Fault::TooManyItems)?;
            self.zero_width_left = self.zero_width_left.checked_sub(claimed).ok_or(Fault::TooManyItems)?;
        } else if count > self.remaining() / item_bytes_min {
            return Err(Fault::Truncated);
        }
        Ok(count)
    }
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
