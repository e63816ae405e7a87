//! The engine that survives the process: a log of segments in one directory, nothing to install.
//!
//! All topics live in memory as with the memory engine; the log is what they are read back from. A message is numbered
//! under its channel's lock and put into the log's queue there, waits unread beside the history, and becomes readable
//! when the log says that it is stored by the policy ([`Fsync`]); then its publisher gets the outcome.

mod commit;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tasks that end with a process that is killed")]
mod kills;
mod log;
mod positions;
mod repair;
mod restore;
mod save;
mod snapshot;
mod token;

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Semaphore, oneshot};

use super::{Append, Engine, Health, Later, MetricSample, Opening, Positions, ready};
use crate::channel::{
    Age, Channel, Consumers, Error, Incarnation, KnownId, MessageId, NewMessage, Reclaimed, Refusal, Registry,
    Retention, Stage, Staging, TopicConfig, TopicName,
};
use commit::{Committer, DiskHealth, FAILED};
use log::{Log, LogError, MessageRecord, OpenError, Record};
use token::{CommitReply, Token};

pub use log::Fsync;
#[cfg(feature = "test-support")]
#[doc(hidden)]
pub use log::fuzz;
pub use repair::repair;
pub use snapshot::{Snapshot, StoredId, StoredMessage, Topic};

/// Where and how the disk engine stores.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory; made where it is missing.
    pub directory: PathBuf,
    /// When a message counts as stored.
    pub fsync: Fsync,
    /// Bytes of the largest message's data.
    pub max_payload_bytes: usize,
    /// How long a publisher's id is kept after its publication, even when the message is gone.
    pub dedup_window: Duration,
    /// Bytes that ids of messages that are not kept may take.
    pub dedup_bytes: u64,
}

/// The longest id, key and headers, and what a record has beside them and the data.
const BESIDE_DATA: usize = 8 << 10;

/// The largest position of a consumer.
const POSITION_BYTES: usize = 1 << 20;

/// Bytes that may wait for the disk, beside as many that are on their way.
const QUEUE_BYTES: usize = 16 << 20;

/// Ids that may be on their way to the disk at once: a fraction of what its queue holds.
const IDS_AT_ONCE: usize = 4_096;

/// The largest payload that a record of the log holds with its id, key and headers.
pub const MAX_PAYLOAD_BYTES: usize = 62 << 20;

/// Brings whether a record is stored.
type Stored = oneshot::Receiver<Result<(), Error>>;

/// The engine that survives the process.
pub struct Disk {
    settings: Settings,
    /// See [`log::LogConfig`].
    segment_bytes: u64,
    keep_aged: Duration,
    opened: OnceLock<Opened>,
    health: Arc<DiskHealth>,
}

struct Opened {
    log: Arc<Log<Token>>,
    registry: Arc<Registry>,
    consumers: Arc<Consumers>,
    next_key: AtomicU64,
    /// One change at a time, so that none is computed from settings that another is about to replace.
    changing: Semaphore,
}

