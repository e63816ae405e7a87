//! The order that the messages of several topics share, and positions in it.
//!
//! A topic's own order is decided under the topic's lock. A subscriber of a pattern reads many topics and needs one
//! position over all of them: so every message also has a number in the log that its topic shares with others. The
//! memory and the disk engine have one log for all topics, a clustered one has a log for each of its streams.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::{Epoch, Error, cursor::SortableHex};

/// Logs of one engine: those of a clustered one have a stream for each size of topics.
pub(crate) const MAX_LOGS: usize = 4;

/// One log's order.
///
/// A message gets its number, enters its topic's history and is announced to the patterns' subscribers under one lock
/// of the sequencer. So whoever sees a message knows that every message with a lower number has been announced before.
/// The lock is taken under a topic's lock, and none but those of the patterns is taken under it.
pub(crate) struct Sequencer {
    /// Which of the engine's logs this is.
    pub index: usize,
    /// The log's own epoch: sequence numbers mean nothing in another one.
    epoch: AtomicU64,
    /// The newest number given.
    last: Mutex<u64>,
}

impl Sequencer {
    pub fn new(index: usize) -> Self {
        Self { index, epoch: AtomicU64::new(Epoch::random().to_bits()), last: Mutex::new(0) }
    }

    /// The log that is read from here on.
    pub fn begin(&self, epoch: Epoch, last: u64) {
        let mut newest = self.last.lock();
        self.epoch.store(epoch.to_bits(), Ordering::Release);
        *newest = last;
    }

    pub fn epoch(&self) -> Epoch {
        Epoch::from_bits(self.epoch.load(Ordering::Acquire))
    }

    pub fn lock(&self) -> MutexGuard<'_, u64> {
        self.last.lock()
    }
}

/// A position in one log: everything up to `sequence` lies before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogPosition {
    /// The log's epoch.
    pub epoch: Epoch,
    /// A number in it; 0 is before the first message.
    pub sequence: u64,
}

/// A position over all topics of the engine, which a subscription to a pattern resumes after. Opaque text for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternCursor {
    /// One position for each log that was known.
    pub logs: SmallVec<[LogPosition; 1]>,
}

impl PatternCursor {
    /// The position in the log of this epoch.
    #[must_use]
    pub fn sequence_in(&self, epoch: Epoch) -> Option<u64> {
        self.logs.iter().find(|position| position.epoch == epoch).map(|position| position.sequence)
    }

    /// Whether text is meant as a pattern's cursor, not as a topic's.
    #[must_use]
    pub fn is_meant_by(text: &str) -> bool {
        text.starts_with('p')
    }
}

impl fmt::Display for PatternCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("p")?;
        for (index, LogPosition { epoch, sequence }) in self.logs.iter().enumerate() {
            let separator = if index > 0 { "." } else { "" };
            write!(f, "{separator}{epoch}-{}", SortableHex(*sequence))?;
        }
        Ok(())
    }
}

impl FromStr for PatternCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let positions = text.strip_prefix('p')?.split('.').map(|text| {
                let (epoch, sequence) = text.split_once('-')?;
                Some(LogPosition { epoch: Epoch::parse(epoch)?, sequence: SortableHex::parse(sequence)? })
            });
            let logs: SmallVec<[LogPosition; 1]> = positions.take(MAX_LOGS + 1).collect::<Option<_>>()?;
            (logs.len() <= MAX_LOGS).then_some(Self { logs })
        };
        read().ok_or_else(|| Error::bad_request("cursor", "is not a cursor that this service gave out"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_cursors_survive_as_text() {
        let position = |sequence| LogPosition { epoch: Epoch::random(), sequence };
        for count in 1..=MAX_LOGS {
            let cursor = PatternCursor { logs: (0..count as u64).map(|n| position(n << 40)).collect() };
            let text = cursor.to_string();
            assert_eq!(text.parse(), Ok(cursor));
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'), "{text}");
        }
        let one = PatternCursor { logs: [position(1)].into_iter().collect() }.to_string();
        for bad in ["", "p", "p.", "q-01", &one[1..], &format!("{one}."), &vec![one.clone(); 5].join(".")] {
            assert!(bad.parse::<PatternCursor>().is_err(), "{bad}");
        }
    }
}
