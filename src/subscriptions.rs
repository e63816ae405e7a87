//! The subscriptions of one connection, for the doors that hold several on one: by the key under which the connection's
//! inbox announces them, and by the name that the client gave them (an operation's id, a topic or pattern).
//!
//! A name is reserved before its subscription is opened, because opening may take a while and a client may not use the name
//! twice meanwhile. Delivery is followed only for subscriptions with a named consumer, since only their positions move when
//! what was delivered has arrived.

use std::{
    borrow::{Borrow, BorrowMut},
    collections::HashMap,
    hash::Hash,
};

use slab::Slab;

use crate::broker::{BatchLimit, Error, Event, Inbox, Subscription};

/// What one subscription may deliver before the others of its connection have their turn: as much as fits one write well.
pub const BATCH_LIMIT: BatchLimit = BatchLimit { messages: 64, bytes: 64 << 10 };

/// Names up to which looking through all of them is as fast as an index, which takes memory. Most connections have one.
const UNINDEXED: usize = 8;

/// Keys tell the place of a subscription in the lower bits, and which of all that ever stood there it is in the upper ones.
const PLACE_BITS: u32 = 24;

/// The subscriptions of one connection. `N` is how the client names them, `S` is or holds a [`Subscription`].
pub struct Subscriptions<N, S> {
    inbox: Inbox,
    limit: Limit,
    /// Names that were ever taken.
    reserved: u64,
    entries: Slab<Entry<N, S>>,
    /// The key of each name, once there are more than [`UNINDEXED`]; then until all are given up.
    index: HashMap<N, u64>,
    /// The subscriptions that have a named consumer.
    named: Vec<u64>,
    /// Lent to each subscription while it is read, so that reading allocates nothing; empty in between.
    events: Vec<Event>,
}

struct Entry<N, S> {
    key: u64,
    name: N,
    /// `None` while it is being opened.
    subscription: Option<S>,
}

/// How many names may be taken at once.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// What is bounded, for the error: "subscriptions on one connection".
    pub what: &'static str,
    /// The bound.
    pub most: usize,
}

/// A subscription and what it takes to read it.
pub struct Readable<'a, N, S> {
    /// The client's name for it.
    pub name: &'a N,
    /// The subscription.
    pub subscription: &'a mut S,
    /// Room for what is read. Whoever reads empties it again.
    pub events: &'a mut Vec<Event>,
}

impl<N: Clone + Eq + Hash, S: BorrowMut<Subscription>> Subscriptions<N, S> {
    /// No subscriptions yet. Their news will come to `inbox`.
    pub fn new(inbox: Inbox, limit: Limit) -> Self {
        Self {
            inbox,
            limit,
            reserved: 0,
            entries: Slab::new(),
            index: HashMap::new(),
            named: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The inbox to subscribe with.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// The key that stands for a name, if the name is taken.
    pub fn key_of<Q: Eq + Hash + ?Sized>(&self, name: &Q) -> Option<u64>
    where
        N: Borrow<Q>,
    {
        if self.index.is_empty() {
            return self.entries.iter().find(|(_, entry)| entry.name.borrow() == name).map(|(_, entry)| entry.key);
        }
        self.index.get(name).copied()
    }

    /// All names that are taken.
    pub fn names(&self) -> impl Iterator<Item = &N> {
        self.entries.iter().map(|(_, entry)| &entry.name)
    }

    /// Takes a free name and returns the key to subscribe with. No key is given out twice.
    ///
    /// # Errors
    /// [`Error::LimitReached`].
    pub fn reserve(&mut self, name: N) -> Result<u64, Error> {
        debug_assert!(self.key_of(&name).is_none(), "the name is taken");
        let Limit { what, most } = self.limit;
        let most = most.min(1 << PLACE_BITS);
        if self.entries.len() >= most {
            return Err(Error::LimitReached { what, limit: most, own: true });
        }
        // The first takes the room of one. A `Vec` would make room for four.
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(1);
        }
        let entry = self.entries.vacant_entry();
        let key = self.reserved << PLACE_BITS | entry.key() as u64;
        self.reserved += 1;
        if !self.index.is_empty() {
            self.index.insert(name.clone(), key);
        }
        entry.insert(Entry { key, name, subscription: None });
        if self.index.is_empty() && self.entries.len() > UNINDEXED {
            self.index = self.entries.iter().map(|(_, entry)| (entry.name.clone(), entry.key)).collect();
        }
        Ok(key)
    }

    fn entry(&mut self, key: u64) -> Option<&mut Entry<N, S>> {
        self.entries.get_mut(place(key)).filter(|entry| entry.key == key)
    }

    /// Adds the subscription that was opened with a reserved key. Where the name was given up meanwhile, the subscription is
    /// dropped, which unsubscribes.
    pub fn open(&mut self, key: u64, subscription: S) {
        let is_named = subscription.borrow().consumer().is_some();
        let Some(entry) = self.entry(key) else { return };
        entry.subscription = Some(subscription);
        if is_named {
            self.named.push(key);
        }
        // Its news may have been taken out of the inbox before the subscription stood here, and it is announced only once
        // until it is read.
        self.inbox.wake(key);
    }

    /// The subscription under a key, if it is open.
    pub fn get(&self, key: u64) -> Option<&S> {
        self.entries.get(place(key)).filter(|entry| entry.key == key)?.subscription.as_ref()
    }

    /// The subscription that the inbox has announced, if it is still open.
    pub fn readable(&mut self, key: u64) -> Option<Readable<'_, N, S>> {
        let entry = self.entries.get_mut(place(key)).filter(|entry| entry.key == key)?;
        Some(Readable { name: &entry.name, subscription: entry.subscription.as_mut()?, events: &mut self.events })
    }

