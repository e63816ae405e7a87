//! The consumers that one instance knows.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use super::{Ack, Consumer, ConsumerKey, ConsumerName, ConsumerStatus, Position};
use crate::channel::{Error, Source, Waiter};

/// The consumers that this instance knows, by what they read.
pub struct Consumers {
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
pub struct ConsumerLimits {
    /// Consumers of one topic or pattern.
    pub per_source: usize,
    /// Consumers in all.
    pub total: usize,
    /// Topics whose positions one consumer of a pattern may hold.
    pub topics: usize,
    /// How long an unused one is kept.
    pub ttl: Duration,
}

/// A subscription's hold on a consumer.
#[must_use]
pub struct Claim {
    /// The consumer.
    pub consumer: Arc<Consumer>,
    /// Which of its subscriptions this is.
    pub generation: u64,
    /// Whether it was known.
    pub resumed: bool,
    /// How often the consumer had been moved by then.
    pub seeks: u64,
}

impl Consumers {
    /// None yet.
    #[must_use]
    pub fn new(limits: ConsumerLimits) -> Self {
        Self { all: Mutex::default(), limits }
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> ConsumerLimits {
        self.limits
    }

    /// Makes the subscription behind `holder` the one that has the consumer; an older one ends.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when it would be one consumer too many.
    pub fn claim(&self, key: &ConsumerKey, ack: Ack, holder: &Arc<Waiter>) -> Result<Claim, Error> {
        let mut all = self.all.lock();
        let siblings = all.by_source.get(&key.source);
        let known = siblings.and_then(|siblings| siblings.get(&key.name));
        let known = known.filter(|known| !known.is_expired(self.limits.ttl));
        let resumed = known.is_some();
        let consumer = match known {
            Some(consumer) => consumer.clone(),
            None => {
                all.check_room(&self.limits, key)?;
                all.insert(Consumer::new(key.clone(), ack, self.limits.topics))
            }
        };
        let mut state = consumer.state.lock();
        let generation = consumer.generation.fetch_add(1, Ordering::AcqRel) + 1;
        state.ack = ack;
        state.use_it();
        let older = state.holder.replace(holder.clone());
        let seeks = consumer.seeks.load(Ordering::Relaxed);
        drop(state);
        drop(all);
        if let Some(older) = older {
            older.wake();
        }
        Ok(Claim { consumer, generation, resumed, seeks })
    }

    /// Whether one more consumer may be made.
    ///
    /// # Errors
    /// [`Error::LimitReached`].
    pub fn check_room(&self, key: &ConsumerKey) -> Result<(), Error> {
        self.all.lock().check_room(&self.limits, key)
    }

    /// Brings back a consumer that an engine has stored, whatever the limits say: it was accepted once.
    pub fn restore(&self, key: &ConsumerKey, position: &Position) -> Arc<Consumer> {
        let mut all = self.all.lock();
        let known = all.by_source.get(&key.source).and_then(|siblings| siblings.get(&key.name)).cloned();
        let consumer =
            known.unwrap_or_else(|| all.insert(Consumer::new(key.clone(), position.ack, self.limits.topics)));
        drop(all);
        consumer.restore(position);
        consumer
    }

    /// The consumer, if this instance knows it.
    #[must_use]
    pub fn get(&self, key: &ConsumerKey) -> Option<Arc<Consumer>> {
        let all = self.all.lock();
        let consumer = all.by_source.get(&key.source).and_then(|siblings| siblings.get(&key.name));
        consumer.filter(|consumer| !consumer.is_expired(self.limits.ttl)).cloned()
    }

    /// Removes a consumer; a live subscription of it ends as if taken over.
    pub fn remove(&self, key: &ConsumerKey) -> Option<Arc<Consumer>> {
        let mut all = self.all.lock();
        let siblings = all.by_source.get_mut(&key.source)?;
        let removed = siblings.remove(&key.name)?;
        if siblings.is_empty() {
            all.by_source.remove(&key.source);
        }
        all.count -= 1;
        removed.mark_removed();
        drop(all);
        removed.revoke();
        Some(removed)
    }

    /// Hands the consumer that has this name now, if any, to `with`. None is created or removed meanwhile.
    pub(crate) fn with_current<T>(&self, key: &ConsumerKey, with: impl FnOnce(Option<&Consumer>) -> T) -> T {
        let all = self.all.lock();
        let current = all.by_source.get(&key.source).and_then(|siblings| siblings.get(&key.name));
        with(current.map(AsRef::as_ref))
    }

    /// Removes a consumer if the `generation`-th subscription is its newest. Returns whether it did.
    #[must_use]
    pub fn withdraw(&self, consumer: &Arc<Consumer>, generation: u64) -> bool {
        let ConsumerKey { source, name } = consumer.key();
        let mut all = self.all.lock();
        let Some(siblings) = all.by_source.get_mut(source) else { return false };
        // A newer subscription takes its generation under this lock.
        let same = siblings.get(name).is_some_and(|known| Arc::ptr_eq(known, consumer));
        if !same || consumer.is_taken_over(generation) {
            return false;
        }
        siblings.remove(name);
        if siblings.is_empty() {
            all.by_source.remove(source);
        }
        all.count -= 1;
        consumer.mark_removed();
        true
    }

    /// Removes all consumers of a topic that is gone. Their live subscriptions end with the topic.
    pub fn remove_all(&self, source: &Source) -> Vec<Arc<Consumer>> {
        let mut all = self.all.lock();
        let removed: Vec<Arc<Consumer>> =
            all.by_source.remove(source).map(|siblings| siblings.into_values().collect()).unwrap_or_default();
        all.count -= removed.len();
        for consumer in &removed {
            consumer.mark_removed();
        }
        removed
    }

    /// Who goes first where there is no room for one more: of those that may go, the one that has not been used for the
    /// longest time, among its siblings if those are too many.
    #[must_use]
    pub fn first_to_go(&self, source: &Source) -> Option<ConsumerKey> {
        let all = self.all.lock();
        let siblings = all.by_source.get(source);
        let crowded = siblings.is_some_and(|siblings| siblings.len() >= self.limits.per_source);
        let candidates: Box<dyn Iterator<Item = &Arc<Consumer>>> = match siblings {
            Some(siblings) if crowded => Box::new(siblings.values()),
            _ => Box::new(all.by_source.values().flat_map(HashMap::values)),
        };
        let idle = candidates.filter_map(|consumer| Some((consumer.idle_and_may_go()?, consumer)));
        idle.max_by_key(|(idle, _)| *idle).map(|(_, consumer)| consumer.key().clone())
    }

    /// Whether there are consumers of it.
    #[must_use]
    pub fn any(&self, source: &Source) -> bool {
        self.all.lock().by_source.contains_key(source)
    }

    /// The consumers of a topic or pattern, by name.
    #[must_use]
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

    /// All that a subscription on this instance has.
    #[must_use]
    pub fn held(&self) -> Vec<Arc<Consumer>> {
        let all = self.all.lock();
        let consumers = all.by_source.values().flat_map(HashMap::values);
        consumers.filter(|consumer| consumer.is_held()).cloned().collect()
    }

    /// How many are known here.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.lock().count
    }

