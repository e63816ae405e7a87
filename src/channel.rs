//! A topic on this instance: its bounded history, who reads it, who waits for it; and the registry of all of them. It
//! knows no engine and no transport.
//!
//! What readers read is the channel, whatever the engine: an engine numbers and stores, and feeds the channel by one
//! rule of continuity ([`Channel::feed`]).

mod age;
mod aging;
mod any_cursor;
mod append;
mod attach;
mod clock;
mod config;
mod consumer;
mod consumer_name;
mod count;
mod cursor;
mod deliveries;
mod error;
mod events;
mod filter;
mod gap;
mod headers;
mod inbox;
mod incarnation;
mod info;
mod lag;
mod message;
pub(crate) mod moment;
mod name;
mod new_message;
mod overdue;
mod overflow;
mod owner;
mod page;
mod pattern;
mod patterns;
mod payload;
mod publication;
mod rate;
mod reader;
mod reading;
mod recent_ids;
mod registry;
mod restoring;
mod ring;
mod sequencer;
mod silence;
mod source;
mod subscriber;
#[cfg(test)]
mod tests;
mod timestamp;
mod waiter;

/// What `inbox.rs` is made of.
mod sync {
    pub use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    pub use parking_lot::Mutex;

    pub use super::owner::Owner;
}

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use ring::Admission;
use slab::Slab;

pub use age::Age;
pub(crate) use aging::Aging;
pub use aging::Reclaimed;
pub use any_cursor::AnyCursor;
pub use append::Feed;
pub(crate) use append::Sent;
pub use clock::Clock;
pub use config::{MAX_KEYS, Retention, TopicBounds, TopicConfig};
pub use consumer::{
    Ack, Claim, Consumer, ConsumerInfo, ConsumerKey, ConsumerLag, ConsumerLimits, ConsumerStatus, Consumers, Position,
    Sought,
};
pub use consumer_name::ConsumerName;
pub use count::{BOUNDS, Counted};
pub use cursor::{Cursor, Epoch};
pub use error::{Error, Refusal};
pub use events::TopicEventKind;
pub use filter::{Filter, FilterError, FilterLimits, quote};
pub use gap::{Gap, GapReason};
pub use headers::Headers;
pub use inbox::{Inbox, Notifier};
pub use incarnation::Incarnation;
pub use info::TopicInfo;
pub use lag::{SubscriptionInfo, SubscriptionState};
pub use message::{Message, ShapeId, renderings};
pub use name::{Key, MAX_NAME_BYTES, MessageId, TopicName};
pub use new_message::{Committed, NewMessage, Origin};
pub use overflow::Overflow;
pub use owner::{Deliver, Owner};
pub use page::Page;
pub use pattern::Pattern;
pub use payload::{Defect, MAX_NESTING, Payload};
pub use publication::{KnownId, Publication};
pub use reader::{BEHIND_MESSAGES, Event};
pub use reading::{BatchLimit, ReadStatus, Start};
pub use registry::{Registry, RegistrySettings};
pub(crate) use restoring::Restoring;
pub use sequencer::{LogPosition, PatternCursor};
pub use source::Source;
pub use subscriber::SubscriptionId;
pub use timestamp::Timestamp;
pub use waiter::Waiter;

pub(crate) use consumer::{Saving, Standing};
pub(crate) use count::{Counter, Histogram};
pub(crate) use deliveries::Deliveries;
use deliveries::News;
pub(crate) use patterns::{Member, Memberships, Patterns};
pub(crate) use rate::{Bucket, spread_waits};
pub(crate) use reader::{ALONE, Reader, Shown, Wanted};
use reading::ReadPosition;
pub(crate) use recent_ids::Remembered;
pub(crate) use registry::{Deletion, Matching};
pub(crate) use ring::StateStep;
use ring::{Begun, Budget, Ring};
pub(crate) use ring::{Numbering, Stage, Staging};
use sequencer::Sequencer;
pub(crate) use subscriber::Subscriber;

