//! RepairCut a damaged log at the damage, because somebody asks for it.
//!
//! What is before the damage stays as it is; what is behind it, and all younger segments, are kept beside the log. OffsetState
//! and sequence numbers jump so far that none that was ever shown is given again, not even one that nobody can read any
//! more. While the cut is under way the footprint says that the log is longer than it can be: should it be interrupted, the
//! next start refuses, and the next repair goes on.

use std::{collections::HashMap, fs, io, path::Path, time::Duration};

use super::{
    LogConfig, cut_files,
    error::OpenError,
    files::{
        DiskStorage, FOOTPRINT, SEGMENT_HEADER_BYTES, SegmentFile, SegmentHeader, SegmentScanner, Storage, file_name,
        number_of, read_header,
    },
    footprint::{Footprint, KnownExtent},
    frame::write_checksums,
    record::{OffsetState, StoredRecord, encode_clean_shutdown, encode_reservation, encode_sequences},
    recover::{LogReader, SEQUENCE_JUMP},
    segment_store::{begin_segment, write_all},
    valid_frames::ValidFrames,
};

/// How far the offsets of each topic jump behind the highest one that can still be read: more than damaged bytes can hold.
const OFFSET_JUMP: u64 = 1 << 32;

/// What a repair found, and what it did about it.
#[derive(Debug, Default)]
pub struct RepairReport {
    /// Segments that were read, and the bytes of those that are whole.
    pub segments: usize,
    /// Bytes at the end that a crash tore: the next start cuts them off.
    pub torn_bytes: u64,
    pub damage: Option<Damage>,
}

/// Where a log is damaged, and what is behind that.
#[derive(Debug)]
pub struct Damage {
    pub file: String,
    pub at: u64,
    pub why: &'static str,
    /// Bytes from there on, in all segments.
    pub bytes: u64,
    /// Messages in them that can still be read.
    pub messages: u64,
    /// The files in which they are kept; none if nothing was cut.
    pub kept: Vec<String>,
    /// The topics that are left.
    pub topics: usize,
}

/// Looks for damage in the log in `directory`, and with `cut` cuts the log there.
///
/// # Errors
/// If there is no log, if another process has it, if it is of another version, or if it cannot be read or written.
pub fn repair(directory: &Path, cut: bool) -> Result<RepairReport, OpenError> {
    let listing = OpenError::io(format!("reading {}", directory.display()));
    // Before anything is made there: it may be a directory of something else.
    let mut names = fs::read_dir(directory).map_err(listing)?.flatten().map(|entry| entry.file_name());
    if !names.any(|name| name.to_str().is_some_and(|name| name == FOOTPRINT || number_of(name).is_some())) {
        return Err(OpenError::Invalid("there is no log in this directory"));
    }
    repair_on(&DiskStorage::open(directory)?, cut)
}

pub(super) fn repair_on(storage: &dyn Storage, cut: bool) -> Result<RepairReport, OpenError> {
    let mut numbers = storage.list().map_err(OpenError::io("listing the segments"))?;
    numbers.sort_unstable();
    let footprint = storage.footprint().map_err(OpenError::io("reading the footprint"))?;
    let known = KnownExtent::of(&footprint, &storage.boot());
    let mut repair = RepairReport::default();
    let mut reader = LogReader::new(&LogConfig { dedup_window: Duration::ZERO, ..LogConfig::default() });
    let mut found = None;
    for number in &numbers {
        let known = (numbers.last() == Some(number)).then_some(&known);
        match reader.segment(storage, *number, known) {
            Ok((_, end)) => repair.torn_bytes = end.torn_bytes(),
            Err(OpenError::Damaged { at, why, .. }) => {
                found = Some((*number, at, why));
                break;
            }
            Err(error) => return Err(error),
        }
        repair.segments += 1;
    }
    let missing = known.missing(numbers.last().copied()).map(|number| (number, 0, "the file is missing"));
    let Some((number, at, why)) = found.or(missing) else { return Ok(repair) };
    let lost = LostRange::read(storage, &numbers, number, at).map_err(OpenError::io("reading what is damaged"))?;
    let mut damage = Damage {
        file: file_name(number),
        at,
        why,
        bytes: lost.bytes,
        messages: lost.messages,
        kept: Vec::new(),
        topics: reader.contents.topics.values().filter(|topic| topic.created.is_some()).count(),
    };
    if cut {
        let newest = number.max(numbers.last().copied().unwrap_or(0));
        let cutting = RepairCut { storage, number, at, newest };
        damage.kept = cutting.cut(reader, &numbers, &lost).map_err(OpenError::io("cutting the log"))?;
    }
    repair.damage = Some(damage);
    Ok(repair)
}

/// What is behind the damage.
#[derive(Default)]
struct LostRange {
    /// Of the damaged segment.
    tail: Vec<u8>,
    bytes: u64,
    messages: u64,
    /// By topic, the highest offset.
    offsets: HashMap<u64, u64>,
    sequence: u64,
}

