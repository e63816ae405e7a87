//! What is compiled and what async-graphql executes have the same results, byte for byte, on random documents, variables and
//! messages.

use std::{cell::Cell, fmt::Write as _};

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::Value;

use crate::{
    broker::{
        self, AnyCursor, Broker, Client, ClientInfo, Headers, Inbox, Key, MessageId, NewMessage, Payload, Principal,
        Timestamp, TopicName,
    },
    graphql::{
        Settings,
        execute::{Executor, Outcome},
        operation::Operation,
        request::{Asked, Unread, Unresolved},
        response::errors_only,
        tests::{World, world},
    },
};

/// Makes decisions out of random bytes; the first choice of each where there are no more.
struct Choices<'a> {
    bytes: std::slice::Iter<'a, u8>,
    /// Variables that were used, with their types.
    used: Vec<(&'static str, &'static str)>,
    /// Types of which a fragment was spread.
    spread: Vec<&'static str>,
}

impl Choices<'_> {
    fn of(bytes: &[u8]) -> Choices<'_> {
        Choices { bytes: bytes.iter(), used: Vec::new(), spread: Vec::new() }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.bytes.next().copied().unwrap_or(0)) % of.len()]
    }

    fn one_in(&mut self, chances: u8) -> bool {
        self.bytes.next().is_some_and(|byte| byte % chances == chances - 1)
    }

    fn variable(&mut self, name: &'static str, ty: &'static str) -> String {
        if !self.used.contains(&(name, ty)) {
            self.used.push((name, ty));
        }
        format!("${name}")
    }

    fn directive(&mut self) -> String {
        if !self.one_in(4) {
            return String::new();
        }
        let name = self.pick(&["skip", "include"]);
        let value = match self.pick(&[0, 1, 2, 3]) {
            0 => "true".to_owned(),
            1 => "false".to_owned(),
            2 => self.variable("flag", "Boolean!"),
            _ => self.variable("other", "Boolean = true"),
        };
        format!("@{name}(if: {value}) ")
    }

    fn selection(&mut self, ty: &'static str, depth: usize) -> String {
        let fields: &[(&str, &'static str)] = match ty {
            "Message" => &[
                ("id", ""),
                ("messageId", ""),
                ("topic", ""),
                ("data", ""),
                ("key", ""),
                ("headers", ""),
                ("removed", ""),
                ("offset", ""),
                ("cursor", ""),
                ("patternCursor", ""),
                ("previous", ""),
                ("publishedAt", ""),
                ("gap", "Gap"),
                ("gap", "Gap"),
            ],
            "Gap" => &[("missed", ""), ("fromOffset", ""), ("toOffset", ""), ("reason", "")],
            "Publication" => &[
                ("id", ""),
                ("messageId", ""),
                ("topic", ""),
                ("offset", ""),
                ("cursor", ""),
                ("publishedAt", ""),
                ("duplicate", ""),
            ],
            "PublishResult" => &[("publication", "Publication"), ("error", "PublishError")],
            _ => &[("code", ""), ("message", ""), ("retryAfterMs", ""), ("currentOffset", ""), ("messageId", "")],
        };
        let mut text = "{ ".to_owned();
        for _ in 0..self.pick(&[1, 2, 3, 4, 6]) {
            let directive = match self.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]) {
                1 => {
                    let alias = self.pick(&["", "type: "]);
                    let _ = write!(text, "{alias}__typename {}", self.directive());
                    continue;
                }
                2 if depth > 0 => {
                    let on = if self.one_in(2) { String::new() } else { format!("on {ty} ") };
                    let directive = self.directive();
                    let _ = write!(text, "... {on}{directive}{} ", self.selection(ty, depth - 1));
                    continue;
                }
                3 if depth > 0 => {
                    if !self.spread.contains(&ty) {
                        self.spread.push(ty);
                    }
                    let _ = write!(text, "...Of{ty} {}", self.directive());
                    continue;
                }
                _ => self.directive(),
            };
            let (name, inner) = self.pick(fields);
            if self.one_in(4) {
                let _ = write!(text, "my_{name}: ");
            }
            let _ = write!(text, "{name} {directive}");
            if !inner.is_empty() {
                text.push_str(&self.selection(inner, depth.saturating_sub(1)));
            }
        }
        text + "} "
    }

    /// An argument: a literal, a variable, or none.
    fn argument(
        &mut self,
        name: &str,
        literals: &[&'static str],
        variable: (&'static str, &'static str),
        may_be_absent: bool,
    ) -> String {
        match self.pick(if may_be_absent { &[2, 2, 0, 1][..] } else { &[0, 1, 1] }) {
            0 => format!("{name}: {} ", self.pick(literals)),
            1 => format!("{name}: {} ", self.variable(variable.0, variable.1)),
            _ => String::new(),
        }
    }

    fn message(&mut self) -> String {
        let topic = self.argument("topic", &["\"news\"", "\"other\"", "\"a*\""], ("topic", "String!"), false);
        let data = ["1", "null", "{a: [1.50, \"\\u00e9\", TRUE]}", "\"\"\"x\"\"\""];
        let data = self.argument("data", &data, ("data", "JSON!"), false);
        let id = self.argument("messageId", &["\"x\"", "7", "null", "\"\""], ("id", "ID"), true);
        let key = self.argument("key", &["\"k\"", "null"], ("key", "String"), true);
        let offset = self.argument("expectedOffset", &["0", "\"3\"", "null"], ("offset", "Long"), true);
        let literals = ["{}", "{a: \"b\"}", "{a: 1}", "{b: \"\", a: \"\\n\"}", "null"];
        let headers = self.argument("headers", &literals, ("headers", "Headers"), true);
        [topic, data, id, key, offset, headers].concat()
    }

    fn mutation(&mut self) -> String {
        let mut roots = String::new();
        for number in 0..self.pick(&[1, 1, 1, 2, 3]) {
            let directive = self.directive();
            let alias = if number > 0 { format!("r{number}: ") } else { String::new() };
            let root = match self.pick(&[0, 0, 1, 1, 2, 3]) {
                0 => format!("{alias}publish({}) {directive}{}", self.message(), self.selection("Publication", 2)),
                1 => {
                    let messages = match self.pick(&[0, 1, 1]) {
                        0 => format!("[{{{}}}, {{{}}}]", self.message(), self.message()),
                        _ => self.variable("messages", "[PublishInput!]!"),
                    };
                    let selection = self.selection("PublishResult", 2);
                    format!("{alias}publishMany(messages: {messages}) {directive}{selection}")
                }
                2 => {
                    let topic = self.argument("topic", &["\"news\"", "\"a.\""], ("topic", "String!"), false);
                    let consumer = self.argument("consumer", &["\"c\""], ("consumer", "String!"), false);
                    let cursor = self.argument("cursor", &["\"0000000000000001-01\""], ("cursor", "Cursor!"), false);
                    let owner = self.argument("owner", &["null"], ("owner", "String"), true);
                    format!("{alias}acknowledge({topic}{consumer}{cursor}{owner}) {directive}")
                }
                _ => format!("{alias}__typename {directive}"),
            };
            roots.push_str(&root);
        }
        self.document("mutation", &roots)
    }

    fn subscription(&mut self) -> String {
        let alias = self.pick(&["", "news: "]);
        let topic = self.argument("topic", &["\"news\"", "\"n.*\"", "\"\""], ("source", "String!"), false);
        let last = self.argument("last", &["2", "null", "-1"], ("last", "Int"), true);
        let state = self.argument("state", &["true", "false", "null"], ("state", "Boolean"), true);
        let after = if self.one_in(4) { self.variable("after", "Cursor") } else { "null".to_owned() };
        let overflow = self.argument("overflow", &["HISTORY", "LATEST"], ("overflow", "Overflow = HISTORY"), true);
        let filter = match self.pick(&[0, 0, 0, 0, 1, 2]) {
            0 => "null".to_owned(),
            1 => "{field: \"$key\", exists: true}".to_owned(),
            _ => self.variable("filter", "Filter"),
        };
        let root = format!("{alias}messages({topic}{last}{state}{overflow} after: {after} filter: {filter}) ");
        let selection = self.selection("Message", 3);
        self.document("subscription", &(root + &selection))
    }

    fn document(&mut self, kind: &str, roots: &str) -> String {
        let mut fragments = String::new();
        let mut defined = 0;
        while let Some(ty) = self.spread.get(defined).copied() {
            defined += 1;
            // Without further spreads, which could lead back.
            let _ = write!(fragments, "fragment Of{ty} on {ty} {}", self.selection(ty, 0));
        }
        let variables: Vec<_> = self.used.iter().map(|(name, ty)| format!("${name}: {ty}")).collect();
        let variables = if variables.is_empty() { String::new() } else { format!("({})", variables.join(", ")) };
        let name = self.pick(&["", " Named"]);
        let name = if variables.is_empty() && name.is_empty() { "" } else { name };
        format!("{kind}{name}{variables} {{ {roots}}} {fragments}")
    }

    /// Variables as JSON: those that the document uses, most of them with good values.
    fn values(&mut self) -> String {
        let mut fields = Vec::new();
        for (name, _) in self.used.clone() {
            let (good, bad): (&[&str], &[&str]) = match name {
                "state" => (&["true", "false", "null"], &["1", "\"true\""]),
                "flag" | "other" => (&["true", "false"], &["null", "1"]),
                "topic" => (&["\"news\"", "\"other\"", "\"n\\u0065ws\""], &["null", "5", "\"a>b\"", "\"\\ud83d\""]),
                "source" => (&["\"news\"", "\"n.*\"", "\"n.1\""], &["null", "[]", "\"\""]),
                "data" => (
                    &["1", "null", "{\"a\": [1.50, \"\\u00e9\\/\", 1E5], \"b\" : \"x\"}", "\"text\"", "[[], {}]"],
                    &["{\"a\":1,\"a\":2}", "\"\\ud83d\""],
                ),
                "id" => (&["\"x\"", "\"y\"", "8", "null"], &["true", "1.5", "\"\""]),
                "key" | "owner" => (&["\"k\"", "\"\\n\"", "null"], &["1", "\"\""]),
                "offset" => (&["0", "1", "\"2\"", "null"], &["-1", "1.0", "\"x\"", "99999999999999999999"]),
                "headers" => (
                    &["{}", "{\"b\":\"\",\"a\":\"\\u0041\"}", "{\"a\":1}", "{\"a b\":\"\"}", "null"],
                    &["[]", "\"{}\"", "{\"a\":\"\",\"a\":\"\"}", "{\"a\":\"\\ud83d\"}"],
                ),
                "messages" => (
                    &[
                        "[]",
                        "[{\"topic\":\"news\",\"data\":1},{\"data\":null,\"topic\":\"b*\",\"key\":\"k\"}]",
                        "[{\"topic\":\"news\",\"data\":\"\\u0041\",\"messageId\":\"x\",\"expectedOffset\":0}]",
                        "[{\"topic\":\"news\",\"data\":1,\"headers\":{\"a\":\"b\"}},{\"topic\":\"news\",\"data\":1,\"headers\":{\"a\":[]}}]",
                    ],
                    &[
                        "null",
                        "{\"topic\":\"news\",\"data\":1}",
                        "[{\"topic\":\"news\"}]",
                        "[{\"topic\":\"news\",\"data\":1,\"nope\":1}]",
                        "[{\"topic\":1,\"data\":1}]",
                        "[null]",
                    ],
                ),
                "consumer" => (&["\"c\""], &["\"\"", "1"]),
                "cursor" | "after" => (&["\"0000000000000001-01\"", "null"], &["\"x\"", "1", "\"p\""]),
                "last" => (&["1", "3", "null"], &["-1", "1.5", "\"1\"", "3000000000"]),
                "overflow" => (&["\"HISTORY\"", "\"LATEST\"", "null"], &["\"Latest\"", "1"]),
                _ => (&["null", "{\"field\":\"$key\",\"exists\":true}"], &["{}", "{\"nope\":1}", "1"]),
            };
            if self.one_in(12) {
                continue;
            }
            let value = if self.one_in(10) { self.pick(bad) } else { self.pick(good) };
            fields.push(format!("\"{name}\": {value}"));
        }
        if self.one_in(10) {
            fields.push(self.pick(&["\"unused\":[1]", "\"unused\":\"\\ud83d\""]).to_owned());
        }
        if fields.is_empty() && self.one_in(2) { "null".to_owned() } else { format!("{{{}}}", fields.join(",")) }
    }
}

