//! Pages of a topic's history.

use std::sync::Arc;

use super::{BatchLimit, Channel, Cursor, Gap, Message, ReadStatus, Start};

impl Channel {
    /// Kept messages from a start on, oldest first.
    pub(crate) fn page(&self, start: &Start, limit: BatchLimit) -> Page {
        let ring = self.ring.lock();
        let (mut position, mut gap) = ring.locate(start, self.created_at);
        let mut messages = Vec::new();
        let (missed, rest) = ring.read(&mut position, limit, u64::MAX, &mut messages);
        if let Some(missed) = missed {
            gap = Some(gap.map_or(missed.clone(), |gap| gap.and_then(&missed)));
        }
        let first = messages.first().map_or(position.after, |oldest: &Arc<Message>| oldest.prev);
        Page {
            messages,
            gap,
            has_previous: first > ring.floor(),
            has_next: rest == ReadStatus::More,
            end: Cursor { epoch: self.epoch, offset: position.after },
        }
    }

    /// Kept messages before an offset, oldest first.
    pub(crate) fn page_before(&self, before: Option<u64>, max: usize) -> Page {
        let ring = self.ring.lock();
        let mut messages = Vec::new();
        let has_previous = ring.read_before(before.unwrap_or(u64::MAX), max, &mut messages);
        let newest = messages.last().map(|newest: &Arc<Message>| newest.cursor.offset);
        let end =
            newest.unwrap_or_else(|| before.map_or(ring.last(), |before| before.saturating_sub(1).min(ring.last())));
        Page {
            messages,
            gap: None,
            has_previous,
            has_next: ring.newest() > end.max(ring.floor()),
            end: Cursor { epoch: self.epoch, offset: end },
        }
    }
}

/// A piece of a topic's history, oldest first.
#[derive(Debug)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Arc<Message>>,
    /// What was missed before the first of them.
    pub gap: Option<Gap>,
    /// Whether earlier messages than the page's are kept.
    pub has_previous: bool,
    /// Whether there are messages behind the page.
    pub has_next: bool,
    /// The position to go on from.
    pub end: Cursor,
}
