//! Live delivery, replay, deletion: what every subscriber sees at every door.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, GraphqlWs, Options, RawWs, Start, assert_tiles, numbers},
    harness::{TestServer, keep_publishing},
};

every_door! {
    live_in_order,
    live_from_every_publisher,
    history_then_live,
    more_history_than_there_is,
    replay_meets_live_without_a_seam,
    deleted_while_subscribed,
    deletion_comes_after_what_was_published,
    unsubscribed,
    two_subscribers,
    any_json_survives,
    big_messages,
    names_in_any_script,
}

every_shared_door! {
    topics_share_a_connection,
    subscribing_again_after_unsubscribing,
}

async fn live_in_order<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    for number in 1..=50 {
        server.publish("news", number.into()).await;
    }
    server.publish_numbers("news", 51..=300).await;
    let messages = door.messages(300).await;
    assert_eq!(numbers(&messages), (1..=300).collect::<Vec<_>>());
    assert!(messages.iter().all(|message| message.topic == "news" && message.key.is_none()));
    assert!(messages.iter().zip(1..).all(|(message, offset)| message.offset == offset));
}

/// Whoever publishes, id and position in the response are those that are delivered.
async fn live_from_every_publisher<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    let mut ws = RawWs::open(&server).await;
    for round in 0..20 {
        let id = format!("id-{round}");
        let data = json!({"round": round, "text": "ü\"\\\n"});
        let (id_told, offset, cursor) = match round % 3 {
            0 => {
                let body = json!({"topic": "news", "data": data, "id": id, "key": "k"});
                let told = server.post("/publish", &body).await.expect(200);
                (told["id"].clone(), told["offset"].clone(), told["cursor"].clone())
            }
            1 => {
                let query = format!(
                    "mutation($data: JSON!) {{ publish(topic: \"news\", data: $data, messageId: {id:?}, key: \"k\") \
                     {{ id: messageId topic offset cursor duplicate }} }}"
                );
                let told = server.graphql(&query, json!({"data": data})).await["publish"].clone();
                assert_eq!((&told["topic"], &told["duplicate"]), (&"news".into(), &false.into()));
                (told["id"].clone(), told["offset"].clone(), told["cursor"].clone())
            }
            _ => {
                let frame = json!({"type": "publish", "topic": "news", "data": data, "id": id, "key": "k"});
                let told = ws.ask(frame).await;
                (told["id"].clone(), told["offset"].clone(), told["cursor"].clone())
            }
        };
        let message = door.event().await.message();
        assert_eq!(id_told, id);
        assert_eq!(Value::from(message.id), id_told);
        assert_eq!(Value::from(message.offset), offset);
        assert_eq!(Value::from(message.cursor), cursor);
        assert_eq!((message.data, message.key.as_deref()), (data, Some("k")));
    }
}

async fn history_then_live<D: Door>() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=20).await;
    let mut door = D::to(&server, "news", Start::Last(5)).await;
    assert_eq!(numbers(&door.messages(5).await), [16, 17, 18, 19, 20]);
    server.publish_numbers("news", 21..=22).await;
    assert_eq!(numbers(&door.messages(2).await), [21, 22]);
}

async fn more_history_than_there_is<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 10);
    server.publish_numbers("news", 1..=25).await;
    let mut door = D::to(&server, "news", Start::Last(1_000)).await;
    // Asking for the last many is no position: nothing was missed.
    assert_eq!(numbers(&door.messages(10).await), (16..=25).collect::<Vec<_>>());
}

/// Subscribing again and again while messages come in: at the seam of history and live nothing is lost or doubled.
async fn replay_meets_live_without_a_seam<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 1_000_000);
    server.publish_numbers("news", 1..=10).await;
    let publishing = keep_publishing(&server, "news");
    for _ in 0..10 {
        let mut door = D::to(&server, "news", Start::Last(7)).await;
        let first = door.event().await.message().offset;
        publishing.seen(first);
        let events = door.events_to(first + 60).await;
        assert_eq!(assert_tiles(&events, first + 1, first + 60), 0);
    }
    publishing.stop().await;
}

