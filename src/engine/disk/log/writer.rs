//! The log's thread: it commits batches, syncs by policy, and compacts segments in between.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Counters, Fsync, LogConfig, Sink,
    error::LogError,
    files::{Scanned, SegmentHeader, SegmentScanner, file_name},
    frame::{self, FRAME_HEADER_BYTES, frames, write_checksums},
    ledger::{Ledger, now_ms},
    queue::{Batch, Queue, WakeReason},
    record::{FIELDS, OffsetState, StoredRecord, encode_hollow, encode_id, encode_key_mark, encode_reservation},
    segment_store::SegmentStore,
};

/// The least that one step of a compaction reads, in bytes. A batch waits for it for at most about a millisecond.
const COMPACTION_STEP_BYTES: usize = 256 << 10;

/// How many bytes a step of a compaction reads for each byte just committed. Compaction must be faster than the
/// callers, or the log would grow while it goes on.
const COMPACTION_STEP_RATIO: usize = 4;

/// The time between a refusal, or a failed probe, and the next probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// The least and the most bytes that a probe writes.
const PROBE_BYTES: (usize, usize) = (4 << 10, 1 << 20);

/// The time after which a compaction that found no room is tried again.
const COMPACTION_RETRY: Duration = Duration::from_secs(1);

pub(super) struct LogWriter<T> {
    fsync: Fsync,
    reserve_offsets: u64,
    queue: Arc<Queue<T>>,
    ledger: Arc<Mutex<Ledger>>,
    counters: Arc<Counters>,
    sink: Box<dyn Sink<T>>,
    store: SegmentStore,
    batch: Batch<T>,
    /// The compaction in progress: the segment, and the scanner that reads it.
    compaction: Option<(u64, SegmentScanner)>,
    /// Live records that are about to be copied to the tail.
    copies: Vec<u8>,
    /// The batch that was refused last, until one as large is accepted.
    refused: Option<RefusedBatch>,
    /// Compaction pauses until this time because the disk was full.
    compaction_paused_until: Option<Instant>,
    /// When the log was started, by the wall clock and by one that nobody sets.
    started: (i64, Instant),
}

impl<T> LogWriter<T> {
    pub(super) fn new(
        settings: &LogConfig,
        queue: Arc<Queue<T>>,
        ledger: Arc<Mutex<Ledger>>,
        counters: Arc<Counters>,
        sink: Box<dyn Sink<T>>,
        store: SegmentStore,
    ) -> Self {
        Self {
            fsync: settings.fsync,
            reserve_offsets: settings.reserve_offsets,
            queue,
            ledger,
            counters,
            sink,
            store,
            batch: Batch::new(),
            compaction: None,
            copies: Vec::new(),
            refused: None,
            compaction_paused_until: None,
            started: (now_ms(), Instant::now()),
        }
    }

