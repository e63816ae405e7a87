//! Positions: one cursor text for all doors, times, incarnations of a topic, and the gaps where history is gone.

use serde_json::json;

use crate::{
    doors::{
        Door, Event, GraphqlSingle, GraphqlSse, GraphqlWs, LegacyWs, Message, Multipart, Options, RawWs, RestPages,
        Sse, Start, assert_tiles, cursor_at, numbers, sse::EventStream,
    },
    harness::{TestServer, assert_offset, eventually},
};

every_pushing_door! {
    a_gap_is_told_before_the_end,
}

every_door! {
    after_a_cursor,
    after_the_newest,
    since_a_time,
    since_before_the_history,
    expired,
    another_incarnation,
    another_incarnation_that_is_still_whole,
    another_incarnation_that_lost_history,
    starts_exclude_each_other_and_are_checked,
    a_restart_is_another_incarnation,
    a_cursor_ahead_of_the_topic,
}

async fn after_a_cursor<D: Door>() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=10).await;
    let seen = D::to(&server, "news", Start::Last(10)).await.messages(10).await;
    let mut door = D::to(&server, "news", Start::After(seen[3].cursor.clone())).await;
    assert_eq!(door.messages(6).await, seen[4..]);
}

async fn after_the_newest<D: Door>() {
    let server = TestServer::start();
    let cursor = server.publish("news", 1.into()).await["cursor"].as_str().unwrap().to_owned();
    let mut door = D::to(&server, "news", Start::After(cursor)).await;
    server.publish("news", 2.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [2]);
}

async fn since_a_time<D: Door>() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=5).await;
    let before = server.get("/topics/news").await.expect(200)["last_message_at"].as_str().unwrap().to_owned();
    // The clock has to move on, or the times are the same.
    eventually("later message", || async {
        let told = server.publish("news", 6.into()).await;
        let at = server.get("/topics/news").await.expect(200)["last_message_at"].as_str().unwrap().to_owned();
        (at > before && told["offset"].as_u64() > Some(5)).then_some(())
    })
    .await;
    let page = server.get("/topics/news/messages?limit=1000&last=1000").await.expect(200);
    let times: Vec<_> = page["messages"].as_array().unwrap().iter().map(|m| m["ts"].as_str().unwrap()).collect();
    let middle = *times.iter().find(|at| **at > before.as_str()).unwrap();
    let first = times.iter().position(|at| *at == middle).unwrap();
    let mut door = D::to(&server, "news", Start::Since(middle.to_owned())).await;
    assert_eq!(door.event().await.message().offset, first as u64 + 1);
}

async fn since_before_the_history<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 5);
    server.publish_numbers("news", 1..=12).await;
    let mut door = D::to(&server, "news", Start::Since("2001-01-01T00:00:00Z".to_owned())).await;
    let events = door.events_to(12).await;
    assert_eq!(assert_tiles(&events, 1, 12), 7);
    assert_eq!(events[0].clone().gap().reason, "EXPIRED");
    // Time zones and fractions are understood; the future is nothing yet.
    let mut door = D::to(&server, "news", Start::Since("2999-01-01T00:00:00.5+02:00".to_owned())).await;
    server.publish("news", 13.into()).await;
    if D::PUSHES {
        assert_eq!(numbers(&door.messages(1).await), [13]);
    }
}

async fn expired<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 5);
    server.publish_numbers("news", 1..=3).await;
    let seen = D::to(&server, "news", Start::Last(3)).await.messages(3).await;
    let mut edge = D::to(&server, "news", Start::After(seen[2].cursor.clone())).await;
    server.publish_numbers("news", 4..=8).await;
    // The next message is the oldest one kept: nothing is missed.
    assert_eq!(numbers(&edge.messages(5).await), [4, 5, 6, 7, 8]);
    let mut door = D::to(&server, "news", Start::After(seen[2].cursor.clone())).await;
    assert_eq!(numbers(&door.messages(5).await), [4, 5, 6, 7, 8]);
    server.publish_numbers("news", 9..=20).await;
    let mut door = D::to(&server, "news", Start::After(seen[1].cursor.clone())).await;
    let gap = door.event().await.gap();
    assert_eq!((gap.missed, gap.from_offset, gap.to_offset, gap.reason.as_str()), (Some(13), 3, 15, "EXPIRED"));
    assert_eq!(numbers(&door.messages(5).await), [16, 17, 18, 19, 20]);
    // Told once.
    server.publish("news", 21.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [21]);
}

