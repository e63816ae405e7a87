//! The tail of the log: appending whole frames, syncing, beginning and removing segments. One thread uses it.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    Counters,
    error::LogError,
    files::{SEGMENT_HEADER_BYTES, SegmentFile, SegmentScanner, Storage, file_name, segment_header},
    footprint::Footprint,
    frame::{FRAME_HEADER_BYTES, frames, mark_after_sync, write_checksums},
    ledger::Ledger,
    record::{StoredRecord, encode_clean_shutdown, encode_reservation},
};

/// Where appending goes on.
pub(super) struct Tail {
    pub number: u64,
    pub file: Box<dyn SegmentFile>,
    pub length: u64,
    /// The highest sequence number that was used.
    pub sequence: u64,
    /// Whether the last record says that the log was closed.
    pub ends_clean: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the tail")]
pub(super) struct SegmentStore {
    storage: Box<dyn Storage>,
    segment_bytes: u64,
    /// Whether nothing is acknowledged before it is synced.
    always: bool,
    /// Whether a footprint was left since the log was opened.
    has_footprint: bool,
    /// Frames that say which offsets are skipped, as long as they are not stored.
    skips: Vec<u8>,
    number: u64,
    file: Box<dyn SegmentFile>,
    /// The tail segment's length in bytes: all whole frames.
    length: u64,
    /// The highest sequence number that was put.
    sequence: u64,
    /// Since when the tail has bytes that no sync covers.
    unsynced_since: Option<Instant>,
    /// Whether nothing may be acknowledged before a sync, whatever the policy: a reservation was written, or the record
    /// that a clean end is no longer the end.
    sync_pending: bool,
    /// Whether the last record says that the log was closed.
    ends_clean: bool,
    ledger: Arc<Mutex<Ledger>>,
    counters: Arc<Counters>,
}

impl SegmentStore {
    /// The store behind the tail that was recovered; all of it is synced.
    pub(super) fn new(
        storage: Box<dyn Storage>,
        segment_bytes: u64,
        always: bool,
        Tail { number, file, length, sequence, ends_clean }: Tail,
        skips: Vec<u8>,
        ledger: Arc<Mutex<Ledger>>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            storage,
            segment_bytes,
            always,
            has_footprint: false,
            skips,
            number,
            file,
            length,
            sequence,
            unsynced_since: None,
            sync_pending: true,
            ends_clean,
            ledger,
            counters,
        }
    }

    pub(super) fn unsynced_since(&self) -> Option<Instant> {
        self.unsynced_since
    }

    pub(super) fn is_sync_pending(&self) -> bool {
        self.sync_pending
    }

    /// From here on nothing may be acknowledged before a sync of what was put last.
    pub(super) fn require_sync(&mut self) {
        self.sync_pending = true;
    }

    /// How many of the first bytes of `frames` (one frame at least) go into the tail segment; begins a new one if not
    /// even the first fits.
    pub(super) fn make_room(&mut self, bytes: &[u8]) -> Result<usize, LogError> {
        let first = frames(bytes).next().map_or(0, <[u8]>::len) as u64;
        self.make_room_for(first)?;
        let room = self.segment_bytes.saturating_sub(self.length).max(first);
        if bytes.len() as u64 <= room {
            return Ok(bytes.len());
        }
        let mut end = 0;
        for frame in frames(bytes) {
            if (end + frame.len()) as u64 > room {
                break;
            }
            end += frame.len();
        }
        Ok(end)
    }

    /// Tries whether a batch of `bytes`, its first frame of `first` bytes, would be taken: writes as much, and takes it back.
    /// What a kill leaves of it is a torn end.
    ///
    /// # Errors
    /// `Full`, `Write`: it would not. `Failed`: what was written cannot be taken back.
    pub(super) fn probe(&mut self, first: usize, bytes: usize) -> Result<(), LogError> {
        self.make_room_for(first as u64)?;
        // No file system stores this without taking room for it, and none of it is a frame.
        let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
        let mut filler = Vec::with_capacity(bytes + 8);
        filler.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        while filler.len() < bytes {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            filler.extend_from_slice(&noise.to_le_bytes());
        }
        let written = write_all(&mut *self.file, &filler);
        let rolled_back = self.file.truncate(self.length);
        rolled_back.map_err(|e| LogError::failed(&format!("taking a probe of {} back", file_name(self.number)), &e))?;
        written.map_err(|error| refusal(&error))
    }

