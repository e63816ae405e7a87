//! Which pages may use this server from a browser. A page can make the browser of its visitor send requests to any server
//! that the visitor reaches. The browser says in `Origin` whose page it is, and the page cannot change that. Requests without
//! `Origin` are not a page's requests to another site, and pass.
//!
//! This module decides. The CORS headers, by which a page may read the response, are written by `tower-http`. It gets only
//! the requests that need them, so all others cost no more than a look for the header.

mod origin;

use std::{borrow::Cow, time::Duration};

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Uri, header,
        header::{ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN},
        uri::Authority,
    },
    middleware::Next,
    response::Response,
};
use tower::{Layer, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

pub use origin::{AllowedOrigins, Origin};

use crate::{
    headers,
    problem::{Code, Problem},
};

/// How long a browser may remember the response to a preflight request. Chromium uses at most this.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(2 * 3600);

/// What a page may read of a response beside its status and body.
const EXPOSED: [HeaderName; 6] = [
    header::ALLOW,
    header::ETAG,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("x-graphql-event-stream-token"),
];

/// What page sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageRequest {
    /// No page, or a page that reads from its own origin.
    NoPage,
    /// A page that may use the server.
    Allowed,
    /// A page that may not, with a request that changes nothing. Its browser hides the response from it.
    Foreign,
}

/// Keeps the pages of foreign origins out.
#[derive(Clone)]
pub struct Browsers {
    allowed: AllowedOrigins,
    cors: CorsLayer,
}

impl Browsers {
    /// With the origins of the setting.
    #[must_use]
    pub fn new(allowed: AllowedOrigins) -> Self {
        let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        // It never allows credentials of the browser's own, which are cookies: they count only for pages of this server.
        // A page that may use the server may send any header, because tracing and client libraries add their own.
        let cors = CorsLayer::new()
            .allow_origin(AllowOrigin::mirror_request())
            .allow_methods(methods)
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED)
            .max_age(PREFLIGHT_MAX_AGE)
            .vary([ORIGIN]);
        Self { allowed, cors }
    }

    /// Whose request it is.
    ///
    /// # Errors
    /// `FORBIDDEN` if it is a page's that may not do this, `BAD_REQUEST` if `Origin` is given twice or malformed. To guess
    /// would be to let a page in that a proxy took for another one.
    pub fn check(&self, request: &Request) -> Result<PageRequest, Problem> {
        let mut lines = request.headers().get_all(ORIGIN).into_iter();
        let Some(line) = lines.next() else { return Ok(PageRequest::NoPage) };
        if lines.next().is_some() {
            return Err(Problem::new(Code::BadRequest, "Origin: may be given only once"));
        }
        let origin = line.to_str().ok().and_then(|line| line.parse::<Origin>().ok());
        let Some(origin) = origin else {
            return Err(Problem::new(Code::BadRequest, "Origin: must be null, or a scheme, a host and perhaps a port"));
        };
        if self.allowed.allow(&origin) || is_own(&origin, request.headers(), request.uri()) {
            return Ok(PageRequest::Allowed);
        }
        if is_harmless(request) {
            return Ok(PageRequest::Foreign);
        }
        // Whoever runs the server has to see why a page does not work; the page itself cannot read the response.
        tracing::debug!(%origin, method = %request.method(), path = request.uri().path(), "refused a page's request");
        let message = format!("ALLOWED_ORIGINS does not allow pages of the origin {origin} to do this");
        Err(Problem::new(Code::Forbidden, Cow::Owned(message)))
    }

    /// The response to the request.
    pub async fn serve(&self, page: PageRequest, request: Request, next: Next) -> Response {
        match page {
            PageRequest::NoPage => next.run(request).await,
            PageRequest::Foreign => varying(next.run(request).await),
            PageRequest::Allowed if needs_no_cors(&request) => next.run(request).await,
            PageRequest::Allowed => self.cors.layer(next).oneshot(request).await.unwrap_or_else(|never| match never {}),
        }
    }
}

/// Says that the response depends on `Origin`. Responses to requests without it do not say so: those that caches may store
/// are the pages' own files, which no other origin uses.
#[must_use]
pub fn varying(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    response
}

/// Whether the page is this server's own. TLS may end at a proxy, so either scheme will do.
#[must_use]
pub fn is_own(origin: &Origin, headers: &HeaderMap, uri: &Uri) -> bool {
    // Over HTTP/2 the host stands in the address.
    let host = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    host.as_ref().or_else(|| uri.authority()).is_some_and(|host| origin.is_at(host))
}

/// Whether the request changes nothing. An upgrade to a WebSocket is a GET, but CORS does not apply to it: without this check
/// any page could use it. A preflight request asks what this check answers.
fn is_harmless(request: &Request) -> bool {
    match *request.method() {
        Method::GET | Method::HEAD => !is_upgrade(request),
        Method::OPTIONS => !is_preflight(request),
        _ => false,
    }
}

/// CORS does not apply to WebSockets, and an OPTIONS request that is no preflight request is for the routes to answer.
fn needs_no_cors(request: &Request) -> bool {
    is_upgrade(request) || (request.method() == Method::OPTIONS && !is_preflight(request))
}

fn is_upgrade(request: &Request) -> bool {
    headers::has_token(request.headers(), "Upgrade", "websocket")
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}
