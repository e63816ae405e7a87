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
mod page;
mod patterns;
mod payload;
mod rate;
mod reader;
mod recent_ids;
mod registry;
mod ring;
mod sequencer;
#[cfg(test)]
mod tests;
mod waiter;

/// What `inbox.rs` is made of.
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
use ring::Admission;
use slab::Slab;

pub use consumer::{
    Ack, Claim, Consumer, ConsumerInfo, ConsumerKey, ConsumerLimits, ConsumerStatus, Consumers, Position,
};
pub use error::{Error, Refusal};
pub use events::TopicEventKind;
pub use filter::{Filter, FilterError, FilterLimits, quote};
pub use inbox::{Inbox, Notifier};
pub use message::{
    Committed, Cursor, Epoch, Gap, GapReason, KnownId, Message, NewMessage, Origin, Publication, ShapeId, Timestamp,
};
pub use name::{ConsumerName, Key, MAX_NAME_BYTES, MessageId, Pattern, Source, TopicName};
pub use page::Page;
pub use payload::{MAX_NESTING, Payload};
pub use reader::{BEHIND_MESSAGES, Event, Overflow};
pub use registry::{Incarnation, Registry, RegistrySettings};
pub use ring::{BatchLimit, ReadStatus, Start};
pub use sequencer::{LogPosition, PatternCursor};
pub use waiter::Waiter;

pub(crate) use consumer::Saving;
pub(crate) use patterns::{Member, Membership, Patterns};
pub(crate) use rate::spread_waits;
pub(crate) use reader::{ALONE, Reader, Wanted};
pub(crate) use recent_ids::Remembered;
pub(crate) use registry::{Deletion, Matching};
pub(crate) use ring::{Budget, Numbering, Place, Ring, Stage, Staging};
pub(crate) use sequencer::Sequencer;

/// One incarnation of a topic on this instance.
pub struct Channel {
    /// Never given twice while the process lives.
    pub(crate) serial: u64,
    pub(crate) name: TopicName,
    pub(crate) epoch: Epoch,
    pub(crate) created_at: Timestamp,
    /// The engine's own number for this incarnation.
    pub(crate) key: u64,
    /// Made by a publish or a subscribe, not by a creation; goes away when nothing uses it.
    pub(crate) implicit: AtomicBool,
    pub(crate) ring: Mutex<Ring>,
    /// Those who read this very topic; who reads it by a pattern stands with the pattern.
    pub(crate) waiters: Mutex<Slab<Arc<Waiter>>>,
    pub(crate) patterns: Arc<Patterns>,
    /// The order that its messages share with those of other topics.
    pub(crate) sequencer: Arc<Sequencer>,
    /// What the engine calls the topic, if not by its name.
    pub(crate) label: OnceLock<Box<str>>,
    /// A number that the engine keeps with the topic: the version of its entry, say.
    pub(crate) revision: AtomicU64,
    /// Counts this incarnation, deleted or not, until nobody reads it any more.
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

/// What a topic is made with, whole. What is `None` follows the server's settings, also when those change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Made by a publish or a subscribe, not by a creation.
    pub implicit: bool,
    /// The bound of its history in messages, 1 or more.
    pub max_messages: Option<usize>,
    /// Messages a second that may be published; 0 means no limit.
    pub max_publish_rate: Option<u32>,
}

/// What holds for topics that set nothing for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The bound of a history in messages, 1 or more.
    pub max_messages: usize,
    /// Messages a second that may be published; 0 means no limit.
    pub max_publish_rate: u32,
}

impl Spec {
    /// What holds for a topic of this spec.
    #[must_use]
    pub fn bounds(self, defaults: Defaults) -> Defaults {
        Defaults {
            max_messages: self.max_messages.unwrap_or(defaults.max_messages).max(1),
            max_publish_rate: self.max_publish_rate.unwrap_or(defaults.max_publish_rate),
        }
    }
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
            max_messages: self.max_messages.or(spec.max_messages),
            max_publish_rate: self.max_publish_rate.or(spec.max_publish_rate),
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

    /// The topic's incarnation.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What it is set to now.
    #[must_use]
    pub fn spec(&self) -> Spec {
        Spec { implicit: self.implicit.load(Ordering::Relaxed), ..self.ring.lock().spec }
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

    /// The bound of its history in messages, its own or the server's.
    #[must_use]
    pub fn max_messages(&self) -> usize {
        self.ring.lock().max_messages
    }

    /// The number of its newest message in the log that it shares with other topics; 0 without any.
    #[must_use]
    pub fn newest_sequence(&self) -> u64 {
        self.ring.lock().newest_sequence()
    }

    // ---- for engines

    /// Numbers a message and makes it readable: all that an engine without a store has to do.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    pub fn push(self: &Arc<Self>, new_message: NewMessage) -> Result<Publication, Refusal> {
        let mut ring = self.ring.lock();
        let new_message = match ring.admit(new_message)? {
            Admission::Fresh(new_message) => new_message,
            Admission::Duplicate(first) => return Ok(first),
            // Only an engine that takes its time stages, and it does not push.
            Admission::Staged(_) => return Err(Error::Unavailable("the message is on its way").into()),
        };
        let before = ring.end();
        let mut last = self.sequencer.lock();
        let sequence = *last + 1;
        let publication = ring.push(new_message, sequence)?;
        *last = sequence;
        self.announce(&mut ring, before, sequence);
        drop(last);
        self.wake(ring);
        Ok(publication)
    }

