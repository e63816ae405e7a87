//! Pages of a topic's state.

use std::sync::Arc;

use async_graphql::{Description, Object, Result};

use super::{
    int,
    message::{Message, MessageEdge, PageInfo},
    refuse,
};
use crate::broker::{self, BatchLimit, Client, StatePage, TopicName};

/// A page of a topic's state, in the order of offsets.
#[derive(Description)]
pub struct StateConnection {
    client: Client,
    topic: TopicName,
    prefix: String,
    page: StatePage,
    info: PageInfo,
}

impl StateConnection {
    pub async fn new(
        client: &Client,
        topic: &TopicName,
        prefix: String,
        after: Option<broker::Cursor>,
        limit: usize,
    ) -> Result<Self> {
        let page = client.state(topic, &prefix, after, BatchLimit::messages(limit)).await.map_err(refuse)?;
        let cursor = |message: &Arc<broker::Message>| message.cursor.into();
        let info = PageInfo {
            has_next_page: page.next.is_some(),
            has_previous_page: after.is_some(),
            start_cursor: page.messages.first().map(cursor),
            end_cursor: page.messages.last().map(cursor),
        };
        Ok(Self { client: client.clone(), topic: topic.clone(), prefix, page, info })
    }

    fn messages(&self) -> impl Iterator<Item = Message> {
        let messages = self.page.messages.iter().cloned();
        // The message before it is none of the page's.
        messages.map(|message| Message { message, gap: None, pattern_cursor: None, filtered: true })
    }
}

#[Object(use_type_description)]
impl StateConnection {
    /// The newest message of each key, with its position.
    async fn edges(&self) -> Vec<MessageEdge> {
        self.messages().map(MessageEdge::from).collect()
    }

    /// The newest message of each key.
    async fn nodes(&self) -> Vec<Message> {
        self.messages().collect()
    }

    /// Where the page stands in the state.
    async fn page_info(&self) -> &PageInfo {
        &self.info
    }

    /// Keys that have a value, of those that begin with the prefix.
    async fn total_count(&self) -> Result<i32> {
        Ok(int(self.client.count_state(&self.topic, &self.prefix).await.map_err(refuse)?))
    }
}
