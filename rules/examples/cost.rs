//! Prints what rules cost a row: `cargo run -p rules --example cost`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

#[path = "../tests/rules/shop.rs"]
#[allow(dead_code)]
mod shop;

use std::hint::black_box;
use std::time::Instant;

use arrow::array::RecordBatch;
use rules::{Catalog, Revision};

fn main() {
    let catalog = shop::catalog();
    let path = format!("{}/../examples/shop/rules/default.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let shared = vec![("default.yaml".to_owned(), text.clone())];
    // Fifty different texts: each tenant has its own limit.
    let own = |number: usize| {
        let own = text
            .replace("\"*\"", &format!("tenant-{number:02}"))
            .replace("100000", &format!("{}", 100_000 + number));
        let (rules, _tests) = own.split_once("tests:").unwrap();
        (format!("{number}.yaml"), rules.to_owned())
    };
    let different: Vec<(String, String)> = (0..50).map(own).collect();
    for (name, documents) in [("one program", &shared), ("50 programs", &different)] {
        let started = Instant::now();
        let revision = Revision::compile(1, documents, &catalog).unwrap();
        println!("{name}: compiled in {:?}", started.elapsed());
        for rows in [500, 5_000, 50_000] {
            let batches =
                [shop::PAGEVIEW, shop::ORDER, shop::PAYMENT].map(|event| (event, batch(&catalog, event, rows)));
            for (event, batch) in &batches {
                println!(
                    "  {:20} {rows:6} rows: {:6.1} ns/row",
                    catalog.events[*event].name,
                    cost(&revision, *event, batch)
                );
            }
        }
    }
}

fn cost(revision: &Revision, event: usize, batch: &RecordBatch) -> f64 {
    let repeats = 400_000 / batch.num_rows();
    let mut best = f64::MAX;
    for _ in 0..3 {
        let started = on_cpu_ns();
        for _ in 0..repeats {
            black_box(revision.apply(event, black_box(batch)));
        }
        #[allow(clippy::cast_precision_loss)]
        let each = (on_cpu_ns() - started) as f64 / (repeats * batch.num_rows()) as f64;
        best = best.min(each);
    }
    best
}

/// How long this thread has been running, so that what else the machine does isn't counted.
fn on_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// A tenth of the events has a mail address, one in fifty orders is big.
fn batch(catalog: &Catalog, event: usize, rows: usize) -> RecordBatch {
    let row = |number: usize| {
        let mut row = shop::row([
            ("tenant_id", &format!("tenant-{:02}", number % 50)),
            ("session_id", &format!("session-{number}")),
            ("properties.plan", "pro"),
            ("properties.theme", "dark"),
        ]);
        if number.is_multiple_of(10) {
            row.push(("properties.email", format!("user-{number}@example.org")));
        }
        if event != shop::PAGEVIEW {
            row.push(("order_id", format!("order-{number}")));
            row.push((
                "amount_minor",
                (if number % 50 == 7 {
                    150_000
                } else {
                    2_500 + number % 1000
                })
                .to_string(),
            ));
            row.push(("currency", ["EUR", "eur", "USD"][number % 3].to_owned()));
        }
        if event == shop::PAYMENT {
            row.push(("status", ["captured", "captured", "failed"][number % 3].to_owned()));
        }
        row
    };
    let rows: Vec<_> = (0..rows).map(row).collect();
    shop::batch(&catalog.events[event], &rows)
}
