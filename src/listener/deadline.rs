//! How long a connection may go without a request: one time for sending it, and another one for being idle between two.
//! hyper has one timer for both.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::pieces::Pieces;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between two requests.
    Idle,
    /// The client is sending the head of a request. A new connection begins with this.
    Head,
    /// A request is being answered. Its body and the response have limits of their own.
    Busy,
}

/// What the connection is at. Only its own task changes this, so relaxed operations are enough.
pub(super) struct Activity(AtomicU32);

impl Activity {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU32::new(Phase::Head as u32)))
    }

    fn phase(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) & 3 {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        }
    }

    /// The bits above the phase count the changes, so that a phase that has come again is seen as another one.
    fn set(&self, phase: Phase) {
        let changes = self.0.load(Ordering::Relaxed) & !3;
        self.0.store(changes.wrapping_add(4) | phase as u32, Ordering::Relaxed);
    }

    /// A request has arrived; the connection is busy until the guard is dropped.
    pub fn request(self: &Arc<Self>) -> BusyGuard {
        self.set(Phase::Busy);
        BusyGuard(self.clone())
    }
}

/// Lives as long as a request is being answered.
pub(super) struct BusyGuard(Arc<Activity>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.set(Phase::Idle);
    }
}

/// A time that is often put off. Its timer is set when it fires too early, and not each time, which would cost more.
pub(super) struct Alarm {
    at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Alarm {
    pub fn new(at: Instant) -> Self {
        Self { at, timer: Box::pin(sleep_until(at)) }
    }

    pub fn at(&self) -> Instant {
        self.at
    }

    pub fn set(&mut self, at: Instant) {
        self.at = at;
    }

    /// Ready when the time has come.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.at < self.timer.deadline() {
                self.timer.as_mut().reset(self.at);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.timer.deadline() >= self.at {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.at);
        }
    }
}

/// The deadline of the phase that a connection is in.
pub(super) struct Deadline {
    activity: Arc<Activity>,
    head: Duration,
    idle: Duration,
    seen: u32,
    /// Whether the phase has one.
    is_limited: bool,
    alarm: Alarm,
}

impl Deadline {
    /// `first`: when the head of the first request must have come. `head`: the time for sending that of each later one.
    /// `idle`: the time between two requests.
    pub fn new(activity: Arc<Activity>, first: Instant, head: Duration, idle: Duration) -> Self {
        let seen = activity.0.load(Ordering::Relaxed);
        Self { activity, head, idle, seen, is_limited: true, alarm: Alarm::new(first) }
    }

    /// Ready when the deadline has passed. It must be polled after the connection, which changes the phase.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.activity.0.load(Ordering::Relaxed);
        if now != self.seen {
            self.seen = now;
            let limit = match self.activity.phase() {
                Phase::Idle => Some(self.idle),
                Phase::Head => Some(self.head),
                Phase::Busy => None,
            };
            self.is_limited = limit.is_some();
            if let Some(limit) = limit {
                self.alarm.set(Instant::now() + limit);
            }
        }
        if self.is_limited { self.alarm.poll(cx) } else { Poll::Pending }
    }
}

/// A stream that notices the first bytes of a request.
pub(super) struct Watched<S> {
    pub stream: S,
    pub activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before && self.activity.phase() == Phase::Idle {
            self.activity.set(Phase::Head);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The body of a response, during which the connection is busy.
pub(super) struct Answering {
    pub body: Pieces,
    pub _guard: BusyGuard,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const HEAD: Duration = Duration::from_secs(30);
    const IDLE: Duration = Duration::from_secs(75);

    /// Polls as a connection's task does, then lets the time pass.
    async fn passes_after(deadline: &mut Deadline, time: Duration) -> bool {
        let begun = Instant::now();
        let passed = tokio::time::timeout(time * 2, poll_fn(|cx| deadline.poll(cx))).await.is_ok();
        passed && begun.elapsed() == time
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_time() {
        let activity = Activity::new();
        let mut deadline = Deadline::new(activity.clone(), Instant::now() + HEAD, HEAD, IDLE);
        assert!(passes_after(&mut deadline, HEAD).await, "a new connection");

        let mut deadline = Deadline::new(activity.clone(), Instant::now() + HEAD, HEAD, IDLE);
        let busy = activity.request();
        assert!(tokio::time::timeout(IDLE * 10, poll_fn(|cx| deadline.poll(cx))).await.is_err(), "a request");
        drop(busy);
        assert!(passes_after(&mut deadline, IDLE).await, "between two requests");

        drop(activity.request());
        assert!(tokio::time::timeout(IDLE / 2, poll_fn(|cx| deadline.poll(cx))).await.is_err());
        activity.set(Phase::Head);
        assert!(passes_after(&mut deadline, HEAD).await, "the head of a later request");

        let mut deadline = Deadline::new(activity.clone(), Instant::now() + HEAD, HEAD, IDLE);
        for _ in 0..100 {
            drop(activity.request());
            let wait = tokio::time::timeout(IDLE * 9 / 10, poll_fn(|cx| deadline.poll(cx)));
            assert!(wait.await.is_err(), "requests that come in time");
        }
    }
}
