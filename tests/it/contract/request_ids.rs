//! The ids of requests: the client's own, or new ones, on every response, and in the log.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::{
    harness::{TestServer, eventually},
    process::{Process, command},
    raw::Raw,
};

#[tokio::test]
async fn every_response_has_one() {
    let server = TestServer::start();
    server.create("news").await;
    let requests = [
        (Method::GET, "/health", String::new(), 200),
        (Method::GET, "/topics/none", String::new(), 404),
        (Method::POST, "/publish", json!({"topic": "news", "data": 1}).to_string(), 200),
        (Method::POST, "/publish", "junk".to_owned(), 400),
        (Method::DELETE, "/publish", String::new(), 405),
        (Method::POST, "/graphql", json!({"query": "{ topics { totalCount } }"}).to_string(), 200),
        (Method::POST, "/graphql", "junk".to_owned(), 400),
        (Method::GET, "/metrics", String::new(), 200),
    ];
    let mut made = BTreeSet::new();
    for (method, path, body, status) in &requests {
        let ask = |id: Option<&'static str>| {
            let request = server.request(method.clone(), path).header("content-type", "application/json");
            let request = request.body(body.clone());
            server.send(id.into_iter().fold(request, |request, id| request.header("x-request-id", id)))
        };
        let mine = ask(Some("0af7651916cd43dd-8448:eb21/1")).await;
        assert_eq!(
            (mine.status, &mine.headers["x-request-id"]),
            (*status, &"0af7651916cd43dd-8448:eb21/1".parse().unwrap())
        );
        assert_eq!(mine.headers.get_all("x-request-id").iter().count(), 1);
        for id in [None, Some("with space"), Some("\"quoted\""), Some("")] {
            let response = ask(id).await;
            assert_eq!(response.headers.get_all("x-request-id").iter().count(), 1);
            let id = response.headers["x-request-id"].to_str().unwrap().to_owned();
            assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
            assert!(made.insert(id), "an id was made twice");
        }
    }
    // What hyper serves, and what begins a WebSocket or a stream, too.
    for (request, status) in [
        ("GET /health HTTP/1.0\r\n\r\n", 200),
        (
            "GET /topics/news/messages HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nX-Request-Id: mine\r\n\r\n",
            200,
        ),
        (
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             X-Request-Id: mine\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            101,
        ),
    ] {
        let mut raw = Raw::connect(server.addr).await;
        raw.write(request).await;
        let head = raw.head().await.unwrap();
        assert_eq!(head.status, status, "{head:?}");
        let id = head.headers["x-request-id"].as_str();
        assert_eq!(id == "mine", request.contains("mine"), "{id}");
    }
}

/// What is logged changes while the server runs, and each response has its line then.
#[tokio::test]
async fn the_log_has_them_when_it_is_asked_for() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("settings.toml");
    let write = |log: &str| std::fs::write(&path, format!("log = \"{log}\"\n")).unwrap();
    write("info");
    let mut command = command(&[("HOST", "127.0.0.1"), ("PORT", "0")]);
    let server = Process::run(command.arg("--config").arg(&path).stdout(std::process::Stdio::null()));
    let ask = |id: &'static str| {
        let client = &server.client;
        async move { client.send(client.request(Method::GET, "/health").header("x-request-id", id)).await.expect(200) }
    };
    let has = |id: &str| {
        server.log().iter().any(|line| line.contains("responded") && line.contains(&format!("request={id}")))
    };
    let reread = |count: usize| server.log().iter().filter(|line| line.contains("SIGHUP: ")).count() == count;
    ask("before").await;
    write("info,pub_sub=debug");
    server.signal("HUP");
    eventually("the first SIGHUP", || async { reread(1).then_some(()) }).await;
    ask("meanwhile").await;
    eventually("a line for the response", || async { has("meanwhile").then_some(()) }).await;
    // What cannot be read changes nothing.
    write("info,,=");
    server.signal("HUP");
    eventually("the second SIGHUP", || async { reread(2).then_some(()) }).await;
    ask("still").await;
    eventually("a line for the response", || async { has("still").then_some(()) }).await;
    write("info");
    server.signal("HUP");
    eventually("the third SIGHUP", || async { reread(3).then_some(()) }).await;
    ask("after").await;
    assert!(!has("before") && !has("after"), "{:?}", server.log());
}
