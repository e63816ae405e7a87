//! Disks that are full or fail, and a second process.

use std::sync::{Weak, mpsc};

use super::{simulated_disk::Faults, *};

/// Appends as soon as the refusals are over: the sink hears of them a moment before.
fn append_again(log: &Log<u64>, record: &Record<'_>, token: u64) {
    wait_until("accepted again", || log.append(record, token).is_ok());
}

/// The errors that were heard, by token; `None` for success.
fn heard(acks: &RecordingSink<u64>) -> Vec<(u64, Option<String>)> {
    acks.outcomes.lock().iter().map(|(token, error)| (*token, error.as_ref().map(LogError::to_string))).collect()
}

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
    for fsync in [Fsync::Always, Fsync::Never] {
        for room in [0, 1, 20, 60] {
            let fake = SimulatedDisk::default();
            let settings = settings(fsync, 1 << 20);
            let (log, acks, _) = start(&fake, &settings);
            log.append(&created(1, &[]), 0).expect("appended");
            log.append(&message(1, 1, b"before"), 1).expect("appended");
            acks.wait(2);
            let before = fake.segments();
            fake.set(Faults { room: Some(room), ..Faults::default() });
            log.append(&message(1, 2, &[0; 100]), 2).expect("accepted");
            acks.wait(3);
            let error = acks.outcomes.lock()[2].1.clone().expect("no room");
            assert!(matches!(error, LogError::Full) && error.certainly_not_stored(), "{error}");
            assert_eq!(fake.segments(), before, "the torn bytes were taken back");
            // Not even a power cut brings back what was refused.
            assert_eq!(offsets(&start::<()>(&fake.image().cut(), &settings).2), [(1, vec![1])]);

            fake.set(Faults::default());
            append_again(&log, &message(1, 2, b"after"), 3);
            acks.wait(4);
            assert!(acks.outcomes.lock()[3].1.is_none());
            log.close().expect("closes");
            let (recovered, _) = reopen(&fake, &settings).expect("opens");
            assert_eq!(&recovered.topics[0].messages[1].data[..], b"after");
            assert!(recovered.clean);
        }
    }
}

/// Counts how often it hears that records would be taken again.
struct CountingSink(Arc<RecordingSink<u64>>, Arc<AtomicU64>);

impl Sink<u64> for CountingSink {
    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, u64>) {
        self.0.committed(outcome, tokens);
    }

    fn writable(&self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// Nobody has to publish in vain to find out that there is room again, and finding out leaves nothing behind.
#[test]
fn the_log_says_by_itself_that_there_is_room_again() {
    for (segment_bytes, fault) in [
        (1 << 20, Faults { room: Some(3_000), ..Faults::default() }),
        // Room for neither the record nor the segment that it needs.
        (1_000, Faults { room: Some(10), ..Faults::default() }),
        (1 << 20, Faults { write_fails: true, ..Faults::default() }),
    ] {
        let fake = SimulatedDisk::default();
        let settings = settings(Fsync::Always, segment_bytes);
        let (_, ready) = reopen(&fake, &settings).expect("opens");
        let (acks, heard) = (RecordingSink::new(), Arc::new(AtomicU64::new(0)));
        let log = ready.start(Box::new(CountingSink(acks.clone(), heard.clone()))).expect("starts");
        let heard = || heard.load(Ordering::Relaxed);
        log.append(&created(1, &[]), 0).expect("appended");
        log.append(&message(1, 1, &[0; 500]), 1).expect("appended");
        acks.wait(2);
        fake.set(fault);
        log.append(&message(1, 2, &[0; 3_500]), 2).expect("accepted");
        acks.wait(3);
        let tries = fake.changes();
        wait_until("two vain tries", || fake.changes() > tries + 2);
        assert_eq!(heard(), 0);
        fake.set(Faults::default());
        wait_until("it was heard", || heard() == 1);
        // Neither a kill nor a power cut finds more than was stored.
        for disk in [fake.image().killed(), fake.image().cut()] {
            assert_eq!(offsets(&reopen(&disk, &settings).expect("opens").0), [(1, vec![1])]);
        }
        log.append(&message(1, 2, &[0; 3_500]), 3).expect("accepted");
        acks.wait(4);
        assert!(acks.outcomes.lock()[3].1.is_none());
        assert_eq!(heard(), 1);
        log.close().expect("closes");
        assert_eq!(offsets(&reopen(&fake, &settings).expect("opens").0), [(1, vec![1, 2])]);
    }
}

/// Killed in the midst of a probe: what is left of it is a torn end.
#[test]
fn a_probe_that_a_kill_interrupts_is_cut_off() {
    let fake = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1 << 20);
    let (log, acks, _) = start(&fake, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    acks.wait(1);
    fake.set(Faults { room: Some(100), ..Faults::default() });
    log.append(&message(1, 1, &[0; 500]), 1).expect("accepted");
    acks.wait(2);
    let before = fake.segments()[&1].len();
    let images = Arc::new(Mutex::new(Vec::new()));
    {
        let images = images.clone();
        fake.watch(move |image| images.lock().push(image.clone()));
    }
    wait_until("a probe", || images.lock().iter().any(|image| image.killed().segments()[&1].len() > before));
    fake.watch(|_| {});
    for image in images.lock().iter() {
        for disk in [image.killed(), image.cut()] {
            assert_eq!(offsets(&reopen(&disk, &settings).expect("opens").0), [(1, vec![])]);
        }
    }
}

#[test]
fn no_room_for_the_next_segment_leaves_no_trace_of_it() {
    for room in [0, 10, 24, 30] {
        let fake = SimulatedDisk::default();
        let settings = settings(Fsync::Always, 200);
        let (log, acks, _) = start(&fake, &settings);
        log.append(&created(1, &[]), 0).expect("appended");
        log.append(&message(1, 1, &[1; 60]), 1).expect("appended");
        acks.wait(2);
        fake.set(Faults { room: Some(room), ..Faults::default() });
        log.append(&message(1, 2, &[2; 150]), 2).expect("accepted");
        acks.wait(3);
        assert!(matches!(acks.outcomes.lock()[2].1, Some(LogError::Full)));
        fake.set(Faults::default());
        append_again(&log, &message(1, 2, &[3; 10]), 3);
        log.append(&message(1, 3, &[3; 150]), 4).expect("accepted");
        acks.wait(5);
        drop(log);
        assert_eq!(offsets(&reopen(&fake, &settings).expect("opens").0), [(1, vec![1, 2, 3])]);
    }
}

#[test]
fn what_was_refused_stays_away_though_the_kernel_had_written_some_of_it() {
    let fake = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1 << 20);
    let (_, ready) = reopen(&fake, &settings).expect("opens");
    let (gate, acks) = (Arc::new(Mutex::new(())), RecordingSink::new());
    let log = ready.start(Box::new(GatedSink(gate.clone(), acks.clone()))).expect("starts");
    let closed = gate.lock();
    log.append(&created(1, &[]), 0).expect("appended");
    wait_until("the sink waits", || log.metrics().records == 1);
    // One batch, of which whole records fit.
    for offset in 1..=10 {
        log.append(&message(1, offset, &[0; 100]), offset).expect("appended");
    }
    fake.set(Faults { room: Some(450), writes_through: true, ..Faults::default() });
    drop(closed);
    acks.wait(11);
    assert!(acks.outcomes.lock()[1..].iter().all(|(_, error)| matches!(error, Some(LogError::Full))));
    assert_eq!(offsets(&reopen(&fake.image().cut(), &settings).expect("opens").0), [(1, vec![])]);
}

