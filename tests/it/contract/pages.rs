//! Pages of history against a model: nothing is skipped between two pages, nothing comes twice, and what they say about
//! themselves is true.

use serde_json::{Value, json};

use crate::{
    doors::{Door, GraphqlSse, GraphqlWs, RawWs, Sse, Start, cursor_at},
    harness::{TestServer, offsets_are_dense},
};

/// A topic that keeps the last `kept` of so many messages, and the cursor of every one that there was.
async fn filled(server: &TestServer, topic: &str, count: u64, kept: u64) -> Vec<String> {
    server.post("/topics", &json!({"name": topic, "max_messages": kept})).await.expect(201);
    let mut cursors = Vec::new();
    for number in 1..=count {
        cursors.push(server.publish(topic, number.into()).await["cursor"].as_str().unwrap().to_owned());
    }
    cursors
}

fn numbers(messages: &Value) -> Vec<u64> {
    messages.as_array().unwrap().iter().map(|message| message["data"].as_u64().unwrap()).collect()
}

async fn rest_page(server: &TestServer, topic: &str, query: &str) -> (Vec<u64>, Value, String) {
    let mut page = server.get(&format!("/topics/{topic}/messages?{query}")).await.expect(200);
    let next = page["next"].as_str().unwrap().to_owned();
    (numbers(&page["messages"]), page["gap"].take(), next)
}

/// `last` says where the pages begin, `limit` how long each is.
#[tokio::test]
async fn rest_pages_lead_through_the_last_messages() {
    let server = TestServer::start();
    let cursors = filled(&server, "news", 17, 10).await;
    for last in [0_u64, 1, 3, 9, 10, 11, 400] {
        for limit in [1_u64, 2, 3, 10, 50] {
            let wanted: Vec<_> = (17 - last.min(10) + 1..=17).collect();
            let (mut seen, gap, mut next) = rest_page(&server, "news", &format!("last={last}&limit={limit}")).await;
            assert_eq!((seen.len() as u64, gap), (limit.min(last).min(10), Value::Null), "last={last}&limit={limit}");
            if seen.is_empty() {
                assert_eq!(next, cursors[16], "an empty page leads on from the end");
            }
            while seen.len() < wanted.len() {
                assert_eq!(next, cursors[*seen.last().unwrap() as usize - 1]);
                let (more, gap, onward) = rest_page(&server, "news", &format!("after={next}&limit={limit}")).await;
                assert!(!more.is_empty() && more.len() as u64 <= limit && gap.is_null());
                seen.extend(more);
                next = onward;
            }
            assert_eq!(seen, wanted, "last={last}&limit={limit}");
            // Behind the end there is nothing yet, and the cursor stays.
            assert_eq!(rest_page(&server, "news", &format!("after={next}")).await, (vec![], Value::Null, next));
        }
    }
}

/// From the oldest, from every position, and from a time, whatever the length of a page.
#[tokio::test]
async fn rest_pages_tile_the_topic() {
    let server = TestServer::start();
    let cursors = filled(&server, "news", 17, 10).await;
    for limit in 1..=11 {
        let mut starts: Vec<_> =
            (0..17).map(|after| (format!("after={}&", cursors[after]), after as u64 + 2)).collect();
        starts.push((String::new(), 8));
        starts.push(("since=2001-01-01T00:00:00Z&".to_owned(), 1));
        for (start, first) in starts {
            let (mut next, mut query) = (first, format!("{start}limit={limit}"));
            while next <= 17 {
                let (messages, gap, onward) = rest_page(&server, "news", &query).await;
                if !gap.is_null() && offsets_are_dense() {
                    assert_eq!((&gap["from_offset"], &gap["missed"]), (&next.into(), &(8 - next).into()), "{query}");
                }
                next = if gap.is_null() { next } else { 8 };
                let wanted: Vec<_> = (next..=17).take(limit).collect();
                assert_eq!(messages, wanted, "{query}");
                next += messages.len() as u64;
                assert_eq!(onward, cursors[next as usize - 2]);
                query = format!("after={onward}&limit={limit}");
            }
        }
    }
}

/// While the history moves on under the reader, a page begins with the gap that it fell into.
#[tokio::test]
async fn a_page_tells_what_went_since_the_last_one() {
    let server = TestServer::with(|config| config.broker.max_messages_per_topic = 10);
    server.publish_numbers("news", 1..=10).await;
    let (mut published, mut next) = (10, 1);
    let (mut messages, mut gap, mut onward) = rest_page(&server, "news", "limit=3").await;
    while next <= 120 {
        if !gap.is_null() {
            let to = messages[0] - 1;
            let (from_offset, missed) = (&gap["from_offset"], &gap["missed"]);
            if offsets_are_dense() {
                assert_eq!(
                    (from_offset, missed, &gap["to_offset"]),
                    (&next.into(), &(to + 1 - next).into(), &to.into())
                );
            }
            assert_eq!(gap["reason"], "EXPIRED");
            next = to + 1;
        }
        for message in messages {
            assert_eq!(message, next);
            next += 1;
        }
        server.publish_numbers("news", published + 1..=published + 7).await;
        published += 7;
        (messages, gap, onward) = rest_page(&server, "news", &format!("limit=3&after={onward}")).await;
    }
}

const PAGE: &str = "query ($first: Int, $after: Cursor, $last: Int, $before: Cursor) { topic(name: \"news\") { cursor \
    messages(first: $first, after: $after, last: $last, before: $before) { edges { cursor node { data cursor previous } } \
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }";

