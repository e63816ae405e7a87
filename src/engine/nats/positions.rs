//! Consumers' positions in a bucket that every instance follows. So each instance knows all positions, and which
//! subscription holds which consumer.

mod claim;
mod hold;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    NOT_NOW, Nats,
    catch_up::CATCH_UP,
    follow::{Handler, Item, Progress},
    link::Link,
    names::{decode, encode},
    store::{BUDGET, Put, Value, put},
    topics::sync,
};
use crate::{
    channel::{
        Ack, Claim, Consumer, ConsumerKey, ConsumerName, ConsumerStatus, Consumers, Cursor, Error, Position, Saving,
        Sought, Source, TopicName, Waiter,
    },
    engine::{Later, Positions, memory::no_consumer, position},
};
use hold::{Hold, Stage};

/// The least time between two saves of a position that moves by itself. Each save is a message to the whole cluster.
const EVERY: Duration = Duration::from_millis(500);

/// How many positions are saved at once when an instance stops.
const FLUSHED_AT_ONCE: usize = 256;

/// What is known of a consumer's entry.
#[derive(Clone, Default)]
struct Known {
    revision: u64,
    /// Whether the entry exists and is not deleted.
    live: bool,
    hold: Hold,
    /// The subscription of this instance that holds the consumer, by its name in the entry.
    mine: Option<String>,
}

impl Known {
    /// Returns whether the newest subscription of the consumer belongs to this instance.
    fn is_mine(&self) -> bool {
        self.live && self.mine.as_ref().is_some_and(|mine| *mine == self.hold.claim)
    }
}

fn taken_over(key: &ConsumerKey) -> Error {
    Error::ConsumerTakenOver(key.name.name().to_owned())
}

/// The consumers on this instance, by key.
pub(super) struct Shared {
    pub consumers: Arc<Consumers>,
    pub progress: Arc<Progress>,
    bucket: String,
    known: Mutex<HashMap<String, Known>>,
    /// Acknowledgements that wait to be saved, by the consumer's key. While a key is here, a task saves its
    /// acknowledgements.
    acks: Mutex<HashMap<String, Vec<Acknowledged>>>,
    link: Link,
    tracker: TaskTracker,
}

/// A position that a client has acknowledged, and the sender for the outcome of its save.
struct Acknowledged {
    /// The consumer that was acknowledged. By now another consumer may have its name.
    consumer: Arc<Consumer>,
    topic: TopicName,
    cursor: Cursor,
    tell: oneshot::Sender<Result<(), Error>>,
}

fn token(key: &ConsumerKey) -> String {
    format!("{}.{}", encode(key.source.as_str()), encode(key.name.stored()))
}

