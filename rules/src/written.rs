//! A document as somebody wrote it: read completely, every expression parsed, nothing yet compared with the events.

use std::collections::BTreeMap;
use std::sync::Arc;

use document::{Fault, Faults, Item, Node, Reader};
use serde_json::json;

use crate::applied::Severity;
use crate::expression::{Mistake, Name, Parsed};
use crate::limits::{METERS_MAX, NAME_BYTES_MAX, RULES_MAX, SCALE_MAX, TESTS_MAX, TEXT_BYTES_MAX};
use crate::position;

/// The document of one tenant.
#[derive(Debug)]
pub struct Written<'a> {
    pub tenant: String,
    /// Where the tenant is named.
    pub at: Spot,
    pub meters: BTreeMap<String, Meter>,
    pub rules: Vec<Rule>,
    /// Still as they stand there: what their values mean depends on the event.
    pub tests: Vec<Item<'a>>,
}

/// A place in the document.
#[derive(Debug, Clone)]
pub struct Spot {
    /// Line and column.
    pub position: (u32, u32),
    /// `rules[2].when`.
    pub path: String,
}

/// What charges count in.
#[derive(Debug, Clone)]
pub struct Meter {
    pub unit: Arc<str>,
    pub scale: u32,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    pub name: Arc<str>,
    pub at: Spot,
    /// `None`: every event that has what the rule names.
    pub events: Option<Vec<(String, Spot)>>,
    pub when: Option<Sql>,
    pub action: Action,
}

/// An expression and where it stands.
#[derive(Debug)]
pub struct Sql {
    pub parsed: Parsed,
    pub at: Spot,
}

/// What a rule sets, masks or renames, and where it stands.
#[derive(Debug)]
pub struct Target {
    /// As it was typed.
    pub text: String,
    pub name: Name,
    pub at: Spot,
}

/// What a rule does.
#[derive(Debug)]
pub enum Action {
    Drop,
    Set(Vec<(Target, Sql)>),
    Mask(Vec<(Target, Mask, Parsed)>),
    Rename(Vec<(Target, Target)>),
    Route(Vec<(String, Spot)>),
    Alert {
        severity: Severity,
        key: Option<Sql>,
        text: Sql,
    },
    Charge {
        meter: String,
        meter_at: Spot,
        quantity: Sql,
    },
}

/// How a value is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    Sha256,
    Truncate(u32),
    Null,
}

const ACTIONS: [&str; 7] = ["drop", "set", "mask", "rename", "route", "alert", "charge"];

/// Reads one document; what is wrong goes to `notes`. `None` when there is no mapping at all.
pub fn read<'a>(root: &'a Node, notes: &Notes<'a>) -> Option<Written<'a>> {
    let reader = Item::root(root, notes.faults).map()?;
    let tenant = reader
        .required("tenant")
        .and_then(|item| Some((name(&item)?.to_owned(), spot(&item))));
    let meters = reader.optional("meters").map(|item| meters(&item)).unwrap_or_default();
    let rules = reader
        .optional("rules")
        .and_then(|item| item.list())
        .unwrap_or_default();
    let tests = reader
        .optional("tests")
        .and_then(|item| item.list())
        .unwrap_or_default();
    reader.finish();
    for (items, max, what) in [(&rules, RULES_MAX, "rules"), (&tests, TESTS_MAX, "tests")] {
        if let Some(item) = items.get(max) {
            item.fault(format!("a document has at most {max} {what}"));
        }
    }
    let rules: Vec<Rule> = rules
        .iter()
        .take(RULES_MAX)
        .filter_map(|item| rule(item, notes))
        .collect();
    for (index, rule) in rules.iter().enumerate() {
        if rules[..index].iter().any(|above| above.name == rule.name) {
            notes.fault(
                &rule.at,
                format!(
                    "there is a rule `{}` above; names say which rule failed or charged",
                    rule.name
                ),
            );
        }
    }
    let (tenant, at) = tenant?;
    Some(Written {
        tenant,
        at,
        meters,
        rules,
        tests: tests.into_iter().take(TESTS_MAX).collect(),
    })
}

/// Where faults go, with the text in which places inside of expressions are found again.
#[derive(Debug)]
pub struct Notes<'a> {
    pub source: &'a str,
    pub faults: &'a Faults,
}

impl Notes<'_> {
    pub fn fault(&self, at: &Spot, message: impl Into<String>) {
        self.faults.at(at.position, &at.path, message);
    }

    /// Records what is wrong inside an expression, at its place in the file.
    pub fn mistakes(&self, at: &Spot, text: &str, mistakes: impl IntoIterator<Item = Mistake>) {
        for mistake in mistakes {
            let position = position::in_file(self.source, at.position, text, mistake.place);
            self.faults.push(Fault {
                file: self.faults.file().to_owned(),
                line: position.0,
                column: position.1,
                path: at.path.clone(),
                message: mistake.message,
            });
        }
    }
}

pub fn spot(item: &Item<'_>) -> Spot {
    Spot {
        position: item.position(),
        path: item.path().to_owned(),
    }
}

