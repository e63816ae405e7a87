//! Which bytes of which segment are still needed.
//!
//! No record is listed by itself: a topic's messages come in offset order, so a *run* (neighbouring offsets in one
//! segment) stands for many. The count of live records is exact always; the bytes of a run that is trimmed half are
//! taken in proportion, and are exact again when the run ends.

mod ids;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

pub(super) use ids::now_ms;

use super::{
    Settings,
    record::{Offsets, Stored},
};

/// Where a state's latest record is. Older ones, told by `sequence`, are dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    segment: u64,
    bytes: u64,
    sequence: u64,
}

/// Messages `first` to `last`, without a hole, in one segment.
#[derive(Clone, Debug)]
struct Run {
    first: u64,
    last: u64,
    segment: u64,
    bytes: u64,
}

impl Topic {
    /// The run that has this offset.
    fn run(&self, offset: u64) -> Option<&Run> {
        let at = self.runs.partition_point(|run| run.last < offset);
        self.runs.get(at).filter(|run| run.first <= offset)
    }
}

impl Run {
    fn records(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Takes away the messages below `offset`, which is in the run but not its first; tells the bytes they took.
    fn cut_front(&mut self, offset: u64) -> u64 {
        let share = u128::from(self.bytes) * u128::from(offset - self.first) / u128::from(self.records());
        let bytes = u64::try_from(share).unwrap_or(self.bytes);
        self.first = offset;
        self.bytes -= bytes;
        bytes
    }
}

#[derive(Debug, Default)]
struct Topic {
    /// Only while the log is being read can a topic be without one: a copied creation comes late.
    created: Option<Place>,
    updated: Option<Place>,
    reserved: Option<Place>,
    /// The reservation: offsets to here may have been seen by somebody.
    upto: u64,
    /// What the reservation says about `last`.
    marked: u64,
    /// Offsets above were used one by one.
    since: u64,
    /// Messages below are not needed.
    floor: u64,
    /// The highest offset ever, and the segment its message is (or was) in.
    last: u64,
    last_segment: u64,
    /// By offset. Segments may come in any order: survivors of compaction are old messages in young segments.
    runs: VecDeque<Run>,
}

#[derive(Debug)]
struct Segment {
    bytes: u64,
    /// Of these, the ids are a part.
    live_bytes: u64,
    /// Without ids.
    live_records: u64,
    /// What records of ids take, as long as they count.
    id_bytes: u64,
    /// The newest time of an id that has a record of its own here, and of one that came with a message.
    ids_at: i64,
    given_at: i64,
    /// Deletions in it. They must outlive every older segment, or what they deleted would come back.
    deletions: u64,
}

impl Segment {
    fn new(bytes: u64) -> Self {
        Self { bytes, live_bytes: 0, live_records: 0, id_bytes: 0, ids_at: i64::MIN, given_at: i64::MIN, deletions: 0 }
    }

    /// Until when an id in it is to be known.
    fn until(&self, window: i64) -> i64 {
        match self.ids_at.max(self.given_at) {
            i64::MIN => i64::MIN,
            at => at.saturating_add(window),
        }
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    segments: BTreeMap<u64, Segment>,
    topics: HashMap<u64, Topic>,
    consumers: HashMap<Box<[u8]>, Place>,
    bytes: u64,
    live_bytes: u64,
    /// Sealed segments without a live record and without a deletion, by when the last id in them is over.
    drained: BTreeSet<(i64, u64)>,
    segment_bytes: u64,
    /// How long an id is to be known, in milliseconds, and the most bytes that ids may take.
    window: i64,
    dedup_bytes: u64,
    /// What ids take.
    id_bytes: u64,
    /// Not before then is the time of a segment's ids over.
    ids_until: i64,
    /// While the log is being read, messages may come before the creation of their topic.
    reading: bool,
}

impl Ledger {
    pub(super) fn new(settings: &Settings) -> Self {
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
            ids_until: i64::MAX,
            reading: true,
        }
    }

