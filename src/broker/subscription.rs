//! A live subscription: its cursor, or, for a pattern, its cursors.

use std::sync::{Arc, atomic::Ordering};

use super::{AnyCursor, Broker, Principal, Right, TraceContext, consumer::Lease, principal::Watch};
use crate::channel::{
    ALONE, BatchLimit, ConsumerInfo, Error, Event, LogPosition, Member, Memberships, Overflow, Pattern, ReadStatus,
    Reader, Start, Waiter, Wanted, moment,
};

/// How many messages one topic of a pattern may deliver in a row while others wait.
const PATTERN_QUANTUM: usize = 16;

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

/// Where a subscription's messages come from.
pub(super) enum ReadFrom {
    Topic { reader: Reader, waiter: Arc<Waiter>, slot: usize },
    Pattern { pattern: Pattern, member: Arc<Member>, memberships: Memberships },
}

impl ReadFrom {
    pub fn waiter(&self) -> &Waiter {
        match self {
            ReadFrom::Topic { waiter, .. } => waiter,
            ReadFrom::Pattern { member, .. } => &member.waiter,
        }
    }
}

/// When a subscription that begins with the state is told that it has it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// It is not told, or was told already.
    None,
    /// When each topic was read to its end that was there when it began.
    Behind,
    /// When it is at the end: it goes on from a position before which its client has everything.
    AtEnd,
}

impl Marker {
    /// For a client that asks for this start. One that comes back has what stands before its position; of a `known`
    /// consumer nobody knows whether its client has anything.
    pub fn of(asked: Option<&Start>, resumes: bool, is_known: bool) -> Self {
        match (asked, resumes, is_known) {
            (Some(Start::State), true, _) => Self::AtEnd,
            (Some(Start::State), false, false) => Self::Behind,
            _ => Self::None,
        }
    }
}

/// How much had been published at a moment, as one subscription sees it.
#[derive(Debug)]
pub struct Newest(NewestOf);

#[derive(Debug)]
enum NewestOf {
    Topic(u64),
    Logs(Vec<(usize, u64)>),
}

/// A live subscription; dropping it unsubscribes.
#[must_use = "dropping a subscription unsubscribes"]
pub struct Subscription {
    pub(super) broker: Broker,
    pub(super) source: ReadFrom,
    pub(super) wanted: Wanted,
    pub(super) lease: Option<Lease>,
    pub(super) ended: Option<Error>,
    /// Tells when its principal may read something else than before.
    pub(super) watch: Watch,
    /// Where it began: whoever subscribes after this gets the same.
    pub(super) begins_at: AnyCursor,
    /// Whether it is still to be told that it has the state.
    pub(super) marker: Marker,
}

impl Subscription {
    /// Reads one batch into `events`, oldest first. Never waits: the inbox tells under the subscription's key when
    /// to read again; when there is more at once, the key already stands at its end.
    pub fn read(&mut self, limit: BatchLimit, events: &mut Vec<Event>) -> Progress {
        let before = events.len();
        // This comes first: whatever happens from here on, a take-over too, puts the key into the inbox again.
        self.source.waiter().rearm();
        if let Some(lease) = &self.lease
            && lease.is_taken_over()
        {
            self.ended = Some(Error::ConsumerTakenOver(lease.name().to_owned()));
        }
        if let Some(principal) = self.watch.changed().cloned()
            && self.ended.is_none()
        {
            self.ended = self.look_again(&principal).err();
        }
        if self.source.waiter().is_disconnected() && self.ended.is_none() {
            self.ended = Some(Error::Disconnected);
        }
        if self.ended.is_none() {
            self.ended = self.follow_seek(events).err();
        }
        if let Some(error) = &self.ended {
            return Progress::Ended(error.clone());
        }
        let progress = match &mut self.source {
            ReadFrom::Topic { reader, waiter, .. } => {
                let rest = reader.read(&self.wanted, limit, events, ALONE, || {});
                waiter.seen.store(reader.seen(), Ordering::Relaxed);
                waiter.offset.store(reader.cursor().offset, Ordering::Relaxed);
                if let Some(lease) = &mut self.lease {
                    lease.delivered(reader.topic.name(), reader.cursor());
                }
                match rest {
                    Ok(ReadStatus::More) => Progress::More,
                    Ok(ReadStatus::CaughtUp) => {
                        if std::mem::replace(&mut self.marker, Marker::None) != Marker::None {
                            events.push(Event::StateComplete(AnyCursor::Topic(reader.cursor())));
                        }
                        Progress::CaughtUp
                    }
                    Ok(ReadStatus::Closed) => Progress::Ended(Error::TopicDeleted(reader.topic.name().clone())),
                    Err(error) => Progress::Ended(error),
                }
            }
            ReadFrom::Pattern { member, .. } => {
                let mut reading = PatternReading { member, lease: &mut self.lease, marker: &mut self.marker };
                reading.read(&self.wanted, limit, events)
            }
        };
        let waiter = self.source.waiter();
        let now = moment::micros();
        waiter.read_at.store(now, Ordering::Relaxed);
        let read = events.get(before..).unwrap_or_default();
        if !read.is_empty() {
            let is_live = waiter.has_caught_up.load(Ordering::Relaxed);
            self.broker.0.measures.delivered(waiter.subscriber.door, read, now, is_live);
            if let Some(lease) = self.lease.as_mut().filter(|_| is_live) {
                lease.accepted(read);
            }
            self.record(read, is_live.then_some(now));
        }
        match &progress {
            Progress::More => waiter.wake(),
            Progress::CaughtUp => waiter.has_caught_up.store(true, Ordering::Relaxed),
            Progress::Ended(error) => self.ended = Some(error.clone()),
        }
        progress
    }

