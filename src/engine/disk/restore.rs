//! From the log back into channels.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use tokio::sync::oneshot;

use super::{
    CommitReply, Committer, DiskHealth, Log, Token, deletion,
    log::{self, OpenError, Record, RecoveredMessage, RecoveredTopic},
    save::save,
};
use crate::{
    channel::{
        Age, Channel, Consumer, ConsumerKey, ConsumerName, Consumers, Deletion, Epoch, Headers, Incarnation, Key,
        MessageId, NewMessage, Numbering, Payload, Reclaimed, Registry, Remembered, Restoring, Source, Timestamp,
        TopicConfig, TopicName,
    },
    engine::position,
};

/// After a failure of the disk, publishers get the error `UNKNOWN` with the id under which to publish the message again.
/// So after an end that was not orderly, the ids of the newest records are known even if the server made them. This many,
/// so that they take little memory however long the histories are.
const RETRIED: u64 = 16_384;

/// Opens the log and brings what it holds into the registry and the consumers. Answers the running log, and the highest
/// key of a topic that was ever used as far as the log knows.
///
/// # Errors
/// [`OpenError`].
pub(super) fn open(
    directory: &Path,
    settings: log::LogConfig,
    registry: &Arc<Registry>,
    consumers: &Arc<Consumers>,
    health: Arc<DiskHealth>,
) -> Result<(Arc<Log<Token>>, u64), OpenError> {
    let defaults = registry.defaults();
    let keep = |settings: &[u8]| TopicConfig::decode(settings).map_or(1, |config| config.bounds(defaults).max_messages);
    let (recovered, ready) = Log::<Token>::open(directory, settings, &keep)?;
    report(&recovered);
    registry.sequencer(0).begin(Epoch::from_bits(recovered.identity), recovered.next_sequence.saturating_sub(1));
    remember_deletions(&recovered, registry);
    // A clock that was set back since must not bring back what was too old.
    registry.clock().know(newest_time(&recovered));
    let held = restore_consumers(&recovered, consumers);
    let highest = recovered.highest_id;
    let (mut unused, mut evicted) = (Vec::new(), Vec::new());
    let retried_from = if recovered.clean { u64::MAX } else { newest_sequence(&recovered).saturating_sub(RETRIED) };
    for topic in recovered.topics {
        let (id, implicit, settings, known) = (topic.id, topic.implicit, topic.settings.clone(), topic.floor);
        let Some((channel, over)) = restore(topic, registry, retried_from) else { continue };
        if is_unused(&channel, consumers) && registry.remove_unused(&channel, || {}) {
            unused.push(channel);
            continue;
        }
        ready.forget(id, &over.within);
        ready.trim(id, channel.floor() + 1);
        let floor = channel.history_floor();
        if floor > known {
            evicted.push((id, implicit, settings, floor));
        }
    }
    registry.clock().know(Timestamp(i64::MIN));
    let slot = Arc::new(OnceLock::new());
    let committer = Committer::new(registry.clone(), health, slot.clone());
    let log = Arc::new(ready.start(Box::new(committer))?);
    let _ = slot.set(Arc::downgrade(&log));
    for consumer in held {
        // No subscription has it any more, so its time runs from now on. That is saved, so that a further start does
        // not begin the time again.
        if consumer.saving.moved() {
            save(&log, &consumer);
        }
    }
    for channel in unused {
        // If the removal is not stored, the next start finds the topic unused again.
        let _ = log.append(&deletion(&channel, 0), Token::Nothing);
    }
    let mut stored = None;
    for (topic_id, implicit, settings, floor) in evicted {
        // A bound is lower than it was. What was evicted for that must not come back when the bound is raised again.
        let (reply, outcome) = oneshot::channel();
        let token = Token::Saved(CommitReply(reply));
        let record = Record::TopicUpdated { topic_id, implicit, floor, compacted_until: 0, settings: &settings };
        stored = log.append(&record, token).is_ok().then_some(outcome);
    }
    // Nobody is shown the shorter history before that is stored, or else a kill would bring the rest back afterwards. The
    // records are stored in order, so the last one speaks for all. A disk that is full says so in its health.
    if let Some(outcome) = stored {
        let _ = outcome.blocking_recv();
    }
    Ok((log, highest))
}

