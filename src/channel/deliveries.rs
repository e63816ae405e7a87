//! Delivery from the topic's side: a deliverer goes through the subscriptions of a topic that has news and writes to each
//! connection that is idle, instead of waking a task for each.
//!
//! A publisher only says that its topic has news, so what it pays does not grow with the number of subscribers. A connection
//! that is busy, or whose socket takes no more, is woken and reads on by itself: this is a short cut to the same reading.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{Channel, Waiter};

/// Subscriptions of one topic that are delivered to before other topics have their turn. Each costs a write, which takes some five
/// microseconds.
const CHUNK: usize = 32;

/// Subscriptions that are delivered to before other tasks have their turn: about half a millisecond. Yielding more often costs,
/// because the runtime then asks the kernel for events and wakes another of its threads.
const BEFORE_YIELD: usize = 4 * CHUNK;

/// Whether a topic has news that its subscribers were not told.
pub(super) struct News {
    state: AtomicU8,
    deliveries: Arc<Deliveries>,
}

/// There are none.
const NONE: u8 = 0;
/// A deliverer goes through the subscriptions.
const BEING_DELIVERED: u8 = 1;
/// There are some that came after the deliverer had begun, or it has not begun.
const UNTOLD: u8 = 2;

impl News {
    pub fn new(deliveries: Arc<Deliveries>) -> Self {
        Self { state: AtomicU8::new(NONE), deliveries }
    }

    pub fn deliveries(&self) -> &Arc<Deliveries> {
        &self.deliveries
    }

    /// What is published from here on is news again.
    fn begin(&self) {
        self.state.store(BEING_DELIVERED, Ordering::SeqCst);
    }

