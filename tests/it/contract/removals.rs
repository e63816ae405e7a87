//! Removing a key: a message that says that the key has no value any more.

use serde_json::{Value, json};

use crate::{
    doors::{Door, Start, raw_ws::Socket},
    harness::TestServer,
};

every_door! {
    a_removal_is_a_message,
}

/// Each interface removes a key, and each shows it.
async fn a_removal_is_a_message<D: Door>() {
    let server = TestServer::start();
    let value = json!({"topic": "stock", "key": "apples", "data": 3});
    let first = server.post("/publish", &value).await.expect(200)["cursor"].as_str().unwrap().to_owned();
    let removal = json!({"topic": "stock", "key": "apples", "remove": true});
    server.post("/publish", &removal).await.expect(200);
    server.send(server.request(reqwest::Method::DELETE, "/topics/stock/state/p%2Fe%20%C3%A4rs")).await.expect(200);
    let document = "mutation { removeKey(topic: \"stock\", key: \"plums\") { topic offset cursor duplicate } }";
    let removed = server.graphql(document, Value::Null).await["removeKey"].take();
    assert_eq!((&removed["topic"], &removed["duplicate"]), (&"stock".into(), &false.into()), "{removed}");
    let document = "mutation ($m: [PublishInput!]!) { publishMany(messages: $m) { error { code } } }";
    let items = json!([{"topic": "stock", "key": "figs", "data": null, "remove": true}]);
    let results = server.graphql(document, json!({ "m": items })).await["publishMany"].take();
    assert_eq!(results, json!([{"error": null}]));
    let mut socket = Socket::connect(&server, "/ws", None).await;
    let frame = json!({"type": "publish", "topic": "stock", "key": "dates", "data": null, "remove": true});
    socket.send(frame.to_string()).await;
    assert_eq!(socket.json().await["type"], "ack");
    server.post("/publish", &json!({"topic": "stock", "key": "apples", "data": null})).await.expect(200);

    let mut door = D::to(&server, "stock", Start::After(first)).await;
    let seen = door.messages(6).await;
    let seen: Vec<_> = seen.iter().map(|message| (message.key.as_deref().unwrap(), message.removed)).collect();
    let removed = ["apples", "p/e ärs", "plums", "figs", "dates"].map(|key| (key, true));
    assert_eq!(seen[..5], removed);
    assert_eq!(seen[5], ("apples", false), "data that are null are no removal");
}

#[tokio::test]
async fn removed_stands_where_it_is_true() {
    let server = TestServer::start();
    server.post("/publish", &json!({"topic": "stock", "key": "a", "data": 1})).await.expect(200);
    server.post("/publish", &json!([{"topic": "stock", "key": "a", "remove": true, "id": "r"}])).await.expect(200);
    let page = server.get("/topics/stock/messages").await.expect(200);
    assert_eq!(page["messages"][0].get("removed"), None, "{page}");
    assert_eq!((&page["messages"][1]["removed"], &page["messages"][1]["data"]), (&true.into(), &Value::Null), "{page}");
    let document = "{ topic(name: \"stock\") { messages { nodes { key data removed } } } }";
    let nodes = server.graphql(document, Value::Null).await["topic"]["messages"]["nodes"].take();
    let value = json!({"key": "a", "data": 1, "removed": false});
    assert_eq!(nodes, json!([value, {"key": "a", "data": null, "removed": true}]));
}

#[tokio::test]
async fn a_removal_has_conditions_and_an_id() {
    let server = TestServer::start();
    let value = json!({"topic": "stock", "key": "a", "data": 1});
    let first = server.post("/publish", &value).await.expect(200)["offset"].clone();
    let remove = async |parameters: &str| {
        server.send(server.request(reqwest::Method::DELETE, &format!("/topics/stock/state/a?{parameters}"))).await
    };
    let refused = remove("expected_key_offset=0").await;
    refused.expect_error(409, "CONFLICT");
    assert_eq!(refused.json()["error"]["current_offset"], first);
    remove("expected_offset=77").await.expect_error(409, "CONFLICT");
    let done = remove(&format!("expected_key_offset={first}&id=r-1")).await.expect(200);
    assert_eq!((&done["id"], &done["duplicate"]), (&"r-1".into(), &false.into()));
    let again = remove("id=r-1").await.expect(200);
    assert_eq!((&again["offset"], &again["duplicate"]), (&done["offset"], &true.into()));
    let document = "mutation ($id: ID, $at: Long, $key: Long) { removeKey(topic: \"stock\", key: \"a\", messageId: $id, \
        expectedOffset: $at, expectedKeyOffset: $key) { messageId offset duplicate } }";
    let again = server.graphql(document, json!({"id": "r-1"})).await["removeKey"].take();
    assert_eq!(again, json!({"messageId": "r-1", "offset": done["offset"], "duplicate": true}));
    assert_eq!(server.graphql_error(document, json!({"at": 1_000_000})).await["code"], "CONFLICT");
    assert_eq!(server.graphql_error(document, json!({ "key": first })).await["code"], "CONFLICT");
    server.graphql(document, json!({ "at": done["offset"] })).await;
    assert_eq!(server.get("/topics/stock").await.expect(200)["messages"], 3);
}

#[tokio::test]
async fn a_removal_that_says_more_is_refused() {
    let server = TestServer::start();
    for (body, field) in [
        (json!({"topic": "stock", "remove": true}), "remove: "),
        (json!({"topic": "stock", "key": "a", "data": 1, "remove": true}), "data: "),
        (json!({"topic": "stock", "key": "a", "message": {"payload": {}}, "remove": true}), "data: "),
        (json!({"topic": "stock", "key": "a", "remove": true, "ttl": "5s"}), "ttl: "),
        (json!({"topic": "stock", "key": "a", "data": null, "remove": "yes"}), "remove: "),
        (json!({"topic": "stock", "key": "", "remove": true}), "key: "),
    ] {
        let refused = server.post("/publish", &body).await;
        refused.expect_error(400, "BAD_REQUEST");
        assert!(refused.text.contains(&format!("\"message\":\"{field}")), "{refused:?}");
        let mut socket = Socket::connect(&server, "/ws", None).await;
        let mut frame = body.clone();
        frame["type"] = "publish".into();
        socket.send(frame.to_string()).await;
        let reply = socket.json().await;
        assert_eq!(reply["error"]["code"], "BAD_REQUEST", "{reply}");
    }
    let document = "mutation ($m: [PublishInput!]!) { publishMany(messages: $m) { error { code message } } }";
    let items = json!([
        {"topic": "stock", "data": null, "remove": true},
        {"topic": "stock", "key": "a", "data": [], "remove": true}
    ]);
    let results = server.graphql(document, json!({ "m": items })).await["publishMany"].take();
    for (result, field) in results.as_array().unwrap().iter().zip(["remove: ", "data: "]) {
        assert_eq!(result["error"]["code"], "BAD_REQUEST", "{results}");
        assert!(result["error"]["message"].as_str().unwrap().starts_with(field), "{results}");
    }
    let refused = server.send(server.request(reqwest::Method::DELETE, "/topics/stock/state/a?force=1")).await;
    refused.expect_error(400, "BAD_REQUEST");
    assert_eq!(server.get("/topics/stock").await.status, 404, "nothing was published");
}
