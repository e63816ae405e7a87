//! GraphQL over WebSocket: `graphql-transport-ws` to the letter of its protocol, and the legacy `graphql-ws` by a table of
//! message names.

mod credential;
mod names;
mod pings;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_graphql::{Pos, ServerError, http::ALL_WEBSOCKET_PROTOCOLS};
use axum::response::Response;
use serde_json::value::RawValue;
use tokio::time::Instant;

use names::{LEGACY, MODERN, Names};
use pings::{MAX_PONGS, confirm_subscribed, pong};

use super::{
    Door, Settings,
    document::OperationKind,
    execute::{Executor, Outcome},
    ids, json,
    operation::Operation,
    request::{Asked, Unresolved},
};
use crate::{
    access::{ACCESS_CHANGED, SignIn, refuse_connection},
    broker::{Client, Error, Inbox, Principal},
    problem::Problem,
    socket::{CloseCode, ClosesAtOnce, Flow, Outbox, Protocol, Upgrade},
    subscriptions::{Limit, Readable, Subscriptions},
    wire::{self, Fields},
};

/// Accepts with the first of the client's subprotocols that is one of GraphQL's, if it offers one.
pub fn accept(door: &Door, client: Client, upgrade: Upgrade, offers_graphql: bool) -> Response {
    let mut offered = upgrade.offered().iter().filter(|_| offers_graphql);
    let chosen = offered.find_map(|name| ALL_WEBSOCKET_PROTOCOLS.iter().find(|known| *known == name));
    let (context, settings, executor) = (&door.context, &door.settings, &door.executor);
    match chosen {
        Some(name) => {
            let names = if *name == "graphql-ws" { &LEGACY } else { &MODERN };
            let keep_alive = KEEP_ALIVE.min(context.heartbeat);
            let inbox = Inbox::default();
            let sign_in = match SignIn::new(&context.access, client, &inbox, settings.connection_init_timeout) {
                Ok(sign_in) => sign_in,
                Err(error) => return refuse_connection(&context.sockets, upgrade, Some(name), error),
            };
            let session = Session::new(executor.clone(), sign_in, settings, names, keep_alive, inbox.clone());
            upgrade.accept_with(&context.sockets, Some(name), inbox, Box::new(session))
        }
        // The protocol wants the connection made and closed with 4406, where a client can see the code.
        None => upgrade.accept(&context.sockets, None, |_| {
            Box::new(ClosesAtOnce { code: CloseCode(4406), reason: "Subprotocol not acceptable", held: () })
        }),
    }
}

enum Phase {
    /// `connection_init` has not come.
    Waiting {
        until: Instant,
    },
    /// It has come, and its credentials are being verified.
    Verifying(Verification),
    Ready,
}

type Verification = Pin<Box<dyn Future<Output = Result<Principal, Problem>> + Send>>;

/// What an operation led to that was begun.
enum Begun {
    /// Its one result, or why it was refused before execution.
    Ended(Outcome),
    /// Results will come.
    Subscribed(Box<Operation>),
}

/// An operation that has neither ended nor begun to stream.
struct Running {
    key: u64,
    execution: Pin<Box<dyn Future<Output = Begun> + Send>>,
    is_subscription: bool,
    /// The client's name for the ping that says that its subscription is open.
    ack: Option<String>,
}

/// One connection.
pub struct Session {
    executor: Executor,
    sign_in: SignIn,
    names: &'static Names,
    phase: Phase,
    /// All operations, queries and mutations too, by their ids as JSON text.
    operations: Subscriptions<String, Operation>,
    /// In the order in which they came.
    running: Vec<Running>,
    waker: Option<Waker>,
    /// The time between two keep-alive messages, and when the next is due.
    keep_alive: (Duration, Option<Instant>),
    /// Payloads of pongs that wait until subscriptions are open. The protocol has no other reply to a subscription; because
    /// of this a client that subscribes, pings and publishes after the pong gets what it has published.
    pongs: Vec<String>,
}

/// The longest time between two keep-alive messages to a legacy client, which cannot see WebSocket pings: npm
/// subscriptions-transport-ws gives up a connection on which nothing came for 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

impl Session {
    fn new(
        executor: Executor,
        sign_in: SignIn,
        settings: &Settings,
        names: &'static Names,
        keep_alive: Duration,
        inbox: Inbox,
    ) -> Self {
        let limit = Limit { what: "operations on one connection", most: settings.max_operations };
        Self {
            executor,
            sign_in,
            names,
            phase: Phase::Waiting { until: Instant::now() + settings.connection_init_timeout },
            operations: Subscriptions::new(inbox, limit),
            running: Vec::new(),
            waker: None,
            keep_alive: (keep_alive, None),
            pongs: Vec::new(),
        }
    }

