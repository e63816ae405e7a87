//! Literals that async-graphql's parser reads wrongly or not at all: escapes beyond `\\uFFFF`, block strings of several
//! lines or with `\\"""`, and numbers that its type respells (`1E5`, `0.10`) or cannot hold (`1e400`).
//!
//! Each is replaced by a string of one character that the text does not hold, of the same length where that is possible, so
//! that errors name the right column; after parsing, `restore` puts its value in that place. A number becomes JSON text
//! ([`Value::Binary`]), as it does in variables: only the `JSON` scalar takes it. On the way, the keys of object literals
//! are compared, because the parser drops repeated ones.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Range,
};

use async_graphql_parser::Positioned;
use async_graphql_parser::types::ExecutableDocument;
use async_graphql_value::{ConstValue, Name, Value};
use serde_json::Number;

use super::absent::operations_of;
use super::edit::EditArguments;
use super::scan::{location, stretches};
use super::{DocumentError, DocumentLimits, ErrorKind, short};

/// A text in which the parser takes every literal as it is, and what stands for which literal.
pub(super) struct Literals<'a> {
    /// The text for the parser.
    pub text: Cow<'a, str>,
    found: HashMap<char, Value>,
}

/// Where placeholders are taken from: a plane for private use, which is larger than any document.
const PLACEHOLDERS: Range<u32> = 0xf_0000..0xf_fffe;

/// Finds the literals of a text that has been scanned.
///
/// # Errors
/// [`ErrorKind::Syntax`] for an escape that stands for no character, [`ErrorKind::Validation`] for a repeated key.
pub(super) fn find<'a>(text: &'a str, limits: &'a DocumentLimits) -> Result<Literals<'a>, DocumentError> {
    let used: HashSet<char> = text.chars().filter(|c| PLACEHOLDERS.contains(&u32::from(*c))).collect();
    let mut placeholders = PLACEHOLDERS.filter_map(char::from_u32).filter(|c| !used.contains(c));
    let (mut found, mut out, mut copied) = (HashMap::new(), String::new(), 0);
    let mut objects = Objects::default();
    for (start, token) in stretches(text, limits) {
        objects.token(start, token).map_err(|(key, at)| {
            let message = format!("There can be only one input field named \"{}\".", short(key));
            DocumentError::new(ErrorKind::Validation, message, vec![location(text, at)])
        })?;
        let end = start + token.len();
        let value = match token.as_bytes() {
            [b'"', b'"', b'"', ..] => block(token),
            [b'"', ..] => string(token).map_err(|message| {
                DocumentError::new(ErrorKind::Syntax, message.to_owned(), vec![location(text, start)])
            })?,
            [b'-' | b'0'..=b'9', ..] => number(token, text.as_bytes().get(end).copied()),
            _ => None,
        };
        let Some((value, placeholder)) = value.zip(placeholders.next()) else { continue };
        out.push_str(text.get(copied..start).unwrap_or_default());
        if out.ends_with('"') {
            // Behind an empty string the placeholder would make a block string of it. Only here columns behind it may shift.
            out.push(' ');
        }
        out.push('"');
        out.push(placeholder);
        out.push('"');
        pad(token, &mut out);
        copied = end;
        found.insert(placeholder, value);
    }
    if found.is_empty() {
        return Ok(Literals { text: Cow::Borrowed(text), found });
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Ok(Literals { text: Cow::Owned(out), found })
}

/// What a placeholder is shorter than the token it stands for, in lines and columns.
fn pad(token: &str, out: &mut String) {
    let mut line = token.chars().count().saturating_sub(3);
    if let Some(last) = token.rfind(['\n', '\r']) {
        out.extend(token.chars().filter(|c| matches!(c, '\n' | '\r')));
        line = token.get(last + 1..).map_or(0, |tail| tail.chars().count());
    }
    out.extend(std::iter::repeat_n(' ', line));
}

/// Follows brackets and keys, to find object literals.
#[derive(Default)]
struct Objects<'a> {
    open: Vec<(u8, Vec<(&'a str, usize)>)>,
    /// The name before, which a colon makes a key.
    name: Option<(&'a str, usize)>,
}

impl<'a> Objects<'a> {
    /// A key that one object has twice is the error.
    fn token(&mut self, start: usize, token: &'a str) -> Result<(), (&'a str, usize)> {
        match token.as_bytes() {
            [bracket @ (b'(' | b'[' | b'{')] => self.open.push((*bracket, Vec::new())),
            [b')' | b']' | b'}'] => {
                // Braces in parentheses are values, all others are selections.
                let closed = self.open.pop();
                let value = self.open.iter().any(|(bracket, _)| *bracket == b'(');
                if let Some((b'{', mut keys)) = closed.filter(|_| value) {
                    keys.sort_unstable();
                    if let Some(pair) = keys.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                        return Err(pair[1]);
                    }
                }
            }
            [b':'] => {
                if let (Some((b'{', keys)), Some(name)) = (self.open.last_mut(), self.name) {
                    keys.push(name);
                }
            }
            [b'_' | b'a'..=b'z' | b'A'..=b'Z', ..] => {
                self.name = Some((token, start));
                return Ok(());
            }
            [b' ' | b'\t' | b',' | b'\n' | b'\r' | b'#' | 0xef, ..] => return Ok(()),
            _ => {}
        }
        self.name = None;
        Ok(())
    }
}

/// The value of a number that the parser would respell or refuse.
fn number(token: &str, next: Option<u8>) -> Option<Value> {
    // What no value may follow at once is for the parser to refuse.
    let ends = !next.is_some_and(|next| next == b'.' || next == b'_' || next.is_ascii_alphanumeric());
    let kept = token.parse::<Number>().is_ok_and(|number| number.to_string() == token);
    let whole = token.ends_with(|last: char| last.is_ascii_digit());
    (ends && whole && !kept).then(|| Value::Binary(token.to_owned().into()))
}

/// The value of a string with an escape for a character beyond `\uFFFF`.
fn string(token: &str) -> Result<Option<Value>, &'static str> {
    if !["\\u{", "\\uD", "\\ud"].iter().any(|escape| token.contains(escape)) {
        return Ok(None);
    }
    let mut rest = token.strip_prefix('"').and_then(|token| token.strip_suffix('"')).unwrap_or_default();
    let mut text = String::with_capacity(rest.len());
    while let Some((before, escape)) = rest.split_once('\\') {
        text.push_str(before);
        let (read, length) = escaped(escape)?;
        text.push(read);
        rest = escape.get(length..).unwrap_or_default();
    }
    text.push_str(rest);
    Ok(Some(Value::String(text)))
}

/// The character of an escape, and the bytes that it takes behind its backslash.
fn escaped(escape: &str) -> Result<(char, usize), &'static str> {
    const WRONG: &str = "Syntax error: the string has an escape that stands for no character.";
    let plain = match escape.as_bytes().first() {
        Some(b'u') => None,
        Some(quoted @ (b'"' | b'\\' | b'/')) => Some(char::from(*quoted)),
        Some(b'b') => Some('\u{8}'),
        Some(b'f') => Some('\u{c}'),
        Some(b'n') => Some('\n'),
        Some(b'r') => Some('\r'),
        Some(b't') => Some('\t'),
        _ => return Err(WRONG),
    };
    if let Some(plain) = plain {
        return Ok((plain, 1));
    }
    if let Some(digits) = escape.strip_prefix("u{") {
        let digits = digits.split_once('}').map_or("", |(digits, _)| digits);
        let read = hexadecimal(digits).and_then(char::from_u32).ok_or(WRONG)?;
        return Ok((read, digits.len() + 3));
    }
    let unit = |from: usize| escape.get(from..from + 4).and_then(hexadecimal);
    let first = unit(1).ok_or(WRONG)?;
    if let Some(plain) = char::from_u32(first) {
        return Ok((plain, 5));
    }
    let second = escape.get(5..7).filter(|next| *next == "\\u").and_then(|_| unit(7));
    match second {
        Some(second @ 0xdc00..=0xdfff) if first < 0xdc00 => {
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            Ok((char::from_u32(code).ok_or(WRONG)?, 11))
        }
        _ => Err("Syntax error: the string holds half of a surrogate pair."),
    }
}

