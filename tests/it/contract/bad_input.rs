//! Bad input at every door: each has its code, and the server goes on.

use serde_json::{Value, json};

use crate::{
    doors::{Door, Options, RawWs, Start, raw_ws::Socket, rest_pages::RestPages, sse::code_in},
    harness::{TestServer, encode},
    raw::Raw,
};

every_door! {
    bad_names,
}

every_pushing_door! {
    bad_options,
}

fn bad_topics() -> Vec<String> {
    let long = "x".repeat(256);
    let wide = "é".repeat(128);
    ["", " ", " a", "a ", "a\nb", "a\u{0}b", "\u{7f}", "\u{85}", "\u{a0}a", "$sys", "$", &long, &wide]
        .map(str::to_owned)
        .into()
}

async fn bad_names<D: Door>() {
    let server = TestServer::start();
    for name in bad_topics() {
        // An empty segment makes it another path.
        if name.is_empty() && D::NAME_IN_PATH {
            continue;
        }
        let refused = D::open(&server).await.subscribe(&name, Start::Live, &Options::default()).await;
        assert_eq!(refused.unwrap_err(), "INVALID_TOPIC", "{name:?}");
    }
    if D::PUSHES {
        for pattern in ["a*", "a.>.b", ">a", "a.**", "*a.b"] {
            let refused = D::open(&server).await.subscribe(pattern, Start::Live, &Options::default()).await;
            assert_eq!(refused.unwrap_err(), "INVALID_TOPIC", "{pattern:?}");
        }
    }
    assert_eq!(server.get("/topics").await.expect(200)["topics"], json!([]));
}

async fn bad_options<D: Door>() {
    let server = TestServer::start();
    let wide = json!({"or": vec![json!({"field": "a", "eq": 1}); 200]});
    let deep = (0..20).fold(json!({"field": "a", "eq": 1}), |inner, _| json!({"not": inner}));
    for filter in [
        json!({"field": "a"}),
        json!({"field": "", "eq": 1}),
        json!({"field": "a..b", "eq": 1}),
        json!({"and": []}),
        json!({"field": "a", "gt": true}),
        json!({"field": "a", "eq": 1, "not": {"field": "b", "eq": 1}}),
        wide,
        deep,
    ] {
        let refused = D::open(&server).await.subscribe("news", Start::Live, &Options::filter(filter.clone())).await;
        assert_eq!(refused.expect_err(&filter.to_string()), "BAD_REQUEST", "{filter}");
    }
    for options in [
        Options { ack: Some("EXPLICIT"), ..Options::default() },
        Options { overflow: Some("NEVER"), ..Options::default() },
        Options::consumer("", "AUTO"),
        Options::consumer("c", "SOMETIMES"),
        Options::consumer("c\u{7}d", "AUTO"),
    ] {
        // An empty parameter of an address is an absent one: what stays is an acknowledgement without a consumer.
        let refused = D::open(&server).await.subscribe("news", Start::Live, &options).await;
        assert_eq!(refused.unwrap_err(), "BAD_REQUEST", "{options:?}");
    }
    server.assert_alive().await;
}

/// Bodies that no publishing door may take, with the code.
fn bad_data() -> Vec<(String, &'static str)> {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    vec![
        (nested(65), "BAD_REQUEST"),
        (nested(10_000), "BAD_REQUEST"),
        (objects(10_000), "BAD_REQUEST"),
        (format!("\"{}\"", "x".repeat(1 << 20)), "PAYLOAD_TOO_LARGE"),
        ("01".to_owned(), "BAD_REQUEST"),
        ("+1".to_owned(), "BAD_REQUEST"),
        ("NaN".to_owned(), "BAD_REQUEST"),
        ("-".to_owned(), "BAD_REQUEST"),
        ("1.".to_owned(), "BAD_REQUEST"),
        ("'a'".to_owned(), "BAD_REQUEST"),
        ("\"\u{1}\"".to_owned(), "BAD_REQUEST"),
        (r#""\x""#.to_owned(), "BAD_REQUEST"),
        ("[1,]".to_owned(), "BAD_REQUEST"),
        ("{\"a\" 1}".to_owned(), "BAD_REQUEST"),
        ("1 2".to_owned(), "BAD_REQUEST"),
    ]
}

