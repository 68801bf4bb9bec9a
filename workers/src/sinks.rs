//! Delivers a promised batch to every sink in parallel. Nothing here commits anything: it says what happened.
//!
//! If the process dies before an insert is sent, the promise is read back and nothing is there; during it, the server
//! either finishes it or not, and the read-back waits until that is decided; after it, the rows are found. A gRPC sink
//! applies a range with its cursor in one transaction, so that repeating it is harmless at every moment.

mod blocks;
mod clock;
mod feedings;
mod grpc;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clickhouse_sink::{Client, Feed, Feeding, Insert, Inserted, Lack};
use crash_points::{Mutation, Point, here, mutated};
use exactly_once_protocol::{Delivered, Partition};
use pipeline::Pipeline;
use tokio::sync::Semaphore;

pub use self::blocks::{Rows, block};
pub use self::clock::{SinkClock, unix_ms};
pub use self::feedings::Unfed;
use self::feedings::{Fed, note_refusals, together};
use self::grpc::Grpc;
use crate::endpoint::EndpointError;
use crate::guard::{Guard, Requests};
use crate::metrics::Metrics;
use crate::settle::NO_SUCH_ROLLUP;
use crate::transform::Outputs;

/// How long one insert may run on the server after it has started.
pub const INSERT_RUNNING_MAX: Duration = Duration::from_secs(20);

/// Inserts of one batch that run at the same time.
const INSERTS_AT_ONCE: usize = 2;

/// Between two tries that the sink refused before anything was sent.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// For the server to say what time it is.
const CLOCK_WITHIN: Duration = Duration::from_secs(5);

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

/// One part of a batch: what to deliver.
pub struct Shipment {
    /// The transformed ranges; their rows are in `rows`.
    pub outputs: Arc<Outputs>,
    /// The rows to insert.
    pub rows: Vec<Rows>,
    /// Rollups that lack some rows, nobody knows which: they are fed once the rows to insert are there.
    pub unfed: Option<Arc<Unfed>>,
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
    /// was right. True once anything was taken, now or before.
    pub async fn learn_clock(&self) -> bool {
        let asked = Instant::now();
        match tokio::time::timeout(CLOCK_WITHIN, self.clickhouse.now_ms()).await {
            Ok(Ok(server)) => self.clock.learn(server, asked, asked.elapsed()),
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
    ) -> Result<Sinks, EndpointError> {
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
    pub async fn deliver(&self, mut delivery: Delivery) -> Delivered {
        let shipments = delivery.shipments.iter_mut();
        let rows = shipments.map(|shipment| std::mem::take(&mut shipment.rows)).collect();
        let delivery = &delivery;
        let tables = self.insert_all(rows, delivery);
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

    async fn insert_all(&self, rows: Vec<Vec<Rows>>, delivery: &Delivery) -> bool {
        let Some(deadline_ms) = delivery.deadline_ms else {
            return true;
        };
        let mut inserts = Vec::new();
        for (nth, of_shipment) in rows.into_iter().enumerate() {
            for rows in of_shipment {
                let at = rows.at;
                let name = format!("{}-{nth}-{at}", query_prefix(&self.pipeline.name, delivery.token));
                inserts.push((rows, name));
            }
        }
        // A few at a time: all at once they share the server's cores and all end last. Most of an insert's cost is the same
        // whatever its size, so with the large ones first most events are visible soonest.
        inserts.sort_by_key(|(rows, _)| Reverse(rows.count));
        let turns = &Semaphore::new(INSERTS_AT_ONCE);
        let left = &AtomicUsize::new(inserts.len());
        let in_turn = inserts.into_iter().map(|(rows, name)| async move {
            // Never closed, so that a turn always comes.
            let _turn = turns.acquire().await;
            let clean = self.insert(rows, name, deadline_ms).await;
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

    async fn insert(&self, rows: Rows, name: String, deadline_ms: i64) -> bool {
        let table = &self.pipeline.tables[rows.table];
        let (source, partition, offset) = rows.first;
        let written = rows.block().await;
        let block = match written.and_then(|block| Ok(block.until(deadline_ms.div_euclid(1000))?)) {
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
            true => Cow::Owned(format!("{source}-{partition}-{offset}")),
            false => Cow::Borrowed(&name),
        };
        let mut pause = RETRY_FIRST;
        loop {
            let insert = Insert {
                table: &table.name,
                block: &block,
                token: &token,
                query_id: &name,
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
                        .inserted(&table.name, block.rows, block.length(), began.elapsed());
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
}
