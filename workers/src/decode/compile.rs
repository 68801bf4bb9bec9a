//! Writer schema and shape to a plan.
//!
//! First a survey of the writer's fields by path, then each column finds the field that fills it (its own path before an
//! alias), then one walk in the writer's order makes the steps. A column without a field is null,
//! whatever default a later version gives it.

use std::collections::{HashMap, HashSet};

use apache_avro::Schema;
use apache_avro::schema::{NamespaceRef, RecordSchema, ResolvedSchema};
use pipeline::shape::{Kind, Shape};

use super::columns::layout;
use super::error::PlanError;
use super::plan::{Plan, Step};
use super::scalar::scalar;
use super::slot::{Op, Slot};
use super::types::{TypesBuilder, deeper, unresolved};

pub(super) fn plan(writer: &Schema, shape: &Shape) -> Result<Plan, PlanError> {
    let Schema::Record(record) = writer else {
        return Err(PlanError::NotARecord { found: noun(writer) });
    };
    let resolved = ResolvedSchema::new(writer).map_err(|error| PlanError::Unresolved {
        reason: error.to_string(),
    })?;
    let mut compiler = Compiler {
        shape,
        own: Shape::of(std::slice::from_ref(writer)).ok(),
        resolved: &resolved,
        types: TypesBuilder::new(resolved.get_names()),
        paths: Vec::new(),
        placed: HashMap::new(),
        lacked: Vec::new(),
    };
    let mut survey = Survey::default();
    let root = compiler.around(record, None);
    compiler.survey(record, root.as_deref(), "", &mut survey)?;
    compiler.place(&survey)?;
    let (mut steps, _) = compiler.record(Place {
        record,
        around: root.as_deref(),
        path: "",
        depth: 1,
    })?;
    if !compiler.lacked.is_empty() {
        steps.push(Step::Nulls(compiler.lacked));
    }
    Ok(Plan {
        steps,
        paths: compiler.paths,
        types: compiler.types.finish(),
        layout: layout(shape),
    })
}

/// What a writer has, by dotted path.
#[derive(Default)]
struct Survey {
    leaves: HashSet<String>,
}

struct Compiler<'a> {
    shape: &'a Shape,
    /// The columns that this writer would have alone; `None` = no shape has any for it. A field without a column is
    /// read as the one it has here.
    own: Option<Shape>,
    resolved: &'a ResolvedSchema<'a>,
    types: TypesBuilder<'a>,
    paths: Vec<String>,
    /// Writer path of a field -> its column.
    placed: HashMap<String, usize>,
    /// Columns without a field.
    lacked: Vec<usize>,
}

/// A record in the writer: where it is, and how many containers are around its fields.
#[derive(Clone, Copy)]
struct Place<'s> {
    record: &'s RecordSchema,
    around: NamespaceRef<'s>,
    path: &'s str,
    depth: u32,
}

/// A record field's type, if it is a record, alone or with null.
struct RecordField<'s> {
    record: &'s RecordSchema,
    namespace: Option<String>,
    /// It is in a union.
    union: bool,
    /// The union's index of null.
    null: Option<i64>,
}

/// The column that a value goes to, and where it stands.
#[derive(Clone, Copy)]
struct Target<'t> {
    column: usize,
    kind: &'t Kind,
    nullable: bool,
    path: &'t str,
    depth: u32,
}

impl<'a> Compiler<'a> {
    /// The namespace in which the names inside a record are read.
    fn around(&self, record: &RecordSchema, outer: NamespaceRef<'_>) -> Option<String> {
        record.name.fully_qualified_name(outer).namespace().map(str::to_owned)
    }