impl LostRange {
    fn read(storage: &dyn Storage, numbers: &[u64], number: u64, at: u64) -> io::Result<Self> {
        let mut lost = Self::default();
        for later in numbers.iter().filter(|later| **later >= number) {
            let mut bytes = SegmentScanner::new(storage.open(*later)?)?.rest()?;
            let from = if *later == number { usize::try_from(at).unwrap_or(usize::MAX) } else { 0 };
            if from == 0
                && let SegmentHeader::Valid { sequence } = read_header(&bytes, *later)
            {
                lost.sequence = lost.sequence.max(sequence);
            }
            bytes.drain(..from.min(bytes.len()));
            lost.bytes += bytes.len() as u64;
            for (_, stored) in ValidFrames::of(&bytes) {
                lost.take(&stored);
            }
            if *later == number {
                lost.tail = bytes;
            }
        }
        Ok(lost)
    }

    fn take(&mut self, stored: &StoredRecord<'_>) {
        self.sequence = self.sequence.max(stored.sequence());
        let (topic, offset) = match stored {
            StoredRecord::Message { message, .. } => {
                self.messages += 1;
                (message.topic_id, message.offset)
            }
            StoredRecord::Reservation { topic_id, offsets } => (*topic_id, offsets.reserved),
            _ => return,
        };
        let highest = self.offsets.entry(topic).or_default();
        *highest = offset.max(*highest);
    }
}

struct RepairCut<'a> {
    storage: &'a dyn Storage,
    number: u64,
    at: u64,
    /// The newest segment.
    newest: u64,
}

impl RepairCut<'_> {
    /// Cuts, and tells the names of what was kept.
    fn cut(&self, reader: LogReader, numbers: &[u64], lost: &LostRange) -> io::Result<Vec<String>> {
        let Self { storage, number, newest, .. } = *self;
        self.write_footprint(newest, u64::MAX)?;
        let mut kept = Vec::new();
        let sequence = reader.contents.sequence.max(lost.sequence).saturating_add(SEQUENCE_JUMP);
        let (mut file, mut length) = self.tail(&mut kept, numbers, &lost.tail, sequence)?;
        let mut frames = skip_frames(reader, lost, sequence);
        write_checksums(&mut frames);
        write_all(&mut *file, &frames)?;
        file.sync()?;
        length += frames.len() as u64;
        for later in numbers.iter().filter(|later| **later > number) {
            let name = cut_files::file_name(*later, 0, true);
            storage.move_to_cut_file(*later, &name)?;
            kept.push(name);
        }
        storage.sync_directory()?;
        self.write_footprint(number, length)?;
        Ok(kept)
    }

    /// The segment where the log ends from now on, cut there.
    fn tail(
        &self,
        kept: &mut Vec<String>,
        numbers: &[u64],
        torn: &[u8],
        sequence: u64,
    ) -> io::Result<(Box<dyn SegmentFile>, u64)> {
        let Self { storage, number, at, .. } = *self;
        let name = cut_files::file_name(number, at, true);
        if at >= SEGMENT_HEADER_BYTES as u64 {
            if !torn.is_empty() {
                storage.write_cut_file(&name, torn)?;
                kept.push(name);
            }
            let mut file = storage.open(number)?;
            file.truncate(at)?;
            return Ok((file, at));
        }
        if numbers.contains(&number) {
            storage.move_to_cut_file(number, &name)?;
            kept.push(name);
        }
        let file = begin_segment(storage, number, sequence).map_err(io::Error::from)?;
        Ok((file, SEGMENT_HEADER_BYTES as u64))
    }

    fn write_footprint(&self, segment: u64, length: u64) -> io::Result<()> {
        let footprint = Footprint { always: true, synced: true, segment, length };
        self.storage.write_footprint(footprint.write(&self.storage.boot()).as_bytes(), true)
    }
}

/// What says which offsets and sequence numbers are skipped, and that the log ends there in good order.
fn skip_frames(mut reader: LogReader, lost: &LostRange, sequence: u64) -> Vec<u8> {
    reader.ledger.finish_reading();
    let mut frames = Vec::new();
    encode_sequences(sequence, &mut frames);
    for (id, _) in reader.contents.topics.iter().filter(|(_, topic)| topic.created.is_some()) {
        let OffsetState { last, reserved, dense_from } = reader.ledger.offsets(*id);
        let shown = last.max(reserved).max(dense_from).max(lost.offsets.get(id).copied().unwrap_or(0));
        let used = shown.saturating_add(OFFSET_JUMP);
        encode_reservation(*id, OffsetState { last, reserved: used, dense_from: used }, &mut frames);
    }
    encode_clean_shutdown(&mut frames);
    frames
}
