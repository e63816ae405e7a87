//! The clustered engine: the CPU time of one instance for a message that is published and received through it, beside a bare
//! client of NATS that publishes and receives the same. The NATS server's own time does not count.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{Contender, Scenario, delivery};
use crate::{
    figures::Sample,
    load::fleet::{Faults, Outcome},
    peers::{self, Peer},
    plan::Plan,
    process::Server,
    targets::{Interface, Target, own_server},
};

/// Messages in flight. The bare client has the same.
const WINDOW: usize = 32;

pub fn scenarios() -> Option<Scenario> {
    Peer::Nats.is_installed().then(|| Scenario {
        name: "nats".to_owned(),
        title: "A message through the clustered engine, published and received over raw WebSockets".to_owned(),
        unit: "CPU µs",
        is_long: false,
        contenders: vec![
            Contender { name: "bare async-nats client".to_owned(), measure: Box::new(bare) },
            Contender { name: "pub-sub".to_owned(), measure: Box::new(pub_sub) },
        ],
    })
}

/// A NATS server with JetStream. Its data goes with it.
struct Nats {
    server: Option<Server>,
    directory: PathBuf,
    url: String,
}

impl Nats {
    fn start() -> io::Result<Self> {
        let directory = peers::scratch("jetstream")?;
        let address = peers::free_address()?;
        let binary = Peer::Nats.binary().ok_or_else(|| io::Error::other("nats-server is not installed"))?;
        let mut command = Command::new(binary);
        command.args(["--addr", "127.0.0.1", "--port", &address.port().to_string(), "--jetstream", "--store_dir"]);
        command.arg(&directory);
        let server = Server::start_at(command, address)?;
        Ok(Self { server: Some(server), directory, url: format!("nats://{address}") })
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn pub_sub(plan: &Plan) -> io::Result<Sample> {
    let nats = Nats::start()?;
    let server = Target::PubSub.start(plan, &[("ENGINE", "nats"), ("NATS_URL", &nats.url)])?;
    let mut fleet = delivery::connect(&server, Target::PubSub, Interface::Raw, 1)?;
    delivery::measured(plan, &server, &mut fleet, WINDOW)
}

fn bare(plan: &Plan) -> io::Result<Sample> {
    let nats = Nats::start()?;
    let mut command = own_server("bare-nats")?;
    command.arg(&nats.url);
    let server = Server::start(command)?;
    let stream = TcpStream::connect(server.address)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut run = |time: Duration| -> io::Result<u64> {
        writeln!(&stream, "{}", time.as_secs_f64())?;
        let mut count = String::new();
        answers.read_line(&mut count)?;
        count.trim().parse().map_err(io::Error::other)
    };
    run(plan.time / 5)?;
    thread::sleep(Duration::from_millis(20));
    let (before, begun) = (server.cpu()?, Instant::now());
    let count = run(plan.time)?;
    let outcome = Outcome { elapsed: begun.elapsed(), ..Outcome::default() };
    thread::sleep(Duration::from_millis(20));
    Ok(Sample::of_cpu(server.cpu()? - before, count, &outcome, Faults::default()))
}
