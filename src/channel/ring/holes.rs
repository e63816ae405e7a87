//! Reading a ring in whose midst messages are missing: see [`super::keyed`].

use std::sync::Arc;

use super::{
    Ring,
    evicted::Found,
    keyed::{Hole, Keyed, Mark},
};
use crate::channel::{BatchLimit, Gap, GapReason, Message, ReadPosition, Start, Timestamp};

/// Messages that are gone and that one read passes one by one at most.
const MAX_PASSED: usize = 4_096;

/// What lies between where a reader stands and the next message that it gets.
#[derive(Clone, Copy, Debug)]
struct Passed {
    after: u64,
    to: u64,
    is_compacted: bool,
    is_lost: bool,
}

impl Passed {
    fn at(after: u64) -> Self {
        Self { after, to: after, is_compacted: false, is_lost: false }
    }

    /// Passes what is missing up to `to`. Where nothing says what that is, it has left by the bounds of a history, or is lost.
    fn hole(&mut self, to: u64, hole: Option<&Hole>, history_until: u64) {
        self.to = to;
        self.is_compacted |= hole.is_some_and(|hole| hole.compacted > self.after);
        self.is_lost |= hole.map_or(to > history_until, |hole| hole.is_lost);
    }

    /// Passes a message that is gone.
    fn message(&mut self, offset: u64, is_compacted: bool) {
        self.to = offset;
        self.is_compacted |= is_compacted;
    }
}

impl Keyed {
    /// Where somebody stands who has read up to this offset.
    pub(super) fn position_at(&self, offset: u64) -> ReadPosition {
        ReadPosition { after: offset, seen: offset.saturating_sub(self.base) }
    }
}

impl Ring {
    fn gap_of(&self, keyed: &Keyed, passed: Passed) -> Option<Gap> {
        let Passed { after, to, is_compacted, is_lost } = passed;
        if after >= to {
            return None;
        }
        let reason = if after < keyed.history_until {
            // It left by the bounds of a history, and not because a newer message of its key came.
            let by_age = (self.crowded_out.max(self.lost_until)..self.aged_out).contains(&after);
            if by_age { GapReason::Expired } else { GapReason::SlowConsumer }
        } else if is_compacted {
            GapReason::Compacted
        } else {
            GapReason::Expired
        };
        Some(self.gap(after, to, self.counted(after, to, is_lost), reason))
    }

    /// How many messages lie behind `after` up to `to`, if that is known.
    fn counted(&self, after: u64, to: u64, is_lost: bool) -> Option<u64> {
        (!is_lost && after >= self.numbering.dense_from && after >= self.lost_until).then(|| to - after)
    }

    /// The gap of a reader whose position is of another epoch.
    pub(super) fn new_epoch_among_holes(&self) -> Gap {
        self.gap(0, self.floor(), self.counted(0, self.floor(), false), GapReason::NewEpoch)
    }

    /// [`Ring::locate`] in a ring with holes.
    pub(super) fn locate_among_holes(
        &self,
        keyed: &Keyed,
        start: &Start,
        created_at: Timestamp,
    ) -> (ReadPosition, Option<Gap>) {
        let at = |offset| keyed.position_at(offset);
        let before = |slot: usize| at(self.messages.get(slot).map_or(self.last, |message| message.prev));
        match *start {
            Start::Live => (self.end(), None),
            Start::Oldest | Start::State => (before(self.first_live()), None),
            Start::Last(count) => (before(self.slot_of_last(count as usize)), None),
            Start::After(cursor) if cursor.epoch == self.epoch => self.locate_after(keyed, cursor.offset),
            // The cursor of another epoch, or a position that says nothing about this topic's log.
            Start::After(_) | Start::AfterPattern(_) => (at(self.floor()), Some(self.new_epoch())),
            Start::AfterSequence(sequence) => {
                if let Found::Behind { after, .. } = keyed.published.behind_sequence(sequence) {
                    return self.locate_after(keyed, after);
                }
                let slot = self.messages.partition_point(|message| message.sequence <= sequence);
                let evicted = || match self.evicted.behind_sequence(sequence) {
                    Found::Unknown { .. } if self.first_sequence.is_some_and(|first| first > sequence) => {
                        self.evicted.behind_offset(0)
                    }
                    found => found,
                };
                self.locate_behind(keyed, slot, evicted, |mark| mark.sequence > sequence)
            }
            Start::Since(time) => {
                if let Found::Behind { after, .. } = keyed.published.since(time) {
                    return self.locate_after(keyed, after);
                }
                let slot = self.messages.partition_point(|message| message.published_at < time);
                let evicted = || match self.evicted.since(time) {
                    Found::Unknown { .. } if time <= created_at => self.evicted.behind_offset(0),
                    found => found,
                };
                self.locate_behind(keyed, slot, evicted, |mark| mark.at >= time)
            }
        }
    }

