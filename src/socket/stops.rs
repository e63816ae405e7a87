//! How many connections are told to end: not all at once, so that their clients do not come back all at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Connections end in so many groups, one after the other.
const GROUPS: usize = 128;

/// The signals by which connections are told to end; clones share them.
#[derive(Clone)]
pub struct Stops(Arc<Shared>);

struct Shared {
    groups: Box<[CancellationToken]>,
    next: AtomicUsize,
}

impl Default for Stops {
    fn default() -> Self {
        let groups = (0..GROUPS).map(|_| CancellationToken::new()).collect();
        Self(Arc::new(Shared { groups, next: AtomicUsize::new(0) }))
    }
}

impl Stops {
    /// The signal for one more connection. Neighbours get different ones.
    #[must_use]
    pub fn join(&self) -> CancellationToken {
        let group = self.0.next.fetch_add(1, Ordering::Relaxed) % GROUPS;
        self.0.groups.get(group).cloned().unwrap_or_default()
    }

    /// Tells all of them, one group after the other, spread evenly over `time`.
    pub async fn tell_over(&self, time: Duration) {
        let begun = Instant::now();
        for (group, number) in self.0.groups.iter().zip(0..) {
            if !time.is_zero() {
                sleep_until(begun + time * number / GROUPS as u32).await;
            }
            group.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn they_are_told_evenly() {
        let stops = Stops::default();
        let connections: Vec<_> = (0..10 * GROUPS).map(|_| stops.join()).collect();
        let ended = || connections.iter().filter(|stop| stop.is_cancelled()).count();
        let telling = stops.tell_over(Duration::from_secs(128));
        let looking = async {
            for second in 1..=GROUPS {
                tokio::time::sleep(Duration::from_millis(1_000)).await;
                let told = ended();
                assert!((10 * second..=10 * (second + 1)).contains(&told), "{told} after {second} s");
            }
        };
        tokio::join!(telling, looking);
        assert_eq!(ended(), 10 * GROUPS);
        assert!(stops.join().is_cancelled(), "who comes later is told at once");
    }

    #[tokio::test]
    async fn without_a_time_all_are_told_at_once() {
        let stops = Stops::default();
        let connection = stops.join();
        stops.tell_over(Duration::ZERO).await;
        assert!(connection.is_cancelled());
    }
}
