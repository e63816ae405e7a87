//! Reading the log back: what is in it, and where it ends.
//!
//! One pass, in log order. Nothing is known about a topic's bound before the end (its latest settings may be the last
//! record), so messages are dropped only then: while it lasts, recovery holds what the segments hold, which the
//! compaction rule bounds.

use std::io;

use bytes::Bytes;

use super::{
    Settings, aside,
    error::OpenError,
    files::{SEGMENT_HEADER, Scanner, SegmentFile, Storage, file_name},
    footprint::{Footprint, Known, is_whole},
    frame::seal,
    gather::{Created, End, Gathered, GatheredTopic, Held, Newest, newest, read_segment},
    identity, ids,
    ledger::{Ledger, now_ms},
    record::{Message, Offsets, Stored, encode_reservation, encode_sequences},
    store::{Tail, begin_segment},
};

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
    /// Offsets above this one were used one by one.
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

impl Held for RecoveredMessage {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn prev(&self) -> u64 {
        self.prev
    }
}

impl RecoveredMessage {
    fn copy(message: &Message<'_>, sequence: u64) -> Self {
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
const MAX_EVICTED: usize = 10_000;

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
    fn of(message: &RecoveredMessage) -> Self {
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
    pub(super) fn of(message: &Message<'_>, sequence: u64) -> Self {
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
pub const MAX_DELETIONS: usize = 10_000;

/// How far sequence numbers jump after an end that may have lost messages: more than a power cut can take.
pub(super) const SEQUENCE_JUMP: u64 = 1 << 32;

/// What the writer needs of what was read.
pub(super) struct Resume {
    pub ledger: Ledger,
    pub tail: Tail,
    /// Frames that say which offsets are skipped from now on: to be stored before anything else.
    pub skips: Vec<u8>,
    /// The next sequence number.
    pub sequence: u64,
}

/// A segment's file and its length in bytes.
type OpenSegment = (Box<dyn SegmentFile>, u64);

pub(super) struct Reader {
    pub ledger: Ledger,
    pub gathered: Gathered<RecoveredMessage>,
    ends_clean: bool,
    recovered: Recovered,
}

/// Reads all segments, cuts a torn tail off, and makes what was read durable.
///
/// # Errors
/// If a segment is damaged where no torn write explains it, has another version, or cannot be read.
pub(super) fn recover(
    storage: &dyn Storage,
    settings: &Settings,
    keep: &dyn Fn(&[u8]) -> usize,
) -> Result<(Recovered, Resume), OpenError> {
    let mut reader = Reader::new(settings);
    let mut numbers = storage.list().map_err(OpenError::io("listing the segments"))?;
    numbers.sort_unstable();
    let exists = !numbers.is_empty();
    let (identity, made) = identity::of(storage).map_err(OpenError::io("reading or writing the log's identity"))?;
    (reader.recovered.identity, reader.recovered.identity_lost) = (identity, made && exists);
    let footprint = storage.footprint().map_err(OpenError::io("reading the footprint"))?;
    let known = Known::of(&footprint, &storage.boot());
    let last = numbers.pop();
    if let Some(number) = known.missing(last) {
        return Err(OpenError::Damaged { file: file_name(number), at: 0, why: "the file is missing" });
    }
    for number in numbers {
        reader.segment(storage, number, None)?;
    }
    let (number, file, length) = match last {
        Some(number) => match reader.tail(storage, number, &known)? {
            Some((file, length)) => (number, file, length),
            None => first_record_goes_here(storage, number, reader.gathered.sequence)?,
        },
        None => first_record_goes_here(storage, 1, 0)?,
    };
    if reader.ledger.active() != Some(number) {
        reader.ledger.begin(number, SEGMENT_HEADER as u64);
    }
    if (known, number, length) == (Known::Nothing, 1, SEGMENT_HEADER as u64) {
        // From its first record on a log has a footprint, so that the lack of one says something.
        let first = Footprint { always: true, synced: true, segment: number, length }.write(&storage.boot());
        storage.write_footprint(first.as_bytes(), true).map_err(OpenError::io("writing the footprint"))?;
    }
    // A cut may have taken records behind the clean end.
    reader.recovered.clean = reader.ends_clean && reader.recovered.truncated_bytes == 0;
    reader.recovered.whole = is_whole(&footprint, &storage.boot(), (number, length), reader.recovered.clean);
    let (mut recovered, resume) = reader.finish(keep, (number, file, length));
    ids::bound(recovered.topics.iter_mut().map(|topic| &mut topic.ids), settings.dedup_bytes);
    Ok((recovered, resume))
}

fn first_record_goes_here(
    storage: &dyn Storage,
    number: u64,
    sequence: u64,
) -> Result<(u64, Box<dyn SegmentFile>, u64), OpenError> {
    let begun = begin_segment(storage, number, sequence).map_err(io::Error::from);
    let file = begun.map_err(OpenError::io(format!("creating {}", file_name(number))))?;
    Ok((number, file, SEGMENT_HEADER as u64))
}

impl Reader {
    pub(super) fn new(settings: &Settings) -> Self {
        let ids_since = now_ms().saturating_sub(settings.dedup_window_ms());
        Self {
            ledger: Ledger::new(settings),
            gathered: Gathered { ids_since, ..Gathered::default() },
            ends_clean: true,
            recovered: Recovered::default(),
        }
    }

    /// Reads one segment; of the last one, `known` says how far it was whole once. Returns its file and how it ends.
    pub(super) fn segment(
        &mut self,
        storage: &dyn Storage,
        number: u64,
        known: Option<&Known>,
    ) -> Result<(Box<dyn SegmentFile>, End), OpenError> {
        let reading = |error| OpenError::Io { doing: format!("reading {}", file_name(number)), error };
        let mut scanner = storage.open(number).and_then(Scanner::new).map_err(reading)?;
        self.ledger.begin(number, SEGMENT_HEADER as u64);
        let end = read_segment(&mut scanner, number, known, |stored, frame, _| {
            self.ledger.grow(number, frame.len() as u64);
            self.ledger.note(number, stored, frame.len() as u64);
            self.take(stored, frame);
        })?;
        self.recovered.reads += scanner.reads();
        self.recovered.truncated_bytes += end.torn_bytes();
        Ok((scanner.into_file(), end))
    }

    /// Reads the last segment, and cuts a torn end off. Returns its file and length, unless not even its header was
    /// written whole.
    fn tail(&mut self, storage: &dyn Storage, number: u64, known: &Known) -> Result<Option<OpenSegment>, OpenError> {
        let (mut file, end) = self.segment(storage, number, Some(known))?;
        let cutting = |error| OpenError::Io { doing: format!("cutting a torn end off {}", file_name(number)), error };
        let length = match end {
            End::Begun { .. } => return Ok(None),
            End::Whole { length } => length,
            End::Torn { length, torn } => {
                let kept = aside::keep_torn(storage, number, length, &torn);
                self.recovered.kept = Some(kept.map_err(|error| error.to_string()));
                file.truncate(length).map_err(cutting)?;
                length
            }
        };
        // After a mere kill, what was read may be in the page cache alone, and it is about to be shown to others.
        file.sync().map_err(OpenError::io(format!("syncing {}", file_name(number))))?;
        Ok(Some((file, length)))
    }

    fn take(&mut self, stored: &Stored<'_>, frame: &[u8]) {
        // An empty segment behind a clean end leaves it the end.
        self.ends_clean = matches!(stored, Stored::CleanShutdown) || (self.ends_clean && frame.is_empty());
        self.gathered.take(stored, RecoveredMessage::copy);
    }

    fn finish(
        mut self,
        keep: &dyn Fn(&[u8]) -> usize,
        (number, file, length): (u64, Box<dyn SegmentFile>, u64),
    ) -> (Recovered, Resume) {
        self.ledger.settle();
        let mut skips = Vec::new();
        let mut recovered = self.recovered;
        let Gathered { topics, consumers, sequence, highest_id, orphaned, mut deletions, .. } = self.gathered;
        recovered.highest_id = highest_id;
        recovered.orphaned_messages = orphaned;
        for (id, topic) in topics {
            let GatheredTopic { created, messages, ids, floor, .. } = topic.settled();
            let Some(Created { epoch, name, created_at_ms, implicit, settings }) = created else {
                recovered.orphaned_messages += messages.len() as u64;
                continue;
            };
            let Newest { kept: messages, evicted, detached } = newest(messages, floor, keep(&settings));
            let newest_evicted = evicted.len().saturating_sub(MAX_EVICTED);
            let evicted = evicted[newest_evicted..].iter().map(RecoveredEvicted::of).collect();
            recovered.detached_messages += detached as u64;
            let ids = ids::before(messages.first().map_or(u64::MAX, |first| first.offset), ids);
            let Offsets { last: last_offset, upto, since } = self.ledger.offsets(id);
            let used = last_offset.max(if recovered.whole { since } else { upto });
            let mut dense_from = since;
            if used > last_offset.max(since) {
                dense_from = used;
                let skipped = Offsets { last: last_offset, upto: used, since: used };
                encode_reservation(id, skipped, &mut skips);
            }
            let next_offset = used.saturating_add(1);
            self.ledger.trim(id, messages.first().map_or(last_offset.saturating_add(1), |message| message.offset));
            recovered.topics.push(RecoveredTopic {
                id,
                epoch,
                name,
                created_at_ms,
                implicit,
                settings,
                floor,
                messages,
                evicted,
                ids,
                last_offset,
                next_offset,
                dense_from,
            });
        }
        recovered.topics.sort_unstable_by_key(|topic| topic.id);
        recovered.consumers = consumers.into_values().filter_map(|(_, state)| state).collect();
        deletions.sort_unstable_by_key(|deletion| deletion.sequence);
        recovered.deletions = deletions.split_off(deletions.len().saturating_sub(MAX_DELETIONS));
        let mut sequence = sequence;
        if !recovered.whole {
            sequence = sequence.saturating_add(SEQUENCE_JUMP);
            encode_sequences(sequence, &mut skips);
        }
        seal(&mut skips);
        recovered.next_sequence = sequence.saturating_add(1);
        let tail = Tail { number, file, length, sequence, ends_clean: self.ends_clean };
        (recovered, Resume { ledger: self.ledger, tail, skips, sequence: sequence.saturating_add(1) })
    }
}
