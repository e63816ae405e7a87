//! TLS at every door, certificates that change, and certificates of clients.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::{Events, Files, Secure};
use crate::{
    harness::{eventually, within},
    process::{Process, command},
};

type Socket = WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

async fn websocket(server: &Secure, path: &str, protocol: Option<&str>) -> Socket {
    let mut request = format!("wss://{}{path}", server.addr).into_client_request().unwrap();
    if let Some(name) = protocol {
        request.headers_mut().insert("sec-websocket-protocol", name.parse().unwrap());
    }
    let stream = server.connect(&["http/1.1"]).await;
    within("WebSocket", client_async(request, stream)).await.unwrap().0
}

async fn send(socket: &mut Socket, frame: Value) {
    within("room to send", socket.send(Message::text(frame.to_string()))).await.unwrap();
}

/// The next text frame that is like this.
async fn frame(socket: &mut Socket, is_wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        if let Message::Text(text) = within("frame", socket.next()).await.unwrap().unwrap() {
            let frame: Value = serde_json::from_str(&text).unwrap();
            if is_wanted(&frame) {
                return frame;
            }
        }
    }
}

/// REST, event streams and GraphQL, in both versions of HTTP.
#[tokio::test]
async fn every_door_of_http() {
    let server = Secure::start();
    for (version, client) in [
        (reqwest::Version::HTTP_2, server.client().build().unwrap()),
        (reqwest::Version::HTTP_11, server.client().http1_only().build().unwrap()),
    ] {
        let topic = format!("news-{version:?}").replace('/', "-");
        let mut events = Events::open(&client, server.url(&format!("/topics/{topic}/messages"))).await;
        assert_eq!(events.response.version(), version);
        let post = async |path: &str, body: Value| -> Value {
            let response = within("response", client.post(server.url(path)).json(&body).send()).await.unwrap();
            assert_eq!((response.status().as_u16(), response.version()), (200, version));
            response.json().await.unwrap()
        };
        post("/publish", json!({"topic": topic, "data": "by REST"})).await;
        assert_eq!(events.next().await.unwrap()["data"], "by REST");
        let query = "mutation ($topic: String!) { publish(topic: $topic, data: \"by GraphQL\") { offset } }";
        let response = post("/graphql", json!({"query": query, "variables": {"topic": topic}})).await;
        assert_eq!(response.get("errors"), None, "{response}");
        assert_eq!(events.next().await.unwrap()["data"], "by GraphQL");
        // Errors have the body that they have over plain HTTP.
        let missing = client.get(server.url("/nothing")).send().await.unwrap();
        assert_eq!(missing.status(), 404);
        assert_eq!(missing.json::<Value>().await.unwrap()["error"]["code"], "NOT_FOUND");
    }
}

#[tokio::test]
async fn every_door_of_websockets() {
    let server = Secure::start();
    let mut raw = websocket(&server, "/ws", None).await;
    send(&mut raw, json!({"type": "subscribe", "topic": "news", "request_id": "s"})).await;
    frame(&mut raw, |frame| frame["request_id"] == "s").await;
    let mut graphql = websocket(&server, "/graphql", Some("graphql-transport-ws")).await;
    send(&mut graphql, json!({"type": "connection_init"})).await;
    frame(&mut graphql, |frame| frame["type"] == "connection_ack").await;
    let query = "subscription { messages(topic: \"news\") { ... on Message { data } } }";
    send(&mut graphql, json!({"type": "subscribe", "id": "1", "payload": {"query": query}})).await;
    server.process.client.wait_for_subscribers("news", 2).await;
    send(&mut raw, json!({"type": "publish", "topic": "news", "data": "by /ws", "request_id": "p"})).await;
    frame(&mut raw, |frame| frame.to_string().contains("by /ws")).await;
    frame(&mut graphql, |frame| frame["type"] == "next" && frame.to_string().contains("by /ws")).await;
}

/// TLS keeps what the socket does not take. A client that pauses gets all of it when it reads on, and the last of it, too.
#[tokio::test]
async fn a_client_that_pauses() {
    let server = Secure::with(&[("MAX_MESSAGES_PER_TOPIC", "5000")]);
    let mut socket = websocket(&server, "/ws", None).await;
    send(&mut socket, json!({"type": "subscribe", "topic": "news", "request_id": "s"})).await;
    frame(&mut socket, |frame| frame["request_id"] == "s").await;
    let pad = "x".repeat(1_000);
    server.process.client.publish_all("news", (1..=4_000).map(|n| json!({"n": n, "pad": pad}))).await;
    for number in 1..=4_000 {
        let seen = frame(&mut socket, |frame| frame.to_string().contains("\"pad\"")).await;
        assert!(seen.to_string().contains(&format!("\"n\":{number},")), "{number}");
    }
}

