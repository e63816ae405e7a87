//! WebSocket frames (RFC 6455, section 5) as the server reads them, which are masked.

use std::cell::RefCell;

use bytes::{Buf, BytesMut};

use super::utf8::Utf8Check;

/// A close code with the meaning that the specification gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server shuts down; clients may reconnect.
    pub const AWAY: Self = Self(1001);
    /// The peer breaks the framing rules.
    pub const PROTOCOL: Self = Self(1002);
    /// A text message is not UTF-8.
    pub const INVALID: Self = Self(1007);
    /// The peer breaks this service's rules.
    pub const POLICY: Self = Self(1008);
    /// A message is too big.
    pub const TOO_BIG: Self = Self(1009);
    /// The server has no room now.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// Whether a peer may send it.
    fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The client's code, if it gave one.
    Close(Option<CloseCode>),
}

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// Puts messages together from bytes as they come.
pub struct Inbound {
    /// Bytes from the socket that were not parsed yet.
    pub buffer: BytesMut,
    /// The payload that was handed out last and is to be dropped.
    handed_out: usize,
    /// Bytes of the payload at the buffer's front that have come and are unmasked; its frame is not complete.
    unmasked: usize,
    /// A message of which not all frames have come.
    partial: Vec<u8>,
    partial_is_text: Option<bool>,
    partial_done: bool,
    /// Checks the text of a message that is not complete.
    utf8: Utf8Check,
    max_bytes: usize,
    /// Bytes to read at once at first.
    read_size: usize,
    /// Bytes to read at once next: more while the client sends much.
    room: usize,
}

/// Bytes that are read at once at most, unless a setting asks for more.
const MAX_READ: usize = 64 << 10;

thread_local! {
    /// What the connections of a thread read into.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Header {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    bytes: usize,
    payload: usize,
}

