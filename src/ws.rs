//! The raw `/ws` door: one JSON object a text frame.

mod protocol;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    broker::Client,
    socket::{Sockets, Upgrade, UpgradeError},
};
use protocol::Session;

/// The protocol without a connection, for the fuzz targets alone.
#[cfg(fuzzing)]
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
    client: Client,
    settings: Settings,
    sockets: Sockets,
}

/// The door's routes.
pub fn routes(client: Client, settings: Settings, sockets: Sockets) -> Router {
    Router::new().route("/ws", get(upgrade)).with_state(RawDoor { client, settings, sockets })
}

async fn upgrade(State(door): State<RawDoor>, upgrade: Result<Upgrade, UpgradeError>) -> Response {
    match upgrade {
        Ok(upgrade) => {
            let RawDoor { client, settings, sockets } = door;
            upgrade.accept(&sockets, None, |inbox| Box::new(Session::new(client, &settings, inbox)))
        }
        Err(error) => error.into_response(),
    }
}
