//! The broker: topics, publishing, subscribing, history. It knows no HTTP, no GraphQL and no socket.
//!
//! Handle -> shared state -> guarded data: [`Broker`] is a clonable handle, and nobody outside sees a lock. No lock is
//! ever held over an await. Locks are taken in this order: registry, consumers, a topic's ring, the set of patterns, a
//! pattern's members, an inbox.

mod channel;
mod consumer;
mod error;
mod events;
mod filter;
mod inbox;
mod message;
mod name;
mod pattern;
mod payload;
mod rate;
mod settings;
mod subscribe;
mod subscription;
#[cfg(test)]
mod tests;
mod topic;

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use slab::Slab;

pub use channel::{Rest, Start, Turn};
pub use consumer::{Ack, ConsumerInfo, ConsumerStatus};
pub use error::Error;
pub use events::TopicEventKind;
pub use filter::{Filter, FilterError, FilterLimits};
pub use inbox::Inbox;
pub use message::{Cursor, Draft, Epoch, Gap, GapReason, Message, Publication, ShapeId, Timestamp};
pub use name::{ConsumerName, Key, MAX_NAME_BYTES, MessageId, Pattern, Source, TopicName};
pub use payload::{MAX_NESTING, Payload};
pub use settings::Settings;
pub use subscribe::Subscribe;
pub use subscription::{BEHIND_MESSAGES, Event, Overflow, Progress, Subscription};
pub use topic::{Page, SubscriptionInfo, TopicInfo};

use channel::{Budget, Refusal, Ring};
use consumer::{ConsumerLimits, Consumers};
use pattern::Patterns;
use rate::Bucket;
use topic::{Alive, Topic};

/// The one broker behind all doors; clones share it.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

struct Shared {
    settings: Settings,
    registry: RwLock<Registry>,
    consumers: Consumers,
    patterns: Arc<Patterns>,
    budget: Arc<Budget>,
    serial: AtomicU64,
    /// Topics in memory, deleted ones that are still being read included.
    alive: Arc<AtomicUsize>,
    published: AtomicU64,
    subscriptions: AtomicUsize,
    draining: AtomicBool,
    /// The broker's own events: topics created, updated, deleted.
    events: Arc<Topic>,
}

#[derive(Default)]
struct Registry {
    by_name: HashMap<TopicName, Arc<Topic>>,
    in_order: BTreeSet<TopicName>,
}

impl Registry {
    fn insert(&mut self, topic: Arc<Topic>) {
        self.in_order.insert(topic.name.clone());
        self.by_name.insert(topic.name.clone(), topic);
    }

    fn remove(&mut self, name: &str) -> Option<Arc<Topic>> {
        self.in_order.remove(name);
        self.by_name.remove(name)
    }
}

/// What a topic sets for itself; `None` leaves it as it is, or at the server's setting.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopicSettings {
    /// The bound of its history in messages.
    pub max_messages: Option<usize>,
    /// Messages a second that may be published; 0 means no limit.
    pub max_publish_rate: Option<u32>,
}

/// Numbers about the whole broker at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Topics that exist.
    pub topics: usize,
    /// Live subscriptions.
    pub subscriptions: usize,
    /// Messages accepted since the start.
    pub published: u64,
    /// Messages that all histories keep.
    pub messages: usize,
    /// Bytes that all histories hold.
    pub history_bytes: usize,
    /// Different patterns that are subscribed.
    pub patterns: usize,
}

