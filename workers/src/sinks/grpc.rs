//! gRPC sinks: ranges with their charges, repeated until they are answered; and up to where a sink has got them.

use std::collections::BTreeSet;

use crash_points::{Point, here};
use exactly_once_protocol::{Cursor, Delivered, Partition, Range, StopCode, sink_id};
use pipeline::{GrpcSink, Pipeline};
use prost::Message as _;
use prost::bytes::{BufMut as _, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use proto::delivery::v1::delivery_client::DeliveryClient;
use proto::delivery::v1::outcome::Kind;
use proto::delivery::v1::{DeliverRequest, DeliverResponse, GetCursorsRequest, Outcome, Part, Source};
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::ProstDecoder;

use super::{Delivery, RETRY_FIRST, RETRY_MAX, Sinks};
use crate::charges::Charges;
use crate::endpoint::{EndpointError, endpoint};
use crate::transform::Outputs;
use crate::witnesses::WitnessError;

/// A gRPC call that takes longer is repeated: the receiver answers `already applied` if it had worked.
const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// A part without its charges has no more bytes than this: a topic's name of 249, a digest, numbers.
const PART_HEAD: usize = 512;

/// How many bytes of parts go into one message: room is left for what stands around them.
fn fits(sink: &GrpcSink) -> usize {
    sink.message_bytes_max / 10 * 9
}

/// Of the field `parts` in `DeliverRequest` (`delivery.proto`).
const PARTS: u32 = 2;

/// A request that is written already, as often as it has to be sent.
struct Written {
    /// Whose parts it has, in its order.
    parts: Vec<Range>,
    /// A `DeliverRequest`.
    bytes: Bytes,
}

/// Requests go out as they were written.
struct AsWritten;

impl Codec for AsWritten {
    type Encode = Bytes;
    type Decode = DeliverResponse;
    type Encoder = AsWritten;
    type Decoder = ProstDecoder<DeliverResponse>;

    fn encoder(&mut self) -> AsWritten {
        AsWritten
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for AsWritten {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, written: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(written.len());
        into.put(written);
        Ok(())
    }
}

/// One gRPC sink.
pub(super) struct Grpc {
    settings: GrpcSink,
    /// How promises and marks name it.
    id: u64,
    client: DeliveryClient<Channel>,
    /// For requests that are written already.
    channel: tonic::client::Grpc<Channel>,
}

impl Grpc {
    /// Connects lazily.
    pub(super) fn new(settings: &GrpcSink) -> Result<Grpc, EndpointError> {
        let endpoint = endpoint(&settings.url, settings.tls.as_ref())?;
        let channel = endpoint.connect_lazy();
        let client = DeliveryClient::new(channel.clone())
            .max_encoding_message_size(settings.message_bytes_max)
            .max_decoding_message_size(settings.message_bytes_max);
        let channel = tonic::client::Grpc::new(channel)
            .max_encoding_message_size(settings.message_bytes_max)
            .max_decoding_message_size(settings.message_bytes_max);
        Ok(Grpc {
            settings: settings.clone(),
            id: sink_id(&settings.name),
            client,
            channel,
        })
    }

    /// `Delivery.Deliver`.
    async fn deliver(&self, request: Bytes) -> Result<DeliverResponse, Status> {
        let mut channel = self.channel.clone();
        let ready = channel.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = tonic::Request::new(request);
        request.set_timeout(CALL_TIMEOUT);
        let method = PathAndQuery::from_static("/sluice.delivery.v1.Delivery/Deliver");
        Ok(channel.unary(request, method, AsWritten).await?.into_inner())
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

/// Every range reaches every sink, with charges or without: the receiver's cursors tile the log. `begins`: partitions of which the
/// sink gets the first range ever.
fn messages<'a>(
    pipeline: &Pipeline,
    sink: &GrpcSink,
    outputs: impl Iterator<Item = &'a Outputs>,
    begins: &BTreeSet<Partition>,
) -> Vec<Written> {
    let empty = || DeliverRequest {
        pipeline: pipeline.name.clone(),
        parts: Vec::new(),
    };
    let none = Charges::default();
    let mut messages = Vec::new();
    let (mut parts, mut bytes) = (Vec::new(), empty().encode_to_vec());
    for outputs in outputs {
        for range in outputs.ranges.iter().map(|output| output.range) {
            let charges = outputs.charges.get(&range.partition).unwrap_or(&none);
            let head = Part {
                topic: pipeline.sources[usize::from(range.partition.topic)].topic.clone(),
                partition: range.partition.partition,
                start: range.start,
                end: range.end,
                digest: charges.digest().to_vec(),
                charges: Vec::new(),
                first: begins.contains(&range.partition),
            };
            // A message's fields may come in any order: the charges, which are written already, stand behind the others.
            let length = head.encoded_len() + charges.written().len();
            let field = 1 + encoded_len_varint(length as u64) + length;
            if bytes.len() + field > fits(sink) && !parts.is_empty() {
                messages.push(Written {
                    parts: std::mem::take(&mut parts),
                    bytes: std::mem::replace(&mut bytes, empty().encode_to_vec()).into(),
                });
            }
            bytes.reserve(field);
            encode_key(PARTS, WireType::LengthDelimited, &mut bytes);
            encode_varint(length as u64, &mut bytes);
            head.encode_raw(&mut bytes);
            bytes.extend_from_slice(charges.written());
            parts.push(range);
        }
    }
    if !parts.is_empty() {
        let bytes = bytes.into();
        messages.push(Written { parts, bytes });
    }
    messages
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
        let begins = delivery.begins.iter().filter(|(_, id)| *id == sink.id);
        let begins: BTreeSet<Partition> = begins.map(|(partition, _)| *partition).collect();
        let outputs = delivery.shipments.iter().map(|shipment| &*shipment.outputs);
        for written in messages(&self.pipeline, &sink.settings, outputs, &begins) {
            impossible.extend(self.send(sink, &written).await);
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
            .map(|(partition, charges)| (charges.written().len(), *partition))
            .max()?;
        let sink = self.grpc.iter().min_by_key(|sink| sink.settings.message_bytes_max)?;
        (largest.0 + PART_HEAD > fits(&sink.settings)).then_some((&sink.settings.name, largest.1))
    }

    /// Repeats one message until the sink answers: its cursor makes that harmless, and a sink that is down is waited for.
    async fn send(&self, sink: &Grpc, written: &Written) -> Vec<(Partition, StopCode)> {
        let mut pause = RETRY_FIRST;
        loop {
            let began = std::time::Instant::now();
            here(Point::CallUnsent);
            here(Point::CallSent);
            match sink.deliver(written.bytes.clone()).await {
                Ok(answer) if answer.outcomes.len() == written.parts.len() => {
                    here(Point::CallAnswered);
                    self.metrics.delivered(&sink.settings.name, began.elapsed());
                    self.health.part(&sink.settings.name).ready(true, "");
                    return self.judge(sink, &written.parts, &answer.outcomes);
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

    /// Which partitions the sink can never take.
    fn judge(&self, sink: &Grpc, parts: &[Range], outcomes: &[Outcome]) -> Vec<(Partition, StopCode)> {
        let mut impossible = Vec::new();
        for (range, outcome) in parts.iter().zip(outcomes) {
            let (what, code) = match outcome.kind() {
                Kind::Applied | Kind::AlreadyApplied => continue,
                Kind::Gap => ("gap", StopCode::SinkGap),
                Kind::Conflict | Kind::Unspecified => ("conflict", StopCode::SinkConflict),
            };
            let Partition { topic, partition } = range.partition;
            let topic = &self.pipeline.sources[usize::from(topic)].topic;
            let (sink, reason) = (&sink.settings.name, &outcome.reason);
            tracing::error!(sink, topic, partition, reason, "{what}");
            impossible.push((range.partition, code));
        }
        impossible
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use exactly_once_protocol::RangeOutput;
    use proto::delivery::v1::Charge;

    use super::*;

    const PIPELINE: &str = "
pipeline: shop
start: earliest
event: {id: event_id, tenant: tenant_id, time: occurred_at}
sources:
  - {topic: orders, table: orders}
";

    fn charge(offset: i64) -> Charge {
        Charge {
            id: format!("orders/0/{offset}/0"),
            meter: "revenue".repeat(20),
            quantity: offset,
            offset,
            ..Charge::default()
        }
    }

    /// One range of each partition with so many charges, and the parts that a sink has to get.
    fn outputs(counts: &[i64]) -> (Outputs, Vec<Part>) {
        let (mut outputs, mut parts) = (Outputs::default(), Vec::new());
        for (number, count) in (0..).zip(counts) {
            let partition = Partition {
                topic: 0,
                partition: number,
            };
            let range = Range {
                partition,
                start: 5,
                end: 100_000,
            };
            let made: Vec<Charge> = (5..5 + count).map(charge).collect();
            let mut charges = Charges::default();
            for charge in &made {
                charges.push(charge);
            }
            parts.push(Part {
                topic: "orders".to_owned(),
                partition: number,
                start: range.start,
                end: range.end,
                digest: charges.digest().to_vec(),
                charges: made,
                first: number == 2,
            });
            if *count > 0 {
                outputs.charges.insert(partition, charges);
            }
            outputs.ranges.push(RangeOutput {
                range,
                outputs: 0,
                digest: 0,
                unknown_schemas: Vec::new(),
                summed: false,
            });
        }
        (outputs, parts)
    }

    /// What a sink with this limit gets of two shipments, message by message.
    fn requests(counts: &[i64], message_bytes_max: usize) -> (Vec<DeliverRequest>, Vec<Part>) {
        let pipeline = pipeline::check("pipeline.yaml", PIPELINE, Path::new(".")).unwrap();
        let sink = GrpcSink {
            name: "billing".to_owned(),
            url: "http://localhost:1".to_owned(),
            message_bytes_max,
            tls: None,
        };
        let begins = BTreeSet::from([Partition { topic: 0, partition: 2 }]);
        let (outputs, expected) = outputs(counts);
        let written = messages(&pipeline, &sink, [&outputs, &Outputs::default()].into_iter(), &begins);
        let read = |written: Written| {
            assert!(written.bytes.len() <= message_bytes_max);
            let request = DeliverRequest::decode(written.bytes).unwrap();
            assert_eq!(request.pipeline, "shop");
            let of = |part: &Part| (part.partition, part.start, part.end);
            let ranges = written
                .parts
                .iter()
                .map(|range| (range.partition.partition, range.start, range.end));
            assert!(ranges.eq(request.parts.iter().map(of)));
            request
        };
        (written.into_iter().map(read).collect(), expected)
    }

    #[test]
    fn what_is_written_are_requests_with_every_range() {
        // Lengths of one, two and three bytes, and a range without charges.
        let (requests, expected) = requests(&[1, 0, 3, 200], 1 << 20);
        let [request] = &requests[..] else {
            panic!("{} messages", requests.len());
        };
        assert_eq!(request.parts, expected);
    }

    #[test]
    fn what_one_message_does_not_take_goes_into_the_next() {
        // Both parts with charges do not fit together; the limit is taken from what they need.
        let (_, all) = requests(&[10, 0, 10, 0], 1 << 20);
        let all = DeliverRequest {
            pipeline: "shop".to_owned(),
            parts: all,
        };
        let (requests, expected) = requests(&[10, 0, 10, 0], all.encoded_len());
        let parts: Vec<usize> = requests.iter().map(|request| request.parts.len()).collect();
        assert_eq!(parts, [2, 2]);
        let together: Vec<Part> = requests.into_iter().flat_map(|request| request.parts).collect();
        assert_eq!(together, expected);
    }

    #[test]
    fn without_ranges_there_is_nothing_to_send() {
        assert!(requests(&[], 1 << 20).0.is_empty());
    }
}
