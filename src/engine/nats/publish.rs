//! Publishing into the cluster: in order, with retries under the same id until the time budget is used up.
//!
//! ```text
//! publisher             this instance                                   the cluster
//!    |                       |                                               |
//!    |  publish              |                                               |
//!    |---------------------->|  queue, in order (QUEUE) -> send_all          |
//!    |                       |---------------------------------------------->|  the stream stores it once per
//!    |                       |                                               |  id and assigns its sequence
//!    |                       |<- acknowledgement with the sequence ----------|
//!    |                       |<- the stored message, republished ------------|  to every instance
//!    |                       |                                               |
//!    |                       |  follow.rs -> messages.rs -> the channel      |
//!    |<- offset = sequence --|  as soon as the channel has the message       |
//! ```
//!
//! Every message has an id, which the cluster stores only once within its window. So a retry is safe whatever
//! happened to the first attempt, and only the final outcome counts. The outcome is [`Error::Unavailable`] only if
//! every attempt was certainly refused or never sent. If one attempt got no response, it is [`Error::Unknown`].

use std::{future::IntoFuture, sync::Arc, time::Duration};

use async_nats::{
    HeaderMap, header,
    jetstream::{
        self,
        context::{PublishAckFuture, PublishError, PublishErrorKind},
    },
};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use super::{
    GRACE, Inner, NOT_NOW,
    follow::Progress,
    link::{ATTEMPT_TIMEOUT, Link},
    names::AT_HEADER,
    store::BUDGET,
    topics::sync,
};
use crate::channel::{Channel, Cursor, Error, MessageId, NewMessage, Publication, Refusal, Sent, Timestamp};

/// How many messages may wait to be sent.
pub(super) const QUEUE: usize = 8_192;

/// How many of a topic's newest messages are searched for one that was sent a moment ago.
const NEWEST_SEARCHED: usize = 4_096;

/// Error codes for: another message with this id is in flight. The client does not list all of them.
const ID_IN_PROCESS: [u64; 2] = [10_158, 10_164];

/// The header that distinguishes a publisher's message from another one with the same id. If a response was lost, the
/// cluster reports either of them as a duplicate.
const ATTEMPT_HEADER: &str = "Pubsub-Attempt";

/// Adds [`ATTEMPT_HEADER`] to the headers of a message whose publisher chose its id. Generated ids are unique.
pub(super) fn marked(mut headers: HeaderMap, new_message: &NewMessage) -> HeaderMap {
    if new_message.id.is_some() {
        headers.insert(ATTEMPT_HEADER, uuid::Uuid::new_v4().simple().to_string());
    }
    headers
}

/// A message in flight.
pub(super) struct Outgoing {
    pub channel: Arc<Channel>,
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
    pub id: MessageId,
    /// The offset that must be the topic's newest.
    pub expected: Option<u64>,
    pub begun: Instant,
    /// The newest offset of the topic when publishing began. A message at or before it is not this one.
    pub known_before: u64,
    /// How far this instance has followed the message's stream.
    pub progress: Arc<Progress>,
    pub stream: String,
    /// Set if the topic must be pinned first, because otherwise another instance might release it before the message
    /// is stored.
    pub pin: Option<Arc<Inner>>,
    /// Set if the publisher chose the id, because other messages may have the same id.
    pub given: Option<Arc<Inner>>,
    pub answer: oneshot::Sender<Result<Publication, Refusal>>,
    /// Counts the message as in flight, from the queue to the response.
    pub on_its_way: TaskTrackerToken,
}

impl Outgoing {
    /// Passes the result to the messages with the same id.
    pub fn left(&self, result: &Result<Publication, Refusal>) {
        if let Some(inner) = &self.given {
            inner.same_id.leave(&self.channel, &self.id, result);
        }
    }
}

/// The outcome of one attempt.
enum Attempt {
    Stored {
        sequence: u64,
        duplicate: bool,
    },
    /// The condition does not hold.
    ConditionFailed,
    /// Certainly not stored. The next attempt may succeed, after this pause.
    RetryAfter(Duration),
    /// No response came.
    NoResponse,
    /// Certainly not stored, and no retry will help.
    Rejected(Error),
}

