//! GraphQL queries and mutations, the printed schema, and the protocol of `graphql-transport-ws`.

use serde_json::{Value, json};

use crate::{
    doors::{Door, GraphqlWs, Start, raw_ws::Socket},
    harness::{TestServer, is_time},
    raw::Raw,
};

const PROTOCOL: Option<&str> = Some("graphql-transport-ws");

#[tokio::test]
async fn topics() {
    let server = TestServer::start();
    let fields =
        "name createdAt epoch messageCount subscriberCount maxMessages maxPublishRate implicit lastPublishedAt";
    let create =
        format!("mutation {{ createTopic(name: \"news\", maxMessages: 50, maxPublishRate: 0) {{ {fields} }} }}");
    let topic = server.graphql(&create, Value::Null).await["createTopic"].take();
    assert_eq!(
        (&topic["name"], &topic["maxMessages"], &topic["implicit"]),
        (&"news".into(), &50.into(), &false.into())
    );
    assert!(is_time(&topic["createdAt"]) && topic["lastPublishedAt"].is_null());
    assert_eq!(server.graphql_error(&create, Value::Null).await["code"], "TOPIC_EXISTS");
    server.publish_numbers("news", 1..=60).await;
    let query = format!("{{ topic(name: \"news\") {{ {fields} }} none: topic(name: \"none\") {{ name }} }}");
    let told = server.graphql(&query, Value::Null).await;
    assert_eq!((&told["topic"]["messageCount"], &told["none"]), (&50.into(), &Value::Null));
    assert!(is_time(&told["topic"]["lastPublishedAt"]));
    let update = "mutation { updateTopic(name: \"news\", maxMessages: 5) { messageCount maxMessages maxPublishRate } }";
    let told = server.graphql(update, Value::Null).await;
    assert_eq!(told["updateTopic"], json!({"messageCount": 5, "maxMessages": 5, "maxPublishRate": 0}));
    assert_eq!(
        server.graphql_error("mutation { updateTopic(name: \"none\", maxMessages: 5) { name } }", Value::Null).await["code"],
        "TOPIC_NOT_FOUND"
    );
    let delete = "mutation { deleteTopic(name: \"news\") { name messageCount } }";
    assert_eq!(server.graphql(delete, Value::Null).await["deleteTopic"], json!({"name": "news", "messageCount": 5}));
    assert_eq!(server.graphql_error(delete, Value::Null).await["code"], "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn connections_have_pages() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=10).await;
    let read = |arguments: &str| {
        let query = format!(
            "{{ topic(name: \"news\") {{ messages{arguments} {{ totalCount nodes {{ offset data }} edges {{ cursor node {{ cursor }} }}
               pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }} }} }}"
        );
        let server = &server;
        async move { server.graphql(&query, Value::Null).await["topic"]["messages"].take() }
    };
    let offsets = |page: &Value| {
        page["nodes"].as_array().unwrap().iter().map(|node| node["offset"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let page = read("(first: 4)").await;
    assert_eq!((offsets(&page), &page["totalCount"]), (vec![1, 2, 3, 4], &10.into()));
    assert_eq!((&page["pageInfo"]["hasNextPage"], &page["pageInfo"]["hasPreviousPage"]), (&true.into(), &false.into()));
    assert!(page["edges"].as_array().unwrap().iter().all(|edge| edge["cursor"] == edge["node"]["cursor"]));
    let end = page["pageInfo"]["endCursor"].clone();
    let page = read(&format!("(first: 100, after: {end})")).await;
    assert_eq!((offsets(&page), &page["pageInfo"]["hasNextPage"]), ((5..=10).collect(), &false.into()));
    let page = read("(last: 3)").await;
    assert_eq!((offsets(&page), &page["pageInfo"]["hasPreviousPage"]), (vec![8, 9, 10], &true.into()));
    let start = page["pageInfo"]["startCursor"].clone();
    assert_eq!(offsets(&read(&format!("(last: 3, before: {start})")).await), [5, 6, 7]);
    assert_eq!(offsets(&read("").await).len(), 10);
    for number in 0..5 {
        server.create(&format!("t{number}")).await;
    }
    let query = "{ topics(prefix: \"t\", first: 2, after: \"t1\") { totalCount nodes { name } pageInfo { hasNextPage endCursor } } }";
    let told = server.graphql(query, Value::Null).await;
    assert_eq!(told["topics"]["nodes"], json!([{"name": "t2"}, {"name": "t3"}]));
    assert_eq!((&told["topics"]["totalCount"], &told["topics"]["pageInfo"]["hasNextPage"]), (&5.into(), &true.into()));
    for bad in ["first: -1", "first: 0", "first: 100000", "last: -1", "first: 1, last: 1", "after: \"x\""] {
        let query = format!("{{ topic(name: \"news\") {{ messages({bad}) {{ totalCount }} }} }}");
        assert_eq!(server.graphql_error(&query, Value::Null).await["code"], "BAD_REQUEST", "{bad}");
    }
}

#[tokio::test]
async fn bad_documents_have_a_code() {
    let server = TestServer::start();
    for query in [
        "",
        "{",
        "nonsense",
        "{ nothing }",
        "{ topic { name } }",
        "{ topic(name: 5) { name } }",
        "mutation { publish(topic: \"news\") { id } }",
        "mutation($x: Nothing) { publish(topic: \"news\", data: $x) { id } }",
        "query($x: String!) { topic(name: $x) { name } }",
        "query a { health { status } } query b { health { status } }",
    ] {
        let response = server.graphql_raw(query, Value::Null).await;
        let body = response.json();
        assert_eq!(body["errors"][0]["extensions"]["code"], "BAD_REQUEST", "{query}: {response:?}");
        assert!(body.get("data").is_none() || body["data"].is_null());
    }
    let deep = format!("{}name{}", "{ topic(name: \"x\") ".repeat(10_000), "}".repeat(10_000));
    assert!(server.graphql_raw(&deep, Value::Null).await.json()["errors"].is_array());
    for name in ["", " x", "a*", "$sys"] {
        let told =
            server.graphql_error("mutation($n: String!) { createTopic(name: $n) { name } }", json!({"n": name})).await;
        assert_eq!(told["code"], "INVALID_TOPIC", "{name:?}");
    }
    for (body, status) in [
        ("", 400),
        ("[", 400),
        ("[]", 422),
        ("{}", 422),
        ("7", 422),
        ("{\"query\":5}", 422),
        ("{\"query\":\"{health{status}}\",\"variables\":7}", 422),
    ] {
        let response = server.post_text("/graphql", body.to_owned()).await;
        assert_eq!(response.status, status, "{body}: {response:?}");
        assert!(response.json()["errors"].is_array(), "{body}: {response:?}");
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn get_is_for_queries_only() {
    let server = TestServer::start();
    let response = server.get("/graphql?query=%7Bhealth%7Bstatus%7D%7D").await;
    assert_eq!(response.expect(200)["data"]["health"]["status"], "ok");
    let response = server.get("/graphql?query=mutation%7BcreateTopic(name%3A%22x%22)%7Bname%7D%7D").await;
    assert_eq!((response.status, response.headers["allow"].to_str().unwrap()), (405, "POST"), "{response:?}");
    server.get("/topics/x").await.expect_error(404, "TOPIC_NOT_FOUND");
}

/// The command prints the schema (`generated.rs` compares it with the file at the top of the repository).
#[tokio::test]
async fn the_printed_schema() {
    let output = crate::process::command(&[]).arg("schema").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    // What the contract names is there.
    for part in [
        "scalar JSON",
        "scalar Long",
        "scalar Cursor",
        "scalar DateTime",
        "topicEvents",
        "publishMany",
        "expectedOffset",
        "deleteConsumer",
    ] {
        assert!(printed.contains(part), "{part}");
    }
}

/// What breaks the protocol closes with the code that its specification gives.
#[tokio::test]
async fn close_codes_of_the_subprotocol() {
    let server = TestServer::start();
    let init = r#"{"type":"connection_init"}"#;
    let subscribe =
        r#"{"id":"1","type":"subscribe","payload":{"query":"subscription { messages(topic: \"news\") { id } }"}}"#;
    for (frames, code) in [
        (&[subscribe][..], 4401),
        (&[init, init], 4429),
        (&[init, subscribe, subscribe], 4409),
        (&["nonsense"], 4400),
        (&[r#"{"type":"unknown"}"#], 4400),
        (&[init, r#"{"type":"subscribe","payload":{"query":"{health{status}}"}}"#], 4400),
        (&[init, r#"{"id":"1","type":"subscribe"}"#], 4400),
        (&[init, r#"{"id":"","type":"subscribe","payload":{"query":"{health{status}}"}}"#], 4400),
        (&[init, "[]"], 4400),
    ] {
        for path in ["/graphql", "/graphql/ws"] {
            let mut socket = Socket::connect(&server, path, PROTOCOL).await;
            for frame in frames {
                socket.send(*frame).await;
            }
            assert_eq!(socket.closed().await, Some(code), "{frames:?}");
        }
    }
    // A subprotocol that is not spoken here: the connection is made, so that the client sees the code.
    let mut raw = Raw::websocket(server.addr, "/graphql", Some("soap")).await;
    assert_eq!(raw.close_code().await, Some(4406));
}

#[tokio::test]
async fn the_subprotocol_in_good_order() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server, "/graphql", PROTOCOL).await;
    // A ping may come before the init.
    socket.send(r#"{"type":"ping","payload":{"x":1}}"#).await;
    assert_eq!(socket.json().await["type"], "pong");
    socket.send(r#"{"type":"connection_init","payload":{"anything":true}}"#).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    socket.send(r#"{"type":"pong"}"#).await;
    // Queries and mutations are operations, too.
    socket.send(r#"{"id":"q","type":"subscribe","payload":{"query":"query($n: String!) { topic(name: $n) { name } }","variables":{"n":"none"}}}"#).await;
    assert_eq!(socket.json().await, json!({"id": "q", "type": "next", "payload": {"data": {"topic": null}}}));
    assert_eq!(socket.json().await, json!({"id": "q", "type": "complete"}));
    // An operation that cannot be executed is an error, and its id is free again.
    socket.send(r#"{"id":"q","type":"subscribe","payload":{"query":"{ nothing }"}}"#).await;
    let error = socket.json().await;
    assert_eq!((&error["id"], &error["type"]), (&"q".into(), &"error".into()));
    assert_eq!(error["payload"][0]["extensions"]["code"], "BAD_REQUEST");
    for topic in ["a", "b"] {
        let query = format!("subscription {{ messages(topic: \"{topic}\") {{ topic }} }}");
        socket.send(json!({"id": topic, "type": "subscribe", "payload": {"query": query}}).to_string()).await;
    }
    socket.send(r#"{"id":"a","type":"complete"}"#).await;
    socket.send(r#"{"id":"never was","type":"complete"}"#).await;
    socket.send(r#"{"type":"ping"}"#).await;
    assert_eq!(socket.json().await["type"], "pong");
    server.publish("a", 1.into()).await;
    server.publish("b", 1.into()).await;
    // No echo of the client's own complete, nothing of `a`.
    assert_eq!(
        socket.json().await,
        json!({"id": "b", "type": "next", "payload": {"data": {"messages": {"topic": "b"}}}})
    );
    socket.send(r#"{"id":"a","type":"subscribe","payload":{"query":"subscription { messages(topic: \"a\", last: 1) { topic } }"}}"#).await;
    assert_eq!(socket.json().await["id"], "a");
    server.delete("/topics/a").await.expect(200);
    // It was executed, so its end is a result, and not an `error`.
    let last = socket.json().await;
    assert_eq!((&last["id"], &last["type"]), (&"a".into(), &"next".into()));
    assert_eq!(last["payload"]["errors"][0]["extensions"]["code"], "TOPIC_DELETED");
    assert_eq!(socket.json().await, json!({"id": "a", "type": "complete"}));
    socket.close().await;
}

/// The legacy subprotocol, which older clients still speak.
#[tokio::test]
async fn the_legacy_subprotocol() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server, "/graphql", Some("graphql-ws")).await;
    socket.send(r#"{"type":"connection_init","payload":{}}"#).await;
    loop {
        let frame = socket.json().await;
        match frame["type"].as_str() {
            Some("connection_ack") => break,
            Some("ka") => {}
            _ => panic!("{frame}"),
        }
    }
    socket
        .send(r#"{"id":"1","type":"start","payload":{"query":"subscription { messages(topic: \"news\") { data } }"}}"#)
        .await;
    server.wait_for_subscribers("news", 1).await;
    server.publish("news", 1.into()).await;
    let mut frame = socket.json().await;
    while frame["type"] == "ka" {
        frame = socket.json().await;
    }
    assert_eq!(frame, json!({"id": "1", "type": "data", "payload": {"data": {"messages": {"data": 1}}}}));
    socket.send(r#"{"id":"1","type":"stop"}"#).await;
    server.wait_for_subscribers("news", 0).await;
    socket.send(r#"{"type":"connection_terminate"}"#).await;
    socket.closed().await;
}

/// A result that selects nothing of the gap is told of it all the same.
#[tokio::test]
async fn gaps_are_told_whatever_is_selected() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 5);
    let cursor = server.publish("news", 1.into()).await["cursor"].as_str().unwrap().to_owned();
    server.publish_numbers("news", 2..=20).await;
    let mut door = GraphqlWs::open(&server).await;
    let query = format!("subscription {{ messages(topic: \"news\", after: {cursor:?}) {{ offset }} }}");
    door.socket.send(json!({"id": "s", "type": "subscribe", "payload": {"query": query}}).to_string()).await;
    let first = door.socket.json().await;
    assert_eq!(first["payload"]["data"]["messages"]["offset"], 16);
    let gap = &first["payload"]["extensions"]["gap"];
    assert_eq!(
        (&gap["missed"], &gap["fromOffset"], &gap["toOffset"], &gap["reason"]),
        (&14.into(), &2.into(), &15.into(), &"EXPIRED".into())
    );
    assert!(door.socket.json().await["payload"].get("extensions").is_none());
    // Of a page, too.
    let query = format!(
        "{{ topic(name: \"news\") {{ messages(after: {cursor:?}) {{ gap {{ missed }} nodes {{ gap {{ missed }} }} }} }} }}"
    );
    let told = server.graphql(&query, Value::Null).await;
    assert_eq!(told["topic"]["messages"]["gap"]["missed"], 14);
    assert_eq!(told["topic"]["messages"]["nodes"][0]["gap"]["missed"], 14);
}

#[tokio::test]
async fn lag_is_shown() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 20_000);
    server.create("news").await;
    let mut door = GraphqlWs::to(&server, "news", Start::Live).await;
    let query = "{ topic(name: \"news\") { subscriptions { lag state overflow consumer } } }";
    let told = server.graphql(query, Value::Null).await;
    assert_eq!(
        told["topic"]["subscriptions"],
        json!([{"lag": 0, "state": "CAUGHT_UP", "overflow": "HISTORY", "consumer": null}])
    );
    server.publish_all("news", (0..8_000).map(|_| "x".repeat(1_000).into())).await;
    let told = server.graphql(query, Value::Null).await;
    assert_eq!(told["topic"]["subscriptions"][0]["state"], "BEHIND");
    assert!(told["topic"]["subscriptions"][0]["lag"].as_u64().unwrap() > 0);
    door.messages(8_000).await;
    let told = server.graphql(query, Value::Null).await;
    assert_eq!(told["topic"]["subscriptions"][0]["lag"], 0);
}
