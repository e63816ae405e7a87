//! `/ws`: every type of frame, and what does not count.

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, Options, RawWs, Start, numbers, raw_ws::Socket},
    harness::{TestServer, is_time},
};

fn names(frame: &Value) -> Vec<&str> {
    let mut names: Vec<_> = frame.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// The documented example, as a browser runs it on a fresh server.
#[tokio::test]
async fn the_documented_example() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server, "/ws", None).await;
    socket.send(r#"{"type":"subscribe","topic":"news"}"#).await;
    socket.send(r#"{"type":"publish","topic":"news","data":"Hello World!"}"#).await;
    let ack = socket.json().await;
    assert_eq!(names(&ack), ["status", "topic", "ts", "type"]);
    assert_eq!((&ack["type"], &ack["topic"], &ack["status"]), (&"ack".into(), &"news".into(), &"ok".into()));
    let (one, two) = (socket.json().await, socket.json().await);
    let (event, ack) = if one["type"] == "event" { (one, two) } else { (two, one) };
    assert_eq!(names(&event), ["cursor", "data", "id", "offset", "topic", "ts", "type"]);
    assert_eq!((&event["data"], &event["topic"]), (&"Hello World!".into(), &"news".into()));
    assert_eq!(names(&ack), ["cursor", "id", "offset", "status", "topic", "ts", "type"]);
    for name in ["id", "offset", "cursor"] {
        assert_eq!(ack[name], event[name]);
    }
    assert!(is_time(&event["ts"]) && is_time(&ack["ts"]));
    socket.send(r#"{"type":"unsubscribe","topic":"news"}"#).await;
    assert_eq!(names(&socket.json().await), ["status", "topic", "ts", "type"]);
    socket.send(r#"{"type":"ping"}"#).await;
    let pong = socket.json().await;
    assert_eq!((names(&pong), &pong["type"]), (vec!["ts", "type"], &"pong".into()));
    socket.close().await;
}

#[tokio::test]
async fn request_ids_come_back() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server, "/ws", None).await;
    for (number, frame) in [
        json!({"type": "subscribe", "topic": "news"}),
        json!({"type": "publish", "topic": "other", "data": 1}),
        json!({"type": "unsubscribe", "topic": "news"}),
        json!({"type": "ping"}),
        json!({"type": "subscribe"}),
        json!({"type": "no such thing"}),
        json!({"type": "publish", "topic": "news"}),
        json!({"type": "ack", "topic": "news", "consumer": "c", "cursor": "x"}),
        json!({"topic": "news"}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut frame = frame;
        let id = format!("é\"{number}\n");
        frame["request_id"] = id.as_str().into();
        socket.send(frame.to_string()).await;
        let reply = socket.json().await;
        assert_eq!(reply["request_id"], id, "{frame}: {reply}");
        assert_eq!(reply["type"] == "error", number > 3, "{frame}: {reply}");
    }
}

#[tokio::test]
async fn unknown_fields_and_order_do_not_matter() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server, "/ws", None).await;
    for frame in [
        r#"{"x":{"type":"publish"},"topic":"news","qos":[1,{"a":null}],"type":"subscribe"}"#,
        r#"  {"to\u0070ic" : "news" , "type" :
            "subscribe", "request_id": null, "last_n": null, "filter": null}  "#,
        r#"{"data":1,"type":"unsubscribe","topic":"news"}"#,
        r#"{"type":"subscribe","type":"subscribe","topic":"other","topic":"news"}"#,
    ] {
        socket.send(frame).await;
        let reply = socket.json().await;
        assert_eq!((&reply["type"], &reply["topic"]), (&"ack".into(), &"news".into()), "{frame}: {reply}");
        assert!(reply.get("request_id").is_none());
    }
}

