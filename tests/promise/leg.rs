//! One subscription on one connection, from its request to its end: what was asked and what was seen.

use crate::{
    filter::{Filter, pattern_matches},
    model::{Micros, Place},
};

/// Through which door a subscriber comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Socket,
    Events,
    GraphqlSocket,
    GraphqlEvents,
}

impl Door {
    pub const ALL: [Door; 4] = [Door::Socket, Door::Events, Door::GraphqlSocket, Door::GraphqlEvents];

    /// Whether a pong can say that something has arrived.
    pub fn is_socket(self) -> bool {
        matches!(self, Door::Socket | Door::GraphqlSocket)
    }

    pub fn is_graphql(self) -> bool {
        matches!(self, Door::GraphqlSocket | Door::GraphqlEvents)
    }
}

/// What is subscribed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    pub is_pattern: bool,
}

impl Target {
    pub fn covers(&self, topic: &str) -> bool {
        if self.is_pattern { pattern_matches(&self.name, topic) } else { self.name == topic }
    }
}

/// Where a subscription begins.
#[derive(Clone, Debug)]
pub enum Start {
    Live,
    Last(u64),
    After {
        cursor: String,
        place: Place,
    },
    Since {
        text: String,
        wall: i64,
    },
    /// After a pattern's cursor, which was seen in an earlier subscription behind so many events.
    Resume {
        cursor: String,
        leg: usize,
        events: usize,
    },
}

/// What happens when the subscription falls behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    History,
    Latest,
    LatestPerKey,
    Disconnect,
}

impl Overflow {
    pub fn code(self) -> &'static str {
        match self {
            Overflow::History => "HISTORY",
            Overflow::Latest => "LATEST",
            Overflow::LatestPerKey => "LATEST_PER_KEY",
            Overflow::Disconnect => "DISCONNECT",
        }
    }
}

/// A named consumer, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub explicit: bool,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub target: Target,
    pub start: Start,
    pub filter: Option<Filter>,
    pub overflow: Overflow,
    pub consumer: Option<Named>,
    /// Whether the position goes into the header `Last-Event-ID`.
    pub by_header: bool,
    /// The parameter that it goes into, as clients send it that cannot set headers.
    pub by_parameter: &'static str,
    /// Another topic that is subscribed on the same socket, and not looked at.
    pub mate: Option<String>,
}

impl Ask {
    /// For one topic, with nothing else.
    pub fn plain(topic: String, start: Start) -> Self {
        Self {
            target: Target { name: topic, is_pattern: false },
            start,
            filter: None,
            overflow: Overflow::History,
            consumer: None,
            by_header: false,
            by_parameter: "after",
            mate: None,
        }
    }
}

/// What is missed, as told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub topic: String,
    pub missed: Option<u64>,
    pub from: u64,
    pub to: u64,
    pub reason: String,
}

/// One thing in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Message { topic: String, place: Place, cursor: String, pattern_cursor: Option<String>, time: Option<i64> },
    Gap(Gap),
    Deleted(String),
}

impl Seen {
    pub fn topic(&self) -> &str {
        match self {
            Seen::Message { topic, .. } | Seen::Gap(Gap { topic, .. }) | Seen::Deleted(topic) => topic,
        }
    }
}

/// What a new subscription of a named consumer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub resumed: bool,
    pub place: Option<Place>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Open,
    /// The checker cut it.
    Cut,
    /// The checker left, in this way.
    Left(&'static str),
    /// The server said that it goes away.
    Away,
    /// The connection broke.
    Broken,
    /// The topic was deleted.
    Deleted,
    /// With an error of this code.
    Failed(String),
}

/// A position that was acknowledged by name.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub topic: String,
    pub place: Place,
    /// So many events had come by then.
    pub events: usize,
    pub answered: bool,
}

/// One subscription on one connection.
#[derive(Clone, Debug)]
pub struct Leg {
    pub reader: String,
    pub door: Door,
    pub ask: Ask,
    pub instance: usize,
    pub sent: Micros,
    /// From when on it stood, for sure.
    pub stood: Option<Micros>,
    pub told: Option<Told>,
    pub events: Vec<(Micros, Seen)>,
    /// So many events came before a ping that was answered.
    pub confirmed: usize,
    pub acknowledged: Vec<Acknowledged>,
    pub end: End,
    pub ended: Micros,
    /// It never stopped reading.
    pub reads_on: bool,
    /// Another connection of the checker has taken its consumer over.
    pub taken_over: bool,
    /// Its consumer was deleted after it; whether that was answered.
    pub forgotten: Option<bool>,
    /// It is to read to the end of everything.
    pub last: bool,
}

impl Leg {
    pub fn new(reader: &str, door: Door, ask: Ask, instance: usize, sent: Micros) -> Self {
        Self {
            reader: reader.to_owned(),
            door,
            ask,
            instance,
            sent,
            stood: None,
            told: None,
            events: Vec::new(),
            confirmed: 0,
            acknowledged: Vec::new(),
            end: End::Open,
            ended: Micros::MAX,
            reads_on: true,
            taken_over: false,
            forgotten: None,
            last: false,
        }
    }

    /// What was asked and seen, in a few lines.
    pub fn summary(&self) -> String {
        self.summary_with(60)
    }

    /// The same with so many of the last events.
    pub fn summary_with(&self, events: usize) -> String {
        let mut text = format!(
            "{} at {:?} (instance {}): {:?} overflow {} filter {} consumer {:?} beside {:?}\n    sent {} stood {:?} told {:?} ended {:?} at {}",
            self.ask.target.name,
            self.door,
            self.instance,
            self.ask.start,
            self.ask.overflow.code(),
            self.ask.filter.as_ref().map_or_else(|| "none".to_owned(), |filter| filter.0.to_string()),
            self.ask.consumer,
            self.ask.mate,
            self.sent,
            self.stood,
            self.told,
            self.end,
            self.ended,
        );
        if self.ask.consumer.is_some() {
            let acknowledged = &self.acknowledged[self.acknowledged.len().saturating_sub(3)..];
            text += &format!("\n    confirmed {} events, acknowledged {acknowledged:?}", self.confirmed);
        }
        for (at, seen) in &self.events[self.events.len().saturating_sub(events)..] {
            text += &match seen {
                Seen::Message { topic, place, .. } => {
                    format!("\n    {at} {topic} {}/{}", crate::model::short(&place.epoch), place.offset)
                }
                other => format!("\n    {at} {other:?}"),
            };
        }
        text
    }
}
