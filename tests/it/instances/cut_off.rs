//! An instance whose connection to NATS breaks while the other one's does not: what it has missed it delivers or tells.

use std::time::Duration;

use serde_json::{Value, json};

use super::{becomes_ready, history, instance, publish_in_the_end};
use crate::{
    doors::{Door, Event, Options, RawWs, Start},
    harness::{Random, TestServer, eventually, within},
    nats::Nats,
    proxy::Proxy,
};

/// An instance behind a proxy.
pub(super) async fn behind_a_proxy(nats: &Nats) -> (TestServer, Proxy) {
    let proxy = Proxy::before(nats.nodes[0].port).await;
    let url = format!("nats://127.0.0.1:{}", proxy.port);
    (super::with(nats, |config| config.engine.nats.url = url), proxy)
}

/// Publishes what the filter of these tests lets through, or what it does not; the offset.
async fn publish(server: &TestServer, topic: &str, wanted: bool) -> u64 {
    let body = json!({"topic": topic, "data": {"wanted": wanted}});
    server.post("/publish", &body).await.expect(200)["offset"].as_u64().unwrap()
}

fn wanted() -> Options {
    Options::filter(json!({"field": "wanted", "eq": true}))
}

/// The events of one topic until it is deleted.
async fn until_deleted(door: &mut RawWs, topic: &str) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        match door.event().await {
            Event::Deleted(deleted) if deleted == topic => return events,
            event @ (Event::Message(_) | Event::Gap(_)) => events.push(event),
            other => panic!("{other:?} after {events:?}"),
        }
    }
}

/// Each of the offsets was delivered, or told as missed, and they come in their order.
#[track_caller]
fn assert_nothing_is_silent(events: &[Event], offsets: &[u64]) {
    let mut reached = 0;
    for event in events {
        let (from, to) = match event {
            Event::Message(message) => (message.offset, message.offset),
            Event::Gap(gap) => (gap.from_offset, gap.to_offset),
            other => panic!("{other:?}"),
        };
        assert!(from > reached, "{event:?} behind {reached}");
        reached = to;
    }
    for offset in offsets {
        let covered = events.iter().any(|event| match event {
            Event::Message(message) => message.offset == *offset,
            Event::Gap(gap) => (gap.from_offset..=gap.to_offset).contains(offset),
            _ => false,
        });
        assert!(covered, "{offset} of {offsets:?} was neither delivered nor told: {events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deleted_topic_had_is_told_to_who_was_away() {
    let nats = Nats::single().await;
    let a = instance(&nats);
    let (b, proxy) = behind_a_proxy(&nats).await;
    a.create("gone.1").await;
    let mut door = RawWs::with(&b, "gone.*", Start::Live, &wanted()).await;
    let seen = publish(&a, "gone.1", true).await;
    assert_eq!(door.event().await.message().offset, seen);
    proxy.cut();
    let mut offsets = Vec::new();
    for number in 0..6 {
        let offset = publish(&a, "gone.1", number % 2 == 0).await;
        if number % 2 == 0 {
            offsets.push(offset);
        }
    }
    a.delete("/topics/gone.1").await.expect(200);
    a.create("gone.1").await;
    let next = publish(&a, "gone.1", true).await;
    proxy.heal();
    let events = until_deleted(&mut door, "gone.1").await;
    assert_nothing_is_silent(&events, &offsets);
    // And its next incarnation is another one, whole.
    assert_eq!(door.event().await.message().offset, next);
    assert_eq!(history_length(&b, "gone.1").await, 1);
}

async fn history_length(server: &TestServer, topic: &str) -> usize {
    let page = server.get(&format!("/topics/{topic}/messages")).await.expect(200);
    page["messages"].as_array().unwrap().len()
}

/// A topic that came and went while the instance was away, and the one that comes behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_came_and_went_meanwhile_is_told() {
    let nats = Nats::single().await;
    let a = instance(&nats);
    let (b, proxy) = behind_a_proxy(&nats).await;
    becomes_ready(&b).await;
    for made_again in [false, true] {
        let topic = format!("brief.{made_again}");
        let mut door = RawWs::with(&b, "brief.*", Start::Live, &wanted()).await;
        proxy.cut();
        a.create(&topic).await;
        let offsets = [publish(&a, &topic, true).await, publish(&a, &topic, true).await];
        a.delete(&format!("/topics/{topic}")).await.expect(200);
        if made_again {
            // One without a message in between, too.
            a.create(&topic).await;
            a.delete(&format!("/topics/{topic}")).await.expect(200);
            a.create(&topic).await;
        }
        proxy.heal();
        assert_nothing_is_silent(&until_deleted(&mut door, &topic).await, &offsets);
        if made_again {
            let next = publish(&a, &topic, true).await;
            assert_eq!(door.event().await.message().offset, next);
        }
        becomes_ready(&b).await;
    }
}

/// The same with breaks at any moment, deletions from either side, and topics that are made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_while_the_connection_breaks() {
    let nats = Nats::single().await;
    let a = instance(&nats);
    let (b, proxy) = behind_a_proxy(&nats).await;
    let mut random = Random::new(14);
    for round in 0..20 {
        let topic = format!("round.{round}");
        a.create(&topic).await;
        eventually("topic at the other instance", || async {
            (b.get(&format!("/topics/{topic}")).await.status == 200).then_some(())
        })
        .await;
        let mut door = RawWs::with(&b, "round.*", Start::Live, &wanted()).await;
        let mut offsets = Vec::new();
        let (count, cut_at, heal_at) = (1 + random.below(8), random.below(10), random.below(14));
        for number in 0..count {
            if number == cut_at {
                proxy.cut();
            }
            if number == heal_at {
                proxy.heal();
            }
            offsets.push(publish(&a, &topic, true).await);
        }
        match random.below(3) {
            0 => proxy.shake(),
            1 => proxy.cut(),
            _ => {}
        }
        a.delete(&format!("/topics/{topic}")).await.expect(200);
        proxy.heal();
        let events = until_deleted(&mut door, &topic).await;
        assert_nothing_is_silent(&events, &offsets);
        eventually("readiness", || async { (b.get("/health/ready").await.status == 200).then_some(()) }).await;
    }
}

