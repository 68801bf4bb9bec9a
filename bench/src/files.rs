//! Where the parts have their files: in memory, where there is room for them. What a file costs is the file system's matter, and may be more than
//! what is measured: ext4 without a journal looks at every inode that was deleted in the last minutes for each new file (`recently_deleted` in
//! Linux's `fs/ext4/ialloc.c`), and ClickHouse makes dozens of files for a part and deletes them after a merge.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::error::Error;

/// Linux's file system in memory.
const MEMORY: &str = "/dev/shm";
/// The largest topic with its table, and the processes beside them.
const FILES_BYTES: u64 = 14 << 30;
const AVAILABLE_BYTES: u64 = 18 << 30;

static SAID: Once = Once::new();

/// The directory below which everything is put: `TMPDIR` where it is set, memory where it is large enough, else the system's directory for
/// temporary files. The first call says which.
pub fn dir() -> PathBuf {
    let told = std::env::var_os("TMPDIR").is_some_and(|dir| !dir.is_empty());
    let large =
        || free_bytes(Path::new(MEMORY)).is_ok_and(|free| free >= FILES_BYTES) && available() >= AVAILABLE_BYTES;
    let dir = match !told && large() {
        true => PathBuf::from(MEMORY),
        false => std::env::temp_dir(),
    };
    SAID.call_once(|| {
        eprintln!(
            "the parts have their files in {} (TMPDIR says otherwise)",
            dir.display()
        )
    });
    dir
}

/// Bytes of memory that new processes could have, by the kernel's estimate; 0 if it says nothing.
fn available() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available_in(&told).unwrap_or(0)
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Bytes that are free for us where a directory is.
///
/// # Errors
/// When the operating system does not say.
pub fn free_bytes(dir: &Path) -> Result<u64, Error> {
    let failed = || Error::Failed(format!("nobody says how much is free at {}", dir.display()));
    let path = CString::new(dir.as_os_str().as_bytes()).map_err(|_| failed())?;
    // SAFETY: of plain numbers; all zero is a value.
    let mut told: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a path with a zero byte at its end, and a value of this function; both outlive the call.
    match unsafe { libc::statvfs(path.as_ptr(), &raw mut told) } {
        0 => Ok(told.f_bavail * told.f_frsize),
        _ => Err(failed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_much_memory_and_disk_there_is() {
        let text = "MemTotal:       24635720 kB\nMemFree:        20635720 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(available_in(text), Some(22_000_000 << 10));
        assert_eq!(available_in("MemTotal: 1 kB"), None);
        assert!(free_bytes(Path::new("/")).unwrap() > 0);
        assert!(free_bytes(Path::new("/nobody/has/this")).is_err());
    }
}
