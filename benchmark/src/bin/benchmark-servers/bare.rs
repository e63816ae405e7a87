//! What both bare servers share: the requests of the load client, read no further than necessary.

use benchmark::frame;

/// What a client wants.
pub enum Request<'a> {
    /// This is the response.
    Respond(Vec<u8>),
    /// All messages from now on; this is the response.
    Subscribe(Vec<u8>),
    /// To publish this data.
    Publish(&'a [u8]),
}

/// What has come in on a connection.
#[derive(Default)]
pub struct Inbound {
    buffer: Vec<u8>,
    /// Bytes that are filled.
    length: usize,
    /// Bytes that are dealt with.
    at: usize,
    is_upgraded: bool,
}

/// Bytes of one read: a window of publishes fits.
const ROOM: usize = 16 << 10;

impl Inbound {
    /// Where to read to.
    pub fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.at..self.length, 0);
        self.length -= self.at;
        self.at = 0;
        if self.buffer.len() < self.length + ROOM {
            self.buffer.resize(self.length + ROOM, 0);
        }
        &mut self.buffer[self.length..]
    }

    pub fn filled(&mut self, bytes: usize) {
        self.length += bytes;
    }

    /// The next request that is there in full.
    pub fn next(&mut self) -> Option<Request<'_>> {
        let bytes = &mut self.buffer[self.at..self.length];
        if !self.is_upgraded {
            let end = frame::head_end(bytes)?;
            self.at += end;
            self.is_upgraded = true;
            return Some(Request::Respond(frame::upgraded()));
        }
        let frame = frame::parse(bytes)?;
        self.at += frame.end;
        let payload = &mut bytes[frame.start..frame.end];
        frame::unmask(payload, frame.mask);
        if payload.starts_with(SUBSCRIBE) {
            let mut response = Vec::new();
            frame::push_plain(&mut response, frame::TEXT, br#"{"type":"ack","status":"ok"}"#);
            return Some(Request::Subscribe(response));
        }
        let data = memchr::memmem::find(payload, DATA).map_or(payload.len(), |at| at + DATA.len());
        let end = payload.len().saturating_sub(1).max(data);
        Some(Request::Publish(&payload[data..end]))
    }
}

const SUBSCRIBE: &[u8] = br#"{"type":"subscribe""#;
const DATA: &[u8] = br#","data":"#;

/// Appends the frame of a message. It is as long as the server's own, with everything but the data made before.
pub fn push_event(out: &mut Vec<u8>, data: &[u8]) {
    const START: &[u8] = br#"{"type":"event","topic":"t","data":"#;
    const END: &[u8] = br#","id":"01a209a9-17a3-70b2-b033-51a97d550139","offset":10000,"cursor":"b03351a7b3fc433b-032710","published_at":"2026-11-23T18:26:46.307Z","ts":"2026-11-23T18:26:46.307Z"}"#;
    let length = START.len() + data.len() + END.len();
    out.extend_from_slice(&[0x80 | frame::TEXT, 126]);
    out.extend_from_slice(&(length as u16).to_be_bytes());
    for part in [START, data, END] {
        out.extend_from_slice(part);
    }
}
