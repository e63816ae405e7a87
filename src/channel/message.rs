//! One message, and what is derived from it for many readers at once.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Age, Counter, Cursor, Filter, Headers, Key, MessageId, NewMessage, Payload, Timestamp, TopicName, moment};

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

/// Larger renderings are not kept: writing them out costs far more than making them again.
const MAX_KEPT_RENDERING_BYTES: usize = 64 << 10;

/// One message, immutable.
pub struct Message {
    /// Its topic.
    pub topic: TopicName,
    /// Its position.
    pub cursor: Cursor,
    /// The offset before it: a reader that stands earlier has missed something.
    pub prev: u64,
    /// Its number in the log that all topics share, or that those of its stream share on a clustered engine: grows from
    /// message to message over all topics of that log, but not by one.
    pub sequence: u64,
    /// The publisher's id, else a generated one.
    pub id: MessageId,
    /// For filters and for keeping the latest of each key.
    pub key: Option<Key>,
    /// Any JSON value.
    pub data: Payload,
    /// When it was accepted; never decreases within a topic.
    pub published_at: Timestamp,
    /// What goes with the data.
    pub headers: Option<Headers>,
    derived: Mutex<Derived>,
    /// How long it is kept after that, if its publisher has said so.
    pub ttl: Option<Age>,
    /// Whether it says that its key has no value any more; its data is null then.
    pub is_removal: bool,
    /// When this instance had it, in the microseconds of [`moment`].
    pub(crate) accepted_at: u64,
}

/// Renderings of this process: those that were made, and those that were made before for another subscriber.
static MADE: Counter = Counter::new();
static SHARED: Counter = Counter::new();

/// How many renderings of messages were made in this process, and how many were shared that had been made before.
#[must_use]
pub fn renderings() -> (u64, u64) {
    (MADE.value(), SHARED.value())
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
            headers: new_message.headers,
            derived: Mutex::default(),
            accepted_at: moment::micros(),
            ttl: new_message.ttl,
            is_removal: new_message.is_removal,
        })
    }

    /// What stays of the message where its place in the order is still needed, and nothing that it says.
    pub(super) fn hollow(&self) -> Arc<Self> {
        Arc::new(Self {
            topic: self.topic.clone(),
            cursor: self.cursor,
            prev: self.prev,
            sequence: self.sequence,
            id: self.id.clone(),
            key: None,
            data: Payload::hollow(),
            published_at: self.published_at,
            derived: Mutex::new(Derived { cold: true, ..Derived::default() }),
            ttl: None,
            is_removal: false,
            headers: None,
            accepted_at: self.accepted_at,
        })
    }

    /// The message in this shape: made by the first who asks, shared by all others while the message is young.
    /// Rendering happens under the message's lock, so that it happens once.
    pub fn rendering(&self, shape: ShapeId, render: impl FnOnce(&Message) -> Bytes) -> Bytes {
        let mut derived = self.derived.lock();
        if let Some((_, made)) = derived.renderings.iter().find(|(id, _)| *id == shape) {
            SHARED.add(1);
            return made.clone();
        }
        MADE.add(1);
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
        cost(&self.data, self.id.as_str().len(), self.key.as_ref(), self.headers.as_ref())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.topic, self.cursor.offset)
    }
}

impl NewMessage {
    /// What the message will count against the bounds on history bytes.
    pub(crate) fn cost(&self) -> usize {
        cost(
            &self.data,
            self.id.as_ref().map_or(uuid::fmt::Hyphenated::LENGTH, |id| id.as_str().len()),
            self.key.as_ref(),
            self.headers.as_ref(),
        )
    }
}

/// A message's texts and what holds them.
fn cost(data: &Payload, id_bytes: usize, key: Option<&Key>, headers: Option<&Headers>) -> usize {
    const FIXED: usize = size_of::<Message>() + 64;
    let key_bytes = key.map_or(0, |key| key.as_str().len());
    FIXED + data.len() + id_bytes + key_bytes + headers.map_or(0, |headers| headers.as_json().len())
}
