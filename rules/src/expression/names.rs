//! Names inside of an expression: which columns it reads, and which entries of maps.

use datafusion_sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, Subscript,
};
use datafusion_sql::sqlparser::tokenizer::Span;

use super::parsed::{Name, arguments, literal};
use super::tree::{place, start, walk};
use super::{Mistake, map_entry};
use crate::catalog::EventShape;

/// "there is no column `contxt.page`; did you mean `context.page`?"
pub fn unknown_column(name: &str, event: &EventShape) -> String {
    let of = &event.name;
    match document::nearest(name, event.paths()) {
        Some(meant) => format!("{of} has no column `{name}`; did you mean `{meant}`?"),
        None => format!("{of} has no column `{name}`"),
    }
}

/// The key of a lookup that [`call_lookups`] has made.
pub fn literal_key(call: &Function) -> Option<String> {
    let is_lookup = call.name.to_string() == map_entry::NAME;
    let key = arguments(call).get(1).copied().flatten().and_then(literal)?;
    is_lookup.then(|| key.to_owned())
}

/// Turns every `properties['key']` into a call: the SQL planner would take it for a field of a struct.
pub fn call_lookups(expr: &mut Expr, mistakes: &mut Vec<Mistake>) {
    walk(expr, &mut |expr| {
        let at = start(expr);
        if let Expr::CompoundFieldAccess { root, access_chain } = expr {
            match lookup_call(root, access_chain) {
                Some(call) => *expr = call,
                None => mistakes.push(Mistake::new(
                    at,
                    "brackets read an entry of a map column, such as properties['key']; nothing else can be taken apart",
                )),
            }
        }
    });
}

fn lookup_call(root: &Expr, chain: &[AccessExpr]) -> Option<Expr> {
    let mut idents = match root {
        Expr::Identifier(ident) => vec![ident.clone()],
        Expr::CompoundIdentifier(idents) => idents.clone(),
        _ => return None,
    };
    let (last, dots) = chain.split_last()?;
    for dot in dots {
        let AccessExpr::Dot(Expr::Identifier(ident)) = dot else {
            return None;
        };
        idents.push(ident.clone());
    }
    let AccessExpr::Subscript(Subscript::Index { index }) = last else {
        return None;
    };
    let span = idents.first()?.span;
    let mut name = Ident::new(map_entry::NAME);
    name.span = span;
    let column = match idents.len() {
        1 => Expr::Identifier(idents.remove(0)),
        _ => Expr::CompoundIdentifier(idents),
    };
    let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    Some(call(name, vec![argument(column), argument(index.clone())]))
}

fn call(name: Ident, args: Vec<FunctionArg>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![name]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The columns that an expression names.
pub fn named(expr: &mut Expr) -> Vec<Name> {
    let mut found = Vec::new();
    walk(expr, &mut |expr| {
        if let Some((column, span)) = column_name(expr) {
            found.push(Name {
                column,
                entry: None,
                place: place(span),
            });
        }
    });
    found
}

fn column_name(expr: &Expr) -> Option<(String, Span)> {
    match expr {
        Expr::Identifier(ident) => Some((ident.value.clone(), ident.span)),
        Expr::CompoundIdentifier(idents) => {
            let parts: Vec<&str> = idents.iter().map(|ident| ident.value.as_str()).collect();
            Some((parts.join("."), idents.first()?.span))
        }
        _ => None,
    }
}

/// Gives every column the name that it has in the schema; those that the event lacks are mistakes.
pub fn resolve(expr: &mut Expr, event: &EventShape) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    walk(expr, &mut |expr| {
        let Some((name, span)) = column_name(expr) else { return };
        match event.index(&name) {
            Some(index) => {
                // Quoted: the planner lower-cases what is not.
                let mut ident = Ident::with_quote('"', event.schema.field(index).name());
                ident.span = span;
                *expr = Expr::Identifier(ident);
            }
            None => mistakes.push(Mistake::new(place(span), unknown_column(&name, event))),
        }
    });
    mistakes
}
