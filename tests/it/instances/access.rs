//! What instances share of access, and what they do not: the owners of consumers are stored, rules and rates are each
//! instance's own.

use std::fmt::Write;

use pub_sub::access::KeyHash;
use serde_json::{Value, json};

use super::with;
use crate::{
    doors::raw_ws::Socket,
    harness::{TestServer, eventually},
    nats::Nats,
};

/// An instance that knows keys of these names. Each key is its name.
fn instance(nats: &Nats, names: &[&str]) -> (TestServer, tempfile::NamedTempFile) {
    let mut file = String::new();
    for name in names {
        let hash = KeyHash::of(name);
        writeln!(file, "[[key]]\nname = \"{name}\"\nhash = \"{hash}\"\npublish = [\">\"]\nsubscribe = [\">\"]")
            .unwrap();
        writeln!(file, "stats = true\nmax_publish_rate = 2").unwrap();
    }
    let path = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(path.path(), file).unwrap();
    let server = with(nats, |config| path.path().to_str().unwrap().clone_into(&mut config.access.access_file));
    (server, path)
}

async fn signed_in(server: &TestServer, name: &str) -> Socket {
    let mut socket = Socket::connect(&server.client, "/ws", None).await;
    socket.send(json!({"type": "auth", "token": name}).to_string()).await;
    assert_eq!(socket.json().await["type"], "ack");
    socket
}

/// Subscribes as the consumer `tab-1`, and returns what the acknowledgement says about it.
async fn subscribe(socket: &mut Socket) -> Value {
    let frame = json!({"type": "subscribe", "topic": "t", "last": 10, "consumer": "tab-1", "ack": "EXPLICIT"});
    socket.send(frame.to_string()).await;
    socket.json().await["consumer"].take()
}

/// Publishes so many messages at once.
async fn publish(server: &TestServer, name: &str, count: usize) -> u16 {
    let body = json!(vec![json!({"topic": "t", "data": 1}); count]).to_string();
    server.send(server.request(reqwest::Method::POST, "/publish").bearer_auth(name).body(body)).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_travel_and_rules_and_rates_do_not() {
    let nats = Nats::single().await;
    let (a, _of_a) = instance(&nats, &["alice", "bob"]);
    let (b, _of_b) = instance(&nats, &["alice", "carol"]);

    // Rules are each instance's own, and so are rates: the first instance refuses some of these.
    assert_eq!(publish(&a, "alice", 50).await, 207);
    assert_eq!((publish(&b, "alice", 1).await, publish(&b, "bob", 1).await), (200, 401));

    let mut at_a = signed_in(&a, "alice").await;
    assert_eq!(subscribe(&mut at_a).await["resumed"], false);
    let cursor = at_a.json().await["cursor"].take();
    let acknowledge = json!({"type": "ack", "topic": "t", "consumer": "tab-1", "cursor": cursor});
    at_a.send(acknowledge.to_string()).await;
    while at_a.json().await["type"] != "ack" {}
    at_a.close().await;

    // The same principal goes on at the other instance; another one has a consumer of its own.
    eventually("the position at the other instance", || async {
        let mut at_b = signed_in(&b, "alice").await;
        let consumer = subscribe(&mut at_b).await;
        at_b.close().await;
        (consumer["resumed"] == true && consumer["cursor"] == cursor).then_some(())
    })
    .await;
    let mut of_carol = signed_in(&b, "carol").await;
    assert_eq!(subscribe(&mut of_carol).await["resumed"], false);
    eventually("both owners at the first instance", || async {
        let list = a.send(a.request(reqwest::Method::GET, "/topics/t/consumers").bearer_auth("bob")).await.expect(200);
        let owners: Vec<_> = list["consumers"].as_array().unwrap().iter().map(|one| one["owner"].clone()).collect();
        (owners == ["alice", "carol"]).then_some(())
    })
    .await;
    of_carol.close().await;
}
