//! How a connection learns which of its subscriptions have something to read.
//!
//! A connection owns one inbox; each subscription that has news stands in it once, in the order in which the news came.
//! The connection takes the first, reads a bounded batch, and puts it back at the end when there is more. So a hot
//! topic cannot starve a quiet one, and waking costs the same with one subscription or a thousand.
//!
//! `tests/wake_model.rs` includes this file over the primitives of a model checker, which tries every order of events.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use super::sync::{Arc, AtomicBool, Mutex, Ordering, Owner};

/// The connection's end.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Shared>);

#[derive(Default)]
struct Shared {
    keys: Mutex<ReadyKeys>,
    owner: Owner,
}

#[derive(Default)]
struct ReadyKeys {
    ready: VecDeque<u64>,
    waker: Option<Waker>,
}

impl Inbox {
    /// Waits for the next subscription that has something, and returns the key it was subscribed under. A key may come
    /// although its subscription has nothing, or is gone.
    pub async fn next(&self) -> u64 {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Inbox::next`] for those who are polled.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<u64> {
        let mut state = self.0.keys.lock();
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
        self.0.keys.lock().ready.pop_front()
    }

    /// The connection itself, for those who can deliver to it directly.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.0.owner
    }

    /// Says that there is something under `key`.
    pub fn wake(&self, key: u64) {
        let waker = {
            let mut state = self.0.keys.lock();
            state.ready.push_back(key);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A subscription's end: puts its key into the inbox once, until [`Notifier::rearm`].
pub struct Notifier {
    inbox: Inbox,
    key: u64,
    queued: AtomicBool,
}

impl Notifier {
    /// For a subscription that the inbox's owner knows as `key`.
    #[must_use]
    pub fn new(inbox: Inbox, key: u64) -> Self {
        Self { inbox, key, queued: AtomicBool::new(false) }
    }

    /// There is something to read. Does nothing while the subscription already stands in the inbox.
    pub fn wake(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.inbox.wake(self.key);
        }
    }

    /// There is something to read: delivers it at once if the connection is idle, and wakes it if not. Does nothing while the
    /// subscription stands in the inbox, because the connection then reads it by itself.
    pub fn deliver(&self) {
        if !self.queued.load(Ordering::Acquire) && !self.inbox.owner().deliver(self.key) {
            self.wake();
        }
    }

    /// To be called before reading: news from here on wakes again.
    ///
    /// The lock of what is read does the rest. A publisher whose message the read does not see takes that lock after
    /// the reader, so it finds the flag down and wakes. What stands under no lock (a consumer was taken over, the
    /// subscription is to end) is written before [`Notifier::wake`]: either that finds the flag down, or this finds it up and
    /// with it what was written before.
    pub fn rearm(&self) {
        self.queued.swap(false, Ordering::AcqRel);
    }
}
