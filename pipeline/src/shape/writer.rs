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
        let bound = self.bound(&fields);
        let used: HashSet<&str> = bound.iter().flatten().copied().collect();
        let all_used = fields
            .leaves
            .iter()
            .all(|(path, leaf)| leaf.tree == Tree::Nothing || used.contains(path.as_str()));
        let all_held = self.columns.iter().zip(&bound).all(|(column, path)| match path {
            Some(path) => fields.leaves.get(*path).is_some_and(|leaf| holds(column, leaf)),
            None => column.nullable || column.fill(fields.present(column)).is_some(),
        });
        all_used && all_held
    }

    /// The columns for which this writer has no field, each with what stands in its place (`None` = null).
    ///
    /// # Errors
    /// When the schema can't be flattened at all.
    pub fn fills_for(&self, writer: &Schema) -> Result<Vec<(usize, Option<Fill>)>, ShapeError> {
        let fields = Fields::of(writer)?;
        let bound = self.bound(&fields);
        let lacked = self
            .columns
            .iter()
            .zip(bound)
            .enumerate()
            .filter(|(_, (_, path))| path.is_none());
        Ok(lacked
            .map(|(index, (column, _))| (index, column.fill(fields.present(column)).cloned()))
            .collect())
    }

    /// Refuses aliases through which one name means different columns in different versions: whoever sees a writer's
    /// schema alone could not tell which. `origins` has the paths of each column's field by version.
    pub(super) fn refuse_ambiguity(
        &self,
        schema: &Schema,
        version: usize,
        origins: &[Vec<(usize, String)>],
    ) -> Result<(), ShapeError> {
        let fields = Fields::of(schema)?;
        for ((column, bound), paths) in self.columns.iter().zip(self.bound(&fields)).zip(origins) {
            let meant = paths
                .iter()
                .find(|(other, _)| *other == version)
                .map(|(_, path)| path.as_str());
            if bound != meant {
                return Err(ShapeError::Ambiguous {
                    path: column.path.clone(),
                    field: bound.or(meant).unwrap_or_default().to_owned(),
                    version,
                });
            }
        }
        Ok(())
    }

    /// Which of the writer's fields fills each column: that under its own path before any under an alias, and never
    /// one that another column has under its own.
    fn bound<'f>(&self, fields: &'f Fields) -> Vec<Option<&'f str>> {
        let mut taken = HashSet::new();
        let bind = |(index, column): (usize, &Column)| {
            let paths = std::iter::once(&column.path).chain(&column.aliases);
            let mut found = paths.filter(|path| self.place(path) == Some(index) && !taken.contains(*path));
            let (path, _) = found.find_map(|path| fields.leaves.get_key_value(path))?;
            taken.insert(path.clone());
            Some(path.as_str())
        };
        self.columns.iter().enumerate().map(bind).collect()
    }
}

fn holds(column: &Column, leaf: &Leaf) -> bool {
    let kind_fits = match &leaf.tree {
        Tree::Nothing => true,
        Tree::Leaf(kind) => promote(&column.kind, kind).as_ref() == Some(&column.kind),
        Tree::Record(_) => false,
    };
    kind_fits && (column.nullable || !leaf.nullable)
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
