//! The registry of topics: a bucket with one entry per topic, which every instance follows.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    Inner, NOT_NOW,
    follow::{Handler, Item, Progress, has_majority},
    link::Link,
    names::{CLASSES, class_in, decode, encode},
    store::{BUDGET, Put, Value, put},
};
use crate::channel::{
    Channel, Deletion, Epoch, Error, Incarnation, Numbering, Registry, Timestamp, TopicConfig, TopicName,
};

/// A topic in the bucket: JSON, to which later versions may add fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicEntry {
    pub name: String,
    /// Written as in cursors.
    pub epoch: String,
    /// In milliseconds since 1970.
    pub created_at: i64,
    pub implicit: bool,
    /// Absent if the topic follows the servers' setting.
    #[serde(flatten)]
    pub config: TopicConfig,
    /// The class of its stream.
    pub class: usize,
    /// The instance that created it, as long as no other instance has used it while it was without messages. That
    /// instance may release it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// How the incarnation before this one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<IncarnationEnd>,
}

/// How an incarnation of a topic ended, as the marker of its deletion stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IncarnationEnd {
    /// Written as in cursors.
    pub epoch: String,
    /// The newest message that was removed with the topic.
    pub last: u64,
    /// The class of its stream.
    pub class: usize,
    /// The newest message of the incarnations before it.
    #[serde(default)]
    pub earlier: u64,
}

impl IncarnationEnd {
    /// Returns the newest message that was ever stored under the name in a stream, as far as this end knows.
    fn newest_in(&self, class: usize) -> u64 {
        if self.class == class { self.last.max(self.earlier) } else { 0 }
    }
}

impl KnownTopic {
    /// Returns how the current incarnation would end now.
    pub fn end_now(&self) -> Option<IncarnationEnd> {
        let (entry, channel) = (self.entry.as_ref()?, self.channel.as_ref()?);
        let earlier = entry.before.as_ref().map_or(0, |before| before.newest_in(entry.class));
        Some(IncarnationEnd { epoch: entry.epoch.clone(), last: channel.last(), class: entry.class, earlier })
    }
}

/// The deletion that an incarnation's end stands for, if it ever had a message.
fn deletion(token: &str, end: &IncarnationEnd) -> Option<Deletion> {
    let newest_sequence = end.newest_in(end.class);
    Some(Deletion {
        name: TopicName::parse(&decode(token)?).ok()?,
        epoch: Epoch::parse(&end.epoch)?,
        log: CLASSES.iter().position(|class| *class == end.class)?,
        newest_sequence,
        newest_offset: (end.last > 0).then_some(end.last),
    })
    .filter(|_| newest_sequence > 0)
}

/// An incarnation that has ended in the registry, but not yet in its stream.
#[derive(Clone)]
pub(super) struct EndingIncarnation {
    pub channel: Arc<Channel>,
    /// The newest message that was removed with the topic.
    pub last: u64,
}

impl TopicEntry {
    fn incarnation(&self, token: &str) -> Option<Incarnation> {
        let name = decode(token).filter(|name| *name == self.name)?;
        let epoch = Epoch::parse(&self.epoch)?;
        CLASSES.contains(&self.class).then_some(())?;
        Some(Incarnation {
            name: TopicName::parse(&name).ok()?,
            epoch,
            created_at: Timestamp(self.created_at),
            implicit: self.implicit,
            // A stream keeps the newest messages, whatever others have written here.
            config: TopicConfig { retention: None, ..self.config },
            serial: None,
            log: CLASSES.iter().position(|class| *class == self.class)?,
        })
    }
}

/// What is known of a key.
#[derive(Clone)]
pub(super) struct KnownTopic {
    pub revision: u64,
    /// `None` if the topic was deleted.
    pub entry: Option<TopicEntry>,
    pub channel: Option<Arc<Channel>>,
    /// How the incarnation before ended.
    pub end: Option<IncarnationEnd>,
    /// When the entry was written.
    at: Timestamp,
}

/// Implicit topics without an update for long, by token.
#[derive(Default)]
pub(super) struct StaleTopics {
    /// They are used here, so their entries must be refreshed.
    pub refresh: Vec<(String, KnownTopic)>,
    /// They are not used here, and no other instance has refreshed them.
    pub delete: Vec<(String, KnownTopic)>,
}

/// The topics on this instance, by token.
pub(super) struct Topics {
    pub registry: Arc<Registry>,
    pub progress: Arc<Progress>,
    /// The bucket's name.
    pub bucket: String,
    known: RwLock<HashMap<String, KnownTopic>>,
    /// Incarnations that have ended in the registry, but not in their streams: messages before their end are still to
    /// come.
    ending: Mutex<Vec<EndingIncarnation>>,
    /// The classes with at least one topic.
    classes: Mutex<HashSet<usize>>,
    /// Whether histories are being read for the first time. Until then no channel is known to be complete.
    loading: RwLock<bool>,
}

