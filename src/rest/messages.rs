//! A topic's messages: pages of its history, or an event stream.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, State},
    http::{HeaderMap, Method, header, request::Parts},
    response::{IntoResponse, Response},
};
use utoipa::ToSchema;

use super::{
    Context, RestResult,
    body::{Query, TopicPath},
    sse,
};
use crate::{
    access::Caller,
    broker::{BatchLimit, Client, Error, Inbox, Source, Start, TopicName},
    headers::{self, acceptance},
    problem::ErrorBody,
    streaming,
    wire::{self, Options, Spelling},
};

/// The parameters of a page.
const PAGE_PARAMETERS: [&str; 5] = ["last", "last_n", "after", "since", "limit"];
/// What an event stream has in addition.
const STREAM_PARAMETERS: [&str; 6] = ["state", "filter", "consumer", "ack", "consumer_ttl", "overflow"];
/// Stock event stream clients (event-source-polyfill and its kin) add it and expect nothing.
const IGNORED: [&str; 1] = ["evs_preamble"];

/// The two forms that stand at the address of a topic's messages.
const STREAM: (&str, &str) = ("text", "event-stream");
const PAGE: (&str, &str) = ("application", "json");

/// A page of a topic's history, oldest first; with `Accept: text/event-stream`, the topic as server-sent events.
#[utoipa::path(get, path = "/topics/{name}/messages", tag = "messages", params(("name" = String, Path, description = "The topic's name, percent-encoded"), ("last" = Option<u32>, Query, description = "The last so many"), ("last_n" = Option<u32>, Query, description = "Another name of `last`"), ("after" = Option<String>, Query, description = "After this cursor"), ("since" = Option<String>, Query, description = "Published at or after this time (RFC 3339)"), ("limit" = Option<u32>, Query, description = "Of a page: 1 to MAX_BATCH; 100 unless given"), ("state" = Option<bool>, Query, description = "Of a stream: begin with the newest message of each key"), ("filter" = Option<String>, Query, description = "Of a stream: a filter as JSON"), ("consumer" = Option<String>, Query, description = "Of a stream: keep the position under this name"), ("ack" = Option<String>, Query, description = "Of a stream: AUTO or EXPLICIT"), ("consumer_ttl" = Option<String>, Query, description = "Of a stream: how long the consumer is kept while nobody uses it, like 15m; CONSUMER_TTL at most and unless given"), ("overflow" = Option<String>, Query, description = "Of a stream: HISTORY, LATEST, LATEST_PER_KEY or DISCONNECT"), ("Last-Event-ID" = Option<String>, Header, description = "Of a stream: go on after this cursor")), responses((status = 200, content((PageBody = "application/json"), (String = "text/event-stream"))), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`"), (status = 429, body = ErrorBody, description = "`LIMIT_REACHED`: the principal has as many streams and sockets as `max_connections` allows")))]
pub async fn messages(
    State(context): State<Context>,
    Caller(client): Caller,
    TopicPath(name): TopicPath,
    Sent { method, headers }: Sent,
    query: Query,
) -> RestResult<Response> {
    if prefers_stream(&headers) {
        return event_stream(&context, &client, &name, &Sent { method, headers }, &query).await;
    }
    if let Some(name) = STREAM_PARAMETERS.into_iter().find(|name| query.text(name).is_some()) {
        return Err(Error::bad_request(name, "needs an event stream (Accept: text/event-stream)").into());
    }
    query.allow(&PAGE_PARAMETERS)?;
    let topic = TopicName::parse(&name)?;
    let limit = query.limit("limit", client.settings().max_batch)?;
    let start = wire::start_from_text(query.last()?, query.text("after"), query.text("since"))?;
    // A page of large messages ends before `limit`, and `next` leads on.
    let limit = BatchLimit { messages: limit, bytes: 8 << 20 };
    let page = client.history(&topic, start.unwrap_or(Start::Oldest), limit).await?;
    // What was missed before the first message is the page's own gap.
    let gaps = page.with_gaps().enumerate().map(|(index, (message, gap))| (message, gap.filter(|_| index > 0)));
    let messages: Vec<_> = gaps.map(|(message, gap)| wire::message_object(message, gap)).collect();
    let gap = page.gap.as_ref().map(|gap| wire::gap_object(gap, Spelling::SnakeCase));
    let gap = gap.as_deref().unwrap_or("null");
    let body = format!(r#"{{"messages":[{}],"gap":{gap},"next":"{}"}}"#, messages.join(","), page.end);
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::VARY, "accept")], body).into_response())
}

