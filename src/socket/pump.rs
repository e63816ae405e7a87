//! The one loop of a WebSocket connection: one task, one `select!` over the client's frames, deliveries, the socket's
//! readiness to take more, a clock, and the server's stop.
//!
//! There is no queue between the broker and the socket. While the socket takes what is written, subscriptions are read;
//! while it does not, their cursors stand still and only the history grows, within its bound.

use std::{
    future::{pending, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    CloseCode, Outbox, Settings,
    frame::{Inbound, Incoming},
};
use crate::broker::Inbox;

/// Bytes that may wait for the socket before subscriptions are no longer read: enough to fill a write, little beside
/// what the kernel buffers.
const ENOUGH_PENDING: usize = 64 << 10;

/// Bytes that may wait for the socket before the client is no longer read: answers may not be dropped, so a client
/// that asks without reading is stopped here.
const TOO_MUCH_PENDING: usize = 1 << 20;

/// Bytes of the client's that are read ahead while an earlier message holds them back: a client that goes meanwhile is to
/// be missed, so that what it was waiting for is given up.
const READ_AHEAD: usize = 64 << 10;

/// Turns in a row: subscriptions whose filter passes nothing make no bytes, and the client is to be heard, too.
const MAX_TURNS: usize = 64;

/// How long a closing handshake may take.
const CLOSING: Duration = Duration::from_secs(5);

/// The payload of a ping that asks whether what was written before has arrived.
const DELIVERY_PROBE: &[u8] = b"confirm";

/// Whether a connection goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Go,
    /// The message was malformed; it goes on unless there are too many in a row.
    Malformed,
    /// It ends with this code and reason.
    Close(CloseCode, String),
}

/// What a door says over a socket. It decides what to send and puts it into the outbox; the pump moves the bytes.
pub trait Protocol: Send {
    /// Whether the next message may be taken. While not, the client is not read: [`Protocol::poll_work`] is at work on
    /// what has to come first.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether something was begun that will still be answered: a connection that the server ends waits for it.
    fn is_busy(&self) -> bool {
        false
    }

    /// A text message from the client.
    fn text(&mut self, text: &str, out: &mut Outbox) -> Flow;

    /// A binary message from the client.
    fn binary(&mut self, out: &mut Outbox) -> Flow;

    /// The subscription under `key` has something to read: one batch goes out.
    fn deliver(&mut self, key: u64, out: &mut Outbox) -> Flow;

    /// Work that was begun and not finished. Ready means that something was done; pending registers the waker.
    fn poll_work(&mut self, _: &mut Context<'_>, _: &mut Outbox) -> Poll<Flow> {
        Poll::Pending
    }

    /// When [`Protocol::timeout`] is due.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The deadline has passed.
    fn timeout(&mut self, _: &mut Outbox) -> Flow {
        Flow::Go
    }

    /// Marks all that was read from subscriptions as on its way; answers whether anyone wants to know that it arrived.
    fn mark_in_flight(&mut self) -> bool {
        false
    }

    /// What was in flight has arrived.
    fn acknowledge_in_flight(&mut self) {}
}

enum Next {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Deliver(u64),
    Worked(Flow),
    Tick,
    Deadline,
    Stop,
}

/// How a connection ends.
enum End {
    /// The socket is gone.
    Gone,
    /// The client said goodbye, with this code.
    Client(Option<CloseCode>),
    /// The server does.
    Server(CloseCode, String),
}

/// Runs a connection to its end.
pub async fn run<S>(io: S, mut protocol: Box<dyn Protocol>, inbox: Inbox, settings: &Settings, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut reading, mut writing) = tokio::io::split(io);
    let mut inbound = Inbound::new(settings.max_frame_bytes, settings.read_buffer_size);
    let mut out = Outbox::default();
    let end =
        converse(&mut reading, &mut writing, &mut *protocol, &inbox, &mut inbound, &mut out, settings, stop).await;

    match end {
        End::Gone => return,
        End::Client(code) => {
            // This confirms nothing: what was written may never have been seen by the page that is closed here.
            out.close(code, "");
        }
        End::Server(code, reason) => out.close(Some(code), &reason),
    }
    drop(protocol);
    // The client sees the code only if nothing resets the connection: what it still sends is read and thrown away.
    let farewell = async {
        writing.write_all(out.pending()).await?;
        writing.shutdown().await?;
        let mut sink = [0; 512];
        while reading.read(&mut sink).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = timeout(CLOSING, farewell).await;
}

