//! Patterns of topic names.

use std::sync::Arc;

use super::{Error, name::check_common};

/// A topic name in which a whole segment may be `*` (any one segment) or the last one `>` (one or more).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks `text` against the rule of topic names and that of patterns.
    ///
    /// # Errors
    /// [`Error::InvalidTopic`] with the part of the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        check_common(text)?;
        let mut segments = text.split('.').peekable();
        while let Some(segment) = segments.next() {
            if segment == ">" && segments.peek().is_some() {
                return Err(Error::InvalidTopic("'>' may only be the last segment of a pattern"));
            }
            if segment.len() > 1 && segment.contains(['*', '>']) {
                return Err(Error::InvalidTopic("'*' and '>' must be whole segments of a pattern"));
            }
        }
        Ok(Self(text.into()))
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What every matching name begins with: the text before the first wildcard.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        self.0.split(['*', '>']).next().unwrap_or_default()
    }

    /// Whether `name` matches; looks at each segment once.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut rest = name.split('.');
        for wanted in self.0.split('.') {
            match (wanted, rest.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(segment)) if wanted == segment => {}
                _ => return false,
            }
        }
        rest.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_segments() {
        let matches = |pattern: &str, name: &str| Pattern::parse(pattern).unwrap().matches(name);
        assert!(matches("orders.*", "orders.eu"));
        assert!(!matches("orders.*", "orders.eu.1"));
        assert!(!matches("orders.*", "orders"));
        assert!(matches("orders.>", "orders.eu.1"));
        assert!(!matches("orders.>", "orders"));
        assert!(matches("*.eu", "orders.eu"));
        assert!(matches(">", "anything.at.all"));
        for bad in ["a.>.b", "a*", ">a", "a.b*", " *", "$x.*"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
