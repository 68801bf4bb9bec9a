//! From a place inside an expression to the place in the file.
//!
//! The YAML parser says where a scalar begins and what its text is; how the text was written (quotes, escapes,
//! blocks, continued lines) is found again in the source. Where that can't be, the scalar's own place has to do.

/// A place inside an expression's text, counted from 1 as the SQL tokenizer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

/// Where in `source` the character at `place` of `text` stands, whose scalar begins at `scalar` (line, column).
pub fn in_file(source: &str, scalar: (u32, u32), text: &str, place: Place) -> (u32, u32) {
    found(source, scalar, characters_before(text, place)).unwrap_or(scalar)
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

fn found(source: &str, scalar: (u32, u32), offset: usize) -> Option<(u32, u32)> {
    let lines: Vec<Vec<char>> = source.lines().map(|line| line.chars().collect()).collect();
    let mut cursor = Cursor {
        lines: &lines,
        line: usize::try_from(scalar.0).ok()?.checked_sub(1)?,
        column: usize::try_from(scalar.1).ok()?.checked_sub(1)?,
    };
    let quote = match cursor.letter()? {
        quote @ ('\'' | '"') => {
            cursor.column += 1;
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

struct Cursor<'a> {
    lines: &'a [Vec<char>],
    line: usize,
    column: usize,
}

impl Cursor<'_> {
    fn letter(&self) -> Option<char> {
        self.lines.get(self.line)?.get(self.column).copied()
    }

    fn next_line(&mut self) {
        self.line += 1;
        let indentation = |line: &Vec<char>| line.iter().take_while(|letter| **letter == ' ').count();
        self.column = self.lines.get(self.line).map(indentation).unwrap_or_default();
    }

    /// Over what one character of the text is written as. The end of a line is one, as a space or a line feed.
    fn step(&mut self, quote: Option<char>) {
        match (self.letter(), quote) {
            (None, _) => self.next_line(),
            (Some('\''), Some('\'')) => self.column += 2,
            (Some('\\'), Some('"')) => {
                let escape = self.lines[self.line].get(self.column + 1);
                self.column += match escape {
                    Some('x') => 4,
                    Some('u') => 6,
                    Some('U') => 10,
                    _ => 2,
                };
            }
            _ => self.column += 1,
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
            let at = in_file(source, scalar, "a = 'b' OR xyz", Place { line: 1, column: 12 });
            assert_eq!(letter_at(source, at), "xyz", "{source}");
        }
        let literal = "when: |\n  a = 'b' OR\n  xyz\n";
        let at = in_file(literal, (1, 7), "a = 'b' OR\nxyz\n", Place { line: 2, column: 1 });
        assert_eq!(at, (3, 3));
    }

    #[test]
    fn a_place_outside_the_file_falls_back_to_the_scalar() {
        assert_eq!(in_file("when: a", (1, 7), "a", Place { line: 9, column: 99 }), (1, 7));
        assert_eq!(in_file("", (7, 7), "a", Place { line: 1, column: 1 }), (7, 7));
    }
}
