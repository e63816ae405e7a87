//! The durable log: one sequence of records for all topics, in segment files of one directory.
//!
//! Callers push encoded records into a queue; one thread swaps it out, writes it with one write, syncs by policy, and
//! hands the callers' tokens to a [`Sink`] in log order. So a busy log commits many records with one sync (measured:
//! some 170 at 256 in flight), and an idle one commits a record at once.
//!
//! What holds after any crash, power cut included:
//! - a record whose token was committed under [`Fsync::Always`] is there; under the other policies a power cut takes at
//!   most a suffix of the log, a mere kill nothing;
//! - an offset that was committed is always below [`RecoveredTopic::next_offset`]: a synced reservation runs ahead of the
//!   offsets, and after an end that may have lost some they go on behind it;
//! - nothing is skipped silently: a torn end is cut off and counted, any other damage refuses to open.
//!
//! Space: segments without a live record are removed. When the segments take more than 1.5 times the live bytes and two
//! segments on top, the oldest one's later are copied to the end and it is removed, a piece at a time between
//! batches. While that goes on the log can grow by a quarter more.
//!
//! A publisher's id outlives its message: before a segment goes, the ids in it that are still to be known are copied to the
//! end as records of their own. An import adds such records for ids whose messages the log never had. They count as live until the time of the newest one in their segment is over.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a thread of its own beside the runtime, for a disk that keeps real time"
)]

mod contents;
mod cut_files;
mod error;
mod files;
mod footprint;
mod frame;
#[cfg(fuzzing)]
pub mod fuzz;
mod identity;
mod ids;
mod ledger;
mod newest;
mod queue;
mod record;
mod recover;
mod recovered;
mod repair;
mod segment_reader;
mod segment_store;
mod snapshot;
#[cfg(test)]
#[expect(
    clippy::struct_excessive_bools,
    clippy::cast_possible_wrap,
    reason = "faults are many, and test offsets small"
)]
mod tests;
mod valid_frames;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
    vec::Drain,
};

use parking_lot::Mutex;

pub use error::{LogError, OpenError};
pub use record::{MessageRecord, Record};
pub use recovered::{Recovered, RecoveredId, RecoveredMessage, RecoveredTopic};
pub use repair::{Damage, repair};
pub use snapshot::{LogSnapshot, LogSnapshotTopic, MessageLocation};

// `disk.rs` and `restore.rs` still use these names.
pub use self::{LogConfig as Settings, MessageRecord as Message};

use files::{DiskStorage, Storage};
use frame::MAX_PAYLOAD;
use ledger::Ledger;
use queue::Queue;
use record::FIELDS;
use recover::ResumeState;
use segment_store::SegmentStore;
use writer::LogWriter;

/// When an append counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// After the sync: survives a power cut.
    Always,
    /// After the write: survives a kill. A power cut takes at most what was written within this time and the time that a
    /// sync takes.
    Interval(Duration),
    /// After the write: survives a kill. When the disk gets it is the kernel's affair, except that a full segment is
    /// synced always.
    Never,
}

/// How a log behaves.
#[derive(Clone, Debug)]
pub struct LogConfig {
    pub fsync: Fsync,
    /// Where a segment ends, in bytes; a larger record has a segment to itself. 128 or more.
    pub segment_bytes: u64,
    /// The texts and byte strings of one record together, in bytes; at most 63 MiB.
    pub max_record_bytes: usize,
    /// What may wait for the writer, in bytes; as much again may be on its way to the disk. At least
    /// `max_record_bytes`.
    pub queue_bytes: usize,
    /// How far a reservation runs ahead, in offsets of one topic: the jump after an end that may have lost some, and how
    /// many offsets cost one sync under the lax policies. 1 or more.
    pub reserve_offsets: u64,
    /// How long a publisher's id is to be known after its message was published, however long that is kept.
    pub dedup_window: Duration,
    /// How many bytes ids without a message may take, in the log and of what is recovered each. The oldest go first.
    pub dedup_bytes: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            fsync: Fsync::Always,
            segment_bytes: 32 << 20,
            max_record_bytes: 8 << 20,
            queue_bytes: 16 << 20,
            reserve_offsets: 10_000,
            dedup_window: Duration::from_secs(300),
            dedup_bytes: 64 << 20,
        }
    }
}

