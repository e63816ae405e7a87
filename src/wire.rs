//! The JSON that the doors share: reading objects and options, and writing messages, which are rendered once for all who get
//! them, gaps and notices.

mod fields;
mod names;
mod options;

use std::fmt::Write as _;

use bytes::Bytes;

pub use fields::{BesideData, Fields, UnknownFields, decoded, new_message};
pub use names::refuse_unknown;
pub use options::{
    Options, duration_text, parse_duration, parse_filter, parse_milliseconds, same_last, seek_target, start_from_text,
};

use crate::{
    broker::{AnyCursor, ConsumerInfo, Cursor, Error, Gap, Message, PatternCursor, ShapeId, Start, Timestamp, quote},
    event_stream::ServerSentEvent,
};

/// The `/ws` event frame, which is also the data of a server-sent event.
const EVENT_FRAME: ShapeId = ShapeId(0);

/// The message as a server-sent event.
const STREAM_EVENT: ShapeId = ShapeId(1);

/// The first shape number that other doors may give out.
pub const FIRST_FREE_SHAPE: u64 = 2;

/// Parameters by which a client says where it was that cannot send the header `Last-Event-ID`: those of
/// event-source-polyfill and its kin.
pub const LAST_EVENT_ID_PARAMETERS: [&str; 3] = ["lastEventId", "Last-Event-ID", "evs_last_event_id"];

/// A cursor given in `field`.
///
/// # Errors
/// [`Error::BadRequest`] that names the field.
pub fn parse_cursor(field: &'static str, text: &str) -> Result<Cursor, Error> {
    text.parse().map_err(|_| Error::bad_request(field, "is not a cursor that this service gave out"))
}

/// A position given in `field`: a topic's cursor, or a pattern's.
///
/// # Errors
/// [`Error::BadRequest`] that names the field.
pub fn parse_position(field: &'static str, text: &str) -> Result<Start, Error> {
    let cursor: Result<AnyCursor, _> = text.parse();
    cursor.map(Start::from).map_err(|_| Error::bad_request(field, "is not a cursor that this service gave out"))
}

/// Text as a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(text, &mut out);
    out
}

/// Appends text as a JSON string.
pub fn write_quoted(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(quoted(text).as_bytes());
    }
}

/// The message as the event frame of `/ws`.
fn event_frame(message: &Message) -> Bytes {
    message.rendering(EVENT_FRAME, |message| {
        let mut frame = String::with_capacity(message.data.len() + 272);
        write_frame(&mut frame, message);
        frame.into()
    })
}