/// The deletion by the other instance, and messages that are on their way meanwhile: whatever was acknowledged in the incarnation
/// that ends is delivered on both, or on both it was never there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_beside_a_deletion_is_everywhere_before_it() {
    let nats = Nats::single().await;
    let (a, b) = (instance(&nats), instance(&nats));
    for round in 0..25 {
        a.create("news").await;
        let epoch = eventually("topic at the other instance", || async {
            let known = b.get("/topics/news/messages").await;
            (known.status == 200).then(|| known.json()["next"].as_str().map(ToOwned::to_owned))
        })
        .await;
        let epoch = epoch.unwrap().rsplit_once('-').unwrap().0.to_owned();
        let mut doors = [RawWs::to(&a, "news", Start::Live).await, RawWs::to(&b, "news", Start::Live).await];
        let publishing = async {
            let mut told = Vec::new();
            for number in 0..12_u64 {
                let server = if number % 2 == 0 { &a } else { &b };
                let response = server.post("/publish", &json!({"topic": "news", "data": number})).await.expect(200);
                told.push((response["cursor"].as_str().unwrap().to_owned(), response["offset"].as_u64().unwrap()));
            }
            told
        };
        let deleting = async {
            tokio::time::sleep(Duration::from_micros(700 * round)).await;
            b.delete("/topics/news").await.expect(200);
        };
        let (told, ()) = tokio::join!(publishing, deleting);
        let offsets: Vec<_> =
            told.iter().filter(|(cursor, _)| cursor.starts_with(&epoch)).map(|(_, offset)| *offset).collect();
        for door in &mut doors {
            let events = until_deleted(door, "news").await;
            assert_nothing_is_silent(&events, &offsets);
            assert_eq!(events.len(), offsets.len(), "{events:?}, but {offsets:?}");
        }
        // What came behind has made it again.
        for server in [&a, &b] {
            let _ = server.delete("/topics/news").await;
        }
        for server in [&a, &b] {
            eventually("no topic", || async { (server.get("/topics/news").await.status == 404).then_some(()) }).await;
        }
    }
}

