//! What holds for every request and every response, whatever its route.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header,
        uri::{Authority, PathAndQuery},
    },
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, Incoming, SizeHint};

use crate::{
    broker::RequestId,
    front::Front,
    headers,
    problem::{Code, Problem},
    socket::ConnectionInfo,
};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// The policy of a page that loads nothing, runs nothing, and is shown in no other page.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// Bytes of the head of a request, and of what is read and written at once.
pub(super) const MAX_BUFFER: usize = 64 << 10;

/// The name of the header that carries a request's id, both ways.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request: the client's, if it gives a usable one once, or a new one.
pub fn id_of(request: &Request<Body>) -> RequestId {
    let mut given = request.headers().get_all(REQUEST_ID).into_iter();
    let only = given.next().filter(|_| given.next().is_none());
    only.and_then(|value| RequestId::given(value.as_bytes())).unwrap_or_else(RequestId::made)
}

/// The app's response to a request that came over this connection, with the request's id.
pub async fn respond_with_id(front: &Front, connection: &ConnectionInfo, request: Request<Body>) -> Response {
    let id = id_of(&request);
    let mut response = id.clone().responding(respond(front, connection, request)).await;
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The app's response to a request that came over this connection, for those who write the request's id beside it.
pub async fn respond(front: &Front, connection: &ConnectionInfo, mut request: Request<Body>) -> Response {
    // Where nobody looks, this costs a comparison.
    let asked =
        tracing::enabled!(tracing::Level::DEBUG).then(|| Box::new((request.method().clone(), request.uri().clone())));
    let is_head = request.method() == Method::HEAD;
    if request.version() == Version::HTTP_2 {
        as_in_http1(&mut request);
    }
    let mut response = match check_host(&request) {
        Ok(()) => match page_without_slash(&request) {
            Some(location) => (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location)]).into_response(),
            None => {
                drop_trailing_slash(request.uri_mut());
                front.respond(connection, request).await
            }
        },
        Err(problem) => in_full(&problem, is_head),
    };
    // The router's own response, which has no body.
    if response.status() == StatusCode::METHOD_NOT_ALLOWED && !response.headers().contains_key(header::CONTENT_TYPE) {
        let (parts, body) = in_full(&other_methods(response.headers().get(header::ALLOW)), is_head).into_parts();
        // The headers that let a page of another origin read it stay; the length is that of no body.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
    }
    protect(&mut response);
    if let Some((method, uri)) = asked.as_deref() {
        let (id, status) = (RequestId::current().map(tracing::field::display), response.status().as_u16());
        tracing::debug!(%method, path = uri.path(), status, request = id, "responded");
    }
    response
}

/// The headers that keep a response from being misused in a browser, unless it has its own.
///
/// `Strict-Transport-Security` is not among them: it binds all ports of the host name, for as long as it says, so it is for
/// those to send who decide about the host.
fn protect(response: &mut Response) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    let headers = response.headers_mut();
    // Browsers must not guess another type from the content.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // No cache may keep what only this client may see; with X-API-Key or a cookie no cache would know that.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    // A page of another site must not load it as an image or script. Pages of allowed origins use CORS, where this does not
    // count.
    headers.entry(CROSS_ORIGIN_RESOURCE_POLICY).or_insert(HeaderValue::from_static("same-origin"));
    if is_error {
        // An error may quote the request. Even a browser that took it for a page would run nothing of it.
        headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(NOTHING));
    }
}

/// The error for a method that a path does not have, with those that it has.
fn other_methods(allow: Option<&HeaderValue>) -> Problem {
    let methods = allow.and_then(|allow| allow.to_str().ok()).unwrap_or_default().replace(',', ", ");
    let problem = Problem::new(Code::MethodNotAllowed, format!("this path has the methods {methods}"));
    let allow = HeaderValue::try_from(methods).ok().map(|methods| (header::ALLOW, methods));
    problem.with_http(StatusCode::METHOD_NOT_ALLOWED, allow)
}

/// The problem as the response; to HEAD with the length that GET would have, and no body.
fn in_full(problem: &Problem, is_head: bool) -> Response {
    let mut response = problem.clone().into_response();
    if is_head && let Some(length) = http_body::Body::size_hint(response.body()).exact() {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        *response.body_mut() = Body::empty();
    }
    response
}

/// Makes a request of HTTP/2 look as those of HTTP/1.1 do, so that nothing behind this has to know both. The authority stands in
/// `Host`. The extended CONNECT that begins a WebSocket is a GET; what tells it from others is its protocol (RFC 8441).
fn as_in_http1(request: &mut Request<Body>) {
    if let Some(authority) = request.uri().authority()
        && !request.headers().contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    if request.method() == Method::CONNECT && request.extensions().get::<hyper::ext::Protocol>().is_some() {
        *request.method_mut() = Method::GET;
    }
}

