//! What is said on `/ws`: frames in, frames out, no socket.

use std::collections::HashMap;

use crate::{
    broker::{Broker, ConsumerName, Error, Event, Inbox, Progress, Source, Subscription, Timestamp, TopicName, Turn},
    problem::Problem,
    socket::{Flow, Outbox, Protocol},
    wire::{self, Fields},
};

/// One subscription's turn: what fits a write well, so that others wait no longer than that.
const TURN: Turn = Turn { messages: 64, bytes: 64 << 10 };

/// The types of frames that a client may send.
const TYPES: &str = "subscribe, unsubscribe, publish, ack or ping";

/// One connection.
pub struct Session {
    broker: Broker,
    inbox: Inbox,
    max_subscriptions: usize,
    next_key: u64,
    subscriptions: HashMap<u64, (Source, Subscription)>,
    by_source: HashMap<Source, u64>,
    /// The subscriptions that have a consumer, the only ones whose delivery is followed.
    named: Vec<u64>,
    events: Vec<Event>,
}

impl Session {
    pub fn new(broker: Broker, settings: &super::Settings, inbox: Inbox) -> Self {
        Self {
            broker,
            inbox,
            max_subscriptions: settings.max_subscriptions,
            next_key: 0,
            subscriptions: HashMap::new(),
            by_source: HashMap::new(),
            named: Vec::new(),
            events: Vec::new(),
        }
    }

