//! The way of a message from a publisher into the queue of those that are sent.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Inner,
    link::Link,
    messages,
    names::{class_in, encode},
    publish::{self, Outgoing},
    store::BUDGET,
    topics::sync,
};
use crate::{
    channel::{Channel, Error, NewMessage, Publication, Refusal},
    engine::Append,
};

/// The pause before a condition on a key is tried again after other messages have changed the topic.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// What a message needs on its way into the cluster.
#[derive(Clone)]
pub(super) struct Sending {
    pub inner: Arc<Inner>,
    pub queue: mpsc::Sender<Outgoing>,
}

/// An outcome that comes later.
fn later(answered: oneshot::Receiver<Result<Publication, Refusal>>) -> Append {
    Append::pending(async move {
        answered.await.unwrap_or_else(|_| Err(Error::Unavailable("the server is shutting down").into()))
    })
}

impl Sending {
    /// Puts a message into the queue.
    pub fn append(&self, channel: &Arc<Channel>, new_message: NewMessage) -> Append {
        if new_message.expected_key_offset.is_some() {
            return Append::pending(self.clone().append_on_key(channel.clone(), new_message));
        }
        self.begin(channel, &new_message).unwrap_or_else(|refusal| Err(refusal).into())
    }

    /// Publishes a message whose key has to have the offset that the publisher expects. The cluster knows no keys: so this
    /// instance learns everything that the cluster has, looks at the key, and publishes only if nothing has followed in the
    /// topic. If something has, it looks again.
    async fn append_on_key(self, channel: Arc<Channel>, new_message: NewMessage) -> Result<Publication, Refusal> {
        let begun = Instant::now();
        let class = class_in(&channel);
        let (stream, progress) = (self.inner.names.stream(class), self.inner.progress(class));
        let link: &Link = &self.inner.link;
        loop {
            if let Some(first) = channel.check_append(&new_message)? {
                return Ok(first);
            }
            self.inner.check()?;
            sync(link, &stream, &progress).await?;
            // The message itself may have come meanwhile by another instance: an id goes before a condition.
            if let Some(first) = channel.check_append(&new_message)? {
                return Ok(first);
            }
            let newest = channel.check_conditions(&new_message)?;
            let conditional =
                NewMessage { expected_offset: Some(newest), expected_key_offset: None, ..new_message.clone() };
            match self.begin(&channel, &conditional)?.await {
                Err(Refusal::Error(Error::Conflict { .. })) if begun.elapsed() < BUDGET => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(Refusal::Error(Error::Conflict { .. })) => {
                    let error = Error::Unavailable("too many others publish to the topic; nothing was stored");
                    return Err(error.into());
                }
                outcome => return outcome,
            }
        }
    }

    fn begin(&self, channel: &Arc<Channel>, new_message: &NewMessage) -> Result<Append, Refusal> {
        let inner = &self.inner;
        if let Some(first) = channel.check_append(new_message)? {
            return Ok(Ok(first).into());
        }
        inner.check()?;
        let is_first = channel.is_implicit() && channel.never_published();
        let pin = is_first && inner.topics.is_others(&encode(channel.name().as_str()), &inner.instance);
        let class = class_in(channel);
        let (id, returns) = (new_message.message_id(), new_message.origin.is_some());
        // Where one has a condition that does not hold, another one without it may be stored.
        let given = new_message.id.is_some() && new_message.expected_offset.is_none();
        if given && let Some(answered) = inner.same_id.enter(channel, &id) {
            return Ok(later(answered));
        }
        let (answer, answered) = oneshot::channel();
        let outgoing = Outgoing {
            subject: inner.names.subject(class, channel.name()),
            headers: publish::marked(messages::headers(channel, &id, new_message), new_message),
            payload: new_message.data.as_bytes(),
            id,
            channel: channel.clone(),
            begun: Instant::now(),
            known_before: channel.last(),
            progress: inner.progress(class),
            stream: inner.names.stream(class),
            expected: new_message.expected_offset,
            pin: pin.then(|| inner.clone()),
            given: given.then(|| inner.clone()),
            answer,
            on_its_way: inner.in_flight.token(),
        };
        if let Err(error) = channel.reserve_rate(returns) {
            outgoing.left(&Err(error.clone().into()));
            return Err(error.into());
        }
        self.queue.try_send(outgoing).map_err(|refused| {
            channel.release_rate();
            let (outgoing, why) = match refused {
                mpsc::error::TrySendError::Full(outgoing) => (outgoing, "NATS does not keep up; nothing was stored"),
                mpsc::error::TrySendError::Closed(outgoing) => (outgoing, "the server is shutting down"),
            };
            outgoing.left(&Err(Error::Unavailable(why).into()));
            Error::Unavailable(why)
        })?;
        Ok(later(answered))
    }
}
