//! How a subscription enters a topic and leaves it, and where it begins to read.

use std::sync::{Arc, atomic::Ordering};

use super::{Channel, Reader, Start, Waiter};

impl Channel {
    /// Adds a waiting subscription, and returns its reader and the slot with which it is detached.
    pub(crate) fn attach(self: &Arc<Self>, waiter: &Arc<Waiter>, start: &Start) -> (Reader, usize) {
        // The waiter comes first, and the position to begin at is looked up second: what is published in between wakes
        // it.
        let slot = self.waiters.lock().insert(waiter.clone());
        let (reader, _) = self.locate(start);
        waiter.seen.store(reader.position.seen, Ordering::Relaxed);
        (reader, slot)
    }

    /// Removes the waiting subscription that [`Channel::attach`] has put into this slot. To be called once.
    pub(crate) fn detach(&self, slot: usize) {
        self.waiters.lock().try_remove(slot);
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
        (reader, has_unread)
    }
}
