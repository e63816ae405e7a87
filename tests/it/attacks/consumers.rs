//! Consumers of other principals: their names are no way to them.

use serde_json::{Value, json};

use super::{Restricted, code, rule};
use crate::{
    doors::{Door, Event, Options, RawWs, Start, numbers},
    harness::{Client, Response},
};

every_pushing_door! {
    the_same_name_is_another_consumer,
}

fn rules() -> String {
    let reads = "subscribe = [\"news\", \"news.>\"]\npublish = [\"news\"]";
    let boss = "subscribe = [\">\"]\nmanage = [\"news\", \"news.>\"]\nstats = true";
    [rule("alice", reads), rule("bob", reads), rule("boss", boss)].concat()
}

async fn the_same_name_is_another_consumer<D: Door>() {
    let server = Restricted::start(&rules());
    let (alice, bob) = (server.key("alice"), server.key("bob"));
    let options = Options::consumer("tab", "EXPLICIT");
    let mut door = D::with(&alice, "news", Start::Live, &options).await;
    server.admin.publish_numbers("news", 1..=3).await;
    assert_eq!(numbers(&door.messages(3).await), [1, 2, 3]);
    let mut own = D::with(&bob, "news", Start::Live, &options).await;
    server.admin.publish("news", 4.into()).await;
    // Neither takes over the other, and each has its own position.
    let last = own.messages(1).await.remove(0);
    assert_eq!(last.data, 4);
    assert_eq!(numbers(&door.messages(1).await), [4]);
    // Without an owner, bob's own is meant.
    bob.post("/topics/news/consumers/tab/ack", &json!({"cursor": last.cursor})).await.expect(200);
    drop(door);
    let mut door = D::with(&alice, "news", Start::Live, &options).await;
    assert_eq!(numbers(&door.messages(4).await), [1, 2, 3, 4]);
    bob.delete("/topics/news/consumers/tab").await.expect(200);
    server.admin.publish("news", 5.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [5]);
    drop(door);
    let mut door = D::with(&alice, "news", Start::Live, &options).await;
    assert_eq!(numbers(&door.messages(5).await), [1, 2, 3, 4, 5]);
}

