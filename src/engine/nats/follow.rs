//! Following a stream: every message that is stored in it, in order, each once.
//!
//! The live feed is a plain subscription to what the stream republishes after storing it. It is fast and needs no
//! state on the servers, but it can lose messages (when a leader dies, a connection breaks, or a queue overflows).
//! All subjects of the stream are followed, so its sequence numbers come without a gap, and one rule finds every
//! loss: a message is accepted only if it has the next number. Missed messages are read again from the stream, and
//! those that are not there any more were removed. The end of the stream is checked regularly, because no message
//! follows the last one that would reveal the gap.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        consumer::{DeliverPolicy, push::OrderedConfig},
        stream::{Info, RawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use crate::channel::Timestamp;

/// How often the end of the stream is checked. A message that the feed lost stays unread for at most about twice as
/// long.
const END_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long one request to the cluster may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// How long reading the store may make no progress before it is started again.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// The pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The store is read again until no more than so many messages were stored meanwhile. This is a hundredth of what the
/// smallest streams keep of a topic.
const MAX_LATE: u64 = 10;

/// How often it is read again for that. An instance that is slower than all publishers together does not catch up by
/// retrying.
const MAX_ROUNDS: usize = 10;

/// One stored message.
pub(super) struct Item {
    pub sequence: u64,
    /// The subject without the prefix.
    pub key: String,
    pub headers: Option<HeaderMap>,
    pub payload: Bytes,
    pub at: Timestamp,
}

/// A follower reports to its leader once a second. One that has not reported for this long counts as offline.
const PEER_TIMEOUT: Duration = Duration::from_secs(4);

impl Item {
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.as_ref()?.get(name)?.as_str())
    }
}

/// Receives the messages of a stream.
pub(super) trait Handler: Send {
    /// Tells the time at which the stream was created, in nanoseconds since 1970. It is the same on every instance.
    fn identify(&mut self, _created: i128) {}

    /// Called before messages are read from the store. The first time, these are all messages that there are.
    fn begin(&mut self, _first: bool) {}

    /// Receives the next message.
    fn take(&mut self, item: Item) -> impl Future<Output = ()> + Send;

    /// Called when everything was read from the store. Meanwhile `late` further messages were stored, and the stream
    /// may have evicted some messages for them before they were read.
    fn end(&mut self, _late: u64) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Called when the stream was created again: what was known of it does not count any more.
    fn reset(&mut self);
}

/// How far a stream was followed, for tasks that wait for a message in it.
pub(super) struct Progress {
    seen: AtomicU64,
    opened: AtomicBool,
    waiting: Mutex<BTreeMap<u64, Vec<oneshot::Sender<()>>>>,
    /// When the stream's end was checked last, in milliseconds after `began`.
    end_checked_at: AtomicU64,
    began: Instant,
    /// How many messages were read again because the feed had lost them.
    repaired: AtomicU64,
}

impl Progress {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            seen: AtomicU64::new(0),
            opened: AtomicBool::new(false),
            waiting: Mutex::default(),
            end_checked_at: AtomicU64::new(0),
            began: Instant::now(),
            repaired: AtomicU64::new(0),
        })
    }

    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Returns whether everything that was there at the beginning was read.
    pub fn is_open(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    pub fn repaired(&self) -> u64 {
        self.repaired.load(Ordering::Relaxed)
    }

    /// Returns the time since the stream's end was checked last.
    pub fn silent_for(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.end_checked_at.load(Ordering::Acquire)))
    }

    fn record_end_check(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.end_checked_at.store(now, Ordering::Release);
    }

    fn advance(&self, sequence: u64) {
        self.seen.store(sequence, Ordering::Release);
        let mut waiting = self.waiting.lock();
        while let Some(entry) = waiting.first_entry()
            && *entry.key() <= sequence
        {
            for waiting in entry.remove() {
                let _ = waiting.send(());
            }
        }
    }

    /// Waits until the message with this sequence was handled or skipped.
    pub async fn wait(&self, sequence: u64) {
        let passed = {
            let mut waiting = self.waiting.lock();
            if self.seen() >= sequence {
                return;
            }
            let (done, passed) = oneshot::channel();
            waiting.entry(sequence).or_default().push(done);
            passed
        };
        let _ = passed.await;
    }
}

/// A read that failed. It is retried.
#[derive(Debug)]
pub(super) struct ReadError(String);

