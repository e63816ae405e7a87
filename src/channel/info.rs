//! What can be seen of a topic: its state at one moment, and all that it keeps.

use std::sync::{Arc, atomic::Ordering};

use super::{Channel, Cursor, Epoch, KnownId, Message, Timestamp, TopicBounds, TopicName};

/// What is known of a topic at one moment.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// Its name.
    pub name: TopicName,
    /// Its incarnation.
    pub epoch: Epoch,
    /// When it was made.
    pub created_at: Timestamp,
    /// Messages kept in its history.
    pub messages: usize,
    /// The newest offset given out; 0 without any.
    pub last_offset: u64,
    /// The position behind everything that was published until now.
    pub end: Cursor,
    /// Live subscriptions on this instance, those through patterns included.
    pub subscribers: usize,
    /// Its own settings over those of the server.
    pub bounds: TopicBounds,
    /// Made by a publish or subscribe; goes away with its last subscriber while it has no message.
    pub implicit: bool,
    /// When its newest message was published.
    pub last_published_at: Option<Timestamp>,
    /// Whether nothing was published in it for longer than it expects.
    pub silent: bool,
}

impl Channel {
    pub(crate) fn info(&self) -> TopicInfo {
        let direct = self.waiters.lock().len();
        let mut ring = self.ring.lock();
        let mut matched = std::mem::take(&mut ring.patterns);
        let subscribers = direct + self.patterns.subscribers(self.name.as_str(), &mut matched);
        ring.patterns = matched;
        TopicInfo {
            name: self.name.clone(),
            epoch: self.epoch,
            created_at: self.created_at,
            messages: ring.live_len(),
            last_offset: ring.newest(),
            end: Cursor { epoch: self.epoch, offset: ring.last() },
            subscribers,
            bounds: ring.bounds,
            implicit: self.implicit.load(Ordering::Relaxed),
            last_published_at: ring.last_published_at,
            silent: self.is_silent(),
        }
    }

    /// Whether somebody on this instance reads this very topic.
    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiters.lock().is_empty()
    }

    /// Whether somebody reads it through a pattern.
    pub(crate) fn has_patterns(&self) -> bool {
        let mut ring = self.ring.lock();
        let mut matched = std::mem::take(&mut ring.patterns);
        let any = self.patterns.subscribers(self.name.as_str(), &mut matched) > 0;
        ring.patterns = matched;
        any
    }

    /// All that is kept of it at one moment.
    pub(crate) fn kept(&self) -> Kept {
        let ring = self.ring.lock();
        Kept { floor: ring.live_floor(), last: ring.last(), messages: ring.kept(), ids: ring.ids_without_message() }
    }
}
/// All that is kept of a topic.
pub(crate) struct Kept {
    /// The newest offset that is no longer kept.
    pub floor: u64,
    /// The newest offset that was used.
    pub last: u64,
    /// The messages, oldest first, and of each whether its id is the publisher's.
    pub messages: Vec<(Arc<Message>, bool)>,
    /// Publishers' ids that are known without their messages, oldest first.
    pub ids: Vec<KnownId>,
}
