//! GraphQL over HTTP, to the letter of its specification: which requests are served, in which form the response is written,
//! and with which status.

use std::borrow::Cow;

use async_graphql::ServerError;
use async_graphql_axum::GraphQLProtocol;
use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use http_body::Body as _;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{
    Door,
    accept::{self, ALL, Form, SINGLE, STREAMS},
    document::OperationKind,
    execute::{Outcome, Prepared},
    request::{Asked, Extensions, Unread, Unresolved, read_extensions},
    response::{
        errors_only, executed_status, malformed, not_a_request, not_acceptable, refuse, request_error, respond,
    },
    single, stream, ws,
};
use crate::{
    access::Visitor,
    body,
    broker::{Client, Inbox, Start},
    headers, pages,
    problem::{Code, Problem},
    query_string,
    socket::Upgrade,
    streaming, wire,
};

/// A WebSocket at `/graphql/ws`.
pub async fn upgrade(State(door): State<Door>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    websocket(&door, &mut parts).await
}

async fn websocket(door: &Door, parts: &mut Parts) -> Response {
    let client = match Visitor::of(parts).connecting() {
        Ok(client) => client,
        Err(problem) => return refuse(&parts.headers, &problem),
    };
    let known = offers_graphql(parts).await;
    match Upgrade::from_request_parts(parts, &()).await {
        Ok(upgrade) => ws::accept(door, client, upgrade, known),
        Err(error) => error.into_response(),
    }
}

/// Whether the client offers a subprotocol of GraphQL. The extractor of async-graphql-axum reads one line of the header, so
/// it is given all of them as one.
async fn offers_graphql(parts: &mut Parts) -> bool {
    let offered: Vec<_> = headers::items(&parts.headers, "sec-websocket-protocol").collect();
    let Ok(line) = HeaderValue::try_from(offered.join(",")) else { return false };
    parts.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, line);
    GraphQLProtocol::from_request_parts(parts, &()).await.is_ok()
}

/// `GET /graphql`: a WebSocket, a page, or a query in the address.
pub async fn get(State(door): State<Door>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    // A wish for another protocol, such as `h2c`, is no reason not to serve the request (RFC 9110, 7.8).
    if Upgrade::is_asked_for(&parts) {
        return websocket(&door, &mut parts).await;
    }
    let is_head = parts.method == Method::HEAD;
    let pairs = match query_string::parameters(&parts.uri) {
        Ok(pairs) => pairs,
        Err(error) => return malformed(&parts.headers, error.to_string()),
    };
    let parameter = |name: &str| parameter(&pairs, name);
    let query = parameter("query");
    let asks_nothing =
        query.is_none() && ["extensions", "documentId"].into_iter().all(|name| parameter(name).is_none());
    let wants_stream = accept::best(&parts.headers, &[Form::EventStream]).is_some() && parameter("token").is_some();
    // The page is the same for everybody, and one can sign in there.
    if asks_nothing && !wants_stream && accept::best(&parts.headers, &[Form::Json, Form::Html]) == Some(Form::Html) {
        return pages::graphql(&parts.headers);
    }
    let client = match Visitor::of(&parts).client() {
        Ok(client) => client,
        Err(problem) => return refuse(&parts.headers, &problem),
    };
    let token = match single::token(&parts.headers, parameter("token")) {
        Ok(token) => token,
        Err(error) => return malformed(&parts.headers, error.to_string()),
    };
    if asks_nothing {
        if let Some(token) = token.filter(|_| accept::best(&parts.headers, &[Form::EventStream]).is_some()) {
            return connect(&door, &client, &parts.headers, &token, is_head);
        }
        return refuse(&parts.headers, &not_a_request("query: is missing"));
    }
    let object = |name: &'static str| {
        let text = parameter(name).unwrap_or_else(|| "null".to_owned());
        let wrong = || format!("{name}: must be a JSON object");
        let raw: Box<RawValue> =
            serde_json::from_str(text.trim()).map_err(|_| Problem::new(Code::BadRequest, wrong()))?;
        let is_object = raw.get() == "null" || raw.get().starts_with('{');
        if is_object { Ok(raw) } else { Err(not_a_request(wrong())) }
    };
    let read = || -> Result<Asked, Problem> {
        let refused = |unread: Unread| not_a_request(unread.message);
        let extensions = object("extensions")?;
        let extensions = if extensions.get() == "null" {
            Extensions::default()
        } else {
            read_extensions(extensions.get()).map_err(refused)?
        };
        let variables = object("variables")?;
        let request = Unresolved {
            query: query.map(Cow::Owned),
            document: parameter("documentId").map(Cow::Owned),
            operation: parameter("operationName").map(Cow::Owned),
            variables: variables.get(),
            extensions,
        };
        door.executor.read(request, &client).map_err(refused)
    };
    let asked = match read() {
        Ok(asked) => asked,
        Err(problem) => return refuse(&parts.headers, &problem),
    };
    // HEAD is safe, so it sends nothing over a stream.
    if let Some(token) = token.filter(|_| !is_head) {
        return over_stream(&door, &client, &parts.headers, &token, asked, true).await;
    }
    let resumed = wire::LAST_EVENT_ID_PARAMETERS.into_iter().find_map(parameter);
    let sent = Sent { client: &client, method: &parts.method, headers: &parts.headers };
    respond_to(&door, sent, asked, resumed.as_deref()).await
}

