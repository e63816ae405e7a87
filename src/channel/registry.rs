//! All topics on this instance, by name.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use slab::Slab;

use super::{
    Alive, Bucket, Budget, Channel, Epoch, Error, Pattern, Patterns, Ring, Spec, Timestamp, TopicEventKind, TopicInfo,
    TopicName,
};

/// Bounds on what all topics hold together.
#[derive(Clone, Copy, Debug)]
pub struct RegistrySettings {
    /// Topics that may exist.
    pub max_topics: usize,
    /// Bytes one topic's history may hold.
    pub max_bytes_per_topic: usize,
    /// Bytes all histories may hold.
    pub max_history_bytes: usize,
    /// Different patterns that may be subscribed.
    pub max_patterns: usize,
}

/// A life of a topic, as an engine knows it.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its name.
    pub name: TopicName,
    /// Its epoch.
    pub epoch: Epoch,
    /// When it began.
    pub created_at: Timestamp,
    /// What it is set to.
    pub spec: Spec,
    /// The engine's own number for it.
    pub key: u64,
}

impl Life {
    /// A new one that begins now.
    #[must_use]
    pub fn new(name: &TopicName, spec: Spec) -> Self {
        Self { name: name.clone(), epoch: Epoch::random(), created_at: Timestamp::now(), spec, key: 0 }
    }
}

/// All topics on this instance. An engine puts them in and takes them out; changes are announced to who follows the
/// topics' events.
pub struct Registry {
    names: RwLock<Names>,
    max_topics: usize,
    pub(crate) patterns: Arc<Patterns>,
    pub(crate) budget: Arc<Budget>,
    serial: AtomicU64,
    /// Topics in memory, deleted ones that are still being read included.
    alive: Arc<AtomicUsize>,
    /// The broker's own events: topics created, updated, deleted.
    pub(crate) events: Arc<Channel>,
}

#[derive(Default)]
struct Names {
    by_name: HashMap<TopicName, Arc<Channel>>,
    in_order: BTreeSet<TopicName>,
}

impl Names {
    /// The names that begin with `prefix`, in order.
    fn with_prefix<'a>(&'a self, prefix: &'a str, from: Bound<&'a str>) -> impl Iterator<Item = &'a TopicName> {
        let range = self.in_order.range::<str, _>((from, Bound::Unbounded));
        range.take_while(move |name| name.as_str().starts_with(prefix))
    }

    fn is_current(&self, channel: &Arc<Channel>) -> bool {
        self.by_name.get(&channel.name).is_some_and(|known| Arc::ptr_eq(known, channel))
    }

    fn remove(&mut self, name: &TopicName) {
        self.in_order.remove(name);
        self.by_name.remove(name);
    }
}

impl Registry {
    /// One without topics.
    #[must_use]
    pub fn new(settings: RegistrySettings) -> Arc<Self> {
        let name = TopicName::reserved("$topics");
        let epoch = Epoch::random();
        let events = Arc::new(Channel {
            serial: 0,
            name: name.clone(),
            epoch,
            created_at: Timestamp::now(),
            key: 0,
            implicit: AtomicBool::new(false),
            ring: Mutex::new(Ring::new(name, epoch, 1_000, Bucket::new(0), Budget::new(usize::MAX, usize::MAX))),
            waiters: Mutex::new(Slab::new()),
            patterns: Patterns::new(0),
            label: OnceLock::new(),
            revision: AtomicU64::new(0),
            _alive: Alive::new(&Arc::default()),
        });
        Arc::new(Self {
            names: RwLock::default(),
            max_topics: settings.max_topics,
            patterns: Patterns::new(settings.max_patterns),
            budget: Budget::new(settings.max_history_bytes, settings.max_bytes_per_topic),
            serial: AtomicU64::new(1),
            alive: Arc::default(),
            events,
        })
    }

    /// The topic of this name.
    #[must_use]
    pub fn find(&self, name: &TopicName) -> Option<Arc<Channel>> {
        self.names.read().by_name.get(name).cloned()
    }

    /// Whether one more topic may be made here.
    ///
    /// # Errors
    /// [`Error::LimitReached`].
    pub fn check_room(&self) -> Result<(), Error> {
        if self.alive.load(Ordering::Relaxed) >= self.max_topics {
            return Err(Error::LimitReached { what: "topics on this server", limit: self.max_topics, own: false });
        }
        Ok(())
    }

