//! What the records of a log add up to when they are read in log order: the topics, their messages, and the consumers.
//!
//! A topic's latest settings may be the last record of the log, so its bound is not known before the end. Messages are
//! dropped only then.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{
    compacted::MessageContents,
    record::{IdRecord, MessageRecord, OffsetState, StoredRecord},
    recovered::{RecoveredConsumer, RecoveredDeletion, RecoveredId},
};

/// Everything that was read so far. `M` is what the reader keeps of each message.
pub(super) struct LogContents<M> {
    pub topics: HashMap<u64, TopicContents<M>>,
    pub deleted: HashSet<u64>,
    /// Each consumer's latest state, or `None` if it was deleted, with the sequence number of that record.
    pub consumers: HashMap<Box<[u8]>, (u64, Option<RecoveredConsumer>)>,
    /// The highest sequence number of any record.
    pub sequence: u64,
    /// The highest topic id in any record, deleted topics included.
    pub highest_id: u64,
    /// The number of messages whose topic was deleted before them.
    pub orphaned: u64,
    /// The deletions of topics, in log order.
    pub deletions: Vec<RecoveredDeletion>,
    /// Ids of messages older than this are dropped, in milliseconds since 1970.
    pub ids_since: i64,
}

/// What the log holds of one topic.
pub(super) struct TopicContents<M> {
    pub created: Option<Created>,
    /// The latest settings: the sequence number of the record, `implicit`, and the settings.
    updated: Option<(u64, bool, Bytes)>,
    /// The latest reservation.
    pub offsets: OffsetState,
    /// Messages up to this offset were evicted.
    pub floor: u64,
    /// Offset and sequence number of the newest message, whatever is left of it.
    pub newest: (u64, u64),
    /// Up to here its messages are the newest of their keys, although it keeps a history now.
    pub compacted_until: u64,
    pub messages: MessageContents<M>,
    /// The ids that publishers chose, with kept messages or without, in log order.
    pub ids: Vec<RecoveredId>,
}

/// The creation of a topic.
#[expect(clippy::struct_field_names, reason = "the names are those of the record")]
pub(super) struct Created {
    pub epoch: u64,
    pub name: String,
    pub created_at_ms: i64,
    pub implicit: bool,
    pub settings: Bytes,
}

impl<M> Default for LogContents<M> {
    fn default() -> Self {
        Self {
            topics: HashMap::new(),
            deleted: HashSet::new(),
            consumers: HashMap::new(),
            sequence: 0,
            highest_id: 0,
            orphaned: 0,
            deletions: Vec::new(),
            ids_since: i64::MAX,
        }
    }
}

impl<M> Default for TopicContents<M> {
    fn default() -> Self {
        Self {
            created: None,
            updated: None,
            offsets: OffsetState::default(),
            floor: 0,
            newest: (0, 0),
            compacted_until: 0,
            messages: MessageContents::default(),
            ids: Vec::new(),
        }
    }
}

impl<M> TopicContents<M> {
    /// Replaces the settings of the creation with the latest settings.
    pub fn with_latest_settings(mut self) -> Self {
        if let (Some(created), Some((_, implicit, settings))) = (&mut self.created, self.updated.take()) {
            (created.implicit, created.settings) = (implicit, settings);
        }
        self
    }
}

impl<M> LogContents<M> {
    /// Applies the next record of the log. `keep` returns what the reader keeps of a message with this sequence number. Returns
    /// the topic and the offset of a message that is not needed any more, because a newer one of its key has replaced it.
    pub fn apply(
        &mut self,
        stored: &StoredRecord<'_>,
        keep: impl FnOnce(&MessageRecord<'_>, u64) -> M,
    ) -> Option<(u64, u64)> {
        self.sequence = self.sequence.max(stored.sequence());
        if let Some(id) = stored.topic_id() {
            self.highest_id = self.highest_id.max(id);
        }
        match *stored {
            StoredRecord::TopicCreated { topic_id, epoch, name, created_at_ms, implicit, settings, .. } => {
                let (name, settings) = (name.to_owned(), Bytes::copy_from_slice(settings));
                let created = Created { epoch, name, created_at_ms, implicit, settings };
                self.topics.entry(topic_id).or_default().created = Some(created);
            }
            StoredRecord::TopicUpdated { topic_id, sequence, implicit, floor, compacted_until, settings } => {
                let topic = self.topics.entry(topic_id).or_default();
                topic.floor = topic.floor.max(floor);
                if topic.updated.as_ref().is_none_or(|(old, ..)| *old <= sequence) {
                    topic.updated = Some((sequence, implicit, Bytes::copy_from_slice(settings)));
                    topic.compacted_until = compacted_until;
                }
            }
            StoredRecord::TopicDeleted { topic_id, sequence, epoch, name, newest_sequence } => {
                self.topics.remove(&topic_id);
                self.deleted.insert(topic_id);
                self.deletions.push(RecoveredDeletion { name: name.to_owned(), epoch, newest_sequence, sequence });
            }
            StoredRecord::Message { ref message, sequence } => {
                if self.deleted.contains(&message.topic_id) {
                    self.orphaned += 1;
                } else {
                    let topic = self.topics.entry(message.topic_id).or_default();
                    topic.floor = topic.floor.max(message.floor);
                    topic.newest = topic.newest.max((message.offset, sequence));
                    if message.id_is_given && message.at_ms >= self.ids_since {
                        topic.ids.push(RecoveredId::of(message, sequence));
                    }
                    let replaced = topic.messages.take(message, || keep(message, sequence));
                    return replaced.map(|offset| (message.topic_id, offset));
                }
            }
            StoredRecord::ConsumerPut { consumer, sequence, blob } => {
                let (source, name) = (consumer.source.to_owned(), consumer.name.to_owned());
                let put = RecoveredConsumer { source, name, blob: Bytes::copy_from_slice(blob) };
                self.consumer(consumer.key, sequence, Some(put));
            }
            StoredRecord::ConsumerDeleted { consumer, sequence } => self.consumer(consumer.key, sequence, None),
            StoredRecord::Reservation { topic_id, offsets } => {
                // The ledger uses the same rule.
                let topic = self.topics.entry(topic_id).or_default();
                if (offsets.reserved, offsets.last) >= (topic.offsets.reserved, topic.offsets.last) {
                    topic.offsets = offsets;
                }
            }
            StoredRecord::Id(IdRecord { topic_id, offset, at_ms, sequence, id }) => {
                if at_ms >= self.ids_since && !self.deleted.contains(&topic_id) {
                    let id = RecoveredId { id: Bytes::copy_from_slice(id), offset, at_ms, sequence };
                    self.topics.entry(topic_id).or_default().ids.push(id);
                }
            }
            StoredRecord::Sequences { .. } | StoredRecord::CleanShutdown => {}
        }
        None
    }

    fn consumer(&mut self, key: &[u8], sequence: u64, state: Option<RecoveredConsumer>) {
        match self.consumers.get_mut(key) {
            Some((old, _)) if *old > sequence => {}
            Some(entry) => *entry = (sequence, state),
            None => {
                self.consumers.insert(key.into(), (sequence, state));
            }
        }
    }
}
