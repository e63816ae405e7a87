//! The engine that stores nothing: the channels are all there is.

use std::sync::{Arc, OnceLock};

use super::{Append, Engine, Later, Opening, Positions, ready};
use crate::channel::{
    Ack, Channel, Claim, Consumer, ConsumerKey, ConsumerStatus, Consumers, Cursor, Error, Incarnation, NewMessage,
    Position, Registry, Sought, Source, TopicConfig, TopicName, Waiter,
};

/// Topics, messages and positions as long as the process lives.
#[derive(Default)]
pub struct Memory {
    opened: OnceLock<(Arc<Registry>, Arc<Consumers>)>,
}

/// What every call before [`Engine::open`] returns.
const CLOSED: Error = Error::Unavailable("the engine is not open");

impl Memory {
    /// Opens it at once; whether it was closed until now.
    pub(crate) fn begin(&self, registry: Arc<Registry>, consumers: Arc<Consumers>) -> bool {
        self.opened.set((registry, consumers)).is_ok()
    }

    fn registry(&self) -> Result<&Arc<Registry>, Error> {
        self.opened.get().map(|(registry, _)| registry).ok_or(CLOSED)
    }

    fn insert(&self, name: &TopicName, config: TopicConfig, implicit: bool) -> Result<Arc<Channel>, Error> {
        let incarnation = Incarnation { implicit, ..Incarnation::new(name, config) };
        self.registry()?.insert(incarnation, |_| Ok(()))
    }

    fn consumers(&self) -> Result<&Arc<Consumers>, Error> {
        self.opened.get().map(|(_, consumers)| consumers).ok_or(CLOSED)
    }
}

impl Engine for Memory {
    fn open(&self, registry: Arc<Registry>, consumers: Arc<Consumers>) -> Opening<'_> {
        let opened =
            self.begin(registry, consumers).then_some(()).ok_or_else(|| "the engine is open already".to_owned());
        Box::pin(std::future::ready(opened))
    }

    fn create<'a>(&'a self, name: &'a TopicName, config: TopicConfig, implicit: bool) -> Later<'a, Arc<Channel>> {
        ready(self.insert(name, config, implicit))
    }

    fn create_now(&self, name: &TopicName) -> Option<Arc<Channel>> {
        self.insert(name, TopicConfig::default(), true).ok()
    }

    fn update<'a>(&'a self, channel: &'a Arc<Channel>, change: TopicConfig, adopt: bool) -> Later<'a, ()> {
        let update = || {
            let registry = self.registry()?;
            let config = change.or(channel.config());
            registry.prepare(channel, config)?;
            // Of two calls that adopt it at the same time, one is refused.
            if adopt && !channel.adopt() {
                registry.abandon(channel);
                return Err(Error::TopicExists(channel.name().clone()));
            }
            registry.apply(channel, channel.is_implicit(), config);
            Ok(())
        };
        ready(update())
    }

    fn delete<'a>(&'a self, channel: &'a Arc<Channel>) -> Later<'a, ()> {
        let deleted = self.registry().and_then(|registry| {
            let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
            registry.remove(channel).then_some(()).ok_or_else(gone)
        });
        ready(deleted)
    }

    fn append(&self, channel: &Arc<Channel>, new_message: NewMessage) -> Append {
        channel.append(new_message).into()
    }

    fn release(&self, channel: &Arc<Channel>) {
        if let Ok(registry) = self.registry() {
            registry.remove_unused(channel, || {});
        }
    }

    fn positions(&self) -> &dyn Positions {
        self
    }
}

/// [`Error::ConsumerNotFound`].
pub(crate) fn no_consumer(key: &ConsumerKey) -> Error {
    Error::ConsumerNotFound(key.name.name().to_owned())
}

impl Positions for Memory {
    fn claim<'a>(&'a self, key: &'a ConsumerKey, ack: Ack, holder: &'a Arc<Waiter>) -> Later<'a, Claim> {
        ready(self.consumers().and_then(|consumers| consumers.claim(key, ack, holder)))
    }

    fn withdraw<'a>(&'a self, consumer: &'a Arc<Consumer>, generation: u64) -> Later<'a, ()> {
        let taken_over = || Error::ConsumerTakenOver(consumer.key().name.name().to_owned());
        ready(
            self.consumers()
                .and_then(|consumers| consumers.withdraw(consumer, generation).then_some(()).ok_or_else(taken_over)),
        )
    }

    fn mark_dirty(&self, _: &Arc<Consumer>) {}

    fn save<'a>(&'a self, consumer: &'a Arc<Consumer>) -> Later<'a, ()> {
        let taken_over = || Error::ConsumerTakenOver(consumer.key().name.name().to_owned());
        ready(if consumer.is_removed() { Err(taken_over()) } else { Ok(()) })
    }

    fn import<'a>(&'a self, key: &'a ConsumerKey, position: &'a Position) -> Later<'a, bool> {
        ready(self.consumers().map(|consumers| {
            let unknown = consumers.get(key).is_none();
            if unknown {
                consumers.restore(key, position);
            }
            unknown
        }))
    }

    fn get<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ConsumerStatus> {
        let get = |consumers: &Arc<Consumers>| consumers.get(key).ok_or_else(|| no_consumer(key));
        ready(self.consumers().and_then(get).map(|consumer| consumer.status()))
    }

    fn acknowledge<'a>(&'a self, consumer: &'a Arc<Consumer>, topic: &'a TopicName, cursor: Cursor) -> Later<'a, ()> {
        if consumer.is_removed() {
            return ready(Err(no_consumer(consumer.key())));
        }
        consumer.advance(topic, cursor);
        consumer.touch();
        ready(Ok(()))
    }

    fn seek<'a>(&'a self, consumer: &'a Arc<Consumer>, to: &'a Sought) -> Later<'a, ()> {
        ready(if consumer.is_removed() { Err(no_consumer(consumer.key())) } else { consumer.seek(to) })
    }

    fn remove<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ()> {
        let remove = |consumers: &Arc<Consumers>| consumers.remove(key).map(drop).ok_or_else(|| no_consumer(key));
        ready(self.consumers().and_then(remove))
    }

    fn remove_all<'a>(&'a self, source: &'a Source) -> Later<'a, ()> {
        ready(self.consumers().map(|consumers| drop(consumers.remove_all(source))))
    }

    fn list<'a>(&'a self, source: &'a Source) -> Later<'a, Vec<ConsumerStatus>> {
        ready(self.consumers().map(|consumers| consumers.list(source)))
    }

    fn sweep(&self) -> Vec<Source> {
        let expired = self.consumers().map(|consumers| consumers.expire()).unwrap_or_default();
        expired.iter().map(|consumer| consumer.key().source.clone()).collect()
    }
}
