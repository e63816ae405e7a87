//! Guessing what there is: answers about what one may not see are the same whether it exists or not.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Innocent, Restricted, rule};
use crate::{
    doors::{Door, GraphqlWs, Options, RawWs, Start, numbers, sse::EventStream},
    harness::{Client, TestServer},
};

/// One may see `mine` alone.
fn rules() -> String {
    rule("curious", "subscribe = [\"mine.>\"]\npublish = [\"mine.>\"]\nmanage = [\"mine.>\"]\nstats = false")
        + &rule("counter", "subscribe = [\"mine.>\"]\nstats = true")
}

/// Exists, with messages, a subscriber and consumers.
const REAL: &str = "secret.plans";
/// As long, and not there.
const GUESS: &str = "secret.guess";

/// Puts something behind the name that is guessed.
async fn server_with_secrets(edit: impl FnOnce(&mut pub_sub::config::Config)) -> (Restricted, RawWs) {
    let server = Restricted::with(&rules(), edit);
    server.admin.publish_numbers(REAL, 1..=5).await;
    server.admin.publish_numbers("mine.own", 1..=5).await;
    let subscribed = RawWs::with(&server.admin, REAL, Start::Live, &Options::consumer("worker", "EXPLICIT")).await;
    (server, subscribed)
}

/// The text without its times and with the topic's name made the same.
fn leveled(text: &str, topic: &str) -> String {
    let text = text.replace(topic, "TOPIC").replace(&crate::harness::encode(topic), "TOPIC");
    // Times are the only digits that differ.
    let mut leveled = String::new();
    for part in text.split_inclusive('"') {
        let is_time = part.strip_suffix('"').is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok());
        leveled.push_str(if is_time { "TIME\"" } else { part });
    }
    leveled
}

/// What a client is told about a topic by REST: statuses, headers and bodies.
async fn asked_by_rest(client: &Client, topic: &str, cursor: &str) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    let item = json!({"topic": topic, "data": 1});
    let requests = [
        (Method::GET, format!("/topics/{topic}"), None),
        (Method::HEAD, format!("/topics/{topic}"), None),
        (Method::POST, "/topics".to_owned(), Some(json!({"name": topic}))),
        (Method::PATCH, format!("/topics/{topic}"), Some(json!({"max_messages": 1}))),
        (Method::DELETE, format!("/topics/{topic}"), None),
        (Method::GET, format!("/topics/{topic}/messages"), None),
        (Method::GET, format!("/topics/{topic}/messages?last=5"), None),
        (Method::GET, format!("/topics/{topic}/messages?after={cursor}"), None),
        (Method::GET, format!("/topics/{topic}/messages?since=2000-01-01T00:00:00Z"), None),
        (Method::GET, format!("/topics/{topic}/consumers"), None),
        (Method::DELETE, format!("/topics/{topic}/consumers/worker"), None),
        (Method::DELETE, format!("/topics/{topic}/consumers/worker?owner=api_key"), None),
        (Method::POST, format!("/topics/{topic}/consumers/worker/ack"), Some(json!({"cursor": cursor}))),
        (Method::POST, "/publish".to_owned(), Some(item.clone())),
        (Method::POST, "/publish".to_owned(), Some(json!({"topic": topic, "data": 1, "expected_offset": 5}))),
        (Method::POST, "/publish".to_owned(), Some(json!({"topic": topic, "data": 1, "expected_offset": 0}))),
        (Method::POST, "/publish".to_owned(), Some(json!([item]))),
    ];
    for (number, (method, path, body)) in requests.into_iter().enumerate() {
        let what = format!("{number} {method} {}", path.replace(topic, "TOPIC"));
        let request = client.request(method, &path);
        let response = client.send(match body {
            Some(body) => request.json(&body),
            None => request,
        });
        let response = response.await;
        // In a batch each item has its own error.
        assert!(
            response.text.contains("FORBIDDEN") || (what.contains("HEAD") && response.status == 403),
            "{response:?}"
        );
        let headers: BTreeMap<_, _> = response
            .headers
            .iter()
            .filter(|(name, _)| *name != "date")
            .filter(|(name, _)| *name != "x-request-id")
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        told.insert(what, format!("{} {headers:?} {}", response.status, leveled(&response.text, topic)));
    }
    let request = format!(
        "GET /topics/{topic}/messages HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{}\r\n",
        client.credential_line()
    );
    let (head, body) = EventStream::open(client, &request).await.err().unwrap();
    told.insert("event stream".to_owned(), format!("{} {}", head.status, leveled(&body, topic)));
    told
}

