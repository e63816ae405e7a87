//! Named consumers: the server keeps the position of a subscriber that comes back under the same name.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{ConsumerName, Cursor, Epoch, Error, Source, Timestamp, TopicName, inbox::Waiter, subscribe::ahead};

/// When a consumer's position moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ack {
    /// As messages reach the client.
    #[default]
    Auto,
    /// When the client acknowledges a cursor.
    Explicit,
}

impl Ack {
    /// The choice's name at every door.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Ack::Auto => "AUTO",
            Ack::Explicit => "EXPLICIT",
        }
    }
}

/// What a consumer's new subscription is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: ConsumerName,
    /// Whether the server knew the name, and delivery goes on from its position.
    pub resumed: bool,
    /// The position, where the source is one topic.
    pub cursor: Option<Cursor>,
}

/// A consumer as listed.
#[derive(Clone, Debug)]
pub struct ConsumerStatus {
    /// Its name.
    pub name: ConsumerName,
    /// When its position moves, as of its newest subscription.
    pub ack: Ack,
    /// Its positions: one for a topic, one for each topic it has met for a pattern.
    pub positions: Vec<(TopicName, Cursor)>,
    /// Whether a subscription is live.
    pub connected: bool,
    /// When it was last used; now while connected.
    pub last_used_at: Timestamp,
}

/// One named position, or several for a pattern.
pub(super) struct Consumer {
    name: ConsumerName,
    /// Grows with each subscription: only the newest may move the position.
    generation: AtomicU64,
    state: Mutex<State>,
}

struct State {
    ack: Ack,
    places: HashMap<Epoch, (TopicName, u64)>,
    max_places: usize,
    holder: Option<Arc<Waiter>>,
    used: Instant,
    used_at: Timestamp,
}

impl State {
    /// Moves a place forward, never back.
    fn advance(&mut self, topic: &TopicName, cursor: Cursor) {
        if self.places.len() >= self.max_places && !self.places.contains_key(&cursor.epoch) {
            // Only a pattern that matched more topics after subscribing than it may: such a topic begins anew.
            return;
        }
        let place = self.places.entry(cursor.epoch).or_insert_with(|| (topic.clone(), cursor.offset));
        place.1 = place.1.max(cursor.offset);
    }
}

/// A subscription's hold on its consumer.
pub(super) struct Lease {
    pub info: ConsumerInfo,
    consumer: Arc<Consumer>,
    generation: u64,
    ack: Ack,
    /// Read since the last seal.
    read: HashMap<Epoch, (TopicName, u64)>,
    /// On its way to the client.
    sealed: HashMap<Epoch, (TopicName, u64)>,
}

impl Lease {
    pub fn name(&self) -> &str {
        self.info.name.as_str()
    }

    pub fn is_taken_over(&self) -> bool {
        self.consumer.generation.load(Ordering::Acquire) != self.generation
    }

    pub fn places(&self) -> HashMap<Epoch, (TopicName, u64)> {
        self.consumer.state.lock().places.clone()
    }

    /// Sets where the consumer stands in a topic, further back too.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when it would hold more topics than it may.
    pub fn begin(&mut self, topic: &TopicName, cursor: Cursor) -> Result<(), Error> {
        let mut state = self.consumer.state.lock();
        if state.places.len() >= state.max_places && !state.places.contains_key(&cursor.epoch) {
            return Err(Error::LimitReached { what: "topics for one consumer", limit: state.max_places, own: true });
        }
        state.places.insert(cursor.epoch, (topic.clone(), cursor.offset));
        Ok(())
    }

    /// Drops places of topics' earlier lives.
    pub fn prune(&mut self, keep: impl Fn(Epoch) -> bool) {
        self.consumer.state.lock().places.retain(|epoch, _| keep(*epoch));
    }

    pub fn delivered(&mut self, topic: &TopicName, cursor: Cursor) {
        if self.ack == Ack::Auto {
            self.read.insert(cursor.epoch, (topic.clone(), cursor.offset));
        }
    }

