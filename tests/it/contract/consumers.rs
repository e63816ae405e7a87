//! Named consumers: the server keeps the position.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, GraphqlWs, Options, RawWs, Sse, Start, cursor_at, numbers},
    harness::{Client, TestServer, alone, eventually, within},
};

every_pushing_door! {
    explicit_goes_on_after_what_was_acknowledged,
    auto_repeats_nothing_that_was_acknowledged,
    a_newer_connection_takes_over,
    names_are_remembered,
    a_known_position_goes_before_a_start,
    consumers_learn_of_gaps,
    a_deleted_consumer_begins_again,
    a_consumer_of_a_pattern,
}

every_resuming_door! {
    auto_loses_nothing_after_a_cut,
}

const EXPLICIT: fn() -> Options = || Options::consumer("tab-42", "EXPLICIT");
const AUTO: fn() -> Options = || Options::consumer("tab-42", "AUTO");

/// Acknowledges through one of the three ways there are.
async fn acknowledge(client: &Client, way: usize, topic: &str, cursor: &str) {
    match way % 3 {
        0 => {
            let query =
                "mutation($cursor: Cursor!) { acknowledge(topic: \"T\", consumer: \"tab-42\", cursor: $cursor) }";
            let told = client.graphql(&query.replace('T', topic), json!({"cursor": cursor})).await;
            assert_eq!(told["acknowledge"], true);
        }
        1 => {
            let frame = json!({"type": "ack", "topic": topic, "consumer": "tab-42", "cursor": cursor});
            let told = RawWs::open(client).await.ask(frame).await;
            assert_eq!((&told["type"], &told["status"]), (&"ack".into(), &"ok".into()), "{told}");
        }
        _ => {
            let path = format!("/topics/{}/consumers/tab-42/ack", crate::harness::encode(topic));
            client.post(&path, &json!({"cursor": cursor})).await.expect(200);
        }
    }
}

async fn explicit_goes_on_after_what_was_acknowledged<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut door = D::with(&server, "news", Start::Live, &EXPLICIT()).await;
    server.publish_numbers("news", 1..=10).await;
    let seen = door.messages(10).await;
    door.close().await;
    for (way, acknowledged) in [(0, 2), (1, 4), (2, 7)] {
        acknowledge(&server, way, "news", &seen[acknowledged].cursor).await;
        // Acknowledging what is behind the position changes nothing.
        acknowledge(&server, way, "news", &seen[0].cursor).await;
        let mut door = D::with(&server, "news", Start::Live, &EXPLICIT()).await;
        assert_eq!(door.messages(9 - acknowledged).await, seen[acknowledged + 1..]);
        // Cut without a close handshake, nothing acknowledged: the same again.
        drop(door);
        let mut door = D::with(&server, "news", Start::Live, &EXPLICIT()).await;
        assert_eq!(door.messages(9 - acknowledged).await, seen[acknowledged + 1..]);
        door.close().await;
    }
    acknowledge(&server, 0, "news", &seen[9].cursor).await;
    let mut door = D::with(&server, "news", Start::Live, &EXPLICIT()).await;
    server.publish("news", 11.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [11]);
}

/// What was acknowledged does not come again; a close handshake acknowledges nothing.
async fn auto_repeats_nothing_that_was_acknowledged<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    for round in 0..5_u64 {
        let mut door = D::with(&server, "news", Start::Live, &AUTO()).await;
        server.publish_numbers("news", round * 10 + 1..=round * 10 + 10).await;
        let messages = door.messages(10).await;
        assert_eq!(numbers(&messages), (round * 10 + 1..=round * 10 + 10).collect::<Vec<_>>());
        if D::SOCKET.is_some() {
            // The server's ping stands behind the messages; reading on sends the pong.
            let acknowledged = async {
                loop {
                    door.assert_open().await;
                    let listed = server.get("/topics/news/consumers").await.expect(200);
                    if listed["consumers"][0]["positions"][0]["cursor"] == messages[9].cursor.as_str() {
                        return;
                    }
                }
            };
            within("position behind the messages", acknowledged).await;
        }
        door.close().await;
        if D::SOCKET.is_none() {
            // An event stream has no close handshake: the server notices that the connection is closed.
            server.wait_for_subscribers("news", 0).await;
        }
    }
}

