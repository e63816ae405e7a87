//! Publishing, one by one and in batches.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Context, RestResult, body::Text};
use crate::{
    broker::{Client, Error, NewMessage, Publication, TopicName, publish_all},
    problem::{ErrorBody, ErrorObject, Problem},
    wire::Fields,
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

/// One result of a batch: a `Published`, or an `error` as at the other doors.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum BatchItem {
    Published(Published),
    Refused { error: ErrorObject },
}

fn new_message(client: &Client, fields: &Fields<'_>) -> Result<(TopicName, NewMessage), Error> {
    Ok((TopicName::parse(&fields.required("topic")?)?, fields.new_message(client.settings().max_payload_bytes)?))
}

/// Publishes a message, or several as an array; each item of an array has its own result.
#[utoipa::path(post, path = "/publish", tag = "publish", request_body(content = PublishBody), responses((status = 200, body = PublishResponse), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`, where topics are not made on demand"), (status = 409, body = ErrorBody, description = "`CONFLICT`"), (status = 413, body = ErrorBody, description = "`PAYLOAD_TOO_LARGE`"), (status = 429, body = ErrorBody, description = "`RATE_LIMITED`, with `Retry-After`"), (status = 503, body = ErrorBody, description = "`LIMIT_REACHED`, `UNAVAILABLE`")))]
pub async fn publish(State(context): State<Context>, Text(body): Text) -> RestResult<Response> {
    let client = &context.client;
    if !body.trim_start().starts_with('[') {
        let (topic, new_message) = new_message(client, &Fields::parse("body", &body)?)?;
        return Ok(Json(Published::from(client.publish(&topic, new_message).await?)).into_response());
    }
    let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(&body)
        .map_err(|error| Error::bad_request("body", format!("must be a JSON array of objects ({error})")))?;
    let limit = client.settings().max_batch;
    if items.len() > limit {
        return Err(Error::bad_request("body", format!("must hold at most {limit} messages")).into());
    }
    let begin = |item: &serde_json::value::RawValue| {
        let begun = Fields::parse("body", item.get()).and_then(|fields| new_message(client, &fields));
        begun.map_or_else(|error| Err(error).into(), |(topic, new_message)| client.publish(&topic, new_message))
    };
    let results = publish_all(items.into_iter().map(begin)).await.into_iter().map(|result| match result {
        Ok(done) => BatchItem::Published(done.into()),
        Err(error) => BatchItem::Refused { error: Problem::from(error).object() },
    });
    Ok(Json(BTreeMap::from([("results", results.collect::<Vec<_>>())])).into_response())
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
    Many { results: Vec<BatchItem> },
}
