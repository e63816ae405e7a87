//! Signing in over a WebSocket, and what is tried instead.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ADMIN_KEY, Innocent, Restricted, graphql_socket, key_of, metric, rule, token};
use crate::{
    doors::{Door, Event, Options, RawWs, Start, numbers, raw_ws::Socket},
    harness::{DEADLINE, eventually},
    process::Process,
};

fn rules() -> String {
    "anonymous = { subscribe = [\"public.>\"] }\n".to_owned()
        + &rule("alice", "subscribe = [\">\"]")
        + &rule("bob", "subscribe = [\">\"]\npublish = [\">\"]")
}

fn auth(credential: &str) -> Value {
    json!({"type": "auth", "token": credential})
}

#[tokio::test]
async fn three_refused_frames_close_the_connection() {
    let server = Restricted::start(&rules());
    for frame in [auth("psk_wrong"), json!({"type": "auth"}), json!({"type": "auth", "token": {"a": 1}}), auth("")] {
        let mut socket = Socket::connect(server.nobody(), "/ws", None).await;
        for _ in 0..3 {
            socket.send(frame.to_string()).await;
            let reply = socket.json().await;
            assert_eq!(reply["error"]["code"], "UNAUTHENTICATED", "{frame}: {reply}");
        }
        assert_eq!(socket.closed().await, Some(4401), "{frame}");
    }
    // A good one in between begins the count again, and what was subscribed stays.
    let mut door = RawWs::open(server.nobody()).await;
    for _ in 0..3 {
        for _ in 0..2 {
            assert_eq!(door.ask(auth("psk_wrong")).await["error"]["code"], "UNAUTHENTICATED");
        }
        assert_eq!(door.ask(auth(&key_of("alice"))).await["type"], "ack");
    }
    door.assert_open().await;
}

/// Whoever is granted nothing has three frames of any kind.
#[tokio::test]
async fn nobody_has_three_frames() {
    // It is not the silence that ends these connections.
    let server = Restricted::with("", |config| config.graphql.connection_init_timeout = 10 * DEADLINE);
    // A cursor that is well-formed, so that nothing else is wrong.
    let cursor = server.admin.publish("news", 1.into()).await["cursor"].clone();
    let frames = [
        json!({"type": "subscribe", "topic": "news"}),
        json!({"type": "publish", "topic": "news", "data": 1}),
        json!({"type": "ack", "topic": "news", "consumer": "a", "cursor": cursor}),
        json!({"type": "subscribe", "topic": ">"}),
    ];
    for first in 0..frames.len() {
        let mut socket = Socket::connect(server.nobody(), "/ws", None).await;
        for number in 0..3 {
            socket.send(frames[(first + number) % frames.len()].to_string()).await;
        }
        assert_eq!(socket.closed().await, Some(4401));
    }
}

/// The process's memory and the log stay bounded, whoever tries keys as fast as it can, and others are served.
#[tokio::test]
async fn a_flood_of_credentials() {
    const CONNECTIONS: usize = 8;
    const ROUNDS: usize = 100;
    let process = Process::start(&[
        ("API_KEY", ADMIN_KEY),
        ("JWT_SECRET", super::TOKEN_SECRET),
        // The innocent one publishes as fast as it receives.
        ("MAX_PUBLISH_RATE", "0"),
    ]);
    let admin = process.client.signed_in(ADMIN_KEY);
    let mut innocent = Innocent::of(&admin).await;
    innocent.receives().await;
    let before = process.memory();
    let attackers: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let client = process.client.clone();
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let mut socket = Socket::connect(&client, "/ws", None).await;
                    for frame in 0..20 {
                        // Long ones, each another one, some of the form of a token.
                        let guess = format!("{number}.{round}.{frame}{}", "x".repeat(20_000));
                        socket.feed(auth(&guess).to_string()).await;
                    }
                    socket.flush().await;
                    assert!(matches!(socket.closed().await, Some(4401) | None));
                }
            })
        })
        .collect();
    while !attackers.iter().all(tokio::task::JoinHandle::is_finished) {
        innocent.receives().await;
    }
    for attacker in attackers {
        attacker.await.unwrap();
    }
    innocent.receives().await;
    // Three frames of each connection counted.
    let text = admin.get("/metrics").await.text;
    let refused = text.lines().filter_map(|line| line.strip_prefix("pubsub_auth_refused_total{"));
    let refused: u64 = refused.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(refused, 3 * (CONNECTIONS * ROUNDS) as u64);
    let lines = process.log().iter().filter(|line| line.contains("audit")).count();
    assert!(lines < refused as usize / 2, "{lines} lines for {refused} refusals");
    assert!(process.memory() < before + (24 << 20), "{before} -> {}", process.memory());
}

