//! A message's headers: a small map of strings for what goes with the data, such as the context of a trace.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserializer as _,
    de::{MapAccess, Visitor},
};

use super::{Error, filter::quote};

/// The most headers that a message has.
pub const MAX_HEADERS: usize = 32;

/// The longest name of a header, in bytes.
pub const MAX_HEADER_NAME_BYTES: usize = 64;

/// The longest value of a header, in bytes.
pub const MAX_HEADER_VALUE_BYTES: usize = 1_024;

/// The most bytes that all headers of a message take as JSON.
pub const MAX_HEADERS_BYTES: usize = 4_096;

/// The headers of one message, at least one. Names are tokens as in HTTP, whose case counts; values have no control
/// characters and no outer white space, so that every engine and every interface can carry them as they are.
///
/// They are kept as the JSON object that they are delivered as, in the order of their names.
#[derive(Clone, PartialEq, Eq)]
pub struct Headers(Box<str>);

impl Headers {
    /// Reads a JSON object of strings. An object without headers is `None`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that says what is wrong.
    pub fn parse(json: &str) -> Result<Option<Self>, Error> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let pairs = deserializer.deserialize_map(Pairs).and_then(|pairs| deserializer.end().map(|()| pairs));
        let pairs = pairs.map_err(|_| refused("must be an object whose values are strings".to_owned()))?;
        Self::of(pairs.iter().map(|(name, value)| (&**name, &**value)))
    }

    /// The headers of these names and values. `None` if there are none.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that says what is wrong.
    pub fn of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Option<Self>, Error> {
        // Engines that are not told of an order keep none.
        let mut sorted = BTreeMap::new();
        for (name, value) in pairs {
            check_name(name)?;
            check_value(name, value)?;
            if sorted.insert(name, value).is_some() {
                return Err(refused(format!("must not have {name:?} twice")));
            }
            if sorted.len() > MAX_HEADERS {
                return Err(refused(format!("must be at most {MAX_HEADERS}")));
            }
        }
        if sorted.is_empty() {
            return Ok(None);
        }
        let mut json = String::new();
        for (name, value) in sorted {
            json.push(if json.is_empty() { '{' } else { ',' });
            quote(name, &mut json);
            json.push(':');
            quote(value, &mut json);
        }
        json.push('}');
        if json.len() > MAX_HEADERS_BYTES {
            return Err(refused(format!("must take at most {MAX_HEADERS_BYTES} bytes together")));
        }
        Ok(Some(Self(json.into())))
    }

    /// Those of these names and values that are headers, in the order of their names, as far as they fit.
    pub(crate) fn fitting<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let is_header = |name, value| check_name(name).is_ok() && check_value(name, value).is_ok();
        let mut kept: BTreeMap<_, _> = pairs.filter(|(name, value)| is_header(name, value)).collect();
        loop {
            match Self::of(kept.iter().map(|(name, value)| (*name, *value))) {
                Ok(headers) => return headers,
                Err(_) => kept.pop_last()?,
            };
        }
    }

    /// Headers that a store has, which were checked when they were published.
    pub(crate) fn stored(json: &str) -> Self {
        Self(json.into())
    }

    /// The headers as a JSON object.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Names and values, in the order of the names.
    #[must_use]
    pub fn pairs(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        // What was checked can be read.
        serde_json::Deserializer::from_str(&self.0).deserialize_map(Pairs).unwrap_or_default()
    }

    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        self.pairs().into_iter().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    }

    /// These headers and one more, unless they have one of its name or no room for it.
    #[must_use]
    pub fn with(headers: Option<Self>, name: &str, value: &str) -> Option<Self> {
        let pairs = headers.as_ref().map(Self::pairs).unwrap_or_default();
        let all = pairs.iter().map(|(name, value)| (&**name, &**value)).chain([(name, value)]);
        match Self::of(all) {
            Ok(with) => with,
            Err(_) => headers,
        }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn refused(message: String) -> Error {
    Error::bad_request("headers", message)
}

fn check_name(name: &str) -> Result<(), Error> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > MAX_HEADER_NAME_BYTES || !name.bytes().all(token) {
        return Err(refused(format!(
            "must not have a name that is not 1 to {MAX_HEADER_NAME_BYTES} letters, digits and -_.!#$%&'*+^`|~"
        )));
    }
    let reserved = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if ["nats-", "pubsub-"].into_iter().any(reserved) {
        return Err(refused(format!(
            "must not have {name:?}: names that begin with `nats-` or `pubsub-` are reserved"
        )));
    }
    Ok(())
}

