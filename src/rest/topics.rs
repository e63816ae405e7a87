//! Topics: creating, listing, changing, deleting.

use axum::{Json, http::StatusCode, response::IntoResponse};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    RestResult,
    body::{NoQuery, Query, Text, TopicPath, fields},
};
use crate::{
    access::Caller,
    broker::{Age, Error, Retention, TopicConfig, TopicInfo, TopicName},
    problem::ErrorBody,
    wire::{self, Fields},
};

/// A topic as REST shows it.
#[derive(Serialize, ToSchema)]
pub struct TopicBody {
    /// Its name.
    name: String,
    /// Messages kept; with `LATEST_PER_KEY`, the keys that have a value.
    message_count: usize,
    /// Live subscriptions.
    subscriber_count: usize,
    /// Another name of `message_count`.
    messages: usize,
    /// Another name of `subscriber_count`.
    subscribers: usize,
    /// When it was made (RFC 3339).
    created_at: String,
    /// When its newest message was published; null without any.
    last_published_at: Option<String>,
    /// Another name of `last_published_at`.
    last_message_at: Option<String>,
    /// Its incarnation: another after deleting and creating again.
    epoch: String,
    /// The newest offset; 0 without any message.
    last_offset: u64,
    /// The bound of its history in messages.
    max_messages: usize,
    /// Messages a second that may be published; 0 = no limit.
    max_publish_rate: u32,
    /// Made by a publish or subscribe; goes away when unused.
    implicit: bool,
    /// How old its messages may become, like `24h`; `0s` = no limit.
    max_age: String,
    /// Which of its messages are kept: `HISTORY` or `LATEST_PER_KEY`.
    retention: &'static str,
    /// With `LATEST_PER_KEY`: how many keys may have a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_keys: Option<usize>,
    /// After how long without a message the topic is said to be silent, such as `5m`; absent where it is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expect_every: Option<String>,
    /// With `expect_every`: whether nothing was published for longer than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    silent: Option<bool>,
}

impl From<TopicInfo> for TopicBody {
    fn from(info: TopicInfo) -> Self {
        let last_published_at = info.last_published_at.map(|at| at.to_string());
        Self {
            name: info.name.to_string(),
            message_count: info.messages,
            subscriber_count: info.subscribers,
            messages: info.messages,
            subscribers: info.subscribers,
            created_at: info.created_at.to_string(),
            last_published_at: last_published_at.clone(),
            last_message_at: last_published_at,
            epoch: info.epoch.to_string(),
            last_offset: info.last_offset,
            max_messages: info.bounds.max_messages,
            max_publish_rate: info.bounds.max_publish_rate,
            implicit: info.implicit,
            max_age: info.bounds.max_age.to_string(),
            retention: info.bounds.retention.code(),
            max_keys: (info.bounds.retention == Retention::LatestPerKey).then_some(info.bounds.max_keys),
            expect_every: info.bounds.expect_every.map(wire::duration_text),
            silent: info.bounds.expect_every.map(|_| info.silent),
        }
    }
}

/// What was done to a topic.
#[derive(Serialize, ToSchema)]
pub struct TopicDone {
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
    /// How old its messages may become, like `24h`; `0s` = no limit.
    max_age: String,
    /// Which of its messages are kept: `HISTORY` or `LATEST_PER_KEY`.
    retention: &'static str,
}

impl TopicDone {
    fn new(status: &'static str, info: &TopicInfo) -> Json<Self> {
        Json(Self {
            status,
            topic: info.name.to_string(),
            max_messages: info.bounds.max_messages,
            max_publish_rate: info.bounds.max_publish_rate,
            created_at: info.created_at.to_string(),
            max_age: info.bounds.max_age.to_string(),
            retention: info.bounds.retention.code(),
        })
    }
}

fn topic_settings(fields: &Fields<'_>) -> Result<TopicConfig, Error> {
    Ok(TopicConfig {
        max_messages: fields.number("max_messages", usize::MAX)?,
        max_publish_rate: fields.number("max_publish_rate", u32::MAX)?,
        max_age: fields.text("max_age")?.map(|age| Age::parse("max_age", &age)).transpose()?,
        expect_every: fields
            .text("expect_every")?
            .map(|text| wire::parse_milliseconds("expect_every", &text))
            .transpose()?,
        retention: fields.text("retention")?.map(|text| Retention::parse(&text)).transpose()?,
        max_keys: fields.number("max_keys", usize::MAX)?,
    })
}

/// Creates a topic; one that exists only implicitly is adopted.
#[utoipa::path(post, path = "/topics", tag = "topics", request_body(content = CreateTopic), responses((status = 201, body = TopicDone), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 409, body = ErrorBody, description = "`TOPIC_EXISTS`"), (status = 503, body = ErrorBody, description = "`LIMIT_REACHED`, `UNAVAILABLE`")))]
pub async fn create_topic(Caller(client): Caller, _: NoQuery, body: Text) -> RestResult<impl IntoResponse> {
    let known = ["name", "max_messages", "max_publish_rate", "max_age", "expect_every", "retention", "max_keys"];
    let fields = fields(body.as_str()?, &known)?;
    let name = TopicName::parse(&fields.required("name")?)?;
    let info = client.create_topic(&name, topic_settings(&fields)?).await?;
    Ok((StatusCode::CREATED, TopicDone::new("created", &info)))
}

