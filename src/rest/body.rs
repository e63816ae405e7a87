//! Extractors for REST requests. Unlike axum's own, their errors have the one error body.

use std::{borrow::Cow, time::Duration};

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, Uri, request::Parts},
};
use bytes::Bytes;

use super::Context;
use crate::{
    access::CREDENTIAL_PARAMETER,
    body,
    broker::Error,
    headers,
    problem::{Code, Problem},
    query_string,
    wire::{self, Fields, UnknownFields},
};

/// The body. Its content type does not count unless the body is a form indeed, because `curl -d` sends JSON as a form.
pub struct Text(Bytes);

impl FromRequest<Context> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, context: &Context) -> Result<Self, Problem> {
        Self::read(request, context.request_timeout).await
    }
}

impl Text {
    /// Reads the body of a request, which may take so long to arrive.
    ///
    /// # Errors
    /// It is a form, or cannot be read.
    pub async fn read(request: Request, within: Duration) -> Result<Self, Problem> {
        let form = form(request.headers())?;
        let body = Self(body::read(request, within).await?);
        match form {
            Some(kind) if !body.as_str()?.trim_start().starts_with(['{', '[']) => {
                let message =
                    format!("body: must be JSON with the content type application/json, and this is a form ({kind})");
                Err(body::unsupported(message))
            }
            _ => Ok(body),
        }
    }

    /// The text.
    ///
    /// # Errors
    /// It is not in UTF-8.
    pub fn as_str(&self) -> Result<&str, Problem> {
        body::text(&self.0)
    }
}

/// The media type of a body that a form in a browser sends.
fn form(headers: &HeaderMap) -> Result<Option<&'static str>, Problem> {
    const FORMS: [&str; 2] = ["application/x-www-form-urlencoded", "multipart/form-data"];
    let Some(value) = headers::single(headers, "Content-Type")? else { return Ok(None) };
    let kind = headers::with_parameters(value).0;
    Ok(FORMS.into_iter().find(|form| form.eq_ignore_ascii_case(kind)))
}

/// The fields of a body that is one JSON object. Those that are not `known` are refused.
pub fn fields<'a>(body: &'a str, known: &[&'static str]) -> Result<Fields<'a>, Error> {
    let fields = Fields::parse("body", body)?;
    fields.allow("body", known, UnknownFields::Refused)?;
    Ok(fields)
}

/// That the query string has no parameter, for routes that read none.
pub struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        check_no_query(&parts.uri).map(|()| Self)
    }
}

/// Checks that the query string has no parameter.
///
/// # Errors
/// One that names the first parameter.
pub fn check_no_query(uri: &Uri) -> Result<(), Problem> {
    Ok(Query(query_string::parameters(uri)?).allow(&[])?)
}

/// A topic's name or a pattern in the path, percent-decoded, not checked yet.
pub struct TopicPath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for TopicPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| undecodable())
    }
}

/// A topic's name or a pattern, and the name of a consumer, or a key.
pub struct NamedPath(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for NamedPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        path.map(|Path((topic, name))| Self(topic, name)).map_err(|_| undecodable())
    }
}

fn undecodable() -> Problem {
    Problem::new(Code::InvalidTopic, "topic: the path must be percent-encoded UTF-8")
}

/// The query string's parameters. Of a repeated one the last counts.
pub struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(query_string::parameters(&parts.uri)?))
    }
}

impl Query {
    /// Refuses parameters that the route does not have. Every route may have a credential in its address; whether that counts
    /// was decided before.
    pub fn allow(&self, known: &[&'static str]) -> Result<(), Error> {
        let mut names = self.0.iter().map(|(name, _)| name).filter(|name| *name != CREDENTIAL_PARAMETER);
        names.try_for_each(|name| wire::refuse_unknown("query", "parameter", name, known))
    }

    /// The number of messages to begin with.
    pub fn last(&self) -> Result<Option<u32>, Error> {
        wire::same_last(self.number("last")?, self.number("last_n")?)
    }

    /// A parameter; an empty one counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A whole number.
    pub fn number(&self, name: &'static str) -> Result<Option<u32>, Error> {
        let read = |text: &str| {
            let message = Cow::Borrowed("must be a whole number from 0 to 4294967295");
            text.parse().map_err(|_| Error::bad_request(name, message))
        };
        self.text(name).map(read).transpose()
    }

    /// True or false, which is the same as nothing.
    pub fn flag(&self, name: &'static str) -> Result<bool, Error> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::bad_request(name, "must be true or false")),
        }
    }

    /// An offset.
    pub fn offset(&self, name: &'static str) -> Result<Option<u64>, Error> {
        let wrong = || Error::bad_request(name, format!("must be a whole number from 0 to {}", u64::MAX));
        self.text(name).map(|text| text.parse().map_err(|_| wrong())).transpose()
    }

    /// A number of items from 1 to `most`; 100 unless given.
    pub fn limit(&self, name: &'static str, most: usize) -> Result<usize, Error> {
        match self.number(name)?.map(|limit| limit as usize) {
            None => Ok(most.min(100)),
            Some(limit) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(Error::bad_request(name, format!("must be from 1 to {most}"))),
        }
    }
}
