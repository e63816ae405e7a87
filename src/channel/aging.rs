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

/// What one step of the sweep has taken out of a topic's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// The newest offset that is no longer kept, if it has moved.
    pub floor: Option<u64>,
    /// The offsets, behind it, of messages whose own time was over.
    pub within: Vec<u64>,
    /// Whether the step had to end before everything was taken out that is too old.
    pub more: bool,
}
