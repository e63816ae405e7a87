//! Consumers' positions in a bucket that every instance follows: so each knows them all, and who has which.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    CATCH_UP, NOT_NOW, Nats,
    follow::{Handler, Item, Progress},
    link::Link,
    names::{decode, encode},
    store::{BUDGET, Put, put},
    topics::sync,
};
use crate::{
    channel::{
        Ack, Claim, Consumer, ConsumerKey, ConsumerName, ConsumerStatus, Consumers, Cursor, Error, Position, Saving,
        Source, TopicName, Waiter,
    },
    engine::{Later, Positions, memory::no_consumer, position},
};

/// The least time between two saves of a position that moves by itself: each is a message for the whole cluster.
const EVERY: Duration = Duration::from_millis(500);

/// What is known of a consumer's entry.
#[derive(Clone, Default)]
struct Known {
    revision: u64,
    /// Whether it is there, not deleted.
    live: bool,
    /// The subscription that has it, in the entry's words; empty for none.
    holder: String,
    /// The subscription of this instance that has it, in the same words.
    mine: Option<String>,
}

/// The consumers on this instance, by key.
pub(super) struct Shared {
    pub consumers: Arc<Consumers>,
    pub progress: Arc<Progress>,
    bucket: String,
    known: Mutex<HashMap<String, Known>>,
    /// Acknowledgements that wait to be kept, by the consumer's key. While one is here, a task is at work on it.
    acks: Mutex<HashMap<String, Vec<Acknowledged>>>,
    link: Link,
    tracker: TaskTracker,
}

/// A place that a client has acknowledged, and who waits for it to be kept.
struct Acknowledged {
    topic: TopicName,
    cursor: Cursor,
    tell: oneshot::Sender<Result<(), Error>>,
}

fn token(key: &ConsumerKey) -> String {
    format!("{}.{}", encode(key.source.as_str()), encode(key.name.as_str()))
}

fn key_of(token: &str) -> Option<ConsumerKey> {
    let (source, name) = token.split_once('.')?;
    Some(ConsumerKey { source: Source::parse(&decode(source)?).ok()?, name: ConsumerName::parse(&decode(name)?).ok()? })
}

