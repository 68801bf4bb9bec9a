//! File systems of a given size under the parts that store something, so that they can be full.

use std::path::{Path, PathBuf};
use std::process::Command;

use devstack::Part;

/// Room for some trials' data.
const SIZE: &str = "size=3g";
/// Smaller ones are left: a page of it.
const PIECE_MIN: u64 = 4096;

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
        // From here on it goes away with this, whatever fails.
        let full = Full(dir.join("ballast"));
        let (leaves, to_the_last) = match part {
            Part::ClickHouse => (devstack::CLICKHOUSE_KEEPS_FREE / 2, false),
            // Whoever writes meanwhile takes less.
            _ => (0, true),
        };
        // In large pieces: a file that is written slowly leaves its part the time to take what was measured here. The part takes
        // some meanwhile all the same, and then a piece does not fit.
        let (mut size, mut piece) = (0, u64::MAX);
        loop {
            let room = free(dir).saturating_sub(leaves);
            piece = piece.min(room);
            if piece < PIECE_MIN {
                break;
            }
            let mut take = Command::new("fallocate");
            take.args(["-o", &size.to_string(), "-l", &piece.to_string()])
                .arg(&full.0);
            if take.output().unwrap().status.success() {
                size += piece;
            } else {
                piece /= 2;
            }
        }
        assert!(size > 0, "nothing was free below {part}");
        if to_the_last {
            let mut file = std::fs::File::options().append(true).open(&full.0).unwrap();
            let filled = std::io::copy(&mut std::io::repeat(1), &mut file);
            assert!(filled.is_err(), "{}: {filled:?}", full.0.display());
        }
        full
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
