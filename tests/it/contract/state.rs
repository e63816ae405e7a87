//! A subscription that begins with the state: the newest message of each key, then a marker, then live.

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, GraphqlWs, Options, RawWs, Sse, Start, numbers, sse::EventStream},
    harness::{Client, TestServer, encode, offsets_are_dense},
};

every_pushing_door! {
    the_newest_of_each_key_then_live,
    an_empty_state_is_complete_at_once,
    a_pattern_has_one_marker,
    a_filter_looks_at_the_newest,
    a_new_consumer_begins_with_it_and_a_known_one_goes_on,
    removed_keys_are_not_in_it,
    a_large_state_comes_whole,
    values_that_change_meanwhile_come_in_their_newest_form,
}

/// Publishes with a key, if it is not empty; returns the cursor.
async fn put(client: &Client, topic: &str, key: &str, data: u64) -> String {
    let key = Some(key).filter(|key| !key.is_empty());
    let body = json!({"topic": topic, "data": data, "key": key});
    client.post("/publish", &body).await.expect(200)["cursor"].as_str().unwrap().to_owned()
}

async fn put_all(client: &Client, topic: &str, values: &[(&str, u64)]) -> String {
    let mut newest = String::new();
    for (key, data) in values {
        newest = put(client, topic, key, *data).await;
    }
    newest
}

/// The messages of a state, and its cursor.
async fn state<D: Door>(door: &mut D) -> (Vec<u64>, String) {
    let mut messages = Vec::new();
    loop {
        match door.event().await {
            Event::Message(message) => messages.push(message),
            Event::State(cursor) => return (numbers(&messages), cursor),
            other => panic!("{other:?} after {messages:?}"),
        }
    }
}

