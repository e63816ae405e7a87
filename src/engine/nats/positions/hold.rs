//! Which subscription holds a consumer, according to its entry.

use std::fmt;

/// The subscription that holds a consumer, or held it last, according to the entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hold {
    /// Its name, empty if there never was one. Later subscriptions have greater names.
    pub claim: String,
    pub stage: Stage,
}

/// The state of a subscription with its consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// The subscription has created the consumer and was not yet told that it holds it. There is no position.
    New,
    /// The subscription holds the consumer.
    Held,
    /// The subscription has released the consumer.
    #[default]
    Left,
}

impl Hold {
    pub fn parse(text: &str) -> Self {
        let (claim, stage) = match text.split_once(' ') {
            Some((claim, "new")) => (claim, Stage::New),
            Some((claim, _)) => (claim, Stage::Left),
            None if text.is_empty() => (text, Stage::Left),
            None => (text, Stage::Held),
        };
        Self { claim: claim.to_owned(), stage }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { claim, stage } = self;
        match stage {
            Stage::New => write!(f, "{claim} new"),
            Stage::Held => f.write_str(claim),
            Stage::Left if claim.is_empty() => Ok(()),
            Stage::Left => write!(f, "{claim} left"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for (stage, text) in [(Stage::New, "a-1 new"), (Stage::Held, "a-1"), (Stage::Left, "a-1 left")] {
            let hold = Hold { claim: "a-1".to_owned(), stage };
            assert_eq!((hold.to_string().as_str(), Hold::parse(text)), (text, hold));
        }
        // An entry that an import has written.
        assert_eq!((Hold::parse(""), Hold::default().to_string().as_str()), (Hold::default(), ""));
        // A word that only a later version knows does not count as a hold.
        assert_eq!(Hold::parse("a-1 gone").stage, Stage::Left);
    }
}
