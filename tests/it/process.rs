//! The real binary as a process: its environment, signals, memory and last words.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Client, DEADLINE};

/// A running `pub-sub`; dropping it kills it.
pub struct Process {
    pub addr: SocketAddr,
    pub client: Client,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// The command with nothing of this process's environment but what a program needs, in an empty directory.
pub fn command(environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pub-sub"));
    command.env_clear().current_dir(empty_directory()).envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// No `pub-sub.toml` of whoever runs the tests is read.
fn empty_directory() -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty");
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// The address in a line of the log, in either format.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("addr=").or_else(|| line.split_once("\"addr\":\""))?;
    rest.split(['"', ' ']).next()?.parse().ok()
}

impl Process {
    pub fn start(environment: &[(&str, &str)]) -> Self {
        let mut command = command(&[("HOST", "127.0.0.1"), ("PORT", "0")]);
        command.envs(environment.iter().copied()).stdout(Stdio::null());
        Self::run(&mut command)
    }

    pub fn run(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, addr) = mpsc::channel();
        let (stderr, lines) = (child.stderr.take().unwrap(), log.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("listening")
                    && let Some(addr) = address_in(&line)
                {
                    let _ = found.send(addr);
                }
                lines.lock().unwrap().push(line);
            }
        });
        let Ok(addr) = addr.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            panic!("does not listen: {:?}", log.lock().unwrap());
        };
        Self { addr, client: Client::new(addr), child, log }
    }

    /// The lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.child.id())).status().unwrap();
        assert!(sent.success());
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        let before = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(before.elapsed() < DEADLINE, "still running: {:?}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("log of the server:\n{}", self.log().join("\n"));
        }
    }
}
