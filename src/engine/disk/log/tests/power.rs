//! Power cuts and kills at any moment: before every single change that the log makes to the disk.

use std::collections::BTreeMap;

use super::{
    simulated_disk::{DiskImage, Faults, Rng},
    *,
};

/// The topics' bound.
const KEEP: u64 = 5;

/// What a caller did, in the order of its appends. The acknowledged tokens say how much of it was stored.
#[derive(Clone, Debug)]
enum Operation {
    Created { topic: u64 },
    Published { topic: u64, offset: u64 },
    Updated { topic: u64, version: u16 },
    Deleted { topic: u64 },
    Put { name: u64, version: u16 },
    Dropped { name: u64 },
}

/// What was acknowledged so far, over all runs of the log.
#[derive(Clone, Debug, Default)]
struct Acknowledged {
    /// The highest acknowledged offset of each topic.
    highest: BTreeMap<u64, u64>,
    /// The same, for the offsets that were not lost in an earlier run.
    kept: BTreeMap<u64, u64>,
    versions: BTreeMap<u64, u16>,
    deleted: BTreeMap<u64, bool>,
    consumers: BTreeMap<u64, Option<u16>>,
    /// The highest sequence number.
    sequence: u64,
}

impl Acknowledged {
    fn after(mut self, acknowledged: &[(Operation, u64)]) -> Self {
        for (done, sequence) in acknowledged {
            self.sequence = self.sequence.max(*sequence);
            match *done {
                Operation::Created { topic } => _ = self.deleted.insert(topic, false),
                Operation::Published { topic, offset } => {
                    self.highest.insert(topic, offset);
                    self.kept.insert(topic, offset);
                }
                Operation::Updated { topic, version } => _ = self.versions.insert(topic, version),
                Operation::Deleted { topic } => _ = self.deleted.insert(topic, true),
                Operation::Put { name, version } => _ = self.consumers.insert(name, Some(version)),
                Operation::Dropped { name } => _ = self.consumers.insert(name, None),
            }
        }
        self
    }
}

/// A moment at which the process or the machine may stop: just before a change on the disk, with the acknowledgements
/// up to then.
struct CrashPoint {
    image: DiskImage,
    acknowledged: usize,
}

struct Incarnation {
    /// The operations with the sequence numbers of their records.
    done: Vec<(Operation, u64)>,
    crash_points: Vec<CrashPoint>,
}

fn number(bytes: &[u8]) -> u16 {
    u16::from_le_bytes(bytes.try_into().expect("two bytes"))
}

fn data(topic: u64, offset: u64) -> Vec<u8> {
    vec![(topic * 31 + offset) as u8; (offset * 7 % 50) as usize]
}

