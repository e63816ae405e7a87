//! The doors as a subscriber sees them, all alike.

pub mod graphql_single;
pub mod graphql_sse;
pub mod graphql_ws;
pub mod multipart;
pub mod raw_ws;
pub mod rest_pages;
pub mod sse;

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

pub use graphql_single::GraphqlSingle;
pub use graphql_sse::GraphqlSse;
pub use graphql_ws::{GraphqlWs, LegacyWs};
pub use multipart::Multipart;
pub use raw_ws::RawWs;
pub use rest_pages::RestPages;
pub use sse::Sse;

use crate::harness::{Client, offsets_are_dense};

/// Where a subscription begins.
#[derive(Clone, Debug)]
pub enum Start {
    Live,
    Last(u32),
    After(String),
    Since(String),
    /// With the newest message of each key.
    State,
}

/// What else a subscription may ask for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub filter: Option<Value>,
    pub consumer: Option<&'static str>,
    pub ack: Option<&'static str>,
    pub overflow: Option<&'static str>,
}

impl Options {
    pub fn consumer(name: &'static str, ack: &'static str) -> Self {
        Self { consumer: Some(name), ack: Some(ack), ..Self::default() }
    }

    pub fn overflow(choice: &'static str) -> Self {
        Self { overflow: Some(choice), ..Self::default() }
    }

    pub fn filter(filter: Value) -> Self {
        Self { filter: Some(filter), ..Self::default() }
    }
}

/// What a subscriber gets, in the same words for all doors.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Message(Message),
    Gap(Gap),
    /// The topic was deleted.
    Deleted(String),
    /// The state is complete at this position.
    State(String),
    /// The subscription ended with this code.
    Error(String),
    /// The door closed in good order, with this code where it has one.
    Closed(Option<u16>),
    /// The connection broke.
    Cut,
}

impl Event {
    #[track_caller]
    pub fn message(self) -> Message {
        match self {
            Event::Message(message) => message,
            other => panic!("a message was due, not {other:?}"),
        }
    }

