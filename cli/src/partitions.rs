//! `sluice partitions`: where they stand, and what an operator does when one has stopped.

use billing_sink::Moved;
use clap::Subcommand;
use rdkafka::message::OwnedHeaders;
use workers::partitions::{PartitionState, Partitions};

use crate::producer::Producer;
use crate::roles::BillingStore;
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
    /// Take the rows of a partition's offsets out of its tables; all workers have to be stopped
    DeleteRows {
        /// For example order.created/3
        #[arg(value_name = "TOPIC/PARTITION")]
        partition: String,
        /// The first offset whose rows go
        #[arg(long, value_name = "OFFSET")]
        from: i64,
        /// One past the last offset whose rows go; default: all that follow
        #[arg(long, value_name = "OFFSET")]
        to: Option<i64>,
        #[command(flatten)]
        common: Common,
    },
    /// Tell the billing service's store that all before an offset was applied, and nothing at or after it; all workers have to be
    /// stopped
    MoveCursor {
        /// For example order.created/3
        #[arg(value_name = "TOPIC/PARTITION")]
        partition: String,
        /// Where the cursor is to stand
        #[arg(long, value_name = "OFFSET")]
        to: i64,
        #[command(flatten)]
        store: BillingStore,
        #[command(flatten)]
        common: Common,
    },
}

pub async fn run(command: PartitionsCommand) -> Result<(), Failure> {
    match command {
        PartitionsCommand::List(common) => list(&common).await,
        PartitionsCommand::Start { partition, at, common } => start(&partition, at, &common).await,
        PartitionsCommand::DeleteRows {
            partition,
            from,
            to,
            common,
        } => delete_rows(&partition, from, to, &common).await,
        PartitionsCommand::MoveCursor {
            partition,
            to,
            store,
            common,
        } => move_cursor(&partition, to, store, &common).await,
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
        (None, Some(offset)) => {
            let lag = format!("lag {}", (state.end - offset).max(0));
            match &state.promise {
                None => lag,
                Some(promise) => format!(
                    "{lag}, promised with rules@{} until {}, attempt {}",
                    promise.rules, promise.deadline, promise.attempt
                ),
            }
        }
    }
}

/// `TOPIC/PARTITION`; a topic's name has no slash.
fn named(partition: &str) -> Result<(&str, i32), Failure> {
    let parts = partition.split_once('/');
    let parsed = parts.and_then(|(topic, number)| Some((topic, number.parse().ok()?)));
    parsed.ok_or_else(|| {
        Failure::Error(format!(
            "{partition} is no partition: write TOPIC/PARTITION, for example order.created/3"
        ))
    })
}

async fn start(partition: &str, at: i64, common: &Common) -> Result<(), Failure> {
    let (topic, number) = named(partition)?;
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

async fn delete_rows(partition: &str, from: i64, to: Option<i64>, common: &Common) -> Result<(), Failure> {
    let (topic, number) = named(partition)?;
    let offsets = from..to.unwrap_or(i64::MAX);
    if offsets.is_empty() || from < 0 {
        return Err(Failure::Error(format!(
            "there is no offset from {from} to before {}",
            offsets.end
        )));
    }
    let removed = Partitions::of(target::load(common).await?)?
        .delete_rows(topic, number, offsets)
        .await?;
    if common.json {
        let tables = removed.tables.into_iter().map(|(table, rows)| (table, rows.into()));
        let tables: serde_json::Map<String, serde_json::Value> = tables.collect();
        println!(
            "{}",
            serde_json::json!({"partition": partition, "deleted": tables, "committed": removed.committed})
        );
        return Ok(());
    }
    for (table, rows) in &removed.tables {
        println!("{partition}: {rows} rows deleted from {table}");
    }
    if let Some(committed) = removed.committed {
        println!(
            "{partition}: what lies before {committed} is committed, and comes again only after: sluice partitions start {partition} \
             --at {from}"
        );
        if let Some(to) = to.filter(|to| *to < committed) {
            println!("{partition}: that needs the rows from {to} on deleted, too: they would come a second time");
        }
    }
    Ok(())
}

async fn move_cursor(partition: &str, to: i64, store: BillingStore, common: &Common) -> Result<(), Failure> {
    let (topic, number) = named(partition)?;
    let pipeline = target::load(common).await?;
    if pipeline.sinks.grpc.is_empty() {
        let reason = format!("the pipeline {} has no gRPC sink, and so no cursor", pipeline.name);
        return Err(Failure::Error(reason));
    }
    Partitions::of(pipeline.clone())?.check_place(topic, number, to)?;
    let source = billing_sink::Source {
        pipeline: pipeline.name.clone(),
        topic: topic.to_owned(),
        partition: number,
    };
    match billing_sink::move_cursor(&store.of(&pipeline), source, to).await? {
        Moved::From(was) if common.json => {
            println!(
                "{}",
                serde_json::json!({"partition": partition, "was": was, "cursor": to})
            );
        }
        Moved::From(was) => {
            match was {
                Some(was) => println!("{partition}: the cursor of billing stood at {was}, and stands at {to}"),
                None => println!("{partition}: billing had no cursor; it stands at {to}"),
            }
            println!("{partition}: sluice partitions list says whether a worker goes on with that");
        }
        Moved::Charged(charges) => {
            return Err(Failure::Error(format!(
                "nothing was changed: {charges} charges of {partition} stand at {to} or after it, and would be made a second time"
            )));
        }
    }
    Ok(())
}
