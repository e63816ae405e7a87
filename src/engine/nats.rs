//! The engine that several instances share: NATS `JetStream`.
//!
//! Topics stand in a bucket, consumers' positions in another, messages in one stream for all topics of a size (a subject for
//! each topic): `names.rs`. Every instance follows all of them (`follow.rs`), so each has every topic's history in its
//! channels, as the other engines have, and delivers from there; the cluster is asked for nothing that is read. A message's
//! offset is its sequence in the stream: it grows, and is the same on all instances.
//!
//! What a client was told, holds: a publish is answered when the stream has it and this instance's channel, too.

mod append;
mod catch_up;
mod changes;
mod follow;
mod known_ids;
mod link;
mod messages;
mod names;
mod positions;
mod publish;
mod same_id;
mod setup;
mod store;
mod topics;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Append, Engine, Health, Later, MetricSample, Opening, Positions, Secret};
use crate::channel::{
    Channel, Consumers, Cursor, Error, KnownId, NewMessage, PatternCursor, Registry, Retention, Source, TopicConfig,
    TopicName,
};
use append::Sending;
use follow::{Progress, follow};
use link::Link;
use messages::{MessagesHandler, Orphan};
use names::{CLASSES, Names};
use topics::Topics;

pub use setup::exists;

/// How to reach the cluster, and what to call things there.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One or more servers, separated by commas.
    pub url: String,
    /// What the names of streams, buckets and subjects begin with.
    pub prefix: String,
    /// Copies of everything; 0 takes three in a cluster and one elsewhere.
    pub replicas: usize,
    /// For how long an id is known after it was first published, whatever has become of its message.
    pub dedup_window: Duration,
    /// A user's name.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// A token in place of user and password.
    pub token: Secret,
    /// The seed of an nkey in place of both.
    pub nkey: Secret,
    /// A file of credentials (JWT and nkey) in place of all of them.
    pub credentials: String,
    /// `off` leaves it to the server, `on` insists, `first` begins with it.
    pub tls: String,
    /// A file of certificates to trust beside the system's.
    pub tls_ca: String,
    /// A file with this client's certificate.
    pub tls_cert: String,
    /// A file with its key.
    pub tls_key: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            prefix: "pubsub".to_owned(),
            replicas: 0,
            dedup_window: Duration::from_mins(5),
            user: String::new(),
            password: Secret::default(),
            token: Secret::default(),
            nkey: Secret::default(),
            credentials: String::new(),
            tls: "off".to_owned(),
            tls_ca: String::new(),
            tls_cert: String::new(),
            tls_key: String::new(),
        }
    }
}

impl Settings {
    /// The servers' addresses.
    ///
    /// # Errors
    /// One line about what is none.
    fn servers(&self) -> Result<Vec<async_nats::ServerAddr>, String> {
        let servers = self.url.split(',').map(str::trim).filter(|url| !url.is_empty());
        let servers: Result<Vec<_>, _> = servers.map(str::parse).collect();
        match servers {
            Ok(servers) if servers.is_empty() => Err("NATS_URL: names no server".to_owned()),
            Ok(servers) => Ok(servers),
            Err(error) => Err(format!("NATS_URL: {error}")),
        }
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// One line that names the setting.
    pub fn check(&self) -> Result<(), String> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.prefix.is_empty() || self.prefix.len() > 32 || !self.prefix.chars().all(word) {
            return Err("NATS_PREFIX: must be 1 to 32 letters, digits, '_' or '-'".to_owned());
        }
        if self.replicas > 5 {
            return Err("NATS_REPLICAS: must be from 0 to 5".to_owned());
        }
        self.servers().and_then(|servers| link::url_login(&servers)).map(drop)
    }
}

/// What is said while the cluster cannot be asked.
const NOT_NOW: &str = "NATS cannot be reached or does not answer; nothing was stored";

/// A connection that is down no longer than this is waited for.
const GRACE: Duration = Duration::from_secs(2);

/// An election takes 4 to 9 s; a cluster that has been silent for longer has lost more than its leader.
const SILENCE: Duration = Duration::from_secs(8);

/// How long a start waits for the cluster before it goes on without being ready.
const START: Duration = Duration::from_secs(5);

/// How long a stop waits for what is on its way.
const CLOSE: Duration = Duration::from_secs(5);

/// The engine that instances share.
pub struct Nats {
    settings: Settings,
    opened: OnceLock<Opened>,
}

struct Opened {
    inner: Arc<Inner>,
    positions: Arc<positions::Shared>,
    sending: Sending,
}

