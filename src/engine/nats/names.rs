//! The names of topics and consumers in NATS.
//!
//! The tokens of a subject must not contain dots, spaces or wildcards, and the keys of a bucket allow little more
//! than letters and digits. So every byte that is not a letter, a digit, `_` or `-` is written as `=XX`. A name of
//! 255 bytes takes at most 765 bytes, within the limit of 4,096 for a line of the protocol.

use crate::channel::{Channel, MAX_NAME_BYTES, TopicName};

/// Encodes text as one token.
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

/// Decodes a token, or returns `None` if this service did not encode it.
pub(super) fn decode(token: &str) -> Option<String> {
    if token.is_empty() || token.len() > 3 * MAX_NAME_BYTES {
        return None;
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if *first == b'=' {
            let (digits, others) = others.split_at_checked(2)?;
            // Each text has only one encoding, or two keys would name one topic.
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

/// The suffix of the subject that marks the end of a topic's incarnation. Tokens have no dots.
pub(super) const END: &str = ".end";

/// The separator between a topic's token and an id's token in the subject that makes the id known without a message.
pub(super) const KNOWN: &str = ".id.";

/// The header of the time at which a message was first published, in milliseconds since 1970, if that differs from
/// when the stream got it.
pub(super) const AT_HEADER: &str = "Pubsub-At";

/// The streams of topics. Each holds topics with histories of up to so many messages. A `JetStream` stream has one
/// limit for all of its subjects, so a topic goes into the smallest stream that is large enough.
pub(super) const CLASSES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Returns the class of a topic that keeps so many messages, or `None` if no stream is that large.
pub(super) fn class_of(max_messages: usize) -> Option<usize> {
    CLASSES.into_iter().find(|class| *class >= max_messages)
}

/// The class of the stream that a topic is in.
pub(super) fn class_in(channel: &Channel) -> usize {
    CLASSES.get(channel.log()).copied().unwrap_or(0)
}

/// All names, which begin with the service's prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Returns the name of the stream of a class.
    pub fn stream(&self, class: usize) -> String {
        format!("{}_{class}", self.prefix)
    }

    /// Returns the prefix of the subjects of stored messages, which the topic's token follows.
    pub fn stored(&self, class: usize) -> String {
        format!("{}.t.{class}.", self.prefix)
    }

    /// The subject of a topic's stored messages.
    pub fn subject(&self, class: usize, topic: &TopicName) -> String {
        let mut subject = self.stored(class);
        encode_into(topic.as_str(), &mut subject);
        subject
    }

    /// Returns the pattern for the subjects of all ids that are known without a message.
    pub fn known_ids(&self, class: usize) -> String {
        format!("{}*{KNOWN}*", self.stored(class))
    }

    /// Returns the prefix of the subjects under which stored messages are republished.
    pub fn live(&self, class: usize) -> String {
        format!("{}.l.{class}.", self.prefix)
    }

    /// Returns the name of the bucket of topics.
    pub fn topics(&self) -> String {
        format!("{}_topics", self.prefix)
    }

    /// Returns the name of the bucket of consumers.
    pub fn consumers(&self) -> String {
        format!("{}_consumers", self.prefix)
    }

    /// Returns the prefix of the subjects under which changes of a bucket are republished.
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
