//! Named consumers: listing, acknowledging, deleting.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    RestResult,
    body::{NamedPath, NoQuery, Query, Text, TopicPath, fields},
    subscriptions::milliseconds,
};
use crate::{
    access::Caller,
    broker::{ConsumerLag, ConsumerName, Cursor, Source, TopicName},
    problem::ErrorBody,
    wire,
};

/// A named consumer.
#[derive(Serialize, ToSchema)]
pub struct ConsumerBody {
    name: String,
    /// The name of the principal whom it belongs to, on a server with access rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
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
pub struct PositionBody {
    topic: String,
    cursor: String,
    offset: u64,
    /// Messages of the topic behind it, as far as this instance knows them.
    lag: u64,
    /// For how many milliseconds the oldest of them that is kept has waited.
    lag_ms: u64,
}

/// The named consumers of a topic or pattern, by name.
#[utoipa::path(get, path = "/topics/{name}/consumers", tag = "consumers", params(("name" = String, Path, description = "The topic's name, percent-encoded")), responses((status = 200, body = ConsumerList), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`")))]
pub async fn list_consumers(
    Caller(client): Caller,
    TopicPath(name): TopicPath,
    _: NoQuery,
) -> RestResult<Json<ConsumerList>> {
    let source = Source::parse(&name)?;
    if let Source::Topic(name) = &source {
        client.topic(name).await?;
    }
    let consumers = client.consumers(&source).await?.into_iter().map(|status| ConsumerBody {
        name: status.name.name().to_owned(),
        owner: status.name.owner().map(str::to_owned),
        ack: status.position.ack.code(),
        connected: status.connected,
        last_used_at: status.position.used_at.to_string(),
        positions: status.position.cursors.into_iter().zip(status.lags).map(position).collect(),
    });
    Ok(Json(ConsumerList { consumers: consumers.collect() }))
}

fn position(((topic, cursor), lag): ((TopicName, Cursor), ConsumerLag)) -> PositionBody {
    PositionBody {
        topic: topic.to_string(),
        cursor: cursor.to_string(),
        offset: cursor.offset,
        lag: lag.messages,
        lag_ms: milliseconds(lag.time),
    }
}

/// Deletes a consumer and its position; a live subscription of it ends.
#[utoipa::path(delete, path = "/topics/{name}/consumers/{consumer}", tag = "consumers", params(("name" = String, Path, description = "The topic's name, percent-encoded"), ("consumer" = String, Path, description = "The consumer's name, percent-encoded"), ("owner" = Option<String>, Query, description = "The principal whom it belongs to; one's own unless given, or the only one of the name among those that one manages")), responses((status = 200, body = ConsumerDone), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`NOT_FOUND`")))]
pub async fn delete_consumer(
    Caller(client): Caller,
    NamedPath(topic, consumer): NamedPath,
    query: Query,
) -> RestResult<Json<ConsumerDone>> {
    query.allow(&["owner"])?;
    let (source, name) = (Source::parse(&topic)?, ConsumerName::parse(&consumer)?);
    client.delete_consumer(&source, &name, query.text("owner")).await?;
    Ok(Json(ConsumerDone { status: "deleted", topic, consumer, cursor: None }))
}

/// Moves a consumer's position behind a cursor.
#[utoipa::path(post, path = "/topics/{name}/consumers/{consumer}/ack", tag = "consumers", params(("name" = String, Path, description = "The topic's name, percent-encoded"), ("consumer" = String, Path, description = "The consumer's name, percent-encoded")), request_body(content = AckBody), responses((status = 200, body = ConsumerDone), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`NOT_FOUND`")))]
pub async fn acknowledge(
    Caller(client): Caller,
    NamedPath(topic, consumer): NamedPath,
    _: NoQuery,
    body: Text,
) -> RestResult<Json<ConsumerDone>> {
    let fields = fields(body.as_str()?, &["cursor", "owner"])?;
    let cursor = wire::parse_cursor("cursor", &fields.required("cursor")?)?;
    let owner = fields.text("owner")?;
    let (source, name) = (Source::parse(&topic)?, ConsumerName::parse(&consumer)?);
    client.acknowledge(&source, &name, owner.as_deref(), cursor).await?;
    Ok(Json(ConsumerDone { status: "acknowledged", topic, consumer, cursor: Some(cursor.to_string()) }))
}

/// Moves a consumer to another position, forward or back. A live subscription of it goes on from there by itself; what it passes
/// over by that is told as a gap with reason `SEEK`.
#[utoipa::path(post, path = "/topics/{name}/consumers/{consumer}/seek", tag = "consumers", params(("name" = String, Path, description = "The topic's name or the pattern, percent-encoded"), ("consumer" = String, Path, description = "The consumer's name, percent-encoded")), request_body(content = SeekBody), responses((status = 200, body = ConsumerDone), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`, `NOT_FOUND`")))]
pub async fn seek(
    Caller(client): Caller,
    NamedPath(topic, consumer): NamedPath,
    _: NoQuery,
    body: Text,
) -> RestResult<Json<ConsumerDone>> {
    let fields = fields(body.as_str()?, &["after", "since", "last", "owner"])?;
    let since = fields.text("since")?.map(|time| time.parse()).transpose()?;
    let to = wire::seek_target(fields.number("last", u32::MAX)?, fields.text("after")?.as_deref(), since)?;
    let owner = fields.text("owner")?;
    let (source, name) = (Source::parse(&topic)?, ConsumerName::parse(&consumer)?);
    let moved = client.seek_consumer(&source, &name, owner.as_deref(), to).await?;
    Ok(Json(ConsumerDone { status: "moved", topic, consumer, cursor: Some(moved.to_string()) }))
}

/// Named consumers.
#[derive(Serialize, ToSchema)]
pub struct ConsumerList {
    consumers: Vec<ConsumerBody>,
}

/// What was done to a consumer.
#[derive(Serialize, ToSchema)]
pub struct ConsumerDone {
    /// `deleted`, `acknowledged` or `moved`.
    status: &'static str,
    /// The topic or pattern.
    topic: String,
    consumer: String,
    /// The cursor that was acknowledged, or the one after which the consumer goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// What is acknowledged.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read field by field; this says in the document what they hold")]
pub struct AckBody {
    /// The cursor of the last message processed.
    cursor: String,
    /// The principal whom the consumer belongs to: the one that acknowledges unless given, else one whose topic it manages.
    owner: Option<String>,
}

/// Where a consumer is moved: exactly one of `after`, `since` and `last`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read field by field; this says in the document what they hold")]
pub struct SeekBody {
    /// Behind this position: a message's own cursor, or, of a pattern, a pattern cursor.
    after: Option<String>,
    /// Before the first message published at or after this time (RFC 3339).
    since: Option<String>,
    /// Before the last so many kept messages; 0 is the end.
    last: Option<u32>,
    /// The principal whom the consumer belongs to: the one that moves it unless given, else one whose topic it manages.
    owner: Option<String>,
}
