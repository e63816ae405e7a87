//! The broker: publishing, subscribing, history, limits; over the channels of this instance and the engine behind them. It
//! knows no HTTP, no GraphQL and no socket.
//!
//! Handle -> shared state -> guarded data: [`Broker`] is a clonable handle, and nobody outside sees a lock. No lock is
//! ever held over an await. Locks are taken in this order: registry, consumers, a topic's ring, the set of patterns, a
//! pattern's members, an inbox.

mod client;
mod consumer;
mod consumers;
mod metrics;
mod publish;
mod settings;
mod subscribe;
mod subscribe_pattern;
mod subscription;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

// What doors need to know of the layers beneath, they know from here.
pub use crate::channel::quote;
pub use crate::channel::{
    Ack, BEHIND_MESSAGES, BatchLimit, ConsumerInfo, ConsumerName, ConsumerStatus, Cursor, Epoch, Error, Event, Filter,
    FilterError, FilterLimits, Gap, GapReason, Inbox, Key, MAX_NAME_BYTES, MAX_NESTING, Message, MessageId, NewMessage,
    Overflow, Page, Pattern, PatternCursor, Payload, Publication, ReadStatus, ShapeId, Source, Start, SubscriptionInfo,
    Timestamp, TopicEventKind, TopicInfo, TopicName,
};
pub use crate::engine::MetricSample;
pub use client::{Client, Principal};
use publish::InFlight;
pub use publish::{Publishing, publish_all};
pub use settings::Settings;
pub use subscribe::{AnyCursor, Subscribe};
pub use subscription::{Newest, Progress, Subscription};

use crate::{
    channel::{Change, Channel, ConsumerLimits, Consumers, Registry, RegistrySettings, Spec},
    engine::{Engine, Health, Memory},
};

/// The one broker behind all doors; clones share it.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

struct Shared {
    settings: Settings,
    registry: Arc<Registry>,
    consumers: Arc<Consumers>,
    engine: Arc<dyn Engine>,
    published: AtomicU64,
    subscriptions: AtomicUsize,
    draining: AtomicBool,
    publishes: InFlight,
}

/// What a topic sets for itself; `None` leaves it as it is, or at the server's setting.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopicSettings {
    /// The bound of its history in messages.
    pub max_messages: Option<usize>,
    /// Messages a second that may be published; 0 means no limit.
    pub max_publish_rate: Option<u32>,
}

impl TopicSettings {
    fn change(self, adopt: bool) -> Change {
        Change { adopt, max_messages: self.max_messages, max_publish_rate: self.max_publish_rate }
    }
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
    /// Bytes that ids of messages take that are not kept any more.
    pub dedup_bytes: usize,
    /// Ids that were forgotten within the window since the start, because of the bound on their bytes.
    pub dedup_forgotten_early: u64,
}

impl Broker {
    /// A broker over an engine that is opened with it.
    ///
    /// # Errors
    /// What makes starting senseless, in one line that names the setting.
    pub async fn open(settings: Settings, engine: Arc<dyn Engine>) -> Result<Self, String> {
        let broker = Self::over(settings, engine);
        broker.0.engine.open(broker.0.registry.clone(), broker.0.consumers.clone()).await?;
        Ok(broker)
    }

    /// A broker without topics that keeps everything in memory.
    #[must_use]
    pub fn in_memory(settings: Settings) -> Self {
        let engine = Memory::default();
        let registry = Registry::new(registry_settings(&settings));
        let consumers = Arc::new(Consumers::new(consumer_limits(&settings)));
        engine.begin(registry.clone(), consumers.clone());
        Self::with(settings, registry, consumers, Arc::new(engine))
    }

    fn over(settings: Settings, engine: Arc<dyn Engine>) -> Self {
        let registry = Registry::new(registry_settings(&settings));
        let consumers = Arc::new(Consumers::new(consumer_limits(&settings)));
        Self::with(settings, registry, consumers, engine)
    }

