//! Topics that keep the newest message of each key, in power cuts and kills at any moment.

use std::{
    collections::BTreeMap,
    sync::{OnceLock, Weak, atomic::AtomicI64},
};

use super::{
    simulated_disk::{DiskImage, Rng},
    *,
};

pub(super) const TOPIC: u64 = 1;
const OTHER: u64 = 2;
const KEYS: u64 = 12;

/// How long a removal is remembered, on the test's clock.
const REMEMBERED: i64 = 60;

/// A topic whose settings have the second byte 1 keeps the newest message of each key.
pub(super) fn keyed(fsync: Fsync, segment_bytes: u64) -> LogConfig {
    LogConfig { is_keyed: |settings| settings.get(1) == Some(&1), ..settings(fsync, segment_bytes) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Value,
    Removal,
    /// A value whose own time is over as soon as it is stored.
    Brief,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stored {
    offset: u64,
    key: u8,
    kind: Kind,
    at: i64,
}

impl Stored {
    /// Whether nobody needs it any more although it is the newest of its key.
    fn is_over(&self, clock: i64) -> bool {
        match self.kind {
            Kind::Value => false,
            Kind::Removal => self.at + REMEMBERED <= clock,
            Kind::Brief => true,
        }
    }

    fn data(&self) -> Vec<u8> {
        if self.kind == Kind::Removal { Vec::new() } else { vec![self.key; 5 + (self.offset * 7 % 40) as usize] }
    }

    fn read(message: &RecoveredMessage) -> Self {
        let kind = match (message.is_removal, message.ttl_ms) {
            (true, _) => Kind::Removal,
            (false, 0) => Kind::Value,
            (false, _) => Kind::Brief,
        };
        let key = message.key.as_ref().expect("a key")[0];
        Self { offset: message.offset, key, kind, at: message.at_ms }
    }
}

/// A message of a topic that keeps the newest of each key.
pub(super) fn keyed_message<'a>(offset: u64, key: &'a [u8], data: &'a [u8]) -> MessageRecord<'a> {
    let Record::Message(message) = message_after(TOPIC, offset - 1, offset, data) else { unreachable!() };
    MessageRecord { key: Some(key), headers: None, id_is_given: false, replaces_older: true, ..message }
}

/// A caller as it should be: when it is told that a message is stored, it says which one that replaces.
#[derive(Default)]
struct Keeper {
    log: OnceLock<Weak<Log<u64>>>,
    records: Mutex<BTreeMap<u64, Stored>>,
    newest: Mutex<BTreeMap<u8, Stored>>,
    /// The outcomes so far, and the highest offset among them.
    told: Mutex<(usize, u64)>,
    more: Condvar,
    clock: AtomicI64,
}

impl Keeper {
    fn log(&self) -> Option<Arc<Log<u64>>> {
        self.log.get().and_then(Weak::upgrade)
    }

    fn now(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn wait(&self, count: usize) {
        let deadline = Instant::now() + DEADLINE;
        let mut told = self.told.lock();
        while told.0 < count {
            assert!(!self.more.wait_until(&mut told, deadline).timed_out(), "{} of {count} outcomes", told.0);
        }
    }

    /// Forgets what is over.
    fn sweep(&self) {
        let now = self.now();
        let over: Vec<_> = self.newest.lock().extract_if(.., |_, stored| stored.is_over(now)).collect();
        if let Some(log) = self.log() {
            log.forget(TOPIC, &over.iter().map(|(_, stored)| stored.offset).collect::<Vec<_>>());
        }
    }
}

struct KeeperSink(Arc<Keeper>);

impl Sink<u64> for KeeperSink {
    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, u64>) {
        outcome.expect("stored");
        for offset in tokens {
            let stored = self.0.records.lock().get(&offset).copied();
            let old = stored.and_then(|stored| self.0.newest.lock().insert(stored.key, stored));
            if let (Some(old), Some(log)) = (old, self.0.log()) {
                log.replace(TOPIC, &[old.offset]);
            }
            let mut told = self.0.told.lock();
            *told = (told.0 + 1, told.1.max(offset));
            self.0.more.notify_all();
        }
    }
}

struct CrashPoint {
    image: DiskImage,
    /// The highest acknowledged offset, and whether the topic's creation was.
    acknowledged: u64,
    is_created: bool,
    clock: i64,
}

/// Everything that was ever stored and not lost, by offset.
type Model = BTreeMap<u64, Stored>;

/// Starts the log with what was recovered; what is over is forgotten, as an engine does.
fn begin(simulated: &SimulatedDisk, settings: &LogConfig, clock: i64) -> (Arc<Log<u64>>, Arc<Keeper>, u64, u64) {
    let (recovered, ready) = reopen(simulated, settings).expect("opens");
    let keeper = Arc::new(Keeper { clock: AtomicI64::new(clock), ..Keeper::default() });
    let (mut last, mut next) = (0, 1);
    for topic in recovered.topics.iter().filter(|topic| topic.id == TOPIC) {
        (last, next) = (topic.last_offset, topic.next_offset);
        let (over, newest): (Vec<_>, Vec<_>) =
            topic.messages.iter().map(Stored::read).partition(|stored| stored.is_over(clock));
        ready.forget(TOPIC, &over.iter().map(|stored| stored.offset).collect::<Vec<_>>());
        keeper.newest.lock().extend(newest.into_iter().map(|stored| (stored.key, stored)));
    }
    let is_new = recovered.topics.is_empty();
    let log = Arc::new(ready.start(Box::new(KeeperSink(keeper.clone()))).expect("starts"));
    keeper.log.set(Arc::downgrade(&log)).expect("once");
    if is_new {
        log.append(&created(TOPIC, &[200, 1]), 0).expect("appended");
        log.append(&created(OTHER, &[200, 0]), 0).expect("appended");
        keeper.wait(2);
        keeper.told.lock().0 = 0;
    }
    (log, keeper, last, next)
}

/// Lets a caller work for a while, and records the disk before every change.
fn live(
    simulated: &SimulatedDisk,
    settings: &LogConfig,
    rng: &mut Rng,
    (clock, steps): (i64, i64),
    model: &mut Model,
) -> Vec<CrashPoint> {
    let crash_points = Arc::new(Mutex::new(Vec::new()));
    let (log, keeper, mut last, mut next) = begin(simulated, settings, clock);
    {
        let (crash_points, keeper) = (crash_points.clone(), keeper.clone());
        simulated.watch(move |image| {
            let (acknowledged, clock) = (keeper.told.lock().1, keeper.now());
            crash_points.lock().push(CrashPoint { image: image.clone(), acknowledged, is_created: true, clock });
        });
    }
    let mut other = 0;
    let mut appended = 0;
    for step in 0..steps {
        keeper.clock.store(clock + step, Ordering::SeqCst);
        let kind = match rng.below(12) {
            0 => {
                // A message here and there that stays. Its offsets are not checked, other tests do that.
                other += 1;
                let offset = (clock + step).cast_unsigned() + 1;
                log.append(&message(OTHER, offset, &[other; 20]), 0).expect("appended");
                appended += 1;
                continue;
            }
            1..=2 => Kind::Removal,
            3 => Kind::Brief,
            _ => Kind::Value,
        };
        // Some keys change all the time, others nearly never.
        let key = rng.below(KEYS).min(rng.below(KEYS)) as u8;
        let stored = Stored { offset: next, key, kind, at: if kind == Kind::Brief { 1 } else { clock + step } };
        model.insert(next, stored);
        keeper.records.lock().insert(next, stored);
        let (data, key) = (stored.data(), [stored.key]);
        let ttl_ms = u64::from(kind == Kind::Brief);
        let record = MessageRecord {
            prev: last,
            at_ms: stored.at,
            ttl_ms,
            is_removal: kind == Kind::Removal,
            ..keyed_message(next, &key, &data)
        };
        log.append(&Record::Message(record), next).expect("appended");
        (last, next, appended) = (next, next + 1, appended + 1);
        if rng.below(3) == 0 {
            keeper.wait(appended);
        }
        if rng.below(4) == 0 {
            keeper.sweep();
        }
    }
    keeper.wait(appended);
    keeper.sweep();
    wait_until("within the bound", || {
        let metrics = log.metrics();
        metrics.bytes <= metrics.live_bytes + metrics.live_bytes / 2 + 2 * settings.segment_bytes
    });
    assert_eq!(log.ledger.lock().live_messages(TOPIC), keeper.newest.lock().len() as u64);
    if rng.below(2) == 0 {
        log.close().expect("closes");
    }
    drop(log);
    simulated.watch(|_| {});
    let mut crash_points = std::mem::take(&mut *crash_points.lock());
    let (acknowledged, clock) = (keeper.told.lock().1, keeper.now());
    crash_points.push(CrashPoint { image: simulated.image(), acknowledged, is_created: true, clock });
    crash_points
}

/// Checks what is recovered at a crash point: exactly the newest message of each key up to where the log ends.
fn check(disk: &SimulatedDisk, settings: &LogConfig, model: &Model, at: &CrashPoint, is_durable: bool) -> u64 {
    let (recovered, ready) = reopen(disk, settings).expect("opens");
    let Some(topic) = recovered.topics.iter().find(|topic| topic.id == TOPIC) else {
        assert!(!is_durable || !at.is_created, "the topic is lost");
        return 0;
    };
    if is_durable {
        assert!(topic.last_offset >= at.acknowledged, "{} was acknowledged: {topic:?}", at.acknowledged);
    }
    assert!(topic.next_offset > at.acknowledged, "{} would be used again: {topic:?}", at.acknowledged);
    let mut newest = BTreeMap::new();
    for stored in model.range(..=topic.last_offset).map(|(_, stored)| stored) {
        newest.insert(stored.key, *stored);
    }
    let mut found = BTreeMap::new();
    for message in &topic.messages {
        let stored = Stored::read(message);
        assert_eq!(message.data, stored.data());
        assert!(found.insert(stored.key, stored).is_none(), "two messages of a key: {topic:?}");
    }
    for (key, newest) in &newest {
        match found.remove(key) {
            Some(stored) => assert_eq!(stored, *newest, "key {key}"),
            None => assert!(newest.is_over(at.clock), "key {key} has lost {newest:?}"),
        }
    }
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(ready.ledger.lock().live_messages(TOPIC), topic.messages.len() as u64, "live records");
    topic.last_offset
}

fn incarnations(settings: &LogConfig, seed: u64, steps: i64) -> usize {
    let is_synced = settings.fsync == Fsync::Always;
    let mut rng = Rng::new(seed);
    let mut simulated = SimulatedDisk::default();
    let mut model = Model::new();
    let mut checked = 0;
    for generation in 0..4 {
        let crash_points = live(&simulated, settings, &mut rng, (generation * (steps + 5), steps), &mut model);
        let chosen = rng.below(crash_points.len() as u64) as usize;
        for at in &crash_points {
            check(&at.image.cut(), settings, &model, at, is_synced);
            check(&at.image.torn(&mut rng), settings, &model, at, is_synced);
            check(&at.image.killed(), settings, &model, at, true);
            checked += 3;
        }
        let at = &crash_points[chosen];
        let (disk, is_durable) = match rng.below(3) {
            0 => (at.image.cut(), is_synced),
            1 => (at.image.torn(&mut rng), is_synced),
            _ => (at.image.killed(), true),
        };
        let last = check(&disk, settings, &model, at, is_durable);
        // What was lost stays lost.
        model.retain(|offset, _| *offset <= last);
        simulated = disk;
    }
    checked
}

#[test]
fn always_keeps_the_newest_of_each_key_and_brings_no_removed_key_back() {
    let settings = keyed(Fsync::Always, 400);
    let checked: usize = (0..4).map(|seed| incarnations(&settings, seed, 120)).sum();
    println!("{checked} crashes");
}

#[test]
fn rewriting_segments_in_the_midst_brings_no_removed_key_back() {
    // Segments are rewritten as soon as they hold something whose time is over, the oldest or not.
    let settings = LogConfig { keep_aged: Duration::ZERO, ..keyed(Fsync::Always, 600) };
    let checked: usize = (10..14).map(|seed| incarnations(&settings, seed, 120)).sum();
    println!("{checked} crashes");
}

#[test]
fn without_a_sync_only_the_end_of_the_log_is_lost() {
    for (first, fsync) in [(20, Fsync::Never), (30, Fsync::Interval(Duration::from_micros(200)))] {
        let settings = LogConfig { keep_aged: Duration::from_millis(1), ..keyed(fsync, 400) };
        let checked: usize = (first..first + 3).map(|seed| incarnations(&settings, seed, 120)).sum();
        println!("{fsync:?}: {checked} crashes");
    }
}
