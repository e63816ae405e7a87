//! What is subscribed to, and from where.

use clap::ArgMatches;
use serde_json::{Value, json};

use super::super::{Problem, arguments::text};
use crate::client::{encode, query};

/// Where a subscription begins. Without a start it begins with the next message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Start {
    Live,
    Last(u32),
    After(String),
    Since(String),
    State,
}

/// What is subscribed to, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// A topic or a pattern.
    pub source: String,
    start: Start,
    filter: Option<Value>,
    /// Under which name the server keeps the position.
    pub consumer: Option<String>,
    /// `AUTO` or `EXPLICIT`.
    ack: Option<String>,
    consumer_ttl: Option<String>,
    overflow: Option<String>,
}

impl Request {
    /// What the flags say.
    ///
    /// # Errors
    /// A filter or a time that cannot be read.
    pub fn of(matches: &ArgMatches) -> Result<Self, Problem> {
        let wrong = |flag: &str, what: &str| Problem::Usage(format!("--{flag}: {what}"));
        let owned = |name| text(matches, name).map(str::to_owned);
        let start = match (matches.get_one::<u32>("last"), owned("after"), text(matches, "since")) {
            (Some(last), ..) => Start::Last(*last),
            (_, Some(cursor), _) => Start::After(cursor),
            (.., Some(time)) => Start::Since(since(time).ok_or_else(|| {
                wrong("since", "must be a time like 2026-11-28T12:00:00Z, or how long ago, like 10m")
            })?),
            _ if matches.get_flag("state") => Start::State,
            _ => Start::Live,
        };
        let filter = match (text(matches, "filter"), text(matches, "key")) {
            (Some(filter), _) => Some(
                serde_json::from_str(filter)
                    .map_err(|error| wrong("filter", &format!("must be a JSON object ({error})")))?,
            ),
            (None, Some(key)) => Some(json!({"field": "$key", "eq": key})),
            (None, None) => None,
        };
        let upper = |name| text(matches, name).map(str::to_uppercase);
        Ok(Self {
            source: owned("topic").unwrap_or_default(),
            start,
            filter,
            consumer: owned("consumer"),
            ack: upper("ack"),
            consumer_ttl: owned("consumer-ttl"),
            overflow: upper("overflow"),
        })
    }

    /// Whether it is a pattern.
    pub fn is_pattern(&self) -> bool {
        self.source.split('.').any(|segment| matches!(segment, "*" | ">"))
    }

    /// Whether this program acknowledges what it has written.
    pub fn is_explicit(&self) -> bool {
        self.ack.as_deref() == Some("EXPLICIT")
    }

    /// Whether it is to begin with the state, which has not come completely.
    pub fn awaits_state(&self) -> bool {
        self.start == Start::State
    }

    /// The state has come: what follows is live.
    pub fn state_has_come(&mut self) {
        self.start = Start::Live;
    }

    /// The path of the event stream that begins after `position`, or where the flags say.
    pub fn path(&self, position: Option<&str>) -> String {
        let is_state = self.awaits_state();
        // With this, the server says when the rest of the state has come, too.
        let resume = position.filter(|_| is_state);
        let other = position.filter(|_| !is_state);
        let start = other.map_or_else(|| self.start.clone(), |position| Start::After(position.to_owned()));
        let (mut last, mut after, mut since) = (None, None, None);
        match start {
            Start::State => {}
            Start::Live => {}
            Start::Last(count) => last = Some(count.to_string()),
            Start::After(cursor) => after = Some(cursor),
            Start::Since(time) => since = Some(time),
        }
        let filter = self.filter.as_ref().map(Value::to_string);
        let parameters = [
            ("last", last.as_deref()),
            ("after", after.as_deref()),
            ("since", since.as_deref()),
            ("state", is_state.then_some("true")),
            ("lastEventId", resume),
            ("filter", filter.as_deref()),
            ("overflow", self.overflow.as_deref()),
        ];
        format!("/topics/{}/messages{}", encode(&self.source), query(&parameters))
    }

