//! Mutations.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_graphql::{Context, Description, ID, InputObject, Name, Object, Result, Value};

use super::{
    scalars::{Cursor, Data, DateTime, Headers, Long},
    types::{Publication, PublishResult, Retention, Topic, UNPAGED, list_weight, refuse},
};
use crate::{
    broker::{
        self, Age, Client, ConsumerName, Error, NewMessage, Payload, Source, Start, TopicConfig, TopicInfo, TopicName,
    },
    wire::{self, BesideData},
};

/// Changing: topics, messages, consumers.
#[derive(Description)]
pub struct Mutation;

/// One message of a batch.
#[derive(InputObject)]
pub struct PublishInput {
    /// The topic's name.
    topic: String,
    /// Any JSON value, at most 1 MiB as compact text unless the server sets otherwise. Null is a value.
    data: Data,
    /// Makes publishing idempotent: with an id that the topic knows, nothing is stored, and the publication is the first
    /// one's. 1 to 255 bytes. The other interfaces call it `id`.
    message_id: Option<ID>,
    /// For filters and for keeping the latest of each key. 1 to 255 bytes.
    key: Option<String>,
    /// Publish only if this is the topic's newest offset; 0 means that it has had no message.
    expected_offset: Option<Long>,
    /// What goes with the data, such as the context of a trace.
    headers: Option<Headers>,
    /// How long the message is kept at most, like `30s` or `24h`. After that it is delivered to nobody.
    ttl: Option<String>,
    /// Publish only if this is the newest offset of the key; 0 means that no message of it is kept.
    expected_key_offset: Option<Long>,
    /// Whether it removes its key, as `removeKey` does. The data must be null then.
    #[graphql(default)]
    remove: bool,
}

/// Where a consumer is moved: exactly one of these.
#[derive(InputObject)]
pub struct SeekInput {
    /// Behind this position: a message's own cursor, or, of a pattern, a pattern cursor.
    after: Option<Cursor>,
    /// Before the first message published at or after this time.
    since: Option<DateTime>,
    /// Before the last so many kept messages; 0 is the end.
    last: Option<i32>,
}

impl SeekInput {
    fn start(&self) -> Result<Start, Error> {
        let not_negative = |count| u32::try_from(count).map_err(|_| Error::bad_request("last", "must not be negative"));
        let last = self.last.map(not_negative).transpose()?;
        let after = self.after.as_ref().map(|cursor| cursor.0.as_str());
        wire::seek_target(last, after, self.since.map(|time| time.0))
    }
}

/// How many messages the batches of one operation have published and refused.
#[derive(Default)]
pub struct BatchCounts {
    published: AtomicUsize,
    refused: AtomicUsize,
}

impl BatchCounts {
    fn add<T, E>(&self, results: &[Result<T, E>]) {
        let refused = results.iter().filter(|result| result.is_err()).count();
        self.refused.fetch_add(refused, Ordering::Relaxed);
        self.published.fetch_add(results.len() - refused, Ordering::Relaxed);
    }

    /// The extension of the operation's result, if anything was refused.
    pub fn extension(&self) -> Option<(String, Value)> {
        if self.refused.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let count = |count: &AtomicUsize| Value::from(count.load(Ordering::Relaxed));
        let counts = [(Name::new("published"), count(&self.published)), (Name::new("refused"), count(&self.refused))];
        Some(("publishMany".to_owned(), Value::Object(counts.into())))
    }
}

/// A message to publish, as a client gave it.
pub struct Input<'a> {
    pub topic: &'a str,
    /// `None` where it is missing.
    pub data: Option<Payload>,
    pub beside: BesideData<'a>,
}

/// What a client acknowledges.
pub struct Acknowledgement<T> {
    pub topic: T,
    pub consumer: T,
    pub cursor: T,
    pub owner: Option<T>,
}

/// The message with its topic.
///
/// # Errors
/// Why it is refused before anything is done.
pub fn new_message(client: &Client, input: Input<'_>) -> Result<(TopicName, NewMessage), Error> {
    let data = input.data.ok_or_else(|| Error::bad_request("data", "is missing"))?;
    let data = data.within(client.settings().max_payload_bytes)?;
    let new_message = wire::new_message(data, input.beside)?;
    Ok((TopicName::parse(input.topic)?, new_message))
}

/// Publishes a message.
///
/// # Errors
/// Why it is refused, now or before.
pub async fn publish(
    client: &Client,
    item: Result<(TopicName, NewMessage), Error>,
) -> Result<broker::Publication, Error> {
    let (topic, new_message) = item?;
    client.publish(&topic, new_message).await
}

