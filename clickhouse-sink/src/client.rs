//! The connection to one ClickHouse server: HTTP, because its answers are of exact kinds (what was never sent, what
//! may have arrived, what the server says about it).

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use pipeline::{ClickHouse, Compression, Secret, Tls};
use reqwest::{Certificate, Identity, Url, header::HeaderMap};

use crate::{Error, sql};

/// How long the making of a connection may take: refusal is certain then, because nothing was sent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Servers close idle connections after 3 s in old defaults and 30 s in new ones. A request that meets such a close on
/// its way is a doubt that costs seconds, so connections are given up earlier from here.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// A query that isn't an insert may take this long.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Larger answers than anything asked for here: a read-back of ten million rows.
const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;

/// The server keeps an answer back in memory up to here, and in a file beyond. Without it there is a file for every answer,
/// made and removed, even if the answer is empty.
pub(crate) const ANSWER_IN_MEMORY: usize = 1024 * 1024;

/// Nothing travels anywhere on this machine. clickhouse-client has the same default.
fn usual(url: &Url) -> Compression {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<IpAddr>();
    match host == "localhost" || address.is_ok_and(|address| address.is_loopback()) {
        true => Compression::None,
        false => Compression::Lz4,
    }
}

/// A client of one server; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    database: String,
    user: String,
    password: Option<Secret>,
    compression: Compression,
}

/// What came back, whole.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `X-ClickHouse-Exception-Code`, which may come with any status.
    pub code: Option<i32>,
    /// `X-ClickHouse-Query-Id`: the proof that ClickHouse answered, and this query.
    pub query_id: Option<String>,
    /// `X-ClickHouse-Exception-Tag`: what marks an exception in the middle of a body.
    pub tag: Option<String>,
    pub body: Vec<u8>,
}

/// No answer came.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Not a byte of the request has left: no connection could be made.
    NothingSent(String),
    /// The server may have the request, or a part of it.
    MaybeSent(String),
}

/// One request.
pub(crate) struct Request {
    /// Settings and other parameters of the URL.
    pub parameters: Vec<(&'static str, String)>,
    pub body: Bytes,
    pub timeout: Duration,
}

impl Client {
    /// A client of the server at `url` (that of `settings` or of the local stack) with the user, password and
    /// certificates of `settings`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Settings`] when the address is none or a certificate can't be read.
    pub fn new(settings: &ClickHouse, url: &str) -> Result<Self, Error> {
        let url = Url::parse(url).map_err(|error| Error::Settings(format!("{url}: {error}")))?;
        // One provider serves the whole process; another crate may have installed it already, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_MAX)
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .http1_only();
        if let Some(tls) = &settings.tls {
            http = with_certificates(http, tls)?;
        }
        let http = http.build().map_err(|error| Error::Settings(causes(&error)))?;
        Ok(Self {
            http,
            compression: settings.compression.unwrap_or_else(|| usual(&url)),
            url,
            database: settings.database.clone(),
            user: settings.user.clone(),
            password: settings.password.clone(),
        })
    }

    /// How rows are to be packed for this server.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The database of all tables.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// `database`.`name`, quoted.
    pub fn table(&self, name: &str) -> String {
        format!("{}.{}", sql::name(&self.database), sql::name(name))
    }

    /// The server's clock, in milliseconds since 1970-01-01T00:00:00Z: deadlines are by this clock.
    ///
    /// # Errors
    /// As [`Client::query_text`].
    pub async fn now_ms(&self) -> Result<i64, Error> {
        let text = self
            .query("SELECT toUnixTimestamp64Milli(now64(3, 'UTC')) FORMAT TSV", &[])
            .await?;
        text.trim()
            .parse()
            .map_err(|_| Error::Answer(format!("a time is expected, not {text:?}")))
    }

