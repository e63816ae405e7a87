//! Joins the doors: accepts connections, serves them, and stops in good order.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    broker::Broker,
    config::Config,
    graphql, metrics,
    problem::{Code, Problem},
    rest,
    socket::{ConnectionInfo, Sockets},
    ws,
};

/// Listening, stopping, logging.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// How long a stopping server waits for its connections.
    pub drain: Duration,
    /// Connections that may be open.
    pub max_connections: usize,
    /// Bytes of one request body.
    pub max_body_bytes: usize,
    /// How long a client may take to send a request.
    pub request_timeout: Duration,
    /// What is logged.
    pub log: String,
    /// `text` or `json`.
    pub log_format: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 8080,
            // Container engines kill after ten seconds.
            drain: Duration::from_secs(8),
            max_connections: 50_000,
            max_body_bytes: 4 << 20,
            request_timeout: Duration::from_secs(30),
            log: "info".to_owned(),
            log_format: "text".to_owned(),
        }
    }
}

/// How often positions of forgotten consumers are looked for.
const SWEEP: Duration = Duration::from_mins(1);

/// Connections that are open; a guard for each.
#[derive(Clone, Default)]
struct Connections(Arc<AtomicUsize>);

impl Connections {
    fn enter(&self) -> Connected {
        self.0.fetch_add(1, Ordering::Relaxed);
        Connected(self.0.clone())
    }

    fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Connected(Arc<AtomicUsize>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves on `listener` until `stop` is cancelled, then drains: the listener is closed, subscribers are told, what was
/// accepted is flushed. What is not done after the drain time is dropped.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(listener: TcpListener, config: Config, stop: CancellationToken) -> io::Result<()> {
    let engine = config.engine.engine(config.broker.engine_bounds()).map_err(io::Error::other)?;
    let broker = Broker::open(config.broker.clone(), engine).await.map_err(io::Error::other)?;
    let connections = Connections::default();
    let tasks = TaskTracker::new();
    // What is open ends later than what is begun: only when every publish is answered is it known what is still to come.
    let settled = CancellationToken::new();
    let sockets = Sockets { settings: Arc::new(config.socket.clone()), tasks: tasks.clone(), stop: settled.clone() };
    let app = app(&broker, &config, &sockets, &connections);
    tracing::info!(addr = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "listening");

    let hard = CancellationToken::new();
    let mut sweeping = interval(SWEEP);
    sweeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            _ = sweeping.tick() => {
                broker.sweep();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if connections.open() >= config.server.max_connections => refuse(&stream),
            Ok((stream, peer)) => {
                let info = ConnectionInfo { peer, guard: Arc::new(connections.enter()) };
                let connection = connection(stream, app.clone(), &config, info, &settled);
                let hard = hard.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = connection => {}
                        () = hard.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: waiting lets some go, spinning does not.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    broker.drain();
    let open = connections.open();
    tracing::info!(connections = open, seconds = config.server.drain.as_secs(), "draining");
    let until = Instant::now() + config.server.drain;
    // Half of the time is left for those who are to be told.
    let _ = timeout(config.server.drain / 2, broker.settled()).await;
    settled.cancel();
    tasks.close();
    if timeout_at(until, tasks.wait()).await.is_err() {
        tracing::warn!(connections = connections.open(), "the drain time is over; dropping what is left");
        hard.cancel();
    }
    broker.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Serves one connection; after `stop` it finishes what it is at.
fn connection(
    stream: TcpStream,
    app: Router,
    config: &Config,
    info: ConnectionInfo,
    stop: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    tune(&stream, config.socket.write_timeout);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(config.server.request_timeout).max_buf_size(64 << 10);
    let stop = stop.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let app = app.clone();
        let mut request = request.map(axum::body::Body::new);
        // A WebSocket outlives its HTTP connection: the guard goes with whichever lives longer.
        request.extensions_mut().insert(info.clone());
        async move {
            let response: Response = app.oneshot(request).await.unwrap_or_else(|never| match never {});
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    async move {
        let mut serving = std::pin::pin!(serving);
        let stopped = tokio::select! {
            // An error is a client that broke the rules or went away: hyper has answered what can be answered.
            _ = serving.as_mut() => false,
            () = stop.cancelled() => true,
        };
        if stopped {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

fn tune(stream: &TcpStream, write_timeout: Duration) {
    let socket = socket2::SockRef::from(stream);
    // Errors leave a socket that works less well: nothing to do about them.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_keepalive(true);
    // A peer that is gone, or takes nothing, is dropped by the kernel also where no loop of ours looks.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(write_timeout));
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
}

/// Tells a client that there is no room, without waiting for it.
fn refuse(stream: &TcpStream) {
    let problem = Problem::new(Code::LimitReached, "too many connections (MAX_CONNECTIONS)");
    let (status, body) = (problem.status(), serde_json::to_string(&problem.body()).unwrap_or_default());
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(answer.as_bytes());
}

fn app(broker: &Broker, config: &Config, sockets: &Sockets, connections: &Connections) -> Router {
    let started = Instant::now();
    let open = connections.clone();
    let rest = rest::routes(rest::Context {
        broker: broker.clone(),
        started,
        connections: Arc::new(move || open.open()),
        heartbeat: config.socket.ping_interval,
        request_timeout: config.server.request_timeout,
        stop: sockets.stop.clone(),
    });
    let (graphql, counts) = graphql::routes(
        graphql::Context {
            broker: broker.clone(),
            started,
            sockets: sockets.clone(),
            heartbeat: config.socket.ping_interval,
            request_timeout: config.server.request_timeout,
        },
        config.graphql.clone(),
    );
    let ws = ws::routes(broker.clone(), config.ws.clone(), sockets.clone());
    let metrics = metrics::routes(Arc::new({
        let (broker, connections) = (broker.clone(), connections.clone());
        move || samples(&broker, &connections, &counts)
    }));
    rest.merge(graphql)
        .merge(ws)
        .merge(metrics)
        .fallback(|| async { Problem::new(Code::NotFound, "there is nothing at this path") })
        .layer(DefaultBodyLimit::max(config.server.max_body_bytes))
        .layer(middleware::from_fn(finish))
        .layer(middleware::from_fn({
            let limit = config.server.max_body_bytes;
            move |request, next| refuse_announced(limit, request, next)
        }))
}

fn samples(broker: &Broker, connections: &Connections, graphql: &graphql::Counts) -> Vec<metrics::Sample> {
    let totals = broker.totals();
    let sample = |name, counter, help, value| metrics::Sample { name, counter, help, value };
    let engine = broker.engine_metrics().into_iter();
    let engine = engine.map(|own| sample(own.name, own.counter, own.help, own.value));
    let count = |number: usize| number as u64;
    let own = vec![
        sample("topics", false, "Topics that exist.", count(totals.topics)),
        sample("subscriptions", false, "Live subscriptions.", count(totals.subscriptions)),
        sample("connections", false, "Connections that are open.", count(connections.open())),
        sample("patterns", false, "Different patterns that are subscribed.", count(totals.patterns)),
        sample("history_messages", false, "Messages that all histories keep.", count(totals.messages)),
        sample("history_bytes", false, "Bytes that all histories take in memory.", count(totals.history_bytes)),
        sample(
            "dedup_bytes",
            false,
            "Bytes of message ids whose messages are not kept any more.",
            count(totals.dedup_bytes),
        ),
        sample(
            "dedup_forgotten_early_total",
            true,
            "Message ids forgotten before DEDUP_WINDOW was over, because DEDUP_BYTES was used up.",
            totals.dedup_forgotten_early,
        ),
        sample("messages_published_total", true, "Messages accepted since the start.", totals.published),
        sample(
            "graphql_renderings_made_total",
            true,
            "Messages executed and written as JSON for GraphQL subscribers.",
            graphql.renderings_made(),
        ),
        sample(
            "graphql_renderings_wanted_total",
            true,
            "Renderings delivered to GraphQL subscribers, made or shared.",
            graphql.renderings_wanted(),
        ),
        sample(
            "graphql_document_cache_bytes",
            false,
            "Bytes of checked GraphQL documents that are kept.",
            count(graphql.document_bytes()),
        ),
    ];
    own.into_iter().chain(engine).collect()
}

/// A body that announces itself as too large is refused before it comes.
async fn refuse_announced(limit: usize, request: Request, next: Next) -> Response {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Problem::new(Code::PayloadTooLarge, "body: is too large (MAX_BODY_BYTES)").into_response();
    }
    next.run(request).await
}

/// What holds for every answer.
async fn finish(request: Request, next: Next) -> Response {
    let is_head = request.method() == Method::HEAD;
    let response = next.run(request).await;
    let mut response = match response.status() {
        // The router says it without a body.
        StatusCode::METHOD_NOT_ALLOWED if !response.headers().contains_key(header::CONTENT_TYPE) => {
            let allow = response.headers().get(header::ALLOW).cloned();
            let allow = allow.map(|methods| (header::ALLOW, methods));
            Problem::new(Code::MethodNotAllowed, "this path has other methods")
                .with_http(StatusCode::METHOD_NOT_ALLOWED, allow)
                .into_response()
        }
        _ => response,
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_head {
        *response.body_mut() = axum::body::Body::empty();
    }
    response
}
