//! What survives a restart: one file for each schema id and for each subject's list of versions.
//!
//! A file is `sluice-schemas 1 <crc32 of the rest, 8 hex digits>`, a line feed, and JSON. It is written to another name,
//! synced, and renamed, so it is there whole or not at all; what the disk spoils is found by the checksum and ignored.
//! The files of one registry lie in a directory of their own, because another registry's ids mean other schemas.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

const HEAD: &str = "sluice-schemas 1 ";
/// A larger file was not written by us.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A schema as kept on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredSchema {
    pub id: u32,
    pub text: String,
    pub references: Vec<String>,
}

/// The ids of a subject's versions, oldest first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredSubject {
    pub subject: String,
    pub ids: Vec<u32>,
}

/// The directory of one registry's snapshot.
#[derive(Debug)]
pub(crate) struct Snapshot {
    dir: PathBuf,
    /// Files that were there and could not be used.
    pub(crate) spoiled: AtomicU64,
    /// Files that could not be written.
    pub(crate) unwritten: AtomicU64,
    names: AtomicU64,
}

impl Snapshot {
    /// Makes the directory for this registry below `parent`.
    pub(crate) fn open(parent: &Path, url: &str) -> std::io::Result<Self> {
        let dir = parent.join(file_name(url));
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            spoiled: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            names: AtomicU64::new(0),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn schema(&self, id: u32) -> Option<StoredSchema> {
        let path = self.schema_path(id);
        let stored: StoredSchema = self.read(&path)?;
        (stored.id == id).then_some(stored)
    }

    pub(crate) fn keep_schema(&self, stored: &StoredSchema) {
        self.write(&self.schema_path(stored.id), stored);
    }

    pub(crate) fn subject(&self, subject: &str) -> Option<StoredSubject> {
        let stored: StoredSubject = self.read(&self.subject_path(subject))?;
        (stored.subject == subject).then_some(stored)
    }

    pub(crate) fn keep_subject(&self, stored: &StoredSubject) {
        self.write(&self.subject_path(&stored.subject), stored);
    }

    fn schema_path(&self, id: u32) -> PathBuf {
        self.dir.join(format!("id-{id}.schema"))
    }

    fn subject_path(&self, subject: &str) -> PathBuf {
        self.dir.join(format!("subject-{}.versions", file_name(subject)))
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        match read_checked(path) {
            Ok(found) => found,
            Err(reason) => {
                self.spoiled.fetch_add(1, Ordering::Relaxed);
                warn!(file = %path.display(), %reason, "schema snapshot file ignored");
                None
            }
        }
    }

    /// Failing to keep a copy must not stop events, so this only warns and counts.
    fn write<T: Serialize>(&self, path: &Path, value: &T) {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let draft = path.with_extension(format!("{}-{number}.draft", std::process::id()));
        if let Err(error) = write_synced(&draft, path, value) {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
            warn!(file = %path.display(), %error, "schema snapshot file not written; a restart during an outage would miss it");
            // The draft may not even exist; what matters was said above.
            if fs::remove_file(&draft).is_err() {}
        }
    }
}

fn read_checked<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    let (head, body) = text.split_once('\n').ok_or("no first line")?;
    let sum = head.strip_prefix(HEAD).ok_or("not a schema snapshot of this version")?;
    if sum != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
        return Err("checksum does not match".to_owned());
    }
    serde_json::from_str(body).map(Some).map_err(|error| error.to_string())
}

fn write_synced<T: Serialize>(draft: &Path, path: &Path, value: &T) -> std::io::Result<()> {
    let body = serde_json::to_string(value)?;
    let mut file = File::create(draft)?;
    writeln!(file, "{HEAD}{:08x}", crc32fast::hash(body.as_bytes()))?;
    file.write_all(body.as_bytes())?;
    file.sync_all()?;
    fs::rename(draft, path)?;
    // The rename itself is durable only when the directory is.
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// A file name for any text: readable, bounded, and different for different texts.
fn file_name(text: &str) -> String {
    let readable: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || (c == '.') {
                c
            } else {
                '_'
            }
        })
        .take(80)
        .collect();
    format!("{readable}-{:08x}", crc32fast::hash(text.as_bytes()))
}
