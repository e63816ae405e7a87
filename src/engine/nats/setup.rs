//! Bringing the engine up: streams and buckets, everything that exists, and what is to be tidied up now and then.

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
    topics::{Entry, Stale, TopicsHandler},
};
use crate::channel::{Epoch, Error, Timestamp};

/// What is waited between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// How often it is looked whether something is to be tidied up.
const TIDY: Duration = Duration::from_secs(5);

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(5);

/// Ids are known for so long at least, however short the setting is: publishes that were not answered are tried again within
/// it, and must not be stored twice.
const LEAST_WINDOW: Duration = Duration::from_mins(1);

/// Messages of no topic are kept for so long: an instance that was cut off may not have heard of the end of theirs, and has
/// to read what stands before it.
const ORPHAN_AGE: Duration = Duration::from_mins(15);

/// What the server says of a stream that is not there.
const NO_STREAM: u64 = 10_059;

/// What the server says where copies were asked for and there is no cluster.
const NO_CLUSTER: u64 = 10_074;

/// What an operator is told where there is no `JetStream`.
const NO_JETSTREAM: &str = "NATS_URL: NATS has no JetStream there; start nats-server with --jetstream, and enable JetStream \
                            for the account";

/// Whether the question failed because no server, or not this account, has `JetStream`. Its interface is then a subject
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

/// Whether NATS has a service of these settings' name: for who only wants to read, as opening the engine makes what is
/// missing.
///
/// # Errors
/// One line that names the setting, if it cannot be asked.
pub async fn exists(settings: &Settings) -> Result<bool, String> {
    let link = Link::open(settings).await?;
    if !link.is_up() {
        return Err("NATS_URL: no server can be reached".to_owned());
    }
    let bucket = format!("KV_{}", Names::new(&settings.prefix).topics());
    match timeout(QUESTION, link.jetstream.get_stream(bucket)).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(error)) if lacks_jetstream(&error) => Err(NO_JETSTREAM.to_owned()),
        Ok(Err(error)) => match error.kind() {
            GetStreamErrorKind::JetStream(refused) if refused.error_code().0 == NO_STREAM => Ok(false),
            _ => Err(format!("NATS_URL: {error}")),
        },
        Err(_) => Err(format!("NATS_URL: no answer within {QUESTION:?}")),
    }
}