    fn follow<'s>(
        &self,
        schema: &'s Schema,
        around: NamespaceRef<'_>,
    ) -> Result<(&'s Schema, Option<String>), PlanError>
    where
        'a: 's,
    {
        let Schema::Ref { name } = schema else {
            return Ok((schema, around.map(str::to_owned)));
        };
        let name = name.fully_qualified_name(around);
        let named = self
            .resolved
            .get_names()
            .get(name.as_ref())
            .ok_or_else(|| unresolved(&name))?;
        Ok((named, name.namespace().map(str::to_owned)))
    }

    /// Whether some column lies below this path, or would. Descending only then ends recursive schemas.
    fn below(&self, path: &str) -> bool {
        let inside = |whole: &str| whole.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        let mut columns = self.shape.columns.iter();
        let mut own = self.own.iter().flat_map(|own| &own.columns);
        columns.any(|column| inside(&column.path) || column.aliases.iter().any(|alias| inside(alias)))
            || own.any(|column| inside(&column.path))
    }

    /// Whether this field would have a column of JSON.
    fn would_be_json(&self, path: &str) -> bool {
        let mut own = self.own.iter().flat_map(|own| &own.columns);
        own.any(|column| column.path == path && column.kind == Kind::Json)
    }

    fn record_field<'s>(
        &self,
        schema: &'s Schema,
        around: NamespaceRef<'_>,
        path: &str,
    ) -> Result<Option<RecordField<'s>>, PlanError>
    where
        'a: 's,
    {
        if self.shape.place(path).is_some() || !self.below(path) {
            return Ok(None);
        }
        let (inner, union, null) = match schema {
            Schema::Union(union) => match union.variants() {
                [Schema::Null, other] => (other, true, Some(0)),
                [other, Schema::Null] => (other, true, Some(1)),
                [only] => (only, true, None),
                _ => return Ok(None),
            },
            other => (other, false, None),
        };
        let (inner, around) = self.follow(inner, around)?;
        Ok(match inner {
            Schema::Record(record) => Some(RecordField {
                record,
                namespace: self.around(record, around.as_deref()),
                union,
                null,
            }),
            _ => None,
        })
    }

    fn survey(
        &self,
        record: &RecordSchema,
        around: NamespaceRef<'_>,
        path: &str,
        survey: &mut Survey,
    ) -> Result<(), PlanError> {
        for field in &record.fields {
            let path = join(path, &field.name);
            match self.record_field(&field.schema, around, &path)? {
                Some(inner) => {
                    self.survey(inner.record, inner.namespace.as_deref(), &path, survey)?;
                }
                None => {
                    survey.leaves.insert(path);
                }
            }
        }
        Ok(())
    }

    /// Decides for each column which field fills it, or else that it is null.
    fn place(&mut self, survey: &Survey) -> Result<(), PlanError> {
        for (index, column) in self.shape.columns.iter().enumerate() {
            let paths = || std::iter::once(&column.path).chain(&column.aliases);
            let found = paths().find(|path| {
                survey.leaves.contains(*path)
                    && self.shape.place(path) == Some(index)
                    && !self.placed.contains_key(*path)
            });
            if let Some(path) = found {
                self.placed.insert(path.clone(), index);
                continue;
            }
            if !column.nullable {
                return Err(not_covered(&column.name, "lacks its field"));
            }
            self.lacked.push(index);
        }
        Ok(())
    }

    /// The steps of a record's fields, and all columns that they write to.
    fn record(&mut self, place: Place<'_>) -> Result<(Vec<Step>, Vec<usize>), PlanError> {
        let (mut steps, mut columns) = (Vec::new(), Vec::new());
        for field in &place.record.fields {
            let path = join(place.path, &field.name);
            if let Some(index) = self.placed.get(&path).copied() {
                let column = self
                    .shape
                    .columns
                    .get(index)
                    .ok_or_else(|| not_covered(&path, "has no such column"))?;
                let target = Target {
                    column: index,
                    kind: &column.kind,
                    nullable: column.nullable,
                    path: &path,
                    depth: place.depth,
                };
                let slot = self.slot(&field.schema, place.around, target)?;
                steps.push(Step::Put {
                    column: index,
                    slot,
                    path: self.paths.len(),
                });
                self.paths.push(path);
                columns.push(index);
                continue;
            }
            let Some(inner) = self.record_field(&field.schema, place.around, &path)? else {
                steps.push(self.skip(&field.schema, place, &path)?);
                self.paths.push(path);
                continue;
            };
            let depth = level(place.depth, &path)?;
            let around = inner.namespace.as_deref();
            let (mut inside, touched) = self.record(Place {
                record: inner.record,
                around,
                path: &path,
                depth,
            })?;
            match inner.union {
                false => steps.append(&mut inside),
                true => steps.push(self.optional(inner.null, inside, touched.clone(), path)?),
            }
            columns.extend(touched);
        }
        Ok((steps, columns))
    }

    /// The step of a field without a column; its path comes next.
    fn skip(&mut self, schema: &Schema, place: Place<'_>, path: &str) -> Result<Step, PlanError> {
        if self.would_be_json(path) {
            let target = Target {
                column: self.shape.columns.len(),
                kind: &Kind::Json,
                nullable: true,
                path,
                depth: place.depth,
            };
            return Ok(Step::SkipJson {
                slot: self.slot(schema, place.around, target)?,
                path: self.paths.len(),
            });
        }
        Ok(Step::Skip {
            id: self.types.add(schema, place.around)?,
            depth: place.depth,
            path: self.paths.len(),
        })
    }

    fn optional(
        &mut self,
        null: Option<i64>,
        steps: Vec<Step>,
        columns: Vec<usize>,
        path: String,
    ) -> Result<Step, PlanError> {
        let columns_of_shape = columns.iter().filter_map(|index| self.shape.columns.get(*index));
        let strict = columns_of_shape.into_iter().find(|column| !column.nullable);
        if let Some(strict) = strict.filter(|_| null.is_some()) {
            return Err(not_covered(&strict.name, "has it inside a record that may be null"));
        }
        self.paths.push(path);
        Ok(Step::Optional {
            null,
            steps,
            columns,
            path: self.paths.len() - 1,
        })
    }

    fn slot(&mut self, schema: &Schema, around: NamespaceRef<'_>, target: Target<'_>) -> Result<Slot, PlanError> {
        let Schema::Union(union) = schema else {
            return Ok(Slot::Plain(self.op(schema, around, target)?));
        };
        let ops = union.variants().iter().map(|branch| self.op(branch, around, target));
        let mut ops = ops.collect::<Result<Vec<_>, _>>()?;
        let null = ops.iter().position(|op| matches!(op, Op::Null));
        Ok(match (null, ops.len()) {
            (Some(null), 2) => Slot::Optional {
                null: i64::from(null == 1),
                op: ops.swap_remove(1 - null),
            },
            _ => Slot::Union(ops),
        })
    }

    fn op(&mut self, schema: &Schema, around: NamespaceRef<'_>, target: Target<'_>) -> Result<Op, PlanError> {
        let (followed, namespace) = self.follow(schema, around)?;
        match (followed, target.kind) {
            (Schema::Null, _) if target.nullable => return Ok(Op::Null),
            (Schema::Null, _) => return Err(not_covered(&self.column(target), "may have null there")),
            (_, Kind::Json) => {
                return Ok(Op::Json {
                    id: self.types.add(schema, around)?,
                    depth: target.depth,
                });
            }
            (Schema::Array(array), Kind::List(element)) => {
                let item = self.inside(target, &element.kind, element.nullable, |compiler, target| {
                    compiler.slot(&array.items, namespace.as_deref(), target)
                })?;
                let id = self.types.add(&array.items, namespace.as_deref())?;
                return Ok(Op::List {
                    item: Box::new(item),
                    id,
                });
            }
            (Schema::Map(map), Kind::Map(element)) => {
                let value = self.inside(target, &element.kind, element.nullable, |compiler, target| {
                    compiler.slot(&map.types, namespace.as_deref(), target)
                })?;
                let id = self.types.add(&map.types, namespace.as_deref())?;
                return Ok(Op::Map {
                    value: Box::new(value),
                    id,
                });
            }
            _ => {}
        }
        scalar(followed, target.kind).ok_or_else(|| PlanError::Incompatible {
            field: target.path.to_owned(),
            writer: noun(followed),
            column: self.column(target),
            kind: target.kind.to_string(),
        })
    }

    fn inside(
        &mut self,
        target: Target<'_>,
        kind: &Kind,
        nullable: bool,
        make: impl FnOnce(&mut Self, Target<'_>) -> Result<Slot, PlanError>,
    ) -> Result<Slot, PlanError> {
        let depth = level(target.depth, target.path)?;
        let Target { column, path, .. } = target;
        make(
            self,
            Target {
                column,
                kind,
                nullable,
                path,
                depth,
            },
        )
    }

    fn column(&self, target: Target<'_>) -> String {
        self.shape
            .columns
            .get(target.column)
            .map(|column| column.name.clone())
            .unwrap_or_default()
    }
}

fn level(depth: u32, path: &str) -> Result<u32, PlanError> {
    deeper(depth).map_err(|_| PlanError::TooDeep { field: path.to_owned() })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn not_covered(column: &str, reason: &'static str) -> PlanError {
    PlanError::NotCovered {
        column: column.to_owned(),
        reason,
    }
}

fn noun(schema: &Schema) -> String {
    schema.to_string().to_lowercase()
}
