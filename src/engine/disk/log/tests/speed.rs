//! How long recovery takes. It is printed and not asserted, because the machine is not known.

use super::{super::files::READ_BYTES, *};

/// Writes `topics` times `each` messages of 100 bytes, in turn. Each topic's last message is at the end of the log.
fn fill(directory: &Path, topics: u64, each: u64) -> u64 {
    let settings = LogConfig { fsync: Fsync::Never, ..LogConfig::default() };
    let (_, ready) = Log::<u64>::open(directory, settings, &|_| 1000).expect("opens");
    let acks = RecordingSink::new();
    let log = ready.start(Box::new(acks.clone())).expect("starts");
    for topic in 0..topics {
        log.append(&created(topic, &[]), 0).expect("appended");
    }
    for offset in 1..=each {
        for topic in 0..topics {
            let record = message(topic, offset, &[b'x'; 100]);
            wait_until("room", || !matches!(log.append(&record, 0), Err(LogError::Busy)));
        }
    }
    acks.wait((topics * each + topics) as usize);
    log.close().expect("closes");
    log.metrics().bytes
}

fn recovery(topics: u64, each: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = fill(directory.path(), topics, each);
    let begun = Instant::now();
    let (recovered, _ready) = Log::<()>::open(directory.path(), LogConfig::default(), &|_| 1000).expect("opens");
    let took = begun.elapsed();
    println!("{topics} x {each} messages, {bytes} bytes: {took:?}, {} reads", recovered.reads);
    assert_eq!(recovered.topics.len() as u64, topics);
    for topic in &recovered.topics {
        assert!(topic.messages.iter().map(|m| m.offset).eq(1..=each));
    }
    // Each read is a large one, except at the end of a segment.
    assert!(recovered.reads <= bytes / READ_BYTES as u64 * 5 / 4 + 4, "{} reads", recovered.reads);
}

#[test]
fn recovery_reads_in_large_pieces() {
    recovery(100, 300);
}

#[test]
fn recovery_of_a_thousand_topics() {
    recovery(1000, 1000);
}
