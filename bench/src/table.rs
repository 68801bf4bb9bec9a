//! The rows of `docs/performance.md` that this program measures, one after the other, each beside what it has to reach and what is aimed for.

use crate::error::Error;
use crate::flow::{self, Figures};
use crate::{growth, guarantees, instructions, peers, stages, streams};

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// For as long as the targets ask
    #[arg(long)]
    full: bool,
    /// These rows alone: 1 to 10, and 12
    #[arg(long, value_delimiter = ',', value_name = "ROW,...", value_parser = row)]
    only: Vec<u32>,
}

/// A row of the table that is measured here.
fn row(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(11) => Err("row 11 is measured by `make failures ONLY=worker_killed,worker_stopped`".to_owned()),
        Ok(row @ (1..=10 | 12)) => Ok(row),
        _ => Err("there are rows 1 to 10, and 12".to_owned()),
    }
}

/// A figure, and what it is measured against.
#[derive(Debug, Clone)]
struct Figure {
    row: u32,
    what: String,
    unit: &'static str,
    value: f64,
    reach: f64,
    aim: f64,
    /// Whether more is better.
    more: bool,
}

impl Figure {
    fn verdict(&self) -> &'static str {
        let meets = |target: f64| match self.more {
            true => self.value >= target,
            false => self.value <= target,
        };
        match (meets(self.reach), meets(self.aim)) {
            (_, true) => "aim reached",
            (true, false) => "reached",
            (false, false) => "MISSED",
        }
    }

    fn print(&self) {
        let sign = if self.more { ">=" } else { "<=" };
        let decimals = usize::from(self.aim < 10.0) * 2;
        println!(
            "{:>3}  {:<66} {:>10.decimals$} {:<9} reach {sign} {:<8} aim {sign} {:<8} {}",
            self.row,
            self.what,
            self.value,
            self.unit,
            self.reach,
            self.aim,
            self.verdict()
        );
    }
}

fn less(row: u32, what: impl Into<String>, unit: &'static str, value: f64, reach: f64, aim: f64) -> Figure {
    Figure {
        row,
        what: what.into(),
        unit,
        value,
        reach,
        aim,
        more: false,
    }
}

fn more(row: u32, what: impl Into<String>, unit: &'static str, value: f64, reach: f64, aim: f64) -> Figure {
    Figure {
        more: true,
        ..less(row, what, unit, value, reach, aim)
    }
}

/// A load, in its short form and as long as the row asks for.
struct Load {
    row: u32,
    short: &'static str,
    full: &'static str,
    /// ClickHouse stands still: in the short form and in the full one.
    pause: Option<(&'static str, &'static str)>,
}

const LOADS: [Load; 5] = [
    Load {
        row: 6,
        short: "10000:60",
        full: "10000:300",
        pause: None,
    },
    Load {
        row: 7,
        short: "40000:30,80000:15,40000:30",
        full: "40000:270,80000:60,40000:270",
        pause: None,
    },
    Load {
        row: 7,
        short: "100000:20",
        full: "100000:60",
        pause: None,
    },
    Load {
        row: 8,
        short: "15000:15,90000:20,15000:30",
        full: "15000:60,90000:60,15000:60",
        pause: None,
    },
    Load {
        row: 9,
        short: "40000:60",
        full: "40000:100",
        pause: Some(("10:30", "10:60")),
    },
];

