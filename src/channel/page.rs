//! Pages of a topic's history.

use std::sync::Arc;

use super::{BatchLimit, Channel, Cursor, Gap, Message, ReadStatus, Start, StateStep};

impl Channel {
    /// Kept messages from a start on, oldest first.
    pub(crate) fn page(&self, start: &Start, limit: BatchLimit) -> Page {
        let ring = self.ring.lock();
        let (mut position, mut gap) = ring.locate(start, self.created_at);
        let mut messages: Vec<Arc<Message>> = Vec::new();
        let mut holes = Vec::new();
        let (mut rest, mut bytes) = (ReadStatus::More, 0_usize);
        while rest == ReadStatus::More {
            let read = messages.len();
            let left =
                BatchLimit { messages: limit.messages.saturating_sub(read), bytes: limit.bytes.saturating_sub(bytes) };
            let mut next = position;
            let (missed, status) = ring.read(&mut next, left, u64::MAX, &mut messages);
            if read > 0 && messages.len() == read {
                // Either the page is full, or what follows is a hole, which is the next page's.
                break;
            }
            bytes += messages.iter().skip(read).map(|message| message.data.len()).sum::<usize>();
            match missed {
                Some(missed) if read > 0 => holes.push(missed),
                missed => gap = Gap::joined(gap, missed),
            }
            let has_moved = next != position;
            (position, rest) = (next, status);
            if !has_moved {
                break;
            }
        }
        let first = messages.first().map_or(position.after, |oldest: &Arc<Message>| oldest.prev);
        Page {
            messages,
            gap,
            has_previous: first > ring.live_floor(),
            has_next: rest == ReadStatus::More,
            end: Cursor { epoch: self.epoch, offset: position.after },
            holes,
        }
    }

    /// Looks for values of keys that begin with `prefix` behind an offset, for a bounded time: until there are as many as
    /// the limit says, or enough was looked at.
    pub(crate) fn step_of_state(
        &self,
        after: u64,
        prefix: &str,
        limit: BatchLimit,
        found: &mut Vec<Arc<Message>>,
    ) -> StateStep {
        self.ring.lock().step_of_state(after, prefix, limit, found)
    }

    /// Kept messages before an offset, oldest first.
    pub(crate) fn page_before(&self, before: Option<u64>, max: usize) -> Page {
        let ring = self.ring.lock();
        let (slots, has_previous) = ring.slots_before(before.unwrap_or(u64::MAX), max);
        let messages: Vec<_> = slots.iter().filter_map(|slot| ring.message_in(*slot).cloned()).collect();
        let holes = slots.windows(2).filter_map(|pair| ring.hole_between(pair[0], pair[1])).collect();
        let newest = messages.last().map(|newest: &Arc<Message>| newest.cursor.offset);
        let end =
            newest.unwrap_or_else(|| before.map_or(ring.last(), |before| before.saturating_sub(1).min(ring.last())));
        Page {
            messages,
            gap: None,
            has_previous,
            has_next: ring.newest() > end.max(ring.floor()),
            end: Cursor { epoch: self.epoch, offset: end },
            holes,
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
    /// What was missed in its midst, oldest first; each stands before one of its messages.
    pub holes: Vec<Gap>,
}

impl Page {
    /// The messages, and of each what was missed right before it.
    pub fn with_gaps(&self) -> impl Iterator<Item = (&Arc<Message>, Option<&Gap>)> {
        let mut holes = self.holes.iter().peekable();
        self.messages.iter().enumerate().map(move |(index, message)| {
            let hole = holes.next_if(|hole| hole.to_offset < message.cursor.offset);
            (message, if index == 0 { self.gap.as_ref() } else { hole })
        })
    }
}
