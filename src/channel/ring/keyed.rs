//! Keeping the newest message of each key: what a ring has beside its messages for that.
//!
//! A message that a newer one of its key replaces leaves a *hollow* slot. Hollow slots at the front leave the ring, and when
//! they are many, the ring is rebuilt without them, so that its memory follows the number of keys and a publish costs the
//! same however many there are. What is missing then between two slots is a *hole*, and each slot says what is missing right
//! before it.
//!
//! ```text
//!  offset     1   2   3   4   5   6   7   8   9
//!  key        a   b   a   c   a   b   b   a   d
//!             ------------                           replaced, and their slots are gone
//!                         c  hol hol  b   a   d      a reader after 1 reads: a gap 2..=3 (2 missed), 4, a gap 5..=6 (2), 7, 8, 9
//!                 hole before 4
//! ```
//!
//! Offsets count here, because engines that keep the newest message of each key number one by one. A removal has a slot until
//! it is forgotten. The newest slot stays, also if it is hollow, so that every hole has a slot behind it.

use std::collections::{HashMap, VecDeque};

use super::{Ring, evicted::Evicted};
use crate::channel::{Error, Key, Message, Timestamp};

/// Where a message stood in the shared log, and when it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub sequence: u64,
    pub at: Timestamp,
}

/// What is missing right before a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    /// Of the missing messages, none stands before this one,
    pub first: Mark,
    /// and none behind this one.
    pub last: Mark,
    /// The newest of them that was replaced, or is a removal that was forgotten; 0 if all were too old.
    pub compacted: u64,
    /// Whether the engine has lost something there, which nobody can count.
    pub is_lost: bool,
}

/// What a ring with holes has for each of its messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    /// What is missing right before it.
    pub before: Option<Hole>,
    /// Of a hollow slot: whether its message was replaced, or is a removal that was forgotten.
    pub is_compacted: bool,
}

/// The messages of a key that are on their way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StagedKey {
    count: usize,
    /// Whether the key has a value once they are stored.
    has_value: bool,
}

/// What a ring has that keeps the newest message of each key, or has done so.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Keyed {
    /// Whether only the newest message of each key is kept.
    pub is_on: bool,
    /// Whether every message needs a key, and keys are counted. That is so a moment before, too.
    pub is_strict: bool,
    /// Whether settings are being stored that end this.
    pub is_ending: bool,
    /// How many keys may have a value.
    pub max_keys: usize,
    /// One for each message of the ring, in the same order.
    pub slots: VecDeque<Slot>,
    /// Offsets that are no messages of this ring's count.
    pub base: u64,
    /// Up to here, messages have left by the bounds of a history.
    pub history_until: u64,
    /// The newest messages of keys that are removals.
    pub removals: usize,
    pub staged: HashMap<Key, StagedKey>,
    /// How many more keys have a value once everything is stored that is on its way.
    pub more_staged: isize,
    /// What hollow slots count against the bounds on bytes.
    pub hollow_cost: usize,
    /// The newest removal that has been forgotten, and the newest value whose own time was over.
    pub forgotten_removal: u64,
    pub ended_value: u64,
    /// Messages that were replaced since the engine was told.
    pub replaced: Vec<u64>,
    /// The newest messages that were published one after the other, kept or not.
    pub published: Evicted,
    /// What is missing before the message that comes next.
    pub next_hole: Option<Hole>,
    /// Whether the engine has lost something within, at any time.
    pub has_lost: bool,
}

impl Hole {
    pub fn of(message: &Message, is_compacted: bool) -> Self {
        let compacted = if is_compacted { message.cursor.offset } else { 0 };
        let mark = Mark { sequence: message.sequence, at: message.published_at };
        Self { first: mark, last: mark, compacted, is_lost: false }
    }

    fn and_then(self, next: Self) -> Self {
        Self {
            first: self.first,
            last: next.last,
            compacted: self.compacted.max(next.compacted),
            is_lost: self.is_lost || next.is_lost,
        }
    }
}

