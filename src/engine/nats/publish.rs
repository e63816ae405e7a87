//! Publishing into the cluster: in order, tried again under the same id for as long as the budget lasts.
//!
//! Every message has an id that the cluster stores once within its window, so trying again is safe whatever has become of the
//! first try; what counts is what is said at the end. [`Error::Unavailable`] is said only if every try was refused for
//! certain or was never sent; if one went unanswered, it is [`Error::Unknown`].

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
    messages::AT,
    store::BUDGET,
    topics::sync,
};
use crate::channel::{Channel, Cursor, Error, MessageId, NewMessage, Publication, Refusal, Timestamp};

/// Messages that may wait to be sent.
pub(super) const QUEUE: usize = 8_192;

/// How many of a topic's newest messages are looked through for one that was sent a moment ago.
const YOUNG: usize = 4_096;

/// Answers that say: another message with this id is on its way. Not all are in the client's list.
const ID_IN_PROCESS: [u64; 2] = [10_158, 10_164];

/// The header that tells a publisher's message from another one with the same id: where an answer was lost, the cluster says
/// of both that it has one.
const ATTEMPT: &str = "Pubsub-Attempt";

/// Adds [`ATTEMPT`] to the headers of a message whose publisher chose its id. No two messages share an id that we made.
pub(super) fn marked(mut headers: HeaderMap, new_message: &NewMessage) -> HeaderMap {
    if new_message.id.is_some() {
        headers.insert(ATTEMPT, uuid::Uuid::new_v4().simple().to_string());
    }
    headers
}

/// A message on its way.
pub(super) struct Outgoing {
    pub channel: Arc<Channel>,
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
    pub id: MessageId,
    /// The offset that has to be the topic's newest.
    pub expected: Option<u64>,
    pub begun: Instant,
    /// The newest offset of the topic when it was begun: what stands there or before is not this message.
    pub known_before: u64,
    /// How far the message's stream was followed here.
    pub progress: Arc<Progress>,
    pub stream: String,
    /// Has to be told first that the topic is needed here, or else another instance might forget it beneath the message.
    pub join: Option<Arc<Inner>>,
    /// Set where the publisher gave the id: others may come with the same one.
    pub given: Option<Arc<Inner>>,
    pub answer: oneshot::Sender<Result<Publication, Refusal>>,
    /// Counts it among what is on its way, from the queue to the answer.
    pub on_its_way: TaskTrackerToken,
}

impl Outgoing {
    /// It has its answer: so have those with the same id.
    pub fn left(&self, result: &Result<Publication, Refusal>) {
        if let Some(inner) = &self.given {
            inner.same_id.leave(&self.channel, &self.id, result);
        }
    }
}

/// What one try came to.
enum Try {
    Stored {
        sequence: u64,
        duplicate: bool,
    },
    /// The condition does not hold.
    Condition,
    /// Certainly not stored; perhaps next time, after a pause.
    NotNow(Duration),
    /// No answer came.
    Silence,
    /// Certainly not stored, and never will be.
    Never(Error),
}

/// Sends what comes, in order, and leaves each message to a task of its own that waits for the answer.
pub(super) async fn send_all(link: Link, mut queue: mpsc::Receiver<Outgoing>, stop: CancellationToken) {
    while let Some(Some(outgoing)) = stop.run_until_cancelled(queue.recv()).await {
        // What is handed to the client while there is no connection is sent whenever there is one again, long after its
        // publisher was told that it is not stored: so it is not handed over.
        let connected = async {
            while !link.is_up() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let left = GRACE.saturating_sub(outgoing.begun.elapsed());
        let sent = match timeout(left, connected).await {
            Ok(()) => match join(&outgoing).await {
                Ok(()) => Ok(send(&link, &outgoing, None).await),
                Err(refusal) => Err(refusal),
            },
            Err(_) => Err(Error::Unavailable(NOT_NOW).into()),
        };
        let link = link.clone();
        let tracker = outgoing.on_its_way.task_tracker().clone();
        tracker.spawn(async move {
            let result = match sent {
                Ok(sent) => settle(&link, &outgoing, sent).await,
                Err(refusal) => Err(refusal),
            };
            // What was stored has been charged when it came back.
            if result.as_ref().is_ok_and(|publication| publication.duplicate) || result.is_err() {
                outgoing.channel.ring.lock().bucket.give_back();
            }
            outgoing.left(&result);
            // A publisher that is gone does not need its answer.
            let Outgoing { answer, on_its_way, .. } = outgoing;
            let _ = answer.send(result);
            drop(on_its_way);
        });
    }
}

/// The first message of a topic that another instance has made and may forget.
async fn join(outgoing: &Outgoing) -> Result<(), Refusal> {
    let Some(inner) = &outgoing.join else { return Ok(()) };
    match timeout(GRACE, inner.join(&outgoing.channel)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Error::TopicNotFound(_))) => Err(Refusal::Closed),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Error::Unavailable(NOT_NOW).into()),
    }
}

