//! Who may do what: every operation of every interface with every state of credentials. An operation without a row fails.

use std::{collections::BTreeSet, time::SystemTime};

use pub_sub::{access::KeyHash, broker::Secret};
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    doors::raw_ws::{Frame, Socket},
    harness::{Client, TestServer},
};

const ADMINISTRATOR: &str = "the administrator's key";
const SECRET: &str = "a secret of thirty-two bytes or more";
const TOPIC: &str = "orders.eu";

/// A key of the access file, and the entry for it.
fn entry(name: &str, key: &str, rest: &str) -> String {
    format!("[[key]]\nname = \"{name}\"\nhash = \"{}\"\n{rest}\n", KeyHash::of(key))
}

struct World {
    server: TestServer,
    _file: tempfile::NamedTempFile,
}

fn world() -> World {
    let file = tempfile::NamedTempFile::new().unwrap();
    let all =
        |pattern: &str| format!("publish = [\"{pattern}\"]\nsubscribe = [\"{pattern}\"]\nmanage = [\"{pattern}\"]\n");
    let entries = [
        entry("exact", "exact-key", &format!("{}stats = true", all(TOPIC))),
        entry("over", "expired-key", &format!("{}stats = true\nexpires = 2020-01-01T00:00:00Z", all(TOPIC))),
        entry("nothing", "nothing-key", ""),
    ];
    std::fs::write(file.path(), entries.concat()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let server = TestServer::with(move |config| {
        config.access.api_key = Secret::new(ADMINISTRATOR.to_owned());
        config.access.access_file = path;
        config.access.jwt_secret = Secret::new(SECRET.to_owned());
        config.access.jwt_issuer = "issuer".to_owned();
        config.access.jwt_audience = "pub-sub".to_owned();
        config.access.auth_query_token = true;
    });
    World { server, _file: file }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn token(claims: &Value) -> String {
    let text = format!("{}.{}", encode(r#"{"alg":"HS256","typ":"JWT"}"#), encode(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{text}.{}", encode(hmac::sign(&key, text.as_bytes())))
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a token that is good for the topics of a pattern.
fn claims(pattern: &str) -> Value {
    json!({
        "sub": "token", "iss": "issuer", "aud": "pub-sub", "exp": now() + 3_600,
        "pubsub": {"publish": [pattern], "subscribe": [pattern], "manage": [pattern], "stats": true},
    })
}

fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

/// What a client has to show, and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nobody knows who it is.
    Unknown,
    /// Somebody who may do nothing at all.
    Nothing,
    /// Somebody who may do everything with other topics, but read no statistics.
    OtherTopic,
    /// Somebody who may.
    Right,
}

fn credentials() -> Vec<(&'static str, Option<String>, Standing)> {
    let good = || claims(TOPIC);
    let other = json!({"publish": ["invoices.>"], "subscribe": ["invoices.>"], "manage": ["invoices.>"]});
    let of = |claims: Value| Some(token(&claims));
    vec![
        ("none", None, Standing::Unknown),
        ("a wrong key", Some("wrong".to_owned()), Standing::Unknown),
        ("an expired key", Some("expired-key".to_owned()), Standing::Unknown),
        ("an expired token", of(with(good(), "exp", now() - 60)), Standing::Unknown),
        ("a token without an end", of(with(good(), "exp", Value::Null)), Standing::Unknown),
        ("a token that is not valid yet", of(with(good(), "nbf", now() + 3_600)), Standing::Unknown),
        ("a token of a wrong issuer", of(with(good(), "iss", "other")), Standing::Unknown),
        ("a token for another audience", of(with(good(), "aud", "other")), Standing::Unknown),
        ("a token with a wrong signature", Some(format!("{}A", token(&good()))), Standing::Unknown),
        ("a key that may do nothing", Some("nothing-key".to_owned()), Standing::Nothing),
        ("a token without the claim", of(with(good(), "pubsub", json!({}))), Standing::Nothing),
        ("a token for another topic", of(with(good(), "pubsub", other)), Standing::OtherTopic),
        ("a token by pattern", of(claims("orders.*")), Standing::Right),
        ("a token by the rest", of(claims(">")), Standing::Right),
        ("a token by name", of(good()), Standing::Right),
        ("a key by name", Some("exact-key".to_owned()), Standing::Right),
        ("the administrator's key", Some(ADMINISTRATOR.to_owned()), Standing::Right),
    ]
}

/// Who may do an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Everybody.
    Everybody,
    /// Whoever is known.
    Known,
    /// Whoever has the right, or statistics, for the topic.
    Entitled,
}

impl Who {
    fn expected(self, standing: Standing) -> &'static str {
        match (self, standing) {
            (Who::Everybody, _) => "OK",
            (_, Standing::Unknown) => "UNAUTHENTICATED",
            (Who::Known, _) | (Who::Entitled, Standing::Right) => "OK",
            (Who::Entitled, Standing::Nothing | Standing::OtherTopic) => "FORBIDDEN",
        }
    }
}
use Who::{Entitled, Everybody, Known};

/// The routes of REST, by method and path as the OpenAPI document has them, with the body.
const ROUTES: &[(&str, Who, &str, &str)] = &[
    ("GET /topics", Known, "/topics", ""),
    ("POST /topics", Entitled, "/topics", r#"{"name":"orders.eu"}"#),
    ("GET /topics/{name}", Entitled, "/topics/orders.eu", ""),
    ("PATCH /topics/{name}", Entitled, "/topics/orders.eu", r#"{"max_messages":5}"#),
    ("DELETE /topics/{name}", Entitled, "/topics/orders.eu", ""),
    ("GET /topics/{name}/messages", Entitled, "/topics/orders.eu/messages", ""),
    ("GET /topics/{name}/state", Entitled, "/topics/orders.eu/state", ""),
    ("DELETE /topics/{name}/state/{key}", Entitled, "/topics/orders.eu/state/k", ""),
    ("GET /topics/{name}/subscriptions", Entitled, "/topics/orders.eu/subscriptions", ""),
    // Nobody learns of a subscription that is not theirs to end.
    ("DELETE /subscriptions/{id}", Known, "/subscriptions/0000000000000000", ""),
    ("GET /topics/{name}/consumers", Entitled, "/topics/orders.eu/consumers", ""),
    ("DELETE /topics/{name}/consumers/{consumer}", Entitled, "/topics/orders.eu/consumers/c", ""),
    ("POST /topics/{name}/consumers/{consumer}/ack", Entitled, "/topics/orders.eu/consumers/c/ack", "CURSOR"),
    ("POST /topics/{name}/consumers/{consumer}/seek", Entitled, "/topics/orders.eu/consumers/c/seek", r#"{"last":1}"#),
    ("POST /publish", Entitled, "/publish", r#"{"topic":"orders.eu","data":1}"#),
    ("GET /stats", Entitled, "/stats", ""),
    ("GET /metrics", Entitled, "/metrics", ""),
    ("GET /health", Everybody, "/health", ""),
    ("GET /health/live", Everybody, "/health/live", ""),
    ("GET /health/ready", Everybody, "/health/ready", ""),
    ("GET /openapi.json", Known, "/openapi.json", ""),
    ("POST /auth/cookie", Known, "/auth/cookie", ""),
    ("DELETE /auth/cookie", Everybody, "/auth/cookie", ""),
    ("GET /", Everybody, "/", ""),
    // Not in the document: the same paths with other methods, and as a stream.
    ("HEAD /topics/{name}/messages", Entitled, "/topics/orders.eu/messages", ""),
];

/// The fields of the roots, and those of a topic that need more than seeing it.
const FIELDS: &[(&str, Who, &str)] = &[
    ("Query.topic", Entitled, r#"{ topic(name: "orders.eu") { name messageCount } }"#),
    ("Query.topics", Known, "{ topics { totalCount nodes { name } } }"),
    ("Query.consumers", Entitled, r#"{ consumers(topic: "orders.eu") { name owner } }"#),
    ("Query.stats", Entitled, "{ stats { topics } }"),
    ("Query.health", Known, "{ health { status } }"),
    ("Topic.messages", Entitled, r#"{ topic(name: "orders.eu") { messages { nodes { data } } } }"#),
    ("Topic.state", Entitled, r#"{ topic(name: "orders.eu") { state { nodes { data } } } }"#),
    ("Topic.subscriptions", Entitled, r#"{ topic(name: "orders.eu") { subscriptions { lag principal } } }"#),
    ("Topic.consumers", Entitled, r#"{ topic(name: "orders.eu") { consumers { name } } }"#),
    ("Mutation.createTopic", Entitled, r#"mutation { createTopic(name: "orders.eu") { name } }"#),
    ("Mutation.updateTopic", Entitled, r#"mutation { updateTopic(name: "orders.eu", maxMessages: 9) { name } }"#),
    ("Mutation.deleteTopic", Entitled, r#"mutation { deleteTopic(name: "orders.eu") { name } }"#),
    ("Mutation.publish", Entitled, r#"mutation { publish(topic: "orders.eu", data: 1) { offset } }"#),
    (
        "Mutation.publishMany",
        Entitled,
        r#"mutation { publishMany(messages: [{topic: "orders.eu", data: 1}]) { publication { offset } error { code } } }"#,
    ),
    ("Mutation.removeKey", Entitled, r#"mutation { removeKey(topic: "orders.eu", key: "k") { offset } }"#),
    (
        "Mutation.acknowledge",
        Entitled,
        r#"mutation { acknowledge(topic: "orders.eu", consumer: "c", cursor: "CURSOR") }"#,
    ),
    (
        "Mutation.seekConsumer",
        Entitled,
        r#"mutation { seekConsumer(topic: "orders.eu", consumer: "c", to: {last: 1}) }"#,
    ),
    ("Mutation.disconnect", Known, r#"mutation { disconnect(subscription: "0000000000000000") }"#),
    ("Mutation.deleteConsumer", Entitled, r#"mutation { deleteConsumer(topic: "orders.eu", consumer: "c") }"#),
    ("Subscription.messages", Entitled, r#"subscription { messages(topic: "orders.eu") { data } }"#),
    (
        "Subscription.messages with the state",
        Entitled,
        r#"subscription { messages(topic: "orders.eu", state: true) { data } }"#,
    ),
    ("Subscription.messages of a pattern", Entitled, r#"subscription { messages(topic: "orders.*") { data } }"#),
    ("Subscription.topicEvents", Entitled, r#"subscription { topicEvents(pattern: "orders.*") { name } }"#),
];

/// The frames of `/ws`.
const FRAMES: &[(&str, Who, &str)] = &[
    ("subscribe", Entitled, r#"{"type":"subscribe","topic":"orders.eu"}"#),
    ("subscribe to a pattern", Entitled, r#"{"type":"subscribe","topic":"orders.>"}"#),
    ("subscribe with the state", Entitled, r#"{"type":"subscribe","topic":"orders.eu","state":true}"#),
    ("unsubscribe", Everybody, r#"{"type":"unsubscribe","topic":"orders.eu"}"#),
    ("publish", Entitled, r#"{"type":"publish","topic":"orders.eu","data":1}"#),
    ("publish a removal", Entitled, r#"{"type":"publish","topic":"orders.eu","key":"k","remove":true}"#),
    ("ack", Entitled, r#"{"type":"ack","topic":"orders.eu","consumer":"c","cursor":"CURSOR"}"#),
    ("ping", Everybody, r#"{"type":"ping"}"#),
];

/// Makes the topic as an operation may find it, and returns the cursor of a message.
async fn prepare(server: &TestServer, operation: &str) -> String {
    let body = json!({"topic": TOPIC, "data": 0}).to_string();
    let request = server.request(Method::POST, "/publish").bearer_auth(ADMINISTRATOR);
    let cursor = server.send(request.body(body)).await.expect(200)["cursor"].as_str().unwrap().to_owned();
    if operation.contains("createTopic") || operation == "POST /topics" {
        server.send(server.request(Method::DELETE, "/topics/orders.eu").bearer_auth(ADMINISTRATOR)).await.expect(200);
    }
    cursor
}

/// `OK`, or the code that says that it was refused. What is not there is not refused: a consumer may not exist.
fn outcome(code: Option<&str>) -> String {
    match code {
        None | Some("NOT_FOUND") => "OK".to_owned(),
        Some(code) => code.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route() {
    let World { server, _file } = world();
    for (operation, who, path, body) in ROUTES {
        for (what, credential, standing) in credentials() {
            let cursor = prepare(&server, operation).await;
            let method: Method = operation.split(' ').next().unwrap().parse().unwrap();
            let mut request = server.request(method.clone(), path).body(match *body {
                "CURSOR" => json!({"cursor": cursor}).to_string(),
                body => body.to_owned(),
            });
            // A good credential may stand in either header.
            request = match (&credential, path.len() % 2) {
                (None, _) => request,
                (Some(credential), 0) => request.bearer_auth(credential),
                (Some(credential), _) => request.header("x-api-key", credential),
            };
            let response = server.send(request).await;
            let code = (response.status >= 400 && method != Method::HEAD).then(|| response.code());
            let got = match (method == Method::HEAD, response.status) {
                (true, 401) => "UNAUTHENTICATED".to_owned(),
                (true, 403) => "FORBIDDEN".to_owned(),
                _ => outcome(code.as_deref()),
            };
            assert_eq!(got, who.expected(standing), "{operation} with {what}: {response:?}");
            assert_eq!(response.status == 401, response.headers.contains_key("www-authenticate"), "{response:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_is_left_out() {
    let World { server, _file } = world();
    let request = server.request(Method::GET, "/openapi.json").bearer_auth(ADMINISTRATOR);
    let document = server.send(request).await.expect(200);
    let rows: BTreeSet<&str> = ROUTES.iter().map(|(operation, ..)| *operation).collect();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            let operation = format!("{} {path}", method.to_uppercase());
            assert!(rows.contains(operation.as_str()), "{operation} has no row");
        }
    }
}

/// The code of the first error of a GraphQL result, wherever the result has it.
fn code_of(result: &Value) -> Option<String> {
    let first = result["errors"][0]["extensions"]["code"].as_str();
    let in_batch = result["data"]["publishMany"][0]["error"]["code"].as_str();
    first.or(in_batch).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_over_http() {
    let World { server, _file } = world();
    for (field, who, query) in FIELDS {
        for (what, credential, standing) in credentials() {
            let cursor = prepare(&server, field).await;
            let body = json!({"query": query.replace("CURSOR", &cursor)}).to_string();
            let request = server.request(Method::POST, "/graphql").header("content-type", "application/json");
            let mut request = request.body(body);
            if query.starts_with("subscription") {
                request = request.header("accept", "text/event-stream");
            }
            if let Some(credential) = &credential {
                request = request.bearer_auth(credential);
            }
            let got = if query.starts_with("subscription") {
                first_event(request).await
            } else {
                let response = server.send(request).await;
                assert_eq!(response.status == 401, standing == Standing::Unknown, "{field} with {what}: {response:?}");
                outcome(code_of(&response.json()).as_deref())
            };
            assert_eq!(got, who.expected(standing), "{field} with {what}");
        }
    }
}

/// What an event stream begins with: `OK` for the comment that says that the subscription is open.
async fn first_event(request: reqwest::RequestBuilder) -> String {
    let mut response = request.send().await.unwrap();
    if response.status() == 401 {
        return outcome(code_of(&response.json().await.unwrap()).as_deref());
    }
    let mut text = String::new();
    while let Some(chunk) = response.chunk().await.unwrap_or_else(|error| panic!("{error} after {text:?}")) {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        if text.starts_with(": subscribed ") {
            return "OK".to_owned();
        }
        let is_whole = text.ends_with("\n\n");
        if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: ")).filter(|_| is_whole) {
            return outcome(code_of(&serde_json::from_str(data).unwrap()).as_deref());
        }
    }
    panic!("the stream ends with {text:?}")
}

/// The outcome of an operation over an acknowledged WebSocket.
async fn over_socket(socket: &mut Socket, query: &str) -> String {
    socket.send(json!({"type": "subscribe", "id": "1", "payload": {"query": query}}).to_string()).await;
    socket.send(r#"{"type":"ping"}"#).await;
    let mut got = None;
    loop {
        let message = socket.json().await;
        match message["type"].as_str().unwrap() {
            "next" => got = got.or(Some(outcome(code_of(&message["payload"]).as_deref()))),
            "error" => {
                let errors = json!({"errors": message["payload"]});
                return outcome(code_of(&errors).as_deref());
            }
            "complete" => return got.unwrap(),
            // An open subscription has nothing to say.
            "pong" if query.starts_with("subscription") => return got.unwrap_or_else(|| "OK".to_owned()),
            "pong" => {}
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_over_websocket() {
    let World { server, _file } = world();
    for (index, (field, who, query)) in FIELDS.iter().enumerate() {
        for (what, credential, standing) in credentials() {
            let cursor = prepare(&server, field).await;
            let mut socket = Socket::connect(&server, "/graphql", Some("graphql-transport-ws")).await;
            let payload = match (credential, index % 3) {
                (None, _) => json!({}),
                (Some(credential), 0) => json!({"Authorization": format!("Bearer {credential}")}),
                (Some(credential), 1) => json!({"apiKey": credential}),
                (Some(credential), _) => json!({"token": credential}),
            };
            socket.send(json!({"type": "connection_init", "payload": payload}).to_string()).await;
            let got = match socket.frame().await {
                Frame::Text(text) => {
                    assert_eq!(text, r#"{"type":"connection_ack"}"#);
                    over_socket(&mut socket, &query.replace("CURSOR", &cursor)).await
                }
                Frame::Closed(Some(4403)) => "UNAUTHENTICATED".to_owned(),
                other => panic!("{other:?}"),
            };
            assert_eq!(got, who.expected(standing), "{field} with {what}");
            socket.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_field_is_left_out() {
    let rows: BTreeSet<&str> = FIELDS.iter().map(|(field, ..)| *field).collect();
    let schema = pub_sub::graphql::sdl(false);
    for root in ["Query", "Mutation", "Subscription"] {
        let fields = schema.split(&format!("\ntype {root} {{\n")).nth(1).unwrap().split("\n}").next().unwrap();
        // A field begins with one tab; its description and its arguments do not.
        let names = fields.lines().filter(|line| line.starts_with('\t') && !line.starts_with("\t\t"));
        let names = names.filter_map(|line| line.trim().split(['(', ':']).next());
        let names: Vec<_> = names.filter(|name| !name.is_empty() && name.chars().all(char::is_alphanumeric)).collect();
        assert!(!names.is_empty(), "{fields}");
        for name in
            names.iter().filter(|name| schema.contains(&format!("\t{name}(")) || schema.contains(&format!("\t{name}:")))
        {
            let field = format!("{root}.{name}");
            assert!(rows.contains(field.as_str()), "{field} has no row");
        }
    }
}

/// The answer to one frame of `/ws`, signed in by the address, by a frame, or not at all.
async fn answer(server: &Client, credential: Option<&str>, by_address: bool, frame: &str) -> String {
    let encoded = |credential: &str| credential.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let path = match credential.filter(|_| by_address) {
        Some(credential) => format!("/ws?access_token={}", encoded(credential)),
        None => "/ws".to_owned(),
    };
    let mut socket = match Socket::try_connect(server, &path, None).await {
        Ok(socket) => socket,
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            assert_eq!(response.status(), 401);
            return "UNAUTHENTICATED".to_owned();
        }
        Err(error) => panic!("{error}"),
    };
    if let Some(credential) = credential.filter(|_| !by_address) {
        socket.send(json!({"type": "auth", "token": credential}).to_string()).await;
        let reply = socket.json().await;
        if reply["type"] == "error" {
            socket.close().await;
            return reply["error"]["code"].as_str().unwrap().to_owned();
        }
        assert_eq!(reply["type"], "ack", "{reply}");
    }
    socket.send(frame).await;
    let reply = socket.json().await;
    socket.close().await;
    outcome(reply["error"]["code"].as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame() {
    let World { server, _file } = world();
    for (kind, who, frame) in FRAMES {
        for (what, credential, standing) in credentials() {
            for by_address in [false, true] {
                let cursor = prepare(&server, kind).await;
                let frame = frame.replace("CURSOR", &cursor);
                let got = answer(&server, credential.as_deref(), by_address, &frame).await;
                let is_refused = standing == Standing::Unknown && credential.is_some();
                let expected = if is_refused { "UNAUTHENTICATED" } else { who.expected(standing) };
                assert_eq!(got, expected, "{kind} with {what}, by the address: {by_address}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frame_is_left_out() {
    let World { server, _file } = world();
    let mut socket = Socket::connect(&server, "/ws", None).await;
    socket.send(r#"{"type":"nonsense"}"#).await;
    let reply = socket.json().await;
    let message = reply["error"]["message"].as_str().unwrap();
    let kinds = message.strip_prefix("type: must be ").unwrap().replace(" or ", ", ");
    for kind in kinds.split(", ").filter(|kind| *kind != "auth") {
        assert!(FRAMES.iter().any(|(known, ..)| *known == kind), "{kind} has no row");
    }
    socket.close().await;
}
