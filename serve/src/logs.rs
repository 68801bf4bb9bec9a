use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

/// Sends the logs of this process to stderr: one line an event, for people or (`json`) one JSON object an event.
///
/// `SLUICE_LOG` says what is logged, in the words of `tracing_subscriber::EnvFilter` (`debug`, `info,workers=trace`);
/// without it everything from `info` on. stdout stays free for what a command answers. A second call changes nothing, so that
/// several roles may live in one process.
pub fn logs(json: bool) {
    let (filter, fault) = filter(std::env::var("SLUICE_LOG").ok().as_deref());
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let set = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.try_init()
    };
    // The error says that a subscriber is set already: the first caller has decided.
    if set.is_ok()
        && let Some(fault) = fault
    {
        tracing::warn!("SLUICE_LOG is not used: {fault}");
    }
}

/// A filter that can't be read must not silence the process: `info` takes its place, with the reason.
fn filter(text: Option<&str>) -> (EnvFilter, Option<String>) {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return (EnvFilter::new("info"), None);
    };
    match EnvFilter::try_new(text) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(format!("\"{text}\": {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_falls_back_to_info_and_says_so() {
        assert_eq!(filter(None).0.to_string(), "info");
        assert_eq!(filter(Some(" ")).0.to_string(), "info");
        assert_eq!(filter(Some("warn")).0.to_string(), "warn");
        let (used, fault) = filter(Some("workers=loudly"));
        assert_eq!(used.to_string(), "info");
        assert!(fault.expect("a fault").starts_with("\"workers=loudly\": "));
    }
}
