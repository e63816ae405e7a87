//! Subscribing: where a new subscription begins, and whose position it goes on from.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    AnyCursor, Broker, ClientInfo, Principal, Subscription,
    consumer::Lease,
    subscription::{Marker, ReadFrom},
    topics::{DOTS, is_dots},
};
use crate::channel::{
    Ack, Channel, Claim, ConsumerKey, ConsumerName, Error, Filter, Inbox, Overflow, Pattern, Source, Start, Subscriber,
    SubscriptionId, Waiter, Wanted,
};

/// What a subscriber asks for.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The topic or pattern.
    pub source: Source,
    /// Where to begin; a known consumer's position goes before it.
    pub start: Option<Start>,
    /// Where a client that comes back says it was: [`Start::After`] or, of a pattern, [`Start::AfterPattern`]. Goes
    /// before all else, a consumer's position too: nobody knows better what arrived.
    pub resume: Option<Start>,
    /// Only messages that match.
    pub filter: Option<Filter>,
    /// What happens when it falls behind.
    pub overflow: Overflow,
    /// Keep the position under this name.
    pub consumer: Option<(ConsumerName, Ack)>,
    /// How long it is kept while nobody uses it, `CONSUMER_TTL` at most; a consumer whose owner says this may go
    /// earlier where another one needs its room.
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

/// On whose behalf and where a subscription begins.
pub(super) struct Begin<'a> {
    pub principal: &'a Principal,
    pub start: Option<Start>,
    pub resume: Option<Start>,
    pub waiter: &'a Arc<Waiter>,
}

/// How often room is made for one consumer, while others take it.
const MAX_ROOM_ATTEMPTS: usize = 8;

fn check_consumer_name(name: Option<&ConsumerName>) -> Result<(), Error> {
    if name.is_some_and(|name| is_dots(name.name())) {
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
        self.subscribe_as(&Principal::anyone(), ClientInfo::NONE, request, (inbox, key)).await
    }

    /// What is known of a subscriber that begins now.
    fn subscriber(
        &self,
        principal: &Principal,
        info: ClientInfo,
        overflow: Overflow,
        consumer: Option<ConsumerName>,
    ) -> Subscriber {
        Subscriber {
            id: SubscriptionId(self.0.next_subscription.fetch_add(1, Ordering::Relaxed)),
            principal: principal.name().cloned(),
            door: info.door,
            address: info.address,
            ..Subscriber::unknown(overflow, consumer)
        }
    }

    /// [`Broker::subscribe`] on behalf of a principal: the subscription reads what that one may read at any time.
    ///
    /// # Errors
    /// As there; [`Error::Forbidden`], [`Error::Unauthenticated`].
    pub(super) async fn subscribe_as(
        &self,
        principal: &Principal,
        info: ClientInfo,
        mut request: Subscribe,
        (inbox, key): (&Inbox, u64),
    ) -> Result<Subscription, Error> {
        let version = principal.version();
        principal.check_readable(&request.source)?;
        self.check_staying()?;
        self.check_opened()?;
        if let Some((name, _)) = &mut request.consumer {
            *name = principal.own(name)?;
        }
        let name = request.consumer.as_ref().map(|(name, _)| name.clone());
        let subscriber = Subscriber {
            filter: request.filter.clone(),
            pattern: request.source.as_pattern().cloned(),
            ..self.subscriber(principal, info, request.overflow, name)
        };
        let waiter = Waiter::of(subscriber, inbox.clone(), key);
        let (filter, overflow) = (request.filter, request.overflow);
        let wanted = Wanted { filter, overflow, waiter: Some(waiter.clone()), ..Wanted::default() };
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
        let begin = Begin { principal, start: request.start, resume: request.resume, waiter: &waiter };
        let subscribed = match &request.source {
            Source::Topic(name) => self.subscribe_topic(name, begin, lease).await,
            Source::Pattern(pattern) => self.subscribe_pattern(pattern, begin, lease).await,
        };
        let kept = match subscribed {
            Ok(subscription) => match &subscription.lease {
                Some(lease) => lease.save().await.map(|()| subscription),
                None => Ok(subscription),
            },
            refused => refused,
        };
        if kept.is_err()
            && let Some((consumer, generation)) = &made
        {
            // A consumer that never had a subscription has no position to keep. If another subscription has it by
            // now, it stays.
            let _ = positions.withdraw(consumer, *generation).await;
        }
        let mut subscription = kept?;
        subscription.wanted = wanted;
        // What the principal may read can have changed since the first check.
        subscription.watch.has_seen(version);
        // The history that it may begin with is there to be read at once.
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
            Err(Error::TopicNotFound(_)) if self.0.settings.auto_create_topics => self.check_creatable(name),
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
        // Another subscription may take the room that was made, so this is tried several times.
        for _ in 0..MAX_ROOM_ATTEMPTS {
            match positions.claim(key, ack, waiter).await {
                Err(Error::LimitReached { .. }) => {}
                claimed => return claimed,
            }
            let Some(idle) = self.0.consumers.first_to_go(&key.source) else { break };
            match positions.remove(&idle).await {
                Ok(()) | Err(Error::ConsumerNotFound(_)) => self.release_source_if_unused(&idle.source),
                Err(error) => return Err(error),
            }
        }
        positions.claim(key, ack, waiter).await
    }

    /// Subscribes to the events of topics whose names match (all, without a pattern): the messages' key is the
    /// topic's name, [`super::TopicEventKind::of`] tells the rest.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Unauthenticated`].
    pub fn subscribe_events(
        &self,
        principal: &Principal,
        info: ClientInfo,
        about: Option<Pattern>,
        (inbox, key): (&Inbox, u64),
    ) -> Result<Subscription, Error> {
        let subscriber = self.subscriber(principal, info, Overflow::default(), None);
        let waiter = Waiter::of(subscriber, inbox.clone(), key);
        let mut subscription = self.attach(principal, self.0.registry.events(), waiter.clone(), &Start::Live);
        subscription.wanted.shown = principal.shown_events(about.as_ref())?;
        subscription.wanted.about = about;
        // A stream begins by saying that the subscription is open.
        waiter.wake();
        Ok(subscription)
    }

    /// Whether this is the channel of the topics' events.
    pub(super) fn is_events(&self, topic: &Arc<Channel>) -> bool {
        Arc::ptr_eq(topic, self.0.registry.events())
    }

    pub(super) fn attach(
        &self,
        principal: &Principal,
        topic: &Arc<Channel>,
        waiter: Arc<Waiter>,
        start: &Start,
    ) -> Subscription {
        let watch = principal.watch(&waiter);
        let (reader, slot) = topic.attach(&waiter, start);
        self.0.subscriptions.fetch_add(1, Ordering::Relaxed);
        let begins_at = AnyCursor::Topic(reader.cursor());
        Subscription {
            broker: self.clone(),
            source: ReadFrom::Topic { reader, waiter, slot },
            wanted: Wanted::default(),
            lease: None,
            ended: None,
            watch,
            begins_at,
            marker: Marker::None,
        }
    }

    pub(super) fn subscribed(&self) {
        self.0.subscriptions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unsubscribed(&self) {
        self.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}
