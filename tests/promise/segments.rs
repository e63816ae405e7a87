//! Which events of a subscription belong to which incarnation of a topic, and where there is doubt.

use crate::{
    judge::Judge,
    leg::{Gap, Seen, Start},
    model::{Incarnation, Micros, Place},
};

/// What a subscription saw of one incarnation of a topic.
pub(super) struct Segment<'a> {
    pub epoch: Option<String>,
    pub items: Vec<(Micros, &'a Seen)>,
    pub is_first: bool,
    /// More of the topic came, or the notice that it is deleted.
    pub is_over: bool,
    pub newest: u64,
}

impl Segment<'_> {
    pub fn is_deleted(&self) -> bool {
        self.items.iter().any(|(_, seen)| matches!(seen, Seen::Deleted(_)))
    }
}

impl Judge<'_> {
    /// Which events belong to which incarnation.
    pub(super) fn segments<'b>(&self, topic: &str, events: &'b [(Micros, Seen)]) -> Vec<Segment<'b>> {
        let mut segments: Vec<Segment<'b>> = Vec::new();
        let fresh = |is_first| Segment { epoch: None, items: Vec::new(), is_first, is_over: false, newest: 0 };
        let mut current = fresh(true);
        for (at, seen) in events.iter().filter(|(_, seen)| seen.topic() == topic) {
            let another = match seen {
                Seen::Message { place, .. } => match &current.epoch {
                    Some(epoch) => *epoch != place.epoch,
                    None => !current.items.is_empty() && !self.may_be_of(&current, place),
                },
                Seen::Gap(gap) => {
                    let begins = gap.reason == "NEW_EPOCH" || gap.from <= current.newest;
                    begins && !current.items.is_empty()
                }
                Seen::Deleted(_) => false,
            };
            if another {
                let later = self.take_gaps_behind(&mut current);
                current.is_over = true;
                segments.push(std::mem::replace(&mut current, fresh(false)));
                current.items = later;
            }
            current.items.push((*at, seen));
            match seen {
                Seen::Message { place, .. } => {
                    (current.epoch, current.newest) = (Some(place.epoch.clone()), place.offset);
                }
                Seen::Gap(gap) => current.newest = current.newest.max(gap.to),
                Seen::Deleted(_) => {
                    current.is_over = true;
                    segments.push(std::mem::replace(&mut current, fresh(false)));
                }
            }
        }
        if !current.items.is_empty() {
            segments.push(current);
        }
        for index in 0..segments.len() {
            if segments[index].epoch.is_none() {
                // Nothing of an incarnation follows its deletion, nor is that told twice.
                let is_of = |segment: &Segment<'_>, epoch: &str| segment.epoch.as_deref() == Some(epoch);
                let over = |epoch: &str| segments[..index].iter().any(|one| one.is_deleted() && is_of(one, epoch));
                let later = |epoch: &str| segments[index + 1..].iter().any(|later| is_of(later, epoch));
                let ends = segments[index].is_deleted();
                let known = self.only_incarnation(topic, &segments[index]);
                segments[index].epoch = known.filter(|epoch| !(over(epoch) || ends && later(epoch)));
            }
        }
        segments
    }

    /// Takes the gaps from a segment's end that begin behind everything of its incarnation. Where offsets go on over
    /// incarnations and the interface does not tell of deletions, those are of the next one.
    fn take_gaps_behind<'b>(&self, segment: &mut Segment<'b>) -> Vec<(Micros, &'b Seen)> {
        let incarnation = segment.epoch.as_ref().and_then(|epoch| self.model.incarnations.get(epoch));
        let newest = incarnation.and_then(|incarnation| incarnation.log.keys().next_back().copied());
        let Some(newest) = newest.filter(|_| !self.model.dense) else { return Vec::new() };
        let is_behind = |seen: &Seen| matches!(seen, Seen::Gap(gap) if gap.from > newest);
        let kept = segment.items.iter().rposition(|(_, seen)| !is_behind(seen)).map_or(0, |last| last + 1);
        segment.items.split_off(kept)
    }

    /// Whether the gaps of a segment can be of the incarnation in which a message follows.
    fn may_be_of(&self, segment: &Segment<'_>, place: &Place) -> bool {
        let Some(incarnation) = self.model.incarnations.get(&place.epoch) else { return true };
        let sent_before = |at: Micros, offset: u64| {
            let n = incarnation.log.get(&offset);
            n.is_none_or(|n| self.model.publishes[*n as usize].sent <= at)
        };
        // Where topics share their offsets, so many messages of this one have to be there.
        let are_there = |at: Micros, gap: &Gap| {
            let sent = incarnation.log.range(gap.from..gap.to.max(gap.from) + 1);
            let sent = sent.filter(|(_, n)| self.model.publishes[**n as usize].sent <= at).count() as u64;
            self.model.dense || gap.missed.is_none_or(|missed| missed <= sent + self.model.unseen(&incarnation.topic))
        };
        segment.newest < place.offset
            && segment.items.iter().all(|(at, seen)| match seen {
                Seen::Gap(gap) => sent_before(*at, gap.to) && are_there(*at, gap),
                _ => true,
            })
    }

    /// Whether a segment without a message can be about this incarnation.
    fn may_be(&self, epoch: &str, segment: &Segment<'_>, new: bool) -> bool {
        let incarnation = &self.model.incarnations[epoch];
        let ended = segment.is_deleted().then(|| segment.items.last()).flatten();
        if let Some((at, _)) = ended
            && incarnation.deleted.is_none_or(|(sent, _)| sent > *at)
        {
            return false;
        }
        // What was deleted before is told of where a subscription is resumed, as its deletion.
        let told_late = ended.is_some() && segment.is_first && self.begin.is_resumed();
        let gone = incarnation.deleted.and_then(|(_, answered)| answered).is_some_and(|at| at < self.leg.sent);
        let gone = gone && !told_late;
        let span = self.begin.span(self.model, self.leg, epoch);
        let first = segment.items.iter().find_map(|(_, seen)| match seen {
            Seen::Gap(gap) => Some(gap.from),
            _ => None,
        });
        // A new incarnation is not the one that the position is of; it may be one of which nothing else is known.
        if new && matches!(&self.leg.ask.start, Start::After { place, .. } if place.epoch == epoch) {
            return false;
        }
        // So it is with the position of a consumer. The next incarnation may have no message that anybody has seen.
        let stored = self.leg.told.as_ref().filter(|told| told.resumed).and_then(|told| told.place.as_ref());
        if new && segment.is_first && stored.is_some_and(|place| place.epoch == epoch) {
            return false;
        }
        // If this one was being deleted when the subscription began, the new one may be the next, of which nothing is known yet.
        if new && segment.is_first && self.begin.is_resumed() && self.is_being_deleted(incarnation) {
            return false;
        }
        let newest = Place { epoch: epoch.to_owned(), offset: u64::MAX };
        !gone
            && (new || first.is_none_or(|first| !segment.is_first || first > span.lo))
            && self.may_be_of(segment, &newest)
    }

    /// Whether somebody had asked for the deletion of this incarnation when the subscription stood.
    fn is_being_deleted(&self, incarnation: &Incarnation) -> bool {
        let before = |sent: Micros| self.leg.stood.is_none_or(|stood| sent < stood);
        let deleting = || self.model.deleting.iter().any(|(topic, sent)| *topic == incarnation.topic && before(*sent));
        incarnation.deleted.is_some_and(|(sent, _)| before(sent)) || deleting()
    }

    /// The incarnation that a segment without a message is about, where there is no doubt.
    fn only_incarnation(&self, topic: &str, segment: &Segment<'_>) -> Option<String> {
        let new = segment.items.iter().any(|(_, seen)| matches!(seen, Seen::Gap(gap) if gap.reason == "NEW_EPOCH"));
        let incarnations = self.model.topics.get(topic)?;
        match &self.leg.ask.start {
            Start::After { place, .. } if segment.is_first && !new && !self.begin.is_resumed() => {
                incarnations.contains(&place.epoch).then(|| place.epoch.clone())
            }
            _ if incarnations.len() == 1 && !new && !segment.is_deleted() => incarnations.first().cloned(),
            _ => {
                let mut candidates = incarnations.iter().filter(|epoch| self.may_be(epoch, segment, new));
                candidates.next().filter(|_| candidates.next().is_none()).cloned()
            }
        }
    }
}
