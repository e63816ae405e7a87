//! The names of consumers, each with its owner.

use std::sync::Arc;

use super::{Error, name::check_label};

/// Stands between a name and its owner where both are stored as one text. Neither may contain a control character.
const SEPARATOR: char = '\u{1f}';

/// The name under which the server keeps a subscriber's position, and the principal whom the consumer belongs to. Two
/// principals may use the same name for consumers of their own.
///
/// Both are one text in every store, so that the owner goes wherever the consumer goes. A consumer without an owner
/// belongs to whoever is not restricted at all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerName(Arc<str>);

impl ConsumerName {
    /// A name as clients give it: 1 to 255 bytes of UTF-8 without control characters. It has no owner.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        check_label("consumer", text)?;
        Ok(Self(text.into()))
    }

    /// The same name for a consumer of `owner`, whose name has the same bounds; without an owner for `None`.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub fn owned_by(&self, owner: Option<&str>) -> Result<Self, Error> {
        let Some(owner) = owner else { return Ok(Self(self.name().into())) };
        check_label("owner", owner)?;
        Ok(Self(format!("{}{SEPARATOR}{owner}", self.name()).into()))
    }

    /// The name without the owner.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split(SEPARATOR).next().unwrap_or_default()
    }

    /// The name of the principal whom the consumer belongs to.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.0.split_once(SEPARATOR).map(|(_, owner)| owner)
    }

    /// Name and owner as stores keep them.
    #[must_use]
    pub fn stored(&self) -> &str {
        &self.0
    }

    /// What [`ConsumerName::stored`] has returned.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for any other text.
    pub fn from_stored(text: &str) -> Result<Self, Error> {
        match text.split_once(SEPARATOR) {
            Some((name, owner)) => Self::parse(name)?.owned_by(Some(owner)),
            None => Self::parse(text),
        }
    }
}

impl std::fmt::Debug for ConsumerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_go_with_names() {
        let plain = ConsumerName::parse("worker").unwrap();
        let owned = plain.owned_by(Some("billing")).unwrap();
        assert_eq!((owned.name(), owned.owner()), ("worker", Some("billing")));
        assert_eq!((plain.name(), plain.owner()), ("worker", None));
        for name in [&plain, &owned] {
            assert_eq!(&ConsumerName::from_stored(name.stored()).unwrap(), name);
        }
        assert_eq!(owned.owned_by(None).unwrap(), plain);
        assert_ne!(owned, plain.owned_by(Some("shipping")).unwrap());
    }

    /// A client cannot name another one's consumer by writing both as one text.
    #[test]
    fn no_name_is_another_ones() {
        for text in ["worker\u{1f}billing", "", "a\nb", &"x".repeat(256)] {
            assert!(ConsumerName::parse(text).is_err(), "{text:?}");
        }
        let name = ConsumerName::parse("worker").unwrap();
        for owner in ["", "a\u{1f}b", &"x".repeat(256)] {
            assert!(name.owned_by(Some(owner)).is_err(), "{owner:?}");
        }
        assert!(ConsumerName::from_stored("a\u{1f}b\u{1f}c").is_err());
    }
}