/// Sends it; where the condition is to be said otherwise, with `expected` in place of the client's.
async fn send(link: &Link, outgoing: &Outgoing, expected: Option<u64>) -> Result<PublishAckFuture, PublishError> {
    let Outgoing { subject, headers, payload, .. } = outgoing;
    let mut headers = headers.clone();
    if let Some(expected) = expected {
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
    }
    link.jetstream.publish_with_headers(subject.clone(), headers, payload.clone()).await
}

async fn settle(
    link: &Link,
    outgoing: &Outgoing,
    sent: Result<PublishAckFuture, PublishError>,
) -> Result<Publication, Refusal> {
    let mut sent = sent;
    // Whether a try may have been stored whose answer did not come.
    let mut perhaps = false;
    let mut expected = None;
    loop {
        let tried = match sent {
            // The client's own bound is that of all its requests, which is longer.
            Ok(reply) => timeout(ATTEMPT_TIMEOUT, reply.into_future()).await.map_or(Try::Silence, read),
            // Not even sent.
            Err(error) => match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => Try::Never(too_large(link)),
                _ => Try::NotNow(Duration::from_millis(100)),
            },
        };
        let pause = match tried {
            Try::Stored { sequence, duplicate } => {
                let may_be_own = duplicate && perhaps && sequence > outgoing.known_before;
                let own = may_be_own && is_own(link, outgoing, sequence).await;
                return stored(link, outgoing, sequence, duplicate && !own).await;
            }
            Try::Condition => match condition(link, outgoing, perhaps).await {
                Condition::Decided(answer) => return answer,
                Condition::Holds { behind } => {
                    expected = Some(behind);
                    Duration::ZERO
                }
            },
            Try::Never(error) => {
                return Err(if perhaps { Error::Unknown(outgoing.id.clone()) } else { error }.into());
            }
            Try::NotNow(pause) => pause,
            Try::Silence => {
                perhaps = true;
                Duration::ZERO
            }
        };
        sleep(pause).await;
        let cut_off = !link.is_up() && link.down_for() > GRACE;
        if outgoing.begun.elapsed() > BUDGET || cut_off {
            let error = if perhaps { Error::Unknown(outgoing.id.clone()) } else { Error::Unavailable(NOT_NOW) };
            return Err(error.into());
        }
        sent = if link.is_up() {
            send(link, outgoing, expected).await
        } else {
            Err(PublishError::new(PublishErrorKind::Other))
        };
    }
}

fn too_large(link: &Link) -> Error {
    // Headers count, too.
    const HEADERS: usize = 4 << 10;
    Error::PayloadTooLarge { limit: link.max_payload().unwrap_or_default().saturating_sub(HEADERS) }
}

fn read(answer: Result<jetstream::publish::PublishAck, PublishError>) -> Try {
    let soon = Duration::from_millis(50);
    match answer {
        // Another message with this id is being stored at this moment.
        Ok(ack) if ack.sequence == 0 => Try::NotNow(soon),
        Ok(ack) => Try::Stored { sequence: ack.sequence, duplicate: ack.duplicate },
        Err(error) => match error.kind() {
            PublishErrorKind::WrongLastSequence => Try::Condition,
            // Nobody is responsible for the stream: an election, or no quorum.
            PublishErrorKind::StreamNotFound => Try::NotNow(Duration::from_millis(200)),
            PublishErrorKind::MaxAckPending => Try::NotNow(soon),
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => Try::Silence,
            PublishErrorKind::MaxPayloadExceeded => Try::Never(Error::PayloadTooLarge { limit: 0 }),
            PublishErrorKind::WrongLastMessageId | PublishErrorKind::Other => {
                let code = std::error::Error::source(&error)
                    .and_then(|source| source.downcast_ref::<jetstream::Error>())
                    .map(|error| error.error_code().0);
                match code {
                    Some(code) if ID_IN_PROCESS.contains(&code) => Try::NotNow(soon),
                    Some(_) => {
                        tracing::warn!(%error, "NATS refuses a message");
                        Try::NotNow(Duration::from_millis(500))
                    }
                    // No answer that can be read.
                    None => Try::Silence,
                }
            }
        },
    }
}

/// Whether the message that the cluster has is this one, not another with the same id. Where that cannot be learned it is.
async fn is_own(link: &Link, outgoing: &Outgoing, sequence: u64) -> bool {
    let ask = async {
        let stream = link.jetstream.get_stream_no_info(&outgoing.stream).await.ok()?;
        let found = stream.get_raw_message(sequence).await.ok()?;
        Some(found.headers.get(ATTEMPT) == outgoing.headers.get(ATTEMPT))
    };
    timeout(GRACE, ask).await.ok().flatten().unwrap_or(true)
}

