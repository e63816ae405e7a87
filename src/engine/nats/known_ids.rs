//! Publishers' ids that came with an import, without their messages.
//!
//! The cluster reports a repeated id as a duplicate if a message of the stream has it. So each of these ids gets an
//! empty message on a subject of its own below its topic's subject. No topic reads these subjects, but every instance
//! follows them and remembers the ids. When the stream has forgotten an id, its message is removed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{HeaderMap, header};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Inner, NOT_NOW,
    follow::Item,
    names::{AT_HEADER, END, KNOWN, class_in, encode},
    store::BUDGET,
};
use crate::channel::{Channel, Error, KnownId, Timestamp};

/// How many ids are in flight at once.
const IN_FLIGHT_IDS: usize = 1_024;

/// The pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Ids that were stored within so many milliseconds are removed together.
const GROUP_MS: i64 = 10_000;

/// An id's message is removed so many milliseconds after the stream has forgotten the id, because clocks differ.
const CLOCK_SLACK_MS: i64 = 60_000;

/// How long one removal may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the topic's token if this subject makes an id known.
pub(super) fn token(key: &str) -> Option<&str> {
    let (token, _) = key.split_once(KNOWN)?;
    (!key.ends_with(END)).then_some(token)
}

/// The newest sequence of the messages that make ids known, by class and by the time at which they were stored.
#[derive(Default)]
pub(super) struct Stored(Mutex<BTreeMap<(usize, i64), u64>>);

impl Stored {
    pub fn note(&self, class: usize, item: &Item) {
        let mut stored = self.0.lock();
        let newest = stored.entry((class, item.at.0.div_euclid(GROUP_MS))).or_default();
        *newest = item.sequence.max(*newest);
    }

    /// Called when the stream of a class was created again.
    pub fn reset(&self, class: usize) {
        self.0.lock().retain(|(other, _), _| *other != class);
    }

    /// Returns for each class the newest message whose id has expired.
    fn expired(&self, window: Duration) -> BTreeMap<usize, u64> {
        let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        let now = Timestamp::now().0.saturating_sub(CLOCK_SLACK_MS);
        let is_expired = |time: i64| (time + 1).saturating_mul(GROUP_MS).saturating_add(window) < now;
        let stored = self.0.lock();
        let mut expired = BTreeMap::new();
        for ((class, _), sequence) in stored.iter().filter(|((_, time), _)| is_expired(*time)) {
            let newest: &mut u64 = expired.entry(*class).or_default();
            *newest = (*sequence).max(*newest);
        }
        expired
    }

    fn removed(&self, class: usize, upto: u64) {
        self.0.lock().retain(|(other, _), sequence| *other != class || *sequence > upto);
    }
}

impl Inner {
    /// Makes ids known in the stream of their topic, and on this instance.
    pub async fn remember(self: &Arc<Self>, channel: &Arc<Channel>, ids: &[KnownId]) -> Result<(), Error> {
        let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
        let class = class_in(channel);
        let prefix = format!("{}{KNOWN}", self.names.subject(class, channel.name()));
        for ids in ids.chunks(IN_FLIGHT_IDS) {
            self.check()?;
            if channel.is_closed() {
                return Err(gone());
            }
            let ids: Vec<_> = ids.iter().filter(|known| known.is_within(self.dedup_window)).collect();
            let newest = self.store_ids(&prefix, channel, ids).await?;
            let read = timeout(BUDGET, self.progress(class).wait(newest)).await;
            read.map_err(|_| Error::Unavailable(NOT_NOW))?;
        }
        if channel.is_closed() { Err(gone()) } else { Ok(()) }
    }

    /// Retries until all ids are stored, or were stored before. Returns the newest sequence.
    async fn store_ids(&self, prefix: &str, channel: &Channel, mut ids: Vec<&KnownId>) -> Result<u64, Error> {
        let begun = Instant::now();
        let mut newest = 0;
        while !ids.is_empty() {
            if begun.elapsed() > BUDGET {
                return Err(Error::Unavailable(NOT_NOW));
            }
            // Without a connection the client may send what it is given much later.
            if !self.link.is_up() {
                sleep(RETRY_PAUSE).await;
                continue;
            }
            let mut sent = Vec::with_capacity(ids.len());
            for known in ids {
                let id = encode(known.id.as_str());
                let mut headers = HeaderMap::new();
                headers.insert(header::NATS_MESSAGE_ID, format!("{}.{id}", channel.epoch()));
                headers.insert(AT_HEADER, known.at.0.to_string());
                let subject = format!("{prefix}{id}");
                sent.push((known, self.link.jetstream.publish_with_headers(subject, headers, Bytes::new()).await));
            }
            let mut again = Vec::new();
            for (known, sent) in sent {
                let response = match sent {
                    Ok(response) => response.await,
                    Err(error) => Err(error),
                };
                match response {
                    Ok(stored) if stored.sequence > 0 => newest = stored.sequence.max(newest),
                    // A message with this id is being stored at this moment.
                    Ok(_) => again.push(known),
                    Err(error) => {
                        tracing::debug!(%error, topic = %channel.name(), "an id could not be stored; it is tried again");
                        again.push(known);
                    }
                }
            }
            ids = again;
            if !ids.is_empty() {
                sleep(RETRY_PAUSE).await;
            }
        }
        Ok(newest)
    }

    /// Removes the messages of ids that their streams have forgotten. Every instance does this, and the first one
    /// finds them.
    pub(super) async fn remove_known_ids(&self, window: Duration) {
        for (class, upto) in self.known_ids.expired(window) {
            let stream = self.link.jetstream.get_stream_no_info(self.names.stream(class)).await;
            let Ok(stream) = stream else { continue };
            let removing = stream.purge().filter(self.names.known_ids(class)).sequence(upto + 1);
            match timeout(REQUEST_TIMEOUT, removing).await {
                Ok(Ok(_)) => self.known_ids.removed(class, upto),
                Ok(Err(error)) => tracing::debug!(%error, "expired ids could not be removed; they are removed later"),
                Err(_) => tracing::debug!("expired ids could not be removed; they are removed later"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_ids_are_distinguished_from_others() {
        assert_eq!(token("news.id.goal=201"), Some("news"));
        for other in ["news", "news.end", "news.id", "news.idea.x", "a=2Eid=2Ex", "news.id.x.end"] {
            assert_eq!(token(other), None, "{other}");
        }
    }

    #[test]
    fn ids_that_were_stored_together_expire_together_and_not_too_early() {
        let stored = Stored::default();
        let ago = |seconds: i64| Timestamp(Timestamp::now().0 - seconds * 1_000);
        let item = |sequence, at| Item { sequence, key: String::new(), headers: None, payload: Bytes::new(), at };
        for (sequence, age) in [(1, 900), (2, 899), (7, 500), (9, 340), (12, 0)] {
            stored.note(1_000, &item(sequence, ago(age)));
        }
        stored.note(10_000, &item(3, ago(800)));
        let window = Duration::from_secs(300);
        assert_eq!(stored.expired(window), BTreeMap::from([(1_000, 7), (10_000, 3)]));
        stored.removed(1_000, 7);
        assert_eq!(stored.expired(window), BTreeMap::from([(10_000, 3)]));
        stored.reset(10_000);
        assert!(stored.expired(window).is_empty());
        assert_eq!(stored.expired(Duration::ZERO), BTreeMap::from([(1_000, 9)]));
    }
}