struct Inner {
    link: Link,
    names: Names,
    /// This instance's name among the others.
    instance: String,
    topics: Arc<Topics>,
    /// How far the streams are followed, by class.
    classes: Mutex<HashMap<usize, Arc<Progress>>>,
    /// Messages of no topic.
    orphaned: mpsc::Sender<Orphan>,
    /// Messages that only make an id known.
    known_ids: Arc<known_ids::Stored>,
    replicas: usize,
    dedup_window: Duration,
    ready: AtomicBool,
    /// Work that ends with the engine.
    tasks: TaskTracker,
    /// Publishes and saves on their way.
    in_flight: TaskTracker,
    same_id: same_id::SameId,
    stop: CancellationToken,
}

impl Nats {
    /// The engine, not yet open.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, opened: OnceLock::new() }
    }

    fn opened(&self) -> Result<&Opened, Error> {
        self.opened.get().ok_or(Error::Unavailable("the engine is not open"))
    }

    fn inner(&self) -> Result<&Arc<Inner>, Error> {
        self.opened().map(|opened| &opened.inner)
    }
}

impl Inner {
    /// How far the stream of a class is followed; following it begins with the first question.
    fn progress(self: &Arc<Self>, class: usize) -> Arc<Progress> {
        let mut classes = self.classes.lock();
        if let Some(progress) = classes.get(&class) {
            return progress.clone();
        }
        let progress = Progress::new();
        classes.insert(class, progress.clone());
        drop(classes);
        let source = follow::Source {
            stream: self.names.stream(class),
            stored: self.names.stored(class),
            live: self.names.live(class),
        };
        let (topics, known_ids) = (self.topics.clone(), self.known_ids.clone());
        let handler = MessagesHandler::new(class, self.link.clone(), topics, self.orphaned.clone(), known_ids);
        self.tasks.spawn(follow(self.link.clone(), source, handler, progress.clone(), self.stop.clone()));
        progress
    }

    /// Follows the streams of all topics.
    fn follow_all(self: &Arc<Self>) {
        for class in self.topics.classes() {
            self.progress(class);
        }
    }

    fn health(&self) -> Health {
        if !self.ready.load(Ordering::Acquire) {
            return Health::Starting("NATS cannot be reached yet, or what it has is still being read");
        }
        if !self.link.is_up() {
            return Health::ReadOnly(NOT_NOW);
        }
        let silent = |progress: &Arc<Progress>| progress.silent_for() > SILENCE;
        if silent(&self.topics.progress) || self.classes.lock().values().any(silent) {
            return Health::ReadOnly(NOT_NOW);
        }
        Health::Ready
    }

    /// Whether trying makes sense.
    fn check(&self) -> Result<(), Error> {
        match self.health() {
            Health::Starting(why) => Err(Error::Unavailable(why)),
            // A short break is waited for.
            Health::ReadOnly(why) if self.link.is_up() || self.link.down_for() > GRACE => Err(Error::Unavailable(why)),
            Health::Ready | Health::ReadOnly(_) => Ok(()),
        }
    }
}

/// A stream keeps the newest messages of a topic, whatever keys they have.
fn check_retention(config: TopicConfig) -> Result<(), Error> {
    match config.retention {
        Some(Retention::LatestPerKey) => {
            let why = "LATEST_PER_KEY is not available with ENGINE=nats, where a topic keeps its newest messages";
            Err(Error::bad_request("retention", why))
        }
        Some(Retention::History) | None => Ok(()),
    }
}