impl Broker {
    /// A broker without topics.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let budget = Budget::new(settings.max_history_bytes, settings.max_bytes_per_topic);
        let patterns = Patterns::new(settings.max_patterns);
        let alive = Arc::new(AtomicUsize::new(0));
        let events_name = TopicName::reserved("$topics");
        let epoch = Epoch::random();
        let events = Arc::new(Topic {
            serial: 0,
            name: events_name.clone(),
            epoch,
            created_at: Timestamp::now(),
            implicit: AtomicBool::new(false),
            ring: Mutex::new(Ring::new(events_name, epoch, 1_000, Bucket::new(0), Budget::new(usize::MAX, usize::MAX))),
            waiters: Mutex::new(Slab::new()),
            patterns: Patterns::new(0),
            _alive: Alive::new(&Arc::default()),
        });
        let consumers = Consumers::new(ConsumerLimits {
            per_source: settings.max_consumers_per_topic,
            total: settings.max_consumers,
            topics: settings.max_topics_per_consumer,
            ttl: settings.consumer_ttl,
        });
        Self(Arc::new(Shared {
            settings,
            registry: RwLock::default(),
            consumers,
            patterns,
            budget,
            serial: AtomicU64::new(1),
            alive,
            published: AtomicU64::new(0),
            subscriptions: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            events,
        }))
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    // ---- topics

    /// Creates a topic. One that exists only implicitly is adopted, with these settings.
    ///
    /// # Errors
    /// [`Error::TopicExists`], [`Error::LimitReached`], [`Error::BadRequest`] for a setting out of bounds,
    /// [`Error::Unavailable`] while draining.
    pub fn create_topic(&self, name: &TopicName, settings: TopicSettings) -> Result<TopicInfo, Error> {
        self.check_topic_settings(settings)?;
        self.check_not_draining()?;
        let mut registry = self.0.registry.write();
        if let Some(topic) = registry.by_name.get(name) {
            if !topic.implicit.swap(false, Ordering::AcqRel) {
                return Err(Error::TopicExists(name.clone()));
            }
            apply(topic, settings);
            self.announce(name, TopicEventKind::Updated);
            return Ok(topic.info());
        }
        Ok(self.make_topic(&mut registry, name, false, settings)?.info())
    }

    /// Changes a topic's settings. A smaller bound takes effect at once.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], [`Error::BadRequest`] for a setting out of bounds.
    pub fn update_topic(&self, name: &TopicName, settings: TopicSettings) -> Result<TopicInfo, Error> {
        self.check_topic_settings(settings)?;
        let topic = self.find(name)?;
        apply(&topic, settings);
        self.announce(name, TopicEventKind::Updated);
        Ok(topic.info())
    }

