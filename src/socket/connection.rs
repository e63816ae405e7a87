//! One WebSocket connection, run by one task: it waits for the client's frames, for subscriptions that have something to
//! read, for the socket to take more, for its timers and for the server's stop. While it waits, those who deliver a topic's
//! news may read its subscriptions and write to its socket, as its own task would do.
//!
//! There is no queue between the broker and the socket. While the socket takes what is written, subscriptions are read;
//! while it does not, their cursors stand still and only the history grows, within its bound.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Sleep, sleep_until, timeout},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    CloseCode, Flow, Outbox, Protocol, Settings,
    frame::{Inbound, Incoming},
    heartbeat::{Heartbeat, Verdict},
};
use crate::broker::{Deliver, Inbox};

/// Bytes that may wait for the socket before subscriptions are no longer read: enough to fill a write, little beside
/// what the kernel buffers.
const ENOUGH_PENDING: usize = 64 << 10;

/// Bytes that may wait for the socket before the client is no longer read: replies may not be dropped, so a client that
/// sends requests and reads no replies is stopped here.
const TOO_MUCH_PENDING: usize = 1 << 20;

/// Bytes that are read ahead while an earlier message holds back those behind it. Reading on is how the server notices that
/// the client has gone, and drops what the client was waiting for.
const READ_AHEAD: usize = 64 << 10;

/// Batches that are delivered in a row. Subscriptions whose filter passes nothing make no bytes, and the client's frames
/// have to be read between them, too.
const MAX_BATCHES: usize = 64;

/// How long a close handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The payload of a ping whose pong says that what was written before it has arrived.
const DELIVERY_PROBE: &[u8] = b"confirm";

/// One connection over `S`.
#[expect(clippy::struct_excessive_bools, reason = "each is true or false on its own")]
pub struct Connection<S> {
    io: S,
    protocol: Box<dyn Protocol>,
    inbox: Inbox,
    inbound: Inbound,
    out: Outbox,
    settings: Arc<Settings>,
    /// The client's address, where it is known.
    peer: Option<SocketAddr>,
    heartbeat: Heartbeat,
    /// For [`Protocol::deadline`].
    deadline: Option<Pin<Box<Sleep>>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Malformed messages in a row.
    malformed: u32,
    /// Whether the stream may still hold what it has taken: TLS and HTTP/2 have buffers of their own.
    is_unflushed: bool,
    /// Whether a delivery probe waits for its pong.
    is_probing: bool,
    is_stopping: bool,
    /// Whether the client has gone, but its last messages are still to be taken.
    is_read_closed: bool,
    /// Wakes the connection's own task, once that has waited.
    waker: Option<Waker>,
    /// How the connection ends, where that came out while something was delivered from outside of its task.
    end: Option<End>,
}

/// A connection that its own task and those who deliver news take in turns; `None` once it ends.
struct Shared<S>(Mutex<Option<Connection<S>>>);

/// What a connection waits for.
enum Event {
    Worked(Flow),
    Wrote(io::Result<usize>),
    Read(io::Result<usize>),
    Deliver(u64),
    Heartbeat,
    Deadline,
    Stop,
}

