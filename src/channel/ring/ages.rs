//! Messages that grow too old: which they are, and how they leave the ring.
//!
//! The age of a topic takes its oldest messages, a message's own time takes one anywhere. A message that is too old is read
//! by nobody from that moment on: every read asks, so nothing depends on when it leaves the ring. That is done by a sweep,
//! in bounded steps. At the front of the ring messages are evicted like others. In its midst a message's slot stays, and is
//! *hollow*: its data and key are gone, its place in the order is not, so that a reader learns exactly what it missed there.
//!
//! ```text
//!  offset     1   2   3   4   5   6   7   8
//!           [ too old ] [kept ] hol [ kept  ]       a reader after 1 reads: a gap 2..=3 (2 missed), 4, 5,
//!                       ^       low                 a gap 6..=6 (1 missed), 7, 8
//!                   first live
//! ```
//!
//! A hollow slot counts for the bound of the history: the history is the last N messages published, of which those are kept
//! that are not too old. Ages are measured by the steady clock, so setting the wall clock neither revives a message nor ends
//! one. A ring whose messages may become as old as they like has none of this; when it gets an age, what it has is as old as
//! the wall clock says.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use super::Ring;
use crate::channel::{Age, Gap, GapReason, Message, ReadPosition, Reclaimed, Timestamp};

/// Too old messages that one read passes one by one at most. A topic's age is passed at once, however many it has taken.
const MAX_PASSED: usize = 4_096;

/// The end of the time of a hollow slot.
pub(super) const HOLLOW: i64 = i64::MIN;

/// How old the messages of a ring are.
#[derive(Debug, Default)]
pub(super) struct Ages {
    /// One for each message of the ring, in the same order.
    pub(super) lives: VecDeque<Life>,
    /// When each message's own time is over, and its offset.
    ends: BTreeSet<(i64, u64)>,
    /// How many slots are hollow.
    pub(super) hollow: usize,
}

/// The life of one message, by the steady clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// When it was published; never decreases from one message to the next.
    born: i64,
    /// When its own time is over.
    pub(super) until: i64,
    /// Of a hollow slot: when it was.
    ended: i64,
    /// The offset of the message of the same key before it; 0 where there was none.
    older: u64,
}

impl Life {
    fn is_over(self, max_age: Age, now: i64) -> bool {
        self.until <= now || self.is_past(max_age, now)
    }

    fn is_past(self, max_age: Age, now: i64) -> bool {
        !max_age.is_unlimited() && end(self.born, max_age) <= now
    }
}

fn end(born: i64, age: Age) -> i64 {
    born.saturating_add_unsigned(age.as_millis())
}

impl Ring {
    /// The time by which ages are measured; `None` where no message grows too old.
    pub fn now(&self) -> Option<i64> {
        self.ages.is_some().then(|| self.aging.clock.steady())
    }

    /// Whether the message in this slot is too old.
    pub fn is_gone(&self, index: usize, now: i64) -> bool {
        let life = self.ages.as_ref().and_then(|ages| ages.lives.get(index));
        life.is_some_and(|life| life.is_over(self.bounds.max_age, now))
    }

    /// Whether the own time of the message in this slot was over in between.
    pub(super) fn has_ended_between(&self, index: usize, begun: i64, now: i64) -> bool {
        let life = self.ages.as_ref().and_then(|ages| ages.lives.get(index));
        let end = life.map(|life| if life.until == HOLLOW { life.ended } else { life.until });
        end.is_some_and(|end| begun < end && end <= now)
    }

    /// The newest message of a key that is not too old: the one at this offset, or one before it.
    pub(super) fn newest_live(&self, mut offset: u64, now: i64) -> Option<u64> {
        while offset > 0 {
            let slot = self.index_after(offset - 1);
            if self.messages.get(slot).is_none_or(|message| message.cursor.offset != offset) {
                return None;
            }
            if !self.is_gone(slot, now) {
                return Some(offset);
            }
            offset = self.ages.as_ref().and_then(|ages| ages.lives.get(slot)).map_or(0, |life| life.older);
        }
        None
    }

    /// The newest message has this one of the same key before it.
    pub(super) fn link_newest(&mut self, older: Option<u64>) {
        if let Some(life) = self.ages.as_mut().and_then(|ages| ages.lives.back_mut()) {
            life.older = older.unwrap_or(0);
        }
    }

