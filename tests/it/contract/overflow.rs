//! What happens to a subscription that falls behind, by its own choice.

use serde_json::json;

use crate::{
    doors::{Door, Event, Options, Start, assert_tiles},
    harness::TestServer,
};

every_pushing_door! {
    latest,
    latest_per_key,
    disconnect,
    a_replay_is_not_falling_behind,
    who_keeps_up_sees_no_difference,
}

const COUNT: u64 = 8_000;

async fn pour(server: &TestServer, from: u64, keys: u64) {
    let pad = "x".repeat(1_000);
    let items: Vec<_> =
        (from..=COUNT).map(|n| json!({"topic": "news", "data": [n, pad], "key": format!("k{}", n % keys)})).collect();
    for batch in items.chunks(200) {
        server.post("/publish", &batch.into()).await.expect(200);
    }
}

/// A subscriber that has caught up and then reads nothing while much is published.
async fn fallen_behind<D: Door>(server: &TestServer, choice: &'static str, keys: u64) -> D {
    server.create("news").await;
    let mut door = D::with(server, "news", Start::Live, &Options::overflow(choice)).await;
    server.publish("news", 1.into()).await;
    door.messages(1).await;
    pour(server, 2, keys).await;
    door
}

async fn latest<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 20_000);
    let mut door: D = fallen_behind(&server, "LATEST", 10).await;
    let events = door.events_to(COUNT).await;
    assert!(assert_tiles(&events, 2, COUNT) > 0);
    // It jumps, although the history has everything. Behind the last jump may stand what it kept up with for as long as the
    // socket took it.
    let last_gap = events.iter().rposition(|event| matches!(event, Event::Gap(_))).unwrap();
    assert!(events.len() - last_gap <= 1_000, "{} messages after the last gap", events.len() - last_gap - 1);
    assert!(events.iter().all(|event| !matches!(event, Event::Gap(gap) if gap.reason != "SLOW_CONSUMER")));
}

async fn latest_per_key<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 20_000);
    let mut door: D = fallen_behind(&server, "LATEST_PER_KEY", 10).await;
    let events = door.events_to(COUNT).await;
    assert!(assert_tiles(&events, 2, COUNT) > 0);
    let first_gap = events.iter().position(|event| matches!(event, Event::Gap(_))).unwrap();
    let after: Vec<_> = events[first_gap..]
        .iter()
        .filter_map(|event| match event {
            Event::Message(message) => Some(message),
            _ => None,
        })
        .collect();
    let last_gap = events.iter().rposition(|event| matches!(event, Event::Gap(_))).unwrap();
    // Where publishing takes its time, the subscription falls behind and catches up more than once.
    assert!(last_gap > 0 && after.len() < COUNT as usize - 1, "{} messages after the first gap", after.len());
    // The newest of each key is among them.
    for key in 0..10 {
        let newest = (2..=COUNT).rev().find(|n| n % 10 == key).unwrap();
        assert!(
            after.iter().any(|message| message.offset == newest && message.key == Some(format!("k{key}"))),
            "k{key}"
        );
    }
}

async fn disconnect<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 50);
    let mut door: D = fallen_behind(&server, "DISCONNECT", 10).await;
    let mut offset = 1;
    loop {
        match door.event().await {
            Event::Message(message) => {
                offset += 1;
                assert_eq!(message.offset, offset);
            }
            end => {
                assert_eq!(end, Event::Error("SLOW_CONSUMER".to_owned()));
                break;
            }
        }
    }
    assert!(offset < COUNT);
    // To subscribe again is safe, and what was missed is said then.
    door.assert_open().await;
    let page = server.get("/topics/news/messages?limit=1").await.expect(200);
    let cursor = page["messages"][0]["cursor"].as_str().unwrap();
    let start = Start::After(crate::doors::cursor_at(cursor, offset));
    door.subscribe("news", start, &Options::overflow("DISCONNECT")).await.unwrap();
    let events = door.events_to(COUNT).await;
    assert!(assert_tiles(&events, offset + 1, COUNT) > 0);
}

async fn a_replay_is_not_falling_behind<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 20_000);
    server.create("news").await;
    pour(&server, 1, 3).await;
    for choice in ["LATEST", "LATEST_PER_KEY", "DISCONNECT"] {
        let start = Start::Last(2_000);
        let mut door = D::with(&server, "news", start, &Options::overflow(choice)).await;
        let events = door.events_to(COUNT).await;
        assert_eq!(assert_tiles(&events, COUNT - 1_999, COUNT), 0, "{choice}");
    }
}

async fn who_keeps_up_sees_no_difference<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    for choice in ["HISTORY", "LATEST", "LATEST_PER_KEY", "DISCONNECT"] {
        let mut door = D::with(&server, "news", Start::Live, &Options::overflow(choice)).await;
        for number in 0..20 {
            let body = json!({"topic": "news", "data": number, "key": "same"});
            server.post("/publish", &body).await.expect(200);
            assert_eq!(door.event().await.message().data, number, "{choice}");
        }
    }
}
