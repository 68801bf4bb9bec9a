//! What an answer to an insert means. The only place where exception codes are judged.

use std::time::Duration;

use crate::client::Answer;
use crate::insert::{DEADLINE_PASSED, Inserted};

/// What a code says about an insert whose request has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Proven: no row was written and none will be.
    NotStarted,
    /// Sending it again changes nothing until somebody changes the server or the pipeline.
    Never,
}

/// Codes with a verdict, each with its reason. Every other code is doubt, and so are these when the text shows that
/// they come from behind the table (a view, another server): a view fails after its table was written (tried on 26.7).
///
/// Left out on purpose, though they look harmless: 252 TOO_MANY_PARTS (also raised by a view's target after the table
/// was written), 241 MEMORY_LIMIT_EXCEEDED, 243 NOT_ENOUGH_SPACE and 159 TIMEOUT_EXCEEDED (at any time), 216
/// QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING (the other one may yet write), 242 TABLE_IS_READ_ONLY (passes by itself), 32
/// and 33 (a request that was cut: ClickHouse has been seen to insert a part of what it got), 236 ABORTED, 394 QUERY_WAS_CANCELLED.
const CODES: &[(i32, Verdict, &str)] = &[
    (
        202,
        Verdict::NotStarted,
        "TOO_MANY_SIMULTANEOUS_QUERIES: raised before the query is interpreted",
    ),
    (
        60,
        Verdict::Never,
        "UNKNOWN_TABLE: also a view whose target is missing, found before anything is written",
    ),
    (81, Verdict::Never, "UNKNOWN_DATABASE"),
    (
        16,
        Verdict::Never,
        "NO_SUCH_COLUMN_IN_TABLE: the table is older than the schema",
    ),
    (47, Verdict::Never, "UNKNOWN_IDENTIFIER"),
    (20, Verdict::Never, "NUMBER_OF_COLUMNS_DOESNT_MATCH"),
    (
        48,
        Verdict::Never,
        "NOT_IMPLEMENTED: the table's engine takes no inserts",
    ),
    (53, Verdict::Never, "TYPE_MISMATCH: the table's column has another type"),
    (70, Verdict::Never, "CANNOT_CONVERT_TYPE: the same"),
    (
        6,
        Verdict::Never,
        "CANNOT_PARSE_TEXT: the table's column was given another type than text",
    ),
    (
        349,
        Verdict::Never,
        "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN: the column has to become Nullable",
    ),
    (469, Verdict::Never, "VIOLATED_CONSTRAINT: the table was given a CHECK"),
    (
        115,
        Verdict::Never,
        "UNKNOWN_SETTING: the server is older than the settings that exactly-once needs",
    ),
    (
        452,
        Verdict::Never,
        "SETTING_CONSTRAINT_VIOLATION: the user's profile forbids such a setting",
    ),
    (164, Verdict::Never, "READONLY: the user's profile allows no inserts"),
    (497, Verdict::Never, "ACCESS_DENIED: a grant is missing"),
    (516, Verdict::Never, "AUTHENTICATION_FAILED"),
    (192, Verdict::Never, "UNKNOWN_USER"),
    (193, Verdict::Never, "WRONG_PASSWORD"),
    (194, Verdict::Never, "REQUIRED_PASSWORD"),
    (
        62,
        Verdict::Never,
        "SYNTAX_ERROR: the server doesn't know a part of the statement",
    ),
];

/// The code of `throwIf`, which our guard uses and anybody's view may use.
const THROW_IF: i32 = 395;

/// A server says these when it is asked for more than it can do; it may take the same insert a moment later.
const OVERLOADED: [i32; 9] = [
    159, // TIMEOUT_EXCEEDED
    202, // TOO_MANY_SIMULTANEOUS_QUERIES
    209, // SOCKET_TIMEOUT
    210, // NETWORK_ERROR
    241, // MEMORY_LIMIT_EXCEEDED
    243, // NOT_ENOUGH_SPACE
    252, // TOO_MANY_PARTS
    439, // CANNOT_SCHEDULE_TASK
    745, // SERVER_OVERLOADED
];

/// Whoever refuses at once was asked too late; whoever takes so long to refuse has let the insert wait.
const SLOW: Duration = Duration::from_secs(1);

/// See [`Inserted::is_overload`].
pub(crate) fn is_overload(code: i32) -> bool {
    OVERLOADED.contains(&code)
}

impl Inserted {
    /// Whether it looks like a server that is away or does not keep up: it did not answer, or not in time, or said that it is
    /// asked for too much. Any other answer shows one that keeps up, and so
    /// does one that the insert came too late, unless it took long to say so: then it was sent in time.
    pub fn is_overload(&self, took: Duration) -> bool {
        match self {
            Inserted::Refused(reason) => reason != DEADLINE_PASSED || took >= SLOW,
            Inserted::Doubt { code: None, .. } => true,
            Inserted::Doubt { code: Some(code), .. } => is_overload(*code),
            Inserted::Clean | Inserted::Rejected { .. } => false,
        }
    }
}

