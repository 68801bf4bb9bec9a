//! `sluice verify`.

use std::time::Duration;

use clap::Args;
use pipeline::RulesFrom;
use verify::{Options, RulesRevision, Until};
use workers::rulebook::Rulebook;

use crate::{Common, Failure, target};

#[derive(Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    common: Common,
    /// Wait at most this many seconds until the group has committed everything; 0 = look at what is committed now
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    settle: u64,
    /// The rules revision for events that the audit doesn't name; default: the newest
    #[arg(long, value_name = "NUMBER")]
    rules: Option<u64>,
}

pub async fn run(args: VerifyArgs) -> Result<(), Failure> {
    let pipeline = target::load(&args.common).await?;
    let mut options = Options::of(&pipeline);
    options.until = match args.settle {
        0 => Until::Committed,
        seconds => Until::Settled(Duration::from_secs(seconds)),
    };
    options.rules = match &pipeline.connections.rules {
        RulesFrom::None => RulesRevision::default(),
        RulesFrom::Dir(dir) => RulesRevision {
            number: 0,
            documents: workers::rulebook::directory(dir)?,
        },
        RulesFrom::Service { url, .. } => {
            let client = config_service::client::Client::new(url, None)?;
            let revision = client.get(&pipeline.name, args.rules).await?;
            RulesRevision {
                number: revision.id.map_or(0, |id| id.number),
                documents: revision.documents.into_iter().map(|one| (one.file, one.text)).collect(),
            }
        }
    };
    // Each range is recomputed with the rules that it was committed with: from the service, or from what workers have kept.
    let rulebook = Rulebook::open(
        pipeline.connections.rules.clone(),
        &pipeline.name,
        &pipeline.workers.state_dir,
    )?;
    let (asking, asked) = (pipeline.clone(), options.clone());
    let named = tokio::task::spawn_blocking(move || verify::audited_rules(&asking, &asked)).await??;
    for (number, digest) in named {
        if let Some(documents) = rulebook.pinned((number, digest)).await {
            let documents = documents.to_vec();
            options
                .revisions
                .insert((number, digest), RulesRevision { number, documents });
        }
    }
    let report = verify::run(&pipeline, options).await?;
    if args.common.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    if report.clean() { Ok(()) } else { Err(Failure::Found) }
}
