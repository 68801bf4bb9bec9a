//! The other side of the rules service: for workers, which watch and get, and for the command line, which puts.

use std::time::Duration;

use document::Fault;
use proto::config::v1::config_client::ConfigClient;
use proto::config::v1::{GetRevisionRequest, PutRulesRequest, Revision, RevisionId, WatchRevisionsRequest};
use tokio::sync::watch;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};

/// Until a connection stands, and until a peer that is gone without a word is noticed.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(10);
/// A get reads one store; a put compiles the rules of all tenants.
const GET_WAIT: Duration = Duration::from_secs(30);
const PUT_WAIT: Duration = Duration::from_secs(180);
/// Between two attempts to watch: from the first to the second, doubled each time.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Above any service's own limit, which decides.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Why the service gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The URL of the service can't be used.
    #[error("the URL \"{url}\" of the rules service cannot be used: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not reachable, stopping, or without its store or the schema registry: ask again later.
    #[error("the rules service is not available: {0}")]
    Unavailable(String),
    /// There is no such revision or pipeline.
    #[error("the rules service doesn't have it: {0}")]
    NotFound(String),
    /// Somebody else has put in the meantime: get the newest revision, and put again on top of it.
    #[error("{0}")]
    MovedOn(String),
    /// The request can't work as it is.
    #[error("the rules service refuses: {0}")]
    Refused(String),
}

/// What became of a put.
#[derive(Debug, Clone, PartialEq)]
pub enum Put {
    /// The rules are in this revision, which is a new one unless it had them already (or only a check was asked for).
    Accepted(RevisionId),
    /// Nothing has changed; all that is wrong. Line 0 is the document as a whole.
    Refused(Vec<Fault>),
}

/// What is known about the newest revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Watched {
    /// The newest revision that was seen; `None` until the service has answered once. Its number never goes back.
    pub newest: Option<RevisionId>,
    /// Why the service is not heard at the moment; `None` while it is.
    pub fault: Option<String>,
}

/// A client of the rules service. Connects when it is first asked, and again whenever it must. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    inner: ConfigClient<Channel>,
}

impl Client {
    /// A client of the service at `url` (`http://host:port`, or `https://` with `tls`). Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Url`]; nothing is asked of the network yet.
    pub fn new(url: &str, tls: Option<ClientTlsConfig>) -> Result<Self, ClientError> {
        let refused = |error: tonic::transport::Error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            ClientError::Url {
                url: url.to_owned(),
                reason,
            }
        };
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(refused)?
            .connect_timeout(CONNECT_WAIT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls).map_err(refused)?;
        }
        let inner = ConfigClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { inner })
    }

    /// A revision with its documents, sorted by tenant; the newest one without `number`.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] or [`ClientError::NotFound`].
    pub async fn get(&self, pipeline: &str, number: Option<u64>) -> Result<Revision, ClientError> {
        let request = GetRevisionRequest {
            pipeline: pipeline.to_owned(),
            number,
        };
        let mut client = self.inner.clone();
        within(GET_WAIT, client.get_revision(request)).await
    }

    /// Puts documents. May be repeated when the answer was lost: what is there already makes no new revision.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`], [`ClientError::MovedOn`] or [`ClientError::Refused`]. Faults in the documents are no error
    /// but [`Put::Refused`].
    pub async fn put(&self, request: PutRulesRequest) -> Result<Put, ClientError> {
        let mut client = self.inner.clone();
        let answer = within(PUT_WAIT, client.put_rules(request)).await?;
        if answer.faults.is_empty() {
            let missing = || ClientError::Refused("its answer names no revision".to_owned());
            return answer.revision.map(Put::Accepted).ok_or_else(missing);
        }
        let faults = answer.faults.into_iter().map(|fault| {
            let proto::config::v1::Fault {
                file,
                line,
                column,
                path,
                message,
            } = fault;
            Fault {
                file,
                line,
                column,
                path,
                message,
            }
        });
        Ok(Put::Refused(faults.collect()))
    }

    /// Watches the newest revision for as long as a receiver lives, through restarts of the service.
    ///
    /// A watcher that looks late sees only the newest one: revisions in between are not kept for it.
    pub fn watch(&self, pipeline: &str) -> watch::Receiver<Watched> {
        let (watched, receiver) = watch::channel(Watched::default());
        let (client, pipeline) = (self.inner.clone(), pipeline.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = follow(client, &pipeline, &watched) => {}
                () = watched.closed() => {}
            }
        });
        receiver
    }
}

/// Follows streams of revisions, one after the other, for ever.
async fn follow(mut client: ConfigClient<Channel>, pipeline: &str, watched: &watch::Sender<Watched>) {
    let mut again_after = AGAIN_AFTER.0;
    loop {
        let request = WatchRevisionsRequest {
            pipeline: pipeline.to_owned(),
        };
        let fault = match within(GET_WAIT, client.watch_revisions(request)).await {
            Ok(mut revisions) => loop {
                match revisions.message().await {
                    Ok(Some(id)) => {
                        again_after = AGAIN_AFTER.0;
                        see(watched, pipeline, id);
                    }
                    Ok(None) => break "it has ended the stream of revisions".to_owned(),
                    Err(status) => break status.message().to_owned(),
                }
            },
            Err(error) => error.to_string(),
        };
        watched.send_modify(|watched| {
            if watched.fault.is_none() {
                tracing::warn!(
                    pipeline,
                    "the rules service is not heard, the rules stay as they are: {fault}"
                );
            }
            watched.fault = Some(fault);
        });
        tokio::time::sleep(again_after).await;
        again_after = AGAIN_AFTER.1.min(again_after * 2);
    }
}

fn see(watched: &watch::Sender<Watched>, pipeline: &str, id: RevisionId) {
    watched.send_if_modified(|watched| {
        let before = watched.clone();
        watched.fault = None;
        match before.newest {
            // A store that was restored from a backup gives out numbers again, and they may mean other rules by then.
            Some(newest) if id.number < newest.number || (id.number == newest.number && id != newest) => {
                let fault = format!(
                    "the service has gone back from revision {} to {}; the rules stay as they are until it is past that",
                    newest.number, id.number
                );
                tracing::error!(pipeline, "{fault}");
                watched.fault = Some(fault);
            }
            _ => watched.newest = Some(id),
        }
        *watched != before
    });
}

async fn within<T>(
    wait: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(wait, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(error(&status)),
        Err(_) => Err(ClientError::Unavailable(format!("no answer within {wait:?}"))),
    }
}

fn error(status: &Status) -> ClientError {
    let mut reason = status.message().to_owned();
    // Why a connection failed stands at the end of the chain alone.
    let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    if let Some(cause) = causes.last().map(ToString::to_string)
        && !reason.contains(&cause)
    {
        reason = format!("{reason}: {cause}");
    }
    match status.code() {
        Code::NotFound => ClientError::NotFound(reason),
        Code::Aborted => ClientError::MovedOn(reason),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::ResourceExhausted => {
            ClientError::Refused(reason)
        }
        Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => ClientError::Refused(reason),
        _ => ClientError::Unavailable(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_that_is_not_there_says_why() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        drop(socket);
        let said = Client::new(&url, None).unwrap().get("shop", None).await.unwrap_err();
        let said = said.to_string();
        assert!(
            said.starts_with("the rules service is not available: ") && said.contains("refused"),
            "{said}"
        );
    }
}