    pub fn seal(&mut self) -> bool {
        self.sealed.extend(self.read.drain());
        !self.sealed.is_empty()
    }

    pub fn confirm(&mut self) {
        let mut state = self.consumer.state.lock();
        // Under the lock: a newer subscription takes its generation under the same one.
        if !self.is_taken_over() {
            for (epoch, (topic, offset)) in self.sealed.drain() {
                state.advance(&topic, Cursor { epoch, offset });
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.consumer.state.lock();
        if !self.is_taken_over() {
            state.holder = None;
        }
        state.used = Instant::now();
        state.used_at = Timestamp::now();
    }
}

/// All consumers, by what they read.
pub(super) struct Consumers {
    all: Mutex<All>,
    limits: ConsumerLimits,
}

#[derive(Default)]
struct All {
    by_source: HashMap<Source, HashMap<ConsumerName, Arc<Consumer>>>,
    count: usize,
}

/// Bounds on consumers.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConsumerLimits {
    pub per_source: usize,
    pub total: usize,
    pub topics: usize,
    pub ttl: Duration,
}

impl Consumers {
    pub fn new(limits: ConsumerLimits) -> Self {
        Self { all: Mutex::default(), limits }
    }

    /// Makes the subscription behind `waiter` the one that holds the consumer; an older one is told.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when it would be one consumer too many.
    pub fn take(&self, source: &Source, name: &ConsumerName, ack: Ack, waiter: &Arc<Waiter>) -> Result<Lease, Error> {
        let mut all = self.all.lock();
        let siblings = all.by_source.get(source);
        let known = siblings.and_then(|siblings| siblings.get(name)).filter(|known| !known.is_expired(self.limits.ttl));
        let resumed = known.is_some();
        let consumer = match known {
            Some(consumer) => consumer.clone(),
            None => {
                let replaces = siblings.is_some_and(|siblings| siblings.contains_key(name));
                let limit = |what, limit, own| Err(Error::LimitReached { what, limit, own });
                if !replaces && siblings.map_or(0, HashMap::len) >= self.limits.per_source {
                    return limit("consumers for one topic or pattern", self.limits.per_source, true);
                }
                if !replaces && all.count >= self.limits.total {
                    return limit("consumers on this server", self.limits.total, false);
                }
                let consumer = Consumer::new(name.clone(), ack, self.limits.topics);
                all.count += usize::from(!replaces);
                all.by_source.entry(source.clone()).or_default().insert(name.clone(), consumer.clone());
                consumer
            }
        };
        let mut state = consumer.state.lock();
        let generation = consumer.generation.fetch_add(1, Ordering::AcqRel) + 1;
        state.ack = ack;
        let older = state.holder.replace(waiter.clone());
        drop(state);
        drop(all);
        if let Some(older) = older {
            older.wake();
        }
        let info = ConsumerInfo { name: name.clone(), resumed, cursor: None };
        Ok(Lease { info, consumer, generation, ack, read: HashMap::new(), sealed: HashMap::new() })
    }

    /// Moves a consumer's position behind `cursor`; a position that is already there stays.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`]; [`Error::BadRequest`] for a cursor of a topic the consumer has not read.
    pub fn acknowledge(
        &self,
        source: &Source,
        name: &ConsumerName,
        cursor: Cursor,
        newest: impl Fn(&TopicName, Epoch) -> u64,
    ) -> Result<(), Error> {
        let consumer = self.find(source, name)?;
        let known = consumer.state.lock().places.get(&cursor.epoch).cloned();
        let Some((topic, _)) = known else {
            return Err(Error::bad_request(
                "cursor",
                "is of another life of the topic, or of a topic that this consumer does not read",
            ));
        };
        if cursor.offset > newest(&topic, cursor.epoch) {
            return Err(ahead("cursor"));
        }
        let mut state = consumer.state.lock();
        state.advance(&topic, cursor);
        state.used = Instant::now();
        state.used_at = Timestamp::now();
        Ok(())
    }

