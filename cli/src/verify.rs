//! `sluice verify`.

use std::time::Duration;

use clap::Args;
use verify::{Options, Revisions, RulesRevision, Until, Watch, Watched};

use crate::roles::Parent;
use crate::{Common, Failure, target};

/// The exit code when nothing was compared, also clap's own for words that it does not know.
pub const COULD_NOT_LOOK: u8 = 2;

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 = no difference; 1 = differences; 2 = could not look: a part is away, the group has not \
                        settled, or the pipeline file or an option is wrong"
)]
pub struct VerifyArgs {
    #[command(flatten)]
    common: Common,
    /// Wait at most this many seconds until the group has committed everything; 0 = look at what is committed now
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    settle: u64,
    /// The rules revision for events that the audit doesn't name; default: the newest
    #[arg(long, value_name = "NUMBER")]
    rules: Option<u64>,
    /// Go on verifying what is committed, round after round, with this pause in seconds between two; until SIGTERM
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["settle", "json"], value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// With --every: address for /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7500", requires = "every")]
    listen: String,
    #[command(flatten)]
    parent: Parent,
}

pub async fn run(args: VerifyArgs) -> Result<(), Failure> {
    let pipeline = target::load(&args.common).await.map_err(|failure| match failure {
        Failure::Found => Failure::Error("nothing was verified: the pipeline file has faults".to_owned()),
        error => error,
    })?;
    if pipeline.guarantee.may_repeat() {
        let reason = "nothing was verified: the pipeline file says `guarantee: at_least_once`, so an event may be in a sink more than once, and \
                      `sluice verify` compares exactly";
        return Err(Failure::Error(reason.to_owned()));
    }
    let mut options = Options::of(&pipeline);
    options.until = match args.settle {
        0 => Until::Committed,
        seconds => Until::Settled(Duration::from_secs(seconds)),
    };
    options.rules = RulesRevision::of(&pipeline, args.rules).await?;
    // Each range is recomputed with the rules that it was committed with.
    options.revisions = Revisions::of(&pipeline)?;
    if let Some(seconds) = args.every {
        let watch = Watch {
            pause: Duration::from_secs(seconds),
            listen: args.listen,
        };
        let watched = verify::watch(&pipeline, options, watch, args.parent.stop()).await?;
        println!(
            "{} events verified in {} rounds, {} differences",
            watched.events, watched.rounds, watched.differences
        );
        return match watched {
            Watched { rounds: 0, .. } => Err(Failure::Error("stopped before anything was verified".to_owned())),
            Watched { differences: 0, .. } => Ok(()),
            _ => Err(Failure::Found),
        };
    }
    let report = verify::run(&pipeline, options).await?;
    if args.common.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    if report.clean() { Ok(()) } else { Err(Failure::Found) }
}
