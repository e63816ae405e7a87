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
//! After the first time a document does not need async-graphql (`compiled.rs`): the first two steps only read arguments and
//! subscribe, and the fourth writes the pieces of the compiled selection. Only what cannot be compiled is executed.
//!
//! A result that only one subscriber can get is rendered for it alone: one with a gap before it, or with a position over the
//! logs of several instances.

use std::{future::poll_fn, sync::Arc, task::Poll};

use async_graphql::{Pos, Request, Response, ServerError, Value, Variables};
use parking_lot::Mutex;

use super::{
    compiled::{Call, Programs},
    document::{Cached, DocumentCache, DocumentError, DocumentLimits, OperationKind},
    json,
    mutation::BatchCounts,
    operation::Operation,
    persisted::Persisted,
    request::{Asked, Unread, Unresolved},
    shape::{Executed, Execution, Renderings, Shape, Shapes, internal},
    subgraph::ApiSchema,
    subscription::{Delivery, ItemSlot, OpenedSubscription, SubscribeContext},
    types,
    validator::{Validator, in_document_order},
};
use crate::{
    broker::{self, Client, Inbox, Start, TraceContext},
    wire,
};

/// The documents that are kept, with what was compiled of them.
pub type Documents = DocumentCache<Programs<Arc<Shape>>>;

/// A request whose document and variables have passed all checks that need no schema.
pub struct Prepared {
    with_cursors: bool,
    resume: Option<Start>,
    trace: Option<TraceContext>,
    work: Work,
    /// What it does.
    pub kind: OperationKind,
}

enum Work {
    /// The operation was compiled, and its arguments have been read.
    Compiled(Call<Arc<Shape>>),
    /// async-graphql executes it.
    Executed(Box<Whole>),
}

/// A request with its whole document.
struct Whole {
    text: String,
    hash: Option<String>,
    operation: Option<String>,
    variables: Variables,
    document: Arc<Cached<Programs<Arc<Shape>>>>,
}

/// What a query or mutation led to.
pub enum Outcome {
    /// It was executed.
    Executed {
        /// The result as JSON.
        result: String,
        /// Whether it has errors beside its data.
        has_errors: bool,
    },
    /// It was refused before execution.
    Refused(Vec<ServerError>),
}

/// Executes requests; clones share everything.
#[derive(Clone)]
pub struct Executor(Arc<Shared>);

struct Shared {
    schema: ApiSchema,
    validator: Validator,
    limits: DocumentLimits,
    documents: Arc<Documents>,
    persisted: Persisted,
    shapes: Arc<Shapes>,
    /// Whether documents are compiled; tests compare with what is not.
    compiles: bool,
}

impl Executor {
    pub fn new(
        schema: ApiSchema,
        validator: Validator,
        limits: DocumentLimits,
        documents: Arc<Documents>,
        persisted: Persisted,
        renderings: Arc<Renderings>,
    ) -> Self {
        let shapes = Shapes::new(renderings, wire::FIRST_FREE_SHAPE);
        Self(Arc::new(Shared { schema, validator, limits, documents, persisted, shapes, compiles: true }))
    }

    /// The same without anything ever being compiled. Its shapes have numbers of their own, so that it can be compared with
    /// another one on the same messages.
    #[cfg(test)]
    pub(super) fn never_compiling(self, renderings: Arc<Renderings>) -> Self {
        let shared = Arc::into_inner(self.0).expect("it is shared by nobody yet");
        Self(Arc::new(Shared { compiles: false, shapes: Shapes::new(renderings, 1 << 32), ..shared }))
    }

    /// Reads a request of this client.
    ///
    /// # Errors
    /// What is wrong, naming the parameter.
    pub fn read(&self, request: Unresolved<'_>, client: &Client) -> Result<Asked, Unread> {
        match self.compiled(&request, client) {
            Some(call) => Ok(request.compiled(call)),
            None => request.resolve(),
        }
    }

