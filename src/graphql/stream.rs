//! Results as a stream over HTTP: server-sent events (the distinct-connections mode of GraphQL over SSE), and
//! `multipart/mixed` as Apollo's clients read it.

use async_graphql::ServerError;
use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{accept::Form, execute::Operation, http::errors_only};
use crate::{
    broker::{AnyCursor, Event},
    streaming::{Flow, Source},
};

/// The results of one subscription.
pub struct Results {
    operation: Operation,
    form: Form,
    begun: bool,
    events: Vec<Event>,
}

impl Results {
    pub fn new(operation: Operation, form: Form) -> Self {
        Self { operation, form, begun: false, events: Vec::new() }
    }
}

impl Source for Results {
    fn deliver(&mut self, _: u64, out: &mut Vec<u8>) -> Flow {
        if !std::mem::replace(&mut self.begun, true) {
            begin(self.form, Some(self.operation.begins_at()), out);
        }
        let form = self.form;
        let ended = self.operation.deliver(&mut self.events, |result, cursor| next(form, result, cursor, out));
        match ended {
            Some(last) => {
                next(form, &last, None, out);
                end(form, out);
                Flow::End
            }
            None => Flow::Go,
        }
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) {
        match self.form {
            Form::Multipart => part(b"{}", out),
            _ => out.extend_from_slice(b":\n\n"),
        }
    }

    fn taken(&mut self) {
        if self.operation.mark_in_flight() {
            self.operation.acknowledge_in_flight();
        }
    }
}

/// What shows that the subscription stands.
fn begin(form: Form, begins_at: Option<&AnyCursor>, out: &mut Vec<u8>) {
    match (form, begins_at) {
        (Form::Multipart, _) => out.extend_from_slice(b"--graphql"),
        (_, Some(cursor)) => out.extend_from_slice(format!(": subscribed {cursor}\n\n").as_bytes()),
        (_, None) => out.extend_from_slice(b":\n\n"),
    }
}

fn next(form: Form, result: &[u8], cursor: Option<AnyCursor>, out: &mut Vec<u8>) {
    if form == Form::Multipart {
        return part(&[br#"{"payload":"#, result, b"}"].concat(), out);
    }
    out.extend_from_slice(b"event: next\n");
    if let Some(cursor) = cursor {
        out.extend_from_slice(format!("id: {cursor}\n").as_bytes());
    }
    for piece in [b"data: ", result, b"\n\n"] {
        out.extend_from_slice(piece);
    }
}

/// The delimiter stands right after each part: a client shows a part when it sees the next delimiter.
fn part(body: &[u8], out: &mut Vec<u8>) {
    for piece in [b"\r\ncontent-type: application/json; charset=utf-8\r\n\r\n", body, b"\r\n--graphql"] {
        out.extend_from_slice(piece);
    }
}

fn end(form: Form, out: &mut Vec<u8>) {
    match form {
        Form::Multipart => out.extend_from_slice(b"--\r\n"),
        _ => out.extend_from_slice(b"event: complete\ndata:\n\n"),
    }
}

/// A stream of one result: a query or mutation of a client that reads only streams.
pub fn once(form: Form, result: &str) -> Response {
    let mut out = Vec::new();
    begin(form, None, &mut out);
    next(form, result.as_bytes(), None, &mut out);
    end(form, &mut out);
    response(form, out.into())
}

/// A stream that only says why there is none.
pub fn refused(form: Form, errors: &[ServerError]) -> Response {
    once(form, &errors_only(errors))
}

/// The response of a stream.
pub fn response(form: Form, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), form.content_type()),
        (header::CACHE_CONTROL.as_str(), "no-cache"),
        // nginx buffers answers unless told otherwise, which would hold results back.
        ("x-accel-buffering", "no"),
    ];
    (StatusCode::OK, headers, body).into_response()
}
