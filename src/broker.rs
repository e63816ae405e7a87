//! The broker: publishing, subscribing, history, limits; over the channels of this instance and the engine behind them.
//! It knows no HTTP, no GraphQL and no socket.
//!
//! [`Broker`] is a clonable handle to the shared state, and nobody outside sees a lock. No lock is held over an await.
//! The order in which locks are taken stands at [`Channel`](crate::channel::Channel).

mod client;
mod client_info;
mod client_rates;
mod consumer;
mod consumers;
mod exemplars;
mod family;
mod measures;
mod metrics;
mod open;
mod principal;
mod publish;
mod reclaim;
mod request_id;
mod rights;
mod seek;
mod settings;
mod state;
mod subscribe;
mod subscribe_pattern;
mod subscribe_topic;
mod subscription;
#[cfg(test)]
mod tests;
mod topics;
mod trace;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

// Doors import from here what they need of the layers beneath.
pub use crate::channel::quote;
pub use crate::channel::{
    Ack, Age, AnyCursor, BEHIND_MESSAGES, BatchLimit, ConsumerInfo, ConsumerLag, ConsumerName, ConsumerStatus, Counted,
    Cursor, Defect, Deliver, Epoch, Error, Event, Filter, FilterError, FilterLimits, Gap, GapReason, Headers, Inbox,
    Key, MAX_NAME_BYTES, MAX_NESTING, Message, MessageId, NewMessage, Notifier, Overflow, Page, Pattern, PatternCursor,
    Payload, Publication, ReadStatus, Retention, ShapeId, Source, Start, SubscriptionId, SubscriptionInfo,
    SubscriptionState, Timestamp, TopicBounds, TopicConfig, TopicEventKind, TopicInfo, TopicName,
};
pub use crate::engine::{MetricSample, Secret};
pub use client::Client;
pub use client_info::ClientInfo;
use client_rates::ClientRates;
pub use exemplars::Exemplar;
pub use family::{MetricFamily, MetricKind, MetricSeries, MetricValue, bounds_in_seconds};
use measures::Measures;
pub use metrics::MAX_METRICS_TOPICS;
pub use open::ClientConnection;
use open::OpenConnections;
pub use principal::{Grant, Identity, Kind, Principal, PrincipalConnection, Watch, WeakPrincipal};
use publish::InFlight;
pub use publish::Publishing;
pub use request_id::RequestId;
pub use rights::{Right, Rights};
pub use settings::Settings;
pub use state::StatePage;
pub use subscribe::Subscribe;
pub use subscription::{Newest, Progress, Subscription};
pub use trace::{Publish, TRACE_PARENT, TRACE_STATE, TraceContext, Tracer};

use crate::{
    channel::{ConsumerLimits, Consumers, Registry, RegistrySettings, Shown, Waiter},
    engine::{Engine, Health, Memory},
};

const SHUTTING_DOWN: Error = Error::Unavailable("the server is shutting down");

