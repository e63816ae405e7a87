//! NATS servers with JetStream as processes: one, or a cluster of three, on free ports of 127.0.0.1.
//!
//! `make nats-server` brings the binaries. Dropping a [`Nats`] kills its servers and wipes what they stored, and so does
//! the end of the test's process, however it ends.

#[path = "nats/credentials.rs"]
mod credentials;
#[path = "nats/node.rs"]
mod node;
#[path = "nats/watch.rs"]
mod watch;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_nats::{
    ConnectOptions,
    jetstream::{self, stream},
};
use futures_util::future::join_all;
use serde_json::Value;

pub use self::{
    credentials::{Auth, Certificates, Login, Tls},
    node::{Node, free_port},
};
use self::{
    credentials::{accounts, certify, quoted, tls_block},
    node::Spec,
    watch::Watch,
};

/// Older than what the clustered engine takes.
pub const TOO_OLD: &str = "2.10.25";
/// The oldest that it takes.
pub const OLDEST: &str = "2.10.26";
/// The one that tests run with unless they say otherwise.
pub const MAIN: &str = "2.15.1";

/// How long servers may take to become ready or to agree: an election takes 4 to 9 s, and a second one may be needed.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// What servers to start.
pub struct Options {
    pub version: &'static str,
    pub nodes: usize,
    pub auth: Auth,
    pub tls: Tls,
    /// Further lines of every server's configuration, such as `max_payload: 64KB`.
    pub config: String,
    /// Lines of the `jetstream` block, such as `max_file_store: 1MB`.
    pub jetstream: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: MAIN,
            nodes: 1,
            auth: Auth::Open,
            tls: Tls::Off,
            config: String::new(),
            jetstream: String::new(),
        }
    }
}

/// Running servers.
pub struct Nats {
    pub nodes: Vec<Node>,
    pub login: Login,
    pub certificates: Option<Certificates>,
    tls: Tls,
    monitor: reqwest::Client,
    watch: Watch,
}

impl Nats {
    /// One server of the main version.
    pub async fn single() -> Self {
        Self::start(Options::default()).await
    }

    /// Three servers of the main version.
    pub async fn cluster() -> Self {
        Self::start(Options { nodes: 3, ..Options::default() }).await
    }

