//! The one table of errors: the code and the HTTP status of each, and the object by which every door says it.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::broker::{Error, Timestamp};

/// A stable code: clients decide by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Malformed, missing or contradictory input.
    BadRequest,
    /// The topic's name breaks the rule.
    InvalidTopic,
    /// No or bad credentials.
    Unauthenticated,
    /// These credentials may not do this.
    Forbidden,
    /// No such topic.
    TopicNotFound,
    /// No such path, consumer or other thing.
    NotFound,
    /// GraphQL only: no document of this hash is known, so the client sends the document with it.
    PersistedQueryNotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The topic exists.
    TopicExists,
    /// A condition does not hold.
    Conflict,
    /// Over a bound on bytes.
    PayloadTooLarge,
    /// A rate is used up.
    RateLimited,
    /// A bound on how many is reached.
    LimitReached,
    /// The subscription fell behind and had chosen to end then.
    SlowConsumer,
    /// The topic was deleted.
    TopicDeleted,
    /// A newer connection uses the consumer.
    ConsumerTakenOver,
    /// Somebody who manages the topic has ended the subscription.
    Disconnected,
    /// The server or its engine cannot now; nothing was stored.
    Unavailable,
    /// The engine did not say in time whether the message is stored.
    Unknown,
    /// A bug.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 20] = [
        Code::BadRequest,
        Code::InvalidTopic,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::TopicNotFound,
        Code::NotFound,
        Code::PersistedQueryNotFound,
        Code::MethodNotAllowed,
        Code::TopicExists,
        Code::Conflict,
        Code::PayloadTooLarge,
        Code::RateLimited,
        Code::LimitReached,
        Code::SlowConsumer,
        Code::TopicDeleted,
        Code::ConsumerTakenOver,
        Code::Disconnected,
        Code::Unavailable,
        Code::Unknown,
        Code::Internal,
    ];

    /// The code as clients see it, and its HTTP status.
    const fn row(self) -> (&'static str, StatusCode) {
        match self {
            Code::BadRequest => ("BAD_REQUEST", StatusCode::BAD_REQUEST),
            Code::InvalidTopic => ("INVALID_TOPIC", StatusCode::BAD_REQUEST),
            Code::Unauthenticated => ("UNAUTHENTICATED", StatusCode::UNAUTHORIZED),
            Code::Forbidden => ("FORBIDDEN", StatusCode::FORBIDDEN),
            Code::TopicNotFound => ("TOPIC_NOT_FOUND", StatusCode::NOT_FOUND),
            Code::NotFound => ("NOT_FOUND", StatusCode::NOT_FOUND),
            Code::PersistedQueryNotFound => ("PERSISTED_QUERY_NOT_FOUND", StatusCode::BAD_REQUEST),
            Code::MethodNotAllowed => ("METHOD_NOT_ALLOWED", StatusCode::METHOD_NOT_ALLOWED),
            Code::TopicExists => ("TOPIC_EXISTS", StatusCode::CONFLICT),
            Code::Conflict => ("CONFLICT", StatusCode::CONFLICT),
            Code::PayloadTooLarge => ("PAYLOAD_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
            Code::RateLimited => ("RATE_LIMITED", StatusCode::TOO_MANY_REQUESTS),
            Code::LimitReached => ("LIMIT_REACHED", StatusCode::SERVICE_UNAVAILABLE),
            Code::SlowConsumer => ("SLOW_CONSUMER", StatusCode::SERVICE_UNAVAILABLE),
            Code::TopicDeleted => ("TOPIC_DELETED", StatusCode::GONE),
            Code::ConsumerTakenOver => ("CONSUMER_TAKEN_OVER", StatusCode::CONFLICT),
            Code::Disconnected => ("DISCONNECTED", StatusCode::SERVICE_UNAVAILABLE),
            Code::Unavailable => ("UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
            Code::Unknown => ("UNKNOWN", StatusCode::GATEWAY_TIMEOUT),
            Code::Internal => ("INTERNAL", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// The code as clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().1
    }
}

/// How often each code was told in this process, in the order of [`Code::ALL`].
static TOLD: [AtomicU64; Code::ALL.len()] = [const { AtomicU64::new(0) }; Code::ALL.len()];

/// How often each code was told in this process.
pub fn counted() -> impl Iterator<Item = (&'static str, u64)> {
    Code::ALL.into_iter().zip(&TOLD).map(|(code, told)| (code.as_str(), told.load(Ordering::Relaxed)))
}

/// An error as a client sees it. What it does not say (causes, addresses) goes to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Decides what the client may do.
    pub code: Code,
    /// For people; one line.
    pub message: Cow<'static, str>,
    /// When the same may be tried again.
    pub retry_after: Option<Duration>,
    /// With [`Code::Conflict`]: the newest offset of the topic, or of the key.
    pub current_offset: Option<u64>,
    /// With [`Code::Unknown`]: the id with which to publish again.
    pub id: Option<Box<str>>,
    /// The wrong input in REST's spelling, with which the message then begins.
    pub field: Option<&'static str>,
    /// Overrides the code's status.
    status: Option<StatusCode>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Problem {
    /// A problem with a code and a message.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        for (_, told) in Code::ALL.into_iter().zip(&TOLD).filter(|(known, _)| *known == code) {
            told.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            code,
            message: message.into(),
            retry_after: None,
            current_offset: None,
            id: None,
            field: None,
            status: None,
            header: None,
        }
    }

    /// The same with another status and a header: what HTTP itself asks for (405 with `Allow`, 426 with `Upgrade`).
    #[must_use]
    pub fn with_http(mut self, status: StatusCode, header: Option<(HeaderName, HeaderValue)>) -> Self {
        self.status = Some(status);
        self.header = header.map(Box::new);
        self
    }

    /// The same with the name of the wrong input as `spell` writes it.
    #[must_use]
    pub fn spelled(mut self, spell: impl Fn(&str) -> String) -> Self {
        if let Some(rest) = self.field.and_then(|field| self.message.strip_prefix(field)) {
            self.message = (self.field.map(spell).unwrap_or_default() + rest).into();
        }
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or(self.code.row().1)
    }

    /// Adds the headers that go with it to a response.
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: a retry before that would be refused again.
            headers.insert(header::RETRY_AFTER, (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).into());
        }
        if self.code == Code::Unauthenticated {
            // RFC 9110, 15.5.2: a 401 names how to authenticate.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pub-sub\""));
        }
        if let Some((name, value)) = self.header.as_deref() {
            headers.insert(name, value.clone());
        }
    }

    /// The object that says it to clients.
    #[must_use]
    pub fn object(&self) -> ErrorObject {
        ErrorObject {
            code: self.code.as_str(),
            message: self.message.clone().into_owned(),
            current_offset: self.current_offset,
            id: self.id.as_deref().map(str::to_owned),
            retry_after_ms: self.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The same object as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // An object of text and numbers can always be written.
        serde_json::to_string(&self.object()).unwrap_or_default()
    }

    /// The body of an HTTP response.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.object(), timestamp: Timestamp::now().to_string() }
    }
}

