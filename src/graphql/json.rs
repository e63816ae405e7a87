//! Between JSON text and async-graphql's values, without losing what a number was.

use std::fmt::Write as _;

use async_graphql::{Name, PathSegment, Response, ServerError, Value, Variables};
use serde_json::{Number, Value as Json, value::RawValue};

use crate::{problem::Code, wire::Fields};

/// Writes a value as compact JSON. [`Value::Binary`] is JSON text already (`scalars.rs`).
pub fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(text) => write_text(out, text),
        Value::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Binary(text) => out.push_str(std::str::from_utf8(text).unwrap_or("null")),
        Value::Enum(name) => write_text(out, name),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (name, value)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(out, name);
                out.push(':');
                write_value(out, value);
            }
            out.push('}');
        }
    }
}

/// Writes text as a JSON string.
pub fn write_text(out: &mut String, text: &str) {
    crate::broker::quote(text, out);
}

/// Reads a request's variables from JSON text.
///
/// # Errors
/// What is wrong, for the client.
pub fn read_variables(text: &str) -> Result<Variables, &'static str> {
    const WRONG: &str = "variables: must be a JSON object, nested at most 64 deep";
    if nesting(text) > crate::broker::MAX_NESTING + 1 {
        return Err(WRONG);
    }
    match read_value(text) {
        Some(Value::Null) => Ok(Variables::default()),
        Some(Value::Object(fields)) => {
            let mut variables = Variables::default();
            for (name, value) in fields {
                variables.insert(name, value);
            }
            Ok(variables)
        }
        _ => Err(WRONG),
    }
}

/// How deep brackets of valid JSON text nest.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut inside, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b'[' | b'{' if !inside => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !inside => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Reads one value. Numbers keep their spelling, which no tree of `serde_json` or async-graphql does for all of them: one
/// that would be respelled is passed on as JSON text, which only the `JSON` scalar takes.
fn read_value(text: &str) -> Option<Value> {
    match text.as_bytes().first()? {
        b'{' => {
            let fields: Fields<'_> = serde_json::from_str(text).ok()?;
            let read = |(name, value): (&str, &str)| Some((Name::new(name), read_value(value)?));
            Some(Value::Object(fields.iter().map(read).collect::<Option<_>>()?))
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            Some(Value::List(items.iter().map(|item| read_value(item.get())).collect::<Option<_>>()?))
        }
        b'"' => Some(Value::String(serde_json::from_str(text).ok()?)),
        b't' | b'f' => Some(Value::Boolean(text == "true")),
        b'n' => Some(Value::Null),
        _ => {
            let number: Number = serde_json::from_str(text).ok()?;
            let kept = number.to_string() == text;
            Some(if kept { Value::Number(number) } else { Value::Binary(text.to_owned().into()) })
        }
    }
}

/// Errors listed in one answer; more say nothing that the first did not.
const MAX_ERRORS: usize = 20;

/// Writes a response. A response without data that came before execution has no `data` entry, as the specification
/// wants of request errors.
pub fn write_response(response: &Response, executed: bool) -> String {
    let mut out = String::with_capacity(256);
    out.push('{');
    if executed {
        out.push_str(r#""data":"#);
        write_value(&mut out, &response.data);
    }
    if !response.errors.is_empty() {
        out.push_str(if executed { r#","errors":"# } else { r#""errors":"# });
        write_errors(&mut out, &response.errors);
    }
    for (index, (name, value)) in response.extensions.iter().enumerate() {
        out.push_str(if index == 0 { r#","extensions":{"# } else { "," });
        write_text(&mut out, name);
        out.push(':');
        write_value(&mut out, value);
    }
    out.push_str(if response.extensions.is_empty() { "}" } else { "}}" });
    out
}

/// Writes a list of errors, each with its code.
pub fn write_errors(out: &mut String, errors: &[ServerError]) {
    out.push('[');
    for (index, error) in errors.iter().take(MAX_ERRORS).enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(r#"{"message":"#);
        write_text(out, &error.message);
        if !error.locations.is_empty() {
            out.push_str(r#","locations":["#);
            for (index, at) in error.locations.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                let _ = write!(out, r#"{comma}{{"line":{},"column":{}}}"#, at.line, at.column);
            }
            out.push(']');
        }
        if !error.path.is_empty() {
            out.push_str(r#","path":["#);
            for (index, segment) in error.path.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                match segment {
                    PathSegment::Field(name) => write_text(out, name),
                    PathSegment::Index(index) => {
                        let _ = write!(out, "{index}");
                    }
                }
            }
            out.push(']');
        }
        out.push_str(r#","extensions":{"#);
        let extensions = error.extensions.as_ref();
        if extensions.is_none_or(|extensions| extensions.get("code").is_none()) {
            // What async-graphql itself finds is wrong with the request.
            let _ = write!(out, r#""code":"{}""#, Code::BadRequest.as_str());
        }
        if let Some(extensions) = extensions
            && let Ok(Json::Object(fields)) = serde_json::to_value(extensions)
        {
            for (index, (name, value)) in fields.iter().enumerate() {
                let comma = if index > 0 || !fields.contains_key("code") { "," } else { "" };
                let _ = write!(out, "{comma}{}:{value}", Json::from(name.as_str()));
            }
        }
        out.push_str("}}");
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(text: &str) -> String {
        let mut out = String::new();
        write_value(&mut out, &read_value(text).unwrap());
        out
    }

    #[test]
    fn numbers_and_order_survive() {
        for text in [
            r#"{"z":12345678901234567890.5e400,"a":[0.10,1E5,-0,18446744073709551616],"é\n":null}"#,
            r#""\u0001\"\\""#,
            "[]",
            "{}",
            "[true,false]",
        ] {
            assert_eq!(there_and_back(text), text);
        }
    }

    #[test]
    fn variables_are_an_object_of_bounded_depth() {
        assert!(read_variables("null").unwrap().is_empty());
        assert_eq!(read_variables(r#"{"a":"]"}"#).unwrap().len(), 1);
        assert!(read_variables("[]").is_err());
        let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(read_variables(&nested(64)).is_ok());
        assert!(read_variables(&nested(65)).is_err());
        assert!(read_variables(&nested(100_000)).is_err());
    }

    #[test]
    fn every_error_has_a_code() {
        let mut out = String::new();
        write_errors(&mut out, &[ServerError::new("no \"good\"", None)]);
        assert_eq!(out, r#"[{"message":"no \"good\"","extensions":{"code":"BAD_REQUEST"}}]"#);
    }
}