/// How long an implicit topic that several instances have used stays without a refresh before it is deleted.
const UNUSED_TIMEOUT: Duration = Duration::from_mins(15);

/// How often an instance refreshes an implicit topic that it uses.
const REFRESH_INTERVAL: Duration = Duration::from_mins(5);

impl Topics {
    pub fn new(registry: Arc<Registry>, bucket: String) -> Arc<Self> {
        Arc::new(Self {
            registry,
            progress: Progress::new(),
            bucket,
            known: RwLock::default(),
            ending: Mutex::default(),
            classes: Mutex::default(),
            loading: RwLock::new(true),
        })
    }

    pub fn get(&self, token: &str) -> Option<KnownTopic> {
        self.known.read().get(token).cloned()
    }

    /// Returns the incarnation of a topic that a message belongs to, which may be one that is about to end.
    pub fn channel(&self, token: &str, fits: impl Fn(&Arc<Channel>) -> bool) -> Option<Arc<Channel>> {
        let known = self.known.read().get(token).and_then(|known| known.channel.clone());
        known.filter(|channel| fits(channel)).or_else(|| {
            let ending = self.ending.lock();
            let ending = ending.iter().map(|ended| &ended.channel);
            ending.into_iter().find(|channel| is_called(channel, token) && fits(channel)).cloned()
        })
    }

    /// Returns whether the registry has this incarnation of a topic.
    pub fn is_alive(&self, token: &str, epoch: Epoch) -> bool {
        let known = self.known.read();
        let entry = known.get(token).and_then(|known| known.entry.as_ref());
        entry.is_some_and(|entry| entry.epoch == epoch.to_string())
    }

    /// Returns whether another instance may release the topic because this instance has not pinned it.
    pub fn is_others(&self, token: &str, instance: &str) -> bool {
        let known = self.known.read();
        let entry = known.get(token).and_then(|known| known.entry.as_ref());
        entry.is_some_and(|entry| entry.implicit && !entry.owner.is_empty() && entry.owner != instance)
    }

    /// Ends an incarnation in its stream. Whoever has read the stream up to here calls this.
    pub fn end(&self, channel: &Arc<Channel>) {
        let ended = {
            let mut ending = self.ending.lock();
            let index = ending.iter().position(|ending| Arc::ptr_eq(&ending.channel, channel));
            index.map(|index| ending.swap_remove(index))
        };
        if let Some(ended) = &ended {
            channel.skip_to(ended.last);
        }
        // The channel is closed once, by the first caller, because every close is published as an event.
        if !self.registry.remove(channel) && ended.is_some() {
            channel.close();
        }
    }

    /// Returns the classes with at least one topic.
    pub fn classes(&self) -> HashSet<usize> {
        self.classes.lock().clone()
    }

    fn is_loading(&self) -> bool {
        *self.loading.read()
    }

    /// Called when all histories are read. Topics that are created from here on are complete.
    pub fn loaded(&self) {
        *self.loading.write() = false;
    }

