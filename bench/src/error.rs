//! Why there is no figure.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A measurement that could not be made.
#[derive(Debug, Error)]
pub enum Error {
    /// The pipeline file, the rules or the schema do not fit each other.
    #[error("{0}")]
    Faults(String),
    /// An event's frame is none.
    #[error("frame: {0}")]
    Frame(String),
    /// The event's schema, or an event.
    #[error(transparent)]
    Avro(#[from] apache_avro::Error),
    /// Columns of the schema.
    #[error(transparent)]
    Shape(#[from] pipeline::shape::ShapeError),
    /// How it is decoded.
    #[error(transparent)]
    Plan(#[from] workers::decode::PlanError),
    /// An event that cannot be decoded.
    #[error(transparent)]
    Decode(#[from] workers::decode::DecodeError),
    /// Rows that Arrow refuses.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// The pure middle.
    #[error(transparent)]
    Transform(#[from] workers::transform::TransformError),
    /// Blocks.
    #[error(transparent)]
    Block(#[from] clickhouse_sink::Error),
    /// The real parts.
    #[error(transparent)]
    Stack(#[from] devstack::Error),
    /// The topic or its schema.
    #[error(transparent)]
    Load(#[from] load_tests::Error),
    /// ClickHouse or a role does not answer.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// ClickHouse answers that it could not.
    #[error("ClickHouse refuses: {0}")]
    ClickHouse(String),
    /// A file or a program.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// Somebody wants it to end.
    #[error("ended by {0}; the parts are ended, too, and their files removed")]
    Interrupted(&'static str),
    /// A role of Sluice, or a peer, did not do its work.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// All of them, a line each.
    pub fn faults(faults: &[impl Display]) -> Self {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Self::Faults(lines.join("\n"))
    }

    /// Says which path was meant.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}