    /// Starts the servers and waits until streams with a replica on each can be created.
    pub async fn start(options: Options) -> Self {
        let binary = binary(options.version);
        let directory = fresh_directory();
        // Watched before there is anything to lose.
        let watch = Watch::over(&directory);
        let (login, accounts) = accounts(options.auth, &directory);
        let certificates = (options.tls != Tls::Off).then(|| certify(&directory));
        let ports: Vec<[u16; 3]> = (0..options.nodes).map(|_| [free_port(), free_port(), free_port()]).collect();
        let routes: Vec<_> = ports.iter().map(|[_, _, route]| format!("nats://127.0.0.1:{route}")).collect();
        let nodes = ports.iter().enumerate().map(|(index, &[port, monitor, route])| {
            let name = format!("n{}", index + 1);
            let home = directory.join(&name);
            fs::create_dir_all(&home).unwrap();
            let mut config = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
                 jetstream {{\nstore_dir: {store}\n{jetstream}\n}}\n{accounts}\n{more}\n",
                store = quoted(&home.join("store")),
                jetstream = options.jetstream,
                more = options.config,
            );
            if options.nodes > 1 {
                let routes = routes.join(", ");
                writeln!(config, "cluster {{ name: test, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}")
                    .unwrap();
            }
            config += &tls_block(options.tls, &directory);
            fs::write(home.join("config"), config).unwrap();
            let scheme = if options.tls == Tls::Off { "nats" } else { "tls" };
            Node::new(Spec {
                url: format!("{scheme}://127.0.0.1:{port}"),
                name,
                port,
                last_port: if options.nodes > 1 { route } else { port },
                monitor: format!("http://127.0.0.1:{monitor}"),
                binary: binary.clone(),
                home,
                watch: watch.clone(),
            })
        });
        let nats = Self {
            nodes: nodes.collect(),
            login,
            certificates,
            tls: options.tls,
            monitor: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build().unwrap(),
            watch,
        };
        // Of clusters of 2.10, some 2 in 100 never become whole: a node's announcement is lost among connections
        // that are closed as duplicates. Nothing is stored yet, so they are started again with nothing.
        for attempt in 1.. {
            for node in &nats.nodes {
                node.start().await;
            }
            match nats.become_ready(Duration::from_secs(15)).await {
                Ok(()) => break,
                Err(why) => assert!(attempt < 3, "{why}"),
            }
            for node in &nats.nodes {
                node.kill();
                let _ = fs::remove_dir_all(node.home.join("store"));
            }
        }
        nats
    }

    /// The addresses for clients.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    /// What a client needs to be let in; it comes back every 100 ms, so that tests wait for the servers and not for it.
    pub fn connect_options(&self) -> ConnectOptions {
        let mut options = match &self.login {
            Login::Open => ConnectOptions::new(),
            Login::User { user, password } => ConnectOptions::with_user_and_password(user.clone(), password.clone()),
            Login::Token(token) => ConnectOptions::with_token(token.clone()),
            Login::Nkey { seed } => ConnectOptions::with_nkey(seed.clone()),
            Login::Credentials(file) => ConnectOptions::with_credentials(&fs::read_to_string(file).unwrap()).unwrap(),
        };
        if let Some(files) = &self.certificates {
            options = options.require_tls(true).add_root_certificates(files.authority.clone());
            if self.tls == Tls::Mutual {
                options = options.add_client_certificate(files.client.clone(), files.client_key.clone());
            }
            if self.tls == Tls::First {
                options = options.tls_first();
            }
        }
        options.reconnect_delay_callback(|_| Duration::from_millis(100))
    }

    /// A client of all nodes.
    pub async fn connect(&self) -> async_nats::Client {
        self.connect_options().connect(self.urls()).await.unwrap()
    }

    /// Waits until all servers that run are healthy, their streams caught up, and streams can be created.
    pub async fn ready(&self) {
        self.become_ready(DEADLINE).await.unwrap_or_else(|why| panic!("{why}"));
    }

    async fn become_ready(&self, deadline: Duration) -> Result<(), String> {
        self.within(deadline, "health of every node", || self.health()).await?;
        let running: Vec<_> = self.nodes.iter().filter(|node| node.runs()).map(|node| node.url.clone()).collect();
        let client = self.connect_options().connect(running).await.map_err(|error| error.to_string())?;
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(Duration::from_secs(5));
        let probe = stream::Config {
            name: "harness-probe".into(),
            subjects: vec!["harness-probe".into()],
            storage: stream::StorageType::Memory,
            num_replicas: self.nodes.len(),
            ..Default::default()
        };
        // The leader knows only after a while that the others are there to be given a replica.
        self.within(deadline, "stream with a replica on each node", || async {
            jetstream.create_stream(probe.clone()).await.map_err(|error| error.to_string())
        })
        .await?;
        self.within(deadline, "deletion of a stream", || async {
            jetstream.delete_stream(&probe.name).await.map_err(|error| error.to_string())
        })
        .await?;
        Ok(())
    }

    /// Waits until all servers that run say that they are healthy, and each stream's leader says that every replica on
    /// them has caught up.
    pub async fn healthy(&self) {
        let healthy = self.within(DEADLINE, "health of every node", || self.health()).await;
        healthy.unwrap_or_else(|why| panic!("{why}"));
    }

    async fn health(&self) -> Result<(), String> {
        let running: Vec<_> = self.nodes.iter().filter(|node| node.runs()).collect();
        let answers = join_all(running.iter().map(|node| self.ask(node, "/healthz"))).await;
        if !answers.iter().all(|answer| answer.as_ref().is_some_and(|answer| answer["status"] == "ok")) {
            return Err(format!("{answers:?}"));
        }
        // A node that has just come back is healthy in its own eyes before it has heard of the leader.
        for (name, stream) in self.streams().await.iter().flatten() {
            let Some(leader) =
                stream["leader"].as_str().filter(|leader| running.iter().any(|node| node.name == *leader))
            else {
                return Err(format!("{name} has no leader: {stream}"));
            };
            let replicas = stream["replicas"].as_array().into_iter().flatten();
            let mut replicas = replicas.filter(|replica| running.iter().any(|node| replica["name"] == *node.name));
            if stream["seen by"] == leader && !replicas.all(|replica| replica["current"] == true) {
                return Err(format!("{name} has not caught up: {stream}"));
            }
        }
        Ok(())
    }

    /// Waits until most nodes, itself among them, agree on the stream's leader, and returns which node it is.
    pub async fn leader(&self, stream: &str) -> usize {
        let what = format!("leader of {stream}");
        let leader = self.within(DEADLINE, &what, || async {
            let seen = self.streams().await;
            let named: Vec<_> = seen
                .iter()
                .map(|streams| {
                    let (_, stream) = streams.iter().find(|(name, _)| name == stream)?;
                    self.nodes.iter().position(|node| stream["leader"] == *node.name)
                })
                .collect();
            let leads = |&index: &usize| {
                // A stream with one replica is known to one node only.
                let voters = named.iter().flatten().count();
                let votes = named.iter().filter(|vote| **vote == Some(index)).count();
                named[index] == Some(index) && (voters == 1 || votes * 2 > self.nodes.len())
            };
            (0..self.nodes.len()).find(leads).ok_or_else(|| format!("named are {named:?}"))
        });
        leader.await.unwrap_or_else(|why| panic!("{why}"))
    }

    /// What each node, in their order, knows of the raft group of each stream; nothing where it does not respond.
    async fn streams(&self) -> Vec<Vec<(String, Value)>> {
        join_all(self.nodes.iter().map(|node| async {
            let answer = self.ask(node, "/jsz?accounts=true&streams=true").await.unwrap_or_default();
            let accounts = answer["account_details"].as_array().into_iter().flatten();
            let details = accounts.flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
            let known = details.map(|detail| {
                let mut cluster = detail["cluster"].clone();
                cluster["seen by"] = node.name.clone().into();
                (detail["name"].as_str().unwrap().to_owned(), cluster)
            });
            known.collect()
        }))
        .await
    }

    /// What a node's monitoring port says, if anything.
    async fn ask(&self, node: &Node, path: &str) -> Option<Value> {
        if !node.runs() {
            return None;
        }
        let response = self.monitor.get(format!("{}{path}", node.monitor)).send().await.ok()?;
        response.json().await.ok()
    }

    /// Calls `look` until it returns a value; what it returned last instead says why there is none.
    async fn within<T, F: Future<Output = Result<T, String>>>(
        &self,
        deadline: Duration,
        what: &str,
        mut look: impl FnMut() -> F,
    ) -> Result<T, String> {
        let mut last = String::new();
        let seen = tokio::time::timeout(deadline, async {
            loop {
                match look().await {
                    Ok(seen) => return seen,
                    Err(instead) => last = instead,
                }
                if let Some(ended) = self.nodes.iter().find(|node| node.has_died()) {
                    panic!("{} has ended, waiting for {what}", ended.name);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        seen.await.map_err(|_| format!("no {what} within {deadline:?}: {last}"))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.end();
            if std::thread::panicking() {
                eprintln!("log of {}:\n{}", node.name, node.log_tail());
            }
        }
        self.watch.wipe();
    }
}

/// Where `make nats-server` puts the binary.
pub fn binary(version: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/nats-server");
    let path = tools.join(version).join("nats-server");
    assert!(path.exists(), "there is no nats-server {version}: run `make nats-server`");
    path
}

fn fresh_directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("nats-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // One that was left by a machine that stopped.
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}
