//! What arrives on an open port: not only HTTP, and not only good HTTP.

use std::time::Duration;

use crate::{
    doors::sse::code_in,
    harness::{DEADLINE, Random, TestServer, eventually},
    raw::Raw,
};

/// Sends bytes and returns the status and the body, or `None` when the server closes without a response.
async fn ask(server: &TestServer, bytes: impl AsRef<[u8]>) -> Option<(u16, String)> {
    let mut raw = Raw::connect(server.addr).await;
    raw.write(bytes).await;
    raw.response().await.map(|(head, body)| (head.status, body))
}

#[tokio::test]
async fn garbage() {
    let server = TestServer::start();
    let mut random = Random::new(1);
    for length in [1, 10, 100, 5_000, 200_000] {
        let noise: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        let mut raw = Raw::connect(server.addr).await;
        raw.write([&noise[..], b"\r\n\r\n"].concat()).await;
        assert_eq!(raw.head().await.expect("a response").status, 400, "{length} bytes");
        raw.closed().await;
    }
    for (text, status) in [
        (&b"HELLO\r\n\r\n"[..], Some(400)),
        (b"GET\r\n\r\n", Some(400)),
        // TLS.
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Some(400)),
        // The preface of HTTP/2: its clients do not read HTTP/1.
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
        (b"GET / HTTP/9.9\r\n\r\n", Some(400)),
        // Empty lines before a request are no request.
        (b"\r\n\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n", Some(200)),
    ] {
        let mut raw = Raw::connect(server.addr).await;
        raw.write(text).await;
        assert_eq!(raw.head().await.map(|head| head.status), status, "{text:?}");
    }
    server.assert_alive().await;
}

