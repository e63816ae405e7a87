//! The types that recovery returns.

use bytes::Bytes;

use super::{newest::ChainLink, record::MessageRecord};

/// What a log held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The topics that were not deleted, by id.
    pub topics: Vec<RecoveredTopic>,
    /// The highest topic id in any record, deleted topics included.
    pub highest_id: u64,
    /// The consumers that were not deleted, in no order.
    pub consumers: Vec<RecoveredConsumer>,
    /// The deletions of topics that are still in the log, oldest first. At most the newest [`MAX_DELETIONS`] are
    /// listed.
    pub deletions: Vec<RecoveredDeletion>,
    /// Identifies this log among all others for as long as it exists.
    pub identity: u64,
    /// Whether an existing log had lost its identity and got a new one.
    pub identity_lost: bool,
    /// The next sequence number. Lower numbers are never used again, even if some records were lost.
    pub next_sequence: u64,
    /// Whether the log was closed cleanly, or is new.
    pub clean: bool,
    /// Whether everything that was acknowledged is certainly there. If not, offsets jump over the reservations.
    pub whole: bool,
    /// Bytes that were cut off the end because no whole record began there: a torn write. More than 0 is worth a
    /// warning.
    pub truncated_bytes: u64,
    /// The file in which these bytes are kept, or why they could not be kept.
    pub kept: Option<Result<String, String>>,
    /// Messages of topics that do not exist, because they were published while their topic was being deleted. They
    /// are dropped.
    pub orphaned_messages: u64,
    /// Messages before a gap in the chain of `prev`. They were trimmed before, and their segments were not removed
    /// yet. They are dropped, so that a history has no gap.
    pub detached_messages: u64,
    /// How many reads the recovery took.
    pub reads: u64,
}

/// A topic as it was recovered.
#[derive(Debug)]
pub struct RecoveredTopic {
    pub id: u64,
    pub epoch: u64,
    pub name: String,
    pub created_at_ms: i64,
    pub implicit: bool,
    /// The latest settings.
    pub settings: Bytes,
    /// Messages up to this offset were evicted and are never recovered.
    pub floor: u64,
    /// Up to here its messages are the newest of their keys, and others between them may be gone. This is `u64::MAX` where
    /// the topic keeps the newest message of each key.
    pub compacted_until: u64,
    /// The newest messages above the floor, by offset: as many as `keep` returned for these settings, or the newest one of
    /// each key.
    pub messages: Vec<RecoveredMessage>,
    /// The evicted messages right before those, if they are still in the log, by offset. A gap counts them. At most
    /// the newest [`MAX_EVICTED`] are listed.
    pub evicted: Vec<RecoveredEvicted>,
    /// Publishers' ids that are still known although their messages are not among these, oldest first. If all topics
    /// together have too many, the oldest ids are left out.
    pub ids: Vec<RecoveredId>,
    /// The highest offset known to have been used, or 0 if there is none.
    pub last_offset: u64,
    /// The sequence number of the message that had it, or a higher one if nothing is left of that message.
    pub last_sequence: u64,
    /// The first offset that was certainly never shown to anybody.
    pub next_offset: u64,
    /// Offsets above this one were used without a gap.
    pub dense_from: u64,
}

/// A message as it was recovered. The fields are those of [`MessageRecord`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredMessage {
    pub offset: u64,
    pub prev: u64,
    pub prev_sequence: u64,
    /// The sequence number of its record.
    pub sequence: u64,
    pub at_ms: i64,
    pub id: Bytes,
    pub id_is_given: bool,
    pub key: Option<Bytes>,
    pub data: Bytes,
    pub headers: Option<Bytes>,
    pub ttl_ms: u64,
    pub is_hollow: bool,
    pub is_removal: bool,
}

impl RecoveredMessage {
    pub(super) fn link(&self) -> ChainLink {
        ChainLink { offset: self.offset, prev: self.prev }
    }

    pub(super) fn copy(message: &MessageRecord<'_>, sequence: u64) -> Self {
        Self {
            offset: message.offset,
            prev: message.prev,
            prev_sequence: message.prev_sequence,
            sequence,
            at_ms: message.at_ms,
            id: Bytes::copy_from_slice(message.id),
            id_is_given: message.id_is_given,
            key: message.key.map(Bytes::copy_from_slice),
            data: Bytes::copy_from_slice(message.data),
            headers: message.headers.map(Bytes::copy_from_slice),
            ttl_ms: message.ttl_ms,
            is_hollow: message.is_hollow,
            is_removal: message.is_removal,
        }
    }
}

/// The most evicted messages that are listed per topic.
pub(super) const MAX_EVICTED: usize = 10_000;

/// A message that was evicted and is still in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredEvicted {
    pub offset: u64,
    pub prev: u64,
    pub prev_sequence: u64,
    pub sequence: u64,
    pub at_ms: i64,
}

impl RecoveredEvicted {
    pub(super) fn of(message: &RecoveredMessage) -> Self {
        let RecoveredMessage { offset, prev, prev_sequence, sequence, at_ms, .. } = *message;
        Self { offset, prev, prev_sequence, sequence, at_ms }
    }
}

/// A publisher's id, and the message that had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredId {
    pub id: Bytes,
    pub offset: u64,
    pub at_ms: i64,
    pub sequence: u64,
}

impl RecoveredId {
    pub(super) fn of(message: &MessageRecord<'_>, sequence: u64) -> Self {
        let id = Bytes::copy_from_slice(message.id);
        Self { id, offset: message.offset, at_ms: message.at_ms, sequence }
    }
}

/// A consumer's latest state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredConsumer {
    pub source: String,
    pub name: String,
    pub blob: Bytes,
}

/// The deletion of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredDeletion {
    pub name: String,
    pub epoch: u64,
    /// The sequence number of the topic's newest message, or 0 if it had none.
    pub newest_sequence: u64,
    /// The sequence number of the deletion.
    pub sequence: u64,
}

/// The most deletions that are listed.
pub(super) const MAX_DELETIONS: usize = 10_000;
