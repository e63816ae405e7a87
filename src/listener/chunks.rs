//! The body of a response that is a stream, in chunks (RFC 9112, 7.1). What is ready leaves in one write. A stream that waits
//! for its next event has no buffer.

use std::{
    future::poll_fn,
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::ahead::poll_read;

/// Bytes that are read ahead while a stream goes on. Reading is how the server notices that the client has gone.
const READ_AHEAD: usize = 8 << 10;

/// A stream over a connection.
pub(super) struct Chunked<S> {
    io: S,
    /// What the client has sent behind the request.
    unread: Bytes,
    body: Body,
    out: Pending,
    /// Whether the connection may still hold what it has taken: TLS has buffers of its own.
    is_unflushed: bool,
    has_ended: bool,
}

/// What is to be written: the head of the response or of a chunk, the data of the chunk, and the end of its line.
struct Pending {
    head: Vec<u8>,
    /// Bytes of the head that are written.
    written: usize,
    data: Bytes,
    end: &'static [u8],
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.head.is_empty() && self.data.is_empty() && self.end.is_empty()
    }

    fn parts(&self) -> [IoSlice<'_>; 3] {
        [IoSlice::new(&self.head[self.written..]), IoSlice::new(&self.data), IoSlice::new(self.end)]
    }

    /// So many bytes were written.
    fn advance(&mut self, mut bytes: usize) {
        let of_head = bytes.min(self.head.len() - self.written);
        self.written += of_head;
        bytes -= of_head;
        if self.written == self.head.len() {
            (self.head, self.written) = (Vec::new(), 0);
        }
        let of_data = bytes.min(self.data.len());
        self.data.advance(of_data);
        if self.data.is_empty() {
            // Lets go of the memory, which an empty part of it would keep.
            self.data = Bytes::new();
        }
        self.end = &self.end[bytes - of_data..];
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Chunked<S> {
    /// The stream `body` behind the head of its response. `unread` is what was read behind the request.
    pub fn new(io: S, unread: Bytes, head: Vec<u8>, body: Body) -> Self {
        let out = Pending { head, written: 0, data: Bytes::new(), end: b"" };
        Self { io, unread, body, out, is_unflushed: false, has_ended: false }
    }

    /// Writes the stream to its end. Returns the connection and what was read ahead, or nothing if the client is gone or the
    /// stream broke off.
    pub async fn run(mut self) -> Option<(S, Bytes)> {
        let done = poll_fn(|cx| self.poll(cx)).await;
        done.is_ok().then_some((self.io, self.unread))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.len() < READ_AHEAD
            && let Poll::Ready(read) = poll_read(&mut self.io, &mut self.unread, cx)
        {
            if read? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        loop {
            // The first chunk goes with the head.
            let waits = self.poll_chunk(cx)?.is_pending();
            ready!(self.poll_write(cx))?;
            if waits {
                return Poll::Pending;
            }
            if self.has_ended {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Begins the next chunk if the last one is written.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_ended || !self.out.data.is_empty() || !self.out.end.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(frame) => {
                let data = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
                // An empty chunk would be the last.
                if !data.is_empty() {
                    // Writing to a Vec cannot fail.
                    let _ = write!(self.out.head, "{:x}\r\n", data.len());
                    (self.out.data, self.out.end) = (data, b"\r\n");
                }
            }
            None => {
                self.out.head.extend_from_slice(b"0\r\n\r\n");
                self.has_ended = true;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &self.out.parts()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.out.advance(bytes),
            }
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
