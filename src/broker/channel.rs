//! A topic's broadcast channel, which is its history: one ring under one lock; receivers are cursors into it.
//!
//! Publishing never waits for a receiver. A receiver that falls behind reads from the ring as long as that lasts, then
//! learns exactly what it missed. Offsets grow but need not be dense: every message names its predecessor, and a
//! receiver at `after` has missed something exactly when the next message's `prev` lies beyond it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Cursor, Draft, Epoch, Error, Gap, GapReason, Key, Message, MessageId, Publication, Timestamp, TopicName,
    pattern::Matched, rate::Bucket,
};

/// How many of a topic's newest messages keep what was rendered for them. A receiver that is a full turn behind still
/// shares; one that reads from the past renders for itself.
const YOUNG_MESSAGES: usize = 64;

/// Where a receiver begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next message.
    Live,
    /// With the oldest kept message.
    Oldest,
    /// With the last so many kept messages.
    Last(u32),
    /// After a known place.
    After(Cursor),
    /// With the first message at or after a time.
    Since(Timestamp),
}

/// What one read found, besides the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// More can be read now.
    More,
    /// Nothing more yet.
    CaughtUp,
    /// Nothing more ever: the topic was deleted.
    Closed,
}

/// How much may be read at once.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Messages at most.
    pub messages: usize,
    /// Bytes of data after which no further message is read; the one that crosses the bound still is.
    pub bytes: usize,
}

impl Turn {
    /// So many messages, whatever their size.
    #[must_use]
    pub fn messages(messages: usize) -> Self {
        Self { messages, bytes: usize::MAX }
    }
}

/// Why the channel does not take a message.
pub(super) enum Refusal {
    /// The channel is closed: its topic was deleted. The draft comes back.
    Closed(Box<Draft>),
    /// The rules refuse it.
    Error(Error),
}

/// The bounded history of a topic.
pub(super) struct Ring {
    topic: TopicName,
    epoch: Epoch,
    /// The newest offset ever given out, kept or not.
    last: u64,
    messages: VecDeque<Arc<Message>>,
    cost: usize,
    pub max_messages: usize,
    pub bucket: Bucket,
    pub last_published_at: Option<Timestamp>,
    pub closed: bool,
    /// The patterns that match this topic, as of the newest look.
    pub patterns: Matched,
    /// Publisher-given ids of kept messages.
    ids: HashMap<MessageId, u64>,
    /// The newest offset of each key among kept messages.
    latest: HashMap<Key, u64>,
    /// When evicted messages were published: the first offset of each millisecond, as many as the history is long, so
    /// that a receiver that starts at a time can be told what it missed.
    evicted: VecDeque<(Timestamp, u64)>,
    budget: Arc<Budget>,
}

/// What all histories may hold together.
pub(super) struct Budget {
    used: AtomicUsize,
    messages: AtomicUsize,
    pub total: usize,
    pub per_topic: usize,
}

impl Budget {
    pub fn new(total: usize, per_topic: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), messages: AtomicUsize::new(0), total, per_topic })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    fn add(&self, cost: usize) {
        self.used.fetch_add(cost, Ordering::Relaxed);
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self, messages: usize, cost: usize) {
        self.used.fetch_sub(cost, Ordering::Relaxed);
        self.messages.fetch_sub(messages, Ordering::Relaxed);
    }
}