    /// Records the deliveries of messages whose traces are sampled; `live` is the moment, where these are not replayed.
    fn record(&self, events: &[Event], live: Option<u64>) {
        let Some(tracer) = self.broker.tracer() else { return };
        let door = self.source.waiter().subscriber.door;
        let consumer = self.lease.as_ref().map(Lease::name);
        for event in events {
            if let Event::Message(message, _) = event
                && let Some(context) = TraceContext::of(message.headers.as_ref()).filter(TraceContext::is_sampled)
            {
                tracer.deliver(message, &context, door, consumer);
                if let Some(now) = live {
                    let micros = now.saturating_sub(message.accepted_at);
                    self.broker.0.measures.delivered_traced(&context, micros);
                }
            }
        }
    }

    /// Reads on as what the principal may read now.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] or [`Error::Forbidden`] where that is nothing.
    fn look_again(&mut self, principal: &Principal) -> Result<(), Error> {
        match &mut self.source {
            ReadFrom::Topic { reader, .. } if self.broker.is_events(&reader.topic) => {
                self.wanted.shown = principal.shown_events(self.wanted.about.as_ref())?;
            }
            ReadFrom::Topic { reader, .. } => principal.check_topic(Right::Subscribe, reader.topic.name())?,
            ReadFrom::Pattern { pattern, member, memberships } => {
                let parts = principal.readable(pattern)?;
                self.broker.0.registry.rejoin(&parts, member, memberships)?;
            }
        }
        Ok(())
    }

    /// Reads on on behalf of the same principal by another credential, such as a newer token.
    pub fn renew(&mut self, principal: &Principal) {
        if self.watch.principal().is(principal) {
            let waiter = match &self.source {
                ReadFrom::Topic { waiter, .. } => waiter,
                ReadFrom::Pattern { member, .. } => &member.waiter,
            };
            self.watch = principal.watch(waiter);
            // What the new credential allows may be something else.
            self.watch.has_seen(u64::MAX);
            waiter.wake();
        }
    }

    /// Everything that was published until now.
    #[must_use]
    pub fn newest(&self) -> Newest {
        Newest(match &self.source {
            ReadFrom::Topic { reader, .. } => NewestOf::Topic(reader.topic.last()),
            ReadFrom::Pattern { .. } => NewestOf::Logs(self.broker.newest_sequences()),
        })
    }

    /// Whether that was read.
    #[must_use]
    pub fn has_read(&self, newest: &Newest) -> bool {
        match (&self.source, &newest.0) {
            (ReadFrom::Topic { reader, .. }, NewestOf::Topic(offset)) => reader.cursor().offset >= *offset,
            (ReadFrom::Pattern { member, .. }, NewestOf::Logs(positions)) => member.has_passed(positions),
            // It was taken of another subscription: there is nothing to wait for.
            _ => true,
        }
    }

    /// The position with which the subscription began: subscribing `after` it delivers the same.
    #[must_use]
    pub fn begins_at(&self) -> &AnyCursor {
        &self.begins_at
    }

    /// What it has subscribed to: a topic's name or a pattern.
    #[must_use]
    pub fn source(&self) -> &str {
        match &self.source {
            ReadFrom::Topic { reader, .. } => reader.topic.name().as_str(),
            ReadFrom::Pattern { pattern, .. } => pattern.as_str(),
        }
    }

    /// The consumer of the subscription as it was when subscribing.
    #[must_use]
    pub fn consumer(&self) -> Option<&ConsumerInfo> {
        self.lease.as_ref().map(|lease| &lease.info)
    }

