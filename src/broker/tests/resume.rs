//! Subscribers that are cut again and again, against a model: positions over all topics, named consumers of both kinds,
//! filters, topics that come and go. Whatever was published is delivered or told, and told exactly.

use std::collections::HashMap;

use super::*;

const TOPICS: [&str; 3] = ["p.0", "p.1", "p.2"];

/// Messages that each topic keeps.
const KEPT: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, u8),
    Delete(usize),
    Read(usize, usize),
    Cut(usize),
    /// A position that was read is acknowledged: the so-many-th eighth of the connection's messages.
    Acknowledge(usize, u8),
    /// What was read is on its way to the client.
    Seal(usize),
    /// What was on its way has arrived.
    Confirm(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS.len();
    prop_oneof![
        6 => (0..TOPICS.len(), 1..9_u8).prop_map(|(topic, count)| Step::Publish(topic, count)),
        1 => (0..TOPICS.len()).prop_map(Step::Delete),
        6 => (client.clone(), 1..9_usize).prop_map(|(client, max)| Step::Read(client, max)),
        3 => client.clone().prop_map(Step::Cut),
        2 => (client.clone(), 0..=8_u8).prop_map(|(client, share)| Step::Acknowledge(client, share)),
        2 => client.clone().prop_map(Step::Seal),
        2 => client.prop_map(Step::Confirm),
    ]
}

/// Who knows where a client was.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Memory {
    /// The client: it comes back with the position of the last message that it got.
    Client,
    /// The server, as the client acknowledges.
    Explicit,
    /// The server, as delivery is confirmed.
    Auto,
}

/// What each client subscribes to, who knows where it was, and whether it has a filter.
const CLIENTS: [(&str, Memory, bool); 8] = [
    ("p.*", Memory::Client, false),
    ("p.*", Memory::Client, true),
    ("p.*", Memory::Explicit, false),
    (">", Memory::Explicit, true),
    ("p.*", Memory::Auto, false),
    (">", Memory::Auto, true),
    ("p.0", Memory::Explicit, true),
    ("p.0", Memory::Auto, true),
];

/// One published message.
struct Published {
    topic: usize,
    cursor: Cursor,
    number: u64,
    step: usize,
}

/// Every third message passes the filter.
fn passes(number: u64) -> bool {
    number.is_multiple_of(3)
}

struct Client {
    index: usize,
    subscription: Option<Subscription>,
    /// Where a client that knows it itself comes back.
    position: Option<PatternCursor>,
    /// The newest offset of each incarnation on this connection.
    reached: HashMap<Epoch, u64>,
    /// Gaps on this connection that no message of their topic has followed yet.
    open: Vec<Gap>,
    /// This connection's messages.
    read: Vec<(TopicName, Cursor)>,
    /// Numbers that came, and how often.
    came: HashMap<u64, usize>,
    /// Gaps, and the step in which each was told.
    gaps: Vec<(usize, Gap)>,
    /// Topics that were said to have gone with unread messages.
    gone: Vec<(usize, TopicName)>,
    /// What it is to get begins with this step.
    since: usize,
    in_flight: HashMap<Epoch, u64>,
    /// Must not come again.
    confirmed: HashMap<Epoch, u64>,
}

impl Client {
    fn new(index: usize) -> Self {
        Self {
            index,
            subscription: None,
            position: None,
            reached: HashMap::new(),
            open: Vec::new(),
            read: Vec::new(),
            came: HashMap::new(),
            gaps: Vec::new(),
            gone: Vec::new(),
            since: 0,
            in_flight: HashMap::new(),
            confirmed: HashMap::new(),
        }
    }

    fn is_filtered(&self) -> bool {
        CLIENTS[self.index].2
    }

    fn memory(&self) -> Memory {
        CLIENTS[self.index].1
    }

    fn source(&self) -> Source {
        Source::parse(CLIENTS[self.index].0).unwrap()
    }

    fn name(&self) -> ConsumerName {
        ConsumerName::parse(&format!("c{}", self.index)).unwrap()
    }