    /// Finds out of each message which one of the same key is before it.
    fn link_all(&mut self) {
        let Some(ages) = &mut self.ages else { return };
        let mut newest = HashMap::new();
        for (message, life) in self.messages.iter().zip(&mut ages.lives) {
            let older = message.key.as_ref().and_then(|key| newest.insert(key, message.cursor.offset));
            life.older = older.unwrap_or(0);
        }
    }

    /// Whether only the place of the message in this slot is left.
    pub(super) fn is_hollow(&self, index: usize) -> bool {
        self.ages.as_ref().and_then(|ages| ages.lives.get(index)).is_some_and(|life| life.until == HOLLOW)
    }

    /// The offsets of messages whose own time is over, and that have not left yet.
    pub(super) fn offsets_over(&self, now: i64) -> impl Iterator<Item = u64> {
        let ends = self.ages.iter().flat_map(move |ages| ages.ends.range(..=(now, u64::MAX)));
        ends.map(|(_, offset)| *offset)
    }

    /// How many of the oldest messages the topic's age has taken.
    pub(super) fn past(&self, now: i64) -> usize {
        let Some(ages) = self.ages.as_ref().filter(|_| !self.bounds.max_age.is_unlimited()) else { return 0 };
        ages.lives.partition_point(|life| life.is_past(self.bounds.max_age, now))
    }

    /// The slot of the oldest message that is not too old; the end if there is none.
    pub fn first_live(&self) -> usize {
        let Some(now) = self.now() else { return 0 };
        let past = self.past(now);
        (past..self.messages.len()).find(|index| !self.is_gone(*index, now)).unwrap_or(self.messages.len())
    }

    /// The newest position before all messages that are not too old.
    pub fn live_floor(&self) -> u64 {
        self.messages.get(self.first_live()).map_or(self.newest, |oldest| oldest.prev)
    }

    /// How many messages are kept and not too old.
    pub fn live_len(&self) -> usize {
        if self.keeps_latest() {
            return self.live_keys();
        }
        let (Some(ages), Some(now)) = (&self.ages, self.now()) else { return self.messages.len() };
        let past = self.past(now);
        // Once the sweep was here, there is nothing to look for.
        let gone = if past == 0 {
            ages.hollow + ages.ends.range(..=(now, u64::MAX)).count()
        } else {
            past + (past..self.messages.len()).filter(|index| self.is_gone(*index, now)).count()
        };
        self.messages.len() - gone
    }

    /// The slot of the last but so many messages that are not too old, or of the first of them.
    pub fn slot_of_last(&self, count: usize) -> usize {
        let Some(now) = self.now() else { return self.messages.len().saturating_sub(count) };
        let past = self.past(now);
        let mut slots = (past..self.messages.len()).rev().filter(|index| !self.is_gone(*index, now)).take(count);
        slots.by_ref().last().unwrap_or(self.messages.len())
    }

    /// Moves a reader that stands before the slot `start` behind the messages there that are too old, and returns the slot
    /// with which it goes on, and what it missed.
    pub fn pass_gone(&self, start: usize, now: i64, newest: u64, position: &mut ReadPosition) -> (usize, Option<Gap>) {
        let ReadPosition { after, seen } = *position;
        let mut slot = start;
        // Whether the engine has lost something within, which nobody can count.
        let mut lost = false;
        if newest == u64::MAX && self.lost_ranges == 0 {
            slot = slot.max(self.past(now));
        }
        let most = slot.saturating_add(MAX_PASSED);
        while let Some(message) = self.messages.get(slot)
            && slot < most
            && message.sequence <= newest
            && self.is_gone(slot, now)
        {
            let before = slot.checked_sub(1).and_then(|before| self.messages.get(before));
            let before = before.map_or(after, |before| before.cursor.offset.max(after));
            lost |= before < message.prev;
            slot += 1;
        }
        let Some(last) = slot.checked_sub(1).filter(|last| *last >= start).and_then(|last| self.messages.get(last))
        else {
            return (start, None);
        };
        let missed = (slot - start) as u64;
        *position = ReadPosition { after: last.cursor.offset, seen: seen + missed };
        (slot, Some(self.gap(after, position.after, (!lost).then_some(missed), GapReason::Expired)))
    }

