//! WebSocket as its specification has it (RFC 6455), frame by frame.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::{
    doors::raw_ws::Socket,
    harness::{TestServer, alone, eventually, within},
    raw::Raw,
};

const PING: &str = r#"{"type":"ping"}"#;

async fn open(server: &TestServer) -> Raw {
    Raw::websocket(server.addr, "/ws", None).await
}

async fn expect_pong(raw: &mut Raw) {
    let (first, payload) = raw.next_frame().await.unwrap();
    assert_eq!(first, 0x81);
    assert!(String::from_utf8(payload).unwrap().contains("\"pong\""));
}

#[tokio::test]
async fn broken_rules_close_with_1002() {
    let server = TestServer::start();
    for path in [("/ws", None), ("/graphql", Some("graphql-transport-ws"))] {
        for bytes in [
            // Not masked.
            &b"\x81\x0f{\"type\":\"ping\"}"[..],
            // A reserved bit.
            b"\xc1\x80\0\0\0\0",
            // Opcodes that do not exist.
            b"\x83\x80\0\0\0\0",
            b"\x8b\x80\0\0\0\0",
            // A control frame in pieces, and one too long.
            b"\x09\x80\0\0\0\0",
            b"\x89\xfe\0\x7e\0\0\0\0",
            // A continuation of nothing.
            b"\x80\x80\0\0\0\0",
            // A new message within one.
            b"\x01\x81\0\0\0\0{\x81\x81\0\0\0\0}",
            // Close frames with one byte, with a code that nobody may send.
            b"\x88\x81\0\0\0\0\x03",
            b"\x88\x82\0\0\0\0\x03\xed",
            b"\x88\x82\0\0\0\0\x00\x00",
        ] {
            let mut raw = Raw::websocket(server.addr, path.0, path.1).await;
            raw.write(bytes).await;
            assert_eq!(raw.close_code().await, Some(1002), "{bytes:02x?}");
            raw.frame(0x88, &1002_u16.to_be_bytes()).await;
            raw.closed().await;
        }
    }
    server.assert_alive().await;
}

#[tokio::test]
async fn text_that_is_not_utf_8_closes_with_1007() {
    let server = TestServer::start();
    for payload in [&b"\xff"[..], b"{\"a\":\"\xc3\"}", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"] {
        let mut raw = open(&server).await;
        raw.frame(0x81, payload).await;
        assert_eq!(raw.close_code().await, Some(1007), "{payload:02x?}");
    }
    // In pieces: each alone is fine, the whole is not.
    let mut raw = open(&server).await;
    raw.frame(0x01, b"\xc3").await;
    raw.frame(0x80, b"(").await;
    assert_eq!(raw.close_code().await, Some(1007));
    // A reason is text, too.
    let mut raw = open(&server).await;
    raw.frame(0x88, b"\x03\xe8\xff").await;
    assert_eq!(raw.close_code().await, Some(1007));
}

#[tokio::test]
async fn messages_in_pieces() {
    let server = TestServer::start();
    let mut raw = open(&server).await;
    let bytes = "{\"type\":\"subscribe\",\"topic\":\"ü🦀\"}".as_bytes();
    // Byte by byte, through the middle of characters, with control frames and an empty piece between.
    raw.frame(0x01, &bytes[..1]).await;
    for byte in &bytes[1..bytes.len() - 1] {
        raw.frame(0x00, &[*byte]).await;
    }
    raw.frame(0x89, b"between").await;
    raw.frame(0x00, b"").await;
    raw.frame(0x80, &bytes[bytes.len() - 1..]).await;
    assert_eq!(raw.next_frame().await.unwrap(), (0x8a, b"between".to_vec()));
    let (_, ack) = raw.next_frame().await.unwrap();
    assert!(String::from_utf8(ack).unwrap().contains("ü🦀"));
    // The frame's bytes themselves may come one at a time.
    for byte in b"\x81\x8f\0\0\0\0{\"type\":\"ping\"}" {
        raw.write([*byte]).await;
    }
    expect_pong(&mut raw).await;
}

#[tokio::test]
async fn pings_are_answered_in_kind() {
    let server = TestServer::start();
    let mut raw = open(&server).await;
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        raw.frame(0x89, payload).await;
        assert_eq!(raw.next_frame().await.unwrap(), (0x8a, payload.to_vec()));
    }
    // An unasked pong is no news.
    raw.frame(0x8a, b"unasked").await;
    raw.text(PING).await;
    expect_pong(&mut raw).await;
}

