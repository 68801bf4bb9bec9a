//! The gRPC side: from requests to a ledger, and from its answers to outcomes and statuses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use proto::delivery::v1::billing_server::Billing;
use proto::delivery::v1::delivery_server::Delivery;
use proto::delivery::v1::outcome::Kind;
use proto::delivery::v1::{
    Charge, Cursor, DeliverRequest, DeliverResponse, GetCursorsRequest, GetCursorsResponse, GetUsageRequest,
    GetUsageResponse, ListChargesRequest, Outcome, StreamUsageRequest, UsageEntry,
};
use serve::{Count, CountBy, Stop};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::check::{CheckedPart, check, source};
use crate::ledger::{ChargesPage, Filter, Ledger, LedgerError, Page, Source, Window};

/// What one look at the ledger reads: bounds the memory of a stream, and how long a snapshot is held.
const PAGE: usize = 1_000;
/// Entries that wait for a slow reader of a stream.
const STREAM_WAITING_MAX: usize = 64;
/// How soon a stream sees what *another* service on the same store has taken. What this one takes it sees at once.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `Delivery` and `Billing` over a ledger. Clones share it.
pub struct BillingService<L> {
    ledger: Arc<L>,
    metrics: Metrics,
    /// Changes when charges were applied, to wake the streams.
    applied: watch::Sender<()>,
    stop: Stop,
}

/// What the service counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    charges: Count,
    parts: CountBy,
    deliver: Histogram,
    store_errors: Count,
    streams: Gauge,
}

impl Metrics {
    /// Metrics that are shown by `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            charges: Count::default(),
            parts: CountBy::default(),
            deliver: serve::seconds(),
            store_errors: Count::default(),
            streams: Gauge::default(),
        };
        registry.register(
            "billing_charges",
            "Charges applied to the ledger",
            metrics.charges.clone(),
        );
        registry.register("billing_parts", "Parts delivered, by outcome", metrics.parts.clone());
        let help = "Time to answer a delivery";
        registry.register_with_unit("billing_deliver", help, Unit::Seconds, metrics.deliver.clone());
        let help = "Questions that the store could not answer";
        registry.register("billing_store_errors", help, metrics.store_errors.clone());
        registry.register(
            "billing_usage_streams",
            "Open streams of usage",
            metrics.streams.clone(),
        );
        metrics
    }
}

impl<L> Clone for BillingService<L> {
    fn clone(&self) -> Self {
        let Self {
            ledger,
            metrics,
            applied,
            stop,
        } = self;
        Self {
            ledger: Arc::clone(ledger),
            metrics: metrics.clone(),
            applied: applied.clone(),
            stop: stop.clone(),
        }
    }
}

impl<L: Ledger> BillingService<L> {
    /// A service over `ledger`, whose streams end when `stop` is requested.
    pub fn new(ledger: Arc<L>, metrics: Metrics, stop: Stop) -> Self {
        Self {
            ledger,
            metrics,
            applied: watch::Sender::new(()),
            stop,
        }
    }

    async fn apply(&self, parts: Vec<CheckedPart>) -> Result<Vec<Outcome>, Status> {
        let what: Vec<(Source, usize)> = parts
            .iter()
            .map(|part| (part.source.clone(), part.charges.len()))
            .collect();
        let outcomes = self.ledger.deliver(parts).await.map_err(|error| self.status(&error))?;
        for (outcome, (source, charges)) in outcomes.iter().zip(what) {
            let name = match outcome.kind() {
                Kind::Applied => {
                    self.metrics.charges.inc_by(charges as u64);
                    "applied"
                }
                Kind::AlreadyApplied => "already_applied",
                Kind::Conflict => "conflict",
                Kind::Gap => "gap",
                Kind::Unspecified => "unspecified",
            };
            self.metrics
                .parts
                .get_or_create(&vec![("outcome", name.to_owned())])
                .inc();
            if matches!(outcome.kind(), Kind::Conflict | Kind::Gap) {
                let Source {
                    pipeline,
                    topic,
                    partition,
                } = source;
                let reason = &outcome.reason;
                if outcome.cursor < 0 {
                    // A partition's first range: its sender learns from this answer that it begins here.
                    tracing::info!(
                        pipeline,
                        topic,
                        partition,
                        "nothing is known of this partition yet: {reason}"
                    );
                } else {
                    tracing::error!(
                        pipeline,
                        topic,
                        partition,
                        "a part is refused ({name}), its sender stops: {reason}"
                    );
                }
            }
        }
        self.applied.send_replace(());
        Ok(outcomes)
    }

    fn status(&self, error: &LedgerError) -> Status {
        self.metrics.store_errors.inc();
        tracing::warn!("{error}");
        match error {
            LedgerError::Unavailable(_) => Status::unavailable(error.to_string()),
            LedgerError::Refused(_) => Status::internal(error.to_string()),
            LedgerError::Foreign(_) => Status::failed_precondition(error.to_string()),
        }
    }

    async fn page(&self, after: u64, filter: &Filter) -> Result<Page, Status> {
        let page = self
            .ledger
            .entries(after, filter.clone(), PAGE)
            .await
            .map_err(|error| self.status(&error))?;
        if after > page.newest {
            return Err(Status::out_of_range(format!(
                "cursor {after} is past the newest entry {}: it comes from another ledger, or this one has lost entries",
                page.newest
            )));
        }
        Ok(page)
    }

