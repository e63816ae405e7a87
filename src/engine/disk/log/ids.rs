//! Which of the ids that outlive their messages recovery returns.

use std::collections::HashSet;

use super::recovered::RecoveredId;

/// The memory that an id takes beside its text, in bytes, for the limit.
const ID_BYTES: u64 = 64;

/// Returns the ids of a topic's messages that are not kept. Each id comes once, the oldest first. `kept` is the offsets of
/// the messages that are, in order.
pub(super) fn without_message(kept: &[u64], mut ids: Vec<RecoveredId>) -> Vec<RecoveredId> {
    let mut known = HashSet::new();
    // If two messages have one id, the newer one was accepted after the id of the older one had expired.
    ids.sort_unstable_by_key(|id| std::cmp::Reverse(id.sequence));
    ids.retain(|id| known.insert(id.id.clone()) && kept.binary_search(&id.offset).is_err());
    ids.reverse();
    ids.shrink_to_fit();
    ids
}

/// Drops the oldest ids, so that all of them together take at most `bytes`.
pub(super) fn bound<'a>(topics: impl Iterator<Item = &'a mut Vec<RecoveredId>>, bytes: u64) {
    let mut topics: Vec<_> = topics.collect();
    let cost = |id: &RecoveredId| id.id.len() as u64 + ID_BYTES;
    let mut all: Vec<_> = topics.iter().flat_map(|ids| ids.iter().map(|id| (id.sequence, cost(id)))).collect();
    all.sort_unstable_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
    let mut left = bytes;
    for (sequence, cost) in all {
        match left.checked_sub(cost) {
            Some(less) => left = less,
            None => return topics.iter_mut().for_each(|ids| ids.retain(|id| id.sequence > sequence)),
        }
    }
}
