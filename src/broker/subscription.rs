//! A subscriber's cursor, or, for a pattern, its cursors: history and live are one path.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Broker, Cursor, Error, Filter, Gap, GapReason, Message, Pattern, Rest, TopicName, Turn,
    consumer::{ConsumerInfo, Lease},
    inbox::Waiter,
    pattern::{Member, Membership},
    topic::Topic,
};

/// A subscription is behind when more messages than this wait for it: more than one turn's worth, so that the
/// ordinary burst does not count.
pub const BEHIND_MESSAGES: u64 = 64;

/// How many messages one topic of a pattern may deliver in a row while others wait.
const PATTERN_QUANTUM: usize = 16;

/// What happens to a subscription that falls behind, once it has caught up for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// It reads on from the history; a gap tells when that is gone.
    #[default]
    History,
    /// It jumps to the newest message; a gap says what was skipped.
    Latest,
    /// It gets only the newest message of each key; gaps say what was skipped. Messages without a key are all kept.
    LatestPerKey,
    /// It ends with [`Error::SlowConsumer`] when the history no longer has what it would read next.
    Disconnect,
}

/// What a subscription delivers.
#[derive(Clone, Debug)]
pub enum Event {
    /// The next message.
    Message(Arc<Message>),
    /// Messages were missed here.
    Gap(Gap),
    /// A topic of the pattern was deleted. A subscription to one topic ends instead.
    Deleted(TopicName),
}

impl Event {
    fn bytes(&self) -> usize {
        match self {
            Event::Message(message) => message.data.len(),
            Event::Gap(_) | Event::Deleted(_) => 0,
        }
    }
}

/// Where a subscription stands after a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More can be read now.
    More,
    /// The inbox will tell when there is more.
    CaughtUp,
    /// Nothing more ever.
    Ended(Error),
}

/// What a subscriber wants of the messages.
#[derive(Clone, Default)]
pub(super) struct Wanted {
    pub filter: Option<Filter>,
    /// For the broker's own events: the topics they are about.
    pub about: Option<Pattern>,
    pub overflow: Overflow,
}

impl Wanted {
    fn takes(&self, message: &Message) -> bool {
        let about = |pattern: &Pattern| message.key.as_ref().is_some_and(|key| pattern.matches(key.as_str()));
        self.about.as_ref().is_none_or(about) && self.filter.as_ref().is_none_or(|filter| message.passes(filter))
    }
}

/// A cursor into one topic.
pub(super) struct Reader {
    pub topic: Arc<Topic>,
    pub after: u64,
    /// Missed, and not told yet.
    pub gap: Option<Gap>,
    /// Has been at the end once: from then on it can fall behind.
    caught_up: bool,
    /// Fell behind, and has not been at the end since.
    behind: bool,
}

impl Reader {
    pub fn at(topic: Arc<Topic>, after: u64) -> Self {
        Self { topic, after, gap: None, caught_up: true, behind: false }
    }

    /// Begins in the past: the replay is not "falling behind".
    pub fn from(topic: Arc<Topic>, (after, gap): (u64, Option<Gap>)) -> Self {
        Self { topic, after, gap, caught_up: false, behind: false }
    }

    fn miss(&mut self, gap: Option<Gap>) {
        if let Some(gap) = gap {
            self.gap = Some(match self.gap.take() {
                Some(before) => before.and_then(&gap),
                None => gap,
            });
        }
    }

    /// Reads one turn's worth. `at_end` runs under the topic's lock when there is nothing more.
    fn read(
        &mut self,
        wanted: &Wanted,
        turn: Turn,
        events: &mut Vec<Event>,
        at_end: impl FnOnce(),
    ) -> Result<Rest, Error> {
        let mut batch = Vec::new();
        let mut superseded = Vec::new();
        let topic = self.topic.clone();
        let ring = topic.ring.lock();
        self.behind |= self.caught_up && ring.last().saturating_sub(self.after) > BEHIND_MESSAGES;
        if self.behind && wanted.overflow == Overflow::Latest {
            let skipped = ring.skip_to_newest(&mut self.after);
            self.miss(skipped);
        }
        let (gap, rest) = ring.read(&mut self.after, turn, &mut batch);
        if gap.is_some() && self.caught_up && wanted.overflow == Overflow::Disconnect {
            return Err(Error::SlowConsumer);
        }
        self.miss(gap);
        if self.behind && wanted.overflow == Overflow::LatestPerKey {
            superseded.extend(batch.iter().map(|message| ring.superseded(message)));
        }
        if rest != Rest::More {
            self.caught_up = true;
            self.behind = false;
            at_end();
        }
        drop(ring);

        let mut superseded = superseded.into_iter();
        for message in batch {
            let skipped = superseded.next().unwrap_or(false);
            if !wanted.takes(&message) {
                continue;
            }
            if skipped {
                self.miss(Some(Gap {
                    topic: message.topic.clone(),
                    missed: Some(1),
                    from_offset: message.cursor.offset,
                    to_offset: message.cursor.offset,
                    reason: GapReason::SlowConsumer,
                }));
                continue;
            }
            events.extend(self.gap.take().map(Event::Gap));
            events.push(Event::Message(message));
        }
        if rest != Rest::More {
            events.extend(self.gap.take().map(Event::Gap));
        }
        Ok(rest)
    }

