//! Topics that keep the newest message of each key.

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, Options, RawWs, Start, numbers, raw_ws::Socket},
    harness::{Client, Response, TestServer, offsets_are_dense},
};

every_door! {
    what_was_replaced_is_told_where_it_stood,
    a_stalled_subscriber_gets_what_there_is,
}

every_pushing_door! {
    a_filter_hides_no_hole,
    a_pattern_tells_what_was_replaced,
}

/// Creates a topic of keys. An engine that has none refuses it, and there is nothing more to see.
async fn created(client: &Client, topic: &str, max_keys: u64) -> bool {
    let body = json!({"name": topic, "retention": "LATEST_PER_KEY", "max_keys": max_keys, "max_publish_rate": 0});
    let created = client.post("/topics", &body).await;
    if offsets_are_dense() {
        assert_eq!(created.expect(201)["retention"], "LATEST_PER_KEY");
        return true;
    }
    created.expect_error(400, "BAD_REQUEST");
    assert!(created.text.contains("retention: LATEST_PER_KEY is not available"), "{created:?}");
    false
}

async fn try_publish(client: &Client, topic: &str, key: &str, number: u64) -> Response {
    client.post("/publish", &json!({"topic": topic, "key": key, "data": number})).await
}

/// Publishes, and returns the cursor.
async fn publish(client: &Client, topic: &str, key: &str, number: u64) -> String {
    try_publish(client, topic, key, number).await.expect(200)["cursor"].as_str().unwrap().to_owned()
}

async fn publish_all(client: &Client, topic: &str, messages: &[(&str, u64)]) {
    for (key, number) in messages {
        publish(client, topic, key, *number).await;
    }
}