    /// Returns the time in milliseconds since 1970, as if nobody had set the clock since the start: what is too old leaves
    /// the disk for good, and a clock that is wrong for a while must not do that.
    fn now_ms(&self) -> i64 {
        let (wall, started) = self.started;
        wall.saturating_add_unsigned(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Runs until the log is closed or fails.
    ///
    /// # Errors
    /// Returns the error if the log failed.
    pub(super) fn run(mut self) -> Result<(), LogError> {
        // This runs after a panic of the sink, too, so that nobody waits for ever.
        let _abandon = AbandonOnDrop(self.queue.clone());
        let result = self.run_until_closed().and_then(|()| self.store.close());
        if let Err(error) = &result {
            self.stop(error);
        }
        result
    }

    fn run_until_closed(&mut self) -> Result<(), LogError> {
        // Whether the last batch came from several publishers.
        let mut yield_first = false;
        loop {
            let busy = self.compaction_paused_until.is_none()
                && (self.compaction.is_some() || self.ledger.lock().has_work(self.now_ms()));
            let mut batch = std::mem::replace(&mut self.batch, Batch::new());
            let wake_reason = self.queue.take(&mut batch, self.deadline(), busy, yield_first);
            yield_first = batch.tokens.len() > 1;
            let committed = batch.frames.len();
            let result = if wake_reason == WakeReason::Batch { self.commit(&mut batch) } else { Ok(()) };
            batch.clear();
            self.batch = batch;
            result?;
            if wake_reason == WakeReason::Closing {
                return Ok(());
            }
            self.sync_if_interval_passed()?;
            self.probe()?;
            self.compact(COMPACTION_STEP_BYTES.max(committed.saturating_mul(COMPACTION_STEP_RATIO)))?;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let sync = match self.fsync {
            Fsync::Interval(interval) => self.store.unsynced_since().and_then(|since| since.checked_add(interval)),
            Fsync::Always | Fsync::Never => None,
        };
        let probe = self.refused.as_ref().map(|refused| refused.probe_at);
        let wakes_at = if self.compaction_paused_until.is_none() { self.ledger.lock().next_expiry() } else { None };
        let ids = wakes_at.and_then(|at| {
            // One millisecond more, so that the ids have expired by then.
            let left = at.saturating_sub(self.now_ms()).saturating_add(1);
            Instant::now().checked_add(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
        });
        [sync, self.compaction_paused_until, probe, ids].into_iter().flatten().min()
    }

    /// Tests whether the disk accepts records again. While records are refused perhaps nobody sends any, so the log
    /// must find out by itself.
    fn probe(&mut self) -> Result<(), LogError> {
        let Some(refused) = self.refused.as_mut().filter(|refused| Instant::now() >= refused.probe_at) else {
            return Ok(());
        };
        match self.store.probe(refused.first, refused.bytes) {
            Ok(()) => {
                self.refused = None;
                self.sink.writable();
                Ok(())
            }
            Err(LogError::Full | LogError::Write(_)) => {
                refused.probe_at = Instant::now() + PROBE_INTERVAL;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn sync_if_interval_passed(&mut self) -> Result<(), LogError> {
        if let (Fsync::Interval(interval), Some(since)) = (self.fsync, self.store.unsynced_since())
            && since.elapsed() >= interval
        {
            self.store.sync()?;
        }
        Ok(())
    }

    /// Writes a batch in one piece per segment, and tells the sink about each piece.
    ///
    /// # Errors
    /// `Failed`, after the sink was told about all tokens of the batch. After other errors, which refuse the rest of
    /// the batch and what was queued meanwhile, the log continues.
    fn commit(&mut self, batch: &mut Batch<T>) -> Result<(), LogError> {
        write_checksums(&mut batch.frames);
        let mut rest = &mut *batch.frames;
        while !rest.is_empty() {
            let outcome = self.commit_piece(rest);
            match outcome {
                Ok(bytes) => {
                    let (piece, behind) = rest.split_at_mut(bytes);
                    let records = frames(piece).count();
                    self.counters.records.add(records);
                    self.counters.batches.add(1);
                    if self.refused.as_ref().is_some_and(|refused| bytes >= refused.batch) {
                        self.refused = None;
                        self.sink.writable();
                    }
                    let records = records.min(batch.tokens.len());
                    self.sink.committed(Ok(()), batch.tokens.drain(..records));
                    rest = behind;
                }
                Err(CommitFailure { bytes, error: error @ LogError::Failed(_) }) => {
                    let unknown = frames(&rest[..bytes]).count().min(batch.tokens.len());
                    // New appends are refused before the sink is told, so that nobody builds on records that failed.
                    let mut behind = Batch::new();
                    self.queue.refuse(stopped(&error), &mut behind);
                    self.sink.committed(Err(error.clone()), batch.tokens.drain(..unknown));
                    self.sink.committed(Err(stopped(&error)), batch.tokens.drain(..));
                    self.sink.committed(Err(stopped(&error)), behind.tokens.drain(..));
                    return Err(error);
                }
                Err(CommitFailure { error, .. }) => {
                    self.refused = Some(RefusedBatch::now(rest));
                    let mut behind = Batch::new();
                    self.queue.refuse(error.clone(), &mut behind);
                    self.sink.committed(Err(error.clone()), batch.tokens.drain(..));
                    self.sink.committed(Err(error), behind.tokens.drain(..));
                    self.queue.accept();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes as much of `rest` as fits into one segment, syncs it if required, and returns how many bytes were
    /// committed.
    fn commit_piece(&mut self, rest: &mut [u8]) -> Result<usize, CommitFailure> {
        let failure = |bytes| move |error| CommitFailure { bytes, error };
        // If this fails, no byte of the piece was written.
        self.store.append_skips().map_err(failure(0))?;
        let bytes = self.store.make_room(rest).map_err(failure(0))?;
        let piece = &mut rest[..bytes];
        match self.with_reservations(piece) {
            None => self.store.append(piece).map_err(failure(bytes))?,
            // Reservations and records go into one write, so that both succeed or both are rolled back.
            Some(mut reserved) => {
                self.store.append(&mut reserved).map_err(failure(bytes))?;
                self.store.require_sync();
            }
        }
        if self.fsync == Fsync::Always || self.store.is_sync_pending() {
            self.store.sync().map_err(failure(bytes))?;
        }
        self.store.write_footprint().map_err(failure(bytes))?;
        Ok(bytes)
    }

    /// Returns the piece with the reservations that must be stored before its offsets may be shown to anybody, or
    /// `None` if it needs none. Each reservation stands before the first message that needs it, so no torn write
    /// keeps the message without the reservation. Under `Always` reservations only matter to a disk that loses what
    /// it has synced.
    fn with_reservations(&self, piece: &[u8]) -> Option<Vec<u8>> {
        let message = |frame: &[u8]| match StoredRecord::decode(frame.get(FRAME_HEADER_BYTES..)?) {
            Ok(StoredRecord::Message { message, .. }) => Some((message.topic_id, message.offset)),
            _ => None,
        };
        // The new reservation of each topic whose offsets pass the current one.
        let mut passing: BTreeMap<u64, OffsetState> = BTreeMap::new();
        {
            let ledger = self.ledger.lock();
            for (topic_id, offset) in frames(piece).filter_map(message) {
                let offsets = ledger.offsets(topic_id);
                if offset > offsets.reserved {
                    let reserved = offset.saturating_add(self.reserve_offsets);
                    passing.insert(topic_id, OffsetState { reserved, ..offsets });
                }
            }
        }
        if passing.is_empty() {
            return None;
        }
        let mut reserved = Vec::with_capacity(piece.len() + passing.len() * 2 * FIELDS);
        for frame in frames(piece) {
            if let Some((topic_id, _)) = message(frame)
                && let Some(offsets) = passing.remove(&topic_id)
            {
                let from = reserved.len();
                encode_reservation(topic_id, offsets, &mut reserved);
                write_checksums(&mut reserved[from..]);
            }
            reserved.extend_from_slice(frame);
        }
        Some(reserved)
    }

    /// Removes dead segments, and copies live records of at most `budget` bytes if a segment is to be compacted.
    fn compact(&mut self, budget: usize) -> Result<(), LogError> {
        if self.compaction_paused_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        self.compaction_paused_until = None;
        self.ledger.lock().expire_ids(self.now_ms());
        match self.remove_dead().and_then(|()| self.copy_live_records(budget)) {
            Err(LogError::Full | LogError::Write(_)) => {
                // Records that were copied are live at the tail now. The next compaction finds the originals dead.
                self.compaction = None;
                self.compaction_paused_until = Instant::now().checked_add(COMPACTION_RETRY);
                Ok(())
            }
            result => result,
        }
    }

    fn remove_dead(&mut self) -> Result<(), LogError> {
        loop {
            let Some(number) = self.ledger.lock().removable(self.now_ms()) else { return Ok(()) };
            self.store.remove_segment(number)?;
        }
    }

    fn copy_live_records(&mut self, budget: usize) -> Result<(), LogError> {
        let now = self.now_ms();
        let (crowded, under_way) = {
            let ledger = self.ledger.lock();
            (ledger.segment_to_compact(now), self.compaction.take().filter(|(number, _)| ledger.contains(*number)))
        };
        let (number, mut scanner) = match (under_way, crowded) {
            (Some(compaction), _) => compaction,
            (None, Some(number)) => {
                // What is copied must not be appended to what is read.
                if self.ledger.lock().active_segment() == Some(number) {
                    self.store.rotate()?;
                }
                (number, self.open_compaction(number)?)
            }
            (None, None) => return Ok(()),
        };
        let until = scanner.position().saturating_add(budget as u64);
        self.copies.clear();
        let done = loop {
            if scanner.position() >= until {
                break false;
            }
            let at = scanner.position();
            let frame =
                match scanner.next().map_err(|e| LogError::failed(&format!("reading {}", file_name(number)), &e))? {
                    Scanned::End => break true,
                    Scanned::Invalid { at, why } => return Err(damaged(number, at, why)),
                    Scanned::Frame(frame) => frame,
                };
            let stored =
                StoredRecord::decode(&frame[FRAME_HEADER_BYTES..]).map_err(|fault| damaged(number, at, fault.0))?;
            copy_if_needed(&mut self.ledger.lock(), number, &stored, frame, now, &mut self.copies);
        };
        self.store.append_all(&mut self.copies)?;
        if !done {
            self.compaction = Some((number, scanner));
            return Ok(());
        }
        // If the ledger is wrong, the segment stays. It is better to stop than to lose records that are still needed.
        match self.ledger.lock().live_records(number) {
            0 => {}
            left => {
                return Err(damaged(number, scanner.size(), &format!("{left} records that should be in it are not")));
            }
        }
        self.store.remove_segment(number)
    }

    fn open_compaction(&self, number: u64) -> Result<SegmentScanner, LogError> {
        let opened = self.store.scan(number).and_then(|mut scanner| Ok((scanner.header(number)?, scanner)));
        match opened {
            Ok((SegmentHeader::Valid { .. }, scanner)) => Ok(scanner),
            Ok(_) => Err(damaged(number, 0, "the header changed")),
            Err(error) => Err(LogError::failed(&format!("reading {}", file_name(number)), &error)),
        }
    }

    /// Stops after a failure outside of a batch: what is queued was not written.
    fn stop(&mut self, error: &LogError) {
        let mut behind = Batch::new();
        self.queue.refuse(stopped(error), &mut behind);
        self.sink.committed(Err(stopped(error)), behind.tokens.drain(..));
    }
}

/// Copies what is needed of a record in segment `number`, whose frame this is: all of it, what is left of a message whose own
/// time is over, a key mark, an id, or nothing.
fn copy_if_needed(
    ledger: &mut Ledger,
    number: u64,
    stored: &StoredRecord<'_>,
    frame: &[u8],
    now: i64,
    copies: &mut Vec<u8>,
) {
    let from = copies.len();
    if let StoredRecord::Message { message, sequence } = *stored
        && message.ends_at().is_some_and(|at| at <= now)
        && ledger.is_live(number, stored)
    {
        if ledger.is_compacted(message.topic_id, message.offset) {
            ledger.forget(message.topic_id, &[message.offset]);
        } else {
            encode_hollow(message, sequence, copies);
            return write_checksums(&mut copies[from..]);
        }
    }
    if ledger.is_live(number, stored) {
        return frame::copy_frame(frame, copies);
    }
    if let StoredRecord::Message { message, sequence } = *stored
        && ledger.is_needed_mark(number, &message)
    {
        encode_key_mark(message, sequence, copies);
    }
    if let Some(id) = ledger.live_id(number, stored, now) {
        encode_id(id, copies);
    }
    write_checksums(&mut copies[from..]);
}

/// A batch that was refused.
struct RefusedBatch {
    /// The size of its first frame.
    first: usize,
    /// The size of the whole batch.
    batch: usize,
    /// How many bytes a probe writes.
    bytes: usize,
    probe_at: Instant,
}

impl RefusedBatch {
    fn now(batch: &[u8]) -> Self {
        let first = frames(batch).next().map_or(0, <[u8]>::len);
        let bytes = batch.len().clamp(PROBE_BYTES.0, PROBE_BYTES.1);
        Self { first, batch: batch.len(), bytes, probe_at: Instant::now() + PROBE_INTERVAL }
    }
}

/// A piece that was not committed, and how many of its bytes may be on the disk if the log has failed.
struct CommitFailure {
    bytes: usize,
    error: LogError,
}

/// Returns the error for the records that follow a failed one.
fn stopped(error: &LogError) -> LogError {
    match error {
        LogError::Failed(reason) => LogError::Stopped(reason.clone()),
        other => LogError::Stopped(other.to_string().into()),
    }
}

/// A segment that was valid at the start is damaged now. The log stops, because the next start would refuse this
/// segment anyway, and because the disk should be examined before it loses more.
fn damaged(number: u64, at: u64, why: &str) -> LogError {
    LogError::Failed(format!("{} is damaged at byte {at}: {why}", file_name(number)).into())
}

struct AbandonOnDrop<T>(Arc<Queue<T>>);

impl<T> Drop for AbandonOnDrop<T> {
    fn drop(&mut self) {
        self.0.abandon("the log's thread ended");
    }
}
