//! Damage to bytes that are known to have been written, and the repair.

use super::{
    super::{
        files::SEGMENT_HEADER_BYTES,
        frame::frames,
        repair::{Damage, repair_on},
    },
    *,
};

const EACH: [Fsync; 3] = [Fsync::Always, Fsync::Interval(Duration::from_secs(60)), Fsync::Never];

/// Appends messages of one topic, all in one batch or one by one, and returns the highest sequence number.
fn write(simulated: &SimulatedDisk, settings: &LogConfig, from: u64, to: u64, one_by_one: bool, close: bool) -> u64 {
    let (log, acks, _) = start(simulated, settings);
    let mut count = 0;
    let mut sequence = 0;
    if from == 1 {
        sequence = log.append(&created(1, &[]), ()).expect("appended");
        count += 1;
    }
    for offset in from..=to {
        sequence = log.append(&message(1, offset, b"some words"), ()).expect("appended");
        count += 1;
        if one_by_one {
            acks.wait(count);
        }
    }
    acks.wait(count);
    if close {
        log.close().expect("closes");
    } else {
        // The disk as a kill leaves it.
        let image = simulated.image();
        drop(log);
        simulated.become_as(&image.killed());
    }
    sequence
}

/// Returns where the frames of a segment begin.
fn begins(bytes: &[u8]) -> Vec<usize> {
    let ends = frames(&bytes[SEGMENT_HEADER_BYTES..]).scan(SEGMENT_HEADER_BYTES, |end, frame| {
        let begin = *end;
        *end += frame.len();
        Some(begin)
    });
    ends.collect()
}

fn refused(simulated: &SimulatedDisk, settings: &LogConfig) -> (String, u64) {
    match reopen(simulated, settings).err().expect("refused") {
        OpenError::Damaged { file, at, .. } => (file, at),
        error => panic!("{error}"),
    }
}

fn damage(simulated: &SimulatedDisk, cut: bool) -> Option<Damage> {
    repair_on(simulated, cut).expect("repairs").damage
}

/// Three damaged bytes in a short log do not cut anything off by themselves, however the log was closed. A repair
/// cuts the log there.
#[test]
fn damage_to_written_bytes_is_refused_and_can_be_repaired() {
    for (fsync, close) in EACH.into_iter().flat_map(|fsync| [(fsync, true), (fsync, false)]) {
        for one_by_one in [true, false] {
            let settings = settings(fsync, 1 << 20);
            let simulated = SimulatedDisk::default();
            let sequence = write(&simulated, &settings, 1, 12, one_by_one, close);
            let bytes = simulated.segments().remove(&1).expect("one segment");
            for begin in begins(&bytes) {
                let hurt = simulated.image().killed();
                for byte in 0..3 {
                    hurt.flip(1, begin + 5 + byte, 3);
                }
                let name = "00000000000000000001.seg".to_owned();
                assert_eq!(refused(&hurt, &settings), (name.clone(), begin as u64), "{fsync:?} {close}");
                let before = hurt.segments();
                let found = damage(&hurt, false).expect("found");
                assert_eq!((found.file, found.at, found.bytes), (name, begin as u64, (bytes.len() - begin) as u64));
                assert_eq!((hurt.segments(), hurt.cut_files().len()), (before.clone(), 0), "only looked at");
                assert_eq!(refused(&hurt, &settings).1, begin as u64);
                let cut = damage(&hurt, true).expect("cut");
                let kept: Vec<_> = hurt.cut_files().into_iter().collect();
                assert_eq!(kept, [(cut.kept[0].clone(), before[&1][begin..].to_vec())]);
                assert!(damage(&hurt, true).is_none(), "sound");
                for disk in [hurt.image().killed(), hurt.image().cut()] {
                    let (recovered, _) = reopen(&disk, &settings).expect("opens");
                    assert!(recovered.whole && recovered.clean && recovered.next_sequence > sequence);
                    let Some(topic) = recovered.topics.first() else { continue };
                    assert!(topic.next_offset > 12, "{topic:?}");
                    assert_eq!(topic.dense_from + 1, topic.next_offset);
                    let left: Vec<u64> = topic.messages.iter().map(|message| message.offset).collect();
                    assert_eq!(left, (1..=topic.last_offset).collect::<Vec<_>>());
                    // The last record says that the log was closed.
                    assert!(topic.last_offset < 12 || (close && Some(&begin) == begins(&bytes).last()));
                }
            }
        }
    }
}

/// The file ends before the position that is known to have been written.
#[test]
fn a_log_that_was_longer_refuses() {
    for (fsync, close) in EACH.into_iter().flat_map(|fsync| [(fsync, true), (fsync, false)]) {
        let settings = settings(fsync, 1 << 20);
        let simulated = SimulatedDisk::default();
        write(&simulated, &settings, 1, 5, true, close);
        let bytes = simulated.segments().remove(&1).expect("one segment");
        let begins = begins(&bytes);
        let last = *begins.last().expect("there are records");
        for left in [last, last + 3, SEGMENT_HEADER_BYTES] {
            let hurt = simulated.image().killed();
            hurt.cut_off(1, bytes.len() - left);
            let at = if left > last { last } else { left } as u64;
            assert_eq!(refused(&hurt, &settings).1, at, "{fsync:?}");
            assert_eq!(damage(&hurt, true).expect("cut").at, at);
            assert!(reopen(&hurt, &settings).is_ok());
        }
        if fsync == Fsync::Always || close {
            // If the disk is honest, not even a power cut loses what was synced.
            let hurt = simulated.image().rebooted();
            hurt.cut_off(1, 3);
            assert_eq!(refused(&hurt, &settings).1, last as u64);
        }
        let hurt = simulated.image().killed();
        hurt.lose(1);
        assert_eq!(refused(&hurt, &settings), ("00000000000000000001.seg".to_owned(), 0));
        assert!(damage(&hurt, true).expect("cut").kept.is_empty());
        assert!(reopen(&hurt, &settings).expect("opens").0.topics.is_empty());
    }
}

