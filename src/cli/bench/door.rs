//! The interfaces that are measured, and how one publishes and subscribes there.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{ErrorObject, Failure, Refusal, Remote, SocketItem, WebSocket};

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/ws`.
    Ws,
    /// `POST /publish`, and event streams.
    Rest,
    /// GraphQL over WebSocket.
    GraphQl,
}

impl Door {
    pub fn of(name: &str) -> Self {
        match name {
            "rest" => Door::Rest,
            "graphql" => Door::GraphQl,
            _ => Door::Ws,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Door::Ws => "ws",
            Door::Rest => "rest",
            Door::GraphQl => "graphql",
        }
    }
}

/// Opens a WebSocket that takes GraphQL operations.
///
/// # Errors
/// Every [`Failure`].
pub async fn graphql_socket(remote: &Remote) -> Result<WebSocket, Failure> {
    let mut socket = remote.web_socket("/graphql", Some("graphql-transport-ws")).await?;
    // The header of the upgrade has signed in.
    socket.send(r#"{"type":"connection_init"}"#).await?;
    loop {
        if let SocketItem::Text(text) = socket.next().await? {
            let frame: GraphQlFrame = read(&text)?;
            if frame.kind == "connection_ack" {
                return Ok(socket);
            }
        }
    }
}

/// A frame of `graphql-transport-ws`.
#[derive(Deserialize)]
pub struct GraphQlFrame {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub payload: Value,
}

/// Reads what a server has sent.
///
/// # Errors
/// [`Failure::Answer`].
pub fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::Answer(format!("the server has sent {text}, which has {error}")))
}

/// The frame that publishes by `/ws`.
pub fn publish_frame(topic: &str, data: &str) -> String {
    format!(r#"{{"type":"publish","topic":{},"data":{data}}}"#, json!(topic))
}

/// The body that publishes by REST.
pub fn publish_body(topic: &str, data: &str) -> String {
    format!(r#"{{"topic":{},"data":{data}}}"#, json!(topic))
}

/// The mutation that publishes by GraphQL.
pub fn publish_operation(id: u64, topic: &str, data: &str) -> String {
    const QUERY: &str = "mutation ($topic: String!, $data: JSON!) { publish(topic: $topic, data: $data) { offset } }";
    format!(
        r#"{{"id":"{id}","type":"subscribe","payload":{{"query":{},"variables":{{"topic":{},"data":{data}}}}}}}"#,
        json!(QUERY),
        json!(topic)
    )
}

/// The subscription by GraphQL. The server says with a ping that it is open.
pub fn subscribe_operation(topic: &str) -> String {
    let query = "subscription ($topic: String!) { messages(topic: $topic) { data } }";
    let payload = json!({"query": query, "variables": {"topic": topic}, "extensions": {"ack": "open"}});
    json!({"id": "1", "type": "subscribe", "payload": payload}).to_string()
}

/// What came of a publish.
pub type Reply = Result<(), Refusal>;

/// A reply of `/ws`.
#[derive(Deserialize)]
struct Frame {
    error: Option<ErrorObject>,
}

/// Reads the reply of `/ws` or of REST to a publish.
///
/// # Errors
/// [`Failure::Answer`].
pub fn reply(text: &str) -> Result<Reply, Failure> {
    let frame: Frame = read(text)?;
    Ok(frame.error.map_or(Ok(()), |error| Err(error.into())))
}

/// Reads the reply of GraphQL to a publish; `None` for a frame that is none.
///
/// # Errors
/// [`Failure::Answer`].
pub fn graphql_reply(text: &str) -> Result<Option<Reply>, Failure> {
    let frame: GraphQlFrame = read(text)?;
    let errors = match frame.kind.as_str() {
        "next" => frame.payload.get("errors"),
        "error" => Some(&frame.payload),
        _ => return Ok(None),
    };
    let Some(error) = errors.and_then(|errors| errors.get(0)) else { return Ok(Some(Ok(()))) };
    let extensions = &error["extensions"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Some(Err(Refusal {
        code: text(&extensions["code"]),
        message: text(&error["message"]),
        retry_after: extensions["retryAfterMs"].as_u64().map(std::time::Duration::from_millis),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_in_every_form() {
        assert_eq!(reply(r#"{"type":"ack","offset":1}"#).unwrap(), Ok(()));
        assert_eq!(reply(r#"{"error":{"code":"X","message":"no"}}"#).unwrap().unwrap_err().code, "X");
        let next =
            |payload: &str| graphql_reply(&format!(r#"{{"id":"1","type":"next","payload":{payload}}}"#)).unwrap();
        assert_eq!(next(r#"{"data":{"publish":{"offset":1}}}"#), Some(Ok(())));
        let limited =
            r#"{"data":null,"errors":[{"message":"slow down","extensions":{"code":"RATE_LIMITED","retryAfterMs":9}}]}"#;
        let refusal = next(limited).unwrap().unwrap_err();
        assert!(refusal.may_pass() && refusal.retry_after == Some(std::time::Duration::from_millis(9)));
        assert_eq!(graphql_reply(r#"{"id":"1","type":"complete"}"#).unwrap(), None);
    }

    #[test]
    fn names_are_quoted() {
        for text in [publish_frame("a\"b", "1"), publish_body("a\"b", "1"), publish_operation(7, "a\"b", "1")] {
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(value.to_string().contains(r#""topic":"a\"b""#), "{text}");
        }
    }
}