/// A world of which nothing is ever compiled.
fn executing(settings: &Settings) -> World {
    let World { broker, client, executor, renderings } = world(settings);
    World { broker, client, executor: executor.never_compiling(renderings.clone()), renderings }
}

fn read(executor: &Executor, client: &Client, query: &str, variables: &str) -> Result<Asked, Unread> {
    let body = format!(r#"{{"query":{},"variables":{variables}}}"#, crate::wire::quoted(query));
    executor.read(Unresolved::read(&body)?, client)
}

/// What a client sees of a mutation.
async fn mutate(World { executor, client, .. }: &World, query: &str, variables: &str) -> String {
    let asked = match read(executor, client, query, variables) {
        Ok(asked) => asked,
        Err(unread) => return format!("\"unread: {} {}\"", unread.message.replace(['"', '\\'], "'"), unread.malformed),
    };
    match executor.prepare(asked) {
        Ok(prepared) => match executor.single(prepared, client).await {
            Outcome::Executed { result, has_errors } => format!("[{result},{has_errors}]"),
            Outcome::Refused(errors) => errors_only(&errors),
        },
        Err(errors) => errors_only(&errors),
    }
}

/// What a result says but for what is another one each time.
fn normal(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Ok(AnyCursor::Topic(cursor)) = text.parse() {
                *text = format!("cursor {}", cursor.offset);
            } else if text.parse::<Timestamp>().is_ok() {
                *text = "time".to_owned();
            } else if text.len() == 36 && text.parse::<uuid::Uuid>().is_ok() {
                *text = "uuid".to_owned();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normal),
        Value::Object(fields) => fields.values_mut().for_each(normal),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The same as text. The result has to be compact.
fn normalised(result: &str) -> String {
    let mut value: Value = serde_json::from_str(result).unwrap_or_else(|error| panic!("{error}: {result}"));
    assert_eq!(value.to_string(), result);
    normal(&mut value);
    value.to_string()
}

fn run(default_cases: u32, each: impl Fn(&[u8])) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default_cases);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    TestRunner::new(config)
        .run(&bytes, |bytes| {
            each(&bytes);
            Ok(())
        })
        .unwrap();
}

