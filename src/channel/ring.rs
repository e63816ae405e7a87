//! A topic's broadcast channel, which is its history: one ring under one lock; receivers are cursors into it.
//!
//! Publishing never waits for a receiver. A receiver that falls behind reads from the ring as long as its messages are
//! kept, and then learns exactly what it missed. Offsets grow but need not be dense: each message names the offset
//! before it (`prev`). A receiver at `after` has missed something exactly when the next message's `prev` lies beyond
//! `after`. What an engine has lost is reported the same way as what was evicted: [`Ring::skip_to`] moves `last` on,
//! and the next message's `prev` is that offset.
//!
//! ```text
//!  offset     1   2   3   4   5   6   7   8   9  10  11  12
//!           [ evicted ] [    kept     ] [lost ] [  kept   ]
//!  prev       0   1   2   3   4   5   6           9  10  11
//!                     ^                                   ^
//!                   floor                               last
//!
//!  A receiver after 1 reads: a gap 2..=3 (2 missed, as the ring counts what it evicted), 4, 5, 6, 7,
//!  a gap 8..=9 (nobody can count it: 10 names 9 as its prev, and the receiver stands after 7), 10, 11, 12.
//! ```

mod ages;
mod budget;
mod compaction;
mod evicted;
mod eviction;
mod holes;
mod keyed;
mod read;
mod retention;
mod staging;
mod state;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{
    Cursor, Epoch, Error, Key, KnownId, Message, MessageId, NewMessage, Publication, ReadPosition, Refusal, Timestamp,
    TopicBounds, TopicConfig, TopicName,
    aging::Aging,
    patterns::Matched,
    rate::Bucket,
    recent_ids::{RecentIds, Remembered},
};

use ages::Ages;
pub(crate) use budget::Budget;
use evicted::Evicted;
use keyed::Keyed;
use staging::Staged;
pub(crate) use staging::{Outcome, Stage, Staging};
pub(crate) use state::{Begun, StateStep};

/// How many of a topic's newest messages keep what was rendered for them. A receiver that is a full batch behind still
/// shares it; one that reads from the past renders for itself.
const YOUNG_MESSAGES: usize = 64;

/// How an engine numbers: what the ring may conclude from offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbering {
    /// From this offset on offsets grow by one, so that a difference is a count.
    pub dense_from: u64,
    /// The messages that were published before the ring's first; `None` where nobody knows.
    pub before: Option<u64>,
}

impl Numbering {
    /// From 1, one by one.
    pub const DENSE: Self = Self { dense_from: 0, before: Some(0) };
    /// Any offset may be left out.
    pub const SPARSE: Self = Self { dense_from: u64::MAX, before: None };
}

/// Whether a message may enter the ring.
pub(crate) enum Admission {
    /// It may be numbered.
    Fresh(NewMessage),
    /// Its id is known: this is the first one's position.
    Duplicate(Publication),
    /// Its id is that of a message on its way, whose outcome it shares.
    Staged(u64),
}

/// Whose history a ring is.
#[derive(Clone, Copy)]
pub(crate) struct RingOwner<'a> {
    pub topic: &'a TopicName,
    pub epoch: Epoch,
    pub serial: u64,
    pub recent_ids: &'a Arc<RecentIds>,
    pub aging: &'a Arc<Aging>,
}

/// The bounded history of a topic.
pub(crate) struct Ring {
    topic: TopicName,
    epoch: Epoch,
    /// The newest position: everything up to here was readable, is gone, or never was.
    last: u64,
    /// The offset of the newest message that was ever readable.
    newest: u64,
    /// Messages that were ever readable here: what was evicted counts.
    total: u64,
    messages: VecDeque<Arc<Message>>,
    staged: VecDeque<Staged>,
    staged_cost: usize,
    cost: usize,
    /// What the topic sets for itself, and what holds for it by that and the server's settings.
    pub config: TopicConfig,
    pub bounds: TopicBounds,
    pub bucket: Bucket,
    pub numbering: Numbering,
    /// Ranges between kept messages in which the engine has lost something.
    lost_ranges: usize,
    /// The end of the newest of them that has left the ring: what a reader before it has missed cannot be counted.
    lost_until: u64,
    pub last_published_at: Option<Timestamp>,
    pub closed: bool,
    /// The patterns that match this topic, as of the newest look.
    pub patterns: Matched,
    /// The number of the topic's newest message in the log that it shares with others.
    newest_sequence: u64,
    /// And of its first, if that was seen here.
    first_sequence: Option<u64>,
    /// Publisher-given ids of kept messages.
    ids: HashMap<MessageId, u64>,
    /// Publisher-given ids of those that are not kept any more, of all topics; and this one's name there.
    recent_ids: Arc<RecentIds>,
    serial: u64,
    /// The newest offset of each key among kept messages.
    latest: HashMap<Key, u64>,
    /// What is remembered of messages that are not kept any more.
    evicted: Evicted,
    budget: Arc<Budget>,
    /// How old the messages are; nothing where they may become as old as they like.
    ages: Option<Box<Ages>>,
    /// What is missing in its midst; nothing where it has never kept the newest message of each key.
    keyed: Option<Box<Keyed>>,
    /// The newest offset that was evicted to make room, and the newest that was too old when it was evicted.
    crowded_out: u64,
    aged_out: u64,
    aging: Arc<Aging>,
}

