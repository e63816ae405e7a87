//! Messages that grow too old, with a clock that the tests move.

use super::*;

const SECOND: i64 = 1_000;

struct Aged {
    registry: Arc<Registry>,
    topic: Arc<Channel>,
}

impl Aged {
    fn with(config: TopicConfig) -> Self {
        let bytes = 64 << 20;
        let settings = RegistrySettings::for_tests(10);
        let registry =
            Registry::new(RegistrySettings { max_bytes_per_topic: bytes, max_history_bytes: bytes, ..settings });
        let incarnation = Incarnation::new(&TopicName::parse("t").unwrap(), config);
        let topic = registry.insert(incarnation, |_| Ok(())).unwrap();
        Self { registry, topic }
    }

    fn of(max_age: u64) -> Self {
        Self::with(aged(max_age))
    }

    fn publish_with(&self, change: impl FnOnce(NewMessage) -> NewMessage) -> u64 {
        let data = Payload::parse("\"some data\"", 100).unwrap();
        let plain = NewMessage::of(data);
        self.topic.append(change(plain)).unwrap().cursor.offset
    }

    fn publish(&self, ttl: Option<u64>) -> u64 {
        self.publish_with(|plain| NewMessage { ttl: ttl.map(Age::from_millis), ..plain })
    }

    fn pass(&self, milliseconds: i64) {
        self.registry.clock().pass(milliseconds);
    }

    fn set(&self, config: TopicConfig) {
        self.registry.apply(&self.topic, false, config);
    }

    fn reclaim(&self) {
        for channel in self.registry.aging() {
            while channel.reclaim(3).more {}
        }
    }

    fn reader(&self, start: &Start) -> Reader {
        self.topic.locate(start).0
    }

    fn after(&self, offset: u64) -> Reader {
        self.reader(&Start::After(Cursor { epoch: self.topic.epoch(), offset }))
    }

    fn offsets(&self, start: &Start) -> Vec<u64> {
        let page = self.topic.page(start, BatchLimit::messages(1_000));
        page.messages.iter().map(|message| message.cursor.offset).collect()
    }
}

fn aged(max_age: u64) -> TopicConfig {
    TopicConfig { max_age: Some(Age::from_millis(max_age)), ..TopicConfig::keeping(10) }
}

/// Reads to the end: `m3` is message 3, `E4-5:2` a gap from 4 to 5 with 2 missed for their age, `S…` one for slowness.
fn read(reader: &mut Reader) -> Vec<String> {
    let mut events = Vec::new();
    while reader.read(&Wanted::default(), BatchLimit::messages(100), &mut events, ALONE, || {}).unwrap()
        == ReadStatus::More
    {}
    events.iter().map(shown).collect()
}

fn shown(event: &Event) -> String {
    match event {
        Event::Message(message, _) => format!("m{}", message.cursor.offset),
        Event::Gap(gap) => {
            let (reason, missed) = (&gap.reason.code()[..1], gap.missed.map_or("?".to_owned(), |n| n.to_string()));
            format!("{reason}{}-{}:{missed}", gap.from_offset, gap.to_offset)
        }
        Event::Deleted { .. } | Event::StateComplete(_) => "deleted".to_owned(),
    }
}

/// Whether the sweep was there or not, everybody is told the same.
fn before_and_after_the_sweep(world: &Aged, check: impl Fn()) {
    check();
    world.reclaim();
    check();
    world.reclaim();
}

