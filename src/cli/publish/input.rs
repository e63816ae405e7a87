//! The messages to publish, one for each argument or line.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read as _},
};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::super::{Problem, raw::present};

/// Lines that are read ahead of what is sent.
const MAX_READ_AHEAD: usize = 1_000;

/// Bytes of the longest line that is read. A server takes 1 MiB of data unless it is told otherwise.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// What messages have that do not say it themselves.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub topic: Option<String>,
    pub key: Option<String>,
    pub id: Option<String>,
    pub expected_offset: Option<u64>,
    pub expected_key_offset: Option<u64>,
    pub headers: Option<BTreeMap<String, String>>,
    pub ttl: Option<String>,
    /// Whether keys are removed.
    pub is_removal: bool,
    /// Whether data are strings, also where they are JSON.
    pub is_text: bool,
    /// Whether lines are objects with a message in each.
    pub is_object: bool,
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Line {
    /// Of the line or argument, from 1.
    pub number: u64,
    pub topic: String,
    /// As JSON text.
    pub data: String,
    pub key: Option<String>,
    pub id: String,
    pub expected_offset: Option<u64>,
    pub expected_key_offset: Option<u64>,
    pub headers: Option<BTreeMap<String, String>>,
    pub ttl: Option<String>,
    /// Whether it removes its key.
    pub is_removal: bool,
}

/// What a line holds: a message, or nothing that can be published. An error ends the input.
pub type Read = std::io::Result<Result<Line, (u64, String)>>;

/// Where messages come from.
pub struct Input {
    lines: Receiver<Read>,
    /// What is read, in the words of an error.
    pub what: &'static str,
}

/// A line that is an object.
#[derive(Default, Deserialize)]
struct Object {
    topic: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    key: Option<String>,
    id: Option<String>,
    expected_offset: Option<u64>,
    expected_key_offset: Option<u64>,
    headers: Option<BTreeMap<String, String>>,
    ttl: Option<String>,
    /// As a publish has it, and as a message has it that is delivered.
    #[serde(alias = "removed")]
    remove: Option<bool>,
}

impl Input {
    /// One message that removes a key.
    pub fn removal(defaults: Defaults) -> Self {
        Self::of("argument", move |sender| {
            // Nobody waits for it any more if this fails.
            let _ = sender.blocking_send(Ok(line(1, Object::default(), "null".to_owned(), &defaults)));
        })
    }

    /// Each argument is a message.
    ///
    /// # Errors
    /// An id or an expected offset for several messages.
    pub fn arguments(data: Vec<String>, defaults: Defaults) -> Result<Self, Problem> {
        let of_one = [
            ("--id", defaults.id.is_some()),
            ("--expected-offset", defaults.expected_offset.is_some()),
            ("--expected-key-offset", defaults.expected_key_offset.is_some()),
        ];
        if data.len() > 1
            && let Some((flag, _)) = of_one.into_iter().find(|(_, is_given)| *is_given)
        {
            return Err(Problem::Usage(format!("{flag}: is for one message, and there are {}", data.len())));
        }
        let read = move |sender: &Sender<Read>| {
            for (number, data) in (1..).zip(data) {
                // What is not JSON is a string.
                let defaults = Defaults { is_text: defaults.is_text || !is_json(&data), ..defaults.clone() };
                if sender.blocking_send(Ok(payload(number, &data, &defaults))).is_err() {
                    return;
                }
            }
        };
        Ok(Self::of("argument", read))
    }

    /// Each line of a file is a message.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn file(name: &str, defaults: Defaults) -> Result<Self, Problem> {
        let file = File::open(name).map_err(|error| Problem::Failed(format!("--file: {name}: {error}")))?;
        Ok(Self::of("line", move |sender| read_lines(BufReader::new(file), &defaults, sender)))
    }

    /// Each line of standard input is a message.
    pub fn stdin(defaults: Defaults) -> Self {
        Self::of("line", move |sender| read_lines(std::io::stdin().lock(), &defaults, sender))
    }

    /// Reading blocks, so it has a thread of its own.
    fn of(what: &'static str, read: impl FnOnce(&Sender<Read>) + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel(MAX_READ_AHEAD);
        tokio::task::spawn_blocking(move || read(&sender));
        Self { lines, what }
    }

    /// The next message, when there is one; `None` at the end.
    pub async fn next(&mut self) -> Option<Read> {
        self.lines.recv().await
    }

    /// The next message, if it was read already.
    pub fn next_now(&mut self) -> Option<Read> {
        self.lines.try_recv().ok()
    }
}

