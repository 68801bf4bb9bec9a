//! How an expression is read: as PostgreSQL writes it, but for what makes the parser's work grow without bound.

use std::any::TypeId;
use std::cell::Cell;

use datafusion_sql::sqlparser::ast::Expr;
use datafusion_sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};

/// Operands that may be begun. An expression of 4,096 bytes has no more than bytes; where the parser does not find what a
/// word promised it goes back and tries otherwise, and in nested ones that doubles with every level.
const OPERANDS_MAX: usize = 20_000;

/// PostgreSQL's dialect with a bound, good for one expression.
#[derive(Debug)]
pub struct Bounded {
    base: PostgreSqlDialect,
    left: Cell<usize>,
}

impl Bounded {
    pub fn new() -> Self {
        Self {
            base: PostgreSqlDialect {},
            left: Cell::new(OPERANDS_MAX),
        }
    }

    /// Whether the parser gave up because of the bound, whatever it says.
    pub fn is_exhausted(&self) -> bool {
        self.left.get() == 0
    }
}

/// What an expression, rather than a statement, has of PostgreSQL.
macro_rules! as_postgres {
    ($($method:ident)*) => {
        $(fn $method(&self) -> bool {
            self.base.$method()
        })*
    };
}

impl Dialect for Bounded {
    fn dialect(&self) -> TypeId {
        self.base.dialect()
    }

    fn parse_prefix(&self, _: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        (left == 0).then_some(Err(ParserError::RecursionLimitExceeded))
    }

    /// No function that is offered has an argument whose name is an expression, and looking for one would read every
    /// argument twice: twice as long with every call around it.
    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.base.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, letter: char) -> bool {
        self.base.is_delimited_identifier_start(letter)
    }

    fn is_identifier_start(&self, letter: char) -> bool {
        self.base.is_identifier_start(letter)
    }

    fn is_identifier_part(&self, letter: char) -> bool {
        self.base.is_identifier_part(letter)
    }

    fn is_custom_operator_part(&self, letter: char) -> bool {
        self.base.is_custom_operator_part(letter)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        self.base.is_reserved_for_identifier(keyword)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        self.base.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        self.base.prec_value(precedence)
    }

    as_postgres! {
        allow_extract_custom
        allow_extract_single_quotes
        supports_array_typedef_with_brackets
        supports_bitwise_shift_operators
        supports_comma_separated_trim
        supports_comment_optimizer_hint
        supports_factorial_operator
        supports_filter_during_aggregation
        supports_geometric_types
        supports_interval_options
        supports_named_fn_args_with_colon_operator
        supports_nested_comments
        supports_notnull_operator
        supports_numeric_literal_underscores
        supports_string_escape_constant
        supports_unicode_string_literal
        supports_xml_expressions
    }
}
