//! Publishers' ids over kills, when their messages are gone and the segments of these, too.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{directory, on};
use crate::{
    harness::{Client, eventually},
    process::Process,
};

fn start(directory: &Path, window: &str) -> Process {
    let path = directory.to_str().unwrap();
    Process::start(&[
        ("ENGINE", "disk"),
        ("DATA_DIR", path),
        ("FSYNC", "never"),
        ("MAX_PUBLISH_RATE", "0"),
        ("MAX_MESSAGES_PER_TOPIC", "5"),
        ("DEDUP_WINDOW", window),
    ])
}

async fn publish(client: &Client, number: u64, data: &Value) -> Value {
    client.post("/publish", &json!({"topic": "news", "id": format!("id-{number}"), "data": data})).await.expect(200)
}

#[tokio::test]
async fn ids_outlive_kills_without_their_messages() {
    const COUNT: u64 = 150;
    let directory = directory();
    let mut server = start(directory.path(), "5m");
    let large = json!("x".repeat(900_000));
    let mut first = Vec::new();
    for number in 1..=COUNT {
        first.push(publish(&server.client, number, &large).await);
    }
    // The first one has the topic's creation; the second had messages alone.
    let second = directory.path().join(format!("{:020}.seg", 2));
    eventually("the second segment gone", || async { (!second.exists()).then_some(()) }).await;
    for _ in 0..2 {
        server.signal("KILL");
        server.ended().await;
        server = start(directory.path(), "5m");
        for (number, before) in (1..).zip(&first) {
            let again = publish(&server.client, number, &json!(0)).await;
            assert_eq!(again["duplicate"], true, "{again}");
            assert_eq!((&again["offset"], &again["cursor"]), (&before["offset"], &before["cursor"]));
        }
        assert_eq!(server.client.get("/topics/news").await.expect(200)["messages"], 5);
    }
    // Of a topic that is deleted and created again they are not.
    server.client.delete("/topics/news").await.expect(200);
    let again = publish(&server.client, 1, &json!(0)).await;
    assert_eq!((&again["duplicate"], &again["offset"]), (&json!(false), &json!(1)));
    server.signal("KILL");
    server.ended().await;
    let server = start(directory.path(), "5m");
    assert_eq!(publish(&server.client, 1, &json!(0)).await["duplicate"], true);
    assert_eq!(publish(&server.client, 2, &json!(0)).await["duplicate"], false);
    let bytes: u64 = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 130 << 20, "{bytes} bytes for five messages");
}

/// After an end that was not orderly, a publisher may know only the id that the server made, from the error `UNKNOWN`.
#[tokio::test]
async fn an_id_that_the_server_made_is_known_after_a_kill() {
    let directory = directory();
    let mut server = on(directory.path(), "always");
    let first = server.client.publish("news", 1.into()).await;
    server.signal("KILL");
    server.ended().await;
    let server = on(directory.path(), "always");
    let body = json!({"topic": "news", "data": 1, "id": first["id"]});
    let again = server.client.post("/publish", &body).await.expect(200);
    assert_eq!((&again["duplicate"], &again["cursor"]), (&true.into(), &first["cursor"]), "{again}");
}