    /// The request as a call of what was compiled, if its document is known and nothing is unusual.
    fn compiled(&self, request: &Unresolved<'_>, client: &Client) -> Option<Call<Arc<Shape>>> {
        let persisted = &self.0.persisted;
        let cached = match (request.query.as_deref(), request.hash().ok()?) {
            (Some(text), None) if persisted.accepts_all() => self.0.documents.get(text)?,
            (None, Some(hash)) => self.0.documents.get(&persisted.find(hash)?)?,
            _ => return None,
        };
        cached.programs()?.call(request.operation.as_deref(), request.variables, client)
    }

    /// Checks a request's document and variables.
    ///
    /// # Errors
    /// What is wrong, as GraphQL errors.
    pub fn prepare(&self, asked: Asked) -> Result<Prepared, Vec<ServerError>> {
        let one = |error| vec![server_error(error)];
        let Asked { query, hash, operation, mut variables, with_cursors, resume, trace, call, .. } = asked;
        if let Some(call) = call {
            return Ok(Prepared { with_cursors, resume, trace, kind: call.kind(), work: Work::Compiled(call) });
        }
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
        let whole = Whole { text, hash, operation, variables, document };
        Ok(Prepared { with_cursors, resume, trace, kind, work: Work::Executed(Box::new(whole)) })
    }

    /// Keeps a document that the schema has found valid, too, and compiles it.
    fn keep(&self, whole: &Whole) {
        let Whole { text, hash, document, .. } = whole;
        if let Some(hash) = hash {
            self.0.persisted.keep(hash, text);
        }
        if self.0.compiles && !document.is_compiled() {
            let programs = Programs::compile(document, self.0.limits.max_substituted_bytes);
            let bytes = programs.as_ref().map_or(0, Programs::bytes);
            self.0.documents.keep_programs(text, document, programs, bytes);
        }
    }

    fn request(whole: &Whole) -> Request {
        // The parsed document is enough: async-graphql does not read the text again.
        let mut request = Request::new(String::new()).variables(whole.variables.clone());
        request.operation_name.clone_from(&whole.operation);
        request.set_parsed_query(whole.document.executable(whole.operation.as_deref(), &whole.variables));
        request
    }

    /// Validates the whole document if variables are absent, because then the one to be executed is only a part of it.
    async fn validate(&self, whole: &Whole) -> Result<(), Vec<ServerError>> {
        let Whole { document, operation, variables, .. } = whole;
        if !document.has_absent(operation.as_deref(), variables) {
            return Ok(());
        }
        let mut request = Request::new(String::new()).variables(variables.clone());
        request.operation_name.clone_from(operation);
        request.set_parsed_query(document.validated());
        self.0.validator.validate(request).await
    }

    /// Executes a query or mutation.
    pub async fn single(&self, prepared: Prepared, client: &Client) -> Outcome {
        let traced = prepared.trace.map(|trace| client.traced(trace));
        let client = traced.as_ref().unwrap_or(client);
        let whole = match prepared.work {
            Work::Executed(whole) => whole,
            Work::Compiled(call) => {
                return match call.execute(client).await {
                    Some((result, has_errors)) => Outcome::Executed { result, has_errors },
                    None => Outcome::Refused(vec![internal()]),
                };
            }
        };
        // On the heap: what is compiled needs much less room.
        match Box::pin(self.execute(&whole, client)).await {
            Ok(response) => {
                self.keep(&whole);
                let result = json::write_response(&response, true);
                Outcome::Executed { result, has_errors: !response.errors.is_empty() }
            }
            Err(errors) => Outcome::Refused(errors),
        }
    }

    /// Has async-graphql execute a query or mutation.
    ///
    /// # Errors
    /// Why it was refused before execution.
    async fn execute(&self, whole: &Whole, client: &Client) -> Result<Response, Vec<ServerError>> {
        self.validate(whole).await?;
        let counts = Arc::new(BatchCounts::default());
        let request = Self::request(whole).data(counts.clone()).data(client.clone());
        let mut response = self.0.schema.execute(request).await;
        response.extensions.extend(counts.extension());
        // Validation leaves no path and no data; a resolver that fails leaves its path.
        let refused = response.data == Value::Null
            && !response.errors.is_empty()
            && response.errors.iter().all(|error| error.path.is_empty());
        if refused { Err(in_document_order(response.errors)) } else { Ok(response) }
    }

