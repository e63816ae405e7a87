//! Live subscriptions: listing, ending.

use std::time::Duration;

use axum::{Json, extract::Path};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    RestResult,
    body::{NoQuery, Query, TopicPath},
};
use crate::{
    access::Caller,
    broker::{SubscriptionInfo, TopicName},
    problem::{Code, ErrorBody, Problem},
};

/// A live subscription as its topic sees it.
#[derive(Serialize, ToSchema)]
pub struct SubscriptionBody {
    /// Names it, for `DELETE /subscriptions/{id}`.
    id: String,
    /// The name of the principal that has subscribed, on a server with access rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    /// The interface that it came through: `graphql`, `rest` or `ws`.
    door: &'static str,
    /// The client's address, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The pattern that it has subscribed to, where it was not this very topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    /// Where it stands in the topic: what comes next is behind this.
    cursor: String,
    /// Messages published that it has not read yet.
    lag: u64,
    /// For how many milliseconds the oldest of them that is kept has waited.
    lag_ms: u64,
    /// Messages that it was told to have missed, in all topics that it reads.
    missed: u64,
    /// `CAUGHT_UP`, `CATCHING_UP` (it has begun in the past and has not come to the end yet), `BEHIND` (it has been at the end, and
    /// messages wait for it) or `STALLED` (they have waited for 5 seconds, and it has taken none meanwhile).
    state: &'static str,
    /// When it began (RFC 3339).
    since: String,
    /// What happens when it falls behind.
    overflow: &'static str,
    /// The name of its consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<String>,
    /// Its filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    filter: Option<Box<RawValue>>,
    /// Of the messages that its filter has looked at, the part that it let pass: from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_hit_rate: Option<f64>,
}

impl From<SubscriptionInfo> for SubscriptionBody {
    fn from(info: SubscriptionInfo) -> Self {
        let filter_hit_rate = info.hit_rate();
        Self {
            id: info.id.to_string(),
            principal: info.principal.map(|name| name.to_string()),
            door: info.door,
            address: info.address.map(|address| address.to_string()),
            pattern: info.pattern.map(|pattern| pattern.as_str().to_owned()),
            cursor: info.cursor.to_string(),
            lag: info.lag,
            lag_ms: milliseconds(info.lag_time),
            missed: info.missed,
            state: info.state.code(),
            since: info.since.to_string(),
            overflow: info.overflow.code(),
            consumer: info.consumer,
            filter: info.filter.and_then(|filter| RawValue::from_string(filter.canonical().to_owned()).ok()),
            filter_hit_rate,
        }
    }
}

/// A duration in whole milliseconds.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Live subscriptions.
#[derive(Serialize, ToSchema)]
pub struct SubscriptionList {
    subscriptions: Vec<SubscriptionBody>,
}

/// What was ended.
#[derive(Serialize, ToSchema)]
pub struct SubscriptionDone {
    /// `disconnected`.
    status: &'static str,
    /// The topic or pattern that it had subscribed to.
    topic: String,
    /// The subscription's id.
    id: String,
}

/// The live subscriptions of a topic on this instance, those through patterns too: those that are furthest behind, the furthest
/// first.
#[utoipa::path(get, path = "/topics/{name}/subscriptions", tag = "subscriptions", params(("name" = String, Path, description = "The topic's name, percent-encoded"), ("limit" = Option<u32>, Query, description = "1 to MAX_BATCH; 100 unless given")), responses((status = 200, body = SubscriptionList), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`")))]
pub async fn list_subscriptions(
    Caller(client): Caller,
    TopicPath(name): TopicPath,
    query: Query,
) -> RestResult<Json<SubscriptionList>> {
    query.allow(&["limit"])?;
    let limit = query.limit("limit", client.settings().max_batch)?;
    let list = client.subscriptions(&TopicName::parse(&name)?, limit)?;
    Ok(Json(SubscriptionList { subscriptions: list.into_iter().map(SubscriptionBody::from).collect() }))
}

/// Ends a live subscription of this instance with an error of code `DISCONNECTED`; its client may subscribe again.
#[utoipa::path(delete, path = "/subscriptions/{id}", tag = "subscriptions", params(("id" = String, Path, description = "The subscription's id, as its topic lists it")), responses((status = 200, body = SubscriptionDone), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`"), (status = 404, body = ErrorBody, description = "`NOT_FOUND`")))]
pub async fn disconnect(
    Caller(client): Caller,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
    _: NoQuery,
) -> RestResult<Json<SubscriptionDone>> {
    let Path(id) = id.map_err(|_| Problem::new(Code::BadRequest, "subscription: must be percent-encoded UTF-8"))?;
    let source = client.disconnect(id.parse()?)?;
    Ok(Json(SubscriptionDone { status: "disconnected", topic: source.as_str().to_owned(), id }))
}
