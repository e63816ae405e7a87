//! What a topic remembers of messages that it does not keep any more, so that a gap can say exactly what was missed.

use std::collections::VecDeque;

use crate::channel::Timestamp;

/// Evicted messages that are remembered at least, however short the history is.
const AT_LEAST: usize = 10_000;

/// And at most, however long it is: more would take more memory than their number is worth.
const AT_MOST: usize = 100_000;

/// Messages that are remembered, and forgotten, together.
const BLOCK: usize = 256;

/// One evicted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub offset: u64,
    pub at: Timestamp,
    pub sequence: u64,
}

/// The newest evicted messages, oldest first. A message mostly differs from the one before by little, so it takes a few
/// bytes.
#[derive(Debug, Default)]
pub(super) struct Evicted {
    blocks: VecDeque<Block>,
    len: usize,
    bytes: usize,
    /// The newest evicted message that is not remembered: its offset and its number in the shared log; 0 for none.
    forgotten: (u64, u64),
}

#[derive(Debug)]
struct Block {
    first: Entry,
    last: Entry,
    len: usize,
    /// What each message behind the first is more than the one before, as variable-length numbers.
    differences: Vec<u8>,
}

impl Block {
    fn begin(entry: Entry) -> Self {
        Self { first: entry, last: entry, len: 1, differences: Vec::new() }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.differences.capacity()
    }

    fn push(&mut self, entry: Entry) {
        let Entry { offset, at, sequence } = self.last;
        let later = entry.at.0.saturating_sub(at.0).max(0).unsigned_abs();
        for difference in [entry.offset.saturating_sub(offset), later, entry.sequence.saturating_sub(sequence)] {
            write_number(&mut self.differences, difference);
        }
        self.len += 1;
        // `last` is not the entry itself, but what will be read back from the differences.
        let at = Timestamp(at.0.saturating_add_unsigned(later));
        self.last = Entry { at, ..entry };
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let mut rest = &*self.differences;
        let mut next = Some(self.first);
        std::iter::from_fn(move || {
            let entry = next?;
            next = read_number(&mut rest).and_then(|offset| {
                let (later, sequence) = (read_number(&mut rest)?, read_number(&mut rest)?);
                Some(Entry {
                    offset: entry.offset + offset,
                    at: Timestamp(entry.at.0.saturating_add_unsigned(later)),
                    sequence: entry.sequence + sequence,
                })
            });
            Some(entry)
        })
    }
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_number(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
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

    /// Remembers a message that was evicted behind all others.
    pub fn push(&mut self, entry: Entry, max_messages: usize) {
        self.len += 1;
        match self.blocks.back_mut().filter(|block| block.len < BLOCK) {
            Some(block) => {
                let before = block.bytes();
                block.push(entry);
                self.bytes += block.bytes() - before;
            }
            None => {
                let block = Block::begin(entry);
                self.bytes += block.bytes();
                self.blocks.push_back(block);
            }
        }
        let most = max_messages.clamp(AT_LEAST, AT_MOST);
        if self.blocks.front().is_some_and(|oldest| self.len - oldest.len >= most) {
            self.drop_oldest();
        }
    }

    /// Forgets a share of the oldest. Returns whether there was any.
    pub fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.blocks.pop_front() else { return false };
        self.len -= oldest.len;
        self.bytes -= oldest.bytes();
        self.forgotten = (oldest.last.offset, oldest.last.sequence);
        true
    }

    /// Bytes that this takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of the oldest are `before` something, and the newest of these.
    fn count(&self, before: impl Fn(&Entry) -> bool) -> (usize, Option<Entry>) {
        let begun = self.blocks.partition_point(|block| before(&block.first));
        let Some(last) = begun.checked_sub(1) else { return (0, None) };
        let whole: usize = self.blocks.range(..last).map(|block| block.len).sum();
        let within = self.blocks[last].entries().take_while(before);
        let (count, newest) = within.fold((0, None), |(count, _), entry| (count + 1, Some(entry)));
        (whole + count, newest)
    }

    /// The offset of the newest evicted message; 0 when there was none.
    pub fn newest(&self) -> u64 {
        self.blocks.back().map_or(self.forgotten.0, |newest| newest.last.offset)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the oldest that is remembered is the message right behind this offset.
    pub fn follows(&self, after: u64) -> bool {
        self.forgotten.0 > 0 && after == self.forgotten.0
    }

    /// Messages behind an offset. Where offsets grow by one, their difference says more than is remembered.
    pub fn behind_offset(&self, after: u64) -> Found {
        if self.newest() <= after {
            return Found::None;
        }
        if after < self.forgotten.0 {
            return Found::Unknown { after: Some(after) };
        }
        Found::Behind { after, index: self.count(|entry| entry.offset <= after).0 }
    }

    /// Messages behind a position in the shared log.
    pub fn behind_sequence(&self, sequence: u64) -> Found {
        self.found(self.forgotten.1 > sequence, |entry| entry.sequence <= sequence)
    }

    /// Messages published at or after a time.
    pub fn since(&self, time: Timestamp) -> Found {
        // What is not remembered is older than the oldest entry, but nobody knows by how much.
        let oldest_is_late = self.blocks.front().is_none_or(|oldest| oldest.first.at >= time);
        self.found(self.forgotten.0 > 0 && oldest_is_late, |entry| entry.at < time)
    }

    fn found(&self, forgotten_too: bool, before: impl Fn(&Entry) -> bool) -> Found {
        if forgotten_too {
            return Found::Unknown { after: None };
        }
        match self.count(before) {
            (index, _) if index == self.len => Found::None,
            (index, newest) => Found::Behind { after: newest.map_or(self.forgotten.0, |newest| newest.offset), index },
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
        assert!((AT_LEAST..AT_LEAST + BLOCK).contains(&evicted.len()));
        assert!(evicted.bytes() < evicted.len() * 8, "{} bytes for {}", evicted.bytes(), evicted.len());
        let oldest = 50_001 - evicted.len() as u64;
        assert_eq!(evicted.behind_offset(oldest - 2), Found::Unknown { after: Some(oldest - 2) });
        assert_eq!(evicted.behind_offset(oldest - 1), Found::Behind { after: oldest - 1, index: 0 });
        assert_eq!(
            evicted.behind_sequence(49_000 * 100),
            Found::Behind { after: 49_000, index: evicted.len() - 1_000 }
        );
        while evicted.drop_oldest() {}
        assert_eq!((evicted.len(), evicted.bytes()), (0, 0));
        assert_eq!(evicted.behind_offset(50_000), Found::None);
    }

    #[test]
    fn what_is_read_back_is_what_was_remembered() {
        let mut evicted = Evicted::default();
        let entry =
            |n: u64| Entry { offset: n * n + 1, at: Timestamp((n * 997).cast_signed() - 5_000), sequence: n << 33 };
        for n in 0..1_000 {
            evicted.push(entry(n), 10);
        }
        let all: Vec<_> = evicted.blocks.iter().flat_map(Block::entries).collect();
        assert_eq!(all, (0..1_000).map(entry).collect::<Vec<_>>());
    }
}
