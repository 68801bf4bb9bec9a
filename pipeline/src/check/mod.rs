//! From a pipeline file to a checked [`Pipeline`]. Every part is read even when others are wrong, with a stand-in
//! for what could not be read, so that one look names all mistakes; a pipeline comes out only when there are none.

mod names;
mod setting;
mod connections;
mod event;
mod sources;
mod tables;
mod rollups;
mod sinks;
mod limits;
mod revision;

use std::path::Path;

use document::{Fault, Faults, Item, Reader, parse, parse_bytes};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::machine::{Anywhere, Machine};
use crate::{Guarantee, Pipeline, Serve, Start, Workers, defaults};
use setting::setting;

/// Reads and checks a pipeline file. Relative paths in it are taken from the file's own directory.
///
/// # Errors
/// All faults of the file, in its order; a single one when it can't be read or is no YAML.
pub fn load(path: &Path) -> Result<Pipeline, Vec<Fault>> {
    load_on(path, &Anywhere)
}

/// The same, and whether what it names is there: what `machine` misses is among the faults.
///
/// # Errors
/// As [`load`].
pub fn load_on(path: &Path, machine: &dyn Machine) -> Result<Pipeline, Vec<Fault>> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| {
        vec![Fault {
            file: file.clone(),
            line: 1,
            column: 1,
            path: String::new(),
            message: format!("the file can't be read: {error}"),
        }]
    })?;
    let node = parse_bytes(&file, &bytes).map_err(|fault| vec![fault])?;
    let base_dir = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    from_node(&file, &node, Place { base_dir, machine })
}

/// Checks the text of a pipeline file. `file` is for messages; relative paths are taken from `base_dir`. Pure.
///
/// # Errors
/// All faults of the text, in its order; a single one when it is no YAML.
pub fn check(file: &str, text: &str, base_dir: &Path) -> Result<Pipeline, Vec<Fault>> {
    let node = parse(file, text).map_err(|fault| vec![fault])?;
    let machine = &Anywhere;
    from_node(file, &node, Place { base_dir, machine })
}

/// Where the file lies, and where it is to be used.
#[derive(Clone, Copy)]
struct Place<'a> {
    base_dir: &'a Path,
    machine: &'a dyn Machine,
}

fn from_node(file: &str, node: &document::Node, place: Place<'_>) -> Result<Pipeline, Vec<Fault>> {
    let faults = Faults::new(file);
    let pipeline = Item::root(node, &faults).map().map(|reader| read(reader, place));
    match pipeline {
        Some(pipeline) if faults.is_empty() => Ok(pipeline),
        _ => Err(faults.into_vec()),
    }
}

/// What the file says, with stand-ins for what it says wrongly.
fn read(top: Reader<'_>, place: Place<'_>) -> Pipeline {
    let name = top.required("pipeline").and_then(|item| {
        let text = item.text()?;
        item.checked(names::pipeline(text)).map(|()| text.to_owned())
    });
    let start = top.required("start").and_then(|item| start(&item));
    let guarantee = setting(Some(&top), "guarantee", defaults::GUARANTEE, |item| {
        item.choice(&[
            ("exactly_once", Guarantee::ExactlyOnce),
            ("at_least_once", Guarantee::AtLeastOnce),
        ])
    });
    let workers = workers(&top, place.base_dir);
    let connections = connections::connections(&top, &workers.state_dir, place);
    let dead_letters = limits::dead_letters(&top);
    let event = event::event_part(top.optional("event").as_ref());
    let mut drafts = sources::drafts(&top, &event, &dead_letters);
    let tables = tables::tables(&top, &mut drafts);
    let rollups = rollups::rollups(&top, &tables);
    let sinks = sinks::sinks(&top, &drafts, place, guarantee.value);
    let audit = limits::audit(&top, name.as_deref().unwrap_or_default(), &drafts, &sinks);
    let (batch, limits) = limits::batch_and_limits(&top);
    let serve = serve(&top);
    top.finish();
    let mut pipeline = Pipeline {
        name: name.unwrap_or_default(),
        revision: 0,
        start: start.unwrap_or(Start::Earliest),
        guarantee: guarantee.value,
        connections,
        sources: drafts.into_iter().map(|draft| draft.source).collect(),
        tables,
        rollups,
        sinks,
        dead_letters,
        audit,
        batch,
        limits,
        serve,
        workers,
    };
    pipeline.revision = revision::revision(&pipeline);
    pipeline
}

fn start(item: &Item<'_>) -> Option<Start> {
    match item.text()? {
        "earliest" => Some(Start::Earliest),
        "latest" => Some(Start::Latest),
        text => match OffsetDateTime::parse(text, &Rfc3339) {
            Ok(time) => i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000))
                .ok()
                .map(Start::At),
            Err(_) => {
                item.fault("should be earliest, latest, or a time such as 2026-01-31T00:00:00Z");
                None
            }
        },
    }
}

fn workers(top: &Reader<'_>, base_dir: &Path) -> Workers {
    let reader = top.optional("workers").and_then(|item| item.map());
    let workers = Workers {
        lanes: reader
            .as_ref()
            .and_then(|reader| reader.optional("lanes"))
            .and_then(|item| item.integer(1..=1024)),
        state_dir: setting(
            reader.as_ref(),
            "state_dir",
            base_dir.join(defaults::STATE_DIR),
            |item| connections::path(item, base_dir),
        )
        .value,
    };
    if let Some(reader) = reader {
        reader.finish();
    }
    workers
}

fn serve(top: &Reader<'_>) -> Serve {
    let reader = top.optional("serve").and_then(|item| item.map());
    let listen = setting(reader.as_ref(), "listen", defaults::LISTEN.to_owned(), |item| {
        let text = item.text()?;
        item.checked(names::host_port(text)).map(|_| text.to_owned())
    });
    if let Some(reader) = reader {
        reader.finish();
    }
    Serve { listen: listen.value }
}

#[cfg(test)]
mod tests;
