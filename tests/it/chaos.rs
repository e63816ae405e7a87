//! Two instances, a cluster of three nodes, and everything that can go: nodes are killed and stand still, instances are
//! killed, publishers and subscribers go from one instance to the other and back. What is written down meanwhile, outside,
//! is compared with the log at the end.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::{
    harness::{Client, Random},
    nats::{MAIN, Nats, OLDEST, Options},
    process::Process,
};

/// How long there is no peace.
const CHAOS: Duration = Duration::from_secs(45);

/// Longer than a publish may take to be answered, whatever happens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Topics that keep everything.
const LOGS: [&str; 3] = ["log.0", "log.1", "log.2"];

/// A topic that forgets soon: who was away is told what is missing.
const SHORT: &str = "short";

/// The two instances, as clients find them.
struct Site {
    urls: String,
    instances: [Mutex<Option<Process>>; 2],
    clients: Mutex<[Client; 2]>,
    /// Publishers are to finish.
    finish: AtomicBool,
}

impl Site {
    fn start(nats: &Nats) -> Self {
        let urls = nats.urls().join(",");
        let (a, b) = (instance(&urls), instance(&urls));
        let clients = Mutex::new([a.client.clone(), b.client.clone()]);
        Self { urls, instances: [Mutex::new(Some(a)), Mutex::new(Some(b))], clients, finish: AtomicBool::new(false) }
    }

    fn client(&self, index: usize) -> Client {
        self.clients.lock().unwrap()[index % 2].clone()
    }

    fn kill(&self, index: usize) {
        let killed = self.instances[index].lock().unwrap().take();
        killed.unwrap().signal("KILL");
    }

    fn restart(&self, index: usize) {
        let process = instance(&self.urls);
        self.clients.lock().unwrap()[index] = process.client.clone();
        *self.instances[index].lock().unwrap() = Some(process);
    }
}

fn instance(urls: &str) -> Process {
    Process::start(&[("ENGINE", "nats"), ("NATS_URL", urls), ("MAX_PUBLISH_RATE", "0"), ("DRAIN_SECONDS", "1")])
}

/// A connection to `/ws` that a server may break at any moment.
struct Connection(WebSocketStream<TcpStream>);

impl Connection {
    async fn open(client: &Client) -> Option<Self> {
        let tcp = TcpStream::connect(client.addr).await.ok()?;
        let opened = timeout(PATIENCE, client_async(format!("ws://{}/ws", client.addr), tcp)).await;
        Some(Self(opened.expect("a server that takes connections answers").ok()?.0))
    }

    async fn send(&mut self, frame: Value) -> Option<()> {
        self.0.send(Message::text(frame.to_string())).await.ok()
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}

/// What publishers were told.
#[derive(Default)]
struct Ledger {
    /// Where each acknowledged message stands.
    acked: HashMap<String, (String, u64)>,
    /// Messages of which it was said that they are not stored, and that were not tried again.
    refused: Vec<String>,
    /// Answers by their code.
    answers: BTreeMap<String, u64>,
}

impl Ledger {
    fn answer(&mut self, code: &str) {
        *self.answers.entry(code.to_owned()).or_default() += 1;
    }

    fn ack(&mut self, id: &str, answer: &Value) {
        let place = (answer["topic"].as_str().unwrap().to_owned(), answer["offset"].as_u64().unwrap());
        if let Some(before) = self.acked.insert(id.to_owned(), place.clone()) {
            assert_eq!(before, place, "{id} has two places");
        }
    }
}

/// A message that is to be published.
#[derive(Clone)]
struct Post {
    topic: &'static str,
    id: String,
    number: u64,
    /// Whether some try may have been stored.
    perhaps: bool,
}

impl Post {
    fn frame(&self) -> Value {
        json!({"type": "publish", "topic": self.topic, "id": self.id, "data": self.number, "request_id": self.id})
    }
}

struct Publisher {
    name: usize,
    numbered: u64,
    random: Random,
    pending: VecDeque<Post>,
}

impl Publisher {
    fn new(name: usize) -> Self {
        Self { name, numbered: 0, random: Random::new(name as u64 + 1), pending: VecDeque::new() }
    }

