//! Which messages were printed already: what a consumer has not acknowledged comes again after a lost connection.

use std::collections::{HashSet, VecDeque};

/// As many positions are remembered. A server sends no more than about as many before it waits for an acknowledgement.
const MAX_SEEN: usize = 20_000;

/// The cursors of the messages that were printed last.
#[derive(Default)]
pub struct Seen {
    order: VecDeque<String>,
    known: HashSet<String>,
    /// What is known may come again: the connection is a new one, and nothing new has come over it yet.
    may_repeat: bool,
}

impl Seen {
    /// A new connection: what was not acknowledged over the last one comes again.
    pub fn reconnected(&mut self) {
        self.may_repeat = true;
    }

    /// Remembers a cursor. Returns whether it is new. One that comes again without a reason is new, too: the consumer was moved
    /// back, and its messages are wanted again.
    pub fn insert(&mut self, cursor: &str) -> bool {
        if self.known.contains(cursor) {
            if self.may_repeat {
                return false;
            }
            self.known.clear();
            self.order.clear();
        }
        self.may_repeat = false;
        self.known.insert(cursor.to_owned());
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
        seen.reconnected();
        assert!(!seen.insert("1") && !seen.insert(&MAX_SEEN.to_string()));
        assert!(seen.insert("0"), "it was forgotten");
        assert_eq!(seen.order.len(), seen.known.len());
    }

    #[test]
    fn what_comes_again_on_the_same_connection_is_wanted_again() {
        let mut seen = Seen::default();
        for round in 0..3 {
            for cursor in ["a", "b", "c"] {
                assert!(seen.insert(cursor), "{cursor} in round {round}");
            }
        }
        seen.reconnected();
        assert!(!seen.insert("b") && !seen.insert("c") && seen.insert("d"));
        assert!(seen.insert("b"), "moved back");
    }
}
