//! Refused credentials: counted by reason, and logged at a bounded rate, since whoever is refused may try as often as it
//! likes.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

use super::Refusal;
use crate::broker::MetricSample;

/// Why a credential is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is no key of this server, and no token.
    Unknown,
    /// Its header or message is not what it should be.
    Malformed,
    /// It was valid once.
    Expired,
    /// It is a token that does not hold.
    Token(Refusal),
}

impl Reason {
    /// The label `reason` of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Unknown => "unknown",
            Reason::Malformed => "malformed",
            Reason::Expired => "expired",
            Reason::Token(refusal) => refusal.reason(),
        }
    }
}

/// All labels, each with its counter.
const LABELS: [&str; 11] = [
    "unknown",
    "malformed",
    "expired",
    "wrong_algorithm",
    "unknown_key",
    "bad_signature",
    "not_yet_valid",
    "wrong_issuer",
    "wrong_audience",
    "bad_claims",
    "keys_unavailable",
];

/// Lines of the log in one second; the next one then says how many there would have been.
const LINES_PER_SECOND: u32 = 10;

/// Counts refused credentials.
pub struct Refusals {
    counts: [AtomicU64; LABELS.len()],
    log: Mutex<Log>,
}

struct Log {
    second: Instant,
    lines: u32,
    left_out: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            log: Mutex::new(Log { second: Instant::now(), lines: 0, left_out: 0 }),
        }
    }
}

impl Refusals {
    /// Counts a refused credential.
    pub fn count(&self, reason: Reason) {
        if let Some(index) = LABELS.iter().position(|label| *label == reason.label()) {
            self.counts[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs a refused credential, unless many were logged within this second. `log` is called with the number of those that
    /// were left out before.
    pub fn log(&self, log: impl FnOnce(u64)) {
        let mut state = self.log.lock();
        if state.second.elapsed() >= Duration::from_secs(1) {
            (state.second, state.lines) = (Instant::now(), 0);
        }
        if state.lines >= LINES_PER_SECOND {
            state.left_out += 1;
            return;
        }
        state.lines += 1;
        let left_out = std::mem::take(&mut state.left_out);
        drop(state);
        log(left_out);
    }

    /// The counts by reason.
    pub fn metric_samples(&self) -> Vec<MetricSample> {
        let help = "Credentials that were refused.";
        let sample = |(label, count): (&&'static str, &AtomicU64)| MetricSample {
            name: "auth_refused_total",
            label: Some(("reason", label)),
            counter: true,
            help,
            value: count.load(Ordering::Relaxed),
        };
        LABELS.iter().zip(&self.counts).map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted() {
        let refusals = Refusals::default();
        let tokens = [
            Refusal::Malformed,
            Refusal::WrongAlgorithm,
            Refusal::UnknownKey,
            Refusal::BadSignature,
            Refusal::Expired,
            Refusal::NotYetValid,
            Refusal::WrongIssuer,
            Refusal::WrongAudience,
            Refusal::BadClaims("sub is missing"),
            Refusal::KeysUnavailable,
        ];
        let reasons: Vec<_> = tokens.into_iter().map(Reason::Token).chain([Reason::Unknown]).collect();
        for reason in &reasons {
            refusals.count(*reason);
        }
        assert!(refusals.metric_samples().iter().all(|sample| sample.value == 1));
        refusals.count(Reason::Expired);
        let expired = refusals.metric_samples().into_iter().find(|sample| sample.label == Some(("reason", "expired")));
        assert_eq!(expired.unwrap().value, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_is_bounded() {
        let refusals = Refusals::default();
        let mut lines = Vec::new();
        for _ in 0..1_000 {
            refusals.log(|left_out| lines.push(left_out));
        }
        assert_eq!(lines, [0; 10]);
        tokio::time::advance(Duration::from_secs(1)).await;
        refusals.log(|left_out| lines.push(left_out));
        assert_eq!(lines.last(), Some(&990));
    }
}
