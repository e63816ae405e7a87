//! The broker's own events: topics are created, changed and deleted. They are messages of a channel like any other.

use super::Message;

/// What happened to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicEventKind {
    /// It exists now.
    Created,
    /// Its settings changed.
    Updated,
    /// It is gone.
    Deleted,
    /// Nothing was published in it for longer than it expects.
    Silent,
    /// Something was published in it again.
    Resumed,
}

impl TopicEventKind {
    const ALL: [TopicEventKind; 5] = [
        TopicEventKind::Created,
        TopicEventKind::Updated,
        TopicEventKind::Deleted,
        TopicEventKind::Silent,
        TopicEventKind::Resumed,
    ];

    /// The kind's name at every door.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            TopicEventKind::Created => "CREATED",
            TopicEventKind::Updated => "UPDATED",
            TopicEventKind::Deleted => "DELETED",
            TopicEventKind::Silent => "SILENT",
            TopicEventKind::Resumed => "RESUMED",
        }
    }

    /// The kind that a message of the broker's own events is about.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| message.data.as_str().trim_matches('"') == kind.code())
    }
}
