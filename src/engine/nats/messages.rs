//! Messages between the cluster and the channels.

mod missed;

use std::{
    collections::{HashMap, HashSet},
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use async_nats::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    follow::{Handler, Item},
    known_ids,
    link::Link,
    names::{AT_HEADER, CLASSES, END, class_in, decode, encode},
    store::BUDGET,
    topics::Topics,
};
use crate::channel::{
    Age, Channel, Committed, Epoch, Feed, Headers, Key, KnownId, MessageId, NewMessage, Numbering, Payload, Timestamp,
};
use missed::{MissedMessages, Step};

/// The header of a message's key.
const KEY_HEADER: &str = "Pubsub-Key";

/// The header of the time that a message is kept at most, in milliseconds.
const TTL_HEADER: &str = "Pubsub-Ttl";

/// The header of a message that removes its key. Its value does not matter.
const REMOVED_HEADER: &str = "Pubsub-Removed";

/// The pause between two requests to the registry.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How many names without a topic are remembered, so that each costs only one request to the registry.
const MAX_ORPHANS: usize = 10_000;

/// The header of a message whose id was generated. Its value does not matter.
const GENERATED_ID_HEADER: &str = "Pubsub-Made-Up";

/// The header of an incarnation's end: the newest message that was removed with the topic.
const LAST_HEADER: &str = "Pubsub-Last";

/// The headers of a message. For most messages one header is enough: the topic's epoch and the id, which together are
/// what the cluster deduplicates. This includes generated ids, because an attempt without a response is repeated.
pub(super) fn headers(channel: &Channel, id: &MessageId, new_message: &NewMessage) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_MESSAGE_ID, format!("{}.{}", channel.epoch(), encode(id.as_str())));
    if new_message.id.is_none() {
        headers.insert(GENERATED_ID_HEADER, "1");
    }
    if let Some(key) = &new_message.key {
        headers.insert(KEY_HEADER, encode(key.as_str()));
    }
    if let Some(origin) = &new_message.origin {
        headers.insert(AT_HEADER, origin.at.0.to_string());
    }
    for (name, value) in new_message.headers.iter().flat_map(Headers::pairs) {
        // Both were checked when they were read: neither is ours or the cluster's.
        if let (Ok(name), Ok(value)) = (HeaderName::from_str(&name), HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    if let Some(ttl) = new_message.ttl {
        headers.insert(TTL_HEADER, ttl.as_millis().to_string());
    }
    if new_message.is_removal {
        headers.insert(REMOVED_HEADER, "1");
    }
    if let Some(expected) = new_message.expected_offset {
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
    }
    headers
}

/// The headers of an incarnation's end. They are the same from every instance, except for messages that an instance
/// does not know. No message has such an id.
pub(super) fn end_headers(channel: &Channel, last: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_MESSAGE_ID, format!("{}..end", channel.epoch()));
    headers.insert(LAST_HEADER, last.to_string());
    headers
}

/// What the headers say of a message: the epoch of its incarnation, whether the publisher chose the id, and the id.
struct MessageIdentity {
    epoch: Epoch,
    given_id: bool,
    id: Option<MessageId>,
}

fn identity_of(item: &Item) -> Option<MessageIdentity> {
    let (epoch, id) = item.header("Nats-Msg-Id")?.split_once('.')?;
    let epoch = Epoch::parse(epoch)?;
    let (given_id, id) = match id.split_once('.') {
        None => (item.header(GENERATED_ID_HEADER).is_none(), Some(id)),
        // Earlier versions wrote between the two who chose the id.
        Some((kind, id)) => (kind == "p", Some(id).filter(|_| ["p", "g"].contains(&kind))),
    };
    let id = id.and_then(decode).and_then(|id| MessageId::parse(&id).ok());
    Some(MessageIdentity { epoch, given_id, id })
}

/// Returns when the message was first published.
fn published_at(item: &Item) -> Timestamp {
    // A time beyond the calendar would stay with the topic for ever.
    let first = item.header(AT_HEADER).and_then(|at| jiff::Timestamp::from_millisecond(at.parse().ok()?).ok());
    first.map_or(item.at, |at| Timestamp(at.as_millisecond()))
}

/// The headers that the publisher gave: those that are neither ours nor the cluster's. Of others than this service, what is
/// no header to us is left out.
fn publishers_headers(headers: &HeaderMap) -> Option<Headers> {
    let all = headers.iter().filter_map(|(name, values)| Some((name.as_ref(), values.first()?.as_str())));
    Headers::fitting(all)
}

