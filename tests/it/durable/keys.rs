//! Topics that keep the newest message of each key, over kills.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use super::directory;
use crate::{
    doors::raw_ws::{Frame, Socket},
    harness::{Client, Random},
    process::Process,
};

const WRITERS: u64 = 4;
const KEYS_EACH: u64 = 5;

fn start(directory: &Path, tombstone_ttl: &str) -> Process {
    Process::start(&[
        ("ENGINE", "disk"),
        ("DATA_DIR", directory.to_str().unwrap()),
        ("FSYNC", "never"),
        ("MAX_PUBLISH_RATE", "0"),
        ("MAX_MESSAGES_PER_TOPIC", "1000"),
        ("TOMBSTONE_TTL", tombstone_ttl),
    ])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Value,
    Removal,
    Brief,
}

/// What is known of a key: the newest message that was acknowledged or found, and the one on its way.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    stored: Option<(u64, Kind, u64)>,
    pending: Option<(Kind, u64)>,
}

type Witness = Arc<Mutex<BTreeMap<String, Known>>>;

/// Publishes values, removals and values that are kept for a moment, one after the other, until the server is gone.
async fn publish_until_killed(client: Client, witness: Witness, writer: u64, round: u64) {
    let Ok(mut socket) = Socket::try_connect(&client, "/ws", None).await else { return };
    let mut random = Random::new(writer * 100 + round);
    for number in round * 1_000_000.. {
        let key = format!("{writer}-{}", random.below(KEYS_EACH));
        let mut frame = json!({"type": "publish", "topic": "latest", "key": key});
        let kind = match random.below(10) {
            0..=1 => Kind::Removal,
            2 => Kind::Brief,
            _ => Kind::Value,
        };
        match kind {
            Kind::Removal => frame["remove"] = true.into(),
            Kind::Brief => (frame["ttl"], frame["data"]) = ("20ms".into(), number.into()),
            Kind::Value => frame["data"] = number.into(),
        }
        witness.lock().unwrap().entry(key.clone()).or_default().pending = Some((kind, number));
        socket.feed(frame.to_string()).await;
        if !socket.try_flush().await {
            return;
        }
        let Frame::Text(text) = socket.frame().await else { return };
        let ack: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(ack["type"], "ack", "{ack}");
        let known = Known { stored: Some((ack["offset"].as_u64().unwrap(), kind, number)), pending: None };
        witness.lock().unwrap().insert(key, known);
    }
}

/// The kept messages of a topic, oldest first.
async fn messages(client: &Client, topic: &str) -> Vec<Value> {
    let page = client.get(&format!("/topics/{topic}/messages?limit=1000")).await.expect(200);
    page["messages"].as_array().unwrap().clone()
}

/// Compares what is there after a kill with what was acknowledged before it.
fn check(known: &mut BTreeMap<String, Known>, messages: &[Value]) {
    let mut found = BTreeMap::new();
    for message in messages {
        let is_removal = message["removed"] == true;
        let stored = (message["offset"].as_u64().unwrap(), is_removal, message["data"].as_u64());
        let key = message["key"].as_str().unwrap().to_owned();
        assert!(found.insert(key, stored).is_none(), "two messages of a key: {message}");
    }
    for (key, known) in known {
        let Known { stored, pending } = std::mem::take(known);
        let Some((offset, is_removal, number)) = found.remove(key) else {
            let is_over = |kind| kind != Kind::Value;
            let was_ended =
                stored.is_none_or(|(_, kind, _)| is_over(kind)) || pending.is_some_and(|(kind, _)| is_over(kind));
            assert!(was_ended, "the newest value of {key} is lost: {stored:?}, {pending:?}");
            known.stored = stored.map(|(offset, _, number)| (offset, Kind::Removal, number));
            continue;
        };
        let (kind, wanted) = match stored {
            Some((stored, kind, number)) if stored == offset => (kind, number),
            _ => {
                assert!(
                    stored.is_none_or(|(stored, ..)| stored < offset),
                    "{key} has an older message again: {stored:?}"
                );
                pending.unwrap_or_else(|| panic!("{key}: {offset} was never published, after {stored:?}"))
            }
        };
        assert_eq!(is_removal, kind == Kind::Removal, "{key}: {stored:?}, {pending:?}");
        assert!(is_removal || number == Some(wanted), "{key}: {number:?} and not {wanted}");
        known.stored = Some((offset, kind, wanted));
    }
    assert!(found.is_empty(), "{found:?}");
}

