//! Who a client is by what its connection says: the subject of its certificate, and its address behind a proxy.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Files, Pair, Secure};
use crate::harness::TestServer;

/// The response to a request that shows a client's certificate: its status and body.
async fn ask(server: &Secure, pair: &Pair, path: &str, body: Option<Value>) -> (u16, Value) {
    let identity = reqwest::Identity::from_pem(format!("{}{}", pair.key, pair.cert).as_bytes()).unwrap();
    let client = server.client().identity(identity).build().unwrap();
    let request = match body {
        Some(body) => client.post(server.url(path)).header("content-type", "application/json").body(body.to_string()),
        None => client.get(server.url(path)),
    };
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_certificate_is_the_credential_of_its_key() {
    let files = Files::new();
    files.write(
        "access.toml",
        "[[key]]\nname = \"billing\"\nsubject = \"CN=billing\"\npublish = [\"orders.>\"]\nstats = true\n",
    );
    let (authority, rules) = (files.text_path("ca.pem"), files.text_path("access.toml"));
    let server = Secure::of(files, &[("TLS_CLIENT_CA", &authority), ("ACCESS_FILE", &rules), ("API_KEY", "admin-key")]);
    let (billing, other) = (server.files.issue("billing"), server.files.issue("other"));
    let publish = |topic: &str| Some(json!({"topic": topic, "data": 1}));
    assert_eq!(ask(&server, &billing, "/publish", publish("orders.1")).await.0, 200);
    let (status, refused) = ask(&server, &billing, "/publish", publish("invoices")).await;
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("FORBIDDEN")));
    assert_eq!(refused["error"]["message"], "\"billing\" may not publish to topic \"invoices\"");
    // One that no key has is nobody's.
    let (status, refused) = ask(&server, &other, "/publish", publish("orders.1")).await;
    assert_eq!((status, &refused["error"]["code"]), (401, &json!("UNAUTHENTICATED")));
    // A credential of the request goes before the certificate.
    let identity = reqwest::Identity::from_pem(format!("{}{}", other.key, other.cert).as_bytes()).unwrap();
    let client = server.client().identity(identity).build().unwrap();
    let response = client.get(server.url("/stats")).bearer_auth("admin-key").send().await.unwrap();
    assert_eq!(response.status(), 200);
}

/// Without access rules a certificate is a name, and allows everything.
#[tokio::test]
async fn a_certificate_is_a_name_where_everybody_may_do_everything() {
    let files = Files::new();
    let authority = files.text_path("ca.pem");
    let server = Secure::of(files, &[("TLS_CLIENT_CA", &authority)]);
    let billing = server.files.issue("billing");
    assert_eq!(ask(&server, &billing, "/publish", Some(json!({"topic": "news", "data": 1}))).await.0, 200);
    let identity = reqwest::Identity::from_pem(format!("{}{}", billing.key, billing.cert).as_bytes()).unwrap();
    let client = server.client().identity(identity).build().unwrap();
    let stream = client.get(server.url("/topics/news/messages")).header("accept", "text/event-stream");
    let _stream = stream.send().await.unwrap();
    let query = json!({"query": "{ topic(name: \"news\") { subscriptions { principal } } }"});
    let (_, result) = ask(&server, &billing, "/graphql", Some(query)).await;
    assert_eq!(result["data"]["topic"]["subscriptions"], json!([{"principal": "CN=billing"}]));
}

/// The address that a trusted proxy names has the rate, and nobody who is not trusted can name one.
#[tokio::test]
async fn rates_are_those_of_clients_behind_a_proxy() {
    for (trusted, shared) in [("127.0.0.1", false), ("10.0.0.0/8", true)] {
        let server = TestServer::with(|config| {
            config.server.trusted_proxies = Arc::new(trusted.parse().unwrap());
            config.broker.max_publish_rate_per_client = 1;
        });
        let publish = async |client: &str| {
            let request = server.request(reqwest::Method::POST, "/publish").header("x-forwarded-for", client);
            server.send(request.body(json!({"topic": "news", "data": 1}).to_string())).await
        };
        assert_eq!(publish("203.0.113.1").await.status, 200);
        publish("203.0.113.1").await.expect_error(429, "RATE_LIMITED");
        let other = publish("203.0.113.2").await;
        assert_eq!(other.status, if shared { 429 } else { 200 }, "{trusted}");
    }
}