/// The same by GraphQL and `/ws`.
async fn asked_by_others(client: &Client, topic: &str, cursor: &str) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for query in [
        "{ topic(name: T) { name messageCount subscriberCount lastOffset } }",
        "{ consumers(topic: T) { name owner } }",
        "mutation { publish(topic: T, data: 1) { offset } }",
        "mutation { publish(topic: T, data: 1, expectedOffset: 5) { offset } }",
        "mutation { publishMany(messages: [{topic: T, data: 1}]) { error { code message } } }",
        "mutation { createTopic(name: T) { name } }",
        "mutation { updateTopic(name: T, maxMessages: 1) { name } }",
        "mutation { deleteTopic(name: T) { name } }",
        "mutation { acknowledge(topic: T, consumer: \"worker\", cursor: C) }",
        "mutation { deleteConsumer(topic: T, consumer: \"worker\") }",
        "mutation { deleteConsumer(topic: T, consumer: \"worker\", owner: \"api_key\") }",
    ] {
        let asked = query.replace(": T", &format!(": {topic:?}")).replace(": C", &format!(": {cursor:?}"));
        let response = client.graphql_raw(&asked, json!({})).await;
        assert!(response.text.contains("FORBIDDEN"), "{query}: {response:?}");
        // The names have the same length, so columns are the same.
        told.insert(query.to_owned(), format!("{} {}", response.status, leveled(&response.text, topic)));
    }
    for frame in [
        json!({"type": "subscribe", "topic": topic}),
        json!({"type": "subscribe", "topic": topic, "last_n": 5}),
        json!({"type": "subscribe", "topic": topic, "after": cursor}),
        json!({"type": "subscribe", "topic": topic, "consumer": "worker"}),
        json!({"type": "publish", "topic": topic, "data": 1}),
        json!({"type": "publish", "topic": topic, "data": 1, "expected_offset": 5}),
        json!({"type": "ack", "topic": topic, "consumer": "worker", "cursor": cursor}),
    ] {
        let what = frame.to_string().replace(topic, "TOPIC");
        let reply = RawWs::open(client).await.ask(frame).await;
        assert_eq!(reply["error"]["code"], "FORBIDDEN", "{what}: {reply}");
        told.insert(what, leveled(&reply.to_string(), topic));
    }
    for start in [Start::Live, Start::Last(5), Start::After(cursor.to_owned())] {
        let what = format!("{start:?}");
        let codes = pushing_doors!(D => {
            D::open(client).await.subscribe(topic, start.clone(), &Options::default()).await.unwrap_err()
        });
        assert!(codes.iter().all(|code| code == "FORBIDDEN"), "{codes:?}");
        told.insert(what, codes.join(" "));
    }
    told
}

#[tokio::test]
async fn by_error() {
    let (server, mut subscribed) = server_with_secrets(|_| {}).await;
    let curious = server.key("curious");
    let mut innocent = Innocent::of(&server.admin).await;
    let cursor = server.admin.get(&format!("/topics/{REAL}/messages?last=1")).await.expect(200)["next"].clone();
    let cursor = cursor.as_str().unwrap();
    assert_eq!(asked_by_rest(&curious, REAL, cursor).await, asked_by_rest(&curious, GUESS, cursor).await);
    assert_eq!(asked_by_others(&curious, REAL, cursor).await, asked_by_others(&curious, GUESS, cursor).await);
    // None of it did anything.
    server.admin.publish(REAL, 6.into()).await;
    assert_eq!(numbers(&subscribed.messages(1).await), [6]);
    let topic = server.admin.get(&format!("/topics/{REAL}")).await.expect(200);
    assert_eq!(topic["messages"], 6);
    server.admin.get(&format!("/topics/{GUESS}")).await.expect_error(404, "TOPIC_NOT_FOUND");
    // Of what one may see, one learns the truth.
    curious.get("/topics/mine.own").await.expect(200);
    curious.get("/topics/mine.none").await.expect_error(404, "TOPIC_NOT_FOUND");
    innocent.receives().await;
}