    /// Deletes a topic with its history and consumers. Its subscriptions read what they have not read yet, then end.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`].
    pub fn delete_topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        let mut registry = self.0.registry.write();
        let topic = registry.remove(name.as_str()).ok_or_else(|| not_found(name))?;
        let info = topic.info();
        topic.close();
        self.0.consumers.delete_all(&Source::Topic(name.clone()));
        self.announce(name, TopicEventKind::Deleted);
        Ok(info)
    }

    /// What is known of a topic.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`].
    pub fn topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        Ok(self.find(name)?.info())
    }

    /// Up to `limit` topics in the order of their names: those that begin with `prefix` and come after `after`; and
    /// whether there are more.
    #[must_use]
    pub fn topics(&self, prefix: &str, after: Option<&str>, limit: usize) -> (Vec<TopicInfo>, bool) {
        let registry = self.0.registry.read();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut names = registry
            .in_order
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|name| name.as_str().starts_with(prefix))
            .filter_map(|name| registry.by_name.get(name));
        let found: Vec<_> = names.by_ref().take(limit).cloned().collect();
        let more = names.next().is_some();
        drop(registry);
        (found.iter().map(|topic| topic.info()).collect(), more)
    }

    /// How many topics begin with `prefix`.
    #[must_use]
    pub fn count_topics(&self, prefix: &str) -> usize {
        let registry = self.0.registry.read();
        if prefix.is_empty() {
            return registry.in_order.len();
        }
        let from = (Bound::Included(prefix), Bound::Unbounded);
        registry.in_order.range::<str, _>(from).take_while(|name| name.as_str().starts_with(prefix)).count()
    }

    /// Kept messages from a start on, oldest first, one turn's worth.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`].
    pub fn history(&self, name: &TopicName, start: Start, turn: Turn) -> Result<Page, Error> {
        let topic = self.find(name)?;
        if let Start::After(place) = start
            && place.epoch == topic.epoch
            && place.offset > topic.ring.lock().last()
        {
            return Err(subscribe::ahead("after"));
        }
        Ok(topic.page(start, turn))
    }

    /// The last `limit` kept messages before a place (or before the end), oldest first.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`]; [`Error::BadRequest`] for a place in another life of the topic.
    pub fn history_before(&self, name: &TopicName, before: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let topic = self.find(name)?;
        if before.is_some_and(|cursor| cursor.epoch != topic.epoch) {
            return Err(Error::bad_request("before", "is of another life of the topic"));
        }
        Ok(topic.page_before(before.map(|cursor| cursor.offset), limit))
    }

    /// The live subscriptions of a topic, those through patterns not included.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`].
    pub fn subscriptions(&self, name: &TopicName) -> Result<Vec<SubscriptionInfo>, Error> {
        Ok(self.find(name)?.subscriptions())
    }

    /// Numbers about the whole broker.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            topics: self.0.registry.read().in_order.len(),
            subscriptions: self.0.subscriptions.load(Ordering::Relaxed),
            published: self.0.published.load(Ordering::Relaxed),
            messages: self.0.budget.messages(),
            history_bytes: self.0.budget.used(),
            patterns: self.0.patterns.len(),
        }
    }

    // ---- publishing

    /// Appends a message to its topic and answers where it stands.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] (topics are not made on demand), [`Error::Conflict`], [`Error::RateLimited`],
    /// [`Error::LimitReached`], [`Error::Unavailable`] while draining. Nothing is stored then.
    pub fn publish(&self, name: &TopicName, mut draft: Draft) -> Result<Publication, Error> {
        self.check_not_draining()?;
        loop {
            let topic = self.find_or_make(name)?;
            match topic.append(draft) {
                Ok(publication) => {
                    if !publication.duplicate {
                        self.0.published.fetch_add(1, Ordering::Relaxed);
                    }
                    return Ok(publication);
                }
                // Deleted between finding and appending: the next look finds what there is now.
                Err(Refusal::Closed(back)) => draft = *back,
                Err(Refusal::Error(error)) => {
                    self.forget_if_unused(&topic);
                    return Err(error);
                }
            }
        }
    }

    // ---- consumers

    /// Moves a consumer's position behind `cursor`.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`], [`Error::BadRequest`] for a cursor of another topic or life, or ahead of the topic.
    pub fn acknowledge(&self, source: &Source, consumer: &ConsumerName, cursor: Cursor) -> Result<(), Error> {
        self.0.consumers.acknowledge(source, consumer, cursor, |topic, epoch| match self.find(topic) {
            Ok(topic) if topic.epoch == epoch => topic.ring.lock().last(),
            // Of an earlier life there is nothing to lose any more.
            _ => u64::MAX,
        })
    }

    /// Forgets a consumer.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`].
    pub fn delete_consumer(&self, source: &Source, consumer: &ConsumerName) -> Result<(), Error> {
        self.0.consumers.delete(source, consumer)?;
        self.forget_source_if_unused(source);
        Ok(())
    }

    /// The consumers of a topic or pattern, by name.
    #[must_use]
    pub fn consumers(&self, source: &Source) -> Vec<ConsumerStatus> {
        self.0.consumers.list(source)
    }

    /// Forgets consumers whose time is over. To be called now and then.
    pub fn sweep(&self) {
        for source in self.0.consumers.sweep() {
            self.forget_source_if_unused(&source);
        }
    }

    // ---- life

    /// Refuses publishing, subscribing and creating from here on: the server is going.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether [`Broker::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    fn check_not_draining(&self) -> Result<(), Error> {
        if self.is_draining() {
            return Err(Error::Unavailable("the server is shutting down"));
        }
        Ok(())
    }

    fn check_topic_settings(&self, settings: TopicSettings) -> Result<(), Error> {
        let limit = self.0.settings.max_messages_limit;
        if settings.max_messages.is_some_and(|count| count == 0 || count > limit) {
            return Err(Error::bad_request("maxMessages", format!("must be from 1 to {limit}")));
        }
        Ok(())
    }

    fn find(&self, name: &TopicName) -> Result<Arc<Topic>, Error> {
        self.0.registry.read().by_name.get(name).cloned().ok_or_else(|| not_found(name))
    }

    fn find_or_make(&self, name: &TopicName) -> Result<Arc<Topic>, Error> {
        match self.find(name) {
            Err(Error::TopicNotFound(_)) if self.0.settings.auto_create_topics => {}
            found => return found,
        }
        let mut registry = self.0.registry.write();
        if let Some(topic) = registry.by_name.get(name) {
            return Ok(topic.clone());
        }
        self.make_topic(&mut registry, name, true, TopicSettings::default())
    }

    fn make_topic(
        &self,
        registry: &mut Registry,
        name: &TopicName,
        implicit: bool,
        settings: TopicSettings,
    ) -> Result<Arc<Topic>, Error> {
        let shared = &self.0;
        if shared.alive.load(Ordering::Relaxed) >= shared.settings.max_topics {
            let limit = shared.settings.max_topics;
            return Err(Error::LimitReached { what: "topics on this server", limit, own: false });
        }
        let epoch = Epoch::random();
        let max_messages = settings.max_messages.unwrap_or(shared.settings.max_messages_per_topic);
        let bucket = Bucket::new(settings.max_publish_rate.unwrap_or(shared.settings.max_publish_rate));
        let topic = Arc::new(Topic {
            serial: shared.serial.fetch_add(1, Ordering::Relaxed),
            name: name.clone(),
            epoch,
            created_at: Timestamp::now(),
            implicit: AtomicBool::new(implicit),
            ring: Mutex::new(Ring::new(name.clone(), epoch, max_messages, bucket, shared.budget.clone())),
            waiters: Mutex::new(Slab::new()),
            patterns: shared.patterns.clone(),
            _alive: Alive::new(&shared.alive),
        });
        registry.insert(topic.clone());
        self.announce(name, TopicEventKind::Created);
        Ok(topic)
    }

    /// An implicit topic with no message, no subscriber and no consumer goes away.
    fn forget_if_unused(&self, topic: &Arc<Topic>) {
        if !topic.implicit.load(Ordering::Relaxed) || !topic.waiters.lock().is_empty() {
            return;
        }
        let mut registry = self.0.registry.write();
        let current = registry.by_name.get(&topic.name).is_some_and(|known| Arc::ptr_eq(known, topic));
        if !current || self.0.consumers.any(&Source::Topic(topic.name.clone())) {
            return;
        }
        // Looked at again under the locks that a new subscriber or message needs.
        let waiters = topic.waiters.lock();
        let mut ring = topic.ring.lock();
        if topic.implicit.load(Ordering::Acquire) && waiters.is_empty() && ring.last() == 0 {
            ring.closed = true;
            registry.remove(topic.name.as_str());
            self.announce(&topic.name, TopicEventKind::Deleted);
        }
    }

    fn forget_source_if_unused(&self, source: &Source) {
        if let Source::Topic(name) = source
            && let Ok(topic) = self.find(name)
        {
            self.forget_if_unused(&topic);
        }
    }
}

fn not_found(name: &TopicName) -> Error {
    Error::TopicNotFound(name.as_str().to_owned())
}

fn apply(topic: &Topic, settings: TopicSettings) {
    let mut ring = topic.ring.lock();
    if let Some(count) = settings.max_messages {
        ring.max_messages = count;
        ring.evict_to(count);
    }
    if let Some(rate) = settings.max_publish_rate {
        ring.bucket = Bucket::new(rate);
    }
}
