//! A topic on this instance: its bounded history, who reads it, who waits for it; and the registry of all of them. It
//! knows no engine and no transport.
//!
//! What readers read is the channel, whatever the engine: an engine numbers and stores, and feeds the channel by one rule
//! of continuity ([`Channel::feed`]).

mod consumer;
mod error;
mod events;
mod filter;
mod inbox;
mod message;
mod name;
mod pattern;
mod payload;
mod rate;
mod reader;
mod registry;
mod ring;
#[cfg(test)]
mod tests;
mod wake;

/// What `wake.rs` is made of.
mod sync {
    pub use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    pub use parking_lot::Mutex;
}

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use slab::Slab;

pub use consumer::{
    Ack, Claim, Consumer, ConsumerInfo, ConsumerKey, ConsumerLimits, ConsumerStatus, Consumers, Position,
};
pub use error::{Error, Refusal};
pub use events::TopicEventKind;
pub use filter::{Filter, FilterError, FilterLimits};
pub use inbox::Waiter;
pub use message::{Committed, Cursor, Draft, Epoch, Gap, GapReason, Message, Origin, Publication, ShapeId, Timestamp};
pub use name::{ConsumerName, Key, MAX_NAME_BYTES, MessageId, Pattern, Source, TopicName};
pub use payload::{MAX_NESTING, Payload};
pub use reader::{BEHIND_MESSAGES, Event, Overflow};
pub use registry::{Life, Registry, RegistrySettings};
pub use ring::{Rest, Start, Turn};
pub use wake::{Bell, Inbox};

pub(crate) use consumer::Saving;
pub(crate) use pattern::{Member, Membership, Patterns};
pub(crate) use rate::Bucket;
pub(crate) use reader::{Reader, Wanted};
pub(crate) use ring::{Budget, Numbering, Place, Ring, Staging};

/// One life of a topic on this instance.
pub struct Channel {
    /// Never given twice while the process lives.
    pub(crate) serial: u64,
    pub(crate) name: TopicName,
    pub(crate) epoch: Epoch,
    pub(crate) created_at: Timestamp,
    /// The engine's own number for this life.
    pub(crate) key: u64,
    /// Made by a publish or a subscribe, not by a creation; goes away when nothing uses it.
    pub(crate) implicit: AtomicBool,
    pub(crate) ring: Mutex<Ring>,
    /// Those who read this very topic; who reads it by a pattern stands with the pattern.
    pub(crate) waiters: Mutex<Slab<Arc<Waiter>>>,
    pub(crate) patterns: Arc<Patterns>,
    /// What the engine calls the topic, if not by its name.
    pub(crate) label: OnceLock<Box<str>>,
    /// A number that the engine keeps with the topic: the version of its entry, say.
    pub(crate) revision: AtomicU64,
    /// Counts this life, deleted or not, until nobody reads it any more.
    pub(crate) _alive: Alive,
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

/// What a topic is made with, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Made by a publish or a subscribe, not by a creation.
    pub implicit: bool,
    /// The bound of its history in messages, 1 or more.
    pub max_messages: usize,
    /// Messages a second that may be published; 0 means no limit.
    pub max_publish_rate: u32,
}

/// What of a topic changes; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// An implicit topic becomes an explicit one; for one that is explicit already, this is the error `TopicExists`.
    pub adopt: bool,
    /// The bound of its history in messages.
    pub max_messages: Option<usize>,
    /// Messages a second that may be published; 0 means no limit.
    pub max_publish_rate: Option<u32>,
}

impl Change {
    /// The spec with the change in it.
    #[must_use]
    pub fn applied_to(self, spec: Spec) -> Spec {
        Spec {
            implicit: spec.implicit && !self.adopt,
            max_messages: self.max_messages.unwrap_or(spec.max_messages),
            max_publish_rate: self.max_publish_rate.unwrap_or(spec.max_publish_rate),
        }
    }
}

/// What the channel says to a message that an engine feeds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// It continues the channel, and is readable now.
    Taken,
    /// The channel has it, or is past it.
    Stale,
    /// Something is missing between the place `after` and the message: the engine reads it again from its store, or says
    /// that it is lost ([`Channel::skip_to`]).
    Missing {
        /// The channel's newest place.
        after: u64,
    },
    /// The channel is closed.
    Closed,
}

