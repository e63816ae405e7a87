//! Repair: cutting a damaged log at the damage because the operator asks for it.
//!
//! What stands before the damage does not change. What follows it, and all newer segments, are kept in files beside
//! the log. Offsets and sequence numbers jump so far that none that was ever shown is used again, not even one that
//! can no longer be read. While the repair is under way, the footprint says that the log is longer than it can be. If
//! the repair is interrupted, the next start refuses to open the log, and the next repair continues.

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

/// How far the offsets of each topic jump above the highest one that can still be read. It is more than the damaged
/// bytes can hold.
const OFFSET_JUMP: u64 = 1 << 32;

/// What a repair found, and what it did.
#[derive(Debug, Default)]
pub struct RepairReport {
    /// How many segments were read without damage.
    pub segments: usize,
    /// The bytes of a torn write at the end, which the next start cuts off.
    pub torn_bytes: u64,
    pub damage: Option<Damage>,
}

/// Where a log is damaged, and what follows the damage.
#[derive(Debug)]
pub struct Damage {
    pub file: String,
    pub at: u64,
    pub why: &'static str,
    /// The number of bytes from there on, in all segments.
    pub bytes: u64,
    /// The number of messages in them that can still be read.
    pub messages: u64,
    /// The files in which these bytes are kept, or none if nothing was cut.
    pub kept: Vec<String>,
    /// The number of topics that are left.
    pub topics: usize,
}

/// Looks for damage in the log in `directory`. If `cut` is set, cuts the log at the damage.
///
/// # Errors
/// Returns an error if there is no log, if another process uses it, if it has another version, or if it cannot be
/// read or written.
pub fn repair(directory: &Path, cut: bool) -> Result<RepairReport, OpenError> {
    let listing = OpenError::io(format!("reading {}", directory.display()));
    // This is checked before anything is created there, because the directory may belong to something else.
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
    let extent = KnownExtent::of(&footprint, &storage.boot());
    let mut repair = RepairReport::default();
    let mut reader = LogReader::new(&LogConfig { dedup_window: Duration::ZERO, ..LogConfig::default() });
    let mut found = None;
    for number in &numbers {
        let extent = (numbers.last() == Some(number)).then_some(&extent);
        match reader.segment(storage, *number, extent) {
            Ok((_, end)) => repair.torn_bytes = end.torn_bytes(),
            Err(OpenError::Damaged { at, why, .. }) => {
                found = Some((*number, at, why));
                break;
            }
            Err(error) => return Err(error),
        }
        repair.segments += 1;
    }
    let missing = extent.missing(numbers.last().copied()).map(|number| (number, 0, "the file is missing"));
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

/// What follows the damage.
#[derive(Default)]
struct LostRange {
    /// The bytes of the damaged segment from the damage on.
    tail: Vec<u8>,
    bytes: u64,
    messages: u64,
    /// The highest offset of each topic.
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
    /// The number of the newest segment.
    newest: u64,
}

impl RepairCut<'_> {
    /// Cuts the log and returns the names of the files that keep what was cut.
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

    /// Cuts the damaged segment, which is the tail from now on, and returns its file and length.
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

/// Returns the frames which say which offsets and sequence numbers are skipped, and that the log was closed cleanly.
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
