//! Ids, positions and times: what a publisher may rely on when it repeats itself, and what a position says.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, Message, RawWs, Sse, Start, numbers},
    harness::{TestServer, eventually, offsets_are_dense},
};

every_door! {
    since_counts_only_what_came_later,
    since_beyond_memory_is_exact_or_unknown,
    state_then_live,
}

/// Publishes the same id in every way there is; each response has the position and whether it is a duplicate.
async fn publish_everywhere(server: &TestServer, topic: &str, id: &str) -> Vec<(String, bool)> {
    let position =
        |told: &Value| (told["cursor"].as_str().unwrap().to_owned(), told["duplicate"].as_bool().unwrap_or(false));
    let one = json!({"topic": topic, "data": 1, "id": id});
    let enclosed = json!({"topic": topic, "message": {"id": id, "payload": 1}});
    let mut positions = vec![
        position(&server.post("/publish", &one).await.expect(200)),
        position(&server.post("/publish", &enclosed).await.expect(200)),
    ];
    let batch = server.post("/publish", &json!([one, one])).await.expect(200);
    positions.extend(batch["results"].as_array().unwrap().iter().map(position));
    let mut frame = one.clone();
    frame["type"] = "publish".into();
    positions.push(position(&RawWs::open(server).await.ask(frame).await));
    let variables = json!({"topic": topic, "id": id});
    let single =
        "mutation ($topic: String!, $id: ID!) { publish(topic: $topic, data: 1, messageId: $id) { cursor duplicate } }";
    positions.push(position(&server.graphql(single, variables.clone()).await["publish"]));
    let many = "mutation ($topic: String!, $id: ID!) { publishMany(messages: [{topic: $topic, data: 1, messageId: $id}]) { \
        publication { cursor duplicate } } }";
    positions.push(position(&server.graphql(many, variables).await["publishMany"][0]["publication"]));
    positions
}

/// However short the history, a repeated id is stored once, and the response has the first one's position, at every door.
#[tokio::test]
async fn an_id_outlives_its_message() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 3);
    let positions = publish_everywhere(&server, "news", "a").await;
    assert!(
        !positions[0].1 && positions[1..].iter().all(|(cursor, duplicate)| *duplicate && *cursor == positions[0].0),
        "{positions:?}"
    );
    server.publish_numbers("news", 2..=50).await;
    for (cursor, duplicate) in publish_everywhere(&server, "news", "a").await {
        assert_eq!((cursor.as_str(), duplicate), (positions[0].0.as_str(), true));
    }
    assert_eq!(server.get("/topics/news/messages?last=1").await.expect(200)["messages"][0]["data"], 50);
    // In another topic it is another id; in another incarnation of the topic, too.
    assert!(!publish_everywhere(&server, "other", "a").await[0].1);
    server.delete("/topics/news").await.expect(200);
    let again = publish_everywhere(&server, "news", "a").await;
    assert!(!again[0].1 && again[0].0 != positions[0].0);
}

/// The window is what the setting says: behind it, an id whose message is gone is new. (NATS has a least window of its own, and
/// a test of its own for it.)
#[tokio::test]
async fn the_window_ends() {
    let _alone = crate::harness::alone().await;
    if !offsets_are_dense() {
        return;
    }
    let server = TestServer::with(|config| {
        config.broker.max_messages_per_topic = 2;
        config.broker.dedup_window = Duration::from_millis(300);
    });
    let with_id = |id: &str| json!({"topic": "news", "data": 1, "id": id});
    server.post("/publish", &with_id("a")).await.expect(200);
    let kept = server.post("/publish", &with_id("kept")).await.expect(200);
    // This one's message pushes the first one's out.
    server.publish("news", 0.into()).await;
    eventually("the window's end", || async {
        let told = server.post("/publish", &with_id("a")).await.expect(200);
        if told["duplicate"] == true {
            return None;
        }
        // As long as its message is kept, an id is known, however old: this one has left the history just now.
        Some(())
    })
    .await;
    let newest = server.post("/publish", &with_id("a")).await.expect(200);
    assert_eq!(newest["duplicate"], true, "its new message is kept");
    assert!(kept["cursor"].as_str() < newest["cursor"].as_str());
}