/// After a power cut under a policy other than `Always`, nobody knows what had reached the disk. But a record that
/// was written after a sync shows that everything before it was there.
#[test]
fn only_unsynced_bytes_count_as_a_torn_write() {
    let settings = settings(Fsync::Never, 1 << 20);
    let simulated = SimulatedDisk::default();
    write(&simulated, &settings, 1, 5, true, true);
    write(&simulated, &settings, 6, 9, true, false);
    let bytes = simulated.segments().remove(&1).expect("one segment");
    let begins = begins(&bytes);
    // The records are a creation, a reservation, five messages, the clean shutdown, and four messages. The first
    // record after a start is synced.
    assert_eq!(begins.len(), 12);
    for (index, begin) in begins.iter().enumerate() {
        let hurt = simulated.image().rebooted();
        hurt.flip(1, begin + 8, 6);
        if index < 9 {
            assert_eq!(refused(&hurt, &settings).1, *begin as u64, "record {index}");
            continue;
        }
        let (recovered, _) = reopen(&hurt, &settings).expect("opens");
        assert_eq!(recovered.truncated_bytes, (bytes.len() - begin) as u64);
        let (kept, torn) = hurt.cut_files().pop_first().expect("kept");
        assert_eq!((recovered.kept, torn.len()), (Some(Ok(kept)), bytes.len() - begin));
        assert!(!recovered.whole && recovered.topics[0].next_offset > 9);
        assert_eq!(recovered.topics[0].last_offset, index as u64 - 3);
    }
}

/// Damage in an old segment: that segment is cut and the newer ones are moved away. An interruption at any moment
/// leaves a log that refuses to open until the repair is complete.
#[test]
fn a_repair_can_be_interrupted_at_any_moment() {
    let settings = settings(Fsync::Always, 300);
    let simulated = SimulatedDisk::default();
    let sequence = write(&simulated, &settings, 1, 80, true, true);
    let segments = simulated.segments();
    assert!(segments.len() > 6);
    let begins = begins(&segments[&3]);
    for hurt_at in [begins[1] + 4, 5] {
        let hurt = simulated.image().killed();
        hurt.flip(3, hurt_at, 1);
        let crash_points = Arc::new(Mutex::new(Vec::new()));
        {
            let crash_points = crash_points.clone();
            hurt.watch(move |image| crash_points.lock().push(image.clone()));
        }
        let cut = damage(&hurt, true).expect("cut");
        hurt.watch(|_| {});
        assert_eq!(cut.kept.len(), segments.len() - 2);
        let lost: usize = hurt.cut_files().values().map(Vec::len).sum();
        assert_eq!(lost as u64, cut.bytes);
        let crash_points = std::mem::take(&mut *crash_points.lock());
        assert!(crash_points.len() > 6);
        for (at, image) in crash_points.iter().enumerate() {
            for disk in [image.killed(), image.cut()] {
                assert!(reopen(&disk, &settings).is_err(), "moment {at}");
                damage(&disk, true).expect("goes on");
                let (recovered, _) = reopen(&disk, &settings).expect("opens");
                assert!(recovered.next_sequence > sequence && recovered.topics[0].next_offset > 80);
            }
        }
        let (log, acks, recovered) = start(&hurt, &settings);
        let topic = &recovered.topics[0];
        assert!(topic.last_offset > 3 && topic.last_offset < 80 && topic.next_offset > 80);
        log.append(&message_after(1, topic.last_offset, topic.next_offset, b"on"), ()).expect("appended");
        acks.wait(1);
        drop(log);
        let next = reopen(&hurt, &settings).expect("opens").0.topics[0].next_offset;
        assert_eq!(next, topic.next_offset + 1);
    }
}

/// The second damage removes the jump of the first repair. The second repair must not jump to the same offsets.
#[test]
fn offsets_that_a_repair_skipped_are_skipped_by_the_next_repair_too() {
    let settings = settings(Fsync::Always, 1 << 20);
    let simulated = SimulatedDisk::default();
    write(&simulated, &settings, 1, 5, true, true);
    let mut shown = 5;
    let mut sequence = 0;
    for _ in 0..3 {
        simulated.flip(1, SEGMENT_HEADER_BYTES + 60, 0);
        damage(&simulated, true).expect("cut");
        let (log, acks, recovered) = start(&simulated, &settings);
        let (last, next) = (recovered.topics[0].last_offset, recovered.topics[0].next_offset);
        assert!(next > shown);
        let given = log.append(&message_after(1, last, next, b"on"), ()).expect("appended");
        assert!(given > sequence);
        (sequence, shown) = (given, next);
        acks.wait(1);
        log.close().expect("closes");
    }
}

#[test]
fn torn_writes_are_kept_within_bounds() {
    let settings = settings(Fsync::Always, 1 << 20);
    let mut simulated = SimulatedDisk::default();
    write(&simulated, &settings, 1, 3, true, true);
    for round in 1..30 {
        simulated.tear(1, &vec![0; round]);
        let (recovered, _) = reopen(&simulated, &settings).expect("opens");
        assert_eq!(recovered.truncated_bytes, round as u64);
        let kept = recovered.kept.expect("torn").expect("kept");
        assert_eq!(simulated.cut_files()[&kept].len(), round);
        assert!(simulated.cut_files().len() <= 10);
        simulated = simulated.image().killed();
    }
}
