//! A topic: its channel, who waits for it, and what it was created with.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use slab::Slab;

use super::{
    Draft, Epoch, Message, Overflow, Publication, Start, Timestamp, TopicName, Turn,
    channel::{Refusal, Ring},
    inbox::Waiter,
    pattern::Patterns,
};

/// One life of a topic.
pub(super) struct Topic {
    /// Never given twice while the process lives.
    pub serial: u64,
    pub name: TopicName,
    pub epoch: Epoch,
    pub created_at: Timestamp,
    /// Made by a publish or a subscribe, not by a creation; goes away when nothing uses it.
    pub implicit: AtomicBool,
    pub ring: Mutex<Ring>,
    /// Those who read this very topic; who reads it by a pattern stands with the pattern.
    pub waiters: Mutex<Slab<Arc<Waiter>>>,
    pub patterns: Arc<Patterns>,
    /// Counts this life, deleted or not, until nobody reads it any more.
    pub _alive: Alive,
}

/// Counts topics in memory: those that are deleted but still being read to their end, too.
pub(super) struct Alive(Arc<AtomicUsize>);

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
    /// The newest offset given out, which is the number of messages ever published in this life; 0 without any.
    pub last_offset: u64,
    /// Live subscriptions, those through patterns included.
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

impl Topic {
    /// Appends and wakes whoever waits. Waking happens outside the ring's lock: readers that already run need it.
    pub fn append(self: &Arc<Self>, draft: Draft) -> Result<Publication, Refusal> {
        let mut ring = self.ring.lock();
        let prev = ring.last();
        let publication = ring.append(draft)?;
        if !publication.duplicate {
            let mut matched = std::mem::take(&mut ring.patterns);
            self.patterns.touch(self, &mut matched, prev);
            ring.patterns = matched;
            drop(ring);
            self.wake_all();
        }
        Ok(publication)
    }

    fn wake_all(&self) {
        for (_, waiter) in self.waiters.lock().iter() {
            waiter.wake();
        }
    }

    /// Ends the topic's life: appending fails from here on, readers read what there is and then learn it.
    pub fn close(self: &Arc<Self>) {
        let mut ring = self.ring.lock();
        ring.closed = true;
        let last = ring.last();
        let mut matched = std::mem::take(&mut ring.patterns);
        self.patterns.touch(self, &mut matched, last);
        drop(ring);
        self.wake_all();
    }

    pub fn info(&self) -> TopicInfo {
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
            last_offset: ring.last(),
            subscribers,
            max_messages: ring.max_messages,
            max_publish_rate: ring.bucket.per_second(),
            implicit: self.implicit.load(Ordering::Relaxed),
            last_published_at: ring.last_published_at,
        }
    }

    pub fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        let last = self.ring.lock().last();
        self.waiters
            .lock()
            .iter()
            .map(|(_, waiter)| SubscriptionInfo {
                lag: last.saturating_sub(waiter.position.load(Ordering::Relaxed)),
                overflow: waiter.overflow,
                consumer: waiter.consumer.as_ref().map(|name| name.as_str().to_owned()),
            })
            .collect()
    }

    /// Kept messages from a start on, oldest first.
    pub fn page(&self, start: Start, turn: Turn) -> Page {
        let ring = self.ring.lock();
        let (mut after, gap) = ring.locate(start, self.created_at);
        let mut messages = Vec::new();
        let (_, rest) = ring.read(&mut after, turn, &mut messages);
        Page { messages, gap, more: rest == super::Rest::More, end: super::Cursor { epoch: self.epoch, offset: after } }
    }

    /// Kept messages before an offset, oldest first; `more` says whether there are earlier ones.
    pub fn page_before(&self, before: Option<u64>, max: usize) -> Page {
        let ring = self.ring.lock();
        let mut messages = Vec::new();
        let more = ring.read_before(before.unwrap_or(u64::MAX), max, &mut messages);
        let end = messages.last().map_or(0, |newest: &Arc<Message>| newest.cursor.offset);
        Page { messages, gap: None, more, end: super::Cursor { epoch: self.epoch, offset: end } }
    }
}

/// A piece of a topic's history, oldest first.
#[derive(Debug)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Arc<Message>>,
    /// What was missed before the first of them.
    pub gap: Option<super::Gap>,
    /// Whether the history goes on beyond the page.
    pub more: bool,
    /// The place to go on from.
    pub end: super::Cursor,
}
