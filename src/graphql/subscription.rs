//! Subscriptions. A resolver only opens one: async-graphql reads and checks the arguments, the resolver subscribes at the
//! broker and hands the subscription to the connection, which reads it and puts single messages back into the execution to
//! have them rendered (`execute.rs`).

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use async_graphql::{Context, Description, InputObject, MaybeUndefined, Result, Subscription};
use parking_lot::Mutex;
use tokio_stream::Stream;

use super::{
    scalars::{Cursor, DateTime, Json},
    types::{AckMode, Message, Overflow, TopicEvent, filter_json, refuse},
};
use crate::{
    broker::{self, Ack, Client, ConsumerName, Error, Inbox, Pattern, Source, Start, Subscribe, Timestamp},
    wire::{self, Options},
};

/// Messages and topic events as they happen.
#[derive(Description)]
pub struct SubscriptionRoot;

/// What a connection hands to the resolver. The resolver puts the subscription into it.
pub struct SubscribeContext {
    pub inbox: Inbox,
    pub key: u64,
    /// Where a client that reconnects says it was (`Last-Event-ID`); goes before the start in the document.
    pub resume: Option<Start>,
    pub opened: Mutex<Option<OpenedSubscription>>,
}

/// An open subscription and the way to have its items rendered.
pub struct OpenedSubscription {
    pub subscription: broker::Subscription,
    pub slot: ItemSlot,
}

/// Where the execution takes its next item from. `None` makes a result without an item, which carries a gap where no message
/// follows it.
pub enum ItemSlot {
    Messages { slot: Slot<Option<Message>>, delivery: Delivery },
    Events(Client, Slot<Option<TopicEvent>>),
}

/// What the results of a subscription to messages depend on beside what it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// Whether the message before another one may have been passed over by a filter.
    pub filtered: bool,
    /// Whether messages come through a pattern.
    pub through_pattern: bool,
}

impl Delivery {
    /// How messages are delivered to this request.
    pub fn of(request: &Subscribe) -> Self {
        let through_pattern = matches!(request.source, Source::Pattern(_));
        Self { filtered: request.filter.is_some(), through_pattern }
    }
}

/// Where one side puts an item that the execution's stream takes.
pub struct Slot<T>(Arc<Mutex<Items<T>>>);

struct Items<T> {
    waiting: VecDeque<T>,
    waker: Option<Waker>,
}

impl<T> Slot<T> {
    fn new() -> (Self, SlotStream<T>) {
        let items = Arc::new(Mutex::new(Items { waiting: VecDeque::new(), waker: None }));
        (Self(items.clone()), SlotStream(items))
    }

    pub fn put(&self, item: T) {
        let mut items = self.0.lock();
        items.waiting.push_back(item);
        if let Some(waker) = items.waker.take() {
            drop(items);
            waker.wake();
        }
    }
}

/// The execution's end of a slot.
pub struct SlotStream<T>(Arc<Mutex<Items<T>>>);

