//! Disks that are full or fail, and a second process.

use std::sync::{Weak, mpsc};

use super::{simulated_disk::Faults, *};

/// Appends until the record is accepted: the sink hears that refusals are over a moment before the queue accepts
/// appends again.
fn append_again(log: &Log<u64>, record: &Record<'_>, token: u64) {
    wait_until("accepted again", || log.append(record, token).is_ok());
}

/// Returns the outcomes by token, `None` for success.
fn outcomes_of(acks: &RecordingSink<u64>) -> Vec<(u64, Option<String>)> {
    acks.outcomes.lock().iter().map(|(token, error)| (*token, error.as_ref().map(LogError::to_string))).collect()
}

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
    for fsync in [Fsync::Always, Fsync::Never] {
        for room in [0, 1, 20, 60] {
            let simulated = SimulatedDisk::default();
            let settings = settings(fsync, 1 << 20);
            let (log, acks, _) = start(&simulated, &settings);
            log.append(&created(1, &[]), 0).expect("appended");
            log.append(&message(1, 1, b"before"), 1).expect("appended");
            acks.wait(2);
            let before = simulated.segments();
            simulated.set(Faults { room: Some(room), ..Faults::default() });
            log.append(&message(1, 2, &[0; 100]), 2).expect("accepted");
            acks.wait(3);
            let error = acks.outcomes.lock()[2].1.clone().expect("no room");
            assert!(matches!(error, LogError::Full) && error.certainly_not_stored(), "{error}");
            assert_eq!(simulated.segments(), before, "the torn bytes were rolled back");
            // A refused record does not come back, even after a power cut.
            assert_eq!(offsets(&start::<()>(&simulated.image().cut(), &settings).2), [(1, vec![1])]);

            simulated.set(Faults::default());
            append_again(&log, &message(1, 2, b"after"), 3);
            acks.wait(4);
            assert!(acks.outcomes.lock()[3].1.is_none());
            log.close().expect("closes");
            let (recovered, _) = reopen(&simulated, &settings).expect("opens");
            assert_eq!(&recovered.topics[0].messages[1].data[..], b"after");
            assert!(recovered.clean);
        }
    }
}

/// Counts how often the log says that it would accept records again.
struct CountingSink(Arc<RecordingSink<u64>>, Arc<AtomicU64>);

impl Sink<u64> for CountingSink {
    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, u64>) {
        self.0.committed(outcome, tokens);
    }

    fn writable(&self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// The log finds out by itself that there is room again, without an append, and its probes leave nothing behind.
#[test]
fn the_log_reports_by_itself_that_there_is_room_again() {
    for (segment_bytes, fault) in [
        (1 << 20, Faults { room: Some(3_000), ..Faults::default() }),
        // There is room neither for the record nor for the segment that it needs.
        (1_000, Faults { room: Some(10), ..Faults::default() }),
        (1 << 20, Faults { write_fails: true, ..Faults::default() }),
    ] {
        let simulated = SimulatedDisk::default();
        let settings = settings(Fsync::Always, segment_bytes);
        let (_, ready) = reopen(&simulated, &settings).expect("opens");
        let (acks, writable_calls) = (RecordingSink::new(), Arc::new(AtomicU64::new(0)));
        let log = ready.start(Box::new(CountingSink(acks.clone(), writable_calls.clone()))).expect("starts");
        let writable_calls = || writable_calls.load(Ordering::Relaxed);
        log.append(&created(1, &[]), 0).expect("appended");
        log.append(&message(1, 1, &[0; 500]), 1).expect("appended");
        acks.wait(2);
        simulated.set(fault);
        log.append(&message(1, 2, &[0; 3_500]), 2).expect("accepted");
        acks.wait(3);
        let tries = simulated.changes();
        wait_until("two failed probes", || simulated.changes() > tries + 2);
        assert_eq!(writable_calls(), 0);
        simulated.set(Faults::default());
        wait_until("the sink was told", || writable_calls() == 1);
        // After a kill or a power cut only what was stored is found.
        for disk in [simulated.image().killed(), simulated.image().cut()] {
            assert_eq!(offsets(&reopen(&disk, &settings).expect("opens").0), [(1, vec![1])]);
        }
        log.append(&message(1, 2, &[0; 3_500]), 3).expect("accepted");
        acks.wait(4);
        assert!(acks.outcomes.lock()[3].1.is_none());
        assert_eq!(writable_calls(), 1);
        log.close().expect("closes");
        assert_eq!(offsets(&reopen(&simulated, &settings).expect("opens").0), [(1, vec![1, 2])]);
    }
}

/// A process that is killed during a probe leaves a torn write at the end.
#[test]
fn a_probe_that_a_kill_interrupts_is_cut_off() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1 << 20);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    acks.wait(1);
    simulated.set(Faults { room: Some(100), ..Faults::default() });
    log.append(&message(1, 1, &[0; 500]), 1).expect("accepted");
    acks.wait(2);
    let before = simulated.segments()[&1].len();
    let images = Arc::new(Mutex::new(Vec::new()));
    {
        let images = images.clone();
        simulated.watch(move |image| images.lock().push(image.clone()));
    }
    wait_until("a probe", || images.lock().iter().any(|image| image.killed().segments()[&1].len() > before));
    simulated.watch(|_| {});
    for image in images.lock().iter() {
        for disk in [image.killed(), image.cut()] {
            assert_eq!(offsets(&reopen(&disk, &settings).expect("opens").0), [(1, vec![])]);
        }
    }
}

