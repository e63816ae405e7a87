//! Tokens that expire while somebody receives: the stream says so, ends, and nothing is lost for whoever comes back.

use std::time::Duration;

use serde_json::json;

use super::{Restricted, graphql_socket, now, token};
use crate::{
    doors::{Door, Event, Options, RawWs, Start, numbers},
    harness::{Client, within},
};

every_pushing_door! {
    expires_in_mid_stream,
    a_consumer_outlives_the_token,
}

/// The leeway of these servers, in seconds.
const LEEWAY: i64 = 1;

/// How much later than a second an end may be seen on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

fn server() -> Restricted {
    Restricted::with("", |config| config.access.jwt_leeway = Duration::from_secs(LEEWAY.unsigned_abs()))
}

/// A client with a token that holds for some seconds, and when it ends.
fn for_a_moment(server: &Restricted, others: &serde_json::Value) -> (Client, i64) {
    let mut others = others.clone();
    let expires = now() + 2;
    others["exp"] = expires.into();
    (server.nobody().signed_in(&token("alice", &others)), expires + LEEWAY)
}

/// The stream ends because of the credential, not before its time, and soon after it.
async fn ends<D: Door>(door: &mut D, at: i64) {
    assert_eq!(door.event().await, Event::Error("UNAUTHENTICATED".to_owned()));
    assert!(now() >= at, "the end came before exp and the leeway were over");
    let late = Duration::from_secs((now() - at).unsigned_abs());
    assert!(late <= Duration::from_secs(1) + SLACK, "the end came {late:?} late");
    if D::SOCKET.is_some() {
        door.assert_open().await;
    } else {
        assert_eq!(door.event().await, Event::Closed(None));
    }
}

async fn expires_in_mid_stream<D: Door>() {
    let server = server();
    let (alice, end) = for_a_moment(&server, &json!({}));
    let mut door = D::to(&alice, "news", Start::Live).await;
    let mut pattern = D::to(&alice, ">", Start::Live).await;
    server.admin.publish_numbers("news", 1..=3).await;
    let seen = door.messages(3).await;
    assert_eq!(numbers(&seen), [1, 2, 3]);
    let seen_by_pattern = pattern.messages(3).await;
    ends(&mut door, end).await;
    ends(&mut pattern, end).await;
    server.admin.publish_numbers("news", 4..=6).await;
    // The same token opens nothing any more.
    alice.get("/topics").await.expect_error(401, "UNAUTHENTICATED");
    let fresh = server.nobody().signed_in(&token("alice", &json!({})));
    let mut door = D::to(&fresh, "news", Start::After(seen[2].cursor.clone())).await;
    assert_eq!(numbers(&door.messages(3).await), [4, 5, 6]);
    let mut pattern = D::to(&fresh, ">", Start::After(seen_by_pattern[2].position().to_owned())).await;
    assert_eq!(numbers(&pattern.messages(3).await), [4, 5, 6]);
}

async fn a_consumer_outlives_the_token<D: Door>() {
    let server = server();
    let (alice, end) = for_a_moment(&server, &json!({}));
    let options = Options::consumer("tab", "EXPLICIT");
    let mut door = D::with(&alice, "news", Start::Live, &options).await;
    server.admin.publish_numbers("news", 1..=3).await;
    let seen = door.messages(3).await;
    let acknowledged = json!({"cursor": seen[0].cursor});
    alice.post("/topics/news/consumers/tab/ack", &acknowledged).await.expect(200);
    ends(&mut door, end).await;
    server.admin.publish_numbers("news", 4..=5).await;
    let fresh = server.nobody().signed_in(&token("alice", &json!({})));
    let mut door = D::with(&fresh, "news", Start::Live, &options).await;
    assert_eq!(numbers(&door.messages(4).await), [2, 3, 4, 5]);
}

/// A socket that sends a fresh token in time notices nothing.
#[tokio::test]
async fn a_fresh_token_in_time_loses_nothing() {
    let server = server();
    let (alice, end) = for_a_moment(&server, &json!({}));
    let mut door = RawWs::to(&alice, "news", Start::Live).await;
    server.admin.publish("news", 1.into()).await;
    let fresh = token("alice", &json!({}));
    assert_eq!(door.ask(json!({"type": "auth", "token": fresh})).await["type"], "ack");
    within("end of the old token", async {
        while now() <= end + 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    alice.get("/topics").await.expect_error(401, "UNAUTHENTICATED");
    server.admin.publish("news", 2.into()).await;
    assert_eq!(numbers(&door.messages(2).await), [1, 2]);
    // It may also publish and subscribe by the fresh one.
    door.subscribe("other", Start::Live, &Options::default()).await.unwrap();
    assert_eq!(door.ask(json!({"type": "publish", "topic": "other", "data": 3})).await["type"], "ack");
    assert_eq!(numbers(&door.messages(1).await), [3]);
}

/// Credentials that came by a message end in the same way as those of a header.
#[tokio::test]
async fn credentials_of_a_message_expire_as_those_of_a_header() {
    let server = server();
    let expires = now() + 2;
    let short = token("alice", &json!({"exp": expires}));
    let mut raw = RawWs::open(server.nobody()).await;
    assert_eq!(raw.ask(json!({"type": "auth", "token": short})).await["type"], "ack");
    raw.subscribe("news", Start::Live, &Options::default()).await.unwrap();
    let mut sockets = Vec::new();
    for (protocol, start, id) in [("graphql-transport-ws", "subscribe", "a"), ("graphql-ws", "start", "b")] {
        let mut socket = graphql_socket(server.nobody(), protocol, &json!({"token": short})).await;
        assert_eq!(socket.json().await["type"], "connection_ack", "{protocol}");
        let payload = json!({"query": "subscription { messages(topic: \"news\") { data } }"});
        socket.send(json!({"id": id, "type": start, "payload": payload}).to_string()).await;
        sockets.push(socket);
    }
    server.admin.wait_for_subscribers("news", 3).await;
    ends(&mut raw, expires + LEEWAY).await;
    for mut socket in sockets {
        let mut text = socket.text().await;
        while text.contains("\"ka\"") {
            text = socket.text().await;
        }
        assert!(text.contains("UNAUTHENTICATED"), "{text}");
    }
    // On `/ws` one may go on after that with a fresh one.
    let fresh = token("alice", &json!({}));
    assert_eq!(raw.ask(json!({"type": "auth", "token": fresh})).await["type"], "ack");
    raw.subscribe("news", Start::Last(1), &Options::default()).await.unwrap();
    server.admin.publish("news", 1.into()).await;
    assert_eq!(numbers(&raw.messages(1).await), [1]);
}
