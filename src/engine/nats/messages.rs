//! Messages between the cluster and the channels.

mod gather;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_nats::{HeaderMap, header};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    follow::{Handler, Item},
    known_ids,
    link::Link,
    names::{CLASSES, END, decode, encode},
    store::BUDGET,
    topics::Topics,
};
use crate::channel::{
    Channel, Committed, Epoch, Feed, Key, KnownId, MessageId, NewMessage, Numbering, Payload, Timestamp,
};
use gather::{Due, Gathered};

/// The header of a message's key.
const KEY: &str = "Pubsub-Key";

/// The header of the time at which a message was first published, in milliseconds since 1970, where that is not when the
/// stream got it.
pub(super) const AT: &str = "Pubsub-At";

/// What is waited between two questions to the registry.
const PAUSE: Duration = Duration::from_millis(250);

/// Names that are remembered as belonging to no topic, so that each costs the registry one question.
const MAX_ORPHANS: usize = 10_000;

/// The header of a message whose id is made up: its value does not matter.
const MADE_UP: &str = "Pubsub-Made-Up";

/// The header of an incarnation's end: the newest message that was removed with the topic.
const LAST: &str = "Pubsub-Last";

/// The headers of a message. One says most of what most messages have to say: the topic's incarnation and the id, which together are
/// what the cluster stores once. Whoever has made the id up: a publisher that did not get its answer repeats it.
pub(super) fn headers(channel: &Channel, id: &MessageId, new_message: &NewMessage) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_MESSAGE_ID, format!("{}.{}", channel.epoch(), encode(id.as_str())));
    if new_message.id.is_none() {
        headers.insert(MADE_UP, "1");
    }
    if let Some(key) = &new_message.key {
        headers.insert(KEY, encode(key.as_str()));
    }
    if let Some(origin) = &new_message.origin {
        headers.insert(AT, origin.at.0.to_string());
    }
    if let Some(expected) = new_message.expected_offset {
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
    }
    headers
}

/// The headers of an incarnation's end: the same from every instance, but for what an instance does not know. No message has such an
/// id.
pub(super) fn end_headers(channel: &Channel, last: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_MESSAGE_ID, format!("{}..end", channel.epoch()));
    headers.insert(LAST, last.to_string());
    headers
}

/// What this service says of a message: the incarnation that it belongs to, whether its id is the publisher's, and the id.
struct Own {
    epoch: Epoch,
    given_id: bool,
    id: Option<MessageId>,
}

fn own(item: &Item) -> Option<Own> {
    let (epoch, id) = item.header("Nats-Msg-Id")?.split_once('.')?;
    let epoch = Epoch::parse(epoch)?;
    let (given_id, id) = match id.split_once('.') {
        None => (item.header(MADE_UP).is_none(), Some(id)),
        // Earlier versions said between the two whose the id is.
        Some((kind, id)) => (kind == "p", Some(id).filter(|_| ["p", "g"].contains(&kind))),
    };
    let id = id.and_then(decode).and_then(|id| MessageId::parse(&id).ok());
    Some(Own { epoch, given_id, id })
}

/// When the message was first published.
fn published_at(item: &Item) -> Timestamp {
    // Times beyond the calendar would stay with the topic for ever.
    let first = item.header(AT).and_then(|at| jiff::Timestamp::from_millisecond(at.parse().ok()?).ok());
    first.map_or(item.at, |at| Timestamp(at.as_millisecond()))
}

/// The message. Others than this service may publish into the stream: what they leave out is made up, and what is not JSON
/// becomes a JSON string.
fn read(item: &Item, prev: u64) -> Committed {
    let (given_id, id) = own(item).map_or((false, None), |own| (own.given_id && own.id.is_some(), own.id));
    let made_up = || MessageId::parse(&format!("nats-{}", item.sequence)).unwrap_or_else(|_| MessageId::generate());
    let text = String::from_utf8_lossy(&item.payload);
    let existing = serde_json::from_str(&text).ok().and_then(|raw| Payload::existing(raw, usize::MAX).ok());
    let data = existing
        .map_or_else(|| Payload::parse(&serde_json::Value::from(&*text).to_string(), usize::MAX), Ok)
        .unwrap_or_else(|_| Payload::null());
    let key = item.header(KEY).and_then(decode).and_then(|key| Key::parse(&key).ok());
    let at = published_at(item);
    Committed { offset: item.sequence, prev, at, id: id.unwrap_or_else(made_up), given_id, key, data }
}

