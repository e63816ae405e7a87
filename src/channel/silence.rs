//! Topics with `expect_every`: such a topic is called silent when nothing was published in it for longer than that.
//!
//! Publishing does nothing for this. A task of the broker looks at these topics, of which there are few, once a second.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use super::{Channel, Timestamp};

/// The topics with `expect_every`, and perhaps some that had it.
#[derive(Default)]
pub(super) struct Expecting {
    pub topics: Mutex<Vec<Weak<Channel>>>,
    /// How many of them were silent when they were last looked at.
    pub silent: AtomicUsize,
}

/// What is known of one topic.
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
    /// Whether it was silent when it was last looked at.
    pub(crate) fn is_silent(&self) -> bool {
        self.silence.is_silent.load(Ordering::Relaxed)
    }

    /// Whether nothing was published in it for longer than its `expect_every`; `None` where it has none.
    pub(super) fn is_overdue(&self, now: Timestamp) -> Option<bool> {
        let ring = self.ring.lock();
        let expected = ring.bounds.expect_every.filter(|_| !ring.closed)?;
        let last = ring.last_published_at.unwrap_or(self.created_at);
        let expected = i64::try_from(expected.as_millis()).unwrap_or(i64::MAX);
        Some(now.0.saturating_sub(last.0) > expected)
    }
}
