//! Pages of a topic's state.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::ToSchema;

use super::{
    RestResult,
    body::{Query, TopicPath},
    messages::MessageBody,
};
use crate::{
    access::Caller,
    broker::{BatchLimit, TopicName},
    problem::ErrorBody,
    wire,
};

/// A page of large messages ends before `limit`, and `next` leads on.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// A page of a topic's state: of each key the newest kept message, in the order of offsets, without removed keys.
#[utoipa::path(get, path = "/topics/{name}/state", tag = "messages", params(("name" = String, Path, description = "The topic's name, percent-encoded"), ("prefix" = Option<String>, Query, description = "Only keys that begin with this"), ("after" = Option<String>, Query, description = "After this cursor: the `next` of the page before"), ("limit" = Option<u32>, Query, description = "1 to MAX_BATCH; 100 unless given")), responses((status = 200, body = StateBody), (status = 400, body = ErrorBody, description = "`BAD_REQUEST`, `INVALID_TOPIC`"), (status = 404, body = ErrorBody, description = "`TOPIC_NOT_FOUND`")))]
pub async fn state(Caller(client): Caller, TopicPath(name): TopicPath, query: Query) -> RestResult<Response> {
    query.allow(&["prefix", "after", "limit"])?;
    let topic = TopicName::parse(&name)?;
    let limit = BatchLimit { messages: query.limit("limit", client.settings().max_batch)?, bytes: MAX_PAGE_BYTES };
    let after = query.text("after").map(|cursor| wire::parse_cursor("after", cursor)).transpose()?;
    let page = client.state(&topic, query.text("prefix").unwrap_or_default(), after, limit).await?;
    let messages: Vec<_> = page.messages.iter().map(|message| wire::message_object(message, None)).collect();
    let next = page.next.map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
    let body = format!(r#"{{"messages":[{}],"next":{next}}}"#, messages.join(","));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A page of state.
#[derive(ToSchema)]
#[expect(dead_code, reason = "written as text from messages as they are; this says in the document what it holds")]
pub struct StateBody {
    /// The newest of their keys, oldest first.
    messages: Vec<MessageBody>,
    /// Ask with `after` set to this for what comes next; null at the end.
    next: Option<String>,
}
