//! Where a subscription has to begin in each incarnation of a topic, as far as that can be known from outside.

use std::collections::HashMap;

use crate::{
    leg::{Leg, Start},
    model::{Incarnation, Micros, Model},
};

/// A reader stands behind an offset that is not known exactly: what is up to `lo` must not come, and what is behind `hi`
/// must not be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub lo: u64,
    pub hi: u64,
}

impl Span {
    /// Nothing is known.
    pub const ANY: Self = Self { lo: 0, hi: u64::MAX };

    pub fn at(offset: u64) -> Self {
        Self { lo: offset, hi: offset }
    }
}

/// Where a reader stands in each incarnation, by epoch.
pub type Positions = HashMap<String, Span>;

/// Where a subscription begins.
pub enum Begin {
    /// As it asked.
    Asked,
    /// Where an earlier one has come to: by a pattern's cursor, or by a consumer's name.
    Resumed(Positions),
}

impl Begin {
    pub fn is_resumed(&self) -> bool {
        matches!(self, Begin::Resumed(_))
    }

    pub fn span(&self, model: &Model, leg: &Leg, epoch: &str) -> Span {
        let incarnation = &model.incarnations[epoch];
        match (self, &leg.ask.start) {
            (Begin::Resumed(positions), _) => positions.get(epoch).copied().unwrap_or(Span::ANY),
            (_, Start::After { place, .. }) => Span::at(if place.epoch == epoch { place.offset } else { 0 }),
            (_, Start::Live) => live(model, leg, incarnation),
            (_, Start::Last(count)) => last(model, leg, incarnation, *count),
            (_, Start::Since { wall, .. }) => since(model, incarnation, *wall),
            (_, Start::Resume { .. }) => Span::ANY,
        }
    }
}

/// The newest offset whose publish was answered before this time, through one instance or any.
pub fn newest_before(model: &Model, incarnation: &Incarnation, time: Micros, instance: Option<usize>) -> u64 {
    let before = |n: u64| {
        let publish = &model.publishes[n as usize];
        let here = instance.is_none_or(|instance| instance == publish.instance);
        here && publish.answered.as_ref().is_some_and(|(at, ..)| *at < time) && publish.stored().is_some()
    };
    incarnation.log.iter().rev().find(|(_, n)| before(**n)).map_or(0, |(offset, _)| *offset)
}

fn live(model: &Model, leg: &Leg, incarnation: &Incarnation) -> Span {
    let lo = newest_before(model, incarnation, leg.sent, Some(leg.instance));
    let after = |n: u64| leg.stood.is_some_and(|stood| model.publishes[n as usize].sent > stood);
    let hi = incarnation.log.iter().find(|(_, n)| after(**n)).map_or(u64::MAX, |(offset, _)| *offset - 1);
    Span { lo: lo.min(hi), hi }
}

fn last(model: &Model, leg: &Leg, incarnation: &Incarnation, count: u64) -> Span {
    let Span { lo: end_lo, hi: mut end_hi } = live(model, leg, incarnation);
    if end_hi == u64::MAX && leg.stood.is_some() {
        // Nothing known came later: the end was at most where the log ends now, and behind it what nobody knows.
        end_hi = incarnation.log.keys().next_back().copied().unwrap_or(0) + model.unseen(&incarnation.topic);
    }
    let (least, most) = model.bounds_until(&incarnation.topic, leg.stood.unwrap_or(Micros::MAX));
    let lo = if model.dense { end_lo.saturating_sub(count.min(most)) } else { 0 };
    let hi = if end_hi == u64::MAX {
        end_hi
    } else if model.dense {
        end_hi - count.min(least).min(end_hi)
    } else {
        // Of what nobody knows whether it was stored, all may stand among the last.
        let known = count.min(least).saturating_sub(model.unseen(&incarnation.topic));
        let first = incarnation.log.range(..=end_hi).rev().nth(usize::try_from(known).unwrap_or(usize::MAX));
        if known == 0 { end_hi } else { first.map_or(0, |(offset, _)| *offset) }
    };
    let lo = lo.max(incarnation.floor_at(leg.sent));
    Span { lo: lo.min(hi), hi }
}

fn since(model: &Model, incarnation: &Incarnation, wall: i64) -> Span {
    let wanted = |offset: u64, n: u64| earliest(model, incarnation, offset, n) >= wall;
    let first = incarnation.log.iter().find(|(offset, n)| wanted(**offset, **n));
    Span { lo: 0, hi: first.map_or(u64::MAX, |(offset, _)| *offset - 1) }
}

/// The earliest time at which a message may have been accepted.
pub fn earliest(model: &Model, incarnation: &Incarnation, offset: u64, n: u64) -> i64 {
    incarnation.times.get(&offset).copied().unwrap_or(model.publishes[n as usize].sent_wall)
}

/// The latest.
pub fn latest(model: &Model, incarnation: &Incarnation, offset: u64, n: u64) -> i64 {
    let answered = model.publishes[n as usize].answered.as_ref().map_or(i64::MAX, |(_, wall, _)| *wall);
    incarnation.times.get(&offset).copied().unwrap_or(answered)
}