impl<T> Stream for SlotStream<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<T>> {
        let mut items = self.0.lock();
        if let Some(item) = items.waiting.pop_front() {
            return Poll::Ready(Some(item));
        }
        items.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Which messages are wanted: one condition on a field, or several joined. Exactly one of `field`, `and`, `or` and `not`;
/// with `field`, all operators given must hold. At most 64 conditions, 4 KiB as JSON, unless the server sets otherwise.
#[derive(InputObject)]
pub struct Filter {
    /// The way into the message's data, object keys and array indexes joined by `.`: `order.total`. `$key` is the
    /// message's key.
    field: Option<String>,
    /// Equal to this JSON value; numbers by value, objects whatever the order of their keys. Null that is given is a value,
    /// too: only a field that is null equals it. For no condition, leave it out.
    eq: MaybeUndefined<Json>,
    /// Not equal to this JSON value, or missing. Null that is given is a value: only a field that is null fails.
    ne: MaybeUndefined<Json>,
    /// Equal to one of these.
    #[graphql(name = "in")]
    one_of: Option<Vec<Json>>,
    /// Greater than this number or string.
    gt: Option<Json>,
    /// Greater than or equal to this number or string.
    gte: Option<Json>,
    /// Less than this number or string.
    lt: Option<Json>,
    /// Less than or equal to this number or string.
    lte: Option<Json>,
    /// Whether the field is there at all; null counts as there.
    exists: Option<bool>,
    /// A string that begins so.
    starts_with: Option<String>,
    /// A string that has this part, or an array that has this element.
    contains: Option<Json>,
    /// All of these hold.
    and: Option<Vec<Filter>>,
    /// One of these holds.
    or: Option<Vec<Filter>>,
    /// This does not hold.
    not: Option<Box<Filter>>,
}

impl Filter {
    /// The same in the broker's language. Nesting is bounded by the document's and the variables'.
    fn to_json(&self) -> String {
        let quoted = |text: &String| wire::quoted(text);
        let raw = |value: &Json| value.0.as_str().to_owned();
        let nullable = |value: &MaybeUndefined<Json>| match value {
            MaybeUndefined::Undefined => None,
            MaybeUndefined::Null => Some("null".to_owned()),
            MaybeUndefined::Value(value) => Some(raw(value)),
        };
        let list = |items: Vec<String>| format!("[{}]", items.join(","));
        let filters = |filters: &Vec<Filter>| list(filters.iter().map(Filter::to_json).collect());
        let members = [
            ("field", self.field.as_ref().map(quoted)),
            ("startsWith", self.starts_with.as_ref().map(quoted)),
            ("eq", nullable(&self.eq)),
            ("ne", nullable(&self.ne)),
            ("gt", self.gt.as_ref().map(raw)),
            ("gte", self.gte.as_ref().map(raw)),
            ("lt", self.lt.as_ref().map(raw)),
            ("lte", self.lte.as_ref().map(raw)),
            ("contains", self.contains.as_ref().map(raw)),
            ("exists", self.exists.map(|exists| exists.to_string())),
            ("in", self.one_of.as_ref().map(|values| list(values.iter().map(raw).collect()))),
            ("and", self.and.as_ref().map(filters)),
            ("or", self.or.as_ref().map(filters)),
            ("not", self.not.as_ref().map(|filter| filter.to_json())),
        ];
        let members = members.into_iter().filter_map(|(name, value)| Some(format!("\"{name}\":{}", value?)));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

/// What a client asks for beside a topic and a filter.
pub struct MessagesArguments<'a> {
    pub last: Option<i32>,
    pub after: Option<&'a str>,
    pub since: Option<Timestamp>,
    pub state: Option<bool>,
    pub consumer: Option<&'a str>,
    pub ack: Option<Ack>,
    pub consumer_ttl: Option<&'a str>,
    pub overflow: Option<broker::Overflow>,
}

impl MessagesArguments<'_> {
    /// The same as the broker's types.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn options(self) -> Result<Options, Error> {
        let not_negative = |count| u32::try_from(count).map_err(|_| Error::bad_request("last", "must not be negative"));
        Ok(Options {
            last: self.last.map(not_negative).transpose()?,
            after: self.after.map(|cursor| Cursor::position("after", cursor).map(Into::into)).transpose()?,
            since: self.since,
            state: self.state.unwrap_or_default(),
            filter: None,
            consumer: self.consumer.map(ConsumerName::parse).transpose()?,
            consumer_ttl: self.consumer_ttl.map(|text| wire::parse_duration("consumer_ttl", text)).transpose()?,
            ack: self.ack,
            overflow: self.overflow,
        })
    }
}

/// The request for a topic or pattern.
///
/// # Errors
/// The name breaks the rule, or the options contradict each other.
pub fn subscribe_request(topic: &str, options: Options) -> Result<Subscribe, Error> {
    options.subscribe(Source::parse(topic)?)
}

