//! The seam behind the broker: what survives the process, and what several instances share.
//!
//! In every engine what subscribers read is the local [`Channel`] of a topic. The engine numbers messages, stores them,
//! keeps the registry of topics, remembers publish ids and consumers' positions, and feeds the channels. What every engine
//! owes is in the two traits' words, and `conformance.rs` asks each for it.

pub mod conformance;
pub mod disk;
mod memory;
pub mod nats;
mod position;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

pub use disk::Disk;
pub use memory::Memory;
pub use nats::Nats;

use crate::channel::{
    Ack, Channel, Claim, Consumer, ConsumerKey, ConsumerStatus, Consumers, Cursor, Error, KnownId, NewMessage,
    PatternCursor, Position, Publication, Refusal, Registry, Source, TopicConfig, TopicName, Waiter,
};

/// Which engine, and how it stores.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `memory`, `disk` or `nats`.
    pub engine: String,
    /// The disk engine's directory.
    pub data_dir: String,
    /// When the disk engine counts a message as stored: `always`, `interval` or `never`.
    pub fsync: String,
    /// With `interval`: the time between two syncs.
    pub fsync_interval: Duration,
    /// How to reach the NATS cluster.
    pub nats: nats::Settings,
}

/// Bounds of the whole service that an engine keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the largest message's data.
    pub max_payload_bytes: usize,
    /// How long a publisher's message id is remembered after its publication, whatever becomes of the message.
    pub dedup_window: Duration,
    /// Bytes that ids of messages that are not kept may take.
    pub dedup_bytes: usize,
}

/// Text that no log and no listing shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps the text to itself.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "" } else { "***" })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            engine: "memory".to_owned(),
            data_dir: "data".to_owned(),
            fsync: "always".to_owned(),
            fsync_interval: Duration::from_millis(100),
            nats: nats::Settings::default(),
        }
    }
}

impl Settings {
    /// The engine, not yet open.
    ///
    /// # Errors
    /// What is wrong, in one line that names the setting.
    pub fn engine(&self, bounds: Bounds) -> Result<Arc<dyn Engine>, String> {
        let Bounds { max_payload_bytes, dedup_window, dedup_bytes } = bounds;
        match self.engine.as_str() {
            "memory" => Ok(Arc::new(Memory::default())),
            "disk" => {
                let fsync = match self.fsync.as_str() {
                    "always" => disk::Fsync::Always,
                    "interval" => disk::Fsync::Interval(self.fsync_interval),
                    "never" => disk::Fsync::Never,
                    other => return Err(format!("FSYNC: must be one of always, interval, never, not {other:?}")),
                };
                if max_payload_bytes > disk::MAX_PAYLOAD_BYTES {
                    let most = disk::MAX_PAYLOAD_BYTES;
                    return Err(format!("MAX_PAYLOAD_BYTES: must be at most {most} with ENGINE=disk"));
                }
                let directory = self.data_dir.clone().into();
                Ok(Arc::new(Disk::new(disk::Settings {
                    directory,
                    fsync,
                    max_payload_bytes,
                    dedup_window,
                    dedup_bytes: dedup_bytes as u64,
                })))
            }
            "nats" => {
                self.nats.check()?;
                Ok(Arc::new(Nats::new(nats::Settings { dedup_window, ..self.nats.clone() })))
            }
            other => Err(format!("ENGINE: must be one of memory, disk, nats, not {other:?}")),
        }
    }
}

/// An answer that may take its time.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// What comes of opening an engine: a failure is one line for the operator.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// An answer that is there already.
pub(crate) fn ready<'a, T: Send + 'a>(result: Result<T, Error>) -> Later<'a, T> {
    Box::pin(std::future::ready(result))
}

/// What becomes of a message: an engine without a store has the answer at once, and makes no future for it.
#[must_use]
pub enum Append {
    /// The answer; `None` once it was taken.
    Done(Option<Result<Publication, Refusal>>),
    /// It will come, whether this is polled or not.
    Later(Pin<Box<dyn Future<Output = Result<Publication, Refusal>> + Send>>),
}

