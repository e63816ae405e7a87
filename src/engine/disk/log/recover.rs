//! Reading the log at the start: what is in it, and where it ends.
//!
//! Recovery reads the log once, in log order. A topic's latest settings may be the last record, so its bound is not
//! known before the end, and messages are dropped only then. Until then recovery holds everything in the segments.
//! The compaction rule limits how much that is. Where a topic keeps the newest message of each key, its messages say so, and
//! recovery holds only these.

use std::{convert::Infallible, io};

use super::{
    LogConfig,
    compacted::{MessageBounds, SelectedMessages},
    contents::{Created, LogContents, TopicContents},
    cut_files,
    error::OpenError,
    files::{SEGMENT_HEADER_BYTES, SegmentFile, SegmentScanner, Storage, file_name},
    footprint::{Footprint, KnownExtent, is_complete},
    frame::write_checksums,
    identity, ids,
    ledger::{Ledger, now_ms},
    newest::NewestMessages,
    record::{OffsetState, StoredRecord, encode_reservation, encode_sequences},
    recovered::{MAX_DELETIONS, MAX_EVICTED, Recovered, RecoveredEvicted, RecoveredMessage, RecoveredTopic},
    segment_reader::{SegmentEnd, read_segment},
    segment_store::{Tail, begin_segment},
};

/// How far sequence numbers jump after an end that may have lost messages. It is more than a power cut can lose.
pub(super) const SEQUENCE_JUMP: u64 = 1 << 32;

/// What the writer needs to know about the log that was read.
pub(super) struct ResumeState {
    pub ledger: Ledger,
    pub tail: Tail,
    /// Frames that say which offsets are skipped from now on. They must be stored before anything else.
    pub skips: Vec<u8>,
    /// The next sequence number.
    pub sequence: u64,
}

/// A segment's file and its length in bytes.
type OpenSegment = (Box<dyn SegmentFile>, u64);

pub(super) struct LogReader {
    pub ledger: Ledger,
    pub contents: LogContents<RecoveredMessage>,
    ends_clean: bool,
    recovered: Recovered,
    is_keyed: fn(&[u8]) -> bool,
}

/// Reads all segments, cuts off a torn write at the end, and makes what was read durable.
///
/// # Errors
/// Returns an error if a segment is damaged and no torn write explains the damage, if it has another version, or if
/// it cannot be read.
pub(super) fn recover(
    storage: &dyn Storage,
    settings: &LogConfig,
    keep: &dyn Fn(&[u8]) -> usize,
) -> Result<(Recovered, ResumeState), OpenError> {
    let mut reader = LogReader::new(settings);
    let mut numbers = storage.list().map_err(OpenError::io("listing the segments"))?;
    numbers.sort_unstable();
    let exists = !numbers.is_empty();
    let (identity, made) =
        identity::load_or_create(storage).map_err(OpenError::io("reading or writing the log's identity"))?;
    (reader.recovered.identity, reader.recovered.identity_lost) = (identity, made && exists);
    let footprint = storage.footprint().map_err(OpenError::io("reading the footprint"))?;
    let extent = KnownExtent::of(&footprint, &storage.boot());
    let last = numbers.pop();
    if let Some(number) = extent.missing(last) {
        return Err(OpenError::Damaged { file: file_name(number), at: 0, why: "the file is missing" });
    }
    for number in numbers {
        reader.segment(storage, number, None)?;
    }
    let (number, file, length) = match last {
        Some(number) => match reader.tail(storage, number, &extent)? {
            Some((file, length)) => (number, file, length),
            None => begin_empty_segment(storage, number, reader.contents.sequence)?,
        },
        None => begin_empty_segment(storage, 1, 0)?,
    };
    if reader.ledger.active_segment() != Some(number) {
        reader.ledger.begin_segment(number, SEGMENT_HEADER_BYTES as u64);
    }
    if (extent, number, length) == (KnownExtent::NoFootprint, 1, SEGMENT_HEADER_BYTES as u64) {
        // A log has a footprint before its first record, so a missing footprint means that it was lost.
        let first = Footprint { always: true, synced: true, segment: number, length }.write(&storage.boot());
        storage.write_footprint(first.as_bytes(), true).map_err(OpenError::io("writing the footprint"))?;
    }
    // What was cut off may have held records that were written after the clean shutdown.
    reader.recovered.clean = reader.ends_clean && reader.recovered.truncated_bytes == 0;
    reader.recovered.whole = is_complete(&footprint, &storage.boot(), (number, length), reader.recovered.clean);
    let (mut recovered, resume) = reader.finish(keep, (number, file, length));
    ids::bound(recovered.topics.iter_mut().map(|topic| &mut topic.ids), settings.dedup_bytes);
    Ok((recovered, resume))
}

fn begin_empty_segment(
    storage: &dyn Storage,
    number: u64,
    sequence: u64,
) -> Result<(u64, Box<dyn SegmentFile>, u64), OpenError> {
    let begun = begin_segment(storage, number, sequence).map_err(io::Error::from);
    let file = begun.map_err(OpenError::io(format!("creating {}", file_name(number))))?;
    Ok((number, file, SEGMENT_HEADER_BYTES as u64))
}

impl LogReader {
    pub(super) fn new(settings: &LogConfig) -> Self {
        let ids_since = now_ms().saturating_sub(settings.dedup_window_ms());
        Self {
            ledger: Ledger::new(settings),
            contents: LogContents { ids_since, ..LogContents::default() },
            ends_clean: true,
            recovered: Recovered::default(),
            is_keyed: settings.is_keyed,
        }
    }

