//! What can be seen of a topic's subscriptions: how far each has read, how long it has been behind, what it has missed.

use std::{
    cmp::Reverse,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Channel, ConsumerLag, Cursor, Filter, Overflow, Pattern, ReadPosition, Registry, Source, Start, SubscriptionId,
    Timestamp, Waiter, moment,
};

/// A subscription for which messages wait is stalled when it has read nothing for so long.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// How a live subscription is getting on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// It has read everything.
    CaughtUp,
    /// It has begun in the past and has not come to the end yet.
    CatchingUp,
    /// It has been at the end, and messages wait for it.
    Behind,
    /// Messages have waited for it for 5 seconds, and it has taken none meanwhile.
    Stalled,
}

impl SubscriptionState {
    /// The state's name at every door.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            SubscriptionState::CaughtUp => "CAUGHT_UP",
            SubscriptionState::CatchingUp => "CATCHING_UP",
            SubscriptionState::Behind => "BEHIND",
            SubscriptionState::Stalled => "STALLED",
        }
    }
}

/// One live subscription as seen from its topic.
#[derive(Clone, Debug)]
pub struct SubscriptionInfo {
    /// Names it, to end it.
    pub id: SubscriptionId,
    /// The name of the principal that has subscribed; none on a server without access rules.
    pub principal: Option<Arc<str>>,
    /// The interface that it came through: `graphql`, `rest` or `ws`.
    pub door: &'static str,
    /// Whence the client came, if that is known.
    pub address: Option<IpAddr>,
    /// The pattern that it has subscribed to, unless it was this very topic.
    pub pattern: Option<Pattern>,
    /// Where it stands: everything up to here was delivered, or passed over by its filter.
    pub cursor: Cursor,
    /// Messages published that the subscription has not read yet.
    pub lag: u64,
    /// For how long the oldest of them that is kept has waited.
    pub lag_time: Duration,
    /// Messages that it was told to have missed, in all topics that it reads.
    pub missed: u64,
    /// How it is getting on.
    pub state: SubscriptionState,
    /// When it began.
    pub since: Timestamp,
    /// What happens when it falls behind.
    pub overflow: Overflow,
    /// The name of its consumer.
    pub consumer: Option<String>,
    /// Only messages that match.
    pub filter: Option<Filter>,
    /// Messages that the filter has examined, and those of them that it let pass.
    pub examined: u64,
    /// See `examined`.
    pub passed: u64,
}

impl SubscriptionInfo {
    /// Of the messages that its filter has examined, the part that it let pass; none without a filter or a message.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits than a float has")]
    pub fn hit_rate(&self) -> Option<f64> {
        (self.filter.is_some() && self.examined > 0).then(|| self.passed as f64 / self.examined as f64)
    }
}

/// How long something has waited that began then.
fn waited(since: Option<Timestamp>, now: Timestamp) -> Duration {
    let waited = since.map_or(0, |since| now.0.saturating_sub(since.0));
    Duration::from_millis(u64::try_from(waited).unwrap_or(0))
}

/// One that reads the topic, and where it stands.
struct Found {
    waiter: Arc<Waiter>,
    position: ReadPosition,
}

impl Channel {
    /// The live subscriptions of this topic on this instance, through patterns too: the `most` that are furthest behind, the
    /// furthest first.
    pub(crate) fn subscriptions(self: &Arc<Self>, most: usize) -> Vec<SubscriptionInfo> {
        let mut found = self.readers();
        let end = self.ring.lock().end();
        let lag = |found: &Found| end.seen.saturating_sub(found.position.seen);
        found.sort_by_key(|found| (Reverse(lag(found)), found.waiter.subscriber.id));
        found.truncate(most);
        let oldest: Vec<_> = {
            let ring = self.ring.lock();
            found.iter().map(|found| ring.oldest_unread(found.position)).collect()
        };
        let now = (Timestamp::now(), moment::micros());
        found.into_iter().zip(oldest).map(|(found, oldest)| self.describe(&found, lag(&found), oldest, now)).collect()
    }

