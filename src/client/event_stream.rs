//! Server-sent events as a client reads them (`text/event-stream`, in the HTML standard).

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Address, Failure};

/// Bytes of the largest event that is read. A message has 1 MiB of data unless the server was told otherwise.
const MAX_EVENT_BYTES: usize = 256 << 20;

/// What an event stream carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamItem {
    /// A line that begins with a colon, without it.
    Comment(String),
    /// An event with its name, its id if it has one, and its data.
    Event {
        /// `message`, unless the event has another.
        name: String,
        /// The position after the event.
        id: Option<String>,
        /// The lines of data.
        data: String,
    },
}

/// An open event stream.
pub struct EventStream {
    body: Incoming,
    address: Address,
    parser: Parser,
}

impl EventStream {
    pub(super) fn new(body: Incoming, address: Address) -> Self {
        Self { body, address, parser: Parser::default() }
    }

    /// The next item; `None` when the server has ended the stream in good order.
    ///
    /// # Errors
    /// [`Failure::Connection`], and [`Failure::Answer`] for an event that is too large or not UTF-8.
    pub async fn next(&mut self) -> Result<Option<StreamItem>, Failure> {
        loop {
            if let Some(item) = self.parser.next()? {
                return Ok(Some(item));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.parser.feed(&bytes)?;
                    }
                }
                Some(Err(error)) => return Err(Failure::of(&error, &self.address)),
            }
        }
    }
}

/// Takes bytes as they come, and returns items when they are complete.
#[derive(Default)]
struct Parser {
    bytes: Vec<u8>,
    /// Before this, everything is read.
    read: usize,
    name: Option<String>,
    id: Option<String>,
    data: Option<String>,
}

impl Parser {
    fn feed(&mut self, bytes: &Bytes) -> Result<(), Failure> {
        if self.read == self.bytes.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..self.read);
        }
        self.read = 0;
        let data = self.data.as_ref().map_or(0, String::len);
        if self.bytes.len() + data + bytes.len() > MAX_EVENT_BYTES {
            return Err(Failure::Answer("an event is larger than this program reads".to_owned()));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<StreamItem>, Failure> {
        loop {
            let rest = &self.bytes[self.read..];
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
            let line = &rest[..length];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = std::str::from_utf8(line)
                .map_err(|_| Failure::Answer("the event stream is not UTF-8".to_owned()))?
                .to_owned();
            self.read += length + 1;
            if let Some(item) = self.line(&line) {
                return Ok(Some(item));
            }
        }
    }

    fn line(&mut self, line: &str) -> Option<StreamItem> {
        if line.is_empty() {
            let (name, id, data) = (self.name.take(), self.id.take(), self.data.take());
            let name = name.unwrap_or_else(|| "message".to_owned());
            return data.map(|data| StreamItem::Event { name, id, data });
        }
        if let Some(comment) = line.strip_prefix(':') {
            return Some(StreamItem::Comment(comment.trim_start().to_owned()));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = Some(value.to_owned()),
            "id" => self.id = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // Other fields mean nothing here.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_whatever_the_pieces_are() {
        let text = ": subscribed a-1\n\nid: a-2\nevent: message\ndata: {\"é\":1}\n\n:\n\nevent: gap\r\ndata: 1\r\ndata: 2\r\n\r\nretry: 5\n\ndata\n\n";
        let event = |name: &str, id: Option<&str>, data: &str| StreamItem::Event {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        let wanted = [
            StreamItem::Comment("subscribed a-1".to_owned()),
            event("message", Some("a-2"), "{\"é\":1}"),
            StreamItem::Comment(String::new()),
            event("gap", None, "1\n2"),
            event("message", None, ""),
        ];
        for size in [1, 2, 7, 1_000] {
            let (mut parser, mut found) = (Parser::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                parser.feed(&Bytes::copy_from_slice(piece)).unwrap();
                while let Some(item) = parser.next().unwrap() {
                    found.push(item);
                }
            }
            assert_eq!(found, wanted, "in pieces of {size}");
        }
    }
}
