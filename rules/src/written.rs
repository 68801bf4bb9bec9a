//! A document as somebody wrote it: read completely, every expression parsed, nothing yet compared with the events.

mod actions;
mod canonical;

use std::collections::BTreeMap;
use std::sync::Arc;

use document::{Fault, Faults, Item, Node};

use crate::applied::Severity;
use crate::expression::{Mistake, Name, Parsed};
use crate::limits::{METERS_MAX, NAME_BYTES_MAX, RULES_MAX, SCALE_MAX, TESTS_MAX};
use crate::position::Source;

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
    pub source: Source<'a>,
    pub faults: &'a Faults,
}

impl Notes<'_> {
    pub fn fault(&self, at: &Spot, message: impl Into<String>) {
        self.faults.at(at.position, &at.path, message);
    }

    /// Records what is wrong inside an expression, at its place in the file.
    pub fn mistakes(&self, at: &Spot, text: &str, mistakes: impl IntoIterator<Item = Mistake>) {
        for mistake in mistakes {
            // A document of nothing but mistakes has more than anybody is told: their places need not be found.
            if self.faults.is_full() {
                return;
            }
            let position = self.source.find(at.position, text, mistake.place);
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
    let action = actions::action(&reader, item, notes);
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