/// Changes a topic's settings; what is not given stays.
#[utoipa::path(patch, path = "/topics/{name}", tag = "topics", params(("name" = String, Path, description = "The topic's name, percent-encoded")), request_body(content = TopicChange), responses((status = 200, body = TopicDone), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`")))]
pub async fn update_topic(
    Caller(client): Caller,
    TopicPath(name): TopicPath,
    _: NoQuery,
    body: Text,
) -> RestResult<Json<TopicDone>> {
    let known = ["max_messages", "max_publish_rate", "max_age", "expect_every", "retention", "max_keys"];
    let settings = topic_settings(&fields(body.as_str()?, &known)?)?;
    Ok(TopicDone::new("updated", &client.update_topic(&TopicName::parse(&name)?, settings).await?))
}

/// Topics by name.
#[derive(Serialize, ToSchema)]
pub struct TopicList {
    topics: Vec<TopicBody>,
    /// Ask again with `after` set to this for the next ones; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Topics in the order of their names.
#[utoipa::path(get, path = "/topics", tag = "topics", params(("prefix" = Option<String>, Query, description = "Only names that begin so"), ("limit" = Option<u32>, Query, description = "1 to MAX_BATCH; 100 unless given"), ("after" = Option<String>, Query, description = "Only names after this one")), responses((status = 200, body = TopicList), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`")))]
pub async fn list_topics(Caller(client): Caller, query: Query) -> RestResult<Json<TopicList>> {
    query.allow(&["prefix", "limit", "after"])?;
    let limit = query.limit("limit", client.settings().max_batch)?;
    let (topics, more) = client.topics(query.text("prefix").unwrap_or_default(), query.text("after"), limit)?;
    let next = topics.last().filter(|_| more).map(|last| last.name.to_string());
    Ok(Json(TopicList { topics: topics.into_iter().map(TopicBody::from).collect(), next }))
}

/// One topic.
#[utoipa::path(get, path = "/topics/{name}", tag = "topics", params(("name" = String, Path, description = "The topic's name, percent-encoded")), responses((status = 200, body = TopicBody), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`")))]
pub async fn get_topic(Caller(client): Caller, TopicPath(name): TopicPath, _: NoQuery) -> RestResult<Json<TopicBody>> {
    Ok(Json(client.topic(&TopicName::parse(&name)?).await?.into()))
}

/// Deletes a topic with its history and consumers; its subscriptions end.
#[utoipa::path(delete, path = "/topics/{name}", tag = "topics", params(("name" = String, Path, description = "The topic's name, percent-encoded")), responses((status = 200, body = TopicDone), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`")))]
pub async fn delete_topic(
    Caller(client): Caller,
    TopicPath(name): TopicPath,
    _: NoQuery,
) -> RestResult<Json<TopicDone>> {
    Ok(TopicDone::new("deleted", &client.delete_topic(&TopicName::parse(&name)?).await?))
}

/// What makes a topic.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read field by field; this says in the document what they hold")]
pub struct CreateTopic {
    /// 1 to 255 bytes of UTF-8 without `*`, `>`, control characters, outer white space and leading `$`.
    name: String,
    /// The bound of its history in messages, from 1.
    max_messages: Option<usize>,
    /// Messages a second that may be published; 0 = no limit.
    max_publish_rate: Option<u32>,
    /// How old its messages may become, like `24h`; `0s` = no limit.
    max_age: Option<String>,
    /// After how long without a message the topic is said to be silent, from `1s`, such as `5m`; `0s` = never.
    expect_every: Option<String>,
    /// Which of its messages are kept: `HISTORY` or `LATEST_PER_KEY`, the newest one of each key.
    retention: Option<String>,
    /// How many keys may have a value with `LATEST_PER_KEY`; at most the server's `MAX_KEYS`.
    max_keys: Option<usize>,
}

/// What changes in a topic.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "bodies are read field by field; this says in the document what they hold, by their names"
)]
pub struct TopicChange {
    /// The bound of its history in messages, from 1.
    max_messages: Option<usize>,
    /// Messages a second that may be published; 0 = no limit.
    max_publish_rate: Option<u32>,
    /// How old its messages may become, like `24h`; `0s` = no limit.
    max_age: Option<String>,
    /// After how long without a message the topic is said to be silent, from `1s`, such as `5m`; `0s` = never.
    expect_every: Option<String>,
    /// Which of its messages are kept: `HISTORY` or `LATEST_PER_KEY`, the newest one of each key.
    retention: Option<String>,
    /// How many keys may have a value with `LATEST_PER_KEY`; at most the server's `MAX_KEYS`.
    max_keys: Option<usize>,
}
