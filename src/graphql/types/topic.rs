//! Topics, their subscriptions and consumers, and the events of topics.

use std::sync::Arc;

use async_graphql::{Description, Enum, ID, Object, Result, SimpleObject};

use super::{
    MessageConnection, PageInfo, StateConnection, UNPAGED, int, list_weight, page_weight, refuse,
    subscription_status::{SubscriptionStatus, milliseconds},
};
use crate::{
    broker::{self, Ack, BatchLimit, Client, ConsumerLag, ConsumerStatus, Source, Start, TopicInfo, TopicName},
    graphql::scalars::{Cursor, DateTime, Long},
    wire,
};

/// When a consumer's position moves.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "Ack")]
pub enum AckMode {
    /// As messages reach the client.
    Auto,
    /// When the client acknowledges a cursor.
    Explicit,
}

/// Which messages of a topic are kept.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "broker::Retention")]
pub enum Retention {
    /// The newest ones, up to the bounds of its history.
    History,
    /// The newest one of each key, however old it is. Every message needs a key.
    LatestPerKey,
}

/// A named consumer: the server keeps its position.
#[derive(SimpleObject)]
pub struct Consumer {
    /// Its name. 1 to 255 bytes.
    name: String,
    /// The name of the principal whom it belongs to; null on a server without access rules, and for the administrator's.
    owner: Option<String>,
    /// When its position moves, as of its newest subscription.
    ack: AckMode,
    /// Whether a subscription is live.
    connected: bool,
    /// When it was last used; now while connected.
    last_used_at: DateTime,
    /// Its position in each topic.
    #[graphql(complexity = "list_weight(UNPAGED, child_complexity)")]
    positions: Vec<Position>,
}

/// How far a consumer has come in one topic.
#[derive(SimpleObject)]
pub struct Position {
    /// The topic's name.
    topic: String,
    /// The position after which it continues.
    cursor: Cursor,
    /// The offset of that position.
    offset: Long,
    /// Messages of the topic behind it, as far as this instance knows them.
    lag: Long,
    /// For how many milliseconds the oldest of them that is kept has waited.
    lag_ms: Long,
}

impl From<ConsumerStatus> for Consumer {
    fn from(status: ConsumerStatus) -> Self {
        let position = |((topic, cursor), lag): ((TopicName, broker::Cursor), ConsumerLag)| Position {
            topic: topic.to_string(),
            cursor: cursor.into(),
            offset: Long(cursor.offset),
            lag: Long(lag.messages),
            lag_ms: Long(milliseconds(lag.time)),
        };
        let positions = status.position.cursors.into_iter().zip(status.lags);
        Self {
            name: status.name.name().to_owned(),
            owner: status.name.owner().map(str::to_owned),
            ack: status.position.ack.into(),
            connected: status.connected,
            last_used_at: DateTime(status.position.used_at),
            positions: positions.map(position).collect(),
        }
    }
}

/// A named, ordered log of messages with bounded history.
#[derive(Description)]
pub struct Topic {
    pub client: Client,
    pub info: TopicInfo,
}

#[Object(use_type_description)]
impl Topic {
    /// 1 to 255 bytes of UTF-8; `.` separates segments.
    async fn name(&self) -> &str {
        self.info.name.as_str()
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        DateTime(self.info.created_at)
    }

    /// The topic's incarnation: another after deleting it and creating it again.
    async fn epoch(&self) -> ID {
        self.info.epoch.to_string().into()
    }

    /// Messages kept in its history; where only the newest of each key is kept, the keys that have a value.
    async fn message_count(&self) -> i32 {
        int(self.info.messages)
    }

    /// Live subscriptions, those through patterns included.
    async fn subscriber_count(&self) -> i32 {
        int(self.info.subscribers)
    }

    /// The newest offset given out; 0 without any message.
    async fn last_offset(&self) -> Long {
        Long(self.info.last_offset)
    }

    /// The end of the topic now, for `after`: read the state, then subscribe from exactly there.
    async fn cursor(&self) -> Cursor {
        self.info.end.into()
    }

    /// The bound of its history in messages.
    async fn max_messages(&self) -> i32 {
        int(self.info.bounds.max_messages)
    }

    /// Messages a second that may be published; 0 means no limit.
    async fn max_publish_rate(&self) -> i32 {
        int(self.info.bounds.max_publish_rate as usize)
    }

