//! One setting: what it is, where it stands, and whether it was understood.

use std::fmt;
use std::time::Duration;

use document::{Item, Reader};

/// A value from the file or its default. A default stands in for what could not be read, too; relations with such a
/// one aren't judged, for its fault is already known.
pub(super) struct Setting<'a, T> {
    pub value: T,
    key: &'static str,
    item: Option<Item<'a>>,
    understood: bool,
}

/// The setting `key` of a section; the section itself may be missing.
pub(super) fn setting<'a, T>(
    reader: Option<&Reader<'a>>,
    key: &'static str,
    default: T,
    read: impl FnOnce(&Item<'a>) -> Option<T>,
) -> Setting<'a, T> {
    let item = reader.and_then(|reader| reader.optional(key));
    let (value, understood) = match item.as_ref().map(read) {
        None => (default, true),
        Some(Some(value)) => (value, true),
        Some(None) => (default, false),
    };
    Setting {
        value,
        key,
        item,
        understood,
    }
}

impl<T: Shown> Setting<'_, T> {
    /// Records a fault when a relation to another setting doesn't hold: at the one that is in the file.
    /// `relation` reads like `has to be shorter than`.
    pub fn relate<U: Shown>(&self, holds: impl FnOnce(&T, &U) -> bool, relation: &str, other: &Setting<'_, U>) {
        if !self.understood || !other.understood || holds(&self.value, &other.value) {
            return;
        }
        let message = format!(
            "`{}` ({}) {relation} `{}` ({})",
            self.key,
            self.value.shown(),
            other.key,
            other.value.shown(),
        );
        if let Some(item) = self.item.as_ref().or(other.item.as_ref()) {
            item.fault(message);
        }
    }
}

/// How a value is written in a pipeline file.
pub(super) trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Duration {
    fn shown(&self) -> String {
        match self.as_millis() {
            ms if ms % 1000 != 0 => format!("{ms}ms"),
            ms => format!("{}s", ms / 1000),
        }
    }
}

impl Shown for usize {
    fn shown(&self) -> String {
        self.to_string()
    }
}

/// A size that is shown with its unit.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Size(pub usize);

impl Shown for Size {
    fn shown(&self) -> String {
        match self.0 {
            bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
            bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
            bytes => format!("{bytes}B"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// A size from `least` up to 4 GiB.
pub(super) fn size(item: &Item<'_>, least: Size) -> Option<Size> {
    let bytes = item.byte_size()?;
    match usize::try_from(bytes) {
        Ok(size) if size >= least.0 && bytes <= 4 << 30 => Some(Size(size)),
        _ => {
            item.fault(format!("should be a size from {least} to 4096MiB"));
            None
        }
    }
}

/// A duration of at least `least`.
pub(super) fn at_least(item: &Item<'_>, least: Duration) -> Option<Duration> {
    let duration = item.duration()?;
    if duration < least {
        item.fault(format!("should be at least {}", least.shown()));
        return None;
    }
    Some(duration)
}
