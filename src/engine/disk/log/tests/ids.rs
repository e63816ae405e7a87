//! Publishers' ids that outlive their messages.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::ledger::now_ms,
    simulated_disk::{DiskImage, Rng},
    *,
};

const WINDOW: Duration = Duration::from_secs(300);

fn given(topic_id: u64, offset: u64, at_ms: i64, id: &[u8]) -> Record<'_> {
    let floor = offset.saturating_sub(3);
    let data = &[7; 40];
    let message = MessageRecord {
        topic_id,
        offset,
        prev: offset - 1,
        prev_sequence: 0,
        floor,
        at_ms,
        id,
        id_is_given: true,
        key: None,
        data,
        headers: None,
        ttl_ms: 0,
        is_hollow: false,
        is_removal: false,
        replaces_older: false,
    };
    Record::Message(message)
}

fn name(offset: u64) -> String {
    format!("id-{offset}")
}

fn with_ids(fsync: Fsync, segment_bytes: u64) -> LogConfig {
    LogConfig { dedup_window: WINDOW, ..settings(fsync, segment_bytes) }
}

/// Publishes messages with ids to a topic that keeps three.
fn publish(
    log: &Log<u64>,
    acks: &RecordingSink<u64>,
    topic: u64,
    offsets: std::ops::RangeInclusive<u64>,
    at: i64,
) -> Vec<u64> {
    let before = acks.count();
    let mut sequences = Vec::new();
    for (index, offset) in offsets.enumerate() {
        let id = name(offset);
        sequences.push(log.append(&given(topic, offset, at, id.as_bytes()), offset).expect("appended"));
        acks.wait(before + index + 1);
        log.trim(topic, offset.saturating_sub(2));
    }
    sequences
}

/// Returns the known ids of each topic, with kept messages or without, and the offsets they had.
fn known(recovered: &Recovered) -> BTreeMap<u64, BTreeMap<String, u64>> {
    let text = |id: &Bytes| String::from_utf8(id.to_vec()).expect("text");
    let topics = recovered.topics.iter().map(|topic| {
        let mut ids: BTreeMap<_, _> = topic.ids.iter().map(|id| (text(&id.id), id.offset)).collect();
        assert_eq!(ids.len(), topic.ids.len(), "each once");
        assert!(topic.ids.is_sorted_by_key(|id| id.sequence));
        for message in topic.messages.iter().filter(|message| message.id_is_given) {
            assert!(ids.insert(text(&message.id), message.offset).is_none(), "listed twice");
        }
        (topic.id, ids)
    });
    topics.collect()
}

fn expected(offsets: impl Iterator<Item = u64>) -> BTreeMap<String, u64> {
    offsets.map(|offset| (name(offset), offset)).collect()
}

fn bound(metrics: &Metrics, segment_bytes: u64) -> u64 {
    metrics.live_bytes + metrics.live_bytes / 2 + 2 * segment_bytes
}

#[test]
fn ids_outlive_their_messages_and_their_segments() {
    for fsync in [Fsync::Always, Fsync::Never] {
        let simulated = SimulatedDisk::default();
        let settings = with_ids(fsync, 2_000);
        let (log, acks, _) = start(&simulated, &settings);
        log.append(&created(1, &[3]), 0).expect("appended");
        log.append(&created(2, &[200]), 0).expect("appended");
        log.append(&message(2, 1, b"stays"), 0).expect("appended");
        acks.wait(3);
        let at = now_ms();
        let sequences = publish(&log, &acks, 1, 1..=600, at);
        wait_until("within the bound", || {
            let metrics = log.metrics();
            metrics.bytes <= bound(&metrics, 2_000)
        });
        let segments = simulated.segments();
        assert!(*segments.keys().next().expect("some") > 3, "the first segments are gone: {:?}", segments.keys());
        let on_disk: usize = segments.values().map(Vec::len).sum();
        let metrics = log.metrics();
        assert_eq!(metrics.bytes, on_disk as u64);
        assert!(metrics.live_bytes < 600 * 45, "{metrics:?}");
        for _ in 0..2 {
            // Each recovery returns the same ids.
            let (recovered, ready) = reopen(&simulated.image().killed(), &settings).expect("opens");
            assert_eq!(known(&recovered)[&1], expected(1..=600));
            let topic = &recovered.topics[0];
            assert_eq!(topic.messages.len(), 3);
            let found = topic.ids.iter().chain([]).map(|id| (id.sequence, id.at_ms));
            assert!(found.eq(sequences[..597].iter().map(|sequence| (*sequence, at))));
            assert_eq!(offsets(&recovered)[1], (2, vec![1]));
            drop(ready);
        }
        drop(log);
        // The ids survive a restart and another generation of segments.
        let (log, acks, _) = start(&simulated, &settings);
        log.trim(1, 598);
        publish(&log, &acks, 1, 601..=900, at);
        log.close().expect("closes");
        assert_eq!(known(&reopen(&simulated, &settings).expect("opens").0)[&1], expected(1..=900));
    }
}

