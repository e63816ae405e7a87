//! The disk engine as a process that is killed, cut off from its disk, and started again.

mod consumers;
mod ids;
mod keys;
mod repair;
mod room;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    doors::{Door, GraphqlSse, GraphqlWs, Options, RawWs, RestPages, Sse, Start, raw_ws::Frame, raw_ws::Socket},
    harness::{Client, Random, eventually},
    process::{Process, command},
};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn on(directory: &Path, fsync: &str) -> Process {
    let directory = directory.to_str().unwrap();
    Process::start(&[
        ("ENGINE", "disk"),
        ("DATA_DIR", directory),
        ("FSYNC", fsync),
        ("FSYNC_INTERVAL", "10ms"),
        ("MAX_PUBLISH_RATE", "0"),
        ("MAX_MESSAGES_PER_TOPIC", "1000000"),
    ])
}

/// Every kept message of a topic, oldest first.
async fn history(client: &Client, topic: &str) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.get(&format!("/topics/{topic}/messages?limit=1000{after}")).await.expect(200);
        assert_eq!(page["gap"], Value::Null, "{topic}");
        let found = page["messages"].as_array().unwrap();
        if found.is_empty() {
            return messages;
        }
        after = format!("&after={}", page["next"].as_str().unwrap());
        messages.extend(found.iter().cloned());
    }
}

/// What a client remembers, while servers come and go.
#[derive(Default)]
struct Witness {
    /// Every acknowledged publish: by id, its topic and offset.
    acked: Mutex<HashMap<String, (String, u64)>>,
}

/// Publishes over one socket, several at a time, until the server is gone.
async fn publish_until_killed(client: Client, witness: Arc<Witness>, publisher: usize, round: u64, topics: u64) {
    let Ok(mut socket) = Socket::try_connect(&client, "/ws", None).await else { return };
    let mut number = 0_u64;
    loop {
        for _ in 0..16 {
            let topic = format!("t{}", number % topics);
            let id = format!("{round}-{publisher}-{number}");
            let frame = json!({"type": "publish", "topic": topic, "id": id, "data": {"by": publisher, "n": number}});
            socket.feed(frame.to_string()).await;
            number += 1;
        }
        if !socket.try_flush().await {
            return;
        }
        for _ in 0..16 {
            let Frame::Text(text) = socket.frame().await else { return };
            let ack: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(ack["type"], "ack", "{ack}");
            let position = (ack["topic"].as_str().unwrap().to_owned(), ack["offset"].as_u64().unwrap());
            let twice = witness.acked.lock().unwrap().insert(ack["id"].as_str().unwrap().to_owned(), position);
            assert!(twice.is_none(), "{ack}");
        }
    }
}

/// Follows a topic over all restarts of the server, from cursor to cursor.
struct Follower {
    cursor: Option<String>,
    seen: Vec<(u64, String)>,
}

impl Follower {
    async fn follow_until_killed(&mut self, client: &Client, topic: &str) {
        let Ok(mut socket) = Socket::try_connect(client, "/ws", None).await else { return };
        let mut subscribe = json!({"type": "subscribe", "topic": topic});
        match &self.cursor {
            Some(cursor) => subscribe["after"] = cursor.as_str().into(),
            None => subscribe["last_n"] = u32::MAX.into(),
        }
        socket.send(subscribe.to_string()).await;
        while let Frame::Text(text) = socket.frame().await {
            let frame: Value = serde_json::from_str(&text).unwrap();
            match frame["type"].as_str().unwrap() {
                "ack" => {}
                "event" => {
                    self.seen.push((frame["offset"].as_u64().unwrap(), frame["id"].as_str().unwrap().to_owned()));
                    self.cursor = Some(frame["cursor"].as_str().unwrap().to_owned());
                }
                _ => panic!("{frame} in the stream of {topic}"),
            }
        }
    }
}