/// How often silent topics are looked for.
const SILENCE_INTERVAL: Duration = Duration::from_secs(1);

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
    /// The number of the next subscription. It begins at random, so that no other instance gives the same.
    next_subscription: AtomicU64,
    /// The server is about to drain; no new subscription begins.
    leaving: AtomicBool,
    draining: AtomicBool,
    publishes: InFlight,
    client_rates: ClientRates,
    tracer: OnceLock<Arc<dyn Tracer>>,
    measures: Measures,
    open: Arc<OpenConnections>,
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
        let client_rates = ClientRates::new(settings.max_publish_rate_per_client);
        Self(Arc::new(Shared {
            client_rates,
            settings,
            registry,
            consumers,
            engine,
            published: AtomicU64::new(0),
            subscriptions: AtomicUsize::new(0),
            next_subscription: AtomicU64::new(Epoch::random().to_bits() << 32),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            publishes: InFlight::default(),
            tracer: OnceLock::new(),
            measures: Measures::default(),
            open: Arc::default(),
        }))
    }

    /// Has what happens to messages recorded from here on. Only the first tracer counts.
    pub fn trace_by(&self, tracer: Arc<dyn Tracer>) {
        let _ = self.0.tracer.set(tracer);
    }

    fn tracer(&self) -> Option<&Arc<dyn Tracer>> {
        self.0.tracer.get()
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
    pub async fn create_topic(&self, name: &TopicName, config: TopicConfig) -> Result<TopicInfo, Error> {
        config.check(self.0.settings.max_messages_limit, self.0.settings.max_keys)?;
        self.check_writable()?;
        loop {
            let Some(channel) = self.0.registry.find(name) else {
                self.check_creatable(name)?;
                return Ok(self.0.engine.create(name, config, false).await?.info());
            };
            match self.0.engine.update(&channel, config, true).await {
                Ok(()) => return Ok(channel.info()),
                // Deleted meanwhile: the next round finds what there is now.
                Err(Error::TopicNotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Changes a topic's settings. A smaller bound takes effect at once.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], [`Error::BadRequest`] for a setting out of bounds, [`Error::Unavailable`].
    pub async fn update_topic(&self, name: &TopicName, config: TopicConfig) -> Result<TopicInfo, Error> {
        config.check(self.0.settings.max_messages_limit, self.0.settings.max_keys)?;
        self.check_writable()?;
        let channel = self.look_up(name, None).await?;
        self.0.engine.update(&channel, config, false).await?;
        Ok(channel.info())
    }

    /// Deletes a topic with its history and consumers. Its subscriptions read what they have not read yet, then end.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], [`Error::Unavailable`].
    pub async fn delete_topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        self.check_not_draining()?;
        // Allowed while the engine refuses writes for want of room, too, because a deletion may make room.
        self.check_opened()?;
        let channel = self.look_up(name, None).await?;
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
        Ok(self.look_up(name, None).await?.info())
    }

    /// What this instance knows of a topic, without asking anybody.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], [`Error::Unavailable`] while the engine is starting.
    pub fn topic_here(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        Ok(self.find(name)?.info())
    }

    /// Up to `limit` topics in the order of their names, of those that are shown: those that begin with `prefix` and come after `after`; and
    /// whether there are more.
    #[must_use]
    pub(crate) fn topics(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        shown: Option<&Shown>,
    ) -> (Vec<TopicInfo>, bool) {
        self.0.registry.page(prefix, after, limit, |name| shown.is_none_or(|shown| shown(name)))
    }

    /// How many topics begin with `prefix`, of those that are shown.
    #[must_use]
    pub(crate) fn count_topics(&self, prefix: &str, shown: Option<&Shown>) -> usize {
        match shown {
            Some(shown) => self.0.registry.count_shown(prefix, |name| shown(name)),
            None => self.0.registry.count(prefix),
        }
    }

    /// Kept messages from a start on, oldest first, one batch.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`]; [`Error::BadRequest`] for a cursor that was not given out.
    pub async fn history(&self, name: &TopicName, start: Start, limit: BatchLimit) -> Result<Page, Error> {
        let channel = match start {
            Start::After(cursor) => self.look_up(name, Some(cursor)).await?,
            Start::AfterPattern(_) => {
                return Err(Error::bad_request(
                    "after",
                    "is the cursor of a pattern; a page takes a message's own cursor",
                ));
            }
            _ => self.look_up(name, None).await?,
        };
        if let Start::After(cursor) = start
            && topics::is_ahead(&channel, cursor)
        {
            return Err(topics::ahead("after"));
        }
        Ok(channel.page(&start, limit))
    }

    /// The last `limit` kept messages before a cursor (or before the end), oldest first.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`]; [`Error::BadRequest`] for a cursor in another incarnation of the topic.
    pub async fn history_before(&self, name: &TopicName, before: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let channel = match before {
            Some(cursor) => self.look_up(name, Some(cursor)).await?,
            None => self.look_up(name, None).await?,
        };
        if before.is_some_and(|cursor| cursor.epoch != channel.epoch()) {
            return Err(Error::bad_request("before", "is of another incarnation of the topic"));
        }
        Ok(channel.page_before(before.map(|cursor| cursor.offset), limit))
    }

    /// The live subscriptions of a topic on this instance, those through patterns too: the `most` that are furthest behind, the
    /// furthest first.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`].
    pub fn subscriptions(&self, name: &TopicName, most: usize) -> Result<Vec<SubscriptionInfo>, Error> {
        Ok(self.find(name)?.subscriptions(most))
    }

    /// A live subscription of this instance, and what it has subscribed to.
    fn find_subscription(&self, id: SubscriptionId) -> Option<(Arc<Waiter>, Source)> {
        self.0.registry.find_subscription(id)
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
            patterns: self.0.registry.pattern_count(),
            dedup_bytes: self.0.registry.recent_ids().bytes(),
            dedup_forgotten_early: self.0.registry.recent_ids().forgotten_early(),
        }
    }

    // ---- starting and stopping

    /// Refuses new subscriptions from here on and reports that the server is not ready, so that clients and load
    /// balancers go elsewhere. Everything else goes on until [`Broker::drain`].
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::SeqCst);
    }

    /// Whether new subscriptions are accepted.
    ///
    /// # Errors
    /// [`Error::Unavailable`] after [`Broker::leave`] or [`Broker::drain`].
    pub fn check_staying(&self) -> Result<(), Error> {
        if self.0.leaving.load(Ordering::SeqCst) {
            return Err(SHUTTING_DOWN);
        }
        self.check_not_draining()
    }

    /// Refuses publishing, subscribing and creating from here on: the server is going.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    /// Waits until every publish that was begun has its outcome: after [`Broker::drain`] no other begins, so
    /// subscribers that have read everything then have all that was accepted.
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

    /// How the server is, in one word: `ok`; `draining` while it stops; `starting` while the engine has not read yet
    /// what exists; `read_only` while it cannot store.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self.0.engine.health() {
            _ if self.check_staying().is_err() => "draining",
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
        self.check_staying()?;
        self.check_writable()
    }

    /// Those who deliver the topics' news directly, to be run as tasks. Without them every subscription wakes its own task.
    pub fn deliverers(&self) -> impl Iterator<Item = impl Future<Output = ()> + Send + 'static> {
        let deliveries = self.0.registry.deliveries();
        (0..deliveries.len()).map(|index| deliveries.clone().run(index))
    }

    fn check_not_draining(&self) -> Result<(), Error> {
        if self.is_draining() {
            return Err(SHUTTING_DOWN);
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

    /// Looks about once a second, for ever, in which topics nothing was published for longer than their `expect_every`, and in
    /// which something was published again. Says so in the log and in the topics' events.
    pub async fn watch_silence(self) {
        let mut looking = tokio::time::interval(SILENCE_INTERVAL);
        looking.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looking.tick().await;
            // Before the engine has read what exists, and where it is cut off from others, it knows too little.
            if self.0.engine.health() != Health::Ready {
                continue;
            }
            for (topic, is_silent) in self.0.registry.look_for_silence() {
                if is_silent {
                    tracing::warn!(?topic, "nothing was published in the topic for longer than its expect_every");
                } else {
                    tracing::info!(?topic, "something was published in the topic again");
                }
            }
        }
    }

    fn newest_sequences(&self) -> Vec<(usize, u64)> {
        self.0.registry.newest_sequences()
    }
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
