//! Delivers a promised batch to every sink in parallel. Nothing here commits anything: it says what happened.
//!
//! If the process dies before an insert is sent, the promise is read back and nothing is there; during it, the server
//! either finishes it or not, and the read-back waits until that is decided; after it, the rows are found. A gRPC sink
//! applies a range with its cursor in one transaction, so that repeating it is harmless at every moment.

mod grpc;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clickhouse_sink::{Client, Feed, Feeding, Identity, Insert, Inserted, Lack, Range};
use crash_points::{Mutation, Point, clock_ahead_ms, here, mutated};
use exactly_once_protocol::{Delivered, Partition};
use pipeline::Pipeline;
use tokio::sync::Semaphore;

use self::grpc::Grpc;
use crate::guard::{Guard, Requests};
use crate::metrics::Metrics;
use crate::settle::NO_SUCH_ROLLUP;
use crate::transform::{Outputs, TableRows};

/// How long one insert may run on the server after it has started.
pub const INSERT_RUNNING_MAX: Duration = Duration::from_secs(20);

/// Inserts of one batch that run at the same time.
const INSERTS_AT_ONCE: usize = 2;

/// Between two tries that the sink refused before anything was sent.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// For the server to say what time it is.
const CLOCK_WITHIN: Duration = Duration::from_secs(5);
/// What the server says of the time is as old as its answer took, at most.
const PROMPT: Duration = Duration::from_secs(1);

/// The sink's clock, estimated: what ClickHouse told last, and how much time has passed since. This machine's wall clock says
/// only where it begins: one that jumps an hour would put deadlines an hour away, and whoever settles them would wait for it.
#[derive(Debug)]
pub struct SinkClock {
    began: Instant,
    /// What has to be added to the milliseconds since then.
    ahead_ms: AtomicI64,
    known: AtomicBool,
}

impl Default for SinkClock {
    fn default() -> SinkClock {
        SinkClock {
            began: Instant::now(),
            ahead_ms: AtomicI64::new(unix_ms()),
            known: AtomicBool::new(false),
        }
    }
}

impl SinkClock {
    /// Takes what the server said when it was asked at this moment, and answered so much later; an answer that took long only
    /// while nothing better is known. True once anything was taken.
    pub fn learn(&self, server_ms: i64, asked: Instant, took: Duration) -> bool {
        if took <= PROMPT || !self.is_known() {
            let ahead_ms = server_ms - self.passed_ms(asked);
            self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
            self.known.store(true, Ordering::Relaxed);
        }
        true
    }

    /// Whether the server has ever told.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Unix milliseconds on the sink's clock.
    pub fn now_ms(&self) -> i64 {
        self.passed_ms(Instant::now()) + self.ahead_ms.load(Ordering::Relaxed)
    }

    fn passed_ms(&self, at: Instant) -> i64 {
        at.saturating_duration_since(self.began).as_millis() as i64
    }
}

/// This machine's clock, Unix milliseconds. The rim is the only place that reads it.
pub fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64 + clock_ahead_ms())
}

/// All sinks of a worker; cheap to share, no state of a batch.
pub struct Sinks {
    pipeline: Arc<Pipeline>,
    /// The analytics store; also used for read-backs.
    pub clickhouse: Client,
    grpc: Vec<Grpc>,
    /// The clock that deadlines are read on.
    pub clock: Arc<SinkClock>,
    health: serve::Health,
    metrics: Arc<Metrics>,
    /// Before what all lanes ask ClickHouse for.
    pub guard: Guard,
}

/// One part of a batch: what to deliver, and which rows of it.
pub struct Shipment {
    /// The transformed ranges.
    pub outputs: Arc<Outputs>,
    /// For each entry of `outputs.tables` the rows to insert; `None` = all of them.
    pub rows: Option<Vec<Vec<usize>>>,
    /// Rollups that lack some rows, nobody knows which: they are fed once the rows to insert are there.
    pub unfed: Option<Arc<Unfed>>,
}

