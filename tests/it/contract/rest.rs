//! REST: every route's response, field by field.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    doors::{Door, RawWs, Start},
    harness::{TestServer, assert_offset, eventually, is_time},
};

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[track_caller]
fn assert_has(value: &Value, wanted: &[&str]) {
    let keys = keys(value);
    assert!(wanted.iter().all(|name| keys.contains(name)), "{wanted:?} in {value}");
}

#[tokio::test]
async fn topics_are_created_listed_read_and_deleted() {
    let server = TestServer::start();
    let created = server.post("/topics", &json!({"name": "news"})).await.expect(201);
    assert_eq!((&created["status"], &created["topic"]), (&"created".into(), &"news".into()));
    assert_eq!(created["max_messages"], 1000);
    server.post("/topics", &json!({"name": "news"})).await.expect_error(409, "TOPIC_EXISTS");

    let topic = server.get("/topics/news").await.expect(200);
    assert_has(&topic, &["name", "subscribers", "messages", "created_at", "last_message_at"]);
    assert_eq!((&topic["name"], &topic["subscribers"], &topic["messages"]), (&"news".into(), &0.into(), &0.into()));
    assert!(is_time(&topic["created_at"]) && topic["last_message_at"].is_null());

    server.publish("news", 1.into()).await;
    let _subscriber = RawWs::to(&server, "news", Start::Live).await;
    let topic = server.get("/topics/news").await.expect(200);
    assert_eq!((&topic["subscribers"], &topic["messages"]), (&1.into(), &1.into()));
    assert!(is_time(&topic["last_message_at"]));

    let listed = server.get("/topics").await.expect(200);
    assert_eq!(listed["topics"].as_array().unwrap().len(), 1);
    assert_has(&listed["topics"][0], &["name", "subscribers", "messages"]);

    let deleted = server.delete("/topics/news").await.expect(200);
    assert_eq!((&deleted["status"], &deleted["topic"]), (&"deleted".into(), &"news".into()));
    server.delete("/topics/news").await.expect_error(404, "TOPIC_NOT_FOUND");
    server.get("/topics/news").await.expect_error(404, "TOPIC_NOT_FOUND");
    server.get("/topics/news/messages").await.expect_error(404, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn implicit_topics_are_adopted_and_forgotten() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    let created = server.post("/topics", &json!({"name": "news", "max_messages": 7})).await.expect(201);
    assert_eq!(created["max_messages"], 7);
    assert_eq!(server.get("/topics/news").await.expect(200)["messages"], 1);
    server.post("/topics", &json!({"name": "news"})).await.expect_error(409, "TOPIC_EXISTS");

    let mut subscriber = RawWs::to(&server, "fleeting", Start::Live).await;
    server.get("/topics/fleeting").await.expect(200);
    subscriber.unsubscribe("fleeting").await;
    server.get("/topics/fleeting").await.expect_error(404, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn topics_have_settings_of_their_own() {
    let server = TestServer::start();
    let body = json!({"name": "small", "max_messages": 3, "max_publish_rate": 5});
    let created = server.post("/topics", &body).await.expect(201);
    assert_eq!((&created["max_messages"], &created["max_publish_rate"]), (&3.into(), &5.into()));
    server.publish_numbers("small", 1..=5).await;
    assert_eq!(server.get("/topics/small").await.expect(200)["messages"], 3);
    let sixth = server.post("/publish", &json!({"topic": "small", "data": 6})).await;
    sixth.expect_error(429, "RATE_LIMITED");
    for bad in [
        json!({"name": "x", "max_messages": 0}),
        json!({"name": "x", "max_messages": -1}),
        json!({"name": "x", "max_messages": "3"}),
        json!({"name": "x", "max_messages": 1.5}),
        json!({"name": "x", "max_messages": 1_000_000_000}),
        json!({"name": "x", "max_publish_rate": -1}),
        json!({"name": "x", "max_publish_rate": [1]}),
    ] {
        server.post("/topics", &bad).await.expect_error(400, "BAD_REQUEST");
    }
    server.get("/topics/x").await.expect_error(404, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn lists_of_topics_have_pages() {
    let server = TestServer::start();
    for number in 0..25 {
        server.create(&format!("a.{number:02}")).await;
        server.create(&format!("b.{number:02}")).await;
    }
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/topics?prefix=b.&limit=10&after={after}")).await.expect(200);
        let topics = page["topics"].as_array().unwrap().clone();
        assert!(topics.len() <= 10);
        names.extend(topics.iter().map(|topic| topic["name"].as_str().unwrap().to_owned()));
        match topics.last() {
            Some(last) if topics.len() == 10 => last["name"].as_str().unwrap().clone_into(&mut after),
            _ => break,
        }
    }
    assert_eq!(names, (0..25).map(|number| format!("b.{number:02}")).collect::<Vec<_>>());
    for bad in ["limit=0", "limit=-1", "limit=x", "limit=1.5", "limit=99999999999999999999"] {
        server.get(&format!("/topics?{bad}")).await.expect_error(400, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn publishing_answers_the_place() {
    let server = TestServer::start();
    let told = server.publish("news", "Breaking news!".into()).await;
    assert_eq!(keys(&told), ["cursor", "duplicate", "id", "offset", "status", "topic"]);
    assert_eq!((&told["status"], &told["topic"]), (&"published".into(), &"news".into()));
    assert_eq!((&told["offset"], &told["duplicate"]), (&1.into(), &false.into()));
    let id = uuid::Uuid::parse_str(told["id"].as_str().unwrap()).unwrap();
    assert_eq!(id.get_version_num(), 7);

    let old_form = json!({"topic": "news", "message": {"id": "mine", "payload": [1, 2]}});
    let told = server.post("/publish", &old_form).await.expect(200);
    assert_eq!((&told["id"], &told["offset"]), (&"mine".into(), &2.into()));
    let page = server.get("/topics/news/messages").await.expect(200);
    assert_eq!((&page["messages"][1]["data"], &page["messages"][1]["id"]), (&json!([1, 2]), &"mine".into()));
}

#[tokio::test]
async fn a_repeated_id_is_stored_once() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 3);
    let body = |data: u64| json!({"topic": "news", "data": data, "id": "one"});
    let first = server.post("/publish", &body(1)).await.expect(200);
    let again = server.post("/publish", &body(2)).await.expect(200);
    assert_eq!((&again["duplicate"], &again["cursor"]), (&true.into(), &first["cursor"]));
    // The same at the other doors.
    let query = "mutation { publish(topic: \"news\", data: 3, messageId: \"one\") { offset duplicate } }";
    let told = server.graphql(query, Value::Null).await;
    assert_eq!(told["publish"], json!({"offset": 1, "duplicate": true}));
    let mut ws = RawWs::open(&server).await;
    let told = ws.ask(json!({"type": "publish", "topic": "news", "data": 4, "id": "one"})).await;
    assert_eq!((&told["offset"], &told["duplicate"]), (&1.into(), &true.into()));
    assert_eq!(server.get("/topics/news").await.expect(200)["messages"], 1);
    // In another topic it is another message; and ids outlive the history.
    let elsewhere = server.post("/publish", &json!({"topic": "other", "data": 1, "id": "one"})).await.expect(200);
    assert_eq!(elsewhere["duplicate"], false);
    server.publish_numbers("news", 2..=4).await;
    let told = server.post("/publish", &body(5)).await.expect(200);
    assert_eq!((&told["duplicate"], &told["offset"], &told["cursor"]), (&true.into(), &1.into(), &first["cursor"]));
}

#[tokio::test]
async fn publishing_on_a_condition() {
    let server = TestServer::start();
    let publish = |expected: Value| json!({"topic": "news", "data": 1, "expected_offset": expected});
    assert_eq!(server.post("/publish", &publish(0.into())).await.expect(200)["offset"], 1);
    let refused = server.post("/publish", &publish(0.into())).await;
    refused.expect_error(409, "CONFLICT");
    assert_eq!(refused.json()["error"]["current_offset"], 1);
    assert_eq!(server.post("/publish", &publish(1.into())).await.expect(200)["offset"], 2);
    for bad in [json!(-1), json!("x"), json!(1.5)] {
        server.post("/publish", &publish(bad)).await.expect_error(400, "BAD_REQUEST");
    }
    let query = "mutation($at: Long) { publish(topic: \"news\", data: 1, expectedOffset: $at) { offset } }";
    assert_eq!(server.graphql(query, json!({"at": 2})).await["publish"]["offset"], 3);
    let refused = server.graphql_error(query, json!({"at": 2})).await;
    assert_eq!((&refused["code"], &refused["currentOffset"]), (&"CONFLICT".into(), &3.into()));
    let mut ws = RawWs::open(&server).await;
    let told = ws.ask(json!({"type": "publish", "topic": "news", "data": 1, "expected_offset": 7})).await;
    assert_eq!((&told["error"]["code"], &told["error"]["current_offset"]), (&"CONFLICT".into(), &3.into()));
    // Of many that expect the same, one wins.
    let server = &server;
    let race = json!({"topic": "race", "data": 1, "expected_offset": 0});
    let tries = (0..10).map(|_| server.post("/publish", &race));
    let statuses: Vec<u16> =
        futures_util::future::join_all(tries).await.iter().map(|response| response.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 9, "{statuses:?}");
}

#[tokio::test]
async fn batches_have_a_result_for_each() {
    let server = TestServer::start();
    let batch = json!([
        {"topic": "a", "data": 1, "id": "x"},
        {"topic": "", "data": 2},
        {"topic": "a"},
        7,
        {"topic": "a", "data": 3, "id": "x"},
        {"topic": "a", "data": 4, "expected_offset": 9},
        {"topic": "b", "data": {"deep": [null]}, "key": "k"},
    ]);
    let response = server.post("/publish", &batch).await.expect(207);
    assert_eq!((&response["published"], &response["refused"]), (&3.into(), &4.into()));
    let results = response["results"].as_array().unwrap();
    let seen: Vec<_> = results.iter().map(|r| r["error"]["code"].as_str().or(r["status"].as_str()).unwrap()).collect();
    assert_eq!(
        seen,
        ["published", "INVALID_TOPIC", "BAD_REQUEST", "BAD_REQUEST", "published", "CONFLICT", "published"]
    );
    assert_eq!((&results[4]["duplicate"], &results[4]["offset"]), (&true.into(), &1.into()));
    assert_eq!(server.post("/publish", &json!([])).await.expect(200)["results"], json!([]));
    server.post_text("/publish", "[{\"topic\":\"a\",\"data\":1},").await.expect_error(400, "BAD_REQUEST");
    assert_eq!(server.get("/topics/a").await.expect(200)["messages"], 1);

    let query = "mutation($messages: [PublishInput!]!) { publishMany(messages: $messages) {
        publication { topic offset duplicate } error { code message currentOffset } } }";
    let messages =
        json!([{"topic": "a", "data": 5}, {"topic": "*", "data": 6}, {"topic": "a", "data": 7, "expectedOffset": 1}]);
    let told = server.graphql(query, json!({"messages": messages})).await;
    let done = &told["publishMany"][0]["publication"];
    assert_offset(done["offset"].as_u64().unwrap(), 2);
    assert_eq!((&done["topic"], &done["duplicate"]), (&"a".into(), &false.into()));
    assert_eq!(told["publishMany"][1]["error"]["code"], "INVALID_TOPIC");
    assert_eq!(
        (&told["publishMany"][2]["error"]["code"], &told["publishMany"][2]["error"]["currentOffset"]),
        (&"CONFLICT".into(), &done["offset"])
    );
}

#[tokio::test]
async fn pages_of_messages() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 30);
    server.publish_numbers("news", 1..=45).await;
    let page = server.get("/topics/news/messages").await.expect(200);
    assert_eq!(keys(&page), ["gap", "messages", "next"]);
    let messages = page["messages"].as_array().unwrap();
    assert_eq!((messages.len(), &messages[0]["offset"], &messages[29]["offset"]), (30, &16.into(), &45.into()));
    assert_has(&messages[0], &["topic", "data", "id", "offset", "cursor", "ts"]);
    assert!(is_time(&messages[0]["ts"]) && page["gap"].is_null());

    let page = server.get("/topics/news/messages?last=12&limit=5").await.expect(200);
    let first = page["messages"][0]["offset"].as_u64().unwrap();
    assert!(page["messages"].as_array().unwrap().len() == 5 && (34..=41).contains(&first), "{page}");
    // Nothing new: an empty page with the same cursor.
    let newest = messages[29]["cursor"].as_str().unwrap();
    let page = server.get(&format!("/topics/news/messages?after={newest}")).await.expect(200);
    assert_eq!((&page["messages"], page["next"].as_str()), (&json!([]), Some(newest)));
    for bad in ["last=-1", "last=x", "limit=0", "limit=100000000", "after=x", "since=x", "limit=2&limit=x"] {
        server.get(&format!("/topics/news/messages?{bad}")).await.expect_error(400, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn health_says_how_it_is() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    let _subscriber = RawWs::to(&server, "news", Start::Live).await;
    let health = server.get("/health").await.expect(200);
    assert_has(&health, &["status", "subscribers", "topics", "uptime_sec", "version"]);
    assert_eq!((&health["status"], &health["topics"], &health["subscribers"]), (&"ok".into(), &1.into(), &1.into()));
    assert!(health["uptime_sec"].is_u64());
    server.get("/health/live").await.expect(200);
    server.get("/health/ready").await.expect(200);
    let query = "{ health { status uptimeSeconds version } stats { topics messages published subscribers } }";
    let told = server.graphql(query, Value::Null).await;
    assert_eq!((&told["health"]["status"], &told["health"]["version"]), (&"ok".into(), &health["version"]));
    assert_eq!(told["stats"], json!({"topics": 1, "messages": 1, "published": 1, "subscribers": 1}));
}

#[tokio::test]
async fn statistics_are_true() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 10);
    server.publish_numbers("a", 1..=15).await;
    server.create("b").await;
    let _one = RawWs::to(&server, "a", Start::Live).await;
    let mut two = RawWs::to(&server, "a", Start::Live).await;
    two.subscribe("b", Start::Live, &crate::doors::Options::default()).await.unwrap();
    let stats = server.get("/stats").await.expect(200);
    assert_has(
        &stats,
        &[
            "total_topics",
            "total_messages",
            "total_subscribers",
            "active_connections",
            "uptime_seconds",
            "topics",
            "generated_at",
        ],
    );
    assert_eq!((&stats["total_topics"], &stats["total_subscribers"]), (&2.into(), &3.into()));
    assert_eq!(stats["total_messages"], 10);
    assert!(is_time(&stats["generated_at"]) && stats["uptime_seconds"].is_u64());
    let a = &stats["topics"]["a"];
    assert_has(a, &["name", "messages", "subscribers", "created_at", "last_message_at"]);
    assert_eq!((&a["name"], &a["messages"], &a["subscribers"]), (&"a".into(), &10.into(), &2.into()));
    assert_eq!(
        (&stats["topics"]["b"]["subscribers"], &stats["topics"]["b"]["last_message_at"]),
        (&1.into(), &Value::Null)
    );
    drop(two);
    eventually("numbers without the closed connection", || async {
        let stats = server.get("/stats").await.expect(200);
        let left = (stats["total_subscribers"].as_u64(), stats["active_connections"].as_u64().unwrap() <= 2);
        (left == (Some(1), true)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed() {
    let server = TestServer::start();
    for path in ["/nothing", "/topics/news/nothing", "/publish/x", "/WS", "/health//", "//topics"] {
        let response = server.get(path).await;
        assert_eq!(response.status, 404, "{path}: {response:?}");
        response.code();
    }
    for (method, path, allowed) in [
        (Method::PUT, "/topics", "POST"),
        (Method::DELETE, "/topics", "GET"),
        (Method::GET, "/publish", "POST"),
        (Method::POST, "/topics/news", "DELETE"),
        (Method::POST, "/topics/news/messages", "GET"),
        (Method::POST, "/health", "GET"),
        (Method::DELETE, "/stats", "GET"),
        (Method::PATCH, "/graphql", "POST"),
        (Method::POST, "/ws", "GET"),
    ] {
        let response = server.send(server.request(method.clone(), path)).await;
        assert_eq!(response.status, 405, "{method} {path}: {response:?}");
        response.code();
        assert!(response.headers["allow"].to_str().unwrap().contains(allowed), "{response:?}");
    }
    // `/ws` without an upgrade says what it is.
    let response = server.get("/ws").await;
    assert_eq!((response.status, response.code().as_str()), (426, "BAD_REQUEST"));
    // HEAD is GET without a body.
    let response = server.send(server.request(Method::HEAD, "/health")).await;
    assert_eq!((response.status, response.text.as_str()), (200, ""));
    let response = server.send(server.request(Method::HEAD, "/nothing")).await;
    assert_eq!(response.status, 404);
}

#[tokio::test]
async fn without_topics_on_demand() {
    let server = TestServer::with(|config| config.broker.auto_create_topics = false);
    server.post("/publish", &json!({"topic": "news", "data": 1})).await.expect_error(404, "TOPIC_NOT_FOUND");
    let mut ws = RawWs::open(&server).await;
    for kind in ["subscribe", "publish"] {
        let told = ws.ask(json!({"type": kind, "topic": "news", "data": 1})).await;
        assert_eq!(told["error"]["code"], "TOPIC_NOT_FOUND");
    }
    assert_eq!(
        server.graphql_error("mutation { publish(topic: \"news\", data: 1) { id } }", Value::Null).await["code"],
        "TOPIC_NOT_FOUND"
    );
    server.create("news").await;
    server.publish("news", 1.into()).await;
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    let response = server.get("/metrics").await;
    assert_eq!(response.status, 200);
    assert!(response.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    let types: Vec<_> =
        response.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let names = ["pubsub_messages_published_total", "pubsub_connections", "pubsub_graphql_document_cache_bytes"];
    assert!(names.iter().all(|name| types.iter().any(|(known, _)| known == name)), "{}", response.text);
    for (name, kind) in types {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(response.text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

/// The document names every route, and every route it names exists.
#[tokio::test]
async fn openapi_lists_what_there_is() {
    let server = TestServer::start();
    let document = server.get("/openapi.json").await.expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in [
        ("/topics", &["get", "post"][..]),
        ("/topics/{name}", &["get", "delete"]),
        ("/topics/{name}/messages", &["get"]),
        ("/publish", &["post"]),
        ("/health", &["get"]),
        ("/stats", &["get"]),
    ] {
        for method in methods {
            assert!(paths[path].get(method).is_some(), "{method} {path}");
        }
    }
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            let real = path.replace("{name}", "none").replace("{consumer}", "none");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let response = server.send(server.request(method.clone(), &real)).await;
            assert_ne!(response.status, 405, "{method} {path}");
            assert!(response.status < 500, "{method} {path}: {response:?}");
        }
    }
}

/// Whoever finds the address learns what is there, and every interface that is named exists.
#[tokio::test]
async fn the_address_says_what_is_there() {
    let server = TestServer::start();
    let text = server.get("/").await;
    assert_eq!((text.status, text.headers["content-type"].to_str().unwrap()), (200, "text/plain; charset=utf-8"));
    let paths: Vec<_> =
        text.text.lines().filter_map(|line| line.strip_prefix("  /")?.split_once(' ')).map(|(path, _)| path).collect();
    assert!(paths.contains(&"graphql") && paths.contains(&"openapi.json"), "{}", text.text);
    for path in &paths {
        let status = server.get(&format!("/{path}")).await.status;
        assert!(status != 404 && status < 500, "/{path}: {status}");
    }
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = server.send(server.request(reqwest::Method::GET, "/").header("accept", accept)).await;
    assert_eq!((page.status, page.headers["content-type"].to_str().unwrap()), (200, "text/html; charset=utf-8"));
    for path in paths {
        assert!(page.text.contains(&format!("<a href=\"/{path}\">")), "{path}: {}", page.text);
    }
}
