//! GraphQL over SSE, single-connection mode: a client reserves a stream, connects it, and sends operations by requests of
//! their own, whose results come over the stream, marked with the operation's id.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use async_graphql::ServerError;
use axum::{http::HeaderMap, response::Response};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{
    Context, Settings,
    accept::Form,
    document::OperationKind,
    execute::{Executor, Outcome, Prepared},
    ids,
    operation::Operation,
    response::errors_only,
};
use crate::{
    broker::{Client, Error, Inbox, Watch},
    event_stream::{self, ServerSentEvent},
    headers,
    problem::{Code, Problem},
    streaming::{self, StreamContent, StreamFlow},
    subscriptions::{Limit, Readable, Subscriptions},
    wire,
};

/// The header that carries a reservation's token.
pub const TOKEN: &str = "x-graphql-event-stream-token";

/// Reservations and streams that one server holds.
const MAX_STREAMS: usize = 10_000;

/// Bytes of results that may be ready before the stream takes no further operation: its client does not read, or has not
/// connected yet.
const ENOUGH_READY: usize = 64 << 10;

/// The key under which the stream's inbox announces results that are ready.
const RESULTS: u64 = u64::MAX;

/// All reserved and connected streams.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<HashMap<String, Arc<ReservedStream>>>>);

struct ReservedStream {
    /// Who has reserved it: nobody else may use it.
    client: Client,
    inbox: Inbox,
    state: Mutex<StreamState>,
}

struct StreamState {
    connected: bool,
    /// By their ids as JSON text.
    operations: Subscriptions<String, Operation>,
    /// Events that are ready to be sent.
    ready: Vec<u8>,
}

