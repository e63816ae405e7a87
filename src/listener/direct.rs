//! HTTP/1 without hyper, for the requests that most clients send: those that need nothing but a response (`head.rs` says
//! which). The rules are those of every request (`respond.rs`); what is saved is hyper's share of the work. An idle
//! connection has no buffer here. Whatever else comes goes to hyper, with what was read of it, and stays there.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, Request, Response, header},
};
use bytes::Bytes;
use http_body::Body as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::{
    Served,
    ahead::{PIECE, poll_read},
    chunks::Chunked,
    deadline::Alarm,
    head::{self, Framing, Head, Parsed},
    respond::{MAX_BUFFER, id_of, respond},
};
use crate::broker::RequestId;

/// How long the rest of a request may take to come. Behind that it is hyper's, with all the time that a request has. Most
/// clients that send a request in two pieces send the second one at once.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a connection goes on with.
pub(super) enum Next<S> {
    /// Nothing: it ends.
    Close(S),
    /// Nothing: its client is gone.
    Gone,
    /// A request that is not for this file, all that was read of it, and when its head must have come.
    Hyper(S, Bytes, Instant),
    /// The stream that is the body of a response.
    Stream(Chunked<S>),
}

/// A connection between the requests that it serves.
pub(super) struct Direct<'a, S> {
    io: S,
    /// What was read and not used yet.
    unread: Bytes,
    served: &'a Served,
}

/// What came of a request.
enum Done {
    /// The connection goes on with its next request.
    Served,
    /// It ends with this response.
    Last,
    /// The client is gone.
    Gone,
    /// The response is a stream, which begins with this head.
    Streams(Vec<u8>, Body),
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Direct<'a, S> {
    /// Over this stream, of which so much was read already.
    pub fn new(io: S, unread: Bytes, served: &'a Served) -> Self {
        Self { io, unread, served }
    }

    /// Serves requests as long as they are for this file. `is_new`: whether the connection has had none yet.
    pub async fn run(mut self, mut is_new: bool) -> Next<S> {
        let Served { times, stop, .. } = self.served;
        let mut stopped = pin!(stop.cancelled());
        let mut alarm = Alarm::new(Instant::now() + if is_new { times.request } else { times.keep_alive });
        loop {
            let begun = poll_fn(|cx| {
                if !self.unread.is_empty() {
                    return Poll::Ready(Ok(true));
                }
                if let Poll::Ready(read) = poll_read(&mut self.io, &mut self.unread, cx) {
                    return Poll::Ready(read.map(|bytes| bytes > 0));
                }
                if stopped.as_mut().poll(cx).is_ready() || alarm.poll(cx).is_ready() {
                    return Poll::Ready(Ok(false));
                }
                Poll::Pending
            });
            match begun.await {
                Ok(true) => {}
                Ok(false) => return Next::Close(self.io),
                Err(_) => return Next::Gone,
            }
            let Some(head) = self.head().await else {
                // The first request's time has begun with the connection.
                let until = if is_new { alarm.at() } else { Instant::now() + times.request };
                return Next::Hyper(self.io, self.unread, until);
            };
            match self.serve(head).await {
                Ok(Done::Served) => {
                    is_new = false;
                    alarm.set(Instant::now() + times.keep_alive);
                }
                Ok(Done::Last) => return Next::Close(self.io),
                Ok(Done::Gone) | Err(_) => return Next::Gone,
                Ok(Done::Streams(head, body)) => {
                    return Next::Stream(Chunked::new(self.io, self.unread, head, body));
                }
            }
        }
    }

    /// The head of the next request, whose body has come, too. `None` if it is not for this file.
    async fn head(&mut self) -> Option<Head> {
        let whole = |unread: &Bytes| match head::parse(unread) {
            // hyper knows what to say of heads that are too large.
            Parsed::Partial => (unread.len() >= PIECE).then_some(None),
            Parsed::Other => Some(None),
            Parsed::Head(head) if head.bytes + head.body > MAX_BUFFER => Some(None),
            Parsed::Head(head) => (unread.len() >= head.bytes + head.body).then_some(Some(head)),
        };
        if let Some(found) = whole(&self.unread) {
            return found;
        }
        let more = async {
            while self.unread.len() < MAX_BUFFER {
                let read = poll_fn(|cx| poll_read(&mut self.io, &mut self.unread, cx)).await;
                // hyper knows what to do with a request that breaks off.
                if !read.is_ok_and(|bytes| bytes > 0) {
                    return None;
                }
                if let Some(found) = whole(&self.unread) {
                    return found;
                }
            }
            None
        };
        Box::pin(timeout(PATIENCE, more)).await.ok().flatten()
    }

    async fn serve(&mut self, head: Head) -> io::Result<Done> {
        let body = self.unread.slice(head.bytes..head.bytes + head.body);
        self.unread = self.unread.slice(head.bytes + head.body..);
        let mut request = Request::new(if body.is_empty() { Body::empty() } else { Body::from(body) });
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.headers_mut() = head.headers;
        let id = id_of(&request);
        match self.response(request, &id).await {
            Some(response) => self.write(response, &id).await,
            None => Ok(Done::Gone),
        }
    }

    /// The response. `None` if the client goes away meanwhile; what it has asked for is then dropped.
    async fn response(&mut self, request: Request<Body>, id: &RequestId) -> Option<Response<Body>> {
        let Served { front, info, .. } = self.served;
        let mut responding = pin!(respond(front, info, request));
        poll_fn(|cx| {
            if let Poll::Ready(response) = id.enter(|| responding.as_mut().poll(cx)) {
                return Poll::Ready(Some(response));
            }
            while self.unread.len() < MAX_BUFFER {
                match ready!(poll_read(&mut self.io, &mut self.unread, cx)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(None),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Writes a response. Head and body leave in one write if the body is small and there.
    async fn write(&mut self, response: Response<Body>, id: &RequestId) -> io::Result<Done> {
        let (parts, mut body) = response.into_parts();
        let closes = self.served.stop.is_cancelled() || closes(&parts.headers);
        let Some(length) = body.size_hint().exact() else {
            let mut out = Vec::new();
            head::write(&mut out, &parts, id, Framing::Chunked, closes);
            return Ok(Done::Streams(out, body));
        };
        let mut out = Vec::with_capacity(512 + length.min(PIECE as u64) as usize);
        head::write(&mut out, &parts, id, Framing::Length(length), closes);
        while head::has_body(parts.status)
            && let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        {
            let data = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
            if out.len() + data.len() <= MAX_BUFFER {
                out.extend_from_slice(&data);
            } else {
                self.io.write_all(&out).await?;
                out.clear();
                self.io.write_all(&data).await?;
            }
            if body.is_end_stream() {
                break;
            }
        }
        self.io.write_all(&out).await?;
        self.io.flush().await?;
        Ok(if closes { Done::Last } else { Done::Served })
    }
}

/// Whether a response says that its connection ends.
fn closes(headers: &HeaderMap) -> bool {
    headers.get(header::CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
mod tests;
