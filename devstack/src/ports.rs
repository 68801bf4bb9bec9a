//! Ports that nobody else gets while a stack holds them, even while the part that uses one is stopped.
//!
//! A part that is killed and started again must find its port free. Two things could take it meanwhile: an outgoing
//! connection (so free ports are looked for below that range, 32768 and up) and another stack (so each port in use is a
//! locked file in the cache; the kernel drops the lock with the process).

use crate::error::{At, Error};
use crate::part::Ports;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

const FREE_FROM: u16 = 20_000;
const FREE_TO: u16 = 31_999;

/// Ports and the locks that keep them. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub ports: Ports,
    _locks: Vec<File>,
}

/// Takes the wished ports where they are free, another free one where not or where the wish is 0.
pub(crate) fn reserve(cache: &Path, wished: Ports) -> Result<Reserved, Error> {
    let locks_dir = cache.join("ports");
    std::fs::create_dir_all(&locks_dir).at(&locks_dir)?;
    let mut ports = wished;
    let mut locks = Vec::new();
    for port in ports.each_mut() {
        let wish = if *port == 0 { None } else { take(&locks_dir, *port)? };
        let (taken, lock) = match wish {
            Some(lock) => (*port, lock),
            None => take_any(&locks_dir)?,
        };
        *port = taken;
        locks.push(lock);
    }
    Ok(Reserved { ports, _locks: locks })
}

fn take_any(locks_dir: &Path) -> Result<(u16, File), Error> {
    let span = u64::from(FREE_TO - FREE_FROM) + 1;
    // Each search begins elsewhere, so that stacks started together don't walk over the same ports.
    let begin = RandomState::new().build_hasher().finish() % span;
    for step in 0..span {
        let port = FREE_FROM + u16::try_from((begin + step) % span).unwrap_or(0);
        if let Some(lock) = take(locks_dir, port)? {
            return Ok((port, lock));
        }
    }
    Err(Error::NoFreePort {
        from: FREE_FROM,
        to: FREE_TO,
    })
}

fn take(locks_dir: &Path, port: u16) -> Result<Option<File>, Error> {
    let path = locks_dir.join(port.to_string());
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .at(&path)?;
    if lock.try_lock().is_err() {
        return Ok(None);
    }
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(lock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_wished_port_is_kept_when_free_and_replaced_when_something_listens_there() {
        let cache = tempfile::tempdir().unwrap();
        let free = reserve(cache.path(), Ports::any()).unwrap().ports;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free.registry)).unwrap();

        let got = reserve(cache.path(), free).unwrap().ports;

        assert_eq!(got.kafka, free.kafka);
        assert_eq!(got.clickhouse, free.clickhouse);
        assert_ne!(got.registry, free.registry);
        drop(listener);
        assert_eq!(reserve(cache.path(), free).unwrap().ports, free);
    }

    #[test]
    fn two_stacks_that_listen_nowhere_yet_never_share_a_port() {
        let cache = tempfile::tempdir().unwrap();
        let mut one = reserve(cache.path(), Ports::any()).unwrap();
        let mut two = reserve(cache.path(), one.ports).unwrap();
        let all: BTreeSet<u16> = one
            .ports
            .each_mut()
            .into_iter()
            .chain(two.ports.each_mut())
            .map(|port| *port)
            .collect();
        assert_eq!(all.len(), 2 * Ports::any().each_mut().len());
    }

    #[test]
    fn free_ports_lie_below_the_range_of_outgoing_connections() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(FREE_TO < first, "{FREE_TO} < {first}");
    }
}
