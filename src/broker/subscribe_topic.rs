//! Subscribing to one topic: where the subscription begins, and how it waits for the topic.

use std::sync::Arc;

use super::{
    AnyCursor, Broker, Subscription,
    consumer::Lease,
    subscribe::Begin,
    subscription::Marker,
    topics::{ahead, is_ahead},
};
use crate::channel::{Channel, Cursor, Error, Start, TopicName};

/// Why the cursor of a pattern is refused.
pub(super) const TOPIC_CURSOR_NEEDED: &str = "is the cursor of a pattern; a topic takes a message's own cursor";

/// Where a subscription to a topic begins.
#[derive(Debug, PartialEq)]
struct TopicStart {
    start: Start,
    /// Whether that is the stored position of its consumer: it is kept, even if the topic was deleted meanwhile.
    is_stored: bool,
}

impl TopicStart {
    /// Chooses between where the client says it was, the stored position of its consumer, and where it wants to begin.
    fn choose(resume: Option<&Start>, stored: Option<Cursor>, asked: Option<&Start>) -> Self {
        match (resume, stored) {
            // The client knows best what it has received.
            (Some(resume), _) => Self { start: resume.clone(), is_stored: false },
            (None, Some(stored)) => Self { start: Start::After(stored), is_stored: true },
            (None, None) => Self { start: asked.cloned().unwrap_or(Start::Live), is_stored: false },
        }
    }
}

impl Broker {
    pub(super) async fn subscribe_topic(
        &self,
        name: &TopicName,
        begin: Begin<'_>,
        mut lease: Option<Lease>,
    ) -> Result<Subscription, Error> {
        let Begin { principal, start: asked, resume, waiter } = begin;
        if [&asked, &resume].into_iter().any(|start| matches!(start, Some(Start::AfterPattern(_)))) {
            return Err(Error::bad_request("after", TOPIC_CURSOR_NEEDED));
        }
        // The loop goes round when the topic was deleted meanwhile: the next round finds, or makes, what there is now.
        loop {
            let Some(topic) = self.find_and_pin(name).await? else { continue };
            let resumed = lease.as_ref().filter(|lease| lease.info.resumed);
            let stored = resumed.and_then(|lease| lease.cursors().remove(name));
            let beginning = TopicStart::choose(resume.as_ref(), stored, asked.as_ref());
            let Some(topic) = self.caught_up(name, topic, &beginning).await? else { continue };
            let mut subscription = self.attach(principal, &topic, waiter.clone(), &beginning.start);
            if topic.is_closed() {
                continue;
            }
            // A position of an earlier incarnation, or one that is gone, stays the consumer's until what was missed is
            // acknowledged.
            let begins_at = match (&beginning.start, &subscription.begins_at) {
                (Start::After(cursor), _) | (_, AnyCursor::Topic(cursor)) => *cursor,
                (_, AnyCursor::Pattern(_)) => continue,
            };
            subscription.begins_at = AnyCursor::Topic(begins_at);
            subscription.marker = Marker::of(asked.as_ref(), resume.is_some(), stored.is_some());
            if let Some(lease) = &mut lease {
                if !beginning.is_stored {
                    lease.begin(name, begins_at)?;
                }
                lease.info.cursor = Some(begins_at);
            }
            subscription.lease = lease;
            return Ok(subscription);
        }
    }

    /// The topic, pinned if it is one that goes away by itself. `None` if it went before it was pinned.
    async fn find_and_pin(&self, name: &TopicName) -> Result<Option<Arc<Channel>>, Error> {
        let topic = self.find_or_create(name).await?;
        if topic.is_implicit() && topic.never_published() {
            return match self.0.engine.pin(&topic).await {
                Ok(()) => Ok(Some(topic)),
                Err(Error::TopicNotFound(_)) => Ok(None),
                Err(error) => Err(error),
            };
        }
        Ok(Some(topic))
    }

    /// The topic, once this instance knows it up to where the subscription begins: another instance may have given the
    /// cursor out, or delivered further than this one knows yet. `None` if it was deleted and is to be made again.
    async fn caught_up(
        &self,
        name: &TopicName,
        topic: Arc<Channel>,
        beginning: &TopicStart,
    ) -> Result<Option<Arc<Channel>>, Error> {
        let cursor = match beginning.start {
            Start::After(cursor) => cursor,
            Start::Since(_) | Start::State => {
                self.0.engine.catch_up_to_newest().await?;
                return Ok(Some(topic));
            }
            _ => return Ok(Some(topic)),
        };
        let topic = match self.look_up(name, Some(cursor)).await {
            Err(Error::TopicNotFound(_)) if self.0.settings.auto_create_topics => return Ok(None),
            found => found?,
        };
        if !beginning.is_stored && is_ahead(&topic, cursor) {
            return Err(ahead("after"));
        }
        Ok(Some(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Epoch;

    #[test]
    fn who_knows_best_decides_where_to_begin() {
        let epoch = Epoch::random();
        let [own, stored] = [7, 3].map(|offset| Cursor { epoch, offset });
        let (resume, asked) = (Start::After(own), Start::Oldest);
        for (resume, stored, asked, start, is_stored) in [
            (Some(&resume), Some(stored), Some(&asked), &resume, false),
            (Some(&resume), None, None, &resume, false),
            (None, Some(stored), Some(&asked), &Start::After(stored), true),
            (None, None, Some(&asked), &asked, false),
            (None, None, None, &Start::Live, false),
        ] {
            let chosen = TopicStart::choose(resume, stored, asked);
            assert_eq!(chosen, TopicStart { start: start.clone(), is_stored });
        }
    }
}
