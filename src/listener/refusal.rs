//! Connections over the bound: they are told why they are refused.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{respond::WatchedBody, stream::HttpStream};
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
    /// the connection is closed with a 503 that its client may not get to read.
    pub fn refuse(&self, stream: TcpStream) {
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            let problem = too_many();
            let body = serde_json::to_string(&problem.body()).unwrap_or_default();
            let (status, length) = (problem.status(), body.len());
            let response = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            let _ = stream.try_write(response.as_bytes());
            return;
        };
        let sockets = self.sockets.clone();
        let permit = Arc::new(permit);
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(REFUSAL_TIME).max_buf_size(64 << 10).keep_alive(false);
        let (unread, stop) = (Arc::new(AtomicBool::new(false)), sockets.stop.clone());
        let stream = HttpStream::new(stream, unread.clone());
        let tasks = sockets.tasks.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let request = request.map(|body| axum::body::Body::new(WatchedBody::new(body, unread.clone())));
            let (sockets, permit) = (sockets.clone(), permit.clone());
            async move { Ok::<_, Infallible>(refusal(request, &sockets, permit).await) }
        });
        let serving = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        tasks.spawn(async move {
            tokio::select! {
                _ = timeout(REFUSAL_TIME, serving) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

fn too_many() -> Problem {
    Problem::new(Code::LimitReached, "too many connections (MAX_CONNECTIONS)")
}

async fn refusal(
    request: hyper::Request<axum::body::Body>,
    sockets: &Sockets,
    permit: Arc<OwnedSemaphorePermit>,
) -> Response {
    let (mut parts, _) = request.into_parts();
    match Upgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.accept(sockets, None, |_| {
            let (code, reason) = (CloseCode::TRY_AGAIN_LATER, "too many connections (MAX_CONNECTIONS)");
            Box::new(ClosesAtOnce { code, reason, held: permit })
        }),
        Err(_) => {
            let mut problem = too_many();
            problem.retry_after = Some(Duration::from_secs(1));
            problem.into_response()
        }
    }
}
