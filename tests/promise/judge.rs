//! A subscription held against the model: its messages and gaps tile the log of each topic from where it began.

use crate::{
    begin::{Begin, Positions, Span, earliest, latest, newest_before},
    leg::{Door, End, Gap, Leg, Overflow, Seen, Start},
    model::{Incarnation, Micros, Model, Place, short},
    segments::Segment,
};

/// One subscription's events, up to some point, and where it began.
pub struct Judge<'a> {
    pub model: &'a Model,
    pub leg: &'a Leg,
    pub begin: &'a Begin,
    /// It must have told of everything that was answered before this.
    pub until: Option<Micros>,
}

impl<'a> Judge<'a> {
    /// Everything that the events show must hold.
    ///
    /// # Errors
    /// What does not.
    pub fn walk(&self, events: &[(Micros, Seen)]) -> Result<Positions, String> {
        let covered = |topic: &&String| self.leg.ask.target.covers(topic);
        if let Some((_, stray)) = events.iter().find(|(_, seen)| !self.leg.ask.target.covers(seen.topic())) {
            return Err(format!("{stray:?} was not subscribed"));
        }
        let mut positions = Positions::new();
        for topic in self.model.topics.keys().filter(covered) {
            self.topic(topic, events, &mut positions)?;
        }
        Ok(positions)
    }

    fn topic(&self, topic: &str, events: &[(Micros, Seen)], positions: &mut Positions) -> Result<(), String> {
        let segments = self.segments(topic, events);
        let incarnations = self.model.topics.get(topic).map_or(&[][..], Vec::as_slice);
        for epoch in incarnations {
            let span = self.begin.span(self.model, self.leg, epoch);
            // Whoever begins does not begin in an incarnation that is over.
            let over = self.model.incarnations[epoch]
                .deleted
                .is_some_and(|(sent, _)| self.leg.stood.is_none_or(|at| sent < at));
            let hi = if over && !self.begin.is_resumed() { u64::MAX } else { span.hi };
            positions.insert(epoch.clone(), Span { lo: self.known_lo(span.lo), hi });
        }
        self.check_resumption(topic, incarnations, &segments)?;
        for segment in &segments {
            if let Some(epoch) = &segment.epoch {
                let span = self.segment(segment, epoch)?;
                positions.insert(epoch.clone(), span);
            } else {
                // What was told may have been told of any of them.
                for epoch in incarnations {
                    positions.entry(epoch.clone()).and_modify(|span| span.hi = u64::MAX);
                }
            }
            self.close(incarnations, segment, positions);
        }
        // What was not seen at all.
        let unclear = segments.iter().any(|segment| segment.epoch.is_none());
        for epoch in incarnations {
            if unclear || segments.iter().any(|segment| segment.epoch.as_ref() == Some(epoch)) {
                continue;
            }
            let incarnation = &self.model.incarnations[epoch];
            // A deletion that is not answered yet may have taken effect.
            let deleting = self.model.deleting.iter().filter(|(name, _)| name == topic).map(|(_, sent)| *sent);
            let mut deletions = deleting.chain(incarnation.deleted.map(|(sent, _)| sent));
            if deletions.any(|sent| self.leg.stood.is_none_or(|stood| sent < stood)) {
                continue;
            }
            self.check_end(incarnation, epoch, positions[epoch])?;
        }
        Ok(())
    }

    /// Whoever was told of a later incarnation, or of the deletion, has done with the earlier ones.
    fn close(&self, incarnations: &[String], segment: &Segment<'_>, positions: &mut Positions) {
        let mut close = |epoch: &String| positions.insert(epoch.clone(), Span::at(u64::MAX));
        let deleted = segment.is_deleted();
        let renewed = segment.items.iter().any(|(_, seen)| matches!(seen, Seen::Gap(gap) if gap.reason == "NEW_EPOCH"));
        let begun = segment.items.first().map_or(0, |(at, _)| *at);
        let is_gone = |epoch: &&String| self.model.incarnations[*epoch].deleted.is_some_and(|(sent, _)| sent <= begun);
        let later = match &segment.epoch {
            Some(epoch) => incarnations.iter().position(|incarnation| incarnation == epoch).unwrap_or(0),
            None if renewed => incarnations.len().saturating_sub(1),
            None => usize::from(deleted),
        };
        incarnations[..later.min(incarnations.len())].iter().filter(is_gone).for_each(|epoch| _ = close(epoch));
        if let Some(epoch) = segment.epoch.as_ref().filter(|_| deleted) {
            close(epoch);
        }
    }

