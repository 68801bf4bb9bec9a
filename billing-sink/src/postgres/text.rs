//! PostgreSQL's `text` can't hold a NUL, and an event may: one odd event id must not stop a partition.

use std::borrow::Cow;

/// `\` as `\\`, NUL as `\0`; other texts as they are.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.contains(['\\', '\0']) {
        Cow::Owned(text.replace('\\', "\\\\").replace('\0', "\\0"))
    } else {
        Cow::Borrowed(text)
    }
}

/// What [`escape`] was given.
pub fn unescape(text: String) -> String {
    if !text.contains('\\') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        plain.push(match char {
            '\\' if chars.next() == Some('0') => '\0',
            other => other,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back() {
        for text in ["", "plain", "\0", "\\", "\\0", "\\\0", "\0\\", "a\\\\0b\0c", "é\\0"] {
            let escaped = escape(text);
            assert!(!escaped.contains('\0'));
            assert_eq!(unescape(escaped.clone().into_owned()), text, "{escaped}");
        }
        assert_eq!(escape("a\\b\0"), "a\\\\b\\0");
    }
}
