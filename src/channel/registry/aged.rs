//! The topics whose messages grow too old.

use std::sync::Arc;

use super::{
    super::{Channel, Clock, Epoch},
    Registry,
};

impl Registry {
    /// The clock by which messages get their times and grow old.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.aging.clock
    }

    /// The topics whose messages grow too old.
    pub(crate) fn aging(&self) -> Vec<Arc<Channel>> {
        let watched = self.aging.watched();
        let names = self.names.read();
        let find = |epoch: &Epoch| {
            let found = names.by_epoch.get(epoch).cloned();
            if found.is_none() {
                self.aging.forget(*epoch);
            }
            found
        };
        watched.iter().filter_map(find).collect()
    }
}