    fn cursor(&self) -> Cursor {
        Cursor { epoch: self.topic.epoch, offset: self.after }
    }
}

/// Where a subscription's messages come from.
pub(super) enum Feed {
    Topic { reader: Reader, waiter: Arc<Waiter>, slot: usize },
    Pattern { member: Arc<Member>, _membership: Membership },
}

impl Feed {
    fn waiter(&self) -> &Waiter {
        match self {
            Feed::Topic { waiter, .. } => waiter,
            Feed::Pattern { member, .. } => &member.waiter,
        }
    }
}

/// A live subscription; dropping it unsubscribes.
#[must_use = "dropping a subscription unsubscribes"]
pub struct Subscription {
    pub(super) broker: Broker,
    pub(super) feed: Feed,
    pub(super) wanted: Wanted,
    pub(super) lease: Option<Lease>,
    pub(super) ended: Option<Error>,
}

impl Subscription {
    /// Reads one turn's worth into `events`, oldest first. Never waits: the inbox tells under the subscription's key when
    /// to read again; when there is more at once, the key already stands at its end.
    pub fn read(&mut self, turn: Turn, events: &mut Vec<Event>) -> Progress {
        if let Some(lease) = &self.lease
            && lease.is_taken_over()
        {
            self.ended = Some(Error::ConsumerTakenOver(lease.name().to_owned()));
        }
        if let Some(error) = &self.ended {
            return Progress::Ended(error.clone());
        }
        let progress = match &mut self.feed {
            Feed::Topic { reader, waiter, .. } => {
                waiter.rearm();
                let rest = reader.read(&self.wanted, turn, events, || {});
                waiter.position.store(reader.after, Ordering::Relaxed);
                if let Some(lease) = &mut self.lease {
                    lease.delivered(&reader.topic.name, reader.cursor());
                }
                match rest {
                    Ok(Rest::More) => Progress::More,
                    Ok(Rest::CaughtUp) => Progress::CaughtUp,
                    Ok(Rest::Closed) => Progress::Ended(Error::TopicDeleted(reader.topic.name.clone())),
                    Err(error) => Progress::Ended(error),
                }
            }
            Feed::Pattern { member, .. } => {
                member.waiter.rearm();
                read_pattern(member, &self.wanted, &mut self.lease, turn, events)
            }
        };
        match &progress {
            Progress::More => self.feed.waiter().wake(),
            Progress::CaughtUp => {}
            Progress::Ended(error) => self.ended = Some(error.clone()),
        }
        progress
    }

    /// The consumer of the subscription as it was when subscribing.
    #[must_use]
    pub fn consumer(&self) -> Option<&ConsumerInfo> {
        self.lease.as_ref().map(|lease| &lease.info)
    }

    /// With `ack: AUTO`: everything read so far is on its way to the client; [`Subscription::confirm`] will say that it
    /// arrived. Answers whether there is anything to confirm.
    pub fn seal(&mut self) -> bool {
        self.lease.as_mut().is_some_and(Lease::seal)
    }

    /// With `ack: AUTO`: what was sealed has arrived; the consumer's position moves behind it.
    pub fn confirm(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.confirm();
        }
    }
}

fn read_pattern(
    member: &Member,
    wanted: &Wanted,
    lease: &mut Option<Lease>,
    turn: Turn,
    events: &mut Vec<Event>,
) -> Progress {
    let share = Turn { messages: turn.messages.min(PATTERN_QUANTUM), bytes: turn.bytes / 4 + 1 };
    let (mut read, mut bytes) = (0, 0);
    while read < turn.messages && bytes < turn.bytes {
        let Some(mut reader) = member.take_turn() else { return Progress::CaughtUp };
        let serial = reader.topic.serial;
        let before = events.len();
        let rest = reader.read(wanted, share, events, || member.finish(serial));
        // What a filter passes over is work, too: each topic counts.
        read += (events.len() - before).max(1);
        bytes += events.iter().skip(before).map(Event::bytes).sum::<usize>();
        if let Some(lease) = lease {
            lease.delivered(&reader.topic.name, reader.cursor());
        }
        match rest {
            Ok(Rest::More) => member.requeue(reader),
            Ok(Rest::CaughtUp) => {}
            Ok(Rest::Closed) => events.push(Event::Deleted(reader.topic.name.clone())),
            Err(error) => return Progress::Ended(error),
        }
    }
    if member.has_unread() { Progress::More } else { Progress::CaughtUp }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.broker.unsubscribed();
        if let Feed::Topic { reader, slot, .. } = &self.feed {
            reader.topic.waiters.lock().try_remove(*slot);
            self.broker.forget_if_unused(&reader.topic);
        }
    }
}
