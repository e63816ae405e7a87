//! The lines of an export. `docs/backup.md` says it for people.
//!
//! Each line is a JSON object. `crc` stands last in each that was not edited: the CRC-32 of the line before it.

use std::{borrow::Cow, fmt, io::Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::Error as _};
use serde_json::{Value, value::RawValue};

use crate::channel::{Ack, Epoch, Timestamp, TopicConfig};

/// What the first line calls the format.
pub(super) const FORMAT: &str = "pub-sub";

/// The version of all lines. A reader knows its own and earlier ones; the first has no ids without messages.
pub(super) const VERSION: u32 = 2;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Header {
    pub format: String,
    pub version: u32,
    pub exported_at: Time,
    pub engine: String,
}

/// What of the first line stays in every version.
#[derive(Deserialize)]
pub(super) struct AnyHeader {
    pub format: String,
    pub version: u32,
}

/// Every other line: a topic is followed by its messages and these by its known ids, the last topic's ids by the consumers,
/// and these by the end.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Line<'a> {
    #[serde(borrow)]
    Topic(Topic<'a>),
    #[serde(borrow)]
    Message(Message<'a>),
    #[serde(borrow)]
    KnownId(KnownId<'a>),
    #[serde(borrow)]
    Consumer(Consumer<'a>),
    End(Counts),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Topic<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The incarnation that is exported: what consumers' places are of.
    pub epoch: Incarnation,
    pub created_at: Time,
    pub implicit: bool,
    /// What the topic sets for itself; absent where it follows the server's setting.
    #[serde(flatten, serialize_with = "in_camel_case")]
    pub config: TopicConfig,
    /// The newest offset that was no longer kept.
    pub floor: u64,
    /// The newest offset.
    pub last: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Message<'a> {
    pub offset: u64,
    /// Whether messages right before it may have been lost.
    #[serde(default, skip_serializing_if = "is_false")]
    pub after_loss: bool,
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Whether the publisher gave the id.
    pub given: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Cow<'a, str>>,
    pub published_at: Time,
    #[serde(borrow)]
    pub data: &'a RawValue,
}

/// A publisher's id that is still known though its message is gone.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KnownId<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    pub published_at: Time,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Consumer<'a> {
    /// The topic or pattern.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    pub ack: AckName,
    pub used_at: Time,
    /// How long it is kept while nobody uses it, in milliseconds, if its owner has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    #[serde(borrow)]
    pub places: Vec<Place<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Place<'a> {
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    /// The topic line's, or an earlier incarnation's.
    pub epoch: Incarnation,
    /// Up to here it was delivered.
    pub offset: u64,
}

/// The last line: without it a file is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Counts {
    pub topics: u64,
    pub messages: u64,
    #[serde(default)]
    pub known_ids: u64,
    pub consumers: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A time as RFC 3339 with milliseconds, which is all that there is of one.
#[derive(Clone, Copy)]
pub(super) struct Time(pub Timestamp);

/// An epoch as it stands in cursors.
#[derive(Clone, Copy)]
pub(super) struct Incarnation(pub Epoch);

/// A choice of acknowledgement by its name at every door.
#[derive(Clone, Copy)]
pub(super) struct AckName(pub Ack);

/// The lines have names in camelCase, the stores in `snake_case`.
fn in_camel_case<S: Serializer>(config: &TopicConfig, serializer: S) -> Result<S::Ok, S::Error> {
    let Ok(Value::Object(fields)) = serde_json::to_value(config) else {
        return Err(S::Error::custom("settings are no object"));
    };
    let camel = |name: &str| {
        let mut words = name.split('_');
        let mut text = words.next().unwrap_or_default().to_owned();
        for word in words {
            let (first, rest) = word.split_at(word.len().min(1));
            text.push_str(&first.to_ascii_uppercase());
            text.push_str(rest);
        }
        text
    };
    serializer.collect_map(fields.iter().map(|(name, value)| (camel(name), value)))
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for Incarnation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for AckName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.code())
    }
}

/// Reads text by a rule that says what it should have been.
struct Text<T> {
    expected: &'static str,
    read: fn(&str) -> Option<T>,
}

impl<T> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| text.parse().ok().map(Time);
        deserializer.deserialize_str(Text { expected: "a time like 2026-01-31T12:00:00.000Z", read })
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| Epoch::parse(text).map(Incarnation);
        deserializer.deserialize_str(Text { expected: "an epoch: 16 hexadecimal digits", read })
    }
}

impl<'de> Deserialize<'de> for AckName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| [Ack::Auto, Ack::Explicit].into_iter().find(|ack| ack.code() == text).map(AckName);
        deserializer.deserialize_str(Text { expected: "AUTO or EXPLICIT", read })
    }
}

/// What stands before a line's checksum, and behind it.
const BEFORE: &[u8] = b",\"crc\":\"";
const BEHIND: &[u8] = b"\"}";
const DIGITS: usize = 8;

/// Adds a value, an object with a field at least, as one line with its checksum.
pub(super) fn put(value: &impl Serialize, line: &mut Vec<u8>) -> Result<(), String> {
    line.clear();
    serde_json::to_writer(&mut *line, value).map_err(|error| error.to_string())?;
    line.pop();
    let sum = crc32fast::hash(line);
    line.extend_from_slice(BEFORE);
    write!(line, "{sum:08x}").map_err(|error| error.to_string())?;
    line.extend_from_slice(BEHIND);
    line.push(b'\n');
    Ok(())
}

/// Checks a line's checksum, and takes it away. A line without one was edited, and is taken for what it says.
pub(super) fn check(line: &mut Vec<u8>) -> Result<(), String> {
    let suffix = BEFORE.len() + DIGITS + BEHIND.len();
    let Some((body, end)) = line.len().checked_sub(suffix).map(|at| line.split_at(at)) else { return Ok(()) };
    let Some(sum) = end.strip_prefix(BEFORE).and_then(|end| end.strip_suffix(BEHIND)) else { return Ok(()) };
    if format!("{:08x}", crc32fast::hash(body)).as_bytes() != sum {
        return Err("its checksum differs: it is not what was exported".to_owned());
    }
    let length = body.len();
    line.truncate(length);
    line.push(b'}');
    Ok(())
}