impl Shared {
    pub fn new(consumers: Arc<Consumers>, bucket: String, link: Link, tracker: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            consumers,
            progress: Progress::new(),
            bucket,
            known: Mutex::default(),
            acks: Mutex::default(),
            link,
            tracker,
        })
    }

    fn known(&self, token: &str) -> Known {
        self.known.lock().get(token).cloned().unwrap_or_default()
    }

    async fn sync(&self) -> Result<(), Error> {
        sync(&self.link, &format!("KV_{}", self.bucket), &self.progress).await
    }

    /// Learns what other instances have moved until now, if that can be learned now.
    async fn catch_up(&self) -> Result<(), Error> {
        if !self.link.is_up() {
            return Err(Error::Unavailable(NOT_NOW));
        }
        timeout(CATCH_UP, self.sync()).await.unwrap_or(Err(Error::Unavailable(NOT_NOW)))
    }

    /// Writes an entry whose content may depend on what is known, until it is written or `content` declines.
    async fn write(
        &self,
        token: &str,
        mut content: impl FnMut(&Known) -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let known = self.known(token);
            let value = content(&known)?;
            match put(&self.link, &self.bucket, token, value, known.revision).await? {
                Put::Stored(revision) => {
                    if timeout(BUDGET, self.progress.wait(revision)).await.is_err() {
                        return Err(Error::Unavailable(NOT_NOW));
                    }
                    return Ok(());
                }
                Put::Conflict => self.sync().await?,
            }
            if begun.elapsed() > BUDGET {
                return Err(Error::Unavailable(NOT_NOW));
            }
        }
    }

    /// Writes where a consumer stands that this instance has, or had until now.
    async fn save(&self, consumer: &Arc<Consumer>) -> Result<(), Error> {
        let token = token(consumer.key());
        let gone = || no_consumer(consumer.key());
        self.write(&token, |known| match &known.mine {
            // Another instance has taken it over, and knows better.
            Some(mine) if known.live && known.holder != *mine => Err(gone()),
            None if !known.holder.is_empty() => Err(gone()),
            _ if !known.live => Err(gone()),
            Some(mine) => {
                let holder = if consumer.is_held() { mine.as_str() } else { "" };
                Ok(Some(position::encode(&consumer.position(), holder)))
            }
            None => Ok(Some(position::encode(&consumer.position(), ""))),
        })
        .await
    }

    /// Saves now and then for as long as the position moves.
    fn save_soon(self: &Arc<Self>, consumer: &Arc<Consumer>) {
        let (shared, consumer) = (self.clone(), consumer.clone());
        if !consumer.is_held() {
            // Let go, and a client that an instance has sent away is with another in a moment: what it had got should be
            // known there by then.
            self.tracker.spawn(async move { _ = shared.save(&consumer).await });
            return;
        }
        if !consumer.saving.moved() {
            return;
        }
        self.tracker.spawn(async move {
            loop {
                sleep(EVERY).await;
                match shared.save(&consumer).await {
                    Ok(()) => {}
                    Err(Error::ConsumerNotFound(_)) => {
                        consumer.saving.refused();
                        return;
                    }
                    Err(error) => {
                        // The next move, or the next sweep, saves it.
                        tracing::debug!(%error, "a position could not be kept yet");
                        consumer.saving.refused();
                        return;
                    }
                }
                if consumer.saving.stored() == Saving::Done {
                    return;
                }
            }
        });
    }

    /// Keeps what clients acknowledge: what comes while one write is on its way goes with the next.
    fn acknowledge(self: &Arc<Self>, key: &ConsumerKey, acknowledged: Acknowledged) {
        let token = token(key);
        match self.acks.lock().entry(token.clone()) {
            Entry::Occupied(mut waiting) => return waiting.get_mut().push(acknowledged),
            Entry::Vacant(entry) => drop(entry.insert(vec![acknowledged])),
        }
        let (shared, key) = (self.clone(), key.clone());
        self.tracker.spawn(async move {
            loop {
                let batch = {
                    let mut acks = shared.acks.lock();
                    match acks.get_mut(&token).map(std::mem::take) {
                        Some(batch) if !batch.is_empty() => batch,
                        _ => {
                            acks.remove(&token);
                            return;
                        }
                    }
                };
                let kept = shared.write(&token, |known| {
                    let consumer = shared.consumers.get(&key).ok_or_else(|| no_consumer(&key))?;
                    // Another instance's word may have come in between.
                    for Acknowledged { topic, cursor, .. } in &batch {
                        consumer.advance(topic, *cursor);
                    }
                    consumer.touch();
                    Ok(Some(position::encode(&consumer.position(), &known.holder)))
                });
                let kept = kept.await;
                for acknowledged in batch {
                    let _ = acknowledged.tell.send(kept.clone());
                }
            }
        });
    }

    /// Everything that moved and is not kept yet.
    pub async fn flush(&self) {
        for consumer in self.consumers.all() {
            if self.known(&token(consumer.key())).mine.is_some() {
                let _ = self.save(&consumer).await;
            }
        }
    }

    fn note(&self, item: &Item) {
        let deleted = item.header("KV-Operation").is_some();
        let Some(key) = key_of(&item.key) else { return };
        let read = if deleted { None } else { position::decode(&item.payload) };
        let mut all = self.known.lock();
        let known = all.entry(item.key.clone()).or_default();
        known.revision = item.sequence;
        known.live = read.is_some();
        let Some((position, holder)) = read else {
            known.mine = None;
            known.holder.clear();
            drop(all);
            self.consumers.remove(&key);
            return;
        };
        let mine = known.mine.as_ref().is_some_and(|mine| *mine == holder);
        let lost = known.mine.is_some() && !mine;
        if lost && !holder.is_empty() {
            known.mine = None;
        }
        known.holder.clone_from(&holder);
        let held_here = known.mine.is_some();
        drop(all);
        if held_here {
            // An echo of what was written here, or an acknowledgement that went through another instance.
            if let Some(consumer) = self.consumers.get(&key) {
                for (topic, cursor) in &position.places {
                    consumer.advance_known(topic, *cursor);
                }
            }
            return;
        }
        let consumer = self.consumers.restore(&key, &position);
        if lost {
            consumer.revoke();
        }
        consumer.held_elsewhere(if holder.is_empty() { None } else { Some(position.used_at) });
    }
}

/// Brings the bucket's changes to the consumers.
pub(super) struct PositionsHandler(pub Arc<Shared>);

impl Handler for PositionsHandler {
    async fn take(&mut self, item: Item) {
        self.0.note(&item);
    }

    fn reset(&mut self) {
        self.0.known.lock().clear();
        for consumer in self.0.consumers.all() {
            self.0.consumers.remove(consumer.key());
        }
    }
}

impl Nats {
    fn shared(&self) -> Result<&Arc<Shared>, Error> {
        self.opened().map(|opened| &opened.positions)
    }

    fn consumer(&self, key: &ConsumerKey) -> Result<Arc<Consumer>, Error> {
        self.shared()?.consumers.get(key).ok_or_else(|| no_consumer(key))
    }
}

