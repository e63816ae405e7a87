//! Subscribing: where a new subscription begins, and whose position it goes on from.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Broker, Subscription, consumer::Lease, subscription::Source as ReadFrom};
use crate::channel::{
    Ack, Channel, Claim, ConsumerKey, ConsumerName, Cursor, Error, Filter, Gap, Inbox, Overflow, Pattern,
    PatternCursor, Place, Reader, Ring, Source, Start, Timestamp, TopicName, Waiter, Wanted,
};

/// What a subscriber asks for.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The topic or pattern.
    pub source: Source,
    /// Where to begin; a known consumer's position goes before it.
    pub start: Option<Start>,
    /// Where a client that comes back says it was: [`Start::After`] or, of a pattern, [`Start::AfterPattern`]. Goes before
    /// all else, a consumer's position too: nobody knows better what arrived.
    pub resume: Option<Start>,
    /// Only messages that match.
    pub filter: Option<Filter>,
    /// What happens when it falls behind.
    pub overflow: Overflow,
    /// Keep the position under this name.
    pub consumer: Option<(ConsumerName, Ack)>,
    /// How long it is kept while nobody uses it, `CONSUMER_TTL` at most; a consumer whose owner says this may go earlier where
    /// another one needs its room.
    pub consumer_ttl: Option<Duration>,
}

impl Subscribe {
    /// Live, everything, no name.
    #[must_use]
    pub fn to(source: Source) -> Self {
        Self {
            source,
            start: None,
            resume: None,
            filter: None,
            overflow: Overflow::default(),
            consumer: None,
            consumer_ttl: None,
        }
    }
}

/// How often room is made for one consumer, while others take it.
const MAX_ROOM_ATTEMPTS: usize = 8;

/// A place that has not been given out yet: taking it as it is would make what comes next vanish without a word.
pub(super) fn ahead(field: &'static str) -> Error {
    Error::bad_request(field, "is ahead of the topic")
}

/// Whether a cursor of the channel's incarnation lies beyond what this instance knows.
pub(super) fn is_ahead(channel: &Channel, place: Cursor) -> bool {
    place.epoch == channel.epoch && place.offset > channel.last()
}

/// Why nothing may be named by one or two dots.
pub(super) const DOTS: &str = "must not be '.' or '..', which most HTTP clients remove from a path";

/// Whether a name is `.` or `..`. What had such a name could not be reached at the addresses of REST.
pub(super) fn is_dots(name: &str) -> bool {
    matches!(name, "." | "..")
}

fn check_consumer_name(name: Option<&ConsumerName>) -> Result<(), Error> {
    if name.is_some_and(|name| is_dots(name.as_str())) {
        return Err(Error::bad_request("consumer", DOTS));
    }
    Ok(())
}

impl Broker {
    /// Subscribes. The inbox says under `key` when there is something to read, from now on.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] (topics are not made on demand), [`Error::LimitReached`], [`Error::BadRequest`] for a
    /// start that a pattern cannot have, [`Error::Unavailable`] while draining or where the engine is needed and out of
    /// reach.
    pub async fn subscribe(&self, request: Subscribe, inbox: &Inbox, key: u64) -> Result<Subscription, Error> {
        self.check_not_draining()?;
        self.check_opened()?;
        let name = request.consumer.as_ref().map(|(name, _)| name.clone());
        let waiter = Waiter::new(inbox.clone(), key, request.overflow, name);
        let wanted = Wanted { filter: request.filter, about: None, overflow: request.overflow };
        let positions = self.0.engine.positions();
        let consumer = request.consumer.map(|(name, ack)| (ConsumerKey { source: request.source.clone(), name }, ack));
        check_consumer_name(consumer.as_ref().map(|(key, _)| &key.name))?;
        self.check_consumer_ttl(consumer.is_some(), request.consumer_ttl)?;
        let mut made = None;
        let lease = match &consumer {
            Some((key, ack)) => {
                let claim = self.claim(key, *ack, &waiter).await?;
                claim.consumer.set_ttl(request.consumer_ttl);
                made = (!claim.resumed).then(|| (claim.consumer.clone(), claim.generation));
                Some(Lease::new(self.0.engine.clone(), &key.name, *ack, claim))
            }
            None => None,
        };
        let subscribed = match &request.source {
            Source::Topic(name) => self.subscribe_topic(name, request.start, request.resume, &waiter, lease).await,
            Source::Pattern(pattern) => {
                self.subscribe_pattern(pattern, request.start, request.resume, &waiter, lease).await
            }
        };
        let kept = match subscribed {
            Ok(subscription) => match &subscription.lease {
                Some(lease) => lease.keep().await.map(|()| subscription),
                None => Ok(subscription),
            },
            refused => refused,
        };
        if kept.is_err()
            && let Some((consumer, generation)) = &made
        {
            // A consumer that never had a subscription has no position to keep. One that has another by now stays.
            let _ = positions.withdraw(consumer, *generation).await;
        }
        let mut subscription = kept?;
        subscription.wanted = wanted;
        // The history it may begin with is news, too.
        waiter.wake();
        Ok(subscription)
    }

