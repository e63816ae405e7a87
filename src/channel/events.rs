//! The broker's own events: what becomes of topics. They are messages of a channel like any other.

use super::{Key, Message, NewMessage, Payload, Registry, TopicName};

/// What became of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicEventKind {
    /// It exists now.
    Created,
    /// Its settings changed.
    Updated,
    /// It is gone.
    Deleted,
}

impl TopicEventKind {
    const ALL: [TopicEventKind; 3] = [TopicEventKind::Created, TopicEventKind::Updated, TopicEventKind::Deleted];

    /// The kind's name at every door.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            TopicEventKind::Created => "CREATED",
            TopicEventKind::Updated => "UPDATED",
            TopicEventKind::Deleted => "DELETED",
        }
    }

    /// The kind that a message of the broker's own events is about.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| message.data.as_str().trim_matches('"') == kind.code())
    }
}

impl Registry {
    /// Called under the registry's lock, so that events stand in the order in which things happened.
    pub(super) fn announce(&self, name: &TopicName, kind: TopicEventKind) {
        let data = Payload::parse(&format!("{:?}", kind.code()), usize::MAX);
        let key = Key::parse(name.as_str());
        if let (Ok(data), Ok(key)) = (data, key) {
            // The events' own channel has no limits, so there is nothing to refuse.
            let _ =
                self.events.append(NewMessage { data, id: None, key: Some(key), expected_offset: None, origin: None });
        }
    }
}
