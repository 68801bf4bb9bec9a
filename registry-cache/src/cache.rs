//! The cache: what is known, when it is checked, and what is answered while the registry is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::client::{Client, Registered};
use crate::snapshot::{Snapshot, StoredSchema, StoredSubject};
use crate::{Error, Schema, Settings};

/// Definite "no" answers remembered at once; bounded because ids of broken events are arbitrary.
const DEFINITE_MAX: u64 = 10_000;
/// Subjects whose versions are kept in memory.
const SUBJECTS_MAX: u64 = 1_000;
/// Ids are a Java `int` in every registry: what is larger was never given out, and asking would be answered in many ways.
const ID_MAX: u32 = i32::MAX as u32;

/// Schemas by id and by subject. A clone is the same cache.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

/// What has happened so far; every number only grows, but for `entries`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Questions sent to the registry about ids and subjects.
    pub requests: u64,
    /// Of these, how many got no proper answer.
    pub unreachable: u64,
    /// Answers that gave a known id another schema. Above 0 somebody must look: the known schema went on being used.
    pub conflicts: u64,
    /// Snapshot files that could not be used.
    pub spoiled: u64,
    /// Snapshot files that could not be written.
    pub unwritten: u64,
    /// Schemas in memory now.
    pub entries: u64,
}

struct Inner {
    client: Client,
    snapshot: Option<Arc<Snapshot>>,
    known: Cache<u32, Arc<Entry>>,
    definite: Cache<u32, Error>,
    subjects: Cache<String, Arc<Vec<u32>>>,
    ttl: Duration,
    pause: Duration,
    opened: Instant,
    requests: AtomicU64,
    unreachable: AtomicU64,
    conflicts: AtomicU64,
}

struct Entry {
    schema: Arc<Schema>,
    /// When it is to be checked next, in ms since `opened`. Whoever moves it on does the check: one at a time.
    due_ms: AtomicU64,
}

