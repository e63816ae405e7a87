//! The protocol of `/ws`: frames in, frames out, without a socket.
//!
//! Frames act and are replied to in their order. A publish or an acknowledgement whose engine takes its time does not hold
//! up the next one; any other frame waits for those before it.

use std::{
    borrow::Cow,
    collections::VecDeque,
    future::Future,
    io::Write as _,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::time::Instant;

use super::fields::{ACK_FIELDS, AUTH_FIELDS, PUBLISH_FIELDS, SUBSCRIBE_FIELDS, UNKNOWN_FIELDS};
use crate::{
    access::{ACCESS_CHANGED, SignIn},
    broker::{
        ConsumerName, Error, Event, Inbox, Newest, Principal, Progress, Publication, Publishing, Source, Subscription,
        Timestamp, TopicName,
    },
    problem::Problem,
    socket::{CloseCode, Flow, Outbox, Protocol},
    subscriptions::{BATCH_LIMIT, Limit, Readable, Subscriptions},
    wire::{self, Fields, Options},
};

/// Publishes and acknowledgements on one connection that may wait for the engine. An engine takes so many at once where
/// taking several at once makes it faster.
const MAX_WAITING: usize = 1_024;

/// Frames that may fail for want of valid credentials before the connection is closed.
const MAX_REFUSED_CREDENTIALS: u32 = 3;

/// The types of frames that a client may send.
const TYPES: &str = "subscribe, unsubscribe, publish, ack, auth or ping";

/// One connection.
pub struct Session {
    sign_in: SignIn,
    /// Frames that have failed for want of valid credentials.
    refused_credentials: u32,
    subscriptions: Subscriptions<Source, Subscription>,
    /// Frames whose work has begun and that have had no reply yet, in their order.
    pending: VecDeque<PendingReply>,
    /// A frame that has to wait for those before it.
    held: Option<String>,
    /// A subscription that ends when it has read what was published before the client asked for its end.
    leaving: Option<Leaving>,
    waker: Option<Waker>,
}

/// What a reply repeats of its request.
#[derive(Default)]
struct Echo<'a> {
    /// As JSON text.
    topic: Option<Cow<'a, str>>,
    /// As JSON text.
    request_id: Option<Cow<'a, str>>,
}

struct Leaving {
    key: u64,
    newest: Newest,
    echo: Echo<'static>,
}

struct PendingReply {
    echo: Echo<'static>,
    work: Work,
}

enum Work {
    Publish(Publishing),
    Acknowledge(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    /// A subscription, or a verification of credentials: what follows depends on it.
    Subscribe(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    /// Done, but the replies to earlier frames come first; `None` once it was taken.
    Done(Option<Outcome>),
}

/// What a frame led to.
enum Outcome {
    Published(Result<Publication, Error>),
    /// Under this key.
    Subscribed(u64, Result<Box<Subscription>, Error>),
    Acknowledged(Result<(), Error>),
    SignedIn(Result<Principal, Problem>),
}

impl Work {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        match self {
            Work::Publish(publishing) => Pin::new(publishing).poll(cx).map(Outcome::Published),
            Work::Acknowledge(work) | Work::Subscribe(work) => work.as_mut().poll(cx),
            Work::Done(done) => done.take().map_or(Poll::Pending, Poll::Ready),
        }
    }

    /// Whether the next frame has to wait until this is done.
    fn holds_back(&self) -> bool {
        match self {
            Work::Publish(publishing) => !publishing.is_ordered(),
            Work::Subscribe(_) => true,
            Work::Acknowledge(_) | Work::Done(_) => false,
        }
    }
}

impl<'a> Echo<'a> {
    fn of(fields: &Fields<'a>) -> Self {
        Self { topic: fields.quoted("topic"), request_id: fields.quoted("request_id") }
    }

    fn into_owned(self) -> Echo<'static> {
        let owned = |text: Option<Cow<'a, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        Echo { topic: owned(self.topic), request_id: owned(self.request_id) }
    }
}

impl Session {
    #[must_use]
    pub fn new(sign_in: SignIn, settings: &super::Settings, inbox: Inbox) -> Self {
        let limit = Limit { what: "subscriptions on one connection", most: settings.max_subscriptions };
        Self {
            sign_in,
            refused_credentials: 0,
            subscriptions: Subscriptions::new(inbox, limit),
            pending: VecDeque::new(),
            held: None,
            leaving: None,
            waker: None,
        }
    }

