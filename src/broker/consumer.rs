//! A subscription's hold on a named consumer.

use std::{collections::HashMap, sync::Arc};

use crate::{
    channel::{Ack, Claim, Consumer, ConsumerInfo, ConsumerName, Cursor, Epoch, Error, TopicName},
    engine::Engine,
};

/// A subscription's hold on its consumer.
pub(super) struct Lease {
    pub info: ConsumerInfo,
    engine: Arc<dyn Engine>,
    consumer: Arc<Consumer>,
    generation: u64,
    ack: Ack,
    /// Read since the last seal.
    read: HashMap<Epoch, (TopicName, u64)>,
    /// On its way to the client.
    sealed: HashMap<Epoch, (TopicName, u64)>,
}

impl Lease {
    pub fn new(engine: Arc<dyn Engine>, name: &ConsumerName, ack: Ack, claim: Claim) -> Self {
        let Claim { consumer, generation, resumed } = claim;
        let info = ConsumerInfo { name: name.clone(), resumed, cursor: None };
        Self { info, engine, consumer, generation, ack, read: HashMap::new(), sealed: HashMap::new() }
    }

    pub fn name(&self) -> &str {
        self.info.name.as_str()
    }

    pub fn is_taken_over(&self) -> bool {
        self.consumer.is_taken_over(self.generation)
    }

    pub fn places(&self) -> HashMap<Epoch, (TopicName, u64)> {
        self.consumer.places()
    }

    /// Sets where the consumer stands in a topic, further back too.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when it would hold more topics than it may.
    pub fn begin(&mut self, topic: &TopicName, cursor: Cursor) -> Result<(), Error> {
        self.consumer.begin(topic, cursor)
    }

    /// Drops places of topics' earlier lives.
    pub fn prune(&mut self, keep: impl Fn(Epoch) -> bool) {
        self.consumer.prune(keep);
    }

    /// Keeps the place with which the subscription begins, before the client is told of it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn keep(&self) -> Result<(), Error> {
        self.engine.positions().keep(&self.consumer).await
    }

    pub fn delivered(&mut self, topic: &TopicName, cursor: Cursor) {
        if self.ack == Ack::Auto {
            match self.read.get_mut(&cursor.epoch) {
                Some(place) => place.1 = cursor.offset,
                None => _ = self.read.insert(cursor.epoch, (topic.clone(), cursor.offset)),
            }
        }
    }

    pub fn seal(&mut self) -> bool {
        self.sealed.extend(self.read.drain());
        !self.sealed.is_empty()
    }

    pub fn confirm(&mut self) {
        if self.consumer.reached(self.generation, self.sealed.drain()) {
            self.engine.positions().moved(&self.consumer);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.consumer.release(self.generation) {
            self.engine.positions().moved(&self.consumer);
        }
    }
}
