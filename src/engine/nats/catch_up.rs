//! Learning what clients may have learned from other instances before a subscription begins.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{CLASSES, Inner, NOT_NOW, follow::Progress, topics};
use crate::{
    channel::{Cursor, Error, PatternCursor},
    engine::{Health, Later},
};

/// How long a client may have to wait for what another instance has told it.
pub(super) const CATCH_UP: Duration = Duration::from_secs(3);

/// What `knowing` learns, if that does not take too long.
pub(super) fn within_time<'a>(knowing: impl Future<Output = Result<(), Error>> + Send + 'a) -> Later<'a, ()> {
    Box::pin(async move { timeout(CATCH_UP, knowing).await.unwrap_or(Err(Error::Unavailable(NOT_NOW))) })
}

impl Inner {
    /// The streams that are followed, and how far.
    fn followed(&self) -> Vec<(usize, Arc<Progress>)> {
        self.classes.lock().iter().map(|(class, seen)| (*class, seen.clone())).collect()
    }

    /// See [`Engine::catch_up`](crate::engine::Engine::catch_up).
    pub(super) async fn catch_up(&self, cursor: Option<Cursor>) -> Result<(), Error> {
        self.check_connected()?;
        self.topics.sync(&self.link).await?;
        let Some(cursor) = cursor else { return Ok(()) };
        for (class, progress) in self.followed() {
            // Whoever makes a cursor up need not be waited for.
            if progress.seen() < cursor.offset {
                topics::sync(&self.link, &self.names.stream(class), &progress).await?;
            }
        }
        self.check_majority()
    }

    /// See [`Engine::catch_up_logs`](crate::engine::Engine::catch_up_logs).
    pub(super) async fn catch_up_logs(&self, position: &PatternCursor) -> Result<(), Error> {
        for (class, progress) in self.followed() {
            let Some(index) = CLASSES.iter().position(|known| *known == class) else { continue };
            let sequencer = self.topics.registry.sequencer(index);
            let Some(sequence) = position.sequence_in(sequencer.epoch()) else { continue };
            if progress.seen() < sequence {
                topics::sync(&self.link, &self.names.stream(class), &progress).await?;
            }
            if progress.seen() >= sequence {
                // What another instance has delivered up to here may have been of topics that are gone.
                let mut newest = sequencer.lock();
                *newest = sequence.max(*newest);
            }
        }
        Ok(())
    }

    /// See [`Engine::catch_up_to_newest`](crate::engine::Engine::catch_up_to_newest).
    pub(super) async fn catch_up_to_newest(&self) -> Result<(), Error> {
        self.check_connected()?;
        for (class, progress) in self.followed() {
            topics::sync(&self.link, &self.names.stream(class), &progress).await?;
        }
        self.check_majority()
    }

    fn check_connected(&self) -> Result<(), Error> {
        if self.link.is_up() { Ok(()) } else { Err(Error::Unavailable(NOT_NOW)) }
    }

    /// Whether what NATS has just said can be all that there is. A leader that has lost its followers answers for a
    /// while, but does not know what the others know.
    fn check_majority(&self) -> Result<(), Error> {
        match self.health() {
            Health::Ready => Ok(()),
            Health::ReadOnly(why) | Health::Starting(why) => Err(Error::Unavailable(why)),
        }
    }
}
