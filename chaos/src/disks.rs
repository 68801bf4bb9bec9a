//! File systems of a given size under the parts that store something, so that they can be full.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use devstack::Part;

/// Room for some trials' data.
const SIZE: &str = "size=3g";
/// File systems in memory below ClickHouse and PostgreSQL. They are unmounted when this is dropped, after their parts have ended.
#[derive(Debug)]
pub struct Disks {
    mounted: Vec<(Part, PathBuf)>,
    /// Why there are none.
    refused: String,
}

impl Disks {
    /// Makes them in a stack's directory, before the stack is up. Only root can mount; without them only [`Disks::fill`] fails.
    pub fn below(stack: &Path) -> Disks {
        let mut disks = Disks {
            mounted: Vec::new(),
            refused: String::new(),
        };
        for part in [Part::ClickHouse, Part::Postgres] {
            let dir = stack.join(part.name());
            std::fs::create_dir_all(&dir).unwrap();
            let options = format!("{SIZE},mode=755");
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&dir);
            let done = mount.output().unwrap();
            if done.status.success() {
                disks.mounted.push((part, dir));
            } else {
                disks.refused = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            }
        }
        disks
    }

    /// Leaves no room in the file system of a part until the answer is dropped. To ClickHouse it leaves half of what that keeps
    /// free: no insert gets room, and none that has begun fails at a write, which the library does not notice
    /// ([`devstack::CLICKHOUSE_KEEPS_FREE`]).
    ///
    /// # Panics
    /// When the part has no file system of its own, because this process may not mount one.
    pub fn fill(&self, part: Part) -> Full {
        let found = self.mounted.iter().find(|(of, _)| *of == part);
        let Some((_, dir)) = found else {
            panic!("a disk can be filled by root alone: {}", self.refused);
        };
        let room = match part {
            Part::ClickHouse => free(dir).saturating_sub(devstack::CLICKHOUSE_KEEPS_FREE / 2),
            // To the last byte: whoever writes meanwhile takes less.
            _ => u64::MAX,
        };
        let ballast = dir.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        let filled = std::io::copy(&mut std::io::repeat(1).take(room), &mut file);
        assert_eq!(filled.is_err(), room == u64::MAX, "{}: {filled:?}", ballast.display());
        Full(ballast)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for (_, dir) in &self.mounted {
            // Lazily: whoever still has a file open there is about to end.
            let done = Command::new("umount").arg("-l").arg(dir).status();
            if !done.is_ok_and(|done| done.success()) {
                eprintln!("{} stays mounted", dir.display());
            }
        }
    }
}

/// Bytes of a file system that nobody uses.
fn free(dir: &Path) -> u64 {
    let df = Command::new("df")
        .args(["-B1", "--output=avail"])
        .arg(dir)
        .output()
        .unwrap();
    let text = String::from_utf8(df.stdout).unwrap();
    text.lines().last().and_then(|line| line.trim().parse().ok()).unwrap()
}

/// A file system without room. There is room again when this is dropped.
#[derive(Debug)]
pub struct Full(PathBuf);

impl Drop for Full {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