    /// Takes one frame. `None` where it has to wait for those before it.
    fn frame(&mut self, text: &str, out: &mut Outbox) -> Option<Flow> {
        let fields = match Fields::parse("frame", text) {
            Ok(fields) => fields,
            Err(_) if !self.pending.is_empty() => return None,
            Err(error) => {
                refuse(out, &Echo::default(), &error.into());
                return Some(Flow::Malformed);
            }
        };
        let begun = match fields.required("type").as_deref() {
            Ok("publish") => self.publish(&fields, out),
            Ok("ack") => self.acknowledge(&fields, out),
            Ok("auth") => self.authenticate(&fields, out),
            // It acts and is replied to after those before it.
            _ if !self.pending.is_empty() => return None,
            Ok("subscribe") => self.subscribe(&fields, out),
            Ok("unsubscribe") => self.unsubscribe(&fields, out),
            Ok("ping") => {
                send(out, &Echo::of(&fields), |out| out.extend_from_slice(br#""type":"pong""#));
                Ok(Flow::Go)
            }
            Ok(_) => Err(Error::bad_request("type", format!("must be {TYPES}"))),
            Err(error) => Err(error.clone()),
        };
        match begun {
            Ok(flow) => Some(flow),
            Err(_) if !self.pending.is_empty() => None,
            Err(error) => Some(self.refused(out, &Echo::of(&fields), error)),
        }
    }

    /// Begins the work of a frame: replies if it is done at once, and keeps it if not.
    fn begin(&mut self, echo: Echo<'_>, mut work: Work, out: &mut Outbox) -> Flow {
        // Most work is done at once. The rest has begun by this, and is polled again with the connection's own waker.
        match work.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) if self.pending.is_empty() => return self.finish(&echo, done, out),
            Poll::Ready(done) => work = Work::Done(Some(done)),
            Poll::Pending => {}
        }
        self.pending.push_back(PendingReply { echo: echo.into_owned(), work });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Flow::Go
    }

