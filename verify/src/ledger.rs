//! The comparison itself: what must be there against what is there, one entry for each output. No I/O.

use std::collections::HashMap;

use crate::report::SinkReport;

/// Where an output comes from: the event's place in the log, and which of the event's outputs of that sink it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index of the source.
    pub source: u16,
    /// Partition of the source's topic.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
    /// `_index` of a row, ordinal of an alert or a charge, 0 of a dead letter.
    pub index: u32,
}

/// What is known of an output that must be there.
pub trait Content {
    /// The same, as a sink has it.
    type Found;
    /// What is different about it, in a few words; `None` = nothing.
    fn difference(&self, found: &Self::Found) -> Option<String>;
}

/// How what is there differs from what must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Lost,
    Duplicated,
    Altered,
    Unexpected,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Lost => "lost",
            Kind::Duplicated => "duplicated",
            Kind::Altered => "altered",
            Kind::Unexpected => "unexpected",
        }
    }
}

/// One difference that the report will show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub sink: String,
    pub kind: Kind,
    /// `None`: the sink's entry does not say where it comes from.
    pub place: Option<Place>,
    pub detail: String,
}

struct Entry<C> {
    content: C,
    seen: bool,
    optional: bool,
}

/// One sink's side of the comparison.
pub struct Ledger<C> {
    entries: HashMap<Place, Entry<C>>,
    report: SinkReport,
    examples: Vec<Example>,
    examples_max: usize,
}

impl<C: Content> Ledger<C> {
    /// Nothing is expected yet. `examples_max`: of each kind of difference.
    pub fn new(sink: impl Into<String>, examples_max: usize) -> Self {
        let report = SinkReport {
            sink: sink.into(),
            ..SinkReport::default()
        };
        Ledger {
            entries: HashMap::new(),
            report,
            examples: Vec::new(),
            examples_max,
        }
    }

    /// Says that the sink must hold this, once.
    pub fn expect(&mut self, place: Place, content: C) {
        self.report.expected += 1;
        self.enter(place, content, false);
    }

    /// Says that the sink may hold this, once: it is as old as the sink forgets.
    pub fn allow(&mut self, place: Place, content: C) {
        self.enter(place, content, true);
    }

    fn enter(&mut self, place: Place, content: C, optional: bool) {
        let entry = Entry {
            content,
            seen: false,
            optional,
        };
        if self.entries.insert(place, entry).is_some() {
            self.note(Kind::Duplicated, Some(place), || {
                "the rules make this output twice".to_owned()
            });
        }
    }

    /// Where outputs must be, or may be: one place for each, in no order.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.entries.keys()
    }

    /// What must be at this place.
    #[cfg(test)]
    pub fn expected(&self, place: &Place) -> Option<&C> {
        self.entries.get(place).map(|entry| &entry.content)
    }

    /// Says that the sink holds this.
    pub fn found(&mut self, place: Place, found: &C::Found) {
        self.report.found += 1;
        let Some(entry) = self.entries.get_mut(&place) else {
            return self.note(Kind::Unexpected, Some(place), String::new);
        };
        if std::mem::replace(&mut entry.seen, true) {
            return self.note(Kind::Duplicated, Some(place), String::new);
        }
        self.report.expected += u64::from(entry.optional);
        if let Some(difference) = entry.content.difference(found) {
            self.note(Kind::Altered, Some(place), || difference);
        }
    }

    /// Says that the sink holds something that does not tell where it comes from.
    pub fn stray(&mut self, detail: String) {
        self.report.found += 1;
        self.note(Kind::Unexpected, None, || detail);
    }

    /// Ends the comparison: what was not found is lost.
    pub fn finish(mut self) -> (SinkReport, Vec<Example>) {
        let mut lost: Vec<Place> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.seen && !entry.optional)
            .map(|(place, _)| *place)
            .collect();
        lost.sort_unstable();
        for place in lost {
            self.note(Kind::Lost, Some(place), String::new);
        }
        (self.report, self.examples)
    }

    fn note(&mut self, kind: Kind, place: Option<Place>, detail: impl FnOnce() -> String) {
        let count = match kind {
            Kind::Lost => &mut self.report.lost,
            Kind::Duplicated => &mut self.report.duplicated,
            Kind::Altered => &mut self.report.altered,
            Kind::Unexpected => &mut self.report.unexpected,
        };
        *count += 1;
        if *count <= self.examples_max as u64 {
            self.examples.push(Example {
                sink: self.report.sink.clone(),
                kind,
                place,
                detail: detail(),
            });
        }
    }
}