/// Publishes messages in their order, and counts them.
///
/// # Errors
/// They are too many.
pub async fn publish_many(
    client: &Client,
    items: impl ExactSizeIterator<Item = Result<(TopicName, NewMessage), Error>>,
    counts: &BatchCounts,
) -> Result<Vec<PublishResult>, Error> {
    let limit = client.settings().max_batch;
    if items.len() > limit {
        return Err(Error::bad_request("messages", format!("must hold at most {limit} messages")));
    }
    let results = client.publish_many(items).await;
    counts.add(&results);
    Ok(results.into_iter().map(Into::into).collect())
}

/// Moves a consumer's position.
///
/// # Errors
/// Why that is refused.
pub async fn acknowledge<T: AsRef<str>>(client: &Client, given: &Acknowledgement<T>) -> Result<bool, Error> {
    let source = Source::parse(given.topic.as_ref())?;
    let consumer = ConsumerName::parse(given.consumer.as_ref())?;
    let cursor = Cursor::parse_topic("cursor", given.cursor.as_ref())?;
    let owner = given.owner.as_ref().map(AsRef::as_ref);
    client.acknowledge(&source, &consumer, owner, cursor).await?;
    Ok(true)
}

fn topic(client: &Client, info: TopicInfo) -> Topic {
    Topic { client: client.clone(), info }
}

impl PublishInput {
    fn new_message(self, client: &Client) -> Result<(TopicName, NewMessage), Error> {
        let input = Input {
            topic: &self.topic,
            data: self.data.0,
            beside: BesideData {
                id: self.message_id.as_deref().map(String::as_str),
                key: self.key.as_deref(),
                expected_offset: self.expected_offset.map(|offset| offset.0),
                headers: self.headers.as_ref().map(|headers| headers.0.as_str()),
                ttl: self.ttl.as_deref(),
                expected_key_offset: self.expected_key_offset.map(|offset| offset.0),
                remove: self.remove,
            },
        };
        new_message(client, input)
    }
}

/// What a topic sets for itself, as a client gave it.
struct Given<'a> {
    max_messages: Option<i32>,
    max_publish_rate: Option<i32>,
    max_age: Option<&'a str>,
    expect_every: Option<&'a str>,
    retention: Option<Retention>,
    max_keys: Option<i32>,
}

fn settings(given: &Given<'_>) -> Result<TopicConfig, Error> {
    let Given { max_messages, max_publish_rate, max_age, expect_every, retention, max_keys } = *given;
    let negative = |field| move |_| Error::bad_request(field, "must not be negative");
    Ok(TopicConfig {
        max_messages: max_messages.map(usize::try_from).transpose().map_err(negative("max_messages"))?,
        max_publish_rate: max_publish_rate.map(u32::try_from).transpose().map_err(negative("max_publish_rate"))?,
        max_age: max_age.map(|age| Age::parse("max_age", age)).transpose()?,
        expect_every: expect_every.map(|text| wire::parse_milliseconds("expect_every", text)).transpose()?,
        retention: retention.map(Into::into),
        max_keys: max_keys.map(usize::try_from).transpose().map_err(negative("max_keys"))?,
    })
}