/// Killed at random moments: what was acknowledged is there, at its position, once; subscribers that come back miss nothing
/// and are told of no gap, because there is none.
async fn killed_again_and_again(fsync: &'static str) {
    const ROUNDS: u64 = 20;
    const TOPICS: u64 = 3;
    let directory = directory();
    let witness = Arc::new(Witness::default());
    let mut random = Random::new(fsync.len() as u64);
    let mut follower = Follower { cursor: None, seen: Vec::new() };
    for round in 0..ROUNDS {
        let server = on(directory.path(), fsync);
        let publishing: Vec<_> = (0..4)
            .map(|publisher| {
                tokio::spawn(publish_until_killed(server.client.clone(), witness.clone(), publisher, round, TOPICS))
            })
            .collect();
        let killed = AtomicBool::new(false);
        tokio::join!(
            async {
                while !killed.load(Ordering::Relaxed) {
                    follower.follow_until_killed(&server.client, "t1").await;
                }
            },
            async {
                // The moment of the kill is what is random here; nothing is waited for.
                tokio::time::sleep(Duration::from_millis(30 + random.below(150))).await;
                killed.store(true, Ordering::Relaxed);
                server.signal("KILL");
            }
        );
        for publishing in publishing {
            publishing.await.unwrap();
        }
    }
    let server = on(directory.path(), fsync);
    let mut found = HashMap::new();
    for topic in 0..TOPICS {
        let name = format!("t{topic}");
        let mut newest: HashMap<(String, u64), u64> = HashMap::new();
        for (index, message) in history(&server.client, &name).await.into_iter().enumerate() {
            let (offset, id) = (message["offset"].as_u64().unwrap(), message["id"].as_str().unwrap().to_owned());
            assert_eq!(offset, index as u64 + 1, "a kill leaves no gap in the offsets");
            // Each publisher's messages stand in its order.
            let incarnation = (id.rsplit_once('-').unwrap().0.to_owned(), message["data"]["by"].as_u64().unwrap());
            let number = message["data"]["n"].as_u64().unwrap();
            assert!(newest.insert(incarnation, number).is_none_or(|before| before < number));
            assert!(found.insert(id, (name.clone(), offset)).is_none(), "stored twice");
        }
    }
    let acked = std::mem::take(&mut *witness.acked.lock().unwrap());
    assert!(acked.len() > 1_000, "only {} acknowledged in {ROUNDS} rounds", acked.len());
    for (id, position) in &acked {
        assert_eq!(found.get(id), Some(position), "acknowledged and lost: {id}");
    }
    let mut door = RawWs::to(&server.client, "t1", Start::After(follower.cursor.take().unwrap())).await;
    let last = history(&server.client, "t1").await.last().unwrap()["offset"].as_u64().unwrap();
    while follower.seen.last().unwrap().0 < last {
        let message = door.event().await.message();
        follower.seen.push((message.offset, message.id));
    }
    let log: Vec<_> = history(&server.client, "t1").await;
    let log = log.iter().map(|message| (message["offset"].as_u64().unwrap(), message["id"].as_str().unwrap()));
    let seen = follower.seen.iter().map(|(offset, id)| (*offset, id.as_str()));
    assert!(log.eq(seen), "the subscriber's stream is the log");
    println!("{fsync}: {} acknowledged, {} found", acked.len(), found.len());
}

#[tokio::test]
async fn killed_always() {
    killed_again_and_again("always").await;
}

#[tokio::test]
async fn killed_interval() {
    killed_again_and_again("interval").await;
}

#[tokio::test]
async fn killed_never() {
    killed_again_and_again("never").await;
}