/// Appends from within, where it cannot be accepted.
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
fn nothing_is_accepted_while_a_refusal_is_being_told() {
    let fake = SimulatedDisk::default();
    fake.set(Faults { room: Some(40), ..Faults::default() });
    let (_, ready) = reopen(&fake, &settings(Fsync::Always, 1 << 20)).expect("opens");
    let (slot, (outcomes, told)) = (Arc::new(Mutex::new(Weak::new())), mpsc::channel());
    let log = Arc::new(ready.start(Box::new(AppendingSink(slot.clone(), outcomes))).expect("starts"));
    *slot.lock() = Arc::downgrade(&log);
    log.append(&created(1, &[]), 5).expect("accepted");
    assert_eq!(told.recv_timeout(DEADLINE), Ok((5, true)));
    log.close().expect("closes");
}

/// A caller as it should be: it numbers under the lock under which it appends, and takes a number back under it when
/// told that the record is not stored.
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
fn a_full_disk_in_the_midst_of_publishing_leaves_no_hole() {
    let fake = SimulatedDisk::default();
    let settings = settings(Fsync::Never, 2000);
    let (outcomes, told) = mpsc::channel();
    let numbering = Arc::new(OffsetCounter { next: Mutex::new(1), outcomes });
    let (_, ready) = reopen(&fake, &settings).expect("opens");
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
            fake.set(Faults { room: (round % 2 == 0).then_some(37), ..Faults::default() });
            std::thread::yield_now();
        }
        fake.set(Faults::default());
        accepted += publishers.into_iter().map(|p| p.join().expect("published")).sum::<u64>();
    });
    for _ in 0..accepted {
        match told.recv_timeout(DEADLINE).expect("an outcome for each") {
            None => stored += 1,
            Some(LogError::Full) => full += 1,
            Some(other) => panic!("{other}"),
        }
    }
    log.close().expect("closes");
    println!("{stored} stored, {full} refused");
    let (recovered, _) = reopen(&fake, &settings).expect("opens");
    if let Some(topic) = recovered.topics.first() {
        // Dense, each with its prev; nothing that was refused is there.
        assert!(topic.messages.iter().zip(1..).all(|(m, offset)| (m.offset, m.prev) == (offset, offset - 1)));
        assert_eq!(topic.messages.len() as u64, stored - 1);
    }
}

