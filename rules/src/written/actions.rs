//! What a rule does, as it was written.

use document::{Item, Reader};

use super::{Action, Mask, Notes, Spot, Target, key_spot, listed, name, spot, sql};
use crate::applied::Severity;
use crate::expression::{Name, Parsed};
use crate::limits::{COLUMNS_MAX, TEXT_BYTES_MAX};

const ACTIONS: [&str; 7] = ["drop", "set", "mask", "rename", "route", "alert", "charge"];

/// Reads the one thing that a rule does.
pub fn action(reader: &Reader<'_>, rule: &Item<'_>, notes: &Notes<'_>) -> Option<Action> {
    let written: Vec<&str> = ACTIONS.into_iter().filter(|action| reader.has(action)).collect();
    let items = ACTIONS.map(|action| reader.optional(action));
    match written.as_slice() {
        [_] => {}
        [] => {
            rule.fault(format!("the rule does nothing; give it one of {}", ACTIONS.join(", ")));
            return None;
        }
        several => {
            rule.fault(format!(
                "a rule does one thing; this one has {}: make it several rules",
                several.join(" and ")
            ));
            return None;
        }
    }
    let [drop, set, mask, rename, route, alert, charge] = items;
    let read_drop = |item: Item<'_>| match item.bool()? {
        true => Some(Action::Drop),
        false => {
            item.fault("`drop: false` does nothing; leave the rule out");
            None
        }
    };
    drop.and_then(read_drop)
        .or_else(|| set.and_then(|item| set_action(&item, notes)))
        .or_else(|| mask.and_then(|item| mask_action(&item)))
        .or_else(|| rename.and_then(|item| rename_action(&item)))
        .or_else(|| {
            route
                .and_then(|item| listed(&item, "tables; to keep events out of all tables use `drop: true`"))
                .map(Action::Route)
        })
        .or_else(|| alert.and_then(|item| alert_action(&item, notes)))
        .or_else(|| charge.and_then(|item| charge_action(&item, notes)))
}

/// The entries of a mapping from columns. `None` when one has a fault.
fn targets<'a, T>(item: &Item<'a>, read: impl Fn(&Target, &Item<'a>) -> Option<T>) -> Option<Vec<(Target, T)>> {
    let entries = item.entries()?;
    if entries.is_empty() {
        item.fault("names no column");
        return None;
    }
    if entries.len() > COLUMNS_MAX {
        item.fault(format!(
            "names {} columns; a rule has at most {COLUMNS_MAX}",
            entries.len()
        ));
        return None;
    }
    let mut found = Vec::new();
    let mut complete = true;
    for (key, item) in entries {
        let target = target(key, key_spot(&item), |message| item.fault_at_key(message));
        let value = target.as_ref().and_then(|target| read(target, &item));
        match (target, value) {
            (Some(target), Some(value)) => found.push((target, value)),
            _ => complete = false,
        }
    }
    complete.then_some(found)
}

fn target(text: &str, at: Spot, fault: impl FnOnce(String)) -> Option<Target> {
    let name = Name::new(text).map_err(fault).ok()?;
    Some(Target {
        text: text.to_owned(),
        name,
        at,
    })
}

fn set_action(item: &Item<'_>, notes: &Notes<'_>) -> Option<Action> {
    targets(item, |_, item| sql(item, notes)).map(Action::Set)
}

fn mask_action(item: &Item<'_>) -> Option<Action> {
    let masks = targets(item, |target, item| {
        let mask = mask(item)?;
        let hidden = match mask {
            Mask::Sha256 => format!("encode(sha256({}), 'hex')", target.text),
            Mask::Truncate(letters) => format!("left({}, {letters})", target.text),
            Mask::Null => "NULL".to_owned(),
        };
        // The column alone has been parsed before; only a name of four kilobytes makes this fail.
        let parsed = Parsed::new(&hidden)
            .map_err(|_| item.fault_at_key("this column's name is too long"))
            .ok()?;
        Some((mask, parsed))
    })?;
    Some(Action::Mask(
        masks
            .into_iter()
            .map(|(target, (mask, parsed))| (target, mask, parsed))
            .collect(),
    ))
}

fn mask(item: &Item<'_>) -> Option<Mask> {
    let letters = |text: &str| {
        text.strip_prefix("truncate(")?
            .strip_suffix(')')?
            .trim()
            .parse::<u32>()
            .ok()
    };
    let text = if item.is_null() { "null" } else { item.scalar()? };
    match (text, letters(text)) {
        ("sha256", _) => Some(Mask::Sha256),
        ("null", _) => Some(Mask::Null),
        (_, Some(count)) if usize::try_from(count).is_ok_and(|count| count <= TEXT_BYTES_MAX) => {
            Some(Mask::Truncate(count))
        }
        _ => {
            item.fault("a mask is sha256, truncate(n) with the number of letters to keep, or null");
            None
        }
    }
}

fn rename_action(item: &Item<'_>) -> Option<Action> {
    let read = |_: &Target, item: &Item<'_>| target(item.text()?, spot(item), |message| item.fault(message));
    targets(item, read).map(Action::Rename)
}

fn alert_action(item: &Item<'_>, notes: &Notes<'_>) -> Option<Action> {
    let reader = item.map()?;
    let severity = reader
        .required("severity")
        .and_then(|item| item.choice(&Severity::WORDS));
    let key = reader.optional("key").map(|item| sql(&item, notes));
    let text = reader.required("text").and_then(|item| sql(&item, notes));
    reader.finish();
    Some(Action::Alert {
        severity: severity?,
        key: match key {
            Some(key) => Some(key?),
            None => None,
        },
        text: text?,
    })
}

fn charge_action(item: &Item<'_>, notes: &Notes<'_>) -> Option<Action> {
    let reader = item.map()?;
    let meter = reader
        .required("meter")
        .and_then(|item| Some((name(&item)?.to_owned(), spot(&item))));
    let quantity = reader.required("quantity").and_then(|item| sql(&item, notes));
    reader.finish();
    let (meter, meter_at) = meter?;
    Some(Action::Charge {
        meter,
        meter_at,
        quantity: quantity?,
    })
}
