//! Named consumers from outside a subscription: acknowledging, listing, removing.

use super::{Broker, topics};
use crate::channel::{
    ConsumerKey, ConsumerLag, ConsumerName, ConsumerStatus, Cursor, Error, Position, Source, TopicName,
};

impl Broker {
    /// Moves a consumer's position behind `cursor`.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`], [`Error::BadRequest`] for a cursor of another topic or incarnation, or ahead of the
    /// topic.
    pub async fn acknowledge(&self, source: &Source, consumer: &ConsumerName, cursor: Cursor) -> Result<(), Error> {
        self.check_opened()?;
        let key = ConsumerKey { source: source.clone(), name: consumer.clone() };
        let positions = self.0.engine.positions();
        // Of a consumer that is held here, this instance knows all there is.
        let mut known = self.0.consumers.get(&key).filter(|consumer| consumer.is_held());
        let mut topic = self.topic_of(&key, cursor);
        if known.is_none() || topic.is_none() {
            // Another instance may have made the consumer or the topic a moment ago. It may also have deleted a consumer that
            // is still known here, and made another one of the same name, which is the one that is meant.
            positions.get(&key).await?;
            known = self.0.consumers.get(&key);
            topic = self.topic_of(&key, cursor);
        }
        if known.is_some() && topic.is_none() {
            // Consumers and topics of other instances come on different ways, so the consumer may be known before the topic.
            self.0.engine.catch_up(Some(cursor)).await?;
            topic = self.topic_of(&key, cursor);
        }
        let (Some(known), Some(topic)) = (known, topic) else {
            return Err(Error::bad_request(
                "cursor",
                "is of another incarnation of the topic, or of a topic that this consumer does not read",
            ));
        };
        let channel = match self.look_up(&topic, Some(cursor)).await {
            Ok(channel) if topics::is_ahead(&channel, cursor) => return Err(topics::ahead("cursor")),
            Err(Error::Unavailable(why)) => return Err(Error::Unavailable(why)),
            // The messages of an earlier incarnation are gone, so the cursor cannot be ahead of them.
            found => found.ok().filter(|channel| channel.epoch() == cursor.epoch),
        };
        positions.acknowledge(&known, &topic, cursor).await?;
        if let Some(accepted_at) = channel.and_then(|channel| channel.accepted_at(cursor.offset)) {
            self.0.measures.confirmed(accepted_at);
        }
        Ok(())
    }

    /// The topic of the cursor, if the consumer reads it: as it is now, or as the consumer has met it.
    fn topic_of(&self, key: &ConsumerKey, cursor: Cursor) -> Option<TopicName> {
        let current = self.0.registry.find_epoch(cursor.epoch).filter(|channel| match &key.source {
            Source::Topic(name) => channel.name() == name,
            Source::Pattern(pattern) => pattern.matches(channel.name().as_str()),
        });
        let met = || self.0.consumers.get(key)?.topic_of(cursor.epoch);
        current.map(|channel| channel.name().clone()).or_else(met)
    }

    /// The consumer that a manager of a topic or pattern means by a name without an owner: its `own`, or the only one of
    /// the name.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if several principals have one, [`Error::Unavailable`].
    pub(super) async fn find_consumer(&self, source: &Source, own: ConsumerName) -> Result<ConsumerName, Error> {
        let key = ConsumerKey { source: source.clone(), name: own };
        if self.0.consumers.get(&key).is_some() {
            return Ok(key.name);
        }
        let known = self.consumers(source).await?;
        let mut same = known.into_iter().map(|status| status.name).filter(|name| name.name() == key.name.name());
        match (same.next(), same.next()) {
            (None, _) => Ok(key.name),
            (Some(only), None) => Ok(only),
            (Some(one), Some(other)) if one != key.name && other != key.name && same.all(|name| name != key.name) => {
                Err(Error::bad_request("owner", "is needed: several principals have a consumer of this name"))
            }
            _ => Ok(key.name),
        }
    }

    /// Removes a consumer.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`], [`Error::Unavailable`].
    pub async fn delete_consumer(&self, source: &Source, consumer: &ConsumerName) -> Result<(), Error> {
        self.check_opened()?;
        let key = ConsumerKey { source: source.clone(), name: consumer.clone() };
        self.0.engine.positions().remove(&key).await?;
        self.release_source_if_unused(source);
        Ok(())
    }

    /// The consumers of a topic or pattern, by name.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn consumers(&self, source: &Source) -> Result<Vec<ConsumerStatus>, Error> {
        self.check_opened()?;
        self.0.engine.positions().list(source).await
    }

    /// How far somebody at these positions is behind in each topic, as far as this instance knows. In a topic that is gone
    /// there is nothing to read.
    pub(super) fn lags(&self, position: &Position) -> Vec<ConsumerLag> {
        let lag = |(topic, cursor): &(TopicName, Cursor)| {
            self.0.registry.find(topic).map_or(ConsumerLag::default(), |channel| channel.lag_behind(*cursor))
        };
        position.cursors.iter().map(lag).collect()
    }

    /// Removes consumers whose time is over. To be called now and then.
    pub fn sweep(&self) {
        self.0.registry.recent_ids().sweep();
        for source in self.0.engine.positions().sweep() {
            self.release_source_if_unused(&source);
        }
    }
}
