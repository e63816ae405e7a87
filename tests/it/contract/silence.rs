//! Topics with `expect_every`, in which nothing is published for longer.

use serde_json::{Value, json};

use crate::{
    doors::Door,
    doors::GraphqlWs,
    harness::{TestServer, eventually},
};

async fn silent_topics(server: &TestServer) -> u64 {
    let text = server.get("/metrics").await.text;
    text.lines().find_map(|line| line.strip_prefix("pubsub_silent_topics ")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_silent_topic_says_so() {
    let server = TestServer::start();
    let mut door = GraphqlWs::open(&server).await;
    let query = json!({"query": "subscription { topicEvents { kind name topic { silent expectEvery } } }"});
    door.socket.send(json!({"id": "e", "type": "subscribe", "payload": query}).to_string()).await;
    door.assert_open().await;
    for topic in ["rest", "graphql"] {
        if topic == "rest" {
            server.post("/topics", &json!({"name": "rest", "expect_every": "2s"})).await.expect(201);
        } else {
            let query = "mutation { createTopic(name: \"graphql\", expectEvery: \"2s\") { name } }";
            server.graphql(query, Value::Null).await;
        }
        let mut kinds = Vec::new();
        // Silent from the start, then not, and silent again.
        for wanted in ["CREATED", "SILENT", "RESUMED", "SILENT", "RESUMED"] {
            if wanted == "RESUMED" {
                assert_eq!(server.get(&format!("/topics/{topic}")).await.expect(200)["silent"], true);
                eventually("the metric", || async { (silent_topics(&server).await >= 1).then_some(()) }).await;
                if kinds.len() == 4 {
                    // It may also be told to expect nothing.
                    let request = server.request(reqwest::Method::PATCH, &format!("/topics/{topic}"));
                    server.send(request.json(&json!({"expect_every": "0s"}))).await.expect(200);
                } else {
                    server.publish(topic, 1.into()).await;
                }
            }
            loop {
                let frame = door.socket.json().await;
                let event = &frame["payload"]["data"]["topicEvents"];
                assert!(event.is_object(), "{frame}");
                if event["name"] == topic && event["kind"] != "UPDATED" {
                    assert_eq!(event["kind"], wanted, "{frame}");
                    assert_eq!(event["topic"]["silent"], wanted == "SILENT", "{frame}");
                    kinds.push(wanted);
                    break;
                }
            }
        }
        let topic = server.get(&format!("/topics/{topic}")).await.expect(200);
        assert!(topic.get("expect_every").is_none() && topic.get("silent").is_none(), "{topic}");
    }
    eventually("no silent topic", || async { (silent_topics(&server).await == 0).then_some(()) }).await;
}

#[tokio::test]
async fn bad_durations() {
    let server = TestServer::start();
    for bad in ["", "5", "1ms", "-1s", "one hour", "1000d"] {
        let body = json!({"name": "news", "expect_every": bad});
        server.post("/topics", &body).await.expect_error(400, "BAD_REQUEST");
        let query = "mutation($every: String) { createTopic(name: \"news\", expectEvery: $every) { name } }";
        assert_eq!(server.graphql_error(query, json!({"every": bad})).await["code"], "BAD_REQUEST", "{bad}");
    }
    let told = server.post("/topics", &json!({"name": "news", "expect_every": "120s"})).await;
    told.expect(201);
    assert_eq!(server.get("/topics/news").await.expect(200)["expect_every"], "2m");
    let told = server.graphql("{ topic(name: \"news\") { expectEvery silent } }", Value::Null).await;
    assert_eq!(told["topic"], json!({"expectEvery": "2m", "silent": false}));
}
