//! An expression as SQL text, with the columns and functions it names.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectNamePart,
    Query, Spanned, Subscript, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion_sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Span, Token};

use super::functions::offered;
use super::{Mistake, map_entry};
use crate::catalog::EventShape;
use crate::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, REPLACEMENT_BYTES_MAX};
use crate::position::Place;

/// An expression that is well-formed. Whether its columns exist depends on the event.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// As it was typed.
    pub text: String,
    /// With map lookups as calls of our own function; columns still by the name that the user wrote.
    ast: Expr,
    /// The columns it reads, in the order of the text; a name may come twice.
    pub names: Vec<Name>,
}

/// A column, or an entry of a map column, as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `context.user_agent`, `context_user_agent`, `properties`.
    pub column: String,
    /// `email` of `properties['email']`.
    pub entry: Option<String>,
    /// Where in the text.
    pub place: Place,
}

impl Parsed {
    /// Parses an expression.
    ///
    /// # Errors
    /// Everything that is wrong without knowing the event: syntax, functions that are not offered, what no rule needs.
    pub fn new(text: &str) -> Result<Self, Vec<Mistake>> {
        if text.len() > EXPRESSION_BYTES_MAX {
            let message = format!(
                "the expression has {} bytes; at most {EXPRESSION_BYTES_MAX} are allowed",
                text.len()
            );
            return Err(vec![Mistake::new(Place::default(), message)]);
        }
        let mut ast = parse(text).map_err(|mistake| vec![mistake])?;
        let mut depth = Depth(0);
        if let ControlFlow::Break(place) = ast.visit(&mut depth) {
            let message = format!("the expression is nested more than {EXPRESSION_DEPTH_MAX} deep; split the rule");
            // A tree this deep must not be dropped recursively on a small stack, but 4 KiB of text can't make one.
            return Err(vec![Mistake::new(place, message)]);
        }
        let mut collector = Collector::default();
        let ControlFlow::Continue(()) = ast.visit(&mut collector);
        let mut lookups = Lookups::default();
        let ControlFlow::Continue(()) = VisitMut::visit(&mut ast, &mut lookups);
        let mut mistakes = collector.mistakes;
        mistakes.extend(lookups.mistakes);
        if !mistakes.is_empty() {
            mistakes.sort_by_key(|mistake| (mistake.place.line, mistake.place.column));
            return Err(mistakes);
        }
        let mut names = Names::default();
        let ControlFlow::Continue(()) = ast.visit(&mut names);
        Ok(Self {
            text: text.to_owned(),
            ast,
            names: names.found,
        })
    }

    /// The tree with every column by its flattened name.
    ///
    /// # Errors
    /// Every name that the event lacks.
    pub fn resolve(&self, event: &EventShape) -> Result<Expr, Vec<Mistake>> {
        let mut ast = self.ast.clone();
        let mut resolver = Resolver {
            event,
            mistakes: Vec::new(),
        };
        let ControlFlow::Continue(()) = VisitMut::visit(&mut ast, &mut resolver);
        if resolver.mistakes.is_empty() {
            Ok(ast)
        } else {
            Err(resolver.mistakes)
        }
    }
}