/// One incarnation of a topic on this instance.
///
/// # Lock order
///
/// Whoever takes several locks takes them in this order, which avoids deadlocks:
///
/// 1. the registry's names
/// 2. the consumers' table
/// 3. a channel's `waiters`
/// 4. a channel's `ring`
/// 5. the sequencer of the log
/// 6. the set of patterns
/// 7. the members of a pattern
/// 8. what a member has unread
/// 9. an inbox, or the queue of a deliverer
///
/// The locks of the recent ids, and of what was rendered for a message, are taken last, and none is taken under them.
/// The locks of two topics are not held at once. The channel of the broker's own events is a case apart: an event is
/// appended to it under the registry's lock, and in [`Registry::remove_unused`] under those of the topic that goes; no lock
/// of a topic is taken under one of that channel. Both locks of a channel are private to this module: others use its verbs.
pub struct Channel {
    /// Never given twice while the process lives. An engine that numbers its topics gives its own number.
    serial: u64,
    name: TopicName,
    epoch: Epoch,
    created_at: Timestamp,
    /// Made by a publish or a subscribe, not by a creation; goes away when nothing uses it.
    implicit: AtomicBool,
    ring: Mutex<Ring>,
    /// Those who read this very topic; who reads it by a pattern stands with the pattern.
    waiters: Mutex<Slab<Arc<Waiter>>>,
    /// What its subscribers have not been told yet.
    news: News,
    patterns: Arc<Patterns>,
    /// The order that its messages share with those of other topics.
    sequencer: Arc<Sequencer>,
    silence: silence::Silence,
    /// Counts this incarnation, deleted or not, until nobody reads it any more.
    _alive: Alive,
}

/// Counts topics in memory: those that are deleted but still being read to their end, too.
pub(crate) struct Alive(Arc<AtomicUsize>);

impl Alive {
    pub fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Channel {
    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// The topic's incarnation.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When the incarnation began.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// The number of the incarnation on this instance, or the engine's own, if it numbers its topics.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Which of the engine's logs its messages are in.
    pub(crate) fn log(&self) -> usize {
        self.sequencer.index
    }

    /// The epoch of that log.
    pub(crate) fn log_epoch(&self) -> Epoch {
        self.sequencer.epoch()
    }

    /// What the topic sets for itself now.
    #[must_use]
    pub fn config(&self) -> TopicConfig {
        self.ring.lock().config
    }

    /// Whether it was made by a publish or a subscribe, not by a creation.
    #[must_use]
    pub fn is_implicit(&self) -> bool {
        self.implicit.load(Ordering::Acquire)
    }

    /// Makes an implicit topic an explicit one. Returns whether it was implicit until now.
    pub(crate) fn adopt(&self) -> bool {
        self.implicit.swap(false, Ordering::AcqRel)
    }

    /// Whether nothing was ever published in it, and nothing is on its way.
    pub(crate) fn never_published(&self) -> bool {
        self.ring.lock().is_unused()
    }

    /// Whether it is implicit and has neither a message nor a subscription of its own: then nobody misses it.
    pub(crate) fn is_unused(&self) -> bool {
        self.is_implicit() && !self.has_waiters() && self.never_published()
    }

    /// Whether its incarnation has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.ring.lock().closed
    }

    /// The newest offset: everything up to here was readable, is gone, or never was.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.ring.lock().last()
    }

    /// The newest offset that is no longer kept.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.ring.lock().floor()
    }

    /// The newest offset that has left by the bounds of a history.
    pub(crate) fn history_floor(&self) -> u64 {
        self.ring.lock().history_floor()
    }

    /// Calls `store` with the newest offset, messages on their way included. No message is numbered meanwhile.
    pub(crate) fn with_newest<R>(&self, store: impl FnOnce(u64) -> R) -> R {
        let ring = self.ring.lock();
        store(ring.newest_staged())
    }

    /// The bound of its history in messages, its own or the server's.
    #[must_use]
    pub fn max_messages(&self) -> usize {
        self.ring.lock().bounds.max_messages
    }

    /// What holds for it: its own settings over those of the server.
    pub(crate) fn bounds(&self) -> TopicBounds {
        self.ring.lock().bounds
    }

    /// The number of its newest message in the log that it shares with other topics; 0 without any.
    #[must_use]
    pub fn newest_sequence(&self) -> u64 {
        self.ring.lock().newest_sequence()
    }
}