/// HTTP/1.1 requires one valid `Host`. A proxy and this server could otherwise take a request to be for different hosts (RFC 9112,
/// 3.2). In HTTP/2 it may stand beside the authority, and must not differ from it (RFC 9113, 8.3.1).
fn check_host(request: &Request<Body>) -> Result<(), Problem> {
    let mut lines = request.headers().get_all(header::HOST).into_iter();
    let problem = |message| Err(Problem::new(Code::BadRequest, message));
    match (lines.next(), lines.next()) {
        (_, Some(_)) => problem("host: may be given only once"),
        (None, None) if request.version() >= Version::HTTP_11 => problem("host: is missing, and HTTP/1.1 requires it"),
        (None, None) => Ok(()),
        (Some(host), None) => {
            let host = host.as_bytes();
            let is_valid = is_plain(host) || (Authority::try_from(host).is_ok() && !host.contains(&b'@'));
            // In HTTP/1, an address with an authority goes before the header.
            let authority = request.uri().authority().filter(|_| request.version() == Version::HTTP_2);
            let differs = authority.is_some_and(|other| !other.as_str().as_bytes().eq_ignore_ascii_case(host));
            match (is_valid, differs) {
                (true, false) => Ok(()),
                (true, true) => problem("host: must not differ from the request's authority"),
                (false, _) => problem("host: must be a host and perhaps a port"),
            }
        }
    }
}

/// Whether a host is a name or an address in IPv4, perhaps with a port, or empty. Nearly every one is, and needs no parser.
fn is_plain(host: &[u8]) -> bool {
    let colon = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
    let (name, port) = host.split_at(colon);
    let is_port = (2..=6).contains(&port.len()) && port[1..].iter().all(u8::is_ascii_digit);
    (port.is_empty() || (is_port && !name.is_empty()))
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

/// Where a browser that asks for a page at a path with a slash at its end finds it: the links within pages are relative. The
/// address is relative, too, because a proxy may serve this server below a prefix.
fn page_without_slash(request: &Request<Body>) -> Option<HeaderValue> {
    let name = request.uri().path().strip_suffix('/')?.rsplit('/').next().filter(|name| !name.is_empty())?;
    let is_page = headers::acceptance(request.headers(), ("text", "html")).specificity == 2;
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    HeaderValue::try_from(format!("../{name}{query}")).ok().filter(|_| is_page && is_read)
}

/// A path with a slash at its end is that without it: names that end so are percent-encoded. A redirection would not do for all,
/// because WebSocket clients follow none.
fn drop_trailing_slash(uri: &mut Uri) {
    let Some(path) = uri.path().strip_suffix('/').filter(|path| !path.is_empty()) else { return };
    let path = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(path).ok();
    if let Ok(shorter) = Uri::from_parts(parts) {
        *uri = shorter;
    }
}

/// A request's body, which sets a flag when it is dropped before its end.
pub struct WatchedBody {
    body: Incoming,
    has_ended: bool,
    is_unread: Arc<AtomicBool>,
}

impl WatchedBody {
    pub fn new(body: Incoming, is_unread: Arc<AtomicBool>) -> Self {
        Self { body, has_ended: false, is_unread }
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        let is_unread = !self.has_ended && !http_body::Body::is_end_stream(&self.body);
        self.is_unread.store(is_unread, Ordering::Relaxed);
    }
}

impl http_body::Body for WatchedBody {
    type Data = <Incoming as http_body::Body>::Data;
    type Error = <Incoming as http_body::Body>::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = std::pin::Pin::new(&mut self.body).poll_frame(cx);
        self.has_ended |= matches!(polled, std::task::Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slash_at_the_end_does_not_count() {
        for (given, wanted) in [
            ("/", "/"),
            ("/health/", "/health"),
            ("/topics/news/messages/?last=1", "/topics/news/messages?last=1"),
            ("/topics//", "/topics/"),
            ("/topics/a%2F", "/topics/a%2F"),
            ("http://x/health/", "http://x/health"),
            ("/health?a=/", "/health?a=/"),
        ] {
            let mut uri: Uri = given.parse().unwrap();
            drop_trailing_slash(&mut uri);
            assert_eq!(uri.to_string(), wanted);
        }
    }

    #[test]
    fn requests_of_http_2() {
        let request = |uri: &str, host: Option<&str>| {
            let builder = Request::builder().version(Version::HTTP_2).uri(uri);
            let builder = host.into_iter().fold(builder, |builder, host| builder.header(header::HOST, host));
            let mut request = builder.body(Body::empty()).unwrap();
            as_in_http1(&mut request);
            request
        };
        let good = request("https://example.org:8443/health", None);
        assert_eq!(good.headers()[header::HOST], "example.org:8443");
        assert!(check_host(&good).is_ok());
        assert!(check_host(&request("https://example.org/", Some("EXAMPLE.org"))).is_ok());
        assert!(check_host(&request("/", Some("example.org"))).is_ok());
        for (uri, host) in
            [("https://example.org/", Some("other.org")), ("https://user@example.org/", None), ("/", None)]
        {
            assert!(check_host(&request(uri, host)).is_err(), "{uri} {host:?}");
        }
    }

    #[test]
    fn one_valid_host() {
        let check = |version, hosts: &[&str]| {
            let builder = hosts
                .iter()
                .fold(Request::builder().version(version), |builder, host| builder.header(header::HOST, *host));
            check_host(&builder.body(Body::empty()).unwrap()).is_ok()
        };
        for good in ["localhost", "localhost:8080", "[::1]:80", "127.0.0.1", ""] {
            assert!(check(Version::HTTP_11, &[good]), "{good}");
        }
        for bad in ["a/b", "a b", "user@host"] {
            assert!(!check(Version::HTTP_11, &[bad]), "{bad}");
        }
        assert!(!check(Version::HTTP_11, &[]) && check(Version::HTTP_10, &[]));
        assert!(!check(Version::HTTP_11, &["a", "a"]) && !check(Version::HTTP_10, &["a", "a"]));
    }
}