    /// The next few messages: first those that are still owed.
    fn window(&mut self, site: &Site, size: usize) -> Vec<Post> {
        let mut window: Vec<_> = (0..size).map_while(|_| self.pending.pop_front()).collect();
        while window.len() < size && !site.finish.load(Ordering::Relaxed) {
            self.numbered += 1;
            let topic = if self.numbered.is_multiple_of(4) { SHORT } else { LOGS[self.random.below(3) as usize] };
            let id = format!("p{}-{}", self.name, self.numbered);
            window.push(Post { topic, id, number: self.numbered, perhaps: false });
        }
        window
    }

    /// What was answered to one message. Whoever is told that nothing was stored may leave it at that.
    fn answered(&mut self, ledger: &mut Ledger, mut post: Post, answer: &Value) {
        let code = answer["error"]["code"].as_str();
        ledger.answer(code.unwrap_or("acknowledged"));
        match code {
            None => ledger.ack(&post.id, answer),
            Some("UNAVAILABLE") if !post.perhaps && self.random.below(2) == 0 => ledger.refused.push(post.id),
            Some("UNAVAILABLE") => self.pending.push_back(post),
            Some("UNKNOWN") => {
                post.perhaps = true;
                self.pending.push_back(post);
            }
            Some(_) => panic!("{answer}"),
        }
    }

    fn unanswered(&mut self, ledger: &mut Ledger, mut post: Post) {
        ledger.answer("none");
        post.perhaps = true;
        self.pending.push_back(post);
    }

