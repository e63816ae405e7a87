//! HTTP to the letter: what RFC 9110, 9112 and 6455 say of requests, at every door.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::{
    doors::{
        Door, Options, Start, numbers,
        raw_ws::Socket,
        sse::{EventStream, code_in},
    },
    harness::{DEADLINE, TestServer, encode},
    raw::{Head, Raw},
};

every_pushing_door! {
    names_of_dots,
    times_of_every_kind,
}

const KEY: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SUBSCRIPTION: &str = "/graphql?query=subscription%7Bmessages(topic:%22news%22)%7Bdata%7D%7D";

/// A request without a body, each header line with its end; the head of the response. A stream's body is left alone.
async fn head_of(server: &TestServer, request: &str, headers: &str) -> (Raw, Head) {
    let mut raw = Raw::connect(server.addr).await;
    let version = if request.contains("HTTP/1.") { "" } else { " HTTP/1.1" };
    raw.write(format!("{request}{version}\r\nHost: x\r\n{headers}\r\n")).await;
    let head = raw.head().await.unwrap_or_else(|| panic!("no response to {request} {headers}"));
    (raw, head)
}

/// The same with the body.
async fn ask(server: &TestServer, request: &str, headers: &str) -> (Head, String) {
    let (mut raw, head) = head_of(server, request, headers).await;
    let length = head.headers.get("content-length").unwrap_or_else(|| panic!("{request} {headers}: {head:?}"));
    let body = raw.exactly(length.parse().unwrap()).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn other_protocols_are_no_reason_to_refuse() {
    let server = TestServer::start();
    server.create("news").await;
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
    let unlisted = format!("Upgrade: websocket\r\n{KEY}");
    for upgrade in [h2c, "Upgrade:\r\n", "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n", &unlisted] {
        for path in ["/graphql?query=%7Bhealth%7Bstatus%7D%7D", "/health", "/topics/news/messages"] {
            let (head, body) = ask(&server, &format!("GET {path}"), upgrade).await;
            assert_eq!(head.status, 200, "{path} {upgrade}: {body}");
        }
        for path in [SUBSCRIPTION, "/topics/news/messages"] {
            let headers = format!("Accept: text/event-stream\r\n{upgrade}");
            assert_eq!(head_of(&server, &format!("GET {path}"), &headers).await.1.status, 200, "{path} {upgrade}");
        }
        for path in ["/ws", "/graphql/ws"] {
            let (head, _) = ask(&server, &format!("GET {path}"), upgrade).await;
            assert_eq!((head.status, head.headers["upgrade"].as_str()), (426, "websocket"), "{path} {upgrade}");
            assert_eq!(head.headers["sec-websocket-version"], "13");
        }
    }
    let websocket = format!("Connection: upgrade\r\nUpgrade: websocket\r\n{KEY}");
    let (head, _) = ask(&server, "GET /graphql?query=%7Bhealth%7Bstatus%7D%7D HTTP/1.0", &websocket).await;
    assert_eq!(head.status, 200, "{head:?}");
    // One of several protocols, in any case, over several lines.
    let several =
        format!("connection: keep-alive\r\nConnection: UPGRADE\r\nUpgrade: h2c,\r\nUpgrade: WebSocket\r\n{KEY}");
    for path in ["/ws", "/graphql", "/graphql/ws"] {
        assert_eq!(head_of(&server, &format!("GET {path}"), &several).await.1.status, 101, "{path}");
    }
}

#[tokio::test]
async fn handshakes_have_their_headers_once() {
    let server = TestServer::start();
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    for path in ["/ws", "/graphql", "/graphql/ws"] {
        for repeated in ["Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"] {
            let (head, body) = ask(&server, &format!("GET {path}"), &format!("{upgrade}{KEY}{repeated}")).await;
            assert_eq!((head.status, code_in(&body).as_str()), (400, "BAD_REQUEST"), "{path} {repeated}");
        }
        let odd = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBs,SBub25jZQ==\r\n";
        assert_eq!(ask(&server, &format!("GET {path}"), &format!("{upgrade}{odd}")).await.0.status, 400);
    }
    // Subprotocols are a list, over several lines, too.
    let offers = "Sec-WebSocket-Protocol: soap, wamp\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n";
    let (_, head) = head_of(&server, "GET /graphql", &format!("{upgrade}{KEY}{offers}")).await;
    assert_eq!((head.status, head.headers["sec-websocket-protocol"].as_str()), (101, "graphql-transport-ws"));
}

/// What HEAD asks for is not done: no topic, no consumer, no subscription, no taking over.
#[tokio::test]
async fn head_is_safe() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    let accept = "Accept: text/event-stream\r\n";
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{accept}\r\n");
    let live = "/topics/news/messages?consumer=worker&ack=EXPLICIT";
    let mut live = EventStream::open(&server, &request(live)).await.unwrap();
    assert_eq!(live.next().await.unwrap().event, "consumer");
    let subscription = |arguments: &str| {
        format!("/graphql?query={}", encode(&format!("subscription {{ messages({arguments}) {{ data }} }}")))
    };
    for path in [
        "/topics/news/messages?consumer=worker".to_owned(),
        "/topics/news/messages?consumer=made-by-head".to_owned(),
        "/topics/made-by-head/messages?last=3".to_owned(),
        subscription(r#"topic: "news", consumer: "worker""#),
        subscription(r#"topic: "news", consumer: "made-by-head""#),
        subscription(r#"topic: "made-by-head""#),
    ] {
        let (mut raw, head) = head_of(&server, &format!("HEAD {path}"), accept).await;
        assert_eq!((head.status, head.headers.get("content-length")), (200, None), "{path}: {head:?}");
        assert!(head.headers["content-type"].starts_with("text/event-stream"), "{path}");
        // The connection serves the next request.
        raw.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(raw.response().await.unwrap().0.status, 200, "{path}");
    }
    let consumers = server.get("/topics/news/consumers").await.expect(200);
    let consumers = consumers["consumers"].as_array().unwrap();
    assert_eq!(consumers.len(), 1, "{consumers:?}");
    assert_eq!((&consumers[0]["ack"], &consumers[0]["connected"]), (&json!("EXPLICIT"), &json!(true)));
    server.get("/topics/made-by-head").await.expect_error(404, "TOPIC_NOT_FOUND");
    server.publish("news", 2.into()).await;
    assert_eq!(live.next().await.unwrap().event, "message");
    // What GET refuses is refused.
    for path in ["/topics/news/messages?ack=AUTO", "/topics/news/messages?after=x", "/topics/*x/messages"] {
        assert_eq!(head_of(&server, &format!("HEAD {path}"), accept).await.1.status, 400, "{path}");
    }
    // A reserved stream waits for the request that reads it.
    let token = server.send(server.request(Method::PUT, "/graphql")).await.text;
    let path = format!("/graphql?token={token}");
    assert_eq!(head_of(&server, &format!("HEAD {path}"), accept).await.1.status, 200);
    assert_eq!(head_of(&server, &format!("GET {path}"), accept).await.1.status, 200);
}

#[tokio::test]
async fn head_has_the_length_of_get() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    for path in [
        "/openapi.json",
        "/topics",
        "/topics/news",
        "/topics/news/messages",
        "/graphql?query=%7Btopics%7BtotalCount%7D%7D",
        "/nothing",
        "/topics/%ff",
        "/publish",
        "/ws",
    ] {
        let (get, _) = ask(&server, &format!("GET {path}"), "").await;
        let (_, head) = head_of(&server, &format!("HEAD {path}"), "").await;
        assert_eq!(head.headers["content-length"], get.headers["content-length"], "{path}");
        assert_ne!(head.headers["content-length"], "0", "{path}");
        assert_eq!(head.status, get.status, "{path}");
    }
}

#[tokio::test]
async fn accept_is_weighed() {
    let server = TestServer::start();
    server.create("news").await;
    for (accept, is_stream) in [
        ("Accept: TEXT/Event-Stream\r\n", true),
        ("Accept: text/event-stream;q=0.5, application/json;q=0.1\r\n", true),
        ("Accept: text/event-stream, application/json\r\n", true),
        ("Accept: text/html\r\nAccept: text/event-stream\r\n", true),
        ("Accept: text/*\r\n", true),
        ("Accept: text/event-stream;q=0\r\n", false),
        ("Accept: text/event-stream; q=0.000, */*\r\n", false),
        ("Accept: text/event-stream;q=0.1, application/json\r\n", false),
        ("Accept: text/html;x=\",text/event-stream,\"\r\n", false),
        ("Accept: */*\r\n", false),
        ("", false),
    ] {
        let (_, head) = head_of(&server, "GET /topics/news/messages", accept).await;
        let is_event_stream = head.headers["content-type"].starts_with("text/event-stream");
        assert_eq!((head.status, is_event_stream), (200, is_stream), "{accept}");
        assert_eq!(head.headers["vary"], "accept");
        // A subscription has no page, so there a stream is what it takes, or nothing.
        let named = is_stream && !accept.contains("text/*");
        if named || accept.contains("q=0\r") || accept.contains("0.000") {
            let (_, head) = head_of(&server, &format!("GET {SUBSCRIPTION}"), accept).await;
            assert_eq!(head.status == 200, named, "{accept}: {head:?}");
        }
    }
}

/// Which of two lines counts is not guessed.
#[tokio::test]
async fn what_may_be_given_once() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=3).await;
    let page = server.get("/topics/news/messages").await.expect(200);
    let cursor = page["messages"][1]["cursor"].as_str().unwrap();
    let once = format!("Accept: text/event-stream\r\nLast-Event-ID: {cursor}\r\n");
    for path in ["/topics/news/messages", SUBSCRIPTION] {
        let twice = format!("{once}last-event-id: {cursor}\r\n");
        let (head, body) = ask(&server, &format!("GET {path}"), &twice).await;
        assert!(head.status == 400 && body.contains("Last-Event-ID: may be given only once"), "{path}: {body}");
        assert_eq!(head_of(&server, &format!("GET {path}"), &once).await.1.status, 200);
    }
    let kind = "Content-Type: application/json\r\n";
    for path in ["/publish", "/topics", "/graphql"] {
        let (head, body) = ask(&server, &format!("POST {path}"), &format!("{kind}{kind}Content-Length: 0\r\n")).await;
        assert!(head.status == 400 && body.contains("Content-Type"), "{path}: {body}");
    }
    for hosts in ["", "Host: a\r\nHost: b\r\n", "Host: a/b\r\n"] {
        let mut raw = Raw::connect(server.addr).await;
        raw.write(format!("GET /health HTTP/1.1\r\n{hosts}\r\n")).await;
        let (head, body) = raw.response().await.unwrap();
        assert_eq!((head.status, code_in(&body).as_str()), (400, "BAD_REQUEST"), "{hosts}");
    }
}

