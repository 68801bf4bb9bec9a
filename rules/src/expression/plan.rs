//! From SQL to something that can be evaluated over columns.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, DataFusionError, ScalarValue, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, Operator, lit};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::planner::{PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::Expr as SqlExpr;

use super::checked::Checked;
use super::functions::offered;
use super::guarded::Guarded;
use super::join_text::JoinText;
use super::lossless;
use super::map_entry;
use super::tree;
use super::{Mistake, Parsed};
use crate::catalog::EventShape;
use crate::position::Place;

/// An expression that is compiled for one event.
#[derive(Debug)]
pub struct Expression {
    pub(super) physical: Arc<dyn PhysicalExpr>,
    /// What it reads of an event, ascending.
    pub(super) inputs: Vec<Input>,
    /// The columns that these make.
    pub(super) schema: SchemaRef,
    /// Its value, when it has the same for all events.
    pub(super) constant: Option<ScalarValue>,
}

/// What an expression reads of an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// A column.
    Column(usize),
    /// The entry of this key in a column that is a map. Given by itself: it is found without a copy of the
    /// map.
    Entry(usize, String),
}

/// What an expression is for: it decides which types are right.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// True, false or NULL.
    Condition,
    /// A value of this column, or of the values of this map.
    Value(&'a Field),
    /// Anything that has a text.
    Text,
    /// An integer (as `Int64`) or a decimal (as `Decimal128`).
    Quantity,
}

impl Expression {
    /// Compiles an expression for an event.
    ///
    /// # Errors
    /// Columns that the event lacks, or the first place where types don't fit.
    pub fn compile(parsed: &Parsed, event: &EventShape, wanted: Wanted) -> Result<Self, Vec<Mistake>> {
        let ast = parsed.resolve(event)?;
        // A library that panics on a strange expression must not take the config service down.
        let compiled = catch_unwind(AssertUnwindSafe(|| compile(&ast, event, wanted)));
        let gave_up = "the expression can't be compiled: the SQL planner gave up on it";
        let compiled = compiled
            .unwrap_or_else(|_| Err(Mistake::new(START, gave_up)))
            .map_err(|mistake| vec![mistake])?;
        match compiled.hopeless() {
            Some(reason) => Err(vec![Mistake::new(
                START,
                format!("this fails for every event: {reason}"),
            )]),
            None => Ok(compiled),
        }
    }

    /// What it reads of an event, ascending.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }
}

const START: Place = Place { line: 1, column: 1 };

fn compile(ast: &SqlExpr, event: &EventShape, wanted: Wanted) -> Result<Expression, Mistake> {
    let schema = DFSchema::try_from(Arc::clone(&event.schema)).map_err(|error| Mistake::new(START, said(&error)))?;
    let typed = typed(ast, &schema).map_err(|error| Mistake::new(blamed(ast, &schema), said(&error)))?;
    finish(typed, &schema, event, wanted).map_err(|error| Mistake::new(START, said(&error)))
}

/// Plans, gives every operand its type, and replaces what could go wrong silently.
fn typed(ast: &SqlExpr, schema: &DFSchema) -> Result<Expr, DataFusionError> {
    let planner = SqlToRel::new(offered());
    let planned = planner.sql_to_expr(ast.clone(), schema, &mut PlannerContext::new())?;
    let typed = simplifier(schema).coerce(planned, schema)?;
    let safe = typed.transform_up(|node| make_safe(node, schema))?.data;
    // Types that don't fit come out here, rather than when the expression is evaluated.
    safe.get_type(schema)?;
    Ok(safe)
}

fn simplifier(schema: &DFSchema) -> ExprSimplifier {
    ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build())
}

fn make_safe(node: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    match node {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::StringConcat,
            right,
        }) => {
            let mut parts = Vec::new();
            for side in [*left, *right] {
                match side {
                    // Children come first: a chain is flat already.
                    Expr::ScalarFunction(call) if call.func.inner().is::<JoinText>() => parts.extend(call.args),
                    other => parts.push(other),
                }
            }
            Ok(Transformed::yes(call(JoinText::function(), parts)))
        }
        Expr::BinaryExpr(binary) => {
            let (left, right) = (binary.left.get_type(schema)?, binary.right.get_type(schema)?);
            match Checked::instead_of(binary.op, &left) {
                Some(checked) if left == right => {
                    Ok(Transformed::yes(call(checked, vec![*binary.left, *binary.right])))
                }
                _ => Ok(Transformed::no(Expr::BinaryExpr(binary))),
            }
        }
        Expr::Negative(inner) => {
            let data_type = inner.get_type(schema)?;
            match Checked::instead_of(Operator::Minus, &data_type) {
                Some(checked) => {
                    let zero = ScalarValue::new_zero(&data_type)?;
                    Ok(Transformed::yes(call(checked, vec![lit(zero), *inner])))
                }
                None => Ok(Transformed::no(Expr::Negative(inner))),
            }
        }
        Expr::ScalarFunction(function) => match Guarded::instead_of(&function.func) {
            Some(guarded) => Ok(Transformed::yes(call(guarded, function.args))),
            None => Ok(Transformed::no(Expr::ScalarFunction(function))),
        },
        Expr::Cast(ref cast) if cast.field.data_type().is_nested() => refused_cast(cast.field.data_type()),
        Expr::TryCast(ref cast) if cast.field.data_type().is_nested() => refused_cast(cast.field.data_type()),
        other => Ok(Transformed::no(other)),
    }
}

fn refused_cast<T>(data_type: &DataType) -> Result<T, DataFusionError> {
    plan_err!("CAST makes plain values; {} is none", lossless::noun(data_type))
}

fn call(function: Arc<datafusion_expr::ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
}