/// A cursor into the topic's first incarnation, after five messages of it.
async fn old_cursor(server: &TestServer) -> String {
    server.publish_numbers("news", 1..=5).await;
    let cursor = server.publish("news", 6.into()).await["cursor"].as_str().unwrap().to_owned();
    server.delete("/topics/news").await.expect(200);
    cursor
}

async fn another_incarnation<D: Door>() {
    let server = TestServer::start();
    let cursor = old_cursor(&server).await;
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::After(cursor)).await;
    // Without a message yet, the subscriber learns it at once.
    let gap = door.event().await.gap();
    assert_eq!((gap.reason.as_str(), gap.missed), ("NEW_EPOCH", Some(0)));
    server.publish("news", 1.into()).await;
    let message = door.event().await.message();
    assert_offset(message.offset, 1);
    assert_eq!(message.data, 1);
}

async fn another_incarnation_that_is_still_whole<D: Door>() {
    let server = TestServer::start();
    let cursor = old_cursor(&server).await;
    server.publish_numbers("news", 1..=3).await;
    let mut door = D::to(&server, "news", Start::After(cursor)).await;
    let gap = door.event().await.gap();
    assert_eq!((gap.reason.as_str(), gap.missed), ("NEW_EPOCH", Some(0)));
    assert_eq!(numbers(&door.messages(3).await), [1, 2, 3]);
}

async fn another_incarnation_that_lost_history<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 10);
    let cursor = old_cursor(&server).await;
    server.publish_numbers("news", 1..=14).await;
    let mut door = D::to(&server, "news", Start::After(cursor)).await;
    let gap = door.event().await.gap();
    assert_eq!((gap.reason.as_str(), gap.missed), ("NEW_EPOCH", Some(4)));
    assert_eq!(numbers(&door.messages(10).await), (5..=14).collect::<Vec<_>>());
}

async fn starts_exclude_each_other_and_are_checked<D: Door>() {
    let server = TestServer::start();
    let cursor = server.publish("news", 1.into()).await["cursor"].as_str().unwrap().to_owned();
    for bad in ["", "x", "0", &cursor[1..], &cursor.to_uppercase(), &format!("{cursor}0000000000000000000"), "🦀-1"] {
        if bad == cursor {
            continue;
        }
        let told = D::open(&server).await.subscribe("news", Start::After(bad.to_owned()), &Options::default()).await;
        // In a parameter of the address and in `Last-Event-ID`, nothing is no position.
        let wanted = if bad.is_empty() && D::NAME_IN_PATH { Ok(()) } else { Err("BAD_REQUEST".to_owned()) };
        assert_eq!(told, wanted, "{bad:?}");
    }
    for bad in ["yesterday", "2026-13-01T00:00:00Z", "12"] {
        let refused = D::open(&server).await.subscribe("news", Start::Since(bad.to_owned()), &Options::default()).await;
        assert_eq!(refused.unwrap_err(), "BAD_REQUEST", "{bad:?}");
    }
    for query in [format!("last=1&after={cursor}"), "last=1&since=2026-01-01T00:00:00Z".to_owned()] {
        server.get(&format!("/topics/news/messages?{query}")).await.expect_error(400, "BAD_REQUEST");
    }
    let mut ws = RawWs::open(&server).await;
    let frame = json!({"type": "subscribe", "topic": "news", "last_n": 1, "after": cursor});
    assert_eq!(ws.ask(frame).await["error"]["code"], "BAD_REQUEST");
}

/// Whatever is to be told of a gap is told at the latest with the stream's last word.
async fn a_gap_is_told_before_the_end<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 5);
    let cursor = server.publish("news", 0.into()).await["cursor"].as_str().unwrap().to_owned();
    server.publish_numbers("news", 1..=20).await;
    let nothing = Options::filter(json!({"field": "no.such.field", "exists": true}));
    let mut door = D::open(&server).await;
    door.subscribe("news", Start::After(cursor), &nothing).await.unwrap();
    server.delete("/topics/news").await.expect(200);
    let gap = door.event().await.gap();
    assert_eq!((gap.missed, gap.from_offset, gap.to_offset, gap.reason.as_str()), (Some(15), 2, 16, "EXPIRED"));
    assert_eq!(door.event().await, Event::Deleted("news".to_owned()));
}

