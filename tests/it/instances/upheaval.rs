//! Everything at random, over topics that come and go: what two patterns' subscribers get on two instances, of which one
//! loses its connection now and then, and both when the server is killed, is what was acknowledged, or is told as missed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{OUTAGE_DEADLINE, cut_off::behind_a_proxy, in_the_end, instance};
use crate::{
    doors::{Door, Event, RawWs, Start},
    harness::{Random, TestServer},
    nats::Nats,
};

/// What a subscriber has got, by topic: the first and last offset of each event, and whether it is a gap.
#[derive(Default)]
struct Seen {
    events: BTreeMap<String, Vec<(u64, u64, bool)>>,
    deletions: usize,
    /// Topics of which something came since they were deleted.
    alive: BTreeSet<String>,
}

impl Seen {
    fn take(&mut self, event: Event) {
        let (topic, from, to, is_gap) = match event {
            Event::Message(message) => (message.topic, message.offset, message.offset, false),
            Event::Gap(gap) => (gap.topic.unwrap(), gap.from_offset, gap.to_offset, true),
            Event::Deleted(topic) => {
                // Every incarnation has a message.
                assert!(self.alive.remove(&topic), "{topic} was deleted twice: {:?}", self.events);
                return self.deletions += 1;
            }
            other => panic!("{other:?}"),
        };
        let events = self.events.entry(topic.clone()).or_default();
        let reached = events.last().map_or(0, |(_, to, _)| *to);
        // A gap of another incarnation of the topic begins where that incarnation does, as far as anybody knows.
        assert!(to > reached && (is_gap || from > reached), "{topic}: {from} to {to} behind {reached}: {events:?}");
        events.push((from, to, is_gap));
        self.alive.insert(topic);
    }

    /// What was acknowledged and is neither here nor told as missed.
    fn missing(&self, acknowledged: &BTreeSet<(String, u64)>) -> Vec<(String, u64)> {
        let covered = |topic: &str, offset: u64| {
            let events = self.events.get(topic).into_iter().flatten();
            events.into_iter().any(|(from, to, _)| (*from..=*to).contains(&offset))
        };
        acknowledged.iter().filter(|(topic, offset)| !covered(topic, *offset)).cloned().collect()
    }

    /// Reads until nothing that was acknowledged is missing.
    async fn read(&mut self, door: &mut RawWs, acknowledged: &BTreeSet<(String, u64)>, deadline: Duration) {
        let begun = Instant::now();
        while !self.missing(acknowledged).is_empty() && begun.elapsed() < deadline {
            if let Ok(event) = timeout(Duration::from_millis(200), door.event()).await {
                self.take(event);
            }
        }
    }
}

/// Publishes until it is stored, in whatever incarnation its topic has then.
async fn publish(server: &TestServer, topic: &str, id: &str) -> u64 {
    let body = json!({"topic": topic, "data": id, "id": id});
    in_the_end("publication", || async {
        let request = server.request(reqwest::Method::POST, "/publish").timeout(OUTAGE_DEADLINE);
        let response = server.send(request.json(&body)).await;
        assert!(matches!(response.status, 200 | 503 | 504), "{response:?}");
        (response.status == 200).then(|| response.json()["offset"].as_u64().unwrap())
    })
    .await
}

async fn delete(server: &TestServer, topic: &str) {
    in_the_end("deletion", || async {
        let response = server.delete(&format!("/topics/{topic}")).await;
        assert!(matches!(response.status, 200 | 404 | 503), "{response:?}");
        (response.status != 503).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_silent_whatever_comes_and_goes() {
    let nats = Nats::single().await;
    let a = instance(&nats);
    let (b, proxy) = behind_a_proxy(&nats).await;
    for server in [&a, &b] {
        super::becomes_ready(server).await;
    }
    let mut doors = [RawWs::to(&a, "t.*", Start::Live).await, RawWs::to(&b, "t.*", Start::Live).await];
    let mut seen = [Seen::default(), Seen::default()];
    let mut random = Random::new(99);
    let mut acknowledged = BTreeSet::new();
    let (mut cut, mut kills) = (false, 0);
    for step in 0..220 {
        let topic = format!("t.{}", random.below(4));
        match random.below(20) {
            0 | 1 => delete(&a, &topic).await,
            2 if !cut => delete(&b, &topic).await,
            3 | 4 => {
                proxy.cut();
                cut = true;
            }
            5 | 6 => {
                proxy.heal();
                cut = false;
            }
            7 => proxy.shake(),
            8 if kills < 3 => {
                nats.nodes[0].kill();
                kills += 1;
                nats.nodes[0].start().await;
            }
            _ => {
                let server = if cut || random.below(2) == 0 { &a } else { &b };
                for number in 0..1 + random.below(4) {
                    let offset = publish(server, &topic, &format!("{step}-{number}")).await;
                    acknowledged.insert((topic.clone(), offset));
                }
            }
        }
        // A shake heals, too.
        cut &= !proxy.is_open();
    }
    proxy.heal();
    for topic in 0..4 {
        delete(&a, &format!("t.{topic}")).await;
    }
    for ((door, seen), name) in doors.iter_mut().zip(&mut seen).zip(["here", "there"]) {
        seen.read(door, &acknowledged, OUTAGE_DEADLINE).await;
        let missing = seen.missing(&acknowledged);
        assert!(missing.is_empty(), "{name}: {missing:?} of {} were neither delivered nor told", acknowledged.len());
        while let Ok(event) = timeout(Duration::from_secs(2), door.event()).await {
            seen.take(event);
        }
        let gaps = seen.events.values().flatten().filter(|(_, _, is_gap)| *is_gap).count();
        println!("{name}: {} acknowledged, {gaps} gaps, {} deletions", acknowledged.len(), seen.deletions);
    }
}
