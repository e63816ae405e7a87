//! HTTP/2: many streams over one connection, WebSockets among them.

use bytes::Bytes;
use h2::{Reason, client::SendRequest, ext::Protocol};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::{Events, Secure};
use crate::{
    harness::{eventually, within},
    raw::Raw,
};

/// A client of HTTP/2, and the end of its connection.
pub struct Client {
    pub send: SendRequest<Bytes>,
    pub ended: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub async fn of(server: &Secure) -> Self {
        let stream = server.connect(&["h2"]).await;
        let (send, connection) = within("HTTP/2", h2::client::handshake(stream)).await.unwrap();
        let ended = tokio::spawn(connection);
        Self { send: within("settings", send.ready()).await.unwrap(), ended }
    }

    /// The status and body of the response to a request without a body.
    async fn ask(&mut self, request: axum::http::Request<()>) -> Result<(StatusCode, Value), h2::Error> {
        let (response, _) = self.send.send_request(request, true)?;
        let (head, mut body) = within("response", response).await?.into_parts();
        let mut text = Vec::new();
        while let Some(piece) = within("body", body.data()).await {
            text.extend(piece?);
        }
        Ok((head.status, serde_json::from_slice(&text).unwrap_or_default()))
    }

    /// Asks for something that is there. Afterwards the server's settings have come.
    pub async fn health(&mut self, server: &Secure) {
        assert_eq!(self.ask(request(server, "/health").body(()).unwrap()).await.unwrap().0, 200);
    }

    /// Waits until the server ends the connection. The reason is what it reproaches the client with.
    pub async fn reason(self) -> Option<Reason> {
        within("end of the connection", self.ended).await.unwrap().err().and_then(|error| error.reason())
    }
}

fn request(server: &Secure, path: &str) -> axum::http::request::Builder {
    axum::http::Request::builder().version(axum::http::Version::HTTP_2).uri(server.url(path))
}

fn connections(metrics: &str) -> u64 {
    metrics.lines().find_map(|line| line.strip_prefix("pubsub_connections ")).unwrap().parse().unwrap()
}

/// A browser has six connections to a host with HTTP/1.1, and event streams would use them up.
#[tokio::test]
async fn many_event_streams_over_one_connection() {
    let server = Secure::start();
    let client = server.client().build().unwrap();
    let plain = &server.process.client;
    let before = connections(&plain.get("/metrics").await.text);
    let mut streams = Vec::new();
    for number in 0..100 {
        streams.push(Events::open(&client, server.url(&format!("/topics/t{}/messages", number % 10))).await);
    }
    assert_eq!(connections(&plain.get("/metrics").await.text), before + 1);
    for number in 0..10 {
        plain.publish(&format!("t{number}"), number.into()).await;
    }
    for (number, events) in streams.iter_mut().enumerate() {
        assert_eq!(events.next().await.unwrap()["data"], number % 10);
    }
    // One that ends leaves the others alone.
    drop(streams.drain(..50));
    eventually("fifty streams", || async {
        let stats = plain.get("/topics/t1").await.expect(200);
        (stats["subscribers"] == 5).then_some(())
    })
    .await;
    plain.publish("t9", "still there".into()).await;
    assert_eq!(streams[49].next().await.unwrap()["data"], "still there");
}

