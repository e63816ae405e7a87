//! GraphQL over HTTP, to the letter of its specification: what may be asked how, in which form it is answered, and with
//! which status.

use async_graphql::{ServerError, Variables};
use async_graphql_axum::GraphQLProtocol;
use std::borrow::Cow;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Query as UrlQuery, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body::Body as _;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{
    Door,
    accept::{self, Form},
    document::{ErrorKind, OperationKind},
    execute::Asked,
    json, page, single, stream, ws,
};
use crate::{
    broker::{Inbox, Start},
    problem::{Code, Problem},
    socket::Upgrade,
    streaming,
    wire::{self, Fields},
};

/// Forms of a single result, best first. Clients that say nothing get what they all read.
const SINGLE: [Form; 2] = [Form::Json, Form::GraphqlResponse];
/// Forms of a stream.
const STREAMS: [Form; 2] = [Form::EventStream, Form::Multipart];

const ALL: [Form; 4] = [Form::Json, Form::GraphqlResponse, Form::EventStream, Form::Multipart];

/// A WebSocket at `/graphql/ws`.
pub async fn upgrade(State(door): State<Door>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    websocket(&door, &mut parts).await
}

async fn websocket(door: &Door, parts: &mut Parts) -> Response {
    let known = GraphQLProtocol::from_request_parts(parts, &()).await.is_ok();
    match Upgrade::from_request_parts(parts, &()).await {
        Ok(upgrade) => ws::accept(door, upgrade, known),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// `GET /graphql`: a WebSocket, a page, or a query in the address.
pub async fn get(State(door): State<Door>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    if parts.headers.contains_key(header::UPGRADE) {
        return websocket(&door, &mut parts).await;
    }
    let pairs = UrlQuery::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|UrlQuery(pairs)| pairs);
    let pairs = pairs.unwrap_or_default();
    let parameter = |name: &str| {
        let found = pairs.iter().rev().find(|(known, _)| known == name);
        // An empty parameter is an absent one.
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    let token = single::token(&parts.headers, parameter("token"));
    let query = parameter("query");
    if query.is_none() && ["extensions", "documentId"].into_iter().all(|name| parameter(name).is_none()) {
        if let Some(token) = token.filter(|_| accept::best(&parts.headers, &[Form::EventStream]).is_some()) {
            return connect(&door, &parts.headers, &token);
        }
        if accept::best(&parts.headers, &[Form::Json, Form::Html]) == Some(Form::Html) {
            return page::page(&parts.headers);
        }
        return refuse(&parts.headers, StatusCode::UNPROCESSABLE_ENTITY, "query: is missing");
    }
    let object = |name: &'static str| {
        let text = parameter(name).unwrap_or_else(|| "null".to_owned());
        let wrong = |status| (status, format!("{name}: must be a JSON object"));
        let raw: Box<RawValue> = serde_json::from_str(text.trim()).map_err(|_| wrong(Code::BadRequest.status()))?;
        let is_object = raw.get() == "null" || raw.get().starts_with('{');
        if is_object { Ok(raw) } else { Err(wrong(StatusCode::UNPROCESSABLE_ENTITY)) }
    };
    let read = || -> Result<Asked, (StatusCode, String)> {
        let refused = |refusal: Unread| (StatusCode::UNPROCESSABLE_ENTITY, refusal.message);
        let extensions = object("extensions")?;
        let extensions = if extensions.get() == "null" {
            Extensions::default()
        } else {
            read_extensions(extensions.get()).map_err(refused)?
        };
        let variables = object("variables")?;
        let variables = json::read_variables(variables.get()).map_err(|message| refused(Unread::content(message)))?;
        asked(query, parameter("documentId"), parameter("operationName"), variables, extensions).map_err(refused)
    };
    let asked = match read() {
        Ok(asked) => asked,
        Err((status, message)) => return refuse(&parts.headers, status, &message),
    };
    if let Some(token) = token {
        return over_stream(&door, &parts.headers, &token, asked, true).await;
    }
    let resumed = wire::LAST_EVENT_ID_PARAMETERS.into_iter().find_map(parameter);
    answer(&door, &parts.headers, asked, true, resumed.as_deref()).await
}

/// `POST /graphql`: one request as a JSON object, or several as an array.
pub async fn post(State(door): State<Door>, request: Request) -> Response {
    let headers = request.headers().clone();
    let token = single::token(&headers, url_parameter(&request, "token"));
    let resumed = wire::LAST_EVENT_ID_PARAMETERS.iter().find_map(|name| url_parameter(&request, name));
    if let Some(token) = &token
        && request.body().is_end_stream()
        && accept::named(&headers, &[Form::EventStream]).is_some()
    {
        return connect(&door, &headers, token);
    }
    if !is_json(&headers) {
        // Browsers send other types across sites without asking: refusing them is what keeps forged requests out.
        let message = "content-type: must be application/json in UTF-8";
        return refuse(&headers, StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    }
    let body = match timeout(door.context.request_timeout, Bytes::from_request(request, &())).await {
        Err(_) => return refuse(&headers, StatusCode::REQUEST_TIMEOUT, "body: took too long to arrive"),
        Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return refuse(&headers, StatusCode::PAYLOAD_TOO_LARGE, "body: is too large (MAX_BODY_BYTES)");
        }
        Ok(Err(_)) => return refuse(&headers, Code::BadRequest.status(), "body: could not be read"),
        Ok(Ok(body)) => body,
    };
    let Ok(text) = std::str::from_utf8(&body) else {
        return refuse(&headers, Code::BadRequest.status(), "body: must be UTF-8");
    };
    if text.trim_start().starts_with('[') {
        if token.is_some() {
            return refuse(&headers, Code::BadRequest.status(), "body: a batch has no place on a stream");
        }
        return match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(items) => batch(&door, &headers, &items).await,
            Err(error) => refuse(&headers, Code::BadRequest.status(), &format!("body: must be JSON ({error})")),
        };
    }
    match (read(text), token) {
        (Ok(asked), Some(token)) => over_stream(&door, &headers, &token, asked, false).await,
        (Ok(asked), None) => answer(&door, &headers, asked, false, resumed.as_deref()).await,
        // A request that cannot be read as JSON is told apart from one that is no request.
        (Err(refusal), _) => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => refuse(&headers, StatusCode::UNPROCESSABLE_ENTITY, &refusal.message),
            Err(_) => refuse(&headers, Code::BadRequest.status(), &refusal.message),
        },
    }
}