#[Subscription(name = "Subscription", use_type_description)]
impl SubscriptionRoot {
    /// The messages of a topic, or of all topics whose names match a pattern (`*` is any one segment, `>` at the end one or
    /// more): history from the asked position, then live, in order, each once. Where messages could not be delivered,
    /// `gap` of the next one and the result's `extensions.gap` say how many and which. Where no message follows that, the
    /// result has null and `extensions.gap`. With none of `last`, `after`, `since` and
    /// `state` it begins live.
    #[expect(clippy::too_many_arguments, reason = "the names and the flat form are the contract's")]
    async fn messages(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A topic's name or a pattern, 1 to 255 bytes.")] topic: String,
        #[graphql(desc = "Begin with the last so many kept messages.")] last: Option<i32>,
        #[graphql(desc = "Begin after this position: a message's `cursor`, or its `patternCursor` for a pattern.")]
        after: Option<Cursor>,
        #[graphql(desc = "Begin with messages published at or after this time.")] since: Option<DateTime>,
        #[graphql(
            desc = "Begin with the newest kept message of each key, without removed keys; then go on live. When that is complete, the result's `extensions.state` says so, with the position: that of the last message, or where there is none one with null."
        )]
        state: Option<bool>,
        #[graphql(desc = "Only messages that match; others are neither delivered nor counted as missed.")]
        filter: Option<Filter>,
        #[graphql(
            desc = "Keep the position under this name, 1 to 255 bytes, and go on from it next time; the start is then for the first time only. A newer connection with the same name takes over."
        )]
        consumer: Option<String>,
        #[graphql(desc = "When the consumer's position moves; AUTO unless given.")] ack: Option<AckMode>,
        #[graphql(
            desc = "How long the consumer is kept while nobody uses it, like `15m` or `24h`; the server's `CONSUMER_TTL` at most and unless given. A consumer with this may go earlier where another one needs its room."
        )]
        consumer_ttl: Option<String>,
        #[graphql(desc = "What happens when the subscription falls behind; HISTORY unless given.")] overflow: Option<
            Overflow,
        >,
    ) -> Result<SlotStream<Option<Message>>> {
        let arguments = MessagesArguments {
            last,
            after: after.as_ref().map(|cursor| cursor.0.as_str()),
            since: since.map(|time| time.0),
            state,
            consumer: consumer.as_deref(),
            ack: ack.map(Into::into),
            consumer_ttl: consumer_ttl.as_deref(),
            overflow: overflow.map(Into::into),
        };
        let client = ctx.data::<Client>()?;
        let mut options = arguments.options().map_err(refuse)?;
        if let Some(filter) = filter {
            options.filter = Some(filter_json(&filter.to_json(), client)?);
        }
        let mut request = subscribe_request(&topic, options).map_err(refuse)?;
        let subscribing = ctx.data::<Arc<SubscribeContext>>()?;
        request.resume = subscribing.resume.clone();
        let delivery = Delivery::of(&request);
        let subscription = client.subscribe(request, &subscribing.inbox, subscribing.key).await.map_err(refuse)?;
        let (slot, stream) = Slot::new();
        *subscribing.opened.lock() =
            Some(OpenedSubscription { subscription, slot: ItemSlot::Messages { slot, delivery } });
        Ok(stream)
    }

    /// Topics that are created, updated and deleted from now on.
    async fn topic_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only topics with this name, or whose names match this pattern; all unless given.")]
        pattern: Option<String>,
    ) -> Result<SlotStream<Option<TopicEvent>>> {
        let about = pattern.as_deref().map(Pattern::parse).transpose().map_err(refuse)?;
        let subscribing = ctx.data::<Arc<SubscribeContext>>()?;
        let client = ctx.data::<Client>()?;
        let subscription = client.subscribe_events(about, &subscribing.inbox, subscribing.key).map_err(refuse)?;
        let (slot, stream) = Slot::new();
        *subscribing.opened.lock() =
            Some(OpenedSubscription { subscription, slot: ItemSlot::Events(client.clone(), slot) });
        Ok(stream)
    }
}
