//! "Is my subscription live?": what shows it at each door, and that live means behind the subscription's position in the
//! order of its topics.

use serde_json::{Value, json};

use crate::{
    doors::{Door, RawWs, Sse, Start, raw_ws::Socket, sse::EventStream},
    harness::{TestServer, encode},
};

every_pushing_door! {
    live_is_behind_what_was_answered,
    a_live_pattern_is_behind_what_was_answered,
}

async fn live<D: Door>(source: &str) {
    let server = TestServer::start();
    server.create("live.topic").await;
    for round in 0..100_u64 {
        server.publish("live.topic", (2 * round).into()).await;
        let mut door = D::to(&server, source, Start::Live).await;
        server.publish("live.topic", (2 * round + 1).into()).await;
        assert_eq!(door.event().await.message().data, 2 * round + 1, "published before the subscription was asked for");
    }
}

async fn live_is_behind_what_was_answered<D: Door>() {
    live::<D>("live.topic").await;
}

async fn a_live_pattern_is_behind_what_was_answered<D: Door>() {
    live::<D>("live.*").await;
}

async fn graphql(server: &TestServer) -> Socket {
    let mut socket = Socket::connect(server, "/graphql", Some("graphql-transport-ws")).await;
    socket.send(r#"{"type":"connection_init"}"#).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    socket
}

fn operation(id: &str, arguments: &str, extensions: Value) -> String {
    let query = format!("subscription {{ messages({arguments}) {{ data }} }}");
    json!({"id": id, "type": "subscribe", "payload": {"query": query, "extensions": extensions}}).to_string()
}

/// Who asks for it gets a `ping` with the position once the subscription stands, before anything that it delivers.
#[tokio::test]
async fn a_ping_acknowledges_a_subscription() {
    let server = TestServer::start();
    let cursor = server.publish("news", 1.into()).await["cursor"].clone();
    let mut socket = graphql(&server).await;
    socket.send(operation("1", r#"topic: "news""#, json!({"ack": "one \"quoted\""}))).await;
    assert_eq!(socket.json().await, json!({"type": "ping", "payload": {"ack": "one \"quoted\"", "cursor": cursor}}));
    // A quiet topic, a named consumer: whether it was known is told all the same.
    for resumed in [false, true] {
        let mut socket = graphql(&server).await;
        socket.send(operation("1", r#"topic: "news", consumer: "c", ack: EXPLICIT"#, json!({"ack": "a"}))).await;
        let consumer = json!({"name": "c", "resumed": resumed, "cursor": cursor});
        let payload = json!({"ack": "a", "cursor": cursor, "consumer": consumer});
        assert_eq!(socket.json().await, json!({"type": "ping", "payload": payload}));
    }
    // Whoever subscribes after that position gets the same: the replay comes behind the ping.
    let mut socket = graphql(&server).await;
    socket.send(operation("1", r#"topic: "news", last: 1"#, json!({"ack": "a"}))).await;
    let ping = socket.json().await;
    assert_eq!(ping["type"], "ping");
    assert_eq!(socket.json().await["payload"]["data"], json!({"messages": {"data": 1}}));
    let after = ping["payload"]["cursor"].as_str().unwrap();
    let mut again = RawWs::to(&server, "news", Start::After(after.to_owned())).await;
    assert_eq!(again.event().await.message().data, 1);
    // Of a pattern it is the position over all topics.
    let mut socket = graphql(&server).await;
    socket.send(operation("1", r#"topic: "*""#, json!({"ack": "a"}))).await;
    let position = socket.json().await["payload"]["cursor"].as_str().unwrap().to_owned();
    server.publish("other", 2.into()).await;
    assert_eq!(Sse::to(&server, "*", Start::After(position)).await.event().await.message().data, 2);
    // Who does not ask is not pinged; a refusal is an error and no ping.
    let mut socket = graphql(&server).await;
    socket.send(operation("1", r#"topic: "news", last: 1"#, Value::Null)).await;
    assert_eq!(socket.json().await["type"], "next");
    socket.send(operation("2", r#"topic: "new>""#, json!({"ack": "a"}))).await;
    assert_eq!(socket.json().await["type"], "error");
}

async fn stream(server: &TestServer, path: &str, header: &str) -> EventStream {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{header}\r\n");
    EventStream::open(server, &request).await.unwrap_or_else(|(head, body)| panic!("{head:?} {body}"))
}

/// The first comment of an event stream carries the position with which it begins.
#[tokio::test]
async fn the_first_comment_says_where_a_stream_begins() {
    let server = TestServer::start();
    let cursor = server.publish("news", 1.into()).await["cursor"].as_str().unwrap().to_owned();
    let query = encode("subscription { messages(topic: \"news\") { data } }");
    for path in ["/topics/news/messages".to_owned(), format!("/graphql?query={query}")] {
        let mut stream = stream(&server, &path, "").await;
        assert_eq!(stream.first_comment().await, format!("subscribed {cursor}"), "{path}");
    }
    let pattern = encode("subscription { messages(topic: \"*\") { data } }");
    let mut positions = Vec::new();
    for path in ["/topics/*/messages".to_owned(), format!("/graphql?query={pattern}")] {
        let mut stream = stream(&server, &path, "").await;
        let comment = stream.first_comment().await;
        positions.push(comment.strip_prefix("subscribed ").expect("a position").to_owned());
    }
    server.publish("other", 2.into()).await;
    for position in positions {
        assert_eq!(Sse::to(&server, "*", Start::After(position)).await.event().await.message().data, 2);
    }
}

/// Clients that cannot set headers send the position in the address, under one of three names.
#[tokio::test]
async fn a_position_in_the_address() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=5).await;
    let cursors = Sse::to(&server, "news", Start::Last(5)).await.messages(5).await;
    let positions = Sse::to(&server, "*", Start::Last(5)).await.messages(5).await;
    for name in ["lastEventId", "Last-Event-ID", "evs_last_event_id"] {
        for (topic, cursors) in [("news", &cursors), ("*", &positions)] {
            let path = format!("/topics/{topic}/messages?last=5&{name}={}", cursors[2].position());
            let sent = stream(&server, &path, "").await.next().await.unwrap();
            assert_eq!(sent.id.as_deref(), Some(cursors[3].position()), "{path}");
            let query = encode(&format!("subscription {{ messages(topic: \"{topic}\", last: 5) {{ data }} }}"));
            let path = format!("/graphql?query={query}&{name}={}", cursors[2].position());
            let sent = stream(&server, &path, "").await.next().await.unwrap();
            assert_eq!(sent.id.as_deref(), Some(cursors[3].position()), "{path}");
        }
        // The header is newer than the address; an empty one says nothing; one that is no position is refused.
        let path = format!("/topics/news/messages?{name}={}", cursors[1].cursor);
        let header = format!("Last-Event-ID: {}\r\n", cursors[3].cursor);
        assert_eq!(stream(&server, &path, &header).await.next().await.unwrap().id, Some(cursors[4].cursor.clone()));
        let sent = stream(&server, &format!("/topics/news/messages?last=1&{name}="), "").await.next().await.unwrap();
        assert_eq!(sent.id, Some(cursors[4].cursor.clone()));
        let response = server.send(
            server
                .request(reqwest::Method::GET, &format!("/topics/news/messages?{name}=junk"))
                .header("accept", "text/event-stream"),
        );
        response.await.expect_error(400, "BAD_REQUEST");
    }
}

/// Frames act in their order, also those of one packet: what was published before an `unsubscribe` is delivered before its
/// ack, and what is published behind it is not.
#[tokio::test]
async fn frames_of_one_packet_act_in_order() {
    let server = TestServer::start();
    for source in ["news", "*"] {
        for round in 0..50 {
            let mut socket = Socket::connect(&server, "/ws", None).await;
            for frame in [
                json!({"type": "publish", "topic": "news", "data": "before", "request_id": "p0"}),
                json!({"type": "subscribe", "topic": source, "request_id": "s"}),
                json!({"type": "publish", "topic": "news", "data": 1, "request_id": "p1"}),
                json!({"type": "publish", "topic": "news", "data": 2, "request_id": "p2"}),
                json!({"type": "unsubscribe", "topic": source, "request_id": "u"}),
                json!({"type": "publish", "topic": "news", "data": "behind", "request_id": "p3"}),
                json!({"type": "ping", "request_id": "end"}),
            ] {
                socket.feed(frame.to_string()).await;
            }
            socket.flush().await;
            let mut seen = Vec::new();
            loop {
                let frame = socket.json().await;
                let name = frame["request_id"].as_str().map_or_else(|| frame["data"].to_string(), str::to_owned);
                seen.push(name);
                if frame["request_id"] == "end" {
                    break;
                }
            }
            let index = |name: &str| {
                seen.iter().position(|seen| seen == name).unwrap_or_else(|| panic!("no {name} in {seen:?}"))
            };
            assert!(
                index("s") < index("1") && index("1") < index("2") && index("2") < index("u"),
                "round {round}: {seen:?}"
            );
            assert_eq!(seen.len(), 9, "round {round}: {seen:?}");
        }
    }
}
