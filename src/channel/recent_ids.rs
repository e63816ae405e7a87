//! Ids of messages that have left their topic's history: a publisher that repeats one within the window still gets the
//! first message's position.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use super::{MessageId, Timestamp};

/// Where a message was whose id is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// 0 where the message was published in another incarnation of the topic.
    pub offset: u64,
    pub at: Timestamp,
}

/// One topic's id: the topic's serial number on this instance stands for its incarnation.
type Key = (u64, MessageId);

/// What an entry takes beside the id's text: both maps, measured as their entries with a third of free room.
const ENTRY_BYTES: usize = 160;

/// The ids of all topics, bounded in time and in bytes; the oldest go first.
pub(crate) struct RecentIds {
    entries: Mutex<Entries>,
    window_ms: i64,
    max_bytes: usize,
    forgotten_early: AtomicU64,
    reported: AtomicBool,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<Key, (Remembered, u64)>,
    /// By the time of publication; the number tells those of one millisecond apart.
    by_age: BTreeMap<(Timestamp, u64), Key>,
    bytes: usize,
    next: u64,
}

impl Entries {
    fn remove_oldest(&mut self) {
        if let Some((_, key)) = self.by_age.pop_first() {
            self.bytes -= ENTRY_BYTES + key.1.as_str().len();
            self.by_key.remove(&key);
        }
    }

    fn remove_older_than(&mut self, oldest: Timestamp) {
        while self.by_age.first_key_value().is_some_and(|((at, _), _)| *at <= oldest) {
            self.remove_oldest();
        }
    }
}

impl RecentIds {
    /// Remembers ids for `window` after their publication, in at most `max_bytes`.
    pub fn new(window: Duration, max_bytes: usize) -> Self {
        Self {
            entries: Mutex::default(),
            window_ms: i64::try_from(window.as_millis()).unwrap_or(i64::MAX),
            max_bytes,
            forgotten_early: AtomicU64::new(0),
            reported: AtomicBool::new(false),
        }
    }

    /// The newest time that lies outside of the window.
    fn horizon(&self) -> Timestamp {
        Timestamp(Timestamp::now().0.saturating_sub(self.window_ms))
    }

    /// Remembers an id whose message is not kept any more.
    pub fn remember(&self, topic: u64, id: &MessageId, remembered: Remembered) {
        let horizon = self.horizon();
        let mut entries = self.entries.lock();
        entries.remove_older_than(horizon);
        if remembered.at <= horizon {
            return;
        }
        let key = (topic, id.clone());
        let number = entries.next;
        entries.next += 1;
        entries.bytes += ENTRY_BYTES + id.as_str().len();
        if let Some((before, number)) = entries.by_key.insert(key.clone(), (remembered, number)) {
            entries.by_age.remove(&(before.at, number));
            entries.bytes -= ENTRY_BYTES + id.as_str().len();
        }
        entries.by_age.insert((remembered.at, number), key);
        while entries.bytes > self.max_bytes {
            entries.remove_oldest();
            self.forgotten_early.fetch_add(1, Ordering::Relaxed);
            if !self.reported.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    bytes = self.max_bytes,
                    "DEDUP_BYTES is used up: message ids are forgotten before DEDUP_WINDOW is over, the oldest first"
                );
            }
        }
    }

    /// Whether an id that was published at this time is still remembered.
    pub fn covers(&self, at: Timestamp) -> bool {
        at > self.horizon()
    }

    /// Where the message with this id was.
    pub fn find(&self, topic: u64, id: &MessageId) -> Option<Remembered> {
        let entries = self.entries.lock();
        if entries.by_key.is_empty() {
            return None;
        }
        let (remembered, _) = *entries.by_key.get(&(topic, id.clone()))?;
        (remembered.at > self.horizon()).then_some(remembered)
    }

    /// The ids of one topic, oldest first.
    pub fn of_topic(&self, topic: u64) -> Vec<(MessageId, Remembered)> {
        let horizon = self.horizon();
        let entries = self.entries.lock();
        let of_topic = entries.by_age.values().filter(|(known, _)| *known == topic);
        let found = of_topic.filter_map(|key| Some((key.1.clone(), entries.by_key.get(key)?.0)));
        found.filter(|(_, remembered)| remembered.at > horizon).collect()
    }

    /// Gives back the memory of what has left the window. To be called now and then.
    pub fn sweep(&self) {
        let horizon = self.horizon();
        self.entries.lock().remove_older_than(horizon);
    }

    /// Bytes that the ids take.
    pub fn bytes(&self) -> usize {
        self.entries.lock().bytes
    }

    /// Ids that were forgotten within the window since the start, because of the bound on bytes.
    pub fn forgotten_early(&self) -> u64 {
        self.forgotten_early.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> MessageId {
        MessageId::parse(text).unwrap()
    }

    fn ago(milliseconds: i64) -> Timestamp {
        Timestamp(Timestamp::now().0 - milliseconds)
    }

    #[test]
    fn ids_are_known_for_the_window_within_one_topic() {
        let ids = RecentIds::new(Duration::from_secs(60), 1 << 20);
        let at = ago(30_000);
        ids.remember(1, &id("a"), Remembered { offset: 7, at });
        ids.remember(1, &id("old"), Remembered { offset: 6, at: ago(60_001) });
        assert_eq!(ids.find(1, &id("a")), Some(Remembered { offset: 7, at }));
        assert_eq!(ids.find(2, &id("a")), None);
        assert_eq!(ids.find(1, &id("old")), None);
        assert_eq!(ids.of_topic(1), [(id("a"), Remembered { offset: 7, at })]);
    }

    #[test]
    fn the_oldest_are_forgotten_first_when_bytes_run_out() {
        let ids = RecentIds::new(Duration::from_secs(60), 3 * (ENTRY_BYTES + 1));
        for (name, age) in [("b", 3_000), ("a", 4_000), ("c", 2_000), ("d", 1_000)] {
            ids.remember(1, &id(name), Remembered { offset: 1, at: ago(age) });
        }
        assert_eq!(ids.find(1, &id("a")), None);
        assert!(["b", "c", "d"].iter().all(|name| ids.find(1, &id(name)).is_some()));
        assert_eq!((ids.forgotten_early(), ids.bytes()), (1, 3 * (ENTRY_BYTES + 1)));
        // A repeated id does not count twice.
        ids.remember(1, &id("b"), Remembered { offset: 2, at: ago(0) });
        assert_eq!((ids.forgotten_early(), ids.bytes()), (1, 3 * (ENTRY_BYTES + 1)));
    }

    #[test]
    fn what_has_left_the_window_gives_its_memory_back() {
        let ids = RecentIds::new(Duration::ZERO, 1 << 20);
        ids.remember(1, &id("a"), Remembered { offset: 1, at: ago(0) });
        ids.sweep();
        assert_eq!(ids.bytes(), 0);
    }
}