/// Topics that were deleted, for whoever comes back to a pattern.
fn remember_deletions(recovered: &log::Recovered, registry: &Registry) {
    for deletion in &recovered.deletions {
        if let (Ok(name), 1..) = (TopicName::parse(&deletion.name), deletion.newest_sequence) {
            registry.remember_deletion(Deletion {
                name,
                epoch: Epoch::from_bits(deletion.epoch),
                log: 0,
                newest_sequence: deletion.newest_sequence,
                newest_offset: None,
            });
        }
    }
}

/// Brings the consumers back; returns those that subscriptions had when the server ended.
fn restore_consumers(recovered: &log::Recovered, consumers: &Consumers) -> Vec<Arc<Consumer>> {
    let mut held = Vec::new();
    for kept in &recovered.consumers {
        let key = Source::parse(&kept.source)
            .and_then(|source| Ok(ConsumerKey { source, name: ConsumerName::from_stored(&kept.name)? }));
        if let (Ok(key), Some((mut position, holder))) = (key, position::decode(&kept.blob)) {
            if holder.is_empty() {
                consumers.restore(&key, &position);
            } else {
                // Nobody knows when the server ended, so the consumer counts as used until now.
                position.used_at = Timestamp::now();
                held.push(consumers.restore(&key, &position));
            }
        }
    }
    held
}

/// What is not as it was left is said once, here.
fn report(recovered: &log::Recovered) {
    let (topics, consumers) = (recovered.topics.len(), recovered.consumers.len());
    let messages: usize = recovered.topics.iter().map(|topic| topic.messages.len()).sum();
    tracing::info!(topics, messages, consumers, reads = recovered.reads, clean = recovered.clean, "the log was read");
    if recovered.truncated_bytes > 0 {
        let bytes = recovered.truncated_bytes;
        match &recovered.kept {
            Some(Ok(file)) => {
                tracing::warn!(
                    bytes,
                    file,
                    "a write that a crash tore was cut off the log and is kept in a file beside it"
                );
            }
            Some(Err(error)) => {
                tracing::warn!(bytes, error, "a write that a crash tore was cut off the log and could not be kept");
            }
            None => tracing::warn!(bytes, "a segment that was only begun is begun again"),
        }
    }
    if recovered.identity_lost {
        tracing::warn!("the log had lost its identity file and has a new one: positions over all topics begin again");
    }
    if !recovered.whole {
        tracing::warn!(
            "the log may have lost messages at its end that were acknowledged; offsets go on behind those, and subscribers \
             are told"
        );
    }
}

fn is_unused(channel: &Channel, consumers: &Consumers) -> bool {
    channel.is_implicit() && !consumers.any(&Source::Topic(channel.name().clone()))
}

/// When the newest message in the log was published.
fn newest_time(recovered: &log::Recovered) -> Timestamp {
    let newest = recovered.topics.iter().filter_map(|topic| Some(topic.messages.last()?.at_ms));
    Timestamp(newest.max().unwrap_or(i64::MIN))
}

/// The number of the newest message in the log.
fn newest_sequence(recovered: &log::Recovered) -> u64 {
    let newest = recovered.topics.iter().filter_map(|topic| Some(topic.messages.last()?.sequence));
    newest.max().unwrap_or(0)
}

