//! The context of a trace, by the W3C's Trace Context: with what a publisher's message is part of.

use std::sync::Arc;

use super::NewMessage;
use crate::channel::{Error, Headers, Message, Publication, TopicName};

/// The name under which a message carries the context.
pub const TRACE_PARENT: &str = "traceparent";

/// The name under which it carries what tracing systems add.
pub const TRACE_STATE: &str = "tracestate";

/// Bytes of a context of version 00, and of the fields that later versions share with it.
const PARENT_BYTES: usize = 55;

/// Where the id of the trace stands in these.
const TRACE_ID: std::ops::Range<usize> = 3..35;

/// A request's place in a trace; clones are cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: Arc<str>,
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads the two headers. `None` for what the specification has receivers ignore.
    #[must_use]
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let parent = parent.trim();
        is_parent(parent).then(|| Self { parent: parent.into(), state: state.map(Into::into) })
    }

    /// The context of a span that this server has begun.
    #[must_use]
    pub fn recorded(parent: &str, state: Option<&str>) -> Self {
        Self { parent: parent.into(), state: state.map(Into::into) }
    }

    /// The context that a message carries.
    #[must_use]
    pub fn of(headers: Option<&Headers>) -> Option<Self> {
        let headers = headers?;
        Self::parse(&headers.get(TRACE_PARENT)?, headers.get(TRACE_STATE).as_deref())
    }

    /// `version-trace-parent-flags`, in hexadecimal digits.
    #[must_use]
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The id of the trace, in hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.parent.get(TRACE_ID).unwrap_or_default()
    }

    /// What tracing systems add.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Whether whoever began the trace records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        let flags =
            self.parent.get(PARENT_BYTES - 2..PARENT_BYTES).and_then(|flags| u8::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & 1 == 1)
    }

    /// The message with this context among its headers, unless its publisher gave one of its own.
    pub(super) fn added_to(&self, mut new_message: NewMessage) -> NewMessage {
        let given = new_message.headers.take();
        if given.as_ref().is_some_and(|headers| headers.get(TRACE_PARENT).is_some()) {
            return NewMessage { headers: given, ..new_message };
        }
        let mut headers = Headers::with(given, TRACE_PARENT, &self.parent);
        if let Some(state) = &self.state {
            headers = Headers::with(headers, TRACE_STATE, state);
        }
        NewMessage { headers, ..new_message }
    }
}

/// Records what happens to messages that are part of traces.
pub trait Tracer: Send + Sync {
    /// Begins to publish a message into a topic, perhaps as a part of `within`. `None` if that is not recorded.
    fn publish(&self, topic: &TopicName, within: Option<&TraceContext>, door: &'static str)
    -> Option<Box<dyn Publish>>;

    /// A message that carries `within`, a context that is sampled, was handed to the connection of a subscriber, or of a
    /// named consumer.
    fn deliver(&self, message: &Message, within: &TraceContext, door: &'static str, consumer: Option<&str>);
}

/// A message that is being published.
pub trait Publish: Send {
    /// What the message is to carry.
    fn context(&self) -> TraceContext;

    /// It was published, or refused.
    fn end(self: Box<Self>, result: &Result<Publication, Error>);
}

/// Whether this is `version-trace-parent-flags` in small hexadecimal digits, with neither id zero.
fn is_parent(text: &str) -> bool {
    let Some(known) = text.get(..PARENT_BYTES) else { return false };
    let fields: Vec<_> = known.split('-').collect();
    let &[version, trace, parent, flags] = fields.as_slice() else { return false };
    let hex = |field: &str, length| {
        field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let rest = text.get(PARENT_BYTES..).unwrap_or_default();
    let whole = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    let is_id = |field: &str, length| hex(field, length) && field.bytes().any(|byte| byte != b'0');
    hex(version, 2) && version != "ff" && is_id(trace, 32) && is_id(parent, 16) && hex(flags, 2) && whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Payload;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_the_specification_has_ignored_is_ignored() {
        let later = format!("01{}-more", &PARENT[2..]);
        for good in [PARENT, &format!(" {PARENT} "), &later, &later[..55]] {
            assert!(TraceContext::parse(good, None).is_some(), "{good}");
        }
        for bad in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}0"),
            &format!("{PARENT}-more"),
            &format!("ff{}", &PARENT[2..]),
            &PARENT.to_uppercase(),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ü",
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_message_gets_the_context_unless_it_has_one() {
        let context = TraceContext::parse(PARENT, Some("a=1")).unwrap();
        let with = |headers: &str| {
            let new_message =
                NewMessage { headers: Headers::parse(headers).unwrap(), ..NewMessage::of(Payload::null()) };
            context.added_to(new_message).headers.unwrap().as_json().to_owned()
        };
        assert_eq!(with(r#"{"a":"b"}"#), format!(r#"{{"a":"b","traceparent":"{PARENT}","tracestate":"a=1"}}"#));
        assert_eq!(with(r#"{"traceparent":"mine"}"#), r#"{"traceparent":"mine"}"#);
        let carried = Headers::parse(&with("{}")).unwrap();
        assert_eq!(TraceContext::of(carried.as_ref()), Some(context));
        assert_eq!(
            (TraceContext::of(None), TraceContext::of(Headers::parse(r#"{"a":"b"}"#).unwrap().as_ref())),
            (None, None)
        );
    }

    #[test]
    fn flags_say_whether_a_trace_is_recorded() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("03", true), ("ff", true)] {
            let context = TraceContext::parse(&format!("{}{flags}", &PARENT[..53]), None).unwrap();
            assert_eq!(context.is_sampled(), sampled, "{flags}");
        }
    }
}
