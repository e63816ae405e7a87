//! What the doors have of the broker: every operation that they may use, on behalf of one principal. Access rules are
//! checked here, at the beginning of each operation, and nowhere else. `tests/it/layers.rs` finds an operation without one.

use std::sync::Arc;

use super::{
    AnyCursor, BatchLimit, Broker, ClientConnection, ClientInfo, ConsumerName, ConsumerStatus, Cursor, Error, Inbox,
    NewMessage, Page, Pattern, Principal, Publication, Publish, Publishing, RequestId, Right, Settings, Source, Start,
    StatePage, Subscribe, Subscription, SubscriptionId, SubscriptionInfo, TopicConfig, TopicInfo, TopicName, Totals,
    TraceContext, Watch, measures::Arrival,
};
use crate::channel::{Overflow, Waiter, spread_waits};

/// The broker as one principal sees it; clones are cheap.
#[derive(Clone)]
pub struct Client {
    broker: Broker,
    principal: Principal,
    info: ClientInfo,
    trace: Option<TraceContext>,
}

impl Broker {
    /// The broker as `principal` sees it.
    #[must_use]
    pub fn client(&self, principal: Principal, info: ClientInfo) -> Client {
        Client { broker: self.clone(), principal, info, trace: None }
    }
}

#[expect(clippy::missing_errors_doc, reason = "they are those of the broker's operation, and of the access rules")]
impl Client {
    /// A client of a broker of its own that keeps everything in memory, for what needs a broker and no server.
    #[must_use]
    pub fn in_memory(settings: Settings) -> Self {
        Broker::in_memory(settings).client(Principal::anyone(), ClientInfo::NONE)
    }

    /// On whose behalf this client acts.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The same client on behalf of another principal.
    #[must_use]
    pub fn acting_for(&self, principal: Principal) -> Self {
        Self { principal, ..self.clone() }
    }

    /// The same client for a request that is part of a trace: what it publishes is, too.
    #[must_use]
    pub fn traced(&self, trace: TraceContext) -> Self {
        Self { trace: Some(trace), ..self.clone() }
    }

    /// The same client outside of any trace, for a connection with requests of its own.
    #[must_use]
    pub fn untraced(self) -> Self {
        Self { trace: None, ..self }
    }

    /// Where it has come in.
    #[must_use]
    pub fn info(&self) -> ClientInfo {
        self.info
    }

    /// Counts a socket or an event stream of this client, until the guard is dropped. `protocol` is `websocket` or `event-stream`.
    pub fn connect(&self, protocol: &'static str) -> Result<ClientConnection, Error> {
        Ok(ClientConnection::new(self.principal.connect()?, &self.broker.0.open, self.info.door, protocol))
    }

    /// Has `key` put into the inbox whenever what the principal may do has changed, until the watch is dropped.
    #[must_use]
    pub fn watch(&self, inbox: &Inbox, key: u64) -> Watch {
        self.principal.watch(&Waiter::new(inbox.clone(), key, Overflow::default(), None))
    }