/// `POST /graphql`: one request as a JSON object, or several as an array.
pub async fn post(State(door): State<Door>, visitor: Visitor, request: Request) -> Response {
    let headers = needed_headers(request.headers());
    let client = match visitor.client() {
        Ok(client) => client,
        Err(problem) => return refuse(&headers, &problem),
    };
    let parameters = query_string::parameters(request.uri()).unwrap_or_default();
    let token = match single::token(request.headers(), parameter(&parameters, "token")) {
        Ok(token) => token,
        Err(error) => return malformed(&headers, error.to_string()),
    };
    let resumed = wire::LAST_EVENT_ID_PARAMETERS.iter().find_map(|name| parameter(&parameters, name));
    if let Some(token) = &token
        && request.body().is_end_stream()
        && accept::named(&headers, &[Form::EventStream]).is_some()
    {
        return connect(&door, &client, &headers, token, false);
    }
    if let Err(problem) = check_json(request.headers()) {
        return refuse(&headers, &problem);
    }
    let body = body::read(request, door.context.request_timeout).await;
    let text = match body.as_ref().map_err(Problem::clone).and_then(body::text) {
        Ok(text) => text,
        Err(problem) => return refuse(&headers, &problem),
    };
    if text.trim_start().starts_with('[') {
        if token.is_some() {
            return refuse(&headers, &not_a_request("body: a batch cannot be sent to a stream"));
        }
        return match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(items) => Box::pin(batch(&door, &client, &headers, &items)).await,
            Err(error) => malformed(&headers, format!("body: must be JSON ({error})")),
        };
    }
    match (read(&door, &client, text), token) {
        (Ok(asked), Some(token)) => Box::pin(over_stream(&door, &client, &headers, &token, asked, false)).await,
        (Ok(asked), None) => {
            let sent = Sent { client: &client, method: &Method::POST, headers: &headers };
            respond_to(&door, sent, asked, resumed.as_deref()).await
        }
        // JSON that is not a request has another status than a body that is not JSON.
        (Err(unread), _) => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => refuse(&headers, &not_a_request(unread.message)),
            Err(_) => malformed(&headers, unread.message),
        },
    }
}

/// Reads one request.
fn read(door: &Door, client: &Client, text: &str) -> Result<Asked, Unread> {
    door.executor.read(Unresolved::read(text)?, client)
}

/// `PUT /graphql`: reserves a stream of the single-connection mode.
pub async fn put(State(door): State<Door>, visitor: Visitor, request: Request) -> Response {
    match visitor.client().and_then(|client| door.streams.reserve(&door.context, &door.settings, &client)) {
        Ok(token) => {
            // Also in the header in which requests will have it: a proxy learns from it which instance they belong to.
            (StatusCode::CREATED, [(single::TOKEN, token.clone())], token).into_response()
        }
        Err(problem) => refuse(request.headers(), &problem),
    }
}