    /// Every one that is known here.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Consumer>> {
        self.all.lock().by_source.values().flat_map(HashMap::values).cloned().collect()
    }

    /// Removes consumers whose time is over, and returns them.
    pub fn expire(&self) -> Vec<Arc<Consumer>> {
        let mut all = self.all.lock();
        let mut expired = Vec::new();
        all.by_source.retain(|_, siblings| {
            siblings.retain(|_, consumer| {
                let over = consumer.is_expired(self.limits.ttl);
                if over {
                    consumer.mark_removed();
                    expired.push(consumer.clone());
                }
                !over
            });
            !siblings.is_empty()
        });
        all.count -= expired.len();
        expired
    }
}

impl All {
    fn check_room(&self, limits: &ConsumerLimits, key: &ConsumerKey) -> Result<(), Error> {
        let siblings = self.by_source.get(&key.source);
        if siblings.is_some_and(|siblings| siblings.contains_key(&key.name)) {
            return Ok(());
        }
        let limit = |what, limit, own| Err(Error::LimitReached { what, limit, own });
        if siblings.map_or(0, HashMap::len) >= limits.per_source {
            return limit("consumers for one topic or pattern", limits.per_source, true);
        }
        if self.count >= limits.total {
            return limit("consumers on this server", limits.total, false);
        }
        Ok(())
    }

    fn insert(&mut self, consumer: Arc<Consumer>) -> Arc<Consumer> {
        let ConsumerKey { source, name } = consumer.key.clone();
        let replaced = self.by_source.entry(source).or_default().insert(name, consumer.clone());
        self.count += usize::from(replaced.is_none());
        // It has expired.
        if let Some(replaced) = replaced {
            replaced.mark_removed();
        }
        consumer
    }
}
