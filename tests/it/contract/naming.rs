//! One name for one thing: names that a request does not have, names that are accepted beside each other, and the spelling of
//! each door.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    doors::{Door, Options, RawWs, Start, raw_ws::Socket, sse::EventStream},
    harness::{Response, TestServer},
};

fn message(answer: &Response) -> String {
    answer.json()["error"]["message"].as_str().unwrap().to_owned()
}

/// The request is refused, and the error says which name was meant.
fn assert_suggests(answer: &Response, meant: &str) {
    answer.expect_error(400, "BAD_REQUEST");
    let message = message(answer);
    assert!(message.ends_with(&format!("; did you mean `{meant}`?")), "{message}, not {meant}");
}

async fn patch(server: &TestServer, path: &str, body: &Value) -> Response {
    server.send(server.request(Method::PATCH, path).body(body.to_string())).await
}

#[tokio::test]
async fn rest_refuses_fields_that_it_does_not_have() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    for (body, meant) in [
        (json!({"topic": "news", "data": 1, "expectedOffset": 99}), "expected_offset"),
        (json!({"topic": "news", "data": 1, "expected_offest": 99}), "expected_offset"),
        (json!({"topic": "news", "data": 1, "messageId": "a"}), "id"),
        (json!({"Topic": "news", "data": 1}), "topic"),
        (json!({"topic": "news", "payload": 1}), "data"),
        (json!({"topic": "news", "message": {"ID": "a", "payload": 1}}), "id"),
        (json!({"topic": "news", "data": 1, "Key": null}), "key"),
    ] {
        assert_suggests(&server.post("/publish", &body).await, meant);
        // So in a batch, whose other messages are published.
        let batch = server.post("/publish", &json!([{"topic": "batch", "data": 1}, body])).await.expect(207);
        let told = batch["results"][1]["error"]["message"].as_str().unwrap();
        assert!(told.ends_with(&format!("did you mean `{meant}`?")), "{told}");
    }
    for body in [
        json!({"topic": "news", "data": 1, "colour": "red"}),
        json!({"topic": "news", "data": 1, "client_id": "a"}),
        json!({"topic": "news", "message": {"payload": 1, "key": "a"}}),
    ] {
        server.post("/publish", &body).await.expect_error(400, "BAD_REQUEST");
    }
    assert_eq!(server.get("/topics/news").await.expect(200)["message_count"], 1);

    for (body, meant) in [
        (json!({"name": "other", "maxMessages": 5}), "max_messages"),
        (json!({"name": "other", "max_publishrate": 5}), "max_publish_rate"),
        (json!({"topic": "other"}), "name"),
    ] {
        assert_suggests(&server.post("/topics", &body).await, meant);
    }
    server.get("/topics/other").await.expect_error(404, "TOPIC_NOT_FOUND");
    assert_suggests(&patch(&server, "/topics/news", &json!({"maxMessages": 5})).await, "max_messages");
    patch(&server, "/topics/news", &json!({"name": "olds"})).await.expect_error(400, "BAD_REQUEST");
    assert_eq!(server.get("/topics/news").await.expect(200)["max_messages"], 1_000);
    let ack = server.post("/topics/news/consumers/a/ack", &json!({"cursour": "x"})).await;
    assert_suggests(&ack, "cursor");
}

#[tokio::test]
async fn rest_refuses_parameters_that_it_does_not_have() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    for (path, meant) in [
        ("/topics?Prefix=a", "prefix"),
        ("/topics?first=1", "limit"),
        ("/topics/news/messages?lastN=1", "last_n"),
        ("/topics/news/messages?lsat=1", "last"),
        ("/topics/news/messages?after_id=1", "after"),
        ("/topics/news/messages?Last-Event-ID=1", "after"),
        ("/topics/news/messages?size=1", "limit"),
    ] {
        assert_suggests(&server.get(path).await, meant);
    }
    for path in [
        "/topics?colour=red",
        "/topics/news?last=1",
        "/topics/news/consumers?limit=1",
        // What only a stream has would be dropped in silence by a page.
        "/topics/news/messages?filter=%7B%7D",
        "/topics/news/messages?consumer=a",
    ] {
        server.get(path).await.expect_error(400, "BAD_REQUEST");
    }
    server.delete("/topics/news?if=unused").await.expect_error(400, "BAD_REQUEST");
    server.post("/publish?topic=news", &json!({"topic": "news", "data": 1})).await.expect_error(400, "BAD_REQUEST");
    // Health checks may carry what they like.
    server.get("/health?from=balancer").await.expect(200);

    let stream = |query: &str| {
        let request = server.request(Method::GET, &format!("/topics/news/messages?{query}"));
        server.send(request.header("accept", "text/event-stream"))
    };
    for (query, meant) in [
        ("lastN=1", "last_n"),
        ("consumerTtl=1m", "consumer_ttl"),
        ("over_flow=LATEST", "overflow"),
        ("fliter=1", "filter"),
    ] {
        assert_suggests(&stream(query).await, meant);
    }
    stream("limit=1").await.expect_error(400, "BAD_REQUEST");
}