impl Positions for Nats {
    fn claim<'a>(&'a self, key: &'a ConsumerKey, ack: Ack, holder: &'a Arc<Waiter>) -> Later<'a, Claim> {
        Box::pin(async move {
            let shared = self.shared()?;
            let token = token(key);
            // What the cluster is told of this subscription. Later ones have greater names.
            let mine = uuid::Uuid::now_v7().to_string();
            let mut resumed = false;
            let mut before = None;
            shared
                .write(&token, |known| {
                    // While this waited for the cluster, a subscription took the consumer that began later. It may be the
                    // same client, which got tired of waiting here.
                    if before.get_or_insert_with(|| known.holder.clone()) != &known.holder && known.holder > mine {
                        return Err(Error::ConsumerTakenOver(key.name.as_str().to_owned()));
                    }
                    let there = shared.consumers.get(key).filter(|_| known.live);
                    if known.holder == mine {
                        // Written before, without an answer.
                    } else {
                        resumed = there.is_some();
                    }
                    if there.is_none() {
                        shared.consumers.check_room(key)?;
                    }
                    let fresh = || Position { ack, places: Vec::new(), used_at: crate::channel::Timestamp::now() };
                    let position = there.map_or_else(fresh, |consumer| Position { ack, ..consumer.position() });
                    Ok(Some(position::encode(&position, &mine)))
                })
                .await?;
            let claim = shared.consumers.claim(key, ack, holder)?;
            let overtaken = {
                let mut all = shared.known.lock();
                let known = all.entry(token).or_default();
                let overtaken = known.holder != mine;
                known.mine = (!overtaken).then_some(mine);
                overtaken
            };
            claim.consumer.held_elsewhere(None);
            if overtaken {
                // Between the answer and now another instance was faster still.
                claim.consumer.revoke();
            }
            Ok(Claim { resumed, ..claim })
        })
    }

    fn moved(&self, consumer: &Arc<Consumer>) {
        if let Ok(shared) = self.shared() {
            shared.save_soon(consumer);
        }
    }

    fn keep<'a>(&'a self, consumer: &'a Arc<Consumer>) -> Later<'a, ()> {
        Box::pin(async move { self.shared()?.save(consumer).await })
    }

    fn restore<'a>(&'a self, key: &'a ConsumerKey, position: &'a Position) -> Later<'a, bool> {
        Box::pin(async move {
            let shared = self.shared()?;
            shared.sync().await?;
            if shared.consumers.get(key).is_some() {
                return Ok(false);
            }
            shared.write(&token(key), |_| Ok(Some(position::encode(position, "")))).await?;
            Ok(true)
        })
    }

    fn look<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ConsumerStatus> {
        Box::pin(async move {
            // What is known here is still better than nothing.
            let synced = self.shared()?.catch_up().await;
            match (self.consumer(key), synced) {
                (Err(_), Err(error)) => Err(error),
                (consumer, _) => Ok(consumer?.status()),
            }
        })
    }

    fn acknowledge<'a>(&'a self, key: &'a ConsumerKey, topic: &'a TopicName, cursor: Cursor) -> Later<'a, ()> {
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            self.shared()?.acknowledge(key, Acknowledged { topic: topic.clone(), cursor, tell });
            told.await.unwrap_or(Err(Error::Unavailable("the server is shutting down")))
        })
    }

    fn remove<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ()> {
        Box::pin(async move {
            if self.consumer(key).is_err() {
                self.shared()?.sync().await?;
            }
            self.shared()?.write(&token(key), |known| if known.live { Ok(None) } else { Err(no_consumer(key)) }).await
        })
    }

    fn remove_all<'a>(&'a self, source: &'a Source) -> Later<'a, ()> {
        Box::pin(async move {
            self.shared()?.sync().await?;
            for status in self.shared()?.consumers.list(source) {
                let key = ConsumerKey { source: source.clone(), name: status.name };
                match self.remove(&key).await {
                    Ok(()) | Err(Error::ConsumerNotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    fn list<'a>(&'a self, source: &'a Source) -> Later<'a, Vec<ConsumerStatus>> {
        Box::pin(async move {
            let shared = self.shared()?;
            let _ = shared.catch_up().await;
            Ok(shared.consumers.list(source))
        })
    }

    fn sweep(&self) -> Vec<Source> {
        let Ok(shared) = self.shared() else { return Vec::new() };
        // What is in use says so: else other instances would take it for forgotten.
        for consumer in shared.consumers.held() {
            shared.save_soon(&consumer);
        }
        let expired = shared.consumers.expire();
        let sources = expired.iter().map(|consumer| consumer.key().source.clone()).collect();
        let task = shared.clone();
        shared.tracker.spawn(async move {
            for consumer in expired {
                let key = consumer.key().clone();
                // Whoever comes first deletes it.
                let delete = |known: &Known| if known.live { Ok(None) } else { Err(no_consumer(&key)) };
                let _ = task.write(&token(&key), delete).await;
            }
        });
        sources
    }
}
