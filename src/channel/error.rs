//! What can go wrong, without a word about how a door says it.

use std::time::Duration;

use super::{MessageId, TopicName};

/// Every way in which the broker refuses. `crate::problem` maps each to its code at every door.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Malformed, missing or contradictory input.
    #[error("{field}: {message}")]
    BadRequest {
        /// The input's name in REST's spelling. Doors with another spelling change it.
        field: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// This needs credentials that are valid: there are none, or they are valid no longer.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The principal may not do this. Nothing is said about whether what it concerns exists.
    #[error("{principal:?} may not {action}")]
    Forbidden {
        /// The principal's name.
        principal: String,
        /// What it wanted: "publish to topic \"news\"".
        action: String,
    },
    /// The topic's name breaks the rule.
    #[error("topic: {0}")]
    InvalidTopic(&'static str),
    /// There is no such topic.
    #[error("topic {0:?} does not exist")]
    TopicNotFound(String),
    /// A topic of this name was created before.
    #[error("topic {0:?} already exists")]
    TopicExists(TopicName),
    /// There is no consumer of this name.
    #[error("consumer {0:?} does not exist")]
    ConsumerNotFound(String),
    /// There is no such subscription on this instance.
    #[error("subscription {0} does not exist on this instance")]
    SubscriptionNotFound(String),
    /// `expected_offset` does not hold.
    #[error("expected_offset: the topic's newest offset is {current}")]
    Conflict {
        /// The topic's newest offset, 0 when it has none.
        current: u64,
    },
    /// `expected_key_offset` does not hold.
    #[error("expected_key_offset: the key's newest offset is {current}")]
    KeyConflict {
        /// The newest offset of the key, 0 when no message of it is kept.
        current: u64,
    },
    /// A payload over the bound.
    #[error("data: the payload must be at most {limit} bytes")]
    PayloadTooLarge {
        /// The bound in bytes.
        limit: usize,
    },
    /// The topic's publish rate is used up.
    #[error(
        "the topic's publish rate of {per_second} a second is used up; try again in {} ms (MAX_PUBLISH_RATE changes the \
         rate of the server, max_publish_rate that of the topic; 0 = no limit)",
        wait.as_millis()
    )]
    RateLimited {
        /// The rate, in messages a second.
        per_second: u32,
        /// When the next publish can succeed, in whole milliseconds.
        wait: Duration,
    },
    /// The publish rate of the client is used up, over all topics.
    #[error(
        "your publish rate of {per_second} a second is used up; try again in {} ms (max_publish_rate of the key, or \
         MAX_PUBLISH_RATE_PER_CLIENT)",
        wait.as_millis()
    )]
    ClientRateLimited {
        /// The rate, in messages a second.
        per_second: u32,
        /// When the next publish can succeed, in whole milliseconds.
        wait: Duration,
    },
    /// A bound is reached.
    #[error("at most {limit} {what}")]
    LimitReached {
        /// What is bounded.
        what: &'static str,
        /// The bound.
        limit: usize,
        /// Whether the bound is the client's own, not the whole server's.
        own: bool,
    },
    /// Nothing was stored; the same may be asked again later.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The message is perhaps stored. Publishing it again with the same id stores it once, whatever happened.
    #[error("it is not known whether the message was stored: publish it again with id {:?}", .0.as_str())]
    Unknown(MessageId),
    /// The subscription chose to end when it falls behind.
    #[error("the subscription fell behind (overflow: DISCONNECT)")]
    SlowConsumer,
    /// The topic was deleted while subscribed.
    #[error("topic {0:?} was deleted")]
    TopicDeleted(TopicName),
    /// A newer connection uses this consumer.
    #[error("a newer connection uses consumer {0:?}")]
    ConsumerTakenOver(String),
    /// Somebody who manages the topic has ended the subscription.
    #[error("the subscription was ended by somebody who manages the topic; subscribing again is allowed")]
    Disconnected,
}

impl Error {
    /// Malformed, missing or contradictory input in `field`.
    #[must_use]
    pub fn bad_request(field: &'static str, message: impl Into<String>) -> Self {
        Error::BadRequest { field, message: message.into() }
    }
}

/// Why a channel does not take a message.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The channel is closed: its topic was deleted.
    Closed,
    /// The rules refuse it, or the engine cannot.
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Error(error)
    }
}
