use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    response::IntoResponse,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, DuplexStream, ReadBuf, duplex},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    access::{self, Access},
    broker::{self, Broker},
    browser::{AllowedOrigins, Browsers},
    front::{self, Front},
    listener::{Times, arrival::Socket, http1},
    socket::ConnectionInfo,
};

const REQUEST: &str = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
const TIMES: Times = Times {
    request: Duration::from_secs(30),
    keep_alive: Duration::from_secs(75),
    ping: Duration::from_secs(30),
    write: Duration::from_secs(300),
};

/// A server that echoes, that never responds, and that streams what is sent to it.
fn served() -> (Served, mpsc::Sender<&'static str>) {
    let (sender, receiver) = mpsc::channel(10);
    let receiver = Arc::new(parking_lot::Mutex::new(Some(receiver)));
    let stream = move || {
        let events = receiver.lock().take().map(ReceiverStream::new);
        async move { Body::from_stream(tokio_stream::StreamExt::map(events.unwrap(), Ok::<_, std::convert::Infallible>)) }
    };
    let router = Router::new()
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/never", get(std::future::pending::<()>))
        .route("/stream", get(stream));
    let front = Front::new(front::Parts {
        router,
        shortcuts: Vec::new(),
        broker: Broker::in_memory(broker::Settings::default()),
        access: Access::open(&access::Settings::default(), 0).unwrap(),
        browsers: Browsers::new(AllowedOrigins::default()),
        max_body_bytes: 1 << 20,
        refuse: |_, problem| problem.clone().into_response(),
    });
    let peer = ([127, 0, 0, 1], 1).into();
    let info = ConnectionInfo { peer, certificate: None, proxies: None, guard: Arc::new(()) };
    (Served { info, front, times: TIMES, stop: CancellationToken::new() }, sender)
}

/// The server's end of a pipe, which counts the reads that bring something, and the writes.
struct Counted {
    pipe: DuplexStream,
    reads: Arc<AtomicUsize>,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(cx, buffer);
        self.reads.fetch_add(usize::from(buffer.filled().len() > before), Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.pipe).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// A client, a connection that is served, and what its server has read and written so far.
struct Pair {
    client: DuplexStream,
    counts: (Arc<AtomicUsize>, Arc<AtomicUsize>),
}

impl Pair {
    fn new() -> (Self, Counted) {
        let (client, pipe) = duplex(1 << 20);
        let counts = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let server = Counted { pipe, reads: counts.0.clone(), writes: counts.1.clone() };
        (Self { client, counts }, server)
    }

    async fn say(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until what was read ends so, and no further.
    async fn hear(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            let byte = timeout(TIMES.keep_alive, self.client.read_u8()).await;
            heard.push(byte.unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&heard))).unwrap());
        }
        String::from_utf8(heard).unwrap()
    }

    fn reads_and_writes(&self) -> (usize, usize) {
        (self.counts.0.load(Ordering::Relaxed), self.counts.1.load(Ordering::Relaxed))
    }
}

/// Each read and each write is a system call, and they are most of what a request costs.
#[tokio::test(start_paused = true)]
async fn a_request_takes_one_read_and_one_write() {
    let (served, _sender) = served();
    let (mut pair, server) = Pair::new();
    let talking = async {
        for count in 1..=5 {
            pair.say(REQUEST).await;
            let response = pair.hear("\r\n\r\nbody").await;
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
            assert!(response.contains("\r\ncontent-length: 4\r\n") && !response.contains("close"), "{response}");
            assert_eq!(pair.reads_and_writes(), (count, count));
        }
        // Several at once, the last of which comes in two pieces.
        pair.say(&format!("{REQUEST}{REQUEST}{}", &REQUEST[..20])).await;
        for _ in 0..2 {
            pair.hear("body").await;
        }
        pair.say(&REQUEST[20..]).await;
        pair.hear("body").await;
        assert_eq!(pair.reads_and_writes(), (7, 8));
        drop(pair);
    };
    let (next, ()) = tokio::join!(Direct::new(server, Bytes::new(), &served).run(true), talking);
    assert!(matches!(next, Next::Close(_)));
}

