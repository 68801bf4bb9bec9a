//! A shape and one writer's schema: whether they fit, and what the writer doesn't have.

use std::collections::{HashMap, HashSet};

use apache_avro::Schema;

use super::error::ShapeError;
use super::merge::promote;
use super::tree::{self, Branch, Tree};
use super::{Column, Fill, Shape};

impl Shape {
    /// Whether rows of this writer fit as they are: every field has a column that holds it, and every column that it
    /// lacks may be null or has a default. If not, the shape has to be made again with this version in it.
    pub fn covers(&self, writer: &Schema) -> bool {
        let Ok(fields) = Fields::of(writer) else {
            return false;
        };
        let held = fields
            .leaves
            .iter()
            .all(|(path, leaf)| match (self.place(path), &leaf.tree) {
                (None, Tree::Nothing) => true,
                (None, _) => false,
                (Some(index), tree) => self
                    .columns
                    .get(index)
                    .is_some_and(|column| holds(column, tree, leaf.nullable)),
            });
        let complete = |(index, fill): &(usize, Option<Fill>)| {
            fill.is_some() || self.columns.get(*index).is_some_and(|column| column.nullable)
        };
        held && self.lacking(&fields).iter().all(complete)
    }

    /// The columns for which this writer has no field, each with what stands in its place (`None` = null).
    ///
    /// # Errors
    /// When the schema can't be flattened at all.
    pub fn fills_for(&self, writer: &Schema) -> Result<Vec<(usize, Option<Fill>)>, ShapeError> {
        Ok(self.lacking(&Fields::of(writer)?))
    }

    fn lacking(&self, fields: &Fields) -> Vec<(usize, Option<Fill>)> {
        let found: HashSet<usize> = fields.leaves.keys().filter_map(|path| self.place(path)).collect();
        let lacks = self
            .columns
            .iter()
            .enumerate()
            .filter(|(index, _)| !found.contains(index));
        lacks
            .map(|(index, column)| (index, column.fill(fields.present(column)).cloned()))
            .collect()
    }
}

fn holds(column: &Column, tree: &Tree, nullable: bool) -> bool {
    let kind_fits = match tree {
        Tree::Nothing => true,
        Tree::Leaf(kind) => promote(&column.kind, kind).as_ref() == Some(&column.kind),
        Tree::Record(_) => false,
    };
    kind_fits && (column.nullable || !nullable)
}

/// A writer's fields by path.
struct Fields {
    leaves: HashMap<String, Leaf>,
    records: HashSet<String>,
}

struct Leaf {
    tree: Tree,
    nullable: bool,
}

impl Fields {
    fn of(writer: &Schema) -> Result<Self, ShapeError> {
        let mut fields = Self {
            leaves: HashMap::new(),
            records: HashSet::new(),
        };
        fields.add(tree::of(writer, 1)?, "", false);
        Ok(fields)
    }

    fn add(&mut self, branches: Vec<Branch>, above: &str, nullable_above: bool) {
        for branch in branches {
            let path = super::join(above, &branch.name);
            let nullable = nullable_above || branch.nullable;
            match branch.tree {
                Tree::Record(branches) => {
                    self.add(branches, &path, nullable);
                    self.records.insert(path);
                }
                tree => {
                    self.leaves.insert(path, Leaf { tree, nullable });
                }
            }
        }
    }

    /// How many of the leading names of a column's path (or of an alias of it) the writer has.
    fn present(&self, column: &Column) -> usize {
        let leading = |path: &str| {
            let ends = path.match_indices('.').map(|(end, _)| end);
            ends.take_while(|end| path.get(..*end).is_some_and(|record| self.records.contains(record)))
                .count()
        };
        let aliases = column.aliases.iter().map(|path| leading(path));
        aliases.max().unwrap_or_default().max(leading(&column.path))
    }
}