/// Decodes a message. Others than this service may publish into the stream. What they leave out is generated, and a
/// payload that is not JSON becomes a JSON string.
fn read(item: &Item, prev: u64) -> Committed {
    let (given_id, id) =
        identity_of(item).map_or((false, None), |identity| (identity.given_id && identity.id.is_some(), identity.id));
    let generated = || MessageId::parse(&format!("nats-{}", item.sequence)).unwrap_or_else(|_| MessageId::generate());
    let text = String::from_utf8_lossy(&item.payload);
    let existing = serde_json::from_str(&text).ok().and_then(|raw| Payload::existing(raw, usize::MAX).ok());
    let data = existing
        .map_or_else(|| Payload::parse(&serde_json::Value::from(&*text).to_string(), usize::MAX), Ok)
        .unwrap_or_else(|_| Payload::null());
    let key = item.header(KEY_HEADER).and_then(decode).and_then(|key| Key::parse(&key).ok());
    let at = published_at(item);
    let headers = item.headers.as_ref().and_then(publishers_headers);
    let ttl = item.header(TTL_HEADER).and_then(|ttl| ttl.parse().ok()).map(Age::from_millis);
    let ttl = ttl.filter(|ttl| !ttl.is_unlimited());
    let id = id.unwrap_or_else(generated);
    // Others than this service may have written it without a key, or with data.
    let is_removal = item.header(REMOVED_HEADER).is_some() && key.is_some() && data.as_str() == "null";
    Committed { offset: item.sequence, prev, at, id, given_id, key, data, headers, ttl, is_removal }
}

/// A message that belongs to no topic and will be deleted.
pub(super) struct Orphan {
    pub class: usize,
    pub sequence: u64,
    /// When it was stored.
    pub at: Timestamp,
}

/// Passes the messages of one stream to their channels.
pub(super) struct MessagesHandler {
    class: usize,
    link: Link,
    topics: Arc<Topics>,
    orphaned: mpsc::Sender<Orphan>,
    known_ids: Arc<known_ids::Stored>,
    /// Names and epochs that the registry did not have when it was asked.
    orphans: HashSet<(String, Option<Epoch>)>,
    mode: ReadMode,
}

/// What is known about losses while messages are read.
enum ReadMode {
    /// Nothing was lost: each message follows the last one.
    Live,
    /// The first read, with the number of messages of each topic.
    First(HashMap<String, u64>),
    /// Something was missed. The stream may have evicted the oldest messages of some topics, which is known only when
    /// everything that is left was read. So messages are collected before they are fed to the channels.
    CatchingUp(MissedMessages),
}

impl MessagesHandler {
    pub fn new(
        class: usize,
        link: Link,
        topics: Arc<Topics>,
        orphaned: mpsc::Sender<Orphan>,
        known_ids: Arc<known_ids::Stored>,
    ) -> Self {
        Self { class, link, topics, orphaned, known_ids, orphans: HashSet::new(), mode: ReadMode::Live }
    }

    /// Returns the incarnation that a message, an end or an id belongs to. The registry may be behind, so it is
    /// synced before the message counts as an orphan.
    async fn channel(&mut self, item: &Item) -> Option<Arc<Channel>> {
        let token = item.key.strip_suffix(END).or_else(|| known_ids::token(&item.key)).unwrap_or(&item.key);
        let epoch = identity_of(item).map(|identity| identity.epoch);
        let class = self.class;
        let fits =
            |channel: &Arc<Channel>| class_in(channel) == class && epoch.is_none_or(|epoch| epoch == channel.epoch());
        let open = |channel: &Arc<Channel>| !channel.is_closed();
        if let Some(channel) = self.topics.channel(token, fits).filter(open) {
            return Some(channel);
        }
        let orphan = (token.to_owned(), epoch);
        // A topic that was created later was found above.
        if self.orphans.contains(&orphan) {
            return None;
        }
        let begun = Instant::now();
        let channel = loop {
            // No message may be dropped because the registry cannot be read right now.
            while let Err(error) = self.topics.sync(&self.link).await {
                tracing::debug!(%error, "the registry could not be read; it is tried again");
                sleep(RETRY_PAUSE).await;
            }
            let found = self.topics.channel(token, fits);
            // A topic that this instance tries to release is either deleted or comes back because another instance
            // needs it.
            let undecided = |channel: &Arc<Channel>| !open(channel) && self.topics.is_alive(token, channel.epoch());
            if !found.as_ref().is_some_and(undecided) || begun.elapsed() > BUDGET {
                break found.filter(open);
            }
            sleep(RETRY_PAUSE / 10).await;
        };
        if channel.is_none() {
            if self.orphans.len() >= MAX_ORPHANS {
                self.orphans.clear();
            }
            self.orphans.insert(orphan);
        }
        channel
    }

    /// Reports a message that was published while its topic was being deleted. If it cannot be queued now, the next
    /// start finds it again. Messages that others have published without a topic are not deleted.
    fn report_orphan(&self, item: &Item) {
        if identity_of(item).is_some() {
            let _ = self.orphaned.try_send(Orphan { class: self.class, sequence: item.sequence, at: item.at });
        }
    }

    /// Handles an id without a message.
    async fn remember(&mut self, item: &Item) {
        let Some(channel) = self.channel(item).await else { return self.report_orphan(item) };
        self.known_ids.note(self.class, item);
        if let Some(id) = identity_of(item).and_then(|identity| identity.id) {
            // If its topic was deleted meanwhile, the id is not needed.
            let _ = channel.remember(&[KnownId { id, at: published_at(item) }]);
        }
    }