fn write_frame(out: &mut String, message: &Message) {
    out.push_str(r#"{"type":"event","#);
    write_message(out, message);
    out.push('}');
}

/// The message as the event frame of `/ws` in two parts: what all share, and behind it, where the message came through a
/// pattern, the position over all topics.
pub fn event_parts(message: &Message, position: Option<&PatternCursor>) -> (Bytes, String) {
    let mut frame = event_frame(message);
    let Some(position) = position else { return (frame, String::new()) };
    // Without its last brace.
    frame.truncate(frame.len() - 1);
    (frame, format!(r#","pattern_cursor":"{position}"}}"#))
}

/// The message as a server-sent event of its topic: its cursor is the event's id, its data are the event frame of `/ws`.
#[must_use]
pub fn stream_event(message: &Message) -> Bytes {
    message.rendering(STREAM_EVENT, |message| {
        // Not the frame that `/ws` shares: one rendering cannot be asked for while another is made.
        let mut frame = String::with_capacity(message.data.len() + 272);
        write_frame(&mut frame, message);
        let mut event = Vec::with_capacity(frame.len() + 64);
        let (id, data) = (&message.cursor, frame.as_bytes());
        ServerSentEvent { id: Some(id), name: MESSAGE_EVENT, data: &[data] }.write(&mut event);
        event.into()
    })
}

/// The name of the server-sent event that is a message.
pub const MESSAGE_EVENT: &str = "message";

/// The message as an object, as REST lists it, with what was missed right before it.
#[must_use]
pub fn message_object(message: &Message, gap: Option<&Gap>) -> String {
    let mut object = String::with_capacity(message.data.len() + 256);
    object.push('{');
    write_message(&mut object, message);
    if let Some(gap) = gap {
        object.push_str(r#","gap":"#);
        object.push_str(&gap_object(gap, Spelling::SnakeCase));
    }
    object.push('}');
    object
}

fn write_message(out: &mut String, message: &Message) {
    let Cursor { offset, .. } = message.cursor;
    let (cursor, at) = (message.cursor, message.published_at);
    out.push_str(r#""topic":"#);
    quote(message.topic.as_str(), out);
    out.push_str(r#","data":"#);
    out.push_str(message.data.as_str());
    out.push_str(r#","id":"#);
    quote(message.id.as_str(), out);
    if let Some(key) = &message.key {
        out.push_str(r#","key":"#);
        quote(key.as_str(), out);
    }
    if message.is_removal {
        out.push_str(r#","removed":true"#);
    }
    if let Some(headers) = &message.headers {
        out.push_str(r#","headers":"#);
        out.push_str(headers.as_json());
    }
    // Writing to a String cannot fail.
    // `ts` is the time's older name, and stays for those who read it.
    let _ = write!(out, r#","offset":{offset},"cursor":"{cursor}","published_at":"{at}","ts":"{at}""#);
}

/// How the keys of an object are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As in REST, `/ws` and event streams.
    SnakeCase,
    /// As in GraphQL.
    CamelCase,
}

/// The gap as the gap frame of `/ws`.
#[must_use]
pub fn gap_frame(gap: &Gap) -> String {
    let now = Timestamp::now();
    format!(r#"{{"type":"gap",{},"ts":"{now}"}}"#, gap_fields(gap, Spelling::SnakeCase))
}

/// The gap as an object.
#[must_use]
pub fn gap_object(gap: &Gap, spelling: Spelling) -> String {
    format!("{{{}}}", gap_fields(gap, spelling))
}

fn gap_fields(gap: &Gap, spelling: Spelling) -> String {
    let (from, to) = match spelling {
        Spelling::SnakeCase => ("from_offset", "to_offset"),
        Spelling::CamelCase => ("fromOffset", "toOffset"),
    };
    let missed = gap.missed.map_or_else(|| "null".to_owned(), |missed| missed.to_string());
    format!(
        r#""topic":{},"reason":"{}","missed":{missed},"{from}":{},"{to}":{}"#,
        quoted(gap.topic.as_str()),
        gap.reason.code(),
        gap.from_offset,
        gap.to_offset
    )
}

/// The frame that says that a topic was deleted.
#[must_use]
pub fn deleted_frame(topic: &str) -> String {
    format!(r#"{{"type":"info","topic":{},"msg":"topic_deleted","ts":"{}"}}"#, quoted(topic), Timestamp::now())
}

/// The frame that says that the state of a topic or pattern is complete at this position.
#[must_use]
pub fn state_frame(source: &str, at: &AnyCursor) -> String {
    let name = match at {
        AnyCursor::Topic(_) => "cursor",
        AnyCursor::Pattern(_) => "pattern_cursor",
    };
    format!(r#"{{"type":"state","topic":{},"{name}":"{at}","ts":"{}"}}"#, quoted(source), Timestamp::now())
}

/// How a named consumer was resumed, for the first message of a new subscription.
#[must_use]
pub fn consumer_object(info: &ConsumerInfo) -> String {
    let cursor = info.cursor.map_or_else(String::new, |cursor| format!(r#","cursor":"{cursor}""#));
    format!(r#"{{"name":{},"resumed":{}{cursor}}}"#, quoted(info.name.name()), info.resumed)
}
