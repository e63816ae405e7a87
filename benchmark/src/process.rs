//! A server under test in a process of its own: starting it, its CPU time and its memory.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// A running server. Dropping it ends it.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    clock: ClockId,
}

impl Server {
    /// Starts `command`, which says on one of its outputs where it listens: the first address of this machine with a port.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let begun = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (tell, told) = mpsc::channel();
        read_lines(child.stdout.take(), tell.clone());
        read_lines(child.stderr.take(), tell);
        let mut said = String::new();
        let address = loop {
            match told.recv_timeout(START.saturating_sub(begun.elapsed())) {
                Ok(line) => match address_in(&line) {
                    Some(address) => break address,
                    None => said = line,
                },
                Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(io::Error::other(format!(
                        "{command:?} did not say where it listens; it said {said:?}"
                    )));
                }
            }
        };
        // What it says later is read and dropped, so that it never waits for a reader.
        thread::spawn(move || while told.recv().is_ok() {});
        Self::of(child, address)
    }

    /// Starts `command`, which does not say where it listens: at `address`, as its configuration says.
    pub fn start_at(mut command: Command, address: SocketAddr) -> io::Result<Self> {
        let begun = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        while std::net::TcpStream::connect(address).is_err() {
            if begun.elapsed() > START || child.try_wait()?.is_some() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::other(format!("{command:?} does not listen on {address}")));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Self::of(child, address)
    }

    fn of(child: Child, address: SocketAddr) -> io::Result<Self> {
        let clock = clock_getcpuclockid(Pid::from_raw(child.id() as i32))?;
        Ok(Self { child, address, clock })
    }

    /// The CPU time of all its threads so far, those that have ended included.
    pub fn cpu(&self) -> io::Result<Duration> {
        Ok(clock_gettime(self.clock)?.into())
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| io::Error::other("the process shows no memory"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(output: Option<impl Read + Send + 'static>, tell: mpsc::Sender<String>) {
    let Some(output) = output else { return };
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
}

/// The first `127.0.0.1:PORT` of a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    let start = line.find("127.0.0.1:")?;
    let rest = &line[start..];
    let length = rest["127.0.0.1:".len()..].find(|c: char| !c.is_ascii_digit());
    rest[..length.map_or(rest.len(), |length| length + "127.0.0.1:".len())].parse().ok()
}

/// The CPU time of the calling thread.
pub fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Into::into)
}
