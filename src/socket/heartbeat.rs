//! The heartbeat timeout of a connection: when to ping the client, and when to give it up.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::Settings;

/// Counts the steps of one timer since the client was last active. Activity only resets a counter, so a busy connection
/// never touches the timer.
pub struct Heartbeat {
    timer: Pin<Box<Sleep>>,
    /// Half of the shorter of the two timeouts, so that neither is exceeded by more than that.
    step: Duration,
    /// Steps since something came from the client.
    since_read: u32,
    /// Steps since the socket took something, while something is pending.
    since_write: u32,
    max_since_write: u32,
}

/// What to do at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client is active, or was asked already.
    Wait,
    /// The client has sent nothing for the ping interval.
    Ping,
    /// It has not replied either, or takes nothing of what is written to it.
    TimedOut,
}

impl Heartbeat {
    pub fn new(settings: &Settings) -> Self {
        let step = (settings.ping_interval.min(settings.write_timeout) / 2).max(Duration::from_millis(1));
        let steps = settings.write_timeout.as_nanos().div_ceil(step.as_nanos());
        let max_since_write = u32::try_from(steps).unwrap_or(u32::MAX);
        Self { timer: Box::pin(sleep(step)), step, since_read: 0, since_write: 0, max_since_write }
    }

    /// Something came from the client.
    pub fn read(&mut self) {
        self.since_read = 0;
    }

    /// The socket took something.
    pub fn wrote(&mut self) {
        self.since_write = 0;
    }

    /// Ready when [`Heartbeat::step`] is due.
    pub fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(cx)
    }

    /// Takes a step. `is_pending` is whether something waits for the socket.
    pub fn step(&mut self, is_pending: bool) -> Verdict {
        self.timer.as_mut().reset(Instant::now() + self.step);
        self.since_read += 1;
        self.since_write = if is_pending { self.since_write + 1 } else { 0 };
        // While the socket takes nothing no ping reaches the client, so that it sends nothing does not mean that it is gone.
        if is_pending {
            self.since_read = self.since_read.min(1);
        }
        match (self.since_read, self.since_write) {
            (_, since_write) if since_write > self.max_since_write => Verdict::TimedOut,
            (2, _) => Verdict::Ping,
            (4.., _) => Verdict::TimedOut,
            _ => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat() -> Heartbeat {
        let (ping_interval, write_timeout) = (Duration::from_secs(30), Duration::from_mins(5));
        Heartbeat::new(&Settings { ping_interval, write_timeout, ..Settings::default() })
    }

    #[tokio::test]
    async fn a_silent_client_is_pinged_once_and_then_given_up() {
        let mut heartbeat = heartbeat();
        let verdicts: Vec<_> = (0..4).map(|_| heartbeat.step(false)).collect();
        assert_eq!(verdicts, [Verdict::Wait, Verdict::Ping, Verdict::Wait, Verdict::TimedOut]);
        heartbeat.read();
        assert_eq!(heartbeat.step(false), Verdict::Wait);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_has_the_write_timeout() {
        let mut heartbeat = heartbeat();
        // Five minutes in steps of 15 seconds.
        assert!((0..20).all(|_| heartbeat.step(true) == Verdict::Wait));
        assert_eq!(heartbeat.step(true), Verdict::TimedOut);
        heartbeat.wrote();
        assert_eq!(heartbeat.step(true), Verdict::Wait);
    }
}