    async fn feed(&mut self, channel: &Arc<Channel>, item: &Item) {
        if let Some(last) = end_of(item) {
            // Messages that were removed before they were read here.
            channel.skip_to(last);
            return self.topics.end(channel);
        }
        // The stream is read without a gap, so the message follows the channel's newest one.
        let fed = channel.feed(read(item, channel.last()));
        if fed == Feed::Closed {
            // The topic may exist again under the same epoch.
            match self.channel(item).await {
                Some(channel) => _ = channel.feed(read(item, channel.last())),
                None => self.report_orphan(item),
            }
        }
    }
}

/// Returns the newest message that was removed with the topic, if this is an incarnation's end.
fn end_of(item: &Item) -> Option<u64> {
    item.key.ends_with(END).then(|| item.header(LAST_HEADER).and_then(|last| last.parse().ok()).unwrap_or(0))
}

impl Handler for MessagesHandler {
    fn identify(&mut self, created: i128) {
        // A stream that was created again is another log, whose sequence numbers begin again.
        if let Some(index) = CLASSES.iter().position(|class| *class == self.class) {
            self.topics.registry.sequencer(index).begin(Epoch::from_bits(created.unsigned_abs() as u64), 0);
        }
    }

    fn begin(&mut self, first: bool) {
        self.mode =
            if first { ReadMode::First(HashMap::new()) } else { ReadMode::CatchingUp(MissedMessages::default()) };
    }

    async fn take(&mut self, item: Item) {
        if known_ids::token(&item.key).is_some() {
            return self.remember(&item).await;
        }
        let channel = self.channel(&item).await;
        if let ReadMode::First(counts) = &mut self.mode {
            *counts.entry(item.key.clone()).or_default() += 1;
        }
        let Some(channel) = channel else { return self.report_orphan(&item) };
        match &mut self.mode {
            ReadMode::CatchingUp(missed_messages) => missed_messages.add(channel, item, end_of),
            ReadMode::Live | ReadMode::First(_) => self.feed(&channel, &item).await,
        }
    }

    async fn end(&mut self, late: u64) {
        match std::mem::replace(&mut self.mode, ReadMode::Live) {
            ReadMode::Live => {}
            ReadMode::First(counts) => {
                // If fewer messages of a topic are found than the stream keeps, the topic has lost nothing since it
                // was created.
                for channel in self.topics.registry.all() {
                    if class_in(&channel) == self.class {
                        let whole = counts.get(&encode(channel.name().as_str())).copied().unwrap_or(0) + late
                            <= self.class as u64;
                        channel.set_numbering(Numbering { before: whole.then_some(0), ..Numbering::SPARSE });
                    }
                }
            }
            ReadMode::CatchingUp(missed_messages) => {
                for (sequence, channel, step) in missed_messages.in_order(self.class, late) {
                    match step {
                        Step::Skip => channel.skip_to(sequence),
                        Step::Feed(item) => self.feed(&channel, &item).await,
                    }
                }
            }
        }
    }

    fn reset(&mut self) {
        // Offsets of the old stream mean nothing in the new one, so each of its topics begins another incarnation.
        self.mode = ReadMode::Live;
        self.known_ids.reset(self.class);
        self.topics.end_class(self.class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, generated: bool) -> Item {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, id);
        if generated {
            headers.insert(GENERATED_ID_HEADER, "1");
        }
        let payload = bytes::Bytes::from_static(b"1");
        Item { sequence: 7, key: "a".to_owned(), headers: Some(headers), payload, at: Timestamp(0) }
    }

    #[test]
    fn an_id_is_read_whoever_chose_it() {
        let read = |id: &str, generated| {
            let message = read(&item(id, generated), 0);
            (message.id.as_str().to_owned(), message.given_id)
        };
        assert_eq!(read("0123456789abcdef.a=20b", false), ("a b".to_owned(), true));
        assert_eq!(read("0123456789abcdef.a=20b", true), ("a b".to_owned(), false));
        // The form of earlier versions.
        assert_eq!(read("0123456789abcdef.p.a", false), ("a".to_owned(), true));
        assert_eq!(read("0123456789abcdef.g.a", false), ("a".to_owned(), false));
        // Messages of other services.
        for id in ["", "a", "0123456789abcdef.", "0123456789abcdef..end", "0123456789abcdef.=2"] {
            assert_eq!(read(id, false), ("nats-7".to_owned(), false), "{id}");
        }
    }

    #[test]
    fn a_message_says_how_long_it_is_kept() {
        let mut short = item("0123456789abcdef.a", false);
        assert_eq!(read(&short, 0).ttl, None);
        for (text, ttl) in [("1500", Some(Age::from_millis(1_500))), ("0", None), ("soon", None)] {
            short.headers.get_or_insert_default().insert(TTL_HEADER, text);
            assert_eq!(read(&short, 0).ttl, ttl, "{text}");
        }
    }

    #[test]
    fn an_end_is_no_message() {
        let mut end = item("0123456789abcdef..end", false);
        assert_eq!(end_of(&end), None);
        end.key = format!("a{END}");
        assert_eq!(
            (end_of(&end), identity_of(&end).map(|identity| identity.epoch.to_string())),
            (Some(0), Some("0123456789abcdef".into()))
        );
    }
}