/// Lets a caller work on the log for a while, and records the disk before every change.
fn live(
    simulated: &SimulatedDisk,
    settings: &LogConfig,
    rng: &mut Rng,
    steps: usize,
    first_topic: u64,
    close: bool,
) -> Incarnation {
    let (log, acks, recovered) = start::<usize>(simulated, settings);
    let crash_points = Arc::new(Mutex::new(Vec::new()));
    {
        let (crash_points, acks) = (crash_points.clone(), acks.clone());
        simulated.watch(move |image| {
            let acknowledged = acks.count();
            crash_points.lock().push(CrashPoint { image: image.clone(), acknowledged });
        });
    }
    let mut next: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut histories: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for topic in &recovered.topics {
        next.insert(topic.id, (topic.last_offset, topic.next_offset));
        histories.insert(topic.id, topic.messages.iter().map(|m| m.offset).collect());
    }
    let mut new_topic = first_topic;
    let mut done = Vec::new();
    for step in 0..steps {
        let pick = |rng: &mut Rng| {
            let at = rng.below(next.len().max(1) as u64) as usize;
            next.keys().nth(at).copied()
        };
        let version = (first_topic as usize * 10 + step) as u16;
        let bytes = version.to_le_bytes();
        let name = rng.below(2);
        let text = name.to_string();
        let roll = if next.len() < 2 { 0 } else { 1 + rng.below(30) };
        let (did, sequence) = match (roll, pick(rng)) {
            (0, _) => {
                new_topic += 1;
                let sequence = log.append(&created(new_topic, &[KEEP as u8, 0, 0]), done.len()).expect("appended");
                next.insert(new_topic, (0, 1));
                (Operation::Created { topic: new_topic }, sequence)
            }
            (1, Some(topic)) => {
                let sequence = log.append(&deleted(topic), done.len()).expect("appended");
                next.remove(&topic);
                (Operation::Deleted { topic }, sequence)
            }
            (2..4, Some(topic)) => {
                let settings = &[KEEP as u8, bytes[0], bytes[1]];
                let record =
                    Record::TopicUpdated { topic_id: topic, implicit: false, floor: 0, compacted_until: 0, settings };
                let sequence = log.append(&record, done.len()).expect("appended");
                (Operation::Updated { topic, version }, sequence)
            }
            (4..6, _) => {
                let record = Record::ConsumerPut { source: "s", name: &text, blob: &bytes };
                let sequence = log.append(&record, done.len()).expect("appended");
                (Operation::Put { name, version }, sequence)
            }
            (6, _) => {
                let sequence =
                    log.append(&Record::ConsumerDeleted { source: "s", name: &text }, done.len()).expect("appended");
                (Operation::Dropped { name }, sequence)
            }
            (_, topic) => {
                // Mostly it is the newest topic, so that another one is cold.
                let youngest = next.keys().next_back().copied();
                let topic = if rng.below(10) > 0 { youngest } else { topic }.expect("there is one");
                let (prev, offset) = next[&topic];
                let data = data(topic, offset);
                let sequence = log.append(&message_after(topic, prev, offset, &data), done.len()).expect("appended");
                next.insert(topic, (offset, offset + 1));
                (Operation::Published { topic, offset }, sequence)
            }
        };
        done.push((did, sequence));
        if rng.below(3) == 0 {
            acks.wait(done.len());
        }
        if let Some((Operation::Published { topic, offset }, _)) = done.last() {
            let history = histories.entry(*topic).or_default();
            history.push(*offset);
            // A bounded history evicts when its messages are committed.
            if acks.count() == done.len() && history.len() as u64 > KEEP {
                history.drain(..history.len() - KEEP as usize);
                log.trim(*topic, history[0]);
            }
        }
    }
    acks.wait(done.len());
    assert!(acks.outcomes.lock().iter().enumerate().all(|(at, (token, error))| at == *token && error.is_none()));
    if close {
        log.close().expect("closes");
    }
    let crash_points = {
        drop(log);
        simulated.watch(|_| {});
        let mut crash_points = std::mem::take(&mut *crash_points.lock());
        crash_points.push(CrashPoint { image: simulated.image(), acknowledged: done.len() });
        crash_points
    };
    Incarnation { done, crash_points }
}

/// Checks a recovered log against what was acknowledged before, and what was still to come. `durable` says whether
/// every acknowledgement must have survived.
fn check(recovered: &Recovered, shown: &Acknowledged, all: &Acknowledged, ahead: &[(Operation, u64)], durable: bool) {
    assert!(recovered.next_sequence > shown.sequence, "{} was shown: {recovered:?}", shown.sequence);
    let found: BTreeMap<u64, &RecoveredTopic> = recovered.topics.iter().map(|topic| (topic.id, topic)).collect();
    for (id, deleted) in &shown.deleted {
        let topic = found.get(id);
        let highest = shown.highest.get(id).copied().unwrap_or(0);
        let kept = shown.kept.get(id).copied().unwrap_or(0);
        if durable && !deleted && all.deleted.get(id) == Some(&false) {
            assert!(topic.is_some_and(|t| t.last_offset >= kept), "topic {id}, {kept}: {topic:?}");
        }
        if durable && *deleted {
            assert!(topic.is_none(), "deleted {id}");
        }
        if highest > 0 && all.deleted.get(id) == Some(&false) {
            assert!(topic.is_some(), "topic {id} showed {highest}");
        }
    }
    for (id, topic) in &found {
        let highest = shown.highest.get(id).copied().unwrap_or(0);
        assert!(topic.next_offset > highest, "offset {highest} of topic {id} would be used again: {topic:?}");
        assert!(topic.next_offset > topic.last_offset);
        let last = topic.messages.last().map_or(0, |message| message.offset);
        assert_eq!(last, topic.last_offset, "the newest message is there");
        for pair in topic.messages.windows(2) {
            assert_eq!(pair[1].prev, pair[0].offset, "a gap in {:?}", offsets(recovered));
        }
        if let Some(first) = topic.messages.first() {
            assert!(first.prev == 0 || topic.messages.len() as u64 == KEEP, "less than the bound: {topic:?}");
        }
        for message in &topic.messages {
            assert_eq!(message.data, data(*id, message.offset));
        }
        if durable && let Some(version) = shown.versions.get(id) {
            let newest = all.versions[id];
            assert!((*version..=newest).contains(&number(&topic.settings[1..])), "settings of topic {id}");
        }
    }
    if durable && !ahead.iter().any(|(done, _)| matches!(done, Operation::Put { .. } | Operation::Dropped { .. })) {
        let found: BTreeMap<u64, u16> =
            recovered.consumers.iter().map(|c| (c.name.parse().expect("a number"), number(&c.blob))).collect();
        let expected: BTreeMap<u64, u16> = shown.consumers.iter().filter_map(|(n, v)| v.map(|v| (*n, v))).collect();
        assert_eq!(found, expected);
    }
}

