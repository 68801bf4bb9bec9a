//! One registered schema: its text as the registry gave it, and parsed.

use crate::Error;

/// A registered Avro schema. Immutable, like its id.
#[derive(Debug, Clone)]
pub struct Schema {
    /// The registry's id, which events carry.
    pub id: u32,
    /// The text as registered; other subjects it refers to are *not* in it.
    pub text: String,
    /// Texts of the schemas it refers to, innermost first.
    pub references: Vec<String>,
    /// Parsed, with the referred schemas put in.
    pub avro: apache_avro::Schema,
}

impl Schema {
    /// Parses.
    ///
    /// # Errors
    /// [`Error::Unusable`] with the parser's reason.
    pub(crate) fn parse(id: u32, text: String, references: Vec<String>) -> Result<Self, Error> {
        let unusable = |error: apache_avro::Error| Error::Unusable {
            id,
            reason: error.to_string(),
        };
        let avro = if references.is_empty() {
            apache_avro::Schema::parse_str(&text).map_err(unusable)?
        } else {
            let (mut avro, others) = apache_avro::Schema::parse_str_with_list(&text, &references).map_err(unusable)?;
            avro.denormalize(&others).map_err(unusable)?;
            avro
        };
        Ok(Self {
            id,
            text,
            references,
            avro,
        })
    }

    /// Whether both say the same. Registries may lay the same JSON out differently, so the JSON is compared, not its text.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        same_json(&self.text, &other.text)
            && self.references.len() == other.references.len()
            && self
                .references
                .iter()
                .zip(&other.references)
                .all(|(a, b)| same_json(a, b))
    }
}

fn same_json(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (
        serde_json::from_str::<serde_json::Value>(a),
        serde_json::from_str::<serde_json::Value>(b),
    ) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
