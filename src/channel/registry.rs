//! All topics on this instance, by name.

mod aged;
mod listed;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use slab::Slab;

use super::{
    Age, Aging, Alive, Budget, Channel, Deliveries, Epoch, Error, Incarnation, Key, LogPosition, Member, Memberships,
    NewMessage, News, Pattern, Patterns, Payload, Reclaimed, Retention, Ring, Sequencer, Start, Timestamp, TopicBounds,
    TopicConfig, TopicEventKind, TopicInfo, TopicName,
    recent_ids::RecentIds,
    ring::RingOwner,
    sequencer::MAX_LOGS,
    silence::{Expecting, Silence},
};

/// Deletions that are remembered: a subscriber of a pattern that was away learns of them.
const MAX_DELETIONS: usize = 10_000;

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
    /// What holds for topics that set nothing for themselves.
    pub defaults: TopicBounds,
    /// How long a publisher's message id is remembered after its publication, even when the message is gone.
    pub dedup_window: Duration,
    /// Bytes that ids of messages that are not kept may take.
    pub dedup_bytes: usize,
}

#[cfg(test)]
impl RegistrySettings {
    /// Room for a few topics of so many messages.
    pub(crate) fn for_tests(max_messages: usize) -> Self {
        Self {
            max_topics: 10,
            max_bytes_per_topic: 1 << 20,
            max_history_bytes: 1 << 20,
            max_patterns: 1,
            defaults: TopicBounds::new(max_messages, 0),
            dedup_window: Duration::from_mins(1),
            dedup_bytes: 1 << 20,
        }
    }
}

/// A topic that was deleted.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    pub name: TopicName,
    pub epoch: Epoch,
    pub log: usize,
    /// The number of its newest message in its log.
    pub newest_sequence: u64,
    /// The offset of its newest message, if that is known.
    pub newest_offset: Option<u64>,
}

/// What a pattern stands for at the moment at which a subscription to it began.
pub(crate) struct Matching {
    pub memberships: Memberships,
    pub topics: Vec<Arc<Channel>>,
    /// Those whose incarnations are about to end: messages may come until they are closed.
    pub ending: Vec<Arc<Channel>>,
    /// Topics of the pattern that were deleted, oldest first, as far as that is remembered.
    pub deletions: Vec<Deletion>,
    /// The newest position of each log.
    pub positions: Vec<(usize, LogPosition)>,
}

impl Matching {
    /// The newest number of a log.
    pub fn sequence_of(&self, log: usize) -> Option<u64> {
        self.positions.iter().find(|(known, _)| *known == log).map(|(_, position)| position.sequence)
    }
}

/// All topics on this instance. An engine inserts and removes them; changes are announced to the subscribers of the
/// topics' events.
pub struct Registry {
    names: RwLock<Names>,
    max_topics: usize,
    pub(super) patterns: Arc<Patterns>,
    budget: Arc<Budget>,
    serial: AtomicU64,
    /// Topics in memory, deleted ones that are still being read included.
    alive: Arc<AtomicUsize>,
    /// The broker's own events: topics created, updated, deleted.
    pub(super) events: Arc<Channel>,
    /// The order of each of the engine's logs; the engine that has one log uses the first.
    sequencers: [Arc<Sequencer>; MAX_LOGS],
    defaults: TopicBounds,
    recent_ids: Arc<RecentIds>,
    aging: Arc<Aging>,
    pub(super) expecting: Expecting,
}

#[derive(Default)]
struct Names {
    by_name: HashMap<TopicName, Arc<Channel>>,
    by_epoch: HashMap<Epoch, Arc<Channel>>,
    in_order: BTreeSet<TopicName>,
    deletions: VecDeque<Deletion>,
    /// Incarnations that were taken out and are not closed yet.
    ending: Vec<Arc<Channel>>,
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

    fn remove(&mut self, channel: &Channel) {
        self.in_order.remove(&channel.name);
        self.by_name.remove(&channel.name);
        self.by_epoch.remove(&channel.epoch);
    }

