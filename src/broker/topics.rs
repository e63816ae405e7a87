//! The four ways to get a topic's channel: as it is known here, as it is known anywhere, made if need be, and made if
//! need be without waiting.

use std::sync::Arc;

use super::{Broker, Cursor, Error, Source, TopicConfig, TopicName};
use crate::channel::Channel;

/// Whether a cursor of the channel's incarnation lies beyond what this instance knows.
pub(super) fn is_ahead(channel: &Channel, cursor: Cursor) -> bool {
    cursor.epoch == channel.epoch() && cursor.offset > channel.last()
}

/// A cursor that was not given out yet: taking it as it is would make what comes next vanish without a word.
pub(super) fn ahead(field: &'static str) -> Error {
    Error::bad_request(field, "is ahead of the topic")
}

/// Why nothing may be named by one or two dots.
pub(super) const DOTS: &str = "must not be '.' or '..', which most HTTP clients remove from a path";

/// Whether a name is `.` or `..`. What had such a name could not be reached at the addresses of REST.
pub(super) fn is_dots(name: &str) -> bool {
    matches!(name, "." | "..")
}

impl Broker {
    /// Checks whether a topic of this name, which does not exist, may be created.
    ///
    /// # Errors
    /// [`Error::InvalidTopic`], [`Error::LimitReached`].
    pub(super) fn check_creatable(&self, name: &TopicName) -> Result<(), Error> {
        if is_dots(name.as_str()) {
            return Err(Error::InvalidTopic(DOTS));
        }
        self.0.registry.check_room()
    }

    /// The topic as this instance knows it.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`]; [`Error::Unavailable`] while the engine is starting.
    pub(super) fn find(&self, name: &TopicName) -> Result<Arc<Channel>, Error> {
        match self.0.registry.find(name) {
            Some(channel) => Ok(channel),
            None => Err(self.check_opened().err().unwrap_or_else(|| Error::TopicNotFound(name.as_str().to_owned()))),
        }
    }

    /// The topic, also when another instance has made it a moment ago; with a cursor, once this instance knows as much
    /// of the topic as the instance that gave the cursor out.
    ///
    /// # Errors
    /// Those of [`Broker::find`]; [`Error::Unavailable`] if what others know cannot be learned now.
    pub(super) async fn look_up(&self, name: &TopicName, cursor: Option<Cursor>) -> Result<Arc<Channel>, Error> {
        let covers = |channel: &Arc<Channel>| {
            cursor.is_none_or(|cursor| channel.epoch() == cursor.epoch && !is_ahead(channel, cursor))
        };
        if let Some(channel) = self.0.registry.find(name).filter(covers) {
            return Ok(channel);
        }
        self.check_opened()?;
        let learned = self.0.engine.catch_up(cursor).await;
        let channel = self.find(name);
        match learned {
            Err(why) if !channel.as_ref().is_ok_and(covers) => Err(why),
            _ => channel,
        }
    }

    /// The topic; it is made if it does not exist and topics are made on demand.
    ///
    /// # Errors
    /// Those of [`Broker::look_up`]; [`Error::LimitReached`].
    pub(super) async fn find_or_create(&self, name: &TopicName) -> Result<Arc<Channel>, Error> {
        loop {
            match self.find(name) {
                Err(Error::TopicNotFound(_)) if self.0.settings.auto_create_topics => {}
                Err(Error::TopicNotFound(_)) => return self.look_up(name, None).await,
                found => return found,
            }
            self.check_writable()?;
            self.check_creatable(name)?;
            match self.0.engine.create(name, TopicConfig::default(), true).await {
                // Another caller has created it meanwhile.
                Err(Error::TopicExists(_)) => {}
                made => return made,
            }
        }
    }

    /// The topic, if it is known here or can be made without waiting. For `None`, [`Broker::find_or_create`] waits.
    ///
    /// # Errors
    /// [`Error::LimitReached`]; [`Error::Unavailable`] where the topic would have to be made.
    pub(super) fn find_or_create_now(&self, name: &TopicName) -> Result<Option<Arc<Channel>>, Error> {
        let found = self.0.registry.find(name);
        if found.is_some() || !self.0.settings.auto_create_topics {
            return Ok(found);
        }
        self.check_writable()?;
        self.check_creatable(name)?;
        // Another caller may have created it meanwhile.
        Ok(self.0.engine.create_now(name).or_else(|| self.0.registry.find(name)))
    }

    /// Releases an implicit topic without a message, a subscriber and a consumer: it goes away unless another instance
    /// needs it.
    pub(super) fn release_if_unused(&self, channel: &Arc<Channel>) {
        if channel.is_unused() && !self.0.consumers.any(&Source::Topic(channel.name().clone())) {
            self.0.engine.release(channel);
        }
    }

    /// [`Broker::release_if_unused`] for what a consumer has read.
    pub(super) fn release_source_if_unused(&self, source: &Source) {
        if let Source::Topic(name) = source
            && let Some(channel) = self.0.registry.find(name)
        {
            self.release_if_unused(&channel);
        }
    }
}
