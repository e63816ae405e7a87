//! The variables of a compiled operation, and the values that its arguments take from them or from the document.
//!
//! What has a form that is not the usual one (a number where text may stand, text where a list is wanted) is not read here:
//! async-graphql reads it, and says what is wrong with it.

use std::borrow::Cow;

use async_graphql_parser::{Positioned, types::VariableDefinition};
use async_graphql_value::Value;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::{
    broker::{Ack, Defect, Overflow, Payload, Timestamp},
    graphql::{
        document::{Document, is_json},
        json,
    },
    wire::{self, Fields},
};

/// Variables that a compiled operation may have.
const MAX_VARIABLES: usize = 16;

/// One variable.
struct Variable {
    name: Box<str>,
    /// Whether it must have a value.
    required: bool,
    /// Whether null is a value.
    is_json: bool,
    default: Option<Box<RawValue>>,
    /// How often it is used.
    uses: u64,
}

/// The variables of an operation.
pub struct Variables {
    list: Vec<Variable>,
    /// See `DocumentLimits::max_substituted_bytes`.
    max_bytes: u64,
}

/// What a request gives for each variable, defaults included.
pub struct Given<'a>(SmallVec<[Option<&'a RawValue>; 8]>);

/// Where a value comes from.
pub enum Source {
    Absent,
    Constant(Box<RawValue>),
    Variable(usize),
}

/// A value.
#[derive(Clone, Copy)]
pub enum Got<'a> {
    Absent,
    Null,
    Value(&'a RawValue),
}

impl Variables {
    /// The variables that an operation declares; `None` for too many.
    pub fn declared(
        definitions: &[Positioned<VariableDefinition>],
        document: &Document,
        max_bytes: u64,
    ) -> Option<Self> {
        if definitions.len() > MAX_VARIABLES {
            return None;
        }
        let one = |definition: &Positioned<VariableDefinition>| {
            let definition = &definition.node;
            let ty = &definition.var_type.node;
            let default = definition.default_value.as_ref();
            Some(Variable {
                name: definition.name.node.as_str().into(),
                required: !ty.nullable,
                is_json: is_json(ty),
                default: match default {
                    Some(default) => Some(constant(&default.node)?),
                    None => None,
                },
                uses: document.uses(&definition.name.node),
            })
        };
        Some(Self { list: definitions.iter().map(one).collect::<Option<_>>()?, max_bytes })
    }

    /// The place of a variable.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|variable| *variable.name == *name)
    }

    /// The memory that this takes, in bytes.
    pub fn bytes(&self) -> usize {
        let texts = self.list.iter().map(|variable| {
            let default = variable.default.as_ref().map_or(0, |default| default.get().len());
            size_of::<Variable>() + variable.name.len() + default
        });
        texts.sum()
    }

    /// The value that an argument has in the document, which may be a variable; `None` for a value with variables within.
    pub fn source(&self, value: &Value) -> Option<Source> {
        match value {
            Value::Variable(name) => self.find(name).map(Source::Variable),
            value => constant(&value.clone().into_const()?).map(Source::Constant),
        }
    }

    /// What a request gives. `None` where a variable misses its value, or something else has to be said or done that only
    /// the ordinary way does.
    pub fn read<'a>(&'a self, text: &'a str) -> Option<Given<'a>> {
        let mut given: SmallVec<[Option<&RawValue>; 8]> = SmallVec::from_elem(None, self.list.len());
        let mut bytes = 0_u64;
        if text != "null" {
            let fields: Fields<'a> = serde_json::from_str(text).ok()?;
            for (name, value) in fields.values() {
                match self.find(name) {
                    Some(at) => {
                        if given[at].replace(value).is_some() {
                            return None;
                        }
                        let weight = (value.get().len() as u64 + 2).saturating_mul(MAX_WEIGHT);
                        bytes = bytes.saturating_add(weight.saturating_mul(self.list[at].uses));
                    }
                    None if Defect::of(value.get(), json::MAX_VARIABLE_NESTING).is_some() => return None,
                    None => {}
                }
            }
        }
        if bytes > self.max_bytes {
            return None;
        }
        for (variable, value) in self.list.iter().zip(&mut given) {
            match value {
                Some(value) if variable.required && !variable.is_json && value.get() == "null" => return None,
                Some(_) => {}
                None => *value = variable.default.as_deref(),
            }
            if variable.required && value.is_none() {
                return None;
            }
        }
        Some(Given(given))
    }
}

/// The most that one byte of JSON text weighs in `document::size`: two bytes, such as those of `0,`, are a value of 32 bytes
/// and its text.
const MAX_WEIGHT: u64 = 17;

/// A constant as JSON text.
fn constant(value: &async_graphql_value::ConstValue) -> Option<Box<RawValue>> {
    let mut text = String::new();
    json::write_value(&mut text, value);
    RawValue::from_string(text).ok()
}

impl Given<'_> {
    /// The value of a variable that is true or false.
    pub fn flag(&self, at: usize) -> Option<bool> {
        boolean(self.0.get(at).copied().flatten()?)
    }

    /// The value of a source.
    pub fn get<'b>(&'b self, source: &'b Source) -> Got<'b> {
        let value = match source {
            Source::Absent => None,
            Source::Constant(value) => Some(&**value),
            Source::Variable(at) => self.0.get(*at).copied().flatten(),
        };
        Got::of(value)
    }
}

impl Source {
    /// The memory that this takes beside its own size, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Constant(value) => value.get().len(),
            Self::Absent | Self::Variable(_) => 0,
        }
    }
}

