//! The REST door: routes beside their handlers. Bodies are JSON with `snake_case` keys.

mod body;
mod openapi;
mod sse;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{
    broker::{
        Broker, ConsumerName, Cursor, Draft, Error, Inbox, Publication, Source, Start, Timestamp, TopicInfo, TopicName,
        TopicSettings, Turn,
    },
    problem::{Code, Problem},
    streaming,
    wire::{self, Fields, Options},
};
use body::{Query, Text, TopicPath};

pub use openapi::text as openapi_text;

/// What the door needs to know about its server.
#[derive(Clone)]
pub struct Context {
    /// The broker behind the door.
    pub broker: Broker,
    /// When the server started.
    pub started: Instant,
    /// How many connections are open.
    pub connections: Arc<dyn Fn() -> usize + Send + Sync>,
    /// How long an event stream may be silent.
    pub heartbeat: Duration,
    /// How long a client may take to send a body.
    pub request_timeout: Duration,
    /// When cancelled, event streams end.
    pub stop: CancellationToken,
}

/// The door's routes.
pub fn routes(context: Context) -> Router {
    Router::new()
        .route("/topics", get(list_topics).post(create_topic))
        .route("/topics/{name}", get(get_topic).delete(delete_topic).patch(update_topic))
        .route("/topics/{name}/messages", get(messages))
        .route("/topics/{name}/consumers", get(list_consumers))
        .route("/topics/{name}/consumers/{consumer}", axum::routing::delete(delete_consumer))
        .route("/topics/{name}/consumers/{consumer}/ack", post(acknowledge))
        .route("/publish", post(publish))
        .route("/stats", get(stats))
        .route("/health", get(health))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/openapi.json", get(|| async { Json(openapi::document()) }))
        .with_state(context)
}

type Answer<T> = Result<T, Problem>;

/// A topic as REST shows it.
#[derive(Serialize, ToSchema)]
pub(crate) struct TopicBody {
    /// Its name.
    name: String,
    /// Live subscriptions.
    subscribers: usize,
    /// Messages kept.
    messages: usize,
    /// When it was made (RFC 3339).
    created_at: String,
    /// When its newest message was published; null without any.
    last_message_at: Option<String>,
    /// Its life: another after deleting and creating again.
    epoch: String,
    /// The newest offset; 0 without any message.
    last_offset: u64,
    /// The bound of its history in messages.
    max_messages: usize,
    /// Messages a second that may be published; 0 = no limit.
    max_publish_rate: u32,
    /// Made by a publish or subscribe; goes away when unused.
    implicit: bool,
}

impl From<TopicInfo> for TopicBody {
    fn from(info: TopicInfo) -> Self {
        Self {
            name: info.name.to_string(),
            subscribers: info.subscribers,
            messages: info.messages,
            created_at: info.created_at.to_string(),
            last_message_at: info.last_published_at.map(|at| at.to_string()),
            epoch: info.epoch.to_string(),
            last_offset: info.last_offset,
            max_messages: info.max_messages,
            max_publish_rate: info.max_publish_rate,
            implicit: info.implicit,
        }
    }
}

/// What was done to a topic.
#[derive(Serialize, ToSchema)]
pub(crate) struct TopicDone {
    /// `created`, `updated` or `deleted`.
    status: &'static str,
    /// The topic's name.
    topic: String,
    /// The bound of its history in messages.
    max_messages: usize,
    /// Messages a second that may be published; 0 = no limit.
    max_publish_rate: u32,
    /// When it was made (RFC 3339).
    created_at: String,
}

impl TopicDone {
    fn new(status: &'static str, info: &TopicInfo) -> Json<Self> {
        Json(Self {
            status,
            topic: info.name.to_string(),
            max_messages: info.max_messages,
            max_publish_rate: info.max_publish_rate,
            created_at: info.created_at.to_string(),
        })
    }
}

fn topic_settings(fields: &Fields<'_>) -> Result<TopicSettings, Error> {
    Ok(TopicSettings {
        max_messages: fields.number("max_messages", usize::MAX)?,
        max_publish_rate: fields.number("max_publish_rate", u32::MAX)?,
    })
}

