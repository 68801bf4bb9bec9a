//! A shape and one writer's schema: whether they fit.

use std::collections::{HashMap, HashSet};

use apache_avro::Schema;

use super::error::ShapeError;
use super::merge::promote;
use super::tree::{self, Branch, Tree};
use super::{Column, Shape};

impl Shape {
    /// Whether rows of this writer fit as they are: every field has a column that holds it, and every column that it
    /// lacks may be null. If not, the shape has to be made again with this version in it.
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
            None => column.nullable,
        });
        all_used && all_held
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
}

struct Leaf {
    tree: Tree,
    nullable: bool,
}

impl Fields {
    fn of(writer: &Schema) -> Result<Self, ShapeError> {
        let mut fields = Self { leaves: HashMap::new() };
        fields.add(tree::of(writer, 1)?, "", false);
        Ok(fields)
    }

    fn add(&mut self, branches: Vec<Branch>, above: &str, nullable_above: bool) {
        for branch in branches {
            let path = super::join(above, &branch.name);
            let nullable = nullable_above || branch.nullable;
            match branch.tree {
                Tree::Record(branches) => self.add(branches, &path, nullable),
                tree => {
                    self.leaves.insert(path, Leaf { tree, nullable });
                }
            }
        }
    }
}