#[test]
fn the_age_of_a_topic_takes_its_oldest_messages() {
    let world = Aged::of(10_000);
    (0..3).for_each(|_| _ = world.publish(None));
    world.pass(6 * SECOND);
    (0..2).for_each(|_| _ = world.publish(None));
    world.pass(4 * SECOND);
    before_and_after_the_sweep(&world, || {
        assert_eq!(world.offsets(&Start::Oldest), [4, 5]);
        assert_eq!(world.offsets(&Start::Last(3)), [4, 5]);
        assert_eq!(world.offsets(&Start::Last(1)), [5]);
        assert_eq!(world.topic.info().messages, 2);
        assert_eq!(read(&mut world.reader(&Start::Oldest)), ["m4", "m5"]);
        assert_eq!(read(&mut world.reader(&Start::Last(9))), ["m4", "m5"]);
        assert_eq!(read(&mut world.after(0)), ["E1-3:3", "m4", "m5"]);
        assert_eq!(read(&mut world.after(2)), ["E3-3:1", "m4", "m5"]);
        assert_eq!(read(&mut world.after(3)), ["m4", "m5"]);
        assert_eq!(read(&mut world.reader(&Start::Since(Timestamp(0)))), ["E1-3:3", "m4", "m5"]);
        let elsewhere = Start::After(Cursor { epoch: Epoch::random(), offset: 1 });
        assert_eq!(read(&mut world.reader(&elsewhere)), ["N1-3:3", "m4", "m5"]);
        let page = world.topic.page_before(None, 10);
        assert_eq!((page.messages.len(), page.has_previous, page.has_next), (2, false, false));
        let page = world.topic.page(&Start::Oldest, BatchLimit::messages(1));
        assert_eq!((page.has_previous, page.has_next), (false, true));
    });
    world.pass(10 * SECOND);
    before_and_after_the_sweep(&world, || {
        assert_eq!((world.offsets(&Start::Oldest), world.topic.info().messages), (vec![], 0));
        assert_eq!(read(&mut world.after(1)), ["E2-5:4"]);
        assert_eq!(read(&mut world.after(5)), [""; 0]);
        assert_eq!(world.topic.info().last_offset, 5);
    });
    assert_eq!(world.registry.messages(), 0);
}

#[test]
fn a_message_has_a_time_of_its_own() {
    let world = Aged::with(TopicConfig::keeping(10));
    for ttl in [None, Some(1_000), Some(1_000), None, Some(5_000), Some(1_000), None, Some(1_000)] {
        world.publish(ttl);
    }
    world.pass(2 * SECOND);
    before_and_after_the_sweep(&world, || {
        assert_eq!(read(&mut world.after(0)), ["m1", "E2-3:2", "m4", "m5", "E6-6:1", "m7", "E8-8:1"]);
        assert_eq!(read(&mut world.after(2)), ["E3-3:1", "m4", "m5", "E6-6:1", "m7", "E8-8:1"]);
        assert_eq!(read(&mut world.reader(&Start::Last(2))), ["m5", "E6-6:1", "m7", "E8-8:1"]);
        assert_eq!(world.topic.info().messages, 4);
        let page = world.topic.page(&Start::Oldest, BatchLimit::messages(3));
        let gaps = page.with_gaps().map(|(message, gap)| (message.cursor.offset, gap.map(|gap| gap.missed.unwrap())));
        assert_eq!(gaps.collect::<Vec<_>>(), [(1, None), (4, Some(2)), (5, None)]);
        assert_eq!((page.end.offset, page.has_next), (5, true));
        let page = world.topic.page_before(None, 3);
        let gaps = page.with_gaps().map(|(message, gap)| (message.cursor.offset, gap.map(|gap| gap.missed.unwrap())));
        assert_eq!(gaps.collect::<Vec<_>>(), [(4, None), (5, None), (7, Some(1))]);
        assert!(page.has_previous);
        // Nothing follows but a hole, which is told where it stands.
        let page =
            world.topic.page(&Start::After(Cursor { epoch: world.topic.epoch(), offset: 7 }), BatchLimit::messages(3));
        assert_eq!((page.messages.len(), page.gap.unwrap().missed, page.has_next), (0, Some(1), false));
    });
    world.pass(4 * SECOND);
    before_and_after_the_sweep(&world, || {
        // Neighbouring holes are one gap.
        assert_eq!(read(&mut world.after(1)), ["E2-3:2", "m4", "E5-6:2", "m7", "E8-8:1"]);
    });
    // The history is of the last ten messages published.
    (0..6).for_each(|_| _ = world.publish(None));
    assert_eq!(world.offsets(&Start::Oldest), [7, 9, 10, 11, 12, 13, 14]);
    assert_eq!(read(&mut world.after(3)), ["E4-6:3", "m7", "E8-8:1", "m9", "m10", "m11", "m12", "m13", "m14"]);
}

