//! What was missed of a stream, gathered until it is known what of it is lost.
//!
//! A stream keeps `class + 1` messages of each topic, one more than any of its topics does. Whoever reads what was missed
//! finds out what the stream has let go of by counting: where something is lost, `class + 1` messages of the same topic came
//! behind it, and all of them were read, or came while the others were being read.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::Item;
use crate::channel::Channel;

/// Bytes that are gathered of one topic.
const MAX_BYTES: usize = 64 << 20;

/// What was missed, by the topic's incarnation.
#[derive(Default)]
pub(super) struct Gathered(HashMap<u64, Topic>);

/// What is to be done at a place of the stream.
pub(super) enum Due {
    /// What the topic has up to here is lost.
    Skip,
    Feed(Item),
}

struct Topic {
    channel: Arc<Channel>,
    /// All that came.
    count: usize,
    bytes: usize,
    newest: VecDeque<Item>,
    /// Its end, and the newest message that was removed with it.
    end: Option<(Item, u64)>,
}

impl Gathered {
    pub fn add(&mut self, channel: Arc<Channel>, item: Item, end_of: impl Fn(&Item) -> Option<u64>) {
        let most = channel.max_messages();
        let topic = self.0.entry(channel.serial()).or_insert_with(|| Topic {
            channel,
            count: 0,
            bytes: 0,
            newest: VecDeque::new(),
            end: None,
        });
        if let Some(last) = end_of(&item) {
            // The first counts.
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

    /// All of it in the order of the stream, which those see that read many of its topics. `late` messages came while it was
    /// being read.
    pub fn in_order(self, class: usize, late: u64) -> Vec<(u64, Arc<Channel>, Due)> {
        let late = usize::try_from(late).unwrap_or(usize::MAX);
        let mut due = Vec::new();
        for topic in self.0.into_values() {
            let Topic { channel, mut newest, .. } = topic;
            let dropped = topic.count - newest.len();
            // Behind each of the first so many something may be missing. The last of them gives the place up to which all is
            // told as lost, itself included.
            let torn = topic.count.saturating_add(late).saturating_sub(class);
            let lost = if dropped > 0 { torn.max(dropped + 1) } else { torn };
            let mut skipped = 0;
            for _ in dropped..lost.min(topic.count) {
                skipped = newest.pop_front().map_or(skipped, |item| item.sequence);
            }
            if skipped > 0 {
                due.push((skipped, channel.clone(), Due::Skip));
            }
            if let Some((end, last)) = topic.end {
                // What was removed with the topic was removed all at once: if the newest of it was read, so were the others.
                if last > channel.last().max(skipped) && !newest.iter().any(|item| item.sequence == last) {
                    due.push((last, channel.clone(), Due::Skip));
                }
                due.push((end.sequence, channel.clone(), Due::Feed(end)));
            }
            due.extend(newest.into_iter().map(|item| (item.sequence, channel.clone(), Due::Feed(item))));
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

    /// What is due after these came, by sequence: whether it is fed, and of which channel. With a mark, an end.
    fn due(came: &[(usize, u64, Option<u64>)], late: u64) -> Vec<(u64, usize, bool)> {
        let channels = channels();
        let mut gathered = Gathered::default();
        for (channel, sequence, end) in came {
            gathered.add(channels[*channel].clone(), item(*sequence, end.is_some()), |_| *end);
        }
        let due = gathered.in_order(CLASS, late);
        due.into_iter()
            .map(|(sequence, channel, due)| {
                (sequence, usize::from(channel.name().as_str() == "b"), matches!(due, Due::Feed(_)))
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
    fn what_the_stream_may_have_let_go_of_is_told_at_its_place() {
        // As many as the stream keeps: what was before the first of them is gone, as far as anybody knows.
        let came = [of(1, [20]), of(0, 21..=31), of(1, [32])].concat();
        let order = due(&came, 0);
        assert_eq!((order[0], order[1], order[2]), ((20, 1, true), (21, 0, false), (22, 0, true)));
        assert_eq!((order.len(), order[12]), (13, (32, 1, true)));
        // One less, and it is not.
        assert!(due(&of(0, 22..=31), 0).iter().all(|(_, _, fed)| *fed));
        // Unless others came meanwhile: then something may be missing behind each of the first two.
        let order = due(&of(0, 22..=31), 2);
        assert_eq!((order.len(), order[0], order[1]), (9, (23, 0, false), (24, 0, true)));
        // A topic of which few came has lost nothing.
        assert_eq!(due(&of(1, [7, 9]), 2), [(7, 1, true), (9, 1, true)]);
    }

    #[test]
    fn more_than_a_topic_keeps_is_not_gathered() {
        let order = due(&of(0, 1..=500), 0);
        assert_eq!((order.len(), order[0], order[1], order[10]), (11, (490, 0, false), (491, 0, true), (500, 0, true)));
    }

    #[test]
    fn what_was_removed_with_its_topic_is_told_before_the_end() {
        // Nothing of it came.
        assert_eq!(due(&[(0, 9, Some(5))], 0), [(5, 0, false), (9, 0, true)]);
        // What was stored behind what was removed is read.
        let came = [of(0, [7]), of(1, [6]), vec![(0, 9, Some(5))]].concat();
        assert_eq!(due(&came, 0), [(5, 0, false), (6, 1, true), (7, 0, true), (9, 0, true)]);
        // It came before it was removed.
        let came = [of(0, [4, 5]), vec![(0, 9, Some(5))]].concat();
        assert_eq!(due(&came, 0), [(4, 0, true), (5, 0, true), (9, 0, true)]);
        // The first end counts.
        assert_eq!(due(&[(0, 9, Some(0)), (0, 12, Some(11))], 0), [(9, 0, true)]);
    }
}