/// Everything that can be asked about is there after a kill, and after an orderly stop.
#[tokio::test]
async fn everything_survives() {
    for signal in ["KILL", "TERM"] {
        let directory = directory();
        let mut server = on(directory.path(), "always");
        let client = server.client.clone();
        client.post("/topics", &json!({"name": "made", "max_messages": 3, "max_publish_rate": 7})).await.expect(201);
        client.create("gone").await;
        client.create("empty").await;
        client.post("/topics", &json!({"name": "changed"})).await.expect(201);
        let change = json!({"max_messages": 2}).to_string();
        client.send(client.request(reqwest::Method::PATCH, "/topics/changed").body(change)).await.expect(200);
        client.delete("/topics/gone").await.expect(200);
        client.publish_numbers("made", 1..=5).await;
        client.publish_numbers("changed", 1..=5).await;
        let body = json!({"topic": "made", "id": "mine", "key": "k", "data": {"big": 12_345_678_901_234_567_890_u64}});
        let mine = client.post("/publish", &body).await.expect(200);
        client.publish("implicit", json!("x")).await;
        let auto = Options::consumer("auto", "AUTO");
        let explicit = Options::consumer("explicit", "EXPLICIT");
        let mut door = RawWs::with(&client, "implicit", Start::Last(1), &auto).await;
        door.event().await.message();
        // Reads the ping that the server sends behind the message, whose pong the client's library sends.
        door.assert_open().await;
        door.assert_open().await;
        door.close().await;
        let mut door = RawWs::with(&client, "made", Start::Last(3), &explicit).await;
        let second = (door.event().await.message(), door.event().await.message()).1;
        client.post("/topics/made/consumers/explicit/ack", &json!({"cursor": second.cursor})).await.expect(200);
        drop(door);
        // A subscriber alone makes a topic that nothing needs after it.
        drop(RawWs::to(&client, "passing", Start::Live).await);
        eventually("end of the passing topic", || async {
            (client.get("/topics/passing").await.status == 404).then_some(())
        })
        .await;
        let position = |client: Client| async move {
            let list = client.get("/topics/implicit/consumers").await.expect(200);
            list["consumers"][0]["positions"][0]["offset"].as_u64()
        };
        eventually("the position of AUTO", || async { (position(client.clone()).await == Some(1)).then_some(()) })
            .await;
        let before = client.get("/topics").await.expect(200);
        let page = client.get("/topics/made/messages").await.text;

        server.signal(signal);
        server.ended().await;
        let server = on(directory.path(), "always");
        let client = server.client.clone();
        assert_eq!(client.get("/topics").await.expect(200), before, "{signal}");
        assert_eq!(client.get("/topics/made/messages").await.text, page, "byte for byte");
        let again = client.post("/publish", &body).await.expect(200);
        assert_eq!((&again["offset"], &again["cursor"]), (&mine["offset"], &mine["cursor"]));
        assert_eq!(again["duplicate"], true, "the id is still known");
        let conflict = json!({"topic": "made", "data": 0, "expected_offset": 5});
        client.post("/publish", &conflict).await.expect_error(409, "CONFLICT");
        let conditional = json!({"topic": "made", "data": 0, "expected_offset": 6});
        assert_eq!(client.post("/publish", &conditional).await.expect(200)["offset"], 7);

        let mut door = RawWs::with(&client, "made", Start::Live, &explicit).await;
        assert_eq!(door.consumer().unwrap()["resumed"], true);
        assert_eq!(door.event().await.message().offset, second.offset + 1);
        let door = RawWs::with(&client, "implicit", Start::Last(1), &auto).await;
        let consumer = door.consumer().unwrap();
        assert_eq!(consumer["resumed"], true);
        assert!(consumer["cursor"].as_str().unwrap().ends_with("-01"), "{consumer}");
        client.get("/topics/passing").await.expect_error(404, "TOPIC_NOT_FOUND");
        client.get("/topics/gone").await.expect_error(404, "TOPIC_NOT_FOUND");
    }
}

