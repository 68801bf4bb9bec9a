//! What is wrong in a document, and where.

use std::cell::RefCell;

/// A file of nothing but mistakes says its first thousand; more would help nobody.
const FAULTS_MAX: usize = 1000;
/// Bytes of a fault's message. What a message quotes can be as long as the file, and is read by a person.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// One thing that is wrong in a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {}{message}", path_prefix(.path))]
pub struct Fault {
    /// The file's name as it was given.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// Characters, counted from 1.
    pub column: u32,
    /// Where in the document: `sources[1].topic`; empty for the whole of it.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Fault {
    /// The same with no more of its message than anybody reads.
    pub(crate) fn bounded(mut self) -> Self {
        if self.message.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX)
                .rev()
                .find(|end| self.message.is_char_boundary(*end));
            self.message = format!("{}…", &self.message[..end.unwrap_or(0)]);
        }
        self
    }
}

fn path_prefix(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}: ")
    }
}

/// Collects the faults of one document. Shared by reference while it is read.
#[derive(Debug)]
pub struct Faults {
    file: String,
    list: RefCell<Vec<Fault>>,
}

impl Faults {
    /// No faults yet in `file`, whose name is for messages only.
    pub fn new(file: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            list: RefCell::new(Vec::new()),
        }
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Adds a fault that is already complete. The first thousand are kept, and of each message the first kilobytes.
    pub fn push(&self, fault: Fault) {
        if !self.is_full() {
            self.list.borrow_mut().push(fault.bounded());
        }
    }

    /// Whether no more faults are kept: who has to work for a message can do without.
    pub fn is_full(&self) -> bool {
        self.list.borrow().len() >= FAULTS_MAX
    }

    /// Adds a fault at a `(line, column)` of this file.
    pub fn at(&self, position: (u32, u32), path: &str, message: impl Into<String>) {
        self.push(Fault {
            file: self.file.clone(),
            line: position.0,
            column: position.1,
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// The faults in the order of the document; those at one place in the order in which they were found.
    pub fn into_vec(self) -> Vec<Fault> {
        let mut list = self.list.into_inner();
        list.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        list
    }
}
