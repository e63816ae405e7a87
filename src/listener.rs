//! Listening: accepts connections and serves HTTP over each, with what is known of the connection in every request.

mod deadline;
mod host;
mod refusal;
mod respond;
mod stream;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use deadline::{Activity, Answering, Deadline, Watched};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub use host::{Host, NotAHost, bind};
pub use refusal::Refusals;
use respond::{WatchedBody, respond};
use stream::HttpStream;

use crate::{broker::MetricSample, browser::AllowedOrigins, socket::ConnectionInfo};

/// Listening, stopping, logging.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub host: Host,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// How long a stopping server stays open before it drains.
    pub drain_delay: Duration,
    /// How long a draining server waits for its connections.
    pub drain: Duration,
    /// Connections that may be open.
    pub max_connections: usize,
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
            drain_delay: Duration::ZERO,
            // Container engines kill after ten seconds.
            drain: Duration::from_secs(8),
            max_connections: 50_000,
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

/// Serves one connection; after `stop` it finishes what it is at.
pub fn serve(
    stream: TcpStream,
    peer: std::net::SocketAddr,
    app: Router,
    settings: &Settings,
    write_timeout: Duration,
    connections: &Connections,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    tune(&stream, write_timeout);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.max_buf_size(64 << 10);
    let unread = Arc::new(AtomicBool::new(false));
    let info = ConnectionInfo { peer, certificate: None, guard: Arc::new(connections.enter()) };
    let activity = Activity::new();
    let mut deadline = Deadline::new(activity.clone(), settings.request_timeout, settings.keep_alive_timeout);
    let stream = TokioIo::new(HttpStream::new(Watched { stream, activity: activity.clone() }, unread.clone()));
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let guard = activity.request();
        let mut request = request.map(|body| axum::body::Body::new(WatchedBody::new(body, unread.clone())));
        // A WebSocket outlives its HTTP connection: the guard goes with whichever lives longer.
        request.extensions_mut().insert(info.clone());
        let response = respond(app.clone(), request);
        async move { Ok::<_, Infallible>(response.await.map(|body| Answering { body, _guard: guard })) }
    });
    let serving = http.serve_connection(stream, service).with_upgrades();
    async move {
        let mut serving = pin!(serving);
        let stopped = tokio::select! {
            // The deadline depends on what the connection has just done.
            biased;
            // An error is a client that broke the rules or went away: hyper has sent what responses can be sent.
            _ = serving.as_mut() => false,
            () = poll_fn(|cx| deadline.poll(cx)) => false,
            () = stop.cancelled() => true,
        };
        if stopped {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                _ = serving => {}
                () = poll_fn(|cx| deadline.poll(cx)) => {}
            }
        }
    }
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