#[tokio::test]
async fn ws_refuses_known_fields_in_another_spelling() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    let mut ws = RawWs::open(&server).await;
    for (frame, meant) in [
        (json!({"type": "publish", "topic": "news", "data": 1, "expectedOffset": 99}), "expected_offset"),
        (json!({"type": "publish", "topic": "news", "data": 1, "messageId": "a"}), "id"),
        (json!({"type": "publish", "topic": "news", "data": 1, "KEY": "a"}), "key"),
        (json!({"type": "subscribe", "topic": "news", "lastN": 1}), "last_n"),
        (json!({"type": "subscribe", "topic": "news", "after_id": "x"}), "after"),
        (json!({"type": "subscribe", "topic": "news", "cursor": "x"}), "after"),
        (json!({"type": "subscribe", "topic": "news", "consumerTtl": "1m"}), "consumer_ttl"),
        (json!({"type": "subscribe", "topic": "news", "fliter": {"field": "a", "eq": 1}}), "filter"),
        (json!({"type": "ack", "topic": "news", "consumer": "a", "Cursor": "x"}), "cursor"),
    ] {
        let reply = ws.ask(frame.clone()).await;
        assert_eq!((&reply["type"], &reply["error"]["code"]), (&"error".into(), &"BAD_REQUEST".into()), "{frame}");
        let told = reply["error"]["message"].as_str().unwrap();
        assert!(told.ends_with(&format!("did you mean `{meant}`?")), "{told}");
        // It is no reason to end the connection, however often it happens.
        ws.ask(json!({"type": "ping"})).await;
    }
    let reply = ws.ask(json!({"type": "publish", "topic": "news", "message": {"payload": 1, "key": "a"}})).await;
    assert_eq!(reply["error"]["message"], "message: has no `key`: that stands beside `message`");
    assert_eq!(server.get("/topics/news").await.expect(200)["message_count"], 1);
}

/// The frames of the original have every field whatever their type, and fields of other services mean nothing here.
#[tokio::test]
async fn ws_ignores_what_it_promises_to_ignore() {
    let server = TestServer::start();
    let mut ws = RawWs::open(&server).await;
    let original = |kind: &str| {
        json!({
            "type": kind, "topic": "news", "message": {"id": format!("id-{kind}"), "payload": {"a": 1}}, "client_id": "s1",
            "last_n": 5,
        })
    };
    for kind in ["publish", "subscribe", "unsubscribe"] {
        let reply = ws.ask(original(kind)).await;
        assert_eq!(reply["type"], "ack", "{kind}: {reply}");
        if kind == "subscribe" {
            assert_eq!(ws.socket.json().await["id"], "id-publish");
        }
    }
    assert_eq!(ws.ask(original("ping")).await["type"], "pong");
    for frame in [
        json!({"type": "publish", "topic": "news", "data": 1, "date": "2026-11-27", "user": {"name": "a"}, "ts": 1, "x": null}),
        json!({"type": "publish", "topic": "news", "data": 1, "name": "a", "payload": 2, "version": 3}),
        json!({"type": "unsubscribe", "topic": "news", "consumer": "a", "lastN": 1}),
    ] {
        assert_eq!(ws.ask(frame.clone()).await["type"], "ack", "{frame}");
    }
}