    /// With `ack: AUTO`: everything read so far is on its way to the client; [`Subscription::acknowledge_in_flight`]
    /// will say that it arrived. Returns whether there is anything to acknowledge.
    pub fn mark_in_flight(&mut self) -> bool {
        self.lease.as_mut().is_some_and(Lease::mark_in_flight)
    }

    /// With `ack: AUTO`: what was in flight has arrived; the consumer's position moves behind it.
    pub fn acknowledge_in_flight(&mut self) {
        if let Some(lease) = &mut self.lease
            && let Some(accepted_at) = lease.acknowledge_in_flight()
        {
            self.broker.0.measures.confirmed(accepted_at);
        }
    }
}

/// What changes when a pattern is read.
struct PatternReading<'a> {
    member: &'a Member,
    lease: &'a mut Option<Lease>,
    marker: &'a mut Marker,
}

impl PatternReading<'_> {
    fn read(&mut self, wanted: &Wanted, limit: BatchLimit, events: &mut Vec<Event>) -> Progress {
        let share = BatchLimit { messages: limit.messages.min(PATTERN_QUANTUM), bytes: limit.bytes / 4 + 1 };
        // Nobody falls behind before the state is complete, also not in a topic whose state is.
        let patient =
            (*self.marker == Marker::Behind).then(|| Wanted { overflow: Overflow::History, ..wanted.clone() });
        let deleted = self.member.take_deleted().into_iter();
        events.extend(deleted.map(|topic| Event::Deleted { topic, unread: true }));
        let (mut read, mut bytes) = (0, 0);
        while read < limit.messages && bytes < limit.bytes {
            self.mark_state(events);
            let Some(reader) = self.member.take_next() else { break };
            let before = events.len();
            let wanted = patient.as_ref().filter(|_| *self.marker == Marker::Behind).unwrap_or(wanted);
            if let Err(error) = self.read_topic(reader, wanted, share, events) {
                return Progress::Ended(error);
            }
            // What a filter passes over is work, too: each topic counts.
            read += (events.len() - before).max(1);
            bytes += events.iter().skip(before).map(Event::bytes).sum::<usize>();
        }
        self.mark_state(events);
        if self.member.has_unread() {
            return Progress::More;
        }
        if std::mem::replace(self.marker, Marker::None) != Marker::None {
            events.push(Event::StateComplete(AnyCursor::Pattern(self.member.cursor())));
        }
        Progress::CaughtUp
    }

    /// Reads a batch of one topic.
    fn read_topic(
        &mut self,
        mut reader: Reader,
        wanted: &Wanted,
        share: BatchLimit,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let Self { member, lease, .. } = self;
        let (serial, log) = (reader.topic.serial(), reader.topic.log());
        let (before, in_state) = (events.len(), reader.is_in_state());
        let newest = || member.newest_of(log);
        let rest = reader.read(wanted, share, events, Some(newest), || member.finish(serial));
        let epoch = reader.topic.log_epoch();
        for event in events.iter_mut().skip(before) {
            if let Event::Message(message, position) = event {
                *position = Some(member.passed(log, LogPosition { epoch, sequence: message.sequence }));
            }
        }
        if let Some(sequence) = reader.looked_at().filter(|_| in_state) {
            // What is no part of the state lies before the position, too.
            member.looked_at(log, LogPosition { epoch, sequence });
        }
        if in_state && !reader.is_in_state() {
            member.state_was_read();
        }
        if let Some(lease) = lease {
            lease.passed(|| member.cursor());
            lease.delivered(reader.topic.name(), reader.cursor());
        }
        match rest? {
            ReadStatus::More => member.requeue(reader),
            ReadStatus::CaughtUp => {}
            ReadStatus::Closed => {
                if let Some(lease) = lease {
                    lease.topic_ended(reader.topic.name(), reader.cursor());
                }
                events.push(Event::Deleted { topic: reader.topic.name().clone(), unread: false });
            }
        }
        Ok(())
    }

    /// Says that the state is complete as soon as it is.
    fn mark_state(&mut self, events: &mut Vec<Event>) {
        if *self.marker == Marker::Behind && self.member.has_read_state() {
            *self.marker = Marker::None;
            events.push(Event::StateComplete(AnyCursor::Pattern(self.member.cursor())));
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.broker.unsubscribed();
        if let ReadFrom::Topic { reader, slot, .. } = &self.source {
            reader.topic.detach(*slot);
            self.broker.release_if_unused(&reader.topic);
        }
    }
}
