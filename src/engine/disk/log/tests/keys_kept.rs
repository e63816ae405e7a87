//! What a topic keeps of its keys: where key marks stay, how much space it takes, and what happens when it is switched to a
//! history and back.

use std::collections::BTreeMap;

use super::{
    keys::{TOPIC, keyed, keyed_message},
    *,
};

fn value<'a>(offset: u64, key: &'a [u8], data: &'a [u8]) -> Record<'a> {
    Record::Message(keyed_message(offset, key, data))
}

fn removal(offset: u64, key: &[u8]) -> Record<'_> {
    Record::Message(MessageRecord { is_removal: true, ..keyed_message(offset, key, b"") })
}

/// A message of the topic while it keeps a history.
fn plain(offset: u64, key: &[u8]) -> Record<'_> {
    Record::Message(MessageRecord { replaces_older: false, ..keyed_message(offset, key, b"data") })
}

fn updated(settings: &[u8], compacted_until: u64) -> Record<'_> {
    Record::TopicUpdated { topic_id: TOPIC, implicit: false, floor: 0, compacted_until, settings }
}

fn has(simulated: &SimulatedDisk, text: &[u8]) -> bool {
    simulated.segments().values().any(|bytes| bytes.windows(text.len()).any(|window| window == text))
}

/// Returns the offsets of the topic's messages, and checks that the ledger counts these and no others.
fn kept(simulated: &SimulatedDisk, settings: &LogConfig) -> Vec<u64> {
    let (recovered, ready) = reopen(simulated, settings).expect("opens");
    let Some(topic) = recovered.topics.iter().find(|topic| topic.id == TOPIC) else { return Vec::new() };
    assert_eq!(ready.ledger.lock().live_messages(TOPIC), topic.messages.len() as u64);
    topic.messages.iter().map(|message| message.offset).collect()
}

#[test]
fn a_key_mark_outlives_the_older_segments_and_then_goes() {
    let simulated = SimulatedDisk::default();
    let settings = LogConfig { keep_aged: Duration::ZERO, ..keyed(Fsync::Always, 500) };
    let (log, acks, _) = start(&simulated, &settings);
    let mut appended = 0;
    let mut append = |records: &[Record<'_>]| {
        for record in records {
            log.append(record, 0).expect("appended");
        }
        appended += records.len();
        acks.wait(appended);
    };
    append(&[created(TOPIC, &[200, 1]), value(1, b"gone", &[1; 100]), value(2, b"brief", &[2; 100])]);
    append(&[value(3, b"stays", &[3; 300])]);
    assert_eq!(simulated.segments().len(), 2);
    // The removal and the message whose time is over are in the second segment. It is rewritten at once.
    let brief = MessageRecord { ttl_ms: 1, at_ms: 1, ..keyed_message(5, b"brief", b"short-lived") };
    append(&[removal(4, b"gone"), Record::Message(brief)]);
    log.replace(TOPIC, &[1, 2]);
    log.forget(TOPIC, &[4, 5]);
    append(&[value(6, b"last", &[6; 300])]);
    wait_until("rewritten", || !has(&simulated, b"short-lived"));
    assert!(simulated.segments().contains_key(&1) && has(&simulated, &[1; 100]), "the older messages are still there");
    // While a segment is rewritten, a mark may stand in two.
    wait_until("each key has one mark", || log.ledger.lock().key_marks() == 2);
    // If the second segment was rewritten before the removal was forgotten, its record is a removal until the next time.
    let values = || {
        let mut kept = kept(&simulated.image().killed(), &settings);
        kept.retain(|offset| *offset != 4);
        kept
    };
    assert_eq!(values(), [3, 6]);
    for offset in 7..60 {
        append(&[value(offset, b"last", &[7; 100])]);
        log.replace(TOPIC, &[offset - 1]);
        assert_eq!(values(), [3, offset]);
    }
    // The oldest segment goes, and the key marks after it.
    append(&[value(60, b"stays", b"new")]);
    log.replace(TOPIC, &[3]);
    wait_until("the key marks have gone", || log.ledger.lock().key_marks() == 0);
    assert!(!has(&simulated, b"gone") && !has(&simulated, b"brief"));
    assert_eq!(kept(&simulated.image().killed(), &settings), [59, 60]);
}