#[tokio::test]
async fn doors_spell_fields_in_their_own_way() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    let rest = server.post("/topics", &json!({"name": "a", "max_messages": 0})).await;
    assert!(message(&rest).starts_with("max_messages: "), "{rest:?}");
    let rest = patch(&server, "/topics/news", &json!({"max_messages": 0})).await;
    assert!(message(&rest).starts_with("max_messages: "), "{rest:?}");
    let rest = server.post("/publish", &json!({"topic": "news", "data": 1, "expected_offset": 9})).await;
    assert!(message(&rest).starts_with("expected_offset: "), "{rest:?}");
    let mut ws = RawWs::open(&server).await;
    let reply = ws.ask(json!({"type": "publish", "topic": "news", "data": 1, "expected_offset": 9})).await;
    assert!(reply["error"]["message"].as_str().unwrap().starts_with("expected_offset: "), "{reply}");
    let reply = ws.ask(json!({"type": "subscribe", "topic": "news", "consumer_ttl": "1s"})).await;
    assert!(reply["error"]["message"].as_str().unwrap().starts_with("consumer_ttl: "), "{reply}");

    for (query, field) in [
        ("mutation { createTopic(name: \"a\", maxMessages: 0) { name } }", "maxMessages"),
        ("mutation { updateTopic(name: \"news\", maxMessages: -1) { name } }", "maxMessages"),
        ("mutation { updateTopic(name: \"news\", maxPublishRate: -1) { name } }", "maxPublishRate"),
        ("mutation { publish(topic: \"news\", data: 1, expectedOffset: 9) { offset } }", "expectedOffset"),
        ("mutation { publish(topic: \"news\", data: 1, messageId: \"\") { offset } }", "messageId"),
    ] {
        let told = server.graphql_raw(query, Value::Null).await.json();
        let message = told["errors"][0]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
    let query =
        "mutation { publishMany(messages: [{topic: \"news\", data: 1, expectedOffset: 9}]) { error { message } } }";
    let told = server.graphql(query, Value::Null).await;
    let message = told["publishMany"][0]["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("expectedOffset: "), "{message}");
    let query = "subscription { messages(topic: \"news\", consumerTtl: \"1s\") { offset } }";
    let mut socket = Socket::connect(&server, "/graphql", Some("graphql-transport-ws")).await;
    socket.send(r#"{"type":"connection_init"}"#).await;
    socket.json().await;
    socket.send(json!({"id": "1", "type": "subscribe", "payload": {"query": query}}).to_string()).await;
    let told = socket.json().await;
    let message = told["payload"][0]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("consumerTtl: "), "{told}");
}

/// A thing has its one name at every door, and the original's names beside it.
#[tokio::test]
async fn one_name_at_every_door() {
    let server = TestServer::start();
    let mut ws = RawWs::to(&server, "news", Start::Live).await;
    server.publish("news", 1.into()).await;
    let topic = server.get("/topics/news").await.expect(200);
    let stats = &server.get("/stats").await.expect(200)["topics"]["news"];
    for shown in [&topic, stats, &server.get("/topics").await.expect(200)["topics"][0]] {
        for (name, original) in [
            ("message_count", "messages"),
            ("subscriber_count", "subscribers"),
            ("last_published_at", "last_message_at"),
        ] {
            assert!(!shown[name].is_null() && shown[name] == shown[original], "{name} in {shown}");
        }
    }
    let graphql =
        server.graphql("{ topic(name: \"news\") { messageCount subscriberCount lastPublishedAt } }", Value::Null).await;
    assert_eq!(
        graphql["topic"],
        json!({"messageCount": 1, "subscriberCount": 1, "lastPublishedAt": topic["last_published_at"]})
    );
    let health = server.get("/health").await.expect(200);
    assert!(health["uptime_seconds"].is_u64() && health["uptime_sec"].is_u64());

    let event = ws.socket.json().await;
    assert!(event["published_at"] == topic["last_published_at"] && event["ts"] == event["published_at"], "{event}");
    let page = server.get("/topics/news/messages").await.expect(200);
    assert_eq!(
        (&page["messages"][0]["published_at"], &page["messages"][0]["ts"]),
        (&event["published_at"], &event["ts"])
    );
    let request = format!(
        "GET /topics/news/messages?last_n=1 HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n",
        server.addr
    );
    let sent = EventStream::open(&server, &request).await.unwrap().next().await.unwrap();
    let data: Value = serde_json::from_str(&sent.data).unwrap();
    assert_eq!((&data["published_at"], &data["ts"]), (&event["published_at"], &event["ts"]));
}

#[tokio::test]
async fn last_has_two_names_where_the_original_had_another() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=5).await;
    for (query, offsets) in
        [("last=2", vec![4, 5]), ("last_n=2", vec![4, 5]), ("last=1&last_n=1", vec![5]), ("last_n=0", vec![])]
    {
        let page = server.get(&format!("/topics/news/messages?{query}")).await.expect(200);
        let seen: Vec<_> = page["messages"].as_array().unwrap().iter().map(|m| m["data"].as_u64().unwrap()).collect();
        assert_eq!(seen, offsets, "{query}");
    }
    server.get("/topics/news/messages?last=1&last_n=2").await.expect_error(400, "BAD_REQUEST");
    for frame in [json!({"last": 1}), json!({"last_n": 1}), json!({"last": 1, "last_n": 1})] {
        let mut ws = RawWs::open(&server).await;
        let mut frame = frame;
        frame["type"] = "subscribe".into();
        frame["topic"] = "news".into();
        assert_eq!(ws.ask(frame.clone()).await["type"], "ack");
        assert_eq!(ws.socket.json().await["data"], 5, "{frame}");
    }
    let mut ws = RawWs::open(&server).await;
    let reply = ws.ask(json!({"type": "subscribe", "topic": "news", "last": 1, "last_n": 2})).await;
    assert_eq!(reply["error"]["code"], "BAD_REQUEST");
    ws.subscribe("news", Start::Last(1), &Options::default()).await.unwrap();
}

