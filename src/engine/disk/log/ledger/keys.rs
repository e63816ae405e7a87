//! The ledger's account of topics that keep the newest message of each key only.
//!
//! A message that a newer one of its key has replaced is dead. A message that was the newest of its key and is not needed
//! any more leaves a *key mark*: its record, or the record reduced to key and offset, must outlive every older record of the
//! key, or one of these would come back as the newest. All of them are in the same segment or in older ones, because only
//! live records are copied, and they were dead when the newest one was written. So a segment with key marks may go when it
//! is the oldest, and before that only if its key marks are copied.

use super::{
    super::record::{MessageRecord, StoredRecord},
    Ledger, remove_live,
};

impl Ledger {
    /// Says that these messages are not needed any more, because a newer one of the key of each is stored.
    pub(in super::super) fn replace(&mut self, topic_id: u64, offsets: &[u64]) {
        for offset in offsets {
            self.take_message(topic_id, *offset, false);
        }
    }

    /// Says that these messages, each the newest of its key, are not needed any more. In a history their places are, so
    /// there this does nothing.
    pub(in super::super) fn forget(&mut self, topic_id: u64, offsets: &[u64]) {
        for offset in offsets {
            if self.is_compacted(topic_id, *offset) {
                self.take_message(topic_id, *offset, true);
            }
        }
    }

    /// The same for all messages below `floor`. Usually each of them was named before.
    pub(super) fn forget_below(&mut self, topic_id: u64, floor: u64) {
        while let Some(first) = self.topics.get(&topic_id).and_then(|topic| topic.runs.first()).filter(|it| *it < floor)
        {
            self.take_message(topic_id, first, true);
        }
    }

    fn take_message(&mut self, topic_id: u64, offset: u64, leaves_mark: bool) {
        let active = self.active_segment();
        let Self { topics, segments, drained, live_bytes, window, .. } = self;
        let Some(taken) = topics.get_mut(&topic_id).and_then(|topic| topic.runs.take(offset)) else { return };
        if leaves_mark && let Some(segment) = segments.get_mut(&taken.segment) {
            segment.key_marks.insert((topic_id, offset));
        }
        if let Some(until) = remove_live(segments, live_bytes, active, *window, &taken) {
            drained.insert((until, taken.segment));
        }
    }

    /// Adds a key mark in segment `number`. The message that it is about is not live any more.
    pub(super) fn add_key_mark(&mut self, number: u64, topic_id: u64, offset: u64) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.key_marks.insert((topic_id, offset));
        }
        self.take_message(topic_id, offset, false);
    }

    /// A message that was about to be copied to segment `number` is not needed any more. If it is a key mark now, the copy
    /// is one, too.
    pub(super) fn add_dead_copy(&mut self, number: u64, topic_id: u64, offset: u64) {
        if self.segments.values().any(|segment| segment.key_marks.contains(&(topic_id, offset))) {
            self.add_key_mark(number, topic_id, offset);
        }
    }

    /// Returns whether this record in segment `number` is a key mark that has to be copied before the segment is removed.
    pub(in super::super) fn is_needed_mark(&self, number: u64, message: &MessageRecord<'_>) -> bool {
        let is_oldest = self.segments.first_key_value().is_none_or(|(oldest, _)| *oldest == number);
        let mark = (message.topic_id, message.offset);
        !is_oldest && self.segments.get(&number).is_some_and(|segment| segment.key_marks.contains(&mark))
    }

    /// Returns whether, of the messages up to this one, only the newest of each key is kept.
    pub(in super::super) fn is_compacted(&self, topic_id: u64, offset: u64) -> bool {
        self.topics.get(&topic_id).is_some_and(|topic| topic.is_keyed || offset <= topic.compacted_until)
    }

    /// Up to which offset the messages of a topic are the newest of their keys, although it keeps a history now.
    pub(in super::super) fn compacted_until(&self, topic_id: u64) -> u64 {
        self.topics.get(&topic_id).map_or(0, |topic| topic.compacted_until)
    }

    /// The number of live messages of a topic.
    #[cfg(test)]
    pub(in super::super) fn live_messages(&self, topic_id: u64) -> u64 {
        self.topics.get(&topic_id).map_or(0, |topic| topic.runs.records())
    }

    /// The number of key marks in the log.
    #[cfg(test)]
    pub(in super::super) fn key_marks(&self) -> usize {
        self.segments.values().map(|segment| segment.key_marks.len()).sum()
    }

    pub(super) fn remove_key_marks(&mut self, topic_id: u64) {
        let mut cleared = Vec::new();
        for (number, segment) in &mut self.segments {
            let marks: Vec<_> = segment.key_marks.range((topic_id, 0)..=(topic_id, u64::MAX)).copied().collect();
            for mark in &marks {
                segment.key_marks.remove(mark);
            }
            if !marks.is_empty() {
                cleared.push(*number);
            }
        }
        let active = self.active_segment();
        for number in cleared.into_iter().filter(|number| Some(*number) != active) {
            self.check_drained(number);
        }
    }

    /// Notes what the settings in a record of a topic say about which messages it keeps, and for how long.
    pub(super) fn note_settings(&mut self, stored: &StoredRecord<'_>) {
        let (topic_id, settings, compacted) = match *stored {
            StoredRecord::TopicCreated { topic_id, settings, .. } => (topic_id, settings, None),
            StoredRecord::TopicUpdated { topic_id, settings, compacted_until, .. } => {
                (topic_id, settings, Some(compacted_until))
            }
            _ => return,
        };
        let max_age = (self.max_age_of)(settings).unwrap_or(self.default_max_age);
        let is_keyed = (self.is_keyed)(settings);
        let Some(topic) = self.topics.get_mut(&topic_id) else { return };
        let is_latest = match compacted {
            None => topic.updated.is_none(),
            Some(_) => topic.updated.is_some_and(|updated| updated.sequence == stored.sequence()),
        };
        if is_latest {
            // The newest message of a key may become as old as it likes.
            topic.max_age = if is_keyed { 0 } else { max_age };
            topic.is_keyed = is_keyed;
            topic.compacted_until = compacted.unwrap_or(0);
        }
    }
}