    /// The frame of `/ws` that subscribes from there.
    pub fn frame(&self, position: Option<&str>, request_id: &str) -> String {
        let mut frame = json!({"type": "subscribe", "topic": self.source, "request_id": request_id});
        let mut add = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                frame[name] = value;
            }
        };
        match position.map_or_else(|| self.start.clone(), |position| Start::After(position.to_owned())) {
            Start::Live => {}
            Start::Last(count) => add("last", Some(count.into())),
            Start::After(cursor) => add("after", Some(cursor.into())),
            Start::Since(time) => add("since", Some(time.into())),
            Start::State => add("state", Some(true.into())),
        }
        add("filter", self.filter.clone());
        add("consumer", self.consumer.clone().map(Value::from));
        add("ack", self.ack.clone().map(Value::from));
        add("consumer_ttl", self.consumer_ttl.clone().map(Value::from));
        add("overflow", self.overflow.clone().map(Value::from));
        frame.to_string()
    }
}

/// A time as the server reads it: the one that is given, or so long ago.
fn since(text: &str) -> Option<String> {
    if text.parse::<jiff::Timestamp>().is_ok() {
        return Some(text.to_owned());
    }
    let ago = super::super::arguments::parse_duration(text).ok()?;
    Some(jiff::Timestamp::now().checked_sub(ago).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(arguments: &[&str]) -> Result<Request, Problem> {
        let command = super::super::command();
        Request::of(&command.try_get_matches_from([&["sub"], arguments].concat()).unwrap())
    }

    #[test]
    fn requests_say_what_the_flags_say() {
        let request = request(&["orders.*", "--last", "5", "--key", "a&b", "--overflow", "latest"]).unwrap();
        assert!(request.is_pattern());
        let filter = "filter=%7B%22field%22%3A%22%24key%22%2C%22eq%22%3A%22a%26b%22%7D";
        assert_eq!(request.path(None), format!("/topics/orders.%2A/messages?last=5&{filter}&overflow=LATEST"));
        assert!(request.path(Some("p1-2")).starts_with("/topics/orders.%2A/messages?after=p1-2&"));
    }

    #[test]
    fn the_state_is_resumed_until_it_has_come() {
        let mut request = request(&["a", "--state"]).unwrap();
        assert_eq!(request.path(None), "/topics/a/messages?state=true");
        assert_eq!(request.path(Some("e-1")), "/topics/a/messages?state=true&lastEventId=e-1");
        let frame: Value = serde_json::from_str(&request.frame(None, "1")).unwrap();
        assert_eq!(frame["state"], true);
        let resumed: Value = serde_json::from_str(&request.frame(Some("e-1"), "1")).unwrap();
        assert_eq!((&resumed["state"], &resumed["after"]), (&Value::Null, &json!("e-1")));
        request.state_has_come();
        assert_eq!(request.path(Some("e-1")), "/topics/a/messages?after=e-1");
    }

    #[test]
    fn consumers_subscribe_by_frame() {
        let request =
            request(&["a", "--consumer", "c", "--ack", "Explicit", "--since", "2026-11-28T12:00:00Z"]).unwrap();
        assert!(request.is_explicit() && !request.is_pattern());
        let frame: Value = serde_json::from_str(&request.frame(None, "1")).unwrap();
        let wanted = json!({"type": "subscribe", "topic": "a", "request_id": "1", "since": "2026-11-28T12:00:00Z",
            "consumer": "c", "ack": "EXPLICIT"});
        assert_eq!(frame, wanted);
        let resumed: Value = serde_json::from_str(&request.frame(Some("e-1"), "2")).unwrap();
        assert_eq!((&resumed["after"], &resumed["since"]), (&json!("e-1"), &Value::Null));
    }

    #[test]
    fn times_are_absolute_or_ago() {
        assert_eq!(since("2026-11-28T12:00:00+01:00").as_deref(), Some("2026-11-28T12:00:00+01:00"));
        assert!(since("10m").unwrap().ends_with('Z'));
        assert_eq!(since("yesterday"), None);
        assert!(matches!(request(&["a", "--filter", "{"]), Err(Problem::Usage(_))));
    }
}