    /// Begins a new segment if the tail has no room for a frame of so many bytes.
    fn make_room_for(&mut self, first: u64) -> Result<(), LogError> {
        if self.length > SEGMENT_HEADER_BYTES as u64 && self.length + first > self.segment_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    /// Appends sealed frames to the tail segment.
    ///
    /// # Errors
    /// `Full`, `Write`: nothing was stored, not even in part. `Failed`: unknown.
    pub(super) fn append(&mut self, bytes: &mut [u8]) -> Result<(), LogError> {
        if self.unsynced_since.is_none() {
            mark_after_sync(bytes);
        }
        if let Err(error) = write_all(&mut *self.file, bytes) {
            return Err(self.roll_back(&error));
        }
        self.ends_clean = false;
        self.length += bytes.len() as u64;
        self.unsynced_since.get_or_insert_with(Instant::now);
        let mut ledger = self.ledger.lock();
        ledger.add_bytes(self.number, bytes.len() as u64);
        for frame in frames(bytes) {
            match StoredRecord::decode(&frame[FRAME_HEADER_BYTES..]) {
                Ok(stored) => {
                    self.sequence = self.sequence.max(stored.sequence());
                    ledger.add_record(self.number, &stored, frame.len() as u64);
                }
                Err(fault) => {
                    return Err(LogError::Failed(format!("wrote a record that cannot be read: {fault}").into()));
                }
            }
        }
        Ok(())
    }

    /// Makes all that was put durable.
    ///
    /// # Errors
    /// `Failed`. The kernel may have dropped the pages that it could not write and call the next sync a success: no
    /// later sync can be believed.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        if self.unsynced_since.is_some() {
            self.counters.syncs.add(1);
            self.file.sync().map_err(|e| LogError::failed(&format!("syncing {}", file_name(self.number)), &e))?;
            self.mark_synced();
        }
        Ok(())
    }

    fn mark_synced(&mut self) {
        // A debt made before the first byte is not paid by a sync of nothing.
        if self.unsynced_since.take().is_some() {
            self.sync_pending = false;
        }
    }

    /// Stores which offsets are skipped, if that is still to be done. Until then the old footprint stands, and a next
    /// start skips them, too.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(super) fn append_skips(&mut self) -> Result<(), LogError> {
        if !self.skips.is_empty() {
            let mut skips = std::mem::take(&mut self.skips);
            let put = self.append_all(&mut skips);
            if put.is_err() {
                self.skips = skips;
            }
            put?;
            self.require_sync();
        }
        Ok(())
    }

    /// Leaves the footprint of what is about to be shown to somebody.
    ///
    /// # Errors
    /// `Failed`.
    pub(super) fn write_footprint(&mut self) -> Result<(), LogError> {
        let synced = self.unsynced_since.is_none();
        let footprint = Footprint { always: self.always, synced, segment: self.number, length: self.length };
        let text = footprint.write(&self.storage.boot());
        // The first one is synced, so that a power cut leaves it or a later one, and with it the policy.
        let written = self.storage.write_footprint(text.as_bytes(), !self.has_footprint);
        self.has_footprint = true;
        written.map_err(|e| LogError::failed("writing the footprint", &e))
    }

    /// A sealed segment, read from its start.
    pub(super) fn scan(&self, number: u64) -> io::Result<SegmentScanner> {
        SegmentScanner::new(self.storage.open(number)?)
    }

    /// Removes a segment that has no live record.
    ///
    /// # Errors
    /// As [`Self::put`]; the segment is there still.
    pub(super) fn remove_segment(&mut self, number: u64) -> Result<(), LogError> {
        let marks = self.ledger.lock().offsets_ending_in(number);
        if !marks.is_empty() {
            let mut bytes = Vec::new();
            for (topic_id, offsets) in marks {
                encode_reservation(topic_id, offsets, &mut bytes);
            }
            write_checksums(&mut bytes);
            self.append_all(&mut bytes)?;
        }
        // What made the segment dead (later messages, copies, a deletion) must not be lost while the segment is.
        self.sync()?;
        let doing = || format!("removing {}", file_name(number));
        self.storage.remove(number).map_err(|e| LogError::failed(&doing(), &e))?;
        // One by one, in order: a deletion that outlived its segment's elders may go only when they are gone for good.
        self.storage.sync_directory().map_err(|e| LogError::failed(&doing(), &e))?;
        self.ledger.lock().remove_segment(number);
        Ok(())
    }

    /// Puts sealed frames into as many segments as they need.
    pub(super) fn append_all(&mut self, mut bytes: &mut [u8]) -> Result<(), LogError> {
        while !bytes.is_empty() {
            let (piece, behind) = bytes.split_at_mut(self.make_room(bytes)?);
            self.append(piece)?;
            bytes = behind;
        }
        Ok(())
    }

    /// Syncs, and notes that the log was closed unless nothing was put since the last time.
    pub(super) fn close(&mut self) -> Result<(), LogError> {
        if self.ends_clean {
            return Ok(());
        }
        self.append_skips()?;
        let mut frame = Vec::new();
        encode_clean_shutdown(&mut frame);
        write_checksums(&mut frame);
        // One sync for all: a record whose forerunners did not make it is cut off with them.
        self.append_all(&mut frame)?;
        self.sync()?;
        self.ends_clean = true;
        // From here on whatever is not there was taken by somebody.
        let footprint = Footprint { always: self.always, synced: true, segment: self.number, length: self.length };
        let written = self.storage.write_footprint(footprint.write(&self.storage.boot()).as_bytes(), true);
        written.map_err(|e| LogError::failed("writing the footprint", &e))
    }

    /// Seals the tail segment and begins the next. A sealed segment is synced under every policy: only the last one may
    /// end in the middle of a record.
    fn rotate(&mut self) -> Result<(), LogError> {
        self.sync()?;
        let number = self.number + 1;
        match begin_segment(&*self.storage, number, self.sequence) {
            Ok(file) => {
                self.counters.syncs.add(1);
                self.file = file;
                self.number = number;
                self.length = SEGMENT_HEADER_BYTES as u64;
                self.ledger.lock().begin_segment(number, SEGMENT_HEADER_BYTES as u64);
                Ok(())
            }
            Err(BeginError::DuringSync(error)) => {
                Err(LogError::failed(&format!("syncing {}", file_name(number)), &error))
            }
            Err(BeginError::BeforeSync(error)) => {
                // A file that is only begun makes the tail look sealed: it must be gone before the tail grows.
                let gone = match self.storage.remove(number) {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                    _ => self.storage.sync_directory(),
                };
                match gone {
                    Ok(()) => Err(refusal(&error)),
                    Err(error) => Err(LogError::failed(&format!("removing {}", file_name(number)), &error)),
                }
            }
        }
    }

    /// After a failed write: the tail ends again where it ended before.
    fn roll_back(&mut self, error: &io::Error) -> LogError {
        // Synced, or a power cut could bring back whole records that their publishers were told are not stored.
        self.counters.syncs.add(1);
        let undone = self.file.truncate(self.length).and_then(|()| self.file.sync());
        match undone {
            Ok(()) => {
                self.mark_synced();
                refusal(error)
            }
            Err(second) => {
                let file = file_name(self.number);
                LogError::Failed(format!("writing {file}: {error}; taking it back: {second}").into())
            }
        }
    }
}