impl From<Result<Publication, Refusal>> for Append {
    fn from(result: Result<Publication, Refusal>) -> Self {
        Append::Done(Some(result))
    }
}

impl Future for Append {
    type Output = Result<Publication, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            // Polled again after its answer it stays silent, as a future may.
            Append::Done(answer) => answer.take().map_or(Poll::Pending, Poll::Ready),
            Append::Later(later) => later.as_mut().poll(cx),
        }
    }
}

/// How an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It reads and writes.
    Ready,
    /// It has not read yet what exists: nothing can be said about any topic.
    Starting(&'static str),
    /// What was read is readable; writing is refused.
    ReadOnly(&'static str),
}

/// One number about an engine, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct MetricSample {
    /// Its name, with its unit.
    pub name: &'static str,
    /// Whether it only grows.
    pub counter: bool,
    /// What it says.
    pub help: &'static str,
    /// The number now.
    pub value: u64,
}

/// Where topics and messages live. One instance of the service has one, behind its broker.
///
/// What every engine owes:
/// - A message is in its channel only after it is stored by the engine's rule, and a publish is answered only when the
///   message is in the channel of the instance that answers.
/// - A channel's messages are the engine's log of the topic, in its order, each once; where the engine has lost some, the
///   channel is told ([`Channel::skip_to`]).
/// - No two messages of one epoch have the same offset, whatever breaks.
/// - [`Error::Unavailable`] means that nothing was stored and nothing will be; [`Error::Unknown`] that it may have been.
/// - After a deletion every reader of the channel learns it, and every append is refused as closed.
pub trait Engine: Send + Sync + 'static {
    /// Reads everything that exists into the registry, the positions into `consumers`, and keeps both up to date from here
    /// on. Called once, first. An engine that cannot reach its store yet answers at once and says so in its health.
    ///
    /// # Errors
    /// What makes starting senseless, in one line that names the setting.
    fn open(&self, registry: Arc<Registry>, consumers: Arc<Consumers>) -> Opening<'_>;

    /// Makes a topic, an implicit one for a publish or a subscribe. It stands in the registry when this is answered, and, where the engine need not ask anybody, already
    /// when this returns: messages may then be appended behind its creation, and are stored only if it is.
    ///
    /// # Errors
    /// [`Error::TopicExists`], also if another instance was faster; [`Error::Unavailable`].
    fn create<'a>(&'a self, name: &'a TopicName, config: TopicConfig, implicit: bool) -> Later<'a, Arc<Channel>>;

    /// Changes what the change sets, and, to adopt an implicit topic, makes it an explicit one. The change is in force on this instance when this is answered.
    ///
    /// # Errors
    /// [`Error::TopicExists`] for an adoption that came second, [`Error::TopicNotFound`] for a topic that is gone,
    /// [`Error::BadRequest`] for what the engine cannot do, [`Error::Unavailable`].
    fn update<'a>(&'a self, channel: &'a Arc<Channel>, change: TopicConfig, adopt: bool) -> Later<'a, ()>;

    /// Deletes a topic with its messages.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] for one that is gone already, [`Error::Unavailable`].
    fn delete<'a>(&'a self, channel: &'a Arc<Channel>) -> Later<'a, ()>;

    /// Publishes. Appends begun one after the other are stored in that order.
    fn append(&self, channel: &Arc<Channel>, new_message: NewMessage) -> Append;

    /// Makes ids known that publishers gave in another store, before this incarnation of the topic began there or here: a publication
    /// with one of them is a duplicate that has no position. When this is answered, they are stored as messages are, and
    /// they go with the topic. An id that is known already, or whose window is over, is passed by.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] if the topic is gone; [`Error::Unavailable`]: then some of them may be known.
    fn remember<'a>(&'a self, channel: &'a Arc<Channel>, ids: &'a [KnownId]) -> Later<'a, ()> {
        ready(channel.remember(ids))
    }

    /// An implicit topic has no message, and no subscriber on this instance: it may go if no other instance needs it.
    fn forget(&self, channel: &Arc<Channel>);

    /// A subscriber is about to need an implicit topic that has no message: nobody else may forget it from here on.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] if it was forgotten already; [`Error::Unavailable`].
    fn join<'a>(&'a self, _channel: &'a Arc<Channel>) -> Later<'a, ()> {
        ready(Ok(()))
    }

    /// Waits, but not for long, until this instance knows what another has already told a client: the topic, its newest
    /// incarnation, and its messages up to a cursor. An engine for a single instance knows all there is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if that cannot be learned now: what is not known then may be there all the same.
    fn catch_up<'a>(&'a self, _name: &'a TopicName, _cursor: Option<Cursor>) -> Later<'a, ()> {
        ready(Ok(()))
    }

    /// As [`Engine::catch_up`], up to a position over all topics.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn catch_up_logs<'a>(&'a self, _position: &'a PatternCursor) -> Later<'a, ()> {
        ready(Ok(()))
    }

    /// How it is.
    fn health(&self) -> Health {
        Health::Ready
    }

    /// Numbers about it.
    fn metric_samples(&self) -> Vec<MetricSample> {
        Vec::new()
    }

    /// Stores what is on its way, and ends. Appends are refused from here on.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    /// Where the engine keeps consumers' positions.
    fn positions(&self) -> &dyn Positions;
}

