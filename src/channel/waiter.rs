//! Who waits for a topic's news.

use std::{
    ops::Deref,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    ConsumerName, Overflow,
    inbox::{Inbox, Notifier},
};

/// A subscription as its topic sees it.
pub struct Waiter {
    notifier: Notifier,
    /// How many of the topic's messages a subscription to one topic has passed; others only look.
    pub(crate) seen: AtomicU64,
    pub(crate) overflow: Overflow,
    pub(crate) consumer: Option<ConsumerName>,
    /// The name of the principal that has subscribed.
    pub(crate) principal: Option<Arc<str>>,
}

impl Waiter {
    /// For a subscription that the inbox's owner knows as `key`.
    #[must_use]
    pub fn new(inbox: Inbox, key: u64, overflow: Overflow, consumer: Option<ConsumerName>) -> Arc<Self> {
        Self::for_principal(None, inbox, key, overflow, consumer)
    }

    /// The same for a subscription of a principal that has this name.
    #[must_use]
    pub fn for_principal(
        principal: Option<Arc<str>>,
        inbox: Inbox,
        key: u64,
        overflow: Overflow,
        consumer: Option<ConsumerName>,
    ) -> Arc<Self> {
        Arc::new(Self { notifier: Notifier::new(inbox, key), seen: AtomicU64::new(0), overflow, consumer, principal })
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
