//! Tests of the log on a simulated disk that fails on request, and on the real one.

mod ages;
mod damage;
mod faults;
mod ids;
mod keys;
mod keys_kept;
mod order;
mod power;
mod repair;
mod sequences;
mod simulated_disk;
mod space;
mod speed;

use std::{
    sync::Arc,
    time::{Duration, Instant},
    vec::Drain,
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{recovered::RecoveredConsumer, *};
use simulated_disk::SimulatedDisk;

/// The longest wait. On a loaded machine most waits are far shorter.
const DEADLINE: Duration = Duration::from_secs(30);

/// A sink that records the outcomes.
struct RecordingSink<T> {
    outcomes: Mutex<Vec<(T, Option<LogError>)>>,
    more: Condvar,
}

impl<T> RecordingSink<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self { outcomes: Mutex::new(Vec::new()), more: Condvar::new() })
    }

    /// Waits until `count` outcomes are known.
    fn wait(&self, count: usize) {
        let deadline = Instant::now() + DEADLINE;
        let mut outcomes = self.outcomes.lock();
        while outcomes.len() < count {
            assert!(
                !self.more.wait_until(&mut outcomes, deadline).timed_out(),
                "{} of {count} outcomes",
                outcomes.len()
            );
        }
    }

    fn count(&self) -> usize {
        self.outcomes.lock().len()
    }
}

impl<T: Send> Sink<T> for Arc<RecordingSink<T>> {
    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, T>) {
        let mut outcomes = self.outcomes.lock();
        outcomes.extend(tokens.map(|token| (token, outcome.clone().err())));
        self.more.notify_all();
    }
}

/// A sink that waits while the gate is locked.
struct GatedSink(Arc<Mutex<()>>, Arc<RecordingSink<u64>>);

impl Sink<u64> for GatedSink {
    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, u64>) {
        drop(self.0.lock());
        self.1.committed(outcome, tokens);
    }
}

/// Waits until `holds` returns true. No condition variable exists for values that are only counted.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

fn settings(fsync: Fsync, segment_bytes: u64) -> LogConfig {
    LogConfig { fsync, segment_bytes, reserve_offsets: 10, ..LogConfig::default() }
}

/// A test's topic has its bound as its settings, in one byte.
fn keep(settings: &[u8]) -> usize {
    settings.first().map_or(usize::MAX, |bound| usize::from(*bound))
}

fn reopen(simulated: &SimulatedDisk, settings: &LogConfig) -> Result<(Recovered, Ready), OpenError> {
    open(Box::new(simulated.clone()), settings.clone(), &keep)
}

fn start<T: Send + 'static>(
    simulated: &SimulatedDisk,
    settings: &LogConfig,
) -> (Log<T>, Arc<RecordingSink<T>>, Recovered) {
    let (recovered, ready) = reopen(simulated, settings).expect("opens");
    let acks = RecordingSink::new();
    (ready.start(Box::new(acks.clone())).expect("starts"), acks, recovered)
}

fn created(topic_id: u64, bound: &[u8]) -> Record<'_> {
    Record::TopicCreated {
        topic_id,
        epoch: !topic_id,
        name: "töpic",
        created_at_ms: -5,
        implicit: true,
        settings: bound,
    }
}

fn deleted(topic_id: u64) -> Record<'static> {
    Record::TopicDeleted { topic_id, epoch: !topic_id, name: "töpic", newest_sequence: topic_id + 1 }
}

fn message(topic_id: u64, offset: u64, data: &[u8]) -> Record<'_> {
    message_after(topic_id, offset - 1, offset, data)
}

fn message_after(topic_id: u64, prev: u64, offset: u64, data: &[u8]) -> Record<'_> {
    let key = offset.is_multiple_of(2).then_some(&b"k"[..]);
    let id_is_given = offset.is_multiple_of(3);
    let headers = offset.is_multiple_of(3).then_some(&b"{}"[..]);
    let at_ms = offset as i64;
    Record::Message(MessageRecord {
        topic_id,
        offset,
        prev,
        prev_sequence: 0,
        floor: 0,
        at_ms,
        id: b"id",
        id_is_given,
        key,
        data,
        headers,
        ttl_ms: 0,
        is_hollow: false,
        is_removal: false,
        replaces_older: false,
    })
}

/// Returns the offsets of each topic's messages.
fn offsets(recovered: &Recovered) -> Vec<(u64, Vec<u64>)> {
    recovered.topics.iter().map(|t| (t.id, t.messages.iter().map(|m| m.offset).collect())).collect()
}

