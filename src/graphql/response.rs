//! Responses over HTTP that are not streams.

use std::borrow::Cow;

use async_graphql::{Pos, ServerError};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    accept::{self, Form, SINGLE},
    document::ErrorKind,
    json,
};
use crate::problem::{Code, Problem};

/// A result that has only errors.
pub fn errors_only(errors: &[ServerError]) -> String {
    let mut result = r#"{"errors":"#.to_owned();
    json::write_errors(&mut result, errors);
    result.push('}');
    result
}

/// The response to a request that was well-formed and yet refused before execution: 400 if the document cannot be parsed,
/// otherwise 422.
pub fn request_error(form: Form, errors: &[ServerError]) -> Response {
    let unparsed = errors.iter().any(|error| error.source::<ErrorKind>() == Some(&ErrorKind::Syntax));
    let status = if unparsed { Code::BadRequest.status() } else { StatusCode::UNPROCESSABLE_ENTITY };
    respond(form, status, errors_only(errors))
}

/// The status of a result. 294 says that it has data and errors.
pub fn executed_status(has_errors: bool) -> StatusCode {
    if has_errors { StatusCode::from_u16(294).unwrap_or(StatusCode::OK) } else { StatusCode::OK }
}

/// A response with this body.
pub fn respond(form: Form, status: StatusCode, body: String) -> Response {
    // The same address serves other forms to other clients, and caches must not mix them up.
    let content_type = HeaderValue::from_static(form.content_type());
    let headers = [(header::CONTENT_TYPE, content_type), (header::VARY, HeaderValue::from_static("accept"))];
    (status, headers, Body::from(body)).into_response()
}

/// Refuses a request that was not well-formed, or that is not served at all, in a form that the client accepts.
#[must_use]
pub fn refuse(headers: &HeaderMap, problem: &Problem) -> Response {
    let error = super::types::problem(problem).into_server_error(Pos::default());
    let error = ServerError { locations: Vec::new(), ..error };
    let form = accept::best(headers, &SINGLE).unwrap_or(Form::Json);
    let mut response = respond(form, problem.status(), errors_only(&[error]));
    problem.add_headers(response.headers_mut());
    response
}

/// What is wrong with JSON that is not a GraphQL request. The message names it.
pub fn not_a_request(message: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Code::BadRequest, message).with_http(StatusCode::UNPROCESSABLE_ENTITY, None)
}

/// Refuses a request that was malformed. The message names what is wrong.
pub fn malformed(headers: &HeaderMap, message: impl Into<Cow<'static, str>>) -> Response {
    refuse(headers, &Problem::new(Code::BadRequest, message))
}

/// Refuses a request whose client accepts none of the forms that there are.
pub fn not_acceptable() -> Response {
    let message = "accept: names no form in which this service can respond";
    refuse(&HeaderMap::new(), &Problem::new(Code::BadRequest, message).with_http(StatusCode::NOT_ACCEPTABLE, None))
}
