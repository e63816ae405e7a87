//! Topics as they are listed: in the order of their names, page by page.

use std::ops::Bound;

use super::{Registry, TopicInfo};

impl Registry {
    /// Up to `limit` topics in the order of their names, of those that are `shown`: those that begin with `prefix` and
    /// come after `after`; and whether there are more.
    #[must_use]
    pub fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        shown: impl Fn(&str) -> bool,
    ) -> (Vec<TopicInfo>, bool) {
        let names = self.names.read();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let shown = names.with_prefix(prefix, from).filter(|name| shown(name.as_str()));
        let mut channels = shown.filter_map(|name| names.by_name.get(name));
        let found: Vec<_> = channels.by_ref().take(limit).cloned().collect();
        let more = channels.next().is_some();
        drop(channels);
        drop(names);
        (found.iter().map(|channel| channel.info()).collect(), more)
    }

    /// How many topics begin with `prefix`, of those that are `shown`.
    #[must_use]
    pub fn count_shown(&self, prefix: &str, shown: impl Fn(&str) -> bool) -> usize {
        let names = self.names.read();
        names.with_prefix(prefix, Bound::Included(prefix)).filter(|name| shown(name.as_str())).count()
    }

    /// How many topics begin with `prefix`.
    #[must_use]
    pub fn count(&self, prefix: &str) -> usize {
        let names = self.names.read();
        if prefix.is_empty() {
            return names.in_order.len();
        }
        names.with_prefix(prefix, Bound::Included(prefix)).count()
    }
}
