//! Creating, changing and deleting topics. Each of these is one conditional write to the registry.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Inner, NOT_NOW, link,
    messages::end_headers,
    names::{CLASSES, END, KNOWN, class_in, class_of, encode},
    store::{BUDGET, Put},
    topics::{EndingIncarnation, KnownTopic, TopicEntry, sync},
};
use crate::channel::{Channel, Epoch, Error, Timestamp, TopicConfig, TopicName};

/// The pause between two attempts to mark an end.
const MARK_PAUSE: Duration = Duration::from_millis(250);

impl Inner {
    pub async fn create(
        self: &Arc<Self>,
        name: &TopicName,
        config: TopicConfig,
        implicit: bool,
    ) -> Result<Arc<Channel>, Error> {
        self.check()?;
        let class = class_of(config.bounds(self.topics.registry.defaults()).max_messages).ok_or_else(too_long)?;
        self.ensure_class(class).await?;
        self.progress(class);
        let token = encode(name.as_str());
        let epoch = Epoch::random();
        let entry = TopicEntry {
            name: name.as_str().to_owned(),
            epoch: epoch.to_string(),
            created_at: Timestamp::now().0,
            implicit,
            config,
            class,
            owner: if implicit { self.instance.clone() } else { String::new() },
            before: None,
        };
        let begun = Instant::now();
        loop {
            let known = self.topics.get(&token);
            match &known {
                // An earlier attempt has written it and got no response.
                Some(KnownTopic { channel: Some(channel), .. }) if channel.epoch() == epoch => {
                    return Ok(channel.clone());
                }
                Some(KnownTopic { entry: Some(_), channel, .. }) => {
                    if channel.as_ref().is_some_and(|channel| !channel.is_closed()) {
                        return Err(Error::TopicExists(name.clone()));
                    }
                    // The topic is being released at this moment, or is about to get another incarnation.
                    self.topics.sync(&self.link).await?;
                    sleep(Duration::from_millis(20)).await;
                }
                Some(KnownTopic { entry: None, .. }) | None => {
                    let (expected, before) = known.map_or((0, None), |known| (known.revision, known.end));
                    let entry = TopicEntry { before, ..entry.clone() };
                    self.topics.write(&self.link, &token, &entry, expected).await?;
                }
            }
            if begun.elapsed() > BUDGET {
                return Err(Error::Unavailable(NOT_NOW));
            }
        }
    }

    pub async fn update(&self, channel: &Arc<Channel>, change: TopicConfig, adopt: bool) -> Result<(), Error> {
        self.check()?;
        let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
        let token = &encode(channel.name().as_str());
        let begun = Instant::now();
        loop {
            let known = self.topics.get(token).ok_or_else(gone)?;
            let (Some(entry), Some(current)) = (&known.entry, &known.channel) else { return Err(gone()) };
            if !Arc::ptr_eq(current, channel) {
                return Err(gone());
            }
            if adopt && !entry.implicit {
                return Err(Error::TopicExists(channel.name().clone()));
            }
            let config = change.or(entry.config);
            if config.max_messages.is_some_and(|count| count > entry.class) {
                return Err(Error::bad_request(
                    "maxMessages",
                    format!("this topic's history can be enlarged to {} at most; create it anew for more", entry.class),
                ));
            }
            let entry =
                TopicEntry { owner: String::new(), implicit: entry.implicit && !adopt, config, ..entry.clone() };
            match self.topics.write(&self.link, token, &entry, known.revision).await? {
                Put::Stored(_) => return Ok(()),
                Put::Conflict if begun.elapsed() > BUDGET => return Err(Error::Unavailable(NOT_NOW)),
                // Another instance has changed the topic, or an earlier attempt has written this change and got no
                // response.
                Put::Conflict => {}
            }
        }
    }