#[test]
fn copying_ids_costs_a_fraction_of_what_is_published() {
    let simulated = SimulatedDisk::default();
    let settings = with_ids(Fsync::Never, 4_000);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[3]), 0).expect("appended");
    acks.wait(1);
    publish(&log, &acks, 1, 1..=5_000, now_ms());
    let each = simulated.written() / 5_000;
    log.close().expect("closes");
    // The record of such a small message takes some 80 bytes, the record of its id alone 25.
    println!("{each} bytes written for each message");
    assert!(each < 240, "{each} bytes written for each message");
}

#[test]
fn no_crash_loses_an_id() {
    let settings = with_ids(Fsync::Always, 700);
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[3]), 0).expect("appended");
    acks.wait(1);
    let crash_points: Arc<Mutex<Vec<(DiskImage, usize)>>> = Arc::default();
    {
        let (crash_points, acks) = (crash_points.clone(), acks.clone());
        simulated.watch(move |image| {
            let count = acks.count();
            crash_points.lock().push((image.clone(), count));
        });
    }
    publish(&log, &acks, 1, 1..=120, now_ms());
    simulated.watch(|_| {});
    let crash_points = std::mem::take(&mut *crash_points.lock());
    assert!(crash_points.len() > 300);
    let (mut most, mut rng) = (0, Rng::new(7));
    for (image, acknowledged) in &crash_points {
        for disk in [image.cut(), image.torn(&mut rng), image.killed()] {
            let (recovered, _) = reopen(&disk, &settings).expect("opens");
            let known = &known(&recovered)[&1];
            let shown = expected(1..*acknowledged as u64);
            assert!(shown.iter().all(|id| known.get_key_value(id.0) == Some(id)), "{acknowledged}: {known:?}");
            most = most.max(known.len());
        }
    }
    assert!(most >= 119);
}

#[test]
fn an_id_is_known_for_its_time_and_takes_no_room_after_it() {
    let settings = LogConfig { dedup_window: Duration::from_millis(1500), ..settings(Fsync::Never, 1_000) };
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[3]), 0).expect("appended");
    acks.wait(1);
    publish(&log, &acks, 1, 1..=50, now_ms() - 60_000);
    let (recovered, _) = reopen(&simulated.image().killed(), &settings).expect("opens");
    assert_eq!(known(&recovered)[&1], expected(48..=50), "only with their messages");
    let at = now_ms();
    publish(&log, &acks, 1, 51..=250, at);
    let (recovered, _) = reopen(&simulated.image().killed(), &settings).expect("opens");
    if now_ms() < at + 1_000 {
        assert_eq!(known(&recovered)[&1], expected(51..=250));
    }
    // The space is freed although nothing is appended.
    wait_until("room", || {
        let metrics = log.metrics();
        metrics.segments <= 3 && metrics.live_bytes < 600
    });
    assert!(now_ms() >= at + 1_500);
    let (recovered, _) = reopen(&simulated.image().killed(), &settings).expect("opens");
    assert_eq!(known(&recovered)[&1], expected(248..=250));
}

#[test]
fn ids_are_bounded_and_the_oldest_go_first() {
    let settings = LogConfig { dedup_bytes: 4_000, ..with_ids(Fsync::Never, 1_000) };
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings);
    for topic in [1, 2] {
        log.append(&created(topic, &[3]), 0).expect("appended");
    }
    acks.wait(2);
    let at = now_ms();
    publish(&log, &acks, 1, 1..=1_000, at);
    publish(&log, &acks, 2, 1..=1_000, at);
    wait_until("within the bound", || {
        let metrics = log.metrics();
        metrics.bytes <= bound(&metrics, 1_000)
    });
    let metrics = log.metrics();
    assert!(metrics.live_bytes < 4_000 + 3_000, "{metrics:?}");
    let (recovered, _) = reopen(&simulated.image().killed(), &settings).expect("opens");
    let known = known(&recovered);
    assert_eq!(known[&1], expected(998..=1_000), "the other topic's are younger");
    let count = known[&2].len() as u64;
    assert!((40..70).contains(&count), "{count} ids of some 70 bytes");
    let names: BTreeSet<_> = known[&2].values().copied().collect();
    assert_eq!(names, (1_001 - count..=1_000).collect());
}