    /// Whether nothing came meanwhile.
    fn end(&self) -> bool {
        self.state.compare_exchange(BEING_DELIVERED, NONE, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// The queues of topics that have news, one for each deliverer. A topic is always in the same.
pub(crate) struct Deliveries {
    queues: Box<[Mutex<Queue>]>,
}

#[derive(Default)]
struct Queue {
    topics: VecDeque<Delivery>,
    waker: Option<Waker>,
    /// Whether there is a deliverer. Without one, each subscription is woken.
    is_open: bool,
}

/// A topic whose news are being delivered.
struct Delivery {
    topic: Arc<Channel>,
    /// The slot of the waiting subscription to go on with; `None` before the first.
    next: Option<usize>,
}

impl Deliveries {
    /// One queue for each processor. None has a deliverer until [`Deliveries::run`].
    pub fn new() -> Arc<Self> {
        let queues = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self { queues: (0..queues).map(|_| Mutex::default()).collect() })
    }

    /// How many deliverers there are to be.
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    fn queue_of(&self, topic: &Channel) -> &Mutex<Queue> {
        let count = self.queues.len() as u64;
        &self.queues[(topic.serial % count) as usize]
    }

    /// Delivers the news of the topics in one queue, for ever.
    pub async fn run(self: Arc<Self>, index: usize) {
        let Some(queue) = self.queues.get(index) else { return };
        queue.lock().is_open = true;
        let _closes = CloseQueue(queue);
        // Writing to many sockets in a row is the work here, and it yields by itself.
        tokio::task::unconstrained(async {
            let mut delivered = 0;
            loop {
                let mut delivery = poll_fn(|cx| poll_next(queue, cx)).await;
                delivered += delivery.step();
                if delivery.goes_on() {
                    queue.lock().topics.push_back(delivery);
                }
                if delivered >= BEFORE_YIELD {
                    delivered = 0;
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
    }
}

fn poll_next(queue: &Mutex<Queue>, cx: &mut Context<'_>) -> Poll<Delivery> {
    let mut queue = queue.lock();
    if let Some(next) = queue.topics.pop_front() {
        return Poll::Ready(next);
    }
    if queue.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
        queue.waker = Some(cx.waker().clone());
    }
    Poll::Pending
}

impl Delivery {
    /// Delivers to the next subscriptions. Returns to how many.
    fn step(&mut self) -> usize {
        let from = self.next.unwrap_or_else(|| {
            self.topic.news.begin();
            0
        });
        let (waiting, next) = self.topic.waiting(from);
        self.next = next;
        waiting.iter().for_each(|waiter| waiter.deliver());
        waiting.len()
    }

    /// Whether there is more to do.
    fn goes_on(&self) -> bool {
        self.next.is_some() || !self.topic.news.end()
    }
}

/// When a deliverer ends, subscriptions are woken again, those included whose turn would have come.
struct CloseQueue<'a>(&'a Mutex<Queue>);

impl Drop for CloseQueue<'_> {
    fn drop(&mut self) {
        let topics = {
            let mut queue = self.0.lock();
            queue.is_open = false;
            std::mem::take(&mut queue.topics)
        };
        for delivery in &topics {
            delivery.topic.wake_until_told();
        }
    }
}

impl Channel {
    /// Has its subscribers told that there is something to read.
    pub(super) fn tell(self: &Arc<Self>) {
        if self.waiters.lock().is_empty() || self.news.state.swap(UNTOLD, Ordering::SeqCst) != NONE {
            return;
        }
        let mut queue = self.news.deliveries.queue_of(self).lock();
        if queue.is_open {
            queue.topics.push_back(Delivery { topic: self.clone(), next: None });
            let waker = queue.waker.take();
            drop(queue);
            if let Some(waker) = waker {
                waker.wake();
            }
            return;
        }
        drop(queue);
        self.wake_until_told();
    }

    /// Wakes everybody, again where something was published meanwhile by somebody who left the waking to this call.
    fn wake_until_told(&self) {
        loop {
            self.news.begin();
            self.wake_all();
            if self.news.end() {
                return;
            }
        }
    }

    /// Wakes everybody that waits for this very topic.
    pub(super) fn wake_all(&self) {
        for (_, waiter) in self.waiters.lock().iter() {
            waiter.wake();
        }
    }

    /// The next waiting subscriptions, from a slot on, that have not read everything; and the slot to go on with.
    fn waiting(&self, from: usize) -> (SmallVec<[Arc<Waiter>; CHUNK]>, Option<usize>) {
        let newest = self.ring.lock().end().seen;
        let mut behind = SmallVec::new();
        let waiters = self.waiters.lock();
        for slot in from..waiters.capacity() {
            if behind.len() == CHUNK {
                return (behind, Some(slot));
            }
            if let Some(waiter) = waiters.get(slot)
                && waiter.seen.load(Ordering::Relaxed) < newest
            {
                behind.push(waiter.clone());
            }
        }
        (behind, None)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Weak, time::Duration};

    use super::*;
    use crate::channel::{
        Deliver, Inbox, Incarnation, NewMessage, Overflow, Payload, Registry, RegistrySettings, TopicConfig, TopicName,
    };

    /// A connection that counts what it is asked to deliver, and reads nothing.
    #[derive(Default)]
    struct Connection {
        is_busy: bool,
        delivered: Mutex<Vec<u64>>,
    }

    impl Deliver for Connection {
        fn deliver(&self, key: u64) -> bool {
            if !self.is_busy {
                self.delivered.lock().push(key);
            }
            !self.is_busy
        }
    }

    struct World {
        registry: Arc<Registry>,
        topic: Arc<Channel>,
    }

    impl World {
        fn new() -> Self {
            let registry = Registry::new(RegistrySettings::for_tests(10));
            let name = TopicName::parse("news").unwrap();
            let topic = registry.insert(Incarnation::new(&name, TopicConfig::default()), |_| Ok(())).unwrap();
            Self { registry, topic }
        }

        fn publish(&self) {
            let data = Payload::null();
            let new_message = NewMessage::of(data);
            self.topic.append(new_message).unwrap();
        }

        fn subscribe(&self, connection: &Arc<Connection>, key: u64) -> (Inbox, Arc<Waiter>) {
            let inbox = Inbox::default();
            let weak: Weak<Connection> = Arc::downgrade(connection);
            inbox.owner().set(weak);
            let waiter = Waiter::new(inbox.clone(), key, Overflow::History, None);
            self.topic.attach(&waiter, &crate::channel::Start::Live);
            (inbox, waiter)
        }

        fn deliverers(&self) -> tokio::task::JoinSet<()> {
            let deliveries = self.registry.deliveries();
            (0..deliveries.len()).map(|index| deliveries.clone().run(index)).collect()
        }
    }

    async fn until(condition: impl Fn() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        });
        waited.await.expect("it comes about");
    }

    #[tokio::test]
    async fn idle_connections_are_delivered_to_and_busy_ones_are_woken() {
        let world = World::new();
        let deliverers = world.deliverers();
        until(|| world.registry.deliveries().queues.iter().all(|queue| queue.lock().is_open)).await;
        let idle: Vec<_> = (0..3 * CHUNK as u64)
            .map(|key| {
                let connection = Arc::new(Connection::default());
                let subscription = world.subscribe(&connection, key);
                (connection, subscription)
            })
            .collect();
        let busy = Arc::new(Connection { is_busy: true, ..Connection::default() });
        let (inbox, waiter) = world.subscribe(&busy, 7);
        let up_to_date = Arc::new(Connection::default());
        let (_, read) = world.subscribe(&up_to_date, 8);
        read.seen.store(1, Ordering::Relaxed);

        world.publish();
        until(|| idle.iter().all(|(connection, _)| connection.delivered.lock().len() == 1)).await;
        for (key, (connection, _)) in idle.iter().enumerate() {
            assert_eq!(*connection.delivered.lock(), [key as u64]);
        }
        assert_eq!(inbox.next().await, 7);
        assert!(up_to_date.delivered.lock().is_empty(), "it has read everything");

        // What was taken out of the inbox and not read is not told again, and the others are.
        world.publish();
        until(|| idle.iter().all(|(connection, _)| connection.delivered.lock().len() == 2)).await;
        assert_eq!(inbox.try_next(), None);
        waiter.rearm();
        world.publish();
        until(|| idle.iter().all(|(connection, _)| connection.delivered.lock().len() == 3)).await;
        assert_eq!(inbox.next().await, 7);
        drop(deliverers);
    }

    #[tokio::test]
    async fn without_deliverers_everybody_is_woken() {
        let world = World::new();
        let connection = Arc::new(Connection::default());
        let (inbox, waiter) = world.subscribe(&connection, 1);
        world.publish();
        assert_eq!(inbox.try_next(), Some(1));
        waiter.rearm();

        let mut deliverers = world.deliverers();
        until(|| world.registry.deliveries().queues.iter().all(|queue| queue.lock().is_open)).await;
        // They do not run before they are stopped, so this is news that they leave behind.
        world.publish();
        deliverers.shutdown().await;
        assert_eq!(inbox.try_next(), Some(1));
        assert!(connection.delivered.lock().is_empty());
        waiter.rearm();
        world.publish();
        assert_eq!(inbox.try_next(), Some(1));
    }
}