impl Disk {
    /// The engine, not yet open.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let log::LogConfig { segment_bytes, keep_aged, .. } = log::LogConfig::default();
        Self { settings, segment_bytes, keep_aged, opened: OnceLock::new(), health: Arc::default() }
    }

    fn opened(&self) -> Result<&Opened, Error> {
        self.opened.get().ok_or(Error::Unavailable("the engine is not open"))
    }

    /// Puts a new topic into the registry, and its creation into the log's queue; the receiver tells whether that is
    /// stored.
    fn begin_topic(
        &self,
        name: &TopicName,
        config: TopicConfig,
        implicit: bool,
    ) -> Result<(Arc<Channel>, Stored), Error> {
        let opened = self.opened()?;
        let topic_id = opened.next_key.fetch_add(1, Ordering::Relaxed);
        let new = Incarnation::new(name, config);
        let incarnation = Incarnation { implicit, serial: Some(topic_id), ..new };
        let (reply, outcome) = oneshot::channel();
        let channel = opened.registry.insert(incarnation, |channel| {
            let record = Record::TopicCreated {
                topic_id,
                epoch: channel.epoch().to_bits(),
                name: name.as_str(),
                created_at_ms: channel.created_at().0,
                implicit,
                settings: &config.encode(),
            };
            let token = Token::Created(channel.clone(), CommitReply(reply));
            opened.log.append(&record, token).map(drop).map_err(|error| unavailable(&error))
        })?;
        Ok((channel, outcome))
    }

    fn log_settings(&self, registry: &Registry) -> log::LogConfig {
        let max_record_bytes = self.settings.max_payload_bytes.max(POSITION_BYTES) + BESIDE_DATA;
        log::LogConfig {
            fsync: self.settings.fsync,
            max_record_bytes,
            queue_bytes: QUEUE_BYTES.max(2 * max_record_bytes),
            dedup_window: self.settings.dedup_window,
            dedup_bytes: self.settings.dedup_bytes,
            segment_bytes: self.segment_bytes,
            keep_aged: self.keep_aged,
            max_age_of: |settings| Some(TopicConfig::decode(settings)?.max_age?.as_millis()),
            default_max_age_ms: registry.defaults().max_age.as_millis(),
            is_keyed,
            ..log::LogConfig::default()
        }
    }
}

fn keeps_latest(config: TopicConfig) -> bool {
    config.retention == Some(Retention::LatestPerKey)
}

/// Whether a topic with these settings keeps the newest message of each key only.
fn is_keyed(settings: &[u8]) -> bool {
    TopicConfig::decode(settings).is_some_and(keeps_latest)
}

/// Tells the log what is no longer kept of a topic.
fn drop_records(log: &Log<Token>, channel: &Channel, Reclaimed { floor, within, replaced, .. }: &Reclaimed) {
    let topic_id = channel.serial();
    if !replaced.is_empty() {
        log.replace(topic_id, replaced);
    }
    if !within.is_empty() {
        log.forget(topic_id, within);
    }
    if let Some(floor) = floor {
        log.trim(topic_id, floor.saturating_add(1));
    }
}

/// The record that ends a topic.
fn deletion(channel: &Channel, newest_sequence: u64) -> Record<'_> {
    let (epoch, name) = (channel.epoch().to_bits(), channel.name().as_str());
    Record::TopicDeleted { topic_id: channel.serial(), epoch, name, newest_sequence }
}

/// What a log's refusal means to a publisher.
fn unavailable(error: &LogError) -> Error {
    Error::Unavailable(match error {
        LogError::Busy => "the disk does not keep up; nothing was stored",
        LogError::Full => "the disk is full; nothing was stored",
        LogError::Write(_) => "the disk refuses writes; nothing was stored",
        LogError::Closed => "the server is shutting down",
        LogError::Failed(_) | LogError::Stopped(_) => FAILED,
        LogError::TooLarge { .. } | LogError::Invalid(_) => "the message does not fit the log; nothing was stored",
    })
}

/// What it means to the publisher of this message.
fn refusal(error: &LogError, id: &MessageId) -> Refusal {
    Refusal::Error(match error {
        error if error.certainly_not_stored() => unavailable(error),
        _ => Error::Unknown(id.clone()),
    })
}

/// Keys of topics are never given twice, not even when all trace of the first is gone from the log: they begin again
/// behind the clock with every start, a million for each second.
fn first_key(used: u64) -> u64 {
    let epoch = UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    let seconds = SystemTime::now().duration_since(epoch).map_or(0, |since| since.as_secs());
    (seconds << 20).max(used.saturating_add(1))
}

/// Waits for the outcome that the log's thread reports.
async fn committed(outcome: Stored) -> Result<(), Error> {
    // The log drops the sender only when its thread has died.
    outcome.await.unwrap_or(Err(Error::Unavailable(FAILED)))
}

