//! Which of a topic's recovered messages make up its history.

/// The place of a message in the chain of its topic.
#[derive(Clone, Copy)]
pub(super) struct ChainLink {
    pub offset: u64,
    /// The offset of the message that was stored before it.
    pub prev: u64,
}

/// A topic's messages after the bound was applied.
pub(super) struct NewestMessages<M> {
    /// The messages of the history.
    pub kept: Vec<M>,
    /// The evicted messages right before the history that are still in the log.
    pub evicted: Vec<M>,
    /// How many messages were dropped because a gap follows them.
    pub detached: usize,
}

/// Selects the `keep` newest of a topic's messages above its floor, by offset. `link_of` returns the offsets of a message.
pub(super) fn select_newest<M>(
    mut messages: Vec<M>,
    floor: u64,
    keep: usize,
    link_of: impl Fn(&M) -> ChainLink,
) -> NewestMessages<M> {
    // Compaction copies old messages to the end of the log, and a crash can leave both copies.
    if !messages.is_sorted_by(|a, b| link_of(a).offset < link_of(b).offset) {
        messages.sort_by_key(|message| link_of(message).offset);
        messages.dedup_by_key(|message| link_of(message).offset);
    }
    let above_floor = messages.partition_point(|message| link_of(message).offset <= floor);
    let mut kept = messages.split_off(above_floor.max(messages.len().saturating_sub(keep)));
    // A trimmed message stays in the log until its segment is removed, and segments are removed in any order. So there can
    // be gaps among the trimmed messages.
    let is_gap = |pair: &[M]| link_of(&pair[1]).prev != link_of(&pair[0]).offset;
    let detached = kept.windows(2).rposition(is_gap).map_or(0, |before| before + 1);
    kept.drain(..detached);
    if detached > 0 {
        messages.clear();
    }
    // Of the messages before, keep those that the oldest kept message follows without a gap.
    let mut next = kept.first().map(|message| link_of(message).prev);
    let followed = messages.iter().rev().take_while(|message| {
        let ChainLink { offset, prev } = link_of(message);
        let follows = next.is_none_or(|next| next == offset);
        next = Some(prev);
        follows
    });
    messages.drain(..messages.len() - followed.count());
    kept.shrink_to_fit();
    NewestMessages { kept, evicted: messages, detached }
}
