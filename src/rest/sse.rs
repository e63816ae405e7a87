//! A topic as plain server-sent events: `id:` is the cursor, so a browser's `EventSource` resumes by itself.

use crate::{
    broker::{AnyCursor, BatchLimit, Error, Event, Progress, Subscription, Timestamp},
    problem::Problem,
    streaming::{Flow, Source},
    wire,
};

const BATCH_LIMIT: BatchLimit = BatchLimit { messages: 64, bytes: 64 << 10 };

/// One subscription as a stream of events.
pub struct Stream {
    subscription: Subscription,
    events: Vec<Event>,
    greeted: bool,
}

impl Stream {
    pub fn new(subscription: Subscription) -> Self {
        Self { subscription, events: Vec::new(), greeted: false }
    }

    fn end(error: Error, out: &mut Vec<u8>) {
        match error {
            Error::TopicDeleted(topic) => {
                event(out, NO_ID, "deleted", &[wire::deleted_frame(topic.as_str()).as_bytes()]);
            }
            error => {
                let frame = format!(
                    r#"{{"type":"error","error":{},"ts":"{}"}}"#,
                    wire::error_object(&Problem::from(error)),
                    Timestamp::now()
                );
                event(out, NO_ID, "error", &[frame.as_bytes()]);
            }
        }
    }
}

/// JSON on the wire has no line breaks outside strings and none inside, so one `data:` line holds it.
fn event(out: &mut Vec<u8>, id: Option<&dyn std::fmt::Display>, name: &str, data: &[&[u8]]) {
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    out.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    for part in data {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\n\n");
}

/// Only messages move the position from which an `EventSource` resumes.
const NO_ID: Option<&dyn std::fmt::Display> = None;

impl Source for Stream {
    fn deliver(&mut self, _: u64, out: &mut Vec<u8>) -> Flow {
        if !std::mem::replace(&mut self.greeted, true) {
            // So that a client sees at once that it is subscribed, and proxies pass the head on.
            out.extend_from_slice(format!(": subscribed {}\n\n", self.subscription.begins_at()).as_bytes());
            if let Some(info) = self.subscription.consumer() {
                let frame = format!(
                    r#"{{"type":"consumer","consumer":{},"ts":"{}"}}"#,
                    wire::consumer_object(info),
                    Timestamp::now()
                );
                event(out, NO_ID, "consumer", &[frame.as_bytes()]);
            }
        }
        let progress = self.subscription.read(BATCH_LIMIT, &mut self.events);
        for read in self.events.drain(..) {
            match read {
                Event::Message(message, position) => {
                    let (frame, end) = wire::event_parts(&message, position.as_ref());
                    let id = position.map_or(AnyCursor::Topic(message.cursor), AnyCursor::Pattern);
                    event(out, Some(&id), "message", &[&frame, end.as_bytes()]);
                }
                Event::Gap(gap) => event(out, NO_ID, "gap", &[wire::gap_frame(&gap).as_bytes()]),
                Event::Deleted { topic, .. } => {
                    event(out, NO_ID, "deleted", &[wire::deleted_frame(topic.as_str()).as_bytes()]);
                }
            }
        }
        match progress {
            Progress::Ended(error) => {
                Self::end(error, out);
                Flow::End
            }
            Progress::More | Progress::CaughtUp => Flow::Go,
        }
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b": alive\n\n");
    }

    fn taken(&mut self) {
        // No answer comes back on an event stream: what the connection took counts as delivered, and a client that
        // reconnects says with Last-Event-ID where it really was.
        if self.subscription.mark_in_flight() {
            self.subscription.acknowledge_in_flight();
        }
    }
}
