//! `/auth/cookie`: signing in where a browser cannot set headers, which is so with its `EventSource`.

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::post,
};

use super::{
    Access, Visitor,
    found::{self, COOKIE},
};
use crate::problem::{Code, Problem};

/// No script can read it, other sites cannot make a browser send it, and it goes over TLS or to this machine alone.
const ATTRIBUTES: &str = "Path=/; HttpOnly; SameSite=Strict; Secure";

/// The route.
pub fn routes(access: Access) -> Router {
    Router::new().route("/auth/cookie", post(sign_in).delete(sign_out)).with_state(access)
}

/// `POST /auth/cookie`: puts the credential of the headers into a cookie that lasts as long as the browser runs.
async fn sign_in(State(access): State<Access>, parts: Parts) -> Response {
    let from = Visitor::of(&parts).info();
    let credential = match found::in_headers(&parts.headers) {
        Ok(Some(credential)) => credential,
        Ok(None) => {
            let message = "a credential is needed in Authorization or X-API-Key";
            return Problem::new(Code::Unauthenticated, message).into_response();
        }
        Err(error) => return access.refuse_malformed(&error, from).into_response(),
    };
    match access.authenticate(&credential, from).await {
        Ok(_) => with_cookie(&format!("{COOKIE}={}; {ATTRIBUTES}", found::cookie_value(&credential))),
        Err(problem) => problem.into_response(),
    }
}

/// `DELETE /auth/cookie`: signs out.
async fn sign_out() -> Response {
    with_cookie(&format!("{COOKIE}=; Max-Age=0; {ATTRIBUTES}"))
}

fn with_cookie(cookie: &str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(mut cookie) = HeaderValue::try_from(cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
