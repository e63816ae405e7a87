//! The ledger: which bytes of which segment are still needed.
//!
//! The ledger does not list each record. A topic's messages come in offset order, so one *run* (consecutive offsets
//! in one segment) stands for many. The number of live records is always exact. When a run is trimmed in part, its
//! bytes are reduced in proportion; they are exact again when the run is gone. Where a topic keeps the newest message of each
//! key, each message is a run, and its bytes are exact.

mod aged;
mod ids;
mod keys;
mod runs;
mod space;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(super) use ids::now_ms;
use runs::{OffsetRuns, TakenRun};

use super::{
    LogConfig,
    record::{MessageRecord, OffsetState, StoredRecord},
};
use aged::aged_at;

/// The location of the latest record of a topic's or consumer's state. Records with a lower `sequence` are dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RecordLocation {
    segment: u64,
    bytes: u64,
    sequence: u64,
}

impl From<RecordLocation> for TakenRun {
    fn from(RecordLocation { segment, bytes, .. }: RecordLocation) -> Self {
        Self { segment, records: 1, bytes, oldest_at: i64::MAX }
    }
}

#[derive(Debug, Default)]
struct TopicUsage {
    /// The creation. It is missing only while the log is being read, because a copied creation can follow other
    /// records of its topic.
    created: Option<RecordLocation>,
    updated: Option<RecordLocation>,
    reservation: Option<RecordLocation>,
    /// The reservation: offsets up to here may have been shown to somebody.
    reserved: u64,
    /// The value of `last` in the stored reservation.
    stored_last: u64,
    /// Offsets above this one were used without a gap.
    dense_from: u64,
    /// Messages below this offset are not needed.
    floor: u64,
    /// The highest offset so far, and the segment that holds or held its message.
    last: u64,
    last_segment: u64,
    /// The live messages.
    runs: OffsetRuns,
    /// How old its messages may become, in milliseconds; 0 means no limit.
    max_age: u64,
    /// Whether it keeps the newest message of each key only.
    is_keyed: bool,
    /// Up to here its messages are the newest of their keys, because it kept only these before it kept a history.
    compacted_until: u64,
}

#[derive(Debug)]
struct SegmentUsage {
    bytes: u64,
    /// The live bytes, which include those of ids.
    live_bytes: u64,
    /// The live records, which do not include ids.
    live_records: u64,
    /// The bytes of id records that are still live.
    id_bytes: u64,
    /// The newest time of an id that has a record of its own in this segment, and of one that came with a message.
    newest_kept_id_at: i64,
    newest_given_id_at: i64,
    /// The deletions in this segment. They must outlive every older segment, or what they deleted would come back.
    deletions: u64,
    /// The key marks in this segment: topic and offset of each.
    key_marks: BTreeSet<(u64, u64)>,
    /// When the first of its messages has become too old, or will.
    aged_at: i64,
}

impl SegmentUsage {
    fn new(bytes: u64) -> Self {
        Self {
            bytes,
            live_bytes: 0,
            live_records: 0,
            id_bytes: 0,
            newest_kept_id_at: i64::MIN,
            newest_given_id_at: i64::MIN,
            deletions: 0,
            key_marks: BTreeSet::new(),
            aged_at: i64::MAX,
        }
    }

    /// Returns whether nothing in this segment is needed but ids, whatever other segments there are.
    fn is_spent(&self) -> bool {
        self.live_records == 0 && self.deletions == 0 && self.key_marks.is_empty()
    }