fn key_spot(item: &Item<'_>) -> Spot {
    Spot {
        position: item.key_position(),
        path: item.path().to_owned(),
    }
}

fn name<'a>(item: &Item<'a>) -> Option<&'a str> {
    let text = item.scalar()?;
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        item.fault(format!("a name has 1 to {NAME_BYTES_MAX} bytes on one line"));
        return None;
    }
    Some(text)
}

fn meters(item: &Item<'_>) -> BTreeMap<String, Meter> {
    let entries = item.entries().unwrap_or_default();
    if entries.len() > METERS_MAX {
        item.fault(format!("a document has at most {METERS_MAX} meters"));
    }
    let mut meters = BTreeMap::new();
    for (key, item) in entries {
        let Some(reader) = item.map() else { continue };
        let unit = reader.required("unit").and_then(|item| name(&item));
        let scale = match reader.optional("scale") {
            Some(item) => item.integer(0..=SCALE_MAX),
            None => Some(0),
        };
        reader.finish();
        if key.is_empty() || key.len() > NAME_BYTES_MAX {
            item.fault_at_key(format!("a name has 1 to {NAME_BYTES_MAX} bytes"));
        }
        // A meter with a fault stays known, so that the rules that charge it get no fault of their own.
        let meter = Meter {
            unit: unit.unwrap_or_default().into(),
            scale: scale.unwrap_or(0),
        };
        meters.insert(key.to_owned(), meter);
    }
    meters
}

fn rule(item: &Item<'_>, notes: &Notes<'_>) -> Option<Rule> {
    let reader = item.map()?;
    let name_item = reader.required("name");
    let rule_name = name_item.as_ref().and_then(name);
    let events = reader.optional("events").and_then(|item| listed(&item, "events"));
    let when = reader.optional("when").map(|item| sql(&item, notes));
    let action = action(&reader, item, notes);
    reader.finish();
    // A condition with a fault has said so already; the rule must not be checked as if it had none.
    let when = match when {
        Some(None) => return None,
        Some(when) => when,
        None => None,
    };
    Some(Rule {
        name: rule_name?.into(),
        at: name_item.as_ref().map_or(spot(item), spot),
        events,
        when,
        action: action?,
    })
}

/// A list of names that says something.
fn listed(item: &Item<'_>, what: &str) -> Option<Vec<(String, Spot)>> {
    let names: Vec<(String, Spot)> = item
        .list()?
        .iter()
        .filter_map(|item| Some((name(item)?.to_owned(), spot(item))))
        .collect();
    if names.is_empty() {
        item.fault(format!("names no {what}"));
        return None;
    }
    Some(names)
}

fn sql(item: &Item<'_>, notes: &Notes<'_>) -> Option<Sql> {
    let text = match item.is_null() {
        true => "NULL",
        false => item.scalar()?,
    };
    match Parsed::new(text) {
        Ok(parsed) => Some(Sql { parsed, at: spot(item) }),
        Err(mistakes) => {
            notes.mistakes(&spot(item), text, mistakes);
            None
        }
    }
}

fn action(reader: &Reader<'_>, rule: &Item<'_>, notes: &Notes<'_>) -> Option<Action> {
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

impl Written<'_> {
    /// The document without its tenant, tests, comments and layout: equal texts do the same to equal events.
    pub fn canonical(&self) -> String {
        let sql = |sql: &Sql| sql.parsed.text.trim().to_owned();
        let meter = |(name, meter): (&String, &Meter)| json!([name, &*meter.unit, meter.scale]);
        let rule = |rule: &Rule| {
            let names = |names: &[(String, Spot)]| names.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            let action = match &rule.action {
                Action::Drop => json!("drop"),
                Action::Set(sets) => {
                    json!({"set": sets.iter().map(|(to, value)| json!([to.name.written(), sql(value)])).collect::<Vec<_>>()})
                }
                Action::Mask(masks) => {
                    let masked =
                        |(target, _, hidden): &(Target, Mask, Parsed)| json!([target.name.written(), hidden.text]);
                    json!({"mask": masks.iter().map(masked).collect::<Vec<_>>()})
                }
                Action::Rename(moves) => {
                    let moved = |(from, to): &(Target, Target)| json!([from.name.written(), to.name.written()]);
                    json!({"rename": moves.iter().map(moved).collect::<Vec<_>>()})
                }
                Action::Route(tables) => json!({"route": names(tables)}),
                Action::Alert { severity, key, text } => {
                    json!({"alert": [severity.as_str(), key.as_ref().map(sql), sql(text)]})
                }
                Action::Charge { meter, quantity, .. } => json!({"charge": [meter, sql(quantity)]}),
            };
            json!([
                &*rule.name,
                rule.events.as_deref().map(names),
                rule.when.as_ref().map(sql),
                action
            ])
        };
        let meters: Vec<_> = self.meters.iter().map(meter).collect();
        let rules: Vec<_> = self.rules.iter().map(rule).collect();
        json!([meters, rules]).to_string()
    }
}
