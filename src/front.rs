//! What every request passes before any interface sees it: is it a page's that may not do this, is it too large, does the
//! server still take WebSockets, and who sends it.
//!
//! These are calls and no layers of the router, because a layer boxes a service and a future for each request.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::{Body, HttpBody as _},
    http::{HeaderMap, Method, Request, header, request},
    response::{IntoResponse, Response},
};
use http_body_util::Limited;
use tower::{ServiceExt, service_fn};

use crate::{
    access::{Access, Visitor},
    body,
    broker::{Broker, ClientInfo, TRACE_PARENT, TRACE_STATE, TraceContext},
    browser::{self, Browsers},
    problem::Problem,
    socket::{ConnectionInfo, Upgrade},
};

/// What stands in front of the interfaces; clones share it.
#[derive(Clone)]
pub struct Front(Arc<Parts>);

/// A response that is being made.
pub type Responding = Pin<Box<dyn Future<Output = Response> + Send>>;

/// What responds to the requests of one route.
pub type Handler = Box<dyn Fn(Visitor, Request<Body>) -> Responding + Send + Sync>;

/// A route that is found without the router. What publishers send all the time need not go through a dozen boxed services.
pub struct Shortcut {
    /// The method.
    pub method: Method,
    /// The path as a whole.
    pub path: &'static str,
    /// What the router has at this route, too.
    pub handler: Handler,
}

/// What it is made of.
pub struct Parts {
    /// The interfaces.
    pub router: Router,
    /// Those of their routes that are used most.
    pub shortcuts: Vec<Shortcut>,
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

    /// The response to a request that came over this connection.
    pub async fn respond(&self, connection: &ConnectionInfo, request: Request<Body>) -> Response {
        let (parts, body) = request.into_parts();
        // The origin comes first: a page may read the refusals that follow, too, and a preflight request carries no
        // credentials.
        let visibility = match self.0.browsers.check(&parts) {
            Ok(visibility) => visibility,
            Err(problem) => return browser::varying((self.0.refuse)(&parts, &problem)),
        };
        match visibility {
            browser::Visibility::Unaffected => self.receive(connection, parts, body).await,
            browser::Visibility::Hidden => browser::varying(self.receive(connection, parts, body).await),
            browser::Visibility::Shown => {
                let (front, connection) = (self.clone(), connection.clone());
                let receive = service_fn(move |request: Request<Body>| {
                    let (front, connection) = (front.clone(), connection.clone());
                    let (parts, body) = request.into_parts();
                    async move { Ok::<_, Infallible>(front.receive(&connection, parts, body).await) }
                });
                // Large, and rare: most requests are not a page's.
                Box::pin(self.0.browsers.show(Request::from_parts(parts, body), receive)).await
            }
        }
    }

    /// The response to a request of whatever page.
    async fn receive(&self, connection: &ConnectionInfo, mut parts: request::Parts, body: Body) -> Response {
        let body = match self.bounded(&parts, body) {
            Ok(body) => body,
            Err(problem) => return problem.into_response(),
        };
        if let Err(problem) = self.check_staying(&parts) {
            return problem.into_response();
        }
        let door = match parts.uri.path() {
            "/ws" => "ws",
            path if path.starts_with("/graphql") => "graphql",
            _ => "rest",
        };
        let from = ClientInfo { door, address: Some(connection.client_address(&parts.headers)) };
        let principal = self.0.access.identify(&parts, connection.certificate.as_deref(), from).await;
        let client = principal.map(|principal| self.0.broker.client(principal, from));
        let visitor = Visitor::new(match trace_context(&parts.headers) {
            Some(trace) => client.map(|client| client.traced(trace)),
            None => client,
        });
        let mut shortcuts = self.0.shortcuts.iter();
        if let Some(shortcut) = shortcuts.find(|known| known.method == parts.method && known.path == parts.uri.path()) {
            return (shortcut.handler)(visitor, Request::from_parts(parts, body)).await;
        }
        parts.extensions.insert(connection.clone());
        parts.extensions.insert(visitor);
        let response = self.0.router.clone().oneshot(Request::from_parts(parts, body)).await;
        response.unwrap_or_else(|never| match never {})
    }

    /// The body within its bound: refused by its `Content-Length`, before it comes, or while it is read if it does not say how
    /// long it is.
    fn bounded(&self, parts: &request::Parts, body: Body) -> Result<Body, Problem> {
        let limit = self.0.max_body_bytes;
        if body.size_hint().exact().is_some_and(|bytes| bytes <= limit as u64) {
            return Ok(body);
        }
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > limit as u64) {
            return Err(body::too_large());
        }
        Ok(Body::new(Limited::new(body, limit)))
    }

    /// Refuses new WebSockets while the server is leaving. A client of GraphQL tries again, perhaps elsewhere, where the
    /// handshake is refused, but takes a refused subscription for its end.
    fn check_staying(&self, parts: &request::Parts) -> Result<(), Problem> {
        if Upgrade::is_asked_for(parts) { self.0.broker.check_staying().map_err(Problem::from) } else { Ok(()) }
    }
}

/// The trace that a request is part of, if its client says so in the one valid way.
fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACE_PARENT).iter();
    let (parent, None) = (parents.next()?, parents.next()) else { return None };
    // Several lines are one list.
    let states = headers.get_all(TRACE_STATE).iter().map(|state| state.to_str());
    let states: Vec<_> = states.collect::<Result<_, _>>().unwrap_or_default();
    TraceContext::parse(parent.to_str().ok()?, Some(states.join(",").as_str()).filter(|state| !state.is_empty()))
}