    /// Remembers that the topic was deleted, unless it never had a message.
    fn deleted(&mut self, channel: &Channel, last: u64) {
        let (newest_sequence, newest) = {
            let ring = channel.ring.lock();
            (ring.newest_sequence().max(last), ring.newest())
        };
        if newest_sequence > 0 {
            let (name, epoch, log) = (channel.name.clone(), channel.epoch, channel.sequencer.index);
            let newest_offset = (newest >= last).then_some(newest);
            self.remember_deletion(Deletion { name, epoch, log, newest_sequence, newest_offset });
        }
    }

    fn remember_deletion(&mut self, deletion: Deletion) {
        if self.deletions.len() >= MAX_DELETIONS {
            self.deletions.pop_front();
        }
        self.deletions.push_back(deletion);
    }

    fn matching<'a>(&'a self, pattern: &'a Pattern) -> impl Iterator<Item = Arc<Channel>> + 'a {
        let prefix = pattern.literal_prefix();
        let candidates = self.with_prefix(prefix, Bound::Included(prefix));
        candidates.filter(|name| pattern.matches(name.as_str())).filter_map(|name| self.by_name.get(name).cloned())
    }
}

impl Registry {
    /// One without topics.
    #[must_use]
    pub fn new(settings: RegistrySettings) -> Arc<Self> {
        let (name, epoch) = (TopicName::reserved("$topics"), Epoch::random());
        let recent_ids = Arc::new(RecentIds::new(settings.dedup_window, settings.dedup_bytes));
        let aging = Arc::<Aging>::default();
        let owner = RingOwner { topic: &name, epoch, serial: 0, recent_ids: &recent_ids, aging: &aging };
        let config = TopicConfig { max_age: Some(Age::UNLIMITED), ..TopicConfig::keeping(1_000) };
        let ring = Ring::new(owner, config, settings.defaults, Budget::new(usize::MAX, usize::MAX));
        let events = Arc::new(Channel {
            serial: 0,
            name: name.clone(),
            epoch,
            created_at: Timestamp::now(),
            implicit: AtomicBool::new(false),
            ring: Mutex::new(ring),
            waiters: Mutex::new(Slab::new()),
            news: News::new(Deliveries::new()),
            patterns: Patterns::new(0),
            sequencer: Arc::new(Sequencer::new(0)),
            silence: Silence::default(),
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
            sequencers: std::array::from_fn(|index| Arc::new(Sequencer::new(index))),
            defaults: settings.defaults,
            recent_ids,
            aging,
            expecting: Expecting::default(),
        })
    }

    /// Announces what became of a topic, if it is there. Returns whether it is.
    pub(super) fn announce_of(&self, channel: &Arc<Channel>, kind: TopicEventKind) -> bool {
        let names = self.names.read();
        let is_current = names.is_current(channel);
        if is_current {
            self.announce(&channel.name, kind);
        }
        is_current
    }

    /// The order of one of the engine's logs.
    pub(crate) fn sequencer(&self, log: usize) -> &Arc<Sequencer> {
        &self.sequencers[log.min(MAX_LOGS - 1)]
    }

    /// The newest number of each log.
    pub(crate) fn newest_sequences(&self) -> Vec<(usize, u64)> {
        self.sequencers.iter().map(|sequencer| (sequencer.index, *sequencer.lock())).collect()
    }

    /// What holds for topics that set nothing for themselves.
    #[must_use]
    pub fn defaults(&self) -> TopicBounds {
        self.defaults
    }

    /// Ids of messages that are not kept any more.
    pub(crate) fn recent_ids(&self) -> &RecentIds {
        &self.recent_ids
    }

    /// A topic that was deleted before this instance started.
    pub(crate) fn remember_deletion(&self, deletion: Deletion) {
        self.names.write().remember_deletion(deletion);
    }

    /// The topic that has this epoch now.
    #[must_use]
    pub fn find_epoch(&self, epoch: Epoch) -> Option<Arc<Channel>> {
        self.names.read().by_epoch.get(&epoch).cloned()
    }