    /// How old its messages may become, like `24h`; `0s` means no limit.
    async fn max_age(&self) -> String {
        self.info.bounds.max_age.to_string()
    }

    /// Which of its messages are kept.
    async fn retention(&self) -> Retention {
        self.info.bounds.retention.into()
    }

    /// How many keys may have a value where only the newest message of each key is kept.
    async fn max_keys(&self) -> i32 {
        int(self.info.bounds.max_keys)
    }

    /// Made by a publish or a subscribe; goes away when it has no message, subscriber or consumer.
    async fn implicit(&self) -> bool {
        self.info.implicit
    }

    /// When its newest message was published; null without any.
    async fn last_published_at(&self) -> Option<DateTime> {
        self.info.last_published_at.map(DateTime)
    }

    /// After how long without a message the topic is said to be silent, such as `5m`; null where it is never.
    async fn expect_every(&self) -> Option<String> {
        self.info.bounds.expect_every.map(wire::duration_text)
    }

    /// Whether nothing was published in it for longer than it expects.
    async fn silent(&self) -> bool {
        self.info.silent
    }

    /// A page of its history, oldest first: the `first` messages after a position, or the `last` ones before one. Without
    /// either, the first 100 kept.
    #[graphql(complexity = "page_weight(first.or(last), child_complexity)")]
    async fn messages(
        &self,
        #[graphql(desc = "At most so many messages, 1 to 1,000 unless the server sets otherwise.")] first: Option<i32>,
        #[graphql(desc = "Messages after this position.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many messages.")] last: Option<i32>,
        #[graphql(desc = "Messages before this position; goes with `last`.")] before: Option<Cursor>,
        #[graphql(desc = "Messages published at or after this time.")] since: Option<DateTime>,
    ) -> Result<MessageConnection> {
        let bad = |field, message: &str| refuse(broker::Error::bad_request(field, message));
        let most = self.client.settings().max_batch;
        let name = &self.info.name;
        if last.is_some() || before.is_some() {
            if first.is_some() || after.is_some() || since.is_some() {
                return Err(bad("last", "last and before cannot stand beside first, after and since"));
            }
            let limit = limit("last", last, most)?;
            let before = before.map(|cursor| cursor.of_topic("before")).transpose().map_err(refuse)?;
            let page = self.client.history_before(name, before, limit).await.map_err(refuse)?;
            return Ok(MessageConnection::new(page, self.info.messages));
        }
        let start = match (after, since) {
            (Some(_), Some(_)) => return Err(bad("since", "only one of after and since may be given")),
            (Some(cursor), None) => Start::After(cursor.of_topic("after").map_err(refuse)?),
            (None, Some(time)) => Start::Since(time.0),
            (None, None) => Start::Oldest,
        };
        let limit = BatchLimit::messages(limit("first", first, most)?);
        let page = self.client.history(name, start, limit).await.map_err(refuse)?;
        Ok(MessageConnection::new(page, self.info.messages))
    }

    /// A page of its state: of each key the newest kept message, in the order of offsets, without removed keys. A key whose value
    /// changes while pages are read comes again, in its newest form. To go on live, subscribe after the `cursor` that the topic
    /// had before the first page, or subscribe with `state: true` in the first place.
    #[graphql(complexity = "page_weight(first, child_complexity)")]
    async fn state(
        &self,
        #[graphql(desc = "Only keys that begin with this.")] prefix: Option<String>,
        #[graphql(desc = "At most so many, 1 to 1,000 unless the server sets otherwise; 100 unless given.")]
        first: Option<i32>,
        #[graphql(desc = "Messages after this position.")] after: Option<Cursor>,
    ) -> Result<StateConnection> {
        let limit = limit("first", first, self.client.settings().max_batch)?;
        let after = after.map(|cursor| cursor.of_topic("after")).transpose().map_err(refuse)?;
        StateConnection::new(&self.client, &self.info.name, prefix.unwrap_or_default(), after, limit).await
    }

