//! Health and statistics.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Context, RestResult};
use crate::{
    access::{Caller, Visitor},
    broker::Timestamp,
    problem::ErrorBody,
};

/// The most topics that are listed one by one in the statistics.
const STATS_TOPICS: usize = 10_000;

/// Numbers about the whole server.
#[derive(Serialize, ToSchema)]
pub struct Stats {
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
pub struct TopicStats {
    name: String,
    /// Messages kept.
    message_count: usize,
    /// Live subscriptions.
    subscriber_count: usize,
    /// Another name of `message_count`.
    messages: usize,
    /// Another name of `subscriber_count`.
    subscribers: usize,
    created_at: String,
    /// When its newest message was published; null without any.
    last_published_at: Option<String>,
    /// Another name of `last_published_at`.
    last_message_at: Option<String>,
}

/// Numbers about the whole server.
#[utoipa::path(get, path = "/stats", tag = "status", responses((status = 200, body = Stats)))]
pub async fn stats(State(context): State<Context>, Caller(client): Caller) -> RestResult<Json<Stats>> {
    let totals = client.totals()?;
    // Whoever may read statistics sees everything in them.
    let (topics, _) = client.all_topics(STATS_TOPICS)?;
    let topics: BTreeMap<_, _> = topics
        .into_iter()
        .map(|info| {
            let last_published_at = info.last_published_at.map(|at| at.to_string());
            let stats = TopicStats {
                name: info.name.to_string(),
                message_count: info.messages,
                subscriber_count: info.subscribers,
                messages: info.messages,
                subscribers: info.subscribers,
                created_at: info.created_at.to_string(),
                last_published_at: last_published_at.clone(),
                last_message_at: last_published_at,
            };
            (stats.name.clone(), stats)
        })
        .collect();
    Ok(Json(Stats {
        total_topics: totals.topics,
        total_messages: totals.messages,
        total_published: totals.published,
        total_subscribers: totals.subscriptions,
        active_connections: (context.connections)(),
        history_bytes: totals.history_bytes,
        uptime_seconds: context.started.elapsed().as_secs(),
        topics,
        generated_at: Timestamp::now().to_string(),
    }))
}

/// How the server is.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`; `draining` while the server stops; `starting` while it has not read yet what exists; `read_only` while it
    /// cannot store.
    status: &'static str,
    #[serde(flatten)]
    details: Option<HealthDetails>,
}

/// What a server with access rules says to those who may read statistics alone.
#[derive(Serialize, ToSchema)]
pub struct HealthDetails {
    uptime_seconds: u64,
    /// Another name of `uptime_seconds`.
    uptime_sec: u64,
    topics: usize,
    /// Live subscriptions.
    subscribers: usize,
    version: &'static str,
}

/// How the server is.
#[utoipa::path(get, path = "/health", tag = "status", responses((status = 200, body = Health)))]
pub async fn health(State(context): State<Context>, visitor: Visitor) -> Json<Health> {
    let totals = visitor.client().ok().and_then(|client| client.totals().ok());
    let uptime = context.started.elapsed().as_secs();
    let details = totals.map(|totals| HealthDetails {
        uptime_seconds: uptime,
        uptime_sec: uptime,
        topics: totals.topics,
        subscribers: totals.subscriptions,
        version: env!("CARGO_PKG_VERSION"),
    });
    Json(Health { status: context.probe.status(), details })
}

/// Whether the process serves at all.
#[utoipa::path(get, path = "/health/live", tag = "status", responses((status = 200, body = ProbeStatus)))]
pub async fn live() -> Json<ProbeStatus> {
    Json(ProbeStatus { status: "ok" })
}

/// Whether the server should get traffic.
#[utoipa::path(get, path = "/health/ready", tag = "status", responses((status = 200, body = ProbeStatus), (status = 503, body = ErrorBody, description = "`UNAVAILABLE`: starting, stopping, or cut off from where it stores")))]
pub async fn ready(State(context): State<Context>) -> RestResult<Json<ProbeStatus>> {
    context.probe.check_ready()?;
    Ok(Json(ProbeStatus { status: "ready" }))
}

/// What a probe asks for, in one word.
#[derive(Serialize, ToSchema)]
pub struct ProbeStatus {
    status: &'static str,
}