/// `DELETE /graphql`: stops an operation on a stream of the single-connection mode.
pub async fn delete(State(door): State<Door>, visitor: Visitor, request: Request) -> Response {
    let headers = request.headers();
    let client = match visitor.client() {
        Ok(client) => client,
        Err(problem) => return refuse(headers, &problem),
    };
    let parameters = query_string::parameters(request.uri()).unwrap_or_default();
    match (single::token(headers, parameter(&parameters, "token")), parameter(&parameters, "operationId")) {
        (Err(error), _) => malformed(headers, error.to_string()),
        (Ok(Some(token)), Some(id)) => match door.streams.stop(&client, &token, &id) {
            Ok(()) => StatusCode::OK.into_response(),
            Err(problem) => refuse(headers, &problem),
        },
        _ => malformed(headers, "a token and operationId are needed"),
    }
}

/// The headers that are needed once the body was read: reading it takes the request.
fn needed_headers(headers: &HeaderMap) -> HeaderMap {
    let mut needed = HeaderMap::new();
    for name in [header::ACCEPT, HeaderName::from_static("last-event-id")] {
        for value in headers.get_all(&name) {
            // One that accepts anything says as much as none.
            if value != "*/*" || name != header::ACCEPT || headers.get_all(&name).iter().nth(1).is_some() {
                needed.append(name.clone(), value.clone());
            }
        }
    }
    needed
}

/// A parameter of the address, the last one of the name; an empty one is an absent one.
fn parameter(parameters: &[(String, String)], name: &str) -> Option<String> {
    let found = parameters.iter().rev().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
}

/// The stream of the single-connection mode, as the response.
fn connect(door: &Door, client: &Client, headers: &HeaderMap, token: &str, is_head: bool) -> Response {
    if is_head {
        // HEAD is safe, so it leaves the reservation to the request that will read the stream.
        return match door.streams.check(client, token) {
            Ok(()) => streaming::head(Form::EventStream.content_type()),
            Err(problem) => refuse(headers, &problem),
        };
    }
    door.streams.connect(client, token, &door.context).unwrap_or_else(|problem| refuse(headers, &problem))
}

/// Executes a request whose results come over a reserved stream.
async fn over_stream(
    door: &Door,
    client: &Client,
    headers: &HeaderMap,
    token: &str,
    mut asked: Asked,
    by_get: bool,
) -> Response {
    let id = asked.operation_id.take();
    let prepared = door.executor.prepare(asked);
    if by_get && matches!(&prepared, Ok(prepared) if prepared.kind == OperationKind::Mutation) {
        return mutation_by_get(headers);
    }
    // By the protocol request errors are in the response as they are without a stream, so a client that names a form gets
    // them in it. One that names none is npm graphql-sse: it takes any status but 202 for a fault of the network and sends
    // the request again, so it gets them over the stream.
    let form = accept::named(headers, &SINGLE);
    match door.streams.execute(&door.executor, client, token, id.as_deref(), prepared, form.is_some()).await {
        Ok(None) => StatusCode::ACCEPTED.into_response(),
        Ok(Some(errors)) => request_error(form.unwrap_or(Form::GraphqlResponse), &errors),
        Err(problem) => refuse(headers, &problem),
    }
}

fn mutation_by_get(headers: &HeaderMap) -> Response {
    let allow = Some((header::ALLOW, HeaderValue::from_static("POST")));
    let problem = Problem::new(Code::MethodNotAllowed, "a mutation needs POST");
    refuse(headers, &problem.with_http(StatusCode::METHOD_NOT_ALLOWED, allow))
}

/// Checks that the body is JSON in UTF-8. Browsers send other types across sites without a preflight request, so refusing them
/// keeps forged requests out.
fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    // As most clients write it.
    if let Ok(Some("application/json")) = headers::single(headers, "Content-Type") {
        return Ok(());
    }
    let is_json = body::media_type(headers)?.is_some_and(|kind| kind == "application/json");
    let is_utf8 = body::charset(headers).is_none_or(|charset| matches!(charset.as_str(), "utf-8" | "utf8"));
    if !is_json || !is_utf8 {
        return Err(body::unsupported("content-type: must be application/json in UTF-8"));
    }
    Ok(())
}

