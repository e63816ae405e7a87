//! Results as a stream over HTTP: server-sent events (the distinct-connections mode of GraphQL over SSE), and
//! `multipart/mixed` as Apollo's clients read it.

use async_graphql::ServerError;
use axum::response::Response;

use super::{accept::Form, operation::Operation, response::errors_only};
use crate::{
    broker::{AnyCursor, Event},
    event_stream::{self, ServerSentEvent},
    streaming::{self, StreamContent, StreamFlow},
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

impl StreamContent for Results {
    fn deliver(&mut self, _: u64, out: &mut Vec<u8>) -> StreamFlow {
        if !std::mem::replace(&mut self.begun, true) {
            begin(self.form, Some(self.operation.begins_at()), out);
        }
        let form = self.form;
        let ended = self.operation.deliver(&mut self.events, |result, cursor| {
            next(form, result, cursor.as_ref(), out);
        });
        match ended {
            Some(last) => {
                next(form, &last, None, out);
                end(form, out);
                StreamFlow::End
            }
            None => StreamFlow::Go,
        }
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) {
        match self.form {
            Form::Multipart => part(&[b"{}"], out),
            _ => event_stream::heartbeat(out),
        }
    }

    fn taken(&mut self) {
        self.operation.delivered();
    }
}

/// What shows a client that its subscription is open.
fn begin(form: Form, begins_at: Option<&AnyCursor>, out: &mut Vec<u8>) {
    match (form, begins_at) {
        (Form::Multipart, _) => out.extend_from_slice(b"--graphql"),
        (_, Some(cursor)) => event_stream::subscribed(out, cursor),
        (_, None) => event_stream::heartbeat(out),
    }
}

fn next(form: Form, result: &[u8], cursor: Option<&AnyCursor>, out: &mut Vec<u8>) {
    if form == Form::Multipart {
        return part(&[br#"{"payload":"#, result, b"}"], out);
    }
    let id = cursor.map(|cursor| cursor as &dyn std::fmt::Display);
    ServerSentEvent { id, name: "next", data: &[result] }.write(out);
}

/// The delimiter is written right after each part, because a client shows a part when it sees the next delimiter.
fn part(body: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\ncontent-type: application/json; charset=utf-8\r\n\r\n");
    for piece in body {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n--graphql");
}

fn end(form: Form, out: &mut Vec<u8>) {
    match form {
        Form::Multipart => out.extend_from_slice(b"--\r\n"),
        _ => ServerSentEvent { id: None, name: "complete", data: &[] }.write(out),
    }
}

/// A stream of one result: a query or mutation of a client that reads only streams.
pub fn once(form: Form, result: &str) -> Response {
    let mut out = Vec::new();
    begin(form, None, &mut out);
    next(form, result.as_bytes(), None, &mut out);
    end(form, &mut out);
    streaming::response(form.content_type(), out.into())
}

/// A stream that has only the errors for which there are no results.
pub fn refused(form: Form, errors: &[ServerError]) -> Response {
    once(form, &errors_only(errors))
}