    /// What lies between two slots, if anything does: messages that are too old, or what the engine has lost.
    pub fn hole_between(&self, older: usize, newer: usize) -> Option<Gap> {
        if let Some(keyed) = &self.keyed {
            return self.hole_between_among_holes(keyed, older, newer);
        }
        let (after, to) = (self.messages.get(older)?.cursor.offset, self.messages.get(newer)?.prev);
        if after >= to {
            return None;
        }
        let follows = |slot: usize| {
            let before = slot.checked_sub(1).and_then(|before| self.messages.get(before));
            before.zip(self.messages.get(slot)).is_some_and(|(before, message)| before.cursor.offset == message.prev)
        };
        let whole = self.lost_ranges == 0 || (older + 1..=newer).all(follows);
        Some(self.gap(after, to, whole.then(|| (newer - older - 1) as u64), GapReason::Expired))
    }

    /// Whether this message, which is in the ring, was too old already when another one was published in its topic at `at`.
    /// This does not depend on the clock of the instance.
    pub fn was_gone_at(&self, message: &Message, at: Timestamp) -> bool {
        let age = u64::try_from(at.0.saturating_sub(message.published_at.0)).unwrap_or(0);
        let bounds = [Some(self.bounds.max_age), message.ttl];
        bounds.into_iter().flatten().any(|bound| !bound.is_unlimited() && bound.as_millis() <= age)
    }

    // ---- writing

    /// From here on the ages of messages count, of those that are here, too.
    pub fn begin_ages(&mut self) {
        if self.ages.is_some() {
            return;
        }
        self.ages = Some(Box::default());
        for index in 0..self.messages.len() {
            if let Some(message) = self.messages.get(index).cloned() {
                self.begin_life(&message);
            }
        }
        self.link_all();
        self.aging.watch(self.epoch);
    }

    /// The message is about to be put into the ring, behind all others.
    pub fn begin_life(&mut self, message: &Message) {
        if message.ttl.is_some() {
            self.begin_ages();
        }
        let Some(ages) = &mut self.ages else { return };
        // The wall clock may have been set back since the message got its time.
        let age = self.aging.clock.latest().0.saturating_sub(message.published_at.0).max(0);
        let born = self.aging.clock.steady().saturating_sub(age);
        let born = ages.lives.back().map_or(born, |last| last.born.max(born));
        let is_kept_for_its_key = message.is_removal && self.keyed.as_ref().is_some_and(|keyed| keyed.is_on);
        let remembered = Some(self.bounds.tombstone_ttl).filter(|ttl| is_kept_for_its_key && !ttl.is_unlimited());
        let until = message.ttl.or(remembered).map_or(i64::MAX, |age| end(born, age));
        if until < i64::MAX {
            ages.ends.insert((until, message.cursor.offset));
        }
        ages.lives.push_back(Life { born, until, ended: HOLLOW, older: 0 });
    }

    /// Sets how long the removals are kept that are here.
    pub(super) fn remember_removals(&mut self, ttl: Option<Age>) {
        let Some(ages) = &mut self.ages else { return };
        for (life, message) in ages.lives.iter_mut().zip(&self.messages) {
            if !message.is_removal || life.until == HOLLOW {
                continue;
            }
            ages.ends.remove(&(life.until, message.cursor.offset));
            let ttl = message.ttl.or(ttl).filter(|ttl| !ttl.is_unlimited());
            life.until = ttl.map_or(i64::MAX, |ttl| end(life.born, ttl));
            if life.until < i64::MAX {
                ages.ends.insert((life.until, message.cursor.offset));
            }
        }
    }

    /// Takes the place of a message whose own time was over before this history was brought back.
    pub fn feed_hollow(&mut self, message: &Message) {
        self.begin_ages();
        self.feed(message.hollow(), false);
        let Some(slot) = self.messages.len().checked_sub(1) else { return };
        if let Some(ages) = &mut self.ages
            && let Some(life) = ages.lives.get_mut(slot)
            && self.newest == message.cursor.offset
        {
            life.until = HOLLOW;
            ages.hollow += 1;
            self.budget.remove(1, 0);
            let hollow = self.messages.back().cloned();
            if let Some(hollow) = hollow {
                self.note_hollow(slot, false, &hollow);
            }
        }
    }

