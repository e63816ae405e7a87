//! The servers that pub-sub is compared with and that are written for it. They are a binary of their own, so that the driver
//! stays small.

mod bare;
mod bare_epoll;
mod bare_nats;
mod bare_tokio;
mod ordinary;
mod ordinary_graphql;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
};

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Which server to run.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    /// Bare: tokio, one write for each message and subscriber.
    BareTokio,
    /// Bare: epoll, all pending messages of a subscriber in one write.
    BareEpoll,
    /// What an ordinary axum program does.
    Ordinary,
    /// Bare: a client of NATS that publishes and receives.
    BareNats,
}

#[derive(Parser)]
#[command(about = "The servers that pub-sub is compared with")]
struct Arguments {
    kind: Kind,
    /// The NATS server
    #[arg(default_value = "nats://127.0.0.1:4222")]
    url: String,
}

/// Runs a server until the process is ended.
fn main() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let arguments = Arguments::parse();
    match arguments.kind {
        Kind::BareTokio => bare_tokio::run(),
        Kind::BareEpoll => bare_epoll::run(),
        Kind::Ordinary => ordinary::run(),
        Kind::BareNats => bare_nats::run(&arguments.url),
    }
}

/// Says where the server listens, in the form that the driver reads.
fn announce(address: SocketAddr) {
    let mut out = io::stdout();
    let _ = writeln!(out, "listening on {address}").and_then(|()| out.flush());
}