/// Both do the same to brokers of their own, so that these stay the same.
#[test]
fn mutations_have_the_results_of_an_execution() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (executing, compiling) = (executing(&Settings::default()), world(&Settings::default()));
    let (requests, compiled) = (Cell::new(0), Cell::new(0));
    run(3_000, |bytes| {
        let mut choices = Choices::of(bytes);
        let document = choices.mutation();
        for _ in 0..4 {
            let variables = choices.values();
            requests.set(requests.get() + 1);
            let asked = read(&compiling.executor, &compiling.client, &document, &variables);
            compiled.set(compiled.get() + u32::from(asked.is_ok_and(|asked| asked.call.is_some())));
            let wanted = runtime.block_on(mutate(&executing, &document, &variables));
            let found = runtime.block_on(mutate(&compiling, &document, &variables));
            assert_eq!(normalised(&found), normalised(&wanted), "{document}\n{variables}");
        }
    });
    assert!(compiled.get() * 4 > requests.get(), "{} of {} were compiled", compiled.get(), requests.get());
}

/// Opens a subscription, or says what a client sees instead.
async fn open(
    executor: &Executor,
    client: &Client,
    query: &str,
    variables: &str,
) -> Result<(Operation, Inbox), String> {
    let inbox = Inbox::default();
    let asked = read(executor, client, query, variables).map_err(|unread| unread.message)?;
    let prepared = executor.prepare(asked).map_err(|errors| errors_only(&errors))?;
    match executor.open(prepared, client, &inbox, 0, None).await {
        Ok(operation) => Ok((operation, inbox)),
        Err(errors) => Err(errors_only(&errors)),
    }
}

