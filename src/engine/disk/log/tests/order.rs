//! Many concurrent callers.

use super::*;

#[test]
fn concurrent_publishers_keep_the_order_of_their_locks() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = settings(Fsync::Interval(Duration::from_millis(2)), 64 << 10);
    let (_, ready) = Log::<(u64, u64)>::open(directory.path(), settings.clone(), &keep).expect("opens");
    let acks = RecordingSink::new();
    let log = ready.start(Box::new(acks.clone())).expect("starts");
    let (topics, threads, each) = (3, 8, 2000);
    for topic in 0..topics {
        log.append(&created(topic, &[]), (topic, 0)).expect("appended");
    }
    let next: Vec<Mutex<u64>> = (0..topics).map(|_| Mutex::new(1)).collect();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (next, log) = (&next, &log);
            scope.spawn(move || {
                for turn in 0..each {
                    let topic = (thread + turn) % topics;
                    let mut offset = next[topic as usize].lock();
                    log.append(&message(topic, *offset, &thread.to_le_bytes()), (topic, *offset)).expect("appended");
                    *offset += 1;
                }
            });
        }
    });
    let count = (topics + threads * each) as usize;
    acks.wait(count);
    for topic in 0..topics {
        let outcomes = acks.outcomes.lock();
        let offsets = outcomes.iter().filter(|((t, _), _)| *t == topic).map(|((_, offset), _)| *offset);
        assert!(offsets.eq(0..*next[topic as usize].lock()), "in order, each once");
    }
    let metrics = log.metrics();
    assert_eq!((metrics.records, metrics.queued_bytes), (count as u64, 0));
    assert!(metrics.batches < metrics.records && metrics.segments > 1);
    drop(log);
    let (recovered, _ready) = Log::<()>::open(directory.path(), settings, &keep).expect("opens");
    for (topic, next) in recovered.topics.iter().zip(&next) {
        assert!(topic.messages.iter().map(|m| m.offset).eq(1..*next.lock()));
    }
}

#[test]
fn a_full_queue_refuses_with_busy_and_the_rest_is_stored() {
    let simulated = SimulatedDisk::default();
    let settings = LogConfig { queue_bytes: 2000, max_record_bytes: 500, ..settings(Fsync::Always, 1 << 20) };
    let (_, ready) = reopen(&simulated, &settings).expect("opens");
    let (gate, acks) = (Arc::new(Mutex::new(())), RecordingSink::new());
    let log = ready.start(Box::new(GatedSink(gate.clone(), acks.clone()))).expect("starts");
    let closed = gate.lock();
    log.append(&created(1, &[]), 0).expect("appended");
    wait_until("the sink waits", || log.metrics().records == 1);
    let mut accepted = 0;
    let refused = loop {
        match log.append(&message(1, accepted + 1, &[0; 100]), accepted + 1) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LogError::Busy) && refused.certainly_not_stored());
    assert!((5..20).contains(&accepted), "{accepted}");
    drop(closed);
    acks.wait(accepted as usize + 1);
    log.append(&message(1, accepted + 1, b"room again"), accepted + 1).expect("appended");
    drop(log);
    assert_eq!(acks.count() as u64, accepted + 2);
    assert_eq!(offsets(&reopen(&simulated, &settings).expect("opens").0), [(1, (1..=accepted + 1).collect())]);
}
