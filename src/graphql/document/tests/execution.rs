//! What async-graphql makes of the documents that pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_graphql::{Context, Object, Request, Response, Schema, Subscription};
use futures_util::{Stream, StreamExt, stream};

use super::*;

type Calls = Arc<AtomicUsize>;

fn call(ctx: &Context<'_>) {
    ctx.data_unchecked::<Calls>().fetch_add(1, Ordering::Relaxed);
}

struct Node;

#[Object]
impl Node {
    async fn a(&self, ctx: &Context<'_>, x: Option<i32>) -> i32 {
        call(ctx);
        x.unwrap_or(1)
    }
    async fn b(&self, ctx: &Context<'_>, x: Option<i32>) -> i32 {
        call(ctx);
        x.unwrap_or(2)
    }
    async fn n(&self, ctx: &Context<'_>) -> Node {
        call(ctx);
        Node
    }
    async fn list(&self, of: Option<Vec<Option<i32>>>) -> usize {
        of.map_or(0, |of| of.len())
    }
}

struct Query;

#[Object]
impl Query {
    async fn n(&self, ctx: &Context<'_>) -> Node {
        call(ctx);
        Node
    }
    async fn a(&self, ctx: &Context<'_>) -> i32 {
        call(ctx);
        3
    }
}

struct Mutation;

#[Object]
impl Mutation {
    async fn act(&self, ctx: &Context<'_>) -> Node {
        call(ctx);
        Node
    }
}

struct Subscription;

#[Subscription]
impl Subscription {
    async fn nodes(&self, ctx: &Context<'_>) -> impl Stream<Item = Node> + use<> {
        call(ctx);
        stream::iter([Node, Node])
    }
}

fn schema() -> (Schema<Query, Mutation, Subscription>, Calls) {
    let calls = Calls::default();
    let schema = Schema::build(Query, Mutation, Subscription).data(calls.clone());
    (schema.finish(), calls)
}

fn request(document: &Document) -> Request {
    request_with(document, &Variables::default())
}

fn request_with(document: &Document, given: &Variables) -> Request {
    let mut request = Request::new("").variables(given.clone());
    request.set_parsed_query(document.executable(None, given));
    request
}

/// Executes a document that passes, and returns the answer and how many fields were resolved.
async fn execute(text: &str, json: &str) -> (Response, usize) {
    let (schema, calls) = schema();
    let document = prepare(text).unwrap();
    let mut given = variables(json);
    document.fill_defaults(None, &mut given);
    let response = schema.execute(request_with(&document, &given)).await;
    (response, calls.load(Ordering::Relaxed))
}

fn json(response: &Response) -> serde_json::Value {
    serde_json::to_value(response).unwrap()
}

#[tokio::test]
async fn the_introspection_query_is_answered() {
    let (response, _) = execute(&introspection(9), "{}").await;
    assert_eq!(response.errors, []);
    let types = &json(&response)["data"]["__schema"]["types"];
    assert!(types.as_array().unwrap().len() > 10);
}

#[tokio::test]
async fn a_dissolved_subscription_is_one_stream() {
    let text = "subscription{...F ...{nodes{b}}} fragment F on Subscription{nodes{a ...G}}
        fragment G on Node{__typename}";
    let (schema, calls) = schema();
    let stream = schema.execute_stream(request(&prepare(text).unwrap()));
    let events: Vec<_> = stream.map(|response| json(&response)["data"].clone()).collect().await;
    let event = serde_json::json!({"nodes": {"a": 1, "__typename": "Node", "b": 2}});
    assert_eq!(events, [event.clone(), event]);
    // The field itself once, its parts twice each.
    assert_eq!(calls.load(Ordering::Relaxed), 1 + 4);
}

#[tokio::test]
async fn a_subscription_left_to_async_graphql_is_refused_by_it() {
    for text in ["subscription{...Nope}", "subscription{...on Query{a}}"] {
        let (schema, _) = schema();
        let stream = schema.execute_stream(request(&prepare(text).unwrap()));
        let events: Vec<_> = stream.collect().await;
        assert_eq!((events.len(), events[0].errors.len()), (1, 1), "{text}");
    }
}