#[tokio::test]
async fn by_lists_and_counts() {
    let (server, _subscribed) = server_with_secrets(|_| {}).await;
    for number in 0..30 {
        server.admin.publish(&format!("secret.{number:02}"), 1.into()).await;
    }
    server.admin.publish("mine.zzz", 1.into()).await;
    let query = "query($after: Cursor, $first: Int, $prefix: String) { topics(after: $after, first: $first, prefix: $prefix) \
                 { totalCount nodes { name } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
    for name in ["curious", "counter"] {
        let client = server.key(name);
        let listed = client.get("/topics").await;
        assert!(!listed.text.contains("secret"), "{listed:?}");
        let page = client.graphql(query, json!({})).await["topics"].take();
        assert_eq!(page["totalCount"], 2, "{page}");
        assert_eq!(page["nodes"], json!([{"name": "mine.own"}, {"name": "mine.zzz"}]));
        // A page that ends at the last visible one says that there is no more.
        let first = client.graphql(query, json!({"first": 1})).await["topics"].take();
        assert_eq!((&first["pageInfo"]["hasNextPage"], &first["totalCount"]), (&true.into(), &2.into()));
        let after = first["pageInfo"]["endCursor"].clone();
        let last = client.graphql(query, json!({"first": 1, "after": after})).await["topics"].take();
        assert_eq!(last["pageInfo"]["hasNextPage"], false, "what is not shown makes no next page: {last}");
        // Beginning behind or with what is hidden tells nothing.
        for variables in [json!({"prefix": "secret"}), json!({"prefix": "s"}), json!({"after": "secret.05"})] {
            let page = client.graphql(query, variables).await["topics"].take();
            let expected = json!({"hasNextPage": false, "hasPreviousPage": page["pageInfo"]["hasPreviousPage"], "startCursor": null, "endCursor": null});
            assert_eq!((&page["nodes"], &page["pageInfo"]), (&json!([]), &expected), "{page}");
            assert!(!page.to_string().contains("secret"), "{page}");
        }
        let real = client.graphql(query, json!({"after": REAL})).await;
        let guess = client.graphql(query, json!({"after": GUESS})).await;
        assert_eq!(real, guess);
        for path in ["/topics?prefix=secret", "/topics?prefix=secret.pl", "/topics?after=secret.05", "/topics?limit=1"]
        {
            let response = client.get(path).await;
            assert!(response.status == 400 || !response.text.contains("secret."), "{path}: {response:?}");
        }
    }
    // Numbers about everything need `stats`.
    let curious = server.key("curious");
    for path in ["/stats", "/metrics", "/topics/mine.own/consumers"] {
        assert_eq!(curious.get(path).await.status, 403, "{path}");
    }
    let error = curious.graphql_error("{ stats { topics } }", json!({})).await;
    assert_eq!(error["code"], "FORBIDDEN");
    // `/health` tells a stranger its status alone.
    let health = server.nobody().get("/health").await.expect(200);
    assert_eq!(health.as_object().unwrap().keys().collect::<Vec<_>>(), ["status"], "{health}");
}

