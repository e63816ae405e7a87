//! Finds the topics in which nothing was published for longer than their `expect_every`, and announces them.

use std::sync::{Weak, atomic::Ordering};

use super::{Registry, Timestamp, TopicEventKind, TopicName};

impl Registry {
    /// In how many topics nothing had been published for longer than their `expect_every`, when they were last looked at.
    #[must_use]
    pub fn silent(&self) -> usize {
        self.expecting.silent.load(Ordering::Relaxed)
    }

    /// Finds the topics that have become silent, and those in which something was published again, and announces them. Returns
    /// their names, each with whether it has become silent. The server calls this about once a second.
    pub fn look_for_silence(&self) -> Vec<(TopicName, bool)> {
        let expecting = &self.expecting;
        let watched: Vec<_> = {
            let mut topics = expecting.topics.lock();
            topics.retain(|topic| topic.strong_count() > 0);
            topics.iter().filter_map(Weak::upgrade).collect()
        };
        let now = Timestamp::now();
        let (mut changed, mut silent) = (Vec::new(), 0);
        for topic in watched {
            let overdue = topic.is_overdue(now).unwrap_or(false);
            silent += usize::from(overdue);
            if topic.silence.is_silent.swap(overdue, Ordering::Relaxed) != overdue {
                let kind = if overdue { TopicEventKind::Silent } else { TopicEventKind::Resumed };
                if self.announce_of(&topic, kind) {
                    changed.push((topic.name.clone(), overdue));
                }
            }
        }
        expecting.silent.store(silent, Ordering::Relaxed);
        changed
    }
}
