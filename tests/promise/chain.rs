//! A reader's subscriptions, one after the other: each begins where it asked, where an earlier one has come to, or where
//! its consumer stands.

use std::collections::BTreeMap;

use crate::{
    begin::{Begin, Positions, Span},
    judge::Judge,
    leg::{Door, End, Leg, Seen, Start},
    model::{Micros, Model},
};

/// What is known of a consumer between two subscriptions.
enum Held {
    Never,
    /// A subscription was sent, and nobody knows whether it arrived.
    Perhaps,
    At(Positions),
}

/// Holds all subscriptions of a reader against the model. The last one must have told of everything if `whole`.
///
/// # Errors
/// Which one is wrong, and why.
pub fn judge(model: &Model, legs: &[Leg], whole: bool) -> Result<(), (usize, String)> {
    let mut held = Held::Never;
    let mut begins: Vec<Begin> = Vec::new();
    for (index, leg) in legs.iter().enumerate() {
        let wrong = |why| (index, why);
        let begin = begin(model, legs, leg, &begins, &held).map_err(wrong)?;
        let until = match leg.end {
            End::Open if whole && leg.last => Some(Micros::MAX),
            // One that another one was taking over goes on there.
            End::Away if leg.taken_over || !leg.reads_on => None,
            // One that was on its way when the server began to stop was never begun, and promises nothing.
            End::Away if leg.stood.is_some() || !leg.events.is_empty() => Some(leg.ended),
            _ => None,
        };
        let judge = Judge { model, leg, begin: &begin, until };
        // One that was gone before it was answered may have been heard later than its successor.
        let late = legs[..index].iter().any(|leg| leg.ask.consumer.is_some() && leg.told.is_none());
        // A consumer goes with its topic, which another instance may hear of in two pieces.
        let gone = leg.ended != Micros::MAX && was_deleted(model, leg, leg.ended);
        judge.check_ending(model.hurt, leg.taken_over || late || gone).map_err(wrong)?;
        judge.walk(&leg.events).map_err(wrong)?;
        if leg.ask.consumer.is_some() {
            held = hold(model, leg, &begin, held).map_err(wrong)?;
            match leg.forgotten {
                None => {}
                Some(true) if !late => held = Held::Never,
                Some(_) => held = Held::Perhaps,
            }
        }
        begins.push(begin);
    }
    Ok(())
}

fn begin(model: &Model, legs: &[Leg], leg: &Leg, begins: &[Begin], held: &Held) -> Result<Begin, String> {
    if leg.ask.consumer.is_none() {
        return match &leg.ask.start {
            Start::Resume { leg, events, .. } => {
                let judge = Judge { model, leg: &legs[*leg], begin: &begins[*leg], until: None };
                judge.walk(&legs[*leg].events[..*events]).map(Begin::Resumed)
            }
            _ => Ok(Begin::Asked),
        };
    }
    let Some(told) = &leg.told else {
        // Refused, or gone before anything was told: nothing can be said of what it saw, which is nothing.
        return match (leg.events.first(), leg.door.is_graphql()) {
            (Some((_, Seen::Message { .. })), _) => Err("a consumer's subscription was not told of it".to_owned()),
            _ => Ok(Begin::Resumed(Positions::new())),
        };
    };
    match (told.resumed, held) {
        (false, Held::At(_)) if !was_deleted(model, leg, leg.stood.unwrap_or(Micros::MAX)) => {
            Err("a known consumer is not resumed".to_owned())
        }
        (false, _) => Ok(Begin::Asked),
        (true, Held::Never) => Err("a consumer is resumed that never was".to_owned()),
        (true, Held::Perhaps) => {
            let place = told.place.iter().map(|place| {
                let before = leg.events.iter().find_map(|(_, seen)| match seen {
                    Seen::Message { place, .. } => Some(place.offset - 1),
                    Seen::Gap(gap) => Some(gap.from - 1),
                    Seen::Deleted(_) => None,
                });
                let hi = place.offset;
                (place.epoch.clone(), Span { lo: before.map_or(hi, |before| before.min(hi)), hi })
            });
            Ok(Begin::Resumed(place.collect()))
        }
        (true, Held::At(positions)) => Ok(Begin::Resumed(positions.clone())),
    }
}

/// A consumer of one topic goes with it.
fn was_deleted(model: &Model, leg: &Leg, until: Micros) -> bool {
    let before = |sent: Micros| sent <= until;
    !leg.ask.target.is_pattern
        && model.deletions.iter().any(|(topic, sent)| *topic == leg.ask.target.name && before(*sent))
}

/// Where the consumer may stand after a subscription.
fn hold(model: &Model, leg: &Leg, begin: &Begin, before: Held) -> Result<Held, String> {
    let explicit = leg.ask.consumer.as_ref().is_some_and(|named| named.explicit);
    if leg.told.is_none() && leg.events.is_empty() {
        return Ok(match before {
            Held::Never => Held::Perhaps,
            // It may have been made again, in another incarnation of its topic.
            Held::At(_) if was_deleted(model, leg, leg.stood.unwrap_or(Micros::MAX)) => Held::Perhaps,
            // What was written to it counts as delivered.
            Held::At(positions) if !explicit && !leg.door.is_socket() => Held::At(unknown(positions)),
            other => other,
        });
    }
    let judge = Judge { model, leg, begin, until: None };
    let mut positions = judge.walk(&[])?;
    for (epoch, span) in &mut positions {
        if let Some(first) = first_of(leg, model, epoch) {
            span.hi = span.hi.min(first - 1).max(span.lo);
        }
    }
    if explicit {
        for done in leg.acknowledged.iter().filter(|done| done.answered) {
            let span = positions.entry(done.place.epoch.clone()).or_insert(Span::ANY);
            span.lo = span.lo.max(done.place.offset);
        }
        // The newest of each topic covers what was told of the topic before it, earlier incarnations included.
        let newest: BTreeMap<_, _> = leg.acknowledged.iter().map(|done| (&done.topic, done)).collect();
        for (topic, done) in newest {
            for (epoch, told) in judge.walk(&leg.events[..done.events])? {
                if model.incarnations.get(&epoch).is_some_and(|incarnation| incarnation.topic == *topic) {
                    let span = positions.entry(epoch).or_insert(told);
                    span.hi = span.hi.max(told.hi);
                }
            }
        }
    } else if matches!(leg.door, Door::Events | Door::GraphqlEvents) {
        positions = unknown(positions);
    } else if leg.confirmed > 0 {
        for (epoch, confirmed) in judge.walk(&leg.events[..leg.confirmed])? {
            let span = positions.entry(epoch).or_insert(confirmed);
            span.hi = span.hi.max(confirmed.hi);
        }
    }
    Ok(Held::At(positions))
}

fn unknown(mut positions: Positions) -> Positions {
    for span in positions.values_mut() {
        span.hi = u64::MAX;
    }
    positions
}

/// The first offset that a subscription told of in one incarnation, if that can be said.
fn first_of(leg: &Leg, model: &Model, epoch: &str) -> Option<u64> {
    let topic = &model.incarnations.get(epoch)?.topic;
    let first = leg.events.iter().find(|(_, seen)| seen.topic() == topic).map(|(_, seen)| seen)?;
    match first {
        Seen::Message { place, .. } if place.epoch == epoch => Some(place.offset),
        // A gap says nothing of its incarnation, unless there was only one.
        Seen::Gap(gap) if model.topics.get(topic).is_some_and(|incarnations| incarnations.len() == 1) => {
            Some(gap.from.max(1))
        }
        _ => None,
    }
}
