//! Subscribers that begin with the state, against a model: what they hold when they are told that it is complete is the state
//! at that position, and from there on they get every message, whatever happens while they read.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::channel::Retention;

const TOPICS: [&str; 2] = ["p.0", "p.1"];
/// Messages that each topic keeps.
const KEPT: usize = 24;
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const SOURCES: [&str; 3] = ["p.0", "p.*", "p.1"];
/// How long messages are kept that have a time of their own.
const TTL: i64 = 15_000;

#[derive(Clone, Debug)]
enum Step {
    /// Without a key where there is none of this number.
    Publish {
        topic: usize,
        key: usize,
        is_short: bool,
    },
    Remove {
        topic: usize,
        key: usize,
    },
    Read(usize, usize),
    /// The connection breaks, and the client comes back behind the last message that it got.
    Cut(usize),
    /// The client begins again.
    Begin(usize),
    Pass,
    Shrink(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (topic, client) = (0..TOPICS.len(), 0..SOURCES.len());
    prop_oneof![
        10 => (topic.clone(), 0..=KEYS.len(), prop::bool::weighted(0.1))
            .prop_map(|(topic, key, is_short)| Step::Publish { topic, key, is_short }),
        3 => (topic.clone(), 0..KEYS.len()).prop_map(|(topic, key)| Step::Remove { topic, key }),
        8 => (client.clone(), 1..6_usize).prop_map(|(client, max)| Step::Read(client, max)),
        1 => client.clone().prop_map(Step::Cut),
        2 => client.prop_map(Step::Begin),
        1 => Just(Step::Pass),
        1 => (topic, 4..KEPT).prop_map(|(topic, max)| Step::Shrink(topic, max)),
    ]
}

/// A published message, at the offset of its place in the log.
struct Published {
    key: Option<usize>,
    is_removal: bool,
    /// Its number over all topics.
    sequence: u64,
}

#[derive(Default)]
struct Log(Vec<Published>);

impl Log {
    fn at(&self, offset: u64) -> &Published {
        &self.0[usize::try_from(offset).unwrap() - 1]
    }

    fn last(&self) -> u64 {
        self.0.len() as u64
    }
}

struct World {
    broker: Broker,
    retention: Retention,
    logs: [Log; 2],
    published: u64,
}

impl World {
    fn new(retention: Retention) -> Self {
        let settings = Settings {
            max_messages_per_topic: KEPT,
            max_publish_rate: 0,
            tombstone_ttl: Duration::from_millis(u64::try_from(TTL).unwrap()),
            ..Settings::default()
        };
        let broker = Broker::in_memory(settings);
        for topic in TOPICS {
            let config = TopicConfig { retention: Some(retention), ..TopicConfig::default() };
            now(broker.create_topic(&name(topic), config)).unwrap();
        }
        Self { broker, retention, logs: Default::default(), published: 0 }
    }

    fn publish(&mut self, topic: usize, key: Option<usize>, is_removal: bool, is_short: bool) {
        self.published += 1;
        let data = if is_removal { new_message("null") } else { new_message(self.published) };
        let message = NewMessage {
            key: key.map(|key| Key::parse(KEYS[key]).unwrap()),
            is_removal,
            ttl: is_short.then(|| Age::from_millis(u64::try_from(TTL).unwrap())),
            ..data
        };
        let done = now(self.broker.publish(&name(TOPICS[topic]), message)).unwrap();
        self.logs[topic].0.push(Published { key, is_removal, sequence: self.published });
        assert_eq!(done.cursor.offset, self.logs[topic].last());
    }

    /// The offsets of the messages that are kept.
    fn kept(&self, topic: usize) -> HashSet<u64> {
        let page = now(self.broker.history(&name(TOPICS[topic]), Start::Oldest, BatchLimit::messages(1_000))).unwrap();
        page.messages.iter().map(|message| message.cursor.offset).collect()
    }

    fn gone(&self) -> [HashSet<u64>; 2] {
        [0, 1].map(|topic| {
            let kept = self.kept(topic);
            (1..=self.logs[topic].last()).filter(|offset| !kept.contains(offset)).collect()
        })
    }

    fn pages(&self, topic: usize, limit: usize) -> Vec<u64> {
        let (mut offsets, mut after) = (Vec::new(), None);
        loop {
            let page = now(self.broker.state(&name(TOPICS[topic]), "", after, BatchLimit::messages(limit))).unwrap();
            assert!(page.messages.len() <= limit && (page.next.is_none() || page.messages.len() == limit));
            offsets.extend(page.messages.iter().map(|message| message.cursor.offset));
            after = page.next;
            if after.is_none() {
                return offsets;
            }
        }
    }

