//! Publishing: the outcome is there at once, or comes later.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::Broker;
use crate::{
    channel::{Channel, Error, NewMessage, Publication, Refusal, TopicName},
    engine::{Append, Reply},
};

/// The outcome of a publish, now or later. It is not ordered where the topic has to be made first.
pub type Publishing = Reply<Result<Publication, Error>>;

/// Publishes in the order of `begin`'s items, and returns the outcomes in it: each message is begun before the outcome
/// of the one before it has come, unless that one is not ordered.
pub async fn publish_all(begin: impl Iterator<Item = Publishing>) -> Vec<Result<Publication, Error>> {
    let mut begun: Vec<Publishing> = Vec::new();
    for publishing in begin {
        begun.push(if publishing.is_ordered() { publishing } else { publishing.await.into() });
    }
    let mut results = Vec::with_capacity(begun.len());
    for publishing in begun {
        results.push(publishing.await);
    }
    results
}

/// The publishes whose outcome has not come yet.
#[derive(Default)]
pub(super) struct InFlight {
    count: AtomicUsize,
    none_left: Notify,
}

impl InFlight {
    fn enter(&self, broker: &Broker) -> Entered {
        self.count.fetch_add(1, Ordering::SeqCst);
        Entered(broker.clone())
    }

    /// Waits until there is none.
    pub async fn none_left(&self) {
        loop {
            let left = self.none_left.notified();
            let mut left = std::pin::pin!(left);
            left.as_mut().enable();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            left.await;
        }
    }
}

/// One publish whose outcome has not come yet.
struct Entered(Broker);

impl Drop for Entered {
    fn drop(&mut self) {
        let publishes = &self.0.0.publishes;
        if publishes.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            publishes.none_left.notify_waiters();
        }
    }
}

impl Broker {
    /// Publishes a message; the outcome says where it stands. Messages published one after the other stand in that
    /// order, whether their outcomes are waited for or not, but for those that follow one that is not ordered
    /// ([`Reply::is_ordered`]).
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] (topics are not made on demand), [`Error::Conflict`], [`Error::RateLimited`],
    /// [`Error::LimitReached`], [`Error::Unavailable`]: nothing is stored then. [`Error::Unknown`]: perhaps.
    pub fn publish(&self, name: &TopicName, new_message: NewMessage) -> Publishing {
        // Counted before the check whether the server stops: `drain` and `settled` look at them in the other order, so
        // that no publish slips through between the two.
        let in_flight = self.0.publishes.enter(self);
        if let Err(error) = self.check_not_draining() {
            return Err(error).into();
        }
        let channel = match self.find_or_create_now(name) {
            Ok(Some(channel)) => channel,
            Ok(None) => return Reply::unordered(self.publish_later(name, new_message, None, in_flight)),
            Err(error) => return Err(error).into(),
        };
        match self.0.engine.append(&channel, new_message.clone()).now() {
            Ok(Ok(publication)) => {
                self.count(&publication);
                Ok(publication).into()
            }
            Ok(Err(Refusal::Error(error))) => {
                self.release_if_unused(&channel);
                Err(error).into()
            }
            // The topic was deleted between finding and appending.
            Ok(Err(Refusal::Closed)) => Reply::unordered(self.publish_later(name, new_message, None, in_flight)),
            Err(later) => Reply::pending(self.publish_later(name, new_message, Some((channel, later)), in_flight)),
        }
    }

    /// The way of a message whose topic has to be made, or whose engine takes its time.
    fn publish_later(
        &self,
        name: &TopicName,
        new_message: NewMessage,
        mut begun: Option<(Arc<Channel>, Append)>,
        in_flight: Entered,
    ) -> impl Future<Output = Result<Publication, Error>> + Send + 'static {
        let (broker, name) = (self.clone(), name.clone());
        async move {
            let _in_flight = in_flight;
            loop {
                let (channel, append) = match begun.take() {
                    Some(begun) => begun,
                    None => {
                        let channel = broker.find_or_create(&name).await?;
                        let append = broker.0.engine.append(&channel, new_message.clone());
                        (channel, append)
                    }
                };
                match append.await {
                    Ok(publication) => {
                        broker.count(&publication);
                        return Ok(publication);
                    }
                    // The topic was deleted between finding and storing: the next round finds what there is now.
                    Err(Refusal::Closed) => {}
                    Err(Refusal::Error(error)) => {
                        broker.release_if_unused(&channel);
                        return Err(error);
                    }
                }
            }
        }
    }

    fn count(&self, publication: &Publication) {
        if !publication.duplicate {
            self.0.published.fetch_add(1, Ordering::Relaxed);
        }
    }
}
