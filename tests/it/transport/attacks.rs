//! Clients that attack the transport. An innocent subscriber receives meanwhile, and memory stays bounded.

use std::time::Duration;

use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Innocent, Secure, http2::Client};
use crate::{
    harness::{alone, within},
    raw::Raw,
};

/// Some attacks send this much. The server must not keep it.
const FLOOD: usize = 32 << 20;

/// Memory that an attack may take: a few buffers.
const MEMORY: u64 = 12 << 20;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a request as HPACK writes it without any compression.
fn get(path: &str, accept: &str) -> Vec<u8> {
    let field = |name: &str, value: &str| {
        let length = |text: &str| vec![u8::try_from(text.len()).unwrap()];
        [vec![0], length(name), name.into(), length(value), value.into()].concat()
    };
    let fields = [field(":path", path), field(":authority", "localhost"), field("accept", accept)];
    [&[0x82, 0x87][..], &fields.concat()].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Handshakes that nobody finishes hold nobody up, and end.
#[tokio::test]
async fn half_open_handshakes() {
    let server = Secure::with(&[("REQUEST_TIMEOUT", "1s")]);
    let mut innocent = Innocent::of(&server.process).await;
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut raw = Raw::connect(server.addr).await;
        // Nothing, the first byte, and the beginning of a long ClientHello.
        raw.write([&b""[..], b"\x16", b"\x16\x03\x01\x20\x00\x01\x00"][number % 3]).await;
        silent.push(raw);
    }
    innocent.receives().await;
    // Others get through at once.
    let client = server.client().build().unwrap();
    assert_eq!(within("response", client.get(server.url("/health")).send()).await.unwrap().status(), 200);
    for mut raw in silent {
        raw.closed().await;
    }
    innocent.receives().await;
}

/// A head that comes byte by byte, or not at all, has the time of a request.
#[tokio::test]
async fn slow_heads_over_tls() {
    let server = Secure::with(&[("REQUEST_TIMEOUT", "300ms"), ("KEEP_ALIVE_TIMEOUT", "1s")]);
    let mut innocent = Innocent::of(&server.process).await;
    for (protocol, bytes) in [
        ("http/1.1", b"GET /health HTTP/1.1\r\nHost: x\r\nX: ".to_vec()),
        ("http/1.1", Vec::new()),
        ("h2", PREFACE.to_vec()),
        ("h2", b"PRI".to_vec()),
        // A head that is begun and never finished.
        ("h2", [PREFACE, &frame(SETTINGS, 0, 0, b""), &frame(HEADERS, 0, 1, &[0x82])].concat()),
    ] {
        let mut stream = server.connect(&[protocol]).await;
        stream.write_all(&bytes).await.unwrap();
        let begun = std::time::Instant::now();
        let mut sink = Vec::new();
        let slowly = async {
            loop {
                let mut piece = [0; 512];
                tokio::select! {
                    read = stream.read(&mut piece) => match read {
                        Ok(0) | Err(_) => return,
                        Ok(bytes) => sink.extend_from_slice(&piece[..bytes]),
                    },
                    () = tokio::time::sleep(Duration::from_millis(20)), if protocol == "http/1.1" => {
                        let _ = stream.write_all(b"x").await;
                    }
                }
            }
        };
        within("end of the connection", slowly).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{protocol} {bytes:?}");
        innocent.receives().await;
    }
}

#[tokio::test]
async fn garbage_where_tls_is_spoken() {
    let server = Secure::start();
    let mut innocent = Innocent::of(&server.process).await;
    for bytes in [&[0xff; 2_000][..], b"\0\0\0\0", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff", &[0x80; 100]]
    {
        let mut raw = Raw::connect(server.addr).await;
        raw.write(bytes).await;
        raw.stream.get_mut().shutdown().await.ok();
        raw.closed().await;
    }
    innocent.receives().await;
}

/// Whoever forgets the `s` of `https` is told so.
#[tokio::test]
async fn plain_http_where_tls_is_spoken() {
    let server = Secure::start();
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!("POST /publish HTTP/1.1\r\n\r\n{}", "x".repeat(100_000)),
    ] {
        let mut raw = Raw::connect(server.addr).await;
        raw.write(request).await;
        let (head, body) = raw.response().await.unwrap();
        assert_eq!(head.status, 400);
        assert!(body.contains("https://") && body.contains("BAD_REQUEST"), "{body}");
        raw.stream.get_mut().shutdown().await.ok();
        raw.closed().await;
    }
}