#[tokio::test]
async fn every_error_has_the_body() {
    let server = TestServer::start();
    server.create("news").await;
    let long = format!("GET /topics/{}", "x".repeat(80_000));
    let many = format!("X: {}\r\n", "x".repeat(300_000));
    for (request, headers, status, code) in [
        ("GET /topics/%ff/messages", "", 400, "INVALID_TOPIC"),
        ("GET /topics/%ff", "", 400, "INVALID_TOPIC"),
        ("DELETE /topics/news/consumers/%ff", "", 400, "INVALID_TOPIC"),
        ("GET /topics/logs.>/messages", "", 400, "BAD_REQUEST"),
        ("GET /topics/a b", "", 400, "BAD_REQUEST"),
        ("GET /health", "no colon\r\n", 400, "BAD_REQUEST"),
        ("GET /graphql/assets/%ff", "", 404, "NOT_FOUND"),
        ("GET /nothing", "", 404, "NOT_FOUND"),
        (&long, "", 414, "BAD_REQUEST"),
        ("GET /health", &many, 431, "BAD_REQUEST"),
        ("DELETE /publish", "", 405, "METHOD_NOT_ALLOWED"),
        ("PATCH /topics", "", 405, "METHOD_NOT_ALLOWED"),
        ("PATCH /graphql", "", 405, "METHOD_NOT_ALLOWED"),
        ("POST /ws", "", 405, "METHOD_NOT_ALLOWED"),
    ] {
        let (head, body) = ask(&server, request, headers).await;
        let shown = &request[..request.len().min(60)];
        assert_eq!((head.status, code_in(&body).as_str()), (status, code), "{shown}: {body}");
        assert!(head.headers["content-type"].starts_with("application/json"), "{shown}: {head:?}");
        if status == 405 {
            let allow = &head.headers["allow"];
            assert!(!allow.is_empty() && body.contains(allow.as_str()), "{shown}: {allow}, {body}");
        }
    }
    let (head, _) = ask(&server, "PATCH /topics", "").await;
    assert_eq!(head.headers["allow"], "GET, HEAD, POST");
    // A request that cannot be read, behind one that can.
    let mut raw = Raw::connect(server.addr).await;
    raw.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /> HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(raw.response().await.unwrap().0.status, 200);
    let (head, body) = raw.response().await.unwrap();
    assert!(head.status == 400 && body.contains("percent-encoded"), "{body}");
}

