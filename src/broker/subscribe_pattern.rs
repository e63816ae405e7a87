//! Subscribing to a pattern: each of its topics from a position of its own, and one position over all of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    AnyCursor, Broker, Subscription,
    consumer::Lease,
    subscribe::Begin,
    subscription::{Marker, ReadFrom},
};
use crate::channel::{
    Channel, Cursor, Deletion, Error, LogPosition, Matching, Member, Pattern, PatternCursor, Start, TopicName, Wanted,
};

/// Why a message's own cursor is refused.
pub(super) const PATTERN_CURSOR_NEEDED: &str = "is a position in one topic; a pattern takes a pattern cursor (patternCursor \
     in GraphQL, pattern_cursor on /ws, the id of an event stream)";

/// What learns where each topic of a pattern begins to be read.
pub(super) type Noting<'a> = &'a mut dyn FnMut(&TopicName, Cursor) -> Result<(), Error>;

/// Where the topics of a pattern are read from.
pub(super) enum PatternStart {
    /// All from the same start.
    Start(Start),
    /// After a position over all of them.
    Position(PatternCursor),
    /// Where a consumer stands in each. A topic that it has not met was made behind the position `since`.
    Kept { cursors: HashMap<TopicName, Cursor>, since: Option<PatternCursor> },
}

/// Where one topic is read from.
struct TopicBeginning {
    start: Start,
    /// The position to keep if that start is of an earlier incarnation of the topic.
    earlier_incarnation: Option<Cursor>,
}

impl Broker {
    pub(super) async fn subscribe_pattern(
        &self,
        pattern: &Pattern,
        begin: Begin<'_>,
        mut lease: Option<Lease>,
    ) -> Result<Subscription, Error> {
        let Begin { principal, start, resume, waiter } = begin;
        let kept = lease.as_ref().filter(|lease| lease.info.resumed).map(Lease::cursors);
        let marker = Marker::of(start.as_ref(), resume.is_some(), kept.is_some());
        let from = match (resume.or(if kept.is_some() { None } else { start }), kept) {
            (Some(Start::After(_)), _) => {
                return Err(Error::bad_request("after", PATTERN_CURSOR_NEEDED));
            }
            (Some(Start::AfterPattern(cursor)), _) => {
                self.0.engine.catch_up_logs(&cursor).await?;
                PatternStart::Position(cursor)
            }
            (Some(start), _) => {
                if matches!(start, Start::Since(_) | Start::State) {
                    self.0.engine.catch_up_to_newest().await?;
                }
                PatternStart::Start(start)
            }
            (None, Some(cursors)) => {
                let since = lease.as_ref().and_then(Lease::since);
                self.catch_up_consumer(&cursors, since.as_ref()).await?;
                PatternStart::Kept { cursors, since }
            }
            (None, None) => PatternStart::Start(Start::Live),
        };
        let member = Member::new(waiter.clone());
        let parts = principal.readable(pattern)?;
        let goes_on = matches!(from, PatternStart::Kept { .. });
        let matching = match lease.as_mut().filter(|_| !goes_on) {
            Some(lease) => {
                let mut begin = |topic: &TopicName, cursor| lease.begin(topic, cursor);
                self.begin_pattern(pattern, &parts, &member, &from, Some(&mut begin))?
            }
            None => self.begin_pattern(pattern, &parts, &member, &from, None)?,
        };
        if let (PatternStart::Kept { cursors, .. }, Some(lease)) = (&from, &mut lease) {
            // Positions in topics that are gone are dropped where the deletion is not remembered: no event can be made
            // of them.
            let alive: HashSet<_> = matching.topics.iter().chain(&matching.ending).map(|topic| topic.name()).collect();
            let remembered: HashSet<_> = matching.deletions.iter().map(|deletion| deletion.epoch).collect();
            if cursors.iter().any(|(name, cursor)| !alive.contains(name) && !remembered.contains(&cursor.epoch)) {
                lease.prune(|name, cursor| alive.contains(name) || remembered.contains(&cursor.epoch));
            }
        }
        if let Some(lease) = lease.as_mut().filter(|_| !goes_on) {
            lease.begin_since(member.cursor());
        }
        let begins_at = AnyCursor::Pattern(member.cursor());
        self.subscribed();
        Ok(Subscription {
            broker: self.clone(),
            source: ReadFrom::Pattern { pattern: pattern.clone(), member, memberships: matching.memberships },
            wanted: Wanted::default(),
            lease,
            ended: None,
            watch: principal.watch(waiter),
            begins_at,
            marker,
        })
    }