#[test]
fn setting_the_clock_revives_nothing_and_loses_nothing() {
    let world = Aged::of(10_000);
    world.publish(None);
    world.publish(Some(5_000));
    world.registry.clock().set_by(3_600 * SECOND);
    assert_eq!(world.offsets(&Start::Oldest), [1, 2], "set forward: they are as young as before");
    world.publish(Some(5_000));
    world.pass(6 * SECOND);
    assert_eq!(world.offsets(&Start::Oldest), [1], "what was published with the wrong time has its time, too");
    world.registry.clock().set_by(-7_200 * SECOND);
    before_and_after_the_sweep(&world, || {
        assert_eq!(world.offsets(&Start::Oldest), [1], "set back: nothing comes back");
    });
    world.publish(None);
    world.pass(5 * SECOND);
    before_and_after_the_sweep(&world, || assert_eq!(world.offsets(&Start::Oldest), [4]));
    world.pass(5 * SECOND);
    assert_eq!(world.offsets(&Start::Oldest), [0; 0]);
}

#[test]
fn an_age_can_be_changed() {
    let world = Aged::with(TopicConfig::keeping(10));
    (0..2).for_each(|_| _ = world.publish(None));
    world.pass(60 * SECOND);
    world.publish(None);
    assert_eq!(world.offsets(&Start::Oldest), [1, 2, 3]);
    let mut stalled = world.after(0);
    // What is here already has its age from its publication.
    world.set(aged(30_000));
    assert_eq!((world.offsets(&Start::Oldest), world.topic.info().messages), (vec![3], 1));
    // Nobody was there to take it out of memory, and yet it does not come back.
    world.set(aged(600_000));
    assert_eq!(world.offsets(&Start::Oldest), [3]);
    assert_eq!(read(&mut stalled), ["E1-2:2", "m3"]);
    world.pass(300 * SECOND);
    assert_eq!(world.offsets(&Start::Oldest), [3]);
    world.set(aged(0));
    world.pass(3_000 * SECOND);
    assert_eq!(world.offsets(&Start::Oldest), [3]);
}

#[test]
fn a_stalled_subscriber_learns_why_it_missed_messages() {
    let world = Aged::of(10_000);
    let mut readers: Vec<Reader> = (0..4).map(|_| world.reader(&Start::Live)).collect();
    (0..3).for_each(|_| _ = world.publish(None));
    world.pass(10 * SECOND);
    assert_eq!(read(&mut readers[0]), ["E1-3:3"]);
    world.reclaim();
    assert_eq!(read(&mut readers[1]), ["E1-3:3"]);
    // These fall off the history.
    (0..12).for_each(|_| _ = world.publish(None));
    let rest: Vec<String> = (6..=15).map(|offset| format!("m{offset}")).collect();
    assert_eq!(read(&mut readers[2]), [vec!["S1-5:5".to_owned()], rest].concat());
    // One that wants to be told of slowness by its end was not slow.
    let disconnect = Wanted { overflow: Overflow::Disconnect, ..Wanted::default() };
    world.pass(10 * SECOND);
    let mut quick = world.after(15);
    let mut events = Vec::new();
    let next = |reader: &mut Reader, events: &mut Vec<Event>| {
        events.clear();
        reader.read(&disconnect, BatchLimit::messages(100), events, ALONE, || {})
    };
    assert_eq!(next(&mut quick, &mut events), Ok(ReadStatus::CaughtUp));
    world.publish(Some(1));
    world.pass(SECOND);
    assert_eq!(next(&mut quick, &mut events), Ok(ReadStatus::CaughtUp));
    assert_eq!(events.iter().map(shown).collect::<Vec<_>>(), ["E16-16:1"]);
    (0..11).for_each(|_| _ = world.publish(None));
    assert_eq!(next(&mut quick, &mut events), Err(Error::SlowConsumer));
}

