//! CPU time and memory, from the operating system.

use std::time::{Duration, Instant};

use crate::error::Error;

/// CPU time that this thread has taken so far.
pub fn of_this_thread() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a value of this function. The call fails for unknown clocks alone.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// CPU time that a process has taken so far, all of its threads, in user and kernel mode (proc_pid_stat(5), fields 14 and 15; to one
/// clock tick, a hundredth of a second).
///
/// # Errors
/// [`Error::Failed`] when there is no such process any more.
pub fn of_process(pid: u32) -> Result<Duration, Error> {
    let gone = || Error::Failed(format!("process {pid} has ended while it was measured"));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|_| gone())?;
    ticks(&stat)
        .map(|ticks| Duration::from_millis(ticks * 10))
        .ok_or_else(gone)
}

/// Memory that a process has now and had at most, MiB (proc_pid_status(5), VmRSS and VmHWM).
///
/// # Errors
/// [`Error::Failed`] when there is no such process any more.
pub fn memory_mib(pid: u32) -> Result<(f64, f64), Error> {
    let gone = || Error::Failed(format!("process {pid} has ended while it was measured"));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| gone())?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB")
            .parse::<f64>()
            .ok()
    };
    match (kib("VmRSS"), kib("VmHWM")) {
        (Some(now), Some(most)) => Ok((now / 1024.0, most / 1024.0)),
        _ => Err(gone()),
    }
}

/// How many CPUs of this machine are busy, on average over half a second (proc_stat(5)); none where the system does not tell.
pub async fn busy() -> Option<f64> {
    let look = || worked(&std::fs::read_to_string("/proc/stat").ok()?);
    let before = look()?;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = look()?;
    Some(after.saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64())
}

/// Time in which all CPUs together did something.
fn worked(stat: &str) -> Option<Duration> {
    let fields = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user, nice, system, idle, iowait, irq, softirq, steal; a guest's time is in user.
    let fields: Vec<u64> = fields
        .split_whitespace()
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let idle = fields.get(3)? + fields.get(4)?;
    Some(Duration::from_millis((fields.iter().sum::<u64>() - idle) * 10))
}

/// The program's name stands in brackets and may hold anything, brackets too.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_brackets_in_its_name_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 12345 1 2 3";
        assert_eq!(ticks(stat), Some(300));
    }

    #[test]
    fn memory_that_is_written_to_is_counted() {
        let (before, _) = memory_mib(std::process::id()).unwrap();
        let written = std::hint::black_box(vec![1_u8; 64 << 20]);
        let (after, most) = memory_mib(std::process::id()).unwrap();
        assert!(
            after > before + 50.0 && most >= after,
            "{before} {after} {most}, {}",
            written.len()
        );
    }

    #[test]
    fn waiting_for_a_disk_is_no_work_and_what_a_guest_takes_is_counted_once() {
        let stat = "cpu  100 1 20 5000 300 2 3 4 100 0\ncpu0 50 0 10 2500 150 1 1 2 50 0\n";
        assert_eq!(worked(stat), Some(Duration::from_millis(1300)));
    }

    #[test]
    fn work_takes_time_of_the_thread_and_of_the_process() {
        let (thread, process) = (of_this_thread(), of_process(std::process::id()).unwrap());
        let mut sum = 0u64;
        while of_this_thread() - thread < Duration::from_millis(50) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(of_process(std::process::id()).unwrap() > process);
    }
}