    /// Learns what another instance may have delivered to a consumer, and in which incarnations of its topics. An instance
    /// that did not know those would take its own, earlier ones for new.
    async fn catch_up_consumer(
        &self,
        cursors: &HashMap<TopicName, Cursor>,
        since: Option<&PatternCursor>,
    ) -> Result<(), Error> {
        if let Some(since) = since {
            self.0.engine.catch_up_logs(since).await?;
        }
        match cursors.values().max_by_key(|cursor| cursor.offset) {
            Some(cursor) => self.0.engine.catch_up(Some(*cursor)).await,
            None => Ok(()),
        }
    }

    /// Makes `member` a subscriber of those parts of a pattern, which reads from this start; `note` learns where each topic
    /// begins.
    ///
    /// # Errors
    /// [`Error::LimitReached`], [`Error::BadRequest`] for a position ahead of the topics, those of `note`.
    pub(super) fn begin_pattern(
        &self,
        pattern: &Pattern,
        parts: &[Pattern],
        member: &Arc<Member>,
        from: &PatternStart,
        note: Option<Noting<'_>>,
    ) -> Result<Matching, Error> {
        let matching = self.0.registry.join(pattern, parts, member)?;
        if let PatternStart::Position(cursor) = from
            && matching
                .positions
                .iter()
                .any(|(_, newest)| cursor.sequence_in(newest.epoch).is_some_and(|sequence| sequence > newest.sequence))
        {
            return Err(Error::bad_request("after", "is ahead of the topics"));
        }
        from.seed(&matching, member, note)?;
        Ok(matching)
    }
}

impl PatternStart {
    /// Sets where each topic is read from. `note` learns it, for a consumer whose positions begin there.
    fn seed(&self, matching: &Matching, member: &Member, mut note: Option<Noting<'_>>) -> Result<(), Error> {
        match self {
            PatternStart::Position(cursor) => member.begin(matching.positions.iter().map(|(log, newest)| {
                let sequence = cursor.sequence_in(newest.epoch).unwrap_or(0);
                (*log, LogPosition { sequence, ..*newest })
            })),
            PatternStart::Start(_) | PatternStart::Kept { .. } => member.begin(matching.positions.iter().copied()),
        }
        if matches!(self, PatternStart::Start(Start::Live)) && note.is_none() {
            return Ok(());
        }
        let ending = matching.ending.iter().filter(|topic| self.reads_to_the_end(topic, matching));
        for topic in ending.chain(&matching.topics) {
            let TopicBeginning { start, earlier_incarnation } = self.beginning(topic, matching);
            let (reader, is_news) = topic.locate(&start);
            if let Some(note) = &mut note {
                note(topic.name(), earlier_incarnation.unwrap_or_else(|| reader.cursor()))?;
            }
            if is_news {
                member.seed(reader);
            }
        }
        for topic in self.deleted(matching) {
            member.seed_deleted(topic);
        }
        if !matches!(self, PatternStart::Position(_)) {
            member.begin_before_unread();
        }
        Ok(())
    }

    /// Whether this incarnation, which is about to end, is read on where the subscriber stands.
    fn reads_to_the_end(&self, ending: &Channel, matching: &Matching) -> bool {
        match self {
            PatternStart::Start(_) => false,
            PatternStart::Position(_) => true,
            // Its position may be in the next incarnation already.
            PatternStart::Kept { cursors, .. } => !cursors
                .get(ending.name())
                .is_some_and(|cursor| matching.topics.iter().any(|topic| topic.epoch() == cursor.epoch)),
        }
    }

