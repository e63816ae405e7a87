//! What the log stores, and how it is encoded.
//!
//! A record is the payload of a [frame](super::frame). A payload begins with its kind. Integers are LEB128 varints,
//! signed ones in zigzag encoding. Texts and byte strings are preceded by their length, except the last field of a
//! record, which takes the rest of the payload.
//!
//! A change here that an older build would misread increments [`super::files::FORMAT`]. Records of version 3 are those of
//! version 4 without removals of keys and without messages that replace those of their key. Those of version 2 have no headers, no time that messages are kept, and no hollow
//! messages either.

use super::{
    fields::{ConsumerId, FieldReader, Malformed, NOT_UTF8, put_bytes, put_i64, put_u64},
    frame::{close_frame, open_frame},
};

/// The most bytes that the fields around a record's texts and byte strings can take.
pub(super) const FIELDS: usize = 96;

/// The longest id that is kept without its message, in bytes.
pub(super) const MAX_ID: usize = 4 << 10;

const TOPIC_CREATED: u8 = 1;
const TOPIC_UPDATED: u8 = 2;
const TOPIC_DELETED: u8 = 3;
const MESSAGE: u8 = 4;
const CONSUMER_PUT: u8 = 5;
const CONSUMER_DELETED: u8 = 6;
const RESERVATION: u8 = 7;
const CLEAN_SHUTDOWN: u8 = 8;
const SEQUENCES: u8 = 9;
const ID: u8 = 10;

const IMPLICIT: u8 = 1;
const IS_COMPACTED: u8 = 2;
const ID_IS_GIVEN: u8 = 1;
const HAS_KEY: u8 = 2;
const HAS_HEADERS: u8 = 4;
const HAS_TTL: u8 = 8;
const HOLLOW: u8 = 16;
const REMOVAL: u8 = 32;
const REPLACES_OLDER: u8 = 64;