/// Requests that are cancelled as soon as they are sent, as fast as they go (CVE-2023-44487).
#[tokio::test]
async fn rapid_reset() {
    let _alone = alone().await;
    let server = Secure::start();
    let mut innocent = Innocent::of(&server.process).await;
    let before = server.process.memory();
    for _ in 0..5 {
        let mut client = Client::of(&server).await;
        let mut sent = 0;
        for _ in 0..20_000 {
            let request = axum::http::Request::builder().uri(server.url("/topics/news/messages")).body(()).unwrap();
            let Ok(mut ready) = within("room", client.send.clone().ready()).await else { break };
            let Ok((response, mut stream)) = ready.send_request(request, true) else { break };
            stream.send_reset(Reason::CANCEL);
            drop(response);
            sent += 1;
            if sent % 1_000 == 0 {
                tokio::task::yield_now().await;
            }
        }
        innocent.receives().await;
        client.send = match client.send.ready().await {
            Ok(send) => send,
            Err(_) => continue,
        };
        drop(client);
    }
    innocent.receives().await;
    server.process.client.wait_for_subscribers("news", 0).await;
    let grown = server.process.memory().saturating_sub(before);
    assert!(grown < MEMORY, "{grown} bytes");
}

/// Writes `flood` again and again, reading nothing, until the server closes or takes no more, or `FLOOD` bytes are sent.
async fn pour(server: &Secure, beginning: Vec<u8>, flood: &[u8]) -> usize {
    let mut stream = server.connect(&["h2"]).await;
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &beginning].concat()).await.unwrap();
    let mut sent = 0;
    while sent < FLOOD {
        match tokio::time::timeout(Duration::from_secs(1), stream.write_all(flood)).await {
            Ok(Ok(())) => sent += flood.len(),
            // It has closed, or waits for its replies to be read.
            Ok(Err(_)) | Err(_) => break,
        }
    }
    sent
}

/// Frames that want a reply, from a client that reads none.
#[tokio::test]
async fn floods_of_pings_and_settings() {
    let _alone = alone().await;
    let server = Secure::start();
    let mut innocent = Innocent::of(&server.process).await;
    let before = server.process.memory();
    for flood in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])] {
        let flood = flood.repeat(1_000);
        let (sent, ()) = tokio::join!(pour(&server, Vec::new(), &flood), innocent.receives());
        assert!(sent < FLOOD, "a client that reads no replies is not read for ever");
        innocent.receives().await;
    }
    let grown = server.process.memory().saturating_sub(before);
    assert!(grown < MEMORY, "{grown} bytes");
}

/// One head in endless pieces (CVE-2024-27316), and one that grows when it is decompressed.
#[tokio::test]
async fn endless_heads() {
    let _alone = alone().await;
    let server = Secure::start();
    let mut innocent = Innocent::of(&server.process).await;
    let before = server.process.memory();
    // Literal fields that are not indexed, of a hundred bytes each.
    let field = [&[0x00, 0x03][..], b"x-a", &[100], &[b'a'; 100]].concat();
    let piece = frame(CONTINUATION, 0, 1, &field.repeat(100));
    let sent = pour(&server, frame(HEADERS, 0, 1, &[0x82]), &piece).await;
    assert!(sent < FLOOD, "it goes on for ever");
    innocent.receives().await;
    // A long field into the table, then a reference to it of one byte, thousands of times.
    let long = [&[0x40, 0x03][..], b"x-b", &[0x7f, 0x81, 0x1e], &[b'b'; 4_000]].concat();
    let bomb = [&[0x82, 0x86, 0x84][..], &long, &[0xbe; 8_000]].concat();
    let mut stream = server.connect(&["h2"]).await;
    let bomb = frame(HEADERS, 5, 1, &bomb);
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &bomb].concat()).await.unwrap();
    let mut answer = [0; 64];
    within("answer", stream.read(&mut answer)).await.ok();
    innocent.receives().await;
    let grown = server.process.memory().saturating_sub(before);
    assert!(grown < MEMORY, "{grown} bytes");
}

