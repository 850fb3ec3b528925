//! The little HTTP that the admin ports need.

use std::io;

use service_kit::net::tcp_network;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::limits::HTTP_DEADLINE;

/// `GET path`: the status code and the body.
pub(crate) async fn get(address: &str, path: &str) -> io::Result<(u16, String)> {
    timeout(HTTP_DEADLINE, request(address, path))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn request(address: &str, path: &str) -> io::Result<(u16, String)> {
    let mut io = tcp_network().dial(address.to_owned()).await?;
    // HTTP/1.0: the body ends where the connection ends, and nobody answers in chunks.
    io.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    io.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))?;
    Ok((code, body.to_owned()))
}
