//! Moving a consumer: forward and back, whether its subscription is live or not, without silent loss.

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, GraphqlWs, Options, RawWs, Start, cursor_at, numbers},
    harness::{Client, TestServer, encode, within},
};

every_pushing_door! {
    a_live_consumer_goes_back,
    a_live_consumer_goes_forward_and_is_told,
    an_absent_consumer_is_moved,
    a_consumer_of_a_pattern_is_moved,
}

const EXPLICIT: fn() -> Options = || Options::consumer("tab-42", "EXPLICIT");
const AUTO: fn() -> Options = || Options::consumer("tab-42", "AUTO");

/// Moves the consumer through either interface, and returns its new position.
async fn seek(client: &Client, way: usize, source: &str, to: Value) -> String {
    if way.is_multiple_of(2) {
        let path = format!("/topics/{}/consumers/tab-42/seek", encode(source));
        let told = client.post(&path, &to).await.expect(200);
        assert_eq!((&told["status"], &told["topic"]), (&"moved".into(), &source.into()), "{told}");
        return told["cursor"].as_str().unwrap().to_owned();
    }
    let query = "mutation($t: String!, $to: SeekInput!) { seekConsumer(topic: $t, consumer: \"tab-42\", to: $to) }";
    let told = client.graphql(query, json!({"t": source, "to": to})).await;
    told["seekConsumer"].as_str().unwrap().to_owned()
}

async fn a_live_consumer_goes_back<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    for options in [EXPLICIT(), AUTO()] {
        let mut door = D::with(&server, "news", Start::Live, &options).await;
        server.publish_numbers("news", 1..=10).await;
        let seen = door.messages(10).await;
        assert_eq!(seek(&server, 0, "news", json!({"last": 3})).await, seen[6].cursor);
        assert_eq!(door.messages(3).await, seen[7..]);
        assert_eq!(seek(&server, 1, "news", json!({"after": seen[4].cursor})).await, seen[4].cursor);
        assert_eq!(door.messages(5).await, seen[5..]);
        // What was delivered before does not move it on: whoever comes next begins there, too.
        seek(&server, 0, "news", json!({"after": seen[1].cursor})).await;
        assert_eq!(door.messages(8).await, seen[2..]);
        // To where it is already, nothing happens.
        seek(&server, 1, "news", json!({"last": 0})).await;
        server.publish("news", 11.into()).await;
        assert_eq!(numbers(&door.messages(1).await), [11]);
        door.close().await;
        server.delete("/topics/news/consumers/tab-42").await.expect(200);
    }
}

async fn a_live_consumer_goes_forward_and_is_told<D: Door>() {
    const MESSAGES: u64 = 12_000;
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 20_000);
    server.create("news").await;
    let mut door = D::with(&server, "news", Start::Live, &EXPLICIT()).await;
    // Its client does not read, so what does not fit the socket waits.
    server.publish_all("news", (0..MESSAGES).map(|_| "x".repeat(1_000).into())).await;
    let lag = server.get("/topics/news/subscriptions").await.expect(200)["subscriptions"][0]["lag"].as_u64().unwrap();
    assert!(lag > 0);
    seek(&server, 0, "news", json!({"last": 0})).await;
    let last = server.publish("news", "end".into()).await["offset"].as_u64().unwrap();
    let events = door.events_to(last).await;
    let gaps: Vec<_> =
        events.iter().filter_map(|event| if let Event::Gap(gap) = event { Some(gap) } else { None }).collect();
    let [gap] = gaps[..] else { panic!("{} gaps", gaps.len()) };
    assert_eq!(gap.reason, "SEEK");
    let delivered = events.len() as u64 - 1;
    assert_eq!(delivered + gap.missed.unwrap(), MESSAGES + 1, "{gap:?}");
    assert_eq!(events.last().unwrap().clone().message().data, "end");
    if crate::harness::offsets_are_dense() {
        assert_eq!(crate::doors::assert_tiles(&events, 1, last), gap.missed.unwrap());
    }
    let told = server.get("/topics/news/subscriptions").await.expect(200);
    assert_eq!(told["subscriptions"][0]["missed"], gap.missed.unwrap(), "{told}");
}

