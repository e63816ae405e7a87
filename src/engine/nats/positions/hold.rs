//! Who has a consumer, as its entry says it.

use std::fmt;

/// The subscription that has a consumer, or had it last, as the entry says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hold {
    /// Its name, empty where there never was one. Later ones have greater names.
    pub claim: String,
    pub stage: Stage,
}

/// How far a subscription has come with its consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has made the consumer, and was not told yet that it has it: there is no position.
    New,
    /// It has it.
    Held,
    /// It has let go of it.
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
        // Of one that came from elsewhere.
        assert_eq!((Hold::parse(""), Hold::default().to_string().as_str()), (Hold::default(), ""));
        // What a later version may say is not a hold.
        assert_eq!(Hold::parse("a-1 gone").stage, Stage::Left);
    }
}
