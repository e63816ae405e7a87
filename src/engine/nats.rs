//! The engine that several instances share: NATS `JetStream`.
//!
//! Topics stand in a bucket, consumers' positions in another, messages in one stream for all topics of a size (a subject for
//! each topic): `names.rs`. Every instance follows all of them (`follow.rs`), so each has every topic's history in its
//! channels, as the other engines have, and delivers from there; the cluster is asked for nothing that is read. A message's
//! offset is its sequence in the stream: it grows, and is the same on all instances.
//!
//! What a client was told, holds: a publish is answered when the stream has it and this instance's channel, too.

mod follow;
mod link;
mod messages;
mod names;
mod positions;
mod publish;
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
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Append, Engine, Figure, Health, Later, Positions, Secret};
use crate::channel::{
    Change, Channel, Consumers, Cursor, Draft, Epoch, Error, MessageId, Publication, Refusal, Registry, Source, Spec,
    Timestamp, TopicName,
};
use follow::{Progress, follow};
use link::Link;
use messages::MessagesHandler;
use names::{CLASSES, Names, class_of, encode};
use publish::Outgoing;
use store::Put;
use topics::{Entry, Topics};

/// How to reach the cluster, and what to call things there.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One or more servers, separated by commas.
    pub url: String,
    /// What the names of streams, buckets and subjects begin with.
    pub prefix: String,
    /// Copies of everything; 0 takes three in a cluster and one elsewhere.
    pub replicas: usize,
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
        self.servers().map(drop)
    }
}

/// What is said while the cluster cannot be asked.
const NOT_NOW: &str = "NATS cannot be reached or does not answer; nothing was stored";

/// A connection that is down no longer than this is waited for.
const GRACE: Duration = Duration::from_secs(2);

/// An election takes 4 to 9 s; a cluster that has been silent for longer has lost more than its leader.
const SILENCE: Duration = Duration::from_secs(8);

/// How long a start waits for the cluster before it goes on without being ready.
const START: Duration = Duration::from_secs(10);

/// How long a client may have to wait for what another instance has told it.
const CATCH_UP: Duration = Duration::from_secs(3);

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
    sending: mpsc::Sender<Outgoing>,
}

struct Inner {
    link: Link,
    names: Names,
    /// This instance's name among the others.
    instance: String,
    topics: Arc<Topics>,
    /// How far the streams are followed, by class.
    classes: Mutex<HashMap<usize, Arc<Progress>>>,
    /// Messages of no topic, by class and sequence.
    orphaned: mpsc::Sender<(usize, u64)>,
    replicas: usize,
    ready: AtomicBool,
    /// Work that ends with the engine.
    tasks: TaskTracker,
    /// Publishes and saves on their way.
    in_flight: TaskTracker,
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
        let handler = MessagesHandler::new(class, self.link.clone(), self.topics.clone(), self.orphaned.clone());
        self.tasks.spawn(follow(self.link.clone(), source, handler, progress.clone(), self.stop.clone()));
        progress
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

