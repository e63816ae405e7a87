//! Reading the state of a topic: of each key only the newest message that is kept.
//!
//! A reader of the state begins with the oldest message and leaves out what is not the newest of its key at the moment at
//! which it is read, so a key that changes meanwhile comes once, in its newest form. When such a reader has come to the end,
//! what it was given is the state there. It begins with nothing, so it need not know what was removed, evicted or too old
//! before it began. It has to know what comes after: its subscriber may hold an earlier value of the same key.
//!
//! ```text
//!  offset     1   2   3   4   5   6   7   8   9
//!  key        a   b   a   c   -   b   b   a   c
//!             v   v   v   v   v   v  rem  v   v       a reader that begins when 7 is the newest, and reads when 9 is:
//!                                     ^                8 (a), 9 (c). It never had b, so the removal is left out.
//!                                  it begins
//! ```

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Ring, keyed::Keyed};
use crate::channel::{BatchLimit, Gap, GapReason, Key, Message, ReadPosition, ReadStatus};

/// Messages that one read looks at, at most: the topic's lock is held meanwhile.
const MAX_EXAMINED: usize = 512;

/// Messages that are taken out of the ring at once.
const PIECE: usize = 64;

/// The moment at which a reader began to read the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// The end of the topic.
    end: ReadPosition,
    /// The time by which ages are measured.
    at: i64,
}

/// What one read of the state says besides the messages.
pub(crate) struct StateRead {
    pub gap: Option<Gap>,
    pub rest: ReadStatus,
    /// The number in the shared log of the newest message that was passed, if that is still there.
    pub sequence: Option<u64>,
}

/// A step of a page of the state.
pub(crate) struct StateStep {
    /// Everything up to this offset was looked at.
    pub after: u64,
    /// Whether there is more behind that.
    pub more: bool,
}

impl Ring {
    /// This moment, for a reader that begins to read the state.
    pub fn begin_state(&self) -> Begun {
        Begun { end: self.end(), at: self.aging.clock.steady() }
    }

    /// Reads one batch of the state behind `position`, as [`Ring::read`] does, for a reader that has `begun` then. What is
    /// told as missed stands before the batch.
    pub fn read_state(
        &mut self,
        position: &mut ReadPosition,
        begun: &Begun,
        limit: BatchLimit,
        newest: u64,
        out: &mut impl Extend<Arc<Message>>,
    ) -> StateRead {
        let (gap, rest) = self.read_state_pieces(position, begun, limit, newest, out);
        // What was passed without being there any more may have been behind messages of other topics.
        let passed = self.index_after(position.after).checked_sub(1).and_then(|last| self.messages.get(last));
        StateRead { gap, rest, sequence: passed.map(|passed| passed.sequence) }
    }

    fn read_state_pieces(
        &mut self,
        position: &mut ReadPosition,
        begun: &Begun,
        limit: BatchLimit,
        newest: u64,
        out: &mut impl Extend<Arc<Message>>,
    ) -> (Option<Gap>, ReadStatus) {
        let mut gap = None;
        let (mut taken, mut bytes, mut examined) = (0, 0, 0);
        loop {
            let mut next = *position;
            let mut piece = SmallVec::<[Arc<Message>; PIECE]>::new();
            // Bytes count for what is taken, and much may be left out.
            let (hole, rest) = self.read(&mut next, BatchLimit::messages(PIECE), newest, &mut piece);
            examined += hole.as_ref().map_or(0, |hole| self.work_of(hole)) + piece.len();
            let hole =
                hole.and_then(|hole| self.told(hole, *position, next.seen.saturating_sub(piece.len() as u64), begun));
            if hole.is_some() && taken > 0 {
                // It stands behind what was taken: the next batch begins with it.
                return (gap, ReadStatus::More);
            }
            gap = Gap::joined(gap, hole);
            let len = piece.len();
            for (index, message) in piece.into_iter().enumerate() {
                if !self.is_in_state(&message, begun.end.after) {
                    continue;
                }
                (taken, bytes) = (taken + 1, bytes + message.data.len());
                let after = message.cursor.offset;
                out.extend([message]);
                if taken >= limit.messages || bytes >= limit.bytes {
                    let behind = len - index - 1;
                    *position =
                        if behind > 0 { self.back_at(after, next.seen.saturating_sub(behind as u64)) } else { next };
                    let rest = if behind > 0 { ReadStatus::More } else { rest };
                    return (gap, rest);
                }
            }
            let has_moved = next != *position;
            *position = next;
            if rest != ReadStatus::More || !has_moved || examined >= MAX_EXAMINED {
                return (gap, rest);
            }
        }
    }

    /// Whether the message is the value of its key, or takes away a value that a reader may hold that began at this end of
    /// the topic.
    fn is_in_state(&mut self, message: &Message, begun: u64) -> bool {
        let Some(key) = &message.key else { return false };
        let counts = !message.is_removal || message.cursor.offset > begun;
        // Its own time may be over since it was read: it counts all the same, because older ones were left out for it.
        counts && self.newest_value(key).is_none_or(|newest| newest <= message.cursor.offset)
    }

    /// The newest message of a key that is kept. Those behind it that are too old are not looked at again.
    fn newest_value(&mut self, key: &Key) -> Option<u64> {
        let newest = self.latest.get(key).copied()?;
        let Some(now) = self.now() else { return Some(newest) };
        let live = self.newest_live(newest, now)?;
        // Where keys are counted, only what takes a message out may do this.
        if live != newest && self.keyed.is_none() {
            self.latest.insert(key.clone(), live);
        }
        Some(live)
    }

