use crate::error::{At, Error};
use crate::fetch;
use crate::launch::{self, Place};
use crate::part::{Part, Ports};
use crate::ports::{self, Reserved};
use crate::probe;
use crate::process::Process;
use crate::state::State;
use crate::supervise::Supervised;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a part may take to stop when asked properly; then it is killed.
pub(crate) const STOP: Duration = Duration::from_secs(20);
/// How long the kernel may take to end a process that was killed.
pub(crate) const END: Duration = Duration::from_secs(10);

/// What to run and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stack's directory: configuration, logs and data of every part, and `devstack.json`. Made when missing; what a
    /// former stack left there is used again.
    pub dir: PathBuf,
    /// The parts to start. The others have their ports reserved and can be started later.
    pub parts: Vec<Part>,
    /// The ports to listen on; a free one is taken where the wished one is in use.
    pub ports: Ports,
    /// The program that supervises the parts: one whose main calls [`crate::hidden_main`]. None: the running program.
    pub launcher: Option<PathBuf>,
    /// Where downloads are kept.
    pub cache: PathBuf,
    /// How long a part may take until it answers.
    pub ready_within: Duration,
    /// Where somebody's proxies listen, one for each node of Kafka: a client that asks a node on its port of
    /// [`Ports::kafka_front`] is told these ports instead of the nodes' own, and so stays behind the proxies.
    pub kafka_proxies: Option<[u16; 3]>,
    /// Whether Kafka's JVM optimizes what it runs. That takes a third of a broker's CPU in its first minute, which is as long as most
    /// stacks live, and gives it back to one that lives for longer.
    pub kafka_optimizes: bool,
}

impl Options {
    /// Kafka, the registry and ClickHouse on their fixed ports, supervised by the running program. Kafka's JVM optimizes if the variable
    /// `SLUICE_KAFKA_JIT` is `full`.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            parts: vec![Part::Kafka, Part::Registry, Part::ClickHouse],
            ports: Ports::default(),
            launcher: None,
            cache: fetch::cache_dir(),
            ready_within: Duration::from_secs(90),
            kafka_proxies: None,
            kafka_optimizes: std::env::var_os("SLUICE_KAFKA_JIT").is_some_and(|jit| jit == "full"),
        }
    }

    /// The same with a Kafka cluster of three nodes, each broker and controller, replication 3 and two in-sync replicas at least:
    /// any one of them may fail.
    pub fn with_cluster(self) -> Options {
        let mut parts = Part::KAFKAS.to_vec();
        parts.extend(self.parts.iter().filter(|part| !Part::KAFKAS.contains(part)));
        Options { parts, ..self }
    }

    /// The same on free ports, supervised by [`launcher`]: what a test needs, whose main is the test harness's.
    pub fn for_tests(dir: impl Into<PathBuf>) -> Options {
        Options {
            ports: Ports::any(),
            launcher: launcher(),
            ..Options::new(dir)
        }
    }
}

/// A program beside the running one that can supervise: `$SLUICE_LAUNCHER`, else `sluice-devstack` in the directory of the
/// running program or the one above (a test runs from `target/debug/deps`; `cargo build -p devstack` makes the program).
pub fn launcher() -> Option<PathBuf> {
    if let Some(set) = std::env::var_os("SLUICE_LAUNCHER") {
        return Some(set.into());
    }
    let running = std::env::current_exe().ok()?;
    let near = running
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("sluice-devstack"));
    near.into_iter().find(|file| fetch::executable(file))
}

/// Running parts. Dropping it, or the end of this process by any signal, ends them; [`Stack::down`] ends them properly and
/// [`Stack::keep`] leaves them running.
#[derive(Debug)]
pub struct Stack {
    /// Kafka's bootstrap address, `127.0.0.1:19092`; of a cluster those of all nodes, comma-separated.
    pub kafka: String,
    /// The registry's URL as clients want it, `http://127.0.0.1:18081/apis/ccompat/v7`.
    pub registry: String,
    /// ClickHouse over HTTP, `http://127.0.0.1:18123`; user `default`, no password.
    pub clickhouse: String,
    /// PostgreSQL, `postgresql://sluice@127.0.0.1:15432/postgres`; a superuser without password.
    pub postgres: String,
    /// Every port, those of parts that don't run included: they are kept for them.
    pub ports: Ports,
    place: Place,
    ready_within: Duration,
    running: BTreeMap<Part, Supervised>,
    _ports: Reserved,
    _lock: File,
}

