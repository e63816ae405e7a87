//! A cursor into one topic: history and live are one path.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    BatchLimit, Channel, Cursor, Error, Filter, Gap, GapReason, Key, Message, Overflow, Pattern, PatternCursor,
    ReadPosition, ReadStatus, Start, TopicName, Waiter,
};

/// A subscription is behind when more messages than this wait for it: more than one batch, so that the
/// ordinary burst does not count.
pub const BEHIND_MESSAGES: u64 = 64;

/// Messages of one batch that are read without an allocation: all that a connection reads at once.
const LIVE_MESSAGES: usize = 64;

/// What a subscription delivers.
#[derive(Clone, Debug)]
pub enum Event {
    /// The next message; through a pattern, with the position over all topics behind it.
    Message(Arc<Message>, Option<PatternCursor>),
    /// Messages were missed here.
    Gap(Gap),
    /// A topic of the pattern was deleted. A subscription to one topic ends instead.
    Deleted {
        /// Its name.
        topic: TopicName,
        /// Whether messages went with it that the subscriber had not read; how many is not known any more.
        unread: bool,
    },
}

impl Event {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Event::Message(message, _) => message.data.len(),
            Event::Gap(_) | Event::Deleted { .. } => 0,
        }
    }
}

/// Whether a subscriber may see the topic of this name.
pub(crate) type Shown = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What a subscriber wants of the messages.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub filter: Option<Filter>,
    /// For the broker's own events: the topics they are about.
    pub about: Option<Pattern>,
    /// For the broker's own events: the topics that the subscriber may see; all without this.
    pub shown: Option<Shown>,
    pub overflow: Overflow,
    /// Counts what the filter does and what is missed.
    pub waiter: Option<Arc<Waiter>>,
}

impl Wanted {
    /// What was missed, as an event that the subscriber is about to get.
    fn told(&self, missed: &mut Option<Gap>) -> Option<Event> {
        let gap = missed.take()?;
        if let Some(waiter) = &self.waiter {
            waiter.note_gap(&gap);
        }
        Some(Event::Gap(gap))
    }

    fn count_filtered(&self, examined: usize, passed: u64) {
        if self.filter.is_some()
            && let Some(waiter) = &self.waiter
        {
            waiter.note_filtered(examined as u64, passed);
        }
    }

    fn takes(&self, message: &Message) -> bool {
        let name = || message.key.as_ref().map_or("", Key::as_str);
        self.about.as_ref().is_none_or(|pattern| pattern.matches(name()))
            && self.shown.as_ref().is_none_or(|shown| shown(name()))
            && self.filter.as_ref().is_none_or(|filter| message.passes(filter))
    }
}

/// For [`Reader::read`], where there is no other topic.
pub(crate) const ALONE: Option<fn() -> u64> = None;

/// A cursor into one topic.
pub(crate) struct Reader {
    pub topic: Arc<Channel>,
    pub(super) position: ReadPosition,
    /// What was missed and not delivered as a gap yet.
    pub gap: Option<Gap>,
    /// The number in the shared log with which it goes on: what is gone counts. Of topics of one log, the one with the
    /// lowest comes first.
    pub next_sequence: u64,
    /// Has been at the end once: from then on it can fall behind.
    caught_up: bool,
    /// Fell behind, and has not been at the end since.
    behind: bool,
}

impl Reader {
    /// Begins live, with the message of this number in the shared log.
    pub fn at(topic: Arc<Channel>, position: ReadPosition, next_sequence: u64) -> Self {
        Self { topic, position, gap: None, next_sequence, caught_up: true, behind: false }
    }

    /// Begins in the past: the replay is not "falling behind".
    pub fn from(topic: Arc<Channel>, (position, gap): (ReadPosition, Option<Gap>)) -> Self {
        Self { topic, position, gap, next_sequence: 0, caught_up: false, behind: false }
    }

