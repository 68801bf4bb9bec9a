//! Questions over HTTP, and asking again until a deadline.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// For a query that changes a table: mutations wait for merges, which run with little of the machine.
const QUERY_WITHIN: Duration = Duration::from_secs(120);

/// Looks until there is an answer.
///
/// # Panics
/// When there is none within `patience`; says what was waited for.
pub async fn until<T>(what: impl Debug, patience: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for {what:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// An HTTP client for this machine.
#[derive(Debug, Clone)]
pub struct Http(reqwest::Client);

impl Default for Http {
    fn default() -> Http {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Somebody else may install one at the same moment; either will do.
            if rustls::crypto::ring::default_provider().install_default().is_err() {}
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(Duration::from_secs(20))
            .build();
        Http(client.unwrap())
    }
}

impl Http {
    /// The body of an answer 200; `None` for any other, and when nobody answers.
    pub async fn get(&self, url: &str) -> Option<String> {
        let answer = self.0.get(url).send().await.ok()?;
        if answer.status() != 200 {
            return None;
        }
        answer.text().await.ok()
    }

    /// The body of any answer; `None` when nobody answers.
    pub async fn body(&self, url: &str) -> Option<String> {
        self.0.get(url).send().await.ok()?.text().await.ok()
    }

    /// What ClickHouse answers to a query, without the last line end.
    ///
    /// # Panics
    /// When it does not answer or refuses.
    pub async fn sql(&self, clickhouse: &str, query: &str) -> String {
        let asked = self.0.post(clickhouse).body(query.to_owned()).timeout(QUERY_WITHIN);
        let answer = asked.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, 200, "{query}\n{text}");
        text.trim_end_matches('\n').to_owned()
    }
}

/// The sum of a metric over those of its series that have all the labels; 0 when there is none.
pub(crate) fn metric(exposition: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted: Vec<String> = labels
        .iter()
        .map(|(label, value)| format!("{label}=\"{value}\""))
        .collect();
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with([' ', '{']) || !wanted.iter().all(|label| rest.contains(label.as_str())) {
            return None;
        }
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    };
    exposition.lines().filter_map(value).sum()
}
