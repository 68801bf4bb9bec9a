//! A document that has been checked: its rules, compiled for each event of the catalog.

mod actions;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::applied::Severity;
use crate::catalog::{Catalog, EventShape};
use crate::expression::{Expression, Mistake, Name, Wanted, unknown_column};
use crate::written::{self, Meter, Notes, Rule, Spot, Sql, Target, Written};

/// What a tenant's rules do to each event.
#[derive(Debug)]
pub struct Program {
    /// By the event's index in the catalog; top to bottom.
    pub events: Vec<Vec<Step>>,
}

/// One rule, compiled for one event.
#[derive(Debug)]
pub struct Step {
    /// Its place in the document, for the order of what it makes.
    pub position: u32,
    pub rule: Arc<str>,
    pub when: Option<Expression>,
    pub action: Action,
}

/// What a step does.
#[derive(Debug)]
pub enum Action {
    Drop,
    /// All values are computed before the first is assigned, as in SQL's UPDATE.
    Set(Vec<Assignment>),
    /// One after the other.
    Rename(Vec<Move>),
    /// Indices into [`EventShape::tables`], ascending.
    Route(Vec<usize>),
    Alert(Box<Alerting>),
    Charge(Box<Charging>),
}

/// A value for a column or for an entry of a map.
#[derive(Debug)]
pub struct Assignment {
    /// As the rule names it.
    pub field: String,
    pub column: usize,
    pub entry: Option<String>,
    pub value: Expression,
    /// Whether the column takes NULL. An entry does: it is then removed.
    pub nullable: bool,
}

/// A value that moves. NULL, or an entry that isn't there, has nothing to move.
#[derive(Debug)]
pub enum Move {
    Column { from: usize, to: usize },
    Entry { map: usize, from: String, to: String },
}

/// What is said, to whom.
#[derive(Debug)]
pub struct Alerting {
    pub severity: Severity,
    pub key: Option<Expression>,
    pub text: Expression,
}

/// What is charged.
#[derive(Debug)]
pub struct Charging {
    pub meter: Arc<str>,
    pub unit: Arc<str>,
    pub scale: u32,
    pub quantity: Expression,
}

/// Compiles a document; what is wrong goes to `notes`.
pub fn compile(written: &Written<'_>, catalog: &Catalog, notes: &Notes<'_>) -> Program {
    let mut events: Vec<Vec<Step>> = catalog.events.iter().map(|_| Vec::new()).collect();
    for (position, rule) in written.rules.iter().enumerate() {
        let compiler = RuleCompiler {
            rule,
            meters: &written.meters,
            position: u32::try_from(position).unwrap_or(u32::MAX),
        };
        compiler.compile(catalog, notes, &mut events);
    }
    Program { events }
}

/// Something wrong, at a place inside a text, or (without a text) at a spot.
struct Wrong {
    at: Spot,
    text: Option<String>,
    mistake: Mistake,
}

impl Wrong {
    fn new(at: &Spot, message: impl Into<String>) -> Self {
        Self {
            at: at.clone(),
            text: None,
            mistake: Mistake::new(Default::default(), message),
        }
    }
}

struct RuleCompiler<'a> {
    rule: &'a Rule,
    meters: &'a BTreeMap<String, Meter>,
    position: u32,
}