/// RFC 8441.
#[tokio::test]
async fn websockets_by_extended_connect() {
    let server = Secure::start();
    let mut client = Client::of(&server).await;
    client.health(&server).await;
    assert!(client.send.is_extended_connect_protocol_enabled());
    let connect = |path: &str, version: &str| {
        let request = request(&server, path).method(Method::CONNECT).extension(Protocol::from_static("websocket"));
        request.header("sec-websocket-version", version)
    };
    let mut sockets = Vec::new();
    for (path, protocol) in [("/ws", None), ("/graphql", Some("graphql-transport-ws"))] {
        let request = connect(path, "13");
        let request =
            protocol.into_iter().fold(request, |request, name| request.header("sec-websocket-protocol", name));
        let (response, send) = client.send.send_request(request.body(()).unwrap(), false).unwrap();
        let response = within("response", response).await.unwrap();
        assert_eq!(response.status(), 200);
        let chosen = response.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap());
        assert_eq!(chosen, protocol);
        for header in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!response.headers().contains_key(header), "{header}");
        }
        sockets.push((send, response.into_body()));
    }
    let (mut send, mut receive) = sockets.remove(0);
    let mut say = |value: Value| send.send_data(masked(&value.to_string()), false).unwrap();
    say(json!({"type": "subscribe", "topic": "news", "request_id": "s"}));
    server.process.client.wait_for_subscribers("news", 1).await;
    server.process.client.publish("news", "over HTTP/2".into()).await;
    read_until(&mut receive, "over HTTP/2").await;
    // Other requests go over the same connection.
    client.health(&server).await;
    // The end of one stream ends its WebSocket.
    send.send_data(Bytes::new(), true).unwrap();
    server.process.client.wait_for_subscribers("news", 0).await;

    let refused = client.ask(connect("/ws", "12").body(()).unwrap()).await.unwrap();
    assert_eq!((refused.0.as_u16(), &refused.1["error"]["code"]), (426, &"BAD_REQUEST".into()));
    let other = request(&server, "/ws").method(Method::CONNECT).extension(Protocol::from_static("connect-udp"));
    let refused = client.ask(other.header("sec-websocket-version", "13").body(()).unwrap()).await.unwrap();
    assert_eq!(refused.0.as_u16(), 426);
    // A foreign page has no way around the check of its origin.
    for path in ["/ws", "/graphql"] {
        let foreign = connect(path, "13").header("origin", "https://evil.example");
        let refused = client.ask(foreign.body(()).unwrap()).await.unwrap();
        assert_eq!(refused.0.as_u16(), 403, "{path}");
    }
    let nowhere = client.ask(connect("/nowhere", "13").body(()).unwrap()).await.unwrap();
    assert_eq!(nowhere.0.as_u16(), 404);
}

/// A text frame as a client sends it.
fn masked(text: &str) -> Bytes {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    let payload = text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [0x81, 0x80 | length].into_iter().chain(mask).chain(payload).collect()
}

async fn read_until(body: &mut h2::RecvStream, wanted: &str) {
    let mut text = String::new();
    while !text.contains(wanted) {
        let piece = within("frame", body.data()).await.unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&piece));
    }
}

#[tokio::test]
async fn what_a_request_may_look_like() {
    let server = Secure::start();
    let mut client = Client::of(&server).await;
    // The authority counts; a Host beside it must agree.
    let twice = request(&server, "/health").header("host", server.addr.to_string());
    assert_eq!(client.ask(twice.body(()).unwrap()).await.unwrap().0, 200);
    let differs = request(&server, "/health").header("host", "example.org");
    let refused = client.ask(differs.body(()).unwrap()).await.unwrap();
    assert_eq!((refused.0.as_u16(), &refused.1["error"]["code"]), (400, &"BAD_REQUEST".into()));
    // CONNECT is for WebSockets alone.
    let tunnel = axum::http::Request::builder().method(Method::CONNECT).uri("example.org:443").body(()).unwrap();
    assert!(client.ask(tunnel).await.unwrap().0.is_client_error());
    // A head over the bound costs its request, not the connection.
    let large =
        (0..80).fold(request(&server, "/health"), |request, n| request.header(format!("x-{n}"), "x".repeat(1_000)));
    assert_eq!(client.ask(large.body(()).unwrap()).await.unwrap().0.as_u16(), 431);
    client.health(&server).await;
    let missing = client.ask(request(&server, "/nothing").body(()).unwrap()).await.unwrap();
    assert_eq!((missing.0.as_u16(), &missing.1["error"]["code"]), (404, &"NOT_FOUND".into()));
    let slash = client.ask(request(&server, "/health/").body(()).unwrap()).await.unwrap();
    assert_eq!(slash.0, 200);
}