    /// Runs `sql` in the pipeline's database and answers what comes back, which is to be UTF-8.
    ///
    /// # Errors
    /// [`Error::Unreachable`] to ask again, [`Error::Server`] with the server's words, [`Error::Answer`] for foreign ones.
    pub async fn query_text(&self, sql: &str) -> Result<String, Error> {
        self.query(sql, &[("database", self.database.clone())]).await
    }

    /// Whether any query runs whose id begins with `query_id_prefix`. The read-back waits for the end of all inserts of
    /// a promise: one that began before its deadline may still be writing.
    ///
    /// # Errors
    /// As [`Client::query_text`].
    pub async fn running(&self, query_id_prefix: &str) -> Result<bool, Error> {
        let sql = format!(
            "SELECT count() FROM system.processes WHERE startsWith(query_id, {}) FORMAT TSV",
            sql::text(query_id_prefix)
        );
        match self.query(&sql, &[]).await?.trim() {
            "0" => Ok(false),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty() => Ok(true),
            other => Err(Error::Answer(format!("a number of queries is expected, not {other:?}"))),
        }
    }

    /// As [`Client::query_text`], with parameters of its own and no database unless they name one.
    pub(crate) async fn query(&self, sql: &str, parameters: &[(&'static str, String)]) -> Result<String, Error> {
        String::from_utf8(self.query_bytes(sql, parameters).await?)
            .map_err(|_| Error::Answer("it is not UTF-8".to_owned()))
    }

    pub(crate) async fn query_bytes(&self, sql: &str, more: &[(&'static str, String)]) -> Result<Vec<u8>, Error> {
        let mut parameters = vec![
            // The whole answer is ready before its first byte is sent, so that an exception is never found halfway.
            ("wait_end_of_query", "1".to_owned()),
            ("buffer_size", ANSWER_IN_MEMORY.to_string()),
            ("max_execution_time", QUERY_TIMEOUT.as_secs().to_string()),
            ("max_query_size", (64 * 1024 * 1024).to_string()),
            ("max_ast_elements", "1000000".to_owned()),
            ("max_expanded_ast_elements", "1000000".to_owned()),
            ("max_result_rows", "0".to_owned()),
            ("max_result_bytes", "0".to_owned()),
            ("session_timezone", "UTC".to_owned()),
        ];
        parameters.extend(more.iter().cloned());
        let request = Request {
            parameters,
            body: sql.to_owned().into(),
            timeout: QUERY_TIMEOUT,
        };
        let answer = match self.send(request).await {
            Ok(answer) => answer,
            Err(Unanswered::NothingSent(reason) | Unanswered::MaybeSent(reason)) => {
                return Err(Error::Unreachable(reason));
            }
        };
        answer.into_body()
    }

    pub(crate) async fn send(&self, request: Request) -> Result<Answer, Unanswered> {
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(&request.parameters);
        let mut post = self
            .http
            .post(url)
            .timeout(request.timeout)
            .header("X-ClickHouse-User", &self.user);
        if let Some(password) = &self.password {
            let password = password
                .read()
                .map_err(|error| Unanswered::NothingSent(error.to_string()))?;
            post = post.header("X-ClickHouse-Key", password);
        }
        let failed = |error: reqwest::Error| {
            if error.is_connect() || error.is_builder() {
                Unanswered::NothingSent(causes(&error))
            } else {
                Unanswered::MaybeSent(causes(&error))
            }
        };
        let mut response = post.body(request.body).send().await.map_err(failed)?;
        let mut answer = Answer::of_head(response.status().as_u16(), response.headers());
        // From here on the request has arrived, whatever goes wrong with the answer.
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| Unanswered::MaybeSent(causes(&error)))?
        {
            if answer.body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Unanswered::MaybeSent(format!(
                    "the answer has more than {ANSWER_BYTES_MAX} bytes"
                )));
            }
            answer.body.extend_from_slice(&chunk);
        }
        Ok(answer)
    }
}

impl Answer {
    fn of_head(status: u16, headers: &HeaderMap) -> Self {
        let text = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        // A header that isn't a number is still an exception: 0 is no code of ClickHouse's.
        let code = headers
            .get("X-ClickHouse-Exception-Code")
            .map(|value| value.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(0));
        Self {
            status,
            code,
            query_id: text("X-ClickHouse-Query-Id"),
            tag: text("X-ClickHouse-Exception-Tag"),
            body: Vec::new(),
        }
    }