    /// Reads one batch. A gap is delivered as soon as it is met, whatever follows, since other topics may be read next
    /// and a position over all of them may not pass it. Only what a subscriber of one topic skips by its own choice is
    /// gathered into one gap as long as it goes on. `newest` is asked under the topic's lock for the newest number in
    /// the shared log that may be read, where there are other topics; `at_end` runs there when there is nothing more.
    pub fn read(
        &mut self,
        wanted: &Wanted,
        limit: BatchLimit,
        events: &mut Vec<Event>,
        newest: Option<impl FnOnce() -> u64>,
        at_end: impl FnOnce(),
    ) -> Result<ReadStatus, Error> {
        let mut batch = SmallVec::<[Arc<Message>; LIVE_MESSAGES]>::new();
        let mut superseded = Vec::new();
        let Self { topic, position, gap: missed, next_sequence, caught_up, behind } = self;
        let ring = topic.ring.lock();
        *behind |= *caught_up && ring.end().seen.saturating_sub(position.seen) > BEHIND_MESSAGES;
        if *behind && wanted.overflow == Overflow::Latest {
            miss(missed, ring.skip_to_newest(position));
        }
        let is_alone = newest.is_none();
        let holds_gap = is_alone && *behind && wanted.overflow == Overflow::LatestPerKey;
        let newest = newest.map_or(u64::MAX, |newest| newest());
        let (gap, rest) = ring.read(position, limit, newest, &mut batch);
        // A message that has become too old may be missed by one that is not slow.
        let is_slow = |gap: &Gap| gap.reason == GapReason::SlowConsumer || gap.missed.is_none();
        if gap.as_ref().is_some_and(is_slow) && *caught_up && wanted.overflow == Overflow::Disconnect {
            return Err(Error::SlowConsumer);
        }
        miss(missed, gap);
        if *behind && wanted.overflow == Overflow::LatestPerKey {
            superseded.extend(batch.iter().map(|message| ring.superseded(message)));
        }
        match ring.next_sequence(*position) {
            Some(next) if rest == ReadStatus::More => *next_sequence = next,
            _ => {
                (*caught_up, *behind) = (true, false);
                at_end();
            }
        }
        drop(ring);

        let (examined, mut passed) = (batch.len(), 0);
        // A read passes so many messages that are too old, and the next one goes on with them: that is one gap.
        let holds_gap = holds_gap || (is_alone && batch.is_empty());
        let mut superseded = superseded.into_iter();
        for message in batch {
            let skipped = superseded.next().unwrap_or(false);
            if !wanted.takes(&message) {
                continue;
            }
            passed += 1;
            if skipped {
                let of = Gap {
                    topic: message.topic.clone(),
                    missed: Some(1),
                    from_offset: message.cursor.offset,
                    to_offset: message.cursor.offset,
                    reason: GapReason::SlowConsumer,
                };
                miss(missed, Some(of));
                continue;
            }
            events.extend(wanted.told(missed));
            events.push(Event::Message(message, None));
        }
        if !(rest == ReadStatus::More && holds_gap) {
            events.extend(wanted.told(missed));
        }
        wanted.count_filtered(examined, passed);
        Ok(rest)
    }

    /// Goes on behind another position, as one that begins there. Returns what it passes over by that.
    pub fn seek(&mut self, cursor: Cursor) -> Option<Gap> {
        let mut missed = self.gap.take();
        let skipped = self.topic.skipped(self.position, cursor);
        if skipped.is_none() && missed.as_ref().is_some_and(|missed| cursor.offset < missed.from_offset) {
            // It goes back, so what it was about to be told may come again.
            missed = None;
        }
        miss(&mut missed, skipped);
        (*self, _) = self.topic.locate(&Start::After(cursor));
        missed
    }

    /// How many of the topic's messages it has passed.
    pub fn seen(&self) -> u64 {
        self.position.seen
    }

    /// Where the reader stands: before what it has missed, as long as that was not delivered as a gap.
    pub fn cursor(&self) -> Cursor {
        let missed_from = self.gap.as_ref().map(|gap| gap.from_offset.saturating_sub(1));
        let offset = missed_from.map_or(self.position.after, |from| from.min(self.position.after));
        Cursor { epoch: self.topic.epoch, offset }
    }
}

/// Adds a gap to what was missed before it.
fn miss(missed: &mut Option<Gap>, gap: Option<Gap>) {
    if let Some(gap) = gap {
        *missed = Some(match missed.take() {
            Some(before) => before.and_then(&gap),
            None => gap,
        });
    }
}
