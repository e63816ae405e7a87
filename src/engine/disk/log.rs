//! The durable log: one sequence of records for all topics, stored in segment files of one directory.
//!
//! Callers push encoded records into a queue. One thread swaps the queue out, writes it with one write, syncs by
//! policy, and hands the callers' tokens to a [`Sink`] in log order. A busy log therefore commits many records with
//! one sync (measured: some 170 at 256 in flight), and an idle log commits a record at once.
//!
//! ```text
//! segment 7                            segment 8                            segment 9, the tail
//! +--------+-------+-------+- - -+     +--------+-------+-------+- - -+     +--------+-------+-------+- -
//! | header | frame | frame |           | header | frame | frame |           | header | frame | frame | <- append
//! +--------+-------+-------+- - -+     +--------+-------+-------+- - -+     +--------+-------+-------+- -
//! sealed: synced, never written again                                       may end with a torn write
//! header, 32 bytes    "psublog\n" | version u32 | segment u64 | last sequence before u64 | CRC-32 of these u32
//! frame               A | length, 31 bits | CRC-32 of the first 4 bytes and the payload u32 | payload
//! payload             kind u8 | fields of that kind
//! ```
//!
//! All numbers are little-endian. The flag A of a frame says that everything before it was synced before it was
//! written. Frames stand in the order in which their records were appended. Compaction copies live records to the
//! tail, so an older record can follow a newer one. Each record has a sequence number, which tells them apart.
//!
//! These rules hold after any crash, including a power cut:
//! - A record whose token was committed under [`Fsync::Always`] is there. Under the other policies a power cut loses
//!   at most a suffix of the log. A kill without a power cut loses nothing.
//! - A committed offset is always below [`RecoveredTopic::next_offset`]. A synced reservation runs ahead of the
//!   offsets, and when the end of the log may have lost some of them, the next offset is above the reservation.
//! - Nothing is skipped silently. A torn write at the end is cut off and counted. With any other damage the log
//!   refuses to open.
//!
//! Segments without a live record are removed. When the segments take more than 1.5 times the live bytes plus two
//! segments, the log is compacted: the live records of the oldest segment are copied to the tail, in steps between
//! batches, and the segment is removed. Meanwhile the log can grow by another quarter.
//!
//! Nothing that is too old stays for long: a segment that holds such messages is compacted an hour after the first of them
//! became too old, whatever space it takes. Of a message whose own time is over in the midst of a history, its place stays,
//! because others name it as their `prev`.
//!
//! Where a topic keeps the newest message of each key only, each message says that it replaces the older ones of its key, and
//! the caller says when it was committed ([`Log::replace`]), and which of the newest messages are not needed any more
//! ([`Log::forget`]): removals that are remembered no longer, and messages whose own time is over. Recovery finds the newest
//! record of each key, in whatever order the records stand. What replaced a record is never lost before it:
//! - A newer record of the key is on the disk before the segment of the older one is removed.
//! - What was forgotten leaves a *key mark*, its record or its key and offset, and that outlives all older segments. The older
//!   records of the key are in them.
//!
//! A publisher's id outlives its message. Before a segment is removed, the ids in it that are still within the
//! deduplication window are copied to the tail as records of their own. An import adds such records for ids whose
//! messages the log never had. The id records of a segment count as live until the newest of them has expired.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a thread of its own beside the runtime, for a disk that keeps real time"
)]

mod compacted;
mod contents;
mod cut_files;
mod error;
mod fields;
mod files;
mod footprint;
mod frame;
#[cfg(feature = "test-support")]
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

use files::{DiskStorage, Storage};
use frame::MAX_PAYLOAD;
use ledger::Ledger;
use queue::Queue;
use record::FIELDS;
use recover::ResumeState;
use segment_store::SegmentStore;
use writer::LogWriter;

/// When an append counts as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// After the sync. The record survives a power cut.
    Always,
    /// After the write. The record survives a kill. A power cut loses at most what was written within this time and
    /// the duration of a sync.
    Interval(Duration),
    /// After the write. The record survives a kill. The kernel decides when it goes to the disk, but a full segment
    /// is always synced.
    Never,
}

