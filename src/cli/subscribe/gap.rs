//! What was missed, in words.

use std::fmt;

use serde::Deserialize;

/// What was missed at one position of a subscription.
#[derive(Debug, Deserialize)]
pub struct Gap {
    topic: String,
    reason: String,
    /// Unknown where it is null.
    missed: Option<u64>,
    from_offset: u64,
    to_offset: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, reason, from_offset, to_offset, .. } = self;
        let offsets = format!("(offsets {from_offset} to {to_offset})");
        match self.missed {
            Some(0) => write!(f, "missed an unknown number of messages of {topic:?}: "),
            Some(1) => write!(f, "missed 1 message of {topic:?} (offset {from_offset}): "),
            Some(missed) => write!(f, "missed {missed} messages of {topic:?} {offsets}: "),
            None => write!(f, "missed an unknown number of messages of {topic:?} {offsets}: "),
        }?;
        match reason.as_str() {
            "SLOW_CONSUMER" => f.write_str("this program did not read as fast as they were published"),
            "EXPIRED" => f.write_str("the topic does not keep them any more"),
            "NEW_EPOCH" => {
                f.write_str("the topic was created again, or the server was started without what it had stored")?;
                match self.missed {
                    Some(0) => f.write_str("; what it had before that and was not read is gone"),
                    _ => f.write_str("; these are gone, and what it had before that and was not read"),
                }
            }
            _ => f.write_str("the server says why in one word"),
        }?;
        write!(f, " ({reason})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_say_how_many_which_and_why() {
        let said = |missed: &str, reason: &str| {
            let text = format!(
                r#"{{"type":"gap","topic":"a","reason":"{reason}","missed":{missed},"from_offset":5,"to_offset":9}}"#
            );
            serde_json::from_str::<Gap>(&text).unwrap().to_string()
        };
        assert_eq!(
            said("5", "SLOW_CONSUMER"),
            "missed 5 messages of \"a\" (offsets 5 to 9): this program did not read as fast as they were published \
             (SLOW_CONSUMER)"
        );
        assert!(said("1", "EXPIRED").starts_with("missed 1 message of \"a\" (offset 5): "));
        assert!(said("null", "EXPIRED").contains("unknown number of messages of \"a\" (offsets 5 to 9)"));
        assert!(said("0", "NEW_EPOCH").contains("what it had before that and was not read is gone (NEW_EPOCH)"));
        assert!(said("3", "COMPACTED").ends_with("(COMPACTED)"));
    }
}