    fn readers(self: &Arc<Self>) -> Vec<Found> {
        let direct: Vec<_> = self.waiters.lock().iter().map(|(_, waiter)| waiter.clone()).collect();
        let standing = |waiter: Arc<Waiter>| {
            let (after, seen) = (waiter.offset.load(Ordering::Relaxed), waiter.seen.load(Ordering::Relaxed));
            Found { waiter, position: ReadPosition { after, seen } }
        };
        let (members, end) = {
            let mut ring = self.ring.lock();
            let mut matched = std::mem::take(&mut ring.patterns);
            let members = self.patterns.members(self.name.as_str(), &mut matched);
            ring.patterns = matched;
            (members, ring.end())
        };
        let through_pattern = members.into_iter().map(|member| {
            let position = member.standing(self.serial).unwrap_or(end);
            Found { waiter: member.waiter.clone(), position }
        });
        direct.into_iter().map(standing).chain(through_pattern).collect()
    }

    fn describe(
        &self,
        found: &Found,
        lag: u64,
        oldest: Option<Timestamp>,
        (now, moment): (Timestamp, u64),
    ) -> SubscriptionInfo {
        let Found { waiter, position } = found;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let lag_time = waited(oldest.filter(|_| lag > 0), now);
        let idle = Duration::from_micros(moment.saturating_sub(count(&waiter.read_at)));
        let state = match lag {
            0 => SubscriptionState::CaughtUp,
            _ if lag_time.min(idle) >= STALLED_AFTER => SubscriptionState::Stalled,
            _ if waiter.has_caught_up.load(Ordering::Relaxed) => SubscriptionState::Behind,
            _ => SubscriptionState::CatchingUp,
        };
        let subscriber = &waiter.subscriber;
        SubscriptionInfo {
            id: subscriber.id,
            principal: subscriber.principal.clone(),
            door: subscriber.door,
            address: subscriber.address,
            pattern: subscriber.pattern.clone(),
            cursor: Cursor { epoch: self.epoch, offset: position.after },
            lag,
            lag_time,
            missed: count(&waiter.missed),
            state,
            since: subscriber.since,
            overflow: subscriber.overflow,
            consumer: subscriber.consumer.as_ref().map(|name| name.name().to_owned()),
            filter: subscriber.filter.clone(),
            examined: count(&waiter.examined),
            passed: count(&waiter.passed),
        }
    }

    /// How far somebody is behind who has read up to this position.
    pub(crate) fn lag_behind(&self, cursor: Cursor) -> ConsumerLag {
        let ring = self.ring.lock();
        let (position, missed) = ring.locate(&Start::After(cursor), self.created_at);
        let gone = missed.and_then(|gap| gap.missed).unwrap_or(0);
        let messages = ring.end().seen.saturating_sub(position.seen).saturating_add(gone);
        ConsumerLag { messages, time: waited(ring.oldest_unread(position), Timestamp::now()) }
    }

    /// When this instance had the message at an offset, in the microseconds of [`moment`], if it is kept.
    pub(crate) fn accepted_at(&self, offset: u64) -> Option<u64> {
        self.ring.lock().message_at(offset).map(|message| message.accepted_at)
    }

    /// How many messages were readable here since the instance knows the topic.
    pub(crate) fn total(&self) -> u64 {
        self.ring.lock().total()
    }

    /// The subscription of this topic, not through a pattern, that has this id.
    pub(crate) fn find_subscription(&self, id: SubscriptionId) -> Option<Arc<Waiter>> {
        let waiters = self.waiters.lock();
        waiters.iter().map(|(_, waiter)| waiter).find(|waiter| waiter.subscriber.id == id).cloned()
    }
}

impl Registry {
    /// The live subscription of this instance that has this id. Looks at all of them.
    pub(crate) fn find_subscription(&self, id: SubscriptionId) -> Option<(Arc<Waiter>, Source)> {
        if let Some(waiter) = self.patterns.find_subscription(id) {
            let pattern = waiter.subscriber.pattern.clone()?;
            return Some((waiter, Source::Pattern(pattern)));
        }
        let found = |topic: Arc<Channel>| Some((topic.find_subscription(id)?, Source::Topic(topic.name.clone())));
        self.all().into_iter().find_map(found)
    }
}