    /// The newest kept message of each key, in the order of offsets.
    fn state(&self, topic: usize) -> Vec<u64> {
        let newest = (0..KEYS.len()).filter_map(|key| newest_of(&self.logs[topic], &self.kept(topic), key));
        let mut values: Vec<_> = newest.filter(|offset| !self.logs[topic].at(*offset).is_removal).collect();
        values.sort_unstable();
        values
    }
}

fn newest_of(log: &Log, kept: &HashSet<u64>, key: usize) -> Option<u64> {
    kept.iter().copied().filter(|offset| log.at(*offset).key == Some(key)).max()
}

struct Client {
    source: &'static str,
    subscription: Subscription,
    /// What had left the history when it began.
    gone_before: [HashSet<u64>; 2],
    /// The newest message of each key that it got, unless that was a removal.
    held: HashMap<(usize, usize), u64>,
    /// The newest message that it got of each topic, and the end of the newest gap.
    newest: [u64; 2],
    told: [u64; 2],
    /// The number of the newest message that it got of all.
    sequence: u64,
    /// Where it comes back.
    position: Option<AnyCursor>,
    /// Whether this subscription was told that the state is complete.
    is_complete: bool,
    /// The offset that comes next in each topic, from there on.
    next: [Option<u64>; 2],
    was_told_gap: bool,
}

impl Client {
    fn begin(world: &World, source: &'static str) -> Self {
        let request = Subscribe { start: Some(Start::State), ..to(source) };
        Self {
            source,
            gone_before: world.gone(),
            subscription: now(world.broker.subscribe(request, &Inbox::default(), 0)).unwrap(),
            held: HashMap::new(),
            newest: [0; 2],
            told: [0; 2],
            sequence: 0,
            position: None,
            is_complete: false,
            next: [None; 2],
            was_told_gap: false,
        }
    }

    fn come_back(&mut self, world: &World) {
        let Some(position) = self.position.clone() else {
            *self = Self::begin(world, self.source);
            return;
        };
        // What was told behind that position is told again.
        for topic in self.topics() {
            self.told[topic] = behind(world, topic, &position);
            self.next[topic] = self.next[topic].map(|_| behind(world, topic, &position) + 1);
        }
        let request = Subscribe { start: Some(Start::State), resume: Some(position.into()), ..to(self.source) };
        self.subscription = now(world.broker.subscribe(request, &Inbox::default(), 0)).unwrap();
        self.is_complete = false;
    }

    fn topics(&self) -> impl Iterator<Item = usize> + use<> {
        let source = self.source;
        (0..TOPICS.len()).filter(move |topic| source == "p.*" || source == TOPICS[*topic])
    }

    fn read(&mut self, world: &World, max: usize) -> Progress {
        let mut events = Vec::new();
        let progress = self.subscription.read(BatchLimit::messages(max), &mut events);
        for event in events {
            match event {
                Event::Message(message, position) => self.take(world, &message, position),
                Event::Gap(gap) => {
                    self.was_told_gap = true;
                    let topic = topic_of(&gap.topic);
                    self.told[topic] = self.told[topic].max(gap.to_offset);
                    if let Some(next) = &mut self.next[topic] {
                        assert_eq!(gap.from_offset, *next);
                        assert_eq!(gap.missed, Some(gap.to_offset + 1 - gap.from_offset));
                        *next = gap.to_offset + 1;
                    }
                }
                Event::StateComplete(at) => self.complete(world, at),
                Event::Deleted { .. } => panic!("nothing was deleted"),
            }
        }
        progress
    }

    fn take(&mut self, world: &World, message: &Message, position: Option<PatternCursor>) {
        let (topic, offset) = (topic_of(&message.topic), message.cursor.offset);
        assert!(offset > self.newest[topic], "twice, or out of order");
        self.newest[topic] = offset;
        let published = world.logs[topic].at(offset);
        assert!(published.sequence > self.sequence, "{offset} of topic {topic} came too late");
        self.sequence = published.sequence;
        assert_eq!(message.is_removal, published.is_removal);
        match published.key {
            Some(key) if published.is_removal => _ = self.held.remove(&(topic, key)),
            Some(key) => _ = self.held.insert((topic, key), offset),
            None => {}
        }
        if let Some(next) = &mut self.next[topic] {
            assert_eq!(offset, *next, "in topic {topic} of {}", self.source);
            *next += 1;
        }
        self.position = Some(position.map_or(AnyCursor::Topic(message.cursor), AnyCursor::Pattern));
    }

