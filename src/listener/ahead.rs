//! Reading ahead: what was read of a stream before its turn.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read at once.
pub(super) const PIECE: usize = 8 << 10;

/// Appends what can be read to `unread`. Ready with the number of bytes, of which there are none at the end.
pub(super) fn poll_read<S: AsyncRead + Unpin>(
    io: &mut S,
    unread: &mut Bytes,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    // On the stack, so that what waits has no buffer.
    let mut room = [const { MaybeUninit::uninit() }; PIECE];
    let mut buffer = ReadBuf::uninit(&mut room);
    ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
    let read = buffer.filled();
    if unread.is_empty() {
        *unread = Bytes::copy_from_slice(read);
    } else {
        let mut both = BytesMut::with_capacity(unread.len() + read.len());
        both.extend_from_slice(unread);
        both.extend_from_slice(read);
        *unread = both.freeze();
    }
    Poll::Ready(Ok(read.len()))
}

/// A stream, and what was read of it, which is read first.
pub(super) struct Ahead<S> {
    pub stream: S,
    pub read: Bytes,
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let bytes = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..bytes]);
        self.read.advance(bytes);
        if self.read.is_empty() {
            // Lets go of the memory.
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
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
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
