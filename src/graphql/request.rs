//! A request as clients of all transports write it: JSON text of a document, variables and extensions.

use std::{borrow::Cow, sync::Arc};

use async_graphql::Variables;
use serde_json::value::RawValue;

use super::{compiled::Call, json, shape::Shape};
use crate::{
    broker::{Start, TRACE_PARENT, TRACE_STATE, TraceContext},
    wire::{self, Fields},
};

/// A request as a client sent it.
#[derive(Default)]
pub struct Asked {
    /// The document, unless it is named by its hash alone.
    pub query: Option<String>,
    /// The SHA-256 hash of a persisted document.
    pub hash: Option<String>,
    /// Which of its operations.
    pub operation: Option<String>,
    /// Its variables.
    pub variables: Variables,
    /// Its id on a single-connection event stream.
    pub operation_id: Option<String>,
    /// The client's name for the ping that is to say that its subscription is open.
    pub ack: Option<String>,
    /// Whether every result is to carry the position to resume after.
    pub with_cursors: bool,
    /// Where a client that comes back says it was: as `Last-Event-ID`, for transports without headers.
    pub resume: Option<Start>,
    /// The trace that the request is part of.
    pub trace: Option<TraceContext>,
    /// The operation with the values of its arguments, if it was compiled. The request then needs nothing else.
    pub call: Option<Call<Arc<Shape>>>,
}

/// Why a request could not be read.
#[derive(Debug)]
pub struct Unread {
    /// What is wrong, naming the parameter.
    pub message: String,
    /// Whether it does not have the form of a request. A protocol that defines what a request is does not accept it as one.
    pub malformed: bool,
}

impl Unread {
    /// It does not have the form of a request.
    pub fn form(message: impl Into<String>) -> Self {
        Self { message: message.into(), malformed: true }
    }

    /// It has the form of a request, but what it contains cannot be used.
    pub fn content(message: impl Into<String>) -> Self {
        Self { message: message.into(), malformed: false }
    }
}

/// One request as the specification writes it, of which the variables are still JSON text.
pub struct Unresolved<'a> {
    /// The document.
    pub query: Option<Cow<'a, str>>,
    /// The specification's identifier of a document.
    pub document: Option<Cow<'a, str>>,
    /// Which of its operations.
    pub operation: Option<Cow<'a, str>>,
    /// `null` if there are none.
    pub variables: &'a str,
    /// What this service reads of its extensions.
    pub extensions: Extensions,
}

impl<'a> Unresolved<'a> {
    /// Reads JSON text.
    ///
    /// # Errors
    /// What is wrong, naming the parameter.
    pub fn read(text: &'a str) -> Result<Self, Unread> {
        let fields = Fields::parse("body", text).map_err(|error| Unread::form(error.to_string()))?;
        let query = string(&fields, "", "query")?;
        let document = string(&fields, "", "documentId")?;
        let operation = string(&fields, "", "operationName")?.filter(|name| !name.is_empty());
        let extensions =
            fields.present("extensions").map(|extensions| read_extensions(extensions.get())).transpose()?;
        let variables = fields.present("variables").map_or("null", RawValue::get);
        Ok(Self { query, document, operation, variables, extensions: extensions.unwrap_or_default() })
    }

    /// The hash of the document, by which it may be known. The specification's identifier of a document is its hash here,
    /// with or without the prefix.
    ///
    /// # Errors
    /// Two are given and differ.
    pub fn hash(&self) -> Result<Option<&str>, Unread> {
        let document = self.document.as_deref().filter(|id| !id.is_empty());
        let document = document.map(|id| id.strip_prefix("sha256:").unwrap_or(id));
        match (document, self.extensions.hash.as_deref()) {
            (Some(document), Some(hash)) if document != hash => {
                Err(Unread::content("documentId: is not the hash in extensions.persistedQuery"))
            }
            (document, hash) => Ok(document.or(hash)),
        }
    }

