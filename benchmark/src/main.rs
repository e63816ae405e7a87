//! The benchmark of pub-sub: it shows costs as ratios of server CPU time to other programs that are measured in the same run.
//!
//! The driver starts each server in a process of its own, loads it from this process with one thread, reads the CPU time of the
//! server's process, and checks every message. See `docs/benchmarks.md` for what is measured and how to read it.

mod figures;
mod load;
mod peers;
mod plan;
mod process;
mod scenarios;
mod targets;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[derive(Parser)]
#[command(about = "What pub-sub costs, as ratios to other servers in the same run")]
struct Arguments {
    /// Which scenarios to run, by the beginnings of their names; without it, the standard set
    #[arg(long, short, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Numbers of subscribers of the delivery scenarios
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    subscribers: Vec<usize>,
    /// How often each contender is measured
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Idle connections whose memory is measured
    #[arg(long, default_value_t = 5_000)]
    idle: usize,
    /// Topics, where there are many
    #[arg(long, default_value_t = 100_000)]
    topics: usize,
    /// Only contenders whose names contain one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The server's binary; without it, PUB_SUB_BIN or target/release/pub-sub
    #[arg(long)]
    pub_sub: Option<PathBuf>,
    /// Measure the servers of others that are installed, too, in the scenarios `delivery`
    #[arg(long)]
    peers: bool,
    /// Another build of the server, measured beside it as `base`
    #[arg(long)]
    against: Option<PathBuf>,
    /// List the scenarios
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    raise_limit()?;
    let plan = plan::Plan {
        against: arguments.against,
        pub_sub: arguments.pub_sub.unwrap_or_else(targets::default_pub_sub),
        runs: arguments.runs,
        time: Duration::from_secs_f64(arguments.seconds),
        subscribers: arguments.subscribers,
        idle: arguments.idle,
        topics: arguments.topics,
        peers: arguments.peers,
        only: arguments.only,
    };
    for binary in [Some(&plan.pub_sub), plan.against.as_ref()].into_iter().flatten() {
        if !binary.is_file() {
            let hint = "build it with `cargo build --release`, or name another with --pub-sub";
            return Err(io::Error::other(format!("there is no {}: {hint}", binary.display())));
        }
    }
    let mut wanted = scenarios::all(&plan);
    let chosen = |name: &str| {
        if arguments.scenario.is_empty() {
            name.starts_with("delivery") || name.starts_with("publish")
        } else {
            arguments.scenario.iter().any(|chosen| is_called(name, chosen))
        }
    };
    if arguments.list {
        for scenario in &wanted {
            println!("{:<24} {}", scenario.name, scenario.title);
        }
        return Ok(());
    }
    wanted.retain(|scenario| chosen(&scenario.name));
    if wanted.is_empty() {
        return Err(io::Error::other("no scenario has such a name; --list shows them"));
    }
    for scenario in wanted {
        print!("{}", scenario.run(&plan).to_text());
    }
    Ok(())
}

/// Whether a scenario is meant: by its name, or the beginning of it up to a `-`.
fn is_called(name: &str, chosen: &str) -> bool {
    name.strip_prefix(chosen).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// A process may have as many connections as the system allows.
fn raise_limit() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
