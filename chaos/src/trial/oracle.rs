//! What has to hold in the end, whatever happened.

use std::collections::BTreeSet;
use std::time::Duration;

use devstack::Part;
use end_to_end::Reader;

use super::{Outcome, Trial, WORKERS};
use crate::driver::{Driven, Driver};
use crate::proxy::Proxy;

/// For the verifier to read everything.
const VERIFIED_WITHIN: Duration = Duration::from_secs(300);

impl Trial<'_, '_> {
    /// Everything passes, runs and answers again.
    async fn heal(&mut self) {
        self.fronts.heal();
        self.billing.inject(None).unwrap();
        self.scenario.stack.mend(&Part::ALL).await.unwrap();
        let running = self.scenario.running();
        for worker in WORKERS {
            if running.iter().any(|role| role == worker) {
                self.scenario.thaw(worker).await;
            } else {
                self.scenario.start_worker(worker).await;
            }
        }
    }

    /// No proxy has seen anything that it could not make sense of.
    fn proxies_understood(&self) {
        let proxies = self.fronts.all().chain([&self.billing]);
        let troubles: Vec<String> = proxies.filter_map(Proxy::trouble).collect();
        assert!(
            troubles.is_empty(),
            "a proxy did not understand what passed: {troubles:?}"
        );
    }

    /// Heals everything, waits until the lag is 0, and compares every sink with the log.
    ///
    /// # Panics
    /// When the lag does not go away in time, or anything is lost, doubled, altered or unexpected.
    pub async fn end(mut self, driver: Driver, reader: Reader) -> Outcome {
        self.heal().await;
        self.recovered().await;
        let driven = driver.finish().await;
        self.recovered().await;
        self.proxies_understood();
        let report = self.verified(&driven).await;
        let read = reader.finished();
        let once: BTreeSet<&String> = read.iter().collect();
        assert_eq!(once.len(), read.len(), "the reader of committed alerts saw one twice");
        assert_eq!(
            read.len() as u64,
            report.alerts,
            "the reader of committed alerts saw all"
        );
        let events = "sluice_verify_events_total";
        self.scenario
            .metric_reaches("verifier", events, report.produced as f64)
            .await;
        // Retention takes nothing here: what the verifier had not read would be what nobody has verified on the way.
        for found in ["sluice_verify_differences_total", "sluice_verify_unread_events_total"] {
            let count = self.scenario.metric("verifier", found, &[]).await;
            assert!(count == 0.0, "the verifier that ran along counts {found}: {count}");
        }
        Outcome {
            events: report.produced,
            faults: self.faults,
            recovered_s_max: self.recovered_max.as_secs_f64(),
            flowing_s: self.flowing.map(|flowing| flowing.as_secs_f64()),
            outputs: report.clickhouse_rows + report.alerts + report.charges + report.dead_letters,
            ranges: report.ranges,
        }
    }

    async fn verified(&self, driven: &Driven) -> verify::Report {
        let seconds = VERIFIED_WITHIN.as_secs().to_string();
        let said = self.scenario.sluice(&["verify", "--json", "--settle", &seconds]).await;
        let report: verify::Report = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert!(report.clean(), "{report}");
        assert_eq!(
            report.produced,
            driven.records() + self.more_records,
            "records in the log\n{report}"
        );
        assert!(report.ranges > 0, "the audit has ranges\n{report}");
        report
    }
}
