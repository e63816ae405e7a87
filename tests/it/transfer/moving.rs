//! What clients see of a move.

use super::*;

/// Who holds a cursor of the old incarnation is told.
async fn told<D: Door>(client: &Client, cursor: &str, newest: u64) {
    let mut door = D::to(client, "news", Start::After(cursor.to_owned())).await;
    let gap = door.event().await.gap();
    assert_eq!((gap.reason.as_str(), gap.missed), ("NEW_EPOCH", Some(0)));
    assert_eq!(numbers(&door.messages(newest as usize).await), (1..=newest).collect::<Vec<_>>());
}

/// A consumer of "news" that comes back.
async fn back(client: &Client, name: &'static str, ack: &'static str) -> RawWs {
    let door = RawWs::with(client, "news", Start::Live, &Options::consumer(name, ack)).await;
    assert_eq!(door.consumer().unwrap()["resumed"], true, "{name}");
    door
}

/// Waits until the position of the consumer "auto" is acknowledged up to this cursor: the server's ping stands behind the
/// messages, and reading on sends the pong.
async fn acknowledged(door: &mut RawWs, client: &Client, cursor: &str) {
    let moved = async {
        loop {
            door.assert_open().await;
            let listed = client.get("/topics/news/consumers").await.expect(200);
            let consumers = listed["consumers"].as_array().unwrap();
            let auto = consumers.iter().find(|consumer| consumer["name"] == "auto").unwrap();
            if auto["positions"][0]["cursor"] == cursor {
                return;
            }
        }
    };
    within("move of the position", moved).await;
}

/// A consumer goes on exactly where it was, on whatever engine; one that has missed something is told; and so is who holds
/// a cursor of the old incarnation, at every door.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_go_on() {
    let servers = nats::Nats::single().await;
    let (first, last) = (directory(), directory());
    let mut store = Store::disk(first.path());
    let server = store.serve();
    let client = &server.client;
    client.create("news").await;
    client.post("/topics", &json!({"name": "short", "max_messages": 3})).await.expect(201);
    for (topic, name, ack) in [
        ("news", "explicit", "EXPLICIT"),
        ("news", "auto", "AUTO"),
        ("news", "from the first", "EXPLICIT"),
        ("short", "behind", "EXPLICIT"),
    ] {
        RawWs::with(client, topic, Start::Live, &Options::consumer(name, ack)).await.close().await;
    }
    let mut cursor = String::new();
    for number in 1..=10 {
        let id = Some(format!("id-{number}"));
        let done = publish(client, "news", &number.to_string(), id, None).await;
        cursor = done["cursor"].as_str().unwrap().to_owned();
        publish(client, "short", &number.to_string(), None, None).await;
    }
    let mut door = back(client, "explicit", "EXPLICIT").await;
    let seen = door.messages(10).await;
    client.post("/topics/news/consumers/explicit/ack", &json!({"cursor": seen[3].cursor})).await.expect(200);
    door.close().await;
    let mut door = back(client, "auto", "AUTO").await;
    door.messages(10).await;
    acknowledged(&mut door, client, &cursor).await;
    door.close().await;
    stop(server).await;

    // To NATS and back to disk; what is published in between goes along.
    for (to, newest) in [(Store::nats(&servers, "moved"), 10), (Store::disk(last.path()), 11)] {
        to.import(&store.export());
        store = to;
        let server = store.serve();
        let client = &server.client;
        let mut explicit = back(client, "explicit", "EXPLICIT").await;
        assert_eq!(numbers(&explicit.messages(newest - 4).await), (5..=newest as u64).collect::<Vec<_>>());
        let mut auto = back(client, "auto", "AUTO").await;
        let mut all = back(client, "from the first", "EXPLICIT").await;
        assert_eq!(numbers(&all.messages(newest).await), (1..=newest as u64).collect::<Vec<_>>());
        let mut behind = RawWs::with(client, "short", Start::Live, &Options::consumer("behind", "EXPLICIT")).await;
        // It has never acknowledged that, so it is told with every move.
        assert_eq!(behind.event().await.gap().reason, "NEW_EPOCH");
        assert_eq!(numbers(&behind.messages(3).await), [8, 9, 10]);
        told::<RawWs>(client, &cursor, newest as u64).await;
        told::<GraphqlWs>(client, &cursor, newest as u64).await;
        told::<GraphqlSse>(client, &cursor, newest as u64).await;
        told::<Sse>(client, &cursor, newest as u64).await;
        told::<RestPages>(client, &cursor, newest as u64).await;

        // A publisher that repeats itself is still known.
        let again = publish(client, "news", "10", Some("id-10".to_owned()), None).await;
        assert_eq!(again["duplicate"], true, "{again}");
        // And what is published now comes behind all that.
        let next = newest as u64 + 1;
        cursor = publish(client, "news", &next.to_string(), None, None).await["cursor"].as_str().unwrap().to_owned();
        for door in [&mut explicit, &mut auto] {
            assert_eq!(numbers(&door.messages(1).await), [next]);
        }
        acknowledged(&mut auto, client, &cursor).await;
        // Of engines that instances share, an export is one instance more.
        let beside = read(&store.export());
        for door in [explicit, auto, all, behind] {
            door.close().await;
        }
        stop(server).await;
        assert_eq!(beside.topics, read(&store.export()).topics);
    }
}

