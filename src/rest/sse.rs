//! A topic as plain server-sent events: `id:` is the cursor, so a browser's `EventSource` resumes by itself.

use crate::{
    broker::{AnyCursor, Error, Event, Progress, Subscription, Timestamp},
    event_stream::{self, ServerSentEvent},
    problem::Problem,
    streaming::{StreamContent, StreamFlow},
    subscriptions::BATCH_LIMIT,
    wire,
};

/// One subscription as a stream of events.
pub struct TopicStream {
    subscription: Subscription,
    events: Vec<Event>,
    greeted: bool,
}

impl TopicStream {
    pub fn new(subscription: Subscription) -> Self {
        Self { subscription, events: Vec::new(), greeted: false }
    }

    fn end(error: Error, out: &mut Vec<u8>) {
        match error {
            Error::TopicDeleted(topic) => notice(out, "deleted", &wire::deleted_frame(topic.as_str())),
            error => {
                let frame = format!(
                    r#"{{"type":"error","error":{},"ts":"{}"}}"#,
                    Problem::from(error).to_json(),
                    Timestamp::now()
                );
                notice(out, "error", &frame);
            }
        }
    }
}

/// An event without an id: only messages, and the end of the state, move the position from which an `EventSource` resumes.
fn notice(out: &mut Vec<u8>, name: &'static str, frame: &str) {
    ServerSentEvent { id: None, name, data: &[frame.as_bytes()] }.write(out);
}

impl StreamContent for TopicStream {
    fn deliver(&mut self, _: u64, out: &mut Vec<u8>) -> StreamFlow {
        if !std::mem::replace(&mut self.greeted, true) {
            event_stream::subscribed(out, self.subscription.begins_at());
            if let Some(info) = self.subscription.consumer() {
                let frame = format!(
                    r#"{{"type":"consumer","consumer":{},"ts":"{}"}}"#,
                    wire::consumer_object(info),
                    Timestamp::now()
                );
                notice(out, "consumer", &frame);
            }
        }
        let progress = self.subscription.read(BATCH_LIMIT, &mut self.events);
        for read in self.events.drain(..) {
            match read {
                Event::Message(message, None) => out.extend_from_slice(&wire::stream_event(&message)),
                Event::Message(message, Some(position)) => {
                    let (frame, end) = wire::event_parts(&message, Some(&position));
                    let id = AnyCursor::Pattern(position);
                    let data = &[&frame[..], end.as_bytes()];
                    ServerSentEvent { id: Some(&id), name: wire::MESSAGE_EVENT, data }.write(out);
                }
                Event::Gap(gap) => notice(out, "gap", &wire::gap_frame(&gap)),
                Event::Deleted { topic, .. } => notice(out, "deleted", &wire::deleted_frame(topic.as_str())),
                Event::StateComplete(at) => {
                    let frame = wire::state_frame(self.subscription.source(), &at);
                    ServerSentEvent { id: Some(&at), name: "state", data: &[frame.as_bytes()] }.write(out);
                }
            }
        }
        match progress {
            Progress::Ended(error) => {
                Self::end(error, out);
                StreamFlow::End
            }
            Progress::More | Progress::CaughtUp => StreamFlow::Go,
        }
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) {
        event_stream::heartbeat(out);
    }

    fn taken(&mut self) {
        // No acknowledgement comes back on an event stream: what the connection took counts as delivered, and a client that
        // reconnects gives its true position with Last-Event-ID.
        if self.subscription.mark_in_flight() {
            self.subscription.acknowledge_in_flight();
        }
    }
}
