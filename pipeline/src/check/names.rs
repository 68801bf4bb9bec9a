//! What names and addresses may look like. Each check answers with a message that says what is allowed.

/// Kafka's limit for a topic's name.
const TOPIC_LENGTH_MAX: usize = 249;
/// Leaves room for what is appended: `<name>-<worker>-<lane>` in transactional ids.
const PIPELINE_LENGTH_MAX: usize = 100;
/// ClickHouse writes names as file names, escaped and with suffixes; file systems stop at 255.
const IDENTIFIER_LENGTH_MAX: usize = 127;

pub(super) fn topic(text: &str) -> Result<(), String> {
    kafka_name(text, TOPIC_LENGTH_MAX)
}

pub(super) fn pipeline(text: &str) -> Result<(), String> {
    kafka_name(text, PIPELINE_LENGTH_MAX)
}

fn kafka_name(text: &str, length_max: usize) -> Result<(), String> {
    // Neither a topic nor a folder.
    if text == "." || text == ".." {
        return Err(format!("`{text}` can't be a name"));
    }
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if (1..=length_max).contains(&text.len()) && text.chars().all(allowed) {
        Ok(())
    } else {
        Err(format!(
            "should be 1 to {length_max} of the characters a-z, A-Z, 0-9, `.`, `_` and `-`"
        ))
    }
}

/// A name of a table, a column or a sink.
pub(super) fn identifier(text: &str) -> Result<(), String> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let first = text.chars().next().is_some_and(|letter| letter.is_ascii_alphabetic());
    if first && text.len() <= IDENTIFIER_LENGTH_MAX && text.chars().all(allowed) {
        Ok(())
    } else {
        Err(format!(
            "should begin with a letter and have only a-z, A-Z, 0-9 and `_`, at most {IDENTIFIER_LENGTH_MAX} of them"
        ))
    }
}

/// A path of field names, such as `context.page.url`.
pub(super) fn field_path(text: &str) -> Result<(), String> {
    if text.split('.').all(|name| identifier(name).is_ok()) {
        Ok(())
    } else {
        Err("should be a field, or a path of fields such as context.page.url".to_owned())
    }
}

/// `host:port`, the host a name or an address; an IPv6 address stands in brackets. Answers the port.
pub(super) fn host_port(text: &str) -> Result<u16, String> {
    let wrong = || "should be host:port, such as localhost:9092".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !is_host(host) || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    port.parse().map_err(|_| wrong())
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
            (1..=253).contains(&host.len()) && host.chars().all(allowed)
        }
    }
}

/// `http://` or `https://`, a host, perhaps a port and a path. Answers it without slashes at the end.
pub(super) fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let rest = rest.ok_or("should be an address that begins with http:// or https://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("an address has no user or password in it; use `user` and `password_file`".to_owned());
    }
    let port_begins = authority
        .rfind(':')
        .filter(|colon| !authority.ends_with(']') && *colon > 0);
    let host_fits = match port_begins {
        Some(_) => host_port(authority).is_ok_and(|port| port > 0),
        None => is_host(authority),
    };
    let path_fits = path
        .chars()
        .all(|letter| letter.is_ascii_graphic() && !"?#".contains(letter));
    if host_fits && path_fits {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("should be an address such as http://localhost:8081".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_what_kafka_takes() {
        for text in ["a", "order.created", "A_b-9", &"x".repeat(249)] {
            assert_eq!(topic(text), Ok(()), "{text}");
        }
        for text in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            assert!(topic(text).is_err(), "{text}");
        }
    }

    #[test]
    fn identifiers_need_no_quotes_and_leave_the_underscore_to_sluice() {
        for text in ["a", "orders_vip", "T9"] {
            assert_eq!(identifier(text), Ok(()), "{text}");
        }
        for text in ["", "_a", "9a", "a-b", "a.b", "a b", "ä", &"x".repeat(128)] {
            assert!(identifier(text).is_err(), "{text}");
        }
        assert_eq!(field_path("context.page.url"), Ok(()));
        for text in ["", ".", "a.", ".a", "a..b", "a._b"] {
            assert!(field_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_where_needed_a_port() {
        for (text, port) in [
            ("localhost:9092", 9092),
            ("10.0.0.1:1", 1),
            ("[::1]:9092", 9092),
            ("a-b.c:0", 0),
        ] {
            assert_eq!(host_port(text), Ok(port), "{text}");
        }
        for text in [
            "",
            "localhost",
            ":9092",
            "a:",
            "a:b",
            "a:65536",
            "a:+1",
            "a b:1",
            "http://a:1",
            "::1:9092",
            "[x]:1",
        ] {
            assert!(host_port(text).is_err(), "{text}");
        }
        for (text, kept) in [
            ("http://localhost:8081", "http://localhost:8081"),
            ("https://r.example/", "https://r.example"),
            ("http://[::1]:8123/x/", "http://[::1]:8123/x"),
            ("http://[::1]", "http://[::1]"),
        ] {
            assert_eq!(url(text).as_deref(), Ok(kept), "{text}");
        }
        for text in [
            "",
            "localhost:8081",
            "ftp://a",
            "http://",
            "http://a:0",
            "http://a:x",
            "http://a b",
            "http://a?b",
            "http://u:p@a",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
    }
}
