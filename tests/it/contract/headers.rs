//! What goes with the data of a message: given at every interface, delivered at every one, and kept by every engine.

use serde_json::{Value, json};

use crate::{
    doors::{raw_ws::Socket, sse::EventStream},
    harness::TestServer,
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The headers of the topic's messages, as REST lists them.
async fn kept(server: &TestServer, topic: &str) -> Vec<Value> {
    let page = server.get(&format!("/topics/{topic}/messages")).await.expect(200);
    page["messages"].as_array().unwrap().iter().map(|message| message["headers"].clone()).collect()
}

#[tokio::test]
async fn headers_are_given_and_delivered_at_every_interface() {
    let server = TestServer::start();
    server.create("news").await;
    let query = r#"subscription { messages(topic: "news") { headers } }"#;
    let mut graphql = Socket::connect(&server, "/graphql", Some("graphql-transport-ws")).await;
    graphql.send(r#"{"type":"connection_init"}"#).await;
    assert_eq!(graphql.json().await["type"], "connection_ack");
    graphql.send(json!({"type": "subscribe", "id": "1", "payload": {"query": query}}).to_string()).await;
    let mut plain = Socket::connect(&server, "/ws", None).await;
    plain.send(r#"{"type":"subscribe","topic":"news"}"#).await;
    assert_eq!(plain.json().await["type"], "ack");
    let request = "GET /topics/news/messages HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
    let mut events = EventStream::open(&server, request).await.unwrap();
    server.wait_for_subscribers("news", 3).await;

    let whole = json!({"traceparent": PARENT, "a": "ü \"\\", "A": ""});
    server.post("/publish", &json!({"topic": "news", "data": 1, "headers": {"door": "rest"}})).await.expect(200);
    server.post("/publish", &json!([{"topic": "news", "data": 1, "headers": whole}])).await.expect(200);
    let mutation = "mutation ($headers: Headers) { publish(topic: \"news\", data: 1, headers: $headers) { offset } }";
    server.graphql(mutation, json!({"headers": {"door": "graphql"}})).await;
    let literal = "mutation ($a: String) { publish(topic: \"news\", data: 1, headers: {b: \"2\", a: $a}) { offset } }";
    server.graphql(literal, json!({"a": "1"})).await;
    server.graphql(literal, json!({})).await;
    let many = "mutation { publishMany(messages: [{topic: \"news\", data: 1, headers: {a: \"b\"}},
        {topic: \"news\", data: 1, headers: {a: 1}}, {topic: \"news\", data: 1, headers: {}}]) { error { message } } }";
    let results = server.graphql(many, json!({})).await["publishMany"].take();
    assert_eq!(
        results,
        json!([{"error": null}, {"error": {"message": "headers: must be an object whose values are strings"}}, {"error": null}])
    );
    let frame =
        json!({"type": "publish", "topic": "news", "message": {"id": "x", "payload": 1}, "headers": {"door": "ws"}});
    let mut publisher = Socket::connect(&server, "/ws", None).await;
    publisher.send(frame.to_string()).await;
    assert_eq!(publisher.json().await["status"], "ok");

    let wanted = [
        json!({"door": "rest"}),
        whole,
        json!({"door": "graphql"}),
        json!({"a": "1", "b": "2"}),
        json!({"b": "2"}),
        json!({"a": "b"}),
        Value::Null,
        json!({"door": "ws"}),
    ];
    assert_eq!(kept(&server, "news").await, wanted);
    let query = "{ topic(name: \"news\") { messages(first: 10) { nodes { headers } } } }";
    let page = server.graphql(query, json!({})).await;
    let nodes = page["topic"]["messages"]["nodes"].as_array().unwrap().clone();
    assert_eq!(nodes.iter().map(|node| node["headers"].clone()).collect::<Vec<_>>(), wanted);
    for headers in &wanted {
        assert_eq!(graphql.json().await["payload"]["data"]["messages"]["headers"], *headers);
        assert_eq!(plain.json().await.get("headers").unwrap_or(&Value::Null), headers);
        let event: Value = serde_json::from_str(&events.next().await.unwrap().data).unwrap();
        assert_eq!(event.get("headers").unwrap_or(&Value::Null), headers);
    }
}

#[tokio::test]
async fn headers_out_of_bounds_are_refused_at_every_interface() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server, "/ws", None).await;
    let many: serde_json::Map<_, _> = (0..33).map(|n| (n.to_string(), "".into())).collect();
    for headers in [
        json!([]),
        json!("a"),
        json!({"a": 1}),
        json!({"a": null}),
        json!({"": "a"}),
        json!({"a b": "c"}),
        json!({"a": "b\n"}),
        json!({"a": " b"}),
        json!({"Nats-Msg-Id": "1"}),
        json!({"pubsub-key": "1"}),
        json!({"a": "x".repeat(1_025)}),
        json!({"x".repeat(65): ""}),
        json!({"a": "x".repeat(1_024), "b": "x".repeat(1_024), "c": "x".repeat(1_024), "d": "x".repeat(1_024)}),
        Value::Object(many),
    ] {
        let body = json!({"topic": "news", "data": 1, "headers": headers});
        let refused = server.post("/publish", &body).await;
        refused.expect_error(400, "BAD_REQUEST");
        assert!(refused.json()["error"]["message"].as_str().unwrap().starts_with("headers: must"), "{refused:?}");
        let mutation =
            "mutation ($headers: Headers) { publish(topic: \"news\", data: 1, headers: $headers) { offset } }";
        let error = server.graphql_error(mutation, json!({"headers": headers})).await;
        assert_eq!(error["code"], "BAD_REQUEST", "{headers}");
        socket.send(json!({"type": "publish", "topic": "news", "data": 1, "headers": headers}).to_string()).await;
        assert_eq!(socket.json().await["error"]["code"], "BAD_REQUEST", "{headers}");
    }
    // Beside `message`, not within it; and by its one name.
    for body in [
        json!({"topic": "news", "message": {"payload": 1, "headers": {"a": "b"}}}),
        json!({"topic": "news", "data": 1, "header": {"a": "b"}}),
    ] {
        server.post("/publish", &body).await.expect_error(400, "BAD_REQUEST");
    }
    server.get("/topics/news").await.expect_error(404, "TOPIC_NOT_FOUND");
}

/// The context of a trace that comes with a request goes with the messages that it publishes.
#[tokio::test]
async fn the_context_of_a_trace_is_handed_on() {
    let server = TestServer::start();
    let post = async |path: &str, headers: &[(&str, &str)], body: Value| {
        let mut request = server.request(reqwest::Method::POST, path).json(&body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        server.send(request).await.expect(200);
    };
    let own = json!({"traceparent": "mine"});
    let headers = [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")];
    post("/publish", &headers, json!({"topic": "news", "data": 1, "headers": {"x": "y"}})).await;
    post("/publish", &headers, json!({"topic": "news", "data": 1, "headers": own})).await;
    post("/publish", &[("traceparent", "00-0-0-01")], json!({"topic": "news", "data": 1})).await;
    post("/publish", &[("traceparent", PARENT), ("traceparent", PARENT)], json!({"topic": "news", "data": 1})).await;
    let query = "mutation { publish(topic: \"news\", data: 1) { offset } }";
    post("/graphql", &headers[..1], json!({"query": query})).await;
    post(
        "/graphql",
        &headers[..1],
        json!({"query": query, "extensions": {"traceparent": PARENT, "tracestate": "c=3"}}),
    )
    .await;
    let mut graphql = Socket::connect(&server, "/graphql", Some("graphql-transport-ws")).await;
    graphql.send(r#"{"type":"connection_init"}"#).await;
    assert_eq!(graphql.json().await["type"], "connection_ack");
    for (id, extensions) in [("1", json!({"traceparent": PARENT})), ("2", json!({"traceparent": 5}))] {
        let payload = json!({"query": query, "extensions": extensions});
        graphql.send(json!({"type": "subscribe", "id": id, "payload": payload}).to_string()).await;
        assert_eq!(
            (graphql.json().await["type"].take(), graphql.json().await["type"].take()),
            ("next".into(), "complete".into())
        );
    }
    let parent = json!({"traceparent": PARENT});
    let wanted = [
        json!({"traceparent": PARENT, "tracestate": "a=1,b=2", "x": "y"}),
        own,
        Value::Null,
        Value::Null,
        parent.clone(),
        json!({"traceparent": PARENT, "tracestate": "c=3"}),
        parent,
        Value::Null,
    ];
    assert_eq!(kept(&server, "news").await, wanted);
}
