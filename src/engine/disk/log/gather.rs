//! What the records of a log come to, read in log order: which topics and consumers there are, and their messages.
//!
//! Nothing is known about a topic's bound before the end (its latest settings may be the last record), so messages are
//! dropped only then. What is held of a message is the reader's choice.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{
    error::OpenError,
    files::{FORMAT, Header, Next, SEGMENT_HEADER, Scanner, file_name},
    footprint::Known,
    frame::{FRAME_HEADER, Survivors, is_behind_sync},
    record::{KeptId, Message, Offsets, Stored},
    recover::{RecoveredConsumer, RecoveredDeletion, RecoveredId},
};

/// Reads one segment: its records with their frames, and where in the file those begin. The header's sequence number comes
/// first, as a record of no bytes. Of the last segment, `known` says how far it was whole once: behind that, what no
/// record begins is taken for a write that a crash tore, unless something shows that the log went on there.
///
/// # Errors
/// If it is damaged where no torn write explains it, has another version, or cannot be read.
pub(super) fn read_segment(
    scanner: &mut Scanner,
    number: u64,
    known: Option<&Known>,
    mut take: impl FnMut(&Stored<'_>, &[u8], u64),
) -> Result<End, OpenError> {
    let file = file_name(number);
    let reading = |error| OpenError::Io { doing: format!("reading {file}"), error };
    let damaged = |at, why| OpenError::Damaged { file: file.clone(), at, why };
    match scanner.header(number).map_err(reading)? {
        Header::Valid { sequence } => take(&Stored::Sequences { upto: sequence }, &[], 0),
        // The header is synced before a record is written, so this file never had one.
        Header::Bad(_) | Header::OtherVersion { sound: false, .. }
            if scanner.size() <= SEGMENT_HEADER as u64 && known.is_some_and(|known| !known.covers(number, 0)) =>
        {
            return Ok(End::Begun { bytes: scanner.size() });
        }
        Header::OtherVersion { version, .. } => {
            return Err(OpenError::UnknownVersion { file, found: version, known: FORMAT });
        }
        Header::Bad(why) => return Err(damaged(0, why)),
    }
    loop {
        let at = scanner.position();
        match scanner.next().map_err(reading)? {
            Next::End if known.is_some_and(|known| known.covers(number, at)) => {
                return Err(damaged(at, "the file ends here, and was longer"));
            }
            Next::End => return Ok(End::Whole { length: at }),
            Next::Bad { at, why } => {
                let Some(known) = known.filter(|known| !known.covers(number, at)) else {
                    return Err(damaged(at, why));
                };
                let torn = scanner.rest().map_err(reading)?;
                if went_on(&torn, known) {
                    return Err(damaged(at, why));
                }
                return Ok(End::Torn { length: at, torn });
            }
            Next::Frame(frame) => {
                // Its checksum holds: this was written so, and cutting it off would lose what is sound.
                let stored = Stored::decode(&frame[FRAME_HEADER..]).map_err(|fault| damaged(at, fault.0))?;
                take(&stored, frame, at);
            }
        }
    }
}

/// Whether behind the place where no record begins there are records that show that this is no torn write. A power cut can
/// take one page of a write and leave the next, so that they are sound is not enough: there must be one that was written
/// when all before was synced, or nothing may be known of the power cut.
fn went_on(torn: &[u8], known: &Known) -> bool {
    let mut survivors = Survivors::of(torn.get(1..).unwrap_or_default());
    let found = match known {
        Known::Nothing => survivors.next().is_some(),
        Known::Upto { .. } | Known::Unsure => survivors.any(|(frame, _)| is_behind_sync(frame)),
    };
    found || survivors.gave_up()
}

/// How a segment ends.
pub(super) enum End {
    /// Behind a whole record.
    Whole { length: u64 },
    /// With a write that a crash tore, behind the whole records.
    Torn { length: u64, torn: Vec<u8> },
    /// In its header: it was only begun.
    Begun { bytes: u64 },
}

impl End {
    /// Bytes at the end that no whole record begins.
    pub fn torn_bytes(&self) -> u64 {
        match self {
            Self::Whole { .. } => 0,
            Self::Torn { torn, .. } => torn.len() as u64,
            Self::Begun { bytes } => *bytes,
        }
    }
}

/// What is held of a message.
pub(super) trait Held {
    fn offset(&self) -> u64;
    fn prev(&self) -> u64;
}

/// Everything that was read so far.
pub(super) struct Gathered<M> {
    pub topics: HashMap<u64, GatheredTopic<M>>,
    pub deleted: HashSet<u64>,
    /// `None`: deleted, by the record with this sequence number.
    pub consumers: HashMap<Box<[u8]>, (u64, Option<RecoveredConsumer>)>,
    /// The highest sequence number.
    pub sequence: u64,
    /// The highest id of a topic in any record, of those that were deleted, too.
    pub highest_id: u64,
    /// Messages of topics that were deleted before.
    pub orphaned: u64,
    /// In log order.
    pub deletions: Vec<RecoveredDeletion>,
    /// Publishers' ids are held if their messages are not older than this, in milliseconds since 1970.
    pub ids_since: i64,
}

/// One topic.
pub(super) struct GatheredTopic<M> {
    pub created: Option<Created>,
    /// With the sequence number that makes it the latest.
    updated: Option<(u64, bool, Bytes)>,
    /// The reservation that counts.
    pub offsets: Offsets,
    /// Messages up to here were evicted.
    pub floor: u64,
    /// In log order.
    pub messages: Vec<M>,
    /// Publishers' ids, of kept messages and of others, in log order.
    pub ids: Vec<RecoveredId>,
}

/// A topic's beginning.
#[expect(clippy::struct_field_names, reason = "the names are those of the record")]
pub(super) struct Created {
    pub epoch: u64,
    pub name: String,
    pub created_at_ms: i64,
    pub implicit: bool,
    pub settings: Bytes,
}

impl<M> Default for Gathered<M> {
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

impl<M> Default for GatheredTopic<M> {
    fn default() -> Self {
        Self {
            created: None,
            updated: None,
            offsets: Offsets::default(),
            floor: 0,
            messages: Vec::new(),
            ids: Vec::new(),
        }
    }
}

impl<M> GatheredTopic<M> {
    /// The topic with its latest settings in place of its first.
    pub fn settled(mut self) -> Self {
        if let (Some(created), Some((_, implicit, settings))) = (&mut self.created, self.updated.take()) {
            (created.implicit, created.settings) = (implicit, settings);
        }
        self
    }
}

impl<M> Gathered<M> {
    /// Takes the next record; `hold` makes of a message and its sequence number what is held of it.
    pub fn take(&mut self, stored: &Stored<'_>, hold: impl FnOnce(&Message<'_>, u64) -> M) {
        self.sequence = self.sequence.max(stored.sequence());
        if let Some(id) = stored.topic_id() {
            self.highest_id = self.highest_id.max(id);
        }
        match *stored {
            Stored::TopicCreated { topic_id, epoch, name, created_at_ms, implicit, settings, .. } => {
                let (name, settings) = (name.to_owned(), Bytes::copy_from_slice(settings));
                let created = Created { epoch, name, created_at_ms, implicit, settings };
                self.topics.entry(topic_id).or_default().created = Some(created);
            }
            Stored::TopicUpdated { topic_id, sequence, implicit, floor, settings } => {
                let topic = self.topics.entry(topic_id).or_default();
                topic.floor = topic.floor.max(floor);
                if topic.updated.as_ref().is_none_or(|(old, ..)| *old <= sequence) {
                    topic.updated = Some((sequence, implicit, Bytes::copy_from_slice(settings)));
                }
            }
            Stored::TopicDeleted { topic_id, sequence, epoch, name, newest_sequence } => {
                self.topics.remove(&topic_id);
                self.deleted.insert(topic_id);
                self.deletions.push(RecoveredDeletion { name: name.to_owned(), epoch, newest_sequence, sequence });
            }
            Stored::Message { ref message, sequence } => {
                if self.deleted.contains(&message.topic_id) {
                    self.orphaned += 1;
                } else {
                    let topic = self.topics.entry(message.topic_id).or_default();
                    topic.floor = topic.floor.max(message.floor);
                    if message.id_is_given && message.at_ms >= self.ids_since {
                        topic.ids.push(RecoveredId::of(message, sequence));
                    }
                    topic.messages.push(hold(message, sequence));
                }
            }
            Stored::ConsumerPut { consumer, sequence, blob } => {
                let (source, name) = (consumer.source.to_owned(), consumer.name.to_owned());
                let put = RecoveredConsumer { source, name, blob: Bytes::copy_from_slice(blob) };
                self.consumer(consumer.key, sequence, Some(put));
            }
            Stored::ConsumerDeleted { consumer, sequence } => self.consumer(consumer.key, sequence, None),
            Stored::Reservation { topic_id, offsets } => {
                // As the ledger chooses among them.
                let topic = self.topics.entry(topic_id).or_default();
                if (offsets.upto, offsets.last) >= (topic.offsets.upto, topic.offsets.last) {
                    topic.offsets = offsets;
                }
            }
            Stored::Id(KeptId { topic_id, offset, at_ms, sequence, id }) => {
                if at_ms >= self.ids_since && !self.deleted.contains(&topic_id) {
                    let id = RecoveredId { id: Bytes::copy_from_slice(id), offset, at_ms, sequence };
                    self.topics.entry(topic_id).or_default().ids.push(id);
                }
            }
            Stored::Sequences { .. } | Stored::CleanShutdown => {}
        }
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

/// The `keep` newest of a topic's messages above its floor, by offset, and how many of those were dropped because a hole is
/// behind them.
pub(super) fn newest<M: Held>(mut messages: Vec<M>, floor: u64, keep: usize) -> Newest<M> {
    // Compaction copies old messages behind newer ones, and a crash can leave both.
    if !messages.is_sorted_by(|a, b| a.offset() < b.offset()) {
        messages.sort_by_key(Held::offset);
        messages.dedup_by_key(|message| message.offset());
    }
    let kept = messages.partition_point(|message| message.offset() <= floor);
    let kept = kept.max(messages.len().saturating_sub(keep));
    let mut newest = messages.split_off(kept);
    // What was trimmed lingers until its segment goes, and segments go in any order.
    let whole = newest.windows(2).rposition(|pair| pair[1].prev() != pair[0].offset()).map_or(0, |before| before + 1);
    let detached = newest.drain(..whole).count();
    if detached > 0 {
        messages.clear();
    }
    // Of those before, the ones that the oldest kept message follows without a hole.
    let mut next = newest.first().map(Held::prev);
    let followed = messages.iter().rev().take_while(|message| {
        let follows = next.is_none_or(|next| next == message.offset());
        next = Some(message.prev());
        follows
    });
    messages.drain(..messages.len() - followed.count());
    newest.shrink_to_fit();
    Newest { kept: newest, evicted: messages, detached }
}

/// A topic's messages as they were found.
pub(super) struct Newest<M> {
    /// Those that count.
    pub kept: Vec<M>,
    /// Those right before, which were evicted and are still in the log.
    pub evicted: Vec<M>,
    /// How many were dropped because a hole is behind them.
    pub detached: usize,
}