impl Inbound {
    /// Messages of up to `max_bytes`, read by `read_size` bytes at once at first. An idle one holds no buffer.
    #[must_use]
    pub fn new(max_bytes: usize, read_size: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            handed_out: 0,
            unmasked: 0,
            partial: Vec::new(),
            partial_is_text: None,
            partial_done: false,
            utf8: Utf8Check::default(),
            max_bytes,
            read_size,
            room: read_size,
        }
    }

    /// Reads with `read`, which gets a buffer that all connections of a thread share: what an idle one waits with takes no
    /// memory. Returns how many bytes came, or what `read` returned instead.
    pub fn read<E>(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        self.drop_handed_out();
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.len() < self.room {
                scratch.resize(self.room, 0);
            }
            let bytes = read(&mut scratch[..self.room])?;
            let more = if bytes == self.room { 2 * bytes } else { bytes };
            self.room = more.min(MAX_READ).max(self.read_size);
            self.buffer.extend_from_slice(&scratch[..bytes]);
            Ok(bytes)
        })
    }

    /// Gives the buffer back when everything in it was taken.
    pub fn release(&mut self) {
        self.drop_handed_out();
        if self.buffer.is_empty() && self.buffer.capacity() > 0 {
            self.buffer = BytesMut::new();
        }
    }

    fn drop_handed_out(&mut self) {
        self.buffer.advance(self.handed_out);
        self.handed_out = 0;
        if self.partial_done {
            self.partial = Vec::new();
            self.partial_done = false;
        }
    }

    /// The next message that is complete.
    ///
    /// # Errors
    /// The code to close with, when the client breaks the rules.
    #[allow(
        clippy::should_implement_trait,
        reason = "what it returns borrows from the reader, which no iterator can do"
    )]
    pub fn next(&mut self) -> Result<Option<Incoming<'_>>, CloseCode> {
        loop {
            self.drop_handed_out();
            let Some(header) = self.header()? else { return Ok(None) };
            let frame = header.bytes + header.payload;
            let is_text =
                header.opcode == TEXT || (header.opcode == CONTINUATION && self.partial_is_text == Some(true));
            let is_whole = header.opcode == TEXT && header.fin && self.unmasked == 0;
            let come = self.buffer.len().min(frame);
            let new = header.bytes + self.unmasked..come;
            unmask(&mut self.buffer[new.clone()], header.mask, self.unmasked);
            // A text that is wrong already is refused before the rest has come. One that is complete is checked below.
            if is_text && !(is_whole && come == frame) && !self.utf8.feed(&self.buffer[new]) {
                return Err(CloseCode::INVALID);
            }
            if come < frame {
                self.unmasked = come - header.bytes;
                return Ok(None);
            }
            self.unmasked = 0;
            self.handed_out = frame;
            match (header.opcode, header.fin) {
                (BINARY, true) => return Ok(Some(Incoming::Binary(&self.buffer[header.bytes..frame]))),
                (TEXT, true) => {
                    self.utf8 = Utf8Check::default();
                    let text = std::str::from_utf8(&self.buffer[header.bytes..frame]);
                    return text.map(|text| Some(Incoming::Text(text))).map_err(|_| CloseCode::INVALID);
                }
                (TEXT | BINARY | CONTINUATION, fin) => {
                    if header.opcode != CONTINUATION {
                        self.partial_is_text = Some(header.opcode == TEXT);
                    }
                    self.partial.extend_from_slice(&self.buffer[header.bytes..frame]);
                    if fin {
                        self.partial_done = true;
                        self.utf8 = Utf8Check::default();
                        if self.partial_is_text.take() == Some(false) {
                            return Ok(Some(Incoming::Binary(&self.partial)));
                        }
                        let text = std::str::from_utf8(&self.partial);
                        return text.map(|text| Some(Incoming::Text(text))).map_err(|_| CloseCode::INVALID);
                    }
                }
                (PING, _) => return Ok(Some(Incoming::Ping(&self.buffer[header.bytes..frame]))),
                (PONG, _) => return Ok(Some(Incoming::Pong(&self.buffer[header.bytes..frame]))),
                _ => return close(&self.buffer[header.bytes..frame]).map(|code| Some(Incoming::Close(code))),
            }
        }
    }

    /// The header of the frame at the buffer's front, when it is complete. Checks all rules that a header can break.
    fn header(&self) -> Result<Option<Header>, CloseCode> {
        let [first, second, rest @ ..] = &self.buffer[..] else { return Ok(None) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let masked = second & 0x80 != 0;
        if first & 0x70 != 0 || !masked {
            return Err(CloseCode::PROTOCOL);
        }
        let in_message = self.partial_is_text.is_some();
        let allowed = match opcode {
            TEXT | BINARY => !in_message,
            CONTINUATION => in_message,
            // Control frames must not be fragmented and carry at most 125 bytes.
            CLOSE | PING | PONG => fin && second & 0x7f <= 125,
            _ => false,
        };
        if !allowed {
            return Err(CloseCode::PROTOCOL);
        }
        let (length, rest) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            (127, rest) => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            (126, _) => return Ok(None),
            (short, rest) => (u64::from(short), rest),
        };
        let payload = usize::try_from(length).unwrap_or(usize::MAX);
        if payload > self.max_bytes || self.partial.len().saturating_add(payload) > self.max_bytes {
            return Err(CloseCode::TOO_BIG);
        }
        let [a, b, c, d, rest @ ..] = rest else { return Ok(None) };
        let bytes = self.buffer.len() - rest.len();
        Ok(Some(Header { fin, opcode, mask: [*a, *b, *c, *d], bytes, payload }))
    }
}

fn close(payload: &[u8]) -> Result<Option<CloseCode>, CloseCode> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = CloseCode(u16::from_be_bytes([*high, *low]));
            if !code.is_sendable() {
                return Err(CloseCode::PROTOCOL);
            }
            std::str::from_utf8(reason).map(|_| Some(code)).map_err(|_| CloseCode::INVALID)
        }
        [_] => Err(CloseCode::PROTOCOL),
    }
}