    async fn create(self: &Arc<Self>, name: &TopicName, spec: Spec) -> Result<Arc<Channel>, Error> {
        self.check()?;
        let class = class_of(spec.max_messages).ok_or_else(too_long)?;
        self.ensure_class(class).await?;
        self.progress(class);
        let token = encode(name.as_str());
        let epoch = Epoch::random();
        let entry = Entry {
            name: name.as_str().to_owned(),
            epoch: epoch.to_string(),
            created_at: Timestamp::now().0,
            implicit: spec.implicit,
            max_messages: spec.max_messages,
            max_publish_rate: spec.max_publish_rate,
            class,
            owner: if spec.implicit { self.instance.clone() } else { String::new() },
        };
        let begun = Instant::now();
        loop {
            let known = self.topics.get(&token);
            match &known {
                // Written in an earlier round, without an answer.
                Some(topics::Known { channel: Some(channel), .. }) if channel.epoch() == epoch => {
                    return Ok(channel.clone());
                }
                Some(topics::Known { entry: Some(_), channel, .. }) => {
                    if channel.as_ref().is_some_and(|channel| !channel.ring.lock().closed) {
                        return Err(Error::TopicExists(name.clone()));
                    }
                    // It is being forgotten at this moment, or is about to get another life.
                    self.topics.sync(&self.link).await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Some(topics::Known { entry: None, .. }) | None => {
                    let expected = known.map_or(0, |known| known.revision);
                    self.topics.write(&self.link, &token, Some(&entry), expected).await?;
                }
            }
            if begun.elapsed() > store::BUDGET {
                return Err(Error::Unavailable(NOT_NOW));
            }
        }
    }

    async fn update(&self, channel: &Arc<Channel>, change: Change) -> Result<(), Error> {
        self.check()?;
        let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
        let token = channel.label.get().ok_or_else(gone)?;
        let begun = Instant::now();
        loop {
            let known = self.topics.get(token).ok_or_else(gone)?;
            let (Some(entry), Some(current)) = (&known.entry, &known.channel) else { return Err(gone()) };
            if !Arc::ptr_eq(current, channel) {
                return Err(gone());
            }
            if change.adopt && !entry.implicit {
                return Err(Error::TopicExists(channel.name().clone()));
            }
            let spec = change.applied_to(entry.spec());
            if spec.max_messages > entry.class {
                return Err(Error::bad_request(
                    "maxMessages",
                    format!("this topic's history can be enlarged to {} at most; create it anew for more", entry.class),
                ));
            }
            let entry = Entry { owner: String::new(), ..entry.with_spec(spec) };
            match self.topics.write(&self.link, token, Some(&entry), known.revision).await? {
                Put::Stored(_) => return Ok(()),
                Put::Conflict if begun.elapsed() > store::BUDGET => return Err(Error::Unavailable(NOT_NOW)),
                // Somebody else has changed it, or this change was written before without an answer.
                Put::Conflict => {}
            }
        }
    }

    async fn delete(self: &Arc<Self>, channel: &Arc<Channel>) -> Result<(), Error> {
        self.check()?;
        let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
        let token = channel.label.get().ok_or_else(gone)?;
        let class = usize::try_from(channel.key).unwrap_or(0);
        let stream = self.link.jetstream.get_stream_no_info(self.names.stream(class)).await;
        // What is stored up to here is of this life, or of an earlier one: it may be removed whatever comes after.
        let end = match &stream {
            Ok(stream) => stream.get_info().await.ok().map(|info| info.state.last_sequence),
            Err(_) => None,
        };
        let begun = Instant::now();
        loop {
            let known = self
                .topics
                .get(token)
                .filter(|known| known.channel.as_ref().is_some_and(|current| Arc::ptr_eq(current, channel)));
            let Some(known) = known else {
                // Deleted by somebody else, or by this call when its answer was lost.
                return if begun.elapsed() > link::ATTEMPT { Ok(()) } else { Err(gone()) };
            };
            match self.topics.write(&self.link, token, None, known.revision).await? {
                Put::Stored(_) => break,
                Put::Conflict if begun.elapsed() > store::BUDGET => return Err(Error::Unavailable(NOT_NOW)),
                Put::Conflict => {}
            }
        }
        if let (Ok(stream), Some(end)) = (stream, end) {
            let subject = format!("{}{token}", self.names.stored(class));
            self.in_flight.spawn(async move {
                let purge = stream.purge().filter(subject).sequence(end + 1);
                // What stays behind belongs to no topic: whoever reads it deletes it.
                if let Err(error) = purge.await {
                    tracing::debug!(%error, "a deleted topic's messages are left for later");
                }
            });
        }
        Ok(())
    }

    fn forget(self: &Arc<Self>, channel: &Arc<Channel>) {
        let Some(token) = channel.label.get() else { return };
        let Some(known) = self.topics.get(token) else { return };
        // Another instance may need it: then it goes when none has said so for long.
        let own = known.entry.as_ref().is_some_and(|entry| entry.implicit && entry.owner == self.instance);
        if !own || !self.topics.registry.remove_unused(channel, || {}) {
            return;
        }
        let (inner, token) = (self.clone(), token.to_string());
        self.in_flight.spawn(async move {
            let deleted = inner.topics.write(&inner.link, &token, None, known.revision).await;
            if deleted.is_err() {
                // It is there still, so it has to be here.
                inner.topics.put_back(&token);
            }
        });
    }

    /// Says that this instance needs an implicit topic that another has made, so that that one does not forget it.
    async fn join(&self, channel: &Arc<Channel>) -> Result<(), Error> {
        let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
        let token = channel.label.get().ok_or_else(gone)?;
        let begun = Instant::now();
        while begun.elapsed() < store::BUDGET {
            let known = self.topics.get(token).ok_or_else(gone)?;
            let Some(entry) = known.entry.filter(|_| known.channel.is_some()) else { return Err(gone()) };
            if !entry.implicit || entry.owner.is_empty() || entry.owner == self.instance {
                return Ok(());
            }
            let shared = Entry { owner: String::new(), ..entry };
            if let Put::Stored(_) = self.topics.write(&self.link, token, Some(&shared), known.revision).await? {
                return Ok(());
            }
        }
        Err(Error::Unavailable(NOT_NOW))
    }
}

fn too_long() -> Error {
    let most = CLASSES.last().copied().unwrap_or(0);
    Error::bad_request("maxMessages", format!("must be at most {most} with ENGINE=nats"))
}

impl Engine for Nats {
    fn open(
        &self,
        registry: Arc<Registry>,
        consumers: Arc<Consumers>,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
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
                replicas: self.settings.replicas,
                ready: AtomicBool::new(false),
                tasks: tasks.clone(),
                in_flight: in_flight.clone(),
                stop: CancellationToken::new(),
                names,
            });
            let positions = positions::Shared::new(consumers, inner.names.consumers(), link.clone(), in_flight.clone());
            let (sending, queue) = mpsc::channel(publish::QUEUE);
            tasks.spawn(publish::send_all(link, queue, in_flight));
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

