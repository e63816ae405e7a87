//! The first pass over a request document: lexical, without allocation and without recursion.
//!
//! `async-graphql-parser` descends one stack frame (in fact several) for every bracket that is
//! opened, so the number of brackets open at once has to be bounded before the text reaches it.
//! This lexer follows the token boundaries of the parser's own grammar (`graphql.pest`) rather
//! than those of the specification wherever the two differ, because it is the parser that has to
//! be protected. The differences that matter are commented where they occur.

use super::{DocumentError, DocumentLimits, ErrorKind};

/// Checks `text` against [`max_bytes`](DocumentLimits::max_bytes),
/// [`max_tokens`](DocumentLimits::max_tokens) and [`max_nesting`](DocumentLimits::max_nesting).
///
/// Takes one pass, allocates nothing unless it fails and never recurses. A text that passes is
/// not necessarily a GraphQL document; that is for the parser to say.
///
/// # Errors
///
/// [`ErrorKind::TooComplex`] if a limit is exceeded, and [`ErrorKind::Syntax`] for the faults
/// found on the way: a character that starts no token, a string without an end, a closing bracket
/// that closes nothing and an opening one that is never closed.
pub fn scan(text: &str, limits: &DocumentLimits) -> Result<(), DocumentError> {
    if text.len() > limits.max_bytes {
        let message = format!("The document is {} bytes long; the limit is {}.", text.len(), limits.max_bytes);
        return Err(DocumentError::new(ErrorKind::TooComplex, message, Vec::new()));
    }
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, tokens: 0, nesting: 0, limits };
    while lexer.token()? {}
    if lexer.nesting > 0 {
        return Err(lexer.syntax(text.len(), "Syntax error: a bracket is never closed."));
    }
    Ok(())
}

/// Counts the tokens of a text that [`scan`] accepts.
#[cfg(test)]
pub(super) fn tokens(text: &str, limits: &DocumentLimits) -> usize {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, tokens: 0, nesting: 0, limits };
    while lexer.token().unwrap() {}
    lexer.tokens
}

