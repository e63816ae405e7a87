//! What a door says over a WebSocket, without the socket.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::{CloseCode, Outbox};

/// Whether a connection goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Go,
    /// The message was malformed; it goes on unless there are too many in a row.
    Malformed,
    /// The server is about to stop, and the client has work that it can do elsewhere: it ends as soon as what was accepted is
    /// delivered.
    Leave,
    /// It ends with this code and reason.
    Close(CloseCode, String),
}

/// What a door says over a socket. It decides what to send and puts it into the outbox; the connection moves the bytes.
pub trait Protocol: Send {
    /// Whether the next message may be taken. While it may not, the client is not read:
    /// [`Protocol::poll_work`] works on what has to come first.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether something was begun that will still get a reply: a connection that the server ends waits for it.
    fn is_busy(&self) -> bool {
        false
    }

    /// A text message from the client.
    fn text(&mut self, text: &str, out: &mut Outbox) -> Flow;

    /// A binary message from the client.
    fn binary(&mut self, payload: &[u8], out: &mut Outbox) -> Flow;

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

    /// Marks all that was read from subscriptions as in flight. Returns whether anyone wants to know that it arrived.
    fn mark_in_flight(&mut self) -> bool {
        false
    }

    /// What was in flight has arrived.
    fn acknowledge_in_flight(&mut self) {}
}

/// What a connection says that is opened only to be closed, because a client can see the reason in the close code alone.
pub struct ClosesAtOnce<H> {
    /// The close code.
    pub code: CloseCode,
    /// The text that goes with it, at most 123 bytes.
    pub reason: &'static str,
    /// What is held until the connection has ended.
    pub held: H,
}

impl<H> ClosesAtOnce<H> {
    fn close(&self) -> Flow {
        Flow::Close(self.code, self.reason.to_owned())
    }
}

impl<H: Send> Protocol for ClosesAtOnce<H> {
    fn text(&mut self, _: &str, _: &mut Outbox) -> Flow {
        self.close()
    }

    fn binary(&mut self, _: &[u8], _: &mut Outbox) -> Flow {
        self.close()
    }

    fn deliver(&mut self, _: u64, _: &mut Outbox) -> Flow {
        self.close()
    }

    fn poll_work(&mut self, _: &mut Context<'_>, _: &mut Outbox) -> Poll<Flow> {
        Poll::Ready(self.close())
    }
}
