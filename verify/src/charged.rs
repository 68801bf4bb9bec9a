//! Compares what the billing service holds: charges one by one, cursors with the ends of the log, sums with sums.

use pipeline::Pipeline;

use crate::billing::Billing;
use crate::error::Error;
use crate::judge::Ledgers;
use crate::ledger::{Content, Example, Ledger, Place};
use crate::options::{Options, Until};
use crate::report::SinkReport;
use crate::verified::Verified;

/// Charges, cursors and sums of the billing service.
pub async fn compare(
    pipeline: &Pipeline,
    options: &Options,
    url: &str,
    verified: &Verified,
    ledgers: &mut Ledgers,
) -> Result<Vec<(SinkReport, Vec<Example>)>, Error> {
    let sink = pipeline.sinks.grpc.iter().find(|sink| sink.name == "billing");
    let bytes_max = sink.map_or(32 << 20, |sink| sink.message_bytes_max);
    let mut billing = Billing::connect(url, sink.and_then(|sink| sink.tls.as_ref()), &pipeline.name, bytes_max).await?;
    let mut cursors = Ledger::new("billing cursors", options.examples_max);
    for (topic, (source, ranges)) in &verified.sources {
        for range in ranges.values().filter(|range| range.start < range.end) {
            let charges = &mut ledgers.charges;
            billing
                .charges(topic, *range, |charge| match verified.place_of_id(&charge.id) {
                    Some(Some(place)) => charges.found(place, &charge),
                    _ => charges.stray(format!("{charge:?}")),
                })
                .await?;
            let place = Place {
                source: *source,
                partition: range.partition,
                offset: range.end,
                index: 0,
            };
            cursors.expect(
                place,
                Cursor {
                    at_least: range.end,
                    settled: matches!(options.until, Until::Settled(_)),
                },
            );
            if let Some(cursor) = billing.cursor(topic, range.partition).await? {
                cursors.found(place, &cursor);
            }
        }
    }
    let mut reports = vec![cursors.finish()];
    if options.usage {
        let mut sums = Ledger::new("billing usage", options.examples_max);
        let found = billing.usage(ledgers.usage.keys()).await?;
        for (number, (key, expected)) in (0i64..).zip(&ledgers.usage) {
            let place = Place {
                source: u16::MAX,
                partition: 0,
                offset: number,
                index: 0,
            };
            sums.expect(
                place,
                Usage {
                    of: format!("{} {}", key.0, key.1),
                    sum: *expected,
                },
            );
            if let Some(found) = found.get(key) {
                sums.found(place, found);
            }
        }
        let (report, mut examples) = sums.finish();
        examples.iter_mut().for_each(|example| example.place = None);
        reports.push((report, examples));
    }
    Ok(reports)
}

struct Cursor {
    at_least: i64,
    settled: bool,
}

impl Content for Cursor {
    type Found = i64;

    fn difference(&self, found: &i64) -> Option<String> {
        let right = if self.settled {
            *found == self.at_least
        } else {
            *found >= self.at_least
        };
        (!right).then(|| format!("cursor is {found}, must be {}", self.at_least))
    }
}

struct Usage {
    of: String,
    sum: (i128, u64),
}

impl Content for Usage {
    type Found = (i128, u64);

    fn difference(&self, found: &(i128, u64)) -> Option<String> {
        let (quantity, charges) = self.sum;
        (self.sum != *found).then(|| {
            format!(
                "{}: {} in {} charges, must be {quantity} in {charges}",
                self.of, found.0, found.1
            )
        })
    }
}
