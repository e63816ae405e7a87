//! How a ring begins to keep the newest message of each key, and how it ends that.

use std::collections::{HashMap, VecDeque};

use super::{
    Numbering, Ring,
    evicted::Evicted,
    keyed::{Hole, Keyed, Mark, Slot},
};
use crate::channel::{Error, Message, Retention, Timestamp, TopicBounds, TopicConfig};

impl Ring {
    /// Checks whether the topic may have these settings. If it is to keep the newest message of each key, no other message
    /// comes in from here on.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if it keeps messages that have no key, or messages of too many keys.
    pub fn prepare(&mut self, config: TopicConfig, defaults: TopicBounds) -> Result<(), Error> {
        let bounds = config.bounds(defaults);
        if let Some(keyed) = &mut self.keyed {
            keyed.is_ending = bounds.retention == Retention::History;
        }
        if bounds.retention != Retention::LatestPerKey || self.keeps_latest() {
            return Ok(());
        }
        let refuse = |why: String| Err(Error::bad_request("retention", why));
        let now = self.now();
        let mut kept = (0..self.messages.len()).filter(|slot| now.is_none_or(|now| !self.is_gone(*slot, now)));
        let has_no_key = |slot: usize| self.messages.get(slot).is_some_and(|message| message.key.is_none());
        if kept.any(has_no_key) || self.staged.iter().any(|staged| staged.message.key.is_none()) {
            return refuse("cannot be LATEST_PER_KEY: the topic keeps messages without a key".to_owned());
        }
        self.begin_keyed();
        if let Some(keyed) = &mut self.keyed {
            (keyed.is_strict, keyed.max_keys) = (true, bounds.max_keys);
        }
        self.recount_staged();
        let more = self.keyed.as_ref().map_or(0, |keyed| keyed.more_staged);
        let keys = self.keys().saturating_add_signed(more).saturating_sub(self.keys_too_old());
        if keys > bounds.max_keys {
            self.abandon();
            return refuse(format!(
                "cannot be LATEST_PER_KEY: the topic keeps messages of {keys} keys, and max_keys is {}",
                bounds.max_keys
            ));
        }
        Ok(())
    }

    /// What was prepared does not happen.
    pub fn abandon(&mut self) {
        if let Some(keyed) = &mut self.keyed {
            (keyed.is_strict, keyed.is_ending) = (keyed.is_on, false);
        }
    }

    /// From here on each slot says what is missing before it.
    fn begin_keyed(&mut self) {
        let removals = self.latest.values().filter(|offset| self.message_of(**offset).is_some_and(|it| it.is_removal));
        let removals = removals.count();
        if let Some(keyed) = &mut self.keyed {
            keyed.removals = removals;
            return;
        }
        self.begin_ages();
        let hollow = (0..self.messages.len()).filter(|slot| self.is_hollow(*slot));
        let hollow_cost = hollow.filter_map(|slot| self.messages.get(slot)).map(|message| message.cost()).sum();
        let mut end = self.floor();
        let mut slots = VecDeque::with_capacity(self.messages.len());
        let mut last = Mark { sequence: 0, at: Timestamp(i64::MIN) };
        for message in &self.messages {
            let until = Mark { sequence: message.sequence.saturating_sub(1), at: message.published_at };
            let first = Mark { sequence: last.sequence + 1, ..last };
            let lost = Hole { first, last: until, compacted: 0, is_lost: true };
            slots.push_back(Slot { before: (end < message.prev).then_some(lost), is_compacted: false });
            end = message.cursor.offset;
            last = Mark { sequence: message.sequence, at: message.published_at };
        }
        let has_lost = std::mem::take(&mut self.lost_ranges) > 0;
        let mut published = Evicted::default();
        published.begin(self.last, self.newest_sequence);
        self.keyed = Some(Box::new(Keyed {
            has_lost,
            published,
            slots,
            base: self.last.saturating_sub(self.total),
            history_until: self.floor(),
            removals,
            hollow_cost,
            ..Keyed::default()
        }));
    }

    /// Keeps the newest message of each key from here on, or no more.
    pub(super) fn set_retention(&mut self, retention: Retention) {
        let max_keys = self.bounds.max_keys;
        if let Some(keyed) = &mut self.keyed {
            keyed.is_ending = false;
            keyed.max_keys = max_keys;
        }
        match retention {
            Retention::LatestPerKey if !self.keeps_latest() => {
                self.begin_keyed();
                if let Some(keyed) = &mut self.keyed {
                    (keyed.is_on, keyed.is_strict, keyed.max_keys) = (true, true, max_keys);
                }
                self.recount_staged();
                self.replace_all();
            }
            Retention::History if self.keeps_latest() => {
                if let Some(keyed) = &mut self.keyed {
                    (keyed.is_on, keyed.is_strict) = (false, false);
                    (keyed.staged, keyed.more_staged) = (HashMap::new(), 0);
                }
                self.remember_removals(None);
                self.drop_hollow();
            }
            Retention::LatestPerKey | Retention::History => {}
        }
    }

    /// Takes out every message that is not the newest of its key.
    fn replace_all(&mut self) {
        let is_newest = |message: &Message| {
            message.key.as_ref().is_none_or(|key| self.latest.get(key) == Some(&message.cursor.offset))
        };
        let slots = (0..self.messages.len()).filter(|slot| !self.is_hollow(*slot));
        let old = slots.filter_map(|slot| self.messages.get(slot)).filter(|message| !is_newest(message));
        let old: Vec<u64> = old.map(|message| message.cursor.offset).collect();
        for offset in &old {
            self.hollow_out(*offset, true);
        }
        if let Some(keyed) = &mut self.keyed {
            keyed.replaced.extend(old);
        }
        self.remember_removals(Some(self.bounds.tombstone_ttl));
        self.tidy();
    }

    /// The history that is about to be brought back has holes. Messages up to `floor` have left by the bounds of a history;
    /// `sequence` is the newest number in the shared log that one of them may have.
    pub fn begin_with_holes(&mut self, floor: u64, numbering: Numbering, sequence: u64) {
        self.begin(floor, floor, numbering, 0);
        if floor > 0 {
            self.evicted.begin(floor, sequence);
        }
        self.begin_keyed();
        if let Some(keyed) = &mut self.keyed {
            (keyed.base, keyed.history_until) = (floor, floor);
            keyed.published.begin(floor, sequence);
        }
    }
}