/// What is known of a topic at one moment.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// Its name.
    pub name: TopicName,
    /// Its life.
    pub epoch: Epoch,
    /// When it was made.
    pub created_at: Timestamp,
    /// Messages kept in its history.
    pub messages: usize,
    /// The newest offset given out; 0 without any.
    pub last_offset: u64,
    /// Live subscriptions on this instance, those through patterns included.
    pub subscribers: usize,
    /// The bound of its history, in messages.
    pub max_messages: usize,
    /// Messages a second that may be published; 0 means no limit.
    pub max_publish_rate: u32,
    /// Made by a publish or subscribe; goes away with its last subscriber while it has no message.
    pub implicit: bool,
    /// When its newest message was published.
    pub last_published_at: Option<Timestamp>,
}

/// One live subscription as seen from its topic.
#[derive(Clone, Debug)]
pub struct SubscriptionInfo {
    /// Messages published that the subscription has not read yet.
    pub lag: u64,
    /// What happens when it falls behind.
    pub overflow: Overflow,
    /// The name of its consumer.
    pub consumer: Option<String>,
}

impl Channel {
    /// The topic's name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// The topic's life.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What it is set to now.
    #[must_use]
    pub fn spec(&self) -> Spec {
        let ring = self.ring.lock();
        Spec {
            implicit: self.implicit.load(Ordering::Relaxed),
            max_messages: ring.max_messages,
            max_publish_rate: ring.bucket.per_second(),
        }
    }

