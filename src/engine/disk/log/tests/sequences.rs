//! What outlives the messages: sequence numbers, floors, deletions, and the log's identity.

use super::{
    super::recovered::{MAX_DELETIONS, RecoveredDeletion},
    *,
};

fn with_floor(topic_id: u64, offset: u64, floor: u64) -> Record<'static> {
    let Record::Message(message) = message(topic_id, offset, b"text") else { unreachable!() };
    Record::Message(MessageRecord { floor, ..message })
}

#[test]
fn evicted_messages_do_not_come_back_when_the_bound_is_raised() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1 << 20);
    let (log, acks, _) = start(&simulated, &settings);
    assert!(matches!(log.append(&with_floor(1, 3, 3), 0), Err(LogError::Invalid(_))));
    log.append(&created(1, &[100]), 0).expect("appended");
    log.append(&created(2, &[100]), 0).expect("appended");
    for offset in 1..=20 {
        log.append(&message(1, offset, b"text"), offset).expect("appended");
        log.append(&message(2, offset, b"text"), offset).expect("appended");
    }
    // The bound of the first topic is lowered and raised again. In the second topic the messages carry the floor.
    let update =
        |floor| Record::TopicUpdated { topic_id: 1, implicit: false, floor, compacted_until: 0, settings: &[100] };
    log.append(&update(18), 0).expect("appended");
    log.append(&update(0), 0).expect("appended");
    log.append(&with_floor(2, 21, 15), 21).expect("appended");
    log.append(&with_floor(2, 22, 12), 22).expect("appended");
    acks.wait(46);
    for disk in [simulated.image().killed(), simulated.image().cut()] {
        let (recovered, _) = reopen(&disk, &settings).expect("opens");
        assert_eq!(offsets(&recovered), [(1, vec![19, 20]), (2, (16..=22).collect())]);
        assert_eq!((recovered.topics[0].floor, recovered.topics[1].floor), (18, 15));
        assert_eq!((recovered.topics[0].last_offset, recovered.topics[0].next_offset), (20, 21));
    }
}

#[test]
fn sequence_numbers_continue_and_are_stored_with_the_messages() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 300);
    let mut newest = 0;
    let mut given = Vec::new();
    for incarnation in 0..3_u64 {
        let (log, acks, recovered) = start(&simulated, &settings);
        assert_eq!(recovered.next_sequence, newest + 1);
        let first = log.append(&created(incarnation + 1, &[]), 0).expect("appended");
        assert!(first > newest);
        newest = first;
        for offset in 1..=5 {
            let sequence = log.append(&message(incarnation + 1, offset, &[0; 50]), offset).expect("appended");
            assert_eq!(sequence, newest + 1);
            newest = sequence;
            given.push((incarnation + 1, offset, sequence));
        }
        acks.wait(6);
    }
    let (recovered, _) = reopen(&simulated, &settings).expect("opens");
    let found = recovered.topics.iter().flat_map(|t| t.messages.iter().map(|m| (t.id, m.offset, m.sequence)));
    assert!(found.eq(given));
}

#[test]
fn a_sequence_number_that_was_shown_is_not_used_again() {
    let settings = settings(Fsync::Never, 300);
    let mut simulated = SimulatedDisk::default();
    let mut shown = 0;
    for incarnation in 1..=4 {
        let (log, acks, _) = start(&simulated, &settings);
        let mut records = 0;
        log.append(&created(incarnation, &[]), 0).expect("appended");
        for offset in 1..=10 {
            let sequence = log.append(&message(incarnation, offset, &[0; 50]), offset).expect("appended");
            assert!(sequence > shown, "{sequence} was shown in incarnation {incarnation}");
            records += 1;
            acks.wait(records + 1);
            shown = sequence;
        }
        // Nothing was synced since the first record, and there is a power cut.
        simulated = simulated.image().cut();
    }
    assert!(shown > 3 << 32, "each start jumped");
}

#[test]
fn sequence_numbers_outlive_all_that_had_them() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 300);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    for offset in 1..=30 {
        log.append(&message(1, offset, &[0; 50]), offset).expect("appended");
    }
    let deletion = log.append(&deleted(1), 0).expect("appended");
    acks.wait(32);
    wait_until("removed", || log.metrics().segments <= 2);
    log.close().expect("closes");
    let segments = simulated.segments();
    assert!(segments.len() <= 2, "{:?}", segments.keys());
    // At first only the segment with the deletion is left, and then not even that one.
    assert_eq!(reopen(&simulated, &settings).expect("opens").0.next_sequence, deletion + 1);
    let (number, _) = segments.last_key_value().expect("one is left");
    let empty = super::super::files::segment_header(number + 1, deletion).to_vec();
    let (recovered, _) = reopen(&SimulatedDisk::with([(number + 1, empty)]), &settings).expect("opens");
    assert_eq!((recovered.next_sequence, recovered.deletions.len()), (deletion + 1, 0));
}

#[test]
fn recovery_lists_deletions_as_long_as_the_log_has_them() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Never, 64 << 20);
    let (log, acks, _) = start(&simulated, &settings);
    let count = MAX_DELETIONS as u64 + 5;
    let mut newest = 0;
    for topic in 1..=count {
        log.append(&created(topic, &[]), 0).expect("appended");
        newest = log.append(&deleted(topic), 0).expect("appended");
    }
    acks.wait(2 * count as usize);
    let (recovered, _) = reopen(&simulated.image().killed(), &settings).expect("opens");
    assert_eq!(recovered.deletions.len(), MAX_DELETIONS);
    let last = RecoveredDeletion { name: "töpic".into(), epoch: !count, newest_sequence: count + 1, sequence: newest };
    assert_eq!(recovered.deletions.last(), Some(&last));
    assert!(recovered.deletions.is_sorted_by_key(|deletion| deletion.sequence));
}

#[test]
fn a_log_keeps_its_identity_and_another_log_has_another_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || Log::<()>::open(directory.path(), LogConfig::default(), &keep).expect("opens").0;
    let first = open();
    let again = open();
    assert_eq!((first.identity, first.identity_lost), (again.identity, false));
    let path = directory.path().join("identity");
    let text = std::fs::read_to_string(&path).expect("written");
    assert_eq!(text, format!("{:016x}\n", first.identity));
    for lost in [None, Some(""), Some("0123"), Some("0123456789abcdeg\n")] {
        let before = open().identity;
        match lost {
            None => std::fs::remove_file(&path).expect("removed"),
            Some(text) => std::fs::write(&path, text).expect("written"),
        }
        let made = open();
        assert!(made.identity_lost && made.identity != before, "{lost:?}");
        assert_eq!((open().identity, open().identity_lost), (made.identity, false));
    }
}
