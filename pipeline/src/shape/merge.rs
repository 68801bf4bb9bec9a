//! All versions of a schema -> one tree -> columns.

use super::error::ShapeError;
use super::tree::{Branch, Tree};
use super::{Column, Element, Kind, join};

/// Paths under which one column may be found, its own not counted.
const ALIASES_MAX: usize = 64;

/// Adds the fields of an older version to those of the newer ones.
pub(super) fn merge(into: &mut Vec<Branch>, older: Vec<Branch>, path: &str) -> Result<(), ShapeError> {
    let partners = partners(into, &older);
    for (index, branch) in into.iter_mut().enumerate() {
        branch.lacked |= !partners.contains(&Some(index));
    }
    for (branch, partner) in older.into_iter().zip(partners) {
        match partner.and_then(|index| into.get_mut(index)) {
            Some(newer) => merge_branch(newer, branch, path)?,
            None => into.push(Branch { lacked: true, ..branch }),
        }
    }
    Ok(())
}

/// Which of the newer fields each older one continues in: that of its name, else one that names it as an alias.
fn partners(newer: &[Branch], older: &[Branch]) -> Vec<Option<usize>> {
    let same_name = |branch: &Branch| newer.iter().position(|other| other.name == branch.name);
    let mut partners: Vec<Option<usize>> = older.iter().map(same_name).collect();
    for (position, branch) in older.iter().enumerate() {
        if partners[position].is_none() {
            let renamed = newer.iter().position(|other| other.aliases.contains(&branch.name));
            partners[position] = renamed.filter(|index| !partners.contains(&Some(*index)));
        }
    }
    partners
}

fn merge_branch(newer: &mut Branch, older: Branch, path: &str) -> Result<(), ShapeError> {
    let path = join(path, &newer.name);
    let names = std::iter::once(older.name).chain(older.aliases);
    for name in names.filter(|name| *name != newer.name).collect::<Vec<_>>() {
        if !newer.aliases.contains(&name) {
            newer.aliases.push(name);
        }
    }
    newer.names.extend(older.names);
    newer.nullable |= older.nullable;
    match (&mut newer.tree, older.tree) {
        (_, Tree::Nothing) => Ok(()),
        (Tree::Nothing, tree) => {
            newer.tree = tree;
            Ok(())
        }
        (Tree::Record(fields), Tree::Record(older_fields)) => merge(fields, older_fields, &path),
        (tree, older_tree) => match (&*tree, &older_tree) {
            (Tree::Leaf(kind), Tree::Leaf(older_kind)) if promote(kind, older_kind).is_some() => {
                if let Some(kind) = promote(kind, older_kind) {
                    *tree = Tree::Leaf(kind);
                }
                Ok(())
            }
            (newer_tree, older_tree) => Err(ShapeError::Incompatible {
                path,
                newer: noun(newer_tree),
                newer_version: newer.version,
                older: noun(older_tree),
                older_version: older.version,
            }),
        },
    }
}

fn noun(tree: &Tree) -> String {
    match tree {
        Tree::Nothing => "null".to_owned(),
        Tree::Leaf(kind) => kind.to_string(),
        Tree::Record(_) => "a record".to_owned(),
    }
}

/// The kind of a column that has held `older` and is to hold `newer`. A table's column is never narrowed, so int and
/// long make long whichever is newer; beyond that only what Avro's schema resolution allows.
pub(super) fn promote(newer: &Kind, older: &Kind) -> Option<Kind> {
    use Kind::{Bytes, Decimal, Enum, Float32, Float64, Int32, Int64, List, Map, String, Uuid};
    let kind = match (newer, older) {
        (a, b) if a == b => a.clone(),
        (Int64, Int32) | (Int32, Int64) => Int64,
        (Float64, Float32) | (Float32, Float64) => Float64,
        (Float32 | Float64, Int32 | Int64) => Float64,
        (String, Bytes | Enum | Uuid) | (Enum | Uuid, String) => String,
        (Bytes, String) => Bytes,
        (Decimal { precision: a, scale: x }, Decimal { precision: b, scale: y }) if x == y => Decimal {
            precision: *a.max(b),
            scale: *x,
        },
        (List(a), List(b)) => List(Box::new(promote_element(a, b)?)),
        (Map(a), Map(b)) => Map(Box::new(promote_element(a, b)?)),
        _ => return None,
    };
    Some(kind)
}