pub(super) fn joined(before: Option<Hole>, next: Option<Hole>) -> Option<Hole> {
    match (before, next) {
        (Some(before), Some(next)) => Some(before.and_then(next)),
        (before, next) => before.or(next),
    }
}

impl Keyed {
    fn note_staged(&mut self, key: &Key, has_value: bool) {
        let staged = match self.staged.get_mut(key) {
            Some(staged) => staged,
            None => self.staged.entry(key.clone()).or_default(),
        };
        staged.count += 1;
        staged.has_value = has_value;
    }

    /// A message of the key is on its way no more.
    fn unstage(&mut self, key: &Key) {
        if let Some(staged) = self.staged.get_mut(key) {
            staged.count -= 1;
            if staged.count == 0 {
                self.staged.remove(key);
            }
        }
    }
}

impl Ring {
    /// Whether it keeps the newest message of each key.
    pub fn keeps_latest(&self) -> bool {
        self.keyed.as_ref().is_some_and(|keyed| keyed.is_on)
    }

    /// How many keys have a value.
    pub fn keys(&self) -> usize {
        self.latest.len().saturating_sub(self.keyed.as_ref().map_or(0, |keyed| keyed.removals))
    }

    /// How many keys have a value now.
    pub(super) fn live_keys(&self) -> usize {
        let Some(now) = self.now() else { return self.keys() };
        let is_value = |offset: &u64| self.message_of(*offset).is_some_and(|message| !message.is_removal);
        self.keys().saturating_sub(self.offsets_over(now).filter(is_value).count())
    }

    /// The time of a message is over. Returns whether it is a removal, which is forgotten by that.
    pub(super) fn note_forgotten(&mut self, offset: u64) -> bool {
        let is_removal = self.message_of(offset).is_some_and(|message| message.is_removal);
        if let Some(keyed) = &mut self.keyed {
            let newest = if is_removal { &mut keyed.forgotten_removal } else { &mut keyed.ended_value };
            *newest = offset.max(*newest);
        }
        is_removal
    }

    /// The newest offset of a removal that is no longer remembered; 0 without any. Whoever has begun before it and has not
    /// passed it may believe that its key has a value.
    pub fn forgotten_removal(&self) -> u64 {
        let Some(keyed) = &self.keyed else { return 0 };
        let Some(now) = self.now() else { return keyed.forgotten_removal };
        let is_removal = |offset: &u64| self.message_of(*offset).is_some_and(|message| message.is_removal);
        keyed.forgotten_removal.max(self.offsets_over(now).filter(is_removal).max().unwrap_or(0))
    }

    /// Whether a key has a value among the messages that are stored.
    fn has_value(&self, key: &Key) -> bool {
        self.latest.get(key).is_some_and(|offset| self.message_of(*offset).is_some_and(|message| !message.is_removal))
    }

    /// Whether a key has a value once everything is stored that is on its way.
    fn will_have_value(&self, key: &Key) -> bool {
        let staged = self.keyed.as_ref().and_then(|keyed| keyed.staged.get(key));
        staged.map_or_else(|| self.has_value(key), |staged| staged.has_value)
    }

    pub(super) fn message_of(&self, offset: u64) -> Option<&Message> {
        self.messages.get(self.index_after(offset.checked_sub(1)?)).map(|message| &**message)
    }

    /// Checks whether the topic takes a message with this key, or without one.
    ///
    /// # Errors
    /// [`Error::BadRequest`] without a key where each message needs one, [`Error::LimitReached`] for one key too many.
    pub(super) fn check_key(&self, key: Option<&Key>, is_removal: bool) -> Result<(), Error> {
        let Some(keyed) = self.keyed.as_ref().filter(|keyed| keyed.is_strict) else { return Ok(()) };
        let Some(key) = key else {
            return Err(Error::bad_request("key", "is missing: the topic keeps the newest message of each key"));
        };
        if is_removal || (self.will_have_value(key) && !self.is_too_old(key)) {
            return Ok(());
        }
        let limit = keyed.max_keys;
        let keys = self.keys().saturating_add_signed(keyed.more_staged);
        if keys < limit || keys.saturating_sub(self.keys_too_old()) < limit {
            return Ok(());
        }
        Err(Error::LimitReached { what: "keys of this topic may have a value", limit, own: false })
    }

