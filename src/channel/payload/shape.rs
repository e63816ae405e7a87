//! One pass over valid JSON text: how deep it nests, how long it is, and what consumers would read differently.

use std::{borrow::Cow, fmt};

/// Why JSON text is not taken as data, though a parser may take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defect {
    /// It nests deeper than this.
    Nesting(usize),
    /// A string holds half of a UTF-16 surrogate pair, which no UTF-8 text can hold: many parsers refuse it, others put
    /// U+FFFD in its place.
    HalfSurrogate,
    /// An object has a key twice: parsers differ in which one counts.
    RepeatedKey(String),
}

impl Defect {
    /// The first defect of valid JSON text.
    #[must_use]
    pub fn of(text: &str, max_nesting: usize) -> Option<Self> {
        Shape::check(text, max_nesting).err()
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nesting(limit) => write!(f, "must not nest deeper than {limit}"),
            Self::HalfSurrogate => f.write_str("must not hold half of a surrogate pair"),
            Self::RepeatedKey(key) => {
                let key: String = key.chars().take(64).collect();
                write!(f, "must not have the key {key:?} twice in one object")
            }
        }
    }
}

/// Follows valid JSON text character by character and knows whether it is inside a string.
#[derive(Default)]
pub(super) struct InString {
    inside: bool,
    escaped: bool,
}

impl InString {
    pub(super) fn is_space_between(&mut self, c: char) -> bool {
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

/// What valid JSON text comes to.
#[derive(Default)]
pub(super) struct Shape {
    /// Arrays and objects within one another.
    pub depth: usize,
    /// Bytes without the space between tokens.
    pub compact_bytes: usize,
    /// The same where each escape counts as the character that it stands for.
    pub decoded_bytes: usize,
}

impl Shape {
    /// Only measures.
    pub(super) fn of(text: &str) -> Self {
        Self::measure(text, |_, _| Ok(())).unwrap_or_default()
    }

    /// Measures and checks.
    pub(super) fn check(text: &str, max_nesting: usize) -> Result<Self, Defect> {
        // The keys of each open object; an open array has none.
        let mut open: Vec<Vec<Cow<'_, str>>> = Vec::new();
        Self::measure(text, |depth, token| {
            match token {
                Token::Open if depth > max_nesting => return Err(Defect::Nesting(max_nesting)),
                Token::Open => open.push(Vec::new()),
                Token::Close => open.pop().map_or(Ok(()), distinct)?,
                Token::HalfSurrogate => return Err(Defect::HalfSurrogate),
                Token::Key(key) => {
                    if let Some(keys) = open.last_mut() {
                        keys.push(decoded(key));
                    }
                }
            }
            Ok(())
        })
    }

    /// Bytes suffice, because every byte that matters is ASCII and no part of a longer character.
    fn measure<'a>(
        text: &'a str,
        mut meet: impl FnMut(usize, Token<'a>) -> Result<(), Defect>,
    ) -> Result<Self, Defect> {
        let bytes = text.as_bytes();
        let (mut at, mut depth, mut spaces, mut saved) = (0, 0_usize, 0, 0);
        let (mut deepest, mut last_string) = (0, 0..0);
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => {
                    let string = string_at(bytes, at);
                    if string.half {
                        meet(depth, Token::HalfSurrogate)?;
                    }
                    saved += string.saved;
                    last_string = at..string.end;
                    at = string.end;
                    continue;
                }
                b'[' | b'{' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                    meet(depth, Token::Open)?;
                }
                b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    meet(depth, Token::Close)?;
                }
                b':' => meet(depth, Token::Key(text.get(last_string.clone()).unwrap_or_default()))?,
                b' ' | b'\t' | b'\n' | b'\r' => spaces += 1,
                _ => {}
            }
            at += 1;
        }
        let compact_bytes = text.len() - spaces;
        Ok(Self { depth: deepest, compact_bytes, decoded_bytes: compact_bytes - saved })
    }
}

/// What a walk meets.
enum Token<'a> {
    Open,
    Close,
    HalfSurrogate,
    /// With its quotes.
    Key(&'a str),
}

/// A string of JSON text.
struct Text {
    /// Behind its closing quote.
    end: usize,
    /// Bytes that its escapes take beyond those of their characters.
    saved: usize,
    /// Whether it holds half of a surrogate pair.
    half: bool,
}

/// The string that begins at `start`.
fn string_at(bytes: &[u8], start: usize) -> Text {
    let mut text = Text { end: bytes.len(), saved: 0, half: false };
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                text.end = at + 1;
                break;
            }
            b'\\' if bytes.get(at + 1) == Some(&b'u') => {
                let unit = unit_at(bytes, at);
                // The second half follows the first at once.
                let pair = matches!(unit, 0xd800..=0xdbff) && matches!(unit_at(bytes, at + 6), 0xdc00..=0xdfff);
                let (read, length) = match unit {
                    _ if pair => (12, 4),
                    0..=0x7f => (6, 1),
                    0x80..=0x7ff => (6, 2),
                    _ => (6, 3),
                };
                text.half |= !pair && matches!(unit, 0xd800..=0xdfff);
                text.saved += read - length;
                at += read;
            }
            b'\\' => {
                text.saved += 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
    text
}

/// The UTF-16 unit that the escape at `at` stands for; 0 if there is no such escape.
fn unit_at(bytes: &[u8], at: usize) -> u32 {
    let escape = bytes.get(at..at + 6).and_then(|escape| std::str::from_utf8(escape).ok());
    let digits = escape.and_then(|escape| escape.strip_prefix("\\u"));
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

/// The text of a key.
fn decoded(key: &str) -> Cow<'_, str> {
    if key.contains('\\') {
        Cow::Owned(serde_json::from_str(key).unwrap_or_else(|_| key.to_owned()))
    } else {
        Cow::Borrowed(key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key))
    }
}

/// Refuses keys of one object that are the same.
fn distinct(mut keys: Vec<Cow<'_, str>>) -> Result<(), Defect> {
    // Sorting bounds the work for objects of many keys; most have a few.
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Defect::RepeatedKey(pair[0].clone().into_owned())),
        None => Ok(()),
    }
}