/// More streams than the bound wait at the client, and every one gets its response.
#[tokio::test]
async fn more_streams_than_the_bound() {
    let server = Secure::start();
    let mut innocent = Innocent::of(&server.process).await;
    let mut client = Client::of(&server).await;
    client.health(&server).await;
    assert!(client.send.current_max_send_streams() <= 200);
    let mut responses = Vec::new();
    for _ in 0..1_000 {
        let request = axum::http::Request::builder().uri(server.url("/health")).body(()).unwrap();
        let mut ready = within("room for a stream", client.send.clone().ready()).await.unwrap();
        responses.push(ready.send_request(request, true).unwrap().0);
        if responses.len() == 150 {
            for response in responses.drain(..) {
                assert_eq!(within("response", response).await.unwrap().status(), 200);
            }
        }
    }
    for response in responses {
        assert_eq!(within("response", response).await.unwrap().status(), 200);
    }
    innocent.receives().await;
}

/// Two hundred event streams of a client that reads nothing, though it has announced to take everything.
#[tokio::test]
async fn streams_that_nobody_reads() {
    let _alone = alone().await;
    let server = Secure::with(&[("MAX_MESSAGES_PER_TOPIC", "1000")]);
    let mut innocent = Innocent::of(&server.process).await;
    let before = server.process.memory();
    let mut stream = server.connect(&["h2"]).await;
    // Windows of two gigabytes, of the connection and of each stream.
    let window = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    let connection = frame(WINDOW_UPDATE, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes());
    stream.write_all(&[PREFACE, &window, &connection].concat()).await.unwrap();
    let head = get("/topics/news/messages", "text/event-stream");
    for number in 0..200 {
        stream.write_all(&frame(HEADERS, 5, 2 * number + 1, &head)).await.unwrap();
    }
    stream.flush().await.unwrap();
    let client = &server.process.client;
    client.wait_for_subscribers("news", 200).await;
    let data = || (0..1_000).map(|_| "x".repeat(1_000).into());
    client.publish_all("news", data()).await;
    for _ in 0..20 {
        client.publish_all("news", data()).await;
        innocent.receives().await;
    }
    let grown = server.process.memory().saturating_sub(before);
    // A chunk of 64 KiB in a buffer that has grown by doubling, and what is on its way.
    assert!(grown < 200 * (160 << 10), "{grown} bytes");
}

/// A client that grants no window to its responses holds them for the time of a write, and no longer.
#[tokio::test]
async fn responses_that_nobody_takes() {
    let server = Secure::with(&[("WRITE_TIMEOUT", "500ms"), ("PING_INTERVAL", "1h")]);
    let mut innocent = Innocent::of(&server.process).await;
    server.process.client.publish_all("news", (0..100).map(|_| "x".repeat(1_000).into())).await;
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for (path, accept) in
        [("/topics/news/messages", "application/json"), ("/topics/news/messages?last=100", "text/event-stream")]
    {
        let mut stream = server.connect(&["h2"]).await;
        let ask = frame(HEADERS, 5, 1, &get(path, accept));
        stream.write_all(&[PREFACE, &no_window, &ask].concat()).await.unwrap();
        let mut pings = 0;
        let read = async {
            let mut piece = [0; 512];
            while let Ok(1..) = stream.read(&mut piece).await {
                // It lives, and other streams of it could move.
                let _ = stream.write_all(&frame(PING, 0, 0, &[7; 8])).await;
                pings += 1;
            }
        };
        within("end of the connection", read).await;
        assert!(pings > 0);
        innocent.receives().await;
    }
    server.process.client.wait_for_subscribers("news", 0).await;
}
