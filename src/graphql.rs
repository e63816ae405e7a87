//! The GraphQL door at `/graphql`: queries and mutations by HTTP, subscriptions by WebSocket and by event stream.
//!
//! async-graphql is schema and executor; of async-graphql-axum only its subprotocol check is used. The transports are
//! ours, because those fall short of the protocols (release 7.2.1): its HTTP runs mutations over GET and documents of any
//! content type, ignores `operationName` over GET and `Accept`, and has `data: null` in responses to request errors; its
//! WebSocket has neither the close codes nor the time limits of the protocol, sends no pings, polls all operations for
//! each event, and executes and serialises every message again for every subscriber. Here a message is rendered once for all
//! who ask for the same (`execute.rs`), and the socket is the one that the raw door uses.

mod accept;
mod compiled;
mod document;
mod execute;
mod generations;
mod http;
mod ids;
mod json;
mod mutation;
mod operation;
mod persisted;
mod query;
mod request;
mod response;
mod scalars;
mod shape;
mod single;
mod stream;
mod subgraph;
mod subscription;
#[cfg(test)]
mod tests;
mod types;
mod validator;
mod ws;

use std::{
    collections::HashMap,
    ops::Deref,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_graphql::{ObjectType, SDLExportOptions, Schema, SchemaBuilder};
use axum::{
    Router,
    extract::{Request, State},
    http::Method,
    routing::get,
};
use tokio::time::Instant;

use crate::{
    access::{Access, Visitor},
    broker::MetricSample,
    front::{Responding, Shortcut},
    socket::Sockets,
};
pub use document::DocumentLimits;
use execute::{Documents, Executor};
use mutation::Mutation;
use persisted::Persisted;
use query::Query;
pub use response::refuse;
use shape::Renderings;
use single::Streams;
use subgraph::{ApiSchema, SubgraphQuery};
use subscription::SubscriptionRoot;
use validator::{StopBeforeExecution, Validator};

/// Bounds and times of the GraphQL door.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Operations that one WebSocket may have running.
    pub max_operations: usize,
    /// How long a WebSocket may take to send `connection_init`.
    pub connection_init_timeout: Duration,
    /// Requests in one batch.
    pub max_batch: usize,
    /// Bounds on documents.
    pub documents: DocumentLimits,
    /// Bytes of checked documents that are kept.
    pub document_cache_bytes: usize,
    /// Documents that clients may name by their hash.
    pub persisted_documents: PersistedDocuments,
    /// Whether only those are executed.
    pub persisted_documents_only: bool,
    /// Bytes of documents that clients registered by their hash.
    pub persisted_cache_bytes: usize,
    /// Whether the schema is served as a federation subgraph.
    pub federation: bool,
    /// Whether the schema may be asked for.
    pub introspection: bool,
    /// Fields that one operation may resolve, pages counted with their size; 0 means no limit.
    pub max_complexity: usize,
}

/// An allow-list of documents, with the file that it was read from.
#[derive(Clone, Debug, Default)]
pub struct PersistedDocuments(HashMap<String, Arc<str>>, String);

impl PersistedDocuments {
    /// Reads a JSON file: an object of documents by their SHA-256 hash, or an array of documents. No path, no documents.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn read(path: &str) -> Result<Self, String> {
        let documents = if path.is_empty() { HashMap::new() } else { persisted::read_list(Path::new(path))? };
        Ok(Self(documents, path.to_owned()))
    }

    /// The file's path; empty without one.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.1
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_operations: 2_000,
            connection_init_timeout: Duration::from_secs(10),
            max_batch: 10,
            documents: DocumentLimits {
                list_default_types: INPUT_TYPES.map(str::to_owned).into(),
                ..Default::default()
            },
            document_cache_bytes: 8 << 20,
            persisted_documents: PersistedDocuments::default(),
            persisted_documents_only: false,
            persisted_cache_bytes: 4 << 20,
            federation: false,
            introspection: true,
            max_complexity: 100_000,
        }
    }
}

/// The schema's own input types: async-graphql panics on list defaults of types that do not exist, so only those that do
/// are let through.
const INPUT_TYPES: [&str; 8] = ["AckMode", "Cursor", "DateTime", "Filter", "JSON", "Long", "Overflow", "PublishInput"];

/// What the door needs to know about its server.
#[derive(Clone)]
pub struct Context {
    /// Finds out who connects.
    pub access: Access,
    /// When the server started.
    pub started: Instant,
    /// What WebSockets share.
    pub sockets: Sockets,
    /// The time between two heartbeats of an idle event stream.
    pub heartbeat: Duration,
    /// How long a client may take to send a body.
    pub request_timeout: Duration,
}

/// What handlers know; clones share it.
#[derive(Clone)]
struct Door(Arc<Parts>);

struct Parts {
    context: Context,
    settings: Settings,
    executor: Executor,
    streams: Streams,
}

