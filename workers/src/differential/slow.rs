//! What has to come of an event, the obvious way: one event after the other, one rule after the other, trees walked from their top.

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::document::{Action, Mask, Rule, Target, Value, When};
use super::expression::{Condition, Known, Number, Text};
use super::{Charged, Event, Record};
use crate::decode::tests::oracle::Cell;
use crate::records::rfc3339;

/// A value, NULL, or the code with which a rule fails.
type Evaluated<T> = Result<Option<T>, &'static str>;

/// An event while rules change it.
struct Row<'a> {
    cells: Vec<Cell>,
    known: &'a Known<'a>,
}

fn compared<T: Ord>(operator: &str, left: T, right: T) -> bool {
    match operator {
        "=" => left == right,
        "<>" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        _ => left >= right,
    }
}

impl Row<'_> {
    fn number(&self, number: &Number) -> Evaluated<i64> {
        Ok(match number {
            Number::Column(index) => match self.cells[*index] {
                Cell::Int(number) => Some(i64::try_from(number).unwrap()),
                _ => None,
            },
            Number::Literal(number) => Some(*number),
            Number::Two(operator, left, right) => {
                let (Some(left), Some(right)) = (self.number(left)?, self.number(right)?) else {
                    return Ok(None);
                };
                let result = match operator {
                    '+' => left.checked_add(right),
                    '-' => left.checked_sub(right),
                    '*' => left.checked_mul(right),
                    _ if right == 0 => return Err("divide_by_zero"),
                    '/' => left.checked_div(right),
                    _ => Some(left.wrapping_rem(right)),
                };
                Some(result.ok_or("overflow")?)
            }
            Number::Either(condition, yes, no) => match self.condition(condition) {
                Some(true) => self.number(yes)?,
                _ => self.number(no)?,
            },
            Number::First(one, other) => match self.number(one)? {
                None => self.number(other)?,
                found => found,
            },
            Number::Length(text) => self
                .text(text)?
                .map(|text| i64::try_from(text.chars().count()).unwrap()),
        })
    }

    fn text(&self, text: &Text) -> Evaluated<String> {
        Ok(match text {
            Text::Column(index) => self.get(&Target::Column(*index)),
            Text::Entry(map, key) => self.get(&Target::Entry(*map, key)),
            Text::Literal(text) => Some((*text).to_owned()),
            Text::Joined(one, other) => match (self.text(one)?, self.text(other)?) {
                (Some(one), Some(other)) => Some(one + &other),
                _ => None,
            },
            Text::Of(number) => self.number(number)?.map(|number| number.to_string()),
        })
    }

    /// Of a text column, or of an entry.
    fn get(&self, target: &Target) -> Option<String> {
        let cell = match target {
            Target::Column(index) => &self.cells[*index],
            Target::Entry(map, key) => match &self.cells[*map] {
                Cell::Map(entries) => entries.get(*key)?,
                _ => return None,
            },
        };
        match cell {
            Cell::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn condition(&self, condition: &Condition) -> Option<bool> {
        // Nothing in a condition fails.
        let number = |number: &Number| self.number(number).unwrap();
        let text = |text: &Text| self.text(text).unwrap();
        match condition {
            Condition::Flag(index) => match self.cells[*index] {
                Cell::Bool(flag) => Some(flag),
                _ => None,
            },
            Condition::Compare(operator, left, right) => Some(compared(operator, number(left)?, number(right)?)),
            Condition::Same(left, right) => Some(text(left)? == text(right)?),
            Condition::Begins(whole, begin) => Some(text(whole)?.starts_with(begin)),
            Condition::Missing(of) => Some(text(of).is_none()),
            Condition::And(one, other) => match (self.condition(one), self.condition(other)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Condition::Or(one, other) => match (self.condition(one), self.condition(other)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Condition::Not(inner) => self.condition(inner).map(|inner| !inner),
        }
    }

    fn chosen(&self, when: &When) -> Result<bool, &'static str> {
        Ok(match when {
            When::Always => true,
            When::If(condition) => self.condition(condition) == Some(true),
            When::Compare(operator, left, right) => match (self.number(left)?, self.number(right)?) {
                (Some(left), Some(right)) => compared(operator, left, right),
                _ => false,
            },
        })
    }

    /// The cell that a value makes; NULL for a column that cannot be NULL fails.
    fn cell(&self, target: &Target, value: &Value) -> Result<Cell, &'static str> {
        let cell = match value {
            Value::Number(number) => self.number(number)?.map(|number| Cell::Int(number.into())),
            Value::Text(text) => self.text(text)?.map(Cell::Text),
            Value::Flag(condition) => self.condition(condition).map(Cell::Bool),
        };
        match (cell, target) {
            (Some(cell), _) => Ok(cell),
            (None, Target::Column(index)) if !self.known.shape.columns[*index].nullable => Err("null_value"),
            (None, _) => Ok(Cell::Null),
        }
    }

    /// An entry of NULL is removed, and a map that is NULL becomes one when an entry is put into it.
    fn put(&mut self, target: &Target, cell: Cell) {
        let (map, key) = match target {
            Target::Column(index) => {
                self.cells[*index] = cell;
                return;
            }
            Target::Entry(map, key) => (&mut self.cells[*map], (*key).to_owned()),
        };
        match (map, cell) {
            (Cell::Map(entries), Cell::Null) => {
                entries.remove(&key);
            }
            (Cell::Map(entries), cell) => {
                entries.insert(key, cell);
            }
            (_, Cell::Null) => {}
            (map, cell) => *map = Cell::Map(BTreeMap::from([(key, cell)])),
        }
    }

    /// Fails with a code and what was about to be made.
    fn set(&mut self, sets: &[(Target, Value)]) -> Result<(), (&'static str, String)> {
        let cell = |(target, value): &(Target, Value)| {
            let failed = |code| (code, target.written(self.known));
            self.cell(target, value).map_err(failed)
        };
        let cells = sets.iter().map(cell).collect::<Result<Vec<_>, _>>()?;
        for ((target, _), cell) in sets.iter().zip(cells) {
            self.put(target, cell);
        }
        Ok(())
    }

    fn mask(&mut self, target: &Target, mask: Mask) {
        let masked = self.get(target).and_then(|text| match mask {
            Mask::Sha256 => Some(
                Sha256::digest(text.as_bytes())
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
            ),
            Mask::Truncate(letters) => Some(text.chars().take(letters).collect()),
            Mask::Null => None,
        });
        match (masked, mask) {
            (Some(masked), _) => self.put(target, Cell::Text(masked)),
            (None, Mask::Null) => self.put(target, Cell::Null),
            (None, _) => {}
        }
    }

    fn rename(&mut self, from: &Target, to: &Target) {
        let moved = match from {
            // The value of an entry may be NULL, and is one all the same.
            Target::Entry(map, key) => match &self.cells[*map] {
                Cell::Map(entries) => entries.get(*key).cloned(),
                _ => None,
            },
            Target::Column(_) => self.get(from).map(Cell::Text),
        };
        let Some(moved) = moved else { return };
        match (from, to) {
            (Target::Column(index), _) => {
                self.put(to, moved);
                self.cells[*index] = match self.known.shape.columns[*index].nullable {
                    true => Cell::Null,
                    false => Cell::Text(String::new()),
                };
            }
            (Target::Entry(map, key), Target::Entry(_, to)) => {
                if let Cell::Map(entries) = &mut self.cells[*map] {
                    entries.remove(*key);
                    entries.insert((*to).to_owned(), moved);
                }
            }
            (Target::Entry(..), Target::Column(_)) => {}
        }
    }
}

/// What the rules of its tenant make of a sound event.
pub fn event(known: &Known<'_>, rules: &[Rule], cells: Vec<Cell>, record: &Record<'_>) -> Event {
    let mut row = Row { cells, known };
    let mut tables = vec!["main"];
    let (mut alerts, mut charges) = (Vec::new(), Vec::new());
    let place = format!("events/{}/{}", record.partition, record.offset);
    for rule in rules {
        let failed = |(code, field): (&'static str, String)| Event {
            dead: Some(("rules", code.to_owned(), field)),
            ..Event::default()
        };
        match row.chosen(&rule.when) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(code) => return failed((code, "when".to_owned())),
        }
        match &rule.action {
            Action::Drop => {
                return Event {
                    alerts,
                    charges,
                    ..Event::default()
                };
            }
            Action::Set(sets) => {
                if let Err(why) = row.set(sets) {
                    return failed(why);
                }
            }
            Action::Mask(target, mask) => row.mask(target, *mask),
            Action::Rename(from, to) => row.rename(from, to),
            Action::Route(to) => tables.clone_from(to),
            Action::Alert(key, text) => {
                let text = match row.text(text) {
                    Ok(text) => text.unwrap_or_default(),
                    Err(code) => return failed((code, "text".to_owned())),
                };
                let key = match key.as_ref().map(|key| row.text(key)).transpose() {
                    Ok(key) => key.flatten().unwrap_or_else(|| record.tenant.clone()),
                    Err(code) => return failed((code, "key".to_owned())),
                };
                let value = json!({
                    "id": format!("{place}/{}", alerts.len()),
                    "tenant": record.tenant,
                    "event": "events",
                    "event_id": record.id,
                    "event_time": rfc3339(record.time),
                    "rule": rule.name,
                    "severity": "info",
                    "text": text,
                    "rules_revision": super::REVISION,
                });
                alerts.push((key, value));
            }
            Action::Charge(quantity) => match row.number(quantity) {
                Ok(Some(quantity)) => charges.push(Charged {
                    id: format!("{place}/{}", charges.len()),
                    tenant: record.tenant.clone(),
                    event_id: record.id.clone(),
                    rule: rule.name.clone(),
                    quantity,
                }),
                Ok(None) => return failed(("null_value", "quantity".to_owned())),
                Err(code) => return failed((code, "quantity".to_owned())),
            },
        }
    }
    Event {
        dead: None,
        rows: tables
            .into_iter()
            .map(|table| (table.to_owned(), row.cells.clone()))
            .collect(),
        alerts,
        charges,
    }
}
