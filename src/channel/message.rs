//! A message, its place, and what is told where one could not be delivered.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Error, Filter, Key, MessageId, Payload, TopicName};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wall clock now.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_millisecond())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        write!(f, "{at:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Reads RFC 3339 with any offset; finer than milliseconds is cut off.
    fn from_str(text: &str) -> Result<Self, Error> {
        read_time(text).map(Self).ok_or_else(|| {
            let lost_plus = text.rsplit_once(' ').is_some_and(|(time, offset)| {
                !time.contains(' ') && offset.contains(':') && read_time(&format!("{time}+{offset}")).is_some()
            });
            let message = if lost_plus {
                "has a space before its offset: a '+' in an address means a space and must be written %2B"
            } else {
                "must be a time like 2026-01-31T12:00:00Z (RFC 3339)"
            };
            Error::bad_request("since", message)
        })
    }
}

/// A time in RFC 3339 as milliseconds since 1970. `jiff::Timestamp` ends some hours before the year 9999 does, so the parts are
/// read one by one.
fn read_time(text: &str) -> Option<i64> {
    // What may stand behind an RFC 9557 time does not belong to RFC 3339.
    if text.contains('[') {
        return None;
    }
    // jiff reads nine digits of a second's fraction, and RFC 3339 does not bound them.
    let fraction = text.find('.').map_or(text.len(), |at| at + 1);
    let digits = text[fraction..].bytes().take_while(u8::is_ascii_digit).count();
    let text = format!("{}{}", &text[..fraction + digits.min(9)], &text[fraction + digits..]);
    let pieces = jiff::fmt::temporal::Pieces::parse(&text).ok()?;
    let civil = pieces.date().to_datetime(pieces.time()?);
    let offset = i64::from(pieces.to_numeric_offset()?.seconds());
    let since_1970 = civil.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0));
    let milliseconds = since_1970.as_nanos().div_euclid(1_000_000) - i128::from(offset) * 1_000;
    i64::try_from(milliseconds).ok()
}

/// One incarnation of a topic: made at random with it, so that deleted and created again is another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// A new epoch. The random part of a version 7 UUID is 74 bits; 62 of them are its low half.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().as_u64_pair().1)
    }

    /// The epoch as the number that engines store.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The epoch from its number.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The epoch from its text: 16 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == 16 { hex(text).map(Self) } else { None }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A position in a topic: after the message at `offset` of `epoch`. Offset 0 is before the first message. Its text is opaque
/// to clients and the same at every door; within an epoch, texts sort in the order of their offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The incarnation of the topic.
    pub epoch: Epoch,
    /// Grows strictly within an epoch, from 1.
    pub offset: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, SortableHex(self.offset))
    }
}

/// A number as hexadecimal digits behind a digit that says how many there are (less one): short for small numbers, and a
/// larger number is a greater text. It needs no escaping in a URL.
pub(super) struct SortableHex(pub u64);

impl fmt::Display for SortableHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let further_digits = self.0.checked_ilog2().unwrap_or(0) / 4;
        write!(f, "{further_digits:x}{:x}", self.0)
    }
}

impl SortableHex {
    /// Reads what [`SortableHex`] writes; every number has one text.
    pub(super) fn parse(text: &str) -> Option<u64> {
        let number = hex(text.get(1..)?)?;
        (SortableHex(number).to_string() == text).then_some(number)
    }
}

/// A number in lower-case hexadecimal digits, without a sign.
fn hex(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let read = |text: &str| {
            let (epoch, offset) = text.split_once('-')?;
            Some(Cursor { epoch: Epoch::parse(epoch)?, offset: SortableHex::parse(offset)? })
        };
        read(text).ok_or_else(|| Error::bad_request("cursor", "is not a cursor that this service gave out"))
    }
}

/// Why messages could not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The subscriber fell off the history while connected, or skips by its `overflow` choice.
    SlowConsumer,
    /// The next message after the asked position is no longer kept.
    Expired,
    /// The asked position is of another incarnation of the topic.
    NewEpoch,
}

impl GapReason {
    /// The reason's name at every door.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            GapReason::SlowConsumer => "SLOW_CONSUMER",
            GapReason::Expired => "EXPIRED",
            GapReason::NewEpoch => "NEW_EPOCH",
        }
    }
}

