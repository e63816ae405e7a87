//! Who waits for a topic's news.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    ConsumerName, Gap, Overflow,
    inbox::{Inbox, Notifier},
    subscriber::Subscriber,
};

/// A subscription as its topic sees it. What it counts is written by the subscription alone, once for each batch, and read
/// by those who look.
pub struct Waiter {
    notifier: Notifier,
    pub(crate) subscriber: Subscriber,
    /// How many of the topic's messages a subscription to one topic has passed; others only look.
    pub(crate) seen: AtomicU64,
    /// Where a subscription to one topic stands: everything up to this offset was delivered.
    pub(crate) offset: AtomicU64,
    /// When it last read, in the microseconds of [`super::moment`].
    pub(crate) read_at: AtomicU64,
    /// Messages that it was told to have missed.
    pub(crate) missed: AtomicU64,
    /// Messages that its filter has examined, and those of them that it let pass.
    pub(crate) examined: AtomicU64,
    pub(crate) passed: AtomicU64,
    /// Whether it has been at the end once.
    pub(crate) has_caught_up: AtomicBool,
    is_disconnected: AtomicBool,
}

impl Waiter {
    /// For a subscription that the inbox's owner knows as `key`.
    #[must_use]
    pub fn new(inbox: Inbox, key: u64, overflow: Overflow, consumer: Option<ConsumerName>) -> Arc<Self> {
        Self::of(Subscriber::unknown(overflow, consumer), inbox, key)
    }

    /// The same for a subscriber of whom more is known.
    pub(crate) fn of(subscriber: Subscriber, inbox: Inbox, key: u64) -> Arc<Self> {
        Arc::new(Self {
            notifier: Notifier::new(inbox, key),
            subscriber,
            seen: AtomicU64::new(0),
            offset: AtomicU64::new(0),
            read_at: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            examined: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            has_caught_up: AtomicBool::new(false),
            is_disconnected: AtomicBool::new(false),
        })
    }

    /// Ends the subscription: it learns of this when it reads next, which is at once.
    pub(crate) fn disconnect(&self) {
        self.is_disconnected.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether [`Waiter::disconnect`] was called.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.is_disconnected.load(Ordering::Acquire)
    }

    /// The subscriber is told of this gap.
    pub(crate) fn note_gap(&self, gap: &Gap) {
        self.missed.fetch_add(gap.missed.unwrap_or(0), Ordering::Relaxed);
    }

    /// The filter has looked at so many messages, and let so many pass.
    pub(crate) fn note_filtered(&self, examined: u64, passed: u64) {
        self.examined.fetch_add(examined, Ordering::Relaxed);
        self.passed.fetch_add(passed, Ordering::Relaxed);
    }
}

impl Deref for Waiter {
    type Target = Notifier;

    fn deref(&self) -> &Notifier {
        &self.notifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_waits_once_and_in_turn() {
        let inbox = Inbox::default();
        let waiter = |key| Waiter::new(inbox.clone(), key, Overflow::History, None);
        let (one, two) = (waiter(1), waiter(2));
        one.wake();
        two.wake();
        one.wake();
        assert_eq!((inbox.next().await, inbox.next().await, inbox.try_next()), (1, 2, None));
        one.wake();
        assert_eq!(inbox.try_next(), None, "still marked until it is read");
        one.rearm();
        one.wake();
        assert_eq!(inbox.try_next(), Some(1));
    }

    #[tokio::test]
    async fn news_wakes_a_waiting_connection() {
        let inbox = Inbox::default();
        let news = async {
            tokio::task::yield_now().await;
            Waiter::new(inbox.clone(), 7, Overflow::History, None).wake();
        };
        let (key, ()) = tokio::join!(inbox.next(), news);
        assert_eq!(key, 7);
    }
}
