//! Subscribing: where a new subscription begins, and whose position it goes on from.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use super::{Broker, Subscription, consumer::Lease, subscription::Source as ReadFrom};
use crate::channel::{
    Ack, Channel, ConsumerKey, ConsumerName, Cursor, Error, Filter, Gap, Inbox, Member, Overflow, Pattern, Place,
    Reader, Ring, Source, Start, Timestamp, TopicName, Waiter, Wanted,
};

/// What a subscriber asks for.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The topic or pattern.
    pub source: Source,
    /// Where to begin; a known consumer's position goes before it.
    pub start: Option<Start>,
    /// Where a client that comes back says it was. Goes before all else, a consumer's position too: nobody knows better
    /// what arrived.
    pub resume: Option<Cursor>,
    /// Only messages that match.
    pub filter: Option<Filter>,
    /// What happens when it falls behind.
    pub overflow: Overflow,
    /// Keep the position under this name.
    pub consumer: Option<(ConsumerName, Ack)>,
}

impl Subscribe {
    /// Live, everything, no name.
    #[must_use]
    pub fn to(source: Source) -> Self {
        Self { source, start: None, resume: None, filter: None, overflow: Overflow::default(), consumer: None }
    }
}

/// A place that has not been given out yet: taking it as it is would make what comes next vanish without a word.
pub(super) fn ahead(field: &'static str) -> Error {
    Error::bad_request(field, "is ahead of the topic")
}