    pub async fn delete(self: &Arc<Self>, channel: &Arc<Channel>) -> Result<(), Error> {
        self.check()?;
        let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
        let token = &encode(channel.name().as_str());
        let class = class_in(channel);
        // Only messages that this instance knows are removed. Others stay in the stream and belong to no topic.
        let _ = sync(&self.link, &self.names.stream(class), &self.progress(class)).await;
        let begun = Instant::now();
        let last = loop {
            let known = self
                .topics
                .get(token)
                .filter(|known| known.channel.as_ref().is_some_and(|current| Arc::ptr_eq(current, channel)));
            let Some(known) = known else {
                // Another instance has deleted it, or an earlier attempt of this call, whose response was lost.
                return if begun.elapsed() > link::ATTEMPT_TIMEOUT { Ok(()) } else { Err(gone()) };
            };
            let end = known.end_now().ok_or_else(gone)?;
            match self.topics.delete(&self.link, token, Some(&end), known.revision).await? {
                Put::Stored(_) => break end.last,
                Put::Conflict if begun.elapsed() > BUDGET => return Err(Error::Unavailable(NOT_NOW)),
                Put::Conflict => {}
            }
        };
        // The topic is deleted. If its end cannot be marked now, the background task goes on.
        let ended = EndingIncarnation { channel: channel.clone(), last };
        let _ = timeout(BUDGET, self.end(ended)).await;
        let subject = format!("{}{token}", self.names.stored(class));
        let (link, stream) = (self.link.clone(), self.names.stream(class));
        let seen = self.progress(class).seen();
        self.in_flight.spawn(async move {
            let purge = async {
                let stream = link.jetstream.get_stream_no_info(stream).await.map_err(|error| error.to_string())?;
                let ids = stream.purge().filter(format!("{subject}{KNOWN}*")).sequence(seen + 1).await;
                let purged = stream.purge().filter(subject).sequence(last + 1).await;
                ids.and(purged).map_err(|error| error.to_string())
            };
            // Messages that stay belong to no topic, and whichever instance reads them deletes them.
            if let Err(error) = purge.await {
                tracing::debug!(error, "a deleted topic's messages could not be removed; they are removed later");
            }
        });
        Ok(())
    }

    /// Ends in the background an incarnation that is over in the registry.
    pub fn end_soon(self: &Arc<Self>, ended: EndingIncarnation) {
        let inner = self.clone();
        self.tasks.spawn(async move { inner.stop.run_until_cancelled(inner.end(ended)).await });
    }

    /// Ends an incarnation that is over in the registry. Registry and stream have no common order, so the stream gets
    /// a marker. On every instance, messages before the marker belong to this incarnation and messages after it to
    /// none. Every instance that learns of the deletion writes the marker. The first one counts, and the cluster
    /// drops the others as duplicates.
    async fn end(self: &Arc<Self>, EndingIncarnation { channel, last }: EndingIncarnation) {
        let token = &encode(channel.name().as_str());
        let class = class_in(&channel);
        let subject = format!("{}{token}{END}", self.names.stored(class));
        let marked = loop {
            // Another instance may have written the marker meanwhile.
            if channel.is_closed() {
                return;
            }
            if self.link.is_up() {
                let (subject, headers) = (subject.clone(), end_headers(&channel, last));
                let sent = self.link.jetstream.publish_with_headers(subject, headers, Bytes::new()).await;
                let response = match sent {
                    Ok(response) => response.await,
                    Err(error) => Err(error),
                };
                match response {
                    Ok(marked) if marked.sequence > 0 => break marked.sequence,
                    // Another instance is writing the marker.
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, topic = %channel.name(), "a topic's end could not be marked; it is tried again");
                    }
                }
            }
            sleep(MARK_PAUSE).await;
        };
        self.progress(class).wait(marked).await;
        // The marker may have passed before this instance knew of the incarnation.
        self.topics.end(&channel);
    }

    pub fn release(self: &Arc<Self>, channel: &Arc<Channel>) {
        let token = &encode(channel.name().as_str());
        let Some(known) = self.topics.get(token) else { return };
        // Another instance may need it. It is deleted when no instance has refreshed it for long.
        let own = known.entry.as_ref().is_some_and(|entry| entry.implicit && entry.owner == self.instance);
        if !own || !self.topics.registry.remove_unused(channel, || {}) {
            return;
        }
        let (inner, token) = (self.clone(), token.clone());
        self.in_flight.spawn(async move {
            let deleted = inner.topics.delete(&inner.link, &token, known.end_now().as_ref(), known.revision).await;
            if !matches!(deleted, Ok(Put::Stored(_))) {
                // It is still in the registry, so it must be here, too.
                inner.topics.put_back(&token);
            }
        });
    }

    /// Pins an implicit topic of another instance: notes in the registry that this instance needs it, so that the
    /// other one does not release it.
    pub async fn pin(&self, channel: &Arc<Channel>) -> Result<(), Error> {
        let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
        let token = &encode(channel.name().as_str());
        let begun = Instant::now();
        while begun.elapsed() < BUDGET {
            let known = self.topics.get(token).ok_or_else(gone)?;
            let Some(entry) = known.entry.filter(|_| known.channel.is_some()) else { return Err(gone()) };
            if !entry.implicit || entry.owner.is_empty() || entry.owner == self.instance {
                return Ok(());
            }
            let shared = TopicEntry { owner: String::new(), ..entry };
            if let Put::Stored(_) = self.topics.write(&self.link, token, &shared, known.revision).await? {
                return Ok(());
            }
        }
        Err(Error::Unavailable(NOT_NOW))
    }
}

fn too_long() -> Error {
    let most = CLASSES.last().copied().unwrap_or(0);
    Error::bad_request("maxMessages", format!("must be at most {most} with ENGINE=nats"))
}