/// Killed at random moments: the newest acknowledged value of each key is there, and no removed key is back.
#[tokio::test]
async fn the_newest_of_each_key_survives_kills() {
    const ROUNDS: u64 = 8;
    let directory = directory();
    let witness = Witness::default();
    let mut random = Random::new(11);
    let mut acknowledged = 0;
    for round in 0..=ROUNDS {
        let server = start(directory.path(), "100ms");
        if round == 0 {
            let body = json!({"name": "latest", "retention": "LATEST_PER_KEY"});
            server.client.post("/topics", &body).await.expect(201);
        }
        let kept = messages(&server.client, "latest").await;
        check(&mut witness.lock().unwrap(), &kept);
        let publish = |writer| publish_until_killed(server.client.clone(), witness.clone(), writer, round);
        let publishing: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(publish(writer))).collect();
        // The moment of the kill is what is random here; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(50 + random.below(200))).await;
        server.signal("KILL");
        for publishing in publishing {
            publishing.await.unwrap();
        }
        let stored = |known: &Known| known.stored.map_or(0, |(offset, ..)| offset);
        acknowledged = witness.lock().unwrap().values().map(stored).max().unwrap();
    }
    println!("{acknowledged} messages");
    assert!(acknowledged > 200, "only {acknowledged} messages in {ROUNDS} rounds");
}

/// What a reader from the beginning is told by a page: the offset of each message, and the gap before it.
async fn page(client: &Client, topic: &str, cursor: &str) -> Vec<String> {
    let page = client.get(&format!("/topics/{topic}/messages?after={cursor}")).await.expect(200);
    let gap = |gap: &Value| format!("{} {}", gap["reason"].as_str().unwrap(), gap["missed"]);
    let mut told: Vec<String> = page["gap"].is_object().then(|| gap(&page["gap"])).into_iter().collect();
    for message in page["messages"].as_array().unwrap() {
        told.extend(message["gap"].is_object().then(|| gap(&message["gap"])));
        told.push(message["offset"].to_string());
    }
    told
}

/// Switched between a history and the newest of each key, a topic is the same after a kill as it was before.
#[tokio::test]
async fn a_switched_topic_survives_kills() {
    let directory = directory();
    let mut server = start(directory.path(), "24h");
    server.client.create("news").await;
    let mut first = String::new();
    for (key, number) in [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("c", 5)] {
        let body = json!({"topic": "news", "key": key, "data": number});
        let cursor = server.client.post("/publish", &body).await.expect(200)["cursor"].as_str().unwrap().to_owned();
        if number == 1 {
            first = cursor;
        }
    }
    let steps: [(&str, &[&str], &[&str]); 3] = [
        ("LATEST_PER_KEY", &["c", "c"], &["COMPACTED 1", "3", "4", "COMPACTED 2", "7"]),
        ("HISTORY", &["c", "c"], &["COMPACTED 1", "3", "4", "COMPACTED 2", "7", "8", "9"]),
        ("LATEST_PER_KEY", &["a"], &["COMPACTED 2", "4", "COMPACTED 4", "9", "10"]),
    ];
    for (retention, keys, expected) in steps {
        let change = json!({"retention": retention}).to_string();
        server
            .client
            .send(server.client.request(reqwest::Method::PATCH, "/topics/news").body(change))
            .await
            .expect(200);
        for key in keys {
            server.client.post("/publish", &json!({"topic": "news", "key": key, "data": 0})).await.expect(200);
        }
        for _ in 0..2 {
            assert_eq!(page(&server.client, "news", &first).await, expected, "{retention}");
            server.signal("KILL");
            server.ended().await;
            server = start(directory.path(), "24h");
        }
    }
}
