//! Joins the doors, accepts their connections, and stops in good order.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::header,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tokio::{
    net::TcpListener,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    body,
    broker::{Broker, Principal},
    browser::{self, Browsers},
    config::Config,
    graphql,
    listener::{self, Connections, Refusals},
    metrics, pages,
    problem::{Code, Problem},
    rest,
    socket::{Sockets, Upgrade},
    ws,
};

/// How often positions of consumers that nobody uses any more are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Serves on `listener` until `stop` is cancelled. For the drain delay it then stays open, not ready and without new
/// subscriptions. After that it drains: it closes the listener, delivers what was accepted, and closes the connections. What
/// is not done after the drain time is dropped.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(listener: TcpListener, config: Config, stop: CancellationToken) -> io::Result<()> {
    let engine = config.engine.engine(config.broker.engine_bounds()).map_err(io::Error::other)?;
    let broker = Broker::open(config.broker.clone(), engine).await.map_err(io::Error::other)?;
    let connections = Connections::default();
    let tasks = TaskTracker::new();
    // Cancelled after every publish has its reply: only then it is known what subscribers are still to get.
    let settled = CancellationToken::new();
    let sockets = Sockets { settings: Arc::new(config.socket.clone()), tasks: tasks.clone(), stop: settled.clone() };
    let app = app(&broker, &config, &sockets, &connections);
    tracing::info!(addr = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "listening");

    let refusals = Refusals::new(sockets);
    let hard = CancellationToken::new();
    let serve = |(stream, peer)| {
        if connections.open() >= config.server.max_connections {
            return refusals.refuse(stream);
        }
        let (settings, write_timeout) = (&config.server, config.socket.write_timeout);
        let connection =
            listener::serve(stream, peer, app.clone(), settings, write_timeout, &connections, settled.clone());
        let hard = hard.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = hard.cancelled() => {}
            }
        });
    };
    accept(&listener, &broker, stop.cancelled(), &serve).await;
    let delay = config.server.drain_delay;
    if !delay.is_zero() {
        tracing::info!(seconds = delay.as_secs_f64(), "not ready any more; the drain begins after the delay");
        broker.leave();
        accept(&listener, &broker, sleep(delay), &serve).await;
    }
    drop(listener);
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
async fn accept(
    listener: &TcpListener,
    broker: &Broker,
    end: impl Future<Output = ()>,
    serve: impl Fn((tokio::net::TcpStream, std::net::SocketAddr)),
) {
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
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => serve(accepted),
            Err(error) => {
                // Most likely the process is out of file descriptors: waiting lets some be closed, trying again at once
                // does not.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn app(broker: &Broker, config: &Config, sockets: &Sockets, connections: &Connections) -> Router {
    let started = Instant::now();
    let client = broker.client(Principal::Anyone);
    let (heartbeat, request_timeout) = (config.socket.ping_interval, config.server.request_timeout);
    let open = connections.clone();
    let rest = rest::routes(rest::Context {
        client: client.clone(),
        started,
        connections: Arc::new(move || open.open()),
        heartbeat,
        request_timeout,
        stop: sockets.stop.clone(),
    });
    let sockets = sockets.clone();
    let context =
        graphql::Context { client: client.clone(), started, sockets: sockets.clone(), heartbeat, request_timeout };
    let (graphql, counts) = graphql::routes(context, config.graphql.clone());
    let ws = ws::routes(client, config.ws.clone(), sockets);
    let (staying, broker, connections) = (broker.clone(), broker.clone(), connections.clone());
    let metrics = metrics::routes(vec![
        Box::new(move || broker.metric_samples()),
        Box::new(move || connections.metric_samples()),
        Box::new(move || counts.metric_samples()),
    ]);
    rest.merge(graphql)
        .merge(pages::routes())
        .merge(ws)
        .merge(metrics)
        .fallback(|| async { Problem::new(Code::NotFound, "there is nothing at this path") })
        .layer(DefaultBodyLimit::max(config.server.max_body_bytes))
        .layer(middleware::from_fn(move |request, next| refuse_upgrades(staying.clone(), request, next)))
        .layer(middleware::from_fn({
            let limit = config.server.max_body_bytes;
            move |request, next| refuse_announced(limit, request, next)
        }))
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

/// Refuses a body that is too large by its `Content-Length` before it comes.
async fn refuse_announced(limit: usize, request: Request, next: Next) -> Response {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return body::too_large().into_response();
    }
    next.run(request).await
}

/// Refuses new WebSockets while the server is leaving. A client of GraphQL tries again, perhaps elsewhere, where the
/// handshake is refused, but takes a refused subscription for its end.
async fn refuse_upgrades(broker: Broker, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if Upgrade::is_asked_for(&parts)
        && let Err(error) = broker.check_staying()
    {
        return Problem::from(error).into_response();
    }
    next.run(Request::from_parts(parts, body)).await
}
