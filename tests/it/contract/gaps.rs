//! A gap is part of the stream: no position passes one that was not told, and what was not acknowledged comes again, gap included.

use serde_json::{Value, json};

use crate::{
    doors::{
        Door, Endpoint, Event, Gap, GraphqlSse, Options, RawWs, Sse, Start, numbers, raw_ws::Socket, sse::EventStream,
    },
    harness::{Client, TestServer, encode, eventually},
};

every_pushing_door! {
    a_filter_that_passes_nothing_hides_no_gap,
    a_gap_comes_again_until_it_is_acknowledged,
    acknowledging_what_is_behind_a_gap_covers_it,
    a_first_subscription_that_was_cut_unread_forgets_no_gap,
    a_pattern_tells_of_a_topic_that_was_made_meanwhile,
    a_pattern_tells_of_a_topic_that_was_made_again_until_it_is_acknowledged,
    a_pattern_tells_of_a_topic_that_is_gone,
    a_gap_in_the_midst_of_a_filtered_stream,
}

every_socket_door! {
    auto_tells_a_gap_again_that_was_not_acknowledged,
    auto_tells_of_a_patterns_topics_again_that_were_not_acknowledged,
    a_close_handshake_acknowledges_nothing,
    ending_the_subscription_acknowledges_nothing,
    an_acknowledged_gap_is_told_once,
}

const TAB: &str = "tab";

fn explicit() -> Options {
    Options::consumer(TAB, "EXPLICIT")
}

fn auto() -> Options {
    Options::consumer(TAB, "AUTO")
}

/// A filter that nothing passes.
fn nothing() -> Value {
    json!({"field": "no.such.field", "exists": true})
}

fn small() -> TestServer {
    TestServer::with(|config| config.broker.max_messages_per_topic = 5)
}

/// Publishes so many numbers and says where the first one was.
async fn first_of(server: &TestServer, topic: &str, count: u64) -> String {
    let cursor = server.publish(topic, 1.into()).await["cursor"].as_str().unwrap().to_owned();
    server.publish_numbers(topic, 2..=count).await;
    cursor
}

async fn acknowledge(client: &Client, topic: &str, cursor: &str) {
    let path = format!("/topics/{}/consumers/{TAB}/ack", encode(topic));
    client.post(&path, &json!({"cursor": cursor})).await.expect(200);
}

/// Where the consumer stands in its topic.
async fn position(client: &Client, topic: &str) -> String {
    let listed = client.get(&format!("/topics/{topic}/consumers")).await.expect(200);
    listed["consumers"][0]["positions"][0]["cursor"].as_str().unwrap().to_owned()
}

fn what(gap: &Gap) -> (u64, u64, Option<u64>, &str) {
    (gap.from_offset, gap.to_offset, gap.missed, gap.reason.as_str())
}

async fn a_filter_that_passes_nothing_hides_no_gap<D: Door>() {
    let server = small();
    let cursor = first_of(&server, "news", 20).await;
    let mut door = D::with(&server, "news", Start::After(cursor), &Options::filter(nothing())).await;
    assert_eq!(what(&door.event().await.gap()), (2, 15, Some(14), "EXPIRED"));
    // One that comes later is told as well, without a message that passes.
    let end = server.publish("news", 21.into()).await["cursor"].as_str().unwrap().to_owned();
    server.publish_numbers("news", 22..=40).await;
    let mut door = D::with(&server, "news", Start::After(end), &Options::filter(nothing())).await;
    assert_eq!(what(&door.event().await.gap()), (22, 35, Some(14), "EXPIRED"));
    door.assert_open().await;
}

async fn a_gap_comes_again_until_it_is_acknowledged<D: Door>() {
    let server = small();
    let cursor = first_of(&server, "news", 1).await;
    drop(D::with(&server, "news", Start::After(cursor.clone()), &explicit()).await);
    server.publish_numbers("news", 2..=20).await;
    for options in [explicit(), Options { filter: Some(nothing()), ..explicit() }, explicit()] {
        let mut door = D::with(&server, "news", Start::Live, &options).await;
        assert_eq!(what(&door.event().await.gap()), (2, 15, Some(14), "EXPIRED"));
        assert_eq!(position(&server, "news").await, cursor, "nothing was acknowledged");
    }
    // More is gone by now: so much more is told.
    server.publish_numbers("news", 21..=22).await;
    let mut door = D::with(&server, "news", Start::Live, &explicit()).await;
    assert_eq!(what(&door.event().await.gap()), (2, 17, Some(16), "EXPIRED"));
    assert_eq!(door.consumer().unwrap()["cursor"], cursor.as_str());
}

