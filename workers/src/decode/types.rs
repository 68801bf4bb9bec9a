//! The writer's types as a graph of small nodes, for the two walks that follow the writer alone: stepping over a value
//! that has no column, and writing one as JSON. Recursive schemas are cycles in the graph; [`DEPTH_MAX`] ends them.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, Name, NamesRef, NamespaceRef, UuidSchema};

use super::DEPTH_MAX;
use super::cursor::Cursor;
use super::error::{Fault, PlanError};

/// Index of a node in [`Types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TypeId(usize);

/// What the bytes of one value look like.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    UuidText,
    UuidBytes,
    UuidFixed,
    Fixed(usize),
    /// At most 38 digits; longer ones are the bytes they are made of. `size`: of a fixed; `None` = length first.
    Decimal {
        size: Option<usize>,
        limit: i128,
        scale: usize,
    },
    Enum(Vec<String>),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    Record(Vec<(String, TypeId)>),
}

/// All types that a plan may have to walk.
#[derive(Debug, Default)]
pub(super) struct Types {
    nodes: Vec<Type>,
    /// Least encoded bytes of each node; 0 = may take none.
    bytes_min: Vec<usize>,
}

/// Turns schemas into nodes. A named type becomes one node however often it is referred to.
pub(super) struct TypesBuilder<'a> {
    types: Types,
    named: HashMap<Name, TypeId>,
    names: &'a NamesRef<'a>,
}

impl<'a> TypesBuilder<'a> {
    pub(super) fn new(names: &'a NamesRef<'a>) -> Self {
        TypesBuilder {
            types: Types::default(),
            named: HashMap::new(),
            names,
        }
    }

    pub(super) fn finish(mut self) -> Types {
        self.types.measure();
        self.types
    }

    /// The node of a schema, inside the namespace of the record around it.
    pub(super) fn add(&mut self, schema: &Schema, around: NamespaceRef<'_>) -> Result<TypeId, PlanError> {
        if let Schema::Ref { name } = schema {
            let name = name.fully_qualified_name(around).into_owned();
            if let Some(id) = self.named.get(&name) {
                return Ok(*id);
            }
            let named = *self.names.get(&name).ok_or_else(|| unresolved(&name))?;
            return self.named(named, name);
        }
        match schema.name() {
            Some(name) => self.named(schema, name.fully_qualified_name(around).into_owned()),
            None => {
                let node = self.node(schema, around)?;
                Ok(self.push(node))
            }
        }
    }

    fn named(&mut self, schema: &Schema, name: Name) -> Result<TypeId, PlanError> {
        if let Some(id) = self.named.get(&name) {
            return Ok(*id);
        }
        // The place is taken before its fields are looked at: they may refer back to it.
        let id = self.push(Type::Null);
        let namespace = name.namespace().map(str::to_owned);
        self.named.insert(name, id);
        let node = self.node(schema, namespace.as_deref())?;
        if let Some(slot) = self.types.nodes.get_mut(id.0) {
            *slot = node;
        }
        Ok(id)
    }

    fn push(&mut self, node: Type) -> TypeId {
        self.types.nodes.push(node);
        TypeId(self.types.nodes.len() - 1)
    }

    fn node(&mut self, schema: &Schema, around: NamespaceRef<'_>) -> Result<Type, PlanError> {
        Ok(match schema {
            Schema::Null => Type::Null,
            Schema::Boolean => Type::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Type::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Type::Long,
            Schema::Float => Type::Float,
            Schema::Double => Type::Double,
            Schema::Bytes | Schema::BigDecimal => Type::Bytes,
            Schema::String => Type::String,
            Schema::Uuid(UuidSchema::String) => Type::UuidText,
            Schema::Uuid(UuidSchema::Bytes) => Type::UuidBytes,
            Schema::Uuid(UuidSchema::Fixed(_)) => Type::UuidFixed,
            Schema::Fixed(fixed) | Schema::Duration(fixed) => Type::Fixed(fixed.size),
            Schema::Decimal(decimal) => decimal_type(decimal),
            Schema::Enum(symbols) => Type::Enum(symbols.symbols.clone()),
            Schema::Array(array) => Type::Array(self.add(&array.items, around)?),
            Schema::Map(map) => Type::Map(self.add(&map.types, around)?),
            Schema::Union(union) => Type::Union(
                union
                    .variants()
                    .iter()
                    .map(|branch| self.add(branch, around))
                    .collect::<Result<_, _>>()?,
            ),
            Schema::Record(record) => {
                let field = |field: &apache_avro::schema::RecordField| {
                    Ok::<_, PlanError>((field.name.clone(), self.add(&field.schema, around)?))
                };
                Type::Record(record.fields.iter().map(field).collect::<Result<_, _>>()?)
            }
            Schema::Ref { .. } => {
                let id = self.add(schema, around)?;
                self.types.get(id).clone()
            }
        })
    }
}

pub(super) fn unresolved(name: &Name) -> PlanError {
    PlanError::Unresolved {
        reason: format!("{name} is not defined"),
    }
}

impl Types {
    pub(super) fn get(&self, id: TypeId) -> &Type {
        self.nodes.get(id.0).unwrap_or(&Type::Null)
    }

    /// Least encoded bytes of one value.
    pub(super) fn bytes_min(&self, id: TypeId) -> usize {
        self.bytes_min.get(id.0).copied().unwrap_or(0)
    }