impl Registry {
    /// Makes the client and the snapshot directory. Asks nothing yet: a registry that is down doesn't stop a start.
    ///
    /// # Errors
    /// [`Error::Settings`] when the url, a certificate or the directory cannot be used.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let client = Client::new(&settings)?;
        let snapshot = match &settings.snapshot_dir {
            None => None,
            Some(dir) => Some(Arc::new(Snapshot::open(dir, client.address()).map_err(|error| {
                Error::Settings {
                    reason: format!("snapshot directory {}: {error}", dir.display()),
                }
            })?)),
        };
        let inner = Inner {
            client,
            snapshot,
            known: Cache::builder()
                .max_capacity(settings.entries_max.max(1))
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            definite: Cache::builder()
                .max_capacity(DEFINITE_MAX)
                .time_to_live(settings.pause)
                .build(),
            subjects: Cache::new(SUBJECTS_MAX),
            ttl: settings.ttl,
            pause: settings.pause,
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            unreachable: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The schema of an id, as events carry it. From memory, else from disk, else from the registry; many callers that miss the
    /// same id cause one request.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: wait. [`Error::Unknown`], [`Error::Unusable`]: definite for the moment (`pause`).
    /// [`Error::Refused`]: an operator has to act.
    pub async fn schema(&self, id: u32) -> Result<Arc<Schema>, Error> {
        if id > ID_MAX {
            return Err(Error::Unknown { id });
        }
        if let Some(error) = self.inner.definite.get(&id).await {
            return Err(error);
        }
        let entry = match self.inner.known.get(&id).await {
            Some(entry) => entry,
            None => self
                .inner
                .known
                .try_get_with(id, self.inner.load(id))
                .await
                .map_err(|error: Arc<Error>| Error::clone(&error))?,
        };
        self.check_when_due(&entry);
        Ok(entry.schema.clone())
    }

    /// Every version of a subject, oldest first. Always asks the registry, because a new version matters at once; while it is
    /// unreachable, what was last seen is answered.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when nothing was ever seen of the subject, [`Error::UnknownSubject`], [`Error::Unusable`],
    /// [`Error::Refused`].
    pub async fn versions(&self, subject: &str) -> Result<Vec<Arc<Schema>>, Error> {
        match self.inner.fetch_versions(subject).await {
            Err(away @ Error::Unreachable { .. }) => {
                let ids = self.inner.last_seen(subject).await.ok_or(away)?;
                let mut schemas = Vec::with_capacity(ids.len());
                for &id in ids.iter() {
                    schemas.push(self.schema(id).await?);
                }
                Ok(schemas)
            }
            answered => answered,
        }
    }

    /// The same as the registry has them now, and nothing else: what is to be concluded from a version that is missing.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::UnknownSubject`], [`Error::Unusable`], [`Error::Refused`].
    pub async fn versions_now(&self, subject: &str) -> Result<Vec<Arc<Schema>>, Error> {
        self.inner.fetch_versions(subject).await
    }

    /// Registers a schema text and answers its id; the same text again answers the same id.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 409 when it is not compatible, 422 when it is no Avro schema; [`Error::Unreachable`].
    pub async fn register(&self, subject: &str, text: &str) -> Result<u32, Error> {
        self.inner.client.register(subject, text).await
    }

    /// Whether a text could be the subject's next version. True for a subject without versions.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is no Avro schema; [`Error::Unreachable`].
    pub async fn compatible(&self, subject: &str, text: &str) -> Result<bool, Error> {
        self.inner.client.compatible(subject, text).await
    }

    /// Sets what a next version must satisfy, for a subject or (none) for all: `BACKWARD`, `FULL_TRANSITIVE`, `NONE`, …
    /// With Apicurio a subject's `NONE` does not override a stricter global level.
    ///
    /// # Errors
    /// [`Error::Refused`] for an unknown level; [`Error::Unreachable`].
    pub async fn set_compatibility(&self, subject: Option<&str>, level: &str) -> Result<(), Error> {
        self.inner.client.set_compatibility(subject, level).await
    }

    /// What has happened so far, for metrics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let of_snapshot = |pick: fn(&Snapshot) -> &AtomicU64| {
            self.inner
                .snapshot
                .as_ref()
                .map_or(0, |snapshot| pick(snapshot).load(Ordering::Relaxed))
        };
        Counts {
            requests: self.inner.requests.load(Ordering::Relaxed),
            unreachable: self.inner.unreachable.load(Ordering::Relaxed),
            conflicts: self.inner.conflicts.load(Ordering::Relaxed),
            spoiled: of_snapshot(|snapshot| &snapshot.spoiled),
            unwritten: of_snapshot(|snapshot| &snapshot.unwritten),
            entries: self.inner.known.entry_count(),
        }
    }

    fn check_when_due(&self, entry: &Arc<Entry>) {
        let now_ms = self.inner.now_ms();
        let due_ms = entry.due_ms.load(Ordering::Relaxed);
        if now_ms < due_ms {
            return;
        }
        let next_ms = now_ms + as_ms(self.inner.pause);
        // Losing this race means that another caller has the check in hand.
        if entry
            .due_ms
            .compare_exchange(due_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            let (inner, entry) = (self.inner.clone(), entry.clone());
            tokio::spawn(async move { inner.check(&entry).await });
        }
    }
}

impl Inner {
    fn now_ms(&self) -> u64 {
        as_ms(self.opened.elapsed())
    }

    /// For an id that is not in memory. Disk before registry: a restart during an outage must not pay a timeout for each id,
    /// and what the disk has is checked soon after (`due_ms` is 0).
    async fn load(&self, id: u32) -> Result<Arc<Entry>, Error> {
        if let Some(schema) = self.on_disk(id).await {
            return Ok(Arc::new(Entry {
                schema: Arc::new(schema),
                due_ms: AtomicU64::new(0),
            }));
        }
        let fetched = self.count(self.fetch(id).await);
        match fetched {
            Ok(schema) => {
                self.keep(&schema).await;
                Ok(self.entry(Arc::new(schema)))
            }
            Err(error) => {
                if matches!(error, Error::Unknown { .. } | Error::Unusable { .. }) {
                    self.definite.insert(id, error.clone()).await;
                }
                Err(error)
            }
        }
    }

    fn entry(&self, schema: Arc<Schema>) -> Arc<Entry> {
        Arc::new(Entry {
            schema,
            due_ms: AtomicU64::new(self.now_ms() + as_ms(self.ttl)),
        })
    }

    /// Asks again about a known id. Nothing it can hear changes what the id means; it finds out whether the registry still agrees.
    async fn check(&self, entry: &Entry) {
        let id = entry.schema.id;
        match self.count(self.fetch(id).await) {
            Ok(schema) => self.compare(&entry.schema, &schema),
            // Tried again after `pause`, which check_when_due has already set.
            Err(Error::Unreachable { .. }) => return,
            Err(error) => warn!(id, %error, "the registry no longer vouches for a known schema; going on with it"),
        }
        entry.due_ms.store(self.now_ms() + as_ms(self.ttl), Ordering::Relaxed);
    }

