//! What crosses a process boundary: the gRPC contracts (generated from `sluice/**/*.proto`) and the Avro schemas of the
//! example events (`avro/*.avsc`). The only types that two programs share.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// How ranges of events are handed to a gRPC service exactly once.
pub mod delivery {
    /// Version 1 of the delivery contract.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("sluice.delivery.v1");
    }
}

/// The rules service: immutable revisions of all tenants' rules.
pub mod config {
    /// Version 1 of the rules service.
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("sluice.config.v1");
    }
}

/// The Avro schemas of the example events.
pub mod events;

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::{config, delivery};

    #[test]
    fn the_services_keep_their_names() {
        assert_eq!(
            delivery::v1::delivery_server::SERVICE_NAME,
            "sluice.delivery.v1.Delivery"
        );
        assert_eq!(delivery::v1::billing_server::SERVICE_NAME, "sluice.delivery.v1.Billing");
        assert_eq!(config::v1::config_server::SERVICE_NAME, "sluice.config.v1.Config");
    }

    /// Services of other people parse these bytes: a field that changes its number or type must not pass unseen.
    #[test]
    fn a_delivery_keeps_its_bytes() {
        let charge = delivery::v1::Charge {
            id: "t/1/7/0".to_owned(),
            tenant: "acme".to_owned(),
            meter: "revenue".to_owned(),
            unit: "EUR".to_owned(),
            quantity: -1,
            scale: 2,
            event_time_ms: 3,
            event_id: "e".to_owned(),
            rule: "bill".to_owned(),
            rules_revision: 4,
            offset: 7,
        };
        let part = delivery::v1::Part {
            topic: "t".to_owned(),
            partition: 1,
            start: 5,
            end: 9,
            digest: vec![0xab; 2],
            charges: vec![charge],
            first: true,
        };
        let request = delivery::v1::DeliverRequest {
            pipeline: "p".to_owned(),
            parts: vec![part],
        };
        let expected = b"\x0a\x01p\x12\x4a\x0a\x01t\x10\x01\x18\x05\x20\x09\x2a\x02\xab\xab\x32\x39\
            \x0a\x07t/1/7/0\x12\x04acme\x1a\x07revenue\x22\x03EUR\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x30\x02\
            \x38\x03\x42\x01e\x4a\x04bill\x50\x04\x58\x07\x38\x01";
        assert_eq!(request.encode_to_vec(), expected);
        assert_eq!(
            delivery::v1::DeliverRequest::decode(&expected[..]).expect("decodes"),
            request
        );

        let outcome = delivery::v1::Outcome {
            kind: 4,
            cursor: -1,
            reason: "r".to_owned(),
        };
        assert_eq!(
            outcome.encode_to_vec(),
            b"\x08\x04\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x1a\x01r"
        );
        assert_eq!(outcome.kind(), delivery::v1::outcome::Kind::Gap);
    }

    #[test]
    fn an_absent_base_is_not_revision_zero() {
        let put = |base| {
            config::v1::PutRulesRequest {
                base,
                ..Default::default()
            }
            .encode_to_vec()
        };
        assert_eq!(put(None), b"");
        assert_eq!(put(Some(0)), b"\x18\x00");
    }
}
