//! How a connection learns which of its subscriptions have something to read.
//!
//! A connection owns one inbox; each subscription that has news stands in it once, in the order in which the news came.
//! The connection takes a turn with the first, reads a bounded batch, and puts it back at the end when there is more:
//! so a hot topic cannot starve a quiet one, and waking costs the same with one subscription or a thousand.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::{ConsumerName, Overflow};

/// The connection's end.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Shared>);

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    ready: VecDeque<u64>,
    waker: Option<Waker>,
}

impl Inbox {
    /// Waits for the next subscription that has something; answers the key it was subscribed under. A key may come
    /// although its subscription has nothing, or is gone.
    pub async fn next(&self) -> u64 {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Inbox::next`] for those who are polled.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<u64> {
        let mut state = self.0.0.lock();
        if let Some(key) = state.ready.pop_front() {
            return Poll::Ready(key);
        }
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The next key, if there is one now.
    #[must_use]
    pub fn try_next(&self) -> Option<u64> {
        self.0.0.lock().ready.pop_front()
    }

    /// Says that there is something under `key`.
    pub fn wake(&self, key: u64) {
        let waker = {
            let mut state = self.0.0.lock();
            state.ready.push_back(key);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The subscription's end.
pub struct Waiter {
    inbox: Inbox,
    key: u64,
    queued: AtomicBool,
    /// How many of the topic's messages a subscription to one topic has passed; others only look.
    pub(crate) seen: AtomicU64,
    pub(crate) overflow: Overflow,
    pub(crate) consumer: Option<ConsumerName>,
}

impl Waiter {
    /// For a subscription that the inbox's owner knows as `key`.
    #[must_use]
    pub fn new(inbox: Inbox, key: u64, overflow: Overflow, consumer: Option<ConsumerName>) -> Arc<Self> {
        Arc::new(Self { inbox, key, queued: AtomicBool::new(false), seen: AtomicU64::new(0), overflow, consumer })
    }

    /// There is something to read. Does nothing while the subscription already stands in the inbox.
    pub fn wake(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.inbox.wake(self.key);
        }
    }

    /// To be called before reading: news from here on wakes again.
    pub(crate) fn rearm(&self) {
        self.queued.store(false, Ordering::Release);
        // Pairs with the publisher's append-then-wake: either it sees the flag down and wakes, or the read that follows
        // sees its message. The ring's lock orders the two; the fence keeps the store from passing it.
        std::sync::atomic::fence(Ordering::SeqCst);
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
