//! Publishers' ids that came with an import, without their messages.
//!
//! The cluster answers a repeated id as a duplicate if a message of the stream has it. So each of these ids gets one, on a
//! subject of its own below its topic's, that no topic reads: the same for all instances, which take note of the id. When
//! the stream has forgotten it, the message is removed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{HeaderMap, header};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Inner, NOT_NOW,
    follow::Item,
    names::{AT, END, KNOWN, class_in, encode},
    store::BUDGET,
};
use crate::channel::{Channel, Error, KnownId, Timestamp};

/// Ids that are on their way at once.
const AT_ONCE: usize = 1_024;

/// What is waited between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Ids that were stored within so many milliseconds are removed together.
const TOGETHER: i64 = 10_000;

/// An id's message is removed so many milliseconds after the stream has forgotten the id: clocks differ.
const SLACK: i64 = 60_000;

/// How long one removal may take.
const QUESTION: Duration = Duration::from_secs(5);

/// The topic's token, if this makes an id known.
pub(super) fn token(key: &str) -> Option<&str> {
    let (token, _) = key.split_once(KNOWN)?;
    (!key.ends_with(END)).then_some(token)
}

/// The newest of the messages that make ids known, for each class and time at which they were stored.
#[derive(Default)]
pub(super) struct Stored(Mutex<BTreeMap<(usize, i64), u64>>);

impl Stored {
    pub fn note(&self, class: usize, item: &Item) {
        let mut stored = self.0.lock();
        let newest = stored.entry((class, item.at.0.div_euclid(TOGETHER))).or_default();
        *newest = item.sequence.max(*newest);
    }

    /// The stream of a class was made again.
    pub fn reset(&self, class: usize) {
        self.0.lock().retain(|(other, _), _| *other != class);
    }

    /// Of each class, the newest message whose time is over.
    fn over(&self, window: Duration) -> BTreeMap<usize, u64> {
        let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        let now = Timestamp::now().0.saturating_sub(SLACK);
        let is_over = |time: i64| (time + 1).saturating_mul(TOGETHER).saturating_add(window) < now;
        let stored = self.0.lock();
        let mut over = BTreeMap::new();
        for ((class, _), sequence) in stored.iter().filter(|((_, time), _)| is_over(*time)) {
            let newest: &mut u64 = over.entry(*class).or_default();
            *newest = (*sequence).max(*newest);
        }
        over
    }

    fn removed(&self, class: usize, upto: u64) {
        self.0.lock().retain(|(other, _), sequence| *other != class || *sequence > upto);
    }
}

impl Inner {
    /// Makes ids known in the stream of their topic, and here.
    pub async fn remember(self: &Arc<Self>, channel: &Arc<Channel>, ids: &[KnownId]) -> Result<(), Error> {
        let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
        let class = class_in(channel);
        let prefix = format!("{}{KNOWN}", self.names.subject(class, channel.name()));
        for ids in ids.chunks(AT_ONCE) {
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

    /// Tries until all of them are stored; an id that is stored already is as good. Returns the newest place.
    async fn store_ids(&self, prefix: &str, channel: &Channel, mut ids: Vec<&KnownId>) -> Result<u64, Error> {
        let begun = Instant::now();
        let mut newest = 0;
        while !ids.is_empty() {
            if begun.elapsed() > BUDGET {
                return Err(Error::Unavailable(NOT_NOW));
            }
            // What is handed to the client without a connection may be sent much later.
            if !self.link.is_up() {
                sleep(PAUSE).await;
                continue;
            }
            let mut sent = Vec::with_capacity(ids.len());
            for known in ids {
                let id = encode(known.id.as_str());
                let mut headers = HeaderMap::new();
                headers.insert(header::NATS_MESSAGE_ID, format!("{}.{id}", channel.epoch()));
                headers.insert(AT, known.at.0.to_string());
                let subject = format!("{prefix}{id}");
                sent.push((known, self.link.jetstream.publish_with_headers(subject, headers, Bytes::new()).await));
            }
            let mut again = Vec::new();
            for (known, sent) in sent {
                let answer = match sent {
                    Ok(answer) => answer.await,
                    Err(error) => Err(error),
                };
                match answer {
                    Ok(stored) if stored.sequence > 0 => newest = stored.sequence.max(newest),
                    // It is being stored at this moment.
                    Ok(_) => again.push(known),
                    Err(error) => {
                        tracing::debug!(%error, topic = %channel.name(), "an id is stored once more");
                        again.push(known);
                    }
                }
            }
            ids = again;
            if !ids.is_empty() {
                sleep(PAUSE).await;
            }
        }
        Ok(newest)
    }

    /// Removes the messages of ids that their streams have forgotten. Every instance does; the first one finds them.
    pub(super) async fn remove_known_ids(&self, window: Duration) {
        for (class, upto) in self.known_ids.over(window) {
            let stream = self.link.jetstream.get_stream_no_info(self.names.stream(class)).await;
            let Ok(stream) = stream else { continue };
            let removing = stream.purge().filter(self.names.known_ids(class)).sequence(upto + 1);
            match timeout(QUESTION, removing).await {
                Ok(Ok(_)) => self.known_ids.removed(class, upto),
                Ok(Err(error)) => tracing::debug!(%error, "ids that are over are removed later"),
                Err(_) => tracing::debug!("ids that are over are removed later"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_ids_are_told_from_others() {
        assert_eq!(token("news.id.goal=201"), Some("news"));
        for other in ["news", "news.end", "news.id", "news.idea.x", "a=2Eid=2Ex", "news.id.x.end"] {
            assert_eq!(token(other), None, "{other}");
        }
    }

    #[test]
    fn what_was_stored_together_is_over_together_and_not_before_its_time() {
        let stored = Stored::default();
        let ago = |seconds: i64| Timestamp(Timestamp::now().0 - seconds * 1_000);
        let item = |sequence, at| Item { sequence, key: String::new(), headers: None, payload: Bytes::new(), at };
        for (sequence, age) in [(1, 900), (2, 899), (7, 500), (9, 340), (12, 0)] {
            stored.note(1_000, &item(sequence, ago(age)));
        }
        stored.note(10_000, &item(3, ago(800)));
        let window = Duration::from_secs(300);
        assert_eq!(stored.over(window), BTreeMap::from([(1_000, 7), (10_000, 3)]));
        stored.removed(1_000, 7);
        assert_eq!(stored.over(window), BTreeMap::from([(10_000, 3)]));
        stored.reset(10_000);
        assert!(stored.over(window).is_empty());
        assert_eq!(stored.over(Duration::ZERO), BTreeMap::from([(1_000, 9)]));
    }
}
