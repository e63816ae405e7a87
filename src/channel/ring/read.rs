//! Reading the ring: where a reader begins, what it gets, what it has missed.

use std::sync::Arc;

use smallvec::{Array, SmallVec};

use super::{Ring, evicted::Found, keyed::Keyed};
use crate::channel::{
    BatchLimit, Gap, GapReason, Message, ReadPosition, ReadStatus, Start, Timestamp, reading::Pieces,
};

impl Ring {
    /// Resolves a start to the position behind which the receiver reads, and what it has missed already.
    pub fn locate(&self, start: &Start, created_at: Timestamp) -> (ReadPosition, Option<Gap>) {
        if let Some(keyed) = &self.keyed {
            return self.locate_among_holes(keyed, start, created_at);
        }
        let (floor, gone) = (self.floor(), self.gone());
        let oldest = ReadPosition { after: floor, seen: gone };
        let before = |index: usize| {
            self.messages
                .get(index)
                .map_or(self.end(), |first| ReadPosition { after: first.prev, seen: gone + index as u64 })
        };
        match *start {
            Start::Live => (self.end(), None),
            Start::Oldest | Start::State => (before(self.first_live()), None),
            Start::Last(count) => (before(self.slot_of_last(count as usize)), None),
            Start::After(cursor) if cursor.epoch != self.epoch => (oldest, Some(self.new_epoch())),
            // The cursor says nothing about this topic's log.
            Start::AfterPattern(_) => (oldest, Some(self.new_epoch())),
            Start::After(cursor) if cursor.offset < floor => {
                let gap = match self.evicted.behind_offset(cursor.offset) {
                    // Offsets between the newest message that was here and the oldest that is were lost by the engine.
                    Found::None => self.gap(cursor.offset, floor, None, GapReason::Expired),
                    found => self.expired(found),
                };
                (oldest, Some(gap))
            }
            Start::After(cursor) => {
                let seen = gone + self.index_after(cursor.offset).min(self.messages.len()) as u64;
                (ReadPosition { after: cursor.offset, seen }, None)
            }
            Start::AfterSequence(sequence) => {
                match self.messages.partition_point(|message| message.sequence <= sequence) {
                    0 => (oldest, self.expired_behind(sequence)),
                    // It begins behind the message before: a lost range between the two may not have been delivered as
                    // a gap.
                    index => {
                        let after = self.messages.get(index - 1).map_or(floor, |message| message.cursor.offset);
                        (ReadPosition { after, seen: gone + index as u64 }, None)
                    }
                }
            }
            Start::Since(time) => match self.messages.partition_point(|message| message.published_at < time) {
                // The oldest kept message is late enough, and so some that were evicted may be, too.
                0 => (oldest, self.expired_since(time, created_at)),
                index => (before(index), None),
            },
        }
    }

    /// The gap of a reader whose position is of another epoch: it counts what is gone of this one.
    pub fn new_epoch(&self) -> Gap {
        if self.keyed.is_some() {
            return self.new_epoch_among_holes();
        }
        let missed = self.numbering.before.filter(|_| self.lost_until == 0).map(|before| before + self.gone());
        self.gap(0, self.floor(), missed, GapReason::NewEpoch)
    }

    /// What a reader has missed that had read up to this number in the shared log.
    fn expired_behind(&self, sequence: u64) -> Option<Gap> {
        match self.evicted.behind_sequence(sequence) {
            // A lost range behind the newest evicted message may not have been delivered as a gap.
            Found::None if self.evicted.newest() < self.floor() && !self.messages.is_empty() => {
                Some(self.gap(self.evicted.newest(), self.floor(), None, GapReason::Expired))
            }
            Found::None => None,
            // The topic began behind that position, so the reader missed all that was evicted.
            Found::Unknown { .. } if self.first_sequence.is_some_and(|first| first > sequence) => {
                Some(self.all_expired())
            }
            found => Some(self.expired(found)),
        }
    }

    /// What was published at or after a time and is not kept any more.
    fn expired_since(&self, time: Timestamp, created_at: Timestamp) -> Option<Gap> {
        match self.evicted.since(time) {
            Found::None => None,
            Found::Unknown { .. } if time <= created_at => Some(self.all_expired()),
            found => Some(self.expired(found)),
        }
    }

    /// The gap of a reader that missed all that is gone.
    fn all_expired(&self) -> Gap {
        self.expired(self.evicted.behind_offset(0))
    }