    /// Returns when the last id in this segment expires.
    fn ids_expire_at(&self, window: i64) -> i64 {
        match self.newest_kept_id_at.max(self.newest_given_id_at) {
            i64::MIN => i64::MIN,
            at => at.saturating_add(window),
        }
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    segments: BTreeMap<u64, SegmentUsage>,
    topics: HashMap<u64, TopicUsage>,
    consumers: HashMap<Box<[u8]>, RecordLocation>,
    bytes: u64,
    live_bytes: u64,
    /// Sealed segments without a live record, a deletion and a key mark, by the time at which their last id expires.
    drained: BTreeSet<(i64, u64)>,
    segment_bytes: u64,
    /// How long an id is known, in milliseconds, and the most bytes that ids may take.
    window: i64,
    dedup_bytes: u64,
    /// The bytes of all live id records.
    id_bytes: u64,
    /// The ids of no segment expire before this time.
    next_id_expiry: i64,
    /// Whether the log is being read. Then messages can come before the creation of their topic.
    reading: bool,
    /// Reads from a topic's settings how old its messages may become, in milliseconds, and what holds without.
    max_age_of: fn(&[u8]) -> Option<u64>,
    default_max_age: u64,
    /// Reads from a topic's settings whether it keeps the newest message of each key only.
    is_keyed: fn(&[u8]) -> bool,
    /// How long something that is too old may stay on the disk, in milliseconds.
    keep_aged: i64,
    /// The lowest `aged_at` of all segments, or an earlier time.
    next_aged: i64,
}

impl Ledger {
    pub(super) fn new(settings: &LogConfig) -> Self {
        Self {
            segments: BTreeMap::new(),
            topics: HashMap::new(),
            consumers: HashMap::new(),
            bytes: 0,
            live_bytes: 0,
            drained: BTreeSet::new(),
            segment_bytes: settings.segment_bytes,
            window: settings.dedup_window_ms(),
            dedup_bytes: settings.dedup_bytes,
            id_bytes: 0,
            next_id_expiry: i64::MAX,
            reading: true,
            max_age_of: settings.max_age_of,
            default_max_age: settings.default_max_age_ms,
            is_keyed: settings.is_keyed,
            keep_aged: settings.keep_aged_ms(),
            next_aged: i64::MAX,
        }
    }

    /// Begins a segment. The one before it is sealed.
    pub(super) fn begin_segment(&mut self, number: u64, bytes: u64) {
        let sealed = self.active_segment();
        self.segments.insert(number, SegmentUsage::new(bytes));
        self.bytes += bytes;
        if let Some(sealed) = sealed {
            self.check_drained(sealed);
        }
    }

    pub(super) fn active_segment(&self) -> Option<u64> {
        self.segments.last_key_value().map(|(number, _)| *number)
    }