/// A message that belongs to no topic, to be deleted.
pub(super) struct Orphan {
    pub class: usize,
    pub sequence: u64,
    /// When it was stored.
    pub at: Timestamp,
}

/// Brings the messages of one stream to their channels.
pub(super) struct MessagesHandler {
    class: usize,
    link: Link,
    topics: Arc<Topics>,
    orphaned: mpsc::Sender<Orphan>,
    known_ids: Arc<known_ids::Stored>,
    /// What was asked about and belongs to no topic.
    orphans: HashSet<(String, Option<Epoch>)>,
    mode: Mode,
}

/// What is known about losses while messages are read.
enum Mode {
    /// Nothing is lost: what is taken follows what was taken before.
    Live,
    /// The first time: how many of each topic there are.
    First(HashMap<String, u64>),
    /// Something was missed. Of some topics the oldest may be gone by now, which shows when all that is left was read: so it
    /// is gathered before it is fed.
    Gathering(Gathered),
}

impl MessagesHandler {
    pub fn new(
        class: usize,
        link: Link,
        topics: Arc<Topics>,
        orphaned: mpsc::Sender<Orphan>,
        known_ids: Arc<known_ids::Stored>,
    ) -> Self {
        Self { class, link, topics, orphaned, known_ids, orphans: HashSet::new(), mode: Mode::Live }
    }

    /// The incarnation that a message, an end or an id belongs to. The registry may be behind: then it is asked first.
    async fn channel(&mut self, item: &Item) -> Option<Arc<Channel>> {
        let token = item.key.strip_suffix(END).or_else(|| known_ids::token(&item.key)).unwrap_or(&item.key);
        let epoch = own(item).map(|own| own.epoch);
        let key = self.class as u64;
        let fits = |channel: &Arc<Channel>| channel.key == key && epoch.is_none_or(|epoch| epoch == channel.epoch());
        let open = |channel: &Arc<Channel>| !channel.ring.lock().closed;
        if let Some(channel) = self.topics.channel(token, fits).filter(open) {
            return Some(channel);
        }
        let orphan = (token.to_owned(), epoch);
        // A topic that is made later is found before this is looked at.
        if self.orphans.contains(&orphan) {
            return None;
        }
        let begun = Instant::now();
        let channel = loop {
            // Nothing may be dropped because the registry cannot be asked right now.
            while let Err(error) = self.topics.sync(&self.link).await {
                tracing::debug!(%error, "the registry is asked again");
                sleep(PAUSE).await;
            }
            let found = self.topics.channel(token, fits);
            // One that this instance tries to forget goes, or comes back because another one needs it.
            let undecided = |channel: &Arc<Channel>| !open(channel) && self.topics.is_alive(token, channel.epoch());
            if !found.as_ref().is_some_and(undecided) || begun.elapsed() > BUDGET {
                break found.filter(open);
            }
            sleep(PAUSE / 10).await;
        };
        if channel.is_none() {
            if self.orphans.len() >= MAX_ORPHANS {
                self.orphans.clear();
            }
            self.orphans.insert(orphan);
        }
        channel
    }

    /// Published while its topic was being deleted. If it cannot be noted now, the next start finds it. What others have
    /// published without a topic is not ours to delete.
    fn leave(&self, item: &Item) {
        if own(item).is_some() {
            let _ = self.orphaned.try_send(Orphan { class: self.class, sequence: item.sequence, at: item.at });
        }
    }

    /// An id without a message.
    async fn remember(&mut self, item: &Item) {
        let Some(channel) = self.channel(item).await else { return self.leave(item) };
        self.known_ids.note(self.class, item);
        if let Some(id) = own(item).and_then(|own| own.id) {
            // If its topic is gone by now, so is the id.
            let _ = channel.remember(&[KnownId { id, at: published_at(item) }]);
        }
    }

    async fn feed(&mut self, channel: &Arc<Channel>, item: &Item) {
        if let Some(last) = end_of(item) {
            // What was removed before it was read here.
            channel.skip_to(last);
            return self.topics.end(channel);
        }
        // The stream has no holes as it is read, so the message follows the channel's newest.
        let fed = channel.feed(read(item, channel.last()));
        if fed == Feed::Closed {
            // It may be here again under the same epoch.
            match self.channel(item).await {
                Some(channel) => _ = channel.feed(read(item, channel.last())),
                None => self.leave(item),
            }
        }
    }
}

