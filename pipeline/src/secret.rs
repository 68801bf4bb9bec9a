//! Secrets are named by file, never written into a pipeline file, a log or an error.

use std::fs;
use std::path::{Path, PathBuf};

/// A secret that lies in a file. Read when it is used, so that a rotated one is taken at the next connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    file: PathBuf,
}

/// A secret's file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is missing or may not be read.
    #[error("the secret in {} can't be read: {reason}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The file holds nothing but line ends.
    #[error("the file {} should hold a secret and is empty", file.display())]
    Empty {
        /// Which file.
        file: PathBuf,
    },
}

impl Secret {
    /// The secret in `file`; nothing is read yet.
    pub fn in_file(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    /// Where it lies.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The secret, without line ends at its end (editors add them; passwords don't have them).
    ///
    /// # Errors
    /// When the file can't be read as UTF-8, or is empty.
    pub fn read(&self) -> Result<String, SecretError> {
        let mut text = fs::read_to_string(&self.file).map_err(|reason| SecretError::Unreadable {
            file: self.file.clone(),
            reason,
        })?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        if text.is_empty() {
            return Err(SecretError::Empty {
                file: self.file.clone(),
            });
        }
        Ok(text)
    }
}
