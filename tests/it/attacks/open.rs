//! Servers without keys: an open one asks nobody, one with rules for anonymous alone lets nobody do more.

use reqwest::Method;
use serde_json::json;

use super::{code, graphql_socket, token};
use crate::{
    doors::{Door, Options, RawWs, Start, numbers},
    harness::TestServer,
};

/// Nobody knows these credentials, and an open server does not look at them.
#[tokio::test]
async fn an_open_server_ignores_credentials() {
    let server = TestServer::start();
    for credential in ["psk_unknown", "a.b.c", &token("alice", &json!({"exp": 1})), &"x".repeat(5_000)] {
        let client = server.client.signed_in(credential);
        let doors = pushing_doors!(D => {
            let topic = "news";
            let mut door = D::to(&client, topic, Start::Live).await;
            client.publish(topic, 1.into()).await;
            numbers(&door.messages(1).await)
        });
        assert!(doors.iter().all(|seen| seen == &[1]), "{doors:?}");
        client.get("/stats").await.expect(200);
        assert_eq!(client.get("/metrics").await.status, 200);
        client.create("explicit").await;
        client.delete("/topics/explicit").await.expect(200);
        let mut door = RawWs::open(&server).await;
        assert_eq!(door.ask(json!({"type": "auth", "token": credential})).await["type"], "ack");
        assert_eq!(door.ask(json!({"type": "publish", "topic": "news", "data": 1})).await["type"], "ack");
        for protocol in ["graphql-transport-ws", "graphql-ws"] {
            let mut socket = graphql_socket(&server, protocol, &json!({"Authorization": credential})).await;
            assert_eq!(socket.json().await["type"], "connection_ack", "{protocol}");
        }
        client.delete("/topics/news").await.expect(200);
    }
    // Malformed ones as well: a proxy in front may use the header for itself.
    for value in ["Basic YWxpY2U6c2VjcmV0", "Bearer", "Negotiate x", "\u{1}"] {
        let Ok(value) = reqwest::header::HeaderValue::from_str(value) else { continue };
        let request = server.request(Method::GET, "/topics").header("authorization", value.clone());
        assert_eq!(server.send(request.header("authorization", value)).await.status, 200);
    }
    let cookie = server.request(Method::GET, "/topics").header("cookie", "pubsub_auth=!!!");
    assert_eq!(server.send(cookie).await.status, 200);
    server.get("/topics?access_token=x").await.expect(200);
    // Consumers have no owners here, whoever says to be somebody.
    let options = Options::consumer("tab", "EXPLICIT");
    let mut one = RawWs::with(&server.client.signed_in("one"), "news", Start::Live, &options).await;
    let mut two = RawWs::with(&server.client.signed_in("two"), "news", Start::Live, &options).await;
    assert!(format!("{:?}", one.event().await).contains("CONSUMER_TAKEN_OVER"));
    server.publish("news", 2.into()).await;
    assert_eq!(numbers(&two.messages(1).await), [2]);
}

#[tokio::test]
async fn rules_for_anonymous_alone() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("access.toml");
    let rules = "anonymous = { subscribe = [\"public.>\"], publish = [\"public.chat\", \"drop.*\"] }";
    std::fs::write(&path, rules).unwrap();
    let server = TestServer::with(|config| config.access.access_file = path.to_str().unwrap().to_owned());
    server.publish("public.chat", 1.into()).await;
    server.publish("drop.box", 2.into()).await;
    let doors = pushing_doors!(D => {
        let mut all = D::to(&server, ">", Start::Last(10)).await;
        let seen = numbers(&all.messages(1).await);
        let refused = D::open(&server).await.subscribe("drop.box", Start::Live, &Options::default()).await.unwrap_err();
        (seen, refused)
    });
    for (seen, refused) in doors {
        assert_eq!((seen.as_slice(), refused.as_str()), (&[1][..], "UNAUTHENTICATED"));
    }
    // It sees what it may publish to, and its messages it does not.
    server.get("/topics/drop.box").await.expect(200);
    server.get("/topics/drop.box/messages").await.expect_error(401, "UNAUTHENTICATED");
    for (method, path, body) in [
        (Method::POST, "/publish", json!({"topic": "public.news", "data": 1})),
        (Method::POST, "/topics", json!({"name": "public.chat"})),
        (Method::DELETE, "/topics/public.chat", json!({})),
        (Method::PATCH, "/topics/public.chat", json!({"max_messages": 1})),
        (Method::GET, "/topics/secret", json!({})),
        (Method::GET, "/stats", json!({})),
        (Method::GET, "/metrics", json!({})),
        (Method::GET, "/topics/public.chat/consumers", json!({})),
    ] {
        let request = server.request(method, path);
        let request = if body == json!({}) { request } else { request.json(&body) };
        let response = server.send(request).await;
        assert_eq!((response.status, code(&response).as_str()), (401, "UNAUTHENTICATED"), "{path}");
    }
    // There are no credentials that this server knows.
    for credential in ["psk_unknown", "anonymous", &token("alice", &json!({}))] {
        let client = server.client.signed_in(credential);
        client.get("/topics").await.expect_error(401, "UNAUTHENTICATED");
    }
    // Consumers of anonymous are those of everybody who is anonymous, and of nobody else.
    let options = Options::consumer("tab", "EXPLICIT");
    let mut door = RawWs::with(&server, "public.chat", Start::Live, &options).await;
    let mut other = RawWs::with(&server, "public.chat", Start::Live, &options).await;
    assert!(format!("{:?}", door.event().await).contains("CONSUMER_TAKEN_OVER"));
    server.publish("public.chat", 3.into()).await;
    assert_eq!(numbers(&other.messages(1).await), [3]);
}
