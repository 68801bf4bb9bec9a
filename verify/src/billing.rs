//! The billing service: its charges, its cursors, its sums.

use std::collections::BTreeMap;

use pipeline::Tls;
use proto::delivery::v1::billing_client::BillingClient;
use proto::delivery::v1::delivery_client::DeliveryClient;
use proto::delivery::v1::{Charge, GetCursorsRequest, GetUsageRequest, ListChargesRequest, Source};
use tonic::transport::Channel;

use crate::cell::hash_of;
use crate::endpoint::endpoint;
use crate::error::Error;
use crate::kafka::Range;
use crate::ledger::Content;

/// What is kept of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedCharge {
    hash: u128,
}

impl ExpectedCharge {
    pub fn new(charge: &Charge) -> ExpectedCharge {
        // Every field by name: one that is added to the message will not compile past this line unnoticed.
        let Charge {
            id,
            tenant,
            meter,
            unit,
            quantity,
            scale,
            event_time_ms,
            event_id,
            rule,
            rules_revision,
            offset,
        } = charge;
        let numbers = format!("{quantity}/{scale}/{event_time_ms}/{rules_revision}/{offset}");
        let texts = [id, tenant, meter, unit, event_id, rule, &numbers];
        ExpectedCharge {
            hash: hash_of(&texts.map(|text| text.as_bytes())),
        }
    }
}

impl Content for ExpectedCharge {
    type Found = Charge;

    fn difference(&self, found: &Charge) -> Option<String> {
        (*self != ExpectedCharge::new(found)).then(|| format!("found {found:?}"))
    }
}

/// A connection to the service.
pub struct Billing {
    client: BillingClient<Channel>,
    delivery: DeliveryClient<Channel>,
    pipeline: String,
}

fn failed(doing: String) -> impl Fn(tonic::Status) -> Error {
    move |status| Error::Billing {
        doing: doing.clone(),
        reason: status.to_string(),
    }
}

impl Billing {
    /// `message_bytes_max`: of one answer.
    pub async fn connect(
        url: &str,
        tls: Option<&Tls>,
        pipeline: &str,
        message_bytes_max: usize,
    ) -> Result<Billing, Error> {
        let bad = |reason: String| Error::Billing {
            doing: format!("connecting to {url}"),
            reason,
        };
        let endpoint = endpoint(url, tls).map_err(&bad)?;
        let channel = endpoint.connect().await.map_err(|error| bad(error.to_string()))?;
        let delivery = DeliveryClient::new(channel.clone());
        let client = BillingClient::new(channel).max_decoding_message_size(message_bytes_max);
        Ok(Billing {
            client,
            delivery,
            pipeline: pipeline.to_owned(),
        })
    }

    /// Hands every charge of the range to `each`.
    pub async fn charges(&mut self, topic: &str, range: Range, mut each: impl FnMut(Charge)) -> Result<(), Error> {
        let failed = failed(format!("listing the charges of {topic}/{}", range.partition));
        let request = ListChargesRequest {
            pipeline: self.pipeline.clone(),
            topic: topic.to_owned(),
            partition: range.partition,
            start: range.start,
            end: range.end,
        };
        let mut stream = self.client.list_charges(request).await.map_err(&failed)?.into_inner();
        while let Some(charge) = stream.message().await.map_err(&failed)? {
            each(charge);
        }
        Ok(())
    }

    /// The end of what the service has applied; `None` = nothing.
    pub async fn cursor(&mut self, topic: &str, partition: i32) -> Result<Option<i64>, Error> {
        let topic = topic.to_owned();
        let asking = failed(format!("asking for the cursor of {topic}/{partition}"));
        let request = GetCursorsRequest {
            pipeline: self.pipeline.clone(),
            sources: vec![Source { topic, partition }],
        };
        let answer = self.delivery.get_cursors(request).await.map_err(asking)?;
        Ok(answer.into_inner().cursors.first().and_then(|cursor| cursor.offset))
    }

    /// Quantity and number of all charges of these tenants and meters.
    pub async fn usage(
        &mut self,
        of: impl Iterator<Item = &(String, String)>,
    ) -> Result<BTreeMap<(String, String), (i128, u64)>, Error> {
        let mut usage = BTreeMap::new();
        for (tenant, meter) in of {
            let request = GetUsageRequest {
                tenant: tenant.clone(),
                meter: meter.clone(),
                from_ms: i64::MIN,
                to_ms: i64::MAX,
            };
            let answer = self.client.get_usage(request).await;
            let answer = answer
                .map_err(failed(format!("asking for the usage of {tenant}, {meter}")))?
                .into_inner();
            usage.insert(
                (tenant.clone(), meter.clone()),
                (i128::from(answer.quantity), answer.charges),
            );
        }
        Ok(usage)
    }
}
