//! What holds for any bytes in the metadata of a committed offset.

use exactly_once_protocol::{METADATA_CHARS_MAX, Metadata};

/// Reads the bytes as they are, and once more with the checksum that fits them: without it the fields behind the
/// checksum would never be looked at.
pub fn promise(bytes: &[u8]) {
    read(bytes);
    read(&sealed(bytes));
}

/// The text up to its last semicolon, with the checksum that fits.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte == b';').map_or(0, |at| at + 1);
    let mut text = bytes[..end].to_vec();
    text.extend(format!("{:08x}", crc32fast::hash(&text)).bytes());
    text
}

/// Whatever is accepted can be written again and then says the same.
fn read(bytes: &[u8]) {
    match Metadata::decode(bytes) {
        Ok(metadata) => {
            let text = metadata.encode();
            // Numbers that somebody wrote without their zeros can grow past the limit when they are written again.
            if text.len() <= METADATA_CHARS_MAX {
                assert_eq!(Metadata::decode(text.as_bytes()), Ok(metadata));
            }
        }
        Err(fault) => assert!(fault.to_string().len() < 200, "{fault}"),
    }
}