async fn an_absent_consumer_is_moved<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    D::with(&server, "news", Start::Live, &EXPLICIT()).await.close().await;
    server.wait_for_subscribers("news", 0).await;
    server.publish_numbers("news", 1..=10).await;
    // The position of its subscription comes first, wherever the operation says to begin.
    for (way, to, first) in [(0, json!({"last": 2}), 9), (1, json!({"since": "1970-01-01T00:00:00Z"}), 1)] {
        seek(&server, way, "news", to).await;
        let mut door = D::with(&server, "news", Start::Live, &EXPLICIT()).await;
        assert_eq!(numbers(&door.messages(11 - first).await), (first as u64..=10).collect::<Vec<_>>());
        door.close().await;
        server.wait_for_subscribers("news", 0).await;
    }
    let listed = server.get("/topics/news/consumers").await.expect(200);
    assert_eq!(listed["consumers"][0]["positions"][0]["lag"], 10);
}

async fn a_consumer_of_a_pattern_is_moved<D: Door>() {
    let server = TestServer::start();
    for topic in ["a.1", "a.2"] {
        server.create(topic).await;
    }
    let mut door = D::with(&server, "a.*", Start::Live, &EXPLICIT()).await;
    for (topic, number) in [("a.1", 1), ("a.2", 2), ("a.1", 3), ("a.2", 4)] {
        server.publish(topic, number.into()).await;
    }
    let seen = door.messages(4).await;
    assert_eq!(numbers(&seen), [1, 2, 3, 4]);
    // The last of each topic.
    seek(&server, 0, "a.*", json!({"last": 1})).await;
    assert_eq!(door.messages(2).await, seen[2..]);
    assert_eq!(seek(&server, 1, "a.*", json!({"after": seen[0].position()})).await, seen[0].position());
    assert_eq!(door.messages(3).await, seen[1..]);
    // Live again, topics that are made from here on included.
    server.publish("a.3", 5.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [5]);
    door.close().await;
    seek(&server, 0, "a.*", json!({"after": seen[1].position()})).await;
    let mut door = D::with(&server, "a.*", Start::Live, &EXPLICIT()).await;
    assert_eq!(numbers(&door.messages(3).await), [3, 4, 5]);
}

/// A consumer whose position moves by itself is not carried on by what was on its way before.
#[tokio::test]
async fn what_was_on_its_way_does_not_undo_it() {
    let server = TestServer::start();
    server.create("news").await;
    let mut door = RawWs::with(&server, "news", Start::Live, &AUTO()).await;
    server.publish_numbers("news", 1..=10).await;
    let seen = door.messages(10).await;
    seek(&server, 0, "news", json!({"last": 10})).await;
    door.messages(10).await;
    // The pongs of both deliveries arrive by now; the position is that of the second.
    within("the end", async {
        loop {
            door.assert_open().await;
            let listed = server.get("/topics/news/consumers").await.expect(200);
            if listed["consumers"][0]["positions"][0]["cursor"] == seen[9].cursor.as_str() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn bad_targets() {
    let server = TestServer::start();
    let cursor = server.publish("news", 1.into()).await["cursor"].as_str().unwrap().to_owned();
    let _door = RawWs::with(&server, "news", Start::Live, &EXPLICIT()).await;
    let path = "/topics/news/consumers/tab-42/seek";
    for bad in [
        json!({}),
        json!({"last": 1, "after": cursor}),
        json!({"last": -1}),
        json!({"after": "junk"}),
        json!({"after": cursor_at(&cursor, 1 << 40)}),
        json!({"after": "p0123456789abcdef-17f"}),
        json!({"since": "yesterday"}),
        json!({"before": 1}),
    ] {
        server.post(path, &bad).await.expect_error(400, "BAD_REQUEST");
    }
    server.post("/topics/news/consumers/nobody/seek", &json!({"last": 1})).await.expect_error(404, "NOT_FOUND");
    server.post("/topics/none/consumers/tab-42/seek", &json!({"last": 1})).await.expect_error(404, "NOT_FOUND");
    server.post("/topics/$x/consumers/tab-42/seek", &json!({"last": 1})).await.expect_error(400, "INVALID_TOPIC");
    let query = |to: &str| format!("mutation {{ seekConsumer(topic: \"news\", consumer: \"tab-42\", to: {to}) }}");
    for bad in ["{}", "{last: -1}", "{last: 1, since: \"2026-01-01T00:00:00Z\"}", "{after: \"junk\"}"] {
        assert_eq!(server.graphql_error(&query(bad), json!({})).await["code"], "BAD_REQUEST", "{bad}");
    }
    let _pattern = GraphqlWs::with(&server, "a.*", Start::Live, &EXPLICIT()).await;
    server.post("/topics/a.*/consumers/tab-42/seek", &json!({"after": cursor})).await.expect_error(400, "BAD_REQUEST");
}
