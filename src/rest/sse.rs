//! A topic as plain server-sent events: `id:` is the cursor, so a browser's `EventSource` resumes by itself.

use crate::{
    broker::{Error, Event, Message, Progress, Subscription, Timestamp, Turn},
    problem::Problem,
    streaming::{Flow, Source},
    wire,
};

const TURN: Turn = Turn { messages: 64, bytes: 64 << 10 };

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
            Error::TopicDeleted(topic) => event(out, None, "deleted", wire::deleted_frame(topic.as_str()).as_bytes()),
            error => {
                let frame = format!(
                    r#"{{"type":"error","error":{},"ts":"{}"}}"#,
                    wire::error_object(&Problem::from(error)),
                    Timestamp::now()
                );
                event(out, None, "error", frame.as_bytes());
            }
        }
    }
}

/// JSON on the wire has no line breaks outside strings and none inside, so one `data:` line holds it.
fn event(out: &mut Vec<u8>, message: Option<&Message>, name: &str, data: &[u8]) {
    if let Some(message) = message {
        out.extend_from_slice(format!("id: {}\n", message.cursor).as_bytes());
    }
    for part in [b"event: ", name.as_bytes(), b"\ndata: ", data, b"\n\n"] {
        out.extend_from_slice(part);
    }
}

impl Source for Stream {
    fn deliver(&mut self, _: u64, out: &mut Vec<u8>) -> Flow {
        if !std::mem::replace(&mut self.greeted, true) {
            // So that a client sees at once that it is subscribed, and proxies pass the head on.
            out.extend_from_slice(b": subscribed\n\n");
            if let Some(info) = self.subscription.consumer() {
                let frame = format!(
                    r#"{{"type":"consumer","consumer":{},"ts":"{}"}}"#,
                    wire::consumer_object(info),
                    Timestamp::now()
                );
                event(out, None, "consumer", frame.as_bytes());
            }
        }
        let progress = self.subscription.read(TURN, &mut self.events);
        for read in self.events.drain(..) {
            match read {
                Event::Message(message) => event(out, Some(&message), "message", &wire::event_frame(&message)),
                Event::Gap(gap) => event(out, None, "gap", wire::gap_frame(&gap).as_bytes()),
                Event::Deleted(topic) => event(out, None, "deleted", wire::deleted_frame(topic.as_str()).as_bytes()),
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
        if self.subscription.seal() {
            self.subscription.confirm();
        }
    }
}
