//! The publish rate of a topic: a token bucket that holds one second's worth.

use std::time::Duration;

use tokio::time::Instant;

use super::Error;

/// A token bucket in the form of one instant: when it will be full again. Holds one second's worth of tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    per_second: u32,
    full_at: Option<Instant>,
}

impl Bucket {
    /// `per_second` messages a second, bursts of as many; 0 means no limit.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, full_at: None }
    }

    pub fn per_second(self) -> u32 {
        self.per_second
    }

    /// Takes one token.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the wait after which there is one.
    pub fn take(&mut self) -> Result<(), Error> {
        self.check()?;
        self.charge();
        Ok(())
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
        // Dividing cuts the token's length, so a full bucket is that many tokens rather than a second.
        if missing > token * self.per_second {
            let wait = missing.saturating_sub(token * self.per_second);
            return Err(Error::RateLimited { per_second: self.per_second, wait });
        }
        Ok(())
    }

    /// Takes a token whether there is one or not: the message is published already. What others publish at the same time
    /// elsewhere may overdraw, so there is a bound on the debt: two seconds' worth.
    pub fn charge(&mut self) {
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

    #[test]
    fn zero_is_no_limit() {
        let mut bucket = Bucket::new(0);
        assert!((0..10_000).all(|_| bucket.take().is_ok()));
    }
}
