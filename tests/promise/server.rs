//! The real binary as a process: started, killed, stopped and started again.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::net::call;

/// How long a start or a stop may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// One server process and its successors, at an address that changes.
pub struct Server {
    environment: Vec<(String, String)>,
    state: Mutex<State>,
    log: Arc<Mutex<Vec<String>>>,
}

struct State {
    child: Option<Child>,
    addr: SocketAddr,
    /// Whether it is meant to run.
    wanted: bool,
}

impl Server {
    /// One that does not run yet.
    pub fn new(environment: Vec<(String, String)>) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let state = Mutex::new(State { child: None, addr, wanted: false });
        Self { environment, state, log: Arc::default() }
    }

    /// Where it listens, or has listened.
    pub fn addr(&self) -> SocketAddr {
        self.state.lock().unwrap().addr
    }

    /// Starts it and waits until it takes requests.
    pub async fn start(&self) -> Result<(), String> {
        let found = self.spawn()?;
        let begun = Instant::now();
        let addr = loop {
            match found.try_recv() {
                Ok(addr) => break addr,
                Err(mpsc::TryRecvError::Disconnected) => return Err(self.trouble("it ended while it started")),
                Err(mpsc::TryRecvError::Empty) if begun.elapsed() > DEADLINE => {
                    return Err(self.trouble("it does not listen"));
                }
                Err(mpsc::TryRecvError::Empty) => sleep(Duration::from_millis(2)).await,
            }
        };
        self.state.lock().unwrap().addr = addr;
        while begun.elapsed() < DEADLINE {
            if call(addr, "GET", "/health/ready", None).await.is_some_and(|answer| answer.status == 200) {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err(self.trouble("it does not become ready"))
    }

    fn spawn(&self) -> Result<mpsc::Receiver<SocketAddr>, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pub-sub"));
        command.env_clear().current_dir(empty_directory()).envs(self.environment.iter().cloned());
        command.env("HOST", "127.0.0.1").env("PORT", "0").env("MAX_PUBLISH_RATE", "0").env("DRAIN_TIMEOUT", "3");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let (found, addr) = mpsc::sync_channel(1);
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let log = self.log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let addr = line.contains("listening").then(|| line.split_once("addr=")).flatten();
                if let Some(addr) = addr.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok()) {
                    let _ = found.try_send(addr);
                }
                log.lock().unwrap().push(line);
            }
        });
        let mut state = self.state.lock().unwrap();
        (state.child, state.wanted) = (Some(child), true);
        Ok(addr)
    }

    /// The process ends at once.
    pub fn kill(&self) {
        let mut state = self.state.lock().unwrap();
        state.wanted = false;
        if let Some(mut child) = state.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to stop, as orchestrators do, and waits until it has.
    pub async fn stop(&self) -> Result<(), String> {
        let child = {
            let mut state = self.state.lock().unwrap();
            state.wanted = false;
            state.child.take()
        };
        let Some(mut child) = child else { return Ok(()) };
        if let Some(id) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::TERM);
        }
        let begun = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.trouble(&format!("SIGTERM ended it with {status}"))),
                _ if begun.elapsed() > DEADLINE => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(self.trouble("it does not stop"));
                }
                _ => sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// What is wrong with the process: it ended unasked, or something in it panicked.
    pub fn fault(&self) -> Option<String> {
        let ended = {
            let mut state = self.state.lock().unwrap();
            let wanted = state.wanted;
            state.child.as_mut().and_then(|child| child.try_wait().ok()).flatten().filter(|_| wanted)
        };
        if let Some(status) = ended {
            return Some(self.trouble(&format!("it ended unasked with {status}")));
        }
        let bad = |line: &String| line.contains("panicked") || line.contains("ended without a result");
        let line = self.log.lock().unwrap().iter().find(|line| bad(line)).cloned()?;
        Some(self.trouble(&line))
    }

    fn trouble(&self, what: &str) -> String {
        let log = self.log.lock().unwrap();
        let tail = log[log.len().saturating_sub(12)..].join("\n    ");
        format!("the server: {what}\n    {tail}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// No `pub-sub.toml` of whoever runs this is read.
fn empty_directory() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty");
    let _ = std::fs::create_dir_all(&path);
    path
}
