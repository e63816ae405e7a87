//! What leaves the history, and what is remembered of it.

use super::{Ring, evicted};
use crate::channel::{Error, Key, Message, recent_ids::Remembered};

/// The part of a topic's bytes that what it remembers of evicted messages may take where bytes are short: one in so
/// many.
const EVICTED_SHARE: usize = 8;

impl Ring {
    /// Evicts until a message of `cost` fits all bounds, or nothing is left.
    pub(super) fn make_room(&mut self, cost: usize) {
        // The newest message of a key leaves for a newer one alone.
        if self.keeps_latest() {
            return;
        }
        while self.messages.len() >= self.bounds.max_messages && self.evict_oldest() {}
        while self.cost + cost > self.budget.per_topic || self.budget.used() + cost > self.budget.total {
            // What is remembered of evicted messages may take a small part of the room.
            let remembers_much = self.evicted.bytes() > self.cost / EVICTED_SHARE;
            if !remembers_much && self.evict_oldest() {
                continue;
            }
            let before = self.evicted.bytes();
            if self.evicted.drop_oldest() {
                self.count_evicted(before);
            } else if !self.evict_oldest() {
                break;
            }
        }
    }

    /// All histories together may be full: a topic pays with its own oldest, never with another's, and one that has not
    /// enough to pay with is refused. One that keeps the newest message of each key pays with the one that is replaced alone.
    ///
    /// # Errors
    /// [`Error::LimitReached`].
    pub fn check_room(&self, cost: usize, key: Option<&Key>) -> Result<(), Error> {
        if self.keeps_latest() {
            return self.check_room_for_key(cost, key);
        }
        if self.budget.used() + cost > self.budget.total.saturating_add(self.cost) {
            return Err(Error::LimitReached {
                what: "bytes of history on this server",
                limit: self.budget.total,
                own: false,
            });
        }
        Ok(())
    }

    fn check_room_for_key(&self, cost: usize, key: Option<&Key>) -> Result<(), Error> {
        let (more, way) = (self.staged_cost + cost, self.gives_way(key));
        let what = "bytes of history in this topic";
        for (used, limit, what) in [
            (self.cost, self.budget.per_topic, what),
            (self.budget.used(), self.budget.total, "bytes of history on this server"),
        ] {
            if used.saturating_add(more) > limit.saturating_add(way) {
                return Err(Error::LimitReached { what, limit, own: false });
            }
        }
        Ok(())
    }

    pub(super) fn evict_oldest(&mut self) -> bool {
        let is_gone = self.now().is_some_and(|now| self.is_gone(0, now));
        let Some(message) = self.messages.pop_front() else { return false };
        *(if is_gone { &mut self.aged_out } else { &mut self.crowded_out }) = message.cursor.offset;
        let is_hollow = self.end_oldest_life(message.cursor.offset);
        self.cost -= message.cost();
        self.budget.remove(usize::from(!is_hollow), message.cost());
        self.forget(&message);
        self.end_oldest_slot(&message, is_hollow);
        if let Some(next) = self.messages.front()
            && next.prev != message.cursor.offset
            && self.keyed.is_none()
        {
            self.lost_ranges -= 1;
            self.lost_until = next.prev;
        }
        let (offset, at, sequence) = (message.cursor.offset, message.published_at, message.sequence);
        self.remember_one(evicted::Entry { offset, at, sequence });
        true
    }

    /// The message is not found by its id and its key any more. A publisher's id is remembered for its window.
    pub(super) fn forget(&mut self, message: &Message) {
        if self.ids.get(&message.id) == Some(&message.cursor.offset) {
            self.ids.remove(&message.id);
            let remembered = Remembered { offset: message.cursor.offset, at: message.published_at };
            self.recent_ids.remember(self.serial, &message.id, remembered);
        }
        if let Some(key) = &message.key
            && self.latest.get(key) == Some(&message.cursor.offset)
        {
            self.latest.remove(key);
            self.forget_key(message);
        }
    }

    pub(super) fn remember_one(&mut self, entry: evicted::Entry) {
        let before = self.evicted.bytes();
        self.evicted.push(entry, self.bounds.max_messages);
        self.count_evicted(before);
    }

    /// What is remembered of evicted messages counts as the history does.
    fn count_evicted(&mut self, before: usize) {
        self.count_remembered(before, self.evicted.bytes());
    }

    pub(super) fn count_remembered(&mut self, before: usize, now: usize) {
        self.cost = self.cost + now - before;
        if now > before {
            self.budget.add_bytes(now - before);
        } else {
            self.budget.remove(0, before - now);
        }
    }
}