impl Engine for Nats {
    fn open(&self, registry: Arc<Registry>, consumers: Arc<Consumers>) -> Opening<'_> {
        Box::pin(async move {
            let link = Link::open(&self.settings).await?;
            let names = Names::new(&self.settings.prefix);
            let (tasks, in_flight) = (TaskTracker::new(), TaskTracker::new());
            let (orphaned, orphans) = mpsc::channel(10_000);
            let inner = Arc::new(Inner {
                topics: Topics::new(registry, names.topics()),
                link: link.clone(),
                instance: uuid::Uuid::new_v4().to_string(),
                classes: Mutex::default(),
                orphaned,
                known_ids: Arc::default(),
                replicas: self.settings.replicas,
                dedup_window: self.settings.dedup_window,
                ready: AtomicBool::new(false),
                tasks: tasks.clone(),
                in_flight: in_flight.clone(),
                same_id: same_id::SameId::default(),
                stop: CancellationToken::new(),
                names,
            });
            let positions = positions::Shared::new(consumers, inner.names.consumers(), link.clone(), in_flight);
            let (sender, queue) = mpsc::channel(publish::QUEUE);
            let sending = Sending { inner: inner.clone(), queue: sender };
            tasks.spawn(publish::send_all(link, queue, inner.stop.clone()));
            tasks.spawn(setup::delete_orphans(inner.clone(), orphans));
            let (tell, started) = oneshot::channel();
            tasks.spawn(setup::start(inner.clone(), positions.clone(), tell));
            self.opened
                .set(Opened { inner, positions, sending })
                .map_err(|_| "the engine is open already".to_owned())?;
            // Usually all is there in a moment. If not, the server stands and says that it is not ready.
            match timeout(START, started).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) | Err(_) => Ok(()),
            }
        })
    }

    fn create<'a>(&'a self, name: &'a TopicName, config: TopicConfig, implicit: bool) -> Later<'a, Arc<Channel>> {
        Box::pin(async move {
            check_retention(config)?;
            self.inner()?.create(name, config, implicit).await
        })
    }

    fn update<'a>(&'a self, channel: &'a Arc<Channel>, change: TopicConfig, adopt: bool) -> Later<'a, ()> {
        Box::pin(async move {
            check_retention(change)?;
            self.inner()?.update(channel, change, adopt).await
        })
    }

    fn delete<'a>(&'a self, channel: &'a Arc<Channel>) -> Later<'a, ()> {
        Box::pin(async move { self.inner()?.delete(channel).await })
    }

    fn append(&self, channel: &Arc<Channel>, new_message: NewMessage) -> Append {
        match self.opened() {
            Ok(opened) => opened.sending.append(channel, new_message),
            Err(error) => Err(error.into()).into(),
        }
    }

    fn remember<'a>(&'a self, channel: &'a Arc<Channel>, ids: &'a [KnownId]) -> Later<'a, ()> {
        Box::pin(async move { self.inner()?.remember(channel, ids).await })
    }

    fn release(&self, channel: &Arc<Channel>) {
        if let Ok(inner) = self.inner() {
            inner.release(channel);
        }
    }

    fn pin<'a>(&'a self, channel: &'a Arc<Channel>) -> Later<'a, ()> {
        Box::pin(async move { self.inner()?.pin(channel).await })
    }

    fn catch_up_logs<'a>(&'a self, position: &'a PatternCursor) -> Later<'a, ()> {
        catch_up::within_time(async move { self.inner()?.catch_up_logs(position).await })
    }

    fn catch_up(&self, cursor: Option<Cursor>) -> Later<'_, ()> {
        catch_up::within_time(async move { self.inner()?.catch_up(cursor).await })
    }

    fn catch_up_to_newest(&self) -> Later<'_, ()> {
        catch_up::within_time(async move { self.inner()?.catch_up_to_newest().await })
    }

    fn health(&self) -> Health {
        self.inner().map_or(Health::Starting("the engine is not open"), |inner| inner.health())
    }

    fn metric_samples(&self) -> Vec<MetricSample> {
        let Ok(inner) = self.inner() else { return Vec::new() };
        let sample = |name, counter, help, value| MetricSample { name, label: None, counter, help, value };
        let classes = inner.classes.lock();
        let sum = |of: fn(&Progress) -> u64| classes.values().map(|progress| of(progress)).sum();
        vec![
            sample("nats_connected", false, "Whether there is a connection to NATS.", u64::from(inner.link.is_up())),
            sample("nats_reconnects_total", true, "Connections to NATS after the first.", inner.link.reconnects()),
            sample("nats_streams", false, "Streams that are followed.", classes.len() as u64),
            sample(
                "nats_sequence",
                false,
                "Messages of NATS that were followed, all streams together.",
                sum(Progress::seen),
            ),
            sample(
                "nats_repaired_total",
                true,
                "Messages that the live feed missed and that were read again from the store.",
                sum(Progress::repaired),
            ),
            sample("nats_in_flight", false, "Publishes and saves that wait for NATS.", inner.in_flight.len() as u64),
        ]
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let Ok(Opened { inner, positions, .. }) = self.opened() else { return };
            inner.in_flight.close();
            let _ = timeout(CLOSE, inner.in_flight.wait()).await;
            // Without a connection there is nobody to tell.
            if inner.link.is_up() {
                let _ = timeout(CLOSE, positions.flush()).await;
                let _ = timeout(CLOSE, inner.link.client.flush()).await;
            }
            inner.stop.cancel();
            inner.tasks.close();
            let _ = timeout(CLOSE, inner.tasks.wait()).await;
            if inner.link.is_up() {
                let _ = timeout(CLOSE, inner.link.client.drain()).await;
            }
        })
    }

    fn positions(&self) -> &dyn Positions {
        self
    }
}

/// Whether a topic is needed on this instance.
fn is_used(channel: &Channel, consumers: &Consumers) -> bool {
    channel.has_waiters() || consumers.any(&Source::Topic(channel.name().clone())) || channel.has_patterns()
}