/// Where consumers' positions live. The consumers of one process know their positions themselves ([`Consumers`]); this
/// keeps them beyond it, and, where several instances share them, decides who has which.
pub trait Positions: Send + Sync {
    /// Makes the subscription behind `holder` the one that has the consumer. An older one is told, on whatever instance.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when it would be one consumer too many; [`Error::Unavailable`].
    fn claim<'a>(&'a self, key: &'a ConsumerKey, ack: Ack, holder: &'a Arc<Waiter>) -> Later<'a, Claim>;

    /// Forgets a consumer that a claim has made, because its subscription came to nothing; one that a newer subscription
    /// has, on whatever instance, stays.
    ///
    /// # Errors
    /// [`Error::ConsumerTakenOver`] for one that stays, [`Error::Unavailable`].
    fn withdraw<'a>(&'a self, consumer: &'a Arc<Consumer>, generation: u64) -> Later<'a, ()>;

    /// The position of a consumer that is held here has moved. It is kept soon; many moves may become one.
    fn moved(&self, consumer: &Arc<Consumer>);

    /// Keeps the position of a consumer that is held here, before this is answered.
    ///
    /// # Errors
    /// [`Error::ConsumerTakenOver`] if it is not held here any more, [`Error::Unavailable`].
    fn keep<'a>(&'a self, consumer: &'a Arc<Consumer>) -> Later<'a, ()>;

    /// Keeps a position that comes from another store, before this is answered, and answers `true`; or `false` if the
    /// consumer is known: then it stays as it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn restore<'a>(&'a self, key: &'a ConsumerKey, position: &'a Position) -> Later<'a, bool>;

    /// The consumer as it stands now, wherever it is held.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`], [`Error::Unavailable`].
    fn look<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ConsumerStatus>;

    /// Moves the position forward to a cursor that the client has acknowledged, and keeps it. Another consumer that was
    /// created under the same name meanwhile is not touched: the client has not acknowledged anything to that one.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`] for a consumer that was deleted, [`Error::Unavailable`].
    fn acknowledge<'a>(&'a self, consumer: &'a Arc<Consumer>, topic: &'a TopicName, cursor: Cursor) -> Later<'a, ()>;

    /// Forgets a consumer; a live subscription of it ends.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`], [`Error::Unavailable`].
    fn remove<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ()>;

    /// Forgets all consumers of a topic that is gone.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn remove_all<'a>(&'a self, source: &'a Source) -> Later<'a, ()>;

    /// The consumers of a topic or pattern, by name.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn list<'a>(&'a self, source: &'a Source) -> Later<'a, Vec<ConsumerStatus>>;

    /// Forgets consumers whose time is over; answers what may have none left. To be called now and then.
    fn sweep(&self) -> Vec<Source>;
}