/// The certificate that a new connection is shown.
async fn shown(server: &Secure) -> CertificateDer<'static> {
    let stream = server.connect(&["h2"]).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn is_shown(server: &Secure, wanted: &CertificateDer<'static>) {
    let changed = async { while shown(server).await != *wanted {} };
    tokio::time::timeout(Duration::from_secs(5), changed).await.expect("what has changed counts within five seconds");
}

/// A certificate that is renewed needs no restart, and a broken one changes nothing.
#[tokio::test]
async fn certificates_are_read_again() {
    let server = Secure::start();
    let client = server.client().build().unwrap();
    let mut events = Events::open(&client, server.url("/topics/news/messages")).await;
    let before = shown(&server).await;
    let renewed = server.files.renew();
    assert_ne!(before, renewed);
    is_shown(&server, &renewed).await;

    // The key of another certificate is one warning, however often it is looked at.
    let warnings = |text: &str| server.process.log().iter().filter(|line| line.contains(text)).count();
    let broken = "the TLS files are broken; the earlier certificate stays in use";
    // It may have seen one file of the two that were renewed.
    let before = warnings(broken);
    let pair = server.files.issue("another");
    server.files.write("key.pem", &pair.key);
    eventually("warning", || async { (warnings(broken) == before + 1).then_some(()) }).await;
    assert!(server.process.log().iter().any(|line| line.contains("TLS_KEY: ") && line.contains("WARN")));
    assert_eq!(shown(&server).await, renewed);
    std::fs::remove_file(server.files.path("cert.pem")).unwrap();
    eventually("warning", || async { (warnings("the TLS files cannot be read") == 1).then_some(()) }).await;
    assert_eq!(shown(&server).await, renewed);
    server.files.write("cert.pem", &pair.cert);
    eventually("another certificate", || async { (shown(&server).await != renewed).then_some(()) }).await;
    assert_eq!((warnings(broken), warnings("the TLS files cannot be read")), (before + 1, 1));
    let metrics = client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let failures = format!("\npubsub_access_reload_failures_total {}\n", before + 2);
    assert!(metrics.contains(&failures), "{metrics}");
    assert!(!server.process.log().join("\n").contains("PRIVATE KEY"));

    // A signal reads them, and says how that went, even if nothing has changed.
    let read = warnings("the TLS certificate was read again");
    server.process.signal("HUP");
    eventually("line in the log", || async { (warnings("certificate was read again") > read).then_some(()) }).await;

    // Connections from before go on.
    server.process.client.publish("news", 1.into()).await;
    assert_eq!(events.next().await.unwrap()["data"], 1);
}

/// Whether a request gets through with this certificate.
async fn gets_through(server: &Secure, client: Option<&super::Pair>) -> bool {
    let Ok(mut stream) = server.try_connect(&["http/1.1"], client).await else { return false };
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut response = Vec::new();
    // With TLS 1.3 the client learns of its refusal after the handshake.
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let read = within("response", stream.read_to_end(&mut response)).await;
    assert!(read.is_ok() || response.is_empty(), "{read:?}");
    response.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn clients_need_certificates_where_an_authority_is_set() {
    let (files, others) = (Files::new(), Files::new());
    let authority = files.text_path("ca.pem");
    let server = Secure::of(files, &[("TLS_CLIENT_CA", &authority)]);
    let good = server.files.issue("billing");
    assert!(gets_through(&server, Some(&good)).await);
    assert!(!gets_through(&server, None).await);
    assert!(!gets_through(&server, Some(&others.issue("billing"))).await);
    // An authority that is replaced, too.
    server.files.write("ca.pem", &others.authority);
    eventually("other authority", || async { gets_through(&server, Some(&others.issue("x"))).await.then_some(()) })
        .await;
    assert!(!gets_through(&server, Some(&good)).await);
}

/// The health check of the image asks where the server listens, whatever is spoken there.
#[tokio::test]
async fn the_health_check_speaks_tls() {
    let files = Files::new();
    let paths = ["cert.pem", "key.pem", "ca.pem"].map(|name| files.text_path(name));
    let [cert, key, authority] = paths.each_ref().map(String::as_str);
    let tls = [("TLS_CERT", cert), ("TLS_KEY", key)];
    let checks = |settings: &[(&str, &str)], port: u16| {
        let port = port.to_string();
        let settings = [settings, &[("PORT", &port), ("HOST", "127.0.0.1")]].concat();
        command(&settings).arg("healthcheck").output().unwrap()
    };
    let mutual = [&tls[..], &[("TLS_CLIENT_CA", authority)]].concat();
    let side_by_side = [&mutual[..], &[("TLS_PORT", "0")]].concat();
    for settings in [&tls[..], &mutual, &side_by_side] {
        let server = Process::start(settings);
        // The check does not need to know the other port: it asks at PORT.
        let checked = checks(settings, server.addr.port());
        assert!(checked.status.success(), "{settings:?}: {checked:?}");
    }
    let server = Process::start(&mutual);
    let strangers = Files::new();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| strangers.text_path(name));
    let checked = checks(&[("TLS_CERT", &cert), ("TLS_KEY", &key)], server.addr.port());
    assert!(!checked.status.success(), "the certificate of another server is no client's: {checked:?}");
    let checked = checks(&[], server.addr.port());
    assert!(!checked.status.success(), "plain HTTP: {checked:?}");
    let checked = checks(&tls, 1);
    assert!(!checked.status.success(), "nobody listens: {checked:?}");
}