/// A cursor from before a kill works at every door: what follows it comes, and nothing is said to be missing.
#[tokio::test]
async fn cursors_outlive_the_process() {
    async fn check<D: Door>(client: &Client, cursor: &str) {
        let mut door = D::to(client, "news", Start::After(cursor.to_owned())).await;
        for offset in 3..=5 {
            assert_eq!(door.event().await.message().offset, offset);
        }
    }
    let directory = directory();
    let mut server = on(directory.path(), "interval");
    server.client.publish("news", 1.into()).await;
    let cursor = server.client.publish("news", 2.into()).await["cursor"].as_str().unwrap().to_owned();
    server.client.publish_numbers("news", 3..=4).await;
    server.signal("KILL");
    server.ended().await;
    let server = on(directory.path(), "interval");
    server.client.publish("news", 5.into()).await;
    check::<RawWs>(&server.client, &cursor).await;
    check::<GraphqlWs>(&server.client, &cursor).await;
    check::<GraphqlSse>(&server.client, &cursor).await;
    check::<Sse>(&server.client, &cursor).await;
    check::<RestPages>(&server.client, &cursor).await;
}

#[tokio::test]
async fn a_second_server_is_refused() {
    let directory = directory();
    let path = directory.path().to_str().unwrap();
    let _server = on(directory.path(), "always");
    let environment = [("HOST", "127.0.0.1"), ("PORT", "0"), ("ENGINE", "disk"), ("DATA_DIR", path)];
    let output = command(&environment).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap();
    assert_eq!(last, format!("pub-sub: DATA_DIR: {path} is in use by another process"));
}

async fn gap_of_unknown_size(door: &mut RawWs) -> (u64, u64) {
    let gap = door.event().await.gap();
    assert_eq!((gap.missed, gap.reason.as_str()), (None, "EXPIRED"));
    (gap.from_offset, gap.to_offset)
}

/// The newest segment.
fn segment(directory: &Path) -> PathBuf {
    let segments = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    segments.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).max().unwrap()
}

/// Bytes that the disk has lost or turned at the end, of which nothing says that they were there: the whole records before
/// them are, what was shown is never numbered again, and who had seen more than is left is told.
#[tokio::test]
async fn a_damaged_end_is_cut_off_and_told() {
    for damage in ["cut", "flip"] {
        let directory = directory();
        let mut server = on(directory.path(), "always");
        let mut cursors = Vec::new();
        for number in 1..=10_u64 {
            let done = server.client.publish("news", number.into()).await;
            cursors.push(done["cursor"].as_str().unwrap().to_owned());
        }
        server.signal("KILL");
        server.ended().await;
        let path = segment(directory.path());
        let mut bytes = fs::read(&path).unwrap();
        match damage {
            "cut" => bytes.truncate(bytes.len() - 3),
            _ => *bytes.last_mut().unwrap() ^= 4,
        }
        fs::write(&path, bytes).unwrap();
        fs::remove_file(directory.path().join("footprint")).unwrap();

        let server = on(directory.path(), "always");
        let page = server.client.get("/topics/news/messages").await.expect(200);
        let left = page["messages"].as_array().unwrap().iter().map(|message| message["data"].as_u64().unwrap());
        assert!(left.eq(1..=9), "{page}");
        // One had seen all ten, one only five.
        let mut ahead = RawWs::to(&server.client, "news", Start::After(cursors[9].clone())).await;
        let mut behind = RawWs::to(&server.client, "news", Start::After(cursors[4].clone())).await;
        let next = server.client.publish("news", 11.into()).await["offset"].as_u64().unwrap();
        assert!(next > 10, "offset 10 was shown");
        assert_eq!(gap_of_unknown_size(&mut ahead).await, (11, next - 1));
        assert_eq!(ahead.event().await.message().offset, next);
        for offset in 6..=9 {
            assert_eq!(behind.event().await.message().offset, offset);
        }
        assert_eq!(gap_of_unknown_size(&mut behind).await, (10, next - 1));
        assert_eq!(behind.event().await.message().offset, next);
        assert!(server.log().iter().any(|line| line.contains("may have lost messages")), "{:?}", server.log());
    }
}