/// Rollups that lack rows of some ranges.
#[derive(Debug)]
pub struct Unfed {
    /// Which ones.
    pub feeds: Vec<Feed>,
    /// Of which rows.
    pub ranges: Vec<Range>,
    /// How many deliveries in a row the server has said that such a feeding failed in; one that it did not answer says nothing.
    pub refused: Arc<AtomicU16>,
}

/// What one statement feeds to one rollup.
struct Together<'a> {
    feed: &'a Feed,
    lack: Lack,
    ranges: Vec<Range>,
    of: Vec<&'a Unfed>,
}

/// What came of one feeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fed {
    Clean,
    /// The server has said that it failed.
    Refused,
    /// Nothing was heard of it, or it was not sent.
    Unknown,
}

/// Counts, once for each delivery, what the server has refused. A refusal of several together says of none that it was the
/// reason: they go alone from then on.
fn note_refusals<'a>(lacking: &[(&Unfed, Lack)], fed: impl Iterator<Item = (&'a Together<'a>, &'a Fed)> + Clone) {
    for (unfed, _) in lacking {
        let own = fed
            .clone()
            .filter(|(together, _)| together.of.iter().any(|one| std::ptr::eq(*one, *unfed)));
        let refusals: Vec<bool> = own
            .clone()
            .filter(|(_, fed)| **fed == Fed::Refused)
            .map(|(together, _)| together.of.len() == 1)
            .collect();
        if refusals.contains(&true) {
            unfed.refused.fetch_add(1, Ordering::Relaxed);
        } else if !refusals.is_empty() {
            unfed.refused.fetch_max(1, Ordering::Relaxed);
        } else if own.into_iter().all(|(_, fed)| *fed == Fed::Clean) {
            unfed.refused.store(0, Ordering::Relaxed);
        }
    }
}

/// Partitions that lack the same are fed by one statement: the server looks once at what the rollup has. One whose feeding was
/// refused before goes alone: it may be the reason, and must not take the others with it.
fn together<'a>(lacking: &[(&'a Unfed, Lack)]) -> Vec<Together<'a>> {
    let mut all: Vec<Together<'a>> = Vec::new();
    let mut joined = BTreeMap::new();
    for (unfed, lack) in lacking {
        let was_refused = unfed.refused.load(Ordering::Relaxed) > 0;
        for feed in &unfed.feeds {
            let with = joined.get(&(&feed.rollup, *lack == Lack::All)).filter(|_| !was_refused);
            let at = with.copied().unwrap_or_else(|| {
                all.push(Together {
                    feed,
                    lack: *lack,
                    ranges: Vec::new(),
                    of: Vec::new(),
                });
                all.len() - 1
            });
            if !was_refused {
                joined.insert((&feed.rollup, *lack == Lack::All), at);
            }
            all[at].ranges.extend(unfed.ranges.iter().cloned());
            all[at].of.push(unfed);
        }
    }
    all
}

/// One delivery of one batch.
pub struct Delivery {
    /// Names the attempt.
    pub token: u64,
    /// Sink clock; `None` = nothing has to be inserted.
    pub deadline_ms: Option<i64>,
    /// What to deliver.
    pub shipments: Vec<Shipment>,
    /// Rollups that lack all rows of some ranges; the rows are there.
    pub feeds: Vec<Unfed>,
    /// gRPC sinks for which a range is the first of its partition.
    pub begins: Vec<(Partition, u64)>,
}

/// Query ids of all inserts of one promise begin with this.
pub fn query_prefix(pipeline: &str, token: u64) -> String {
    format!("sluice-{pipeline}-{token:016x}")
}

