//! Kafka's transactions: producers with epochs, what is open, committed offsets with their metadata. A transaction's
//! records (alerts, the audit) and offsets become visible together, when its end is carried out. An end is checked for
//! the producer's epoch alone, an offset commit for member and generation too.

use std::collections::{BTreeMap, BTreeSet};

use exactly_once_protocol::{Metadata, Partition, Range, Stored};

use crate::faults::{Counts, Fault};
use crate::group::Group;
use crate::mutations::Mutation;
use crate::source::Made;

/// The coordinator aborts a transaction that takes longer, and fences its producer, milliseconds.
pub const TRANSACTION_TIMEOUT_MS: i64 = 150;

/// A record that a transaction writes to another topic than the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An alert: the event's partition and offset, and its content.
    Alert(Partition, i64, u64),
    /// The audit's entry of a range: its digest, and with what it was made.
    Audit(Range, u128, Made),
}

/// What a producer asks for.
#[derive(Debug, Clone)]
pub enum Call {
    /// A new epoch, which fences all earlier ones.
    Init,
    /// Records; a repetition is known by its sequence number.
    Produce(Vec<Record>),
    /// Offsets: member id and generation, and for each partition offset and metadata.
    Offsets(u64, u64, Vec<(Partition, i64, Metadata)>),
    /// The end; true: commit.
    End(bool),
    /// Records outside a transaction; a repetition is known by its sequence number.
    Write(Vec<Record>),
    /// Offsets outside a transaction, with member id and generation.
    Commit(u64, u64, Vec<(Partition, i64, Metadata)>),
}

/// A request of a producer.
#[derive(Debug, Clone)]
pub struct TransactionRequest {
    /// The client's thread.
    pub thread: u64,
    /// Its request; a repetition has the same number.
    pub number: u64,
    /// The producer's epoch.
    pub epoch: u64,
    /// What it asks for.
    pub call: Call,
}

/// What the coordinator answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionReply {
    /// Done; the producer's epoch.
    Done(u64),
    /// Refused, and the transaction can be aborted.
    Refused,
    /// This producer must not be used any more.
    Fenced,
}

#[derive(Debug, Clone, Default)]
struct Open {
    offsets: BTreeMap<Partition, (i64, String)>,
    records: Vec<Record>,
    since_ms: i64,
}

#[derive(Debug, Clone, Default)]
struct Producer {
    epoch: u64,
    open: Option<Open>,
    /// How the last one ended, as long as none is open: a repeated end is answered by it.
    committed: bool,
    /// The highest number of a request whose records were taken.
    sequence: u64,
}

/// What a committed transaction made visible.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Offsets and metadata as the broker keeps it: text.
    pub offsets: Vec<(Partition, i64, String)>,
    /// Records.
    pub records: Vec<Record>,
}

/// Coordinators and logs.
#[derive(Debug, Default)]
pub struct Kafka {
    /// Members and owners.
    pub group: Group,
    committed: BTreeMap<Partition, (i64, String)>,
    producers: Vec<Producer>,
    /// Numbers of the requests whose records were taken outside transactions.
    written: BTreeSet<u64>,
}

impl Kafka {
    /// With so many transactional ids.
    pub fn new(ids: usize) -> Kafka {
        Kafka {
            group: Group::new(),
            committed: BTreeMap::new(),
            producers: vec![Producer::default(); ids],
            written: BTreeSet::new(),
        }
    }

