//! What a topic remembers of messages that it does not keep any more, so that a gap can say exactly what was missed.

use std::collections::VecDeque;

use crate::channel::Timestamp;

/// Evicted messages that are remembered at least, however short the history is.
const AT_LEAST: usize = 10_000;

/// And at most, however long it is: more would take more memory than their number is worth.
const AT_MOST: usize = 100_000;

/// One evicted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub offset: u64,
    pub at: Timestamp,
    pub sequence: u64,
}

/// The newest evicted messages, oldest first.
#[derive(Debug, Default)]
pub(super) struct Evicted {
    entries: VecDeque<Entry>,
    /// The newest evicted message that is not remembered: its offset and its number in the shared log; 0 for none.
    forgotten: (u64, u64),
}

/// How many messages of a kind were evicted, and where they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// None.
    None,
    /// All behind this offset: the remembered entries from this index on.
    Behind { after: u64, index: usize },
    /// Perhaps more than are remembered: all behind this offset, if that is known.
    Unknown { after: Option<u64> },
}

impl Evicted {
    /// Messages up to `offset` were evicted before this history began, and nothing is remembered of them.
    pub fn begin(&mut self, offset: u64, sequence: u64) {
        self.forgotten = (offset, sequence);
    }

    /// Remembers a message that was evicted behind all others. Returns the bytes by which this grew.
    pub fn push(&mut self, entry: Entry, max_messages: usize) -> usize {
        self.entries.push_back(entry);
        if self.entries.len() > max_messages.clamp(AT_LEAST, AT_MOST) {
            self.forget_oldest();
            return 0;
        }
        size_of::<Entry>()
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.forgotten = (oldest.offset, oldest.sequence);
        }
    }

    /// Forgets a share of the oldest; returns the bytes given back, 0 when nothing is remembered.
    pub fn drop_oldest(&mut self) -> usize {
        let share = self.entries.len().div_ceil(4);
        (0..share).for_each(|_| self.forget_oldest());
        share * size_of::<Entry>()
    }

    /// The offset of the newest evicted message; 0 when there was none.
    pub fn newest(&self) -> u64 {
        self.entries.back().map_or(self.forgotten.0, |newest| newest.offset)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the oldest that is remembered is the message right behind this offset.
    pub fn follows(&self, after: u64) -> bool {
        self.forgotten.0 > 0 && after == self.forgotten.0
    }

    /// Messages behind an offset. Where offsets have no holes, their difference says more than is remembered.
    pub fn behind_offset(&self, after: u64) -> Found {
        match self.entries.back() {
            Some(newest) if newest.offset <= after => Found::None,
            None if self.forgotten.0 <= after => Found::None,
            _ if after < self.forgotten.0 => Found::Unknown { after: Some(after) },
            _ => Found::Behind { after, index: self.entries.partition_point(|entry| entry.offset <= after) },
        }
    }

    /// Messages behind a position in the shared log.
    pub fn behind_sequence(&self, sequence: u64) -> Found {
        self.found(self.forgotten.1 > sequence, |entry| entry.sequence <= sequence)
    }

    /// Messages published at or after a time.
    pub fn since(&self, time: Timestamp) -> Found {
        // What is not remembered is older than the oldest that is, but by how much nobody knows.
        let oldest_is_late = self.entries.front().is_none_or(|oldest| oldest.at >= time);
        self.found(self.forgotten.0 > 0 && oldest_is_late, |entry| entry.at < time)
    }

    fn found(&self, forgotten_too: bool, before: impl Fn(&Entry) -> bool) -> Found {
        let index = self.entries.partition_point(before);
        match index.checked_sub(1).and_then(|newest| self.entries.get(newest)) {
            _ if forgotten_too => Found::Unknown { after: None },
            _ if index == self.entries.len() => Found::None,
            Some(newest) => Found::Behind { after: newest.offset, index },
            None => Found::Behind { after: self.forgotten.0, index },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(begun: (u64, u64), offsets: std::ops::Range<u64>) -> Evicted {
        let mut evicted = Evicted::default();
        evicted.begin(begun.0, begun.1);
        for offset in offsets {
            let at = Timestamp(i64::try_from(offset).unwrap() * 10);
            evicted.push(Entry { offset, at, sequence: offset * 100 }, 10);
        }
        evicted
    }

    #[test]
    fn what_is_remembered_is_found_exactly() {
        let evicted = filled((0, 0), 1..11);
        assert_eq!(evicted.behind_offset(4), Found::Behind { after: 4, index: 4 });
        assert_eq!(evicted.behind_offset(0), Found::Behind { after: 0, index: 0 });
        assert_eq!(evicted.behind_offset(10), Found::None);
        assert_eq!(evicted.behind_sequence(399), Found::Behind { after: 3, index: 3 });
        assert_eq!(evicted.behind_sequence(0), Found::Behind { after: 0, index: 0 });
        assert_eq!(evicted.behind_sequence(1_000), Found::None);
        assert_eq!(evicted.since(Timestamp(41)), Found::Behind { after: 4, index: 4 });
        assert_eq!(evicted.since(Timestamp(0)), Found::Behind { after: 0, index: 0 });
        assert_eq!(evicted.since(Timestamp(101)), Found::None);
    }

    #[test]
    fn what_is_forgotten_is_not_guessed() {
        let evicted = filled((20, 2_000), 21..31);
        assert_eq!(evicted.behind_offset(19), Found::Unknown { after: Some(19) });
        assert_eq!(evicted.behind_offset(20), Found::Behind { after: 20, index: 0 });
        assert_eq!(evicted.behind_sequence(1_999), Found::Unknown { after: None });
        assert_eq!(evicted.behind_sequence(2_000), Found::Behind { after: 20, index: 0 });
        assert_eq!(evicted.since(Timestamp(210)), Found::Unknown { after: None });
        assert_eq!(evicted.since(Timestamp(211)), Found::Behind { after: 21, index: 1 });
        assert_eq!(filled((20, 2_000), 0..0).since(Timestamp(0)), Found::Unknown { after: None });
        assert_eq!(filled((20, 2_000), 0..0).behind_sequence(2_000), Found::None);
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let mut evicted = filled((0, 0), 1..50_001);
        assert_eq!(evicted.len(), AT_LEAST);
        assert_eq!(evicted.behind_offset(39_999), Found::Unknown { after: Some(39_999) });
        assert_eq!(evicted.drop_oldest(), AT_LEAST / 4 * size_of::<Entry>());
        assert_eq!(evicted.len(), AT_LEAST / 4 * 3);
        while evicted.drop_oldest() > 0 {}
        assert_eq!(evicted.behind_offset(50_000), Found::None);
    }
}
