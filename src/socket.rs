//! WebSockets for the doors that speak over them: the upgrade, the frames, and the connections that move them.
//!
//! The frames are our own (`frame.rs`) because of what delivery needs: messages rendered once are copied straight into
//! one buffer, all that is pending leaves in one write, an idle connection holds two small buffers, and after a close frame
//! the connection still reads, so that the client gets to see the code. The `tungstenite` crate helps with the handshake.
//! The tests use it as their client, because it is another implementation.

mod connection;
mod frame;
mod heartbeat;
mod protocol;
mod utf8;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request::Parts},
    response::IntoResponse,
};
use hyper_util::rt::TokioIo;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use connection::Connection;
pub use frame::{CloseCode, Outbox};
pub use protocol::{ClosesAtOnce, Flow, Protocol};

use crate::{
    broker::Inbox,
    headers,
    problem::{Code, Problem},
};

/// The reader of frames, for the fuzz targets alone.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz {
    pub use super::frame::{Inbound, Incoming};
}

/// Bounds and times of every WebSocket.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes asked of the socket at once, and kept for reading by an idle connection.
    pub read_buffer_size: usize,
    /// Bytes kept for writing by an idle connection; pending messages are gathered beyond it.
    pub write_buffer_size: usize,
    /// Bytes of one message from a client, all its frames together.
    pub max_frame_bytes: usize,
    /// How long a client may send nothing before it is pinged. When it sends nothing for as long again, it is dropped.
    pub ping_interval: Duration,
    /// How long a client may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// Malformed messages in a row before the connection is closed with 1008.
    pub max_malformed_frames: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            read_buffer_size: 1_024,
            write_buffer_size: 1_024,
            max_frame_bytes: (1 << 20) + (64 << 10),
            ping_interval: Duration::from_secs(30),
            // A client that pauses reads on from the history later, so this may be long: it only ends those that never do.
            write_timeout: Duration::from_mins(5),
            max_malformed_frames: 100,
        }
    }
}

/// What the connections of one server share: their bounds, the tracker of their tasks, and the signal to stop.
#[derive(Clone)]
pub struct Sockets {
    /// Bounds and times.
    pub settings: Arc<Settings>,
    /// Every connection is a task here.
    pub tasks: TaskTracker,
    /// When cancelled, connections deliver what was accepted and close.
    pub stop: CancellationToken,
}

/// A request to become a WebSocket.
pub struct Upgrade {
    accept: HeaderValue,
    offered: Vec<String>,
    pending: hyper::upgrade::OnUpgrade,
    connection: Option<ConnectionInfo>,
}

/// What the server knows of a connection and puts into the extensions of each of its requests.
#[derive(Clone)]
pub struct ConnectionInfo {
    /// The client's address, or that of the proxy in front of it.
    pub peer: SocketAddr,
    /// The subject of the client's certificate, if it has shown one.
    pub certificate: Option<Arc<str>>,
    /// Lives until the connection's end, WebSocket or not: the server counts by it.
    pub guard: Arc<dyn Send + Sync>,
}

/// Why a request cannot become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeError {
    /// It does not ask for it.
    NotAWebSocket,
    /// It asks for a version other than 13.
    Version,
    /// A header of the handshake is missing, malformed or repeated.
    Malformed(&'static str),
}

impl IntoResponse for UpgradeError {
    fn into_response(self) -> Response<Body> {
        let message = match self {
            UpgradeError::NotAWebSocket => {
                "this is a WebSocket endpoint: the request needs Upgrade: websocket and Connection: Upgrade, in HTTP/1.1"
            }
            UpgradeError::Version => "only WebSocket version 13 is spoken here",
            UpgradeError::Malformed(what) => return Problem::new(Code::BadRequest, what).into_response(),
        };
        let upgrade = (header::UPGRADE, HeaderValue::from_static("websocket"));
        let problem = Problem::new(Code::BadRequest, message).with_http(StatusCode::UPGRADE_REQUIRED, Some(upgrade));
        let mut response = problem.into_response();
        let own = response.headers_mut();
        // RFC 9110, 7.8: whoever sends Upgrade names it in Connection. RFC 6455, 4.4: the version that is spoken here.
        own.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        own.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        response
    }
}

