//! What the broker counts as it works: how much goes in and out by which door, how long it takes, what is refused and missed.
//! None of it takes a lock or allocates,
//! but for exemplars, which are of messages whose traces are recorded.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Error, Event, GapReason, MetricFamily, MetricKind, MetricValue, TraceContext, exemplars::Exemplars};
use crate::channel::{Counter, Histogram, moment};

/// The interfaces that messages come in by and go out through; the last stands for parts of the server itself.
const DOORS: [&str; 4] = ["graphql", "rest", "ws", "none"];

/// Why messages are missed.
const GAP_REASONS: [GapReason; 5] =
    [GapReason::SlowConsumer, GapReason::Expired, GapReason::NewEpoch, GapReason::Seek, GapReason::Compacted];

/// Why publishes are refused.
const REFUSALS: [&str; 9] = [
    "access",
    "client_rate",
    "conflict",
    "invalid",
    "limit",
    "topic_not_found",
    "topic_rate",
    "unavailable",
    "unknown_outcome",
];

/// What the broker has counted.
#[derive(Default)]
pub(super) struct Measures {
    publish: Histogram,
    delivery: Histogram,
    deliveries_traced: Exemplars,
    confirmation: Histogram,
    doors: [Traffic; DOORS.len()],
    gaps: [AtomicU64; GAP_REASONS.len()],
    missed: [AtomicU64; GAP_REASONS.len()],
    refused: [AtomicU64; REFUSALS.len()],
}

#[derive(Default)]
struct Traffic {
    messages_in: Counter,
    bytes_in: Counter,
    messages_out: Counter,
    bytes_out: Counter,
}

/// One publish, from its arrival at the broker.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub door: &'static str,
    /// When, in the microseconds of [`moment`].
    pub at: u64,
}

impl Arrival {
    /// Now.
    pub fn at(door: &'static str) -> Self {
        Self { door, at: moment::micros() }
    }
}

impl Measures {
    fn traffic(&self, door: &str) -> &Traffic {
        let [graphql, rest, ws, none] = &self.doors;
        match door {
            "graphql" => graphql,
            "rest" => rest,
            "ws" => ws,
            _ => none,
        }
    }

    /// A publish was accepted, with so many bytes of data.
    pub fn published(&self, arrival: Arrival, bytes: usize) {
        let traffic = self.traffic(arrival.door);
        traffic.messages_in.add(1);
        traffic.bytes_in.add(bytes as u64);
        self.publish.observe(std::iter::once(moment::micros().saturating_sub(arrival.at)));
    }