impl Deref for Door {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What the door counts.
#[derive(Clone)]
pub struct Counts {
    renderings: Arc<Renderings>,
    documents: Arc<Documents>,
}

impl Counts {
    /// The door's metric samples.
    #[must_use]
    pub fn metric_samples(&self) -> Vec<MetricSample> {
        let counter = |name, help, count: &AtomicU64| {
            let value = count.load(Ordering::Relaxed);
            MetricSample { name, label: None, counter: true, help, value }
        };
        vec![
            counter(
                "graphql_renderings_made_total",
                "Messages written as JSON for GraphQL subscribers.",
                &self.renderings.made,
            ),
            counter(
                "graphql_renderings_wanted_total",
                "Renderings delivered to GraphQL subscribers, made or shared.",
                &self.renderings.wanted,
            ),
            MetricSample {
                name: "graphql_document_cache_bytes",
                label: None,
                counter: false,
                help: "Bytes of checked GraphQL documents that are kept, with what was compiled of them.",
                value: self.documents.bytes() as u64,
            },
        ]
    }
}

/// The paths whose errors have GraphQL's form.
pub const PATHS: [&str; 2] = ["/graphql", "/graphql/ws"];

/// The door's routes, the one that is used most without the router, and what the door counts.
pub fn routes(context: Context, settings: Settings) -> (Router, Shortcut, Counts) {
    let (executor, counts) = executor(context.started, &settings);
    let door = Door(Arc::new(Parts { context, settings, executor, streams: Streams::default() }));
    let router = Router::new()
        .route("/graphql", get(http::get).post(http::post).put(http::put).delete(http::delete))
        .route("/graphql/ws", get(http::upgrade))
        .with_state(door.clone());
    let handler = move |visitor: Visitor, request: Request| -> Responding {
        Box::pin(http::post(State(door.clone()), visitor, request))
    };
    (router, Shortcut { method: Method::POST, path: "/graphql", handler: Box::new(handler) }, counts)
}

fn executor(started: Instant, settings: &Settings) -> (Executor, Counts) {
    let validator = Validator::new(schema(started, settings, true));
    let schema = schema(started, settings, false);
    let counts =
        Counts { renderings: Arc::default(), documents: Arc::new(Documents::new(settings.document_cache_bytes)) };
    let Counts { renderings, documents } = counts.clone();
    let persisted = Persisted::new(
        settings.persisted_documents.0.clone(),
        settings.persisted_documents_only,
        settings.persisted_cache_bytes,
    );
    (Executor::new(schema, validator, settings.documents.clone(), documents, persisted, renderings), counts)
}

/// What lies behind the transports, for the tests with random inputs alone.
#[cfg(feature = "test-support")]
#[doc(hidden)]
pub mod fuzz {
    pub use super::{
        document::{Document, DocumentError, OperationFacts, OperationKind, steps_taken},
        execute::{Executor, Outcome, Prepared},
        operation::Operation,
        request::{Asked, Extensions, Unread, Unresolved},
    };

    /// What executes the requests of all transports.
    #[must_use]
    pub fn executor(settings: &super::Settings) -> Executor {
        super::executor(super::Instant::now(), settings).0
    }
}

/// The schema. One that only validates executes nothing.
fn schema(started: Instant, settings: &Settings, validate_only: bool) -> ApiSchema {
    let (query, mutation, subscription) = (Query { started }, Mutation, SubscriptionRoot);
    if settings.federation {
        let builder = Schema::build(SubgraphQuery(query), mutation, subscription);
        ApiSchema::subgraph(bounded(builder, settings, validate_only), settings.max_complexity)
    } else {
        ApiSchema::Plain(bounded(Schema::build(query, mutation, subscription), settings, validate_only).finish())
    }
}

fn bounded<Q: ObjectType + 'static>(
    mut builder: SchemaBuilder<Q, Mutation, SubscriptionRoot>,
    settings: &Settings,
    validate_only: bool,
) -> SchemaBuilder<Q, Mutation, SubscriptionRoot> {
    if validate_only {
        builder = builder.extension(StopBeforeExecution);
    }
    if !settings.introspection {
        // Suggestions in errors would reveal the schema's names, too.
        builder = builder.disable_introspection().disable_suggestions();
    }
    if settings.max_complexity > 0 {
        builder = builder.limit_complexity(settings.max_complexity);
    }
    // `document.rs` has bounded the document already; this only has to let the same through.
    builder.limit_recursive_depth(64)
}

/// The schema as text: the content of `schema.graphql`, or what a router composes.
#[must_use]
pub fn sdl(federation: bool) -> String {
    let settings = Settings { federation, ..Settings::default() };
    let options = SDLExportOptions::new();
    let sdl = match schema(Instant::now(), &settings, false) {
        ApiSchema::Plain(schema) => {
            schema.sdl_with_options(options.sorted_arguments().sorted_enum_items().include_specified_by())
        }
        // As `_service` serves it.
        ApiSchema::Subgraph(schema) => {
            subgraph::with_shared_page_info(&schema.sdl_with_options(options.federation().compose_directive()))
        }
    };
    format!("{}\n", sdl.trim_end())
}
