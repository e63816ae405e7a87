//! Messages that grow too old: nobody is delivered them, and whoever missed them is told exactly where.

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, Options, RawWs, Start, numbers, raw_ws::Socket},
    harness::{Client, TestServer, encode, eventually, offsets_are_dense},
};

every_door! {
    a_hole_is_told_where_it_stands,
    the_age_of_a_topic_takes_effect_at_once,
    too_old_while_stalled,
}

every_pushing_door! {
    a_filter_hides_no_hole,
    a_pattern_tells_of_holes,
}

/// Publishes with a time of its own, and returns the cursor.
async fn publish(client: &Client, topic: &str, number: u64, ttl: Option<&str>) -> String {
    let body = json!({"topic": topic, "data": number, "ttl": ttl});
    client.post("/publish", &body).await.expect(200)["cursor"].as_str().unwrap().to_owned()
}

/// Sets the age of a topic.
async fn set_age(client: &Client, topic: &str, age: &str) {
    let path = format!("/topics/{}", encode(topic));
    let request = client.request(reqwest::Method::PATCH, &path).header("content-type", "application/json");
    client.send(request.body(json!({"max_age": age}).to_string())).await.expect(200);
}

/// Waits until so many messages are kept.
async fn kept(client: &Client, topic: &str, count: u64) {
    eventually(&format!("{count} messages"), || async {
        let now = client.get(&format!("/topics/{}", encode(topic))).await.expect(200)["messages"].as_u64().unwrap();
        (now == count).then_some(())
    })
    .await;
}