async fn acknowledging_what_is_behind_a_gap_covers_it<D: Door>() {
    let server = small();
    let cursor = first_of(&server, "news", 20).await;
    let mut door = D::with(&server, "news", Start::After(cursor), &explicit()).await;
    assert_eq!(what(&door.event().await.gap()), (2, 15, Some(14), "EXPIRED"));
    let messages = door.messages(5).await;
    acknowledge(&server, "news", &messages[0].cursor).await;
    drop(door);
    let mut door = D::with(&server, "news", Start::Live, &explicit()).await;
    assert_eq!(numbers(&door.messages(4).await), [17, 18, 19, 20]);
    // Where no message follows that passes the filter, the topic's end covers it.
    server.publish_numbers("news", 21..=40).await;
    let filtered = Options { filter: Some(nothing()), ..explicit() };
    let mut door = D::with(&server, "news", Start::Live, &filtered).await;
    assert_eq!(what(&door.event().await.gap()), (17, 35, Some(19), "EXPIRED"));
    let end = server.graphql("{ topic(name: \"news\") { cursor } }", Value::Null).await["topic"]["cursor"].take();
    acknowledge(&server, "news", end.as_str().unwrap()).await;
    drop(door);
    let mut door = D::with(&server, "news", Start::Live, &explicit()).await;
    server.publish("news", 41.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [41]);
}

async fn a_first_subscription_that_was_cut_unread_forgets_no_gap<D: Door>() {
    let server = small();
    let cursor = first_of(&server, "news", 20).await;
    // Nothing of it is read.
    drop(D::with(&server, "news", Start::After(cursor.clone()), &explicit()).await);
    let mut door = D::with(&server, "news", Start::After(cursor), &explicit()).await;
    assert_eq!(what(&door.event().await.gap()), (2, 15, Some(14), "EXPIRED"));
    assert_eq!(numbers(&door.messages(1).await), [16]);
    assert_eq!(door.consumer().unwrap()["resumed"], true);
}

/// The gap or the messages of one topic, whatever other topics say in between.
async fn next_gap<D: Door>(door: &mut D) -> Gap {
    loop {
        if let Event::Gap(gap) = door.event().await {
            return gap;
        }
    }
}

async fn a_pattern_tells_of_a_topic_that_was_made_meanwhile<D: Door>() {
    let server = small();
    server.create("orders.eu").await;
    drop(D::with(&server, "orders.*", Start::Live, &explicit()).await);
    server.publish_numbers("orders.us", 1..=12).await;
    for _ in 0..2 {
        let mut door = D::with(&server, "orders.*", Start::Live, &explicit()).await;
        let gap = next_gap(&mut door).await;
        assert_eq!((what(&gap), gap.topic.as_deref()), ((1, 7, Some(7), "EXPIRED"), Some("orders.us")));
        assert_eq!(numbers(&door.messages(5).await), [8, 9, 10, 11, 12]);
    }
}

async fn a_pattern_tells_of_a_topic_that_was_made_again_until_it_is_acknowledged<D: Door>() {
    let server = small();
    let mut door = D::with(&server, "orders.*", Start::Live, &explicit()).await;
    server.publish_numbers("orders.eu", 1..=3).await;
    let first = door.messages(3).await;
    acknowledge(&server, "orders.*", &first[0].cursor).await;
    drop(door);
    server.delete("/topics/orders.eu").await.expect(200);
    server.publish_numbers("orders.eu", 1..=2).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut door = D::with(&server, "orders.*", Start::Live, &explicit()).await;
        let gap = next_gap(&mut door).await;
        assert_eq!((what(&gap), gap.topic.as_deref()), ((1, 0, Some(0), "NEW_EPOCH"), Some("orders.eu")));
        // Nothing else is read, or all of it: what counts is what was acknowledged.
        if seen.is_empty() {
            seen = door.messages(2).await;
        }
    }
    acknowledge(&server, "orders.*", &seen[0].cursor).await;
    let mut door = D::with(&server, "orders.*", Start::Live, &explicit()).await;
    assert_eq!(door.event().await.message(), seen[1]);
}