async fn deleted_while_subscribed<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    server.delete("/topics/news").await.expect(200);
    assert_eq!(door.event().await, Event::Deleted("news".to_owned()));
    door.assert_open().await;
    // The same connection goes on with the topic's next incarnation.
    server.create("news").await;
    door.subscribe("news", Start::Live, &Options::default()).await.unwrap();
    server.publish("news", 1.into()).await;
    assert_eq!(door.event().await.message().data, 1);
}

/// A deleted topic's history goes at once for those who ask; for a subscriber it is read to its end.
async fn deletion_comes_after_what_was_published<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    server.publish_numbers("news", 1..=500).await;
    if D::PUSHES {
        server.delete("/topics/news").await.expect(200);
        assert_eq!(numbers(&door.messages(500).await), (1..=500).collect::<Vec<_>>());
    } else {
        door.messages(500).await;
        server.delete("/topics/news").await.expect(200);
    }
    assert_eq!(door.event().await, Event::Deleted("news".to_owned()));
}

async fn unsubscribed<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    server.create("other").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    server.publish("news", 1.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [1]);
    door.unsubscribe("news").await;
    if D::PUSHES {
        server.wait_for_subscribers("news", 0).await;
    }
    server.publish("news", 2.into()).await;
    door.subscribe("other", Start::Live, &Options::default()).await.unwrap();
    server.publish("news", 3.into()).await;
    server.publish("other", 4.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [4]);
}

async fn two_subscribers<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut one = D::to(&server, "news", Start::Live).await;
    server.publish_numbers("news", 1..=10).await;
    let mut two = D::to(&server, "news", Start::Live).await;
    if D::PUSHES {
        server.wait_for_subscribers("news", 2).await;
    }
    server.publish_numbers("news", 11..=20).await;
    let (seen_by_one, seen_by_two) = (one.messages(20).await, two.messages(10).await);
    assert_eq!(numbers(&seen_by_one), (1..=20).collect::<Vec<_>>());
    assert_eq!(seen_by_one[10..], seen_by_two[..]);
    two.close().await;
    server.publish("news", 21.into()).await;
    assert_eq!(numbers(&one.messages(1).await), [21]);
}

