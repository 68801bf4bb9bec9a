//! Walking an SQL expression. The forms that rules may use are listed here; what isn't is refused.
//!
//! sqlparser's own visitors know all of SQL and are compiled again for each use: five of them took minutes.

use datafusion_sql::sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Spanned, Subscript, TypedString, Value,
};
use datafusion_sql::sqlparser::tokenizer::Span;

use crate::position::Place;

/// Why a query is refused.
pub const NO_QUERIES: &str = "a rule sees one event: there are no queries in it";
const NO_WINDOWS: &str = "a rule sees one event: OVER, FILTER, DISTINCT and ORDER BY have no meaning in it";
const NO_USE: &str = "this form of expression is not for rules";
const NO_NESTED_TYPES: &str = "CAST makes plain values: numbers, texts, times";

/// Where a part of an expression begins.
pub fn start(expr: &Expr) -> Place {
    place(expr.span())
}

/// Where a span begins.
pub fn place(span: Span) -> Place {
    Place {
        line: span.start.line,
        column: span.start.column,
    }
}

/// Whether no part is deeper than `levels`. Ends before the recursion itself gets deeper.
///
/// # Errors
/// The first form that rules can't use, or that the tree is deeper.
pub fn check(expr: &mut Expr, levels: usize) -> Result<(), (Place, Refused)> {
    let Some(levels) = levels.checked_sub(1) else {
        return Err((head(expr), Refused::TooDeep));
    };
    let at = head(expr);
    match parts(expr) {
        Ok(parts) => parts.into_iter().try_for_each(|part| check(part, levels)),
        Err(message) => Err((at, Refused::Form(message))),
    }
}

/// Why a tree can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    TooDeep,
    Form(&'static str),
}

/// Calls `visit` for each part and then for the whole. Only for trees that [`check`] has let through.
pub fn walk(expr: &mut Expr, visit: &mut dyn FnMut(&mut Expr)) {
    for part in parts(expr).unwrap_or_default() {
        walk(part, visit);
    }
    visit(expr);
}

/// Where a tree begins, found without walking down the whole of a deep one.
fn head(expr: &Expr) -> Place {
    match expr {
        Expr::Identifier(ident) => place(ident.span),
        Expr::Value(value) => place(value.span),
        Expr::Function(function) => place(function.name.span()),
        _ => Place { line: 1, column: 1 },
    }
}

/// The expressions right below one.
fn parts(expr: &mut Expr) -> Result<Vec<&mut Expr>, &'static str> {
    Ok(match expr {
        Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) if !is_plain(data_type) => {
            return Err(NO_NESTED_TYPES);
        }
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) | Expr::TypedString(_) => Vec::new(),
        Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotUnknown(inner)
        | Expr::Nested(inner) => vec![inner],
        Expr::UnaryOp { expr, .. }
        | Expr::Cast { expr, .. }
        | Expr::Extract { expr, .. }
        | Expr::Ceil { expr, .. }
        | Expr::Floor { expr, .. } => vec![expr],
        Expr::Interval(interval) => vec![&mut interval.value],
        Expr::IsDistinctFrom(left, right)
        | Expr::IsNotDistinctFrom(left, right)
        | Expr::BinaryOp { left, right, .. }
        | Expr::Like {
            expr: left,
            pattern: right,
            ..
        }
        | Expr::ILike {
            expr: left,
            pattern: right,
            ..
        }
        | Expr::SimilarTo {
            expr: left,
            pattern: right,
            ..
        }
        | Expr::AtTimeZone {
            timestamp: left,
            time_zone: right,
        }
        | Expr::Position {
            expr: left,
            r#in: right,
        } => vec![left, right],
        Expr::Between { expr, low, high, .. } => vec![expr, low, high],
        Expr::InList { expr, list, .. } => std::iter::once(expr.as_mut()).chain(list).collect(),
        Expr::Substring {
            expr,
            substring_from,
            substring_for,
            ..
        } => with_optional(vec![expr], [substring_from, substring_for]),
        Expr::Trim {
            expr,
            trim_what,
            trim_characters: None,
            ..
        } => with_optional(vec![expr], [trim_what]),
        Expr::Overlay {
            expr,
            overlay_what,
            overlay_from,
            overlay_for,
        } => with_optional(vec![expr, overlay_what, overlay_from], [overlay_for]),
        Expr::Case {
            operand,
            conditions,
            else_result,
            ..
        } => {
            let mut parts = with_optional(Vec::new(), [operand]);
            parts.extend(
                conditions
                    .iter_mut()
                    .flat_map(|when| [&mut when.condition, &mut when.result]),
            );
            with_optional(parts, [else_result])
        }
        Expr::CompoundFieldAccess { root, access_chain } => {
            let inside = access_chain.iter_mut().flat_map(accessed);
            std::iter::once(root.as_mut()).chain(inside).collect()
        }
        Expr::Function(function) => arguments(function)?,
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => return Err(NO_QUERIES),
        _ => return Err(NO_USE),
    })
}

/// The expressions in one link of a chain such as `properties['key']`. A name behind a dot is a part of the column's.
fn accessed(access: &mut AccessExpr) -> Vec<&mut Expr> {
    match access {
        AccessExpr::Dot(Expr::Identifier(_)) => Vec::new(),
        AccessExpr::Dot(inner) => vec![inner],
        AccessExpr::Subscript(Subscript::Index { index }) => vec![index],
        AccessExpr::Subscript(Subscript::Slice {
            lower_bound,
            upper_bound,
            stride,
        }) => [lower_bound, upper_bound, stride].into_iter().flatten().collect(),
    }
}