/// The stretches of a text that [`scan`] accepts: its tokens and what stands between them.
pub(super) fn stretches<'a>(text: &'a str, limits: &'a DocumentLimits) -> impl Iterator<Item = (usize, &'a str)> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, tokens: 0, nesting: 0, limits };
    std::iter::from_fn(move || {
        let start = lexer.at;
        lexer.token().ok().filter(|more| *more).and_then(|_| Some((start, text.get(start..lexer.at)?)))
    })
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// Offset of the next byte to read.
    at: usize,
    tokens: usize,
    /// Brackets of any sort now open. Their sorts are not matched up: where they do not match the
    /// parser stops, and up to that point this count is exact.
    nesting: usize,
    limits: &'a DocumentLimits,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn starts_with(&self, prefix: &[u8]) -> bool {
        self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(prefix))
    }

    /// Reads one token, or whatever may stand between tokens; `false` at the end of the text.
    fn token(&mut self) -> Result<bool, DocumentError> {
        let start = self.at;
        let Some(byte) = self.peek(0) else {
            return Ok(false);
        };
        match byte {
            b' ' | b'\t' | b',' | b'\n' | b'\r' => self.at += 1,
            // A byte order mark is blank anywhere, as in the grammar.
            0xef if self.starts_with("\u{feff}".as_bytes()) => self.at += 3,
            b'#' => {
                while self.peek(0).is_some_and(|b| b != b'\n' && b != b'\r') {
                    self.at += 1;
                }
            }
            b'{' | b'[' | b'(' => {
                self.at += 1;
                self.nesting += 1;
                if self.nesting > self.limits.max_nesting {
                    let message = format!("The document nests brackets more than {} deep.", self.limits.max_nesting);
                    return Err(self.error(ErrorKind::TooComplex, start, message));
                }
                self.count(start, 1)?;
            }
            b'}' | b']' | b')' => {
                self.at += 1;
                let Some(nesting) = self.nesting.checked_sub(1) else {
                    return Err(self.syntax(start, "Syntax error: a bracket closes nothing."));
                };
                self.nesting = nesting;
                self.count(start, 1)?;
            }
            b'!' | b'$' | b'&' | b':' | b'=' | b'@' | b'|' => {
                self.at += 1;
                self.count(start, 1)?;
            }
            b'.' if self.starts_with(b"...") => {
                self.at += 3;
                self.count(start, 1)?;
            }
            b'"' => {
                self.string(start)?;
                self.count(start, 1)?;
            }
            b'-' | b'0'..=b'9' => {
                self.number();
                self.count(start, 1)?;
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let words = self.name();
                self.count(start, words)?;
            }
            _ => {
                return Err(self.syntax(start, "Syntax error: unexpected character."));
            }
        }
        Ok(true)
    }

    fn count(&mut self, start: usize, tokens: usize) -> Result<(), DocumentError> {
        self.tokens += tokens;
        if self.tokens > self.limits.max_tokens {
            let message = format!("The document has more than {} tokens.", self.limits.max_tokens);
            return Err(self.error(ErrorKind::TooComplex, start, message));
        }
        Ok(())
    }

    /// Reads a name and says how many tokens it counts for.
    ///
    /// The grammar takes `true`, `false` and `null` in a value without looking at what follows,
    /// so that to the parser `truetruenull` is three values: each such prefix counts.
    fn name(&mut self) -> usize {
        let start = self.at;
        while self.peek(0).is_some_and(|b| b == b'_' || b.is_ascii_alphanumeric()) {
            self.at += 1;
        }
        let mut rest = self.bytes.get(start..self.at).unwrap_or_default();
        let mut words = 0;
        while !rest.is_empty() {
            words += 1;
            let keyword = [&b"true"[..], b"false", b"null"].into_iter().find_map(|word| rest.strip_prefix(word));
            rest = keyword.unwrap_or_default();
        }
        words
    }

    /// Reads a number no further than the grammar does: `007` and `1-1` are several numbers to
    /// the parser (`00` is refused by the specification), so they must be several tokens here.
    fn number(&mut self) {
        if self.peek(0) == Some(b'-') {
            self.at += 1;
        }
        if self.peek(0) == Some(b'0') {
            self.at += 1;
        } else {
            self.digits();
        }
        if self.peek(0) == Some(b'.') && self.peek(1).is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
            if self.peek(1 + sign).is_some_and(|b| b.is_ascii_digit()) {
                self.at += 1 + sign;
                self.digits();
            }
        }
    }

    fn digits(&mut self) {
        while self.peek(0).is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// Reads a string or a block string.
    ///
    /// One without an end must be refused here: the grammar reads `"""` that is never closed as
    /// an empty string followed by the start of another, so that what this lexer takes for the
    /// inside of a block string would be outside of any string to the parser.
    fn string(&mut self, start: usize) -> Result<(), DocumentError> {
        if self.starts_with(br#"""""#) {
            self.at += 3;
            while self.at < self.bytes.len() {
                if self.starts_with(br#"\""""#) {
                    self.at += 4;
                } else if self.starts_with(br#"""""#) {
                    self.at += 3;
                    return Ok(());
                } else {
                    self.at += 1;
                }
            }
        } else {
            self.at += 1;
            while let Some(byte) = self.peek(0) {
                self.at += 1;
                match byte {
                    b'"' => return Ok(()),
                    b'\n' | b'\r' => break,
                    // Which escapes exist is for the parser; here it only matters that an escaped
                    // quote does not end the string. Skipping half of a longer character is
                    // harmless, its other bytes are never quotes.
                    b'\\' => match self.peek(0) {
                        None | Some(b'\n' | b'\r') => break,
                        Some(_) => self.at += 1,
                    },
                    _ => {}
                }
            }
        }
        Err(self.syntax(start, "Syntax error: the string has no end."))
    }

    fn syntax(&self, offset: usize, message: &str) -> DocumentError {
        self.error(ErrorKind::Syntax, offset, message.to_owned())
    }

    fn error(&self, kind: ErrorKind, offset: usize, message: String) -> DocumentError {
        DocumentError::new(kind, message, vec![location(self.text, offset)])
    }
}

/// The line and column, both from 1 and the column in characters, of a byte offset. Lines are
/// counted as the parser counts them.
pub(super) fn location(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind(['\n', '\r']).map_or(0, |at| at + 1);
    let column = before.get(start..).map_or(0, |tail| tail.chars().count()).saturating_add(1);
    (line, column)
}