async fn create_topic(State(context): State<Context>, Text(body): Text) -> Answer<impl IntoResponse> {
    let fields = Fields::parse("body", &body)?;
    let name = TopicName::parse(&fields.required("name")?)?;
    let info = context.broker.create_topic(&name, topic_settings(&fields)?)?;
    Ok((StatusCode::CREATED, TopicDone::new("created", &info)))
}

async fn update_topic(
    State(context): State<Context>,
    TopicPath(name): TopicPath,
    Text(body): Text,
) -> Answer<Json<TopicDone>> {
    let settings = topic_settings(&Fields::parse("body", &body)?)?;
    Ok(TopicDone::new("updated", &context.broker.update_topic(&TopicName::parse(&name)?, settings)?))
}

/// Topics by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct TopicList {
    topics: Vec<TopicBody>,
    /// Ask again with `after` set to this for the next ones; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

async fn list_topics(State(context): State<Context>, query: Query) -> Answer<Json<TopicList>> {
    let limit = query.limit("limit", context.broker.settings().max_batch)?;
    let (topics, more) =
        context.broker.topics(query.text("prefix").unwrap_or_default(), query.text("after"), limit);
    let next = topics.last().filter(|_| more).map(|last| last.name.to_string());
    Ok(Json(TopicList { topics: topics.into_iter().map(TopicBody::from).collect(), next }))
}

async fn get_topic(State(context): State<Context>, TopicPath(name): TopicPath) -> Answer<Json<TopicBody>> {
    Ok(Json(context.broker.topic(&TopicName::parse(&name)?)?.into()))
}

async fn delete_topic(State(context): State<Context>, TopicPath(name): TopicPath) -> Answer<Json<TopicDone>> {
    Ok(TopicDone::new("deleted", &context.broker.delete_topic(&TopicName::parse(&name)?)?))
}

/// Where a published message stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct Published {
    /// `published`.
    status: &'static str,
    /// The topic's name.
    topic: String,
    /// The message's id: the given one, else a new one.
    id: String,
    /// Its offset in the topic.
    offset: u64,
    /// Its place, for `after`.
    cursor: String,
    /// Whether the id was published before; this is then the first one's place.
    duplicate: bool,
}

impl From<Publication> for Published {
    fn from(done: Publication) -> Self {
        Self {
            status: "published",
            topic: done.topic.to_string(),
            id: done.id.as_str().to_owned(),
            offset: done.cursor.offset,
            cursor: done.cursor.to_string(),
            duplicate: done.duplicate,
        }
    }
}

/// One result of a batch: a `Published`, or an `error` as at the other doors.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BatchItem {
    Published(Published),
    Refused { error: BatchError },
}

#[derive(Serialize, ToSchema)]
pub(crate) struct BatchError {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_offset: Option<u64>,
}

impl From<Problem> for BatchError {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code.as_str(),
            message: problem.message.into_owned(),
            retry_after_ms: problem.retry_after.and_then(|wait| u64::try_from(wait.as_millis()).ok()),
            current_offset: problem.current_offset,
        }
    }
}

fn draft(broker: &Broker, fields: &Fields<'_>) -> Result<(TopicName, Draft), Error> {
    Ok((TopicName::parse(&fields.required("topic")?)?, fields.draft(broker.settings().max_payload_bytes)?))
}

async fn publish(State(context): State<Context>, Text(body): Text) -> Answer<Response> {
    let broker = &context.broker;
    if !body.trim_start().starts_with('[') {
        let (topic, draft) = draft(broker, &Fields::parse("body", &body)?)?;
        return Ok(Json(Published::from(broker.publish(&topic, draft)?)).into_response());
    }
    let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(&body)
        .map_err(|error| Error::bad_request("body", format!("must be a JSON array of objects ({error})")))?;
    let limit = broker.settings().max_batch;
    if items.len() > limit {
        return Err(Error::bad_request("body", format!("must hold at most {limit} messages")).into());
    }
    let publish = |item: &serde_json::value::RawValue| {
        let (topic, draft) = draft(broker, &Fields::parse("body", item.get())?)?;
        broker.publish(&topic, draft)
    };
    let results = items.into_iter().map(|item| match publish(item) {
        Ok(done) => BatchItem::Published(done.into()),
        Err(error) => BatchItem::Refused { error: Problem::from(error).into() },
    });
    Ok(Json(BTreeMap::from([("results", results.collect::<Vec<_>>())])).into_response())
}

