//! The fields that compiled selections write: those of messages, gaps, publications and what a batch answers. The types
//! themselves stand in `types`.

use std::fmt::{Display, Write as _};

use super::selection::{Inner, Part, Selection};
use crate::{
    broker::{self, Cursor, Gap, PatternCursor},
    graphql::{
        json,
        types::{PublishError, PublishResult},
    },
};

/// A message as one subscriber gets it.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pub message: &'a broker::Message,
    /// What was missed before it.
    pub gap: Option<&'a Gap>,
    /// The position over all topics, where it came through a pattern.
    pub pattern_cursor: Option<&'a PatternCursor>,
    /// Whether the message before it may have been passed over by a filter.
    pub filtered: bool,
}

/// A field of `Message`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MessagePart {
    Cursor,
    MessageId,
    Topic,
    Data,
    Key,
    Headers,
    Removed,
    Offset,
    PatternCursor,
    Previous,
    PublishedAt,
    Gap(Selection<GapPart>),
}

/// A field of `Gap`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GapPart {
    Missed,
    FromOffset,
    ToOffset,
    Reason,
}

/// A field of `Publication`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PublicationPart {
    Cursor,
    MessageId,
    Topic,
    Offset,
    PublishedAt,
    Duplicate,
}

/// A field of `PublishResult`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ResultPart {
    Publication(Selection<PublicationPart>),
    Error(Selection<ErrorPart>),
}

/// A field of `PublishError`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ErrorPart {
    Code,
    Message,
    RetryAfterMs,
    CurrentOffset,
    MessageId,
}

impl Part for MessagePart {
    const TYPE: &'static str = "Message";
    type From<'a> = Item<'a>;

    fn named(name: &str, inner: &Inner<'_>) -> Option<Self> {
        Some(match name {
            "id" | "cursor" => Self::Cursor,
            "messageId" => Self::MessageId,
            "topic" => Self::Topic,
            "data" => Self::Data,
            "key" => Self::Key,
            "headers" => Self::Headers,
            "removed" => Self::Removed,
            "offset" => Self::Offset,
            "patternCursor" => Self::PatternCursor,
            "previous" => Self::Previous,
            "publishedAt" => Self::PublishedAt,
            "gap" => Self::Gap(inner.compile()?),
            _ => return None,
        })
    }

    fn write(&self, from: Item<'_>, out: &mut String) {
        let Item { message, gap, pattern_cursor, filtered } = from;
        match self {
            Self::Cursor => quoted(&message.cursor, out),
            Self::MessageId => json::write_text(out, message.id.as_str()),
            Self::Topic => json::write_text(out, message.topic.as_str()),
            Self::Data => out.push_str(message.data.as_str()),
            Self::Key => nullable(message.key.as_ref(), out, |key, out| json::write_text(out, key.as_str())),
            Self::Headers => {
                nullable(message.headers.as_ref(), out, |headers, out| out.push_str(headers.as_json()));
            }
            Self::Removed => flag(message.is_removal, out),
            Self::Offset => number(message.cursor.offset, out),
            Self::PatternCursor => nullable(pattern_cursor, out, quoted),
            Self::Previous => {
                let previous =
                    (!filtered && message.prev > 0).then_some(Cursor { offset: message.prev, ..message.cursor });
                nullable(previous, out, |cursor, out| quoted(&cursor, out));
            }
            Self::PublishedAt => quoted(&message.published_at, out),
            Self::Gap(selection) => selection.write_nullable(gap, out),
        }
    }
}

impl Part for GapPart {
    const TYPE: &'static str = "Gap";
    type From<'a> = &'a Gap;

    fn named(name: &str, _: &Inner<'_>) -> Option<Self> {
        Some(match name {
            "missed" => Self::Missed,
            "fromOffset" => Self::FromOffset,
            "toOffset" => Self::ToOffset,
            "reason" => Self::Reason,
            _ => return None,
        })
    }

    fn write(&self, gap: &Gap, out: &mut String) {
        match self {
            Self::Missed => nullable(gap.missed, out, number),
            Self::FromOffset => number(gap.from_offset, out),
            Self::ToOffset => number(gap.to_offset, out),
            Self::Reason => quoted(&gap.reason.code(), out),
        }
    }
}

impl Part for PublicationPart {
    const TYPE: &'static str = "Publication";
    type From<'a> = &'a broker::Publication;

    fn named(name: &str, _: &Inner<'_>) -> Option<Self> {
        Some(match name {
            "id" | "cursor" => Self::Cursor,
            "messageId" => Self::MessageId,
            "topic" => Self::Topic,
            "offset" => Self::Offset,
            "publishedAt" => Self::PublishedAt,
            "duplicate" => Self::Duplicate,
            _ => return None,
        })
    }

    fn write(&self, publication: &broker::Publication, out: &mut String) {
        match self {
            Self::Cursor => quoted(&publication.cursor, out),
            Self::MessageId => json::write_text(out, publication.id.as_str()),
            Self::Topic => json::write_text(out, publication.topic.as_str()),
            Self::Offset => number(publication.cursor.offset, out),
            Self::PublishedAt => quoted(&publication.published_at, out),
            Self::Duplicate => flag(publication.duplicate, out),
        }
    }
}

impl Part for ResultPart {
    const TYPE: &'static str = "PublishResult";
    type From<'a> = &'a PublishResult;

    fn named(name: &str, inner: &Inner<'_>) -> Option<Self> {
        Some(match name {
            "publication" => Self::Publication(inner.compile()?),
            "error" => Self::Error(inner.compile()?),
            _ => return None,
        })
    }

    fn write(&self, result: &PublishResult, out: &mut String) {
        match self {
            Self::Publication(selection) => {
                selection.write_nullable(result.publication.as_ref().map(|publication| &publication.0), out);
            }
            Self::Error(selection) => selection.write_nullable(result.error.as_ref(), out),
        }
    }
}

impl Part for ErrorPart {
    const TYPE: &'static str = "PublishError";
    type From<'a> = &'a PublishError;

    fn named(name: &str, _: &Inner<'_>) -> Option<Self> {
        Some(match name {
            "code" => Self::Code,
            "message" => Self::Message,
            "retryAfterMs" => Self::RetryAfterMs,
            "currentOffset" => Self::CurrentOffset,
            "messageId" => Self::MessageId,
            _ => return None,
        })
    }

    fn write(&self, error: &PublishError, out: &mut String) {
        match self {
            Self::Code => json::write_text(out, &error.code),
            Self::Message => json::write_text(out, &error.message),
            Self::RetryAfterMs => nullable(error.retry_after_ms, out, |wait, out| number(wait.0, out)),
            Self::CurrentOffset => nullable(error.current_offset, out, |offset, out| number(offset.0, out)),
            Self::MessageId => nullable(error.message_id.as_ref(), out, |id, out| json::write_text(out, id)),
        }
    }
}

/// Writes what needs no escapes as a JSON string.
fn quoted(text: &impl Display, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\"{text}\"");
}

fn flag(flag: bool, out: &mut String) {
    out.push_str(if flag { "true" } else { "false" });
}

fn number(number: u64, out: &mut String) {
    let _ = write!(out, "{number}");
}

fn nullable<T>(value: Option<T>, out: &mut String, write: impl FnOnce(T, &mut String)) {
    match value {
        Some(value) => write(value, out),
        None => out.push_str("null"),
    }
}
