//! The two clocks of a server: one that says the time of day and may be set, and one that only goes on.

use std::sync::atomic::{AtomicI64, Ordering};

use rustix::time::{ClockId, clock_gettime};

use super::Timestamp;

/// The clock that nobody sets. A machine that sleeps grows older, too, where the system can tell.
#[cfg(target_os = "linux")]
const STEADY: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const STEADY: ClockId = ClockId::Monotonic;

/// The time, by the wall clock and by a steady one. Tests may move both.
#[derive(Debug)]
pub struct Clock {
    wall_ahead: AtomicI64,
    steady_ahead: AtomicI64,
    known: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { wall_ahead: AtomicI64::new(0), steady_ahead: AtomicI64::new(0), known: AtomicI64::new(i64::MIN) }
    }
}

impl Clock {
    /// Somebody had this time before, so it is not earlier, whatever the clock says. Holds until another time is known.
    pub(crate) fn know(&self, at: Timestamp) {
        self.known.store(at.0, Ordering::Relaxed);
    }

    /// The time of day, and not before what is known.
    pub(super) fn latest(&self) -> Timestamp {
        self.wall().max(Timestamp(self.known.load(Ordering::Relaxed)))
    }

    /// The time of day, as messages get it. Somebody may set this clock, back or forward.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        Timestamp(Timestamp::now().0.saturating_add(self.wall_ahead.load(Ordering::Relaxed)))
    }

    /// Milliseconds since some moment: only differences mean something. It is never set, so the age of a message that is
    /// measured by it does not change when the wall clock is.
    #[must_use]
    pub fn steady(&self) -> i64 {
        let time = clock_gettime(STEADY);
        let milliseconds = time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000);
        milliseconds.saturating_add(self.steady_ahead.load(Ordering::Relaxed))
    }
}

#[cfg(any(test, feature = "test-support"))]
impl Clock {
    /// So many milliseconds pass.
    pub fn pass(&self, milliseconds: i64) {
        self.steady_ahead.fetch_add(milliseconds, Ordering::Relaxed);
        self.set_by(milliseconds);
    }

    /// Somebody sets the wall clock forward by so many milliseconds, or back.
    pub fn set_by(&self, milliseconds: i64) {
        self.wall_ahead.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_clock_is_not_set() {
        let clock = Clock::default();
        let (wall, steady) = (clock.wall().0, clock.steady());
        clock.set_by(-1_000_000);
        assert!(clock.wall().0 < wall - 900_000 && (0..100_000).contains(&(clock.steady() - steady)));
        clock.pass(2_000_000);
        assert!(clock.wall().0 >= wall + 1_000_000 && clock.steady() >= steady + 2_000_000);
    }
}
