//! What publishing and delivering cost, in allocations and in how often a connection is looked after; time is never asked.
//!
//! Everything runs on one thread, and the allocator counts by thread, so the counts are those of the service alone: what
//! the test itself needs is made before. That a hot topic does not keep a quiet one of the same socket waiting is counted
//! in `tests/it/matching.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by failing there, its helpers too"
)]
#![expect(clippy::disallowed_methods, reason = "tasks end with the test's runtime")]

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

use allocation_counter::measure;
use axum::{Router, body::Body, http::Request, response::IntoResponse};
use hyper_util::rt::TokioIo;
use pub_sub::{
    access::{self, Access, Visitor},
    broker::{
        self, BatchLimit, Broker, ClientInfo, Inbox, NewMessage, Payload, Principal, Progress, Source, Subscribe,
        TopicName,
    },
    browser::{AllowedOrigins, Browsers},
    front::{self, Front},
    graphql, rest,
    socket::{self, ConnectionInfo, Sockets},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    runtime::Runtime,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// How long anything may take that is waited for. No count depends on it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Rounds that each count is taken over, so that what happens now and then (a queue that grows) is not taken for a cost of
/// every message.
const ROUNDS: u64 = 20;

/// Messages that a topic keeps: few, so that a warmed-up one evicts with every publish.
const HISTORY: usize = 16;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn broker() -> Broker {
    Broker::in_memory(broker::Settings {
        max_publish_rate: 0,
        max_messages_per_topic: HISTORY,
        ..broker::Settings::default()
    })
}

fn topic() -> TopicName {
    TopicName::parse("news").unwrap()
}

fn new_message() -> NewMessage {
    NewMessage {
        data: Payload::parse(r#"{"number":1}"#, 100).unwrap(),
        id: None,
        key: None,
        expected_offset: None,
        origin: None,
    }
}

/// Publishes as a door does when the position is there at once; anything else would be a future made for it.
fn publish(broker: &Broker, topic: &TopicName, new_message: NewMessage) {
    let outcome = broker.publish(topic, new_message).now();
    let outcome = outcome.unwrap_or_else(|_| panic!("the memory engine made a future"));
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// Fills the history and whatever else is kept.
fn warm_up(broker: &Broker, topic: &TopicName) {
    for _ in 0..1_000 {
        publish(broker, topic, new_message());
    }
}

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

/// Where the clients come in.
const NOWHERE: ClientInfo = ClientInfo { door: "graphql", address: None };

/// The GraphQL door over pipes in memory.
struct Service {
    broker: Broker,
    routes: Router,
    looks: Arc<AtomicU64>,
}

impl Service {
    fn start() -> Self {
        let broker = broker();
        let quiet = Duration::from_hours(1);
        // Nothing but deliveries happens: no pings, no time limits.
        let settings = socket::Settings { ping_interval: quiet, write_timeout: quiet, ..socket::Settings::default() };
        let sockets =
            Sockets { settings: Arc::new(settings), tasks: TaskTracker::new(), stop: CancellationToken::new() };
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

    /// A socket with so many subscriptions, all of which stand.
    async fn subscribe(&self, subscriptions: usize, events: usize) -> Client {
        // The events of a round fit, so that the server never waits for the client.
        let room = 4_096 + subscriptions * events * 128;
        let (client, server) = duplex(room);
        let (routes, broker) = (self.routes.clone(), self.broker.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(Visitor::new(Ok(broker.client(Principal::anyone(), NOWHERE))));
            let answer = routes.clone().oneshot(request);
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        });
        let watched = TokioIo::new(Watched { pipe: server, looks: self.looks.clone() });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(watched, service).with_upgrades());
        let mut client = Client { pipe: client, unread: Vec::with_capacity(room) };
        client.open().await;
        for id in 0..subscriptions {
            let query = r#"{"query":"subscription{messages(topic:\"news\"){offset data}}"}"#;
            client.say(&format!(r#"{{"type":"subscribe","id":"{id}","payload":{query}}}"#)).await;
        }
        client.say(r#"{"type":"ping"}"#).await;
        assert_eq!(client.hear().await, r#"{"type":"pong"}"#);
        client
    }
}

/// A client that needs no memory but what it has from the beginning.
struct Client {
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

    /// Sends a text with a mask of zeros, which leaves it as it is.
    async fn say(&mut self, text: &str) {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        let frame = [&[0x81, 0xfe, length[0], length[1], 0, 0, 0, 0], text.as_bytes()].concat();
        self.pipe.write_all(&frame).await.unwrap();
    }

    /// The next text.
    async fn hear(&mut self) -> String {
        loop {
            if let Some(range) = frame(&self.unread) {
                let text = String::from_utf8(self.unread[range.clone()].to_vec()).unwrap();
                self.unread.drain(..range.end);
                return text;
            }
            self.read().await;
        }
    }

    /// Reads so many messages, and nothing besides.
    async fn messages(&mut self, count: usize) {
        let mut read = 0;
        while read < count {
            self.read().await;
            let mut begin = 0;
            while let Some(range) = frame(&self.unread[begin..]) {
                let message = &self.unread[begin..][range.clone()];
                assert!(message.ends_with(br#""data":{"number":1}}}}}"#), "{:?}", str::from_utf8(message));
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

/// What one round costs, on average, rounded up.
#[derive(Clone, Copy, Debug)]
struct Cost {
    allocations: u64,
    looks: u64,
}

/// The cost of a round on `sockets` with so many subscriptions `each`. In a round so many events are published one after
/// the other, and then all that is delivered is read.
fn cost(sockets: usize, each: usize, events: usize) -> Cost {
    let runtime = runtime();
    let (topic, service) = (topic(), runtime.block_on(async { Service::start() }));
    warm_up(&service.broker, &topic);
    let mut clients = Vec::new();
    runtime.block_on(async {
        for _ in 0..sockets {
            clients.push(service.subscribe(each, events).await);
        }
    });
    let mut round = |drafts: Vec<NewMessage>| {
        runtime.block_on(async {
            for new_message in drafts {
                publish(&service.broker, &topic, new_message);
            }
            for client in &mut clients {
                client.messages(events * each).await;
            }
        });
    };
    let rounds = || (0..ROUNDS).map(|_| vec![new_message(); events]).collect::<Vec<_>>();
    rounds().into_iter().for_each(&mut round);
    let (counted, before) = (rounds(), service.looks.load(Ordering::Relaxed));
    let allocations = measure(|| counted.into_iter().for_each(&mut round)).count_total;
    let looks = service.looks.load(Ordering::Relaxed) - before;
    let cost = Cost { allocations: allocations.div_ceil(ROUNDS), looks: looks.div_ceil(ROUNDS) };
    println!("{sockets} sockets x {each} subscriptions, {events} events a round: {cost:?}");
    cost
}

/// An event allocates what it takes to store and render it, once, whoever wants it. A delivery allocates nothing: only a
/// socket's write buffer grows where one write carries many. One wake-up of a connection's task, which looks at the socket
/// when it wakes and before it sleeps, does for all subscriptions of a socket.
#[test]
fn deliveries_cost_the_same_on_one_socket_and_on_a_thousand() {
    const ONCE: u64 = 30;
    const LOOKS: u64 = 2;
    for count in [100, 1_000] {
        let (subscriptions, growth) = (count as u64, count as u64 / 10);
        let (one, many) = (cost(1, count, 1), cost(count, 1, 1));
        assert!(many.allocations <= ONCE, "{many:?}");
        assert!(one.allocations <= ONCE + growth, "{one:?}");
        assert!(one.looks <= LOOKS, "{one:?}");
        assert!(many.looks <= LOOKS * subscriptions, "{many:?}");
    }
}

/// What is published while a connection has not run yet wakes it once, however much it is.
#[test]
fn a_burst_wakes_each_connection_once() {
    const EVENTS: usize = 8;
    for (sockets, each) in [(1, 100), (100, 1)] {
        let burst = cost(sockets, each, EVENTS);
        assert!(burst.looks <= 2 * sockets as u64, "{burst:?}");
    }
}

/// The server's front with REST behind it, and no limits in the way.
fn front() -> Front {
    let broker = broker();
    let quiet = Duration::from_hours(1);
    let context = rest::Context {
        probe: broker.client(Principal::nobody(), NOWHERE),
        started: Instant::now(),
        connections: Arc::new(|| 0),
        heartbeat: quiet,
        request_timeout: quiet,
        stop: CancellationToken::new(),
    };
    Front::new(front::Parts {
        router: rest::routes(context.clone()),
        shortcuts: vec![rest::shortcut(&context)],
        broker,
        access: Access::open(&access::Settings::default(), 0).unwrap(),
        browsers: Browsers::new(AllowedOrigins::default()),
        max_body_bytes: 1 << 20,
        refuse: |_, problem| problem.clone().into_response(),
    })
}

/// What `POST /publish` allocates from a request that was read to a response that is to be written.
#[test]
fn a_post_allocates_little_more_than_its_message() {
    const COUNT: usize = 1_000;
    const MOST: u64 = 14;
    let (runtime, front) = (runtime(), front());
    let peer = ([127, 0, 0, 1], 1).into();
    let connection = ConnectionInfo { peer, certificate: None, proxies: None, guard: Arc::new(()) };
    let requests = || {
        let request = |_| {
            let request = Request::post("/publish").header("host", "here").header("content-type", "application/json");
            request.body(Body::from(r#"{"topic":"news","data":{"number":1}}"#)).unwrap()
        };
        (0..COUNT).map(request).collect::<Vec<_>>()
    };
    let publish_all = |requests: Vec<Request<Body>>| {
        let mut responses = Vec::with_capacity(COUNT);
        let allocations = measure(|| {
            for request in requests {
                responses.push(runtime.block_on(front.respond(&connection, request)));
            }
        });
        assert!(responses.iter().all(|response| response.status().is_success()));
        allocations.count_total
    };
    publish_all(requests());
    let allocations = publish_all(requests());
    println!("{allocations} allocations for {COUNT} requests");
    assert!(allocations / COUNT as u64 <= MOST, "{allocations}");
}

/// Two: the message and its id. A subscriber that is told, reads and lets go adds none, and no future is made.
#[test]
fn publishing_in_memory_allocates_the_message_and_its_id() {
    const COUNT: u64 = 1_000;
    let (runtime, topic) = (runtime(), topic());
    let drafts = || (0..COUNT).map(|_| new_message()).collect::<Vec<_>>();
    for subscribed in [false, true] {
        let (broker, inbox, mut events) = (broker(), Inbox::default(), Vec::new());
        warm_up(&broker, &topic);
        let subscribe = Subscribe::to(Source::Topic(topic.clone()));
        let mut subscription = subscribed.then(|| runtime.block_on(broker.subscribe(subscribe, &inbox, 7)).unwrap());
        let mut publish_all = |drafts: Vec<NewMessage>| {
            for new_message in drafts {
                publish(&broker, &topic, new_message);
                if let Some(subscription) = &mut subscription {
                    assert_eq!(inbox.try_next(), Some(7));
                    assert_eq!(subscription.read(BatchLimit::messages(64), &mut events), Progress::CaughtUp);
                    assert_eq!(events.drain(..).count(), 1);
                }
            }
        };
        publish_all(drafts());
        let counted = drafts();
        let allocations = measure(|| publish_all(counted)).count_total;
        println!("subscribed: {subscribed}, {allocations} allocations for {COUNT} messages");
        // A queue that grows once in a while is not a cost of each message.
        assert_eq!(allocations / COUNT, 2, "{allocations}");
    }
}