#[tokio::test]
async fn a_connection_is_not_passed_on_to_another_principal() {
    let server = Restricted::start(&rules());
    let mut by_header = RawWs::to(&server.key("alice"), "news", Start::Live).await;
    let mut by_frame = RawWs::open(server.nobody()).await;
    assert_eq!(by_frame.ask(auth(&key_of("alice"))).await["type"], "ack");
    by_frame.subscribe("news", Start::Live, &Options::default()).await.unwrap();
    for door in [&mut by_header, &mut by_frame] {
        for credential in [key_of("bob"), ADMIN_KEY.to_owned(), token("bob", &json!({}))] {
            let reply = door.ask(auth(&credential)).await;
            assert_eq!(reply["error"]["code"], "FORBIDDEN", "{reply}");
            assert!(!reply.to_string().contains(&credential));
        }
        // It is still alice's, who may not publish.
        let reply = door.ask(json!({"type": "publish", "topic": "news", "data": 1})).await;
        assert_eq!(reply["error"]["code"], "FORBIDDEN", "{reply}");
        assert_eq!(door.ask(auth(&key_of("alice"))).await["type"], "ack");
    }
    // A token of the same name is the same principal, and says what it may do from now on.
    assert_eq!(by_frame.ask(auth(&token("alice", &json!({})))).await["type"], "ack");
    assert_eq!(by_frame.ask(json!({"type": "publish", "topic": "news", "data": 2})).await["type"], "ack");
    for door in [&mut by_header, &mut by_frame] {
        assert_eq!(numbers(&door.messages(1).await), [2]);
    }
    // A good header counts, and what `connection_init` says does not.
    for (payload, protocol) in
        [(json!({"token": key_of("bob")}), "graphql-transport-ws"), (json!({"apiKey": "psk_wrong"}), "graphql-ws")]
    {
        let mut socket = graphql_socket(&server.key("alice"), protocol, &payload).await;
        assert_eq!(socket.json().await["type"], "connection_ack");
        let query = "mutation { publish(topic: \"news\", data: 3) { offset } }";
        let kind = if protocol == "graphql-ws" { "start" } else { "subscribe" };
        socket.send(json!({"id": "1", "type": kind, "payload": {"query": query}}).to_string()).await;
        let mut text = socket.text().await;
        while text.contains("\"ka\"") {
            text = socket.text().await;
        }
        assert!(text.contains("FORBIDDEN") && text.contains("alice"), "{text}");
    }
}

#[tokio::test]
async fn from_anonymous_to_a_name_subscriptions_stay() {
    let server = Restricted::start(&rules());
    let mut door = RawWs::to(server.nobody(), "public.news", Start::Live).await;
    let refused = door.subscribe("news", Start::Live, &Options::default()).await.unwrap_err();
    assert_eq!(refused, "UNAUTHENTICATED", "it may be somebody who may");
    assert_eq!(door.ask(auth(&key_of("alice"))).await["type"], "ack");
    door.subscribe("news", Start::Live, &Options::default()).await.unwrap();
    server.admin.publish("public.news", 1.into()).await;
    server.admin.publish("news", 2.into()).await;
    assert_eq!(numbers(&door.messages(2).await), [1, 2]);
    // What anonymous had goes when anonymous loses it, what alice has stays.
    server.write_rules(&rule("alice", "subscribe = [\">\"]"));
    let Event::Error(code) = door.event().await else { panic!("public.news was to end") };
    assert_eq!(code, "UNAUTHENTICATED");
    server.admin.publish("public.news", 3.into()).await;
    server.admin.publish("news", 4.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [4]);
}

