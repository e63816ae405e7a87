//! Topics that expect news: who is silent for longer than it should be.
//!
//! Publishing does nothing for this. Somebody looks now and then at the topics that expect news, of which there are few.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use super::{Channel, Timestamp};

/// The topics that expect news, and perhaps some that do not any more.
#[derive(Default)]
pub(super) struct Expecting {
    pub topics: Mutex<Vec<Weak<Channel>>>,
    /// How many of them were silent for too long when they were last looked at.
    pub silent: AtomicUsize,
}

/// What a topic knows about its own silence.
#[derive(Default)]
pub(super) struct Silence {
    is_watched: AtomicBool,
    pub is_silent: AtomicBool,
}

impl Expecting {
    /// The topic's settings are new.
    pub fn note(&self, topic: &Arc<Channel>) {
        let expects = topic.ring.lock().bounds.expect_every.is_some();
        if expects && !topic.silence.is_watched.swap(true, Ordering::AcqRel) {
            self.topics.lock().push(Arc::downgrade(topic));
        }
    }
}

impl Channel {
    /// Whether it was found to be silent for longer than it expects.
    pub(crate) fn is_silent(&self) -> bool {
        self.silence.is_silent.load(Ordering::Relaxed)
    }

    /// Whether it is silent now; `None` where it does not expect anything.
    pub(super) fn is_overdue(&self, now: Timestamp) -> Option<bool> {
        let ring = self.ring.lock();
        let expected = ring.bounds.expect_every.filter(|_| !ring.closed)?;
        let last = ring.last_published_at.unwrap_or(self.created_at);
        let expected = i64::try_from(expected.as_millis()).unwrap_or(i64::MAX);
        Some(now.0.saturating_sub(last.0) > expected)
    }
}
