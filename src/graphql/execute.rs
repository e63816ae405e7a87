//! From a request to its response: documents are checked, queries and mutations executed, and subscriptions opened.
//!
//! The messages of a subscription are read by its connection and not by async-graphql, whose execution only turns a message
//! into a result. So one execution serves all subscriptions of one shape, which have the same document, operation and
//! variables, and a message is executed and written as JSON once, however many subscribers want it:
//!
//! ```text
//!                        connection A                                connection B, of the same shape
//!
//!  1 open       execute_stream(document) runs until                its own execution does the same; the first
//!               the resolver has subscribed and waits              one's is kept, and this one is dropped
//!               for its first item                                 (`Executor::shape`)
//!                     |                                                  |
//!  2 read       a batch of messages from the ring                  the same messages, in its own time
//!               (`Subscription::read`)                                   |
//!                     |                                                  |
//!  3 look up    is there a rendering of this shape                 found
//!               with the message? no                                     |
//!                     |                                                  |
//!  4 render     put the message into the slot, poll                      |
//!               the execution once, write the result                     |
//!               as JSON, keep it with the message                        |
//!                     |                                                  |
//!  5 write      copy the bytes into the socket's buffer            copy the same bytes
//! ```
//!
//! A result that only one subscriber can get is rendered for it alone: one with a gap before it, or with a position over the
//! logs of several instances.

use std::{
    borrow::{Borrow, BorrowMut},
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use async_graphql::{ErrorExtensions, Pos, Request, Response, ServerError, Variables};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio_stream::Stream;

use super::{
    document::{Document, DocumentCache, DocumentError, DocumentLimits, OperationKind},
    json,
    mutation::BatchCounts,
    persisted::Persisted,
    request::Asked,
    subgraph::ApiSchema,
    subscription::{ItemSlot, OpenedSubscription, SubscribeContext},
    types::{self, Message, TopicEvent},
    validator::Validator,
};
use crate::{
    broker::{
        self, AnyCursor, BatchLimit, Client, Event, Gap, Inbox, PatternCursor, Progress, ShapeId, Start, TopicEventKind,
    },
    problem::{Code, Problem},
    subscriptions::BATCH_LIMIT,
    wire::{self, Spelling},
};

/// A request whose document and variables have passed all checks that need no schema.
pub struct Prepared {
    text: String,
    hash: Option<String>,
    operation: Option<String>,
    variables: Variables,
    with_cursors: bool,
    document: Arc<Document>,
    /// What it does.
    pub kind: OperationKind,
}

/// Executes requests; clones share everything.
#[derive(Clone)]
pub struct Executor(Arc<Shared>);

struct Shared {
    schema: ApiSchema,
    validator: Validator,
    limits: DocumentLimits,
    documents: Arc<DocumentCache>,
    persisted: Persisted,
    shapes: Mutex<HashMap<ShapeKey, Weak<Shape>>>,
    next_shape: AtomicU64,
    renderings: Arc<Renderings>,
}

/// How many times a message was rendered for GraphQL, and how many times it was wanted.
#[derive(Debug, Default)]
pub struct Renderings {
    /// Executed and written as JSON.
    pub made: AtomicU64,
    /// Asked for, made or shared.
    pub wanted: AtomicU64,
}

/// What makes two subscriptions' renderings the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ShapeKey {
    query: String,
    operation: Option<String>,
    variables: String,
    /// Whose it is alone. A topic that comes with an event shows what its reader may see of it; messages are the same for
    /// all who may read them.
    principal: Option<usize>,
}

/// The execution that all subscriptions of one shape share.
struct Shape {
    id: ShapeId,
    rendering: Mutex<Execution>,
    renderings: Arc<Renderings>,
    key: ShapeKey,
    executor: Weak<Shared>,
}

struct Execution {
    stream: Pin<Box<dyn Stream<Item = Response> + Send>>,
    slot: ItemSlot,
}

impl Drop for Shape {
    fn drop(&mut self) {
        if let Some(executor) = self.executor.upgrade() {
            let mut shapes = executor.shapes.lock();
            // By now there may be a newer shape of the same key.
            if shapes.get(&self.key).is_some_and(|known| known.strong_count() == 0) {
                shapes.remove(&self.key);
            }
        }
    }
}

impl Shape {
    /// One result as JSON.
    fn make(&self, item: Option<Item<'_>>) -> String {
        self.renderings.made.fetch_add(1, Ordering::Relaxed);
        self.rendering.lock().render(item).unwrap_or_else(|| {
            let mut result = r#"{"data":null,"errors":"#.to_owned();
            json::write_errors(&mut result, &[internal()]);
            result.push('}');
            result
        })
    }
}

