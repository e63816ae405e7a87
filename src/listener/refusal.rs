//! Connections over the bound: they are told why they are refused.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    arrival::{Arrival, Opened},
    respond::{MAX_BUFFER, WatchedBody},
    stream::HttpStream,
};
use crate::{
    problem::{Code, Problem},
    socket::{CloseCode, ClosesAtOnce, Sockets, Upgrade},
};

/// Tells clients that there is no room for their connections.
#[derive(Clone)]
pub struct Refusals {
    sockets: Sockets,
    /// Room for those that are told by the rules of HTTP.
    room: Arc<Semaphore>,
}

/// Connections over the bound that may be told at once why they are refused. Each holds a file descriptor for as long as its
/// client takes to send a request, so the bound on connections would mean little without this one.
const MAX_REFUSALS: usize = 64;

/// How long a refused client may take.
const REFUSAL_TIME: Duration = Duration::from_secs(10);

impl Refusals {
    /// Those of a server with these sockets.
    #[must_use]
    pub fn new(sockets: Sockets) -> Self {
        Self { sockets, room: Arc::new(Semaphore::new(MAX_REFUSALS)) }
    }

    /// Refuses a connection: 503 to a request, and 1013 over a WebSocket, where a browser sees no status. Without room for that
    /// the connection is closed with a 503 that its client may not get to read, and that TLS does not carry.
    pub(super) fn refuse(&self, arrival: Arrival, tls: Option<TlsAcceptor>, bound: Bound) {
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            if arrival.is_tls {
                return;
            }
            let problem = bound.problem();
            let body = serde_json::to_string(&problem.body()).unwrap_or_default();
            let (status, length) = (problem.status(), body.len());
            let response = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            arrival.socket.try_write(response.as_bytes());
            return;
        };
        let (sockets, permit) = (self.sockets.clone(), Arc::new(permit));
        let (tasks, stop) = (sockets.tasks.clone(), sockets.stop.clone());
        let refusing = async move {
            match opened(arrival, tls).await {
                Ok(Opened::Plain(socket)) => respond_to(socket, sockets, permit, bound).await,
                Ok(Opened::Tls(stream)) => respond_to(stream, sockets, permit, bound).await,
                Err(_) => {}
            }
        };
        tasks.spawn(async move {
            tokio::select! {
                _ = timeout(REFUSAL_TIME, refusing) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn opened(mut arrival: Arrival, tls: Option<TlsAcceptor>) -> io::Result<Opened> {
    arrival.read_proxy_header().await?;
    arrival.open(tls).await
}

/// Responds to one request with the refusal.
async fn respond_to<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    sockets: Sockets,
    permit: Arc<OwnedSemaphorePermit>,
    bound: Bound,
) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REFUSAL_TIME).max_buf_size(MAX_BUFFER);
    let unread = Arc::new(AtomicBool::new(false));
    let stream = HttpStream::new(stream, unread.clone());
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let request = request.map(|body| axum::body::Body::new(WatchedBody::new(body, unread.clone())));
        let (sockets, permit) = (sockets.clone(), permit.clone());
        async move { Ok::<_, Infallible>(refusal(request, &sockets, permit, bound).await) }
    });
    // An error is a client that broke the rules or went away.
    let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// The bound that a connection is over.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    Connections,
    PerAddress,
}

impl Bound {
    fn message(self) -> &'static str {
        match self {
            Bound::Connections => "too many connections (MAX_CONNECTIONS)",
            Bound::PerAddress => "too many connections from this address (MAX_CONNECTIONS_PER_ADDRESS)",
        }
    }

    fn problem(self) -> Problem {
        Problem::new(Code::LimitReached, self.message())
    }
}

async fn refusal(
    request: hyper::Request<axum::body::Body>,
    sockets: &Sockets,
    permit: Arc<OwnedSemaphorePermit>,
    bound: Bound,
) -> Response {
    let (mut parts, _) = request.into_parts();
    match Upgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.accept(sockets, None, |_| {
            let (code, reason) = (CloseCode::TRY_AGAIN_LATER, bound.message());
            Box::new(ClosesAtOnce { code, reason, held: permit })
        }),
        Err(_) => {
            let mut problem = bound.problem();
            problem.retry_after = Some(Duration::from_secs(1));
            let mut response = problem.into_response();
            // hyper could close after each response, but would then say so in that to an upgrade, too.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}
