//! Damage where the log was whole once, and the repair that somebody asks for.

use super::{
    super::{
        files::SEGMENT_HEADER_BYTES,
        frame::frames,
        repair::{Damage, repair_on},
    },
    *,
};

const EACH: [Fsync; 3] = [Fsync::Always, Fsync::Interval(Duration::from_secs(60)), Fsync::Never];

/// Writes messages of one topic, all in one batch or one by one; tells the highest sequence number.
fn write(fake: &SimulatedDisk, settings: &LogConfig, from: u64, to: u64, one_by_one: bool, close: bool) -> u64 {
    let (log, acks, _) = start(fake, settings);
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
        // As a kill leaves it.
        let image = fake.image();
        drop(log);
        fake.become_as(&image.killed());
    }
    sequence
}

/// Where the frames of a segment begin.
fn begins(bytes: &[u8]) -> Vec<usize> {
    let ends = frames(&bytes[SEGMENT_HEADER_BYTES..]).scan(SEGMENT_HEADER_BYTES, |end, frame| {
        let begin = *end;
        *end += frame.len();
        Some(begin)
    });
    ends.collect()
}

fn refused(fake: &SimulatedDisk, settings: &LogConfig) -> (String, u64) {
    match reopen(fake, settings).err().expect("refused") {
        OpenError::Damaged { file, at, .. } => (file, at),
        error => panic!("{error}"),
    }
}

fn damage(fake: &SimulatedDisk, cut: bool) -> Option<Damage> {
    repair_on(fake, cut).expect("repairs").damage
}

/// Three bytes in the midst of a young log cut nothing off by themselves, however it was ended; a repair cuts there.
#[test]
fn damage_where_the_log_was_whole_refuses_and_can_be_repaired() {
    for (fsync, close) in EACH.into_iter().flat_map(|fsync| [(fsync, true), (fsync, false)]) {
        for one_by_one in [true, false] {
            let settings = settings(fsync, 1 << 20);
            let fake = SimulatedDisk::default();
            let sequence = write(&fake, &settings, 1, 12, one_by_one, close);
            let bytes = fake.segments().remove(&1).expect("one segment");
            for begin in begins(&bytes) {
                let hurt = fake.image().killed();
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

/// A file that ends before the place that is known to have been written.
#[test]
fn a_log_that_was_longer_refuses() {
    for (fsync, close) in EACH.into_iter().flat_map(|fsync| [(fsync, true), (fsync, false)]) {
        let settings = settings(fsync, 1 << 20);
        let fake = SimulatedDisk::default();
        write(&fake, &settings, 1, 5, true, close);
        let bytes = fake.segments().remove(&1).expect("one segment");
        let begins = begins(&bytes);
        let last = *begins.last().expect("there are records");
        for left in [last, last + 3, SEGMENT_HEADER_BYTES] {
            let hurt = fake.image().killed();
            hurt.cut_off(1, bytes.len() - left);
            let at = if left > last { last } else { left } as u64;
            assert_eq!(refused(&hurt, &settings).1, at, "{fsync:?}");
            assert_eq!(damage(&hurt, true).expect("cut").at, at);
            assert!(reopen(&hurt, &settings).is_ok());
        }
        if fsync == Fsync::Always || close {
            // Not even a power cut takes what was synced, from a disk that says the truth.
            let hurt = fake.image().rebooted();
            hurt.cut_off(1, 3);
            assert_eq!(refused(&hurt, &settings).1, last as u64);
        }
        let hurt = fake.image().killed();
        hurt.lose(1);
        assert_eq!(refused(&hurt, &settings), ("00000000000000000001.seg".to_owned(), 0));
        assert!(damage(&hurt, true).expect("cut").kept.is_empty());
        assert!(reopen(&hurt, &settings).expect("opens").0.topics.is_empty());
    }
}

/// After a power cut under a lax policy nobody knows what the disk had got; but a record that was written after a sync
/// shows that all before it was there.
#[test]
fn only_what_no_sync_covered_is_taken_for_torn() {
    let settings = settings(Fsync::Never, 1 << 20);
    let fake = SimulatedDisk::default();
    write(&fake, &settings, 1, 5, true, true);
    write(&fake, &settings, 6, 9, true, false);
    let bytes = fake.segments().remove(&1).expect("one segment");
    let begins = begins(&bytes);
    // A creation, a reservation, five messages, the clean end, four messages: the first record of an incarnation is synced.
    assert_eq!(begins.len(), 12);
    for (index, begin) in begins.iter().enumerate() {
        let hurt = fake.image().rebooted();
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

/// Damage in an old segment: that one is cut, the younger ones are set cut_files, and an interruption at any moment leaves a
/// log that refuses to open until the repair is done.
#[test]
fn a_repair_can_be_interrupted_at_any_moment() {
    let settings = settings(Fsync::Always, 300);
    let fake = SimulatedDisk::default();
    let sequence = write(&fake, &settings, 1, 80, true, true);
    let segments = fake.segments();
    assert!(segments.len() > 6);
    let begins = begins(&segments[&3]);
    for hurt_at in [begins[1] + 4, 5] {
        let hurt = fake.image().killed();
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

/// A second repair whose damage takes the jump of the first one with it does not jump to the same place.
#[test]
fn what_a_repair_skipped_is_skipped_by_the_next_one_too() {
    let settings = settings(Fsync::Always, 1 << 20);
    let fake = SimulatedDisk::default();
    write(&fake, &settings, 1, 5, true, true);
    let mut shown = 5;
    let mut sequence = 0;
    for _ in 0..3 {
        fake.flip(1, SEGMENT_HEADER_BYTES + 60, 0);
        damage(&fake, true).expect("cut");
        let (log, acks, recovered) = start(&fake, &settings);
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
fn torn_ends_are_kept_within_bounds() {
    let settings = settings(Fsync::Always, 1 << 20);
    let mut fake = SimulatedDisk::default();
    write(&fake, &settings, 1, 3, true, true);
    for round in 1..30 {
        fake.tear(1, &vec![0; round]);
        let (recovered, _) = reopen(&fake, &settings).expect("opens");
        assert_eq!(recovered.truncated_bytes, round as u64);
        let kept = recovered.kept.expect("torn").expect("kept");
        assert_eq!(fake.cut_files()[&kept].len(), round);
        assert!(fake.cut_files().len() <= 10);
        fake = fake.image().killed();
    }
}
