//! One program over some rows: its steps, top to bottom.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, new_null_array};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::chosen::Chosen;
use super::edit_map::{self, Change};
use super::effects::{Effects, Failed};
use super::merge::Outcome;
use super::work::{Rows, Work};
use crate::applied::{Alert, Charge, Code, Failure};
use crate::expression::{panicked, shortened};
use crate::limits::ALERT_BYTES_MAX;
use crate::program::{Action, Alerting, Assignment, Charging, Move, Step};

/// Runs a program's steps for one event. What can't be computed for other reasons than an event's values (a panic in
/// our own kernels, columns beyond two gigabytes) is narrowed to single rows, too.
pub fn run<'p>(steps: &'p [Step], input: &RecordBatch, rows: Rows, outcomes: &mut Vec<Outcome<'p>>) {
    let attempt = catch_unwind(AssertUnwindSafe(|| attempt(steps, input, rows.clone())));
    let reason = match attempt {
        Ok(Ok(outcome)) => return outcomes.push(outcome),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panicked(panic.as_ref()),
    };
    if rows.len() > 1 {
        for half in rows.halves() {
            run(steps, input, half, outcomes);
        }
        return;
    }
    let failure = |nth| Failure {
        row: rows.number(nth),
        rule: steps
            .first()
            .map_or_else(|| Arc::from(""), |step| Arc::clone(&step.rule)),
        code: Code::Internal,
        field: None,
        reason: shortened(&reason).into_owned(),
    };
    outcomes.push(Outcome {
        steps,
        rows: Rows::Some(Vec::<u32>::new().into()),
        changed: Vec::new(),
        routed: None,
        effects: Effects {
            failures: (0..rows.len()).map(failure).collect(),
            ..Effects::default()
        },
    });
}

fn attempt<'p>(steps: &'p [Step], input: &RecordBatch, rows: Rows) -> Result<Outcome<'p>, ArrowError> {
    let mut work = Work::new(input, rows);
    for (index, step) in steps.iter().enumerate() {
        if work.rows.len() == 0 {
            break;
        }
        take_step(&mut work, index, step)?;
    }
    Ok(work.outcome(steps))
}

fn take_step(work: &mut Work<'_>, index: usize, step: &Step) -> Result<(), ArrowError> {
    let mut failed = Failed::default();
    let chosen = work.choose(step, &mut failed)?;
    if chosen.len() == 0 {
        return work.bury(step, failed, None);
    }
    match &step.action {
        Action::Drop => return work.bury(step, failed, Some(&chosen)),
        Action::Set(assignments) => set(work, &chosen, assignments, &mut failed)?,
        Action::Rename(moves) => {
            for one in moves {
                rename(work, &chosen, one)?;
            }
        }
        Action::Route(_) => {
            let routed = work.routed.get_or_insert_with(|| vec![0; work.rows.len()]);
            for row in chosen.rows() {
                routed[row] = u32::try_from(index + 1).unwrap_or(u32::MAX);
            }
        }
        Action::Alert(alerting) => alert(work, &chosen, (step, alerting), &mut failed)?,
        Action::Charge(charging) => charge(work, &chosen, (step, charging), &mut failed)?,
    }
    work.bury(step, failed, None)
}

fn set<'s>(
    work: &mut Work<'_>,
    chosen: &Chosen,
    assignments: &'s [Assignment],
    failed: &mut Failed<'s>,
) -> Result<(), ArrowError> {
    let mut values = Vec::with_capacity(assignments.len());
    for assignment in assignments {
        let value = work.evaluate(&assignment.value, chosen, &assignment.field, failed)?;
        if !assignment.nullable && value.null_count() > 0 {
            for nth in (0..value.len()).filter(|nth| value.is_null(*nth)) {
                // A row that has just failed is NULL here, too; what it failed of is known already.
                failed.add(
                    chosen.row(nth),
                    Code::NullValue,
                    &assignment.field,
                    "the value is NULL and the column can't be",
                );
            }
        }
        values.push(value);
    }
    for (assignment, value) in assignments.iter().zip(values) {
        if let Some(key) = &assignment.entry
            && value.null_count() == value.len()
            && work.lacks(assignment.column, key)
        {
            // An entry that is not there is removed.
            continue;
        }
        let old = work.column(assignment.column)?;
        let keep = |nth: usize| failed.contains(chosen.row(nth));
        let new = match &assignment.entry {
            None => Some(chosen.replaced(&old, &value, keep)?),
            Some(key) => {
                let mut changes = vec![Change::Keep; old.len()];
                for nth in (0..chosen.len()).filter(|nth| !keep(*nth)) {
                    changes[chosen.row(nth)] = if value.is_null(nth) {
                        Change::Remove
                    } else {
                        Change::Put(nth)
                    };
                }
                edit_map::put(old.as_map(), key, &changes, &value)?
            }
        };
        if let Some(new) = new {
            work.replace(assignment.column, new);
        }
    }
    Ok(())
}

fn rename(work: &mut Work<'_>, chosen: &Chosen, one: &Move) -> Result<(), ArrowError> {
    match one {
        Move::Entry { map, from, to } => {
            if work.lacks(*map, from) {
                return Ok(());
            }
            let old = work.column(*map)?;
            if let Some(new) = edit_map::rename(old.as_map(), from, to, chosen.rows())? {
                work.replace(*map, new);
            }
        }
        Move::Column { from, to } => {
            let source = work.column(*from)?;
            let moving = chosen.of(&source)?;
            if moving.null_count() == moving.len() {
                return Ok(());
            }
            let nothing = |nth: usize| moving.is_null(nth);
            let target = chosen.replaced(&work.column(*to)?, &moving, nothing)?;
            let emptied = chosen.replaced(&source, &emptied(work, *from, moving.len()), nothing)?;
            work.replace(*to, target);
            work.replace(*from, emptied);
        }
    }
    Ok(())
}

