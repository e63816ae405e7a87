//! Messages of a ring that keeps the newest one of each key: how they replace each other, and how their slots leave.

use std::collections::VecDeque;

use super::{
    Ring,
    ages::HOLLOW,
    evicted::{self, Evicted},
    keyed::{Hole, Mark, Slot, joined},
};
use crate::channel::{Message, Reclaimed, Timestamp};

/// Hollow slots that do not matter, however few messages there are.
const FEW_HOLLOW: usize = 64;

impl Ring {
    /// What is missing before a message that is about to be put behind all others: what a store has left out, or what the
    /// engine has lost.
    pub(super) fn begin_slot(&mut self, message: &Message) {
        let end = self.messages.back().map_or(self.newest, |newest| newest.cursor.offset);
        let newest =
            Mark { sequence: self.newest_sequence, at: self.last_published_at.unwrap_or(message.published_at) };
        let Some(keyed) = &mut self.keyed else { return };
        let lost = || {
            let last = Mark { sequence: message.sequence.saturating_sub(1), at: message.published_at };
            let first = Mark { sequence: newest.sequence + 1, ..newest };
            Hole { first, last, compacted: 0, is_lost: true }
        };
        let ended = |hole: Hole| Hole { last: Mark { at: message.published_at, ..hole.last }, ..hole };
        let before = keyed.next_hole.take().map(ended).or_else(|| (end < message.prev).then(lost));
        keyed.has_lost |= before.is_some_and(|hole| hole.is_lost);
        keyed.slots.push_back(Slot { before, is_compacted: false });
        let before_it = before.map(|hole| (message.prev, hole.last.sequence));
        self.note_published(message, before_it);
    }

    /// Remembers which messages were published one after the other. `before` is the offset behind which that begins again, and
    /// its number in the shared log.
    fn note_published(&mut self, message: &Message, before: Option<(u64, u64)>) {
        let most = self.bounds.max_messages;
        let Some(keyed) = &mut self.keyed else { return };
        let bytes = keyed.published.bytes();
        if let Some((offset, sequence)) = before {
            keyed.published = Evicted::default();
            keyed.published.begin(offset, sequence);
        }
        let Message { cursor, sequence, published_at, .. } = *message;
        keyed.published.push(evicted::Entry { offset: cursor.offset, at: published_at, sequence }, most);
        let (before, now) = (bytes, keyed.published.bytes());
        self.count_remembered(before, now);
    }

    /// A message was put into the ring that is now the newest of its key; this was the one before it.
    pub(super) fn settle(&mut self, is_removal: bool, before: Option<u64>) {
        let was_removal = before.and_then(|offset| self.message_of(offset)).is_some_and(|message| message.is_removal);
        // What was gone already was not replaced.
        let slot = before.map(|offset| self.index_after(offset.saturating_sub(1)));
        let was_gone = slot.zip(self.now()).is_some_and(|(slot, now)| self.is_gone(slot, now));
        let Some(keyed) = &mut self.keyed else { return };
        keyed.removals += usize::from(is_removal);
        keyed.removals -= usize::from(was_removal);
        if keyed.is_on
            && let Some(before) = before
        {
            keyed.replaced.push(before);
            if was_gone && was_removal {
                keyed.forgotten_removal = keyed.forgotten_removal.max(before);
            }
            self.hollow_out(before, was_removal || !was_gone);
            self.tidy();
        }
    }

    /// The key of this message is not found any more.
    pub(super) fn forget_key(&mut self, message: &Message) {
        if let Some(keyed) = &mut self.keyed {
            keyed.removals -= usize::from(message.is_removal);
            // Of a key that is about to get another message, nothing changes once that is stored.
            let is_staged = message.key.as_ref().is_some_and(|key| keyed.staged.contains_key(key));
            keyed.more_staged += isize::from(is_staged && !message.is_removal);
        }
    }

    /// A slot has become hollow.
    pub(super) fn note_hollow(&mut self, slot: usize, is_compacted: bool, hollow: &Message) {
        if let Some(keyed) = &mut self.keyed {
            keyed.hollow_cost += hollow.cost();
            if let Some(slot) = keyed.slots.get_mut(slot) {
                slot.is_compacted = is_compacted;
            }
        }
    }

