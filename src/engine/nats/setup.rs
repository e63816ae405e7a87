//! Starting the engine: creating streams and buckets, reading everything that exists, and regular maintenance.

use std::{
    error::Error as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::jetstream::{
    ErrorCode,
    context::{CreateStreamErrorKind, GetStreamError, GetStreamErrorKind, RequestError, RequestErrorKind},
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    Inner, NOT_NOW, Settings,
    follow::{Source, follow},
    is_used,
    link::Link,
    messages::Orphan,
    names::{END, Names},
    positions::{PositionsHandler, Shared},
    topics::{StaleTopics, TopicEntry, TopicsHandler},
};
use crate::channel::{Epoch, Error, Timestamp};

/// The pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The time between two maintenance rounds.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The least time for which ids are known, however short the setting is. Publishes without a response are retried
/// within it and must not be stored twice.
const MIN_DEDUP_WINDOW: Duration = Duration::from_mins(1);

/// How long messages of no topic are kept. An instance that was cut off may not have seen the end of their topic, and
/// must read what stands before it.
const ORPHAN_AGE: Duration = Duration::from_mins(15);

/// The error code for a stream that does not exist.
const NO_STREAM: u64 = 10_059;

/// The error code for replicas without a cluster.
const NO_CLUSTER: u64 = 10_074;

/// What an operator is told where there is no `JetStream`.
const NO_JETSTREAM: &str = "NATS_URL: NATS has no JetStream there; start nats-server with --jetstream, and enable JetStream \
                            for the account";

/// Returns whether the request failed because no server, or not this account, has `JetStream`. Its interface is then a subject
/// that nobody serves.
fn lacks_jetstream(error: &GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::Request => error
            .source()
            .and_then(|source| source.downcast_ref::<RequestError>())
            .is_some_and(|error| error.kind() == RequestErrorKind::NoResponders),
        GetStreamErrorKind::JetStream(refused) => {
            [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT]
                .contains(&refused.error_code())
        }
        _ => false,
    }
}

/// Returns whether NATS has a service with the name in these settings. Opening the engine would create what is
/// missing, so a reader asks first.
///
/// # Errors
/// Returns one line that names the setting, if NATS cannot be asked.
pub async fn exists(settings: &Settings) -> Result<bool, String> {
    let link = Link::open(settings).await?;
    if !link.is_up() {
        return Err("NATS_URL: no server can be reached".to_owned());
    }
    let bucket = format!("KV_{}", Names::new(&settings.prefix).topics());
    match timeout(REQUEST_TIMEOUT, link.jetstream.get_stream(bucket)).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(error)) if lacks_jetstream(&error) => Err(NO_JETSTREAM.to_owned()),
        Ok(Err(error)) => match error.kind() {
            GetStreamErrorKind::JetStream(refused) if refused.error_code().0 == NO_STREAM => Ok(false),
            _ => Err(format!("NATS_URL: {error}")),
        },
        Err(_) => Err(format!("NATS_URL: no response within {REQUEST_TIMEOUT:?}")),
    }
}

/// Starts the engine, however long that takes, then runs the maintenance until the engine is closed. Sends over
/// `ready` that the engine is ready, or why it cannot start.
pub(super) async fn start(inner: Arc<Inner>, positions: Arc<Shared>, ready: oneshot::Sender<Result<(), String>>) {
    let stop = inner.stop.clone();
    let work = async {
        let mut ready = Some(ready);
        loop {
            match inner.link.check_version() {
                Ok(true) => break,
                Ok(false) => {}
                Err(why) => match ready.take() {
                    Some(ready) => return drop(ready.send(Err(why))),
                    // The server was replaced by an older one. It may be replaced again.
                    None => tracing::error!(why, "the NATS server cannot be used"),
                },
            }
            sleep(RETRY_PAUSE).await;
        }
        let mut logged = String::new();
        loop {
            match set_up(&inner).await {
                Ok(()) => break,
                // A reason that stays is logged once, not at each attempt.
                Err(why) if why == logged => {}
                Err(why) => {
                    tracing::warn!(why, "streams and buckets could not be created yet; it is tried again");
                    logged = why;
                }
            }
            sleep(RETRY_PAUSE).await;
        }
        let bucket = |bucket: &str| Source {
            stream: format!("KV_{bucket}"),
            stored: format!("$KV.{bucket}."),
            live: inner.names.changes(bucket),
        };
        let (link, topics) = (inner.link.clone(), &inner.topics);
        let handler = TopicsHandler(inner.clone());
        let source = bucket(&topics.bucket);
        inner.tasks.spawn(follow(link.clone(), source, handler, topics.progress.clone(), stop.clone()));
        let handler = PositionsHandler(positions.clone());
        let source = bucket(&inner.names.consumers());
        inner.tasks.spawn(follow(link, source, handler, positions.progress.clone(), stop.clone()));
        wait_for(|| topics.progress.is_open() && positions.progress.is_open()).await;
        // The first stream is created with the service, and most topics will be in it.
        inner.progress(super::CLASSES[0]);
        inner.follow_all();
        wait_for(|| inner.classes.lock().values().all(|progress| progress.is_open())).await;
        topics.loaded();
        let (known, messages) = (topics.registry.count(""), topics.registry.messages());
        tracing::info!(topics = known, messages, "everything in NATS was read");
        inner.ready.store(true, Ordering::Release);
        if let Some(ready) = ready.take() {
            let _ = ready.send(Ok(()));
        }
        run_maintenance(&inner, &positions).await;
    };
    tokio::select! {
        () = inner.stop.cancelled() => {}
        () = work => {}
    }
}

