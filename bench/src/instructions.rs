//! How many instructions an event takes in each stage of [`crate::stages`], counted by callgrind, beside the last ones that were recorded. A count
//! does not depend on what else the machine does, so that a change of one percent is seen; which instructions take how long it does not tell.
//!
//! The program runs itself under valgrind up to each stage, with some batches and with twice as many; what the second run takes more is those
//! batches alone, without the start. Events are made of a fixed seed and a fixed time. Two things remain: maps with a random seed, which move a
//! count by less than a thousandth from one run to the next, and code that asks which instructions the CPU has (glibc, memchr, SHA-256). Valgrind
//! answers it, and has AVX2 where the CPU has it and nothing newer: the way through such code may be another one than without valgrind, and on
//! another CPU another one again.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::arguments::at_least_one;
use crate::error::Error;
use crate::stages::{self, Costs, Stage};

const VALGRIND: &str = "valgrind";
/// How to get it.
const MISSING: &str =
    "instructions are not counted: there is no `valgrind` on the PATH (Debian and Ubuntu: apt-get install valgrind)";
/// Of glibc: no `rep movsb`, of which callgrind counts every byte as an instruction.
const TUNABLES: &str = "glibc.cpu.hwcaps=-ERMS,-FSRM";
/// Batches of the shorter run.
const BATCHES: usize = 2;

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Events in a batch
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one())]
    pub batch: usize,
    /// What was recorded; the default is there at the top of the repository
    #[arg(long, value_name = "FILE", default_value = "bench/recorded.json")]
    pub recorded: PathBuf,
    /// Write what is measured there, and the nanoseconds of each stage with it
    #[arg(long)]
    pub record: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Default for Options {
    /// As the command's, from the top of the repository.
    fn default() -> Self {
        Self {
            batch: 10_000,
            recorded: PathBuf::from("bench/recorded.json"),
            record: false,
            json: false,
        }
    }
}

/// A figure of each stage, for an event.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stages {
    /// Frame, decode, and the raw bytes put aside.
    pub decode: f64,
    /// Envelope, rules, route, digest.
    pub transform: f64,
    /// Sorted, written as a Native block, compressed.
    pub encode: f64,
}

impl Stages {
    /// Each by its name, and all together.
    fn named(&self) -> [(&'static str, f64); 4] {
        let together = self.decode + self.transform + self.encode;
        [
            ("decode", self.decode),
            ("rules and route", self.transform),
            ("encode", self.encode),
            ("together", together),
        ]
    }

    /// As it is written down.
    fn rounded(self) -> Self {
        let one = |figure: f64| (figure * 10.0).round() / 10.0;
        Self {
            decode: one(self.decode),
            transform: one(self.transform),
            encode: one(self.encode),
        }
    }
}

impl From<Costs> for Stages {
    fn from(costs: Costs) -> Self {
        Self {
            decode: costs.decode,
            transform: costs.transform,
            encode: costs.encode,
        }
    }
}

/// `bench/recorded.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Instructions of an event.
    pub instructions: Stages,
    /// Events in a batch.
    pub batch: usize,
    /// What counted them.
    pub valgrind: String,
    /// Nanoseconds of an event, of one core.
    pub ns: Stages,
    /// Of this CPU.
    pub machine: String,
}

/// One line: a stage now, what was recorded, and the change in percent.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    name: &'static str,
    now: f64,
    before: Option<f64>,
}

impl Compared {
    fn line(&self, unit: &str) -> String {
        let Self { name, now, before } = self;
        match before {
            Some(before) => {
                let change = (now / before - 1.0) * 100.0;
                format!("{name:<16} {now:>9.1} {unit} an event, recorded {before:>9.1}, {change:+.2} %")
            }
            None => format!("{name:<16} {now:>9.1} {unit} an event, nothing recorded"),
        }
    }
}