/// Everything that a subscription delivers now.
fn delivered(opened: &mut Result<(Operation, Inbox), String>) -> Vec<String> {
    let (operation, inbox) = match opened {
        Ok(opened) => opened,
        Err(refused) => return vec![refused.clone()],
    };
    let (mut results, mut events) = (Vec::new(), Vec::new());
    while inbox.try_next().is_some() {
        let last = operation.deliver(&mut events, |result, position| {
            results.push(format!("{} {position:?}", str::from_utf8(result).unwrap()));
        });
        results.extend(last.map(|last| String::from_utf8(last.to_vec()).unwrap()));
    }
    results
}

/// On one broker, so that the results are the same in every byte.
#[test]
fn messages_are_written_as_they_are_executed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Gaps come of a short history.
    let settings = broker::Settings { max_publish_rate: 0, max_messages_per_topic: 4, ..broker::Settings::default() };
    let broker = Broker::in_memory(settings);
    let client = broker.client(Principal::anyone(), ClientInfo { door: "graphql", address: None });
    let (executing, compiling) = (executing(&Settings::default()).executor, world(&Settings::default()).executor);
    let (requests, compiled) = (Cell::new(0), Cell::new(0));
    run(1_500, |bytes| {
        let mut choices = Choices::of(bytes);
        let document = choices.subscription();
        runtime.block_on(async {
            for _ in 0..2 {
                let variables = choices.values();
                let mut opened = Vec::new();
                for executor in [&executing, &compiling, &compiling] {
                    opened.push(open(executor, &client, &document, &variables).await);
                }
                requests.set(requests.get() + 1);
                let asked = read(&compiling, &client, &document, &variables);
                compiled.set(compiled.get() + u32::from(asked.is_ok_and(|asked| asked.call.is_some())));
                for count in [choices.pick(&[1, 2, 3]), choices.pick(&[1, 6, 9])] {
                    for _ in 0..count {
                        publish(&broker, &mut choices).await;
                    }
                    let results: Vec<_> = opened.iter_mut().map(delivered).collect();
                    assert_eq!(results[1], results[0], "{document}\n{variables}");
                    assert_eq!(results[2], results[0], "{document}\n{variables}");
                }
            }
        });
    });
    assert!(compiled.get() * 4 > requests.get(), "{} of {} were compiled", compiled.get(), requests.get());
}

