//! The REST door: routes beside their handlers. Bodies are JSON with `snake_case` keys.

mod body;
mod consumers;
mod messages;
mod openapi;
mod publish;
mod sse;
mod state;
mod status;
mod subscriptions;
mod topics;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{Method, header},
    response::IntoResponse,
    routing::{delete, get, post},
};
use tokio::time::Instant;

use crate::{
    access::{Caller, Visitor},
    broker::Client,
    front::{Responding, Shortcut},
    problem::Problem,
    socket::Stops,
};

pub use openapi::text as openapi_text;

/// What the door needs to know about its server.
#[derive(Clone)]
pub struct Context {
    /// A client of the broker that may only ask how it is.
    pub probe: Client,
    /// When the server started.
    pub started: Instant,
    /// How many connections are open.
    pub connections: Arc<dyn Fn() -> usize + Send + Sync>,
    /// The time between two heartbeats of an idle event stream.
    pub heartbeat: Duration,
    /// How long a client may take to send a body.
    pub request_timeout: Duration,
    /// When told, event streams end.
    pub stops: Stops,
}

type RestResult<T> = Result<T, Problem>;

/// The door's routes.
pub fn routes(context: Context) -> Router {
    Router::new()
        .route("/topics", get(topics::list_topics).post(topics::create_topic))
        .route("/topics/{name}", get(topics::get_topic).delete(topics::delete_topic).patch(topics::update_topic))
        .route("/topics/{name}/messages", get(messages::messages))
        .route("/topics/{name}/state", get(state::state))
        .route("/topics/{name}/subscriptions", get(subscriptions::list_subscriptions))
        .route("/subscriptions/{id}", delete(subscriptions::disconnect))
        .route("/topics/{name}/consumers", get(consumers::list_consumers))
        .route("/topics/{name}/consumers/{consumer}", delete(consumers::delete_consumer))
        .route("/topics/{name}/consumers/{consumer}/ack", post(consumers::acknowledge))
        .route("/topics/{name}/consumers/{consumer}/seek", post(consumers::seek))
        .route("/topics/{name}/state/{key}", delete(publish::remove_key))
        .route("/publish", post(publish::publish))
        .route("/stats", get(status::stats))
        .route("/health", get(status::health))
        .route("/health/live", get(status::live))
        .route("/health/ready", get(status::ready))
        .route("/openapi.json", get(openapi))
        .with_state(context)
}

/// The route that publishers use all the time, without the router.
#[must_use]
pub fn shortcut(context: &Context) -> Shortcut {
    let within = context.request_timeout;
    let handler = move |visitor: Visitor, request: Request| -> Responding {
        Box::pin(async move { publish::respond(visitor, request, within).await.into_response() })
    };
    Shortcut { method: Method::POST, path: "/publish", handler: Box::new(handler) }
}

async fn openapi(_: Caller) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi::text())
}
