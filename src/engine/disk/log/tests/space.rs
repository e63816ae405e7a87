//! How much space the log takes on the disk, and what it removes.

use std::collections::BTreeMap;

use super::{simulated_disk::Faults, *};

/// Returns the size that the log must reach after some time, in bytes.
fn bound(metrics: &Metrics, segment_bytes: u64) -> u64 {
    metrics.live_bytes + metrics.live_bytes / 2 + 2 * segment_bytes
}

fn settled(log: &Log<u64>, segment_bytes: u64) {
    wait_until("within the bound", || {
        let metrics = log.metrics();
        metrics.bytes <= bound(&metrics, segment_bytes)
    });
}

#[test]
fn churn_beside_a_cold_topic_stays_within_the_bound() {
    let segment_bytes = 16 << 10;
    for fsync in [Fsync::Always, Fsync::Never] {
        let simulated = SimulatedDisk::default();
        let settings = settings(fsync, segment_bytes);
        let (log, acks, _) = start(&simulated, &settings);
        let (cold, hot, kept) = (1, 2, 100);
        log.append(&created(cold, &[]), 0).expect("appended");
        log.append(&created(hot, &[kept as u8]), 0).expect("appended");
        log.append(&Record::ConsumerPut { source: "s", name: "cold", blob: b"state" }, 0).expect("appended");
        let mut appended = 3;
        let (mut cold_offset, mut largest, mut most) = (0, 0, 0);
        for offset in 1..=30_000 {
            // Without compaction a cold message here and there would keep every early segment.
            if offset % 50 == 0 && offset < 3_000 {
                cold_offset += 1;
                log.append(&message(cold, cold_offset, b"keep me"), cold_offset).expect("appended");
                appended += 1;
            }
            log.append(&message(hot, offset, &[7; 60]), offset).expect("appended");
            appended += 1;
            if offset % 100 == 0 {
                acks.wait(appended);
                log.trim(hot, (offset + 1).saturating_sub(kept));
            }
            let metrics = log.metrics();
            largest = metrics.bytes.max(largest);
            most = most.max(bound(&metrics, segment_bytes));
        }
        settled(&log, segment_bytes);
        let metrics = log.metrics();
        println!("{fsync:?}: at most {largest} bytes on the disk, {metrics:?}");
        assert!(largest < most + most / 4 + 2 * segment_bytes, "{largest} of {most}");
        let on_disk: usize = simulated.segments().values().map(Vec::len).sum();
        assert_eq!((metrics.bytes, metrics.segments), (on_disk as u64, simulated.segments().len()));
        drop(log);

        let (recovered, _) = reopen(&simulated, &settings).expect("opens");
        let expected = [(cold, (1..=cold_offset).collect()), (hot, (30_001 - kept..=30_000).collect())];
        assert_eq!(offsets(&recovered), expected);
        assert_eq!(recovered.consumers.len(), 1);
        assert!(recovered.topics[0].messages.iter().all(|m| &m.data[..] == b"keep me" && m.prev + 1 == m.offset));
    }
}

#[test]
fn latest_states_survive_compaction_and_older_ones_do_not_come_back() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Never, 512);
    let (log, acks, _) = start(&simulated, &settings);
    let mut appended = 0;
    let append = |record: &Record<'_>, appended: &mut usize| {
        log.append(record, 0).expect("appended");
        *appended += 1;
    };
    append(&created(1, &[5]), &mut appended);
    append(&created(2, &[5]), &mut appended);
    for round in 0..400_u64 {
        let bytes = round.to_le_bytes();
        append(&message(1, round + 1, &bytes), &mut appended);
        if round % 7 == 0 {
            let settings = &[5, bytes[0], bytes[1]];
            append(
                &Record::TopicUpdated { topic_id: 2, implicit: false, floor: 0, compacted_until: 0, settings },
                &mut appended,
            );
            append(&Record::ConsumerPut { source: "s", name: "a", blob: &bytes }, &mut appended);
        }
        if round % 40 == 0 {
            append(&Record::ConsumerPut { source: "s", name: "b", blob: &bytes }, &mut appended);
            append(&created(100 + round, &[5]), &mut appended);
            append(&message(100 + round, 1, b"short incarnation"), &mut appended);
        }
        if round % 40 == 20 {
            append(&Record::ConsumerDeleted { source: "s", name: "b" }, &mut appended);
            append(&deleted(80 + round), &mut appended);
        }
        acks.wait(appended);
        log.trim(1, (round + 2).saturating_sub(5));
        if round % 29 == 0 {
            settled(&log, 512);
            let (recovered, _) = reopen(&simulated.image().killed(), &settings).expect("opens");
            let topics: BTreeMap<u64, &RecoveredTopic> = recovered.topics.iter().map(|t| (t.id, t)).collect();
            let latest = (round - round % 7).to_le_bytes();
            assert_eq!(topics[&2].settings[1..], latest[..2]);
            let a = recovered.consumers.iter().find(|c| c.name == "a").expect("put");
            assert_eq!(a.blob[..], latest);
            let half = round % 40 < 20;
            assert_eq!(recovered.consumers.iter().any(|c| c.name == "b"), half);
            assert_eq!(topics.len(), if half { 3 } else { 2 }, "round {round}: {:?}", topics.keys());
            assert_eq!(topics[&1].last_offset, round + 1);
        }
    }
    assert!(log.metrics().bytes < 4096, "{:?}", log.metrics());
}