    /// Opens a subscription whose news come to `inbox` under `key`. `resume` is where the transport says that the client was,
    /// and goes before what the request says.
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
        let with_cursors = prepared.with_cursors;
        let resume = resume.or(prepared.resume);
        let (subscription, shape) = match prepared.work {
            Work::Compiled(call) => self.open_compiled(call, client, inbox, key, resume).await?,
            Work::Executed(whole) => {
                let subscribing =
                    Arc::new(SubscribeContext { inbox: inbox.clone(), key, resume, opened: Mutex::new(None) });
                Box::pin(self.open_executed(*whole, client, subscribing)).await?
            }
        };
        Ok(Operation::new(subscription, shape, with_cursors))
    }

    async fn open_compiled(
        &self,
        call: Call<Arc<Shape>>,
        client: &Client,
        inbox: &Inbox,
        key: u64,
        resume: Option<Start>,
    ) -> Result<(broker::Subscription, Arc<Shape>), Vec<ServerError>> {
        let Some((program, request)) = call.subscribe() else { return Err(vec![internal()]) };
        let Some(compiled) = program.subscription() else { return Err(vec![internal()]) };
        let refused = |error| vec![compiled.refused(error)];
        let mut request = request.map_err(refused)?;
        request.resume = resume;
        let delivery = Delivery::of(&request);
        let subscription = client.subscribe(request, inbox, key).await.map_err(refused)?;
        let shapes = &self.0.shapes;
        let shape = compiled.shape(delivery, |selection| shapes.written(selection, delivery)).clone();
        Ok((subscription, shape))
    }

    async fn open_executed(
        &self,
        whole: Whole,
        client: &Client,
        subscribing: Arc<SubscribeContext>,
    ) -> Result<(broker::Subscription, Arc<Shape>), Vec<ServerError>> {
        self.validate(&whole).await?;
        let request = Self::request(&whole).data(subscribing.clone()).data(client.clone());
        let mut stream = self.0.schema.execute_stream(request);
        // The execution runs until the resolver has subscribed; it then waits for the first item.
        let refused = poll_fn(|cx| match stream.as_mut().poll_next(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending if subscribing.opened.lock().is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match refused.await {
            None => {}
            Some(Some(response)) if !response.errors.is_empty() => return Err(in_document_order(response.errors)),
            Some(_) => return Err(vec![internal()]),
        }
        let Some(OpenedSubscription { subscription, slot }) = subscribing.opened.lock().take() else {
            return Err(vec![internal()]);
        };
        self.keep(&whole);
        Ok((subscription, self.shape(whole, Execution { stream, slot })))
    }

    /// The shape of a subscription that was executed: of its selection alone, if that could be compiled.
    fn shape(&self, whole: Whole, execution: Execution) -> Arc<Shape> {
        let Whole { text, operation, variables, document, .. } = whole;
        let shapes = &self.0.shapes;
        let flag = |name: &str| match variables.get(name) {
            Some(Value::Boolean(flag)) => Some(*flag),
            _ => None,
        };
        let compiled = document.programs().and_then(|programs| programs.subscription(flag));
        if let (Some(compiled), ItemSlot::Messages { delivery, .. }) = (compiled, &execution.slot) {
            return compiled.shape(*delivery, |selection| shapes.written(selection, *delivery)).clone();
        }
        let mut given = String::new();
        for (name, value) in variables.iter() {
            json::write_text(&mut given, name);
            json::write_value(&mut given, value);
        }
        let principal = match &execution.slot {
            ItemSlot::Messages { .. } => None,
            ItemSlot::Events(client, _) => Some(client.principal().number()),
        };
        shapes.executed(Executed { query: text, operation, variables: given, principal }, execution)
    }
}

/// A document's error as async-graphql shows its own.
pub fn server_error(error: DocumentError) -> ServerError {
    let mut server_error = ServerError::new(error.message, None);
    // A transport answers a document that cannot be parsed in another way than one that does not hold.
    server_error.source = Some(Arc::new(error.kind));
    server_error.locations = error.locations.into_iter().map(|(line, column)| Pos { line, column }).collect();
    server_error
}
