//! `sluice up`: everything on this machine. What the file leaves out runs as a development stack, then topics and
//! tables are made, then every role runs as a process of its own.

use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use devstack::Part;
use pipeline::{Pipeline, RulesFrom};
use serve::Stop;
use tokio::process::{Child, Command};

use crate::{Common, Failure, Files, check, roles, schema, target};

#[derive(Args)]
pub struct UpArgs {
    #[command(flatten)]
    common: Common,
    /// How many workers
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
}

pub async fn run(args: UpArgs) -> Result<(), Failure> {
    let stop = Stop::on_signal();
    let mut pipeline = target::checked(&args.common)?;
    target::fill(&mut pipeline, &args.common.files.stack).await;
    let stack = start_missing(&args, &pipeline).await?;
    target::fill(&mut pipeline, &args.common.files.stack).await;
    schema::apply(&pipeline, args.common.json).await?;
    let mut children = vec![];
    if let RulesFrom::Service { url, .. } = &pipeline.connections.rules
        && is_free(url)
    {
        children.push(role(&args.common.files, "config", &[])?);
    }
    if pipeline
        .sinks
        .grpc
        .iter()
        .any(|sink| sink.name == "billing" && is_free(&sink.url))
    {
        children.push(role(&args.common.files, "billing", &[])?);
    }
    for nth in 1..=args.workers {
        let name = format!("worker-{nth}");
        let mut more = vec!["--name", name.as_str()];
        if nth > 1 {
            more.extend(["--listen", "127.0.0.1:0"]);
        }
        children.push(role(&args.common.files, "worker", &more)?);
    }
    describe(&pipeline);
    let ended = tokio::select! {
        () = stop.requested() => Ok(()),
        name = first_to_end(&mut children) => {
            Err(Failure::Error(format!("{name} has ended; its last lines above say why")))
        }
    };
    finish(children).await?;
    if let Some(stack) = stack {
        stack.down().await?;
    }
    ended
}

async fn start_missing(args: &UpArgs, pipeline: &Pipeline) -> Result<Option<devstack::Stack>, Failure> {
    let missing = check::missing(pipeline);
    if missing.is_empty() {
        return Ok(None);
    }
    let mut options = devstack::Options::new(&args.common.files.stack);
    options.parts = missing
        .iter()
        .map(|name| match *name {
            "kafka" => Part::Kafka,
            "registry" => Part::Registry,
            _ => Part::ClickHouse,
        })
        .collect();
    println!(
        "starting a development stack for {} in {}",
        missing.join(", "),
        args.common.files.stack.display()
    );
    Ok(Some(devstack::up(options).await?))
}

/// A role that the file places on this machine and that nobody runs there yet is ours to run.
fn is_free(url: &str) -> bool {
    let Some(address) = roles::host_port(url).filter(|address| address.starts_with("127.")) else {
        return false;
    };
    address
        .parse()
        .is_ok_and(|address| TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_err())
}

struct Role {
    name: String,
    child: Child,
}

fn role(files: &Files, name: &str, more: &[&str]) -> Result<Role, Failure> {
    let program = std::env::current_exe()?;
    let child = Command::new(program)
        .arg(name)
        .arg("--pipeline")
        .arg(&files.pipeline)
        .arg("--stack")
        .arg(&files.stack)
        .arg("--with-parent")
        .args(more)
        .stdin(Stdio::null())
        // Ctrl-C reaches this process alone, which then stops the roles in order.
        .process_group(0)
        .spawn()?;
    Ok(Role {
        name: name.to_string(),
        child,
    })
}

async fn first_to_end(roles: &mut [Role]) -> String {
    let ends = roles.iter_mut().map(|role| {
        Box::pin(async move {
            match role.child.wait().await {
                Ok(status) => format!("{} ({status})", role.name),
                Err(error) => format!("{} ({error})", role.name),
            }
        })
    });
    futures_first(ends.collect()).await
}

/// The first of several futures; there is always at least one worker.
async fn futures_first<F: std::future::Future<Output = String> + Unpin>(mut all: Vec<F>) -> String {
    std::future::poll_fn(move |context| {
        for one in &mut all {
            if let std::task::Poll::Ready(name) = std::pin::Pin::new(one).poll(context) {
                return std::task::Poll::Ready(name);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Workers first, so that what they deliver still finds its services.
async fn finish(mut roles: Vec<Role>) -> Result<(), Failure> {
    roles.reverse();
    for mut role in roles {
        if let Some(pid) = role.child.id() {
            let sent = std::process::Command::new("kill")
                .args(["-TERM", &pid.to_string()])
                .status()?;
            if !sent.success() {
                tracing::debug!(pid, "had ended already");
            }
        }
        role.child.wait().await?;
    }
    Ok(())
}

fn describe(pipeline: &Pipeline) {
    let connections = &pipeline.connections;
    println!("pipeline `{}` is running; Ctrl-C stops it", pipeline.name);
    if let Some(kafka) = &connections.kafka {
        println!("  kafka       {}", kafka.brokers.join(","));
    }
    for (name, url) in [
        ("registry", &connections.registry.url),
        ("clickhouse", &connections.clickhouse.url),
    ] {
        if let Some(url) = url {
            println!("  {name:<11} {url}");
        }
    }
    for sink in &pipeline.sinks.grpc {
        println!("  {:<11} {}", sink.name, sink.url);
    }
    println!(
        "  worker      http://{}/metrics /healthz /readyz",
        pipeline.serve.listen
    );
}
