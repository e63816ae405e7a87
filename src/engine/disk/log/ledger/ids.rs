//! Ids that outlive their messages, in the books: what takes room for them, and for how long.
//!
//! There is one time for each segment, that of its newest id: until then none of its ids' records is dead, after that all
//! are. So an id is copied again only when the log is crowded.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    super::record::{KeptId, MAX_ID, Stored},
    Ledger, Segment,
};

/// The time of the clock on the wall, in milliseconds since 1970: messages carry it.
pub(in super::super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Ledger {
    pub(super) fn note_id(&mut self, number: u64, at: i64, bytes: u64) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        segment.ids_at = segment.ids_at.max(at);
        segment.id_bytes += bytes;
        segment.live_bytes += bytes;
        self.live_bytes += bytes;
        self.id_bytes += bytes;
        self.ids_until = self.ids_until.min(segment.ids_at.saturating_add(self.window));
        let active = self.active();
        while self.id_bytes > self.dedup_bytes {
            // Whole segments go, and never the one that is being written.
            let having = self.segments.iter().filter(|(number, s)| s.id_bytes > 0 && Some(**number) != active);
            let Some(oldest) = having.min_by_key(|(_, segment)| segment.ids_at).map(|(number, _)| *number) else {
                return;
            };
            self.forget_ids(oldest);
        }
    }

    /// The ids that have records in this segment are not to be known any more.
    fn forget_ids(&mut self, number: u64) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        let was = (segment.until(self.window), number);
        self.live_bytes -= segment.id_bytes;
        self.id_bytes -= segment.id_bytes;
        segment.live_bytes -= segment.id_bytes;
        (segment.id_bytes, segment.ids_at) = (0, i64::MIN);
        let until = segment.until(self.window);
        if self.drained.remove(&was) {
            self.drained.insert((until, number));
        }
    }

    /// Whether the id in a record read from segment `number` is to be known still, and goes with the segment.
    pub(in super::super) fn wants_id<'a>(&self, number: u64, stored: &Stored<'a>, now: i64) -> Option<KeptId<'a>> {
        let id = match *stored {
            Stored::Message { message, sequence } if message.id_is_given && self.dedup_bytes > 0 => KeptId {
                topic_id: message.topic_id,
                offset: message.offset,
                at_ms: message.at_ms,
                sequence,
                id: message.id,
            },
            Stored::Id(id) if self.segments.get(&number).is_some_and(|segment| segment.id_bytes > 0) => id,
            _ => return None,
        };
        // A message that is alive has its id with it, wherever it is.
        let gone = self.topics.get(&id.topic_id).is_some_and(|topic| topic.run(id.offset).is_none());
        (gone && id.id.len() <= MAX_ID && id.at_ms.saturating_add(self.window) >= now).then_some(id)
    }

    /// The time of ids passes.
    pub(in super::super) fn expire(&mut self, now: i64) {
        if self.ids_until >= now {
            return;
        }
        let over = |segment: &Segment| segment.ids_at.saturating_add(self.window) < now;
        let having = self.segments.iter().filter(|(_, segment)| segment.id_bytes > 0);
        let over: Vec<_> = having.filter(|(_, segment)| over(segment)).map(|(number, _)| *number).collect();
        for number in over {
            self.forget_ids(number);
        }
        let having = self.segments.values().filter(|segment| segment.id_bytes > 0);
        let next = having.map(|segment| segment.ids_at.saturating_add(self.window)).min();
        self.ids_until = next.unwrap_or(i64::MAX);
    }

    /// When something may be removed that may not be now, in milliseconds since 1970.
    pub(in super::super) fn wakes_at(&self) -> Option<i64> {
        let drained = self.drained.first().map_or(i64::MAX, |(until, _)| *until);
        Some(drained.min(self.ids_until)).filter(|at| *at < i64::MAX)
    }
}