    fn create<'a>(&'a self, name: &'a TopicName, spec: Spec) -> Later<'a, Arc<Channel>> {
        Box::pin(async move { self.inner()?.create(name, spec).await })
    }

    fn update<'a>(&'a self, channel: &'a Arc<Channel>, change: Change) -> Later<'a, ()> {
        Box::pin(async move { self.inner()?.update(channel, change).await })
    }

    fn delete<'a>(&'a self, channel: &'a Arc<Channel>) -> Later<'a, ()> {
        Box::pin(async move { self.inner()?.delete(channel).await })
    }

    fn append(&self, channel: &Arc<Channel>, draft: Draft) -> Append {
        let begin = || -> Result<Append, Refusal> {
            let opened = self.opened()?;
            let inner = &opened.inner;
            {
                let ring = channel.ring.lock();
                if ring.closed {
                    return Err(Refusal::Closed);
                }
                if let Some(first) = draft.id.as_ref().and_then(|id| ring.find_id(id)) {
                    return Ok(Ok(Publication::of(first, true)).into());
                }
                // Charged when the message comes back, whoever has published it.
                ring.bucket.check()?;
            }
            inner.check()?;
            let gone = || Refusal::Closed;
            let token = channel.label.get().ok_or_else(gone)?;
            let class = usize::try_from(channel.key).unwrap_or(0);
            let id = draft.id.clone().unwrap_or_else(MessageId::generate);
            let (answer, answered) = oneshot::channel();
            let outgoing = Outgoing {
                subject: format!("{}{token}", inner.names.stored(class)),
                headers: messages::headers(channel, &id, &draft),
                payload: draft.data.as_bytes(),
                id,
                channel: channel.clone(),
                begun: Instant::now(),
                progress: inner.progress(class),
                stream: inner.names.stream(class),
                answer,
            };
            opened.sending.try_send(outgoing).map_err(|refused| {
                Error::Unavailable(match refused {
                    mpsc::error::TrySendError::Full(_) => "NATS does not keep up; nothing was stored",
                    mpsc::error::TrySendError::Closed(_) => "the server is shutting down",
                })
            })?;
            Ok(Append::Later(Box::pin(async move {
                answered.await.unwrap_or_else(|_| Err(Error::Unavailable("the server is shutting down").into()))
            })))
        };
        begin().unwrap_or_else(|refusal| Err(refusal).into())
    }