/// A batch says by its status whether something was refused, and each refusal says when that message will be let through.
#[tokio::test]
async fn batches_count_and_their_waits_are_true() {
    let server = TestServer::with(|config| config.broker.max_publish_rate = 20);
    let batch = |count: usize| Value::from(vec![json!({"topic": "news", "data": 1}); count]);
    let whole = server.post("/publish", &batch(5)).await.expect(200);
    assert_eq!((&whole["published"], &whole["refused"]), (&5.into(), &0.into()));
    assert_eq!(
        server.post("/publish", &json!([])).await.expect(200),
        json!({"published": 0, "refused": 0, "results": []})
    );

    let answer = server.post("/publish", &batch(60)).await;
    let part = answer.expect(207);
    let results = part["results"].as_array().unwrap();
    let refused: Vec<u64> = results.iter().filter_map(|item| item["error"]["retry_after_ms"].as_u64()).collect();
    assert_eq!((results.len(), part["refused"].as_u64()), (60, Some(refused.len() as u64)));
    assert_eq!(part["published"].as_u64().unwrap() as usize + refused.len(), 60);
    assert!((20..=45).contains(&refused.len()), "{refused:?}");
    // 20 a second: one more every 50 ms.
    let waits: Vec<u64> = (1..=refused.len() as u64).map(|number| number * 50).collect();
    assert_eq!(refused, waits);
    assert_eq!(results.iter().filter(|item| item["error"]["code"] == "RATE_LIMITED").count(), refused.len());

    let query = "mutation($messages: [PublishInput!]!) { publishMany(messages: $messages) { publication { offset } error { code retryAfterMs } } }";
    let told = server.graphql_raw(query, json!({"messages": batch(60)})).await.expect(200);
    let results = &told["data"]["publishMany"];
    let waits: Vec<_> =
        results.as_array().unwrap().iter().filter_map(|r| r["error"]["retryAfterMs"].as_u64()).collect();
    assert!(waits.len() >= 20 && waits.is_sorted() && waits.windows(2).all(|two| two[1] == two[0] + 50), "{waits:?}");
    assert_eq!(told["extensions"]["publishMany"], json!({"published": 60 - waits.len(), "refused": waits.len()}));
    let whole = server.graphql_raw(query, json!({"messages": [{"topic": "other", "data": 1}]})).await.expect(200);
    assert!(whole.get("extensions").is_none(), "{whole}");
    // Who waits as it was told is let through.
    tokio::time::sleep(std::time::Duration::from_millis(waits[0])).await;
    server.publish("news", 2.into()).await;
}

/// A batch of which nothing was published is an error like any other, with the results beside it.
#[tokio::test]
async fn a_batch_that_is_refused_whole_is_an_error() {
    let server = TestServer::with(|config| config.broker.max_publish_rate = 1);
    let batch = Value::from(vec![json!({"topic": "news", "data": 1}); 3]);
    let first = server.post("/publish", &batch).await.expect(207);
    assert_eq!((&first["published"], &first["refused"]), (&1.into(), &2.into()));
    let refused = server.post("/publish", &batch).await;
    refused.expect_error(429, "RATE_LIMITED");
    assert_eq!(refused.headers["retry-after"], "1");
    let body = refused.json();
    assert_eq!((&body["published"], &body["refused"]), (&0.into(), &3.into()));
    assert_eq!(body["results"][2]["error"]["retry_after_ms"], 3_000);
    assert_eq!(body["error"], body["results"][0]["error"]);

    let batch = json!([{"topic": "*", "data": 1}, {"topic": "other"}]);
    server.post("/publish", &batch).await.expect_error(400, "INVALID_TOPIC");
    let batch = json!([{"topic": "other", "data": 1, "expected_offset": 4}]);
    server.post("/publish", &batch).await.expect_error(409, "CONFLICT");
}