    pub(super) fn expired(&self, found: Found) -> Gap {
        let (after, missed) = match found {
            Found::None => (self.floor(), Some(0)),
            Found::Behind { after, index } => (after, self.evicted_behind(after, Some(index))),
            Found::Unknown { after: Some(after) } => (after, self.evicted_behind(after, None)),
            Found::Unknown { after: None } => (0, None),
        };
        self.gap(after, self.floor(), missed, GapReason::Expired)
    }

    /// How many messages behind a position were evicted, if that is known; `index` is where they begin among those that
    /// are remembered.
    fn evicted_behind(&self, after: u64, index: Option<usize>) -> Option<u64> {
        if after < self.lost_until {
            return None;
        }
        // Where offsets grow by one, a difference is a count.
        if after >= self.numbering.dense_from {
            return Some(self.floor() - after);
        }
        // The oldest that are remembered may have followed others that this instance has never seen.
        let whole = self.numbering.before == Some(0) || self.evicted.follows(after);
        index.filter(|index| *index > 0 || whole).map(|index| (self.evicted.len() - index) as u64)
    }

    /// What lies after `after` up to and including `to`.
    pub(super) fn gap(&self, after: u64, to: u64, missed: Option<u64>, reason: GapReason) -> Gap {
        Gap { topic: self.topic.clone(), missed, from_offset: after + 1, to_offset: to, reason }
    }

    /// The number in the shared log with which the reader at `position` goes on, unless it is at the end.
    pub fn next_sequence(&self, position: ReadPosition) -> Option<u64> {
        if let Some(keyed) = &self.keyed {
            return self.next_sequence_among_holes(keyed, position.after);
        }
        let next = self.messages.get(self.index_after(position.after)).map(|message| message.sequence);
        next.or_else(|| (position.after < self.last).then_some(self.newest_sequence))
    }

    /// Reads one batch of messages behind `position` into `out` and moves it behind them; says what was missed before
    /// them. A lost range ends the batch: its gap stands before the next one. So does a message whose
    /// number in the shared log is greater than `newest`: another topic's comes before it.
    pub fn read(
        &self,
        position: &mut ReadPosition,
        limit: BatchLimit,
        newest: u64,
        out: &mut impl Extend<Arc<Message>>,
    ) -> (Option<Gap>, ReadStatus) {
        if let Some(keyed) = &self.keyed {
            let gap = self.read_among_holes(keyed, position, limit, newest, out);
            return (gap, self.status_at(position));
        }
        let (floor, gone) = (self.floor(), self.gone());
        let mut gap = None;
        if position.after < floor {
            let missed = (position.after >= self.lost_until).then(|| gone.saturating_sub(position.seen));
            // What was too old when it left was not missed for being slow.
            let by_age = (self.crowded_out.max(self.lost_until)..self.aged_out).contains(&position.after);
            let reason = if by_age { GapReason::Expired } else { GapReason::SlowConsumer };
            gap = Some(self.gap(position.after, floor, missed, reason));
            *position = ReadPosition { after: floor, seen: gone };
        }
        let mut start = self.index_after(position.after).min(self.messages.len());
        let now = self.now();
        if let Some(now) = now {
            let (next, gone) = self.pass_gone(start, now, newest, position);
            start = next;
            gap = Gap::joined(gap, gone);
        }
        let (mut read, mut bytes) = (0, 0);
        let mut whole = true;
        for (slot, message) in (start..).zip(self.messages.range(start..)).take(limit.messages) {
            if bytes >= limit.bytes || message.sequence > newest || now.is_some_and(|now| self.is_gone(slot, now)) {
                break;
            }
            if position.after < message.prev {
                if read > 0 {
                    whole = false;
                    break;
                }
                gap = Some(self.with_lost_range(gap, position.after, message.prev));
            }
            bytes += message.data.len();
            *position = ReadPosition { after: message.cursor.offset, seen: position.seen + 1 };
            out.extend([message.clone()]);
            read += 1;
        }
        // The history may end in a lost range, too.
        if whole && position.seen == self.total && position.after < self.last && read == 0 {
            gap = Some(self.with_lost_range(gap, position.after, self.last));
            position.after = self.last;
        }
        (gap, self.status_at(position))
    }