    /// Publishes over `/ws`, several at a time, now here and now there.
    async fn over_sockets(mut self, site: &Site, ledger: &Mutex<Ledger>) {
        for turn in self.name.. {
            let Some(mut connection) = Connection::open(&site.client(turn)).await else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let windows = 10 + self.random.below(40);
            for _ in 0..windows {
                let window = self.window(site, 8);
                if window.is_empty() {
                    return;
                }
                let mut owed: HashMap<_, _> = window.iter().map(|post| (post.id.clone(), post.clone())).collect();
                for post in &window {
                    let _ = connection.send(post.frame()).await;
                }
                while !owed.is_empty() {
                    let answer = timeout(PATIENCE, connection.next()).await.expect("publishes are answered in time");
                    let Some(answer) = answer else { break };
                    let post = owed.remove(answer["request_id"].as_str().unwrap()).unwrap();
                    self.answered(&mut ledger.lock().unwrap(), post, &answer);
                }
                if !owed.is_empty() {
                    for post in window.into_iter().filter(|post| owed.contains_key(&post.id)) {
                        self.unanswered(&mut ledger.lock().unwrap(), post);
                    }
                    break;
                }
                // Else the logs would be too long to compare.
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Publishes over REST, one at a time.
    async fn over_rest(mut self, site: &Site, ledger: &Mutex<Ledger>) {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        for turn in self.name.. {
            let window = self.window(site, 1);
            let Some(post) = window.into_iter().next() else { return };
            let url = site.client(turn).url("/publish");
            let body = json!({"topic": post.topic, "id": post.id, "data": post.number});
            let answer: Option<Value> = match http.post(url).body(body.to_string()).send().await {
                Ok(answer) => answer.json().await.ok(),
                Err(error) => {
                    assert!(!error.is_timeout(), "publishes are answered in time");
                    None
                }
            };
            match answer {
                Some(answer) => self.answered(&mut ledger.lock().unwrap(), post, &answer),
                None => self.unanswered(&mut ledger.lock().unwrap(), post),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What one subscriber saw.
#[derive(Debug)]
enum Seen {
    Message { offset: u64, id: String },
    Gap { from: u64, to: u64, missed: Option<u64> },
}

struct Subscriber {
    topic: &'static str,
    /// Kept by the server under this name, and acknowledged; else by its cursor.
    consumer: Option<String>,
    /// Leaves for the other instance now and then.
    leaves: bool,
    cursor: Option<String>,
    newest: u64,
    /// One for each connection.
    streams: Vec<Vec<Seen>>,
}

impl Subscriber {
    fn new(topic: &'static str, consumer: Option<&str>, leaves: bool) -> Self {
        let consumer = consumer.map(ToOwned::to_owned);
        Self { topic, consumer, leaves, cursor: None, newest: 0, streams: Vec::new() }
    }

    /// Subscribes, leaves, and comes back, until it has seen the message that `last` names.
    async fn follow(mut self, site: &Site, last: &Mutex<HashMap<String, u64>>, salt: u64) -> Self {
        let mut random = Random::new(100 + salt);
        let done = |newest| last.lock().unwrap().get(self.topic).is_some_and(|last| newest >= *last);
        let mut turn = salt as usize;
        while !done(self.newest) {
            let stay = Duration::from_millis(if self.leaves { 200 + random.below(2_500) } else { 3_600_000 });
            turn += usize::from(self.leaves || self.streams.last().is_some_and(Vec::is_empty));
            let mut stream = Vec::new();
            let client = site.client(turn);
            let visit = async {
                let mut connection = Connection::open(&client).await?;
                let mut subscribe = json!({"type": "subscribe", "topic": self.topic, "request_id": "s"});
                match (&self.consumer, &self.cursor) {
                    (Some(name), _) => {
                        subscribe["consumer"] = name.as_str().into();
                        subscribe["ack"] = "EXPLICIT".into();
                        subscribe["last_n"] = 1_000_000.into();
                    }
                    (None, Some(cursor)) => subscribe["after"] = cursor.as_str().into(),
                    (None, None) => subscribe["last_n"] = 1_000_000.into(),
                }
                connection.send(subscribe).await?;
                let mut idle = Instant::now();
                while !done(self.newest) {
                    // Looks up now and then, whether the end was set meanwhile.
                    let Ok(frame) = timeout(Duration::from_millis(100), connection.next()).await else {
                        let (quiet, end) = (idle.elapsed(), last.lock().unwrap().get(self.topic).copied());
                        let newest = self.newest;
                        assert!(quiet < PATIENCE || end.is_none(), "{}: {newest}, not {end:?}, {quiet:?}", self.topic);
                        continue;
                    };
                    idle = Instant::now();
                    let frame = frame?;
                    match frame["type"].as_str().unwrap() {
                        "event" => {
                            let (offset, id) = (frame["offset"].as_u64().unwrap(), frame["id"].as_str().unwrap());
                            stream.push(Seen::Message { offset, id: id.to_owned() });
                            self.newest = self.newest.max(offset);
                            let cursor = frame["cursor"].as_str().unwrap().to_owned();
                            if let Some(name) = &self.consumer {
                                let (topic, cursor) = (self.topic, &cursor);
                                let ack = json!({"type": "ack", "topic": topic, "consumer": name, "cursor": cursor});
                                connection.send(ack).await?;
                            }
                            self.cursor = Some(cursor);
                        }
                        "gap" => stream.push(Seen::Gap {
                            from: frame["from_offset"].as_u64().unwrap(),
                            to: frame["to_offset"].as_u64().unwrap(),
                            missed: frame["missed"].as_u64(),
                        }),
                        "ack" => {}
                        // No subscription: tries again. No acknowledgement: the next one covers it.
                        "error" if frame["error"]["code"] == "UNAVAILABLE" => {
                            if frame["request_id"] == "s" {
                                return None;
                            }
                        }
                        _ => panic!("{frame} in {}", self.topic),
                    }
                }
                Some(())
            };
            let _ = timeout(stay, visit).await;
            self.streams.push(stream);
            sleep(Duration::from_millis(20)).await;
        }
        self
    }

    /// Its stream, over all connections, is the log of the topic, and what is not in it was announced.
    fn check(&self, log: &BTreeMap<u64, String>) {
        let topic = self.topic;
        let mut next = self.streams.iter().flatten().next().map_or(0, |first| match first {
            Seen::Message { offset, .. } => *offset,
            Seen::Gap { from, .. } => *from,
        });
        let (mut gaps, mut repeats) = (0, 0);
        for stream in &self.streams {
            // A consumer begins where it has acknowledged last, at least.
            let mut place = match stream.first() {
                Some(Seen::Message { offset, .. } | Seen::Gap { from: offset, .. }) if self.consumer.is_some() => {
                    let skipped = log.range(next.min(*offset)..*offset).next();
                    assert_eq!(skipped, None, "{topic}: begins at {offset} and not at {next}");
                    *offset
                }
                _ => next,
            };
            for seen in stream {
                match seen {
                    Seen::Message { offset, id } => {
                        let expected = log.range(place..).next();
                        assert_eq!(expected, Some((offset, id)), "{topic}: {seen:?}");
                        repeats += usize::from(*offset < next);
                        place = offset + 1;
                    }
                    Seen::Gap { from, to, missed } => {
                        gaps += 1;
                        assert!(
                            log.range(place..*from).next().is_none(),
                            "{topic}: {seen:?} leaves a hole behind {place}"
                        );
                        let inside = log.range(*from..=*to).count() as u64;
                        assert!(missed.is_none_or(|missed| missed == inside), "{topic}: {seen:?}, but {inside}");
                        place = to + 1;
                    }
                }
            }
            next = next.max(place);
        }
        assert!(log.range(next..).next().is_none(), "{topic}: the end is missing");
        assert!(gaps == 0 || topic == SHORT, "{topic}: {gaps} gaps");
        let connections = self.streams.iter().filter(|stream| !stream.is_empty()).count();
        println!(
            "  {topic:6} {:10} {connections:3} connections, {gaps} gaps, {repeats} repeats",
            self.consumer.as_deref().unwrap_or("cursor")
        );
    }
}

/// Every kept message of a topic by its offset.
async fn log_of(client: &Client, topic: &str) -> BTreeMap<u64, String> {
    let mut log = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = client.get(&format!("/topics/{topic}/messages?limit=1000{after}")).await.expect(200);
        let found = page["messages"].as_array().unwrap();
        if found.is_empty() {
            return log;
        }
        after = format!("&after={}", page["next"].as_str().unwrap());
        for message in found {
            let place = message["offset"].as_u64().unwrap();
            assert!(log.insert(place, message["id"].as_str().unwrap().to_owned()).is_none(), "{message}");
        }
    }
}

/// What goes wrong, one after the other; then everything stands again. Answers how often something was killed.
async fn chaos(nats: &Nats, site: &Site) -> usize {
    let mut random = Random::new(42);
    let began = Instant::now();
    let mut kills = 0;
    // Deals of all there is, each shuffled, so that no run is without some of it.
    let mut deck: Vec<u64> = Vec::new();
    while began.elapsed() < CHAOS || kills < 6 {
        if deck.is_empty() {
            deck = vec![0, 0, 1, 2, 3, 4, 5];
        }
        let card = deck.swap_remove(random.below(deck.len() as u64) as usize);
        let any = random.below(3) as usize;
        let pause = Duration::from_millis(200 + random.below(2_000));
        match card {
            0 => {
                let node = &nats.nodes[nats.leader("pubsub_100000").await];
                node.kill();
                kills += 1;
                sleep(pause).await;
                node.start().await;
            }
            1 => {
                nats.nodes[any].kill();
                kills += 1;
                sleep(pause).await;
                nats.nodes[any].start().await;
            }
            2 | 3 => {
                let node = if card == 2 { nats.leader("pubsub_100000").await } else { any };
                nats.nodes[node].pause().await;
                sleep(Duration::from_millis(1_000 + random.below(9_000))).await;
                nats.nodes[node].resume();
            }
            4 => {
                let instance = any % 2;
                site.kill(instance);
                kills += 1;
                sleep(pause / 4).await;
                site.restart(instance);
            }
            // Two of three: nobody can store anything.
            _ => {
                let two = [any, (any + 1) % 3];
                for node in two {
                    nats.nodes[node].kill();
                    kills += 1;
                }
                // Now and then for longer than publishes are tried.
                sleep(pause + Duration::from_secs(10 * random.below(2))).await;
                for node in two {
                    nats.nodes[node].start().await;
                }
            }
        }
        nats.healthy().await;
        sleep(Duration::from_millis(random.below(1_000))).await;
    }
    kills
}

async fn survives(version: &'static str) {
    let nats = Nats::start(Options { nodes: 3, version, ..Options::default() }).await;
    let site = Site::start(&nats);
    for topic in LOGS {
        site.client(0).post("/topics", &json!({"name": topic, "max_messages": 100_000})).await.expect(201);
    }
    site.client(1).post("/topics", &json!({"name": SHORT, "max_messages": 50})).await.expect(201);

    let ledger = Mutex::new(Ledger::default());
    let last = Mutex::new(HashMap::new());
    let sockets = join_all((0..4).map(|name| Publisher::new(name).over_sockets(&site, &ledger)));
    let rest = join_all((4..6).map(|name| Publisher::new(name).over_rest(&site, &ledger)));
    let publishing = async {
        tokio::join!(sockets, rest);
        // Everything was acknowledged or given up: these are the logs.
        let mut logs: HashMap<String, BTreeMap<u64, String>> = HashMap::new();
        for (id, (topic, offset)) in &ledger.lock().unwrap().acked {
            let twice = logs.entry(topic.clone()).or_default().insert(*offset, id.clone());
            assert_eq!(twice, None, "two messages at {offset} of {topic}");
        }
        *last.lock().unwrap() =
            logs.iter().map(|(topic, log)| (topic.clone(), *log.last_key_value().unwrap().0)).collect();
        logs
    };
    let subscribers = [
        Subscriber::new(LOGS[0], None, true),
        Subscriber::new(LOGS[1], None, true),
        Subscriber::new(LOGS[2], Some("worker"), true),
        Subscriber::new(LOGS[0], Some("other"), true),
        Subscriber::new(LOGS[1], None, false),
        Subscriber::new(LOGS[2], Some("stays"), false),
        Subscriber::new(SHORT, None, true),
        Subscriber::new(SHORT, Some("short"), true),
    ];
    let following =
        subscribers.into_iter().enumerate().map(|(index, subscriber)| subscriber.follow(&site, &last, index as u64));
    let upheaval = async {
        let kills = chaos(&nats, &site).await;
        site.finish.store(true, Ordering::Relaxed);
        kills
    };
    let (logs, followed, kills) = tokio::join!(publishing, join_all(following), upheaval);

    let ledger = ledger.into_inner().unwrap();
    println!("nats-server {version}: {kills} kills, answers {:?}", ledger.answers);
    for topic in LOGS {
        for instance in 0..2 {
            assert!(log_of(&site.client(instance), topic).await == logs[topic], "the log of {topic} at {instance}");
        }
    }
    let tail = log_of(&site.client(0), SHORT).await;
    assert_eq!(tail.len(), 50);
    assert!(tail.iter().eq(logs[SHORT].iter().skip(logs[SHORT].len() - 50)), "the end of {SHORT}");
    for id in &ledger.refused {
        assert!(!ledger.acked.contains_key(id));
        // Those of the short topic may have been stored and forgotten, but their subscribers would have seen them.
        assert!(logs.values().all(|log| log.values().all(|stored| stored != id)), "{id} is stored after all");
    }
    for subscriber in &followed {
        subscriber.check(&logs[subscriber.topic]);
    }
    assert!(ledger.acked.len() > 1_000, "only {} acknowledged", ledger.acked.len());
    for instance in 0..2 {
        assert_eq!(site.client(instance).get("/health/ready").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost() {
    survives(MAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long again; for changes to the NATS engine"]
async fn nothing_is_lost_on_the_oldest_server() {
    survives(OLDEST).await;
}