fn hexadecimal(digits: &str) -> Option<u32> {
    let only_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    only_digits.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// The value of a block string of several lines, or with an escape, as the specification's `BlockStringValue` has it.
fn block(token: &str) -> Option<Value> {
    let raw = token.get(3..token.len().checked_sub(3)?)?;
    if !raw.contains(['\n', '\r', '\\']) {
        return None;
    }
    let blank = |line: &&str| line.bytes().all(|byte| matches!(byte, b' ' | b'\t'));
    let lines: Vec<&str> = raw.split("\r\n").flat_map(|part| part.split(['\n', '\r'])).collect();
    let indents = lines.iter().skip(1).filter_map(|line| line.find(|c| c != ' ' && c != '\t'));
    let indent = indents.min().unwrap_or(0);
    let dedented = lines.iter().enumerate().map(|(at, line)| {
        // A shorter line is blank.
        if at == 0 { line } else { line.get(indent..).unwrap_or_default() }
    });
    let mut dedented: Vec<&str> = dedented.collect();
    while dedented.last().is_some_and(blank) {
        dedented.pop();
    }
    let first = dedented.iter().position(|line| !blank(line)).unwrap_or(dedented.len());
    Some(Value::String(dedented.get(first..).unwrap_or_default().join("\n").replace("\\\"\"\"", "\"\"\"")))
}

impl EditArguments for &Literals<'_> {
    fn arguments(&mut self, arguments: &mut Vec<(Positioned<Name>, Positioned<Value>)>) {
        for (_, value) in arguments {
            self.value(&mut value.node);
        }
    }
}

impl Literals<'_> {
    /// Puts the literals in the place of what stands for them.
    pub(super) fn restore(&self, document: &mut ExecutableDocument) {
        if self.found.is_empty() {
            return;
        }
        let mut editor = self;
        for operation in operations_of(document) {
            for variable in &mut operation.node.variable_definitions {
                if let Some(default) = &mut variable.node.default_value {
                    self.constant(&mut default.node);
                }
            }
            editor.directives(&mut operation.node.directives);
            editor.set(&mut operation.node.selection_set.node);
        }
        for fragment in document.fragments.values_mut() {
            editor.directives(&mut fragment.node.directives);
            editor.set(&mut fragment.node.selection_set.node);
        }
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(literal) = self.literal(text) {
                    *value = literal.clone();
                }
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => fields.values_mut().for_each(|item| self.value(item)),
            _ => {}
        }
    }

    fn constant(&self, value: &mut ConstValue) {
        match value {
            ConstValue::String(text) => {
                if let Some(literal) = self.literal(text).cloned().and_then(Value::into_const) {
                    *value = literal;
                }
            }
            ConstValue::List(items) => items.iter_mut().for_each(|item| self.constant(item)),
            ConstValue::Object(fields) => fields.values_mut().for_each(|item| self.constant(item)),
            _ => {}
        }
    }

    fn literal(&self, text: &str) -> Option<&Value> {
        let mut chars = text.chars();
        chars.next().filter(|_| chars.next().is_none()).and_then(|placeholder| self.found.get(&placeholder))
    }
}
