//! Subscribers, and the check of what they saw against the log.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{PUBLISH_DEADLINE, SHORT, Site, connection::Connection};
use crate::harness::Random;

/// What one subscriber saw.
#[derive(Debug)]
enum Seen {
    Message { offset: u64, id: String },
    Gap { from: u64, to: u64, missed: Option<u64> },
}

pub struct Subscriber {
    pub topic: &'static str,
    /// Kept by the server under this name, and acknowledged; else by its cursor.
    consumer: Option<String>,
    /// Leaves for the other instance now and then.
    leaves: bool,
    cursor: Option<String>,
    newest: u64,
    /// One for each connection.
    streams: Vec<Vec<Seen>>,
}

impl Subscriber {
    pub fn new(topic: &'static str, consumer: Option<&str>, leaves: bool) -> Self {
        let consumer = consumer.map(ToOwned::to_owned);
        Self { topic, consumer, leaves, cursor: None, newest: 0, streams: Vec::new() }
    }

    /// Subscribes, leaves, and comes back, until it has seen the message that `last` names.
    pub async fn follow(mut self, site: &Site, last: &Mutex<HashMap<String, u64>>, salt: u64) -> Self {
        let mut random = Random::new(100 + salt);
        let done = |newest| last.lock().unwrap().get(self.topic).is_some_and(|last| newest >= *last);
        let mut round = salt as usize;
        while !done(self.newest) {
            let stay = Duration::from_millis(if self.leaves { 200 + random.below(2_500) } else { 3_600_000 });
            round += usize::from(self.leaves || self.streams.last().is_some_and(Vec::is_empty));
            let mut stream = Vec::new();
            let client = site.client(round);
            let visit = async {
                let mut connection = Connection::open(&client).await?;
                let mut subscribe = json!({"type": "subscribe", "topic": self.topic, "request_id": "s"});
                match (&self.consumer, &self.cursor) {
                    (Some(name), _) => {
                        subscribe["consumer"] = name.as_str().into();
                        subscribe["ack"] = "EXPLICIT".into();
                        subscribe["last_n"] = 1_000_000.into();
                    }
                    (None, Some(cursor)) => subscribe["after"] = cursor.as_str().into(),
                    (None, None) => subscribe["last_n"] = 1_000_000.into(),
                }
                connection.send(subscribe).await?;
                let mut last_frame = Instant::now();
                while !done(self.newest) {
                    // The end may be set meanwhile, so it is looked up now and then.
                    let Ok(frame) = timeout(Duration::from_millis(100), connection.next()).await else {
                        let (quiet, end) = (last_frame.elapsed(), last.lock().unwrap().get(self.topic).copied());
                        let newest = self.newest;
                        assert!(
                            quiet < PUBLISH_DEADLINE || end.is_none(),
                            "{}: {newest}, not {end:?}, {quiet:?}",
                            self.topic
                        );
                        continue;
                    };
                    last_frame = Instant::now();
                    let frame = frame?;
                    match frame["type"].as_str().unwrap() {
                        "event" => {
                            let (offset, id) = (frame["offset"].as_u64().unwrap(), frame["id"].as_str().unwrap());
                            stream.push(Seen::Message { offset, id: id.to_owned() });
                            self.newest = self.newest.max(offset);
                            let cursor = frame["cursor"].as_str().unwrap().to_owned();
                            if let Some(name) = &self.consumer {
                                let (topic, cursor) = (self.topic, &cursor);
                                let ack = json!({"type": "ack", "topic": topic, "consumer": name, "cursor": cursor});
                                connection.send(ack).await?;
                            }
                            self.cursor = Some(cursor);
                        }
                        "gap" => stream.push(Seen::Gap {
                            from: frame["from_offset"].as_u64().unwrap(),
                            to: frame["to_offset"].as_u64().unwrap(),
                            missed: frame["missed"].as_u64(),
                        }),
                        "ack" => {}
                        // No subscription: tries again. No acknowledgement: the next one covers it.
                        "error" if frame["error"]["code"] == "UNAVAILABLE" => {
                            if frame["request_id"] == "s" {
                                return None;
                            }
                        }
                        _ => panic!("{frame} in {}", self.topic),
                    }
                }
                Some(())
            };
            let _ = timeout(stay, visit).await;
            self.streams.push(stream);
            sleep(Duration::from_millis(20)).await;
        }
        self
    }

    /// Its stream, over all connections, is the log of the topic, and what is not in it was announced.
    pub fn check(&self, log: &BTreeMap<u64, String>) {
        let topic = self.topic;
        let mut next = self.streams.iter().flatten().next().map_or(0, |first| match first {
            Seen::Message { offset, .. } => *offset,
            Seen::Gap { from, .. } => *from,
        });
        let (mut gaps, mut repeats) = (0, 0);
        for stream in &self.streams {
            // A consumer begins where it has acknowledged last, at least.
            let mut at = match stream.first() {
                Some(Seen::Message { offset, .. } | Seen::Gap { from: offset, .. }) if self.consumer.is_some() => {
                    let skipped = log.range(next.min(*offset)..*offset).next();
                    assert_eq!(skipped, None, "{topic}: begins at {offset} and not at {next}");
                    *offset
                }
                _ => next,
            };
            for seen in stream {
                match seen {
                    Seen::Message { offset, id } => {
                        let expected = log.range(at..).next();
                        assert_eq!(expected, Some((offset, id)), "{topic}: {seen:?}");
                        repeats += usize::from(*offset < next);
                        at = offset + 1;
                    }
                    Seen::Gap { from, to, missed } => {
                        gaps += 1;
                        assert!(log.range(at..*from).next().is_none(), "{topic}: {seen:?} misses what is behind {at}");
                        let inside = log.range(*from..=*to).count() as u64;
                        assert!(missed.is_none_or(|missed| missed == inside), "{topic}: {seen:?}, but {inside}");
                        at = to + 1;
                    }
                }
            }
            next = next.max(at);
        }
        assert!(log.range(next..).next().is_none(), "{topic}: the end is missing");
        assert!(gaps == 0 || topic == SHORT, "{topic}: {gaps} gaps");
        let connections = self.streams.iter().filter(|stream| !stream.is_empty()).count();
        println!(
            "  {topic:6} {:10} {connections:3} connections, {gaps} gaps, {repeats} repeats",
            self.consumer.as_deref().unwrap_or("cursor")
        );
    }
}
