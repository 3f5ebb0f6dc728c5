//! HTTP/1.1 over one kept connection, as little of it as the load generator needs.
//!
//! Requests are bytes that were made beforehand and answers are looked at in place, since whatever the load
//! generator uses is taken from what it measures. Only answers with a length are understood.

use anyhow::{Context, bail, ensure};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(90);
/// A server may close a connection that was idle for longer.
const IDLE: Duration = Duration::from_secs(10);

/// A request as it goes over the wire.
pub(crate) fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\n{token}content-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// The body as text, when the status is as expected.
    pub(crate) fn text(&self, expected: u16) -> anyhow::Result<&str> {
        let text = std::str::from_utf8(self.body)?;
        ensure!(self.status == expected, "status {} and not {expected}: {text}", self.status);
        Ok(text)
    }

    /// The body as JSON, when the status is as expected.
    pub(crate) fn json(&self, expected: u16) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(self.text(expected)?)?)
    }
}

/// A client with one connection, opened when it is needed.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<(TcpStream, Instant)>,
    buffer: Vec<u8>,
}

impl Client {
    /// A client of the server at this address.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: Vec::with_capacity(16 << 10) }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        let kept = self.stream.take().filter(|(_, used)| used.elapsed() < IDLE);
        let mut stream = match kept {
            Some((stream, _)) => stream,
            None => self.connect().await?,
        };
        let exchange = exchange(&mut stream, request, &mut self.buffer);
        let head = tokio::time::timeout(TIMEOUT, exchange).await.context("no answer in time")??;
        self.stream = Some((stream, Instant::now()));
        Ok(Answer { status: head.status, body: &self.buffer[head.bytes..] })
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await.with_context(|| self.address.to_string())?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

struct Head {
    status: u16,
    bytes: usize,
    body_bytes: usize,
}

async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> anyhow::Result<Head> {
    stream.write_all(request).await?;
    buffer.clear();
    let head = loop {
        read(stream, buffer).await?;
        if let Some(head) = head(buffer)? {
            break head;
        }
    };
    while buffer.len() < head.bytes + head.body_bytes {
        read(stream, buffer).await?;
    }
    ensure!(buffer.len() == head.bytes + head.body_bytes, "the answer is longer than it says");
    Ok(head)
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    if stream.read_buf(buffer).await? == 0 {
        bail!("the connection was closed");
    }
    Ok(())
}

/// The head of an answer, once all of it is there.
fn head(buffer: &[u8]) -> anyhow::Result<Option<Head>> {
    let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let mut lines = std::str::from_utf8(&buffer[..end])?.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let body_bytes = length.context("an answer without a length")?.1.trim().parse()?;
    Ok(Some(Head { status, bytes: end + 4, body_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_understood_once_it_is_whole() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        assert!(head(&answer[..40]).unwrap().is_none());
        let head = head(answer).unwrap().unwrap();
        assert_eq!((head.status, head.bytes, head.body_bytes), (201, answer.len() - 2, 2));
    }

    #[test]
    fn an_answer_without_a_length_is_refused() {
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
