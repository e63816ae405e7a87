//! Patterns resume: a subscriber that is cut again and again, and comes back with the position of the last message that it
//! has seen, gets every message of every topic once, or is told at that position what is gone.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, Gap, GraphqlSse, GraphqlWs, Message, Options, RawWs, Sse, Start},
    harness::{Random, TestServer, offsets_are_dense},
};

every_pushing_door! {
    cut_after_every_message,
    cut_after_every_third_message,
    a_topic_made_meanwhile_is_read_from_its_first_message,
    a_topic_whose_first_messages_are_gone_tells_it,
    a_topic_that_was_made_again_tells_it,
    a_topic_that_was_deleted_unread_is_told,
    a_topic_that_was_deleted_after_it_was_read_is_not_told,
    a_gap_comes_again_until_a_message_behind_it_was_seen,
    filters_resume,
    positions_of_the_wrong_kind_are_refused,
    a_random_incarnation,
    a_position_of_an_earlier_server_is_told_for_every_topic,
}

/// One message as it was published.
#[derive(Clone, Debug)]
struct Published {
    topic: String,
    /// Which incarnation of the topic it belongs to.
    epoch: String,
    offset: u64,
    data: u64,
}

/// Publishes one number and says where it is.
async fn publish(server: &TestServer, topic: &str, data: u64) -> Published {
    let told = server.publish(topic, data.into()).await;
    let cursor = told["cursor"].as_str().unwrap();
    Published {
        topic: topic.to_owned(),
        epoch: cursor.split_once('-').unwrap().0.to_owned(),
        offset: told["offset"].as_u64().unwrap(),
        data,
    }
}

/// What a client knows after it was cut any number of times: what it got, and what it was told to be gone.
#[derive(Default)]
struct Seen {
    position: Option<String>,
    messages: Vec<Message>,
    gaps: Vec<Gap>,
    deleted: HashSet<String>,
    /// Up to where each incarnation of a topic was accounted for.
    reached: HashMap<String, u64>,
    /// The incarnations of each topic, in the order in which the client met them.
    incarnations: HashMap<String, Vec<String>>,
    /// Gaps on this connection that no message of their topic has followed yet.
    open_gaps: Vec<Gap>,
}

