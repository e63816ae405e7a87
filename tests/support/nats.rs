//! NATS servers with JetStream as processes: one, or a cluster of three, on free ports of 127.0.0.1.
//!
//! `make nats-server` brings the binaries. Dropping a [`Nats`] kills its servers and wipes what they stored, and so does
//! the end of the test's process, however it ends.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_nats::{
    ConnectOptions,
    jetstream::{self, stream},
};
use futures_util::future::join_all;
use nkeys::KeyPair;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

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

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Open,
    User,
    Token,
    Nkey,
    /// An operator, an account and a user with a signed token (JWT), as `nsc` makes them.
    Credentials,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Off,
    /// The server shows a certificate of a private authority.
    Server,
    /// As `Server`, before the server says anything in plain text.
    First,
    /// As `Server`, and the client must show one, too.
    Mutual,
}

/// What a client has to know to be let in.
pub enum Login {
    Open,
    User { user: String, password: String },
    Token(String),
    Nkey { seed: String },
    Credentials(PathBuf),
}

/// Files of the authority and of a client.
pub struct Certificates {
    pub authority: PathBuf,
    pub client: PathBuf,
    pub client_key: PathBuf,
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
            Node {
                url: format!("{scheme}://127.0.0.1:{port}"),
                name,
                port,
                // The last that it opens.
                door: if options.nodes > 1 { route } else { port },
                monitor: format!("http://127.0.0.1:{monitor}"),
                binary: binary.clone(),
                home,
                state: Mutex::new(State { process: None, paused: false }),
                watched: watch.clone(),
            }
        });
        let nats = Self {
            nodes: nodes.collect(),
            login,
            certificates,
            tls: options.tls,
            monitor: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build().unwrap(),
            watch,
        };
        // Of clusters of 2.10, some 2 in 100 never become whole: a node's word of itself gets lost among connections
        // that are closed as duplicates. Nothing is stored yet, so they begin anew.
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

    /// Waits until most nodes, itself among them, agree on the stream's leader, and answers which node it is.
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

    /// What each node, in their order, knows of the raft group of each stream; nothing where it does not answer.
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

    /// Looks again and again until there is something to see; what was last seen instead says why there is not.
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

/// One server, which can be hurt and healed; its ports and its store stay.
pub struct Node {
    pub name: String,
    pub url: String,
    pub port: u16,
    door: u16,
    monitor: String,
    binary: PathBuf,
    home: PathBuf,
    state: Mutex<State>,
    watched: Watch,
}

struct State {
    process: Option<Child>,
    paused: bool,
}

impl Node {
    /// Starts the process and waits until it takes connections. It is then not ready yet: [`Nats::ready`] and
    /// [`Nats::healthy`] wait for that.
    ///
    /// So nodes are started one after the other: of clusters of 2.10 that start in the same instant, one in ten does not
    /// become whole.
    pub async fn start(&self) {
        self.spawn();
        let open = tokio::time::timeout(DEADLINE, async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.door)).await.is_err() {
                assert!(!self.has_died(), "{} has ended:\n{}", self.name, self.log_tail());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        open.await.unwrap_or_else(|_| panic!("{} does not listen:\n{}", self.name, self.log_tail()));
    }