    /// Checks without any effect what [`Broker::subscribe`] would refuse of a topic that is not there.
    ///
    /// # Errors
    /// As there; a position is not looked up.
    pub async fn check_subscribe(&self, request: &Subscribe) -> Result<(), Error> {
        self.check_not_draining()?;
        self.check_opened()?;
        check_consumer_name(request.consumer.as_ref().map(|(name, _)| name))?;
        self.check_consumer_ttl(request.consumer.is_some(), request.consumer_ttl)?;
        let Source::Topic(name) = &request.source else { return Ok(()) };
        match self.topic(name).await {
            Err(Error::TopicNotFound(_)) if self.0.settings.auto_create_topics => self.check_makeable(name),
            found => found.map(drop),
        }
    }

    fn check_consumer_ttl(&self, is_named: bool, ttl: Option<Duration>) -> Result<(), Error> {
        let Some(ttl) = ttl else { return Ok(()) };
        if !is_named {
            return Err(Error::bad_request("consumer_ttl", "needs a consumer"));
        }
        let most = self.0.settings.consumer_ttl;
        if ttl.is_zero() || ttl > most {
            let most = most.as_millis();
            return Err(Error::bad_request("consumer_ttl", format!("must be from 1ms to {most}ms (CONSUMER_TTL)")));
        }
        Ok(())
    }

    /// Claims a consumer. Where there is no room for one more, an idle one goes whose owner has said that it may.
    async fn claim(&self, key: &ConsumerKey, ack: Ack, waiter: &Arc<Waiter>) -> Result<Claim, Error> {
        let positions = self.0.engine.positions();
        // Others may take the room that was made.
        for _ in 0..MAX_ROOM_ATTEMPTS {
            match positions.claim(key, ack, waiter).await {
                Err(Error::LimitReached { .. }) => {}
                claimed => return claimed,
            }
            let Some(idle) = self.0.consumers.first_to_go(&key.source) else { break };
            match positions.remove(&idle).await {
                Ok(()) | Err(Error::ConsumerNotFound(_)) => self.forget_source_if_unused(&idle.source),
                Err(error) => return Err(error),
            }
        }
        positions.claim(key, ack, waiter).await
    }

    /// Subscribes to what becomes of topics whose names match (all, without a pattern): the messages' key is the
    /// topic's name, [`super::TopicEventKind::of`] tells the rest.
    pub fn subscribe_events(&self, about: Option<Pattern>, inbox: &Inbox, key: u64) -> Subscription {
        let waiter = Waiter::new(inbox.clone(), key, Overflow::default(), None);
        let events = &self.0.registry.events;
        let mut subscription = self.attach(events, waiter, |ring| ring.locate(&Start::Live, Timestamp(0)));
        subscription.wanted.about = about;
        subscription
    }

