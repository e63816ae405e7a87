//! What a subscriber gets where messages could not be delivered.

use super::TopicName;

/// Why messages could not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The subscriber fell off the history while connected, or skips by its `overflow` choice.
    SlowConsumer,
    /// The next message after the asked position is no longer kept, or messages have become too old since.
    Expired,
    /// The asked position is of another incarnation of the topic.
    NewEpoch,
    /// The subscriber's consumer was moved forward: it passes over what lies between.
    Seek,
    /// Only the newest message of each key is kept, and these are not the newest of their keys any more; or they were
    /// removals of keys that are no longer remembered.
    Compacted,
}

impl GapReason {
    /// The reason's name at every door.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            GapReason::SlowConsumer => "SLOW_CONSUMER",
            GapReason::Expired => "EXPIRED",
            GapReason::NewEpoch => "NEW_EPOCH",
            GapReason::Seek => "SEEK",
            GapReason::Compacted => "COMPACTED",
        }
    }
}

/// What a subscriber missed at this very position of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The topic in which it happened.
    pub topic: TopicName,
    /// How many messages; `None` where the engine cannot know.
    pub missed: Option<u64>,
    /// The first offset missed.
    pub from_offset: u64,
    /// The last offset missed; `from_offset - 1` where nothing was (a new epoch that is still whole).
    pub to_offset: u64,
    /// Why.
    pub reason: GapReason,
}

impl Gap {
    /// One gap of two that follow each other, where there are both.
    #[must_use]
    pub fn joined(before: Option<Gap>, next: Option<Gap>) -> Option<Gap> {
        match (before, next) {
            (Some(before), Some(next)) => Some(before.and_then(&next)),
            (before, next) => before.or(next),
        }
    }

    /// Joins a gap that follows directly; the earlier reason stays.
    #[must_use]
    pub fn and_then(self, next: &Gap) -> Gap {
        Gap {
            missed: self.missed.zip(next.missed).map(|(a, b)| a + b),
            to_offset: next.to_offset.max(self.to_offset),
            ..self
        }
    }
}
