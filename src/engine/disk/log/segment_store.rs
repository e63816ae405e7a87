//! The segments as the log's thread writes them: it appends whole frames, syncs, and begins and removes segments.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    Counters,
    error::LogError,
    files::{
        SEGMENT_HEADER_BYTES, SegmentFile, SegmentScanner, Storage, file_name, is_of_earlier_version, segment_header,
    },
    footprint::Footprint,
    frame::{FRAME_HEADER_BYTES, frames, mark_after_sync, write_checksums},
    ledger::Ledger,
    record::{StoredRecord, encode_clean_shutdown, encode_reservation},
};

/// The position at which appending continues.
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
    /// Whether a footprint was written since the log was opened.
    has_footprint: bool,
    /// Frames that say which offsets are skipped. Empty once they are stored.
    skips: Vec<u8>,
    number: u64,
    file: Box<dyn SegmentFile>,
    /// The length of the tail segment in bytes. It ends after a whole frame.
    length: u64,
    /// The highest sequence number that was appended.
    sequence: u64,
    /// Since when the tail has bytes that are not synced.
    unsynced_since: Option<Instant>,
    /// Whether nothing may be acknowledged before the next sync, under any policy. This is so after a reservation,
    /// and after the first record that follows a clean shutdown.
    sync_pending: bool,
    /// Whether the last record says that the log was closed.
    ends_clean: bool,
    /// Whether the tail segment is of an earlier version, so that nothing may be appended to it.
    is_earlier: bool,
    ledger: Arc<Mutex<Ledger>>,
    counters: Arc<Counters>,
}