#[test]
fn no_room_for_the_next_segment_leaves_no_trace_of_it() {
    for room in [0, 10, 24, 30] {
        let simulated = SimulatedDisk::default();
        let settings = settings(Fsync::Always, 200);
        let (log, acks, _) = start(&simulated, &settings);
        log.append(&created(1, &[]), 0).expect("appended");
        log.append(&message(1, 1, &[1; 60]), 1).expect("appended");
        acks.wait(2);
        simulated.set(Faults { room: Some(room), ..Faults::default() });
        log.append(&message(1, 2, &[2; 150]), 2).expect("accepted");
        acks.wait(3);
        assert!(matches!(acks.outcomes.lock()[2].1, Some(LogError::Full)));
        simulated.set(Faults::default());
        append_again(&log, &message(1, 2, &[3; 10]), 3);
        log.append(&message(1, 3, &[3; 150]), 4).expect("accepted");
        acks.wait(5);
        drop(log);
        assert_eq!(offsets(&reopen(&simulated, &settings).expect("opens").0), [(1, vec![1, 2, 3])]);
    }
}

#[test]
fn refused_records_do_not_come_back_though_the_kernel_had_written_some_of_them() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1 << 20);
    let (_, ready) = reopen(&simulated, &settings).expect("opens");
    let (gate, acks) = (Arc::new(Mutex::new(())), RecordingSink::new());
    let log = ready.start(Box::new(GatedSink(gate.clone(), acks.clone()))).expect("starts");
    let closed = gate.lock();
    log.append(&created(1, &[]), 0).expect("appended");
    wait_until("the sink waits", || log.metrics().records == 1);
    // The batch has ten records, and some of them fit whole.
    for offset in 1..=10 {
        log.append(&message(1, offset, &[0; 100]), offset).expect("appended");
    }
    simulated.set(Faults { room: Some(450), writes_through: true, ..Faults::default() });
    drop(closed);
    acks.wait(11);
    assert!(acks.outcomes.lock()[1..].iter().all(|(_, error)| matches!(error, Some(LogError::Full))));
    assert_eq!(offsets(&reopen(&simulated.image().cut(), &settings).expect("opens").0), [(1, vec![])]);
}

/// Appends from within the sink, where the log must not accept anything.
struct AppendingSink(Arc<Mutex<Weak<Log<u64>>>>, mpsc::Sender<(u64, bool)>);

impl Sink<u64> for AppendingSink {
    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, u64>) {
        let log = self.0.lock().upgrade();
        let refused = log.is_some_and(|log| matches!(log.append(&message(1, 9, b""), 9), Err(LogError::Full)));
        for token in tokens {
            let _ = self.1.send((token, outcome.is_err() && refused));
        }
    }
}

#[test]
fn nothing_is_accepted_while_the_sink_is_told_about_a_refusal() {
    let simulated = SimulatedDisk::default();
    simulated.set(Faults { room: Some(40), ..Faults::default() });
    let (_, ready) = reopen(&simulated, &settings(Fsync::Always, 1 << 20)).expect("opens");
    let (slot, (outcomes, received)) = (Arc::new(Mutex::new(Weak::new())), mpsc::channel());
    let log = Arc::new(ready.start(Box::new(AppendingSink(slot.clone(), outcomes))).expect("starts"));
    *slot.lock() = Arc::downgrade(&log);
    log.append(&created(1, &[]), 5).expect("accepted");
    assert_eq!(received.recv_timeout(DEADLINE), Ok((5, true)));
    log.close().expect("closes");
}

