//! What a log holds, for an export: it is read beside a server that may be writing it.

use std::{path::Path, time::Duration};

use super::{
    is_keyed, keeps_latest,
    log::{self, LogSnapshotTopic},
};
use crate::{
    channel::{
        Age, ConsumerKey, ConsumerName, Epoch, Position, Source, Timestamp, TopicBounds, TopicConfig, TopicName,
    },
    engine::position,
};

/// The content of the log in a directory: what a server that is started on it would have.
pub struct Snapshot {
    log: log::LogSnapshot,
    /// The topics, by name.
    pub topics: Vec<Topic>,
    /// The consumers, by source and name.
    pub consumers: Vec<(ConsumerKey, Position)>,
    /// Bytes at the end at which no whole record begins.
    pub torn_bytes: u64,
}

/// A topic of the log.
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// The epoch of its incarnation.
    pub epoch: Epoch,
    /// When the incarnation was created.
    pub created_at: Timestamp,
    /// Made by a publish or a subscribe, not by a creation.
    pub implicit: bool,
    /// What it sets for itself.
    pub config: TopicConfig,
    /// The newest offset that is no longer kept.
    pub floor: u64,
    /// The newest offset.
    pub last: u64,
    /// Publishers' ids that are still known although their messages are gone, the oldest first.
    pub ids: Vec<StoredId>,
    messages: Vec<log::MessageLocation>,
    /// How old its messages may become.
    max_age: Age,
    /// Up to here its messages are the newest of their keys.
    compacted_until: u64,
    /// How long removals are remembered, if they are messages of no history.
    tombstone_ttl: Age,
}

/// A publisher's id, and the message that had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredId {
    /// The id.
    pub id: String,
    /// The offset of its message.
    pub offset: u64,
    /// When the message was accepted.
    pub at: Timestamp,
}

/// A message of the log.
#[derive(Clone, Copy, Debug)]
pub struct StoredMessage<'a> {
    /// Its offset.
    pub offset: u64,
    /// Whether messages right before it may have been lost.
    pub after_loss: bool,
    /// When it was accepted.
    pub at: Timestamp,
    /// Its id.
    pub id: &'a str,
    /// Whether the publisher chose the id.
    pub given_id: bool,
    /// Its key.
    pub key: Option<&'a str>,
    /// Its data, as JSON.
    pub data: &'a str,
    /// Its headers, as a JSON object.
    pub headers: Option<&'a str>,
    /// How long it is kept after its publication, at most.
    pub ttl: Option<Age>,
    /// Whether it says that its key has no value any more.
    pub is_removal: bool,
}

impl Snapshot {
    /// Reads what the log in `directory` holds. Nothing is written there.
    ///
    /// # Errors
    /// Returns one line that names the setting, if there is no log or it is damaged.
    pub fn read(directory: &Path, defaults: TopicBounds, dedup_window: Duration) -> Result<Self, String> {
        let shown = directory.display();
        if !directory.is_dir() {
            return Err(format!("DATA_DIR: {shown} does not exist, or is not a directory"));
        }
        let keep =
            |settings: &[u8]| TopicConfig::decode(settings).map_or(1, |config| config.bounds(defaults).max_messages);
        let read = log::LogSnapshot::read(directory, &keep, is_keyed, dedup_window)
            .map_err(|error| format!("DATA_DIR: {error}"))?;
        let mut log = read.ok_or_else(|| format!("DATA_DIR: there is no log in {shown}"))?;
        let mut consumers = Vec::new();
        for recovered in std::mem::take(&mut log.consumers) {
            let key = Source::parse(&recovered.source)
                .and_then(|source| Ok(ConsumerKey { source, name: ConsumerName::from_stored(&recovered.name)? }));
            let (Ok(key), Some((mut position, holder))) = (key, position::decode(&recovered.blob)) else {
                return Err(format!("DATA_DIR: the position of consumer {:?} cannot be read", recovered.name));
            };
            if !holder.is_empty() {
                position.used_at = Timestamp::now();
            }
            consumers.push((key, position));
        }
        consumers.sort_by(|(a, _), (b, _)| (a.source.as_str(), &a.name).cmp(&(b.source.as_str(), &b.name)));
        let topics: Result<Vec<_>, _> =
            std::mem::take(&mut log.topics).into_iter().map(|topic| topic_of(topic, defaults)).collect();
        let mut topics = topics?;
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let torn_bytes = log.torn_bytes;
        Ok(Self { log, topics, consumers, torn_bytes })
    }

