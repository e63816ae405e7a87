//! The cookie for event streams, and what other sites try with it.

use serde_json::json;

use super::{Innocent, Restricted, graphql_socket, key_of, rule};
use crate::{
    doors::sse::EventStream,
    harness::{Client, Response},
    raw::Raw,
};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn server() -> Restricted {
    Restricted::start(&rule("page", "subscribe = [\">\"]\npublish = [\">\"]\nmanage = [\">\"]"))
}

/// The cookie that a response sets, as a browser would send it.
fn cookie(response: &Response) -> String {
    let line = response.headers["set-cookie"].to_str().unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
        assert!(line.split("; ").any(|part| part == attribute), "{line}");
    }
    line.split(';').next().unwrap().to_owned()
}

async fn signed_in(server: &Restricted) -> String {
    let response = server.key("page").post("/auth/cookie", &json!({})).await;
    assert_eq!((response.status, response.headers["cache-control"].to_str().unwrap()), (204, "no-store"));
    let cookie = cookie(&response);
    assert!(!cookie.contains(&key_of("page")), "the key stands in it as it is, so that some characters would break it");
    cookie
}

fn event_source(client: &Client, headers: &str) -> String {
    let addr = client.addr;
    format!("GET /topics/news/messages HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\n{headers}\r\n")
}

