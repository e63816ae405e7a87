//! Segment files that differ from what was written.

use super::{
    super::{
        files::{FORMAT, READ_BYTES, SEGMENT_HEADER_BYTES, segment_header},
        frame::{FRAME_HEADER_BYTES, MAX_PAYLOAD, checksum, frames},
        record::StoredRecord,
    },
    simulated_disk::Rng,
    *,
};

/// Returns a small log of one segment, and where its frames end.
fn small() -> (Vec<u8>, Vec<usize>) {
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings(Fsync::Always, 1 << 20));
    log.append(&created(1, &[]), ()).expect("appended");
    for offset in 1..=6 {
        acks.wait(offset as usize);
        log.append(&message(1, offset, b"some words"), ()).expect("appended");
    }
    log.append(&Record::TopicUpdated { topic_id: 1, implicit: true, floor: 0, compacted_until: 0, settings: &[] }, ())
        .expect("appended");
    acks.wait(8);
    let bytes = simulated.segments().remove(&1).expect("one segment");
    let mut ends = vec![SEGMENT_HEADER_BYTES];
    ends.extend(frames(&bytes[SEGMENT_HEADER_BYTES..]).scan(SEGMENT_HEADER_BYTES, |end, frame| {
        *end += frame.len();
        Some(*end)
    }));
    (bytes, ends)
}

/// Returns how many messages are recovered when whole frames end at `end`. The topic's creation and a reservation
/// come first.
fn messages_within(ends: &[usize], end: usize) -> u64 {
    let frames = ends.iter().filter(|e| **e <= end).count().saturating_sub(1);
    frames.saturating_sub(2).min(6) as u64
}

/// Opens the log, checks that it holds what the first `end` bytes say, and appends to it.
fn check_prefix(bytes: Vec<u8>, ends: &[usize], end: usize) {
    let size = bytes.len();
    let simulated = SimulatedDisk::with([(1, bytes)]);
    let (log, acks, recovered) = start(&simulated, &settings(Fsync::Always, 1 << 20));
    let whole = ends.iter().copied().filter(|e| *e <= end).max().unwrap_or(0);
    assert_eq!(recovered.truncated_bytes, (size - whole) as u64);
    let kept: Vec<usize> = simulated.cut_files().values().map(Vec::len).collect();
    assert_eq!(kept, if whole > 0 && size > whole { vec![size - whole] } else { vec![] });
    assert!(!recovered.clean || whole <= SEGMENT_HEADER_BYTES && size == whole || size == 0);
    let expected = messages_within(ends, end);
    let found = recovered.topics.first().map_or(0, |topic| topic.last_offset);
    assert_eq!(found, expected, "cut at {end}");
    assert_eq!(recovered.topics.len(), usize::from(ends.iter().filter(|e| **e <= end).count() > 1));

    log.append(&created(1, &[]), ()).expect("appended");
    log.append(&message(1, expected + 1, b"more"), ()).expect("appended");
    acks.wait(2);
    drop(log);
    let (recovered, _) = reopen(&simulated, &settings(Fsync::Always, 1 << 20)).expect("opens again");
    assert_eq!(offsets(&recovered), [(1, (1..=expected + 1).collect())]);
    assert!(recovered.clean);
}

#[test]
fn a_log_cut_at_any_byte_is_its_valid_prefix() {
    let (bytes, ends) = small();
    assert_eq!(ends.last(), Some(&bytes.len()));
    for cut in 0..=bytes.len() {
        check_prefix(bytes[..cut].to_vec(), &ends, cut);
    }
}

#[test]
fn a_flipped_bit_ends_the_log_in_its_last_record_and_is_refused_in_an_earlier_one() {
    let (bytes, ends) = small();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let sealed = SimulatedDisk::with([(1, flipped.clone()), (2, segment_header(2, 0).to_vec())]);
        let refused = reopen(&sealed, &settings(Fsync::Always, 1 << 20)).err();
        let (OpenError::Damaged { file, .. } | OpenError::UnknownVersion { file, .. }) = refused.expect("refused")
        else {
            panic!("not the file's fault?")
        };
        assert_eq!(file, "00000000000000000001.seg");
        let begin = ends.iter().copied().filter(|end| *end <= bit / 8).max().unwrap_or(0);
        if ends[ends.len() - 2..].contains(&begin) {
            check_prefix(flipped, &ends, bit / 8);
        } else {
            // Other records follow this one, or records follow the header that were synced after it. So no torn write
            // explains the damage.
            let error = reopen(&SimulatedDisk::with([(1, flipped)]), &settings(Fsync::Always, 1 << 20)).err();
            match error.expect("refused") {
                OpenError::Damaged { at, .. } => assert_eq!(at, begin as u64),
                error => assert!(begin == 0 && matches!(error, OpenError::UnknownVersion { .. })),
            }
        }
    }
}

