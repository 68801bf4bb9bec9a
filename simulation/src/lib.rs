//! The exactly-once protocol, as it runs in production, against simulated Kafka, ClickHouse and billing: one thread, one
//! seed. `tests/world` has the world.