#[tokio::test]
async fn a_mutation_acts_once() {
    let text = "mutation{act{a} ...F act{a}} fragment F on Mutation{act{a}}";
    let (response, calls) = execute(text, "{}").await;
    assert_eq!(json(&response)["data"], serde_json::json!({"act": {"a": 1}}));
    assert_eq!(calls, 2);
    // Written out because this is the reason for it: async-graphql alone acts three times.
    let (schema, calls) = schema();
    schema.execute(text).await;
    assert_eq!(calls.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn a_variable_used_only_on_typename_is_used() {
    let text = "query($v:Boolean!){a __typename @include(if:$v)}";
    let (response, _) = execute(text, r#"{"v":true}"#).await;
    let expected = serde_json::json!({"data": {"a": 3, "__typename": "Query"}});
    assert_eq!(json(&response), expected);
    let (response, _) = execute(text, r#"{"v":false}"#).await;
    assert_eq!(json(&response)["data"], serde_json::json!({"a": 3}));
    let (response, _) = execute("{__typename @nope}", "{}").await;
    assert_eq!(response.errors.len(), 1);
}

#[tokio::test]
async fn defaults_decide_on_conditions() {
    let text = "query($v:Boolean=true){a n @include(if:$v){a}}";
    let (response, _) = execute(text, "{}").await;
    assert_eq!(json(&response)["data"]["n"]["a"], 1);
}

/// Documents that pass although they mean no good.
fn hostile() -> Vec<String> {
    let fragments = |n: usize, body: &str| many(n, |i| format!("fragment f{i} on Query{{{body}}}"));
    let spreads = |n: usize| many(n, |i| format!("...f{i} "));
    let list = |n: usize| "1 ".repeat(n);
    vec![
        tree(2, 8),
        tree(6, 3),
        format!("{{{}}}", "a ".repeat(2_000)),
        format!("{{{}}}", "n{a}".repeat(990)),
        format!("{{{}}}", "...on Query{a}".repeat(800)),
        format!("{{{}}}{}", spreads(350), fragments(350, "a n{a}")),
        format!("{{{}}}", many(50, |i| format!("a{i}:n{{a}}"))),
        format!("{{n{{list(of:[{}])}}}}", list(4_900)),
        format!("{{n{{list(of:{}{})}}}}", "[".repeat(60), "]".repeat(60)),
        format!("{{n{{{}}}}}", many(48, |i| format!("l{i}:list(of:[{}])", list(90)))),
        format!("query({}){{a}}", many(1_200, |i| format!("$v{i}:Int "))),
        format!("{{n{{list(of:[{}])}}}}", many(500, |i| format!("$v{i} "))),
        format!("{{{}}}", many(2_000, |i| format!("nope{i} "))),
        format!("{{{}}}", many(2_000, |i| format!("...f{i} "))),
        format!("{{n{{{}}}}}", many(25, |i| { format!("a{i}:a({})", many(60, |i| format!("y{i}:1 "))) })),
        format!("{{{}a{}}}", "...on Query{".repeat(31), "}".repeat(31)),
        format!("{{{}a{}}}", "n{".repeat(14), "}".repeat(14)),
        many(50, |i| format!("query q{i}{{...F}}")) + "fragment F on Query{a a n{a b}}",
        format!("{{n{{a {}}}}}", "x".repeat(65_000)),
        "{__schema{types{fields{type{fields{type{fields{type{name}}}}}}}}}".to_owned(),
    ]
}

#[tokio::test]
async fn every_hostile_document_is_bounded() {
    for text in hostile() {
        let (schema, calls) = schema();
        let (document, steps) = counted(&text);
        let document = document.unwrap_or_else(|error| panic!("{error}: {text:.200}"));
        assert!(steps < 150_000, "{steps}: {text:.200}");
        let mut request = request(&document);
        if let Ok(facts) = document.operation(Some("q0")) {
            request = request.operation_name(facts.name.as_deref().unwrap_or_default());
        }
        let response = schema.execute(request).await;
        let calls = calls.load(Ordering::Relaxed);
        assert!(calls <= 2_000, "{calls}: {text:.200}");
        assert!(response.errors.len() <= 2_000, "{text:.200}");
        let bytes = serde_json::to_string(&response).unwrap().len();
        assert!(bytes < 256 * 1_024, "{bytes}: {text:.200}");
    }
}

#[test]
fn the_deepest_permitted_document_is_executed_on_a_small_stack() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let levels = format!("{{{}a{}}}", "...on Query{".repeat(31), "}".repeat(31));
        let fields = format!("{{{}a{}}}", "n{...on Node{".repeat(14), "}}".repeat(14));
        let value = format!("{{n{{list(of:{}{})}}}}", "[".repeat(61), "]".repeat(61));
        for text in [levels, fields, value] {
            runtime.block_on(execute(&text, "{}"));
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run);
    thread.unwrap().join().unwrap();
}

/// A random document over the schema, often with faults.
fn random(next: &mut impl FnMut(usize) -> usize) -> String {
    fn set(next: &mut impl FnMut(usize) -> usize, on: &str, levels: usize) -> String {
        let items = many(1 + next(3), |_| String::from("\u{1}"));
        let items: String = items
            .chars()
            .map(|_| match next(if levels == 0 { 3 } else { 8 }) {
                0 => "a ".to_owned(),
                1 if on == "Node" => format!("b(x:{}) ", next(2)),
                1 => "a ".to_owned(),
                2 if next(4) == 0 => "x:a ".to_owned(),
                2 => "__typename ".to_owned(),
                3 | 4 => format!("n{} ", set(next, "Node", levels - 1)),
                5 => format!("...{} ", set(next, on, levels - 1)),
                6 => format!("...on {on}{} ", set(next, on, levels - 1)),
                _ => format!("...{on}{} ", next(3)),
            })
            .collect();
        format!("{{{items}}}")
    }
    let mut text = set(next, "Query", 3);
    for on in ["Query", "Node"] {
        for at in 0..3 {
            if text.contains(&format!("...{on}{at} ")) {
                text += &format!("fragment {on}{at} on {on}{}", set(next, on, 2));
            }
        }
    }
    text
}

#[tokio::test]
async fn rewritten_documents_have_the_same_answer_and_none_of_our_errors() {
    let (schema, _) = schema();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..2_000 {
        let text = random(&mut next);
        match prepare(&text) {
            Ok(document) => {
                let ours = schema.execute(request(&document)).await;
                for error in &ours.errors {
                    let known = ["conflict", "Cannot spread", "never used", "recursion depth"];
                    let known = known.iter().any(|known| error.message.contains(known));
                    assert!(!known, "{text}: {error}");
                }
                let theirs = schema.execute(&text).await;
                assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}");
                assert_eq!(json(&ours)["data"], json(&theirs)["data"], "{text}");
                answered += usize::from(ours.is_ok());
            }
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Validation, "{text}");
                refused += 1;
            }
        }
    }
    assert!(answered > 500 && refused > 50, "{answered} {refused}");
}
