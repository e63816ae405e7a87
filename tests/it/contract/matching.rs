//! Patterns, filters, and events of topics.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, GraphqlWs, Options, RawWs, Start, numbers},
    harness::{TestServer, assert_offset},
};

every_pushing_door! {
    patterns_match_whole_segments,
    patterns_find_later_topics,
    patterns_keep_the_order_of_each_topic,
    patterns_tell_gaps_for_each_topic,
    patterns_tell_every_gap_whatever_the_filter,
    patterns_replay,
    filters_by_key_and_fields,
    filtered_messages_are_not_missed,
    filters_of_every_kind,
}

every_shared_door! {
    a_hot_topic_does_not_starve_a_quiet_one,
    a_pattern_is_fair,
}

async fn patterns_match_whole_segments<D: Door>() {
    let server = TestServer::start();
    for (pattern, matching, others) in [
        ("orders.*", &["orders.eu", "orders.us"][..], &["orders", "orders.eu.1", "order.eu", "ordersx.eu"][..]),
        ("orders.>", &["orders.eu", "orders.eu.1", "orders.a.b.c"], &["orders", "orders2.eu"]),
        ("*.eu", &["orders.eu", "bills.eu"], &["eu", "orders.eu.1", "orders.us"]),
        ("*", &["orders"], &["orders.eu"]),
        (">", &["orders", "orders.eu", "x.y.z"], &[]),
        ("*.*.1", &["orders.eu.1"], &["orders.eu", "orders.eu.2"]),
        ("orders.*.>", &["orders.eu.1", "orders.eu.1.2"], &["orders.eu"]),
    ] {
        let mut door = D::to(&server, pattern, Start::Live).await;
        for name in others {
            server.publish(name, "no".into()).await;
        }
        for name in matching {
            server.publish(name, "yes".into()).await;
        }
        let mut seen: Vec<_> = door.messages(matching.len()).await.into_iter().map(|m| (m.topic, m.data)).collect();
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        let mut wanted: Vec<_> = matching.iter().map(|name| ((*name).to_owned(), Value::from("yes"))).collect();
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(seen, wanted, "{pattern}");
    }
}

async fn patterns_find_later_topics<D: Door>() {
    let server = TestServer::start();
    let mut door = D::to(&server, "orders.>", Start::Live).await;
    for number in 1..=50_u64 {
        let name = format!("orders.{number}.new");
        if number % 2 == 0 {
            server.create(&name).await;
        }
        server.publish(&name, number.into()).await;
        let message = door.event().await.message();
        assert_offset(message.offset, 1);
        assert_eq!((message.topic, message.data), (name, number.into()));
    }
    // One that goes and comes again is found again.
    server.delete("/topics/orders.1.new").await.expect(200);
    if D::TELLS_OF_TOPICS {
        assert_eq!(door.event().await, Event::Deleted("orders.1.new".to_owned()));
    }
    server.publish("orders.1.new", 1.into()).await;
    assert_offset(door.event().await.message().offset, 1);
}

async fn patterns_keep_the_order_of_each_topic<D: Door>() {
    let server = TestServer::start();
    let mut door = D::to(&server, "t.*", Start::Live).await;
    for round in 0..10_u64 {
        let items: Vec<_> = (0..20)
            .flat_map(|n| (1..=10).map(move |m| json!({"topic": format!("t.{n}"), "data": round * 10 + m})))
            .collect();
        server.post("/publish", &Value::from(items)).await.expect(200);
    }
    let mut last: HashMap<String, u64> = HashMap::new();
    for message in door.messages(2_000).await {
        let last = last.entry(message.topic).or_default();
        *last += 1;
        assert_offset(message.offset, *last);
        assert_eq!(message.data.as_u64(), Some(*last));
    }
    assert!(last.len() == 20 && last.values().all(|count| *count == 100));
}

