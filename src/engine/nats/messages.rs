//! Messages between the cluster and the channels.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_nats::{HeaderMap, header};
use tokio::{sync::mpsc, time::sleep};

use super::{
    follow::{Handler, Item},
    link::Link,
    names::{decode, encode},
    topics::Topics,
};
use crate::channel::{Channel, Committed, Draft, Epoch, Feed, Key, MessageId, Numbering, Payload, Timestamp};

/// The header of a message's key.
const KEY: &str = "Pubsub-Key";

/// The header of the time at which a message was first published, in milliseconds since 1970, where that is not when the
/// stream got it.
const AT: &str = "Pubsub-At";

/// Names that are remembered as belonging to no topic, so that each costs the registry one question.
const MAX_ORPHANS: usize = 10_000;

/// The headers of a message. One says all that most messages have to say: the topic's life, whether the id is the
/// publisher's, and the id, which together are what the cluster stores once.
pub(super) fn headers(channel: &Channel, id: &MessageId, draft: &Draft) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let kind = if draft.id.is_some() { 'p' } else { 'g' };
    headers.insert(header::NATS_MESSAGE_ID, format!("{}.{kind}.{}", channel.epoch(), encode(id.as_str())));
    if let Some(key) = &draft.key {
        headers.insert(KEY, encode(key.as_str()));
    }
    if let Some(origin) = &draft.origin {
        headers.insert(AT, origin.at.0.to_string());
    }
    if let Some(expected) = draft.expected_offset {
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
    }
    headers
}

/// The life that a message belongs to, if it says so, and the message. Others than this service may publish into the
/// stream: what they leave out is made up, and what is not JSON becomes a JSON string.
fn read(item: &Item, prev: u64) -> (Option<Epoch>, Committed) {
    let own = item.header("Nats-Msg-Id").and_then(|text| {
        let (epoch, rest) = text.split_once('.')?;
        let (kind, id) = rest.split_once('.')?;
        Some((Epoch::parse(epoch)?, kind == "p", MessageId::parse(&decode(id)?).ok()?))
    });
    let (epoch, given_id, id) = match own {
        Some((epoch, given, id)) => (Some(epoch), given, Some(id)),
        None => (None, false, None),
    };
    let made_up = || MessageId::parse(&format!("nats-{}", item.sequence)).unwrap_or_else(|_| MessageId::generate());
    let text = String::from_utf8_lossy(&item.payload);
    let data = Payload::parse(&text, usize::MAX)
        .or_else(|_| Payload::parse(&serde_json::Value::from(&*text).to_string(), usize::MAX))
        .unwrap_or_else(|_| Payload::null());
    let key = item.header(KEY).and_then(decode).and_then(|key| Key::parse(&key).ok());
    // Times beyond the calendar would stay with the topic for ever.
    let first = item.header(AT).and_then(|at| jiff::Timestamp::from_millisecond(at.parse().ok()?).ok());
    let at = first.map_or(item.at, |at| Timestamp(at.as_millisecond()));
    let message = Committed { offset: item.sequence, prev, at, id: id.unwrap_or_else(made_up), given_id, key, data };
    (epoch, message)
}

/// Brings the messages of one stream to their channels.
pub(super) struct MessagesHandler {
    class: usize,
    link: Link,
    topics: Arc<Topics>,
    /// Messages of no topic, to be deleted.
    orphaned: mpsc::Sender<(usize, u64)>,
    /// What was asked about and belongs to no topic.
    orphans: HashSet<(String, Option<Epoch>)>,
    mode: Mode,
}

/// What is known about losses while messages are read.
enum Mode {
    /// Nothing can be lost: what is taken follows what was taken before.
    Whole,
    /// The first time: how many of each topic there are.
    First(HashMap<String, usize>),
    /// So much was missed that of some topics the oldest may be gone: each one's messages are gathered before they are
    /// fed.
    Gathering(HashMap<String, Gathered>),
}

#[derive(Default)]
struct Gathered {
    /// All that came.
    count: usize,
    bytes: usize,
    newest: VecDeque<Item>,
}

impl MessagesHandler {
    pub fn new(class: usize, link: Link, topics: Arc<Topics>, orphaned: mpsc::Sender<(usize, u64)>) -> Self {
        Self { class, link, topics, orphaned, orphans: HashSet::new(), mode: Mode::Whole }
    }