    /// Begins behind an offset.
    fn locate_after(&self, keyed: &Keyed, after: u64) -> (ReadPosition, Option<Gap>) {
        if after >= keyed.history_until {
            return (keyed.position_at(after), None);
        }
        let floor = self.floor();
        let gap = self.gap(after, floor, self.counted(after, floor, false), GapReason::Expired);
        (keyed.position_at(floor), Some(gap))
    }

    /// Begins before a slot, and with what is missing before that as far as a reader has missed it.
    fn locate_behind(
        &self,
        keyed: &Keyed,
        slot: usize,
        evicted: impl FnOnce() -> Found,
        is_missed: impl Fn(Mark) -> bool,
    ) -> (ReadPosition, Option<Gap>) {
        let at = |offset| keyed.position_at(offset);
        if slot == 0 && keyed.history_until > 0 {
            match evicted() {
                Found::None => {}
                found => return (at(self.floor()), Some(self.expired(found))),
            }
        }
        let end = self.messages.get(slot).map_or(self.last, |message| message.prev);
        let begin = slot.checked_sub(1).and_then(|before| self.messages.get(before));
        let begin = begin.map_or(keyed.history_until, |message| message.cursor.offset).min(end);
        let hole = keyed.slots.get(slot).map_or(keyed.next_hole.as_ref(), |slot| slot.before.as_ref());
        match hole {
            Some(hole) if !is_missed(hole.last) => (at(end), None),
            Some(hole) if !is_missed(hole.first) => {
                let reason = if hole.compacted > 0 { GapReason::Compacted } else { GapReason::Expired };
                (at(end), Some(self.gap(begin, end, None, reason)))
            }
            _ => (at(begin), None),
        }
    }

    /// Passes what a reader behind `after` does not get, from a slot on. Returns the slot with which it goes on.
    fn pass_holes(&self, keyed: &Keyed, begin: usize, newest: u64, passed: &mut Passed) -> usize {
        let now = self.now();
        let most = begin.saturating_add(MAX_PASSED);
        let mut slot = begin;
        while let (Some(message), Some(at)) = (self.messages.get(slot), keyed.slots.get(slot)) {
            if passed.to < message.prev {
                if at.before.is_some_and(|hole| hole.first.sequence > newest) {
                    break;
                }
                passed.hole(message.prev, at.before.as_ref(), keyed.history_until);
            }
            let is_gone = now.is_some_and(|now| self.is_gone(slot, now));
            if slot == most || message.sequence > newest || !is_gone {
                break;
            }
            passed.message(message.cursor.offset, at.is_compacted || message.is_removal);
            slot += 1;
        }
        // The history may end with what is missing, too.
        if slot == self.messages.len() && passed.to < self.last {
            passed.hole(self.last, keyed.next_hole.as_ref(), keyed.history_until);
        }
        slot
    }

    /// [`Ring::read`] in a ring with holes.
    pub(super) fn read_among_holes(
        &self,
        keyed: &Keyed,
        position: &mut ReadPosition,
        limit: BatchLimit,
        newest: u64,
        out: &mut impl Extend<Arc<Message>>,
    ) -> Option<Gap> {
        let mut passed = Passed::at(position.after);
        let begin = self.pass_holes(keyed, self.index_after(position.after), newest, &mut passed);
        let now = self.now();
        let (mut after, mut bytes) = (passed.to, 0);
        for (slot, message) in (begin..).zip(self.messages.range(begin..)).take(limit.messages) {
            let is_next = after == message.prev && message.sequence <= newest;
            if bytes >= limit.bytes || !is_next || now.is_some_and(|now| self.is_gone(slot, now)) {
                break;
            }
            bytes += message.data.len();
            after = message.cursor.offset;
            out.extend([message.clone()]);
        }
        *position = keyed.position_at(after);
        self.gap_of(keyed, passed)
    }

    /// The number in the shared log with which a reader behind `after` goes on, unless it is at the end.
    pub(super) fn next_sequence_among_holes(&self, keyed: &Keyed, after: u64) -> Option<u64> {
        let slot = self.index_after(after);
        let next = self.messages.get(slot).zip(keyed.slots.get(slot)).map(|(message, slot)| match slot.before {
            Some(hole) if after < message.prev => hole.first.sequence,
            _ => message.sequence,
        });
        let tail = || keyed.next_hole.map_or(self.newest_sequence, |hole| hole.first.sequence);
        next.or_else(|| (after < self.last).then(tail))
    }

    /// [`Ring::hole_between`] in a ring with holes.
    pub(super) fn hole_between_among_holes(&self, keyed: &Keyed, older: usize, newer: usize) -> Option<Gap> {
        let after = self.messages.get(older)?.cursor.offset;
        let mut passed = Passed::at(after);
        for slot in older + 1..=newer {
            let (message, at) = (self.messages.get(slot)?, keyed.slots.get(slot)?);
            if passed.to < message.prev {
                passed.hole(message.prev, at.before.as_ref(), keyed.history_until);
            }
            if slot < newer {
                passed.message(message.cursor.offset, at.is_compacted || message.is_removal);
            }
        }
        self.gap_of(keyed, passed)
    }
}
