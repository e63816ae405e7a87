//! Moments, to measure how long something took: on a clock that never steps back, and only within this process.

use std::sync::OnceLock;

use tokio::time::Instant;

/// Microseconds from one moment of the process, which is a while before the first call: no moment is 0.
#[must_use]
pub fn micros() -> u64 {
    /// What no moment of the process is.
    const BEFORE: u64 = 1;
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX).saturating_add(BEFORE)
}