#[test]
fn recovery_returns_everything_that_was_stored() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1 << 20);
    let (log, acks, recovered) = start(&simulated, &settings);
    assert!(recovered.clean && recovered.topics.is_empty());
    let records = [
        created(7, &[2]),
        created(8, &[9]),
        message(7, 1, b"one"),
        message(8, 1, b""),
        message(7, 2, b"two"),
        message(7, 3, &[0; 300]),
        Record::TopicUpdated { topic_id: 8, implicit: false, floor: 0, compacted_until: 0, settings: &[8, 1] },
        Record::ConsumerPut { source: "a", name: "x", blob: b"1" },
        Record::ConsumerPut { source: "a", name: "x", blob: b"2" },
        Record::ConsumerPut { source: "a", name: "y", blob: b"" },
        Record::ConsumerDeleted { source: "a", name: "y" },
        created(9, &[]),
        message(9, 1, b"gone"),
        deleted(9),
        message(9, 2, b"too late"),
    ];
    for (token, record) in records.iter().enumerate() {
        log.append(record, token).expect("appended");
    }
    acks.wait(records.len());
    assert!(acks.outcomes.lock().iter().enumerate().all(|(at, (token, error))| at == *token && error.is_none()));
    log.close().expect("closes");
    assert!(matches!(log.append(&records[0], 0), Err(LogError::Closed)));
    log.close().expect("closes twice");

    let (recovered, _ready) = reopen(&simulated, &settings).expect("opens");
    assert!(recovered.clean);
    assert_eq!(recovered.truncated_bytes, 0);
    assert_eq!(recovered.orphaned_messages, 1);
    assert_eq!(offsets(&recovered), [(7, vec![2, 3]), (8, vec![1])]);
    let topic = &recovered.topics[0];
    assert_eq!((topic.epoch, &topic.name[..], topic.created_at_ms, topic.implicit), (!7, "töpic", -5, true));
    assert_eq!((topic.last_offset, topic.next_offset), (3, 4));
    let (two, three) = (&topic.messages[0], &topic.messages[1]);
    assert_eq!((two.prev, two.at_ms, two.id_is_given, two.key.as_deref()), (1, 2, false, Some(&b"k"[..])));
    assert_eq!((&two.id[..], &two.data[..]), (&b"id"[..], &b"two"[..]));
    assert_eq!((two.headers.as_deref(), three.headers.as_deref()), (None, Some(&b"{}"[..])));
    assert_eq!((three.id_is_given, three.key.as_deref(), three.data.len()), (true, None, 300));
    assert_eq!((recovered.topics[1].implicit, &recovered.topics[1].settings[..]), (false, &[8, 1][..]));
    let consumer = RecoveredConsumer { source: "a".into(), name: "x".into(), blob: Bytes::from_static(b"2") };
    assert_eq!(recovered.consumers, [consumer]);
}

#[test]
fn records_and_settings_out_of_bounds_are_refused() {
    let simulated = SimulatedDisk::default();
    let settings = LogConfig { max_record_bytes: 100, queue_bytes: 300, ..settings(Fsync::Always, 1000) };
    let (log, acks, _) = start(&simulated, &settings);
    let refused = |record: &Record<'_>| log.append(record, ()).expect_err("refused");
    assert!(matches!(refused(&message(1, 1, &[0; 99])), LogError::TooLarge { bytes: 101, limit: 100 }));
    assert!(matches!(refused(&message_after(1, 1, 1, b"")), LogError::Invalid(_)));
    log.append(&created(1, &[]), ()).expect("appended");
    log.append(&message(1, 1, &[0; 98]), ()).expect("just fits");
    acks.wait(2);
    drop(log);
    assert_eq!(offsets(&start::<()>(&simulated, &settings).2), [(1, vec![1])]);

    for wrong in [
        LogConfig { segment_bytes: 127, ..LogConfig::default() },
        LogConfig { max_record_bytes: 64 << 20, queue_bytes: 64 << 20, ..LogConfig::default() },
        LogConfig { queue_bytes: 1, ..LogConfig::default() },
        LogConfig { reserve_offsets: 0, ..LogConfig::default() },
    ] {
        let refused = Log::<()>::open(Path::new("/nowhere"), wrong, &keep).err();
        assert!(matches!(refused, Some(OpenError::Invalid(_))), "{refused:?}");
    }
}
