//! HTTP/2 over one connection, after a handshake of TLS in which the client has chosen it.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use slab::Slab;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Times,
    pieces::Pieces,
    respond::{MAX_BUFFER, respond_with_id},
};
use crate::{front::Front, socket::ConnectionInfo};

/// Requests, event streams and WebSockets that may be open on one connection.
const MAX_STREAMS: u32 = 200;

/// Bytes of a response that are handed on at once, and that may be on their way to the socket. There are many streams, so this is
/// less than with HTTP/1: one frame of the usual size.
const PIECE: usize = 16 << 10;

/// The shortest time between two looks at responses that wait.
const LEAST_LOOK: Duration = Duration::from_millis(50);

/// Streams that a client has reset before they were accepted ("rapid reset"). Behind that the connection is closed. hyper's default
/// is the same; it stands here because the tests of attacks rely on it.
const MAX_PENDING_RESETS: usize = 20;

/// Streams that were reset because the client broke the rules in them. Behind that the connection is closed.
const MAX_ERROR_RESETS: usize = 200;

/// The shortest time between two pings.
const LEAST_PING: Duration = Duration::from_secs(1);

/// How long a connection without requests may take to say goodbye.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// The streams that are open on a connection, and since when there is none.
struct Streams {
    begun: Instant,
    open: AtomicUsize,
    /// Milliseconds from `begun` to the end of the last stream.
    quiet_since: AtomicU64,
    /// Whether there was a stream.
    is_used: AtomicBool,
    /// Since when each response waits for its client, in milliseconds from `begun`. The bound is that of streams.
    waiting: Mutex<Slab<Arc<AtomicU64>>>,
}

/// Counts one stream until it is dropped.
struct StreamGuard(Arc<Streams>);

/// A response that waits for its client to take what was handed on.
struct Waiting {
    streams: Arc<Streams>,
    key: usize,
    since: Arc<AtomicU64>,
}

/// A response that waits for nothing but its own next piece.
const NOT_WAITING: u64 = u64::MAX;

impl Streams {
    fn new() -> Arc<Self> {
        let (open, quiet_since, is_used) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { begun: Instant::now(), open, quiet_since, is_used, waiting: Mutex::default() })
    }

    fn enter(self: &Arc<Self>) -> StreamGuard {
        self.open.fetch_add(1, Ordering::AcqRel);
        self.is_used.store(true, Ordering::Relaxed);
        StreamGuard(self.clone())
    }

    /// Ends when there was no stream for the time that a connection has for its first request, or between two.
    async fn idle(&self, times: Times) {
        let is_used = || self.is_used.load(Ordering::Relaxed);
        self.quiet(self.begun, || if is_used() { times.keep_alive } else { times.request }).await;
    }

    /// Ends when there was no stream for the time `limit`, which begins at `from` or later.
    async fn quiet(&self, from: Instant, limit: impl Fn() -> Duration) {
        loop {
            let limit = limit();
            let since = from.max(self.begun + Duration::from_millis(self.quiet_since.load(Ordering::Acquire)));
            let is_quiet = self.open.load(Ordering::Acquire) == 0;
            let now = Instant::now();
            if is_quiet && since + limit <= now {
                return;
            }
            // A stream that ends meanwhile sets no timer: what it leaves is seen after the time at the latest, and once more.
            sleep_until(if is_quiet { since + limit } else { now + limit }).await;
        }
    }
}

impl Streams {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn wait(self: &Arc<Self>) -> Waiting {
        let since = Arc::new(AtomicU64::new(self.now()));
        let key = self.waiting.lock().insert(since.clone());
        Waiting { streams: self.clone(), key, since }
    }

    /// Ends when a client has taken nothing of a response for this time. One stream can stand still while others move, because
    /// each has a window of its own, so the kernel's time limit does not see it.
    async fn stalled(&self, limit: Duration) {
        let is_over = |since: &Arc<AtomicU64>| {
            let since = since.load(Ordering::Relaxed);
            since != NOT_WAITING && self.now().saturating_sub(since) >= limit.as_millis() as u64
        };
        while !self.waiting.lock().iter().any(|(_, since)| is_over(since)) {
            sleep((limit / 4).max(LEAST_LOOK)).await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.streams.waiting.lock().try_remove(self.key);
    }
}

/// The body of a response, with whether it waits for its client.
struct Held {
    body: Pieces,
    waiting: Waiting,
    _guard: Arc<dyn Send + Sync>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let since = if polled.is_ready() { self.waiting.streams.now() } else { NOT_WAITING };
        self.waiting.since.store(since, Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.quiet_since.fetch_max(self.0.now(), Ordering::AcqRel);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs the streams of a connection as tasks that a stop waits for. When the connection ends, they end.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

fn builder(times: Times, tasks: TaskTracker) -> hyper::server::conn::http2::Builder<Tasks> {
    let mut http = hyper::server::conn::http2::Builder::new(Tasks(tasks));
    http.timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_BUFFER as u32)
        .max_send_buf_size(PIECE)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        // Finds clients that have gone, and those that never finish the head of a request: in its midst no ping can be answered.
        .keep_alive_interval(times.ping.max(LEAST_PING))
        // A client that pauses reads no pings.
        .keep_alive_timeout(times.write)
        .enable_connect_protocol();
    http
}

/// Serves one connection; after `stop` it finishes what it is at.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    info: ConnectionInfo,
    front: Front,
    times: Times,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let streams = Streams::new();
    let counted = streams.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let request = request.map(Body::new);
        // A WebSocket outlives its request, and the connection must not be idle meanwhile: it takes this guard with it.
        let info = ConnectionInfo { guard: Arc::new((counted.enter(), info.guard.clone())), ..info.clone() };
        let (front, streams) = (front.clone(), counted.clone());
        async move {
            let response = respond_with_id(&front, &info, request).await;
            let held = |body| Held { body: Pieces::new(body, PIECE), waiting: streams.wait(), _guard: info.guard };
            Ok::<_, Infallible>(response.map(held))
        }
    });
    let mut serving = pin!(builder(times, tasks).serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // An error is a client that broke the rules or went away.
        _ = serving.as_mut() => return,
        () = streams.stalled(times.write) => return,
        () = streams.idle(times) => {}
        () = stop.cancelled() => {}
    }
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        _ = serving => {}
        () = streams.stalled(times.write) => {}
        () = streams.quiet(Instant::now(), || GOODBYE_TIME) => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const TIMES: Times = Times {
        request: Duration::from_secs(30),
        keep_alive: Duration::from_secs(75),
        ping: Duration::from_secs(30),
        write: Duration::from_secs(300),
    };

    async fn lasts(streams: &Arc<Streams>, longest: Duration) -> Option<Duration> {
        let before = Instant::now();
        timeout(longest, streams.idle(TIMES)).await.ok().map(|()| before.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_streams_ends() {
        let streams = Streams::new();
        assert_eq!(lasts(&streams, TIMES.request * 2).await.map(|time| time.as_secs()), Some(30), "no request at all");

        let streams = Streams::new();
        let (first, second) = (streams.enter(), streams.enter());
        drop(first);
        assert_eq!(lasts(&streams, TIMES.keep_alive * 10).await, None, "one stream is open");
        advance(Duration::from_secs(5)).await;
        drop(second);
        assert_eq!(
            lasts(&streams, TIMES.keep_alive * 2).await.map(|time| time.as_secs()),
            Some(75),
            "between requests"
        );
        let streams = Streams::new();
        for _ in 0..10 {
            drop(streams.enter());
            assert_eq!(lasts(&streams, TIMES.keep_alive * 9 / 10).await, None, "requests that come in time");
        }
    }
}