    /// Carries a request out. A commit is given back, for the oracle.
    pub fn carry_out(
        &mut self,
        id: usize,
        request: &TransactionRequest,
        now_ms: i64,
        (mutation, counts): (Mutation, &mut Counts),
    ) -> (TransactionReply, Option<Commit>) {
        if let Some(carried_out) = self.carry_out_plain(request, counts) {
            return carried_out;
        }
        let producer = &mut self.producers[id];
        if let Call::Init = request.call {
            let keeps = mutation == Mutation::KeepProducer && producer.epoch > 0;
            if !keeps {
                producer.epoch += 1;
                producer.open = None;
                producer.committed = false;
                producer.sequence = 0;
            }
            return (TransactionReply::Done(producer.epoch), None);
        }
        if request.epoch != producer.epoch {
            counts.note(Fault::Fenced);
            return (TransactionReply::Fenced, None);
        }
        let done = TransactionReply::Done(producer.epoch);
        let opened = Open {
            since_ms: now_ms,
            ..Open::default()
        };
        match &request.call {
            Call::Init | Call::Write(_) | Call::Commit(..) => {}
            Call::Produce(records) => {
                if request.number > producer.sequence {
                    producer.sequence = request.number;
                    let records = records.iter().cloned();
                    producer.open.get_or_insert(opened).records.extend(records);
                }
            }
            Call::Offsets(member, generation, offsets) => {
                if !self.group.takes(*member, *generation) && mutation != Mutation::NoFence {
                    counts.note(Fault::OldGeneration);
                    return (TransactionReply::Refused, None);
                }
                let open = producer.open.get_or_insert(opened);
                for (partition, offset, metadata) in offsets {
                    open.offsets.insert(*partition, (*offset, metadata.encode()));
                }
            }
            Call::End(commit) => {
                let Some(open) = producer.open.take() else {
                    // A repetition of the end that was carried out; any other is an error that no client survives.
                    let fits = !commit || producer.committed;
                    return (if fits { done } else { TransactionReply::Fenced }, None);
                };
                producer.committed = *commit;
                if *commit {
                    let offsets = open.offsets.into_iter();
                    let offsets: Vec<_> = offsets
                        .map(|(partition, (offset, text))| (partition, offset, text))
                        .collect();
                    for (partition, offset, text) in &offsets {
                        self.committed.insert(*partition, (*offset, text.clone()));
                    }
                    let records = open.records;
                    return (done, Some(Commit { offsets, records }));
                }
            }
        }
        (done, None)
    }

    /// What needs no transaction takes place when it arrives. `None`: it is of a transaction.
    fn carry_out_plain(
        &mut self,
        request: &TransactionRequest,
        counts: &mut Counts,
    ) -> Option<(TransactionReply, Option<Commit>)> {
        let (mut offsets, mut records) = (Vec::new(), Vec::new());
        match &request.call {
            Call::Write(written) if self.written.insert(request.number) => records.clone_from(written),
            Call::Write(_) => {}
            Call::Commit(member, generation, _) if !self.group.takes(*member, *generation) => {
                counts.note(Fault::OldGeneration);
                return Some((TransactionReply::Refused, None));
            }
            Call::Commit(_, _, committed) => {
                for (partition, offset, metadata) in committed {
                    let text = metadata.encode();
                    self.committed.insert(*partition, (*offset, text.clone()));
                    offsets.push((*partition, *offset, text));
                }
            }
            _ => return None,
        }
        let done = TransactionReply::Done(request.epoch);
        Some((done, Some(Commit { offsets, records })))
    }

    /// Aborts what takes too long. True if there was something.
    pub fn time_out(&mut self, now_ms: i64) -> bool {
        let mut any = false;
        for producer in &mut self.producers {
            let late = |open: &mut Open| now_ms - open.since_ms > TRANSACTION_TIMEOUT_MS;
            if producer.open.take_if(late).is_some() {
                producer.epoch += 1;
                producer.committed = false;
                producer.sequence = 0;
                any = true;
            }
        }
        any
    }

    /// Committed offsets of all these partitions, or `None` while a transaction is open on one of them.
    pub fn offsets(&self, partitions: &[Partition], mutation: Mutation) -> Option<Vec<(Partition, Stored)>> {
        let written = |partition: &Partition| {
            let mut open = self.producers.iter().filter_map(|producer| producer.open.as_ref());
            open.any(|open| open.offsets.contains_key(partition))
        };
        if mutation != Mutation::UnstableReads && partitions.iter().any(written) {
            return None;
        }
        let stored = |partition: &Partition| {
            let committed = self.committed.get(partition);
            let text = committed.map(|(_, text)| text.as_str()).unwrap_or_default();
            let stored = Stored {
                offset: committed.map_or(0, |(offset, _)| *offset),
                committed: committed.is_some(),
                metadata: Metadata::decode(text.as_bytes()),
                witnesses: None,
            };
            (*partition, stored)
        };
        Some(partitions.iter().map(stored).collect())
    }
}