    /// Puts a topic in. `stored` runs under the registry's lock when the name is free: what it stores, it stores in the
    /// order in which topics come and go here.
    ///
    /// # Errors
    /// [`Error::TopicExists`], or that of `stored`; nothing has changed then.
    pub fn insert(
        &self,
        life: Life,
        stored: impl FnOnce(&Arc<Channel>) -> Result<(), Error>,
    ) -> Result<Arc<Channel>, Error> {
        let Life { name, epoch, created_at, spec, key } = life;
        let bucket = Bucket::new(spec.max_publish_rate);
        let mut names = self.names.write();
        if names.by_name.contains_key(&name) {
            return Err(Error::TopicExists(name));
        }
        let channel = Arc::new(Channel {
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            name: name.clone(),
            epoch,
            created_at,
            key,
            implicit: AtomicBool::new(spec.implicit),
            ring: Mutex::new(Ring::new(name.clone(), epoch, spec.max_messages, bucket, self.budget.clone())),
            waiters: Mutex::new(Slab::new()),
            patterns: self.patterns.clone(),
            label: OnceLock::new(),
            revision: AtomicU64::new(0),
            _alive: Alive::new(&self.alive),
        });
        stored(&channel)?;
        names.in_order.insert(name.clone());
        names.by_name.insert(name.clone(), channel.clone());
        self.announce(&name, TopicEventKind::Created);
        Ok(channel)
    }

    /// Takes a topic out and ends its life. Answers whether it was in.
    pub fn remove(&self, channel: &Arc<Channel>) -> bool {
        let mut names = self.names.write();
        let current = names.is_current(channel);
        if current {
            names.remove(&channel.name);
            channel.close();
            self.announce(&channel.name, TopicEventKind::Deleted);
        }
        current
    }

    /// Takes a topic out whose life is about to end: its name is free, and whoever reads it reads on until it is closed.
    pub(crate) fn take_out(&self, channel: &Arc<Channel>) {
        let mut names = self.names.write();
        if names.is_current(channel) {
            names.remove(&channel.name);
            self.announce(&channel.name, TopicEventKind::Deleted);
        }
    }

    /// Takes an implicit topic out that has no message and no subscriber. Answers whether it did; `stored` then ran under
    /// the registry's lock.
    pub fn remove_unused(&self, channel: &Arc<Channel>, stored: impl FnOnce()) -> bool {
        let mut names = self.names.write();
        if !names.is_current(channel) {
            return false;
        }
        // Looked at under the locks that a new subscriber or message needs.
        let waiters = channel.waiters.lock();
        let mut ring = channel.ring.lock();
        if !channel.implicit.load(Ordering::Acquire) || !waiters.is_empty() || !ring.is_unused() {
            return false;
        }
        ring.closed = true;
        stored();
        names.remove(&channel.name);
        self.announce(&channel.name, TopicEventKind::Deleted);
        true
    }

    /// Sets a topic to what the engine has kept. A smaller history takes effect at once.
    pub fn apply(&self, channel: &Arc<Channel>, spec: Spec) {
        let names = self.names.read();
        channel.implicit.store(spec.implicit, Ordering::Release);
        let mut ring = channel.ring.lock();
        ring.max_messages = spec.max_messages;
        ring.evict_to(spec.max_messages);
        if ring.bucket.per_second() != spec.max_publish_rate {
            ring.bucket = Bucket::new(spec.max_publish_rate);
        }
        drop(ring);
        if names.is_current(channel) {
            self.announce(&channel.name, TopicEventKind::Updated);
        }
    }

    /// Up to `limit` topics in the order of their names: those that begin with `prefix` and come after `after`; and
    /// whether there are more.
    #[must_use]
    pub fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> (Vec<TopicInfo>, bool) {
        let names = self.names.read();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut channels = names.with_prefix(prefix, from).filter_map(|name| names.by_name.get(name));
        let found: Vec<_> = channels.by_ref().take(limit).cloned().collect();
        let more = channels.next().is_some();
        drop(channels);
        drop(names);
        (found.iter().map(|channel| channel.info()).collect(), more)
    }

    /// How many topics begin with `prefix`.
    #[must_use]
    pub fn count(&self, prefix: &str) -> usize {
        let names = self.names.read();
        if prefix.is_empty() {
            return names.in_order.len();
        }
        names.with_prefix(prefix, Bound::Included(prefix)).count()
    }

    /// The topics whose names match.
    #[must_use]
    pub fn matching(&self, pattern: &Pattern) -> Vec<Arc<Channel>> {
        let names = self.names.read();
        let prefix = pattern.literal_prefix();
        let matching = names.with_prefix(prefix, Bound::Included(prefix));
        matching
            .filter(|name| pattern.matches(name.as_str()))
            .filter_map(|name| names.by_name.get(name).cloned())
            .collect()
    }

    /// Every topic.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Channel>> {
        self.names.read().by_name.values().cloned().collect()
    }

    /// Bytes that all histories hold.
    #[must_use]
    pub fn history_bytes(&self) -> usize {
        self.budget.used()
    }

    /// Messages that all histories keep.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.budget.messages()
    }
}
