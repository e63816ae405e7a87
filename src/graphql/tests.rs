//! The executor with the real schema: renderings are shared, and no document that mutation makes of good ones gets through
//! to a panic.

use std::sync::Arc;

use async_graphql::Variables;
use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::broker::{self, Broker, Client, ClientInfo, Inbox, NewMessage, Payload, Principal, TopicName};
use execute::Outcome;
use request::Asked;

/// What executes requests, with a broker of its own.
pub struct World {
    pub broker: Broker,
    pub client: Client,
    pub executor: Executor,
    pub renderings: Arc<Renderings>,
}

pub fn world(settings: &Settings) -> World {
    let broker = Broker::in_memory(broker::Settings { max_publish_rate: 0, ..broker::Settings::default() });
    let client = broker.client(Principal::anyone(), ClientInfo { door: "graphql", address: None });
    let renderings = Arc::new(Renderings::default());
    let executor = Executor::new(
        schema(Instant::now(), settings, false),
        Validator::new(schema(Instant::now(), settings, true)),
        settings.documents.clone(),
        Arc::new(Documents::new(1 << 20)),
        Persisted::new(HashMap::new(), false, 1 << 20),
        renderings.clone(),
    );
    World { broker, client, executor, renderings }
}

fn ask(query: &str) -> Asked {
    Asked { query: Some(query.to_owned()), ..Asked::default() }
}

/// Executes a query or mutation. The error is that it was refused before execution.
async fn single(executor: &Executor, client: &Client, asked: Asked) -> Result<String, String> {
    match executor.single(executor.prepare(asked).unwrap(), client).await {
        Outcome::Executed { result, .. } => Ok(result),
        Outcome::Refused(errors) => Err(format!("{errors:?}")),
    }
}

async fn publish(broker: &Broker, count: u64) {
    let topic = TopicName::parse("news").unwrap();
    for number in 1..=count {
        let data = Payload::parse(&number.to_string(), 100).unwrap();
        broker
            .publish(
                &topic,
                NewMessage {
                    data,
                    id: None,
                    key: None,
                    expected_offset: None,
                    origin: None,
                    ttl: None,
                    expected_key_offset: None,
                },
            )
            .await
            .unwrap();
    }
}