/// What a column holds after its value has moved out: NULL, or the empty text where NULL can't be.
fn emptied(work: &Work<'_>, column: usize, rows: usize) -> ArrayRef {
    match work.nullable(column) {
        true => new_null_array(&work.column_type(column), rows),
        false => Arc::new(StringArray::from_iter_values(std::iter::repeat_n("", rows))),
    }
}

fn alert<'s>(
    work: &mut Work<'_>,
    chosen: &Chosen,
    (step, alerting): (&'s Step, &'s Alerting),
    failed: &mut Failed<'s>,
) -> Result<(), ArrowError> {
    let texts = work.evaluate(&alerting.text, chosen, "text", failed)?;
    let keys = match &alerting.key {
        Some(key) => Some(work.evaluate(key, chosen, "key", failed)?),
        None => None,
    };
    for (field, values) in [("text", Some(&texts)), ("key", keys.as_ref())] {
        let Some(values) = values else { continue };
        for (nth, value) in strings(values)?.iter().enumerate() {
            if let Some(bytes) = value.map(str::len).filter(|bytes| *bytes > ALERT_BYTES_MAX) {
                let reason = format!("{bytes} bytes are too large: at most {ALERT_BYTES_MAX} are allowed");
                failed.add(chosen.row(nth), Code::TooLarge, field, reason);
            }
        }
    }
    let (texts, keys) = (strings(&texts)?, keys.as_ref().map(strings).transpose()?);
    let value = |texts: &StringArray, nth: usize| texts.is_valid(nth).then(|| texts.value(nth).to_owned());
    for nth in 0..chosen.len() {
        let row = chosen.row(nth);
        if failed.contains(row) {
            continue;
        }
        let number = work.rows.number(row);
        let alert = Alert {
            row: number,
            rule: Arc::clone(&step.rule),
            severity: alerting.severity,
            key: keys.and_then(|keys| value(keys, nth)),
            text: value(texts, nth).unwrap_or_default(),
        };
        work.effects.alerts.push((number, step.position, alert));
    }
    Ok(())
}

fn strings(values: &ArrayRef) -> Result<&StringArray, ArrowError> {
    values
        .as_string_opt::<i32>()
        .ok_or_else(|| ArrowError::SchemaError("a text is no string".to_owned()))
}

fn charge<'s>(
    work: &mut Work<'_>,
    chosen: &Chosen,
    (step, charging): (&'s Step, &'s Charging),
    failed: &mut Failed<'s>,
) -> Result<(), ArrowError> {
    const FIELD: &str = "quantity";
    let values = work.evaluate(&charging.quantity, chosen, FIELD, failed)?;
    let quantities = quantities(&values, |nth, code, reason| {
        failed.add(chosen.row(nth), code, FIELD, reason)
    })?;
    for nth in 0..chosen.len() {
        let row = chosen.row(nth);
        if failed.contains(row) {
            continue;
        }
        if quantities.is_null(nth) {
            failed.add(row, Code::NullValue, FIELD, "the quantity is NULL");
            continue;
        }
        let number = work.rows.number(row);
        let charge = Charge {
            row: number,
            rule: Arc::clone(&step.rule),
            meter: Arc::clone(&charging.meter),
            unit: Arc::clone(&charging.unit),
            scale: charging.scale,
            quantity: quantities.value(nth),
        };
        work.effects.charges.push((number, step.position, charge));
    }
    Ok(())
}

/// Whole numbers of the meter's smallest part.
fn quantities(values: &ArrayRef, mut refuse: impl FnMut(usize, Code, String)) -> Result<Int64Array, ArrowError> {
    match values.data_type() {
        DataType::Int64 => Ok(values.as_primitive::<Int64Type>().clone()),
        DataType::Decimal128(_, scale) => {
            let decimals = values.as_primitive::<Decimal128Type>();
            let one = u32::try_from(*scale).ok().and_then(|scale| 10_i128.checked_pow(scale));
            let mut whole = |nth: usize| {
                let value = decimals.is_valid(nth).then(|| decimals.value(nth))?;
                let (whole, rest) = match one {
                    Some(one) => (Some(value / one), value % one),
                    // A negative scale: so many zeros are left out.
                    None => (
                        value.checked_mul(10_i128.checked_pow(u32::from(scale.unsigned_abs()))?),
                        0,
                    ),
                };
                if rest != 0 {
                    let reason = format!(
                        "{} is no whole number of the meter's smallest part",
                        decimals.value_as_string(nth)
                    );
                    refuse(nth, Code::Inexact, reason);
                    return None;
                }
                let quantity = whole.and_then(|whole| i64::try_from(whole).ok());
                if quantity.is_none() {
                    refuse(
                        nth,
                        Code::Overflow,
                        format!("{} is too large for a quantity", decimals.value_as_string(nth)),
                    );
                }
                quantity
            };
            Ok((0..decimals.len()).map(&mut whole).collect())
        }
        other => Err(ArrowError::SchemaError(format!("a quantity is {other}"))),
    }
}