    /// Whether the value of a key counts, although its time is over and no other message of the key is on its way.
    fn is_too_old(&self, key: &Key) -> bool {
        let is_staged = self.keyed.as_ref().is_some_and(|keyed| keyed.staged.contains_key(key));
        let Some((offset, now)) = self.latest.get(key).zip(self.now()).filter(|_| !is_staged) else { return false };
        self.is_gone(self.index_after(offset.saturating_sub(1)), now)
    }

    /// How many keys count that have no value any more, because the time of their messages is over.
    pub(super) fn keys_too_old(&self) -> usize {
        let Some(now) = self.now() else { return 0 };
        let counts = |message: &Message| {
            let staged = message.key.as_ref().and_then(|key| self.keyed.as_ref()?.staged.get(key));
            !message.is_removal && staged.is_none()
        };
        self.offsets_over(now).filter(|offset| self.message_of(*offset).is_some_and(counts)).count()
    }

    /// What a message may take beyond the bounds on bytes, because others leave for it: the one that it replaces, what is
    /// hollow, and what is remembered of messages that are gone.
    pub(super) fn gives_way(&self, key: Option<&Key>) -> usize {
        let Some(keyed) = self.keyed.as_ref().filter(|keyed| keyed.is_on) else { return 0 };
        let replaced = key.filter(|key| !keyed.staged.contains_key(*key)).and_then(|key| self.latest.get(key));
        let replaced = replaced.and_then(|offset| self.message_of(*offset)).map_or(0, Message::cost);
        keyed.hollow_cost + keyed.published.bytes() + self.evicted.bytes() + replaced
    }

    // ---- messages on their way

    pub(super) fn note_staged(&mut self, message: &Message) {
        let Some(key) = message.key.as_ref().filter(|_| self.counts_staged()) else { return };
        let before = self.will_have_value(key);
        if let Some(keyed) = &mut self.keyed {
            keyed.note_staged(key, !message.is_removal);
            keyed.more_staged += isize::from(!message.is_removal) - isize::from(before);
        }
    }

    fn counts_staged(&self) -> bool {
        self.keyed.as_ref().is_some_and(|keyed| keyed.is_strict)
    }

    /// The oldest message on its way is about to be inserted.
    pub(super) fn note_stored(&mut self, message: &Message) {
        let Some(key) = message.key.as_ref().filter(|_| self.counts_staged()) else { return };
        let before = self.has_value(key);
        if let Some(keyed) = &mut self.keyed {
            keyed.unstage(key);
            keyed.more_staged -= isize::from(!message.is_removal) - isize::from(before);
        }
    }

    /// Looks again at everything that is on its way.
    pub(super) fn recount_staged(&mut self) {
        if !self.counts_staged() {
            return;
        }
        let mut on_its_way = HashMap::<Key, StagedKey>::new();
        for message in self.staged.iter().map(|staged| &staged.message) {
            if let Some(key) = &message.key {
                let staged = on_its_way.entry(key.clone()).or_default();
                *staged = StagedKey { count: staged.count + 1, has_value: !message.is_removal };
            }
        }
        let more = |(key, staged): (&Key, &StagedKey)| isize::from(staged.has_value) - isize::from(self.has_value(key));
        let more_staged = on_its_way.iter().map(more).sum();
        if let Some(keyed) = &mut self.keyed {
            (keyed.staged, keyed.more_staged) = (on_its_way, more_staged);
        }
    }
}