/// A client that writes all of its body before it reads gets to read why that is refused.
#[tokio::test]
async fn refused_bodies_are_read_to_their_end() {
    let server = TestServer::start();
    let body = vec![b' '; 24 << 20];
    let length = format!("Content-Length: {}\r\n", body.len());
    let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let coding = "Transfer-Encoding: chunked\r\n";
    let kind = "Content-Type: application/json\r\n";
    let other = "Content-Type: text/plain\r\n";
    for (path, headers, body, status) in [
        ("/publish", length.as_str(), &body, 413),
        ("/publish", coding, &chunked, 413),
        ("/graphql", &format!("{kind}{length}"), &body, 413),
        ("/graphql", &format!("{kind}{coding}"), &chunked, 413),
        // Others are refused before their body is read.
        ("/graphql", &format!("{other}{coding}"), &chunked, 415),
        ("/nothing", coding, &chunked, 404),
        ("/health", coding, &chunked, 405),
    ] {
        let mut raw = Raw::connect(server.addr).await;
        raw.write(format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        let wrote = tokio::time::timeout(DEADLINE, tokio::io::AsyncWriteExt::write_all(&mut raw.stream, body)).await;
        assert!(matches!(wrote, Ok(Ok(()))), "{path} {headers}: {wrote:?}");
        let (head, _) = raw.response().await.unwrap_or_else(|| panic!("{path} {headers}: no response"));
        assert_eq!(head.status, status, "{path} {headers}");
    }
}

#[tokio::test]
async fn forms_of_bodies() {
    let server = TestServer::start();
    let query = json!({"query": "{ health { status } }"}).to_string();
    let message = json!({"topic": "news", "data": "ü"}).to_string();
    for (path, body) in [("/publish", message), ("/graphql", query)] {
        let post = |kind: &str, body: &str| {
            server.request(Method::POST, path).header("content-type", kind).body(body.to_owned())
        };
        let marked = format!("\u{feff}{body}");
        for kind in ["application/json", "Application/JSON; Charset=\"UTF-8\"", "application/json;x=y; charset=utf8"] {
            server.send(post(kind, &body)).await.expect(200);
            server.send(post(kind, &marked)).await.expect(200);
        }
        for coding in ["gzip", "br", "identity, gzip"] {
            let response = server.send(post("application/json", &body).header("content-encoding", coding)).await;
            assert!(response.status == 415 && response.text.contains("compressed"), "{path} {coding}: {response:?}");
            assert_eq!(response.headers["accept-encoding"], "identity");
        }
        server.send(post("application/json", &body).header("content-encoding", "IDENTITY")).await.expect(200);
        for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let response = server.send(post(kind, "topic=news&data=1")).await;
            assert!(response.status == 415 && response.text.contains("application/json"), "{path}: {response:?}");
        }
        let response = server.send(post("application/json; charset=utf-16", &body)).await;
        assert!(response.status == 415 && response.text.to_lowercase().contains("utf-8"), "{path}: {response:?}");
    }
    // What `curl -d` sends.
    let form = server.request(Method::POST, "/publish").header("content-type", "application/x-www-form-urlencoded");
    server.send(form.body(r#" {"topic":"news","data":1}"#)).await.expect(200);
}

/// Most clients cannot ask for a path with such a segment, so nothing gets such a name.
async fn names_of_dots<D: Door>() {
    let server = TestServer::start();
    for name in [".", ".."] {
        let refused = D::open(&server).await.subscribe(name, Start::Live, &Options::default()).await;
        assert_eq!(refused.unwrap_err(), "INVALID_TOPIC", "{name}");
        let consumer = Options::consumer(if name == "." { "." } else { ".." }, "AUTO");
        let refused = D::open(&server).await.subscribe("news", Start::Live, &consumer).await;
        assert_eq!(refused.unwrap_err(), "BAD_REQUEST", "{name}");
        server.post("/topics", &json!({"name": name})).await.expect_error(400, "INVALID_TOPIC");
        let response = server.post("/publish", &json!({"topic": name, "data": 1})).await;
        response.expect_error(400, "INVALID_TOPIC");
        assert!(response.text.contains("most HTTP clients"), "{response:?}");
        for mutation in ["createTopic(name: $name) { name }", "publish(topic: $name, data: 1) { offset }"] {
            let query = format!("mutation ($name: String!) {{ {mutation} }}");
            assert_eq!(server.graphql_error(&query, json!({"name": name})).await["code"], "INVALID_TOPIC");
        }
    }
    assert_eq!(server.get("/topics").await.expect(200)["topics"], json!([]));
    // Others of dots are no such segments.
    server.publish("...", 1.into()).await;
    assert_eq!(server.get("/topics/...").await.expect(200)["messages"], 1);
}

async fn times_of_every_kind<D: Door>() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=2).await;
    for time in [
        "2001-01-01T00:00:00Z",
        "2001-01-01t00:00:00.123456789z",
        "2001-01-01T00:00:00.1234567890123Z",
        "2001-01-01T00:00:00+14:00",
        "2001-01-01T00:00:00-00:00",
        "0001-01-01T00:00:00-12:00",
        "1990-12-31T23:59:60Z",
    ] {
        let mut door = D::open(&server).await;
        let subscribed = door.subscribe("news", Start::Since(time.to_owned()), &Options::default()).await;
        assert_eq!(subscribed, Ok(()), "{time}");
        assert_eq!(numbers(&door.messages(2).await), [1, 2], "{time}");
    }
    for time in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999-23:59"] {
        let mut door = D::open(&server).await;
        let subscribed = door.subscribe("news", Start::Since(time.to_owned()), &Options::default()).await;
        assert_eq!(subscribed, Ok(()), "{time}");
        let page = server.get(&format!("/topics/news/messages?since={}", encode(time))).await.expect(200);
        assert_eq!(page["messages"], json!([]), "{time}");
    }
    for time in ["2001-01-01", "2001-01-01T00:00:00", "yesterday", "2001-02-30T00:00:00Z", "2001-01-01T00:00:00Z[UTC]"]
    {
        let refused =
            D::open(&server).await.subscribe("news", Start::Since(time.to_owned()), &Options::default()).await;
        assert!(refused.is_err(), "{time}");
    }
}