    /// A publish was refused.
    pub fn refused(&self, error: &Error) {
        let reason = match error {
            Error::Unauthenticated(_) | Error::Forbidden { .. } => "access",
            Error::ClientRateLimited { .. } => "client_rate",
            Error::Conflict { .. } | Error::KeyConflict { .. } => "conflict",
            Error::LimitReached { .. } => "limit",
            Error::TopicNotFound(_) => "topic_not_found",
            Error::RateLimited { .. } => "topic_rate",
            Error::Unavailable(_) => "unavailable",
            Error::Unknown(_) => "unknown_outcome",
            _ => "invalid",
        };
        for (_, count) in REFUSALS.iter().zip(&self.refused).filter(|(name, _)| **name == reason) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A subscription is about to write these events at the moment `now`. Where it `is_live`, messages have been on their way
    /// since they were accepted; what is replayed has waited for its reader.
    pub fn delivered(&self, door: &str, events: &[Event], now: u64, is_live: bool) {
        let messages = || {
            events.iter().filter_map(|event| match event {
                Event::Message(message, _) => Some(message),
                Event::Gap(_) | Event::Deleted { .. } | Event::StateComplete(_) => None,
            })
        };
        let (mut count, mut bytes) = (0, 0);
        for message in messages() {
            (count, bytes) = (count + 1, bytes + message.data.len() as u64);
        }
        if count > 0 {
            let traffic = self.traffic(door);
            traffic.messages_out.add(count);
            traffic.bytes_out.add(bytes);
            if is_live {
                self.delivery.observe(messages().map(|message| now.saturating_sub(message.accepted_at)));
            }
        }
        if count < events.len() as u64 {
            self.told(events);
        }
    }

    /// A live subscription is about to write a message whose trace is recorded, so long after it was accepted.
    pub fn delivered_traced(&self, trace: &TraceContext, micros: u64) {
        self.deliveries_traced.note(trace, micros);
    }

    /// Subscribers are told of gaps.
    pub fn told(&self, events: &[Event]) {
        for event in events {
            if let Event::Gap(gap) = event
                && let Some(place) = GAP_REASONS.iter().position(|reason| *reason == gap.reason)
                && let Some((gaps, missed)) = self.gaps.get(place).zip(self.missed.get(place))
            {
                gaps.fetch_add(1, Ordering::Relaxed);
                missed.fetch_add(gap.missed.unwrap_or(0), Ordering::Relaxed);
            }
        }
    }

    /// A client has confirmed what was delivered to it, of which the first was accepted then.
    pub fn confirmed(&self, accepted_at: u64) {
        self.confirmation.observe(std::iter::once(moment::micros().saturating_sub(accepted_at)));
    }

    /// The families of all this.
    pub fn families(&self) -> Vec<MetricFamily> {
        let by_door = |name, help, of: fn(&Traffic) -> &Counter| {
            let family = MetricFamily::new(MetricKind::Counter, name, help);
            let counts = DOORS.into_iter().zip(&self.doors);
            counts.fold(family, |family, (door, traffic)| {
                family.with("door", door, MetricValue::Whole(of(traffic).value()))
            })
        };
        let by_reason = |name, help, reasons: &[&'static str], counts: &[AtomicU64]| {
            let family = MetricFamily::new(MetricKind::Counter, name, help);
            reasons.iter().zip(counts).fold(family, |family, (reason, count)| {
                family.with("reason", *reason, MetricValue::Whole(count.load(Ordering::Relaxed)))
            })
        };
        let gap_reasons = GAP_REASONS.map(GapReason::code);
        vec![
            by_door("messages_in_total", "Messages that were published and accepted, duplicates included.", |of| {
                &of.messages_in
            }),
            by_door("bytes_in_total", "Bytes of data of these messages.", |of| &of.bytes_in),
            by_door("messages_out_total", "Messages that were delivered to subscriptions.", |of| &of.messages_out),
            by_door("bytes_out_total", "Bytes of data of these messages.", |of| &of.bytes_out),
            by_reason("publish_refused_total", "Publishes that were refused.", &REFUSALS, &self.refused),
            by_reason("gaps_total", "Gaps that subscribers were told.", &gap_reasons, &self.gaps),
            by_reason(
                "missed_messages_total",
                "Messages that subscribers were told to have missed, as far as they can be counted.",
                &gap_reasons,
                &self.missed,
            ),
            MetricFamily::histogram(
                "publish_duration_seconds",
                "From a publish's arrival at the broker until its outcome was known, for those that were accepted.",
                self.publish.counted(),
            ),
            MetricFamily::with_exemplars(
                "delivery_latency_seconds",
                "From a message's acceptance until it was written for a live subscriber.",
                self.delivery.counted(),
                self.deliveries_traced.all(),
            ),
            MetricFamily::histogram(
                "confirmation_latency_seconds",
                "From the acceptance of the first message that a consumer's confirmation or acknowledgement covers until that \
                 came.",
                self.confirmation.counted(),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_their_reasons() {
        let measures = Measures::default();
        let conditions = [Error::Conflict { current: 1 }, Error::KeyConflict { current: 1 }];
        let others = [Error::TopicNotFound("a".to_owned()), Error::Unavailable("no"), Error::InvalidTopic("no")];
        conditions.iter().chain(&others).for_each(|error| measures.refused(error));
        let counts = REFUSALS.iter().zip(&measures.refused).map(|(name, count)| (*name, count.load(Ordering::Relaxed)));
        let counted: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("conflict", 2), ("invalid", 1), ("topic_not_found", 1), ("unavailable", 1)]);
    }
}
