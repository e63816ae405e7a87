//! What the doors have of the broker: every operation that they may use, bound to the principal of the connection. Access
//! rules will be checked here, at the beginning of each operation, and nowhere else; so a new operation of a door has to be
//! added here, and says on whose behalf it is used.

use super::{
    BatchLimit, Broker, ConsumerName, ConsumerStatus, Cursor, Error, Inbox, NewMessage, Page, Pattern, Publication,
    Publishing, Settings, Source, Start, Subscribe, Subscription, SubscriptionInfo, TopicConfig, TopicInfo, TopicName,
    Totals,
};

/// On whose behalf something is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Principal {
    /// A client that has not said who it is, and may do everything.
    #[default]
    Anyone,
}

/// The broker as one principal sees it; clones are cheap.
#[derive(Clone)]
pub struct Client {
    broker: Broker,
    principal: Principal,
}

impl Broker {
    /// The broker as `principal` sees it.
    #[must_use]
    pub fn client(&self, principal: Principal) -> Client {
        Client { broker: self.clone(), principal }
    }
}

#[expect(clippy::missing_errors_doc, reason = "they are those of the broker's operation")]
impl Client {
    /// A client of a broker of its own that keeps everything in memory, for what needs a broker and no server.
    #[must_use]
    pub fn in_memory(settings: Settings) -> Self {
        Broker::in_memory(settings).client(Principal::Anyone)
    }

    /// On whose behalf this client acts.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.principal
    }

    /// The bounds that hold for everyone.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.broker.settings()
    }

    /// See [`Broker::create_topic`].
    pub async fn create_topic(&self, name: &TopicName, settings: TopicConfig) -> Result<TopicInfo, Error> {
        self.broker.create_topic(name, settings).await
    }

    /// See [`Broker::update_topic`].
    pub async fn update_topic(&self, name: &TopicName, settings: TopicConfig) -> Result<TopicInfo, Error> {
        self.broker.update_topic(name, settings).await
    }

    /// See [`Broker::delete_topic`].
    pub async fn delete_topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        self.broker.delete_topic(name).await
    }

    /// See [`Broker::topic`].
    pub async fn topic(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        self.broker.topic(name).await
    }

    /// See [`Broker::topic_here`].
    pub fn topic_here(&self, name: &TopicName) -> Result<TopicInfo, Error> {
        self.broker.topic_here(name)
    }

    /// See [`Broker::topics`].
    #[must_use]
    pub fn topics(&self, prefix: &str, after: Option<&str>, limit: usize) -> (Vec<TopicInfo>, bool) {
        self.broker.topics(prefix, after, limit)
    }

    /// See [`Broker::count_topics`].
    #[must_use]
    pub fn count_topics(&self, prefix: &str) -> usize {
        self.broker.count_topics(prefix)
    }

    /// See [`Broker::publish`].
    pub fn publish(&self, name: &TopicName, new_message: NewMessage) -> Publishing {
        self.broker.publish(name, new_message)
    }

    /// See [`Broker::publish_many`].
    pub async fn publish_many(
        &self,
        items: impl Iterator<Item = Result<(TopicName, NewMessage), Error>>,
    ) -> Vec<Result<Publication, Error>> {
        self.broker.publish_many(items).await
    }

    /// See [`Broker::check_subscribe`].
    pub async fn check_subscribe(&self, request: &Subscribe) -> Result<(), Error> {
        self.broker.check_subscribe(request).await
    }

    /// See [`Broker::subscribe`].
    pub async fn subscribe(&self, request: Subscribe, inbox: &Inbox, key: u64) -> Result<Subscription, Error> {
        self.broker.subscribe(request, inbox, key).await
    }

    /// See [`Broker::subscribe_events`].
    pub fn subscribe_events(&self, about: Option<Pattern>, inbox: &Inbox, key: u64) -> Subscription {
        self.broker.subscribe_events(about, inbox, key)
    }

    /// See [`Broker::history`].
    pub async fn history(&self, name: &TopicName, start: Start, limit: BatchLimit) -> Result<Page, Error> {
        self.broker.history(name, start, limit).await
    }

    /// See [`Broker::history_before`].
    pub async fn history_before(&self, name: &TopicName, before: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.broker.history_before(name, before, limit).await
    }

    /// See [`Broker::subscriptions`].
    pub fn subscriptions(&self, name: &TopicName) -> Result<Vec<SubscriptionInfo>, Error> {
        self.broker.subscriptions(name)
    }

    /// See [`Broker::consumers`].
    pub async fn consumers(&self, source: &Source) -> Result<Vec<ConsumerStatus>, Error> {
        self.broker.consumers(source).await
    }

    /// See [`Broker::acknowledge`].
    pub async fn acknowledge(&self, source: &Source, consumer: &ConsumerName, cursor: Cursor) -> Result<(), Error> {
        self.broker.acknowledge(source, consumer, cursor).await
    }

    /// See [`Broker::delete_consumer`].
    pub async fn delete_consumer(&self, source: &Source, consumer: &ConsumerName) -> Result<(), Error> {
        self.broker.delete_consumer(source, consumer).await
    }

    /// See [`Broker::totals`].
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.broker.totals()
    }

    /// See [`Broker::status`].
    #[must_use]
    pub fn status(&self) -> &'static str {
        self.broker.status()
    }

    /// See [`Broker::check_ready`].
    pub fn check_ready(&self) -> Result<(), Error> {
        self.broker.check_ready()
    }
}
