//! Reading a tree by type. What is wrong goes to [`Faults`] and the reader goes on, so that one look at a file
//! names all its mistakes. A getter answers `None` exactly when it has recorded a fault or nothing was there.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::{Entry, Faults, Node, Period, Value, byte_size, duration, nearest, period};

/// One value with its place in the document.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    node: &'a Node,
    key: Option<(u32, u32)>,
    path: String,
    faults: &'a Faults,
}

impl<'a> Item<'a> {
    /// The document itself.
    pub fn root(node: &'a Node, faults: &'a Faults) -> Self {
        Self {
            node,
            key: None,
            path: String::new(),
            faults,
        }
    }

    /// The tree below.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Where in the document: `sources[1].topic`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `(line, column)` of the value.
    pub fn position(&self) -> (u32, u32) {
        self.node.position()
    }

    /// `(line, column)` of its key, or of the value where there is no key.
    pub fn key_position(&self) -> (u32, u32) {
        self.key.unwrap_or(self.node.position())
    }

    /// Whether nothing, `null` or `~` stands there.
    pub fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    /// Records that something is wrong with the value.
    pub fn fault(&self, message: impl Into<String>) {
        self.faults.at(self.position(), &self.path, message);
    }

    /// Records that something is wrong with the key.
    pub fn fault_at_key(&self, message: impl Into<String>) {
        self.faults.at(self.key_position(), &self.path, message);
    }

    /// Whether nothing more of what is wrong would be kept: who has to work for a message can do without.
    pub fn is_unheard(&self) -> bool {
        self.faults.is_full()
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        self.fault(format!("should be {what}, is {}", self.node.value.noun()));
        None
    }

    /// Text. Numbers and `true` have to be put into quotes to be one.
    pub fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            Value::Number(_) | Value::Bool(_) => {
                let noun = self.node.value.noun();
                self.fault(format!("should be text, is {noun}; put it into quotes"));
                None
            }
            _ => self.expected("text"),
        }
    }

    /// Any scalar but null as it was typed: for expressions, where `drop: true` and `set: {x: 0.10}` are natural.
    pub fn scalar(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) | Value::Number(text) => Some(text),
            Value::Bool(true) => Some("true"),
            Value::Bool(false) => Some("false"),
            _ => self.expected("text or a number"),
        }
    }

    /// `true` or `false`.
    pub fn bool(&self) -> Option<bool> {
        match &self.node.value {
            Value::Bool(value) => Some(*value),
            Value::Text(text) => {
                self.fault(format!("should be true or false, is the text `{}`", excerpt(text)));
                None
            }
            _ => self.expected("true or false"),
        }
    }

    /// A whole number within bounds.
    pub fn integer<N: FromStr + PartialOrd + Display>(&self, bounds: RangeInclusive<N>) -> Option<N> {
        let wanted = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        match &self.node.value {
            Value::Number(text) => match text.parse::<N>() {
                Ok(number) if bounds.contains(&number) => Some(number),
                _ => {
                    self.fault(format!("should be {wanted}, is {}", excerpt(text)));
                    None
                }
            },
            _ => self.expected(&wanted),
        }
    }

    /// A whole number.
    pub fn u64(&self) -> Option<u64> {
        self.integer(0..=u64::MAX)
    }

    /// A number, always finite.
    pub fn f64(&self) -> Option<f64> {
        match &self.node.value {
            Value::Number(text) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Some(number),
                _ => {
                    self.fault(format!("{} is too large for a number", excerpt(text)));
                    None
                }
            },
            _ => self.expected("a number"),
        }
    }

    /// A span of time: `40ms`, `10m`, `400d`.
    pub fn duration(&self) -> Option<Duration> {
        self.with_unit(duration, "a duration, such as 40ms")
    }

    /// A size in bytes: `16MiB`, or a plain number.
    pub fn byte_size(&self) -> Option<u64> {
        self.with_unit(byte_size, "a size, such as 16MiB")
    }

    /// A calendar period: `13 months`, `90 days`.
    pub fn period(&self) -> Option<Period> {
        self.with_unit(period, "a period, such as 13 months")
    }

    fn with_unit<T>(&self, read: impl Fn(&str) -> Result<T, String>, what: &str) -> Option<T> {
        match &self.node.value {
            Value::Text(text) | Value::Number(text) if text.len() <= 64 => self.checked(read(text)),
            _ => self.expected(what),
        }
    }

    /// A message becomes a fault of this value.
    pub fn checked<T>(&self, result: Result<T, impl Into<String>>) -> Option<T> {
        result.map_err(|message| self.fault(message)).ok()
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*meaning);
        }
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.fault(format!("should be {}, is `{}`", alternatives(&all), excerpt(text)));
        None
    }

    /// The elements of a list, each with its index in its path.
    pub fn list(&self) -> Option<Vec<Item<'a>>> {
        let Value::List(nodes) = &self.node.value else {
            return self.expected("a list");
        };
        let item = |(index, node): (usize, &'a Node)| Item {
            node,
            key: None,
            path: format!("{}[{index}]", self.path),
            faults: self.faults,
        };
        Some(nodes.iter().enumerate().map(item).collect())
    }

    /// A list of texts; those that are none are reported and left out.
    pub fn texts(&self) -> Option<Vec<&'a str>> {
        Some(self.list()?.iter().filter_map(Item::text).collect())
    }

    /// A mapping whose keys are known.
    pub fn map(&self) -> Option<Reader<'a>> {
        let Value::Map(entries) = &self.node.value else {
            return self.expected("a mapping of keys to values");
        };
        Some(Reader {
            item: self.clone(),
            entries,
            asked: RefCell::new(Vec::new()),
        })
    }

    /// The entries of a mapping whose keys are the user's own, in the order of the document.
    pub fn entries(&self) -> Option<Vec<(&'a str, Item<'a>)>> {
        let Value::Map(entries) = &self.node.value else {
            return self.expected("a mapping of names to values");
        };
        Some(
            entries
                .iter()
                .map(|entry| (entry.key.as_str(), self.below(entry)))
                .collect(),
        )
    }

    fn below(&self, entry: &'a Entry) -> Item<'a> {
        Item {
            node: &entry.node,
            key: Some((entry.line, entry.column)),
            path: joined(&self.path, &entry.key),
            faults: self.faults,
        }
    }
}

