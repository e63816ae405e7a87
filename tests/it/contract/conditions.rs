//! Publishing on the condition that a key's newest message is the one that the publisher knows.

use serde_json::{Value, json};

use crate::{doors::raw_ws::Socket, harness::TestServer};

#[tokio::test]
async fn a_condition_on_a_key_holds_at_every_door() {
    let server = TestServer::start();
    let publish = async |key: &str, expected: Value| {
        let body = json!({"topic": "news", "data": 1, "key": key, "expected_key_offset": expected});
        server.post("/publish", &body).await
    };
    let first = publish("a", 0.into()).await.expect(200)["offset"].clone();
    // Another key does not matter.
    publish("b", 0.into()).await.expect(200);
    let refused = publish("a", 0.into()).await;
    refused.expect_error(409, "CONFLICT");
    assert_eq!(refused.json()["error"]["current_offset"], first);
    assert!(refused.text.contains("expected_key_offset: "), "{refused:?}");

    let document =
        "mutation ($at: Long) { publish(topic: \"news\", data: 2, key: \"a\", expectedKeyOffset: $at) { offset } }";
    let error = server.graphql_error(document, json!({"at": 0})).await;
    assert_eq!((&error["code"], &error["currentOffset"]), (&"CONFLICT".into(), &first));
    let second = server.graphql(document, json!({ "at": first })).await["publish"]["offset"].clone();
    let document =
        "mutation ($m: [PublishInput!]!) { publishMany(messages: $m) { publication { offset } error { code } } }";
    let item = |expected: &Value| json!({"topic": "news", "data": 3, "key": "a", "expectedKeyOffset": expected});
    let results = server.graphql(document, json!({"m": [item(&first), item(&second)]})).await["publishMany"].take();
    assert_eq!(results[0]["error"]["code"], "CONFLICT");
    let third = results[1]["publication"]["offset"].clone();

    let mut socket = Socket::connect(&server, "/ws", None).await;
    for (expected, kind) in [(&second, "error"), (&third, "ack"), (&third, "error")] {
        let frame = json!({"type": "publish", "topic": "news", "data": 4, "key": "a", "expected_key_offset": expected});
        socket.send(frame.to_string()).await;
        let reply = socket.json().await;
        assert_eq!(reply["type"], kind, "{reply}");
    }
    assert_eq!(server.get("/topics/news").await.expect(200)["messages"], 5);
}

#[tokio::test]
async fn a_condition_on_a_key_needs_one() {
    let server = TestServer::start();
    for body in [
        json!({"topic": "news", "data": 1, "expected_key_offset": 0}),
        json!({"topic": "news", "data": 1, "key": "a", "expected_key_offset": -1}),
        json!({"topic": "news", "data": 1, "key": "a", "expected_key_offset": "x"}),
    ] {
        let refused = server.post("/publish", &body).await;
        refused.expect_error(400, "BAD_REQUEST");
        assert!(refused.text.contains("expected_key_offset: "), "{refused:?}");
    }
    let document = "mutation { publish(topic: \"news\", data: 1, expectedKeyOffset: 0) { offset } }";
    let refused = server.graphql_raw(document, Value::Null).await.json();
    assert!(refused["errors"][0]["message"].as_str().unwrap().starts_with("expectedKeyOffset: needs"), "{refused}");
    assert_eq!(server.get("/topics/news").await.status, 404);
}