/// Brings one topic back, if this version understands it. Returns what was over by then, too. The ids of messages behind
/// `retried_from` in the log count as their publishers' ids.
fn restore(mut topic: RecoveredTopic, registry: &Registry, retried_from: u64) -> Option<(Arc<Channel>, Reclaimed)> {
    let Ok(name) = TopicName::parse(&topic.name) else {
        tracing::error!(
            name = topic.name,
            "the log has a topic of a name that this version does not allow; it is left alone"
        );
        return None;
    };
    let Some(config) = TopicConfig::decode(&topic.settings) else {
        tracing::error!(topic = %name, "the log has a topic whose settings cannot be read; it is left alone");
        return None;
    };
    let (epoch, created_at) = (Epoch::from_bits(topic.epoch), Timestamp(topic.created_at_ms));
    let incarnation =
        Incarnation { name, epoch, created_at, implicit: topic.implicit, config, serial: Some(topic.id), log: 0 };
    let Ok(channel) = registry.insert(incarnation, |_| Ok(())) else { return None };
    let mut history = channel.restore();
    let holes_until = begin_history(&topic, &mut history);
    for stored in &topic.ids {
        if let Some(id) = std::str::from_utf8(&stored.id).ok().and_then(|id| MessageId::parse(id).ok()) {
            history.remember_id(&id, Remembered { offset: stored.offset, at: Timestamp(stored.at_ms) });
        }
    }
    for message in std::mem::take(&mut topic.messages) {
        if message.prev < holes_until {
            history.pass_compacted(message.prev, message.prev_sequence);
        }
        // Within an epoch offsets grow by one, except where a start skipped some because the log's end may have lost
        // messages.
        history.skip_to(message.offset.saturating_sub(1));
        let given_id = message.id_is_given || message.sequence > retried_from;
        match message_of(&message) {
            Some(stored) if message.is_hollow => {
                history.feed_hollow(message.offset, message.sequence, Timestamp(message.at_ms), given_id, stored);
            }
            Some(stored) => {
                history.feed(message.offset, message.sequence, Timestamp(message.at_ms), given_id, stored);
            }
            None => tracing::error!(topic = %channel.name(), "the log has a message that cannot be read; it is lost"),
        }
    }
    if topic.last_offset < holes_until {
        history.pass_compacted(topic.last_offset, topic.last_sequence);
    }
    history.skip_to(topic.next_offset.saturating_sub(1));
    let over = history.end();
    Some((channel, over))
}

/// Says where a topic's history begins. Returns the offset below which messages may be missing between others, because
/// newer ones of their keys have replaced them.
fn begin_history(topic: &RecoveredTopic, history: &mut Restoring<'_>) -> u64 {
    let first = topic.messages.first();
    // Behind the newest of each key there may be a history; and where these have left, there is nothing else.
    let holes_until = topic.compacted_until.saturating_add(1);
    let has_holes = first.map_or(topic.compacted_until == u64::MAX, |first| first.offset < holes_until);
    let numbering = |last| Numbering { dense_from: topic.dense_from, before: (topic.dense_from == 0).then_some(last) };
    if has_holes {
        let sequence = first.map_or(topic.last_sequence, |first| first.prev_sequence);
        history.begin_with_holes(topic.floor, numbering(topic.floor), sequence);
        return holes_until;
    }
    let (newest, last) =
        first.map_or((topic.last_offset, topic.last_offset), |first| (first.prev, first.offset.saturating_sub(1)));
    // Where no message is left, no reader can stand behind one.
    history.begin(newest, last, numbering(last), first.map_or(0, |first| first.prev_sequence));
    if let Some(oldest) = topic.evicted.first() {
        // The history begins before what was evicted, so that gaps can count it.
        let evicted = topic.evicted.iter().map(|stored| (stored.offset, Timestamp(stored.at_ms), stored.sequence));
        history.remember_evicted((oldest.prev, oldest.prev_sequence), evicted);
    }
    0
}

fn message_of(stored: &RecoveredMessage) -> Option<NewMessage> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    Some(NewMessage {
        id: Some(MessageId::parse(text(&stored.id)?).ok()?),
        key: match &stored.key {
            Some(key) => Some(Key::parse(text(key)?).ok()?),
            None => None,
        },
        headers: match &stored.headers {
            Some(headers) => Some(Headers::stored(text(headers)?)),
            None => None,
        },
        ttl: Some(Age::from_millis(stored.ttl_ms)).filter(|ttl| !ttl.is_unlimited()),
        is_removal: stored.is_removal,
        ..NewMessage::of(if stored.is_hollow { Payload::null() } else { Payload::stored(text(&stored.data)?) })
    })
}
