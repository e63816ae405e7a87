//! How server-sent events are written (`text/event-stream`, in the HTML standard), for the doors that stream them.

use std::{fmt::Display, io::Write as _};

/// One event of a stream. Its data are JSON text, which has no line breaks outside of strings and escapes those within, so
/// one `data:` line holds it.
pub struct ServerSentEvent<'a> {
    /// The position that a client sends back as `Last-Event-ID` when it reconnects. Without one its position stays.
    pub id: Option<&'a dyn Display>,
    /// The event's type.
    pub name: &'static str,
    /// The data, in parts that are written one after the other.
    pub data: &'a [&'a [u8]],
}

impl ServerSentEvent<'_> {
    /// Appends the event to what is to be sent.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { id, name, data } = self;
        // Writing to a Vec cannot fail.
        if let Some(id) = id {
            let _ = writeln!(out, "id: {id}");
        }
        let _ = write!(out, "event: {name}\ndata: ");
        for part in *data {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(b"\n\n");
    }
}

/// Appends the comment that shows a client that its subscription is open, and where it begins. It also makes proxies pass the
/// head of the response on at once.
pub fn subscribed(out: &mut Vec<u8>, begins_at: &dyn Display) {
    let _ = write!(out, ": subscribed {begins_at}\n\n");
}

/// Appends a comment that says nothing, which shows that the connection lives.
pub fn heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_comments() {
        let mut out = Vec::new();
        subscribed(&mut out, &7);
        ServerSentEvent { id: Some(&"a-1"), name: "message", data: &[b"{\"a\":", b"1}"] }.write(&mut out);
        heartbeat(&mut out);
        ServerSentEvent { id: None, name: "complete", data: &[] }.write(&mut out);
        let wanted = ": subscribed 7\n\nid: a-1\nevent: message\ndata: {\"a\":1}\n\n:\n\nevent: complete\ndata: \n\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