impl Execution {
    /// Runs one item through the execution. All resolvers of the output types are ready at once.
    fn render(&mut self, item: Option<Item<'_>>) -> Option<String> {
        match &self.slot {
            ItemSlot::Messages { slot, filtered } => {
                slot.put(item.map(|Item { message, gap, pattern_cursor }| Message {
                    message: message.clone(),
                    gap: gap.cloned(),
                    pattern_cursor: pattern_cursor.cloned(),
                    filtered: *filtered,
                }));
            }
            ItemSlot::Events(client, slot) => {
                let event = |Item { message, .. }: Item<'_>| {
                    let kind = TopicEventKind::of(message)?;
                    Some(TopicEvent { client: client.clone(), kind, message: message.clone() })
                };
                slot.put(item.and_then(event));
            }
        }
        match self.stream.as_mut().poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(response)) => Some(json::write_response(&response, true)),
            Poll::Ready(None) | Poll::Pending => None,
        }
    }
}

/// What one result is made of.
#[derive(Clone, Copy)]
struct Item<'a> {
    message: &'a Arc<broker::Message>,
    gap: Option<&'a Gap>,
    pattern_cursor: Option<&'a PatternCursor>,
}

/// An open subscription, read by its connection.
pub struct Operation {
    subscription: broker::Subscription,
    shape: Arc<Shape>,
    /// The first result says how the consumer was resumed.
    greeting: Option<String>,
    /// The position behind the last result, where every result carries it.
    cursor: Option<String>,
    batch: BatchLimit,
}

impl Executor {
    pub fn new(
        schema: ApiSchema,
        validator: Validator,
        limits: DocumentLimits,
        documents: Arc<DocumentCache>,
        persisted: Persisted,
        renderings: Arc<Renderings>,
    ) -> Self {
        Self(Arc::new(Shared {
            schema,
            validator,
            limits,
            documents,
            persisted,
            shapes: Mutex::default(),
            next_shape: AtomicU64::new(wire::FIRST_FREE_SHAPE),
            renderings,
        }))
    }

    /// Checks a request's document and variables.
    ///
    /// # Errors
    /// What is wrong, as GraphQL errors.
    pub fn prepare(&self, asked: Asked) -> Result<Prepared, Vec<ServerError>> {
        let one = |error| vec![server_error(error)];
        let Asked { query, hash, operation, mut variables, with_cursors, .. } = asked;
        let text = self.0.persisted.resolve(query, hash.as_deref()).map_err(|refusal| {
            let error = types::problem(&refusal.into()).into_server_error(Pos::default());
            vec![ServerError { locations: Vec::new(), ..error }]
        })?;
        let document = self.0.documents.get_or_prepare(&text, &self.0.limits).map_err(one)?;
        let facts = document.operation(operation.as_deref()).map_err(one)?;
        let (kind, operation) = (facts.kind, facts.name.clone());
        document
            .check_variables(operation.as_deref(), &variables, &self.0.limits)
            .map_err(|errors| errors.into_iter().map(server_error).collect::<Vec<_>>())?;
        document.fill_defaults(operation.as_deref(), &mut variables);
        Ok(Prepared { text, hash, operation, variables, with_cursors, document, kind })
    }

    /// Keeps a document that the schema has found valid, too.
    fn keep(&self, prepared: &Prepared) {
        if let Some(hash) = &prepared.hash {
            self.0.persisted.keep(hash, &prepared.text);
        }
    }

    fn request(prepared: &Prepared) -> Request {
        // The parsed document is enough: async-graphql does not read the text again.
        let mut request = Request::new(String::new()).variables(prepared.variables.clone());
        request.operation_name.clone_from(&prepared.operation);
        request.set_parsed_query(prepared.document.executable(prepared.operation.as_deref(), &prepared.variables));
        request
    }

    /// Validates the whole document if variables are absent, because then the one to be executed is only a part of it.
    async fn validate(&self, prepared: &Prepared) -> Result<(), Vec<ServerError>> {
        let Prepared { document, operation, variables, .. } = prepared;
        if !document.has_absent(operation.as_deref(), variables) {
            return Ok(());
        }
        let mut request = Request::new(String::new()).variables(variables.clone());
        request.operation_name.clone_from(operation);
        request.set_parsed_query(document.validated());
        self.0.validator.validate(request).await
    }

    /// Executes a query or mutation. Also returns whether execution began.
    pub async fn single(&self, prepared: &Prepared, client: &Client) -> (Response, bool) {
        if let Err(errors) = self.validate(prepared).await {
            return (Response::from_errors(errors), false);
        }
        let counts = Arc::new(BatchCounts::default());
        let request = Self::request(prepared).data(counts.clone()).data(client.clone());
        let mut response = self.0.schema.execute(request).await;
        response.extensions.extend(counts.extension());
        // Validation leaves no path and no data; a resolver that fails leaves its path.
        let refused = response.data == async_graphql::Value::Null
            && !response.errors.is_empty()
            && response.errors.iter().all(|error| error.path.is_empty());
        if !refused {
            self.keep(prepared);
        }
        (response, !refused)
    }

