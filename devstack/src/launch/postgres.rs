use super::Place;
use crate::error::{At, Error};
use crate::fetch;
use crate::part::Part;
use crate::supervise::Spec;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

const PART: Part = Part::Postgres;

pub(super) async fn prepare(place: &Place) -> Result<Spec, Error> {
    let dir = place.of(PART);
    let data = dir.join("data");
    let programs = programs()?;
    let user = user()?;
    if let Some((uid, gid)) = user {
        std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).at(&dir)?;
    }
    if !data.exists() {
        make_cluster(&programs, &dir, user).await?;
    }
    let settings = [
        format!("port={}", place.ports.postgres),
        "listen_addresses=127.0.0.1".into(),
        "unix_socket_directories=".into(),
    ];
    let mut args = vec!["-D".into(), data.display().to_string()];
    args.extend(settings.into_iter().flat_map(|setting: String| ["-c".into(), setting]));
    Ok(Spec {
        part: PART,
        program: programs.join("postgres"),
        args,
        env: BTreeMap::new(),
        cwd: dir,
        log: place.log(PART),
        user,
    })
}

/// initdb marks a directory as a cluster before it is one, so it works beside the final name.
async fn make_cluster(programs: &Path, dir: &Path, user: Option<(u32, u32)>) -> Result<(), Error> {
    let (beside, data) = (dir.join("data.new"), dir.join("data"));
    if beside.exists() {
        std::fs::remove_dir_all(&beside).at(&beside)?;
    }
    let mut initdb = std::process::Command::new(programs.join("initdb"));
    initdb
        .args([
            "-U",
            "sluice",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            "-D",
        ])
        .arg(&beside);
    initdb.current_dir("/");
    if let Some((uid, gid)) = user {
        initdb.uid(uid).gid(gid);
    }
    let done = tokio::process::Command::from(initdb)
        .output()
        .await
        .at(&programs.join("initdb"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        let hint = "as root it runs as the system user 'postgres', who must be able to enter the stack's directory";
        return Err(Error::Prepare {
            part: PART,
            reason: format!("initdb: {said} ({hint})"),
        });
    }
    std::fs::rename(&beside, &data).at(&data)
}

/// Debian keeps the server's programs off the PATH, one directory a version: the newest counts.
fn programs() -> Result<PathBuf, Error> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| fetch::executable(&bin.join("initdb")));
    let newest = debian.max_by_key(|bin| version(bin));
    let on_path = || fetch::on_path("initdb").and_then(|file| Some(file.canonicalize().ok()?.parent()?.to_owned()));
    newest.or_else(on_path).ok_or(Error::Missing {
        tool: "initdb",
        part: PART,
        hint: "package 'postgresql'",
    })
}

fn version(bin: &Path) -> Option<u32> {
    bin.parent()?.file_name()?.to_str()?.parse().ok()
}

/// PostgreSQL refuses to run as root; Debian's package brings a system user for it.
fn user() -> Result<Option<(u32, u32)>, Error> {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(None);
    }
    let passwd = Path::new("/etc/passwd");
    let text = std::fs::read_to_string(passwd).at(passwd)?;
    let found = text.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let reason = "there is no system user 'postgres', and it refuses to run as root: install package 'postgresql'";
    found.map(Some).ok_or_else(|| Error::Prepare {
        part: PART,
        reason: reason.into(),
    })
}
