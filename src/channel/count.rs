//! Counting from many threads without a lock: each thread adds in a place of its own, and whoever looks adds the places up.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Places of each counter. More threads than this share some, which costs them a little.
const SLOTS: usize = 8;

/// The upper bounds of a histogram's buckets in microseconds: from what a local delivery takes to what nobody waits for.
pub const BOUNDS: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// The buckets, and one for what lies above the last bound.
const BUCKETS: usize = BOUNDS.len() + 1;

/// On a cache line of its own, so that no two threads write to the same.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot<T>(T);

/// The place of this thread.
fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SLOT: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS;
    }
    // A thread that is about to end has no place any more.
    SLOT.try_with(|slot| *slot).unwrap_or(0)
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter([Slot<AtomicU64>; SLOTS]);

impl Counter {
    /// From 0.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { Slot(AtomicU64::new(0)) }; SLOTS])
    }

    /// Adds to it.
    pub fn add(&self, more: u64) {
        if let Some(Slot(count)) = self.0.get(slot()) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// What was added until now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.iter().map(|Slot(count)| count.load(Ordering::Relaxed)).sum()
    }
}

/// Durations, counted by buckets.
#[derive(Debug, Default)]
pub struct Histogram([Slot<Buckets>; SLOTS]);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BUCKETS],
    /// Microseconds.
    sum: AtomicU64,
}

/// What a histogram has counted until a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many durations fell into each bucket, those above the last bound at the end.
    pub counts: [u64; BUCKETS],
    /// All of them together, in microseconds.
    pub sum: u64,
}

impl Histogram {
    /// Counts durations in microseconds. Those of one call are added together where they fall into one bucket, so many that take
    /// about as long cost hardly more than one.
    pub fn observe(&self, durations: impl Iterator<Item = u64>) {
        let Some(Slot(buckets)) = self.0.get(slot()) else { return };
        let add = |bucket: usize, count: u64| {
            if let Some(counted) = buckets.counts.get(bucket).filter(|_| count > 0) {
                counted.fetch_add(count, Ordering::Relaxed);
            }
        };
        let (mut bucket, mut count, mut sum) = (0, 0, 0_u64);
        for duration in durations {
            let found = BOUNDS.partition_point(|bound| *bound < duration);
            if found != bucket {
                add(bucket, count);
                (bucket, count) = (found, 0);
            }
            count += 1;
            sum = sum.saturating_add(duration);
        }
        if count > 0 {
            add(bucket, count);
            buckets.sum.fetch_add(sum, Ordering::Relaxed);
        }
    }

    /// What it has counted until now.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let mut all = Counted::default();
        for Slot(buckets) in &self.0 {
            for (sum, count) in all.counts.iter_mut().zip(&buckets.counts) {
                *sum += count.load(Ordering::Relaxed);
            }
            all.sum += buckets.sum.load(Ordering::Relaxed);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_add_is_added_up() {
        let (counter, histogram) = (Counter::new(), Histogram::default());
        std::thread::scope(|scope| {
            for _ in 0..2 * SLOTS {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        counter.add(2);
                        histogram.observe([1, 50, 51].into_iter());
                    }
                });
            }
        });
        assert_eq!(counter.value(), 2 * 2_000 * SLOTS as u64);
        let counted = histogram.counted();
        assert_eq!(counted.counts[..3], [2 * 2_000 * SLOTS as u64, 2_000 * SLOTS as u64, 0]);
        assert_eq!(counted.sum, 102 * 2_000 * SLOTS as u64);
    }

    #[test]
    fn each_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        histogram.observe(BOUNDS.into_iter().flat_map(|bound| [bound, bound + 1]));
        let counted = histogram.counted();
        // The first has its bound alone, the last what lies above the last bound, and all others the bound before plus one.
        let mut wanted = [2; BUCKETS];
        (wanted[0], wanted[BUCKETS - 1]) = (1, 1);
        assert_eq!(counted.counts, wanted);
        histogram.observe(std::iter::empty());
        assert_eq!(histogram.counted(), counted);
    }
}
