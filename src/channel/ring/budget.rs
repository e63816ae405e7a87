//! What all histories may hold together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What all histories may hold together.
pub(crate) struct Budget {
    used: AtomicUsize,
    messages: AtomicUsize,
    pub total: usize,
    pub per_topic: usize,
}

impl Budget {
    pub fn new(total: usize, per_topic: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), messages: AtomicUsize::new(0), total, per_topic })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, cost: usize) {
        self.used.fetch_add(cost, Ordering::Relaxed);
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_bytes(&self, cost: usize) {
        self.used.fetch_add(cost, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, messages: usize, cost: usize) {
        self.used.fetch_sub(cost, Ordering::Relaxed);
        self.messages.fetch_sub(messages, Ordering::Relaxed);
    }
}