/// What a subscriber missed at this very place of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The topic in which it happened.
    pub topic: TopicName,
    /// How many messages; `None` where the engine cannot know.
    pub missed: Option<u64>,
    /// The first offset missed.
    pub from_offset: u64,
    /// The last offset missed; `from_offset - 1` where nothing was (a new epoch that is still whole).
    pub to_offset: u64,
    /// Why.
    pub reason: GapReason,
}

impl Gap {
    /// Joins a gap that follows directly; the earlier reason stays.
    #[must_use]
    pub fn and_then(self, next: &Gap) -> Gap {
        Gap {
            missed: self.missed.zip(next.missed).map(|(a, b)| a + b),
            to_offset: next.to_offset.max(self.to_offset),
            ..self
        }
    }
}

/// Which form of a message is meant: all who ask for the same shape share one rendering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShapeId(pub u64);

/// What was derived from a message for many, kept only while the message is among the newest of its topic.
#[derive(Default)]
struct Derived {
    cold: bool,
    renderings: Vec<(ShapeId, Bytes)>,
    verdicts: Vec<(Filter, bool)>,
}

/// Larger renderings are not kept: writing them out costs far more than making them anew.
const MAX_KEPT_RENDERING_BYTES: usize = 64 << 10;

/// One message, immutable.
pub struct Message {
    /// Its topic.
    pub topic: TopicName,
    /// Its place.
    pub cursor: Cursor,
    /// The place before it: a reader that stands earlier has missed something.
    pub prev: u64,
    /// Its number in the log that all topics share, or that those of its stream share on a clustered engine: grows from
    /// message to message over all topics of that log, with holes.
    pub sequence: u64,
    /// The publisher's id, else a generated one.
    pub id: MessageId,
    /// For filters and for keeping the latest of each key.
    pub key: Option<Key>,
    /// Any JSON value.
    pub data: Payload,
    /// When it was accepted; never decreases within a topic.
    pub published_at: Timestamp,
    derived: Mutex<Derived>,
}

impl Message {
    pub(crate) fn new(
        topic: TopicName,
        cursor: Cursor,
        prev: u64,
        sequence: u64,
        new_message: NewMessage,
        published_at: Timestamp,
    ) -> Arc<Self> {
        Arc::new(Self {
            topic,
            cursor,
            prev,
            sequence,
            id: new_message.message_id(),
            key: new_message.key,
            data: new_message.data,
            published_at,
            derived: Mutex::default(),
        })
    }

    /// The message in this shape: made by the first who asks, shared by all others while the message is young.
    /// Rendering happens under the message's lock, so that it happens once.
    pub fn rendering(&self, shape: ShapeId, render: impl FnOnce(&Message) -> Bytes) -> Bytes {
        let mut derived = self.derived.lock();
        if let Some((_, made)) = derived.renderings.iter().find(|(id, _)| *id == shape) {
            return made.clone();
        }
        let made = render(self);
        if !derived.cold && made.len() <= MAX_KEPT_RENDERING_BYTES {
            derived.renderings.push((shape, made.clone()));
        }
        made
    }

    /// Whether `filter` lets the message pass: evaluated once for all who filter alike, while the message is young.
    pub fn passes(&self, filter: &Filter) -> bool {
        let mut derived = self.derived.lock();
        if let Some((_, verdict)) = derived.verdicts.iter().find(|(known, _)| known == filter) {
            return *verdict;
        }
        let verdict = filter.matches(self.key.as_ref().map(Key::as_str), self.data.as_str());
        if !derived.cold {
            derived.verdicts.push((filter.clone(), verdict));
        }
        verdict
    }

    /// Lets go of what was derived: the message is no longer among the newest.
    pub(super) fn cool(&self) {
        *self.derived.lock() = Derived { cold: true, ..Derived::default() };
    }

    /// What the message counts against the bounds on history bytes: its texts and what holds them.
    pub(super) fn cost(&self) -> usize {
        cost(&self.data, self.id.as_str().len(), self.key.as_ref())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.topic, self.cursor.offset)
    }
}

