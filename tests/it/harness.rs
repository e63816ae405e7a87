//! A server inside the test's process, and what is asked of it in passing.

use std::{
    fs::File,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use pub_sub::config::Config;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How long anything may take that is waited for.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for `future`, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("no {what} within {DEADLINE:?}"),
    }
}

/// Calls `look` until it returns a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    within(what, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Held by a test that measures time or memory: no other such test runs meanwhile, in no process on this machine.
#[must_use]
pub struct Alone(#[expect(dead_code, reason = "the lock goes with the file")] File);

/// Waits for the other tests that measure. Call it first: what a test has started already is busy beside the others.
pub async fn alone() -> Alone {
    // Each user has a file, as one user cannot open another's.
    let name = format!("pub-sub-tests-{}.lock", rustix::process::getuid().as_raw());
    let file = File::create(std::env::temp_dir().join(name)).unwrap();
    // Those that wait are many, and each may take a while.
    let locked = tokio::time::timeout(10 * DEADLINE, async {
        while file.try_lock().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    locked.await.expect("the other tests that measure come to their end");
    Alone(file)
}

/// A server on a free port of 127.0.0.1 with threads of its own; dropping it stops it and checks that it stops.
pub struct TestServer {
    pub addr: SocketAddr,
    pub client: Client,
    stop: CancellationToken,
    done: mpsc::Receiver<std::io::Result<()>>,
    _directory: Option<tempfile::TempDir>,
}

/// Every scenario runs on every engine: `TEST_ENGINE` says on which this time (`memory`, `disk-always`, `disk-interval`,
/// `disk-never`, `nats`).
fn engine_of_this_run(config: &mut Config) -> Option<tempfile::TempDir> {
    let engine = std::env::var("TEST_ENGINE").unwrap_or_else(|_| "memory".to_owned());
    match engine.split_once('-') {
        None if engine == "memory" => None,
        Some(("disk", fsync)) => {
            let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            config.engine.engine = "disk".to_owned();
            config.engine.fsync = fsync.to_owned();
            config.engine.data_dir = directory.path().to_str().unwrap().to_owned();
            Some(directory)
        }
        None if engine == "nats" => {
            static COUNT: AtomicU64 = AtomicU64::new(0);
            config.engine.engine = "nats".to_owned();
            config.engine.nats.url = nats_of_this_run().to_owned();
            // A service of its own for each server.
            config.engine.nats.prefix = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
            None
        }
        _ => panic!("TEST_ENGINE={engine} is no engine"),
    }
}

/// Whether offsets count a topic's messages, as they do unless instances share a log.
pub fn offsets_are_dense() -> bool {
    std::env::var("TEST_ENGINE").as_deref() != Ok("nats")
}

/// The offset of a topic's so-many-th message, where that can be told.
#[track_caller]
pub fn assert_offset(offset: u64, wanted: u64) {
    assert!(if offsets_are_dense() { offset == wanted } else { offset >= wanted }, "offset {offset}, not {wanted}");
}

/// One NATS server for all tests of this process. It ends with the process.
fn nats_of_this_run() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let started = thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let config = "max_payload: 8MB".to_owned();
            runtime.block_on(crate::nats::Nats::start(crate::nats::Options { config, ..Default::default() }))
        });
        let servers = Box::leak(Box::new(started.join().unwrap()));
        servers.urls().join(",")
    })
}