impl Sinks {
    /// Asks ClickHouse what time it is, and takes what it says unless the answer came late: nobody knows when in between it
    /// was right. True once anything was taken.
    pub async fn learn_clock(&self) -> bool {
        let asked = Instant::now();
        match tokio::time::timeout(CLOCK_WITHIN, self.clickhouse.now_ms()).await {
            Ok(Ok(server)) => return self.clock.learn(server, asked, asked.elapsed()),
            Ok(Err(error)) => tracing::debug!(%error, "ClickHouse's clock cannot be read"),
            Err(_) => tracing::debug!("ClickHouse does not tell what time it is"),
        }
        self.clock.is_known()
    }

    /// Connects lazily: a sink that is away when the worker starts is waited for like one that goes away later.
    pub fn new(
        pipeline: Arc<Pipeline>,
        clickhouse: Client,
        health: serve::Health,
        metrics: Arc<Metrics>,
    ) -> Result<Sinks, tonic::transport::Error> {
        let grpc = pipeline.sinks.grpc.iter().map(Grpc::new).collect::<Result<_, _>>()?;
        Ok(Sinks {
            pipeline,
            clickhouse,
            grpc,
            clock: Arc::new(SinkClock::default()),
            guard: Guard::new(Arc::clone(&metrics), health.clone()),
            health,
            metrics,
        })
    }

    /// Whose sinks they are.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Delivers to all sinks in parallel and waits for all of them. Cancelling it at any await is doubt, nothing worse.
    pub async fn deliver(&self, delivery: &Delivery) -> Delivered {
        let tables = self.insert_all(delivery);
        let services = futures::future::join_all(self.grpc.iter().map(|sink| self.call(sink, delivery)));
        let (inserted, called) = futures::future::join(tables, services).await;
        let mut impossible = Vec::new();
        for outcome in called {
            match outcome {
                Delivered::Impossible(partitions) => impossible.extend(partitions),
                Delivered::Doubt => return Delivered::Doubt,
                Delivered::Clean => {}
            }
        }
        if !impossible.is_empty() {
            return Delivered::Impossible(impossible);
        }
        if inserted { Delivered::Clean } else { Delivered::Doubt }
    }

    // --- ClickHouse --------------------------------------------------------------------------------------------------

    async fn insert_all(&self, delivery: &Delivery) -> bool {
        let Some(deadline_ms) = delivery.deadline_ms else {
            return true;
        };
        let mut inserts = Vec::new();
        for (nth, shipment) in delivery.shipments.iter().enumerate() {
            for (at, rows) in shipment.outputs.tables.iter().enumerate() {
                let only = shipment.rows.as_ref().map(|rows| rows[at].as_slice());
                if only.is_none_or(|only| !only.is_empty()) {
                    let name = format!("{}-{nth}-{at}", query_prefix(&self.pipeline.name, delivery.token));
                    let rows_to_go = only.map_or_else(|| rows.batch.num_rows(), <[usize]>::len);
                    inserts.push((rows_to_go, rows, only, name));
                }
            }
        }
        // A few at a time: all at once they share the server's cores and all end last. Most of an insert's cost is the same
        // whatever its size, so with the large ones first most events are visible soonest.
        inserts.sort_by_key(|(rows_to_go, ..)| Reverse(*rows_to_go));
        let turns = &Semaphore::new(INSERTS_AT_ONCE);
        let left = &AtomicUsize::new(inserts.len());
        let in_turn = inserts.into_iter().map(|(_, rows, only, name)| async move {
            // Never closed, so that a turn always comes.
            let _turn = turns.acquire().await;
            let clean = self.insert(rows, only, name, deadline_ms).await;
            let last = left.fetch_sub(1, Ordering::Relaxed) == 1;
            if clean {
                here(if last {
                    Point::InsertsAnswered
                } else {
                    Point::BetweenTables
                });
            }
            clean
        });
        // What is fed whole is committed: it needs none of these inserts. Rows come first, people wait for them.
        let whole = delivery.feeds.iter().map(|unfed| (unfed, Lack::All));
        let (inserted, fed) = tokio::join!(
            futures::future::join_all(in_turn),
            self.feed_all(delivery, whole.collect(), turns)
        );
        if !fed || !inserted.into_iter().all(|clean| clean) {
            return false;
        }
        let lacking = delivery
            .shipments
            .iter()
            .filter_map(|shipment| shipment.unfed.as_deref());
        let lacking = lacking.map(|unfed| (unfed, Lack::Some)).collect();
        self.feed_all(delivery, lacking, turns).await
    }