impl Name {
    /// Reads what a rule sets, masks or renames: a column or an entry of a map.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn new(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no column; write a path such as context.page.url, or properties['key']");
        let parsed = Parsed::new(text).map_err(|_| wrong())?;
        let entry = match &parsed.ast {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => None,
            Expr::Function(call) => Some(literal_key(call).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
        let name = parsed.names.into_iter().next().ok_or_else(wrong)?;
        Ok(Self { entry, ..name })
    }

    /// As somebody would write it.
    pub fn written(&self) -> String {
        match &self.entry {
            None => self.column.clone(),
            Some(key) => format!("{}['{}']", self.column, key.replace('\'', "''")),
        }
    }
}

/// "there is no column `contxt.page`; did you mean `context.page`?"
pub fn unknown_column(name: &str, event: &EventShape) -> String {
    let of = &event.name;
    match document::nearest(name, event.paths()) {
        Some(meant) => format!("{of} has no column `{name}`; did you mean `{meant}`?"),
        None => format!("{of} has no column `{name}`"),
    }
}

fn parse(text: &str) -> Result<Expr, Mistake> {
    let start = Place { line: 1, column: 1 };
    if text.trim().is_empty() {
        return Err(Mistake::new(start, "the expression is empty"));
    }
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(EXPRESSION_DEPTH_MAX)
        .try_with_sql(text)
        .map_err(|error| syntax(&error))?;
    let ast = parser.parse_expr().map_err(|error| syntax(&error))?;
    let next = parser.peek_token();
    if next.token == Token::EOF {
        return Ok(ast);
    }
    let place = Place {
        line: next.span.start.line,
        column: next.span.start.column,
    };
    Err(Mistake::new(
        place,
        format!("the expression should end before `{}`", next.token),
    ))
}

/// The parser's messages end in ` at Line: 1, Column: 7`.
fn syntax(error: &ParserError) -> Mistake {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.as_str(),
        ParserError::RecursionLimitExceeded => "the expression is nested too deep; split the rule",
    };
    let (said, place) = match message.rsplit_once(" at Line: ") {
        Some((said, at)) => (said, read_place(at)),
        None => (message, None),
    };
    Mistake::new(
        place.unwrap_or(Place { line: 1, column: 1 }),
        format!("this is no SQL expression: {said}"),
    )
}

fn read_place(at: &str) -> Option<Place> {
    let (line, column) = at.split_once(", Column: ")?;
    Some(Place {
        line: line.trim().parse().ok()?,
        column: column.trim().parse().ok()?,
    })
}

fn place(span: Span) -> Place {
    Place {
        line: span.start.line,
        column: span.start.column,
    }
}

/// Stops before the walk itself gets too deep.
struct Depth(usize);

impl Visitor for Depth {
    type Break = Place;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Place> {
        self.0 += 1;
        if self.0 > EXPRESSION_DEPTH_MAX {
            // The span of a deep tree is itself found recursively; its head will do.
            return ControlFlow::Break(head(expr));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Place> {
        self.0 -= 1;
        ControlFlow::Continue(())
    }
}

fn head(expr: &Expr) -> Place {
    match expr {
        Expr::Identifier(ident) => place(ident.span),
        Expr::Value(value) => place(value.span),
        _ => Place { line: 1, column: 1 },
    }
}

/// Finds what is wrong with functions and shapes.
#[derive(Default)]
struct Collector {
    mistakes: Vec<Mistake>,
}

impl Visitor for Collector {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        self.mistakes.push(Mistake::new(
            place(query.span()),
            "a rule sees one event: there are no queries in it",
        ));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        let at = place(expr.span());
        match expr {
            Expr::Function(function) => self.function(function, at),
            Expr::BinaryOp { op, right, .. } if is_regex(op) && literal(right).is_none() => {
                self.mistakes.push(Mistake::new(
                    at,
                    "the pattern has to be a literal: one from an event's data could be anything",
                ));
            }
            Expr::SimilarTo { pattern, .. } if literal(pattern).is_none() => {
                self.mistakes.push(Mistake::new(
                    at,
                    "the pattern has to be a literal: one from an event's data could be anything",
                ));
            }
            Expr::Value(ValueWithSpan {
                value: Value::Placeholder(name),
                ..
            }) => self
                .mistakes
                .push(Mistake::new(at, format!("`{name}` is a parameter; a rule has none"))),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Collector {
    fn function(&mut self, function: &Function, at: Place) {
        let name = match function.name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] if ident.quote_style.is_none() => ident.value.to_lowercase(),
            [ObjectNamePart::Identifier(ident)] => ident.value.clone(),
            _ => function.name.to_string(),
        };
        if let Some(refusal) = offered().refusal(&name) {
            self.mistakes.push(Mistake::new(at, refusal));
        } else if function.over.is_some() || function.filter.is_some() || !function.within_group.is_empty() {
            self.mistakes.push(Mistake::new(
                at,
                "a rule sees one event: OVER, FILTER and WITHIN GROUP have no meaning in it",
            ));
        } else if name.starts_with("regexp_") {
            self.regexp(&name, function, at);
        }
    }

    /// A pattern is compiled once, and the replacement's length bounds the result's: both have to be known.
    fn regexp(&mut self, name: &str, function: &Function, at: Place) {
        let arguments = arguments(function);
        if arguments
            .iter()
            .skip(1)
            .any(|argument| argument.is_none_or(|expr| literal(expr).is_none()))
        {
            let message = format!("all arguments of {name} but the first have to be literals");
            self.mistakes.push(Mistake::new(at, message));
        }
        let replacement = arguments.get(2).copied().flatten().and_then(literal);
        if name == "regexp_replace" && replacement.is_some_and(|text| text.len() > REPLACEMENT_BYTES_MAX) {
            let message = format!("the replacement may have {REPLACEMENT_BYTES_MAX} bytes at most");
            self.mistakes.push(Mistake::new(at, message));
        }
    }
}

fn is_regex(op: &BinaryOperator) -> bool {
    use BinaryOperator::{PGRegexIMatch, PGRegexMatch, PGRegexNotIMatch, PGRegexNotMatch, Regexp};
    matches!(
        op,
        PGRegexIMatch | PGRegexMatch | PGRegexNotIMatch | PGRegexNotMatch | Regexp
    )
}

fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value, .. }) => match value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            Value::DollarQuotedString(text) => Some(&text.value),
            Value::Number(text, _) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

