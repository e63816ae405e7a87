//! Missed messages of a stream, collected until it is known which of them are lost.
//!
//! A stream keeps `class + 1` messages of each topic, one more than any of its topics keeps. A reader finds out by
//! counting what the stream has evicted: if something is lost, `class + 1` messages of the same topic came after it,
//! and all of them were read, or came during the read.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::Item;
use crate::channel::Channel;

/// The limit for the bytes that are collected of one topic.
const MAX_BYTES: usize = 64 << 20;

/// The missed messages, by the topic's incarnation.
#[derive(Default)]
pub(super) struct MissedMessages(HashMap<u64, MissedTopic>);

/// What to do at a position of the stream.
pub(super) enum Step {
    /// The topic's messages up to here are lost.
    Skip,
    Feed(Item),
}

struct MissedTopic {
    channel: Arc<Channel>,
    /// The number of all messages that came.
    count: usize,
    bytes: usize,
    newest: VecDeque<Item>,
    /// The topic's end, and the newest message that was removed with it.
    end: Option<(Item, u64)>,
}

impl MissedMessages {
    pub fn add(&mut self, channel: Arc<Channel>, item: Item, end_of: impl Fn(&Item) -> Option<u64>) {
        let most = channel.max_messages();
        let topic = self.0.entry(channel.serial()).or_insert_with(|| MissedTopic {
            channel,
            count: 0,
            bytes: 0,
            newest: VecDeque::new(),
            end: None,
        });
        if let Some(last) = end_of(&item) {
            // The first end counts.
            topic.end.get_or_insert((item, last));
            return;
        }
        topic.count += 1;
        topic.bytes += item.payload.len();
        topic.newest.push_back(item);
        while topic.newest.len() > most + 1 || (topic.bytes > MAX_BYTES && topic.newest.len() > 1) {
            topic.bytes -= topic.newest.pop_front().map_or(0, |item| item.payload.len());
        }
    }

    /// Returns everything in the order of the stream, so that subscribers of many topics see that order. `late`
    /// messages were stored during the read.
    pub fn in_order(self, class: usize, late: u64) -> Vec<(u64, Arc<Channel>, Step)> {
        let late = usize::try_from(late).unwrap_or(usize::MAX);
        let mut due = Vec::new();
        for topic in self.0.into_values() {
            let MissedTopic { channel, mut newest, .. } = topic;
            let dropped = topic.count - newest.len();
            // A message may be missing after each of the first `lost` messages. Everything up to the last of them,
            // itself included, is reported as lost.
            let uncertain = topic.count.saturating_add(late).saturating_sub(class);
            let lost = if dropped > 0 { uncertain.max(dropped + 1) } else { uncertain };
            let mut skipped = 0;
            for _ in dropped..lost.min(topic.count) {
                skipped = newest.pop_front().map_or(skipped, |item| item.sequence);
            }
            if skipped > 0 {
                due.push((skipped, channel.clone(), Step::Skip));
            }
            if let Some((end, last)) = topic.end {
                // The messages that were removed with the topic were removed all at once. If the newest of them was
                // read, the others were read, too.
                if last > channel.last().max(skipped) && !newest.iter().any(|item| item.sequence == last) {
                    due.push((last, channel.clone(), Step::Skip));
                }
                due.push((end.sequence, channel.clone(), Step::Feed(end)));
            }
            due.extend(newest.into_iter().map(|item| (item.sequence, channel.clone(), Step::Feed(item))));
        }
        due.sort_by_key(|(sequence, ..)| *sequence);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Incarnation, Registry, RegistrySettings, Timestamp, TopicConfig, TopicName};

    const CLASS: usize = 10;

    fn channels() -> [Arc<Channel>; 2] {
        let registry = Registry::new(RegistrySettings::for_tests(CLASS));
        ["a", "b"].map(|name| {
            registry
                .insert(Incarnation::new(&TopicName::parse(name).unwrap(), TopicConfig::default()), |_| Ok(()))
                .unwrap()
        })
    }