/// `EventSource` resumes GraphQL's streams by the header, too; one that cannot be read is not ignored.
#[tokio::test]
async fn graphql_streams_resume_by_header() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=10).await;
    let seen = RawWs::to(&server, "news", Start::Last(10)).await.messages(10).await;
    let ask = |id: String| {
        let body = json!({"query": "subscription { messages(topic: \"news\", last: 10) { offset } }"}).to_string();
        let request = format!(
            "POST /graphql HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n\
             Last-Event-ID: {id}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let server = &server;
        async move { EventStream::open(server, &request).await }
    };
    let Ok(mut stream) = ask(seen[6].cursor.clone()).await else { panic!("refused") };
    let sent = stream.next().await.unwrap();
    assert_eq!(sent.id.as_ref(), Some(&seen[7].cursor));
    let Err((_, body)) = ask("junk".to_owned()).await else {
        panic!("junk is taken for a position: what was missed is lost silently")
    };
    assert!(body.contains("BAD_REQUEST"), "{body}");
}

/// A cursor from every door works at every door.
#[tokio::test]
async fn cursors_are_the_same_everywhere() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=10).await;
    async fn read<D: Door>(server: &TestServer, start: Start, count: usize) -> Vec<Message> {
        D::to(server, "news", start).await.messages(count).await
    }
    let all = || Start::Last(10);
    let everyones = [
        read::<GraphqlWs>(&server, all(), 10).await,
        read::<RawWs>(&server, all(), 10).await,
        read::<Sse>(&server, all(), 10).await,
        read::<GraphqlSse>(&server, all(), 10).await,
        read::<RestPages>(&server, all(), 10).await,
        read::<LegacyWs>(&server, all(), 10).await,
        read::<GraphqlSingle>(&server, all(), 10).await,
        read::<Multipart>(&server, all(), 10).await,
    ];
    for seen in &everyones {
        assert_eq!(*seen, everyones[0]);
        let after = |index: usize| Start::After(seen[index].cursor.clone());
        assert_eq!(read::<GraphqlWs>(&server, after(0), 9).await, seen[1..]);
        assert_eq!(read::<RawWs>(&server, after(2), 7).await, seen[3..]);
        assert_eq!(read::<Sse>(&server, after(4), 5).await, seen[5..]);
        assert_eq!(read::<GraphqlSse>(&server, after(6), 3).await, seen[7..]);
        assert_eq!(read::<RestPages>(&server, after(8), 1).await, seen[9..]);
        // The query form that `EventSource` cannot replace by a header on its first connection.
        let page = server.get(&format!("/topics/news/messages?after={}", seen[4].cursor)).await.expect(200);
        assert_eq!(page["messages"].as_array().unwrap().len(), 5);
        let query = "query($after: Cursor) { topic(name: \"news\") { messages(first: 100, after: $after) { nodes { offset } } } }";
        let found = server.graphql(query, json!({"after": seen[7].cursor})).await;
        assert_eq!(found["topic"]["messages"]["nodes"], json!([{"offset": 9}, {"offset": 10}]));
    }
}

/// Killed and started again, a server without a durable engine says so.
async fn a_restart_is_another_incarnation<D: Door>() {
    let before = TestServer::start();
    let cursor = before.publish("news", 1.into()).await["cursor"].as_str().unwrap().to_owned();
    drop(before);
    let server = TestServer::start();
    server.publish_numbers("news", 1..=3).await;
    let mut door = D::to(&server, "news", Start::After(cursor)).await;
    assert_eq!(door.event().await.gap().reason, "NEW_EPOCH");
    assert_eq!(numbers(&door.messages(3).await), [1, 2, 3]);
}

/// A cursor ahead of its topic is refused: taken as it is, it would hide the messages up to its offset.
async fn a_cursor_ahead_of_the_topic<D: Door>() {
    let server = TestServer::start();
    let cursor = server.publish("news", 1.into()).await["cursor"].as_str().unwrap().to_owned();
    for offset in [2, 1 << 40] {
        let start = Start::After(cursor_at(&cursor, offset));
        let told = D::open(&server).await.subscribe("news", start, &Options::default()).await;
        assert_eq!(told, Err("BAD_REQUEST".to_owned()), "{offset}");
    }
}
