//! What holds for any pipeline file.

use std::path::Path;

use crate::faults::sound;

/// Reads the bytes as a document and as a pipeline file.
pub fn pipeline_file(bytes: &[u8]) {
    if let Err(fault) = document::parse_bytes("p.yaml", bytes) {
        sound(&[fault]);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match pipeline::check("p.yaml", text, Path::new(".")) {
        Ok(pipeline) => {
            let again = pipeline::check("p.yaml", text, Path::new(".")).unwrap();
            assert_eq!(again.revision, pipeline.revision);
        }
        Err(faults) => sound(&faults),
    }
}