    /// Connects, again if it was connected: nothing more is read of the old connection.
    fn connect(&mut self, broker: &Broker, step: usize) {
        self.subscription = None;
        self.reached.clear();
        self.open.clear();
        self.read.clear();
        self.in_flight.clear();
        let ack = match self.memory() {
            Memory::Client => None,
            Memory::Explicit => Some(Ack::Explicit),
            Memory::Auto => Some(Ack::Auto),
        };
        let filter = r#"{"field":"$key","eq":"yes"}"#;
        let request = Subscribe {
            resume: self.position.clone().map(Start::AfterPattern),
            filter: self.is_filtered().then(|| Filter::parse(filter, &FilterLimits::default()).unwrap()),
            consumer: ack.map(|ack| (self.name(), ack)),
            ..Subscribe::to(self.source())
        };
        let subscription = now(broker.subscribe(request, &Inbox::default(), 0)).unwrap();
        if self.memory() == Memory::Client {
            if let (None, AnyCursor::Pattern(begins_at)) = (&self.position, subscription.begins_at()) {
                self.position = Some(begins_at.clone());
                self.since = step;
            }
        } else if !subscription.consumer().unwrap().resumed {
            // What it had not read of an earlier incarnation went with that incarnation's consumers, and this says so.
            self.since = step;
        }
        self.subscription = Some(subscription);
    }

    fn read(&mut self, limit: usize, step: usize) -> Progress {
        let mut events = Vec::new();
        let Some(subscription) = &mut self.subscription else { return Progress::CaughtUp };
        let progress = subscription.read(BatchLimit::messages(limit), &mut events);
        for event in events {
            self.take(event, step);
        }
        if matches!(progress, Progress::Ended(_)) {
            self.subscription = None;
        }
        progress
    }

    fn drain(&mut self, step: usize) {
        while self.read(7, step) == Progress::More {}
    }

    fn take(&mut self, event: Event, step: usize) {
        match event {
            Event::Message(message, position) => {
                let Cursor { epoch, offset } = message.cursor;
                let reached = self.reached.get(&epoch).copied().unwrap_or_default();
                assert!(offset > reached, "{message:?} after offset {reached}");
                assert!(offset > self.confirmed.get(&epoch).copied().unwrap_or_default(), "{message:?} was confirmed");
                for gap in self.open.extract_if(.., |gap| gap.topic == message.topic) {
                    assert!(gap.from_offset > reached && gap.to_offset < offset, "{gap:?} before {message:?}");
                }
                self.reached.insert(epoch, offset);
                self.read.push((message.topic.clone(), message.cursor));
                let number: u64 = message.data.as_str().parse().unwrap();
                assert!(!self.is_filtered() || passes(number), "{message:?}");
                *self.came.entry(number).or_default() += 1;
                if self.memory() == Memory::Client {
                    self.position = Some(position.expect("a position over all topics"));
                }
            }
            Event::Gap(gap) => {
                assert_eq!(gap.missed, Some((gap.to_offset + 1).saturating_sub(gap.from_offset)), "{gap:?}");
                self.open.push(gap.clone());
                self.gaps.push((step, gap));
            }
            Event::StateComplete(_) => panic!("nobody has asked for the state"),
            Event::Deleted { topic, unread } => {
                if unread {
                    self.gone.push((step, topic));
                }
            }
        }
    }

    /// Whatever was published for it came, or it was told that it would not.
    fn check(&self, published: &[Published], ended: &HashMap<Epoch, usize>) {
        let about = |topic: usize| !matches!(self.source(), Source::Topic(name) if name.as_str() != TOPICS[topic]);
        for one in published.iter().filter(|one| one.step >= self.since && about(one.topic)) {
            let came = self.came.get(&one.number).copied().unwrap_or_default();
            if self.memory() == Memory::Client {
                assert!(came <= 1, "{} came {came} times", one.number);
            }
            if came > 0 || (self.is_filtered() && !passes(one.number)) {
                continue;
            }
            let topic = name(TOPICS[one.topic]);
            let in_gap = self.gaps.iter().any(|(step, gap)| {
                *step >= one.step
                    && gap.topic == topic
                    && (gap.from_offset..=gap.to_offset).contains(&one.cursor.offset)
            });
            // Its incarnation is over: another one began with a gap, or it was said that none has.
            let went = ended.get(&one.cursor.epoch).is_some_and(|ended| {
                self.gone.iter().any(|(step, gone)| step >= ended && *gone == topic)
                    || self
                        .gaps
                        .iter()
                        .any(|(step, gap)| step >= ended && gap.topic == topic && gap.reason == GapReason::NewEpoch)
            });
            assert!(
                in_gap || went,
                "{:?} was not told of {} ({topic} {:?}); gaps {:?}, gone {:?}",
                CLIENTS[self.index],
                one.number,
                one.cursor,
                self.gaps,
                self.gone
            );
        }
    }
}

