//! Which events there are, which columns they have and to which tables they may go.

use std::hash::{Hash, Hasher};

use arrow::datatypes::SchemaRef;

/// All events that rules may be written for.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// In the order of the pipeline's sources: [`Revision::apply`](crate::Revision::apply) takes the index.
    pub events: Vec<EventShape>,
    /// Whether alerts go anywhere. If not, rules that raise them are refused.
    pub alerts: bool,
    /// Whether charges go anywhere. If not, rules that make them are refused.
    pub charges: bool,
}

/// One event.
#[derive(Debug, Clone)]
pub struct EventShape {
    /// The source's name, used in `events:`.
    pub name: String,
    /// One for each column of the schema, in its order.
    pub shape: Vec<FieldDef>,
    /// The flattened columns.
    pub schema: SchemaRef,
    /// Index of the column that holds the tenant; it has to be of type Utf8. Rules can't change it.
    pub tenant: usize,
    /// The table to which the event goes unless a rule routes it.
    pub table: String,
    /// All tables to which a rule may route the event, with `table` among them.
    pub tables: Vec<String>,
}

/// The two names of a column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldDef {
    /// The flattened name: `context_page_url`.
    pub column: String,
    /// The path in Avro: `context.page.url`.
    pub path: String,
}

impl EventShape {
    /// The column of a path or of a flattened name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.shape
            .iter()
            .position(|field| field.path == name || field.column == name)
    }

    /// The index of a table in `tables`.
    pub(crate) fn table_index(&self, table: &str) -> Option<usize> {
        self.tables.iter().position(|known| known == table)
    }

    /// All paths, for "did you mean".
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.shape.iter().map(|field| field.path.as_str())
    }
}

impl Catalog {
    /// The event of a name.
    pub fn event(&self, name: &str) -> Option<usize> {
        self.events.iter().position(|event| event.name == name)
    }

    /// Equal catalogs have equal digests: programs compiled for one serve the other.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        (self.alerts, self.charges).hash(&mut hasher);
        for event in &self.events {
            (&event.name, &event.shape, &event.schema, event.tenant).hash(&mut hasher);
            (&event.table, &event.tables).hash(&mut hasher);
        }
        hasher.finish()
    }
}