impl Streams {
    /// `PUT`: reserves a stream and returns its token. The reservation ends when the stream is not connected within
    /// [`Settings::connection_init_timeout`].
    ///
    /// # Errors
    /// Too many streams.
    pub fn reserve(&self, context: &Context, settings: &Settings, client: &Client) -> Result<String, Problem> {
        // 122 random bits: whoever has it may use the stream.
        let token = uuid::Uuid::new_v4().to_string();
        {
            let mut streams = self.0.lock();
            if streams.len() >= MAX_STREAMS {
                return Err(Error::LimitReached { what: "event streams", limit: MAX_STREAMS, own: false }.into());
            }
            streams.insert(token.clone(), Arc::new(ReservedStream::new(settings.max_operations, client)));
        }
        let (streams, stop, reserved) = (Arc::downgrade(&self.0), context.sockets.stop.clone(), token.clone());
        let connect_timeout = settings.connection_init_timeout;
        // A timer, and not a check when somebody asks for the stream: the reservation may hold subscriptions already.
        context.sockets.tasks.spawn(async move {
            tokio::select! {
                () = sleep(connect_timeout) => {}
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

    /// The stream of a token, if the client is the one that has reserved it.
    fn find(&self, client: &Client, token: &str) -> Result<Arc<ReservedStream>, Problem> {
        let found = self.0.lock().get(token).cloned();
        let own = found.filter(|stream| stream.client.principal().is(client.principal()));
        own.ok_or_else(|| Problem::new(Code::NotFound, "there is no stream of this token"))
    }

    /// Whether the event stream of a token could be connected.
    ///
    /// # Errors
    /// As [`Streams::connect`].
    pub fn check(&self, client: &Client, token: &str) -> Result<(), Problem> {
        if self.find(client, token)?.state.lock().connected {
            return Err(Problem::new(Code::Conflict, "the stream of this token is open"));
        }
        Ok(())
    }

    /// A request for the event stream of a token: connects it.
    ///
    /// # Errors
    /// There is no such reservation, or it has its connection.
    pub fn connect(&self, client: &Client, token: &str, context: &Context) -> Result<Response, Problem> {
        let stream = self.find(client, token)?;
        let connection = client.connect("event-stream")?;
        {
            // Under both locks, as in `expire`, so that a stream is either connected or expired.
            let streams = self.0.lock();
            if !streams.contains_key(token) {
                return Err(Problem::new(Code::NotFound, "there is no stream of this token"));
            }
            if std::mem::replace(&mut stream.state.lock().connected, true) {
                return Err(Problem::new(Code::Conflict, "the stream of this token is open"));
            }
        }
        let inbox = stream.inbox.clone();
        // The body then has something to send, and with it the head of the response goes out at once.
        inbox.wake(RESULTS);
        let watch = stream.client.watch(&inbox, RESULTS);
        let (token, streams) = (token.to_owned(), Arc::downgrade(&self.0));
        let source = ConnectedStream { stream, token, streams, begun: false, watch };
        let body = streaming::body(source, inbox, context.heartbeat, context.sockets.stops.join(), connection);
        Ok(streaming::response(Form::EventStream.content_type(), body))
    }

    /// A request with a token: its results go over the stream. So do the errors of one that is refused before execution,
    /// unless `errors_here`: those are returned.
    ///
    /// # Errors
    /// The stream cannot take the operation.
    pub async fn execute(
        &self,
        executor: &Executor,
        client: &Client,
        token: &str,
        id: Option<&str>,
        prepared: Result<Prepared, Vec<ServerError>>,
        errors_here: bool,
    ) -> Result<Option<Vec<ServerError>>, Problem> {
        let stream = self.find(client, token)?;
        let id = id.filter(|id| !id.is_empty()).ok_or_else(|| {
            Problem::new(Code::BadRequest, "extensions.operationId: must be a string that is not empty")
        })?;
        let reserved = stream.begin(id)?;
        let result = match prepared {
            Ok(prepared) if prepared.kind == OperationKind::Subscription => {
                match executor.open(prepared, client, &stream.inbox, reserved.key, None).await {
                    Ok(operation) => {
                        // Every event repeats the id.
                        reserved.open(operation.with_overhead(id.len()));
                        return Ok(None);
                    }
                    Err(errors) => Err(errors),
                }
            }
            Ok(prepared) => match executor.single(prepared, client).await {
                Outcome::Executed { result, .. } => Ok(result),
                Outcome::Refused(errors) => Err(errors),
            },
            Err(errors) => Err(errors),
        };
        match result {
            Ok(result) => reserved.last(&result),
            Err(errors) if errors_here => return Ok(Some(errors)),
            Err(errors) => reserved.last(&errors_only(&errors)),
        }
        Ok(None)
    }

    /// `DELETE`: stops an operation. One that has ended, or never was, is stopped already.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn stop(&self, client: &Client, token: &str, id: &str) -> Result<(), Problem> {
        let stream = self.find(client, token)?;
        let mut state = stream.state.lock();
        let id = wire::quoted(id);
        if let Some(key) = state.operations.key_of(&id) {
            state.operations.remove(key);
            complete(&mut state.ready, &id);
            drop(state);
            stream.inbox.wake(RESULTS);
        }
        Ok(())
    }
}

impl ReservedStream {
    fn new(max_operations: usize, client: &Client) -> Self {
        let limit = Limit { what: "operations on one stream", most: max_operations };
        let inbox = Inbox::default();
        let operations = Subscriptions::new(inbox.clone(), limit);
        let state = Mutex::new(StreamState { connected: false, operations, ready: Vec::new() });
        Self { client: client.clone(), inbox, state }
    }

    /// Reserves an operation's id.
    fn begin(&self, id: &str) -> Result<ReservedId<'_>, Problem> {
        let mut state = self.state.lock();
        let quoted = wire::quoted(id);
        if state.operations.key_of(&quoted).is_some() {
            return Err(Problem::new(Code::Conflict, "an operation with this operationId is running"));
        }
        if state.ready.len() >= ENOUGH_READY {
            let what = "bytes of results that nobody takes on one stream";
            return Err(Error::LimitReached { what, limit: ENOUGH_READY, own: true }.into());
        }
        ids::check_length(&quoted)?;
        ids::check_room(state.operations.names(), &quoted)?;
        let key = state.operations.reserve(quoted)?;
        Ok(ReservedId { stream: self, key, opened: false })
    }
}

/// An operation's id on its stream while the operation is begun. It is free again when the request breaks off.
struct ReservedId<'a> {
    stream: &'a ReservedStream,
    key: u64,
    opened: bool,
}

impl ReservedId<'_> {
    /// Results will come.
    fn open(mut self, operation: Operation) {
        self.opened = true;
        self.stream.state.lock().operations.open(self.key, operation);
    }