    /// Reads a batch across what is missing in its midst: [`Ring::read`] again and again. Each piece begins with what was missed.
    pub fn read_pieces<A: Array<Item = Arc<Message>>>(
        &self,
        position: &mut ReadPosition,
        limit: BatchLimit,
        newest: u64,
        out: &mut SmallVec<A>,
        pieces: &mut Pieces,
    ) -> ReadStatus {
        let mut bytes = 0;
        loop {
            let begin = out.len();
            let left = BatchLimit { messages: limit.messages - begin, bytes: limit.bytes - bytes };
            let (gap, rest) = self.read(position, left, newest, out);
            let is_nothing = gap.is_none() && out.len() == begin;
            if begin == 0 || !is_nothing {
                pieces.push((gap, begin));
            }
            bytes += out.iter().skip(begin).map(|message| message.data.len()).sum::<usize>();
            let is_full = out.len() >= limit.messages || bytes >= limit.bytes;
            if rest != ReadStatus::More || is_full || out.len() == begin {
                return rest;
            }
        }
    }

    fn status_at(&self, position: &ReadPosition) -> ReadStatus {
        match (position.after < self.last, self.closed) {
            (true, _) => ReadStatus::More,
            (false, false) => ReadStatus::CaughtUp,
            (false, true) => ReadStatus::Closed,
        }
    }

    fn with_lost_range(&self, gap: Option<Gap>, after: u64, to: u64) -> Gap {
        let lost = self.gap(after, to, None, GapReason::Expired);
        gap.map_or(lost.clone(), |gap| gap.and_then(&lost))
    }

    /// For a receiver that wants only the newest: moves `position` right before it and says what that skips.
    pub fn skip_to_newest(&self, position: &mut ReadPosition) -> Option<Gap> {
        let before = |newest: &Arc<Message>| match &self.keyed {
            Some(keyed) => keyed.position_at(newest.prev),
            None => ReadPosition { after: newest.prev, seen: self.total - 1 },
        };
        let target = self.messages.back().map_or(self.end(), before);
        let gap = self.skipped(*position, target, GapReason::SlowConsumer)?;
        *position = target;
        Some(gap)
    }

    /// What a receiver passes over that goes on at `to` instead of `from`; `None` where it goes back or stays.
    pub fn skipped(&self, from: ReadPosition, to: ReadPosition, reason: GapReason) -> Option<Gap> {
        if from.after >= to.after {
            return None;
        }
        let counts_offsets = |keyed: &Keyed| !keyed.has_lost && from.after >= self.numbering.dense_from;
        let counts = self.keyed.as_ref().map_or(to.after >= self.floor(), |keyed| counts_offsets(keyed));
        let countable = self.lost_ranges == 0 && from.after >= self.lost_until && counts;
        let missed = countable.then(|| to.seen.saturating_sub(from.seen));
        Some(self.gap(from.after, to.after, missed, reason))
    }

    /// When the oldest kept message was published that a receiver at `position` has not passed.
    pub fn oldest_unread(&self, position: ReadPosition) -> Option<Timestamp> {
        let index = match &self.keyed {
            Some(_) => self.index_after(position.after),
            None => usize::try_from(position.seen.saturating_sub(self.gone())).unwrap_or(usize::MAX),
        };
        self.messages.get(index).map(|message| message.published_at)
    }

    /// Whether a newer kept message has the same key.
    pub fn superseded(&self, message: &Message) -> bool {
        let latest = message.key.as_ref().and_then(|key| self.latest.get(key).copied());
        let newest = latest.and_then(|latest| self.now().map_or(Some(latest), |now| self.newest_live(latest, now)));
        newest.is_some_and(|newest| newest > message.cursor.offset)
    }

    /// The slots of up to `max` kept messages before `before`, oldest first, and whether there are earlier ones.
    pub fn slots_before(&self, before: u64, max: usize) -> (Vec<usize>, bool) {
        let end = self.index_after(before.saturating_sub(1)).min(self.messages.len());
        let (first, now) = (self.first_live(), self.now());
        let is_live = |slot: &usize| now.is_none_or(|now| !self.is_gone(*slot, now));
        let mut slots: Vec<usize> = (first.min(end)..end).rev().filter(is_live).take(max).collect();
        slots.reverse();
        let has_earlier = slots.first().is_some_and(|oldest| *oldest > first);
        (slots, has_earlier)
    }

    /// The message in a slot.
    pub fn message_in(&self, slot: usize) -> Option<&Arc<Message>> {
        self.messages.get(slot)
    }
}