    /// A message has become hollow: its key has the value before it, if that is kept.
    pub(super) fn take_older_value(&mut self, ended: &Message) {
        let Some((key, now)) = ended.key.as_ref().zip(self.now()).filter(|_| !self.keeps_latest()) else { return };
        if !self.latest.contains_key(key)
            && let Some(live) = self.newest_live(ended.cursor.offset, now)
        {
            self.latest.insert(key.clone(), live);
            let is_removal = self.message_of(live).is_some_and(|message| message.is_removal);
            if let Some(keyed) = &mut self.keyed {
                keyed.removals += usize::from(is_removal);
            }
        }
    }

    /// What is told of a hole between `from` and the `seen`-th message to a reader of the state. What the engine has lost may
    /// be the value of any key. Other messages are not in the state any more if they were there when the reader began;
    /// it may hold an older value of their keys if they came later.
    fn told(&self, hole: Gap, from: ReadPosition, seen: u64, begun: &Begun) -> Option<Gap> {
        let is_lost = match &self.keyed {
            Some(keyed) => self.has_lost_within(keyed, from.after, hole.to_offset),
            None => hole.missed.is_none(),
        };
        if is_lost {
            return Some(hole);
        }
        if self.keeps_latest() {
            return self.told_of_keys(hole, from.after, begun);
        }
        let ended = self.ended_since(from.after, hole.to_offset.min(begun.end.after), begun.at);
        if hole.to_offset <= begun.end.after {
            return ended;
        }
        let missed = seen.saturating_sub(from.seen.max(begun.end.seen));
        let from_offset = hole.from_offset.max(begun.end.after + 1);
        let later = (missed > 0).then_some(Gap { missed: Some(missed), from_offset, ..hole });
        Gap::joined(ended, later)
    }

    /// [`Ring::told`] where the newest message of each key is kept. What was replaced comes in its newest form. What a reader may
    /// hold for ever is the value of a key that has none any more, because the removal was forgotten or the newer value's
    /// time is over.
    fn told_of_keys(&self, hole: Gap, after: u64, begun: &Begun) -> Option<Gap> {
        let first = after.max(begun.end.after);
        if hole.to_offset <= first || self.ended_until() <= first {
            return None;
        }
        let missed = hole.missed.map(|_| hole.to_offset - first);
        Some(Gap { missed, from_offset: first + 1, ..hole })
    }

    /// The newest offset of a message after which its key had no value, that is not there any more.
    fn ended_until(&self) -> u64 {
        let ended = self.keyed.as_ref().map_or(0, |keyed| keyed.ended_value);
        let over = self.now().and_then(|now| self.offsets_over(now).max()).unwrap_or(0);
        self.forgotten_removal().max(ended).max(over)
    }

    /// Whether the engine has lost something that a reader passes.
    fn has_lost_within(&self, keyed: &Keyed, after: u64, to: u64) -> bool {
        let slots = self.index_after(after)..=self.index_after(to);
        let lost_before = |slot: usize| keyed.slots.get(slot).map_or(keyed.next_hole, |slot| slot.before);
        after < self.lost_until || slots.into_iter().filter_map(lost_before).any(|hole| hole.is_lost)
    }

    /// The work of passing a hole. Most of what was replaced has no slot any more.
    fn work_of(&self, hole: &Gap) -> usize {
        if self.keyed.is_some() {
            return 1;
        }
        hole.missed.map_or(0, |missed| usize::try_from(missed).unwrap_or(usize::MAX).min(MAX_EXAMINED))
    }

    /// The position behind a message that is the `seen`-th.
    fn back_at(&self, after: u64, seen: u64) -> ReadPosition {
        self.keyed.as_ref().map_or(ReadPosition { after, seen }, |keyed| keyed.position_at(after))
    }

    /// Messages in a hole whose own time was over after a reader has begun: it has left out an older value of their
    /// keys, which is the newest now.
    fn ended_since(&self, after: u64, to: u64, begun: i64) -> Option<Gap> {
        let now = self.now()?;
        let (first, end) = (self.index_after(after), self.index_after(to));
        let ended = (first.max(self.past(now))..end).filter(|slot| self.has_ended_between(*slot, begun, now));
        let offsets = ended.filter_map(|slot| self.messages.get(slot)).map(|message| message.cursor.offset);
        let one = |offset: u64| self.gap(offset - 1, offset, Some(1), GapReason::Expired);
        offsets.map(one).reduce(|gap, next| gap.and_then(&next))
    }

    /// See [`crate::channel::Channel::step_of_state`].
    pub fn step_of_state(
        &mut self,
        after: u64,
        prefix: &str,
        limit: BatchLimit,
        found: &mut Vec<Arc<Message>>,
    ) -> StateStep {
        let now = self.now();
        let first = self.index_after(after).max(now.map_or(0, |now| self.past(now)));
        let end = self.messages.len().min(first.saturating_add(MAX_EXAMINED));
        let (mut slot, mut taken, mut bytes) = (first, 0, 0);
        while slot < end && taken < limit.messages && bytes < limit.bytes {
            let live = self.messages.get(slot).filter(|_| now.is_none_or(|now| !self.is_gone(slot, now))).cloned();
            let has_prefix = |key: &Key| key.as_str().starts_with(prefix);
            if let Some(message) = live
                && message.key.as_ref().is_some_and(has_prefix)
                && self.is_in_state(&message, u64::MAX)
            {
                (taken, bytes) = (taken + 1, bytes + message.data.len());
                found.push(message);
            }
            slot += 1;
        }
        let last = slot.checked_sub(1).and_then(|last| self.messages.get(last));
        let after = last.map_or(after, |last| last.cursor.offset.max(after));
        StateStep { after, more: slot < self.messages.len() }
    }
}
