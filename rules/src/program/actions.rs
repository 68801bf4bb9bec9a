//! Each action, compiled for one event.

use arrow::datatypes::{DataType, Field};

use super::{Action, Alerting, Assignment, Move, Wrong, all, both, expression};
use crate::applied::Severity;
use crate::catalog::EventShape;
use crate::expression::{Expression, Mistake, Parsed, Wanted, unknown_column};
use crate::written::{Mask, Spot, Sql, Target};

/// The column of something that a rule changes, with the field of what it holds there.
fn place(target: &Target, event: &EventShape) -> Result<(usize, Field), Vec<Wrong>> {
    let wrong = |message: String| vec![Wrong::new(&target.at, message)];
    let column = &target.name.column;
    let index = event
        .index(column)
        .ok_or_else(|| wrong(unknown_column(column, event)))?;
    if index == event.tenant {
        return Err(wrong("the tenant of an event can't be changed".to_owned()));
    }
    let field = event.schema.field(index);
    if target.name.entry.is_none() {
        return Ok((index, field.clone()));
    }
    let values = match field.data_type() {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => fields.get(1),
            _ => None,
        },
        _ => None,
    };
    match values {
        Some(values) => Ok((index, values.as_ref().clone().with_nullable(true))),
        None => Err(wrong(format!("`{column}` is no map: it has no entries"))),
    }
}

fn assignment(target: &Target, index: usize, field: &Field, value: Expression) -> Assignment {
    Assignment {
        field: target.name.written(),
        column: index,
        entry: target.name.entry.clone(),
        value,
        nullable: field.is_nullable(),
    }
}

pub fn set(sets: &[(Target, Sql)], event: &EventShape) -> Result<Action, Vec<Wrong>> {
    let compiled = |(target, sql): &(Target, Sql)| {
        let (index, field) = match place(target, event) {
            Ok(place) => place,
            Err(mut wrongs) => {
                // What is wrong inside of the value is worth knowing, too.
                let unresolved = sql.parsed.resolve(event).err().unwrap_or_default();
                let wrong = |mistake| Wrong {
                    at: sql.at.clone(),
                    text: Some(sql.parsed.text.clone()),
                    mistake,
                };
                wrongs.extend(unresolved.into_iter().map(wrong));
                return Err(wrongs);
            }
        };
        let value = expression(sql, event, Wanted::Value(&field))?;
        Ok(assignment(target, index, &field, value))
    };
    let assignments = all(sets.iter().map(compiled))?;
    once(sets.iter().map(|(target, _)| target), &assignments)?;
    Ok(Action::Set(assignments))
}

/// Two values for one column would leave it to chance which one wins.
fn once<'a>(targets: impl Iterator<Item = &'a Target>, assignments: &[Assignment]) -> Result<(), Vec<Wrong>> {
    for (index, target) in targets.enumerate() {
        let same = |above: &Assignment| {
            let (a, b) = (&above.entry, &assignments[index].entry);
            above.column == assignments[index].column && (a == b || a.is_none() || b.is_none())
        };
        if assignments[..index].iter().any(same) {
            return Err(vec![Wrong::new(
                &target.at,
                "the same column is named twice in this rule",
            )]);
        }
    }
    Ok(())
}

pub fn mask(masks: &[(Target, Mask, Parsed)], event: &EventShape) -> Result<Action, Vec<Wrong>> {
    let compiled = |(target, mask, parsed): &(Target, Mask, Parsed)| {
        let (index, field) = place(target, event)?;
        let wrong = |message: String| vec![Wrong::new(&target.at, message)];
        match mask {
            Mask::Null if !field.is_nullable() => {
                return Err(wrong(format!(
                    "`{}` can't be NULL; mask it with sha256 or truncate(0)",
                    target.name.written()
                )));
            }
            Mask::Sha256 | Mask::Truncate(_) if *field.data_type() != DataType::Utf8 => {
                return Err(wrong(format!(
                    "`{}` is no text: only null can mask it",
                    target.name.written()
                )));
            }
            _ => {}
        }
        let mistakes = |mistakes: Vec<Mistake>| {
            mistakes
                .into_iter()
                .flat_map(|mistake| wrong(mistake.message))
                .collect::<Vec<_>>()
        };
        let value = Expression::compile(parsed, event, Wanted::Value(&field)).map_err(mistakes)?;
        Ok(assignment(target, index, &field, value))
    };
    let assignments = all(masks.iter().map(compiled))?;
    once(masks.iter().map(|(target, ..)| target), &assignments)?;
    Ok(Action::Set(assignments))
}

pub fn rename(moves: &[(Target, Target)], event: &EventShape) -> Result<Action, Vec<Wrong>> {
    let compiled = |(from, to): &(Target, Target)| {
        let wrong = |at: &Target, message: String| Err(vec![Wrong::new(&at.at, message)]);
        let ((from_column, from_field), (to_column, to_field)) = both(place(from, event), place(to, event))?;
        match (&from.name.entry, &to.name.entry) {
            _ if from_column == to_column && from.name.entry == to.name.entry => {
                wrong(to, "this is the same column".to_owned())
            }
            (Some(from_key), Some(to_key)) if from_column == to_column => Ok(Move::Entry {
                map: from_column,
                from: from_key.clone(),
                to: to_key.clone(),
            }),
            (Some(_), Some(_)) => wrong(
                to,
                "an entry keeps its map; to copy it into another one use `set`".to_owned(),
            ),
            (None, None) if from_field.data_type() != to_field.data_type() => wrong(
                to,
                format!(
                    "`{}` and `{}` have different types",
                    from.name.written(),
                    to.name.written()
                ),
            ),
            (None, None) if !from_field.is_nullable() && *from_field.data_type() != DataType::Utf8 => wrong(
                from,
                format!(
                    "`{}` can be neither NULL nor empty, so nothing can be moved out of it",
                    from.name.written()
                ),
            ),
            (None, None) => Ok(Move::Column {
                from: from_column,
                to: to_column,
            }),
            _ => wrong(
                to,
                "a column is renamed to a column and an entry to an entry; between them use `set`".to_owned(),
            ),
        }
    };
    all(moves.iter().map(compiled)).map(Action::Rename)
}

pub fn table_index(event: &EventShape, table: &str, at: &Spot) -> Result<usize, Wrong> {
    event.table_index(table).ok_or_else(|| {
        let message = format!("{} can't go to a table `{table}`", event.name);
        Wrong::new(
            at,
            match document::nearest(table, event.tables.iter().map(String::as_str)) {
                Some(meant) => format!("{message}; did you mean `{meant}`?"),
                None => format!("{message}; it may go to {}", event.tables.join(", ")),
            },
        )
    })
}

pub fn route(tables: &[(String, Spot)], event: &EventShape) -> Result<Action, Vec<Wrong>> {
    let found = |(table, at): &(String, Spot)| table_index(event, table, at).map_err(|wrong| vec![wrong]);
    let mut indices = all(tables.iter().map(found))?;
    indices.sort_unstable();
    indices.dedup();
    Ok(Action::Route(indices))
}

pub fn alert(severity: Severity, key: Option<&Sql>, text: &Sql, event: &EventShape) -> Result<Action, Vec<Wrong>> {
    let key = key.map(|key| expression(key, event, Wanted::Text)).transpose();
    let (key, text) = both(key, expression(text, event, Wanted::Text))?;
    Ok(Action::Alert(Box::new(Alerting { severity, key, text })))
}
