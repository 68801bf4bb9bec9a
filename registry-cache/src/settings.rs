//! Where the registry is and how much to keep of it.

use std::path::PathBuf;
use std::time::Duration;

/// Certificate and key of this client, PEM.
#[derive(Clone)]
pub struct Identity {
    /// Certificate chain followed by the private key, PEM.
    pub pem: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// How to reach the registry and how much to keep. Every default is in [`Settings::new`].
#[derive(Clone)]
pub struct Settings {
    /// Base of the Confluent API: `http://host:8081`, or Apicurio's `http://host:8080/apis/ccompat/v7`.
    pub url: String,
    /// HTTP basic authentication.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// Trusted certificate authorities, PEM; none = those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// Certificate of this client, where the registry asks for one.
    pub identity: Option<Identity>,
    /// Schemas kept in memory; the least recently used goes first. Those on disk are not bounded: a registry has thousands.
    pub entries_max: u64,
    /// After this a schema in memory is checked against the registry, in the background.
    pub ttl: Duration,
    /// How long a definite "unknown" or "unusable" is remembered, and how long to leave an unreachable registry alone between two
    /// background checks of one schema. Short: an unknown id may be registered at any moment.
    pub pause: Duration,
    /// Where schemas survive a restart; none = they don't.
    pub snapshot_dir: Option<PathBuf>,
    /// For a whole request; connecting gets at most a third of it.
    pub timeout: Duration,
}

impl Settings {
    /// The defaults: 1,000 entries, 10 minutes, 1 second's pause, 3 seconds' timeout, no credentials, no snapshot.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            user: None,
            password: None,
            ca_pem: None,
            identity: None,
            entries_max: 1_000,
            ttl: Duration::from_secs(600),
            pause: Duration::from_secs(1),
            snapshot_dir: None,
            timeout: Duration::from_secs(3),
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.url)
            .field("user", &self.user)
            .field("entries_max", &self.entries_max)
            .field("ttl", &self.ttl)
            .field("pause", &self.pause)
            .field("snapshot_dir", &self.snapshot_dir)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