    /// Gives up a name, whether its subscription is open or not. Returns the name, and drops the subscription, which
    /// unsubscribes.
    pub fn remove(&mut self, key: u64) -> Option<N> {
        self.entry(key)?;
        let Entry { name, .. } = self.entries.try_remove(place(key))?;
        self.index.remove(&name);
        self.named.retain(|named| *named != key);
        Some(name)
    }

    /// Acts on every open subscription.
    pub fn each(&mut self, mut act: impl FnMut(&mut Subscription)) {
        for subscription in self.entries.iter_mut().filter_map(|(_, entry)| entry.subscription.as_mut()) {
            act(subscription.borrow_mut());
        }
    }

    /// Unsubscribes all and gives up all names.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.index.clear();
        self.named.clear();
    }

    /// Marks everything that was read for named consumers as in flight. Returns whether there is anything to acknowledge.
    pub fn mark_in_flight(&mut self) -> bool {
        let mut any = false;
        self.each_named(|subscription| any |= subscription.mark_in_flight());
        any
    }

    /// What was in flight has arrived: the consumers' positions move behind it.
    pub fn acknowledge_in_flight(&mut self) {
        self.each_named(Subscription::acknowledge_in_flight);
    }

    fn each_named(&mut self, mut act: impl FnMut(&mut Subscription)) {
        for key in &self.named {
            if let Some(Entry { subscription: Some(subscription), .. }) = self.entries.get_mut(place(*key)) {
                act(subscription.borrow_mut());
            }
        }
    }
}