#[expect(clippy::too_many_arguments, reason = "the parts of one connection, borrowed so that the end can use them")]
async fn converse<S>(
    reading: &mut tokio::io::ReadHalf<S>,
    writing: &mut tokio::io::WriteHalf<S>,
    protocol: &mut dyn Protocol,
    inbox: &Inbox,
    inbound: &mut Inbound,
    out: &mut Outbox,
    settings: &Settings,
    stop: CancellationToken,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut patience = Patience::new(settings);
    let mut malformed = 0;
    let mut probing = false;
    let mut stopping = false;
    // The client has gone, but not without last words, which are still to be taken.
    let mut ended = false;
    loop {
        // What came in while the outbox was too full is still in the buffer.
        match handle_frames(inbound, protocol, out, &mut malformed, settings, &mut probing) {
            Ok(()) => {}
            Err(end) => return end,
        }
        if ended && protocol.is_ready() {
            return End::Gone;
        }
        if !probing && protocol.mark_in_flight() {
            out.ping(DELIVERY_PROBE);
            probing = true;
        }
        if stopping && out.pending().is_empty() && !protocol.is_busy() {
            // Everything accepted before the stop has been read and written.
            match inbox.try_next() {
                Some(key) => {
                    if let Flow::Close(code, reason) = protocol.deliver(key, out) {
                        return End::Server(code, reason);
                    }
                    continue;
                }
                None => {
                    // Only the code: a protocol's own last words would tell clients not to come back.
                    return End::Server(CloseCode::AWAY, "the server is shutting down".to_owned());
                }
            }
        }
        // A turn for deliveries in every round: a client that never stops sending must not hold back what it subscribed to.
        if !stopping
            && out.pending().len() < ENOUGH_PENDING
            && let Some(key) = inbox.try_next()
            && let Flow::Close(code, reason) = deliver(key, protocol, inbox, out)
        {
            return End::Server(code, reason);
        }
        inbound.reserve();
        let pending_bytes = out.pending().len();
        let (ready, deadline) = (protocol.is_ready(), protocol.deadline());
        let reads = !ended && pending_bytes < TOO_MUCH_PENDING && (ready || inbound.buffer.len() < READ_AHEAD);
        let next = tokio::select! {
            biased;
            // What is pending leaves before more is made.
            next = poll_fn(|cx| work_or_write(protocol, writing, out, cx)) => next,
            read = reading.read_buf(&mut inbound.buffer), if reads => Next::Read(read),
            key = inbox.next(), if pending_bytes < ENOUGH_PENDING && !stopping => Next::Deliver(key),
            () = sleep_until(patience.next) => Next::Tick,
            () = async { match deadline { Some(at) => sleep_until(at).await, None => pending().await } } => Next::Deadline,
            () = stop.cancelled(), if !stopping => Next::Stop,
        };
        let flow = match next {
            Next::Read(Ok(0)) if !ready && !inbound.buffer.is_empty() => {
                ended = true;
                Flow::Go
            }
            Next::Read(Ok(0) | Err(_)) | Next::Wrote(Ok(0) | Err(_)) => return End::Gone,
            Next::Read(Ok(_)) => {
                patience.heard();
                Flow::Go
            }
            Next::Wrote(Ok(bytes)) => {
                patience.wrote();
                out.took(bytes, settings.write_buffer_size);
                Flow::Go
            }
            Next::Worked(flow) => flow,
            Next::Deliver(key) => deliver(key, protocol, inbox, out),
            Next::Tick => match patience.tick(!out.pending().is_empty()) {
                Verdict::Fine => Flow::Go,
                Verdict::Ask => {
                    out.ping(b"");
                    Flow::Go
                }
                Verdict::Dead => return End::Gone,
            },
            Next::Deadline => protocol.timeout(out),
            Next::Stop => {
                stopping = true;
                Flow::Go
            }
        };
        if let Flow::Close(code, reason) = flow {
            return End::Server(code, reason);
        }
    }
}