#[test]
fn the_sweep_takes_bounded_steps_and_gives_the_memory_back() {
    let world = Aged::with(TopicConfig::keeping(1_000));
    let before = world.registry.history_bytes();
    world.publish(None);
    let one = world.registry.history_bytes() - before;
    assert!(world.registry.aging().is_empty(), "a topic without an age is not looked at");
    (0..10).for_each(|_| _ = world.publish(Some(1_000)));
    world.publish(None);
    assert_eq!(world.registry.aging().len(), 1);
    world.pass(SECOND);
    assert_eq!((world.topic.info().messages, world.registry.messages()), (2, 12));
    for (within, more) in [(vec![2, 3, 4, 5], true), (vec![6, 7, 8, 9], true), (vec![10, 11], false)] {
        assert_eq!(world.topic.reclaim(4), Reclaimed { floor: None, within, more, ..Reclaimed::default() });
    }
    assert_eq!(world.registry.messages(), 2);
    assert!(world.registry.history_bytes() < before + 12 * one);
    assert_eq!(read(&mut world.after(1)), ["E2-11:10", "m12"]);

    // What stands in front leaves at once, with the places behind it.
    world.set(TopicConfig { max_age: Some(Age::from_millis(1)), ..world.topic.config() });
    world.pass(SECOND);
    assert_eq!(
        world.topic.reclaim(5),
        Reclaimed { floor: Some(5), within: vec![], more: true, ..Reclaimed::default() }
    );
    assert_eq!(world.topic.reclaim(100), Reclaimed { floor: Some(12), ..Reclaimed::default() });
    assert_eq!((world.registry.messages(), world.topic.info().messages), (0, 0));
    world.set(aged(0));
    world.reclaim();
    assert!(world.registry.aging().is_empty());
    assert!(world.topic.ring.lock().now().is_none(), "it pays nothing any more");
    assert_eq!(read(&mut world.after(0)), ["E1-12:12"]);
    world.registry.remove(&world.topic);
    let Aged { registry, topic } = world;
    drop(topic);
    assert_eq!((registry.history_bytes(), registry.messages()), (0, 0));
}

#[test]
fn however_many_are_too_old_in_a_row_they_are_one_gap() {
    let world = Aged::with(TopicConfig { max_messages: Some(20_000), ..TopicConfig::keeping(1) });
    world.publish(None);
    (0..10_000).for_each(|_| _ = world.publish(Some(1_000)));
    world.publish(None);
    world.pass(SECOND);
    before_and_after_the_sweep(&world, || {
        assert_eq!(read(&mut world.after(0)), ["m1", "E2-10001:10000", "m10002"]);
        let page =
            world.topic.page(&Start::After(Cursor { epoch: world.topic.epoch(), offset: 5 }), BatchLimit::messages(9));
        assert_eq!((page.gap.unwrap().missed, page.messages.len()), (Some(9_996), 1));
    });
}

#[test]
fn ids_and_keys_of_what_is_too_old() {
    let world = Aged::of(10_000);
    let given = |id: &str, key: &str| {
        let (id, key) = (MessageId::parse(id).unwrap(), Key::parse(key).unwrap());
        world.publish_with(|plain| NewMessage {
            id: Some(id),
            key: Some(key),
            ttl: Some(Age::from_millis(1_000)),
            ..plain
        })
    };
    world.publish(None);
    assert_eq!((given("a", "k"), given("b", "k")), (2, 3));
    world.pass(2 * SECOND);
    before_and_after_the_sweep(&world, || {
        // Within the window a repeated id is a duplicate, whatever was kept.
        assert_eq!(given("a", "k"), 2);
        assert_eq!(world.topic.info().last_offset, 3);
    });
    let expected = |offset| {
        let data = Payload::null();
        let new = NewMessage { expected_offset: Some(offset), ..NewMessage::of(data) };
        world.topic.append(new).map(|done| done.cursor.offset)
    };
    let on_key = |offset| {
        let (data, key) = (Payload::null(), Key::parse("k").ok());
        let plain = NewMessage { key, ..NewMessage::of(data) };
        world.topic.append(NewMessage { expected_key_offset: Some(offset), ..plain }).map(|done| done.cursor.offset)
    };
    assert!(on_key(3).is_err(), "no message of the key is kept");
    assert!(expected(1).is_err(), "a message that is too old is still the newest that there was");
    assert_eq!(expected(3).unwrap(), 4);
    assert_eq!(on_key(0).unwrap(), 5);
    assert!(on_key(0).is_err());
    assert_eq!(on_key(5).unwrap(), 6);
}

