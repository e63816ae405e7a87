//! Named consumers: the server keeps the position of a subscriber that comes back under the same name. What an engine
//! keeps of one beyond this process is its [`Position`].

mod consumers;
mod seek;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{ConsumerName, Cursor, Epoch, Error, PatternCursor, Source, Timestamp, TopicName, Waiter};

pub use consumers::{Claim, ConsumerLimits, Consumers};
pub use seek::Sought;
pub(crate) use seek::Standing;

/// Bytes that the positions of one consumer may take when they are written down: a clustered engine stores a consumer
/// in one message, of which many servers allow a mebibyte.
const MAX_POSITION_BYTES: usize = 900 << 10;

/// What a position takes beside its topic's name when it is written down.
const CURSOR_BYTES: usize = 64;

/// When a consumer's position moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ack {
    /// As messages reach the client.
    #[default]
    Auto,
    /// When the client acknowledges a cursor.
    Explicit,
}

impl Ack {
    /// The choice's name at every door.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Ack::Auto => "AUTO",
            Ack::Explicit => "EXPLICIT",
        }
    }
}

/// Who a consumer is: names are counted within what is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConsumerKey {
    /// The topic or pattern.
    pub source: Source,
    /// The name.
    pub name: ConsumerName,
}

/// What a new subscription learns about its consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Its name.
    pub name: ConsumerName,
    /// Whether the server knew the name, and delivery goes on from its position.
    pub resumed: bool,
    /// The position, where the source is one topic.
    pub cursor: Option<Cursor>,
}

/// What is kept of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// When it moves, as of its newest subscription.
    pub ack: Ack,
    /// Up to where each topic was delivered: one for a topic, one for each topic it has met for a pattern. By name.
    pub cursors: Vec<(TopicName, Cursor)>,
    /// Of a pattern: a position over all topics that lies behind nothing that the consumer has not got. Topics that it
    /// has never met begin there: what was published and deleted behind it was missed.
    pub since: Option<PatternCursor>,
    /// When it was last used.
    pub used_at: Timestamp,
    /// How long it is kept while nobody uses it, if its newest subscription has said so: then it may also go earlier,
    /// where another needs its room.
    pub ttl: Option<Duration>,
    /// How often it was moved by a seek. Instances that share it tell by this that it may go back.
    pub seeks: u64,
}

/// A consumer as listed.
#[derive(Clone, Debug)]
pub struct ConsumerStatus {
    /// Its name.
    pub name: ConsumerName,
    /// Where it stands; last used now while connected.
    pub position: Position,
    /// Whether a subscription is live.
    pub connected: bool,
    /// How far it is behind in each topic of its position, in the same order; empty where nobody has asked.
    pub lags: Vec<ConsumerLag>,
}

/// How far a consumer is behind in one topic, as far as this instance knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerLag {
    /// Messages behind its position.
    pub messages: u64,
    /// For how long the oldest of them that is kept has waited.
    pub time: Duration,
}

/// Lets one save at a time be on its way for each consumer, and the next follow if the position has moved meanwhile.
#[derive(Default)]
pub(crate) struct SavingState(Mutex<Option<Saving>>);

/// What is to be done when a save is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saving {
    /// Nothing: what was saved is where the consumer stands.
    Done,
    /// The next save: it has moved meanwhile.
    Again,
}

impl SavingState {
    /// The position has moved. Returns whether a save is to begin now.
    pub fn moved(&self) -> bool {
        let mut state = self.0.lock();
        let idle = state.is_none();
        *state = Some(if idle { Saving::Done } else { Saving::Again });
        idle
    }

    /// A save is over. With [`Saving::Again`] the next one counts as begun.
    pub fn stored(&self) -> Saving {
        let mut state = self.0.lock();
        if *state == Some(Saving::Again) {
            *state = Some(Saving::Done);
            return Saving::Again;
        }
        *state = None;
        Saving::Done
    }

    /// A save did not begin, or came to nothing.
    pub fn refused(&self) {
        *self.0.lock() = None;
    }
}

/// A consumer on this instance.
pub struct Consumer {
    key: ConsumerKey,
    /// Grows with each subscription: only the newest may move the position.
    generation: AtomicU64,
    /// How often it was moved: written under the lock of the state.
    seeks: AtomicU64,
    state: Mutex<ConsumerState>,
    /// Whether a save of its position is under way.
    pub(crate) saving: SavingState,
}

struct ConsumerState {
    ack: Ack,
    /// Up to where each topic was confirmed or acknowledged.
    cursors: HashMap<TopicName, Cursor>,
    since: Option<PatternCursor>,
    bytes: usize,
    max_cursors: usize,
    holder: Option<Arc<Waiter>>,
    /// What its newest subscription has said about how long it is kept.
    ttl: Option<Duration>,
    used: Instant,
    used_at: Timestamp,
    /// How long it had been unused when it was read back.
    idle: Duration,
    /// When a subscription on another instance last said that it has it.
    elsewhere: Option<Timestamp>,
    /// It was deleted or has expired. Another consumer may have its name by now, so nothing more is saved for this one.
    removed: bool,
}

