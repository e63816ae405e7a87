//! Consumers' positions on disk: known in memory, kept in the log.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    CommitReply, Disk, Record, Token, committed,
    save::{put, save},
    unavailable,
};
use crate::{
    channel::{
        Ack, Claim, Consumer, ConsumerKey, ConsumerStatus, Consumers, Cursor, Error, Position, Sought, Source,
        TopicName, Waiter,
    },
    engine::{Later, Positions, memory::no_consumer, ready},
};

impl Disk {
    fn consumer(&self, key: &ConsumerKey) -> Result<Arc<Consumer>, Error> {
        self.opened()?.consumers.get(key).ok_or_else(|| no_consumer(key))
    }

    /// Puts into the log that a consumer is gone. Where another one was created under its name meanwhile, that one's record
    /// takes the place of the removed one's: a removal queued behind it would remove the new one from the log.
    fn drop_position(&self, consumer: &Consumer) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let opened = self.opened()?;
        let (reply, outcome) = oneshot::channel();
        let token = Token::Saved(CommitReply(reply));
        let ConsumerKey { source, name } = consumer.key();
        opened.consumers.with_current(consumer.key(), |current| match current {
            Some(current) => put(&opened.log, current, token),
            None => {
                let record = Record::ConsumerDeleted { source: source.as_str(), name: name.stored() };
                opened.log.append(&record, token).map(drop).map_err(|error| unavailable(&error))
            }
        })?;
        Ok(outcome)
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
                return Err(Error::ConsumerTakenOver(consumer.key().name.name().to_owned()));
            }
            committed(self.drop_position(consumer)?).await
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
            let (reply, outcome) = oneshot::channel();
            put(&self.opened()?.log, consumer, Token::Saved(CommitReply(reply)))?;
            Ok(outcome)
        };
        match begin() {
            Ok(outcome) => Box::pin(committed(outcome)),
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
            consumer.advance(topic, cursor);
            consumer.touch();
            match self.save(consumer).await {
                Err(Error::ConsumerTakenOver(_)) => Err(no_consumer(consumer.key())),
                saved => saved,
            }
        })
    }

    fn seek<'a>(&'a self, consumer: &'a Arc<Consumer>, to: &'a Sought) -> Later<'a, ()> {
        Box::pin(async move {
            consumer.seek(to)?;
            match self.save(consumer).await {
                Err(Error::ConsumerTakenOver(_)) => Err(no_consumer(consumer.key())),
                saved => saved,
            }
        })
    }

    fn remove<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ()> {
        Box::pin(async move {
            let consumer = self.opened()?.consumers.remove(key).ok_or_else(|| no_consumer(key))?;
            committed(self.drop_position(&consumer)?).await
        })
    }

    fn remove_all<'a>(&'a self, source: &'a Source) -> Later<'a, ()> {
        Box::pin(async move {
            let mut last = None;
            for consumer in self.opened()?.consumers.remove_all(source) {
                last = Some(self.drop_position(&consumer)?);
            }
            match last {
                Some(outcome) => committed(outcome).await,
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
