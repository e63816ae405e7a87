//! Topics that keep the newest message of each key.

use super::*;

const SECOND: i64 = 1_000;
const DAY: i64 = 24 * 3_600 * SECOND;

pub struct Latest {
    pub registry: Arc<Registry>,
    pub topic: Arc<Channel>,
}

pub fn latest(max_keys: usize) -> TopicConfig {
    TopicConfig { retention: Some(Retention::LatestPerKey), max_keys: Some(max_keys), ..TopicConfig::keeping(3) }
}

fn key(name: &str) -> Option<Key> {
    Key::parse(name).ok()
}

pub fn message(of: &str, number: u64) -> NewMessage {
    NewMessage { key: key(of), ..NewMessage::of(Payload::parse(&number.to_string(), 100).unwrap()) }
}

pub fn removal(of: &str) -> NewMessage {
    NewMessage { key: key(of), is_removal: true, ..NewMessage::of(Payload::null()) }
}

impl Latest {
    fn with(config: TopicConfig, bytes: usize) -> Self {
        let settings = RegistrySettings::for_tests(10);
        let registry =
            Registry::new(RegistrySettings { max_bytes_per_topic: bytes, max_history_bytes: bytes, ..settings });
        let topic = insert(&registry, "t", config);
        Self { registry, topic }
    }

    fn new() -> Self {
        Self::with(latest(1_000_000), 1 << 30)
    }

    /// Publishes with these keys, and returns the offset of the last.
    fn publish(&self, keys: &[&str]) -> u64 {
        let mut last = 0;
        for key in keys {
            last = self.topic.append(message(key, 1)).unwrap().cursor.offset;
        }
        last
    }

    fn remove(&self, key: &str) -> u64 {
        self.topic.append(removal(key)).unwrap().cursor.offset
    }

    pub fn reader(&self, start: &Start) -> Reader {
        self.topic.locate(start).0
    }

    pub fn after(&self, offset: u64) -> Reader {
        self.reader(&Start::After(Cursor { epoch: self.topic.epoch(), offset }))
    }

    pub fn offsets(&self, start: &Start) -> Vec<u64> {
        let page = self.topic.page(start, BatchLimit::messages(100_000));
        page.messages.iter().map(|message| message.cursor.offset).collect()
    }

    fn reclaim(&self) -> Vec<Reclaimed> {
        let mut all = Vec::new();
        loop {
            let reclaimed = self.topic.reclaim(3);
            let more = reclaimed.more;
            all.push(reclaimed);
            if !more {
                return all;
            }
        }
    }

    fn set(&self, config: TopicConfig) -> Result<Reclaimed, Error> {
        let config = config.or(self.topic.config());
        self.registry.prepare(&self.topic, config)?;
        Ok(self.registry.apply(&self.topic, false, config))
    }

    fn slots(&self) -> usize {
        self.topic.ring.lock().slots()
    }
}

pub fn insert(registry: &Registry, name: &str, config: TopicConfig) -> Arc<Channel> {
    registry.insert(Incarnation::new(&TopicName::parse(name).unwrap(), config), |_| Ok(())).unwrap()
}

/// Reads to the end: `m3` is message 3, `r3` a removal, `C4-5:2` a gap from 4 to 5 with 2 missed that were replaced, `E…` one
/// of messages that were too old.
fn read(reader: &mut Reader) -> Vec<String> {
    let mut events = Vec::new();
    while reader.read(&Wanted::default(), BatchLimit::messages(100), &mut events, ALONE, || {}).unwrap()
        == ReadStatus::More
    {}
    events.iter().map(shown).collect()
}