/// An instance that has a consumer says so every minute; one that has not for so long is gone.
const SILENT: i64 = 3 * 60_000;

impl ConsumerState {
    /// Whether a subscription has it, here or elsewhere.
    fn is_held(&self) -> bool {
        let heard = |at: Timestamp| Timestamp::now().0.saturating_sub(at.0) < SILENT;
        self.holder.is_some() || self.elsewhere.is_some_and(heard)
    }

    fn use_it(&mut self) {
        (self.used, self.used_at, self.idle) = (Instant::now(), Timestamp::now(), Duration::ZERO);
    }

    fn put(&mut self, topic: &TopicName, cursor: Cursor) -> Result<(), Error> {
        let limit = |limit| Err(Error::LimitReached { what: "topics for one consumer", limit, own: true });
        if !self.cursors.contains_key(topic) {
            if self.cursors.len() >= self.max_cursors {
                return limit(self.max_cursors);
            }
            let bytes = CURSOR_BYTES + topic.as_str().len();
            if self.bytes + bytes > MAX_POSITION_BYTES {
                return limit(self.cursors.len());
            }
            self.bytes += bytes;
        }
        self.cursors.insert(topic.clone(), cursor);
        Ok(())
    }

    fn remove(&mut self, topic: &TopicName) {
        if self.cursors.remove(topic).is_some() {
            self.bytes -= CURSOR_BYTES + topic.as_str().len();
        }
    }

    /// Within an epoch a position only moves forward; that in another epoch is of a newer incarnation of the topic.
    fn advance(&mut self, topic: &TopicName, cursor: Cursor) {
        match self.cursors.get_mut(topic) {
            Some(known) if known.epoch == cursor.epoch => known.offset = known.offset.max(cursor.offset),
            Some(known) => *known = cursor,
            None => _ = self.put(topic, cursor),
        }
    }

    fn position(&self, seeks: &AtomicU64) -> Position {
        let mut cursors: Vec<_> = self.cursors.iter().map(|(topic, cursor)| (topic.clone(), *cursor)).collect();
        cursors.sort_by(|a, b| a.0.cmp(&b.0));
        let used_at = if self.holder.is_some() { Timestamp::now() } else { self.used_at };
        let seeks = seeks.load(Ordering::Relaxed);
        Position { ack: self.ack, cursors, since: self.since.clone(), used_at, ttl: self.ttl, seeks }
    }
}

