//! Every order of events in a very small world, breadth first: two lanes, two partitions, two ranges each, a few
//! faults. It calls the production [`Lane::step`]; the world around it is smaller than the seeded one, and nothing in
//! it is rolled.
//!
//! What is tried: from each state, everything that could happen next. Producers are made, offsets read, batches closed
//! of any of the partitions; offsets of a transaction arrive, its end does, or is delayed past its client's patience;
//! inserts begin, land, come too late; promises are settled; a lane dies, is expelled without knowing it, or is asked
//! for a partition; time passes. What is bounded: how often each fault happens and how often time passes, because a
//! lane counts its transactions and so has endlessly many states. What is left out: rollups, messages that are lost or
//! overtake each other other than as said, rules and schemas. The seeded world has those.

mod small;

use std::collections::{HashMap, VecDeque};

pub use small::{Bounds, Small};

const NO_FAULT: Bounds = Bounds {
    ranges: 2,
    crashes: 0,
    lost: 0,
    asked: 0,
    expelled: 0,
    passes: 0,
    begun: true,
    no_fence: false,
    no_deadline: false,
};
/// Time passes once, so that deadlines do.
const IN_TIME: Bounds = Bounds { passes: 1, ..NO_FAULT };
const SHORT: Bounds = Bounds { ranges: 1, ..IN_TIME };

/// With one fault: these belong to the tests.
pub const ONE_FAULT: [(&str, Bounds); 7] = [
    (
        "no fault, from the very beginning",
        Bounds {
            begun: false,
            ..NO_FAULT
        },
    ),
    ("a crash", Bounds { crashes: 1, ..IN_TIME }),
    (
        "a crash before anything is committed",
        Bounds {
            crashes: 1,
            begun: false,
            passes: 0,
            ..SHORT
        },
    ),
    ("a hand-over", Bounds { asked: 1, ..IN_TIME }),
    ("a lost or delayed message", Bounds { lost: 1, ..IN_TIME }),
    (
        "a zombie",
        Bounds {
            expelled: 1,
            ..NO_FAULT
        },
    ),
    ("a zombie, and deadlines that pass", Bounds { expelled: 1, ..SHORT }),
];

/// With more, or of two faults: these take some minutes and are run by `make simulate EXHAUSTIVE=1`.
pub const TWO_FAULTS: [(&str, Bounds); 4] = [
    (
        "a zombie of two ranges, and deadlines that pass",
        Bounds { expelled: 1, ..IN_TIME },
    ),
    (
        "a crash and a lost message",
        Bounds {
            crashes: 1,
            lost: 1,
            ..SHORT
        },
    ),
    (
        "a zombie and a lost message",
        Bounds {
            expelled: 1,
            lost: 1,
            ..SHORT
        },
    ),
    (
        "a hand-over and a crash",
        Bounds {
            asked: 1,
            crashes: 1,
            ..SHORT
        },
    ),
];

/// With the fence or the deadline taken away: something has to be found.
pub const MUTATED: [(&str, Bounds); 2] = [
    (
        "fence",
        Bounds {
            expelled: 1,
            no_fence: true,
            ..IN_TIME
        },
    ),
    (
        "deadline",
        Bounds {
            lost: 1,
            no_deadline: true,
            ..NO_FAULT
        },
    ),
];

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Different states.
    pub states: u64,
    /// Moves from one to another.
    pub moves: u64,
    /// States in which everything is committed.
    pub finished: u64,
    /// What went wrong first, and the moves that lead there.
    pub wrong: Option<(String, Vec<String>)>,
}

/// Tries everything within the bounds. Ends at the first state that is wrong: no shorter way leads to one.
pub fn search(bounds: Bounds) -> Found {
    let mut found = Found::default();
    let first = Small::new(bounds);
    // Only a digest of each state is kept: 128 bits, so that two different ones are never taken for the same.
    let mut known: HashMap<u128, (u128, Move)> = HashMap::new();
    known.insert(first.digest(), (0, Move::Begin));
    let mut open = VecDeque::from([(first.digest(), first)]);
    while let Some((from, state)) = open.pop_front() {
        found.states += 1;
        found.finished += u64::from(state.finished());
        for (what, next) in state.next() {
            found.moves += 1;
            let digest = next.digest();
            if known.contains_key(&digest) {
                continue;
            }
            known.insert(digest, (from, what));
            if let Some(wrong) = &next.wrong {
                found.wrong = Some((wrong.clone(), way_to(digest, &known)));
                return found;
            }
            open.push_back((digest, next));
        }
    }
    found
}

fn way_to(mut digest: u128, known: &HashMap<u128, (u128, Move)>) -> Vec<String> {
    let mut way = Vec::new();
    while let Some((from, what)) = known.get(&digest) {
        way.push(format!("{what:?}"));
        digest = *from;
    }
    way.reverse();
    way
}

/// One thing that happens; the number is the lane's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// The first state.
    Begin,
    /// The lane hears what the group has told it.
    News(usize),
    /// Its producer is made, and fences its predecessors.
    Producer(usize),
    /// Its read is answered.
    Read(usize),
    /// A batch closes; which partitions, as bits.
    Close(usize, u8),
    /// The offsets of its transaction arrive.
    Offsets(usize),
    /// Its end arrives.
    End(usize),
    /// Its end arrives, the answer does not.
    EndUnheard(usize),
    /// Its end is delayed; the client gives up.
    EndDelayed(usize),
    /// A delayed end arrives.
    LateEnd(usize),
    /// The coordinator aborts what nobody ends.
    TimeOut(usize),
    /// An insert begins.
    Start(usize),
    /// It lands.
    Land(usize),
    /// It lands, the answer is lost.
    LandUnheard(usize),
    /// Its client gives up; it is still on its way.
    InsertDelayed(usize),
    /// It comes after its deadline.
    TooLate(usize),
    /// A promise is settled; which partition.
    Settle(usize, usize),
    /// The process dies; who gets its partitions.
    Crash(usize, usize),
    /// The group expels the lane, which does not know it.
    Expel(usize),
    /// The group asks for a partition.
    Ask(usize, usize),
    /// All deadlines pass.
    TimePasses,
}