    fn complete(&mut self, world: &World, at: AnyCursor) {
        assert!(!self.is_complete, "the state is complete once");
        self.is_complete = true;
        for topic in self.topics() {
            let behind = behind(world, topic, &at);
            // A gap may be told as a whole that ends behind the position.
            let next = self.next[topic].get_or_insert(behind.max(self.told[topic]) + 1);
            assert!(*next > behind, "the marker passes what was not told");
            if !self.was_told_gap {
                self.check_state(world, topic, behind);
            }
        }
        self.position = Some(at);
    }

    /// What the client holds is the state at this offset.
    fn check_state(&self, world: &World, topic: usize, at: u64) {
        let log = &world.logs[topic];
        let kept: HashSet<_> = world.kept(topic).into_iter().filter(|offset| *offset <= at).collect();
        for key in 0..KEYS.len() {
            let newest = newest_of(log, &kept, key);
            let Some(held) = self.held.get(&(topic, key)).copied() else {
                assert!(newest.is_none_or(|newest| log.at(newest).is_removal), "{key} is missing");
                continue;
            };
            // A value that was sent may have left the history since. Then there is no newer one that it was not sent.
            let newer = (held + 1..=at).filter(|offset| log.at(*offset).key == Some(key));
            let unsent: Vec<_> = newer.filter(|offset| !self.gone_before[topic].contains(offset)).collect();
            assert_eq!(unsent, [0_u64; 0], "{key} is held at {held}");
            assert!(newest.is_none_or(|newest| newest <= held));
        }
    }
}

/// The newest offset of a topic up to a position.
fn behind(world: &World, topic: usize, position: &AnyCursor) -> u64 {
    match position {
        AnyCursor::Topic(cursor) => cursor.offset,
        AnyCursor::Pattern(position) => {
            let log = &world.logs[topic].0;
            log.partition_point(|published| published.sequence <= position.logs[0].sequence) as u64
        }
    }
}

fn topic_of(name: &TopicName) -> usize {
    TOPICS.iter().position(|topic| *topic == name.as_str()).unwrap()
}

fn play(steps: Vec<Step>, retention: Retention) {
    let mut world = World::new(retention);
    let mut clients: Vec<_> = SOURCES.iter().map(|source| Client::begin(&world, source)).collect();
    for step in steps {
        match step {
            Step::Publish { topic, key, is_short } => {
                let key = Some(key).filter(|key| *key < KEYS.len());
                // Where the newest message of each key is kept, each has one.
                if key.is_some() || retention == Retention::History {
                    world.publish(topic, key, false, is_short);
                }
            }
            Step::Remove { topic, key } => world.publish(topic, Some(key), true, false),
            Step::Read(client, max) => _ = clients[client].read(&world, max),
            Step::Cut(client) => clients[client].come_back(&world),
            Step::Begin(client) => clients[client] = Client::begin(&world, SOURCES[client]),
            Step::Pass => world.broker.0.registry.clock().pass(TTL - 5_000),
            Step::Shrink(topic, max) => {
                let settings =
                    TopicConfig { max_messages: Some(max), retention: Some(world.retention), ..TopicConfig::default() };
                now(world.broker.update_topic(&name(TOPICS[topic]), settings)).unwrap();
            }
        }
    }
    for (topic, of) in TOPICS.into_iter().enumerate() {
        assert_eq!(world.pages(topic, 2), world.state(topic));
        assert_eq!(now(world.broker.count_state(&name(of), "")).unwrap(), world.state(topic).len());
    }
    for mut client in clients {
        while client.read(&world, 3) == Progress::More {}
        assert!(client.is_complete);
        for topic in client.topics() {
            assert_eq!(client.next[topic], Some(world.logs[topic].last() + 1));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_state_is_what_the_log_says(steps in prop::collection::vec(step(), 1..120)) {
        play(steps, Retention::History);
    }

    #[test]
    fn the_state_is_what_is_kept_of_each_key(steps in prop::collection::vec(step(), 1..120)) {
        play(steps, Retention::LatestPerKey);
    }
}
