//! What the read-back sees.

use clickhouse_sink::{Inserted, Position, Range, RowId};

use crate::server::{ask, database, events, events_table, insert};

fn range(topic: &str, partition: i32, start: i64, end: i64) -> Range {
    Range {
        topic: topic.to_owned(),
        partition,
        start,
        end,
    }
}

fn offsets(mut rows: Vec<RowId>) -> Vec<i64> {
    rows.sort();
    rows.iter().map(|row| row.offset).collect()
}

/// `// t-3:  10 … 19 | 20 … 29`, and a partition that only looks like it.
#[tokio::test]
async fn exactly_the_rows_within_the_ranges_come_back_and_a_doubled_row_comes_twice() {
    let client = database("read_back").await;
    events_table(&client).await;
    for (token, offsets) in [("a", 10..20), ("b", 20..30), ("c", 25..26)] {
        assert_eq!(
            insert(&client, "events", &events(offsets), token).await,
            Inserted::Clean
        );
    }
    let none = client.read_back("events", &[]).await.unwrap();
    assert_eq!(none, []);
    let elsewhere = [
        range("t", 4, 0, 100),
        range("u", 3, 0, 100),
        range("t", 3, 30, 100),
        range("t", 3, 15, 15),
    ];
    assert_eq!(client.read_back("events", &elsewhere).await.unwrap(), []);
    let within = [range("t", 3, 0, 12), range("t", 3, 18, 21), range("t", 3, 25, 26)];
    let rows = client.read_back("events", &within).await.unwrap();
    assert_eq!(offsets(rows.clone()), [10, 11, 18, 19, 20, 25, 25]);
    let of_server = ask(
        &client,
        "SELECT groupBitXor(_row_hash) FROM events WHERE _offset IN (10, 11, 18, 19, 20)",
    )
    .await;
    assert_eq!(
        rows.iter().fold(0, |all, row| all ^ row.row_hash).to_string(),
        of_server
    );
    assert!(
        rows.iter()
            .all(|row| row.topic == "t" && row.partition == 3 && row.index == 0)
    );
}

/// `// t-3:  10 … 29`: from where on is there a row?
#[tokio::test]
async fn the_last_row_from_a_position_on_is_found_and_none_before_it() {
    let client = database("rows_from").await;
    events_table(&client).await;
    for (token, offsets) in [("a", 10..20), ("b", 20..30)] {
        let block = events(offsets);
        assert_eq!(insert(&client, "events", &block, token).await, Inserted::Clean);
    }
    let position = |topic: &str, partition, offset| Position {
        topic: topic.to_owned(),
        partition,
        offset,
    };
    let from = async |positions: &[Position]| client.rows_from("events", positions).await.unwrap();
    assert_eq!(from(&[]).await, []);
    assert_eq!(from(&[position("t", 3, 30)]).await, []);
    let elsewhere = [position("t", 4, 0), position("u", 3, 0)];
    assert_eq!(from(&elsewhere).await, []);
    for at in [0, 10, 29] {
        let asked = [position("t", 3, at), position("t", 4, 1_000_000), position("t", 5, 2)];
        assert_eq!(from(&asked).await, [position("t", 3, 29)], "from {at} on");
    }
}

#[tokio::test]
async fn a_thousand_ranges_fit_into_one_query() {
    let client = database("read_back_many").await;
    events_table(&client).await;
    assert_eq!(insert(&client, "events", &events(0..5000), "a").await, Inserted::Clean);
    let odd: Vec<Range> = (0..1000).map(|at| range("t", 3, at * 4 + 1, at * 4 + 2)).collect();
    let rows = client.read_back("events", &odd).await.unwrap();
    assert_eq!(offsets(rows), (0..1000).map(|at| at * 4 + 1).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_table_that_is_not_there_is_an_error_with_its_code() {
    let client = database("read_back_missing").await;
    let error = client.read_back("events", &[range("t", 3, 0, 1)]).await.unwrap_err();
    assert!(
        matches!(&error, clickhouse_sink::Error::Server { code: 60, .. }),
        "{error:?}"
    );
}

/// `// t-3:  10 … 29`: the rows in the middle are taken out; of others none is touched.
#[tokio::test]
async fn rows_that_are_taken_out_are_gone_when_it_is_said() {
    let client = database("remove").await;
    events_table(&client).await;
    for (token, offsets) in [("a", 10..20), ("b", 20..30), ("c", 15..16)] {
        assert_eq!(
            insert(&client, "events", &events(offsets), token).await,
            Inserted::Clean
        );
    }
    let elsewhere = [range("t", 4, 0, 100), range("u", 3, 0, 100), range("t", 3, 15, 15)];
    assert_eq!(client.remove("events", &elsewhere).await.unwrap(), 0);
    let middle = [range("t", 3, 12, 28)];
    assert_eq!(
        client.remove("events", &middle).await.unwrap(),
        17,
        "one is there twice"
    );
    let left = client.read_back("events", &[range("t", 3, 0, 100)]).await.unwrap();
    assert_eq!(offsets(left), [10, 11, 28, 29]);
    assert_eq!(client.remove("events", &middle).await.unwrap(), 0);
    // What comes again afterwards is not taken for what was there before.
    assert_eq!(insert(&client, "events", &events(12..15), "d").await, Inserted::Clean);
    let again = client.read_back("events", &middle).await.unwrap();
    assert_eq!(offsets(again), [12, 13, 14]);
}