async fn graphql_page(server: &TestServer, variables: Value) -> (Vec<u64>, Value, String) {
    let mut topic = server.graphql(PAGE, variables).await["topic"].take();
    let page = &mut topic["messages"];
    let edges = page["edges"].as_array().unwrap();
    let mut seen = Vec::new();
    for edge in edges {
        assert_eq!(edge["cursor"], edge["node"]["cursor"]);
        seen.push(edge["node"]["data"].as_u64().unwrap());
    }
    let first = edges.first().map_or(Value::Null, |edge| edge["cursor"].clone());
    assert_eq!(page["pageInfo"]["startCursor"], first);
    if let Some(last) = edges.last() {
        assert_eq!(page["pageInfo"]["endCursor"], last["cursor"]);
    }
    (seen, page["pageInfo"].take(), topic["cursor"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn graphql_pages_go_forward_and_back() {
    let server = TestServer::start();
    let cursors = filled(&server, "news", 17, 10).await;
    let flags = |info: &Value| (info["hasPreviousPage"].as_bool().unwrap(), info["hasNextPage"].as_bool().unwrap());
    for length in 1..=12_usize {
        // Forward, from every position.
        for after in 6..=17 {
            let (seen, info, end) = graphql_page(&server, json!({"first": length, "after": cursors[after - 1]})).await;
            let wanted: Vec<_> = (after as u64 + 1..=17).filter(|number| *number > 7).take(length).collect();
            let last = wanted.last().copied().unwrap_or(17);
            assert_eq!(seen, wanted, "first: {length}, after {after}");
            assert_eq!(flags(&info), (after > 7, last < 17), "first: {length}, after {after}: {info}");
            assert_eq!(info["endCursor"], cursors[last as usize - 1]);
            assert_eq!(end, cursors[16], "the topic's own");
        }
        // Back, from every position.
        for before in 8..=17_usize {
            let (seen, info, _) = graphql_page(&server, json!({"last": length, "before": cursors[before - 1]})).await;
            let mut wanted: Vec<_> = (8..before as u64).rev().take(length).collect();
            wanted.reverse();
            let has_earlier = wanted.first().is_some_and(|first| *first > 8);
            assert_eq!(seen, wanted, "last: {length}, before {before}");
            assert_eq!(flags(&info), (has_earlier, true), "last: {length}, before {before}: {info}");
            let end = info["endCursor"].as_str().unwrap();
            let (next, ..) = graphql_page(&server, json!({"first": 1, "after": end})).await;
            assert_eq!(next, [before as u64], "what the page's end leads to");
        }
        // The newest ones.
        let (seen, info, _) = graphql_page(&server, json!({"last": length})).await;
        assert_eq!(seen, (17 - length.min(10) as u64 + 1..=17).collect::<Vec<_>>());
        assert_eq!(flags(&info), (length < 10, false), "last: {length}");
        // Without a position, from the oldest.
        let (seen, info, _) = graphql_page(&server, json!({"first": length})).await;
        assert_eq!(seen, (8..=17).take(length).collect::<Vec<_>>());
        assert_eq!(flags(&info), (false, length < 10), "first: {length}");
    }
}

/// A topic that has nothing has an end all the same, and whoever subscribes after it misses nothing.
#[tokio::test]
async fn an_empty_topic_has_an_end() {
    let server = TestServer::start();
    server.create("news").await;
    let (_, _, next) = rest_page(&server, "news", "last=5").await;
    for variables in [json!({"first": 5}), json!({"last": 5})] {
        let (seen, info, end) = graphql_page(&server, variables).await;
        assert_eq!(seen, [0_u64; 0]);
        assert_eq!(info["startCursor"], Value::Null);
        assert_eq!((info["endCursor"].as_str(), end.as_str()), (Some(next.as_str()), next.as_str()));
        assert_eq!((&info["hasPreviousPage"], &info["hasNextPage"]), (&false.into(), &false.into()));
    }
    async fn after<D: Door>(server: &TestServer, cursor: &str) -> Value {
        D::to(server, "news", Start::After(cursor.to_owned())).await.event().await.message().data
    }
    server.publish("news", "first".into()).await;
    assert_eq!(after::<GraphqlWs>(&server, &next).await, "first");
    assert_eq!(after::<GraphqlSse>(&server, &next).await, "first");
    assert_eq!(after::<RawWs>(&server, &next).await, "first");
    assert_eq!(after::<Sse>(&server, &next).await, "first");
    assert_eq!(
        server.get(&format!("/topics/news/messages?after={next}")).await.expect(200)["messages"][0]["data"],
        "first"
    );
}

/// A page of what is all gone leads to the oldest kept message and says what went.
#[tokio::test]
async fn pages_before_the_history() {
    let server = TestServer::start();
    let cursors = filled(&server, "news", 17, 10).await;
    let start = if offsets_are_dense() { cursor_at(&cursors[0], 0) } else { cursors[0].clone() };
    let first_missed = u64::from(!offsets_are_dense());
    let (messages, gap, next) = rest_page(&server, "news", &format!("after={start}&limit=1")).await;
    assert_eq!((messages, next), (vec![8], cursors[7].clone()));
    assert_eq!(gap["missed"], 7 - first_missed);
    let (seen, info, _) = graphql_page(&server, json!({"first": 2, "after": start})).await;
    assert_eq!((seen, &info["hasPreviousPage"]), (vec![8, 9], &false.into()));
    let (seen, info, _) = graphql_page(&server, json!({"last": 2, "before": cursors[2]})).await;
    assert_eq!((seen, &info["hasPreviousPage"], &info["hasNextPage"]), (vec![], &false.into(), &true.into()));
}
