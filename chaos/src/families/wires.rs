//! What a network and a server under pressure do to requests and answers.

use std::time::Duration;

use super::storage::{AN_INSERT, restart_with, restart_without};
use crate::proxy::{Answer, Fault, Only, Proxy, Strike};
use crate::trial::{Trial, WORKERS};

/// Kafka's numbers of requests (https://kafka.apache.org/protocol#protocol_api_keys).
const PRODUCE: i16 = 0;
const ADD_OFFSETS_TO_TXN: i16 = 25;
const END_TXN: i16 = 26;
const TXN_OFFSET_COMMIT: i16 = 28;
const INIT_PRODUCER_ID: i16 = 22;

/// What workers count when ClickHouse does not take an insert.
const INSERTS_FAILED: &str = "sluice_inserts_failed_total";
/// Of a query. Enough for every question, and for an insert into a table that is as it should be.
const MEMORY: &str =
    "<clickhouse><profiles><default><max_memory_usage>40000000</max_memory_usage></default></profiles></clickhouse>";
/// Buffers that are larger than that, for whoever writes a part.
const LARGE_BUFFERS: &str = "min_compress_block_size = 67108864, max_compress_block_size = 67108864";

fn to_insert(fault: Fault) -> Strike {
    Strike {
        fault,
        only: Only::Text(AN_INSERT.to_owned()),
        every: 2,
        at_most: Some(3),
    }
}

fn to_kafka(fault: Fault, key: i16) -> Strike {
    Strike {
        fault,
        only: Only::ApiKey(key),
        every: 2,
        at_most: Some(2),
    }
}

/// The strike goes on for a while; then everything recovers.
async fn struck(
    trial: &mut Trial<'_, '_>,
    what: &str,
    inject: impl Fn(&Trial<'_, '_>),
    count: impl Fn(&Trial<'_, '_>) -> u64,
) {
    trial.fault(what);
    inject(trial);
    trial.struck(1, count).await;
    trial.let_pass(500..3_000).await;
    trial.fronts.heal();
    trial.billing.inject(None).unwrap();
    trial.recovered().await;
}

async fn clickhouse(trial: &mut Trial<'_, '_>, what: &str, fault: Fault) {
    let inject = |trial: &Trial<'_, '_>| trial.fronts.clickhouse.inject(Some(to_insert(fault.clone()))).unwrap();
    struck(trial, what, inject, |trial| trial.fronts.clickhouse.struck()).await;
}

async fn kafka(trial: &mut Trial<'_, '_>, what: &str, fault: Fault, key: i16) {
    let inject = |trial: &Trial<'_, '_>| trial.fronts.strike_kafka(&to_kafka(fault.clone(), key));
    struck(trial, what, inject, |trial| trial.fronts.kafka_struck()).await;
}

async fn billing(trial: &mut Trial<'_, '_>, what: &str, fault: Fault) {
    let strike = Strike::new(fault);
    let inject = |trial: &Trial<'_, '_>| trial.billing.inject(Some(strike.clone())).unwrap();
    struck(trial, what, inject, |trial| Proxy::struck(&trial.billing)).await;
}

/// Requests cut, held and doubled, answers lost and late; for each server what its protocol can suffer.
pub async fn cut_held_doubled(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        let after = usize::try_from(trial.random.between(1, 4_000)).unwrap();
        clickhouse(trial, "an insert cut", Fault::CutRequest { after }).await;
        clickhouse(trial, "an insert's answer lost", Fault::DropAnswer).await;
        clickhouse(
            trial,
            "an insert's answer late",
            Fault::DelayAnswer(Duration::from_secs(7)),
        )
        .await;
        clickhouse(trial, "an insert delivered twice", Fault::Twice).await;
        clickhouse(trial, "an insert held", Fault::Hold(Duration::from_secs(3))).await;
        kafka(trial, "EndTxn held", Fault::Hold(Duration::from_secs(5)), END_TXN).await;
        // The producer closes the connection itself, as an idle one, and says so to nobody who does not ask.
        kafka(
            trial,
            "EndTxn held silently",
            Fault::HoldSilently(Duration::from_secs(6)),
            END_TXN,
        )
        .await;
        kafka(trial, "EndTxn's answer lost", Fault::DropAnswer, END_TXN).await;
        kafka(trial, "EndTxn delivered twice", Fault::Twice, END_TXN).await;
        kafka(trial, "offsets' answer lost", Fault::DropAnswer, TXN_OFFSET_COMMIT).await;
        kafka(trial, "offsets delivered twice", Fault::Twice, TXN_OFFSET_COMMIT).await;
        kafka(
            trial,
            "offsets held",
            Fault::Hold(Duration::from_secs(2)),
            TXN_OFFSET_COMMIT,
        )
        .await;
        kafka(
            trial,
            "AddOffsetsToTxn's answer lost",
            Fault::DropAnswer,
            ADD_OFFSETS_TO_TXN,
        )
        .await;
        kafka(trial, "alerts' answer lost", Fault::DropAnswer, PRODUCE).await;
        kafka(
            trial,
            "EndTxn's answer late",
            Fault::DelayAnswer(Duration::from_secs(6)),
            END_TXN,
        )
        .await;
        // A request that ends a transaction may be delivered late: only a new epoch refuses it.
        let renewed = |worker: &&str| trial.scenario.said(worker, "another producer goes on");
        let renewed: usize = WORKERS.iter().map(renewed).sum();
        assert!(renewed > 0, "connections broke, and no producer was renewed");
        billing(trial, "billing's answer lost", Fault::DropAnswer).await;
        billing(trial, "a call to billing cut", Fault::CutRequest { after: 64 }).await;
        billing(trial, "billing stands still", Fault::Freeze).await;
        fencing(trial).await;
    }
}

