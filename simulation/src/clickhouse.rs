//! ClickHouse: tables, rollups, the deduplication window, inserts that take time, a clock of its own, and a server that
//! is killed in the midst of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use exactly_once_protocol::{Partition, Range};

use crate::dice::Dice;
use crate::faults::{Counts, Fault, Rates};
use crate::mutations::Mutation;
use crate::network::Address;
use crate::source::{offsets, summed};

/// One query that writes. It lands as a whole or not at all, but for a feeding: of that, the first months may land.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// The promise that it is made under.
    pub token: u64,
    /// Its deduplication token: one for each insert of a promise.
    pub name: u64,
    /// The server's clock: it does not begin at or after this, Unix milliseconds.
    pub deadline_ms: i64,
    /// Rows to insert, with their content.
    pub rows: Vec<(Partition, i64, u64)>,
    /// Rows of a table to be fed to its rollup.
    pub feeding: Option<Feeding>,
}

/// `INSERT INTO <states> SELECT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feeding {
    /// Of which offsets.
    pub ranges: Vec<Range>,
    /// Only rows that the rollups lack.
    pub lacking: bool,
}

/// What came of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// Acknowledged.
    Clean,
    /// It surely did not begin.
    Refused,
    /// Nobody knows.
    Doubt,
}

/// What is there of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Offsets and contents of its rows.
    pub rows: BTreeMap<i64, u64>,
    /// Whether rollups lack rows of it.
    pub unfed: bool,
}

/// To whom an insert is answered: lane, batch, and which part of its delivery.
pub type Asker = (Address, u64, u8);

#[derive(Debug)]
struct Running {
    insert: Insert,
    until_ms: i64,
    asker: Option<Asker>,
}

/// Something that changed what is stored, for the oracle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landed {
    /// Rows of a table.
    Rows(u64, Vec<(Partition, i64, u64)>),
    /// Rows in a rollup.
    Fed(u64, Vec<(Partition, i64)>),
}

/// The server.
#[derive(Debug, Default)]
pub struct ClickHouse {
    /// Its clock is ahead of the true time by this, milliseconds.
    pub ahead_ms: i64,
    /// What its clock has shown at most, as far as that can still matter.
    newest_ms: i64,
    down_until_ms: i64,
    rows: BTreeMap<(Partition, i64), u64>,
    fed: BTreeSet<(Partition, i64)>,
    tokens: VecDeque<u64>,
    running: Vec<Running>,
    /// Answers to be sent.
    pub answers: Vec<(Asker, Inserted)>,
    /// What has landed since the oracle was told last.
    pub landed: Vec<Landed>,
}

impl ClickHouse {
    /// Its own time.
    pub fn now_ms(&self, true_ms: i64) -> i64 {
        true_ms + self.ahead_ms
    }

    /// Whether it answers at all.
    pub fn is_up(&self, true_ms: i64) -> bool {
        true_ms >= self.down_until_ms
    }

    /// An insert has arrived with its whole block. True if it begins.
    pub fn begin(
        &mut self,
        insert: Insert,
        asker: Option<Asker>,
        true_ms: i64,
        dice: &mut Dice,
        (rates, counts, mutation): (&Rates, &mut Counts, Mutation),
    ) -> bool {
        let guarded = !matches!(mutation, Mutation::NoDeadline | Mutation::NoGuard);
        let late = self.now_ms(true_ms) >= insert.deadline_ms;
        if late && guarded {
            counts.note(Fault::TooLate);
        } else if dice.one_in(rates.refuse) || !self.is_up(true_ms) {
            counts.note(Fault::Refused);
        } else {
            let lingers = dice.one_in(rates.linger);
            if lingers {
                counts.note(Fault::Lingers);
            }
            let takes_ms = if lingers { 30 + dice.ms(250) } else { dice.ms(8) };
            self.running.push(Running {
                insert,
                until_ms: true_ms + takes_ms,
                asker,
            });
            return true;
        }
        self.answers.extend(asker.map(|asker| (asker, Inserted::Refused)));
        false
    }

    /// Ends one of the inserts whose time has come.
    pub fn advance(
        &mut self,
        true_ms: i64,
        dice: &mut Dice,
        (rates, counts, mutation): (&Rates, &mut Counts, Mutation),
    ) {
        self.newest_ms = self.newest_ms.max(self.now_ms(true_ms));
        let at = dice.index(self.running.len());
        if self.running.get(at).is_none_or(|running| running.until_ms > true_ms) {
            return;
        }
        let Running { insert, asker, .. } = self.running.remove(at);
        if self.tokens.contains(&insert.name) && mutation != Mutation::NoDeduplication {
            counts.note(Fault::Deduplicated);
            if insert
                .rows
                .iter()
                .any(|(p, offset, _)| !self.rows.contains_key(&(*p, *offset)))
            {
                counts.note(Fault::FalseAnswer);
            }
        } else {
            self.remember(insert.name, rates, counts);
            self.land(&insert, mutation, usize::MAX);
        }
        self.answers.extend(asker.map(|asker| (asker, Inserted::Clean)));
    }

