//! GraphQL over SSE, single-connection mode: a client reserves a stream, connects it, and sends operations by requests of
//! their own, whose results come over the stream, marked with the operation's id.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use async_graphql::ServerError;
use axum::{http::HeaderMap, response::Response};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{
    Context,
    accept::Form,
    document::OperationKind,
    execute::{Executor, Operation, Prepared},
    http::errors_only,
    json, stream,
};
use crate::{
    broker::{Error, Event, Inbox},
    problem::{Code, Problem},
    streaming::{self, Flow, Source},
    wire,
};

/// The header that carries a reservation's token.
pub const TOKEN: &str = "x-graphql-event-stream-token";

/// Reservations and streams that one server holds.
const MAX_STREAMS: usize = 10_000;

/// Bytes of results that may stand ready before the stream takes no further operation: its client does not read, or has
/// not connected yet.
const ENOUGH_READY: usize = 64 << 10;

/// The key under which results that stand ready come up in the stream's inbox.
const RESULTS: u64 = u64::MAX;

/// All reserved and connected streams.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<HashMap<String, Arc<Stream>>>>);

#[derive(Default)]
struct Stream {
    inbox: Inbox,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connected: bool,
    next_key: u64,
    operations: HashMap<u64, (String, Option<Operation>)>,
    by_id: HashMap<String, u64>,
    /// Events that stand ready.
    ready: Vec<u8>,
    /// What one operation reads, on its way into the stream.
    read: Vec<Event>,
}

impl Streams {
    /// `PUT`: reserves a stream and answers its token, which goes when the stream is not connected within `patience`.
    ///
    /// # Errors
    /// Too many streams.
    pub fn reserve(&self, context: &Context, patience: Duration) -> Result<String, Problem> {
        // 122 random bits: whoever has it may use the stream.
        let token = uuid::Uuid::new_v4().to_string();
        {
            let mut streams = self.0.lock();
            if streams.len() >= MAX_STREAMS {
                return Err(Error::LimitReached { what: "event streams", limit: MAX_STREAMS, own: false }.into());
            }
            streams.insert(token.clone(), Arc::default());
        }
        let (streams, stop, reserved) = (Arc::downgrade(&self.0), context.sockets.stop.clone(), token.clone());
        // A timer, not a look at the clock when somebody comes: the reservation may hold subscriptions already.
        context.sockets.tasks.spawn(async move {
            tokio::select! {
                () = sleep(patience) => {}
                () = stop.cancelled() => {}
            }
            if let Some(streams) = streams.upgrade() {
                Self(streams).expire(&reserved);
            }
        });
        Ok(token)
    }

    fn expire(&self, token: &str) {
        let mut streams = self.0.lock();
        if streams.get(token).is_some_and(|stream| !stream.state.lock().connected)
            && let Some(stream) = streams.remove(token)
        {
            drop(streams);
            stream.state.lock().operations.clear();
        }
    }

    fn find(&self, token: &str) -> Result<Arc<Stream>, Problem> {
        let found = self.0.lock().get(token).cloned();
        found.ok_or_else(|| Problem::new(Code::NotFound, "there is no stream of this token"))
    }

    /// A request for the event stream of a token: connects it.
    ///
    /// # Errors
    /// There is no such reservation, or it has its connection.
    pub fn connect(&self, token: &str, context: &Context) -> Result<Response, Problem> {
        let stream = self.find(token)?;
        {
            // Both locks, as `expire` takes them: of the two, one comes first.
            let streams = self.0.lock();
            if !streams.contains_key(token) {
                return Err(Problem::new(Code::NotFound, "there is no stream of this token"));
            }
            if std::mem::replace(&mut stream.state.lock().connected, true) {
                return Err(Problem::new(Code::Conflict, "the stream of this token is open"));
            }
        }
        let inbox = stream.inbox.clone();
        // So that the head of the answer goes out at once.
        inbox.wake(RESULTS);
        let source = Connected { stream, token: token.to_owned(), streams: Arc::downgrade(&self.0), begun: false };
        let body = streaming::body(source, inbox, context.heartbeat, context.sockets.stop.clone(), ());
        Ok(stream::response(Form::EventStream, body))
    }

    /// A request with a token: its results go over the stream. So do the errors of one that is refused before execution,
    /// unless `errors_here`: those are answered.
    ///
    /// # Errors
    /// The stream cannot take the operation.
    pub async fn execute(
        &self,
        executor: &Executor,
        token: &str,
        id: Option<&str>,
        prepared: Result<Prepared, Vec<ServerError>>,
        errors_here: bool,
        max_operations: usize,
    ) -> Result<Option<Vec<ServerError>>, Problem> {
        let stream = self.find(token)?;
        let id = id.filter(|id| !id.is_empty() && id.len() <= 255).ok_or_else(|| {
            Problem::new(Code::BadRequest, "extensions.operationId: must be a string of 1 to 255 bytes")
        })?;
        let place = stream.begin(id, max_operations)?;
        let result = match prepared {
            Ok(prepared) if prepared.kind == OperationKind::Subscription => {
                match executor.open(prepared, &stream.inbox, place.key, None).await {
                    Ok(operation) => {
                        place.hold(operation);
                        return Ok(None);
                    }
                    Err(errors) => Err(errors),
                }
            }
            Ok(prepared) => match executor.single(&prepared).await {
                (response, true) => Ok(json::write_response(&response, true)),
                (response, false) => Err(response.errors),
            },
            Err(errors) => Err(errors),
        };
        match result {
            Ok(result) => place.last(&result),
            Err(errors) if errors_here => return Ok(Some(errors)),
            Err(errors) => place.last(&errors_only(&errors)),
        }
        Ok(None)
    }

