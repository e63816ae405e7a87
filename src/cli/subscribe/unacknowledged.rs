//! What a consumer has printed, and the server does not know yet.

use std::collections::HashMap;

/// The newest cursor of each topic.
type Cursors = HashMap<String, String>;

/// How far each topic was read, written and acknowledged. Acknowledging a cursor covers everything before it in its topic, so
/// one cursor a topic is enough.
#[derive(Default)]
pub struct Unacknowledged {
    /// Taken for output.
    taken: Cursors,
    /// Written.
    written: Cursors,
    /// Acknowledged, where it is not known whether the server has read that.
    sent: Cursors,
    /// Acknowledgements that the server has not replied to.
    unanswered: u64,
}

impl Unacknowledged {
    /// A message was taken for output.
    pub fn take(&mut self, topic: String, cursor: String) {
        self.taken.insert(topic, cursor);
    }

    /// Everything that was taken is written.
    pub fn wrote(&mut self) {
        self.written.extend(self.taken.drain());
    }

    /// The cursors to acknowledge. From here on they count as sent.
    pub fn send(&mut self) -> Vec<String> {
        let cursors: Vec<String> = self.written.values().cloned().collect();
        self.unanswered += cursors.len() as u64;
        self.sent.extend(self.written.drain());
        cursors
    }

    /// A ping was answered, which acknowledges what is written. The server has read the answer to the one before it.
    pub fn confirm(&mut self) {
        self.sent = std::mem::take(&mut self.written);
    }

    /// The server has replied to an acknowledgement.
    pub fn replied(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
        if self.unanswered == 0 {
            self.sent.clear();
        }
    }

    /// The connection is lost, and with it the replies.
    pub fn lost(&mut self) {
        self.unanswered = 0;
    }

    /// The cursors that the server may not know, when nothing follows.
    pub fn last(&mut self) -> impl Iterator<Item = String> {
        let mut last = std::mem::take(&mut self.sent);
        last.extend(self.written.drain());
        last.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(cursors: &[(&str, &str)]) -> Unacknowledged {
        let mut all = Unacknowledged::default();
        for (topic, cursor) in cursors {
            all.take((*topic).to_owned(), (*cursor).to_owned());
        }
        all
    }

    fn last(mut all: Unacknowledged) -> Vec<String> {
        let mut cursors: Vec<_> = all.last().collect();
        cursors.sort();
        cursors
    }

    #[test]
    fn only_what_is_written_is_acknowledged() {
        let mut all = taken(&[("a", "a1"), ("b", "b1"), ("a", "a2")]);
        assert!(all.send().is_empty());
        all.wrote();
        all.take("a".to_owned(), "a3".to_owned());
        let mut sent = all.send();
        sent.sort();
        assert_eq!(sent, ["a2", "b1"]);
        all.replied();
        assert_eq!(last(all), ["a2", "b1"], "one reply is missing");
    }

    #[test]
    fn replies_end_it() {
        let mut all = taken(&[("a", "a1")]);
        all.wrote();
        assert_eq!(all.send(), ["a1"]);
        all.replied();
        all.take("a".to_owned(), "a2".to_owned());
        all.wrote();
        assert_eq!(last(all), ["a2"]);
    }

    /// The last answer to a ping may be lost with the connection, so what it covers is acknowledged at the end.
    #[test]
    fn the_last_confirmation_is_not_relied_on() {
        let mut all = taken(&[("a", "a1")]);
        all.wrote();
        all.confirm();
        all.take("b".to_owned(), "b1".to_owned());
        all.wrote();
        all.confirm();
        all.lost();
        assert_eq!(last(all), ["b1"]);
    }
}
