//! A message's data: any JSON value, kept as its own text.
//!
//! The text is kept, not a tree, because numbers must survive unchanged (a tree would make a double of them) and
//! because delivering is then a copy.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Error;

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
    /// [`Error::BadRequest`] for text that is not one JSON value or nests too deep, [`Error::PayloadTooLarge`] for more
    /// than `max_bytes` of compact text.
    pub fn parse(text: &str, max_bytes: usize) -> Result<Self, Error> {
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| Error::bad_request("data", format!("must be one JSON value ({error})")))?;
        Self::from_raw(raw, max_bytes)
    }

    /// Compacts JSON text that a parser has already found valid.
    ///
    /// # Errors
    /// As [`Payload::parse`].
    pub fn from_raw(raw: &RawValue, max_bytes: usize) -> Result<Self, Error> {
        let text = raw.get();
        let shape = Shape::of(text);
        if shape.depth > MAX_NESTING {
            return Err(Error::bad_request("data", format!("must not nest deeper than {MAX_NESTING}")));
        }
        check_size(shape.compact_bytes, max_bytes)?;
        if shape.compact_bytes == text.len() {
            return Ok(Self(text.into()));
        }
        let mut compact = String::with_capacity(shape.compact_bytes);
        let mut strings = InString::default();
        compact.extend(text.chars().filter(|c| !strings.is_space_between(*c)));
        Ok(Self(compact.into()))
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

    /// The payload, if it has at most `max_bytes`.
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`].
    pub fn within(self, max_bytes: usize) -> Result<Self, Error> {
        check_size(self.len(), max_bytes).map(|()| self)
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

/// Follows valid JSON text character by character and knows whether it is inside a string.
#[derive(Default)]
struct InString {
    inside: bool,
    escaped: bool,
}

impl InString {
    fn is_space_between(&mut self, c: char) -> bool {
        if self.inside {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.inside = false,
                _ => {}
            }
            return false;
        }
        self.inside = c == '"';
        matches!(c, ' ' | '\t' | '\n' | '\r')
    }
}

struct Shape {
    depth: usize,
    compact_bytes: usize,
}

impl Shape {
    /// One pass over valid JSON text; bytes suffice, because every byte that matters is ASCII and no part of a longer
    /// character.
    fn of(text: &str) -> Self {
        let (mut depth, mut deepest, mut spaces) = (0_usize, 0, 0);
        let mut strings = InString::default();
        for byte in text.bytes() {
            let was_inside = strings.inside;
            if strings.is_space_between(char::from(byte)) {
                spaces += 1;
            } else if !was_inside {
                match byte {
                    b'[' | b'{' => {
                        depth += 1;
                        deepest = deepest.max(depth);
                    }
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        Self { depth: deepest, compact_bytes: text.len() - spaces }
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
            (r#""\ud800 é 漢""#, r#""\ud800 é 漢""#),
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
}