fn compared(now: Stages, before: Option<Stages>) -> Vec<Compared> {
    let before = before.map(|before| before.named().map(|(_, figure)| figure));
    let beside = |(nth, (name, now)): (usize, (&'static str, f64))| Compared {
        name,
        now,
        before: before.map(|before| before[nth]),
    };
    now.named().into_iter().enumerate().map(beside).collect()
}

/// The number in callgrind's file: all instructions of the program.
fn total(profile: &str) -> Option<f64> {
    let of = |name: &str| profile.lines().find_map(|line| line.strip_prefix(name));
    let text = of("totals:").or_else(|| of("summary:"))?;
    text.split_whitespace().next()?.parse().ok()
}

/// From totals of runs up to each stage: `[stage][short or long]`.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn by_stage(totals: [[f64; 2]; 3], events: usize) -> Stages {
    let until = totals.map(|[short, long]| (long - short) / events as f64);
    Stages {
        decode: until[0],
        transform: until[1] - until[0],
        encode: until[2] - until[1],
    }
}

/// The version of valgrind; none if there is no such program.
async fn valgrind() -> Option<String> {
    let told = Command::new(VALGRIND)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .await
        .ok()?;
    let version = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    (told.status.success() && !version.is_empty()).then_some(version)
}

/// Instructions of the whole program, run up to a stage with so many batches.
async fn counted(dir: &Path, batch: usize, until: Stage, batches: usize) -> Result<f64, Error> {
    let program = std::env::current_exe().map_err(Error::io(Path::new("this program")))?;
    let (name, profile) = match until {
        Stage::Decode => ("decode", dir.join(format!("decode-{batches}"))),
        Stage::Transform => ("transform", dir.join(format!("transform-{batches}"))),
        Stage::Encode => ("encode", dir.join(format!("encode-{batches}"))),
    };
    let done = Command::new(VALGRIND)
        .args(["--tool=callgrind", "--error-exitcode=0"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(&program)
        .args(["stages", "--runs", "1", "--until", name])
        .args(["--batch", &batch.to_string()])
        .args(["--events", &(batch * batches).to_string()])
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(Error::io(Path::new(VALGRIND)))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        return Err(Error::Failed(format!("valgrind:\n{said}")));
    }
    let text = std::fs::read_to_string(&profile).map_err(Error::io(&profile))?;
    total(&text).ok_or_else(|| Error::Failed(format!("{} has no total", profile.display())))
}

/// Instructions of an event in each stage, and valgrind's version; none if there is no valgrind.
///
/// # Errors
/// When valgrind cannot run this program.
pub async fn measure(batch: usize) -> Result<Option<(Stages, String)>, Error> {
    let Some(version) = valgrind().await else {
        return Ok(None);
    };
    let dir = tempfile::Builder::new()
        .prefix("sluice-bench-")
        .tempdir()
        .map_err(Error::io(&std::env::temp_dir()))?;
    let mut totals = [[0.0; 2]; 3];
    for (until, totals) in [Stage::Decode, Stage::Transform, Stage::Encode]
        .into_iter()
        .zip(&mut totals)
    {
        // Two at once: what else runs changes no count.
        let (short, long) = tokio::try_join!(
            counted(dir.path(), batch, until, BATCHES),
            counted(dir.path(), batch, until, 2 * BATCHES)
        )?;
        *totals = [short, long];
    }
    Ok(Some((by_stage(totals, batch * BATCHES).rounded(), version)))
}

/// The first model name of the processor, and how many there are.
fn machine() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = told.lines().filter(|line| line.starts_with("model name")).collect();
    let model = models.first().and_then(|line| line.split_once(": "));
    let cores = models.len().max(1);
    format!("{cores} x {}", model.map_or("an unknown CPU", |(_, name)| name.trim()))
}

/// What `--record` wrote; none if there is no such file.
///
/// # Errors
/// When the file is not what `--record` writes.
pub fn read(file: &Path) -> Result<Option<Recorded>, Error> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(file)(error)),
    };
    let read = serde_json::from_str(&text).map(Some);
    read.map_err(|error| Error::Failed(format!("{}: {error}; `--record` writes it anew", file.display())))
}

