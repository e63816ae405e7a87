//! The topics whose messages grow too old.

use std::sync::Arc;

use super::{
    super::{Channel, Clock, Epoch, Error, TopicConfig},
    Registry,
};

impl Registry {
    /// The clock by which messages get their times and grow old.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.aging.clock
    }

    /// Checks whether a topic may have these settings, before they are stored. If it is to keep the newest message of each key,
    /// it takes no other message from here on, until [`Registry::apply`] or [`Registry::abandon`].
    ///
    /// # Errors
    /// [`Error::BadRequest`] if what the topic keeps does not fit the settings.
    pub fn prepare(&self, channel: &Channel, config: TopicConfig) -> Result<(), Error> {
        channel.ring.lock().prepare(config, self.defaults)
    }

    /// Settings that were prepared are not stored.
    pub fn abandon(&self, channel: &Channel) {
        channel.ring.lock().abandon();
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