impl SegmentStore {
    /// Continues at the recovered tail, which is synced.
    pub(super) fn new(
        storage: Box<dyn Storage>,
        segment_bytes: u64,
        always: bool,
        Tail { number, file, length, sequence, ends_clean }: Tail,
        skips: Vec<u8>,
        ledger: Arc<Mutex<Ledger>>,
        counters: Arc<Counters>,
    ) -> Self {
        let is_earlier = is_of_earlier_version(&*storage, number);
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
            is_earlier,
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

    /// From here on nothing may be acknowledged before what was appended last is synced.
    pub(super) fn require_sync(&mut self) {
        self.sync_pending = true;
    }

    /// Returns how many of the first bytes of `bytes`, which holds at least one frame, go into the tail segment.
    /// Begins a new segment if not even the first frame fits.
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

    /// Tests whether a batch of `bytes`, whose first frame has `first` bytes, would be accepted: writes as many bytes
    /// and rolls them back. If the process is killed meanwhile, they are a torn write at the end.
    ///
    /// # Errors
    /// `Full` or `Write` if the batch would be refused. `Failed` if what was written cannot be rolled back.
    pub(super) fn probe(&mut self, first: usize, bytes: usize) -> Result<(), LogError> {
        self.make_room_for(first as u64)?;
        // The filler is noise so that no file system can store it without allocating space for it. None of it is a
        // valid frame.
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
        rolled_back
            .map_err(|e| LogError::failed(&format!("rolling back a probe of {}", file_name(self.number)), &e))?;
        written.map_err(|error| refusal(&error))
    }

    /// Begins a new segment if the tail has no room for a frame of `first` bytes.
    fn make_room_for(&mut self, first: u64) -> Result<(), LogError> {
        let is_full = self.length > SEGMENT_HEADER_BYTES as u64 && self.length + first > self.segment_bytes;
        if is_full || self.is_earlier {
            self.rotate()?;
        }
        Ok(())
    }

    /// Appends frames, which have their checksums, to the tail segment.
    ///
    /// # Errors
    /// `Full` or `Write` if nothing was stored, not even in part. `Failed` if the outcome is unknown.
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

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    /// `Failed`. The kernel may have dropped the pages that it could not write and may report success for the next
    /// sync, so no later sync can be trusted.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        if self.unsynced_since.is_some() {
            self.counters.syncs.add(1);
            self.file.sync().map_err(|e| LogError::failed(&format!("syncing {}", file_name(self.number)), &e))?;
            self.mark_synced();
        }
        Ok(())
    }

    fn mark_synced(&mut self) {
        // If nothing was written since the last sync, the sync was skipped. A sync that was required before the first
        // byte is then still pending.
        if self.unsynced_since.take().is_some() {
            self.sync_pending = false;
        }
    }

    /// Appends the frames that say which offsets are skipped, if that is still to be done. Until then the old
    /// footprint stays in place, so a restart skips the same offsets again.
    ///
    /// # Errors
    /// As [`Self::append`].
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

    /// Writes the footprint of what is about to be acknowledged.
    ///
    /// # Errors
    /// `Failed`.
    pub(super) fn write_footprint(&mut self) -> Result<(), LogError> {
        let synced = self.unsynced_since.is_none();
        let footprint = Footprint { always: self.always, synced, segment: self.number, length: self.length };
        let text = footprint.write(&self.storage.boot());
        // The first footprint is synced, so a power cut leaves it or a later one, and the policy is known.
        let written = self.storage.write_footprint(text.as_bytes(), !self.has_footprint);
        self.has_footprint = true;
        written.map_err(|e| LogError::failed("writing the footprint", &e))
    }

    /// Opens a sealed segment for reading from its start.
    pub(super) fn scan(&self, number: u64) -> io::Result<SegmentScanner> {
        SegmentScanner::new(self.storage.open(number)?)
    }

    /// Removes a segment that has no live record.
    ///
    /// # Errors
    /// As [`Self::append`]. The segment is still there.
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
        // The records that made the segment dead (later messages, copies, a deletion) must be durable before the
        // segment is removed.
        self.sync()?;
        let doing = || format!("removing {}", file_name(number));
        self.storage.remove(number).map_err(|e| LogError::failed(&doing(), &e))?;
        // The directory is synced after each removal to keep the order: a deletion may be removed only after all
        // older segments are gone for good, or what it deleted would come back.
        self.storage.sync_directory().map_err(|e| LogError::failed(&doing(), &e))?;
        self.ledger.lock().remove_segment(number);
        Ok(())
    }

    /// Appends frames, which have their checksums, to as many segments as they need.
    pub(super) fn append_all(&mut self, mut bytes: &mut [u8]) -> Result<(), LogError> {
        while !bytes.is_empty() {
            let (piece, behind) = bytes.split_at_mut(self.make_room(bytes)?);
            self.append(piece)?;
            bytes = behind;
        }
        Ok(())
    }

    /// Syncs, and notes that the log was closed unless nothing was appended since the last time.
    pub(super) fn close(&mut self) -> Result<(), LogError> {
        if self.ends_clean {
            return Ok(());
        }
        self.append_skips()?;
        let mut frame = Vec::new();
        encode_clean_shutdown(&mut frame);
        write_checksums(&mut frame);
        // One sync is enough: if records before this one do not reach the disk, recovery cuts this one off with them.
        self.append_all(&mut frame)?;
        self.sync()?;
        self.ends_clean = true;
        // From here on the log is complete on the disk, so the next start treats anything that is missing as damage.
        let footprint = Footprint { always: self.always, synced: true, segment: self.number, length: self.length };
        let written = self.storage.write_footprint(footprint.write(&self.storage.boot()).as_bytes(), true);
        written.map_err(|e| LogError::failed("writing the footprint", &e))
    }

    /// Seals the tail segment and begins the next one. A sealed segment is synced under every policy, because only
    /// the last segment may end in the middle of a record.
    pub(super) fn rotate(&mut self) -> Result<(), LogError> {
        self.sync()?;
        let number = self.number + 1;
        match begin_segment(&*self.storage, number, self.sequence) {
            Ok(file) => {
                self.counters.syncs.add(1);
                self.file = file;
                self.number = number;
                self.is_earlier = false;
                self.length = SEGMENT_HEADER_BYTES as u64;
                self.ledger.lock().begin_segment(number, SEGMENT_HEADER_BYTES as u64);
                Ok(())
            }
            Err(BeginError::DuringSync(error)) => {
                Err(LogError::failed(&format!("syncing {}", file_name(number)), &error))
            }
            Err(BeginError::BeforeSync(error)) => {
                // An incomplete new segment would make the tail look sealed, so it must be removed before the tail
                // grows.
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

    /// Rolls the tail back to its length before a failed write.
    fn roll_back(&mut self, error: &io::Error) -> LogError {
        // The truncation is synced. Otherwise a power cut could bring back whole records whose publishers were told
        // that they are not stored.
        self.counters.syncs.add(1);
        let rolled_back = self.file.truncate(self.length).and_then(|()| self.file.sync());
        match rolled_back {
            Ok(()) => {
                self.mark_synced();
                refusal(error)
            }
            Err(second) => {
                let file = file_name(self.number);
                LogError::Failed(format!("writing {file}: {error}; rolling back: {second}").into())
            }
        }
    }
}

/// Returns the error for the callers of a failed write that was rolled back.
fn refusal(error: &io::Error) -> LogError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => LogError::Full,
        _ => LogError::Write(error.to_string().into()),
    }
}

/// The step at which a segment could not be created.
pub(super) enum BeginError {
    /// Before a sync. The file can be removed, and the log can continue.
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

/// Creates a segment. Its header and its name are durable before a record is in it, so an unreadable header means
/// damage, unless the file holds nothing more than a header.
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

/// Writes all of `bytes`, in as many writes as needed.
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