/// The cluster has it: the answer waits until this instance has it, too.
async fn stored(link: &Link, outgoing: &Outgoing, sequence: u64, duplicate: bool) -> Result<Publication, Refusal> {
    let Outgoing { channel, id, progress, .. } = outgoing;
    if timeout(BUDGET, progress.wait(sequence)).await.is_err() {
        return Err(Error::Unknown(id.clone()).into());
    }
    let (known, closed) = {
        let ring = channel.ring.lock();
        let kept = ring.message_at(sequence).map(|message| Publication::of(&message, duplicate));
        (kept.or_else(|| ring.known(id)), ring.closed)
    };
    match known {
        // It came after the topic's deletion: nobody reads it.
        None if closed => Err(Refusal::Closed),
        // Found under another place, it was stored before, and the cluster had forgotten; or it was never stored here.
        Some(first) => Ok(Publication { duplicate: duplicate || first.cursor.offset != sequence, ..first }),
        // So many came behind it that it has left the history already.
        None => {
            let (offset, published_at) = first_of(link, outgoing, sequence).await;
            let (topic, cursor) = (channel.name().clone(), Cursor { epoch: channel.epoch(), offset });
            Ok(Publication { id: id.clone(), topic, cursor, published_at, duplicate })
        }
    }
}

/// Offset and time of a message that is not in the history here any more. Where the stream has let go of it, too, the next
/// one tells about when it was published. What only makes the id known has no offset in the topic.
async fn first_of(link: &Link, outgoing: &Outgoing, sequence: u64) -> (u64, Timestamp) {
    let ask = async {
        let stream = link.jetstream.get_stream_no_info(&outgoing.stream).await.ok()?;
        let found = match stream.get_raw_message(sequence).await {
            Ok(message) => message,
            Err(_) => stream.get_first_raw_message_by_subject(">", sequence).await.ok()?,
        };
        let said = found.headers.get(AT).filter(|_| found.sequence == sequence).and_then(|at| at.as_str().parse().ok());
        let stored = || i64::try_from(found.time.unix_timestamp_nanos() / 1_000_000).ok();
        let is_message = found.sequence != sequence || found.subject.as_str() == outgoing.subject;
        Some((if is_message { sequence } else { 0 }, Timestamp(said.or_else(stored)?)))
    };
    timeout(GRACE, ask).await.ok().flatten().unwrap_or_else(|| (sequence, Timestamp::now()))
}

/// What has become of a condition that the cluster says does not hold.
enum Condition {
    Decided(Result<Publication, Refusal>),
    /// It does: what the cluster has under the topic's name behind the condition's place is of no incarnation, or of an earlier one.
    Holds {
        behind: u64,
    },
}

/// The condition does not hold, unless it is this very message that has made it so, or one that is none of the topic's.
async fn condition(link: &Link, outgoing: &Outgoing, perhaps: bool) -> Condition {
    let Outgoing { progress, stream, .. } = outgoing;
    if let Some(decided) = decide(outgoing, perhaps, sync(link, stream, progress).await) {
        return Condition::Decided(whose(link, outgoing, decided).await);
    }
    let ask = async {
        let stream = link.jetstream.get_stream_no_info(stream).await.ok()?;
        let other = stream.get_last_raw_message_by_subject(&outgoing.subject).await.ok()?;
        progress.wait(other.sequence).await;
        Some(other.sequence)
    };
    let behind = timeout(GRACE, ask).await.ok().flatten().unwrap_or(0);
    // If it was followed by now and the topic's newest is what it was, it is none of this incarnation's.
    match decide(outgoing, perhaps, Ok(())) {
        Some(decided) => Condition::Decided(whose(link, outgoing, decided).await),
        None => Condition::Holds { behind },
    }
}

/// Makes a duplicate of what [`decide`] took for this very message, where it is another one with the same id.
async fn whose(
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

/// The answer to a message whose condition the cluster refuses; none where it holds by what is known here.
fn decide(outgoing: &Outgoing, perhaps: bool, synced: Result<(), Error>) -> Option<Result<Publication, Refusal>> {
    let Outgoing { channel, id, .. } = outgoing;
    let ring = channel.ring.lock();
    let found = ring.find_id(id).cloned().or_else(|| perhaps.then(|| ring.find_young(id, YOUNG)).flatten());
    match (found, synced) {
        (Some(message), _) => {
            let own = perhaps && message.cursor.offset > outgoing.known_before;
            Some(Ok(Publication::of(&message, !own)))
        }
        (None, _) if ring.closed => Some(Err(Refusal::Closed)),
        (None, Ok(())) if outgoing.expected == Some(ring.newest()) => None,
        (None, Ok(())) => Some(Err(Error::Conflict { current: ring.newest() }.into())),
        (None, Err(_)) if perhaps => Some(Err(Error::Unknown(id.clone()).into())),
        (None, Err(error)) => Some(Err(error.into())),
    }
}
