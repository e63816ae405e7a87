//! What is said on `/ws`: frames in, frames out, no socket.
//!
//! Frames are answered in their order, and act in it. A publish or an acknowledgement whose engine takes its time does not
//! hold up the next one; any other frame waits for those before it.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::{
    broker::{
        BatchLimit, Broker, ConsumerName, Error, Event, Inbox, Newest, Progress, Publication, Publishing, Source,
        Subscription, Timestamp, TopicName,
    },
    problem::Problem,
    socket::{Flow, Outbox, Protocol},
    wire::{self, Fields},
};

/// One subscription's turn: what fits a write well, so that others wait no longer than that.
const BATCH_LIMIT: BatchLimit = BatchLimit { messages: 64, bytes: 64 << 10 };

/// Publishes and acknowledgements on one connection that may wait for the engine: as many as an engine takes at once where
/// that is worth anything.
const MAX_WAITING: usize = 1_024;

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
    /// Begun and not answered, in order.
    waiting: VecDeque<Waiting>,
    /// A frame that has to wait for those before it.
    held: Option<String>,
    /// A subscription that ends when it has read what was published before its end was asked for.
    leaving: Option<Leaving>,
    waker: Option<Waker>,
}

/// What an answer repeats of its question.
struct Tag {
    /// As JSON text.
    topic: Option<String>,
    /// As JSON text.
    request_id: Option<String>,
}

struct Leaving {
    key: u64,
    newest: Newest,
    tag: Tag,
}

struct Waiting {
    tag: Tag,
    work: Work,
}

enum Work {
    Publish(Publishing),
    Acknowledge(Pin<Box<dyn Future<Output = Done> + Send>>),
    Subscribe(Pin<Box<dyn Future<Output = Done> + Send>>),
    /// Not yet answered, because others come first; `None` once it was taken.
    Done(Option<Done>),
}

/// What has become of a frame.
enum Done {
    Published(Result<Publication, Error>),
    Subscribed(u64, Source, Result<Box<Subscription>, Error>),
    Acknowledged(Result<(), Error>),
}

impl Work {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        match self {
            Work::Publish(publishing) => Pin::new(publishing).poll(cx).map(Done::Published),
            Work::Acknowledge(work) | Work::Subscribe(work) => work.as_mut().poll(cx),
            Work::Done(done) => done.take().map_or(Poll::Pending, Poll::Ready),
        }
    }

    /// Whether what comes next may begin before this is done.
    fn holds_back(&self) -> bool {
        match self {
            Work::Publish(publishing) => !publishing.is_ordered(),
            Work::Subscribe(_) => true,
            Work::Acknowledge(_) | Work::Done(_) => false,
        }
    }
}

