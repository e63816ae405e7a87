//! What a log held when it was opened: the types that recovery returns.

use bytes::Bytes;

use super::{newest::ChainLink, record::MessageRecord};

/// What a log held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The topics that were not deleted, by id.
    pub topics: Vec<RecoveredTopic>,
    /// The highest id of a topic in any record, of those that were deleted, too.
    pub highest_id: u64,
    /// The consumers that were not deleted, in no order.
    pub consumers: Vec<RecoveredConsumer>,
    /// The deletions of topics that are still in the log, oldest first; the newest [`MAX_DELETIONS`] of them.
    pub deletions: Vec<RecoveredDeletion>,
    /// Names this log among all others, as long as it lives.
    pub identity: u64,
    /// Whether an existing log had lost its identity, and was given another one.
    pub identity_lost: bool,
    /// The next sequence number: no lower one is ever given again, whatever was lost.
    pub next_sequence: u64,
    /// Whether the log was closed in order (or is new).
    pub clean: bool,
    /// Whether everything that was acknowledged is certainly there. If not, offsets jump behind the reservations.
    pub whole: bool,
    /// Bytes cut off the end, which no whole record began: a write that a crash tore. More than 0 is worth a warning.
    pub truncated_bytes: u64,
    /// The file in which they are kept, or why they could not be.
    pub kept: Option<Result<String, String>>,
    /// Messages of topics that do not exist: published while their topic was being deleted. They are dropped.
    pub orphaned_messages: u64,
    /// Messages before a hole in the chain of `prev`: they were trimmed once, and lay around still. They are dropped, so
    /// that a history has no hole.
    pub detached_messages: u64,
    /// How many reads it took.
    pub reads: u64,
}

/// A topic as it was left.
#[derive(Debug)]
pub struct RecoveredTopic {
    pub id: u64,
    pub epoch: u64,
    pub name: String,
    pub created_at_ms: i64,
    pub implicit: bool,
    /// The latest settings.
    pub settings: Bytes,
    /// Messages up to this offset were evicted once: they do not come back.
    pub floor: u64,
    /// The newest messages above the floor, as many as `keep` says for these settings, by offset.
    pub messages: Vec<RecoveredMessage>,
    /// Messages right before those that are still in the log, by offset: what a gap counts. The newest [`MAX_EVICTED`].
    pub evicted: Vec<RecoveredEvicted>,
    /// Publishers' ids that are to be known still, of messages that are not among these, the oldest first; where all topics
    /// have too many, the newest of them.
    pub ids: Vec<RecoveredId>,
    /// The highest offset known to have been used; 0 if none.
    pub last_offset: u64,
    /// The first offset that was certainly never seen by anybody.
    pub next_offset: u64,
    /// OffsetState above this one were used one by one.
    pub dense_from: u64,
}

/// A message as it was left; the fields are those of [`Message`].
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
        }
    }
}

/// Evicted messages of one topic that are told at most.
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
    /// The sequence number of the topic's newest message; 0 if it had none.
    pub newest_sequence: u64,
    /// The sequence number of the deletion.
    pub sequence: u64,
}

/// How many deletions are told.
pub(super) const MAX_DELETIONS: usize = 10_000;