fn incarnations(fsync: Fsync, seed: u64, steps: usize) -> (usize, usize) {
    let settings = LogConfig { segment_bytes: 400, ..settings(fsync, 400) };
    let mut rng = Rng::new(seed);
    let mut simulated = SimulatedDisk::default();
    let mut before = Acknowledged::default();
    let mut checked = 0;
    let mut jumps = 0;
    for generation in 0..4 {
        let close = rng.below(2) == 0;
        let incarnation = live(&simulated, &settings, &mut rng, steps, generation * 100, close);
        let all = before.clone().after(&incarnation.done);
        let count = incarnation.crash_points.len();
        let mut chosen = None;
        let choice = rng.below(count as u64) as usize;
        for (at, crash_point) in incarnation.crash_points.iter().enumerate() {
            let shown = before.clone().after(&incarnation.done[..crash_point.acknowledged]);
            for (disk, durable) in [
                (crash_point.image.cut(), fsync == Fsync::Always),
                (crash_point.image.torn(&mut rng), fsync == Fsync::Always),
                (crash_point.image.killed(), true),
            ] {
                let (recovered, _) = reopen(&disk, &settings).unwrap_or_else(|error| {
                    panic!("seed {seed}, incarnation {generation}, crash_point {at} of {count}: {error}")
                });
                check(&recovered, &shown, &all, &incarnation.done[crash_point.acknowledged..], durable);
                checked += 1;
            }
            if at == choice {
                let disk = match rng.below(3) {
                    0 => crash_point.image.cut(),
                    1 => crash_point.image.torn(&mut rng),
                    _ => crash_point.image.killed(),
                };
                chosen = Some((disk, shown));
            }
        }
        let (disk, shown) = chosen.expect("one was chosen");
        let image = disk.image();
        let (recovered, ready) = reopen(&disk, &settings).expect("opens");
        jumps += recovered.topics.iter().filter(|t| t.next_offset > t.last_offset + 1).count();
        drop(ready);
        simulated = image.killed();
        // What was acknowledged and lost stays lost, but its offsets stay used.
        before = Acknowledged { highest: shown.highest.clone(), sequence: shown.sequence, ..Acknowledged::default() };
        for topic in &recovered.topics {
            before.deleted.insert(topic.id, false);
            before.kept.insert(topic.id, topic.last_offset);
            before.versions.insert(topic.id, number(&topic.settings[1..]));
        }
        before.highest.retain(|id, _| before.deleted.contains_key(id));
        for consumer in &recovered.consumers {
            before.consumers.insert(consumer.name.parse().expect("a number"), Some(number(&consumer.blob)));
        }
    }
    (checked, jumps)
}

#[test]
fn always_keeps_what_it_acknowledged_whenever_the_power_goes() {
    let counts: Vec<_> = (0..6).map(|seed| incarnations(Fsync::Always, seed, 120)).collect();
    println!("{} crashes", counts.iter().map(|(checked, _)| checked).sum::<usize>());
}

#[test]
fn an_interval_loses_a_suffix_and_never_an_offset() {
    let counts: Vec<_> =
        (10..16).map(|seed| incarnations(Fsync::Interval(Duration::from_micros(200)), seed, 120)).collect();
    println!("{} crashes", counts.iter().map(|(checked, _)| checked).sum::<usize>());
}

#[test]
fn never_loses_a_suffix_and_never_an_offset() {
    let counts: Vec<_> = (20..26).map(|seed| incarnations(Fsync::Never, seed, 120)).collect();
    let jumps: usize = counts.iter().map(|(_, jumps)| jumps).sum();
    println!("{} crashes, {jumps} jumps", counts.iter().map(|(checked, _)| checked).sum::<usize>());
    assert!(jumps > 0, "the reservations were of no use");
}

