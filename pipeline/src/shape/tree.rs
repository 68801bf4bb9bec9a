//! One version of a schema as a tree of records whose leaves have kinds: references followed, unions with null
//! folded into "nullable", recursion and everything else without a kind of its own cut off as JSON.

use apache_avro::Schema;
use apache_avro::schema::{NamesRef, RecordSchema, ResolvedSchema, UnionSchema};

use super::error::ShapeError;
use super::{Element, Kind};

/// Fields of all levels together. ClickHouse copes with thousands of columns; nobody reads a table of more.
const FIELDS_MAX: usize = 4096;
/// Levels of records.
const DEPTH_MAX: usize = 64;

/// What a field is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    /// Avro's `null`: no column.
    Nothing,
    Leaf(Kind),
    Record(Vec<Branch>),
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch {
    pub name: String,
    /// What it is called in each version that has it, newest first.
    pub names: Vec<(usize, String)>,
    pub aliases: Vec<String>,
    pub nullable: bool,
    pub tree: Tree,
    /// The newest version that has it, counted from 1.
    pub version: usize,
    /// Whether some version lacks it.
    pub lacked: bool,
}

/// The fields of one version.
pub(super) fn of(schema: &Schema, version: usize) -> Result<Vec<Branch>, ShapeError> {
    let resolved = ResolvedSchema::new(schema).map_err(|error| ShapeError::Unresolved {
        version,
        reason: error.to_string(),
    })?;
    let Schema::Record(record) = schema else {
        return Err(ShapeError::NotARecord {
            version,
            found: noun(schema).to_owned(),
        });
    };
    let mut walk = Walk {
        names: resolved.get_names(),
        version,
        inside: Vec::new(),
        fields: 0,
    };
    walk.record(record, None, "")
}

struct Walk<'s> {
    names: &'s NamesRef<'s>,
    version: usize,
    /// The full names of the records around.
    inside: Vec<String>,
    fields: usize,
}