/// What lies in the stream under a topic's name, but belongs to none of its incarnations, stands in no condition's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leftovers_of_an_earlier_incarnation_change_no_condition() {
    let nats = Nats::single().await;
    let a = instance(&nats);
    becomes_ready(&a).await;
    let jetstream = async_nats::jetstream::new(nats.connect().await);
    let leave = async |id: &str| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("0123456789abcdef.{id}"));
        let sent = jetstream.publish_with_headers("pubsub.t.1000.news", headers, "0".into()).await.unwrap();
        sent.await.unwrap().sequence
    };
    let conditional = async |expected: u64| {
        a.post("/publish", &json!({"topic": "news", "data": 1, "expected_offset": expected})).await
    };
    leave("before").await;
    a.create("news").await;
    conditional(999_999).await.expect_error(409, "CONFLICT");
    let first = conditional(0).await.expect(200)["offset"].as_u64().unwrap();
    conditional(0).await.expect_error(409, "CONFLICT");
    leave("behind").await;
    conditional(0).await.expect_error(409, "CONFLICT");
    conditional(first).await.expect(200);
    assert_eq!(history(&a, "news").await, [1, 1]);
}

/// An instance that forgets an implicit topic because its last subscriber leaves, and another one's first message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_message_keeps_an_implicit_topic() {
    let nats = Nats::single().await;
    let (a, b) = (instance(&nats), instance(&nats));
    for round in 0..40_u64 {
        let topic = format!("implicit.{round}");
        let door = RawWs::to(&a, &topic, Start::Live).await;
        eventually("topic at the other instance", || async {
            (b.get(&format!("/topics/{topic}")).await.status == 200).then_some(())
        })
        .await;
        let leaving = async {
            tokio::time::sleep(Duration::from_micros(100 * round)).await;
            door.close().await;
        };
        tokio::join!(leaving, publish_in_the_end(&b, &topic, round));
        for server in [&b, &a] {
            eventually("the message", || async {
                let found = server.get(&format!("/topics/{topic}/messages")).await;
                (found.status == 200 && history(server, &topic).await == [round]).then_some(())
            })
            .await;
        }
    }
}

/// A topic is made while the other instance is cut off. Once that is back, it may know the consumer of a pattern before the topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_waits_for_a_topic_that_is_new_here() {
    let nats = Nats::single().await;
    let a = instance(&nats);
    let (b, proxy) = behind_a_proxy(&nats).await;
    becomes_ready(&b).await;
    let mut door = RawWs::with(&a, "new.*", Start::Live, &Options::consumer("worker", "EXPLICIT")).await;
    for number in 0..20 {
        proxy.cut();
        let topic = format!("new.{number}");
        a.create(&topic).await;
        publish(&a, &topic, true).await;
        let message = door.event().await.message();
        proxy.heal();
        let acknowledged = super::in_the_end("acknowledgement", || async {
            let response = b.post("/topics/new.*/consumers/worker/ack", &json!({"cursor": message.cursor})).await;
            (response.status != 503).then_some(response)
        });
        acknowledged.await.expect(200);
    }
}

/// A consumer's connection and its instance's connection break; acknowledgements go through the other instance meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_goes_on_elsewhere_while_its_instance_is_cut_off() {
    let nats = Nats::single().await;
    let a = instance(&nats);
    let (b, proxy) = behind_a_proxy(&nats).await;
    a.create("news").await;
    let options = Options::consumer("worker", "EXPLICIT");
    let mut random = Random::new(5);
    let mut acked = 0;
    let mut published = 0;
    for _ in 0..12 {
        let mut here = RawWs::with(&b, "news", Start::Live, &options).await;
        for _ in 0..1 + random.below(4) {
            published = super::publish(&a, "news", random.below(1 << 30)).await.expect(200)["offset"].as_u64().unwrap();
        }
        let first = here.event().await.message();
        assert!(first.offset > acked, "{first:?} was acknowledged up to {acked}");
        proxy.cut();
        // The client goes to the other instance, which takes the consumer and a position.
        let mut there = RawWs::with(&a, "news", Start::Live, &options).await;
        let again = there.event().await.message();
        assert_eq!(again, first, "what was not acknowledged comes again");
        ack(&a, &first.cursor).await;
        acked = first.offset;
        // It comes and goes more often than the other instance sees.
        if random.below(2) == 0 {
            there.close().await;
        }
        proxy.heal();
        // The older subscription is told, whatever its instance has seen of that.
        let end = within("end of the older one", async {
            loop {
                match here.event().await {
                    Event::Message(message) => assert!(message.offset >= first.offset),
                    end => return end,
                }
            }
        })
        .await;
        assert_eq!(end, Event::Error("CONSUMER_TAKEN_OVER".to_owned()));
        eventually("readiness", || async { (b.get("/health/ready").await.status == 200).then_some(()) }).await;
        // And the newest word counts, from wherever.
        let mut back = RawWs::with(&b, "news", Start::Live, &options).await;
        if published > acked {
            let next = back.event().await.message();
            assert!(next.offset > acked, "{next:?} was acknowledged up to {acked}");
            ack(&b, &next.cursor).await;
            acked = next.offset;
        }
        back.close().await;
        drain(&a, &options, &mut acked, published).await;
    }
}