    #[track_caller]
    pub fn gap(self) -> Gap {
        match self {
            Event::Gap(gap) => gap,
            other => panic!("a gap was due, not {other:?}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub topic: String,
    pub data: Value,
    /// The data as it stood on the wire.
    pub text: String,
    pub id: String,
    pub offset: u64,
    pub cursor: String,
    /// The position over all topics, where it came through a pattern.
    pub pattern_cursor: Option<String>,
    pub key: Option<String>,
    pub removed: bool,
}

impl Message {
    /// Where a client resumes that has got this message.
    pub fn position(&self) -> &str {
        self.pattern_cursor.as_ref().unwrap_or(&self.cursor)
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Gap {
    pub topic: Option<String>,
    pub missed: Option<u64>,
    #[serde(alias = "fromOffset")]
    pub from_offset: u64,
    #[serde(alias = "toOffset")]
    pub to_offset: u64,
    pub reason: String,
}

/// Where a WebSocket is opened.
#[derive(Clone, Copy)]
pub struct Endpoint {
    pub path: &'static str,
    pub protocol: Option<&'static str>,
}

/// A subscriber's end of a door: one connection.
pub trait Door: Sized + Send {
    /// Whether the server pushes; pages are asked for.
    const PUSHES: bool = true;
    /// The reason of a gap after the client has not read for long.
    const SLOW: &'static str = "SLOW_CONSUMER";
    /// Whether several subscriptions share the connection.
    const SHARES: bool = false;
    /// The WebSocket, where the door is one: its client's pongs acknowledge what was delivered.
    const SOCKET: Option<Endpoint> = None;
    /// Whether a client that comes back to a named consumer says with `Last-Event-ID` what it has seen.
    const RESUMES: bool = false;
    /// Whether the topic's name is a segment of the path, which cannot be empty.
    const NAME_IN_PATH: bool = false;
    /// Whether a pattern's subscription is told that one of its topics was deleted.
    const TELLS_OF_TOPICS: bool = true;

    /// Connects.
    async fn open(client: &Client) -> Self;

    /// Subscribes; messages published after this has returned are delivered.
    ///
    /// # Errors
    /// The code with which the server refused.
    async fn subscribe(&mut self, topic: &str, start: Start, options: &Options) -> Result<(), String>;

    /// The next event, in time.
    async fn event(&mut self) -> Event;

    /// Unsubscribes; nothing published after this has returned is delivered.
    async fn unsubscribe(&mut self, topic: &str);

    /// Checks that the connection still works.
    async fn assert_open(&mut self);

    /// Goes through the close handshake, where there is one.
    async fn close(self);

    /// What the server has said of the newest subscription's consumer.
    fn consumer(&self) -> Option<Value> {
        None
    }

    /// What has come over the wire already and was not asked for yet.
    fn received(&mut self) -> Vec<Event> {
        Vec::new()
    }

    /// Opens and subscribes.
    async fn to(client: &Client, topic: &str, start: Start) -> Self {
        Self::with(client, topic, start, &Options::default()).await
    }

    /// Opens and subscribes with options.
    async fn with(client: &Client, topic: &str, start: Start, options: &Options) -> Self {
        let mut door = Self::open(client).await;
        door.subscribe(topic, start, options).await.unwrap();
        door
    }

    /// The next so many messages; anything else is an error.
    async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            messages.push(self.event().await.message());
        }
        messages
    }

    /// Events up to and including the message of this offset.
    async fn events_to(&mut self, offset: u64) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.event().await;
            let last = matches!(&event, Event::Message(message) if message.offset >= offset);
            assert!(!matches!(event, Event::Cut | Event::Closed(_) | Event::Error(_)), "{event:?} after {events:?}");
            events.push(event);
            if last {
                return events;
            }
        }
    }
}

/// The cursor of another offset in the same epoch.
pub fn cursor_at(cursor: &str, offset: u64) -> String {
    let (epoch, _) = cursor.split_once('-').unwrap();
    let digits = format!("{offset:x}");
    format!("{epoch}-{:x}{digits}", digits.len() - 1)
}

/// The data of each message as a number.
#[track_caller]
pub fn numbers(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.data.as_u64().unwrap_or_else(|| panic!("{message:?}"))).collect()
}

/// Messages and gaps cover the offsets from `first` to `last`, each once, in order; returns how many were missed.
#[track_caller]
pub fn assert_tiles(events: &[Event], first: u64, last: u64) -> u64 {
    let (mut next, mut missed, mut ids) = (first, 0, HashSet::new());
    for event in events {
        match event {
            Event::Message(message) => {
                assert_eq!(message.offset, next, "the message after offset {}", next - 1);
                assert!(ids.insert(&message.id), "{message:?} came twice");
                next += 1;
            }
            Event::Gap(gap) => {
                assert_eq!(gap.from_offset, next, "{gap:?} after offset {}", next - 1);
                let between = gap.to_offset + 1 - gap.from_offset;
                // Far back, a shared engine does not know how many were its own.
                let known = gap.missed.or_else(|| (!offsets_are_dense()).then_some(between));
                assert_eq!(known, Some(between), "{gap:?}");
                missed += between;
                next = gap.to_offset + 1;
            }
            other => panic!("{other:?} among messages"),
        }
    }
    assert_eq!(next - 1, last, "the stream ends at another offset");
    missed
}

/// One message as every door writes it; GraphQL and REST differ only in what stands around.
#[derive(Deserialize)]
struct MessageFields<'a> {
    topic: String,
    #[serde(borrow)]
    data: &'a RawValue,
    id: String,
    offset: u64,
    cursor: String,
    #[serde(alias = "patternCursor")]
    pattern_cursor: Option<String>,
    key: Option<String>,
    #[serde(default)]
    removed: bool,
}