fn place(key: u64) -> usize {
    (key & ((1 << PLACE_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{self, Ack, Broker, ConsumerName, NewMessage, Payload, Progress, Source, Subscribe, TopicName};

    fn offset(consumers: &[broker::ConsumerStatus]) -> u64 {
        consumers[0].position.cursors.iter().map(|(_, cursor)| cursor.offset).max().unwrap()
    }

    const LIMIT: Limit = Limit { what: "subscriptions on one connection", most: 2 };

    struct World {
        broker: Broker,
        table: Subscriptions<String, Subscription>,
    }

    impl World {
        fn new() -> Self {
            let broker = Broker::in_memory(broker::Settings::default());
            Self { broker, table: Subscriptions::new(Inbox::default(), LIMIT) }
        }

        async fn subscribe(&self, topic: &str, consumer: Option<&str>, key: u64) -> Subscription {
            let mut request = Subscribe::to(Source::parse(topic).unwrap());
            request.consumer = consumer.map(|name| (ConsumerName::parse(name).unwrap(), Ack::Auto));
            self.broker.subscribe(request, self.table.inbox(), key).await.unwrap()
        }

        async fn publish(&self, topic: &str) {
            let new_message = NewMessage {
                data: Payload::null(),
                id: None,
                key: None,
                expected_offset: None,
                origin: None,
                ttl: None,
                expected_key_offset: None,
            };
            self.broker.publish(&TopicName::parse(topic).unwrap(), new_message).await.unwrap();
        }

        /// Reads whatever the inbox announces; returns the names under which messages came.
        fn read(&mut self) -> Vec<String> {
            let mut read = Vec::new();
            while let Some(key) = self.table.inbox().try_next() {
                let Some(Readable { name, subscription, events }) = self.table.readable(key) else { continue };
                assert_eq!(subscription.read(BATCH_LIMIT, events), Progress::CaughtUp);
                read.extend(events.drain(..).map(|_| name.clone()));
            }
            read
        }

        fn subscribers(&self) -> usize {
            self.broker.totals().subscriptions
        }
    }

    #[test]
    fn names_are_bounded_and_given_up() {
        let mut table = World::new().table;
        let (a, b) = (table.reserve("a".to_owned()).unwrap(), table.reserve("b".to_owned()).unwrap());
        assert_eq!((table.key_of("a"), table.key_of("b"), table.key_of("c")), (Some(a), Some(b), None));
        let refused = table.reserve("c".to_owned()).unwrap_err();
        assert_eq!(refused.to_string(), "at most 2 subscriptions on one connection");
        assert_eq!((table.remove(a).as_deref(), table.remove(a)), (Some("a"), None));
        let again = table.reserve("a".to_owned()).unwrap();
        assert!(again != a && again != b, "what comes late for an earlier key must not find a later subscription");
        table.clear();
        assert_eq!((table.key_of("a"), table.key_of("b")), (None, None));
    }

    #[test]
    fn many_names_are_found_as_few_are() {
        let mut table: Subscriptions<String, Subscription> =
            Subscriptions::new(Inbox::default(), Limit { most: 100, ..LIMIT });
        let mut taken = std::collections::BTreeMap::new();
        for step in 0..400 {
            let name = (step * 7 % 40).to_string();
            assert_eq!(table.key_of(&name), taken.get(&name).copied(), "step {step}");
            match taken.remove(&name) {
                Some(key) => assert_eq!(table.remove(key), Some(name)),
                None => _ = taken.insert(name.clone(), table.reserve(name).unwrap()),
            }
            assert_eq!(table.names().count(), taken.len());
        }
        for (name, key) in taken {
            assert_eq!((table.key_of(&name), table.remove(key)), (Some(key), Some(name)));
        }
        assert_eq!(table.key_of("1"), None);
    }

    /// What is announced before the subscription stands in the table is not lost.
    #[tokio::test]
    async fn news_that_came_before_is_read() {
        let mut world = World::new();
        let key = world.table.reserve("one".to_owned()).unwrap();
        let subscription = world.subscribe("news", None, key).await;
        world.publish("news").await;
        assert!(world.read().is_empty(), "it is not open, and the announcement is gone");
        world.table.open(key, subscription);
        world.publish("news").await;
        assert_eq!(world.read(), ["one", "one"]);
    }

    #[tokio::test]
    async fn a_name_given_up_while_it_is_opened_unsubscribes() {
        let mut world = World::new();
        let key = world.table.reserve("one".to_owned()).unwrap();
        let subscription = world.subscribe("news", None, key).await;
        world.table.remove(key);
        assert_eq!(world.subscribers(), 1);
        world.table.open(key, subscription);
        assert_eq!(world.subscribers(), 0);
        assert!(world.table.get(key).is_none() && world.table.readable(key).is_none());
    }

    #[tokio::test]
    async fn only_named_consumers_are_followed() {
        let mut world = World::new();
        for (name, consumer) in [("plain", None), ("named", Some("tab-1"))] {
            let key = world.table.reserve(name.to_owned()).unwrap();
            let subscription = world.subscribe("news", consumer, key).await;
            world.table.open(key, subscription);
        }
        assert!(!world.table.mark_in_flight(), "nothing was read");
        world.publish("news").await;
        assert_eq!(world.read().len(), 2);
        let source = Source::parse("news").unwrap();
        assert!(world.table.mark_in_flight());
        let before = world.broker.consumers(&source).await.unwrap();
        world.table.acknowledge_in_flight();
        let after = world.broker.consumers(&source).await.unwrap();
        assert_eq!((offset(&before), offset(&after)), (0, 1));
        assert!(!world.table.mark_in_flight(), "all of it has arrived");
        let key = world.table.key_of("named").unwrap();
        world.table.remove(key);
        world.publish("news").await;
        assert_eq!(world.read(), ["plain"]);
        assert!(!world.table.mark_in_flight());
    }
}