    /// Adds `bytes` to the size of the segment.
    pub(super) fn add_bytes(&mut self, number: u64, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Adds a record of `bytes` in the active segment `number`, which is new or a copy.
    pub(super) fn add_record(&mut self, number: u64, stored: &StoredRecord<'_>, bytes: u64) {
        let location = RecordLocation { segment: number, bytes, sequence: stored.sequence() };
        match stored {
            StoredRecord::Message { message, .. } => {
                if message.id_is_given
                    && let Some(segment) = self.segments.get_mut(&number)
                {
                    segment.newest_given_id_at = segment.newest_given_id_at.max(message.at_ms);
                }
                self.note_ttl(number, message);
                self.add_message(number, message, bytes);
            }
            StoredRecord::Id(id) => self.add_id(number, id.at_ms, bytes),
            StoredRecord::TopicCreated { topic_id, .. } => {
                let topic = self.topics.entry(*topic_id).or_default();
                let old = topic.created.replace(location);
                self.replace_location(old, location);
            }
            StoredRecord::TopicUpdated { topic_id, .. } => {
                if let Some(topic) = topic(&mut self.topics, *topic_id, self.reading)
                    && topic.updated.is_none_or(|old| old.sequence <= location.sequence)
                {
                    let old = topic.updated.replace(location);
                    self.replace_location(old, location);
                }
            }
            StoredRecord::Reservation { topic_id, offsets: OffsetState { last, reserved, dense_from } } => {
                if let Some(topic) = topic(&mut self.topics, *topic_id, self.reading)
                    && (*reserved, *last) >= (topic.reserved, topic.stored_last)
                {
                    (topic.reserved, topic.stored_last, topic.dense_from) = (*reserved, *last, *dense_from);
                    let old = topic.reservation.replace(location);
                    self.replace_location(old, location);
                }
            }
            StoredRecord::TopicDeleted { topic_id, .. } => {
                self.add_deletion(number);
                self.remove_topic(*topic_id);
            }
            StoredRecord::ConsumerPut { consumer, .. } => match self.consumers.get_mut(consumer.key) {
                Some(old) if old.sequence > location.sequence => {}
                Some(old) => {
                    let old = std::mem::replace(old, location);
                    self.replace_location(Some(old), location);
                }
                None => {
                    self.consumers.insert(consumer.key.into(), location);
                    self.replace_location(None, location);
                }
            },
            StoredRecord::ConsumerDeleted { consumer, sequence } => {
                self.add_deletion(number);
                if self.consumers.get(consumer.key).is_some_and(|old| old.sequence < *sequence)
                    && let Some(old) = self.consumers.remove(consumer.key)
                {
                    self.remove_live(&old.into());
                }
            }
            StoredRecord::Sequences { .. } | StoredRecord::CleanShutdown => {}
        }
        self.note_settings(stored);
    }

    fn add_message(&mut self, number: u64, message: &MessageRecord<'_>, bytes: u64) {
        let MessageRecord { topic_id, offset, at_ms, .. } = *message;
        let Some(topic) = topic(&mut self.topics, topic_id, self.reading) else { return };
        let is_copy = offset <= topic.last;
        if offset >= topic.last {
            (topic.last, topic.last_segment) = (offset, number);
        }
        if message.is_key_mark() {
            return self.add_key_mark(number, topic_id, offset);
        }
        // If this record is a copy, the older record of this message is dead from now on.
        let old = topic.runs.take(offset);
        let is_copy = is_copy && !self.reading;
        if old.is_none() && (is_copy || offset < topic.floor) {
            if is_copy {
                self.add_dead_copy(number, topic_id, offset);
            }
            return;
        }
        topic.runs.add(offset, number, bytes, at_ms, !message.replaces_older);
        self.add_live(number, bytes);
        if let Some(old) = old {
            self.remove_live(&old);
        }
    }

    /// Returns whether the record, which was read from segment `number`, is the latest of its kind and still needed.
    pub(super) fn is_live(&self, number: u64, stored: &StoredRecord<'_>) -> bool {
        let here = |location: Option<RecordLocation>| {
            location.is_some_and(|location| location.segment == number && location.sequence == stored.sequence())
        };
        match stored {
            StoredRecord::Message { message, .. } => {
                let topic = self.topics.get(&message.topic_id);
                topic.and_then(|topic| topic.runs.segment_of(message.offset)) == Some(number)
            }
            StoredRecord::TopicCreated { topic_id, .. } => self.topics.get(topic_id).is_some_and(|t| here(t.created)),
            StoredRecord::TopicUpdated { topic_id, .. } => self.topics.get(topic_id).is_some_and(|t| here(t.updated)),
            StoredRecord::Reservation { topic_id, offsets } => self.topics.get(topic_id).is_some_and(|topic| {
                here(topic.reservation) && (topic.reserved, topic.stored_last) == (offsets.reserved, offsets.last)
            }),
            StoredRecord::ConsumerPut { consumer, .. } => here(self.consumers.get(consumer.key).copied()),
            // Each segment's header has the newest sequence number, and whether an id is live depends on the time.
            StoredRecord::Id(_)
            | StoredRecord::TopicDeleted { .. }
            | StoredRecord::ConsumerDeleted { .. }
            | StoredRecord::Sequences { .. }
            | StoredRecord::CleanShutdown => false,
        }
    }

    /// Says that the topic's messages below `floor` are not needed any more. A floor never sinks.
    pub(super) fn trim(&mut self, topic_id: u64, floor: u64) {
        if self.topics.get(&topic_id).is_some_and(|topic| topic.is_keyed) {
            self.forget_below(topic_id, floor);
        } else {
            self.evict(topic_id, floor);
        }
    }

    /// Drops the topic's messages below `floor`.
    pub(super) fn evict(&mut self, topic_id: u64, floor: u64) {
        let Self { topics, segments, drained, live_bytes, window, next_aged, .. } = self;
        let active = segments.last_key_value().map(|(number, _)| *number);
        let Some(topic) = topics.get_mut(&topic_id) else { return };
        topic.floor = topic.floor.max(floor);
        while let Some(taken) = topic.runs.take_below(topic.floor) {
            // Evicted for its age or not, it is too old one day.
            if let Some(at) = aged_at(taken.oldest_at, topic.max_age)
                && let Some(segment) = segments.get_mut(&taken.segment)
            {
                segment.aged_at = segment.aged_at.min(at);
                *next_aged = at.min(*next_aged);
            }
            if let Some(until) = remove_live(segments, live_bytes, active, *window, &taken) {
                drained.insert((until, taken.segment));
            }
        }
    }

    /// Ends the reading of the log. Records that belong to no topic are dead.
    pub(super) fn finish_reading(&mut self) {
        self.reading = false;
        let orphans: Vec<u64> = self.topics.iter().filter(|(_, t)| t.created.is_none()).map(|(id, _)| *id).collect();
        for topic_id in orphans {
            self.remove_topic(topic_id);
        }
        // If a topic's newest message was trimmed before the log was closed, only the reservation may tell its
        // offset.
        for topic in self.topics.values_mut() {
            topic.last = topic.last.max(topic.stored_last);
        }
    }

    /// Returns the topic's offsets, or zeros for an unknown topic.
    pub(super) fn offsets(&self, topic_id: u64) -> OffsetState {
        let offsets = |topic: &TopicUsage| OffsetState {
            last: topic.last,
            reserved: topic.reserved,
            dense_from: topic.dense_from,
        };
        self.topics.get(&topic_id).map(offsets).unwrap_or_default()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.segments.contains_key(&number)
    }

    pub(super) fn live_records(&self, number: u64) -> u64 {
        self.segments.get(&number).map_or(0, |segment| segment.live_records)
    }

    pub(super) fn remove_segment(&mut self, number: u64) {
        if let Some(segment) = self.segments.remove(&number) {
            self.drained.remove(&(segment.ids_expire_at(self.window), number));
            self.bytes -= segment.bytes;
            self.live_bytes -= segment.live_bytes;
            self.id_bytes -= segment.id_bytes;
            self.find_next_aged();
        }
    }

    /// Returns all bytes, the live bytes, and the number of segments.
    pub(super) fn totals(&self) -> (u64, u64, usize) {
        (self.bytes, self.live_bytes, self.segments.len())
    }

    fn remove_topic(&mut self, topic_id: u64) {
        let Some(topic) = self.topics.remove(&topic_id) else { return };
        for location in [topic.created, topic.updated, topic.reservation].into_iter().flatten() {
            self.remove_live(&location.into());
        }
        for taken in topic.runs.take_all() {
            self.remove_live(&taken);
        }
        self.remove_key_marks(topic_id);
    }

    fn add_deletion(&mut self, number: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.deletions += 1;
        }
    }