/// The configuration of a log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    pub fsync: Fsync,
    /// The size at which a segment ends, in bytes, at least 128. A larger record gets a segment to itself.
    pub segment_bytes: u64,
    /// The limit for the texts and byte strings of one record together, in bytes, at most 63 MiB.
    pub max_record_bytes: usize,
    /// The limit for what waits for the writer, in bytes, at least `max_record_bytes`. As much again can be on its
    /// way to the disk.
    pub queue_bytes: usize,
    /// How far a reservation runs ahead, in offsets of one topic, at least 1. This is the jump after an end that may
    /// have lost offsets, and the number of offsets that share one sync under the policies other than `Always`.
    pub reserve_offsets: u64,
    /// How long a publisher's id stays known after its message was published, even if the message itself is evicted
    /// earlier.
    pub dedup_window: Duration,
    /// The limit in bytes for ids without a message, in the log and in what is recovered. The oldest ids are dropped
    /// first.
    pub dedup_bytes: u64,
    /// Reads from a topic's settings how old its messages may become, in milliseconds; 0 means no limit.
    pub max_age_of: fn(&[u8]) -> Option<u64>,
    /// How old the messages of a topic may become whose settings say nothing about that.
    pub default_max_age_ms: u64,
    /// Reads from a topic's settings whether it keeps the newest message of each key only.
    pub is_keyed: fn(&[u8]) -> bool,
    /// How long messages that are too old may stay on the disk, before their segment is rewritten.
    pub keep_aged: Duration,
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
            max_age_of: |_| None,
            default_max_age_ms: 0,
            is_keyed: |_| false,
            keep_aged: Duration::from_hours(1),
        }
    }
}

impl LogConfig {
    fn dedup_window_ms(&self) -> i64 {
        i64::try_from(self.dedup_window.as_millis()).unwrap_or(i64::MAX)
    }

    fn keep_aged_ms(&self) -> i64 {
        i64::try_from(self.keep_aged.as_millis()).unwrap_or(i64::MAX)
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

/// Receives the tokens when the outcome of their records is known. The log's thread calls it and holds no lock.
/// Nothing is written while it runs, so it should be short. It must not append and wait for the outcome.
pub trait Sink<T>: Send {
    /// Receives the tokens of consecutive records, in log order, which all have the same outcome. Every accepted
    /// token comes exactly once, unless the sink panics, which ends the log.
    ///
    /// After an error that lets the log continue ([`LogError::Full`], [`LogError::Write`]), *all* appends accepted so
    /// far come before any later one is accepted, and until this call returns new ones are refused with the same
    /// error. So a caller leaves no gap if it rolls back its next offset and `prev` here, under the lock under which
    /// it appends.
    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, T>);

    /// Says that the log would accept records again after it refused some ([`LogError::Full`], [`LogError::Write`]):
    /// either as many bytes were committed, or a probe wrote as many and rolled them back.
    fn writable(&self) {}
}

/// The counters and sizes of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The sizes of all segments together.
    pub bytes: u64,
    /// How many of these bytes are still needed. Within a segment this is an estimate, see [`Log::trim`].
    pub live_bytes: u64,
    pub segments: usize,
    /// Syncs since the log was opened.
    pub syncs: u64,
    /// Records committed since the log was opened.
    pub records: u64,
    /// Writes that committed these records.
    pub batches: u64,
    /// Bytes that wait for the writer.
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
        // Each counter is read by itself, so no order between them is promised.
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A log that was read and is not started yet, because most sinks need what was recovered.
pub struct Ready {
    settings: LogConfig,
    store: SegmentStore,
    ledger: Arc<Mutex<Ledger>>,
    counters: Arc<Counters>,
    sequence: u64,
}

impl Ready {
    /// Same as [`Log::trim`], for recovered messages that are not needed.
    pub fn trim(&self, topic_id: u64, floor: u64) {
        self.ledger.lock().trim(topic_id, floor);
    }

    /// Same as [`Log::forget`], for recovered messages.
    pub fn forget(&self, topic_id: u64, offsets: &[u64]) {
        self.ledger.lock().forget(topic_id, offsets);
    }

