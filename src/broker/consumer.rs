//! A subscription's hold on a named consumer.

use std::{collections::HashMap, sync::Arc};

use crate::{
    channel::{
        Ack, Claim, Consumer, ConsumerInfo, ConsumerName, Cursor, Error, Event, PatternCursor, Standing, TopicName,
    },
    engine::Engine,
};

/// A subscription's hold on its consumer.
pub(super) struct Lease {
    pub info: ConsumerInfo,
    engine: Arc<dyn Engine>,
    consumer: Arc<Consumer>,
    generation: u64,
    ack: Ack,
    /// Read since messages were last marked as in flight.
    read: HashMap<TopicName, Read>,
    /// On its way to the client.
    in_flight: HashMap<TopicName, Read>,
    /// Of a pattern: the position over all topics that was read, and the one that is on its way to the client.
    passed: Option<PatternCursor>,
    in_flight_position: Option<PatternCursor>,
    /// How often the consumer had been moved when the subscription last began to read from its position.
    seeks: u64,
    /// When the first message was accepted that was read since messages were last marked as in flight, and the first that is
    /// in flight; 0 without any that was read as it came.
    first_read: u64,
    first_in_flight: u64,
}

/// How far a topic was read.
#[derive(Clone, Copy)]
pub(super) struct Read {
    cursor: Cursor,
    /// Its deletion is delivered behind that.
    ended: bool,
}

impl Lease {
    pub fn new(engine: Arc<dyn Engine>, name: &ConsumerName, ack: Ack, claim: Claim) -> Self {
        let Claim { consumer, generation, resumed, seeks } = claim;
        let info = ConsumerInfo { name: name.clone(), resumed, cursor: None };
        Self {
            info,
            engine,
            consumer,
            generation,
            ack,
            read: HashMap::new(),
            in_flight: HashMap::new(),
            passed: None,
            in_flight_position: None,
            seeks,
            first_read: 0,
            first_in_flight: 0,
        }
    }

    pub fn name(&self) -> &str {
        self.info.name.name()
    }

    pub fn is_taken_over(&self) -> bool {
        self.consumer.is_taken_over(self.generation)
    }

    /// Where the consumer was moved since the subscription has read from its position, if it was. What was read before counts
    /// no more, even if it arrives.
    pub fn sought(&mut self) -> Option<Standing> {
        if !self.consumer.was_sought(self.seeks) {
            return None;
        }
        let standing = self.consumer.standing();
        self.seeks = standing.seeks;
        self.read.clear();
        self.in_flight.clear();
        (self.passed, self.in_flight_position) = (None, None);
        Some(standing)
    }

    pub fn cursors(&self) -> HashMap<TopicName, Cursor> {
        self.consumer.cursors()
    }

    /// Sets where the consumer stands in a topic, further back too.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when it would hold more topics than it may.
    pub fn begin(&mut self, topic: &TopicName, cursor: Cursor) -> Result<(), Error> {
        self.consumer.begin(topic, cursor)
    }

    /// Drops the positions that are not to be kept.
    pub fn prune(&mut self, keep: impl Fn(&TopicName, Cursor) -> bool) {
        self.consumer.prune(keep);
    }

    /// Saves the position with which the subscription begins, before the client learns it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn save(&self) -> Result<(), Error> {
        self.engine.positions().save(&self.consumer).await
    }

    /// A topic was read up to here.
    pub fn delivered(&mut self, topic: &TopicName, cursor: Cursor) {
        self.note(topic, Read { cursor, ended: false });
    }

    /// A topic of the pattern was read to its end, and its deletion was delivered.
    pub fn topic_ended(&mut self, topic: &TopicName, cursor: Cursor) {
        self.note(topic, Read { cursor, ended: true });
    }

    fn note(&mut self, topic: &TopicName, read: Read) {
        if self.ack == Ack::Auto {
            match self.read.get_mut(topic) {
                Some(known) => *known = read,
                None => _ = self.read.insert(topic.clone(), read),
            }
        }
    }

    /// All topics of the pattern were read up to a position.
    pub fn passed(&mut self, position: impl FnOnce() -> PatternCursor) {
        if self.ack == Ack::Auto {
            self.passed = Some(position());
        }
    }

    /// The position over all topics behind which the consumer has confirmed or acknowledged nothing that it has not
    /// met.
    pub fn since(&self) -> Option<PatternCursor> {
        self.consumer.since()
    }

    /// Sets that position.
    pub fn begin_since(&mut self, position: PatternCursor) {
        self.consumer.set_since(position);
    }

    /// These events were read as they came.
    pub fn accepted(&mut self, read: &[Event]) {
        let first = read.iter().find_map(|event| match event {
            Event::Message(message, _) => Some(message.accepted_at),
            Event::Gap(_) | Event::Deleted { .. } | Event::StateComplete(_) => None,
        });
        if self.first_read == 0 && self.ack == Ack::Auto {
            self.first_read = first.unwrap_or(0);
        }
    }

    pub fn mark_in_flight(&mut self) -> bool {
        let first = std::mem::take(&mut self.first_read);
        if self.first_in_flight == 0 {
            self.first_in_flight = first;
        }
        self.in_flight.extend(self.read.drain());
        self.in_flight_position = self.passed.take().or(self.in_flight_position.take());
        !self.in_flight.is_empty()
    }

    /// Returns when the first message was accepted of those that have arrived by this, if it was read as it came.
    pub fn acknowledge_in_flight(&mut self) -> Option<u64> {
        let first = std::mem::take(&mut self.first_in_flight);
        let cursors = self.in_flight.drain().map(|(topic, Read { cursor, ended })| (topic, cursor, ended));
        if self.consumer.reached((self.generation, self.seeks), cursors, self.in_flight_position.take()) {
            self.engine.positions().mark_dirty(&self.consumer);
            return Some(first).filter(|first| *first > 0);
        }
        None
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.consumer.release(self.generation) {
            self.engine.positions().mark_dirty(&self.consumer);
        }
    }
}
