//! A position as clients give and get it.

use std::{fmt, str::FromStr};

use super::{Cursor, Error, PatternCursor, Start};

/// A position as clients give and get it: of a topic, or of a pattern over all topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyCursor {
    /// In one topic.
    Topic(Cursor),
    /// Over all topics.
    Pattern(PatternCursor),
}

impl fmt::Display for AnyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnyCursor::Topic(cursor) => cursor.fmt(f),
            AnyCursor::Pattern(cursor) => cursor.fmt(f),
        }
    }
}

impl FromStr for AnyCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if PatternCursor::is_meant_by(text) {
            text.parse().map(AnyCursor::Pattern)
        } else {
            text.parse().map(AnyCursor::Topic)
        }
    }
}

impl From<AnyCursor> for Start {
    fn from(cursor: AnyCursor) -> Self {
        match cursor {
            AnyCursor::Topic(cursor) => Start::After(cursor),
            AnyCursor::Pattern(cursor) => Start::AfterPattern(cursor),
        }
    }
}