    /// Makes `member` a subscriber of those parts of `pattern` that it may read, and says what they stand for at this
    /// very moment: every message with a number above the positions reaches it, and no other.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when a pattern would be one too many.
    pub(crate) fn join(&self, pattern: &Pattern, parts: &[Pattern], member: &Arc<Member>) -> Result<Matching, Error> {
        let names = self.names.read();
        // No message is published while these locks are held, and no topic is created or deleted while that of the
        // names is.
        let newest: Vec<_> = self.sequencers.iter().map(|sequencer| sequencer.lock()).collect();
        let memberships = self.patterns.join_all(parts, member)?;
        let position = |(sequencer, newest): (&Arc<Sequencer>, &parking_lot::MutexGuard<'_, u64>)| {
            (sequencer.index, LogPosition { epoch: sequencer.epoch(), sequence: **newest })
        };
        let used = |sequencer: &Arc<Sequencer>, newest: u64| sequencer.index == 0 || newest > 0;
        let positions = self.sequencers.iter().zip(&newest).filter(|(sequencer, newest)| used(sequencer, ***newest));
        let positions = positions.map(position).collect();
        drop(newest);
        let is_in = |name: &TopicName| parts.iter().any(|part| part.matches(name.as_str()));
        let topics = names.matching(pattern).filter(|topic| is_in(&topic.name)).collect();
        let ending: Vec<_> = names.ending.iter().filter(|topic| is_in(&topic.name)).cloned().collect();
        // What is about to end is read to its end, and its deletion is told there.
        let is_over = |deletion: &&Deletion| ending.iter().all(|topic| topic.epoch != deletion.epoch);
        let deletions = names.deletions.iter().filter(|deletion| is_in(&deletion.name)).filter(is_over);
        let deletions = deletions.cloned().collect();
        Ok(Matching { memberships, topics, ending, deletions, positions })
    }

    /// Makes a subscriber of a pattern one of these parts of it instead. Messages of what both have in common go on reaching
    /// it, and what it has not read of the rest is dropped. What is new it reads from where it stands, so that nothing is
    /// lost that was published since it may read it.
    ///
    /// # Errors
    /// [`Error::LimitReached`]; nothing has changed then.
    pub(crate) fn rejoin(
        &self,
        parts: &[Pattern],
        member: &Arc<Member>,
        memberships: &mut Memberships,
    ) -> Result<(), Error> {
        let names = self.names.read();
        // The new ones come first, so that no message passes between the two.
        let before = std::mem::replace(memberships, self.patterns.join_all(parts, member)?);
        member.keep(|name| parts.iter().any(|part| part.matches(name)));
        let is_new = |topic: &Arc<Channel>| !before.iter().any(|known| known.pattern.matches(topic.name.as_str()));
        let is_in = |topic: &&Arc<Channel>| parts.iter().any(|part| part.matches(topic.name.as_str()));
        let ending = names.ending.iter().filter(is_in).cloned();
        for topic in ending.chain(parts.iter().flat_map(|part| names.matching(part))).filter(is_new) {
            let (reader, is_news) = topic.locate(&Start::AfterSequence(member.read_up_to(topic.sequencer.index)));
            if is_news {
                member.seed(reader);
            }
        }
        Ok(())
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
        incarnation: Incarnation,
        stored: impl FnOnce(&Arc<Channel>) -> Result<(), Error>,
    ) -> Result<Arc<Channel>, Error> {
        let Incarnation { name, epoch, created_at, implicit, config, serial, log } = incarnation;
        let mut names = self.names.write();
        if names.by_name.contains_key(&name) {
            return Err(Error::TopicExists(name));
        }
        let serial = serial.unwrap_or_else(|| self.serial.fetch_add(1, Ordering::Relaxed));
        let owner = RingOwner { topic: &name, epoch, serial, recent_ids: &self.recent_ids, aging: &self.aging };
        let ring = Ring::new(owner, config, self.defaults, self.budget.clone());
        let channel = Arc::new(Channel {
            serial,
            name: name.clone(),
            epoch,
            created_at,
            implicit: AtomicBool::new(implicit),
            ring: Mutex::new(ring),
            waiters: Mutex::new(Slab::new()),
            news: News::new(self.deliveries().clone()),
            patterns: self.patterns.clone(),
            sequencer: self.sequencer(log).clone(),
            silence: Silence::default(),
            _alive: Alive::new(&self.alive),
        });
        stored(&channel)?;
        names.in_order.insert(name.clone());
        names.by_name.insert(name.clone(), channel.clone());
        names.by_epoch.insert(epoch, channel.clone());
        let bounds = channel.bounds();
        if !bounds.max_age.is_unlimited() || bounds.retention == Retention::LatestPerKey {
            // Once it is found by its epoch, the sweep does not take it for one that is gone.
            self.aging.watch(epoch);
        }
        self.expecting.note(&channel);
        self.announce(&name, TopicEventKind::Created);
        Ok(channel)
    }