impl Consumer {
    fn new(key: ConsumerKey, ack: Ack, max_cursors: usize) -> Arc<Self> {
        let state = ConsumerState {
            ack,
            cursors: HashMap::new(),
            since: None,
            bytes: 0,
            max_cursors,
            holder: None,
            ttl: None,
            used: Instant::now(),
            used_at: Timestamp::now(),
            idle: Duration::ZERO,
            elsewhere: None,
            removed: false,
        };
        let (generation, seeks) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { key, generation, seeks, state: Mutex::new(state), saving: SavingState::default() })
    }

    /// Who it is.
    #[must_use]
    pub fn key(&self) -> &ConsumerKey {
        &self.key
    }

    /// What is to be kept of it now.
    #[must_use]
    pub fn position(&self) -> Position {
        self.state.lock().position(&self.seeks)
    }

    /// Hands what is to be saved of it, and whether a subscription of this instance has it, to an engine. Returns `None`
    /// without doing so if the consumer was removed. A removal waits until `save` has returned, so that whatever an engine queues
    /// for the removal comes after what it queues here.
    pub(crate) fn save<T>(&self, save: impl FnOnce(&Position, bool) -> T) -> Option<T> {
        let state = self.state.lock();
        (!state.removed).then(|| save(&state.position(&self.seeks), state.holder.is_some()))
    }

    /// Whether it was deleted or has expired: the consumer that has its name now, if any, is another one.
    pub(crate) fn is_removed(&self) -> bool {
        self.state.lock().removed
    }

    /// From here on nothing is saved for it.
    fn mark_removed(&self) {
        self.state.lock().removed = true;
    }

    /// Whether a newer subscription than the `generation`-th has it.
    #[must_use]
    pub fn is_taken_over(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) != generation
    }

    /// Whether a subscription on this instance has it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state.lock().holder.is_some()
    }

    /// Puts what was kept in place of what is known here.
    pub fn restore(&self, position: &Position) {
        let mut state = self.state.lock();
        state.cursors.clear();
        state.bytes = 0;
        state.ack = position.ack;
        state.ttl = position.ttl;
        self.seeks.store(position.seeks, Ordering::Release);
        state.since.clone_from(&position.since);
        for (topic, cursor) in &position.cursors {
            // The limit is lower than it was: in the topics beyond it the consumer begins again.
            let _ = state.put(topic, *cursor);
        }
        let idle = Timestamp::now().0.saturating_sub(position.used_at.0);
        state.used = Instant::now();
        state.used_at = position.used_at;
        state.idle = Duration::from_millis(u64::try_from(idle).unwrap_or(0));
    }

    /// Ends a live subscription of it as taken over.
    pub fn revoke(&self) {
        let mut state = self.state.lock();
        let holder = state.holder.take();
        self.generation.fetch_add(1, Ordering::AcqRel);
        drop(state);
        if let Some(holder) = holder {
            holder.wake();
        }
    }

    /// Moves its position in one topic forward, never back. A position in a topic that it has not met yet is taken,
    /// too, unless it holds as many as it may: there it begins again.
    pub fn advance(&self, topic: &TopicName, cursor: Cursor) {
        self.state.lock().advance(topic, cursor);
    }

    /// As [`Consumer::advance`], but only in topics that it has met.
    pub(crate) fn advance_known(&self, topic: &TopicName, cursor: Cursor) {
        let mut state = self.state.lock();
        if state.cursors.contains_key(topic) {
            state.advance(topic, cursor);
        }
    }

    /// A subscription on another instance has it, and said so at this time; or none has.
    pub(crate) fn held_elsewhere(&self, at: Option<Timestamp>) {
        self.state.lock().elsewhere = at;
    }

    /// See [`Position::since`].
    pub(crate) fn since(&self) -> Option<PatternCursor> {
        self.state.lock().since.clone()
    }

    pub(crate) fn set_since(&self, position: PatternCursor) {
        self.state.lock().since = Some(position);
    }

    /// What a new subscription says about how long it is to be kept while nobody uses it.
    pub(crate) fn set_ttl(&self, ttl: Option<Duration>) {
        self.state.lock().ttl = ttl;
    }

    /// How long it has been unused, if nobody uses it and its owner has said that it may go.
    pub(crate) fn idle_and_may_go(&self) -> Option<Duration> {
        let state = self.state.lock();
        (!state.is_held() && state.ttl.is_some()).then(|| state.idle.saturating_add(state.used.elapsed()))
    }

    /// It was used just now.
    pub fn touch(&self) {
        self.state.lock().use_it();
    }

    /// The topic of this incarnation, if it reads it.
    #[must_use]
    pub fn topic_of(&self, epoch: Epoch) -> Option<TopicName> {
        let state = self.state.lock();
        let found = state.cursors.iter().find(|(_, cursor)| cursor.epoch == epoch);
        found.map(|(topic, _)| topic.clone())
    }

    pub(crate) fn cursors(&self) -> HashMap<TopicName, Cursor> {
        self.state.lock().cursors.clone()
    }

    /// Sets where it stands in a topic, further back too.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when it would hold more topics than it may.
    pub(crate) fn begin(&self, topic: &TopicName, cursor: Cursor) -> Result<(), Error> {
        self.state.lock().put(topic, cursor)
    }

    /// Drops the positions that are not to be kept.
    pub(crate) fn prune(&self, keep: impl Fn(&TopicName, Cursor) -> bool) {
        let mut state = self.state.lock();
        let ConsumerState { cursors, bytes, .. } = &mut *state;
        cursors.retain(|topic, cursor| {
            let kept = keep(topic, *cursor);
            if !kept {
                *bytes -= CURSOR_BYTES + topic.as_str().len();
            }
            kept
        });
    }

    /// The `generation`-th subscription says that these positions were reached, as one that had read on since the consumer
    /// was moved for the `seeks`-th time; a newer one's do not move. Each says whether the topic's deletion was reached, too:
    /// its position is dropped then. `since` is the position over all topics of a pattern that was reached.
    pub(crate) fn reached(
        &self,
        (generation, seeks): (u64, u64),
        cursors: impl Iterator<Item = (TopicName, Cursor, bool)>,
        since: Option<PatternCursor>,
    ) -> bool {
        // A newer subscription takes its generation under the lock of the state, and a seek counts under it, so both are
        // checked under that lock, too.
        let mut state = self.state.lock();
        if self.is_taken_over(generation) || self.was_sought(seeks) {
            return false;
        }
        if since.is_some() {
            state.since = since;
        }
        for (topic, cursor, ended) in cursors {
            if ended {
                state.remove(&topic);
            } else {
                state.advance(&topic, cursor);
            }
        }
        true
    }

    /// The `generation`-th subscription is over. Returns whether it was the newest.
    pub(crate) fn release(&self, generation: u64) -> bool {
        let mut state = self.state.lock();
        let newest = !self.is_taken_over(generation);
        if newest {
            state.holder = None;
        }
        state.use_it();
        newest
    }

    fn is_expired(&self, ttl: Duration) -> bool {
        let state = self.state.lock();
        let ttl = state.ttl.map_or(ttl, |own| own.min(ttl));
        !state.is_held() && state.idle.saturating_add(state.used.elapsed()) >= ttl
    }

    /// It as it is listed.
    #[must_use]
    pub fn status(&self) -> ConsumerStatus {
        let state = self.state.lock();
        let position = state.position(&self.seeks);
        ConsumerStatus { name: self.key.name.clone(), position, connected: state.is_held(), lags: Vec::new() }
    }
}
