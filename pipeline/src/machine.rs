//! What a pipeline file's text does not tell: whether what it names is there.

use std::path::Path;

use crate::Secret;

/// Where a pipeline file is to be used. An answer that is an error says what is wrong, and becomes a fault at that place of the
/// file.
pub trait Machine {
    /// A certificate or a key can be read.
    fn file(&self, path: &Path) -> Result<(), String>;
    /// A password can be read.
    fn secret(&self, secret: &Secret) -> Result<(), String>;
    /// The directory of rule files is there.
    fn rules(&self, dir: &Path) -> Result<(), String>;
    /// The Kafka client has such a setting, and takes such a value.
    fn kafka_property(&self, key: &str, value: &str) -> Result<(), String>;
}

/// For the text alone: everything may be there.
pub(crate) struct Anywhere;

impl Machine for Anywhere {
    fn file(&self, _: &Path) -> Result<(), String> {
        Ok(())
    }
    fn secret(&self, _: &Secret) -> Result<(), String> {
        Ok(())
    }
    fn rules(&self, _: &Path) -> Result<(), String> {
        Ok(())
    }
    fn kafka_property(&self, _: &str, _: &str) -> Result<(), String> {
        Ok(())
    }
}