    /// The oldest message leaves the ring by the bounds of a history. Returns what was missing right before the next one, if
    /// there are holes at all.
    pub(super) fn end_oldest_slot(&mut self, message: &Message, is_hollow: bool) {
        let Some(keyed) = &mut self.keyed else { return };
        keyed.slots.pop_front();
        keyed.history_until = message.cursor.offset;
        keyed.hollow_cost -= if is_hollow { message.cost() } else { 0 };
        let next = self.messages.front();
        if let (Some(next), Some(Slot { before: Some(Hole { is_lost: true, .. }), .. })) = (next, keyed.slots.front()) {
            self.lost_until = next.prev;
        }
    }

    /// Takes hollow slots out of the ring that need not stay: those at its front, and all of them when they are many.
    pub(super) fn tidy(&mut self) {
        while self.messages.len() > 1 && self.is_hollow(0) {
            self.drop_front();
        }
        let hollow = self.hollow();
        if hollow > FEW_HOLLOW.max((self.messages.len() - hollow) / 2) {
            self.drop_hollow();
        }
    }

    fn drop_front(&mut self) {
        let Some(message) = self.messages.pop_front() else { return };
        self.end_oldest_life(message.cursor.offset);
        self.give_back(&message);
        let Some(keyed) = &mut self.keyed else { return };
        let Some(Slot { before, is_compacted }) = keyed.slots.pop_front() else { return };
        let hole = joined(before, Some(Hole::of(&message, is_compacted)));
        if let Some(next) = keyed.slots.front_mut() {
            next.before = joined(hole, next.before);
        }
    }

    /// A hollow slot has left the ring.
    fn give_back(&mut self, hollow: &Message) {
        let cost = hollow.cost();
        self.cost -= cost;
        self.budget.remove(0, cost);
        if let Some(keyed) = &mut self.keyed {
            keyed.hollow_cost -= cost;
        }
    }

    /// Rebuilds the ring without its hollow slots, but for the newest slot.
    pub(super) fn drop_hollow(&mut self) {
        let Some(mut ages) = self.ages.take() else { return };
        let Some(mut keyed) = self.keyed.take() else { return };
        let kept = self.messages.len() - ages.hollow + 1;
        let messages = std::mem::replace(&mut self.messages, VecDeque::with_capacity(kept));
        let lives = std::mem::replace(&mut ages.lives, VecDeque::with_capacity(kept));
        let slots = std::mem::replace(&mut keyed.slots, VecDeque::with_capacity(kept));
        let newest = messages.len().saturating_sub(1);
        let (mut carried, mut freed) = (None, 0);
        for (index, ((message, life), slot)) in messages.into_iter().zip(lives).zip(slots).enumerate() {
            let before = joined(carried.take(), slot.before);
            if life.until == HOLLOW && index < newest {
                carried = joined(before, Some(Hole::of(&message, slot.is_compacted)));
                freed += message.cost();
                ages.hollow -= 1;
                continue;
            }
            self.messages.push_back(message);
            ages.lives.push_back(life);
            keyed.slots.push_back(Slot { before, ..slot });
        }
        keyed.hollow_cost -= freed;
        self.cost -= freed;
        self.budget.remove(0, freed);
        (self.ages, self.keyed) = (Some(ages), Some(keyed));
    }

    /// Nobody needs to be told of messages that were replaced.
    pub fn forget_replaced(&mut self) {
        if let Some(keyed) = &mut self.keyed {
            keyed.replaced.clear();
        }
    }

    /// What is no longer kept since the floor was there. Of messages that were replaced, the engine is told once.
    pub fn reclaimed_since(&mut self, floor: u64) -> Reclaimed {
        let replaced = self.keyed.as_mut().map(|keyed| std::mem::take(&mut keyed.replaced)).unwrap_or_default();
        Reclaimed { floor: Some(self.floor()).filter(|now| *now != floor), replaced, ..Reclaimed::default() }
    }

    /// What lies up to `offset` and is not brought back was replaced, or its time is over. `sequence` is the number in the shared
    /// log of the newest message there; `begun_at` is when the topic was made.
    pub fn pass_compacted(&mut self, offset: u64, sequence: u64, begun_at: Timestamp) {
        if offset <= self.last {
            return;
        }
        let at = self.last_published_at.unwrap_or(begun_at);
        let first = Mark { sequence: self.newest_sequence + 1, at };
        let last = Mark { sequence: sequence.max(first.sequence), at: Timestamp(i64::MAX) };
        let hole = Hole { first, last, compacted: offset, is_lost: false };
        if let Some(keyed) = &mut self.keyed {
            keyed.next_hole = joined(keyed.next_hole, Some(hole));
            (self.last, self.newest) = (offset, offset);
        }
    }

    /// Messages and hollow slots together.
    #[cfg(test)]
    pub fn slots(&self) -> usize {
        self.messages.len()
    }
}
