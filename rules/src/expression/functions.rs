//! Which functions rules may use.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion_common::TableReference;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF};

use super::map_entry;

/// Functions that a replay could answer otherwise, that need a clock, or that cost more than their input.
const REFUSED: [(&[&str], &str); 7] = [
    (
        &["repeat", "lpad", "rpad", "range", "generate_series"],
        "makes text of any length out of a number, which could use up the worker's memory",
    ),
    (&["levenshtein"], "needs time by the square of the texts' length"),
    (
        &[
            "now",
            "current_timestamp",
            "current_date",
            "today",
            "current_time",
            "localtime",
            "localtimestamp",
            "to_local_time",
        ],
        "depends on the clock or its time zone: a replay would give something else; use the event's own times",
    ),
    (
        &["random", "rand", "uuid", "gen_random_uuid", "newid"],
        "is random: a replay would give something else",
    ),
    (
        &["count", "sum", "avg", "min", "max", "string_agg", "array_agg"],
        "works on many rows; a rule sees one event",
    ),
    (
        &[
            "arrow_cast",
            "arrow_try_cast",
            "arrow_typeof",
            "arrow_field",
            "arrow_metadata",
            "with_metadata",
            "cast_to_type",
            "try_cast_to_type",
            "version",
            "input_file_name",
            "file_row_index",
        ],
        "is about the engine, not about events; for another type use CAST(… AS …)",
    ),
    (
        &[
            "get_field",
            "named_struct",
            "struct",
            "row",
            "union_extract",
            "union_tag",
            "map",
            "make_array",
            "map_extract",
            "regexp_match",
        ],
        "makes or reads nested values; events have plain columns, and `properties['key']` reads a map",
    ),
];

/// The functions whose name stands before each group of texts they could grow, see `guarded`.
pub const GROWING: [&str; 12] = [
    "concat",
    "concat_ws",
    "replace",
    "regexp_replace",
    "translate",
    "encode",
    "decode",
    "upper",
    "lower",
    "initcap",
    "overlay",
    "to_char",
];

/// What [`datafusion_sql`] asks while it plans an expression: there are columns and functions, and nothing else.
pub struct Offered {
    functions: HashMap<String, Arc<ScalarUDF>>,
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

static OFFERED: LazyLock<Offered> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    let refused = |name: &str| REFUSED.iter().any(|(names, _)| names.contains(&name));
    for function in datafusion_functions::all_default_functions() {
        if function.signature().volatility != Volatility::Immutable || refused(function.name()) {
            continue;
        }
        let aliases = function.aliases().iter().filter(|alias| !refused(alias)).cloned();
        for name in aliases.chain([function.name().to_owned()]) {
            functions.insert(name, Arc::clone(&function));
        }
    }
    functions.insert(map_entry::NAME.to_owned(), map_entry::function());
    let mut options = ConfigOptions::new();
    // Money is no float: 1.21 is a decimal.
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    Offered {
        functions,
        options,
        planners: vec![
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
            Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
        ],
    }
});

/// The functions that rules may use.
pub fn offered() -> &'static Offered {
    &OFFERED
}

impl Offered {
    /// Why a function can't be called; `None` if it can. `name` in lower case.
    pub fn refusal(&self, name: &str) -> Option<String> {
        if self.functions.contains_key(name) {
            return None;
        }
        if let Some((_, reason)) = REFUSED.iter().find(|(names, _)| names.contains(&name)) {
            return Some(format!("the function `{name}` is not offered: it {reason}"));
        }
        let mut names: Vec<&str> = self.functions.keys().map(String::as_str).collect();
        names.sort_unstable();
        Some(match document::nearest(name, names) {
            Some(meant) => format!("there is no function `{name}`; did you mean `{meant}`?"),
            None => format!("there is no function `{name}`"),
        })
    }
}

impl ContextProvider for Offered {
    fn get_table_source(&self, _name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("a rule sees one event: there are no tables")
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<arrow::datatypes::DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offered_function_gives_the_same_answer_to_the_same_arguments() {
        for function in OFFERED.functions.values() {
            assert_eq!(
                function.signature().volatility,
                Volatility::Immutable,
                "{}",
                function.name()
            );
        }
    }

    #[test]
    fn the_offered_functions_are_those_that_have_been_looked_at() {
        let mut names: Vec<&str> = OFFERED.functions.keys().map(String::as_str).collect();
        names.sort_unstable();
        insta::assert_snapshot!(names.join(" "));
    }

    #[test]
    fn what_is_refused_has_its_reason_and_what_is_misspelt_its_likely_meaning() {
        for name in [
            "now",
            "random",
            "uuid",
            "repeat",
            "lpad",
            "rpad",
            "range",
            "levenshtein",
            "sum",
        ] {
            let refusal = OFFERED.refusal(name).unwrap();
            assert!(
                refusal.starts_with(&format!("the function `{name}` is not offered: it ")),
                "{refusal}"
            );
        }
        assert_eq!(
            OFFERED.refusal("uper").unwrap(),
            "there is no function `uper`; did you mean `upper`?"
        );
        assert_eq!(OFFERED.refusal("upper"), None);
    }
}