impl MessageFields<'_> {
    fn read(self) -> Message {
        assert!(!self.id.is_empty() && !self.cursor.is_empty() && self.offset > 0);
        Message {
            topic: self.topic,
            data: serde_json::from_str(self.data.get()).unwrap(),
            text: self.data.get().to_owned(),
            id: self.id,
            offset: self.offset,
            cursor: self.cursor,
            pattern_cursor: self.pattern_cursor,
            key: self.key,
            removed: self.removed,
        }
    }
}

/// A frame of `/ws`, or the data of a server-sent event.
fn read_frame(text: &str) -> Event {
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
        topic: Option<String>,
        msg: Option<String>,
        error: Option<Value>,
        cursor: Option<String>,
        pattern_cursor: Option<String>,
        ts: Value,
    }
    let frame: Kind = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(crate::harness::is_time(&frame.ts), "{text}");
    match (frame.r#type.as_str(), frame.msg.as_deref()) {
        ("event", _) => Event::Message(serde_json::from_str::<MessageFields<'_>>(text).unwrap().read()),
        ("gap", _) => Event::Gap(serde_json::from_str(text).unwrap()),
        ("state", _) => Event::State(frame.pattern_cursor.or(frame.cursor).unwrap()),
        ("info", Some("topic_deleted")) => Event::Deleted(frame.topic.unwrap()),
        ("error", _) => Event::Error(frame.error.unwrap()["code"].as_str().unwrap().to_owned()),
        _ => panic!("{text}"),
    }
}

/// A GraphQL subscription of messages as a document: values stand in it, so that no type needs to be named.
fn subscription(topic: &str, start: &Start, options: &Options) -> String {
    let mut arguments = format!("topic: {}", Value::from(topic));
    match start {
        Start::Live => {}
        Start::Last(count) => arguments += &format!(", last: {count}"),
        Start::After(cursor) => arguments += &format!(", after: {cursor:?}"),
        Start::Since(time) => arguments += &format!(", since: {time:?}"),
        Start::State => arguments += ", state: true",
    }
    if let Some(filter) = &options.filter {
        arguments += &format!(", filter: {}", literal(filter));
    }
    if let Some(name) = options.consumer {
        arguments += &format!(", consumer: {}", Value::from(name));
    }
    for (name, value) in [("ack", options.ack), ("overflow", options.overflow)] {
        if let Some(value) = value {
            arguments += &format!(", {name}: {value}");
        }
    }
    format!(
        "subscription {{ messages({arguments}) {{ id: messageId topic data key removed offset cursor patternCursor publishedAt \
         gap {{ missed fromOffset toOffset reason }} }} }}"
    )
}

/// JSON as a GraphQL literal: keys without quotes.
fn literal(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {}", literal(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        plain => plain.to_string(),
    }
}

