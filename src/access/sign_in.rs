//! Whose messages come over a WebSocket: they may say so by a header of the upgrade, or later by a message.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::Access;
use crate::{
    broker::{Client, ClientConnection, Error, Inbox, Principal, Watch},
    problem::Problem,
    socket::{CloseCode, ClosesAtOnce, Sockets, Upgrade},
};

/// The key under which a connection's inbox announces that what its client may do has changed. No subscription has it.
pub const ACCESS_CHANGED: u64 = u64::MAX;

/// The response to an upgrade that is one connection of the principal too many. The connection is made and closed with 1013,
/// because browsers hide the response to a refused upgrade from the page.
pub fn refuse_connection(
    sockets: &Sockets,
    upgrade: Upgrade,
    subprotocol: Option<&'static str>,
    error: Error,
) -> Response {
    let Error::LimitReached { .. } = error else { return Problem::from(error).into_response() };
    let reason = "the principal has as many connections as it may";
    upgrade
        .accept(sockets, subprotocol, |_| Box::new(ClosesAtOnce { code: CloseCode::TRY_AGAIN_LATER, reason, held: () }))
}

/// The client of one WebSocket.
pub struct SignIn {
    access: Access,
    client: Client,
    inbox: Inbox,
    watch: Watch,
    /// Counts for the bound of the principal.
    connection: ClientConnection,
    /// How long it may be nobody.
    patience: Duration,
    /// When that is over.
    until: Option<Instant>,
}

impl SignIn {
    /// As the upgrade says. A connection that is nobody's ends when it has not signed in after `patience`.
    ///
    /// # Errors
    /// [`Error::LimitReached`] for one connection of the principal too many.
    pub fn new(access: &Access, client: Client, inbox: &Inbox, patience: Duration) -> Result<Self, Error> {
        let connection = client.connect("websocket")?;
        let watch = client.watch(inbox, ACCESS_CHANGED);
        let mut sign_in =
            Self { access: access.clone(), client, inbox: inbox.clone(), watch, connection, patience, until: None };
        sign_in.look_again();
        Ok(sign_in)
    }

    /// The client as it is now.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it has not said who it is, and may do nothing before it does; also when its credentials are not valid any
    /// more.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.client.principal().may_nothing() && self.needs_credentials()
    }

    /// Whether credentials are needed that it has not got.
    #[must_use]
    pub fn needs_credentials(&self) -> bool {
        self.client.principal().is_anonymous() || self.client.principal().check_valid().is_err()
    }

    /// Finds out whose credential this is.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`.
    pub fn authenticate(&self, credential: String) -> impl Future<Output = Result<Principal, Problem>> + Send + use<> {
        let (access, info) = (self.access.clone(), self.client.info());
        async move { access.authenticate(&credential, info).await }
    }

    /// Counts and logs credentials that cannot be read.
    #[must_use]
    pub fn refuse_malformed(&self, error: &Error) -> Problem {
        self.access.refuse_malformed(error, self.client.info())
    }

    /// From here on the messages are this principal's. It may be the same one with a newer credential.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the connection is another principal's, [`Error::LimitReached`] for one connection too many.
    pub fn sign_in(&mut self, principal: Principal) -> Result<(), Error> {
        let current = self.client.principal();
        if !current.is_anonymous() && !current.is(&principal) {
            return Err(current.not_this_connection());
        }
        if !current.is(&principal) {
            self.connection.pass_to(principal.connect()?);
        }
        self.client = self.client.acting_for(principal);
        self.watch = self.client.watch(&self.inbox, ACCESS_CHANGED);
        self.look_again();
        Ok(())
    }

    /// To be called for [`ACCESS_CHANGED`].
    pub fn look_again(&mut self) {
        self.watch.rearm();
        self.until = match (self.is_nobody(), self.until) {
            (false, _) => None,
            (true, Some(until)) => Some(until),
            (true, None) => Some(Instant::now() + self.patience),
        };
    }

    /// When the connection is to be closed because it is nobody's.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}
