//! The JSON that `/ws` frames, event streams and REST bodies share: reading objects field by field, so that an error
//! names the field, and writing messages, rendered once for all who get them.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    broker::{
        Ack, AnyCursor, ConsumerInfo, ConsumerName, Cursor, Error, Filter, FilterLimits, Gap, Key, Message, MessageId,
        NewMessage, Overflow, PatternCursor, Payload, ShapeId, Source, Start, Subscribe, Timestamp,
    },
    problem::Problem,
};

/// The `/ws` event frame, which is also the data of a server-sent event.
const EVENT_FRAME: ShapeId = ShapeId(0);

/// The first shape number that other doors may give out.
pub const FIRST_FREE_SHAPE: u64 = 1;

/// The fields of one JSON object, each still as text. Of a repeated key the last counts.
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A key, borrowed unless it has escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'a> Fields<'a> {
    /// Reads one JSON object. `what` names it in the error.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub fn parse(what: &'static str, text: &'a str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|error| Error::bad_request(what, format!("must be a JSON object ({error})")))
    }

    /// The field as JSON text; `null` is a value.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// All fields in their order, as JSON text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (&**name, value.get()))
    }

    /// The field as JSON text; `null` is absent.
    #[must_use]
    pub fn present(&self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|value| value.get() != "null")
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for anything else.
    pub fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Error> {
        let read = |value: &'a RawValue| {
            serde_json::from_str::<Name<'a>>(value.get())
                .map(|Name(text)| text)
                .map_err(|_| Error::bad_request(name, "must be a string"))
        };
        self.present(name).map(read).transpose()
    }

    /// A string that must be there.
    ///
    /// # Errors
    /// [`Error::BadRequest`] when it is missing or anything else.
    pub fn required(&self, name: &'static str) -> Result<Cow<'a, str>, Error> {
        self.text(name)?.ok_or_else(|| Error::bad_request(name, "is missing"))
    }

    /// A whole number from 0.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for anything else.
    pub fn number<N: std::str::FromStr + std::fmt::Display + Copy>(
        &self,
        name: &'static str,
        most: N,
    ) -> Result<Option<N>, Error> {
        let wrong = || Error::bad_request(name, format!("must be a whole number from 0 to {most}"));
        self.present(name).map(|value| value.get().parse().map_err(|_| wrong())).transpose()
    }

    /// What a client publishes: `data`, or `message: {id, payload}` in its place; `id`, `key`, `expected_offset`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that names the field, [`Error::PayloadTooLarge`].
    pub fn new_message(&self, max_payload_bytes: usize) -> Result<NewMessage, Error> {
        let nested = match (self.raw("data"), self.present("message")) {
            (Some(_), Some(_)) => return Err(Error::bad_request("message", "must not stand beside data")),
            (Some(_), None) => None,
            (None, Some(message)) => Some(Fields::parse("message", message.get())?),
            (None, None) => return Err(Error::bad_request("data", "is missing")),
        };
        let (data, inner_id) = match &nested {
            None => (self.raw("data"), None),
            Some(message) => (message.raw("payload"), message.text("id")?),
        };
        let data = data.ok_or_else(|| Error::bad_request("message", "must have a payload"))?;
        let id = self.text("id")?.or(inner_id);
        Ok(NewMessage {
            data: Payload::from_raw(data, max_payload_bytes)?,
            id: id.map(|id| MessageId::parse(&id)).transpose()?,
            key: self.text("key")?.map(|key| Key::parse(&key)).transpose()?,
            expected_offset: self.number("expected_offset", u64::MAX)?,
            origin: None,
        })
    }

    /// What a client subscribes to, and how.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that names the field, [`Error::InvalidTopic`].
    pub fn subscribe(&self, limits: &FilterLimits) -> Result<Subscribe, Error> {
        let options = Options {
            last: match self.number("last_n", u32::MAX)? {
                Some(last) => Some(last),
                None => self.number("last", u32::MAX)?,
            },
            after: self.text("after")?,
            since: self.text("since")?,
            filter: self.present("filter").map(|filter| Cow::Borrowed(filter.get())),
            consumer: self.text("consumer")?,
            consumer_ttl: self.text("consumer_ttl")?,
            ack: self.text("ack")?,
            overflow: self.text("overflow")?,
        };
        options.subscribe(&self.required("topic")?, limits)
    }
}

/// How a client subscribes, still as text.
#[derive(Default)]
pub struct Options<'a> {
    /// The last so many messages.
    pub last: Option<u32>,
    /// After a cursor.
    pub after: Option<Cow<'a, str>>,
    /// From a time on.
    pub since: Option<Cow<'a, str>>,
    /// A filter as JSON.
    pub filter: Option<Cow<'a, str>>,
    /// A consumer's name.
    pub consumer: Option<Cow<'a, str>>,
    /// A duration.
    pub consumer_ttl: Option<Cow<'a, str>>,
    /// `AUTO` or `EXPLICIT`.
    pub ack: Option<Cow<'a, str>>,
    /// `HISTORY`, `LATEST`, `LATEST_PER_KEY` or `DISCONNECT`.
    pub overflow: Option<Cow<'a, str>>,
}

