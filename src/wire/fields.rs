//! Reading JSON objects field by field, so that an error names the field.

use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::names::{refuse_misspelt, refuse_unknown};
use crate::broker::{Age, Error, Headers, Key, MessageId, NewMessage, Payload};

/// The fields of one JSON object, each still as text. Of a repeated key the last counts.
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// What happens to fields that an object does not have.
#[derive(Clone, Copy, Debug)]
pub enum UnknownFields {
    /// They are refused, as in REST.
    Refused,
    /// They are ignored, as on `/ws`, unless they are a known field in another spelling. Those named here are ignored whatever
    /// they look like.
    Ignored(&'static [&'static str]),
}

/// What stands beside `message`, not within it.
const BESIDE_MESSAGE: [&str; 7] = ["data", "key", "expected_offset", "headers", "ttl", "expected_key_offset", "remove"];

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A key, borrowed unless it has escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'a> Fields<'a> {
    /// Reads one JSON object. `what` names it in the error.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub fn parse(what: &'static str, text: &'a str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|error| Error::bad_request(what, format!("must be a JSON object ({error})")))
    }

    /// Refuses fields that the object does not have. `what` names it in the error; `known` are the fields that it has.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that suggests the field that was probably meant.
    pub fn allow(&self, what: &'static str, known: &[&'static str], unknown: UnknownFields) -> Result<(), Error> {
        self.0.iter().try_for_each(|(name, _)| match unknown {
            UnknownFields::Refused => refuse_unknown(what, "field", name, known),
            UnknownFields::Ignored(ignored) => refuse_misspelt(what, name, known, ignored),
        })
    }

    /// The field as JSON text; `null` is a value.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// All fields in their order, as JSON text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.values().map(|(name, value)| (name, value.get()))
    }

    /// The same, known to be valid.
    pub fn values(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    /// The field as JSON text; `null` is absent.
    #[must_use]
    pub fn present(&self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|value| value.get() != "null")
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for anything else.
    pub fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Error> {
        let read = |value: &'a RawValue| decoded(value).ok_or_else(|| Error::bad_request(name, "must be a string"));
        self.present(name).map(read).transpose()
    }

    /// A string as JSON text, which is the client's own unless that has escapes. `None` for anything else.
    #[must_use]
    pub fn quoted(&self, name: &'static str) -> Option<Cow<'a, str>> {
        let raw = self.present(name)?.get();
        if raw.starts_with('"') && !raw.contains('\\') {
            return Some(Cow::Borrowed(raw));
        }
        self.text(name).ok().flatten().map(|text| Cow::Owned(super::quoted(&text)))
    }

    /// A string that must be there.
    ///
    /// # Errors
    /// [`Error::BadRequest`] when it is missing or anything else.
    pub fn required(&self, name: &'static str) -> Result<Cow<'a, str>, Error> {
        self.text(name)?.ok_or_else(|| Error::bad_request(name, "is missing"))
    }

    /// A whole number from 0.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for anything else.
    pub fn number<N: std::str::FromStr + std::fmt::Display + Copy>(
        &self,
        name: &'static str,
        most: N,
    ) -> Result<Option<N>, Error> {
        let wrong = || Error::bad_request(name, format!("must be a whole number from 0 to {most}"));
        self.present(name).map(|value| value.get().parse().map_err(|_| wrong())).transpose()
    }

    /// `true` or `false`, which is what it is if it is absent.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for anything else.
    pub fn flag(&self, name: &'static str) -> Result<bool, Error> {
        match self.present(name).map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::bad_request(name, "must be true or false")),
        }
    }

    /// What a client publishes: `data`, or `message: {id, payload}` in its place; `id`, `key`, `expected_offset`,
    /// `headers`, `ttl`, `expected_key_offset`, and `remove`, with which the data may be missing.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that names the field, [`Error::PayloadTooLarge`].
    pub fn new_message(&self, unknown: UnknownFields, max_payload_bytes: usize) -> Result<NewMessage, Error> {
        let remove = self.flag("remove")?;
        let nested = match (self.raw("data"), self.present("message")) {
            (Some(_), Some(_)) => return Err(Error::bad_request("message", "must not stand beside data")),
            (Some(_), None) => None,
            (None, None) if remove => None,
            (None, Some(message)) => Some(Fields::parse("message", message.get())?),
            (None, None) => return Err(Error::bad_request("data", "is missing")),
        };
        let (data, inner_id) = match &nested {
            None if remove => (Some(self.raw("data").unwrap_or(RawValue::NULL)), None),
            None => (self.raw("data"), None),
            Some(message) => {
                let outer = BESIDE_MESSAGE.into_iter();
                let known: Vec<_> = ["id", "payload"].into_iter().chain(outer).collect();
                message.allow("message", &known, unknown)?;
                if let Some(outer) = BESIDE_MESSAGE.into_iter().find(|name| message.raw(name).is_some()) {
                    let error = format!("has no `{outer}`: that stands beside `message`");
                    return Err(Error::bad_request("message", error));
                }
                (message.raw("payload"), message.text("id")?)
            }
        };
        let data = data.ok_or_else(|| Error::bad_request("message", "must have a payload"))?;
        let id = self.text("id")?.or(inner_id);
        let data = Payload::from_raw(data, max_payload_bytes)?;
        let expected_offset = self.number("expected_offset", u64::MAX)?;
        let (key, headers) = (self.text("key")?, self.present("headers").map(RawValue::get));
        let (id, key, ttl) = (id.as_deref(), key.as_deref(), self.text("ttl")?);
        let expected_key_offset = self.number("expected_key_offset", u64::MAX)?;
        let ttl = ttl.as_deref();
        new_message(data, BesideData { id, key, expected_offset, headers, ttl, expected_key_offset, remove })
    }
}

