//! Scalars. Those that carry JSON go through async-graphql as [`Value::Binary`], which nothing else in this schema uses:
//! the text of a payload, or of a number, passes unchanged, and `json.rs` writes it out as it is.

use std::borrow::Cow;

use async_graphql::{InputType, InputValueError, InputValueResult, Scalar, ScalarType, Value, registry::Registry};

use super::json;
use crate::broker::{AnyCursor, Cursor as TopicCursor, Error, Payload, Timestamp};

/// Any JSON value. Numbers survive unchanged, whatever their size or spelling; arrays and objects may nest 64 deep.
/// Null is a value: where the type is `JSON!`, null may be given, and only what is not given is missing. Half of a surrogate
/// pair (`"\ud83d"`) and an object with a key twice are refused.
#[derive(Clone, Debug)]
pub struct Json(pub Payload);

/// Any JSON value. Numbers survive unchanged, whatever their size or spelling; arrays and objects may nest 64 deep.
/// Null is a value: where the type is `JSON!`, null may be given, and only what is not given is missing. Half of a surrogate
/// pair (`"\ud83d"`) and an object with a key twice are refused.
#[Scalar(name = "JSON", specified_by_url = "https://www.rfc-editor.org/rfc/rfc8259")]
impl ScalarType for Json {
    fn parse(value: Value) -> InputValueResult<Self> {
        let mut text = String::new();
        json::write_value(&mut text, &value);
        Payload::parse(&text, usize::MAX).map(Self).map_err(|error| InputValueError::custom(error.to_string()))
    }

    fn to_value(&self) -> Value {
        Value::Binary(self.0.as_bytes())
    }
}

/// Data where it has to be given: the type is `JSON!`, and null that is given is JSON's null. Missing is what a message of
/// `publishMany` has whose variable was not sent, so that this message alone is refused.
#[derive(Clone, Debug)]
pub struct Data(pub Option<Payload>);

impl InputType for Data {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        <Json as InputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <Json as InputType>::create_type_info(registry)
    }

    fn parse(value: Option<Value>) -> InputValueResult<Self> {
        match value {
            None => Err(InputValueError::custom("data is missing")),
            Some(Value::Binary(text)) if text.is_empty() => Ok(Self(None)),
            Some(value) => <Json as ScalarType>::parse(value)
                .map(|Json(data)| Self(Some(data)))
                .map_err(InputValueError::propagate),
        }
    }

    fn to_value(&self) -> Value {
        self.0.as_ref().map_or(Value::Null, |data| Value::Binary(data.as_bytes()))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }
}

/// A small map of strings, as a JSON object: at most 32, names of 1 to 64 letters, digits and other characters of an HTTP token,
/// values of at most 1,024 bytes without control characters and outer white space, all together at most 4,096 bytes as JSON.
/// Names that begin with `nats-` or `pubsub-` are reserved.
#[derive(Clone, Debug)]
pub struct Headers(pub String);

/// A small map of strings, as a JSON object: at most 32, names of 1 to 64 letters, digits and other characters of an HTTP token,
/// values of at most 1,024 bytes without control characters and outer white space, all together at most 4,096 bytes as JSON.
/// Names that begin with `nats-` or `pubsub-` are reserved.
#[Scalar(name = "Headers")]
impl ScalarType for Headers {
    fn parse(value: Value) -> InputValueResult<Self> {
        if !matches!(value, Value::Object(_)) {
            return Err(InputValueError::expected_type(value));
        }
        // Their bounds are checked when a message is made of them, so that in a batch that message alone is refused.
        let mut text = String::new();
        json::write_value(&mut text, &value);
        Ok(Self(text))
    }

    fn to_value(&self) -> Value {
        Value::Binary(self.0.clone().into())
    }
}

/// A whole number of 64 bits, from 0. As an input it may also be given as a string of digits, since many clients' numbers
/// hold only 53 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Long(pub u64);

/// A whole number of 64 bits, from 0. As an input it may also be given as a string of digits, since many clients' numbers
/// hold only 53 bits.
#[Scalar(name = "Long", specified_by_url = "https://scalars.graphql.org/jakobmerrild/long.html")]
impl ScalarType for Long {
    fn parse(value: Value) -> InputValueResult<Self> {
        let number = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => return Err(InputValueError::expected_type(value)),
        };
        number.map(Self).ok_or_else(|| InputValueError::custom("must be a whole number from 0 to 18446744073709551615"))
    }

    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

/// A time as RFC 3339 text, answered in UTC with milliseconds: `2026-01-31T12:00:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime(pub Timestamp);

/// A time as RFC 3339 text, answered in UTC with milliseconds: `2026-01-31T12:00:00.000Z`.
#[Scalar(name = "DateTime", specified_by_url = "https://scalars.graphql.org/andimarek/date-time.html")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        text.parse().map(Self).map_err(|error| match error {
            Error::BadRequest { message, .. } => InputValueError::custom(message),
            error => InputValueError::custom(error),
        })
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// Where a list or a stream goes on, as opaque text: a position in a topic, over all topics for a pattern, or among the
/// topics. The text of a message's position works at every interface: `after` here, on `/ws` and in REST, and `Last-Event-ID` of
/// an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub String);

impl Cursor {
    /// Where a position in a topic or over all topics is wanted.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for other text.
    pub fn position(field: &'static str, text: &str) -> Result<AnyCursor, Error> {
        text.parse().map_err(|_| Error::bad_request(field, "is not a cursor that this service gave out"))
    }

    /// Where a topic's cursor is wanted.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for that of a pattern, and for other text.
    pub fn parse_topic(field: &'static str, text: &str) -> Result<TopicCursor, Error> {
        match Self::position(field, text)? {
            AnyCursor::Topic(cursor) => Ok(cursor),
            AnyCursor::Pattern(_) => {
                Err(Error::bad_request(field, "is the cursor of a pattern; a message's own cursor is wanted"))
            }
        }
    }

    /// The same of this cursor.
    ///
    /// # Errors
    /// As there.
    pub fn of_topic(&self, field: &'static str) -> Result<TopicCursor, Error> {
        Self::parse_topic(field, &self.0)
    }
}

impl From<TopicCursor> for Cursor {
    fn from(cursor: TopicCursor) -> Self {
        Self(cursor.to_string())
    }
}

/// Where a list or a stream goes on, as opaque text: a position in a topic, over all topics for a pattern, or among the
/// topics. The text of a message's position works at every interface: `after` here, on `/ws` and in REST, and `Last-Event-ID` of
/// an event stream.
#[Scalar(name = "Cursor", specified_by_url = "https://relay.dev/graphql/connections.htm#sec-Cursor")]
impl ScalarType for Cursor {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => Ok(Self(text)),
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}
