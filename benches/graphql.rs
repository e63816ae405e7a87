//! What the GraphQL door costs in CPU time, without a network: a mutation by POST from the request's parts to the response's
//! bytes, opening a connection with a subscription, and delivering a message to the one subscriber of its topic.
//!
//! `cargo bench --bench graphql` measures all; `-- post` one of `post`, `many`, `open`, `deliver`. Everything runs on one
//! thread, client and server. The counts of allocations in `tests/counts.rs` do not depend on the machine; these numbers do.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails by failing, and prints")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "tasks end with the benchmark"
)]
#![allow(dead_code, reason = "what is shared with tests is not all used")]

#[path = "../tests/support/pipes.rs"]
mod pipes;

use std::time::Duration;

use axum::body::to_bytes;
use pipes::Service;
use pub_sub::broker::{self, Broker, NewMessage, Payload, TopicName};
use rustix::time::{ClockId, clock_gettime};

const PUBLISH: &str = r#"{"query":"mutation Publish($topic: String!, $data: JSON!) { publish(topic: $topic, data: $data) { messageId offset } }","variables":{"topic":"news","data":{"number":1,"text":"Hello World!"}}}"#;
const PUBLISH_MANY: &str = r#"{"query":"mutation($m:[PublishInput!]!){publishMany(messages:$m){publication{offset} error{code}}}","variables":{"m":[{"topic":"news","data":1},{"topic":"news","data":2},{"topic":"news","data":3},{"topic":"news","data":4}]}}"#;

fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

fn broker() -> Broker {
    Broker::in_memory(broker::Settings { max_publish_rate: 0, ..broker::Settings::default() })
}

async fn publish(service: &Service, topic: &TopicName) {
    let data = Payload::parse(r#"{"number":1}"#, 100).unwrap();
    let new_message = NewMessage {
        data,
        id: None,
        key: None,
        expected_offset: None,
        origin: None,
        ttl: None,
        expected_key_offset: None,
    };
    service.broker.publish(topic, new_message).await.unwrap();
}

async fn post(service: &Service, body: &'static str) {
    let response = service.respond(service.post(body)).await;
    assert_eq!(response.status(), 200);
    to_bytes(response.into_body(), 1 << 20).await.unwrap();
}

fn subscribe(number: u64) -> String {
    let query = "subscription Messages($topic: String!) { messages(topic: $topic) { id topic data offset cursor } }";
    format!(r#"{{"query":"{query}","variables":{{"topic":"topic-{number}"}}}}"#)
}

/// Rounds over all topics that one delivery is measured in.
const TOPICS: u64 = 1_000;

async fn measure(name: &str, count: u64, mut operation: impl AsyncFnMut(u64)) {
    for number in 0..count / 10 {
        operation(number).await;
    }
    let before = own_cpu();
    for number in 0..count {
        operation(number).await;
    }
    let each = own_cpu().saturating_sub(before).as_secs_f64() * 1e6 / count as f64;
    println!("{name:8} {each:7.2} µs");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let scale = std::env::var("SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1);
    let service = Service::start(broker());
    if wanted("post") {
        measure("post", 100_000 / scale, async |_| post(&service, PUBLISH).await).await;
    }
    if wanted("many") {
        measure("many", 50_000 / scale, async |_| post(&service, PUBLISH_MANY).await).await;
    }
    if wanted("open") {
        measure("open", 10_000 / scale, async |number| {
            let mut client = service.connect(4_096).await;
            client.subscribe([subscribe(number % TOPICS).as_str()].into_iter()).await;
        })
        .await;
    }
    if wanted("deliver") {
        let mut subscribers = Vec::new();
        for number in 0..TOPICS {
            let mut client = service.connect(4_096).await;
            client.subscribe([subscribe(number).as_str()].into_iter()).await;
            subscribers.push((client, TopicName::parse(&format!("topic-{number}")).unwrap()));
        }
        measure("deliver", 50_000 / scale, async |number| {
            let (client, topic) = &mut subscribers[(number % TOPICS) as usize];
            publish(&service, topic).await;
            client.messages(1, b"}}}}").await;
        })
        .await;
    }
}