/// Acknowledges or deletes by every interface.
async fn attempts(client: &Client, consumer: &str, owner: &str, cursor: &str) -> Vec<(String, String)> {
    let path = format!("/topics/news/consumers/{consumer}");
    let ask = |response: Response| (code(&response), response.text);
    let acknowledged = client.post(&format!("{path}/ack"), &json!({"cursor": cursor, "owner": owner})).await;
    let deleted = client.delete(&format!("{path}?owner={owner}")).await;
    let moved = client.post(&format!("{path}/seek"), &json!({"last": 3, "owner": owner})).await;
    let mut found = vec![ask(acknowledged), ask(deleted), ask(moved)];
    for mutation in ["acknowledge", "deleteConsumer", "seekConsumer"] {
        let more = match mutation {
            "acknowledge" => format!(", cursor: {cursor:?}"),
            "seekConsumer" => ", to: {last: 3}".to_owned(),
            _ => String::new(),
        };
        let query =
            format!("mutation {{ {mutation}(topic: \"news\", consumer: {consumer:?}, owner: {owner:?}{more}) }}");
        found.push(ask(client.graphql_raw(&query, json!({})).await));
    }
    let frame = json!({"type": "ack", "topic": "news", "consumer": consumer, "owner": owner, "cursor": cursor});
    let reply = RawWs::open(client).await.ask(frame).await;
    found.push((reply["error"]["code"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned(), reply.to_string()));
    found
}

#[tokio::test]
async fn nobody_moves_or_deletes_anothers_consumer() {
    let server = Restricted::start(&rules());
    let (alice, bob, boss) = (server.key("alice"), server.key("bob"), server.key("boss"));
    let options = Options::consumer("tab", "EXPLICIT");
    let mut door = RawWs::with(&alice, "news", Start::Live, &options).await;
    server.admin.publish_numbers("news", 1..=3).await;
    let seen = door.messages(3).await;
    let cursor = seen[2].cursor.as_str();
    // Existing or not, the answer is the same but for the time.
    let without_times = |text: &str| {
        let mut body: Value = serde_json::from_str(text).unwrap();
        for name in ["timestamp", "ts"] {
            body.as_object_mut().unwrap().remove(name);
        }
        body
    };
    let real = attempts(&bob, "tab", "alice", cursor).await;
    let guessed = attempts(&bob, "no-such", "nobody-at-all", cursor).await;
    for ((code, text), (_, guess)) in real.iter().zip(&guessed) {
        assert_eq!(code, "FORBIDDEN", "{text}");
        assert_eq!(without_times(text), without_times(guess));
    }
    // The administrator's consumers have no owner: an empty one is not the way to them.
    let mut admins = RawWs::with(&server.admin, "news", Start::Live, &Options::consumer("own", "EXPLICIT")).await;
    for (code, text) in attempts(&bob, "own", "", cursor).await {
        assert!(["FORBIDDEN", "NOT_FOUND", "BAD_REQUEST"].contains(&code.as_str()), "{text}");
    }
    for owner in ["api_key", "anonymous"] {
        for (code, text) in attempts(&bob, "own", owner, cursor).await {
            assert_eq!(code, "FORBIDDEN", "{text}");
        }
    }
    // Nor is a name with what stands between names and owners in stores.
    let tricky = "tab\u{1f}alice";
    let response = bob.post("/topics/news/consumers/tab%1Falice/ack", &json!({"cursor": cursor})).await;
    response.expect_error(400, "BAD_REQUEST");
    let refused = RawWs::open(&bob).await;
    let mut refused = refused;
    let reply = refused.ask(json!({"type": "subscribe", "topic": "news", "consumer": tricky})).await;
    assert_eq!(reply["error"]["code"], "BAD_REQUEST", "{reply}");
    // Nothing has happened: the live subscriptions go on, and the position is where it was.
    server.admin.publish("news", 4.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [4]);
    assert_eq!(numbers(&admins.messages(1).await), [4]);
    drop(door);
    let mut door = RawWs::with(&alice, "news", Start::Live, &options).await;
    assert_eq!(numbers(&door.messages(4).await), [1, 2, 3, 4]);
    // Lists show them to whoever may read statistics alone.
    bob.get("/topics/news/consumers").await.expect_error(403, "FORBIDDEN");
    let listed = boss.get("/topics/news/consumers").await.expect(200);
    let owners: Vec<_> = listed["consumers"].as_array().unwrap().iter().map(|it| it["owner"].clone()).collect();
    assert_eq!(owners.len(), 2, "{listed}");
    assert!(owners.contains(&"alice".into()), "{listed}");
    // Whoever manages the topic may.
    let moved = boss.post("/topics/news/consumers/tab/seek", &json!({"last": 2, "owner": "alice"})).await;
    assert_eq!(moved.expect(200)["cursor"], seen[1].cursor.as_str());
    assert_eq!(numbers(&door.messages(2).await), [3, 4]);
    let moved = boss.post("/topics/news/consumers/tab/ack", &json!({"cursor": cursor, "owner": "alice"})).await;
    moved.expect(200);
    boss.delete("/topics/news/consumers/tab?owner=alice").await.expect(200);
}

/// A subscription is ended by whoever it belongs to and by whoever manages what it reads. For others it does not exist,
/// unless they may read the same: then they may see that it does.
#[tokio::test]
async fn nobody_ends_anothers_subscription() {
    let server = Restricted::start(&(rules() + &rule("carol", "subscribe = [\"other\"]\nmanage = [\"other\"]")));
    let (alice, bob, carol, boss) = (server.key("alice"), server.key("bob"), server.key("carol"), server.key("boss"));
    server.admin.create("news").await;
    let path = |listed: &Value| {
        let of = |one: &&Value| one["principal"] == "alice";
        let one = listed["subscriptions"].as_array().unwrap().iter().find(of).unwrap_or_else(|| panic!("{listed}"));
        format!("/subscriptions/{}", one["id"].as_str().unwrap())
    };
    for source in ["news", "news.>"] {
        let topic = source.replace('>', "today");
        server.admin.publish(&topic, 0.into()).await;
        let mut door = RawWs::with(&alice, source, Start::Live, &Options::default()).await;
        let listed = boss.get(&format!("/topics/{topic}/subscriptions")).await.expect(200);
        bob.delete(&path(&listed)).await.expect_error(403, "FORBIDDEN");
        carol.delete(&path(&listed)).await.expect_error(404, "NOT_FOUND");
        server.admin.publish(&topic, 1.into()).await;
        assert_eq!(numbers(&door.messages(1).await), [1]);
        boss.delete(&path(&listed)).await.expect(200);
        assert_eq!(door.event().await, Event::Error("DISCONNECTED".to_owned()));
        let mut again = RawWs::with(&alice, source, Start::Live, &Options::default()).await;
        let listed = boss.get(&format!("/topics/{topic}/subscriptions")).await.expect(200);
        alice.delete(&path(&listed)).await.expect(200);
        assert_eq!(again.event().await, Event::Error("DISCONNECTED".to_owned()));
    }
}
