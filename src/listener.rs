//! Listening: accepts connections and serves HTTP over each, with what is known of the connection in every request.

mod acceptor;
mod addresses;
mod ahead;
mod arrival;
mod chunks;
mod deadline;
mod direct;
mod head;
mod host;
mod http1;
mod http2;
mod pieces;
mod proxy_header;
mod refusal;
mod respond;
mod stream;
mod tls;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub use acceptor::{Acceptor, Shared};
pub use host::{Host, Listeners, NotAHost, bind};
pub use tls::Settings as TlsSettings;

use crate::{
    broker::MetricSample, browser::AllowedOrigins, front::Front, proxies::TrustedProxies, socket::ConnectionInfo,
};

/// Listening, stopping, logging.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub host: Host,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Threads that serve. 0 = one for each core that the process may use.
    pub worker_threads: usize,
    /// How long a stopping server stays open before it drains.
    pub drain_delay: Duration,
    /// How long a draining server waits for its connections.
    pub drain: Duration,
    /// TLS.
    pub tls: TlsSettings,
    /// Proxies that are believed when they say whose connection or request they pass on.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// Connections that may be open.
    pub max_connections: usize,
    /// Connections that one address may have open. 0 = no limit.
    pub max_connections_per_address: usize,
    /// Bytes of one request body.
    pub max_body_bytes: usize,
    /// How long a client may take to send a request.
    pub request_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub keep_alive_timeout: Duration,
    /// The origins whose pages may use the server from a browser, beside its own.
    pub allowed_origins: AllowedOrigins,
    /// What is logged.
    pub log: String,
    /// `text` or `json`.
    pub log_format: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: Host::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            port: 8080,
            worker_threads: 0,
            drain_delay: Duration::ZERO,
            // Container engines kill after ten seconds.
            drain: Duration::from_secs(8),
            tls: TlsSettings::default(),
            trusted_proxies: Arc::default(),
            max_connections: 50_000,
            max_connections_per_address: 0,
            max_body_bytes: 4 << 20,
            request_timeout: Duration::from_secs(30),
            // Load balancers reuse a connection for up to 60 s. If the server closed it first, a request that is on its
            // way would fail.
            keep_alive_timeout: Duration::from_secs(75),
            allowed_origins: AllowedOrigins::default(),
            log: "info".to_owned(),
            log_format: "text".to_owned(),
        }
    }
}

/// Counts the connections that are open; clones share the count.
#[derive(Clone, Default)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// Counts one more connection until the guard is dropped.
    fn enter(&self) -> ConnectionGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(self.0.clone())
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Their metric samples.
    #[must_use]
    pub fn metric_samples(&self) -> Vec<MetricSample> {
        let (name, help) = ("connections", "Connections that are open.");
        vec![MetricSample { name, label: None, counter: false, help, value: self.open() as u64 }]
    }
}

struct ConnectionGuard(Arc<AtomicUsize>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a connection may wait for its client.
#[derive(Clone, Copy)]
struct Times {
    /// For a request.
    request: Duration,
    /// For the next request.
    keep_alive: Duration,
    /// For anything, until the client is asked whether it lives.
    ping: Duration,
    /// For taking what is written.
    write: Duration,
}

/// What all requests of a connection have in common.
struct Served {
    /// What is known of the connection.
    info: ConnectionInfo,
    /// What responds.
    front: Front,
    /// How long it may wait.
    times: Times,
    /// When cancelled, the connection finishes what it is at.
    stop: CancellationToken,
}

fn tune(stream: &TcpStream, write_timeout: Duration) {
    let socket = socket2::SockRef::from(stream);
    // A socket that refuses an option works less well, and nothing can be done about it.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_keepalive(true);
    // The kernel then drops a peer that is gone or takes nothing, also where no timer of ours watches it.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(write_timeout));
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
}
