//! One server as a process.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, watch::Watch};

/// One server, which can be hurt and healed; its ports and its store stay.
pub struct Node {
    spec: Spec,
    run: Mutex<Run>,
}

/// What a server is made of.
pub struct Spec {
    pub name: String,
    pub url: String,
    pub port: u16,
    /// The port that it opens last.
    pub last_port: u16,
    /// The address of its monitoring.
    pub monitor: String,
    pub binary: PathBuf,
    /// Its directory, with its configuration, its log and its store.
    pub home: PathBuf,
    pub watch: Watch,
}

struct Run {
    process: Option<Child>,
    paused: bool,
}

impl std::ops::Deref for Node {
    type Target = Spec;

    fn deref(&self) -> &Spec {
        &self.spec
    }
}

impl Node {
    /// A server that does not run yet.
    pub fn new(spec: Spec) -> Self {
        Self { spec, run: Mutex::new(Run { process: None, paused: false }) }
    }

    /// Starts the process and waits until it takes connections. It is then not ready yet: [`Nats::ready`] and
    /// [`Nats::healthy`] wait for that.
    ///
    /// So nodes are started one after the other: of clusters of 2.10 that start in the same instant, one in ten does not
    /// become whole.
    pub async fn start(&self) {
        self.spawn();
        let open = tokio::time::timeout(DEADLINE, async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.last_port)).await.is_err() {
                assert!(!self.has_died(), "{} has ended:\n{}", self.name, self.log_tail());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        open.await.unwrap_or_else(|_| panic!("{} does not listen:\n{}", self.name, self.log_tail()));
    }

    fn spawn(&self) {
        let mut run = self.run.lock().unwrap();
        assert!(run.process.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.home.join("log")).unwrap();
        let mut command = Command::new(&self.binary);
        command.env_clear().arg("--config").arg(self.home.join("config"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().unwrap();
        self.watch.runs(self.port, Some(process.id()));
        *run = Run { process: Some(process), paused: false };
    }

    /// The process ends at once, as when the kernel kills it.
    pub fn kill(&self) {
        assert!(self.run.lock().unwrap().process.is_some(), "{} does not run", self.name);
        self.end();
    }

    /// The process stands still when this returns, its connections stay open.
    pub async fn pause(&self) {
        self.signal(Signal::STOP);
        self.run.lock().unwrap().paused = true;
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
        self.run.lock().unwrap().paused = false;
    }

    /// Asks the process to end, and waits until it has.
    pub async fn stop(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout(DEADLINE, async {
            loop {
                let status = self.run.lock().unwrap().process.as_mut().unwrap().try_wait().unwrap();
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
        self.run.lock().unwrap().process.as_ref().map(Child::id)
    }

    /// Whether it is there and not paused.
    pub fn runs(&self) -> bool {
        let run = self.run.lock().unwrap();
        run.process.is_some() && !run.paused
    }

    /// The whole log, of all runs.
    pub fn log(&self) -> String {
        fs::read(self.home.join("log")).map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        // The harness asks often.
        let lines: Vec<_> = log.lines().filter(|line| !line.contains("Healthcheck failed")).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Whether the process has ended without having been asked to.
    pub fn has_died(&self) -> bool {
        self.run.lock().unwrap().process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_some())
    }

    pub fn end(&self) {
        if let Some(mut process) = self.run.lock().unwrap().process.take() {
            let _ = process.kill();
            let _ = process.wait();
            self.watch.runs(self.port, None);
        }
    }
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
