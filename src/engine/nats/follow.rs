//! Following a stream: everything that is stored in it, in its order, each once.
//!
//! The live feed is a plain subscription to what the stream publishes again once it is stored: fast, without any state on
//! the servers, and now and then with a hole (a leader that dies, a connection that breaks, a queue that overflows). Since all
//! subjects of the stream are followed, its sequence numbers have no holes of their own, and so one rule finds every loss: a
//! message is taken only if it is the next one. What is missing is read again from the stream; what is not there any more was
//! removed. The end needs a look of its own, because after the last message nothing comes that would show the hole.

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

/// How often the stream is asked for its end. A message that the feed missed stands unread for at most about twice as long.
const LOOK: Duration = Duration::from_secs(1);

/// How long one question to the cluster may take.
const QUESTION: Duration = Duration::from_secs(3);

/// How long reading the store may stand still before it is begun again.
const STALL: Duration = Duration::from_secs(3);

/// What is waited between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// The store is read until no more than so many messages have come meanwhile: a hundredth of what the smallest streams keep
/// of a topic.
const LATE: u64 = 10;

/// How often it is read on for that. Who is slower than all publishers together does not catch up by trying.
const ROUNDS: usize = 10;

/// One stored message.
pub(super) struct Item {
    pub sequence: u64,
    /// What its subject has behind the prefix.
    pub key: String,
    pub headers: Option<HeaderMap>,
    pub payload: Bytes,
    pub at: Timestamp,
}

/// A follower confirms to its leader once a second that it is there. One that has not for so long is not counted.
const ABSENT: Duration = Duration::from_secs(4);

impl Item {
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.as_ref()?.get(name)?.as_str())
    }
}

/// What is done with what a stream has.
pub(super) trait Handler: Send {
    /// The stream as it is from here on was made at this time, in nanoseconds since 1970: the same on every instance.
    fn identify(&mut self, _created: i128) {}

    /// Messages are about to be read from the store; the first time, it is all that there is.
    fn begin(&mut self, _first: bool) {}

    /// The next message.
    fn take(&mut self, item: Item) -> impl Future<Output = ()> + Send;

    /// What was to be read from the store was read. While that went on, `late` messages were stored behind it, in whose
    /// favour the stream may have let go of some before they were read.
    fn end(&mut self, _late: u64) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// The stream has begun anew: what was known of it counts no more.
    fn reset(&mut self);
}

/// How far a stream was followed, for those who wait for something in it.
pub(super) struct Progress {
    seen: AtomicU64,
    opened: AtomicBool,
    waiting: Mutex<BTreeMap<u64, Vec<oneshot::Sender<()>>>>,
    /// When the stream last said where its end is, in milliseconds after `began`.
    looked_at: AtomicU64,
    began: Instant,
    /// Messages that were read again because the feed had missed them.
    repaired: AtomicU64,
}

impl Progress {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            seen: AtomicU64::new(0),
            opened: AtomicBool::new(false),
            waiting: Mutex::default(),
            looked_at: AtomicU64::new(0),
            began: Instant::now(),
            repaired: AtomicU64::new(0),
        })
    }

    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Whether everything that was there at the beginning was read.
    pub fn is_open(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    pub fn repaired(&self) -> u64 {
        self.repaired.load(Ordering::Relaxed)
    }

    /// How long nothing was heard of the stream's end.
    pub fn silent_for(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.looked_at.load(Ordering::Acquire)))
    }

    fn look(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.looked_at.store(now, Ordering::Release);
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

    /// Waits until the message of this number was taken, or passed.
    pub async fn wait(&self, sequence: u64) {
        let passed = {
            let mut waiting = self.waiting.lock();
            if self.seen() >= sequence {
                return;
            }
            let (tell, passed) = oneshot::channel();
            waiting.entry(sequence).or_default().push(tell);
            passed
        };
        let _ = passed.await;
    }
}

