//! Documents of rules as trees: made at random, written as YAML.

use super::expression::{COMPARISONS, Condition, KEYS, Known, Number, Text, one_of};
use crate::decode::tests::generate::Choices;

/// What a rule changes.
#[derive(Debug, Clone)]
pub enum Target {
    Column(usize),
    Entry(usize, &'static str),
}

#[derive(Debug, Clone)]
pub enum Value {
    Number(Number),
    Text(Text),
    Flag(Condition),
}

#[derive(Debug, Clone, Copy)]
pub enum Mask {
    Sha256,
    Truncate(usize),
    Null,
}

#[derive(Debug, Clone)]
pub enum Action {
    Drop,
    Set(Vec<(Target, Value)>),
    Mask(Target, Mask),
    Rename(Target, Target),
    Route(Vec<&'static str>),
    Alert(Option<Text>, Text),
    Charge(Number),
}

/// A condition may fail where it is the whole of it.
#[derive(Debug, Clone)]
pub enum When {
    Always,
    If(Condition),
    Compare(&'static str, Number, Number),
}

#[derive(Debug, Clone)]
pub struct Rule {
    pub name: String,
    pub when: When,
    pub action: Action,
}

/// As the rules language takes it inside of a line.
fn quoted(text: &str) -> String {
    serde_json::json!(text).to_string()
}

impl Target {
    /// As a rule names it, and as a dead letter does.
    pub fn written(&self, known: &Known<'_>) -> String {
        match self {
            Self::Column(index) => known.path(*index).to_owned(),
            Self::Entry(map, key) => known.entry(*map, key),
        }
    }

    fn text(choices: &mut Choices<'_>, known: &Known<'_>) -> Option<Self> {
        match choices.pick(2) {
            0 => one_of(choices, &known.texts).map(Self::Column),
            _ => one_of(choices, &known.maps).map(|map| Self::Entry(map, KEYS[choices.pick(KEYS.len())])),
        }
    }
}

fn set(choices: &mut Choices<'_>, known: &Known<'_>) -> Option<(Target, Value)> {
    Some(match choices.pick(3) {
        0 => (
            Target::Column(one_of(choices, &long(known))?),
            Value::Number(Number::any(choices, known, 3)),
        ),
        1 => (Target::text(choices, known)?, Value::Text(Text::any(choices, known, 2))),
        _ => (
            Target::Column(one_of(choices, &known.flags)?),
            Value::Flag(Condition::any(choices, known, 2)),
        ),
    })
}

/// An integer of 64 bits may be too large for one of 32: rules refuse it.
fn long(known: &Known<'_>) -> Vec<usize> {
    let is_long = |index: &usize| known.shape.columns[*index].kind == pipeline::shape::Kind::Int64;
    known.numbers.iter().copied().filter(is_long).collect()
}

impl Action {
    fn any(choices: &mut Choices<'_>, known: &Known<'_>) -> Option<Self> {
        Some(match choices.pick(8) {
            0 => Self::Drop,
            1 | 2 => {
                let first = set(choices, known)?;
                let second = set(choices, known).filter(|second| second.0.written(known) != first.0.written(known));
                Self::Set([Some(first), second].into_iter().flatten().collect())
            }
            3 => match choices.pick(3) {
                0 => Self::Mask(Target::text(choices, known)?, Mask::Sha256),
                1 => Self::Mask(Target::text(choices, known)?, Mask::Truncate(choices.pick(4))),
                _ => Self::Mask(Target::Column(one_of(choices, &known.nullable)?), Mask::Null),
            },
            4 => {
                let (from, to) = match choices.pick(2) {
                    0 => {
                        let texts = [one_of(choices, &known.texts)?, one_of(choices, &known.texts)?];
                        (Target::Column(texts[0]), Target::Column(texts[1]))
                    }
                    _ => {
                        let map = one_of(choices, &known.maps)?;
                        let mut key = || KEYS[choices.pick(KEYS.len())];
                        (Target::Entry(map, key()), Target::Entry(map, key()))
                    }
                };
                (from.written(known) != to.written(known)).then_some(Self::Rename(from, to))?
            }
            5 => Self::Route([vec!["main"], vec!["second"], vec!["main", "second"]][choices.pick(3)].clone()),
            6 => Self::Alert(
                (choices.pick(2) == 1).then(|| Text::any(choices, known, 1)),
                Text::any(choices, known, 2),
            ),
            _ => Self::Charge(Number::any(choices, known, 3)),
        })
    }

    fn yaml(&self, known: &Known<'_>) -> String {
        match self {
            Self::Drop => "drop: true".to_owned(),
            Self::Set(sets) => {
                let one = |(target, value): &(Target, Value)| {
                    let sql = match value {
                        Value::Number(number) => number.sql(known),
                        Value::Text(text) => text.sql(known),
                        Value::Flag(condition) => condition.sql(known),
                    };
                    format!("{}: {}", quoted(&target.written(known)), quoted(&sql))
                };
                format!("set: {{{}}}", sets.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Self::Mask(target, mask) => {
                let mask = match mask {
                    Mask::Sha256 => "sha256".to_owned(),
                    Mask::Truncate(letters) => format!("truncate({letters})"),
                    Mask::Null => "\"null\"".to_owned(),
                };
                format!("mask: {{{}: {mask}}}", quoted(&target.written(known)))
            }
            Self::Rename(from, to) => {
                format!(
                    "rename: {{{}: {}}}",
                    quoted(&from.written(known)),
                    quoted(&to.written(known))
                )
            }
            Self::Route(tables) => format!("route: [{}]", tables.join(", ")),
            Self::Alert(key, text) => {
                let key = key
                    .as_ref()
                    .map(|key| format!("key: {}, ", quoted(&key.sql(known))))
                    .unwrap_or_default();
                format!("alert: {{severity: info, {key}text: {}}}", quoted(&text.sql(known)))
            }
            Self::Charge(quantity) => format!("charge: {{meter: m, quantity: {}}}", quoted(&quantity.sql(known))),
        }
    }
}

/// Up to five rules.
pub fn rules(choices: &mut Choices<'_>, known: &Known<'_>) -> Vec<Rule> {
    let one = |number: usize, choices: &mut Choices<'_>| {
        let when = match choices.pick(4) {
            0 => When::Always,
            1 => When::Compare(
                COMPARISONS[choices.pick(COMPARISONS.len())],
                Number::any(choices, known, 2),
                Number::any(choices, known, 2),
            ),
            _ => When::If(Condition::any(choices, known, 2)),
        };
        Some(Rule {
            name: format!("r{number}"),
            when,
            action: Action::any(choices, known)?,
        })
    };
    (0..choices.pick(6)).filter_map(|number| one(number, choices)).collect()
}

/// The document of a tenant.
pub fn yaml(tenant: &str, rules: &[Rule], known: &Known<'_>) -> String {
    let mut text = format!("tenant: \"{tenant}\"\nmeters: {{m: {{unit: x, scale: 1}}}}\n");
    if !rules.is_empty() {
        text.push_str("rules:\n");
    }
    for rule in rules {
        let when = match &rule.when {
            When::Always => String::new(),
            When::If(condition) => format!("when: {}, ", quoted(&condition.sql(known))),
            When::Compare(operator, left, right) => {
                let sql = format!("{} {operator} {}", left.sql(known), right.sql(known));
                format!("when: {}, ", quoted(&sql))
            }
        };
        text.push_str(&format!(
            "  - {{name: {}, {when}{}}}\n",
            rule.name,
            rule.action.yaml(known)
        ));
    }
    text
}
