//! Moving a named consumer to another position, and how its live subscription follows.

use std::sync::Arc;

use super::{
    AnyCursor, Broker, Subscription,
    consumer::Lease,
    subscribe_pattern::{PATTERN_CURSOR_NEEDED, PatternStart},
    subscribe_topic::TOPIC_CURSOR_NEEDED,
    subscription::{Marker, ReadFrom},
    topics::{ahead, is_ahead},
};
use crate::channel::{
    ConsumerKey, ConsumerName, Error, Event, Inbox, Member, Overflow, Pattern, PatternCursor, Sought, Source, Standing,
    Start, TopicName, Waiter,
};

impl Broker {
    /// Moves a consumer to where a subscription with this start would begin, forward or back. Its live subscription, on whatever
    /// instance, goes on from there; messages that it passes over by that are a gap in its stream. Of a pattern, the
    /// positions of those topics are set that match one of `parts`. Returns the position.
    ///
    /// # Errors
    /// [`Error::ConsumerNotFound`], [`Error::TopicNotFound`], [`Error::BadRequest`] for a position of the other kind or ahead of
    /// the topic, [`Error::LimitReached`] for a pattern of more topics than a consumer may hold, [`Error::Unavailable`].
    pub async fn seek_consumer(
        &self,
        source: &Source,
        parts: &[Pattern],
        consumer: &ConsumerName,
        to: Start,
    ) -> Result<AnyCursor, Error> {
        self.check_opened()?;
        let key = ConsumerKey { source: source.clone(), name: consumer.clone() };
        let positions = self.0.engine.positions();
        // Another instance may have made, moved or deleted the consumer a moment ago.
        positions.get(&key).await?;
        if matches!(to, Start::Since(_)) {
            self.0.engine.catch_up_to_newest().await?;
        }
        let (sought, position) = match source {
            Source::Topic(name) => self.seek_topic(name, to).await?,
            Source::Pattern(pattern) => self.seek_pattern(pattern, parts, to).await?,
        };
        let known = self.0.consumers.get(&key).ok_or_else(|| Error::ConsumerNotFound(key.name.name().to_owned()))?;
        positions.seek(&known, &sought).await?;
        Ok(position)
    }

    async fn seek_topic(&self, name: &TopicName, to: Start) -> Result<(Sought, AnyCursor), Error> {
        let cursor = match to {
            Start::AfterPattern(_) => return Err(Error::bad_request("after", TOPIC_CURSOR_NEEDED)),
            Start::After(cursor) => {
                let topic = self.look_up(name, Some(cursor)).await?;
                if is_ahead(&topic, cursor) {
                    return Err(ahead("after"));
                }
                cursor
            }
            start => self.look_up(name, None).await?.locate(&start).0.cursor(),
        };
        Ok((Sought { cursors: vec![(name.clone(), cursor)], since: None }, AnyCursor::Topic(cursor)))
    }

    async fn seek_pattern(
        &self,
        pattern: &Pattern,
        parts: &[Pattern],
        to: Start,
    ) -> Result<(Sought, AnyCursor), Error> {
        let from = match to {
            Start::After(_) => return Err(Error::bad_request("after", PATTERN_CURSOR_NEEDED)),
            Start::AfterPattern(cursor) => {
                self.0.engine.catch_up_logs(&cursor).await?;
                PatternStart::Position(cursor)
            }
            start => PatternStart::Start(start),
        };
        // Nothing is read: the membership shows all topics at one moment.
        let nobody = Waiter::new(Inbox::default(), 0, Overflow::default(), None);
        let member = Member::new(nobody);
        let mut cursors = Vec::new();
        let mut note = |topic: &TopicName, cursor| {
            cursors.push((topic.clone(), cursor));
            Ok(())
        };
        self.begin_pattern(pattern, parts, &member, &from, Some(&mut note))?;
        let since: PatternCursor = member.cursor();
        Ok((Sought { cursors, since: Some(since.clone()) }, AnyCursor::Pattern(since)))
    }
}

impl Subscription {
    /// Goes on from where its consumer was moved, if it was.
    ///
    /// # Errors
    /// What stands against reading from there.
    pub(super) fn follow_seek(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let Some(Standing { cursors, since, .. }) = self.lease.as_mut().and_then(Lease::sought) else { return Ok(()) };
        let mut skipped = Vec::new();
        if self.marker != Marker::None {
            // The state was not read from there, but its client still waits to be told when it is at the end.
            self.marker = Marker::AtEnd;
        }
        match &mut self.source {
            ReadFrom::Topic { reader, .. } => {
                if let Some(cursor) = cursors.get(reader.topic.name()) {
                    skipped.extend(reader.seek(*cursor));
                }
            }
            ReadFrom::Pattern { pattern, member, memberships } => {
                for (topic, position) in member.unread() {
                    let cursor = cursors.get(topic.name());
                    skipped.extend(cursor.and_then(|cursor| topic.skipped(position, *cursor)));
                }
                let parts = self.watch.principal().readable(pattern)?;
                let fresh: Arc<Member> = Member::new(member.waiter.clone());
                let from = PatternStart::Kept { cursors, since };
                let matching = self.broker.begin_pattern(pattern, &parts, &fresh, &from, None)?;
                // The older membership ends with this.
                (*member, *memberships) = (fresh, matching.memberships);
            }
        }
        for gap in skipped {
            self.source.waiter().note_gap(&gap);
            events.push(Event::Gap(gap));
        }
        Ok(())
    }
}
