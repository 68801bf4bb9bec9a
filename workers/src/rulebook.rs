//! Where a worker has its rules from: the config service, a directory, or nowhere. Whatever revision it has adopted is
//! kept on disk, because a promise may name it after the service is gone or the directory has changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pipeline::RulesFrom;
use proto::config::v1::config_client::ConfigClient;
use proto::config::v1::{GetRevisionRequest, WatchRevisionsRequest};
use rules::{Catalog, Revision};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tonic::transport::Channel;

use crate::endpoint::{EndpointError, endpoint};

/// How often a directory of rules is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// File systems keep times in steps of up to two seconds.
const AT_REST: Duration = Duration::from_secs(3);

/// Between two tries to reach a config service that is away.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// File name and text of each document, sorted by file.
pub type Documents = Vec<(String, String)>;

/// Why there are no rules to begin with.
#[derive(Debug, Error)]
pub enum RulebookError {
    /// The directory or the state on disk cannot be read or written.
    #[error("rules at {path}: {error}")]
    Disk {
        /// Which path.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// The documents have faults; all of them are listed.
    #[error("the rules have {} fault(s):\n{}", .0.len(), list(.0))]
    Faults(Vec<document::Fault>),
    /// The pipeline file's address or certificates cannot be used.
    #[error("the rules service: {0}")]
    Address(EndpointError),
}

fn list(faults: &[document::Fault]) -> String {
    faults
        .iter()
        .map(|fault| format!("  {fault}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The rules service's answer.
enum Asked {
    Have(u64, Documents),
    /// It says that it has no such revision.
    Gone,
    /// It says nothing.
    Away,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    number: u64,
    digest: u64,
    documents: Documents,
}

/// See the module. Cheap to share.
pub struct Rulebook {
    from: RulesFrom,
    pipeline: String,
    state: PathBuf,
    client: Option<ConfigClient<Channel>>,
    memory: Mutex<BTreeMap<(u64, u64), Arc<Documents>>>,
}

impl Rulebook {
    /// Asks nobody yet, and writes nothing.
    pub fn open(from: RulesFrom, pipeline: &str, state_dir: &Path) -> Result<Rulebook, RulebookError> {
        let state = state_dir.join("rules").join(pipeline);
        let client = match &from {
            RulesFrom::Service { url, tls } => {
                let endpoint = endpoint(url, tls.as_ref()).map_err(RulebookError::Address)?;
                let client = ConfigClient::new(endpoint.connect_lazy());
                Some(client.max_decoding_message_size(usize::MAX))
            }
            RulesFrom::Dir(_) | RulesFrom::None => None,
        };
        Ok(Rulebook {
            from,
            pipeline: pipeline.to_string(),
            state,
            client,
            memory: Mutex::default(),
        })
    }

    /// The newest documents: from the service or the directory; if the service is away, the newest kept ones.
    async fn newest(&self) -> Result<Option<(u64, Documents)>, RulebookError> {
        match (&self.from, &self.client) {
            (RulesFrom::Dir(dir), _) => Ok(Some((0, directory(dir)?))),
            (RulesFrom::Service { .. }, Some(client)) => Ok(match self.ask(client, None).await {
                Asked::Have(number, documents) => Some((number, documents)),
                Asked::Gone | Asked::Away => None,
            }),
            _ => Ok(Some((0, Documents::new()))),
        }
    }

    async fn ask(&self, client: &ConfigClient<Channel>, number: Option<u64>) -> Asked {
        let request = GetRevisionRequest {
            pipeline: self.pipeline.clone(),
            number,
        };
        match client.clone().get_revision(request).await {
            Ok(answer) => {
                let revision = answer.into_inner();
                let number = revision.id.map_or(0, |id| id.number);
                let name = |file: String, tenant: &str| {
                    if file.is_empty() {
                        format!("{tenant}.yaml")
                    } else {
                        file
                    }
                };
                let documents = revision.documents.into_iter();
                Asked::Have(
                    number,
                    documents.map(|one| (name(one.file, &one.tenant), one.text)).collect(),
                )
            }
            Err(status) => {
                tracing::warn!(%status, "the rules service does not answer");
                if status.code() == tonic::Code::NotFound {
                    Asked::Gone
                } else {
                    Asked::Away
                }
            }
        }
    }

    /// The rules to begin with. Waits for a service that is away, unless a revision is kept on disk.
    pub async fn first(&self, catalog: &Catalog) -> Result<Arc<Revision>, RulebookError> {
        loop {
            if let Some((number, documents)) = self.newest().await? {
                return self.adopt(number, documents, catalog);
            }
            if let Some(kept) = self.kept_newest() {
                tracing::warn!(
                    number = kept.number,
                    "the rules service is away: beginning with the kept revision"
                );
                return self.adopt(kept.number, kept.documents, catalog);
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Waits for rules other than those in force. Faulty ones are reported and passed over.
    pub async fn changed(&self, in_force: (u64, u64), catalog: &Catalog) -> Arc<Revision> {
        let mut read = None;
        loop {
            match &self.client {
                Some(client) => self.wait_for_news(client, in_force.0).await,
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
            // Ten thousand documents take most of a second to compile, and a tenth of it to read.
            let files = match &self.from {
                RulesFrom::Dir(dir) => Files::of(dir),
                RulesFrom::Service { .. } | RulesFrom::None => None,
            };
            if files.is_some() && files == read {
                continue;
            }
            let documents = match self.newest().await {
                Ok(documents) => documents,
                Err(error) => {
                    tracing::error!(%error, "the rules in force stay");
                    None
                }
            };
            let Some((number, documents)) = documents else { continue };
            let read_now = files.filter(Files::rest);
            if self.lock().get(&in_force).is_some_and(|known| **known == documents) {
                read = read_now;
                continue;
            }
            match Revision::compile(number, &documents, catalog) {
                Ok(revision) if (revision.number, revision.digest) == in_force => read = read_now,
                Ok(_) => match self.adopt(number, documents, catalog) {
                    Ok(revision) => return revision,
                    Err(error) => tracing::error!(%error, "the rules in force stay"),
                },
                Err(faults) => {
                    tracing::error!("{}; the rules in force stay", RulebookError::Faults(faults));
                    // The same faulty documents would be found again at once.
                    tokio::time::sleep(LOOK_EVERY * 5).await;
                }
            }
        }
    }

    /// Returns when the service names another revision, or when it is worth asking again.
    async fn wait_for_news(&self, client: &ConfigClient<Channel>, number: u64) {
        let request = WatchRevisionsRequest {
            pipeline: self.pipeline.clone(),
        };
        match client.clone().watch_revisions(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                while let Ok(Some(id)) = stream.message().await {
                    if id.number != number {
                        return;
                    }
                }
            }
            Err(status) => tracing::debug!(%status, "cannot watch the rules service"),
        }
        tokio::time::sleep(TRY_EVERY).await;
    }

    fn adopt(&self, number: u64, documents: Documents, catalog: &Catalog) -> Result<Arc<Revision>, RulebookError> {
        let revision = Revision::compile(number, &documents, catalog).map_err(RulebookError::Faults)?;
        // On disk before any promise can name it.
        self.keep(&Kept {
            number,
            digest: revision.digest,
            documents: documents.clone(),
        })?;
        self.lock().insert((number, revision.digest), Arc::new(documents));
        Ok(Arc::new(revision))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u64, u64), Arc<Documents>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The documents of a revision that a promise names. `None`: nobody has them any more.
    pub async fn pinned(&self, rules: (u64, u64)) -> Option<Arc<Documents>> {
        if let Some(known) = self.lock().get(&rules) {
            return Some(Arc::clone(known));
        }
        let path = self.path(rules);
        // Before 2026-11-22 all pipelines of a state directory had one folder.
        let shared = self
            .state
            .parent()
            .zip(path.file_name())
            .map(|(folder, name)| folder.join(name));
        let kept = std::iter::once(path).chain(shared).filter_map(|path| read(&path));
        if let Some(kept) = kept.into_iter().find(|kept| (kept.number, kept.digest) == rules) {
            return Some(Arc::new(kept.documents));
        }
        match (&self.from, &self.client) {
            (RulesFrom::Service { .. }, Some(client)) if rules.0 > 0 => loop {
                match self.ask(client, Some(rules.0)).await {
                    Asked::Have(number, documents) if number == rules.0 => return Some(Arc::new(documents)),
                    Asked::Have(..) | Asked::Gone => return None,
                    Asked::Away => tokio::time::sleep(TRY_EVERY).await,
                }
            },
            // The digest of the rebuilt range settles whether these are the right ones.
            (RulesFrom::Dir(dir), _) => directory(dir).ok().map(Arc::new),
            _ => (rules.0 == 0).then(|| Arc::new(Documents::new())),
        }
    }

    fn path(&self, rules: (u64, u64)) -> PathBuf {
        self.state.join(format!("{}-{:016x}.json", rules.0, rules.1))
    }

    fn keep(&self, kept: &Kept) -> Result<(), RulebookError> {
        let path = self.path((kept.number, kept.digest));
        let write = |path: &Path| -> std::io::Result<()> {
            let text = serde_json::to_vec(kept).map_err(std::io::Error::other)?;
            std::fs::create_dir_all(&self.state)?;
            for target in [path.to_path_buf(), self.state.join("newest.json")] {
                let scratch = target.with_extension(format!("{}.tmp", std::process::id()));
                std::fs::write(&scratch, &text)?;
                std::fs::File::open(&scratch)?.sync_all()?;
                std::fs::rename(&scratch, &target)?;
            }
            Ok(())
        };
        write(&path).map_err(|error| RulebookError::Disk { path, error })
    }

    /// The newest of the service's that was kept. Documents with number 0 are of a directory that the pipeline had before.
    fn kept_newest(&self) -> Option<Kept> {
        read(&self.state.join("newest.json")).filter(|kept| kept.number > 0 || kept.documents.is_empty())
    }
}

fn read(path: &Path) -> Option<Kept> {
    std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

/// The rules' files of a directory, and when each was changed last: read again, files that are equal in this hold the same. The time
/// is that of the file's entry, which no tool sets back: one that is copied or moved here may say that it was written long ago.
#[derive(Debug)]
struct Files {
    looked: SystemTime,
    /// Path, length, number of the entry, and its time.
    files: Vec<(PathBuf, u64, u64, SystemTime)>,
}

impl PartialEq for Files {
    fn eq(&self, other: &Files) -> bool {
        self.files == other.files
    }
}

impl Files {
    /// `None` when the directory cannot be looked at.
    fn of(dir: &Path) -> Option<Files> {
        let looked = SystemTime::now();
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).ok()? {
            let path = entry.ok()?.path();
            if holds_rules(&path) {
                // Through links: a Kubernetes ConfigMap is a directory of them.
                let told = std::fs::metadata(&path).ok()?;
                let since = Duration::new(
                    u64::try_from(told.ctime()).ok()?,
                    u32::try_from(told.ctime_nsec()).ok()?,
                );
                files.push((path, told.len(), told.ino(), SystemTime::UNIX_EPOCH + since));
            }
        }
        files.sort();
        Some(Files { looked, files })
    }

    /// Whether the times tell everything: a file that was changed a moment ago could be changed again, and have the same time.
    fn rest(&self) -> bool {
        let long_ago = |changed: &SystemTime| self.looked.duration_since(*changed).is_ok_and(|ago| ago >= AT_REST);
        self.files.iter().all(|(.., changed)| long_ago(changed))
    }
}

fn holds_rules(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Every `.yaml` and `.yml` file of a directory, sorted by name.
pub fn directory(dir: &Path) -> Result<Documents, RulebookError> {
    let fault = |path: &Path| {
        let path = path.to_path_buf();
        move |error| RulebookError::Disk { path, error }
    };
    let mut documents = Documents::new();
    for entry in std::fs::read_dir(dir).map_err(fault(dir))? {
        let path = entry.map_err(fault(dir))?.path();
        if holds_rules(&path) {
            let text = std::fs::read_to_string(&path).map_err(fault(&path))?;
            documents.push((path.display().to_string(), text));
        }
    }
    documents.sort();
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(pipeline: &str, state_dir: &Path) -> Rulebook {
        let from = RulesFrom::Service {
            url: "http://127.0.0.1:1".into(),
            tls: None,
        };
        Rulebook::open(from, pipeline, state_dir).unwrap()
    }

    fn kept(number: u64, documents: &[(&str, &str)]) -> Kept {
        let text = |(file, text): &(&str, &str)| ((*file).to_owned(), (*text).to_owned());
        Kept {
            number,
            digest: 7,
            documents: documents.iter().map(text).collect(),
        }
    }

    #[tokio::test]
    async fn nobody_begins_with_the_rules_of_another_pipeline_or_of_a_directory() {
        let state = tempfile::tempdir().unwrap();
        let (shop, farm) = (book("shop", state.path()), book("farm", state.path()));
        let newest = |book: &Rulebook| book.kept_newest().map(|kept| kept.number);
        shop.keep(&kept(3, &[("all.yaml", "rules: []")])).unwrap();
        assert_eq!((newest(&shop), newest(&farm)), (Some(3), None));
        farm.keep(&kept(0, &[("rules/all.yaml", "rules: []")])).unwrap();
        assert_eq!(newest(&farm), None);
        farm.keep(&kept(0, &[])).unwrap();
        assert_eq!((newest(&shop), newest(&farm)), (Some(3), Some(0)));
    }

    #[test]
    fn files_are_equal_until_one_is_changed_and_at_rest_once_that_is_long_ago() {
        let dir = tempfile::tempdir().unwrap();
        let look = || Files::of(dir.path()).unwrap();
        let file = dir.path().join("all.yaml");
        std::fs::write(&file, "rules: []").unwrap();
        let mut before = look();
        assert!(!before.rest(), "it was made a moment ago");
        before.looked += AT_REST;
        assert!(before.rest());
        std::fs::write(dir.path().join("notes.txt"), "no rules").unwrap();
        assert_eq!(look(), before);
        // Another file of the same length takes its place, and says that it was written at the same time.
        let written = std::fs::metadata(&file).unwrap().modified().unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "rules: {}").unwrap();
        std::fs::File::options()
            .write(true)
            .open(&other)
            .unwrap()
            .set_modified(written)
            .unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_ne!(look(), before);
        assert_eq!(Files::of(&dir.path().join("away")), None);
    }

    #[tokio::test]
    async fn rules_that_are_written_again_and_again_are_noticed_each_time() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = dir.path().join("acme.yaml");
        let write = |rule: &str| {
            std::fs::write(&file, format!("tenant: acme\nrules: [{{name: {rule}, drop: true}}]\n")).unwrap()
        };
        let book = Rulebook::open(RulesFrom::Dir(dir.path().to_owned()), "shop", state.path()).unwrap();
        let catalog = Catalog {
            events: Vec::new(),
            alerts: true,
            charges: true,
        };
        write("one");
        let mut revision = book.first(&catalog).await.unwrap();
        for rule in ["two", "six"] {
            let looking = book.changed((revision.number, revision.digest), &catalog);
            let (next, ()) = tokio::join!(looking, async { write(rule) });
            assert_ne!(next.digest, revision.digest, "{rule}");
            revision = next;
        }
    }
}