impl<'a> Got<'a> {
    /// A value that may be missing.
    pub fn of(value: Option<&'a RawValue>) -> Self {
        match value {
            None => Self::Absent,
            Some(value) if value.get() == "null" => Self::Null,
            Some(value) => Self::Value(value),
        }
    }

    /// A value that must be there.
    pub fn required<T>(self, read: impl FnOnce(&'a RawValue) -> Option<T>) -> Option<T> {
        match self {
            Self::Value(value) => read(value),
            Self::Absent | Self::Null => None,
        }
    }

    /// A value that may be null or missing, which is the same. `None` where it has not the usual form.
    #[expect(clippy::option_option, reason = "the outer one is for `?`")]
    pub fn optional<T>(self, read: impl FnOnce(&'a RawValue) -> Option<T>) -> Option<Option<T>> {
        match self {
            Self::Value(value) => read(value).map(Some),
            Self::Absent | Self::Null => Some(None),
        }
    }

    /// Data, of which null is a value.
    pub fn data(self) -> Option<Payload> {
        match self {
            Self::Value(value) => payload(value),
            Self::Null => Some(Payload::null()),
            Self::Absent => None,
        }
    }
}

/// A string.
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    wire::decoded(value)
}

/// A whole number in its usual spelling.
fn whole<N: std::str::FromStr>(text: &str) -> Option<N> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_usual = digits.bytes().all(|digit| digit.is_ascii_digit()) && (!digits.starts_with('0') || text == "0");
    if is_usual { text.parse().ok() } else { None }
}

/// An `ID`: a string, or a whole number of 64 bits.
pub fn id(value: &RawValue) -> Option<Cow<'_, str>> {
    text(value).or_else(|| whole::<i64>(value.get()).map(|_| Cow::Borrowed(value.get())))
}

/// A `Long`: a whole number from 0, or its digits as a string.
pub fn long(value: &RawValue) -> Option<u64> {
    let digits = value.get();
    whole(digits.strip_prefix('"').and_then(|digits| digits.strip_suffix('"')).unwrap_or(digits))
}

/// An object as JSON text.
pub fn object(value: &RawValue) -> Option<&str> {
    let text = value.get();
    (text.starts_with('{') && Defect::of(text, json::MAX_VARIABLE_NESTING).is_none()).then_some(text)
}

/// An `Int`.
pub fn int(value: &RawValue) -> Option<i32> {
    whole(value.get())
}

/// A `Boolean`.
pub fn boolean(value: &RawValue) -> Option<bool> {
    match value.get() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A `DateTime`.
pub fn time(value: &RawValue) -> Option<Timestamp> {
    text(value)?.parse().ok()
}

/// An `AckMode`.
pub fn ack(value: &RawValue) -> Option<Ack> {
    match value.get() {
        "\"AUTO\"" => Some(Ack::Auto),
        "\"EXPLICIT\"" => Some(Ack::Explicit),
        _ => None,
    }
}

/// An `Overflow`.
pub fn overflow(value: &RawValue) -> Option<Overflow> {
    match value.get() {
        "\"HISTORY\"" => Some(Overflow::History),
        "\"LATEST\"" => Some(Overflow::Latest),
        "\"LATEST_PER_KEY\"" => Some(Overflow::LatestPerKey),
        "\"DISCONNECT\"" => Some(Overflow::Disconnect),
        _ => None,
    }
}

/// `JSON`, spelled as async-graphql's way spells it: without escapes that it does not need.
pub fn payload(value: &RawValue) -> Option<Payload> {
    if value.get().contains('\\') {
        if Defect::of(value.get(), json::MAX_VARIABLE_NESTING).is_some() {
            return None;
        }
        let mut text = String::new();
        json::write_value(&mut text, &json::read_value(value.get())?);
        return Payload::parse(&text, usize::MAX).ok();
    }
    Payload::from_raw(value, usize::MAX).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_the_usual_form_is_read() {
        assert_eq!(long(raw("18446744073709551615")), Some(u64::MAX));
        assert_eq!(long(raw("\"7\"")), Some(7));
        for other in ["1.0", "1e3", "-1", "-0", "18446744073709551616", "\"07\"", "\"+7\"", "\"\"", "true", "[1]"] {
            assert_eq!(long(raw(other)), None, "{other}");
        }
        assert_eq!(int(raw("-5")), Some(-5));
        assert_eq!((int(raw("2147483648")), int(raw("\"5\"")), int(raw("5.0"))), (None, None, None));
        assert_eq!(id(raw("\"a\\u0062\"")).as_deref(), Some("ab"));
        assert_eq!(
            (id(raw("12")).as_deref(), id(raw("1.5")), id(raw("9223372036854775808"))),
            (Some("12"), None, None)
        );
        assert_eq!((text(raw("\"half \\ud83d\"")), text(raw("1"))), (None, None));
    }

    #[test]
    fn data_is_spelled_without_needless_escapes() {
        let read = |text: &str| payload(raw(text)).map(|data| data.as_str().to_owned());
        assert_eq!(read(r#" {"a" : [1.50, "b"]} "#).as_deref(), Some(r#"{"a":[1.50,"b"]}"#));
        assert_eq!(read(r#"{"\u0061":"\u00e9\/\n"}"#).as_deref(), Some(r#"{"a":"é/\n"}"#));
        assert_eq!((read(r#""\ud83d""#), read(r#"{"a":1,"\u0061":2}"#), read(r#"{"a":1,"a":2}"#)), (None, None, None));
    }
}