/// The first chunk leaves with the head, and what is ready with one write each.
#[tokio::test(start_paused = true)]
async fn a_stream_takes_one_write_a_chunk() {
    let (served, sender) = served();
    let (mut pair, server) = Pair::new();
    let talking = async {
        sender.send("one").await.unwrap();
        pair.say("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let head = pair.hear("\r\n\r\n3\r\none\r\n").await;
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n") && !head.contains("content-length"), "{head}");
        assert_eq!(pair.reads_and_writes(), (1, 1));
        sender.send("0123456789abcdef").await.unwrap();
        pair.hear("10\r\n0123456789abcdef\r\n").await;
        assert_eq!(pair.reads_and_writes(), (1, 2));
        // The connection goes on behind its end.
        pair.say(REQUEST).await;
        drop(sender);
        pair.hear("0\r\n\r\n").await;
        assert!(pair.hear("body").await.starts_with("HTTP/1.1 200 OK"));
        drop(pair);
    };
    let serving = async {
        let Next::Stream(stream) = Direct::new(server, Bytes::new(), &served).run(true).await else { panic!() };
        let (server, unread) = stream.run().await.unwrap();
        Direct::new(server, unread, &served).run(false).await
    };
    let (next, ()) = tokio::join!(serving, talking);
    assert!(matches!(next, Next::Close(_)));
}

/// A client that goes ends what it has asked for.
#[tokio::test]
async fn a_client_that_goes_is_noticed() {
    let (served, _sender) = served();
    for path in ["/never", "/stream"] {
        let (mut pair, server) = Pair::new();
        pair.say(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let talking = async {
            tokio::task::yield_now().await;
            drop(pair);
        };
        let serving = async {
            match Direct::new(server, Bytes::new(), &served).run(true).await {
                Next::Gone => {}
                Next::Stream(stream) => assert!(stream.run().await.is_none()),
                _ => panic!("{path}"),
            }
        };
        tokio::join!(serving, talking);
    }
}

#[tokio::test(start_paused = true)]
async fn hyper_gets_all_that_was_read_of_what_is_not_common() {
    let (served, _sender) = served();
    let large = format!("POST /echo HTTP/1.1\r\nContent-Length: {MAX_BUFFER}\r\n\r\nbo");
    for text in
        ["HEAD / HTTP/1.1\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", &REQUEST[..20], &REQUEST[..53], &large, "\x16\x03"]
    {
        let (mut pair, server) = Pair::new();
        pair.say(&format!("{REQUEST}{text}")).await;
        let begun = Instant::now();
        let Next::Hyper(_, read, _) = Direct::new(server, Bytes::new(), &served).run(true).await else {
            panic!("{text}")
        };
        assert_eq!(read, text);
        assert!(begun.elapsed() <= PATIENCE, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_end() {
    let (served, _sender) = served();
    let (mut pair, server) = Pair::new();
    let begun = Instant::now();
    assert!(matches!(Direct::new(server, Bytes::new(), &served).run(true).await, Next::Close(_)));
    assert_eq!(begun.elapsed().as_secs(), TIMES.request.as_secs(), "no request at all");

    let server = Counted {
        pipe: {
            let (client, pipe) = duplex(1 << 10);
            pair.client = client;
            pipe
        },
        reads: Arc::default(),
        writes: Arc::default(),
    };
    let begun = Instant::now();
    let talking = async {
        for _ in 0..3 {
            pair.say(REQUEST).await;
            pair.hear("body").await;
            tokio::time::sleep(TIMES.keep_alive * 9 / 10).await;
        }
    };
    let (next, ()) = tokio::join!(Direct::new(server, Bytes::new(), &served).run(true), talking);
    assert!(matches!(next, Next::Close(_)));
    let idle = begun.elapsed().saturating_sub(TIMES.keep_alive * 9 / 10 * 2);
    assert_eq!(idle.as_secs(), TIMES.keep_alive.as_secs(), "behind the last request");
}

/// A server that stops finishes what it is at, says that this was the last, and closes what is idle.
#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_connection() {
    let (served, _sender) = served();
    let (mut pair, server) = Pair::new();
    served.stop.cancel();
    pair.say(REQUEST).await;
    let next = Direct::new(server, Bytes::new(), &served).run(true).await;
    assert!(pair.hear("body").await.contains("\r\nconnection: close\r\n"));
    let Next::Close(server) = next else { panic!("it goes on") };
    assert!(matches!(Direct::new(server, Bytes::new(), &served).run(true).await, Next::Close(_)));
}

/// What an open connection takes in memory, beside what the socket and the body of a stream take.
#[tokio::test]
async fn what_waits_is_small() {
    let (served, _sender) = served();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = || async { Socket::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()) };
    let direct = size_of_val(&Direct::new(stream().await, Bytes::new(), &served).run(true));
    let chunked = size_of_val(&Chunked::new(stream().await, Bytes::new(), Vec::new(), Body::empty()).run());
    let whole = size_of_val(&http1::serve(stream().await, served));
    println!("direct {direct}, a stream {chunked}, the connection {whole}");
    assert!(direct <= 4_224 && chunked <= 448 && whole <= 800, "{direct} {chunked} {whole}");
}
