//! GraphQL over WebSocket: `graphql-transport-ws` to the letter of its protocol, and the legacy `graphql-ws` by a table of
//! message names.

mod ids;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_graphql::{ServerError, http::ALL_WEBSOCKET_PROTOCOLS};
use axum::response::Response;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    Door, Settings,
    document::OperationKind,
    execute::{Executor, Operation},
    http::read,
    json,
};
use crate::{
    broker::{Event, Inbox},
    socket::{CloseCode, Flow, Outbox, Protocol, Upgrade},
    wire::{self, Fields},
};

/// The names of a protocol's messages.
struct Names {
    subscribe: &'static str,
    next: &'static str,
    complete: &'static str,
    stop: &'static str,
    legacy: bool,
}

const MODERN: Names =
    Names { subscribe: "subscribe", next: "next", complete: "complete", stop: "complete", legacy: false };
const LEGACY: Names = Names { subscribe: "start", next: "data", complete: "complete", stop: "stop", legacy: true };

/// Accepts the client's favourite of the subprotocols that both know.
pub fn accept(door: &Door, upgrade: Upgrade, known: bool) -> Response {
    let mut offered = upgrade.offered().iter();
    let chosen = offered.find_map(|name| ALL_WEBSOCKET_PROTOCOLS.iter().find(|known| *known == name));
    let Door { context, settings, executor, .. } = door;
    match chosen.filter(|_| known) {
        Some(name) => {
            let names = if *name == "graphql-ws" { &LEGACY } else { &MODERN };
            let keep_alive = KEEP_ALIVE.min(context.heartbeat);
            let session = |inbox| -> Box<dyn Protocol> {
                Box::new(Session::new(executor.clone(), settings, names, keep_alive, inbox))
            };
            upgrade.accept(&context.sockets, Some(name), session)
        }
        // The protocol wants the connection made and closed with 4406, where a client can see the code.
        None => upgrade.accept(&context.sockets, None, |_| Box::new(WrongProtocol)),
    }
}

/// A connection that speaks no protocol known here.
struct WrongProtocol;

impl WrongProtocol {
    fn close() -> Flow {
        Flow::Close(CloseCode(4406), "Subprotocol not acceptable".to_owned())
    }
}

impl Protocol for WrongProtocol {
    fn text(&mut self, _: &str, _: &mut Outbox) -> Flow {
        Self::close()
    }

    fn binary(&mut self, _: &mut Outbox) -> Flow {
        Self::close()
    }

    fn deliver(&mut self, _: u64, _: &mut Outbox) -> Flow {
        Self::close()
    }

    fn poll_work(&mut self, _: &mut Context<'_>, _: &mut Outbox) -> Poll<Flow> {
        Poll::Ready(Self::close())
    }
}

enum Phase {
    /// `connection_init` has not come.
    Waiting {
        until: Instant,
    },
    Ready,
}

type Running = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What became of an operation that was begun.
enum Done {
    /// Its one result.
    Single(String),
    /// Results will come.
    Live(Operation),
    /// Refused before execution.
    Refused(Vec<ServerError>),
}

enum State {
    Running {
        running: Running,
        /// Whether it is a subscription.
        opens: bool,
    },
    Live(Operation),
}

struct Entry {
    /// As JSON text.
    id: String,
    /// What the ping is called that tells the client that its subscription stands.
    ack: Option<String>,
    state: State,
}

/// One connection.
pub struct Session {
    executor: Executor,
    max_operations: usize,
    names: &'static Names,
    inbox: Inbox,
    phase: Phase,
    next_key: u64,
    operations: HashMap<u64, Entry>,
    by_id: HashMap<String, u64>,
    /// Operations whose execution has not ended or begun to stream.
    running: Vec<u64>,
    /// Operations whose delivery is followed.
    named: Vec<u64>,
    events: Vec<Event>,
    waker: Option<Waker>,
    /// The time between two keep-alives, and when the next is due.
    keep_alive: (Duration, Option<Instant>),
    /// Payloads of pongs that wait for subscriptions to stand: the protocol has no other answer to a subscription, and so a
    /// client that publishes when its ping is answered gets what it has published.
    pongs: Vec<String>,
}

/// Pongs that may wait on one connection; a further ping is answered at once.
const MAX_PONGS: usize = 100;

