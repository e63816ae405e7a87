//! How a reader asks for messages: from where, how many, and what a read says besides them.

use smallvec::SmallVec;

use super::{Cursor, Gap, PatternCursor, Timestamp};

/// Where a receiver begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next message.
    Live,
    /// With the oldest kept message.
    Oldest,
    /// With the last so many kept messages.
    Last(u32),
    /// After a known position.
    After(Cursor),
    /// After a position in the log that the topic shares with others.
    AfterSequence(u64),
    /// After a position over all topics: for patterns alone.
    AfterPattern(PatternCursor),
    /// With the first message at or after a time.
    Since(Timestamp),
    /// With the state: of each key the newest kept message. Behind that it goes on live.
    State,
}

/// What one read found, besides the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStatus {
    /// More can be read now.
    More,
    /// Nothing more yet.
    CaughtUp,
    /// Nothing more ever: the topic was deleted.
    Closed,
}

/// How much may be read at once.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    /// Messages at most.
    pub messages: usize,
    /// Bytes of data after which no further message is read; the one that crosses the bound still is.
    pub bytes: usize,
}

impl BatchLimit {
    /// So many messages, whatever their size.
    #[must_use]
    pub fn messages(messages: usize) -> Self {
        Self { messages, bytes: usize::MAX }
    }
}

/// What was missed, and how many messages of a batch stand before it. Most batches have one piece.
pub(super) type Pieces = SmallVec<[(Option<Gap>, usize); 1]>;

/// Where a receiver stands: behind the message at `after`, which is the `seen`-th that the ring has held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadPosition {
    pub after: u64,
    pub seen: u64,
}
