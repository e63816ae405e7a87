//! HTTP/1 over one connection.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::{HeaderValue, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{
    Times,
    deadline::{Activity, Answering, Deadline, Watched},
    pieces::Pieces,
    respond::{WatchedBody, respond},
    stream::HttpStream,
};
use crate::{front::Front, socket::ConnectionInfo};

/// Bytes of the head of a request, and of what is read and written at once.
pub(super) const MAX_BUFFER: usize = 64 << 10;

/// Serves one connection; after `stop` it finishes what it is at.
pub(super) fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    info: ConnectionInfo,
    front: Front,
    times: Times,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<S> {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.max_buf_size(MAX_BUFFER);
    let unread = Arc::new(AtomicBool::new(false));
    let activity = Activity::new();
    let mut deadline = Deadline::new(activity.clone(), times.request, times.keep_alive);
    let stream = TokioIo::new(HttpStream::new(Watched { stream, activity: activity.clone() }, unread.clone()));
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let guard = activity.request();
        let is_unread = unread.clone();
        let mut request = request.map(|body| axum::body::Body::new(WatchedBody::new(body, unread.clone())));
        // A WebSocket outlives its HTTP connection: the guard goes with whichever lives longer.
        request.extensions_mut().insert(info.clone());
        let response = respond(front.clone(), request);
        async move {
            let mut response =
                response.await.map(|body| Answering { body: Pieces::new(body, MAX_BUFFER), _guard: guard });
            if is_unread.load(Ordering::Relaxed) {
                // hyper then closes the connection after the response, and a client that is not told sends its next request
                // over it (RFC 9112, 9.6).
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
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