/// Everything that happens, in one place.
struct World {
    broker: Broker,
    clients: Vec<Client>,
    published: Vec<Published>,
    /// The steps in which lives of topics ended.
    ended: HashMap<Epoch, usize>,
    step: usize,
}

impl World {
    fn new() -> Self {
        let broker = broker(KEPT);
        now(broker.create_topic(&name("p.0"), TopicConfig::default())).unwrap();
        let mut clients: Vec<_> = (0..CLIENTS.len()).map(Client::new).collect();
        for client in &mut clients {
            client.connect(&broker, 0);
        }
        Self { broker, clients, published: Vec::new(), ended: HashMap::new(), step: 0 }
    }

    fn publish(&mut self, topic: usize) {
        let number = self.published.len() as u64;
        let new_message = keyed(number, if passes(number) { "yes" } else { "no" });
        let cursor = now(self.broker.publish(&name(TOPICS[topic]), new_message)).unwrap().cursor;
        self.published.push(Published { topic, cursor, number, step: self.step });
    }

    fn delete(&mut self, topic: usize) {
        let topic = name(TOPICS[topic]);
        let Ok(info) = now(self.broker.topic(&topic)) else { return };
        now(self.broker.delete_topic(&topic)).unwrap();
        self.ended.insert(info.epoch, self.step);
        // A consumer goes with its topic; a live subscription reads to the end, and one that is away is not resumed.
        for client in &mut self.clients {
            if client.source() == Source::Topic(topic.clone()) {
                client.drain(self.step);
                client.check(&self.published[..], &self.ended);
                client.connect(&self.broker, self.step + 1);
            }
        }
    }

    fn take(&mut self, step: &Step) {
        self.step += 1;
        match *step {
            Step::Publish(topic, count) => (0..count).for_each(|_| self.publish(topic)),
            Step::Delete(topic) => self.delete(topic),
            Step::Read(client, max) => _ = self.clients[client].read(max, self.step),
            Step::Cut(client) => self.clients[client].connect(&self.broker, self.step),
            Step::Acknowledge(client, share) => {
                let client = &mut self.clients[client];
                let chosen = client.read.len() * usize::from(share) / 8;
                if client.memory() == Memory::Explicit
                    && let Some((_, cursor)) = chosen.checked_sub(1).and_then(|index| client.read.get(index))
                {
                    // Refused where that incarnation of the topic is over.
                    let _ = now(self.broker.acknowledge(&client.source(), &client.name(), *cursor));
                }
            }
            Step::Seal(client) => {
                let client = &mut self.clients[client];
                if client.memory() == Memory::Auto
                    && let Some(subscription) = &mut client.subscription
                {
                    subscription.mark_in_flight();
                    client.in_flight.clone_from(&client.reached);
                }
            }
            Step::Confirm(client) => {
                let client = &mut self.clients[client];
                if client.memory() == Memory::Auto
                    && let Some(subscription) = &mut client.subscription
                {
                    subscription.acknowledge_in_flight();
                    client.confirmed.extend(client.in_flight.drain());
                }
            }
        }
    }

    /// Everybody is cut once more, comes back, and reads to the end.
    fn end(&mut self) {
        self.step += 1;
        for client in &mut self.clients {
            client.connect(&self.broker, self.step);
            client.drain(self.step);
            client.check(&self.published, &self.ended);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_untold(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.end();
    }
}