#[test]
fn a_topic_whose_messages_were_all_removed_does_not_use_their_offsets_again() {
    for fsync in [Fsync::Always, Fsync::Never] {
        let simulated = SimulatedDisk::default();
        let settings = settings(fsync, 256);
        let (log, acks, _) = start(&simulated, &settings);
        log.append(&created(1, &[200]), 0).expect("appended");
        for offset in 1..=30 {
            log.append(&message(1, offset, b"short"), offset).expect("appended");
        }
        acks.wait(31);
        log.trim(1, 31);
        // Another topic gets enough messages that the first one's segments are removed.
        log.append(&created(2, &[5]), 0).expect("appended");
        for offset in 1..=100 {
            log.append(&message(2, offset, b"other"), offset).expect("appended");
            acks.wait(32 + offset as usize);
            log.trim(2, offset);
        }
        settled(&log, 256);
        assert!(simulated.segments().keys().next() > Some(&4));
        log.close().expect("closes");
        let (recovered, _) = reopen(&simulated, &settings).expect("opens");
        assert_eq!(recovered.topics[0].messages.len(), 0);
        assert_eq!((recovered.topics[0].last_offset, recovered.topics[0].next_offset), (30, 31));
    }
}

#[test]
fn deleting_a_topic_frees_its_segments() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Never, 4096);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    for offset in 1..=1000 {
        log.append(&message(1, offset, &[0; 100]), offset).expect("appended");
    }
    acks.wait(1001);
    assert!(log.metrics().segments > 20);
    log.append(&deleted(1), 0).expect("appended");
    wait_until("freed", || log.metrics().segments <= 2);
    assert_eq!(log.metrics().live_bytes, 0);
    drop(log);
    assert!(reopen(&simulated, &settings).expect("opens").0.topics.is_empty());
}

#[test]
fn a_restart_counts_the_same_live_bytes() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1024);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[50]), 0).expect("appended");
    for offset in 1..=300 {
        log.append(&message(1, offset, &[0; 30]), offset).expect("appended");
        acks.wait(offset as usize + 1);
        log.trim(1, (offset + 1).saturating_sub(50));
    }
    log.close().expect("closes");
    let before = log.metrics();
    let (_, ready) = reopen(&simulated, &settings).expect("opens");
    let (bytes, live_bytes, segments) = ready.ledger.lock().totals();
    assert_eq!((bytes, segments), (before.bytes, before.segments));
    assert!(live_bytes.abs_diff(before.live_bytes) < 100, "{live_bytes}, {before:?}");
}

#[test]
fn compaction_waits_while_the_disk_is_full() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1024);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    log.append(&created(2, &[]), 0).expect("appended");
    for offset in 1..=100 {
        log.append(&message(1, offset, &[1; 40]), offset).expect("appended");
        log.append(&message(2, offset, &[2; 40]), offset).expect("appended");
    }
    acks.wait(202);
    simulated.set(Faults { room: Some(0), ..Faults::default() });
    let before = simulated.segments();
    log.trim(1, 101);
    // The compaction was tried and rolled back: there were two syncs, and nothing changed.
    let syncs = log.metrics().syncs;
    wait_until("tried", || log.metrics().syncs > syncs);
    assert_eq!(simulated.segments(), before);
    simulated.set(Faults::default());
    settled(&log, 1024);
    drop(log);
    assert_eq!(offsets(&reopen(&simulated, &settings).expect("opens").0)[1], (2, (1..=100).collect()));
}

#[test]
fn evicted_messages_that_are_still_in_the_log_do_not_come_back_with_a_gap() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 512);
    let (log, acks, _) = start(&simulated, &settings);
    // Messages 1 to 3 share their segment with a topic that stays. Messages 4 to 40 are evicted with their segments.
    log.append(&created(1, &[200]), 0).expect("appended");
    log.append(&created(2, &[200]), 0).expect("appended");
    log.append(&message(2, 1, &[0; 300]), 0).expect("appended");
    for offset in 1..=50 {
        log.append(&message(1, offset, b"short"), offset).expect("appended");
    }
    acks.wait(53);
    log.trim(1, 41);
    wait_until("removed", || !simulated.segments().contains_key(&2));
    drop(log);
    let (recovered, _) = reopen(&simulated, &settings).expect("opens");
    assert!(recovered.detached_messages > 0);
    let history = &offsets(&recovered)[0].1;
    assert!(history[0] > 3 && *history == (history[0]..=50).collect::<Vec<_>>(), "{history:?}");
}