fn arguments(function: &Function) -> Vec<Option<&Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return Vec::new();
    };
    let expr = |argument| match argument {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    list.args.iter().map(expr).collect()
}

/// The key of a lookup that [`Lookups`] has made.
fn literal_key(call: &Function) -> Option<String> {
    let is_lookup = call.name.to_string() == map_entry::NAME;
    let key = arguments(call).get(1).copied().flatten().and_then(literal)?;
    is_lookup.then(|| key.to_owned())
}

/// Turns `properties['key']` into a call: the SQL planner would take it for a field of a struct.
#[derive(Default)]
struct Lookups {
    mistakes: Vec<Mistake>,
}

impl VisitorMut for Lookups {
    type Break = std::convert::Infallible;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        let at = place(expr.span());
        if let Expr::CompoundFieldAccess { root, access_chain } = expr {
            match lookup_call(root, access_chain) {
                Some(call) => *expr = call,
                None => self.mistakes.push(Mistake::new(
                    at,
                    "brackets read an entry of a map column, such as properties['key']; nothing else can be taken apart",
                )),
            }
        }
        ControlFlow::Continue(())
    }
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
    use datafusion_sql::sqlparser::ast::{FunctionArgumentList, ObjectName};
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
#[derive(Default)]
struct Names {
    found: Vec<Name>,
}

impl Visitor for Names {
    type Break = std::convert::Infallible;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        if let Some((column, span)) = column_name(expr) {
            self.found.push(Name {
                column,
                entry: None,
                place: place(span),
            });
        }
        ControlFlow::Continue(())
    }
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

/// Gives every column the name that it has in the schema.
struct Resolver<'a> {
    event: &'a EventShape,
    mistakes: Vec<Mistake>,
}

impl VisitorMut for Resolver<'_> {
    type Break = std::convert::Infallible;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Some((name, span)) = column_name(expr) {
            match self.event.index(&name) {
                Some(index) => {
                    // Quoted: the planner lower-cases what is not.
                    let mut ident = Ident::with_quote('"', self.event.schema.field(index).name());
                    ident.span = span;
                    *expr = Expr::Identifier(ident);
                }
                None => self
                    .mistakes
                    .push(Mistake::new(place(span), unknown_column(&name, self.event))),
            }
        }
        ControlFlow::Continue(())
    }
}
