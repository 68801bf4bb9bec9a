//! gRPC sinks: ranges with their charges, repeated until they are answered; and up to where a sink has got them.

use std::collections::BTreeSet;

use crash_points::{Point, here};
use exactly_once_protocol::{Cursor, Delivered, Partition, StopCode, sink_id};
use pipeline::GrpcSink;
use prost::Message as _;
use proto::delivery::v1::delivery_client::DeliveryClient;
use proto::delivery::v1::outcome::Kind;
use proto::delivery::v1::{Charge, DeliverRequest, GetCursorsRequest, Part, Source};
use tonic::Code;
use tonic::transport::Channel;

use super::{Delivery, RETRY_FIRST, RETRY_MAX, Sinks};
use crate::endpoint::{EndpointError, endpoint};
use crate::records::charges_digest;
use crate::transform::Outputs;
use crate::witnesses::WitnessError;

/// A gRPC call that takes longer is repeated: the receiver answers `already applied` if it had worked.
const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// A part without its charges has no more bytes than this: a topic's name of 249, a digest, numbers.
const PART_HEAD: usize = 512;

/// How many bytes of parts go into one message: room is left for what stands around them.
fn fits(sink: &Grpc) -> usize {
    sink.settings.message_bytes_max / 10 * 9
}

/// What a charge takes in a part.
fn charge_bytes(charge: &Charge) -> usize {
    let bytes = charge.encoded_len();
    1 + prost::length_delimiter_len(bytes) + bytes
}

/// One gRPC sink.
pub(super) struct Grpc {
    settings: GrpcSink,
    /// How promises and marks name it.
    id: u64,
    client: DeliveryClient<Channel>,
}

impl Grpc {
    /// Connects lazily.
    pub(super) fn new(settings: &GrpcSink) -> Result<Grpc, EndpointError> {
        let endpoint = endpoint(&settings.url, settings.tls.as_ref())?;
        let client = DeliveryClient::new(endpoint.connect_lazy())
            .max_encoding_message_size(settings.message_bytes_max)
            .max_decoding_message_size(settings.message_bytes_max);
        Ok(Grpc {
            settings: settings.clone(),
            id: sink_id(&settings.name),
            client,
        })
    }
}

/// What a call was answered; of one that reached nobody, why not.
fn said(status: &tonic::Status) -> String {
    let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    match causes.last() {
        Some(cause) => format!("{}: {cause}", status.message()),
        None => status.message().to_owned(),
    }
}

impl Sinks {
    /// Up to where each gRPC sink has each of the partitions. Fails if one does not answer: ask again.
    pub async fn cursors(&self, partitions: &[Partition]) -> Result<Vec<Vec<(u64, Cursor)>>, WitnessError> {
        let mut cursors = vec![Vec::new(); partitions.len()];
        let fault = |sink: &Grpc, reason: String| WitnessError::Grpc {
            sink: sink.settings.name.clone(),
            reason,
        };
        for sink in &self.grpc {
            let sources = partitions.iter().map(|partition| Source {
                topic: self.pipeline.sources[usize::from(partition.topic)].topic.clone(),
                partition: partition.partition,
            });
            let mut request = tonic::Request::new(GetCursorsRequest {
                pipeline: self.pipeline.name.clone(),
                sources: sources.collect(),
            });
            request.set_timeout(CALL_TIMEOUT);
            let told = match sink.client.clone().get_cursors(request).await {
                Ok(answer) => answer.into_inner().cursors,
                Err(status) if status.code() == Code::Unimplemented => {
                    cursors.iter_mut().for_each(|all| all.push((sink.id, Cursor::Untold)));
                    continue;
                }
                Err(status) => {
                    let reason = said(&status);
                    self.health.part(&sink.settings.name).ready(false, &reason);
                    return Err(fault(sink, reason));
                }
            };
            if told.len() != partitions.len() {
                let reason = format!(
                    "it tells {} cursors, and was asked for {}",
                    told.len(),
                    partitions.len()
                );
                return Err(fault(sink, reason));
            }
            self.health.part(&sink.settings.name).ready(true, "");
            for (all, cursor) in cursors.iter_mut().zip(told) {
                all.push((sink.id, cursor.offset.map_or(Cursor::Nothing, Cursor::At)));
            }
        }
        Ok(cursors)
    }

    pub(super) async fn call(&self, sink: &Grpc, delivery: &Delivery) -> Delivered {
        let mut impossible = Vec::new();
        for parts in self.messages(sink, delivery) {
            impossible.extend(self.send(sink, parts).await);
        }
        if impossible.is_empty() {
            Delivered::Clean
        } else {
            Delivered::Impossible(impossible)
        }
    }

