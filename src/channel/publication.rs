//! What is known of a message that was published.

use std::time::Duration;

use super::{Cursor, Message, MessageId, Timestamp, TopicName};

/// Where a published message stands.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The message's id.
    pub id: MessageId,
    /// Its topic.
    pub topic: TopicName,
    /// Its position.
    pub cursor: Cursor,
    /// When it was accepted.
    pub published_at: Timestamp,
    /// Whether the id was known, and this is the first one's position.
    pub duplicate: bool,
}

/// A publisher's id that is known though there is no message to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownId {
    /// The id.
    pub id: MessageId,
    /// When its message was published.
    pub at: Timestamp,
}

impl KnownId {
    /// Whether a publication with this id is still a duplicate, `window` being the time for which ids are known.
    #[must_use]
    pub fn is_within(&self, window: Duration) -> bool {
        let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        self.at.0 > Timestamp::now().0.saturating_sub(window)
    }
}

impl Publication {
    pub(crate) fn of(message: &Message, duplicate: bool) -> Self {
        Self {
            id: message.id.clone(),
            topic: message.topic.clone(),
            cursor: message.cursor,
            published_at: message.published_at,
            duplicate,
        }
    }
}
