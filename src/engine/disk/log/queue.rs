//! Between the callers and the log's thread: frames in one buffer, tokens in another, swapped out together.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{error::LogError, record::Record};

/// Buffers that grew beyond this are not kept, in bytes: a burst should not occupy memory for ever.
const KEPT_BYTES: usize = 1 << 20;

/// Records that were taken out of the queue, or wait in it. As many tokens as frames, in the same order.
pub(super) struct Batch<T> {
    pub frames: Vec<u8>,
    pub tokens: Vec<T>,
}

impl<T> Batch<T> {
    pub(super) fn new() -> Self {
        Self { frames: Vec::new(), tokens: Vec::new() }
    }

    /// Makes it ready to be filled again.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.tokens.clear();
        self.frames.shrink_to(KEPT_BYTES);
        self.tokens.shrink_to(KEPT_BYTES / 64);
    }
}

pub(super) struct Queue<T> {
    state: Mutex<QueueState<T>>,
    wake: Condvar,
    /// Whether there is a nudge that the writer did not see yet: spares the callers of `trim` the lock.
    notified: AtomicBool,
    bound: usize,
}

struct QueueState<T> {
    batch: Batch<T>,
    sequence: u64,
    /// Whether the writer sleeps.
    asleep: bool,
    closing: bool,
    /// Why appends are refused at the moment, or for ever.
    refusal: Option<LogError>,
}

/// Why the writer woke up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WakeReason {
    Batch,
    /// It is time, or a segment may be ripe for removal.
    Idle,
    /// The queue is empty and will stay so.
    Closing,
}

impl<T> Queue<T> {
    /// A queue of at most `bound` bytes; the first record gets number `sequence`.
    pub(super) fn new(bound: usize, sequence: u64) -> Self {
        let state = QueueState { batch: Batch::new(), sequence, asleep: false, closing: false, refusal: None };
        Self { state: Mutex::new(state), wake: Condvar::new(), notified: AtomicBool::new(false), bound }
    }

    /// Adds a record whose frame takes `bytes` at most, and tells its sequence number.
    pub(super) fn push(&self, record: &Record<'_>, bytes: usize, token: T) -> Result<u64, LogError> {
        let mut state = self.state.lock();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        if state.closing {
            return Err(LogError::Closed);
        }
        let queued = state.batch.frames.len();
        // Alone, the largest record may pass with its header; the setting's bound counts the content.
        if queued > 0 && queued + bytes > self.bound {
            return Err(LogError::Busy);
        }
        let sequence = state.sequence;
        state.sequence = sequence.saturating_add(1);
        record.encode(sequence, &mut state.batch.frames);
        state.batch.tokens.push(token);
        let asleep = mem::replace(&mut state.asleep, false);
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
        Ok(sequence)
    }

    /// Waits for work and takes what is queued in exchange for the empty `batch`. With `until` it waits no longer than
    /// that; with `busy` it does not wait. In a `yield_first` the others have a turn first: where cores are scarce, a batch of
    /// many then costs what one of few would.
    pub(super) fn take(
        &self,
        batch: &mut Batch<T>,
        until: Option<Instant>,
        busy: bool,
        yield_first: bool,
    ) -> WakeReason {
        let mut state = self.state.lock();
        let mut polite = yield_first;
        loop {
            if !state.batch.tokens.is_empty() {
                if mem::take(&mut polite) {
                    MutexGuard::unlocked(&mut state, std::thread::yield_now);
                    continue;
                }
                mem::swap(&mut state.batch, batch);
                return WakeReason::Batch;
            }
            if state.closing {
                return WakeReason::Closing;
            }
            if self.notified.swap(false, Ordering::Relaxed) || busy || until.is_some_and(|at| Instant::now() >= at) {
                return WakeReason::Idle;
            }
            state.asleep = true;
            match until {
                Some(at) => _ = self.wake.wait_until(&mut state, at),
                None => self.wake.wait(&mut state),
            }
            state.asleep = false;
        }
    }

    /// Wakes the writer for work that is not in the queue.
    pub(super) fn notify(&self) {
        if !self.notified.swap(true, Ordering::Relaxed) {
            // Under the lock the writer either has not looked at the flag yet or sleeps already.
            let mut state = self.state.lock();
            let asleep = mem::replace(&mut state.asleep, false);
            drop(state);
            if asleep {
                self.wake.notify_one();
            }
        }
    }

    /// Refuses appends with `refusal` from here on and takes what is queued in exchange for the empty `batch`.
    pub(super) fn refuse(&self, refusal: LogError, batch: &mut Batch<T>) {
        let mut state = self.state.lock();
        state.refusal = Some(refusal);
        mem::swap(&mut state.batch, batch);
    }

    /// Accepts appends again.
    pub(super) fn accept(&self) {
        self.state.lock().refusal = None;
    }

    /// Accepts no more; what is queued will be written.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }

    /// The writer is gone: refuses appends for ever and drops what is queued, unless it was told why already.
    pub(super) fn abandon(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.refusal.is_none() {
            let closed = state.closing;
            state.refusal = Some(if closed { LogError::Closed } else { LogError::Stopped(Arc::from(reason)) });
        }
        let abandoned = mem::replace(&mut state.batch, Batch::new());
        drop(state);
        drop(abandoned);
    }

    pub(super) fn bytes(&self) -> usize {
        self.state.lock().batch.frames.len()
    }
}
