//! What ends a command that would go on by itself.

use std::{cell::Cell, future::pending, rc::Rc, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

/// What has ended a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGINT or SIGTERM.
    Signal,
    /// Nothing came for as long as the command was to wait.
    Timeout,
    /// Nobody reads standard output any more.
    OutputClosed,
}

/// When something came last. Its clones are of the same moment.
#[derive(Clone)]
pub struct LastHeard(Rc<Cell<Instant>>);

impl LastHeard {
    pub fn now() -> Self {
        Self(Rc::new(Cell::new(Instant::now())))
    }

    /// Something has come.
    pub fn set(&self) {
        self.0.set(Instant::now());
    }
}

/// Waits for what ends a command: a signal, the end of standard output, or nothing for as long as `timeout`.
///
/// # Errors
/// Signals that cannot be waited for.
pub async fn ending(heard: LastHeard, timeout: Option<Duration>) -> std::io::Result<Ending> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => Ending::Signal,
        _ = terminate.recv() => Ending::Signal,
        () = silence(heard, timeout) => Ending::Timeout,
        () = output_closed() => Ending::OutputClosed,
    })
}

async fn silence(heard: LastHeard, timeout: Option<Duration>) {
    let Some(timeout) = timeout else { return pending().await };
    loop {
        // A sum that no clock can show is never reached.
        let Some(until) = heard.0.get().checked_add(timeout) else { return pending().await };
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

/// A pipe whose reader has gone says so, before anything is written to it. Files and the like have no reader.
async fn output_closed() {
    let closed = tokio::task::spawn_blocking(|| {
        let stdout = std::io::stdout();
        loop {
            // No event is asked for: the end of the reader is always told.
            match poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None) {
                Err(Errno::INTR) => {}
                told => return told.is_ok(),
            }
        }
    });
    if !matches!(closed.await, Ok(true)) {
        pending::<()>().await;
    }
}