    /// Waits until everything that the bucket has now is known here.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn sync(&self, link: &Link) -> Result<(), Error> {
        sync(link, &format!("KV_{}", self.bucket), &self.progress).await
    }

    /// Applies an entry of the bucket. Returns the incarnations that it ends. They are closed when everything of them
    /// was read from their streams.
    fn apply_entry(
        &self,
        token: &str,
        revision: u64,
        at: Timestamp,
        entry: Option<TopicEntry>,
        end: Option<IncarnationEnd>,
    ) -> Vec<EndingIncarnation> {
        let (old, known_end) = self.get(token).map_or((None, None), |known| (known.channel, known.end));
        let incarnation = entry.as_ref().and_then(|entry| entry.incarnation(token));
        if entry.is_some() && incarnation.is_none() {
            tracing::warn!(token, "the registry has an entry that cannot be read; it is left alone");
        }
        let end = entry.as_ref().map_or(end, |entry| entry.before.clone());
        let new_end = end.as_ref().filter(|end| known_end.as_ref() != Some(*end));
        if let Some(deletion) = new_end.filter(|_| self.is_loading()).and_then(|end| deletion(token, end)) {
            // A subscriber of a pattern that was at another instance, or here before a restart, may not have read it to its end.
            self.registry.remember_deletion(deletion);
        }
        let mut ended = Vec::new();
        let channel = match (incarnation, old) {
            (Some(incarnation), Some(old)) if old.epoch() == incarnation.epoch => {
                let Incarnation { implicit, config, .. } = incarnation;
                if (old.is_implicit(), old.config()) != (implicit, config) {
                    let _ = self.registry.apply(&old, implicit, config);
                }
                // This instance has tried to release the topic, without success.
                if old.is_closed() { self.insert(incarnation) } else { Some(old) }
            }
            (incarnation, old) => {
                let seen = |class: usize| {
                    let read = old.as_ref().filter(|old| class_in(old) == class).map_or(0, |old| old.last());
                    read.max(known_end.as_ref().map_or(0, |end| end.newest_in(class)))
                };
                let missed_end = new_end
                    .filter(|end| old.as_ref().is_none_or(|old| old.epoch().to_string() != end.epoch))
                    .filter(|end| end.newest_in(end.class) > seen(end.class));
                ended.extend(old.and_then(|old| self.take_out(old, end.as_ref())));
                ended.extend(missed_end.and_then(|end| self.add_missed_incarnation(token, at, end)));
                incarnation.and_then(|incarnation| self.insert(incarnation))
            }
        };
        self.known.write().insert(token.to_owned(), KnownTopic { revision, entry, channel, end, at });
        ended
    }

    /// Handles incarnations that began and ended while this instance was cut off. A subscriber of a pattern gets what
    /// is left of the last one, and is told about the rest.
    fn add_missed_incarnation(&self, token: &str, at: Timestamp, end: &IncarnationEnd) -> Option<EndingIncarnation> {
        if self.is_loading() {
            return None;
        }
        let incarnation = Incarnation {
            name: TopicName::parse(&decode(token)?).ok()?,
            epoch: Epoch::parse(&end.epoch)?,
            created_at: at,
            implicit: false,
            config: TopicConfig::keeping(end.class.max(1)),
            serial: None,
            log: CLASSES.iter().position(|class| *class == end.class)?,
        };
        let channel = CLASSES.contains(&end.class).then(|| self.insert(incarnation)).flatten()?;
        self.take_out(channel, Some(&IncarnationEnd { last: end.newest_in(end.class), ..end.clone() }))
    }

    /// Frees the name of an incarnation.
    fn take_out(&self, old: Arc<Channel>, end: Option<&IncarnationEnd>) -> Option<EndingIncarnation> {
        // Before there is a subscriber, nothing needs to be read to its end.
        if self.is_loading() || old.is_closed() {
            self.registry.remove(&old);
            return None;
        }
        let last = end.filter(|end| end.epoch == old.epoch().to_string()).map_or(0, |end| end.last);
        let ended = EndingIncarnation { channel: old, last };
        self.ending.lock().push(ended.clone());
        self.registry.take_out(&ended.channel, last);
        Some(ended)
    }

    fn insert(&self, incarnation: Incarnation) -> Option<Arc<Channel>> {
        self.classes.lock().extend(CLASSES.get(incarnation.log));
        let name = incarnation.name.clone();
        let before = (!self.is_loading()).then_some(0);
        let inserted = self.registry.insert(incarnation, |channel| {
            channel.set_numbering(Numbering { before, ..Numbering::SPARSE });
            Ok(())
        });
        inserted.inspect_err(|error| tracing::error!(%error, topic = %name, "a topic could not be added")).ok()
    }

    /// Writes an entry if `expected` is its revision. After a success this instance knows the entry.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn write(&self, link: &Link, token: &str, entry: &TopicEntry, expected: u64) -> Result<Put, Error> {
        let value = serde_json::to_vec(entry).unwrap_or_default();
        self.put(link, token, Value::Set(value), expected).await
    }

    /// Deletes an entry if `expected` is its revision. After a success it is deleted here, too.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn delete(
        &self,
        link: &Link,
        token: &str,
        end: Option<&IncarnationEnd>,
        expected: u64,
    ) -> Result<Put, Error> {
        let said = end.and_then(|end| serde_json::to_vec(end).ok()).unwrap_or_default();
        self.put(link, token, Value::Deleted(said), expected).await
    }

    async fn put(&self, link: &Link, token: &str, value: Value, expected: u64) -> Result<Put, Error> {
        let written = put(link, &self.bucket, token, value, expected).await?;
        let known = match written {
            Put::Stored(revision) => timeout(BUDGET, self.progress.wait(revision)).await.is_ok(),
            Put::Conflict => {
                self.sync(link).await?;
                true
            }
        };
        if known { Ok(written) } else { Err(Error::Unavailable(NOT_NOW)) }
    }

    /// Returns the implicit topics without a message that several instances know: those that are used here and should
    /// be refreshed, and those that nobody has used for long.
    pub fn stale(&self, used: impl Fn(&Channel) -> bool) -> StaleTopics {
        let now = Timestamp::now().0;
        let older = |known: &KnownTopic, than: Duration| {
            now.saturating_sub(known.at.0) > i64::try_from(than.as_millis()).unwrap_or(i64::MAX)
        };
        let known = self.known.read();
        let empty = known.iter().filter(|(_, known)| {
            known.entry.as_ref().is_some_and(|entry| entry.implicit)
                && known.channel.as_ref().is_some_and(|channel| channel.never_published())
        });
        let mut stale = StaleTopics::default();
        for (token, known) in empty {
            let used = known.channel.as_ref().is_some_and(|channel| used(channel));
            if used && older(known, REFRESH_INTERVAL) {
                stale.refresh.push((token.clone(), known.clone()));
            } else if !used && older(known, UNUSED_TIMEOUT) {
                stale.delete.push((token.clone(), known.clone()));
            }
        }
        stale
    }

    /// Restores a topic that should have been released and is still in the registry.
    pub fn put_back(&self, token: &str) {
        if let Some(known) = self.get(token)
            && known.entry.is_some()
        {
            self.apply_entry(token, known.revision, known.at, known.entry, None);
        }
    }

    /// Ends the incarnations of a class's topics because its stream was created again. [`Topics::broken`] lists the
    /// topics from now on.
    pub fn end_class(&self, class: usize) {
        let ending = self.ending.lock().clone();
        for EndingIncarnation { channel, .. } in ending.iter().filter(|ended| class_in(&ended.channel) == class) {
            self.end(channel);
        }
        for channel in self.registry.all().into_iter().filter(|channel| class_in(channel) == class) {
            self.end_incarnation(&channel);
        }
    }

    fn end_incarnation(&self, channel: &Arc<Channel>) {
        self.registry.remove(channel);
        if let Some(known) = self.known.write().get_mut(&encode(channel.name().as_str())) {
            known.channel = None;
        }
    }

    /// Returns the topics whose incarnation has ended although they were not deleted. They need another incarnation.
    pub fn broken(&self) -> Vec<(String, KnownTopic)> {
        let known = self.known.read();
        let broken = known.iter().filter(|(token, known)| {
            known.channel.is_none() && known.entry.as_ref().is_some_and(|entry| entry.incarnation(token).is_some())
        });
        broken.map(|(token, known)| (token.clone(), known.clone())).collect()
    }

    /// Returns keys that were deleted long ago, whose markers can be removed.
    pub fn markers(&self) -> Vec<(String, u64)> {
        let now = Timestamp::now().0;
        let old = i64::try_from(UNUSED_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
        let known = self.known.read();
        let deleted = known.iter().filter(|(_, known)| known.entry.is_none() && now.saturating_sub(known.at.0) > old);
        deleted.map(|(token, known)| (token.clone(), known.revision)).take(100).collect()
    }

    /// Removes the marker of a deleted topic.
    pub fn drop_marker(&self, token: &str, revision: u64) {
        let mut known = self.known.write();
        if known.get(token).is_some_and(|known| known.entry.is_none() && known.revision == revision) {
            known.remove(token);
        }
    }
}

