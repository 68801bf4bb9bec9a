//! From a place inside an expression to the place in the file.
//!
//! The YAML parser says where a scalar begins and what its text is; how the text was written (quotes, escapes,
//! blocks, continued lines) is found again in the source. Where that can't be, the scalar's own place has to do.

use std::str::Chars;

/// A place inside an expression's text, counted from 1 as the SQL tokenizer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

/// A document's text by lines, so that places in it are found without reading it from the start each time.
#[derive(Debug)]
pub struct Source<'a> {
    lines: Vec<&'a str>,
}

impl<'a> Source<'a> {
    /// Takes the text apart, once for the whole document.
    pub fn new(text: &'a str) -> Self {
        Self {
            lines: text.lines().collect(),
        }
    }

    /// Where the character at `place` of `text` stands, whose scalar begins at `scalar` (line, column).
    pub fn find(&self, scalar: (u32, u32), text: &str, place: Place) -> (u32, u32) {
        self.found(scalar, characters_before(text, place)).unwrap_or(scalar)
    }

    fn found(&self, scalar: (u32, u32), offset: usize) -> Option<(u32, u32)> {
        let line = usize::try_from(scalar.0).ok()?.checked_sub(1)?;
        let column = usize::try_from(scalar.1).ok()?.checked_sub(1)?;
        let mut cursor = Cursor::new(&self.lines, line, column);
        let quote = match cursor.letter()? {
            quote @ ('\'' | '"') => {
                cursor.forward(1);
                Some(quote)
            }
            '|' | '>' => {
                cursor.next_line();
                None
            }
            _ => None,
        };
        for _ in 0..offset {
            cursor.step(quote);
        }
        cursor.letter()?;
        Some((
            u32::try_from(cursor.line + 1).ok()?,
            u32::try_from(cursor.column + 1).ok()?,
        ))
    }
}

/// How many characters of a text are before a place.
fn characters_before(text: &str, place: Place) -> usize {
    let line = usize::try_from(place.line.max(1) - 1).unwrap_or(0);
    let column = usize::try_from(place.column.max(1) - 1).unwrap_or(0);
    text.split_inclusive('\n')
        .take(line)
        .map(|line| line.chars().count())
        .sum::<usize>()
        + column
}

struct Cursor<'a> {
    lines: &'a [&'a str],
    line: usize,
    /// Letters before the next one.
    column: usize,
    /// From the next letter to the end of the line.
    rest: Chars<'a>,
}

impl<'a> Cursor<'a> {
    fn new(lines: &'a [&'a str], line: usize, column: usize) -> Self {
        let mut cursor = Self {
            lines,
            line,
            column: 0,
            rest: lines.get(line).copied().unwrap_or_default().chars(),
        };
        cursor.forward(column);
        cursor
    }

    fn letter(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn forward(&mut self, letters: usize) {
        self.column += letters;
        if letters > 0 {
            self.rest.nth(letters - 1);
        }
    }

    fn next_line(&mut self) {
        let next = self.lines.get(self.line + 1).copied().unwrap_or_default();
        let indentation = next.chars().take_while(|letter| *letter == ' ').count();
        *self = Self::new(self.lines, self.line + 1, indentation);
    }

    /// Over what one character of the text is written as. The end of a line is one, as a space or a line feed.
    fn step(&mut self, quote: Option<char>) {
        match (self.letter(), quote) {
            (None, _) => self.next_line(),
            (Some('\''), Some('\'')) => self.forward(2),
            (Some('\\'), Some('"')) => {
                let escape = self.rest.clone().nth(1);
                self.forward(match escape {
                    Some('x') => 4,
                    Some('u') => 6,
                    Some('U') => 10,
                    _ => 2,
                });
            }
            _ => self.forward(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter_at(source: &str, (line, column): (u32, u32)) -> String {
        let line = source.lines().nth(line as usize - 1).unwrap();
        line.chars().skip(column as usize - 1).take(3).collect()
    }

    #[test]
    fn a_place_in_an_expression_is_found_however_the_scalar_is_written() {
        for (source, scalar) in [
            ("when: a = 'b' OR xyz", (1, 7)),
            ("when: \"a = 'b' OR xyz\"", (1, 7)),
            ("when: 'a = ''b'' OR xyz'", (1, 7)),
            ("when: \"a \\x3d 'b' OR xyz\"", (1, 7)),
            ("when: >\n  a = 'b'\n  OR xyz\n", (1, 7)),
            ("when: a = 'b'\n   OR xyz", (1, 7)),
        ] {
            let at = Source::new(source).find(scalar, "a = 'b' OR xyz", Place { line: 1, column: 12 });
            assert_eq!(letter_at(source, at), "xyz", "{source}");
        }
        let literal = "when: |\n  a = 'b' OR\n  xyz\n";
        let at = Source::new(literal).find((1, 7), "a = 'b' OR\nxyz\n", Place { line: 2, column: 1 });
        assert_eq!(at, (3, 3));
    }

    #[test]
    fn a_place_outside_the_file_falls_back_to_the_scalar() {
        let far = Place { line: 9, column: 99 };
        assert_eq!(Source::new("when: a").find((1, 7), "a", far), (1, 7));
        assert_eq!(Source::new("").find((7, 7), "a", Place { line: 1, column: 1 }), (7, 7));
    }
}