/// A record that a caller appends. It borrows, and its bytes are copied once, into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A topic is created. `topic_id` never names another topic, not even after a deletion.
    TopicCreated { topic_id: u64, epoch: u64, name: &'a str, created_at_ms: i64, implicit: bool, settings: &'a [u8] },
    /// The topic's complete settings from here on, and the offset up to which its messages are evicted. Where it keeps a
    /// history from here on and kept only the newest message of each key before, `compacted_until` is the offset of its
    /// newest message before this record, else 0.
    TopicUpdated { topic_id: u64, implicit: bool, floor: u64, compacted_until: u64, settings: &'a [u8] },
    /// The topic and everything that belongs to it is deleted. Recovery lists its name, its epoch and the sequence
    /// number of its newest message (0 if it had none) as long as this record is in the log.
    TopicDeleted { topic_id: u64, epoch: u64, name: &'a str, newest_sequence: u64 },
    /// A message of a topic that was created earlier in the log.
    Message(MessageRecord<'a>),
    /// A consumer's complete state. It replaces the earlier state under the same source and name.
    ConsumerPut { source: &'a str, name: &'a str, blob: &'a [u8] },
    /// The consumer is deleted.
    ConsumerDeleted { source: &'a str, name: &'a str },
    /// A publisher's id that stays known although the topic, which was created earlier in the log, never had its
    /// message.
    Id { topic_id: u64, at_ms: i64, id: &'a [u8] },
}

/// A message as it is stored. Within a topic, `offset` grows strictly from record to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the record")]
pub struct MessageRecord<'a> {
    pub topic_id: u64,
    pub offset: u64,
    /// The offset of the message that is stored before it in its topic, less than `offset`, or 0 for the first. Recovery
    /// treats a message that no later one names as its `prev` as the end of the evicted messages.
    pub prev: u64,
    /// The sequence number of that message's record, or 0 for the first.
    pub prev_sequence: u64,
    /// The offset up to which the topic's messages are evicted once this one is stored, less than `offset`, or 0 if
    /// none is evicted. Messages up to this offset are never recovered, even if the topic's bound is raised later.
    pub floor: u64,
    /// When the message was published, in milliseconds since 1970.
    pub at_ms: i64,
    pub id: &'a [u8],
    /// Whether the publisher chose `id`.
    pub id_is_given: bool,
    pub key: Option<&'a [u8]>,
    pub data: &'a [u8],
    pub headers: Option<&'a [u8]>,
    /// How long the message is kept after its publication, in milliseconds; 0 if it says nothing about that.
    pub ttl_ms: u64,
    /// Whether only the place of the message is left: its time was over, and its key and data are gone. Others in the
    /// chain of `prev` need it.
    pub is_hollow: bool,
    /// Whether the message says that its key has no value any more.
    pub is_removal: bool,
    /// Whether it takes the place of all older messages of its key, because its topic keeps the newest one of each key only.
    pub replaces_older: bool,
}

impl Record<'_> {
    /// Returns the size of the record's texts and byte strings together. Its frame takes at most [`FIELDS`] more
    /// bytes.
    pub(super) fn content_bytes(&self) -> usize {
        match self {
            Self::TopicCreated { name, settings, .. } => name.len() + settings.len(),
            Self::TopicUpdated { settings, .. } => settings.len(),
            Self::TopicDeleted { name, .. } => name.len(),
            Self::Message(m) => {
                m.id.len() + m.key.map_or(0, <[u8]>::len) + m.headers.map_or(0, <[u8]>::len) + m.data.len()
            }
            Self::ConsumerPut { source, name, blob } => source.len() + name.len() + blob.len(),
            Self::ConsumerDeleted { source, name } => source.len() + name.len(),
            Self::Id { id, .. } => id.len(),
        }
    }

    /// Returns why the record contradicts itself, if it does.
    pub(super) fn invalid_reason(&self) -> Option<&'static str> {
        match self {
            Self::Message(m) if m.prev >= m.offset => Some("a message's prev is not below its offset"),
            Self::Message(m) if m.floor >= m.offset => Some("a message's floor is not below its offset"),
            _ => None,
        }
    }

    /// Appends the record's frame, in which [`super::frame::write_checksums`] still has to write the checksum.
    /// `sequence` grows with every record. It orders the messages of all topics, and it distinguishes an old state,
    /// which compaction may copy behind a newer one, from that newer one.
    pub(super) fn encode(&self, sequence: u64, out: &mut Vec<u8>) {
        let start = open_frame(out);
        match *self {
            Self::TopicCreated { topic_id, epoch, name, created_at_ms, implicit, settings } => {
                out.push(TOPIC_CREATED);
                put_u64(out, topic_id);
                put_u64(out, sequence);
                // An epoch is random in all its bits, so a varint would usually be longer.
                out.extend_from_slice(&epoch.to_le_bytes());
                put_i64(out, created_at_ms);
                out.push(if implicit { IMPLICIT } else { 0 });
                put_bytes(out, name.as_bytes());
                out.extend_from_slice(settings);
            }
            Self::TopicUpdated { topic_id, implicit, floor, compacted_until, settings } => {
                out.push(TOPIC_UPDATED);
                put_u64(out, topic_id);
                put_u64(out, sequence);
                put_u64(out, floor);
                let is_compacted = if compacted_until > 0 { IS_COMPACTED } else { 0 };
                out.push(if implicit { IMPLICIT } else { 0 } | is_compacted);
                if compacted_until > 0 {
                    put_u64(out, compacted_until);
                }
                out.extend_from_slice(settings);
            }
            Self::TopicDeleted { topic_id, epoch, name, newest_sequence } => {
                out.push(TOPIC_DELETED);
                put_u64(out, topic_id);
                put_u64(out, sequence);
                out.extend_from_slice(&epoch.to_le_bytes());
                put_u64(out, newest_sequence);
                out.extend_from_slice(name.as_bytes());
            }
            Self::Message(ref message) => message.encode(sequence, out),
            Self::ConsumerPut { source, name, blob } => {
                out.push(CONSUMER_PUT);
                put_bytes(out, source.as_bytes());
                put_bytes(out, name.as_bytes());
                put_u64(out, sequence);
                out.extend_from_slice(blob);
            }
            Self::ConsumerDeleted { source, name } => {
                out.push(CONSUMER_DELETED);
                put_bytes(out, source.as_bytes());
                put_bytes(out, name.as_bytes());
                put_u64(out, sequence);
            }
            Self::Id { topic_id, at_ms, id } => put_id(IdRecord { topic_id, offset: 0, at_ms, sequence, id }, out),
        }
        close_frame(out, start);
    }
}

impl MessageRecord<'_> {
    /// When its own time is over, in milliseconds since 1970, if it has one.
    pub(super) fn ends_at(&self) -> Option<i64> {
        (self.ttl_ms > 0).then(|| self.at_ms.saturating_add_unsigned(self.ttl_ms))
    }

    /// What stays of it where its place is still needed. The id stays, because it may still be known.
    fn hollow(self) -> Self {
        let nothing = Self { headers: None, data: &[], ttl_ms: 0, is_removal: false, ..self };
        Self { key: None, replaces_older: false, is_hollow: true, ..nothing }
    }

    /// What stays of the newest message of a key where neither it nor its place is needed any more: it says that the older
    /// ones are not, either.
    fn key_mark(self) -> Self {
        let hollow = Self { id: &[], id_is_given: false, ..self.hollow() };
        Self { key: self.key, replaces_older: true, ..hollow }
    }

    /// Returns whether only the key and the offset of the message are left.
    pub(super) fn is_key_mark(&self) -> bool {
        self.is_hollow && self.key.is_some()
    }

    fn encode(&self, sequence: u64, out: &mut Vec<u8>) {
        let m = self;
        out.push(MESSAGE);
        put_u64(out, m.topic_id);
        put_u64(out, m.offset);
        put_u64(out, m.offset.saturating_sub(m.prev));
        put_u64(out, m.offset.saturating_sub(m.floor));
        put_u64(out, sequence);
        put_u64(out, sequence.saturating_sub(m.prev_sequence));
        put_i64(out, m.at_ms);
        let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
        let fields =
            flag(m.key.is_some(), HAS_KEY) | flag(m.headers.is_some(), HAS_HEADERS) | flag(m.ttl_ms > 0, HAS_TTL);
        let kinds = flag(m.id_is_given, ID_IS_GIVEN) | flag(m.is_hollow, HOLLOW) | flag(m.is_removal, REMOVAL);
        out.push(fields | kinds | flag(m.replaces_older, REPLACES_OLDER));
        put_bytes(out, m.id);
        if let Some(key) = m.key {
            put_bytes(out, key);
        }
        if let Some(headers) = m.headers {
            put_bytes(out, headers);
        }
        if m.ttl_ms > 0 {
            put_u64(out, m.ttl_ms);
        }
        out.extend_from_slice(m.data);
    }
}

