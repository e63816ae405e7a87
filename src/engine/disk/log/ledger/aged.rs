//! The ledger's account of what has become too old, and when it leaves the disk.
//!
//! A segment that holds something that is too old is rewritten some time later: the live records are copied to the tail,
//! and the segment is removed. The time is kept for whole segments, that of the first of their messages to become too old,
//! so no message costs memory here.

use super::{super::record::MessageRecord, Ledger, now_ms};

impl Ledger {
    /// A message that is kept for some time was written to segment `number`.
    pub(super) fn note_ttl(&mut self, number: u64, message: &MessageRecord<'_>) {
        if let Some(ends_at) = message.ends_at() {
            // What is copied after that time was found to be needed still.
            self.mark_aged(number, if self.reading { ends_at } else { ends_at.max(now_ms()) });
        }
    }

    /// Something in segment `number` is too old at this time.
    pub(super) fn mark_aged(&mut self, number: u64, at: i64) {
        if let Some(segment) = self.segments.get_mut(&number)
            && at < segment.aged_at
        {
            segment.aged_at = at;
            self.next_aged = self.next_aged.min(at);
        }
    }

    /// Finds out again when the next segment has something that is too old.
    pub(super) fn find_next_aged(&mut self) {
        self.next_aged = self.segments.values().map(|segment| segment.aged_at).min().unwrap_or(i64::MAX);
    }

    /// Returns when the next segment has to be rewritten, in milliseconds since 1970.
    pub(in super::super) fn next_rewrite(&self) -> i64 {
        self.next_aged.saturating_add(self.keep_aged)
    }

    /// Returns the segment to rewrite now because it has held for long enough what is too old.
    pub(super) fn segment_to_rewrite(&self, now: i64) -> Option<u64> {
        if self.next_rewrite() > now {
            return None;
        }
        let is_due = |at: i64| at.saturating_add(self.keep_aged) <= now;
        let (number, segment) = self.segments.iter().find(|(_, segment)| is_due(segment.aged_at))?;
        // Deletions must outlive all older segments, so these go first.
        if segment.deletions == 0 { Some(*number) } else { self.segments.first_key_value().map(|(oldest, _)| *oldest) }
    }
}

/// When the first of some messages becomes too old, if there is an age that does this.
pub(super) fn aged_at(oldest_at: i64, max_age: u64) -> Option<i64> {
    (max_age > 0).then(|| oldest_at.saturating_add_unsigned(max_age))
}
