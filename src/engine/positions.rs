//! The part of an engine that keeps consumers' positions.

use std::sync::Arc;

use super::Later;
use crate::channel::{
    Ack, Claim, Consumer, ConsumerKey, ConsumerStatus, Cursor, Position, Sought, Source, TopicName, Waiter,
};
#[allow(unused_imports, reason = "the documentation names them")]
use crate::channel::{Consumers, Error};

/// Where consumers' positions live. The consumers of one process know their positions themselves ([`Consumers`]); this
/// keeps them beyond it, and, where several instances share them, decides who has which.
pub trait Positions: Send + Sync {
    /// Makes the subscription behind `holder` the one that has the consumer. An older one ends, on whatever instance.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when it would be one consumer too many; [`Error::Unavailable`].
    fn claim<'a>(&'a self, key: &'a ConsumerKey, ack: Ack, holder: &'a Arc<Waiter>) -> Later<'a, Claim>;

    /// Removes a consumer that a claim has made, because its subscription failed; one that a newer subscription
    /// has, on whatever instance, stays.
    ///
    /// # Errors
    /// [`Error::ConsumerTakenOver`] for one that stays, [`Error::Unavailable`].
    fn withdraw<'a>(&'a self, consumer: &'a Arc<Consumer>, generation: u64) -> Later<'a, ()>;

    /// The position of a consumer that is held here has moved. It is saved soon; many moves may become one.
    fn mark_dirty(&self, consumer: &Arc<Consumer>);

    /// Saves the position of a consumer that is held here, before this returns its outcome.
    ///
    /// # Errors
    /// [`Error::ConsumerTakenOver`] if it is not held here any more, [`Error::Unavailable`].
    fn save<'a>(&'a self, consumer: &'a Arc<Consumer>) -> Later<'a, ()>;

    /// Saves a position that comes from another store, before this returns its outcome: `true`; or `false` if the
    /// consumer is known: then it stays as it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn import<'a>(&'a self, key: &'a ConsumerKey, position: &'a Position) -> Later<'a, bool>;

    /// The consumer as it stands now, wherever it is held.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`], [`Error::Unavailable`].
    fn get<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ConsumerStatus>;

    /// Moves the position forward to a cursor that the client has acknowledged, and saves it. Another consumer that was
    /// created under the same name meanwhile is not touched: the client has not acknowledged anything to that one.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`] for a consumer that was deleted, [`Error::Unavailable`].
    fn acknowledge<'a>(&'a self, consumer: &'a Arc<Consumer>, topic: &'a TopicName, cursor: Cursor) -> Later<'a, ()>;

    /// Moves a consumer to other positions, forward or back, wherever it is held, and saves them. A live subscription of it, on
    /// whatever instance, goes on from there: at once on this one.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`] for a consumer that was deleted; [`Error::LimitReached`] for more topics than it may hold;
    /// [`Error::Unavailable`]: then it may have moved for as long as this process lives.
    fn seek<'a>(&'a self, consumer: &'a Arc<Consumer>, to: &'a Sought) -> Later<'a, ()>;

    /// Removes a consumer; a live subscription of it ends.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`], [`Error::Unavailable`].
    fn remove<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ()>;

    /// Removes all consumers of a topic that is gone.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn remove_all<'a>(&'a self, source: &'a Source) -> Later<'a, ()>;

    /// The consumers of a topic or pattern, by name.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn list<'a>(&'a self, source: &'a Source) -> Later<'a, Vec<ConsumerStatus>>;

    /// Removes consumers whose time is over, and returns the topics and patterns that may have none left. To be called
    /// now and then.
    fn sweep(&self) -> Vec<Source>;
}
