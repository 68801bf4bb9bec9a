//! ClickHouse's `RowBinaryWithNamesAndTypes`: exact values of any column, read row by row from a growing buffer.

use crate::cell::Cell;

/// A column's type, as far as tables of events have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Bool,
    /// Bytes, and whether there is a sign. Dates and times are among them.
    Int(usize, bool),
    Float32,
    Float64,
    /// Bytes.
    Decimal(usize),
    String,
    FixedString(usize),
    Nullable(Box<Type>),
    Array(Box<Type>),
    Map(Box<Type>, Box<Type>),
}

impl Type {
    /// The type of this spelling; `None` = not one that tables of events have.
    pub fn parse(text: &str) -> Option<Type> {
        let text = text.trim();
        let (name, arguments) = match text.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')')?),
            None => (text, ""),
        };
        Some(match name {
            "Bool" => Type::Bool,
            "Int8" => Type::Int(1, true),
            "Int16" => Type::Int(2, true),
            "Int32" | "Date32" => Type::Int(4, true),
            "Int64" | "DateTime64" => Type::Int(8, true),
            "UInt8" => Type::Int(1, false),
            "UInt16" | "Date" => Type::Int(2, false),
            "UInt32" | "DateTime" => Type::Int(4, false),
            "UInt64" => Type::Int(8, false),
            "Float32" => Type::Float32,
            "Float64" => Type::Float64,
            "Decimal" => Type::Decimal(match arguments.split(',').next()?.trim().parse::<u32>().ok()? {
                0..=9 => 4,
                10..=18 => 8,
                19..=38 => 16,
                _ => return None,
            }),
            "String" => Type::String,
            "FixedString" => Type::FixedString(arguments.parse().ok()?),
            // In this format a dictionary is never sent: values are plain.
            "LowCardinality" => Type::parse(arguments)?,
            "Nullable" => Type::Nullable(Box::new(Type::parse(arguments)?)),
            "Array" => Type::Array(Box::new(Type::parse(arguments)?)),
            "Map" => {
                let (key, value) = two(arguments)?;
                Type::Map(Box::new(Type::parse(key)?), Box::new(Type::parse(value)?))
            }
            _ => return None,
        })
    }
}

/// Parts `a, b` at the comma that is in no parentheses.
fn two(arguments: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    for (at, letter) in arguments.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => return Some((arguments.get(..at)?, arguments.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

/// A place in the bytes that have come so far. Everything answers `None` when they do not reach.
pub struct Bytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Bytes { bytes, at: 0 }
    }

    /// Bytes read.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn length(&mut self) -> Option<usize> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return usize::try_from(value).ok();
            }
        }
        None
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    /// The names and spellings of types with which the answer begins.
    pub fn header(&mut self) -> Option<Vec<(String, String)>> {
        let columns = self.length()?;
        let mut text = || Some(String::from_utf8_lossy(self.string()?).into_owned());
        let names: Vec<String> = (0..columns).map(|_| text()).collect::<Option<_>>()?;
        names.into_iter().map(|name| Some((name, text()?))).collect()
    }

    fn int(&mut self, width: usize, signed: bool) -> Option<i128> {
        let bytes = self.take(width)?;
        let negative = signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        Some(bytes.iter().rev().fold(if negative { -1 } else { 0 }, |value, byte| {
            value << 8 | i128::from(*byte)
        }))
    }

    /// One value.
    pub fn cell(&mut self, kind: &Type) -> Option<Cell> {
        Some(match kind {
            Type::Bool => Cell::Bool(self.int(1, false)? != 0),
            // Numbers past 63 bits are none of an event's.
            Type::Int(width, signed) => Cell::Int(i64::try_from(self.int(*width, *signed)?).unwrap_or(i64::MAX)),
            Type::Float32 => Cell::Float32(f32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            Type::Float64 => Cell::Float64(f64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            Type::Decimal(width) => Cell::Decimal(self.int(*width, true)?),
            Type::String => Cell::Bytes(self.string()?.to_vec()),
            Type::FixedString(length) => Cell::Bytes(self.take(*length)?.to_vec()),
            Type::Nullable(inner) => match self.take(1)? {
                [0] => self.cell(inner)?,
                _ => Cell::Null,
            },
            Type::Array(inner) => {
                let length = self.length()?;
                Cell::List((0..length).map(|_| self.cell(inner)).collect::<Option<_>>()?)
            }
            Type::Map(key, value) => {
                let length = self.length()?;
                let mut entry = || match self.cell(key)? {
                    Cell::Bytes(key) => Some((key, self.cell(value)?)),
                    _ => None,
                };
                Cell::Map((0..length).map(|_| entry()).collect::<Option<_>>()?)
            }
        })
    }
}
