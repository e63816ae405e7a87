//! The raw `/ws` door: one JSON object a text frame.

mod fields;
mod protocol;

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    access::{Access, SignIn, Visitor, refuse_connection},
    broker::Inbox,
    problem::Problem,
    socket::{Sockets, Upgrade, UpgradeError},
};
use protocol::Session;

/// The protocol without a connection, for the tests with random inputs alone.
#[cfg(feature = "test-support")]
#[doc(hidden)]
pub mod fuzz {
    pub use super::protocol::Session;
}

/// Bounds of a raw connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Subscriptions on one connection.
    pub max_subscriptions: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_subscriptions: 2_000 }
    }
}

#[derive(Clone)]
struct RawDoor {
    access: Access,
    /// How long a connection may be nobody's where everybody has to say who it is.
    patience: Duration,
    settings: Settings,
    sockets: Sockets,
}

/// The door's routes.
pub fn routes(access: Access, patience: Duration, settings: Settings, sockets: Sockets) -> Router {
    Router::new().route("/ws", get(upgrade)).with_state(RawDoor { access, patience, settings, sockets })
}

async fn upgrade(
    State(door): State<RawDoor>,
    visitor: Visitor,
    upgrade: Result<Upgrade, UpgradeError>,
) -> Result<Response, Problem> {
    let RawDoor { access, patience, settings, sockets } = door;
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(error) => return Ok(error.into_response()),
    };
    let inbox = Inbox::default();
    let sign_in = match SignIn::new(&access, visitor.connecting()?, &inbox, patience) {
        Ok(sign_in) => sign_in,
        Err(error) => return Ok(refuse_connection(&sockets, upgrade, None, error)),
    };
    let session = Session::new(sign_in, &settings, inbox.clone());
    Ok(upgrade.accept_with(&sockets, None, inbox, Box::new(session)))
}