/// How a connection ends.
enum End {
    /// The socket is gone.
    Gone,
    /// The client has begun the close handshake, with this code.
    Client(Option<CloseCode>),
    /// The server begins it.
    Server(CloseCode, String),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Deliver for Shared<S> {
    fn deliver(&self, key: u64) -> bool {
        self.0.try_lock().is_some_and(|mut connection| connection.as_mut().is_some_and(|it| it.deliver_now(key)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    /// A connection that speaks `protocol` until `stop` is cancelled. News of its subscriptions come to `inbox`.
    pub fn new(
        io: S,
        protocol: Box<dyn Protocol>,
        inbox: Inbox,
        settings: Arc<Settings>,
        peer: Option<SocketAddr>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            io,
            protocol,
            inbox,
            inbound: Inbound::new(settings.max_frame_bytes, settings.read_buffer_size),
            out: Outbox::new(settings.write_buffer_size),
            heartbeat: Heartbeat::new(&settings),
            settings,
            peer,
            deadline: None,
            stop: Box::pin(stop.cancelled_owned()),
            malformed: 0,
            is_unflushed: false,
            is_probing: false,
            is_stopping: false,
            is_read_closed: false,
            waker: None,
            end: None,
        }
    }

    /// Runs the connection to its end.
    pub async fn run(self) {
        let inbox = self.inbox.clone();
        let shared = Arc::new(Shared(Mutex::new(Some(self))));
        let weak: Weak<Shared<S>> = Arc::downgrade(&shared);
        inbox.owner().set(weak);
        let ended = poll_fn(|cx| {
            let mut connection = shared.0.lock();
            let Some(running) = connection.as_mut() else { return Poll::Ready(None) };
            running.poll_end(cx).map(|end| connection.take().map(|connection| (connection, end)))
        });
        if let Some((connection, end)) = ended.await {
            // On the heap, so that the connection does not hold room for it while it runs.
            Box::pin(connection.close_handshake(end)).await;
        }
    }

    /// Ready when the connection ends.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        loop {
            if let Some(end) = self.end.take() {
                return Poll::Ready(end);
            }
            if let Err(end) = self.work() {
                return Poll::Ready(end);
            }
            let Poll::Ready(event) = self.poll_event(cx) else { return Poll::Pending };
            if let Err(end) = self.handle(event) {
                return Poll::Ready(end);
            }
        }
    }

    /// Does what can be done now, before the connection waits for an event.
    fn work(&mut self) -> Result<(), End> {
        // What came in while the outbox was too full is still in the buffer.
        self.handle_frames()?;
        if self.is_read_closed && self.protocol.is_ready() {
            return Err(End::Gone);
        }
        self.probe_delivery();
        if self.is_stopping {
            if self.out.pending().is_empty() && !self.protocol.is_busy() {
                return self.drain();
            }
        } else if self.out.pending().len() < ENOUGH_PENDING
            && let Some(key) = self.inbox.try_next()
        {
            // In every step, because a client that never stops sending must not hold back what it subscribed to.
            self.deliver(key)?;
        }
        self.inbound.release();
        Ok(())
    }

    /// Delivers to one subscription and writes that to the socket, from outside of the connection's task. What it cannot finish
    /// here is left to that task.
    fn deliver_now(&mut self, key: u64) -> bool {
        let is_idle = self.out.pending().is_empty() && !self.is_stopping && !self.is_read_closed && self.end.is_none();
        if !is_idle {
            return false;
        }
        let Some(waker) = self.waker.take() else { return false };
        self.end = proceed(self.protocol.deliver(key, &mut self.out)).err();
        if self.end.is_none() {
            self.probe_delivery();
            // Whatever waits for the socket wakes the connection's task.
            self.end = self.write_now(&mut Context::from_waker(&waker)).err();
        }
        if self.end.is_some() {
            waker.wake_by_ref();
        }
        self.waker = Some(waker);
        true
    }

    /// Writes as much as the socket takes.
    fn write_now(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while let Poll::Ready(wrote) = self.poll_write(cx) {
            self.handle(Event::Wrote(wrote))?;
        }
        Ok(())
    }

    /// Takes the client's messages that have come, as long as the outbox has room for the replies.
    fn handle_frames(&mut self) -> Result<(), End> {
        while self.out.pending().len() < TOO_MUCH_PENDING && self.protocol.is_ready() {
            let message = match self.inbound.next() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(code) => return Err(End::Server(code, reason(code).to_owned())),
            };
            let flow = match message {
                Incoming::Text(text) => self.protocol.text(text, &mut self.out),
                Incoming::Binary(payload) => self.protocol.binary(payload, &mut self.out),
                Incoming::Ping(payload) => {
                    self.out.pong(payload);
                    continue;
                }
                Incoming::Pong(payload) => {
                    if payload == DELIVERY_PROBE && std::mem::take(&mut self.is_probing) {
                        self.protocol.acknowledge_in_flight();
                    }
                    continue;
                }
                Incoming::Close(code) => return Err(End::Client(code)),
            };
            self.count_malformed(&flow)?;
            self.proceed(flow)?;
        }
        Ok(())
    }

    /// Goes on as the protocol says.
    fn proceed(&mut self, flow: Flow) -> Result<(), End> {
        self.is_stopping |= flow == Flow::Leave;
        proceed(flow)
    }

    fn count_malformed(&mut self, flow: &Flow) -> Result<(), End> {
        self.malformed = if *flow == Flow::Malformed { self.malformed + 1 } else { 0 };
        if *flow == Flow::Malformed && self.malformed >= self.settings.max_malformed_frames {
            return Err(End::Server(CloseCode::POLICY, "too many malformed messages in a row".to_owned()));
        }
        Ok(())
    }

    /// Writes a ping behind what was delivered, if a named consumer's position depends on its arrival. One at a time: what
    /// is delivered meanwhile is covered by the next.
    fn probe_delivery(&mut self) {
        if !self.is_probing && self.protocol.mark_in_flight() {
            self.out.ping(DELIVERY_PROBE);
            self.is_probing = true;
        }
    }

    /// The server stops, and everything written so far has left: delivers what was accepted before, then ends.
    fn drain(&mut self) -> Result<(), End> {
        match self.inbox.try_next() {
            Some(key) => proceed(self.protocol.deliver(key, &mut self.out)),
            // Only the code: a protocol's own message at its end would tell clients not to come back.
            None => Err(End::Server(CloseCode::AWAY, "the server is shutting down".to_owned())),
        }
    }

