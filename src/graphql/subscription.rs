//! Subscriptions. The resolvers only open: async-graphql reads and checks the arguments, the resolver subscribes at the
//! broker and leaves the subscription with the connection, which reads it itself and feeds single messages back through
//! the execution to have them rendered (`execute.rs`).

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
    json,
    scalars::{Cursor, DateTime, Json},
    types::{AckMode, Message, Overflow, TopicEvent, filter_json, refuse},
};
use crate::broker::{self, Broker, ConsumerName, Error, Inbox, Pattern, Source, Start, Subscribe};
use crate::wire;

/// Being told, as it happens.
#[derive(Description)]
pub struct SubscriptionRoot {
    pub broker: Broker,
}

/// What a connection hands to the resolver, and gets the subscription back in.
pub struct Opening {
    pub inbox: Inbox,
    pub key: u64,
    /// Where a client that reconnects says it was (`Last-Event-ID`); goes before the start in the document.
    pub resume: Option<Start>,
    pub opened: Mutex<Option<Opened>>,
}

/// An open subscription and the way to have its items rendered.
pub struct Opened {
    pub subscription: broker::Subscription,
    pub feed: Feed,
}

/// Items on their way through the execution. `None` makes a result without an item, for what has to be told where no
/// message follows.
pub enum Feed {
    Messages {
        slot: Slot<Option<Message>>,
        /// Whether the subscription has a filter.
        filtered: bool,
    },
    Events(Broker, Slot<Option<TopicEvent>>),
}

/// Where one side puts an item that the execution's stream takes.
pub struct Slot<T>(Arc<Mutex<Items<T>>>);

struct Items<T> {
    waiting: VecDeque<T>,
    waker: Option<Waker>,
}

impl<T> Slot<T> {
    fn new() -> (Self, Fed<T>) {
        let items = Arc::new(Mutex::new(Items { waiting: VecDeque::new(), waker: None }));
        (Self(items.clone()), Fed(items))
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
pub struct Fed<T>(Arc<Mutex<Items<T>>>);

impl<T> Stream for Fed<T> {
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
    fn write(&self, out: &mut String) {
        out.push('{');
        let mut first = true;
        let mut name = |out: &mut String, name: &str| {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            out.push('"');
            out.push_str(name);
            out.push_str("\":");
        };
        for (key, text) in [("field", &self.field), ("startsWith", &self.starts_with)] {
            if let Some(text) = text {
                name(out, key);
                json::write_text(out, text);
            }
        }
        for (key, value) in [("eq", &self.eq), ("ne", &self.ne)] {
            match value {
                MaybeUndefined::Undefined => {}
                MaybeUndefined::Null => {
                    name(out, key);
                    out.push_str("null");
                }
                MaybeUndefined::Value(value) => {
                    name(out, key);
                    out.push_str(value.0.as_str());
                }
            }
        }
        let operands =
            [("gt", &self.gt), ("gte", &self.gte), ("lt", &self.lt), ("lte", &self.lte), ("contains", &self.contains)];
        for (key, value) in operands {
            if let Some(value) = value {
                name(out, key);
                out.push_str(value.0.as_str());
            }
        }
        if let Some(exists) = self.exists {
            name(out, "exists");
            out.push_str(if exists { "true" } else { "false" });
        }
        if let Some(values) = &self.one_of {
            name(out, "in");
            let values: Vec<_> = values.iter().map(|value| value.0.as_str()).collect();
            out.push_str(&format!("[{}]", values.join(",")));
        }
        for (key, filters) in [("and", &self.and), ("or", &self.or)] {
            if let Some(filters) = filters {
                name(out, key);
                out.push('[');
                for (index, filter) in filters.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    filter.write(out);
                }
                out.push(']');
            }
        }
        if let Some(filter) = &self.not {
            name(out, "not");
            filter.write(out);
        }
        out.push('}');
    }
}

#[Subscription(name = "Subscription", use_type_description)]
impl SubscriptionRoot {
    /// The messages of a topic, or of all topics whose names match a pattern (`*` is any one segment, `>` at the end one or
    /// more): history from the asked position, then live, in order, each once. Where messages could not be delivered,
    /// `gap` of the next one and the result's `extensions.gap` say how many and which. Where no message follows that, the
    /// result has null and `extensions.gap`. With none of `last`, `after` and `since` it begins live.
    #[expect(clippy::too_many_arguments, reason = "the names and the flat form are the contract's")]
    async fn messages(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A topic's name or a pattern, 1 to 255 bytes.")] topic: String,
        #[graphql(desc = "Begin with the last so many kept messages.")] last: Option<i32>,
        #[graphql(desc = "Begin after this position: a message's `cursor`, or its `patternCursor` for a pattern.")]
        after: Option<Cursor>,
        #[graphql(desc = "Begin with messages published at or after this time.")] since: Option<DateTime>,
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
    ) -> Result<Fed<Option<Message>>> {
        let request = || -> Result<Subscribe, Error> {
            let start = match (last, after, since) {
                (None, None, None) => None,
                (Some(count), None, None) => Some(Start::Last(
                    u32::try_from(count).map_err(|_| Error::bad_request("last", "must not be negative"))?,
                )),
                (None, Some(cursor), None) => Some(cursor.position("after")?.into()),
                (None, None, Some(time)) => Some(Start::Since(time.0)),
                _ => return Err(Error::bad_request("after", "only one of last, after and since may be given")),
            };
            if ack.is_some() && consumer.is_none() {
                return Err(Error::bad_request("ack", "needs a consumer"));
            }
            let consumer_ttl = consumer_ttl.map(|text| wire::parse_duration("consumerTtl", &text)).transpose()?;
            let name = consumer.as_deref().map(ConsumerName::parse).transpose()?;
            Ok(Subscribe {
                source: Source::parse(&topic)?,
                start,
                resume: None,
                filter: None,
                overflow: overflow.map(Into::into).unwrap_or_default(),
                consumer: name.map(|name| (name, ack.map(Into::into).unwrap_or_default())),
                consumer_ttl,
            })
        };
        let mut request = request().map_err(refuse)?;
        if let Some(filter) = filter {
            let mut json = String::new();
            filter.write(&mut json);
            request.filter = Some(filter_json(&json, &self.broker)?);
        }
        let opening = ctx.data::<Arc<Opening>>()?;
        request.resume = opening.resume.clone();
        let filtered = request.filter.is_some();
        let subscription = self.broker.subscribe(request, &opening.inbox, opening.key).await.map_err(refuse)?;
        let (slot, fed) = Slot::new();
        *opening.opened.lock() = Some(Opened { subscription, feed: Feed::Messages { slot, filtered } });
        Ok(fed)
    }

    /// What becomes of topics from now on: created, updated, deleted.
    async fn topic_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only topics with this name, or whose names match this pattern; all unless given.")]
        pattern: Option<String>,
    ) -> Result<Fed<Option<TopicEvent>>> {
        let about = pattern.as_deref().map(Pattern::parse).transpose().map_err(refuse)?;
        let opening = ctx.data::<Arc<Opening>>()?;
        let subscription = self.broker.subscribe_events(about, &opening.inbox, opening.key);
        let (slot, fed) = Slot::new();
        *opening.opened.lock() = Some(Opened { subscription, feed: Feed::Events(self.broker.clone(), slot) });
        Ok(fed)
    }
}
