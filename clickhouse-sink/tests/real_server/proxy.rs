//! A TCP proxy before the server that spoils one connection's traffic in a chosen way.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What happens on the way.
#[derive(Clone)]
pub enum Spoil {
    /// So many bytes of the request arrive, then both sides are closed.
    CutRequestAfter(usize),
    /// The request arrives whole, its answer never.
    DropAnswer,
    /// So many bytes of the request arrive, the others once it is told so.
    StallRequestAfter(usize, Arc<Notify>),
}

/// The proxy's address; it ends with the test's runtime.
pub async fn before(server: &str, spoil: Spoil) -> String {
    let upstream = server.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&upstream).await.unwrap();
            tokio::spawn(carry(client, server, spoil.clone()));
        }
    });
    url
}

async fn carry(client: TcpStream, server: TcpStream, spoil: Spoil) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let drop_answer = matches!(spoil, Spoil::DropAnswer);
    let answers = async move {
        let mut bytes = vec![0; 65_536];
        while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
            if drop_answer || to_client.write_all(&bytes[..read]).await.is_err() {
                break;
            }
        }
    };
    let requests = async move {
        let mut bytes = vec![0; 65_536];
        let mut carried = 0;
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            let until = match &spoil {
                Spoil::CutRequestAfter(most) | Spoil::StallRequestAfter(most, _) => {
                    read.min(most.saturating_sub(carried))
                }
                Spoil::DropAnswer => read,
            };
            if to_server.write_all(&bytes[..until]).await.is_err() {
                return;
            }
            carried += until;
            if until < read {
                match &spoil {
                    Spoil::StallRequestAfter(_, go_on) => go_on.notified().await,
                    _ => return,
                }
                if to_server.write_all(&bytes[until..read]).await.is_err()
                    || tokio::io::copy(&mut from_client, &mut to_server).await.is_err()
                {
                    return;
                }
            }
        }
    };
    // Whichever side ends first closes both.
    tokio::select! {
        () = answers => {}
        () = requests => {}
    }
}