/// A message on its way to the broker.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Any JSON value.
    pub data: Payload,
    /// Makes publishing idempotent: a repeated id within the history is answered with the first one's position.
    pub id: Option<MessageId>,
    /// For filters and for keeping the latest of each key.
    pub key: Option<Key>,
    /// Publish only if this is the topic's newest offset (0: the topic has had no message).
    pub expected_offset: Option<u64>,
    /// Set where the message was published before, in another incarnation of its topic, and comes back.
    pub origin: Option<Origin>,
}

/// What a message keeps of its first publication. That one was held back by the topic's rate; its coming back is not.
#[derive(Clone, Debug)]
pub struct Origin {
    /// When it was accepted.
    pub at: Timestamp,
    /// The id that was made up for it, if the publisher gave none.
    pub made_up_id: Option<MessageId>,
}

/// A message that an engine has numbered and stored.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its offset.
    pub offset: u64,
    /// The place before it: nothing was published in the topic between the two.
    pub prev: u64,
    /// When it was accepted.
    pub at: Timestamp,
    /// Its id.
    pub id: MessageId,
    /// Whether the publisher gave the id.
    pub given_id: bool,
    /// Its key.
    pub key: Option<Key>,
    /// Its data.
    pub data: Payload,
}

impl NewMessage {
    /// The id of the message to be: the publisher's, else the one it had before, else a new one.
    pub(crate) fn message_id(&self) -> MessageId {
        let made_up = || self.origin.as_ref()?.made_up_id.clone();
        self.id.clone().or_else(made_up).unwrap_or_else(MessageId::generate)
    }

    /// What the message will count against the bounds on history bytes.
    pub(crate) fn cost(&self) -> usize {
        cost(
            &self.data,
            self.id.as_ref().map_or(uuid::fmt::Hyphenated::LENGTH, |id| id.as_str().len()),
            self.key.as_ref(),
        )
    }
}

/// A message's texts and what holds them.
fn cost(data: &Payload, id_bytes: usize, key: Option<&Key>) -> usize {
    const FIXED: usize = size_of::<Message>() + 64;
    FIXED + data.len() + id_bytes + key.map_or(0, |key| key.as_str().len())
}

/// Where a published message stands.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The message's id.
    pub id: MessageId,
    /// Its topic.
    pub topic: TopicName,
    /// Its place.
    pub cursor: Cursor,
    /// When it was accepted.
    pub published_at: Timestamp,
    /// Whether the id was known, and this is the first one's place.
    pub duplicate: bool,
}

/// A publisher's id that is known though there is no message to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownId {
    /// The id.
    pub id: MessageId,
    /// When its message was published.
    pub at: Timestamp,
}

impl KnownId {
    /// Whether a publication with this id is still a duplicate, `window` being the time for which ids are known.
    #[must_use]
    pub fn is_within(&self, window: Duration) -> bool {
        let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        self.at.0 > Timestamp::now().0.saturating_sub(window)
    }
}

impl Publication {
    pub(crate) fn of(message: &Message, duplicate: bool) -> Self {
        Self {
            id: message.id.clone(),
            topic: message.topic.clone(),
            cursor: message.cursor,
            published_at: message.published_at,
            duplicate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_as_text() {
        let cursor = Cursor { epoch: Epoch::random(), offset: u64::MAX };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in [
            "",
            "-",
            "1-01",
            "00000000000000zz-01",
            "+000000000000001-01",
            "0000000000000001-",
            "0000000000000001-1",
            "0000000000000001-11",
            "0000000000000001-101",
            "0000000000000001-0a1",
            "0000000000000001-0\u{fc}",
            "x",
        ] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cursors_of_an_epoch_sort_as_text() {
        let epoch = Epoch::random();
        let text = |offset| Cursor { epoch, offset }.to_string();
        let offsets = (0..70).chain((4..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit])).chain([u64::MAX]);
        let mut texts: Vec<_> = offsets.map(|offset| (offset, text(offset))).collect();
        texts.sort_unstable();
        texts.dedup();
        assert!(texts.is_sorted_by(|a, b| a.1 < b.1));
        assert!(texts.iter().all(|(_, text)| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')));
    }

    #[test]
    fn times_are_rfc_3339() {
        let at: Timestamp = "2026-01-31T13:00:00.1239+01:00".parse().unwrap();
        assert_eq!(at.to_string(), "2026-01-31T12:00:00.123Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
        assert!(!Timestamp(i64::MAX).to_string().is_empty());
    }
}