impl Seen {
    /// Takes one event; says whether it was a message.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Message(message) => {
                assert!(message.pattern_cursor.is_some(), "{message:?} has no position over all topics");
                let epoch = message.cursor.split_once('-').unwrap().0.to_owned();
                let reached = self.reached.entry(epoch.clone()).or_default();
                assert!(message.offset > *reached, "{message:?} after offset {reached} of its topic");
                for gap in self.open_gaps.extract_if(.., |gap| gap.topic.as_ref() == Some(&message.topic)) {
                    // What is said to be gone was not delivered before, and is not delivered now.
                    assert!(gap.from_offset > *reached && gap.to_offset < message.offset, "{gap:?} before {message:?}");
                }
                *reached = message.offset;
                let incarnations = self.incarnations.entry(message.topic.clone()).or_default();
                if incarnations.last() != Some(&epoch) {
                    assert!(!incarnations.contains(&epoch), "{message:?} is of an incarnation that was over");
                    incarnations.push(epoch);
                }
                self.position = message.pattern_cursor.clone();
                self.messages.push(message);
                true
            }
            Event::Gap(gap) => {
                if offsets_are_dense() {
                    assert_eq!(gap.missed, Some(gap.to_offset + 1 - gap.from_offset), "{gap:?}");
                }
                self.open_gaps.push(gap.clone());
                self.gaps.push(gap);
                false
            }
            Event::Deleted(topic) => {
                self.deleted.insert(topic);
                false
            }
            other => panic!("{other:?} in a stream that goes on"),
        }
    }

    /// Connects where the client was.
    async fn connect<D: Door>(&mut self, server: &TestServer) -> D {
        self.open_gaps.clear();
        D::to(server, "p.*", Start::After(self.position.clone().expect("a position"))).await
    }

    /// Connects where the client was, reads so many messages, and breaks the connection.
    async fn read<D: Door>(&mut self, server: &TestServer, count: usize) {
        let mut door: D = self.connect(server).await;
        let mut read = 0;
        while read < count {
            read += usize::from(self.take(door.event().await));
        }
    }

    /// The same up to the message that has this data.
    async fn read_to<D: Door>(&mut self, server: &TestServer, data: u64) {
        let mut door: D = self.connect(server).await;
        while !(self.take(door.event().await) && self.messages.last().unwrap().data == data) {}
    }

    /// Every one of these messages came once, or was told to be gone: as a gap of its own incarnation, or as the end of that incarnation.
    fn assert_nothing_is_missing(&self, published: &[Published]) {
        let mut got = HashSet::new();
        for message in &self.messages {
            assert!(got.insert((message.cursor.as_str(), message.data.as_u64().unwrap())), "{message:?} came twice");
        }
        let newest: HashMap<_, _> = published.iter().map(|one| (&one.topic, &one.epoch)).collect();
        let delivered: HashSet<_> = self.messages.iter().map(|message| message.data.as_u64().unwrap()).collect();
        for one in published.iter().filter(|one| !delivered.contains(&one.data)) {
            let in_gap = |gap: &&Gap| gap.topic.as_ref() == Some(&one.topic);
            let went_on = self.reached.get(&one.epoch).is_some_and(|reached| *reached > one.offset);
            let told = if went_on || newest[&one.topic] == &one.epoch {
                // Its incarnation may be over, too, without another one since.
                let holds = |gap: &Gap| gap.from_offset <= one.offset && one.offset <= gap.to_offset;
                self.gaps.iter().filter(in_gap).any(holds) || (!went_on && self.deleted.contains(&one.topic))
            } else {
                // An earlier incarnation that ended unread.
                let new_incarnation = |gap: &Gap| gap.reason == "NEW_EPOCH";
                self.deleted.contains(&one.topic) || self.gaps.iter().filter(in_gap).any(new_incarnation)
            };
            assert!(told, "{one:?} was neither delivered nor told; gaps {:?}, deleted {:?}", self.gaps, self.deleted);
        }
    }
}

/// The end of a script, in a topic of its own that is never deleted.
const END: &str = "p.end";

async fn cut_after<D: Door>(step: usize) {
    let server = TestServer::start();
    let mut seen = Seen::default();
    let mut published = vec![publish(&server, "p.0", 0).await];
    // The first connection begins live and gets the first message only when that is there.
    let mut door = D::to(&server, "p.*", Start::Live).await;
    published.push(publish(&server, "p.1", 1).await);
    while !seen.take(door.event().await) {}
    drop(door);
    for number in 2..=40 {
        published.push(publish(&server, &format!("p.{}", number % 5), number).await);
    }
    let mut left = 39;
    while left > 0 {
        let count = step.min(left);
        seen.read::<D>(&server, count).await;
        left -= count;
    }
    let order: Vec<_> = seen.messages.iter().map(|message| message.data.as_u64().unwrap()).collect();
    if offsets_are_dense() {
        assert_eq!(order, (1..=40).collect::<Vec<_>>(), "the order in which they were published");
    }
    seen.assert_nothing_is_missing(&published[1..]);
    assert_eq!(seen.gaps, []);
    let positions: Vec<_> = seen.messages.iter().map(Message::position).collect();
    assert!(!offsets_are_dense() || positions.is_sorted(), "{positions:?}");
}

async fn cut_after_every_message<D: Door>() {
    cut_after::<D>(1).await;
}

async fn cut_after_every_third_message<D: Door>() {
    cut_after::<D>(3).await;
}