/// What comes while nobody is there is delivered later; after a cut, what may not have arrived comes again.
async fn auto_loses_nothing_after_a_cut<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut next = 1;
    let mut published = 0;
    let mut cursor = None;
    // An event stream's client says with `Last-Event-ID` where it was.
    let start = |cursor: &Option<String>| match cursor {
        Some(cursor) if D::RESUMES => Start::After(cursor.clone()),
        _ => Start::Live,
    };
    for _ in 0..10 {
        let mut door = D::with(&server, "news", start(&cursor), &AUTO()).await;
        server.publish_numbers("news", published + 1..=published + 20).await;
        published += 20;
        let mut messages = door.messages(5).await;
        messages.extend(door.received().into_iter().map(Event::message));
        let first = messages[0].offset;
        assert!(first <= next, "from {next} to {first} is lost");
        for (message, offset) in messages.into_iter().zip(first..) {
            assert_eq!(message.offset, offset);
            if offset >= next {
                next = offset + 1;
                cursor = Some(message.cursor);
            }
        }
        drop(door);
        server.publish_numbers("news", published + 1..=published + 5).await;
        published += 5;
    }
    let mut door = D::with(&server, "news", start(&cursor), &AUTO()).await;
    let first = door.event().await.message().offset;
    assert!(first <= next);
    let rest = door.messages((published - first) as usize).await;
    assert_eq!(rest.last().unwrap().offset, published);
}

async fn a_newer_connection_takes_over<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut older = D::with(&server, "news", Start::Live, &EXPLICIT()).await;
    server.publish("news", 1.into()).await;
    assert_eq!(numbers(&older.messages(1).await), [1]);
    let mut newer = D::with(&server, "news", Start::Live, &EXPLICIT()).await;
    assert_eq!(older.event().await, Event::Error("CONSUMER_TAKEN_OVER".to_owned()));
    older.assert_open().await;
    assert_eq!(numbers(&newer.messages(1).await), [1]);
    server.publish("news", 2.into()).await;
    assert_eq!(numbers(&newer.messages(1).await), [2]);
    // From another door, too.
    let mut ws = RawWs::with(&server, "news", Start::Live, &EXPLICIT()).await;
    assert_eq!(newer.event().await, Event::Error("CONSUMER_TAKEN_OVER".to_owned()));
    assert_eq!(numbers(&ws.messages(2).await), [1, 2]);
}

async fn names_are_remembered<D: Door>() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=3).await;
    let mut door = D::with(&server, "news", Start::Last(3), &EXPLICIT()).await;
    let seen = door.messages(3).await;
    let told = door.consumer().expect("word of the consumer");
    assert_eq!((&told["name"], &told["resumed"]), (&"tab-42".into(), &false.into()), "{told}");
    acknowledge(&server, 0, "news", &seen[0].cursor).await;
    door.close().await;
    let mut door = D::with(&server, "news", Start::Live, &EXPLICIT()).await;
    assert_eq!(numbers(&door.messages(2).await), [2, 3]);
    let told = door.consumer().unwrap();
    assert_eq!((&told["resumed"], told["cursor"].as_str()), (&true.into(), Some(seen[0].cursor.as_str())), "{told}");
}

async fn a_known_position_goes_before_a_start<D: Door>() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=10).await;
    let mut door = D::with(&server, "news", Start::Last(4), &EXPLICIT()).await;
    let seen = door.messages(4).await;
    acknowledge(&server, 1, "news", &seen[1].cursor).await;
    drop(door);
    // A stock client sends its operation again as it was.
    let mut door = D::with(&server, "news", Start::Last(4), &EXPLICIT()).await;
    assert_eq!(numbers(&door.messages(2).await), [9, 10]);
    // Another name, another topic: another position.
    let mut door = D::with(&server, "news", Start::Last(1), &Options::consumer("tab-43", "EXPLICIT")).await;
    assert_eq!(numbers(&door.messages(1).await), [10]);
}

async fn consumers_learn_of_gaps<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 5);
    server.publish_numbers("news", 1..=3).await;
    let mut door = D::with(&server, "news", Start::Last(3), &EXPLICIT()).await;
    let seen = door.messages(3).await;
    acknowledge(&server, 2, "news", &seen[1].cursor).await;
    drop(door);
    server.publish_numbers("news", 4..=20).await;
    let mut door = D::with(&server, "news", Start::Live, &EXPLICIT()).await;
    let gap = door.event().await.gap();
    assert_eq!((gap.from_offset, gap.to_offset, gap.missed, gap.reason.as_str()), (3, 15, Some(13), "EXPIRED"));
    assert_eq!(numbers(&door.messages(5).await), [16, 17, 18, 19, 20]);
}

async fn a_deleted_consumer_begins_again<D: Door>() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=3).await;
    let mut door = D::with(&server, "news", Start::Last(3), &EXPLICIT()).await;
    door.messages(3).await;
    server.delete("/topics/news/consumers/tab-42").await.expect(200);
    assert!(matches!(door.event().await, Event::Error(_)));
    server.delete("/topics/news/consumers/tab-42").await.expect_error(404, "NOT_FOUND");
    let mut door = D::with(&server, "news", Start::Last(1), &EXPLICIT()).await;
    assert_eq!(numbers(&door.messages(1).await), [3]);
    assert_eq!(door.consumer().unwrap()["resumed"], false);
}