/// A caller as it should be: it assigns offsets under the lock under which it appends, and rolls an offset back under
/// the same lock when the record is not stored.
struct OffsetCounter {
    next: Mutex<u64>,
    outcomes: mpsc::Sender<Option<LogError>>,
}

struct RollingBackSink(Arc<OffsetCounter>);

impl Sink<u64> for RollingBackSink {
    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, u64>) {
        let mut next = self.0.next.lock();
        for offset in tokens {
            if outcome.is_err() {
                *next = (*next).min(offset);
            }
            let _ = self.0.outcomes.send(outcome.clone().err());
        }
    }
}

#[test]
fn a_full_disk_during_publishing_leaves_no_gap() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Never, 2000);
    let (outcomes, received) = mpsc::channel();
    let numbering = Arc::new(OffsetCounter { next: Mutex::new(1), outcomes });
    let (_, ready) = reopen(&simulated, &settings).expect("opens");
    let log = ready.start(Box::new(RollingBackSink(numbering.clone()))).expect("starts");
    log.append(&created(1, &[]), u64::MAX).expect("appended");
    let (mut accepted, mut stored, mut full) = (1, 0, 0);
    std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut accepted = 0;
                    for _ in 0..500 {
                        let mut next = numbering.next.lock();
                        if log.append(&message(1, *next, b"text"), *next).is_ok() {
                            *next += 1;
                            accepted += 1;
                        }
                    }
                    accepted
                })
            })
            .collect();
        for round in 0..50 {
            simulated.set(Faults { room: (round % 2 == 0).then_some(37), ..Faults::default() });
            std::thread::yield_now();
        }
        simulated.set(Faults::default());
        accepted += publishers.into_iter().map(|p| p.join().expect("published")).sum::<u64>();
    });
    for _ in 0..accepted {
        match received.recv_timeout(DEADLINE).expect("an outcome for each") {
            None => stored += 1,
            Some(LogError::Full) => full += 1,
            Some(other) => panic!("{other}"),
        }
    }
    log.close().expect("closes");
    println!("{stored} stored, {full} refused");
    let (recovered, _) = reopen(&simulated, &settings).expect("opens");
    if let Some(topic) = recovered.topics.first() {
        // There is no gap, each message has the right `prev`, and nothing that was refused is there.
        assert!(topic.messages.iter().zip(1..).all(|(m, offset)| (m.offset, m.prev) == (offset, offset - 1)));
        assert_eq!(topic.messages.len() as u64, stored - 1);
    }
}

#[test]
fn another_write_error_is_rolled_back_too() {
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings(Fsync::Always, 1 << 20));
    log.append(&created(1, &[]), 0).expect("appended");
    acks.wait(1);
    simulated.set(Faults { write_fails: true, ..Faults::default() });
    log.append(&message(1, 1, b""), 1).expect("accepted");
    acks.wait(2);
    simulated.set(Faults::default());
    append_again(&log, &message(1, 1, b""), 2);
    acks.wait(3);
    let reason = "writing failed and was rolled back: the controller is gone".to_owned();
    assert_eq!(outcomes_of(&acks), [(0, None), (1, Some(reason)), (2, None)]);
}

#[test]
fn a_torn_write_that_cannot_be_rolled_back_ends_the_log() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Never, 1 << 20);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    acks.wait(1);
    simulated.set(Faults { room: Some(10), truncate_fails: true, ..Faults::default() });
    log.append(&message(1, 1, b""), 1).expect("accepted");
    acks.wait(2);
    assert!(matches!(&acks.outcomes.lock()[1].1, Some(error @ LogError::Failed(_)) if !error.certainly_not_stored()));
    simulated.set(Faults::default());
    wait_until("refused", || matches!(log.append(&message(1, 2, b""), 2), Err(LogError::Stopped(_))));
    assert!(log.close().is_err());
    let (recovered, _) = reopen(&simulated, &settings).expect("opens");
    assert!(recovered.truncated_bytes > 0 && !recovered.clean);
    assert_eq!(offsets(&recovered), [(1, vec![])]);
}

#[test]
fn a_failed_sync_ends_the_log_for_ever() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1 << 20);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    acks.wait(1);
    simulated.set(Faults { sync_fails: true, ..Faults::default() });
    log.append(&message(1, 1, b""), 1).expect("accepted");
    acks.wait(2);
    assert!(matches!(&acks.outcomes.lock()[1].1, Some(error @ LogError::Failed(_)) if !error.certainly_not_stored()));
    // A sync that succeeds after a failed one proves nothing.
    simulated.set(Faults::default());
    let error = log.append(&message(1, 2, b""), 2).expect_err("stopped before the sink was told");
    assert!(matches!(&error, LogError::Stopped(why) if why.contains("00000000000000000001.seg")), "{error}");
    assert!(error.certainly_not_stored());
    assert!(log.close().is_err());
    assert!(!reopen(&simulated, &settings).expect("opens").0.clean);
}

