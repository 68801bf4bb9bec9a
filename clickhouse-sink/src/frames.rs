//! ClickHouse's compressed frames, what `decompress=1` takes: for each, the CityHash 1.0.2 of what follows, a method
//! byte, both sizes, and an LZ4 block.

use lz4_flex::block::{compress_into, get_maximum_output_size};

use crate::Error;

/// The server refuses frames over 1 GiB; at 1 MiB its own writer closes one, and its buffers stay small.
const FRAME_BYTES_MAX: usize = 1024 * 1024;
const CHECKSUM_BYTES: usize = 16;
/// Method byte and two sizes of four bytes each; they count as part of the compressed size.
const HEADER_BYTES: usize = 9;
const METHOD_LZ4: u8 = 0x82;

/// `raw` as LZ4 frames.
pub(crate) fn compress(raw: &[u8]) -> Result<Vec<u8>, Error> {
    let mut framed = Vec::with_capacity(raw.len() / 2 + CHECKSUM_BYTES + HEADER_BYTES);
    for chunk in raw.chunks(FRAME_BYTES_MAX) {
        append(&mut framed, chunk)?;
    }
    Ok(framed)
}

fn append(framed: &mut Vec<u8>, chunk: &[u8]) -> Result<(), Error> {
    let start = framed.len();
    let header = start + CHECKSUM_BYTES;
    let body = header + HEADER_BYTES;
    framed.resize(body + get_maximum_output_size(chunk.len()), 0);
    let written = compress_into(chunk, &mut framed[body..]).map_err(|error| Error::Block(error.to_string()))?;
    framed.truncate(body + written);
    framed[header] = METHOD_LZ4;
    framed[header + 1..header + 5].copy_from_slice(&size(HEADER_BYTES + written)?);
    framed[header + 5..body].copy_from_slice(&size(chunk.len())?);
    let checksum = cityhash_rs::cityhash_102_128(&framed[header..]);
    // The crate answers (low, high) as one number with low in the upper half; ClickHouse writes low first.
    framed[start..header].copy_from_slice(&checksum.rotate_left(64).to_le_bytes());
    Ok(())
}

fn size(bytes: usize) -> Result<[u8; 4], Error> {
    u32::try_from(bytes)
        .map(u32::to_le_bytes)
        .map_err(|_| Error::Block(format!("a frame of {bytes} bytes")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn decompress(mut framed: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        while !framed.is_empty() {
            let number = |at: usize| u32::from_le_bytes(framed[at..at + 4].try_into().unwrap()) as usize;
            let (compressed, plain) = (number(17), number(21));
            let frame = &framed[16..16 + compressed];
            let checksum = u128::from_le_bytes(framed[..16].try_into().unwrap());
            assert_eq!(cityhash_rs::cityhash_102_128(frame).rotate_left(64), checksum);
            raw.extend(lz4_flex::block::decompress(&frame[9..], plain).unwrap());
            framed = &framed[16 + compressed..];
        }
        raw
    }

    #[test]
    fn frames_decompress_to_what_was_put_in_and_a_large_input_makes_several() {
        let raw: Vec<u8> = (0..2_500_000_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        assert_eq!(decompress(&compress(&raw).unwrap()), raw);
        assert_eq!(compress(&[]).unwrap(), Vec::<u8>::new());
    }

    #[test]
    fn the_bytes_of_a_frame_stay_as_they_are() {
        // Accepted by a real server when they were written down (tests/real_server.rs inserts through these frames).
        let framed = compress(b"sluice sluice sluice sluice").unwrap();
        let header: Vec<u8> = [0x82_u8]
            .into_iter()
            .chain(((framed.len() - 16) as u32).to_le_bytes())
            .collect();
        assert_eq!(framed[16..21], header);
        assert_eq!(framed[21..25], 27_u32.to_le_bytes());
        assert_eq!(decompress(&framed), b"sluice sluice sluice sluice");
    }
}
