//! The benchmark of pub-sub: it shows costs as ratios of server CPU time to other programs that are measured in the same run.
//!
//! The driver starts each server in a process of its own, loads it from this process with one thread, reads the CPU time of the
//! server's process, and checks every message. See `docs/benchmarks.md` for what is measured and how to read it.

mod figures;
mod load;
mod peers;
mod plan;
mod process;
mod report;
mod scenarios;
mod targets;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use figures::Row;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use plan::Plan;
use report::{About, Run};

#[derive(Parser)]
#[command(about = "What pub-sub costs, as ratios to other servers in the same run")]
struct Arguments {
    /// Which scenarios to run: their names, or the beginnings of these up to a `-`; without it, all
    #[arg(long, short, value_delimiter = ',')]
    scenario: Vec<String>,
    /// A selection that takes about two minutes
    #[arg(long)]
    quick: bool,
    /// A few messages at every interface of the server alone, to see that the benchmark works
    #[arg(long)]
    smoke: bool,
    /// Numbers of subscribers of the delivery scenarios
    #[arg(long, value_delimiter = ',')]
    subscribers: Vec<usize>,
    /// How often each contender is measured
    #[arg(long)]
    runs: Option<usize>,
    /// Seconds of each measurement
    #[arg(long)]
    seconds: Option<f64>,
    /// Idle connections whose memory is measured
    #[arg(long)]
    idle: Option<usize>,
    /// Topics, where there are many
    #[arg(long, default_value_t = 100_000)]
    topics: usize,
    /// Only contenders whose names contain one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The server's binary; without it, PUB_SUB_BIN or target/release/pub-sub
    #[arg(long)]
    pub_sub: Option<PathBuf>,
    /// Another build of the server, measured beside it as `base` in the scenarios of deliveries and publishes
    #[arg(long)]
    against: Option<PathBuf>,
    /// Measure the servers of others that are installed, too, in the scenarios `delivery`
    #[arg(long)]
    peers: bool,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// Write the figures into this file, after each scenario
    #[arg(long)]
    save: Option<PathBuf>,
    /// Write a page and plots into this directory
    #[arg(long)]
    report: Option<PathBuf>,
    /// Write a summary into this page, between `<!-- benchmark -->` and `<!-- /benchmark -->`
    #[arg(long)]
    readme: Option<PathBuf>,
    /// Measure nothing, and take the figures of this file
    #[arg(long)]
    from: Option<PathBuf>,
}

/// The scenarios of the quick form.
const QUICK: &str = "delivery,publish-raw,publish-post,publish-mutation,open,memory,start";

/// The scenarios that show whether everything works.
const SMOKE: &str = "delivery,publish-raw,publish-post,publish-mutation,topics,start";

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything could be measured, and pub-sub lost nothing.
fn run(arguments: &Arguments) -> io::Result<bool> {
    raise_limit()?;
    if let Some(file) = &arguments.from {
        let run = Run::load(file)?;
        run.tables.iter().for_each(|table| print!("{}", table.to_text()));
        return finish(arguments, &run).map(|()| true);
    }
    let plan = plan(arguments);
    let chosen: Vec<&str> = match (arguments.quick, arguments.smoke) {
        _ if !arguments.scenario.is_empty() => arguments.scenario.iter().map(String::as_str).collect(),
        (true, _) => QUICK.split(',').collect(),
        (_, true) => SMOKE.split(',').collect(),
        // The scenarios `delivery` have the contenders of these.
        _ => Vec::new(),
    };
    let parts = ["raw", "graphql", "sse"];
    let is_chosen = |name: &str| match chosen.is_empty() {
        true => !parts.iter().any(|part| is_called(name, part)),
        false => chosen.iter().any(|chosen| is_called(name, chosen)),
    };
    let mut wanted = scenarios::all(&plan);
    if arguments.list {
        wanted.iter().for_each(|scenario| println!("{:<24} {}", scenario.name, scenario.title));
        return Ok(true);
    }
    wanted.retain(|scenario| is_chosen(&scenario.name));
    if wanted.is_empty() {
        return Err(io::Error::other("no scenario has such a name; --list shows them"));
    }
    check_binaries(&plan)?;
    let about = About::now(plan.runs, plan.time.as_secs_f64())?;
    let mut run = Run { about, tables: Vec::new() };
    let mut is_good = true;
    for scenario in wanted {
        let (table, failures) = scenario.run(&plan);
        print!("{}", table.to_text());
        let own = table.rows.iter().filter(|row| row.contender.starts_with("pub-sub"));
        is_good &= failures == 0 && own.map(Row::faults).all(|faults| faults.lost + faults.doubled == 0);
        run.tables.push(table);
        // A run takes long, and may be stopped.
        save(arguments, &run)?;
    }
    finish(arguments, &run)?;
    Ok(is_good)
}

/// What the user has chosen, and what goes without saying.
fn plan(arguments: &Arguments) -> Plan {
    let (subscribers, runs, seconds, idle): (&[usize], _, _, _) = match (arguments.quick, arguments.smoke) {
        (true, _) => (&[1_000], 2, 1.0, 1_000),
        (_, true) => (&[10], 1, 0.1, 100),
        _ if arguments.scenario.is_empty() => (&[100, 1_000, 10_000], 3, 1.5, 10_000),
        _ => (&[100, 1_000], 3, 1.5, 5_000),
    };
    let mut only = arguments.only.clone();
    if arguments.smoke && only.is_empty() {
        only.push("pub-sub".to_owned());
    }
    let is_given = !arguments.subscribers.is_empty();
    Plan {
        pub_sub: arguments.pub_sub.clone().unwrap_or_else(targets::default_pub_sub),
        against: arguments.against.clone(),
        subscribers: if is_given { arguments.subscribers.clone() } else { subscribers.to_vec() },
        runs: arguments.runs.unwrap_or(runs),
        time: Duration::from_secs_f64(arguments.seconds.unwrap_or(seconds)),
        idle: arguments.idle.unwrap_or(idle),
        topics: arguments.topics,
        peers: arguments.peers,
        only,
    }
}

fn check_binaries(plan: &Plan) -> io::Result<()> {
    for binary in [Some(&plan.pub_sub), plan.against.as_ref()].into_iter().flatten() {
        if !binary.is_file() {
            let hint = "build it with `cargo build --release`, or name another with --pub-sub";
            return Err(io::Error::other(format!("there is no {}: {hint}", binary.display())));
        }
    }
    Ok(())
}

fn save(arguments: &Arguments, run: &Run) -> io::Result<()> {
    arguments.save.as_ref().map_or(Ok(()), |file| run.save(file))
}

/// Reports where that was asked for.
fn finish(arguments: &Arguments, run: &Run) -> io::Result<()> {
    if let Some(page) = &arguments.readme {
        run.summarise(page)?;
    }
    arguments.report.as_ref().map_or(Ok(()), |directory| run.report(directory))
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
