//! Two instances and a cluster of three nodes, all of which fail: nodes are killed and paused, instances are killed,
//! publishers and subscribers go from one instance to the other and back. What they saw is compared with the log at the end.

mod connection;
mod publisher;
mod subscriber;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use self::{
    publisher::{Ledger, Publisher},
    subscriber::Subscriber,
};
use crate::{
    harness::{Client, Random},
    nats::{MAIN, Nats, OLDEST, Options},
    process::Process,
};

/// How long something fails again and again.
const CHAOS: Duration = Duration::from_secs(45);

/// Longer than the response to a publish may take, whatever fails.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(30);

/// Topics that keep everything.
const LOGS: [&str; 3] = ["log.0", "log.1", "log.2"];

/// A topic with a short history: a subscriber that was away is told what it missed.
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
    Process::start(&[("ENGINE", "nats"), ("NATS_URL", urls), ("MAX_PUBLISH_RATE", "0"), ("DRAIN_TIMEOUT", "1")])
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
            let offset = message["offset"].as_u64().unwrap();
            assert!(log.insert(offset, message["id"].as_str().unwrap().to_owned()).is_none(), "{message}");
        }
    }
}

/// Makes one thing fail after the other, and heals each; returns how often something was killed.
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
    println!("nats-server {version}: {kills} kills, responses {:?}", ledger.responses);
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
