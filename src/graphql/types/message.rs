//! Messages, gaps and pages of history.

use std::sync::Arc;

use async_graphql::{Description, Enum, ID, Object, SimpleObject};

use super::int;
use crate::{
    broker::{self, Gap as BrokerGap, GapReason as BrokerGapReason, Page, PatternCursor},
    graphql::scalars::{Cursor, DateTime, Headers, Json, Long},
};

/// Why messages could not be delivered.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "BrokerGapReason")]
pub enum GapReason {
    /// The subscriber fell off the history while connected, or skips by its `overflow` choice.
    SlowConsumer,
    /// The next message after the asked position is no longer kept, or messages have become too old since.
    Expired,
    /// The asked position is of another incarnation of the topic: it was recreated, or its log was reset.
    NewEpoch,
    /// The subscriber's consumer was moved forward by `seekConsumer`, and passes over these.
    Seek,
    /// The topic keeps the newest message of each key only: these have been replaced since, or removed.
    Compacted,
}

/// What a subscriber missed at one position of its stream.
#[derive(SimpleObject, Clone)]
pub struct Gap {
    /// How many messages; null only where a clustered engine cannot know.
    missed: Option<Long>,
    /// The first offset missed.
    from_offset: Long,
    /// The last offset missed, included; one less than `fromOffset` when nothing was.
    to_offset: Long,
    /// Why.
    reason: GapReason,
}

impl From<&BrokerGap> for Gap {
    fn from(gap: &BrokerGap) -> Self {
        Self {
            missed: gap.missed.map(Long),
            from_offset: Long(gap.from_offset),
            to_offset: Long(gap.to_offset),
            reason: gap.reason.into(),
        }
    }
}

/// One message of a topic. Messages never change.
#[derive(Description)]
#[expect(clippy::struct_field_names, reason = "the message itself, and what is said beside it")]
pub struct Message {
    pub message: Arc<broker::Message>,
    pub gap: Option<BrokerGap>,
    /// Set where it is delivered through a pattern.
    pub pattern_cursor: Option<PatternCursor>,
    /// Whether the message before it may have been passed over by a filter.
    pub filtered: bool,
}

#[Object(use_type_description)]
impl Message {
    /// Unique over all topics: the text of `cursor`. Clients that keep objects by their id keep each message for itself.
    async fn id(&self) -> ID {
        self.message.cursor.to_string().into()
    }

    /// The publisher's id, else a generated UUID (version 7); unique within its topic. 1 to 255 bytes. The other interfaces call
    /// it `id`.
    async fn message_id(&self) -> ID {
        self.message.id.as_str().into()
    }

    /// The name of the message's topic.
    async fn topic(&self) -> &str {
        self.message.topic.as_str()
    }

    /// What was published: any JSON value. Null is one: a message always has data.
    async fn data(&self) -> Option<Json> {
        Some(Json(self.message.data.clone()))
    }

    /// The publisher's key, if it gave one. 1 to 255 bytes.
    async fn key(&self) -> Option<&str> {
        self.message.key.as_ref().map(broker::Key::as_str)
    }

    /// What the publisher gave with the data; null if nothing.
    async fn headers(&self) -> Option<Headers> {
        self.message.headers.as_ref().map(|headers| Headers(headers.as_json().to_owned()))
    }

    /// Whether this message removed its key, which then has no value any more. Its data is null.
    async fn removed(&self) -> bool {
        self.message.is_removal
    }

    /// The message's number in its topic: grows strictly within an epoch, from 1.
    async fn offset(&self) -> Long {
        Long(self.message.cursor.offset)
    }

    /// The message's position, for `after`.
    async fn cursor(&self) -> Cursor {
        self.message.cursor.into()
    }

    /// The position over all topics behind this message, for `after` of a subscription to a pattern; null unless the message
    /// was delivered through one.
    async fn pattern_cursor(&self) -> Option<Cursor> {
        self.pattern_cursor.as_ref().map(|cursor| Cursor(cursor.to_string()))
    }

    /// The cursor of the message before this one in the topic, kept or not: who compares it with the cursor of the message
    /// that it got before finds what a gateway in between has dropped. Null for the topic's first message, and in a
    /// subscription with a filter.
    async fn previous(&self) -> Option<Cursor> {
        let previous = broker::Cursor { offset: self.message.prev, ..self.message.cursor };
        (!self.filtered && previous.offset > 0).then(|| previous.into())
    }

    /// When the message was accepted. Never decreases within a topic.
    async fn published_at(&self) -> DateTime {
        DateTime(self.message.published_at)
    }

    /// What was missed just before this message; null when nothing was. The same stands in the result's `extensions.gap`.
    async fn gap(&self) -> Option<Gap> {
        self.gap.as_ref().map(Gap::from)
    }
}

/// Where a page stands in its whole.
#[derive(SimpleObject, Default)]
#[graphql(shareable)]
pub struct PageInfo {
    /// Whether there is more after the page.
    pub has_next_page: bool,
    /// Whether there is more before the page that is still kept.
    pub has_previous_page: bool,
    /// The position of the page's first item; null on an empty page.
    pub start_cursor: Option<Cursor>,
    /// The position of the page's last item, to go on from. A topic's history has one on an empty page, too: the position where
    /// the next message will come.
    pub end_cursor: Option<Cursor>,
}

/// A message with its position.
#[derive(SimpleObject)]
pub struct MessageEdge {
    /// The message's position, for `after` and `before`.
    cursor: Cursor,
    /// The message.
    node: Message,
}

impl From<Message> for MessageEdge {
    fn from(node: Message) -> Self {
        Self { cursor: node.message.cursor.into(), node }
    }
}

/// A page of a topic's history, oldest first.
#[derive(Description)]
pub struct MessageConnection {
    page: Page,
    info: PageInfo,
    total: usize,
}

impl MessageConnection {
    pub fn new(page: Page, total: usize) -> Self {
        let cursor = |message: &Arc<broker::Message>| message.cursor.into();
        let info = PageInfo {
            has_next_page: page.has_next,
            has_previous_page: page.has_previous,
            start_cursor: page.messages.first().map(cursor),
            end_cursor: Some(page.end.into()),
        };
        Self { page, info, total }
    }

    fn messages(&self) -> impl Iterator<Item = Message> {
        // What was missed stands before the message behind it.
        let messages = self.page.with_gaps();
        messages.map(|(message, gap)| Message {
            message: message.clone(),
            gap: gap.cloned(),
            pattern_cursor: None,
            filtered: false,
        })
    }
}

#[Object(use_type_description)]
impl MessageConnection {
    /// The messages with their positions.
    async fn edges(&self) -> Vec<MessageEdge> {
        self.messages().map(MessageEdge::from).collect()
    }

    /// The messages.
    async fn nodes(&self) -> Vec<Message> {
        self.messages().collect()
    }

    /// Where the page stands in the history.
    async fn page_info(&self) -> &PageInfo {
        &self.info
    }

    /// Messages in the whole history.
    async fn total_count(&self) -> i32 {
        int(self.total)
    }

    /// What was missed between the asked position and the page's first message; null when nothing was.
    async fn gap(&self) -> Option<Gap> {
        self.page.gap.as_ref().map(Gap::from)
    }
}
