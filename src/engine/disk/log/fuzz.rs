//! Reading logs of arbitrary bytes, for the fuzz targets alone.

#![expect(clippy::panic, clippy::expect_used, reason = "a test says what it expects by failing there")]

#[allow(
    dead_code,
    clippy::duplicate_mod,
    clippy::struct_excessive_bools,
    reason = "the unit tests have it, too, and want more of it; faults are many"
)]
#[path = "tests/simulated_disk.rs"]
mod simulated_disk;

use super::{
    Fsync, LogConfig, OpenError, Record, Recovered, RecoveredTopic,
    files::segment_header,
    frame::{FRAME_HEADER_BYTES, checksum},
    open,
    record::{StoredRecord, encode_clean_shutdown, encode_id, encode_reservation, encode_sequences},
};
use simulated_disk::SimulatedDisk;

/// Decodes a record's payload, encodes it again and compares the two. Returns whether the payload is valid.
///
/// # Panics
/// If the two differ.
#[must_use]
pub fn record(payload: &[u8]) -> bool {
    let Ok(stored) = StoredRecord::decode(payload) else { return false };
    let mut frame = Vec::new();
    let sequence = stored.sequence();
    match stored {
        StoredRecord::TopicCreated { topic_id, epoch, name, created_at_ms, implicit, settings, .. } => {
            Record::TopicCreated { topic_id, epoch, name, created_at_ms, implicit, settings }
                .encode(sequence, &mut frame);
        }
        StoredRecord::TopicUpdated { topic_id, implicit, floor, compacted_until, settings, .. } => {
            Record::TopicUpdated { topic_id, implicit, floor, compacted_until, settings }.encode(sequence, &mut frame);
        }
        StoredRecord::TopicDeleted { topic_id, epoch, name, newest_sequence, .. } => {
            Record::TopicDeleted { topic_id, epoch, name, newest_sequence }.encode(sequence, &mut frame);
        }
        StoredRecord::Message { message, .. } => {
            assert_eq!(Record::Message(message).invalid_reason(), None);
            Record::Message(message).encode(sequence, &mut frame);
        }
        StoredRecord::ConsumerPut { consumer, blob, .. } => {
            let (source, name) = (consumer.source, consumer.name);
            Record::ConsumerPut { source, name, blob }.encode(sequence, &mut frame);
        }
        StoredRecord::ConsumerDeleted { consumer, .. } => {
            let (source, name) = (consumer.source, consumer.name);
            Record::ConsumerDeleted { source, name }.encode(sequence, &mut frame);
        }
        StoredRecord::Reservation { topic_id, offsets } => encode_reservation(topic_id, offsets, &mut frame),
        StoredRecord::Id(id) => encode_id(id, &mut frame),
        StoredRecord::Sequences { upto } => encode_sequences(upto, &mut frame),
        StoredRecord::CleanShutdown => encode_clean_shutdown(&mut frame),
    }
    // A number can be encoded in more bytes than here, but not in fewer.
    let again = &frame[FRAME_HEADER_BYTES..];
    assert!(again.len() <= payload.len());
    let read = StoredRecord::decode(again);
    match (read, stored) {
        // A consumer's encoded key is compared by its fields, because it can differ in length.
        (
            Ok(StoredRecord::ConsumerPut { consumer, sequence, blob }),
            StoredRecord::ConsumerPut { consumer: c, sequence: s, blob: b },
        ) => {
            assert_eq!((consumer.source, consumer.name, sequence, blob), (c.source, c.name, s, b));
        }
        (
            Ok(StoredRecord::ConsumerDeleted { consumer, sequence }),
            StoredRecord::ConsumerDeleted { consumer: c, sequence: s },
        ) => {
            assert_eq!((consumer.source, consumer.name, sequence), (c.source, c.name, s));
        }
        (read, stored) => assert_eq!(read, Ok(stored)),
    }
    true
}

/// Opens a log of one segment with these records, followed by a torn write. Returns whether the log opens.
///
/// # Panics
/// If what is read is not a log: a topic has gaps, an offset could be used twice, or the next start reads something
/// else.
#[must_use]
pub fn log(payloads: &[&[u8]], torn: &[u8]) -> bool {
    let mut bytes = segment_header(1, 0).to_vec();
    for payload in payloads {
        let length = (payload.len() as u32).to_le_bytes();
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(&checksum(length, payload).to_le_bytes());
        bytes.extend_from_slice(payload);
    }
    let written = bytes.len();
    bytes.extend_from_slice(torn);
    let disk = SimulatedDisk::with([(1, bytes.clone())]);
    let settings = LogConfig { fsync: Fsync::Always, segment_bytes: 4 << 10, ..LogConfig::default() };
    let read = || {
        let keep = |settings: &[u8]| settings.first().map_or(3, |keep| usize::from(*keep));
        open(Box::new(disk.clone()), settings.clone(), &keep).map(|(recovered, _)| recovered)
    };
    let recovered = match read() {
        Ok(recovered) => recovered,
        Err(OpenError::Damaged { at, .. }) => {
            // A valid frame with an unknown content is damage. What follows the last valid frame is a torn write.
            assert!((at as usize) < bytes.len());
            return false;
        }
        Err(error) => panic!("{error}"),
    };
    assert!(payloads.iter().all(|payload| StoredRecord::decode(payload).is_ok()));
    assert!(written as u64 + recovered.truncated_bytes <= bytes.len() as u64);
    check(&recovered);
    let again = read().expect("it has opened before");
    check(&again);
    let content = |topics: &[RecoveredTopic]| {
        let content =
            topics.iter().map(|topic| (topic.id, topic.name.clone(), topic.settings.clone(), topic.messages.clone()));
        content.collect::<Vec<_>>()
    };
    assert_eq!(content(&again.topics), content(&recovered.topics));
    // Nothing of a torn write after a clean shutdown was ever shown, because the log is synced first. So the next
    // start need not skip the offsets that the first start skips to be safe.
    if torn.is_empty() {
        assert_eq!(format!("{:?}", again.topics), format!("{:?}", recovered.topics));
    }
    true
}

fn check(recovered: &Recovered) {
    for topic in &recovered.topics {
        assert!(topic.id <= recovered.highest_id);
        for pair in topic.messages.windows(2) {
            let follows = pair[1].prev == pair[0].offset || pair[1].prev <= topic.compacted_until;
            assert!(pair[0].offset < pair[1].offset && follows, "{topic:?}");
        }
        let newest = topic.messages.last().map_or(0, |message| message.offset);
        assert!(newest <= topic.last_offset, "{topic:?}");
        // There is no offset above the highest one.
        assert!(topic.last_offset < topic.next_offset || topic.last_offset == u64::MAX, "{topic:?}");
    }
}