/// Whether this is an incarnation's end: then, the newest message that was removed with the topic.
fn end_of(item: &Item) -> Option<u64> {
    item.key.ends_with(END).then(|| item.header(LAST).and_then(|last| last.parse().ok()).unwrap_or(0))
}

impl Handler for MessagesHandler {
    fn identify(&mut self, created: i128) {
        // A stream that is made again is another log, whose numbers begin again.
        if let Some(index) = CLASSES.iter().position(|class| *class == self.class) {
            self.topics.registry.sequencer(index).begin(Epoch::from_bits(created.unsigned_abs() as u64), 0);
        }
    }

    fn begin(&mut self, first: bool) {
        self.mode = if first { Mode::First(HashMap::new()) } else { Mode::Gathering(Gathered::default()) };
    }

    async fn take(&mut self, item: Item) {
        if known_ids::token(&item.key).is_some() {
            return self.remember(&item).await;
        }
        let channel = self.channel(&item).await;
        if let Mode::First(counts) = &mut self.mode {
            *counts.entry(item.key.clone()).or_default() += 1;
        }
        let Some(channel) = channel else { return self.leave(&item) };
        match &mut self.mode {
            Mode::Gathering(gathered) => gathered.add(channel, item, end_of),
            Mode::Live | Mode::First(_) => self.feed(&channel, &item).await,
        }
    }

    async fn end(&mut self, late: u64) {
        match std::mem::replace(&mut self.mode, Mode::Live) {
            Mode::Live => {}
            Mode::First(counts) => {
                // A topic of which less is found than the stream keeps has lost nothing since it was made.
                for channel in self.topics.registry.all() {
                    let token = channel.label.get().map(|label| &**label).unwrap_or_default();
                    if channel.key == self.class as u64 {
                        let whole = counts.get(token).copied().unwrap_or(0) + late <= self.class as u64;
                        channel.ring.lock().numbering = Numbering { before: whole.then_some(0), ..Numbering::SPARSE };
                    }
                }
            }
            Mode::Gathering(gathered) => {
                for (sequence, channel, due) in gathered.in_order(self.class, late) {
                    match due {
                        Due::Skip => channel.skip_to(sequence),
                        Due::Feed(item) => self.feed(&channel, &item).await,
                    }
                }
            }
        }
    }

    fn reset(&mut self) {
        // Positions in the old stream mean nothing in the new one: every topic of it begins another incarnation.
        self.mode = Mode::Live;
        self.known_ids.reset(self.class);
        self.topics.end_class(self.class as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, made_up: bool) -> Item {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, id);
        if made_up {
            headers.insert(MADE_UP, "1");
        }
        let payload = bytes::Bytes::from_static(b"1");
        Item { sequence: 7, key: "a".to_owned(), headers: Some(headers), payload, at: Timestamp(0) }
    }

    #[test]
    fn an_id_is_read_whoever_has_given_it() {
        let read = |id: &str, made_up| {
            let message = read(&item(id, made_up), 0);
            (message.id.as_str().to_owned(), message.given_id)
        };
        assert_eq!(read("0123456789abcdef.a=20b", false), ("a b".to_owned(), true));
        assert_eq!(read("0123456789abcdef.a=20b", true), ("a b".to_owned(), false));
        // As earlier versions have written it.
        assert_eq!(read("0123456789abcdef.p.a", false), ("a".to_owned(), true));
        assert_eq!(read("0123456789abcdef.g.a", false), ("a".to_owned(), false));
        // Of others than this service.
        for id in ["", "a", "0123456789abcdef.", "0123456789abcdef..end", "0123456789abcdef.=2"] {
            assert_eq!(read(id, false), ("nats-7".to_owned(), false), "{id}");
        }
    }

    #[test]
    fn an_end_is_no_message() {
        let mut end = item("0123456789abcdef..end", false);
        assert_eq!(end_of(&end), None);
        end.key = format!("a{END}");
        assert_eq!(
            (end_of(&end), own(&end).map(|own| own.epoch.to_string())),
            (Some(0), Some("0123456789abcdef".into()))
        );
    }
}