    /// Its live subscriptions, those through patterns too: those that are furthest behind, the furthest first. Where several
    /// instances share topics, those of the instance that answers.
    #[graphql(complexity = "page_weight(first, child_complexity)")]
    async fn subscriptions(
        &self,
        #[graphql(desc = "At most so many, 1 to 1,000 unless the server sets otherwise; 100 unless given.")]
        first: Option<i32>,
    ) -> Result<Vec<SubscriptionStatus>> {
        let most = limit("first", first, self.client.settings().max_batch)?;
        let list = self.client.subscriptions(&self.info.name, most).map_err(refuse)?;
        Ok(list.into_iter().map(SubscriptionStatus::from).collect())
    }

    /// Its named consumers, by name.
    #[graphql(complexity = "list_weight(UNPAGED, child_complexity)")]
    async fn consumers(&self) -> Result<Vec<Consumer>> {
        let source = Source::Topic(self.info.name.clone());
        Ok(self.client.consumers(&source).await.map_err(refuse)?.into_iter().map(Consumer::from).collect())
    }
}

/// A page's size.
pub fn limit(field: &'static str, given: Option<i32>, most: usize) -> Result<usize> {
    match given.map(usize::try_from) {
        None => Ok(most.min(100)),
        Some(Ok(count)) if (1..=most).contains(&count) => Ok(count),
        Some(_) => Err(refuse(broker::Error::bad_request(field, format!("must be from 1 to {most}")))),
    }
}

/// A topic with its position in the order of names.
#[derive(SimpleObject)]
pub struct TopicEdge {
    /// The topic's name, for `after`.
    cursor: Cursor,
    /// The topic.
    node: Topic,
}

/// A page of topics in the order of their names.
#[derive(Description)]
pub struct TopicConnection {
    client: Client,
    topics: Vec<TopicInfo>,
    more: bool,
    after: bool,
    total: usize,
}

impl TopicConnection {
    pub fn new(client: &Client, prefix: &str, after: Option<&str>, limit: usize) -> Result<Self> {
        let (topics, more) = client.topics(prefix, after, limit).map_err(refuse)?;
        let total = client.count_topics(prefix).map_err(refuse)?;
        Ok(Self { client: client.clone(), topics, more, after: after.is_some(), total })
    }

    fn list(&self) -> impl Iterator<Item = Topic> {
        self.topics.iter().map(|info| Topic { client: self.client.clone(), info: info.clone() })
    }
}

#[Object(use_type_description)]
impl TopicConnection {
    /// The topics with their positions.
    async fn edges(&self) -> Vec<TopicEdge> {
        self.list().map(|node| TopicEdge { cursor: Cursor(node.info.name.to_string()), node }).collect()
    }

    /// The topics.
    async fn nodes(&self) -> Vec<Topic> {
        self.list().collect()
    }

    /// Where the page stands among the topics.
    async fn page_info(&self) -> PageInfo {
        let name = |info: Option<&TopicInfo>| info.map(|info| Cursor(info.name.to_string()));
        PageInfo {
            has_next_page: self.more,
            has_previous_page: self.after,
            start_cursor: name(self.topics.first()),
            end_cursor: name(self.topics.last()),
        }
    }

    /// Topics that begin with the prefix.
    async fn total_count(&self) -> i32 {
        int(self.total)
    }
}

/// What became of a topic.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "broker::TopicEventKind")]
pub enum TopicEventKind {
    /// It exists now.
    Created,
    /// Its settings changed.
    Updated,
    /// It is gone.
    Deleted,
    /// Nothing was published in it for longer than it expects (`expectEvery`).
    Silent,
    /// Something was published in it again.
    Resumed,
}

/// Something became of a topic.
#[derive(Description)]
pub struct TopicEvent {
    pub client: Client,
    pub kind: broker::TopicEventKind,
    pub message: Arc<broker::Message>,
}

#[Object(use_type_description)]
impl TopicEvent {
    /// What happened.
    async fn kind(&self) -> TopicEventKind {
        self.kind.into()
    }

    /// The topic's name.
    async fn name(&self) -> &str {
        self.message.key.as_ref().map_or("", broker::Key::as_str)
    }

    /// When it happened.
    async fn at(&self) -> DateTime {
        DateTime(self.message.published_at)
    }

    /// The topic as it is when the event is delivered; null when there is none of the name.
    async fn topic(&self) -> Option<Topic> {
        let name = TopicName::parse(self.message.key.as_ref()?.as_str()).ok()?;
        // An event is rendered at once or not at all.
        let info = self.client.topic_here(&name).ok()?;
        Some(Topic { client: self.client.clone(), info })
    }
}
