//! The wake-up of subscribers in every order of events that two publishers and a connection can have.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing there")]
#![allow(dead_code, clippy::pedantic, reason = "the file is included for what matters here")]

mod sync {
    pub use loom::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    pub use super::owner::Owner;

    #[derive(Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

mod owner {
    /// A connection that nobody delivers to directly.
    #[derive(Default)]
    pub struct Owner;

    impl Owner {
        pub fn deliver(&self, _: u64) -> bool {
            false
        }
    }
}

#[path = "../src/channel/inbox.rs"]
mod wake;

use loom::{future::block_on, thread};
use sync::{Arc, Mutex};
use wake::{Inbox, Notifier};

/// A channel and its one subscriber.
struct Topic {
    ring: Mutex<u64>,
    notifier: Notifier,
}

impl Topic {
    fn publish(&self) {
        *self.ring.lock() += 1;
        self.notifier.wake();
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// However the two run into each other, the connection does not sleep while there is something to read.
#[test]
fn no_news_is_slept_through() {
    check(|| {
        let inbox = Inbox::default();
        let topic = Arc::new(Topic { ring: Mutex::new(0), notifier: Notifier::new(inbox.clone(), 7) });
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let topic = topic.clone();
                thread::spawn(move || topic.publish())
            })
            .collect();
        let mut seen = 0;
        while seen < 2 {
            // With a wake-up lost, nothing wakes this any more, which the model reports as a deadlock.
            assert_eq!(block_on(inbox.next()), 7);
            topic.notifier.rearm();
            seen = *topic.ring.lock();
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
    });
}

/// Two subscriptions of one connection: each is read, neither hides the other.
#[test]
fn no_subscription_hides_another() {
    check(|| {
        let inbox = Inbox::default();
        let topics: Vec<_> = (0..2)
            .map(|key| Arc::new(Topic { ring: Mutex::new(0), notifier: Notifier::new(inbox.clone(), key) }))
            .collect();
        let publishers: Vec<_> = topics.iter().cloned().map(|topic| thread::spawn(move || topic.publish())).collect();
        let mut seen = [0; 2];
        while seen != [1, 1] {
            let key = usize::try_from(block_on(inbox.next())).unwrap();
            topics[key].notifier.rearm();
            seen[key] = *topics[key].ring.lock();
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
    });
}

/// The mistake that the model is there for is found: with the flag taken down only after the read, there is an order in
/// which a message is slept through.
#[test]
fn the_model_finds_a_lost_wake_up() {
    static SLEPT: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    check(|| {
        let inbox = Inbox::default();
        let topic = Arc::new(Topic { ring: Mutex::new(0), notifier: Notifier::new(inbox.clone(), 7) });
        let publisher = thread::spawn({
            let topic = topic.clone();
            move || {
                topic.publish();
                topic.publish();
            }
        });
        let mut seen = 0;
        let mut read = || {
            seen = *topic.ring.lock();
            topic.notifier.rearm();
        };
        block_on(inbox.next());
        read();
        publisher.join().unwrap();
        while inbox.try_next().is_some() {
            read();
        }
        if seen < 2 {
            SLEPT.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    assert!(SLEPT.load(std::sync::atomic::Ordering::Relaxed));
}