/// Whether a `Sec-WebSocket-Key` is 16 bytes in base64.
fn is_key(key: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.len() == 24 && key.strip_suffix("==").is_some_and(|key| key.bytes().all(is_base64))
}

/// A header of the handshake that must be given once.
fn required<'a>(headers: &'a HeaderMap, name: &'static str, wrong: UpgradeError) -> Result<&'a str, UpgradeError> {
    let repeated = UpgradeError::Malformed("Sec-WebSocket-Key and Sec-WebSocket-Version may be given only once");
    headers::single(headers, name).map_err(|_| repeated)?.ok_or(wrong)
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = UpgradeError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, UpgradeError> {
        let headers = &parts.headers;
        if !Self::is_asked_for(parts) {
            return Err(UpgradeError::NotAWebSocket);
        }
        if required(headers, "Sec-WebSocket-Version", UpgradeError::Version)? != "13" {
            return Err(UpgradeError::Version);
        }
        let wrong = UpgradeError::Malformed("Sec-WebSocket-Key must be 16 bytes in base64");
        let key = required(headers, "Sec-WebSocket-Key", wrong)?;
        if !is_key(key) {
            return Err(wrong);
        }
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let accept = HeaderValue::from_str(&accept).map_err(|_| wrong)?;
        let offered = headers::items(headers, "Sec-WebSocket-Protocol").map(str::to_owned).collect();
        let pending = parts.extensions.remove().ok_or(UpgradeError::NotAWebSocket)?;
        let connection = parts.extensions.get().cloned();
        Ok(Self { accept, offered, pending, connection })
    }
}

impl Upgrade {
    /// Whether a request asks to become a WebSocket. `Upgrade` for other protocols, and in HTTP/1.0, counts as absent (RFC 9110,
    /// 7.8).
    #[must_use]
    pub fn is_asked_for(parts: &Parts) -> bool {
        parts.method == Method::GET
            && parts.version == Version::HTTP_11
            && headers::has_token(&parts.headers, "Connection", "upgrade")
            && headers::has_token(&parts.headers, "Upgrade", "websocket")
    }

    /// The subprotocols that the client offers, in its order.
    #[must_use]
    pub fn offered(&self) -> &[String] {
        &self.offered
    }

    /// [`Upgrade::accept_with`] for a protocol that needs no inbox before.
    pub fn accept(
        self,
        sockets: &Sockets,
        subprotocol: Option<&'static str>,
        protocol: impl FnOnce(Inbox) -> Box<dyn Protocol>,
    ) -> Response<Body> {
        let inbox = Inbox::default();
        let protocol = protocol(inbox.clone());
        self.accept_with(sockets, subprotocol, inbox, protocol)
    }

    /// Returns the response 101 and runs `protocol` over the connection as a task of its own. The inbox is the one that its
    /// subscriptions announce their news in.
    pub fn accept_with(
        self,
        sockets: &Sockets,
        subprotocol: Option<&'static str>,
        inbox: Inbox,
        protocol: Box<dyn Protocol>,
    ) -> Response<Body> {
        let (settings, stop) = (sockets.settings.clone(), sockets.stop.clone());
        let (pending, connection) = (self.pending, self.connection);
        sockets.tasks.spawn(async move {
            // An error here is a client that went away during the handshake: nobody is left to send a response to.
            if let Ok(upgraded) = pending.await {
                let peer = connection.as_ref().map(|connection| connection.peer);
                Connection::new(TokioIo::new(upgraded), protocol, inbox, settings, peer, stop).run().await;
            }
            // The guard lives until here.
            drop(connection);
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(name) = subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        response
    }
}
