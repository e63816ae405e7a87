//! Conditional writes to a bucket: a key is changed only if its revision is the one that this instance knows.

use std::time::Duration;

use async_nats::{HeaderMap, header, jetstream::context::PublishErrorKind};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{NOT_NOW, link::Link};
use crate::channel::Error;

/// How long a change may wait for the cluster. An election takes 4 to 9 s.
pub(super) const BUDGET: Duration = Duration::from_secs(10);

/// The pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The outcome of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// The change is stored as this revision.
    Stored(u64),
    /// The key has another revision than expected. That may be this very change, if an earlier attempt got no
    /// response.
    Conflict,
}

/// The new content of a key.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Set(Vec<u8>),
    /// The key is deleted. The marker of the deletion can carry a payload, too.
    Deleted(Vec<u8>),
}

/// Sets or deletes a key's value, if `expected` is its revision, or 0 for a key that never existed.
///
/// # Errors
/// [`Error::Unavailable`] if the cluster did not accept the change in time.
pub(super) async fn put(link: &Link, bucket: &str, key: &str, value: Value, expected: u64) -> Result<Put, Error> {
    let begun = Instant::now();
    let (payload, deletes) = match value {
        Value::Set(payload) => (Bytes::from(payload), false),
        Value::Deleted(payload) => (Bytes::from(payload), true),
    };
    loop {
        if link.is_up() {
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
            if deletes {
                headers.insert("KV-Operation", "DEL");
            }
            let subject = format!("$KV.{bucket}.{key}");
            let sent = link.jetstream.publish_with_headers(subject, headers, payload.clone()).await;
            let response = match sent {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            match response {
                Ok(ack) => return Ok(Put::Stored(ack.sequence)),
                Err(error) => match error.kind() {
                    PublishErrorKind::WrongLastSequence => return Ok(Put::Conflict),
                    PublishErrorKind::MaxPayloadExceeded => {
                        return Err(Error::Unavailable("the change is larger than NATS accepts"));
                    }
                    _ => tracing::debug!(%error, bucket, "a change could not be written; it is tried again"),
                },
            }
        }
        if begun.elapsed() > BUDGET || (!link.is_up() && link.down_for() > super::GRACE) {
            return Err(Error::Unavailable(NOT_NOW));
        }
        sleep(RETRY_PAUSE).await;
    }
}