fn promote_element(newer: &Element, older: &Element) -> Option<Element> {
    let kind = promote(&newer.kind, &older.kind)?;
    let nullable = newer.nullable || older.nullable;
    Some(Element { kind, nullable })
}

/// A column and the path of its field in each version that has it.
pub(super) type Origin = (Column, Vec<(usize, String)>);

/// The columns of merged fields: those of the newest version, then those that only older ones have.
pub(super) fn columns(fields: &[Branch]) -> Result<Vec<Origin>, ShapeError> {
    let mut flat = Flatten {
        columns: Vec::new(),
        above: Vec::new(),
    };
    flat.fields(fields)?;
    // Stable: within a version the schema's order stays.
    flat.columns.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    Ok(flat.columns.into_iter().map(|(_, origin)| origin).collect())
}

struct Flatten<'b> {
    /// Each with the newest version that has it.
    columns: Vec<(usize, Origin)>,
    /// The fields from the top to here.
    above: Vec<&'b Branch>,
}

impl<'b> Flatten<'b> {
    fn fields(&mut self, fields: &'b [Branch]) -> Result<(), ShapeError> {
        for branch in fields {
            self.above.push(branch);
            match &branch.tree {
                Tree::Nothing => {}
                Tree::Record(fields) => self.fields(fields)?,
                Tree::Leaf(kind) => {
                    let version = self.above.iter().map(|branch| branch.version).min().unwrap_or_default();
                    let column = self.column(kind, version)?;
                    self.columns.push((version, (column, self.paths())));
                }
            }
            self.above.pop();
        }
        Ok(())
    }

    fn column(&self, kind: &Kind, version: usize) -> Result<Column, ShapeError> {
        let names: Vec<&str> = self.above.iter().map(|branch| branch.name.as_str()).collect();
        let path = names.join(".");
        if path.starts_with('_') {
            return Err(ShapeError::ReservedName { path });
        }
        Ok(Column {
            name: names.join("_"),
            aliases: self.aliases(&path, version)?,
            path,
            kind: kind.clone(),
            nullable: self.above.iter().any(|branch| branch.lacked || branch.nullable),
        })
    }

    /// The path of the field at the end of `above` in each version that has it.
    fn paths(&self) -> Vec<(usize, String)> {
        let mut paths: Option<Vec<(usize, String)>> = None;
        for branch in &self.above {
            let longer = |(version, path): (usize, String)| {
                let (_, name) = branch.names.iter().find(|(other, _)| *other == version)?;
                Some((version, join(&path, name)))
            };
            paths = Some(match paths {
                None => branch.names.clone(),
                Some(paths) => paths.into_iter().filter_map(longer).collect(),
            });
        }
        paths.unwrap_or_default()
    }

    /// Every path that some choice of names and aliases makes, but for the column's own.
    fn aliases(&self, own: &str, version: usize) -> Result<Vec<String>, ShapeError> {
        let mut paths = vec![String::new()];
        for branch in &self.above {
            let names: Vec<&String> = std::iter::once(&branch.name).chain(&branch.aliases).collect();
            if paths.len() * names.len() > ALIASES_MAX {
                return Err(ShapeError::TooLarge {
                    version,
                    path: own.to_owned(),
                    what: format!("{ALIASES_MAX} names and aliases of one field"),
                });
            }
            let longer = |path: &String| names.iter().map(|name| join(path, name)).collect::<Vec<_>>();
            paths = paths.iter().flat_map(longer).collect();
        }
        paths.retain(|path| path != own);
        Ok(paths)
    }
}

/// Refuses two fields that would have one column name.
pub(super) fn refuse_collisions(columns: &[Column]) -> Result<(), ShapeError> {
    let mut seen = std::collections::HashMap::with_capacity(columns.len());
    for column in columns {
        if let Some(first) = seen.insert(column.name.as_str(), column) {
            return Err(ShapeError::Collision {
                name: column.name.clone(),
                first: first.path.clone(),
                second: column.path.clone(),
            });
        }
    }
    Ok(())
}