    /// Starts the log's thread.
    ///
    /// # Errors
    /// Returns an error if the system cannot start a thread.
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

/// The log, open for appending. The caller gets a `T` back when the outcome of a record is known.
pub struct Log<T: Send + 'static> {
    queue: Arc<Queue<T>>,
    ledger: Arc<Mutex<Ledger>>,
    counters: Arc<Counters>,
    max_record_bytes: usize,
    thread: Mutex<Option<JoinHandle<Result<(), LogError>>>>,
}

impl<T: Send + 'static> Log<T> {
    /// Opens the log in `directory`, which is created if it is missing, and reads it. `keep` returns for a topic's
    /// settings how many of its newest messages to recover.
    ///
    /// # Errors
    /// See [`OpenError`]. A torn write at the end is not an error, it is cut off.
    pub fn open(
        directory: &Path,
        settings: LogConfig,
        keep: &dyn Fn(&[u8]) -> usize,
    ) -> Result<(Recovered, Ready), OpenError> {
        settings.check()?;
        open(Box::new(DiskStorage::open(directory)?), settings, keep)
    }

    /// Puts a record into the queue and returns its sequence number, which is higher than that of every record
    /// before. The sink gets the token when the outcome is known. Records are stored in the order of these calls, so
    /// a caller that numbers messages does so under the same lock as this call. The call copies the record and never
    /// waits for the disk.
    ///
    /// A topic's creation comes before its messages. A message after its topic's deletion is committed and ignored.
    ///
    /// # Errors
    /// Nothing was stored and the token is dropped. The error is `Busy`, `TooLarge`, `Invalid`, `Stopped` or
    /// `Closed`, or `Full` or `Write` while the sink is being told about refused appends.
    pub fn append(&self, record: &Record<'_>, token: T) -> Result<u64, LogError> {
        let bytes = record.content_bytes();
        if bytes > self.max_record_bytes {
            return Err(LogError::TooLarge { bytes, limit: self.max_record_bytes });
        }
        if let Some(fault) = record.invalid_reason() {
            return Err(LogError::Invalid(fault));
        }
        let with_history = match *record {
            Record::TopicUpdated { topic_id, implicit, floor, compacted_until, settings } => {
                // Each update stores again where the history begins, because only the latest one is kept.
                let compacted_until = compacted_until.max(self.ledger.lock().compacted_until(topic_id));
                Record::TopicUpdated { topic_id, implicit, floor, compacted_until, settings }
            }
            record => record,
        };
        self.queue.push(&with_history, bytes + FIELDS, token)
    }

    /// Says that the topic's messages below `floor` are not needed any more. A floor never sinks. The floor is not
    /// stored by this call but with the topic's next record, and that keeps the messages evicted after a restart. The
    /// call is cheap enough for every append. Where only some messages of a segment are freed, their bytes are
    /// estimated in proportion. Where the topic keeps the newest message of each key, this is the same as
    /// [`Log::forget`] for each message below the floor.
    pub fn trim(&self, topic_id: u64, floor: u64) {
        self.change(|ledger| ledger.trim(topic_id, floor));
    }

    /// Says that these messages of a topic that keeps the newest message of each key are not needed any more, because a newer
    /// one of the key of each is committed. Only the sink may call it, when it is told about the newer one: until then the
    /// older one may be copied, and no copy may stand behind the newer one. Recovery does the same by itself.
    pub fn replace(&self, topic_id: u64, offsets: &[u64]) {
        self.change(|ledger| ledger.replace(topic_id, offsets));
    }

    /// Says that these messages, each the newest of its key, are not needed any more. Recovery returns them as long as their
    /// records are in the log, so a caller must see from the record itself that it is not needed. In a history this does
    /// nothing, because their places are still needed there.
    pub fn forget(&self, topic_id: u64, offsets: &[u64]) {
        self.change(|ledger| ledger.forget(topic_id, offsets));
    }

    fn change(&self, change: impl FnOnce(&mut Ledger)) {
        let has_work = {
            let mut ledger = self.ledger.lock();
            let rewrite = ledger.next_rewrite();
            change(&mut ledger);
            ledger.next_rewrite() < rewrite || ledger.has_work(ledger::now_ms())
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

    /// Writes what is queued, syncs, notes that the log was closed cleanly, ends the thread, and waits for all of
    /// this. Dropping the log does the same but ignores an error. A second call does nothing.
    ///
    /// # Errors
    /// Returns an error if the log has failed before or fails now. The next start will then find that the log was not
    /// closed cleanly.
    pub fn close(&self) -> Result<(), LogError> {
        self.queue.close();
        // The lock is held while waiting, so a second caller does not return before the log is closed.
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
