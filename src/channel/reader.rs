//! A cursor into one topic: history and live are one path.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    AnyCursor, BatchLimit, Begun, Channel, Cursor, Error, Filter, Gap, GapReason, Key, Message, Overflow, Pattern,
    PatternCursor, ReadPosition, ReadStatus, Start, TopicName, Waiter, reading::Pieces,
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
    /// What was delivered until here is the state at this position; live messages follow.
    StateComplete(AnyCursor),
}

impl Event {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Event::Message(message, _) => message.data.len(),
            Event::Gap(_) | Event::Deleted { .. } | Event::StateComplete(_) => 0,
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
    /// When it began to read the state, until it has been at the end once.
    state: Option<Begun>,
    /// The number in the shared log of the newest message that it has looked at for the state.
    looked_at: Option<u64>,
}

impl Reader {
    /// Begins live, with the message of this number in the shared log.
    pub fn at(topic: Arc<Channel>, position: ReadPosition, next_sequence: u64) -> Self {
        Self { caught_up: true, next_sequence, ..Self::from(topic, (position, None)) }
    }

    /// Begins in the past: the replay is not "falling behind".
    pub fn from(topic: Arc<Channel>, (position, gap): (ReadPosition, Option<Gap>)) -> Self {
        Self { topic, position, gap, next_sequence: 0, caught_up: false, behind: false, state: None, looked_at: None }
    }

    /// Reads the state as of this moment and what comes behind it, until it has been at the end once.
    pub fn begin_state(&mut self, begun: Begun) {
        self.state = Some(begun);
    }

    /// Whether it reads the state, and has not been at the end.
    pub fn is_in_state(&self) -> bool {
        self.state.is_some()
    }

    /// See the field.
    pub fn looked_at(&self) -> Option<u64> {
        self.looked_at
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
        let mut pieces = Pieces::new();
        let mut superseded = Vec::new();
        let Self { topic, position, gap: missed, next_sequence, caught_up, behind, state, looked_at } = self;
        let mut ring = topic.ring.lock();
        *behind |= *caught_up && ring.end().seen.saturating_sub(position.seen) > BEHIND_MESSAGES;
        if *behind && wanted.overflow == Overflow::Latest {
            miss(missed, ring.skip_to_newest(position));
        }
        let is_alone = newest.is_none();
        let holds_gap = is_alone && *behind && wanted.overflow == Overflow::LatestPerKey;
        let newest = newest.map_or(u64::MAX, |newest| newest());
        let rest = match state {
            Some(begun) => {
                let read = ring.read_state(position, begun, limit, newest, &mut batch);
                *looked_at = read.sequence.or(*looked_at);
                pieces.push((read.gap, 0));
                read.rest
            }
            None => ring.read_pieces(position, limit, newest, &mut batch, &mut pieces),
        };
        let is_told = pieces.iter().filter_map(|(gap, _)| gap.as_ref()).any(is_slow);
        if is_told && *caught_up && wanted.overflow == Overflow::Disconnect {
            return Err(Error::SlowConsumer);
        }
        if *behind && wanted.overflow == Overflow::LatestPerKey {
            superseded.extend(batch.iter().map(|message| ring.superseded(message)));
        }
        match ring.next_sequence(*position) {
            Some(next) if rest == ReadStatus::More => *next_sequence = next,
            _ => {
                (*caught_up, *behind, *state) = (true, false, None);
                at_end();
            }
        }
        drop(ring);

        let (examined, mut passed) = (batch.len(), 0);
        // A read passes so many messages that are too old, and the next one goes on with them: that is one gap.
        let ends_in_gap = pieces.last().is_some_and(|(gap, begin)| gap.is_some() && *begin == examined);
        let holds_last = holds_gap || (is_alone && ends_in_gap);
        let mut superseded = superseded.into_iter();
        let mut pieces = pieces.into_iter().peekable();
        for (place, message) in batch.into_iter().enumerate() {
            while let Some((gap, _)) = pieces.next_if(|(_, begin)| *begin <= place) {
                // What was missed before messages that nobody wants is a gap of its own.
                if gap.is_some() && place > 0 && !holds_gap {
                    events.extend(wanted.told(missed));
                }
                miss(missed, gap);
            }
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
        for (gap, _) in pieces {
            if gap.is_some() && examined > 0 && !holds_gap {
                events.extend(wanted.told(missed));
            }
            miss(missed, gap);
        }
        if !(rest == ReadStatus::More && holds_last) {
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

/// Whether a gap is what a subscriber misses that is slow. A message that has become too old may be missed by one that is not,
/// and where the newest message of each key is kept, it still gets what there is.
fn is_slow(gap: &Gap) -> bool {
    gap.reason == GapReason::SlowConsumer || (gap.missed.is_none() && gap.reason != GapReason::Compacted)
}

/// Adds a gap to what was missed before it.
fn miss(missed: &mut Option<Gap>, gap: Option<Gap>) {
    *missed = Gap::joined(missed.take(), gap);
}