fn check_value(name: &str, value: &str) -> Result<(), Error> {
    if value.len() > MAX_HEADER_VALUE_BYTES || value.chars().any(char::is_control) || value.trim() != value {
        return Err(refused(format!(
            "must have for {name:?} at most {MAX_HEADER_VALUE_BYTES} bytes of UTF-8 without control characters and outer \
             white space"
        )));
    }
    Ok(())
}

/// Reads an object of strings in its order.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(Cow<'de, str>, Cow<'de, str>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some((name, value)) = map.next_entry::<Cow<'de, str>, Cow<'de, str>>()? {
            // One too many is found out; more are not kept.
            if pairs.len() <= MAX_HEADERS {
                pairs.push((name, value));
            }
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_delivered() {
        let read = |json: &str| Headers::parse(json).unwrap().map(|headers| headers.as_json().to_owned());
        assert_eq!(read("{}"), None);
        assert_eq!(read(r#" { "b" : "1" , "a":"" } "#).unwrap(), r#"{"a":"","b":"1"}"#);
        assert_eq!(read(r#"{"\u0061":"\u00fc\"\\"}"#).unwrap(), r#"{"a":"ü\"\\"}"#);
        let headers = Headers::parse(r#"{"b":"1","a":"ü\"\\"}"#).unwrap().unwrap();
        assert_eq!(headers.pairs(), [("a".into(), "ü\"\\".into()), ("b".into(), "1".into())]);
        assert_eq!((headers.get("a").as_deref(), headers.get("A")), (Some("ü\"\\"), None));
    }

    #[test]
    fn what_breaks_a_bound_is_refused() {
        let object = |count: usize, bytes: usize| {
            let pairs: Vec<_> = (0..count).map(|n| format!("\"{n}\":\"{}\"", "x".repeat(bytes))).collect();
            format!("{{{}}}", pairs.join(","))
        };
        assert!(Headers::parse(&object(MAX_HEADERS, 1)).is_ok());
        assert!(Headers::parse(&object(1, MAX_HEADER_VALUE_BYTES)).is_ok());
        let long = format!("{{\"{}\":\"\"}}", "n".repeat(MAX_HEADER_NAME_BYTES + 1));
        for bad in [
            "",
            "null",
            "[]",
            "\"a\"",
            "{",
            "{}x",
            r#"{"a":1}"#,
            r#"{"a":null}"#,
            r#"{"a":["b"]}"#,
            r#"{"":"a"}"#,
            r#"{"a b":"c"}"#,
            r#"{"ü":"a"}"#,
            r#"{"a:":"b"}"#,
            r#"{"a":"\n"}"#,
            r#"{"a":" b"}"#,
            r#"{"a":"b\u00a0"}"#,
            r#"{"a":"\ud83d"}"#,
            r#"{"a":"1","a":"2"}"#,
            r#"{"a":"1","\u0061":"2"}"#,
            r#"{"Nats-Msg-Id":"1"}"#,
            r#"{"pubsub-key":"1"}"#,
            &long,
            &object(MAX_HEADERS + 1, 1),
            &object(1, MAX_HEADER_VALUE_BYTES + 1),
            &object(5, MAX_HEADER_VALUE_BYTES - 100),
        ] {
            assert!(matches!(Headers::parse(bad), Err(Error::BadRequest { field: "headers", .. })), "{bad}");
        }
    }

    #[test]
    fn of_strangers_those_are_kept_that_fit() {
        let long = "x".repeat(MAX_HEADER_VALUE_BYTES);
        let names: Vec<_> = (10..99).map(|n| n.to_string()).collect();
        let many = names.iter().map(|name| (name.as_str(), "")).chain([("Nats-Msg-Id", "1"), ("a b", ""), ("a", "\n")]);
        assert_eq!(Headers::fitting(many).unwrap().pairs().len(), MAX_HEADERS);
        let long = names.iter().take(5).map(|name| (name.as_str(), long.as_str()));
        assert_eq!(Headers::fitting(long).unwrap().pairs().len(), 3);
        assert_eq!(Headers::fitting([("pubsub-key", "1")].into_iter()), None);
    }

    #[test]
    fn one_is_added_if_it_is_new_and_fits() {
        let headers = Headers::with(None, "traceparent", "00-1").unwrap();
        assert_eq!(headers.as_json(), r#"{"traceparent":"00-1"}"#);
        let same = Headers::with(Some(headers.clone()), "traceparent", "00-2").unwrap();
        assert_eq!(same, headers);
        let more = Headers::with(Some(headers), "a", "b").unwrap();
        assert_eq!(more.as_json(), r#"{"a":"b","traceparent":"00-1"}"#);
        assert_eq!(Headers::with(None, "", "b"), None);
    }
}