    /// Begins a segment; the one before it is sealed.
    pub(super) fn begin(&mut self, number: u64, bytes: u64) {
        let sealed = self.active();
        self.segments.insert(number, Segment::new(bytes));
        self.bytes += bytes;
        if let Some(sealed) = sealed {
            self.check_drained(sealed);
        }
    }

    pub(super) fn active(&self) -> Option<u64> {
        self.segments.last_key_value().map(|(number, _)| *number)
    }

    /// The segment has `bytes` more.
    pub(super) fn grow(&mut self, number: u64, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Takes note of a record of `bytes` in the active segment `number`: a new one, or the copy of one.
    pub(super) fn note(&mut self, number: u64, stored: &Stored<'_>, bytes: u64) {
        let place = Place { segment: number, bytes, sequence: stored.sequence() };
        match stored {
            Stored::Message { message, .. } => {
                if message.id_is_given
                    && let Some(segment) = self.segments.get_mut(&number)
                {
                    segment.given_at = segment.given_at.max(message.at_ms);
                }
                self.note_message(number, message.topic_id, message.offset, bytes);
            }
            Stored::Id(id) => self.note_id(number, id.at_ms, bytes),
            Stored::TopicCreated { topic_id, .. } => {
                let topic = self.topics.entry(*topic_id).or_default();
                let old = topic.created.replace(place);
                self.replaced(old, place);
            }
            Stored::TopicUpdated { topic_id, .. } => {
                if let Some(topic) = topic(&mut self.topics, *topic_id, self.reading)
                    && topic.updated.is_none_or(|old| old.sequence <= place.sequence)
                {
                    let old = topic.updated.replace(place);
                    self.replaced(old, place);
                }
            }
            Stored::Reservation { topic_id, offsets: Offsets { last, upto, since } } => {
                if let Some(topic) = topic(&mut self.topics, *topic_id, self.reading)
                    && (*upto, *last) >= (topic.upto, topic.marked)
                {
                    (topic.upto, topic.marked, topic.since) = (*upto, *last, *since);
                    let old = topic.reserved.replace(place);
                    self.replaced(old, place);
                }
            }
            Stored::TopicDeleted { topic_id, .. } => {
                self.pin(number);
                self.forget_topic(*topic_id);
            }
            Stored::ConsumerPut { consumer, .. } => match self.consumers.get_mut(consumer.key) {
                Some(old) if old.sequence > place.sequence => {}
                Some(old) => {
                    let old = std::mem::replace(old, place);
                    self.replaced(Some(old), place);
                }
                None => {
                    self.consumers.insert(consumer.key.into(), place);
                    self.replaced(None, place);
                }
            },
            Stored::ConsumerDeleted { consumer, sequence } => {
                self.pin(number);
                if self.consumers.get(consumer.key).is_some_and(|old| old.sequence < *sequence)
                    && let Some(old) = self.consumers.remove(consumer.key)
                {
                    self.lose(old.segment, 1, old.bytes);
                }
            }
            Stored::Sequences { .. } | Stored::CleanShutdown => {}
        }
    }

    fn note_message(&mut self, number: u64, topic_id: u64, offset: u64, bytes: u64) {
        let Some(topic) = topic(&mut self.topics, topic_id, self.reading) else { return };
        if offset >= topic.last {
            (topic.last, topic.last_segment) = (offset, number);
        }
        if offset < topic.floor {
            return;
        }
        // The runs below `at` end before the offset.
        let mut at = match topic.runs.back() {
            // Mostly it is the newest.
            Some(run) if run.last < offset => topic.runs.len(),
            _ => topic.runs.partition_point(|run| run.last < offset),
        };
        let mut gone = None;
        if let Some(run) = topic.runs.get_mut(at)
            && run.first <= offset
        {
            // A copy: the older place of this message is dead from now on. Copies come in order, so mostly it is the
            // first message of its run.
            let segment = run.segment;
            let mut taken = 0;
            let mut front = None;
            if run.first < offset {
                let mut before = run.clone();
                before.last = offset - 1;
                before.bytes = run.cut_front(offset);
                front = Some(before);
            }
            if run.last == offset {
                taken += run.bytes;
                topic.runs.remove(at);
            } else {
                taken += run.cut_front(offset + 1);
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
            }
            _ => topic.runs.insert(at, Run { first: offset, last: offset, segment: number, bytes }),
        }
        self.gain(number, bytes);
        if let Some((segment, taken)) = gone {
            self.lose(segment, 1, taken);
        }
    }

    /// Whether the record, read from segment `number`, is the one that counts and is needed.
    pub(super) fn is_live(&self, number: u64, stored: &Stored<'_>) -> bool {
        let here = |place: Option<Place>| {
            place.is_some_and(|place| place.segment == number && place.sequence == stored.sequence())
        };
        match stored {
            Stored::Message { message, .. } => {
                let run = self.topics.get(&message.topic_id).and_then(|topic| topic.run(message.offset));
                run.is_some_and(|run| run.segment == number)
            }
            Stored::TopicCreated { topic_id, .. } => self.topics.get(topic_id).is_some_and(|t| here(t.created)),
            Stored::TopicUpdated { topic_id, .. } => self.topics.get(topic_id).is_some_and(|t| here(t.updated)),
            Stored::Reservation { topic_id, offsets } => self.topics.get(topic_id).is_some_and(|topic| {
                here(topic.reserved) && (topic.upto, topic.marked) == (offsets.upto, offsets.last)
            }),
            Stored::ConsumerPut { consumer, .. } => here(self.consumers.get(consumer.key).copied()),
            // Of sequence numbers each segment's header has the newest, and of ids it depends on the time.
            Stored::Id(_)
            | Stored::TopicDeleted { .. }
            | Stored::ConsumerDeleted { .. }
            | Stored::Sequences { .. }
            | Stored::CleanShutdown => false,
        }
    }

    /// Messages of the topic below `floor` are not needed any more; a floor never sinks.
    pub(super) fn trim(&mut self, topic_id: u64, floor: u64) {
        let Self { topics, segments, drained, live_bytes, window, .. } = self;
        let active = segments.last_key_value().map(|(number, _)| *number);
        let Some(topic) = topics.get_mut(&topic_id) else { return };
        topic.floor = topic.floor.max(floor);
        while let Some(run) = topic.runs.front_mut()
            && run.first < topic.floor
        {
            let (number, records, bytes) = if run.last < topic.floor {
                let lost = (run.segment, run.records(), run.bytes);
                topic.runs.pop_front();
                lost
            } else {
                (run.segment, topic.floor - run.first, run.cut_front(topic.floor))
            };
            if let Some(until) = lose(segments, live_bytes, active, *window, (number, records, bytes)) {
                drained.insert((until, number));
            }
        }
    }

    /// The reading is over: what belongs to no topic is dead.
    pub(super) fn settle(&mut self) {
        self.reading = false;
        let orphans: Vec<u64> = self.topics.iter().filter(|(_, t)| t.created.is_none()).map(|(id, _)| *id).collect();
        for topic_id in orphans {
            self.forget_topic(topic_id);
        }
        // A message that was trimmed before the log was closed may have left nothing but its mark.
        for topic in self.topics.values_mut() {
            topic.last = topic.last.max(topic.marked);
        }
    }

    /// The topic's offsets; zeros for an unknown one.
    pub(super) fn offsets(&self, topic_id: u64) -> Offsets {
        let offsets = |topic: &Topic| Offsets { last: topic.last, upto: topic.upto, since: topic.since };
        self.topics.get(&topic_id).map(offsets).unwrap_or_default()
    }

    /// A sealed segment that may be removed as it is.
    pub(super) fn removable(&self, now: i64) -> Option<u64> {
        self.drained.first().filter(|(until, _)| *until < now).map(|(_, number)| *number).or_else(|| {
            let (number, oldest) = self.segments.first_key_value()?;
            let over = oldest.live_records == 0 && oldest.until(self.window) < now;
            (over && self.segments.len() > 1).then_some(*number)
        })
    }

    /// The compaction rule: more than 1.5 times the live bytes, and two segments on top, so that a small log is let
    /// alone. Tells the segment whose survivors are to be copied: one where nothing but ids survives and these are few, or
    /// the oldest.
    pub(super) fn crowded(&self) -> Option<u64> {
        let crowded = self.bytes > self.live_bytes + self.live_bytes / 2 + 2 * self.segment_bytes;
        if !crowded || self.segments.len() < 2 {
            return None;
        }
        let ids = |number: &u64| self.segments.get(number).map(|segment| (segment.id_bytes, segment.bytes));
        let drained = self.drained.iter().filter_map(|(_, number)| Some((ids(number)?, *number)));
        let fewest = drained.filter(|((ids, bytes), _)| 2 * ids <= *bytes).min().map(|(_, number)| number);
        fewest.or_else(|| self.segments.first_key_value().map(|(number, _)| *number))
    }

    pub(super) fn has_work(&self, now: i64) -> bool {
        self.removable(now).is_some() || self.crowded().is_some()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.segments.contains_key(&number)
    }

    pub(super) fn live_records(&self, number: u64) -> u64 {
        self.segments.get(&number).map_or(0, |segment| segment.live_records)
    }

    /// The topics whose highest offset would be forgotten with segment `number`: the reservations that must be written
    /// before it may go.
    pub(super) fn marks(&self, number: u64) -> Vec<(u64, Offsets)> {
        let ends_here = |topic: &Topic| topic.last_segment == number && topic.marked < topic.last;
        let topics = self.topics.iter().filter(|(_, topic)| ends_here(topic));
        let mark = |t: &Topic| Offsets { last: t.last, upto: t.upto.max(t.last), since: t.since };
        topics.map(|(id, topic)| (*id, mark(topic))).collect()
    }

    pub(super) fn removed(&mut self, number: u64) {
        if let Some(segment) = self.segments.remove(&number) {
            self.drained.remove(&(segment.until(self.window), number));
            self.bytes -= segment.bytes;
            self.live_bytes -= segment.live_bytes;
            self.id_bytes -= segment.id_bytes;
        }
    }

    /// All bytes, live bytes, segments.
    pub(super) fn totals(&self) -> (u64, u64, usize) {
        (self.bytes, self.live_bytes, self.segments.len())
    }

    fn forget_topic(&mut self, topic_id: u64) {
        let Some(topic) = self.topics.remove(&topic_id) else { return };
        for place in [topic.created, topic.updated, topic.reserved].into_iter().flatten() {
            self.lose(place.segment, 1, place.bytes);
        }
        for run in &topic.runs {
            self.lose(run.segment, run.records(), run.bytes);
        }
    }

    fn pin(&mut self, number: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.deletions += 1;
        }
    }

