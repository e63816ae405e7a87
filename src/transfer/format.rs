//! The lines of an export. `docs/backup.md` describes them for users.
//!
//! Each line is a JSON object. Its last field is `crc`, the CRC-32 of the line before it. A line that was edited may
//! leave it out.

use std::{borrow::Cow, fmt, io::Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::Error as _};
use serde_json::{Value, value::RawValue};

use crate::channel::{Ack, Age, Epoch, Timestamp, TopicConfig};

/// The name of the format in the first line.
pub(super) const FORMAT: &str = "pub-sub";

/// The version of all lines. A reader accepts its own and earlier versions. Version 1 has no ids without messages, version 2
/// no headers and no ages, version 3 no removals of keys and no retention.
pub(super) const VERSION: u32 = 4;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HeaderLine {
    pub format: String,
    pub version: u32,
    pub exported_at: TimeText,
    pub engine: String,
}

/// The fields of the first line that are the same in every version.
#[derive(Deserialize)]
pub(super) struct AnyVersionHeader {
    pub format: String,
    pub version: u32,
}

/// Every other line. Each topic is followed by its messages and then by its known ids. The consumers follow the last
/// topic, and the end follows the consumers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Line<'a> {
    #[serde(borrow)]
    Topic(TopicLine<'a>),
    #[serde(borrow)]
    Message(MessageLine<'a>),
    #[serde(borrow)]
    KnownId(KnownIdLine<'a>),
    #[serde(borrow)]
    Consumer(ConsumerLine<'a>),
    End(LineCounts),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TopicLine<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The epoch of the exported incarnation, which consumers' positions refer to.
    pub epoch: EpochText,
    pub created_at: TimeText,
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
pub(super) struct MessageLine<'a> {
    pub offset: u64,
    /// Whether messages right before this one may have been lost.
    #[serde(default, skip_serializing_if = "is_false")]
    pub after_loss: bool,
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Whether the publisher chose the id.
    pub given: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Cow<'a, str>>,
    /// An object of strings.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<&'a RawValue>,
    pub published_at: TimeText,
    #[serde(borrow)]
    pub data: &'a RawValue,
    /// How long the message is kept after its publication, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Age>,
    /// Whether it says that its key has no value any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub removed: bool,
}

/// A publisher's id that is still known although its message is gone.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KnownIdLine<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    pub published_at: TimeText,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConsumerLine<'a> {
    /// The topic or pattern.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The principal whom it belongs to, if it has an owner.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Cow<'a, str>>,
    pub ack: AckText,
    pub used_at: TimeText,
    /// How long the consumer is kept while nobody uses it, in milliseconds, if its owner has set a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    #[serde(borrow, rename = "places")]
    pub positions: Vec<TopicPosition<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TopicPosition<'a> {
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    /// The epoch of the topic's line, or of an earlier incarnation.
    pub epoch: EpochText,
    /// Messages up to this offset were delivered.
    pub offset: u64,
}

/// The last line. Without it the file is incomplete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LineCounts {
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

/// A time as RFC 3339 with milliseconds, which is the full precision.
#[derive(Clone, Copy)]
pub(super) struct TimeText(pub Timestamp);

/// An epoch, written as in cursors.
#[derive(Clone, Copy)]
pub(super) struct EpochText(pub Epoch);

/// A kind of acknowledgement, by the name that every door uses.
#[derive(Clone, Copy)]
pub(super) struct AckText(pub Ack);

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

impl Serialize for TimeText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for EpochText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for AckText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.code())
    }
}

/// Parses text, with a description of what is expected.
struct TextVisitor<T> {
    expected: &'static str,
    read: fn(&str) -> Option<T>,
}

impl<T> de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for TimeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| text.parse().ok().map(TimeText);
        deserializer.deserialize_str(TextVisitor { expected: "a time like 2026-01-31T12:00:00.000Z", read })
    }
}

impl<'de> Deserialize<'de> for EpochText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| Epoch::parse(text).map(EpochText);
        deserializer.deserialize_str(TextVisitor { expected: "an epoch: 16 hexadecimal digits", read })
    }
}

impl<'de> Deserialize<'de> for AckText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| [Ack::Auto, Ack::Explicit].into_iter().find(|ack| ack.code() == text).map(AckText);
        deserializer.deserialize_str(TextVisitor { expected: "AUTO or EXPLICIT", read })
    }
}

/// The text around a line's checksum.
const BEFORE: &[u8] = b",\"crc\":\"";
const BEHIND: &[u8] = b"\"}";
const DIGITS: usize = 8;

/// Encodes a value as one line with its checksum. The value is an object with at least one field.
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

/// Checks a line's checksum and removes it. A line without a checksum was edited and is accepted as it is.
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