/// Fetches what is missing, starts the wanted parts together and returns when every one answers. On an error nothing is
/// left running.
pub async fn up(options: Options) -> Result<Stack, Error> {
    let mut stack = reserve(&options)?;
    fetch::fetch_into(&options.cache, &options.parts).await?;
    let mut starting = JoinSet::new();
    for part in options.parts {
        let place = stack.place.clone();
        starting.spawn(async move { Ok((part, start(&place, part, options.ready_within).await?)) });
    }
    while let Some(done) = starting.join_next().await {
        let started: Result<_, Error> = done.unwrap_or_else(|error| {
            let reason = std::io::Error::other(error);
            Err(Error::File {
                path: options.dir.clone(),
                reason,
            })
        });
        let (part, supervised) = started?;
        stack.running.insert(part, supervised);
        stack.save()?;
    }
    Ok(stack)
}

fn reserve(options: &Options) -> Result<Stack, Error> {
    std::fs::create_dir_all(&options.dir).at(&options.dir)?;
    let dir = options.dir.canonicalize().at(&options.dir)?;
    let lock = lock(&dir)?.ok_or_else(|| Error::AlreadyUp { dir: dir.clone() })?;
    if let Some(state) = State::load(&dir)? {
        let kept = state.owner.is_none() && state.parts.values().any(|running| running.process.alive());
        if kept {
            return Err(Error::AlreadyUp { dir });
        }
    }
    let reserved = ports::reserve(&options.cache, options.ports)?;
    let ports = reserved.ports;
    let cluster = options.parts.contains(&Part::Kafka2);
    let nodes = if cluster { &Part::KAFKAS[..] } else { &Part::KAFKAS[..1] };
    let kafka: Vec<String> = nodes.iter().map(|node| ports.address(*node)).collect();
    let launcher = options.launcher.clone().unwrap_or_else(|| "/proc/self/exe".into());
    let cache = options.cache.clone();
    Ok(Stack {
        kafka: kafka.join(","),
        registry: ports.address(Part::Registry),
        clickhouse: ports.address(Part::ClickHouse),
        postgres: ports.address(Part::Postgres),
        ports,
        place: Place {
            dir,
            cache,
            launcher,
            ports,
            cluster,
            kafka_proxies: options.kafka_proxies,
            kafka_optimizes: options.kafka_optimizes,
        },
        ready_within: options.ready_within,
        running: BTreeMap::new(),
        _ports: reserved,
        _lock: lock,
    })
}

