//! What the broker may hold and how it behaves: every bound with its default.

use std::time::Duration;

use super::FilterLimits;
use crate::{
    channel::{Age, MAX_KEYS, TopicBounds},
    engine::Bounds,
};

/// What the broker may hold and how it behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bound of a topic's history in messages, unless the topic sets its own; 1 or more.
    pub max_messages_per_topic: usize,
    /// The largest bound that a topic may set for itself.
    pub max_messages_limit: usize,
    /// Messages a second and topic that may be published, unless the topic sets its own; 0 means no limit.
    pub max_publish_rate: u32,
    /// Messages a second that one client may publish over all topics, a client being a principal or, without one, an
    /// address; 0 means no limit.
    pub max_publish_rate_per_client: u32,
    /// Whether publishing and subscribing make the topic.
    pub auto_create_topics: bool,
    /// Topics that may exist.
    pub max_topics: usize,
    /// Bytes of compact JSON in one message.
    pub max_payload_bytes: usize,
    /// Bytes one topic's history may hold.
    pub max_bytes_per_topic: usize,
    /// Bytes all histories may hold.
    pub max_history_bytes: usize,
    /// Messages in one batch or page.
    pub max_batch: usize,
    /// Different patterns that may be subscribed.
    pub max_patterns: usize,
    /// Consumers of one topic or pattern.
    pub max_consumers_per_topic: usize,
    /// Consumers in all.
    pub max_consumers: usize,
    /// Topics whose positions one consumer of a pattern may hold.
    pub max_topics_per_consumer: usize,
    /// How long an unused consumer is kept.
    pub consumer_ttl: Duration,
    /// How long a publisher's message id is remembered after its publication, even when the message is gone.
    pub dedup_window: Duration,
    /// Bytes that the ids of messages that are not kept may take.
    pub dedup_bytes: usize,
    /// Bounds on filters.
    pub filter: FilterLimits,
    /// Topics that have series of their own in the metrics: those with the most messages.
    pub metrics_topics: usize,
    /// How old messages may become, unless their topic sets its own; nothing means no limit.
    pub max_age: Duration,
    /// How many keys of one topic may have a value that keeps the newest message of each key, unless the topic sets fewer; 1 or
    /// more.
    pub max_keys: usize,
    /// How long the removal of a key is remembered in such a topic; nothing means as long as the topic.
    pub tombstone_ttl: Duration,
}

impl Settings {
    /// What holds for topics that set nothing for themselves.
    #[must_use]
    pub fn defaults(&self) -> TopicBounds {
        let max_age = Age::of(self.max_age);
        TopicBounds {
            max_age,
            max_keys: self.max_keys,
            tombstone_ttl: Age::of(self.tombstone_ttl),
            ..TopicBounds::new(self.max_messages_per_topic, self.max_publish_rate)
        }
    }
}

impl Settings {
    /// Those that an engine keeps to.
    #[must_use]
    pub fn engine_bounds(&self) -> Bounds {
        let Self { max_payload_bytes, dedup_window, dedup_bytes, .. } = *self;
        Bounds { max_payload_bytes, dedup_window, dedup_bytes }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_messages_per_topic: 1_000,
            max_messages_limit: 1_000_000,
            max_publish_rate: 100,
            max_publish_rate_per_client: 0,
            auto_create_topics: true,
            max_topics: 100_000,
            max_payload_bytes: 1 << 20,
            max_bytes_per_topic: 64 << 20,
            max_history_bytes: 1 << 30,
            max_batch: 1_000,
            max_patterns: 10_000,
            max_consumers_per_topic: 1_000,
            max_consumers: 100_000,
            max_topics_per_consumer: 10_000,
            consumer_ttl: Duration::from_hours(24),
            dedup_window: Duration::from_mins(5),
            dedup_bytes: 64 << 20,
            filter: FilterLimits::default(),
            metrics_topics: 0,
            max_age: Duration::ZERO,
            max_keys: MAX_KEYS,
            tombstone_ttl: Duration::from_hours(24),
        }
    }
}