    fn beginning(&self, topic: &Channel, matching: &Matching) -> TopicBeginning {
        let epoch = topic.epoch();
        let from_first = Start::After(Cursor { epoch, offset: 0 });
        let is_next = |ending: &Arc<Channel>| {
            ending.name() == topic.name() && ending.epoch() != epoch && self.reads_to_the_end(ending, matching)
        };
        if matching.ending.iter().any(is_next) && matching.topics.iter().any(|alive| alive.epoch() == epoch) {
            // It is read behind the incarnation before it, as by somebody who was there.
            return TopicBeginning { start: from_first, earlier_incarnation: None };
        }
        let start = match self {
            PatternStart::Start(Start::Live) => {
                matching.sequence_of(topic.log()).map_or(from_first, Start::AfterSequence)
            }
            PatternStart::Start(start) => start.clone(),
            PatternStart::Kept { cursors, since } => match (cursors.get(topic.name()), since) {
                (Some(cursor), _) => Start::After(*cursor),
                (None, Some(since)) => match earlier_incarnation(since, topic, matching) {
                    Some(earlier) => Start::After(earlier),
                    None => from_first,
                },
                (None, None) => from_first,
            },
            PatternStart::Position(cursor) => return position_in(cursor, topic, matching),
        };
        TopicBeginning { start, earlier_incarnation: None }
    }

    /// The topics that were deleted with unread messages and do not exist any more.
    fn deleted(&self, matching: &Matching) -> Vec<TopicName> {
        let alive: HashSet<_> = matching.topics.iter().chain(&matching.ending).map(|topic| topic.name()).collect();
        let unread = |deletion: &&Deletion| match self {
            PatternStart::Start(_) => false,
            PatternStart::Position(cursor) => is_unread(cursor, deletion, matching),
            PatternStart::Kept { cursors, since } => match cursors.get(&deletion.name) {
                Some(cursor) if cursor.epoch == deletion.epoch => {
                    deletion.newest_offset.is_none_or(|newest| newest > cursor.offset)
                }
                _ => since.as_ref().is_some_and(|since| is_unread(since, deletion, matching)),
            },
        };
        let mut told = HashSet::new();
        let deleted = matching.deletions.iter().filter(unread).map(|deletion| &deletion.name);
        deleted.filter(|name| !alive.contains(name) && told.insert(*name)).cloned().collect()
    }
}

/// Whether a topic was deleted with messages behind this position.
fn is_unread(cursor: &PatternCursor, deletion: &Deletion, matching: &Matching) -> bool {
    let log = matching.positions.iter().find(|(log, _)| *log == deletion.log);
    let read = log.and_then(|(_, newest)| cursor.sequence_in(newest.epoch));
    read.is_some_and(|read| deletion.newest_sequence > read)
}

/// An incarnation of the topic's name that was deleted with messages behind this position: what was unread went with
/// it.
fn earlier_incarnation(cursor: &PatternCursor, topic: &Channel, matching: &Matching) -> Option<Cursor> {
    let mut deletions = matching.deletions.iter().rev();
    let earlier = deletions.find(|deletion| {
        deletion.name == *topic.name() && deletion.epoch != topic.epoch() && is_unread(cursor, deletion, matching)
    });
    earlier.map(|deletion| Cursor { epoch: deletion.epoch, offset: 0 })
}

/// Where a topic goes on for somebody at this position over all topics.
fn position_in(cursor: &PatternCursor, topic: &Channel, matching: &Matching) -> TopicBeginning {
    let in_log = cursor.sequence_in(topic.log_epoch());
    if let Some(earlier_incarnation) = earlier_incarnation(cursor, topic, matching) {
        return TopicBeginning {
            start: Start::After(earlier_incarnation),
            earlier_incarnation: Some(earlier_incarnation),
        };
    }
    if let Some(sequence) = in_log {
        return TopicBeginning { start: Start::AfterSequence(sequence), earlier_incarnation: None };
    }
    let is_known = |position: &LogPosition| matching.positions.iter().any(|(_, known)| known.epoch == position.epoch);
    match cursor.logs.iter().find(|position| !is_known(position)) {
        // The position is of another engine's logs, or of one that was made again.
        Some(other) => {
            let earlier_incarnation = Cursor { epoch: other.epoch, offset: 0 };
            TopicBeginning {
                start: Start::AfterPattern(cursor.clone()),
                earlier_incarnation: Some(earlier_incarnation),
            }
        }
        // The topic's log was not used yet.
        None => {
            let first = Cursor { epoch: topic.epoch(), offset: 0 };
            TopicBeginning { start: Start::After(first), earlier_incarnation: None }
        }
    }
}
