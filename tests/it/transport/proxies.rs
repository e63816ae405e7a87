//! Connections that a proxy passes on, and the bound on connections of one address.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
};

use super::Secure;
use crate::{
    doors::sse::code_in,
    harness::{eventually, within},
    process::Process,
    raw::Raw,
};

const LOCAL: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.1");
const ONE: (&str, &str) = ("MAX_CONNECTIONS_PER_ADDRESS", "1");

/// A version 2 header for a connection over IPv4.
fn binary(client: [u8; 4]) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [signature, &[0x21, 0x11, 0, 12][..], &client, &[127, 0, 0, 1, 0x10, 0, 0, 80]].concat()
}

fn text(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 127.0.0.1 4096 80\r\n").into_bytes()
}

/// Asks over a connection that begins with these bytes; it stays open.
async fn asked(addr: SocketAddr, header: &[u8]) -> (Raw, u16, String) {
    let mut raw = Raw::connect(addr).await;
    raw.write(header).await;
    raw.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (head, body) = raw.response().await.unwrap();
    (raw, head.status, body)
}

/// Whose connection it is shows in the bound of that address.
#[tokio::test]
async fn the_proxy_protocol_names_the_client() {
    let server = Process::start(&[LOCAL, ONE]);
    let mut open = Vec::new();
    for (header, status) in [
        (text("1.1.1.1"), 200),
        (text("1.1.1.1"), 503),
        (binary([1, 1, 1, 1]), 503),
        (binary([2, 2, 2, 2]), 200),
        (text("2.2.2.2"), 503),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), 200),
        // The proxy's own, of which there may be many.
        (Vec::new(), 200),
        (Vec::new(), 200),
        (b"PROXY UNKNOWN\r\n".to_vec(), 200),
    ] {
        let (raw, seen, body) = asked(server.addr, &header).await;
        assert_eq!(seen, status, "{header:?}: {body}");
        if status == 503 {
            assert_eq!(code_in(&body), "LIMIT_REACHED");
            assert!(body.contains("MAX_CONNECTIONS_PER_ADDRESS"), "{body}");
        } else {
            open.push(raw);
        }
    }
    // What is closed does not count.
    drop(open);
    eventually("room for the address", || async {
        (asked(server.addr, &text("1.1.1.1")).await.1 == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn before_tls_too() {
    let server = Secure::with(&[LOCAL, ONE]);
    let ask = async |header: Vec<u8>| {
        let mut tcp = crate::raw::connect(server.addr).await;
        tcp.write_all(&header).await.unwrap();
        let mut stream = BufReader::new(server.handshake(tcp, &["http/1.1"], None).await.unwrap());
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        within("response", stream.read_exact(&mut status)).await.unwrap();
        (stream, String::from_utf8(status.to_vec()).unwrap())
    };
    let (_first, status) = ask(binary([1, 1, 1, 1])).await;
    assert_eq!(status, "HTTP/1.1 200");
    assert_eq!(ask(text("1.1.1.1")).await.1, "HTTP/1.1 503");
    assert_eq!(ask(text("1.1.1.2")).await.1, "HTTP/1.1 200");
    assert_eq!(ask(Vec::new()).await.1, "HTTP/1.1 200");
}

/// A header from anyone else is no HTTP, and a malformed one closes the connection.
#[tokio::test]
async fn strangers_are_not_believed() {
    let stranger = Process::start(&[("TRUSTED_PROXIES", "10.0.0.0/8,::1")]);
    for header in [text("10.0.0.1"), binary([10, 0, 0, 1])] {
        let mut raw = Raw::connect(stranger.addr).await;
        raw.write(header).await;
        raw.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let status = raw.head().await.map(|head| head.status);
        assert!(matches!(status, None | Some(400)), "{status:?}");
        raw.closed().await;
    }
    let trusting = Process::start(&[LOCAL, ("REQUEST_TIMEOUT", "200ms")]);
    let too_long = [&binary([1; 4])[..14], &[0xff, 0xff], &[0; 100]].concat();
    for bad in [&b"PROXY TCP4 nobody 127.0.0.1 1 2\r\n"[..], &[b'P'; 0], b"PROXY TCP4 1.1.", &too_long] {
        let mut raw = Raw::connect(trusting.addr).await;
        raw.write(bad).await;
        raw.closed().await;
    }
    // Only one.
    let mut raw = Raw::connect(trusting.addr).await;
    raw.write([text("1.1.1.1"), text("2.2.2.2")].concat()).await;
    assert!(matches!(raw.head().await.map(|head| head.status), None | Some(400)));
    trusting.client.assert_alive().await;
}

/// Without proxies, the bound is on the other end of the socket.
#[tokio::test]
async fn one_address_is_bounded_and_others_are_not() {
    let server = Process::start(&[("MAX_CONNECTIONS_PER_ADDRESS", "2")]);
    let first = Raw::websocket(server.addr, "/ws", None).await;
    let _second = Raw::websocket(server.addr, "/ws", None).await;
    let mut third = Raw::websocket(server.addr, "/ws", None).await;
    assert_eq!(third.close_code().await, Some(1013));
    let (_, status, body) = asked(server.addr, b"").await;
    assert_eq!((status, code_in(&body).as_str()), (503, "LIMIT_REACHED"));
    assert!(body.contains("MAX_CONNECTIONS_PER_ADDRESS"), "{body}");

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let other: TcpStream = within("connection", socket.connect(server.addr)).await.unwrap();
    let mut other = Raw { stream: BufReader::new(other) };
    other.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(other.response().await.unwrap().0.status, 200);

    drop(first);
    eventually("room for the address", || async { (asked(server.addr, b"").await.1 == 200).then_some(()) }).await;
}

/// Over the bound of all connections, a proxied client is told so, too.
#[tokio::test]
async fn a_proxied_connection_too_many() {
    let server = Process::start(&[LOCAL, ("MAX_CONNECTIONS", "1")]);
    let (_first, status, _) = asked(server.addr, &text("1.1.1.1")).await;
    assert_eq!(status, 200);
    let (_, status, body) = asked(server.addr, &text("2.2.2.2")).await;
    assert_eq!((status, code_in(&body).as_str()), (503, "LIMIT_REACHED"));
    assert!(body.contains("(MAX_CONNECTIONS)"), "{body}");
}