    /// The exception's number: from the header, else from the body's own words.
    pub(crate) fn exception(&self) -> Option<i32> {
        self.code.or_else(|| {
            let text = self.text();
            let (_, behind) = text.split_once("Code: ")?;
            let (code, rest) = behind.split_once('.')?;
            rest.trim_start()
                .starts_with("DB::Exception")
                .then(|| code.parse().ok())
                .flatten()
        })
    }

    /// The body for people: its beginning, on one line.
    pub(crate) fn text(&self) -> String {
        const BYTES_MAX: usize = 2_000;
        let beginning = &self.body[..self.body.len().min(BYTES_MAX)];
        String::from_utf8_lossy(beginning).trim().replace(['\n', '\r'], " ")
    }

    fn into_body(self) -> Result<Vec<u8>, Error> {
        if self.code.is_some() || self.status != 200 {
            let reason = self.text();
            return match self.exception() {
                Some(code) => Err(Error::Server { code, reason }),
                // A proxy before the server says that the server is away.
                None if matches!(self.status, 502..=504) => {
                    Err(Error::Unreachable(format!("HTTP status {}: {reason}", self.status)))
                }
                None => Err(Error::Answer(format!("HTTP status {}: {reason}", self.status))),
            };
        }
        if self.query_id.is_none() {
            return Err(Error::Answer(format!(
                "no X-ClickHouse-Query-Id came with it; it begins {:?}",
                self.text()
            )));
        }
        let mark = self.tag.as_ref().map(|tag| format!("__exception__\r\n{tag}"));
        if mark.is_some_and(|mark| self.body.windows(mark.len()).any(|window| window == mark.as_bytes())) {
            return Err(Error::Unreachable("an exception cut the answer short".to_owned()));
        }
        Ok(self.body)
    }
}

fn with_certificates(http: reqwest::ClientBuilder, tls: &Tls) -> Result<reqwest::ClientBuilder, Error> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| Error::Settings(format!("{}: {error}", path.display())))
    };
    let mut http = http;
    if let Some(path) = &tls.ca_file {
        let bundle = Certificate::from_pem_bundle(&read(path)?)
            .map_err(|error| Error::Settings(format!("{}: {}", path.display(), causes(&error))))?;
        http = http.tls_certs_only(bundle);
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        let mut pem = read(cert)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        let identity = Identity::from_pem(&pem)
            .map_err(|error| Error::Settings(format!("{}: {}", cert.display(), causes(&error))))?;
        http = http.identity(identity);
    }
    Ok(http)
}

/// An error and what caused it: reqwest's own text stops at "error sending request".
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_packed_for_an_address_of_this_machine_unless_that_is_said() {
        let packed = |url: &str, compression| {
            let settings = ClickHouse {
                url: None,
                database: "d".to_owned(),
                user: "u".to_owned(),
                password: None,
                tls: None,
                compression,
            };
            Client::new(&settings, url).unwrap().compression()
        };
        for url in ["http://localhost:8123", "http://127.0.0.2:1", "http://[::1]:8123"] {
            assert_eq!(packed(url, None), Compression::None, "{url}");
            assert_eq!(packed(url, Some(Compression::Lz4)), Compression::Lz4, "{url}");
        }
        for url in [
            "http://clickhouse:8123",
            "https://10.0.0.1:8443",
            "http://localhost.example:1",
        ] {
            assert_eq!(packed(url, None), Compression::Lz4, "{url}");
            assert_eq!(packed(url, Some(Compression::None)), Compression::None, "{url}");
        }
    }
}
