//! Expressions as trees: made at random, written as SQL.

use pipeline::shape::{Kind, Shape};

use crate::decode::tests::generate::Choices;

/// An integer of 64 bits, or NULL.
#[derive(Debug, Clone)]
pub enum Number {
    Column(usize),
    Literal(i64),
    Two(char, Box<Number>, Box<Number>),
    Either(Condition, Box<Number>, Box<Number>),
    First(Box<Number>, Box<Number>),
    Length(Text),
}

/// A text, or NULL.
#[derive(Debug, Clone)]
pub enum Text {
    Column(usize),
    Entry(usize, &'static str),
    Literal(&'static str),
    Joined(Box<Text>, Box<Text>),
    Of(Box<Number>),
}

/// True, false or NULL. What is compared in here cannot fail: which of two operands fails first is nobody's promise.
#[derive(Debug, Clone)]
pub enum Condition {
    Flag(usize),
    Compare(&'static str, Box<Number>, Box<Number>),
    Same(Box<Text>, Box<Text>),
    Begins(Box<Text>, &'static str),
    Missing(Box<Text>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
}

pub const COMPARISONS: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];
pub const KEYS: [&str; 3] = ["a", "é", "k"];
const LITERALS: [&str; 4] = ["a", "é", "it's", ""];
const NUMBERS: [i64; 8] = [2, 3, 7, -2, -3, 1 << 40, i64::MAX, -1];

/// Columns by what rules can do with them; the envelope's are not among them.
#[derive(Debug)]
pub struct Known<'a> {
    pub shape: &'a Shape,
    pub numbers: Vec<usize>,
    pub texts: Vec<usize>,
    pub flags: Vec<usize>,
    pub maps: Vec<usize>,
    pub nullable: Vec<usize>,
}

impl<'a> Known<'a> {
    pub fn new(shape: &'a Shape, envelope: &[&str]) -> Self {
        let of = |fits: &dyn Fn(&Kind) -> bool| -> Vec<usize> {
            let columns = shape.columns.iter().enumerate();
            let free = columns.filter(|(_, column)| !envelope.contains(&column.path.as_str()));
            free.filter(|(_, column)| fits(&column.kind))
                .map(|(index, _)| index)
                .collect()
        };
        let texts = |kind: &Kind| matches!(kind, Kind::Map(values) if values.kind == Kind::String);
        Self {
            numbers: of(&|kind| matches!(kind, Kind::Int64 | Kind::Int32)),
            texts: of(&|kind| *kind == Kind::String),
            flags: of(&|kind| *kind == Kind::Bool),
            maps: of(&texts),
            nullable: of(&|_| true)
                .into_iter()
                .filter(|index| shape.columns[*index].nullable)
                .collect(),
            shape,
        }
    }

    pub fn path(&self, column: usize) -> &str {
        &self.shape.columns[column].path
    }

    pub fn entry(&self, map: usize, key: &str) -> String {
        format!("{}['{key}']", self.path(map))
    }
}

/// One of them; none of none.
pub fn one_of<T: Copy>(choices: &mut Choices<'_>, all: &[T]) -> Option<T> {
    (!all.is_empty()).then(|| all[choices.pick(all.len())])
}

impl Number {
    /// Without arithmetic: it cannot fail.
    fn plain(choices: &mut Choices<'_>, known: &Known<'_>) -> Self {
        match choices.pick(3) {
            0 => one_of(choices, &known.numbers).map_or(Self::Literal(5), Self::Column),
            1 => Self::Literal(NUMBERS[choices.pick(NUMBERS.len())]),
            _ => Self::Length(Text::plain(choices, known)),
        }
    }

    /// With something of the event in it: what fails for every event is refused when rules are compiled.
    fn own(choices: &mut Choices<'_>, known: &Known<'_>, depth: usize) -> Self {
        match choices.pick(4) {
            0 if depth > 0 => {
                let operator = ['+', '-', '*', '/', '%'][choices.pick(5)];
                let left = Self::own(choices, known, depth - 1);
                Self::Two(operator, Box::new(left), Box::new(Self::any(choices, known, depth - 1)))
            }
            1 => Self::Length(Text::Column(one_of(choices, &known.texts).unwrap_or_default())),
            _ => one_of(choices, &known.numbers).map_or(Self::Literal(5), Self::Column),
        }
    }

    pub fn any(choices: &mut Choices<'_>, known: &Known<'_>, depth: usize) -> Self {
        if depth == 0 {
            return Self::plain(choices, known);
        }
        let next = |choices: &mut Choices<'_>| Box::new(Self::any(choices, known, depth - 1));
        match choices.pick(6) {
            0 => Self::plain(choices, known),
            1 => Self::First(next(choices), next(choices)),
            2 => Self::Either(Condition::any(choices, known, depth - 1), next(choices), next(choices)),
            _ => Self::own(choices, known, depth),
        }
    }

    pub fn sql(&self, known: &Known<'_>) -> String {
        match self {
            Self::Column(index) if known.shape.columns[*index].kind == Kind::Int32 => {
                format!("CAST({} AS BIGINT)", known.path(*index))
            }
            Self::Column(index) => known.path(*index).to_owned(),
            Self::Literal(number) => format!("({number})"),
            Self::Two(operator, left, right) => format!("({} {operator} {})", left.sql(known), right.sql(known)),
            Self::Either(condition, yes, no) => format!(
                "(CASE WHEN {} THEN {} ELSE {} END)",
                condition.sql(known),
                yes.sql(known),
                no.sql(known)
            ),
            Self::First(one, other) => format!("coalesce({}, {})", one.sql(known), other.sql(known)),
            Self::Length(text) => format!("CAST(character_length({}) AS BIGINT)", text.sql(known)),
        }
    }
}

impl Text {
    /// Without numbers: it cannot fail.
    fn plain(choices: &mut Choices<'_>, known: &Known<'_>) -> Self {
        let column = one_of(choices, &known.texts).map(Self::Column);
        let entry = one_of(choices, &known.maps).map(|map| Self::Entry(map, KEYS[choices.pick(KEYS.len())]));
        let literal = Self::Literal(LITERALS[choices.pick(LITERALS.len())]);
        let one = match choices.pick(3) {
            0 => column,
            1 => entry,
            _ => None,
        };
        one.unwrap_or(literal)
    }

    pub fn any(choices: &mut Choices<'_>, known: &Known<'_>, depth: usize) -> Self {
        if depth == 0 {
            return Self::plain(choices, known);
        }
        match choices.pick(3) {
            0 => Self::plain(choices, known),
            1 => Self::Of(Box::new(Number::any(choices, known, depth - 1))),
            _ => Self::Joined(
                Box::new(Self::any(choices, known, depth - 1)),
                Box::new(Self::any(choices, known, depth - 1)),
            ),
        }
    }

    pub fn sql(&self, known: &Known<'_>) -> String {
        match self {
            Self::Column(index) => known.path(*index).to_owned(),
            Self::Entry(map, key) => known.entry(*map, key),
            Self::Literal(text) => format!("'{}'", text.replace('\'', "''")),
            Self::Joined(one, other) => format!("({} || {})", one.sql(known), other.sql(known)),
            Self::Of(number) => format!("CAST({} AS VARCHAR)", number.sql(known)),
        }
    }
}

impl Condition {
    pub fn any(choices: &mut Choices<'_>, known: &Known<'_>, depth: usize) -> Self {
        let kinds = if depth == 0 { 5 } else { 8 };
        let next = |choices: &mut Choices<'_>| Box::new(Self::any(choices, known, depth.saturating_sub(1)));
        match choices.pick(kinds) {
            0 => match one_of(choices, &known.flags) {
                Some(flag) => Self::Flag(flag),
                None => Self::Missing(Box::new(Text::plain(choices, known))),
            },
            1 => Self::Compare(
                COMPARISONS[choices.pick(COMPARISONS.len())],
                Box::new(Number::plain(choices, known)),
                Box::new(Number::plain(choices, known)),
            ),
            2 => Self::Same(
                Box::new(Text::plain(choices, known)),
                Box::new(Text::plain(choices, known)),
            ),
            3 => Self::Begins(Box::new(Text::plain(choices, known)), ["a", "é", ""][choices.pick(3)]),
            4 => Self::Missing(Box::new(Text::plain(choices, known))),
            5 => Self::And(next(choices), next(choices)),
            6 => Self::Or(next(choices), next(choices)),
            _ => Self::Not(next(choices)),
        }
    }

    pub fn sql(&self, known: &Known<'_>) -> String {
        match self {
            Self::Flag(index) => known.path(*index).to_owned(),
            Self::Compare(operator, left, right) => format!("({} {operator} {})", left.sql(known), right.sql(known)),
            Self::Same(left, right) => format!("({} = {})", left.sql(known), right.sql(known)),
            Self::Begins(text, begin) => format!("({} LIKE '{begin}%')", text.sql(known)),
            Self::Missing(text) => format!("({} IS NULL)", text.sql(known)),
            Self::And(one, other) => format!("({} AND {})", one.sql(known), other.sql(known)),
            Self::Or(one, other) => format!("({} OR {})", one.sql(known), other.sql(known)),
            Self::Not(inner) => format!("(NOT {})", inner.sql(known)),
        }
    }
}