async fn the_newest_of_each_key_then_live<D: Door>() {
    let server = TestServer::start();
    let mut newest = put_all(&server, "news", &[("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5), ("", 6)]).await;
    // The second one is compiled, where operations are.
    for wanted in [[3, 4, 5], [4, 5, 9]] {
        let mut door = D::to(&server, "news", Start::State).await;
        let (values, cursor) = state(&mut door).await;
        assert_eq!(values, wanted);
        // What has no key is before the marker, too.
        assert_eq!(cursor, newest);
        let mut later = D::to(&server, "news", Start::After(cursor)).await;
        newest = put_all(&server, "news", &[("a", 7), ("", 8), ("a", 9)]).await;
        assert_eq!(numbers(&door.messages(3).await), [7, 8, 9]);
        assert_eq!(numbers(&later.messages(3).await), [7, 8, 9]);
    }
}

async fn an_empty_state_is_complete_at_once<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::State).await;
    let (values, cursor) = state(&mut door).await;
    assert_eq!(values, [0_u64; 0]);
    put(&server, "news", "a", 1).await;
    put(&server, "news", "a", 2).await;
    assert_eq!(numbers(&door.messages(2).await), [1, 2]);
    let mut after = D::to(&server, "news", Start::After(cursor)).await;
    assert_eq!(numbers(&after.messages(2).await), [1, 2]);
}

async fn a_pattern_has_one_marker<D: Door>() {
    let server = TestServer::start();
    put_all(&server, "p.1", &[("a", 1), ("b", 2), ("a", 3)]).await;
    put_all(&server, "p.2", &[("a", 4), ("a", 5), ("", 6)]).await;
    put(&server, "other", "a", 7).await;
    let mut door = D::to(&server, "p.*", Start::State).await;
    let (mut values, cursor) = state(&mut door).await;
    values.sort_unstable();
    assert_eq!(values, [2, 3, 5]);
    // A topic that is made later is read in full.
    put_all(&server, "p.3", &[("a", 8), ("a", 9)]).await;
    put(&server, "p.1", "a", 10).await;
    assert_eq!(numbers(&door.messages(3).await), [8, 9, 10]);
    let mut later = D::to(&server, "p.*", Start::After(cursor)).await;
    assert_eq!(numbers(&later.messages(3).await), [8, 9, 10]);
    let mut nothing = D::to(&server, "none.>", Start::State).await;
    assert_eq!(state(&mut nothing).await.0, [0_u64; 0]);
}

async fn a_filter_looks_at_the_newest<D: Door>() {
    let server = TestServer::start();
    put_all(&server, "news", &[("a", 1), ("b", 2), ("a", 30), ("c", 4)]).await;
    let options = Options::filter(json!({"field": "$key", "in": ["a", "b"]}));
    let mut door = D::with(&server, "news", Start::State, &options).await;
    assert_eq!(state(&mut door).await.0, [2, 30]);
    put_all(&server, "news", &[("c", 5), ("b", 6)]).await;
    assert_eq!(numbers(&door.messages(1).await), [6]);
    // Nothing passes: the marker comes all the same.
    let none = Options::filter(json!({"field": "$key", "eq": "x"}));
    let mut door = D::with(&server, "news", Start::State, &none).await;
    assert_eq!(state(&mut door).await.0, [0_u64; 0]);
}

async fn a_new_consumer_begins_with_it_and_a_known_one_goes_on<D: Door>() {
    let server = TestServer::start();
    put_all(&server, "news", &[("a", 1), ("b", 2), ("a", 3), ("", 4)]).await;
    let options = Options::consumer("c", "EXPLICIT");
    let mut door = D::with(&server, "news", Start::State, &options).await;
    let (values, cursor) = state(&mut door).await;
    assert_eq!(values, [2, 3]);
    server.post("/topics/news/consumers/c/ack", &json!({"cursor": cursor})).await.expect(200);
    drop(door);
    put_all(&server, "news", &[("a", 5), ("a", 6)]).await;
    let mut door = D::with(&server, "news", Start::State, &options).await;
    // No state and no marker: it goes on from its position.
    assert_eq!(numbers(&door.messages(2).await), [5, 6]);
    assert_eq!(door.consumer().unwrap()["resumed"], true);
    put(&server, "news", "a", 7).await;
    assert_eq!(numbers(&door.messages(1).await), [7]);
}

async fn remove(client: &Client, topic: &str, key: &str) {
    client.post("/publish", &json!({"topic": topic, "key": key, "remove": true})).await.expect(200);
}

/// In a history, and where the newest message of each key is kept.
async fn removed_keys_are_not_in_it<D: Door>() {
    let server = TestServer::start();
    for retention in ["HISTORY", "LATEST_PER_KEY"] {
        let topic = retention.to_lowercase();
        let created = server.post("/topics", &json!({"name": topic, "retention": retention})).await;
        if created.status == 400 && !offsets_are_dense() {
            continue;
        }
        created.expect(201);
        put_all(&server, &topic, &[("a", 1), ("b", 2), ("c", 3), ("a", 4)]).await;
        remove(&server, &topic, "b").await;
        remove(&server, &topic, "never there").await;
        let mut door = D::to(&server, &topic, Start::State).await;
        assert_eq!(state(&mut door).await.0, [3, 4]);
        // From there on a removal is a message like others.
        remove(&server, &topic, "a").await;
        put(&server, &topic, "b", 5).await;
        let seen = door.messages(2).await;
        assert_eq!((seen[0].removed, seen[0].key.as_deref(), seen[1].data.as_u64()), (true, Some("a"), Some(5)));
        let page = server.get(&format!("/topics/{topic}/state")).await.expect(200);
        let keys: Vec<_> = page["messages"].as_array().unwrap().iter().map(|message| &message["key"]).collect();
        assert_eq!(keys, ["c", "b"]);
    }
}

async fn publish_many(server: &TestServer, topic: &str, values: impl Iterator<Item = (String, u64)>) {
    let items: Vec<_> = values.map(|(key, data)| json!({"topic": topic, "data": data, "key": key})).collect();
    for batch in items.chunks(200) {
        server.post("/publish", &batch.into()).await.expect(200);
    }
}

async fn a_large_state_comes_whole<D: Door>() {
    const KEYS: u64 = 1_500;
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 10_000);
    for round in 0..3 {
        publish_many(&server, "news", (0..KEYS).map(|key| (format!("k{key}"), round * KEYS + key))).await;
    }
    let mut door = D::to(&server, "news", Start::State).await;
    assert_eq!(state(&mut door).await.0, (2 * KEYS..3 * KEYS).collect::<Vec<_>>());
}