/// What is wrong.
#[derive(Serialize, ToSchema)]
pub struct ErrorObject {
    /// Stable: clients decide by it.
    code: &'static str,
    /// One line for people.
    message: String,
    /// With `CONFLICT`: the topic's newest offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_offset: Option<u64>,
    /// With `UNKNOWN`: the id with which to publish again.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// With `RATE_LIMITED`, `UNAVAILABLE` and `UNKNOWN`: milliseconds after which it may be tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// Any error.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorObject,
    /// When it happened (RFC 3339).
    timestamp: String,
}

/// How long a client is to wait before it tries again where the server cannot know it.
const SOON: Duration = Duration::from_secs(1);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let problem = |code| Problem::new(code, message.clone());
        match error {
            Error::BadRequest { field, .. } => Problem { field: Some(field), ..problem(Code::BadRequest) },
            Error::InvalidTopic(_) => problem(Code::InvalidTopic),
            Error::Unauthenticated(_) => problem(Code::Unauthenticated),
            Error::Forbidden { .. } => problem(Code::Forbidden),
            Error::TopicNotFound(_) => problem(Code::TopicNotFound),
            Error::TopicExists(_) => problem(Code::TopicExists),
            Error::ConsumerNotFound(_) | Error::SubscriptionNotFound(_) => problem(Code::NotFound),
            Error::Conflict { current } => {
                let field = Some("expected_offset");
                Problem { current_offset: Some(current), field, ..problem(Code::Conflict) }
            }
            Error::KeyConflict { current } => {
                let field = Some("expected_key_offset");
                Problem { current_offset: Some(current), field, ..problem(Code::Conflict) }
            }
            Error::PayloadTooLarge { .. } => problem(Code::PayloadTooLarge),
            Error::RateLimited { wait, .. } | Error::ClientRateLimited { wait, .. } => {
                Problem { retry_after: Some(wait), ..problem(Code::RateLimited) }
            }
            Error::LimitReached { own: true, .. } => {
                Problem { status: Some(StatusCode::TOO_MANY_REQUESTS), ..problem(Code::LimitReached) }
            }
            Error::LimitReached { own: false, .. } => problem(Code::LimitReached),
            Error::Unavailable(_) => Problem { retry_after: Some(SOON), ..problem(Code::Unavailable) },
            Error::Unknown(id) => {
                let id = Some(id.as_str().into());
                Problem { retry_after: Some(SOON), id, ..problem(Code::Unknown) }
            }
            Error::SlowConsumer => problem(Code::SlowConsumer),
            Error::TopicDeleted(_) => problem(Code::TopicDeleted),
            Error::ConsumerTakenOver(_) => problem(Code::ConsumerTakenOver),
            Error::Disconnected => problem(Code::Disconnected),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        self.add_headers(response.headers_mut());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    /// What an error does not have is left out.
    #[test]
    fn objects_have_what_the_error_has() {
        let plain = Problem::new(Code::NotFound, "no \"such\" thing");
        assert_eq!(plain.to_json(), r#"{"code":"NOT_FOUND","message":"no \"such\" thing"}"#);
        let conflict = Problem::from(Error::Conflict { current: 7 }).to_json();
        assert!(conflict.starts_with(r#"{"code":"CONFLICT","#) && conflict.ends_with(r#","current_offset":7}"#));
        let unavailable = Problem::from(Error::Unavailable("not now")).to_json();
        assert!(unavailable.ends_with(r#","retry_after_ms":1000}"#), "{unavailable}");
    }

    #[test]
    fn doors_spell_the_wrong_field() {
        let loud = |field: &str| field.to_uppercase();
        let spelled = |error: Error| Problem::from(error).spelled(loud).message;
        assert_eq!(
            spelled(Error::bad_request("max_messages", "is not max_messages")),
            "MAX_MESSAGES: is not max_messages"
        );
        assert!(spelled(Error::Conflict { current: 3 }).starts_with("EXPECTED_OFFSET: "));
        assert!(spelled(Error::KeyConflict { current: 3 }).starts_with("EXPECTED_KEY_OFFSET: "));
        assert_eq!(spelled(Error::Unavailable("not now")), "not now");
    }

    #[test]
    fn waits_are_rounded_up() {
        let error = Error::RateLimited { per_second: 100, wait: Duration::from_millis(10) };
        let response = Problem::from(error).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
