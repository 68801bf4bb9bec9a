//! The contract on a real registry: the one at `SLUICE_TEST_REGISTRY` (base URL of the Confluent API), else one that devstack
//! starts for this test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/contract.rs"]
mod contract;

use std::time::{SystemTime, UNIX_EPOCH};

#[tokio::test]
async fn a_real_registry_keeps_the_contract() {
    let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let prefix = format!("contract-{run}");
    if let Ok(url) = std::env::var("SLUICE_TEST_REGISTRY") {
        return contract::check(&url, &prefix).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut options = devstack::Options::for_tests(dir.path());
    options.parts = vec![devstack::Part::Registry];
    let stack = devstack::up(options).await.unwrap();
    contract::check(&stack.registry, &prefix).await;
    stack.down().await.unwrap();
}