fn key_of(token: &str) -> Option<ConsumerKey> {
    let (source, name) = token.split_once('.')?;
    Some(ConsumerKey {
        source: Source::parse(&decode(source)?).ok()?,
        name: ConsumerName::from_stored(&decode(name)?).ok()?,
    })
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

    /// Waits for what other instances have saved until now, if the cluster can be reached.
    async fn catch_up(&self) -> Result<(), Error> {
        if !self.link.is_up() {
            return Err(Error::Unavailable(NOT_NOW));
        }
        timeout(CATCH_UP, self.sync()).await.unwrap_or(Err(Error::Unavailable(NOT_NOW)))
    }

    /// Writes an entry whose content may depend on what is known, and retries until it is written or `content`
    /// returns an error.
    async fn write(
        &self,
        token: &str,
        mut content: impl FnMut(&Known) -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let known = self.known(token);
            let value = content(&known)?;
            let value = value.map_or_else(|| Value::Deleted(Vec::new()), Value::Set);
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

    /// Saves the position of a consumer that this instance holds, or has just released. `begins` says that its
    /// subscription is about to be told that it holds the consumer. A consumer that was released before that is
    /// deleted.
    ///
    /// # Errors
    /// [`Error::ConsumerTakenOver`], also if the consumer was deleted; [`Error::Unavailable`].
    async fn save(&self, consumer: &Arc<Consumer>, begins: bool) -> Result<(), Error> {
        let token = token(consumer.key());
        self.write(&token, |known| {
            if !known.is_mine() || consumer.is_removed() {
                // Another instance has taken the consumer over and has its newest position. Or the consumer was deleted, and
                // its name and its entry belong to another one now.
                return Err(taken_over(consumer.key()));
            }
            let stage = match known.hold.stage {
                Stage::New if !consumer.is_held() => return Ok(None),
                Stage::New if !begins => Stage::New,
                _ if consumer.is_held() => Stage::Held,
                _ => Stage::Left,
            };
            let hold = Hold { stage, ..known.hold.clone() };
            Ok(Some(position::encode(&consumer.position(), &hold.to_string())))
        })
        .await
    }

    /// Deletes the entry of a consumer that nobody uses any more, unless it was used meanwhile.
    async fn forget(&self, key: &ConsumerKey) -> Result<(), Error> {
        let gone = || no_consumer(key);
        // An entry from another instance has brought the consumer back meanwhile.
        let used = || self.consumers.get(key).is_some();
        self.write(&token(key), |known| if known.live && !used() { Ok(None) } else { Err(gone()) }).await
    }

    /// Saves the position at intervals for as long as it moves.
    fn save_soon(self: &Arc<Self>, consumer: &Arc<Consumer>) {
        let (shared, consumer) = (self.clone(), consumer.clone());
        if !consumer.is_held() {
            // A released position is saved at once: a client that an instance has disconnected reaches another one in
            // a moment, and the position should be known there by then.
            self.tracker.spawn(async move { _ = shared.save(&consumer, false).await });
            return;
        }
        if !consumer.saving.moved() {
            return;
        }
        self.tracker.spawn(async move {
            loop {
                sleep(EVERY).await;
                if let Err(error) = shared.save(&consumer, false).await {
                    // If the consumer is still here, the next move, or the next sweep, saves it.
                    tracing::debug!(%error, "a position is not kept");
                    consumer.saving.refused();
                    return;
                }
                if consumer.saving.stored() == Saving::Done {
                    return;
                }
            }
        });
    }

    /// Saves what clients acknowledge. Acknowledgements that come during a write are saved with the next one.
    fn acknowledge(self: &Arc<Self>, acknowledged: Acknowledged) {
        let key = acknowledged.consumer.key().clone();
        let token = token(&key);
        match self.acks.lock().entry(token.clone()) {
            Entry::Occupied(mut waiting) => return waiting.get_mut().push(acknowledged),
            Entry::Vacant(entry) => drop(entry.insert(vec![acknowledged])),
        }
        let shared = self.clone();
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
                let mut current = None;
                let saved = shared.write(&token, |known| {
                    // The write is retried when another instance was faster. That instance may have deleted the
                    // consumer and created one of the same name, to which the acknowledgement does not apply.
                    let mut meant = batch.iter().filter(|one| !one.consumer.is_removed());
                    for Acknowledged { consumer, topic, cursor, .. } in meant.clone() {
                        consumer.advance(topic, *cursor);
                    }
                    // All that were not removed are one and the same.
                    let Some(Acknowledged { consumer, .. }) = meant.next_back() else { return Err(no_consumer(&key)) };
                    consumer.touch();
                    current = Some(consumer.clone());
                    Ok(Some(position::encode(&consumer.position(), &known.hold.to_string())))
                });
                let saved = saved.await;
                for Acknowledged { consumer, tell, .. } in batch {
                    let was_meant = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &consumer));
                    let _ =
                        tell.send(if was_meant { saved.clone() } else { saved.clone().and(Err(no_consumer(&key))) });
                }
            }
        });
    }

    /// Saves the positions of all consumers that this instance holds, many at once, because a stop does not wait for
    /// long.
    pub async fn flush(self: &Arc<Self>) {
        let saving = TaskTracker::new();
        let room = Arc::new(Semaphore::new(FLUSHED_AT_ONCE));
        for consumer in self.consumers.all() {
            let known = self.known(&token(consumer.key()));
            // A released consumer is already saved, or is being saved.
            if known.is_mine() && known.hold.stage != Stage::Left {
                let Ok(permit) = room.clone().acquire_owned().await else { return };
                let shared = self.clone();
                saving.spawn(async move {
                    let _ = shared.save(&consumer, false).await;
                    drop(permit);
                });
            }
        }
        saving.close();
        saving.wait().await;
    }

    /// Applies an entry, under one lock, so that a task which sees its revision also sees its content.
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
            known.hold = Hold::default();
            self.consumers.remove(&key);
            return;
        };
        known.hold = Hold::parse(&holder);
        if known.is_mine() && known.hold.stage != Stage::Left {
            // This is an entry that this instance has written, or an acknowledgement or a seek through another instance.
            if let Some(consumer) = self.consumers.get(&key)
                && !consumer.follow_seek(&position)
            {
                for (topic, cursor) in &position.cursors {
                    consumer.advance_known(topic, *cursor);
                }
            }
            return;
        }
        let lost = known.mine.is_some() && !known.is_mine();
        known.mine = None;
        let consumer = self.consumers.restore(&key, &position);
        if lost {
            // Another instance has taken it over, or another subscription of this one, which has already told the
            // older one.
            consumer.revoke();
        }
        let held = matches!(known.hold.stage, Stage::New | Stage::Held) && !known.hold.claim.is_empty();
        consumer.held_elsewhere(held.then_some(position.used_at));
    }
}