async fn wait_for(holds: impl Fn() -> bool) {
    while !holds() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Creates the buckets and the first stream, if they are missing.
async fn set_up(inner: &Inner) -> Result<(), String> {
    for bucket in [inner.names.topics(), inner.names.consumers()] {
        ensure_bucket(inner, &bucket).await?;
    }
    // The streams for larger topics are created with their first topic.
    inner.ensure_class(super::CLASSES[0]).await.map_err(|error| error.to_string())
}

async fn ensure_bucket(inner: &Inner, bucket: &str) -> Result<(), String> {
    // It is an ordinary key-value bucket, so that the usual tools can read it.
    let config = Config {
        name: format!("KV_{bucket}"),
        description: Some("pub-sub".to_owned()),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        republish: Some(Republish {
            source: format!("$KV.{bucket}.>"),
            destination: format!("{}>", inner.names.changes(bucket)),
            headers_only: false,
        }),
        ..common()
    };
    inner.ensure_stream(config).await
}

fn common() -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        allow_direct: true,
        max_messages: -1,
        max_bytes: -1,
        ..Config::default()
    }
}

impl Inner {
    /// Creates a stream if it is missing.
    async fn ensure_stream(&self, config: Config) -> Result<(), String> {
        let jetstream = &self.link.jetstream;
        let name = config.name.clone();
        match timeout(REQUEST_TIMEOUT, jetstream.get_stream(&name)).await {
            Ok(Ok(found)) => {
                let found = &found.cached_info().config;
                let same = found.subjects == config.subjects
                    && found.republish == config.republish
                    && found.max_messages_per_subject == config.max_messages_per_subject;
                if !same {
                    return Err(format!("{name}: exists with another configuration"));
                }
                if found.duplicate_window != config.duplicate_window && !config.duplicate_window.is_zero() {
                    self.set_window(Config { duplicate_window: config.duplicate_window, ..found.clone() }).await;
                }
                return Ok(());
            }
            Ok(Err(error)) if lacks_jetstream(&error) => return Err(NO_JETSTREAM.to_owned()),
            Ok(Err(_)) => {}
            Err(_) => return Err(format!("{name}: no response")),
        }
        let wanted = match self.replicas {
            0 => vec![3, 1],
            replicas => vec![replicas],
        };
        let mut why = String::new();
        for num_replicas in wanted {
            match timeout(REQUEST_TIMEOUT, jetstream.create_stream(Config { num_replicas, ..config.clone() })).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => {
                    why = error.to_string();
                    let code = match error.kind() {
                        CreateStreamErrorKind::JetStream(error) => error.error_code().0,
                        _ => 0,
                    };
                    if code != NO_CLUSTER {
                        break;
                    }
                }
                Err(_) => return Err(format!("{name}: no response")),
            }
        }
        Err(format!("{name}: {why}"))
    }

    /// Changes how long a stream knows ids. The instance that started last decides. If the server refuses the change,
    /// the old setting stays in force.
    async fn set_window(&self, config: Config) {
        let (stream, window) = (&config.name, config.duplicate_window);
        let why = match timeout(REQUEST_TIMEOUT, self.link.jetstream.update_stream(&config)).await {
            Ok(Ok(_)) => return tracing::info!(stream, ?window, "the stream's deduplication window was changed"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no response".to_owned(),
        };
        tracing::warn!(why, stream, ?window, "the stream's deduplication window could not be changed");
    }

    /// Creates the stream of a class if it is missing.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) async fn ensure_class(&self, class: usize) -> Result<(), Error> {
        if self.classes.lock().contains_key(&class) {
            return Ok(());
        }
        let config = Config {
            name: self.names.stream(class),
            description: Some(format!("pub-sub: topics of up to {class} messages")),
            subjects: vec![format!("{}>", self.names.stored(class))],
            // This is one more than any topic of the class keeps. The offset of that message tells what is missing
            // before the oldest kept one.
            max_messages_per_subject: i64::try_from(class + 1).unwrap_or(i64::MAX),
            discard: DiscardPolicy::Old,
            duplicate_window: self.dedup_window.max(MIN_DEDUP_WINDOW),
            republish: Some(Republish {
                source: format!("{}>", self.names.stored(class)),
                destination: format!("{}>", self.names.live(class)),
                headers_only: false,
            }),
            ..common()
        };
        self.ensure_stream(config).await.map_err(|why| {
            tracing::warn!(why, "a stream cannot be created");
            Error::Unavailable(NOT_NOW)
        })
    }
}

