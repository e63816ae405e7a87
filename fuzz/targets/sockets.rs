//! WebSocket frames from strangers, as bytes: what is read of them does not depend on how they were cut on the way, and is
//! bounded.
//!
//! The first byte of an input says how the rest is cut.

use pub_sub::socket::{
    CloseCode,
    fuzz::{Inbound, Incoming},
};

/// Bytes of one message, so that small inputs reach the bound.
const MAX_BYTES: usize = 300;

/// Bytes that an idle reader holds.
const KEEP: usize = 16;

/// Checks one input.
pub fn run(input: &[u8]) {
    let Some((step, bytes)) = input.split_first() else { return };
    let whole = read(bytes, bytes.len().max(1));
    let pieces = read(bytes, usize::from(*step).max(1));
    assert_eq!(whole, pieces);
    written_and_read(bytes);
}

/// What was read, and the code to close with, if a rule was broken.
type Seen = (Vec<String>, Option<CloseCode>);

fn read(bytes: &[u8], step: usize) -> Seen {
    let mut inbound = Inbound::new(MAX_BYTES, KEEP);
    let mut seen = Vec::new();
    for piece in bytes.chunks(step) {
        inbound.release();
        inbound.buffer.extend_from_slice(piece);
        loop {
            match inbound.next() {
                Ok(None) => break,
                Ok(Some(message)) => {
                    check(&message);
                    let is_close = matches!(message, Incoming::Close(_));
                    seen.push(format!("{message:?}"));
                    if is_close {
                        // Nothing is read behind it.
                        return (seen, None);
                    }
                }
                Err(code) => return (seen, Some(code)),
            }
        }
        // A message that is not complete has at most its header beyond the bound.
        assert!(inbound.buffer.len() <= MAX_BYTES + 14 + step);
    }
    (seen, None)
}

fn check(message: &Incoming<'_>) {
    match message {
        Incoming::Text(text) => assert!(text.len() <= MAX_BYTES),
        Incoming::Binary(_) => {}
        Incoming::Ping(payload) | Incoming::Pong(payload) => assert!(payload.len() <= 125),
        Incoming::Close(code) => {
            let allowed = |code: &CloseCode| matches!(code.0, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert!(code.as_ref().is_none_or(allowed), "{code:?}");
        }
    }
}

/// What a client writes is read as it was: a text in one frame and in two, with a ping between them.
fn written_and_read(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let text = &text[..text.floor_char_boundary(MAX_BYTES)];
    let mask = [0x9a, text.len() as u8, 0, 0xff];
    let (first, rest) = text.as_bytes().split_at(text.len() / 2);
    let mut frames = Vec::new();
    for (opcode, payload) in [(0x81, text.as_bytes()), (0x01, first), (0x89, b"ping"), (0x80, rest)] {
        frames.push(opcode);
        match u8::try_from(payload.len()) {
            Ok(short @ ..126) => frames.push(0x80 | short),
            _ => {
                frames.push(0xfe);
                frames.extend((payload.len() as u16).to_be_bytes());
            }
        }
        frames.extend(mask);
        frames.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    let text = format!("{:?}", Incoming::Text(text));
    let wanted = [text.clone(), format!("{:?}", Incoming::Ping(b"ping")), text];
    assert_eq!(read(&frames, 7), (wanted.to_vec(), None));
}
