//! GraphQL to the letter of its specifications: variables, literals, statuses, documents by their ids; and what data all
//! doors take.

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    doors::{raw_ws::Socket, sse::EventStream},
    harness::{Response, TestServer, within},
};

/// A socket whose connection is initialised.
async fn initialised(server: &TestServer, protocol: &str) -> Socket {
    let mut socket = Socket::connect(server, "/graphql", Some(protocol)).await;
    socket.send(r#"{"type":"connection_init"}"#).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    socket
}

/// The next message that is no keep-alive.
async fn heard(socket: &mut Socket) -> Value {
    loop {
        let message = socket.json().await;
        if message["type"] != "ka" {
            return message;
        }
    }
}

async fn ask(server: &TestServer, body: &str) -> Response {
    server.post_text("/graphql", body.to_owned()).await
}

/// By 6.4.1 and 3.10 of the specification a variable that is not sent is as if it were not written.
#[tokio::test]
async fn a_variable_that_is_not_sent_is_absent() {
    let server = TestServer::start();
    server.create("news").await;
    // The whole request is refused where data is missing, sent or written as null it is null.
    for (query, variables, status) in [
        ("mutation { publish(topic: \"news\") { offset } }", json!({}), 422),
        ("mutation ($d: JSON) { publish(topic: \"news\", data: $d) { offset } }", json!({"D": 1}), 422),
        ("mutation ($d: JSON!) { publish(topic: \"news\", data: $d) { offset } }", json!({"D": 1}), 422),
        ("mutation { publishMany(messages: [{topic: \"news\"}]) { error { code } } }", json!({}), 422),
        (
            "mutation ($m: [PublishInput!]!) { publishMany(messages: $m) { error { code } } }",
            json!({"m": [{"topic": "news"}]}),
            422,
        ),
        ("mutation ($d: JSON) { publish(topic: \"news\", data: $d) { offset } }", json!({"d": null}), 200),
        ("mutation ($d: JSON!) { publish(topic: \"news\", data: $d) { offset } }", json!({"d": null}), 200),
        ("mutation ($d: JSON = null) { publish(topic: \"news\", data: $d) { offset } }", json!({}), 200),
        ("mutation { publish(topic: \"news\", data: null) { offset } }", json!({}), 200),
        ("mutation { publishMany(messages: [{topic: \"news\", data: null}]) { error { code } } }", json!({}), 200),
        (
            "mutation ($m: [PublishInput!]!) { publishMany(messages: $m) { error { code } } }",
            json!({"m": [{"topic": "news", "data": null, "key": null}]}),
            200,
        ),
        (
            "mutation ($d: JSON, $k: String) { publish(topic: \"news\", data: {a: $k, b: [$k], c: $d}, key: $k) { offset } }",
            json!({}),
            200,
        ),
    ] {
        let response = server.graphql_raw(query, variables.clone()).await;
        assert_eq!(response.status, status, "{query} with {variables}: {response:?}");
        assert_eq!(response.json().get("errors").is_some(), status == 422, "{query} with {variables}: {response:?}");
    }
    let page = server.get("/topics/news/messages").await.expect(200);
    let data: Vec<_> = page["messages"].as_array().unwrap().iter().map(|message| message["data"].to_string()).collect();
    assert_eq!(data, ["null", "null", "null", "null", "null", "null", r#"{"b":[null]}"#]);
    // Of several messages one is refused, and those beside it are not.
    let query = "mutation ($d: JSON, $k: String) { publishMany(messages: [
        {topic: \"news\", data: $d}, {topic: \"news\", data: 2, key: $k}]) { publication { offset } error { code message } } }";
    let many = server.graphql(query, json!({"x": 1})).await["publishMany"].take();
    assert_eq!((&many[0]["publication"], &many[0]["error"]["message"]), (&Value::Null, &"data: is missing".into()));
    assert_eq!((many[1]["error"].clone(), many[1]["publication"]["offset"].as_u64().is_some()), (Value::Null, true));
}

#[tokio::test]
async fn a_condition_that_is_not_sent_is_none() {
    let server = TestServer::start();
    server.publish_all("news", [json!({"a": 1}), json!({"a": null}), json!({"b": 1})]).await;
    for (filter, variables, seen) in [
        ("{field: \"a\", eq: $v, exists: true}", json!({}), vec![json!({"a": 1}), json!({"a": null})]),
        ("{field: \"a\", eq: $v, exists: true}", json!({"v": null}), vec![json!({"a": null})]),
        ("{field: \"a\", eq: null}", json!({}), vec![json!({"a": null})]),
        ("{field: \"a\", in: [1, null]}", json!({}), vec![json!({"a": 1}), json!({"a": null})]),
    ] {
        let mut socket = initialised(&server, "graphql-transport-ws").await;
        let declared = if filter.contains('$') { "($v: JSON)" } else { "" };
        let query =
            format!("subscription {declared} {{ messages(topic: \"news\", last: 9, filter: {filter}) {{ data }} }}");
        let payload = json!({"query": query, "variables": variables});
        socket.send(json!({"id": "1", "type": "subscribe", "payload": payload}).to_string()).await;
        for data in seen {
            let next = socket.json().await;
            assert_eq!(next["payload"]["data"]["messages"]["data"], data, "{filter} with {variables}: {next}");
        }
        // Nothing else came.
        socket
            .send(json!({"id": "2", "type": "subscribe", "payload": {"query": "{ health { status } }"}}).to_string())
            .await;
        assert_eq!(socket.json().await["id"], "2", "{filter} with {variables}");
    }
}

#[tokio::test]
async fn directives_and_defaults() {
    let server = TestServer::start();
    let query =
        |declared: &str| format!("query ({declared}) {{ health @include(if: $x) {{ status }} stats {{ topics }} }}");
    for (declared, variables, shown) in [
        ("$x: Boolean = true", json!({}), Some(true)),
        ("$x: Boolean = false", json!({}), Some(false)),
        ("$x: Boolean! = true", json!({}), Some(true)),
        ("$x: Boolean = true", json!({"x": false}), Some(false)),
        ("$x: Boolean!", json!({}), None),
        ("$x: Boolean", json!({}), None),
        ("$x: Boolean = true", json!({"x": null}), None),
        ("$x: Boolean = null", json!({}), None),
    ] {
        let response = server.graphql_raw(&query(declared), variables.clone()).await;
        let body = response.json();
        match shown {
            Some(shown) => assert_eq!(body["data"].get("health").is_some(), shown, "{declared} {variables}: {body}"),
            None => assert_eq!(response.status, 422, "{declared} {variables}: {body}"),
        }
    }
    // What is absent does not hide what else is wrong with the document.
    for query in [
        "query ($n: Int) { health { status } }",
        "query ($n: Int) { topics(first: $n) { nothing } }",
        "query A($n: Int) { topics(first: $n) { totalCount } } query B { nothing }",
    ] {
        let body = json!({"query": query, "operationName": if query.contains(" A(") { Some("A") } else { None }});
        assert_eq!(ask(&server, &body.to_string()).await.status, 422, "{query}");
    }
}

/// Every door takes the same data, whatever form it comes in, and says of the rest what is wrong with it.
#[tokio::test]
async fn all_doors_take_the_same_data() {
    let server = TestServer::with(|config| config.broker.max_payload_bytes = 1_000);
    server.create("news").await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let long = |unit: &str, count: usize| format!("\"{}\"", unit.repeat(count));
    let half = Some("half of a surrogate pair");
    let key = Some("twice|only one input field");
    let cases = [
        (r#""\ud83d\ude00""#.to_owned(), None),
        (r#""cut \ud83d""#.to_owned(), half),
        (r#"["\ude00\ud83d"]"#.to_owned(), half),
        (r#"{"a":1,"b":{"a":2}}"#.to_owned(), None),
        (r#"{"a":1,"a":2}"#.to_owned(), key),
        (r#"[{"b":{"a":1,"c":3,"a":2}}]"#.to_owned(), key),
        (nested(64), None),
        (nested(65), Some("must not nest deeper than 6")),
        (nested(66), Some("must not nest deeper than 6")),
        (long("x", 998), None),
        (long("x", 999), Some("1000|1,000")),
        (long("\\u0041", 998), None),
        (long("\\u0041", 999), Some("1000|1,000")),
        (long("\\n", 998), None),
        (long("\\n", 999), Some("1000|1,000")),
        (long("\\ud83d\\ude00", 249), None),
        (long("\\ud83d\\ude00", 250), Some("1000|1,000")),
        ("1E5".to_owned(), None),
        ("-1.50e400".to_owned(), None),
        ("null".to_owned(), None),
    ];
    for (data, wrong) in cases {
        for (door, response) in publish_everywhere(&server, &data).await {
            let shown = &data[..data.len().min(60)];
            match wrong {
                None => {
                    assert!(
                        response.contains("\"offset\":") && !response.contains("error\":{"),
                        "{shown} at {door}: {response}"
                    );
                    let page = server.get("/topics/news/messages?last=1").await.expect(200);
                    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
                    assert_eq!(page["messages"][0]["data"], read(&data), "{shown} at {door}");
                }
                Some(reason) => {
                    assert!(!response.contains("\"offset\":"), "{shown} at {door}: {response}");
                    assert!(reason.split('|').any(|reason| response.contains(reason)), "{shown} at {door}: {response}");
                }
            }
        }
    }
}

/// Publishes data at every door, and returns what each said.
async fn publish_everywhere(server: &TestServer, data: &str) -> Vec<(&'static str, String)> {
    let variables = Value::from("mutation ($d: JSON!) { publish(topic: \"news\", data: $d) { offset } }");
    let by_variable = format!(r#"{{"query":{variables},"variables":{{"d":{data}}}}}"#);
    let many = Value::from(
        "mutation ($m: [PublishInput!]!) { publishMany(messages: $m) { publication { offset } error { message } } }",
    );
    let by_list = format!(r#"{{"query":{many},"variables":{{"m":[{{"topic":"news","data":{data}}}]}}}}"#);
    // In a literal keys have no quotes.
    let keys = ["a", "b", "c"]
        .iter()
        .fold(data.to_owned(), |text, key| text.replace(&format!("\"{key}\":"), &format!("{key}:")));
    let by_literal =
        json!({"query": format!("mutation {{ publish(topic: \"news\", data: {keys}) {{ offset }} }}")}).to_string();
    let in_literal = format!(
        "mutation {{ publishMany(messages: [{{topic: \"news\", data: {keys}}}]) {{ publication {{ offset }} error {{ message }} }} }}"
    );
    let mut said = vec![
        ("REST", server.post_text("/publish", format!(r#"{{"topic":"news","data":{data}}}"#)).await.text),
        (
            "REST, enclosed",
            server.post_text("/publish", format!(r#"{{"topic":"news","message":{{"payload":{data}}}}}"#)).await.text,
        ),
        ("a REST batch", server.post_text("/publish", format!(r#"[{{"topic":"news","data":{data}}}]"#)).await.text),
        ("a variable", ask(server, &by_variable).await.text),
        ("a variable in a list", ask(server, &by_list).await.text),
        ("a literal", ask(server, &by_literal).await.text),
        ("a literal in a list", ask(server, &json!({"query": in_literal}).to_string()).await.text),
    ];
    let mut raw = Socket::connect(server, "/ws", None).await;
    raw.send(format!(r#"{{"type":"publish","topic":"news","data":{data}}}"#)).await;
    said.push(("/ws", raw.text().await));
    for (name, payload) in [("a variable over WebSocket", &by_variable), ("a literal over WebSocket", &by_literal)] {
        let mut socket = initialised(server, "graphql-transport-ws").await;
        socket.send(format!(r#"{{"id":"1","type":"subscribe","payload":{payload}}}"#)).await;
        said.push((name, socket.text().await));
    }
    for (name, body) in [("a variable over SSE", &by_variable), ("a literal over SSE", &by_literal)] {
        let request = server.request(reqwest::Method::POST, "/graphql");
        let headers = request.header("content-type", "application/json").header("accept", "text/event-stream");
        said.push((name, server.send(headers.body(body.clone())).await.text));
    }
    said
}

/// An operation whose variables or extensions cannot be taken fails alone, and learns why.
#[tokio::test]
async fn one_operation_fails_and_the_connection_lives() {
    let server = TestServer::start();
    server.create("news").await;
    for (protocol, start, next) in [("graphql-transport-ws", "subscribe", "next"), ("graphql-ws", "start", "data")] {
        let mut socket = initialised(&server, protocol).await;
        let live = json!({"query": "subscription { messages(topic: \"news\") { data } }"});
        socket.send(json!({"id": "live", "type": start, "payload": live}).to_string()).await;
        server.wait_for_subscribers("news", 1).await;
        let query = r#""query":"mutation($d:JSON!){publish(topic:\"news\",data:$d){offset}}""#;
        let deep =
            |depth: usize| format!(r#"{{{query},"variables":{{"d":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth));
        for (payload, reason) in [
            (
                format!(r#"{{{query},"variables":{{"d":"cut \ud83d"}}}}"#),
                "variables.d: must not hold half of a surrogate pair",
            ),
            (
                format!(r#"{{{query},"variables":{{"d":{{"a":1,"a":2}}}}}}"#),
                "variables.d: must not have the key \"a\" twice in one object",
            ),
            (deep(66), "Variable \"$d\" must not nest deeper than 64."),
            (deep(70), "variables.d: must not nest deeper than 66"),
            (deep(1_000), "variables.d: must not nest deeper than 66"),
            (
                format!(r#"{{{query},"variables":{{"d":1}},"extensions":{{"operationId":5}}}}"#),
                "extensions.operationId: must be a string",
            ),
            (
                format!(r#"{{{query},"variables":{{"d":1}},"extensions":{{"ack":[]}}}}"#),
                "extensions.ack: must be a string",
            ),
            (
                format!(r#"{{{query},"variables":{{"d":1}},"extensions":{{"persistedQuery":7}}}}"#),
                "extensions.persistedQuery: must be an object",
            ),
            (r#"{"query":"{a(x:\"\ud83d\")}"}"#.to_owned(), "query: must not hold half of a surrogate pair"),
        ] {
            socket.send(format!(r#"{{"id":"1","type":"{start}","payload":{payload}}}"#)).await;
            let error = heard(&mut socket).await;
            assert_eq!((&error["type"], &error["id"]), (&"error".into(), &"1".into()), "{protocol}: {error}");
            let first = if protocol == "graphql-ws" { &error["payload"] } else { &error["payload"][0] };
            assert_eq!(first["message"], reason, "{protocol}: {error}");
        }
        server.publish("news", 7.into()).await;
        let message = heard(&mut socket).await;
        assert_eq!((&message["id"], &message["type"]), (&"live".into(), &next.into()), "{protocol}: {message}");
        socket.close().await;
        server.wait_for_subscribers("news", 0).await;
    }
    // What has not the form that the protocol gives a message still ends the connection.
    for payload in
        [r#"{"query":5}"#, r#"{"query":"{a}","variables":[]}"#, r#"{"query":"{a}","extensions":7}"#, "7", "{}"]
    {
        let mut socket = initialised(&server, "graphql-transport-ws").await;
        socket.send(format!(r#"{{"id":"1","type":"subscribe","payload":{payload}}}"#)).await;
        assert_eq!(socket.closed().await, Some(4400), "{payload}");
    }
}

#[tokio::test]
async fn ids_of_operations_have_any_length() {
    let server = TestServer::start();
    server.create("news").await;
    for id in ["x".repeat(256), "🌍".repeat(1_000), "x".repeat(100_000)] {
        let mut socket = initialised(&server, "graphql-transport-ws").await;
        let payload = json!({"query": "subscription { messages(topic: \"news\") { data } }"});
        let subscribe = json!({"id": id, "type": "subscribe", "payload": payload}).to_string();
        socket.send(subscribe.clone()).await;
        server.wait_for_subscribers("news", 1).await;
        server.publish("news", 1.into()).await;
        assert_eq!(socket.json().await["id"], Value::from(id.as_str()));
        socket.send(subscribe).await;
        let close = loop {
            match within("the end", socket.stream.next()).await {
                Some(Ok(Message::Close(Some(close)))) => break close,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("{other:?}"),
            }
        };
        let reason = close.reason.as_str();
        assert_eq!(u16::from(close.code), 4409);
        assert!(reason.starts_with("Subscriber for ") && reason.ends_with("… already exists"), "{reason}");
        assert!(reason.len() <= 123, "{reason}");
        server.wait_for_subscribers("news", 0).await;
    }
}

#[tokio::test]
async fn ids_of_operations_on_event_streams_have_any_length() {
    let server = TestServer::start();
    let token = server.send(server.request(Method::PUT, "/graphql")).await.text;
    let connect =
        format!("GET /graphql?token={token} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", server.addr);
    let Ok(mut stream) = EventStream::open(&server, &connect).await else { panic!("it is no stream") };
    let operate = async |id: &str| {
        let body = json!({"query": "{ health { status } }", "extensions": {"operationId": id}});
        let request = server.request(Method::POST, "/graphql").header("x-graphql-event-stream-token", &token);
        server.send(request.header("accept", "application/json").json(&body)).await
    };
    for id in ["x".repeat(256), "🌍".repeat(1_000), "x".repeat(1_000_000)] {
        assert_eq!(operate(&id).await.status, 202);
        for event in ["next", "complete"] {
            let sent = stream.next().await.unwrap();
            let data: Value = serde_json::from_str(&sent.data).unwrap();
            assert_eq!((sent.event.as_str(), data["id"].as_str()), (event, Some(id.as_str())));
        }
    }
    let refused = operate(&"x".repeat(1 << 20)).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(refused.headers["vary"], "accept");
}

/// GraphQL over HTTP as released: the status says what happened, in both media types.
#[tokio::test]
async fn statuses_over_http() {
    let server = TestServer::start();
    for (body, status) in [
        ("{", 400),
        ("", 400),
        ("nonsense", 400),
        (r#"{"query":"{"}"#, 400),
        (r#"{"query":"{ a(x: \"\\uD83D\") }"}"#, 400),
        (r#"{"query":""}"#, 400),
        ("7", 422),
        ("{}", 422),
        (r#"{"query":5}"#, 422),
        (r#"{"query":"{health{status}}","variables":7}"#, 422),
        (r#"{"query":"{health{status}}","variables":{"a":"\ud83d"}}"#, 422),
        (r#"{"query":"{health{status}}","extensions":7}"#, 422),
        (r#"{"query":"{health{status}}","operationName":7}"#, 422),
        (r#"{"query":"{ nothing }"}"#, 422),
        (r#"{"query":"query a { health { status } } query b { health { status } }"}"#, 422),
        (r#"{"query":"query a { health { status } }","operationName":"b"}"#, 422),
        (r#"{"query":"query ($n: String!) { topic(name: $n) { name } }"}"#, 422),
        (r#"{"query":"query ($n: String!) { topic(name: $n) { name } }","variables":{"n":[5]}}"#, 422),
        (r#"{"query":"query ($f: Int) { topics(first: $f) { totalCount } }","variables":{"f":"x"}}"#, 422),
        (r#"{"documentId":"sha256:00"}"#, 422),
        (r#"{"query":"{ health { status } topic(name: \"a*\") { name } }"}"#, 294),
        (r#"{"query":"mutation { createTopic(name: \"a*\") { name } }"}"#, 294),
        (r#"{"query":"{health{status}}","variables":null,"extensions":null,"operationName":null}"#, 200),
    ] {
        for kind in ["application/json", "application/graphql-response+json"] {
            let request = server.request(reqwest::Method::POST, "/graphql").header("accept", kind);
            let response = server.send(request.header("content-type", "application/json").body(body)).await;
            assert_eq!(response.status, status, "{kind} {body}: {response:?}");
            assert!(response.headers["content-type"].to_str().unwrap().starts_with(kind));
            let told = response.json();
            assert_eq!(told.get("data").is_some(), status < 300, "{kind} {body}: {told}");
            assert_eq!(told.get("errors").is_some(), status != 200, "{kind} {body}: {told}");
            assert!(!response.text.contains("\"line\":0"), "{kind} {body}: {told}");
        }
    }
    for (query, status) in [
        ("query=%7B", 400),
        ("query=%7Bhealth%7Bstatus%7D%7D&variables=%7B", 400),
        ("query=%7Bhealth%7Bstatus%7D%7D&variables=7", 422),
        ("query=%7Bhealth%7Bstatus%7D%7D&extensions=%5B%5D", 422),
        ("query=%7Bnothing%7D", 422),
        ("variables=%7B%7D", 422),
        ("query=%7Btopic(name%3A%22a*%22)%7Bname%7D%20health%7Bstatus%7D%7D", 294),
        ("query=%7Bhealth%7Bstatus%7D%7D", 200),
    ] {
        let request = server.request(reqwest::Method::GET, &format!("/graphql?{query}"));
        let response = server.send(request.header("accept", "application/json")).await;
        assert_eq!(response.status, status, "{query}: {response:?}");
    }
}

/// A document is named by its hash, at the top level of the request or in its extensions, with or without the prefix.
#[tokio::test]
async fn documents_have_an_id() {
    use sha2::{Digest, Sha256};
    let server = TestServer::start();
    server.create("news").await;
    let hash_of =
        |text: &str| Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let query = "{ health { status } }";
    let hash = hash_of(query);
    let unknown = ask(&server, &json!({"documentId": hash}).to_string()).await;
    assert_eq!(
        (unknown.status, &unknown.json()["errors"][0]["extensions"]["code"]),
        (422, &"PERSISTED_QUERY_NOT_FOUND".into())
    );
    ask(&server, &json!({"documentId": hash, "query": "{ stats { topics } }"}).to_string()).await.expect(422);
    ask(&server, &json!({"documentId": hash, "query": query}).to_string()).await.expect(200);
    let extensions = json!({"persistedQuery": {"version": 1, "sha256Hash": hash}});
    let prefixed = format!("sha256:{hash}");
    for body in [
        json!({"documentId": hash}),
        json!({"documentId": prefixed}),
        json!({"documentId": prefixed, "extensions": extensions}),
        json!({"extensions": extensions}),
    ] {
        let told = ask(&server, &body.to_string()).await.expect(200);
        assert_eq!(told["data"]["health"]["status"], "ok", "{body}");
        let mut socket = initialised(&server, "graphql-transport-ws").await;
        socket.send(json!({"id": "1", "type": "subscribe", "payload": body}).to_string()).await;
        assert_eq!(socket.json().await["payload"]["data"]["health"]["status"], "ok", "{body}");
        let request = server.request(reqwest::Method::POST, "/graphql").header("accept", "text/event-stream");
        let response = server.send(request.header("content-type", "application/json").body(body.to_string())).await;
        assert!(response.text.contains(r#"{"data":{"health":{"status":"ok"}}}"#), "{body}: {response:?}");
    }
    let other = json!({"documentId": "00", "extensions": extensions});
    ask(&server, &other.to_string()).await.expect(422);
    for (id, accept) in [
        (&hash, "*/*"),
        (&prefixed, "application/json"),
        (&prefixed, "text/event-stream"),
        (&hash, "text/html,*/*;q=0.1"),
    ] {
        let request = server.request(reqwest::Method::GET, &format!("/graphql?documentId={}", id.replace(':', "%3A")));
        let response = server.send(request.header("accept", accept)).await;
        assert!(response.status == 200 && response.text.contains(r#""status":"ok""#), "{accept}: {response:?}");
    }
    // A subscription, too.
    let subscription = "subscription { messages(topic: \"news\", last: 1) { data } }";
    server.publish("news", 5.into()).await;
    let mut socket = initialised(&server, "graphql-transport-ws").await;
    let id = format!("sha256:{}", hash_of(subscription));
    for payload in [json!({"query": subscription, "documentId": id}), json!({"documentId": id})] {
        socket.send(json!({"id": "1", "type": "subscribe", "payload": payload}).to_string()).await;
        assert_eq!(socket.json().await["payload"]["data"]["messages"]["data"], 5);
        socket.send(r#"{"id":"1","type":"complete"}"#).await;
    }
}

/// Experimental: a client asks for the position behind every result.
#[tokio::test]
async fn every_result_has_its_cursor_where_that_is_asked_for() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 3);
    let first = server.publish("news", 0.into()).await["cursor"].as_str().unwrap().to_owned();
    server.publish_numbers("news", 1..=5).await;
    let extensions = json!({"delivery-guarantee": "cursor"});
    let query = format!("subscription {{ messages(topic: \"news\", after: {first:?}, consumer: \"c\") {{ cursor }} }}");
    let mut socket = initialised(&server, "graphql-transport-ws").await;
    let payload = json!({"query": query, "extensions": extensions});
    socket.send(json!({"id": "1", "type": "subscribe", "payload": payload}).to_string()).await;
    for index in 0..3 {
        let result = socket.json().await["payload"].take();
        assert_eq!(result["extensions"]["cursor"], result["data"]["messages"]["cursor"]);
        assert_eq!(result["extensions"].get("gap").is_some(), index == 0, "{result}");
        assert_eq!(result["extensions"].get("consumer").is_some(), index == 0, "{result}");
    }
    // Through a pattern it is the position over all topics.
    let query = "subscription { messages(topic: \"new*\") { offset } }".replace("new*", "*");
    let payload = json!({"query": query.replace("offset", "patternCursor"), "extensions": extensions});
    socket.send(json!({"id": "2", "type": "subscribe", "payload": payload}).to_string()).await;
    // Without the extension there is none.
    let payload = json!({"query": "subscription { messages(topic: \"other\") { offset } }"});
    socket.send(json!({"id": "3", "type": "subscribe", "payload": payload}).to_string()).await;
    server.wait_for_subscribers("other", 2).await;
    server.publish("other", 1.into()).await;
    for _ in 0..2 {
        let message = socket.json().await;
        let (id, result) = (&message["id"], &message["payload"]);
        match id.as_str().unwrap() {
            "2" => assert_eq!(result["extensions"]["cursor"], result["data"]["messages"]["patternCursor"]),
            _ => assert!(result.get("extensions").is_none(), "{message}"),
        }
    }
    for wrong in [json!("none"), json!(5)] {
        let payload = json!({"query": query, "extensions": {"delivery-guarantee": wrong}});
        socket.send(json!({"id": "4", "type": "subscribe", "payload": payload}).to_string()).await;
        let error = socket.json().await;
        assert_eq!((&error["id"], &error["type"]), (&"4".into(), &"error".into()), "{error}");
    }
}

/// Publishers may give the same id in two topics; in GraphQL `id` is unique all the same.
#[tokio::test]
async fn ids_of_messages_are_unique_over_all_topics() {
    let server = TestServer::start();
    let publish =
        "mutation ($t: String!) { publish(topic: $t, data: 1, messageId: \"same\") { id messageId cursor duplicate } }";
    let mut ids = Vec::new();
    for topic in ["one", "other"] {
        let told = server.graphql(publish, json!({"t": topic})).await["publish"].take();
        assert_eq!((&told["messageId"], &told["duplicate"]), (&"same".into(), &false.into()));
        assert_eq!(told["id"], told["cursor"]);
        let again = server.graphql(publish, json!({"t": topic})).await["publish"].take();
        assert_eq!((&again["id"], &again["duplicate"]), (&told["id"], &true.into()));
        let read = format!(
            "{{ topic(name: {topic:?}) {{ messages {{ nodes {{ id messageId cursor }} pageInfo {{ endCursor }} }} }} }}"
        );
        let page = server.graphql(&read, json!({})).await["topic"]["messages"].take();
        let node = &page["nodes"][0];
        assert_eq!((&node["id"], &node["messageId"], &node["cursor"]), (&told["id"], &"same".into(), &told["id"]));
        ids.push(told["id"].clone());
        // The page's end has the type that `after` takes.
        let next = "query ($t: String!, $c: Cursor) { topic(name: $t) { messages(after: $c) { nodes { id } } } }";
        let page = server.graphql(next, json!({"t": topic, "c": page["pageInfo"]["endCursor"]})).await;
        assert_eq!(page["topic"]["messages"]["nodes"], json!([]));
    }
    assert_ne!(ids[0], ids[1]);
    let next = "query ($c: Cursor) { topics(first: 1, after: $c) { nodes { name } pageInfo { endCursor } } }";
    let mut after = Value::Null;
    for topic in ["one", "other"] {
        let page = server.graphql(next, json!({"c": after})).await["topics"].take();
        assert_eq!(page["nodes"], json!([{"name": topic}]));
        after = page["pageInfo"]["endCursor"].clone();
    }
}
