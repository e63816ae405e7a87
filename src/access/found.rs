//! Where the credential of a request stands.

use axum::http::{HeaderMap, Uri, header, request::Parts};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{broker::Error, browser, headers, query_string};

/// The cookie that carries the credential of a browser's event streams.
pub const COOKIE: &str = "pubsub_auth";

/// The parameter of the address that carries a credential, where the server allows that.
pub const CREDENTIAL_PARAMETER: &str = "access_token";

/// The credential in the headers of a request.
///
/// # Errors
/// [`Error::BadRequest`] for a header that is not what it should be. It does not contain the header's value.
pub fn in_headers(headers: &HeaderMap) -> Result<Option<String>, Error> {
    if let Some(value) = headers::single(headers, "Authorization")? {
        return bearer(value).map(|credential| Some(credential.to_owned()));
    }
    Ok(headers::single(headers, "X-API-Key")?.map(str::to_owned))
}

/// What stands behind `Bearer`.
///
/// # Errors
/// [`Error::BadRequest`] for another scheme.
pub fn bearer(value: &str) -> Result<&str, Error> {
    let (scheme, credential) = value.trim().split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") || credential.trim().is_empty() {
        return Err(Error::bad_request("Authorization", "must be Bearer and a key or a token"));
    }
    Ok(credential.trim())
}

/// The credential in the cookie, if the page that sends the request is this server's own. Browsers add cookies to whatever
/// another site makes them send, too.
pub fn in_cookie(parts: &Parts) -> Option<String> {
    if !browser::cookies_count(parts) {
        return None;
    }
    let lines = parts.headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let (_, value) = cookies.find(|(name, _)| *name == COOKIE)?;
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(value.trim_matches('"')).ok()?).ok()
}

/// The value of the cookie for a credential, which may have characters that a cookie cannot have.
pub fn cookie_value(credential: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(credential)
}

/// The credential in the address. Addresses end up in logs and histories, so the server has to allow this.
pub fn in_address(uri: &Uri) -> Option<String> {
    if !uri.query()?.contains(CREDENTIAL_PARAMETER) {
        return None;
    }
    // An empty one is an absent one.
    let found = query_string::parameters(uri)
        .ok()?
        .into_iter()
        .find(|(name, value)| name == CREDENTIAL_PARAMETER && !value.is_empty());
    found.map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn headers_in_their_order() {
        let found = |lines: &[(&'static str, &str)]| in_headers(&headers(lines));
        assert_eq!(found(&[]), Ok(None));
        assert_eq!(found(&[("authorization", "bearer  a b")]), Ok(Some("a b".to_owned())));
        assert_eq!(found(&[("authorization", "Bearer x"), ("x-api-key", "y")]), Ok(Some("x".to_owned())));
        assert_eq!(found(&[("x-api-key", "y")]), Ok(Some("y".to_owned())));
        for bad in ["Basic eDp5", "Bearer", "Bearer ", "secret"] {
            let error = found(&[("authorization", bad), ("x-api-key", "y")]).unwrap_err().to_string();
            assert_eq!(error, "Authorization: must be Bearer and a key or a token");
        }
        assert!(found(&[("authorization", "Bearer x"), ("authorization", "Bearer y")]).is_err());
    }

    #[test]
    fn cookies_count_for_the_servers_own_pages_alone() {
        let value = format!("other=1; {COOKIE}={}", cookie_value("key; of = mine"));
        let found = |origin: &str| {
            let request = Request::builder().header("host", "a.example:8080").header("cookie", &value);
            in_cookie(&request.header("origin", origin).body(()).unwrap().into_parts().0)
        };
        assert_eq!(found("http://a.example:8080").as_deref(), Some("key; of = mine"));
        assert_eq!(found("http://b.example:8080"), None);
    }

    #[test]
    fn addresses() {
        let found = |uri: &str| in_address(&uri.parse().unwrap());
        assert_eq!(found("/ws?a=1&access_token=x%20y").as_deref(), Some("x y"));
        assert_eq!(found("/ws?access_token="), None);
        assert_eq!(found("/ws?my_access_token=x"), None);
    }
}