fn shown(event: &Event) -> String {
    match event {
        Event::Message(message, _) if message.is_removal => format!("r{}", message.cursor.offset),
        Event::Message(message, _) => format!("m{}", message.cursor.offset),
        Event::Gap(gap) => {
            let (reason, missed) = (&gap.reason.code()[..1], gap.missed.map_or("?".to_owned(), |n| n.to_string()));
            format!("{reason}{}-{}:{missed}", gap.from_offset, gap.to_offset)
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn the_newest_message_of_each_key_is_kept() {
    let world = Latest::new();
    world.publish(&["a", "b", "a", "c", "b", "a", "a"]);
    assert_eq!(world.offsets(&Start::Oldest), [4, 5, 7]);
    assert_eq!(world.offsets(&Start::Last(2)), [5, 7]);
    assert_eq!(world.topic.info().messages, 3);
    assert_eq!(read(&mut world.reader(&Start::Oldest)), ["m4", "m5", "C6-6:1", "m7"]);
    assert_eq!(read(&mut world.after(0)), ["C1-3:3", "m4", "m5", "C6-6:1", "m7"]);
    assert_eq!(read(&mut world.after(2)), ["C3-3:1", "m4", "m5", "C6-6:1", "m7"]);
    assert_eq!(read(&mut world.after(5)), ["C6-6:1", "m7"]);
    assert_eq!(read(&mut world.after(7)), Vec::<String>::new());
    assert_eq!(read(&mut world.reader(&Start::Since(Timestamp(0)))), ["C1-3:3", "m4", "m5", "C6-6:1", "m7"]);
    let elsewhere = Start::After(Cursor { epoch: Epoch::random(), offset: 1 });
    assert_eq!(read(&mut world.reader(&elsewhere)), ["N1-3:3", "m4", "m5", "C6-6:1", "m7"]);
    let page = world.topic.page_before(None, 2);
    assert_eq!((page.messages.len(), page.has_previous, page.has_next), (2, true, false));
    let hole = &page.holes[0];
    assert_eq!((hole.missed, hole.from_offset, hole.to_offset, hole.reason), (Some(1), 6, 6, GapReason::Compacted));
    let page = world.topic.page_before(Some(5), 2);
    assert_eq!((page.messages.len(), page.has_previous, page.has_next), (1, false, true));
}

#[test]
fn one_read_takes_what_lies_on_both_sides_of_a_hole() {
    let world = Latest::new();
    world.publish(&["a", "b", "c", "d", "b", "e", "d", "f"]);
    let mut reader = world.after(0);
    let mut events = Vec::new();
    let rest = reader.read(&Wanted::default(), BatchLimit::messages(100), &mut events, ALONE, || {}).unwrap();
    assert_eq!(rest, ReadStatus::CaughtUp);
    let shown: Vec<_> = events.iter().map(shown).collect();
    assert_eq!(shown, ["m1", "C2-2:1", "m3", "C4-4:1", "m5", "m6", "m7", "m8"]);
    // A batch ends where it is full, and the next one begins with the hole.
    let mut reader = world.after(0);
    let mut sizes = Vec::new();
    let mut all = Vec::new();
    loop {
        let mut events = Vec::new();
        let rest = reader.read(&Wanted::default(), BatchLimit::messages(2), &mut events, ALONE, || {}).unwrap();
        sizes.push(events.iter().filter(|event| matches!(event, Event::Message(..))).count());
        all.extend(events.iter().map(self::shown));
        if rest == ReadStatus::CaughtUp {
            break;
        }
    }
    assert_eq!((sizes, all), (vec![2, 2, 2], shown));
}

#[test]
fn who_keeps_up_is_told_of_no_gap() {
    let world = Latest::new();
    let mut reader = world.reader(&Start::Live);
    for number in 1..300_u64 {
        world.publish(&[if number % 2 == 0 { "a" } else { "b" }]);
        assert_eq!(read(&mut reader), [format!("m{number}")]);
    }
    world.publish(&["a", "b", "a"]);
    assert_eq!(read(&mut reader), ["C300-300:1", "m301", "m302"]);
}

#[test]
fn a_removal_takes_the_value_and_is_forgotten_later() {
    let world = Latest::new();
    world.publish(&["a", "b"]);
    assert_eq!(world.remove("a"), 3);
    assert_eq!(world.topic.info().messages, 1);
    assert_eq!(read(&mut world.after(0)), ["C1-1:1", "m2", "r3"]);
    assert_eq!(world.remove("a"), 4);
    assert_eq!(world.remove("never"), 5);
    assert_eq!(world.topic.info().messages, 1);
    assert_eq!(read(&mut world.after(2)), ["C3-3:1", "r4", "r5"]);
    world.registry.clock().pass(DAY - SECOND);
    world.publish(&["b", "never"]);
    assert_eq!(world.topic.info().messages, 2);
    assert_eq!(world.topic.ring.lock().forgotten_removal(), 0);
    world.registry.clock().pass(SECOND);
    for _ in 0..2 {
        assert_eq!(read(&mut world.after(2)), ["C3-5:3", "m6", "m7"]);
        assert_eq!(world.topic.ring.lock().forgotten_removal(), 4);
        assert_eq!(world.topic.info().messages, 2);
        world.reclaim();
    }
    // What ends the history may be forgotten, too.
    world.remove("b");
    world.registry.clock().pass(DAY);
    for _ in 0..2 {
        assert_eq!(read(&mut world.after(7)), ["C8-8:1"]);
        assert_eq!(world.offsets(&Start::Oldest), [7]);
        world.reclaim();
    }
    world.publish(&["c"]);
    assert_eq!(read(&mut world.after(6)), ["m7", "C8-8:1", "m9"]);
}

#[test]
fn the_time_of_a_message_takes_its_key() {
    let world = Latest::with(latest(2), 1 << 20);
    world.topic.append(NewMessage { ttl: Some(Age::from_millis(5_000)), ..message("a", 1) }).unwrap();
    world.publish(&["b"]);
    assert!(matches!(world.topic.append(message("c", 1)), Err(Refusal::Error(Error::LimitReached { limit: 2, .. }))));
    world.registry.clock().pass(5 * SECOND);
    for _ in 0..2 {
        assert_eq!(world.topic.info().messages, 1);
        assert_eq!(read(&mut world.after(0)), ["E1-1:1", "m2"]);
        world.reclaim();
    }
    assert_eq!(world.publish(&["c"]), 3, "a key without a value does not count");
    let old = TopicConfig { max_age: Some(Age::from_millis(1)), ..TopicConfig::default() };
    world.set(old).unwrap();
    world.registry.clock().pass(DAY);
    assert_eq!(world.offsets(&Start::Oldest), [2, 3], "the age of a topic does not matter");
}

#[test]
fn what_a_topic_takes_and_refuses() {
    let world = Latest::with(latest(2), 1 << 20);
    let without = world.topic.append(NewMessage::of(Payload::null()));
    assert!(matches!(without, Err(Refusal::Error(Error::BadRequest { field: "key", .. }))), "{without:?}");
    world.publish(&["a", "b", "a", "b"]);
    let refused = world.topic.append(message("c", 1));
    assert!(matches!(refused, Err(Refusal::Error(Error::LimitReached { limit: 2, .. }))), "{refused:?}");
    assert_eq!(world.remove("c"), 5, "a removal needs no room");
    assert_eq!(world.remove("a"), 6);
    assert_eq!(world.publish(&["c"]), 7, "it has made room");
    assert!(world.topic.append(message("a", 1)).is_err());
    let more = TopicConfig { max_keys: Some(3), ..TopicConfig::default() };
    world.set(more).unwrap();
    assert_eq!(world.publish(&["a"]), 8);
}

#[test]
fn a_condition_on_a_key() {
    let world = Latest::new();
    let expecting = |offset| {
        let new = NewMessage { expected_key_offset: Some(offset), ..message("a", 1) };
        world.topic.append(new).map(|done| done.cursor.offset)
    };
    assert_eq!(expecting(0).unwrap(), 1);
    assert!(expecting(0).is_err());
    assert_eq!(expecting(1).unwrap(), 2);
    world.remove("a");
    assert!(expecting(2).is_err() && expecting(3).is_err());
    assert_eq!(expecting(0).unwrap(), 4, "a removed key has no message");
}

#[test]
fn an_id_is_known_although_its_message_was_replaced() {
    let world = Latest::new();
    let with_id = NewMessage { id: MessageId::parse("once").ok(), ..message("a", 1) };
    world.topic.append(with_id.clone()).unwrap();
    world.publish(&["a"; 100]);
    let again = world.topic.append(with_id).unwrap();
    assert_eq!((again.cursor.offset, again.duplicate), (1, true));
}

/// Nothing is evicted: where the room ends, a message is refused unless it replaces one that is as large.
#[test]
fn the_room_is_bounded_and_nothing_leaves_for_it() {
    let world = Latest::with(latest(1_000_000), 100_000);
    let large = |of: &str| NewMessage {
        data: Payload::parse(&format!("{:?}", "x".repeat(1_000)), 2_000).unwrap(),
        ..message(of, 1)
    };
    let mut keys = 0;
    let refused = loop {
        match world.topic.append(large(&format!("key-{keys}"))) {
            Ok(_) => keys += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refusal::Error(Error::LimitReached { limit: 100_000, .. })), "{refused:?}");
    assert!(keys > 40, "{keys}");
    for round in 0..500 {
        world.topic.append(large(&format!("key-{}", round % keys))).unwrap();
    }
    assert_eq!(world.topic.info().messages, keys);
    assert!(world.topic.append(large("another")).is_err());
    world.remove("key-0");
    world.publish(&["another"]);
}

/// The memory follows the number of keys, however many messages there were.
#[test]
fn memory_follows_the_keys() {
    let world = Latest::new();
    let (keys, updates) = (10_000, 200_000);
    let names: Vec<String> = (0..keys).map(|number| format!("key-{number}")).collect();
    // Every key, and then some of them more often than others.
    let mut most = 0;
    for number in 0..updates {
        let at = if number < keys { number } else { (number * number) % (keys / (1 + number % 7)) };
        world.topic.append(message(&names[at], number as u64)).unwrap();
        most = most.max(world.slots());
    }
    assert!(most <= keys * 3 / 2 + 65, "{most} slots");
    assert_eq!(world.topic.info().messages, keys);
    assert_eq!(world.registry.messages(), keys);
    let live: usize = {
        let ring = world.topic.ring.lock();
        ring.kept().iter().map(|(message, _)| message.cost()).sum()
    };
    assert!(world.registry.history_bytes() <= live * 2, "{} bytes for {live}", world.registry.history_bytes());
    world.registry.remove(&world.topic);
    let Latest { registry, topic } = world;
    drop(topic);
    assert_eq!((registry.history_bytes(), registry.messages()), (0, 0));
}

#[test]
fn a_history_becomes_the_newest_of_each_key_and_back() {
    let world = Latest::with(TopicConfig::keeping(6), 1 << 20);
    world.publish(&["a"]);
    let mut slow = world.reader(&Start::Live);
    world.publish(&["b", "a", "b", "a", "c", "a", "c"]);
    let (mut behind, mut live) = (world.after(4), world.reader(&Start::Live));
    let reclaimed =
        world.set(TopicConfig { retention: Some(Retention::LatestPerKey), ..TopicConfig::default() }).unwrap();
    assert_eq!((reclaimed.floor, reclaimed.replaced), (Some(3), vec![3, 5, 6]));
    assert_eq!(world.offsets(&Start::Oldest), [4, 7, 8]);
    assert_eq!(read(&mut behind), ["C5-6:2", "m7", "m8"]);
    assert_eq!(read(&mut slow), ["S2-3:2", "m4", "C5-6:2", "m7", "m8"]);
    assert_eq!(read(&mut world.after(1)), ["E2-3:2", "m4", "C5-6:2", "m7", "m8"]);
    world.publish(&["d", "e", "f", "g"]);
    assert_eq!(read(&mut live), ["m9", "m10", "m11", "m12"]);
    assert_eq!(world.topic.info().messages, 7, "the bound of the history does not matter");
    let reclaimed = world.set(TopicConfig { retention: Some(Retention::History), ..TopicConfig::default() }).unwrap();
    assert_eq!(reclaimed.floor, Some(6), "now it does");
    world.publish(&["a", "a"]);
    assert_eq!(world.offsets(&Start::Oldest), [9, 10, 11, 12, 13, 14]);
    assert_eq!(read(&mut live), ["m13", "m14"]);
    assert_eq!(read(&mut world.after(7)), ["E8-8:1", "m9", "m10", "m11", "m12", "m13", "m14"]);
    assert_eq!(read(&mut world.after(12)), ["m13", "m14"]);
    // A history is short again.
    world.publish(&["x"; 8]);
    assert_eq!(read(&mut live), ["S15-16:2", "m17", "m18", "m19", "m20", "m21", "m22"]);
    assert_eq!(
        read(&mut world.reader(&Start::Since(Timestamp(0)))),
        ["E1-16:16", "m17", "m18", "m19", "m20", "m21", "m22"]
    );
}

#[test]
fn a_history_that_does_not_fit_is_refused() {
    let world = Latest::with(TopicConfig::keeping(10), 1 << 20);
    world.publish(&["a", "b", "c"]);
    let few = TopicConfig { retention: Some(Retention::LatestPerKey), max_keys: Some(2), ..TopicConfig::default() };
    assert!(matches!(world.set(few), Err(Error::BadRequest { field: "retention", .. })));
    world.remove("c");
    world.topic.append(NewMessage::of(Payload::null())).unwrap();
    let refused = world.set(few).unwrap_err();
    assert!(refused.to_string().contains("without a key"), "{refused}");
    // Nothing has changed, and once that message is gone it is possible.
    world.publish(&["b"; 9]);
    assert!(world.set(few).is_err());
    world.publish(&["b"]);
    world.set(few).unwrap();
    assert_eq!(world.topic.info().messages, 1);
    assert!(world.topic.append(NewMessage::of(Payload::null())).is_err());
}

/// From the check on, no message without a key comes in; if the setting is not stored after all, they do again.
#[test]
fn a_change_that_is_on_its_way_lets_nothing_in_that_does_not_fit() {
    let world = Latest::with(TopicConfig::keeping(10), 1 << 20);
    world.publish(&["a"]);
    let config = latest(1).or(world.topic.config());
    world.registry.prepare(&world.topic, config).unwrap();
    assert!(world.topic.append(NewMessage::of(Payload::null())).is_err());
    assert!(world.topic.append(message("b", 1)).is_err());
    world.publish(&["a"]);
    assert_eq!(world.offsets(&Start::Oldest), [1, 2]);
    world.registry.abandon(&world.topic);
    world.topic.append(NewMessage::of(Payload::null())).unwrap();
}

/// Who has chosen to be cut off when it falls behind is not cut off for what newer messages have replaced.
#[test]
fn falling_behind_ends_no_subscription() {
    let world = Latest::new();
    world.publish(&["a"]);
    let mut reader = world.reader(&Start::Live);
    let wanted = Wanted { overflow: Overflow::Disconnect, ..Wanted::default() };
    let mut events = Vec::new();
    reader.read(&wanted, BatchLimit::messages(100), &mut events, ALONE, || {}).unwrap();
    world.publish(&["a"; 500]);
    reader.read(&wanted, BatchLimit::messages(100), &mut events, ALONE, || {}).unwrap();
    assert_eq!(events.iter().map(shown).collect::<Vec<_>>(), ["C2-500:499", "m501"]);
}

/// What a store does not bring back was replaced, and is told as exactly as what was replaced here.
#[test]
fn a_history_with_holes_is_brought_back() {
    let world = Latest::new();
    let mut history = world.topic.restore();
    history.begin_with_holes(0, Numbering::DENSE, 0);
    for (offset, sequence, key, before) in [(4, 40, "a", 30), (7, 70, "b", 60)] {
        history.pass_compacted(offset - 1, before);
        history.feed(offset, sequence, Timestamp(1_000), false, message(key, 1));
    }
    history.pass_compacted(9, 90);
    assert_eq!(history.end(), Reclaimed::default());
    assert_eq!(world.topic.info().messages, 2);
    let in_log = |sequence| read(&mut world.reader(&Start::AfterSequence(sequence)));
    for _ in 0..2 {
        assert_eq!(read(&mut world.after(0)), ["C1-3:3", "m4", "C5-6:2", "m7", "C8-9:2"]);
        assert_eq!(read(&mut world.after(5)), ["C6-6:1", "m7", "C8-9:2"]);
        assert_eq!(read(&mut world.after(9)), Vec::<String>::new());
        assert_eq!(in_log(40), ["C5-6:2", "m7", "C8-9:2"]);
        assert_eq!(in_log(55), ["C5-6:?", "m7", "C8-9:2"], "nobody knows how many of them were before");
        assert_eq!(in_log(60), ["m7", "C8-9:2"]);
        assert_eq!(in_log(90), Vec::<String>::new());
        world.reclaim();
    }
    assert_eq!(world.publish(&["c"]), 10);
    assert_eq!(read(&mut world.after(7)), ["C8-9:2", "m10"]);
    assert_eq!(read(&mut world.after(9)), ["m10"]);
    // Where the engine may have lost something, nobody counts.
    let world = Latest::new();
    let mut history = world.topic.restore();
    history.begin_with_holes(0, Numbering { dense_from: 5, before: None }, 0);
    history.feed(1, 10, Timestamp(1_000), false, message("a", 1));
    history.pass_compacted(6, 60);
    history.feed(7, 70, Timestamp(1_000), false, message("b", 1));
    history.end();
    assert_eq!(read(&mut world.after(1)), ["C2-6:?", "m7"]);
    assert_eq!(read(&mut world.after(5)), ["C6-6:1", "m7"]);
}