fn finish(typed: Expr, schema: &DFSchema, event: &EventShape, wanted: Wanted) -> Result<Expression, DataFusionError> {
    let simplifier = simplifier(schema);
    let simple = simplifier.simplify(typed)?;
    let target = target(&simple, schema, wanted)?;
    let expr = simplifier.simplify(simple.cast_to(&target, schema)?)?;
    let constant = match &expr {
        Expr::Literal(value, _) => Some(value.clone()),
        _ => None,
    };
    let (expr, entries) = entries_apart(expr, schema)?;
    let mut fields = BTreeMap::new();
    for column in expr.column_refs() {
        let (input, field) = match entries.get(column.name()) {
            Some((map, key, field)) => (
                Input::Entry(event.schema.index_of(map)?, key.clone()),
                Arc::clone(field),
            ),
            None => {
                let index = event.schema.index_of(column.name())?;
                (Input::Column(index), Arc::clone(&event.schema.fields()[index]))
            }
        };
        fields.insert(input, field);
    }
    let (inputs, fields): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let projected = Arc::new(Schema::new(fields));
    let narrow = DFSchema::try_from(Arc::clone(&projected))?;
    let physical =
        datafusion_physical_expr::create_physical_expr(&expr, &narrow, &ExecutionProps::new(), &Default::default())?;
    Ok(Expression {
        physical,
        inputs,
        schema: projected,
        constant,
    })
}

/// By the name of the column that stands for it: the map, the key, and the column.
type Entries = BTreeMap<String, (String, String, FieldRef)>;

/// Has entries of maps come as columns of their own.
fn entries_apart(expr: Expr, schema: &DFSchema) -> Result<(Expr, Entries), DataFusionError> {
    let mut entries = Entries::new();
    let apart = expr.transform_up(|node| {
        let Some((map, key)) = entry(&node, schema) else {
            return Ok(Transformed::no(node));
        };
        // No column of an event has brackets in its name.
        let name = format!("{map}[{key}]");
        let field = Arc::new(Field::new(&name, node.get_type(schema)?, true));
        entries.insert(name.clone(), (map, key, field));
        Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name))))
    })?;
    Ok((apart.data, entries))
}

/// The map's name and the key, if this is the entry of an event's column; that of an entry, which is a map itself, is left to the function.
fn entry(node: &Expr, schema: &DFSchema) -> Option<(String, String)> {
    match node {
        Expr::ScalarFunction(call) if call.func.name() == map_entry::NAME => match call.args.as_slice() {
            [Expr::Column(map), Expr::Literal(ScalarValue::Utf8(Some(key)), _)]
                if schema.field_with_unqualified_name(map.name()).is_ok() =>
            {
                Some((map.name().to_owned(), key.clone()))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The type to which the value is cast, if its own is right for what it is for.
fn target(expr: &Expr, schema: &DFSchema, wanted: Wanted) -> Result<DataType, DataFusionError> {
    let data_type = expr.get_type(schema)?;
    let is = lossless::noun(&data_type);
    match wanted {
        Wanted::Condition => match data_type {
            DataType::Boolean | DataType::Null => Ok(DataType::Boolean),
            _ => plan_err!("a condition is true or false; this is {is}"),
        },
        Wanted::Value(field) => {
            let literal = match expr {
                Expr::Literal(value, _) => Some(value),
                _ => None,
            };
            if !field.is_nullable() && literal.is_some_and(ScalarValue::is_null) {
                return plan_err!("the column can't be NULL");
            }
            match lossless::check(&data_type, field.data_type(), literal) {
                Ok(()) => Ok(field.data_type().clone()),
                Err(message) => Err(DataFusionError::Plan(message)),
            }
        }
        Wanted::Text => match data_type {
            DataType::Null => Ok(DataType::Utf8),
            plain if lossless::is_plain(&plain) => Ok(DataType::Utf8),
            _ => plan_err!("this has to be text, or something that has a text; it is {is}"),
        },
        Wanted::Quantity => match data_type {
            DataType::UInt64 => Ok(DataType::Decimal128(20, 0)),
            integer if integer.is_integer() => Ok(DataType::Int64),
            DataType::Decimal32(..) | DataType::Decimal64(..) => Ok(DataType::Decimal128(18, scale(&data_type))),
            DataType::Decimal128(..) => Ok(data_type),
            float if float.is_floating() => {
                plan_err!(
                    "a quantity can't be a float, which is not exact; count the meter's smallest part in integers"
                )
            }
            _ => plan_err!("a quantity is an integer or a decimal; this is {is}"),
        },
    }
}

fn scale(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => *scale,
        _ => 0,
    }
}

/// Where the smallest part begins that can't be planned by itself: what is inside it can, so the fault is there.
fn blamed(ast: &SqlExpr, schema: &DFSchema) -> Place {
    let mut smallest = None;
    tree::walk(&mut ast.clone(), &mut |expr| {
        if smallest.is_none() && typed(expr, schema).is_err() {
            smallest = Some(tree::start(expr));
        }
    });
    smallest.unwrap_or(START)
}

/// The first line of what DataFusion says, without its kinds and stack.
fn said(error: &DataFusionError) -> String {
    let root = error.find_root();
    let message = root.message();
    let line = message.lines().next().unwrap_or_default();
    let line = line.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    // A function's refusal comes wrapped: `… coercion failed with: Error during planning: …`.
    let line = line
        .rsplit_once("Error during planning: ")
        .map_or(line, |(_, said)| said)
        .trim_end_matches('.');
    let mut letters = line.chars();
    let second = letters.clone().nth(1);
    match letters.next() {
        // `Cannot coerce …` begins a sentence there and continues one here; names of types stay.
        Some(first) if first.is_uppercase() && second.is_some_and(char::is_lowercase) && !line.starts_with("Int") => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => line.to_owned(),
    }
}