    /// A sink to which some range's charges cannot be told in one message, and the range's partition. A range is one part and
    /// cannot be divided once it is promised.
    pub fn too_large(&self, outputs: &Outputs) -> Option<(&str, Partition)> {
        let largest = outputs
            .charges
            .iter()
            .map(|(partition, charges)| (charges.iter().map(charge_bytes).sum::<usize>(), *partition))
            .max()?;
        let sink = self.grpc.iter().min_by_key(|sink| sink.settings.message_bytes_max)?;
        (largest.0 + PART_HEAD > fits(sink)).then_some((&sink.settings.name, largest.1))
    }

    /// Every range reaches every sink, with charges or without: the receiver's cursors tile the log.
    fn messages(&self, sink: &Grpc, delivery: &Delivery) -> Vec<Vec<(Partition, Part)>> {
        let begins = delivery.begins.iter().filter(|(_, id)| *id == sink.id);
        let begins: BTreeSet<Partition> = begins.map(|(partition, _)| *partition).collect();
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut parts = Vec::new();
        for output in delivery.shipments.iter().flat_map(|shipment| {
            shipment
                .outputs
                .ranges
                .iter()
                .map(|range| (&shipment.outputs, range.range))
        }) {
            let (outputs, range) = output;
            let charges = outputs.charges.get(&range.partition).cloned().unwrap_or_default();
            let part = Part {
                topic: self.pipeline.sources[usize::from(range.partition.topic)].topic.clone(),
                partition: range.partition.partition,
                start: range.start,
                end: range.end,
                digest: charges_digest(&charges),
                charges,
                first: begins.contains(&range.partition),
            };
            let length = part.encoded_len() + 16;
            if bytes + length > fits(sink) && !parts.is_empty() {
                messages.push(std::mem::take(&mut parts));
                bytes = 0;
            }
            bytes += length;
            parts.push((range.partition, part));
        }
        if !parts.is_empty() {
            messages.push(parts);
        }
        messages
    }

    /// Repeats one message until the sink answers: its cursor makes that harmless, and a sink that is down is waited for.
    async fn send(&self, sink: &Grpc, parts: Vec<(Partition, Part)>) -> Vec<(Partition, StopCode)> {
        let mut impossible = Vec::new();
        let mut pause = RETRY_FIRST;
        loop {
            let request = DeliverRequest {
                pipeline: self.pipeline.name.clone(),
                parts: parts.iter().map(|(_, part)| part.clone()).collect(),
            };
            let mut request = tonic::Request::new(request);
            request.set_timeout(CALL_TIMEOUT);
            let began = std::time::Instant::now();
            here(Point::CallUnsent);
            here(Point::CallSent);
            match sink.client.clone().deliver(request).await {
                Ok(answer) if answer.get_ref().outcomes.len() == parts.len() => {
                    here(Point::CallAnswered);
                    self.metrics.delivered(&sink.settings.name, began.elapsed());
                    self.health.part(&sink.settings.name).ready(true, "");
                    judge(sink, &parts, &answer.into_inner().outcomes, &mut impossible);
                    return impossible;
                }
                Ok(_) => tracing::error!(
                    sink = sink.settings.name,
                    "the sink answered another number of parts than it got"
                ),
                Err(status) => {
                    tracing::warn!(sink = sink.settings.name, %status, "gRPC sink does not answer; trying again");
                    self.health.part(&sink.settings.name).ready(false, status.message());
                }
            }
            self.metrics.delivery_failed(&sink.settings.name);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

/// Notes which partitions the sink can never take.
fn judge(
    sink: &Grpc,
    parts: &[(Partition, Part)],
    outcomes: &[proto::delivery::v1::Outcome],
    impossible: &mut Vec<(Partition, StopCode)>,
) {
    for ((partition, part), outcome) in parts.iter().zip(outcomes) {
        let (what, code) = match outcome.kind() {
            Kind::Applied | Kind::AlreadyApplied => continue,
            Kind::Gap => ("gap", StopCode::SinkGap),
            Kind::Conflict | Kind::Unspecified => ("conflict", StopCode::SinkConflict),
        };
        let (sink, topic, reason) = (&sink.settings.name, &part.topic, &outcome.reason);
        tracing::error!(sink, topic, partition = part.partition, reason, "{what}");
        impossible.push((*partition, code));
    }
}
