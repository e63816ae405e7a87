//! What every engine has to do, as one suite: run it on two instances that share a store, or on the same one twice.
//!
//! It lives with the trait rather than with the tests, because it uses what the crate keeps to itself, and is compiled
//! for tests and benchmarks alone (feature `test-support`). Nothing here asks how long something takes: what has to
//! come is waited for, with a deadline.

mod ages;
mod consumers;
mod keys;
mod messages;
mod state;
mod topics;

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::Engine;
use crate::channel::{
    ALONE, BatchLimit, Channel, ConsumerLimits, Consumers, Error, Event, KnownId, MessageId, NewMessage, Payload,
    Publication, ReadStatus, Reader, Refusal, Registry, RegistrySettings, Start, Timestamp, TopicBounds, TopicConfig,
    TopicName, Wanted,
};

/// How long anything may take: a leader's election in a cluster under load is the longest wait known.
const PATIENCE: Duration = Duration::from_secs(30);

/// An engine with the channels and consumers it keeps.
#[derive(Clone)]
pub struct Instance {
    /// The engine, open.
    pub engine: Arc<dyn Engine>,
    /// Its channels.
    pub registry: Arc<Registry>,
    /// Its consumers.
    pub consumers: Arc<Consumers>,
}

impl Instance {
    /// Opens an engine over channels of its own.
    ///
    /// # Errors
    /// That of [`Engine::open`].
    pub async fn open(engine: Arc<dyn Engine>) -> Result<Self, String> {
        let registry = Registry::new(RegistrySettings {
            max_topics: 10_000,
            max_bytes_per_topic: 64 << 20,
            max_history_bytes: 1 << 30,
            max_patterns: 100,
            defaults: TopicBounds::new(1_000, 0),
            dedup_window: Duration::from_mins(5),
            dedup_bytes: 1 << 20,
        });
        let limits = ConsumerLimits { per_source: 100, total: 1_000, topics: 100, ttl: Duration::from_secs(3_600) };
        let consumers = Arc::new(Consumers::new(limits));
        engine.open(registry.clone(), consumers.clone()).await?;
        let instance = Self { engine, registry, consumers };
        let ready = || instance.engine.health() == super::Health::Ready;
        eventually("the engine is ready", || ready().then_some(())).await.map_err(|failure| failure.to_string())?;
        Ok(instance)
    }

    /// The channel of a topic, once this instance has it.
    async fn channel(&self, name: &TopicName) -> Result<Arc<Channel>, Failure> {
        eventually("the topic is known", || self.registry.find(name)).await
    }

    async fn create(&self, name: &TopicName, config: TopicConfig) -> Result<Arc<Channel>, Error> {
        self.engine.create(name, config, false).await
    }

    async fn create_implicit(&self, name: &TopicName) -> Result<Arc<Channel>, Error> {
        self.engine.create(name, CONFIG, true).await
    }

    async fn append(&self, channel: &Arc<Channel>, new_message: NewMessage) -> Result<Publication, Refusal> {
        within("the answer to an append", self.engine.append(channel, new_message))
            .await
            .unwrap_or(Err(Refusal::Error(Error::Unavailable("no answer within the suite's patience"))))
    }
}

/// What an engine did not do as it should.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(format!("refused: {error}"))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(format!("refused: {refusal:?}"))
    }
}

/// What has to hold, or else the words.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure(what())) }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T, Failure> {
    timeout(PATIENCE, future).await.map_err(|_| Failure(format!("not within {PATIENCE:?}: {what}")))
}

/// Looks again and again until there is something to see.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    within(what, async {
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

/// The names of topics are never used twice, so that suites can run beside each other over one store.
fn fresh(what: &str) -> Result<TopicName, Failure> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let salt = uuid::Uuid::new_v4().as_u64_pair().0;
    Ok(TopicName::parse(&format!("{what}.{salt:x}.{}", COUNT.fetch_add(1, Ordering::Relaxed)))?)
}

const CONFIG: TopicConfig = TopicConfig::keeping(100);

fn new_message(data: impl fmt::Display) -> Result<NewMessage, Failure> {
    Ok(NewMessage::of(Payload::parse(&data.to_string(), 1 << 20)?))
}

/// Reads a channel to what is its end now.
fn read(reader: &mut Reader, events: &mut Vec<Event>) -> Result<ReadStatus, Failure> {
    loop {
        let rest = reader.read(&Wanted::default(), BatchLimit::messages(7), events, ALONE, || {})?;
        if rest != ReadStatus::More {
            return Ok(rest);
        }
    }
}

fn reader(channel: &Arc<Channel>, start: &Start) -> Reader {
    channel.locate(start).0
}

/// The data of all kept messages.
fn kept(channel: &Arc<Channel>) -> Result<Vec<String>, Failure> {
    let mut events = Vec::new();
    read(&mut reader(channel, &Start::Oldest), &mut events)?;
    let data = |event: &Event| match event {
        Event::Message(message, _) => Some(message.data.as_str().to_owned()),
        _ => None,
    };
    Ok(events.iter().filter_map(data).collect())
}