/// A server on which somebody has read one message of the pattern `p.*`, and where it stands.
async fn begun<D: Door>(edit: impl FnOnce(&mut pub_sub::config::Config)) -> (TestServer, Seen) {
    let server = TestServer::with(edit);
    let mut seen = Seen::default();
    let mut door = D::to(&server, "p.*", Start::Live).await;
    publish(&server, "p.first", 1).await;
    while !seen.take(door.event().await) {}
    (server, seen)
}

async fn a_topic_made_meanwhile_is_read_from_its_first_message<D: Door>() {
    let (server, mut seen) = begun::<D>(|_| {}).await;
    for number in 2..=4 {
        publish(&server, "p.made-meanwhile", number).await;
    }
    for _ in 0..2 {
        seen.read::<D>(&server, 1).await;
    }
    publish(&server, END, 5).await;
    seen.read_to::<D>(&server, 5).await;
    let numbers: Vec<_> = seen.messages.iter().map(|message| message.data.as_u64().unwrap()).collect();
    assert_eq!((numbers, seen.gaps), (vec![1, 2, 3, 4, 5], vec![]));
}

async fn a_topic_whose_first_messages_are_gone_tells_it<D: Door>() {
    let (server, mut seen) = begun::<D>(|config| config.broker.max_messages_per_topic = 5).await;
    let mut published = Vec::new();
    for number in 2..=13 {
        published.push(publish(&server, "p.new", number).await);
    }
    // A topic that was known, too.
    for number in 21..=29 {
        published.push(publish(&server, "p.first", number).await);
    }
    published.push(publish(&server, END, 99).await);
    seen.read_to::<D>(&server, 99).await;
    seen.assert_nothing_is_missing(&published);
    let missed = |topic: &str| {
        let of_topic = seen.gaps.iter().filter(|gap| gap.topic.as_deref() == Some(topic));
        of_topic.map(|gap| (gap.reason.as_str(), gap.missed)).collect::<Vec<_>>()
    };
    assert_eq!(missed("p.new"), [("EXPIRED", Some(7))]);
    assert_eq!(missed("p.first"), [("EXPIRED", Some(4))]);
}

async fn a_topic_that_was_made_again_tells_it<D: Door>() {
    let (server, mut seen) = begun::<D>(|config| config.broker.max_messages_per_topic = 5).await;
    let mut published = Vec::new();
    for number in 2..=4 {
        published.push(publish(&server, "p.first", number).await);
    }
    server.delete("/topics/p.first").await.expect(200);
    for number in 5..=12 {
        published.push(publish(&server, "p.first", number).await);
    }
    published.push(publish(&server, END, 99).await);
    seen.read_to::<D>(&server, 99).await;
    seen.assert_nothing_is_missing(&published);
    let gaps: Vec<_> = seen.gaps.iter().map(|gap| (gap.reason.as_str(), gap.missed)).collect();
    assert_eq!(gaps, [("NEW_EPOCH", Some(3))], "of the new incarnation three are gone");
    // Once a message of the new incarnation was seen, the position is in it.
    publish(&server, END, 100).await;
    let told = seen.gaps.len();
    seen.read_to::<D>(&server, 100).await;
    assert_eq!(seen.gaps.len(), told);
}

async fn a_topic_that_was_deleted_unread_is_told<D: Door>() {
    let (server, mut seen) = begun::<D>(|_| {}).await;
    let unread = [publish(&server, "p.gone", 2).await, publish(&server, "p.first", 3).await];
    server.delete("/topics/p.gone").await.expect(200);
    publish(&server, END, 99).await;
    seen.read_to::<D>(&server, 99).await;
    assert_eq!(seen.deleted, HashSet::from(["p.gone".to_owned()]));
    seen.assert_nothing_is_missing(&unread);
    // A position behind its messages knows nothing of it any more.
    publish(&server, END, 100).await;
    seen.deleted.clear();
    seen.read_to::<D>(&server, 100).await;
    assert_eq!(seen.deleted, HashSet::new());
}

