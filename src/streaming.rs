//! Response bodies that are streams. A subscription is read when, and only when, the connection takes more, so for a client
//! that does not read nothing grows: its cursor stands still.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::broker::Inbox;

/// Bytes after which a chunk is handed to the connection.
const CHUNK: usize = 64 << 10;

/// Whether a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFlow {
    /// It does.
    Go,
    /// What was written is the last.
    End,
}

/// What a door writes into a stream.
pub trait StreamContent: Send + Unpin + 'static {
    /// The subscription under `key` has something to read: one batch goes out.
    fn deliver(&mut self, key: u64, out: &mut Vec<u8>) -> StreamFlow;

    /// Writes what shows that an idle stream lives.
    fn heartbeat(&mut self, out: &mut Vec<u8>);

    /// The connection has taken everything so far.
    fn taken(&mut self) {}
}

struct Streaming<S, G> {
    content: S,
    inbox: Inbox,
    heartbeat: Duration,
    sleep: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Bytes of the last chunk: the next one is probably as large.
    last_chunk: u32,
    taken: bool,
    ended: bool,
    _guard: G,
}

/// The response of a stream.
pub fn response(content_type: &'static str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), content_type),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // The same address serves other forms to other clients, and caches must not mix them up.
        (header::VARY.as_str(), "accept"),
        // nginx buffers responses unless told otherwise, which would hold back what is streamed.
        ("x-accel-buffering", "no"),
    ];
    (headers, body).into_response()
}

/// The response to HEAD for a stream: its headers alone, among which is no length.
pub fn head(content_type: &'static str) -> Response {
    response(content_type, Body::from_stream(tokio_stream::empty::<Result<Bytes, std::convert::Infallible>>()))
}

/// The body. A heartbeat is written when nothing else was for the time `heartbeat`; `guard` lives as long as the body.
pub fn body<S: StreamContent, G: Send + Unpin + 'static>(
    content: S,
    inbox: Inbox,
    heartbeat: Duration,
    stop: CancellationToken,
    guard: G,
) -> Body {
    Body::new(Streaming {
        content,
        inbox,
        heartbeat,
        sleep: Box::pin(sleep(heartbeat)),
        stop: Box::pin(stop.cancelled_owned()),
        last_chunk: 0,
        taken: true,
        ended: false,
        _guard: guard,
    })
}

impl<S: StreamContent, G: Send + Unpin + 'static> http_body::Body for Streaming<S, G> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut this.taken, true) {
            this.content.taken();
        }
        let mut chunk = Vec::new();
        let mut ready = false;
        while chunk.len() < CHUNK && !this.ended {
            let Poll::Ready(key) = this.inbox.poll_next(cx) else {
                ready = true;
                break;
            };
            if chunk.is_empty() {
                chunk.reserve(CHUNK.min(this.last_chunk as usize));
            }
            let flow = this.content.deliver(key, &mut chunk);
            this.ended = flow == StreamFlow::End;
        }
        if ready && chunk.is_empty() {
            // A stop takes effect when everything accepted before it was written. The body then just ends: a protocol's own
            // message at the end of a stream would tell clients not to come back.
            if this.stop.as_mut().poll(cx).is_ready() {
                this.ended = true;
            } else if this.sleep.as_mut().poll(cx).is_ready() {
                this.content.heartbeat(&mut chunk);
            }
        }
        if chunk.is_empty() {
            return if this.ended { Poll::Ready(None) } else { Poll::Pending };
        }
        this.taken = false;
        this.last_chunk = chunk.len() as u32;
        this.sleep.as_mut().reset(Instant::now() + this.heartbeat);
        // A timer that was reset wakes nobody until it is polled again, which the next call does.
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }
}
