//! What a principal may do, as patterns of topics.

use super::{Pattern, Source, TopicName};

/// What is done to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Publish to it.
    Publish,
    /// Read it: subscriptions, pages of history, consumers of one's own.
    Subscribe,
    /// Create, change and delete it, and delete others' consumers of it.
    Manage,
}

/// What a principal may do. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Topics to publish to.
    pub publish: Vec<Pattern>,
    /// Topics to read.
    pub subscribe: Vec<Pattern>,
    /// Topics to create, change and delete.
    pub manage: Vec<Pattern>,
    /// Whether statistics, metrics, lists of subscriptions and of consumers may be read.
    pub stats: bool,
}

impl Rights {
    fn of(&self, right: Right) -> &[Pattern] {
        match right {
            Right::Publish => &self.publish,
            Right::Subscribe => &self.subscribe,
            Right::Manage => &self.manage,
        }
    }

    /// Whether there is nothing at all that they allow.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this may be done to a topic.
    #[must_use]
    pub fn allow(&self, right: Right, topic: &TopicName) -> bool {
        self.of(right).iter().any(|pattern| pattern.matches(topic.as_str()))
    }

    /// Whether the topic may be seen, by name and in lists: whoever may do something to it may know that it exists.
    #[must_use]
    pub fn show(&self, topic: &str) -> bool {
        [&self.publish, &self.subscribe, &self.manage].into_iter().flatten().any(|pattern| pattern.matches(topic))
    }

    /// Whether there is a topic that may be seen.
    #[must_use]
    pub fn show_any(&self) -> bool {
        [&self.publish, &self.subscribe, &self.manage].into_iter().any(|patterns| !patterns.is_empty())
    }

    /// Whether anything that a pattern stands for may be seen.
    #[must_use]
    pub fn show_some(&self, pattern: &Pattern) -> bool {
        let shared = |own: &Pattern| own.intersection(pattern).is_some();
        [&self.publish, &self.subscribe, &self.manage].into_iter().flatten().any(shared)
    }

    /// Whether this may be done to all that a topic or pattern stands for.
    #[must_use]
    pub fn cover(&self, right: Right, source: &Source) -> bool {
        match source {
            Source::Topic(topic) => self.allow(right, topic),
            Source::Pattern(pattern) => self.of(right).iter().any(|own| own.covers(pattern)),
        }
    }

    /// The part of a pattern that may be read: patterns that together match what both it and the rights match. None of
    /// them covers another one.
    #[must_use]
    pub fn readable(&self, pattern: &Pattern) -> Vec<Pattern> {
        let mut parts: Vec<Pattern> = Vec::new();
        for part in self.subscribe.iter().filter_map(|own| own.intersection(pattern)) {
            if !parts.iter().any(|known| known.covers(&part)) {
                parts.retain(|known| !part.covers(known));
                parts.push(part);
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    #[test]
    fn a_pattern_is_cut_to_what_may_be_read() {
        let rights =
            Rights { subscribe: patterns(&["orders.>", "orders.eu", "*.public", "news"]), ..Rights::default() };
        let readable = |pattern: &str| {
            let parts = rights.readable(&Pattern::parse(pattern).unwrap());
            parts.iter().map(|part| part.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(readable(">"), ["orders.>", "*.public", "news"]);
        assert_eq!(readable("orders.*"), ["orders.*"]);
        assert_eq!(readable("*.public"), ["*.public"]);
        assert_eq!(readable("*.eu"), ["orders.eu"]);
        assert_eq!(readable("secret.>"), ["secret.public"]);
        assert_eq!(readable("secret.*.>"), Vec::<String>::new());
    }

    #[test]
    fn whoever_may_do_something_may_see() {
        let rights = Rights { publish: patterns(&["in.*"]), manage: patterns(&["own.>"]), ..Rights::default() };
        for (topic, publish, manage, seen) in
            [("in.a", true, false, true), ("own.a.b", false, true, true), ("other", false, false, false)]
        {
            let name = TopicName::parse(topic).unwrap();
            assert_eq!(rights.allow(Right::Publish, &name), publish, "{topic}");
            assert_eq!(rights.allow(Right::Manage, &name), manage, "{topic}");
            assert!(!rights.allow(Right::Subscribe, &name), "{topic}");
            assert_eq!(rights.show(topic), seen, "{topic}");
        }
        let pattern = |text| Pattern::parse(text).unwrap();
        assert!(rights.show_some(&pattern("*.a")) && !rights.show_some(&pattern("other.*")));
        assert!(rights.cover(Right::Manage, &Source::Pattern(pattern("own.*"))));
        assert!(!rights.cover(Right::Manage, &Source::Pattern(pattern(">"))));
    }
}