async fn a_topic_that_was_deleted_after_it_was_read_is_not_told<D: Door>() {
    let (server, mut seen) = begun::<D>(|_| {}).await;
    server.delete("/topics/p.first").await.expect(200);
    publish(&server, END, 99).await;
    seen.read_to::<D>(&server, 99).await;
    // Made again, it has nothing to tell either: all of its earlier incarnation was read.
    publish(&server, "p.first", 100).await;
    seen.read_to::<D>(&server, 100).await;
    assert_eq!((seen.deleted, seen.gaps), (HashSet::new(), vec![]));
}

async fn a_gap_comes_again_until_a_message_behind_it_was_seen<D: Door>() {
    let (server, seen) = begun::<D>(|config| config.broker.max_messages_per_topic = 5).await;
    server.publish_numbers("p.first", 2..=20).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let mut door = D::to(&server, "p.*", Start::After(seen.position.clone().unwrap())).await;
        told.push(door.event().await.gap());
    }
    assert_eq!((told[0].missed, told[0].reason.as_str()), (Some(14), "EXPIRED"));
    assert!(told.iter().all(|gap| *gap == told[0]), "{told:?}");
}

/// What a filter passes over is neither delivered nor told, and the position does not lose what matches.
async fn filters_resume<D: Door>() {
    let (server, mut seen) = begun::<D>(|config| config.broker.max_messages_per_topic = 8).await;
    let options = Options::filter(json!({"field": "even", "eq": true}));
    let client = server.client.clone();
    let publish = |topic: String, number: u64| {
        let client = client.clone();
        async move {
            client.publish(&topic, json!({"n": number, "even": number.is_multiple_of(2)})).await;
        }
    };
    for number in 1..=12 {
        publish(format!("p.{}", number % 3), number).await;
    }
    let numbers = |messages: &[Message]| -> Vec<u64> {
        messages.iter().filter_map(|message| message.data["n"].as_u64()).collect()
    };
    let mut start = seen.position.clone().unwrap();
    let mut got = Vec::new();
    for _ in 0..6 {
        let mut door = D::with(&server, "p.*", Start::After(start), &options).await;
        let message = door.event().await.message();
        start = message.position().to_owned();
        got.push(message);
    }
    let mut sorted = numbers(&got);
    sorted.sort_unstable();
    assert_eq!(sorted, [2, 4, 6, 8, 10, 12]);
    // Of a gap it is told whatever matches.
    for number in 0..30 {
        publish("p.0".to_owned(), 2 * number + 1).await;
    }
    let mut door = D::with(&server, "p.*", Start::After(start.clone()), &options).await;
    assert_eq!(door.event().await.gap().missed, Some(22));
    drop(door);
    publish("p.1".to_owned(), 100).await;
    let mut door = D::with(&server, "p.*", Start::After(start), &options).await;
    assert_eq!(door.event().await.gap().missed, Some(22));
    assert_eq!(numbers(&[door.event().await.message()]), [100]);
    seen.messages.clear();
}

async fn positions_of_the_wrong_kind_are_refused<D: Door>() {
    let (server, seen) = begun::<D>(|_| {}).await;
    let message = &seen.messages[0];
    let refused = |source: &'static str, after: String| {
        let server = &server;
        async move { D::open(server).await.subscribe(source, Start::After(after), &Options::default()).await }
    };
    let position = message.position().to_owned();
    assert_eq!(refused("p.*", message.cursor.clone()).await, Err("BAD_REQUEST".to_owned()));
    assert_eq!(refused("p.first", position.clone()).await, Err("BAD_REQUEST".to_owned()));
    // A position that no message has yet would hide what comes.
    let (log, _) = position.split_once('-').unwrap();
    assert_eq!(refused("p.*", format!("{log}-7ffffffff")).await, Err("BAD_REQUEST".to_owned()));
    for bad in ["p", "p-01", "p0123456789abcdef", "p0123456789abcdef-", "p0123456789abcdef-zz"] {
        assert_eq!(refused("p.*", bad.to_owned()).await, Err("BAD_REQUEST".to_owned()), "{bad}");
    }
}