    async fn feed_all(&self, delivery: &Delivery, lacking: Vec<(&Unfed, Lack)>, turns: &Semaphore) -> bool {
        let Some(deadline_ms) = delivery.deadline_ms else {
            return lacking.is_empty();
        };
        let feedings = together(&lacking);
        let in_turn = feedings.iter().enumerate().map(|(nth, together)| async move {
            let _turn = turns.acquire().await;
            // One token for each: a second feeding under the same one would be taken for a repetition.
            let kind = match together.lack {
                Lack::All => "all",
                Lack::Some => "some",
            };
            let prefix = query_prefix(&self.pipeline.name, delivery.token);
            let name = format!("{prefix}-feed-{kind}-{nth}");
            let feeding = Feeding {
                ranges: &together.ranges,
                lack: together.lack,
                token: &name,
                query_id: &name,
                deadline_unix_s: deadline_ms.div_euclid(1000),
                running_max: INSERT_RUNNING_MAX,
            };
            self.feed(together.feed, feeding, deadline_ms).await
        });
        let fed = futures::future::join_all(in_turn).await;
        note_refusals(&lacking, feedings.iter().zip(&fed));
        fed.into_iter().all(|fed| fed == Fed::Clean)
    }

    async fn feed(&self, feed: &Feed, feeding: Feeding<'_>, deadline_ms: i64) -> Fed {
        let mut pause = RETRY_FIRST;
        loop {
            let Some(turn) = self.guard.turn(Requests::Writes, || self.left(deadline_ms)).await else {
                return Fed::Unknown;
            };
            let began = Instant::now();
            let outcome = self.clickhouse.feed(feed, feeding).await;
            turn.tell(outcome.is_overload(began.elapsed()));
            match &outcome {
                Inserted::Clean => {
                    self.metrics.fed(&feed.rollup, began.elapsed());
                    if feeding.lack == Lack::Some {
                        tracing::info!(rollup = feed.rollup, "a rollup lacked rows of its table and was fed");
                    }
                    return Fed::Clean;
                }
                Inserted::Refused(reason) => {
                    tracing::debug!(rollup = feed.rollup, %reason, "feeding refused before it began");
                }
                Inserted::Rejected { code, reason } if NO_SUCH_ROLLUP.contains(code) => {
                    // It must not hold up its table.
                    tracing::error!(rollup = feed.rollup, code, %reason, "the rollup cannot be fed: run `sluice schema plan`");
                    return Fed::Clean;
                }
                Inserted::Rejected { .. } | Inserted::Doubt { .. } => {
                    tracing::warn!(
                        rollup = feed.rollup,
                        ?outcome,
                        "a rollup could not be fed; it is looked at again"
                    );
                    return match outcome {
                        Inserted::Doubt { code: None, .. } => Fed::Unknown,
                        _ => Fed::Refused,
                    };
                }
            }
            if self.clock.now_ms() + pause.as_millis() as i64 >= deadline_ms {
                return Fed::Unknown;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Until the server refuses what comes: it compares whole seconds, on its own clock.
    fn left(&self, deadline_ms: i64) -> Duration {
        let refused_from = deadline_ms.div_euclid(1000) * 1000;
        Duration::from_millis(u64::try_from(refused_from - self.clock.now_ms()).unwrap_or(0))
    }

    async fn insert(&self, rows: &TableRows, only: Option<&[usize]>, name: String, deadline_ms: i64) -> bool {
        let table = &self.pipeline.tables[rows.table];
        let block = match self.block(rows, only) {
            Ok(block) => block,
            Err(error) => {
                // The same rows would fail again: the promise stays, the lane shows that it does not move.
                tracing::error!(table = table.name, %error, "rows cannot be written as a block");
                self.health.part("clickhouse").ready(false, &error.to_string());
                tokio::time::sleep(Duration::from_secs(5)).await;
                return false;
            }
        };
        let token = match mutated(Mutation::TokenWithoutEnd) {
            true => Cow::Owned(format!("{}-{}-{}", rows.source, rows.partition[0], rows.offset[0])),
            false => Cow::Borrowed(&name),
        };
        let mut pause = RETRY_FIRST;
        loop {
            let insert = Insert {
                table: &table.name,
                block: &block,
                token: &token,
                query_id: &name,
                deadline_unix_s: deadline_ms.div_euclid(1000),
                running_max: INSERT_RUNNING_MAX,
            };
            let Some(turn) = self.guard.turn(Requests::Writes, || self.left(deadline_ms)).await else {
                return false;
            };
            let began = Instant::now();
            here(Point::InsertUnsent);
            here(Point::InsertSent);
            let outcome = self.clickhouse.insert(insert).await;
            turn.tell(outcome.is_overload(began.elapsed()));
            match outcome {
                Inserted::Clean => {
                    self.metrics
                        .inserted(&table.name, block.rows, block.bytes.len(), began.elapsed());
                    self.health.part("clickhouse").ready(true, "");
                    return true;
                }
                Inserted::Doubt { reason, .. } => {
                    tracing::warn!(table = table.name, %reason, "the outcome of an insert is unknown; it will be read back");
                    self.metrics.insert_failed("doubt");
                    return false;
                }
                Inserted::Refused(reason) => {
                    tracing::debug!(table = table.name, %reason, "insert refused before it began");
                    self.metrics.insert_failed("refused");
                    self.health.part("clickhouse").ready(false, &reason);
                }
                Inserted::Rejected { code, reason } => {
                    tracing::error!(table = table.name, code, %reason, "ClickHouse rejects the insert: run `sluice schema plan`");
                    self.metrics.insert_failed("rejected");
                    self.health.part("clickhouse").ready(false, &reason);
                    // No proof that nothing was written: only a read-back settles it.
                    return false;
                }
            }
            if self.clock.now_ms() + pause.as_millis() as i64 >= deadline_ms {
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn block(
        &self,
        rows: &TableRows,
        only: Option<&[usize]>,
    ) -> Result<clickhouse_sink::Block, clickhouse_sink::Error> {
        let table = &self.pipeline.tables[rows.table];
        let mut order = clickhouse_sink::sort_order(&rows.batch, &table.order_by)?;
        if let Some(only) = only {
            let mut wanted = vec![false; rows.batch.num_rows()];
            only.iter().for_each(|row| wanted[*row] = true);
            order.retain(|row| wanted[*row]);
        }
        let identity = Identity {
            topic: &self.pipeline.sources[rows.source].topic,
            partition: &rows.partition,
            offset: &rows.offset,
            index: &rows.index,
            row_hash: &rows.row_hash,
        };
        clickhouse_sink::encode(&rows.batch, &identity, &order, &rows.low_cardinality)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sinks_clock_goes_on_from_what_the_server_has_told() {
        let clock = SinkClock::default();
        assert!(
            (clock.now_ms() - unix_ms()).abs() < 60_000,
            "its own machine's, before it was told"
        );
        let an_hour_ahead = unix_ms() + 3_600_000;
        let asked = clock.began + Duration::from_secs(20);
        assert!(!clock.is_known());
        assert!(clock.learn(an_hour_ahead, asked, 3 * PROMPT), "better than nothing");
        assert!(clock.learn(0, asked, 2 * PROMPT), "not better than what is known");
        assert_eq!(
            clock.now_ms() - clock.passed_ms(Instant::now()),
            an_hour_ahead - 20_000,
            "to the millisecond, whatever the wall clock says meanwhile"
        );
    }
}
