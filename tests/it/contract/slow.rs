//! A subscriber that stops reading: nobody waits for it, memory stays bounded, and it learns exactly what it missed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, GraphqlSse, GraphqlWs, RawWs, RestPages, Sse, Start, assert_tiles},
    harness::{Client, TestServer, alone},
    process::Process,
    raw::Raw,
};

every_door! {
    paused_within_the_history,
    paused_beyond_the_history,
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

/// Publishes as fast as one `/ws` connection goes: many frames in one write, their acks counted.
async fn pour(client: &Client, topic: &str, count: u64) -> Duration {
    const IN_FLIGHT: u64 = 250;
    let mut raw = Raw::websocket(client.addr, "/ws", None).await;
    let text = json!({"type": "publish", "topic": topic, "data": kilobyte(0)}).to_string();
    // A mask of zeros leaves the text as it is.
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    let frame = [&[0x81, 0xfe, length[0], length[1], 0, 0, 0, 0], text.as_bytes()].concat();
    let frames = frame.repeat(IN_FLIGHT as usize);
    assert_eq!(count % IN_FLIGHT, 0);
    let begun = Instant::now();
    for _ in 0..count / IN_FLIGHT {
        raw.write(&frames).await;
        raw.short_texts(IN_FLIGHT, br#"{"type":"ack""#).await;
    }
    begun.elapsed()
}

const COUNT: u64 = 100_000;

/// Reads what came while it was paused: the gap is exact, and the subscriber is live again.
async fn read_on<D: Door>(mut door: D) {
    let events = door.events_to(COUNT).await;
    assert!(assert_tiles(&events, 1, COUNT) > 0);
    assert!(events.iter().all(|event| !matches!(event, Event::Gap(gap) if gap.reason != D::SLOW)));
    door.close().await;
}

async fn warm_up<D: Door>(mut door: D) {
    let seen = door.events_to(COUNT / 20).await;
    assert_tiles(&seen, 1, COUNT / 20);
    door.close().await;
}

/// One paused subscriber at each door of the same server, whose memory has one bound for them all.
#[tokio::test]
async fn a_hundred_thousand_while_paused_at_every_door() {
    let _alone = alone().await;
    // The pause may be long on a slow machine, and is not to be ended.
    let server = Process::start(&[("MAX_PUBLISH_RATE", "0"), ("WRITE_TIMEOUT", "1h")]);
    let client = &server.client;
    // Full histories, used buffers, a connection of each kind: what a server that has run for a while holds anyway.
    client.create("warm").await;
    client.create("news").await;
    let live = || Start::Live;
    let graphql_ws = GraphqlWs::to(client, "warm", live()).await;
    let raw_ws = RawWs::to(client, "warm", live()).await;
    let sse = Sse::to(client, "warm", live()).await;
    let graphql_sse = GraphqlSse::to(client, "warm", live()).await;
    let pages = RestPages::to(client, "warm", live()).await;
    let alone = pour(client, "warm", COUNT / 20).await;
    tokio::join!(warm_up(graphql_ws), warm_up(raw_ws), warm_up(sse), warm_up(graphql_sse), warm_up(pages));

    let graphql_ws = GraphqlWs::to(client, "news", live()).await;
    let raw_ws = RawWs::to(client, "news", live()).await;
    let sse = Sse::to(client, "news", live()).await;
    let graphql_sse = GraphqlSse::to(client, "news", live()).await;
    let pages = RestPages::to(client, "news", live()).await;
    let before = server.memory();
    let took = pour(client, "news", COUNT).await;
    let grown = server.memory().saturating_sub(before);
    // The default history: a thousand messages with their text and what holds it.
    let history = 1_000 * (1024 + 512);
    assert!(grown <= history + (2 << 20), "grown by {grown} bytes");
    // Twenty times as many messages, on a machine with other work; a publisher that waited for a subscriber would never
    // have come here at all.
    assert!(took < alone * 100, "{took:?} with paused subscribers, {alone:?} for a twentieth without");

    read_on(graphql_ws).await;
    read_on(raw_ws).await;
    read_on(sse).await;
    read_on(graphql_sse).await;
    read_on(pages).await;
    client.assert_alive().await;
}
