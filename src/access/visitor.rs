//! Who has sent a request, as the server has found out before any interface sees it.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};

use crate::{
    broker::{Client, ClientInfo, Error},
    problem::Problem,
};

/// What the server puts into the extensions of every request.
#[derive(Clone)]
pub struct Visitor(Result<Client, Problem>);

/// What is said to a request that the server has not looked at.
const NOT_LOOKED_AT: Error = Error::Unavailable("nobody has looked at who sends this request");

impl Visitor {
    /// Whoever the credentials name, or nobody known where there are none. `Err` says why the credentials are bad.
    #[must_use]
    pub fn new(client: Result<Client, Problem>) -> Self {
        Self(client)
    }

    /// The visitor of a request.
    #[must_use]
    pub fn of(parts: &Parts) -> Self {
        parts.extensions.get().cloned().unwrap_or_else(|| Self(Err(NOT_LOOKED_AT.into())))
    }

    /// The client of a request that is served at once. Whoever may do nothing at all is told to say who it is, whatever it
    /// asks for.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`.
    pub fn client(self) -> Result<Client, Problem> {
        let client = self.0?;
        if client.principal().is_anonymous() && client.principal().may_nothing() {
            return Err(client.principal().has_to_sign_in().into());
        }
        Ok(client)
    }

    /// Where it has come in.
    #[must_use]
    pub fn info(&self) -> ClientInfo {
        self.0.as_ref().map_or(ClientInfo { door: "rest", address: None }, Client::info)
    }

    /// The client of a connection whose messages may still say who it is.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for bad credentials.
    pub fn connecting(self) -> Result<Client, Problem> {
        self.0.map(Client::untraced)
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

/// The client that has sent a request.
pub struct Caller(pub Client);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Visitor::of(parts).client().map(Self)
    }
}