#[test]
fn what_a_store_feeds_has_the_age_of_its_publication() {
    let world = Aged::of(10_000);
    world.topic.set_numbering(Numbering { before: Some(0), ..Numbering::SPARSE });
    let now = world.registry.clock().wall().0;
    let feed = |offset, prev, age: i64, ttl: Option<u64>, id: &str| {
        world.topic.feed(Committed {
            offset,
            prev,
            at: Timestamp(now - age),
            id: MessageId::parse(id).unwrap(),
            given_id: true,
            key: None,
            data: Payload::null(),
            ttl: ttl.map(Age::from_millis),
            headers: None,
            is_removal: false,
        })
    };
    assert_eq!(feed(10, 0, 30 * SECOND, None, "a"), Feed::Taken);
    assert_eq!(feed(20, 10, 9 * SECOND, None, "b"), Feed::Taken);
    assert_eq!(feed(30, 20, 8 * SECOND, Some(5_000), "c"), Feed::Taken);
    // An id counts as long as its message is kept, and the same on every instance.
    assert_eq!(feed(40, 30, 0, None, "b"), Feed::Stale);
    assert_eq!(feed(40, 30, 0, None, "a"), Feed::Taken);
    before_and_after_the_sweep(&world, || assert_eq!(read(&mut world.after(10)), ["m20", "E21-30:1", "m40"]));
    world.pass(2 * SECOND);
    before_and_after_the_sweep(&world, || assert_eq!(read(&mut world.after(0)), ["E1-30:3", "m40"]));
}

// ---- the model

#[derive(Clone, Debug)]
enum Act {
    /// Publishes, with a time of its own in tens of seconds.
    Publish(Option<u64>),
    /// Tens of seconds pass.
    Pass(i64),
    /// Somebody sets the wall clock by so many seconds.
    SetClock(i64),
    /// The topic's age becomes so many tens of seconds; 0 is no limit.
    SetAge(u64),
    SetBound(usize),
    Sweep(usize),
    Join(usize, usize),
    Read(usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => prop::option::weighted(0.5, 1..6_u64).prop_map(Act::Publish),
        4 => (1..4_i64).prop_map(Act::Pass),
        1 => (-1_000..1_000_i64).prop_map(Act::SetClock),
        1 => (0..8_u64).prop_map(Act::SetAge),
        1 => (1..12_usize).prop_map(Act::SetBound),
        3 => (1..6_usize).prop_map(Act::Sweep),
        2 => (0..3_usize, 0..20_usize).prop_map(|(slot, back)| Act::Join(slot, back)),
        4 => (0..3_usize, 1..6_usize).prop_map(|(slot, max)| Act::Read(slot, max)),
    ]
}

#[derive(Default)]
struct Log {
    now: i64,
    max_age: i64,
    bound: u64,
    /// Of each message: when it was published, when its own time is over, whether it is too old.
    messages: Vec<(i64, i64, bool)>,
    /// The newest offset that left because of the bound.
    floor: u64,
    /// Offsets that left because of the bound, and were not too old.
    crowded_out: Vec<u64>,
}

impl Log {
    fn age(&mut self) {
        for (born, until, is_gone) in &mut self.messages {
            *is_gone |= *until <= self.now || (self.max_age > 0 && *born + self.max_age <= self.now);
        }
    }

    fn trim(&mut self) {
        let floor = (self.messages.len() as u64).saturating_sub(self.bound).max(self.floor);
        let left = (self.floor + 1..=floor).filter(|offset| !self.messages[*offset as usize - 1].2);
        self.crowded_out.extend(left);
        self.floor = floor;
    }

    fn is_readable(&self, offset: u64) -> bool {
        offset > self.floor && self.messages.get(offset as usize - 1).is_some_and(|(_, _, is_gone)| !is_gone)
    }

    fn readable(&self) -> Vec<u64> {
        (1..=self.messages.len() as u64).filter(|offset| self.is_readable(*offset)).collect()
    }
}