impl LogConfig {
    fn dedup_window_ms(&self) -> i64 {
        i64::try_from(self.dedup_window.as_millis()).unwrap_or(i64::MAX)
    }

    fn check(&self) -> Result<(), OpenError> {
        if self.segment_bytes < 128 {
            return Err(OpenError::Invalid("segment_bytes is below 128"));
        }
        if self.max_record_bytes > MAX_PAYLOAD - FIELDS {
            return Err(OpenError::Invalid("max_record_bytes is more than the format holds, 63 MiB"));
        }
        if self.queue_bytes < self.max_record_bytes {
            return Err(OpenError::Invalid("queue_bytes is below max_record_bytes"));
        }
        if self.reserve_offsets == 0 {
            return Err(OpenError::Invalid("reserve_offsets is 0"));
        }
        Ok(())
    }
}

/// Where tokens go when it is known whether their records are stored. Called by the log's thread, which holds no lock meanwhile; while
/// it runs nothing is written, so it should be short. It must not append and wait.
pub trait Sink<T>: Send {
    /// The tokens of neighbouring records, in log order, all with one outcome. Every accepted token comes exactly once
    /// (unless the sink panics, which ends the log).
    ///
    /// With an error that lets the log go on ([`LogError::Full`], [`LogError::Write`]), *all* appends accepted so far
    /// come before any later one is accepted, and until this call returns new ones are refused with the same error. So
    /// a caller that takes its next offset and `prev` back here, under the lock under which it appends, leaves no hole.
    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, T>);

    /// Records were refused ([`LogError::Full`], [`LogError::Write`]), but now they would be taken: as much was committed, or
    /// was written to try it out and taken back.
    fn writable(&self) {}
}

/// What a log does and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The segments' sizes together.
    pub bytes: u64,
    /// Of these, what is still needed; within a segment estimated, see [`Log::trim`].
    pub live_bytes: u64,
    pub segments: usize,
    /// Since it was opened.
    pub syncs: u64,
    /// Records committed since it was opened.
    pub records: u64,
    /// Writes with which they were committed.
    pub batches: u64,
    /// What waits for the writer.
    pub queued_bytes: usize,
}

#[derive(Debug, Default)]
struct Counters {
    syncs: Counter,
    records: Counter,
    batches: Counter,
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: usize) {
        // Each is read by itself: no order between them is promised.
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A log that was read and not yet started: the sink mostly needs what was recovered.
pub struct Ready {
    settings: LogConfig,
    store: SegmentStore,
    ledger: Arc<Mutex<Ledger>>,
    counters: Arc<Counters>,
    sequence: u64,
}

impl Ready {
    /// As [`Log::trim`], of what was recovered and is not needed.
    pub fn trim(&self, topic_id: u64, floor: u64) {
        self.ledger.lock().trim(topic_id, floor);
    }

    /// Starts the log's thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start<T: Send + 'static>(self, sink: Box<dyn Sink<T>>) -> Result<Log<T>, OpenError> {
        let Self { settings, store, ledger, counters, sequence } = self;
        let queue = Arc::new(Queue::new(settings.queue_bytes, sequence));
        let max_record_bytes = settings.max_record_bytes;
        let writer = LogWriter::new(&settings, queue.clone(), ledger.clone(), counters.clone(), sink, store);
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run());
        let thread = Mutex::new(Some(thread.map_err(OpenError::io("starting the log's thread"))?));
        Ok(Log { queue, ledger, counters, max_record_bytes, thread })
    }
}

/// The log, open for appending. `T` is what the caller wants back when it is known whether a record is stored.
pub struct Log<T: Send + 'static> {
    queue: Arc<Queue<T>>,
    ledger: Arc<Mutex<Ledger>>,
    counters: Arc<Counters>,
    max_record_bytes: usize,
    thread: Mutex<Option<JoinHandle<Result<(), LogError>>>>,
}

