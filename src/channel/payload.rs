//! A message's data: any JSON value, kept as its own text.
//!
//! The text is kept, not a tree, because numbers must survive unchanged (a tree would make a double of them) and
//! because delivering is then a copy.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde_json::value::RawValue;

mod shape;

use super::Error;
pub use shape::Defect;
use shape::{InString, Shape};

/// How deep arrays and objects may nest. Common JSON parsers refuse more than 128 (`serde_json`) or overflow their
/// stack somewhat later, so a deeper payload could be published but not read.
pub const MAX_NESTING: usize = 64;

/// A JSON value as compact UTF-8 text: valid, without white space between its tokens, nested at most
/// [`MAX_NESTING`] deep.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Arc<str>);

/// Lets `Bytes` share a payload's text.
struct Shared(Arc<str>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Payload {
    /// Checks and compacts JSON text.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for text that is not one JSON value, and as [`Payload::from_raw`].
    pub fn parse(text: &str, max_bytes: usize) -> Result<Self, Error> {
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| Error::bad_request("data", format!("must be one JSON value ({error})")))?;
        Self::from_raw(raw, max_bytes)
    }

    /// Compacts JSON text that a parser has already found valid.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for what consumers would read differently or not at all (see [`Defect`]),
    /// [`Error::PayloadTooLarge`] for more than `max_bytes`, in which an escape counts as the character that it stands for,
    /// so that the bound does not depend on how a client spells its strings.
    pub fn from_raw(raw: &RawValue, max_bytes: usize) -> Result<Self, Error> {
        let text = raw.get();
        let shape = Shape::check(text, MAX_NESTING).map_err(|defect| Error::bad_request("data", defect.to_string()))?;
        check_size(shape.decoded_bytes, max_bytes)?;
        Ok(Self::compact(text, &shape))
    }

    /// Compacts JSON text that another server has accepted, or an earlier version of this one: it is kept as it is, with its
    /// repeated keys and halves of surrogate pairs.
    ///
    /// # Errors
    /// As [`Payload::from_raw`], but for those two.
    pub fn existing(raw: &RawValue, max_bytes: usize) -> Result<Self, Error> {
        let text = raw.get();
        let shape = Shape::of(text);
        if shape.depth > MAX_NESTING {
            return Err(Error::bad_request("data", Defect::Nesting(MAX_NESTING).to_string()));
        }
        check_size(shape.decoded_bytes, max_bytes)?;
        Ok(Self::compact(text, &shape))
    }

    fn compact(text: &str, shape: &Shape) -> Self {
        if shape.compact_bytes == text.len() {
            return Self(text.into());
        }
        let mut compact = String::with_capacity(shape.compact_bytes);
        let mut strings = InString::default();
        compact.extend(text.chars().filter(|c| !strings.is_space_between(*c)));
        Self(compact.into())
    }

    /// JSON text that was checked and compacted when it was accepted.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// JSON's null.
    #[must_use]
    pub fn null() -> Self {
        Self("null".into())
    }

    /// Nothing: what stays of a payload that is not kept. It is no JSON, and nobody reads it.
    pub(super) fn hollow() -> Self {
        Self("".into())
    }

    /// The payload, if it has at most `max_bytes`, counted as in [`Payload::from_raw`].
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`].
    pub fn within(self, max_bytes: usize) -> Result<Self, Error> {
        // An escape is never shorter than its character.
        if self.len() <= max_bytes {
            return Ok(self);
        }
        check_size(Shape::of(&self.0).decoded_bytes, max_bytes).map(|()| self)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The JSON text as bytes, shared, not copied.
    #[must_use]
    pub fn as_bytes(&self) -> Bytes {
        Bytes::from_owner(Shared(self.0.clone()))
    }

    /// Bytes of JSON text.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: the shortest JSON value has one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn check_size(bytes: usize, limit: usize) -> Result<(), Error> {
    if bytes > limit { Err(Error::PayloadTooLarge { limit }) } else { Ok(()) }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Payload, Error> {
        Payload::parse(text, 1_000)
    }

    #[test]
    fn text_survives_but_for_space_between_tokens() {
        for (given, kept) in [
            (r#""Hello World!""#, r#""Hello World!""#),
            (" { \"a b\" : [ 1 ,\n2.50 ] , \"q\\\" \" : \" x \" } ", r#"{"a b":[1,2.50],"q\" ":" x "}"#),
            (r#"{"n": 12345678901234567890.5e400}"#, r#"{"n":12345678901234567890.5e400}"#),
            ("null", "null"),
            (r#""\ud83d\uDE00 \u00e9 漢 \\ud800""#, r#""\ud83d\uDE00 \u00e9 漢 \\ud800""#),
        ] {
            assert_eq!(parse(given).unwrap().as_str(), kept);
        }
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for bad in ["", "{", "nul", "1 2", "'a'", "[1,]", "01", "\"\n\"", "NaN", "{\"a\":}"] {
            assert!(matches!(parse(bad), Err(Error::BadRequest { field: "data", .. })), "{bad:?}");
        }
    }

    #[test]
    fn bounds_hold() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(&nested(MAX_NESTING)).is_ok());
        assert!(matches!(parse(&nested(MAX_NESTING + 1)), Err(Error::BadRequest { .. })));
        assert!(Payload::parse(&nested(500_000), usize::MAX).is_err());
        assert!(parse(&format!("\"{}\"", "x".repeat(998))).is_ok());
        assert_eq!(parse(&format!("\"{}\"", "x".repeat(999))), Err(Error::PayloadTooLarge { limit: 1_000 }));
    }

    #[test]
    fn what_consumers_would_read_differently_is_refused() {
        let same = |escape: &str| format!(r#"{{"b":{{"a":1}},"a":[{{"a":1}}],"{escape}":2}}"#);
        assert!(parse(&same("c")).is_ok());
        for (bad, reason) in [
            (r#""cut \ud83d""#.to_owned(), "data: must not hold half of a surrogate pair"),
            (r#"["\ude00\ud83d"]"#.to_owned(), "data: must not hold half of a surrogate pair"),
            (r#"{"\ud83dx":1}"#.to_owned(), "data: must not hold half of a surrogate pair"),
            (r#""\ud83d\u0041""#.to_owned(), "data: must not hold half of a surrogate pair"),
            (same("a"), "data: must not have the key \"a\" twice in one object"),
            (same(r"\u0061"), "data: must not have the key \"a\" twice in one object"),
        ] {
            assert_eq!(parse(&bad).unwrap_err().to_string(), reason, "{bad}");
            // What is stored already stays readable.
            let raw: &RawValue = serde_json::from_str(&bad).unwrap();
            assert_eq!(Payload::existing(raw, 100).unwrap().as_str(), bad);
        }
    }

    /// However a client spells it, the same string is within the bound or over it.
    #[test]
    fn the_bound_is_counted_on_the_decoded_text() {
        for spelled in ["é", r"\u00e9", "é", r"\n\u0001", r"\u0041\/"] {
            let text = format!("\"{}\"", spelled.repeat(499));
            assert_eq!(Payload::parse(&text, 1_000).unwrap().as_str(), text);
            assert!(Payload::parse(&text, 1_000).unwrap().within(1_000).is_ok());
            assert_eq!(Payload::parse(&text, 999), Err(Error::PayloadTooLarge { limit: 999 }));
            assert!(Payload::parse(&text, 1_000).unwrap().within(999).is_err());
        }
        let pairs = format!("\"{}\"", r"\ud83d\ude00".repeat(249));
        assert!(Payload::parse(&pairs, 998).is_ok() && Payload::parse(&pairs, 997).is_err());
    }
}