/// Sends the queued messages in order, and gives each one to a task of its own that waits for the response.
pub(super) async fn send_all(link: Link, mut queue: mpsc::Receiver<Outgoing>, stop: CancellationToken) {
    // Shared, because each message has a task that uses it.
    let link = Arc::new(link);
    while let Some(Some(outgoing)) = stop.run_until_cancelled(queue.recv()).await {
        // The client sends what it is given without a connection as soon as there is one, long after the publisher
        // was told that the message is not stored. So nothing is given to it before.
        let connected = async {
            while !link.is_up() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let left = GRACE.saturating_sub(outgoing.begun.elapsed());
        let sent = match timeout(left, connected).await {
            Ok(()) => match pin_topic(&outgoing).await {
                Ok(()) => Ok(send(&link, &outgoing, None).await),
                Err(refusal) => Err(refusal),
            },
            Err(_) => Err(Error::Unavailable(NOT_NOW).into()),
        };
        let link = link.clone();
        let tracker = outgoing.on_its_way.task_tracker().clone();
        tracker.spawn(async move {
            let result = match sent {
                Ok(sent) => await_response(&link, &outgoing, sent).await,
                Err(refusal) => Err(refusal),
            };
            // A stored message was charged to the rate limit when it came back.
            if result.as_ref().is_ok_and(|publication| publication.duplicate) || result.is_err() {
                outgoing.channel.release_rate();
            }
            outgoing.left(&result);
            // A publisher that is gone does not need the response.
            let Outgoing { answer, on_its_way, .. } = outgoing;
            let _ = answer.send(result);
            drop(on_its_way);
        });
    }
}

/// Pins the topic before its first message, because another instance has created it and may release it.
async fn pin_topic(outgoing: &Outgoing) -> Result<(), Refusal> {
    let Some(inner) = &outgoing.pin else { return Ok(()) };
    match timeout(GRACE, inner.pin(&outgoing.channel)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Error::TopicNotFound(_))) => Err(Refusal::Closed),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Error::Unavailable(NOT_NOW).into()),
    }
}

/// Sends the message. `expected`, if there is one, replaces the condition of the client.
async fn send(link: &Link, outgoing: &Outgoing, expected: Option<u64>) -> Result<PublishAckFuture, PublishError> {
    let Outgoing { subject, headers, payload, .. } = outgoing;
    let mut headers = headers.clone();
    if let Some(expected) = expected {
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
    }
    link.jetstream.publish_with_headers(subject.clone(), headers, payload.clone()).await
}

async fn await_response(
    link: &Link,
    outgoing: &Outgoing,
    sent: Result<PublishAckFuture, PublishError>,
) -> Result<Publication, Refusal> {
    match outcome(link, sent).await {
        Attempt::Stored { sequence, duplicate } => stored(link, outgoing, sequence, duplicate, false).await,
        // On the heap, because it is rare and large, and each message has a task.
        failed => Box::pin(retry(link, outgoing, failed)).await,
    }
}

/// Waits for the response to one attempt.
async fn outcome(link: &Link, sent: Result<PublishAckFuture, PublishError>) -> Attempt {
    match sent {
        // The client's own timeout is that of all its requests, which is longer.
        Ok(response) => timeout(ATTEMPT_TIMEOUT, response.into_future()).await.map_or(Attempt::NoResponse, read),
        // The message was not even sent.
        Err(error) => match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Attempt::Rejected(too_large(link)),
            _ => Attempt::RetryAfter(Duration::from_millis(100)),
        },
    }
}

/// Sends the message again after a first attempt that has not stored it, as far as is known.
async fn retry(link: &Link, outgoing: &Outgoing, mut tried: Attempt) -> Result<Publication, Refusal> {
    // Whether an attempt without a response may have been stored.
    let mut may_be_stored = false;
    let mut expected = None;
    loop {
        let pause = match tried {
            Attempt::Stored { sequence, duplicate } => {
                let may_be_own = duplicate && may_be_stored && sequence > outgoing.known_before;
                let own = may_be_own && is_own(link, outgoing, sequence).await;
                return stored(link, outgoing, sequence, duplicate && !own, may_be_stored).await;
            }
            Attempt::ConditionFailed => match check_condition(link, outgoing, may_be_stored).await {
                ConditionOutcome::Decided(result) => return result,
                ConditionOutcome::Holds { behind } => {
                    expected = Some(behind);
                    Duration::ZERO
                }
            },
            Attempt::Rejected(error) => {
                return Err(if may_be_stored { Error::Unknown(outgoing.id.clone()) } else { error }.into());
            }
            Attempt::RetryAfter(pause) => pause,
            Attempt::NoResponse => {
                may_be_stored = true;
                Duration::ZERO
            }
        };
        sleep(pause).await;
        let cut_off = !link.is_up() && link.down_for() > GRACE;
        if outgoing.begun.elapsed() > BUDGET || cut_off {
            let error = if may_be_stored { Error::Unknown(outgoing.id.clone()) } else { Error::Unavailable(NOT_NOW) };
            return Err(error.into());
        }
        let sent = if link.is_up() {
            send(link, outgoing, expected).await
        } else {
            Err(PublishError::new(PublishErrorKind::Other))
        };
        tried = outcome(link, sent).await;
    }
}