#[test]
fn many_updates_of_few_keys_stay_within_the_bound() {
    const KEYS: u64 = 2_000;
    const UPDATES: u64 = 200_000;
    let segment_bytes = 256 << 10;
    let simulated = SimulatedDisk::default();
    let settings = keyed(Fsync::Never, segment_bytes);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(TOPIC, &[200, 1]), 0).expect("appended");
    let (mut newest, mut largest, mut waiting) = (BTreeMap::new(), 0, Vec::new());
    let mut rng = simulated_disk::Rng::new(7);
    for offset in 1..=UPDATES {
        let key = rng.below(KEYS).to_string();
        log.append(&value(offset, key.as_bytes(), &[b'x'; 100]), offset).expect("appended");
        waiting.extend(newest.insert(key, offset));
        if offset % 500 == 0 {
            acks.wait(offset as usize + 1);
            log.replace(TOPIC, &waiting);
            waiting.clear();
            largest = largest.max(log.metrics().bytes);
        }
    }
    let most = |live: u64| live + live / 2 + 2 * segment_bytes;
    wait_until("within the bound", || log.metrics().bytes <= most(log.metrics().live_bytes));
    let metrics = log.metrics();
    println!("at most {largest} bytes on the disk for {UPDATES} updates of {KEYS} keys, {metrics:?}");
    assert_eq!(log.ledger.lock().live_messages(TOPIC), KEYS);
    // A record has some 50 bytes beside its data, and nothing else is live.
    assert!(metrics.live_bytes < KEYS * 160, "{metrics:?}");
    assert!(largest < most(KEYS * 160) * 5 / 4 + 500 * 160, "{largest}");
    log.close().expect("closes");
    let (recovered, ready) = reopen(&simulated, &settings).expect("opens");
    let found: Vec<u64> = recovered.topics[0].messages.iter().map(|message| message.offset).collect();
    let mut expected: Vec<u64> = newest.into_values().collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(ready.ledger.lock().totals().1, metrics.live_bytes, "live bytes are exact");
}