    fn spawn(&self) {
        let mut state = self.state.lock().unwrap();
        assert!(state.process.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.home.join("log")).unwrap();
        let mut command = Command::new(&self.binary);
        command.env_clear().arg("--config").arg(self.home.join("config"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().unwrap();
        self.watched.runs(self.port, Some(process.id()));
        *state = State { process: Some(process), paused: false };
    }

    /// The process ends at once, as when the kernel kills it.
    pub fn kill(&self) {
        assert!(self.state.lock().unwrap().process.is_some(), "{} does not run", self.name);
        self.end();
    }

    /// The process stands still when this returns, its connections stay open.
    pub async fn pause(&self) {
        self.signal(Signal::STOP);
        self.state.lock().unwrap().paused = true;
        // The signal is on its way to threads that run on other cores.
        let stands = tokio::time::timeout(DEADLINE, async {
            while !self.stands_still() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        stands.await.unwrap_or_else(|_| panic!("{} does not stand still", self.name));
    }

    fn stands_still(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid().unwrap())).unwrap();
        let mut states =
            threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default());
        // The state is behind the name in parentheses.
        states.all(|stat| stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T')))
    }

    /// It goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
        self.state.lock().unwrap().paused = false;
    }

    /// Asks the process to end, and waits until it has.
    pub async fn stop(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout(DEADLINE, async {
            loop {
                let status = self.state.lock().unwrap().process.as_mut().unwrap().try_wait().unwrap();
                if let Some(status) = status {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let status = ended.await.unwrap_or_else(|_| panic!("{} does not stop", self.name));
        self.end();
        status
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.pid().unwrap_or_else(|| panic!("{} does not run", self.name));
        kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
    }

    pub fn pid(&self) -> Option<u32> {
        self.state.lock().unwrap().process.as_ref().map(Child::id)
    }

    /// Whether it is there and not paused.
    pub fn runs(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.process.is_some() && !state.paused
    }

    /// The whole log, of all runs.
    pub fn log(&self) -> String {
        fs::read(self.home.join("log")).map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        // The harness asks often.
        let lines: Vec<_> = log.lines().filter(|line| !line.contains("Healthcheck failed")).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Whether the process has ended without having been asked to.
    fn has_died(&self) -> bool {
        self.state.lock().unwrap().process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_some())
    }

    fn end(&self) {
        if let Some(mut process) = self.state.lock().unwrap().process.take() {
            let _ = process.kill();
            let _ = process.wait();
            self.watched.runs(self.port, None);
        }
    }
}

/// A shell that outlives this process by a moment, kills the servers that are left, and wipes the directory.
#[derive(Clone)]
struct Watch(std::sync::Arc<Mutex<Watching>>);

struct Watching {
    shell: Child,
    /// What the shell reads; it acts when this closes, which the kernel does if nobody else can.
    tell: Option<ChildStdin>,
    running: Vec<(u16, u32)>,
}

impl Watch {
    fn over(directory: &Path) -> Self {
        let script = "trap '' INT TERM HUP; pids=; while read -r line; do pids=$line; done
            [ -z \"$pids\" ] || kill -9 $pids; rm -rf \"$0\"";
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(directory);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let tell = shell.stdin.take();
        Self(std::sync::Arc::new(Mutex::new(Watching { shell, tell, running: Vec::new() })))
    }

    /// The process of the server at this port, by which it is known here.
    fn runs(&self, port: u16, process: Option<u32>) {
        let mut watching = self.0.lock().unwrap();
        watching.running.retain(|(at, _)| *at != port);
        watching.running.extend(process.map(|process| (port, process)));
        let ids: Vec<_> = watching.running.iter().map(|(_, process)| process.to_string()).collect();
        let _ = writeln!(watching.tell.as_mut().unwrap(), "{}", ids.join(" "));
    }

    /// Nothing runs any more: only the directory is left to go.
    fn wipe(&self) {
        let mut watching = self.0.lock().unwrap();
        watching.tell = None;
        let _ = watching.shell.wait();
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

/// A port that nothing listens on, below those that the kernel gives to clients: while a server is down, none of them
/// can take its port. Other processes that run tests begin their search elsewhere.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let next = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(next % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

fn quoted(path: &Path) -> String {
    Value::from(path.to_str().unwrap()).to_string()
}

/// The configuration of who is let in, and what a client needs for it.
fn accounts(auth: Auth, directory: &Path) -> (Login, String) {
    match auth {
        Auth::Open => (Login::Open, String::new()),
        Auth::User => {
            let login = Login::User { user: "tester".into(), password: "a pass: word".into() };
            (login, "authorization { user: tester, password: \"a pass: word\" }".into())
        }
        Auth::Token => (Login::Token("a-token".into()), "authorization { token: a-token }".into()),
        Auth::Nkey => {
            let user = KeyPair::new_user();
            let seed = user.seed().unwrap();
            (Login::Nkey { seed }, format!("authorization {{ users: [{{ nkey: {} }}] }}", user.public_key()))
        }
        Auth::Credentials => {
            let (operator, system, account, user) =
                (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
            let unlimited = json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
                "leaf": -1,
            });
            let mut jetstream = unlimited.clone();
            for key in ["mem_storage", "disk_storage", "streams", "consumer"] {
                jetstream[key] = (-1).into();
            }
            let kind = |kind: &str| json!({"type": kind, "version": 2});
            let account_claims = |limits: &Value| json!({"type": "account", "version": 2, "limits": limits});
            let config = format!(
                "operator: \"{}\"\nsystem_account: {system_id}\nresolver: MEMORY\n\
                 resolver_preload {{ {system_id}: \"{}\", {account_id}: \"{}\" }}\n",
                sign(&operator, &operator, "operator", &kind("operator")),
                sign(&operator, &system, "system", &account_claims(&unlimited)),
                sign(&operator, &account, "account", &account_claims(&jetstream)),
                system_id = system.public_key(),
                account_id = account.public_key(),
            );
            let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
            let file = directory.join("tester.creds");
            let credentials = format!(
                "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
                sign(&account, &user, "tester", &claims),
                user.seed().unwrap(),
            );
            fs::write(&file, credentials).unwrap();
            (Login::Credentials(file), config)
        }
    }
}

/// A signed token that says something of `subject`.
fn sign(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: &Value) -> String {
    let encode = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let head = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({
        "jti": name, "iat": 1, "iss": issuer.public_key(), "name": name, "sub": subject.public_key(), "nats": claims,
    });
    let said = format!("{}.{}", encode(head.to_string().as_bytes()), encode(body.to_string().as_bytes()));
    let signature = issuer.sign(said.as_bytes()).unwrap();
    format!("{said}.{}", encode(&signature))
}

/// Makes an authority and certificates of a server and a client.
fn certify(directory: &Path) -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer};
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = directory.join("authority.pem");
    fs::write(&authority, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let issue = |name: &str, usage| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages.push(usage);
        let files = [directory.join(format!("{name}.pem")), directory.join(format!("{name}.key"))];
        fs::write(&files[0], params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        files
    };
    issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    let [client, client_key] = issue("client", ExtendedKeyUsagePurpose::ClientAuth);
    Certificates { authority, client, client_key }
}

fn tls_block(tls: Tls, directory: &Path) -> String {
    let file = |name: &str| quoted(&directory.join(name));
    let more = match tls {
        Tls::Off => return String::new(),
        Tls::Server => "",
        Tls::First => "handshake_first: true",
        Tls::Mutual => "verify: true",
    };
    format!(
        "tls {{ cert_file: {}, key_file: {}, ca_file: {}\n{more} }}\n",
        file("server.pem"),
        file("server.key"),
        file("authority.pem")
    )
}