/// The text of a JSON string; `None` for anything else, and for half of a surrogate pair. Documents and names have few escapes,
/// which are read here with one allocation.
#[must_use]
pub fn decoded(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, escape)) = rest.split_once('\\') {
        out.push_str(before);
        out.push(match escape.as_bytes().first()? {
            quoted @ (b'"' | b'\\' | b'/') => char::from(*quoted),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            _ => return serde_json::from_str(value.get()).ok().map(Cow::Owned),
        });
        rest = escape.get(1..)?;
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}

/// What a client may give with the data of a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct BesideData<'a> {
    /// The publisher's id.
    pub id: Option<&'a str>,
    /// The key.
    pub key: Option<&'a str>,
    /// What the topic's newest offset has to be.
    pub expected_offset: Option<u64>,
    /// The headers, as JSON text.
    pub headers: Option<&'a str>,
    /// How long it is kept.
    pub ttl: Option<&'a str>,
    /// What the newest offset of its key has to be.
    pub expected_key_offset: Option<u64>,
    /// Whether it says that its key has no value any more.
    pub remove: bool,
}

/// A message to publish, made of what a client gave.
///
/// # Errors
/// [`Error::BadRequest`] that names the field.
pub fn new_message(data: Payload, beside: BesideData<'_>) -> Result<NewMessage, Error> {
    let BesideData { id, key, expected_offset, headers, ttl, expected_key_offset, remove } = beside;
    if remove {
        check_removal(&data, &beside)?;
    }
    if expected_key_offset.is_some() && key.is_none() {
        return Err(Error::bad_request("expected_key_offset", "needs a key"));
    }
    Ok(NewMessage {
        id: id.map(MessageId::parse).transpose()?,
        key: key.map(Key::parse).transpose()?,
        expected_offset,
        headers: headers.map_or(Ok(None), Headers::parse)?,
        ttl: ttl.map(Age::parse_ttl).transpose()?,
        expected_key_offset,
        is_removal: remove,
        ..NewMessage::of(data)
    })
}

