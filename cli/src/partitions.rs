//! `sluice partitions list|start`.

use clap::Subcommand;
use rdkafka::message::OwnedHeaders;
use workers::partitions::{PartitionState, Partitions};

use crate::producer::Producer;
use crate::{Common, Failure, target};

#[derive(Subcommand)]
pub enum PartitionsCommand {
    /// Show for each partition what is committed and promised, what sinks have, and whether a worker would stop it
    List(Common),
    /// Let a partition go on at an offset, whatever is committed or promised; all workers have to be stopped
    Start {
        /// For example order.created/3
        #[arg(value_name = "TOPIC/PARTITION")]
        partition: String,
        /// The offset of the first record to process
        #[arg(long, value_name = "OFFSET")]
        at: i64,
        #[command(flatten)]
        common: Common,
    },
}

pub async fn run(command: PartitionsCommand) -> Result<(), Failure> {
    match command {
        PartitionsCommand::List(common) => list(&common).await,
        PartitionsCommand::Start { partition, at, common } => start(&partition, at, &common).await,
    }
}

async fn list(common: &Common) -> Result<(), Failure> {
    let states = Partitions::of(target::load(common).await?)?.list().await?;
    if common.json {
        println!("{}", serde_json::to_string_pretty(&states)?);
    } else {
        let width = states
            .iter()
            .map(|state| state.topic.len() + 4)
            .max()
            .unwrap_or(9)
            .max(9);
        println!(
            "{:width$}  {:>12}  {:>12}  {:>12}  state",
            "partition", "committed", "promised to", "end"
        );
        for state in &states {
            let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
            println!(
                "{:width$}  {:>12}  {:>12}  {:>12}  {}",
                format!("{}/{}", state.topic, state.partition),
                number(state.committed),
                number(state.promised_to),
                state.end,
                standing(state),
            );
        }
    }
    if states.iter().all(|state| state.stops.is_none()) {
        Ok(())
    } else {
        Err(Failure::Found)
    }
}

fn standing(state: &PartitionState) -> String {
    match (state.stops, state.committed) {
        (Some(code), _) => format!("{code}: {} (docs/errors/{code}.md)", state.found),
        (None, None) => "not begun".to_owned(),
        (None, Some(offset)) => format!("lag {}", (state.end - offset).max(0)),
    }
}

async fn start(partition: &str, at: i64, common: &Common) -> Result<(), Failure> {
    let named = partition.rsplit_once('/');
    let Some((topic, number)) = named.and_then(|(topic, number)| Some((topic, number.parse().ok()?))) else {
        return Err(Failure::Error(format!(
            "{partition} is no partition: write TOPIC/PARTITION, for example order.created/3"
        )));
    };
    let pipeline = target::load(common).await?;
    let partitions = Partitions::of(pipeline.clone())?;
    let planned = partitions.plan(topic, number, at).await?;
    let producer = Producer::of(&pipeline)?;
    let (audit, record) = (&pipeline.audit.topic, partitions.audit(&planned));
    producer.send(audit, Some(partition), &record, OwnedHeaders::new())?;
    if let (_, Some(failure)) = producer.finish() {
        return Err(failure);
    }
    partitions.start(&planned)?;
    if common.json {
        println!(
            "{}",
            serde_json::json!({"partition": partition, "before": planned.before, "at": planned.at})
        );
    } else {
        println!("{partition}: was: {}", planned.before);
        println!("{partition}: a worker goes on at {}", planned.at);
    }
    Ok(())
}
