//! WebSocket frames (RFC 6455, section 5) as the server writes them, which are not masked.

use std::cell::RefCell;

use super::frame::{CLOSE, CloseCode, PING, PONG, TEXT};

thread_local! {
    /// An empty buffer that one of a thread's connections has written, for the next to write.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that a spare buffer may hold.
const MAX_SPARE: usize = 256 << 10;

/// Writes the header of a frame that is a whole message; returns the header's length.
fn header_of(opcode: u8, length: usize, header: &mut [u8; 10]) -> usize {
    header[0] = 0x80 | opcode;
    if length < 126 {
        header[1] = length as u8;
        2
    } else if let Ok(length) = u16::try_from(length) {
        header[1] = 126;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        4
    } else {
        header[1] = 127;
        header[2..].copy_from_slice(&(length as u64).to_be_bytes());
        10
    }
}

/// What is to be written: frames one after the other, ready for the socket.
#[derive(Default)]
pub struct Outbox {
    buffer: Vec<u8>,
    written: usize,
    /// Bytes for which there is room at first.
    write_size: usize,
}

impl Outbox {
    /// One that has room for so many bytes as soon as something is written.
    #[must_use]
    pub fn new(write_size: usize) -> Self {
        Self { write_size, ..Self::default() }
    }

    /// Adds a text message made of these parts.
    pub fn text(&mut self, parts: &[&[u8]]) {
        self.frame(TEXT, parts);
    }

    /// Adds a text message that is written in place, because its length shows only then.
    pub fn text_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        // Most messages take a header of this size.
        const HEADER: usize = 4;
        self.take_spare();
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; HEADER]);
        write(&mut self.buffer);
        let length = self.buffer.len() - start - HEADER;
        let mut header = [0; 10];
        let size = header_of(TEXT, length, &mut header);
        if size < HEADER {
            self.buffer.drain(start..start + HEADER - size);
        } else {
            self.buffer.splice(start..start, std::iter::repeat_n(0, size - HEADER));
        }
        self.buffer[start..start + size].copy_from_slice(&header[..size]);
    }

    /// Adds a binary message.
    #[cfg(test)]
    pub(super) fn binary(&mut self, payload: &[u8]) {
        self.frame(super::frame::BINARY, &[payload]);
    }

    pub(super) fn ping(&mut self, payload: &[u8]) {
        self.frame(PING, &[payload]);
    }

    pub(super) fn pong(&mut self, payload: &[u8]) {
        self.frame(PONG, &[payload]);
    }

    /// A reason longer than a control frame carries (123 bytes) is cut at a character.
    pub(super) fn close(&mut self, code: Option<CloseCode>, reason: &str) {
        let Some(code) = code else { return self.frame(CLOSE, &[]) };
        self.frame(CLOSE, &[&code.0.to_be_bytes(), &reason.as_bytes()[..reason.floor_char_boundary(123)]]);
    }

    fn frame(&mut self, opcode: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut header = [0; 10];
        let size = header_of(opcode, length, &mut header);
        self.take_spare();
        self.buffer.reserve(size + length);
        self.buffer.extend_from_slice(&header[..size]);
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
    }

    /// What the socket has not taken yet.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.written..]
    }

    /// The socket took so many bytes. An emptied outbox holds no buffer.
    pub(super) fn took(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.buffer.len() {
            self.written = 0;
            self.buffer.clear();
            let emptied = std::mem::take(&mut self.buffer);
            if emptied.capacity() <= MAX_SPARE {
                SPARE.with_borrow_mut(|spare| {
                    if spare.capacity() < emptied.capacity() {
                        *spare = emptied;
                    }
                });
            }
        } else if self.written > self.buffer.len() / 2 && self.written > 64 << 10 {
            self.buffer.drain(..self.written);
            self.written = 0;
        }
    }

    /// Writes into the spare buffer of the thread, because an idle connection has none.
    fn take_spare(&mut self) {
        if self.buffer.capacity() == 0 {
            self.buffer = SPARE.take();
            self.buffer.reserve(self.write_size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_written_in_place_is_the_same() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 70_000] {
            let text = "x".repeat(length);
            let (mut whole, mut in_place) = (Outbox::default(), Outbox::default());
            for out in [&mut whole, &mut in_place] {
                out.text(&[b"before"]);
            }
            whole.text(&[text.as_bytes()]);
            in_place.text_with(|out| out.extend_from_slice(text.as_bytes()));
            assert_eq!(whole.pending(), in_place.pending(), "{length} bytes");
        }
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        let mut outbox = Outbox::default();
        outbox.close(Some(CloseCode::POLICY), &"é".repeat(100));
        assert_eq!(outbox.pending()[1], 2 + 122);
        let sent = outbox.pending().len();
        outbox.took(sent);
        assert!(outbox.pending().is_empty());
    }

    #[test]
    fn an_emptied_outbox_holds_no_buffer() {
        let mut outbox = Outbox::new(64);
        outbox.text(&[b"text"]);
        outbox.took(2);
        assert_eq!(outbox.pending(), b"text");
        outbox.took(4);
        assert_eq!((outbox.pending(), outbox.buffer.capacity()), (&b""[..], 0));
    }
}