#[tokio::test]
async fn consumers_are_listed() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=3).await;
    let mut one = RawWs::with(&server, "news", Start::Last(3), &Options::consumer("one", "EXPLICIT")).await;
    let seen = one.messages(3).await;
    let frame = json!({"type": "ack", "topic": "news", "consumer": "one", "cursor": seen[1].cursor});
    assert_eq!(one.ask(frame).await["type"], "ack");
    GraphqlWs::with(&server, "news", Start::Live, &Options::consumer("two", "AUTO")).await.close().await;
    server.wait_for_subscribers("news", 1).await;
    let query =
        "{ topic(name: \"news\") { consumers { name ack connected lastUsedAt positions { topic cursor offset } }
        subscriptions { lag state consumer } } }";
    let topic = server.graphql(query, Value::Null).await["topic"].take();
    let (first, second) = (&topic["consumers"][0], &topic["consumers"][1]);
    assert_eq!((&first["name"], &first["ack"], &first["connected"]), (&"one".into(), &"EXPLICIT".into(), &true.into()));
    assert_eq!(first["positions"], json!([{"topic": "news", "cursor": seen[1].cursor, "offset": 2}]));
    assert_eq!((&second["name"], &second["ack"], &second["connected"]), (&"two".into(), &"AUTO".into(), &false.into()));
    assert_eq!(second["positions"][0]["offset"], 3);
    assert_eq!(topic["subscriptions"], json!([{"lag": 0, "state": "CAUGHT_UP", "consumer": "one"}]));
    let listed = server.get("/topics/news/consumers").await.expect(200);
    assert_eq!(listed["consumers"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&listed["consumers"][0]["name"], &listed["consumers"][0]["positions"][0]["offset"]),
        (&"one".into(), &2.into())
    );
}

#[tokio::test]
async fn bad_acknowledgements() {
    let server = TestServer::start();
    let cursor = server.publish("news", 1.into()).await["cursor"].as_str().unwrap().to_owned();
    let other = server.publish("other", 1.into()).await["cursor"].as_str().unwrap().to_owned();
    let query =
        "mutation($t: String!, $c: String!, $at: Cursor!) { acknowledge(topic: $t, consumer: $c, cursor: $at) }";
    let code = |t: &'static str, c: &'static str, at: String| {
        let server = &server;
        async move {
            server.graphql_error(query, json!({"t": t, "c": c, "at": at})).await["code"].as_str().unwrap().to_owned()
        }
    };
    assert_eq!(code("news", "nobody", cursor.clone()).await, "NOT_FOUND");
    let _ws = RawWs::with(&server, "news", Start::Live, &Options::consumer("c", "EXPLICIT")).await;
    assert_eq!(code("news", "c", other).await, "BAD_REQUEST");
    assert_eq!(code("news", "c", "junk".to_owned()).await, "BAD_REQUEST");
    assert_eq!(code("news", "", cursor.clone()).await, "BAD_REQUEST");
    assert_eq!(code("", "c", cursor.clone()).await, "INVALID_TOPIC");
    // An offset that the topic has not come to yet cannot have been processed: its messages would be lost silently.
    assert_eq!(code("news", "c", cursor_at(&cursor, 2)).await, "BAD_REQUEST");
    assert_eq!(code("news", "c", cursor_at(&cursor, 1 << 40)).await, "BAD_REQUEST");
}

#[tokio::test]
async fn unused_consumers_expire() {
    let _alone = alone().await;
    let server = TestServer::with(|config| config.broker.consumer_ttl = Duration::from_millis(200));
    server.create("news").await;
    let mut door = RawWs::with(&server, "news", Start::Live, &Options::consumer("c", "AUTO")).await;
    server.publish("news", 1.into()).await;
    door.messages(1).await;
    // In use it does not expire, however long that is.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(server.get("/topics/news/consumers").await.expect(200)["consumers"].as_array().unwrap().len(), 1);
    door.close().await;
    eventually("no consumer", || async {
        let listed = server.get("/topics/news/consumers").await.expect(200);
        (listed["consumers"] == json!([])).then_some(())
    })
    .await;
    let door = RawWs::with(&server, "news", Start::Live, &Options::consumer("c", "AUTO")).await;
    assert_eq!(door.consumer().unwrap()["resumed"], false);
}

#[tokio::test]
async fn a_restart_is_told_by_resumed() {
    let before = TestServer::start();
    before.publish("news", 1.into()).await;
    RawWs::with(&before, "news", Start::Last(1), &Options::consumer("c", "AUTO")).await.messages(1).await;
    drop(before);
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    let mut door = GraphqlWs::with(&server, "news", Start::Last(1), &Options::consumer("c", "AUTO")).await;
    door.messages(1).await;
    assert_eq!(door.consumer().unwrap()["resumed"], false);
}