/// Appends the frame of a message of which only its place is left.
pub(super) fn encode_hollow(message: MessageRecord<'_>, sequence: u64, out: &mut Vec<u8>) {
    let start = open_frame(out);
    message.hollow().encode(sequence, out);
    close_frame(out, start);
}

/// Appends the frame of the newest message of a key of which only key and offset are left.
pub(super) fn encode_key_mark(message: MessageRecord<'_>, sequence: u64, out: &mut Vec<u8>) {
    let start = open_frame(out);
    message.key_mark().encode(sequence, out);
    close_frame(out, start);
}

/// What the log knows about a topic's offsets apart from its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OffsetState {
    /// The highest offset that was used.
    pub last: u64,
    /// The reservation: offsets up to here may have been used and shown to somebody.
    pub reserved: u64,
    /// Offsets above this one were used without a gap. Below it some were skipped, because an end of the log may have
    /// lost messages.
    pub dense_from: u64,
}

/// Appends the frame of a reservation.
pub(super) fn encode_reservation(topic_id: u64, offsets: OffsetState, out: &mut Vec<u8>) {
    let start = open_frame(out);
    out.push(RESERVATION);
    put_u64(out, topic_id);
    put_u64(out, offsets.reserved);
    put_u64(out, offsets.last);
    put_u64(out, offsets.dense_from);
    close_frame(out, start);
}

/// A publisher's id whose message is gone while the id is still known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdRecord<'a> {
    pub topic_id: u64,
    /// Offset, time and sequence number of the message. If the topic never had the message, the offset is 0 and the
    /// sequence number is that of this record.
    pub offset: u64,
    pub at_ms: i64,
    pub sequence: u64,
    pub id: &'a [u8],
}