/// Whether a cursor of the channel's life lies beyond what this instance knows.
pub(super) fn is_ahead(channel: &Channel, place: Cursor) -> bool {
    place.epoch == channel.epoch && place.offset > channel.last()
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
        let mut made = None;
        let lease = match &consumer {
            Some((key, ack)) => {
                let claim = positions.claim(key, *ack, &waiter).await?;
                made = (!claim.resumed).then(|| (claim.consumer.clone(), claim.generation));
                Some(Lease::new(self.0.engine.clone(), &key.name, *ack, claim))
            }
            None => None,
        };
        let subscribed = match &request.source {
            Source::Topic(name) => self.subscribe_topic(name, request.start, request.resume, &waiter, lease).await,
            Source::Pattern(pattern) => self.subscribe_pattern(pattern, request.start, &waiter, lease),
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

    /// Subscribes to what becomes of topics whose names match (all, without a pattern): the messages' key is the
    /// topic's name, [`super::TopicEventKind::of`] tells the rest.
    pub fn subscribe_events(&self, about: Option<Pattern>, inbox: &Inbox, key: u64) -> Subscription {
        let waiter = Waiter::new(inbox.clone(), key, Overflow::default(), None);
        let events = &self.0.registry.events;
        let mut subscription = self.attach(events, waiter, |ring| ring.locate(Start::Live, Timestamp(0)));
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
        Subscription {
            broker: self.clone(),
            source: ReadFrom::Topic { reader: Reader::from(topic.clone(), (place, gap)), waiter, slot },
            wanted: Wanted::default(),
            lease: None,
            ended: None,
        }
    }

    async fn subscribe_topic(
        &self,
        name: &TopicName,
        start: Option<Start>,
        said: Option<Cursor>,
        waiter: &Arc<Waiter>,
        mut lease: Option<Lease>,
    ) -> Result<Subscription, Error> {
        loop {
            let mut topic = self.find_or_make(name).await?;
            if topic.implicit.load(Ordering::Relaxed) && topic.ring.lock().is_unused() {
                match self.0.engine.join(&topic).await {
                    Ok(()) => {}
                    Err(Error::TopicNotFound(_)) => continue,
                    Err(error) => return Err(error),
                }
            }
            let places = lease.as_ref().filter(|lease| lease.info.resumed).map(Lease::places);
            if let Some(Start::After(place)) = said.map(Start::After).or(start) {
                topic = self.at(name, place).await?;
                if is_ahead(&topic, place) {
                    return Err(ahead("after"));
                }
            }
            // A place of this life goes before one of an earlier.
            let resume = places.as_ref().and_then(|places| {
                let here = places.get(&topic.epoch).map(|(_, offset)| Cursor { epoch: topic.epoch, offset: *offset });
                let earlier =
                    || places.iter().map(|(epoch, (_, offset))| Cursor { epoch: *epoch, offset: *offset }).next();
                here.or_else(earlier)
            });
            if let Some(place) = resume
                && (place.epoch != topic.epoch || is_ahead(&topic, place))
            {
                // Another instance may have delivered further than this one knows yet.
                topic = self.at(name, place).await?;
            }
            let resume = said.or(resume);
            let start = resume.map(Start::After).or(start).unwrap_or(Start::Live);
            let mut subscription = self.attach(&topic, waiter.clone(), |ring| ring.locate(start, topic.created_at));
            if topic.ring.lock().closed {
                continue;
            }
            if let Some(lease) = &mut lease {
                let ReadFrom::Topic { reader, .. } = &subscription.source else { continue };
                let here = reader.cursor();
                lease.prune(|epoch| epoch == topic.epoch);
                lease.begin(name, resume.filter(|place| place.epoch == topic.epoch).unwrap_or(here))?;
                lease.info.cursor = Some(resume.unwrap_or(here));
            }
            subscription.lease = lease;
            return Ok(subscription);
        }
    }

    fn subscribe_pattern(
        &self,
        pattern: &Pattern,
        start: Option<Start>,
        waiter: &Arc<Waiter>,
        mut lease: Option<Lease>,
    ) -> Result<Subscription, Error> {
        if matches!(start, Some(Start::After(_))) {
            return Err(Error::bad_request(
                "after",
                "is a place in one topic; a pattern begins live, with last, with since, or as a consumer",
            ));
        }
        let member = Member::new(waiter.clone());
        let membership = self.0.registry.patterns.join(pattern, member.clone())?;
        self.0.subscriptions.fetch_add(1, Ordering::Relaxed);
        let mut subscription = Subscription {
            broker: self.clone(),
            source: ReadFrom::Pattern { member: member.clone(), _membership: membership },
            wanted: Wanted::default(),
            lease: None,
            ended: None,
        };
        let places = match &lease {
            Some(lease) if lease.info.resumed => Some(lease.places()),
            _ => None,
        };
        if start.is_some_and(|start| start != Start::Live) || lease.is_some() {
            // Where a topic of this name stood in an earlier life: that it was made anew is to be told.
            let earlier: HashMap<&str, Cursor> = places
                .iter()
                .flatten()
                .map(|(epoch, (name, offset))| (name.as_str(), Cursor { epoch: *epoch, offset: *offset }))
                .collect();
            let topics = self.0.registry.matching(pattern);
            let mut epochs = HashSet::new();
            for topic in &topics {
                epochs.insert(topic.epoch);
                let place = places.as_ref().map(|places| match places.get(&topic.epoch) {
                    Some((_, offset)) => Start::After(Cursor { epoch: topic.epoch, offset: *offset }),
                    // A topic that the consumer has not met was made while it was away.
                    None => earlier.get(topic.name.as_str()).map_or(Start::Oldest, |cursor| Start::After(*cursor)),
                });
                let ring = topic.ring.lock();
                let (place, gap) = ring.locate(place.or(start).unwrap_or(Start::Live), topic.created_at);
                if let Some(lease) = &mut lease
                    && places.as_ref().is_none_or(|places| !places.contains_key(&topic.epoch))
                {
                    lease.begin(&topic.name, Cursor { epoch: topic.epoch, offset: place.after })?;
                }
                if place.after < ring.last() || gap.is_some() {
                    member.seed(Reader::from(topic.clone(), (place, gap)));
                }
            }
            if let Some(lease) = &mut lease {
                lease.prune(|epoch| epochs.contains(&epoch));
            }
        }
        subscription.lease = lease;
        Ok(subscription)
    }

    pub(super) fn unsubscribed(&self) {
        self.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}
