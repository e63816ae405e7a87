//! Which of a topic's recovered messages are the newest of their keys.
//!
//! A message that replaces older ones says so itself, so that reading keeps only the newest one of each key in memory. Up to
//! the offset at which a topic was last switched between the newest of each key and a history, this holds for all messages.

use std::collections::{HashMap, hash_map::Entry};

use bytes::Bytes;

use super::{
    newest::{ChainLink, NewestMessages, select_newest},
    record::MessageRecord,
};

/// A message that replaces all older ones of its key.
pub(super) struct NewestOfKey<M> {
    offset: u64,
    /// The message, or `None` if only its key mark is left.
    message: Option<M>,
}

/// What was read of a topic's messages so far.
pub(super) struct MessageContents<M> {
    /// The messages that replace no others, in log order.
    plain: Vec<M>,
    /// Of those that replace others, the newest of each key.
    newest: HashMap<Bytes, NewestOfKey<M>>,
}

impl<M> Default for MessageContents<M> {
    fn default() -> Self {
        Self { plain: Vec::new(), newest: HashMap::new() }
    }
}

/// Which messages of a topic belong to it.
#[derive(Clone, Copy)]
pub(super) struct MessageBounds {
    /// Messages up to this offset were evicted.
    pub floor: u64,
    /// How many of the newest messages to select where the topic keeps a history.
    pub keep: usize,
    /// Whether the topic keeps the newest message of each key only.
    pub is_keyed: bool,
    /// Up to here this holds in any case.
    pub compacted_until: u64,
}

/// What was selected.
pub(super) struct SelectedMessages<M> {
    pub messages: NewestMessages<M>,
    /// Up to here others may be missing between the messages.
    pub compacted_until: u64,
    /// The offsets of messages that a newer one of their key has replaced.
    pub replaced: Vec<u64>,
}

impl<M> MessageContents<M> {
    pub fn len(&self) -> usize {
        self.plain.len() + self.newest.values().filter(|newest| newest.message.is_some()).count()
    }

    /// Takes the next message of the log, of which `keep` returns what is kept. Returns the offset of a message that is not
    /// needed any more.
    pub fn take(&mut self, message: &MessageRecord<'_>, keep: impl FnOnce() -> M) -> Option<u64> {
        let offset = message.offset;
        let Some(key) = message.key.filter(|_| message.replaces_older) else {
            self.plain.push(keep());
            return None;
        };
        match self.newest.get_mut(key) {
            // What is left of a message is newer than a copy of the whole.
            Some(newest) if newest.offset > offset || (newest.offset == offset && newest.message.is_none()) => {
                Some(offset)
            }
            Some(newest) => {
                let message = (!message.is_key_mark()).then(keep);
                let old = std::mem::replace(newest, NewestOfKey { offset, message });
                (old.offset < offset && old.message.is_some()).then_some(old.offset)
            }
            None => {
                let message = (!message.is_key_mark()).then(keep);
                self.newest.insert(Bytes::copy_from_slice(key), NewestOfKey { offset, message });
                None
            }
        }
    }

    /// The highest offset of a message.
    pub fn highest(&self, link_of: impl Fn(&M) -> ChainLink) -> u64 {
        let newest = self.newest.values().map(|newest| newest.offset).max();
        self.plain.iter().map(|message| link_of(message).offset).max().max(newest).unwrap_or(0)
    }

    /// Selects the messages that belong to the topic, by offset. `key_of` returns the key of a message.
    ///
    /// # Errors
    /// Returns the error of `key_of`.
    pub fn select<E>(
        self,
        bounds: MessageBounds,
        link_of: impl Fn(&M) -> ChainLink + Copy,
        key_of: impl FnMut(&M) -> Result<Option<Bytes>, E>,
    ) -> Result<SelectedMessages<M>, E> {
        let Self { plain, newest } = self;
        let MessageBounds { floor, keep, is_keyed, compacted_until } = bounds;
        // A message replaces others only while the topic keeps the newest ones, so none is behind this offset.
        let until = newest.values().map(|newest| newest.offset).max().unwrap_or(0).max(compacted_until);
        let until = if is_keyed { u64::MAX } else { until };
        let (mut older, history): (Vec<_>, Vec<_>) =
            plain.into_iter().partition(|message| link_of(message).offset <= until);
        older.retain(|message| link_of(message).offset > floor);
        let (mut latest, replaced) = newest_of_keys(older, newest, link_of, key_of)?;
        latest.retain(|message| link_of(message).offset > floor);
        let mut messages = select_newest(history, floor, keep, link_of);
        let continues = messages.kept.first().is_none_or(|first| link_of(first).prev <= until);
        if continues && messages.evicted.is_empty() && messages.detached == 0 {
            let room = if is_keyed { usize::MAX } else { keep.saturating_sub(messages.kept.len()) };
            latest.drain(..latest.len().saturating_sub(room));
            latest.append(&mut messages.kept);
            messages.kept = latest;
        }
        Ok(SelectedMessages { messages, compacted_until: until, replaced })
    }
}

/// Returns the newest message of each key, and those without a key, by offset; and the offsets of the others.
fn newest_of_keys<M, E>(
    plain: Vec<M>,
    mut newest: HashMap<Bytes, NewestOfKey<M>>,
    link_of: impl Fn(&M) -> ChainLink,
    mut key_of: impl FnMut(&M) -> Result<Option<Bytes>, E>,
) -> Result<(Vec<M>, Vec<u64>), E> {
    let (mut latest, mut replaced) = (Vec::new(), Vec::new());
    for message in plain {
        let offset = link_of(&message).offset;
        let Some(key) = key_of(&message)? else {
            latest.push(message);
            continue;
        };
        let found = NewestOfKey { offset, message: Some(message) };
        match newest.entry(key) {
            Entry::Vacant(entry) => _ = entry.insert(found),
            Entry::Occupied(mut entry) if entry.get().offset < offset => {
                let old = entry.insert(found);
                replaced.extend(old.message.map(|_| old.offset));
            }
            // A crash can leave a message and its copy.
            Entry::Occupied(entry) if entry.get().offset == offset && entry.get().message.is_some() => {}
            Entry::Occupied(_) => replaced.push(offset),
        }
    }
    // Two keys with one offset do not occur, but a crafted log must be read the same way twice.
    let mut newest: Vec<_> = newest.into_iter().map(|(key, newest)| (newest.offset, key, newest.message)).collect();
    newest.sort_unstable_by(|(a, k, _), (b, l, _)| (a, k).cmp(&(b, l)));
    latest.extend(newest.into_iter().filter_map(|(.., message)| message));
    latest.sort_by_key(|message| link_of(message).offset);
    latest.dedup_by_key(|message| link_of(message).offset);
    Ok((latest, replaced))
}