/// The owner's lock on a directory; none when another owner holds it.
fn lock(dir: &Path) -> Result<Option<File>, Error> {
    let path = dir.join("devstack.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .at(&path)?;
    Ok(file.try_lock().is_ok().then_some(file))
}

async fn start(place: &Place, part: Part, ready_within: Duration) -> Result<Supervised, Error> {
    let began = Instant::now();
    let spec = launch::prepare(place, part).await?;
    let mut supervised = Supervised::start(&place.launcher, &place.of(part), &spec).await?;
    while !probe::ready(part, &place.ports).await {
        let died = !supervised.running.process.alive();
        if died || began.elapsed() > ready_within {
            supervised.running.process.signal_tree(libc::SIGKILL);
            supervised.reap().await;
            let (log, seconds) = (place.log(part), ready_within.as_secs());
            let tail = tail(&log);
            return Err(if died {
                Error::Died { part, log, tail }
            } else {
                Error::NotReady {
                    part,
                    seconds,
                    log,
                    tail,
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    tracing::info!(%part, address = %place.ports.address(part), ms = began.elapsed().as_millis(), "part ready");
    Ok(supervised)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

impl Stack {
    /// Starts a part that was stopped, killed or not started yet, on its port and its data; returns when it answers.
    pub async fn start(&mut self, part: Part) -> Result<(), Error> {
        if self.runs(part) {
            return Err(Error::Running { part });
        }
        fetch::fetch_into(&self.place.cache, &[part]).await?;
        // One that ended by itself is still in the map: reap it before its place is taken.
        if let Some(mut ended) = self.running.remove(&part) {
            ended.reap().await;
        }
        let supervised = start(&self.place, part, self.ready_within).await?;
        self.running.insert(part, supervised);
        self.save()
    }

    /// Stops a part properly (killing it after 20 s); returns when its process has ended. Its port stays reserved.
    pub async fn stop(&mut self, part: Part) -> Result<(), Error> {
        let supervised = self.running.remove(&part).ok_or(Error::NotRunning { part })?;
        stop(part, supervised).await;
        self.save()
    }

    /// Kills a part with SIGKILL, all its processes; returns when they have ended. Its port stays reserved.
    pub async fn kill(&mut self, part: Part) -> Result<(), Error> {
        let mut supervised = self.running.remove(&part).ok_or(Error::NotRunning { part })?;
        supervised.running.process.signal_tree(libc::SIGKILL);
        supervised.reap().await;
        self.save()
    }

    /// Freezes a part (SIGSTOP): its connections stay open and nothing answers.
    pub fn pause(&self, part: Part) -> Result<(), Error> {
        self.signal(part, libc::SIGSTOP)
    }

    /// Lets a frozen part go on (SIGCONT).
    pub fn resume(&self, part: Part) -> Result<(), Error> {
        self.signal(part, libc::SIGCONT)
    }

    /// Whatever was done to these parts: those that were frozen go on, those that have ended are started.
    pub async fn mend(&mut self, parts: &[Part]) -> Result<(), Error> {
        for part in parts {
            if self.runs(*part) {
                self.resume(*part)?;
            } else {
                self.start(*part).await?;
            }
        }
        Ok(())
    }

    /// The part's process id, for tools that trace or inject faults.
    pub fn pid(&self, part: Part) -> Option<u32> {
        self.running.get(&part).map(|supervised| supervised.running.process.pid)
    }

    /// Whether the part was started and has not ended, by itself either.
    pub fn runs(&self, part: Part) -> bool {
        let running = self.running.get(&part);
        running.is_some_and(|supervised| supervised.running.process.alive())
    }

    /// The parts that were started and neither stopped nor killed.
    pub fn parts(&self) -> Vec<Part> {
        self.running.keys().copied().collect()
    }

    /// What a part has written to its standard output and error.
    pub fn log(&self, part: Part) -> PathBuf {
        self.place.log(part)
    }

    /// Stops every part properly, all at once; the data stays.
    pub async fn down(mut self) -> Result<(), Error> {
        let mut stopping = JoinSet::new();
        for (part, supervised) in std::mem::take(&mut self.running) {
            stopping.spawn(stop(part, supervised));
        }
        stopping.join_all().await;
        State::remove(&self.place.dir)
    }

    /// Leaves the parts running when this process ends. `devstack::down` stops them.
    pub async fn keep(mut self) -> Result<(), Error> {
        let mut state = self.state();
        state.owner = None;
        state.save(&self.place.dir)?;
        for supervised in std::mem::take(&mut self.running).into_values() {
            supervised.keep().await;
        }
        Ok(())
    }

    fn signal(&self, part: Part, signal: i32) -> Result<(), Error> {
        let supervised = self.running.get(&part).ok_or(Error::NotRunning { part })?;
        supervised.running.process.signal_tree(signal);
        Ok(())
    }

    fn state(&self) -> State {
        let mut state = State::new(self.ports);
        state.parts = self
            .running
            .iter()
            .map(|(part, supervised)| (*part, supervised.running))
            .collect();
        state
    }

    fn save(&self) -> Result<(), Error> {
        self.state().save(&self.place.dir)
    }
}

impl Drop for Stack {
    /// A test that fails leaves its stack here: end the parts before its directory goes. Losing their memory is fine, they
    /// are made to survive that.
    fn drop(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let killed = std::mem::take(&mut self.running)
            .into_values()
            .map(|supervised| supervised.running.process);
        let killed: Vec<Process> = killed.collect();
        let deadline = std::time::Instant::now() + END;
        while killed.iter().any(|process| process.alive()) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Err(error) = State::remove(&self.place.dir) {
            tracing::warn!(%error, "the state of a stack that has ended stays behind");
        }
    }
}

async fn stop(part: Part, mut supervised: Supervised) {
    let process = supervised.running.process;
    process.signal(launch::stop_signal(part));
    process.signal_tree(libc::SIGCONT);
    if !process.ended(STOP).await {
        tracing::warn!(%part, "did not stop within {} s: killed", STOP.as_secs());
        process.signal_tree(libc::SIGKILL);
    }
    supervised.reap().await;
}
