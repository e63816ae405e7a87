//! GraphQL over SSE, single-connection mode: a client reserves a stream, connects it, and sends operations by requests of
//! their own, whose results come over the stream, marked with the operation's id.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use async_graphql::ServerError;
use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Context,
    accept::Form,
    document::OperationKind,
    execute::{Executor, Operation, Prepared},
    http::{errors_only, request_error},
    json, stream,
};
use crate::{
    broker::Inbox,
    problem::{Code, Problem},
    streaming::{self, Flow, Source},
    wire,
};

/// The header that carries a reservation's token.
pub const TOKEN: &str = "x-graphql-event-stream-token";

/// How long a reservation may stay unconnected.
const RESERVED: Duration = Duration::from_secs(30);

/// Reservations and streams that one server holds.
const MAX_STREAMS: usize = 10_000;

/// The key under which results that stand ready come up in the stream's inbox.
const RESULTS: u64 = u64::MAX;

/// All reserved and connected streams.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<HashMap<String, Arc<Stream>>>>);

struct Stream {
    inbox: Inbox,
    state: Mutex<State>,
}

struct State {
    reserved_at: Instant,
    connected: bool,
    next_key: u64,
    operations: HashMap<u64, (String, Option<Operation>)>,
    by_id: HashMap<String, u64>,
    /// Events that stand ready.
    ready: Vec<u8>,
}

impl Streams {
    /// `PUT`: reserves a stream and answers its token.
    pub fn reserve(&self) -> Response {
        let mut streams = self.0.lock();
        streams.retain(|_, stream| {
            let state = stream.state.lock();
            state.connected || state.reserved_at.elapsed() < RESERVED
        });
        if streams.len() >= MAX_STREAMS {
            return Problem::new(Code::LimitReached, "too many event streams").into_response();
        }
        // 122 random bits: whoever has it may use the stream.
        let token = uuid::Uuid::new_v4().to_string();
        let state = State {
            reserved_at: Instant::now(),
            connected: false,
            next_key: 0,
            operations: HashMap::new(),
            by_id: HashMap::new(),
            ready: Vec::new(),
        };
        streams.insert(token.clone(), Arc::new(Stream { inbox: Inbox::default(), state: Mutex::new(state) }));
        (StatusCode::CREATED, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], token).into_response()
    }

    fn find(&self, token: &str) -> Result<Arc<Stream>, Box<Response>> {
        let found = self.0.lock().get(token).cloned();
        found.ok_or_else(|| Box::new(Problem::new(Code::NotFound, "there is no stream of this token").into_response()))
    }

    /// `GET` or `POST` for an event stream with a token: connects it.
    pub fn connect(&self, token: &str, context: &Context) -> Response {
        let stream = match self.find(token) {
            Ok(stream) => stream,
            Err(response) => return *response,
        };
        if std::mem::replace(&mut stream.state.lock().connected, true) {
            return Problem::new(Code::Conflict, "the stream of this token is open").into_response();
        }
        let inbox = stream.inbox.clone();
        // So that the head of the answer goes out at once.
        inbox.wake(RESULTS);
        let source = Connected { stream, token: token.to_owned(), streams: Arc::downgrade(&self.0), begun: false };
        let body = streaming::body(source, inbox, context.heartbeat, context.sockets.stop.clone(), ());
        stream::response(Form::EventStream, body)
    }

    /// A request with a token: its results come over the stream.
    pub async fn execute(
        &self,
        executor: &Executor,
        token: &str,
        id: Option<&str>,
        prepared: Prepared,
        max_operations: usize,
    ) -> Response {
        let refuse = |code, message: String| Problem::new(code, message).into_response();
        let stream = match self.find(token) {
            Ok(stream) => stream,
            Err(response) => return *response,
        };
        let Some(id) = id.filter(|id| !id.is_empty() && id.len() <= 255) else {
            return refuse(Code::BadRequest, "extensions.operationId: must be a string of 1 to 255 bytes".to_owned());
        };
        let key = {
            let mut state = stream.state.lock();
            if state.by_id.contains_key(id) {
                return refuse(Code::Conflict, format!("operation {id:?} is running"));
            }
            if state.operations.len() >= max_operations {
                return refuse(Code::LimitReached, format!("at most {max_operations} operations on one stream"));
            }
            let key = state.next_key;
            state.next_key += 1;
            state.by_id.insert(id.to_owned(), key);
            state.operations.insert(key, (id.to_owned(), None));
            key
        };
        if prepared.kind == OperationKind::Subscription {
            match executor.open(prepared, &stream.inbox, key, None).await {
                Ok(operation) => {
                    // Stopped while it opened: dropping it unsubscribes.
                    if let Some(entry) = stream.state.lock().operations.get_mut(&key) {
                        entry.1 = Some(operation);
                    }
                    stream.inbox.wake(key);
                }
                Err(errors) => {
                    stream.state.lock().remove(key);
                    stream.last(id, &errors_only(&errors));
                }
            }
        } else {
            let (response, executed) = executor.single(&prepared).await;
            stream.state.lock().remove(key);
            stream.last(id, &json::write_response(&response, executed));
        }
        StatusCode::ACCEPTED.into_response()
    }

    /// A request with a token that was refused before execution: its errors come over the stream, too. As the request's own
    /// answer, clients would take them for a fault of the network and ask again.
    pub fn refuse(&self, token: &str, id: Option<&str>, errors: &[ServerError]) -> Response {
        match (self.find(token), id) {
            (Ok(stream), Some(id)) => {
                stream.last(id, &errors_only(errors));
                StatusCode::ACCEPTED.into_response()
            }
            (Ok(_), None) => request_error(Form::GraphqlResponse, errors),
            (Err(response), _) => *response,
        }
    }

    /// `DELETE`: stops an operation.
    pub fn stop(&self, token: &str, id: &str) -> Response {
        let stream = match self.find(token) {
            Ok(stream) => stream,
            Err(response) => return *response,
        };
        let mut state = stream.state.lock();
        if let Some(key) = state.by_id.get(id).copied() {
            state.remove(key);
            complete(&mut state.ready, id);
            drop(state);
            stream.inbox.wake(RESULTS);
        }
        StatusCode::OK.into_response()
    }
}

impl Stream {
    /// The only or last result of an operation, and its end.
    fn last(&self, id: &str, result: &str) {
        let mut state = self.state.lock();
        next(&mut state.ready, id, result.as_bytes());
        complete(&mut state.ready, id);
        drop(state);
        self.inbox.wake(RESULTS);
    }
}

impl State {
    fn remove(&mut self, key: u64) {
        if let Some((id, _)) = self.operations.remove(&key) {
            self.by_id.remove(&id);
        }
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
        let mut state = self.stream.state.lock();
        out.append(&mut state.ready);
        let Some((id, Some(operation))) = state.operations.get_mut(&key) else { return Flow::Go };
        let ended = operation.deliver(|result, _| next(out, id, result));
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
                && operation.seal()
            {
                operation.confirm();
            }
        }
    }
}