    /// `DELETE`: stops an operation. One that has ended, or never was, is stopped already.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn stop(&self, token: &str, id: &str) -> Result<(), Problem> {
        let stream = self.find(token)?;
        let mut state = stream.state.lock();
        if let Some(key) = state.by_id.get(id).copied() {
            state.remove(key);
            complete(&mut state.ready, id);
            drop(state);
            stream.inbox.wake(RESULTS);
        }
        Ok(())
    }
}

impl Stream {
    /// Gives an operation its place.
    fn begin(&self, id: &str, max_operations: usize) -> Result<Place<'_>, Problem> {
        let reached = |what, limit| Err(Error::LimitReached { what, limit, own: true }.into());
        let mut state = self.state.lock();
        if state.by_id.contains_key(id) {
            return Err(Problem::new(Code::Conflict, format!("operation {id:?} is running")));
        }
        if state.operations.len() >= max_operations {
            return reached("operations on one stream", max_operations);
        }
        if state.ready.len() >= ENOUGH_READY {
            return reached("bytes of results that nobody takes on one stream", ENOUGH_READY);
        }
        let key = state.next_key;
        state.next_key += 1;
        state.by_id.insert(id.to_owned(), key);
        state.operations.insert(key, (id.to_owned(), None));
        Ok(Place { stream: self, key, held: false })
    }
}

/// An operation's place on its stream while it is begun. It is free again when the request breaks off.
struct Place<'a> {
    stream: &'a Stream,
    key: u64,
    held: bool,
}

impl Place<'_> {
    /// Results will come. Stopped while it opened, the operation is dropped, which unsubscribes.
    fn hold(mut self, operation: Operation) {
        self.held = true;
        if let Some(entry) = self.stream.state.lock().operations.get_mut(&self.key) {
            entry.1 = Some(operation);
        }
        self.stream.inbox.wake(self.key);
    }

    /// The only result, and the end; nothing for an operation that was stopped meanwhile.
    fn last(self, result: &str) {
        let mut state = self.stream.state.lock();
        if let Some(id) = state.remove(self.key) {
            next(&mut state.ready, &id, result.as_bytes());
            complete(&mut state.ready, &id);
            drop(state);
            self.stream.inbox.wake(RESULTS);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.held {
            self.stream.state.lock().remove(self.key);
        }
    }
}

impl State {
    /// Drops an operation; answers its id.
    fn remove(&mut self, key: u64) -> Option<String> {
        let (id, _) = self.operations.remove(&key)?;
        self.by_id.remove(&id);
        Some(id)
    }
}

fn next(out: &mut Vec<u8>, id: &str, result: &[u8]) {
    for piece in
        [b"event: next\ndata: {\"id\":", wire::quoted(id).as_bytes(), b",\"payload\":", result, b"}\n\n".as_slice()]
    {
        out.extend_from_slice(piece);
    }
}

fn complete(out: &mut Vec<u8>, id: &str) {
    out.extend_from_slice(format!("event: complete\ndata: {{\"id\":{}}}\n\n", wire::quoted(id)).as_bytes());
}

/// The token of a request, if it has one.
pub fn token(headers: &HeaderMap, parameter: Option<String>) -> Option<String> {
    headers.get(TOKEN).and_then(|token| token.to_str().ok()).map(str::to_owned).or(parameter)
}

/// A connected stream.
struct Connected {
    stream: Arc<Stream>,
    token: String,
    streams: Weak<Mutex<HashMap<String, Arc<Stream>>>>,
    begun: bool,
}

impl Drop for Connected {
    fn drop(&mut self) {
        // With the stream go its operations.
        if let Some(streams) = self.streams.upgrade() {
            streams.lock().remove(&self.token);
        }
        self.stream.state.lock().operations.clear();
    }
}

impl Source for Connected {
    fn deliver(&mut self, key: u64, out: &mut Vec<u8>) -> Flow {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(b":\n\n");
        }
        let mut guard = self.stream.state.lock();
        let state = &mut *guard;
        out.append(&mut state.ready);
        let Some((id, Some(operation))) = state.operations.get_mut(&key) else { return Flow::Go };
        let ended = operation.deliver(&mut state.read, |result, _| next(out, id, result));
        if let Some(last) = ended {
            next(out, id, &last);
            complete(out, id);
            state.remove(key);
        }
        Flow::Go
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b":\n\n");
    }

    fn taken(&mut self) {
        for (_, operation) in self.stream.state.lock().operations.values_mut() {
            if let Some(operation) = operation.as_mut().filter(|operation| operation.is_named())
                && operation.mark_in_flight()
            {
                operation.acknowledge_in_flight();
            }
        }
    }
}
