//! Bytes on a socket, where a well-behaved client library is in the way.

use std::{collections::HashMap, net::SocketAddr};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
};

use crate::harness::within;

/// Small, so that a client that stops reading is soon felt by the server.
const RECEIVE_BUFFER: u32 = 16 << 10;

pub async fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
    let stream = within("connection", socket.connect(addr)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A connection to which anything may be written.
pub struct Raw {
    pub stream: BufReader<TcpStream>,
}

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    /// Names in small letters.
    pub headers: HashMap<String, String>,
}

impl Raw {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self { stream: BufReader::new(connect(addr).await) }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // The server may have responded and closed before it has read all, which the test sees in the response.
        let _ = within("room to write", self.stream.write_all(bytes.as_ref())).await;
    }

    /// The head of the next response; `None` when the server closes without one.
    pub async fn head(&mut self) -> Option<Head> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut headers = HashMap::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        Some(Head { status: status?, headers })
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match within("line", self.stream.read_until(b'\n', &mut line)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
        }
    }

    pub async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        within("bytes", self.stream.read_exact(&mut bytes)).await.ok()?;
        Some(bytes)
    }

    /// The next piece of a chunked body; `None` at its end, `Err` when the connection ends before it.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ()> {
        let size = usize::from_str_radix(&self.line().await.ok_or(())?, 16).map_err(|_| ())?;
        let mut bytes = self.exactly(size + 2).await.ok_or(())?;
        bytes.truncate(size);
        Ok((size > 0).then_some(bytes))
    }

    /// A response with its body.
    pub async fn response(&mut self) -> Option<(Head, String)> {
        let head = self.head().await?;
        let mut body = Vec::new();
        if head.headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            while let Some(chunk) = self.chunk().await.ok()? {
                body.extend(chunk);
            }
        } else if let Some(length) = head.headers.get("content-length") {
            body = self.exactly(length.parse().unwrap()).await?;
        }
        Some((head, String::from_utf8(body).unwrap()))
    }

    /// Whether the server has closed; what it still sends is thrown away.
    pub async fn closed(&mut self) {
        let mut sink = [0; 4096];
        within("end of the connection", async { while matches!(self.stream.read(&mut sink).await, Ok(1..)) {} }).await;
    }

    /// Becomes a WebSocket without the help of a library.
    pub async fn websocket(addr: SocketAddr, path: &str, protocol: Option<&str>) -> Self {
        let mut raw = Self::connect(addr).await;
        let protocol = protocol.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        raw.write(format!(
            "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
        ))
        .await;
        let head = raw.head().await.unwrap();
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        raw
    }

    /// A frame as a client must send it.
    pub async fn frame(&mut self, first: u8, payload: &[u8]) {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
            middle @ 126..0x1_0000 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(middle).unwrap().to_be_bytes());
            }
            long => {
                bytes.push(0x80 | 127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.write(bytes).await;
    }

    pub async fn text(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes()).await;
    }

    /// The next frame's first byte and payload; `None` when the connection is gone.
    pub async fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let start = self.exactly(2).await?;
        let length = match start[1] {
            126 => usize::from(u16::from_be_bytes(self.exactly(2).await?.try_into().ok()?)),
            127 => usize::try_from(u64::from_be_bytes(self.exactly(8).await?.try_into().ok()?)).ok()?,
            short => {
                assert!(short < 126, "a server's frame is not masked");
                usize::from(short)
            }
        };
        Some((start[0], self.exactly(length).await?))
    }

    /// So many text frames of 126 to 65,535 bytes, each beginning like this: many at once, so without ceremony.
    pub async fn short_texts(&mut self, count: u64, beginning: &[u8]) {
        let read = async {
            let (mut head, mut text) = ([0; 4], Vec::new());
            for _ in 0..count {
                self.stream.read_exact(&mut head).await?;
                text.resize(usize::from(u16::from_be_bytes([head[2], head[3]])), 0);
                self.stream.read_exact(&mut text).await?;
                assert!(head[..2] == [0x81, 126] && text.starts_with(beginning), "{}", String::from_utf8_lossy(&text));
            }
            std::io::Result::Ok(())
        };
        within("answers", read).await.unwrap();
    }

    /// Reads on to the close frame and returns its code.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            if let (0x88, payload) = self.next_frame().await? {
                return payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
            }
        }
    }
}
