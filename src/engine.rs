//! The engines behind the broker: what survives the process, and what several instances share.
//!
//! In every engine what subscribers read is the local [`Channel`] of a topic. The engine numbers messages, stores them,
//! keeps the registry of topics, remembers publish ids and consumers' positions, and feeds the channels. What every
//! engine has to do stands at the two traits, and `conformance.rs` tests each for it.

#[cfg(any(test, feature = "test-support"))]
pub mod conformance;
pub mod disk;
mod health;
mod memory;
pub mod nats;
mod position;
mod positions;
mod reply;
mod secret;
mod settings;

use std::{future::Future, pin::Pin, sync::Arc};

pub use disk::Disk;
pub use health::{Health, MetricSample};
pub use memory::Memory;
pub use nats::Nats;
pub use positions::Positions;
pub use reply::Reply;
pub use secret::Secret;
pub use settings::{Bounds, Settings};

use crate::channel::{
    Channel, Consumers, Cursor, Error, KnownId, NewMessage, PatternCursor, Publication, Reclaimed, Refusal, Registry,
    TopicConfig, TopicName,
};

/// An outcome that may come later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// What comes of opening an engine: a failure is one line for the operator.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// An outcome that is there already.
pub(crate) fn ready<'a, T: Send + 'a>(result: Result<T, Error>) -> Later<'a, T> {
    Box::pin(std::future::ready(result))
}

/// The outcome of an append: it comes whether it is polled or not.
pub type Append = Reply<Result<Publication, Refusal>>;

/// Where topics and messages live. One instance of the service has one, behind its broker.
///
/// Engines outside this crate are possible only in part. What [`Memory`] does can be done outside: append to a channel,
/// or feed it what is stored elsewhere, with [`Channel::append`], [`Channel::feed`] and [`Channel::skip_to`]. What a
/// store needs to stage and commit messages, to bring a history back, and to keep ids is private to the crate, and may
/// change at any time.
///
/// What every engine guarantees:
/// - A message is in its channel only after it is stored by the engine's rule, and a publish has its outcome only when
///   the message is in this instance's channel.
/// - A channel's messages are the engine's log of the topic, in its order, each once; where the engine has lost some,
///   the engine says so to the channel ([`Channel::skip_to`]).
/// - No two messages of one epoch have the same offset, whatever breaks.
/// - [`Error::Unavailable`] means that nothing was stored and nothing will be; [`Error::Unknown`] that it may have
///   been.
/// - After a deletion every reader of the channel learns of it, and every append is refused as closed.
pub trait Engine: Send + Sync + 'static {
    /// Reads everything that exists into the registry, the positions into `consumers`, and keeps both up to date from
    /// here on. Called once, first. An engine that cannot reach its store yet returns at once and says so in its
    /// health.
    ///
    /// # Errors
    /// What makes starting senseless, in one line that names the setting.
    fn open(&self, registry: Arc<Registry>, consumers: Arc<Consumers>) -> Opening<'_>;

    /// Makes a topic, an implicit one for a publish or a subscribe. It stands in the registry when this
    /// returns its outcome.
    ///
    /// # Errors
    /// [`Error::TopicExists`], also if another instance was faster; [`Error::Unavailable`].
    fn create<'a>(&'a self, name: &'a TopicName, config: TopicConfig, implicit: bool) -> Later<'a, Arc<Channel>>;

    /// Makes an implicit topic that sets nothing for itself, without waiting. It stands in the registry when this
    /// returns, and messages may be appended behind its creation; they are stored only if it is. `None` where the
    /// engine has to ask others first, or the topic could not be made: then [`Engine::create`] says why.
    fn create_now(&self, _name: &TopicName) -> Option<Arc<Channel>> {
        None
    }

    /// Changes what the change sets, and, to adopt an implicit topic, makes it an explicit one. The change is in
    /// force on this instance when this returns its outcome.
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

    /// Makes ids known that publishers gave in another store, before this incarnation of the topic began there or here:
    /// a publication with one of them is a duplicate that has no offset. Once this has its outcome, they are stored as
    /// messages are, and they go with the topic. An id that is known already, or whose window is over, is passed by.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] if the topic is gone; [`Error::Unavailable`]: then some of them may be known.
    fn remember<'a>(&'a self, channel: &'a Arc<Channel>, ids: &'a [KnownId]) -> Later<'a, ()> {
        ready(channel.remember(ids))
    }

    /// Messages of the topic were taken out of its history because they were too old: the engine may let go of them, too.
    /// Whoever reads them again from a store finds out by their times that they are too old.
    fn reclaimed(&self, _channel: &Arc<Channel>, _reclaimed: &Reclaimed) {}

    /// An implicit topic has no message, and no subscriber on this instance: it goes unless another instance needs it.
    fn release(&self, channel: &Arc<Channel>);

    /// A subscriber is about to need an implicit topic that has no message: no instance lets it go from here on.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] if it went already; [`Error::Unavailable`].
    fn pin<'a>(&'a self, _channel: &'a Arc<Channel>) -> Later<'a, ()> {
        ready(Ok(()))
    }

    /// Waits, but not for long, until this instance knows what a client may have learned from another: the topics, their
    /// newest incarnations, and the messages up to a cursor. An engine for a single instance knows all there is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if that cannot be learned now: what is not known then may be there all the same.
    fn catch_up(&self, _cursor: Option<Cursor>) -> Later<'_, ()> {
        ready(Ok(()))
    }

    /// As [`Engine::catch_up`], up to a position over all topics.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn catch_up_logs<'a>(&'a self, _position: &'a PatternCursor) -> Later<'a, ()> {
        ready(Ok(()))
    }

    /// As [`Engine::catch_up`], up to the newest message of all topics. A subscriber that begins at a time needs this: an
    /// instance that was cut off from the store for a while would take messages from before that time for new ones.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn catch_up_to_newest(&self) -> Later<'_, ()> {
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