/// Times of publication go with the messages, so that "since" means what it meant; new messages are never older.
#[tokio::test]
async fn times_go_along() {
    let directory = directory();
    let store = Store::disk(directory.path());
    let export = r#"{"format":"pub-sub","version":1,"exportedAt":"2026-11-26T15:00:00.000Z","engine":"nats"}
{"topic":{"name":"news","epoch":"96f7d2ac6ce15aca","createdAt":"2020-01-01T00:00:00.000Z","implicit":false,"maxMessages":3,"maxPublishRate":1,"floor":0,"last":90}}
{"message":{"offset":10,"id":"a","given":true,"publishedAt":"2020-01-01T00:00:00.001Z","data":1}}
{"message":{"offset":20,"id":"b","given":false,"publishedAt":"2020-01-01T00:00:00.002Z","data":2}}
{"message":{"offset":30,"id":"c","given":true,"publishedAt":"2020-01-01T00:00:00.003Z","data":3}}
{"message":{"offset":40,"id":"d","given":true,"publishedAt":"2020-01-01T00:00:00.004Z","data":4}}
{"message":{"offset":90,"id":"c","given":true,"publishedAt":"2020-01-01T00:00:00.005Z","data":5}}
{"end":{"topics":1,"messages":5,"consumers":0}}
"#;
    // Edited by hand: an id that stands twice is stored once, and the bound holds.
    let output = store.run(&["import"], Some(export.as_bytes()));
    assert!(output.status.success());
    let said = said(&output);
    assert!(said.contains("left out 1 message whose id an earlier message of the same topic has"), "{said}");
    assert!(said.contains("imported 1 topic, 4 messages, 0 ids without a message and 0 consumers"), "{said}");
    let server = store.serve();
    let page = server.client.get("/topics/news/messages?since=2020-01-01T00:00:00.003Z").await.expect(200);
    let times: Vec<_> = page["messages"].as_array().unwrap().iter().map(|message| message["ts"].clone()).collect();
    assert_eq!(times, ["2020-01-01T00:00:00.003Z", "2020-01-01T00:00:00.004Z"]);
    let page = server.client.get("/topics/news/messages?last=10").await.expect(200);
    let data: Vec<_> = page["messages"].as_array().unwrap().iter().map(|message| message["data"].clone()).collect();
    assert_eq!(data, [2, 3, 4]);
    // The import was not held back by the topic's rate, and does not hold back what comes.
    publish(&server.client, "news", "6", None, None).await;
}

/// A topic of keys goes along with its setting, its values and its removals.
#[tokio::test]
async fn keys_go_along() {
    let (from, to) = (directory(), directory());
    let (from, to) = (Store::disk(from.path()), Store::disk(to.path()));
    let server = from.serve();
    let settings = json!({"name": "stock", "retention": "LATEST_PER_KEY", "max_keys": 2});
    server.client.post("/topics", &settings).await.expect(201);
    for (key, number) in [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5)] {
        server.client.post("/publish", &json!({"topic": "stock", "key": key, "data": number})).await.expect(200);
    }
    server.client.delete("/topics/stock/state/b").await.expect(200);
    server.client.post("/publish", &json!({"topic": "stock", "key": "c", "data": 7})).await.expect(200);
    let export = from.export();
    assert!(export.contains(r#""retention":"LATEST_PER_KEY","maxKeys":2"#), "{export}");
    assert!(export.contains(r#""removed":true"#), "{export}");
    to.import(&export);
    let server = to.serve();
    let page = server.client.get("/topics/stock/messages").await.expect(200);
    let shown = |message: &Value| (message["key"].clone(), message["data"].clone(), message["removed"].clone());
    let shown: Vec<_> = page["messages"].as_array().unwrap().iter().map(shown).collect();
    let removal = ("b".into(), Value::Null, true.into());
    assert_eq!(shown, [("a".into(), 5.into(), Value::Null), removal, ("c".into(), 7.into(), Value::Null)], "{page}");
    let topic = server.client.get("/topics/stock").await.expect(200);
    assert_eq!((&topic["retention"], &topic["messages"]), (&"LATEST_PER_KEY".into(), &2.into()));
    let body = json!({"topic": "stock", "key": "d", "data": 1});
    server.client.post("/publish", &body).await.expect_error(503, "LIMIT_REACHED");
}