    /// Sends page after page, then waits for more, until the reader goes, the service stops or the store fails.
    async fn follow(self, first: Page, filter: Filter, entries: mpsc::Sender<Result<UsageEntry, Status>>) {
        let mut page = first;
        let mut applied = self.applied.subscribe();
        loop {
            let (read_to, at_the_end) = (page.read_to, page.read_to >= page.newest);
            for entry in page.entries {
                if entries.send(Ok(entry)).await.is_err() {
                    return;
                }
            }
            if at_the_end {
                tokio::select! {
                    // What was applied since the page was read has changed the watch already, so it is not missed.
                    changed = applied.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = entries.closed() => return,
                    () = self.stop.requested() => {}
                }
            }
            let next = if self.stop.is_requested() {
                Err(Status::unavailable(
                    "the service stops; go on with the cursor of the last entry",
                ))
            } else {
                self.page(read_to, &filter).await
            };
            page = match next {
                Ok(page) => page,
                Err(status) => {
                    // A reader that has gone needs no reason.
                    entries.send(Err(status)).await.ok();
                    return;
                }
            };
        }
    }

    async fn list(self, source: Source, offsets: std::ops::Range<i64>, charges: mpsc::Sender<Result<Charge, Status>>) {
        let mut page = ChargesPage {
            offsets,
            after: None,
            charges_max: PAGE,
        };
        loop {
            let read = self.ledger.charges(source.clone(), page.clone()).await;
            let (read, full) = match read {
                Ok(read) => (
                    read.iter().cloned().map(Ok).collect::<Vec<_>>(),
                    (read.len() == PAGE).then(|| read.last().map(place)),
                ),
                Err(error) => (vec![Err(self.status(&error))], None),
            };
            for charge in read {
                if charges.send(charge).await.is_err() {
                    return;
                }
            }
            match full.flatten() {
                Some(after) => page.after = Some(after),
                None => return,
            }
        }
    }
}

/// Offset and number of a charge, which its own ledger has put into the id.
fn place(charge: &Charge) -> (i64, u32) {
    let n = charge
        .id
        .rsplit('/')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(u32::MAX);
    (charge.offset, n)
}

#[tonic::async_trait]
impl<L: Ledger> Delivery for BillingService<L> {
    async fn deliver(&self, request: Request<DeliverRequest>) -> Result<Response<DeliverResponse>, Status> {
        let begun = Instant::now();
        let parts = check(request.into_inner()).map_err(Status::invalid_argument)?;
        let outcomes = self.apply(parts).await?;
        self.metrics.deliver.observe(begun.elapsed().as_secs_f64());
        Ok(Response::new(DeliverResponse { outcomes }))
    }

    async fn get_cursors(&self, request: Request<GetCursorsRequest>) -> Result<Response<GetCursorsResponse>, Status> {
        let GetCursorsRequest { pipeline, sources } = request.into_inner();
        let mut cursors = Vec::with_capacity(sources.len());
        for asked in sources {
            let source = source(pipeline.clone(), asked.topic, asked.partition).map_err(Status::invalid_argument)?;
            let offset = self.ledger.cursor(source).await.map_err(|error| self.status(&error))?;
            cursors.push(Cursor { offset });
        }
        Ok(Response::new(GetCursorsResponse { cursors }))
    }
}

#[tonic::async_trait]
impl<L: Ledger> Billing for BillingService<L> {
    type StreamUsageStream = ReceiverStream<Result<UsageEntry, Status>>;
    type ListChargesStream = ReceiverStream<Result<Charge, Status>>;

    async fn get_usage(&self, request: Request<GetUsageRequest>) -> Result<Response<GetUsageResponse>, Status> {
        let GetUsageRequest {
            tenant,
            meter,
            from_ms,
            to_ms,
        } = request.into_inner();
        if from_ms > to_ms {
            return Err(Status::invalid_argument(format!(
                "from_ms {from_ms} is after to_ms {to_ms}"
            )));
        }
        let window = Window {
            tenant,
            meter,
            event_time_ms: from_ms..to_ms,
        };
        let usage = self.ledger.usage(window).await.map_err(|error| self.status(&error))?;
        let quantity = i64::try_from(usage.quantity).map_err(|_| {
            Status::out_of_range(format!(
                "the sum {} does not fit into 64 bits; ask for a shorter time",
                usage.quantity
            ))
        })?;
        let (scale, unit, charges) = (usage.scale, usage.unit, usage.charges);
        Ok(Response::new(GetUsageResponse {
            quantity,
            scale,
            unit,
            charges,
        }))
    }

    async fn stream_usage(
        &self,
        request: Request<StreamUsageRequest>,
    ) -> Result<Response<Self::StreamUsageStream>, Status> {
        let StreamUsageRequest { cursor, tenant, meter } = request.into_inner();
        let filter = Filter { tenant, meter };
        let first = self.page(cursor, &filter).await?;
        let (entries, stream) = mpsc::channel(STREAM_WAITING_MAX);
        let service = self.clone();
        tokio::spawn(async move {
            let streams = service.metrics.streams.clone();
            streams.inc();
            service.follow(first, filter, entries).await;
            streams.dec();
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_charges(
        &self,
        request: Request<ListChargesRequest>,
    ) -> Result<Response<Self::ListChargesStream>, Status> {
        let ListChargesRequest {
            pipeline,
            topic,
            partition,
            start,
            end,
        } = request.into_inner();
        let source = source(pipeline, topic, partition).map_err(Status::invalid_argument)?;
        let (charges, stream) = mpsc::channel(STREAM_WAITING_MAX);
        tokio::spawn(self.clone().list(source, start..end, charges));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