/// Takes the mask off bytes of a payload, of which `before` bytes came earlier.
fn unmask(payload: &mut [u8], mut mask: [u8; 4], before: usize) {
    mask.rotate_left(before % 4);
    // Eight bytes at a time, which the compiler turns into vector instructions.
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        if payload.len() < 126 {
            frame.push(0x80 | payload.len() as u8);
        } else {
            frame.push(0x80 | 0x7e);
            frame.extend((payload.len() as u16).to_be_bytes());
        }
        let mask = [1, 2, 3, 4];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    fn all(bytes: &[u8], step: usize) -> Result<Vec<String>, CloseCode> {
        let mut inbound = Inbound::new(1_000, 16);
        let mut seen = Vec::new();
        for chunk in bytes.chunks(step) {
            inbound.release();
            inbound.buffer.extend_from_slice(chunk);
            while let Some(message) = inbound.next()? {
                seen.push(format!("{message:?}"));
            }
        }
        Ok(seen)
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let long = "é".repeat(200);
        let bytes = [
            masked(0x81, b"hello"),
            masked(0x01, b"in "),
            masked(0x89, b"p"),
            masked(0x00, b"three "),
            masked(0x80, b"parts"),
            masked(0x82, b"\xff"),
            masked(0x81, long.as_bytes()),
            masked(0x8a, b""),
            masked(0x88, &[3, 232, b'x']),
        ]
        .concat();
        for step in [1, 2, 3, 7, 64, 10_000] {
            let seen = all(&bytes, step).unwrap();
            let wanted = [
                r#"Text("hello")"#,
                "Ping([112])",
                r#"Text("in three parts")"#,
                "Binary([255])",
                &format!("Text({long:?})"),
                "Pong([])",
                "Close(Some(CloseCode(1000)))",
            ];
            assert_eq!(seen, wanted);
        }
    }

    #[test]
    fn broken_rules_have_their_code() {
        for (bytes, code) in [
            (vec![0x81, 0x01, b'x'], CloseCode::PROTOCOL),
            (masked(0xc1, b"x"), CloseCode::PROTOCOL),
            (masked(0x83, b"x"), CloseCode::PROTOCOL),
            (masked(0x80, b"x"), CloseCode::PROTOCOL),
            (masked(0x09, b"x"), CloseCode::PROTOCOL),
            (masked(0x89, &[0; 126]), CloseCode::PROTOCOL),
            ([masked(0x01, b"x"), masked(0x81, b"y")].concat(), CloseCode::PROTOCOL),
            (masked(0x88, &[3]), CloseCode::PROTOCOL),
            (masked(0x88, &[3, 237]), CloseCode::PROTOCOL),
            (masked(0x88, &[3, 232, 0xff]), CloseCode::INVALID),
            (masked(0x81, &[0xc3]), CloseCode::INVALID),
            ([masked(0x01, &[0xc3]), masked(0x80, &[0x28])].concat(), CloseCode::INVALID),
            (masked(0x81, &[b'x'; 1_001]), CloseCode::TOO_BIG),
            ([masked(0x01, &[b'x'; 600]), masked(0x00, &[b'x'; 600])].concat(), CloseCode::TOO_BIG),
            ([&[0x81, 0xff][..], &[0xff; 8]].concat(), CloseCode::TOO_BIG),
        ] {
            assert_eq!(all(&bytes, 1), Err(code), "{bytes:x?}");
        }
    }

    #[test]
    fn an_announced_length_costs_nothing() {
        let mut inbound = Inbound::new(1 << 30, 16);
        inbound.buffer.extend_from_slice(&[0x81, 0xff, 0, 0, 0, 0, 0x3f, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(inbound.next(), Ok(None));
        inbound.release();
        assert!(inbound.buffer.capacity() < 1_000);
    }

    #[test]
    fn an_idle_connection_holds_no_buffer() {
        let mut inbound = Inbound::new(1_000, 16);
        let frame = masked(0x81, b"text");
        let read = inbound.read(|room| {
            room[..frame.len()].copy_from_slice(&frame);
            Ok::<_, ()>(frame.len())
        });
        assert_eq!(read, Ok(frame.len()));
        assert_eq!(inbound.next(), Ok(Some(Incoming::Text("text"))));
        inbound.release();
        assert_eq!(inbound.buffer.capacity(), 0);
    }

    #[test]
    fn a_client_that_sends_much_is_read_by_more_at_once() {
        let mut inbound = Inbound::new(1 << 20, 100);
        let mut sizes = Vec::new();
        for bytes in [100, 200, 400, 150, 20] {
            let read = inbound.read(|room| {
                sizes.push(room.len());
                Ok::<_, ()>(bytes)
            });
            assert_eq!(read, Ok(bytes));
        }
        assert_eq!(sizes, [100, 200, 400, 800, 150]);
        assert_eq!(inbound.read(|room| Err::<usize, _>(room.len())), Err(100));
    }
}