    /// Takes a topic out and ends its incarnation, also one that was taken out before and not ended. Returns whether it ended it.
    pub fn remove(&self, channel: &Arc<Channel>) -> bool {
        let mut names = self.names.write();
        let current = names.is_current(channel);
        if current {
            names.remove(channel);
            channel.close();
            names.deleted(channel, 0);
            self.announce(&channel.name, TopicEventKind::Deleted);
        } else if let Some(index) = names.ending.iter().position(|ending| Arc::ptr_eq(ending, channel)) {
            names.ending.swap_remove(index);
            channel.close();
            return true;
        }
        current
    }

    /// Takes a topic out whose incarnation is about to end: its name is free, and whoever reads it reads on until it is
    /// closed. The engine knows of messages up to the number `last` in the topic's log.
    pub(crate) fn take_out(&self, channel: &Arc<Channel>, last: u64) {
        let mut names = self.names.write();
        if names.is_current(channel) {
            names.remove(channel);
            names.deleted(channel, last);
            names.ending.push(channel.clone());
            self.announce(&channel.name, TopicEventKind::Deleted);
        }
    }

    /// Takes an implicit topic out that has no message and no subscriber. Returns whether it did; `stored` then ran
    /// under the registry's lock.
    pub fn remove_unused(&self, channel: &Arc<Channel>, stored: impl FnOnce()) -> bool {
        let mut names = self.names.write();
        if !names.is_current(channel) {
            return false;
        }
        // A new subscriber or message needs these locks, so none comes between the check and the end.
        let waiters = channel.waiters.lock();
        let mut ring = channel.ring.lock();
        if !channel.implicit.load(Ordering::Acquire) || !waiters.is_empty() || !ring.is_unused() {
            return false;
        }
        ring.closed = true;
        stored();
        names.remove(channel);
        self.announce(&channel.name, TopicEventKind::Deleted);
        true
    }

    /// Sets a topic to what the engine has kept. A smaller history takes effect at once. Returns what is no longer kept by
    /// that.
    pub fn apply(&self, channel: &Arc<Channel>, implicit: bool, config: TopicConfig) -> Reclaimed {
        let names = self.names.read();
        channel.implicit.store(implicit, Ordering::Release);
        let reclaimed = {
            let mut ring = channel.ring.lock();
            let floor = ring.floor();
            ring.configure(config, self.defaults);
            ring.reclaimed_since(floor)
        };
        self.expecting.note(channel);
        if names.is_current(channel) {
            self.announce(&channel.name, TopicEventKind::Updated);
        }
        reclaimed
    }

    /// Called under the registry's lock, so that events stand in the order in which things happened.
    fn announce(&self, name: &TopicName, kind: TopicEventKind) {
        let data = Payload::parse(&format!("{:?}", kind.code()), usize::MAX);
        let key = Key::parse(name.as_str());
        if let (Ok(data), Ok(key)) = (data, key) {
            // The events' own channel has no limits, so there is nothing to refuse.
            let _ = self.events.append(NewMessage { key: Some(key), ..NewMessage::of(data) });
        }
    }

    /// Every topic.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Channel>> {
        self.names.read().by_name.values().cloned().collect()
    }

    /// The broker's own events: topics created, updated, deleted.
    pub(crate) fn events(&self) -> &Arc<Channel> {
        &self.events
    }

    /// Those who deliver the news of all topics.
    pub(crate) fn deliveries(&self) -> &Arc<Deliveries> {
        self.events.news.deliveries()
    }

    /// How many different patterns are subscribed.
    #[must_use]
    pub fn pattern_count(&self) -> usize {
        self.patterns.len()
    }

    /// How many nodes of the patterns' tree were visited.
    #[cfg(test)]
    pub(crate) fn pattern_steps(&self) -> u64 {
        self.patterns.steps.load(Ordering::Relaxed)
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