/// The method and the headers of a request.
pub struct Sent {
    method: Method,
    headers: HeaderMap,
}

impl<S: Sync> FromRequestParts<S> for Sent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { method: parts.method.clone(), headers: parts.headers.clone() })
    }
}

/// Whether the client would rather have a stream than a page. Who names both, and prefers neither, gets the stream: a page needs
/// no header.
fn prefers_stream(headers: &HeaderMap) -> bool {
    let (stream, page) = (acceptance(headers, STREAM), acceptance(headers, PAGE));
    // A wildcard that both match is no wish for a stream.
    stream.weight > page.weight || (stream.weight > 0 && stream.weight == page.weight && stream.specificity == 2)
}

async fn event_stream(
    context: &Context,
    client: &Client,
    name: &str,
    Sent { method, headers }: &Sent,
    query: &Query,
) -> RestResult<Response> {
    if query.text("limit").is_some() {
        return Err(Error::bad_request("limit", "is a page's; an event stream has no end").into());
    }
    query.allow(&[&STREAM_PARAMETERS[..], &PAGE_PARAMETERS, &wire::LAST_EVENT_ID_PARAMETERS, &IGNORED].concat())?;
    let header = headers::single(headers, "Last-Event-ID")?;
    let parameters = wire::LAST_EVENT_ID_PARAMETERS.iter().filter_map(|name| query.text(name));
    let resumed = header.into_iter().chain(parameters).find(|id| !id.is_empty());
    let text = |name| Ok(query.text(name).map(Into::into));
    let options = Options::read((query.last()?, query.flag("state")?), text, &client.settings().filter)?;
    let mut request = options.subscribe(Source::parse(name)?)?;
    // A browser that reconnects repeats the address with its first start, so `Last-Event-ID` goes before that.
    if let Some(cursor) = resumed {
        request.resume = Some(wire::parse_position("Last-Event-ID", cursor)?);
    }
    if method == Method::HEAD {
        // HEAD is safe (RFC 9110, 9.2.1): it must not create a topic or a consumer, nor take a consumer over.
        client.check_subscribe(&request).await?;
        return Ok(streaming::head("text/event-stream"));
    }
    let connection = client.connect("event-stream")?;
    let inbox = Inbox::default();
    let subscription = client.subscribe(request, &inbox, 0).await?;
    let stream = sse::TopicStream::new(subscription);
    let body = streaming::body(stream, inbox, context.heartbeat, context.stops.join(), connection);
    Ok(streaming::response("text/event-stream", body))
}

/// A page of history.
#[derive(ToSchema)]
#[expect(dead_code, reason = "written as text from messages as they are; this says in the document what it holds")]
pub struct PageBody {
    /// Oldest first.
    messages: Vec<MessageBody>,
    /// What was missed before the first of them.
    gap: Option<GapBody>,
    /// Ask with `after` set to this for what comes next.
    next: String,
}

/// One message.
#[derive(ToSchema)]
#[expect(dead_code, reason = "written as text from messages as they are; this says in the document what it holds")]
pub struct MessageBody {
    topic: String,
    /// Any JSON value.
    data: serde_json::Value,
    id: String,
    key: Option<String>,
    /// What the publisher gave with the data; absent if nothing.
    headers: Option<std::collections::BTreeMap<String, String>>,
    offset: u64,
    cursor: String,
    /// When it was accepted (RFC 3339).
    published_at: String,
    /// Another name of `published_at`.
    ts: String,
    /// In the midst of a page: what was missed between the message before and this one. Absent when nothing was.
    gap: Option<GapBody>,
}

/// What was missed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "written as text; this says in the document what it holds")]
pub struct GapBody {
    topic: String,
    /// `SLOW_CONSUMER`, `EXPIRED`, `NEW_EPOCH`, `SEEK` or `COMPACTED`.
    reason: String,
    missed: Option<u64>,
    from_offset: u64,
    to_offset: u64,
}