#[test]
fn what_is_wrong_refuses_the_start() {
    let (files, others) = (Files::new(), Files::new());
    files.write("nothing.pem", "nothing\n");
    files.write("half.pem", &files.issue("x").cert[..200]);
    let [cert, key, authority, nothing, half, missing] =
        ["cert.pem", "key.pem", "ca.pem", "nothing.pem", "half.pem", "missing.pem"].map(|name| files.text_path(name));
    let other_key = others.text_path("key.pem");
    for (settings, name) in [
        (vec![("TLS_CERT", &cert)], "TLS_CERT: also needs TLS_KEY"),
        (vec![("TLS_KEY", &key)], "TLS_KEY: also needs TLS_CERT"),
        (vec![("TLS_CLIENT_CA", &authority)], "TLS_CLIENT_CA: also needs TLS_CERT"),
        (vec![("TLS_CERT", &missing), ("TLS_KEY", &key)], "TLS_CERT: cannot read"),
        (vec![("TLS_CERT", &cert), ("TLS_KEY", &missing)], "TLS_KEY: cannot read"),
        (vec![("TLS_CERT", &nothing), ("TLS_KEY", &key)], "TLS_CERT: "),
        (vec![("TLS_CERT", &half), ("TLS_KEY", &key)], "TLS_CERT: "),
        (vec![("TLS_CERT", &cert), ("TLS_KEY", &nothing)], "TLS_KEY: "),
        (vec![("TLS_CERT", &key), ("TLS_KEY", &cert)], "TLS_CERT: "),
        (vec![("TLS_CERT", &cert), ("TLS_KEY", &other_key)], "TLS_KEY: "),
        (vec![("TLS_CERT", &cert), ("TLS_KEY", &key), ("TLS_CLIENT_CA", &missing)], "TLS_CLIENT_CA: cannot read"),
        (vec![("TLS_CERT", &cert), ("TLS_KEY", &key), ("TLS_CLIENT_CA", &nothing)], "TLS_CLIENT_CA: "),
    ] {
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = command(&[&settings[..], &[("PORT", "0"), ("LOG", "off")]].concat()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.lines().count() == 1, "{settings:?}: {text}");
        assert!(text.starts_with(&format!("pub-sub: {name}")), "{settings:?}: {text}");
        assert!(!text.contains("PRIVATE"), "{text}");
    }
    for (settings, name) in [
        (&[("TLS_PORT", "8443")][..], "TLS_PORT: also needs TLS_CERT"),
        (&[("TLS_PORT", "1"), ("PORT", "1"), ("TLS_CERT", &cert), ("TLS_KEY", &key)], "TLS_PORT: must not be PORT"),
    ] {
        let text = String::from_utf8(command(settings).output().unwrap().stderr).unwrap();
        assert!(text.starts_with(&format!("pub-sub: {name}")) && text.lines().count() == 1, "{text}");
    }
}

#[tokio::test]
async fn a_tls_port_in_use() {
    let first = Secure::start();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| first.files.text_path(name));
    let port = first.addr.port().to_string();
    let settings = [("TLS_CERT", cert.as_str()), ("TLS_KEY", &key), ("TLS_PORT", &port), ("PORT", "0")];
    let output = command(&[&settings[..], &[("HOST", "127.0.0.1")]].concat()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("TLS_PORT: cannot listen on"), "{text}");
}

/// A connection too many is told so over TLS, too.
#[tokio::test]
async fn one_connection_too_many() {
    let server = Secure::with(&[("MAX_CONNECTIONS", "1")]);
    let _first = crate::raw::Raw::websocket(server.process.addr, "/ws", None).await;
    let client = server.client().build().unwrap();
    let refused = within("response", client.get(server.url("/health")).send()).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "LIMIT_REACHED");
    let mut socket = websocket(&server, "/ws", None).await;
    let code = loop {
        match within("close frame", socket.next()).await {
            Some(Ok(Message::Close(close))) => break close.map(|close| u16::from(close.code)),
            Some(Ok(_)) => {}
            ended => panic!("{ended:?}"),
        }
    };
    assert_eq!(code, Some(1013));
}
