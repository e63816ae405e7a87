//! Consumers' positions on disk: known in memory, kept in the log.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Disk, Log, Record, Tell, Token, told, unavailable};
pub(super) use crate::channel::Saving;
use crate::{
    channel::{
        Ack, Claim, Consumer, ConsumerKey, ConsumerStatus, Consumers, Cursor, Error, Position, Source, TopicName,
        Waiter,
    },
    engine::{Later, Positions, memory::no_consumer, position, ready},
};

/// The holder of a consumer that a subscription has: after a kill it counts as used until then, however long ago its position
/// was written.
const HELD: &str = "held";

/// Puts a position into the log's queue. If the log refuses, the position is kept with the next move, or with the next
/// sweep: until then a restart delivers again what was delivered.
pub(super) fn save(log: &Log<Token>, consumer: &Arc<Consumer>) {
    if put(log, consumer, Token::Position(consumer.clone())).is_err() {
        consumer.saving.refused();
    }
}

/// Queues the record of a consumer's position. A consumer that was removed is refused as taken over: its record would stand
/// behind that of its removal, and a restart would bring it back, or move one that was created under its name.
fn put(log: &Log<Token>, consumer: &Consumer, token: Token) -> Result<(), Error> {
    let ConsumerKey { source, name } = consumer.key();
    let queued = consumer.save(|position, is_held| {
        let blob = position::encode(position, if is_held { HELD } else { "" });
        let record = Record::ConsumerPut { source: source.as_str(), name: name.as_str(), blob: &blob };
        log.append(&record, token).map(drop).map_err(|error| unavailable(&error))
    });
    queued.unwrap_or_else(|| Err(Error::ConsumerTakenOver(name.as_str().to_owned())))
}

impl Disk {
    fn consumer(&self, key: &ConsumerKey) -> Result<Arc<Consumer>, Error> {
        self.opened()?.consumers.get(key).ok_or_else(|| no_consumer(key))
    }

    /// Puts into the log that a consumer is gone. Where another one was created under its name meanwhile, that one's record
    /// takes the place of the removed one's: a removal queued behind it would remove the new one from the log.
    fn drop_position(&self, consumer: &Consumer) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let opened = self.opened()?;
        let (tell, answer) = oneshot::channel();
        let token = Token::Kept(Tell(tell));
        let ConsumerKey { source, name } = consumer.key();
        opened.consumers.with_current(consumer.key(), |current| match current {
            Some(current) => put(&opened.log, current, token),
            None => {
                let record = Record::ConsumerDeleted { source: source.as_str(), name: name.as_str() };
                opened.log.append(&record, token).map(drop).map_err(|error| unavailable(&error))
            }
        })?;
        Ok(answer)
    }
}

impl Positions for Disk {
    fn claim<'a>(&'a self, key: &'a ConsumerKey, ack: Ack, holder: &'a Arc<Waiter>) -> Later<'a, Claim> {
        ready(self.opened().and_then(|opened| {
            let claim = opened.consumers.claim(key, ack, holder)?;
            self.moved(&claim.consumer);
            Ok(claim)
        }))
    }

    fn withdraw<'a>(&'a self, consumer: &'a Arc<Consumer>, generation: u64) -> Later<'a, ()> {
        Box::pin(async move {
            if !self.opened()?.consumers.withdraw(consumer, generation) {
                return Err(Error::ConsumerTakenOver(consumer.key().name.as_str().to_owned()));
            }
            told(self.drop_position(consumer)?).await
        })
    }

    fn moved(&self, consumer: &Arc<Consumer>) {
        // One record at a time for each consumer: those that move faster than the disk are kept as often as it can.
        if let Ok(opened) = self.opened()
            && consumer.saving.moved()
        {
            save(&opened.log, consumer);
        }
    }

    fn keep<'a>(&'a self, consumer: &'a Arc<Consumer>) -> Later<'a, ()> {
        let begin = || {
            let (tell, answer) = oneshot::channel();
            put(&self.opened()?.log, consumer, Token::Kept(Tell(tell)))?;
            Ok(answer)
        };
        match begin() {
            Ok(answer) => Box::pin(told(answer)),
            Err(error) => ready(Err(error)),
        }
    }

    fn restore<'a>(&'a self, key: &'a ConsumerKey, position: &'a Position) -> Later<'a, bool> {
        Box::pin(async move {
            if self.consumer(key).is_ok() {
                return Ok(false);
            }
            let consumers = &self.opened()?.consumers;
            let kept = self.keep(&consumers.restore(key, position)).await;
            if kept.is_err() {
                consumers.remove(key);
            }
            kept.map(|()| true)
        })
    }

    fn look<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ConsumerStatus> {
        ready(self.consumer(key).map(|consumer| consumer.status()))
    }

    fn acknowledge<'a>(&'a self, consumer: &'a Arc<Consumer>, topic: &'a TopicName, cursor: Cursor) -> Later<'a, ()> {
        Box::pin(async move {
            consumer.advance(topic, cursor);
            consumer.touch();
            match self.keep(consumer).await {
                Err(Error::ConsumerTakenOver(_)) => Err(no_consumer(consumer.key())),
                kept => kept,
            }
        })
    }

    fn remove<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ()> {
        Box::pin(async move {
            let consumer = self.opened()?.consumers.remove(key).ok_or_else(|| no_consumer(key))?;
            told(self.drop_position(&consumer)?).await
        })
    }

    fn remove_all<'a>(&'a self, source: &'a Source) -> Later<'a, ()> {
        Box::pin(async move {
            let mut last = None;
            for consumer in self.opened()?.consumers.remove_all(source) {
                last = Some(self.drop_position(&consumer)?);
            }
            match last {
                Some(answer) => told(answer).await,
                None => Ok(()),
            }
        })
    }

    fn list<'a>(&'a self, source: &'a Source) -> Later<'a, Vec<ConsumerStatus>> {
        ready(self.opened().map(|opened| opened.consumers.list(source)))
    }

    fn sweep(&self) -> Vec<Source> {
        let Ok(opened) = self.opened() else { return Vec::new() };
        // A consumer in use does not expire while the server is down, however long it has had nothing to read; and what a
        // full disk refused is tried again.
        for consumer in opened.consumers.held() {
            self.moved(&consumer);
        }
        let expired = Consumers::expire(&opened.consumers);
        for consumer in &expired {
            // One that is not stored as gone expires again after the next start.
            let _ = self.drop_position(consumer);
        }
        expired.iter().map(|consumer| consumer.key().source.clone()).collect()
    }
}
