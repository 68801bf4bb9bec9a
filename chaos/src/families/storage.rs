//! ClickHouse dies, and forgets.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use devstack::Part;
use tokio::process::Command;

use crate::proxy::{Fault, Only, Strike};
use crate::trial::Trial;

/// An insert is one request whose query id says whose it is.
pub(crate) const AN_INSERT: &str = "query_id=sluice-";
/// For so many renames to happen under load.
const RENAMES_WITHIN: Duration = Duration::from_secs(60);

/// ClickHouse is killed at any time, and by its own n-th rename: a part is written under a temporary name and renamed when its
/// deduplication record is on disk.
pub async fn dies(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        trial.let_pass(500..2_500).await;
        trial.fault("SIGKILL of ClickHouse");
        trial.scenario.stack.kill(Part::ClickHouse).await.unwrap();
        trial.scenario.stack.start(Part::ClickHouse).await.unwrap();
        trial.recovered().await;
        at_a_rename(trial).await;
        trial.recovered().await;
    }
}

/// ClickHouse is killed by its own n-th rename.
pub(crate) async fn at_a_rename(trial: &mut Trial<'_, '_>) {
    let pid = trial.scenario.stack.pid(Part::ClickHouse).unwrap();
    // Counted for each of the server's threads by itself.
    let nth = trial.random.between(1, 4);
    trial.fault("SIGKILL of ClickHouse at a rename");
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2"])
        .args([
            "-e",
            &format!("inject=rename,renameat,renameat2:signal=KILL:when={nth}"),
        ])
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(RENAMES_WITHIN, strace.wait()).await;
    assert!(
        ended.is_ok() || !trial.has_to_recover,
        "ClickHouse has not come to its rename {nth}"
    );
    assert!(
        ended.is_err() || !trial.scenario.stack.runs(Part::ClickHouse),
        "strace has ended and ClickHouse lives"
    );
    trial.scenario.stack.mend(&[Part::ClickHouse]).await.unwrap();
}

/// Tables, and the states of rollups, remember two tokens; meanwhile workers die and answers of inserts get lost.
pub async fn forgets(trial: &mut Trial<'_, '_>) {
    trial.fault("a deduplication window of 2");
    let change = "MODIFY SETTING non_replicated_deduplication_window = 2";
    trial.alter_tables(change).await;
    for rollup in &trial.scenario.pipeline.rollups {
        let statement = format!("ALTER TABLE {}_state {change}", rollup.name);
        trial.scenario.sql(&statement).await;
    }
    for _ in 0..2 * trial.times {
        trial.fault("an insert's answer lost");
        let strike = Strike {
            fault: Fault::DropAnswer,
            only: Only::Text(AN_INSERT.to_owned()),
            every: 3,
            at_most: Some(4),
        };
        trial.fronts.clickhouse.inject(Some(strike)).unwrap();
        trial.struck(1, |trial| trial.fronts.clickhouse.struck()).await;
        trial.let_pass(500..2_000).await;
        let worker = trial.worker();
        trial.fault("SIGKILL of a worker");
        trial.scenario.kill(worker).await;
        trial.scenario.start_worker(worker).await;
        trial.fronts.heal();
        trial.recovered().await;
    }
}

/// What an insert sets off fails for a while: the feeding of a rollup, a view of the user's, everything that a hostile profile
/// of the server changes.
pub async fn sets_off(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        trial.fault("a rollup refuses its rows");
        let states = "pageviews_minute_state";
        trial
            .scenario
            .sql(&format!("ALTER TABLE {states} ADD CONSTRAINT refused CHECK 0"))
            .await;
        trial.let_pass(1_000..4_000).await;
        trial
            .scenario
            .sql(&format!("ALTER TABLE {states} DROP CONSTRAINT refused"))
            .await;
        trial.recovered().await;
        trial.fault("the target of a user's view fails");
        for statement in [
            "CREATE TABLE IF NOT EXISTS of_a_view (x UInt8, CONSTRAINT refused CHECK x = 9) ENGINE = MergeTree ORDER BY x",
            "CREATE MATERIALIZED VIEW a_view TO of_a_view AS SELECT toUInt8(1) AS x FROM orders",
        ] {
            trial.scenario.sql(statement).await;
        }
        trial.let_pass(1_000..4_000).await;
        trial.scenario.sql("DROP VIEW a_view").await;
        trial.recovered().await;
        trial.fault("a profile with other settings");
        let profile = restart_with(trial, HOSTILE).await;
        blocks_of(trial, true).await;
        trial.let_pass(3_000..6_000).await;
        restart_without(trial, profile).await;
        blocks_of(trial, false).await;
        trial.recovered().await;
    }
}

/// A file of the server's configuration that goes away with this, whatever fails.
pub(super) struct Profile(PathBuf);

impl Drop for Profile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// What decides whether an insert happens once, the other way round.
const HOSTILE: &str = "<clickhouse><profiles><default>
  <async_insert>1</async_insert><wait_for_async_insert>0</wait_for_async_insert>
  <insert_deduplicate>0</insert_deduplicate>
  <deduplicate_blocks_in_dependent_materialized_views>0</deduplicate_blocks_in_dependent_materialized_views>
  <max_insert_block_size>7</max_insert_block_size><min_insert_block_size_rows>7</min_insert_block_size_rows>
  <max_insert_threads>4</max_insert_threads>
</default></profiles></clickhouse>
";

/// Restarts ClickHouse with a file on top of its users.xml, which it reads when it starts.
pub(super) async fn restart_with(trial: &mut Trial<'_, '_>, text: &str) -> Profile {
    let profiles = trial.scenario.stack.log(Part::ClickHouse).with_file_name("users.d");
    std::fs::create_dir_all(&profiles).unwrap();
    let profile = Profile(profiles.join("of_a_trial.xml"));
    std::fs::write(&profile.0, text).unwrap();
    restart(trial).await;
    profile
}

/// Restarts ClickHouse as it was before.
pub(super) async fn restart_without(trial: &mut Trial<'_, '_>, profile: Profile) {
    drop(profile);
    restart(trial).await;
}

async fn restart(trial: &mut Trial<'_, '_>) {
    trial.scenario.stack.kill(Part::ClickHouse).await.unwrap();
    trial.scenario.stack.start(Part::ClickHouse).await.unwrap();
}

/// Sees that its profile is the one that is meant, by the size of a block.
async fn blocks_of(trial: &Trial<'_, '_>, hostile: bool) {
    let setting = "SELECT value FROM system.settings WHERE name = 'max_insert_block_size'";
    let rows = trial.scenario.sql(setting).await;
    assert_eq!(rows == "7", hostile, "blocks of {rows} rows");
}

/// Nothing can be written any more: the file system of ClickHouse is full, then that of billing's database.
pub async fn full(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        for (part, failures) in [
            (Part::ClickHouse, "sluice_inserts_failed_total"),
            (Part::Postgres, "sluice_deliveries_failed_total"),
        ] {
            trial.fault(&format!("the disk of {part} is full"));
            let before = trial.counted(failures).await;
            let disk = trial.disks.fill(part);
            trial.noticed(failures, before).await;
            trial.let_pass(3_000..8_000).await;
            drop(disk);
            // PostgreSQL ends when it cannot write its log: it may be about to.
            trial.scenario.stack.mend(&[part]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            trial.scenario.stack.mend(&[part]).await.unwrap();
            trial.recovered().await;
        }
    }
}