/// Whether a type has no types inside, or is a list of such a type, which has its own refusal later on. What nests
/// would be walked by the planner as deep as it is.
fn is_plain(data_type: &DataType) -> bool {
    let inner = match data_type {
        DataType::Array(ArrayElemTypeDef::AngleBracket(inner) | ArrayElemTypeDef::SquareBracket(inner, _)) => inner,
        other => other,
    };
    !matches!(
        inner,
        DataType::Array(_)
            | DataType::Map(..)
            | DataType::Struct(..)
            | DataType::Tuple(_)
            | DataType::Union(_)
            | DataType::Nested(_)
            | DataType::Nullable(_)
            | DataType::LowCardinality(_)
            | DataType::Table(_)
            | DataType::NamedTable { .. }
    )
}

/// How many parts the planner makes of an expression, at most. It writes `BETWEEN`, `coalesce`, conditions and
/// patterns out in terms of others, and in that what they look at stands several times; so nested ones would double,
/// or worse, with every level. Only for trees that [`check`] has let through.
pub fn planned_parts(expr: &mut Expr) -> usize {
    let copied = Copied::by(expr);
    let parts = parts(expr).unwrap_or_default();
    let count = parts.len();
    let planned = |(index, part): (usize, &mut Expr)| copied.times(index, count).saturating_mul(planned_parts(part));
    parts
        .into_iter()
        .enumerate()
        .map(planned)
        .fold(1, usize::saturating_add)
}

/// How often the parts of an expression stand in what the planner makes of it.
enum Copied {
    /// The first so many times, the others once.
    First(usize),
    /// The last once, the others so many times.
    AllButLast(usize),
    /// Of a `CASE`, what stands behind each of so many `WHEN`s; the values once.
    Conditions { conditions: usize, times: usize },
}

impl Copied {
    fn times(&self, index: usize, parts: usize) -> usize {
        match *self {
            Self::First(times) if index == 0 => times,
            Self::AllButLast(times) if index + 1 < parts => times,
            Self::Conditions { conditions, times } if index < 2 * conditions && index.is_multiple_of(2) => times,
            _ => 1,
        }
    }

    fn by(expr: &Expr) -> Self {
        /// With fewer conditions, or only true and false behind them, the planner makes `AND`s and `OR`s of a `CASE`
        /// whose value is true or false.
        const FEW: usize = 3;
        /// A pattern of at most four alternatives becomes as many comparisons.
        const ALTERNATIVES: usize = 4;
        match expr {
            Expr::Between { .. } => Self::First(2),
            Expr::BinaryOp { op, .. } if is_regex(op) => Self::First(ALTERNATIVES),
            Expr::Function(function) => match function.name.to_string().to_lowercase().trim_matches('"') {
                "coalesce" | "nvl" | "ifnull" => Self::AllButLast(FEW + 1),
                "nvl2" => Self::First(FEW),
                "regexp_like" => Self::First(ALTERNATIVES),
                _ => Self::First(1),
            },
            Expr::Case {
                operand: None,
                conditions,
                ..
            } if conditions.len() < FEW || conditions.iter().all(|when| may_be_constant(&when.result)) => {
                Self::Conditions {
                    conditions: conditions.len(),
                    times: conditions.len() + 2,
                }
            }
            _ => Self::First(1),
        }
    }
}

/// Whether the planner may find this to be true or false for all events.
fn may_be_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => may_be_constant(inner),
        Expr::Value(value) => matches!(value.value, Value::Boolean(_) | Value::Null),
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::CompoundFieldAccess { .. } => false,
        Expr::BinaryOp { op, .. } => !matches!(
            op,
            BinaryOperator::Plus
                | BinaryOperator::Minus
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo
                | BinaryOperator::StringConcat
        ),
        _ => true,
    }
}

/// Whether an operator compares with a pattern.
pub fn is_regex(op: &BinaryOperator) -> bool {
    use BinaryOperator::{PGRegexIMatch, PGRegexMatch, PGRegexNotIMatch, PGRegexNotMatch, Regexp};
    matches!(
        op,
        PGRegexIMatch | PGRegexMatch | PGRegexNotIMatch | PGRegexNotMatch | Regexp
    )
}

fn with_optional<'a, const N: usize>(
    mut parts: Vec<&'a mut Expr>,
    optional: [&'a mut Option<Box<Expr>>; N],
) -> Vec<&'a mut Expr> {
    parts.extend(optional.into_iter().flatten().map(AsMut::as_mut));
    parts
}

fn arguments(function: &mut Function) -> Result<Vec<&mut Expr>, &'static str> {
    let plain = function.over.is_none()
        && function.filter.is_none()
        && function.null_treatment.is_none()
        && function.within_group.is_empty()
        && matches!(function.parameters, FunctionArguments::None);
    if !plain {
        return Err(NO_WINDOWS);
    }
    match &mut function.args {
        FunctionArguments::None => Ok(Vec::new()),
        FunctionArguments::Subquery(_) => Err(NO_QUERIES),
        FunctionArguments::List(list) if list.duplicate_treatment.is_some() || !list.clauses.is_empty() => {
            Err(NO_WINDOWS)
        }
        FunctionArguments::List(list) => {
            let expr = |argument| match argument {
                &mut FunctionArg::Unnamed(FunctionArgExpr::Expr(ref mut expr)) => Ok(expr),
                _ => Err("a function's arguments are plain values, without names or `*`"),
            };
            list.args.iter_mut().map(expr).collect()
        }
    }
}