#[tokio::test]
async fn by_patterns_and_events() {
    let (server, _subscribed) = server_with_secrets(|_| {}).await;
    let curious = server.key("curious");
    for (pattern, answer) in [("secret.>", Err("FORBIDDEN")), ("*.plans", Ok(())), ("secret.*", Err("FORBIDDEN"))] {
        let mut codes = pushing_doors!(D => {
            D::open(&curious).await.subscribe(pattern, Start::Last(5), &Options::default()).await
        });
        let expected = answer.map_err(str::to_owned);
        assert!(codes.iter_mut().all(|code| *code == expected), "{pattern}: {codes:?}");
    }
    // Whether a topic exists that matches makes no difference.
    let answer = |pattern: &'static str| {
        let client = curious.clone();
        async move {
            let reply = RawWs::open(&client).await.ask(json!({"type": "subscribe", "topic": pattern})).await;
            leveled(&reply.to_string(), pattern)
        }
    };
    assert_eq!(answer("secret.*").await, answer("guess.*").await);
    // What a pattern delivers, from the history and live, of topics there are and that come later.
    let mut all = RawWs::to(&curious, ">", Start::Last(1_000)).await;
    assert_eq!(numbers(&all.messages(5).await), [1, 2, 3, 4, 5]);
    let mut events = GraphqlWs::open(&curious).await;
    let subscription = json!({"query": "subscription { topicEvents { kind name } }"});
    let begun = json!({"id": "events", "type": "subscribe", "payload": subscription});
    events.socket.send(begun.to_string()).await;
    events.socket.send(r#"{"type":"ping"}"#).await;
    assert_eq!(events.socket.json().await["type"], "pong");
    for topic in ["secret.later", "mine.later"] {
        server.admin.create(topic).await;
        server.admin.publish(topic, 7.into()).await;
        server.admin.delete(&format!("/topics/{topic}")).await.expect(200);
    }
    server.admin.delete(&format!("/topics/{REAL}")).await.expect(200);
    server.admin.publish("mine.last", 8.into()).await;
    let mut seen = Vec::new();
    while !seen.iter().any(|text: &String| text.contains("mine.last")) {
        seen.push(events.socket.text().await);
    }
    assert!(seen.iter().all(|text| !text.contains("secret")), "{seen:?}");
    assert!(seen.iter().any(|text| text.contains("mine.later")), "{seen:?}");
    let mut texts = Vec::new();
    loop {
        let event = all.event().await;
        texts.push(format!("{event:?}"));
        if texts.last().is_some_and(|text| text.contains("mine.last")) {
            break;
        }
    }
    assert!(texts.iter().all(|text| !text.contains("secret")), "{texts:?}");
    for pattern in ["secret.>", "secret.plans"] {
        let query = format!("subscription {{ topicEvents(pattern: {pattern:?}) {{ name }} }}");
        let begun = json!({"id": pattern, "type": "subscribe", "payload": {"query": query}});
        let mut socket = GraphqlWs::open(&curious).await.socket;
        socket.send(begun.to_string()).await;
        let refused = socket.json().await;
        assert_eq!(refused["payload"][0]["extensions"]["code"], "FORBIDDEN", "{refused}");
    }
}

/// A cursor says where to go on, and opens nothing.
#[tokio::test]
async fn by_cursors_of_other_topics() {
    let (server, _subscribed) = server_with_secrets(|_| {}).await;
    let curious = server.key("curious");
    let page = server.admin.get(&format!("/topics/{REAL}/messages?last=5")).await.expect(200);
    let cursor = page["messages"][0]["cursor"].as_str().unwrap();
    let mut door = RawWs::to(&server.admin, ">", Start::Last(10)).await;
    let pattern_cursor = door.messages(1).await.remove(0).pattern_cursor.unwrap();
    // In a topic of one's own it is another incarnation's.
    let own = curious.get(&format!("/topics/mine.own/messages?after={cursor}")).await.expect(200);
    assert!(own["messages"].as_array().unwrap().iter().all(|message| message["topic"] == "mine.own"), "{own}");
    assert_eq!(own["gap"]["reason"], "NEW_EPOCH", "{own}");
    // A position over all topics begins with what one may read.
    let mut all = RawWs::to(&curious, ">", Start::After(pattern_cursor)).await;
    let messages = all.messages(5).await;
    assert!(messages.iter().all(|message| message.topic == "mine.own"), "{messages:?}");
    let query = "query($after: Cursor) { topic(name: \"mine.own\") { messages(after: $after) { nodes { topic } } } }";
    let page = curious.graphql(query, json!({"after": cursor})).await;
    assert!(!page.to_string().contains("secret"), "{page}");
}

