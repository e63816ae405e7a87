//! A live subscription: its cursor, or, for a pattern, its cursors.

use std::sync::{Arc, atomic::Ordering};

use super::{AnyCursor, Broker, Principal, Right, TraceContext, consumer::Lease, principal::Watch};
use crate::channel::{
    ALONE, BatchLimit, ConsumerInfo, Error, Event, LogPosition, Member, Memberships, Pattern, ReadStatus, Reader,
    Waiter, Wanted, moment,
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
                    Ok(ReadStatus::CaughtUp) => Progress::CaughtUp,
                    Ok(ReadStatus::Closed) => Progress::Ended(Error::TopicDeleted(reader.topic.name().clone())),
                    Err(error) => Progress::Ended(error),
                }
            }
            ReadFrom::Pattern { member, .. } => read_pattern(member, &self.wanted, &mut self.lease, limit, events),
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

fn read_pattern(
    member: &Member,
    wanted: &Wanted,
    lease: &mut Option<Lease>,
    limit: BatchLimit,
    events: &mut Vec<Event>,
) -> Progress {
    let share = BatchLimit { messages: limit.messages.min(PATTERN_QUANTUM), bytes: limit.bytes / 4 + 1 };
    events.extend(member.take_deleted().into_iter().map(|topic| Event::Deleted { topic, unread: true }));
    let (mut read, mut bytes) = (0, 0);
    while read < limit.messages && bytes < limit.bytes {
        let Some(mut reader) = member.take_next() else { return Progress::CaughtUp };
        let (serial, log) = (reader.topic.serial(), reader.topic.log());
        let before = events.len();
        let newest = || member.newest_of(log);
        let rest = reader.read(wanted, share, events, Some(newest), || member.finish(serial));
        let epoch = reader.topic.log_epoch();
        for event in events.iter_mut().skip(before) {
            if let Event::Message(message, position) = event {
                *position = Some(member.passed(log, LogPosition { epoch, sequence: message.sequence }));
            }
        }
        if let Some(lease) = lease {
            lease.passed(|| member.cursor());
        }
        // What a filter passes over is work, too: each topic counts.
        read += (events.len() - before).max(1);
        bytes += events.iter().skip(before).map(Event::bytes).sum::<usize>();
        if let Some(lease) = lease {
            lease.delivered(reader.topic.name(), reader.cursor());
        }
        match rest {
            Ok(ReadStatus::More) => member.requeue(reader),
            Ok(ReadStatus::CaughtUp) => {}
            Ok(ReadStatus::Closed) => {
                if let Some(lease) = lease {
                    lease.topic_ended(reader.topic.name(), reader.cursor());
                }
                events.push(Event::Deleted { topic: reader.topic.name().clone(), unread: false });
            }
            Err(error) => return Progress::Ended(error),
        }
    }
    if member.has_unread() { Progress::More } else { Progress::CaughtUp }
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