    /// The bounds that hold for everyone.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.broker.settings()
    }

    // ---- topics

    /// See [`Broker::create_topic`].
    pub async fn create_topic(&self, name: &TopicName, settings: TopicConfig) -> Result<TopicInfo, Error> {
        let managed = async {
            self.principal.check_topic(Right::Manage, name)?;
            self.broker.create_topic(name, settings).await
        };
        self.audited("createTopic", name.as_str(), managed.await)
    }

    /// See [`Broker::update_topic`].
    pub async fn update_topic(&self, name: &TopicName, settings: TopicConfig) -> Result<TopicInfo, Error> {
        let managed = async {
            self.principal.check_topic(Right::Manage, name)?;
            self.broker.update_topic(name, settings).await
        };
        self.audited("updateTopic", name.as_str(), managed.await)
    }

    /// See [`Broker::delete_topic`].
    pub async fn delete_topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        let managed = async {
            self.principal.check_topic(Right::Manage, name)?;
            self.broker.delete_topic(name).await
        };
        self.audited("deleteTopic", name.as_str(), managed.await)
    }

    /// See [`Broker::topic`].
    pub async fn topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        self.principal.check_visible(name)?;
        self.broker.topic(name).await
    }

    /// See [`Broker::topic_here`].
    pub fn topic_here(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        self.principal.check_visible(name)?;
        self.broker.topic_here(name)
    }

    /// Up to `limit` topics that the principal may see, in the order of their names: those that begin with `prefix` and come
    /// after `after`; and whether there are more.
    pub fn topics(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<(Vec<TopicInfo>, bool), Error> {
        let shown = self.principal.shown_list()?;
        Ok(self.broker.topics(prefix, after, limit, shown.as_ref()))
    }

    /// The first topics of all, for whoever may read statistics.
    pub fn all_topics(&self, limit: usize) -> Result<(Vec<TopicInfo>, bool), Error> {
        self.principal.check_stats()?;
        Ok(self.broker.topics("", None, limit, None))
    }

    /// How many topics that the principal may see begin with `prefix`.
    pub fn count_topics(&self, prefix: &str) -> Result<usize, Error> {
        let shown = self.principal.shown_list()?;
        Ok(self.broker.count_topics(prefix, shown.as_ref()))
    }

    // ---- messages

    fn check_publish(&self, name: &TopicName) -> Result<(), Error> {
        self.principal.check_topic(Right::Publish, name)?;
        if self.principal.take_token()? {
            return Ok(());
        }
        self.info.address.map_or(Ok(()), |address| self.broker.take_token_of(address))
    }

    /// The message with the context of the trace that it is part of, and what records that it is published.
    fn in_trace(&self, name: &TopicName, new_message: NewMessage) -> (NewMessage, Option<Box<dyn Publish>>) {
        let recorded = self.broker.tracer().and_then(|tracer| {
            let given = TraceContext::of(new_message.headers.as_ref());
            tracer.publish(name, given.as_ref().or(self.trace.as_ref()), self.info.door)
        });
        let context = recorded.as_ref().map(|recorded| recorded.context());
        let new_message = match context.as_ref().or(self.trace.as_ref()) {
            Some(context) => context.added_to(new_message),
            None => new_message,
        };
        (new_message, recorded)
    }

    fn publish_in_trace(&self, arrival: Arrival, name: &TopicName, new_message: NewMessage) -> Publishing {
        let (new_message, recorded) = self.in_trace(name, new_message);
        let publishing = self.broker.publish_from(arrival, name, new_message);
        let Some(recorded) = recorded else { return publishing };
        let is_ordered = publishing.is_ordered();
        match publishing.now() {
            Ok(result) => {
                recorded.end(&result);
                result.into()
            }
            Err(later) => {
                let outcome = async move {
                    let result = later.await;
                    recorded.end(&result);
                    result
                };
                if is_ordered { Publishing::pending(outcome) } else { Publishing::unordered(outcome) }
            }
        }
    }

    /// See [`Broker::publish`].
    pub fn publish(&self, name: &TopicName, new_message: NewMessage) -> Publishing {
        let arrival = Arrival::at(self.info.door);
        match self.check_publish(name) {
            Ok(()) => self.publish_in_trace(arrival, name, new_message),
            Err(error) => Err(self.broker.refused(error)).into(),
        }
    }

    /// Publishes several messages in their order; each has its own result, and one that is refused does not stop the others.
    pub async fn publish_many(
        &self,
        items: impl Iterator<Item = Result<(TopicName, NewMessage), Error>>,
    ) -> Vec<Result<Publication, Error>> {
        // With the places of their messages. It stays empty, without an allocation, where nothing is recorded.
        let mut recorded = Vec::new();
        let checked = items.enumerate().map(|(place, item)| {
            let (topic, new_message) = item?;
            self.check_publish(&topic).map_err(|error| self.broker.refused(error))?;
            let (new_message, publish) = self.in_trace(&topic, new_message);
            recorded.extend(publish.map(|publish| (place, publish)));
            Ok((topic, new_message))
        });
        let mut results = self.broker.publish_many(self.info.door, checked).await;
        for (place, publish) in recorded {
            if let Some(result) = results.get(place) {
                publish.end(result);
            }
        }
        let mut rate = 0;
        let refused = results.iter_mut().filter_map(|result| match result {
            Err(Error::ClientRateLimited { per_second, wait }) => {
                rate = *per_second;
                Some(wait)
            }
            _ => None,
        });
        let waits: Vec<_> = refused.collect();
        spread_waits(rate, waits.into_iter());
        results
    }

    /// See [`Broker::check_subscribe`].
    pub async fn check_subscribe(&self, request: &Subscribe) -> Result<(), Error> {
        self.principal.check_readable(&request.source)?;
        self.broker.check_subscribe(request).await
    }

    /// See [`Broker::subscribe`].
    pub async fn subscribe(&self, request: Subscribe, inbox: &Inbox, key: u64) -> Result<Subscription, Error> {
        self.broker.subscribe_as(&self.principal, self.info, request, (inbox, key)).await
    }

    /// See [`Broker::subscribe_events`].
    pub fn subscribe_events(&self, about: Option<Pattern>, inbox: &Inbox, key: u64) -> Result<Subscription, Error> {
        self.broker.subscribe_events(&self.principal, self.info, about, (inbox, key))
    }

    /// See [`Broker::history`].
    pub async fn history(&self, name: &TopicName, start: Start, limit: BatchLimit) -> Result<Page, Error> {
        self.principal.check_topic(Right::Subscribe, name)?;
        self.broker.history(name, start, limit).await
    }

    /// See [`Broker::history_before`].
    pub async fn history_before(&self, name: &TopicName, before: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.principal.check_topic(Right::Subscribe, name)?;
        self.broker.history_before(name, before, limit).await
    }

    /// See [`Broker::state`].
    pub async fn state(
        &self,
        name: &TopicName,
        prefix: &str,
        after: Option<Cursor>,
        limit: BatchLimit,
    ) -> Result<StatePage, Error> {
        self.principal.check_topic(Right::Subscribe, name)?;
        self.broker.state(name, prefix, after, limit).await
    }

    /// See [`Broker::count_state`].
    pub async fn count_state(&self, name: &TopicName, prefix: &str) -> Result<usize, Error> {
        self.principal.check_topic(Right::Subscribe, name)?;
        self.broker.count_state(name, prefix).await
    }

    // ---- subscriptions and consumers

    /// See [`Broker::subscriptions`].
    pub fn subscriptions(&self, name: &TopicName, most: usize) -> Result<Vec<SubscriptionInfo>, Error> {
        self.principal.check_visible(name)?;
        self.principal.check_stats()?;
        self.broker.subscriptions(name, most)
    }

    /// Ends a subscription of this instance: the principal's own, or one to what it manages. The client learns that by an
    /// error, and may subscribe again. Returns what it had subscribed to.
    pub fn disconnect(&self, id: SubscriptionId) -> Result<Source, Error> {
        let found = self.find_subscription(id);
        let topic = found.as_ref().map_or(String::new(), |(_, source)| source.as_str().to_owned());
        let disconnected = found.map(|(waiter, source)| {
            waiter.disconnect();
            source
        });
        self.audited("disconnect", &topic, disconnected)
    }

    /// The subscription that is meant, if the principal may end it. Whoever may not even see what it has subscribed to does not
    /// learn that it exists.
    fn find_subscription(&self, id: SubscriptionId) -> Result<(Arc<Waiter>, Source), Error> {
        let unknown = || Error::SubscriptionNotFound(id.to_string());
        self.principal.check_valid()?;
        let (waiter, source) = self.broker.find_subscription(id).ok_or_else(unknown)?;
        let is_own = !self.principal.is_anonymous() && waiter.subscriber.principal.as_ref() == self.principal.name();
        match self.principal.check_all_of(Right::Manage, &source) {
            Err(_) if is_own => {}
            Err(_) if self.principal.check_readable(&source).is_err() => return Err(unknown()),
            checked => checked?,
        }
        Ok((waiter, source))
    }

    /// See [`Broker::consumers`]. Of a pattern's consumers it returns the positions in those topics that the principal may
    /// read.
    pub async fn consumers(&self, source: &Source) -> Result<Vec<ConsumerStatus>, Error> {
        self.principal.check_readable(source)?;
        self.principal.check_stats()?;
        let mut list = self.broker.consumers(source).await?;
        for consumer in &mut list {
            let is_readable = |topic: &TopicName| self.principal.check_topic(Right::Subscribe, topic).is_ok();
            consumer.position.cursors.retain(|(topic, _)| is_readable(topic));
            consumer.lags = self.broker.lags(&consumer.position);
        }
        Ok(list)
    }

    /// See [`Broker::acknowledge`]. Without an owner it is the principal's own consumer, or the only one of the name that it
    /// manages.
    pub async fn acknowledge(
        &self,
        source: &Source,
        consumer: &ConsumerName,
        owner: Option<&str>,
        cursor: Cursor,
    ) -> Result<(), Error> {
        let consumer = self.find_consumer(source, consumer, owner).await?;
        self.broker.acknowledge(source, &consumer, cursor).await
    }

    /// See [`Broker::delete_consumer`]. Without an owner it is the principal's own consumer, or the only one of the name that
    /// it manages.
    pub async fn delete_consumer(
        &self,
        source: &Source,
        consumer: &ConsumerName,
        owner: Option<&str>,
    ) -> Result<(), Error> {
        let deleted = async {
            let consumer = self.find_consumer(source, consumer, owner).await?;
            self.broker.delete_consumer(source, &consumer).await
        };
        self.audited("deleteConsumer", source.as_str(), deleted.await)
    }

    /// See [`Broker::seek_consumer`]. Without an owner it is the principal's own consumer, or the only one of the name that it
    /// manages.
    pub async fn seek_consumer(
        &self,
        source: &Source,
        consumer: &ConsumerName,
        owner: Option<&str>,
        to: Start,
    ) -> Result<AnyCursor, Error> {
        let sought = async {
            let consumer = self.find_consumer(source, consumer, owner).await?;
            let parts = match source {
                Source::Topic(_) => Vec::new(),
                Source::Pattern(pattern) => self.principal.readable(pattern)?,
            };
            self.broker.seek_consumer(source, &parts, &consumer, to).await
        };
        self.audited("seekConsumer", source.as_str(), sought.await)
    }

    /// The consumer that is meant: the principal's own, or another one's if the principal manages what it reads.
    async fn find_consumer(
        &self,
        source: &Source,
        consumer: &ConsumerName,
        owner: Option<&str>,
    ) -> Result<ConsumerName, Error> {
        let own = self.principal.own(consumer)?;
        if owner.is_some_and(|owner| own.owner() != Some(owner)) {
            self.principal.check_all_of(Right::Manage, source)?;
            return consumer.owned_by(owner);
        }
        if self.principal.check_all_of(Right::Manage, source).is_err() || owner.is_some() {
            self.principal.check_readable(source)?;
            return Ok(own);
        }
        self.broker.find_consumer(source, own).await
    }

    // ---- the server

    /// See [`Broker::totals`].
    pub fn totals(&self) -> Result<Totals, Error> {
        self.principal.check_stats()?;
        Ok(self.broker.totals())
    }

    /// Whether the principal may read statistics and metrics.
    pub fn check_stats(&self) -> Result<(), Error> {
        self.principal.check_stats()
    }

    /// See [`Broker::status`]. Everybody may know.
    #[must_use]
    pub fn status(&self) -> &'static str {
        self.broker.status()
    }

    /// Whether the server is about to stop, so that nothing may begin that would have to end soon. Everybody may know.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.broker.check_staying().is_err()
    }

    /// Whether the server drains. Everybody may know.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.broker.is_draining()
    }

    /// See [`Broker::check_ready`]. Everybody may know.
    pub fn check_ready(&self) -> Result<(), Error> {
        self.broker.check_ready()
    }

    /// Logs an operation of management with its outcome.
    fn audited<T>(&self, operation: &'static str, topic: &str, result: Result<T, Error>) -> Result<T, Error> {
        let outcome = match &result {
            Ok(_) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        // On a server without access rules there is nothing to say about who it was.
        let Some(principal) = self.principal.name() else { return result };
        let ClientInfo { door, address } = self.info;
        let address = address.map(tracing::field::display);
        // Debug escapes what could begin a line of its own in the log.
        let request = RequestId::current().map(tracing::field::display);
        tracing::info!(target: "pub_sub::audit", ?principal, operation, ?topic, door, address, ?outcome, request, "audit");
        result
    }
}