    fn with(settings: Settings, registry: Arc<Registry>, consumers: Arc<Consumers>, engine: Arc<dyn Engine>) -> Self {
        Self(Arc::new(Shared {
            settings,
            registry,
            consumers,
            engine,
            published: AtomicU64::new(0),
            subscriptions: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            publishes: InFlight::default(),
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
    /// [`Error::Unavailable`] while draining or cut off from the engine.
    pub async fn create_topic(&self, name: &TopicName, settings: TopicSettings) -> Result<TopicInfo, Error> {
        self.check_topic_settings(settings)?;
        self.check_writable()?;
        loop {
            let Some(channel) = self.0.registry.find(name) else {
                self.check_makeable(name)?;
                return Ok(self.0.engine.create(name, Self::spec(false, settings)).await?.info());
            };
            match self.0.engine.update(&channel, settings.change(true)).await {
                Ok(()) => return Ok(channel.info()),
                // Gone in between: the next look finds what there is now.
                Err(Error::TopicNotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Changes a topic's settings. A smaller bound takes effect at once.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], [`Error::BadRequest`] for a setting out of bounds, [`Error::Unavailable`].
    pub async fn update_topic(&self, name: &TopicName, settings: TopicSettings) -> Result<TopicInfo, Error> {
        self.check_topic_settings(settings)?;
        self.check_writable()?;
        let channel = self.find_here_or_elsewhere(name).await?;
        self.0.engine.update(&channel, settings.change(false)).await?;
        Ok(channel.info())
    }

    /// Deletes a topic with its history and consumers. Its subscriptions read what they have not read yet, then end.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], [`Error::Unavailable`].
    pub async fn delete_topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        self.check_not_draining()?;
        // Also where the engine is short of room, which this may make.
        self.check_opened()?;
        let channel = self.find_here_or_elsewhere(name).await?;
        let info = channel.info();
        self.0.engine.delete(&channel).await?;
        self.0.engine.positions().remove_all(&Source::Topic(name.clone())).await?;
        Ok(info)
    }

    /// What is known of a topic.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], [`Error::Unavailable`] while the engine is starting.
    pub async fn topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        Ok(self.find_here_or_elsewhere(name).await?.info())
    }

    /// What this instance knows of a topic, without asking anybody.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], [`Error::Unavailable`] while the engine is starting.
    pub fn topic_here(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        Ok(self.find(name)?.info())
    }

    /// Up to `limit` topics in the order of their names: those that begin with `prefix` and come after `after`; and
    /// whether there are more.
    #[must_use]
    pub fn topics(&self, prefix: &str, after: Option<&str>, limit: usize) -> (Vec<TopicInfo>, bool) {
        self.0.registry.page(prefix, after, limit)
    }

    /// How many topics begin with `prefix`.
    #[must_use]
    pub fn count_topics(&self, prefix: &str) -> usize {
        self.0.registry.count(prefix)
    }

    /// Kept messages from a start on, oldest first, one batch.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`]; [`Error::BadRequest`] for a place that was not given out.
    pub async fn history(&self, name: &TopicName, start: Start, limit: BatchLimit) -> Result<Page, Error> {
        let channel = match start {
            Start::After(place) => self.at(name, place).await?,
            Start::AfterPattern(_) => {
                return Err(Error::bad_request(
                    "after",
                    "is the cursor of a pattern; a page takes a message's own cursor",
                ));
            }
            _ => self.find_here_or_elsewhere(name).await?,
        };
        if let Start::After(place) = start
            && subscribe::is_ahead(&channel, place)
        {
            return Err(subscribe::ahead("after"));
        }
        Ok(channel.page(&start, limit))
    }

    /// The last `limit` kept messages before a place (or before the end), oldest first.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`]; [`Error::BadRequest`] for a place in another incarnation of the topic.
    pub async fn history_before(&self, name: &TopicName, before: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let channel = match before {
            Some(place) => self.at(name, place).await?,
            None => self.find_here_or_elsewhere(name).await?,
        };
        if before.is_some_and(|cursor| cursor.epoch != channel.epoch()) {
            return Err(Error::bad_request("before", "is of another incarnation of the topic"));
        }
        Ok(channel.page_before(before.map(|cursor| cursor.offset), limit))
    }

    /// The live subscriptions of a topic on this instance, those through patterns not included.
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
            topics: self.0.registry.count(""),
            subscriptions: self.0.subscriptions.load(Ordering::Relaxed),
            published: self.0.published.load(Ordering::Relaxed),
            messages: self.0.registry.messages(),
            history_bytes: self.0.registry.history_bytes(),
            patterns: self.0.registry.patterns.len(),
            dedup_bytes: self.0.registry.recent_ids().bytes(),
            dedup_forgotten_early: self.0.registry.recent_ids().forgotten_early(),
        }
    }

    // ---- incarnation

    /// Refuses publishing, subscribing and creating from here on: the server is going.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    /// Waits until every publish that was begun is answered: after [`Broker::drain`] no other begins, so subscribers that
    /// have read everything then have all that was accepted.
    pub async fn settled(&self) {
        self.0.publishes.none_left().await;
    }

    /// Whether [`Broker::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Stores what is on its way and lets go of the engine.
    pub async fn close(&self) {
        self.0.engine.close().await;
    }

    /// How the server is, in one word: `ok`; `draining` while it stops; `starting` while the engine has not read yet what
    /// exists; `read_only` while it cannot store.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self.0.engine.health() {
            _ if self.is_draining() => "draining",
            Health::Ready => "ok",
            Health::Starting(_) => "starting",
            Health::ReadOnly(_) => "read_only",
        }
    }

    /// Whether the server can do all it is there for.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason.
    pub fn check_ready(&self) -> Result<(), Error> {
        self.check_writable()
    }

    fn check_not_draining(&self) -> Result<(), Error> {
        if self.is_draining() {
            return Err(Error::Unavailable("the server is shutting down"));
        }
        Ok(())
    }

    /// Nothing can be said about what was not read yet.
    fn check_opened(&self) -> Result<(), Error> {
        match self.0.engine.health() {
            Health::Ready | Health::ReadOnly(_) => Ok(()),
            Health::Starting(why) => Err(Error::Unavailable(why)),
        }
    }

    fn check_writable(&self) -> Result<(), Error> {
        self.check_not_draining()?;
        match self.0.engine.health() {
            Health::Ready => Ok(()),
            Health::ReadOnly(why) | Health::Starting(why) => Err(Error::Unavailable(why)),
        }
    }

    fn check_topic_settings(&self, settings: TopicSettings) -> Result<(), Error> {
        let limit = self.0.settings.max_messages_limit;
        if settings.max_messages.is_some_and(|count| count == 0 || count > limit) {
            return Err(Error::bad_request("maxMessages", format!("must be from 1 to {limit}")));
        }
        Ok(())
    }

    fn spec(implicit: bool, settings: TopicSettings) -> Spec {
        Spec { implicit, max_messages: settings.max_messages, max_publish_rate: settings.max_publish_rate }
    }

    fn newest_sequences(&self) -> Vec<(usize, u64)> {
        self.0.registry.newest_sequences()
    }

    fn find(&self, name: &TopicName) -> Result<Arc<Channel>, Error> {
        match self.0.registry.find(name) {
            Some(channel) => Ok(channel),
            None => Err(self.check_opened().err().unwrap_or_else(|| not_found(name))),
        }
    }

    /// The topic, also when another instance has made it a moment ago.
    async fn find_here_or_elsewhere(&self, name: &TopicName) -> Result<Arc<Channel>, Error> {
        if let Ok(channel) = self.find(name) {
            return Ok(channel);
        }
        self.check_opened()?;
        let learned = self.0.engine.catch_up(name, None).await;
        self.find(name).map_err(|missing| learned.err().unwrap_or(missing))
    }

    /// The topic, once this instance knows as much of it as the one that gave out the cursor.
    async fn at(&self, name: &TopicName, place: Cursor) -> Result<Arc<Channel>, Error> {
        let covers = |channel: &Channel| channel.epoch() == place.epoch && !subscribe::is_ahead(channel, place);
        if let Some(channel) = self.0.registry.find(name).filter(|channel| covers(channel)) {
            return Ok(channel);
        }
        self.check_opened()?;
        let learned = self.0.engine.catch_up(name, Some(place)).await;
        let channel = self.find(name);
        match learned {
            Err(why) if !channel.as_ref().is_ok_and(|channel| covers(channel)) => Err(why),
            _ => channel,
        }
    }

    async fn find_or_make(&self, name: &TopicName) -> Result<Arc<Channel>, Error> {
        loop {
            match self.find(name) {
                Err(Error::TopicNotFound(_)) if self.0.settings.auto_create_topics => {}
                Err(Error::TopicNotFound(_)) => return self.find_here_or_elsewhere(name).await,
                found => return found,
            }
            self.check_writable()?;
            self.check_makeable(name)?;
            match self.0.engine.create(name, Self::spec(true, TopicSettings::default())).await {
                // Somebody else was faster.
                Err(Error::TopicExists(_)) => {}
                made => return made,
            }
        }
    }

    /// Whether a topic of this name, which is not there, may be made.
    fn check_makeable(&self, name: &TopicName) -> Result<(), Error> {
        if subscribe::is_dots(name.as_str()) {
            return Err(Error::InvalidTopic(subscribe::DOTS));
        }
        self.0.registry.check_room()
    }

    /// An implicit topic with no message, no subscriber and no consumer goes away.
    fn forget_if_unused(&self, channel: &Arc<Channel>) {
        if channel.implicit.load(Ordering::Relaxed)
            && channel.waiters.lock().is_empty()
            && channel.ring.lock().is_unused()
            && !self.0.consumers.any(&Source::Topic(channel.name().clone()))
        {
            self.0.engine.forget(channel);
        }
    }

    fn forget_source_if_unused(&self, source: &Source) {
        if let Source::Topic(name) = source
            && let Some(channel) = self.0.registry.find(name)
        {
            self.forget_if_unused(&channel);
        }
    }
}

fn not_found(name: &TopicName) -> Error {
    Error::TopicNotFound(name.as_str().to_owned())
}

fn registry_settings(settings: &Settings) -> RegistrySettings {
    RegistrySettings {
        max_topics: settings.max_topics,
        max_bytes_per_topic: settings.max_bytes_per_topic,
        max_history_bytes: settings.max_history_bytes,
        max_patterns: settings.max_patterns,
        defaults: settings.defaults(),
        dedup_window: settings.dedup_window,
        dedup_bytes: settings.dedup_bytes,
    }
}

fn consumer_limits(settings: &Settings) -> ConsumerLimits {
    ConsumerLimits {
        per_source: settings.max_consumers_per_topic,
        total: settings.max_consumers,
        topics: settings.max_topics_per_consumer,
        ttl: settings.consumer_ttl,
    }
}
