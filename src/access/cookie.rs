//! `/auth/cookie`: signing in where a browser cannot set headers, which is so with its `EventSource`.

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::post,
};

pub use super::found::COOKIE as NAME;
use super::{Access, Visitor, found};
use crate::problem::{Code, ErrorBody, Problem};

/// Where it is.
pub const PATH: &str = "/auth/cookie";

/// No script can read it, other sites cannot make a browser send it, and it goes over TLS or to this machine alone.
const ATTRIBUTES: &str = "Path=/; HttpOnly; SameSite=Strict; Secure";

/// The route.
pub fn routes(access: Access) -> Router {
    Router::new().route(PATH, post(sign_in).delete(sign_out)).with_state(access)
}

/// Signs in: puts the credential of the headers into a cookie that lasts as long as the browser runs.
#[utoipa::path(post, path = "/auth/cookie", tag = "access", responses((status = 204, description = "The cookie is set", headers(("Set-Cookie" = String, description = "The cookie `pubsub_auth`"))), (status = 401, body = ErrorBody, description = "`UNAUTHENTICATED`: without a valid credential in `Authorization` or `X-API-Key`"), (status = 403, body = ErrorBody, description = "`FORBIDDEN`: a web page of this origin may not do this")))]
pub async fn sign_in(State(access): State<Access>, parts: Parts) -> Response {
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
        Ok(_) => with_cookie(&format!("{NAME}={}; {ATTRIBUTES}", found::cookie_value(&credential))),
        Err(problem) => problem.into_response(),
    }
}

/// Signs out: removes the cookie. The credential in it stays valid.
#[utoipa::path(delete, path = "/auth/cookie", tag = "access", responses((status = 204, description = "The cookie is removed"), (status = 403, body = ErrorBody, description = "`FORBIDDEN`: a web page of this origin may not do this")))]
pub async fn sign_out() -> Response {
    with_cookie(&format!("{NAME}=; Max-Age=0; {ATTRIBUTES}"))
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