async fn a_pattern_tells_of_a_topic_that_is_gone<D: Door>() {
    let server = small();
    let mut door = D::with(&server, "orders.*", Start::Live, &explicit()).await;
    server.publish_numbers("orders.eu", 1..=3).await;
    let first = door.messages(3).await;
    acknowledge(&server, "orders.*", &first[1].cursor).await;
    drop(door);
    // The third message goes unacknowledged with its topic.
    server.delete("/topics/orders.eu").await.expect(200);
    let mut door = D::with(&server, "orders.*", Start::Live, &explicit()).await;
    assert_eq!(door.event().await, Event::Deleted("orders.eu".to_owned()));
    server.publish("orders.us", 7.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [7]);
}

/// The server reads through a long stretch that does not match; the history moves on meanwhile.
async fn a_gap_in_the_midst_of_a_filtered_stream<D: Door>() {
    let server = small();
    let options = Options::filter(json!({"field": "n", "gte": 1_000}));
    let mut door = D::with(&server, "news", Start::Live, &options).await;
    for number in 0..30 {
        server.publish("news", json!({"n": number})).await;
    }
    server.publish("news", json!({"n": 1_000})).await;
    // Live, it has looked at each of them in time, or says which it could not.
    let mut told = Vec::new();
    let message = loop {
        match door.event().await {
            Event::Message(message) => break message,
            other => told.push(other.gap()),
        }
    };
    assert_eq!(message.offset, 31);
    assert!(told.iter().all(|gap| gap.reason == "SLOW_CONSUMER" && gap.to_offset < 31), "{told:?}");
}

async fn auto_tells_a_gap_again_that_was_not_acknowledged<D: Door>() {
    let server = small();
    let cursor = first_of(&server, "news", 1).await;
    let options = Options { filter: Some(nothing()), ..auto() };
    drop(D::with(&server, "news", Start::After(cursor.clone()), &options).await);
    server.publish_numbers("news", 2..=20).await;
    // A client that never sends a pong reads the gap and is cut, again and again.
    for _ in 0..3 {
        let mut raw = WithoutPongs::open::<D>(&server, "news", &nothing()).await;
        let told = raw.gap().await;
        assert_eq!((&told["missed"], &told["reason"]), (&14.into(), &"EXPIRED".into()), "{told}");
        assert_eq!(position(&server, "news").await, cursor);
    }
}

async fn auto_tells_of_a_patterns_topics_again_that_were_not_acknowledged<D: Door>() {
    let server = small();
    server.publish_numbers("orders.eu", 1..=3).await;
    server.create("orders.us").await;
    // It stands in both topics, and has read all of the first one.
    drop(D::with(&server, "orders.*", Start::Live, &auto()).await);
    server.publish_numbers("orders.us", 1..=12).await;
    server.publish("orders.eu", 4.into()).await;
    server.delete("/topics/orders.eu").await.expect(200);
    server.publish_numbers("orders.eu", 1..=7).await;
    for _ in 0..3 {
        let mut raw = WithoutPongs::open::<D>(&server, "orders.*", &nothing()).await;
        let mut told = [raw.gap().await, raw.gap().await]
            .map(|gap| (gap["topic"].to_string(), gap["missed"].clone(), gap["reason"].to_string()));
        told.sort_by(|one, other| one.0.cmp(&other.0));
        let wanted =
            |topic: &str, missed: u64, reason: &str| (format!("{topic:?}"), missed.into(), format!("{reason:?}"));
        assert_eq!(told, [wanted("orders.eu", 2, "NEW_EPOCH"), wanted("orders.us", 7, "EXPIRED")]);
    }
}

