//! One question to a part over its own protocol. Used to see that it is ready, so every failure is just "not yet".

use crate::part::{Part, Ports};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer that takes longer is no answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// True when the part answers a real request.
pub(crate) async fn ready(part: Part, ports: &Ports) -> bool {
    let answer = async {
        match part {
            Part::Kafka | Part::Kafka2 | Part::Kafka3 => kafka(ports.kafka_of(part).0).await,
            Part::Registry => registry(ports.registry).await,
            Part::ClickHouse => clickhouse(ports.clickhouse, ports.clickhouse_native).await,
            Part::Postgres => postgres(ports.postgres).await,
        }
    };
    matches!(tokio::time::timeout(PATIENCE, answer).await, Ok(Ok(true)))
}

/// ApiVersions (key 18) in its first version: length, key, version, correlation id, client id; the answer repeats the
/// correlation id and begins with an error code.
async fn kafka(port: u16) -> std::io::Result<bool> {
    let mut stream = connect(port).await?;
    let mut request = 16_i32.to_be_bytes().to_vec();
    request.extend([0, 18, 0, 0, 0, 0, 0, 7, 0, 6]);
    request.extend(b"sluice");
    stream.write_all(&request).await?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await?;
    Ok(answer[4..] == [0, 0, 0, 7, 0, 0])
}

/// Confluent's registries are BACKWARD compatible unless told otherwise, Apicurio's is not: say so each time it starts.
async fn registry(port: u16) -> std::io::Result<bool> {
    let path = "/apis/ccompat/v7/config";
    let (status, _) = http(port, "PUT", path, "{\"compatibility\":\"BACKWARD\"}").await?;
    Ok(status == 200)
}

async fn clickhouse(port: u16, native: u16) -> std::io::Result<bool> {
    let (status, body) = http(port, "POST", "/", "SELECT 1").await?;
    connect(native).await?;
    Ok(status == 200 && body == "1\n")
}

/// A start-up message (protocol 3.0); `R` begins the answer of a server that lets us in, `E` that of one still starting.
async fn postgres(port: u16) -> std::io::Result<bool> {
    let mut stream = connect(port).await?;
    let settings = b"user\0sluice\0database\0postgres\0\0";
    let mut request = (8 + settings.len() as u32).to_be_bytes().to_vec();
    request.extend(196_608_u32.to_be_bytes());
    request.extend(settings);
    stream.write_all(&request).await?;
    Ok(stream.read_u8().await? == b'R')
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await
}

/// HTTP/1.0, so that the end of the connection is the end of the body: four requests don't need a client library.
async fn http(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = connect(port).await?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}