    /// Replies to a frame whose work is done.
    fn finish(&mut self, echo: &Echo<'_>, outcome: Outcome, out: &mut Outbox) -> Flow {
        let replied = match outcome {
            Outcome::Published(published) => published.map(|done| {
                ack(out, echo, |out| {
                    out.extend_from_slice(br#","id":"#);
                    wire::write_quoted(out, done.id.as_str());
                    let (offset, cursor) = (done.cursor.offset, done.cursor);
                    let duplicate = if done.duplicate { r#","duplicate":true"# } else { "" };
                    // Writing to a Vec cannot fail.
                    let _ = write!(out, r#","offset":{offset},"cursor":"{cursor}"{duplicate}"#);
                });
            }),
            Outcome::Subscribed(key, Ok(subscription)) => {
                let info = subscription.consumer().map(wire::consumer_object);
                // The subscription is read only after this returns, so the ack goes out before any replay.
                ack(out, echo, |out| {
                    if let Some(info) = info {
                        let _ = write!(out, r#","consumer":{info}"#);
                    }
                });
                self.subscriptions.open(key, *subscription);
                Ok(())
            }
            Outcome::Subscribed(key, Err(error)) => {
                self.subscriptions.remove(key);
                Err(error)
            }
            Outcome::Acknowledged(acknowledged) => acknowledged.map(|()| ack(out, echo, |_| {})),
            Outcome::SignedIn(Ok(principal)) => match self.signed_in(principal) {
                Err(error @ Error::LimitReached { .. }) => {
                    return Flow::Close(CloseCode::TRY_AGAIN_LATER, error.to_string());
                }
                signed_in => signed_in.map(|()| ack(out, echo, |_| {})),
            },
            Outcome::SignedIn(Err(problem)) => {
                refuse(out, echo, &problem);
                return self.count_refused_credentials();
            }
        };
        match replied {
            Ok(()) => Flow::Go,
            Err(error) => self.refused(out, echo, error),
        }
    }

    /// Replies with the error. Malformed frames in a row are counted, and so are those that nobody may send.
    fn refused(&mut self, out: &mut Outbox, echo: &Echo<'_>, error: Error) -> Flow {
        let malformed = matches!(error, Error::BadRequest { .. });
        let is_nobody = matches!(error, Error::Unauthenticated(_)) && self.sign_in.is_nobody();
        let cannot_now = matches!(error, Error::Unavailable(_));
        refuse(out, echo, &error.into());
        match () {
            // A client that has more to do does it elsewhere.
            () if cannot_now && self.sign_in.client().is_draining() => Flow::Leave,
            () if is_nobody => self.count_refused_credentials(),
            () if malformed => Flow::Malformed,
            () => Flow::Go,
        }
    }

    fn count_refused_credentials(&mut self) -> Flow {
        self.refused_credentials += 1;
        if self.refused_credentials < MAX_REFUSED_CREDENTIALS {
            return Flow::Go;
        }
        Flow::Close(CloseCode(4401), "Unauthorized: too many frames without valid credentials".to_owned())
    }

    fn authenticate(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<Flow, Error> {
        fields.allow("frame", &AUTH_FIELDS, UNKNOWN_FIELDS)?;
        let echo = Echo::of(fields);
        let work = match fields.required("token") {
            Ok(token) => {
                let verification = self.sign_in.authenticate(token.into_owned());
                Work::Subscribe(Box::pin(async move { Outcome::SignedIn(verification.await) }))
            }
            Err(error) => Work::Done(Some(Outcome::SignedIn(Err(self.sign_in.refuse_malformed(&error))))),
        };
        Ok(self.begin(echo, work, out))
    }

    /// From here on the connection is this principal's. Its own subscriptions go on by the newer credential; what anonymous has
    /// subscribed to stays anonymous's.
    fn signed_in(&mut self, principal: Principal) -> Result<(), Error> {
        self.sign_in.sign_in(principal)?;
        self.refused_credentials = 0;
        let principal = self.sign_in.client().principal();
        self.subscriptions.each(|subscription| subscription.renew(principal));
        Ok(())
    }

    fn subscribe(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<Flow, Error> {
        fields.allow("frame", &SUBSCRIBE_FIELDS, UNKNOWN_FIELDS)?;
        let options = Options::of(fields, &self.sign_in.client().settings().filter)?;
        let request = options.subscribe(Source::parse(&fields.required("topic")?)?)?;
        let echo = Echo::of(fields);
        if self.subscriptions.key_of(&request.source).is_some() {
            // Subscribing twice to a topic is one delivery.
            ack(out, &echo, |_| {});
            return Ok(Flow::Go);
        }
        let key = self.subscriptions.reserve(request.source.clone())?;
        let (client, inbox) = (self.sign_in.client().clone(), self.subscriptions.inbox().clone());
        let work = async move { Outcome::Subscribed(key, client.subscribe(request, &inbox, key).await.map(Box::new)) };
        Ok(self.begin(echo, Work::Subscribe(Box::pin(work)), out))
    }

    fn unsubscribe(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<Flow, Error> {
        let source = Source::parse(&fields.required("topic")?)?;
        let echo = Echo::of(fields);
        let known = self.subscriptions.key_of(&source);
        let Some((key, newest)) = known.and_then(|key| Some((key, self.subscriptions.get(key)?.newest()))) else {
            ack(out, &echo, |_| {});
            return Ok(Flow::Go);
        };
        self.leaving = Some(Leaving { key, newest, echo: echo.into_owned() });
        self.leave(out);
        Ok(Flow::Go)
    }

    /// Ends the subscription that is to end, once it has read everything that was published before.
    fn leave(&mut self, out: &mut Outbox) {
        let Some(Leaving { key, newest, .. }) = &self.leaving else { return };
        let key = *key;
        if self.subscriptions.get(key).is_some_and(|subscription| !subscription.has_read(newest)) {
            return;
        }
        self.subscriptions.remove(key);
        if let Some(Leaving { echo, .. }) = self.leaving.take() {
            ack(out, &echo, |_| {});
        }
    }

    fn publish(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<Flow, Error> {
        fields.allow("frame", &PUBLISH_FIELDS, UNKNOWN_FIELDS)?;
        let topic = TopicName::parse(&fields.required("topic")?)?;
        let new_message = fields.new_message(UNKNOWN_FIELDS, self.sign_in.client().settings().max_payload_bytes)?;
        let publishing = self.sign_in.client().publish(&topic, new_message);
        Ok(self.begin(Echo::of(fields), Work::Publish(publishing), out))
    }

    fn acknowledge(&mut self, fields: &Fields<'_>, out: &mut Outbox) -> Result<Flow, Error> {
        let source = Source::parse(&fields.required("topic")?)?;
        fields.allow("frame", &ACK_FIELDS, UNKNOWN_FIELDS)?;
        let consumer = ConsumerName::parse(&fields.required("consumer")?)?;
        let cursor = wire::parse_cursor("cursor", &fields.required("cursor")?)?;
        let owner = fields.text("owner")?.map(Cow::into_owned);
        let client = self.sign_in.client().clone();
        let work = async move {
            Outcome::Acknowledged(client.acknowledge(&source, &consumer, owner.as_deref(), cursor).await)
        };
        Ok(self.begin(Echo::of(fields), Work::Acknowledge(Box::pin(work)), out))
    }

    fn end(&mut self, key: u64, error: Error, out: &mut Outbox) {
        let Some(source) = self.subscriptions.remove(key) else { return };
        if let Error::TopicDeleted(name) = &error {
            out.text(&[wire::deleted_frame(name.as_str()).as_bytes()]);
            return;
        }
        let topic = wire::quoted(source.as_str());
        let error = Problem::from(error).to_json();
        out.text(&[
            format!(r#"{{"type":"error","topic":{topic},"error":{error},"ts":"{}"}}"#, Timestamp::now()).as_bytes()
        ]);
    }
}

impl Protocol for Session {
    fn is_ready(&self) -> bool {
        let held_back = self.pending.back().is_some_and(|last| last.work.holds_back());
        self.held.is_none() && self.leaving.is_none() && !held_back && self.pending.len() < MAX_WAITING
    }

    fn is_busy(&self) -> bool {
        !self.pending.is_empty() || self.held.is_some()
    }

    fn text(&mut self, text: &str, out: &mut Outbox) -> Flow {
        self.frame(text, out).unwrap_or_else(|| {
            self.held = Some(text.to_owned());
            Flow::Go
        })
    }

    fn poll_work(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<Flow> {
        let mut worked = false;
        while let Some(PendingReply { echo, work }) = self.pending.front_mut() {
            let Poll::Ready(done) = work.poll(cx) else { break };
            let echo = std::mem::take(echo);
            self.pending.pop_front();
            worked = true;
            let flow = self.finish(&echo, done, out);
            if flow != Flow::Go {
                return Poll::Ready(flow);
            }
        }
        if self.pending.is_empty()
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

    fn binary(&mut self, _: &[u8], out: &mut Outbox) -> Flow {
        self.refused(out, &Echo::default(), Error::bad_request("frame", "must be text, not binary"))
    }

    fn deadline(&self) -> Option<Instant> {
        self.sign_in.until()
    }

    fn timeout(&mut self, _: &mut Outbox) -> Flow {
        Flow::Close(CloseCode(4401), "Unauthorized: no valid credentials in time".to_owned())
    }

    fn deliver(&mut self, key: u64, out: &mut Outbox) -> Flow {
        if key == ACCESS_CHANGED {
            self.sign_in.look_again();
        }
        let Some(Readable { subscription, events, .. }) = self.subscriptions.readable(key) else { return Flow::Go };
        let progress = subscription.read(BATCH_LIMIT, events);
        for event in events.drain(..) {
            match event {
                Event::Message(message, position) => {
                    let (frame, end) = wire::event_parts(&message, position.as_ref());
                    out.text(&[&frame, end.as_bytes()]);
                }
                Event::Gap(gap) => out.text(&[wire::gap_frame(&gap).as_bytes()]),
                Event::Deleted { topic, .. } => out.text(&[wire::deleted_frame(topic.as_str()).as_bytes()]),
                Event::StateComplete(at) => out.text(&[wire::state_frame(subscription.source(), &at).as_bytes()]),
            }
        }
        if let Progress::Ended(error) = progress {
            self.end(key, error, out);
        }
        self.leave(out);
        Flow::Go
    }

    fn mark_in_flight(&mut self) -> bool {
        self.subscriptions.mark_in_flight()
    }

    fn acknowledge_in_flight(&mut self) {
        self.subscriptions.acknowledge_in_flight();
    }
}

fn ack(out: &mut Outbox, echo: &Echo<'_>, more: impl FnOnce(&mut Vec<u8>)) {
    send(out, echo, |out| {
        out.extend_from_slice(br#""type":"ack""#);
        write_topic(out, echo);
        out.extend_from_slice(br#","status":"ok""#);
        more(out);
    });
}

fn refuse(out: &mut Outbox, echo: &Echo<'_>, problem: &Problem) {
    send(out, echo, |out| {
        out.extend_from_slice(br#""type":"error""#);
        write_topic(out, echo);
        let _ = write!(out, r#","error":{}"#, problem.to_json());
    });
}

/// Signing in concerns no topic.
fn write_topic(out: &mut Vec<u8>, echo: &Echo<'_>) {
    if let Some(topic) = &echo.topic {
        out.extend_from_slice(br#","topic":"#);
        out.extend_from_slice(topic.as_bytes());
    }
}

/// Adds what every reply carries: the client's `request_id`, if it gave one, and the time.
fn send(out: &mut Outbox, echo: &Echo<'_>, body: impl FnOnce(&mut Vec<u8>)) {
    out.text_with(|out| {
        out.push(b'{');
        body(out);
        if let Some(id) = &echo.request_id {
            out.extend_from_slice(br#","request_id":"#);
            out.extend_from_slice(id.as_bytes());
        }
        let _ = write!(out, r#","ts":"{}"}}"#, Timestamp::now());
    });
}
