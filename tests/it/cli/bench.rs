//! `pub-sub bench`.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio_tungstenite::{accept_async, tungstenite::Message};

use super::{in_memory, printed, refused, run};

fn report(output: &std::process::Output) -> Value {
    serde_json::from_str(&printed(output)).unwrap()
}

/// At every interface, everything is published and delivered, and the topic is gone afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn every_interface_can_be_measured() {
    let server = in_memory(|_| {});
    for door in ["ws", "rest", "graphql"] {
        let arguments =
            ["bench", "--door", door, "--messages", "301", "--publishers", "2", "--subscribers", "3", "--json"];
        let report = report(&run(server.addr, &arguments).await);
        let found = ["published", "delivered", "missed", "lost"].map(|name| report[name].as_u64().unwrap());
        assert_eq!(found, [301, 903, 0, 0], "{report}");
        let latency = &report["latency_ms"];
        let quantiles = ["p50", "p90", "p99", "p99.9", "max"].map(|name| latency[name].as_f64().unwrap());
        assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{report}");
    }
    assert_eq!(server.get("/topics").await.expect(200)["topics"], Value::Array(Vec::new()));
    let publishing = report(&run(server.addr, &["bench", "--messages", "50", "--subscribers", "0", "--json"]).await);
    assert_eq!((&publishing["published"], &publishing["delivered"]), (&50.into(), &0.into()), "{publishing}");
    let text = printed(&run(server.addr, &["bench", "--messages", "10", "--rate", "1000"]).await);
    let heads: Vec<_> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(heads, ["published", "delivered", "latency", "missed", "lost"], "{text}");
}

/// The rate of a topic makes the publishers wait; a history that is too short for the subscribers is told by gaps.
#[tokio::test(flavor = "multi_thread")]
async fn rates_and_gaps_are_no_losses() {
    let server = in_memory(|config| config.broker.max_publish_rate = 60);
    server.create("slow").await;
    let limited = report(&run(server.addr, &["bench", "--topic", "slow", "--messages", "80", "--json"]).await);
    assert_eq!((&limited["published"], &limited["lost"]), (&80.into(), &0.into()), "{limited}");

    let topic = r#"{"name":"short","max_messages":1,"max_publish_rate":0}"#;
    server.post_text("/topics", topic).await.expect(201);
    let arguments = ["bench", "--topic", "short", "--messages", "20000", "--window", "500", "--size", "64", "--json"];
    let short = report(&run(server.addr, &arguments).await);
    let (delivered, missed) = (short["delivered"].as_u64().unwrap(), short["missed"].as_u64().unwrap());
    assert_eq!((delivered + missed, &short["lost"]), (20_000, &0.into()), "{short}");
    assert_eq!(server.get("/topics/short").await.expect(200)["messages"], 1, "the topic stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_said() {
    let nobody = crate::nats::free_port();
    let refusal = refused(&run(([127, 0, 0, 1], nobody).into(), &["bench"]).await, 1);
    assert!(refusal.contains("is the server running at"), "{refusal}");
    refused(&run(([127, 0, 0, 1], nobody).into(), &["bench", "--door", "window"]).await, 2);
}

/// A server that accepts everything, and delivers every second message only.
async fn lose_every_second(listener: tokio::net::TcpListener) {
    let (news, _) = tokio::sync::broadcast::channel::<String>(1_000);
    while let Ok((tcp, _)) = listener.accept().await {
        let (news, mut mine) = (news.clone(), news.subscribe());
        tokio::spawn(async move {
            let (mut to, mut from) = accept_async(tcp).await.unwrap().split();
            let mut is_subscriber = false;
            loop {
                tokio::select! {
                    Some(Ok(frame)) = from.next() => {
                        let Ok(frame) = serde_json::from_str::<Value>(frame.to_text().unwrap()) else { return };
                        is_subscriber |= frame["type"] == "subscribe";
                        if frame["type"] == "publish" && frame["data"]["n"].as_u64().unwrap() % 2 == 0 {
                            let _ = news.send(frame["data"].to_string());
                        }
                        let _ = to.send(Message::text(r#"{"type":"ack","status":"ok"}"#)).await;
                    }
                    Ok(data) = mine.recv(), if is_subscriber => {
                        let event = format!(r#"{{"type":"event","topic":"x","data":{data},"cursor":"c"}}"#);
                        let _ = to.send(Message::text(event)).await;
                    }
                    else => return,
                }
            }
        });
    }
}

/// What does not arrive, and what no gap tells of, is a failure.
#[tokio::test(flavor = "multi_thread")]
async fn losses_are_failures() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = tokio::spawn(lose_every_second(listener));
    let arguments = ["bench", "--topic", "x", "--messages", "20", "--subscribers", "2", "--wait", "1s", "--json"];
    let output = run(addr, &arguments).await;
    refused(&output, 1);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = ["published", "delivered", "missed", "lost"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(found, [20, 20, 0, 20], "{report}");
    serving.abort();
}
