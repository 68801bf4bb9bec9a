//! Walking an SQL expression. The forms that rules may use are listed here; what isn't is refused.
//!
//! sqlparser's own visitors know all of SQL and are compiled again for each use: five of them took minutes.

use datafusion_sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned, Subscript,
};
use datafusion_sql::sqlparser::tokenizer::Span;

use crate::position::Place;

const NO_QUERIES: &str = "a rule sees one event: there are no queries in it";
const NO_WINDOWS: &str = "a rule sees one event: OVER, FILTER, DISTINCT and ORDER BY have no meaning in it";
const NO_USE: &str = "this form of expression is not for rules";

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
        Expr::Subquery(query) | Expr::Exists { subquery: query, .. } => place(query.span()),
        Expr::InSubquery { expr, .. } => head(expr),
        _ => Place { line: 1, column: 1 },
    }
}

/// The expressions right below one.
fn parts(expr: &mut Expr) -> Result<Vec<&mut Expr>, &'static str> {
    Ok(match expr {
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
            let index = |access| match access {
                &mut AccessExpr::Subscript(Subscript::Index { ref mut index }) => Some(index),
                _ => None,
            };
            std::iter::once(root.as_mut())
                .chain(access_chain.iter_mut().filter_map(index))
                .collect()
        }
        Expr::Function(function) => arguments(function)?,
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => return Err(NO_QUERIES),
        _ => return Err(NO_USE),
    })
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