impl RuleCompiler<'_> {
    fn compile(&self, catalog: &Catalog, notes: &Notes<'_>, events: &mut [Vec<Step>]) {
        match &self.rule.action {
            written::Action::Alert { text, .. } if !catalog.alerts => notes.fault(
                &text.at,
                "the pipeline has no alert topic: give it one with `sinks.alerts.topic`",
            ),
            written::Action::Charge { meter_at, .. } if !catalog.charges => notes.fault(
                meter_at,
                "the pipeline has no service that takes charges: name one under `sinks`, such as `billing`",
            ),
            _ => {}
        }
        let chosen = match &self.rule.events {
            Some(names) => self.named_events(names, catalog, notes),
            None => self.fitting_events(catalog, notes),
        };
        let mut wrongs: Vec<(Wrong, Vec<&str>)> = Vec::new();
        for index in &chosen {
            let event = &catalog.events[*index];
            match self.step(event) {
                Ok(step) => events[*index].push(step),
                Err(found) => {
                    for wrong in found {
                        add_wrong(&mut wrongs, wrong, &event.name);
                    }
                }
            }
        }
        for (wrong, found_in) in wrongs {
            let mut mistake = wrong.mistake;
            if found_in.len() < chosen.len() && !found_in.iter().any(|event| mistake.message.contains(event)) {
                mistake.message = format!("{} (in {})", mistake.message, found_in.join(", "));
            }
            match wrong.text {
                Some(text) => notes.mistakes(&wrong.at, &text, [mistake]),
                None => notes.fault(&wrong.at, mistake.message),
            }
        }
    }

    fn named_events(&self, names: &[(String, Spot)], catalog: &Catalog, notes: &Notes<'_>) -> Vec<usize> {
        let mut chosen = Vec::new();
        for (name, at) in names {
            match catalog.event(name) {
                Some(index) if chosen.contains(&index) => notes.fault(at, format!("`{name}` is named twice")),
                Some(index) => chosen.push(index),
                None => notes.fault(
                    at,
                    unknown("event", name, catalog.events.iter().map(|event| event.name.as_str())),
                ),
            }
        }
        chosen.sort_unstable();
        chosen
    }

    /// The events that have all that the rule names. None at all is a slip, most likely.
    fn fitting_events(&self, catalog: &Catalog, notes: &Notes<'_>) -> Vec<usize> {
        let missing = |event: &EventShape| self.missing(event);
        let all: Vec<Vec<Wrong>> = catalog.events.iter().map(missing).collect();
        let fitting: Vec<usize> = (0..all.len()).filter(|index| all[*index].is_empty()).collect();
        if fitting.is_empty()
            && let Some((event, least)) = catalog.events.iter().zip(all).min_by_key(|(_, missing)| missing.len())
        {
            for wrong in least {
                let message = format!(
                    "no event has all that this rule names; {} comes nearest: {}",
                    event.name, wrong.mistake.message
                );
                match wrong.text {
                    Some(text) => notes.mistakes(&wrong.at, &text, [Mistake::new(wrong.mistake.place, message)]),
                    None => notes.fault(&wrong.at, message),
                }
            }
        }
        fitting
    }

    /// The columns and tables that the rule names and the event lacks.
    fn missing(&self, event: &EventShape) -> Vec<Wrong> {
        let mut missing = Vec::new();
        let of_sql = |sql: &Sql| {
            let lacks = |name: &&Name| event.index(&name.column).is_none();
            let wrong = |name: &Name| Wrong {
                at: sql.at.clone(),
                text: Some(sql.parsed.text.clone()),
                mistake: Mistake::new(name.place, unknown_column(&name.column, event)),
            };
            sql.parsed.names.iter().filter(lacks).map(wrong).collect::<Vec<Wrong>>()
        };
        let of_target = |target: &Target| match event.index(&target.name.column) {
            Some(_) => None,
            None => Some(Wrong::new(&target.at, unknown_column(&target.name.column, event))),
        };
        missing.extend(self.rule.when.iter().flat_map(of_sql));
        match &self.rule.action {
            written::Action::Drop => {}
            written::Action::Set(sets) => {
                missing.extend(
                    sets.iter()
                        .flat_map(|(target, value)| of_target(target).into_iter().chain(of_sql(value))),
                );
            }
            written::Action::Mask(masks) => missing.extend(masks.iter().filter_map(|(target, ..)| of_target(target))),
            written::Action::Rename(moves) => {
                missing.extend(
                    moves
                        .iter()
                        .flat_map(|(from, to)| [of_target(from), of_target(to)])
                        .flatten(),
                );
            }
            written::Action::Route(tables) => {
                missing.extend(
                    tables
                        .iter()
                        .filter_map(|(table, at)| actions::table_index(event, table, at).err()),
                );
            }
            written::Action::Alert { key, text, .. } => {
                missing.extend(key.iter().chain([text]).flat_map(of_sql));
            }
            written::Action::Charge { quantity, .. } => missing.extend(of_sql(quantity)),
        }
        missing
    }

    fn step(&self, event: &EventShape) -> Result<Step, Vec<Wrong>> {
        let when = self
            .rule
            .when
            .as_ref()
            .map(|when| expression(when, event, Wanted::Condition))
            .transpose();
        let action = match &self.rule.action {
            written::Action::Drop => Ok(Action::Drop),
            written::Action::Set(sets) => actions::set(sets, event),
            written::Action::Mask(masks) => actions::mask(masks, event),
            written::Action::Rename(moves) => actions::rename(moves, event),
            written::Action::Route(tables) => actions::route(tables, event),
            written::Action::Alert { severity, key, text } => actions::alert(*severity, key.as_ref(), text, event),
            written::Action::Charge {
                meter,
                meter_at,
                quantity,
            } => self.charge(meter, meter_at, quantity, event),
        };
        let (when, action) = both(when, action)?;
        Ok(Step {
            position: self.position,
            rule: Arc::clone(&self.rule.name),
            when,
            action,
        })
    }

    fn charge(&self, name: &str, at: &Spot, quantity: &Sql, event: &EventShape) -> Result<Action, Vec<Wrong>> {
        let meter = self.meters.get_key_value(name).ok_or_else(|| {
            vec![Wrong::new(
                at,
                unknown("meter", name, self.meters.keys().map(String::as_str)),
            )]
        });
        let ((name, meter), quantity) = both(meter, expression(quantity, event, Wanted::Quantity))?;
        Ok(Action::Charge(Box::new(Charging {
            meter: name.as_str().into(),
            unit: Arc::clone(&meter.unit),
            scale: meter.scale,
            quantity,
        })))
    }
}