/// Passes the bucket's changes to the consumers.
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
            // The name of this subscription in the entry. Later subscriptions have greater names.
            let mine = uuid::Uuid::now_v7().to_string();
            let resumed = shared.write_claim(key, ack, &mine).await?;
            let claim = shared.take(key, ack, holder, mine)?;
            Ok(Claim { resumed, ..claim })
        })
    }

    fn withdraw<'a>(&'a self, consumer: &'a Arc<Consumer>, generation: u64) -> Later<'a, ()> {
        Box::pin(async move {
            let key = consumer.key();
            let gone = || taken_over(key);
            let ours = |known: &Known| known.is_mine() && !consumer.is_taken_over(generation);
            self.shared()?.write(&token(key), |known| if ours(known) { Ok(None) } else { Err(gone()) }).await
        })
    }

    fn mark_dirty(&self, consumer: &Arc<Consumer>) {
        if let Ok(shared) = self.shared() {
            shared.save_soon(consumer);
        }
    }

    fn save<'a>(&'a self, consumer: &'a Arc<Consumer>) -> Later<'a, ()> {
        Box::pin(async move { self.shared()?.save(consumer, true).await })
    }

    fn import<'a>(&'a self, key: &'a ConsumerKey, position: &'a Position) -> Later<'a, bool> {
        Box::pin(async move {
            let shared = self.shared()?;
            shared.sync().await?;
            let mut taken = false;
            let token = token(key);
            let write = shared.write(&token, |known| {
                // Another instance may be faster.
                taken = !known.live && shared.consumers.get(key).is_none();
                if taken { Ok(Some(position::encode(position, ""))) } else { Err(taken_over(key)) }
            });
            match write.await {
                Err(Error::ConsumerTakenOver(_)) => Ok(false),
                written => written.map(|()| taken),
            }
        })
    }

    fn get<'a>(&'a self, key: &'a ConsumerKey) -> Later<'a, ConsumerStatus> {
        Box::pin(async move {
            // If the cluster cannot be reached, what is known here is returned.
            let synced = self.shared()?.catch_up().await;
            match (self.consumer(key), synced) {
                (Err(_), Err(error)) => Err(error),
                (consumer, _) => Ok(consumer?.status()),
            }
        })
    }

    fn acknowledge<'a>(&'a self, consumer: &'a Arc<Consumer>, topic: &'a TopicName, cursor: Cursor) -> Later<'a, ()> {
        Box::pin(async move {
            let (tell, told) = oneshot::channel();
            let acknowledged = Acknowledged { consumer: consumer.clone(), topic: topic.clone(), cursor, tell };
            self.shared()?.acknowledge(acknowledged);
            told.await.unwrap_or(Err(Error::Unavailable("the server is shutting down")))
        })
    }

    fn seek<'a>(&'a self, consumer: &'a Arc<Consumer>, to: &'a Sought) -> Later<'a, ()> {
        Box::pin(async move {
            let (shared, key) = (self.shared()?, consumer.key());
            let token = token(key);
            // The instance whose subscription has the consumer follows the entry, as this one does.
            let write = shared.write(&token, |known| {
                if !known.live || consumer.is_removed() {
                    return Err(no_consumer(key));
                }
                Ok(Some(position::encode(&consumer.position().sought(to), &known.hold.to_string())))
            });
            write.await
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
            // The topic may already be in its next incarnation, with consumers of that one.
            let next = match source {
                Source::Topic(name) => self.inner()?.topics.registry.find(name).map(|channel| channel.epoch()),
                Source::Pattern(_) => None,
            };
            for status in self.shared()?.consumers.list(source) {
                let cursors = &status.position.cursors;
                if next.is_some_and(|next| cursors.iter().any(|(_, at)| at.epoch == next)) {
                    continue;
                }
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
        // Consumers in use are refreshed, or other instances would take them for unused. Consumers that were released
        // while the cluster could not be reached are saved now.
        for consumer in shared.consumers.all() {
            let known = shared.known(&token(consumer.key()));
            if consumer.is_held() || (known.is_mine() && known.hold.stage != Stage::Left) {
                shared.save_soon(&consumer);
            }
        }
        let expired = shared.consumers.expire();
        let sources = expired.iter().map(|consumer| consumer.key().source.clone()).collect();
        let task = shared.clone();
        shared.tracker.spawn(async move {
            for consumer in expired {
                // The first instance deletes it.
                let _ = task.forget(consumer.key()).await;
            }
        });
        sources
    }
}