    fn replaced(&mut self, old: Option<Place>, new: Place) {
        self.gain(new.segment, new.bytes);
        if let Some(old) = old {
            self.lose(old.segment, 1, old.bytes);
        }
    }

    fn gain(&mut self, number: u64, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.live_records += 1;
            segment.live_bytes += bytes;
            self.live_bytes += bytes;
        }
    }

    fn lose(&mut self, number: u64, records: u64, bytes: u64) {
        let active = self.active();
        let lost = (number, records, bytes);
        if let Some(until) = lose(&mut self.segments, &mut self.live_bytes, active, self.window, lost) {
            self.drained.insert((until, number));
        }
    }

    fn check_drained(&mut self, number: u64) {
        if let Some(segment) = self.segments.get(&number)
            && segment.live_records == 0
            && segment.deletions == 0
        {
            self.drained.insert((segment.until(self.window), number));
        }
    }
}

/// The topic; while the log is being read, also one whose creation did not come yet.
fn topic(topics: &mut HashMap<u64, Topic>, topic_id: u64, reading: bool) -> Option<&mut Topic> {
    if reading { Some(topics.entry(topic_id).or_default()) } else { topics.get_mut(&topic_id) }
}

/// Takes records and bytes out of a segment; tells until when its ids are to be known if it is drained now. Apart from the
/// ledger, so that a topic's runs can be borrowed meanwhile.
fn lose(
    segments: &mut BTreeMap<u64, Segment>,
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
    drained.then(|| segment.until(window))
}
