//! What each engine costs, beside the one that stores nothing, in the same run: `make bench-engines`.
//!
//! Two tables. The engine alone: publishers in tasks that wait for each acknowledgement. The whole server: a process of its own, one
//! `/ws` connection that publishes with a window of acknowledgements to come, one that subscribes to all of it. Machines differ and
//! are shared, so what counts is the CPU time per message and the ratio to `memory`; rounds of the engines alternate, and the median of
//! the rounds is printed. `cargo bench --bench engines -- disk` leaves out what is neither `memory` nor called like that.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails by failing, and prints")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::expect_used,
    clippy::panic,
    reason = "measured is the real clock, in tasks that end with the benchmark"
)]
#![allow(dead_code, reason = "the servers' other half is for tests")]

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use pub_sub::{
    channel::{NewMessage, Payload, TopicConfig, TopicName},
    engine::{Disk, Engine, Memory, Nats as NatsEngine, conformance::Instance, disk, nats::Settings},
};
use rustix::time::{ClockId, clock_gettime};
use tokio_tungstenite::{client_async, tungstenite::Message};

#[path = "../tests/support/nats.rs"]
mod nats;

use nats::Nats;

/// Publishers that wait for an acknowledgement at the same time.
const PUBLISHERS: u64 = 256;

/// Rounds of each engine.
const ROUNDS: usize = 5;

/// Messages of which the whole server is asked for each round.
const THROUGH: u64 = 20_000;

/// What is compared, and how many messages of it make a round.
const ENGINES: [(&str, u64); 6] = [
    ("memory", 400_000),
    ("disk, FSYNC=always", 100_000),
    ("disk, FSYNC=interval", 200_000),
    ("disk, FSYNC=never", 200_000),
    ("nats, one server", 30_000),
    ("nats, three servers", 30_000),
];

/// One round's cost.
#[derive(Clone, Copy, Default)]
struct Cost {
    per_second: f64,
    /// Microseconds of CPU time per message: this service's.
    cpu: f64,
    /// The NATS servers', all together.
    servers: f64,
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn medians(rounds: &[Cost]) -> Cost {
    let of = |field: fn(&Cost) -> f64| median(rounds.iter().map(field).collect());
    Cost { per_second: of(|cost| cost.per_second), cpu: of(|cost| cost.cpu), servers: of(|cost| cost.servers) }
}

fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// CPU time of all threads of other processes.
fn cpu_of(pids: &[u32]) -> Duration {
    let of = |pid: &u32| {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let nanos = threads.map(|thread| {
            // One that ends at this moment is not missed.
            let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0)
        });
        nanos.sum::<u64>()
    };
    Duration::from_nanos(pids.iter().map(of).sum())
}

fn micros(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

/// The NATS servers of an engine that has any.
fn servers<'a>(name: &str, nats: &'a [Nats; 2]) -> Option<&'a Nats> {
    let three = name.contains("three");
    name.starts_with("nats").then(|| &nats[usize::from(three)])
}

fn pids(servers: Option<&Nats>) -> Vec<u32> {
    servers.into_iter().flat_map(|nats| nats.nodes.iter().filter_map(nats::Node::pid)).collect()
}

fn engine(name: &str, directory: &Path, nats: &[Nats; 2]) -> Arc<dyn Engine> {
    let fsync = match name {
        "disk, FSYNC=always" => disk::Fsync::Always,
        "disk, FSYNC=interval" => disk::Fsync::Interval(Duration::from_millis(100)),
        _ => disk::Fsync::Never,
    };
    match servers(name, nats) {
        Some(nats) => Arc::new(NatsEngine::new(Settings { url: nats.urls().join(","), ..Settings::default() })),
        None if name == "memory" => Arc::new(Memory::default()),
        None => Arc::new(Disk::new(disk::Settings {
            directory: directory.to_owned(),
            fsync,
            max_payload_bytes: 1 << 20,
            dedup_window: std::time::Duration::from_mins(5),
            dedup_bytes: 1 << 20,
        })),
    }
}