    fn replace_location(&mut self, old: Option<RecordLocation>, new: RecordLocation) {
        self.add_live(new.segment, new.bytes);
        if let Some(old) = old {
            self.remove_live(&old.into());
        }
    }

    fn add_live(&mut self, number: u64, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.live_records += 1;
            segment.live_bytes += bytes;
            self.live_bytes += bytes;
        }
    }

    fn remove_live(&mut self, taken: &TakenRun) {
        let active = self.active_segment();
        if let Some(until) = remove_live(&mut self.segments, &mut self.live_bytes, active, self.window, taken) {
            self.drained.insert((until, taken.segment));
        }
    }

    fn check_drained(&mut self, number: u64) {
        if let Some(segment) = self.segments.get(&number)
            && segment.is_spent()
        {
            self.drained.insert((segment.ids_expire_at(self.window), number));
        }
    }
}

/// Returns the topic. While the log is being read, it creates the topic if its creation has not come yet.
fn topic(topics: &mut HashMap<u64, TopicUsage>, topic_id: u64, reading: bool) -> Option<&mut TopicUsage> {
    if reading { Some(topics.entry(topic_id).or_default()) } else { topics.get_mut(&topic_id) }
}

/// Removes live records and bytes from a segment. If the segment is drained now, returns when its ids expire. This is
/// a function of its own so that the caller can borrow a topic's runs meanwhile.
fn remove_live(
    segments: &mut BTreeMap<u64, SegmentUsage>,
    live_bytes: &mut u64,
    active: Option<u64>,
    window: i64,
    taken: &TakenRun,
) -> Option<i64> {
    let segment = segments.get_mut(&taken.segment)?;
    segment.live_records = segment.live_records.saturating_sub(taken.records);
    let bytes = taken.bytes.min(segment.live_bytes - segment.id_bytes);
    segment.live_bytes -= bytes;
    *live_bytes -= bytes;
    (segment.is_spent() && active != Some(taken.segment)).then(|| segment.ids_expire_at(window))
}
