//! What is to happen when the log says whether a record is stored.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::channel::{Channel, Consumer, Error, TopicConfig};

/// Who waits for an outcome. One that does not wait any more is no reason for anything.
pub(super) struct Tell(pub oneshot::Sender<Result<(), Error>>);

impl Tell {
    pub fn tell(self, outcome: Result<(), Error>) {
        let _ = self.0.send(outcome);
    }
}

/// What is to happen when the log says whether a record is stored.
pub(super) enum Token {
    /// The oldest staged message of the channel.
    Message(Arc<Channel>),
    Created(Arc<Channel>, Tell),
    /// What the topic is set to by it, and whether it is implicit still.
    Updated(Arc<Channel>, bool, TopicConfig, Tell),
    Deleted(Arc<Channel>, Tell),
    /// A position that was to be kept soon.
    Position(Arc<Consumer>),
    /// Something that somebody waits for.
    Kept(Tell),
    Nothing,
}
