//! The parsed document: a tree in which everything knows where it stands.

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Counted from 1. What an alias stands for keeps the place where it is written.
    pub line: u32,
    /// Characters, counted from 1.
    pub column: u32,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    /// `true` or `false`, without quotes.
    Bool(bool),
    /// A decimal number without quotes, as it was typed: `0.10` stays exact.
    Number(String),
    /// Any other scalar, and everything in quotes.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the document; keys are different from each other.
    Map(Vec<Entry>),
}

/// A key and its value in a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key. Numbers, `true` and so on are taken as typed.
    pub key: String,
    /// The key's line, counted from 1.
    pub line: u32,
    /// The key's column, counted from 1.
    pub column: u32,
    /// What the key stands for.
    pub node: Node,
}

impl Node {
    /// `(line, column)`.
    pub fn position(&self) -> (u32, u32) {
        (self.line, self.column)
    }

    /// The value of a key, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }
}

impl Value {
    /// What it is, for messages: `a list`.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// What a scalar without quotes means in YAML 1.2 (its core schema, without hexadecimal, octal, `.inf`, `.nan`).
    pub(crate) fn of_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" => Self::Bool(true),
            "false" | "False" | "FALSE" => Self::Bool(false),
            _ if is_number(text) => Self::Number(text.to_owned()),
            _ => Self::Text(text.to_owned()),
        }
    }
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, from the YAML 1.2.2 core schema.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let exponent_fits = exponent.is_none_or(|text| digits(text.strip_prefix(['-', '+']).unwrap_or(text)));
    let mantissa_fits = match mantissa.split_once('.') {
        Some((whole, part)) => {
            (digits(whole) && part.is_empty() || digits(part)) && (whole.is_empty() || digits(whole))
        }
        None => digits(mantissa),
    };
    exponent_fits && mantissa_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_without_quotes_mean_what_yaml_1_2_says() {
        for text in [
            "0",
            "-1",
            "+7",
            "007",
            "1.5",
            "1.",
            ".5",
            "-0.10",
            "1e3",
            "1.5E-3",
            "12345678901234567890",
        ] {
            assert_eq!(Value::of_plain(text), Value::Number(text.to_owned()), "{text}");
        }
        for text in [
            "0x1F", "0o7", ".", "-", "+", "e3", "1e", "1e+", "1.2.3", "1_000", ".inf", "yes", "no", "on", "10m",
        ] {
            assert_eq!(Value::of_plain(text), Value::Text(text.to_owned()), "{text}");
        }
        assert_eq!(Value::of_plain("~"), Value::Null);
        assert_eq!(Value::of_plain("TRUE"), Value::Bool(true));
        assert_eq!(Value::of_plain("tRue"), Value::Text("tRue".to_owned()));
    }
}