/// Appends the frame of an id.
pub(super) fn encode_id(id: IdRecord<'_>, out: &mut Vec<u8>) {
    let start = open_frame(out);
    put_id(id, out);
    close_frame(out, start);
}

fn put_id(IdRecord { topic_id, offset, at_ms, sequence, id }: IdRecord<'_>, out: &mut Vec<u8>) {
    out.push(ID);
    put_u64(out, topic_id);
    put_u64(out, offset);
    put_i64(out, at_ms);
    put_u64(out, sequence);
    out.extend_from_slice(id);
}

/// Appends the frame which says that sequence numbers up to `upto` may have been used and shown to somebody.
pub(super) fn encode_sequences(upto: u64, out: &mut Vec<u8>) {
    let start = open_frame(out);
    out.push(SEQUENCES);
    put_u64(out, upto);
    close_frame(out, start);
}

/// Appends the frame which says that the log was closed: everything before it is complete.
pub(super) fn encode_clean_shutdown(out: &mut Vec<u8>) {
    let start = open_frame(out);
    out.push(CLEAN_SHUTDOWN);
    close_frame(out, start);
}

/// A record as it was read. It borrows from the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredRecord<'a> {
    TopicCreated {
        topic_id: u64,
        sequence: u64,
        epoch: u64,
        name: &'a str,
        created_at_ms: i64,
        implicit: bool,
        settings: &'a [u8],
    },
    TopicUpdated {
        topic_id: u64,
        sequence: u64,
        implicit: bool,
        floor: u64,
        compacted_until: u64,
        settings: &'a [u8],
    },
    TopicDeleted {
        topic_id: u64,
        sequence: u64,
        epoch: u64,
        name: &'a str,
        newest_sequence: u64,
    },
    Message {
        message: MessageRecord<'a>,
        sequence: u64,
    },
    ConsumerPut {
        consumer: ConsumerId<'a>,
        sequence: u64,
        blob: &'a [u8],
    },
    ConsumerDeleted {
        consumer: ConsumerId<'a>,
        sequence: u64,
    },
    Reservation {
        topic_id: u64,
        offsets: OffsetState,
    },
    Sequences {
        upto: u64,
    },
    Id(IdRecord<'a>),
    CleanShutdown,
}