/// The engine alone.
async fn alone(instance: &Instance, count: u64, topics: u64, bytes: usize, servers: Option<&Nats>) -> Cost {
    let salt = std::process::id();
    static RUN: AtomicU64 = AtomicU64::new(0);
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let mut channels = Vec::new();
    for number in 0..topics {
        let name = TopicName::parse(&format!("bench.{salt}.{run}.{number}")).unwrap();
        channels.push(instance.engine.create(&name, TopicConfig::keeping(1_000), false).await.unwrap());
    }
    let channels: Arc<[_]> = channels.into();
    let data = Payload::parse(&format!("\"{}\"", "x".repeat(bytes - 2)), 1 << 20).unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let pids = pids(servers);
    let (begun, own, theirs) = (Instant::now(), own_cpu(), cpu_of(&pids));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let (engine, channels, data, next) =
                (instance.engine.clone(), channels.clone(), data.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let channel = &channels[usize::try_from(number % channels.len() as u64).unwrap()];
                    let new_message = NewMessage {
                        data: data.clone(),
                        id: None,
                        key: None,
                        expected_offset: None,
                        origin: None,
                        ttl: None,
                        expected_key_offset: None,
                    };
                    engine.append(channel, new_message).await.unwrap();
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let cost = Cost {
        per_second: count as f64 / begun.elapsed().as_secs_f64(),
        cpu: micros(own_cpu() - own, count),
        servers: micros(cpu_of(&pids) - theirs, count),
    };
    for channel in &*channels {
        instance.engine.delete(channel).await.unwrap();
    }
    cost
}

/// A server as a process.
struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    fn start(name: &str, directory: &Path, nats: &[Nats; 2]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pub-sub"));
        command.env_clear().current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.envs([
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("MAX_PUBLISH_RATE", "0"),
            ("MAX_MESSAGES_PER_TOPIC", "20000"),
        ]);
        match (servers(name, nats), name.split_once("FSYNC=")) {
            (Some(nats), _) => command.env("ENGINE", "nats").env("NATS_URL", nats.urls().join(",")),
            (None, Some((_, fsync))) => command.env("ENGINE", "disk").env("FSYNC", fsync).env("DATA_DIR", "data"),
            (None, None) => command.env("ENGINE", "memory"),
        };
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let addr = lines.find_map(|line| line.unwrap().split_once("addr=")?.1.split(' ').next()?.parse().ok()).unwrap();
        // What else it says is not waited for.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, addr }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole server: published at one socket, delivered at another.
async fn through(server: &Server, topic: &str, servers: Option<&Nats>) -> Cost {
    let connect = async || {
        let stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        client_async(format!("ws://{}/ws", server.addr), stream).await.unwrap().0
    };
    let is = |message: &Message, kind: &str| message.to_text().unwrap().contains(&format!("\"type\":\"{kind}\""));
    let (mut publisher, mut subscriber) = (connect().await, connect().await);
    let frame = format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#);
    subscriber.send(Message::text(frame)).await.unwrap();
    let told = subscriber.next().await.unwrap().unwrap();
    assert!(!is(&told, "error"), "{told}");
    let pids = pids(servers);
    let (begun, own, theirs) = (Instant::now(), cpu_of(&[server.child.id()]), cpu_of(&pids));
    let reading = tokio::spawn(async move {
        let mut seen = 0;
        while seen < THROUGH {
            let message = subscriber.next().await.unwrap().unwrap();
            seen += u64::from(message.is_text() && is(&message, "event"));
        }
    });
    let frame = format!(r#"{{"type":"publish","topic":"{topic}","data":"{}"}}"#, "x".repeat(98));
    let (mut sent, mut answered) = (0, 0);
    while answered < THROUGH {
        while sent < THROUGH && sent - answered < PUBLISHERS {
            publisher.feed(Message::text(frame.as_str())).await.unwrap();
            sent += 1;
        }
        publisher.flush().await.unwrap();
        let answer = publisher.next().await.unwrap().unwrap();
        assert!(!answer.is_text() || !is(&answer, "error"), "{answer}");
        answered += u64::from(answer.is_text());
    }
    reading.await.unwrap();
    Cost {
        per_second: THROUGH as f64 / begun.elapsed().as_secs_f64(),
        cpu: micros(cpu_of(&[server.child.id()]) - own, THROUGH),
        servers: micros(cpu_of(&pids) - theirs, THROUGH),
    }
}

fn head(title: &str) {
    println!("\n{title}\n");
    println!("| engine | messages a second | to memory | CPU µs a message | to memory | NATS servers' CPU µs |");
    println!("|---|---:|---:|---:|---:|---:|");
}

fn row(name: &str, cost: Cost, memory: Cost) {
    let servers = if cost.servers > 0.0 { format!("{:.1}", cost.servers) } else { String::new() };
    println!(
        "| {name} | {:.0} | {:.3} | {:.2} | {:.1} | {servers} |",
        cost.per_second,
        cost.per_second / memory.per_second,
        cost.cpu,
        cost.cpu / memory.cpu,
    );
}

/// The engines that are wanted, memory always among them.
fn wanted() -> Vec<(&'static str, u64)> {
    let words: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted =
        |name: &str| words.is_empty() || name == "memory" || words.iter().any(|word| name.contains(word.as_str()));
    ENGINES.into_iter().filter(|(name, _)| is_wanted(name)).collect()
}

async fn run() {
    let engines = wanted();
    let nats = [Nats::single().await, Nats::cluster().await];
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (topics, bytes) in [(1, 100), (1, 1_024), (1_000, 100)] {
        let mut rounds = vec![Vec::new(); engines.len()];
        let mut instances = Vec::new();
        for (index, (name, _)) in engines.iter().enumerate() {
            let directory = home.path().join(format!("{topics}-{bytes}-{index}"));
            instances.push(Instance::open(engine(name, &directory, &nats)).await.unwrap());
        }
        for _ in 0..ROUNDS {
            for (index, (name, count)) in engines.iter().enumerate() {
                // The first quarter warms up.
                alone(&instances[index], count / 4, topics, bytes, None).await;
                rounds[index].push(alone(&instances[index], *count, topics, bytes, servers(name, &nats)).await);
            }
        }
        for instance in instances {
            instance.engine.close().await;
        }
        head(&format!("The engine alone: {bytes} bytes, {topics} topics, {PUBLISHERS} publishers"));
        let memory = medians(&rounds[0]);
        for (index, (name, _)) in engines.iter().enumerate() {
            row(name, medians(&rounds[index]), memory);
        }
    }
    let mut rounds = vec![Vec::new(); engines.len()];
    let mut processes = Vec::new();
    for (index, (name, _)) in engines.iter().enumerate() {
        let directory = home.path().join(format!("process-{index}"));
        std::fs::create_dir(&directory).unwrap();
        processes.push(Server::start(name, &directory, &nats));
    }
    for round in 0..ROUNDS {
        for (index, (name, _)) in engines.iter().enumerate() {
            let topic = format!("bench.{round}.{index}");
            rounds[index].push(through(&processes[index], &topic, servers(name, &nats)).await);
        }
    }
    head("The whole server: 100 bytes, published on one WebSocket with 256 answers to come, delivered on another");
    let memory = medians(&rounds[0]);
    for (index, (name, _)) in engines.iter().enumerate() {
        row(name, medians(&rounds[index]), memory);
    }
}

fn main() {
    // `cargo test --benches` starts it, too; only `cargo bench` means it.
    if std::env::args().any(|argument| argument == "--bench") {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run());
    }
}