/// Cursors sort as text in the order of their offsets, and an address takes them as they are.
#[tokio::test]
async fn cursors_sort_as_text() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=300).await;
    let mut door = Sse::to(&server, "news", Start::Last(300)).await;
    let messages = door.messages(300).await;
    let through = Sse::to(&server, "*", Start::Last(300)).await.messages(300).await;
    for texts in [
        messages.iter().map(|message| message.cursor.as_str()).collect::<Vec<_>>(),
        through.iter().map(Message::position).collect(),
    ] {
        assert!(texts.is_sorted_by(|a, b| a < b) || !offsets_are_dense(), "{texts:?}");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        assert!(texts.iter().all(|text| text.bytes().all(plain)), "{texts:?}");
    }
}

/// A time in the midst of what is gone: only what was published from then on counts.
async fn since_counts_only_what_came_later<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 5);
    server.publish_numbers("news", 1..=8).await;
    let at = async |number: u64| {
        server.publish("news", number.into()).await;
        server.get("/topics/news").await.expect(200)["last_message_at"].as_str().unwrap().to_owned()
    };
    let before = at(9).await;
    // The clock has to move on, or the times are the same.
    let mut count = 9;
    let middle = loop {
        count += 1;
        let now = at(count).await;
        if now > before {
            break now;
        }
    };
    let first = count;
    server.publish_numbers("news", count + 1..=count + 20).await;
    let mut door = D::to(&server, "news", Start::Since(middle.clone())).await;
    let gap = door.event().await.gap();
    assert_eq!((gap.missed, gap.reason.as_str()), (Some(16), "EXPIRED"), "{gap:?}");
    if offsets_are_dense() {
        assert_eq!((gap.from_offset, gap.to_offset), (first, count + 15));
    }
    assert_eq!(numbers(&door.messages(5).await), (count + 16..=count + 20).collect::<Vec<_>>());
    // What is still kept since then needs no gap.
    let kept = server.get("/topics/news/messages?last=1").await.expect(200)["messages"][0]["ts"].clone();
    let mut door = D::to(&server, "news", Start::Since(kept.as_str().unwrap().to_owned())).await;
    match door.event().await {
        Event::Message(message) => assert!(message.offset > gap.to_offset),
        // All of the last messages may be of the same millisecond.
        Event::Gap(gap) => assert!(gap.missed.is_some_and(|missed| missed <= 16), "{gap:?}"),
        other => panic!("{other:?}"),
    }
}

/// More is gone than anybody remembers: the number is right, or said to be unknown.
async fn since_beyond_memory_is_exact_or_unknown<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 5);
    server.publish_numbers("news", 1..=8).await;
    let before = server.get("/topics/news").await.expect(200)["last_message_at"].as_str().unwrap().to_owned();
    let mut count = 8;
    let middle = loop {
        count += 1;
        server.publish("news", count.into()).await;
        let now = server.get("/topics/news").await.expect(200)["last_message_at"].as_str().unwrap().to_owned();
        if now > before {
            break now;
        }
    };
    let last = count + 2_000;
    server.publish_numbers("news", count + 1..=last).await;
    let mut door = D::to(&server, "news", Start::Since(middle)).await;
    let gap = door.event().await.gap();
    assert!(gap.missed.is_none_or(|missed| missed == last - 5 - count + 1), "{gap:?}");
    assert_eq!(numbers(&door.messages(5).await), (last - 4..=last).collect::<Vec<_>>());
    // Since before the topic, all that is gone was missed, and that is known.
    let mut door = D::to(&server, "news", Start::Since("2001-01-01T00:00:00Z".to_owned())).await;
    let gap = door.event().await.gap();
    // A shared log may have had others before.
    assert_eq!(gap.missed.or((!offsets_are_dense()).then_some(last - 5)), Some(last - 5), "{gap:?}");
}