    /// The only result, and the end; nothing for an operation that was stopped meanwhile.
    fn last(self, result: &str) {
        let mut state = self.stream.state.lock();
        if let Some(id) = state.operations.remove(self.key) {
            next(&mut state.ready, &id, result.as_bytes());
            complete(&mut state.ready, &id);
            drop(state);
            self.stream.inbox.wake(RESULTS);
        }
    }
}

impl Drop for ReservedId<'_> {
    fn drop(&mut self) {
        if !self.opened {
            self.stream.state.lock().operations.remove(self.key);
        }
    }
}

/// A result. The id is JSON text here and below.
fn next(out: &mut Vec<u8>, id: &str, result: &[u8]) {
    let data = [b"{\"id\":", id.as_bytes(), b",\"payload\":", result, b"}"];
    ServerSentEvent { id: None, name: "next", data: &data }.write(out);
}

fn complete(out: &mut Vec<u8>, id: &str) {
    ServerSentEvent { id: None, name: "complete", data: &[b"{\"id\":", id.as_bytes(), b"}"] }.write(out);
}

/// The token of a request, if it has one.
///
/// # Errors
/// [`Error::BadRequest`] for a header with several lines.
pub fn token(headers: &HeaderMap, parameter: Option<String>) -> Result<Option<String>, Error> {
    Ok(headers::single(headers, "X-GraphQL-Event-Stream-Token")?.map(str::to_owned).or(parameter))
}

/// A connected stream.
struct ConnectedStream {
    stream: Arc<ReservedStream>,
    token: String,
    streams: Weak<Mutex<HashMap<String, Arc<ReservedStream>>>>,
    begun: bool,
    /// Wakes the stream when what its client may do has changed.
    watch: Watch,
}

impl Drop for ConnectedStream {
    fn drop(&mut self) {
        // The stream's operations end with it.
        if let Some(streams) = self.streams.upgrade() {
            streams.lock().remove(&self.token);
        }
        self.stream.state.lock().operations.clear();
    }
}

impl StreamContent for ConnectedStream {
    fn deliver(&mut self, key: u64, out: &mut Vec<u8>) -> StreamFlow {
        if !std::mem::replace(&mut self.begun, true) {
            event_stream::heartbeat(out);
        }
        if key == RESULTS {
            self.watch.rearm();
        }
        let mut guard = self.stream.state.lock();
        let StreamState { operations, ready, .. } = &mut *guard;
        out.append(ready);
        if let Some(Readable { name, subscription, events }) = operations.readable(key)
            && let Some(last) = subscription.deliver(events, |result, _| next(out, name, result))
            && let Some(id) = operations.remove(key)
        {
            next(out, &id, &last);
            complete(out, &id);
        }
        // Once the credentials are not valid any more, the stream ends with its last operation.
        let is_over = self.stream.client.principal().check_valid().is_err() && operations.names().next().is_none();
        if is_over { StreamFlow::End } else { StreamFlow::Go }
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) {
        event_stream::heartbeat(out);
    }

    fn taken(&mut self) {
        // No acknowledgement comes back on an HTTP stream: what the connection took counts as delivered.
        let operations = &mut self.stream.state.lock().operations;
        if operations.mark_in_flight() {
            operations.acknowledge_in_flight();
        }
    }
}