impl<'a> StoredRecord<'a> {
    /// Decodes one payload, without allocating.
    ///
    /// # Errors
    /// Returns an error if the payload is of an unknown kind, too short, too long, or not UTF-8 where it must be.
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = FieldReader(payload);
        let stored = match fields.byte()? {
            TOPIC_CREATED => Self::TopicCreated {
                topic_id: fields.u64()?,
                sequence: fields.u64()?,
                epoch: u64::from_le_bytes(fields.array()?),
                created_at_ms: fields.i64()?,
                implicit: fields.flags(IMPLICIT)? != 0,
                name: fields.text()?,
                settings: fields.rest(),
            },
            TOPIC_UPDATED => Self::updated(&mut fields)?,
            TOPIC_DELETED => Self::TopicDeleted {
                topic_id: fields.u64()?,
                sequence: fields.u64()?,
                epoch: u64::from_le_bytes(fields.array()?),
                newest_sequence: fields.u64()?,
                name: std::str::from_utf8(fields.rest()).map_err(|_| NOT_UTF8)?,
            },
            MESSAGE => Self::message(&mut fields)?,
            CONSUMER_PUT => {
                Self::ConsumerPut { consumer: fields.consumer()?, sequence: fields.u64()?, blob: fields.rest() }
            }
            CONSUMER_DELETED => Self::ConsumerDeleted { consumer: fields.consumer()?, sequence: fields.u64()? },
            RESERVATION => {
                let topic_id = fields.u64()?;
                let (reserved, last, dense_from) = (fields.u64()?, fields.u64()?, fields.u64()?);
                Self::Reservation { topic_id, offsets: OffsetState { last, reserved, dense_from } }
            }
            ID => Self::Id(IdRecord {
                topic_id: fields.u64()?,
                offset: fields.u64()?,
                at_ms: fields.i64()?,
                sequence: fields.u64()?,
                // Without this limit almost any bytes would decode as an id, and the search for records in damaged
                // bytes would take long.
                id: Some(fields.rest()).filter(|id| id.len() <= MAX_ID).ok_or(Malformed("an id is too long"))?,
            }),
            SEQUENCES => Self::Sequences { upto: fields.u64()? },
            CLEAN_SHUTDOWN => Self::CleanShutdown,
            _ => return Err(Malformed("a record of an unknown kind")),
        };
        if fields.0.is_empty() { Ok(stored) } else { Err(Malformed("a record is followed by bytes of no field")) }
    }

    fn updated(fields: &mut FieldReader<'a>) -> Result<Self, Malformed> {
        let (topic_id, sequence, floor) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let flags = fields.flags(IMPLICIT | IS_COMPACTED)?;
        let compacted_until = if flags & IS_COMPACTED != 0 { fields.u64()? } else { 0 };
        let (implicit, settings) = (flags & IMPLICIT != 0, fields.rest());
        if flags & IS_COMPACTED != 0 && compacted_until == 0 {
            return Err(Malformed("a topic was compacted up to no offset"));
        }
        Ok(Self::TopicUpdated { topic_id, sequence, implicit, floor, compacted_until, settings })
    }

    fn message(fields: &mut FieldReader<'a>) -> Result<Self, Malformed> {
        let (topic_id, offset) = (fields.u64()?, fields.u64()?);
        let (prev, floor) = (fields.below(offset)?, fields.below(offset)?);
        let sequence = fields.u64()?;
        let prev_sequence = sequence.saturating_sub(fields.u64()?);
        let at_ms = fields.i64()?;
        let flags = fields.flags(ID_IS_GIVEN | HAS_KEY | HAS_HEADERS | HAS_TTL | HOLLOW | REMOVAL | REPLACES_OLDER)?;
        let id = fields.bytes()?;
        let key = if flags & HAS_KEY != 0 { Some(fields.bytes()?) } else { None };
        let headers = if flags & HAS_HEADERS != 0 { Some(fields.bytes()?) } else { None };
        let id_is_given = flags & ID_IS_GIVEN != 0;
        let ttl_ms = if flags & HAS_TTL != 0 { fields.u64()? } else { 0 };
        if flags & HAS_TTL != 0 && ttl_ms == 0 {
            return Err(Malformed("a message is kept for no time"));
        }
        let (is_hollow, is_removal) = (flags & HOLLOW != 0, flags & REMOVAL != 0);
        let replaces_older = flags & REPLACES_OLDER != 0;
        let data = fields.rest();
        let message = MessageRecord {
            topic_id,
            offset,
            prev,
            prev_sequence,
            floor,
            at_ms,
            id,
            id_is_given,
            key,
            data,
            headers,
            ttl_ms,
            is_hollow,
            is_removal,
            replaces_older,
        };
        Ok(Self::Message { message, sequence })
    }

    /// Returns the topic of the record, for the kinds that belong to one.
    pub(super) fn topic_id(&self) -> Option<u64> {
        match self {
            Self::TopicCreated { topic_id, .. }
            | Self::TopicUpdated { topic_id, .. }
            | Self::TopicDeleted { topic_id, .. }
            | Self::Reservation { topic_id, .. }
            | Self::Id(IdRecord { topic_id, .. })
            | Self::Message { message: MessageRecord { topic_id, .. }, .. } => Some(*topic_id),
            Self::ConsumerPut { .. } | Self::ConsumerDeleted { .. } | Self::Sequences { .. } | Self::CleanShutdown => {
                None
            }
        }
    }

    /// Returns the record's sequence number, or 0 for the kinds that have none.
    pub(super) fn sequence(&self) -> u64 {
        match self {
            Self::TopicCreated { sequence, .. }
            | Self::TopicUpdated { sequence, .. }
            | Self::TopicDeleted { sequence, .. }
            | Self::Message { sequence, .. }
            | Self::Sequences { upto: sequence }
            | Self::Id(IdRecord { sequence, .. })
            | Self::ConsumerPut { sequence, .. }
            | Self::ConsumerDeleted { sequence, .. } => *sequence,
            Self::Reservation { .. } | Self::CleanShutdown => 0,
        }
    }
}