fn too_large(link: &Link) -> Error {
    // The server's limit includes the headers.
    const HEADERS: usize = 8 << 10;
    Error::PayloadTooLarge { limit: link.max_payload().unwrap_or_default().saturating_sub(HEADERS) }
}

fn read(response: Result<jetstream::publish::PublishAck, PublishError>) -> Attempt {
    let soon = Duration::from_millis(50);
    match response {
        // Another message with this id is being stored at this moment.
        Ok(ack) if ack.sequence == 0 => Attempt::RetryAfter(soon),
        Ok(ack) => Attempt::Stored { sequence: ack.sequence, duplicate: ack.duplicate },
        Err(error) => match error.kind() {
            PublishErrorKind::WrongLastSequence => Attempt::ConditionFailed,
            // The stream has no leader, because of an election or a lost quorum.
            PublishErrorKind::StreamNotFound => Attempt::RetryAfter(Duration::from_millis(200)),
            PublishErrorKind::MaxAckPending => Attempt::RetryAfter(soon),
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => Attempt::NoResponse,
            PublishErrorKind::MaxPayloadExceeded => Attempt::Rejected(Error::PayloadTooLarge { limit: 0 }),
            PublishErrorKind::WrongLastMessageId | PublishErrorKind::Other => {
                let code = std::error::Error::source(&error)
                    .and_then(|source| source.downcast_ref::<jetstream::Error>())
                    .map(|error| error.error_code().0);
                match code {
                    Some(code) if ID_IN_PROCESS.contains(&code) => Attempt::RetryAfter(soon),
                    Some(_) => {
                        tracing::warn!(%error, "NATS refuses a message");
                        Attempt::RetryAfter(Duration::from_millis(500))
                    }
                    // The response cannot be read.
                    None => Attempt::NoResponse,
                }
            }
        },
    }
}

/// Returns whether the stored message is this one and not another one with the same id. If that cannot be found out,
/// it counts as this one.
async fn is_own(link: &Link, outgoing: &Outgoing, sequence: u64) -> bool {
    let ask = async {
        let stream = link.jetstream.get_stream_no_info(&outgoing.stream).await.ok()?;
        let found = stream.get_raw_message(sequence).await.ok()?;
        Some(found.headers.get(ATTEMPT_HEADER) == outgoing.headers.get(ATTEMPT_HEADER))
    };
    timeout(GRACE, ask).await.ok().flatten().unwrap_or(true)
}

/// The cluster has stored the message. The response waits until this instance's channel has it, too. `may_be_stored`: an
/// earlier attempt without a response may have stored it before.
async fn stored(
    link: &Link,
    outgoing: &Outgoing,
    sequence: u64,
    duplicate: bool,
    may_be_stored: bool,
) -> Result<Publication, Refusal> {
    let Outgoing { channel, id, progress, .. } = outgoing;
    if timeout(BUDGET, progress.wait(sequence)).await.is_err() {
        return Err(Error::Unknown(id.clone()).into());
    }
    let (known, is_behind_end) = channel.publication_at(sequence, id, duplicate);
    match known {
        // What was stored now is behind the topic's end, so nobody reads it. But an earlier attempt may have been before the
        // end and was read: published again, in the next incarnation, the message would come twice.
        None if is_behind_end && may_be_stored => before_end(outgoing),
        None if is_behind_end => Err(Refusal::Closed),
        // If it has another offset here, it was stored before and the cluster had forgotten it, or it was never
        // stored here.
        Some(first) => Ok(Publication { duplicate: duplicate || first.cursor.offset != sequence, ..first }),
        // So many messages followed it that it has already left the history.
        None => {
            let (offset, published_at) = Box::pin(first_of(link, outgoing, sequence)).await;
            let (topic, cursor) = (channel.name().clone(), Cursor { epoch: channel.epoch(), offset });
            Ok(Publication { id: id.clone(), topic, cursor, published_at, duplicate })
        }
    }
}

/// The outcome of a message whose topic was deleted while nobody knew whether it was stored.
fn before_end(outgoing: &Outgoing) -> Result<Publication, Refusal> {
    let Outgoing { channel, id, known_before, .. } = outgoing;
    match channel.find_sent(id, Some(NEWEST_SEARCHED)).message {
        Some(message) => Ok(Publication::of(&message, message.cursor.offset <= *known_before)),
        // It may have left the history before the topic was deleted.
        None => Err(Error::Unknown(id.clone()).into()),
    }
}