fn read_lines(mut input: impl BufRead, defaults: &Defaults, sender: &Sender<Read>) {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let line = match input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes) {
            Ok(0) => return,
            Ok(read) if read as u64 == MAX_LINE_BYTES => {
                Err(std::io::Error::other(format!("line {number} is longer than {} MiB", MAX_LINE_BYTES >> 20)))
            }
            Ok(_) => match std::str::from_utf8(&bytes).map(|text| text.trim_end_matches(['\n', '\r'])) {
                Ok(text) if text.trim().is_empty() && !defaults.is_text => continue,
                Ok(text) if defaults.is_object => Ok(object(number, text, defaults)),
                Ok(text) => Ok(payload(number, text, defaults)),
                Err(_) => Ok(Err((number, "is not UTF-8".to_owned()))),
            },
            Err(error) => Err(error),
        };
        let is_last = line.is_err();
        if sender.blocking_send(line).is_err() || is_last {
            return;
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// A line that is the data of a message.
fn payload(number: u64, text: &str, defaults: &Defaults) -> Result<Line, (u64, String)> {
    let data = if defaults.is_text {
        serde_json::Value::from(text).to_string()
    } else {
        let read: Result<&RawValue, _> = serde_json::from_str(text);
        let wrong = |error| (number, format!("is not JSON ({error}); --text publishes lines as strings"));
        read.map_err(wrong)?.get().to_owned()
    };
    line(number, Object::default(), data, defaults)
}

/// A line that is an object with a message in it.
fn object(number: u64, text: &str, defaults: &Defaults) -> Result<Line, (u64, String)> {
    let mut object: Object =
        serde_json::from_str(text).map_err(|error| (number, format!("is not a message as JSON ({error})")))?;
    let data = match object.data.take() {
        Some(data) => data.get().to_owned(),
        None if object.remove == Some(true) => "null".to_owned(),
        None => return Err((number, "has no `data`".to_owned())),
    };
    line(number, object, data, defaults)
}

fn line(number: u64, object: Object, data: String, defaults: &Defaults) -> Result<Line, (u64, String)> {
    let topic = object.topic.or_else(|| defaults.topic.clone());
    Ok(Line {
        number,
        topic: topic.ok_or_else(|| (number, "has no `topic`, and none is given".to_owned()))?,
        data,
        key: object.key.or_else(|| defaults.key.clone()),
        // Made here, and not at the server, so that it is the same in every attempt.
        id: object.id.or_else(|| defaults.id.clone()).unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
        expected_offset: object.expected_offset.or(defaults.expected_offset),
        expected_key_offset: object.expected_key_offset.or(defaults.expected_key_offset),
        headers: object.headers.or_else(|| defaults.headers.clone()),
        ttl: object.ttl.or_else(|| defaults.ttl.clone()),
        is_removal: object.remove.unwrap_or(defaults.is_removal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        Defaults { topic: Some("news".to_owned()), ..Defaults::default() }
    }

    #[test]
    fn lines_are_payloads() {
        let line = payload(3, r#" {"n": 1.50e400}"#, &defaults()).unwrap();
        assert_eq!((line.number, line.topic.as_str(), line.data.as_str()), (3, "news", r#"{"n": 1.50e400}"#));
        assert_eq!(uuid::Uuid::parse_str(&line.id).map(|id| id.get_version_num()), Ok(7));
        assert!(payload(1, "hello", &defaults()).unwrap_err().1.contains("--text"));
        let text = Defaults { is_text: true, ..defaults() };
        assert_eq!(payload(1, "say \"1\"", &text).unwrap().data, r#""say \"1\"""#);
    }

    #[test]
    fn lines_are_messages() {
        let with_key = Defaults { key: Some("k".to_owned()), ..defaults() };
        let line = object(1, r#"{"topic":"a","data":null,"id":"7","expected_offset":4,"ts":"x"}"#, &with_key).unwrap();
        assert_eq!((line.topic.as_str(), line.data.as_str(), line.id.as_str()), ("a", "null", "7"));
        assert_eq!((line.key.as_deref(), line.expected_offset), (Some("k"), Some(4)));
        assert_eq!(object(1, r#"{"data":1}"#, &defaults()).unwrap().topic, "news");
        let headers = |value: &str| [("a".to_owned(), value.to_owned())].into();
        let with_header = Defaults { headers: Some(headers("1")), ..defaults() };
        assert_eq!(object(1, r#"{"data":1}"#, &with_header).unwrap().headers, Some(headers("1")));
        let own = object(1, r#"{"data":1,"headers":{"a":"2"}}"#, &with_header).unwrap();
        assert_eq!(own.headers, Some(headers("2")));
        let short = Defaults { ttl: Some("5s".to_owned()), ..defaults() };
        assert_eq!(object(1, r#"{"data":1,"ttl":"1h"}"#, &short).unwrap().ttl.as_deref(), Some("1h"));
        assert_eq!(payload(1, "1", &short).unwrap().ttl.as_deref(), Some("5s"));
        assert!(object(1, r#"{"key":"k","remove":true}"#, &defaults()).unwrap().is_removal);
        assert!(object(1, r#"{"key":"k","data":null,"removed":true}"#, &defaults()).unwrap().is_removal);
        for bad in [
            r#"{"key":"k","remove":false}"#,
            r#"{"topic":"a"}"#,
            "1",
            "{",
            r#"{"data":1,"key":2}"#,
            r#"{"data":1,"headers":{"a":1}}"#,
        ] {
            assert!(object(9, bad, &defaults()).is_err(), "{bad}");
        }
        assert!(object(1, r#"{"data":1}"#, &Defaults::default()).unwrap_err().1.contains("topic"));
    }
}