impl Options<'_> {
    /// The same, checked.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that names the field, [`Error::InvalidTopic`].
    pub fn subscribe(self, topic: &str, limits: &FilterLimits) -> Result<Subscribe, Error> {
        let ack = choice("ack", self.ack.as_deref(), &[("AUTO", Ack::Auto), ("EXPLICIT", Ack::Explicit)])?;
        let overflow = choice(
            "overflow",
            self.overflow.as_deref(),
            &[
                ("HISTORY", Overflow::History),
                ("LATEST", Overflow::Latest),
                ("LATEST_PER_KEY", Overflow::LatestPerKey),
                ("DISCONNECT", Overflow::Disconnect),
            ],
        )?;
        let consumer = self.consumer.map(|name| ConsumerName::parse(&name)).transpose()?;
        if ack.is_some() && consumer.is_none() {
            return Err(Error::bad_request("ack", "needs a consumer"));
        }
        Ok(Subscribe {
            source: Source::parse(topic)?,
            start: start(self.last, self.after.as_deref(), self.since.as_deref())?,
            resume: None,
            filter: self.filter.map(|filter| parse_filter(&filter, limits)).transpose()?,
            overflow: overflow.unwrap_or_default(),
            consumer: consumer.map(|name| (name, ack.unwrap_or_default())),
            consumer_ttl: self.consumer_ttl.map(|text| parse_duration("consumer_ttl", &text)).transpose()?,
        })
    }
}

/// A duration: a whole number with its unit, `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// [`Error::BadRequest`] that names the field.
pub fn parse_duration(field: &'static str, text: &str) -> Result<Duration, Error> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let read = || number.parse::<u64>().ok()?.checked_mul(milliseconds?).map(Duration::from_millis);
    read().ok_or_else(|| Error::bad_request(field, "must be a duration like 1500ms, 90s, 15m or 24h"))
}

/// A filter as JSON.
///
/// # Errors
/// [`Error::BadRequest`] that names the place in the filter.
pub fn parse_filter(json: &str, limits: &FilterLimits) -> Result<Filter, Error> {
    // The error names the place in the filter, which begins with the field's name.
    let wrong = |error: &str| Error::bad_request("filter", error.strip_prefix("filter: ").unwrap_or(error));
    Filter::parse(json, limits).map_err(|error| wrong(&error.to_string()))
}

fn choice<T: Copy>(field: &'static str, given: Option<&str>, choices: &[(&str, T)]) -> Result<Option<T>, Error> {
    let Some(given) = given else { return Ok(None) };
    let found = choices.iter().find(|(name, _)| *name == given).map(|(_, value)| *value);
    found.map(Some).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        Error::bad_request(field, format!("must be one of {}", names.join(", ")))
    })
}

/// Where to begin: at most one of the three.
///
/// # Errors
/// [`Error::BadRequest`] for more than one, or one that cannot be read.
pub fn start(last: Option<u32>, after: Option<&str>, since: Option<&str>) -> Result<Option<Start>, Error> {
    match (last, after, since) {
        (None, None, None) => Ok(None),
        (Some(count), None, None) => Ok(Some(Start::Last(count))),
        (None, Some(cursor), None) => parse_position("after", cursor).map(Some),
        (None, None, Some(time)) => time.parse().map(|time| Some(Start::Since(time))),
        _ => Err(Error::bad_request("after", "only one of last, after and since may be given")),
    }
}

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
    serde_json::Value::from(text).to_string()
}