/// `previous` is the cursor of the message before, kept or not, the same for everybody.
#[tokio::test]
async fn previous_leads_from_message_to_message() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 4);
    let mut cursors = Vec::new();
    for number in 1..=4 {
        cursors.push(server.publish("news", number.into()).await["cursor"].as_str().unwrap().to_owned());
    }
    let ask = |arguments: &str| format!("{{ messages({arguments}) {{ data cursor previous }} }}");
    let read = async |arguments: &str, count: usize| -> Vec<Value> {
        let query = format!("subscription {}", ask(arguments));
        let mut socket = crate::doors::raw_ws::Socket::connect(&server, "/graphql", Some("graphql-transport-ws")).await;
        socket.send(r#"{"type":"connection_init"}"#).await;
        socket.send(json!({"id": "1", "type": "subscribe", "payload": {"query": query}}).to_string()).await;
        assert_eq!(socket.json().await["type"], "connection_ack");
        let mut seen = Vec::new();
        for _ in 0..count {
            seen.push(socket.json().await["payload"]["data"]["messages"].take());
        }
        seen
    };
    let check = |seen: &[Value], cursors: &[String]| {
        for message in seen {
            let index = cursors.iter().position(|cursor| message["cursor"] == cursor.as_str()).unwrap();
            let before = index.checked_sub(1).map_or(Value::Null, |before| cursors[before].clone().into());
            assert_eq!(message["previous"], before, "{message}");
        }
    };
    check(&read(r#"topic: "news", last: 4"#, 4).await, &cursors);
    for number in 5..=9 {
        cursors.push(server.publish("news", number.into()).await["cursor"].as_str().unwrap().to_owned());
    }
    // The oldest kept one follows one that is gone; through a pattern and on pages it is the same.
    let (own, pattern) = (read(r#"topic: "news", last: 4"#, 4).await, read(r#"topic: "*", last: 4"#, 4).await);
    check(&own, &cursors);
    assert_eq!(own, pattern);
    assert_eq!(own, read(&format!(r#"topic: "news", after: "{}""#, cursors[0]), 4).await);
    let query = format!(
        "{{ topic(name: \"news\") {} }}",
        ask("first: 10").replace("data cursor previous", "nodes { data cursor previous }")
    );
    assert_eq!(server.graphql(&query, Value::Null).await["topic"]["messages"]["nodes"], Value::from(own));
    // With a filter there is no such chain.
    server.publish("news", json!({"n": 1})).await;
    let filtered = read(r#"topic: "news", last: 4, filter: {field: "n", eq: 1}"#, 1).await;
    assert_eq!((&filtered[0]["data"], &filtered[0]["previous"]), (&json!({"n": 1}), &Value::Null));
}

/// Read state, then subscribe from exactly there: what comes in between is neither lost nor doubled.
async fn state_then_live<D: Door>() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=10).await;
    let query = "{ topic(name: \"news\") { cursor messages(last: 3) { nodes { data } pageInfo { endCursor } } } }";
    let topic = server.graphql(query, Value::Null).await["topic"].take();
    assert_eq!(topic["messages"]["nodes"], json!([{"data": 8}, {"data": 9}, {"data": 10}]));
    assert_eq!(topic["messages"]["pageInfo"]["endCursor"], topic["cursor"]);
    server.publish_numbers("news", 11..=12).await;
    let mut door = D::to(&server, "news", Start::After(topic["cursor"].as_str().unwrap().to_owned())).await;
    server.publish_numbers("news", 13..=14).await;
    assert_eq!(numbers(&door.messages(4).await), [11, 12, 13, 14]);
}

/// Memory for ids is bounded: the oldest are forgotten first, and a metric says so. (With NATS the ids are its servers'.)
#[tokio::test]
async fn the_bound_on_ids_is_told() {
    if !offsets_are_dense() {
        return;
    }
    let server = TestServer::with(|config| {
        config.broker.max_messages_per_topic = 1;
        config.broker.dedup_bytes = 40_000;
    });
    let batch: Vec<_> =
        (0..500).map(|number| json!({"topic": "news", "data": 1, "id": format!("id-{number}")})).collect();
    server.post("/publish", &Value::from(batch)).await.expect(200);
    let with_id = |id: &str| json!({"topic": "news", "data": 1, "id": id});
    for (id, known) in [("id-490", true), ("id-450", true), ("id-0", false)] {
        let told = server.post("/publish", &with_id(id)).await.expect(200);
        assert_eq!(told["duplicate"], known, "{id}");
    }
    let metrics = server.get("/metrics").await.text;
    let line = metrics.lines().find(|line| line.starts_with("pubsub_dedup_forgotten_early_total")).expect("the metric");
    assert!(line.split_whitespace().last().unwrap().parse::<f64>().unwrap() >= 200.0, "{line}");
}
