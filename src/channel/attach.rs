//! How a subscription enters a topic and leaves it, and where it begins to read.

use std::sync::{Arc, atomic::Ordering};

use super::{Channel, Cursor, Gap, GapReason, ReadPosition, Reader, Start, Waiter};

impl Channel {
    /// Adds a waiting subscription, and returns its reader and the slot with which it is detached.
    pub(crate) fn attach(self: &Arc<Self>, waiter: &Arc<Waiter>, start: &Start) -> (Reader, usize) {
        // The waiter comes first, and the position to begin at is looked up second: what is published in between wakes
        // it.
        let slot = self.waiters.lock().insert(waiter.clone());
        let (reader, _) = self.locate(start);
        waiter.seen.store(reader.position.seen, Ordering::Relaxed);
        waiter.offset.store(reader.cursor().offset, Ordering::Relaxed);
        (reader, slot)
    }

    /// Removes the waiting subscription that [`Channel::attach`] has put into this slot. To be called once.
    pub(crate) fn detach(&self, slot: usize) {
        self.waiters.lock().try_remove(slot);
    }

    /// What a reader passes over that goes on behind `cursor`, if that is ahead of where it stands.
    pub(crate) fn skipped(&self, from: ReadPosition, cursor: Cursor) -> Option<Gap> {
        let ring = self.ring.lock();
        let (at, _) = ring.locate(&Start::After(cursor), self.created_at);
        // Where the cursor's message is not kept any more, the reader goes on with the oldest that is, and is told so there.
        let to = ReadPosition { after: cursor.offset, ..at };
        if cursor.epoch == self.epoch { ring.skipped(from, to, GapReason::Seek) } else { None }
    }

    /// A reader at a start, and whether there is anything for it to read.
    pub(crate) fn locate(self: &Arc<Self>, start: &Start) -> (Reader, bool) {
        let ring = self.ring.lock();
        let (position, gap) = ring.locate(start, self.created_at);
        let has_unread = position.after < ring.last() || gap.is_some() || ring.closed;
        // A gap is delivered before anything else.
        let next_sequence = if gap.is_some() { 0 } else { ring.next_sequence(position).unwrap_or_default() };
        let mut reader = Reader::from(self.clone(), (position, gap));
        reader.next_sequence = next_sequence;
        if *start == Start::State {
            reader.begin_state(ring.begin_state());
        }
        (reader, has_unread)
    }
}
