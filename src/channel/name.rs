//! Names as types: parsed once at the border, infallible after.

use std::{borrow::Borrow, fmt, sync::Arc};

use super::Error;

/// Longest topic name or pattern, in bytes of UTF-8. Leaves room for the worst escaping (three bytes for one) within
/// the 4,096 bytes that a clustered engine's protocol line allows.
pub const MAX_NAME_BYTES: usize = 255;

/// The name of a topic: 1 to 255 bytes of UTF-8 without control characters, without leading or trailing white space,
/// without `*` and `>`, not beginning with `$`. `.` separates segments.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks `text` against the rule above.
    ///
    /// # Errors
    /// [`Error::InvalidTopic`] with the part of the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        check_common(text)?;
        if text.contains(['*', '>']) {
            return Err(Error::InvalidTopic("must not contain '*' or '>' (they make a pattern)"));
        }
        Ok(Self(text.into()))
    }

    /// A name that users cannot give, for the broker's own channels.
    pub(super) fn reserved(text: &str) -> Self {
        Self(text.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The part of the rule that names and patterns share.
pub(super) fn check_common(text: &str) -> Result<(), Error> {
    let problem = if text.is_empty() {
        "must not be empty"
    } else if text.len() > MAX_NAME_BYTES {
        "must be at most 255 bytes of UTF-8"
    } else if text.chars().any(char::is_control) {
        "must not contain control characters"
    } else if text.trim() != text {
        "must not begin or end with white space"
    } else if text.starts_with('$') {
        "must not begin with '$' (reserved)"
    } else {
        return Ok(());
    };
    Err(Error::InvalidTopic(problem))
}

/// Checks text that a client gives for an id, a key or a name: 1 to 255 bytes of UTF-8 without control characters.
///
/// # Errors
/// [`Error::BadRequest`] that names the field.
pub(super) fn check_label(field: &'static str, text: &str) -> Result<(), Error> {
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
        return Err(Error::bad_request(field, "must be 1 to 255 bytes of UTF-8 without control characters"));
    }
    Ok(())
}

/// Bounded text that a client gives: message ids and keys.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the bounds: 1 to 255 bytes of UTF-8 without control characters.
            ///
            /// # Errors
            /// [`Error::BadRequest`] that names the field.
            pub fn parse(text: &str) -> Result<Self, Error> {
                check_label($field, text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

label!(
    /// A message's id: the publisher's, else a new `UUIDv7`.
    MessageId, "id"
);
label!(
    /// A message's key, for filters and for keeping the latest of each key.
    Key, "key"
);

impl MessageId {
    /// A new id, ordered by time.
    #[must_use]
    pub fn generate() -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        Self(Arc::from(&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_rule() {
        for good in ["a", "news", "a.b.c", "ünï/%=x", "a b", &"x".repeat(255)] {
            assert!(TopicName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", " a", "a ", "a\nb", "a\u{0}", "*", "a.>", "a*b", "$SYS", "\u{a0}a", &"x".repeat(256)] {
            assert!(matches!(TopicName::parse(bad), Err(Error::InvalidTopic(_))), "{bad:?}");
        }
    }

    #[test]
    fn generated_ids_differ_and_grow() {
        let (a, b) = (MessageId::generate(), MessageId::generate());
        assert!(a < b);
    }
}
