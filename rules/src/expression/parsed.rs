//! An expression as SQL text, with the columns and functions it names.

use arrow::array::StringArray;
use arrow::compute::regexp_is_match_scalar;
use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, Value, ValueWithSpan,
};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::Mistake;
use super::dialect::Bounded;
use super::functions::offered;
use super::names::{self, literal_key};
use super::tree::{self, Refused, is_regex, start};
use crate::catalog::EventShape;
use crate::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_PARTS_MAX, REPLACEMENT_BYTES_MAX};
use crate::position::Place;

const TOO_DEEP: &str = "the expression is nested too deep; split the rule";
const TOO_MANY_PARTS: &str = "the expression would become too large: BETWEEN, CASE, coalesce and patterns inside of \
                              each other repeat what is in them; split the rule";

/// An expression that is well-formed. Whether its columns exist depends on the event.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// As it was typed.
    pub text: String,
    /// With map lookups as calls of our own function; columns still by the name that the user wrote.
    ast: Box<Expr>,
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
        tree::check(&mut ast, EXPRESSION_DEPTH_MAX).map_err(|(place, refused)| {
            vec![match refused {
                Refused::TooDeep => Mistake::new(place, TOO_DEEP),
                Refused::Form(message) => Mistake::new(place, message),
            }]
        })?;
        if tree::planned_parts(&mut ast) > EXPRESSION_PARTS_MAX {
            return Err(vec![Mistake::new(start(&ast), TOO_MANY_PARTS)]);
        }
        let mut mistakes = Vec::new();
        tree::walk(&mut ast, &mut |expr| examine(expr, &mut mistakes));
        names::call_lookups(&mut ast, &mut mistakes);
        if !mistakes.is_empty() {
            mistakes.sort_by_key(|mistake| (mistake.place.line, mistake.place.column));
            return Err(mistakes);
        }
        let names = names::named(&mut ast);
        Ok(Self {
            text: text.to_owned(),
            ast: Box::new(ast),
            names,
        })
    }

    /// The tree with every column by its flattened name.
    ///
    /// # Errors
    /// Every name that the event lacks.
    pub fn resolve(&self, event: &EventShape) -> Result<Expr, Vec<Mistake>> {
        let mut ast = self.ast.as_ref().clone();
        let mistakes = names::resolve(&mut ast, event);
        if mistakes.is_empty() { Ok(ast) } else { Err(mistakes) }
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
        let entry = match parsed.ast.as_ref() {
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

fn parse(text: &str) -> Result<Expr, Mistake> {
    let start = Place { line: 1, column: 1 };
    if text.trim().is_empty() {
        return Err(Mistake::new(start, "the expression is empty"));
    }
    let dialect = Bounded::new();
    let tokens = Tokenizer::new(&dialect, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| syntax(&error.into()))?;
    if let Some(place) = query(&tokens) {
        return Err(Mistake::new(place, tree::NO_QUERIES));
    }
    if uncounted_levels(&tokens) > EXPRESSION_DEPTH_MAX {
        return Err(Mistake::new(start, TOO_DEEP));
    }
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(EXPRESSION_DEPTH_MAX)
        .with_tokens_with_locations(tokens);
    let parsed = parser.parse_expr();
    if dialect.is_exhausted() {
        return Err(Mistake::new(start, TOO_DEEP));
    }
    let ast = parsed.map_err(|error| syntax(&error))?;
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

/// Levels that the parser goes down, or builds, without counting them: an interval of an interval, lists of lists as
/// a type. Nobody needs as many as there may be levels.
fn uncounted_levels(tokens: &[TokenWithSpan]) -> usize {
    let mut before: Option<&Token> = None;
    let mut levels = 0;
    let is_blank = |token: &&TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    for token in tokens.iter().filter(|token| !is_blank(token)).map(|token| &token.token) {
        let is_level = match (before, token) {
            (_, Token::Word(word)) => word.keyword == Keyword::INTERVAL,
            (Some(Token::Word(word)), Token::Lt) => word.keyword == Keyword::ARRAY,
            (Some(Token::LBracket), Token::RBracket | Token::Number(..)) => true,
            _ => false,
        };
        levels += usize::from(is_level);
        before = Some(token);
    }
    levels
}

/// Where a query begins. They are refused before they are parsed, because parsing nested ones can take for ever.
fn query(tokens: &[TokenWithSpan]) -> Option<Place> {
    use Keyword::{DELETE, INSERT, MERGE, SELECT, TABLE, UPDATE, VALUES, WITH};
    let seen = tokens
        .iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let seen: Vec<&TokenWithSpan> = seen.collect();
    let begins = seen
        .windows(2)
        .enumerate()
        .find(|(at, two)| match (&two[0].token, &two[1].token) {
            (Token::LParen, Token::Word(word)) => match word.keyword {
                SELECT | WITH => true,
                // Columns may be called so, and an operator or a comma comes behind a column.
                DELETE | INSERT | MERGE | TABLE | UPDATE | VALUES => {
                    let next = seen.get(at + 2).map(|next| &next.token);
                    matches!(next, Some(Token::Word(_) | Token::LParen))
                }
                _ => false,
            },
            _ => false,
        });
    begins.map(|(_, two)| tree::place(two[1].span))
}

/// The parser's messages end in ` at Line: 1, Column: 7`.
fn syntax(error: &ParserError) -> Mistake {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.as_str(),
        ParserError::RecursionLimitExceeded => return Mistake::new(Place { line: 1, column: 1 }, TOO_DEEP),
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

const NOT_LITERAL: &str = "the pattern has to be a literal: one from an event's data could be anything";

/// Finds what is wrong with one part.
fn examine(expr: &Expr, mistakes: &mut Vec<Mistake>) {
    let at = start(expr);
    match expr {
        Expr::Function(function) => examine_call(function, at, mistakes),
        Expr::BinaryOp { op, right: pattern, .. } if is_regex(op) => match literal(pattern) {
            Some(text) => mistakes.extend(bad_pattern(text).map(|message| Mistake::new(start(pattern), message))),
            None => mistakes.push(Mistake::new(at, NOT_LITERAL)),
        },
        Expr::SimilarTo { pattern, .. } if literal(pattern).is_none() => mistakes.push(Mistake::new(at, NOT_LITERAL)),
        Expr::Value(ValueWithSpan {
            value: Value::Placeholder(name),
            ..
        }) => mistakes.push(Mistake::new(at, format!("`{name}` is a parameter; a rule has none"))),
        _ => {}
    }
}

fn examine_call(function: &Function, at: Place, mistakes: &mut Vec<Mistake>) {
    let name = match function.name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] if ident.quote_style.is_none() => ident.value.to_lowercase(),
        [ObjectNamePart::Identifier(ident)] => ident.value.clone(),
        _ => function.name.to_string(),
    };
    if let Some(refusal) = offered().refusal(&name) {
        mistakes.push(Mistake::new(at, refusal));
    } else if name.starts_with("regexp_") {
        mistakes.extend(examine_regexp(&name, function).map(|message| Mistake::new(at, message)));
    }
}

/// A pattern is compiled once, and the replacement's length bounds the result's: both have to be known.
fn examine_regexp(name: &str, function: &Function) -> Option<String> {
    let arguments = arguments(function);
    if arguments
        .iter()
        .skip(1)
        .any(|argument| argument.is_none_or(|expr| literal(expr).is_none()))
    {
        return Some(format!("all arguments of {name} but the first have to be literals"));
    }
    if let Some(message) = arguments
        .get(1)
        .copied()
        .flatten()
        .and_then(literal)
        .and_then(bad_pattern)
    {
        return Some(message);
    }
    let replacement = arguments.get(2).copied().flatten().and_then(literal);
    let too_long = name == "regexp_replace" && replacement.is_some_and(|text| text.len() > REPLACEMENT_BYTES_MAX);
    too_long.then(|| format!("the replacement may have {REPLACEMENT_BYTES_MAX} bytes at most"))
}

/// Why a pattern can't be compiled. The kernels say so only when they meet a value.
fn bad_pattern(pattern: &str) -> Option<String> {
    let any = StringArray::from(vec![""]);
    let error = regexp_is_match_scalar(&any, pattern, None).err()?.to_string();
    // A mistake is drawn under the pattern, over several lines; the one that explains it begins with its name.
    let explained = error.lines().find_map(|line| line.strip_prefix("error: "));
    let said = explained.unwrap_or_else(|| error.trim_start_matches("Compute error: "));
    Some(format!("the pattern can't be compiled: {said}"))
}

pub fn literal(expr: &Expr) -> Option<&str> {
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

pub fn arguments(function: &Function) -> Vec<Option<&Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return Vec::new();
    };
    let expr = |argument| match argument {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    list.args.iter().map(expr).collect()
}