/// What cannot be read now. It is tried again.
#[derive(Debug)]
pub(super) struct Fault(String);

impl Fault {
    fn of(doing: &'static str) -> impl FnOnce(String) -> Self {
        move |error| Self(format!("{doing}: {error}"))
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is followed.
pub(super) struct Source {
    /// The stream's name.
    pub stream: String,
    /// What the subjects of its messages begin with.
    pub stored: String,
    /// What the subjects begin with under which it publishes them again.
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
    let following = async {
        loop {
            let mut following = match Following::begin(&link, &source, &progress).await {
                Ok(following) => following,
                Err(fault) => {
                    tracing::debug!(%fault, stream = source.stream, "cannot follow yet");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // Ends only when the subscription does.
            following.run(&mut handler).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = following => {}
    }
}

struct Following<'a> {
    link: &'a Link,
    source: &'a Source,
    progress: &'a Progress,
    stream: Stream<()>,
    live: async_nats::Subscriber,
    /// When the stream was made, once that is known.
    created: Option<i128>,
    /// How far the store was read, while that is not over: the handler has what lies between what was seen and here.
    reached: Option<u64>,
}

impl<'a> Following<'a> {
    /// Listens first, and reads what is there afterwards: so nothing falls between the two.
    async fn begin(link: &'a Link, source: &'a Source, progress: &'a Progress) -> Result<Self, Fault> {
        let stream = link.jetstream.get_stream_no_info(&source.stream).await;
        let stream = stream.map_err(|error| Fault(error.to_string()))?;
        let listening = link.client.subscribe(format!("{}>", source.live)).await;
        let live = listening.map_err(|error| Fault(error.to_string()))?;
        let flushed = timeout(QUESTION, link.client.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            return Err(Fault("the subscription was not confirmed".to_owned()));
        }
        Ok(Self { link, source, progress, stream, live, created: None, reached: None })
    }

    async fn run<H: Handler>(&mut self, handler: &mut H) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut disturbances = self.link.disturbances();
        // Where the end was at the last look: if that was not reached by now, the feed has missed something.
        let mut due = 0;
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
                        self.catch_up_at_last(handler).await;
                    }
                }
                _ = ticks.tick() => due = self.look(handler, due).await,
                _ = disturbances.changed() => due = self.look(handler, 1).await,
            }
        }
    }

    /// Asks for the stream's end. Answers where it is.
    async fn look<H: Handler>(&mut self, handler: &mut H, due: u64) -> u64 {
        match self.info().await {
            Ok(info) => {
                let last = info.state.last_sequence;
                let first_look = !self.progress.is_open();
                let anew = self.created.is_some_and(|created| created != info.created.unix_timestamp_nanos());
                if (anew || last < self.progress.seen()) && !first_look {
                    self.begin_anew(handler);
                }
                self.created = Some(info.created.unix_timestamp_nanos());
                if first_look || anew || (due > self.progress.seen() && last > self.progress.seen()) {
                    self.catch_up_at_last(handler).await;
                }
                last
            }
            Err(fault) => {
                tracing::debug!(%fault, stream = self.source.stream, "the stream does not answer");
                due
            }
        }
    }

    fn begin_anew<H: Handler>(&mut self, handler: &mut H) {
        tracing::error!(stream = self.source.stream, "the stream was made again; what was in it is gone");
        handler.reset();
        self.reached = None;
        self.progress.seen.store(0, Ordering::Release);
        self.progress.opened.store(false, Ordering::Release);
    }

    async fn info(&self) -> Result<Info, Fault> {
        let info = timeout(QUESTION, self.stream.get_info()).await;
        let info = info.map_err(|_| Fault("no answer".to_owned()))?.map_err(|error| Fault(error.to_string()))?;
        if !speaks_for_all(&info) {
            return Err(Fault("the cluster has lost its majority".to_owned()));
        }
        self.progress.look();
        Ok(info)
    }

    /// Reads from the store until the end that it has now is reached, however often it takes.
    async fn catch_up_at_last<H: Handler>(&mut self, handler: &mut H) {
        loop {
            match self.catch_up(handler).await {
                Ok(()) => return,
                Err(fault) => {
                    tracing::debug!(%fault, stream = self.source.stream, "reading the store is tried again");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Reads from the store what was not seen. What was read before a fault stays with the handler, and the next try goes on
    /// behind it: a topic's losses show only to whoever has counted all that is left of it.
    async fn catch_up<H: Handler>(&mut self, handler: &mut H) -> Result<(), Fault> {
        let info = self.info().await?;
        let created = info.created.unix_timestamp_nanos();
        if self.created.is_some_and(|known| known != created) && self.progress.is_open() {
            self.begin_anew(handler);
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
            for round in 1..=ROUNDS {
                let mut reached = self.reached.unwrap_or_else(|| self.progress.seen());
                let read = self.read_on(handler, &mut reached, target, first).await;
                self.reached = Some(reached);
                read?;
                let last = self.info().await?.state.last_sequence;
                late = last.saturating_sub(target);
                if late > LATE && round < ROUNDS {
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

    async fn read_on<H: Handler>(
        &self,
        handler: &mut H,
        reached: &mut u64,
        target: u64,
        first: bool,
    ) -> Result<(), Fault> {
        let config = OrderedConfig {
            deliver_subject: self.link.client.new_inbox(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: *reached + 1 },
            ..OrderedConfig::default()
        };
        let made = timeout(QUESTION, self.stream.create_consumer(config)).await;
        let consumer = made
            .map_err(|_| Fault("no consumer in time".to_owned()))?
            .map_err(|error| error.to_string())
            .map_err(Fault::of("making a consumer"))?;
        let mut silent = consumer.cached_info().num_pending == 0;
        let mut messages =
            consumer.messages().await.map_err(|error| error.to_string()).map_err(Fault::of("reading"))?;
        while *reached < target {
            if silent {
                // Nothing more comes, though the end is not reached: it was removed, or this replica lags behind.
                *reached = self.confirm(*reached, target).await?;
                continue;
            }
            let message = timeout(STALL, messages.next()).await;
            let message = message.map_err(|_| Fault("the store is silent".to_owned()))?;
            let message = message.ok_or_else(|| Fault("the store went away".to_owned()))?;
            let message = message.map_err(|error| error.to_string()).map_err(Fault::of("reading"))?;
            let (sequence, pending) = {
                let info = message.info().map_err(|error| Fault(error.to_string()))?;
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
            silent = pending == 0;
        }
        Ok(())
    }

    /// Asks the leader for the first message behind `reached`: what it does not have there is gone.
    async fn confirm(&self, reached: u64, target: u64) -> Result<u64, Fault> {
        let subjects = format!("{}>", self.source.stored);
        let asked = self.stream.get_first_raw_message_by_subject(subjects, reached + 1);
        match timeout(QUESTION, asked).await {
            Err(_) => Err(Fault("no answer".to_owned())),
            Ok(Ok(next)) if next.sequence <= target => Err(Fault("a replica lags behind".to_owned())),
            Ok(Ok(_)) => Ok(target),
            Ok(Err(error)) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(target),
            Ok(Err(error)) => Err(Fault(error.to_string())),
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

/// Whether what a stream says of itself is what the cluster knows. A replica answers without a leader, too, and a leader for
/// a while without its followers.
pub(super) fn speaks_for_all(info: &Info) -> bool {
    let Some(cluster) = &info.cluster else { return true };
    let here = cluster.replicas.iter().filter(|peer| !peer.offline && peer.active < ABSENT).count();
    cluster.replicas.is_empty()
        || (cluster.leader.as_ref().is_some_and(|leader| !leader.is_empty())
            && (here + 1) * 2 > cluster.replicas.len() + 1)
}
