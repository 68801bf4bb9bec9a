//! The two ends of one direction: an inlet with the bytes that were read and not taken yet, and an outlet. Both stand still
//! during a freeze.

use super::plan::Gate;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Room for one read.
const READ_BYTES: usize = 64 * 1024;

/// How long a peer has to hang up after we did.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Inlet {
    socket: OwnedReadHalf,
    gate: Gate,
    buffer: Vec<u8>,
    /// Bytes at the buffer's front that were taken.
    taken: usize,
}

#[derive(Debug)]
pub(super) struct Outlet {
    socket: OwnedWriteHalf,
    gate: Gate,
}

/// Both ends at one peer. Bytes are passed on as they come, not collected.
pub(super) fn ends(socket: TcpStream, gate: &Gate) -> io::Result<(Inlet, Outlet)> {
    socket.set_nodelay(true)?;
    let (reader, writer) = socket.into_split();
    let inlet = Inlet {
        socket: reader,
        gate: gate.clone(),
        buffer: Vec::new(),
        taken: 0,
    };
    let outlet = Outlet {
        socket: writer,
        gate: gate.clone(),
    };
    Ok((inlet, outlet))
}

impl Inlet {
    /// What was read and not taken.
    pub fn waiting(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// Takes bytes off the front of what is waiting: `count` of them, or all if there are fewer.
    pub fn take(&mut self, count: usize) -> &[u8] {
        let from = self.taken;
        self.taken = from + count.min(self.buffer.len() - from);
        &self.buffer[from..self.taken]
    }

    /// Reads more; false when the peer sends nothing more. Can be dropped while it waits without losing a byte.
    pub async fn fill(&mut self) -> io::Result<bool> {
        self.gate.open().await;
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.reserve(READ_BYTES);
        Ok(self.socket.read_buf(&mut self.buffer).await? > 0)
    }

    async fn drain(&mut self) -> io::Result<()> {
        while self.fill().await? {
            self.take(usize::MAX);
        }
        Ok(())
    }
}

/// Closes a peer's connection so that all that was passed to it arrives: a socket that is closed over unread bytes
/// resets the connection, and what is still under way to the peer may be lost.
pub(super) async fn close(outlet: &mut Outlet, inlet: &mut Inlet) {
    let gently = async {
        outlet.end().await?;
        inlet.drain().await
    };
    // A peer that has gone, or does not hang up, is closed the other way.
    tokio::time::timeout(CLOSE_TIMEOUT, gently).await.ok();
}

impl Outlet {
    /// Writes all of `bytes`.
    pub async fn pass(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.gate.open().await;
            let written = tokio::select! {
                biased;
                () = self.gate.frozen() => continue,
                written = self.socket.write(bytes) => written?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Tells the peer that nothing more comes.
    pub async fn end(&mut self) -> io::Result<()> {
        self.gate.open().await;
        self.socket.shutdown().await
    }
}