/// 1,000 equal subscriptions and 100 messages: 100 renderings, not 100,000.
#[tokio::test]
async fn equal_subscriptions_share_each_rendering() {
    let World { broker, client, executor, renderings } = world(&Settings::default());
    let inbox = Inbox::default();
    let mut operations = Vec::new();
    for key in 0..1_000 {
        let prepared = executor.prepare(ask(r#"subscription { messages(topic: "news") { offset data } }"#)).unwrap();
        operations.push(executor.open(prepared, &client, &inbox, key, None).await.unwrap());
    }
    let (mut delivered, mut events) = (0, Vec::new());
    for _ in 0..10 {
        publish(&broker, 10).await;
        for operation in &mut operations {
            operation.deliver(&mut events, |result, _| {
                assert!(result.starts_with(br#"{"data":{"messages":{"offset":"#));
                delivered += 1;
            });
        }
    }
    assert_eq!(delivered, 100_000);
    assert_eq!(renderings.made.load(Ordering::Relaxed), 100);
    assert_eq!(renderings.wanted.load(Ordering::Relaxed), 100_000);
}

/// Another shape is rendered for itself; the same shape from the past shares as soon as it has caught up.
#[tokio::test]
async fn shapes_are_told_apart() {
    let World { broker, client, executor, renderings } = world(&Settings::default());
    publish(&broker, 1).await;
    let inbox = Inbox::default();
    let open = async |query: &str| {
        let prepared = executor.prepare(ask(query)).unwrap();
        executor.open(prepared, &client, &inbox, 0, None).await.unwrap()
    };
    let mut one = open(r#"subscription { messages(topic: "news", last: 5) { offset } }"#).await;
    let mut other = open(r#"subscription { messages(topic: "news", last: 5) { data } }"#).await;
    let mut results = Vec::new();
    for operation in [&mut one, &mut other] {
        operation.deliver(&mut Vec::new(), |result, _| results.push(String::from_utf8_lossy(result).into_owned()));
    }
    assert_eq!(results, [r#"{"data":{"messages":{"offset":1}}}"#, r#"{"data":{"messages":{"data":1}}}"#]);
    assert_eq!(renderings.made.load(Ordering::Relaxed), 2);
}

/// Lists multiply what stands in them, those without a page size too. Each document with its weight.
#[tokio::test]
async fn lists_are_weighed() {
    let documents = [
        ("{ topic(name: \"a\") { name epoch } }", 3),
        ("{ topics(first: 10) { nodes { name } } }", 1 + 10 * 2),
        ("{ topics { totalCount } }", 1 + 100),
        ("{ topic(name: \"a\") { messages(last: 7) { nodes { id data } } } }", 1 + 1 + 7 * 3),
        ("{ topic(name: \"a\") { subscriptions { lag state } } }", 1 + 1 + 20 * 2),
        ("{ topic(name: \"a\") { consumers { name } } }", 1 + 1 + 20),
        ("{ consumers(topic: \"a\") { name positions { topic offset } } }", 1 + 20 * (1 + 1 + 20 * 2)),
        (
            "{ topics(first: 50) { nodes { ...t } } } fragment t on Topic { consumers { positions { offset } } }",
            1 + 50 * (1 + 1 + 20 * (1 + 20)),
        ),
        ("mutation { publishMany(messages: []) { publication { offset } } }", 1 + 20 * 2),
    ];
    for (document, weight) in documents {
        for (max_complexity, passes) in [(weight, true), (weight - 1, false)] {
            let World { client, executor, .. } = world(&Settings { max_complexity, ..Settings::default() });
            let executed = single(&executor, &client, ask(document)).await;
            assert_eq!(executed.is_ok(), passes, "{document} with a limit of {max_complexity}: {executed:?}");
        }
    }
}

/// Sizes that no number of 64 bits can hold multiplied are too large, not small again.
#[tokio::test]
async fn a_weight_does_not_wrap() {
    let World { client, executor, .. } = world(&Settings::default());
    let page = |inner: &str| format!("{{ topics(first: 2147483647) {{ nodes {{ {inner} }} }} }}");
    let messages = "messages(last: 2147483647) { edges { node { id data key offset cursor } } }";
    for document in [page(messages), page("consumers { positions { topic } }"), page("name")] {
        let refused = single(&executor, &client, ask(&document)).await.unwrap_err();
        assert!(refused.contains("complex"), "{document}: {refused}");
    }
}

/// What a router asks for is there by setting, and only then.
#[tokio::test]
async fn a_subgraph_by_setting() {
    for federation in [true, false] {
        let World { client, executor, .. } = world(&Settings { federation, ..Settings::default() });
        for document in ["{ _service { sdl } }", "{ _entities(representations: []) { __typename } }"] {
            let executed = single(&executor, &client, ask(document)).await;
            let is_good = executed.as_ref().is_ok_and(|result| !result.contains("\"errors\":"));
            assert_eq!(is_good, federation, "{document}: {executed:?}");
        }
    }
    assert!(sdl(true).contains("type Topic @key(fields: \"name\")") && !sdl(false).contains("@key"));
    // A type that several subgraphs have is that of the Relay specification; clients get the type that `after` takes.
    let page_info = |sdl: &str| sdl.split_once("type PageInfo").unwrap().1.split_once('}').unwrap().0.to_owned();
    assert!(page_info(&sdl(true)).contains("endCursor: String\n"), "{}", page_info(&sdl(true)));
    assert!(page_info(&sdl(false)).contains("endCursor: Cursor\n"), "{}", page_info(&sdl(false)));
}

/// A topic is found by its name; one that does not exist is null and takes nothing from the others.
#[tokio::test]
async fn entities_are_found_by_their_key() {
    let World { broker, client, executor, .. } = world(&Settings { federation: true, ..Settings::default() });
    publish(&broker, 3).await;
    let document = r#"{ _entities(representations: [
        {__typename: "Topic", name: "none"}, {__typename: "Topic", name: "news"}, {__typename: "Topic", name: "a.*"}
    ]) { ... on Topic { messageCount } } }"#;
    let found = single(&executor, &client, ask(document)).await.unwrap();
    assert_eq!(found, r#"{"data":{"_entities":[null,{"messageCount":3},null]}}"#);
}

/// Asking for many entities at once weighs as much as asking for each.
#[tokio::test]
async fn entities_are_weighed() {
    let settings = Settings { federation: true, max_complexity: 1_000, ..Settings::default() };
    let World { client, executor, .. } = world(&settings);
    let one = r#"{__typename: "Topic", name: "a"}"#;
    let fields = "... on Topic { messages(last: 10) { nodes { id data } } }";
    for (count, passes) in [(1, true), (31, true), (32, false)] {
        let list = format!("[{}]", vec![one; count].join(", "));
        let literal =
            ask(&format!("{{ ...q }} fragment q on Query {{ _entities(representations: {list}) {{ {fields} }} }}"));
        let text = format!("query ($r: [_Any!]!) {{ ... {{ _entities(representations: $r) {{ {fields} }} }} }}");
        let variables = serde_json::json!({"r": vec![serde_json::json!({"__typename": "Topic", "name": "a"}); count]});
        let variable = Asked { variables: Variables::from_json(variables), ..ask(&text) };
        for asked in [literal, variable] {
            let executed = single(&executor, &client, asked).await;
            assert_eq!(executed.is_ok(), passes, "{count} entities: {executed:?}");
        }
    }
}

/// Good documents, of which mutation makes others.
const GOOD: [&str; 8] = [
    "{ topics(first: 3) { nodes { name messages(last: 2) { nodes { ...m } } } } } fragment m on Message { id data key }",
    "query Q($n: String = \"a\", $on: Boolean = true) { topic(name: $n) @include(if: $on) { name ... on Topic { epoch } } }",
    r#"mutation { a: publish(topic: "t", data: {x: [1, 2.5e3, null, TRUE, "\u00e9"]}, messageId: "1") { offset duplicate } }"#,
    "mutation M($m: [PublishInput!]!) { publishMany(messages: $m) { publication { id } error { code } } }",
    r#"subscription { messages(topic: "orders.>", filter: {and: [{field: "a", gt: 1}, {not: {field: "b", exists: true}}]}) { data gap { missed } } }"#,
    "subscription S { ...f } fragment f on Subscription { topicEvents { kind name } }",
    "{ __schema { types { name fields { name type { ofType { ofType { name } } } } } } __type(name: \"Topic\") { name } }",
    "query A { stats { topics } } query B { health { status } } # \"\"\" x\n",
];

/// What documents are made of.
const PIECES: [&str; 26] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ":",
    "!",
    "$",
    "@",
    "...",
    "\"",
    "\"\"\"",
    "\\",
    "#",
    "fragment f on Topic",
    "query",
    "mutation",
    "subscription",
    "@skip(if: true)",
    "$x: [Nope] = [1]",
    "__typename",
    "1e999",
    "null",
    "{a{b{c{",
    "é\u{0}",
];

/// One good document with one edit, or pieces of several joined.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (0..GOOD.len(), 0..200_usize, 0..6_usize, 0..PIECES.len(), 0..2_usize);
    let edited = edit.prop_map(|(good, at, dropped, piece, repeat)| {
        let good = GOOD[good];
        let at = good.floor_char_boundary(at.min(good.len()));
        let end = good.floor_char_boundary((at + dropped).min(good.len()));
        format!("{}{}{}", &good[..at], PIECES[piece].repeat(repeat), &good[end..])
    });
    let cut = (0..GOOD.len(), 0..200_usize, 0..200_usize, 0..PIECES.len(), 0..4_usize);
    let joined = prop::collection::vec(cut, 1..6).prop_map(|cuts| {
        let mut text = String::new();
        for (good, from, length, piece, repeat) in cuts {
            let good = GOOD[good];
            let from = good.floor_char_boundary(from.min(good.len()));
            let to = good.floor_char_boundary((from + length).min(good.len()));
            text.push_str(&good[from..to]);
            text.push_str(&PIECES[piece].repeat(repeat));
        }
        text
    });
    prop_oneof![edited, joined]
}

/// The preparation is fuzzed, and whatever passes it is executed by the real schema. `PROPTEST_CASES` sets how long.
#[test]
fn no_document_reaches_a_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let World { client, executor, .. } = world(&Settings::default());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(100_000);
    let passed = std::cell::Cell::new(0);
    TestRunner::new(ProptestConfig { cases, ..config })
        .run(&mutated(), |text| {
            for operation in [None, Some("A".to_owned())] {
                let Ok(prepared) = executor.prepare(Asked { operation, ..ask(&text) }) else { continue };
                passed.set(passed.get() + 1);
                runtime.block_on(async {
                    if prepared.kind == document::OperationKind::Subscription {
                        let _ = executor.open(prepared, &client, &Inbox::default(), 0, None).await;
                    } else {
                        executor.single(prepared, &client).await;
                    }
                });
            }
            Ok(())
        })
        .unwrap();
    assert!(passed.get() > 100, "mutation leaves enough documents whole: {}", passed.get());
}

/// What is wrong with a document is said in the same order each time, although async-graphql validates its fragments in any.
#[tokio::test]
async fn errors_are_in_the_order_of_the_document() {
    let World { client, executor, .. } = world(&Settings::default());
    let query = "query($text: String) { ...A ...B ...C }
        fragment A on Query { health { status @skip(if: $text) } }
        fragment B on Query { health { status @skip(if: $text) } }
        fragment C on Query { health { status @skip(if: $text) } }";
    let refused = async || match executor.prepare(ask(query)) {
        Err(errors) => errors,
        Ok(prepared) => match executor.single(prepared, &client).await {
            Outcome::Executed { result, .. } => panic!("{result}"),
            Outcome::Refused(errors) => errors,
        },
    };
    for _ in 0..50 {
        let errors = refused().await;
        let lines: Vec<_> = errors.iter().filter_map(|error| error.locations.first()).map(|at| at.line).collect();
        assert!(lines.len() > 1 && lines.is_sorted(), "{errors:?}");
    }
}
