//! Where rules revisions are had from: the rules service, the directory, or what workers have kept on disk. A reader of its own:
//! what it hands over is documents, and whether they are the ones that the audit names is told by their digest alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline::{Pipeline, RulesFrom};
use proto::config::v1::GetRevisionRequest;
use proto::config::v1::config_client::ConfigClient;
use serde::Deserialize;
use tonic::Code;
use tonic::transport::Channel;

use crate::audit::RulesId;
use crate::endpoint::endpoint;
use crate::error::Error;
use crate::options::{Revisions, RulesRevision};

/// For one answer of the rules service.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Between two questions to a service that is away.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// As a worker keeps it in its state directory: `rules/PIPELINE/NUMBER-DIGEST.json`, the digest in 16 hexadecimal digits.
#[derive(Deserialize)]
struct Kept {
    number: u64,
    digest: u64,
    /// File name and text.
    documents: Vec<(String, String)>,
}

fn failed(doing: String) -> impl FnOnce(String) -> Error {
    move |reason| Error::RulesUnread { doing, reason }
}

impl RulesRevision {
    /// The newest revision of where the pipeline has its rules from, or the one with this number.
    ///
    /// # Errors
    /// When the service does not answer, or says that it has no such revision; when the directory cannot be read, or a number is
    /// asked of it.
    pub async fn of(pipeline: &Pipeline, number: Option<u64>) -> Result<RulesRevision, Error> {
        let what = number.map_or("the newest rules".to_owned(), |number| {
            format!("rules revision {number}")
        });
        match (&pipeline.connections.rules, number) {
            (RulesFrom::Service { url, .. }, _) => {
                let failed = failed(format!("asking {url} for {what}"));
                let answer = ask(&client(pipeline)?, &pipeline.name, number).await;
                answer.map_err(|status| failed(status.message().to_owned()))
            }
            (RulesFrom::Dir(_), Some(number)) => Err(Error::RulesUnnumbered("its rules from a directory", number)),
            (RulesFrom::None, Some(number)) => Err(Error::RulesUnnumbered("no rules", number)),
            (RulesFrom::Dir(dir), None) => Ok(RulesRevision {
                number: 0,
                documents: directory(dir)?,
            }),
            (RulesFrom::None, None) => Ok(RulesRevision::default()),
        }
    }
}

impl Revisions {
    /// Whatever workers of this machine have kept; else what the service has, which is asked until it answers, or what the directory
    /// has now; for number 0 otherwise no rules at all.
    ///
    /// # Errors
    /// When the address of the service, or a certificate, cannot be used.
    pub fn of(pipeline: &Pipeline) -> Result<Revisions, Error> {
        let service = match &pipeline.connections.rules {
            RulesFrom::Service { .. } => Some(client(pipeline)?),
            RulesFrom::Dir(_) | RulesFrom::None => None,
        };
        let pipeline = pipeline.clone();
        Ok(Revisions::new(move |id| {
            let (pipeline, service) = (pipeline.clone(), service.clone());
            async move { named(&pipeline, service.as_ref(), id).await }
        }))
    }
}

async fn named(
    pipeline: &Pipeline,
    service: Option<&ConfigClient<Channel>>,
    (number, digest): RulesId,
) -> Option<RulesRevision> {
    if let Some(documents) = kept(pipeline, (number, digest)) {
        return Some(RulesRevision { number, documents });
    }
    match (&pipeline.connections.rules, service) {
        (RulesFrom::Service { .. }, Some(service)) if number > 0 => loop {
            match ask(service, &pipeline.name, Some(number)).await {
                Ok(revision) => return (revision.number == number).then_some(revision),
                Err(status) if status.code() == Code::NotFound => return None,
                Err(status) => tracing::warn!(%status, number, "the rules service does not answer"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        },
        // Whether it still has those is told by their digest.
        (RulesFrom::Dir(dir), _) => {
            let documents = directory(dir).ok()?;
            Some(RulesRevision { number, documents })
        }
        _ => (number == 0).then(RulesRevision::default),
    }
}

fn client(pipeline: &Pipeline) -> Result<ConfigClient<Channel>, Error> {
    let RulesFrom::Service { url, tls } = &pipeline.connections.rules else {
        return Err(Error::NoAddress { part: "rules" });
    };
    let endpoint = endpoint(url, tls.as_ref()).map_err(failed(format!("connecting to {url}")))?;
    let client = ConfigClient::new(endpoint.timeout(ANSWER_MAX).connect_lazy());
    // The documents of all tenants are one message.
    Ok(client.max_decoding_message_size(usize::MAX))
}

async fn ask(
    client: &ConfigClient<Channel>,
    pipeline: &str,
    number: Option<u64>,
) -> Result<RulesRevision, tonic::Status> {
    let pipeline = pipeline.to_owned();
    let request = GetRevisionRequest { pipeline, number };
    let revision = client.clone().get_revision(request).await?.into_inner();
    let documents = revision.documents.into_iter();
    Ok(RulesRevision {
        number: revision.id.map_or(0, |id| id.number),
        documents: documents.map(|one| (one.file, one.text)).collect(),
    })
}

/// What a worker has kept of a revision. A file that is not what its name says is passed over.
fn kept(pipeline: &Pipeline, (number, digest): RulesId) -> Option<Vec<(String, String)>> {
    let name = format!("{number}-{digest:016x}.json");
    let folder = pipeline.workers.state_dir.join("rules");
    // Before 2026-11-22 all pipelines of a state directory had one folder.
    let files = [folder.join(&pipeline.name).join(&name), folder.join(&name)];
    let read = |file: &PathBuf| serde_json::from_slice::<Kept>(&std::fs::read(file).ok()?).ok();
    let kept = files
        .iter()
        .filter_map(read)
        .find(|kept| (kept.number, kept.digest) == (number, digest));
    kept.map(|kept| kept.documents)
}

/// Every `.yaml` and `.yml` file, sorted by name.
fn directory(dir: &Path) -> Result<Vec<(String, String)>, Error> {
    let unread = |path: &Path| {
        let failed = failed(format!("reading {}", path.display()));
        move |error: std::io::Error| failed(error.to_string())
    };
    let mut documents = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unread(dir))? {
        let path = entry.map_err(unread(dir))?.path();
        if path.extension().is_some_and(|end| end == "yaml" || end == "yml") {
            let text = std::fs::read_to_string(&path).map_err(unread(&path))?;
            documents.push((path.display().to_string(), text));
        }
    }
    documents.sort();
    Ok(documents)
}