/// `1` is message 1, `-2` a gap of two messages that were too old.
fn shown(events: &[Event]) -> Vec<i64> {
    let one = |event: &Event| match event {
        Event::Message(message) => message.data.as_i64().unwrap(),
        Event::Gap(gap) => {
            assert_eq!(gap.reason, "EXPIRED", "{events:?}");
            let between = gap.to_offset + 1 - gap.from_offset;
            assert!(!offsets_are_dense() || gap.missed == Some(between), "{gap:?}");
            -i64::try_from(gap.missed.unwrap()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    events.iter().map(one).collect()
}

async fn events<D: Door>(door: &mut D, count: usize) -> Vec<i64> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(door.event().await);
    }
    shown(&events)
}

/// Seven messages, of which 1, 4 and 6 are kept; returns the cursor of the first.
async fn with_holes(server: &TestServer, topic: &str) -> String {
    let first = publish(server, topic, 1, None).await;
    for (number, ttl) in
        [(2, Some("40ms")), (3, Some("30ms")), (4, None), (5, Some("20ms")), (6, Some("1h")), (7, Some("50ms"))]
    {
        publish(server, topic, number, ttl).await;
    }
    kept(server, topic, 3).await;
    first
}

async fn a_hole_is_told_where_it_stands<D: Door>() {
    let server = TestServer::start();
    let first = with_holes(&server, "news").await;
    let mut door = D::to(&server, "news", Start::After(first)).await;
    assert_eq!(events(&mut door, 5).await, [-2, 4, -1, 6, -1]);
    let mut door = D::to(&server, "news", Start::Last(2)).await;
    assert_eq!(events(&mut door, 4).await, [4, -1, 6, -1]);
    let mut door = D::to(&server, "news", Start::Since("2001-01-01T00:00:00Z".to_owned())).await;
    assert_eq!(events(&mut door, 6).await, [1, -2, 4, -1, 6, -1]);
    // Live goes on behind it.
    publish(&server, "news", 8, None).await;
    assert_eq!(events(&mut door, 1).await, [8]);
    // Holes behind each other are one, whenever they came to be.
    let first = publish(&server, "other", 1, None).await;
    for (number, ttl) in [(2, "20ms"), (3, "60ms"), (4, "20ms")] {
        publish(&server, "other", number, Some(ttl)).await;
    }
    kept(&server, "other", 1).await;
    publish(&server, "other", 5, None).await;
    let mut door = D::to(&server, "other", Start::After(first.clone())).await;
    assert_eq!(events(&mut door, 2).await, [-3, 5]);
    // The same once the memory was given back.
    let is_free = |text: String| text.lines().any(|line| line == "pubsub_history_messages 6").then_some(());
    eventually("the memory is given back", || async { is_free(server.get("/metrics").await.text) }).await;
    let mut door = D::to(&server, "other", Start::After(first)).await;
    assert_eq!(events(&mut door, 2).await, [-3, 5]);
    let mut door = D::to(&server, "news", Start::Last(3)).await;
    assert_eq!(events(&mut door, 5).await, [4, -1, 6, -1, 8]);
}

async fn the_age_of_a_topic_takes_effect_at_once<D: Door>() {
    let server = TestServer::start();
    server.post("/topics", &json!({"name": "news", "max_age": "1h"})).await.expect(201);
    let first = publish(&server, "news", 1, None).await;
    server.publish_numbers("news", 2..=4).await;
    kept(&server, "news", 4).await;
    set_age(&server, "news", "1ms").await;
    kept(&server, "news", 0).await;
    // A longer age brings nothing back.
    set_age(&server, "news", "1h").await;
    publish(&server, "news", 5, None).await;
    let mut door = D::to(&server, "news", Start::After(first)).await;
    assert_eq!(events(&mut door, 2).await, [-3, 5]);
    let mut door = D::to(&server, "news", Start::Last(9)).await;
    assert_eq!(events(&mut door, 1).await, [5]);
}

async fn too_old_while_stalled<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 10_000);
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    server.publish("news", json!({"number": 1})).await;
    door.messages(1).await;
    let kilobyte = |number: u64| json!({"number": number, "pad": "x".repeat(1_000)});
    server.publish_all("news", (2..=8_000).map(kilobyte)).await;
    set_age(&server, "news", "1ms").await;
    kept(&server, "news", 0).await;
    set_age(&server, "news", "1h").await;
    server.publish("news", json!({"number": 8_001})).await;
    // What was on its way to the client arrives, and what was not is told.
    let (mut next, mut missed) = (2, 0);
    while next <= 8_001 {
        match door.event().await {
            Event::Message(message) => {
                assert_eq!(message.data["number"], next);
                next += 1;
            }
            Event::Gap(gap) => {
                assert_eq!(gap.reason, "EXPIRED");
                missed += gap.missed.unwrap();
                next += gap.missed.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(missed > 0);
    assert_eq!(next, 8_002);
}

async fn a_filter_hides_no_hole<D: Door>() {
    let server = TestServer::start();
    let first = with_holes(&server, "news").await;
    let even = Options::filter(json!({"field": "no.such.field", "exists": true}));
    let mut door = D::with(&server, "news", Start::After(first), &even).await;
    assert_eq!(events(&mut door, 3).await, [-2, -1, -1]);
    door.assert_open().await;
}

async fn a_pattern_tells_of_holes<D: Door>() {
    let server = TestServer::start();
    let mut door = D::to(&server, "n.>", Start::Live).await;
    publish(&server, "n.a", 0, None).await;
    let position = door.event().await.message().position().to_owned();
    drop(door);
    for (topic, number, ttl) in [("n.a", 1, None), ("n.b", 2, Some("20ms")), ("n.b", 3, Some("40ms")), ("n.a", 4, None)]
    {
        publish(&server, topic, number, ttl).await;
    }
    kept(&server, "n.b", 0).await;
    publish(&server, "n.b", 5, None).await;
    let mut door = D::to(&server, "n.>", Start::After(position)).await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(door.event().await);
    }
    let of = |topic: &str| {
        let is_of = |event: &&Event| match event {
            Event::Message(message) => message.topic == topic,
            Event::Gap(gap) => gap.topic.as_deref() == Some(topic),
            _ => false,
        };
        shown(&seen.iter().filter(is_of).cloned().collect::<Vec<_>>())
    };
    assert_eq!((of("n.a"), of("n.b")), (vec![1, 4], vec![-2, 5]), "{seen:?}");
}

/// A message can be given its time wherever it is published.
#[tokio::test]
async fn every_door_takes_a_time() {
    let server = TestServer::start();
    server.publish("news", 0.into()).await;
    publish(&server, "news", 1, Some("60ms")).await;
    let batch = json!([{"topic": "news", "message": {"payload": 2}, "ttl": "40ms"}, {"topic": "news", "data": 3, "ttl": "40ms"}]);
    server.post("/publish", &batch).await.expect(200);
    server.graphql("mutation { publish(topic: \"news\", data: 4, ttl: \"40ms\") { offset } }", Value::Null).await;
    let document =
        "mutation ($data: JSON!, $ttl: String) { publish(topic: \"news\", data: $data, ttl: $ttl) { offset } }";
    server.graphql(document, json!({"data": 5, "ttl": "40ms"})).await;
    let document = "mutation ($m: [PublishInput!]!) { publishMany(messages: $m) { publication { offset } } \
        again: publishMany(messages: [{topic: \"news\", data: 7, ttl: \"40ms\"}]) { publication { offset } } }";
    server.graphql(document, json!({"m": [{"topic": "news", "data": 6, "ttl": "40ms"}]})).await;
    let mut socket = Socket::connect(&server, "/ws", None).await;
    socket.send(json!({"type": "publish", "topic": "news", "data": 8, "ttl": "40ms"}).to_string()).await;
    assert_eq!(socket.json().await["type"], "ack");
    publish(&server, "news", 9, Some("1h")).await;
    kept(&server, "news", 2).await;
    let page = server.get("/topics/news/messages").await.expect(200);
    assert_eq!((&page["messages"][0]["data"], &page["messages"][1]["data"]), (&0.into(), &9.into()));
    assert_eq!((&page["messages"][1]["gap"]["missed"], &page["gap"]), (&8.into(), &Value::Null), "{page}");
    assert_eq!(page["messages"][1]["gap"]["reason"], "EXPIRED");
    let document = "{ topic(name: \"news\") { messageCount messages(last: 5) { totalCount nodes { data gap { missed reason } } } } }";
    let topic = server.graphql(document, Value::Null).await["topic"].take();
    let nodes = json!([{"data": 0, "gap": null}, {"data": 9, "gap": {"missed": 8, "reason": "EXPIRED"}}]);
    assert_eq!(topic, json!({"messageCount": 2, "messages": {"totalCount": 2, "nodes": nodes}}));
}

#[tokio::test]
async fn a_time_that_is_none_is_refused_at_every_door() {
    let server = TestServer::start();
    for bad in ["", "-5s", "5", "soon", "0s", "1.5s", "999999999h"] {
        let refused = server.post("/publish", &json!({"topic": "news", "data": 1, "ttl": bad})).await;
        refused.expect_error(400, "BAD_REQUEST");
        assert!(refused.text.contains("ttl: "), "{refused:?}");
        let document = "mutation ($ttl: String) { publish(topic: \"news\", data: 1, ttl: $ttl) { offset } }";
        assert_eq!(server.graphql_error(document, json!({"ttl": bad})).await["code"], "BAD_REQUEST");
        let mut socket = Socket::connect(&server, "/ws", None).await;
        socket.send(json!({"type": "publish", "topic": "news", "data": 1, "ttl": bad}).to_string()).await;
        assert_eq!(socket.json().await["error"]["code"], "BAD_REQUEST");
        if bad != "0s" {
            let refused = server.post("/topics", &json!({"name": "other", "max_age": bad})).await;
            refused.expect_error(400, "BAD_REQUEST");
            assert!(refused.text.contains("max_age: "), "{refused:?}");
            let document = "mutation ($age: String) { createTopic(name: \"other\", maxAge: $age) { name } }";
            let error = server.graphql_raw(document, json!({"age": bad})).await.json();
            assert!(error["errors"][0]["message"].as_str().unwrap().starts_with("maxAge: "), "{error}");
        }
    }
    server.post("/publish", &json!({"topic": "news", "data": 1, "ttl": 5})).await.expect_error(400, "BAD_REQUEST");
    server.post("/topics", &json!({"name": "other", "max_age": 5})).await.expect_error(400, "BAD_REQUEST");
}

/// `MAX_AGE` holds for topics that set nothing, and `0s` is no limit.
#[tokio::test]
async fn the_age_is_a_setting_of_the_server_and_of_topics() {
    let server = TestServer::with(|config| config.broker.max_age = std::time::Duration::from_millis(30));
    server.post("/topics", &json!({"name": "kept", "max_age": "0s"})).await.expect(201);
    let made =
        server.graphql("mutation { createTopic(name: \"hours\", maxAge: \"90m\") { maxAge } }", Value::Null).await;
    assert_eq!(made["createTopic"]["maxAge"], "90m");
    for topic in ["news", "kept", "hours"] {
        server.publish_numbers(topic, 1..=3).await;
    }
    kept(&server, "news", 0).await;
    for (topic, age, count) in [("news", "30ms", 0), ("kept", "0s", 3), ("hours", "90m", 3)] {
        let shown = server.get(&format!("/topics/{topic}")).await.expect(200);
        assert_eq!((&shown["max_age"], &shown["message_count"]), (&age.into(), &count.into()));
    }
    let changed =
        server.graphql("mutation { updateTopic(name: \"hours\", maxAge: \"1ms\") { maxAge } }", Value::Null).await;
    assert_eq!(changed["updateTopic"]["maxAge"], "1ms");
    kept(&server, "hours", 0).await;
    // What does not say it keeps it.
    server.graphql("mutation { updateTopic(name: \"hours\", maxMessages: 7) { maxAge } }", Value::Null).await;
    let listed = server.get("/topics?prefix=hours").await.expect(200);
    assert_eq!((&listed["topics"][0]["max_age"], &listed["topics"][0]["max_messages"]), (&"1ms".into(), &7.into()));
}

/// A consumer that was away learns what it missed, and its position moves behind it.
#[tokio::test]
async fn a_consumer_that_was_away() {
    let server = TestServer::start();
    publish(&server, "news", 1, None).await;
    let options = Options::consumer("tab", "EXPLICIT");
    let mut door = RawWs::with(&server, "news", Start::Last(1), &options).await;
    let seen = door.messages(1).await;
    assert_eq!(numbers(&seen), [1]);
    server.post("/topics/news/consumers/tab/ack", &json!({"cursor": seen[0].cursor})).await.expect(200);
    drop(door);
    for (number, ttl) in [(2, Some("20ms")), (3, None), (4, Some("20ms"))] {
        publish(&server, "news", number, ttl).await;
    }
    kept(&server, "news", 2).await;
    let mut door = RawWs::with(&server, "news", Start::Live, &options).await;
    assert_eq!(events(&mut door, 3).await, [-1, 3, -1]);
}