#[tokio::test]
async fn subscribing_twice_is_one_delivery() {
    let server = TestServer::start();
    let mut ws = RawWs::to(&server, "news", Start::Live).await;
    ws.subscribe("news", Start::Live, &Options::default()).await.unwrap();
    assert_eq!(server.get("/topics/news").await.expect(200)["subscribers"], 1);
    server.publish_numbers("news", 1..=2).await;
    assert_eq!(numbers(&ws.messages(2).await), [1, 2]);
    ws.assert_open().await;
    // One is enough to leave, and leaving again is no error.
    ws.unsubscribe("news").await;
    ws.unsubscribe("news").await;
    ws.unsubscribe("never.was").await;
    server.publish("news", 3.into()).await;
    ws.subscribe("news", Start::Live, &Options::default()).await.unwrap();
    server.publish("news", 4.into()).await;
    assert_eq!(numbers(&ws.messages(1).await), [4]);
}

/// The ack stands before any replay, however much there is.
#[tokio::test]
async fn the_ack_comes_first() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=500).await;
    let mut socket = Socket::connect(&server, "/ws", None).await;
    socket.send(r#"{"type":"subscribe","topic":"news","last_n":500}"#).await;
    assert_eq!(socket.json().await["type"], "ack");
    for offset in 1..=500 {
        assert_eq!(socket.json().await["offset"], offset);
    }
}

#[tokio::test]
async fn the_old_form_of_messages() {
    let server = TestServer::start();
    let mut ws = RawWs::to(&server, "news", Start::Live).await;
    let told = ws
        .ask(json!({"type": "publish", "topic": "news", "message": {"id": "m1", "payload": {"a": 1}}, "key": "k"}))
        .await;
    assert_eq!((&told["id"], told.get("duplicate")), (&"m1".into(), None));
    let message = ws.event().await.message();
    assert_eq!((message.id.as_str(), message.key.as_deref(), &message.data), ("m1", Some("k"), &json!({"a": 1})));
}