    /// Passes a topic's messages to `take`, the oldest first.
    ///
    /// # Errors
    /// Returns an error if a message cannot be read, and the error of `take`.
    pub fn messages(
        &self,
        topic: &Topic,
        mut take: impl FnMut(StoredMessage<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut buffer = Vec::new();
        let (mut before, now) = (topic.floor, Timestamp::now());
        for stored_at in &topic.messages {
            let stored = self.log.message(stored_at, &mut buffer).map_err(|error| format!("DATA_DIR: {error}"))?;
            // Where only the newest message of each key was kept, the others between them are not lost.
            let is_compacted = topic.compacted_until > 0 && stored.prev <= topic.compacted_until;
            let follows = if is_compacted { stored.prev } else { before };
            let text = |bytes| std::str::from_utf8(bytes).ok();
            let read = || {
                let optional = |bytes: Option<_>| match bytes {
                    Some(bytes) => text(bytes).map(Some),
                    None => Some(None),
                };
                Some(StoredMessage {
                    offset: stored.offset,
                    // Within an epoch, offsets have no gap, except where an end of the log may have lost messages and
                    // offsets were skipped.
                    // Of the newest messages of keys, the others between them are not lost.
                    after_loss: stored.offset - 1 != follows,
                    at: Timestamp(stored.at_ms),
                    id: text(stored.id)?,
                    given_id: stored.id_is_given,
                    key: optional(stored.key)?,
                    data: text(stored.data)?,
                    headers: optional(stored.headers)?,
                    ttl: Some(Age::from_millis(stored.ttl_ms)).filter(|ttl| !ttl.is_unlimited()),
                    is_removal: stored.is_removal,
                })
            };
            let max_age = topic.max_age.as_millis();
            let is_past = |age: u64| age > 0 && stored.at_ms.saturating_add_unsigned(age) <= now.0;
            let is_forgotten = stored.is_removal && is_past(topic.tombstone_ttl.as_millis());
            if stored.is_hollow || is_past(stored.ttl_ms) || is_past(max_age) || is_forgotten {
                // Nobody would be delivered it any more.
                continue;
            }
            let message = read()
                .ok_or_else(|| format!("DATA_DIR: message {} of {:?} cannot be read", stored.offset, topic.name))?;
            take(message)?;
            before = stored_at.offset;
        }
        Ok(())
    }
}

fn topic_of(topic: LogSnapshotTopic, defaults: TopicBounds) -> Result<Topic, String> {
    let LogSnapshotTopic { epoch, name, created_at_ms, implicit, settings, compacted_until, messages, ids, last } =
        topic;
    let unknown = |what| format!("DATA_DIR: the log has a topic whose {what} this version does not understand");
    let config = TopicConfig::decode(&settings).ok_or_else(|| unknown("settings"))?;
    let bounds = config.bounds(defaults);
    Ok(Topic {
        name: TopicName::parse(&name).map_err(|_| unknown("name"))?,
        epoch: Epoch::from_bits(epoch),
        created_at: Timestamp(created_at_ms),
        implicit,
        config,
        floor: messages.first().map_or(last, |first| first.offset - 1),
        last,
        ids: ids.into_iter().filter_map(id_of).collect(),
        messages,
        max_age: bounds.max_age,
        tombstone_ttl: if keeps_latest(config) { bounds.tombstone_ttl } else { Age::UNLIMITED },
        compacted_until,
    })
}

/// Returns `None` if the id is not text, because then no publisher can have chosen it.
fn id_of(stored: log::RecoveredId) -> Option<StoredId> {
    let id = String::from_utf8(stored.id.into()).ok()?;
    Some(StoredId { id, offset: stored.offset, at: Timestamp(stored.at_ms) })
}
