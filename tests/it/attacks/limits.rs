//! Bounds of keys and addresses: nobody goes over them by taking another door, and nobody else feels them.

use std::time::Instant;

use serde_json::{Value, json};

use super::{Innocent, Restricted, graphql_socket, key_of, rule, token};
use crate::{
    doors::{
        Door, Options, RawWs, Sse, Start,
        raw_ws::{Frame, Socket},
    },
    harness::{Client, TestServer, eventually},
};

const ALL: &str = "subscribe = [\">\"]\npublish = [\">\"]";

#[tokio::test]
async fn connections_of_a_key() {
    let few = rule("few", &format!("{ALL}\nmax_connections = 3"));
    let server = Restricted::start(&(few + &rule("other", ALL)));
    let (few, other) = (server.key("few"), server.key("other"));
    let mut innocent = Innocent::of(&other).await;
    let mut socket = RawWs::to(&few, "news", Start::Live).await;
    let stream = Sse::to(&few, "news", Start::Live).await;
    let mut signed_in = RawWs::open(server.nobody()).await;
    assert_eq!(signed_in.ask(json!({"type": "auth", "token": key_of("few")})).await["type"], "ack");
    // One more of any kind is refused.
    assert_eq!(Socket::connect(&few, "/ws", None).await.closed().await, Some(1013));
    let codes = [
        Sse::open(&few).await.subscribe("news", Start::Live, &Options::default()).await.unwrap_err(),
        crate::doors::GraphqlSse::open(&few)
            .await
            .subscribe("news", Start::Live, &Options::default())
            .await
            .unwrap_err(),
        crate::doors::Multipart::open(&few)
            .await
            .subscribe("news", Start::Live, &Options::default())
            .await
            .unwrap_err(),
    ];
    assert_eq!(codes, ["LIMIT_REACHED"; 3]);
    for protocol in ["graphql-transport-ws", "graphql-ws"] {
        let mut refused = graphql_socket(server.nobody(), protocol, &json!({"token": key_of("few")})).await;
        assert_eq!(refused.closed().await, Some(1013), "{protocol}");
    }
    let mut refused = Socket::connect(server.nobody(), "/ws", None).await;
    refused.send(json!({"type": "auth", "token": key_of("few")}).to_string()).await;
    assert_eq!(refused.closed().await, Some(1013));
    // Requests are no connections, and those that are open go on.
    few.publish("news", 1.into()).await;
    assert_eq!(socket.event().await.message().data, 1);
    innocent.receives().await;
    // Signing in again takes no second place, and what is closed gives its place back.
    assert_eq!(signed_in.ask(json!({"type": "auth", "token": key_of("few")})).await["type"], "ack");
    drop(stream);
    eventually("a free place", || async {
        let mut socket = Socket::connect(&few, "/ws", None).await;
        socket.send(r#"{"type":"ping"}"#).await;
        matches!(socket.frame().await, Frame::Text(_)).then_some(())
    })
    .await;
}

/// What of so many at once was accepted.
fn accepted(results: &[Value]) -> usize {
    let refused = results.iter().filter(|result| result.get("error").is_some_and(|error| !error.is_null()));
    let refused = refused.inspect(|result| assert_eq!(result["error"]["code"], "RATE_LIMITED", "{result}"));
    results.len() - refused.count()
}

/// Publishes as much as it can for a moment, over all interfaces and topics, and returns how much was accepted.
async fn publish_much(client: &Client) -> usize {
    let mut found = 0;
    let mut socket = RawWs::open(client).await;
    for round in 0..3 {
        let items: Vec<_> = (0..10).map(|n| json!({"topic": format!("t.{round}.{n}"), "data": n})).collect();
        let response = client.post("/publish", &Value::from(items.clone())).await;
        let body = response.json();
        let results = body["results"].as_array().or_else(|| body.as_array());
        found += accepted(results.unwrap_or_else(|| panic!("{response:?}")));
        let query = "mutation($messages: [PublishInput!]!) { publishMany(messages: $messages) { error { code } } }";
        let told = client.graphql_raw(query, json!({"messages": items})).await.json();
        found += accepted(told["data"]["publishMany"].as_array().unwrap());
        for item in &items[..5] {
            let reply = socket.ask(json!({"type": "publish", "topic": item["topic"], "data": 1})).await;
            found += accepted(&[reply]);
        }
        let single = client.post("/publish", &items[0]).await;
        if single.status == 429 {
            assert!(single.headers.contains_key("retry-after"), "{single:?}");
        }
        found += usize::from(single.status == 200);
    }
    found
}

/// Checks that a client gets its burst and what comes by since, and nothing more.
async fn has_rate(client: &Client, rate: usize) {
    let begun = Instant::now();
    let found = publish_much(client).await;
    let most = rate + (rate as f64 * begun.elapsed().as_secs_f64()).ceil() as usize;
    assert!((rate..=most).contains(&found), "{found} were accepted; the rate allows {rate} to {most}");
}

#[tokio::test]
async fn rate_of_a_key() {
    let slow = rule("slow", &format!("{ALL}\nmax_publish_rate = 5"));
    let server = Restricted::start(&(slow + &rule("other", ALL)));
    let mut innocent = Innocent::of(&server.key("other")).await;
    has_rate(&server.key("slow"), 5).await;
    // It stays the same principal with a token of its name.
    let begun = Instant::now();
    let again = server.nobody().signed_in(&token("slow", &json!({})));
    let found = publish_much(&again).await;
    let most = (5.0 * (begun.elapsed().as_secs_f64() + 1.0)).ceil() as usize;
    assert!(found <= most, "{found} of at most {most}");
    innocent.receives().await;
    assert_eq!(publish_much(&server.key("other")).await, 3 * 26);
}

#[tokio::test]
async fn rate_of_each_principal() {
    let own = rule("own", &format!("{ALL}\nmax_publish_rate = 40"));
    let rules = format!("anonymous = {{ publish = [\">\"] }}\n{own}{}{}", rule("alice", ALL), rule("bob", ALL));
    let server = Restricted::with(&rules, |config| config.broker.max_publish_rate_per_client = 10);
    // All come from one address, and none takes anything from the others.
    has_rate(&server.key("alice"), 10).await;
    has_rate(&server.key("bob"), 10).await;
    has_rate(&server.key("own"), 40).await;
    has_rate(&server.nobody().signed_in(&token("carol", &json!({}))), 10).await;
    has_rate(server.nobody(), 10).await;
    has_rate(&server.admin, 10).await;
}

#[tokio::test]
async fn rate_of_each_address() {
    let server = TestServer::with(|config| config.broker.max_publish_rate_per_client = 10);
    has_rate(&server.client, 10).await;
    // Credentials do not make another client of it on an open server.
    let begun = Instant::now();
    let mut found = 0;
    for name in ["a", "b", "c"] {
        found += publish_much(&server.client.signed_in(&key_of(name))).await;
    }
    let most = (10.0 * (begun.elapsed().as_secs_f64() + 1.0)).ceil() as usize;
    assert!(found <= most, "{found} of at most {most}");
    // Nor does a header that only a trusted proxy may send.
    let local = |address: &str, forwarded: &'static str| {
        let client = reqwest::Client::builder().no_proxy().local_address(address.parse::<std::net::IpAddr>().unwrap());
        let (client, url) = (client.build().unwrap(), server.client.url("/publish"));
        let items: Vec<_> = (0..100).map(|n| json!({"topic": "news", "data": n})).collect();
        async move {
            let request = client.post(url).header("x-forwarded-for", forwarded).json(&items);
            let body: Value = request.send().await.unwrap().json().await.unwrap();
            accepted(body["results"].as_array().or_else(|| body.as_array()).unwrap())
        }
    };
    let begun = Instant::now();
    let mut found = 0;
    for forwarded in ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"] {
        found += local("127.0.0.1", forwarded).await;
    }
    let most = (10.0 * (begun.elapsed().as_secs_f64() + 1.0)).ceil() as usize;
    assert!(found <= most, "{found} of at most {most}");
    // Another address has its own.
    assert!(local("127.0.0.2", "127.0.0.1").await >= 10);
}