async fn patterns_tell_gaps_for_each_topic<D: Door>() {
    const COUNT: u64 = 4_000;
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 20);
    let mut door = D::to(&server, "t.*", Start::Live).await;
    let big = "x".repeat(1_000);
    for round in 0..20 {
        for topic in ["t.a", "t.b"] {
            server.publish_all(topic, (1..=200).map(|n| json!([round * 200 + n, big]))).await;
        }
    }
    // Of each topic: how many messages were accounted for, and how many of those were missed.
    let mut streams: HashMap<String, (u64, u64)> = HashMap::new();
    while streams.len() < 2 || streams.values().any(|(known, _)| *known < COUNT) {
        let event = door.event().await;
        // A gap names its topic.
        let (gap, message) = match event {
            Event::Gap(gap) if gap.topic.is_none() => (Some(gap), Some(door.event().await.message())),
            Event::Gap(gap) => (Some(gap), None),
            Event::Message(message) => (None, Some(message)),
            other => panic!("{other:?}"),
        };
        let topic = gap.as_ref().and_then(|gap| gap.topic.clone());
        let topic = topic.or_else(|| message.as_ref().map(|message| message.topic.clone())).unwrap();
        let (known, missed) = streams.entry(topic).or_default();
        if let Some(gap) = gap {
            *known += gap.missed.unwrap();
            *missed += gap.missed.unwrap();
        }
        if let Some(message) = message {
            *known += 1;
            assert_eq!(message.data[0], *known, "in its order, and none unaccounted for");
        }
    }
    assert!(streams.values().all(|(_, missed)| *missed > 0), "{streams:?}");
}

/// A topic of which everything kept is filtered out has its gap, too: another topic's does not replace it.
async fn patterns_tell_every_gap_whatever_the_filter<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 5);
    for (topic, pass) in [("t.a", false), ("t.b", true), ("t.c", false), ("t.d", true)] {
        server.publish_all(topic, (0..20).map(|_| json!({"pass": pass}))).await;
    }
    let wanted = Options::filter(json!({"field": "pass", "eq": true}));
    let mut door = D::with(&server, "t.*", Start::Since("2001-01-01T00:00:00Z".to_owned()), &wanted).await;
    for topic in ["t.a", "t.b", "t.c", "t.d"] {
        server.publish(topic, json!({"pass": true, "last": true})).await;
    }
    let (mut told, mut unfinished) = (Vec::new(), 4);
    while unfinished > 0 {
        match door.event().await {
            Event::Gap(gap) => {
                assert_eq!(gap.reason, "EXPIRED");
                told.push(gap.topic.expect("a pattern's gap names its topic"));
            }
            Event::Message(message) => unfinished -= usize::from(message.data["last"] == true),
            other => panic!("{other:?}"),
        }
    }
    told.sort();
    told.dedup();
    assert_eq!(told, ["t.a", "t.b", "t.c", "t.d"]);
}

async fn patterns_replay<D: Door>() {
    let server = TestServer::start();
    for topic in ["t.a", "t.b", "u.a"] {
        server.publish_numbers(topic, 1..=5).await;
    }
    let mut door = D::to(&server, "t.*", Start::Last(2)).await;
    let mut seen: Vec<_> = door.messages(4).await.into_iter().map(|m| (m.topic, m.data.as_u64().unwrap())).collect();
    seen.sort();
    assert_eq!(seen, [("t.a".to_owned(), 4), ("t.a".to_owned(), 5), ("t.b".to_owned(), 4), ("t.b".to_owned(), 5)]);
    server.publish("t.a", 6.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [6]);
    let mut door = D::to(&server, "t.*", Start::Since("2001-01-01T00:00:00Z".to_owned())).await;
    assert_eq!(door.messages(11).await.len(), 11);
    // A position in one topic is none in many.
    let cursor = server.publish("t.a", 7.into()).await["cursor"].as_str().unwrap().to_owned();
    let refused = D::open(&server).await.subscribe("t.*", Start::After(cursor), &Options::default()).await;
    assert_eq!(refused.unwrap_err(), "BAD_REQUEST");
}

