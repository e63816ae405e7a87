//! Consumers' positions on disk: known in memory, kept in the log.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    Disk, Record, Tell, Token,
    save::{put, save},
    told, unavailable,
};
use crate::{
    channel::{
        Ack, Claim, Consumer, ConsumerKey, ConsumerStatus, Consumers, Cursor, Error, Position, Source, TopicName,
        Waiter,
    },
    engine::{Later, Positions, memory::no_consumer, ready},
};

impl Disk {
    fn consumer(&self, key: &ConsumerKey) -> Result<Arc<Consumer>, Error> {
        self.opened()?.consumers.get(key).ok_or_else(|| no_consumer(key))
    }

    /// Puts into the log that a consumer is gone.
    fn drop_position(&self, consumer: &Consumer) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let (tell, answer) = oneshot::channel();
        let ConsumerKey { source, name } = consumer.key();
        let record = Record::ConsumerDeleted { source: source.as_str(), name: name.as_str() };
        self.opened()?.log.append(&record, Token::Kept(Tell(tell))).map_err(|error| unavailable(&error))?;
        Ok(answer)
    }
}

impl Positions for Disk {
    fn claim<'a>(&'a self, key: &'a ConsumerKey, ack: Ack, holder: &'a Arc<Waiter>) -> Later<'a, Claim> {
        ready(self.opened().and_then(|opened| {
            let claim = opened.consumers.claim(key, ack, holder)?;
            self.mark_dirty(&claim.consumer);
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

    fn mark_dirty(&self, consumer: &Arc<Consumer>) {
        // Each consumer has one record on its way at a time: one that moves faster than the disk is saved as often as
        // the disk can.
        if let Ok(opened) = self.opened()
            && consumer.saving.moved()
        {
            save(&opened.log, consumer);
        }
    }

    fn save<'a>(&'a self, consumer: &'a Arc<Consumer>) -> Later<'a, ()> {
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

    fn import<'a>(&'a self, key: &'a ConsumerKey, position: &'a Position) -> Later<'a, bool> {
        Box::pin(async move {
            if self.consumer(key).is_ok() {
                return Ok(false);
            }
            let consumers = &self.opened()?.consumers;
            let kept = self.save(&consumers.restore(key, position)).await;
            if kept.is_err() {
                consumers.remove(key);
            }
            kept.map(|()| true)
        })
    }

    fn get<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ConsumerStatus> {
        ready(self.consumer(key).map(|consumer| consumer.status()))
    }

    fn acknowledge<'a>(&'a self, consumer: &'a Arc<Consumer>, topic: &'a TopicName, cursor: Cursor) -> Later<'a, ()> {
        Box::pin(async move {
            self.opened()?.consumers.check_current(consumer)?;
            consumer.advance(topic, cursor);
            consumer.touch();
            self.save(consumer).await
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
        // A consumer in use does not expire while the server is down, however long it has had nothing to read; and what
        // a full disk refused is tried again.
        for consumer in opened.consumers.held() {
            self.mark_dirty(&consumer);
        }
        let expired = Consumers::expire(&opened.consumers);
        for consumer in &expired {
            // If the removal is not stored, the consumer expires again after the next start.
            let _ = self.drop_position(consumer);
        }
        expired.iter().map(|consumer| consumer.key().source.clone()).collect()
    }
}