/// A `+` in an address is a space.
#[tokio::test]
async fn a_lost_plus_is_named() {
    let server = TestServer::start();
    server.create("news").await;
    let path = "/topics/news/messages?since=2001-01-01T00:00:00";
    for headers in ["", "Accept: text/event-stream\r\n"] {
        let (head, body) = ask(&server, &format!("GET {path}+01:00"), headers).await;
        assert!(head.status == 400 && body.contains("%2B"), "{body}");
    }
    assert_eq!(server.get(&format!("{path}%2B01:00")).await.status, 200);
    let query = encode("query ($t: DateTime) { topic(name: \"news\") { messages(since: $t) { totalCount } } }");
    let variables = encode(r#"{"t":"2001-01-01T00:00:00 01:00"}"#);
    let response = server.get(&format!("/graphql?query={query}&variables={variables}")).await;
    assert!(response.text.contains("%2B"), "{response:?}");
}

#[tokio::test]
async fn a_slash_at_the_end_does_not_count() {
    let server = TestServer::start();
    server.post("/topics/", &json!({"name": "news"})).await.expect(201);
    server.post("/publish/", &json!({"topic": "news", "data": 1})).await.expect(200);
    for path in ["/topics/", "/topics/news/", "/topics/news/messages/?last=1", "/health/", "/stats/", "/health/live/"] {
        server.get(path).await.expect(200);
    }
    server.get("/graphql/?query=%7Bhealth%7Bstatus%7D%7D").await.expect(200);
    server.post("/graphql/", &json!({"query": "{ health { status } }"})).await.expect(200);
    for path in ["/ws/", "/graphql/", "/graphql/ws/"] {
        Raw::websocket(server.addr, path, None).await;
    }
    // The links of a page are relative, so a browser goes to the page's own address.
    let (_, head) = head_of(&server, "GET /graphql/?query=%7B%7D", "Accept: text/html, */*;q=0.8\r\n").await;
    assert_eq!((head.status, head.headers["location"].as_str()), (308, "../graphql?query=%7B%7D"));
    server.get("/nothing/").await.expect_error(404, "NOT_FOUND");
}

/// A browser sees no status of a handshake, so a socket is opened for the code.
#[tokio::test]
async fn one_socket_too_many_is_closed_with_1013() {
    let server = TestServer::with(|config| config.server.max_connections = 1);
    let _first = Socket::try_connect(&server, "/ws", None).await.unwrap();
    for path in ["/ws", "/graphql"] {
        let mut second = Raw::websocket(server.addr, path, None).await;
        assert_eq!(second.close_code().await, Some(1013), "{path}");
    }
    let (head, body) = ask(&server, "GET /health", "").await;
    assert_eq!(
        (head.status, code_in(&body).as_str(), head.headers["retry-after"].as_str()),
        (503, "LIMIT_REACHED", "1")
    );
    // More clients at once than are told so: none is waited for, and those within the bound go on.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Raw::connect(server.addr).await);
    }
    let last = silent.last_mut().unwrap();
    tokio::time::timeout(Duration::from_secs(5), last.closed()).await.unwrap();
}