/// A body that does not come, and one that is too large, are refused as over HTTP/1.1.
#[tokio::test]
async fn bodies_have_their_bounds() {
    let server = Secure::with(&[("REQUEST_TIMEOUT", "200ms"), ("MAX_BODY_BYTES", "1000")]);
    let mut client = Client::of(&server).await;
    for (bytes, status) in [(10, 408), (2_000, 413)] {
        let post = request(&server, "/publish").method(Method::POST).header("content-type", "application/json");
        let (response, mut body) = client.send.send_request(post.body(()).unwrap(), false).unwrap();
        body.send_data(vec![b' '; bytes].into(), false).unwrap();
        assert_eq!(within("response", response).await.unwrap().status().as_u16(), status);
    }
}

/// A connection over which nothing is asked ends, with the goodbye of HTTP/2.
#[tokio::test]
async fn idle_connections_end() {
    let server = Secure::with(&[("REQUEST_TIMEOUT", "100ms"), ("KEEP_ALIVE_TIMEOUT", "1s")]);
    let unused = Client::of(&server).await;
    assert_eq!(unused.reason().await, None);

    let mut used = Client::of(&server).await;
    used.health(&server).await;
    let begun = std::time::Instant::now();
    // An open stream keeps it, for longer than the time for idle ones.
    let client = server.client().build().unwrap();
    let mut events = Events::open(&client, server.url("/topics/news/messages")).await;
    assert_eq!(used.reason().await, None);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(900), "{:?}", begun.elapsed());
    while begun.elapsed() < std::time::Duration::from_secs(3) {
        server.process.client.publish("news", 1.into()).await;
        assert_eq!(events.next().await.unwrap()["data"], 1);
    }
}

/// A server that stops ends its streams, and says so.
#[tokio::test]
async fn a_stop_ends_what_is_open() {
    let mut server = Secure::with(&[("DRAIN_TIMEOUT", "20s")]);
    let client = server.client().build().unwrap();
    let mut events = Events::open(&client, server.url("/topics/news/messages")).await;
    let mut idle = Client::of(&server).await;
    idle.health(&server).await;
    server.process.client.publish("news", "the last".into()).await;
    let begun = std::time::Instant::now();
    server.process.signal("TERM");
    assert_eq!(events.next().await.unwrap()["data"], "the last");
    while events.next().await.is_some() {}
    assert_eq!(idle.reason().await, None);
    drop((events, client));
    assert!(server.process.ended().await.success());
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
}

/// Plain ports speak HTTP/1.1.
#[tokio::test]
async fn no_http_2_without_tls() {
    let server = Secure::start();
    let mut raw = Raw::connect(server.process.addr).await;
    raw.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    raw.closed().await;
    server.process.client.assert_alive().await;
    // Nor with TLS, where the client has not chosen it.
    let mut stream = server.connect(&[]).await;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut response = String::new();
    within("response", stream.read_to_string(&mut response)).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

/// A client that takes what it can is waited for, also when that takes longer than an idle connection lives.
#[tokio::test]
async fn slow_but_steady_is_fine() {
    let server = Secure::with(&[("KEEP_ALIVE_TIMEOUT", "1s"), ("WRITE_TIMEOUT", "1s"), ("PING_INTERVAL", "200ms")]);
    server.process.client.publish_all("news", (0..500).map(|_| "x".repeat(1_000).into())).await;
    let mut client = Client::of(&server).await;
    let page = request(&server, "/topics/news/messages?limit=500").body(()).unwrap();
    let (response, _) = client.send.send_request(page, true).unwrap();
    let response = within("response", response).await.unwrap();
    let length: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let (begun, mut seen, mut body) = (std::time::Instant::now(), 0, response.into_body());
    while let Some(piece) = within("piece", body.data()).await {
        let bytes = piece.unwrap().len();
        seen += bytes;
        body.flow_control().release_capacity(bytes).unwrap();
        // Slower than an idle connection, faster than one that stands still.
        tokio::time::sleep(std::time::Duration::from_millis(80)).await;
    }
    assert_eq!(seen, length);
    assert!(length > 500_000 && begun.elapsed() > std::time::Duration::from_secs(2), "{length} {:?}", begun.elapsed());
}
