//! What costs a server much to read, from somebody who is nobody: it is refused before it is read.

use serde_json::json;

use super::{ADMIN_KEY, Innocent, Restricted};
use crate::{doors::raw_ws::Socket, process::Process, raw::Raw};

/// Documents and values that take long to check, or much room.
fn bombs() -> Vec<(&'static str, String)> {
    let query = |query: String| json!({"query": query}).to_string();
    let fragments: String = (0..1_000).map(|n| format!("fragment f{n} on Query {{ ...f{} }} ", n + 1)).collect();
    let doubling: String =
        (0..40).map(|n| format!("fragment d{n} on Query {{ ...d{next} ...d{next} }} ", next = n + 1)).collect();
    vec![
        ("aliases", query(format!("{{ {} }}", (0..20_000).map(|n| format!("a{n}: __typename ")).collect::<String>()))),
        ("fields", query(format!("{{ {} }}", "__typename ".repeat(50_000)))),
        ("a chain of fragments", query(format!("{{ ...f0 }} {fragments} fragment f1000 on Query {{ __typename }}"))),
        ("fragments that double", query(format!("{{ ...d0 }} {doubling} fragment d40 on Query {{ __typename }}"))),
        (
            "a circle of fragments",
            query("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }".to_owned()),
        ),
        ("directives", query(format!("{{ __typename {} }}", "@skip(if: false) ".repeat(20_000)))),
        ("10,000 levels of fields", query(format!("{}{}", "{ a ".repeat(10_000), "}".repeat(10_000)))),
        (
            "10,000 levels of a literal",
            query(format!("{{ topic(name: {}{}) }}", "[".repeat(10_000), "]".repeat(10_000))),
        ),
        ("10,000 levels of JSON", format!("{{\"query\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000))),
        ("10,000 levels of objects", format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000))),
        (
            "10,000 levels of variables",
            format!(
                "{{\"query\":\"{{ __typename }}\",\"variables\":{{\"a\":{}{}}}}}",
                "[".repeat(10_000),
                "]".repeat(10_000)
            ),
        ),
        ("a batch", format!("[{}]", vec![r#"{"query":"{ __typename }"}"#; 10_000].join(","))),
        ("no JSON at all", "\u{0}".repeat(100_000)),
    ]
}

/// How much memory the process may take for all of it.
const MEMORY: u64 = 12 << 20;

#[tokio::test]
async fn are_refused_by_http_before_they_are_read() {
    let process = Process::start(&[("API_KEY", ADMIN_KEY)]);
    let admin = process.client.signed_in(ADMIN_KEY);
    let mut innocent = Innocent::of(&admin).await;
    innocent.receives().await;
    let before = process.memory();
    for (what, body) in bombs() {
        for path in ["/graphql", "/publish", "/topics", "/topics/news/consumers/a/ack"] {
            // The answer comes without the body.
            let mut raw = Raw::connect(process.addr).await;
            raw.write(format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ))
            .await;
            let head = raw.head().await.unwrap();
            assert_eq!(head.status, 401, "{what} at {path}");
            drop(raw);
            // With the body it is the same.
            let response = process.client.post_text(path, body.clone()).await;
            assert_eq!(response.status, 401, "{what} at {path}: {response:?}");
            let bad = process.client.signed_in("psk_wrong").post_text(path, body.clone()).await;
            assert_eq!(bad.status, 401, "{what} at {path}: {bad:?}");
        }
        innocent.receives().await;
    }
    // In the address, too.
    for query in ["%7Ba%20".repeat(1_000), format!("%7B{}%7D", "__typename%20".repeat(1_000)), "%00".to_owned()] {
        assert_eq!(process.client.get(&format!("/graphql?query={query}")).await.status, 401);
    }
    innocent.receives().await;
    assert!(process.memory() < before + MEMORY, "{before} -> {}", process.memory());
}

#[tokio::test]
async fn are_refused_by_websocket() {
    // The legacy protocol answers what it cannot read, so many times.
    let process = Process::start(&[("API_KEY", ADMIN_KEY), ("MAX_MALFORMED_FRAMES", "10")]);
    let admin = process.client.signed_in(ADMIN_KEY);
    let mut innocent = Innocent::of(&admin).await;
    innocent.receives().await;
    let before = process.memory();
    for (what, body) in bombs() {
        let payload = serde_json::from_str::<&serde_json::value::RawValue>(&body).map_or("{}", |raw| raw.get());
        for protocol in ["graphql-transport-ws", "graphql-ws"] {
            // Before `connection_init`, as its payload, and as the message itself.
            let kind = if protocol == "graphql-ws" { "start" } else { "subscribe" };
            for message in [
                format!(r#"{{"id":"1","type":"{kind}","payload":{payload}}}"#),
                format!(r#"{{"type":"connection_init","payload":{payload}}}"#),
                format!(r#"{{"type":"connection_init","payload":{{"token":{payload}}}}}"#),
                body.clone(),
            ] {
                let mut socket = Socket::connect(&process.client, "/graphql", Some(protocol)).await;
                for _ in 0..20 {
                    socket.send(message.clone()).await;
                }
                let code = socket.closed().await;
                assert!(matches!(code, None | Some(4400 | 4401 | 4403 | 1008 | 1009)), "{what}: {code:?}");
            }
        }
        let mut socket = Socket::connect(&process.client, "/ws", None).await;
        for _ in 0..20 {
            socket.send(format!(r#"{{"type":"publish","topic":"news","data":{payload}}}"#)).await;
        }
        assert!(matches!(socket.closed().await, None | Some(4401 | 1008 | 1009)), "{what}");
        innocent.receives().await;
    }
    assert!(process.memory() < before + MEMORY, "{before} -> {}", process.memory());
}

/// Many bodies that never come to their end have no room: those of nobody are not waited for.
#[tokio::test]
async fn bodies_that_do_not_come_are_not_waited_for() {
    let server = Restricted::start("");
    let mut innocent = Innocent::of(&server.admin).await;
    let mut open = Vec::new();
    for _ in 0..200 {
        let mut raw = Raw::connect(server.nobody().addr).await;
        let head = "POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        raw.write(format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n")).await;
        open.push(raw);
    }
    for raw in &mut open {
        assert_eq!(raw.head().await.unwrap().status, 401);
    }
    innocent.receives().await;
}
