//! Publishing, one by one and in batches.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Context, RestResult,
    body::{NamedPath, Query, Text, check_no_query, fields},
};
use crate::{
    access::{Caller, Visitor},
    broker::{Client, Cursor, Error, NewMessage, Payload, Publication, TopicName, quote},
    problem::{ErrorBody, ErrorObject, Problem},
    wire::{self, BesideData, UnknownFields},
};

/// The position of a published message.
#[derive(Serialize, ToSchema)]
pub struct Published {
    /// `published`.
    status: &'static str,
    /// The topic's name.
    topic: String,
    /// The message's id: the given one, else a new one.
    id: String,
    /// Its offset in the topic.
    offset: u64,
    /// Its position, for `after`.
    cursor: String,
    /// Whether the id was published before; the position is then that of the first message.
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

/// The response with a [`Published`], written without one.
fn published(done: &Publication) -> Response {
    let (topic, id) = (done.topic.as_str(), done.id.as_str());
    let mut body = String::with_capacity(160 + topic.len() + id.len());
    body.push_str(r#"{"status":"published","topic":"#);
    quote(topic, &mut body);
    body.push_str(r#","id":"#);
    quote(id, &mut body);
    let Cursor { offset, .. } = done.cursor;
    // Writing to a String cannot fail.
    let _ = write!(body, r#","offset":{offset},"cursor":"{}","duplicate":{}}}"#, done.cursor, done.duplicate);
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// One result of a batch: a `Published`, or an `error` as at the other doors.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum BatchItem {
    Published(Published),
    Refused { error: ErrorObject },
}

/// Several results, in the order of the messages.
#[derive(Serialize, ToSchema)]
pub struct BatchBody {
    /// How many were published, those that were duplicates included.
    published: usize,
    /// How many were refused.
    refused: usize,
    results: Vec<BatchItem>,
}

/// A batch of which every message was refused: the first one's error, and each one's own.
#[derive(Serialize, ToSchema)]
pub struct RefusedBatch {
    #[serde(flatten)]
    error: ErrorBody,
    #[serde(flatten)]
    batch: BatchBody,
}

impl BatchBody {
    fn new(results: Vec<Result<Publication, Problem>>) -> Self {
        let count = results.len();
        let refused = results.iter().filter(|result| result.is_err()).count();
        let results = results.into_iter().map(|result| match result {
            Ok(done) => BatchItem::Published(done.into()),
            Err(problem) => BatchItem::Refused { error: problem.object() },
        });
        Self { published: count - refused, refused, results: results.collect() }
    }
}

/// 200 where all were published, 207 where some were, and the first one's own error where none was, so that a client that
/// looks at the status alone misses nothing.
fn batch_response(results: Vec<Result<Publication, Problem>>) -> Response {
    let first = results.first().and_then(|result| result.as_ref().err()).cloned();
    let batch = BatchBody::new(results);
    match first {
        _ if batch.refused == 0 => Json(batch).into_response(),
        Some(first) if batch.published == 0 => {
            let mut response = (first.status(), Json(RefusedBatch { error: first.body(), batch })).into_response();
            first.add_headers(response.headers_mut());
            response
        }
        _ => (StatusCode::MULTI_STATUS, Json(batch)).into_response(),
    }
}

fn new_message(client: &Client, text: &str) -> Result<(TopicName, NewMessage), Error> {
    const KNOWN: [&str; 10] =
        ["topic", "data", "message", "id", "key", "expected_offset", "headers", "ttl", "expected_key_offset", "remove"];
    let fields = fields(text, &KNOWN)?;
    let topic = TopicName::parse(&fields.required("topic")?)?;
    Ok((topic, fields.new_message(UnknownFields::Refused, client.settings().max_payload_bytes)?))
}

/// Publishes a message, or several as an array; each item of an array has its own result. Unknown fields are refused.
#[utoipa::path(post, path = "/publish", tag = "publish", request_body(content = PublishBody), responses((status = 200, body = PublishResponse), (status = 207, body = BatchBody, description = "Some messages of a batch were refused. Where all were, the response has the status and headers of the first one's error, and `RefusedBatch` as its body"), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`, where topics are not made on demand"), (status = 409, body = ErrorBody, description = "`CONFLICT`"), (status = 413, body = ErrorBody, description = "`PAYLOAD_TOO_LARGE`"), (status = 429, body = ErrorBody, description = "`RATE_LIMITED`, of the topic or of the client, with `Retry-After`"), (status = 503, body = ErrorBody, description = "`LIMIT_REACHED`, `UNAVAILABLE`")))]
pub async fn publish(State(context): State<Context>, visitor: Visitor, request: Request) -> RestResult<Response> {
    respond(visitor, request, context.request_timeout).await
}

/// The response to a request to publish, whose body may take so long to arrive.
pub async fn respond(visitor: Visitor, request: Request, within: Duration) -> RestResult<Response> {
    let client = &visitor.client()?;
    check_no_query(request.uri())?;
    let body = Text::read(request, within).await?;
    let body = body.as_str()?;
    if !body.trim_start().starts_with('[') {
        let (topic, new_message) = new_message(client, body)?;
        return Ok(published(&client.publish(&topic, new_message).await?));
    }
    let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(body)
        .map_err(|error| Error::bad_request("body", format!("must be a JSON array of objects ({error})")))?;
    let limit = client.settings().max_batch;
    if items.len() > limit {
        return Err(Error::bad_request("body", format!("must hold at most {limit} messages")).into());
    }
    let results = client.publish_many(items.into_iter().map(|item| new_message(client, item.get()))).await;
    Ok(batch_response(results.into_iter().map(|result| result.map_err(Problem::from)).collect()))
}

/// Removes a key: publishes that it has no value any more. A key that has none may be removed, too.
#[utoipa::path(delete, path = "/topics/{name}/state/{key}", tag = "publish", params(("name" = String, Path, description = "The topic's name, percent-encoded"), ("key" = String, Path, description = "The key, percent-encoded"), ("id" = Option<String>, Query, description = "Makes removing idempotent. 1 to 255 bytes"), ("expected_offset" = Option<u64>, Query, description = "Remove only if this is the topic's newest offset"), ("expected_key_offset" = Option<u64>, Query, description = "Remove only if this is the newest offset of the key; 0 means that no message of it is kept")), responses((status = 200, body = Published), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`, where topics are not made on demand"), (status = 409, body = ErrorBody, description = "`CONFLICT`"), (status = 429, body = ErrorBody, description = "`RATE_LIMITED`, of the topic or of the client, with `Retry-After`"), (status = 503, body = ErrorBody, description = "`LIMIT_REACHED`, `UNAVAILABLE`")))]
pub async fn remove_key(
    Caller(client): Caller,
    NamedPath(topic, key): NamedPath,
    query: Query,
) -> RestResult<Response> {
    query.allow(&["id", "expected_offset", "expected_key_offset"])?;
    let removal = BesideData {
        id: query.text("id"),
        key: Some(&key),
        expected_offset: query.offset("expected_offset")?,
        expected_key_offset: query.offset("expected_key_offset")?,
        remove: true,
        ..BesideData::default()
    };
    let (topic, removal) = (TopicName::parse(&topic)?, wire::new_message(Payload::null(), removal)?);
    Ok(published(&client.publish(&topic, removal).await?))
}

/// One message, or an array of them.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "bodies are read field by field; this says in the document what they hold")]
pub enum PublishBody {
    One(PublishItem),
    Many(Vec<PublishItem>),
}

/// What is published.
#[derive(Serialize, ToSchema)]
pub struct PublishItem {
    /// The topic's name.
    topic: String,
    /// Any JSON value.
    data: Option<serde_json::Value>,
    /// In place of `data` and `id`.
    message: Option<PublishMessage>,
    /// Makes publishing idempotent. 1 to 255 bytes.
    id: Option<String>,
    /// For filters and for keeping the latest of each key. 1 to 255 bytes.
    key: Option<String>,
    /// Publish only if this is the topic's newest offset.
    expected_offset: Option<u64>,
    /// What goes with the data, such as `traceparent`: at most 32 strings, names of 1 to 64 letters, digits and `-_.` (and other
    /// characters of a token), values of at most 1,024 bytes, all together at most 4,096 bytes as JSON.
    headers: Option<BTreeMap<String, String>>,
    /// How long the message is kept at most, like `30s` or `24h`.
    ttl: Option<String>,
    /// Publish only if this is the newest offset of the key; 0 means that no message of it is kept.
    expected_key_offset: Option<u64>,
    /// Whether it removes its key, which then has no value any more. `data` is null then, or absent.
    remove: Option<bool>,
}

/// A message with its id.
#[derive(Serialize, ToSchema)]
pub struct PublishMessage {
    id: Option<String>,
    /// Any JSON value.
    payload: serde_json::Value,
}

/// One result, or one for each item.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "one of two bodies; this says in the document which")]
pub enum PublishResponse {
    One(Published),
    Many(BatchBody),
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    /// However it is written, the body is the one that the document of the API describes.
    #[tokio::test]
    async fn one_body() {
        let client = Client::in_memory(crate::broker::Settings::default());
        for (topic, id) in [("news", None), ("\"a\\b\" ü", Some("id \"1\""))] {
            let new_message = wire::BesideData { id, ..Default::default() };
            let new_message = wire::new_message(Payload::parse("1", 10).unwrap(), new_message).unwrap();
            let done = client.publish(&TopicName::parse(topic).unwrap(), new_message).await.unwrap();
            let response = published(&done);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
            let body = to_bytes(response.into_body(), 1_000).await.unwrap();
            assert_eq!(body, serde_json::to_vec(&Published::from(done)).unwrap());
        }
    }
}