async fn an_acknowledged_gap_is_told_once<D: Door>() {
    let server = small();
    let cursor = first_of(&server, "news", 20).await;
    let options = Options { filter: Some(nothing()), ..auto() };
    let mut door = D::with(&server, "news", Start::After(cursor.clone()), &options).await;
    assert_eq!(what(&door.event().await.gap()), (2, 15, Some(14), "EXPIRED"));
    let door = tokio::sync::Mutex::new(door);
    eventually("a position behind the gap", || async {
        // Reading on sends the pong to the server's ping.
        door.lock().await.assert_open().await;
        (position(&server, "news").await != cursor).then_some(())
    })
    .await;
    drop(door);
    let mut door = D::with(&server, "news", Start::Live, &auto()).await;
    server.publish("news", 21.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [21], "the gap was acknowledged, and so was what did not match");
}

/// Reads some of what was sent, and leaves in good order: what was in flight comes again.
async fn in_flight<D: Door>(leave: impl AsyncFn(D)) {
    let server = TestServer::start();
    server.create("news").await;
    let mut next = 1;
    let mut published = 0;
    for _ in 0..5 {
        let mut door = D::with(&server, "news", Start::Live, &auto()).await;
        server.publish_numbers("news", published + 1..=published + 10).await;
        published += 10;
        let mut messages = door.messages(5).await;
        // What came over the wire while the door waited for something else was received, too.
        messages.extend(door.received().into_iter().map(Event::message));
        let mut read = numbers(&messages);
        assert!(read[0] <= next, "from {next} to {} is lost", read[0]);
        assert!(read.is_sorted_by(|a, b| a + 1 == *b), "{read:?}");
        next = next.max(read.pop().unwrap() + 1);
        leave(door).await;
        server.wait_for_subscribers("news", 0).await;
    }
    let mut door = D::with(&server, "news", Start::Live, &auto()).await;
    let first = door.event().await.message().offset;
    assert!(first <= next, "from {next} to {first} is lost");
    let rest = door.messages((published - first) as usize).await;
    assert_eq!(rest.last().unwrap().offset, published);
}

async fn a_close_handshake_acknowledges_nothing<D: Door>() {
    in_flight::<D>(async |door: D| door.close().await).await;
}

async fn ending_the_subscription_acknowledges_nothing<D: Door>() {
    in_flight::<D>(async |mut door: D| {
        door.unsubscribe("news").await;
        door.assert_open().await;
    })
    .await;
}

/// A WebSocket whose client sends no pong: its bytes are read as they come.
struct WithoutPongs {
    raw: crate::raw::Raw,
}

