//! What can be seen of a live subscription, and what happens when it falls behind.

use std::time::Duration;

use async_graphql::{Enum, ID, SimpleObject};

use crate::{
    broker::{Overflow as BrokerOverflow, Payload, SubscriptionInfo, SubscriptionState as BrokerState},
    graphql::scalars::{Cursor, DateTime, Json, Long},
};

/// What happens to a subscription that falls behind (more than 64 messages wait for it), once it has caught up.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "BrokerOverflow")]
pub enum Overflow {
    /// It reads on from the history; a gap tells when that is gone.
    History,
    /// It jumps to the newest message; a gap says what was skipped.
    Latest,
    /// It gets only the newest message of each key; gaps say what was skipped. Messages without a key are all kept.
    LatestPerKey,
    /// It ends with an error of code `SLOW_CONSUMER` when the history no longer has what it would read next. Subscribing
    /// again is safe.
    Disconnect,
}

/// A live subscription as its topic sees it.
#[derive(SimpleObject)]
pub struct SubscriptionStatus {
    /// Names it, for `disconnect`.
    id: ID,
    /// The name of the principal that has subscribed; null on a server without access rules.
    principal: Option<String>,
    /// The interface that it came through: `graphql`, `rest` or `ws`.
    door: &'static str,
    /// The client's address, if it is known.
    address: Option<String>,
    /// The pattern that it has subscribed to; null where it was this very topic.
    pattern: Option<String>,
    /// Where it stands in the topic: what comes next is behind this.
    cursor: Cursor,
    /// Messages published that it has not read yet.
    lag: Long,
    /// For how many milliseconds the oldest of them that is kept has waited.
    lag_ms: Long,
    /// Messages that it was told to have missed, in all topics that it reads.
    missed: Long,
    /// How it is getting on.
    state: SubscriptionState,
    /// When it began.
    since: DateTime,
    /// What happens when it falls behind.
    overflow: Overflow,
    /// The name of its consumer, if it has one.
    consumer: Option<String>,
    /// Its filter, if it has one.
    filter: Option<Json>,
    /// Of the messages that its filter has looked at, the part that it let pass: from 0 to 1. Null without a filter, and before
    /// the first message.
    filter_hit_rate: Option<f64>,
}

/// How a subscription is getting on.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "BrokerState")]
pub enum SubscriptionState {
    /// It has read everything.
    CaughtUp,
    /// It has begun in the past and has not come to the end yet.
    CatchingUp,
    /// It has been at the end, and messages wait for it.
    Behind,
    /// Messages have waited for it for 5 seconds, and it has taken none meanwhile.
    Stalled,
}

impl From<SubscriptionInfo> for SubscriptionStatus {
    fn from(info: SubscriptionInfo) -> Self {
        let filter_hit_rate = info.hit_rate();
        Self {
            id: info.id.to_string().into(),
            principal: info.principal.map(|name| name.to_string()),
            door: info.door,
            address: info.address.map(|address| address.to_string()),
            pattern: info.pattern.map(|pattern| pattern.as_str().to_owned()),
            cursor: info.cursor.into(),
            lag: Long(info.lag),
            lag_ms: Long(milliseconds(info.lag_time)),
            missed: Long(info.missed),
            state: info.state.into(),
            since: DateTime(info.since),
            overflow: info.overflow.into(),
            consumer: info.consumer,
            filter: info.filter.and_then(|filter| Payload::parse(filter.canonical(), usize::MAX).ok()).map(Json),
            filter_hit_rate,
        }
    }
}

/// A duration in whole milliseconds.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