/// Returns the offset and time of a message that has left the history here. If the stream has evicted it, too, the
/// next message gives an approximate time. A message that only makes an id known has no offset in the topic.
async fn first_of(link: &Link, outgoing: &Outgoing, sequence: u64) -> (u64, Timestamp) {
    let ask = async {
        let stream = link.jetstream.get_stream_no_info(&outgoing.stream).await.ok()?;
        let found = match stream.get_raw_message(sequence).await {
            Ok(message) => message,
            Err(_) => stream.get_first_raw_message_by_subject(">", sequence).await.ok()?,
        };
        let said =
            found.headers.get(AT_HEADER).filter(|_| found.sequence == sequence).and_then(|at| at.as_str().parse().ok());
        let stored = || i64::try_from(found.time.unix_timestamp_nanos() / 1_000_000).ok();
        let is_message = found.sequence != sequence || found.subject.as_str() == outgoing.subject;
        Some((if is_message { sequence } else { 0 }, Timestamp(said.or_else(stored)?)))
    };
    timeout(GRACE, ask).await.ok().flatten().unwrap_or_else(|| (sequence, Timestamp::now()))
}

/// The outcome of a condition that does not hold according to the cluster.
enum ConditionOutcome {
    Decided(Result<Publication, Refusal>),
    /// The condition does hold: the message that the cluster has after the condition's offset belongs to no
    /// incarnation, or to an earlier one.
    Holds {
        behind: u64,
    },
}

/// Decides about a condition that does not hold. It may be this very message that has changed the topic, or a message
/// that does not belong to the topic.
async fn check_condition(link: &Link, outgoing: &Outgoing, may_be_stored: bool) -> ConditionOutcome {
    let Outgoing { progress, stream, .. } = outgoing;
    if let Some(decided) = decide(outgoing, may_be_stored, sync(link, stream, progress).await) {
        return ConditionOutcome::Decided(mark_duplicate(link, outgoing, decided).await);
    }
    let ask = async {
        let stream = link.jetstream.get_stream_no_info(stream).await.ok()?;
        let other = stream.get_last_raw_message_by_subject(&outgoing.subject).await.ok()?;
        progress.wait(other.sequence).await;
        Some(other.sequence)
    };
    let behind = timeout(GRACE, ask).await.ok().flatten().unwrap_or(0);
    // If the other message was followed by now and the topic's newest one is unchanged, it does not belong to this
    // incarnation.
    match decide(outgoing, may_be_stored, Ok(())) {
        Some(decided) => ConditionOutcome::Decided(mark_duplicate(link, outgoing, decided).await),
        None => ConditionOutcome::Holds { behind },
    }
}

/// Marks the publication as a duplicate if [`decide`] took another message with the same id for this one.
async fn mark_duplicate(
    link: &Link,
    outgoing: &Outgoing,
    decided: Result<Publication, Refusal>,
) -> Result<Publication, Refusal> {
    let mut publication = decided?;
    if !publication.duplicate {
        publication.duplicate = !is_own(link, outgoing, publication.cursor.offset).await;
    }
    Ok(publication)
}

/// Returns the response for a message whose condition the cluster refuses, or `None` if the condition holds according
/// to this instance.
fn decide(outgoing: &Outgoing, may_be_stored: bool, synced: Result<(), Error>) -> Option<Result<Publication, Refusal>> {
    let Outgoing { channel, id, .. } = outgoing;
    let Sent { message, closed, newest } = channel.find_sent(id, may_be_stored.then_some(NEWEST_SEARCHED));
    match (message, synced) {
        (Some(message), _) => {
            let own = may_be_stored && message.cursor.offset > outgoing.known_before;
            Some(Ok(Publication::of(&message, !own)))
        }
        // It may have stood in the topic and left the history before the topic was deleted.
        (None, _) if closed && may_be_stored => Some(Err(Error::Unknown(id.clone()).into())),
        (None, _) if closed => Some(Err(Refusal::Closed)),
        (None, Ok(())) if outgoing.expected == Some(newest) => None,
        (None, Ok(())) => Some(Err(Error::Conflict { current: newest }.into())),
        (None, Err(_)) if may_be_stored => Some(Err(Error::Unknown(id.clone()).into())),
        (None, Err(error)) => Some(Err(error.into())),
    }
}
