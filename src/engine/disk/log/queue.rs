//! The queue between the callers and the log's thread: frames in one buffer and tokens in another, swapped out
//! together.

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

/// Larger buffers are shrunk to this size, in bytes, so that a burst does not occupy memory for ever.
const KEPT_BYTES: usize = 1 << 20;

/// Records that wait in the queue or were taken out of it. There are as many tokens as frames, in the same order.
pub(super) struct Batch<T> {
    pub frames: Vec<u8>,
    pub tokens: Vec<T>,
}

impl<T> Batch<T> {
    pub(super) fn new() -> Self {
        Self { frames: Vec::new(), tokens: Vec::new() }
    }

    /// Empties the batch for its next use.
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
    /// Whether there is a notification that the writer has not seen yet. With it the callers of `trim` rarely need
    /// the lock.
    notified: AtomicBool,
    bound: usize,
}

struct QueueState<T> {
    batch: Batch<T>,
    sequence: u64,
    /// Whether the writer sleeps.
    asleep: bool,
    closing: bool,
    /// Why appends are refused, temporarily or for ever.
    refusal: Option<LogError>,
}

/// Why the writer woke up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WakeReason {
    Batch,
    /// The deadline has passed, or a segment may be ready for removal.
    Idle,
    /// The queue is empty and will stay empty.
    Closing,
}

impl<T> Queue<T> {
    /// Creates a queue of at most `bound` bytes. The first record gets the sequence number `sequence`.
    pub(super) fn new(bound: usize, sequence: u64) -> Self {
        let state = QueueState { batch: Batch::new(), sequence, asleep: false, closing: false, refusal: None };
        Self { state: Mutex::new(state), wake: Condvar::new(), notified: AtomicBool::new(false), bound }
    }

    /// Adds a record whose frame takes at most `bytes`, and returns its sequence number.
    pub(super) fn push(&self, record: &Record<'_>, bytes: usize, token: T) -> Result<u64, LogError> {
        let mut state = self.state.lock();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        if state.closing {
            return Err(LogError::Closed);
        }
        let queued = state.batch.frames.len();
        // The setting limits the content, so a single record is accepted even if its header makes it larger than the
        // queue.
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

    /// Waits for work, and swaps what is queued with the empty `batch`. It waits no longer than `until`, and not at
    /// all if `busy`. With `yield_first` it lets other threads run before it takes a batch: where cores are scarce,
    /// the batch then holds the records of many publishers at the cost of a batch of few.
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
            // With the lock held, the writer either has not read the flag yet or already sleeps.
            let mut state = self.state.lock();
            let asleep = mem::replace(&mut state.asleep, false);
            drop(state);
            if asleep {
                self.wake.notify_one();
            }
        }
    }

    /// Refuses appends with `refusal` from here on, and swaps what is queued with the empty `batch`.
    pub(super) fn refuse(&self, refusal: LogError, batch: &mut Batch<T>) {
        let mut state = self.state.lock();
        state.refusal = Some(refusal);
        mem::swap(&mut state.batch, batch);
    }

    /// Accepts appends again.
    pub(super) fn accept(&self) {
        self.state.lock().refusal = None;
    }

    /// Accepts no more appends. What is queued will be written.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }

    /// Called when the writer has ended: refuses appends for ever, with the reason that is already set if there is
    /// one, and drops what is queued.
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
