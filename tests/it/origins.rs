//! Which pages may use the server from a browser: every route with every kind of origin.

use std::collections::HashMap;

use pub_sub::browser::AllowedOrigins;
use reqwest::Method;
use serde_json::Value;

use crate::{
    doors::{
        raw_ws::Socket,
        sse::{EventStream, code_in},
    },
    harness::TestServer,
    process::{Process, command},
    raw::{Head, Raw},
};

/// The host by which clients know the server.
const HOST: &str = "pubsub.example";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const STREAM: &str = "Accept: text/event-stream\r\n";
const HTML: &str = "Accept: text/html\r\n";
const SUBSCRIPTION: &str = "/graphql?query=subscription%7Bmessages(topic:%22news%22)%7Bdata%7D%7D";

fn server(setting: &str) -> TestServer {
    let allowed: AllowedOrigins = setting.parse().unwrap();
    TestServer::with(move |config| config.server.allowed_origins = allowed)
}

/// Asks without a body and returns the head of the response, and the body if its length is known.
async fn ask(server: &TestServer, host: &str, request: &str, headers: &str) -> (Head, String) {
    let mut raw = Raw::connect(server.addr).await;
    raw.write(format!("{request} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")).await;
    let head = raw.head().await.unwrap_or_else(|| panic!("no response to {request} {headers}"));
    let length = head.headers.get("content-length").filter(|_| !request.starts_with("HEAD"));
    let body = match length {
        Some(length) => raw.exactly(length.parse().unwrap()).await.unwrap(),
        None => Vec::new(),
    };
    (head, String::from_utf8_lossy(&body).into_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NoPage,
    Allowed,
    Foreign,
    Malformed,
}
use Kind::{Allowed, Foreign, Malformed, NoPage};

/// The lines by which a browser says where its page comes from, and what they mean with each setting: none, a list, `*`.
const ORIGINS: &[(&str, [Kind; 3])] = &[
    ("", [NoPage, NoPage, NoPage]),
    ("Origin: http://pubsub.example\r\n", [Allowed, Allowed, Allowed]),
    ("Origin: https://pubsub.example\r\n", [Allowed, Allowed, Allowed]),
    ("Origin: https://PubSub.example:443\r\n", [Allowed, Allowed, Allowed]),
    ("Origin: http://localhost:5173\r\n", [Allowed, Foreign, Allowed]),
    ("Origin: https://127.0.0.1\r\n", [Allowed, Foreign, Allowed]),
    ("Origin: http://[::1]:3000\r\n", [Allowed, Foreign, Allowed]),
    ("Origin: https://app.example\r\n", [Foreign, Allowed, Allowed]),
    ("Origin: http://other.example:8443\r\n", [Foreign, Allowed, Allowed]),
    ("Origin: http://app.example\r\n", [Foreign, Foreign, Allowed]),
    ("Origin: https://app.example:8443\r\n", [Foreign, Foreign, Allowed]),
    ("Origin: https://evil.example\r\n", [Foreign, Foreign, Allowed]),
    ("Origin: https://pubsub.example.evil.example\r\n", [Foreign, Foreign, Allowed]),
    ("Origin: http://pubsub.example:8080\r\n", [Foreign, Foreign, Allowed]),
    ("Origin: http://localhost.evil.example\r\n", [Foreign, Foreign, Allowed]),
    ("Origin: chrome-extension://abcdef\r\n", [Foreign, Foreign, Allowed]),
    ("Origin: null\r\n", [Foreign, Foreign, Allowed]),
    ("Origin: \r\n", [Malformed, Malformed, Malformed]),
    ("Origin: *\r\n", [Malformed, Malformed, Malformed]),
    ("Origin: pubsub.example\r\n", [Malformed, Malformed, Malformed]),
    ("Origin: http://pubsub.example/\r\n", [Malformed, Malformed, Malformed]),
    ("Origin: http://pubsub.example, https://evil.example\r\n", [Malformed, Malformed, Malformed]),
    ("Origin: http://pubsub.example\r\nOrigin: http://pubsub.example\r\n", [Malformed, Malformed, Malformed]),
    ("Origin: https://evil.example\r\nOrigin: http://pubsub.example\r\n", [Malformed, Malformed, Malformed]),
    ("Origin: http://pubs\u{e4}b.example\r\n", [Malformed, Malformed, Malformed]),
];
const SETTINGS: [&str; 3] = ["", "https://app.example, http://other.example:8443", "*"];

/// Requests beside those of the REST routes, with their headers. Each has the same response as often as it is sent.
const REQUESTS: &[(&str, &str)] = &[
    ("GET /", HTML),
    ("GET /", ""),
    ("GET /graphql", HTML),
    ("GET /graphql", ""),
    ("GET /graphql?query=%7Bhealth%7Bstatus%7D%7D", ""),
    ("HEAD /graphql?query=%7Bhealth%7Bstatus%7D%7D", ""),
    ("GET /graphql?query=mutation%7BdeleteTopic(name:%22news%22)%7D", ""),
    ("GET /graphql/assets/no-such-file.js", ""),
    ("GET /nothing", ""),
    ("GET /metrics", ""),
    ("GET /openapi.json", ""),
    ("GET /ws", ""),
    ("GET /graphql/ws", ""),
    ("OPTIONS /topics", ""),
    ("GET /topics/news/messages", STREAM),
    ("GET /graphql?query=subscription%7Bmessages(topic:%22news%22)%7Bdata%7D%7D", STREAM),
    ("GET /ws", UPGRADE),
    ("GET /graphql", UPGRADE),
    ("GET /graphql/ws", UPGRADE),
    ("GET /topics", UPGRADE),
    ("POST /graphql", JSON),
    ("POST /graphql", "Content-Type: text/plain\r\n"),
    ("PUT /graphql", ""),
    ("DELETE /graphql?token=none&operationId=1", ""),
    ("POST /graphql/ws", ""),
    ("POST /ws", ""),
    ("POST /nothing", ""),
    ("PUT /publish", ""),
    ("POST /metrics", ""),
    ("DELETE /", ""),
    ("TRACE /topics", ""),
    ("PURGE /topics/news", ""),
];

/// The routes of REST, as the server describes them.
async fn rest_requests(server: &TestServer) -> Vec<(String, &'static str)> {
    let description = server.get("/openapi.json").await.expect(200);
    let mut requests = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        let path = path.replace("{name}", "none").replace("{consumer}", "none");
        for method in methods.as_object().unwrap().keys() {
            requests.push((format!("{} {path}", method.to_uppercase()), JSON));
        }
    }
    assert!(requests.len() > 12, "{requests:?}");
    requests
}

