//! The raw `/ws` door: one JSON object a text frame.

mod protocol;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    broker::Broker,
    problem::Problem,
    socket::{Sockets, Upgrade, UpgradeError},
};
use protocol::Session;

/// What is said on a connection, without the connection, for the fuzz targets alone.
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
struct Door {
    broker: Broker,
    settings: Settings,
    sockets: Sockets,
}

/// The door's routes.
pub fn routes(broker: Broker, settings: Settings, sockets: Sockets) -> Router {
    Router::new().route("/ws", get(upgrade)).with_state(Door { broker, settings, sockets })
}

async fn upgrade(State(door): State<Door>, upgrade: Result<Upgrade, UpgradeError>) -> Response {
    match upgrade {
        Ok(upgrade) => {
            let Door { broker, settings, sockets } = door;
            upgrade.accept(&sockets, None, |inbox| Box::new(Session::new(broker, &settings, inbox)))
        }
        Err(error) => Problem::from(error).into_response(),
    }
}
