//! A user's own events: nothing in the product knows them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Decimal, Schema, Uuid};
use end_to_end::shop::Rules;
use end_to_end::{Scenario, run};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::json;

const SCHEMA: &str = include_str!("reading.avsc");
const READINGS: i64 = 500;

fn pipeline(scenario: &Scenario<'_>) -> String {
    let stack = &scenario.stack;
    format!(
        r#"
pipeline: plant
start: earliest
connections:
  kafka: {{brokers: ["{}"]}}
  registry: {{url: "{}"}}
  clickhouse: {{url: "{}", database: plant}}
event: {{id: reading, tenant: plant, time: measured}}
sources:
  - {{topic: plant.readings, table: readings, partitions: 3}}
tables:
  readings: {{partition_by: month, order_by: [plant, sensor.place.hall, measured], keep: 30 days}}
rollups:
  - name: readings_hourly
    from: readings
    every: 1h
    by: [plant, quality]
    measures: {{readings: uniq(reading)}}
"#,
        stack.kafka, stack.registry, stack.clickhouse
    )
}

/// Reading `n`, and the row that it has to become, as the query below asks for it.
fn reading(n: i64, now_micros: i64) -> (Value, serde_json::Value) {
    let id = Uuid::from_u128(0x5eed << 64 | n as u128);
    let (plant, hall) = (["Süd", "北"][n as usize % 2], format!("hall {}", n % 5));
    // Fractions that text shows exactly, and never whole: JSON would show a whole float as an integer.
    let (measured, height) = (now_micros - n, (2 * n + 1) as f64 / 8.0);
    let firmware = (n % 3 == 0).then(|| format!("v{n}"));
    let quality = ["good", "doubtful", "bad"][n as usize % 3];
    let values: Vec<f64> = (0..n % 4).map(|i| i as f64 / 4.0 + 0.125).collect();
    // From -2.5000 in steps of 0.0001: negative, zero and of several lengths in bytes.
    let price = n * 100 - 25_000;
    let raw: Vec<u8> = (0..n % 7).map(|i| (n * 37 + i * 11) as u8).collect();
    let checksum = (n as u32).wrapping_mul(2_654_435_761).to_be_bytes();
    let fault = (n % 4 == 1).then_some(i64::MAX - n);
    let detail = [json!(null), json!(format!("text \"{n}\"")), json!(n)][n as usize % 3].clone();
    let calibrated = (n % 2 == 0).then_some(("Jörg", 20_000 + n as i32));
    let channels: Vec<i32> = (0..n as i32 % 3).collect();
    let (limit, active, weight) = (n * n, n % 2 == 1, (2 * n + 1) as f32 / 16.0);

    let text = |text: &str| Value::String(text.to_owned());
    let union = |branch: u32, value: Value| Value::Union(branch, Box::new(value));
    let null = || union(0, Value::Null);
    let record = |fields: Vec<(&str, Value)>| {
        Value::Record(
            fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    };
    let channel = |number: &i32| record(vec![("number", Value::Int(*number)), ("gain", Value::Float(1.5))]);
    let value = record(vec![
        ("reading", Value::Uuid(id)),
        ("plant", text(plant)),
        ("measured", Value::TimestampMicros(measured)),
        (
            "sensor",
            record(vec![
                ("serial", Value::Long(n)),
                (
                    "place",
                    record(vec![("hall", text(&hall)), ("height", Value::Double(height))]),
                ),
                (
                    "firmware",
                    firmware
                        .as_deref()
                        .map_or_else(null, |firmware| union(1, text(firmware))),
                ),
            ]),
        ),
        ("quality", Value::Enum(n as u32 % 3, quality.to_owned())),
        (
            "values",
            Value::Array(values.iter().copied().map(Value::Double).collect()),
        ),
        ("price", Value::Decimal(Decimal::from(price.to_be_bytes()))),
        ("raw", Value::Bytes(raw.clone())),
        ("checksum", Value::Fixed(4, checksum.to_vec())),
        ("fault", fault.map_or_else(null, |fault| union(1, Value::Long(fault)))),
        (
            "detail",
            match n % 3 {
                0 => null(),
                1 => union(1, text(&format!("text \"{n}\""))),
                _ => union(2, Value::Long(n)),
            },
        ),
        (
            "calibration",
            calibrated.map_or_else(null, |(by, on)| {
                union(1, record(vec![("by", text(by)), ("on", Value::Date(on))]))
            }),
        ),
        ("channels", Value::Array(channels.iter().map(channel).collect())),
        ("limits", Value::Map([("soft".to_owned(), Value::Long(limit))].into())),
        ("active", Value::Boolean(active)),
        ("weight", Value::Float(weight)),
    ]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    let gains: Vec<_> = channels
        .iter()
        .map(|number| json!({"number": number, "gain": 1.5}))
        .collect();
    let row = json!({
        "reading": id.to_string(), "plant": plant, "measured": measured, "serial": n, "hall": hall, "height": height,
        "firmware": firmware, "quality": quality, "values": values, "price": price, "raw": hex(&raw),
        "checksum": hex(&checksum), "fault": fault, "detail": detail,
        "by": calibrated.map(|(by, _)| by), "on": calibrated.map(|(_, on)| on), "channels": gains,
        "limits": {"soft": limit}, "active": active, "weight": weight,
    });
    (value, row)
}

/// Bytes are shown as hex, the decimal, time and date as the integers that Avro has, JSON text as JSON.
const ROWS: &str = "SELECT reading, plant, toUnixTimestamp64Micro(measured) AS measured, sensor_serial AS serial, \
    sensor_place_hall AS hall, sensor_place_height AS height, sensor_firmware AS firmware, quality, values, \
    toInt64(price * 10000) AS price, hex(raw) AS raw, hex(checksum) AS checksum, fault, detail, \
    calibration_by AS by, toInt32(calibration_on) AS on, channels, limits, active, weight \
    FROM readings ORDER BY serial \
    SETTINGS output_format_json_quote_64bit_integers = 0, output_format_json_quote_decimals = 0 FORMAT JSONEachRow";

/// Scenario: a pipeline file and an Avro schema of sensor readings, with every kind of type; no rules, no alerts, no billing.
/// Guarantees: every reading is a row with exactly the values that were sent.
#[test]
fn a_users_own_avro_schema_works_without_a_line_of_rust() {
    run("plant", Rules::Directory, async |scenario| {
        scenario.rewrite(&pipeline(scenario));
        scenario.write_rules("default", "tenant: \"*\"\nrules: []\n");
        scenario.sluice(&["check"]).await;
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/on_real_parts/reading.avsc");
        let said = scenario
            .sluice(&["schema", "register", "plant.readings-value", file])
            .await;
        let schema_id: u32 = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
        scenario.sluice(&["schema", "apply"]).await;
        scenario.start_worker("worker-a").await;

        let expected = produce(&scenario.stack.kafka, schema_id);
        let report = verify::run(&scenario.pipeline, scenario.options()).await.unwrap();
        assert!(report.clean(), "{report}");
        assert_eq!(
            (report.produced, report.clickhouse_rows),
            (READINGS as u64, READINGS as u64),
            "{report}"
        );
        let found = scenario.sql(ROWS).await;
        let found: Vec<serde_json::Value> = found.lines().map(row).collect();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected);
        }
    });
}

/// A row as JSON, with the JSON text of two columns as JSON, too.
fn row(line: &str) -> serde_json::Value {
    let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
    for column in ["channels", "detail"] {
        if let Some(text) = row[column].as_str() {
            row[column] = serde_json::from_str(text).unwrap();
        }
    }
    row
}

/// Sends all readings as any Avro producer does, and answers the rows that they have to become.
fn produce(kafka: &str, schema_id: u32) -> Vec<serde_json::Value> {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", kafka).create().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_micros = i64::try_from(now.as_micros()).unwrap();
    let mut rows = Vec::new();
    for n in 0..READINGS {
        let (value, row) = reading(n, now_micros);
        let mut payload = vec![0];
        payload.extend(schema_id.to_be_bytes());
        payload.extend(writer.write_value_to_vec(value).unwrap());
        let key = n.to_string();
        let record = BaseRecord::to("plant.readings").key(&key).payload(&payload);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        rows.push(row);
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    rows
}