/// Where the server closes the connection after a response because it has not read the body, the response says so: a client that
/// keeps connections would send its next request over it.
#[tokio::test]
async fn a_body_that_was_not_read_ends_the_connection() {
    let server = TestServer::start();
    let body = "x".repeat(100_000);
    for (request, status, closes) in [
        ("PUT /publish", 405, true),
        ("POST /none", 404, true),
        ("POST /publish", 400, false),
        ("GET /health", 200, true),
    ] {
        let mut raw = Raw::connect(server.addr).await;
        raw.write(format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        let (head, _) = raw.response().await.unwrap();
        let said = head.headers.get("connection").map(String::as_str);
        assert_eq!((head.status, said == Some("close")), (status, closes), "{request}: {head:?}");
    }
}

/// A client that never ends its head is not waited for; one that does nothing at all neither.
#[tokio::test]
async fn slow_heads() {
    let server = TestServer::with(|config| config.server.request_timeout = Duration::from_millis(300));
    let mut idle = Raw::connect(server.addr).await;
    let mut slow = Raw::connect(server.addr).await;
    slow.write("GET /health HTTP/1.1\r\nHost: x\r\n").await;
    let (one, two) = tokio::join!(
        tokio::time::timeout(DEADLINE, idle.closed()),
        tokio::time::timeout(DEADLINE, async {
            assert!(slow.head().await.is_none(), "no request, no response");
            slow.closed().await;
        })
    );
    one.unwrap();
    two.unwrap();
    server.assert_alive().await;
}

/// A client that announces a body and never sends it is not waited for.
#[tokio::test]
async fn slow_bodies() {
    let server = TestServer::with(|config| config.server.request_timeout = Duration::from_millis(300));
    for path in ["/publish", "/graphql"] {
        let mut raw = Raw::connect(server.addr).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
        raw.write(format!("{head}Content-Length: 100\r\n\r\n{{")).await;
        assert_eq!(raw.response().await.expect("a response").0.status, 408, "{path}");
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn slow_but_steady_is_fine() {
    let server = TestServer::start();
    let mut raw = Raw::connect(server.addr).await;
    for byte in b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 25\r\n\r\n{\"topic\":\"news\",\"data\":1}" {
        raw.write([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.response().await.unwrap().0.status, 200);
}

/// A response that takes longer than an idle connection lives, to a client that reads slowly and steadily.
#[tokio::test]
async fn slow_readers_get_all_of_it() {
    let server = TestServer::with(|config| {
        config.server.keep_alive_timeout = Duration::from_secs(1);
        config.server.request_timeout = Duration::from_secs(1);
    });
    server.publish_all("news", (0..1_000).map(|_| "x".repeat(8_000).into())).await;
    let mut raw = Raw::connect(server.addr).await;
    raw.write("GET /topics/news/messages?limit=1000 HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n").await;
    let head = raw.head().await.unwrap();
    let length: usize = head.headers["content-length"].parse().unwrap();
    assert!(length > 7_000_000, "{head:?}");
    for piece in 0..30 {
        assert!(raw.exactly(length / 30).await.is_some(), "cut off in piece {piece} of 30");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(raw.exactly(length % 30).await.is_some());
}

#[tokio::test]
async fn huge_heads() {
    let server = TestServer::start();
    for head in [
        format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20)),
        format!("GET /health HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(10_000)),
    ] {
        let start = head[..20].to_owned();
        assert_eq!(ask(&server, head).await.expect("a response").0, 431, "{start:?}");
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn old_http() {
    let server = TestServer::start();
    let mut raw = Raw::connect(server.addr).await;
    raw.write("GET /health HTTP/1.0\r\n\r\n").await;
    assert_eq!(raw.response().await.unwrap().0.status, 200);
    raw.closed().await;
    // There are no chunks in HTTP/1.0; a stream ends with its connection.
    let mut raw = Raw::connect(server.addr).await;
    server.create("news").await;
    raw.write("GET /topics/news/messages HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n").await;
    let head = raw.head().await.unwrap();
    assert_eq!((head.status, head.headers.get("transfer-encoding")), (200, None));
    // And no upgrades.
    let head = "GET /ws HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert_eq!(ask(&server, head).await.unwrap().0, 426);
    // A host is required since 1.1.
    assert_eq!(ask(&server, "GET /health HTTP/1.1\r\n\r\n").await.unwrap().0, 400);
}

#[tokio::test]
async fn chunked_bodies() {
    let server = TestServer::start();
    let head = "POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = "10\r\n{\"topic\":\"news\",\r\n9;x=y\r\n\"data\":1}\r\n0\r\nTrailer: z\r\n\r\n";
    assert_eq!(ask(&server, format!("{head}{chunks}")).await.unwrap().0, 200);
    for bad in ["zz\r\n{}\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}\r\n", "-1\r\n{}\r\n0\r\n\r\n"] {
        assert_eq!(ask(&server, format!("{head}{bad}")).await.expect("a response").0, 400, "{bad:?}");
    }
    // A chunked body is bounded as any other.
    let mut raw = Raw::connect(server.addr).await;
    raw.write(head).await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x1_0000));
    for _ in 0..400 {
        raw.write(&chunk).await;
    }
    let (head, body) = raw.response().await.expect("a response");
    assert_eq!((head.status, code_in(&body).as_str()), (413, "PAYLOAD_TOO_LARGE"));
    server.assert_alive().await;
}

#[tokio::test]
async fn lengths_that_lie() {
    let server = TestServer::start();
    for head in [
        "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n{}",
        "POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked, x\r\n\r\n{}",
    ] {
        assert_eq!(ask(&server, head).await.expect("a response").0, 400, "{head:?}");
    }
    // A client that goes in the middle of its body.
    let mut raw = Raw::connect(server.addr).await;
    raw.write("POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"topic\":\"half\"").await;
    drop(raw);
    server.assert_alive().await;
}

/// More than is allowed is refused by the announcement alone: a client that waits for a go-ahead (`curl` does) need not
/// send it.
#[tokio::test]
async fn too_much_announced() {
    let server = TestServer::start();
    for path in ["/publish", "/graphql"] {
        for more in ["", "Expect: 100-continue\r\n"] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}Content-Length: 99999999999\r\n\r\n"
            );
            assert_eq!(ask(&server, head).await.unwrap().0, 413);
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = TestServer::start();
    let mut raw = Raw::connect(server.addr).await;
    let body = |number: u64| format!("{{\"topic\":\"news\",\"data\":{number}}}");
    let all: String = (100..150)
        .map(|number| {
            format!(
                "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
                body(number).len(),
                body(number)
            )
        })
        .collect();
    raw.write(all).await;
    for offset in 1..=50 {
        let (head, body) = raw.response().await.unwrap();
        assert_eq!(head.status, 200);
        assert!(body.contains(&format!("\"offset\":{offset},")), "{body}");
    }
}

#[tokio::test]
async fn paths_that_try_to_get_out() {
    let server = TestServer::start();
    for path in [
        "/../etc/passwd",
        "/topics/../../health",
        "/%2e%2e/health",
        "//health",
        "/topics/news\\..",
        "/health%00",
        "/graphql/../health",
    ] {
        let (status, body) = ask(&server, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
        assert_eq!(status, 404, "{path}: {body}");
    }
}

#[tokio::test]
async fn methods_that_are_not_there() {
    let server = TestServer::start();
    for (line, status, code) in [
        ("OPTIONS *", 404, "NOT_FOUND"),
        ("OPTIONS /topics", 405, "METHOD_NOT_ALLOWED"),
        ("BREW /topics", 405, "METHOD_NOT_ALLOWED"),
        ("CONNECT example.org:80", 404, "NOT_FOUND"),
    ] {
        let (told, body) = ask(&server, format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
        assert_eq!((told, code_in(&body).as_str()), (status, code), "{line}");
    }
}

#[tokio::test]
async fn bad_handshakes() {
    let server = TestServer::start();
    let good = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for path in ["/ws", "/graphql"] {
        for (name, value, status) in [
            ("Sec-WebSocket-Version", "8", 426),
            ("Sec-WebSocket-Version", "", 426),
            ("Sec-WebSocket-Key", "", 400),
            ("Sec-WebSocket-Key", "short", 400),
            ("Sec-WebSocket-Key", "########################", 400),
        ] {
            let mut request =
                format!("GET {path} HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n");
            for (known, usual) in good {
                let value = if known == name { value } else { usual };
                if !value.is_empty() {
                    request += &format!("{known}: {value}\r\n");
                }
            }
            let (told, body) = ask(&server, format!("{request}\r\n")).await.unwrap();
            assert_eq!((told, code_in(&body).as_str()), (status, "BAD_REQUEST"), "{path} {name}: {value}");
        }
    }
}

/// Connections that are broken off at once leave nothing behind.
#[tokio::test]
async fn connections_that_come_and_go() {
    let server = TestServer::start();
    for _ in 0..300 {
        let mut raw = Raw::connect(server.addr).await;
        raw.write("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n").await;
    }
    eventually("end of all connections but this", || async {
        let stats = server.get("/stats").await.expect(200);
        (stats["active_connections"].as_u64().unwrap() <= 1).then_some(())
    })
    .await;
}
