//! Connections that are opened with blocking calls, step by step, before they are handed to epoll.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use benchmark::frame;

/// How long a server may take for each step of a handshake.
const STEP: Duration = Duration::from_secs(20);

/// A connection with what was read of it so far.
pub struct Opening {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Opening {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STEP))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut some = [0; 4 << 10];
        let read = self.stream.read(&mut some)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has closed the connection"));
        }
        self.buffer.extend_from_slice(&some[..read]);
        Ok(())
    }

    /// Sends a request and returns the head of the response, which must have this status.
    pub fn request(&mut self, request: &[u8], status: u16) -> io::Result<String> {
        self.send(request)?;
        let end = loop {
            match frame::head_end(&self.buffer) {
                Some(end) => break end,
                None => self.read()?,
            }
        };
        let rest = self.buffer.split_off(end);
        let head = String::from_utf8_lossy(&std::mem::replace(&mut self.buffer, rest)).into_owned();
        if head.split(' ').nth(1) == Some(&status.to_string()) {
            Ok(head)
        } else {
            let body = String::from_utf8_lossy(&self.buffer).into_owned();
            Err(io::Error::other(format!("the server responded: {head}{body}")))
        }
    }

    /// Upgrades to a WebSocket.
    pub fn upgrade(&mut self, path: &str, protocol: Option<&str>) -> io::Result<()> {
        self.request(&frame::upgrade(path, protocol), 101).map(drop)
    }

    pub fn send_text(&mut self, text: &str) -> io::Result<()> {
        let mut out = Vec::new();
        frame::push_masked(&mut out, frame::TEXT, text.as_bytes());
        self.send(&out)
    }

    /// The next text frame.
    pub fn text(&mut self) -> io::Result<String> {
        loop {
            let Some(found) = frame::parse(&self.buffer) else {
                self.read()?;
                continue;
            };
            let text = String::from_utf8_lossy(&self.buffer[found.start..found.end]).into_owned();
            self.buffer.drain(..found.end);
            match found.opcode {
                frame::TEXT => return Ok(text),
                frame::CLOSE => return Err(io::Error::other(format!("the server closes the WebSocket: {text}"))),
                _ => {}
            }
        }
    }

    /// The next text frame, which must contain `part`.
    pub fn expect(&mut self, part: &str) -> io::Result<()> {
        let text = self.text()?;
        if text.contains(part) { Ok(()) } else { Err(io::Error::other(format!("the server sent {text}"))) }
    }

    /// Reads until `part` has come in, and drops it with everything before it.
    pub fn skip_past(&mut self, part: &[u8]) -> io::Result<()> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, part) {
                self.buffer.drain(..at + part.len());
                return Ok(());
            }
            self.read()?;
        }
    }

    /// The connection for epoll, with what was read of it and not yet looked at.
    pub fn finish(self) -> io::Result<(TcpStream, Vec<u8>)> {
        self.stream.set_nonblocking(true)?;
        Ok((self.stream, self.buffer))
    }
}
