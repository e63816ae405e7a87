//! How long to wait before the next attempt.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);
/// No wait is longer, so that a server that is back is found soon.
const LONGEST: Duration = Duration::from_secs(10);

/// Waits that double from one attempt to the next. Half of each is random, so that the clients of a server that comes back
/// do not all come at once.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The wait before the next attempt; at least `hint`, which a server may have given.
    pub fn next(&mut self, hint: Option<Duration>) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.attempts.min(16)).min(LONGEST);
        self.attempts += 1;
        let half = longest / 2;
        // The random part of an id: 62 bits of it.
        let random = uuid::Uuid::new_v4().as_u64_pair().1;
        let part = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        (half + Duration::from_nanos(random % part)).max(hint.unwrap_or_default())
    }

    /// An attempt has succeeded.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next(None)).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] < FIRST, "{waits:?}");
        assert!(waits[3] >= FIRST * 4 && waits[3] < FIRST * 8, "{waits:?}");
        assert!(waits[10..].iter().all(|wait| *wait >= LONGEST / 2 && *wait <= LONGEST), "{waits:?}");
        assert_eq!(backoff.next(Some(LONGEST * 2)), LONGEST * 2, "as long as the server asks for");
        backoff.reset();
        assert!(backoff.next(None) < FIRST);
    }
}