async fn filters_by_key_and_fields<D: Door>() {
    let server = TestServer::start();
    server.create("orders").await;
    let by_key = Options::filter(json!({"field": "$key", "eq": "eu"}));
    let by_field =
        Options::filter(json!({"and": [{"field": "order.total", "gt": 100}, {"not": {"field": "test", "eq": true}}]}));
    let mut keyed = D::with(&server, "orders", Start::Live, &by_key).await;
    let mut fielded = D::with(&server, "orders", Start::Live, &by_field).await;
    for (key, data) in [
        ("eu", json!({"n": 1, "order": {"total": 50}})),
        ("us", json!({"n": 2, "order": {"total": 150}})),
        ("eu", json!({"n": 3, "order": {"total": 100.5}, "test": true})),
        ("eu", json!({"n": 4, "order": {"total": 100.5}, "test": null})),
        ("", json!({"n": 5, "order": {"total": "200"}})),
        ("us", json!({"n": 6, "order": {"total": 1e3}})),
        ("eu", json!({"n": 7})),
    ] {
        let mut body = json!({"topic": "orders", "data": data});
        if !key.is_empty() {
            body["key"] = key.into();
        }
        server.post("/publish", &body).await.expect(200);
    }
    let seen = |messages: Vec<crate::doors::Message>| {
        messages.iter().map(|m| m.data["n"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(seen(keyed.messages(4).await), [1, 3, 4, 7]);
    assert_eq!(seen(fielded.messages(3).await), [2, 4, 6]);
}

async fn filtered_messages_are_not_missed<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 10);
    server.create("news").await;
    let cursor = server.publish("news", json!({"n": 0, "pass": true})).await["cursor"].as_str().unwrap().to_owned();
    let wanted = Options::filter(json!({"field": "pass", "eq": true}));
    let mut live = D::with(&server, "news", Start::Live, &wanted).await;
    for number in 1..=29 {
        server.publish("news", json!({"n": number, "pass": number % 10 == 0})).await;
        if number % 10 == 0 {
            assert_eq!(live.event().await.message().data["n"], number);
        }
    }
    // Offsets jump, and no gap is told: nothing that matches was missed. What is gone cannot be examined, and counts.
    let mut late = D::with(&server, "news", Start::After(cursor), &wanted).await;
    let gap = late.event().await.gap();
    assert_eq!((gap.from_offset, gap.to_offset, gap.missed, gap.reason.as_str()), (2, 20, Some(19), "EXPIRED"));
    assert_eq!(late.event().await.message().data["n"], 20);
    server.publish("news", json!({"n": 30, "pass": true})).await;
    assert_eq!(late.event().await.message().data["n"], 30);
}

async fn filters_of_every_kind<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let subject =
        json!({"text": "breaking news", "n": 5, "list": ["a", 2], "none": null, "deep": [{"x": 1}], "big": 1});
    for (filter, passes) in [
        (json!({"field": "text", "startsWith": "breaking"}), true),
        (json!({"field": "text", "startsWith": "news"}), false),
        (json!({"field": "text", "contains": "king n"}), true),
        (json!({"field": "list", "contains": 2}), true),
        (json!({"field": "list", "contains": "2"}), false),
        (json!({"field": "list.0", "eq": "a"}), true),
        (json!({"field": "deep.0.x", "in": [3, 2, 1]}), true),
        (json!({"field": "n", "in": ["5"]}), false),
        (json!({"field": "n", "gte": 5, "lte": 5}), true),
        (json!({"field": "n", "lt": 5}), false),
        (json!({"field": "n", "eq": 5.0}), true),
        (json!({"field": "n", "ne": 5}), false),
        (json!({"field": "none", "exists": true}), true),
        (json!({"field": "missing", "exists": false}), true),
        (json!({"field": "missing", "ne": 1}), true),
        (json!({"field": "missing", "eq": null}), false),
        (json!({"field": "none", "eq": null}), true),
        (json!({"field": "deep", "eq": [{"x": 1}]}), true),
        (json!({"or": [{"field": "n", "eq": 1}, {"field": "$key", "eq": "k"}]}), true),
        (json!({"not": {"or": [{"field": "n", "eq": 1}, {"field": "$key", "eq": "k"}]}}), false),
    ] {
        let mut door =
            D::with(&server, "news", Start::Live, &Options::filter(json!({"or": [filter, {"field": "end", "eq": 1}]})))
                .await;
        server.post("/publish", &json!({"topic": "news", "data": subject, "key": "k"})).await.expect(200);
        server.publish("news", json!({"end": 1})).await;
        let first = door.event().await.message();
        assert_eq!(first.key.is_some(), passes, "{filter}");
    }
}

/// Frames are counted, not time: when a message of the quiet topic is there, at most one batch of the hot one may still
/// come before it.
async fn a_hot_topic_does_not_starve_a_quiet_one<D: Door>() {
    const BATCH: u64 = 64;
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 100_000);
    server.create("hot").await;
    server.create("quiet").await;
    let mut door = D::to(&server, "hot", Start::Live).await;
    door.subscribe("quiet", Start::Live, &Options::default()).await.unwrap();
    let pad = "x".repeat(1_000);
    for round in 1..=3 {
        // The client reads nothing until the wire is full and the server waits for it.
        server.publish_all("hot", (0..8_000).map(|_| pad.as_str().into())).await;
        let query = "{ topic(name: \"hot\") { lastOffset subscriptions { lag } } }";
        let standing = stand_still(&server, query).await;
        server.publish("quiet", round.into()).await;
        let (mut hot_after, mut hot) = (0, 0);
        loop {
            let message = door.event().await.message();
            if message.topic == "quiet" {
                break;
            }
            hot = message.offset;
            hot_after = hot.saturating_sub(standing);
        }
        // A batch that was being read when the quiet message came, and one more.
        assert!(hot_after <= 2 * BATCH, "{hot_after} frames of the hot topic before the quiet one");
        door.messages((round * 8_000 - hot) as usize).await;
    }
}

