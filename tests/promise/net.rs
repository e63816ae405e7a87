//! Connections that can be cut at any byte, and plain HTTP over them.

use std::{io, net::SocketAddr, time::Duration};

use serde_json::Value;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// How long an answer may take: longer than the server's own limit for publishing through a cluster in trouble.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Small, so that a client that stops reading is soon felt by the server.
const RECEIVE_BUFFER: u32 = 8 << 10;

/// What one attempt to read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// More bytes.
    More,
    /// The other side has ended its half in good order.
    Ended,
    /// The connection broke.
    Broken,
    /// As many bytes were read as this connection was given to live.
    Spent,
}

/// A connection.
pub struct Line {
    stream: TcpStream,
    /// What was read and not used yet.
    pub buffer: Vec<u8>,
    /// Bytes that may still be read before the connection is to be cut.
    pub budget: usize,
}

impl Line {
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        let stream = timeout(PATIENCE, socket.connect(addr)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new(), budget: usize::MAX })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Reads on. Nothing is lost when this is dropped before it is done.
    pub async fn fill(&mut self) -> Fill {
        let most = self.budget.min(16 << 10);
        if most == 0 {
            return Fill::Spent;
        }
        let mut bytes = vec![0; most];
        match self.stream.read(&mut bytes).await {
            Ok(0) => Fill::Ended,
            Ok(count) => {
                self.budget = self.budget.saturating_sub(count);
                self.buffer.extend_from_slice(&bytes[..count]);
                Fill::More
            }
            Err(_) => Fill::Broken,
        }
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends the connection at once, with a reset that throws away what is on its way.
    pub fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// The first so many bytes of the buffer, once they are there.
    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        (self.buffer.len() >= count).then(|| self.buffer.drain(..count).collect())
    }

    /// A line without its end, once it is there.
    pub fn take_line(&mut self) -> Option<String> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        let line = self.take(end + 1)?;
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub status: u16,
    pub chunked: bool,
    pub length: Option<usize>,
}

impl Head {
    /// Takes the head from the buffer, once it is there whole.
    pub fn take(line: &mut Line) -> Option<Self> {
        let end = line.buffer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&line.take(end + 4)?).to_ascii_lowercase();
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut head = Self { status, ..Self::default() };
        for field in text.lines() {
            match field.split_once(':') {
                Some(("transfer-encoding", value)) => head.chunked = value.contains("chunked"),
                Some(("content-length", value)) => head.length = value.trim().parse().ok(),
                _ => {}
            }
        }
        Some(head)
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The error's code, where it is one.
    pub fn code(&self) -> Option<&str> {
        self.body["error"]["code"].as_str()
    }
}

/// When a request's connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Never,
    /// After so many bytes of the request.
    Sending(usize),
    /// When all is sent, before anything is read.
    Sent,
}

/// A request as bytes.
pub fn request(method: &str, path: &str, headers: &str, body: Option<&Value>) -> Vec<u8> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

/// Sends a request on a connection of its own; `None` when no answer came.
pub async fn send(addr: SocketAddr, bytes: &[u8], cut: Cut) -> Option<Answer> {
    let mut line = Line::connect(addr).await.ok()?;
    let sent = match cut {
        Cut::Sending(most) => most.min(bytes.len()),
        _ => bytes.len(),
    };
    line.write(&bytes[..sent]).await.ok()?;
    if cut != Cut::Never {
        line.reset();
        return None;
    }
    let mut head = None;
    let mut ended = false;
    loop {
        if head.is_none() {
            head = Head::take(&mut line);
        }
        if let Some(head) = &head
            && (ended || head.length.is_some_and(|length| line.buffer.len() >= length))
        {
            let body = if head.chunked { unchunk(&line.buffer) } else { line.buffer.clone() };
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            return Some(Answer { status: head.status, body });
        }
        if ended {
            return None;
        }
        match timeout(PATIENCE, line.fill()).await.ok()? {
            Fill::More => {}
            Fill::Ended => ended = true,
            Fill::Broken | Fill::Spent => return None,
        }
    }
}

/// A request without a cut.
pub async fn call(addr: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
    send(addr, &request(method, path, "", body), Cut::Never).await
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && bytes.len() >= end + 1 + size) else { break };
        body.extend_from_slice(&bytes[end + 1..end + 1 + size]);
        bytes = bytes.get(end + 1 + size + 2..).unwrap_or_default();
    }
    body
}

/// Percent-encodes a path segment or query value.
pub fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
