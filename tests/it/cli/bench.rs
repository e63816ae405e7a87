//! `pub-sub bench`.

use serde_json::Value;

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