impl<T: Send + 'static> Log<T> {
    /// Opens the log in `directory`, creating it if there is none, and reads it. `keep` tells from a topic's settings
    /// how many of its newest messages are wanted back.
    ///
    /// # Errors
    /// See [`OpenError`]. A torn end is none: it is cut off.
    pub fn open(
        directory: &Path,
        settings: LogConfig,
        keep: &dyn Fn(&[u8]) -> usize,
    ) -> Result<(Recovered, Ready), OpenError> {
        settings.check()?;
        open(Box::new(DiskStorage::open(directory)?), settings, keep)
    }

    /// Puts a record into the queue and returns its sequence number, which is higher than that of every record before; the
    /// sink gets the token when it is known whether the record is stored. Records are stored in the order of these calls: whoever numbers
    /// messages does so under one lock with this call. It copies the record and never waits for the disk.
    ///
    /// A topic's creation comes before its messages; a message after its deletion is committed and dropped.
    ///
    /// # Errors
    /// Nothing was stored and the token is dropped: `Busy`, `TooLarge`, `Invalid`, `Stopped`, `Closed`, or, while
    /// refused appends are being told so, `Full` and `Write`.
    pub fn append(&self, record: &Record<'_>, token: T) -> Result<u64, LogError> {
        let bytes = record.content_bytes();
        if bytes > self.max_record_bytes {
            return Err(LogError::TooLarge { bytes, limit: self.max_record_bytes });
        }
        if let Some(fault) = record.invalid_reason() {
            return Err(LogError::Invalid(fault));
        }
        self.queue.push(record, bytes + FIELDS, token)
    }

    /// Says that the topic's messages below `floor` are not needed any more; a floor never sinks. It is not stored: what
    /// makes them stay away is the floor of the topic's next record. Cheap enough to be called with every append. The bytes
    /// that get free are counted in proportion where messages of one segment are freed in part.
    pub fn trim(&self, topic_id: u64, floor: u64) {
        let has_work = {
            let mut ledger = self.ledger.lock();
            ledger.trim(topic_id, floor);
            ledger.has_work(ledger::now_ms())
        };
        if has_work {
            self.queue.notify();
        }
    }

    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let (bytes, live_bytes, segments) = self.ledger.lock().totals();
        let Counters { syncs, records, batches } = &*self.counters;
        let (syncs, records, batches) = (syncs.get(), records.get(), batches.get());
        Metrics { bytes, live_bytes, segments, syncs, records, batches, queued_bytes: self.queue.bytes() }
    }

    /// Writes what is queued, syncs, notes that the end is clean, and ends the thread; waits for all that. Also when the
    /// log is dropped, but then an error goes unheard. A second call does nothing.
    ///
    /// # Errors
    /// If the log had failed or fails now: the next start will find an unclean end.
    pub fn close(&self) -> Result<(), LogError> {
        self.queue.close();
        // The lock is held while waiting, so that a second caller returns when the log is closed and not before.
        match self.thread.lock().take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(LogError::Stopped("the log's thread panicked".into())),
        }
    }
}

impl<T: Send + 'static> Drop for Log<T> {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

fn open(
    storage: Box<dyn Storage>,
    settings: LogConfig,
    keep: &dyn Fn(&[u8]) -> usize,
) -> Result<(Recovered, Ready), OpenError> {
    let (recovered, resume) = recover::recover(&*storage, &settings, keep)?;
    let ResumeState { ledger, tail, skips, sequence } = resume;
    let ledger = Arc::new(Mutex::new(ledger));
    let counters = Arc::new(Counters::default());
    let always = settings.fsync == Fsync::Always;
    let store =
        SegmentStore::new(storage, settings.segment_bytes, always, tail, skips, ledger.clone(), counters.clone());
    Ok((recovered, Ready { settings, store, ledger, counters, sequence }))
}
