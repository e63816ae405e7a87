//! Between JSON text and async-graphql's values, without losing what a number was.

use std::{collections::BTreeMap, fmt::Write as _};

use async_graphql::{Name, PathSegment, Response, ServerError, Value, Variables};
use serde_json::{Number, Value as Json, value::RawValue};

use crate::{
    broker::{Defect, MAX_NESTING},
    problem::Code,
    wire::Fields,
};

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

/// How deep a variable may nest: data as deep as it may be, in a list of input objects.
pub const MAX_VARIABLE_NESTING: usize = MAX_NESTING + 2;

/// Reads a request's variables from JSON text.
///
/// # Errors
/// What is wrong, for the client, naming the variable.
pub fn read_variables(text: &str) -> Result<Variables, String> {
    let mut variables = Variables::default();
    if text == "null" {
        return Ok(variables);
    }
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|_| {
        let defect = Defect::of(text, usize::MAX).filter(|_| text.starts_with('{'));
        let reason = defect.map_or_else(|| "must be a JSON object".to_owned(), |defect| defect.to_string());
        format!("variables: {reason}")
    })?;
    for (name, value) in fields.iter() {
        let wrong = |reason: String| {
            let name: String = name.chars().take(64).collect();
            format!("variables.{name}: {reason}")
        };
        if let Some(defect) = Defect::of(value, MAX_VARIABLE_NESTING) {
            return Err(wrong(defect.to_string()));
        }
        if variables.contains_key(name) {
            return Err(wrong("is given twice".to_owned()));
        }
        let value = read_value(value).ok_or_else(|| wrong("cannot be read".to_owned()))?;
        variables.insert(Name::new(name), value);
    }
    Ok(variables)
}

/// Reads one value. Numbers keep their spelling, which no tree of `serde_json` or async-graphql does for all of them: one
/// that would be respelled is passed on as JSON text, which only the `JSON` scalar takes.
pub fn read_value(text: &str) -> Option<Value> {
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
    finish_response(&mut out, &response.errors, &response.extensions);
    out
}

/// Writes what stands in a response behind its data, and its end.
pub fn finish_response(out: &mut String, errors: &[ServerError], extensions: &BTreeMap<String, Value>) {
    if !errors.is_empty() {
        out.push_str(if out.len() > 1 { r#","errors":"# } else { r#""errors":"# });
        write_errors(out, errors);
    }
    for (index, (name, value)) in extensions.iter().enumerate() {
        out.push_str(if index == 0 { r#","extensions":{"# } else { "," });
        write_text(out, name);
        out.push(':');
        write_value(out, value);
    }
    out.push_str(if extensions.is_empty() { "}" } else { "}}" });
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
        // async-graphql has a location of zeros where nothing in the document is to blame.
        let mut locations = error.locations.iter().filter(|at| at.line > 0).peekable();
        if locations.peek().is_some() {
            out.push_str(r#","locations":["#);
            for (index, at) in locations.enumerate() {
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
    use async_graphql::Pos;

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
        assert!(read_variables(&nested(66)).is_ok());
        assert!(read_variables(&nested(67)).is_err());
        assert!(read_variables(&nested(100_000)).is_err());
    }

    #[test]
    fn the_reason_names_the_variable_and_what_is_wrong() {
        let deep = format!(r#"{{"d":{}{}}}"#, "[".repeat(67), "]".repeat(67));
        for (text, reason) in [
            ("[1]", "variables: must be a JSON object"),
            (r#"{"d":["x\ud83d"]}"#, "variables.d: must not hold half of a surrogate pair"),
            (r#"{"\ud83d":1}"#, "variables: must not hold half of a surrogate pair"),
            (r#"{"d":{"a":1,"a":2}}"#, r#"variables.d: must not have the key "a" twice in one object"#),
            (r#"{"d":1,"d":2}"#, "variables.d: is given twice"),
            (&deep, "variables.d: must not nest deeper than 66"),
        ] {
            assert_eq!(read_variables(text).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn every_error_has_a_code() {
        let mut out = String::new();
        write_errors(&mut out, &[ServerError::new("no \"good\"", None)]);
        assert_eq!(out, r#"[{"message":"no \"good\"","extensions":{"code":"BAD_REQUEST"}}]"#);
    }

    #[test]
    fn no_error_is_in_line_0() {
        let mut out = String::new();
        let mut error = ServerError::new("x", Some(Pos::default()));
        write_errors(&mut out, std::slice::from_ref(&error));
        assert!(!out.contains("locations"), "{out}");
        error.locations.push(Pos { line: 2, column: 3 });
        write_errors(&mut out, &[error]);
        assert!(out.contains(r#","locations":[{"line":2,"column":3}]"#) && !out.contains(r#""line":0"#), "{out}");
    }
}