fn work_or_write<S: AsyncWrite>(
    protocol: &mut dyn Protocol,
    writing: &mut tokio::io::WriteHalf<S>,
    out: &mut Outbox,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    if let Poll::Ready(flow) = protocol.poll_work(cx, out) {
        return Poll::Ready(Next::Worked(flow));
    }
    if out.pending().is_empty() {
        return Poll::Pending;
    }
    Pin::new(writing).poll_write(cx, out.pending()).map(Next::Wrote)
}

/// Takes turns with whatever is ready until a write's worth is gathered.
fn deliver(mut key: u64, protocol: &mut dyn Protocol, inbox: &Inbox, out: &mut Outbox) -> Flow {
    for turn in 1..=MAX_TURNS {
        let flow = protocol.deliver(key, out);
        if flow != Flow::Go {
            return flow;
        }
        // Whoever is taken out of the inbox gets a turn: it is told of nothing more before it has read.
        if turn < MAX_TURNS
            && out.pending().len() < ENOUGH_PENDING
            && let Some(next) = inbox.try_next()
        {
            key = next;
        } else {
            break;
        }
    }
    Flow::Go
}

fn handle_frames(
    inbound: &mut Inbound,
    protocol: &mut dyn Protocol,
    out: &mut Outbox,
    malformed: &mut u32,
    settings: &Settings,
    probing: &mut bool,
) -> Result<(), End> {
    while out.pending().len() < TOO_MUCH_PENDING && protocol.is_ready() {
        let message = match inbound.next() {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(code) => return Err(End::Server(code, reason(code).to_owned())),
        };
        let flow = match message {
            Incoming::Text(text) => protocol.text(text, out),
            Incoming::Binary => protocol.binary(out),
            Incoming::Ping(payload) => {
                out.pong(payload);
                continue;
            }
            Incoming::Pong(payload) => {
                if payload == DELIVERY_PROBE && std::mem::take(probing) {
                    protocol.acknowledge_in_flight();
                }
                continue;
            }
            Incoming::Close(code) => return Err(End::Client(code)),
        };
        match flow {
            Flow::Go => *malformed = 0,
            Flow::Malformed => {
                *malformed += 1;
                if *malformed >= settings.max_malformed_frames {
                    let reason = "too many malformed messages in a row".to_owned();
                    return Err(End::Server(CloseCode::POLICY, reason));
                }
            }
            Flow::Close(code, reason) => return Err(End::Server(code, reason)),
        }
    }
    Ok(())
}

fn reason(code: CloseCode) -> &'static str {
    match code {
        CloseCode::TOO_BIG => "the message is too big",
        CloseCode::INVALID => "the text is not UTF-8",
        _ => "the framing rules are broken",
    }
}

/// When to ask whether the client is still there, and when to give it up. One timer that looks at flags: a busy
/// connection never touches it.
struct Patience {
    next: Instant,
    step: Duration,
    /// Steps since the client was heard.
    silent: u32,
    /// Steps since the socket took something, while something is pending.
    stuck: u32,
    max_stuck: u32,
}

enum Verdict {
    Fine,
    Ask,
    Dead,
}

impl Patience {
    fn new(settings: &Settings) -> Self {
        let step = (settings.ping_interval.min(settings.write_timeout) / 2).max(Duration::from_millis(1));
        let steps = settings.write_timeout.as_nanos().div_ceil(step.as_nanos());
        let max_stuck = u32::try_from(steps).unwrap_or(u32::MAX);
        Self { next: Instant::now() + step, step, silent: 0, stuck: 0, max_stuck }
    }

    fn heard(&mut self) {
        self.silent = 0;
    }

    fn wrote(&mut self) {
        self.stuck = 0;
    }

    fn tick(&mut self, pending: bool) -> Verdict {
        self.next = Instant::now() + self.step;
        self.silent += 1;
        self.stuck = if pending { self.stuck + 1 } else { 0 };
        // While the socket is stuck no ping reaches the client, so its silence says nothing.
        if pending {
            self.silent = self.silent.min(1);
        }
        match (self.silent, self.stuck) {
            (_, stuck) if stuck > self.max_stuck => Verdict::Dead,
            (2, _) => Verdict::Ask,
            (4.., _) => Verdict::Dead,
            _ => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests;