/// Sockets that say nothing are closed by themselves, and count for nobody else.
#[tokio::test]
async fn silence_ends() {
    let patience = Duration::from_millis(300);
    let server = Restricted::with(&rule("alice", "subscribe = [\">\"]"), |config| {
        config.graphql.connection_init_timeout = patience;
    });
    let mut innocent = Innocent::of(&server.admin).await;
    let mut sockets = Vec::new();
    for _ in 0..100 {
        sockets.push((Socket::connect(server.nobody(), "/ws", None).await, 4401));
        sockets.push((Socket::connect(server.nobody(), "/graphql", Some("graphql-transport-ws")).await, 4408));
        sockets.push((Socket::connect(server.nobody(), "/graphql", Some("graphql-ws")).await, 4408));
    }
    innocent.receives().await;
    for (mut socket, code) in sockets {
        // Pings are no sign of anybody.
        socket.send(r#"{"type":"ping"}"#).await;
        assert_eq!(socket.closed().await, Some(code));
    }
    innocent.receives().await;
    eventually("no more connections", || async { (server.metric("pubsub_connections").await <= 2).then_some(()) })
        .await;
    // One that has signed in may be silent.
    let mut door = RawWs::open(&server.key("alice")).await;
    tokio::time::sleep(2 * patience).await;
    door.assert_open().await;
    // One that loses its key is nobody's from then on.
    server.write_rules("");
    assert_eq!(door.event().await, Event::Closed(Some(4401)));
}

#[tokio::test]
async fn graphql_connections_keep_their_protocol() {
    let server = Restricted::with(&rules(), |config| {
        config.graphql.connection_init_timeout = Duration::from_millis(500);
    });
    let key = key_of("alice");
    let modern = "graphql-transport-ws";
    for payload in [
        json!({"token": "psk_wrong"}),
        json!({"Authorization": "Basic YWxpY2U6"}),
        json!({"Authorization": key}),
        json!({"apiKey": 12345}),
        json!({"token": {"token": key}}),
        json!({"headers": {"Authorization": "Bearer psk_wrong"}}),
    ] {
        for protocol in [modern, "graphql-ws"] {
            let mut socket = graphql_socket(server.nobody(), protocol, &payload).await;
            assert_eq!(socket.closed().await, Some(4403), "{protocol} {payload}");
        }
    }
    // A second one, before and after the first was acknowledged.
    for wait in [false, true] {
        let mut socket = graphql_socket(server.nobody(), modern, &json!({"token": key})).await;
        if wait {
            assert_eq!(socket.json().await["type"], "connection_ack");
        }
        socket.send(json!({"type": "connection_init", "payload": {"token": key_of("bob")}}).to_string()).await;
        assert_eq!(socket.closed().await, Some(4429), "{wait}");
    }
    let mut early = Socket::connect(server.nobody(), "/graphql", Some(modern)).await;
    let subscription = json!({"query": "subscription { messages(topic: \"public.news\") { data } }"});
    early.send(json!({"id": "1", "type": "subscribe", "payload": subscription}).to_string()).await;
    assert_eq!(early.closed().await, Some(4401), "operations come after connection_init");
    let mut late = Socket::connect(server.nobody(), "/graphql", Some(modern)).await;
    assert_eq!(late.closed().await, Some(4408));
    // Anonymous may be here for what it is granted, and is told to sign in for the rest.
    let mut anonymous = graphql_socket(server.nobody(), modern, &json!({})).await;
    assert_eq!(anonymous.json().await["type"], "connection_ack");
    anonymous.send(json!({"id": "1", "type": "subscribe", "payload": subscription}).to_string()).await;
    let secret = json!({"query": "subscription { messages(topic: \"news\") { data } }"});
    anonymous.send(json!({"id": "2", "type": "subscribe", "payload": secret}).to_string()).await;
    let refused = anonymous.json().await;
    assert_eq!(
        (&refused["id"], &refused["payload"][0]["extensions"]["code"]),
        (&"2".into(), &"UNAUTHENTICATED".into())
    );
    server.admin.wait_for_subscribers("public.news", 1).await;
    server.admin.publish("public.news", 1.into()).await;
    assert_eq!(anonymous.json().await["payload"]["data"]["messages"]["data"], 1);
    assert!(metric(&server.admin, "pubsub_auth_refused_total{reason=\"malformed\"}").await >= 6);
}