/// Who has sent a request, and how.
#[derive(Clone, Copy)]
struct Sent<'a> {
    client: &'a Client,
    method: &'a Method,
    headers: &'a HeaderMap,
}

/// The response to one request.
async fn respond_to(door: &Door, sent: Sent<'_>, asked: Asked, resumed: Option<&str>) -> Response {
    let Sent { client, method, headers } = sent;
    // A client that would rather have a stream gets one, also of a single result.
    let single = accept::best(headers, &ALL).filter(|form| SINGLE.contains(form));
    let streaming = if single.is_some() { None } else { accept::best(headers, &STREAMS) };
    let prepared = match door.executor.prepare(asked) {
        Ok(prepared) => prepared,
        // A client that accepts only a stream gets its errors there.
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
            let Some(form) = accept::named(headers, &STREAMS) else {
                let message = "a subscription needs a WebSocket, or Accept: text/event-stream or multipart/mixed";
                return malformed(headers, message);
            };
            // A position that cannot be read is refused and not ignored, because then messages would be lost silently.
            let resume = headers::single(headers, "Last-Event-ID")
                .and_then(|id| id.or(resumed).map(|id| wire::parse_position("Last-Event-ID", id)).transpose());
            match resume {
                // HEAD is safe: it makes no topic, no subscription and no consumer.
                Ok(_) if method == Method::HEAD => streaming::head(form.content_type()),
                // On the heap, as other futures here are that are not those of a mutation: a response is moved with them.
                Ok(resume) => Box::pin(subscribe(door, sent, form, prepared, resume)).await,
                Err(error) => malformed(headers, error.to_string()),
            }
        }
        OperationKind::Mutation if method != Method::POST => mutation_by_get(headers),
        OperationKind::Query | OperationKind::Mutation => {
            let (Some(form), is_single) = (single.or(streaming), single.is_some()) else { return not_acceptable() };
            match door.executor.single(prepared, client).await {
                Outcome::Executed { result, has_errors } if is_single => {
                    respond(form, executed_status(has_errors), result)
                }
                Outcome::Executed { result, .. } => stream::once(form, &result),
                Outcome::Refused(errors) if is_single => request_error(form, &errors),
                Outcome::Refused(errors) => stream::refused(form, &errors),
            }
        }
    }
}

async fn subscribe(
    door: &Door,
    Sent { client, headers, .. }: Sent<'_>,
    form: Form,
    prepared: Prepared,
    resume: Option<Start>,
) -> Response {
    let inbox = Inbox::default();
    let connection = match client.connect("event-stream") {
        Ok(connection) => connection,
        Err(error) => return refuse(headers, &error.into()),
    };
    match door.executor.open(prepared, client, &inbox, 0, resume).await {
        Ok(operation) => {
            let source = stream::Results::new(operation, form);
            let context = &door.context;
            let body = streaming::body(source, inbox, context.heartbeat, context.sockets.stops.join(), connection);
            streaming::response(form.content_type(), body)
        }
        Err(errors) => stream::refused(form, &errors),
    }
}

/// The response to several requests, in their order. Subscriptions cannot be among them.
async fn batch(door: &Door, client: &Client, headers: &HeaderMap, items: &[&RawValue]) -> Response {
    let Some(form) = accept::best(headers, &SINGLE) else { return not_acceptable() };
    let limit = door.settings.max_batch;
    if items.is_empty() || items.len() > limit {
        let message = format!("body: a batch must have 1 to {limit} requests");
        return refuse(headers, &not_a_request(message));
    }
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        let error = |message: String| vec![ServerError::new(message, None)];
        let prepared = read(door, client, item.get())
            .map_err(|unread| error(unread.message))
            .and_then(|asked| door.executor.prepare(asked));
        results.push(match prepared {
            Ok(prepared) if prepared.kind == OperationKind::Subscription => {
                errors_only(&error("a subscription cannot be part of a batch".to_owned()))
            }
            Ok(prepared) => match door.executor.single(prepared, client).await {
                Outcome::Executed { result, .. } => result,
                Outcome::Refused(errors) => errors_only(&errors),
            },
            Err(errors) => errors_only(&errors),
        });
    }
    respond(form, StatusCode::OK, format!("[{}]", results.join(",")))
}
