//! How many messages may be sent now.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// A rate that is kept evenly, without bursts.
#[derive(Debug)]
pub struct Pace {
    /// From one message to the next.
    step: Duration,
    next: Instant,
}

/// After a wait for the server, as many messages as this time has let through are sent at once.
const CATCH_UP: Duration = Duration::from_millis(100);

impl Pace {
    pub fn new(per_second: NonZeroU32) -> Self {
        Self { step: Duration::from_secs(1) / per_second.get(), next: Instant::now() }
    }

    /// How many messages are due, and, if none is, how long the next one has to wait.
    pub fn due(&mut self) -> Result<usize, Duration> {
        let now = Instant::now();
        if let Some(earliest) = now.checked_sub(CATCH_UP) {
            self.next = self.next.max(earliest);
        }
        let Some(late) = now.checked_duration_since(self.next) else { return Err(self.next - now) };
        let steps = late.as_nanos() / self.step.as_nanos().max(1);
        Ok(usize::try_from(steps).unwrap_or(usize::MAX).saturating_add(1))
    }

    /// So many were sent.
    pub fn sent(&mut self, count: usize) {
        self.next += self.step.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

/// The publish rate of a topic as its server counts it: one second's worth at once, then one message after the other.
#[derive(Debug)]
pub struct TopicRate {
    /// From one message to the next; none if the topic has no rate.
    step: Option<Duration>,
    per_second: u32,
    /// When as many messages as one second lets through may be sent at once.
    full_at: Instant,
}

impl TopicRate {
    /// A rate of 0 is none.
    pub fn new(per_second: u32) -> Self {
        let step = (per_second > 0).then(|| Duration::from_secs(1) / per_second);
        Self { step, per_second, full_at: Instant::now() }
    }

    /// Takes the place of one message. If there is none, returns how long the message has to wait.
    pub fn take(&mut self) -> Result<(), Duration> {
        let Some(step) = self.step else { return Ok(()) };
        let now = Instant::now();
        let full_at = self.full_at.max(now) + step;
        let wait = (full_at - now).saturating_sub(step * self.per_second);
        if wait.is_zero() {
            self.full_at = full_at;
            return Ok(());
        }
        Err(wait)
    }

    /// The server has refused a message, and lets the next one through after a wait.
    pub fn refused(&mut self, wait: Duration) {
        if let Some(step) = self.step {
            let burst = step * self.per_second;
            self.full_at = self.full_at.max(Instant::now() + wait + burst.saturating_sub(step));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_even() {
        let mut pace = Pace::new(NonZeroU32::new(100).unwrap());
        assert_eq!(pace.due(), Ok(1));
        pace.sent(1);
        assert_eq!(pace.due(), Err(Duration::from_millis(10)));
        tokio::time::advance(Duration::from_millis(35)).await;
        assert_eq!(pace.due(), Ok(3));
        pace.sent(3);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(pace.due(), Ok(11), "no burst after a long wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_takes_a_burst_and_then_its_rate() {
        let mut rate = TopicRate::new(10);
        assert_eq!((0..20).filter(|_| rate.take().is_ok()).count(), 10);
        assert_eq!(rate.take(), Err(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!((rate.take().is_ok(), rate.take().is_ok()), (true, false));
        tokio::time::advance(Duration::from_secs(5)).await;
        rate.refused(Duration::from_millis(70));
        assert_eq!(rate.take(), Err(Duration::from_millis(70)), "others publish to the topic, too");
        assert!((0..1_000).all(|_| TopicRate::new(0).take().is_ok()));
    }
}