#[test]
fn a_failed_sync_in_the_background_ends_the_log_too() {
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings(Fsync::Interval(Duration::from_millis(1)), 1 << 20));
    log.append(&created(1, &[]), 0).expect("appended");
    acks.wait(1);
    simulated.set(Faults { sync_fails: true, ..Faults::default() });
    log.append(&Record::TopicUpdated { topic_id: 1, implicit: false, floor: 0, compacted_until: 0, settings: &[] }, 1)
        .expect("accepted");
    acks.wait(2);
    assert_eq!(outcomes_of(&acks)[1], (1, None), "acknowledged after the write");
    wait_until("stopped", || matches!(log.append(&created(2, &[]), 2), Err(LogError::Stopped(_))));
}

#[test]
fn the_interval_syncs_by_itself_and_only_while_there_is_something() {
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings(Fsync::Interval(Duration::from_millis(1)), 1 << 20));
    log.append(&created(1, &[]), 0).expect("appended");
    log.append(&message(1, 1, b""), 1).expect("appended");
    acks.wait(2);
    wait_until("the first sync", || log.metrics().syncs >= 1);
    log.append(&message(1, 2, b""), 2).expect("appended");
    acks.wait(3);
    wait_until("durable", || {
        offsets(&start::<()>(&simulated.image().cut(), &settings(Fsync::Never, 1000)).2) == [(1, vec![1, 2])]
    });
    assert!(log.metrics().syncs <= 4, "{:?}", log.metrics());
}

#[test]
fn short_writes_are_finished() {
    let simulated = SimulatedDisk::default();
    simulated.set(Faults { short_writes: Some(3), ..Faults::default() });
    let settings = settings(Fsync::Always, 300);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    for offset in 1..=20 {
        log.append(&message(1, offset, b"some words"), offset).expect("appended");
    }
    acks.wait(21);
    drop(log);
    assert_eq!(offsets(&reopen(&simulated, &settings).expect("opens").0), [(1, (1..=20).collect())]);
}

#[test]
fn a_sink_that_panics_leaves_nobody_waiting() {
    struct Panics;
    impl Sink<mpsc::Sender<()>> for Panics {
        fn committed(&self, _: Result<(), LogError>, _: Drain<'_, mpsc::Sender<()>>) {
            panic!("on purpose");
        }
    }
    let (_, ready) = reopen(&SimulatedDisk::default(), &settings(Fsync::Never, 1000)).expect("opens");
    let log = ready.start(Box::new(Panics)).expect("starts");
    let (token, dropped) = mpsc::channel();
    log.append(&created(1, &[]), token).expect("accepted");
    assert_eq!(dropped.recv_timeout(DEADLINE), Err(mpsc::RecvTimeoutError::Disconnected));
    wait_until("refused", || matches!(log.append(&created(1, &[]), mpsc::channel().0), Err(LogError::Stopped(_))));
    assert!(log.close().is_err());
}

#[test]
fn a_second_opening_is_refused_while_the_first_lives() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("new");
    let open = || Log::<()>::open(&path, LogConfig::default(), &keep);
    let (_, ready) = open().expect("opens");
    let refused = open().err().expect("locked");
    assert!(matches!(refused, OpenError::Locked(_)));
    assert_eq!(refused.to_string(), format!("{} is in use by another process", path.display()));
    let log = ready.start(Box::new(RecordingSink::<()>::new())).expect("starts");
    assert!(open().is_err());
    drop(log);
    assert!(open().is_ok());
}

const CHILD: &str = "SEGLOG_TEST_DIRECTORY";

/// Not a test by itself. The next test runs it in another process.
#[test]
fn child_opens_what_the_environment_names() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    match Log::<()>::open(Path::new(&path), LogConfig::default(), &keep) {
        Err(OpenError::Locked(_)) => {}
        other => panic!("not locked: {:?}", other.err()),
    }
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let _first = Log::<()>::open(directory.path(), LogConfig::default(), &keep).expect("opens");
    let this = std::env::current_exe().expect("a program");
    let child = std::process::Command::new(this)
        .args(["--exact", "--test-threads=1"])
        .arg(concat!(module_path!(), "::child_opens_what_the_environment_names").split_once("::").map_or("", |p| p.1))
        .env(CHILD, directory.path())
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
