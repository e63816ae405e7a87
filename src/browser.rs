//! Which pages may use this server from a browser. A page can make the browser of its visitor send requests to any server
//! that the visitor reaches. The browser says in `Origin` whose page it is, and the page cannot change that. Requests without
//! `Origin` are not a page's requests to another site, and pass.
//!
//! This module decides. The CORS headers, by which a page may read the response, are written by `tower-http`. It gets only
//! the requests that need them, so all others cost no more than a look for the header.

mod origin;

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::Request,
    http::{
        HeaderName, HeaderValue, Method, header,
        header::{ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN},
        request::Parts,
        uri::Authority,
    },
    response::Response,
};
use tower::{Layer, Service, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

pub use origin::{AllowedOrigins, Origin};

use crate::{
    problem::{Code, Problem},
    socket::Upgrade,
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

/// What a page may see of the response to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// CORS says nothing about it: no page of another origin has sent the request, or it is for a WebSocket.
    Unaffected,
    /// The page may read it.
    Shown,
    /// Its browser hides it from the page.
    Hidden,
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

    /// Whether the request is served, and what a page then sees of the response.
    ///
    /// # Errors
    /// `FORBIDDEN` if it is a page's that may not do this, `BAD_REQUEST` if `Origin` is given twice or malformed. To guess
    /// would be to let a page in that a proxy took for another one.
    pub fn check(&self, request: &Parts) -> Result<Visibility, Problem> {
        let Some(origin) = sent_origin(request)? else { return Ok(Visibility::Unaffected) };
        let wants = Wants::of(request);
        if self.allowed.allow(&origin) || is_own(&origin, request) {
            let is_shown = matches!(wants, Wants::Response | Wants::Preflight | Wants::Change);
            return Ok(if is_shown { Visibility::Shown } else { Visibility::Unaffected });
        }
        if matches!(wants, Wants::Response | Wants::Options) {
            return Ok(Visibility::Hidden);
        }
        // Whoever runs the server has to see why a page does not work; the page itself cannot read the response.
        tracing::debug!(%origin, method = %request.method, path = request.uri.path(), "refused a page's request");
        let message = format!("ALLOWED_ORIGINS does not allow pages of the origin {origin} to do this");
        Err(Problem::new(Code::Forbidden, message))
    }

    /// The response of `app` to a request, with the headers by which its page may read it.
    pub async fn show<S>(&self, request: Request, app: S) -> Response
    where
        S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        self.cors.layer(app).oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

/// What a request wants, as far as a page's origin matters.
enum Wants {
    /// A response, and changes nothing.
    Response,
    /// To know whether the page may send another request.
    Preflight,
    /// The methods of a path. The routes answer that.
    Options,
    /// A WebSocket. That is a GET, but CORS does not apply to it: without this check any page could use it.
    WebSocket,
    /// To change something. Methods that are not known may do that, too.
    Change,
}

impl Wants {
    fn of(request: &Parts) -> Self {
        match request.method {
            _ if Upgrade::is_asked_for(request) => Wants::WebSocket,
            Method::GET | Method::HEAD => Wants::Response,
            Method::OPTIONS if request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) => Wants::Preflight,
            Method::OPTIONS => Wants::Options,
            _ => Wants::Change,
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

/// Whether the cookies of a request count: only those that a page of this server's own origin sends, whatever other origins
/// are allowed. Browsers send no `Origin` with the GET of an `EventSource` to its own server, but those of today say in
/// `Sec-Fetch-Site` where it comes from: `same-origin`, or `none` if the person has asked for it.
#[must_use]
pub fn cookies_count(request: &Parts) -> bool {
    let site = request.headers.get("sec-fetch-site");
    let is_own_site = site.is_none_or(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    let is_own_origin = sent_origin(request).is_ok_and(|sent| sent.is_none_or(|origin| is_own(&origin, request)));
    is_own_site && is_own_origin
}

/// The origin that the browser has sent, if it has sent one.
fn sent_origin(request: &Parts) -> Result<Option<Origin>, Problem> {
    let mut lines = request.headers.get_all(ORIGIN).into_iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Problem::new(Code::BadRequest, "Origin: may be given only once"));
    }
    let origin = line.to_str().ok().and_then(|line| line.parse().ok());
    let wrong = || Problem::new(Code::BadRequest, "Origin: must be null, or a scheme, a host and perhaps a port");
    origin.map(Some).ok_or_else(wrong)
}

/// Whether the page is this server's own. TLS may end at a proxy, so either scheme will do.
fn is_own(origin: &Origin, request: &Parts) -> bool {
    // Over HTTP/2 the host stands in the address.
    let host = request.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    host.as_ref().or_else(|| request.uri.authority()).is_some_and(|host| origin.is_at(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let builder = Request::builder().uri("/topics").header(HOST, "example.org");
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn cookies_count_for_the_own_origin() {
        for headers in [
            &[][..],
            &[("origin", "https://example.org")],
            &[("origin", "http://example.org:80"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(cookies_count(&parts(headers)), "{headers:?}");
        }
        for headers in [
            &[("origin", "http://localhost:3000")][..],
            &[("origin", "https://sub.example.org")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "https://example.org"), ("origin", "https://example.org")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://example.org")],
        ] {
            assert!(!cookies_count(&parts(headers)), "{headers:?}");
        }
    }

    /// Over HTTP/2 there is no `Host`.
    #[test]
    fn the_host_may_stand_in_the_address() {
        let parts = |uri: &str| {
            let request = Request::builder().method("POST").uri(uri).header(ORIGIN, "https://example.org");
            request.body(()).unwrap().into_parts().0
        };
        let browsers = Browsers::new("https://other.example".parse().unwrap());
        assert_eq!(browsers.check(&parts("https://example.org/publish")), Ok(Visibility::Shown));
        for uri in ["https://other.example/publish", "https://example.org:8443/publish", "/publish"] {
            assert_eq!(browsers.check(&parts(uri)).unwrap_err().code, Code::Forbidden, "{uri}");
        }
    }
}