/// What a failed write that left nothing behind means to the callers.
fn refusal(error: &io::Error) -> LogError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => LogError::Full,
        _ => LogError::Write(error.to_string().into()),
    }
}

/// Where the beginning of a segment failed.
pub(super) enum BeginError {
    /// Before a sync: the file may be removed and the matter forgotten.
    BeforeSync(io::Error),
    DuringSync(io::Error),
}

impl From<BeginError> for io::Error {
    fn from(begin: BeginError) -> Self {
        match begin {
            BeginError::BeforeSync(error) | BeginError::DuringSync(error) => error,
        }
    }
}

/// Creates a segment, durable with its header and its name before a record is in it: a header that cannot be read is a
/// fault, except in a file that has no more than that.
pub(super) fn begin_segment(
    storage: &dyn Storage,
    number: u64,
    sequence: u64,
) -> Result<Box<dyn SegmentFile>, BeginError> {
    let mut file = storage.create(number).map_err(BeginError::BeforeSync)?;
    write_all(&mut *file, &segment_header(number, sequence)).map_err(BeginError::BeforeSync)?;
    file.sync().map_err(BeginError::DuringSync)?;
    storage.sync_directory().map_err(BeginError::DuringSync)?;
    Ok(file)
}

/// Writes all of it, in as many writes as that takes.
pub(super) fn write_all(file: &mut dyn SegmentFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
