//! JSON text worked on where it lies: a cursor that skips what nobody asked for, numbers compared by
//! exact value, and the canonical spelling that makes equality a comparison of texts.
//!
//! No `Value` is built, so the cost of a message is a scan of it, and neither unpaired surrogates nor
//! the keys `serde_json` reserves for itself can make reading it go wrong.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A reader of JSON text known to be valid. It does not check the text, but neither does it panic
/// or fail to end on text that is not valid: it then gives `None`, or a stretch of that text.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// How many bytes have been read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// What has been read since an earlier position.
    pub(super) fn since(&self, start: usize) -> Option<&'a str> {
        self.text.get(start..self.at)
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn bump(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// Skips to the first byte for which `stop` holds.
    fn run(&mut self, stop: impl Fn(u8) -> bool) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| stop(*byte)).unwrap_or(rest.len());
        self.at = self.at.saturating_add(length);
    }

    /// The next byte that is not white space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.run(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.byte()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.bump())
    }

    /// The raw text of a string, quotes and all.
    pub(super) fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.at.checked_sub(1)?;
        loop {
            self.run(|byte| matches!(byte, b'"' | b'\\'));
            let stopped = self.byte()?;
            self.bump();
            if stopped == b'"' {
                return self.since(start);
            }
            self.bump();
        }
    }

    /// The raw text of a value, found without recursion.
    pub(super) fn value(&mut self) -> Option<&'a str> {
        self.peek()?;
        let (start, mut depth) = (self.at, 0_usize);
        loop {
            match self.byte()? {
                b'"' => {
                    self.string()?;
                }
                b'[' | b'{' => {
                    depth = depth.saturating_add(1);
                    self.bump();
                }
                b']' | b'}' => {
                    depth = depth.checked_sub(1)?;
                    self.bump();
                }
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => {
                    self.bump();
                    continue;
                }
                _ => {
                    let before = self.at;
                    self.run(|byte| matches!(byte, b',' | b':' | b']' | b'}' | b'[' | b'{' | b'"' | 0..=b' '));
                    if self.at == before {
                        return None;
                    }
                }
            }
            if depth == 0 {
                return self.since(start);
            }
        }
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self) -> Option<()> {
        self.value().map(drop)
    }

    /// Reads an object; `each` is given every key, raw, and must read the value after it.
    pub(super) fn members(&mut self, mut each: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            let key = self.string()?;
            self.take(b':')?;
            each(self, key)?;
            if self.take(b',').is_none() {
                return self.take(b'}');
            }
        }
    }

    /// Reads an array; `each` must read one element.
    pub(super) fn elements(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        if self.take(b']').is_some() {
            return Some(());
        }
        loop {
            each(self)?;
            if self.take(b',').is_none() {
                return self.take(b']');
            }
        }
    }
}