/// The request that fences is lost on its way back, while a worker starts.
async fn fencing(trial: &mut Trial<'_, '_>) {
    trial.fault("InitProducerId's answer lost");
    // A worker sends one for each lane.
    let strike = Strike {
        every: 1,
        ..to_kafka(Fault::DropAnswer, INIT_PRODUCER_ID)
    };
    trial.fronts.strike_kafka(&strike);
    let worker = trial.worker();
    trial.scenario.kill(worker).await;
    trial.scenario.start_worker(worker).await;
    trial.struck(1, |trial| trial.fronts.kafka_struck()).await;
    trial.fronts.heal();
    trial.recovered().await;
}

/// ClickHouse is told to say, or really says, that it cannot.
pub async fn answers(trial: &mut Trial<'_, '_>) {
    let said = |status: u16, code: i32, name: &str| {
        let headers = vec![("X-ClickHouse-Exception-Code".to_owned(), code.to_string())];
        let body = format!("Code: {code}. DB::Exception: {name}. ({name})\n");
        Answer { status, headers, body }
    };
    for _ in 0..trial.times {
        let answers = [
            ("200 with an exception", said(200, 241, "MEMORY_LIMIT_EXCEEDED")),
            ("too many parts", said(500, 252, "TOO_MANY_PARTS")),
            ("out of memory", said(500, 241, "MEMORY_LIMIT_EXCEEDED")),
            ("a read-only table", said(500, 242, "TABLE_IS_READ_ONLY")),
            ("too many queries", said(500, 202, "TOO_MANY_SIMULTANEOUS_QUERIES")),
        ];
        for (what, answer) in answers {
            let (told, kept) = (format!("{what}, nothing written"), format!("{what}, yet written"));
            clickhouse(trial, &told, Fault::Answer(answer.clone())).await;
            // Said before a query is interpreted, and so with nothing written.
            if what != "too many queries" {
                clickhouse(trial, &kept, Fault::SwapAnswer(answer)).await;
            }
        }
        clickhouse(
            trial,
            "an answer after 30 s",
            Fault::DelayAnswer(Duration::from_secs(30)),
        )
        .await;
        let limits = "parts_to_throw_insert = 1, parts_to_delay_insert = 1, max_delay_to_insert = 1";
        by_the_server(trial, "too many parts", limits).await;
        by_the_server(trial, "a read-only table", "table_readonly = 1").await;
        out_of_memory(trial).await;
    }
}

/// The server itself refuses, because tables have these settings.
async fn by_the_server(trial: &mut Trial<'_, '_>, what: &str, settings: &str) {
    trial.fault(&format!("{what}, by the server"));
    let before = trial.counted(INSERTS_FAILED).await;
    trial.alter_tables(&format!("MODIFY SETTING {settings}")).await;
    trial.noticed(INSERTS_FAILED, before).await;
    trial.let_pass(2_000..6_000).await;
    let names: Vec<&str> = settings.split(", ").filter_map(|one| one.split(" = ").next()).collect();
    trial.alter_tables(&format!("RESET SETTING {}", names.join(", "))).await;
    trial.recovered().await;
}

/// Inserts need more memory than the server gives a query.
async fn out_of_memory(trial: &mut Trial<'_, '_>) {
    let profile = restart_with(trial, MEMORY).await;
    by_the_server(trial, "out of memory", LARGE_BUFFERS).await;
    restart_without(trial, profile).await;
    trial.recovered().await;
}
