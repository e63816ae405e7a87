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

#[path = "support/pipes.rs"]
mod pipes;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use allocation_counter::measure;
use axum::{body::Body, http::Request, response::IntoResponse};
use http_body_util::BodyExt as _;
use pipes::Service;
use pub_sub::{
    access::{self, Access},
    broker::{
        self, BatchLimit, Broker, ClientInfo, Inbox, NewMessage, Payload, Principal, Progress, Source, Subscribe,
        TopicName,
    },
    browser::{AllowedOrigins, Browsers},
    front::{self, Front},
    rest,
    socket::{ConnectionInfo, Stops},
};
use tokio::{runtime::Runtime, time::Instant};

/// Rounds that each count is taken over, so that what happens now and then (a queue that grows) is not taken for a cost of
/// every message.
const ROUNDS: u64 = 20;

/// Messages that a topic keeps: few, so that a warmed-up one evicts with every publish.
const HISTORY: usize = 16;

/// Where the clients come in.
const NOWHERE: ClientInfo = ClientInfo { door: "none", address: None };

/// What every subscriber asks for.
const SUBSCRIBE: &str = r#"{"query":"subscription{messages(topic:\"news\"){offset data}}"}"#;

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
    let (topic, service) = (topic(), runtime.block_on(async { Service::start(broker()) }));
    warm_up(&service.broker, &topic);
    let mut clients = Vec::new();
    runtime.block_on(async {
        for _ in 0..sockets {
            // The events of a round fit, so that the server never waits for the client.
            let mut client = service.connect(4_096 + each * events * 128).await;
            client.subscribe(vec![SUBSCRIBE; each].into_iter()).await;
            clients.push(client);
        }
    });
    let mut round = |drafts: Vec<NewMessage>| {
        runtime.block_on(async {
            for new_message in drafts {
                publish(&service.broker, &topic, new_message);
            }
            for client in &mut clients {
                client.messages(events * each, br#""data":{"number":1}}}}}"#).await;
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
    // Two for the message, and three for its rendering: the text, what shares it, and the list of renderings.
    const ONCE: u64 = 5;
    const LOOKS: u64 = 2;
    for count in [100, 1_000] {
        let (subscriptions, growth) = (count as u64, count as u64 / 10);
        let (one, many) = (cost(1, count, 1), cost(count, 1, 1));
        assert_eq!(many.allocations, ONCE, "{many:?}");
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
        stops: Stops::default(),
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

/// What the client of the count sends.
const PUBLISH: &str = r#"{"query":"mutation($data:JSON!){publish(topic:\"news\",data:$data){messageId offset}}","variables":{"data":{"number":1}}}"#;

/// A mutation whose document is known, from the parts of its request to the bytes of its response: what the router, the
/// request and the response take, and two for the message.
#[test]
fn a_mutation_by_post_allocates_little() {
    const COUNT: u64 = 1_000;
    const EACH: u64 = 25;
    let (runtime, topic) = (runtime(), topic());
    let service = runtime.block_on(async { Service::start(broker()) });
    warm_up(&service.broker, &topic);
    let requests = || (0..COUNT).map(|_| service.post(PUBLISH)).collect::<Vec<_>>();
    let respond_to_all = |requests: Vec<_>| {
        runtime.block_on(async {
            for request in requests {
                let response = service.respond(request).await;
                assert_eq!(response.status(), 200);
                let body = response.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
                assert!(body.starts_with(br#"{"data":{"publish":{"messageId":""#));
            }
        });
    };
    respond_to_all(requests());
    let counted = requests();
    let allocations = measure(|| respond_to_all(counted)).count_total;
    println!("{allocations} allocations for {COUNT} mutations");
    // A queue that grows once in a while is not a cost of each mutation.
    assert_eq!(allocations / COUNT, EACH, "{allocations}");
}