    fn remember(&mut self, name: u64, rates: &Rates, counts: &mut Counts) {
        self.tokens.push_back(name);
        while self.tokens.len() > rates.window {
            self.tokens.pop_front();
            counts.note(Fault::Forgotten);
        }
    }

    /// `most`: how many rows of a feeding land.
    fn land(&mut self, insert: &Insert, mutation: Mutation, most: usize) {
        for (partition, offset, content) in &insert.rows {
            self.rows.insert((*partition, *offset), *content);
        }
        if !insert.rows.is_empty() {
            self.landed.push(Landed::Rows(insert.token, insert.rows.clone()));
        }
        if let Some(feeding) = &insert.feeding {
            let blind = !feeding.lacking || mutation == Mutation::BlindFeeding;
            let all = feeding.ranges.iter().flat_map(|range| offsets(*range));
            let all = all.filter(|row| summed(row.1) && self.rows.contains_key(row));
            let fed: Vec<_> = all.filter(|row| blind || !self.fed.contains(row)).take(most).collect();
            self.fed.extend(&fed);
            self.landed.push(Landed::Fed(insert.token, fed));
        }
    }

    /// The server dies and comes back. Of each insert that runs: nothing is there; or all of it, and nobody hears of
    /// it; or its token without its rows (the deduplication record is written before the part gets its name). What it
    /// was at is given back.
    pub fn kill(
        &mut self,
        true_ms: i64,
        dice: &mut Dice,
        (rates, counts, mutation): (&Rates, &mut Counts, Mutation),
    ) -> Vec<(Asker, Insert)> {
        counts.note(Fault::Killed);
        let mut interrupted = Vec::new();
        for Running { insert, asker, .. } in std::mem::take(&mut self.running) {
            let known = self.tokens.contains(&insert.name) && mutation != Mutation::NoDeduplication;
            match dice.roll(3) {
                0 => {}
                1 if !known => self.remember(insert.name, rates, counts),
                2 if !known => {
                    self.remember(insert.name, rates, counts);
                    let most = if dice.one_in(2) { 2 } else { usize::MAX };
                    self.land(&insert, mutation, most);
                }
                _ => {}
            }
            if let Some(asker) = asker {
                self.answers.push((asker, Inserted::Doubt));
                interrupted.push((asker, insert));
            }
        }
        let away_ms = if dice.one_in(2) { 4 } else { 80 };
        self.down_until_ms = true_ms + dice.ms(away_ms);
        interrupted
    }

    /// Its clock jumps: forward by any time; back by less than `grace_ms`, or by any time if `idle`, when nobody holds
    /// an insert that could still begin.
    pub fn jump(&mut self, true_ms: i64, grace_ms: i64, idle: bool, dice: &mut Dice) {
        let now = self.now_ms(true_ms);
        self.newest_ms = self.newest_ms.max(now);
        let idle = idle && self.running.is_empty();
        let to = match dice.roll(3) {
            0 => now + dice.ms(400),
            _ if idle => now - dice.ms(400),
            _ => (now - dice.ms(grace_ms)).max(self.newest_ms - grace_ms + 1),
        };
        if idle && to < now {
            self.newest_ms = to;
        }
        self.ahead_ms += to - now;
    }

    /// Whether no insert under this promise can land any more.
    pub fn is_safe(&self, token: u64, after_ms: i64, true_ms: i64) -> bool {
        let runs = self.running.iter().any(|running| running.insert.token == token);
        self.now_ms(true_ms) > after_ms && !runs
    }

    /// What is there of a range, and whether rollups lack rows from `fed` on.
    pub fn read_back(&self, range: Range, fed: i64, mutation: Mutation) -> Present {
        let there = |row: &(Partition, i64)| mutation != Mutation::NoReadBack && self.rows.contains_key(row);
        let rows = offsets(range).filter(there);
        let mut all = offsets(Range { start: fed, ..range });
        Present {
            rows: rows.map(|row| (row.1, self.rows[&row])).collect(),
            unfed: all.any(|row| summed(row.1) && (mutation == Mutation::BlindFeeding || !self.fed.contains(&row))),
        }
    }

    /// The first row of a partition from an offset on.
    pub fn row_beyond(&self, partition: Partition, reach: i64) -> Option<i64> {
        let mut from = self.rows.range((partition, reach)..);
        from.next()
            .filter(|((of, _), _)| *of == partition)
            .map(|((_, offset), _)| *offset)
    }

    /// The content of a row.
    pub fn row(&self, row: (Partition, i64)) -> Option<u64> {
        self.rows.get(&row).copied()
    }

    /// Whether a row is in the rollups.
    pub fn is_fed(&self, row: (Partition, i64)) -> bool {
        self.fed.contains(&row)
    }

    /// How many rows there are, and how many of them are in rollups.
    pub fn sizes(&self) -> (usize, usize) {
        (self.rows.len(), self.fed.len())
    }
}