/// A consumer's topic that is deleted and made again is another incarnation: the consumer is told.
#[tokio::test]
async fn a_consumer_outlives_no_topic() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=3).await;
    let mut door = Sse::with(&server, "news", Start::Last(3), &Options::consumer("c", "AUTO")).await;
    door.messages(3).await;
    server.delete("/topics/news").await.expect(200);
    assert_eq!(door.event().await, Event::Deleted("news".to_owned()));
    server.publish("news", 1.into()).await;
    let mut door = Sse::with(&server, "news", Start::Last(1), &Options::consumer("c", "AUTO")).await;
    door.messages(1).await;
    assert_eq!(door.consumer().unwrap()["resumed"], false);
}

/// A consumer of a pattern keeps a position in every topic, and finds those that were made while it was away.
async fn a_consumer_of_a_pattern<D: Door>() {
    let server = TestServer::start();
    server.create("orders.eu").await;
    server.create("orders.us").await;
    let mut door = D::with(&server, "orders.*", Start::Live, &EXPLICIT()).await;
    for number in 1..=3 {
        server.publish("orders.eu", number.into()).await;
        server.publish("orders.us", number.into()).await;
    }
    let eu: Vec<_> = door.messages(6).await.into_iter().filter(|message| message.topic == "orders.eu").collect();
    assert_eq!(numbers(&eu), [1, 2, 3]);
    acknowledge(&server, 0, "orders.*", &eu[1].cursor).await;
    drop(door);
    server.publish("orders.asia", 1.into()).await;
    let mut door = D::with(&server, "orders.*", Start::Live, &EXPLICIT()).await;
    let mut again: Vec<_> =
        door.messages(5).await.iter().map(|m| (m.topic.clone(), m.data.as_u64().unwrap())).collect();
    again.sort();
    let of = |topic: &str, number| (format!("orders.{topic}"), number);
    assert_eq!(again, [of("asia", 1), of("eu", 3), of("us", 1), of("us", 2), of("us", 3)]);
}

/// A tab's consumer may go after its own time, and where another one needs its room even earlier.
#[tokio::test]
async fn consumers_of_tabs_make_room() {
    let server = TestServer::with(|config| config.broker.max_consumers_per_topic = 2);
    server.create("news").await;
    let subscribe = |name: &str, ttl: Option<&str>| {
        let mut frame = json!({"type": "subscribe", "topic": "news", "consumer": name});
        if let Some(ttl) = ttl {
            frame["consumer_ttl"] = ttl.into();
        }
        frame
    };
    let mut user = RawWs::open(&server).await;
    assert_eq!(user.ask(subscribe("user", None)).await["type"], "ack");
    user.close().await;
    let mut tab = RawWs::open(&server).await;
    assert_eq!(tab.ask(subscribe("tab-1", Some("10m"))).await["type"], "ack");
    // Both are there to stay while one is connected and the other has not said that it may go.
    let mut next = RawWs::open(&server).await;
    assert_eq!(next.ask(subscribe("tab-2", Some("10m"))).await["error"]["code"], "LIMIT_REACHED");
    tab.close().await;
    server.wait_for_subscribers("news", 0).await;
    assert_eq!(next.ask(subscribe("tab-2", Some("10m"))).await["consumer"]["resumed"], false);
    let listed = server.get("/topics/news/consumers").await.expect(200);
    let names: Vec<_> =
        listed["consumers"].as_array().unwrap().iter().map(|consumer| consumer["name"].clone()).collect();
    assert_eq!(names, ["tab-2", "user"]);
    // Its own time, and what is no time.
    for bad in
        ["consumer=x&consumer_ttl=0s", "consumer=x&consumer_ttl=soon", "consumer=x&consumer_ttl=25h", "consumer_ttl=5s"]
    {
        let request = server.request(reqwest::Method::GET, &format!("/topics/news/messages?{bad}"));
        server.send(request.header("accept", "text/event-stream")).await.expect_error(400, "BAD_REQUEST");
    }
    let query = "subscription { messages(topic: \"news\", consumer: \"x\", consumerTtl: \"soon\") { offset } }";
    let mut graphql = GraphqlWs::open(&server).await;
    graphql.socket.send(json!({"id": "x", "type": "subscribe", "payload": {"query": query}}).to_string()).await;
    assert_eq!(graphql.socket.json().await["payload"][0]["extensions"]["code"], "BAD_REQUEST");
    next.unsubscribe("news").await;
    assert_eq!(next.ask(subscribe("tab-2", Some("200ms"))).await["consumer"]["resumed"], true);
    next.close().await;
    eventually("the tab is forgotten, the user is not", || async {
        let listed = server.get("/topics/news/consumers").await.expect(200);
        (listed["consumers"].as_array()?.len() == 1 && listed["consumers"][0]["name"] == "user").then_some(())
    })
    .await;
}
