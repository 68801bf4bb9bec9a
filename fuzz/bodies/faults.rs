//! What holds for the faults of any document.

use document::Fault;

/// A fault's text is for people: what it quotes of a file is cut.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// There is one, and each says something at a place.
pub fn sound(faults: &[Fault]) {
    assert!(!faults.is_empty());
    for fault in faults {
        assert!(fault.line >= 1 && fault.column >= 1, "{fault}");
        assert!(
            !fault.message.is_empty() && fault.message.len() <= MESSAGE_BYTES_MAX,
            "{fault}"
        );
    }
}