/// JSON text as a client may send it: numbers beyond every type, strings of any character, nested.
fn any_json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        Just("0".to_owned()),
        Just("-0".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("12345678901234567890.5e400".to_owned()),
        Just("1e999".to_owned()),
        Just("-1.50E-7".to_owned()),
        Just("0.1000000000000000000000000000001".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("JSON has no such number", |n| n.is_finite()).prop_map(|n| json!(n).to_string()),
    ];
    let text = any::<String>().prop_map(|text| Value::from(text).to_string());
    let leaf = prop_oneof![Just("null".to_owned()), Just("true".to_owned()), Just("false".to_owned()), number, text];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(|fields| {
                let fields: Vec<_> =
                    fields.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

/// 1,500 values arrive as they were sent, to the byte, whoever published them.
async fn any_json_survives<D: Door>() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 2_000);
    server.create("news").await;
    let mut runner = TestRunner::deterministic();
    let strategy = any_json();
    let texts: Vec<String> = (0..1_500).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let mut door = D::to(&server, "news", Start::Live).await;
    for (index, batch) in texts.chunks(100).enumerate() {
        match index % 3 {
            0 => {
                let items: Vec<_> = batch.iter().map(|text| format!(r#"{{"topic":"news","data":{text}}}"#)).collect();
                let response = server.post_text("/publish", format!("[{}]", items.join(","))).await;
                assert_eq!(response.status, 200, "{response:?}");
            }
            1 => {
                for text in batch {
                    let query = "mutation($data: JSON!) { publish(topic: \"news\", data: $data) { offset } }";
                    // `null` fits no variable of type `JSON!`; it has a test of its own.
                    if text == "null" {
                        server.publish("news", Value::Null).await;
                        continue;
                    }
                    let body = format!(r#"{{"query":{},"variables":{{"data":{text}}}}}"#, Value::from(query));
                    let response = server.post_text("/graphql", body).await;
                    assert!(!response.text.contains("\"errors\""), "{text}: {response:?}");
                }
            }
            _ => {
                let mut ws = RawWs::open(&server).await;
                for text in batch {
                    ws.socket.feed(format!(r#"{{"type":"publish","topic":"news","data":{text}}}"#)).await;
                }
                ws.socket.flush().await;
                for _ in batch {
                    assert_eq!(ws.socket.json().await["type"], "ack");
                }
            }
        }
        for text in batch {
            assert_eq!(door.event().await.message().text, *text);
        }
    }
}

async fn big_messages<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    // At the bound itself: 1 MiB with its quotes.
    let texts: Vec<_> = [1_000, 70_000, (1 << 20) - 2].map(|size| "x".repeat(size)).into();
    for text in &texts {
        server.publish("news", text.as_str().into()).await;
        assert_eq!(door.event().await.message().data, **text);
    }
}

async fn names_in_any_script<D: Door>() {
    let server = TestServer::start();
    for name in ["новости", "a b", "100%", "q?x=1&y#z", "a/b", "\"quoted\\\"", "ニュース.東京", &"x".repeat(255)]
    {
        server.create(name).await;
        let mut door = D::to(&server, name, Start::Live).await;
        server.publish(name, 1.into()).await;
        assert_eq!(door.event().await.message().topic, name);
    }
}

async fn topics_share_a_connection<D: Door>() {
    assert!(D::SHARES);
    let server = TestServer::start();
    let mut door = D::open(&server).await;
    let topics: Vec<_> = (0..100).map(|number| format!("t{number}")).collect();
    for topic in &topics {
        door.subscribe(topic, Start::Live, &Options::default()).await.unwrap();
    }
    for (topic, number) in topics.iter().zip(0_u64..) {
        server.publish(topic, number.into()).await;
    }
    let mut seen: Vec<_> = door.messages(100).await.into_iter().map(|m| (m.data.as_u64().unwrap(), m.topic)).collect();
    seen.sort();
    assert!(seen.iter().zip(0..).all(|((data, topic), number)| *data == number && *topic == format!("t{number}")));
}

async fn subscribing_again_after_unsubscribing<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    let mut door = D::to(&server, "news", Start::Live).await;
    for number in 1..=10 {
        server.publish("news", number.into()).await;
        assert_eq!(numbers(&door.messages(1).await), [number]);
        door.unsubscribe("news").await;
        door.subscribe("news", Start::Live, &Options::default()).await.unwrap();
    }
    let info = server.get("/topics/news").await.expect(200);
    assert_eq!(info["subscribers"], 1);
}

/// A GraphQL client may select nothing of the message but still learns of it.
#[tokio::test]
async fn a_field_under_another_name() {
    let server = TestServer::start();
    server.create("news").await;
    let mut door = GraphqlWs::open(&server).await;
    let query = "subscription { m: messages(topic: \"news\") { __typename d: data, at: publishedAt } }";
    let frame = json!({"id": "x", "type": "subscribe", "payload": {"query": query}});
    door.socket.send(frame.to_string()).await;
    door.assert_open().await;
    server.publish("news", json!([1, 2])).await;
    let got = door.socket.json().await;
    let message = &got["payload"]["data"]["m"];
    assert_eq!((&got["id"], &got["type"]), (&"x".into(), &"next".into()));
    assert_eq!((&message["__typename"], &message["d"]), (&"Message".into(), &json!([1, 2])));
    assert!(crate::harness::is_time(&message["at"]), "{got}");
}

/// `null` is any JSON value, too.
#[tokio::test]
async fn null_is_a_value() {
    let server = TestServer::start();
    let mut door = RawWs::to(&server, "news", Start::Live).await;
    server.publish("news", Value::Null).await;
    assert_eq!(door.event().await.message().text, "null");
    door.ask(json!({"type": "publish", "topic": "news", "data": null})).await;
    assert_eq!(door.event().await.message().text, "null");
    server.graphql("mutation { publish(topic: \"news\", data: null) { offset } }", Value::Null).await;
    assert_eq!(door.event().await.message().text, "null");
    let query = "{ topic(name: \"news\") { messages(first: 10) { nodes { data } } } }";
    let told = server.graphql(query, Value::Null).await;
    assert_eq!(told["topic"]["messages"]["nodes"], json!([{"data": null}, {"data": null}, {"data": null}]));
}
