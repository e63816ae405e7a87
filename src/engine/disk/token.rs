//! What to do when the log says whether a record is stored.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::channel::{Channel, Consumer, Error, TopicConfig};

/// The sender of an outcome to the task that waits for it. If the task does not wait any more, the outcome is dropped.
pub(super) struct CommitReply(pub oneshot::Sender<Result<(), Error>>);

impl CommitReply {
    pub fn send(self, outcome: Result<(), Error>) {
        let _ = self.0.send(outcome);
    }
}

/// What to do when the outcome of a record is known.
pub(super) enum Token {
    /// Commit the oldest staged message of the channel.
    Message(Arc<Channel>),
    Created(Arc<Channel>, CommitReply),
    /// The topic has these settings now, and is implicit or not.
    Updated(Arc<Channel>, bool, TopicConfig, CommitReply),
    Deleted(Arc<Channel>, CommitReply),
    /// A consumer's position that was marked dirty was saved.
    Position(Arc<Consumer>),
    /// Send the outcome to a task that waits for it, and do nothing else.
    Saved(CommitReply),
    Nothing,
}
