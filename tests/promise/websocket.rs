//! A WebSocket, as much of it as a client needs.

use std::net::SocketAddr;

use tokio::time::timeout;

use crate::net::{Fill, Head, Line, PATIENCE};

/// What the server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    /// What no server may send.
    Bad(String),
}

/// Shakes hands; `None` when the connection breaks or is refused.
pub async fn open(addr: SocketAddr, path: &str, protocol: Option<&str>) -> Option<Line> {
    let mut line = Line::connect(addr).await.ok()?;
    let protocol = protocol.map_or(String::new(), |name| format!("sec-websocket-protocol: {name}\r\n"));
    let hello = format!(
        "GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    );
    line.write(hello.as_bytes()).await.ok()?;
    loop {
        if let Some(head) = Head::take(&mut line) {
            return (head.status == 101).then_some(line);
        }
        if timeout(PATIENCE, line.fill()).await.ok()? != Fill::More {
            return None;
        }
    }
}

/// A frame as a client must send it.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        middle @ 126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A text frame.
pub fn text(payload: &str) -> Vec<u8> {
    frame(1, payload.as_bytes())
}

/// The frame that answers a ping.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    frame(10, payload)
}

/// The frame that ends a connection in good order.
pub fn close() -> Vec<u8> {
    frame(8, &1000_u16.to_be_bytes())
}

/// Takes the next frame from the buffer, once it is there whole.
pub fn take(line: &mut Line) -> Option<Frame> {
    let (first, second) = (*line.buffer.first()?, *line.buffer.get(1)?);
    let extended = match second {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let length = line.buffer.get(2..2 + extended)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let length = if extended == 0 { usize::from(second & 0x7f) } else { length };
    if line.buffer.len() < 2 + extended + length {
        return None;
    }
    let payload = line.take(2 + extended + length)?.split_off(2 + extended);
    Some(match first {
        _ if second & 0x80 != 0 => Frame::Bad("a server's frame is masked".to_owned()),
        0x81 => match String::from_utf8(payload) {
            Ok(text) => Frame::Text(text),
            Err(error) => Frame::Bad(error.to_string()),
        },
        0x89 => Frame::Ping(payload),
        0x8a => Frame::Pong,
        0x88 => Frame::Close(payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]))),
        other => Frame::Bad(format!("a frame that begins with {other:#x}")),
    })
}