/// `1` is message 1, `0` a removal, `-2` a gap of two messages that were replaced.
fn shown(events: &[Event]) -> Vec<i64> {
    let one = |event: &Event| match event {
        Event::Message(message) if message.removed => 0,
        Event::Message(message) => message.data.as_i64().unwrap(),
        Event::Gap(gap) => {
            assert_eq!(gap.reason, "COMPACTED", "{events:?}");
            assert_eq!(gap.missed, Some(gap.to_offset + 1 - gap.from_offset), "{gap:?}");
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

async fn what_was_replaced_is_told_where_it_stood<D: Door>() {
    let server = TestServer::start();
    if !created(&server, "stock", 10).await {
        return;
    }
    let first = publish(&server, "stock", "a", 1).await;
    publish_all(&server, "stock", &[("b", 2), ("a", 3), ("c", 4), ("b", 5), ("d", 6), ("c", 7), ("e", 8)]).await;
    let mut door = D::to(&server, "stock", Start::After(first)).await;
    assert_eq!(events(&mut door, 7).await, [-1, 3, -1, 5, 6, 7, 8]);
    let mut door = D::to(&server, "stock", Start::Last(4)).await;
    assert_eq!(events(&mut door, 4).await, [5, 6, 7, 8]);
    let mut door = D::to(&server, "stock", Start::Since("2001-01-01T00:00:00Z".to_owned())).await;
    assert_eq!(events(&mut door, 7).await, [-2, 3, -1, 5, 6, 7, 8]);
    // Who keeps up is told of no gap.
    publish(&server, "stock", "b", 9).await;
    assert_eq!(events(&mut door, 1).await, [9]);
    server.send(server.request(reqwest::Method::DELETE, "/topics/stock/state/b")).await.expect(200);
    assert_eq!(events(&mut door, 1).await, [0]);
    publish_all(&server, "stock", &[("b", 11)]).await;
    assert_eq!(events(&mut door, 1).await, [11]);
    let mut door = D::to(&server, "stock", Start::Last(2)).await;
    assert_eq!(events(&mut door, 3).await, [8, -2, 11]);
}

/// It is not slow, and is not cut off: it has missed what was replaced, and gets the newest of each key.
async fn a_stalled_subscriber_gets_what_there_is<D: Door>() {
    let server = TestServer::start();
    if !created(&server, "stock", 10).await {
        return;
    }
    let options = Options::overflow("DISCONNECT");
    let mut door = if D::PUSHES {
        D::with(&server, "stock", Start::Live, &options).await
    } else {
        D::to(&server, "stock", Start::Live).await
    };
    server.post("/publish", &json!({"topic": "stock", "key": "a", "data": {"number": 1}})).await.expect(200);
    door.messages(1).await;
    for batch in 0..8_u64 {
        let item = |number: u64| {
            let key = if number == 5_000 { "once".to_owned() } else { format!("k{}", number % 3) };
            json!({"topic": "stock", "key": key, "data": {"number": number, "pad": "x".repeat(1_000)}})
        };
        let items: Vec<_> = (2 + batch * 1_000..2 + (batch + 1) * 1_000).map(item).collect();
        server.post("/publish", &Value::from(items)).await.expect(200);
    }
    let (mut next, mut missed, mut last) = (2, 0, Vec::new());
    while next <= 8_001 {
        match door.event().await {
            Event::Message(message) => {
                assert_eq!(message.data["number"], next);
                next += 1;
                last.push(message.offset);
            }
            Event::Gap(gap) => {
                assert_eq!(gap.reason, "COMPACTED");
                missed += gap.missed.unwrap();
                next += gap.missed.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(missed > 0);
    assert_eq!(last[last.len() - 3..], [7_999, 8_000, 8_001]);
    assert!(last.contains(&5_000));
}

async fn a_filter_hides_no_hole<D: Door>() {
    let server = TestServer::start();
    if !created(&server, "stock", 10).await {
        return;
    }
    let first = publish(&server, "stock", "a", 1).await;
    publish_all(&server, "stock", &[("b", 2), ("c", 3), ("b", 4), ("d", 5), ("e", 6), ("d", 7)]).await;
    let none = Options::filter(json!({"field": "no.such.field", "exists": true}));
    let mut door = D::with(&server, "stock", Start::After(first), &none).await;
    assert_eq!(events(&mut door, 2).await, [-1, -1]);
    door.assert_open().await;
}

async fn a_pattern_tells_what_was_replaced<D: Door>() {
    let server = TestServer::start();
    if !created(&server, "s.a", 10).await || !created(&server, "s.b", 10).await {
        return;
    }
    let mut door = D::to(&server, "s.>", Start::Live).await;
    publish(&server, "s.a", "x", 1).await;
    let position = door.event().await.message().position().to_owned();
    drop(door);
    publish_all(&server, "s.a", &[("x", 2), ("y", 3)]).await;
    publish_all(&server, "s.b", &[("x", 1), ("y", 2), ("x", 3)]).await;
    publish_all(&server, "s.a", &[("x", 4), ("z", 5)]).await;
    let mut door = D::to(&server, "s.>", Start::After(position)).await;
    let mut seen = Vec::new();
    while seen.len() < 7 {
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
    assert_eq!((of("s.a"), of("s.b")), (vec![-1, 3, 4, 5], vec![-1, 2, 3]), "{seen:?}");
}

#[tokio::test]
async fn the_setting_is_shown_and_changed_at_every_door() {
    let server = TestServer::start();
    if !created(&server, "stock", 7).await {
        return;
    }
    let shown = server.get("/topics/stock").await.expect(200);
    assert_eq!(
        (&shown["retention"], &shown["max_keys"], &shown["max_age"]),
        (&"LATEST_PER_KEY".into(), &7.into(), &"0s".into())
    );
    let document = "mutation ($r: Retention, $n: Int) { createTopic(name: \"prices\", retention: $r, maxKeys: $n) \
        { retention maxKeys } }";
    let made = server.graphql(document, json!({"r": "LATEST_PER_KEY", "n": 9})).await["createTopic"].take();
    assert_eq!(made, json!({"retention": "LATEST_PER_KEY", "maxKeys": 9}));
    server.create("plain").await;
    let plain = server.get("/topics/plain").await.expect(200);
    assert_eq!((&plain["retention"], &plain["max_keys"]), (&"HISTORY".into(), &Value::Null));
    let change = async |topic: &str, body: Value| {
        let request = server.request(reqwest::Method::PATCH, &format!("/topics/{topic}"));
        server.send(request.header("content-type", "application/json").body(body.to_string())).await
    };
    assert_eq!(
        change("plain", json!({"retention": "LATEST_PER_KEY"})).await.expect(200)["retention"],
        "LATEST_PER_KEY"
    );
    change("plain", json!({"max_keys": 3})).await.expect(200);
    let listed = server.get("/topics?prefix=plain").await.expect(200)["topics"][0].take();
    assert_eq!((&listed["retention"], &listed["max_keys"]), (&"LATEST_PER_KEY".into(), &3.into()));
    let document = "mutation { updateTopic(name: \"plain\", retention: HISTORY) { retention maxKeys } }";
    let updated = server.graphql(document, Value::Null).await["updateTopic"].take();
    assert_eq!(updated, json!({"retention": "HISTORY", "maxKeys": 3}));
    for (body, field) in [
        (json!({"retention": "latest"}), "retention: "),
        (json!({"retention": 1}), "retention: "),
        (json!({"max_keys": 0}), "max_keys: "),
        (json!({"max_keys": 1_000_001}), "max_keys: "),
        (json!({"max_keys": "9"}), "max_keys: "),
    ] {
        let refused = change("plain", body).await;
        refused.expect_error(400, "BAD_REQUEST");
        assert!(refused.text.contains(&format!("\"message\":\"{field}")), "{refused:?}");
    }
    let error =
        server.graphql_raw("mutation { updateTopic(name: \"plain\", maxKeys: -1) { name } }", Value::Null).await;
    assert!(error.json()["errors"][0]["message"].as_str().unwrap().starts_with("maxKeys: "), "{error:?}");
    // What the server allows is the most that a topic may set, and what holds unless it sets something.
    let server = TestServer::with(|config| config.broker.max_keys = 2);
    assert!(server.post("/topics", &json!({"name": "stock", "max_keys": 3})).await.status == 400);
    server.post("/topics", &json!({"name": "stock", "retention": "LATEST_PER_KEY"})).await.expect(201);
    publish_all(&server, "stock", &[("a", 1), ("b", 2)]).await;
    try_publish(&server, "stock", "c", 3).await.expect_error(503, "LIMIT_REACHED");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_at_every_door() {
    let server = TestServer::start();
    if !created(&server, "stock", 1).await {
        return;
    }
    publish(&server, "stock", "a", 1).await;
    let mut socket = Socket::connect(&server, "/ws", None).await;
    for (key, code) in [(Some("b"), "LIMIT_REACHED"), (None, "BAD_REQUEST")] {
        let refused = server.post("/publish", &json!({"topic": "stock", "key": key, "data": 1})).await;
        refused.expect_error(if code == "BAD_REQUEST" { 400 } else { 503 }, code);
        let document = "mutation ($k: String) { publish(topic: \"stock\", data: 1, key: $k) { offset } }";
        assert_eq!(server.graphql_error(document, json!({ "k": key })).await["code"], code);
        socket.send(json!({"type": "publish", "topic": "stock", "data": 1, "key": key}).to_string()).await;
        assert_eq!(socket.json().await["error"]["code"], code);
    }
    // A removal makes room.
    let frame = json!({"type": "publish", "topic": "stock", "key": "a", "remove": true});
    socket.send(frame.to_string()).await;
    assert_eq!(socket.json().await["type"], "ack");
    assert_eq!(server.get("/topics/stock").await.expect(200)["messages"], 0);
    publish(&server, "stock", "b", 2).await;
    try_publish(&server, "stock", "a", 3).await.expect_error(503, "LIMIT_REACHED");
    let body = json!({"topic": "stock", "key": "b", "data": 4, "expected_key_offset": 0});
    server.post("/publish", &body).await.expect_error(409, "CONFLICT");
    // A history that has messages without keys does not become one of keys.
    server.publish("news", 1.into()).await;
    let document = "mutation { updateTopic(name: \"news\", retention: LATEST_PER_KEY) { name } }";
    let refused = server.graphql_raw(document, Value::Null).await.json();
    let text = refused["errors"][0]["message"].as_str().unwrap();
    assert!(text.starts_with("retention: ") && text.contains("without a key"), "{refused}");
    server.publish("news", 2.into()).await;
}

#[tokio::test]
async fn pages_tell_what_was_replaced() {
    let server = TestServer::start();
    if !created(&server, "stock", 10).await {
        return;
    }
    publish_all(&server, "stock", &[("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5), ("d", 6), ("c", 7)]).await;
    let page = server.get("/topics/stock/messages?limit=2").await.expect(200);
    let data: Vec<_> = page["messages"].as_array().unwrap().iter().map(|message| message["data"].clone()).collect();
    assert_eq!((data, &page["gap"]), (vec![3.into(), 5.into()], &Value::Null), "{page}");
    let gap = json!({"topic": "stock", "reason": "COMPACTED", "missed": 1, "from_offset": 4, "to_offset": 4});
    assert_eq!(page["messages"][1]["gap"], gap);
    let path = format!("/topics/stock/messages?after={}", page["next"].as_str().unwrap());
    let page = server.get(&path).await.expect(200);
    let data: Vec<_> = page["messages"].as_array().unwrap().iter().map(|message| message["data"].clone()).collect();
    assert_eq!((data, &page["gap"]), (vec![6.into(), 7.into()], &Value::Null), "{page}");
    let document = "{ topic(name: \"stock\") { messageCount messages(last: 3) { totalCount pageInfo { hasPreviousPage } \
        nodes { data removed gap { missed reason } } } } }";
    let topic = server.graphql(document, Value::Null).await["topic"].take();
    let node = |data: u64| json!({"data": data, "removed": false, "gap": null});
    let messages =
        json!({"totalCount": 4, "pageInfo": {"hasPreviousPage": true}, "nodes": [node(5), node(6), node(7)]});
    assert_eq!(topic, json!({"messageCount": 4, "messages": messages}));
}

/// A consumer that was away gets the newest of each key that has changed since, and is told what it missed.
#[tokio::test]
async fn a_consumer_that_was_away() {
    let server = TestServer::start();
    if !created(&server, "stock", 10).await {
        return;
    }
    publish(&server, "stock", "a", 1).await;
    let options = Options::consumer("tab", "EXPLICIT");
    let mut door = RawWs::with(&server, "stock", Start::Last(1), &options).await;
    let seen = door.messages(1).await;
    assert_eq!(numbers(&seen), [1]);
    server.post("/topics/stock/consumers/tab/ack", &json!({"cursor": seen[0].cursor})).await.expect(200);
    drop(door);
    publish_all(&server, "stock", &[("b", 2), ("a", 3), ("b", 4), ("a", 5)]).await;
    let mut door = RawWs::with(&server, "stock", Start::Live, &options).await;
    assert_eq!(events(&mut door, 3).await, [-2, 4, 5]);
    // A position whose message was replaced stays one.
    door.assert_open().await;
    drop(door);
    let path = "/topics/stock/consumers/tab/seek";
    server.post(path, &json!({"after": seen[0].cursor})).await.expect(200);
    let mut door = RawWs::with(&server, "stock", Start::Live, &options).await;
    assert_eq!(events(&mut door, 3).await, [-2, 4, 5]);
}

/// `TOMBSTONE_TTL` says how long a removal is remembered.
#[tokio::test]
async fn a_removal_is_forgotten() {
    let server = TestServer::with(|config| config.broker.tombstone_ttl = std::time::Duration::from_millis(50));
    if !created(&server, "stock", 10).await {
        return;
    }
    let first = publish(&server, "stock", "a", 1).await;
    publish(&server, "stock", "b", 2).await;
    server.send(server.request(reqwest::Method::DELETE, "/topics/stock/state/a")).await.expect(200);
    crate::harness::eventually("the removal is forgotten", || async {
        let page = server.get(&format!("/topics/stock/messages?after={first}")).await.expect(200);
        (page["messages"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    publish(&server, "stock", "b", 4).await;
    let mut door = RawWs::to(&server, "stock", Start::After(first)).await;
    assert_eq!(events(&mut door, 2).await, [-2, 4]);
}
