//! What the checker knows: every publish with what was answered to it, every incarnation of every topic with its log, and what
//! was done, when.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::OnceLock,
    time::{Instant, SystemTime},
};

use serde_json::Value;

use crate::{
    filter::{Filter, Subject},
    report::Counts,
};

/// Lines of history that a finding shows at most.
const HISTORY_LINES: usize = 600;

/// Microseconds since the checker began.
pub type Micros = u64;

/// The time now.
pub fn now() -> Micros {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// The clock on the wall, in milliseconds.
pub fn wall() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// A time as the server writes it, in milliseconds.
pub fn parse_time(text: &Value) -> Option<i64> {
    let time: jiff::Timestamp = text.as_str()?.parse().ok()?;
    Some(time.as_millisecond())
}

/// Parts of findings that are left out, to see what lies behind a fault that is known: `KNOWN`, separated by `|`.
fn known_faults() -> &'static [String] {
    static KNOWN: OnceLock<Vec<String>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let text = std::env::var("KNOWN").unwrap_or_default();
        text.split('|').filter(|part| !part.is_empty()).map(ToOwned::to_owned).collect()
    })
}

/// A place in one incarnation of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub epoch: String,
    pub offset: u64,
}

/// What was answered to a publish.
#[derive(Clone, Debug)]
pub enum Answer {
    Stored { place: Place, duplicate: bool, id: String },
    Refused(String),
}

/// One attempt to publish. Its number is in its data, so that a message shows from which attempt it came.
#[derive(Clone, Debug)]
pub struct Publish {
    pub topic: String,
    pub id: Option<String>,
    pub data: Value,
    pub subject: Subject,
    pub expected: Option<u64>,
    pub instance: usize,
    /// The connection that it was pipelined on, if it was.
    pub lane: Option<u64>,
    pub sent: Micros,
    pub sent_wall: i64,
    pub answered: Option<(Micros, i64, Answer)>,
}

impl Publish {
    /// Where it was said to be stored.
    pub fn stored(&self) -> Option<(&Place, bool)> {
        match &self.answered {
            Some((_, _, Answer::Stored { place, duplicate, .. })) => Some((place, *duplicate)),
            _ => None,
        }
    }

    /// Whether nobody knows what has become of it.
    pub fn is_open(&self) -> bool {
        match &self.answered {
            None => true,
            Some((_, _, Answer::Refused(code))) => code == "UNKNOWN",
            Some(_) => false,
        }
    }
}

/// One incarnation of a topic.
#[derive(Clone, Debug, Default)]
pub struct Incarnation {
    pub topic: String,
    /// The attempt at each offset of which anything is known.
    pub log: BTreeMap<u64, u64>,
    /// When messages were published, as the server says.
    pub times: HashMap<u64, i64>,
    /// Its deletion: asked for, and when it was answered, if it was.
    pub deleted: Option<(Micros, Option<Micros>)>,
    /// From when on messages up to an offset must be gone.
    pub floors: Vec<(Micros, u64)>,
    /// The newest offset that was acknowledged.
    pub newest: u64,
}

impl Incarnation {
    /// Up to which offset messages were gone at this time, for sure.
    pub fn floor_at(&self, time: Micros) -> u64 {
        self.floors.iter().take_while(|(at, _)| *at <= time).map(|(_, floor)| *floor).max().unwrap_or(0)
    }
}

/// What a topic's history was bounded by.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub max_messages: u64,
    pub sent: Micros,
    pub answered: Option<Micros>,
}

/// All that is known of one round.
#[derive(Default)]
pub struct Model {
    /// Offsets count a topic's messages.
    pub dense: bool,
    /// Topics are deleted and made again.
    pub deletes: bool,
    pub publishes: Vec<Publish>,
    pub incarnations: HashMap<String, Incarnation>,
    /// Topics by name, with the incarnations in which they were seen.
    pub topics: BTreeMap<String, Vec<String>>,
    pub bounds: HashMap<String, Vec<Bound>>,
    /// Where each message stands that was seen or acknowledged.
    pub placed: HashMap<u64, Place>,
    pub ids: HashMap<String, Vec<String>>,
    /// Cursors of each topic, as publishers were given them.
    pub cursors: HashMap<String, Vec<(String, Place)>>,
    /// Deletions by topic: when they were asked for.
    pub deletions: Vec<(String, Micros)>,
    /// Deletions on their way: when they were asked for. They may have happened before they are answered.
    pub deleting: Vec<(String, Micros)>,
    /// The places before messages, as they were said: by whom, of which, and which.
    pub previous: Vec<(String, Place, Option<Place>)>,
    /// Whether a server was stopped, or its engine hurt: it may have been unavailable.
    pub hurt: bool,
    pub history: Vec<(Micros, String, String)>,
    pub violations: Vec<String>,
    pub counts: Counts,
}