/// The message as the event frame of `/ws`.
fn event_frame(message: &Message) -> Bytes {
    message.rendering(EVENT_FRAME, |message| {
        let mut frame = String::with_capacity(message.data.len() + 224);
        frame.push_str(r#"{"type":"event","#);
        write_message(&mut frame, message);
        frame.push('}');
        frame.into()
    })
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

/// The message as an object, as REST lists it.
#[must_use]
pub fn message_object(message: &Message) -> String {
    let mut object = String::with_capacity(message.data.len() + 208);
    object.push('{');
    write_message(&mut object, message);
    object.push('}');
    object
}

fn write_message(out: &mut String, message: &Message) {
    let (topic, id) = (quoted(message.topic.as_str()), quoted(message.id.as_str()));
    let Cursor { offset, .. } = message.cursor;
    let (data, cursor, at) = (message.data.as_str(), message.cursor, message.published_at);
    // Writing to a String cannot fail.
    let _ = write!(out, r#""topic":{topic},"data":{data},"id":{id}"#);
    if let Some(key) = &message.key {
        let _ = write!(out, r#","key":{}"#, quoted(key.as_str()));
    }
    let _ = write!(out, r#","offset":{offset},"cursor":"{cursor}","ts":"{at}""#);
}

/// The gap as the gap frame of `/ws`.
#[must_use]
pub fn gap_frame(gap: &Gap) -> String {
    let now = Timestamp::now();
    format!(r#"{{"type":"gap",{},"ts":"{now}"}}"#, gap_fields(gap))
}

/// The gap as an object, as REST gives it.
#[must_use]
pub fn gap_object(gap: &Gap) -> String {
    format!("{{{}}}", gap_fields(gap))
}

fn gap_fields(gap: &Gap) -> String {
    let missed = gap.missed.map_or_else(|| "null".to_owned(), |missed| missed.to_string());
    format!(
        r#""topic":{},"reason":"{}","missed":{missed},"from_offset":{},"to_offset":{}"#,
        quoted(gap.topic.as_str()),
        gap.reason.code(),
        gap.from_offset,
        gap.to_offset
    )
}

/// The frame that says a topic is gone.
#[must_use]
pub fn deleted_frame(topic: &str) -> String {
    format!(r#"{{"type":"info","topic":{},"msg":"topic_deleted","ts":"{}"}}"#, quoted(topic), Timestamp::now())
}

/// What a new subscription of a named consumer is told.
#[must_use]
pub fn consumer_object(info: &ConsumerInfo) -> String {
    let cursor = info.cursor.map_or_else(String::new, |cursor| format!(r#","cursor":"{cursor}""#));
    format!(r#"{{"name":{},"resumed":{}{cursor}}}"#, quoted(info.name.as_str()), info.resumed)
}

/// The error as the object that `/ws` frames and event streams carry.
#[must_use]
pub fn error_object(problem: &Problem) -> String {
    let mut object = format!(r#"{{"code":"{}","message":{}"#, problem.code.as_str(), quoted(&problem.message));
    if let Some(offset) = problem.current_offset {
        let _ = write!(object, r#","current_offset":{offset}"#);
    }
    if let Some(id) = &problem.id {
        let _ = write!(object, r#","id":{}"#, quoted(id));
    }
    if let Some(wait) = problem.retry_after {
        let _ = write!(object, r#","retry_after_ms":{}"#, wait.as_millis());
    }
    object.push('}');
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Result<Fields<'_>, Error> {
        Fields::parse("frame", text)
    }

    #[test]
    fn fields_are_found_whatever_their_order() {
        let fields = fields(r#"{"x":1,"to\u0070ic":"a","topic":"b","n":5,"none":null,"data":null}"#).unwrap();
        assert_eq!(fields.required("topic").unwrap(), "b");
        assert_eq!(fields.number("n", 10_u32), Ok(Some(5)));
        assert_eq!(fields.text("none"), Ok(None));
        assert_eq!(fields.raw("data").unwrap().get(), "null");
        assert!(fields.required("missing").is_err());
        assert!(fields.text("n").is_err());
        assert!(fields.number::<u32>("topic", 9).is_err());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["", "[]", "1", "{", "{\"a\":}", "null", "{\"a\":1}x"] {
            assert!(matches!(fields(bad), Err(Error::BadRequest { field: "frame", .. })), "{bad}");
        }
        let deep = format!("{{\"data\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(fields(&deep).and_then(|fields| fields.new_message(usize::MAX)).is_err());
    }

    #[test]
    fn new_messages_come_in_two_forms() {
        let new_message = |text: &str| fields(text).and_then(|fields| fields.new_message(100));
        assert_eq!(new_message(r#"{"data":null}"#).unwrap().data.as_str(), "null");
        let nested = new_message(r#"{"message":{"id":"7","payload":[1, 2]}}"#).unwrap();
        assert_eq!((nested.data.as_str(), nested.id.unwrap().as_str()), ("[1,2]", "7"));
        for bad in [
            r"{}",
            r#"{"data":1,"message":{"payload":2}}"#,
            r#"{"message":{}}"#,
            r#"{"message":3}"#,
            r#"{"data":1,"id":2}"#,
        ] {
            assert!(new_message(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        let read = |text| parse_duration("consumer_ttl", text);
        assert_eq!(read("1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(read("2s").ok().zip(read("3m").ok()), Some((Duration::from_secs(2), Duration::from_mins(3))));
        assert_eq!(read("24h"), read("1d"));
        for bad in
            ["", "s", "5", "-1s", "1.5s", "1 s", "one hour", "1S", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_one_start() {
        assert!(start(Some(1), Some("x"), None).is_err());
        assert!(start(None, Some("x"), None).is_err());
        assert_eq!(start(None, None, None), Ok(None));
    }
}
