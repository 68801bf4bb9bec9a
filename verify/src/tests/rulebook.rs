//! Where rules revisions are had from.

use std::net::SocketAddr;
use std::path::Path;

use pipeline::{Pipeline, RulesFrom};
use proto::config::v1::config_server::{Config, ConfigServer};
use proto::config::v1::{
    Document, GetRevisionRequest, PutRulesRequest, PutRulesResponse, Revision, RevisionId, WatchRevisionsRequest,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::Error;
use crate::options::{Revisions, RulesRevision};

fn pipeline(rules: RulesFrom, state: &Path) -> Pipeline {
    let mut pipeline = super::judge::shop();
    pipeline.connections.rules = rules;
    pipeline.workers.state_dir = state.to_owned();
    pipeline
}

fn revision(number: u64, documents: &[(&str, &str)]) -> RulesRevision {
    let owned = |(file, text): &(&str, &str)| ((*file).to_owned(), (*text).to_owned());
    RulesRevision {
        number,
        documents: documents.iter().map(owned).collect(),
    }
}

/// A service whose newest revision is 3, and which never had a 9.
struct Three;

#[tonic::async_trait]
impl Config for Three {
    type WatchRevisionsStream = tokio_stream::Empty<Result<RevisionId, Status>>;

    async fn put_rules(&self, _: Request<PutRulesRequest>) -> Result<Response<PutRulesResponse>, Status> {
        Err(Status::permission_denied("the verifier writes nothing"))
    }

    async fn get_revision(&self, request: Request<GetRevisionRequest>) -> Result<Response<Revision>, Status> {
        let number = match request.into_inner() {
            GetRevisionRequest { pipeline, .. } if pipeline != "shop" => {
                return Err(Status::not_found("no such pipeline"));
            }
            GetRevisionRequest { number: Some(9), .. } => return Err(Status::not_found("no revision 9")),
            GetRevisionRequest { number, .. } => number.unwrap_or(3),
        };
        Ok(Response::new(Revision {
            id: Some(RevisionId { number, digest: 7 }),
            documents: vec![Document {
                tenant: "*".to_owned(),
                text: format!("text {number}"),
                file: "all.yaml".to_owned(),
            }],
            created_at_ms: 0,
        }))
    }

    async fn watch_revisions(
        &self,
        _: Request<WatchRevisionsRequest>,
    ) -> Result<Response<Self::WatchRevisionsStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

async fn service() -> RulesFrom {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(ConfigServer::new(Three));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    RulesFrom::Service { url, tls: None }
}

#[tokio::test]
async fn a_service_is_asked_for_the_newest_and_for_the_one_that_is_named() {
    let state = tempfile::tempdir().unwrap();
    let pipeline = pipeline(service().await, state.path());
    let of = |number: u64| revision(number, &[("all.yaml", &format!("text {number}"))]);
    assert_eq!(RulesRevision::of(&pipeline, None).await.unwrap(), of(3));
    assert_eq!(RulesRevision::of(&pipeline, Some(2)).await.unwrap(), of(2));
    let said = RulesRevision::of(&pipeline, Some(9)).await.unwrap_err().to_string();
    assert!(
        said.contains("rules revision 9") && said.contains("no revision 9"),
        "{said}"
    );
    let revisions = Revisions::of(&pipeline).unwrap();
    assert_eq!(revisions.ask((2, 7)).await, Some(of(2)));
    assert_eq!(revisions.ask((9, 7)).await, None);
    assert_eq!(
        revisions.ask((0, 7)).await,
        Some(revision(0, &[])),
        "the empty revision"
    );
}

#[tokio::test]
async fn what_a_worker_has_kept_comes_first_if_it_is_what_its_name_says() {
    let state = tempfile::tempdir().unwrap();
    let pipeline = pipeline(service().await, state.path());
    let folder = state.path().join("rules").join(&pipeline.name);
    std::fs::create_dir_all(&folder).unwrap();
    let keep = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    keep(
        "4-00000000000000ff.json",
        r#"{"number": 4, "digest": 255, "documents": [["a.yaml", "kept"]]}"#,
    );
    keep(
        "5-00000000000000ff.json",
        r#"{"number": 4, "digest": 255, "documents": []}"#,
    );
    keep("6-00000000000000ff.json", "{");
    let revisions = Revisions::of(&pipeline).unwrap();
    assert_eq!(revisions.ask((4, 255)).await, Some(revision(4, &[("a.yaml", "kept")])));
    for number in [5, 6] {
        let text = format!("text {number}");
        assert_eq!(
            revisions.ask((number, 255)).await,
            Some(revision(number, &[("all.yaml", &text)]))
        );
    }
}

#[tokio::test]
async fn a_directory_gives_its_yaml_files_and_has_no_numbers() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.yml", "a.yaml", "a.yaml.orig"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    let path = |name: &str| dir.path().join(name).display().to_string();
    let both = revision(0, &[(&path("a.yaml"), "a.yaml"), (&path("b.yml"), "b.yml")]);
    let pipeline = pipeline(RulesFrom::Dir(dir.path().to_owned()), dir.path());
    assert_eq!(RulesRevision::of(&pipeline, None).await.unwrap(), both);
    assert_eq!(Revisions::of(&pipeline).unwrap().ask((0, 7)).await, Some(both));
    let said = RulesRevision::of(&pipeline, Some(2)).await.unwrap_err();
    assert_eq!(
        said.to_string(),
        "`--rules` needs a rules service: the pipeline has its rules from a directory, and no revision 2"
    );
}

#[tokio::test]
async fn a_directory_that_is_gone_is_an_error_and_no_rules_are_the_empty_revision() {
    let dir = tempfile::tempdir().unwrap();
    let gone = pipeline(RulesFrom::Dir(dir.path().join("gone")), dir.path());
    assert!(matches!(
        RulesRevision::of(&gone, None).await,
        Err(Error::RulesUnread { .. })
    ));
    let none = pipeline(RulesFrom::None, dir.path());
    assert_eq!(RulesRevision::of(&none, None).await.unwrap(), RulesRevision::default());
    let revisions = Revisions::of(&none).unwrap();
    assert_eq!(revisions.ask((0, 7)).await, Some(RulesRevision::default()));
    assert_eq!(revisions.ask((1, 7)).await, None);
}