#[tokio::test]
async fn errors_leave_the_socket_open() {
    let server = TestServer::start();
    let mut ws = RawWs::open(&server).await;
    for (frame, code) in [
        ("", "BAD_REQUEST"),
        ("{", "BAD_REQUEST"),
        ("null", "BAD_REQUEST"),
        ("[]", "BAD_REQUEST"),
        ("\"subscribe\"", "BAD_REQUEST"),
        ("{}", "BAD_REQUEST"),
        (r#"{"type":5}"#, "BAD_REQUEST"),
        (r#"{"type":"Subscribe","topic":"news"}"#, "BAD_REQUEST"),
        (r#"{"type":"event","topic":"news"}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe"}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe","topic":null}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe","topic":7}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe","topic":""}"#, "INVALID_TOPIC"),
        (r#"{"type":"subscribe","topic":"a.>.b"}"#, "INVALID_TOPIC"),
        (r#"{"type":"subscribe","topic":"news","last_n":-1}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe","topic":"news","last_n":"1"}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe","topic":"news","after":1}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe","topic":"news","overflow":"LATER"}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe","topic":"news","ack":"EXPLICIT"}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe","topic":"news","consumer":"c","ack":"MAYBE"}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe","topic":"news","consumer":""}"#, "BAD_REQUEST"),
        (r#"{"type":"subscribe","topic":"news","filter":{"field":"a"}}"#, "BAD_REQUEST"),
        (r#"{"type":"unsubscribe"}"#, "BAD_REQUEST"),
        (r#"{"type":"publish","topic":"news"}"#, "BAD_REQUEST"),
        (r#"{"type":"publish","topic":"news","message":{"id":"x"}}"#, "BAD_REQUEST"),
        (r#"{"type":"publish","topic":"news","data":1,"message":{"payload":1}}"#, "BAD_REQUEST"),
        (r#"{"type":"publish","topic":"news","data":1,"id":""}"#, "BAD_REQUEST"),
        (r#"{"type":"publish","topic":"news","data":1,"id":5}"#, "BAD_REQUEST"),
        (r#"{"type":"publish","topic":"news","data":1,"key":[]}"#, "BAD_REQUEST"),
        (r#"{"type":"publish","topic":"news","data":01}"#, "BAD_REQUEST"),
        (r#"{"type":"publish","topic":"a*","data":1}"#, "INVALID_TOPIC"),
        (r#"{"type":"publish","topic":"$sys","data":1}"#, "INVALID_TOPIC"),
        (r#"{"type":"ack","topic":"news","consumer":"c"}"#, "BAD_REQUEST"),
        (r#"{"type":"ack","topic":"news","consumer":"c","cursor":"0123456789abcdef-01"}"#, "NOT_FOUND"),
    ] {
        ws.socket.send(frame).await;
        let reply = ws.socket.json().await;
        assert_eq!(reply["type"], "error", "{frame}: {reply}");
        assert_eq!(reply["error"]["code"], code, "{frame}: {reply}");
        assert!(reply["error"]["message"].as_str().is_some_and(|text| !text.is_empty()) && is_time(&reply["ts"]));
        assert!(reply.get("request_id").is_none());
    }
    ws.assert_open().await;
    assert_eq!(server.get("/topics").await.expect(200)["topics"], json!([]), "nothing came of any of it");
}

#[tokio::test]
async fn nothing_comes_unasked() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    let mut ws = RawWs::open(&server).await;
    server.publish("news", 2.into()).await;
    // The first reply is to the first frame.
    ws.socket.send(r#"{"type":"ping"}"#).await;
    assert_eq!(ws.socket.json().await["type"], "pong");
}

/// Answers come in the order of questions, whatever else goes on.
#[tokio::test]
async fn many_requests_in_flight() {
    let server = TestServer::start();
    let mut socket = Socket::connect(&server, "/ws", None).await;
    for number in 0..2_000 {
        let frame = json!({"type": "publish", "topic": "news", "data": number, "request_id": number.to_string()});
        socket.feed(frame.to_string()).await;
    }
    socket.flush().await;
    for number in 0..2_000_u64 {
        let reply = socket.json().await;
        assert_eq!((&reply["request_id"], &reply["offset"]), (&number.to_string().into(), &(number + 1).into()));
    }
}

#[tokio::test]
async fn a_publisher_hears_its_own_messages() {
    let server = TestServer::start();
    let mut ws = RawWs::to(&server, "news", Start::Live).await;
    for number in 1..=100_u64 {
        let told = ws.ask(json!({"type": "publish", "topic": "news", "data": number})).await;
        assert_eq!(told["offset"], number);
    }
    assert_eq!(numbers(&ws.messages(100).await), (1..=100).collect::<Vec<_>>());
    server.delete("/topics/news").await.expect(200);
    assert_eq!(ws.event().await, Event::Deleted("news".to_owned()));
}

/// Frames act in their order: what was published before an unsubscribe is delivered before that is answered, also where
/// all of it comes in one packet.
#[tokio::test]
async fn an_unsubscribe_acts_behind_what_was_published_before() {
    let server = TestServer::start();
    for source in ["news", "*"] {
        let topic = "news";
        let mut socket = Socket::connect(&server, "/ws", None).await;
        socket.feed(json!({"type": "subscribe", "topic": source}).to_string()).await;
        for number in 0..200 {
            socket.feed(json!({"type": "publish", "topic": topic, "data": number}).to_string()).await;
        }
        socket.feed(json!({"type": "unsubscribe", "topic": source, "request_id": "end"}).to_string()).await;
        socket.feed(json!({"type": "publish", "topic": topic, "data": "after"}).to_string()).await;
        socket.feed(json!({"type": "ping"}).to_string()).await;
        assert!(socket.try_flush().await);
        let (mut delivered, mut ended) = (0, false);
        loop {
            let frame = socket.json().await;
            match frame["type"].as_str() {
                Some("event") => {
                    assert!(!ended, "{frame}");
                    assert_eq!(frame["data"], delivered);
                    delivered += 1;
                }
                Some("ack") => ended |= frame["request_id"] == "end",
                Some("pong") => break,
                _ => panic!("{frame}"),
            }
        }
        assert_eq!((delivered, ended), (200, true), "{source}");
    }
}