/// Damage where no crash explains it: the server does not start, and says where.
#[tokio::test]
async fn damage_before_the_end_refuses_to_start() {
    let directory = directory();
    let mut server = on(directory.path(), "never");
    let big = "x".repeat(1_000_000);
    for _ in 0..70 {
        server.client.post("/publish", &json!({"topic": "news", "data": big})).await.expect(200);
    }
    server.signal("TERM");
    server.ended().await;
    let segments = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let first = segments.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).min().unwrap();
    assert_ne!(first, segment(directory.path()), "more than one segment");
    let mut bytes = fs::read(&first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&first, bytes).unwrap();
    let path = directory.path().to_str().unwrap();
    let environment = [("HOST", "127.0.0.1"), ("PORT", "0"), ("ENGINE", "disk"), ("DATA_DIR", path)];
    let output = command(&environment).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let name = first.file_name().unwrap().to_str().unwrap();
    let last = said.lines().last().unwrap();
    assert!(last.starts_with(&format!("pub-sub: DATA_DIR: {name} is damaged at byte ")), "{said}");
}

/// A history made smaller and larger again, or a lower bound for one start: what was evicted does not come back, and its
/// ids are not kept twice.
#[tokio::test]
async fn what_was_evicted_stays_evicted() {
    let offsets = |page: &Value| -> Vec<u64> {
        page["messages"].as_array().unwrap().iter().map(|message| message["offset"].as_u64().unwrap()).collect()
    };
    for signal in ["TERM", "KILL"] {
        let directory = directory();
        let path = directory.path().to_str().unwrap();
        let bounded =
            |bound| Process::start(&[("ENGINE", "disk"), ("DATA_DIR", path), ("MAX_MESSAGES_PER_TOPIC", bound)]);
        let patch = |client: Client, bound: u64| async move {
            let change = json!({"max_messages": bound}).to_string();
            client.send(client.request(reqwest::Method::PATCH, "/topics/own").body(change)).await.expect(200);
        };
        let mut server = bounded("100");
        server.client.post("/topics", &json!({"name": "own", "max_messages": 100})).await.expect(201);
        server.client.publish_numbers("own", 1..=40).await;
        patch(server.client.clone(), 2).await;
        patch(server.client.clone(), 100).await;
        let before = server.client.get("/topics/own/messages").await.expect(200);
        assert_eq!(offsets(&before), [39, 40]);
        server.client.publish_numbers("follows", 1..=20).await;

        server.signal(signal);
        server.ended().await;
        let mut server = bounded("3");
        assert_eq!(server.client.get("/topics/own/messages").await.expect(200), before, "{signal}");
        server.signal(signal);
        server.ended().await;
        let server = bounded("50");
        assert_eq!(server.client.get("/topics/own/messages").await.expect(200), before, "{signal}");
        let follows = server.client.get("/topics/follows/messages").await.expect(200);
        assert_eq!(offsets(&follows), [18, 19, 20], "a topic without a bound of its own had that of the second start");
    }
}

/// What is as it was left is not written again: neither a start nor a stop costs anything.
#[tokio::test]
async fn a_start_and_a_stop_write_nothing() {
    let directory = directory();
    let path = directory.path().to_str().unwrap();
    let start = || Process::start(&[("ENGINE", "disk"), ("DATA_DIR", path), ("MAX_MESSAGES_PER_TOPIC", "5")]);
    let mut server = start();
    server.client.publish_numbers("news", 1..=20).await;
    let many: Vec<_> = (0..20).map(|number| json!({"topic": "batch", "data": number})).collect();
    server.client.post("/publish", &json!(many)).await.expect(200);
    server.client.post("/topics", &json!({"name": "own", "max_messages": 2})).await.expect(201);
    server.client.publish_numbers("own", 1..=20).await;
    server.signal("TERM");
    server.ended().await;
    let before = fs::read(segment(directory.path())).unwrap();
    for _ in 0..2 {
        let mut server = start();
        server.client.get("/health/ready").await.expect(200);
        server.signal("TERM");
        server.ended().await;
        assert_eq!(fs::read(segment(directory.path())).unwrap().len(), before.len());
    }
}