    fn attach(
        &self,
        topic: &Arc<Channel>,
        waiter: Arc<Waiter>,
        locate: impl FnOnce(&Ring) -> (Place, Option<Gap>),
    ) -> Subscription {
        // Waiting first, then looking where to begin: what is published in between wakes.
        let slot = topic.waiters.lock().insert(waiter.clone());
        let (place, gap) = locate(&topic.ring.lock());
        waiter.seen.store(place.seen, Ordering::Relaxed);
        self.0.subscriptions.fetch_add(1, Ordering::Relaxed);
        let reader = Reader::from(topic.clone(), (place, gap));
        let begins_at = AnyCursor::Topic(reader.cursor());
        Subscription {
            broker: self.clone(),
            source: ReadFrom::Topic { reader, waiter, slot },
            wanted: Wanted::default(),
            lease: None,
            ended: None,
            begins_at,
        }
    }

    async fn subscribe_topic(
        &self,
        name: &TopicName,
        start: Option<Start>,
        resume: Option<Start>,
        waiter: &Arc<Waiter>,
        mut lease: Option<Lease>,
    ) -> Result<Subscription, Error> {
        if [&start, &resume].into_iter().any(|start| matches!(start, Some(Start::AfterPattern(_)))) {
            return Err(Error::bad_request(
                "after",
                "is the cursor of a pattern; a topic takes a message's own cursor",
            ));
        }
        loop {
            let mut topic = self.find_or_make(name).await?;
            if topic.implicit.load(Ordering::Relaxed) && topic.ring.lock().is_unused() {
                match self.0.engine.join(&topic).await {
                    Ok(()) => {}
                    Err(Error::TopicNotFound(_)) => continue,
                    Err(error) => return Err(error),
                }
            }
            let kept = lease.as_ref().filter(|lease| lease.info.resumed).and_then(|lease| lease.places().remove(name));
            let goes_on = resume.is_none() && kept.is_some();
            let start = resume.clone().or(kept.map(Start::After)).or(start.clone()).unwrap_or(Start::Live);
            if let Start::After(place) = start {
                // Another instance may have given the cursor out, or delivered further than this one knows yet.
                topic = match self.at(name, place).await {
                    // Deleted a moment ago: it is made again, where topics are made on demand.
                    Err(Error::TopicNotFound(_)) if self.0.settings.auto_create_topics => continue,
                    found => found?,
                };
                if !goes_on && is_ahead(&topic, place) {
                    return Err(ahead("after"));
                }
            }
            let mut subscription = self.attach(&topic, waiter.clone(), |ring| ring.locate(&start, topic.created_at));
            if topic.ring.lock().closed {
                continue;
            }
            // A position of an earlier incarnation, or one that is gone, stays the consumer's until what was missed is confirmed.
            let begins_at = match (&start, &subscription.begins_at) {
                (Start::After(place), _) => *place,
                (_, AnyCursor::Topic(place)) => *place,
                (_, AnyCursor::Pattern(_)) => continue,
            };
            subscription.begins_at = AnyCursor::Topic(begins_at);
            if let Some(lease) = &mut lease {
                if !goes_on {
                    lease.begin(name, begins_at)?;
                }
                lease.info.cursor = Some(begins_at);
            }
            subscription.lease = lease;
            return Ok(subscription);
        }
    }

    pub(super) fn subscribed(&self) {
        self.0.subscriptions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unsubscribed(&self) {
        self.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A position as clients give and get it: of a topic, or of a pattern over all topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyCursor {
    /// In one topic.
    Topic(Cursor),
    /// Over all topics.
    Pattern(PatternCursor),
}

impl fmt::Display for AnyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnyCursor::Topic(cursor) => cursor.fmt(f),
            AnyCursor::Pattern(cursor) => cursor.fmt(f),
        }
    }
}

impl FromStr for AnyCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if PatternCursor::is_meant_by(text) {
            text.parse().map(AnyCursor::Pattern)
        } else {
            text.parse().map(AnyCursor::Topic)
        }
    }
}

impl From<AnyCursor> for Start {
    fn from(cursor: AnyCursor) -> Self {
        match cursor {
            AnyCursor::Topic(cursor) => Start::After(cursor),
            AnyCursor::Pattern(cursor) => Start::AfterPattern(cursor),
        }
    }
}