/// `PUT /graphql`: reserves a stream of the single-connection mode.
pub async fn put(State(door): State<Door>, request: Request) -> Response {
    match door.streams.reserve(&door.context, door.settings.connection_init_timeout) {
        Ok(token) => {
            // Also where requests will have it: a proxy learns from it which instance a stream's requests belong to.
            (StatusCode::CREATED, [(single::TOKEN, token.clone())], token).into_response()
        }
        Err(problem) => refuse_with(request.headers(), &problem),
    }
}

/// `DELETE /graphql`: stops an operation on a stream of the single-connection mode.
pub async fn delete(State(door): State<Door>, request: Request) -> Response {
    let headers = request.headers();
    match (single::token(headers, url_parameter(&request, "token")), url_parameter(&request, "operationId")) {
        (Some(token), Some(id)) => match door.streams.stop(&token, &id) {
            Ok(()) => StatusCode::OK.into_response(),
            Err(problem) => refuse_with(headers, &problem),
        },
        _ => refuse(headers, Code::BadRequest.status(), "a token and operationId are needed"),
    }
}

/// A parameter of the address; an empty one is an absent one.
fn url_parameter(request: &Request, name: &str) -> Option<String> {
    let pairs = UrlQuery::<Vec<(String, String)>>::try_from_uri(request.uri()).map(|UrlQuery(pairs)| pairs);
    let mut pairs = pairs.unwrap_or_default().into_iter().rev();
    pairs.find(|(known, _)| known == name).map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// Answers with the stream of the single-connection mode.
fn connect(door: &Door, headers: &HeaderMap, token: &str) -> Response {
    door.streams.connect(token, &door.context).unwrap_or_else(|problem| refuse_with(headers, &problem))
}

/// Executes a request whose results come over a reserved stream.
async fn over_stream(door: &Door, headers: &HeaderMap, token: &str, mut asked: Asked, by_get: bool) -> Response {
    let id = asked.operation_id.take();
    let prepared = door.executor.prepare(asked);
    if by_get && matches!(&prepared, Ok(prepared) if prepared.kind == OperationKind::Mutation) {
        return mutation_by_get(headers);
    }
    // The protocol has request errors answered as without a stream, so a client that names a form gets them in it. One that
    // names none is npm graphql-sse: it takes any status but 202 for a fault of the network and asks again, so it is told
    // where it listens.
    let form = accept::named(headers, &SINGLE);
    let most = door.settings.max_operations;
    match door.streams.execute(&door.executor, token, id.as_deref(), prepared, form.is_some(), most).await {
        Ok(None) => StatusCode::ACCEPTED.into_response(),
        Ok(Some(errors)) => request_error(form.unwrap_or(Form::GraphqlResponse), &errors),
        Err(problem) => refuse_with(headers, &problem),
    }
}

fn mutation_by_get(headers: &HeaderMap) -> Response {
    let mut response = refuse(headers, StatusCode::METHOD_NOT_ALLOWED, "a mutation needs POST");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

/// Why a request could not be read.
#[derive(Debug)]
pub struct Unread {
    /// What is wrong, naming the parameter.
    pub message: String,
    /// Whether it has not the form of a request: a protocol that says what a request is does not take it as one.
    pub malformed: bool,
}

impl Unread {
    fn form(message: impl Into<String>) -> Self {
        Self { message: message.into(), malformed: true }
    }

    fn content(message: impl Into<String>) -> Self {
        Self { message: message.into(), malformed: false }
    }
}

/// One request as the specification writes it, from JSON text.
///
/// # Errors
/// What is wrong, naming the parameter.
pub fn read(text: &str) -> Result<Asked, Unread> {
    let fields = Fields::parse("body", text).map_err(|error| Unread::form(error.to_string()))?;
    let query = string(&fields, "", "query")?;
    let document = string(&fields, "", "documentId")?;
    let operation = string(&fields, "", "operationName")?.filter(|name| !name.is_empty());
    let extensions = fields.present("extensions").map(|extensions| read_extensions(extensions.get())).transpose()?;
    let variables = fields.present("variables").map_or("null", RawValue::get);
    let variables = json::read_variables(variables)
        .map_err(|message| Unread { message, malformed: !matches!(variables.as_bytes().first(), Some(b'{' | b'n')) })?;
    asked(query, document, operation, variables, extensions.unwrap_or_default())
}

/// A string of an object that stands in `path`. One that is a string and yet no text is of the right form.
fn string(fields: &Fields<'_>, path: &str, name: &'static str) -> Result<Option<String>, Unread> {
    let text = fields.text(name).map(|text| text.map(Cow::into_owned));
    text.map_err(|error| match fields.raw(name) {
        Some(value) if value.get().starts_with('"') => {
            Unread::content(format!("{path}{name}: must not hold half of a surrogate pair"))
        }
        _ => Unread::form(format!("{path}{error}")),
    })
}

/// What this service reads of a request's extensions.
#[derive(Default)]
struct Extensions {
    /// The hash of a persisted document.
    hash: Option<String>,
    /// The operation's id on a single-connection event stream.
    operation_id: Option<String>,
    /// What the client calls the ping that is to tell it that its subscription stands.
    ack: Option<String>,
    /// Whether every result is to carry the position to resume after.
    with_cursors: bool,
}

/// Reads a request's extensions. That they are an object is their form; what they hold is each extension's own.
fn read_extensions(text: &str) -> Result<Extensions, Unread> {
    const PATH: &str = "extensions.";
    let fields = Fields::parse("extensions", text).map_err(|_| Unread {
        message: "extensions: must be an object".to_owned(),
        malformed: !text.starts_with('{'),
    })?;
    let own = |unread: Unread| Unread::content(unread.message);
    let persisted = fields.present("persistedQuery").map(|persisted| {
        Fields::parse("extensions", persisted.get())
            .map_err(|_| Unread::content("extensions.persistedQuery: must be an object"))
    });
    let persisted = persisted.transpose()?;
    let hash = persisted.map(|persisted| string(&persisted, "extensions.persistedQuery.", "sha256Hash"));
    let guarantee = string(&fields, PATH, "delivery-guarantee").map_err(own)?;
    if guarantee.as_ref().is_some_and(|guarantee| guarantee != "cursor") {
        return Err(Unread::content("extensions.delivery-guarantee: must be \"cursor\""));
    }
    Ok(Extensions {
        hash: hash.transpose().map_err(own)?.flatten(),
        operation_id: string(&fields, PATH, "operationId").map_err(own)?,
        ack: string(&fields, PATH, "ack").map_err(own)?,
        with_cursors: guarantee.is_some(),
    })
}

fn asked(
    query: Option<String>,
    document: Option<String>,
    operation: Option<String>,
    variables: Variables,
    extensions: Extensions,
) -> Result<Asked, Unread> {
    let Extensions { hash, operation_id, ack, with_cursors } = extensions;
    // The identifier of the specification, which is a hash here whether it says so or not.
    let document = document.filter(|id| !id.is_empty());
    let document = document.map(|id| id.strip_prefix("sha256:").map(str::to_owned).unwrap_or(id));
    if let (Some(document), Some(hash)) = (&document, &hash)
        && document != hash
    {
        return Err(Unread::content("documentId: is not the hash in extensions.persistedQuery"));
    }
    let hash = document.or(hash);
    if query.is_none() && hash.is_none() {
        return Err(Unread::form("query: is missing"));
    }
    Ok(Asked { query, hash, operation, variables, operation_id, ack, with_cursors })
}

/// Answers one request.
async fn answer(door: &Door, headers: &HeaderMap, asked: Asked, by_get: bool, resumed: Option<&str>) -> Response {
    // A client that would rather have a stream gets one, also of a single result.
    let single = accept::best(headers, &ALL).filter(|form| SINGLE.contains(form));
    let streaming = accept::best(headers, &STREAMS);
    let prepared = match door.executor.prepare(asked) {
        Ok(prepared) => prepared,
        // A client that accepts only a stream reads its errors there.
        Err(errors) => {
            return match (single, streaming) {
                (Some(form), _) => request_error(form, &errors),
                (None, Some(form)) => stream::refused(form, &errors),
                (None, None) => not_acceptable(),
            };
        }
    };
    match prepared.kind {
        OperationKind::Subscription => {
            let explicit = headers.get_all(header::ACCEPT).into_iter().any(|value| {
                value.to_str().is_ok_and(|value| value.contains("event-stream") || value.contains("multipart"))
            });
            let Some(form) = streaming.filter(|_| explicit) else {
                let message = "a subscription needs a WebSocket, or Accept: text/event-stream or multipart/mixed";
                return refuse(headers, Code::BadRequest.status(), message);
            };
            // One that cannot be read is not ignored: what was missed would be lost without a word.
            let header = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?"));
            let resume = header.filter(|id| !id.is_empty()).or(resumed);
            let resume = resume.map(|id| wire::parse_position("Last-Event-ID", id)).transpose();
            match resume {
                Ok(resume) => subscribe(door, form, prepared, resume).await,
                Err(error) => refuse(headers, Code::BadRequest.status(), &error.to_string()),
            }
        }
        OperationKind::Mutation if by_get => mutation_by_get(headers),
        OperationKind::Query | OperationKind::Mutation => {
            let (response, executed) = match (single, streaming) {
                (None, None) => return not_acceptable(),
                _ => door.executor.single(&prepared).await,
            };
            match (single, streaming, executed) {
                (Some(form), _, true) => {
                    respond(form, executed_status(&response), json::write_response(&response, true))
                }
                (Some(form), _, false) => request_error(form, &response.errors),
                (None, Some(form), true) => stream::once(form, &json::write_response(&response, true)),
                (None, form, false) => stream::refused(form.unwrap_or(Form::EventStream), &response.errors),
                (None, None, true) => not_acceptable(),
            }
        }
    }
}

async fn subscribe(door: &Door, form: Form, prepared: super::execute::Prepared, resume: Option<Start>) -> Response {
    let inbox = Inbox::default();
    match door.executor.open(prepared, &inbox, 0, resume).await {
        Ok(operation) => {
            let source = stream::Results::new(operation, form);
            let context = &door.context;
            stream::response(form, streaming::body(source, inbox, context.heartbeat, context.sockets.stop.clone(), ()))
        }
        Err(errors) => stream::refused(form, &errors),
    }
}

/// Answers several requests in their order. Subscriptions have no place in a list.
async fn batch(door: &Door, headers: &HeaderMap, items: &[&RawValue]) -> Response {
    let Some(form) = accept::best(headers, &SINGLE) else { return not_acceptable() };
    let limit = door.settings.max_batch;
    if items.is_empty() || items.len() > limit {
        let message = format!("body: a batch must have 1 to {limit} requests");
        return refuse(headers, Code::BadRequest.status(), &message);
    }
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        let error = |message: String| vec![ServerError::new(message, None)];
        let prepared =
            read(item.get()).map_err(|refusal| error(refusal.message)).and_then(|asked| door.executor.prepare(asked));
        results.push(match prepared {
            Ok(prepared) if prepared.kind == OperationKind::Subscription => {
                errors_only(&error("a subscription cannot be part of a batch".to_owned()))
            }
            Ok(prepared) => {
                let (response, executed) = door.executor.single(&prepared).await;
                json::write_response(&response, executed)
            }
            Err(errors) => errors_only(&errors),
        });
    }
    respond(form, StatusCode::OK, format!("[{}]", results.join(",")))
}

/// A result that has only errors.
pub fn errors_only(errors: &[ServerError]) -> String {
    let mut result = r#"{"errors":"#.to_owned();
    json::write_errors(&mut result, errors);
    result.push('}');
    result
}

/// Answers a request that was well-formed and yet refused before execution: 400 where the document cannot be parsed, else
/// 422.
pub fn request_error(form: Form, errors: &[ServerError]) -> Response {
    let unparsed = errors.iter().any(|error| error.source::<ErrorKind>() == Some(&ErrorKind::Syntax));
    let status = if unparsed { Code::BadRequest.status() } else { StatusCode::UNPROCESSABLE_ENTITY };
    respond(form, status, errors_only(errors))
}

/// The status of a result: 294 says that it has data and errors.
fn executed_status(response: &async_graphql::Response) -> StatusCode {
    if response.errors.is_empty() { StatusCode::OK } else { StatusCode::from_u16(294).unwrap_or(StatusCode::OK) }
}

fn respond(form: Form, status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, form.content_type())], Body::from(body)).into_response()
}

/// Refuses a request that was not well-formed, or not to be served at all.
fn refuse(headers: &HeaderMap, status: StatusCode, message: &str) -> Response {
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        _ => Code::BadRequest,
    };
    refuse_with(headers, &Problem::new(code, message.to_owned()).with_http(status, None))
}

fn refuse_with(headers: &HeaderMap, problem: &Problem) -> Response {
    let error = super::types::problem(problem);
    let error = ServerError { locations: Vec::new(), ..error.into_server_error(async_graphql::Pos::default()) };
    let form = accept::best(headers, &SINGLE).unwrap_or(Form::Json);
    respond(form, problem.status(), errors_only(&[error]))
}

fn not_acceptable() -> Response {
    refuse(&HeaderMap::new(), StatusCode::NOT_ACCEPTABLE, "accept: names no form that this service can answer in")
}