#[tokio::test]
async fn the_closing_handshake() {
    let server = TestServer::start();
    for (sent, answered) in
        [(&b""[..], None), (b"\x03\xe8bye", Some(1000)), (b"\x03\xe9", Some(1001)), (b"\x0f\xa0", Some(4000))]
    {
        let mut raw = open(&server).await;
        raw.text(PING).await;
        raw.frame(0x88, sent).await;
        expect_pong(&mut raw).await;
        let (first, payload) = raw.next_frame().await.unwrap();
        assert_eq!(first, 0x88);
        let code = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
        assert_eq!(code, answered, "{sent:02x?}");
        raw.closed().await;
    }
}

#[tokio::test]
async fn binary_frames_are_refused_in_words() {
    let server = TestServer::start();
    let mut raw = open(&server).await;
    raw.frame(0x82, b"{\"type\":\"ping\"}").await;
    let (first, payload) = raw.next_frame().await.unwrap();
    assert_eq!(first, 0x81);
    let reply: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!((&reply["type"], &reply["error"]["code"]), (&"error".into(), &"BAD_REQUEST".into()));
    raw.text(PING).await;
    expect_pong(&mut raw).await;
}

#[tokio::test]
async fn frames_over_the_bound_close_with_1009() {
    let server = TestServer::with(|config| config.socket.max_frame_bytes = 1_000);
    // At the bound.
    let mut raw = open(&server).await;
    raw.text(&format!("{PING}{}", " ".repeat(1_000 - PING.len()))).await;
    expect_pong(&mut raw).await;
    raw.text(&format!("{PING}{}", " ".repeat(1_001 - PING.len()))).await;
    assert_eq!(raw.close_code().await, Some(1009));
    // In pieces.
    let mut raw = open(&server).await;
    raw.frame(0x01, &[b' '; 900]).await;
    raw.frame(0x80, &[b' '; 101]).await;
    assert_eq!(raw.close_code().await, Some(1009));
    // Announced only: nothing is waited for, nothing is reserved.
    let mut raw = open(&server).await;
    raw.write(b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0").await;
    assert_eq!(raw.close_code().await, Some(1009));
}

#[tokio::test]
async fn a_flood_of_malformed_frames_closes_with_1008() {
    let server = TestServer::with(|config| config.socket.max_malformed_frames = 10);
    let mut socket = Socket::connect(&server, "/ws", None).await;
    for _ in 0..9 {
        socket.send("{").await;
        assert_eq!(socket.json().await["type"], "error");
    }
    // A good one in between restarts the count.
    socket.send(PING).await;
    assert_eq!(socket.json().await["type"], "pong");
    for _ in 0..200 {
        socket.send("{").await;
    }
    assert_eq!(socket.closed().await, Some(1008));
    server.assert_alive().await;
}

#[tokio::test]
async fn dead_peers_are_dropped() {
    let _alone = alone().await;
    let server = TestServer::with(|config| config.socket.ping_interval = Duration::from_secs(1));
    // It was there first, so it would be dropped first if its pongs did not count.
    let mut alive = Socket::connect(&server, "/ws", None).await;
    let mut raw = open(&server).await;
    raw.text(r#"{"type":"subscribe","topic":"news"}"#).await;
    raw.next_frame().await.unwrap();
    let drop_of_the_dead = async {
        let (first, _) = raw.next_frame().await.unwrap();
        assert_eq!(first, 0x89, "a ping asks whether it is there");
        raw.closed().await;
        server.wait_for_subscribers("news", 0).await;
    };
    tokio::select! {
        frame = alive.frame() => panic!("{frame:?} for a client that sends pongs"),
        () = drop_of_the_dead => {}
    }
    alive.send(PING).await;
    assert_eq!(alive.json().await["type"], "pong");
}

/// A client that sends requests and reads no reply is stopped: the server keeps no replies for it beyond the buffers of the
/// connection, and ends it after the write timeout.
#[tokio::test]
async fn replies_that_nobody_reads() {
    let _alone = alone().await;
    let server = TestServer::with(|config| config.socket.write_timeout = Duration::from_millis(500));
    let mut raw = open(&server).await;
    let text = json!({"type": "ping", "request_id": "x".repeat(10_000)}).to_string();
    // A mask of zeros leaves the text as it is.
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    let frame = [&[0x81, 0xfe, length[0], length[1], 0, 0, 0, 0], text.as_bytes()].concat();
    let taken = within("end of the connection", async {
        let mut taken = 0;
        while raw.stream.write_all(&frame).await.is_ok() {
            taken += frame.len();
            assert!(taken < 50 << 20, "the server takes requests whose replies nobody reads");
        }
        taken
    })
    .await;
    assert!(taken > 0);
    eventually("one connection only", || async {
        (server.get("/stats").await.expect(200)["active_connections"] == 1).then_some(())
    })
    .await;
}