#[Object(use_type_description)]
impl Mutation {
    /// Creates a topic. One that only exists implicitly is adopted; a second creation is refused with `TOPIC_EXISTS`.
    #[expect(clippy::too_many_arguments, reason = "each is an argument of the field")]
    async fn create_topic(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "1 to 255 bytes of UTF-8 without `*`, `>`, control characters, outer white space and leading `$`."
        )]
        name: String,
        #[graphql(desc = "The bound of its history in messages, from 1; the server's setting unless given.")]
        max_messages: Option<i32>,
        #[graphql(
            desc = "Messages a second that may be published; 0 means no limit; the server's setting unless given."
        )]
        max_publish_rate: Option<i32>,
        #[graphql(
            desc = "How old its messages may become, like `90s` or `24h`; `0s` means no limit; the server's setting unless given."
        )]
        max_age: Option<String>,
        #[graphql(
            desc = "After how long without a message the topic is said to be silent, from 1s, such as `5m`; never unless given."
        )]
        expect_every: Option<String>,
        #[graphql(desc = "Which of its messages are kept: `HISTORY` unless given.")] retention: Option<Retention>,
        #[graphql(
            desc = "How many keys may have a value where only the newest message of each key is kept; the server's setting unless given, which is also the most."
        )]
        max_keys: Option<i32>,
    ) -> Result<Topic> {
        let name = TopicName::parse(&name).map_err(refuse)?;
        let (max_age, expect_every) = (max_age.as_deref(), expect_every.as_deref());
        let given = Given { max_messages, max_publish_rate, max_age, expect_every, retention, max_keys };
        let settings = settings(&given).map_err(refuse)?;
        let client = ctx.data::<Client>()?;
        Ok(topic(client, client.create_topic(&name, settings).await.map_err(refuse)?))
    }

    /// Changes a topic's settings; what is not given stays. A smaller history and a shorter age take effect at once.
    #[expect(clippy::too_many_arguments, reason = "each is an argument of the field")]
    async fn update_topic(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The topic's name.")] name: String,
        #[graphql(desc = "The bound of its history in messages, from 1.")] max_messages: Option<i32>,
        #[graphql(desc = "Messages a second that may be published; 0 means no limit.")] max_publish_rate: Option<i32>,
        #[graphql(desc = "How old its messages may become, like `90s` or `24h`; `0s` means no limit.")] max_age: Option<
            String,
        >,
        #[graphql(
            desc = "After how long without a message the topic is said to be silent, from 1s; `0s` means never."
        )]
        expect_every: Option<String>,
        #[graphql(
            desc = "Which of its messages are kept. `LATEST_PER_KEY` takes all others out at once, and is refused while messages without a key are kept."
        )]
        retention: Option<Retention>,
        #[graphql(desc = "How many keys may have a value where only the newest message of each key is kept.")]
        max_keys: Option<i32>,
    ) -> Result<Topic> {
        let name = TopicName::parse(&name).map_err(refuse)?;
        let (max_age, expect_every) = (max_age.as_deref(), expect_every.as_deref());
        let given = Given { max_messages, max_publish_rate, max_age, expect_every, retention, max_keys };
        let settings = settings(&given).map_err(refuse)?;
        let client = ctx.data::<Client>()?;
        Ok(topic(client, client.update_topic(&name, settings).await.map_err(refuse)?))
    }

    /// Deletes a topic with its history and consumers, and answers what it was. Its subscriptions end.
    async fn delete_topic(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The topic's name.")] name: String,
    ) -> Result<Topic> {
        let name = TopicName::parse(&name).map_err(refuse)?;
        let client = ctx.data::<Client>()?;
        Ok(topic(client, client.delete_topic(&name).await.map_err(refuse)?))
    }

    /// Publishes a message and answers where it stands, after the engine has accepted it.
    #[expect(clippy::too_many_arguments, reason = "each is an argument of the field")]
    async fn publish(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The topic's name.")] topic: String,
        #[graphql(
            desc = "Any JSON value, at most 1 MiB as compact text unless the server sets otherwise. Null is a value."
        )]
        data: Data,
        #[graphql(
            desc = "Makes publishing idempotent: with an id that the topic knows, nothing is stored, and the publication is the first one's. 1 to 255 bytes. The other interfaces call it `id`."
        )]
        message_id: Option<ID>,
        #[graphql(desc = "For filters and for keeping the latest of each key. 1 to 255 bytes.")] key: Option<String>,
        #[graphql(desc = "Publish only if this is the topic's newest offset; 0 means that it has had no message.")]
        expected_offset: Option<Long>,
        #[graphql(desc = "What goes with the data, such as the context of a trace.")] headers: Option<Headers>,
        #[graphql(
            desc = "How long the message is kept at most, like `30s` or `24h`. After that it is delivered to nobody."
        )]
        ttl: Option<String>,
        #[graphql(
            desc = "Publish only if this is the newest offset of the key; 0 means that no message of it is kept."
        )]
        expected_key_offset: Option<Long>,
    ) -> Result<Publication> {
        let input = PublishInput {
            topic,
            data,
            message_id,
            key,
            expected_offset,
            headers,
            ttl,
            expected_key_offset,
            remove: false,
        };
        let client = ctx.data::<Client>()?;
        publish(client, input.new_message(client)).await.map(Publication).map_err(refuse)
    }

    /// Publishes that a key has no value any more: a message with `removed: true` and `data: null`. A key may be removed that
    /// has no value.
    async fn remove_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The topic's name.")] topic: String,
        #[graphql(desc = "1 to 255 bytes.")] key: String,
        #[graphql(
            desc = "Makes removing idempotent: with an id that the topic knows, nothing is stored, and the publication is the first one's. 1 to 255 bytes. The other interfaces call it `id`."
        )]
        message_id: Option<ID>,
        #[graphql(desc = "Remove only if this is the topic's newest offset; 0 means that it has had no message.")]
        expected_offset: Option<Long>,
        #[graphql(
            desc = "Remove only if this is the newest offset of the key; 0 means that no message of it is kept."
        )]
        expected_key_offset: Option<Long>,
    ) -> Result<Publication> {
        let input = PublishInput {
            topic,
            data: Data(Some(Payload::null())),
            message_id,
            key: Some(key),
            expected_offset,
            headers: None,
            ttl: None,
            expected_key_offset,
            remove: true,
        };
        let client = ctx.data::<Client>()?;
        publish(client, input.new_message(client)).await.map(Publication).map_err(refuse)
    }

    /// Publishes several messages in their order; each has its own result, and one that is refused does not stop those
    /// after it. If any was refused, the result's `extensions.publishMany` says how many were `published` and `refused`.
    // To weigh what was really sent would mean to read it twice.
    #[graphql(complexity = "list_weight(UNPAGED, child_complexity)")]
    async fn publish_many(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "At most 1,000 unless the server sets otherwise.")] messages: Vec<PublishInput>,
    ) -> Result<Vec<PublishResult>> {
        let client = ctx.data::<Client>()?;
        let items = messages.into_iter().map(|input| input.new_message(client));
        publish_many(client, items, ctx.data::<Arc<BatchCounts>>()?).await.map_err(refuse)
    }

    /// Moves a consumer's position behind a cursor; everything up to it counts as processed. A cursor behind the position
    /// changes nothing.
    async fn acknowledge(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The topic's name, or the pattern as it was subscribed.")] topic: String,
        #[graphql(desc = "The consumer's name.")] consumer: String,
        #[graphql(desc = "The cursor of the last message processed.")] cursor: Cursor,
        #[graphql(
            desc = "The principal whom the consumer belongs to: your own unless given, or the only one of the name among those whose topic you manage."
        )]
        owner: Option<String>,
    ) -> Result<bool> {
        let given = Acknowledgement { topic, consumer, cursor: cursor.0, owner };
        acknowledge(ctx.data::<Client>()?, &given).await.map_err(refuse)
    }

    /// Moves a consumer to another position, forward or back, and answers which: of a pattern, its pattern cursor. A live
    /// subscription of it goes on from there by itself; what it passes over by that is told as a gap with reason `SEEK`.
    /// Whoever moves another principal's consumer must manage the topic.
    async fn seek_consumer(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The topic's name, or the pattern as it was subscribed.")] topic: String,
        #[graphql(desc = "The consumer's name.")] consumer: String,
        #[graphql(desc = "Where to: exactly one of its fields.")] to: SeekInput,
        #[graphql(
            desc = "The principal whom the consumer belongs to: your own unless given, or the only one of the name among those whose topic you manage."
        )]
        owner: Option<String>,
    ) -> Result<Cursor> {
        let source = Source::parse(&topic).map_err(refuse)?;
        let consumer = ConsumerName::parse(&consumer).map_err(refuse)?;
        let to = to.start().map_err(refuse)?;
        let client = ctx.data::<Client>()?;
        let moved = client.seek_consumer(&source, &consumer, owner.as_deref(), to).await.map_err(refuse)?;
        Ok(Cursor(moved.to_string()))
    }

    /// Ends a live subscription of this instance with an error of code `DISCONNECTED`; its client may subscribe again. One of
    /// another principal may be ended by whoever manages what it reads.
    async fn disconnect(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The subscription's id, as its topic lists it.")] subscription: ID,
    ) -> Result<bool> {
        let id = subscription.parse().map_err(refuse)?;
        ctx.data::<Client>()?.disconnect(id).map_err(refuse)?;
        Ok(true)
    }

    /// Forgets a consumer and its position. A live subscription of it ends.
    async fn delete_consumer(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The topic's name, or the pattern as it was subscribed.")] topic: String,
        #[graphql(desc = "The consumer's name.")] consumer: String,
        #[graphql(
            desc = "The principal whom the consumer belongs to: your own unless given, or the only one of the name among those whose topic you manage."
        )]
        owner: Option<String>,
    ) -> Result<bool> {
        let source = Source::parse(&topic).map_err(refuse)?;
        let consumer = ConsumerName::parse(&consumer).map_err(refuse)?;
        let client = ctx.data::<Client>()?;
        client.delete_consumer(&source, &consumer, owner.as_deref()).await.map_err(refuse)?;
        Ok(true)
    }
}
