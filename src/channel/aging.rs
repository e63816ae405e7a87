//! Which topics have messages that grow too old, and the clock by which they do.

use std::collections::HashSet;

use parking_lot::Mutex;

use super::{Clock, Epoch};

/// What the topics of an instance share to age by.
#[derive(Debug, Default)]
pub(crate) struct Aging {
    pub clock: Clock,
    /// The topics that the sweep has to look at.
    topics: Mutex<HashSet<Epoch>>,
}

impl Aging {
    /// From here on the sweep looks at this topic.
    pub fn watch(&self, topic: Epoch) {
        self.topics.lock().insert(topic);
    }

    /// The topic has nothing that grows too old any more.
    pub fn forget(&self, topic: Epoch) {
        self.topics.lock().remove(&topic);
    }

    pub fn watched(&self) -> Vec<Epoch> {
        self.topics.lock().iter().copied().collect()
    }
}

/// What is no longer kept of a topic: what a step of the sweep has taken out of its history, or what messages have replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// The newest offset that is no longer kept, if it has moved.
    pub floor: Option<u64>,
    /// The offsets of messages whose own time was over; where the newest message of each key is kept, of all of them, and else
    /// of those behind the floor.
    pub within: Vec<u64>,
    /// The offsets of messages that newer ones of their keys have replaced.
    pub replaced: Vec<u64>,
    /// Whether the step had to end before everything was taken out that is too old.
    pub more: bool,
}
