//! How long a request or an answer is, and handing it on piece by piece. The wires read the heads; what follows a head
//! is the same three kinds of body everywhere.

use super::stream::Inlet;
use std::io;

/// No head, chunk size or trailer is longer; a peer that goes on speaks something else.
pub(super) const HEAD_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Why a direction of a connection stops before its peer has ended it.
#[derive(Debug)]
pub(super) enum Broken {
    /// A peer has gone: nothing to tell.
    Io(io::Error),
    /// The bytes are not of the wire that the proxy was started for.
    Unframed(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::Io(error)
    }
}

/// What is left of a message, from its first byte on.
#[derive(Debug)]
pub(super) struct Extent {
    head: usize,
    body: Body,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked(Chunked),
    /// As long as the peer sends.
    UntilEnd,
}

/// Where in a chunked body the next byte is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    Size,
    Data(u64),
    LineEnd,
    Trailer,
    Ended,
}

impl Extent {
    pub fn new(head: usize, body: Body) -> Self {
        Self { head, body }
    }

    pub fn has_ended(&self) -> bool {
        self.head == 0 && matches!(self.body, Body::Length(0) | Body::Chunked(Chunked::Ended))
    }

    /// Whether the message may end where the peer stops.
    fn may_end(&self) -> bool {
        self.has_ended() || (self.head == 0 && self.body == Body::UntilEnd)
    }

    /// How many bytes at the front of `available` belong to the message; they count as handed on. 0: more are needed.
    fn advance(&mut self, available: &[u8]) -> Result<usize, Broken> {
        let mut done = self.head.min(available.len());
        self.head -= done;
        while self.head == 0 {
            let rest = &available[done..];
            let step = match &mut self.body {
                Body::Length(left) => up_to(left, rest),
                Body::Chunked(chunked) => chunked.advance(rest)?,
                Body::UntilEnd => rest.len(),
            };
            if step == 0 {
                break;
            }
            done += step;
        }
        Ok(done)
    }

    /// The next bytes of the message, as many as are there; none when it has ended, or when the peer has stopped within
    /// it ([`piece`](Extent::piece) and [`whole`](Extent::whole) say which).
    pub async fn piece<'a>(&mut self, inlet: &'a mut Inlet) -> Result<Option<&'a [u8]>, Broken> {
        while !self.has_ended() {
            let waiting = inlet.waiting().len();
            let count = self.advance(inlet.waiting())?;
            if count > 0 {
                return Ok(Some(inlet.take(count)));
            }
            if waiting > HEAD_BYTES_MAX {
                return Err(Broken::Unframed(format!(
                    "a chunk's size has more than {HEAD_BYTES_MAX} bytes"
                )));
            }
            if !inlet.fill().await? {
                // What waits is the beginning of something that never comes whole. It is handed on all the same.
                let rest = inlet.take(usize::MAX);
                return Ok((!rest.is_empty()).then_some(rest));
            }
        }
        Ok(None)
    }

    /// Reads and forgets the message; whether it came whole.
    pub async fn swallow(mut self, inlet: &mut Inlet) -> Result<bool, Broken> {
        while self.piece(inlet).await?.is_some() {}
        Ok(self.may_end())
    }

    /// Reads the message into memory; whether it came whole.
    pub async fn collect(mut self, inlet: &mut Inlet, bytes_max: usize) -> Result<(Vec<u8>, bool), Broken> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(inlet).await? {
            if bytes.len() + piece.len() > bytes_max {
                return Err(Broken::Unframed(format!(
                    "a request of more than {bytes_max} bytes cannot be kept for Twice or Hold"
                )));
            }
            bytes.extend_from_slice(piece);
        }
        Ok((bytes, self.may_end()))
    }
}

impl Chunked {
    fn advance(&mut self, rest: &[u8]) -> Result<usize, Broken> {
        let unframed = |what: &str| Err(Broken::Unframed(format!("a chunked body has {what}")));
        match self {
            Chunked::Size => {
                // The parser takes an empty line for size 0.
                if rest.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
                    return unframed("no chunk size where one belongs");
                }
                match httparse::parse_chunk_size(rest) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        *self = if size == 0 {
                            Chunked::Trailer
                        } else {
                            Chunked::Data(size)
                        };
                        Ok(length)
                    }
                    Ok(httparse::Status::Partial) => Ok(0),
                    Err(_) => unframed("no chunk size where one belongs"),
                }
            }
            Chunked::Data(left) => {
                let step = up_to(left, rest);
                if *left == 0 {
                    *self = Chunked::LineEnd;
                }
                Ok(step)
            }
            Chunked::LineEnd => match rest {
                [b'\r', b'\n', ..] => {
                    *self = Chunked::Size;
                    Ok(2)
                }
                [] | [b'\r'] => Ok(0),
                _ => unframed("more bytes than a chunk's size says"),
            },
            Chunked::Trailer => {
                let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                    return Ok(0);
                };
                if end == 0 {
                    *self = Chunked::Ended;
                }
                Ok(end + 2)
            }
            Chunked::Ended => Ok(0),
        }
    }
}

/// Counts the bytes of `rest` off `left`, as far as they reach.
fn up_to(left: &mut u64, rest: &[u8]) -> usize {
    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
    *left -= step as u64;
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of `stream` belongs to a chunked body when it comes in pieces of `size` bytes, none when it never ends.
    fn length(stream: &[u8], size: usize) -> Result<Option<usize>, Broken> {
        let mut extent = Extent::new(0, Body::Chunked(Chunked::Size));
        let (mut done, mut there) = (0, 0);
        while there < stream.len() {
            there = stream.len().min(there + size);
            done += extent.advance(&stream[done..there])?;
            if extent.has_ended() {
                return Ok(Some(done));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_chunked_body_ends_at_the_same_byte_however_it_is_cut_into_reads() {
        let body = b"5\r\nhello\r\n1a;name=\"v\"\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nDigest: x\r\nMore: y\r\n\r\n";
        let mut stream = body.to_vec();
        stream.extend_from_slice(b"GET / HTTP/1.1\r\n");
        for size in 1..=stream.len() {
            assert_eq!(length(&stream, size).unwrap(), Some(body.len()), "reads of {size}");
        }
    }

    #[test]
    fn a_chunked_body_without_its_last_line_has_not_ended() {
        assert_eq!(length(b"5\r\nhello\r\n0\r\nDigest: x\r\n", 3).unwrap(), None);
    }

    #[test]
    fn a_wrong_chunk_is_refused() {
        for wrong in ["\r\nhello", "x\r\n", "5\r\nhello!\r\n", "5\nhello\r\n", "-1\r\n"] {
            assert!(length(wrong.as_bytes(), 64).is_err(), "{wrong:?}");
        }
    }
}
