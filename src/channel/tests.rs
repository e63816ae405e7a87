//! The rule by which engines feed channels, against a model: whatever an engine's feed loses, repeats or reorders, every
//! reader's stream is the log, in order, each message once, and what the engine has lost is announced at its place.

mod ages;
mod keys;
mod keys_at_random;

use proptest::prelude::*;

use super::*;

/// An engine's log and its unreliable feed.
#[derive(Clone, Debug)]
enum Step {
    /// Messages are stored; offsets skip what other topics take.
    Store(Vec<u64>),
    /// A stored message comes over the feed: the newest but so many. It may come again, late, or never.
    Feed(usize),
    /// The engine reads again what the channel says is missing.
    Repair,
    /// The store loses its oldest messages: what was not fed of them is lost.
    Lose(usize),
    Join(usize, usize),
    Read(usize, usize),
    Shrink(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(1..4_u64, 1..6).prop_map(Step::Store),
        8 => (0..8_usize).prop_map(Step::Feed),
        2 => Just(Step::Repair),
        1 => (1..12_usize).prop_map(Step::Lose),
        2 => (0..3_usize, 0..20_usize).prop_map(|(slot, back)| Step::Join(slot, back)),
        3 => (0..3_usize, 1..6_usize).prop_map(|(slot, max)| Step::Read(slot, max)),
        1 => (1..12_usize).prop_map(Step::Shrink),
    ]
}

struct World {
    channel: Arc<Channel>,
    registry: Arc<Registry>,
    /// Every offset ever stored.
    log: Vec<u64>,
    /// How many of them the store has lost.
    lost: usize,
}

impl World {
    fn new() -> Self {
        let registry = Registry::new(RegistrySettings::for_tests(10));
        let config = TopicConfig::keeping(10);
        let incarnation = Incarnation::new(&TopicName::parse("t").unwrap(), config);
        let channel = registry.insert(incarnation, |_| Ok(())).unwrap();
        channel.set_numbering(Numbering::SPARSE);
        Self { channel, registry, log: Vec::new(), lost: 0 }
    }

    fn message(&self, index: usize) -> Committed {
        let offset = self.log[index];
        Committed {
            offset,
            prev: index.checked_sub(1).map_or(0, |before| self.log[before]),
            at: Timestamp(i64::try_from(offset).unwrap()),
            id: MessageId::generate(),
            given_id: false,
            key: None,
            data: Payload::parse(&offset.to_string(), 100).unwrap(),
            headers: None,
            ttl: None,
            is_removal: false,
        }
    }

    /// Feeds what the store still has behind the channel's end, as an engine does that was told of a hole.
    fn repair(&self) {
        if let Some(newest) = self.lost.checked_sub(1) {
            self.channel.skip_to(self.log[newest]);
        }
        let after = self.channel.last();
        for index in self.log.partition_point(|offset| *offset <= after)..self.log.len() {
            assert_eq!(self.channel.feed(self.message(index)), Feed::Taken);
        }
    }
}

struct Model {
    reader: Reader,
    /// What was stored up to here is not its own.
    after: u64,
    events: Vec<Event>,
}

impl Model {
    fn check(&self, log: &[u64]) {
        let mut rest = log.iter().copied().filter(|offset| *offset > self.after).peekable();
        for event in &self.events {
            match event {
                Event::Message(message, _) => assert_eq!(Some(message.cursor.offset), rest.next(), "{:?}", self.events),
                Event::Gap(gap) => {
                    let mut missed = 0;
                    while rest.next_if(|offset| *offset <= gap.to_offset).is_some() {
                        missed += 1;
                    }
                    assert!(missed > 0, "{gap:?} of nothing in {:?}", self.events);
                    assert!(gap.missed.is_none_or(|told| told == missed), "{missed} missed, {gap:?}");
                }
                Event::Deleted { .. } | Event::StateComplete(_) => panic!("{:?}", self.events),
            }
        }
        assert_eq!(rest.next(), None, "neither read nor told of: {:?}", self.events);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn feeding_keeps_the_log(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        let mut readers: [Option<Model>; 3] = Default::default();
        for step in steps {
            match step {
                Step::Store(skips) => for skip in skips {
                    let next = world.log.last().copied().unwrap_or(0) + skip;
                    world.log.push(next);
                },
                Step::Feed(back) => if let Some(index) = world.log.len().checked_sub(back + 1) {
                    let (message, before) = (world.message(index), world.channel.last());
                    let (offset, prev) = (message.offset, message.prev);
                    let wanted = match () {
                        () if offset <= before => Feed::Stale,
                        () if prev > before => Feed::Missing { after: before },
                        () => Feed::Taken,
                    };
                    prop_assert_eq!(world.channel.feed(message), wanted);
                },
                Step::Repair => world.repair(),
                Step::Lose(count) => world.lost = (world.lost + count).min(world.log.len()),
                Step::Join(slot, back) => {
                    // A cursor of something that was stored, or of the beginning.
                    let index = world.log.len().saturating_sub(back);
                    let offset = index.checked_sub(1).map_or(0, |index| world.log[index]).min(world.channel.last());
                    let start = Start::After(Cursor { epoch: world.channel.epoch(), offset });
                    let (reader, _) = world.channel.locate(&start);
                    readers[slot] = Some(Model { reader, after: offset, events: Vec::new() });
                }
                Step::Read(slot, max) => if let Some(model) = &mut readers[slot] {
                    let _ = model.reader.read(&Wanted::default(), BatchLimit::messages(max), &mut model.events, ALONE, || {});
                },
                Step::Shrink(max_messages) => {
                    let config = TopicConfig { max_messages: Some(max_messages), ..world.channel.config() };
                    world.registry.apply(&world.channel, false, config);
                }
            }
        }
        world.repair();
        for model in readers.iter_mut().flatten() {
            while model.reader.read(&Wanted::default(), BatchLimit::messages(3), &mut model.events, ALONE, || {}).unwrap() == ReadStatus::More {}
            model.check(&world.log);
        }
    }
}

/// A message that the channel had before it was closed was published, even if it has left the history: whoever published it
/// must not publish it again into the topic's next incarnation.
#[test]
fn what_was_there_before_the_end_was_published() {
    let mut world = World::new();
    world.registry.apply(&world.channel, false, TopicConfig::keeping(1));
    for index in 0..3 {
        world.log.push(10 * (index as u64 + 1));
        let message = world.message(index);
        world.channel.feed(message);
    }
    world.channel.close();
    let id = MessageId::parse("none").unwrap();
    let seen = |offset| {
        let (known, is_behind_end) = world.channel.publication_at(offset, &id, false);
        (known.is_some(), is_behind_end)
    };
    assert_eq!(seen(30), (true, false), "it is kept");
    assert_eq!(seen(10), (false, false), "it has left the history");
    assert_eq!(seen(31), (false, true), "the topic was deleted before");
}
