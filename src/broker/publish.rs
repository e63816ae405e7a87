//! Publishing: the outcome is there at once, or comes later.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{Broker, ClientInfo, measures::Arrival};
use crate::{
    channel::{Channel, Error, NewMessage, Publication, Refusal, TopicName, spread_waits},
    engine::{Append, Reply},
};

/// The outcome of a publish, now or later. It is not ordered where the topic has to be made first.
pub type Publishing = Reply<Result<Publication, Error>>;

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

/// One message of a batch: the topic that it is meant for, where that could be read, and its result.
type BatchResult = (Option<TopicName>, Result<Publication, Error>);

/// Each message that was refused by its topic's rate is told a wait after which it is let through, if those of the batch
/// before it wait as they were told.
fn spread_waits_of_batch(results: &mut [BatchResult]) {
    let mut topics: HashMap<TopicName, (u32, Vec<&mut Duration>)> = HashMap::new();
    for (topic, result) in results {
        if let (Some(topic), Err(Error::RateLimited { per_second, wait })) = (topic, result) {
            let (rate, waits) = topics.entry(topic.clone()).or_default();
            *rate = *per_second;
            waits.push(wait);
        }
    }
    for (per_second, waits) in topics.into_values() {
        spread_waits(per_second, waits.into_iter());
    }
}

impl Broker {
    /// Publishes messages in their order, and returns their results in it. Each message is begun before the outcome of the
    /// one before it has come, unless that one is not ordered. One that is refused does not stop those after it.
    pub(super) async fn publish_many(
        &self,
        door: &'static str,
        items: impl Iterator<Item = Result<(TopicName, NewMessage), Error>>,
    ) -> Vec<Result<Publication, Error>> {
        let mut begun: Vec<(Option<TopicName>, Publishing)> = Vec::new();
        for item in items {
            let (topic, publishing) = match item {
                Ok((topic, new_message)) => {
                    let publishing = self.publish_from(Arrival::at(door), &topic, new_message);
                    (Some(topic), publishing)
                }
                Err(error) => (None, Err(error).into()),
            };
            begun.push((topic, if publishing.is_ordered() { publishing } else { publishing.await.into() }));
        }
        let mut results: Vec<BatchResult> = Vec::with_capacity(begun.len());
        for (topic, publishing) in begun {
            results.push((topic, publishing.await));
        }
        spread_waits_of_batch(&mut results);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Publishes a message; the outcome says where it stands. Messages published one after the other stand in that
    /// order, whether their outcomes are waited for or not, but for those that follow one that is not ordered
    /// ([`Reply::is_ordered`]).
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] (topics are not made on demand), [`Error::Conflict`], [`Error::RateLimited`],
    /// [`Error::LimitReached`], [`Error::Unavailable`]: nothing is stored then. [`Error::Unknown`]: perhaps.
    pub fn publish(&self, name: &TopicName, new_message: NewMessage) -> Publishing {
        self.publish_from(Arrival::at(ClientInfo::NONE.door), name, new_message)
    }

    /// [`Broker::publish`] of what has come by a door.
    pub(super) fn publish_from(&self, arrival: Arrival, name: &TopicName, new_message: NewMessage) -> Publishing {
        // Counted before the check whether the server stops: `drain` and `settled` look at them in the other order, so
        // that no publish slips through between the two.
        let in_flight = self.0.publishes.enter(self);
        if let Err(error) = self.check_not_draining() {
            return Err(self.refused(error)).into();
        }
        let channel = match self.find_or_create_now(name) {
            Ok(Some(channel)) => channel,
            Ok(None) => return Reply::unordered(self.publish_later(arrival, name, new_message, None, in_flight)),
            Err(error) => return Err(self.refused(error)).into(),
        };
        let bytes = new_message.data.len();
        match self.0.engine.append(&channel, new_message.clone()).now() {
            Ok(Ok(publication)) => {
                self.count(&publication, arrival, bytes);
                Ok(publication).into()
            }
            Ok(Err(Refusal::Error(error))) => {
                self.release_if_unused(&channel);
                Err(self.refused(error)).into()
            }
            // The topic was deleted between finding and appending.
            Ok(Err(Refusal::Closed)) => {
                Reply::unordered(self.publish_later(arrival, name, new_message, None, in_flight))
            }
            Err(later) => {
                Reply::pending(self.publish_later(arrival, name, new_message, Some((channel, later)), in_flight))
            }
        }
    }

    /// The way of a message whose topic has to be made, or whose engine takes its time.
    fn publish_later(
        &self,
        arrival: Arrival,
        name: &TopicName,
        new_message: NewMessage,
        mut begun: Option<(Arc<Channel>, Append)>,
        in_flight: Entered,
    ) -> impl Future<Output = Result<Publication, Error>> + Send + 'static {
        let (broker, name) = (self.clone(), name.clone());
        let bytes = new_message.data.len();
        async move {
            let _in_flight = in_flight;
            loop {
                let (channel, append) = match begun.take() {
                    Some(begun) => begun,
                    None => {
                        let channel = broker.find_or_create(&name).await.map_err(|error| broker.refused(error))?;
                        let append = broker.0.engine.append(&channel, new_message.clone());
                        (channel, append)
                    }
                };
                match append.await {
                    Ok(publication) => {
                        broker.count(&publication, arrival, bytes);
                        return Ok(publication);
                    }
                    // The topic was deleted between finding and storing: the next round finds what there is now.
                    Err(Refusal::Closed) => {}
                    Err(Refusal::Error(error)) => {
                        broker.release_if_unused(&channel);
                        return Err(broker.refused(error));
                    }
                }
            }
        }
    }

    /// Counts a refusal, and returns it.
    pub(super) fn refused(&self, error: Error) -> Error {
        self.0.measures.refused(&error);
        error
    }

    fn count(&self, publication: &Publication, arrival: Arrival, bytes: usize) {
        self.0.measures.published(arrival, bytes);
        if !publication.duplicate {
            self.0.published.fetch_add(1, Ordering::Relaxed);
        }
    }
}