    /// Finds `bytes_min` of every node: from below, as often as a record turns out to need more.
    fn measure(&mut self) {
        const ENOUGH: usize = 1 << 16;
        self.bytes_min = vec![0; self.nodes.len()];
        for _ in 0..self.nodes.len() {
            let next: Vec<usize> = self.nodes.iter().map(|node| self.least(node).min(ENOUGH)).collect();
            if std::mem::replace(&mut self.bytes_min, next) == self.bytes_min {
                return;
            }
        }
    }

    fn least(&self, node: &Type) -> usize {
        match node {
            Type::Null => 0,
            Type::Float => 4,
            Type::Double => 8,
            Type::UuidFixed => 16,
            Type::Fixed(size) | Type::Decimal { size: Some(size), .. } => *size,
            Type::Record(fields) => fields
                .iter()
                .fold(0, |sum, (_, field)| sum.saturating_add(self.bytes_min(*field))),
            _ => 1,
        }
    }

    /// Steps over one value, with every check that reading it would make. `depth`: containers around it.
    pub(super) fn skip(&self, id: TypeId, cursor: &mut Cursor<'_>, depth: u32) -> Result<(), Fault> {
        // Records of nothing but nulls can nest so that walking them takes for ever.
        if self.bytes_min(id) == 0 {
            return Ok(());
        }
        match self.get(id) {
            Type::Null => {}
            Type::Boolean => {
                cursor.boolean()?;
            }
            Type::Int => {
                cursor.int()?;
            }
            Type::Long => {
                cursor.long()?;
            }
            Type::Float => {
                cursor.take(4)?;
            }
            Type::Double => {
                cursor.take(8)?;
            }
            Type::Bytes => {
                cursor.bytes()?;
            }
            Type::Decimal { size, limit, .. } => {
                decimal(cursor, *size, *limit)?;
            }
            Type::String => {
                cursor.text()?;
            }
            Type::UuidText => {
                apache_avro::Uuid::try_parse(cursor.text()?).map_err(|_| Fault::Uuid)?;
            }
            Type::UuidBytes => {
                if cursor.bytes()?.len() != 16 {
                    return Err(Fault::Uuid);
                }
            }
            Type::UuidFixed => {
                cursor.take(16)?;
            }
            Type::Fixed(size) => {
                cursor.take(*size)?;
            }
            Type::Enum(symbols) => {
                symbol(cursor, symbols)?;
            }
            Type::Union(branches) => {
                let branch = cursor.branch(branches.len())?;
                self.skip(*branches.get(branch).ok_or(Fault::Union)?, cursor, depth)?;
            }
            Type::Record(fields) => {
                let depth = deeper(depth)?;
                for (_, field) in fields {
                    self.skip(*field, cursor, depth)?;
                }
            }
            Type::Array(item) => self.skip_items(*item, cursor, (false, depth))?,
            Type::Map(value) => self.skip_items(*value, cursor, (true, depth))?,
        }
        Ok(())
    }

    fn skip_items(&self, item: TypeId, cursor: &mut Cursor<'_>, (keys, depth): (bool, u32)) -> Result<(), Fault> {
        let depth = deeper(depth)?;
        let bytes_min = self.bytes_min(item) + usize::from(keys);
        loop {
            let count = cursor.block(bytes_min)?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                if keys {
                    cursor.text()?;
                }
                self.skip(item, cursor, depth)?;
            }
        }
    }
}

fn decimal_type(
    DecimalSchema {
        precision,
        scale,
        inner,
    }: &DecimalSchema,
) -> Type {
    let size = match inner {
        InnerDecimalSchema::Bytes => None,
        InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
    };
    match (decimal_limit(*precision), size) {
        (Some(limit), size) => Type::Decimal {
            size,
            limit,
            scale: *scale,
        },
        (None, Some(size)) => Type::Fixed(size),
        (None, None) => Type::Bytes,
    }
}

/// The least number with more than `precision` digits; `None` = past what 128 bits can hold.
pub(super) fn decimal_limit(precision: usize) -> Option<i128> {
    if precision > 38 {
        None
    } else {
        10i128.checked_pow(u32::try_from(precision).ok()?)
    }
}

/// The unscaled integer of a decimal of this many bytes, or with its length first.
pub(super) fn decimal(cursor: &mut Cursor<'_>, size: Option<usize>, limit: i128) -> Result<i128, Fault> {
    let bytes = match size {
        Some(size) => cursor.take(size)?,
        None => cursor.bytes()?,
    };
    integer(bytes)
        .filter(|value| -limit < *value && *value < limit)
        .ok_or(Fault::Decimal)
}

/// The symbol of an enum. It is charged: in an array, a byte may stand for a long one.
pub(super) fn symbol<'s>(cursor: &mut Cursor<'_>, symbols: &'s [String]) -> Result<&'s str, Fault> {
    let symbol = symbols.get(cursor.symbol(symbols.len())?).ok_or(Fault::Enum)?;
    cursor.expand(symbol.len())?;
    Ok(symbol)
}

/// A big-endian two's complement integer of any length; `None` = it needs more than 128 bits.
fn integer(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let sign: u8 = if negative { 0xff } else { 0 };
    let (extension, digits) = bytes.split_at(bytes.len().saturating_sub(16));
    if extension.iter().any(|byte| *byte != sign) {
        return None;
    }
    let mut wide = [sign; 16];
    wide.get_mut(16 - digits.len()..)?.copy_from_slice(digits);
    let value = i128::from_be_bytes(wide);
    // After extension bytes the first digit must still carry the sign.
    ((value < 0) == negative).then_some(value)
}

/// One container further in.
pub(super) fn deeper(depth: u32) -> Result<u32, Fault> {
    if depth < DEPTH_MAX {
        Ok(depth + 1)
    } else {
        Err(Fault::TooDeep)
    }
}