/// Whether a message that removes a key says nothing else.
fn check_removal(data: &Payload, beside: &BesideData<'_>) -> Result<(), Error> {
    if beside.key.is_none() {
        return Err(Error::bad_request("remove", "needs a key"));
    }
    if data.as_str() != "null" {
        return Err(Error::bad_request("data", "must be null, or left out, where a key is removed"));
    }
    if beside.ttl.is_some() {
        return Err(Error::bad_request(
            "ttl",
            "must be left out where a key is removed: TOMBSTONE_TTL says how long that is known",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Result<Fields<'_>, Error> {
        Fields::parse("frame", text)
    }

    #[test]
    fn fields_are_found_whatever_their_order() {
        let fields = fields(r#"{"x":1,"to\u0070ic":"a","topic":"b","n":5,"none":null,"data":null}"#).unwrap();
        assert_eq!(fields.required("topic").unwrap(), "b");
        assert_eq!(fields.number("n", 10_u32), Ok(Some(5)));
        assert_eq!(fields.text("none"), Ok(None));
        assert_eq!(fields.raw("data").unwrap().get(), "null");
        assert!(fields.required("missing").is_err());
        assert!(fields.text("n").is_err());
        assert!(fields.number::<u32>("topic", 9).is_err());
        assert_eq!((fields.flag("none"), fields.flag("missing")), (Ok(false), Ok(false)));
        assert!(fields.flag("n").is_err() && fields.flag("topic").is_err());
        assert_eq!((fields.quoted("topic").as_deref(), fields.quoted("n")), (Some("\"b\""), None));
        let escaped = self::fields(r#"{"a":"\u0061\n","b":"\ud800"}"#).unwrap();
        assert_eq!((escaped.quoted("a").as_deref(), escaped.quoted("b")), (Some(r#""a\n""#), None));
    }

    #[test]
    fn strings_are_decoded() {
        for text in
            [r#""""#, r#""plain ü""#, r#""a\"b\\\/\b\f\n\r\tc""#, r#""\u0041\n""#, r#""\\u0041""#, r#""\ud83d\ude00""#]
        {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            assert_eq!(decoded(raw).unwrap(), serde_json::from_str::<String>(text).unwrap(), "{text}");
        }
        for other in [r#""\ud83d""#, r#""\n\ud83d""#, "1", "[\"a\"]", "null"] {
            assert_eq!(decoded(serde_json::from_str(other).unwrap()), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["", "[]", "1", "{", "{\"a\":}", "null", "{\"a\":1}x"] {
            assert!(matches!(fields(bad), Err(Error::BadRequest { field: "frame", .. })), "{bad}");
        }
        let deep = format!("{{\"data\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(fields(&deep).and_then(|fields| fields.new_message(UnknownFields::Refused, usize::MAX)).is_err());
    }

    #[test]
    fn new_messages_come_in_two_forms() {
        let new_message =
            |text: &str| fields(text).and_then(|fields| fields.new_message(UnknownFields::Ignored(&[]), 100));
        assert_eq!(new_message(r#"{"data":null}"#).unwrap().data.as_str(), "null");
        let nested = new_message(r#"{"message":{"id":"7","payload":[1, 2]}}"#).unwrap();
        assert_eq!((nested.data.as_str(), nested.id.unwrap().as_str()), ("[1,2]", "7"));
        let with_headers = |headers: &str| new_message(&format!("{{\"data\":1,\"headers\":{headers}}}"));
        assert_eq!(with_headers(r#"{"a":"b"}"#).unwrap().headers.unwrap().as_json(), r#"{"a":"b"}"#);
        assert!(with_headers("null").unwrap().headers.is_none() && with_headers("{}").unwrap().headers.is_none());
        assert!(with_headers("[]").is_err() && with_headers("\"a\"").is_err() && with_headers("{\"a\":1}").is_err());
        let short = new_message(r#"{"data":1,"ttl":"1500ms"}"#).unwrap();
        assert_eq!(short.ttl, Some(Age::from_millis(1_500)));
        for removal in [
            r#"{"key":"k","remove":true}"#,
            r#"{"key":"k","data":null,"remove":true}"#,
            r#"{"key":"k","remove":true,"message":{"id":"7","payload":null}}"#,
        ] {
            let removal = new_message(removal).unwrap();
            assert!(removal.is_removal && removal.data.as_str() == "null" && removal.key.is_some());
        }
        assert!(!new_message(r#"{"key":"k","data":null,"remove":false}"#).unwrap().is_removal);
        for bad in [
            r#"{"key":"k","data":1,"remove":true}"#,
            r#"{"key":"k","remove":1}"#,
            r#"{"key":"k","remove":"true"}"#,
            r#"{"key":"k","remove":true,"ttl":"5s"}"#,
            r#"{"key":"k","remove":true,"message":{"id":"7"}}"#,
            r#"{"key":"k","message":{"payload":null,"remove":true}}"#,
            r#"{"data":null,"remove":true}"#,
            r#"{"key":"k","remove":false}"#,
            r"{}",
            r#"{"data":1,"message":{"payload":2}}"#,
            r#"{"message":{}}"#,
            r#"{"message":3}"#,
            r#"{"data":1,"id":2}"#,
            r#"{"data":1,"ttl":5}"#,
            r#"{"data":1,"ttl":"0s"}"#,
            r#"{"data":1,"expected_key_offset":1}"#,
            r#"{"message":{"payload":1,"ttl":"5s"}}"#,
            // What stands beside `message` must not get lost within it.
            r#"{"message":{"payload":1,"key":"a"}}"#,
            r#"{"message":{"payload":1,"expectedOffset":1}}"#,
            r#"{"message":{"payload":1,"headers":{"a":"b"}}}"#,
        ] {
            assert!(new_message(bad).is_err(), "{bad}");
        }
    }
}