async fn messages(
    State(context): State<Context>,
    TopicPath(name): TopicPath,
    headers: HeaderMap,
    query: Query,
) -> Answer<Response> {
    let accepts = |kind: &str| {
        let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.split(';').next().unwrap_or_default().trim() == kind)
    };
    if accepts("text/event-stream") {
        return event_stream(&context, &name, &headers, &query);
    }
    let topic = TopicName::parse(&name)?;
    let limit = query.limit("limit", context.broker.settings().max_batch)?;
    let start = wire::start(query.number("last")?, query.text("after"), query.text("since"))?;
    let start = match start {
        // The last ones that fit a page, not the first of many.
        Some(Start::Last(count)) => Start::Last(count.min(u32::try_from(limit).unwrap_or(u32::MAX))),
        start => start.unwrap_or(Start::Oldest),
    };
    // A page of large messages ends early; `next` goes on.
    let page = context.broker.history(&topic, start, Turn { messages: limit, bytes: 8 << 20 })?;
    let messages: Vec<_> = page.messages.iter().map(|message| wire::message_object(message)).collect();
    let gap = page.gap.as_ref().map_or_else(|| "null".to_owned(), wire::gap_object);
    let body = format!(r#"{{"messages":[{}],"gap":{gap},"next":"{}"}}"#, messages.join(","), page.end);
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn event_stream(context: &Context, name: &str, headers: &HeaderMap, query: &Query) -> Answer<Response> {
    let resumed = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?")).filter(|id| !id.is_empty());
    let text = |name| query.text(name).map(Into::into);
    let options = Options {
        // A browser repeats its address when it reconnects: where it was goes before where it began.
        last: if resumed.is_some() { None } else { query.number("last")? },
        after: resumed.or(query.text("after")).map(Into::into),
        since: if resumed.is_some() { None } else { text("since") },
        filter: text("filter"),
        consumer: text("consumer"),
        ack: text("ack"),
        overflow: text("overflow"),
    };
    let mut request = options.subscribe(name, &context.broker.settings().filter)?;
    if let (Source::Pattern(_), Some(Start::After(_)), Some(_)) = (&request.source, &request.start, resumed) {
        // A pattern's stream can only be resumed by a consumer; the browser cannot leave its header out.
        request.start = None;
    }
    if resumed.is_some() && let (Source::Topic(_), Some((consumer, _)), Some(Start::After(cursor))) = (&request.source, &request.consumer, &request.start) {
        // What the client says it has seen is the truest acknowledgement there is.
        let _ = context.broker.acknowledge(&request.source, consumer, *cursor);
    }
    let inbox = Inbox::default();
    let subscription = context.broker.subscribe(request, &inbox, 0)?;
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    let stream = sse::Stream::new(subscription);
    let body = streaming::body(stream, inbox, context.heartbeat, context.stop.clone(), ());
    // nginx buffers answers unless told otherwise, which would hold events back.
    Ok((headers, [("x-accel-buffering", "no")], body).into_response())
}

/// A named consumer.
#[derive(Serialize, ToSchema)]
pub(crate) struct ConsumerBody {
    name: String,
    /// `AUTO` or `EXPLICIT`.
    ack: &'static str,
    /// Whether a subscription is live.
    connected: bool,
    /// When it was last used (RFC 3339).
    last_used_at: String,
    /// Its position in each topic.
    positions: Vec<PositionBody>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct PositionBody {
    topic: String,
    cursor: String,
    offset: u64,
}

async fn list_consumers(
    State(context): State<Context>,
    TopicPath(name): TopicPath,
) -> Answer<Json<BTreeMap<&'static str, Vec<ConsumerBody>>>> {
    let source = Source::parse(&name)?;
    if let Source::Topic(name) = &source {
        context.broker.topic(name)?;
    }
    let consumers = context.broker.consumers(&source).into_iter().map(|status| ConsumerBody {
        name: status.name.as_str().to_owned(),
        ack: status.ack.code(),
        connected: status.connected,
        last_used_at: status.last_used_at.to_string(),
        positions: status.positions.into_iter().map(|(topic, cursor)| position(&topic, cursor)).collect(),
    });
    Ok(Json(BTreeMap::from([("consumers", consumers.collect())])))
}

fn position(topic: &TopicName, cursor: Cursor) -> PositionBody {
    PositionBody { topic: topic.to_string(), cursor: cursor.to_string(), offset: cursor.offset }
}

async fn delete_consumer(
    State(context): State<Context>,
    body::ConsumerPath(topic, consumer): body::ConsumerPath,
) -> Answer<Json<serde_json::Value>> {
    context.broker.delete_consumer(&Source::parse(&topic)?, &ConsumerName::parse(&consumer)?)?;
    Ok(Json(serde_json::json!({"status": "deleted", "topic": topic, "consumer": consumer})))
}

async fn acknowledge(
    State(context): State<Context>,
    body::ConsumerPath(topic, consumer): body::ConsumerPath,
    Text(body): Text,
) -> Answer<Json<serde_json::Value>> {
    let fields = Fields::parse("body", &body)?;
    let cursor = wire::parse_cursor("cursor", &fields.required("cursor")?)?;
    context.broker.acknowledge(&Source::parse(&topic)?, &ConsumerName::parse(&consumer)?, cursor)?;
    Ok(Json(serde_json::json!({"status": "acknowledged", "topic": topic, "consumer": consumer, "cursor": cursor.to_string()})))
}

/// Topics listed one by one in the statistics; a server with more says so.
const STATS_TOPICS: usize = 10_000;

/// Numbers about the whole server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Stats {
    total_topics: usize,
    /// Messages that all listed topics keep.
    total_messages: usize,
    /// Messages accepted since the start.
    total_published: u64,
    /// Live subscriptions.
    total_subscribers: usize,
    /// Connections that are open.
    active_connections: usize,
    /// Bytes that all histories take in memory.
    history_bytes: usize,
    uptime_seconds: u64,
    /// At most 10,000, in the order of their names.
    topics: BTreeMap<String, TopicStats>,
    generated_at: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct TopicStats {
    name: String,
    messages: usize,
    subscribers: usize,
    created_at: String,
    last_message_at: Option<String>,
}

async fn stats(State(context): State<Context>) -> Json<Stats> {
    let totals = context.broker.totals();
    let (topics, _) = context.broker.topics("", None, STATS_TOPICS);
    let topics: BTreeMap<_, _> = topics
        .into_iter()
        .map(|info| {
            let stats = TopicStats {
                name: info.name.to_string(),
                messages: info.messages,
                subscribers: info.subscribers,
                created_at: info.created_at.to_string(),
                last_message_at: info.last_published_at.map(|at| at.to_string()),
            };
            (stats.name.clone(), stats)
        })
        .collect();
    Json(Stats {
        total_topics: totals.topics,
        total_messages: totals.messages,
        total_published: totals.published,
        total_subscribers: totals.subscriptions,
        active_connections: (context.connections)(),
        history_bytes: totals.history_bytes,
        uptime_seconds: context.started.elapsed().as_secs(),
        topics,
        generated_at: Timestamp::now().to_string(),
    })
}

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, or `draining` while the server stops.
    status: &'static str,
    uptime_sec: u64,
    topics: usize,
    /// Live subscriptions.
    subscribers: usize,
    version: &'static str,
}

async fn health(State(context): State<Context>) -> Json<Health> {
    let totals = context.broker.totals();
    Json(Health {
        status: if context.broker.is_draining() { "draining" } else { "ok" },
        uptime_sec: context.started.elapsed().as_secs(),
        topics: totals.topics,
        subscribers: totals.subscriptions,
        version: env!("CARGO_PKG_VERSION"),
    })
}

async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({"status": "ok"}))
}

async fn ready(State(context): State<Context>) -> Answer<Json<serde_json::Value>> {
    if context.broker.is_draining() {
        return Err(Problem::new(Code::Unavailable, "the server is shutting down"));
    }
    Ok(Json(serde_json::json!({"status": "ready"})))
}
