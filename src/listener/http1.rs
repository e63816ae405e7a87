//! HTTP/1 over one connection.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::{HeaderValue, header};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::{
    Served,
    ahead::Ahead,
    deadline::{Activity, Answering, Deadline, Watched},
    direct::{Direct, Next},
    pieces::Pieces,
    respond::{MAX_BUFFER, WatchedBody, respond_with_id},
    stream::HttpStream,
};

/// Serves one connection.
///
/// What it is at in each phase is boxed: a stream may go on for hours, and needs a fraction of what a request takes.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, served: Served) {
    let mut next = Box::pin(Direct::new(stream, Bytes::new(), &served).run(true)).await;
    loop {
        next = match next {
            Next::Close(mut stream) => {
                // The client may be gone.
                let _ = stream.shutdown().await;
                return;
            }
            Next::Gone => return,
            Next::Hyper(stream, read, until) => {
                return Box::pin(by_hyper(Ahead { stream, read }, served, until)).await;
            }
            Next::Stream(stream) => match Box::pin(stream.run()).await {
                // The head of the response may have said so.
                Some((stream, _)) if served.stop.is_cancelled() => Next::Close(stream),
                Some((stream, read)) => Box::pin(Direct::new(stream, read, &served).run(false)).await,
                None => return,
            },
        };
    }
}

/// Serves one connection by hyper, which can do everything. Its first head must have come at `until`.
async fn by_hyper<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, served: Served, until: Instant) {
    let Served { info, front, times, stop } = served;
    let mut http = hyper::server::conn::http1::Builder::new();
    http.max_buf_size(MAX_BUFFER);
    let unread = Arc::new(AtomicBool::new(false));
    let activity = Activity::new();
    let mut deadline = Deadline::new(activity.clone(), until, times.request, times.keep_alive);
    let stream = TokioIo::new(HttpStream::new(Watched { stream, activity: activity.clone() }, unread.clone()));
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let guard = activity.request();
        let is_unread = unread.clone();
        let request = request.map(|body| axum::body::Body::new(WatchedBody::new(body, unread.clone())));
        let (front, info) = (front.clone(), info.clone());
        async move {
            let response = respond_with_id(&front, &info, request).await;
            let mut response = response.map(|body| Answering { body: Pieces::new(body, MAX_BUFFER), _guard: guard });
            if is_unread.load(Ordering::Relaxed) {
                // hyper then closes the connection after the response, and a client that is not told sends its next request
                // over it (RFC 9112, 9.6).
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut serving = pin!(http.serve_connection(stream, service).with_upgrades());
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
