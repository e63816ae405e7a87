//! The GraphQL door over pipes in memory, for what counts or measures it without a network.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use hyper_util::rt::TokioIo;
use pub_sub::{
    access::{self, Access, Visitor},
    broker::{Broker, ClientInfo, Principal},
    graphql,
    socket::{self, Sockets, Stops},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// How long anything may take that is waited for. No count depends on it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where the clients come in.
const NOWHERE: ClientInfo = ClientInfo { door: "graphql", address: None };

/// The server's end of a pipe in memory, which counts how often its task looks whether there is something to read. A task
/// that goes to sleep has looked, so it was not polled more often than that.
struct Watched {
    pipe: DuplexStream,
    looks: Arc<AtomicU64>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// The GraphQL door.
pub struct Service {
    pub broker: Broker,
    pub routes: Router,
    /// How often the tasks of connections have looked for something to read.
    pub looks: Arc<AtomicU64>,
}

impl Service {
    /// To be called within a runtime.
    pub fn start(broker: Broker) -> Self {
        let quiet = Duration::from_hours(1);
        // Nothing but deliveries happens: no pings, no time limits.
        let settings = socket::Settings { ping_interval: quiet, write_timeout: quiet, ..socket::Settings::default() };
        let (tasks, stop, stops) = (TaskTracker::new(), CancellationToken::new(), Stops::default());
        let sockets = Sockets { settings: Arc::new(settings), tasks, stop, stops };
        let context = graphql::Context {
            access: Access::open(&access::Settings::default(), 0).unwrap(),
            started: Instant::now(),
            sockets,
            heartbeat: quiet,
            request_timeout: quiet,
        };
        let (routes, ..) = graphql::routes(context, graphql::Settings::default());
        Self { broker, routes, looks: Arc::default() }
    }

    /// A request with this body, from a client that may do everything.
    pub fn post(&self, body: impl Into<Body>) -> Request<Body> {
        let request = Request::post("/graphql").header("content-type", "application/json").header("accept", "*/*");
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(Visitor::new(Ok(self.broker.client(Principal::anyone(), NOWHERE))));
        request
    }

    /// The response to a request.
    pub async fn respond(&self, request: Request<Body>) -> Response<Body> {
        self.routes.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    /// A socket with room for so many bytes that the client has not read.
    pub async fn connect(&self, room: usize) -> Client {
        let (client, server) = duplex(room);
        let (routes, broker) = (self.routes.clone(), self.broker.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Visitor::new(Ok(broker.client(Principal::anyone(), NOWHERE))));
            let response = routes.clone().oneshot(request);
            async move { Ok::<_, Infallible>(response.await.unwrap_or_else(|never| match never {})) }
        });
        let watched = TokioIo::new(Watched { pipe: server, looks: self.looks.clone() });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(watched, service).with_upgrades());
        let mut client = Client { pipe: client, unread: Vec::with_capacity(room) };
        client.open().await;
        client
    }
}

/// A client that needs no memory but what it has from the beginning.
pub struct Client {
    pipe: DuplexStream,
    unread: Vec<u8>,
}

impl Client {
    async fn open(&mut self) {
        let request = "GET /graphql HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
            Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n";
        self.pipe.write_all(request.as_bytes()).await.unwrap();
        while !self.unread.ends_with(b"\r\n\r\n") {
            self.read().await;
        }
        assert!(self.unread.starts_with(b"HTTP/1.1 101"));
        self.unread.clear();
        self.say(r#"{"type":"connection_init"}"#).await;
        assert_eq!(self.hear().await, r#"{"type":"connection_ack"}"#);
    }

    /// Subscribes with these requests, under the numbers from 0 as ids, and waits until all subscriptions stand.
    pub async fn subscribe<'a>(&mut self, requests: impl Iterator<Item = &'a str>) {
        for (id, request) in requests.enumerate() {
            self.say(&format!(r#"{{"type":"subscribe","id":"{id}","payload":{request}}}"#)).await;
        }
        self.say(r#"{"type":"ping"}"#).await;
        assert_eq!(self.hear().await, r#"{"type":"pong"}"#);
    }

    /// Sends a text with a mask of zeros, which leaves it as it is.
    pub async fn say(&mut self, text: &str) {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        let frame = [&[0x81, 0xfe, length[0], length[1], 0, 0, 0, 0], text.as_bytes()].concat();
        self.pipe.write_all(&frame).await.unwrap();
    }

    /// The next text.
    pub async fn hear(&mut self) -> String {
        loop {
            if let Some(range) = frame(&self.unread) {
                let text = String::from_utf8(self.unread[range.clone()].to_vec()).unwrap();
                self.unread.drain(..range.end);
                return text;
            }
            self.read().await;
        }
    }

    /// Reads so many messages, each of which ends like this, and nothing besides.
    pub async fn messages(&mut self, count: usize, end: &[u8]) {
        let mut read = 0;
        while read < count {
            self.read().await;
            let mut begin = 0;
            while let Some(range) = frame(&self.unread[begin..]) {
                let message = &self.unread[begin..][range.clone()];
                assert!(message.ends_with(end), "{:?}", str::from_utf8(message));
                begin += range.end;
                read += 1;
            }
            self.unread.drain(..begin);
        }
        assert_eq!((read, self.unread.len()), (count, 0));
    }

    async fn read(&mut self) {
        assert!(self.unread.len() < self.unread.capacity(), "the buffer would have to grow");
        let read = timeout(DEADLINE, self.pipe.read_buf(&mut self.unread)).await;
        assert_ne!(read.expect("the server says nothing").unwrap(), 0, "the server has gone");
    }
}

/// Where the payload of the first frame stands, if the frame is complete. The server masks nothing and cuts no message.
fn frame(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let (header, length) = match bytes {
        [0x81, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        [0x81, length @ ..126, ..] => (2, usize::from(*length)),
        [] | [_] | [_, 126, ..] => return None,
        _ => panic!("no text: {bytes:?}"),
    };
    (bytes.len() >= header + length).then(|| header..header + length)
}