impl Load {
    fn options(&self, full: bool) -> Result<flow::Options, Error> {
        let read = |fault: String| Error::Failed(fault);
        let pause = self.pause.map(|(short, long)| if full { long } else { short });
        Ok(flow::Options {
            phases: if full { self.full } else { self.short }.parse().map_err(read)?,
            tenants: 50,
            pause_clickhouse: pause.map(str::parse).transpose().map_err(read)?,
            guarantee: None,
            json: false,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    fn figures(&self, full: bool, figures: &Figures) -> Vec<Figure> {
        let load = if full { self.full } else { self.short };
        let (p95, p99) = (figures.latency_ms.p95 as f64, figures.latency_ms.p99 as f64);
        let latency = |reach, aim, reach_99| {
            vec![
                less(
                    self.row,
                    format!("{load}: from due to queryable, p95"),
                    "ms",
                    p95,
                    reach,
                    aim,
                ),
                less(self.row, format!("{load}: p99"), "ms", p99, reach_99, reach_99),
            ]
        };
        match self.row {
            6 => latency(180.0, 120.0, 300.0),
            7 => latency(350.0, 350.0, 500.0),
            8 => {
                let behind = figures
                    .phases
                    .iter()
                    .map(|phase| phase.behind_s_max)
                    .fold(0.0, f64::max);
                let back = figures.phases.last().and_then(|phase| phase.back_after_s);
                let back = back.unwrap_or(f64::INFINITY);
                vec![
                    less(8, format!("{load}: behind at most"), "s", behind, 10.0, 2.0),
                    less(
                        8,
                        format!("{load}: less than a second behind again after"),
                        "s",
                        back,
                        30.0,
                        30.0,
                    ),
                ]
            }
            _ => {
                let most = figures.memory_mib_max;
                let grown = figures.memory_mib_paused.map_or(0.0, |(third, end)| end - third);
                vec![
                    less(
                        9,
                        format!("{load}, ClickHouse stopped: memory of the worker"),
                        "MiB",
                        most,
                        512.0,
                        256.0,
                    ),
                    less(9, "growth in the last two thirds of the stop", "MiB", grown, 50.0, 20.0),
                ]
            }
        }
    }
}

/// What a figure is made of.
fn below(line: &str) {
    println!("       {line}");
}

/// Exactly-once against at-least-once.
async fn row_5(full: bool) -> Result<Vec<Figure>, Error> {
    let phases = if full { "10000:40" } else { "10000:20" };
    let options = guarantees::Options {
        events: if full { 6_000_000 } else { 4_000_000 },
        tenants: 50,
        runs: if full { 10 } else { 6 },
        latency_runs: if full { 5 } else { 3 },
        phases: phases.parse().map_err(|fault: String| Error::Failed(fault))?,
        json: false,
    };
    let figures = guarantees::measure(&options, |guarantee, what| below(&what.line(guarantee))).await?;
    let (rate, p95) = (figures.rate_lost_percent(), figures.p95_added_ms());
    Ok(vec![
        less(
            5,
            "events a second that exactly-once loses against at-least-once",
            "%",
            rate,
            3.0,
            2.0,
        ),
        less(
            5,
            format!("{phases}: from due to queryable, p95 that it adds"),
            "ms",
            p95,
            6.0,
            4.0,
        ),
    ])
}

/// Measures and prints, row after row.
///
/// # Errors
/// When a figure cannot be had. One that misses what it has to reach is no error.
pub async fn run(options: Options) -> Result<(), Error> {
    let wanted = |row: u32| options.only.is_empty() || options.only.contains(&row);
    let mut missed = 0;
    let mut show = |figure: Figure| {
        missed += usize::from(figure.verdict() == "MISSED");
        figure.print();
    };
    let stages = stages::Options {
        events: if options.full { 2_000_000 } else { 500_000 },
        runs: if options.full { 5 } else { 3 },
        ..stages::Options::default()
    };
    if wanted(1) {
        let of = instructions::Options::default();
        let recorded = instructions::read(&of.recorded)?;
        let (stage_costs, _) = stages::measured(stages).await?;
        let rate = 1e9 / stage_costs.total();
        show(more(
            1,
            "decode, rules, route, encode on one core",
            "events/s",
            rate,
            7e5,
            1e6,
        ));
        for line in instructions::lines(&of, recorded, stage_costs).await? {
            below(&line);
        }
    }
    if wanted(2) || wanted(3) || wanted(4) {
        let peers = peers::Options {
            events: if options.full { 3_000_000 } else { 2_000_000 },
            different: peers::PEER_DIFFERENT,
            tenants: 50,
            runs: if options.full { 5 } else { 3 },
            alone: false,
            json: false,
        };
        let figures = peers::measure(peers, |name, run| below(&peers::line(name, run))).await?;
        // As the worker does it: its ClickHouse is on this machine.
        let without_lz4 = true;
        let (own, _) = stages::measured(stages::Options { without_lz4, ..stages }).await?;
        let beyond = (figures.worker_us() - own.total() / 1000.0) / figures.bare_us();
        show(less(
            2,
            "a worker (its sinks' clients, too) beyond row 1, against bare reading",
            "times",
            beyond,
            2.5,
            1.5,
        ));
        show(more(
            3,
            format!(
                "CPU of the Kafka engine for an event, against Sluice's {:.2} us",
                figures.sluice_us()
            ),
            "times",
            figures.cpu_ratio(),
            4.0,
            5.0,
        ));
        show(more(
            4,
            "events a second, against the Kafka engine's",
            "times",
            figures.rate_ratio(),
            3.0,
            4.5,
        ));
    }
    if wanted(5) {
        for figure in row_5(options.full).await? {
            show(figure);
        }
    }
    for load in LOADS.iter().filter(|load| wanted(load.row)) {
        let figures = flow::measure(&load.options(options.full)?).await?;
        load.figures(options.full, &figures).into_iter().for_each(&mut show);
    }
    if wanted(10) {
        let growth = growth::Options {
            full: options.full,
            ..growth::Options::default()
        };
        for growth in growth::measure(&growth, |name, run| below(&growth::line(name, run))).await? {
            show(less(
                10,
                format!("CPU of the worker for an event: {}", growth.name()),
                "times",
                growth.worker_ratio(),
                1.3,
                1.15,
            ));
        }
    }
    if wanted(12) {
        let streams = streams::Options {
            events: if options.full { 3_000_000 } else { 2_000_000 },
            tenants: 50,
            runs: 3,
        };
        let ratio = streams::measure(streams, |name, run| below(&peers::line(name, run)))
            .await?
            .cpu_ratio();
        show(more(
            12,
            "CPU of Kafka Streams for an event, against Sluice's",
            "times",
            ratio,
            4.0,
            8.0,
        ));
    }
    println!("{missed} missed; row 11 is measured by `make failures ONLY=worker_killed,worker_stopped`");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_by_what_is_better() {
        let rate = |value| more(1, "", "", value, 7.0, 10.0).verdict();
        assert_eq!([rate(6.0), rate(7.0), rate(10.0)], ["MISSED", "reached", "aim reached"]);
        let time = |value| less(6, "", "", value, 180.0, 120.0).verdict();
        assert_eq!(
            [time(181.0), time(180.0), time(119.0)],
            ["MISSED", "reached", "aim reached"]
        );
    }

    #[test]
    fn rows_that_are_not_measured_here_are_refused() {
        assert_eq!(["1", "10", "12"].map(row), [Ok(1), Ok(10), Ok(12)]);
        assert!(row("11").unwrap_err().contains("make failures"));
        assert!(["0", "13", "-1", "all"].map(row).iter().all(Result::is_err));
    }

    #[test]
    fn every_load_can_be_read() {
        for load in LOADS {
            load.options(false).unwrap();
            load.options(true).unwrap();
        }
    }
}
