//! Patterns of topic names.

use std::sync::Arc;

use super::{
    Error,
    name::{MAX_NAME_BYTES, check_common},
};

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

    /// The pattern that matches exactly those names that both match; `None` where there are none.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (mut ours, mut theirs) = (self.0.split('.'), other.0.split('.'));
        let mut both: Vec<&str> = Vec::new();
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => break,
                // `>` stands for at least one segment, and this is the first of them.
                (Some(">"), Some(rest)) => {
                    both.push(rest);
                    both.extend(theirs);
                    break;
                }
                (Some(rest), Some(">")) => {
                    both.push(rest);
                    both.extend(ours);
                    break;
                }
                (Some("*"), Some(segment)) | (Some(segment), Some("*")) => both.push(segment),
                (Some(one), Some(same)) if one == same => both.push(one),
                _ => return None,
            }
        }
        let text = both.join(".");
        // No name is longer.
        (text.len() <= MAX_NAME_BYTES).then(|| Self(text.into()))
    }

    /// Whether every name that `other` matches is matched by this pattern, too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.intersection(other).as_ref() == Some(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// An intersection matches what both match, and a pattern covers another one if it matches all that one matches.
        #[test]
        fn intersections_match_what_both_match(
            one in "(a|b|\\*)(\\.(a|b|\\*)){0,2}(\\.>)?|>",
            two in "(a|b|\\*)(\\.(a|b|\\*)){0,2}(\\.>)?|>",
        ) {
            let (one, two) = (Pattern::parse(&one).unwrap(), Pattern::parse(&two).unwrap());
            let both = one.intersection(&two);
            prop_assert_eq!(&both, &two.intersection(&one));
            // Three letters and five segments tell any two of these patterns apart.
            let mut names = vec![String::new()];
            let mut covers = true;
            for _ in 0..5 {
                names = names.iter().flat_map(|name| ["a", "b", "c"].map(|segment| {
                    if name.is_empty() { segment.to_owned() } else { format!("{name}.{segment}") }
                })).collect();
                for name in &names {
                    let wanted = one.matches(name) && two.matches(name);
                    prop_assert_eq!(both.as_ref().is_some_and(|both| both.matches(name)), wanted, "{}", name);
                    covers &= one.matches(name) || !two.matches(name);
                }
            }
            prop_assert_eq!(one.covers(&two), covers);
        }
    }

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