    /// The request for what was compiled.
    #[must_use]
    pub fn compiled(self, call: Call<Arc<Shape>>) -> Asked {
        let Extensions { operation_id, ack, with_cursors, resume, trace, .. } = self.extensions;
        Asked { operation_id, ack, with_cursors, resume, trace, call: Some(call), ..Asked::default() }
    }

    /// The request with its variables.
    ///
    /// # Errors
    /// What is wrong, naming the parameter.
    pub fn resolve(self) -> Result<Asked, Unread> {
        let has_form = matches!(self.variables.as_bytes().first(), Some(b'{' | b'n'));
        let variables =
            json::read_variables(self.variables).map_err(|message| Unread { message, malformed: !has_form })?;
        let hash = self.hash()?.map(str::to_owned);
        if self.query.is_none() && hash.is_none() {
            return Err(Unread::form("query: is missing"));
        }
        let Extensions { operation_id, ack, with_cursors, resume, trace, .. } = self.extensions;
        let (query, operation) = (self.query.map(Cow::into_owned), self.operation.map(Cow::into_owned));
        Ok(Asked { query, hash, operation, variables, operation_id, ack, with_cursors, resume, trace, call: None })
    }
}

/// A string among the fields of the object at `path`. A JSON string that is not Unicode text has the right form.
fn string<'a>(fields: &Fields<'a>, path: &str, name: &'static str) -> Result<Option<Cow<'a, str>>, Unread> {
    fields.text(name).map_err(|error| match fields.raw(name) {
        Some(value) if value.get().starts_with('"') => {
            Unread::content(format!("{path}{name}: must not hold half of a surrogate pair"))
        }
        _ => Unread::form(format!("{path}{error}")),
    })
}

/// What this service reads of a request's extensions.
#[derive(Default)]
pub struct Extensions {
    /// The hash of a persisted document.
    hash: Option<String>,
    /// The operation's id on a single-connection event stream.
    operation_id: Option<String>,
    /// The client's name for the ping that is to say that its subscription is open.
    ack: Option<String>,
    /// Whether every result is to carry the position to resume after.
    with_cursors: bool,
    /// Where a client that comes back says it was.
    resume: Option<Start>,
    /// The trace that the request is part of.
    trace: Option<TraceContext>,
}

/// Reads a request's extensions. Their form is that they are an object. What they contain belongs to each extension.
pub fn read_extensions(text: &str) -> Result<Extensions, Unread> {
    const PATH: &str = "extensions.";
    let fields = Fields::parse("extensions", text).map_err(|_| Unread {
        message: "extensions: must be an object".to_owned(),
        malformed: !text.starts_with('{'),
    })?;
    let own = |unread: Unread| Unread::content(unread.message);
    let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    let persisted = fields.present("persistedQuery").map(|persisted| {
        Fields::parse("extensions", persisted.get())
            .map_err(|_| Unread::content("extensions.persistedQuery: must be an object"))
    });
    let persisted = persisted.transpose()?;
    let hash = persisted.map(|persisted| string(&persisted, "extensions.persistedQuery.", "sha256Hash").map(owned));
    let guarantee = string(&fields, PATH, "delivery-guarantee").map_err(own)?;
    if guarantee.as_deref().is_some_and(|guarantee| guarantee != "cursor") {
        return Err(Unread::content("extensions.delivery-guarantee: must be \"cursor\""));
    }
    let resume = string(&fields, PATH, "lastEventId").map_err(own)?.filter(|id| !id.is_empty());
    let resume = resume.map(|id| wire::parse_position("extensions.lastEventId", &id)).transpose();
    Ok(Extensions {
        hash: hash.transpose().map_err(own)?.flatten(),
        operation_id: string(&fields, PATH, "operationId").map(owned).map_err(own)?,
        ack: string(&fields, PATH, "ack").map(owned).map_err(own)?,
        with_cursors: guarantee.is_some(),
        resume: resume.map_err(|error| Unread::content(error.to_string()))?,
        // What cannot be used is ignored, as in a header.
        trace: fields
            .text(TRACE_PARENT)
            .ok()
            .flatten()
            .and_then(|parent| TraceContext::parse(&parent, fields.text(TRACE_STATE).ok().flatten().as_deref())),
    })
}