#[test]
fn a_topic_is_switched_to_the_newest_of_each_key_and_back() {
    let simulated = SimulatedDisk::default();
    let settings = keyed(Fsync::Always, 300);
    let (log, acks, _) = start(&simulated, &settings);
    let steps: [(Record<'_>, &[u64], &[u64]); 16] = [
        (created(TOPIC, &[200, 0]), &[], &[]),
        (plain(1, b"a"), &[], &[1]),
        (plain(2, b"b"), &[], &[1, 2]),
        (plain(3, b"a"), &[], &[1, 2, 3]),
        (plain(4, b"c"), &[], &[1, 2, 3, 4]),
        // From here on it keeps the newest of each key.
        (updated(&[200, 1], 0), &[1], &[2, 3, 4]),
        // It was numbered before that was stored.
        (plain(5, b"c"), &[4], &[2, 3, 5]),
        (value(6, b"a", b"data"), &[3], &[2, 5, 6]),
        (value(7, b"d", b"data"), &[], &[2, 5, 6, 7]),
        // And a history again.
        (updated(&[200, 0], 7), &[], &[2, 5, 6, 7]),
        (plain(8, b"a"), &[], &[2, 5, 6, 7, 8]),
        (plain(9, b"a"), &[], &[2, 5, 6, 7, 8, 9]),
        (updated(&[150, 0], 0), &[], &[2, 5, 6, 7, 8, 9]),
        (plain(10, b"b"), &[], &[2, 5, 6, 7, 8, 9, 10]),
        (updated(&[150, 1], 0), &[2, 6, 8], &[5, 7, 9, 10]),
        (value(11, b"b", b"data"), &[10], &[5, 7, 9, 11]),
    ];
    let images = Arc::new(Mutex::new(Vec::new()));
    let seen = images.clone();
    simulated.watch(move |image| seen.lock().push(image.clone()));
    let mut before: Vec<u64> = Vec::new();
    for (count, (record, replaced, expected)) in steps.iter().enumerate() {
        log.append(record, 0).expect("appended");
        acks.wait(count + 1);
        log.replace(TOPIC, replaced);
        assert_eq!(log.ledger.lock().live_messages(TOPIC), expected.len() as u64, "step {count}");
        images.lock().push(simulated.image());
        for image in images.lock().drain(..) {
            for disk in [image.killed(), image.cut()] {
                let found = kept(&disk, &settings);
                assert!(found == before || found == *expected, "step {count}: {found:?}");
            }
        }
        assert_eq!(kept(&simulated.image().cut(), &settings), *expected, "step {count}");
        before = expected.to_vec();
    }
}

#[test]
fn a_history_after_the_newest_of_each_key_has_its_bound() {
    let simulated = SimulatedDisk::default();
    let settings = keyed(Fsync::Always, 1 << 20);
    let (log, acks, _) = start(&simulated, &settings);
    let keys: Vec<_> = (0..10_u8).map(|key| [key]).collect();
    log.append(&created(TOPIC, &[4, 1]), 0).expect("appended");
    for (offset, key) in (1..).zip(keys.iter().chain(&keys)) {
        log.append(&value(offset, key, b"data"), offset).expect("appended");
    }
    acks.wait(21);
    // The bound of the history is of no effect.
    assert_eq!(kept(&simulated.image().killed(), &settings), (11..=20).collect::<Vec<_>>());
    log.append(&updated(&[4, 0], 20), 0).expect("appended");
    for offset in 21..=22 {
        log.append(&plain(offset, b"k"), 0).expect("appended");
    }
    acks.wait(24);
    assert_eq!(kept(&simulated.image().killed(), &settings), [19, 20, 21, 22]);
    for offset in 23..=30 {
        log.append(&plain(offset, b"k"), 0).expect("appended");
    }
    acks.wait(32);
    let (recovered, _) = reopen(&simulated.image().killed(), &settings).expect("opens");
    let topic = &recovered.topics[0];
    assert_eq!(topic.messages.iter().map(|message| message.offset).collect::<Vec<_>>(), [27, 28, 29, 30]);
    assert_eq!(topic.evicted.iter().map(|evicted| evicted.offset).collect::<Vec<_>>(), (21..=26).collect::<Vec<_>>());
    assert_eq!(topic.compacted_until, 20);
}

#[test]
fn an_export_shows_what_a_start_would_find() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = keyed(Fsync::Always, 300);
    let (_, ready) = Log::<u64>::open(directory.path(), settings.clone(), &keep).expect("opens");
    let acks = RecordingSink::new();
    let log = ready.start(Box::new(acks.clone())).expect("starts");
    let records = [
        created(TOPIC, &[200, 0]),
        plain(1, b"a"),
        plain(2, b"a"),
        plain(3, b"b"),
        updated(&[200, 1], 0),
        value(4, b"b", b"data"),
        removal(5, b"c"),
        value(6, b"d", b"data"),
        removal(7, b"d"),
    ];
    for record in &records {
        log.append(record, 0).expect("appended");
    }
    acks.wait(records.len());
    let read = LogSnapshot::read(directory.path(), &keep, settings.is_keyed, Duration::ZERO);
    let snapshot = read.expect("reads").expect("there is a log");
    let mut buffer = Vec::new();
    let mut shown = Vec::new();
    for location in &snapshot.topics[0].messages {
        let message = snapshot.message(location, &mut buffer).expect("is read");
        shown.push((message.offset, message.is_removal));
    }
    assert_eq!(shown, [(2, false), (4, false), (5, true), (7, true)]);
    assert_eq!((snapshot.topics[0].compacted_until, snapshot.topics[0].last), (u64::MAX, 7));
}

#[test]
fn what_a_repair_leaves_is_the_newest_of_each_key() {
    let simulated = SimulatedDisk::default();
    let settings = keyed(Fsync::Always, 300);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(TOPIC, &[200, 1]), 0).expect("appended");
    for offset in 1..=8 {
        let key = [b'a' + (offset % 3) as u8];
        log.append(&value(offset, &key, &[0; 50]), offset).expect("appended");
    }
    acks.wait(9);
    drop(log);
    let newest = *simulated.segments().keys().next_back().expect("a segment");
    assert!(newest > 2);
    simulated.flip(newest, 40, 1);
    assert!(reopen(&simulated, &settings).is_err());
    let report = super::super::repair::repair_on(&simulated, true).expect("repairs");
    assert!(report.damage.is_some_and(|damage| damage.messages > 0));
    let found = kept(&simulated, &settings);
    let last = *found.last().expect("some are left");
    assert!(last < 8);
    assert_eq!(found, (last - 2..=last).collect::<Vec<_>>());
}
