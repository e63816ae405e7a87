//! The ledger: which bytes of which segment are still needed.
//!
//! The ledger does not list each record. A topic's messages come in offset order, so one *run* (consecutive offsets
//! in one segment) stands for many. The number of live records is always exact. When a run is trimmed in part, its
//! bytes are reduced in proportion; they are exact again when the run is gone.

mod aged;
mod ids;
mod space;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

pub(super) use ids::now_ms;

use super::{
    LogConfig,
    record::{MessageRecord, OffsetState, StoredRecord},
};

/// The location of the latest record of a topic's or consumer's state. Records with a lower `sequence` are dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RecordLocation {
    segment: u64,
    bytes: u64,
    sequence: u64,
}

/// The messages from `first` to `last`, without a gap, in one segment.
#[derive(Clone, Debug)]
struct OffsetRun {
    first: u64,
    last: u64,
    segment: u64,
    bytes: u64,
    /// The lowest time of publication.
    oldest_at: i64,
}

impl TopicUsage {
    /// Returns the run that contains this offset.
    fn run(&self, offset: u64) -> Option<&OffsetRun> {
        let at = self.runs.partition_point(|run| run.last < offset);
        self.runs.get(at).filter(|run| run.first <= offset)
    }
}

impl OffsetRun {
    fn records(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Removes the messages below `offset`, which is in the run but not its first offset. Returns the bytes they
    /// took.
    fn trim_front(&mut self, offset: u64) -> u64 {
        let share = u128::from(self.bytes) * u128::from(offset - self.first) / u128::from(self.records());
        let bytes = u64::try_from(share).unwrap_or(self.bytes);
        self.first = offset;
        self.bytes -= bytes;
        bytes
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
    /// The runs by offset. Their segments can be in any order, because compaction copies old messages to new
    /// segments.
    runs: VecDeque<OffsetRun>,
    /// How old its messages may become, in milliseconds; 0 means no limit.
    max_age: u64,
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
            aged_at: i64::MAX,
        }
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
    /// Sealed segments without a live record and without a deletion, by the time at which their last id expires.
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
                    self.remove_live(old.segment, 1, old.bytes);
                }
            }
            StoredRecord::Sequences { .. } | StoredRecord::CleanShutdown => {}
        }
        self.note_max_age(stored);
    }

    fn add_message(&mut self, number: u64, message: &MessageRecord<'_>, bytes: u64) {
        let MessageRecord { topic_id, offset, at_ms, .. } = *message;
        let Some(topic) = topic(&mut self.topics, topic_id, self.reading) else { return };
        if offset >= topic.last {
            (topic.last, topic.last_segment) = (offset, number);
        }
        if offset < topic.floor {
            return;
        }
        // The runs before index `at` end below the offset.
        let mut at = match topic.runs.back() {
            // Usually the offset is above the newest run.
            Some(run) if run.last < offset => topic.runs.len(),
            _ => topic.runs.partition_point(|run| run.last < offset),
        };
        let mut gone = None;
        if let Some(run) = topic.runs.get_mut(at)
            && run.first <= offset
        {
            // This record is a copy, so the older record of this message is dead from now on. Copies come in order,
            // so the message is usually the first of its run.
            let segment = run.segment;
            let mut taken = 0;
            let mut front = None;
            if run.first < offset {
                let mut before = run.clone();
                before.last = offset - 1;
                before.bytes = run.trim_front(offset);
                front = Some(before);
            }
            if run.last == offset {
                taken += run.bytes;
                topic.runs.remove(at);
            } else {
                taken += run.trim_front(offset + 1);
            }
            if let Some(before) = front {
                topic.runs.insert(at, before);
                at += 1;
            }
            gone = Some((segment, taken));
        }
        match at.checked_sub(1).and_then(|before| topic.runs.get_mut(before)) {
            Some(run) if run.segment == number && run.last.checked_add(1) == Some(offset) => {
                run.last = offset;
                run.bytes += bytes;
                run.oldest_at = run.oldest_at.min(at_ms);
            }
            _ => topic
                .runs
                .insert(at, OffsetRun { first: offset, last: offset, segment: number, bytes, oldest_at: at_ms }),
        }
        self.add_live(number, bytes);
        if let Some((segment, taken)) = gone {
            self.remove_live(segment, 1, taken);
        }
    }

    /// Returns whether the record, which was read from segment `number`, is the latest of its kind and still needed.
    pub(super) fn is_live(&self, number: u64, stored: &StoredRecord<'_>) -> bool {
        let here = |location: Option<RecordLocation>| {
            location.is_some_and(|location| location.segment == number && location.sequence == stored.sequence())
        };
        match stored {
            StoredRecord::Message { message, .. } => {
                let run = self.topics.get(&message.topic_id).and_then(|topic| topic.run(message.offset));
                run.is_some_and(|run| run.segment == number)
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
        let Self { topics, segments, drained, live_bytes, window, next_aged, .. } = self;
        let active = segments.last_key_value().map(|(number, _)| *number);
        let Some(topic) = topics.get_mut(&topic_id) else { return };
        topic.floor = topic.floor.max(floor);
        while let Some(run) = topic.runs.front_mut()
            && run.first < topic.floor
        {
            // Evicted for its age or not, it is too old one day.
            if let Some(at) = run.aged_at(topic.max_age)
                && let Some(segment) = segments.get_mut(&run.segment)
            {
                segment.aged_at = segment.aged_at.min(at);
                *next_aged = at.min(*next_aged);
            }
            let (number, records, bytes) = if run.last < topic.floor {
                let lost = (run.segment, run.records(), run.bytes);
                topic.runs.pop_front();
                lost
            } else {
                (run.segment, topic.floor - run.first, run.trim_front(topic.floor))
            };
            if let Some(until) = remove_live(segments, live_bytes, active, *window, (number, records, bytes)) {
                drained.insert((until, number));
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
            self.remove_live(location.segment, 1, location.bytes);
        }
        for run in &topic.runs {
            self.remove_live(run.segment, run.records(), run.bytes);
        }
    }

    fn add_deletion(&mut self, number: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.deletions += 1;
        }
    }

    fn replace_location(&mut self, old: Option<RecordLocation>, new: RecordLocation) {
        self.add_live(new.segment, new.bytes);
        if let Some(old) = old {
            self.remove_live(old.segment, 1, old.bytes);
        }
    }

    fn add_live(&mut self, number: u64, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.live_records += 1;
            segment.live_bytes += bytes;
            self.live_bytes += bytes;
        }
    }

    fn remove_live(&mut self, number: u64, records: u64, bytes: u64) {
        let active = self.active_segment();
        let lost = (number, records, bytes);
        if let Some(until) = remove_live(&mut self.segments, &mut self.live_bytes, active, self.window, lost) {
            self.drained.insert((until, number));
        }
    }

    fn check_drained(&mut self, number: u64) {
        if let Some(segment) = self.segments.get(&number)
            && segment.live_records == 0
            && segment.deletions == 0
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
    (number, records, bytes): (u64, u64, u64),
) -> Option<i64> {
    let segment = segments.get_mut(&number)?;
    segment.live_records = segment.live_records.saturating_sub(records);
    let bytes = bytes.min(segment.live_bytes - segment.id_bytes);
    segment.live_bytes -= bytes;
    *live_bytes -= bytes;
    let drained = segment.live_records == 0 && segment.deletions == 0 && active != Some(number);
    drained.then(|| segment.ids_expire_at(window))
}
