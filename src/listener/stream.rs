//! A connection's bytes on their way between the socket and hyper. Two things happen here that hyper does not do: a request that
//! cannot be parsed gets the error body that every error has, and a client that is still writing when its connection is closed
//! gets to read the response.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::problem::{Code, Problem};

/// How long a client that is still writing is read after its response: most of the time for which a stopping server waits.
const LINGER_TIME: Duration = Duration::from_secs(5);

/// How much of it is read, some times the usual bound of a body. A client that sends more is cut off.
const LINGER_BYTES: usize = 64 << 20;

/// A socket over which HTTP is served.
pub struct HttpStream<S> {
    io: S,
    /// Whether another protocol goes over it by now.
    is_upgraded: bool,
    /// An error response in place of hyper's, and how much of it the socket has taken.
    error: (Vec<u8>, usize),
    /// Whether the client may still be writing what nobody will read.
    is_unread: Arc<AtomicBool>,
    linger: Option<Linger>,
}

/// Reading what nobody wants, until the client has closed.
struct Linger {
    sleep: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> HttpStream<S> {
    /// Over this socket; `is_unread` is set while a request's body was not read to its end.
    pub fn new(io: S, is_unread: Arc<AtomicBool>) -> Self {
        Self { io, is_upgraded: false, error: (Vec::new(), 0), is_unread, linger: None }
    }

    fn poll_error(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (text, written) = &mut self.error;
        while *written < text.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &text[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => *written += bytes,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes hyper's own error response out of what is written, if it is one.
    fn replaces(&mut self, written: &[u8]) -> bool {
        self.is_upgraded |= written.starts_with(b"HTTP/1.1 101 ");
        let Some(error) = error_response(written).filter(|_| !self.is_upgraded) else { return false };
        self.error = (error, 0);
        self.is_unread.store(true, Ordering::Relaxed);
        true
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger =
            self.linger.get_or_insert_with(|| Linger { sleep: Box::pin(sleep(LINGER_TIME)), bytes_left: LINGER_BYTES });
        let mut sink = [0; 8 << 10];
        loop {
            if linger.bytes_left == 0 || linger.sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut sink);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    linger.bytes_left = linger.bytes_left.saturating_sub(buffer.filled().len());
                }
                // The client has closed, or is gone.
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for HttpStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HttpStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_error(cx))?;
        if self.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_error(cx))?;
        if let [head] = parts
            && self.replaces(head)
        {
            return Poll::Ready(Ok(head.len()));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_error(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Closes for writing. While a client writes, closing for reading, too, would reset the connection, and a reset makes the
    /// client lose a response that it has not read yet.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(self.poll_error(cx))?;
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        if self.is_unread.load(Ordering::Relaxed) {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// Where `written` is a response that hyper makes itself, to a request that it cannot parse: the same with the error body.
fn error_response(written: &[u8]) -> Option<Vec<u8>> {
    const NO_BODY: &str = "content-length: 0\r\n";
    // Our own responses with such statuses all have a body, so none of them looks like this.
    let status = written.strip_prefix(b"HTTP/1.1 ").or_else(|| written.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
    let message = match status {
        b"400" => {
            "the request cannot be read: its path must be percent-encoded (%3E for '>'), and its head must follow RFC 9112"
        }
        b"414" => "the request's address is too long",
        b"431" => "the request's headers are too large",
        _ => return None,
    };
    let head = std::str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?;
    let (before, behind) = head.split_once("\r\n").filter(|(_, lines)| !lines.contains("\r\n\r\n"))?;
    let lines = format!("{behind}\r\n");
    if !lines.contains(NO_BODY) || lines.contains("content-type") {
        return None;
    }
    let status = StatusCode::from_bytes(status).ok()?;
    let problem = Problem::new(Code::BadRequest, message).with_http(status, None);
    let body = serde_json::to_string(&problem.body()).ok()?;
    let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    Some(format!("{before}\r\n{}\r\n{body}", lines.replace(NO_BODY, &length)).into_bytes())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[test]
    fn only_bare_errors_are_replaced() {
        let bare = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let error = String::from_utf8(error_response(bare.as_bytes()).unwrap()).unwrap();
        let (head, body) = error.split_once("\r\n\r\n").unwrap();
        assert!(body.contains("BAD_REQUEST") && head.ends_with("date: now"), "{error}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{error}");
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
            "",
        ] {
            assert_eq!(error_response(other.as_bytes()), None, "{other}");
        }
    }

    /// What a client still writes is read for a time, and only where something was left unread.
    #[tokio::test(start_paused = true)]
    async fn a_writing_client_is_read_to_its_end() {
        for is_unread in [false, true] {
            let (mut client, server) = duplex(1 << 10);
            let mut stream = HttpStream::new(server, Arc::new(AtomicBool::new(is_unread)));
            let closing = tokio::time::timeout(LINGER_TIME / 2, stream.shutdown());
            let writing = async {
                let wrote = client.write_all(&vec![0; 64 << 10]).await;
                client.shutdown().await.unwrap();
                wrote
            };
            let (closed, wrote) = tokio::join!(closing, tokio::time::timeout(LINGER_TIME, writing));
            closed.unwrap().unwrap();
            assert_eq!(wrote.is_ok_and(|wrote| wrote.is_ok()), is_unread);
        }
        // A client that goes on for ever is not.
        let (mut client, server) = duplex(1 << 10);
        let mut stream = HttpStream::new(server, Arc::new(AtomicBool::new(true)));
        let begin = tokio::time::Instant::now();
        tokio::time::timeout(2 * LINGER_TIME, stream.shutdown()).await.unwrap().unwrap();
        assert!(begin.elapsed() >= LINGER_TIME);
        drop(stream);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
}