#[tokio::test]
async fn an_event_source_signs_in_by_cookie() {
    let server = server();
    let cookie = signed_in(&server).await;
    server.admin.publish("news", 0.into()).await;
    let own = format!("http://{}", server.nobody().addr);
    let mut streams = Vec::new();
    for headers in [
        format!("Cookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\n"),
        format!("Cookie: other=1; {cookie}; more=2\r\nSec-Fetch-Site: same-origin\r\nOrigin: {own}\r\n"),
        format!("Cookie: {cookie}\r\n"),
    ] {
        streams.push(EventStream::open(server.nobody(), &event_source(server.nobody(), &headers)).await.unwrap());
    }
    server.admin.publish("news", 1.into()).await;
    for mut stream in streams {
        assert!(stream.next().await.unwrap().data.contains("\"data\":1"));
    }
    // Credentials of the request go before the cookie, also bad ones.
    for (authorization, status) in [(key_of("page"), 200), ("psk_wrong".to_owned(), 401)] {
        let request = server.nobody().signed_in(&authorization).request(reqwest::Method::GET, "/topics");
        assert_eq!(server.nobody().send(request.header("cookie", &cookie)).await.status, status);
    }
    // Signing out takes it back from the browser, and needs nothing.
    let gone = server.nobody().delete("/auth/cookie").await;
    assert_eq!(gone.status, 204);
    assert!(gone.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"), "{gone:?}");
    let emptied = self::cookie(&gone);
    let request = server.nobody().request(reqwest::Method::GET, "/topics").header("cookie", emptied);
    server.nobody().send(request).await.expect_error(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_cookie_ends_with_its_key() {
    let server = server();
    let cookie = signed_in(&server).await;
    let request = event_source(server.nobody(), &format!("Cookie: {cookie}\r\n"));
    let mut stream = EventStream::open(server.nobody(), &request).await.unwrap();
    server.write_rules("");
    let sent = stream.next().await.unwrap();
    assert!(sent.event == "error" && sent.data.contains("UNAUTHENTICATED"), "{sent:?}");
    let (head, body) = EventStream::open(server.nobody(), &request).await.err().unwrap();
    assert_eq!(head.status, 401, "{body}");
}

/// Another site can make a browser send requests, and a browser without `SameSite` would add the cookie. It counts for
/// nothing then, whatever `ALLOWED_ORIGINS` allows.
#[tokio::test]
async fn a_cookie_of_another_sites_request_counts_for_nothing() {
    let rules = rule("page", "subscribe = [\">\"]\npublish = [\">\"]\nmanage = [\">\"]");
    for setting in ["", "https://app.example", "*"] {
        let allowed = setting.parse().unwrap();
        let server = Restricted::with(&rules, |config| config.server.allowed_origins = allowed);
        let cookie = signed_in(&server).await;
        server.admin.publish("news", 0.into()).await;
        let mut innocent = Innocent::of(&server.admin).await;
        let client = server.nobody();
        let publish = r#"{"topic":"news","data":"forged"}"#;
        for site in [
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
            "Origin: https://evil.example\r\n",
            "Origin: https://app.example\r\n",
            "Origin: http://localhost:3000\r\n",
            "Origin: null\r\n",
            "Sec-Fetch-Site: cross-site\r\nOrigin: https://app.example\r\n",
        ] {
            let headers = format!("Cookie: {cookie}\r\n{site}");
            let refused = EventStream::open(client, &event_source(client, &headers)).await.err();
            assert_eq!(refused.map(|(head, _)| head.status), Some(401), "{setting:?} {site}");
            for (request, more, body) in [
                ("GET /topics/news/messages", "", ""),
                ("GET /graphql?query=%7B__typename%7D", "", ""),
                ("POST /publish", "Content-Type: application/json\r\n", publish),
                ("POST /publish", "Content-Type: text/plain\r\n", publish),
                ("POST /graphql", "Content-Type: application/json\r\n", r#"{"query":"{ __typename }"}"#),
                ("DELETE /topics/news", "", ""),
            ] {
                let mut raw = Raw::connect(client.addr).await;
                let length = body.len();
                raw.write(format!(
                    "{request} HTTP/1.1\r\nHost: {}\r\n{headers}{more}Content-Length: {length}\r\n\r\n{body}",
                    client.addr
                ))
                .await;
                let (head, text) = raw.response().await.unwrap();
                // A foreign page that may not send it at all is refused for that.
                assert!(matches!(head.status, 401 | 403), "{setting:?} {site} {request}: {text}");
            }
            for path in ["/ws", "/graphql"] {
                let mut raw = Raw::connect(client.addr).await;
                let offer = "Sec-WebSocket-Protocol: graphql-transport-ws\r\n";
                raw.write(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{UPGRADE}{offer}{headers}\r\n", client.addr))
                    .await;
                let head = raw.head().await.unwrap();
                if head.status == 403 {
                    continue;
                }
                // It is a socket of nobody, which has to say who it is.
                assert_eq!(head.status, 101, "{setting:?} {site} {path}");
                if path == "/ws" {
                    raw.text(r#"{"type":"subscribe","topic":"news"}"#).await;
                    let (_, frame) = raw.next_frame().await.unwrap();
                    assert!(String::from_utf8(frame).unwrap().contains("UNAUTHENTICATED"));
                } else {
                    raw.text(r#"{"type":"connection_init"}"#).await;
                    assert_eq!(raw.close_code().await, Some(4403));
                }
            }
        }
        let topic = server.admin.get("/topics/news").await.expect(200);
        assert_eq!(topic["messages"], 1, "nothing was published or deleted");
        innocent.receives().await;
    }
    // The same cookie opens a socket for a page of the server itself.
    let server = Restricted::start(&rules);
    let cookie = signed_in(&server).await;
    let mut raw = Raw::connect(server.nobody().addr).await;
    raw.write(format!(
        "GET /ws HTTP/1.1\r\nHost: pubsub.example\r\nOrigin: https://pubsub.example\r\n{UPGRADE}Cookie: {cookie}\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.head().await.unwrap().status, 101);
    raw.text(r#"{"type":"publish","topic":"news","data":1}"#).await;
    let (_, frame) = raw.next_frame().await.unwrap();
    assert!(String::from_utf8(frame).unwrap().contains("\"ack\""));
}

/// Where the query may carry a credential, and where not.
#[tokio::test]
async fn a_credential_in_the_address_counts_by_setting_alone() {
    let rules = rule("page", "subscribe = [\">\"]");
    let key = key_of("page");
    for allowed in [false, true] {
        let server = Restricted::with(&rules, |config| config.access.auth_query_token = allowed);
        let status = if allowed { 200 } else { 401 };
        let client = server.nobody();
        assert_eq!(client.get(&format!("/topics?access_token={key}")).await.status, status, "{allowed}");
        assert_eq!(client.get(&format!("/topics?access_token={key}x")).await.status, 401);
        let upgraded =
            crate::doors::raw_ws::Socket::try_connect(client, &format!("/ws?access_token={key}"), None).await;
        let mut socket = upgraded.unwrap();
        socket.send(r#"{"type":"subscribe","topic":"news"}"#).await;
        assert_eq!(socket.json().await["type"], if allowed { "ack" } else { "error" });
    }
    // A payload that is no object, or has another's form, is nobody's.
    let server = server();
    for payload in [json!({"password": key}), json!({"token": ""}), json!({"Authorization": format!("Basic {key}")})] {
        let mut socket = graphql_socket(server.nobody(), "graphql-transport-ws", &payload).await;
        assert_eq!(socket.closed().await, Some(4403), "{payload}");
    }
}

/// A browser adds a cookie whether its page wants that or not, so one that is not valid any more does not keep a page from
/// signing in over a WebSocket.
#[tokio::test]
async fn a_stale_cookie_is_no_credential_of_a_socket() {
    let server = Restricted::start(&rule("one", "subscribe = [\">\"]"));
    let address = server.nobody().addr;
    for (path, protocol) in [("/ws", ""), ("/graphql", "Sec-WebSocket-Protocol: graphql-transport-ws\r\n")] {
        let mut raw = Raw::connect(address).await;
        // `gone` in base64.
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\nCookie: pubsub_auth=Z29uZQ\r\n\
             {UPGRADE}{protocol}\r\n"
        );
        raw.write(request).await;
        assert_eq!(raw.head().await.unwrap().status, 101, "{path}");
        // A request over HTTP has nothing else to say who it is.
        let mut raw = Raw::connect(address).await;
        raw.write(format!("GET /topics HTTP/1.1\r\nHost: {address}\r\nCookie: pubsub_auth=Z29uZQ\r\n\r\n")).await;
        assert_eq!(raw.head().await.unwrap().status, 401);
    }
}