    /// A position in a pattern that began with the last of each topic may stand before the last of another topic, of which
    /// nothing was told yet: they are then told from there.
    fn known_lo(&self, lo: u64) -> u64 {
        let lasts = matches!(self.leg.ask.start, Start::Last(_)) && !self.begin.is_resumed();
        if lasts && self.leg.ask.target.is_pattern { 0 } else { lo }
    }

    /// A topic that went away with unread messages while a reader was away is told.
    fn check_resumption(&self, topic: &str, incarnations: &[String], segments: &[Segment<'_>]) -> Result<(), String> {
        if !self.begin.is_resumed() || !self.leg.ask.target.is_pattern {
            return Ok(());
        }
        let first = segments.first().and_then(|segment| segment.items.first()).map(|(_, seen)| *seen);
        for epoch in incarnations {
            let incarnation = &self.model.incarnations[epoch];
            let Some((sent, Some(answered))) = incarnation.deleted else { continue };
            let span = self.begin.span(self.model, self.leg, epoch);
            let newest = newest_before(self.model, incarnation, sent, None);
            let Some(unread) = self.untold(incarnation, span.hi, newest).filter(|_| answered < self.leg.sent) else {
                continue;
            };
            let told = match first {
                Some(Seen::Gap(gap)) => gap.reason == "NEW_EPOCH",
                Some(Seen::Deleted(_)) => true,
                Some(Seen::Message { .. }) => false,
                None => self.until.is_none() || self.leg.door.is_graphql(),
            };
            if !told {
                return Err(format!(
                    "{topic} was deleted meanwhile with {unread} of {} unread, and begins with {first:?}",
                    short(epoch)
                ));
            }
        }
        Ok(())
    }

    fn segment(&self, segment: &Segment<'_>, epoch: &str) -> Result<Span, String> {
        let Some(incarnation) = self.model.incarnations.get(epoch) else { return Ok(Span::ANY) };
        let mut delivered = None;
        let mut span = if segment.is_first { self.begin.span(self.model, self.leg, epoch) } else { Span::at(0) };
        let first = span;
        let deleted_before =
            incarnation.deleted.and_then(|(_, answered)| answered).is_some_and(|at| at < self.leg.sent);
        for (index, (at, seen)) in segment.items.iter().enumerate() {
            let is_first = segment.is_first && index == 0;
            match seen {
                Seen::Message { place, time, .. } => {
                    if deleted_before && self.model.dense {
                        return Err(format!("{place:?} comes from an incarnation that was deleted before"));
                    }
                    self.check_message(incarnation, place, *time, span, is_first)?;
                    span = Span::at(place.offset);
                    delivered = Some(place.offset);
                }
                Seen::Gap(gap) => span = self.check_gap(incarnation, gap, span, *at, is_first, index == 0)?,
                Seen::Deleted(topic) => {
                    // At the beginning of a resumed stream it is about an earlier incarnation, which this stream has nothing of.
                    let is_earlier = is_first && self.begin.is_resumed();
                    let other = || self.model.deletions.iter().any(|(name, sent)| name == topic && sent <= at);
                    if incarnation.deleted.is_none_or(|(sent, _)| sent > *at) && !(is_earlier && other()) {
                        return Err(format!("{topic} is said to be deleted, which nobody did"));
                    }
                }
            }
        }
        // Deleted before the subscription stood: what was unread went with it, and the notice says so.
        let deleted_while_away =
            incarnation.deleted.is_some_and(|(sent, _)| self.leg.stood.is_none_or(|stood| sent < stood));
        if !(deleted_while_away && segment.is_first && self.begin.is_resumed()) {
            let ends_here = segment.is_over.then(|| incarnation.deleted.map(|(sent, _)| sent)).flatten();
            match ends_here {
                Some(sent) => self.check_until(incarnation, epoch, span, sent)?,
                None => self.check_end(incarnation, epoch, span)?,
            }
        }
        // A pattern's position may stand before a gap that was told: then it is told again.
        let lo = delivered.unwrap_or_else(|| self.known_lo(first.lo));
        Ok(if self.leg.ask.target.is_pattern { Span { lo: lo.min(span.lo), ..span } } else { span })
    }

    fn check_message(
        &self,
        incarnation: &Incarnation,
        place: &Place,
        time: Option<i64>,
        span: Span,
        is_first: bool,
    ) -> Result<(), String> {
        let (topic, offset) = (&incarnation.topic, place.offset);
        if offset <= span.lo {
            return Err(format!("{topic}: offset {offset} of {} comes behind {}", short(&place.epoch), span.lo));
        }
        if let Some(untold) = self.untold(incarnation, span.hi, offset - 1) {
            return Err(format!("{topic}: offset {untold} is left out before {offset}, behind {span:?}"));
        }
        let resumes = matches!(&self.leg.ask.start, Start::After { place: after, .. } if after.epoch != place.epoch);
        if is_first && resumes && !self.begin.is_resumed() {
            return Err(format!("{topic}: {place:?} follows another incarnation's cursor without a gap NEW_EPOCH"));
        }
        let passes = incarnation.log.get(&offset).is_some_and(|n| self.model.passes(self.leg.ask.filter.as_ref(), *n));
        if !passes {
            return Err(format!("{topic}: offset {offset} does not pass the filter"));
        }
        if let (Start::Since { wall, .. }, Some(time), false) = (&self.leg.ask.start, time, self.begin.is_resumed())
            && time < *wall
            && self.was_answered(incarnation, offset)
        {
            return Err(format!("{topic}: offset {offset} is older ({time}) than what was asked for ({wall})"));
        }
        if offset <= incarnation.floor_at(self.leg.sent) {
            return Err(format!("{topic}: offset {offset} was gone before, and comes back"));
        }
        Ok(())
    }

    /// Whether a message was answered before the subscription was sent; one on its way then is what comes later.
    fn was_answered(&self, incarnation: &Incarnation, offset: u64) -> bool {
        let publish = incarnation.log.get(&offset).map(|n| &self.model.publishes[*n as usize]);
        publish.and_then(|publish| publish.answered.as_ref()).is_some_and(|(at, ..)| *at < self.leg.sent)
    }

    fn check_gap(
        &self,
        incarnation: &Incarnation,
        gap: &Gap,
        span: Span,
        at: Micros,
        is_first: bool,
        opens: bool,
    ) -> Result<Span, String> {
        let topic = &incarnation.topic;
        // An instance that has itself lost a range does not know where in it a position over all topics lies.
        let lost_by_instance = !self.model.dense
            && is_first
            && gap.missed.is_none()
            && self.leg.ask.target.is_pattern
            && self.begin.is_resumed();
        if gap.from == 0 || gap.to + 1 < gap.from || (gap.from - 1 < span.lo && !lost_by_instance) {
            return Err(format!("{topic}: {gap:?} stands behind {span:?}"));
        }
        if let Some(untold) = self.untold(incarnation, span.hi, gap.from - 1) {
            return Err(format!("{topic}: offset {untold} is left out before {gap:?}, behind {span:?}"));
        }
        self.check_missed(incarnation, gap, is_first)?;
        let plausible = match gap.reason.as_str() {
            "NEW_EPOCH" => {
                let other = matches!(&self.leg.ask.start, Start::After { place, .. }
                    if self.model.incarnations.get(&place.epoch).is_none_or(|known| !std::ptr::eq(known, incarnation)));
                opens && (other || self.begin.is_resumed())
            }
            "EXPIRED" => {
                let past = matches!(&self.leg.ask.start, Start::After { .. } | Start::Since { .. });
                !self.model.dense || is_first && (past || self.begin.is_resumed())
            }
            "SLOW_CONSUMER" => true,
            _ => false,
        };
        if !plausible {
            return Err(format!("{topic}: the reason of {gap:?} cannot be"));
        }
        self.check_gone(incarnation, gap, at)?;
        Ok(Span::at(if gap.to < gap.from { gap.from - 1 } else { gap.to }))
    }

    /// The number missed, as exactly as the engine can know it.
    fn check_missed(&self, incarnation: &Incarnation, gap: &Gap, is_first: bool) -> Result<(), String> {
        let size = gap.to + 1 - gap.from;
        let filter = self.leg.ask.filter.as_ref();
        let range = || incarnation.log.range(gap.from..gap.to + 1);
        let (mut least, mut most) = if self.model.dense {
            let passing = || range().filter(|(_, n)| self.model.passes(filter, **n)).count() as u64;
            (if filter.is_none() { size } else { passing() }, size)
        } else {
            let passing = range().filter(|(_, n)| self.model.passes(filter, **n)).count() as u64;
            (passing, range().count() as u64 + self.model.unseen(&incarnation.topic))
        };
        if let (Start::Since { wall, .. }, true, "EXPIRED") = (&self.leg.ask.start, is_first, gap.reason.as_str())
            && !self.begin.is_resumed()
        {
            let count = |time: fn(&Model, &Incarnation, u64, u64) -> i64| {
                let late = |(offset, n): &(&u64, &u64)| time(self.model, incarnation, **offset, **n) >= *wall;
                range().filter(late).filter(|(_, n)| self.model.passes(filter, **n)).count() as u64
            };
            let unknown =
                if self.model.dense { size - range().count() as u64 } else { self.model.unseen(&incarnation.topic) };
            (least, most) = (count(earliest), if filter.is_none() { count(latest) + unknown } else { most });
            if gap.missed.is_none() {
                return Ok(());
            }
        }
        match gap.missed {
            Some(missed) if (least..=most).contains(&missed) => Ok(()),
            None if !self.model.dense => Ok(()),
            _ => Err(format!("{}: {gap:?} should count {least} to {most}", incarnation.topic)),
        }
    }

    /// What a gap tells of must be gone, unless the subscriber has chosen to skip.
    fn check_gone(&self, incarnation: &Incarnation, gap: &Gap, at: Micros) -> Result<(), String> {
        let keeps = matches!(self.leg.ask.overflow, Overflow::History | Overflow::Disconnect);
        let deleted = incarnation.deleted.is_some_and(|(sent, _)| sent <= at);
        if !keeps || deleted || gap.to < gap.from {
            return Ok(());
        }
        let (least, _) = self.model.bounds_until(&incarnation.topic, at);
        let sent = |n: u64| self.model.publishes[n as usize].sent <= at;
        let behind = if self.model.dense {
            let newest = incarnation.log.iter().rev().find(|(_, n)| sent(**n)).map_or(0, |(offset, _)| *offset);
            newest.saturating_sub(gap.to)
        } else {
            incarnation.log.range(gap.to + 1..).filter(|(_, n)| sent(**n)).count() as u64
        };
        if behind + self.model.unseen(&incarnation.topic) < least {
            return Err(format!("{}: {gap:?} tells of what is kept: {behind} are newer of {least}", incarnation.topic));
        }
        Ok(())
    }

    /// The first offset behind `after`, up to `to`, that had to be told.
    fn untold(&self, incarnation: &Incarnation, after: u64, to: u64) -> Option<u64> {
        if after >= to {
            return None;
        }
        let filter = self.leg.ask.filter.as_ref();
        let mut next = after + 1;
        for (offset, n) in incarnation.log.range(after + 1..=to) {
            if self.model.dense && filter.is_none() && *offset != next {
                return Some(next);
            }
            if self.model.passes(filter, *n) {
                return Some(*offset);
            }
            next = offset + 1;
        }
        (self.model.dense && filter.is_none() && next <= to).then_some(next)
    }

    /// What had to be told by the end of the stream.
    fn check_end(&self, incarnation: &Incarnation, epoch: &str, span: Span) -> Result<(), String> {
        let Some(until) = self.until else { return Ok(()) };
        let until = incarnation.deleted.map_or(until, |(sent, _)| until.min(sent));
        self.check_until(incarnation, epoch, span, until)
    }

    fn check_until(&self, incarnation: &Incarnation, epoch: &str, span: Span, until: Micros) -> Result<(), String> {
        let deleting = self.model.deleting.iter().filter(|(topic, _)| *topic == incarnation.topic);
        let until = deleting.fold(until, |until, (_, sent)| until.min(*sent));
        // An instance that stops tells what it has accepted itself. What another one has may come to it too late.
        let by = (self.leg.end == End::Away).then_some(self.leg.instance);
        let newest = newest_before(self.model, incarnation, until, by);
        match self.untold(incarnation, span.hi, newest) {
            None => Ok(()),
            Some(untold) => Err(format!(
                "{}: offset {untold} of {} was never told; the stream stands behind {span:?}, answered is {newest}",
                incarnation.topic,
                short(epoch)
            )),
        }
    }

    /// Whether its end is one that the contract has.
    ///
    /// # Errors
    /// Why not.
    pub fn check_ending(&self, may_be_unavailable: bool, may_be_taken_over: bool) -> Result<(), String> {
        let End::Failed(code) = &self.leg.end else { return Ok(()) };
        let fits = match code.as_str() {
            "SLOW_CONSUMER" => self.leg.ask.overflow == Overflow::Disconnect,
            "CONSUMER_TAKEN_OVER" => may_be_taken_over || self.leg.forgotten.is_some(),
            "UNAVAILABLE" => may_be_unavailable,
            // It is deleted at another instance in the same moment.
            "TOPIC_NOT_FOUND" => self.model.deletes && !self.model.dense,
            _ => false,
        };
        let door: Door = self.leg.door;
        if fits { Ok(()) } else { Err(format!("the subscription at {door:?} ended with {code}")) }
    }
}
