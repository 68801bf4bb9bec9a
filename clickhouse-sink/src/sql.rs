//! Names and texts as ClickHouse's SQL takes them.

/// A name between backticks.
pub(crate) fn name(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text between quotes.
pub(crate) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `a`, `b`.
pub(crate) fn names<'a>(list: impl IntoIterator<Item = &'a str>) -> String {
    list.into_iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_stay_inside_names_and_texts() {
        assert_eq!(name(r"a`b\c"), r"`a\`b\\c`");
        assert_eq!(text(r"it's \n"), r"'it\'s \\n'");
        assert_eq!(names(["a", "b"]), "`a`, `b`");
    }
}
