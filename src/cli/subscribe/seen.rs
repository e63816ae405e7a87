//! Which messages were printed already: what a consumer has not acknowledged comes again after a lost connection.

use std::collections::{HashSet, VecDeque};

/// As many positions are remembered. A server sends no more than about as many before it waits for an acknowledgement.
const MAX_SEEN: usize = 20_000;

/// The cursors of the messages that were printed last.
#[derive(Default)]
pub struct Seen {
    order: VecDeque<String>,
    known: HashSet<String>,
}

impl Seen {
    /// Remembers a cursor. Returns whether it is new.
    pub fn insert(&mut self, cursor: &str) -> bool {
        if !self.known.insert(cursor.to_owned()) {
            return false;
        }
        self.order.push_back(cursor.to_owned());
        if self.order.len() > MAX_SEEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_known() {
        let mut seen = Seen::default();
        assert!((0..=MAX_SEEN).all(|number| seen.insert(&number.to_string())));
        assert!(!seen.insert("1") && !seen.insert(&MAX_SEEN.to_string()));
        assert!(seen.insert("0"), "it was forgotten");
        assert_eq!(seen.order.len(), seen.known.len());
    }
}