/// Where the only subscription stands once it moves no more.
async fn stand_still(server: &TestServer, query: &str) -> u64 {
    let mut seen = (0, 0);
    crate::harness::eventually("a subscription that stands still", || async {
        let topic = server.graphql(query, Value::Null).await["topic"].take();
        topic["lastOffset"].as_u64().unwrap().checked_sub(topic["subscriptions"][0]["lag"].as_u64().unwrap())
    })
    .await;
    loop {
        let topic = server.graphql(query, Value::Null).await["topic"].take();
        let at = topic["lastOffset"].as_u64().unwrap() - topic["subscriptions"][0]["lag"].as_u64().unwrap();
        seen = if at == seen.0 { (at, seen.1 + 1) } else { (at, 0) };
        if seen.1 > 20 {
            return at;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Through a pattern, topics are delivered in the order in which their messages were published: so a quiet topic waits for
/// what was published before, and for nothing that comes later, however much that is.
async fn a_pattern_is_fair<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 10_000);
    for topic in ["t.quiet", "t.hot"] {
        server.create(topic).await;
    }
    server.publish_numbers("t.hot", 1..=100).await;
    server.publish_numbers("t.quiet", 1..=10).await;
    server.publish_numbers("t.hot", 101..=5_000).await;
    let mut door = D::to(&server, "t.*", Start::Last(10_000)).await;
    let seen = door.messages(5_010).await;
    let topics: Vec<_> = seen.iter().map(|message| message.topic.as_str()).collect();
    assert!(topics[..100].iter().all(|topic| *topic == "t.hot"));
    assert!(topics[100..110].iter().all(|topic| *topic == "t.quiet"));
    assert!(seen.is_sorted_by(|a, b| a.position() < b.position()), "their positions sort as text");
}

#[tokio::test]
async fn topic_events() {
    let server = TestServer::start();
    let mut all = GraphqlWs::open(&server).await;
    let mut some = GraphqlWs::open(&server).await;
    for (door, argument) in [(&mut all, ""), (&mut some, "(pattern: \"orders.*\")")] {
        let query = format!("subscription {{ topicEvents{argument} {{ kind name at topic {{ maxMessages }} }} }}");
        door.socket.send(json!({"id": "e", "type": "subscribe", "payload": {"query": query}}).to_string()).await;
        door.assert_open().await;
    }
    server.publish("news", 1.into()).await;
    server.create("orders.eu").await;
    server.graphql("mutation { updateTopic(name: \"orders.eu\", maxMessages: 5) { maxMessages } }", Value::Null).await;
    server.delete("/topics/orders.eu").await.expect(200);
    server.create("orders.eu.deep").await;
    server.delete("/topics/news").await.expect(200);
    let mut seen = Vec::new();
    for _ in 0..6 {
        let got = all.socket.json().await;
        let event = &got["payload"]["data"]["topicEvents"];
        assert!(crate::harness::is_time(&event["at"]), "{got}");
        seen.push(format!("{} {}", event["kind"].as_str().unwrap(), event["name"].as_str().unwrap()));
    }
    let wanted = [
        "CREATED news",
        "CREATED orders.eu",
        "UPDATED orders.eu",
        "DELETED orders.eu",
        "CREATED orders.eu.deep",
        "DELETED news",
    ];
    assert_eq!(seen, wanted);
    for kind in ["CREATED", "UPDATED", "DELETED"] {
        let got = some.socket.json().await;
        let event = &got["payload"]["data"]["topicEvents"];
        assert_eq!((&event["kind"], &event["name"]), (&kind.into(), &"orders.eu".into()));
    }
    some.assert_open().await;
}

/// Adopting an implicit topic, and the end of one that nobody uses, are events, too.
#[tokio::test]
async fn topic_events_of_implicit_topics() {
    let server = TestServer::start();
    let mut door = GraphqlWs::open(&server).await;
    let query = "subscription { topicEvents { kind name } }";
    door.socket.send(json!({"id": "e", "type": "subscribe", "payload": {"query": query}}).to_string()).await;
    door.assert_open().await;
    let mut ws = RawWs::to(&server, "fleeting", Start::Live).await;
    ws.unsubscribe("fleeting").await;
    for kind in ["CREATED", "DELETED"] {
        let got = door.socket.json().await;
        assert_eq!(got["payload"]["data"]["topicEvents"], json!({"kind": kind, "name": "fleeting"}));
    }
}
