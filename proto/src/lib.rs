//! What crosses a process boundary: the gRPC contracts (generated from `sluice/**/*.proto`) and the Avro schemas of the
//! example events (`avro/*.avsc`). The only types that two programs share.

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