fn add_wrong<'a>(wrongs: &mut Vec<(Wrong, Vec<&'a str>)>, wrong: Wrong, event: &'a str) {
    let same =
        |(known, _): &&mut (Wrong, Vec<&str>)| known.at.position == wrong.at.position && known.mistake == wrong.mistake;
    match wrongs.iter_mut().find(same) {
        Some((_, events)) => events.push(event),
        None => wrongs.push((wrong, vec![event])),
    }
}

/// "there is no meter `revnue`; did you mean `revenue`?"
pub fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    match document::nearest(name, known) {
        Some(meant) => format!("there is no {what} `{name}`; did you mean `{meant}`?"),
        None => format!("there is no {what} `{name}`"),
    }
}

fn both<A, B>(a: Result<A, Vec<Wrong>>, b: Result<B, Vec<Wrong>>) -> Result<(A, B), Vec<Wrong>> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(a.into_iter().chain(b).collect()),
        (Err(wrong), _) | (_, Err(wrong)) => Err(wrong),
    }
}

/// All values, or all that is wrong.
fn all<T>(results: impl Iterator<Item = Result<T, Vec<Wrong>>>) -> Result<Vec<T>, Vec<Wrong>> {
    let mut values = Vec::new();
    let mut wrongs = Vec::new();
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(found) => wrongs.extend(found),
        }
    }
    if wrongs.is_empty() { Ok(values) } else { Err(wrongs) }
}

fn expression(sql: &Sql, event: &EventShape, wanted: Wanted<'_>) -> Result<Expression, Vec<Wrong>> {
    let wrong = |mistake| Wrong {
        at: sql.at.clone(),
        text: Some(sql.parsed.text.clone()),
        mistake,
    };
    Expression::compile(&sql.parsed, event, wanted).map_err(|mistakes| mistakes.into_iter().map(wrong).collect())
}