impl Engine for Disk {
    fn open(&self, registry: Arc<Registry>, consumers: Arc<Consumers>) -> Opening<'_> {
        Box::pin(async move {
            let directory = self.settings.directory.clone();
            let (settings, health) = (self.log_settings(&registry), self.health.clone());
            let restored = tokio::task::spawn_blocking(move || {
                restore::open(&directory, settings, &registry, &consumers, health)
                    .map(|(log, used)| (log, used, registry, consumers))
            });
            let (log, used, registry, consumers) =
                restored.await.map_err(|error| format!("DATA_DIR: {error}"))?.map_err(|error| match error {
                    OpenError::Damaged { .. } => {
                        format!("DATA_DIR: {error}; restore a backup, or let `pub-sub repair` cut the log there")
                    }
                    error => format!("DATA_DIR: {error}"),
                })?;
            let next_key = AtomicU64::new(first_key(used));
            let opened = Opened { log, registry, consumers, next_key, changing: Semaphore::new(1) };
            self.opened.set(opened).map_err(|_| "the engine is open already".to_owned())
        })
    }

    fn create<'a>(&'a self, name: &'a TopicName, config: TopicConfig, implicit: bool) -> Later<'a, Arc<Channel>> {
        match self.begin_topic(name, config, implicit) {
            Ok((channel, outcome)) => Box::pin(async move { committed(outcome).await.map(|()| channel) }),
            Err(error) => ready(Err(error)),
        }
    }

    fn create_now(&self, name: &TopicName) -> Option<Arc<Channel>> {
        // If the creation is not stored, neither is the message behind it, and its publisher learns that.
        self.begin_topic(name, TopicConfig::default(), true).ok().map(|(channel, _)| channel)
    }

    fn update<'a>(&'a self, channel: &'a Arc<Channel>, change: TopicConfig, adopt: bool) -> Later<'a, ()> {
        Box::pin(async move {
            let opened = self.opened()?;
            let _one_at_a_time = opened.changing.acquire().await;
            let implicit = channel.is_implicit();
            if adopt && !implicit {
                return Err(Error::TopicExists(channel.name().clone()));
            }
            let (implicit, before) = (implicit && !adopt, channel.config());
            let config = change.or(before);
            opened.registry.prepare(channel, config)?;
            let (reply, outcome) = oneshot::channel();
            let (topic_id, floor, settings) = (channel.serial(), channel.history_floor(), &config.encode());
            let token = Token::Updated(channel.clone(), implicit, config, CommitReply(reply));
            // Every message before this record stands before it in the log, too.
            let appended = channel.with_newest(|newest| {
                let ends = keeps_latest(before) && !keeps_latest(config);
                let compacted_until = if ends { newest } else { 0 };
                let record = Record::TopicUpdated { topic_id, implicit, floor, compacted_until, settings };
                opened.log.append(&record, token)
            });
            if let Err(error) = appended {
                opened.registry.abandon(channel);
                return Err(unavailable(&error));
            }
            committed(outcome).await
        })
    }

    fn delete<'a>(&'a self, channel: &'a Arc<Channel>) -> Later<'a, ()> {
        Box::pin(async move {
            let (reply, outcome) = oneshot::channel();
            let token = Token::Deleted(channel.clone(), CommitReply(reply));
            let record = deletion(channel, channel.newest_sequence());
            self.opened()?.log.append(&record, token).map_err(|error| unavailable(&error))?;
            committed(outcome).await
        })
    }

    fn append(&self, channel: &Arc<Channel>, new_message: NewMessage) -> Append {
        let opened = match self.opened() {
            Ok(opened) => opened,
            Err(error) => return Err(error.into()).into(),
        };
        let staged = channel.stage(new_message, |message, stage| {
            let Stage { stored_before, sequence_before, given_id, floor, replaces_older } = stage;
            let record = Record::Message(MessageRecord {
                topic_id: channel.serial(),
                offset: message.cursor.offset,
                prev: stored_before,
                prev_sequence: sequence_before,
                floor,
                at_ms: message.published_at.0,
                id: message.id.as_str().as_bytes(),
                id_is_given: given_id,
                key: message.key.as_ref().map(|key| key.as_str().as_bytes()),
                data: message.data.as_str().as_bytes(),
                headers: message.headers.as_ref().map(|headers| headers.as_json().as_bytes()),
                ttl_ms: message.ttl.map_or(0, Age::as_millis),
                is_hollow: false,
                is_removal: message.is_removal,
                replaces_older,
            });
            opened.log.append(&record, Token::Message(channel.clone())).map_err(|error| unavailable(&error))
        });
        match staged {
            Ok(Staging::Known(first)) => Ok(first).into(),
            Ok(Staging::Staged(answer)) => {
                Append::pending(async move { answer.await.unwrap_or(Err(Error::Unavailable(FAILED).into())) })
            }
            Err(refusal) => Err(refusal).into(),
        }
    }

    fn remember<'a>(&'a self, channel: &'a Arc<Channel>, ids: &'a [KnownId]) -> Later<'a, ()> {
        Box::pin(async move {
            let opened = self.opened()?;
            for ids in ids.chunks(IDS_AT_ONCE) {
                let unknown =
                    |known: &&KnownId| known.is_within(self.settings.dedup_window) && !channel.knows(&known.id);
                let mut outcomes = Vec::new();
                for KnownId { id, at } in ids.iter().filter(unknown) {
                    let (reply, outcome) = oneshot::channel();
                    let record = Record::Id { topic_id: channel.serial(), at_ms: at.0, id: id.as_str().as_bytes() };
                    let appended = opened.log.append(&record, Token::Saved(CommitReply(reply)));
                    appended.map_err(|error| unavailable(&error))?;
                    outcomes.push(outcome);
                }
                for outcome in outcomes {
                    committed(outcome).await?;
                }
                channel.remember(ids)?;
            }
            Ok(())
        })
    }

    fn reclaimed(&self, channel: &Arc<Channel>, reclaimed: &Reclaimed) {
        if let Ok(opened) = self.opened() {
            drop_records(&opened.log, channel, reclaimed);
        }
    }

    fn release(&self, channel: &Arc<Channel>) {
        if let Ok(opened) = self.opened() {
            opened.registry.remove_unused(channel, || {
                // If this is not stored, the next start finds the topic unused and removes it.
                // It never had a message.
                let _ = opened.log.append(&deletion(channel, 0), Token::Nothing);
            });
        }
    }

    fn health(&self) -> Health {
        if self.opened.get().is_none() {
            return Health::Starting("the server is reading its log");
        }
        self.health.read_only().map_or(Health::Ready, Health::ReadOnly)
    }

    fn metric_samples(&self) -> Vec<MetricSample> {
        let Ok(opened) = self.opened() else { return Vec::new() };
        let metrics = opened.log.metrics();
        let sample = |name, counter, help, value| MetricSample { name, label: None, counter, help, value };
        vec![
            sample("log_bytes", false, "Bytes of the log's segments.", metrics.bytes),
            sample("log_live_bytes", false, "Bytes of the log that are still needed.", metrics.live_bytes),
            sample("log_segments", false, "Segments of the log.", metrics.segments as u64),
            sample("log_queued_bytes", false, "Bytes that wait for the log's thread.", metrics.queued_bytes as u64),
            sample("log_records_total", true, "Records stored since the start.", metrics.records),
            sample("log_batches_total", true, "Writes with which they were stored.", metrics.batches),
            sample("log_syncs_total", true, "Syncs since the start.", metrics.syncs),
            sample("log_refused_total", true, "Records that the disk refused since the start.", self.health.refused()),
        ]
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let Ok(opened) = self.opened() else { return };
            // The time of their last use, and whether a subscription has them, are newer than what was saved with their last
            // move. The save is not left to one that is in flight, which would repeat it when the log is closed already.
            for consumer in opened.consumers.all() {
                let _ = save::put(&opened.log, &consumer, Token::Nothing);
            }
            let log = opened.log.clone();
            let closed = tokio::task::spawn_blocking(move || log.close()).await;
            if let Ok(Err(error)) = closed {
                tracing::error!(%error, "the log was not closed in order; the next start will find out what is there");
            }
        })
    }

    fn positions(&self) -> &dyn Positions {
        self
    }
}