/// Topics come, go and come again, histories overflow, and the client is cut all the time.
async fn a_random_incarnation<D: Door>() {
    for round in 0..6_u64 {
        let mut random = Random::new(91 + round);
        let (server, mut seen) = begun::<D>(|config| config.broker.max_messages_per_topic = 6).await;
        let mut published: Vec<Published> = Vec::new();
        let mut number = 1;
        for _ in 0..10 {
            for _ in 0..random.below(25) {
                let topic = format!("p.{}", random.below(4));
                if random.below(9) == 0 && server.delete(&format!("/topics/{topic}")).await.status == 200 {
                    continue;
                }
                number += 1;
                published.push(publish(&server, &topic, number).await);
            }
            number += 1;
            published.push(publish(&server, END, number).await);
            if random.below(3) == 0 {
                seen.read_to::<D>(&server, number).await;
                seen.assert_nothing_is_missing(&published);
                // What was told once does not count for what is lost later.
                published.clear();
                seen.gaps.clear();
                seen.deleted.clear();
            } else {
                let count = 1 + random.below(2) as usize;
                // Fewer may be there: what is behind the end would be waited for.
                let mut door: D = seen.connect(&server).await;
                for _ in 0..count {
                    while !seen.take(door.event().await) {}
                    if seen.messages.last().unwrap().data == number {
                        break;
                    }
                }
            }
        }
        published.push(publish(&server, END, number + 1).await);
        seen.read_to::<D>(&server, number + 1).await;
        seen.assert_nothing_is_missing(&published);
    }
}

/// A position that one door gave out is good at every other.
#[tokio::test]
async fn positions_are_the_same_at_all_doors() {
    let server = TestServer::start();
    server.publish_numbers("p.1", 1..=5).await;
    async fn first<D: Door>(server: &TestServer, start: Start) -> Message {
        D::to(server, "p.*", start).await.event().await.message()
    }
    let mut at = first::<Sse>(&server, Start::Last(5)).await;
    for wanted in 2..=5_u64 {
        let after = Start::After(at.position().to_owned());
        at = match wanted {
            2 => first::<GraphqlWs>(&server, after).await,
            3 => first::<RawWs>(&server, after).await,
            4 => first::<GraphqlSse>(&server, after).await,
            _ => first::<Sse>(&server, after).await,
        };
        assert_eq!(at.data, wanted);
    }
    let position = encode_free(at.position());
    // A page is of one topic: it takes that topic's own cursors.
    server.get(&format!("/topics/p.1/messages?after={position}")).await.expect_error(400, "BAD_REQUEST");
    let page = server.get(&format!("/topics/p.1/messages?after={}", encode_free(&at.cursor))).await.expect(200);
    assert_eq!(page["messages"], Value::Array(vec![]));
}

/// A position as it stands, which an address takes without escaping.
fn encode_free(position: &str) -> &str {
    assert!(position.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)), "{position}");
    position
}

/// A server without a durable engine that was started again: the position is of other logs, and every topic says so.
async fn a_position_of_an_earlier_server_is_told_for_every_topic<D: Door>() {
    let before = TestServer::start();
    let mut door = D::to(&before, "p.*", Start::Live).await;
    publish(&before, "p.1", 1).await;
    let position = door.event().await.message().position().to_owned();
    drop(door);
    drop(before);
    let server = TestServer::start();
    let published = [publish(&server, "p.1", 2).await, publish(&server, "p.2", 3).await];
    let mut seen = Seen { position: Some(position), ..Seen::default() };
    seen.read::<D>(&server, 2).await;
    seen.assert_nothing_is_missing(&published);
    let told: HashSet<_> = seen.gaps.iter().map(|gap| (gap.topic.as_deref().unwrap(), gap.reason.as_str())).collect();
    assert_eq!(told, HashSet::from([("p.1", "NEW_EPOCH"), ("p.2", "NEW_EPOCH")]));
}