impl Ring {
    pub fn new(of: RingOwner<'_>, config: TopicConfig, defaults: TopicBounds, budget: Arc<Budget>) -> Self {
        let bounds = config.bounds(defaults);
        let mut ring = Self {
            config,
            bounds,
            topic: of.topic.clone(),
            epoch: of.epoch,
            serial: of.serial,
            recent_ids: of.recent_ids.clone(),
            newest_sequence: 0,
            first_sequence: None,
            last: 0,
            newest: 0,
            total: 0,
            messages: VecDeque::new(),
            staged: VecDeque::new(),
            staged_cost: 0,
            cost: 0,
            bucket: Bucket::new(bounds.max_publish_rate),
            numbering: Numbering::DENSE,
            lost_ranges: 0,
            lost_until: 0,
            last_published_at: None,
            closed: false,
            patterns: Matched::default(),
            ids: HashMap::new(),
            latest: HashMap::new(),
            evicted: Evicted::default(),
            budget,
            ages: None,
            keyed: None,
            crowded_out: 0,
            aged_out: 0,
            aging: of.aging.clone(),
        };
        ring.set_max_age(bounds.max_age);
        ring.set_retention(bounds.retention);
        ring
    }

    pub fn is_unused(&self) -> bool {
        self.last == 0 && self.staged.is_empty()
    }

    /// The newest position.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The newest message's offset; 0 when there was none.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The end of the history.
    pub fn end(&self) -> ReadPosition {
        match &self.keyed {
            Some(keyed) => keyed.position_at(self.last),
            None => ReadPosition { after: self.last, seen: self.total },
        }
    }

    /// How many messages were ever readable here.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The newest position that is no longer kept: a receiver standing before it has missed something.
    pub fn floor(&self) -> u64 {
        self.messages.front().map_or(self.newest, |oldest| oldest.prev)
    }

    /// The newest position that has left by the bounds of a history: what a newer message of its key has replaced does not
    /// count.
    pub fn history_floor(&self) -> u64 {
        self.keyed.as_ref().map_or_else(|| self.floor(), |keyed| keyed.history_until)
    }

    /// The newest offset, messages on their way included.
    pub fn newest_staged(&self) -> u64 {
        self.staged.back().map_or(self.newest, |staged| staged.message.cursor.offset)
    }

    /// How many messages have left the ring.
    fn gone(&self) -> u64 {
        self.total - self.messages.len() as u64
    }

    /// Where the messages after `offset` begin in the ring.
    fn index_after(&self, offset: u64) -> usize {
        // A reader that has read everything asks most often.
        if self.messages.back().is_none_or(|newest| newest.cursor.offset <= offset) {
            return self.messages.len();
        }
        // Where offsets grow by one, as they usually do, no search is needed.
        if let Some(oldest) = self.messages.front() {
            let guess =
                usize::try_from(offset.saturating_add(1).saturating_sub(oldest.cursor.offset)).unwrap_or(usize::MAX);
            if self.messages.get(guess).is_some_and(|message| message.prev == offset) {
                return guess;
            }
        }
        self.messages.partition_point(|message| message.cursor.offset <= offset)
    }

    // ---- writing

    /// Says where the history begins that is about to be fed: behind the message `newest`, at the position `last`.
    /// `sequence` is the newest number in the shared log that a message before it may have; 0 where there was none.
    pub fn begin(&mut self, newest: u64, last: u64, numbering: Numbering, sequence: u64) {
        (self.newest, self.last, self.numbering) = (newest, last, numbering);
        self.newest_sequence = sequence;
        self.evicted.begin(newest, sequence);
    }