    /// Takes a message that the engine has numbered and stored, if it continues the channel: if nothing was published
    /// between the channel's newest place and `message.prev`. Its offset is its number in the log that topics share, so
    /// an engine feeds the channels of one log in its order.
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
        // Only kept messages count: what is remembered beyond them differs between instances, and these may not.
        if given_id && ring.find_id(&message.id).is_some() {
            // Stored twice, because the engine had forgotten the id when it came again: the first one stands.
            return Feed::Stale;
        }
        let at = ring.last_published_at.map_or(message.at, |last| last.max(message.at));
        let cursor = Cursor { epoch: self.epoch, offset: message.offset };
        let new_message = NewMessage {
            data: message.data,
            id: Some(message.id),
            key: message.key,
            expected_offset: None,
            origin: None,
        };
        ring.bucket.charge();
        let sequence = message.offset;
        let mut last = self.sequencer.lock();
        ring.feed(Message::new(self.name.clone(), cursor, before.after, sequence, new_message, at), given_id);
        *last = sequence.max(*last);
        self.announce(&mut ring, before, sequence);
        drop(last);
        self.wake(ring);
        Feed::Taken
    }

    /// Numbers a message for an engine that takes its time; `store` gets it under the lock that decides the order, and
    /// returns its number in the log that all topics share. Nobody reads it before [`Channel::commit`].
    ///
    /// # Errors
    /// [`Refusal`], that of `store` among them; nothing has changed then.
    pub(crate) fn stage(
        &self,
        new_message: NewMessage,
        store: impl FnOnce(&Message, Stage) -> Result<u64, Error>,
    ) -> Result<Staging, Refusal> {
        self.ring.lock().stage(new_message, store)
    }

    /// The oldest `count` staged messages are stored: they are read from here on, and their publishers are answered. Tells
    /// the newest place that is no longer kept, if it moved. Messages of one log are committed in its order.
    pub(crate) fn commit(self: &Arc<Self>, count: usize) -> Option<u64> {
        let mut ring = self.ring.lock();
        let (before, floor) = (ring.end(), ring.floor());
        let mut last = self.sequencer.lock();
        let mut answers = Vec::with_capacity(count);
        let first = ring.commit(count, &mut answers);
        let moved = Some(ring.floor()).filter(|now| *now != floor);
        if let Some((first, newest)) = first {
            *last = newest.max(*last);
            self.announce(&mut ring, before, first);
            drop(last);
            self.wake(ring);
        }
        // Readers are woken first: a server that stops once every publish is answered still delivers what it has accepted.
        answers.into_iter().for_each(ring::Answer::send);
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
            let last = self.sequencer.lock();
            // What was lost is met here, behind everything that the log has brought until now.
            let first = before.after.max(*last).saturating_add(1);
            self.announce(&mut ring, before, first);
            drop(last);
            self.wake(ring);
        }
    }

    /// From here on these ids are known that publishers gave before this incarnation of the topic began. They have no place in it;
    /// an id that is known already keeps its own.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] if the channel is closed.
    pub(crate) fn remember(&self, ids: &[KnownId]) -> Result<(), Error> {
        let ring = self.ring.lock();
        if ring.closed {
            return Err(Error::TopicNotFound(self.name.as_str().to_owned()));
        }
        for KnownId { id, at } in ids {
            if ring.known(id).is_none() {
                ring.remember(id, Remembered { offset: 0, at: *at });
            }
        }
        Ok(())
    }

    /// Tells the subscribers of patterns what was appended after `before`, of which `first` is the first number in the
    /// shared log. Called under the lock of the sequencer.
    fn announce(self: &Arc<Self>, ring: &mut Ring, before: Place, first: u64) {
        let mut matched = std::mem::take(&mut ring.patterns);
        self.patterns.touch(self, &mut matched, before, first);
        ring.patterns = matched;
    }

    /// Wakes everybody that waits for this very topic, outside the ring's lock: readers that already run need it.
    fn wake(&self, ring: parking_lot::MutexGuard<'_, Ring>) {
        drop(ring);
        for (_, waiter) in self.waiters.lock().iter() {
            waiter.wake();
        }
    }

    /// Ends the topic's incarnation: appending fails from here on, readers read what there is and then learn it.
    pub(crate) fn close(self: &Arc<Self>) {
        let mut ring = self.ring.lock();
        ring.closed = true;
        ring.withdraw(usize::MAX, |_| Refusal::Closed);
        let end = ring.end();
        let last = self.sequencer.lock();
        self.announce(&mut ring, end, *last);
        drop(last);
        self.wake(ring);
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
            end: Cursor { epoch: self.epoch, offset: ring.last() },
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
        Kept { floor: ring.floor(), last: ring.last(), messages: ring.kept(), ids: ring.ids_without_message() }
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
    /// Publishers' ids that are known without their messages, oldest first.
    pub ids: Vec<KnownId>,
}
