//! WebSockets for the doors that speak over them: the upgrade, the frames, and the connections that move them.
//!
//! The frames are our own (`frame.rs`, `outbox.rs`) because of what delivery needs: messages rendered once are copied straight into
//! one buffer, all that is pending leaves in one write, an idle connection holds no buffer, and after a close frame
//! the connection still reads, so that the client gets to see the code. The `tungstenite` crate helps with the handshake.
//! The tests use it as their client, because it is another implementation.

mod connection;
mod frame;
mod heartbeat;
mod outbox;
mod protocol;
mod stops;
mod utf8;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request::Parts},
    response::IntoResponse,
};
use hyper_util::rt::TokioIo;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use connection::Connection;
pub use frame::CloseCode;
pub use outbox::Outbox;
pub use protocol::{ClosesAtOnce, Flow, Protocol};
pub use stops::Stops;

use crate::{
    broker::Inbox,
    headers,
    problem::{Code, Problem},
    proxies::TrustedProxies,
};

/// The reader of frames, for the tests with random inputs alone.
#[cfg(feature = "test-support")]
#[doc(hidden)]
pub mod fuzz {
    pub use super::frame::{Inbound, Incoming};
}

/// Bounds and times of every WebSocket.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes asked of the socket at once at first.
    pub read_buffer_size: usize,
    /// Bytes with which the buffer for writing begins; pending messages are gathered beyond it.
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
    /// When cancelled, the server drains: connections that wait for nothing close.
    pub stop: CancellationToken,
    /// When told, those that stay open for subscribers deliver what was accepted and close.
    pub stops: Stops,
}

/// A request to become a WebSocket.
pub struct Upgrade {
    /// The response to the client's key. HTTP/2 has none.
    accept: Option<HeaderValue>,
    offered: Vec<String>,
    pending: hyper::upgrade::OnUpgrade,
    connection: Option<ConnectionInfo>,
}

/// What the server knows of a connection and puts into the extensions of each of its requests.
#[derive(Clone)]
pub struct ConnectionInfo {
    /// The client's address, or that of the proxy in front of it. A proxy that speaks the PROXY protocol has said whose it is.
    pub peer: SocketAddr,
    /// The subject of the client's certificate as RFC 4514 writes it, such as `CN=billing,O=Example`.
    pub certificate: Option<Arc<str>>,
    /// Where `peer` is a trusted proxy: those that are believed in `X-Forwarded-For`.
    pub proxies: Option<Arc<TrustedProxies>>,
    /// Lives until the connection's end, WebSocket or not: the server counts by it.
    pub guard: Arc<dyn Send + Sync>,
}

impl ConnectionInfo {
    /// The address of the client whose request has these headers: that of the connection, or the one that trusted proxies give.
    #[must_use]
    pub fn client_address(&self, headers: &HeaderMap) -> IpAddr {
        let peer = self.peer.ip();
        self.proxies.as_ref().map_or_else(|| peer.to_canonical(), |proxies| proxies.client_address(peer, headers))
    }
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

/// The response to the key of a handshake in HTTP/1.1.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, UpgradeError> {
    let wrong = UpgradeError::Malformed("Sec-WebSocket-Key must be 16 bytes in base64");
    let key = required(headers, "Sec-WebSocket-Key", wrong)?;
    if !is_key(key) {
        return Err(wrong);
    }
    HeaderValue::from_str(&tungstenite::handshake::derive_accept_key(key.as_bytes())).map_err(|_| wrong)
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
        let accept = if parts.version == Version::HTTP_2 { None } else { Some(accept_key(headers)?) };
        let offered = headers::items(headers, "Sec-WebSocket-Protocol").map(str::to_owned).collect();
        let pending = parts.extensions.remove().ok_or(UpgradeError::NotAWebSocket)?;
        let connection = parts.extensions.get().cloned();
        Ok(Self { accept, offered, pending, connection })
    }
}

impl Upgrade {
    /// Whether a request asks to become a WebSocket. `Upgrade` for other protocols, and in HTTP/1.0, counts as absent (RFC 9110,
    /// 7.8). In HTTP/2 the request is an extended CONNECT (RFC 8441), which the listener hands on as the GET of HTTP/1.1 that it
    /// stands for.
    #[must_use]
    pub fn is_asked_for(parts: &Parts) -> bool {
        let is_extended_connect = parts.version == Version::HTTP_2
            && parts.extensions.get().is_some_and(|protocol: &hyper::ext::Protocol| protocol.as_str() == "websocket");
        if is_extended_connect {
            return parts.method == Method::GET;
        }
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
        let (settings, stop) = (sockets.settings.clone(), sockets.stops.join());
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
        if let Some(accept) = self.accept {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        let headers = response.headers_mut();
        if let Some(name) = subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        response
    }
}
