//! Every bound, filled: what is over it is refused by its code, what is within goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    doors::{Door, GraphqlWs, Options, RawWs, Start, numbers, raw_ws::Socket},
    harness::{TestServer, alone, eventually},
    raw::Raw,
};

async fn refused<D: Door>(server: &TestServer, topic: &str, options: &Options) -> String {
    D::open(server).await.subscribe(topic, Start::Live, options).await.unwrap_err()
}

#[tokio::test]
async fn the_publish_rate() {
    let _alone = alone().await;
    let server = TestServer::with(|config| config.broker.max_publish_rate = 20);
    for number in 1..=20 {
        server.publish("news", number.into()).await;
    }
    let begun = Instant::now();
    let mut limited = None;
    for _ in 0..20 {
        let response = server.post("/publish", &json!({"topic": "news", "data": 0})).await;
        if response.status != 200 {
            limited = Some(response);
            break;
        }
    }
    let limited = limited.expect("a burst of one second's worth, not two");
    limited.expect_error(429, "RATE_LIMITED");
    assert_eq!(limited.headers["retry-after"], "1");
    let wait = limited.json()["error"]["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1_000).contains(&wait), "{wait}");
    // The other doors say the same; other topics are not touched.
    let query = "mutation { publish(topic: \"news\", data: 1) { offset } publishMany(messages: [{topic: \"news\", data: 1}]) { error { code retryAfterMs } } }";
    let mut drained = Value::Null;
    for _ in 0..50 {
        let told = server.graphql_raw(query, Value::Null).await.json();
        if told["errors"].is_array() {
            drained = told;
            break;
        }
    }
    let extensions = &drained["errors"][0]["extensions"];
    assert_eq!(extensions["code"], "RATE_LIMITED");
    assert!(extensions["retryAfterMs"].as_u64().is_some());
    let mut ws = RawWs::open(&server).await;
    let mut reply = Value::Null;
    for _ in 0..50 {
        reply = ws.ask(json!({"type": "publish", "topic": "news", "data": 1})).await;
        if reply["type"] == "error" {
            break;
        }
    }
    assert_eq!(reply["error"]["code"], "RATE_LIMITED");
    assert!(reply["error"]["retry_after_ms"].as_u64().is_some());
    server.publish("other", 1.into()).await;
    // After the wait there is room again: twenty a second, whatever the clients do.
    eventually("room for one more", || async {
        (server.post("/publish", &json!({"topic": "news", "data": 1})).await.status == 200).then_some(())
    })
    .await;
    let accepted = server.get("/topics/news").await.expect(200)["last_offset"].as_u64().unwrap();
    let most = 20 + begun.elapsed().as_millis() as u64 / 50 + 20;
    assert!(accepted <= most, "{accepted} accepted, at most {most} allowed");
}

#[tokio::test]
async fn repeating_and_failing_cost_no_tokens() {
    let server = TestServer::with(|config| config.broker.max_publish_rate = 2);
    let body = json!({"topic": "news", "data": 1, "id": "same"});
    for _ in 0..10 {
        server.post("/publish", &body).await.expect(200);
        server
            .post("/publish", &json!({"topic": "news", "data": 1, "expected_offset": 99}))
            .await
            .expect_error(409, "CONFLICT");
    }
    server.publish("news", 2.into()).await;
}

#[tokio::test]
async fn subscriptions_on_one_raw_connection() {
    let server = TestServer::with(|config| config.ws.max_subscriptions = 3);
    let mut ws = RawWs::open(&server).await;
    for topic in ["a", "b", "c"] {
        ws.subscribe(topic, Start::Live, &Options::default()).await.unwrap();
    }
    assert_eq!(ws.subscribe("d", Start::Live, &Options::default()).await.unwrap_err(), "LIMIT_REACHED");
    ws.subscribe("a", Start::Live, &Options::default()).await.unwrap();
    ws.unsubscribe("b").await;
    ws.subscribe("d", Start::Live, &Options::default()).await.unwrap();
    RawWs::to(&server, "d", Start::Live).await;
    server.publish("d", 1.into()).await;
    assert_eq!(numbers(&ws.messages(1).await), [1]);
}

#[tokio::test]
async fn operations_on_one_graphql_connection() {
    let server = TestServer::with(|config| config.graphql.max_operations = 3);
    let mut door = GraphqlWs::open(&server).await;
    for topic in ["a", "b", "c"] {
        door.subscribe(topic, Start::Live, &Options::default()).await.unwrap();
    }
    assert_eq!(door.subscribe("d", Start::Live, &Options::default()).await.unwrap_err(), "LIMIT_REACHED");
    door.unsubscribe("b").await;
    door.subscribe("d", Start::Live, &Options::default()).await.unwrap();
    server.publish("d", 1.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [1]);
}

#[tokio::test]
async fn connections() {
    let server = TestServer::with(|config| config.server.max_connections = 10);
    let mut open = Vec::new();
    let last = loop {
        assert!(open.len() <= 10);
        let mut raw = Raw::connect(server.addr).await;
        raw.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        match raw.response().await {
            Some((head, _)) if head.status == 200 => open.push(raw),
            refused => break (refused, raw),
        }
    };
    assert_eq!(open.len(), 10);
    let ((head, body), mut raw) = (last.0.expect("an response that says why"), last.1);
    assert_eq!((head.status, crate::doors::sse::code_in(&body).as_str()), (503, "LIMIT_REACHED"));
    raw.closed().await;
    // Those within the bound go on, and one that leaves makes room, whatever its door.
    open[0].write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(open[0].response().await.unwrap().0.status, 200);
    open.truncate(5);
    eventually("room for new connections", || async {
        let mut sockets = Vec::new();
        for _ in 0..5 {
            sockets.push(Socket::try_connect(&server, "/ws", None).await.ok()?);
        }
        Some(sockets)
    })
    .await;
}

#[tokio::test]
async fn bytes_of_a_message() {
    let server = TestServer::with(|config| config.broker.max_payload_bytes = 10);
    server.publish("news", "12345678".into()).await;
    server
        .post("/publish", &json!({"topic": "news", "data": "123456789"}))
        .await
        .expect_error(413, "PAYLOAD_TOO_LARGE");
    // White space between tokens does not count.
    server.post_text("/publish", r#"{"topic":"news","data":[ 1 ,      2,    3 , 4 ]}"#).await.expect(200);
    let mut ws = RawWs::open(&server).await;
    let reply = ws.ask(json!({"type": "publish", "topic": "news", "data": "123456789"})).await;
    assert_eq!(reply["error"]["code"], "PAYLOAD_TOO_LARGE");
    let refused =
        server.graphql_error("mutation { publish(topic: \"news\", data: \"123456789\") { id } }", Value::Null).await;
    assert_eq!(refused["code"], "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn bytes_of_a_body() {
    let server = TestServer::with(|config| config.server.max_body_bytes = 100);
    let body = |pad: usize| format!(r#"{{"topic":"news","data":1}}{}"#, " ".repeat(pad));
    server.post_text("/publish", body(75)).await.expect(200);
    server.post_text("/publish", body(76)).await.expect_error(413, "PAYLOAD_TOO_LARGE");
    let response = server.post_text("/graphql", format!(r#"{{"query":"{{__typename}}"}}{}"#, " ".repeat(100))).await;
    assert_eq!(response.status, 413);
}

#[tokio::test]
async fn messages_in_a_batch() {
    let server = TestServer::with(|config| config.broker.max_batch = 3);
    let batch = |count: usize| Value::from(vec![json!({"topic": "news", "data": 1}); count]);
    server.post("/publish", &batch(3)).await.expect(200);
    server.post("/publish", &batch(4)).await.expect_error(400, "BAD_REQUEST");
    let query = "mutation($m: [PublishInput!]!) { publishMany(messages: $m) { error { code } } }";
    server.graphql(query, json!({"m": batch(3)})).await;
    assert_eq!(server.graphql_error(query, json!({"m": batch(4)})).await["code"], "BAD_REQUEST");
    let page = server.get("/topics/news/messages").await.expect(200);
    assert_eq!(page["messages"].as_array().unwrap().len(), 3);
    server.get("/topics/news/messages?limit=4").await.expect_error(400, "BAD_REQUEST");
}

/// Bytes bound a history as messages do; the gap counts what had to go.
#[tokio::test]
async fn bytes_of_a_history() {
    let server = TestServer::with(|config| {
        config.broker.max_payload_bytes = 10_000;
        config.broker.max_bytes_per_topic = 50_000;
        config.broker.max_history_bytes = 100_000;
    });
    let big = Value::from("x".repeat(9_000));
    let first = server.publish("a", big.clone()).await["cursor"].as_str().unwrap().to_owned();
    for _ in 0..20 {
        server.publish("a", big.clone()).await;
    }
    let kept = server.get("/topics/a").await.expect(200)["messages"].as_u64().unwrap();
    assert!((1..=5).contains(&kept), "{kept}");
    let page = server.get(&format!("/topics/a/messages?after={first}")).await.expect(200);
    assert_eq!(page["gap"]["missed"].as_u64().unwrap() + page["messages"].as_array().unwrap().len() as u64, 20);
    // All together: a topic pays with its own, one that has nothing to pay with is refused.
    for _ in 0..20 {
        server.publish("b", big.clone()).await;
    }
    let mut code = String::new();
    for number in 0..10 {
        let response = server.post("/publish", &json!({"topic": format!("c{number}"), "data": big})).await;
        if response.status != 200 {
            code = response.code();
            assert_eq!(response.status, 503);
            break;
        }
    }
    assert_eq!(code, "LIMIT_REACHED");
    assert_eq!(server.get("/topics/a").await.expect(200)["messages"], kept, "nobody pays for another");
    server.publish("a", big.clone()).await;
    server.delete("/topics/b").await.expect(200);
    server.publish("d", big).await;
    assert!(server.get("/stats").await.expect(200)["history_bytes"].as_u64().unwrap() <= 100_000);
}

#[tokio::test]
async fn patterns() {
    let server = TestServer::with(|config| config.broker.max_patterns = 2);
    let mut one = RawWs::to(&server, "a.*", Start::Live).await;
    let _two = GraphqlWs::to(&server, "b.>", Start::Live).await;
    for code in pushing_doors!(D => refused::<D>(&server, "c.*", &Options::default()).await) {
        assert_eq!(code, "LIMIT_REACHED");
    }
    // Another subscriber of a known pattern is none more.
    RawWs::to(&server, "b.>", Start::Live).await;
    one.unsubscribe("a.*").await;
    RawWs::to(&server, "c.*", Start::Live).await;
}

#[tokio::test]
async fn consumers_of_a_topic_and_in_all() {
    let server = TestServer::with(|config| {
        config.broker.max_consumers_per_topic = 2;
        config.broker.max_consumers = 3;
    });
    let consumer = |name| Options::consumer(name, "AUTO");
    let mut ws = RawWs::open(&server).await;
    ws.subscribe("a", Start::Live, &consumer("one")).await.unwrap();
    let _two = RawWs::with(&server, "a", Start::Live, &consumer("two")).await;
    for code in pushing_doors!(D => refused::<D>(&server, "a", &consumer("three")).await) {
        assert_eq!(code, "LIMIT_REACHED");
    }
    ws.subscribe("b", Start::Live, &consumer("one")).await.unwrap();
    assert_eq!(refused::<RawWs>(&server, "c", &consumer("one")).await, "LIMIT_REACHED");
    // A known name is none more; a deleted one makes room.
    RawWs::with(&server, "a", Start::Live, &consumer("two")).await;
    server.graphql("mutation { deleteConsumer(topic: \"a\", consumer: \"one\") }", Value::Null).await;
    RawWs::with(&server, "c", Start::Live, &consumer("one")).await;
}

#[tokio::test]
async fn topics_of_a_pattern_consumer() {
    let server = TestServer::with(|config| config.broker.max_topics_per_consumer = 3);
    for number in 0..4 {
        server.create(&format!("t.{number}")).await;
    }
    for code in pushing_doors!(D => refused::<D>(&server, "t.*", &Options::consumer("c", "AUTO")).await) {
        assert_eq!(code, "LIMIT_REACHED");
    }
    server.delete("/topics/t.0").await.expect(200);
    let mut ws = RawWs::with(&server, "t.*", Start::Live, &Options::consumer("c", "AUTO")).await;
    server.publish("t.1", 1.into()).await;
    assert_eq!(ws.event().await.message().topic, "t.1");
}

#[tokio::test]
async fn filters() {
    let server = TestServer::with(|config| {
        config.broker.filter.max_bytes = 200;
        config.broker.filter.max_conditions = 5;
    });
    let many = |count: usize| json!({"or": vec![json!({"field": "a", "eq": 1}); count]});
    RawWs::with(&server, "news", Start::Live, &Options::filter(many(4))).await;
    for filter in [many(5), json!({"field": "a", "eq": "x".repeat(300)})] {
        for code in pushing_doors!(D => refused::<D>(&server, "news", &Options::filter(filter.clone())).await) {
            assert_eq!(code, "BAD_REQUEST", "{filter}");
        }
    }
}

/// Ids are remembered as long as their messages are: the memory of ids is bounded by the history.
#[tokio::test]
async fn ids() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 100);
    for round in 0..3 {
        let items: Vec<_> = (0..1_000)
            .map(|n| json!({"topic": "news", "data": n, "id": format!("{}-{round}-{n}", "i".repeat(200))}))
            .collect();
        server.post("/publish", &Value::from(items)).await.expect(200);
    }
    let held = server.get("/stats").await.expect(200)["history_bytes"].as_u64().unwrap();
    assert!(held < 100 * 1_000, "{held} bytes for 100 messages with long ids");
}

#[tokio::test]
async fn an_init_that_does_not_come() {
    let server = TestServer::with(|config| config.graphql.connection_init_timeout = Duration::from_millis(100));
    let mut socket = Socket::connect(&server, "/graphql", Some("graphql-transport-ws")).await;
    assert_eq!(socket.closed().await, Some(4408));
}
