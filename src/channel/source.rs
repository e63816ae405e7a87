//! What a subscription reads.

use super::{Error, Pattern, TopicName};

/// What a subscription reads: one topic, or all whose names match a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// One topic.
    Topic(TopicName),
    /// Every topic whose name matches, those created later too.
    Pattern(Pattern),
}

impl Source {
    /// A topic name, or a pattern when a whole segment is `*` or the last one is `>`.
    ///
    /// # Errors
    /// [`Error::InvalidTopic`] with the part of the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.contains(['*', '>']) {
            Pattern::parse(text).map(Source::Pattern)
        } else {
            TopicName::parse(text).map(Source::Topic)
        }
    }

    /// The pattern, if it is one.
    #[must_use]
    pub fn as_pattern(&self) -> Option<&Pattern> {
        match self {
            Source::Topic(_) => None,
            Source::Pattern(pattern) => Some(pattern),
        }
    }

    /// The name or pattern as the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Source::Topic(name) => name.as_str(),
            Source::Pattern(pattern) => pattern.as_str(),
        }
    }
}
