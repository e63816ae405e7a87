//! Topics that keep the newest message of each key, against a model.

use std::collections::{BTreeSet, HashMap};

use super::{
    keys::{Latest, insert, latest, message, removal},
    *,
};

const SECOND: i64 = 1_000;

#[derive(Clone, Debug)]
enum Act {
    /// A key, whether it is removed, and the time of the message.
    Publish(usize, bool, Option<u64>),
    Pass(i64),
    SetClock(i64),
    Sweep(usize),
    Commit(usize),
    RollBack,
    Join(usize, usize),
    JoinInLog(usize, usize),
    Read(usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    let ttl = prop::option::weighted(0.2, 1..6_u64);
    prop_oneof![
        12 => (0..6_usize, prop::bool::weighted(0.2), ttl).prop_map(|(key, removes, ttl)| Act::Publish(key, removes, ttl)),
        3 => (1..4_i64).prop_map(Act::Pass),
        1 => (-1_000..1_000_i64).prop_map(Act::SetClock),
        2 => (1..6_usize).prop_map(Act::Sweep),
        6 => (1..4_usize).prop_map(Act::Commit),
        1 => Just(Act::RollBack),
        2 => (0..3_usize, 0..40_usize).prop_map(|(slot, back)| Act::Join(slot, back)),
        2 => (0..3_usize, 0..60_usize).prop_map(|(slot, back)| Act::JoinInLog(slot, back)),
        4 => (0..3_usize, 1..6_usize).prop_map(|(slot, max)| Act::Read(slot, max)),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: usize,
    is_removal: bool,
    sequence: u64,
    /// When its time is over.
    until: i64,
    /// Why nobody reads it any more.
    gone: Option<GapReason>,
}

#[derive(Default)]
struct Log {
    now: i64,
    entries: Vec<Entry>,
    /// A key, whether it is removed, and when the time of the message is over.
    on_its_way: Vec<(usize, bool, i64)>,
}

/// How long a removal is remembered.
const REMEMBERED: i64 = 4 * SECOND;
const MAX_KEYS: usize = 4;

impl Log {
    fn age(&mut self) {
        for entry in &mut self.entries {
            if entry.gone.is_none() && entry.until <= self.now {
                entry.gone = Some(if entry.is_removal { GapReason::Compacted } else { GapReason::Expired });
            }
        }
    }

    fn until(&self, is_removal: bool, ttl: Option<u64>) -> i64 {
        let ttl = ttl.map(|ttl| (ttl * 1_000).cast_signed()).or(is_removal.then_some(REMEMBERED));
        ttl.map_or(i64::MAX, |ttl| self.now + ttl)
    }

    fn store(&mut self, key: usize, is_removal: bool, until: i64, sequence: u64) {
        // What is too old by now is not replaced.
        self.age();
        for entry in &mut self.entries {
            if entry.key == key && entry.gone.is_none() {
                entry.gone = Some(GapReason::Compacted);
            }
        }
        self.entries.push(Entry { key, is_removal, sequence, until, gone: None });
    }

    /// The keys that have a value once everything is stored that is on its way.
    fn keys(&self) -> BTreeSet<usize> {
        let live = self.entries.iter().filter(|entry| entry.gone.is_none() && !entry.is_removal);
        let mut keys: BTreeSet<_> = live.map(|entry| entry.key).collect();
        for (key, is_removal, _) in &self.on_its_way {
            if *is_removal {
                keys.remove(key)
            } else {
                keys.insert(*key)
            };
        }
        keys
    }

    fn readable(&self) -> Vec<u64> {
        let live = self.entries.iter().zip(1..).filter(|(entry, _)| entry.gone.is_none());
        live.map(|(_, offset)| offset).collect()
    }

    fn is_readable(&self, offset: u64) -> bool {
        self.entries.get(offset as usize - 1).is_some_and(|entry| entry.gone.is_none())
    }

    fn gap_reason(&self, gap: &Gap) -> GapReason {
        let missed = &self.entries[gap.from_offset as usize - 1..gap.to_offset as usize];
        let is_compacted = missed.iter().any(|entry| entry.gone == Some(GapReason::Compacted));
        if is_compacted { GapReason::Compacted } else { GapReason::Expired }
    }
}

struct Following {
    reader: Reader,
    after: u64,
    /// What it holds by what it was delivered: the newest message of each key.
    state: HashMap<String, u64>,
}

impl Following {
    fn read(&mut self, log: &Log, max: usize) -> ReadStatus {
        let mut events = Vec::new();
        let status =
            self.reader.read(&Wanted::default(), BatchLimit::messages(max), &mut events, ALONE, || {}).unwrap();
        let mut after_gap = false;
        for event in &events {
            match event {
                Event::Message(message, _) => {
                    let offset = message.cursor.offset;
                    assert!(offset == self.after + 1 && log.is_readable(offset), "{offset} after {}", self.after);
                    (self.after, after_gap) = (offset, false);
                    self.state.insert(message.key.as_ref().unwrap().as_str().to_owned(), offset);
                }
                Event::Gap(gap) => {
                    assert!(!after_gap, "neighbouring holes are one gap: {events:?}");
                    assert_eq!((gap.from_offset, gap.missed), (self.after + 1, Some(gap.to_offset - self.after)));
                    assert_eq!(gap.reason, log.gap_reason(gap), "{gap:?}");
                    assert!((gap.from_offset..=gap.to_offset).all(|offset| !log.is_readable(offset)), "{gap:?}");
                    (self.after, after_gap) = (gap.to_offset, true);
                }
                Event::Deleted { .. } | Event::StateComplete(_) => panic!("{events:?}"),
            }
        }
        status
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_replaced_is_told_exactly(stages in any::<bool>(), acts in prop::collection::vec(act(), 1..300)) {
        let settings = RegistrySettings::for_tests(10);
        let defaults = TopicBounds { tombstone_ttl: Age::from_millis(REMEMBERED.unsigned_abs()), ..settings.defaults };
        let registry = Registry::new(RegistrySettings { defaults, ..settings });
        let topic = insert(&registry, "t", latest(MAX_KEYS));
        let other = insert(&registry, "u", TopicConfig::keeping(1));
        let world = Latest { registry, topic };
        let mut log = Log::default();
        let mut readers: [Option<Following>; 3] = Default::default();
        let mut sequence = 0;
        for act in acts {
            match act {
                Act::Publish(key, is_removal, ttl) => {
                    let ttl = ttl.filter(|_| !is_removal);
                    let name = format!("k{key}");
                    let new = if is_removal { removal(&name) } else { message(&name, 1) };
                    let new = NewMessage { ttl: ttl.map(|ttl| Age::from_millis(ttl * 1_000)), ..new };
                    let keys = log.keys();
                    let fits = is_removal || keys.contains(&key) || keys.len() < MAX_KEYS;
                    let taken = if stages {
                        world.topic.stage(new, |_, _| { sequence += 1; Ok(sequence) }).map(drop)
                    } else {
                        world.topic.append(new).map(drop)
                    };
                    prop_assert_eq!(taken.is_ok(), fits, "{:?} with {:?}", taken, keys);
                    let until = log.until(is_removal, ttl);
                    match (fits, stages) {
                        (true, true) => log.on_its_way.push((key, is_removal, until)),
                        (true, false) => {
                            log.store(key, is_removal, until, world.topic.newest_sequence());
                            // Other topics take numbers of the log, too.
                            other.append(NewMessage::of(Payload::null())).unwrap();
                        }
                        (false, _) => {}
                    }
                }
                Act::Commit(count) => {
                    let count = count.min(log.on_its_way.len());
                    let first = sequence - log.on_its_way.len() as u64;
                    world.topic.commit(count);
                    let stored: Vec<_> = log.on_its_way.drain(..count).collect();
                    for ((key, is_removal, until), number) in stored.into_iter().zip(first + 1..) {
                        log.store(key, is_removal, until, number);
                    }
                }
                Act::RollBack => {
                    world.topic.roll_back(usize::MAX, |_| Refusal::Closed);
                    sequence -= log.on_its_way.len() as u64;
                    log.on_its_way.clear();
                }
                Act::Pass(seconds) => {
                    world.registry.clock().pass(seconds * SECOND);
                    log.now += seconds * SECOND;
                }
                // What is on its way has the time at which it was published.
                Act::SetClock(by) => if !stages { world.registry.clock().set_by(by * SECOND) },
                Act::Sweep(most) => _ = world.topic.reclaim(most),
                Act::Join(slot, back) => {
                    let after = (log.entries.len() as u64).saturating_sub(back as u64);
                    readers[slot] =
                        Some(Following { reader: world.after(after), after, state: HashMap::new() });
                }
                Act::JoinInLog(slot, back) => {
                    let newest = log.entries.last().map_or(0, |entry| entry.sequence);
                    let number = newest.saturating_sub(back as u64);
                    let after = log.entries.iter().filter(|entry| entry.sequence <= number).count() as u64;
                    let reader = world.reader(&Start::AfterSequence(number));
                    readers[slot] = Some(Following { reader, after, state: HashMap::new() });
                }
                Act::Read(slot, max) => if let Some(following) = &mut readers[slot] {
                    following.read(&log, max);
                },
            }
            log.age();
            let readable = log.readable();
            let values = readable.iter().filter(|offset| !log.entries[**offset as usize - 1].is_removal).count();
            prop_assert_eq!(world.topic.info().messages, values);
            prop_assert_eq!(&world.offsets(&Start::Oldest), &readable);
            let page = world.topic.page_before(None, 3);
            let newest: Vec<u64> = page.messages.iter().map(|message| message.cursor.offset).collect();
            prop_assert_eq!(&newest, &readable[readable.len().saturating_sub(3)..]);
            let (first, last) = (newest.first().copied().unwrap_or(0), newest.last().copied().unwrap_or(0));
            let missed: u64 = page.holes.iter().map(|hole| hole.missed.unwrap()).sum();
            prop_assert_eq!(missed + newest.len() as u64, if newest.is_empty() { 0 } else { last - first + 1 });
        }
        for following in readers.iter_mut().flatten() {
            while following.read(&log, 3) == ReadStatus::More {}
            prop_assert_eq!(following.after, log.entries.len() as u64);
        }
        // Whoever has read everything holds what the topic holds.
        let mut all = Following { reader: world.after(0), after: 0, state: HashMap::new() };
        while all.read(&log, 3) == ReadStatus::More {}
        let mut held: Vec<u64> = all.state.into_values().collect();
        held.sort_unstable();
        prop_assert_eq!(held, log.readable());
        world.topic.roll_back(usize::MAX, |_| Refusal::Closed);
        world.registry.remove(&world.topic);
        drop(readers);
        drop(all.reader);
        let Latest { registry, topic } = world;
        drop(topic);
        registry.remove(&other);
        drop(other);
        prop_assert_eq!((registry.history_bytes(), registry.messages()), (0, 0));
    }
}