    /// The channel that a message belongs to. The registry may be behind: then it is asked first.
    async fn channel(&mut self, token: &str, epoch: Option<Epoch>) -> Option<Arc<Channel>> {
        let fits = |channel: &Arc<Channel>| {
            channel.key == self.class as u64 && epoch.is_none_or(|epoch| epoch == channel.epoch())
        };
        if let Some(channel) = self.topics.channel(token).filter(fits) {
            return Some(channel);
        }
        let orphan = (token.to_owned(), epoch);
        // A topic that is made later is found before this is looked at.
        if self.orphans.contains(&orphan) {
            return None;
        }
        // Nothing may be dropped because the registry cannot be asked right now.
        while let Err(error) = self.topics.sync(&self.link).await {
            tracing::debug!(%error, "the registry is asked again");
            sleep(Duration::from_millis(250)).await;
        }
        let channel = self.topics.channel(token).filter(fits);
        if channel.is_none() {
            if self.orphans.len() >= MAX_ORPHANS {
                self.orphans.clear();
            }
            self.orphans.insert(orphan);
        }
        channel
    }

    async fn feed(&mut self, item: Item) {
        let (epoch, message) = read(&item, 0);
        let Some(channel) = self.channel(&item.key, epoch).await else {
            // Published while its topic was being deleted. If it cannot be noted now, the next start finds it. What others
            // have published without a topic is not ours to delete.
            if epoch.is_some() {
                let _ = self.orphaned.try_send((self.class, item.sequence));
            }
            return;
        };
        // The stream has no holes as it is read, so the message follows the channel's newest.
        let message = Committed { prev: channel.last(), ..message };
        if channel.feed(message) == Feed::Closed {
            let _ = self.orphaned.try_send((self.class, item.sequence));
        }
    }

    /// The stream keeps one message more of each topic than any of its topics may: so where that many are found, older ones
    /// are gone.
    fn kept(&self) -> usize {
        self.class + 1
    }

    fn gather(gathered: &mut HashMap<String, Gathered>, item: Item, channel: Option<&Channel>) {
        const MAX_BYTES: usize = 64 << 20;
        let most = channel.map_or(0, Channel::max_messages);
        let topic = gathered.entry(item.key.clone()).or_default();
        topic.count += 1;
        topic.bytes += item.payload.len();
        topic.newest.push_back(item);
        while topic.newest.len() > most + 1 || (topic.bytes > MAX_BYTES && topic.newest.len() > 1) {
            topic.bytes -= topic.newest.pop_front().map_or(0, |item| item.payload.len());
        }
    }
}

impl Handler for MessagesHandler {
    fn begin(&mut self, first: bool, most: u64) {
        self.mode = if first {
            Mode::First(HashMap::new())
        } else if most > self.class as u64 {
            Mode::Gathering(HashMap::new())
        } else {
            // Of no topic so many were stored meanwhile that the stream would have let go of any.
            Mode::Whole
        };
    }

    async fn take(&mut self, item: Item) {
        match &mut self.mode {
            Mode::Whole => self.feed(item).await,
            Mode::First(counts) => {
                *counts.entry(item.key.clone()).or_default() += 1;
                self.feed(item).await;
            }
            Mode::Gathering(gathered) => {
                let channel = self.topics.channel(&item.key);
                Self::gather(gathered, item, channel.as_deref());
            }
        }
    }

    async fn end(&mut self) {
        let kept = self.kept();
        match std::mem::replace(&mut self.mode, Mode::Whole) {
            Mode::Whole => {}
            Mode::First(counts) => {
                // A topic of which less than that is found has lost nothing since it was made.
                for channel in self.topics.registry.all() {
                    let token = channel.label.get().map(|label| &**label).unwrap_or_default();
                    if channel.key == self.class as u64 {
                        let whole = counts.get(token).copied().unwrap_or(0) < kept;
                        channel.ring.lock().numbering = Numbering { before: whole.then_some(0), ..Numbering::SPARSE };
                    }
                }
            }
            Mode::Gathering(gathered) => {
                for (token, Gathered { count, newest, .. }) in gathered {
                    let lost = count >= kept || count > newest.len();
                    let mut newest = newest;
                    if lost
                        && let Some(channel) = self.topics.channel(&token)
                        && let Some(oldest) = newest.pop_front()
                    {
                        channel.skip_to(oldest.sequence);
                    }
                    for item in newest {
                        self.feed(item).await;
                    }
                }
            }
        }
    }

    fn reset(&mut self) {
        // Positions in the old stream mean nothing in the new one: every topic of it begins another life.
        for channel in self.topics.registry.all() {
            if channel.key == self.class as u64 {
                self.topics.end_life(&channel);
            }
        }
    }
}