impl Ring {
    pub fn new(topic: TopicName, epoch: Epoch, max_messages: usize, bucket: Bucket, budget: Arc<Budget>) -> Self {
        Self {
            topic,
            epoch,
            last: 0,
            messages: VecDeque::new(),
            cost: 0,
            max_messages,
            bucket,
            last_published_at: None,
            closed: false,
            patterns: Matched::default(),
            ids: HashMap::new(),
            latest: HashMap::new(),
            evicted: VecDeque::new(),
            budget,
        }
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    /// The newest offset that is no longer kept: a receiver standing before it has missed something.
    fn floor(&self) -> u64 {
        self.messages.front().map_or(self.last, |oldest| oldest.prev)
    }

    /// Where the messages after `offset` begin in the ring.
    fn index_after(&self, offset: u64) -> usize {
        // Dense offsets, the common case, need no search.
        if let Some(oldest) = self.messages.front() {
            let guess =
                usize::try_from(offset.saturating_add(1).saturating_sub(oldest.cursor.offset)).unwrap_or(usize::MAX);
            if self.messages.get(guess).is_some_and(|message| message.prev == offset) {
                return guess;
            }
        }
        self.messages.partition_point(|message| message.cursor.offset <= offset)
    }

    /// Numbers and appends a message: the one place where order is decided.
    pub fn append(&mut self, draft: Draft) -> Result<Publication, Refusal> {
        if self.closed {
            return Err(Refusal::Closed(Box::new(draft)));
        }
        // A repeated id comes first: repeating what was accepted must succeed whatever has changed since.
        if let Some(first) = draft.id.as_ref().and_then(|id| self.ids.get(id)).copied()
            && let Some(message) = self.messages.get(self.index_after(first.saturating_sub(1)))
        {
            return Ok(Publication::of(message, true));
        }
        if draft.expected_offset.is_some_and(|expected| expected != self.last) {
            return Err(Refusal::Error(Error::Conflict { current: self.last }));
        }
        self.bucket.take().map_err(Refusal::Error)?;

        let given_id = draft.id.is_some();
        let cursor = Cursor { epoch: self.epoch, offset: self.last + 1 };
        // The wall clock may step back; a topic's times do not, so that a search by time stays a search.
        let at = self.last_published_at.map_or_else(Timestamp::now, |last| Timestamp::now().max(last));
        let message = Message::new(self.topic.clone(), cursor, self.last, draft, at);
        self.make_room(message.cost()).map_err(Refusal::Error)?;

        self.last = cursor.offset;
        self.last_published_at = Some(at);
        if given_id {
            self.ids.insert(message.id.clone(), cursor.offset);
        }
        if let Some(key) = &message.key {
            self.latest.insert(key.clone(), cursor.offset);
        }
        let publication = Publication::of(&message, false);
        self.cost += message.cost();
        self.budget.add(message.cost());
        self.messages.push_back(message);
        if let Some(aged) = self.messages.len().checked_sub(YOUNG_MESSAGES + 1) {
            self.messages[aged].cool();
        }
        Ok(publication)
    }

    /// Evicts until a message of `cost` fits all bounds.
    fn make_room(&mut self, cost: usize) -> Result<(), Error> {
        while self.messages.len() >= self.max_messages || self.cost + cost > self.budget.per_topic {
            if !self.evict_oldest() {
                break;
            }
        }
        // All histories together are full: the topic pays with its own oldest, never with another's.
        while self.budget.used() + cost > self.budget.total {
            if !self.evict_oldest() {
                return Err(Error::LimitReached {
                    what: "bytes of history on this server",
                    limit: self.budget.total,
                    own: false,
                });
            }
        }
        Ok(())
    }

    pub fn evict_to(&mut self, max_messages: usize) {
        while self.messages.len() > max_messages && self.evict_oldest() {}
    }

    fn evict_oldest(&mut self) -> bool {
        let Some(message) = self.messages.pop_front() else { return false };
        self.cost -= message.cost();
        self.budget.remove(1, message.cost());
        if self.ids.get(&message.id) == Some(&message.cursor.offset) {
            self.ids.remove(&message.id);
        }
        if let Some(key) = &message.key
            && self.latest.get(key) == Some(&message.cursor.offset)
        {
            self.latest.remove(key);
        }
        if self.evicted.back().is_none_or(|(at, _)| *at < message.published_at) {
            self.evicted.push_back((message.published_at, message.cursor.offset));
            if self.evicted.len() > self.max_messages {
                self.evicted.pop_front();
            }
        }
        true
    }

    /// Resolves a start to the offset after which the receiver reads, and what it has missed already.
    pub fn locate(&self, start: Start, created_at: Timestamp) -> (u64, Option<Gap>) {
        let floor = self.floor();
        match start {
            Start::Live => (self.last, None),
            Start::Oldest => (floor, None),
            Start::Last(count) => {
                let skipped = self.messages.len().saturating_sub(count as usize);
                (self.messages.get(skipped).map_or(self.last, |first| first.prev), None)
            }
            Start::After(cursor) if cursor.epoch != self.epoch => {
                (floor, Some(self.gap(0, floor, GapReason::NewEpoch)))
            }
            Start::After(cursor) if cursor.offset < floor => {
                (floor, Some(self.gap(cursor.offset, floor, GapReason::Expired)))
            }
            Start::After(cursor) => (cursor.offset, None),
            Start::Since(time) => {
                let index = self.messages.partition_point(|message| message.published_at < time);
                match self.messages.get(index) {
                    Some(first) if index > 0 => (first.prev, None),
                    None if index > 0 => (self.last, None),
                    // The oldest kept message is late enough: so may be some that are gone.
                    _ => (
                        floor,
                        self.evicted_since(time, created_at).map(|after| self.gap(after, floor, GapReason::Expired)),
                    ),
                }
            }
        }
    }

    /// The offset after which evicted messages may be of `time` or later; `None` when all are older.
    fn evicted_since(&self, time: Timestamp, created_at: Timestamp) -> Option<u64> {
        let known = self.evicted.partition_point(|(at, _)| *at < time);
        let complete = self.evicted.front().is_some_and(|(_, first)| *first == 1);
        match self.evicted.get(known) {
            // What was published before the times that are remembered cannot be told from later: it counts.
            Some(_) if known == 0 && (!complete || time <= created_at) => Some(0),
            Some((_, offset)) => Some(offset - 1),
            // The last remembered millisecond is before `time`. Later evictions within it are, too.
            None => None,
        }
    }

    /// What lies after `after` up to and including `to`.
    fn gap(&self, after: u64, to: u64, reason: GapReason) -> Gap {
        Gap { topic: self.topic.clone(), missed: Some(to - after), from_offset: after + 1, to_offset: to, reason }
    }

    /// Reads one turn's worth of messages after `after` into `out` and moves it behind them; says what was missed before
    /// them.
    pub fn read(&self, after: &mut u64, turn: Turn, out: &mut Vec<Arc<Message>>) -> (Option<Gap>, Rest) {
        let floor = self.floor();
        let gap = (*after < floor).then(|| self.gap(*after, floor, GapReason::SlowConsumer));
        *after = (*after).max(floor);
        let start = self.index_after(*after);
        let mut bytes = 0;
        for message in self.messages.range(start.min(self.messages.len())..).take(turn.messages) {
            if bytes >= turn.bytes {
                break;
            }
            bytes += message.data.len();
            *after = message.cursor.offset;
            out.push(message.clone());
        }
        let rest = match (*after < self.last, self.closed) {
            (true, _) => Rest::More,
            (false, false) => Rest::CaughtUp,
            (false, true) => Rest::Closed,
        };
        (gap, rest)
    }

    /// For a receiver that wants only the newest: moves `after` right before it and says what that skips.
    pub fn skip_to_newest(&self, after: &mut u64) -> Option<Gap> {
        let target = self.messages.back().map_or(self.last, |newest| newest.prev);
        let gap = (*after < target).then(|| self.gap(*after, target, GapReason::SlowConsumer));
        *after = (*after).max(target);
        gap
    }

    /// Whether a newer kept message has the same key.
    pub fn superseded(&self, message: &Message) -> bool {
        let latest = message.key.as_ref().and_then(|key| self.latest.get(key));
        latest.is_some_and(|offset| *offset > message.cursor.offset)
    }

    /// Up to `max` kept messages before `before`, oldest first, and whether there are earlier ones.
    pub fn read_before(&self, before: u64, max: usize, out: &mut Vec<Arc<Message>>) -> bool {
        let end = self.index_after(before.saturating_sub(1)).min(self.messages.len());
        let start = end.saturating_sub(max);
        out.extend(self.messages.range(start..end).cloned());
        start > 0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.budget.remove(self.messages.len(), self.cost);
    }
}