/// The client does not read while values change: what it has not got yet comes once.
async fn values_that_change_meanwhile_come_in_their_newest_form<D: Door>() {
    const KEYS: u64 = 4_000;
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 20_000);
    let pad = "x".repeat(1_000);
    let publish = async |round: u64| {
        let items: Vec<_> = (0..KEYS)
            .map(|key| json!({"topic": "news", "key": format!("k{key}"), "data": {"round": round, "pad": pad}}))
            .collect();
        for batch in items.chunks(100) {
            server.post("/publish", &batch.into()).await.expect(200);
        }
    };
    publish(0).await;
    let mut door = D::to(&server, "news", Start::State).await;
    publish(1).await;
    publish(2).await;
    let (mut held, mut count, mut newest) = (std::collections::HashMap::new(), 0, 0);
    let mut at_marker = None;
    while at_marker.is_none() || held.values().any(|round| *round != 2) {
        match door.event().await {
            Event::Message(message) => {
                assert!(message.offset > newest, "{message:?} came twice");
                newest = message.offset;
                count += 1;
                held.insert(message.key.unwrap(), message.data["round"].as_u64().unwrap());
            }
            Event::State(_) => {
                assert_eq!((held.len() as u64, at_marker), (KEYS, None));
                at_marker = Some((count, held.values().any(|round| *round != 0)));
            }
            other => panic!("{other:?}"),
        }
    }
    // Where opening takes the whole state at once, nothing has changed before the marker.
    let (count, has_changed) = at_marker.unwrap();
    assert!(!has_changed || count < 3 * KEYS, "{count} messages: older values came although newer ones were there");
}

#[tokio::test]
async fn contradictions_are_refused() {
    let server = TestServer::start();
    let cursor = put(&server, "news", "a", 1).await;
    for other in ["last=1", "last_n=0", &format!("after={cursor}"), "since=2001-01-01T00:00:00Z"] {
        let path = format!("/topics/news/messages?state=true&{other}");
        let request = server.request(reqwest::Method::GET, &path).header("accept", "text/event-stream");
        server.send(request).await.expect_error(400, "BAD_REQUEST");
    }
    for bad in ["state=yes", "state=1", "state=TRUE"] {
        let path = format!("/topics/news/messages?{bad}");
        let request = server.request(reqwest::Method::GET, &path).header("accept", "text/event-stream");
        server.send(request).await.expect_error(400, "BAD_REQUEST");
    }
    // Pages of the history have none.
    server.get("/topics/news/messages?state=true").await.expect_error(400, "BAD_REQUEST");
    let mut ws = RawWs::open(&server).await;
    for (name, value) in [("last", json!(1)), ("after", json!(cursor)), ("since", json!("2001-01-01T00:00:00Z"))] {
        let mut frame = json!({"type": "subscribe", "topic": "news", "state": true});
        frame[name] = value;
        assert_eq!(ws.ask(frame).await["error"]["code"], "BAD_REQUEST", "{name}");
    }
    for bad in [json!("true"), json!(1)] {
        let frame = json!({"type": "subscribe", "topic": "news", "state": bad});
        assert_eq!(ws.ask(frame).await["error"]["code"], "BAD_REQUEST");
    }
    // False is as if it were absent, and so is null.
    for absent in [json!(false), json!(null)] {
        let frame = json!({"type": "subscribe", "topic": "news", "state": absent, "last": 1});
        assert_eq!(ws.ask(frame).await["type"], "ack");
        assert_eq!(ws.event().await.message().data, 1);
        ws.unsubscribe("news").await;
    }
    let mut graphql = GraphqlWs::open(&server).await;
    for (arguments, refused) in [("last: 1", true), ("after: $c", true), ("state: false, last: 1", false)] {
        let state = if refused { "state: true, " } else { "" };
        let query = format!(
            "subscription ($c: Cursor) {{ messages(topic: \"news\", {state}{arguments}) {{ data other: cursor @skip(if: true) }} \
             }} # {arguments}"
        );
        let query = if arguments.contains("$c") { query } else { query.replace(" ($c: Cursor)", "") };
        // The second time it is compiled.
        for round in 0..2 {
            let id = format!("{arguments} {round}");
            let payload = json!({"query": query, "variables": {"c": cursor}});
            graphql.socket.send(json!({"id": id, "type": "subscribe", "payload": payload}).to_string()).await;
            let reply = graphql.socket.json().await;
            let code = &reply["payload"][0]["extensions"]["code"];
            if refused {
                assert_eq!((code, &reply["type"]), (&json!("BAD_REQUEST"), &json!("error")), "{reply}");
            } else {
                assert_eq!(reply["payload"]["data"]["messages"]["data"], 1, "{reply}");
            }
        }
    }
}

async fn event_stream(server: &TestServer, query: &str, last_event_id: &str) -> EventStream {
    let request = format!(
        "GET /topics/{}/messages?{query} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\nLast-Event-ID: {last_event_id}\r\n\r\n",
        encode("news"),
        server.addr
    );
    EventStream::open(server, &request).await.unwrap()
}