#[test]
fn a_clean_shutdown_leaves_no_gap_and_counts_until_the_first_append() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Never, 1 << 20);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), ()).expect("appended");
    log.append(&message(1, 1, b""), ()).expect("appended");
    acks.wait(2);
    // If the process is killed here, everything is there. After a power cut nobody knows, and the offsets jump over
    // the reservation.
    assert_eq!(start::<()>(&simulated.image().killed(), &settings).2.topics[0].next_offset, 2);
    assert_eq!(start::<()>(&simulated.image().cut(), &settings).2.topics[0].next_offset, 12);
    log.close().expect("closes");
    for _ in 0..3 {
        let before = simulated.segments();
        let (log, _, recovered) = start::<()>(&simulated, &settings);
        assert!(recovered.clean);
        assert_eq!(recovered.topics[0].next_offset, 2);
        drop(log);
        assert_eq!(simulated.segments(), before, "opening and closing writes nothing");
    }
    // A refused append changes nothing about that, and nothing about the next append.
    let (log, acks, _) = start(&simulated, &settings);
    simulated.set(Faults { room: Some(10), ..Faults::default() });
    log.append(&message(1, 2, b""), ()).expect("accepted");
    acks.wait(1);
    simulated.set(Faults::default());
    wait_until("accepted again", || log.append(&message(1, 2, b""), ()).is_ok());
    acks.wait(2);
    assert!(!reopen(&simulated.image().cut(), &settings).expect("opens").0.clean);
    log.close().expect("closes");

    // The reservation still covers this offset, but the log does not end cleanly any more, even if there is a power
    // cut at once.
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&message(1, 3, b""), ()).expect("appended");
    acks.wait(1);
    let (recovered, _) = reopen(&simulated.image().cut(), &settings).expect("opens");
    assert!(!recovered.clean);
    assert_eq!(recovered.topics[0].next_offset, 12);
    drop(log);
}

#[test]
fn a_clean_shutdown_in_a_full_segment_does_not_count_after_the_next_append() {
    let simulated = SimulatedDisk::default();
    let settings = settings(Fsync::Never, 150);
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), ()).expect("appended");
    log.append(&message(1, 1, &[0; 40]), ()).expect("appended");
    acks.wait(2);
    log.close().expect("closes");
    let (log, acks, recovered) = start(&simulated, &settings);
    assert!(recovered.clean && log.metrics().segments == 1);
    // This append begins a segment. What was written before is durable, and this must be durable, too.
    log.append(&message(1, 2, &[0; 100]), ()).expect("appended");
    acks.wait(1);
    assert_eq!(log.metrics().segments, 2);
    let (recovered, _) = reopen(&simulated.image().cut(), &settings).expect("opens");
    assert!(!recovered.clean);
    assert!(recovered.topics[0].next_offset > 2);
}

/// A disk that may have lost what it had synced: offsets that were acknowledged are not used again.
#[test]
fn a_log_shorter_than_what_was_acknowledged_skips_offsets_that_may_have_been_used() {
    let settings = settings(Fsync::Never, 1 << 20);
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), ()).expect("appended");
    for offset in 1..=5 {
        log.append(&message(1, offset, b"text"), ()).expect("appended");
        // The messages are appended one by one, so that the first reservation is for the first message.
        acks.wait(1 + usize::try_from(offset).expect("fits"));
    }
    assert_eq!(start::<()>(&simulated.image().killed(), &settings).2.topics[0].next_offset, 6, "whole");
    let mut disk = simulated.image().rebooted();
    disk.cut_off(1, 3);
    // Later starts skip the offsets, too, until the skip itself is stored.
    for _ in 0..3 {
        let (_, _, recovered) = start::<()>(&disk, &settings);
        let topic = &recovered.topics[0];
        assert_eq!((topic.last_offset, topic.next_offset, topic.dense_from), (4, 12, 11));
        disk = disk.image().killed();
    }
    let (log, acks, _) = start(&disk, &settings);
    log.append(&message_after(1, 4, 12, b"on"), ()).expect("appended");
    acks.wait(1);
    let (recovered, _) = reopen(&disk.image().killed(), &settings).expect("opens");
    let topic = &recovered.topics[0];
    assert_eq!((topic.last_offset, topic.next_offset, topic.dense_from), (12, 13, 11));
    assert_eq!(offsets(&recovered), [(1, vec![1, 2, 3, 4, 12])], "the chain goes on over the skip");
}

/// Under `Always` a power cut loses nothing that was acknowledged, so no offset is skipped.
#[test]
fn always_leaves_no_gap_over_a_power_cut() {
    let settings = settings(Fsync::Always, 1 << 20);
    let simulated = SimulatedDisk::default();
    let (log, acks, _) = start(&simulated, &settings);
    log.append(&created(1, &[]), ()).expect("appended");
    log.append(&message(1, 1, b""), ()).expect("appended");
    acks.wait(2);
    let cut = simulated.image().cut();
    let (log, acks, recovered) = start(&cut, &settings);
    assert_eq!((recovered.clean, recovered.topics[0].next_offset), (false, 2));
    log.append(&message(1, 2, b""), ()).expect("appended");
    acks.wait(1);
    // Under another policy nobody knows what a power cut has lost.
    drop(log);
    let lax = LogConfig { fsync: Fsync::Never, ..settings };
    let (log, acks, _) = start(&cut, &lax);
    log.append(&message(1, 3, b""), ()).expect("appended");
    acks.wait(1);
    let (recovered, _) = reopen(&cut.image().cut(), &lax).expect("opens");
    assert_eq!(recovered.topics[0].next_offset, 12);
}