#[test]
fn damage_in_a_sealed_segment_names_file_and_byte() {
    let (mut bytes, ends) = small();
    bytes[ends[2] + FRAME_HEADER_BYTES] ^= 1;
    let simulated = SimulatedDisk::with([(1, bytes.clone()), (2, segment_header(2, 0).to_vec())]);
    let error = reopen(&simulated, &settings(Fsync::Always, 1 << 20)).err().expect("refused");
    let expected = format!("00000000000000000001.seg is damaged at byte {}: a record's checksum differs", ends[2]);
    assert_eq!(error.to_string(), expected);
    assert_eq!(simulated.segments()[&1], bytes, "left as it was");

    let (bytes, ends) = small();
    let simulated = SimulatedDisk::with([(1, bytes[..ends[3] + 5].to_vec()), (2, segment_header(2, 0).to_vec())]);
    let error = reopen(&simulated, &settings(Fsync::Always, 1 << 20)).err().expect("refused");
    assert!(error.to_string().contains(&format!("byte {}: a record's length is cut off", ends[3])), "{error}");
}

#[test]
fn an_end_of_zeros_or_noise_is_cut_off() {
    let (bytes, ends) = small();
    let mut rng = Rng::new(1);
    for length in [1, 7, 8, 9, 100, 5000] {
        let zeros = [&bytes[..], &vec![0; length]].concat();
        check_prefix(zeros, &ends, bytes.len());
        let noise: Vec<u8> = (0..length).map(|_| rng.below(256) as u8).collect();
        check_prefix([&bytes[..], &noise].concat(), &ends, bytes.len());
    }
}

#[test]
fn a_wild_length_reads_and_holds_no_more_than_the_file() {
    let (bytes, ends) = small();
    for length in [MAX_PAYLOAD as u32, MAX_PAYLOAD as u32 + 1, u32::MAX, bytes.len() as u32, 0] {
        let tail = [&length.to_le_bytes()[..], &[0; 400]].concat();
        let wild = [&bytes[..], &tail].concat();
        let size = wild.len();
        let simulated = SimulatedDisk::with([(1, wild.clone())]);
        reopen(&simulated, &settings(Fsync::Always, 1 << 20)).expect("opens");
        assert!(simulated.reads().1 <= size, "a read of {} bytes for a file of {size}", simulated.reads().1);
        check_prefix(wild, &ends, bytes.len());
    }
}

#[test]
fn a_lower_limit_does_not_make_larger_records_damage() {
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings(Fsync::Always, 1000));
    log.append(&created(1, &[]), ()).expect("appended");
    // The record is larger than a segment and larger than one read.
    let data = vec![7; 3 * READ_BYTES + 5];
    log.append(&message(1, 1, &data), ()).expect("appended");
    log.append(&message(1, 2, b"x"), ()).expect("appended");
    acks.wait(3);
    drop(log);
    let lower = LogConfig { max_record_bytes: 10, ..settings(Fsync::Always, 1000) };
    let (recovered, _) = reopen(&simulated, &lower).expect("opens");
    assert_eq!(recovered.topics[0].messages[0].data, data);
    assert_eq!(offsets(&recovered), [(1, vec![1, 2])]);
}

#[test]
fn another_format_version_is_refused() {
    let (mut bytes, _) = small();
    bytes[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    let error = reopen(&SimulatedDisk::with([(1, bytes)]), &settings(Fsync::Always, 1000)).err().expect("refused");
    assert_eq!(error.to_string(), "00000000000000000001.seg has format version 5; this build reads versions 2 to 4");
}

#[test]
fn a_valid_record_of_an_unknown_kind_is_refused_even_at_the_end() {
    let (bytes, _) = small();
    let payload = [200, 1, 2];
    let length = (payload.len() as u32).to_le_bytes();
    let sum = checksum(length, &payload).to_le_bytes();
    let newer = [&bytes[..], &length, &sum, &payload].concat();
    let error = reopen(&SimulatedDisk::with([(1, newer)]), &settings(Fsync::Always, 1000)).err().expect("refused");
    assert!(error.to_string().ends_with("a record of an unknown kind"), "{error}");
}

#[test]
fn no_payload_makes_the_decoder_panic() {
    let mut rng = Rng::new(2);
    for _ in 0..200_000 {
        let length = rng.below(40);
        let mut payload: Vec<u8> = (0..length).map(|_| rng.below(256) as u8).collect();
        if let Some(kind) = payload.first_mut() {
            *kind %= 10;
        }
        let _ = StoredRecord::decode(&payload);
    }
}

#[test]
fn a_segment_with_an_incomplete_header_is_created_again() {
    let (bytes, _) = small();
    for begun in [vec![], segment_header(2, 0)[..10].to_vec(), vec![0; SEGMENT_HEADER_BYTES]] {
        let simulated = SimulatedDisk::with([(1, bytes.clone()), (2, begun)]);
        let (log, acks, recovered) = start(&simulated, &settings(Fsync::Always, 1 << 20));
        assert_eq!(offsets(&recovered), [(1, (1..=6).collect())]);
        log.append(&message(1, 7, b""), ()).expect("appended");
        acks.wait(1);
        drop(log);
        let (recovered, _) = reopen(&simulated, &settings(Fsync::Always, 1 << 20)).expect("opens");
        assert_eq!(offsets(&recovered), [(1, (1..=7).collect())]);
    }
}