    fn message(&mut self, text: &str, out: &mut Outbox) -> Result<(), Flow> {
        let invalid = |what: &str| close(4400, &format!("Invalid message received: {what}"));
        let fields = Fields::parse("it", text).map_err(|error| invalid(&error.to_string()))?;
        let text = |name| match fields.text(name) {
            Ok(Some(text)) => Ok(text),
            Ok(None) | Err(_) => Err(invalid(&format!("{name} must be a string"))),
        };
        let kind = text("type")?;
        let names = self.names;
        let payload = fields.present("payload").map(RawValue::get);
        let is_object = payload.is_none_or(|payload| payload.starts_with('{'));
        match &*kind {
            "connection_init" | "ping" | "pong" if !is_object => Err(invalid("payload must be an object")),
            "connection_init" => self.init(payload, out),
            "ping" if !names.legacy => {
                let payload = payload.map(|payload| format!(r#","payload":{payload}"#)).unwrap_or_default();
                if self.pongs.len() < MAX_PONGS && !self.running.is_empty() {
                    self.pongs.push(payload);
                    self.wake();
                } else {
                    pong(&payload, out);
                }
                Ok(())
            }
            "pong" if !names.legacy => Ok(()),
            "connection_terminate" if names.legacy => Err(Flow::Close(CloseCode::NORMAL, String::new())),
            kind if kind == names.subscribe || kind == names.stop => {
                let id = text("id")?;
                if id.is_empty() {
                    return Err(invalid("id must not be empty"));
                }
                if kind == names.stop {
                    self.stop(&wire::quoted(&id), out);
                    Ok(())
                } else {
                    self.subscribe(&id, payload.unwrap_or("null"), out)
                }
            }
            _ => Err(invalid("unknown type")),
        }
    }

    fn init(&mut self, payload: Option<&str>, out: &mut Outbox) -> Result<(), Flow> {
        // The legacy protocol replies to each.
        if !matches!(self.phase, Phase::Waiting { .. }) && !self.names.legacy {
            return Err(close(4429, "Too many initialisation requests"));
        }
        // Credentials of the upgrade count, and those of the message then do not.
        if !self.sign_in.needs_credentials() {
            self.ready(out);
            return Ok(());
        }
        match credential::of_payload(payload) {
            Ok(Some(credential)) => {
                self.phase = Phase::Verifying(Box::pin(self.sign_in.authenticate(credential)));
                self.wake();
                Ok(())
            }
            Ok(None) if self.sign_in.is_nobody() => {
                let error = self.sign_in.client().principal().has_to_sign_in();
                Err(self.forbidden(&Problem::from(error), out))
            }
            Ok(None) => {
                self.ready(out);
                Ok(())
            }
            Err(error) => {
                let problem = self.sign_in.refuse_malformed(&error);
                Err(self.forbidden(&problem, out))
            }
        }
    }

    /// The end of a connection whose `connection_init` is refused.
    fn forbidden(&self, problem: &Problem, out: &mut Outbox) -> Flow {
        if self.names.legacy {
            // Its clients read the reason from a message, and close by themselves.
            let message = wire::quoted(&problem.message);
            out.text(&[br#"{"type":"connection_error","payload":{"message":"#, message.as_bytes(), b"}}"]);
        }
        // A reason has at most 123 bytes; those of credentials are shorter.
        close(4403, &format!("Forbidden: {}", problem.message.chars().take(100).collect::<String>()))
    }

    /// The credentials were verified.
    fn verified(&mut self, verified: Result<Principal, Problem>, out: &mut Outbox) -> Flow {
        match verified.map(|principal| self.sign_in.sign_in(principal)) {
            Ok(Ok(())) => {
                self.ready(out);
                Flow::Go
            }
            Ok(Err(error @ Error::LimitReached { .. })) => Flow::Close(CloseCode::TRY_AGAIN_LATER, error.to_string()),
            Ok(Err(error)) => self.forbidden(&error.into(), out),
            Err(problem) => self.forbidden(&problem, out),
        }
    }

    fn ready(&mut self, out: &mut Outbox) {
        self.phase = Phase::Ready;
        out.text(&[br#"{"type":"connection_ack"}"#]);
        if self.names.legacy {
            self.keep_alive(out);
        }
    }

    fn keep_alive(&mut self, out: &mut Outbox) {
        out.text(&[br#"{"type":"ka"}"#]);
        self.keep_alive.1 = Some(Instant::now() + self.keep_alive.0);
    }

    /// What happens on a message that breaks the protocol.
    fn wrong(&self, flow: Flow, out: &mut Outbox) -> Flow {
        match flow {
            // The legacy protocol has no close codes: the client gets an error, and the connection stays.
            Flow::Close(CloseCode(4400), reason) if self.names.legacy => {
                let message = wire::quoted(&reason);
                out.text(&[br#"{"type":"connection_error","payload":{"message":"#, message.as_bytes(), b"}}"]);
                Flow::Malformed
            }
            flow => flow,
        }
    }

    fn subscribe(&mut self, id: &str, payload: &str, out: &mut Outbox) -> Result<(), Flow> {
        if !matches!(self.phase, Phase::Ready) {
            return Err(close(4401, "Unauthorized"));
        }
        let quoted = wire::quoted(id);
        if let Some(key) = self.operations.key_of(&quoted) {
            if !self.names.legacy {
                return Err(close(4409, &ids::exists(id)));
            }
            // The legacy protocol lets a repeated id replace the operation.
            self.remove(key);
        }
        let read = |request| self.executor.read(request, self.sign_in.client());
        let asked = match Unresolved::read(payload).and_then(read) {
            Ok(asked) => asked,
            // A payload of the form that the protocol requires concerns this operation alone, whatever it contains.
            Err(unread) if self.names.legacy || !unread.malformed => {
                self.error(&quoted, &[ServerError::new(unread.message, None)], out);
                return Ok(());
            }
            Err(unread) => {
                return Err(close(4400, &format!("Invalid message received: payload.{}", unread.message)));
            }
        };
        match self.begin(&quoted, asked) {
            Ok(Flow::Go) => Ok(()),
            Ok(flow) => Err(flow),
            Err(errors) => {
                self.error(&quoted, &errors, out);
                Ok(())
            }
        }
    }

    /// Begins an operation under an id that is free. Where the server is about to stop, no subscription begins, and nothing once
    /// it drains: clients take a refusal for the operation's end, but repeat what had no result on their next connection.
    fn begin(&mut self, id: &str, mut asked: Asked) -> Result<Flow, Vec<ServerError>> {
        let ack = asked.ack.take().filter(|_| !self.names.legacy);
        let refused = |error| vec![super::types::refuse(error).into_server_error(Pos::default())];
        ids::check_room(self.operations.names(), id).map_err(refused)?;
        let key = self.operations.reserve(id.to_owned()).map_err(refused)?;
        let prepared = self.executor.prepare(asked).inspect_err(|_| _ = self.operations.remove(key))?;
        let (executor, client) = (self.executor.clone(), self.sign_in.client().clone());
        let inbox = self.operations.inbox().clone();
        let is_subscription = prepared.kind == OperationKind::Subscription;
        if client.is_draining() || (is_subscription && client.is_leaving()) {
            self.operations.remove(key);
            return Ok(Flow::Leave);
        }
        // Every message of the operation repeats its id.
        let overhead = id.len();
        let execution = Box::pin(async move {
            if is_subscription {
                return match executor.open(prepared, &client, &inbox, key, None).await {
                    Ok(operation) => Begun::Subscribed(Box::new(operation.with_overhead(overhead))),
                    Err(errors) => Begun::Ended(Outcome::Refused(errors)),
                };
            }
            Begun::Ended(executor.single(prepared, &client).await)
        });
        self.running.push(Running { key, execution, is_subscription, ack });
        self.wake();
        Ok(Flow::Go)
    }

    /// Has [`Protocol::poll_work`] called again.
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The client stops an operation. Only the legacy protocol confirms that.
    fn stop(&mut self, id: &str, out: &mut Outbox) {
        let Some(key) = self.operations.key_of(id) else { return };
        self.remove(key);
        if self.names.legacy {
            self.complete(id, out);
        }
    }

    /// Drops an operation at once, whether it is running or streaming.
    fn remove(&mut self, key: u64) -> Option<String> {
        self.running.retain(|running| running.key != key);
        self.operations.remove(key)
    }

    fn next(&self, id: &str, result: &[u8], out: &mut Outbox) {
        let name = self.names.next.as_bytes();
        out.text(&[br#"{"id":"#, id.as_bytes(), br#","type":""#, name, br#"","payload":"#, result, b"}"]);
    }

    fn complete(&self, id: &str, out: &mut Outbox) {
        let name = self.names.complete.as_bytes();
        out.text(&[br#"{"id":"#, id.as_bytes(), br#","type":""#, name, br#""}"#]);
    }

    /// The last message of an operation that was refused before execution.
    fn error(&self, id: &str, errors: &[ServerError], out: &mut Outbox) {
        let mut list = String::new();
        json::write_errors(&mut list, errors);
        if self.names.legacy {
            // One error, which its clients expect as an object.
            let error = serde_json::from_str::<Vec<Box<serde_json::value::RawValue>>>(&list).unwrap_or_default();
            let first = error.first().map_or("{}", |first| first.get());
            out.text(&[br#"{"id":"#, id.as_bytes(), br#","type":"error","payload":"#, first.as_bytes(), b"}"]);
        } else {
            out.text(&[br#"{"id":"#, id.as_bytes(), br#","type":"error","payload":"#, list.as_bytes(), b"}"]);
        }
    }

    fn finish(&mut self, key: u64, ack: Option<&str>, begun: Begun, out: &mut Outbox) {
        let outcome = match begun {
            Begun::Ended(outcome) => outcome,
            Begun::Subscribed(operation) => {
                if let Some(ack) = ack {
                    confirm_subscribed(ack, &operation, out);
                }
                return self.operations.open(key, *operation);
            }
        };
        let Some(id) = self.remove(key) else { return };
        match outcome {
            Outcome::Executed { result, .. } => {
                self.next(&id, result.as_bytes(), out);
                self.complete(&id, out);
            }
            Outcome::Refused(errors) => self.error(&id, &errors, out),
        }
    }
}

fn close(code: u16, reason: &str) -> Flow {
    Flow::Close(CloseCode(code), reason.to_owned())
}

impl Protocol for Session {
    /// While credentials are verified, what follows waits: it may need them.
    fn is_ready(&self) -> bool {
        !matches!(self.phase, Phase::Verifying(_)) || !self.names.legacy
    }

    fn is_busy(&self) -> bool {
        !self.running.is_empty() || matches!(self.phase, Phase::Verifying(_))
    }

    fn text(&mut self, text: &str, out: &mut Outbox) -> Flow {
        self.message(text, out).err().map_or(Flow::Go, |flow| self.wrong(flow, out))
    }

    fn binary(&mut self, _: &[u8], out: &mut Outbox) -> Flow {
        self.wrong(close(4400, "Invalid message received: it is binary"), out)
    }

    fn deliver(&mut self, key: u64, out: &mut Outbox) -> Flow {
        if key == ACCESS_CHANGED {
            self.sign_in.look_again();
        }
        let Some(Readable { name, subscription, events }) = self.operations.readable(key) else { return Flow::Go };
        let next = self.names.next.as_bytes();
        let ended = subscription.deliver(events, |result, _| {
            out.text(&[br#"{"id":"#, name.as_bytes(), br#","type":""#, next, br#"","payload":"#, result, b"}"]);
        });
        if let Some(last) = ended
            && let Some(id) = self.remove(key)
        {
            self.next(&id, &last, out);
            self.complete(&id, out);
        }
        Flow::Go
    }

    fn poll_work(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<Flow> {
        if let Phase::Verifying(verification) = &mut self.phase
            && let Poll::Ready(verified) = verification.as_mut().poll(cx)
        {
            return Poll::Ready(self.verified(verified, out));
        }
        let (mut worked, mut subscribing) = (false, false);
        let mut index = 0;
        while let Some(running) = self.running.get_mut(index) {
            match running.execution.as_mut().poll(cx) {
                Poll::Ready(begun) => {
                    let Running { key, ack, .. } = self.running.remove(index);
                    self.finish(key, ack.as_deref(), begun, out);
                    worked = true;
                }
                // What the client publishes after it has subscribed is to be delivered, so it waits for the subscription.
                Poll::Pending if running.is_subscription => {
                    subscribing = true;
                    break;
                }
                Poll::Pending => index += 1,
            }
        }
        if !subscribing {
            worked |= !self.pongs.is_empty();
            for payload in self.pongs.drain(..) {
                pong(&payload, out);
            }
        }
        if worked {
            return Poll::Ready(Flow::Go);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn deadline(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Waiting { until } => return Some(until),
            Phase::Verifying(_) => None,
            Phase::Ready => self.keep_alive.1,
        };
        own.into_iter().chain(self.sign_in.until()).min()
    }

    fn timeout(&mut self, out: &mut Outbox) -> Flow {
        if matches!(self.phase, Phase::Waiting { .. }) {
            return close(4408, "Connection initialisation timeout");
        }
        let now = Instant::now();
        if self.sign_in.until().is_some_and(|until| until <= now) {
            let error = self.sign_in.client().principal().has_to_sign_in();
            return self.forbidden(&error.into(), out);
        }
        if self.keep_alive.1.is_some_and(|at| at <= now) {
            self.keep_alive(out);
        }
        Flow::Go
    }

    fn mark_in_flight(&mut self) -> bool {
        self.operations.mark_in_flight()
    }

    fn acknowledge_in_flight(&mut self) {
        self.operations.acknowledge_in_flight();
    }
}