    /// The oldest message leaves the ring. Returns whether it is hollow.
    pub(super) fn end_oldest_life(&mut self, offset: u64) -> bool {
        let Some(ages) = &mut self.ages else { return false };
        let Some(Life { until, .. }) = ages.lives.pop_front() else { return false };
        ages.ends.remove(&(until, offset));
        let is_hollow = until == HOLLOW;
        ages.hollow -= usize::from(is_hollow);
        is_hollow
    }

    /// Evicts the oldest messages that are too old, so many at most. Returns how many these were.
    fn evict_gone(&mut self, now: i64, most: usize) -> usize {
        let mut evicted = 0;
        while evicted < most && self.is_gone(0, now) && self.evict_oldest() {
            evicted += 1;
        }
        evicted
    }

    /// Changes the age of the topic. What was too old stays gone.
    pub(super) fn set_max_age(&mut self, max_age: Age) {
        let longer = max_age.is_unlimited() || max_age > self.bounds.max_age;
        if let Some(now) = self.now().filter(|_| longer) {
            let past = self.past(now);
            self.evict_gone(now, past);
        }
        self.bounds.max_age = max_age;
        if !max_age.is_unlimited() {
            self.begin_ages();
        }
    }

    /// Takes out messages that are too old, `most` of them at most.
    pub fn reclaim(&mut self, most: usize) -> Reclaimed {
        let Some(now) = self.now() else {
            self.aging.forget(self.epoch);
            return Reclaimed::default();
        };
        let floor = self.floor();
        let mut left = most - if self.keeps_latest() { 0 } else { self.evict_gone(now, most) };
        let mut within = Vec::new();
        while left > 0
            && let Some(offset) = self.next_end(now)
        {
            let is_removal = self.note_forgotten(offset);
            self.hollow_out(offset, is_removal);
            within.push(offset);
            left -= 1;
        }
        if self.keeps_latest() {
            self.tidy();
        }
        let is_over = |ages: &Ages| ages.ends.is_empty() && ages.hollow == 0;
        if left > 0
            && self.keyed.is_none()
            && self.bounds.max_age.is_unlimited()
            && self.ages.as_deref().is_some_and(is_over)
        {
            self.ages = None;
            self.aging.forget(self.epoch);
        }
        Reclaimed { within, more: left == 0, ..self.reclaimed_since(floor) }
    }

    /// The offset of a message whose own time is over, once.
    fn next_end(&mut self, now: i64) -> Option<u64> {
        let ages = self.ages.as_mut()?;
        let (until, offset) = *ages.ends.first()?;
        if until > now {
            return None;
        }
        ages.ends.pop_first();
        Some(offset)
    }

    /// Takes what the message at this offset holds, and leaves its slot. `is_compacted` says why, where that matters: a newer
    /// message of its key has come, or it was a removal.
    pub(super) fn hollow_out(&mut self, offset: u64, is_compacted: bool) {
        let index = self.index_after(offset.saturating_sub(1));
        let Some(message) = self.messages.get(index).filter(|message| message.cursor.offset == offset).cloned() else {
            return;
        };
        self.forget(&message);
        let hollow = message.hollow();
        let freed = message.cost().saturating_sub(hollow.cost());
        self.cost -= freed;
        self.budget.remove(1, freed);
        if let Some(slot) = self.messages.get_mut(index) {
            *slot = hollow.clone();
        }
        if let Some(ages) = &mut self.ages
            && let Some(life) = ages.lives.get_mut(index)
        {
            ages.ends.remove(&(life.until, offset));
            (life.ended, life.until) = (life.until, HOLLOW);
            ages.hollow += 1;
        }
        self.note_hollow(index, is_compacted, &hollow);
        self.take_older_value(&message);
    }

    /// How many slots are hollow.
    pub(super) fn hollow(&self) -> usize {
        self.ages.as_ref().map_or(0, |ages| ages.hollow)
    }

    /// The messages that are not too old, oldest first, and of each whether its id is the publisher's.
    pub fn kept(&self) -> Vec<(Arc<Message>, bool)> {
        let now = self.now();
        let given = |message: &Message| self.ids.get(&message.id) == Some(&message.cursor.offset);
        let slots = self.messages.iter().enumerate();
        let live = slots.filter(|(index, _)| now.is_none_or(|now| !self.is_gone(*index, now)));
        live.map(|(_, message)| (message.clone(), given(message))).collect()
    }
}