/// Runs the suite on two instances that share a store.
///
/// # Errors
/// The first thing that does not hold, with the name of its check.
pub async fn suite(a: &Instance, b: &Instance) -> Result<(), Failure> {
    macro_rules! checks {
        ($($module:ident :: $check:ident),* $(,)?) => {$(
            $module::$check(a, b).await.map_err(|failure| Failure(format!("{}: {failure}", stringify!($check))))?;
        )*};
    }
    checks! {
        topics::creation_is_exclusive,
        topics::an_implicit_topic_is_adopted_once,
        topics::a_change_is_in_force_everywhere,
        topics::deletion_reaches_every_reader,
        topics::a_new_incarnation_has_nothing_of_the_old,
        topics::an_unused_implicit_topic_goes,
        topics::names_of_any_kind,
        messages::what_is_acknowledged_is_readable,
        messages::a_place_is_known_where_it_was_never_asked_for,
        messages::messages_keep_all_they_have,
        messages::a_message_comes_back_as_it_was,
        messages::appends_keep_their_order,
        messages::an_id_is_stored_once,
        messages::an_id_from_elsewhere_is_a_duplicate,
        messages::a_condition_lets_one_through,
        messages::a_condition_on_a_key_lets_one_through,
        messages::the_bound_holds_and_is_told,
        messages::the_rate_holds,
        messages::every_reader_reads_the_log,
        messages::a_deletion_in_the_midst_of_publishing,
        ages::what_is_too_old_is_gone_everywhere,
        ages::a_short_time_ends,
        state::the_newest_of_each_key,
        keys::a_removal_is_stored,
        keys::the_newest_of_each_key_is_kept,
        keys::one_key_too_many_is_refused,
        keys::a_history_becomes_the_newest_of_each_key,
        consumers::a_position_is_found_again,
        consumers::a_position_comes_from_elsewhere,
        consumers::a_newer_subscription_takes_over,
        consumers::acknowledgements_only_go_forward,
        consumers::an_acknowledgement_is_for_one_consumer,
        consumers::a_deleted_consumer_is_not_saved,
        consumers::a_consumer_is_forgotten,
        consumers::a_consumer_is_moved,
    }
    Ok(())
}

/// Checks what has to outlive the process: `start` opens it again over the same store, once the instance before
/// it was closed.
///
/// # Errors
/// The first thing that does not hold.
pub async fn restarts<F: Future<Output = Result<Instance, String>>>(start: impl Fn() -> F) -> Result<(), Failure> {
    let open = || async { start().await.map_err(Failure) };
    let first = open().await?;
    let (name, gone) = (fresh("kept")?, fresh("gone")?);
    let channel = first.create(&name, TopicConfig { max_messages: Some(3), ..CONFIG }).await?;
    let deleted = first.create(&gone, CONFIG).await?;
    let with_id = NewMessage { id: Some(MessageId::parse("mine")?), ..new_message(1)? };
    first.append(&deleted, new_message(0)?).await?;
    first.engine.delete(&deleted).await?;
    let mut cursors = Vec::new();
    for number in 2..=4 {
        cursors.push(first.append(&channel, new_message(number)?).await?.cursor);
    }
    let cursor = first.append(&channel, with_id.clone()).await?.cursor;
    let moved = KnownId { id: MessageId::parse("moved")?, at: Timestamp::now() };
    first.engine.remember(&channel, std::slice::from_ref(&moved)).await?;
    let position = consumers::leave_a_position(&first, &channel).await?;
    let ages = ages::leave_ages(&first).await?;
    let with_state = state::leave_states(&first).await?;
    let keys = keys::leave_keys(&first).await?;
    first.engine.close().await;

    let second = open().await?;
    let channel = second.channel(&name).await?;
    ensure(channel.epoch() == cursor.epoch, || "another incarnation after a restart".to_owned())?;
    ensure(channel.config().max_messages == Some(3), || "other settings after a restart".to_owned())?;
    let found = kept(&channel)?;
    ensure(found == ["3", "4", "1"], || format!("{found:?} after a restart"))?;
    let again = second.append(&channel, with_id).await?;
    ensure(again.duplicate && again.cursor == cursor, || format!("an id was forgotten: {again:?}"))?;
    let again = second.append(&channel, NewMessage { id: Some(moved.id), ..new_message(1)? }).await?;
    ensure(again.duplicate && again.cursor.offset == 0, || format!("an imported id was forgotten: {again:?}"))?;
    let mut events = Vec::new();
    if let Some(cursor) = cursors.first() {
        read(&mut reader(&channel, &Start::After(*cursor)), &mut events)?;
    }
    ensure(events.len() == 3, || format!("{events:?} after the first one's cursor"))?;
    let next = second.append(&channel, new_message(5)?).await?.cursor;
    ensure(next.offset > cursor.offset, || format!("{next:?} after {cursor:?}"))?;
    ensure(second.registry.find(&gone).is_none(), || "a deleted topic came back".to_owned())?;
    consumers::find_the_position(&second, &channel, &position).await?;
    // The time that passes in the first of these is less than that for which removals are remembered.
    ages::find_the_ages(&second, &ages).await?;
    keys::find_the_keys(&second, keys.as_ref()).await?;
    state::find_the_states(&second, &with_state).await?;
    second.engine.close().await;
    Ok(())
}