    /// The newest place: everything up to here was readable, is gone, or never was.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.ring.lock().last()
    }

    /// The newest place that is no longer kept.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.ring.lock().floor()
    }

    // ---- for engines

    /// Numbers a message and makes it readable: all that an engine without a store has to do.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    pub fn push(self: &Arc<Self>, draft: Draft) -> Result<Publication, Refusal> {
        let mut ring = self.ring.lock();
        let before = ring.end();
        let publication = ring.push(draft)?;
        if !publication.duplicate {
            self.tell(ring, before);
        }
        Ok(publication)
    }

    /// Takes a message that the engine has numbered and stored, if it continues the channel: if nothing was published
    /// between the channel's newest place and `message.prev`.
    pub fn feed(self: &Arc<Self>, message: Committed) -> Feed {
        let mut ring = self.ring.lock();
        let before = ring.end();
        if ring.closed {
            return Feed::Closed;
        }
        if message.offset <= before.after {
            return Feed::Stale;
        }
        if message.prev > before.after {
            return Feed::Missing { after: before.after };
        }
        let given_id = message.given_id;
        if given_id && ring.find_id(&message.id).is_some() {
            // Stored twice, because the engine had forgotten the id when it came again: the first one stands.
            return Feed::Stale;
        }
        let at = ring.last_published_at.map_or(message.at, |last| last.max(message.at));
        let cursor = Cursor { epoch: self.epoch, offset: message.offset };
        let draft =
            Draft { data: message.data, id: Some(message.id), key: message.key, expected_offset: None, origin: None };
        ring.bucket.charge();
        ring.feed(Message::new(self.name.clone(), cursor, before.after, draft, at), given_id);
        self.tell(ring, before);
        Feed::Taken
    }

    /// Numbers a message for an engine that takes its time; `store` gets it, with the offset of the message stored before it
    /// and whether its id is the publisher's, under the lock that decides the order. Nobody reads it before
    /// [`Channel::commit`].
    ///
    /// # Errors
    /// [`Refusal`], that of `store` among them; nothing has changed then.
    pub(crate) fn stage(
        &self,
        draft: Draft,
        store: impl FnOnce(&Message, u64, bool) -> Result<(), Error>,
    ) -> Result<Staging, Refusal> {
        self.ring.lock().stage(draft, store)
    }

    /// The oldest `count` staged messages are stored: they are read from here on, and their publishers are answered. Tells
    /// the newest place that is no longer kept, if it moved.
    pub(crate) fn commit(self: &Arc<Self>, count: usize) -> Option<u64> {
        let mut ring = self.ring.lock();
        let (before, floor) = (ring.end(), ring.floor());
        ring.commit(count);
        let moved = Some(ring.floor()).filter(|now| *now != floor);
        if ring.end() != before {
            self.tell(ring, before);
        }
        moved
    }

    /// The oldest `count` staged messages are not stored, or perhaps not.
    pub(crate) fn withdraw(&self, count: usize, why: impl Fn(&Message) -> Refusal) {
        self.ring.lock().withdraw(count, why);
    }

    /// What lies up to `offset` and was not fed is lost. Readers are told at that place.
    pub fn skip_to(self: &Arc<Self>, offset: u64) {
        let mut ring = self.ring.lock();
        let before = ring.end();
        if offset > before.after {
            ring.skip_to(offset);
            self.tell(ring, before);
        }
    }

    /// Tells everybody that waits what was appended after `before`. Waking happens outside the ring's lock: readers that
    /// already run need it.
    pub(crate) fn tell(self: &Arc<Self>, mut ring: parking_lot::MutexGuard<'_, Ring>, before: Place) {
        let mut matched = std::mem::take(&mut ring.patterns);
        self.patterns.touch(self, &mut matched, before);
        ring.patterns = matched;
        drop(ring);
        for (_, waiter) in self.waiters.lock().iter() {
            waiter.wake();
        }
    }

    /// Ends the topic's life: appending fails from here on, readers read what there is and then learn it.
    pub(crate) fn close(self: &Arc<Self>) {
        let mut ring = self.ring.lock();
        ring.closed = true;
        ring.withdraw(usize::MAX, |_| Refusal::Closed);
        let end = ring.end();
        self.tell(ring, end);
    }

    // ---- looking at it

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
            messages: ring.len(),
            last_offset: ring.newest(),
            subscribers,
            max_messages: ring.max_messages,
            max_publish_rate: ring.bucket.per_second(),
            implicit: self.implicit.load(Ordering::Relaxed),
            last_published_at: ring.last_published_at,
        }
    }

    /// Whether somebody reads it through a pattern.
    pub(crate) fn has_patterns(&self) -> bool {
        let mut ring = self.ring.lock();
        let mut matched = std::mem::take(&mut ring.patterns);
        let any = self.patterns.subscribers(self.name.as_str(), &mut matched) > 0;
        ring.patterns = matched;
        any
    }

    pub(crate) fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        let total = self.ring.lock().end().seen;
        self.waiters
            .lock()
            .iter()
            .map(|(_, waiter)| SubscriptionInfo {
                lag: total.saturating_sub(waiter.seen.load(Ordering::Relaxed)),
                overflow: waiter.overflow,
                consumer: waiter.consumer.as_ref().map(|name| name.as_str().to_owned()),
            })
            .collect()
    }

    /// All that is kept of it at one moment.
    pub(crate) fn kept(&self) -> Kept {
        let ring = self.ring.lock();
        Kept { floor: ring.floor(), last: ring.last(), messages: ring.kept() }
    }

    /// Kept messages from a start on, oldest first.
    pub(crate) fn page(&self, start: Start, turn: Turn) -> Page {
        let ring = self.ring.lock();
        let (mut place, mut gap) = ring.locate(start, self.created_at);
        let mut messages = Vec::new();
        let (hole, rest) = ring.read(&mut place, turn, &mut messages);
        if let Some(hole) = hole {
            gap = Some(gap.map_or(hole.clone(), |gap| gap.and_then(&hole)));
        }
        Page { messages, gap, more: rest == Rest::More, end: Cursor { epoch: self.epoch, offset: place.after } }
    }

    /// Kept messages before an offset, oldest first; `more` says whether there are earlier ones.
    pub(crate) fn page_before(&self, before: Option<u64>, max: usize) -> Page {
        let ring = self.ring.lock();
        let mut messages = Vec::new();
        let more = ring.read_before(before.unwrap_or(u64::MAX), max, &mut messages);
        let end = messages.last().map_or(0, |newest: &Arc<Message>| newest.cursor.offset);
        Page { messages, gap: None, more, end: Cursor { epoch: self.epoch, offset: end } }
    }
}

/// All that is kept of a topic.
pub(crate) struct Kept {
    /// The newest place that is no longer kept.
    pub floor: u64,
    /// The newest place.
    pub last: u64,
    /// The messages, oldest first, and of each whether its id is the publisher's.
    pub messages: Vec<(Arc<Message>, bool)>,
}

/// A piece of a topic's history, oldest first.
#[derive(Debug)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Arc<Message>>,
    /// What was missed before the first of them.
    pub gap: Option<Gap>,
    /// Whether the history goes on beyond the page.
    pub more: bool,
    /// The place to go on from.
    pub end: Cursor,
}