    fn compare(&self, known: &Schema, answered: &Schema) {
        if known.same_as(answered) {
            return;
        }
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        error!(
            id = known.id,
            registry = self.client.address(),
            snapshot = self
                .snapshot
                .as_ref()
                .map(|snapshot| snapshot.dir().display().to_string()),
            "the registry answers another schema for a known id; ids must never be reused, so the known schema stays in use. \
             If this registry was made anew, remove the snapshot directory and restart"
        );
    }

    fn count<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if matches!(answer, Err(Error::Unreachable { .. })) {
            self.unreachable.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    async fn fetch(&self, id: u32) -> Result<Schema, Error> {
        let registered = self.client.by_id(id).await?;
        self.parse(id, registered).await
    }

    async fn parse(&self, id: u32, registered: Registered) -> Result<Schema, Error> {
        match registered.schema_type.as_deref() {
            None | Some("AVRO") => {}
            Some(other) => {
                return Err(Error::Unusable {
                    id,
                    reason: format!("it is {other}, and only AVRO is read"),
                });
            }
        }
        let references = self.client.references(id, &registered).await?;
        Schema::parse(id, registered.schema, references)
    }

    async fn fetch_versions(&self, subject: &str) -> Result<Vec<Arc<Schema>>, Error> {
        let mut numbers = self.count(self.client.versions(subject).await)?;
        numbers.sort_unstable();
        let mut schemas: Vec<Arc<Schema>> = Vec::with_capacity(numbers.len());
        for number in numbers {
            let registered = self.count(self.client.version(subject, number).await)?;
            let id = registered.id.ok_or_else(|| Error::Unreachable {
                url: self.client.address().to_owned(),
                reason: format!("version {number} of {subject} came without an id"),
            })?;
            schemas.push(self.learn(self.parse(id, registered).await?).await);
        }
        let ids: Vec<u32> = schemas.iter().map(|schema| schema.id).collect();
        self.keep_subject(subject, ids).await;
        Ok(schemas)
    }

    /// Takes in a schema that came with a subject's versions. What an id already means, it goes on meaning.
    async fn learn(&self, schema: Schema) -> Arc<Schema> {
        let id = schema.id;
        let known = match self.known.get(&id).await {
            Some(entry) => Some(entry.schema.clone()),
            None => self.on_disk(id).await.map(Arc::new),
        };
        let schema = match known {
            Some(known) => {
                self.compare(&known, &schema);
                known
            }
            None => {
                self.keep(&schema).await;
                Arc::new(schema)
            }
        };
        // It may have been remembered as unknown a moment ago.
        self.definite.invalidate(&id).await;
        self.known.insert(id, self.entry(schema.clone())).await;
        schema
    }

    async fn last_seen(&self, subject: &str) -> Option<Arc<Vec<u32>>> {
        if let Some(ids) = self.subjects.get(subject).await {
            return Some(ids);
        }
        let (snapshot, subject) = (self.snapshot.clone()?, subject.to_owned());
        let stored = spawn_blocking(move || snapshot.subject(&subject)).await.ok()??;
        Some(Arc::new(stored.ids))
    }

    async fn on_disk(&self, id: u32) -> Option<Schema> {
        let snapshot = self.snapshot.clone()?;
        let stored = spawn_blocking(move || snapshot.schema(id)).await.ok()??;
        match Schema::parse(id, stored.text, stored.references) {
            Ok(schema) => Some(schema),
            Err(error) => {
                warn!(id, %error, "schema in the snapshot cannot be parsed; asking the registry");
                None
            }
        }
    }

    async fn keep(&self, schema: &Schema) {
        let Some(snapshot) = self.snapshot.clone() else { return };
        let stored = StoredSchema {
            id: schema.id,
            text: schema.text.clone(),
            references: schema.references.clone(),
        };
        joined(spawn_blocking(move || snapshot.keep_schema(&stored)).await);
    }

    async fn keep_subject(&self, subject: &str, ids: Vec<u32>) {
        if self.subjects.get(subject).await.is_some_and(|seen| *seen == ids) {
            return;
        }
        self.subjects.insert(subject.to_owned(), Arc::new(ids.clone())).await;
        let Some(snapshot) = self.snapshot.clone() else { return };
        let stored = StoredSubject {
            subject: subject.to_owned(),
            ids,
        };
        joined(spawn_blocking(move || snapshot.keep_subject(&stored)).await);
    }
}

/// A write that did not run to its end (the runtime is going down) is a copy not kept, no more.
fn joined(outcome: Result<(), tokio::task::JoinError>) {
    if let Err(error) = outcome {
        warn!(%error, "schema snapshot file not written");
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