impl std::ops::Deref for TestServer {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl TestServer {
    /// With default settings, but for the publish rate (none) and a short drain.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    pub fn with(edit: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.broker.max_publish_rate = 0;
        config.server.drain = Duration::from_secs(3);
        let directory = engine_of_this_run(&mut config);
        edit(&mut config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (tell, done) = mpsc::channel();
        let stopped = stop.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let result = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                pub_sub::serve(listener, config, stopped).await
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
            let _ = tell.send(result);
        });
        Self { addr, client: Client::new(addr), stop, done, _directory: directory }
    }

    /// Asks it to stop; returns at once.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Whether it has stopped.
    pub fn has_stopped(&self) -> bool {
        match self.done.try_recv() {
            Ok(result) => result.is_ok(),
            Err(error) => error == mpsc::TryRecvError::Disconnected,
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.done.recv_timeout(DEADLINE);
        if !thread::panicking() {
            match ended {
                Ok(result) => result.unwrap(),
                // Already taken by `has_stopped`.
                Err(mpsc::RecvTimeoutError::Disconnected) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the server did not stop within {DEADLINE:?}"),
            }
        }
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The code of an error in the contract's form; everything about the form is checked.
    pub fn code(&self) -> String {
        let body = self.json();
        let error = &body["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        assert!(is_time(&body["timestamp"]), "{self:?}");
        let kind = self.headers.get("content-type").map_or("", |value| value.to_str().unwrap());
        assert!(kind.starts_with("application/json"), "{self:?}");
        error["code"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    #[track_caller]
    pub fn expect_error(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{self:?}");
    }
}

/// Plain requests.
#[derive(Clone)]
pub struct Client {
    pub addr: SocketAddr,
    http: reqwest::Client,
    /// What it sends in `Authorization`, at every door.
    credential: Option<Arc<str>>,
}

impl Client {
    pub fn new(addr: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        Self { addr, http, credential: None }
    }

    /// The same client with a key or a token, which every door opened by it sends, too.
    pub fn signed_in(&self, credential: &str) -> Self {
        Self { credential: Some(credential.into()), ..self.clone() }
    }

    /// The line of a request's head that says who the client is; empty if it does not say so.
    pub fn credential_line(&self) -> String {
        self.credential.as_ref().map(|it| format!("Authorization: Bearer {it}\r\n")).unwrap_or_default()
    }

    /// The value of that line.
    pub fn authorization(&self) -> Option<String> {
        self.credential.as_ref().map(|it| format!("Bearer {it}"))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, self.url(path));
        match self.authorization() {
            Some(value) => request.header("authorization", value),
            None => request,
        }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Response {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Response { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Response {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.post_text(path, body.to_string()).await
    }

    pub async fn post_text(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.send(request.body(body)).await
    }

    pub async fn create(&self, topic: &str) {
        self.post("/topics", &json!({"name": topic})).await.expect(201);
    }

    /// Publishes and returns the response.
    pub async fn publish(&self, topic: &str, data: Value) -> Value {
        self.post("/publish", &json!({"topic": topic, "data": data})).await.expect(200)
    }

    /// Publishes the numbers, in batches.
    pub async fn publish_numbers(&self, topic: &str, numbers: std::ops::RangeInclusive<u64>) {
        self.publish_all(topic, numbers.map(Value::from)).await;
    }

    /// Publishes all, in batches.
    pub async fn publish_all(&self, topic: &str, data: impl IntoIterator<Item = Value>) {
        let items: Vec<_> = data.into_iter().map(|data| json!({"topic": topic, "data": data})).collect();
        for batch in items.chunks(200) {
            let response = self.post("/publish", &Value::from(batch)).await;
            assert_eq!(response.status, 200, "{response:?}");
            assert!(!response.text.contains("\"error\""), "{response:?}");
        }
    }

    /// Runs a query or mutation and returns the whole response.
    pub async fn graphql_raw(&self, query: &str, variables: Value) -> Response {
        self.post("/graphql", &json!({"query": query, "variables": variables})).await
    }

    /// Runs a query or mutation that succeeds.
    pub async fn graphql(&self, query: &str, variables: Value) -> Value {
        let response = self.graphql_raw(query, variables).await;
        let mut body = response.expect(200);
        assert!(body.get("errors").is_none(), "{query}: {body}");
        body["data"].take()
    }

    /// Runs a query or mutation that fails with one error, and returns its extensions.
    pub async fn graphql_error(&self, query: &str, variables: Value) -> Value {
        let mut body = self.graphql_raw(query, variables).await.json();
        let errors = body["errors"].as_array_mut().unwrap_or_else(|| panic!("{query}: no errors"));
        assert_eq!(errors.len(), 1, "{query}: {errors:?}");
        assert!(errors[0]["message"].as_str().is_some_and(|text| !text.is_empty()));
        errors[0]["extensions"].take()
    }

    /// Waits until the topic has so many subscribers.
    pub async fn wait_for_subscribers(&self, topic: &str, count: u64) {
        eventually(&format!("{count} subscribers of {topic}"), || async {
            let response = self.get(&format!("/topics/{}", encode(topic))).await;
            let now = if response.status == 404 { 0 } else { response.expect(200)["subscribers"].as_u64().unwrap() };
            (now == count).then_some(())
        })
        .await;
    }

    pub async fn assert_alive(&self) {
        assert_eq!(self.get("/health").await.expect(200)["status"], "ok");
    }
}

/// A publisher in the background that stays ahead of its reader, but not by far.
pub struct Publishing {
    seen: Arc<AtomicU64>,
    running: tokio::task::JoinHandle<u64>,
    stop: CancellationToken,
}

impl Publishing {
    /// The reader has come to this offset.
    pub fn seen(&self, offset: u64) {
        self.seen.fetch_max(offset, Ordering::Relaxed);
    }

    /// Ends it and returns how many messages it has published.
    pub async fn stop(self) -> u64 {
        self.stop.cancel();
        self.running.await.unwrap()
    }
}

/// Publishes the numbers from 1, a few at a time, until it is told to stop.
pub fn keep_publishing(server: &TestServer, topic: &'static str) -> Publishing {
    let stop = CancellationToken::new();
    let (client, stopped) = (Client::new(server.addr), stop.clone());
    let seen = Arc::new(AtomicU64::new(0));
    let reader = seen.clone();
    let running = tokio::spawn(async move {
        let mut published = 0;
        while !stopped.is_cancelled() {
            if published > reader.load(Ordering::Relaxed) + 500 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            client.publish_numbers(topic, published + 1..=published + 20).await;
            published += 20;
        }
        published
    });
    Publishing { seen, running, stop }
}

/// Percent-encodes a path segment or query value.
pub fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Whether the value is RFC 3339 in UTC.
pub fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok())
}

/// Reproducible randomness: the same numbers in every run, others with another `SEED`.
pub struct Random(u64);

impl Random {
    pub fn new(salt: u64) -> Self {
        let seed: u64 = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
        Self((seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}