/// Deletes messages that belong to no topic because they were published while their topic was being deleted.
pub(super) async fn delete_orphans(inner: Arc<Inner>, mut orphans: mpsc::Receiver<Orphan>) {
    let work = async {
        while let Some(Orphan { class, sequence, at }) = orphans.recv().await {
            let age = Timestamp::now().0.saturating_sub(at.0);
            // They come roughly in the order of their ages, and clocks may differ.
            sleep(ORPHAN_AGE.saturating_sub(Duration::from_millis(u64::try_from(age).unwrap_or(0)))).await;
            let stream = inner.link.jetstream.get_stream_no_info(inner.names.stream(class)).await;
            if let Ok(stream) = stream {
                // Another instance may have deleted it already. If it stays, the next start finds it again.
                let _ = timeout(REQUEST_TIMEOUT, stream.delete_message(sequence)).await;
            }
        }
    };
    tokio::select! {
        () = inner.stop.cancelled() => {}
        () = work => {}
    }
}

/// Runs the maintenance that no call does.
async fn run_maintenance(inner: &Arc<Inner>, positions: &Arc<Shared>) {
    let mut ticks = interval(MAINTENANCE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !inner.link.is_up() {
            continue;
        }
        inner.remove_known_ids(inner.dedup_window.max(MIN_DEDUP_WINDOW)).await;
        // Follow streams whose first topic was created while the others were being read.
        inner.follow_all();
        for (token, known) in inner.topics.broken() {
            if let Some(entry) = &known.entry {
                let entry =
                    TopicEntry { epoch: Epoch::random().to_string(), created_at: Timestamp::now().0, ..entry.clone() };
                // The first instance to write wins.
                let _ = inner.topics.write(&inner.link, &token, &entry, known.revision).await;
            }
        }
        let StaleTopics { refresh, delete } = inner.topics.stale(|channel| is_used(channel, &positions.consumers));
        for (token, known) in refresh {
            if let Some(entry) = &known.entry {
                let _ = inner.topics.write(&inner.link, &token, entry, known.revision).await;
            }
        }
        for (token, known) in delete {
            let _ = inner.topics.delete(&inner.link, &token, known.end_now().as_ref(), known.revision).await;
        }
        drop_markers(inner).await;
    }
}

/// Removes the markers of deleted topics, here and in the topics' streams, after every instance has seen them.
async fn drop_markers(inner: &Inner) {
    let markers = inner.topics.markers();
    if markers.is_empty() {
        return;
    }
    let jetstream = &inner.link.jetstream;
    let Ok(bucket) = jetstream.get_stream_no_info(format!("KV_{}", inner.topics.bucket)).await else { return };
    for (token, revision) in markers {
        if let Some(end) = inner.topics.get(&token).and_then(|known| known.end)
            && let Ok(stream) = jetstream.get_stream_no_info(inner.names.stream(end.class)).await
        {
            let subject = format!("{}{token}{END}", inner.names.stored(end.class));
            let _ = timeout(REQUEST_TIMEOUT, stream.purge().filter(subject)).await;
        }
        let subject = format!("$KV.{}.{token}", inner.topics.bucket);
        let purged = timeout(REQUEST_TIMEOUT, bucket.purge().filter(subject).sequence(revision + 1)).await;
        if purged.is_ok_and(|purged| purged.is_ok()) {
            inner.topics.drop_marker(&token, revision);
        }
    }
}
