//! The log of each topic, held against what publishers were told.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::model::{Answer, Model};

/// Checks ids, conditions and the order of what was pipelined.
pub fn check(model: &mut Model) {
    let mut found = ids(model);
    found.extend(lanes(model));
    found.extend(conditions(model));
    found.extend(previous(model));
    for (topic, text) in found {
        model.violation(&[&topic], text);
    }
}

/// Attempts with one id: their numbers, offsets, and whether they were called duplicates.
type Attempts = Vec<(usize, u64, bool)>;

/// An id stands for one message of an incarnation, however often it was published.
fn ids(model: &Model) -> Vec<(String, String)> {
    let mut stored: BTreeMap<(&str, &str), Attempts> = BTreeMap::new();
    let mut found = Vec::new();
    for (n, publish) in model.publishes.iter().enumerate() {
        if let (Some(id), Some((place, duplicate))) = (&publish.id, publish.stored()) {
            stored.entry((&place.epoch, id)).or_default().push((n, place.offset, duplicate));
        }
        if publish.id.is_none() && publish.stored().is_some_and(|(_, duplicate)| duplicate) {
            found.push((publish.topic.clone(), format!("publish {n} without an id is a duplicate")));
        }
    }
    for ((epoch, id), answers) in &stored {
        let topic = model.incarnations[*epoch].topic.clone();
        let offsets: HashSet<u64> = answers.iter().map(|(_, offset, _)| *offset).collect();
        let fresh = answers.iter().filter(|(_, _, duplicate)| !duplicate).count();
        // The first one may have been stored without an answer.
        let open = model
            .publishes
            .iter()
            .any(|publish| publish.topic == topic && publish.id.as_deref() == Some(*id) && publish.is_open());
        if offsets.len() > 1 || fresh > 1 || (fresh == 0 && !open) {
            found.push((
                topic,
                format!("the id {id} of {epoch} was answered as {answers:?} (number, offset, duplicate)"),
            ));
        }
    }
    // The same in the log itself, whatever was answered.
    for (epoch, incarnation) in &model.incarnations {
        let mut seen: HashMap<&str, u64> = HashMap::new();
        for (offset, n) in &incarnation.log {
            let Some(id) = &model.publishes[*n as usize].id else { continue };
            if let Some(before) = seen.insert(id, *offset) {
                let text = format!("the id {id} stands at {before} and at {offset} of {epoch}");
                found.push((incarnation.topic.clone(), text));
            }
        }
    }
    found
}

/// What was pipelined on one connection is stored in its order.
fn lanes(model: &Model) -> Vec<(String, String)> {
    let mut last: HashMap<(u64, &str), (usize, u64)> = HashMap::new();
    let mut found = Vec::new();
    // A cluster in trouble is asked again for what it did not answer, which may come to the end of the queue.
    if model.hurt && !model.dense {
        return found;
    }
    // What is on its way when its topic is deleted is published again in the next incarnation, perhaps behind what followed it.
    if !model.deletions.is_empty() {
        return found;
    }
    for (n, publish) in model.publishes.iter().enumerate() {
        let (Some(lane), Some((place, false))) = (publish.lane, publish.stored()) else { continue };
        // One that was answered with the place of another is told elsewhere.
        if model.placed.get(&(n as u64)) != Some(place) {
            continue;
        }
        if let Some((before, offset)) = last.insert((lane, &place.epoch), (n, place.offset))
            && offset >= place.offset
        {
            let text = format!("publish {before} at {offset} was sent before {n} at {}", place.offset);
            found.push((publish.topic.clone(), text));
        }
    }
    found
}

/// A conditional publish was stored just behind what it expected, or refused because something else was there.
fn conditions(model: &Model) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (n, publish) in model.publishes.iter().enumerate() {
        let Some(expected) = publish.expected else { continue };
        let Some((_, _, Answer::Stored { place, duplicate: false, .. })) = &publish.answered else { continue };
        let incarnation = &model.incarnations[&place.epoch];
        let before = incarnation.log.range(..place.offset).next_back().map_or(0, |(offset, _)| *offset);
        let fits =
            if model.dense { place.offset == expected + 1 } else { before <= expected && expected < place.offset };
        if !fits {
            let text = format!("publish {n} expected {expected} and stands at {} behind {before}", place.offset);
            found.push((publish.topic.clone(), text));
        }
    }
    found
}

/// What is said of the message before is true.
fn previous(model: &Model) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (by, place, said) in &model.previous {
        let Some(incarnation) = model.incarnations.get(&place.epoch) else { continue };
        let known = incarnation.log.range(..place.offset).next_back().map_or(0, |(offset, _)| *offset);
        let fits = match said {
            Some(said) if model.dense => said.epoch == place.epoch && said.offset + 1 == place.offset,
            Some(said) => said.epoch == place.epoch && known <= said.offset && said.offset < place.offset,
            None => known == 0 && (!model.dense || place.offset == 1),
        };
        if !fits {
            found.push((
                incarnation.topic.clone(),
                format!("{by} was told that {said:?} is before {place:?}, not {known}"),
            ));
        }
    }
    found
}