/// A mapping whose keys are known: what is asked for is what there may be.
#[derive(Debug)]
pub struct Reader<'a> {
    item: Item<'a>,
    entries: &'a [Entry],
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Reader<'a> {
    /// The mapping itself.
    pub fn item(&self) -> &Item<'a> {
        &self.item
    }

    /// The value of a key; `None` when the key or its value is missing.
    pub fn optional(&self, key: &'static str) -> Option<Item<'a>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let item = self.item.below(entry);
        (!item.is_null()).then_some(item)
    }

    /// The value of a key that has to be there.
    pub fn required(&self, key: &'static str) -> Option<Item<'a>> {
        let item = self.optional(key);
        if item.is_none() {
            match self.entries.iter().find(|entry| entry.key == key) {
                Some(entry) => self.item.below(entry).fault_at_key("has no value"),
                None => self.item.fault(format!("`{key}` is missing")),
            }
        }
        item
    }

    /// Whether the key is there with a value, without making it a known one.
    pub fn has(&self, key: &str) -> bool {
        let found = self.entries.iter().find(|entry| entry.key == key);
        found.is_some_and(|entry| entry.node.value != Value::Null)
    }

    /// The entries whose keys were not asked for: the user's own names beside known keys. Makes them known.
    pub fn rest(&mut self) -> Vec<(&'a str, Item<'a>)> {
        let asked = self.asked.borrow();
        let others = self.entries.iter().filter(|entry| !asked.contains(&entry.key.as_str()));
        let rest = others
            .map(|entry| (entry.key.as_str(), self.item.below(entry)))
            .collect();
        drop(asked);
        self.entries = &[];
        rest
    }

    /// Reports every key that was never asked for. Call it last.
    pub fn finish(self) {
        let asked = self.asked.into_inner();
        let unknown = self.entries.iter().filter(|entry| !asked.contains(&entry.key.as_str()));
        for entry in unknown.take_while(|_| !self.item.faults.is_full()) {
            let key = excerpt(&entry.key);
            let message = match nearest(&entry.key, asked.iter().copied()) {
                Some(meant) => format!("the key `{key}` is not known; did you mean `{meant}`?"),
                None => format!("the key `{key}` is not known; here may be {}", asked.join(", ")),
            };
            self.item.below(entry).fault_at_key(message);
        }
    }
}

/// `earliest, latest or auto`.
fn alternatives(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// `sources[0]` and `topic` -> `sources[0].topic`; a key that is no plain word stands in quotes.
fn joined(path: &str, key: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '-';
    let key_text = excerpt(key);
    match (path.is_empty(), !key.is_empty() && key.chars().all(plain)) {
        (true, true) => key_text,
        (false, true) => format!("{path}.{key_text}"),
        (_, false) => format!("{path}[\"{}\"]", key_text.escape_debug()),
    }
}

/// At most forty characters of something that the user wrote.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
