//! Changing what a bucket has under a key, if it is still what this instance knows.

use std::time::Duration;

use async_nats::{HeaderMap, header, jetstream::context::PublishErrorKind};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{NOT_NOW, link::Link};
use crate::channel::Error;

/// How long a change may wait for the cluster: an election takes 4 to 9 s.
pub(super) const BUDGET: Duration = Duration::from_secs(10);

/// What is waited between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// What has become of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is stored as this revision.
    Stored(u64),
    /// The key has another revision than was expected, or perhaps this very change, sent before without an answer.
    Conflict,
}

/// What a key is to have.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Set(Vec<u8>),
    /// Nothing any more; the marker of that may say something, too.
    Deleted(Vec<u8>),
}

/// Sets a key's value, or deletes it, if `expected` is its revision; 0 for a key that never was.
///
/// # Errors
/// [`Error::Unavailable`] if the cluster did not take it in time.
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
            let answer = match sent {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(ack) => return Ok(Put::Stored(ack.sequence)),
                Err(error) => match error.kind() {
                    PublishErrorKind::WrongLastSequence => return Ok(Put::Conflict),
                    PublishErrorKind::MaxPayloadExceeded => {
                        return Err(Error::Unavailable("what was to be stored is larger than NATS takes"));
                    }
                    _ => tracing::debug!(%error, bucket, "a change is tried again"),
                },
            }
        }
        if begun.elapsed() > BUDGET || (!link.is_up() && link.down_for() > super::GRACE) {
            return Err(Error::Unavailable(NOT_NOW));
        }
        sleep(PAUSE).await;
    }
}