struct Following {
    reader: Reader,
    after: u64,
    has_read: bool,
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
                }
                Event::Gap(gap) => {
                    assert!(!after_gap, "neighbouring holes are one gap: {events:?}");
                    assert_eq!((gap.from_offset, gap.missed), (self.after + 1, Some(gap.to_offset - self.after)));
                    assert!((gap.from_offset..=gap.to_offset).all(|offset| !log.is_readable(offset)), "{gap:?}");
                    let is_slow =
                        log.crowded_out.iter().any(|offset| (gap.from_offset..=gap.to_offset).contains(offset));
                    if self.has_read || !is_slow {
                        assert_eq!(gap.reason == GapReason::SlowConsumer, is_slow, "{gap:?}");
                    }
                    (self.after, after_gap) = (gap.to_offset, true);
                }
                Event::Deleted { .. } | Event::StateComplete(_) => panic!("{events:?}"),
            }
        }
        self.has_read = true;
        status
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_grows_old_is_told_exactly(jumps in any::<bool>(), acts in prop::collection::vec(act(), 1..80)) {
        const TEN: u64 = 10_000;
        // Where a topic gets its first age, that of its messages is what the wall clock says.
        let longest = if jumps { 1_000_000 } else { 0 };
        let world = Aged::with(aged(longest * TEN));
        let mut log = Log { bound: 10, max_age: (longest * TEN).cast_signed(), ..Log::default() };
        let mut readers: [Option<Following>; 3] = Default::default();
        for act in acts {
            match act {
                Act::Publish(ttl) => {
                    world.publish(ttl.map(|ttl| ttl * TEN));
                    let until = ttl.map_or(i64::MAX, |ttl| log.now + (ttl * TEN).cast_signed());
                    log.messages.push((log.now, until, false));
                }
                Act::Pass(tens) => {
                    world.pass(tens * TEN.cast_signed());
                    log.now += tens * TEN.cast_signed();
                }
                Act::SetClock(by) => if jumps { world.registry.clock().set_by(by * SECOND) },
                Act::SetAge(tens) => {
                    let tens = if tens == 0 { longest } else { tens };
                    let max_age = Some(Age::from_millis(tens * TEN));
                    world.set(TopicConfig { max_age, ..world.topic.config() });
                    log.max_age = (tens * TEN).cast_signed();
                }
                Act::SetBound(bound) => {
                    world.set(TopicConfig { max_messages: Some(bound), ..world.topic.config() });
                    log.bound = bound as u64;
                }
                Act::Sweep(most) => {
                    for channel in world.registry.aging() {
                        channel.reclaim(most);
                    }
                }
                Act::Join(slot, back) => {
                    let after = (log.messages.len() as u64).saturating_sub(back as u64);
                    readers[slot] = Some(Following { reader: world.after(after), after, has_read: false });
                }
                Act::Read(slot, max) => if let Some(following) = &mut readers[slot] {
                    following.read(&log, max);
                },
            }
            log.age();
            log.trim();
            let readable = log.readable();
            prop_assert_eq!(world.topic.info().messages, readable.len());
            prop_assert_eq!(&world.offsets(&Start::Oldest), &readable);
            let page = world.topic.page_before(None, 3);
            let newest: Vec<u64> = page.messages.iter().map(|message| message.cursor.offset).collect();
            prop_assert_eq!(&newest, &readable[readable.len().saturating_sub(3)..]);
            prop_assert_eq!(page.has_previous, readable.len() > 3);
            let (first, last) = (newest.first().copied().unwrap_or(0), newest.last().copied().unwrap_or(0));
            let missed: u64 = page.holes.iter().map(|hole| hole.missed.unwrap()).sum();
            prop_assert_eq!(missed + newest.len() as u64, if newest.is_empty() { 0 } else { last - first + 1 });
        }
        for following in readers.iter_mut().flatten() {
            while following.read(&log, 3) == ReadStatus::More {}
            prop_assert_eq!(following.after, log.messages.len() as u64);
        }
        world.pass(1_000 * TEN.cast_signed());
        world.set(TopicConfig { max_age: Some(Age::from_millis(1)), ..world.topic.config() });
        world.reclaim();
        prop_assert_eq!(world.registry.messages(), 0);
        world.registry.remove(&world.topic);
        drop(readers);
        let Aged { registry, topic } = world;
        drop(topic);
        prop_assert_eq!(registry.history_bytes(), 0);
    }
}
