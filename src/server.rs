//! Joins the doors, accepts their connections, and stops in good order.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{self, Access},
    body,
    broker::{Broker, ClientInfo, Principal},
    browser::{self, Browsers},
    config::Config,
    graphql,
    listener::{self, Acceptor, Connections, Listeners},
    metrics, pages,
    problem::{Code, Problem},
    rest,
    socket::{ConnectionInfo, Sockets, Upgrade},
    ws,
};

/// How often positions of consumers that nobody uses any more are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Serves on `listeners` until `stop` is cancelled. For the drain delay it then stays open, not ready and without new
/// subscriptions. After that it drains: it closes the listeners, delivers what was accepted, and closes the connections. What
/// is not done after the drain time is dropped.
///
/// # Errors
/// When a listener cannot be used, or a setting's file is broken.
pub async fn serve(listeners: impl Into<Listeners>, config: Config, stop: CancellationToken) -> io::Result<()> {
    let listeners = listeners.into();
    // Before anything is opened that would have to be closed.
    config.server.tls.check().map_err(io::Error::other)?;
    let access = Access::open(&config.access, config.broker.max_publish_rate_per_client).map_err(io::Error::other)?;
    let engine = config.engine.engine(config.broker.engine_bounds()).map_err(io::Error::other)?;
    let broker = Broker::open(config.broker.clone(), engine).await.map_err(io::Error::other)?;
    let connections = Connections::default();
    let tasks = TaskTracker::new();
    // Cancelled after every publish has its reply: only then it is known what subscribers are still to get.
    let settled = CancellationToken::new();
    let sockets = Sockets { settings: Arc::new(config.socket.clone()), tasks: tasks.clone(), stop: settled.clone() };
    let app = app(&broker, &access, &config, &sockets, &connections);
    say_who_may_come_in(&access, &config);
    tasks.spawn(access.clone().keep_up_to_date(settled.clone()));
    let hard = CancellationToken::new();
    let settings = config.server.clone();
    let shared = listener::Shared { app, settings, connections: connections.clone(), sockets, hard: hard.clone() };
    let acceptor = Acceptor::new(shared).map_err(io::Error::other)?;
    for (addr, tls) in listeners.addresses()? {
        tracing::info!(%addr, tls = tls && acceptor.has_tls(), version = env!("CARGO_PKG_VERSION"), "listening");
    }
    accept(&listeners, &broker, stop.cancelled(), &acceptor).await;
    let delay = config.server.drain_delay;
    if !delay.is_zero() {
        tracing::info!(seconds = delay.as_secs_f64(), "not ready any more; the drain begins after the delay");
        broker.leave();
        accept(&listeners, &broker, sleep(delay), &acceptor).await;
    }
    drop(listeners);
    broker.drain();
    let open = connections.open();
    tracing::info!(connections = open, seconds = config.server.drain.as_secs(), "draining");
    let until = Instant::now() + config.server.drain;
    // The other half of the time is left for telling subscribers.
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

/// Accepts connections until `end`.
async fn accept(listeners: &Listeners, broker: &Broker, end: impl Future<Output = ()>, acceptor: &Acceptor) {
    let mut end = pin!(end);
    let mut sweeping = interval(SWEEP_INTERVAL);
    sweeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            () = end.as_mut() => return,
            _ = sweeping.tick() => {
                broker.sweep();
                continue;
            }
            accepted = listeners.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer, is_tls)) => acceptor.accept(stream, peer, is_tls),
            Err(error) => {
                // Most likely the process is out of file descriptors: waiting lets some be closed, trying again at once
                // does not.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// The one line of the log that says whether everybody may do everything.
fn say_who_may_come_in(access: &Access, config: &Config) {
    if !access.is_restricted() {
        tracing::warn!(
            "everybody who reaches the server may do everything; API_KEY, ACCESS_FILE or JWT_* restrict access"
        );
    }
    for warning in config.access.warnings() {
        tracing::warn!("{warning}");
    }
}

fn app(broker: &Broker, access: &Access, config: &Config, sockets: &Sockets, connections: &Connections) -> Router {
    let started = Instant::now();
    let (heartbeat, request_timeout) = (config.socket.ping_interval, config.server.request_timeout);
    let open = connections.clone();
    let rest = rest::routes(rest::Context {
        probe: broker.client(Principal::nobody(), ClientInfo { door: "rest", address: None }),
        started,
        connections: Arc::new(move || open.open()),
        heartbeat,
        request_timeout,
        stop: sockets.stop.clone(),
    });
    let sockets = sockets.clone();
    let context =
        graphql::Context { access: access.clone(), started, sockets: sockets.clone(), heartbeat, request_timeout };
    let (graphql, counts) = graphql::routes(context, config.graphql.clone());
    let ws = ws::routes(access.clone(), config.graphql.connection_init_timeout, config.ws.clone(), sockets);
    let reception =
        Reception { broker: broker.clone(), access: access.clone(), max_body_bytes: config.server.max_body_bytes };
    let (broker, access, connections) = (broker.clone(), access.clone(), connections.clone());
    let sign_in = access::routes(access.clone());
    let metrics = metrics::routes(vec![
        Box::new(move || broker.metric_samples()),
        Box::new(move || connections.metric_samples()),
        Box::new(move || counts.metric_samples()),
        Box::new(move || access.metric_samples()),
    ]);
    rest.merge(graphql)
        .merge(pages::routes())
        .merge(ws)
        .merge(metrics)
        .merge(sign_in)
        .fallback(|| async { Problem::new(Code::NotFound, "there is nothing at this path") })
        .layer(DefaultBodyLimit::max(config.server.max_body_bytes))
        .layer(middleware::from_fn_with_state(reception, receive))
        // The outermost: a page may read refusals, too, and a preflight request carries no credentials.
        .layer(middleware::from_fn({
            let browsers = Arc::new(Browsers::new(config.server.allowed_origins.clone()));
            move |request, next| check_origin(browsers.clone(), request, next)
        }))
}

/// Refuses what a page of a foreign origin may not do, in the form of errors of the path that it asks for.
async fn check_origin(browsers: Arc<Browsers>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match browsers.check(&parts) {
        Ok(visibility) => browsers.serve(visibility, Request::from_parts(parts, body), next).await,
        Err(problem) if graphql::PATHS.contains(&parts.uri.path()) => {
            browser::varying(graphql::refuse(&parts.headers, &problem))
        }
        Err(problem) => browser::varying(problem.into_response()),
    }
}

/// What every request passes before any interface sees it.
#[derive(Clone)]
struct Reception {
    broker: Broker,
    access: Access,
    max_body_bytes: usize,
}

/// Refuses what no interface has to see, and finds out who sends the request.
async fn receive(State(reception): State<Reception>, request: Request, next: Next) -> Response {
    let Reception { broker, access, max_body_bytes } = reception;
    let (mut parts, body) = request.into_parts();
    if announces_more_than(max_body_bytes, &parts) {
        return body::too_large().into_response();
    }
    if let Err(problem) = check_staying(&broker, &parts) {
        return problem.into_response();
    }
    let connection = parts.extensions.get::<ConnectionInfo>();
    let address = connection.map(|connection| connection.client_address(&parts.headers));
    let door = match parts.uri.path() {
        "/ws" => "ws",
        path if path.starts_with("/graphql") => "graphql",
        _ => "rest",
    };
    let client = broker.client(Principal::anyone(), ClientInfo { door, address });
    let visitor = access.identify(&parts, &client).await;
    parts.extensions.insert(visitor);
    next.run(Request::from_parts(parts, body)).await
}

/// Whether a body is too large by its `Content-Length`, before it comes.
fn announces_more_than(limit: usize, parts: &Parts) -> bool {
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.is_some_and(|length: u64| length > limit as u64)
}

/// Refuses new WebSockets while the server is leaving. A client of GraphQL tries again, perhaps elsewhere, where the
/// handshake is refused, but takes a refused subscription for its end.
fn check_staying(broker: &Broker, parts: &Parts) -> Result<(), Problem> {
    if Upgrade::is_asked_for(parts) { broker.check_staying().map_err(Problem::from) } else { Ok(()) }
}