/// What one execution result of a subscription to `topic` says: a gap, a message, the end of the state, an end, in this
/// order.
fn read_result(text: &str, topic: &str, consumer: &mut Option<Value>) -> Vec<Event> {
    #[derive(Deserialize)]
    struct Execution<'a> {
        #[serde(borrow)]
        data: Option<Data<'a>>,
        #[serde(default)]
        errors: Vec<Value>,
        #[serde(default)]
        extensions: Extensions,
    }
    #[derive(Default, Deserialize)]
    struct Extensions {
        gap: Option<Gap>,
        consumer: Option<Value>,
        deleted: Option<Value>,
        state: Option<State>,
    }
    #[derive(Deserialize)]
    struct State {
        complete: bool,
        cursor: String,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        messages: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct OwnGap {
        gap: Option<Gap>,
    }
    let result: Execution<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    if result.extensions.consumer.is_some() {
        *consumer = result.extensions.consumer;
    }
    let mut events = Vec::new();
    if let Some(message) = result.data.and_then(|data| data.messages).filter(|raw| raw.get() != "null") {
        let own = serde_json::from_str::<OwnGap>(message.get()).unwrap().gap;
        assert_eq!(own.is_some(), result.extensions.gap.is_some(), "{text}");
        if let (Some(own), Some(told)) = (own, &result.extensions.gap) {
            assert_eq!(
                (own.missed, own.from_offset, own.to_offset, &own.reason),
                (told.missed, told.from_offset, told.to_offset, &told.reason)
            );
        }
        events.push(Event::Message(serde_json::from_str::<MessageFields<'_>>(message.get()).unwrap().read()));
    }
    if let Some(gap) = result.extensions.gap {
        events.insert(0, Event::Gap(gap));
    }
    events.extend(result.extensions.state.map(|state| {
        assert!(state.complete);
        Event::State(state.cursor)
    }));
    events
        .extend(result.extensions.deleted.map(|deleted| Event::Deleted(deleted["topic"].as_str().unwrap().to_owned())));
    events.extend(result.errors.iter().map(|error| match code_of(error).as_str() {
        "TOPIC_DELETED" => Event::Deleted(topic.to_owned()),
        code => Event::Error(code.to_owned()),
    }));
    events
}

fn code_of(error: &Value) -> String {
    error["extensions"]["code"].as_str().unwrap_or_else(|| panic!("no code in {error}")).to_owned()
}

/// One test for each door that each scenario, `async fn name<D: Door>()`, is run through. Doors that differ from another
/// one only in how the bytes of a result are wrapped stand in a module `memory`: what an engine does is the same for them.
macro_rules! every_door {
    ($($scenario:ident),* $(,)?) => {
        each_door!([GraphqlWs, RawWs, Sse, GraphqlSse, RestPages] [LegacyWs, GraphqlSingle, Multipart] $($scenario)*);
    };
}

/// The same for doors that push.
macro_rules! every_pushing_door {
    ($($scenario:ident),* $(,)?) => {
        each_door!([GraphqlWs, RawWs, Sse, GraphqlSse] [LegacyWs, GraphqlSingle, Multipart] $($scenario)*);
    };
}

/// The same for doors on which several subscriptions share a connection.
macro_rules! every_shared_door {
    ($($scenario:ident),* $(,)?) => {
        each_door!([GraphqlWs, RawWs] [LegacyWs, GraphqlSingle] $($scenario)*);
    };
}

/// The same for WebSockets.
macro_rules! every_socket_door {
    ($($scenario:ident),* $(,)?) => {
        each_door!([GraphqlWs, RawWs] [LegacyWs] $($scenario)*);
    };
}

/// The same for doors that know what a client has received before it was cut: by its pongs, or by what it says when it
/// comes back.
macro_rules! every_resuming_door {
    ($($scenario:ident),* $(,)?) => {
        each_door!([GraphqlWs, RawWs, Sse, GraphqlSse] [LegacyWs, Multipart] $($scenario)*);
    };
}

macro_rules! each_door {
    (@tests $path:tt [$($door:ident),*]) => {
        $(each_door!(@test $path $door);)*
    };
    (@test [$($path:tt)*] $door:ident) => {
        #[tokio::test]
        #[expect(non_snake_case, reason = "named after the door")]
        async fn $door() {
            $($path)*::<crate::doors::$door>().await;
        }
    };
    ($doors:tt $variants:tt $($scenario:ident)*) => {
        $(mod $scenario {
            each_door!(@tests [super::$scenario] $doors);
            mod memory {
                each_door!(@tests [super::super::$scenario] $variants);
            }
        })*
    };
}

/// The same expression for every door that pushes, in an array: `pushing_doors!(D => refused::<D>(&server).await)`.
macro_rules! pushing_doors {
    (@each $name:ident => $value:expr, $($door:ident)*) => {
        [$({
            type $name = crate::doors::$door;
            $value
        }),*]
    };
    ($door:ident => $value:expr) => {
        pushing_doors!(@each $door => $value, GraphqlWs LegacyWs RawWs Sse GraphqlSse GraphqlSingle Multipart)
    };
}
