//! The command line as a client: the real program against a real server.

mod bench;
mod consumers;
mod generated;
mod publishing;
mod subscribing;
mod topics;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    harness::{Client, DEADLINE, TestServer, eventually},
    process::{Process, command},
};

/// A command that runs. Dropping it kills it.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    notes: Arc<Mutex<Vec<String>>>,
}

/// Where the command finds its server.
fn url(addr: SocketAddr) -> String {
    format!("http://{addr}")
}

/// Starts a command against a server.
fn start(addr: SocketAddr, arguments: &[&str]) -> Running {
    start_at(&url(addr), arguments)
}

fn start_at(url: &str, arguments: &[&str]) -> Running {
    let mut command = command(&[("PUB_SUB_URL", url)]);
    command.args(arguments).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (told, lines) = mpsc::channel();
    let stdout = child.stdout.take().unwrap();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = told.send(line);
        }
    });
    let notes = Arc::new(Mutex::new(Vec::new()));
    let (stderr, noted) = (child.stderr.take().unwrap(), notes.clone());
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            noted.lock().unwrap().push(line);
        }
    });
    Running { stdin: child.stdin.take(), child, lines, notes }
}

impl Running {
    /// The next line of standard output.
    async fn line(&mut self) -> String {
        eventually(&format!("line; standard error has {:?}", self.notes()), || async { self.lines.try_recv().ok() })
            .await
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// The next lines as numbers.
    async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            numbers.push(self.line().await.parse().unwrap());
        }
        numbers
    }

    /// What standard error has had so far.
    fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap().clone()
    }

    /// Waits for a line on standard error that contains a text.
    async fn noted(&self, text: &str) -> String {
        eventually(text, || async { self.notes().into_iter().find(|note| note.contains(text)) }).await
    }

    fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn close_input(&mut self) {
        self.stdin = None;
    }

    fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end, and returns its exit code and the lines that are left.
    async fn ended(&mut self) -> (Option<i32>, Vec<String>) {
        self.close_input();
        let child = &mut self.child;
        let status = {
            let mut tries = 0;
            loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                tries += 1;
                let waited = Duration::from_millis(5) * tries;
                assert!(waited < DEADLINE, "still running: {:?}", self.notes.lock().unwrap());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // The thread that reads ends with the pipe.
        let rest = tokio::task::block_in_place(|| self.lines.iter().collect());
        (status.code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command with this input to its end, but not for ever.
async fn run_with(addr: SocketAddr, arguments: &[&str], input: &str) -> Output {
    run_at(&url(addr), arguments, input).await
}

async fn run(addr: SocketAddr, arguments: &[&str]) -> Output {
    run_with(addr, arguments, "").await
}

pub(crate) async fn run_at(url: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = command(&[("PUB_SUB_URL", url)]);
    command.args(arguments);
    let input = input.to_owned();
    output(&mut command, input).await
}

/// Runs a command with this input to its end, but not for ever.
async fn output(command: &mut std::process::Command, input: String) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Whether it reads its input is its own business.
    thread::spawn(move || stdin.write_all(input.as_bytes()));
    let id = child.id();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let running = tokio::task::spawn_blocking(move || {
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).map(|_| text)
        });
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).unwrap();
        let stderr = errors.join().unwrap().unwrap();
        Output { status: child.wait().unwrap(), stdout: text, stderr }
    });
    match tokio::time::timeout(DEADLINE, running).await {
        Ok(output) => output.unwrap(),
        Err(_) => {
            let _ = std::process::Command::new("kill").arg("-KILL").arg(id.to_string()).status();
            panic!("the command does not end");
        }
    }
}

/// What a command that succeeds has printed.
#[track_caller]
pub(crate) fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command has said on standard error before it ended with this code.
#[track_caller]
pub(crate) fn refused(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A server as a process of its own, which can be killed and started again at its port.
struct Restartable {
    server: Process,
    environment: Vec<(String, String)>,
    _directory: Option<tempfile::TempDir>,
}

impl Restartable {
    /// With `ENGINE=disk`.
    fn durable() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path().to_str().unwrap().to_owned();
        let environment = [("ENGINE", "disk"), ("DATA_DIR", path.as_str()), ("FSYNC", "always")];
        Self::start(&environment, Some(directory))
    }

    /// With `ENGINE=memory`.
    fn forgetful() -> Self {
        Self::start(&[("ENGINE", "memory")], None)
    }

    fn start(environment: &[(&str, &str)], directory: Option<tempfile::TempDir>) -> Self {
        let common = [("MAX_PUBLISH_RATE", "0"), ("MAX_MESSAGES_PER_TOPIC", "100000"), ("DRAIN_TIMEOUT", "1s")];
        let mut environment = [environment, &common].concat();
        let server = Process::start(&environment);
        let port = server.addr.port().to_string();
        environment.push(("PORT", &port));
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { server, environment, _directory: directory }
    }

    async fn kill(&mut self) {
        self.server.signal("KILL");
        self.server.ended().await;
    }

    fn start_again(&mut self) {
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.server = Process::start(&environment);
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    fn client(&self) -> &Client {
        &self.server.client
    }
}

/// All data of a topic, in their order.
async fn history(client: &Client, topic: &str) -> Vec<Value> {
    let (mut data, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/topics/{topic}/messages?limit=1000{after}")).await.expect(200);
        let messages = page["messages"].as_array().unwrap();
        if messages.is_empty() {
            return data;
        }
        data.extend(messages.iter().map(|message| message["data"].clone()));
        after = format!("&after={}", page["next"].as_str().unwrap());
    }
}

/// A server of the memory engine, whatever engine the other scenarios have.
fn in_memory(edit: impl FnOnce(&mut pub_sub::config::Config)) -> TestServer {
    TestServer::with(|config| {
        config.engine.engine = "memory".to_owned();
        edit(config);
    })
}
