//! Pings and pongs of the protocol, which are messages.

use crate::{graphql::operation::Operation, socket::Outbox, wire};

/// Pongs that may wait on one connection; a further ping gets its pong at once.
pub const MAX_PONGS: usize = 100;

/// A pong with the payload of its ping.
pub fn pong(payload: &str, out: &mut Outbox) {
    out.text(&[br#"{"type":"pong""#, payload.as_bytes(), b"}"]);
}

/// Tells a client that its subscription is open, and where it begins.
pub fn confirm_subscribed(ack: &str, operation: &Operation, out: &mut Outbox) {
    let consumer = operation.consumer().map(|consumer| format!(r#","consumer":{consumer}"#)).unwrap_or_default();
    let (ack, cursor) = (wire::quoted(ack), operation.begins_at());
    out.text(&[format!(r#"{{"type":"ping","payload":{{"ack":{ack},"cursor":"{cursor}"{consumer}}}}}"#).as_bytes()]);
}