impl Model {
    /// Notes what was done about a topic, a subscriber or a server.
    pub fn note(&mut self, subject: &str, what: impl Into<String>) {
        self.history.push((now(), subject.to_owned(), what.into()));
    }

    /// Notes a fault, with what was done about its subjects until now.
    pub fn violation(&mut self, subjects: &[&str], what: impl Into<String>) {
        self.violation_between(subjects, what, 0..Micros::MAX);
    }

    /// Notes a fault, with what was done about its subjects in this time.
    pub fn violation_between(&mut self, subjects: &[&str], what: impl Into<String>, time: Range<Micros>) {
        let mut text = what.into();
        if known_faults().iter().any(|known| text.contains(known)) {
            return;
        }
        let related = |subject: &str| subjects.contains(&subject) || subject == "server";
        let lines = self.history.iter().filter(|(at, subject, _)| related(subject) && time.contains(at));
        let lines: Vec<_> = lines.collect();
        let skipped = lines.len().saturating_sub(HISTORY_LINES);
        text += &format!("\n  history of {} ({skipped} earlier lines left out):", subjects.join(", "));
        for (at, subject, line) in &lines[skipped..] {
            text += &format!("\n  {at:>9} {subject}: {line}");
        }
        self.violations.push(text);
    }

    pub fn bound(&mut self, topic: &str, bound: Bound) {
        self.bounds.entry(topic.to_owned()).or_default().push(bound);
    }

    /// The smallest and the largest bound that a topic had up to a time.
    pub fn bounds_until(&self, topic: &str, time: Micros) -> (u64, u64) {
        let bounds = self.bounds.get(topic).into_iter().flatten().filter(|bound| bound.sent <= time);
        let (mut least, mut most) = (u64::MAX, 0);
        for bound in bounds {
            (least, most) = (least.min(bound.max_messages), most.max(bound.max_messages));
        }
        if most == 0 { (1, u64::MAX) } else { (least, most) }
    }

    /// The largest bound that a topic may have now.
    fn bound_now(&self, topic: &str) -> u64 {
        let bounds = self.bounds.get(topic).map_or(&[][..], Vec::as_slice);
        if self.deletes {
            // Another incarnation may have another bound.
            return bounds.iter().map(|bound| bound.max_messages).max().unwrap_or(u64::MAX);
        }
        let settled = bounds.iter().rposition(|bound| bound.answered.is_some()).unwrap_or(0);
        bounds[settled.min(bounds.len())..].iter().map(|bound| bound.max_messages).max().unwrap_or(u64::MAX)
    }

    /// What is gone by now, for sure, after an answer that said so.
    pub fn settle_floor(&mut self, epoch: &str) {
        let Some(incarnation) = self.incarnations.get(epoch) else { return };
        let bound = self.bound_now(&incarnation.topic);
        // Of several instances one may still have what is gone, and holes in the numbers say nothing.
        let floor = if self.dense { incarnation.newest.saturating_sub(bound) } else { 0 };
        if let Some(incarnation) = self.incarnations.get_mut(epoch)
            && incarnation.floors.last().is_none_or(|(_, before)| *before < floor)
            && floor > 0
        {
            incarnation.floors.push((now(), floor));
        }
    }

    /// An attempt begins: its number.
    pub fn sent(&mut self, publish: Publish) -> u64 {
        self.publishes.push(publish);
        self.counts.publishes += 1;
        self.publishes.len() as u64 - 1
    }

    /// A publish was answered.
    pub fn answered(&mut self, n: u64, answer: Answer) {
        let publish = &mut self.publishes[n as usize];
        publish.answered = Some((now(), wall(), answer.clone()));
        let topic = publish.topic.clone();
        match &answer {
            Answer::Stored { place, duplicate, .. } => {
                let (offset, id) = (place.offset, publish.id.clone());
                self.counts.repeated += u64::from(*duplicate);
                self.note(
                    &topic,
                    format!(
                        "publish {n}{} stored at {}/{offset}{}",
                        id.map(|id| format!(" id {id}")).unwrap_or_default(),
                        short(&place.epoch),
                        if *duplicate { " duplicate" } else { "" }
                    ),
                );
                let other =
                    self.incarnations.get(&place.epoch).and_then(|incarnation| incarnation.log.get(&offset)).copied();
                if let Some(other) = other.filter(|other| *other != n && !*duplicate) {
                    let text = format!("{topic}: publish {n} is answered with the place of {other}, as no duplicate");
                    self.violation(&[&topic], text);
                } else if *duplicate {
                    self.incarnation(&topic, &place.epoch);
                } else {
                    self.place(n, place);
                }
                let incarnation = self.incarnations.entry(place.epoch.clone()).or_default();
                incarnation.newest = incarnation.newest.max(offset);
                self.settle_floor(&place.epoch);
            }
            Answer::Refused(code) => self.note(&topic, format!("publish {n} refused: {code}")),
        }
    }

