//! What a principal may do.

use crate::broker::Pattern;

/// The topics that a principal may use, by what it may do with them. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// It may publish to topics that one of these patterns matches.
    pub publish: Vec<Pattern>,
    /// It may read these topics: subscriptions, history, consumers.
    pub subscribe: Vec<Pattern>,
    /// It may create, change and delete these topics, and delete other principals' consumers of them.
    pub manage: Vec<Pattern>,
    /// It may read statistics, metrics, and lists of subscriptions and consumers.
    pub stats: bool,
}
