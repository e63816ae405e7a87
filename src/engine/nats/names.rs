//! What topics and consumers are called on the NATS side.
//!
//! A subject's tokens may not hold dots, spaces or wildcards, and a key of a bucket little more than letters and digits. So
//! every byte that is neither letter, digit, `_` nor `-` is written as `=XX`: 255 bytes become at most 765, within the 4,096
//! that a line of the protocol may have.

use crate::channel::{Channel, MAX_NAME_BYTES, TopicName};

/// Text as one token.
pub(super) fn encode(text: &str) -> String {
    let mut token = String::with_capacity(text.len() + 8);
    encode_into(text, &mut token);
    token
}

fn encode_into(text: &str, token: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02X}"));
        }
    }
}

/// The text of a token; `None` if it is none of ours.
pub(super) fn decode(token: &str) -> Option<String> {
    if token.is_empty() || token.len() > 3 * MAX_NAME_BYTES {
        return None;
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if *first == b'=' {
            let (digits, others) = others.split_at_checked(2)?;
            // Only one spelling for each text, or two keys would be one topic.
            let digits = std::str::from_utf8(digits)
                .ok()
                .filter(|digits| !digits.contains(|c: char| !c.is_ascii_hexdigit() || c.is_ascii_lowercase()))?;
            let byte = u8::from_str_radix(digits, 16).ok()?;
            if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
                return None;
            }
            bytes.push(byte);
            rest = others;
        } else if first.is_ascii_alphanumeric() || *first == b'_' || *first == b'-' {
            bytes.push(*first);
            rest = others;
        } else {
            return None;
        }
    }
    String::from_utf8(bytes).ok()
}

/// What the subject of a topic's end has behind the topic's token. Tokens have no dots.
pub(super) const END: &str = ".end";

/// What stands between a topic's token and an id's in the subject that makes the id known without a message.
pub(super) const KNOWN: &str = ".id.";

/// The header of the time at which a message was first published, in milliseconds since 1970, where that is not when the
/// stream got it.
pub(super) const AT: &str = "Pubsub-At";

/// The streams of topics: each holds topics of up to so many messages. `JetStream` has one bound for all subjects of a
/// stream, so a topic goes into the smallest stream that is large enough.
pub(super) const CLASSES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// The class of a topic that keeps so many messages; `None` if there is no stream that large.
pub(super) fn class_of(max_messages: usize) -> Option<usize> {
    CLASSES.into_iter().find(|class| *class >= max_messages)
}

/// The class of the stream that a topic is in.
pub(super) fn class_in(channel: &Channel) -> usize {
    CLASSES.get(channel.log()).copied().unwrap_or(0)
}

/// Everything that begins with the service's prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The stream of a class.
    pub fn stream(&self, class: usize) -> String {
        format!("{}_{class}", self.prefix)
    }

    /// What the subjects of stored messages begin with, up to the topic's token.
    pub fn stored(&self, class: usize) -> String {
        format!("{}.t.{class}.", self.prefix)
    }

    /// The subject of a topic's stored messages.
    pub fn subject(&self, class: usize, topic: &TopicName) -> String {
        let mut subject = self.stored(class);
        encode_into(topic.as_str(), &mut subject);
        subject
    }

    /// The subjects of all ids that are known without a message.
    pub fn known_ids(&self, class: usize) -> String {
        format!("{}*{KNOWN}*", self.stored(class))
    }

    /// What the subjects begin with under which they are published again, once they are stored.
    pub fn live(&self, class: usize) -> String {
        format!("{}.l.{class}.", self.prefix)
    }

    /// The bucket of topics.
    pub fn topics(&self) -> String {
        format!("{}_topics", self.prefix)
    }

    /// The bucket of consumers.
    pub fn consumers(&self) -> String {
        format!("{}_consumers", self.prefix)
    }

    /// What the subjects begin with under which changes of a bucket are published again.
    pub fn changes(&self, bucket: &str) -> String {
        format!("{}.c.{bucket}.", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_reversible_and_have_one_spelling() {
        for text in ["a", "a.b c*>", "ünï/%=x", " ", "=20", "💥", "$", "-_", &"\u{7ff}".repeat(127)] {
            let token = encode(text);
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)), "{token}");
            assert_eq!(decode(&token).as_deref(), Some(text));
        }
        assert_eq!(encode(&"\u{7ff}".repeat(127)).len(), 762);
        for bad in ["", "=", "=2", "=2g", "=2f", "=41", "a.b", "a b", "=FF", "ü", &"a".repeat(766)] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn topics_go_into_the_smallest_stream_that_holds_them() {
        assert_eq!(class_of(1), Some(1_000));
        assert_eq!(class_of(1_000), Some(1_000));
        assert_eq!(class_of(1_001), Some(10_000));
        assert_eq!(class_of(1_000_001), None);
    }
}
