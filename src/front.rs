//! What every request passes before any interface sees it: is it a page's that may not do this, is it too large, does the
//! server still take WebSockets, and who sends it.
//!
//! These are calls and no layers of the router, because a layer boxes a service and a future for each request.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Request, header, request},
    response::{IntoResponse, Response},
};
use tower::{ServiceExt, service_fn};

use crate::{
    access::Access,
    body,
    broker::{Broker, ClientInfo, Principal},
    browser::{self, Browsers},
    problem::Problem,
    socket::{ConnectionInfo, Upgrade},
};

/// What stands in front of the interfaces; clones share it.
#[derive(Clone)]
pub struct Front(Arc<Parts>);

/// What it is made of.
pub struct Parts {
    /// The interfaces.
    pub router: Router,
    /// The broker that their clients are of.
    pub broker: Broker,
    /// Finds out who sends a request.
    pub access: Access,
    /// Keeps pages of foreign origins out.
    pub browsers: Browsers,
    /// Bytes that a body may announce.
    pub max_body_bytes: usize,
    /// The response that refuses a request, in the form of errors of its path.
    pub refuse: fn(&request::Parts, &Problem) -> Response,
}

impl Front {
    /// Of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The response to a request.
    pub async fn respond(self, request: Request<Body>) -> Response {
        let (parts, body) = request.into_parts();
        // The origin comes first: a page may read the refusals that follow, too, and a preflight request carries no
        // credentials.
        let visibility = match self.0.browsers.check(&parts) {
            Ok(visibility) => visibility,
            Err(problem) => return browser::varying((self.0.refuse)(&parts, &problem)),
        };
        let request = Request::from_parts(parts, body);
        match visibility {
            browser::Visibility::Unaffected => self.receive(request).await,
            browser::Visibility::Hidden => browser::varying(self.receive(request).await),
            browser::Visibility::Shown => {
                let front = self.clone();
                let receive = service_fn(move |request| {
                    let front = front.clone();
                    async move { Ok::<_, Infallible>(front.receive(request).await) }
                });
                self.0.browsers.show(request, receive).await
            }
        }
    }

    /// The response to a request of whatever page.
    async fn receive(self, request: Request<Body>) -> Response {
        let (mut parts, body) = request.into_parts();
        if announces_more_than(self.0.max_body_bytes, &parts) {
            return body::too_large().into_response();
        }
        if let Err(problem) = self.check_staying(&parts) {
            return problem.into_response();
        }
        let connection = parts.extensions.get::<ConnectionInfo>();
        let address = connection.map(|connection| connection.client_address(&parts.headers));
        let door = match parts.uri.path() {
            "/ws" => "ws",
            path if path.starts_with("/graphql") => "graphql",
            _ => "rest",
        };
        let client = self.0.broker.client(Principal::anyone(), ClientInfo { door, address });
        let visitor = self.0.access.identify(&parts, &client).await;
        parts.extensions.insert(visitor);
        let response = self.0.router.clone().oneshot(Request::from_parts(parts, body)).await;
        response.unwrap_or_else(|never| match never {})
    }

    /// Refuses new WebSockets while the server is leaving. A client of GraphQL tries again, perhaps elsewhere, where the
    /// handshake is refused, but takes a refused subscription for its end.
    fn check_staying(&self, parts: &request::Parts) -> Result<(), Problem> {
        if Upgrade::is_asked_for(parts) { self.0.broker.check_staying().map_err(Problem::from) } else { Ok(()) }
    }
}

/// Whether a body is too large by its `Content-Length`, before it comes.
fn announces_more_than(limit: usize, parts: &request::Parts) -> bool {
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_some_and(|length: u64| length > limit as u64)
}
