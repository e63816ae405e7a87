//! Live subscriptions as their topic shows them, and how they are ended from outside.

use serde_json::{Value, json};

use crate::{
    doors::{Door, Event, GraphqlWs, Options, RawWs, Sse, Start, numbers},
    harness::{TestServer, eventually, is_time},
};

every_pushing_door! {
    a_subscription_is_ended,
}

async fn subscriptions(server: &TestServer, topic: &str) -> Vec<Value> {
    let mut told = server.get(&format!("/topics/{topic}/subscriptions")).await.expect(200);
    serde_json::from_value(told["subscriptions"].take()).unwrap()
}

async fn a_subscription_is_ended<D: Door>() {
    let server = TestServer::start();
    server.create("news").await;
    for (way, topic) in ["news", "news", "*"].into_iter().enumerate() {
        let mut door = D::with(&server, topic, Start::Live, &Options::default()).await;
        server.publish("news", 1.into()).await;
        assert_eq!(numbers(&door.messages(1).await), [1]);
        let listed = subscriptions(&server, "news").await;
        let [only] = &listed[..] else { panic!("{listed:?}") };
        let id = only["id"].as_str().unwrap();
        if way == 0 {
            let told = server.delete(&format!("/subscriptions/{id}")).await.expect(200);
            assert_eq!(told, json!({"status": "disconnected", "topic": topic, "id": id}));
        } else {
            let query = "mutation($id: ID!) { disconnect(subscription: $id) }";
            assert_eq!(server.graphql(query, json!({"id": id})).await["disconnect"], true);
        }
        assert_eq!(door.event().await, Event::Error("DISCONNECTED".to_owned()));
        // The connection stays, and subscribing again is welcome.
        if D::SOCKET.is_some() {
            door.assert_open().await;
            door.subscribe(topic, Start::Last(1), &Options::default()).await.unwrap();
            assert_eq!(door.messages(1).await.len(), 1);
        }
        door.close().await;
        server.wait_for_subscribers("news", 0).await;
        server.delete(&format!("/subscriptions/{id}")).await.expect_error(404, "NOT_FOUND");
    }
}

#[tokio::test]
async fn everything_is_shown() {
    let server = TestServer::start();
    server.create("news").await;
    let filter = json!({"field": "even", "eq": true});
    let filtered = Options { filter: Some(filter.clone()), ..Options::consumer("one", "EXPLICIT") };
    let mut door = RawWs::with(&server, "news", Start::Live, &filtered).await;
    let _stream = Sse::with(&server, "*", Start::Live, &Options::default()).await;
    let mut messages = Vec::new();
    for number in 0..4 {
        let told = server.publish("news", json!({"even": number % 4 == 0})).await;
        messages.push(told["cursor"].as_str().unwrap().to_owned());
    }
    door.messages(1).await;
    let listed = eventually("both have read everything", || async {
        let listed = subscriptions(&server, "news").await;
        listed.iter().all(|one| one["state"] == "CAUGHT_UP" && one["cursor"] == messages[3].as_str()).then_some(listed)
    })
    .await;
    let of = |door: &str| listed.iter().find(|one| one["door"] == door).unwrap_or_else(|| panic!("{listed:?}"));
    let ws = of("ws");
    assert_eq!((&ws["lag"], &ws["lag_ms"], &ws["missed"]), (&0.into(), &0.into(), &0.into()), "{ws}");
    assert_eq!(
        (&ws["consumer"], &ws["overflow"], &ws["address"]),
        (&"one".into(), &"HISTORY".into(), &"127.0.0.1".into())
    );
    assert_eq!((&ws["filter"], &ws["filter_hit_rate"]), (&filter, &0.25.into()), "{ws}");
    assert!(is_time(&ws["since"]) && ws.get("pattern").is_none() && ws.get("principal").is_none(), "{ws}");
    let rest = of("rest");
    assert_eq!((&rest["pattern"], rest.get("filter")), (&"*".into(), None), "{rest}");
    let query = "{ topic(name: \"news\") { subscriptions { id principal door address pattern cursor lag lagMs missed state since
        overflow consumer filter filterHitRate } } }";
    let told = server.graphql(query, Value::Null).await["topic"]["subscriptions"].take();
    let one = told.as_array().unwrap().iter().find(|one| one["door"] == "ws").unwrap();
    for (graphql, plain) in [
        ("id", "id"),
        ("cursor", "cursor"),
        ("lag", "lag"),
        ("lagMs", "lag_ms"),
        ("missed", "missed"),
        ("state", "state"),
        ("since", "since"),
        ("overflow", "overflow"),
        ("consumer", "consumer"),
        ("filter", "filter"),
        ("filterHitRate", "filter_hit_rate"),
        ("address", "address"),
    ] {
        assert_eq!(one[graphql], ws[plain], "{graphql}");
    }
    assert_eq!((&one["principal"], &one["pattern"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn the_furthest_behind_come_first() {
    let server = TestServer::with(|config| {
        config.broker.max_messages_per_topic = 20_000;
        config.broker.metrics_topics = 1;
    });
    server.create("news").await;
    let mut one = RawWs::to(&server, "news", Start::Live).await;
    let mut other = GraphqlWs::to(&server, "news", Start::Live).await;
    // Neither client reads, and then one does.
    server.publish_all("news", (0..12_000).map(|_| "x".repeat(1_000).into())).await;
    one.messages(12_000).await;
    let listed = eventually("one has caught up", || async {
        let listed = subscriptions(&server, "news").await;
        (listed.len() == 2 && listed[1]["state"] == "CAUGHT_UP").then_some(listed)
    })
    .await;
    assert_eq!((&listed[0]["door"], &listed[1]["door"]), (&"graphql".into(), &"ws".into()));
    assert!(listed[0]["lag"].as_u64().unwrap() > 0 && listed[1]["lag"] == 0);
    let metrics = server.get("/metrics").await.text;
    let lag = metrics.lines().find_map(|line| line.strip_prefix("pubsub_topic_lag_messages_max{topic=\"news\"} "));
    assert!(lag.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
    // Behind at first, and stalled when that has lasted.
    assert!(["BEHIND", "STALLED"].contains(&listed[0]["state"].as_str().unwrap()), "{}", listed[0]);
    eventually("a stalled subscription", || async {
        let told = server.get("/topics/news/subscriptions?limit=1").await.expect(200);
        assert_eq!(told["subscriptions"].as_array().unwrap().len(), 1);
        (told["subscriptions"][0]["state"] == "STALLED"
            && told["subscriptions"][0]["lag_ms"].as_u64().unwrap() >= 5_000)
            .then_some(())
    })
    .await;
    // Stalled is no end.
    other.messages(12_000).await;
    eventually("both have caught up", || async {
        subscriptions(&server, "news").await.iter().all(|one| one["state"] == "CAUGHT_UP").then_some(())
    })
    .await;
    for bad in ["0", "-1", "1001", "x"] {
        server.get(&format!("/topics/news/subscriptions?limit={bad}")).await.expect_error(400, "BAD_REQUEST");
    }
    server.get("/topics/none/subscriptions").await.expect_error(404, "TOPIC_NOT_FOUND");
    server.delete("/subscriptions/junk").await.expect_error(400, "BAD_REQUEST");
    server.delete("/subscriptions/0000000000000000").await.expect_error(404, "NOT_FOUND");
}
