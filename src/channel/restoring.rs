//! How an engine brings back the history of a topic that it had stored.

use parking_lot::MutexGuard;

use super::{Channel, Cursor, Message, MessageId, NewMessage, Numbering, Reclaimed, Remembered, Ring, Timestamp};

/// A channel whose history is being brought back. Nobody else sees the channel's history while this lives.
pub(crate) struct Restoring<'a> {
    channel: &'a Channel,
    ring: MutexGuard<'a, Ring>,
}

impl Channel {
    /// Begins to bring back what was stored of the topic.
    pub(crate) fn restore(&self) -> Restoring<'_> {
        Restoring { channel: self, ring: self.ring.lock() }
    }
}

impl Restoring<'_> {
    /// Says where the history begins: behind the message `newest`, at the offset `last`. `sequence` is the newest
    /// number in the shared log that a message before it may have; 0 where there was none.
    pub fn begin(&mut self, newest: u64, last: u64, numbering: Numbering, sequence: u64) {
        self.ring.begin(newest, last, numbering, sequence);
    }

    /// Messages that were evicted before this history began, oldest first, each with its offset, its time and its
    /// number in the shared log. `before` is the offset and the number in the shared log of the message before them;
    /// zeros where there was none.
    pub fn remember_evicted(&mut self, before: (u64, u64), evicted: impl Iterator<Item = (u64, Timestamp, u64)>) {
        self.ring.remember_evicted(before, evicted);
    }

    /// An id whose message was published before this history began and is not kept.
    pub fn remember_id(&mut self, id: &MessageId, remembered: Remembered) {
        self.ring.remember(id, remembered);
    }

    /// What lies up to `offset` and was not brought back is lost.
    pub fn skip_to(&mut self, offset: u64) {
        self.ring.skip_to(offset);
    }

    /// Says that the history has holes: that others than the newest message of each key are missing in it. Messages up to `floor`
    /// have left by the bounds of a history; `sequence` is the newest number in the shared log that one of them may have.
    pub fn begin_with_holes(&mut self, floor: u64, numbering: Numbering, sequence: u64) {
        self.ring.begin_with_holes(floor, numbering, sequence);
    }

    /// What lies up to `offset` and was not brought back was replaced, or its time is over. `sequence` is the number in the
    /// shared log of the newest message there.
    pub fn pass_compacted(&mut self, offset: u64, sequence: u64) {
        self.ring.pass_compacted(offset, sequence, self.channel.created_at);
    }

    /// The next message, of which only its place is left because its own time was over.
    pub fn feed_hollow(&mut self, offset: u64, sequence: u64, at: Timestamp, given_id: bool, stored: NewMessage) {
        let cursor = Cursor { epoch: self.channel.epoch, offset };
        let prev = self.ring.last();
        if let Some(id) = stored.id.as_ref().filter(|_| given_id) {
            self.ring.remember(id, Remembered { offset, at });
        }
        self.ring.feed_hollow(&Message::new(self.channel.name.clone(), cursor, prev, sequence, stored, at));
    }

    /// The history is complete. What is too old by now leaves it. Returns what that is.
    pub fn end(mut self) -> Reclaimed {
        self.ring.reclaim(usize::MAX)
    }

    /// The next message; `sequence` is its number in the shared log.
    pub fn feed(&mut self, offset: u64, sequence: u64, at: Timestamp, given_id: bool, stored: NewMessage) {
        let cursor = Cursor { epoch: self.channel.epoch, offset };
        let prev = self.ring.last();
        self.ring.feed(Message::new(self.channel.name.clone(), cursor, prev, sequence, stored, at), given_id);
    }
}