#[test]
fn another_write_error_is_taken_back_too() {
    let fake = SimulatedDisk::default();
    let (log, acks, _) = start(&fake, &settings(Fsync::Always, 1 << 20));
    log.append(&created(1, &[]), 0).expect("appended");
    acks.wait(1);
    fake.set(Faults { write_fails: true, ..Faults::default() });
    log.append(&message(1, 1, b""), 1).expect("accepted");
    acks.wait(2);
    fake.set(Faults::default());
    append_again(&log, &message(1, 1, b""), 2);
    acks.wait(3);
    let reason = "writing failed and was rolled back: the controller is gone".to_owned();
    assert_eq!(heard(&acks), [(0, None), (1, Some(reason)), (2, None)]);
}

#[test]
fn a_torn_write_that_cannot_be_taken_back_ends_the_log() {
    let fake = SimulatedDisk::default();
    let settings = settings(Fsync::Never, 1 << 20);
    let (log, acks, _) = start(&fake, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    acks.wait(1);
    fake.set(Faults { room: Some(10), truncate_fails: true, ..Faults::default() });
    log.append(&message(1, 1, b""), 1).expect("accepted");
    acks.wait(2);
    assert!(matches!(&acks.outcomes.lock()[1].1, Some(error @ LogError::Failed(_)) if !error.certainly_not_stored()));
    fake.set(Faults::default());
    wait_until("refused", || matches!(log.append(&message(1, 2, b""), 2), Err(LogError::Stopped(_))));
    assert!(log.close().is_err());
    let (recovered, _) = reopen(&fake, &settings).expect("opens");
    assert!(recovered.truncated_bytes > 0 && !recovered.clean);
    assert_eq!(offsets(&recovered), [(1, vec![])]);
}

#[test]
fn a_failed_sync_ends_the_log_for_ever() {
    let fake = SimulatedDisk::default();
    let settings = settings(Fsync::Always, 1 << 20);
    let (log, acks, _) = start(&fake, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    acks.wait(1);
    fake.set(Faults { sync_fails: true, ..Faults::default() });
    log.append(&message(1, 1, b""), 1).expect("accepted");
    acks.wait(2);
    assert!(matches!(&acks.outcomes.lock()[1].1, Some(error @ LogError::Failed(_)) if !error.certainly_not_stored()));
    // A sync that succeeds after one that failed proves nothing.
    fake.set(Faults::default());
    let error = log.append(&message(1, 2, b""), 2).expect_err("stopped before the sink was told");
    assert!(matches!(&error, LogError::Stopped(why) if why.contains("00000000000000000001.seg")), "{error}");
    assert!(error.certainly_not_stored());
    assert!(log.close().is_err());
    assert!(!reopen(&fake, &settings).expect("opens").0.clean);
}

#[test]
fn a_failed_sync_in_the_background_ends_the_log_too() {
    let fake = SimulatedDisk::default();
    let (log, acks, _) = start(&fake, &settings(Fsync::Interval(Duration::from_millis(1)), 1 << 20));
    log.append(&created(1, &[]), 0).expect("appended");
    acks.wait(1);
    fake.set(Faults { sync_fails: true, ..Faults::default() });
    log.append(&Record::TopicUpdated { topic_id: 1, implicit: false, floor: 0, settings: &[] }, 1).expect("accepted");
    acks.wait(2);
    assert_eq!(heard(&acks)[1], (1, None), "acknowledged after the write");
    wait_until("stopped", || matches!(log.append(&created(2, &[]), 2), Err(LogError::Stopped(_))));
}

#[test]
fn the_interval_syncs_by_itself_and_only_while_there_is_something() {
    let fake = SimulatedDisk::default();
    let (log, acks, _) = start(&fake, &settings(Fsync::Interval(Duration::from_millis(1)), 1 << 20));
    log.append(&created(1, &[]), 0).expect("appended");
    log.append(&message(1, 1, b""), 1).expect("appended");
    acks.wait(2);
    wait_until("the first sync", || log.metrics().syncs >= 1);
    log.append(&message(1, 2, b""), 2).expect("appended");
    acks.wait(3);
    wait_until("durable", || {
        offsets(&start::<()>(&fake.image().cut(), &settings(Fsync::Never, 1000)).2) == [(1, vec![1, 2])]
    });
    assert!(log.metrics().syncs <= 4, "{:?}", log.metrics());
}

#[test]
fn short_writes_are_finished() {
    let fake = SimulatedDisk::default();
    fake.set(Faults { short_writes: Some(3), ..Faults::default() });
    let settings = settings(Fsync::Always, 300);
    let (log, acks, _) = start(&fake, &settings);
    log.append(&created(1, &[]), 0).expect("appended");
    for offset in 1..=20 {
        log.append(&message(1, offset, b"some words"), offset).expect("appended");
    }
    acks.wait(21);
    drop(log);
    assert_eq!(offsets(&reopen(&fake, &settings).expect("opens").0), [(1, (1..=20).collect())]);
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

/// Not a test by itself: the other process of the next one.
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