/// What an answer to the insert `query_id` means.
pub(crate) fn verdict(answer: &Answer, query_id: &str) -> Inserted {
    let text = answer.text();
    if let Some(code) = answer.exception() {
        return of_exception(code, text);
    }
    if answer.status != 200 {
        return doubt(format!("HTTP status {} without an exception: {text}", answer.status));
    }
    if answer.query_id.as_deref() != Some(query_id) {
        return doubt("the answer carries no X-ClickHouse-Query-Id of this insert: it isn't ClickHouse's".to_owned());
    }
    if !answer.body.is_empty() {
        return doubt(format!("an insert answers nothing, but here came {text:?}"));
    }
    Inserted::Clean
}

fn doubt(reason: String) -> Inserted {
    Inserted::Doubt { code: None, reason }
}

fn of_exception(code: i32, text: String) -> Inserted {
    // `Received from` marks what another server said, for a Distributed table or a view with remote().
    let from_behind = text.contains("while pushing to view") || text.contains("Received from");
    let failed = |reason| Inserted::Doubt {
        code: Some(code),
        reason,
    };
    if from_behind {
        return failed(text);
    }
    if code == THROW_IF && text.contains(&format!("DB::Exception: {DEADLINE_PASSED}")) {
        return Inserted::Refused(DEADLINE_PASSED.to_owned());
    }
    match CODES.iter().find(|(known, _, _)| *known == code) {
        Some((_, Verdict::NotStarted, _)) => Inserted::Refused(text),
        Some((_, Verdict::Never, why)) => Inserted::Rejected {
            code,
            reason: format!("{why}. {text}"),
        },
        None => failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    fn answer(status: u16, code: Option<i32>, body: &str) -> Answer {
        Answer {
            status,
            code,
            query_id: Some("q".to_owned()),
            tag: None,
            body: body.as_bytes().to_vec(),
        }
    }

    fn kind(answer: &Answer) -> &'static str {
        match verdict(answer, "q") {
            Inserted::Clean => "clean",
            Inserted::Refused(_) => "refused",
            Inserted::Doubt { .. } => "doubt",
            Inserted::Rejected { .. } => "rejected",
        }
    }

    #[test]
    fn only_an_empty_answer_of_this_query_without_an_exception_is_clean() {
        assert_eq!(kind(&answer(200, None, "")), "clean");
        assert_eq!(kind(&answer(200, Some(241), "")), "doubt");
        assert_eq!(kind(&answer(200, Some(0), "")), "doubt");
        assert_eq!(
            kind(&answer(200, None, "Code: 241. DB::Exception: Memory limit")),
            "doubt"
        );
        assert_eq!(kind(&answer(200, None, "<html>")), "doubt");
        assert_eq!(kind(&answer(204, None, "")), "doubt");
        assert_eq!(kind(&answer(502, None, "Bad Gateway")), "doubt");
        for query_id in [None, Some("other".to_owned())] {
            assert_eq!(
                kind(&Answer {
                    query_id,
                    ..answer(200, None, "")
                }),
                "doubt"
            );
        }
    }

    #[test]
    fn a_passed_deadline_is_a_refusal_but_not_the_same_code_from_a_view() {
        let ours = format!("Code: 395. DB::Exception: {DEADLINE_PASSED}: while executing 'FUNCTION throwIf(…)'");
        assert_eq!(kind(&answer(500, Some(395), &ours)), "refused");
        assert_eq!(
            kind(&answer(
                500,
                Some(395),
                "Code: 395. DB::Exception: boom: while executing"
            )),
            "doubt"
        );
        assert_eq!(
            kind(&answer(500, Some(395), &format!("{ours}: while pushing to view x.mv"))),
            "doubt"
        );
    }

    #[test]
    fn what_nobody_has_proven_is_doubt() {
        let text = |code| format!("Code: {code}. DB::Exception: words. (NAME)");
        for code in [252, 241, 243, 159, 216, 242, 32, 33, 236, 394, 210, 1000, -1] {
            assert_eq!(kind(&answer(500, Some(code), &text(code))), "doubt", "{code}");
        }
        assert_eq!(kind(&answer(500, Some(202), &text(202))), "refused");
        assert_eq!(kind(&answer(404, Some(60), &text(60))), "rejected");
        assert_eq!(
            kind(&answer(
                500,
                Some(202),
                "Code: 202. DB::Exception: Received from a:9000. DB::Exception: many"
            )),
            "doubt"
        );
        assert_eq!(
            kind(&answer(
                404,
                Some(60),
                "Code: 60. DB::Exception: no t: while pushing to view a.b"
            )),
            "doubt"
        );
    }

    #[test]
    fn a_server_that_does_not_answer_or_says_that_it_is_too_much_is_overloaded() {
        let overload = |code: i32| {
            verdict(
                &answer(500, Some(code), &format!("Code: {code}. DB::Exception: x")),
                "q",
            )
            .is_overload(SOON)
        };
        for code in OVERLOADED {
            assert!(overload(code), "{code}");
        }
        assert!(verdict(&answer(502, None, "Bad Gateway"), "q").is_overload(SOON));
        let late = answer(
            500,
            Some(395),
            &format!("Code: 395. DB::Exception: {DEADLINE_PASSED}: while"),
        );
        let late = verdict(&late, "q");
        assert!(!late.is_overload(SOON) && late.is_overload(SLOW));
        // A view that fails, a table that is not there: the server keeps up.
        assert!(!overload(395) && !overload(60));
        assert!(!verdict(&answer(200, None, ""), "q").is_overload(SOON));
    }

    #[test]
    fn no_code_has_two_verdicts() {
        let mut codes: Vec<i32> = CODES.iter().map(|(code, _, _)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
    }
}