impl WithoutPongs {
    async fn open<D: Door>(server: &TestServer, topic: &str, filter: &Value) -> Self {
        let Endpoint { path, protocol } = D::SOCKET.expect("a WebSocket");
        let mut raw = crate::raw::Raw::websocket(server.addr, path, protocol).await;
        if let Some(protocol) = protocol {
            let kind = if protocol == "graphql-ws" { "start" } else { "subscribe" };
            let query = "subscription ($filter: Filter) { messages(topic: \"T\", filter: $filter, consumer: \"tab\") { offset } }";
            let payload = json!({"query": query.replace('T', topic), "variables": {"filter": filter}});
            raw.text(r#"{"type":"connection_init"}"#).await;
            raw.text(&json!({"id": "1", "type": kind, "payload": payload}).to_string()).await;
        } else {
            let frame = json!({"type": "subscribe", "topic": topic, "filter": filter, "consumer": TAB, "ack": "AUTO"});
            raw.text(&frame.to_string()).await;
        }
        Self { raw }
    }

    /// The next gap; anything but that and replies is an error.
    async fn gap(&mut self) -> Value {
        loop {
            let (first, payload) = self.raw.next_frame().await.expect("a frame");
            if first & 0x0f != 1 {
                continue;
            }
            let mut frame: Value = serde_json::from_slice(&payload).unwrap();
            match frame["type"].as_str().unwrap() {
                "ack" | "connection_ack" | "ka" => {}
                "gap" => return frame,
                "next" | "data" => return frame["payload"]["extensions"]["gap"].take(),
                other => panic!("{other}: {frame}"),
            }
        }
    }
}

/// What stands where a message would: valid for `Message`, so that clients that check results take it.
fn assert_gap_alone(result: &Value, name: &str, missed: u64) {
    assert_eq!(result["data"], json!({name: null}), "{result}");
    assert!(result.get("errors").is_none(), "{result}");
    assert_eq!(result["extensions"]["gap"]["missed"], missed, "{result}");
}

/// Every form of a GraphQL subscription says a gap without a message in the same way.
#[tokio::test]
async fn graphql_results_without_a_message_are_valid() {
    let server = small();
    let cursor = first_of(&server, "news", 20).await;
    let query = format!(
        "subscription {{ mine: messages(topic: \"news\", after: \"{cursor}\", consumer: \"C\", \
         filter: {{field: \"x\", exists: true}}) {{ offset gap {{ missed }} }} }}"
    );
    for protocol in ["graphql-transport-ws", "graphql-ws"] {
        let mut socket = Socket::connect(&server, "/graphql", Some(protocol)).await;
        socket.send(r#"{"type":"connection_init"}"#).await;
        let kind = if protocol == "graphql-ws" { "start" } else { "subscribe" };
        let query = query.replace("\"C\"", &format!("\"{protocol}\""));
        socket.send(json!({"id": "1", "type": kind, "payload": {"query": query}}).to_string()).await;
        let result = loop {
            let frame = socket.json().await;
            if frame["id"] == "1" {
                break frame["payload"].clone();
            }
        };
        assert_gap_alone(&result, "mine", 14);
        assert_eq!(result["extensions"]["consumer"]["resumed"], false, "the first result says it, whatever it is");
    }
    let body = json!({"query": query}).to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let Ok(mut stream) = EventStream::open(&server, &request).await else { panic!("refused") };
    let sent = stream.next().await.unwrap();
    assert_eq!((sent.event.as_str(), sent.id), ("next", None), "a gap alone moves no position");
    assert_gap_alone(&serde_json::from_str(&sent.data).unwrap(), "mine", 14);
    // At the end of a stream the gap stands before the error.
    server.delete("/topics/news").await.expect(200);
    let end: Value = serde_json::from_str(&stream.next().await.unwrap().data).unwrap();
    assert_eq!((&end["data"], &end["errors"][0]["extensions"]["code"]), (&Value::Null, &"TOPIC_DELETED".into()));
    assert_eq!(stream.next().await.unwrap().event, "complete");
}

/// A pattern that resumes says of a topic that is gone with unread messages, in a result of its own.
#[tokio::test]
async fn graphql_tells_of_deleted_topics_in_a_result() {
    let server = TestServer::start();
    let mut door = GraphqlSse::to(&server, "orders.*", Start::Live).await;
    server.publish("orders.eu", 1.into()).await;
    let position = door.event().await.message().position().to_owned();
    server.publish("orders.eu", 2.into()).await;
    server.delete("/topics/orders.eu").await.expect(200);
    let mut socket = Socket::connect(&server, "/graphql", Some("graphql-transport-ws")).await;
    socket.send(r#"{"type":"connection_init"}"#).await;
    let query = format!("subscription {{ messages(topic: \"orders.*\", after: \"{position}\") {{ offset }} }}");
    socket.send(json!({"id": "1", "type": "subscribe", "payload": {"query": query}}).to_string()).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    let result = socket.json().await["payload"].take();
    assert_eq!(result, json!({"data": {"messages": null}, "extensions": {"deleted": {"topic": "orders.eu"}}}),);
}

/// A gap that an event stream tells has no `id:`, so a client that comes back is told again until it saw a message behind it.
#[tokio::test]
async fn event_streams_tell_a_gap_again() {
    let server = small();
    let cursor = first_of(&server, "news", 20).await;
    for _ in 0..2 {
        let mut door = Sse::with(&server, "news", Start::After(cursor.clone()), &Options::filter(nothing())).await;
        assert_eq!(what(&door.event().await.gap()), (2, 15, Some(14), "EXPIRED"));
    }
    let mut ws = RawWs::with(&server, "news", Start::After(cursor), &Options::filter(nothing())).await;
    assert_eq!(what(&ws.event().await.gap()), (2, 15, Some(14), "EXPIRED"));
}
