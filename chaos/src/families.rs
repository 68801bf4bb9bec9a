//! The families of faults, by their number in the list of what exactly-once has to survive (`docs/reliability.md`).

mod crashes;
mod freezes;
mod storage;
mod wires;
mod brokers;
mod services;
mod changes;
mod clocks;
mod poison;

pub(crate) use brokers::leader;
use end_to_end::{Scenario, shop::Rules};
pub(crate) use storage::{AN_INSERT, at_a_rename};

use crate::rig::Rig;
use crate::trial::{self, Outcome, Settings, Setup, Trial};

/// One family.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// In the list.
    pub number: u8,
    /// A word for file names and topics.
    pub name: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// How it is made to.
    pub how: &'static str,
}

/// Those that a trial can be of.
pub const FAMILIES: [Family; 20] = [
    Family {
        number: 1,
        name: "crashes",
        what: "a worker dies at each named crash point, and at random",
        how: "crash points of a test build; SIGKILL",
    },
    Family {
        number: 2,
        name: "freezes",
        what: "a worker stands still past the insert's deadline, the session and the transaction; while an insert of its is in flight, and in its transactions",
        how: "SIGSTOP, SIGCONT; TCP proxy; crash points of a test build",
    },
    Family {
        number: 3,
        name: "store_dies",
        what: "ClickHouse dies at any time, and between its deduplication record and the part's rename",
        how: "SIGKILL; strace injects it at the n-th rename",
    },
    Family {
        number: 4,
        name: "wires",
        what: "requests are cut, held or delivered twice, answers lost or late: ClickHouse, Kafka's EndTxn and offsets, billing",
        how: "TCP proxy",
    },
    Family {
        number: 5,
        name: "refusals",
        what: "ClickHouse answers 200 with an exception, too many parts, out of memory, read-only, or after 30 s",
        how: "TCP proxy; settings of the tables (parts_to_throw_insert, table_readonly, large buffers), max_memory_usage in a users.d of the server",
    },
    Family {
        number: 6,
        name: "sets_off",
        what: "a rollup or a view refuses what an insert sets off; a profile turns deduplication off, async inserts on, small blocks",
        how: "constraints and views by SQL; a users.d of the server; SIGKILL",
    },
    Family {
        number: 7,
        name: "forgetful",
        what: "ClickHouse remembers two insert tokens of a table or a rollup, workers die and answers get lost",
        how: "ALTER TABLE; SIGKILL; TCP proxy",
    },
    Family {
        number: 8,
        name: "brokers",
        what: "the group's coordinator, a transaction coordinator, a partition's leader: each is killed, stopped, stands still",
        how: "SIGKILL, SIGTERM, SIGSTOP",
    },
    Family {
        number: 9,
        name: "storms",
        what: "members join the group every 200 ms and leave it when they have partitions; partitions are asked back, and lost, while inserts are in flight",
        how: "consumers without a job; TCP proxy; SIGSTOP, SIGCONT",
    },
    Family {
        number: 10,
        name: "transactions",
        what: "records in transactions, aborted, empty, of a marker alone, with markers where ranges end, while workers die",
        how: "a transactional producer; SIGKILL",
    },
    Family {
        number: 11,
        name: "offsets",
        what: "workers die, and their offsets are set back, set ahead, or removed: partitions stop with SLU-110, SLU-109 or SLU-105; with the right ones all goes on",
        how: "offsets written as the group; the group deleted",
    },
    Family {
        number: 12,
        name: "revisions",
        what: "rules change, schemas evolve, columns are added while promises are pending, and all workers die",
        how: "rules service, registry and ALTER TABLE; SIGKILL of workers and ClickHouse",
    },
    Family {
        number: 13,
        name: "billing",
        what: "billing's answers are lost, the service and its database die",
        how: "TCP proxy; SIGKILL of the service and of PostgreSQL",
    },
    Family {
        number: 14,
        name: "metadata",
        what: "an offset's metadata is foreign, cut, changed by a digit, control characters, no UTF-8 (Kafka keeps U+FFFD in its place), or 4 KiB long: its partition stops with SLU-101, the others go on",
        how: "offsets written as the group",
    },
    Family {
        number: 15,
        name: "clocks",
        what: "the workers' clocks jump by an hour and two, to and fro, and workers start with them",
        how: "what a worker of a test build takes for its clock; SIGKILL",
    },
    Family {
        number: 16,
        name: "given_up",
        what: "every third delivery of each worker is dropped, each at another of its awaits",
        how: "a test build",
    },
    Family {
        number: 17,
        name: "twins",
        what: "two workers with one slot",
        how: "a second process with the same --name",
    },
    Family {
        number: 18,
        name: "poison",
        what: "a dead-letter topic is deleted under load and made again; records of all kinds that cannot be decoded and alerts that are too large, while workers die",
        how: "an administrator; the driver; rules; SIGKILL",
    },
    Family {
        number: 19,
        name: "registry",
        what: "the registry is away, answers 500, answers late, while workers start, some without a snapshot",
        how: "TCP proxy; SIGKILL; the snapshot removed",
    },
    Family {
        number: 20,
        name: "disks",
        what: "the disk under ClickHouse, and under billing's database, is full",
        how: "a file system in memory and a file that fills it",
    },
];

impl Family {
    /// One trial of it.
    ///
    /// # Panics
    /// Like [`trial::run`].
    pub fn run(&self, rig: &Rig, settings: &Settings) -> Outcome {
        let drive: &[&str] = match self.number {
            12 | 19 => &["--second-version-after", "8"],
            _ => &[],
        };
        let rules = match self.number {
            12 => Rules::Service,
            _ => Rules::Directory,
        };
        let prepare = match self.number {
            18 => poison::with_large_outputs,
            _ => |_: &mut Scenario<'_>| {},
        };
        let name = self.name;
        trial::run_prepared(rig, &Setup { name, rules, drive }, settings, prepare, async |trial| {
            self.strike(trial).await;
        })
    }

    async fn strike(&self, trial: &mut Trial<'_, '_>) {
        match self.number {
            1 => crashes::at_every_point(trial).await,
            2 => freezes::of_workers(trial).await,
            3 => storage::dies(trial).await,
            4 => wires::cut_held_doubled(trial).await,
            5 => wires::answers(trial).await,
            6 => storage::sets_off(trial).await,
            7 => storage::forgets(trial).await,
            8 => brokers::die(trial).await,
            9 => brokers::storms(trial).await,
            10 => changes::transactional_input(trial).await,
            11 => changes::offsets(trial).await,
            12 => changes::revisions(trial).await,
            13 => services::billing(trial).await,
            14 => changes::metadata(trial).await,
            15 => clocks::jump(trial).await,
            16 => crashes::deliveries_given_up(trial).await,
            17 => services::twins(trial).await,
            18 => poison::comes(trial).await,
            19 => services::registry(trial).await,
            20 => storage::full(trial).await,
            number => panic!("no family has the number {number}"),
        }
    }
}
