//! `sluice-devstack DIR PART...` runs parts on free ports until it ends. For tests: it is also the program that supervises
//! the parts that a test starts (see `devstack::launcher`), because a test's own main belongs to the test harness.

use std::process::ExitCode;

fn main() -> ExitCode {
    devstack::hidden_main(std::env::args_os()).unwrap_or_else(|| match hold(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    })
}

#[tokio::main(flavor = "current_thread")]
async fn hold(mut args: impl Iterator<Item = String>) -> Result<(), String> {
    let dir = args
        .next()
        .filter(|dir| !dir.starts_with('-'))
        .ok_or("usage: sluice-devstack DIR PART...; users want `sluice devstack up|down|status`")?;
    let parts = args.map(|name| name.parse()).collect::<Result<_, String>>()?;
    let options = devstack::Options {
        parts,
        ports: devstack::Ports::any(),
        ..devstack::Options::new(dir)
    };
    let stack = devstack::up(options).await.map_err(|error| error.to_string())?;
    println!("up");
    tokio::signal::ctrl_c().await.map_err(|error| error.to_string())?;
    stack.down().await.map_err(|error| error.to_string())
}