impl Tag {
    fn of(fields: Option<&Fields<'_>>) -> Self {
        let text = |name| fields?.text(name).ok().flatten().map(|text| wire::quoted(&text));
        Self { topic: text("topic"), request_id: text("request_id") }
    }
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
            waiting: VecDeque::new(),
            held: None,
            leaving: None,
            waker: None,
        }
    }

    /// Takes one frame. `None` where it has to wait for those before it.
    fn frame(&mut self, text: &str, out: &mut Outbox) -> Option<Flow> {
        let fields = match Fields::parse("frame", text) {
            Ok(fields) => fields,
            Err(_) if !self.waiting.is_empty() => return None,
            Err(error) => {
                refuse(out, &Tag::of(None), error);
                return Some(Flow::Malformed);
            }
        };
        let begun = match fields.required("type").as_deref() {
            Ok("publish") => self.publish(&fields, out),
            Ok("ack") => self.acknowledge(&fields, out),
            // Acts, and is answered, in its turn.
            _ if !self.waiting.is_empty() => return None,
            Ok("subscribe") => self.subscribe(&fields, out),
            Ok("unsubscribe") => self.unsubscribe(&fields, out),
            Ok("ping") => {
                send(out, r#""type":"pong""#, &Tag::of(Some(&fields)));
                Ok(Flow::Go)
            }
            Ok(_) => Err(Error::bad_request("type", format!("must be {TYPES}"))),
            Err(error) => Err(error.clone()),
        };
        match begun {
            Ok(flow) => Some(flow),
            Err(_) if !self.waiting.is_empty() => None,
            Err(error) => Some(refused(out, &Tag::of(Some(&fields)), error)),
        }
    }

    /// Answers work that is done, and keeps what is not.
    fn begin(&mut self, tag: Tag, mut work: Work, out: &mut Outbox) -> Flow {
        // Most is done at once; what is not has begun, and is polled again with the connection's own waker.
        match work.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) if self.waiting.is_empty() => return self.done(&tag, done, out),
            Poll::Ready(done) => work = Work::Done(Some(done)),
            Poll::Pending => {}
        }
        self.waiting.push_back(Waiting { tag, work });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Flow::Go
    }

    fn done(&mut self, tag: &Tag, done: Done, out: &mut Outbox) -> Flow {
        let answered = match done {
            Done::Published(published) => published.map(|done| {
                let duplicate = if done.duplicate { r#","duplicate":true"# } else { "" };
                let id = wire::quoted(done.id.as_str());
                let (offset, cursor) = (done.cursor.offset, done.cursor);
                ack(out, &format!(r#","id":{id},"offset":{offset},"cursor":"{cursor}"{duplicate}"#), tag);
            }),
            Done::Subscribed(key, source, subscribed) => subscribed.map(|subscription| {
                let info = subscription.consumer().map(wire::consumer_object);
                // Delivery begins in a later turn, so the ack stands before any replay.
                ack(out, &info.map(|info| format!(r#","consumer":{info}"#)).unwrap_or_default(), tag);
                if subscription.consumer().is_some() {
                    self.named.push(key);
                }
                self.subscriptions.insert(key, (source.clone(), *subscription));
                self.by_source.insert(source, key);
            }),
            Done::Acknowledged(acknowledged) => acknowledged.map(|()| ack(out, "", tag)),
        };
        match answered {
            Ok(()) => Flow::Go,
            Err(error) => refused(out, tag, error),
        }
    }

    fn subscribe(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<Flow, Error> {
        let request = fields.subscribe(&self.broker.settings().filter)?;
        let tag = Tag::of(Some(fields));
        if self.by_source.contains_key(&request.source) {
            // One delivery however often it is asked for.
            ack(out, "", &tag);
            return Ok(Flow::Go);
        }
        if self.by_source.len() >= self.max_subscriptions {
            return Err(Error::LimitReached {
                what: "subscriptions on one connection",
                limit: self.max_subscriptions,
                own: true,
            });
        }
        let (broker, inbox, key) = (self.broker.clone(), self.inbox.clone(), self.next_key);
        self.next_key += 1;
        let work = async move {
            let source = request.source.clone();
            let subscribed = broker.subscribe(request, &inbox, key).await;
            Done::Subscribed(key, source, subscribed.map(Box::new))
        };
        Ok(self.begin(tag, Work::Subscribe(Box::pin(work)), out))
    }

    fn unsubscribe(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<Flow, Error> {
        let source = Source::parse(&fields.required("topic")?)?;
        let tag = Tag::of(Some(fields));
        let known = self.by_source.get(&source).copied();
        let Some((key, (_, subscription))) = known.and_then(|key| Some((key, self.subscriptions.get(&key)?))) else {
            ack(out, "", &tag);
            return Ok(Flow::Go);
        };
        let newest = subscription.newest();
        self.leaving = Some(Leaving { key, newest, tag });
        self.leave(out);
        Ok(Flow::Go)
    }

    /// Ends the subscription that is to end, once it has read everything that was published before.
    fn leave(&mut self, out: &mut Outbox) {
        let Some(Leaving { key, newest, .. }) = &self.leaving else { return };
        let key = *key;
        if self.subscriptions.get(&key).is_some_and(|(_, subscription)| !subscription.has_read(newest)) {
            return;
        }
        self.remove(key);
        if let Some(Leaving { tag, .. }) = self.leaving.take() {
            ack(out, "", &tag);
        }
    }

    fn publish(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<Flow, Error> {
        let topic = TopicName::parse(&fields.required("topic")?)?;
        let new_message = fields.new_message(self.broker.settings().max_payload_bytes)?;
        let publishing = self.broker.publish(&topic, new_message);
        Ok(self.begin(Tag::of(Some(fields)), Work::Publish(publishing), out))
    }

    fn acknowledge(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<Flow, Error> {
        let source = Source::parse(&fields.required("topic")?)?;
        let consumer = ConsumerName::parse(&fields.required("consumer")?)?;
        let cursor = wire::parse_cursor("cursor", &fields.required("cursor")?)?;
        let broker = self.broker.clone();
        let work = async move { Done::Acknowledged(broker.acknowledge(&source, &consumer, cursor).await) };
        Ok(self.begin(Tag::of(Some(fields)), Work::Acknowledge(Box::pin(work)), out))
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
    fn is_ready(&self) -> bool {
        let held_back = self.waiting.back().is_some_and(|last| last.work.holds_back());
        self.held.is_none() && self.leaving.is_none() && !held_back && self.waiting.len() < MAX_WAITING
    }

    fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || self.held.is_some()
    }

    fn text(&mut self, text: &str, out: &mut Outbox) -> Flow {
        self.frame(text, out).unwrap_or_else(|| {
            self.held = Some(text.to_owned());
            Flow::Go
        })
    }

    fn poll_work(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<Flow> {
        let mut worked = false;
        while let Some(Waiting { tag, work }) = self.waiting.front_mut() {
            let Poll::Ready(done) = work.poll(cx) else { break };
            let tag = Tag { topic: tag.topic.take(), request_id: tag.request_id.take() };
            self.waiting.pop_front();
            worked = true;
            if let Done::Subscribed(key, _, Ok(_)) = &done {
                // News may have come to the inbox before the subscription stands here.
                self.inbox.wake(*key);
            }
            let flow = self.done(&tag, done, out);
            if flow != Flow::Go {
                return Poll::Ready(flow);
            }
        }
        if self.waiting.is_empty()
            && let Some(text) = self.held.take()
        {
            return Poll::Ready(self.text(&text, out));
        }
        if worked {
            return Poll::Ready(Flow::Go);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn binary(&mut self, out: &mut Outbox) -> Flow {
        refused(out, &Tag::of(None), Error::bad_request("frame", "must be text, not binary"))
    }

    fn deliver(&mut self, key: u64, out: &mut Outbox) -> Flow {
        let Some((_, subscription)) = self.subscriptions.get_mut(&key) else { return Flow::Go };
        let progress = subscription.read(BATCH_LIMIT, &mut self.events);
        for event in self.events.drain(..) {
            match event {
                Event::Message(message, position) => {
                    let (frame, end) = wire::event_parts(&message, position.as_ref());
                    out.text(&[&frame, end.as_bytes()]);
                }
                Event::Gap(gap) => out.text(&[wire::gap_frame(&gap).as_bytes()]),
                Event::Deleted { topic, .. } => out.text(&[wire::deleted_frame(topic.as_str()).as_bytes()]),
            }
        }
        if let Progress::Ended(error) = progress {
            self.end(key, error, out);
        }
        self.leave(out);
        Flow::Go
    }

    fn mark_in_flight(&mut self) -> bool {
        let mut any = false;
        for key in &self.named {
            any |= self.subscriptions.get_mut(key).is_some_and(|(_, subscription)| subscription.mark_in_flight());
        }
        any
    }

    fn acknowledge_in_flight(&mut self) {
        for key in &self.named {
            if let Some((_, subscription)) = self.subscriptions.get_mut(key) {
                subscription.acknowledge_in_flight();
            }
        }
    }
}

fn ack(out: &mut Outbox, more: &str, tag: &Tag) {
    let topic = tag.topic.as_deref().unwrap_or("null");
    send(out, &format!(r#""type":"ack","topic":{topic},"status":"ok"{more}"#), tag);
}

/// Answers with the error; what is malformed counts.
fn refused(out: &mut Outbox, tag: &Tag, error: Error) -> Flow {
    let malformed = matches!(error, Error::BadRequest { .. });
    refuse(out, tag, error);
    if malformed { Flow::Malformed } else { Flow::Go }
}

fn refuse(out: &mut Outbox, tag: &Tag, error: Error) {
    let problem = wire::error_object(&Problem::from(error));
    let topic = tag.topic.as_ref().map(|topic| format!(r#","topic":{topic}"#)).unwrap_or_default();
    send(out, &format!(r#""type":"error"{topic},"error":{problem}"#), tag);
}

/// Adds what every answer carries: the client's `request_id`, if it gave one, and the time.
fn send(out: &mut Outbox, body: &str, tag: &Tag) {
    let request_id = tag.request_id.as_ref().map(|id| format!(r#","request_id":{id}"#)).unwrap_or_default();
    out.text(&[format!(r#"{{{body}{request_id},"ts":"{}"}}"#, Timestamp::now()).as_bytes()]);
}