fn is_called(channel: &Channel, token: &str) -> bool {
    encode(channel.name().as_str()) == token
}

/// Waits until this instance has followed everything that a stream has now.
///
/// # Errors
/// [`Error::Unavailable`].
pub(super) async fn sync(link: &Link, stream: &str, progress: &Progress) -> Result<(), Error> {
    let ask = async {
        let stream = link.jetstream.get_stream_no_info(stream).await.ok()?;
        let info = stream.get_info().await.ok().filter(has_majority)?;
        progress.wait(info.state.last_sequence).await;
        Some(())
    };
    match timeout(BUDGET, ask).await {
        Ok(Some(())) => Ok(()),
        _ => Err(Error::Unavailable(NOT_NOW)),
    }
}

/// Passes the bucket's changes to the registry.
pub(super) struct TopicsHandler(pub Arc<Inner>);

impl Handler for TopicsHandler {
    async fn take(&mut self, item: Item) {
        let topics = &self.0.topics;
        let deleted = item.header("KV-Operation").is_some();
        let entry = if deleted { None } else { serde_json::from_slice(&item.payload).ok() };
        let end = if deleted { serde_json::from_slice(&item.payload).ok() } else { None };
        if !deleted && entry.is_none() {
            tracing::warn!(token = item.key, "the registry has an entry that cannot be read; it is left alone");
        }
        for ended in topics.apply_entry(&item.key, item.sequence, item.at, entry, end) {
            self.0.end_soon(ended);
        }
        // If another instance has created the first topic of a class, this instance must follow its stream, too,
        // without being asked. At the start the registry must be complete before any stream is read.
        if !topics.is_loading() {
            self.0.follow_all();
        }
    }

    fn reset(&mut self) {
        let topics = &self.0.topics;
        for known in topics.known.write().drain().filter_map(|(_, known)| known.channel) {
            topics.registry.remove(&known);
        }
    }
}