#[test]
fn ids_belong_to_one_incarnation_of_a_topic() {
    let settings = with_ids(Fsync::Never, 1_000);
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[3]), 0).expect("appended");
    acks.wait(1);
    publish(&log, &acks, 1, 1..=100, now_ms());
    log.append(&deleted(1), 0).expect("appended");
    log.append(&created(2, &[3]), 0).expect("appended");
    acks.wait(103);
    publish(&log, &acks, 2, 1..=100, now_ms());
    log.close().expect("closes");
    let (recovered, _) = reopen(&simulated, &settings).expect("opens");
    assert_eq!(known(&recovered).into_iter().collect::<Vec<_>>(), [(2, expected(1..=100))]);
}

/// An id that came without its message is known like an id that had one: over restarts and further segments, until it
/// expires or the topic is deleted.
#[test]
fn an_id_without_a_message_is_kept_like_others() {
    let simulated = SimulatedDisk::default();
    let settings = with_ids(Fsync::Never, 2_000);
    let (log, acks, _) = start(&simulated, &settings);
    let now = now_ms();
    for topic_id in [1, 2] {
        log.append(&created(topic_id, &[3]), 0).expect("appended");
        for (id, at_ms) in [("young", now - 1_000), ("over", now - 301_000)] {
            log.append(&Record::Id { topic_id, at_ms, id: id.as_bytes() }, 0).expect("appended");
        }
    }
    acks.wait(6);
    let all = expected(1..=600).into_iter().chain([("young".to_owned(), 0)]).collect::<BTreeMap<_, _>>();
    publish(&log, &acks, 1, 1..=600, now);
    wait_until("the first segments are gone", || *simulated.segments().keys().next().expect("some") > 3);
    log.append(&deleted(2), 0).expect("appended");
    acks.wait(607);
    let (recovered, ready) = reopen(&simulated.image().killed(), &settings).expect("opens");
    assert_eq!(known(&recovered).into_iter().collect::<Vec<_>>(), [(1, all.clone())]);
    drop(ready);
    log.close().expect("closes");
    for _ in 0..2 {
        let (log, _, recovered) = start::<u64>(&simulated, &settings);
        assert_eq!(known(&recovered).into_iter().collect::<Vec<_>>(), [(1, all.clone())]);
        log.close().expect("closes");
    }
    // This topic never had a message of its own.
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(3, &[3]), 0).expect("appended");
    log.append(&Record::Id { topic_id: 3, at_ms: now, id: b"alone" }, 0).expect("appended");
    acks.wait(2);
    log.close().expect("closes");
    let alone = BTreeMap::from([("alone".to_owned(), 0)]);
    assert_eq!(known(&reopen(&simulated, &settings).expect("opens").0)[&3], alone);
}

/// A snapshot that is read beside the server has the same ids.
#[test]
fn a_snapshot_has_the_ids_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = with_ids(Fsync::Never, 1_000);
    let (_, ready) = Log::<u64>::open(directory.path(), settings.clone(), &keep).expect("opens");
    let acks = RecordingSink::new();
    let log = ready.start(Box::new(acks.clone())).expect("starts");
    log.append(&created(1, &[3]), 0).expect("appended");
    acks.wait(1);
    publish(&log, &acks, 1, 1..=100, now_ms());
    let ids = |window| {
        let read =
            LogSnapshot::read(directory.path(), &keep, |_| false, window).expect("reads").expect("there is a log");
        read.topics.into_iter().next().expect("a topic").ids
    };
    assert_eq!(ids(Duration::ZERO), []);
    let beside = ids(WINDOW);
    assert!(beside.iter().map(|id| id.offset).eq(1..=97));
    drop(log);
    assert_eq!(Log::<()>::open(directory.path(), settings, &keep).expect("opens").0.topics[0].ids, beside);
}
