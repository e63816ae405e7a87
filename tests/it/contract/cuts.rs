//! Connections that break at random frames: resumed by cursor or by name, nothing is lost, and nothing comes twice but
//! what was not acknowledged.

use serde_json::json;

use crate::{
    doors::{Door, Event, GraphqlSse, GraphqlWs, Options, RawWs, Sse, Start},
    harness::{Random, TestServer, keep_publishing},
};

every_door! {
    resumed_by_cursor,
}

every_pushing_door! {
    resumed_by_explicit_consumer,
}

every_resuming_door! {
    resumed_by_auto_consumer,
}

const CUTS: u64 = 100;

fn server() -> TestServer {
    TestServer::with(|config| config.broker.max_messages_per_topic = 1_000_000)
}

async fn resumed_by_cursor<D: Door>() {
    let server = server();
    let mut random = Random::new(2);
    let mut cursor = server.publish("news", 0.into()).await["cursor"].as_str().unwrap().to_owned();
    let publishing = keep_publishing(&server, "news");
    let mut next = 2;
    for _ in 0..CUTS {
        let mut door = D::to(&server, "news", Start::After(cursor.clone())).await;
        for _ in 0..random.below(40) {
            let message = door.event().await.message();
            assert_eq!(message.offset, next);
            next += 1;
            publishing.seen(message.offset);
            cursor = message.cursor;
        }
        // No close handshake: the connection is dropped, with whatever is in flight.
        drop(door);
    }
    let published = publishing.stop().await + 1;
    let mut door = D::to(&server, "news", Start::After(cursor)).await;
    while next <= published {
        assert_eq!(door.event().await.message().offset, next);
        next += 1;
    }
}

async fn resumed_by_explicit_consumer<D: Door>() {
    let server = server();
    server.create("news").await;
    let mut random = Random::new(3);
    let options = Options::consumer("c", "EXPLICIT");
    let mut door = D::with(&server, "news", Start::Live, &options).await;
    let publishing = keep_publishing(&server, "news");
    let mut acknowledged = 0;
    for _ in 0..CUTS {
        let mut next = acknowledged + 1;
        for _ in 0..random.below(40) {
            let message = door.event().await.message();
            // The first one is the first that was not acknowledged: no more is repeated, no less is delivered.
            assert_eq!(message.offset, next);
            next += 1;
            publishing.seen(message.offset);
            if random.below(10) == 0 {
                let body = json!({"cursor": message.cursor});
                server.post("/topics/news/consumers/c/ack", &body).await.expect(200);
                acknowledged = message.offset;
            }
        }
        drop(door);
        door = D::with(&server, "news", Start::Live, &options).await;
    }
    let published = publishing.stop().await;
    for next in acknowledged + 1..=published {
        assert_eq!(door.event().await.message().offset, next);
    }
}

/// What the position covers has arrived: a WebSocket's client shows it with a pong, an event stream's client says it when
/// it comes back.
async fn resumed_by_auto_consumer<D: Door>() {
    let server = server();
    server.create("news").await;
    let mut random = Random::new(4);
    let options = Options::consumer("c", "AUTO");
    let mut door = D::with(&server, "news", Start::Live, &options).await;
    let publishing = keep_publishing(&server, "news");
    let (mut seen, mut cursor) = (0, None);
    for _ in 0..CUTS {
        let mut next = None;
        let mut events = Vec::new();
        for _ in 0..1 + random.below(40) {
            events.push(door.event().await);
        }
        events.extend(door.received());
        for message in events.into_iter().map(Event::message) {
            assert_eq!(message.offset, next.unwrap_or(message.offset));
            assert!(message.offset <= seen + 1, "{} to {} are lost", seen + 1, message.offset - 1);
            next = Some(message.offset + 1);
            if message.offset > seen {
                seen = message.offset;
                publishing.seen(seen);
                cursor = Some(message.cursor);
            }
        }
        drop(door);
        door = D::with(&server, "news", resume::<D>(cursor.as_ref()), &options).await;
    }
    let published = publishing.stop().await;
    while seen < published {
        let offset = door.event().await.message().offset;
        assert!(offset <= seen + 1);
        seen = seen.max(offset);
    }
}

/// Where a client says it was: an event stream's does, by `Last-Event-ID`.
fn resume<D: Door>(cursor: Option<&String>) -> Start {
    cursor.filter(|_| D::RESUMES).map_or(Start::Live, |cursor| Start::After(cursor.clone()))
}

/// One reader that goes from door to door, by cursor.
#[tokio::test]
async fn from_door_to_door() {
    async fn some<D: Door>(server: &TestServer, cursor: &mut String, next: &mut u64, count: u64) {
        let mut door = D::to(server, "news", Start::After(cursor.clone())).await;
        for _ in 0..count {
            match door.event().await {
                Event::Message(message) => {
                    assert_eq!(message.offset, *next);
                    *next += 1;
                    *cursor = message.cursor;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let server = server();
    let mut random = Random::new(5);
    let mut cursor = server.publish("news", 0.into()).await["cursor"].as_str().unwrap().to_owned();
    let publishing = keep_publishing(&server, "news");
    let mut next = 2;
    for _ in 0..40 {
        publishing.seen(next);
        let count = random.below(30);
        match random.below(5) {
            0 => some::<GraphqlWs>(&server, &mut cursor, &mut next, count).await,
            1 => some::<RawWs>(&server, &mut cursor, &mut next, count).await,
            2 => some::<Sse>(&server, &mut cursor, &mut next, count).await,
            3 => some::<GraphqlSse>(&server, &mut cursor, &mut next, count).await,
            _ => some::<crate::doors::RestPages>(&server, &mut cursor, &mut next, count).await,
        }
    }
    publishing.stop().await;
}
