//! The few parts of HTTP and WebSockets that the load client and the bare servers need: requests and frames are made ready
//! before they are sent, and what comes in is read no further than to its length.

/// The key of every upgrade. Only browsers have to change it, and a bare server can then send a ready-made response.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The accept header that belongs to the key (both are the example of RFC 6455).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The request of a WebSocket, with a subprotocol if one is given.
pub fn upgrade(path: &str, protocol: Option<&str>) -> Vec<u8> {
    let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{protocol}\r\n"
    )
    .into_bytes()
}

/// The response to [`upgrade`].
pub fn upgraded() -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
    .into_bytes()
}

fn header(out: &mut Vec<u8>, opcode: u8, length: usize, masked: u8) {
    out.push(0x80 | opcode);
    match length {
        0..=125 => out.push(masked | length as u8),
        126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a frame as clients send it.
pub fn push_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    header(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Appends a frame as servers send it.
pub fn push_plain(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// A frame at the beginning of `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    /// Where its payload begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    pub mask: Option<[u8; 4]>,
}

/// The frame at the beginning of `bytes`, if all of it is there.
pub fn parse(bytes: &[u8]) -> Option<Frame> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    let (length, mut start) = match second & 0x7f {
        126 => (u16::from_be_bytes(*rest.first_chunk()?) as usize, 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
        short => (short as usize, 2),
    };
    let mask = if second & 0x80 == 0 {
        None
    } else {
        start += 4;
        Some(*bytes.get(start - 4..)?.first_chunk()?)
    };
    let end = start.checked_add(length)?;
    (bytes.len() >= end).then_some(Frame { opcode: first & 0x0f, start, end, mask })
}

/// Takes the mask off a frame's payload.
pub fn unmask(payload: &mut [u8], mask: Option<[u8; 4]>) {
    let Some(mask) = mask else { return };
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The end of an HTTP head at the beginning of `bytes`.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        for length in [0, 1, 125, 126, 300, 0xffff, 0x1_0000] {
            let payload = vec![b'x'; length];
            let (mut masked, mut plain) = (Vec::new(), Vec::new());
            push_masked(&mut masked, TEXT, &payload);
            push_plain(&mut plain, TEXT, &payload);
            for mut bytes in [masked, plain] {
                let frame = parse(&bytes).unwrap();
                assert_eq!((frame.opcode, frame.end), (TEXT, bytes.len()));
                assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
                unmask(&mut bytes[frame.start..frame.end], frame.mask);
                assert_eq!(&bytes[frame.start..frame.end], payload);
            }
        }
    }
}
