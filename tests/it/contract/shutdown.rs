//! Graceful stop: subscribers are told, nothing accepted is lost, and it ends.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    doors::{
        Door, Event, GraphqlSse, GraphqlWs, RawWs, Sse, Start, numbers,
        raw_ws::{Frame, Socket},
        sse::code_in,
    },
    harness::{TestServer, alone, eventually, within},
    process::Process,
    raw::Raw,
};

#[tokio::test]
async fn subscribers_are_told() {
    let server = TestServer::start();
    let mut raw = RawWs::to(&server, "news", Start::Live).await;
    let mut sse = Sse::to(&server, "news", Start::Live).await;
    let mut graphql_sse = GraphqlSse::to(&server, "news", Start::Live).await;
    let mut graphql = Socket::connect(&server, "/graphql", Some("graphql-transport-ws")).await;
    graphql.send(r#"{"type":"connection_init"}"#).await;
    graphql.send(json!({"id": "s", "type": "subscribe", "payload": {"query": "subscription { messages(topic: \"news\") { offset } }"}}).to_string()).await;
    graphql.send(r#"{"type":"ping"}"#).await;
    assert_eq!(graphql.json().await["type"], "connection_ack");
    assert_eq!(graphql.json().await["type"], "pong");
    server.wait_for_subscribers("news", 4).await;

    server.ask_to_stop();
    assert_eq!(raw.event().await, Event::Closed(Some(1001)));
    // No `complete`: stock clients take it for the end of the subscription, and subscribe again only after a close.
    let frame = graphql.frame().await;
    assert!(matches!(frame, Frame::Closed(Some(1001))), "{frame:?}");
    assert_eq!(sse.event().await, Event::Closed(None));
    assert_eq!(graphql_sse.event().await, Event::Closed(None));
    eventually("end of the server", || async { server.has_stopped().then_some(()) }).await;
    assert!(tokio::net::TcpStream::connect(server.addr).await.is_err(), "the listener is closed");
}

every_pushing_door! {
    what_was_accepted_is_flushed,
}

/// What was accepted before the stop reaches those who read, however slowly.
async fn what_was_accepted_is_flushed<D: Door>() {
    let server = TestServer::with(|config| {
        config.broker.max_messages_per_topic = 20_000;
        config.server.drain = Duration::from_secs(30);
    });
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    // More than any buffer between the two holds.
    server.publish_all("news", (1..=6_000_u64).map(|number| json!([number, "x".repeat(1_000)]))).await;
    server.ask_to_stop();
    for number in 1..=6_000 {
        assert_eq!(door.event().await.message().data[0], number);
    }
    assert_eq!(door.event().await, Event::Closed(D::SOCKET.map(|_| 1001)));
}

/// One that never reads does not hold the server beyond the drain.
#[tokio::test]
async fn the_drain_has_an_end() {
    let _alone = alone().await;
    let server = TestServer::with(|config| {
        config.broker.max_messages_per_topic = 20_000;
        config.server.drain = Duration::from_millis(500);
    });
    server.create("news").await;
    let _deaf = (
        RawWs::to(&server, "news", Start::Live).await,
        GraphqlWs::to(&server, "news", Start::Live).await,
        Sse::to(&server, "news", Start::Live).await,
        GraphqlSse::to(&server, "news", Start::Live).await,
    );
    server.publish_all("news", (1..=10_000).map(|number| json!([number, "x".repeat(1_000)]))).await;
    let begun = Instant::now();
    server.ask_to_stop();
    eventually("end of the server", || async { server.has_stopped().then_some(()) }).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// A request that has begun is answered; a connection that waits for nothing is closed.
#[tokio::test]
async fn requests_in_flight_are_answered() {
    let server = TestServer::start();
    let mut idle = Raw::connect(server.addr).await;
    idle.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    idle.response().await.unwrap();
    let mut busy = Raw::connect(server.addr).await;
    busy.write("POST /publish HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 25\r\n\r\n").await;
    // The request has begun when its body is asked for.
    assert_eq!(busy.head().await.expect("a go-ahead").status, 100);
    server.ask_to_stop();
    idle.closed().await;
    busy.write("{\"topic\":\"news\",\"data\":1}").await;
    let (head, body) = busy.response().await.expect("an response");
    assert_eq!((head.status, code_in(&body).as_str()), (503, "UNAVAILABLE"), "what comes after the stop is refused");
}

#[tokio::test]
async fn a_signal_ends_it_well() {
    for signal in ["TERM", "INT"] {
        let mut server = Process::start(&[]);
        let mut ws = RawWs::to(&server.client, "news", Start::Live).await;
        server.client.publish("news", 1.into()).await;
        assert_eq!(numbers(&ws.messages(1).await), [1]);
        server.signal(signal);
        assert_eq!(ws.event().await, Event::Closed(Some(1001)));
        ws.close().await;
        assert!(server.ended().await.success(), "{:?}", server.log());
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let _alone = alone().await;
    let mut server =
        Process::start(&[("DRAIN_TIMEOUT", "60"), ("MAX_PUBLISH_RATE", "0"), ("MAX_MESSAGES_PER_TOPIC", "20000")]);
    let _deaf = RawWs::to(&server.client, "news", Start::Live).await;
    server.client.publish_all("news", (1..=10_000).map(|number| json!([number, "x".repeat(1_000)]))).await;
    server.signal("TERM");
    // It refuses new connections, but waits for the deaf one.
    eventually("closed listener", || async { tokio::net::TcpStream::connect(server.addr).await.err() }).await;
    let begun = Instant::now();
    server.signal("TERM");
    server.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Load balancers see that the server is going before it closes anything.
#[tokio::test]
async fn before_the_drain_it_is_open_and_not_ready() {
    let mut server = Process::start(&[("DRAIN_DELAY", "60s")]);
    let mut ws = RawWs::to(&server.client, "news", Start::Live).await;
    let mut sse = Sse::to(&server.client, "news", Start::Live).await;
    let mut graphql = GraphqlWs::open(&server.client).await;
    server.signal("TERM");
    eventually("503", || async { (server.client.get("/health/ready").await.status == 503).then_some(()) }).await;
    server.client.get("/health/ready").await.expect_error(503, "UNAVAILABLE");
    assert_eq!(server.client.get("/health").await.expect(200)["status"], "draining");

    // New connections are accepted, and what is short goes on.
    let client = crate::harness::Client::new(server.addr);
    client.publish("news", 1.into()).await;
    assert_eq!(numbers(&ws.messages(1).await), [1]);
    assert_eq!(numbers(&sse.messages(1).await), [1]);
    client.get("/topics/news/messages?last=1").await.expect(200);
    client.graphql("{ topics { totalCount } }", json!({})).await;

    // Nothing begins that the drain would have to end.
    for path in ["/topics/news/messages", "/topics/news.*/messages"] {
        let stream = client.request(reqwest::Method::GET, path).header("accept", "text/event-stream");
        client.send(stream).await.expect_error(503, "UNAVAILABLE");
    }
    for (path, protocol) in [("/ws", ""), ("/graphql", "Sec-WebSocket-Protocol: graphql-transport-ws\r\n")] {
        let mut raw = Raw::connect(server.addr).await;
        raw.write(format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{protocol}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
        let (head, body) = raw.response().await.unwrap();
        assert!(head.status == 503 && body.contains("UNAVAILABLE"), "{head:?} {body}");
        assert!(head.headers.contains_key("retry-after"), "{head:?}");
    }
    // A client of GraphQL takes a refused subscription for its end, and one that was closed with 1001 subscribes again.
    graphql.assert_open().await;
    let query = json!({"query": "{ topics { totalCount } }"});
    graphql.socket.send(json!({"id": "q", "type": "subscribe", "payload": query}).to_string()).await;
    assert_eq!(graphql.socket.json().await["type"], "next");
    assert_eq!(graphql.socket.json().await["type"], "complete");
    let query = json!({"query": "subscription { messages(topic: \"other\") { offset } }"});
    graphql.socket.send(json!({"id": "s", "type": "subscribe", "payload": query}).to_string()).await;
    let frame = graphql.socket.frame().await;
    assert!(matches!(frame, Frame::Closed(Some(1001))), "{frame:?}");
    ws.socket.send(r#"{"type":"subscribe","topic":"other"}"#).await;
    let frame = ws.socket.json().await;
    assert_eq!((&frame["type"], &frame["error"]["code"]), (&"error".into(), &"UNAVAILABLE".into()), "{frame}");

    let begun = Instant::now();
    server.signal("INT");
    server.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "a second signal ends it at once");
}

/// After the delay comes the drain as usual.
#[tokio::test]
async fn the_delay_has_an_end() {
    let delay = Duration::from_millis(300);
    let server = TestServer::with(|config| config.server.drain_delay = delay);
    let mut ws = RawWs::to(&server, "news", Start::Live).await;
    let begun = Instant::now();
    server.ask_to_stop();
    assert_eq!(ws.event().await, Event::Closed(Some(1001)));
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    eventually("end of the server", || async { server.has_stopped().then_some(()) }).await;
}

/// On a connection that is already there, a draining server takes nothing new, and says so.
#[tokio::test]
async fn a_draining_server_takes_nothing_new() {
    let server = TestServer::with(|config| {
        config.broker.max_messages_per_topic = 20_000;
        config.server.drain = Duration::from_secs(30);
    });
    let mut busy = RawWs::to(&server, "news", Start::Live).await;
    server.publish_all("news", (1..=10_000).map(|number| json!([number, "x".repeat(1_000)]))).await;
    server.ask_to_stop();
    eventually("closed listener", || async { tokio::net::TcpStream::connect(server.addr).await.err() }).await;
    busy.socket.send(r#"{"type":"publish","topic":"news","data":1,"request_id":"late"}"#).await;
    let mut messages = 0;
    let code = loop {
        match busy.socket.frame().await {
            Frame::Text(text) if text.contains("\"late\"") => assert!(text.contains("UNAVAILABLE"), "{text}"),
            Frame::Text(_) => messages += 1,
            Frame::Closed(code) => break code,
            Frame::Cut => panic!("cut"),
        }
    };
    assert_eq!((messages, code), (10_000, Some(1001)));
}

/// A crowd is sent away one after the other, so that it does not come back all at once. Whoever has more to do goes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_ends_bit_by_bit() {
    const CROWD: usize = 200;
    let server = TestServer::with(|config| config.server.drain = Duration::from_secs(8));
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = || ended.load(std::sync::atomic::Ordering::SeqCst);
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..CROWD {
        let mut door = RawWs::to(&server, &format!("topic-{number}"), Start::Live).await;
        let ended = ended.clone();
        crowd.spawn(async move {
            let event = door.event().await;
            ended.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            event
        });
    }
    let mut publisher = RawWs::open(&server).await;
    publisher.assert_open().await;
    server.ask_to_stop();
    eventually("the first to go", || async { (count() > 0).then_some(()) }).await;
    assert!(count() < CROWD, "all went at once");
    // This one is told that it is late, and to come back.
    publisher.socket.send(r#"{"type":"publish","topic":"news","data":1}"#).await;
    let told = publisher.socket.frame().await;
    assert!(matches!(&told, Frame::Text(text) if text.contains("UNAVAILABLE")), "{told:?}");
    let told = publisher.socket.frame().await;
    assert!(matches!(told, Frame::Closed(Some(1001))), "{told:?}");
    // Between the first and the last there are others.
    let mut seen = std::collections::BTreeSet::new();
    within("the last to go", async {
        while count() < CROWD {
            seen.insert(count());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(seen.len() >= 10, "{seen:?}");
    while let Some(event) = crowd.join_next().await {
        assert_eq!(event.unwrap(), Event::Closed(Some(1001)));
    }
}

/// On an engine that takes its time, publishes are on their way when the server is told to stop: what is answered reaches
/// those who read.
#[tokio::test]
async fn every_answered_publish_is_delivered_before_the_end() {
    for round in 0..3 {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data_dir = directory.path().to_str().unwrap();
        let mut server = Process::start(&[("ENGINE", "disk"), ("DATA_DIR", data_dir), ("MAX_PUBLISH_RATE", "0")]);
        let client = server.client.clone();
        client.create("news").await;
        let mut door = RawWs::to(&client, "news", Start::Live).await;
        let publishers: Vec<_> = (0..8)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut newest = 0;
                    let body = json!({"topic": "news", "data": "x"}).to_string();
                    loop {
                        let request = client.request(reqwest::Method::POST, "/publish").body(body.clone());
                        let Ok(response) = request.send().await else { return newest };
                        let Ok(told) = response.json::<serde_json::Value>().await else { return newest };
                        match told["offset"].as_u64() {
                            Some(offset) => newest = offset,
                            None => return newest,
                        }
                    }
                })
            })
            .collect();
        let mut delivered = door.messages(50 + round * 10).await.last().unwrap().offset;
        server.signal("TERM");
        let end = loop {
            match door.event().await {
                Event::Message(message) => delivered = message.offset,
                end => break end,
            }
        };
        assert_eq!(end, Event::Closed(Some(1001)));
        let mut answered = 0;
        for publisher in publishers {
            answered = answered.max(publisher.await.unwrap());
        }
        assert!(delivered >= answered, "answered up to {answered}, delivered up to {delivered}");
        server.ended().await;
    }
}