impl ReadError {
    fn of(doing: &'static str) -> impl FnOnce(String) -> Self {
        move |error| Self(format!("{doing}: {error}"))
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stream that is followed.
pub(super) struct Source {
    /// The stream's name.
    pub stream: String,
    /// The prefix of the subjects of its messages.
    pub stored: String,
    /// The prefix of the subjects under which it republishes them.
    pub live: String,
}

/// Follows a stream for as long as the engine is open.
pub(super) async fn follow<H: Handler>(
    link: Link,
    source: Source,
    mut handler: H,
    progress: Arc<Progress>,
    stop: CancellationToken,
) {
    let reading = async {
        loop {
            let mut reading = match StreamReader::begin(&link, &source, &progress).await {
                Ok(reading) => reading,
                Err(error) => {
                    tracing::debug!(%error, stream = source.stream, "cannot follow yet");
                    sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            // This returns only when the subscription has ended.
            reading.run(&mut handler).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = reading => {}
    }
}

struct StreamReader<'a> {
    link: &'a Link,
    source: &'a Source,
    progress: &'a Progress,
    stream: Stream<()>,
    live: async_nats::Subscriber,
    /// When the stream was created, once that is known.
    created: Option<i128>,
    /// How far the store was read, while a catch-up is under way. The handler has the messages up to here.
    reached: Option<u64>,
}

impl<'a> StreamReader<'a> {
    /// Subscribes before the store is read, so that no message falls between the two.
    async fn begin(link: &'a Link, source: &'a Source, progress: &'a Progress) -> Result<Self, ReadError> {
        let stream = link.jetstream.get_stream_no_info(&source.stream).await;
        let stream = stream.map_err(|error| ReadError(error.to_string()))?;
        let listening = link.client.subscribe(format!("{}>", source.live)).await;
        let live = listening.map_err(|error| ReadError(error.to_string()))?;
        let flushed = timeout(REQUEST_TIMEOUT, link.client.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            return Err(ReadError("the subscription was not confirmed".to_owned()));
        }
        Ok(Self { link, source, progress, stream, live, created: None, reached: None })
    }

    async fn run<H: Handler>(&mut self, handler: &mut H) {
        let mut ticks = interval(END_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut disturbances = self.link.disturbances();
        // Where the end was at the last check. If it is not reached by the next check, the feed has lost something.
        let mut expected = 0;
        loop {
            tokio::select! {
                message = self.live.next() => {
                    let Some(message) = message else { return };
                    let Some(item) = self.live_item(message) else { continue };
                    let seen = self.progress.seen();
                    if item.sequence == seen + 1 && self.progress.is_open() {
                        let sequence = item.sequence;
                        handler.take(item).await;
                        self.progress.advance(sequence);
                    } else if item.sequence > seen {
                        self.catch_up_until_done(handler).await;
                    }
                }
                _ = ticks.tick() => expected = self.check_end(handler, expected).await,
                _ = disturbances.changed() => expected = self.check_end(handler, 1).await,
            }
        }
    }

    /// Checks the stream's end and returns where it is.
    async fn check_end<H: Handler>(&mut self, handler: &mut H, expected: u64) -> u64 {
        match self.info().await {
            Ok(info) => {
                let last = info.state.last_sequence;
                let first_check = !self.progress.is_open();
                let recreated = self.created.is_some_and(|created| created != info.created.unix_timestamp_nanos());
                if (recreated || last < self.progress.seen()) && !first_check {
                    self.restart(handler);
                }
                self.created = Some(info.created.unix_timestamp_nanos());
                if first_check || recreated || (expected > self.progress.seen() && last > self.progress.seen()) {
                    self.catch_up_until_done(handler).await;
                }
                last
            }
            Err(error) => {
                tracing::debug!(%error, stream = self.source.stream, "the stream does not respond");
                expected
            }
        }
    }

    fn restart<H: Handler>(&mut self, handler: &mut H) {
        tracing::error!(stream = self.source.stream, "the stream was created again; its messages are gone");
        handler.reset();
        self.reached = None;
        self.progress.seen.store(0, Ordering::Release);
        self.progress.opened.store(false, Ordering::Release);
    }

    async fn info(&self) -> Result<Info, ReadError> {
        let info = timeout(REQUEST_TIMEOUT, self.stream.get_info()).await;
        let info =
            info.map_err(|_| ReadError("no response".to_owned()))?.map_err(|error| ReadError(error.to_string()))?;
        if !has_majority(&info) {
            return Err(ReadError("the cluster has lost its majority".to_owned()));
        }
        self.progress.record_end_check();
        Ok(info)
    }

    /// Reads from the store up to its current end, and retries until that succeeds.
    async fn catch_up_until_done<H: Handler>(&mut self, handler: &mut H) {
        loop {
            match self.catch_up(handler).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, stream = self.source.stream, "reading the store is tried again");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Reads from the store what the feed has lost. What was read before an error stays with the handler, and the
    /// next attempt continues after it: only a reader that has counted everything that is left of a topic can tell
    /// what the topic has lost.
    async fn catch_up<H: Handler>(&mut self, handler: &mut H) -> Result<(), ReadError> {
        let info = self.info().await?;
        let created = info.created.unix_timestamp_nanos();
        if self.created.is_some_and(|known| known != created) && self.progress.is_open() {
            self.restart(handler);
        }
        self.created = Some(created);
        let first = !self.progress.is_open();
        if first && self.reached.is_none() {
            handler.identify(created);
        }
        let mut target = info.state.last_sequence;
        if target > self.progress.seen() {
            if self.reached.is_none() {
                handler.begin(first);
            }
            let mut late = 0;
            for round in 1..=MAX_ROUNDS {
                let mut reached = self.reached.unwrap_or_else(|| self.progress.seen());
                let read = self.read_store(handler, &mut reached, target, first).await;
                self.reached = Some(reached);
                read?;
                let last = self.info().await?.state.last_sequence;
                late = last.saturating_sub(target);
                if late > MAX_LATE && round < MAX_ROUNDS {
                    target = last;
                } else {
                    break;
                }
            }
            handler.end(late).await;
            self.reached = None;
            self.progress.advance(target);
        }
        self.progress.opened.store(true, Ordering::Release);
        Ok(())
    }

    async fn read_store<H: Handler>(
        &self,
        handler: &mut H,
        reached: &mut u64,
        target: u64,
        first: bool,
    ) -> Result<(), ReadError> {
        let config = OrderedConfig {
            deliver_subject: self.link.client.new_inbox(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: *reached + 1 },
            ..OrderedConfig::default()
        };
        let made = timeout(REQUEST_TIMEOUT, self.stream.create_consumer(config)).await;
        let consumer = made
            .map_err(|_| ReadError("no consumer in time".to_owned()))?
            .map_err(|error| error.to_string())
            .map_err(ReadError::of("creating a consumer"))?;
        let mut drained = consumer.cached_info().num_pending == 0;
        let mut messages =
            consumer.messages().await.map_err(|error| error.to_string()).map_err(ReadError::of("reading"))?;
        while *reached < target {
            if drained {
                // No more messages come, although the end is not reached. Either they were removed, or this replica
                // lags behind.
                *reached = self.confirm_removed(*reached, target).await?;
                continue;
            }
            let message = timeout(READ_TIMEOUT, messages.next()).await;
            let message = message.map_err(|_| ReadError("the store sent nothing in time".to_owned()))?;
            let message = message.ok_or_else(|| ReadError("the consumer ended".to_owned()))?;
            let message = message.map_err(|error| error.to_string()).map_err(ReadError::of("reading"))?;
            let (sequence, pending) = {
                let info = message.info().map_err(|error| ReadError(error.to_string()))?;
                (info.stream_sequence, info.pending)
            };
            if sequence > *reached {
                if let Some(item) = self.stored_item(message, sequence) {
                    handler.take(item).await;
                }
                if !first {
                    self.progress.repaired.fetch_add(1, Ordering::Relaxed);
                }
                *reached = sequence;
            }
            drained = pending == 0;
        }
        Ok(())
    }

    /// Asks the leader for the first message after `reached`. What the leader does not have is gone.
    async fn confirm_removed(&self, reached: u64, target: u64) -> Result<u64, ReadError> {
        let subjects = format!("{}>", self.source.stored);
        let asked = self.stream.get_first_raw_message_by_subject(subjects, reached + 1);
        match timeout(REQUEST_TIMEOUT, asked).await {
            Err(_) => Err(ReadError("no response".to_owned())),
            Ok(Ok(next)) if next.sequence <= target => Err(ReadError("a replica lags behind".to_owned())),
            Ok(Ok(_)) => Ok(target),
            Ok(Err(error)) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(target),
            Ok(Err(error)) => Err(ReadError(error.to_string())),
        }
    }

    fn live_item(&self, message: async_nats::Message) -> Option<Item> {
        let key = message.subject.as_str().strip_prefix(&self.source.live)?.to_owned();
        let headers = message.headers?;
        let sequence = headers.get("Nats-Sequence")?.as_str().parse().ok()?;
        let at = headers.get("Nats-Time-Stamp")?.as_str().parse().ok()?;
        Some(Item { sequence, key, headers: Some(headers), payload: message.payload, at })
    }

    fn stored_item(&self, message: jetstream::Message, sequence: u64) -> Option<Item> {
        let key = message.message.subject.as_str().strip_prefix(&self.source.stored)?.to_owned();
        let published = message.info().ok()?.published.unix_timestamp_nanos() / 1_000_000;
        let at = Timestamp(i64::try_from(published).ok()?);
        let (message, _) = message.split();
        Some(Item { sequence, key, headers: message.headers, payload: message.payload, at })
    }
}

/// Returns whether the information about a stream comes from a leader with a majority. A replica responds without a
/// leader, too, and a leader responds for a while without its followers.
pub(super) fn has_majority(info: &Info) -> bool {
    let Some(cluster) = &info.cluster else { return true };
    let here = cluster.replicas.iter().filter(|peer| !peer.offline && peer.active < PEER_TIMEOUT).count();
    cluster.replicas.is_empty()
        || (cluster.leader.as_ref().is_some_and(|leader| !leader.is_empty())
            && (here + 1) * 2 > cluster.replicas.len() + 1)
}