/// What a router asks for by keys is null where it may not be seen, as where there is nothing.
#[tokio::test]
async fn by_entities_of_the_federation() {
    let (server, _subscribed) = server_with_secrets(|config| config.graphql.federation = true).await;
    let query = "query($keys: [_Any!]!) { _entities(representations: $keys) { ... on Topic { name messageCount } } }";
    let key = |name: &str| json!({"__typename": "Topic", "name": name});
    let keys = json!({"keys": [key(REAL), key("mine.own"), key(GUESS)]});
    let curious = server.key("curious");
    let found = curious.graphql_raw(query, keys.clone()).await.expect(200);
    assert_eq!(found, json!({"data": {"_entities": [null, {"name": "mine.own", "messageCount": 5}, null]}}));
    let found = server.admin.graphql(query, keys).await;
    assert_eq!(found["_entities"][0]["messageCount"], 5);
    // What hangs at a topic has its own rules.
    let listed = server.key("counter").graphql(query, json!({"keys": [key(REAL)]})).await;
    assert_eq!(listed["_entities"], json!([null]));
    let deeper =
        "query($keys: [_Any!]!) { _entities(representations: $keys) { ... on Topic { subscriptions { principal } } } }";
    let error = curious.graphql_raw(deeper, json!({"keys": [key("mine.own")]})).await;
    assert!(error.text.contains("FORBIDDEN"), "{error:?}");
    // Nobody gets that far.
    server.nobody().graphql_raw(query, json!({"keys": [key(REAL)]})).await.expect(401);
}

/// The token of somebody else's event stream is as good as none.
#[tokio::test]
async fn by_tokens_of_event_streams() {
    const TOKEN: &str = "x-graphql-event-stream-token";
    let (server, _subscribed) = server_with_secrets(|_| {}).await;
    let reserved = server.admin.send(server.admin.request(Method::PUT, "/graphql")).await;
    assert_eq!(reserved.status, 201);
    for name in ["curious", "counter"] {
        let client = server.key(name);
        let mut told = Vec::new();
        for token in [reserved.text.as_str(), "00000000-0000-4000-8000-000000000000"] {
            let with = |request: reqwest::RequestBuilder| client.send(request.header(TOKEN, token));
            let body = json!({"query": "{ __typename }", "extensions": {"operationId": "a"}});
            for response in [
                with(client.request(Method::GET, "/graphql").header("accept", "text/event-stream")).await,
                with(client.request(Method::POST, "/graphql").json(&body)).await,
                with(client.request(Method::DELETE, "/graphql?operationId=a")).await,
            ] {
                assert_eq!(response.status, 404, "{response:?}");
                told.push(leveled(&response.text, token));
            }
        }
        assert_eq!(told[..3], told[3..], "a token that exists is told from one that does not");
    }
    let nobody = server.nobody();
    let request = nobody.request(Method::GET, "/graphql").header("accept", "text/event-stream");
    assert_eq!(nobody.send(request.header(TOKEN, &reserved.text)).await.status, 401);
    // Its owner has it still.
    let query = json!({"query": "{ __typename }", "extensions": {"operationId": "a"}});
    let own = server.admin.request(Method::POST, "/graphql").header(TOKEN, &reserved.text).json(&query);
    assert_eq!(server.admin.send(own).await.status, 202);
}

/// Without `stats`, nothing tells of the others on a topic that one may see.
#[tokio::test]
async fn by_subscribers_of_a_topic() {
    let (server, _) = server_with_secrets(|_| {}).await;
    let curious = server.key("curious");
    let query = "{ topic(name: \"mine.own\") { name subscriptions { principal consumer } } }";
    let response = curious.graphql_raw(query, json!({})).await;
    assert!(response.text.contains("FORBIDDEN"), "{response:?}");
    let _alice = RawWs::to(&server.admin, "mine.own", Start::Live).await;
    let listed = server.key("counter").graphql(query, json!({})).await;
    assert_eq!(listed["topic"]["subscriptions"][0]["principal"], "api_key", "{listed}");
    // What `topic` shows on an open server is what it shows here.
    let open = TestServer::start();
    open.publish("mine.own", 1.into()).await;
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (ours, theirs) =
        (curious.get("/topics/mine.own").await.expect(200), open.get("/topics/mine.own").await.expect(200));
    assert_eq!(fields(&ours), fields(&theirs));
}