/// A browser that connects again sends the same address, with `state=true`, and the id of the last event that it got. It gets what
/// follows that event, and then the marker.
#[tokio::test]
async fn last_event_id_goes_before_the_state() {
    let server = TestServer::start();
    put_all(&server, "news", &[("a", 1), ("b", 2)]).await;
    let mut door = Sse::to(&server, "news", Start::State).await;
    let first = door.event().await.message();
    drop(door);
    put_all(&server, "news", &[("b", 3), ("", 4)]).await;
    let mut stream = event_stream(&server, "state=true", &first.cursor).await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let sent = stream.next().await.unwrap();
        if !sent.data.is_empty() {
            let frame: Value = serde_json::from_str(&sent.data).unwrap();
            seen.push((sent.event, frame["data"].clone(), sent.id));
        }
    }
    let names: Vec<_> = seen.iter().map(|(event, data, _)| (event.as_str(), data.as_u64())).collect();
    assert_eq!(names, [("message", Some(2)), ("message", Some(3)), ("message", Some(4)), ("state", None)]);
    assert_eq!(seen[2].2, seen[3].2, "the marker's position is that of the last message");
}

#[tokio::test]
async fn pages_of_the_state() {
    let server = TestServer::start();
    let values: Vec<_> = (0..10).map(|n| (format!("{}.{n}", if n % 2 == 0 { "even" } else { "odd" }), n)).collect();
    for round in 0..3 {
        publish_many(&server, "news", values.iter().map(|(key, n)| (key.clone(), round * 10 + n))).await;
    }
    put(&server, "news", "", 99).await;
    let data = |page: &Value| -> Vec<u64> {
        page["messages"].as_array().unwrap().iter().map(|message| message["data"].as_u64().unwrap()).collect()
    };
    let all = server.get("/topics/news/state").await.expect(200);
    assert_eq!((data(&all), &all["next"]), ((20..30).collect(), &Value::Null));
    let keys = |page: &Value| page["messages"][0]["key"].as_str().unwrap().to_owned();
    assert_eq!(keys(&all), "even.0");
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/topics/news/state?prefix=odd.&limit=2{after}")).await.expect(200);
        found.push(data(&page));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(found, [vec![21, 23], vec![25, 27], vec![29]]);
    let query = "query ($after: Cursor, $prefix: String) { topic(name: \"news\") { cursor state(prefix: $prefix, first: 3, after: $after) \
                 { totalCount nodes { data key previous } edges { cursor node { offset } } pageInfo { hasNextPage hasPreviousPage endCursor } } } }";
    let (mut found, mut after) = (Vec::new(), Value::Null);
    loop {
        let variables = json!({"prefix": "even.", "after": after});
        let body = server.graphql(query, variables).await;
        let page = &body["topic"]["state"];
        assert_eq!(page["totalCount"], 5, "{body}");
        assert_eq!(page["pageInfo"]["hasPreviousPage"], !after.is_null());
        assert_eq!(page["nodes"][0]["previous"], Value::Null);
        found.extend(page["nodes"].as_array().unwrap().iter().map(|node| node["data"].as_u64().unwrap()));
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!(found, [20, 22, 24, 26, 28]);
    let empty = server.get("/topics/news/state?prefix=none").await.expect(200);
    assert_eq!(empty, json!({"messages": [], "next": null}));
}

#[tokio::test]
async fn bad_pages_of_the_state_are_refused() {
    let server = TestServer::start();
    let cursor = put(&server, "news", "a", 1).await;
    server.get("/topics/nothing/state").await.expect_error(404, "TOPIC_NOT_FOUND");
    let most = 1_000;
    for bad in [
        "limit=0",
        &format!("limit={}", most + 1),
        "limit=x",
        "after=x",
        "after=0000000000000001-01",
        "last=1",
        "key=a",
    ] {
        server.get(&format!("/topics/news/state?{bad}")).await.expect_error(400, "BAD_REQUEST");
    }
    if offsets_are_dense() {
        let ahead = crate::doors::cursor_at(&cursor, 2);
        server.get(&format!("/topics/news/state?after={ahead}")).await.expect_error(400, "BAD_REQUEST");
    }
    let page = server.get(&format!("/topics/news/state?after={cursor}")).await.expect(200);
    assert_eq!(page, json!({"messages": [], "next": null}));
    let refused = server.send(server.request(reqwest::Method::PUT, "/topics/news/state")).await;
    assert_eq!(refused.status, 405);
    assert_eq!(refused.headers["allow"].to_str().unwrap().replace(' ', ""), "GET,HEAD");
}
