//! What a subscriber chooses for the case that it falls behind.

#[allow(unused_imports, reason = "the documentation names it")]
use super::Error;

/// What happens to a subscription that falls behind, once it has caught up for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// It reads on from the history; a gap tells when that is gone.
    #[default]
    History,
    /// It jumps to the newest message; a gap says what was skipped.
    Latest,
    /// It gets only the newest message of each key; gaps say what was skipped. Messages without a key are all kept.
    LatestPerKey,
    /// It ends with [`Error::SlowConsumer`] when the history no longer has what it would read next.
    Disconnect,
}

impl Overflow {
    /// The choice's name at every door.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Overflow::History => "HISTORY",
            Overflow::Latest => "LATEST",
            Overflow::LatestPerKey => "LATEST_PER_KEY",
            Overflow::Disconnect => "DISCONNECT",
        }
    }
}
