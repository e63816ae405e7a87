//! An outcome that is there at once, or comes later.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// The outcome of something that was asked for: there at once, without an allocation, or to come.
#[must_use]
pub struct Reply<R>(Kind<R>);

enum Kind<R> {
    /// `None` once it was taken.
    Ready(Option<R>),
    Pending(Pin<Box<dyn Future<Output = R> + Send>>),
    Unordered(Pin<Box<dyn Future<Output = R> + Send>>),
}

impl<R> Reply<R> {
    /// The outcome is there.
    pub fn ready(outcome: R) -> Self {
        Self(Kind::Ready(Some(outcome)))
    }

    /// What was asked for has its place in the order: what is asked for behind it stays behind it, whether this was
    /// polled or not.
    pub fn pending(outcome: impl Future<Output = R> + Send + 'static) -> Self {
        Self(Kind::Pending(Box::pin(outcome)))
    }

    /// Nothing has happened yet, and nothing does unless this is polled. Who cares about the order waits for the
    /// outcome before the next one is asked for.
    pub fn unordered(outcome: impl Future<Output = R> + Send + 'static) -> Self {
        Self(Kind::Unordered(Box::pin(outcome)))
    }

    /// Whether what is asked for next stays behind this without waiting for it.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        !matches!(self.0, Kind::Unordered(_))
    }

    /// The outcome if it is there, else what will bring it.
    ///
    /// # Errors
    /// The reply itself while it is pending.
    pub fn now(self) -> Result<R, Self> {
        match self.0 {
            Kind::Ready(Some(outcome)) => Ok(outcome),
            kind => Err(Self(kind)),
        }
    }
}

impl<R> From<R> for Reply<R> {
    fn from(outcome: R) -> Self {
        Self::ready(outcome)
    }
}

impl<R: Unpin> Future for Reply<R> {
    type Output = R;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        match &mut self.get_mut().0 {
            // A future may do anything when it is polled after its outcome was taken; this one stays pending.
            Kind::Ready(outcome) => outcome.take().map_or(Poll::Pending, Poll::Ready),
            Kind::Pending(outcome) | Kind::Unordered(outcome) => outcome.as_mut().poll(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_outcome_is_the_same_now_and_later() {
        let replies = || [Reply::ready(7), Reply::pending(async { 7 }), Reply::unordered(async { 7 })];
        let ordered = replies().map(|reply| reply.is_ordered());
        assert_eq!(ordered, [true, true, false]);
        let [ready, pending, unordered] = replies().map(Reply::now);
        assert!(ready.is_ok_and(|outcome| outcome == 7));
        for later in [pending, unordered] {
            let Err(later) = later else { panic!("there already") };
            assert_eq!(later.await, 7);
        }
        for reply in replies() {
            assert_eq!(reply.await, 7);
        }
    }
}
