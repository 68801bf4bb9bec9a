//! A PostgreSQL server of the test's own, on a free port of the loopback, with its data in a folder of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PREFIX: &str = "sluice-billing-pg-";

pub struct Server {
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Makes a cluster and starts it; resolves when it answers.
    pub fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_left_behind();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).expect("a new folder");
        if root() {
            run(Command::new("chown").arg("postgres").arg(&folder));
        }
        let data = folder.join("data");
        run(as_postgres("initdb").arg("-D").arg(&data).args([
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]));
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a free port")
            .port();
        let mut server = Self {
            folder,
            port,
            child: None,
        };
        server.start_again();
        server
    }

    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::File::create(self.folder.join("log")).expect("a log");
        let child = as_postgres("postgres")
            .arg("-D")
            .arg(self.folder.join("data"))
            .args([
                "-p",
                &self.port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
            ])
            // Tests kill the server, not the machine.
            .args(["-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        // Another process that tells nobody when it is ready: it is asked again.
        while !self.answers() {
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "postgres does not answer: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash would: no checkpoint, connections cut, recovery at the next start.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGQUIT to the postmaster takes its backends with it; SIGKILL would leave them with the shared memory.
            run(Command::new("kill").args(["-QUIT", &child.id().to_string()]));
            child.wait().expect("postgres ends");
        }
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn answers(&self) -> bool {
        let mut psql = bin("psql");
        psql.arg(self.url("postgres"))
            .args(["-Atc", "SELECT 1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        psql.status().expect("psql runs").success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.folder).expect("its own folder");
    }
}

/// A new database on a server that lives as long as this program.
pub async fn shared_database() -> String {
    static SHARED: OnceLock<Server> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    tokio::task::spawn_blocking(|| {
        let server = SHARED.get_or_init(|| {
            // Postgres is told to end with the thread that has started it; a test's own thread ends too early.
            let (sender, receiver) = std::sync::mpsc::channel();
            thread::spawn(move || {
                sender.send(Server::start()).expect("a receiver");
                loop {
                    thread::park();
                }
            });
            receiver.recv().expect("a server")
        });
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        run(bin("psql")
            .arg(server.url("postgres"))
            .args(["-qc", &format!("CREATE DATABASE {name}")]));
        server.url(&name)
    })
    .await
    .expect("a database")
}

/// A static is never dropped, so the folder of the shared server is left to the next run.
fn remove_left_behind() {
    for entry in std::fs::read_dir(std::env::temp_dir())
        .expect("the folder for temporary files")
        .flatten()
    {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next());
        if let Some(pid) = owner
            && !Path::new("/proc").join(pid).exists()
        {
            // Another test program may be removing it, too.
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout == b"0\n"
}

/// PostgreSQL refuses to run as root. `setpriv` becomes the program that it runs, so its pid is the server's, and the server is
/// ended when the test's thread ends.
fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.arg(bin(program).get_program());
    command
}

/// The program of the newest PostgreSQL that is installed, else the one in PATH.
fn bin(program: &str) -> Command {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = installed
        .map(|entry| entry.path().join("bin").join(program))
        .filter(|path| path.exists());
    let mut command = Command::new(versions.max().unwrap_or_else(|| PathBuf::from(program)));
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command
        .current_dir("/")
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
