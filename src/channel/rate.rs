//! The publish rate of a topic: a token bucket that holds one second's worth.

use std::time::Duration;

use tokio::time::Instant;

use super::Error;

/// A token bucket in the form of one instant: when it will be full again. Holds one second's worth of tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    per_second: u32,
    full_at: Option<Instant>,
    /// Tokens taken for messages that are on their way to an engine that instances share.
    ahead: u32,
}

impl Bucket {
    /// `per_second` messages a second, bursts of as many; 0 means no limit.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, full_at: None, ahead: 0 }
    }

    pub fn per_second(self) -> u32 {
        self.per_second
    }

    /// Whether it holds all that it can hold.
    pub fn is_full(self) -> bool {
        self.full_at.is_none_or(|at| at <= Instant::now())
    }

    /// Takes one token.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the wait after which there is one.
    pub fn take(&mut self) -> Result<(), Error> {
        self.check()?;
        self.pay();
        Ok(())
    }

    /// Takes one token for a message that will be back: [`Bucket::charge`] does not take it again. Who learns that it
    /// will not be back calls [`Bucket::release`]. One that was let through before, in another incarnation of its
    /// topic, is let through again, whether there is a token or not.
    ///
    /// # Errors
    /// As [`Bucket::take`].
    pub fn reserve(&mut self, let_through: bool) -> Result<(), Error> {
        if !let_through {
            self.check()?;
        }
        self.pay();
        self.ahead = self.ahead.saturating_add(1);
        Ok(())
    }

    /// A message for which a token was taken ahead is not stored, or was before.
    pub fn release(&mut self) {
        // No reservation is left if the limit was changed meanwhile.
        if let Some(ahead) = self.ahead.checked_sub(1) {
            self.ahead = ahead;
            if self.per_second > 0 {
                let token = self.token();
                self.full_at = self.full_at.and_then(|at| at.checked_sub(token));
            }
        }
    }

    /// Whether there is a token.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the wait after which there is one.
    pub fn check(self) -> Result<(), Error> {
        if self.per_second == 0 {
            return Ok(());
        }
        let (token, now) = (self.token(), Instant::now());
        let missing = (self.full_at.map_or(now, |at| at.max(now)) + token).duration_since(now);
        // Dividing rounds the token's length down, so a full bucket is that many tokens, which is less than a second.
        if missing > token * self.per_second {
            let wait = whole_milliseconds(missing.saturating_sub(token * self.per_second));
            return Err(Error::RateLimited { per_second: self.per_second, wait });
        }
        Ok(())
    }

    /// A message was stored, by whomever. If it is one's own, its token was taken ahead; which one is whose makes no
    /// difference to the sum. The others take a token whether there is one or not. What others publish at the same time
    /// elsewhere may overdraw, so there is a bound on the debt: two seconds' worth.
    pub fn charge(&mut self) {
        match self.ahead.checked_sub(1) {
            Some(ahead) => self.ahead = ahead,
            None => self.pay(),
        }
    }

    fn pay(&mut self) {
        if self.per_second > 0 {
            let (token, now) = (self.token(), Instant::now());
            let full_at = self.full_at.map_or(now, |at| at.max(now)) + token;
            self.full_at = Some(full_at.min(now + Duration::from_secs(2)));
        }
    }

    fn token(self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }
}

/// Rounded up, because clients are told milliseconds, and one that waits less is refused again.
fn whole_milliseconds(wait: Duration) -> Duration {
    let wait = wait.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(wait).unwrap_or(u64::MAX))
}

/// The waits of several messages to one topic that were refused together: the first one waits for the next token, and each
/// of the others for one more. No wait is less than a token's time, because the tokens that came between the first refusal
/// and the last one may be taken.
pub fn spread_waits<'a>(per_second: u32, waits: impl Iterator<Item = &'a mut Duration>) {
    let token = |count: u32| Duration::from_secs(u64::from(count)) / per_second.max(1);
    let waits: Vec<&mut Duration> = waits.collect();
    let longest = waits.iter().map(|wait| **wait).max().unwrap_or_default().max(token(1));
    for (before, wait) in (0_u32..).zip(waits) {
        *wait = whole_milliseconds(longest.saturating_add(token(before)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_of_burst_then_the_rate() {
        let mut bucket = Bucket::new(100);
        assert_eq!((0..150).filter(|_| bucket.take().is_ok()).count(), 100);
        let Err(Error::RateLimited { wait, .. }) = bucket.take() else { panic!("still open") };
        assert_eq!(wait, Duration::from_millis(10));
        tokio::time::advance(wait).await;
        assert!(bucket.take().is_ok());
        assert!(bucket.take().is_err());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((0..150).filter(|_| bucket.take().is_ok()).count(), 100);
    }

    /// Who waits as long as it was told is let through, whatever the rate and whoever else of the batch is.
    #[tokio::test(start_paused = true)]
    async fn waiting_as_told_is_enough() {
        for per_second in [1, 3, 7, 100, 999, 1_500] {
            let mut bucket = Bucket::new(per_second);
            let mut refused = Vec::new();
            for _ in 0..per_second + 100 {
                if let Err(Error::RateLimited { wait, .. }) = bucket.take() {
                    refused.push(wait);
                }
                tokio::time::advance(Duration::from_micros(10)).await;
            }
            assert!(!refused.is_empty() && refused.iter().all(|wait| wait.subsec_nanos() % 1_000_000 == 0));
            spread_waits(per_second, refused.iter_mut());
            assert!(refused.is_sorted(), "{refused:?}");
            let told_at = Instant::now();
            for wait in refused {
                tokio::time::sleep_until(told_at + wait).await;
                assert_eq!(bucket.take(), Ok(()), "{per_second} a second, after {wait:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_its_way_is_counted_once() {
        let mut bucket = Bucket::new(100);
        // A burst is no larger for being on its way all at once.
        assert_eq!((0..150).filter(|_| bucket.reserve(false).is_ok()).count(), 100);
        // Other instances' messages, and then one's own: the sum is what counts.
        (0..150).for_each(|_| bucket.charge());
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(bucket.take().is_err(), "50 more than the second's worth");
        tokio::time::advance(Duration::from_millis(10)).await;
        assert!(bucket.take().is_ok());
        tokio::time::advance(Duration::from_secs(1)).await;
        // What is not stored costs nothing.
        assert_eq!((0..150).filter(|_| bucket.reserve(false).is_ok()).count(), 100);
        (0..100).for_each(|_| bucket.release());
        assert_eq!((0..150).filter(|_| bucket.reserve(false).is_ok()).count(), 100);
        assert!(bucket.reserve(true).is_ok());
    }

    #[test]
    fn zero_is_no_limit() {
        let mut bucket = Bucket::new(0);
        assert!((0..10_000).all(|_| bucket.take().is_ok()));
    }
}
