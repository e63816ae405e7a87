//! Pages of a topic's state: of each key the newest kept message, unless that removes the key.

use std::sync::Arc;

use super::{Broker, Cursor, Error, TopicName, topics};
use crate::channel::{BatchLimit, Channel, Message, StateStep};

/// A piece of a topic's state, in the order of offsets.
#[derive(Debug)]
pub struct StatePage {
    /// The newest message of each key.
    pub messages: Vec<Arc<Message>>,
    /// The position to go on from; `None` where nothing follows.
    pub next: Option<Cursor>,
}

impl Broker {
    /// The state behind a position, of keys that begin with `prefix`, one page. The topic's lock is held for a bounded time
    /// again and again: a key that changes meanwhile is found in its newest form, if it has not been passed.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`]; [`Error::BadRequest`] for a cursor that was not given out, or in another incarnation of the
    /// topic.
    pub async fn state(
        &self,
        name: &TopicName,
        prefix: &str,
        after: Option<Cursor>,
        limit: BatchLimit,
    ) -> Result<StatePage, Error> {
        let channel = self.look_up(name, after).await?;
        if after.is_some_and(|cursor| cursor.epoch != channel.epoch()) {
            return Err(Error::bad_request("after", "is of another incarnation of the topic"));
        }
        if after.is_some_and(|cursor| topics::is_ahead(&channel, cursor)) {
            return Err(topics::ahead("after"));
        }
        let mut messages = Vec::new();
        let (mut after, mut bytes) = (after.map_or(0, |cursor| cursor.offset), 0);
        // One more than asked for shows whether anything follows.
        let most = limit.messages.saturating_add(1);
        loop {
            let (read, before) = (messages.len(), after);
            let left = BatchLimit { messages: most - read, bytes: limit.bytes.saturating_sub(bytes) };
            let StateStep { after: looked_at, more } = channel.step_of_state(after, prefix, left, &mut messages);
            after = looked_at;
            bytes += messages.iter().skip(read).map(|message| message.data.len()).sum::<usize>();
            let is_full = messages.len() >= most || bytes >= limit.bytes;
            if is_full && (more || messages.len() >= most) {
                messages.truncate(limit.messages);
                let next = messages.last().map(|last| last.cursor);
                return Ok(StatePage { messages, next });
            }
            if !more || after == before {
                return Ok(StatePage { messages, next: None });
            }
            tokio::task::yield_now().await;
        }
    }

    /// How many keys have a value that begin with `prefix`.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`].
    pub async fn count_state(&self, name: &TopicName, prefix: &str) -> Result<usize, Error> {
        let channel: Arc<Channel> = self.look_up(name, None).await?;
        let (mut count, mut after, mut found) = (0, 0, Vec::new());
        loop {
            let step = channel.step_of_state(after, prefix, BatchLimit::messages(usize::MAX), &mut found);
            count += found.len();
            found.clear();
            if !step.more || step.after == after {
                return Ok(count);
            }
            after = step.after;
            tokio::task::yield_now().await;
        }
    }
}
