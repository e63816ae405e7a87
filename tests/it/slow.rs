//! A subscriber that stops reading: nobody waits for it, memory stays bounded, and it learns exactly what it missed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, RawWs, Start, assert_tiles},
    harness::{Client, TestServer},
    process::Process,
};

every_door! {
    paused_within_the_history,
    paused_beyond_the_history,
    a_hundred_thousand_while_paused,
}

/// One kilobyte of compact JSON.
fn kilobyte(number: u64) -> Value {
    let text = json!({"number": number, "pad": ""}).to_string();
    json!({"number": number, "pad": "x".repeat(1024 - text.len())})
}

async fn paused_within_the_history<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 10_000);
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    server.publish_all("news", (1..=8_000).map(kilobyte)).await;
    let events = door.events_to(8_000).await;
    assert_eq!(assert_tiles(&events, 1, 8_000), 0);
}

async fn paused_beyond_the_history<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 50);
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    server.publish("news", kilobyte(1)).await;
    door.messages(1).await;
    server.publish_all("news", (2..=8_000).map(kilobyte)).await;
    let events = door.events_to(8_000).await;
    let missed = assert_tiles(&events, 2, 8_000);
    assert!(missed > 0);
    for event in &events {
        match event {
            Event::Gap(gap) => assert_eq!(gap.reason, D::SLOW),
            Event::Message(message) => assert_eq!(message.data, kilobyte(message.offset)),
            _ => unreachable!(),
        }
    }
    // It has caught up and is live again.
    server.publish("news", kilobyte(8_001)).await;
    assert_eq!(door.event().await.message().offset, 8_001);
}

/// Publishes as fast as one `/ws` connection goes.
async fn pour(client: &Client, topic: &str, count: u64) -> Duration {
    const IN_FLIGHT: u64 = 256;
    let mut ws = RawWs::open(client).await;
    let text = json!({"type": "publish", "topic": topic, "data": kilobyte(0)}).to_string();
    let begun = Instant::now();
    for number in 0..count {
        ws.socket.feed(text.clone()).await;
        if number % IN_FLIGHT == IN_FLIGHT - 1 || number == count - 1 {
            let sent = number % IN_FLIGHT + 1;
            ws.socket.send(r#"{"type":"ping"}"#).await;
            for _ in 0..sent {
                let reply = ws.socket.text().await;
                assert!(reply.contains(r#""type":"ack""#), "{reply}");
            }
            assert!(ws.socket.text().await.contains("pong"));
        }
    }
    begun.elapsed()
}

async fn a_hundred_thousand_while_paused<D: Door>() {
    const COUNT: u64 = 100_000;
    let server = Process::start(&[("MAX_PUBLISH_RATE", "0")]);
    let client = &server.client;
    // Full histories, used buffers, a connection of each kind: what a server that has run for a while holds anyway.
    client.create("warm").await;
    client.create("news").await;
    let mut warm = D::to(client, "warm", Start::Live).await;
    let alone = pour(client, "warm", 20_000).await;
    let seen = warm.events_to(20_000).await;
    assert_tiles(&seen, 1, 20_000);
    warm.close().await;

    let mut door = D::to(client, "news", Start::Live).await;
    let before = server.memory();
    let took = pour(client, "news", COUNT).await;
    let grown = server.memory().saturating_sub(before);
    // The default history: a thousand messages with their text and what holds it.
    let history = 1_000 * (1024 + 512);
    assert!(grown <= history + (2 << 20), "grown by {grown} bytes");
    // Five times as many messages; a publisher that waited for the subscriber would never have come here at all.
    assert!(took < alone * 10, "{took:?} with a paused subscriber, {alone:?} for a fifth without");

    let events = door.events_to(COUNT).await;
    assert!(assert_tiles(&events, 1, COUNT) > 0);
    assert!(events.iter().all(|event| !matches!(event, Event::Gap(gap) if gap.reason != D::SLOW)));
    client.publish("news", 1.into()).await;
    assert_eq!(door.event().await.message().offset, COUNT + 1);
    client.assert_alive().await;
}
