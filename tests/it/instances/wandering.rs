//! A consumer that wanders between two instances, of which one loses its connection now and then, and both when the server is
//! killed: it goes on behind what was acknowledged last, wherever that was, and exactly there.

use serde_json::json;

use super::{becomes_ready, cut_off::behind_a_proxy, in_the_end, instance, publish};
use crate::{
    doors::{Door, Event, Options, RawWs, Start},
    harness::{Random, TestServer},
    nats::Nats,
};

/// What the consumer may have acknowledged: what it was told to be kept, and what perhaps is, too.
#[derive(Clone, Copy, Debug, Default)]
struct Acknowledged {
    surely: u64,
    perhaps: u64,
}

async fn acknowledge(server: &TestServer, offset: u64, cursor: &str, acknowledged: &mut Acknowledged) {
    acknowledged.perhaps = acknowledged.perhaps.max(offset);
    let response = server.post("/topics/news/consumers/worker/ack", &json!({"cursor": cursor})).await;
    assert!(matches!(response.status, 200 | 503), "{response:?}");
    if response.status == 200 {
        acknowledged.surely = acknowledged.surely.max(offset);
    }
}

async fn subscribe(server: &TestServer) -> RawWs {
    in_the_end("subscription", || async {
        let mut door = RawWs::open(server).await;
        match door.subscribe("news", Start::Last(1_000), &Options::consumer("worker", "EXPLICIT")).await {
            Ok(()) => Some(door),
            Err(code) => {
                assert!(["UNAVAILABLE", "CONSUMER_TAKEN_OVER"].contains(&code.as_str()), "{code}");
                None
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_goes_on_where_it_was_wherever_it_goes() {
    let nats = Nats::single().await;
    let a = instance(&nats);
    let (b, proxy) = behind_a_proxy(&nats).await;
    for server in [&a, &b] {
        becomes_ready(server).await;
    }
    a.create("news").await;
    let mut random = Random::new(3);
    let mut log: Vec<u64> = Vec::new();
    let mut acknowledged = Acknowledged::default();
    // Older connections, which stay open: they are told, or find out.
    let mut older = Vec::new();
    let (mut visits, mut kills) = (0, 0);
    for step in 0..90_u64 {
        match random.below(12) {
            0 => proxy.cut(),
            1 | 2 => proxy.heal(),
            3 => proxy.shake(),
            4 if kills < 2 => {
                nats.nodes[0].kill();
                kills += 1;
                nats.nodes[0].start().await;
                becomes_ready(&a).await;
            }
            _ => {}
        }
        for number in 0..random.below(3) {
            let offset = in_the_end("publication", || async {
                let response = publish(&a, "news", step * 10 + number).await;
                (response.status == 200).then(|| response.json()["offset"].as_u64().unwrap())
            });
            log.push(offset.await);
        }
        let next = |behind: u64| log.iter().copied().find(|offset| *offset > behind);
        let Some(due) = next(acknowledged.surely) else { continue };
        let server = if random.below(2) == 0 || !proxy.is_open() { &a } else { &b };
        let mut door = subscribe(server).await;
        visits += 1;
        if next(acknowledged.perhaps).is_none() {
            continue;
        }
        let first = door.event().await.message();
        let latest = next(acknowledged.perhaps).unwrap();
        assert!(
            log.contains(&first.offset) && (due..=latest).contains(&first.offset),
            "step {step}: begins at {} and not at {due} ({acknowledged:?})",
            first.offset
        );
        acknowledged.surely =
            acknowledged.surely.max(log.iter().copied().filter(|o| *o < first.offset).max().unwrap_or(0));
        let mut seen = vec![first];
        let left = log.iter().filter(|offset| **offset > seen[0].offset).count() as u64;
        for _ in 0..random.below(left + 1) {
            let message = door.event().await.message();
            let due = next(seen.last().unwrap().offset);
            assert_eq!(Some(message.offset), due, "step {step}");
            seen.push(message);
        }
        if random.below(4) > 0 {
            let chosen = &seen[random.below(seen.len() as u64) as usize];
            let server = if random.below(2) == 0 || !proxy.is_open() { &a } else { &b };
            acknowledge(server, chosen.offset, &chosen.cursor, &mut acknowledged).await;
        }
        if random.below(2) == 0 {
            door.close().await;
        } else {
            older.push(door);
        }
    }
    proxy.heal();
    let mut last = subscribe(&a).await;
    for mut door in older {
        loop {
            match door.event().await {
                Event::Message(_) => {}
                end => {
                    assert_eq!(end, Event::Error("CONSUMER_TAKEN_OVER".to_owned()));
                    break;
                }
            }
        }
    }
    last.assert_open().await;
    println!("{visits} visits, {} messages, {kills} kills", log.len());
    assert!(visits > 20, "{visits} visits");
}
