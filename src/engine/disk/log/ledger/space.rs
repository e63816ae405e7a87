//! Which segments the log removes or compacts next.

use super::{super::record::OffsetState, Ledger, TopicUsage};

impl Ledger {
    /// Returns a sealed segment that can be removed without copying anything.
    pub(in super::super) fn removable(&self, now: i64) -> Option<u64> {
        self.drained.first().filter(|(until, _)| *until < now).map(|(_, number)| *number).or_else(|| {
            let (number, oldest) = self.segments.first_key_value()?;
            let over = oldest.live_records == 0 && oldest.ids_expire_at(self.window) < now;
            (over && self.segments.len() > 1).then_some(*number)
        })
    }

    /// Returns the segment to compact: one that has held for long enough what is too old; else, if the log takes more than
    /// 1.5 times the live bytes plus two segments, another one. The two segments keep small logs from being compacted. A
    /// segment in which only ids are live, and few of them, comes first; otherwise it is the oldest segment.
    pub(in super::super) fn segment_to_compact(&self, now: i64) -> Option<u64> {
        self.segment_to_rewrite(now).or_else(|| self.crowding_segment())
    }

    fn crowding_segment(&self) -> Option<u64> {
        let crowded = self.bytes > self.live_bytes + self.live_bytes / 2 + 2 * self.segment_bytes;
        if !crowded || self.segments.len() < 2 {
            return None;
        }
        let ids = |number: &u64| self.segments.get(number).map(|segment| (segment.id_bytes, segment.bytes));
        let drained = self.drained.iter().filter_map(|(_, number)| Some((ids(number)?, *number)));
        let fewest = drained.filter(|((ids, bytes), _)| 2 * ids <= *bytes).min().map(|(_, number)| number);
        fewest.or_else(|| self.segments.first_key_value().map(|(number, _)| *number))
    }

    pub(in super::super) fn has_work(&self, now: i64) -> bool {
        self.removable(now).is_some() || self.segment_to_compact(now).is_some()
    }

    /// Returns the topics whose highest offset is recorded only in segment `number`, with the reservations that must
    /// be written before the segment is removed.
    pub(in super::super) fn offsets_ending_in(&self, number: u64) -> Vec<(u64, OffsetState)> {
        let ends_here = |topic: &TopicUsage| topic.last_segment == number && topic.stored_last < topic.last;
        let topics = self.topics.iter().filter(|(_, topic)| ends_here(topic));
        let mark =
            |t: &TopicUsage| OffsetState { last: t.last, reserved: t.reserved.max(t.last), dense_from: t.dense_from };
        topics.map(|(id, topic)| (*id, mark(topic))).collect()
    }
}