fn changes_something(request: &str, headers: &str) -> bool {
    let reads = ["GET ", "HEAD ", "OPTIONS "].iter().any(|method| request.starts_with(method));
    !reads || headers == UPGRADE
}

/// The code of an error in the form that the path has.
fn code_at(path: &str, body: &str) -> String {
    if !matches!(path, "/graphql" | "/graphql/ws") {
        return code_in(body);
    }
    let body: Value = serde_json::from_str(body).unwrap();
    body["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

fn check(request: &str, headers: &str, origin: &str, kind: Kind, usual: u16, (head, body): (Head, String)) {
    let what = format!("{request} {headers}{origin}{kind:?}: {head:?} {body}");
    let path = request.split(' ').nth(1).unwrap().split('?').next().unwrap();
    let has = |name: &str| head.headers.get(name).map(String::as_str);
    assert_eq!(has("access-control-allow-credentials"), None, "{what}");
    let is_options = request.starts_with("OPTIONS");
    let is_readable = kind == Allowed && headers != UPGRADE && !is_options;
    let origin = origin.trim_start_matches("Origin: ").trim_end();
    assert_eq!(has("access-control-allow-origin"), is_readable.then_some(origin), "{what}");
    let exposed = has("access-control-expose-headers").unwrap_or_default();
    for name in ["retry-after", "location", "www-authenticate", "x-graphql-event-stream-token"] {
        assert_eq!(exposed.contains(name), is_readable, "{name} of {what}");
    }
    let is_refused = kind == Malformed || (kind == Foreign && changes_something(request, headers));
    if is_readable || is_refused || kind == Foreign {
        assert!(has("vary").is_some_and(|vary| vary.ends_with("origin")), "{what}");
    }
    match kind {
        Malformed => assert_eq!(head.status, 400, "{what}"),
        Foreign if is_refused => assert_eq!(head.status, 403, "{what}"),
        _ => assert_eq!(head.status, usual, "{what}"),
    }
    if is_refused && !request.starts_with("HEAD") {
        let (code, named) =
            if kind == Malformed { ("BAD_REQUEST", "Origin") } else { ("FORBIDDEN", "ALLOWED_ORIGINS") };
        assert_eq!(code_at(path, &body), code, "{what}");
        assert!(body.contains(named), "{what}");
    }
}

#[tokio::test]
async fn every_route_with_every_origin() {
    for (at, setting) in SETTINGS.into_iter().enumerate() {
        let server = server(setting);
        server.publish("news", 1.into()).await;
        let mut requests = rest_requests(&server).await;
        requests.extend(REQUESTS.iter().map(|(request, headers)| ((*request).to_owned(), *headers)));
        for (request, headers) in requests {
            let (usual, _) = ask(&server, HOST, &request, headers).await;
            for (origin, kinds) in ORIGINS {
                let response = ask(&server, HOST, &request, &format!("{headers}{origin}")).await;
                check(&request, headers, origin, kinds[at], usual.status, response);
            }
        }
    }
}

#[tokio::test]
async fn every_route_answers_preflight_requests() {
    const ASKED: &str = "authorization,content-type,last-event-id,x-api-key,x-graphql-event-stream-token";
    for (at, setting) in SETTINGS.into_iter().enumerate() {
        let server = server(setting);
        let mut paths: Vec<_> = rest_requests(&server).await.into_iter().map(|(request, _)| request).collect();
        paths.extend(REQUESTS.iter().map(|(request, _)| (*request).to_owned()));
        for request in paths {
            let path = request.split(' ').nth(1).unwrap();
            for (origin, kinds) in ORIGINS.iter().filter(|(origin, _)| !origin.is_empty()) {
                let asked =
                    format!("Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: {ASKED}\r\n");
                let (head, body) = ask(&server, HOST, &format!("OPTIONS {path}"), &format!("{origin}{asked}")).await;
                let what = format!("{path} {origin}: {head:?} {body}");
                assert!(!head.headers.contains_key("access-control-allow-credentials"), "{what}");
                if kinds[at] != Allowed {
                    assert_eq!(head.status, if kinds[at] == Malformed { 400 } else { 403 }, "{what}");
                    assert!(!head.headers.keys().any(|name| name.starts_with("access-control")), "{what}");
                    continue;
                }
                assert_eq!((head.status, body.as_str()), (200, ""), "{what}");
                let origin = origin.trim_start_matches("Origin: ").trim_end();
                assert_eq!(head.headers["access-control-allow-origin"], origin, "{what}");
                assert_eq!(head.headers["access-control-allow-headers"], ASKED, "{what}");
                for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                    assert!(head.headers["access-control-allow-methods"].contains(method), "{what}");
                }
                assert!(head.headers["access-control-max-age"].parse::<u32>().unwrap() > 0, "{what}");
                assert_eq!(head.headers["vary"], "origin", "{what}");
            }
        }
    }
}

/// What a page of a foreign site tries, and what it leaves behind.
#[tokio::test]
async fn a_foreign_page_changes_nothing() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    let evil = "https://evil.example";
    let refused = |request: reqwest::RequestBuilder| {
        let request = request.header("origin", evil);
        let server = &server;
        async move {
            let response = server.send(request).await;
            assert_eq!(response.status, 403, "{response:?}");
            assert!(response.text.contains("FORBIDDEN") && response.text.contains("ALLOWED_ORIGINS"), "{response:?}");
        }
    };
    // A form, which needs no preflight request, in all encodings that it has.
    let form = [
        ("application/x-www-form-urlencoded", "topic=news&data=2"),
        ("text/plain", r#"{"topic":"news","data":2,"x":"=""}"#),
        (
            "multipart/form-data; boundary=x",
            "--x\r\nContent-Disposition: form-data; name=\"topic\"\r\n\r\nnews\r\n--x--",
        ),
    ];
    let mutation = r#"{"query":"mutation { publish(topic: \"news\", data: 2) { offset } }"}"#;
    for (kind, body) in form {
        for path in ["/publish", "/topics", "/graphql", "/topics/news/consumers/worker/ack"] {
            refused(server.request(Method::POST, path).header("content-type", kind).body(body)).await;
        }
    }
    for kind in ["text/plain", "application/json"] {
        let body = r#"{"topic":"news","data":2}"#;
        refused(server.request(Method::POST, "/publish").header("content-type", kind).body(body)).await;
        refused(server.request(Method::POST, "/graphql").header("content-type", kind).body(mutation)).await;
    }
    // `navigator.sendBeacon` and `fetch` without CORS send no type at all.
    refused(server.request(Method::POST, "/publish").body(r#"{"topic":"news","data":2}"#)).await;
    refused(server.request(Method::POST, "/graphql").body(mutation)).await;
    refused(server.request(Method::DELETE, "/topics/news")).await;
    refused(server.request(Method::PATCH, "/topics/news").body(r#"{"max_messages":1}"#)).await;
    refused(server.request(Method::PUT, "/graphql")).await;
    // Pages without an origin of their own are no better.
    let sandboxed =
        server.request(Method::POST, "/publish").header("origin", "null").body(r#"{"topic":"news","data":2}"#);
    server.send(sandboxed).await.expect_error(403, "FORBIDDEN");
    let by_get = server.request(Method::GET, "/graphql").query(&[("query", "mutation{deleteTopic(name:\"news\")}")]);
    assert_eq!(server.send(by_get.header("origin", evil)).await.status, 405);
    let topic = server.get("/topics/news").await.expect(200);
    assert_eq!((&topic["messages"], &topic["max_messages"]), (&1.into(), &1_000.into()));
    // Without an origin GraphQL still takes JSON alone.
    let plain = server.request(Method::POST, "/graphql").header("content-type", "text/plain").body(mutation);
    assert_eq!(server.send(plain).await.status, 415);
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_reads_events_and_errors() {
    let server = server("https://app.example");
    server.publish("news", 1.into()).await;
    let page = |request: &str, headers: &str| {
        format!("{request} HTTP/1.1\r\nHost: {HOST}\r\nOrigin: https://app.example\r\n{headers}\r\n")
    };
    for path in ["/topics/news/messages?last=1", SUBSCRIPTION] {
        let mut raw = Raw::connect(server.addr).await;
        raw.write(page(&format!("GET {path}"), STREAM)).await;
        let head = raw.head().await.unwrap();
        assert_eq!((head.status, head.headers["access-control-allow-origin"].as_str()), (200, "https://app.example"));
        assert_eq!(head.headers["content-type"].split(';').next(), Some("text/event-stream"));
    }
    let mut stream = EventStream::open(&server, &page("GET /topics/news/messages?last=1", STREAM)).await.unwrap();
    assert_eq!(stream.next().await.unwrap().event, "message");
    for (request, status) in [
        ("GET /topics/none", 404),
        ("GET /nothing", 404),
        ("PUT /topics", 405),
        ("POST /publish", 400),
        ("POST /graphql", 415),
    ] {
        let (head, body) = ask(&server, HOST, request, "Origin: https://app.example\r\n").await;
        assert_eq!(head.status, status, "{body}");
        assert_eq!(head.headers["access-control-allow-origin"], "https://app.example", "{request}");
    }
    let (head, _) = ask(&server, HOST, "PUT /topics", "Origin: https://app.example\r\n").await;
    assert_eq!(head.headers["allow"], "GET, HEAD, POST");
}

/// A WebSocket of a foreign page would have everything that its visitor's network has.
#[tokio::test]
async fn a_websocket_of_a_foreign_page_is_refused() {
    let server = TestServer::start();
    for path in ["/ws", "/graphql", "/graphql/ws"] {
        for protocol in ["", "Sec-WebSocket-Protocol: graphql-transport-ws\r\n"] {
            let headers = format!("{UPGRADE}{protocol}");
            for (origin, status) in [
                ("", 101),
                ("Origin: http://pubsub.example\r\n", 101),
                ("Origin: http://localhost:3000\r\n", 101),
                ("Origin: https://evil.example\r\n", 403),
                ("Origin: null\r\n", 403),
                ("Origin: \r\n", 400),
            ] {
                let (head, body) = ask(&server, HOST, &format!("GET {path}"), &format!("{headers}{origin}")).await;
                assert_eq!(head.status, status, "{path} {origin}: {body}");
            }
        }
    }
    // Others are not hurt.
    let mut socket = Socket::connect(&server, "/ws", None).await;
    socket.send(r#"{"type":"ping"}"#).await;
    assert_eq!(socket.json().await["type"], "pong");
}

/// The host is what the client asked for, also where it writes the whole address.
#[tokio::test]
async fn the_own_origin_follows_the_host() {
    let server = TestServer::start();
    for (host, origin, status) in [
        ("pubsub.example:8080", "http://pubsub.example:8080", 400),
        ("pubsub.example:443", "https://pubsub.example", 400),
        ("[fd00::1]:8080", "http://[fd00::1]:8080", 400),
        ("PUBSUB.example", "https://pubsub.example", 400),
        ("pubsub.example:8080", "http://pubsub.example", 403),
        ("pubsub.example:443", "http://pubsub.example", 403),
        ("", "http://pubsub.example", 403),
    ] {
        let (head, body) = ask(&server, host, "POST /publish", &format!("Origin: {origin}\r\n")).await;
        assert_eq!(head.status, status, "{origin} at {host}: {body}");
    }
    // HTTP/1.0 has no host, so nothing is its own.
    let mut raw = Raw::connect(server.addr).await;
    raw.write("POST /publish HTTP/1.0\r\nOrigin: http://pubsub.example\r\n\r\n").await;
    assert_eq!(raw.head().await.unwrap().status, 403);
}

#[tokio::test]
async fn the_setting_is_read_and_printed() {
    let server = Process::start(&[("ALLOWED_ORIGINS", "https://app.example , HTTP://Other.example:80")]);
    for (origin, status) in [
        ("https://app.example", 400),
        ("http://other.example", 400),
        ("https://other.example", 403),
        ("http://localhost:3000", 403),
    ] {
        let request = server.client.request(Method::POST, "/publish").header("origin", origin);
        assert_eq!(server.client.send(request).await.status, status, "{origin}");
    }
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = directory.join("allowed-origins.toml");
    std::fs::write(&file, "allowed_origins = [\"https://app.example:443\", \"https://b.example\"]").unwrap();
    for (set, printed) in [("config", "https://app.example,https://b.example"), ("environment", "*")] {
        let mut command = command(if set == "config" { &[] } else { &[("ALLOWED_ORIGINS", " * ")] });
        let output = command.arg("config").arg("--config").arg(&file).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().any(|line| line == format!("allowed_origins = \"{printed}\"")), "{text}");
    }
}

#[test]
fn a_bad_entry_refuses_the_start() {
    for (setting, entry) in [
        ("https://app.example,evil.example", "evil.example"),
        ("https://app.example/", "https://app.example/"),
        ("https://*.example", "https://*.example"),
        ("*,https://app.example", "*"),
        ("null", "null"),
    ] {
        let output = command(&[("ALLOWED_ORIGINS", setting), ("HOST", "127.0.0.1"), ("PORT", "0")]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{setting}");
        let line = text.trim_end();
        assert!(line.contains("ALLOWED_ORIGINS: ") && line.contains(entry) && line.lines().count() == 1, "{text}");
    }
}

/// Which headers keep a response to itself.
#[tokio::test]
async fn responses_have_the_headers_that_protect_them() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    let page = "default-src 'none'";
    for (request, headers, policy, cached) in [
        ("GET /", HTML, Some(page), "no-cache"),
        ("GET /", "", Some(page), "no-cache"),
        ("GET /graphql", HTML, Some(page), "no-cache"),
        ("GET /graphql/assets/none.js", "", Some(page), "no-store"),
        ("GET /nothing", HTML, Some(page), "no-store"),
        ("PUT /topics", HTML, Some(page), "no-store"),
        ("GET /graphql?query=x", HTML, Some(page), "no-store"),
        ("GET /topics", "", None, "no-store"),
        ("GET /topics/news/messages", "", None, "no-store"),
        ("GET /topics/news/messages", STREAM, None, "no-store"),
        ("GET /graphql?query=%7Bhealth%7Bstatus%7D%7D", "", None, "no-store"),
        ("GET /metrics", "", None, "no-store"),
    ] {
        let (head, body) = ask(&server, HOST, request, headers).await;
        let own: HashMap<_, _> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let what = format!("{request} {headers}: {head:?} {body}");
        assert_eq!(own["x-content-type-options"], "nosniff", "{what}");
        assert_eq!(own["cross-origin-resource-policy"], "same-origin", "{what}");
        assert_eq!(own["cache-control"], cached, "{what}");
        assert!(!own.contains_key("strict-transport-security"), "{what}");
        let found = own.get("content-security-policy");
        assert_eq!(found.is_some(), policy.is_some(), "{what}");
        if let (Some(found), Some(policy)) = (found, policy) {
            assert!(found.contains(policy) && found.contains("frame-ancestors 'none'"), "{what}");
        }
        let again =
            server.request(request.split(' ').next().unwrap().parse().unwrap(), request.split(' ').nth(1).unwrap());
        let again = headers
            .trim_end()
            .split_once(": ")
            .into_iter()
            .fold(again, |again, (name, value)| again.header(name, value));
        let again = again.send().await.unwrap();
        for name in own.keys() {
            assert_eq!(again.headers().get_all(*name).iter().count(), 1, "{name} of {what}");
        }
        if own["content-type"].starts_with("text/html") {
            assert_eq!(own["referrer-policy"], "no-referrer", "{what}");
            assert_eq!(own["cross-origin-opener-policy"], "same-origin", "{what}");
        }
    }
}