async fn ack(server: &TestServer, cursor: &str) -> Value {
    server.post("/topics/news/consumers/worker/ack", &json!({"cursor": cursor})).await.expect(200)
}

/// Acknowledges what is left.
async fn drain(server: &TestServer, options: &Options, acked: &mut u64, published: u64) {
    let mut door = RawWs::with(server, "news", Start::Live, options).await;
    while *acked < published {
        let message = door.event().await.message();
        assert!(message.offset > *acked, "{message:?} was acknowledged up to {acked}");
        ack(server, &message.cursor).await;
        *acked = message.offset;
    }
    door.close().await;
}

/// A client resumes a pattern at an instance that started after topics had been deleted with messages that it had not
/// read: one of them for good, and one that was created again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_instance_knows_what_was_deleted_before() {
    let nats = Nats::single().await;
    let a = instance(&nats);
    let mut door = RawWs::to(&a, "t.*", Start::Live).await;
    a.publish("t.again", 1.into()).await;
    a.publish("t.gone", 1.into()).await;
    let seen = door.messages(2).await;
    let cursor = seen[1].pattern_cursor.clone().expect("a pattern's messages have it");
    door.close().await;
    for topic in ["t.again", "t.gone"] {
        a.publish(topic, 2.into()).await;
        a.delete(&format!("/topics/{topic}")).await.expect(200);
    }
    let again = a.publish("t.again", 3.into()).await;
    let b = instance(&nats);
    becomes_ready(&b).await;
    let mut door = RawWs::to(&b, "t.*", Start::After(cursor)).await;
    let mut told = Vec::new();
    loop {
        match door.event().await {
            Event::Message(message) => {
                assert_eq!(
                    (message.topic.as_str(), &message.cursor),
                    ("t.again", &again["cursor"].as_str().unwrap().to_owned())
                );
                break;
            }
            Event::Gap(gap) => told.push((gap.topic.clone().unwrap(), gap.reason.clone())),
            Event::Deleted(topic) => told.push((topic, "deleted".to_owned())),
            other => panic!("{other:?}"),
        }
    }
    told.sort();
    let wanted =
        [("t.again", "NEW_EPOCH"), ("t.gone", "deleted")].map(|(topic, how)| (topic.to_owned(), how.to_owned()));
    assert_eq!(told, wanted);
}

/// An instance that was cut off does not take older messages for new ones when a subscriber asks for those since a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_asked_for_does_not_come_late() {
    let nats = Nats::single().await;
    let a = instance(&nats);
    let (b, proxy) = behind_a_proxy(&nats).await;
    for topic in ["since.topic", "since.pattern"] {
        a.create(topic).await;
        becomes_ready(&b).await;
        proxy.cut();
        publish(&a, topic, true).await;
        let page = a.get(&format!("/topics/{topic}/messages")).await.expect(200);
        let published_at = page["messages"][0]["published_at"].as_str().unwrap().to_owned();
        let time: jiff::Timestamp = published_at.parse().unwrap();
        let since = Start::Since((time + Duration::from_millis(1)).to_string());
        let source = if topic == "since.topic" { topic } else { "since.*" };
        let mut door = RawWs::open(&b).await;
        assert!(door.subscribe(source, since.clone(), &Options::default()).await.is_err(), "{source}: it cannot know");
        proxy.heal();
        becomes_ready(&b).await;
        door.subscribe(source, since.clone(), &Options::default()).await.expect("the instance can know");
        let newer = publish(&a, topic, true).await;
        assert_eq!(door.event().await.message().offset, newer, "{source}");
        door.close().await;
    }
}