    /// Delivers a batch of one subscription after the other until enough for a write is gathered.
    fn deliver(&mut self, mut key: u64) -> Result<(), End> {
        for batch in 1..=MAX_BATCHES {
            proceed(self.protocol.deliver(key, &mut self.out))?;
            // Whatever is taken out of the inbox must be delivered: it is announced again only after it was read.
            if batch < MAX_BATCHES
                && self.out.pending().len() < ENOUGH_PENDING
                && let Some(next) = self.inbox.try_next()
            {
                key = next;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// The next event. What is pending leaves before more is made, so writing comes before reading and delivering.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(flow) = self.protocol.poll_work(cx, &mut self.out) {
            return Poll::Ready(Event::Worked(flow));
        }
        if let Poll::Ready(wrote) = self.poll_write(cx) {
            return Poll::Ready(Event::Wrote(wrote));
        }
        if let Poll::Ready(read) = self.poll_read(cx) {
            return Poll::Ready(Event::Read(read));
        }
        if !self.is_stopping {
            if self.out.pending().len() < ENOUGH_PENDING
                && let Poll::Ready(key) = self.inbox.poll_next(cx)
            {
                return Poll::Ready(Event::Deliver(key));
            }
            if self.stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Stop);
            }
        }
        if self.heartbeat.poll_due(cx).is_ready() {
            return Poll::Ready(Event::Heartbeat);
        }
        self.poll_deadline(cx).map(|()| Event::Deadline)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.out.pending().is_empty() {
            return Pin::new(&mut self.io).poll_write(cx, self.out.pending());
        }
        if self.is_unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let has_room = self.protocol.is_ready() || self.inbound.buffer.len() < READ_AHEAD;
        if self.is_read_closed || self.out.pending().len() >= TOO_MUCH_PENDING || !has_room {
            return Poll::Pending;
        }
        let io = Pin::new(&mut self.io);
        let read = self.inbound.read(|room| {
            let mut room = ReadBuf::new(room);
            match io.poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) => Ok(room.filled().len()),
                Poll::Ready(Err(error)) => Err(Some(error)),
                Poll::Pending => Err(None),
            }
        });
        match read {
            Ok(bytes) => Poll::Ready(Ok(bytes)),
            Err(Some(error)) => Poll::Ready(Err(error)),
            Err(None) => Poll::Pending,
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.protocol.deadline() else {
            self.deadline = None;
            return Poll::Pending;
        };
        let timer = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }

    fn handle(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Worked(flow) => self.proceed(flow),
            Event::Wrote(Ok(0) | Err(_)) | Event::Read(Err(_)) => Err(End::Gone),
            Event::Wrote(Ok(bytes)) => {
                self.heartbeat.wrote();
                self.is_unflushed = true;
                self.out.took(bytes);
                Ok(())
            }
            Event::Read(Ok(0)) if self.protocol.is_ready() || self.inbound.buffer.is_empty() => Err(End::Gone),
            Event::Read(Ok(0)) => {
                self.is_read_closed = true;
                Ok(())
            }
            Event::Read(Ok(_)) => {
                self.heartbeat.read();
                Ok(())
            }
            Event::Deliver(key) => self.deliver(key),
            Event::Heartbeat => match self.heartbeat.step(self.is_unflushed || !self.out.pending().is_empty()) {
                Verdict::Wait => Ok(()),
                Verdict::Ping => {
                    self.out.ping(b"");
                    Ok(())
                }
                Verdict::TimedOut => Err(End::Gone),
            },
            Event::Deadline => proceed(self.protocol.timeout(&mut self.out)),
            Event::Stop => {
                self.is_stopping = true;
                Ok(())
            }
        }
    }

    /// Sends the close frame and reads on until the client has closed, too.
    async fn close_handshake(self, end: End) {
        let Self { mut io, mut out, protocol, peer, .. } = self;
        match end {
            End::Gone => return,
            // This acknowledges nothing: what was written may never have been seen by the page that is closed here.
            End::Client(code) => out.close(code, ""),
            End::Server(code, reason) => {
                tracing::debug!(?peer, code = code.0, reason, "closing a WebSocket connection");
                out.close(Some(code), &reason);
            }
        }
        // Unsubscribes.
        drop(protocol);
        // The client sees the code only if nothing resets the connection: what it still sends is read and thrown away.
        let handshake = async {
            io.write_all(out.pending()).await?;
            io.shutdown().await?;
            let mut sink = [0; 512];
            while io.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(CLOSE_TIMEOUT, handshake).await;
    }
}

fn proceed(flow: Flow) -> Result<(), End> {
    match flow {
        Flow::Go | Flow::Malformed | Flow::Leave => Ok(()),
        Flow::Close(code, reason) => Err(End::Server(code, reason)),
    }
}

fn reason(code: CloseCode) -> &'static str {
    match code {
        CloseCode::TOO_BIG => "the message is too big",
        CloseCode::INVALID => "the text is not UTF-8",
        _ => "the framing rules are broken",
    }
}

#[cfg(test)]
mod tests;
