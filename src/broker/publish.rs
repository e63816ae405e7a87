//! Publishing: the answer comes at once, or later.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::Notify;

use super::{Broker, TopicSettings};
use crate::{
    channel::{Channel, Error, NewMessage, Publication, Refusal, TopicName},
    engine::Append,
};

/// The answer to a publish, now or later.
#[must_use]
pub enum Publishing {
    /// The answer; `None` once it was taken.
    Done(Option<Result<Publication, Error>>),
    /// The message has its place in the order, and the answer will come.
    Begun(Pin<Box<dyn Future<Output = Result<Publication, Error>> + Send>>),
    /// Its topic has to be made first: nothing happens unless this is polled, and what is to stand behind the message waits
    /// for the answer.
    Waiting(Pin<Box<dyn Future<Output = Result<Publication, Error>> + Send>>),
}

impl Future for Publishing {
    type Output = Result<Publication, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            // Polled again after its answer it stays silent, as a future may.
            Publishing::Done(answer) => answer.take().map_or(Poll::Pending, Poll::Ready),
            Publishing::Begun(later) | Publishing::Waiting(later) => later.as_mut().poll(cx),
        }
    }
}

impl From<Result<Publication, Error>> for Publishing {
    fn from(result: Result<Publication, Error>) -> Self {
        Publishing::Done(Some(result))
    }
}

/// Publishes in the order of `begin`'s items, and answers in it: each message is begun before the answer to the one before it
/// has come, unless that one holds it back.
pub async fn publish_all(begin: impl Iterator<Item = Publishing>) -> Vec<Result<Publication, Error>> {
    let mut begun: Vec<Publishing> = Vec::new();
    for publishing in begin {
        begun.push(match publishing {
            waiting @ Publishing::Waiting(_) => waiting.await.into(),
            publishing => publishing,
        });
    }
    let mut results = Vec::with_capacity(begun.len());
    for publishing in begun {
        results.push(publishing.await);
    }
    results
}

/// The publishes that are not answered yet.
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

/// One publish that is not answered yet.
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
    /// Publishes a message; the answer says where it stands. Messages published one after the other stand in that order,
    /// whether their answers are waited for or not, but for those that follow one that is [`Publishing::Waiting`].
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] (topics are not made on demand), [`Error::Conflict`], [`Error::RateLimited`],
    /// [`Error::LimitReached`], [`Error::Unavailable`]: nothing is stored then. [`Error::Unknown`]: perhaps.
    pub fn publish(&self, name: &TopicName, new_message: NewMessage) -> Publishing {
        // Counted before it is looked whether the server stops: who stops looks at them in the other order.
        let in_flight = self.0.publishes.enter(self);
        if let Err(error) = self.check_not_draining() {
            return Err(error).into();
        }
        let channel = match self.registry_or_new(name) {
            Ok(Some(channel)) => channel,
            Ok(None) => return Publishing::Waiting(self.publish_later(name, new_message, None, in_flight)),
            Err(error) => return Err(error).into(),
        };
        match self.0.engine.append(&channel, new_message.clone()) {
            Append::Done(Some(Ok(publication))) => {
                self.count(&publication);
                Ok(publication).into()
            }
            Append::Done(Some(Err(Refusal::Error(error)))) => {
                self.forget_if_unused(&channel);
                Err(error).into()
            }
            // Deleted between finding and appending.
            Append::Done(_) => Publishing::Waiting(self.publish_later(name, new_message, None, in_flight)),
            later @ Append::Later(_) => {
                Publishing::Begun(self.publish_later(name, new_message, Some((channel, later)), in_flight))
            }
        }
    }

    /// The topic, if it is there, or if it can be made without waiting.
    fn registry_or_new(&self, name: &TopicName) -> Result<Option<Arc<Channel>>, Error> {
        if let Some(channel) = self.0.registry.find(name) {
            return Ok(Some(channel));
        }
        if self.0.settings.auto_create_topics {
            self.check_writable()?;
            self.check_makeable(name)?;
            // An engine that makes topics at once has made it when this returns; what it answers is told by the append.
            drop(self.0.engine.create(name, Self::spec(true, TopicSettings::default())));
        }
        Ok(self.0.registry.find(name))
    }

    /// The way of a message whose topic has to be made, or whose engine takes its time.
    fn publish_later(
        &self,
        name: &TopicName,
        new_message: NewMessage,
        mut begun: Option<(Arc<Channel>, Append)>,
        in_flight: Entered,
    ) -> Pin<Box<dyn Future<Output = Result<Publication, Error>> + Send>> {
        let (broker, name) = (self.clone(), name.clone());
        Box::pin(async move {
            let _in_flight = in_flight;
            loop {
                let (channel, append) = match begun.take() {
                    Some(begun) => begun,
                    None => {
                        let channel = broker.find_or_make(&name).await?;
                        let append = broker.0.engine.append(&channel, new_message.clone());
                        (channel, append)
                    }
                };
                match append.await {
                    Ok(publication) => {
                        broker.count(&publication);
                        return Ok(publication);
                    }
                    // Deleted between finding and storing: the next look finds what there is now.
                    Err(Refusal::Closed) => {}
                    Err(Refusal::Error(error)) => {
                        broker.forget_if_unused(&channel);
                        return Err(error);
                    }
                }
            }
        })
    }

    fn count(&self, publication: &Publication) {
        if !publication.duplicate {
            self.0.published.fetch_add(1, Ordering::Relaxed);
        }
    }
}