fn pong(payload: &str, out: &mut Outbox) {
    out.text(&[br#"{"type":"pong""#, payload.as_bytes(), b"}"]);
}

/// How often at least a legacy client is told that the connection lives, which it cannot see from WebSocket pings: npm
/// subscriptions-transport-ws gives a connection up that has been silent for 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

impl Session {
    fn new(executor: Executor, settings: &Settings, names: &'static Names, keep_alive: Duration, inbox: Inbox) -> Self {
        Self {
            executor,
            max_operations: settings.max_operations,
            names,
            inbox,
            phase: Phase::Waiting { until: Instant::now() + settings.connection_init_timeout },
            next_key: 0,
            operations: HashMap::new(),
            by_id: HashMap::new(),
            running: Vec::new(),
            named: Vec::new(),
            events: Vec::new(),
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
            "connection_init" => self.init(out),
            "ping" if !names.legacy => {
                let payload = payload.map(|payload| format!(r#","payload":{payload}"#)).unwrap_or_default();
                if self.pongs.len() < MAX_PONGS && !self.running.is_empty() {
                    self.pongs.push(payload);
                    if let Some(waker) = self.waker.take() {
                        waker.wake();
                    }
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
                    self.stop(&id, out);
                    Ok(())
                } else {
                    self.subscribe(id.into_owned(), payload.unwrap_or("null"), out)
                }
            }
            _ => Err(invalid("unknown type")),
        }
    }

    fn init(&mut self, out: &mut Outbox) -> Result<(), Flow> {
        // The legacy protocol answers each.
        if matches!(self.phase, Phase::Ready) && !self.names.legacy {
            return Err(close(4429, "Too many initialisation requests"));
        }
        self.phase = Phase::Ready;
        out.text(&[br#"{"type":"connection_ack"}"#]);
        if self.names.legacy {
            self.keep_alive(out);
        }
        Ok(())
    }

    fn keep_alive(&mut self, out: &mut Outbox) {
        out.text(&[br#"{"type":"ka"}"#]);
        self.keep_alive.1 = Some(Instant::now() + self.keep_alive.0);
    }

    /// What a message that breaks the protocol leads to.
    fn wrong(&self, flow: Flow, out: &mut Outbox) -> Flow {
        match flow {
            // The legacy protocol has no close codes: the client is told, and the connection stays.
            Flow::Close(CloseCode(4400), reason) if self.names.legacy => {
                let message = wire::quoted(&reason);
                out.text(&[br#"{"type":"connection_error","payload":{"message":"#, message.as_bytes(), b"}}"]);
                Flow::Malformed
            }
            flow => flow,
        }
    }

    fn subscribe(&mut self, id: String, payload: &str, out: &mut Outbox) -> Result<(), Flow> {
        if matches!(self.phase, Phase::Waiting { .. }) {
            return Err(close(4401, "Unauthorized"));
        }
        if let Some(key) = self.by_id.get(&id).copied() {
            if !self.names.legacy {
                return Err(close(4409, &ids::exists(&id)));
            }
            // The legacy protocol lets a repeated id replace the operation.
            self.remove(key);
        }
        let quoted = wire::quoted(&id);
        let asked = match read(payload) {
            Ok(asked) => asked,
            // What is of the form that the protocol wants concerns this operation alone, whatever it holds.
            Err(refusal) if self.names.legacy || !refusal.malformed => {
                self.error(&quoted, &[ServerError::new(refusal.message, None)], out);
                return Ok(());
            }
            Err(refusal) => {
                return Err(close(4400, &format!("Invalid message received: payload.{}", refusal.message)));
            }
        };
        if let Some(problem) = ids::room(self.by_id.keys(), &id, self.max_operations) {
            let error = super::types::problem(&problem).into_server_error(async_graphql::Pos::default());
            self.error(&quoted, &[error], out);
            return Ok(());
        }
        let ack = asked.ack.clone().filter(|_| !self.names.legacy);
        let prepared = match self.executor.prepare(asked) {
            Ok(prepared) => prepared,
            Err(errors) => {
                self.error(&quoted, &errors, out);
                return Ok(());
            }
        };
        let (executor, inbox, key) = (self.executor.clone(), self.inbox.clone(), self.next_key);
        self.next_key += 1;
        let opens = prepared.kind == OperationKind::Subscription;
        let running: Running = Box::pin(async move {
            if prepared.kind == OperationKind::Subscription {
                return match executor.open(prepared, &inbox, key, None).await {
                    Ok(operation) => Done::Live(operation),
                    Err(errors) => Done::Refused(errors),
                };
            }
            let (response, executed) = executor.single(&prepared).await;
            if executed { Done::Single(json::write_response(&response, true)) } else { Done::Refused(response.errors) }
        });
        self.operations.insert(key, Entry { id: quoted, ack, state: State::Running { running, opens } });
        self.by_id.insert(id, key);
        self.running.push(key);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    /// The client is done with an operation. Its source is dropped at once, and nothing more is said of it, unless in the
    /// legacy protocol, where its end is.
    fn stop(&mut self, id: &str, out: &mut Outbox) {
        let Some(entry) = self.by_id.get(id).copied().and_then(|key| self.remove(key)) else { return };
        if self.names.legacy {
            self.complete(&entry.id, out);
        }
    }

    fn remove(&mut self, key: u64) -> Option<Entry> {
        let entry = self.operations.remove(&key)?;
        if let Ok(id) = serde_json::from_str::<String>(&entry.id) {
            self.by_id.remove(&id);
        }
        self.named.retain(|named| *named != key);
        Some(entry)
    }

    fn next(&self, id: &str, result: &[u8], out: &mut Outbox) {
        let name = self.names.next.as_bytes();
        out.text(&[br#"{"id":"#, id.as_bytes(), br#","type":""#, name, br#"","payload":"#, result, b"}"]);
    }

    fn complete(&self, id: &str, out: &mut Outbox) {
        let name = self.names.complete.as_bytes();
        out.text(&[br#"{"id":"#, id.as_bytes(), br#","type":""#, name, br#""}"#]);
    }

    /// Refused before execution: the operation's last word.
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

    fn done(&mut self, key: u64, done: Done, out: &mut Outbox) {
        if let Done::Live(operation) = done {
            if operation.is_named() {
                self.named.push(key);
            }
            if let Some(entry) = self.operations.get_mut(&key) {
                if let Some(ack) = entry.ack.take() {
                    stands(&ack, &operation, out);
                }
                entry.state = State::Live(operation.with_overhead(entry.id.len()));
            }
            // News may have come to the inbox before the operation stood here.
            self.deliver(key, out);
            return;
        }
        let Some(entry) = self.remove(key) else { return };
        match done {
            Done::Single(result) => {
                self.next(&entry.id, result.as_bytes(), out);
                self.complete(&entry.id, out);
            }
            Done::Refused(errors) => self.error(&entry.id, &errors, out),
            Done::Live(_) => {}
        }
    }
}

/// Tells a client that its subscription stands, and where it begins.
fn stands(ack: &str, operation: &Operation, out: &mut Outbox) {
    let consumer = operation.consumer().map(|consumer| format!(r#","consumer":{consumer}"#)).unwrap_or_default();
    let (ack, cursor) = (wire::quoted(ack), operation.begins_at());
    out.text(&[format!(r#"{{"type":"ping","payload":{{"ack":{ack},"cursor":"{cursor}"{consumer}}}}}"#).as_bytes()]);
}

fn close(code: u16, reason: &str) -> Flow {
    Flow::Close(CloseCode(code), reason.to_owned())
}

impl Protocol for Session {
    fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    fn text(&mut self, text: &str, out: &mut Outbox) -> Flow {
        self.message(text, out).err().map_or(Flow::Go, |flow| self.wrong(flow, out))
    }

    fn binary(&mut self, out: &mut Outbox) -> Flow {
        self.wrong(close(4400, "Invalid message received: it is binary"), out)
    }

    fn deliver(&mut self, key: u64, out: &mut Outbox) -> Flow {
        let Some(Entry { id, state: State::Live(operation), .. }) = self.operations.get_mut(&key) else {
            return Flow::Go;
        };
        let name = self.names.next.as_bytes();
        let ended = operation.deliver(&mut self.events, |result, _| {
            out.text(&[br#"{"id":"#, id.as_bytes(), br#","type":""#, name, br#"","payload":"#, result, b"}"]);
        });
        if let Some(last) = ended
            && let Some(entry) = self.remove(key)
        {
            self.next(&entry.id, &last, out);
            self.complete(&entry.id, out);
        }
        Flow::Go
    }

    fn poll_work(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<Flow> {
        let (mut worked, mut opening) = (false, false);
        let mut index = 0;
        while let Some(key) = self.running.get(index).copied() {
            let polled = match self.operations.get_mut(&key).map(|entry| &mut entry.state) {
                Some(State::Running { running, opens }) => (running.as_mut().poll(cx), *opens),
                // Stopped by the client.
                _ => {
                    self.running.remove(index);
                    continue;
                }
            };
            match polled.0 {
                Poll::Ready(done) => {
                    self.running.remove(index);
                    self.done(key, done, out);
                    worked = true;
                }
                // What the client publishes after it has subscribed is to be delivered.
                Poll::Pending if polled.1 => {
                    opening = true;
                    break;
                }
                Poll::Pending => index += 1,
            }
        }
        if !opening {
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
        match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Ready => self.keep_alive.1,
        }
    }

    fn timeout(&mut self, out: &mut Outbox) -> Flow {
        if matches!(self.phase, Phase::Waiting { .. }) {
            return close(4408, "Connection initialisation timeout");
        }
        self.keep_alive(out);
        Flow::Go
    }

    fn mark_in_flight(&mut self) -> bool {
        let mut any = false;
        for key in &self.named {
            if let Some(Entry { state: State::Live(operation), .. }) = self.operations.get_mut(key) {
                any |= operation.mark_in_flight();
            }
        }
        any
    }

    fn acknowledge_in_flight(&mut self) {
        for key in &self.named {
            if let Some(Entry { state: State::Live(operation), .. }) = self.operations.get_mut(key) {
                operation.acknowledge_in_flight();
            }
        }
    }
}
