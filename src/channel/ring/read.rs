//! Reading the ring: where a reader begins, what it gets, what it has missed.

use std::sync::Arc;

use super::{Place, Rest, Ring, Start, Turn};
use crate::channel::{Gap, GapReason, Message, Timestamp};

impl Ring {
    /// Resolves a start to the place behind which the receiver reads, and what it has missed already.
    pub fn locate(&self, start: Start, created_at: Timestamp) -> (Place, Option<Gap>) {
        let (floor, gone) = (self.floor(), self.gone());
        let oldest = Place { after: floor, seen: gone };
        let before = |index: usize| {
            self.messages.get(index).map_or(self.end(), |first| Place { after: first.prev, seen: gone + index as u64 })
        };
        let counted = |after: u64| self.evicted_after(after).filter(|_| after >= self.torn);
        match start {
            Start::Live => (self.end(), None),
            Start::Oldest => (oldest, None),
            Start::Last(count) => (before(self.messages.len().saturating_sub(count as usize)), None),
            Start::After(cursor) if cursor.epoch != self.epoch => {
                let missed = self.numbering.before.filter(|_| self.torn == 0).map(|before| before + gone);
                (oldest, Some(self.gap(0, floor, missed, GapReason::NewEpoch)))
            }
            Start::After(cursor) if cursor.offset < floor => {
                (oldest, Some(self.gap(cursor.offset, floor, counted(cursor.offset), GapReason::Expired)))
            }
            Start::After(cursor) => {
                let seen = gone + self.index_after(cursor.offset).min(self.messages.len()) as u64;
                (Place { after: cursor.offset, seen }, None)
            }
            Start::Since(time) => {
                let index = self.messages.partition_point(|message| message.published_at < time);
                if index > 0 {
                    return (before(index), None);
                }
                // The oldest kept message is late enough: so may be some that are gone.
                let missed = self.evicted_since(time, created_at);
                (oldest, missed.map(|after| self.gap(after, floor, counted(after), GapReason::Expired)))
            }
        }
    }

    /// How many messages behind a place were evicted, if that is known.
    fn evicted_after(&self, after: u64) -> Option<u64> {
        // A difference counts where numbers have no holes.
        if after >= self.numbering.dense_from {
            return Some(self.floor() - after);
        }
        let complete = self.evicted_from_first && self.numbering.before == Some(0);
        let known = complete || self.evicted.front().is_some_and(|(_, oldest)| *oldest <= after);
        let sparse = self.numbering.dense_from == u64::MAX;
        (sparse && known).then(|| {
            let behind = self.evicted.partition_point(|(_, offset)| *offset <= after);
            (self.evicted.len() - behind) as u64
        })
    }

    /// The place after which evicted messages may be of `time` or later; `None` when all are older.
    fn evicted_since(&self, time: Timestamp, created_at: Timestamp) -> Option<u64> {
        let known = self.evicted.partition_point(|(at, _)| *at < time);
        let complete = self.evicted_from_first && self.numbering.before == Some(0);
        match self.evicted.get(known) {
            // What was published before the times that are remembered cannot be told from later: it counts.
            Some(_) if known == 0 && (!complete || time <= created_at) => Some(0),
            Some((_, offset)) => Some(offset - 1),
            // Nothing was evicted here, and yet the history does not go back to the topic's beginning.
            None if self.evicted.is_empty() && self.floor() > 0 => Some(0),
            // The last remembered millisecond is before `time`. Later evictions within it are, too.
            None => None,
        }
    }

    /// What lies after `after` up to and including `to`.
    fn gap(&self, after: u64, to: u64, missed: Option<u64>, reason: GapReason) -> Gap {
        Gap { topic: self.topic.clone(), missed, from_offset: after + 1, to_offset: to, reason }
    }

    /// Reads one turn's worth of messages behind `place` into `out` and moves it behind them; says what was missed before
    /// them. A hole in the history ends the turn: what was missed in it stands before the next.
    pub fn read(&self, place: &mut Place, turn: Turn, out: &mut impl Extend<Arc<Message>>) -> (Option<Gap>, Rest) {
        let (floor, gone) = (self.floor(), self.gone());
        let mut gap = None;
        if place.after < floor {
            let missed = (place.after >= self.torn).then(|| gone.saturating_sub(place.seen));
            gap = Some(self.gap(place.after, floor, missed, GapReason::SlowConsumer));
            *place = Place { after: floor, seen: gone };
        }
        let start = self.index_after(place.after).min(self.messages.len());
        let (mut read, mut bytes) = (0, 0);
        let mut whole = true;
        for message in self.messages.range(start..).take(turn.messages) {
            if bytes >= turn.bytes {
                break;
            }
            if place.after < message.prev {
                if read > 0 {
                    whole = false;
                    break;
                }
                gap = Some(self.join(gap, place.after, message.prev));
            }
            bytes += message.data.len();
            *place = Place { after: message.cursor.offset, seen: place.seen + 1 };
            out.extend([message.clone()]);
            read += 1;
        }
        // The history may end in a hole, too.
        if whole && place.seen == self.total && place.after < self.last && read == 0 {
            gap = Some(self.join(gap, place.after, self.last));
            place.after = self.last;
        }
        let rest = match (place.after < self.last, self.closed) {
            (true, _) => Rest::More,
            (false, false) => Rest::CaughtUp,
            (false, true) => Rest::Closed,
        };
        (gap, rest)
    }

    fn join(&self, gap: Option<Gap>, after: u64, to: u64) -> Gap {
        let hole = self.gap(after, to, None, GapReason::Expired);
        gap.map_or(hole.clone(), |gap| gap.and_then(&hole))
    }

    /// For a receiver that wants only the newest: moves `place` right before it and says what that skips.
    pub fn skip_to_newest(&self, place: &mut Place) -> Option<Gap> {
        let target =
            self.messages.back().map_or(self.end(), |newest| Place { after: newest.prev, seen: self.total - 1 });
        if place.after >= target.after {
            return None;
        }
        let countable = self.holes == 0 && place.after >= self.torn;
        let missed = countable.then(|| target.seen.saturating_sub(place.seen));
        let gap = self.gap(place.after, target.after, missed, GapReason::SlowConsumer);
        *place = target;
        Some(gap)
    }

    /// The kept messages, oldest first, and of each whether its id is the publisher's.
    pub fn kept(&self) -> Vec<(Arc<Message>, bool)> {
        let given = |message: &Message| self.ids.get(&message.id) == Some(&message.cursor.offset);
        self.messages.iter().map(|message| (message.clone(), given(message))).collect()
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