/// Stage by stage beside what was recorded: instructions if there is a valgrind, nanoseconds if they were recorded on a CPU like this one.
///
/// # Errors
/// When valgrind cannot run this program.
pub async fn lines(options: &Options, recorded: Option<Recorded>, ns: Costs) -> Result<Vec<String>, Error> {
    let (same, batch) = match &recorded {
        Some(recorded) => (recorded.machine == machine(), recorded.batch),
        None => (false, options.batch),
    };
    let counted = measure(batch).await?;
    let mut lines = Vec::new();
    match counted {
        Some((now, _)) => {
            let before = recorded.as_ref().map(|recorded| recorded.instructions);
            lines.extend(compared(now, before).iter().map(|line| line.line("instructions")));
        }
        None => lines.push(MISSING.to_owned()),
    }
    let before = recorded.filter(|_| same).map(|recorded| recorded.ns);
    lines.extend(compared(ns.into(), before).iter().map(|line| line.line("ns")));
    Ok(lines)
}

/// Measures, and prints or records.
///
/// # Errors
/// When there is no valgrind and the figures are to be recorded, or what was recorded cannot be read; else like [`lines`].
pub async fn run(options: Options) -> Result<(), Error> {
    if !options.record && !options.json {
        let recorded = read(&options.recorded)?;
        let (ns, _) = stages::measured(stages::Options::default()).await?;
        for line in lines(&options, recorded, ns).await? {
            println!("{line}");
        }
        return Ok(());
    }
    let (ns, _) = stages::measured(stages::Options::default()).await?;
    let (instructions, valgrind) = measure(options.batch)
        .await?
        .ok_or_else(|| Error::Failed(MISSING.to_owned()))?;
    let figures = Recorded {
        instructions,
        batch: options.batch,
        valgrind,
        ns: Stages::from(ns).rounded(),
        machine: machine(),
    };
    let text = format!("{:#}\n", serde_json::json!(figures));
    if options.record {
        std::fs::write(&options.recorded, &text).map_err(Error::io(&options.recorded))?;
    }
    print!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_profile_is_read_and_a_cut_one_has_none() {
        let profile = "# callgrind format\nversion: 1\nevents: Ir\nsummary: 12\n\nfn=(1) main\n1 12\n\ntotals: 34 5\n";
        assert_eq!(total(profile), Some(34.0));
        assert_eq!(total("summary: 12\n"), Some(12.0));
        assert_eq!(total("events: Ir\nfn=(1) main\n"), None);
    }

    #[test]
    fn a_stage_is_what_it_adds_and_the_start_is_in_none() {
        // 1000 of start, and 10, 14 and 20 an event.
        let totals = [[1100.0, 1200.0], [1140.0, 1280.0], [1200.0, 1400.0]];
        let expected = Stages {
            decode: 10.0,
            transform: 4.0,
            encode: 6.0,
        };
        assert_eq!(by_stage(totals, 10), expected);
    }

    #[test]
    fn a_change_is_told_in_percent_and_what_was_not_recorded_as_that() {
        let now = Stages {
            decode: 99.0,
            transform: 40.0,
            encode: 61.0,
        };
        let before = Stages {
            decode: 100.0,
            transform: 40.0,
            encode: 60.0,
        };
        let lines = compared(now, Some(before));
        assert_eq!(
            lines[0].line("ns"),
            "decode                99.0 ns an event, recorded     100.0, -1.00 %"
        );
        assert_eq!(
            lines[3].line("ns"),
            "together             200.0 ns an event, recorded     200.0, +0.00 %"
        );
        let alone = compared(now, None);
        assert_eq!(
            alone[1].line("ns"),
            "rules and route       40.0 ns an event, nothing recorded"
        );
    }

    #[test]
    fn what_is_recorded_is_read_again() {
        let stages = Stages {
            decode: 1.5,
            transform: 2.0,
            encode: 3.0,
        };
        let recorded = Recorded {
            instructions: stages,
            batch: 10,
            valgrind: "valgrind-3.19.0".to_owned(),
            ns: stages,
            machine: machine(),
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("recorded.json");
        assert_eq!(read(&file).unwrap(), None);
        std::fs::write(&file, serde_json::json!(recorded).to_string()).unwrap();
        assert_eq!(read(&file).unwrap(), Some(recorded));
        std::fs::write(&file, "{}").unwrap();
        assert!(read(&file).is_err());
    }
}
