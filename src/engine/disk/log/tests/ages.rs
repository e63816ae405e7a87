//! Messages that are too old, and when they leave the disk.

use super::{
    super::{
        files::{FORMAT, SEGMENT_HEADER_BYTES, header_of},
        ledger::now_ms,
    },
    *,
};

/// A topic whose settings have a second byte has an age of so many seconds.
fn with_ages(keep_aged: Duration) -> LogConfig {
    let max_age_of = |settings: &[u8]| settings.get(1).map(|seconds| u64::from(*seconds) * 1_000);
    LogConfig { max_age_of, keep_aged, ..settings(Fsync::Always, 1 << 20) }
}

fn aged(topic_id: u64, offset: u64, seconds_ago: i64, ttl_ms: u64, data: &[u8]) -> Record<'_> {
    let Record::Message(message) = message(topic_id, offset, data) else { unreachable!() };
    let at_ms = now_ms() - seconds_ago * 1_000;
    let key = data.ends_with(b"secret").then_some(&b"secret key"[..]);
    Record::Message(MessageRecord { at_ms, key, ttl_ms, ..message })
}

fn has(simulated: &SimulatedDisk, text: &[u8]) -> bool {
    simulated.segments().values().any(|bytes| bytes.windows(text.len()).any(|window| window == text))
}

#[test]
fn what_is_too_old_leaves_the_disk_in_time() {
    let simulated = SimulatedDisk::default();
    let settings = with_ages(Duration::from_millis(1));
    let (log, acks, _) = start(&simulated, &settings);
    let records = [
        created(1, &[100, 10]),
        created(2, &[100]),
        // The deletion of another topic is in the same segment.
        created(3, &[100]),
        deleted(3),
        aged(1, 1, 20, 0, b"topic secret 1"),
        aged(1, 2, 20, 0, b"topic secret 2"),
        aged(1, 3, 5, 0, b"topic young"),
        aged(2, 1, 20, 0, b"kept 1"),
        aged(2, 2, 20, 1_000, b"brief secret"),
        aged(2, 3, 20, 3_600_000, b"kept 3"),
    ];
    for record in &records {
        log.append(record, 0).expect("appended");
    }
    acks.wait(records.len());
    // As the topic's sweep does. Nothing is published any more, and the log is small.
    log.trim(1, 3);
    wait_until("it has left the disk", || !has(&simulated, b"secret"));
    for text in [&b"topic young"[..], b"kept 1", b"kept 3"] {
        assert!(has(&simulated, text));
    }
    let metrics = log.metrics();
    drop(log);

    let (recovered, _) = reopen(&simulated, &settings).expect("opens");
    assert_eq!(offsets(&recovered), [(1, vec![3]), (2, vec![1, 2, 3])]);
    let hollow = &recovered.topics[1].messages[1];
    assert_eq!((hollow.is_hollow, hollow.ttl_ms, &hollow.key, hollow.data.len()), (true, 0, &None, 0));
    assert_eq!(
        (&recovered.topics[1].messages[2].data[..], recovered.topics[1].messages[2].ttl_ms),
        (&b"kept 3"[..], 3_600_000)
    );
    assert_eq!(recovered.detached_messages, 0);
    // It is rewritten once, not again and again.
    let writes = simulated.written();
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&message(2, 4, b"x"), 0).expect("appended");
    acks.wait(1);
    assert!(simulated.written() < writes + 4_096, "{metrics:?}");
}

#[test]
fn what_is_too_old_stays_for_its_time() {
    let simulated = SimulatedDisk::default();
    let settings = with_ages(Duration::from_hours(1));
    let (log, acks, _) = start(&simulated, &settings);
    let records =
        [created(1, &[100, 10]), aged(1, 1, 20, 0, b"old"), aged(1, 2, 20, 5, b"older"), aged(1, 3, 0, 0, b"new")];
    for record in &records {
        log.append(record, 0).expect("appended");
    }
    acks.wait(records.len());
    log.trim(1, 2);
    log.append(&aged(1, 4, 0, 0, b"newer"), 0).expect("appended");
    acks.wait(records.len() + 1);
    assert!(has(&simulated, b"older") && log.metrics().segments == 1);
    drop(log);
    // A start with a shorter time does it at once, for what was trimmed before, too.
    let (log, _, recovered) = start::<u64>(&simulated, &with_ages(Duration::ZERO));
    assert_eq!(offsets(&recovered), [(1, vec![1, 2, 3, 4])]);
    log.trim(1, 2);
    wait_until("it has left the disk", || !has(&simulated, b"old"));
}

#[test]
fn compaction_in_a_crash_leaves_either_form() {
    // Whatever was written when the power goes, the history is whole.
    let simulated = SimulatedDisk::default();
    let settings = LogConfig { segment_bytes: 600, ..with_ages(Duration::from_millis(1)) };
    let images = Arc::new(Mutex::new(Vec::new()));
    let seen = images.clone();
    simulated.watch(move |image| {
        let mut images = seen.lock();
        if images.len() < 400 {
            images.push(image.cut());
        }
    });
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[100]), 0).expect("appended");
    for offset in 1..=30 {
        let (ttl, data) = if offset % 3 == 0 { (1, &b"brief"[..]) } else { (0, &b"some data"[..]) };
        log.append(&aged(1, offset, 20, ttl, data), offset).expect("appended");
        acks.wait(usize::try_from(offset).unwrap() + 1);
    }
    wait_until("all are hollow", || !has(&simulated, b"brief"));
    drop(log);
    for image in images.lock().iter() {
        let (recovered, _) = reopen(image, &settings).expect("opens");
        let Some(topic) = recovered.topics.first() else { continue };
        let found: Vec<u64> = topic.messages.iter().map(|message| message.offset).collect();
        assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
        assert!(topic.messages.iter().all(|message| !message.is_hollow || message.offset % 3 == 0));
    }
}

#[test]
fn a_log_of_the_earlier_version_is_read() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1 << 20);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[9]), 0).expect("appended");
    log.append(&message(1, 1, b"one"), 1).expect("appended");
    acks.wait(2);
    drop(log);
    let mut bytes = simulated.segments()[&1].clone();
    bytes[..SEGMENT_HEADER_BYTES].copy_from_slice(&header_of(FORMAT - 1, 1, 0));
    let earlier = SimulatedDisk::with([(1, bytes.clone())]);
    let (log, acks, recovered) = start(&earlier, &settings);
    assert_eq!(offsets(&recovered), [(1, vec![1])]);
    // What an earlier build would not understand is not appended to its segment.
    log.append(&aged(1, 2, 0, 5_000, b"two"), 2).expect("appended");
    acks.wait(1);
    drop(log);
    assert_eq!(earlier.segments()[&1], bytes);
    assert_eq!(earlier.segments()[&2][..SEGMENT_HEADER_BYTES], header_of(FORMAT, 2, 2)[..]);
    let (recovered, _) = reopen(&earlier, &settings).expect("opens");
    assert_eq!((offsets(&recovered), recovered.topics[0].messages[1].ttl_ms), (vec![(1, vec![1, 2])], 5_000));
}