    /// Messages that were evicted before this history began, oldest first. `before` is the offset and the number in the
    /// shared log of the message before them; zeros where there was none.
    pub fn remember_evicted(&mut self, before: (u64, u64), evicted: impl Iterator<Item = (u64, Timestamp, u64)>) {
        self.evicted.begin(before.0, before.1);
        for (offset, at, sequence) in evicted {
            if before.0 == 0 && self.first_sequence.is_none() {
                self.first_sequence = Some(sequence);
            }
            self.remember_one(evicted::Entry { offset, at, sequence });
        }
    }

    /// The number of the newest message in the shared log, those on their way included; 0 when there was none.
    pub fn newest_sequence(&self) -> u64 {
        self.staged.back().map_or(self.newest_sequence, |staged| staged.message.sequence)
    }

    /// The kept message with this publisher-given id.
    pub fn find_id(&self, id: &MessageId) -> Option<&Arc<Message>> {
        let offset = *self.ids.get(id)?;
        self.messages.get(self.index_after(offset.saturating_sub(1)))
    }

    /// The publication that this publisher-given id is remembered for.
    pub fn known(&self, id: &MessageId) -> Option<Publication> {
        if let Some(message) = self.find_id(id)
            && self.still_counts(message)
        {
            return Some(Publication::of(message, true));
        }
        let Remembered { offset, at } = self.recent_ids.find(self.serial, id)?;
        Some(Publication {
            id: id.clone(),
            topic: self.topic.clone(),
            cursor: Cursor { epoch: self.epoch, offset },
            published_at: at,
            duplicate: true,
        })
    }

    /// Whether a publication with the id of this kept message is a duplicate. One that is too old counts within the window.
    fn still_counts(&self, message: &Message) -> bool {
        let is_gone = |now| self.is_gone(self.index_after(message.cursor.offset - 1), now);
        !self.now().is_some_and(is_gone) || self.recent_ids.covers(message.published_at)
    }

    /// An id whose message was published before this history began and is not kept.
    pub fn remember(&self, id: &MessageId, remembered: Remembered) {
        self.recent_ids.remember(self.serial, id, remembered);
    }

    /// The ids that are known without a kept message, oldest first.
    pub fn ids_without_message(&self) -> Vec<KnownId> {
        let remembered = self.recent_ids.of_topic(self.serial).into_iter();
        let without = remembered.filter(|(id, _)| self.find_id(id).is_none());
        without.map(|(id, Remembered { at, .. })| KnownId { id, at }).collect()
    }