    fn incarnation(&mut self, topic: &str, epoch: &str) {
        let incarnation = self.incarnations.entry(epoch.to_owned()).or_default();
        if incarnation.topic.is_empty() {
            topic.clone_into(&mut incarnation.topic);
            self.topics.entry(topic.to_owned()).or_default().push(epoch.to_owned());
        } else if incarnation.topic != topic {
            let other = incarnation.topic.clone();
            self.violation(&[topic, &other], format!("{topic} and {other} share the epoch {epoch}"));
        }
    }

    /// An incarnation of a topic was ended by a deletion that was asked for at this time.
    pub fn deleted(&mut self, topic: &str, epoch: &str, sent: Micros) {
        self.incarnation(topic, epoch);
        if let Some(incarnation) = self.incarnations.get_mut(epoch) {
            incarnation.deleted = Some((sent, Some(now())));
        }
    }

    /// An attempt's message stands here.
    pub fn place(&mut self, n: u64, place: &Place) {
        let topic = self.publishes[n as usize].topic.clone();
        self.incarnation(&topic, &place.epoch);
        let incarnation = self.incarnations.entry(place.epoch.clone()).or_default();
        let before = incarnation.log.insert(place.offset, n);
        if let Some(before) = before.filter(|before| *before != n) {
            let text = format!("{topic}: messages {before} and {n} both stand at offset {}", place.offset);
            self.violation(&[&topic], text);
        }
        let other = self.placed.insert(n, place.clone());
        if let Some(other) = other.filter(|other| other != place) {
            let text = format!("{topic}: message {n} stands at {other:?} and at {place:?}");
            self.violation(&[&topic], text);
        }
    }

    /// A message as some door shows it: is it what was published?
    pub fn seen(&mut self, seen: &Shown, by: &str) {
        let n = seen.data["n"].as_str().and_then(|n| n.parse::<u64>().ok());
        let Some((n, publish)) = n.and_then(|n| Some((n, self.publishes.get(n as usize)?))) else {
            self.violation(&[by], format!("{by} got a message that nobody published: {seen:?}"));
            return;
        };
        let made_id = match &publish.answered {
            Some((_, _, Answer::Stored { id, duplicate: false, .. })) => Some(id),
            _ => publish.id.as_ref(),
        };
        let refused = matches!(&publish.answered, Some((_, _, Answer::Refused(code))) if code != "UNKNOWN");
        let same = seen.topic == publish.topic
            && seen.data == publish.data
            && seen.key == publish.subject.key
            && publish.id.as_ref().is_none_or(|id| *id == seen.id)
            && made_id.is_none_or(|id| *id == seen.id);
        let topic = publish.topic.clone();
        let times = publish.sent_wall..=publish.answered.as_ref().map_or_else(wall, |(_, at, _)| *at);
        if seen.time.is_none_or(|time| !times.contains(&time)) {
            let text = format!("{by} got message {n} of {:?}, which was published in {times:?}", seen.time);
            self.violation(&[by, &topic], text);
        }
        let publish = &self.publishes[n as usize];
        if !same || refused {
            let what = if refused { "was refused" } else { "is altered" };
            let text = format!("{by} got message {n}, which {what}:\n  {publish:?}\n  {seen:?}");
            self.violation(&[by, &topic], text);
        }
        self.place(n, &seen.place);
        if let Some(previous) = &seen.previous {
            self.previous.push((by.to_owned(), seen.place.clone(), previous.clone()));
        }
        if let Some(time) = seen.time {
            let incarnation = self.incarnations.entry(seen.place.epoch.clone()).or_default();
            let before = incarnation.times.insert(seen.place.offset, time);
            if before.is_some_and(|before| before != time) {
                let text = format!("{topic}: the time of offset {} changed: {before:?}, {time}", seen.place.offset);
                self.violation(&[&topic, by], text);
            }
        }
    }

    /// Whether a filter lets an attempt's message pass.
    pub fn passes(&self, filter: Option<&Filter>, n: u64) -> bool {
        filter.is_none_or(|filter| filter.passes(&self.publishes[n as usize].subject))
    }

    /// Attempts of a topic of which nobody knows what has become, and that were never seen.
    pub fn unseen(&self, topic: &str) -> u64 {
        let open = |(n, publish): &(usize, &Publish)| {
            publish.topic == topic && publish.is_open() && !self.placed.contains_key(&(*n as u64))
        };
        self.publishes.iter().enumerate().filter(open).count() as u64
    }
}

/// A message as a door shows it.
#[derive(Clone, Debug)]
pub struct Shown {
    pub topic: String,
    pub place: Place,
    pub id: String,
    pub key: Option<String>,
    pub data: Value,
    pub time: Option<i64>,
    /// The place of the message before it, where the door says so.
    pub previous: Option<Option<Place>>,
}

/// As much of an epoch as a reader of findings needs.
pub fn short(epoch: &str) -> &str {
    &epoch[..epoch.len().min(4)]
}
