//! A message on its way into a topic: from its publisher, or from the store that has numbered it.

use super::{Age, Headers, Key, MessageId, Payload, Timestamp};

/// A message on its way to the broker.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Any JSON value.
    pub data: Payload,
    /// Makes publishing idempotent: a repeated id within the window returns the first one's publication.
    pub id: Option<MessageId>,
    /// For filters and for keeping the latest of each key.
    pub key: Option<Key>,
    /// Publish only if this is the topic's newest offset (0: the topic has had no message).
    pub expected_offset: Option<u64>,
    /// Set for an imported message: it was published before, in another incarnation of its topic.
    pub origin: Option<Origin>,
    /// What goes with the data.
    pub headers: Option<Headers>,
    /// How long it is kept after its publication, at most; never nothing.
    pub ttl: Option<Age>,
    /// Publish only if this is the newest offset of the message's key (0: no message of the key is kept).
    pub expected_key_offset: Option<u64>,
    /// Whether it says that its key has no value any more; its data is null then.
    pub is_removal: bool,
}

/// What a message keeps of its first publication. The topic's rate limited that one, so it does not limit the import.
#[derive(Clone, Debug)]
pub struct Origin {
    /// When it was accepted.
    pub at: Timestamp,
    /// The id that was made up for it, if the publisher gave none.
    pub made_up_id: Option<MessageId>,
}

/// A message that an engine has numbered and stored.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its offset.
    pub offset: u64,
    /// The offset before it: nothing was published in the topic between the two.
    pub prev: u64,
    /// When it was accepted.
    pub at: Timestamp,
    /// Its id.
    pub id: MessageId,
    /// Whether the publisher gave the id.
    pub given_id: bool,
    /// Its key.
    pub key: Option<Key>,
    /// Its data.
    pub data: Payload,
    /// Its headers.
    pub headers: Option<Headers>,
    /// How long it is kept after its publication, at most.
    pub ttl: Option<Age>,
    /// Whether it says that its key has no value any more.
    pub is_removal: bool,
}

impl NewMessage {
    /// A message that has nothing but its data.
    #[must_use]
    pub fn of(data: Payload) -> Self {
        Self {
            data,
            id: None,
            key: None,
            expected_offset: None,
            origin: None,
            headers: None,
            ttl: None,
            expected_key_offset: None,
            is_removal: false,
        }
    }

    /// The id of the message to be: the publisher's, else the one it had before, else a new one.
    pub(crate) fn message_id(&self) -> MessageId {
        let made_up = || self.origin.as_ref()?.made_up_id.clone();
        self.id.clone().or_else(made_up).unwrap_or_else(MessageId::generate)
    }
}