/// How deep the arrays and objects of a JSON text nest; a scalar is 0.
pub(super) fn nesting(raw: &str) -> usize {
    let (mut cursor, mut depth, mut deepest) = (Cursor::new(raw), 0_usize, 0);
    while let Some(byte) = cursor.peek() {
        match byte {
            b'"' if cursor.string().is_some() => continue,
            b'[' | b'{' => depth = depth.saturating_add(1),
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = depth.max(deepest);
        cursor.bump();
    }
    deepest
}

/// Appends the canonical text of the next value: no spaces, keys sorted, numbers and strings in one
/// spelling, so that two values are equal exactly when their texts are.
///
/// `None` if the value nests deeper than `depth`, holds what is no text, or is sure to come out
/// longer than `longest` bytes; a text a little longer may still be given.
pub(super) fn respell(cursor: &mut Cursor<'_>, out: &mut String, longest: usize, depth: usize) -> Option<()> {
    if out.len() > longest {
        return None;
    }
    match cursor.peek()? {
        b'{' => {
            let depth = depth.checked_sub(1)?;
            let mut members = BTreeMap::new();
            cursor.members(|cursor, key| {
                members.insert(decode(key)?, cursor.value()?);
                (members.len() <= longest).then_some(())
            })?;
            let mut before = '{';
            if members.is_empty() {
                out.push(before);
            }
            for (key, value) in members {
                out.push(std::mem::replace(&mut before, ','));
                quote(&key, out);
                out.push(':');
                respell(&mut Cursor::new(value), out, longest, depth)?;
            }
            out.push('}');
        }
        b'[' => {
            let depth = depth.checked_sub(1)?;
            let mut before = "";
            out.push('[');
            cursor.elements(|cursor| {
                out.push_str(std::mem::replace(&mut before, ","));
                respell(cursor, out, longest, depth)
            })?;
            out.push(']');
        }
        b'"' => {
            let text = decode(cursor.string()?)?;
            if text.len() > longest {
                return None;
            }
            quote(&text, out);
        }
        b'-' | b'0'..=b'9' => Decimal::read(cursor.value()?)?.spell(out, longest)?,
        _ => match cursor.value()? {
            word @ ("true" | "false" | "null") => out.push_str(word),
            _ => return None,
        },
    }
    (out.len() <= longest).then_some(())
}

/// Appends a text as a JSON string. Most text needs no escape, and is then copied.
pub fn quote(text: &str, out: &mut String) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// The text a JSON string stands for; `None` if there is an unpaired surrogate in it.
pub(super) fn decode(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// A JSON number by its exact value, `0.DIGITS × 10^magnitude`, still in the text it was read from:
/// nothing is ever written out to the size of an exponent.
pub(super) struct Decimal<'a> {
    negative: bool,
    /// The digits, those of the whole part and then those of the fraction, with no zero at either
    /// end; none at all for zero.
    whole: &'a str,
    fraction: &'a str,
    magnitude: i128,
}

impl<'a> Decimal<'a> {
    /// Magnitudes are held within ± this, far beyond what `i64` counts: numbers further out keep
    /// sign and digits but are all taken to be of this magnitude. Being well inside `i128`, it
    /// leaves room for any number's length in the sums below.
    const FURTHEST: i128 = 10_i128.pow(36);

    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return None;
        }
        let bound = Self::FURTHEST.saturating_mul(2);
        let beyond = if exponent.starts_with('-') { -bound } else { bound };
        let exponent = exponent.parse::<i128>().unwrap_or(beyond).clamp(-bound, bound);

        let (mut whole, mut fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let mut magnitude = exponent.saturating_add(length(whole));
        if whole.is_empty() {
            let significant = fraction.trim_start_matches('0');
            let zeros = length(fraction).saturating_sub(length(significant));
            magnitude = magnitude.saturating_sub(zeros);
            fraction = significant;
        }
        if fraction.is_empty() {
            whole = whole.trim_end_matches('0');
        }
        let zero = whole.is_empty() && fraction.is_empty();
        let magnitude = if zero { 0 } else { magnitude.clamp(-Self::FURTHEST, Self::FURTHEST) };
        Some(Self { negative: negative && !zero, whole, fraction, magnitude })
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.negative, number.is_zero()) {
            (true, _) => -1,
            (false, true) => 0,
            (false, false) => 1,
        };
        let digits = |number: &Self| number.whole.bytes().chain(number.fraction.bytes());
        let size = |a: &Self, b: &Self| a.magnitude.cmp(&b.magnitude).then_with(|| digits(a).cmp(digits(b)));
        sign(self).cmp(&sign(other)).then_with(|| if self.negative { size(other, self) } else { size(self, other) })
    }

    /// Appends the one spelling of this value: plain as far as that is short, else digits and an
    /// exponent. `None` if the digits alone are more than `longest`.
    pub(super) fn spell(&self, out: &mut String, longest: usize) -> Option<()> {
        let digits = self.whole.len().saturating_add(self.fraction.len());
        if digits > longest {
            return None;
        }
        if self.is_zero() {
            out.push('0');
            return Some(());
        }
        if self.negative {
            out.push('-');
        }
        let start = out.len();
        let exponent = self.magnitude.saturating_sub(i128::try_from(digits).ok()?);
        if exponent < 0 && (-5..=0).contains(&self.magnitude) {
            out.push_str("0.");
            (self.magnitude..0).for_each(|_| out.push('0'));
        }
        out.push_str(self.whole);
        out.push_str(self.fraction);
        if exponent < 0 && self.magnitude > 0 {
            out.insert(start.checked_add(usize::try_from(self.magnitude).ok()?)?, '.');
        } else if exponent > 0 && self.magnitude <= 21 {
            (0..exponent).for_each(|_| out.push('0'));
        } else if exponent > 0 || self.magnitude < -5 {
            write!(out, "e{exponent}").ok()?;
        }
        Some(())
    }
}

fn length(digits: &str) -> i128 {
    i128::try_from(digits.len()).unwrap_or(i128::MAX)
}