/// Brings everything up, however long it takes, then tidies up until the engine is closed. `tell` hears when the engine is
/// ready, or why it will not be.
pub(super) async fn start(inner: Arc<Inner>, positions: Arc<Shared>, tell: oneshot::Sender<Result<(), String>>) {
    let stop = inner.stop.clone();
    let work = async {
        let mut tell = Some(tell);
        loop {
            match inner.link.check_version() {
                Ok(true) => break,
                Ok(false) => {}
                Err(why) => match tell.take() {
                    Some(tell) => return drop(tell.send(Err(why))),
                    // Somebody has replaced the server by an older one; perhaps somebody replaces it again.
                    None => tracing::error!(why, "the NATS server cannot be used"),
                },
            }
            sleep(PAUSE).await;
        }
        let mut logged = String::new();
        loop {
            match set_up(&inner).await {
                Ok(()) => break,
                // A reason that stays is logged once, not at each try.
                Err(why) if why == logged => {}
                Err(why) => {
                    tracing::warn!(why, "streams and buckets are not there yet; trying again until they are");
                    logged = why;
                }
            }
            sleep(PAUSE).await;
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
        // The first is made with the service, and most topics will be in it.
        inner.progress(super::CLASSES[0]);
        inner.follow_all();
        wait_for(|| inner.classes.lock().values().all(|progress| progress.is_open())).await;
        topics.loaded();
        let (known, messages) = (topics.registry.count(""), topics.registry.messages());
        tracing::info!(topics = known, messages, "what NATS has was read");
        inner.ready.store(true, Ordering::Release);
        if let Some(tell) = tell.take() {
            let _ = tell.send(Ok(()));
        }
        tidy_up(&inner, &positions).await;
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

/// Makes the buckets and the first stream, where they are not there.
async fn set_up(inner: &Inner) -> Result<(), String> {
    for bucket in [inner.names.topics(), inner.names.consumers()] {
        ensure_bucket(inner, &bucket).await?;
    }
    // Topics of other sizes bring their streams with them.
    inner.ensure_class(super::CLASSES[0]).await.map_err(|error| error.to_string())
}

async fn ensure_bucket(inner: &Inner, bucket: &str) -> Result<(), String> {
    // A key-value bucket like any other, so that the usual tools can look at it.
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
    /// Makes a stream, where it is not there.
    async fn ensure_stream(&self, config: Config) -> Result<(), String> {
        let jetstream = &self.link.jetstream;
        let name = config.name.clone();
        match timeout(QUESTION, jetstream.get_stream(&name)).await {
            Ok(Ok(found)) => {
                let found = &found.cached_info().config;
                let same = found.subjects == config.subjects
                    && found.republish == config.republish
                    && found.max_messages_per_subject == config.max_messages_per_subject;
                if !same {
                    return Err(format!("{name}: is there, but set up differently"));
                }
                if found.duplicate_window != config.duplicate_window && !config.duplicate_window.is_zero() {
                    self.set_window(Config { duplicate_window: config.duplicate_window, ..found.clone() }).await;
                }
                return Ok(());
            }
            Ok(Err(error)) if lacks_jetstream(&error) => return Err(NO_JETSTREAM.to_owned()),
            Ok(Err(_)) => {}
            Err(_) => return Err(format!("{name}: no answer")),
        }
        let wanted = match self.replicas {
            0 => vec![3, 1],
            replicas => vec![replicas],
        };
        let mut why = String::new();
        for num_replicas in wanted {
            match timeout(QUESTION, jetstream.create_stream(Config { num_replicas, ..config.clone() })).await {
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
                Err(_) => return Err(format!("{name}: no answer")),
            }
        }
        Err(format!("{name}: {why}"))
    }

    /// Changes for how long a stream knows ids. The newest start decides; where the server does not let it, what is there
    /// stays in force.
    async fn set_window(&self, config: Config) {
        let (stream, window) = (&config.name, config.duplicate_window);
        let why = match timeout(QUESTION, self.link.jetstream.update_stream(&config)).await {
            Ok(Ok(_)) => return tracing::info!(stream, ?window, "the stream knows ids for another time now"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        tracing::warn!(why, stream, ?window, "for how long the stream knows ids could not be changed");
    }

    /// Makes the stream of a class, where it is not there.
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
            // One more than any topic of the class keeps: its place tells what is missing before the oldest.
            max_messages_per_subject: i64::try_from(class + 1).unwrap_or(i64::MAX),
            discard: DiscardPolicy::Old,
            duplicate_window: self.dedup_window.max(LEAST_WINDOW),
            republish: Some(Republish {
                source: format!("{}>", self.names.stored(class)),
                destination: format!("{}>", self.names.live(class)),
                headers_only: false,
            }),
            ..common()
        };
        self.ensure_stream(config).await.map_err(|why| {
            tracing::warn!(why, "a stream cannot be made");
            Error::Unavailable(NOT_NOW)
        })
    }
}

/// Deletes messages that belong to no topic: published while it was being deleted.
pub(super) async fn delete_orphans(inner: Arc<Inner>, mut orphans: mpsc::Receiver<Orphan>) {
    let work = async {
        while let Some(Orphan { class, sequence, at }) = orphans.recv().await {
            let age = Timestamp::now().0.saturating_sub(at.0);
            // They come about in the order of their ages, and clocks may differ.
            sleep(ORPHAN_AGE.saturating_sub(Duration::from_millis(u64::try_from(age).unwrap_or(0)))).await;
            let stream = inner.link.jetstream.get_stream_no_info(inner.names.stream(class)).await;
            if let Ok(stream) = stream {
                // Another instance may have been faster; what stays is found again at the next start.
                let _ = timeout(QUESTION, stream.delete_message(sequence)).await;
            }
        }
    };
    tokio::select! {
        () = inner.stop.cancelled() => {}
        () = work => {}
    }
}

/// What no call does by itself.
async fn tidy_up(inner: &Arc<Inner>, positions: &Arc<Shared>) {
    let mut ticks = interval(TIDY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !inner.link.is_up() {
            continue;
        }
        inner.remove_known_ids(inner.dedup_window.max(LEAST_WINDOW)).await;
        // Streams whose first topic came while the others were being read.
        inner.follow_all();
        for (token, known) in inner.topics.broken() {
            if let Some(entry) = &known.entry {
                let entry =
                    Entry { epoch: Epoch::random().to_string(), created_at: Timestamp::now().0, ..entry.clone() };
                // Whichever instance comes first.
                let _ = inner.topics.write(&inner.link, &token, &entry, known.revision).await;
            }
        }
        let Stale { refresh, forget } = inner.topics.stale(|channel| is_used(channel, &positions.consumers));
        for (token, known) in refresh {
            if let Some(entry) = &known.entry {
                let _ = inner.topics.write(&inner.link, &token, entry, known.revision).await;
            }
        }
        for (token, known) in forget {
            let _ = inner.topics.delete(&inner.link, &token, known.end_now().as_ref(), known.revision).await;
        }
        drop_markers(inner).await;
    }
}

/// What says that a topic was deleted goes when every instance has heard of it, here and in the topic's stream.
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
            let _ = timeout(QUESTION, stream.purge().filter(subject)).await;
        }
        let subject = format!("$KV.{}.{token}", inner.topics.bucket);
        let purged = timeout(QUESTION, bucket.purge().filter(subject).sequence(revision + 1)).await;
        if purged.is_ok_and(|purged| purged.is_ok()) {
            inner.topics.drop_marker(&token, revision);
        }
    }
}
