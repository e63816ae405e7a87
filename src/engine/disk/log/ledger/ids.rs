//! The ledger's account of ids that outlive their messages: how much space they take, and for how long.
//!
//! Each segment has one time, that of its newest id. Before it all id records of the segment are live, after it none
//! is. So an id is copied again only when the log is compacted.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    super::record::{IdRecord, MAX_ID, StoredRecord},
    Ledger, SegmentUsage,
};

/// Returns the current wall-clock time in milliseconds since 1970. Messages carry this time.
pub(in super::super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Ledger {
    pub(super) fn add_id(&mut self, number: u64, at: i64, bytes: u64) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        segment.newest_kept_id_at = segment.newest_kept_id_at.max(at);
        segment.id_bytes += bytes;
        segment.live_bytes += bytes;
        self.live_bytes += bytes;
        self.id_bytes += bytes;
        self.next_id_expiry = self.next_id_expiry.min(segment.newest_kept_id_at.saturating_add(self.window));
        let active = self.active_segment();
        while self.id_bytes > self.dedup_bytes {
            // Ids are dropped for whole segments, and never for the active segment.
            let having = self.segments.iter().filter(|(number, s)| s.id_bytes > 0 && Some(**number) != active);
            let Some(oldest) = having.min_by_key(|(_, segment)| segment.newest_kept_id_at).map(|(number, _)| *number)
            else {
                return;
            };
            self.drop_ids(oldest);
        }
    }

    /// Drops the ids that have records of their own in this segment.
    fn drop_ids(&mut self, number: u64) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        let was = (segment.ids_expire_at(self.window), number);
        self.live_bytes -= segment.id_bytes;
        self.id_bytes -= segment.id_bytes;
        segment.live_bytes -= segment.id_bytes;
        (segment.id_bytes, segment.newest_kept_id_at) = (0, i64::MIN);
        let until = segment.ids_expire_at(self.window);
        if self.drained.remove(&was) {
            self.drained.insert((until, number));
        }
    }

    /// Returns the id of a record in segment `number` that is still known and would be lost with the segment.
    pub(in super::super) fn live_id<'a>(
        &self,
        number: u64,
        stored: &StoredRecord<'a>,
        now: i64,
    ) -> Option<IdRecord<'a>> {
        let id = match *stored {
            StoredRecord::Message { message, sequence } if message.id_is_given && self.dedup_bytes > 0 => IdRecord {
                topic_id: message.topic_id,
                offset: message.offset,
                at_ms: message.at_ms,
                sequence,
                id: message.id,
            },
            StoredRecord::Id(id) if self.segments.get(&number).is_some_and(|segment| segment.id_bytes > 0) => id,
            _ => return None,
        };
        // A live message carries its own id, whichever segment it is in.
        let gone = self.topics.get(&id.topic_id).is_some_and(|topic| topic.runs.segment_of(id.offset).is_none());
        (gone && id.id.len() <= MAX_ID && id.at_ms.saturating_add(self.window) >= now).then_some(id)
    }

    /// Drops the ids of the segments whose newest id has expired.
    pub(in super::super) fn expire_ids(&mut self, now: i64) {
        if self.next_id_expiry >= now {
            return;
        }
        let over = |segment: &SegmentUsage| segment.newest_kept_id_at.saturating_add(self.window) < now;
        let having = self.segments.iter().filter(|(_, segment)| segment.id_bytes > 0);
        let over: Vec<_> = having.filter(|(_, segment)| over(segment)).map(|(number, _)| *number).collect();
        for number in over {
            self.drop_ids(number);
        }
        let having = self.segments.values().filter(|segment| segment.id_bytes > 0);
        let next = having.map(|segment| segment.newest_kept_id_at.saturating_add(self.window)).min();
        self.next_id_expiry = next.unwrap_or(i64::MAX);
    }

    /// Returns the next time at which something can be removed that cannot be removed now, in milliseconds since
    /// 1970.
    pub(in super::super) fn next_expiry(&self) -> Option<i64> {
        let drained = self.drained.first().map_or(i64::MAX, |(until, _)| *until);
        Some(drained.min(self.next_id_expiry).min(self.next_rewrite())).filter(|at| *at < i64::MAX)
    }
}