    /// Reads one segment. `extent` is given for the last one and says how far it is known to have been written.
    /// Returns the file and how it ends.
    pub(super) fn segment(
        &mut self,
        storage: &dyn Storage,
        number: u64,
        extent: Option<&KnownExtent>,
    ) -> Result<(Box<dyn SegmentFile>, SegmentEnd), OpenError> {
        let reading = |error| OpenError::Io { doing: format!("reading {}", file_name(number)), error };
        let mut scanner = storage.open(number).and_then(SegmentScanner::new).map_err(reading)?;
        self.ledger.begin_segment(number, SEGMENT_HEADER_BYTES as u64);
        let end = read_segment(&mut scanner, number, extent, |stored, frame, _| {
            self.ledger.add_bytes(number, frame.len() as u64);
            self.ledger.add_record(number, stored, frame.len() as u64);
            self.take(stored, frame);
        })?;
        self.recovered.reads += scanner.reads();
        self.recovered.truncated_bytes += end.torn_bytes();
        Ok((scanner.into_file(), end))
    }

    /// Reads the last segment and cuts off a torn write at its end. Returns its file and length, or `None` if not
    /// even its header is complete.
    fn tail(
        &mut self,
        storage: &dyn Storage,
        number: u64,
        extent: &KnownExtent,
    ) -> Result<Option<OpenSegment>, OpenError> {
        let (mut file, end) = self.segment(storage, number, Some(extent))?;
        let cutting = |error| OpenError::Io { doing: format!("cutting a torn write off {}", file_name(number)), error };
        let length = match end {
            SegmentEnd::IncompleteHeader { .. } => return Ok(None),
            SegmentEnd::Whole { length } => length,
            SegmentEnd::Torn { length, torn } => {
                let kept = cut_files::keep_torn_write(storage, number, length, &torn);
                self.recovered.kept = Some(kept.map_err(|error| error.to_string()));
                file.truncate(length).map_err(cutting)?;
                length
            }
        };
        // After a kill, what was read may only be in the page cache, and it is about to be shown to others.
        file.sync().map_err(OpenError::io(format!("syncing {}", file_name(number))))?;
        Ok(Some((file, length)))
    }

    fn take(&mut self, stored: &StoredRecord<'_>, frame: &[u8]) {
        // A new, empty segment after a clean shutdown does not change that the log ends cleanly.
        self.ends_clean = matches!(stored, StoredRecord::CleanShutdown) || (self.ends_clean && frame.is_empty());
        if let Some((topic_id, offset)) = self.contents.apply(stored, RecoveredMessage::copy) {
            self.ledger.replace(topic_id, &[offset]);
        }
    }

    fn finish(
        mut self,
        keep: &dyn Fn(&[u8]) -> usize,
        (number, file, length): (u64, Box<dyn SegmentFile>, u64),
    ) -> (Recovered, ResumeState) {
        self.ledger.finish_reading();
        let mut skips = Vec::new();
        let mut recovered = self.recovered;
        let LogContents { topics, consumers, sequence, highest_id, orphaned, mut deletions, .. } = self.contents;
        recovered.highest_id = highest_id;
        recovered.orphaned_messages = orphaned;
        for (id, topic) in topics {
            let TopicContents { created, messages, ids, floor, compacted_until, newest, .. } =
                topic.with_latest_settings();
            let Some(Created { epoch, name, created_at_ms, implicit, settings }) = created else {
                recovered.orphaned_messages += messages.len() as u64;
                continue;
            };
            let (keep, is_keyed) = (keep(&settings), (self.is_keyed)(&settings));
            let bounds = MessageBounds { floor, keep, is_keyed, compacted_until };
            let Ok(selected) =
                messages.select(bounds, RecoveredMessage::link, |message| Ok::<_, Infallible>(message.key.clone()));
            let SelectedMessages { messages, compacted_until, replaced } = selected;
            self.ledger.replace(id, &replaced);
            let NewestMessages { kept: mut messages, evicted, detached } = messages;
            // Where others are missing anyway, no message needs the place of a hollow one.
            let is_needed = |message: &RecoveredMessage| !message.is_hollow || message.offset > compacted_until;
            for hollow in messages.extract_if(.., |message| !is_needed(message)) {
                self.ledger.replace(id, &[hollow.offset]);
            }
            let newest_evicted = evicted.len().saturating_sub(MAX_EVICTED);
            let evicted = evicted[newest_evicted..].iter().map(RecoveredEvicted::of).collect();
            recovered.detached_messages += detached as u64;
            let kept: Vec<u64> = messages.iter().map(|message| message.offset).collect();
            let ids = ids::without_message(&kept, ids);
            let OffsetState { last: last_offset, reserved, mut dense_from } = self.ledger.offsets(id);
            let used = last_offset.max(if recovered.whole { dense_from } else { reserved });
            if used > last_offset.max(dense_from) {
                dense_from = used;
                let skipped = OffsetState { last: last_offset, reserved: used, dense_from: used };
                encode_reservation(id, skipped, &mut skips);
            }
            let next_offset = used.saturating_add(1);
            self.ledger.evict(id, messages.first().map_or(last_offset.saturating_add(1), |message| message.offset));
            recovered.topics.push(RecoveredTopic {
                id,
                epoch,
                name,
                created_at_ms,
                implicit,
                settings,
                floor,
                compacted_until,
                messages,
                evicted,
                ids,
                last_offset,
                last_sequence: if newest.0 == last_offset { newest.1 } else { sequence },
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
        write_checksums(&mut skips);
        recovered.next_sequence = sequence.saturating_add(1);
        let tail = Tail { number, file, length, sequence, ends_clean: self.ends_clean };
        (recovered, ResumeState { ledger: self.ledger, tail, skips, sequence: sequence.saturating_add(1) })
    }
}
