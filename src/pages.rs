//! The pages for browsers. At `/` it is the console and at `/graphql` GraphiQL, if they were built (`make web`); else there
//! are an index (`index.rs`) and a small page of our own. Each is whole within the binary (`build.rs` puts it there) and loads
//! nothing from any other host.

mod index;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    headers,
    problem::{Code, Problem},
};

include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// A page within the binary.
struct Page {
    document: File,
    /// What it loads, in the order of the names.
    assets: &'static [(&'static str, File)],
}

/// A file within the binary.
struct File {
    /// Its content type.
    kind: &'static str,
    /// The hash of its content.
    hash: &'static str,
    /// Whether its name changes with its content.
    immutable: bool,
    content: &'static [u8],
    /// The content compressed with gzip, where that is smaller.
    gzip: Option<&'static [u8]>,
}

/// What all pages may do; each adds what it needs. `'none'` first, so that whatever is not named is forbidden: another
/// host's files, inline scripts, `eval`, frames, plugins, forms, `<base>`.
const POLICY: &str =
    "default-src 'none'; script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Monaco, GraphiQL's editor, writes its themes as `<style>` and measures of its lines as `style` attributes, and knows no
/// nonces: without `'unsafe-inline'` for styles it draws nothing. Fonts and some icons are `data:` addresses in its stylesheet.
const GRAPHIQL_POLICY: &str =
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; worker-src 'self'";
/// The console, and the small page in GraphiQL's place: each contains its icon as a `data:` address.
const OWN_POLICY: &str = "style-src 'self'; img-src data:";
/// A script that is loaded as a file ignores this; one that runs as a worker has this policy, and the pages' workers load
/// nothing.
const ASSET_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Adds what every page is sent with, beside its policy and what all responses have. `X-Frame-Options` is not among it: each
/// policy has `frame-ancestors`, which all browsers of today obey.
fn add_document_headers(headers: &mut HeaderMap) {
    for (name, value) in [
        // Neither a window of another site that opened this page nor a window that the page opens can reach into it.
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        // Other sites must not learn an operator's addresses.
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The routes of the index and of what the pages load. The page at `/graphql` stands at an address that other clients use,
/// too, so the door there asks for it.
pub fn routes() -> Router {
    Router::new()
        .route("/", get(index::index))
        .route("/console/assets/{file}", get(console_asset))
        .route("/graphql/assets/{file}", get(graphql_asset))
}

/// The page at `/graphql`.
pub fn graphql(headers: &HeaderMap) -> Response {
    GRAPHQL.response(headers, if IS_BUILT { GRAPHIQL_POLICY } else { OWN_POLICY })
}

/// What a path names, or an empty name: a path that cannot be decoded names no file, either.
type Name = Result<Path<String>, PathRejection>;

/// `GET /graphql/assets/{file}`: what the page at `/graphql` loads.
async fn graphql_asset(name: Name, headers: HeaderMap) -> Response {
    asset(Some(&GRAPHQL), name, &headers)
}

/// `GET /console/assets/{file}`: what the console loads.
async fn console_asset(name: Name, headers: HeaderMap) -> Response {
    asset(CONSOLE.as_ref(), name, &headers)
}

fn asset(page: Option<&Page>, name: Name, headers: &HeaderMap) -> Response {
    let name = name.map_or_else(|_| String::new(), |Path(name)| name);
    let assets = page.map_or(&[][..], |page| page.assets);
    let Ok(at) = assets.binary_search_by_key(&name.as_str(), |(known, _)| known) else {
        return Problem::new(Code::NotFound, "the page has no such file").into_response();
    };
    assets[at].1.response(headers)
}

impl Page {
    /// The response with the document. `part` is what this page may do beside what all may.
    fn response(&self, headers: &HeaderMap, part: &str) -> Response {
        let mut response = self.document.response(headers);
        let own = response.headers_mut();
        // The same address serves other clients something else, and caches must not mix the two up.
        own.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
        let policy = policy(part, headers.get(header::HOST).and_then(|host| host.to_str().ok()));
        if let Ok(policy) = HeaderValue::try_from(policy) {
            own.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        add_document_headers(own);
        response
    }
}

/// The page's content security policy. Browsers from before 2022 do not count WebSockets as `'self'`, so the host that was
/// asked for is named as well, if it is one: nothing a client can send there adds to the policy.
fn policy(part: &str, host: Option<&str>) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let sockets = match host.filter(|host| !host.is_empty() && host.bytes().all(plain)) {
        Some(host) => format!(" ws://{host} wss://{host}"),
        None => String::new(),
    };
    format!("{POLICY}; {part}; connect-src 'self'{sockets}")
}

impl File {
    /// The response with the file, compressed for those who accept that, or the status that says that the client has it.
    fn response(&self, headers: &HeaderMap) -> Response {
        let packed = self.gzip.filter(|_| accepts_gzip(headers));
        // Plain and compressed bytes differ, so they have different tags.
        let tag = format!("\"{}{}\"", self.hash, if packed.is_some() { "-gzip" } else { "" });
        let mut response = if has(headers, &tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let body = Body::from(Bytes::from_static(packed.unwrap_or(self.content)));
            ([(header::CONTENT_TYPE, self.kind)], body).into_response()
        };
        let own = response.headers_mut();
        if packed.is_some() && own.contains_key(header::CONTENT_TYPE) {
            own.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Ok(tag) = HeaderValue::try_from(tag) {
            own.insert(header::ETAG, tag);
        }
        // Files with other names are requested again each time, so that a new server's page is seen at once; the tag makes
        // that cheap.
        let kept = if self.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
        for (name, value) in [
            (header::CACHE_CONTROL, kept),
            (header::VARY, "accept-encoding"),
            (header::CONTENT_SECURITY_POLICY, ASSET_POLICY),
            // A stylesheet loads what it names by its own policy.
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            own.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Whether the client takes gzip: by its name or, without that, by `*`, and not with a weight of 0.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut named, mut any) = (None, false);
    for item in headers::items(headers, "Accept-Encoding") {
        let (coding, mut parameters) = headers::with_parameters(item);
        let weight = parameters.find(|(name, _)| name.eq_ignore_ascii_case("q"));
        // A weight that cannot be read is no consent: plain bytes are always right.
        let takes = weight.is_none_or(|(_, weight)| headers::weight(weight).is_some_and(|weight| weight > 0));
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            named = Some(takes);
        } else if coding == "*" {
            any = takes;
        }
    }
    named.unwrap_or(any)
}

/// Whether the client says that it has what the tag names.
fn has(headers: &HeaderMap, tag: &str) -> bool {
    headers::items(headers, "If-None-Match")
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers<const N: usize>(pairs: [(HeaderName, &str); N]) -> HeaderMap {
        pairs.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let response = graphql(&HeaderMap::new());
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
        let tag = response.headers()[header::ETAG].to_str().unwrap();
        for known in [tag.to_owned(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let again = graphql(&headers([(header::IF_NONE_MATCH, known.as_str())]));
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(again.headers()[header::ETAG], tag);
        }
        assert_eq!(graphql(&headers([(header::IF_NONE_MATCH, "\"other\"")])).status(), StatusCode::OK);
    }

    #[test]
    fn gzip_only_for_those_who_take_it() {
        for (value, takes) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
            ("*", true),
            ("*, gzip;q=0", false),
            ("gzip ; q=0.000", false),
            ("br;q=1, *;q=0", false),
            ("x-gzip", true),
            ("gzip;q=x", false),
        ] {
            assert_eq!(accepts_gzip(&headers([(header::ACCEPT_ENCODING, value)])), takes, "{value}");
        }
        let file = File { kind: "text/plain", hash: "1", immutable: true, content: b"aaaa", gzip: Some(b"a") };
        let packed = file.response(&headers([(header::ACCEPT_ENCODING, "gzip")]));
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(packed.headers()[header::ETAG], "\"1-gzip\"");
        let plain = file.response(&HeaderMap::new());
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
        assert_eq!(plain.headers()[header::ETAG], "\"1\"");
    }

    #[test]
    fn a_host_cannot_add_to_the_policy() {
        assert!(
            policy(OWN_POLICY, Some("[::1]:8080")).ends_with("connect-src 'self' ws://[::1]:8080 wss://[::1]:8080")
        );
        for host in [None, Some(""), Some("a b"), Some("a;script-src"), Some("*"), Some("a,b"), Some("a'b")] {
            assert!(policy(OWN_POLICY, host).ends_with("connect-src 'self'"), "{host:?}");
        }
    }

    #[test]
    fn assets_are_found_by_their_names() {
        for page in [Some(&GRAPHQL), CONSOLE.as_ref()].into_iter().flatten() {
            assert!(page.assets.is_sorted_by_key(|(name, _)| name));
            for (name, file) in page.assets {
                let response = asset(Some(page), Ok(Path((*name).to_owned())), &HeaderMap::new());
                assert_eq!(response.headers()[header::CONTENT_TYPE], file.kind, "{name}");
            }
        }
        for page in [Some(&GRAPHQL), CONSOLE.as_ref(), None] {
            let missing = asset(page, Ok(Path("../page.html".to_owned())), &HeaderMap::new());
            assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        }
    }
}
