//! The live messages of a topic, as runs of consecutive offsets in one segment.
//!
//! One run stands for many messages, so a long history costs little memory. A message that may be replaced at any time has
//! a run of its own, which costs some 60 bytes, so that its bytes are exact.

use std::collections::BTreeMap;

/// The messages from some offset up to `last`, without a gap, in one segment.
#[derive(Clone, Debug)]
struct OffsetRun {
    last: u64,
    segment: u64,
    bytes: u64,
    /// The lowest time of publication.
    oldest_at: i64,
}

/// The runs by their first offset. Their segments can be in any order, because compaction copies old messages to new
/// segments.
#[derive(Debug, Default)]
pub(super) struct OffsetRuns(BTreeMap<u64, OffsetRun>);

/// Messages of one segment that are not live any more.
pub(super) struct TakenRun {
    pub segment: u64,
    pub records: u64,
    pub bytes: u64,
    pub oldest_at: i64,
}

impl OffsetRuns {
    /// Returns the segment in which the message is, if it is live.
    pub fn segment_of(&self, offset: u64) -> Option<u64> {
        let (_, run) = self.0.range(..=offset).next_back()?;
        (offset <= run.last).then_some(run.segment)
    }

    /// The lowest offset of a live message.
    pub fn first(&self) -> Option<u64> {
        self.0.first_key_value().map(|(first, _)| *first)
    }

    /// Adds a message of `bytes` in `segment`. If `joins`, it becomes part of the run before it where it continues that one.
    pub fn add(&mut self, offset: u64, segment: u64, bytes: u64, at: i64, joins: bool) {
        if joins
            && let Some((_, run)) = self.0.range_mut(..offset).next_back()
            && run.segment == segment
            && run.last.checked_add(1) == Some(offset)
        {
            run.last = offset;
            run.bytes += bytes;
            run.oldest_at = run.oldest_at.min(at);
        } else {
            self.0.insert(offset, OffsetRun { last: offset, segment, bytes, oldest_at: at });
        }
    }

    /// Takes out one message. What is left of its run is two runs, or one.
    pub fn take(&mut self, offset: u64) -> Option<TakenRun> {
        let first = *self.0.range(..=offset).next_back().filter(|(_, run)| offset <= run.last)?.0;
        let mut run = self.0.remove(&first)?;
        if first < offset {
            let bytes = share(run.bytes, offset - first, run.last - first + 1);
            run.bytes -= bytes;
            self.0.insert(first, OffsetRun { last: offset - 1, bytes, ..run });
        }
        let (segment, oldest_at) = (run.segment, run.oldest_at);
        let bytes = share(run.bytes, 1, run.last - offset + 1);
        if offset < run.last {
            run.bytes -= bytes;
            self.0.insert(offset + 1, run);
        }
        Some(TakenRun { segment, records: 1, bytes, oldest_at })
    }

    /// Takes out the oldest messages below `floor`, those of one run.
    pub fn take_below(&mut self, floor: u64) -> Option<TakenRun> {
        let oldest = self.0.first_entry().filter(|run| *run.key() < floor)?;
        let (first, mut run) = oldest.remove_entry();
        let (segment, oldest_at, all) = (run.segment, run.oldest_at, run.last - first + 1);
        let records = all.min(floor - first);
        let bytes = share(run.bytes, records, all);
        if records < all {
            run.bytes -= bytes;
            self.0.insert(floor, run);
        }
        Some(TakenRun { segment, records, bytes, oldest_at })
    }

    /// Takes out all messages.
    pub fn take_all(self) -> impl Iterator<Item = TakenRun> {
        self.0.into_iter().map(|(first, run)| TakenRun {
            segment: run.segment,
            records: run.last - first + 1,
            bytes: run.bytes,
            oldest_at: run.oldest_at,
        })
    }

    /// The number of live messages.
    #[cfg(test)]
    pub fn records(&self) -> u64 {
        self.0.iter().map(|(first, run)| run.last - first + 1).sum()
    }
}

/// The bytes of so many messages of a run, in proportion.
fn share(bytes: u64, records: u64, all: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(records) / u128::from(all.max(1))).unwrap_or(bytes)
}