    fn forget(&self, channel: &Arc<Channel>) {
        if let Ok(inner) = self.inner() {
            inner.forget(channel);
        }
    }

    fn join<'a>(&'a self, channel: &'a Arc<Channel>) -> Later<'a, ()> {
        Box::pin(async move { self.inner()?.join(channel).await })
    }

    fn catch_up<'a>(
        &'a self,
        _: &'a TopicName,
        cursor: Option<Cursor>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let knowing = async move {
            let Ok(inner) = self.inner() else { return };
            if !inner.link.is_up() || inner.topics.sync(&inner.link).await.is_err() {
                return;
            }
            let Some(cursor) = cursor else { return };
            let classes: Vec<_> = inner.classes.lock().iter().map(|(class, seen)| (*class, seen.clone())).collect();
            for (class, progress) in classes {
                // Whoever makes a cursor up need not be waited for.
                if progress.seen() < cursor.offset {
                    let _ = topics::sync(&inner.link, &inner.names.stream(class), &progress).await;
                }
            }
        };
        Box::pin(async move {
            let _ = timeout(CATCH_UP, knowing).await;
        })
    }

    fn health(&self) -> Health {
        self.inner().map_or(Health::Starting("the engine is not open"), |inner| inner.health())
    }

    fn figures(&self) -> Vec<Figure> {
        let Ok(inner) = self.inner() else { return Vec::new() };
        let figure = |name, counter, help, value| Figure { name, counter, help, value };
        let classes = inner.classes.lock();
        let sum = |of: fn(&Progress) -> u64| classes.values().map(|progress| of(progress)).sum();
        vec![
            figure("nats_connected", false, "Whether there is a connection to NATS.", u64::from(inner.link.is_up())),
            figure("nats_reconnects_total", true, "Connections to NATS after the first.", inner.link.reconnects()),
            figure("nats_streams", false, "Streams that are followed.", classes.len() as u64),
            figure(
                "nats_sequence",
                false,
                "Messages of NATS that were followed, all streams together.",
                sum(Progress::seen),
            ),
            figure(
                "nats_repaired_total",
                true,
                "Messages that the live feed missed and that were read again from the store.",
                sum(Progress::repaired),
            ),
            figure("nats_in_flight", false, "Publishes and saves that wait for NATS.", inner.in_flight.len() as u64),
        ]
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let Ok(Opened { inner, positions, .. }) = self.opened() else { return };
            inner.in_flight.close();
            let _ = timeout(CLOSE, inner.in_flight.wait()).await;
            let _ = timeout(CLOSE, positions.flush()).await;
            let _ = timeout(CLOSE, inner.link.client.flush()).await;
            inner.stop.cancel();
            inner.tasks.close();
            let _ = timeout(CLOSE, inner.tasks.wait()).await;
            let _ = timeout(CLOSE, inner.link.client.drain()).await;
        })
    }

    fn positions(&self) -> &dyn Positions {
        self
    }
}

/// Whether a topic is needed on this instance.
fn is_used(channel: &Channel, consumers: &Consumers) -> bool {
    !channel.waiters.lock().is_empty()
        || consumers.any(&Source::Topic(channel.name().clone()))
        || channel.has_patterns()
}