#[tokio::test]
async fn bad_data_by_post() {
    let server = TestServer::start();
    for (data, code) in bad_data() {
        let response = server.post_text("/publish", format!(r#"{{"topic":"news","data":{data}}}"#)).await;
        let status = if code == "PAYLOAD_TOO_LARGE" { 413 } else { 400 };
        assert_eq!((response.status, response.code().as_str()), (status, code), "{}", &data[..data.len().min(80)]);
    }
    server.get("/topics/news").await.expect_error(404, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn bad_data_on_ws() {
    let server = TestServer::start();
    let mut ws = RawWs::open(&server).await;
    for (data, code) in bad_data() {
        ws.socket.send(format!(r#"{{"type":"publish","topic":"news","data":{data}}}"#)).await;
        let reply = ws.socket.json().await;
        assert_eq!(reply["error"]["code"], code, "{}", &data[..data.len().min(80)]);
    }
    ws.assert_open().await;
}

#[tokio::test]
async fn bad_data_by_mutation() {
    let server = TestServer::start();
    let query = "mutation($data: JSON!) { publish(topic: \"news\", data: $data) { offset } }";
    for (data, code) in bad_data() {
        let body = format!(r#"{{"query":{},"variables":{{"data":{data}}}}}"#, Value::from(query));
        let response = server.post_text("/graphql", body).await;
        let told = response.json();
        assert!((200..500).contains(&response.status), "{response:?}");
        let told = &told["errors"][0]["extensions"]["code"];
        assert_eq!(told, code, "{}: {response:?}", &data[..data.len().min(80)]);
    }
    server.get("/topics/news").await.expect_error(404, "TOPIC_NOT_FOUND");
}

/// Odd but valid: survives to the byte, or is refused clearly; never changed.
#[tokio::test]
async fn odd_data_survives_or_is_refused() {
    let server = TestServer::start();
    for data in [
        r#"{"n":12345678901234567890.5e400}"#,
        "1e999",
        "-1E-999",
        "-0",
        "0.10",
        "1E2",
        "100000000000000000000000000000000000000000000000000",
        r#"{"a":1,"a":2}"#,
        r#""\ud83e\udd80 \u00e9""#,
        r#""\ud800""#,
        r#"{"":{"":[]}}"#,
        r#"{"__proto__":{"x":1},"constructor":null}"#,
        r#""<script>\u2028""#,
    ] {
        server.create("odd").await;
        for round in 0..3 {
            let response = match round {
                0 => server.post_text("/publish", format!(r#"{{"topic":"odd","data":{data}}}"#)).await.text,
                1 => {
                    let mut socket = Socket::connect(&server, "/ws", None).await;
                    socket.send(format!(r#"{{"type":"publish","topic":"odd","data":{data}}}"#)).await;
                    socket.text().await
                }
                _ => {
                    let query =
                        Value::from("mutation($data: JSON!) { publish(topic: \"odd\", data: $data) { offset } }");
                    server
                        .post_text("/graphql", format!(r#"{{"query":{query},"variables":{{"data":{data}}}}}"#))
                        .await
                        .text
                }
            };
            let page = server.get("/topics/odd/messages").await;
            let kept =
                page.text.split_once("\"data\":").map(|(_, rest)| rest.split_once(",\"id\"").unwrap().0.to_owned());
            match kept {
                None => assert!(response.contains("BAD_REQUEST"), "{data}: {response}"),
                Some(kept) => {
                    // GraphQL's variables are values, not text: what is the same string may be spelled differently. Numbers
                    // may not change.
                    if round < 2 || !data.contains(['\\', ':']) || data.contains("5e400") {
                        assert_eq!(kept, data);
                    }
                    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
                    assert_eq!(read(&kept), read(data));
                    server.delete("/topics/odd").await.expect(200);
                    server.create("odd").await;
                }
            }
        }
        server.delete("/topics/odd").await.expect(200);
    }
}

#[tokio::test]
async fn two_mebibytes() {
    let server = TestServer::start();
    let big = "x".repeat(2 << 20);
    let response = server.post("/publish", &json!({"topic": "news", "data": big})).await;
    response.expect_error(413, "PAYLOAD_TOO_LARGE");
    // Of a body over its bound not all is read; a client that writes on regardless still gets the response.
    let mut raw = Raw::connect(server.addr).await;
    raw.write(format!("POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 20 << 20)).await;
    raw.write(" ".repeat(20 << 20)).await;
    let (head, body) = raw.response().await.expect("a response");
    assert_eq!((head.status, code_in(&body).as_str()), (413, "PAYLOAD_TOO_LARGE"));
    let query = "mutation($data: JSON!) { publish(topic: \"news\", data: $data) { offset } }";
    let refused = server.graphql_raw(query, json!({"data": big})).await.json();
    assert_eq!(refused["errors"][0]["extensions"]["code"], "PAYLOAD_TOO_LARGE");
    let mut socket = Socket::connect(&server, "/ws", None).await;
    socket.send(json!({"type": "publish", "topic": "news", "data": big}).to_string()).await;
    assert_eq!(socket.closed().await, Some(1009));
    let mut socket = Socket::connect(&server, "/graphql", Some("graphql-transport-ws")).await;
    socket.send(json!({"type": "connection_init", "payload": {"x": big}}).to_string()).await;
    assert_eq!(socket.closed().await, Some(1009));
    server.assert_alive().await;
}

#[tokio::test]
async fn bad_bodies() {
    let server = TestServer::start();
    let deep = format!("{}1{}", "{\"topic\":".repeat(100_000), "}".repeat(100_000));
    for path in ["/topics", "/publish"] {
        for body in [
            "",
            "{",
            "null",
            "7",
            "\"news\"",
            "{}",
            "{\"name\":1,\"topic\":1}",
            "\u{feff}{}",
            "[[]]x",
            &deep,
            "{\"name\":\"a\"} {}",
        ] {
            let response = server.post_text(path, body.to_owned()).await;
            assert_eq!(
                (response.status, response.code().as_str()),
                (400, "BAD_REQUEST"),
                "{path} {}",
                &body[..body.len().min(60)]
            );
        }
        let response = server.post_text(path, b"{\"name\":\"\xff\",\"topic\":\"\xff\",\"data\":1}".to_vec()).await;
        response.expect_error(400, "BAD_REQUEST");
        for name in bad_topics() {
            let body = if path == "/topics" { json!({"name": name}) } else { json!({"topic": name, "data": 1}) };
            server.post(path, &body).await.expect_error(400, "INVALID_TOPIC");
        }
    }
    for name in ["a.*", ">", "a*"] {
        server.post("/topics", &json!({"name": name})).await.expect_error(400, "INVALID_TOPIC");
    }
    for (id, key) in [
        (json!(""), Value::Null),
        (json!("x".repeat(256)), Value::Null),
        (json!("a\u{1}"), Value::Null),
        (Value::Null, json!("")),
        (Value::Null, json!(5)),
    ] {
        let body = json!({"topic": "news", "data": 1, "id": id, "key": key});
        server.post("/publish", &body).await.expect_error(400, "BAD_REQUEST");
    }
    let too_many = Value::from(vec![json!({"topic": "news", "data": 1}); 1_001]);
    server.post("/publish", &too_many).await.expect_error(400, "BAD_REQUEST");
    server.assert_alive().await;
}

/// `curl -d` calls everything a form: the content type of a REST body does not matter.
#[tokio::test]
async fn content_types_do_not_matter_to_rest() {
    let server = TestServer::start();
    for kind in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/octet-stream",
        "application/json; charset=utf-8",
        "",
    ] {
        let request = server.request(reqwest::Method::POST, "/publish").header("content-type", kind);
        server.send(request.body(r#"{"topic":"news","data":1}"#)).await.expect(200);
    }
    let bare = server.request(reqwest::Method::POST, "/publish").body(r#"{"topic":"news","data":1}"#);
    server.send(bare).await.expect(200);
}

#[tokio::test]
async fn names_in_paths() {
    let server = TestServer::start();
    server.create("a b").await;
    server.create("a/b").await;
    server.create("ü.%41").await;
    for (path, name) in
        [("a%20b", "a b"), ("a%2Fb", "a/b"), ("a%2fb", "a/b"), ("%C3%BC.%2541", "ü.%41"), ("%61%20b", "a b")]
    {
        assert_eq!(server.get(&format!("/topics/{path}")).await.expect(200)["name"], name);
        server.get(&format!("/topics/{path}/messages")).await.expect(200);
    }
    for path in ["%00", "a%0Ab", "%20a", "a%20", &"x".repeat(256), "%24sys", &"%C3%A9".repeat(128)] {
        server.get(&format!("/topics/{path}")).await.expect_error(400, "INVALID_TOPIC");
        server.get(&format!("/topics/{path}/messages")).await.expect_error(400, "INVALID_TOPIC");
        server.delete(&format!("/topics/{path}")).await.expect_error(400, "INVALID_TOPIC");
    }
    for path in ["%ff", "%C3", "%ED%A0%80"] {
        let response = server.get(&format!("/topics/{path}")).await;
        assert_eq!((response.status, response.code().as_str()), (400, "INVALID_TOPIC"), "{path}");
    }
    // Of a page, names that only patterns may have.
    let refused = RestPages::open(&server).await.subscribe("a.*", Start::Live, &Options::default()).await;
    assert_eq!(refused.unwrap_err(), "INVALID_TOPIC");
    server.get(&format!("/topics/{}", encode("never"))).await.expect_error(404, "TOPIC_NOT_FOUND");
}

/// A flood of names is stopped by the bound; what exists goes on.
#[tokio::test]
async fn a_flood_of_topics() {
    let server = TestServer::with(|config| config.broker.max_topics = 500);
    let mut refused = 0;
    for batch in 0..20 {
        let items: Vec<_> = (0..1_000).map(|n| json!({"topic": format!("flood.{batch}.{n}"), "data": 1})).collect();
        // The first 500 topics are created; of the later batches nothing is stored.
        let response = server.post("/publish", &Value::from(items)).await.expect(if batch == 0 { 207 } else { 503 });
        let results = response["results"].as_array().unwrap();
        refused += results.iter().filter(|result| result["error"]["code"] == "LIMIT_REACHED").count();
    }
    assert_eq!(refused, 20_000 - 500);
    server.post("/topics", &json!({"name": "one more"})).await.expect_error(503, "LIMIT_REACHED");
    let mut ws = RawWs::open(&server).await;
    assert_eq!(ws.subscribe("another", Start::Live, &Options::default()).await.unwrap_err(), "LIMIT_REACHED");
    assert_eq!(
        server.graphql_error("mutation { createTopic(name: \"x\") { name } }", Value::Null).await["code"],
        "LIMIT_REACHED"
    );
    server.publish("flood.0.0", 2.into()).await;
    server.delete("/topics/flood.0.0").await.expect(200);
    server.create("one more").await;
    assert_eq!(server.get("/health").await.expect(200)["topics"], 500);
}

/// Random text on `/ws`: a reply to each, and the server goes on.
#[tokio::test]
async fn noise_on_ws() {
    use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
    let server = TestServer::with(|config| config.socket.max_malformed_frames = u32::MAX);
    let mut runner = TestRunner::deterministic();
    let word = prop_oneof![
        Just("type".to_owned()),
        Just("topic".to_owned()),
        Just("subscribe".to_owned()),
        Just("publish".to_owned()),
        Just("data".to_owned()),
        Just("ack".to_owned()),
        Just("unsubscribe".to_owned()),
        Just("after".to_owned()),
        Just("last_n".to_owned()),
        Just("filter".to_owned()),
        any::<String>(),
    ];
    let value = prop_oneof![
        word.clone().prop_map(|word| Value::from(word).to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        Just("null".to_owned())
    ];
    let object = prop::collection::vec((word, value), 0..5).prop_map(|fields| {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
        format!("{{{}}}", fields.join(","))
    });
    let frame = prop_oneof![any::<String>(), object.clone(), object];
    let mut ws = RawWs::open(&server).await;
    for _ in 0..1_000 {
        let text = frame.new_tree(&mut runner).unwrap().current();
        ws.socket.send(text.clone()).await;
        let reply = ws.socket.json().await;
        assert!(["ack", "error", "pong"].contains(&reply["type"].as_str().unwrap()), "{text}: {reply}");
    }
    server.assert_alive().await;
}

/// What is not UTF-8 is refused, not replaced: the client would get something that it did not ask for.
#[tokio::test]
async fn query_strings_are_utf8() {
    let server = TestServer::start();
    for path in ["/topics?prefix=%FF", "/topics/news/messages?after=%C3", "/topics/news/consumers?%FF=1"] {
        server.get(path).await.expect_error(400, "BAD_REQUEST");
    }
    let refused = server.get("/graphql?query=%7B__typename%7D&variables=%FF").await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(server.get("/topics?prefix=%C3%BC").await.status, 200);
}
