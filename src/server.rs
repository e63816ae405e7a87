//! Joins the doors, accepts their connections, and stops in good order.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{
    http::request::Parts,
    response::{IntoResponse, Response},
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{self, Access},
    broker::{Broker, ClientInfo, MetricFamily, Principal},
    browser::Browsers,
    config::Config,
    front::{self, Front},
    graphql,
    listener::{self, Acceptor, Connections, Listeners},
    metrics, pages,
    problem::{Code, Problem},
    rest,
    socket::{Sockets, Stops},
    traces::Traces,
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
    let traces = Traces::open(&config.traces).map_err(io::Error::other)?;
    if let Some(traces) = &traces {
        broker.trace_by(traces.clone());
    }
    let connections = Connections::default();
    let tasks = TaskTracker::new();
    // Cancelled after every publish has its reply: only then it is known what subscribers are still to get.
    let settled = CancellationToken::new();
    let sockets = Sockets {
        settings: Arc::new(config.socket.clone()),
        tasks: tasks.clone(),
        stop: settled.clone(),
        stops: Stops::default(),
    };
    let stops = sockets.stops.clone();
    let front = front(&broker, &access, &config, &sockets, &connections);
    say_who_may_come_in(&access, &config);
    tasks.spawn(access.clone().keep_up_to_date(settled.clone()));
    let mut deliverers: JoinSet<()> = broker.deliverers().collect();
    deliverers.spawn(broker.reclaimer());
    // It ends with those.
    deliverers.spawn(broker.clone().watch_silence());
    let settings = config.server.clone();
    let reload = access.reload().clone();
    let shared = listener::Shared { reload, front, settings, connections: connections.clone(), sockets };
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
    // What they have not delivered yet is now announced to the connections, before these are told to deliver it and end.
    deliverers.shutdown().await;
    settled.cancel();
    tasks.close();
    let spread = spread_of(connections.open(), until.saturating_duration_since(Instant::now()));
    let ended = async { tokio::join!(stops.tell_over(spread), tasks.wait()) };
    if timeout_at(until, ended).await.is_err() {
        tracing::warn!(connections = connections.open(), "the drain time is over; dropping what is left");
        acceptor.drop_all();
    }
    broker.close().await;
    if let Some(traces) = traces {
        traces.close().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// So few clients may come back at once: they are no crowd.
const NO_CROWD: usize = 100;

/// Over how much of the time that is left so many connections are told to end. The last of it is for those told last.
fn spread_of(connections: usize, left: Duration) -> Duration {
    if connections <= NO_CROWD { Duration::ZERO } else { left * 3 / 4 }
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

fn front(broker: &Broker, access: &Access, config: &Config, sockets: &Sockets, connections: &Connections) -> Front {
    let started = Instant::now();
    let (heartbeat, request_timeout) = (config.socket.ping_interval, config.server.request_timeout);
    let open = connections.clone();
    let of_rest = rest::Context {
        probe: broker.client(Principal::nobody(), ClientInfo { door: "rest", address: None }),
        started,
        connections: Arc::new(move || open.open()),
        heartbeat,
        request_timeout,
        stops: sockets.stops.clone(),
    };
    let (rest, publish) = (rest::routes(of_rest.clone()), rest::shortcut(&of_rest));
    let sockets = sockets.clone();
    let context =
        graphql::Context { access: access.clone(), started, sockets: sockets.clone(), heartbeat, request_timeout };
    let (graphql, post, counts) = graphql::routes(context, config.graphql.clone());
    let ws = ws::routes(access.clone(), config.graphql.connection_init_timeout, config.ws.clone(), sockets);
    let sign_in = access::routes(access.clone());
    let (of_broker, of_connections, of_access) = (broker.clone(), connections.clone(), access.clone());
    let metrics = metrics::routes(vec![
        Box::new(move || of_broker.metric_families()),
        Box::new(move || MetricFamily::from_samples(of_connections.metric_samples())),
        Box::new(move || MetricFamily::from_samples(counts.metric_samples())),
        Box::new(move || MetricFamily::from_samples(of_access.metric_samples())),
    ]);
    let router = rest
        .merge(graphql)
        .merge(pages::routes())
        .merge(ws)
        .merge(metrics)
        .merge(sign_in)
        .fallback(|| async { Problem::new(Code::NotFound, "there is nothing at this path") });
    Front::new(front::Parts {
        router,
        shortcuts: vec![publish, post],
        broker: broker.clone(),
        access: access.clone(),
        browsers: Browsers::new(config.server.allowed_origins.clone()),
        max_body_bytes: config.server.max_body_bytes,
        refuse,
    })
}

/// Refuses a request in the form of errors of the path that it asks for.
fn refuse(request: &Parts, problem: &Problem) -> Response {
    if graphql::PATHS.contains(&request.uri.path()) {
        return graphql::refuse(&request.headers, problem);
    }
    problem.clone().into_response()
}