    /// Opens a subscription whose news come to `inbox` under `key`.
    ///
    /// # Errors
    /// Why it was refused, as GraphQL errors.
    pub async fn open(
        &self,
        prepared: Prepared,
        client: &Client,
        inbox: &Inbox,
        key: u64,
        resume: Option<Start>,
    ) -> Result<Operation, Vec<ServerError>> {
        self.validate(&prepared).await?;
        let subscribing = Arc::new(SubscribeContext { inbox: inbox.clone(), key, resume, opened: Mutex::new(None) });
        let request = Self::request(&prepared).data(subscribing.clone()).data(client.clone());
        let mut stream = self.0.schema.execute_stream(request);
        // The execution runs until the resolver has subscribed; it then waits for the first item.
        let refused = poll_fn(|cx| match stream.as_mut().poll_next(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending if subscribing.opened.lock().is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match refused.await {
            None => {}
            Some(Some(response)) if !response.errors.is_empty() => return Err(response.errors),
            Some(_) => return Err(vec![internal()]),
        }
        let Some(OpenedSubscription { subscription, slot }) = subscribing.opened.lock().take() else {
            return Err(vec![internal()]);
        };
        let greeting = subscription.consumer().map(|info| format!(r#""consumer":{}"#, wire::consumer_object(info)));
        self.keep(&prepared);
        let cursor = prepared.with_cursors.then(|| subscription.begins_at().to_string());
        let shape = self.shape(prepared, Execution { stream, slot });
        Ok(Operation { subscription, shape, greeting, cursor, batch: BATCH_LIMIT })
    }

    /// The shape of equal requests; the first one's execution serves all.
    fn shape(&self, prepared: Prepared, execution: Execution) -> Arc<Shape> {
        let mut variables = String::new();
        for (name, value) in prepared.variables.iter() {
            json::write_text(&mut variables, name);
            json::write_value(&mut variables, value);
        }
        let principal = match &execution.slot {
            ItemSlot::Messages { .. } => None,
            ItemSlot::Events(client, _) => Some(client.principal().number()),
        };
        let key = ShapeKey { query: prepared.text, operation: prepared.operation, variables, principal };
        let mut shapes = self.0.shapes.lock();
        if let Some(shape) = shapes.get(&key).and_then(Weak::upgrade) {
            return shape;
        }
        let shape = Arc::new(Shape {
            id: ShapeId(self.0.next_shape.fetch_add(1, Ordering::Relaxed)),
            rendering: Mutex::new(execution),
            renderings: self.0.renderings.clone(),
            key: key.clone(),
            executor: Arc::downgrade(&self.0),
        });
        shapes.insert(key, Arc::downgrade(&shape));
        shape
    }
}

impl Operation {
    /// Bounds a batch by what the connection adds to every result, such as a long id.
    pub fn with_overhead(mut self, bytes: usize) -> Self {
        let messages = BATCH_LIMIT.bytes / bytes.max(1);
        self.batch.messages = messages.clamp(1, BATCH_LIMIT.messages);
        self
    }

    /// Reads one batch; `each` gets every result as JSON, with the position of its message. `Some` is how the stream
    /// ended: a last result with the error. `events` is a buffer that a connection lends to each of its operations,
    /// empty before and after.
    pub fn deliver(
        &mut self,
        events: &mut Vec<Event>,
        mut each: impl FnMut(&[u8], Option<AnyCursor>),
    ) -> Option<Bytes> {
        let progress = self.subscription.read(self.batch, events);
        let mut events = events.drain(..).peekable();
        while let Some(event) = events.next() {
            match event {
                Event::Message(message, position) => {
                    let result = self.render(&message, None, position.as_ref());
                    each(&result, Some(position_of(&message, position)));
                }
                Event::Gap(gap) => {
                    // The next message says what was missed before it. Where none follows, a result without one does.
                    let follows =
                        |event: &Event| matches!(event, Event::Message(message, _) if message.topic == gap.topic);
                    if let Some(Event::Message(message, position)) = events.next_if(follows) {
                        let result = self.render(&message, Some(&gap), position.as_ref());
                        each(&result, Some(position_of(&message, position)));
                    } else {
                        each(&self.without_message(&gap_extension(&gap)), None);
                    }
                }
                // The topic was deleted with messages that were not read, and how many is not known any more.
                Event::Deleted { topic, unread: true } => {
                    let extension = format!(r#""deleted":{{"topic":{}}}"#, wire::quoted(topic.as_str()));
                    each(&self.without_message(&extension), None);
                }
                // The stream of a pattern goes on; clients learn of deleted topics by `topicEvents`.
                Event::Deleted { unread: false, .. } => {}
            }
        }
        let Progress::Ended(error) = progress else { return None };
        let error = types::refuse(error).into_server_error(Pos::default());
        let mut last = r#"{"data":null,"errors":"#.to_owned();
        json::write_errors(&mut last, &[ServerError { locations: Vec::new(), ..error }]);
        last.push('}');
        Some(last.into())
    }

    fn render(
        &mut self,
        message: &Arc<broker::Message>,
        gap: Option<&Gap>,
        pattern_cursor: Option<&PatternCursor>,
    ) -> Bytes {
        if let Some(cursor) = &mut self.cursor {
            *cursor = pattern_cursor.map_or_else(|| message.cursor.to_string(), ToString::to_string);
        }
        let shape = &self.shape;
        shape.renderings.wanted.fetch_add(1, Ordering::Relaxed);
        let make = || Bytes::from(shape.make(Some(Item { message, gap, pattern_cursor })));
        // A gap is this subscriber's alone, and so is a position over several logs.
        let own = gap.is_some() || pattern_cursor.is_some_and(|cursor| cursor.logs.len() > 1);
        let result = if own { make() } else { message.rendering(shape.id, |_| make()) };
        self.extended(result, gap.map(gap_extension))
    }

    /// A result with what is said beside it.
    fn extended(&mut self, result: Bytes, first: Option<String>) -> Bytes {
        let cursor = self.cursor.as_ref().map(|cursor| format!(r#""cursor":"{cursor}""#));
        let extensions: Vec<_> = [first, self.greeting.take(), cursor].into_iter().flatten().collect();
        if extensions.is_empty() { result } else { with_extensions(&result, &extensions.join(",")) }
    }

    /// A result that has null instead of a message.
    fn without_message(&mut self, extension: &str) -> Bytes {
        let result = self.shape.make(None);
        self.extended(result.into(), Some(extension.to_owned()))
    }

    /// See [`broker::Subscription::begins_at`].
    pub fn begins_at(&self) -> &AnyCursor {
        self.subscription.begins_at()
    }

    /// No acknowledgement comes back on an HTTP stream: what the connection took counts as delivered.
    pub fn delivered(&mut self) {
        if self.subscription.mark_in_flight() {
            self.subscription.acknowledge_in_flight();
        }
    }

    /// The consumer of the subscription, as JSON.
    pub fn consumer(&self) -> Option<String> {
        self.subscription.consumer().map(wire::consumer_object)
    }
}

impl Borrow<broker::Subscription> for Operation {
    fn borrow(&self) -> &broker::Subscription {
        &self.subscription
    }
}

impl BorrowMut<broker::Subscription> for Operation {
    fn borrow_mut(&mut self) -> &mut broker::Subscription {
        &mut self.subscription
    }
}

/// The position that a client resumes after: over all topics, if the message came through a pattern.
fn position_of(message: &broker::Message, pattern_cursor: Option<PatternCursor>) -> AnyCursor {
    pattern_cursor.map_or(AnyCursor::Topic(message.cursor), AnyCursor::Pattern)
}

fn gap_extension(gap: &Gap) -> String {
    format!(r#""gap":{}"#, wire::gap_object(gap, Spelling::CamelCase))
}

/// Adds extensions to a result that has none.
fn with_extensions(result: &[u8], extensions: &str) -> Bytes {
    let body = result.strip_suffix(b"}").unwrap_or(result);
    [body, br#","extensions":{"#, extensions.as_bytes(), b"}}"].concat().into()
}

/// The error of a request that ended in a bug. Only the operator is to see what it was, and finds it in the log by its id.
fn internal() -> ServerError {
    let id = uuid::Uuid::new_v4();
    tracing::error!(%id, "an execution ended without a result");
    let problem = Problem::new(Code::Internal, "something went wrong here; the log has it by its id");
    let error = types::problem(&problem).extend_with(|_, extensions| extensions.set("errorId", id.to_string()));
    error.into_server_error(Pos::default())
}

/// A document's error as async-graphql shows its own.
pub fn server_error(error: DocumentError) -> ServerError {
    let mut server_error = ServerError::new(error.message, None);
    // A transport answers a document that cannot be parsed in another way than one that does not hold.
    server_error.source = Some(Arc::new(error.kind));
    server_error.locations = error.locations.into_iter().map(|(line, column)| Pos { line, column }).collect();
    server_error
}