    /// Whether a message may be numbered, or its id is known.
    pub fn admit(&mut self, new_message: NewMessage) -> Result<Admission, Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        // The id is checked first: repeating what was accepted must succeed, whatever has changed since.
        if let Some(id) = &new_message.id {
            if let Some(first) = self.known(id) {
                return Ok(Admission::Duplicate(first));
            }
            let same = |staged: &Staged| staged.given_id && staged.message.id == *id;
            if let Some(staged) = self.staged.iter().find(|staged| same(staged)) {
                return Ok(Admission::Staged(staged.message.cursor.offset));
            }
        }
        self.check_conditions(&new_message)?;
        self.check_key(new_message.key.as_ref(), new_message.is_removal)?;
        if new_message.origin.is_none() {
            self.bucket.take()?;
        }
        Ok(Admission::Fresh(new_message))
    }

    /// Checks what a publisher expects. Returns the newest offset, messages on their way included.
    pub fn check_conditions(&self, new_message: &NewMessage) -> Result<u64, Error> {
        let newest = self.newest_staged();
        if new_message.expected_offset.is_some_and(|expected| expected != newest) {
            return Err(Error::Conflict { current: newest });
        }
        if let (Some(expected), Some(key)) = (new_message.expected_key_offset, &new_message.key) {
            let current = self.newest_of_key(key);
            if current != expected {
                return Err(Error::KeyConflict { current });
            }
        }
        Ok(newest)
    }

    /// The newest offset of a key, of a message on its way or one that is kept; 0 if it has no value.
    fn newest_of_key(&self, key: &Key) -> u64 {
        let staged = self.staged.iter().rev().find(|staged| staged.message.key.as_ref() == Some(key));
        if let Some(staged) = staged {
            return if staged.message.is_removal { 0 } else { staged.message.cursor.offset };
        }
        let Some(latest) = self.latest.get(key).copied() else { return 0 };
        let newest = self.now().map_or(Some(latest), |now| self.newest_live(latest, now)).unwrap_or(0);
        let is_removal = self.message_of(newest).is_some_and(|message| message.is_removal);
        if is_removal { 0 } else { newest }
    }

    /// Gives the next number.
    fn number(&self, new_message: NewMessage, sequence: u64) -> Arc<Message> {
        let (prev, at) = match self.staged.back() {
            Some(staged) => (staged.message.cursor.offset, Some(staged.message.published_at)),
            None => (self.last, self.last_published_at),
        };
        // The wall clock may step back. A topic's times do not, because readers search the history by time.
        let now = new_message.origin.as_ref().map_or_else(|| self.aging.clock.wall(), |origin| origin.at);
        let at = at.map_or(now, |last| now.max(last));
        let cursor = Cursor { epoch: self.epoch, offset: prev + 1 };
        Message::new(self.topic.clone(), cursor, prev, sequence, new_message, at)
    }

    /// Numbers an admitted message and makes it readable.
    pub fn push(&mut self, new_message: NewMessage, sequence: u64) -> Result<Publication, Error> {
        let given_id = new_message.id.is_some();
        let message = self.number(new_message, sequence);
        self.check_room(message.cost(), message.key.as_ref())?;
        let publication = Publication::of(&message, false);
        self.insert(message, given_id);
        Ok(publication)
    }

    /// Takes a message that an engine has numbered. One for which no room can be made is lost here, and its readers get
    /// a gap: what others published may not fill this server's memory.
    pub fn feed(&mut self, message: Arc<Message>, given_id: bool) {
        let offset = message.cursor.offset;
        self.make_room(message.cost());
        if self.messages.is_empty() && !self.keeps_latest() && self.budget.used() + message.cost() > self.budget.total {
            self.skip_to(offset);
        } else {
            self.insert(message, given_id);
        }
    }

    /// The kept message at this offset.
    pub fn message_at(&self, offset: u64) -> Option<Arc<Message>> {
        let message = self.messages.get(self.index_after(offset.checked_sub(1)?))?;
        (message.cursor.offset == offset).then(|| message.clone())
    }

    /// A kept message with this id, the newest first, whoever has given it: for those who know that it must be young.
    pub fn find_young(&self, id: &MessageId, most: usize) -> Option<Arc<Message>> {
        self.messages.iter().rev().take(most).find(|message| message.id == *id).cloned()
    }

    /// What lies up to here and was not fed is lost.
    pub fn skip_to(&mut self, offset: u64) {
        self.last = self.last.max(offset);
    }

    fn insert(&mut self, message: Arc<Message>, given_id: bool) {
        let cost = message.cost();
        self.make_room(cost);
        match self.messages.back() {
            _ if self.keyed.is_some() => self.begin_slot(&message),
            Some(before) => self.lost_ranges += usize::from(before.cursor.offset != message.prev),
            None if self.newest != message.prev => self.lost_until = message.prev,
            None => {}
        }
        self.last = message.cursor.offset;
        self.newest = message.cursor.offset;
        self.newest_sequence = message.sequence;
        if self.total == 0 && self.numbering.before == Some(0) {
            self.first_sequence = Some(message.sequence);
        }
        self.total += 1;
        self.last_published_at = Some(message.published_at);
        if given_id {
            self.ids.insert(message.id.clone(), message.cursor.offset);
        }
        let before = message.key.as_ref().map(|key| self.latest.insert(key.clone(), message.cursor.offset));
        self.cost += cost;
        self.budget.add(cost);
        if self.ages.is_some() || message.ttl.is_some() {
            self.begin_life(&message);
            self.link_newest(before.flatten());
        }
        let is_removal = message.is_removal;
        self.messages.push_back(message);
        if let Some(before) = before
            && self.keyed.is_some()
        {
            self.settle(is_removal, before);
        }
        if let Some(aged) = self.messages.len().checked_sub(YOUNG_MESSAGES + 1) {
            self.messages[aged].cool();
        }
    }

    /// Changes the topic's settings; a smaller history and a shorter age take effect at once.
    pub fn configure(&mut self, config: TopicConfig, defaults: TopicBounds) {
        let bounds = config.bounds(defaults);
        self.set_max_age(bounds.max_age);
        (self.config, self.bounds) = (config, bounds);
        self.set_retention(bounds.retention);
        while !self.keeps_latest() && self.messages.len() > self.bounds.max_messages && self.evict_oldest() {}
        if self.bucket.per_second() != self.bounds.max_publish_rate {
            self.bucket = Bucket::new(self.bounds.max_publish_rate);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.budget.remove(self.messages.len() - self.hollow(), self.cost);
    }
}