impl<'s> Walk<'s> {
    fn record(
        &mut self,
        record: &RecordSchema,
        namespace: Option<&str>,
        path: &str,
    ) -> Result<Vec<Branch>, ShapeError> {
        let name = record.name.fully_qualified_name(namespace).into_owned();
        if self.inside.len() >= DEPTH_MAX {
            return Err(self.too_large(path, format!("{DEPTH_MAX} levels of records")));
        }
        self.inside.push(name.to_string());
        let mut branches = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let path = super::join(path, &field.name);
            self.fields += 1;
            if self.fields > FIELDS_MAX {
                return Err(self.too_large(&path, format!("{FIELDS_MAX} fields")));
            }
            let (tree, nullable) = self.field(&field.schema, name.namespace(), &path)?;
            branches.push(Branch {
                name: field.name.clone(),
                names: vec![(self.version, field.name.clone())],
                aliases: field.aliases.clone(),
                nullable,
                tree,
                version: self.version,
                lacked: false,
            });
        }
        self.inside.pop();
        Ok(branches)
    }

    fn too_large(&self, path: &str, what: String) -> ShapeError {
        ShapeError::TooLarge {
            version: self.version,
            path: path.to_owned(),
            what,
        }
    }

    /// A field's tree and whether it may be null.
    fn field(&mut self, schema: &Schema, namespace: Option<&str>, path: &str) -> Result<(Tree, bool), ShapeError> {
        let (schema, nullable) = match schema {
            Schema::Union(union) => match only_variant(union) {
                Some(found) => found,
                None => return Ok((Tree::Leaf(Kind::Json), union.is_nullable())),
            },
            other => (other, false),
        };
        let (schema, namespace) = self.follow(schema, namespace)?;
        let tree = match schema {
            Schema::Null => return Ok((Tree::Nothing, true)),
            Schema::Record(record) if !self.recursive(record, namespace.as_deref()) => {
                Tree::Record(self.record(record, namespace.as_deref(), path)?)
            }
            _ => Tree::Leaf(self.kind(schema, namespace.as_deref(), path)?.unwrap_or(Kind::Json)),
        };
        Ok((tree, nullable))
    }

    /// What a reference refers to, with the namespace in which to read on.
    fn follow<'t>(
        &self,
        schema: &'t Schema,
        namespace: Option<&str>,
    ) -> Result<(&'t Schema, Option<String>), ShapeError>
    where
        's: 't,
    {
        let Schema::Ref { name } = schema else {
            return Ok((schema, namespace.map(str::to_owned)));
        };
        let name = name.fully_qualified_name(namespace);
        match self.names.get(name.as_ref()) {
            Some(schema) => Ok((schema, name.namespace().map(str::to_owned))),
            None => Err(ShapeError::Unresolved {
                version: self.version,
                reason: format!("`{name}` is not defined"),
            }),
        }
    }

    fn recursive(&self, record: &RecordSchema, namespace: Option<&str>) -> bool {
        let name = record.name.fully_qualified_name(namespace).to_string();
        self.inside.contains(&name)
    }

    /// The kind of a column or an element; `None` = it has none of its own.
    fn kind(&self, schema: &Schema, namespace: Option<&str>, path: &str) -> Result<Option<Kind>, ShapeError> {
        let kind = match schema {
            Schema::Null | Schema::Record(_) | Schema::Union(_) => return Ok(None),
            Schema::Ref { .. } => {
                let (schema, namespace) = self.follow(schema, namespace)?;
                return self.kind(schema, namespace.as_deref(), path);
            }
            Schema::Boolean => Kind::Bool,
            Schema::Int | Schema::TimeMillis => Kind::Int32,
            Schema::Long | Schema::TimeMicros | Schema::TimestampNanos | Schema::LocalTimestampNanos => Kind::Int64,
            Schema::Float => Kind::Float32,
            Schema::Double => Kind::Float64,
            Schema::String => Kind::String,
            Schema::Bytes | Schema::Fixed(_) | Schema::BigDecimal | Schema::Duration(_) => Kind::Bytes,
            Schema::Date => Kind::Date,
            Schema::TimestampMillis | Schema::LocalTimestampMillis => Kind::TimestampMillis,
            Schema::TimestampMicros | Schema::LocalTimestampMicros => Kind::TimestampMicros,
            Schema::Uuid(_) => Kind::Uuid,
            Schema::Enum(_) => Kind::Enum,
            Schema::Decimal(decimal) => decimal_kind(decimal.precision, decimal.scale, path)?,
            Schema::Array(array) => match self.element(&array.items, namespace, path)? {
                Some(element) => Kind::List(Box::new(element)),
                None => return Ok(None),
            },
            Schema::Map(map) => match self.element(&map.types, namespace, path)? {
                Some(element) => Kind::Map(Box::new(element)),
                None => return Ok(None),
            },
        };
        Ok(Some(kind))
    }

    fn element(&self, schema: &Schema, namespace: Option<&str>, path: &str) -> Result<Option<Element>, ShapeError> {
        let (schema, nullable) = match schema {
            Schema::Union(union) => match only_variant(union) {
                Some(found) => found,
                None => return Ok(None),
            },
            other => (other, false),
        };
        let Some(kind) = self.kind(schema, namespace, path)? else {
            return Ok(None);
        };
        // ClickHouse has no Nullable(Array) and no Nullable(Map): a missing one can't be told from an empty one.
        let composite = matches!(kind, Kind::List(_) | Kind::Map(_));
        Ok((!(composite && nullable)).then_some(Element { kind, nullable }))
    }
}

/// The one type besides null in a union, and whether null is there; `None` for unions of several types.
fn only_variant(union: &UnionSchema) -> Option<(&Schema, bool)> {
    let mut others = union.variants().iter().filter(|schema| !matches!(schema, Schema::Null));
    match (others.next(), others.next()) {
        (Some(only), None) => Some((only, union.is_nullable())),
        (None, _) => Some((&Schema::Null, true)),
        (Some(_), Some(_)) => None,
    }
}

fn decimal_kind(precision: usize, scale: usize, path: &str) -> Result<Kind, ShapeError> {
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(digits @ 1..=38), Ok(behind)) if scale <= precision => Ok(Kind::Decimal {
            precision: digits,
            scale: behind,
        }),
        _ => Err(ShapeError::Decimal {
            path: path.to_owned(),
            precision,
            scale,
        }),
    }
}

fn noun(schema: &Schema) -> &'static str {
    match schema {
        Schema::Null => "null",
        Schema::Array(_) => "an array",
        Schema::Map(_) => "a map",
        Schema::Union(_) => "a union",
        Schema::Enum(_) => "an enum",
        _ => "a single value",
    }
}
