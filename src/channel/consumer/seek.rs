//! Moving a consumer to another position, forward or back, whoever holds it. Its live subscription then goes on from there,
//! and what it had on its way before counts no more.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use super::{Consumer, ConsumerState, Position};
use crate::channel::{Cursor, Error, PatternCursor, Timestamp, TopicName, Waiter};

/// Where a consumer is moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sought {
    /// Its position in each topic.
    pub cursors: Vec<(TopicName, Cursor)>,
    /// Of a pattern: see [`Position::since`].
    pub since: Option<PatternCursor>,
}

/// Where a consumer stands, as its subscription goes on from.
pub(crate) struct Standing {
    pub cursors: HashMap<TopicName, Cursor>,
    pub since: Option<PatternCursor>,
    /// How often the consumer had been moved until then.
    pub seeks: u64,
}

impl Position {
    /// The position of the same consumer once it was moved.
    #[must_use]
    pub fn sought(self, to: &Sought) -> Self {
        let Sought { cursors, since } = to.clone();
        Self { cursors, since, used_at: Timestamp::now(), seeks: self.seeks.saturating_add(1), ..self }
    }
}

impl ConsumerState {
    /// # Errors
    /// [`Error::LimitReached`]: it would hold more topics than it may; nothing has changed then.
    fn seek(&mut self, to: &Sought) -> Result<(), Error> {
        let before = (std::mem::take(&mut self.cursors), std::mem::take(&mut self.bytes));
        if let Err(error) = to.cursors.iter().try_for_each(|(topic, cursor)| self.put(topic, *cursor)) {
            (self.cursors, self.bytes) = before;
            return Err(error);
        }
        self.since.clone_from(&to.since);
        Ok(())
    }
}

impl Consumer {
    /// Moves it, forward or back. Its live subscription on this instance, if any, learns of it at once.
    ///
    /// # Errors
    /// [`Error::LimitReached`]: it would hold more topics than it may; nothing has changed then.
    pub fn seek(&self, to: &Sought) -> Result<(), Error> {
        let holder = {
            let mut state = self.state.lock();
            state.seek(to)?;
            state.use_it();
            self.seeks.fetch_add(1, Ordering::Release);
            state.holder.clone()
        };
        wake(holder);
        Ok(())
    }

    /// Follows what another instance, or this one, has written: returns whether it has moved the consumer.
    pub(crate) fn follow_seek(&self, position: &Position) -> bool {
        let holder = {
            let mut state = self.state.lock();
            if position.seeks <= self.seeks.load(Ordering::Relaxed) {
                return false;
            }
            let to = Sought { cursors: position.cursors.clone(), since: position.since.clone() };
            // Whoever has written it holds the same limit.
            let _ = state.seek(&to);
            self.seeks.store(position.seeks, Ordering::Release);
            state.holder.clone()
        };
        wake(holder);
        true
    }

    /// Whether it was moved since it had been moved so often.
    pub(crate) fn was_sought(&self, seeks: u64) -> bool {
        self.seeks.load(Ordering::Acquire) != seeks
    }

    /// Where it stands now.
    pub(crate) fn standing(&self) -> Standing {
        let state = self.state.lock();
        Standing {
            cursors: state.cursors.clone(),
            since: state.since.clone(),
            seeks: self.seeks.load(Ordering::Relaxed),
        }
    }
}

fn wake(holder: Option<Arc<Waiter>>) {
    if let Some(holder) = holder {
        holder.wake();
    }
}