    fn frame(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<(), Error> {
        match &*fields.required("type")? {
            "subscribe" => self.subscribe(fields, out),
            "unsubscribe" => self.unsubscribe(fields, out),
            "publish" => self.publish(fields, out),
            "ack" => self.acknowledge(fields, out),
            "ping" => {
                send(out, r#""type":"pong""#, fields);
                Ok(())
            }
            _ => Err(Error::bad_request("type", format!("must be {TYPES}"))),
        }
    }

    fn subscribe(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<(), Error> {
        let request = fields.subscribe(&self.broker.settings().filter)?;
        if self.by_source.contains_key(&request.source) {
            // One delivery however often it is asked for.
            ack(out, request.source.as_str(), "", fields);
            return Ok(());
        }
        if self.by_source.len() >= self.max_subscriptions {
            return Err(Error::LimitReached {
                what: "subscriptions on one connection",
                limit: self.max_subscriptions,
                own: true,
            });
        }
        let source = request.source.clone();
        let key = self.next_key;
        let subscription = self.broker.subscribe(request, &self.inbox, key)?;
        self.next_key += 1;
        let consumer = subscription.consumer().map(|info| format!(r#","consumer":{}"#, wire::consumer_object(info)));
        // Delivery begins in a later turn, so the ack stands before any replay.
        ack(out, source.as_str(), &consumer.unwrap_or_default(), fields);
        if subscription.consumer().is_some() {
            self.named.push(key);
        }
        self.subscriptions.insert(key, (source.clone(), subscription));
        self.by_source.insert(source, key);
        Ok(())
    }

    fn unsubscribe(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<(), Error> {
        let source = Source::parse(&fields.required("topic")?)?;
        if let Some(key) = self.by_source.get(&source).copied()
            && let Some((_, mut subscription)) = self.remove(key)
            // A subscriber that leaves in good order has what was written to it.
            && out.pending().is_empty()
            && subscription.seal()
        {
            subscription.confirm();
        }
        ack(out, source.as_str(), "", fields);
        Ok(())
    }

    fn publish(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<(), Error> {
        let topic = TopicName::parse(&fields.required("topic")?)?;
        let draft = fields.draft(self.broker.settings().max_payload_bytes)?;
        let done = self.broker.publish(&topic, draft)?;
        let duplicate = if done.duplicate { r#","duplicate":true"# } else { "" };
        let more = format!(
            r#","id":{},"offset":{},"cursor":"{}"{duplicate}"#,
            wire::quoted(done.id.as_str()),
            done.cursor.offset,
            done.cursor
        );
        ack(out, topic.as_str(), &more, fields);
        Ok(())
    }

    fn acknowledge(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<(), Error> {
        let source = Source::parse(&fields.required("topic")?)?;
        let consumer = ConsumerName::parse(&fields.required("consumer")?)?;
        let cursor = wire::parse_cursor("cursor", &fields.required("cursor")?)?;
        self.broker.acknowledge(&source, &consumer, cursor)?;
        ack(out, source.as_str(), "", fields);
        Ok(())
    }

    fn remove(&mut self, key: u64) -> Option<(Source, Subscription)> {
        let removed = self.subscriptions.remove(&key)?;
        self.by_source.remove(&removed.0);
        self.named.retain(|named| *named != key);
        Some(removed)
    }

    fn end(&mut self, key: u64, error: Error, out: &mut Outbox) {
        let Some((source, _)) = self.remove(key) else { return };
        if let Error::TopicDeleted(name) = &error {
            out.text(&[wire::deleted_frame(name.as_str()).as_bytes()]);
            return;
        }
        let topic = wire::quoted(source.as_str());
        let error = wire::error_object(&Problem::from(error));
        out.text(&[
            format!(r#"{{"type":"error","topic":{topic},"error":{error},"ts":"{}"}}"#, Timestamp::now()).as_bytes()
        ]);
    }
}

impl Protocol for Session {
    fn text(&mut self, text: &str, out: &mut Outbox) -> Flow {
        let fields = match Fields::parse("frame", text) {
            Ok(fields) => fields,
            Err(error) => {
                refuse(out, None, error);
                return Flow::Malformed;
            }
        };
        match self.frame(&fields, out) {
            Ok(()) => Flow::Go,
            Err(error) => {
                let malformed = matches!(error, Error::BadRequest { .. });
                refuse(out, Some(&fields), error);
                if malformed { Flow::Malformed } else { Flow::Go }
            }
        }
    }

    fn binary(&mut self, out: &mut Outbox) -> Flow {
        refuse(out, None, Error::bad_request("frame", "must be text, not binary"));
        Flow::Malformed
    }

    fn deliver(&mut self, key: u64, out: &mut Outbox) -> Flow {
        let Some((_, subscription)) = self.subscriptions.get_mut(&key) else { return Flow::Go };
        let progress = subscription.read(TURN, &mut self.events);
        for event in self.events.drain(..) {
            match event {
                Event::Message(message) => out.text(&[&wire::event_frame(&message)]),
                Event::Gap(gap) => out.text(&[wire::gap_frame(&gap).as_bytes()]),
                Event::Deleted(topic) => out.text(&[wire::deleted_frame(topic.as_str()).as_bytes()]),
            }
        }
        if let Progress::Ended(error) = progress {
            self.end(key, error, out);
        }
        Flow::Go
    }

    fn seal(&mut self) -> bool {
        let mut any = false;
        for key in &self.named {
            any |= self.subscriptions.get_mut(key).is_some_and(|(_, subscription)| subscription.seal());
        }
        any
    }

    fn confirm(&mut self) {
        for key in &self.named {
            if let Some((_, subscription)) = self.subscriptions.get_mut(key) {
                subscription.confirm();
            }
        }
    }
}

fn ack(out: &mut Outbox, topic: &str, more: &str, fields: &Fields<'_>) {
    send(out, &format!(r#""type":"ack","topic":{},"status":"ok"{more}"#, wire::quoted(topic)), fields);
}

fn refuse(out: &mut Outbox, fields: Option<&Fields<'_>>, error: Error) {
    let problem = wire::error_object(&Problem::from(error));
    let nothing = Fields::parse("frame", "{}");
    let Some(fields) = fields.or(nothing.as_ref().ok()) else { return };
    let topic = fields.text("topic").ok().flatten().map(|topic| format!(r#","topic":{}"#, wire::quoted(&topic)));
    send(out, &format!(r#""type":"error"{},"error":{problem}"#, topic.unwrap_or_default()), fields);
}

/// Adds what every answer carries: the client's `request_id`, if it gave one, and the time.
fn send(out: &mut Outbox, body: &str, fields: &Fields<'_>) {
    let request_id = fields.text("request_id").ok().flatten();
    let request_id = request_id.map(|id| format!(r#","request_id":{}"#, wire::quoted(&id))).unwrap_or_default();
    out.text(&[format!(r#"{{{body}{request_id},"ts":"{}"}}"#, Timestamp::now()).as_bytes()]);
}