    fn item(sequence: u64, end: bool) -> Item {
        let key = if end { "a.end" } else { "a" }.to_owned();
        Item { sequence, key, headers: None, payload: bytes::Bytes::new(), at: Timestamp(0) }
    }

    /// Returns what is due after these messages came: the sequence, the channel, and whether the message is fed. A
    /// message with a third value is an end.
    fn due(came: &[(usize, u64, Option<u64>)], late: u64) -> Vec<(u64, usize, bool)> {
        let channels = channels();
        let mut missed = MissedMessages::default();
        for (channel, sequence, end) in came {
            missed.add(channels[*channel].clone(), item(*sequence, end.is_some()), |_| *end);
        }
        let due = missed.in_order(CLASS, late);
        due.into_iter()
            .map(|(sequence, channel, due)| {
                (sequence, usize::from(channel.name().as_str() == "b"), matches!(due, Step::Feed(_)))
            })
            .collect()
    }

    fn of(channel: usize, sequences: impl IntoIterator<Item = u64>) -> Vec<(usize, u64, Option<u64>)> {
        sequences.into_iter().map(|sequence| (channel, sequence, None)).collect()
    }

    #[test]
    fn topics_are_fed_in_the_order_of_their_stream() {
        let came = [of(0, [1, 4, 5]), of(1, [2, 3, 6])].concat();
        let order = due(&came, 0);
        assert_eq!(order, [(1, 0, true), (2, 1, true), (3, 1, true), (4, 0, true), (5, 0, true), (6, 1, true)]);
    }

    #[test]
    fn messages_that_the_stream_may_have_evicted_are_reported_where_they_are_missing() {
        // As many came as the stream keeps, so messages before the first one may be gone.
        let came = [of(1, [20]), of(0, 21..=31), of(1, [32])].concat();
        let order = due(&came, 0);
        assert_eq!((order[0], order[1], order[2]), ((20, 1, true), (21, 0, false), (22, 0, true)));
        assert_eq!((order.len(), order[12]), (13, (32, 1, true)));
        // If one less came, nothing is gone.
        assert!(due(&of(0, 22..=31), 0).iter().all(|(_, _, fed)| *fed));
        // If others were stored meanwhile, something may be missing after each of the first two.
        let order = due(&of(0, 22..=31), 2);
        assert_eq!((order.len(), order[0], order[1]), (9, (23, 0, false), (24, 0, true)));
        // A topic of which few messages came has lost nothing.
        assert_eq!(due(&of(1, [7, 9]), 2), [(7, 1, true), (9, 1, true)]);
    }

    #[test]
    fn no_more_messages_are_collected_than_a_topic_keeps() {
        let order = due(&of(0, 1..=500), 0);
        assert_eq!((order.len(), order[0], order[1], order[10]), (11, (490, 0, false), (491, 0, true), (500, 0, true)));
    }

    #[test]
    fn messages_removed_with_their_topic_are_reported_before_the_end() {
        // None of its messages came.
        assert_eq!(due(&[(0, 9, Some(5))], 0), [(5, 0, false), (9, 0, true)]);
        // Messages that were stored after the removed ones are read.
        let came = [of(0, [7]), of(1, [6]), vec![(0, 9, Some(5))]].concat();
        assert_eq!(due(&came, 0), [(5, 0, false), (6, 1, true), (7, 0, true), (9, 0, true)]);
        // The message came before it was removed.
        let came = [of(0, [4, 5]), vec![(0, 9, Some(5))]].concat();
        assert_eq!(due(&came, 0), [(4, 0, true), (5, 0, true), (9, 0, true)]);
        // The first end counts.
        assert_eq!(due(&[(0, 9, Some(0)), (0, 12, Some(11))], 0), [(9, 0, true)]);
    }
}