    fn find(&self, source: &Source, name: &ConsumerName) -> Result<Arc<Consumer>, Error> {
        let all = self.all.lock();
        let consumer = all.by_source.get(source).and_then(|siblings| siblings.get(name));
        consumer
            .filter(|consumer| !consumer.is_expired(self.limits.ttl))
            .cloned()
            .ok_or_else(|| Error::ConsumerNotFound(name.as_str().to_owned()))
    }

    /// Forgets a consumer; a live subscription of it ends as if taken over.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`].
    pub fn delete(&self, source: &Source, name: &ConsumerName) -> Result<(), Error> {
        self.find(source, name)?;
        self.retain(source, |consumer| {
            let kept = consumer.name != *name;
            if !kept {
                consumer.revoke();
            }
            kept
        });
        Ok(())
    }

    /// Forgets all consumers of a topic that is gone. Live subscriptions of theirs end with the topic.
    pub fn delete_all(&self, source: &Source) {
        self.retain(source, |_| false);
    }

    fn retain(&self, source: &Source, keep: impl Fn(&Consumer) -> bool) {
        let mut all = self.all.lock();
        let Some(siblings) = all.by_source.get_mut(source) else { return };
        let before = siblings.len();
        siblings.retain(|_, consumer| keep(consumer));
        let after = siblings.len();
        if after == 0 {
            all.by_source.remove(source);
        }
        all.count -= before - after;
    }

    pub fn any(&self, source: &Source) -> bool {
        self.all.lock().by_source.contains_key(source)
    }

    /// The consumers of a topic or pattern, by name.
    pub fn list(&self, source: &Source) -> Vec<ConsumerStatus> {
        let all = self.all.lock();
        let siblings = all.by_source.get(source).into_iter().flat_map(HashMap::values);
        let mut list: Vec<_> = siblings
            .filter(|consumer| !consumer.is_expired(self.limits.ttl))
            .map(|consumer| consumer.status())
            .collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// Forgets consumers whose time is over; answers the sources that have none left.
    pub fn sweep(&self) -> Vec<Source> {
        let mut all = self.all.lock();
        let mut emptied = Vec::new();
        let mut count = 0;
        all.by_source.retain(|source, siblings| {
            siblings.retain(|_, consumer| !consumer.is_expired(self.limits.ttl));
            count += siblings.len();
            if siblings.is_empty() {
                emptied.push(source.clone());
            }
            !siblings.is_empty()
        });
        all.count = count;
        emptied
    }
}

impl Consumer {
    fn new(name: ConsumerName, ack: Ack, max_places: usize) -> Arc<Self> {
        let state = State {
            ack,
            places: HashMap::new(),
            max_places,
            holder: None,
            used: Instant::now(),
            used_at: Timestamp::now(),
        };
        Arc::new(Self { name, generation: AtomicU64::new(0), state: Mutex::new(state) })
    }

    fn is_expired(&self, ttl: Duration) -> bool {
        let state = self.state.lock();
        state.holder.is_none() && state.used.elapsed() >= ttl
    }

    fn revoke(&self) {
        let holder = self.state.lock().holder.take();
        self.generation.fetch_add(1, Ordering::AcqRel);
        if let Some(holder) = holder {
            holder.wake();
        }
    }

    fn status(&self) -> ConsumerStatus {
        let state = self.state.lock();
        let place = |(epoch, (topic, offset)): (&Epoch, &(TopicName, u64))| {
            (topic.clone(), Cursor { epoch: *epoch, offset: *offset })
        };
        let mut positions: Vec<_> = state.places.iter().map(place).collect();
        positions.sort_by(|a, b| a.0.cmp(&b.0));
        let connected = state.holder.is_some();
        ConsumerStatus {
            name: self.name.clone(),
            ack: state.ack,
            positions,
            connected,
            last_used_at: if connected { Timestamp::now() } else { state.used_at },
        }
    }
}
