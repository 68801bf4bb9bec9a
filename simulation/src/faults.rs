//! Which faults a run has, how often, and how many of them there were. Each seed draws its own mixture: a fault that is
//! always there hides what only happens without it.

use crate::dice::Dice;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A message comes much later than usual.
    Delayed,
    /// A message never comes.
    Lost,
    /// A request comes twice.
    Doubled,
    /// A message overtakes one that was sent before it.
    Overtaken,
    /// A process dies, before or after one of its actions or messages.
    Crash,
    /// A process stops for a while (SIGSTOP) and does not know it.
    Paused,
    /// The group expels a member that is alive.
    Expelled,
    /// A member is expelled because it was not heard of for too long.
    SessionEnded,
    /// The group asks for partitions back.
    Rebalance,
    /// A process is told to stop (SIGTERM).
    Drain,
    /// The broker fails a step of a transaction; the client aborts.
    Aborted,
    /// A transactional call hangs.
    Hangs,
    /// The coordinator aborts a transaction that takes too long, and fences its producer.
    TransactionTimeout,
    /// The end of a transaction arrives after its client has given up, and is carried out.
    LateEnd,
    /// A request of an older producer is refused.
    Fenced,
    /// A member of an older generation is refused.
    OldGeneration,
    /// The server refuses an insert before it begins.
    Refused,
    /// An insert comes after its deadline, and is refused.
    TooLate,
    /// An insert runs for long.
    Lingers,
    /// The server is killed, in the midst of what runs there.
    Killed,
    /// A token is pushed out of the deduplication window.
    Forgotten,
    /// A repeated insert is answered as if its rows were there.
    Deduplicated,
    /// As above, and rows are missing.
    FalseAnswer,
    /// The server's clock jumps.
    SinkClock,
    /// A worker's wall clock jumps.
    WorkerClock,
    /// Billing's store fails: nothing is applied, no answer.
    BillingDown,
    /// Billing is told of a range that it has.
    AlreadyApplied,
    /// The rules change, or a schema is registered.
    Rules,
}

impl Fault {
    /// All of them, with the names that people read, in the order of the enum.
    pub const ALL: [(Fault, &'static str); 28] = [
        (Fault::Delayed, "messages delayed"),
        (Fault::Lost, "messages lost"),
        (Fault::Doubled, "requests doubled"),
        (Fault::Overtaken, "messages overtaken"),
        (Fault::Crash, "crashes"),
        (Fault::Paused, "processes stopped for a while"),
        (Fault::Expelled, "members expelled alive"),
        (Fault::SessionEnded, "sessions ended"),
        (Fault::Rebalance, "partitions asked back"),
        (Fault::Drain, "drains"),
        (Fault::Aborted, "transactions aborted"),
        (Fault::Hangs, "transactional calls that hang"),
        (Fault::TransactionTimeout, "transactions timed out"),
        (Fault::LateEnd, "ends of given-up transactions"),
        (Fault::Fenced, "zombie producers refused"),
        (Fault::OldGeneration, "old generations refused"),
        (Fault::Refused, "inserts refused"),
        (Fault::TooLate, "inserts past their deadline"),
        (Fault::Lingers, "inserts that linger"),
        (Fault::Killed, "ClickHouse killed"),
        (Fault::Forgotten, "tokens forgotten"),
        (Fault::Deduplicated, "inserts deduplicated"),
        (Fault::FalseAnswer, "false acknowledgements"),
        (Fault::SinkClock, "jumps of ClickHouse's clock"),
        (Fault::WorkerClock, "jumps of a worker's clock"),
        (Fault::BillingDown, "calls that billing's store failed"),
        (Fault::AlreadyApplied, "ranges that billing had already"),
        (Fault::Rules, "changes of rules or schemas"),
    ];
}

/// How many faults there were, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; Fault::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Counts([0; Fault::ALL.len()])
    }
}

impl Counts {
    /// One more.
    pub fn note(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// So many there were.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Those of another run as well.
    pub fn add(&mut self, other: &Counts) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, more)| *mine += more);
    }
}

/// How often faults happen in one run: once in so many occasions, never if 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// Of a message.
    pub lost: u64,
    /// Of a message.
    pub delayed: u64,
    /// Of a request.
    pub doubled: u64,
    /// Of an action.
    pub crash: u64,
    /// Of a moment at which something may happen; so are all below but the last ones.
    pub pause: u64,
    /// A member is expelled.
    pub expel: u64,
    /// Partitions are asked back.
    pub rebalance: u64,
    /// A process is told to stop.
    pub drain: u64,
    /// ClickHouse is killed.
    pub kill: u64,
    /// ClickHouse's clock jumps.
    pub sink_clock: u64,
    /// A worker's wall clock jumps.
    pub worker_clock: u64,
    /// Rules or schemas change.
    pub rules: u64,
    /// Of a step of a transaction.
    pub abort: u64,
    /// Of a transaction.
    pub hang: u64,
    /// Of an insert.
    pub refuse: u64,
    /// Of an insert.
    pub linger: u64,
    /// Of a call of billing.
    pub billing: u64,
    /// How many tokens ClickHouse remembers.
    pub window: usize,
    /// Whether a whole insert may come twice. Not together with a small window: nothing but the token stops a copy that
    /// comes before the deadline, and the sender never makes one.
    pub doubled_inserts: bool,
}

impl Rates {
    /// A mixture: each fault is off, rare, usual or frequent.
    pub fn draw(dice: &mut Dice) -> Rates {
        let mut rate = |rare: u64, usual: u64, often: u64| [0, rare, usual, often][dice.index(4)];
        let mut rates = Rates {
            lost: rate(200, 50, 12),
            delayed: rate(80, 20, 6),
            doubled: rate(120, 40, 8),
            crash: rate(1_500, 500, 120),
            pause: rate(200, 60, 25),
            expel: rate(200, 60, 25),
            rebalance: rate(100, 25, 6),
            drain: rate(400, 120, 40),
            kill: rate(200, 60, 20),
            sink_clock: rate(200, 60, 20),
            worker_clock: rate(200, 60, 20),
            rules: rate(200, 60, 20),
            abort: rate(200, 40, 12),
            hang: rate(200, 60, 20),
            refuse: rate(60, 20, 5),
            linger: rate(40, 10, 3),
            billing: rate(40, 10, 4),
            window: 10_000,
            doubled_inserts: true,
        };
        if dice.one_in(3) {
            (rates.window, rates.doubled_inserts) = (2, false);
        }
        // Some seeds look at zombies alone: producers that hang, requests that come twice, members that stand still.
        // Where processes also die all the time, few of them live long enough to become one.
        if dice.one_in(4) {
            let rare = |rate: u64| rate.saturating_mul(8);
            (rates.hang, rates.doubled, rates.lost) = (4, 6, 25);
            (rates.crash, rates.kill, rates.drain) = (0, rare(rates.kill), 0);
            (rates.expel, rates.pause) = (rare(rates.expel), rare(rates.pause));
        }
        rates
    }

    /// No faults at all.
    pub fn calm(&self) -> Rates {
        Rates {
            lost: 0,
            delayed: 0,
            doubled: 0,
            crash: 0,
            pause: 0,
            expel: 0,
            rebalance: 0,
            drain: 0,
            kill: 0,
            sink_clock: 0,
            worker_clock: 0,
            rules: 0,
            abort: 0,
            hang: 0,
            refuse: 0,
            linger: 0,
            billing: 0,
            window: self.window,
            doubled_inserts: self.doubled_inserts,
        }
    }
}