async fn publish(broker: &Broker, choices: &mut Choices<'_>) {
    let topic = TopicName::parse(choices.pick(&["news", "n.1", "n.2"])).unwrap();
    let data = choices.pick(&["1", "null", r#"{"a":[1.50,"é\n"]}"#, "\"\\u00e9\""]);
    let id = choices.pick(&[None, Some("\"quoted\" \\ ü")]);
    let key = choices.pick(&[None, Some("k"), Some("\"")]);
    let new_message = NewMessage {
        id: id.map(|id| MessageId::parse(id).unwrap()),
        key: key.map(|key| Key::parse(key).unwrap()),
        headers: Headers::parse(choices.pick(&["{}", r#"{"a":"\u00e9\\\"","b":""}"#])).unwrap(),
        is_removal: key.is_some() && data == "null",
        ..NewMessage::of(Payload::parse(data, 100).unwrap())
    };
    broker.publish(&topic, new_message).await.unwrap();
}

/// What cannot be compiled, or is not worth it, is left to async-graphql.
#[test]
fn what_is_unusual_is_not_compiled() {
    let compiled = |text: &str| {
        let document = super::Document::prepare(text, &Settings::default().documents).unwrap();
        super::Programs::<()>::compile(&document, u64::MAX).is_some()
    };
    let publish = |rest: &str| format!(r#"mutation {{ publish(topic: "a", data: 1) {{ offset }} {rest}}}"#);
    assert!(compiled(&publish("")) && compiled(&publish("again: __typename")));
    let aliases = |count: usize| (0..count).map(|n| format!("a{n}: offset ")).collect::<String>();
    let message = |selected: &str| format!(r#"subscription {{ messages(topic: "a") {{ {selected} }} }}"#);
    assert!(compiled(&message(&aliases(49))));
    for text in [
        "{ health { status } }",
        "subscription { topicEvents { name } }",
        &publish(r#"deleteTopic(name: "a") { name } "#),
        &format!("{} query Q {{ health {{ status }} }}", publish("").replace("mutation", "mutation M")),
        "mutation($x: Int!) { publish(topic: \"a\", data: {x: $x}) { offset } }",
        &message("offset @nope"),
        &message("offset nope"),
        &message(&format!("{}: offset", "x".repeat(9_000))),
        "subscription($a: Boolean!, $b: Boolean!, $c: Boolean!, $d: Boolean!) { messages(topic: \"a\") {
            id @skip(if: $a) data @skip(if: $b) key @skip(if: $c) offset @skip(if: $d) } }",
    ] {
        assert!(!compiled(text), "{text}");
    }
}
