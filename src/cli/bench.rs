//! `pub-sub bench`: publishes to a server and subscribes to it, and measures throughput, latency and losses.

mod door;
mod publisher;
mod report;
mod subscriber;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::{Arg, ArgMatches, Command, builder::PossibleValuesParser, value_parser};
use hyper::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

use self::{
    door::Door,
    publisher::Publisher,
    report::{Delivered, Report},
    subscriber::Subscriber,
};
use super::{Outcome, Problem, arguments, arguments::text, output};
use crate::client::{Failure, Remote, encode};

const MORE: &str = "It creates a topic of its own without a publish rate, and deletes it at the end, unless --topic names one. A rate of\n\
    that topic makes the publishers wait. Subscribers are open before the first message is published.\n\n\
    The latency of a message is the time from its sending to its arrival, both in this program: on the same machine, the\n\
    load itself takes part of the time. `missed` counts what gaps have told of. `lost` counts what was published, did not\n\
    arrive, and was told by no gap.\n\n\
    Exit codes: 0 done, 1 something was lost or failed, 2 wrong usage.";

/// How often it looks whether everything has arrived, and shows how far it is.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes of data that every message has at least: who sent it, which one it is, and when.
const MIN_SIZE: u64 = 64;

pub(super) fn command() -> Command {
    let number = |name: &'static str, default: &'static str| {
        let least = u64::from(name != "subscribers");
        Arg::new(name)
            .long(name)
            .value_name("N")
            .default_value(default)
            .value_parser(value_parser!(u64).range(least..=1_000_000_000))
    };
    Command::new("bench")
        .about("Load a server, and measure throughput, latency and losses")
        .after_help(MORE)
        .disable_help_flag(true)
        .arg(number("publishers", "1").help("How many connections publish"))
        .arg(number("subscribers", "1").help("How many connections subscribe; with 0 it measures publishing alone"))
        .arg(number("messages", "10000").help("How many messages are published in all"))
        .arg(number("size", "100").help("Bytes of data in each message, at least 64"))
        .arg(
            number("window", "16")
                .help("Messages that a publisher sends before the first one is answered; by rest it is 1"),
        )
        .arg(
            Arg::new("rate")
                .long("rate")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..))
                .help("Messages a second in all; otherwise as fast as the server takes them"),
        )
        .arg(
            Arg::new("door")
                .long("door")
                .value_name("DOOR")
                .default_value("ws")
                .value_parser(PossibleValuesParser::new(["ws", "rest", "graphql"]))
                .help("The interface: /ws, POST with event streams, or GraphQL over WebSocket"),
        )
        .arg(Arg::new("topic").long("topic").value_name("NAME").help("Use this topic, and leave it as it is"))
        .arg(
            Arg::new("wait")
                .long("wait")
                .value_name("TIME")
                .default_value("10s")
                .value_parser(arguments::parse_duration)
                .help("How long nothing may arrive before the rest counts as lost"),
        )
        .arg(arguments::json("Print the results as one JSON object"))
        .args(arguments::server())
        .arg(arguments::help())
}

/// What is measured.
struct Plan {
    remote: Remote,
    door: Door,
    topic: String,
    publishers: u64,
    subscribers: u64,
    messages: u64,
    size: u64,
    window: usize,
    rate: Option<u32>,
    wait: Duration,
}

/// What is counted while it runs.
struct Counts {
    started: Instant,
    /// Messages that the server has accepted.
    published: AtomicU64,
    /// Of each subscriber: the messages that have arrived, and those that a gap has told of.
    settled: Vec<AtomicU64>,
}

impl Counts {
    /// All that has happened: it grows as long as anything goes on.
    fn progress(&self) -> u64 {
        let settled = self.settled.iter().map(|count| count.load(Ordering::Relaxed));
        settled.fold(self.published.load(Ordering::Relaxed), u64::saturating_add)
    }

    /// Whether every subscriber has everything.
    fn is_complete(&self) -> bool {
        let published = self.published.load(Ordering::Relaxed);
        self.settled.iter().all(|count| count.load(Ordering::Relaxed) >= published)
    }
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Outcome, Problem> {
    let number = |name: &str| matches.get_one::<u64>(name).copied().unwrap_or(1);
    let named = text(matches, "topic");
    let own = format!("bench.{}", uuid::Uuid::new_v4().simple());
    let plan = Plan {
        remote: arguments::remote(matches)?,
        door: Door::of(text(matches, "door").unwrap_or_default()),
        topic: named.unwrap_or(&own).to_owned(),
        publishers: number("publishers"),
        subscribers: number("subscribers"),
        messages: number("messages"),
        size: number("size").max(MIN_SIZE),
        window: usize::try_from(number("window")).unwrap_or(usize::MAX),
        rate: matches.get_one::<u32>("rate").copied(),
        wait: matches.get_one::<Duration>("wait").copied().unwrap_or_default(),
    };
    if named.is_none() {
        let body = json!({"name": plan.topic, "max_publish_rate": 0}).to_string();
        plan.remote.send(Method::POST, "/topics", Some(body)).await?;
    }
    let measured = tokio::select! {
        measured = measure(&plan) => measured,
        _ = tokio::signal::ctrl_c() => Err(Problem::Failed("it was interrupted".to_owned())),
    };
    if named.is_none() {
        // Whether the topic goes is no part of the measurement, and what is wrong with the server has been said.
        let _ = plan.remote.send(Method::DELETE, &format!("/topics/{}", encode(&plan.topic)), None).await;
    }
    let report = measured?;
    output::print(&if matches.get_flag("json") { report.to_json() + "\n" } else { report.to_string() })?;
    Ok(if report.lost() == 0 { Outcome::Done } else { Outcome::Failed })
}

async fn measure(plan: &Plan) -> Result<Report, Problem> {
    let counts = Arc::new(Counts {
        started: Instant::now(),
        published: AtomicU64::new(0),
        settled: (0..plan.subscribers).map(|_| AtomicU64::new(0)).collect(),
    });
    let stop = CancellationToken::new();
    let mut subscribers = JoinSet::new();
    for index in 0..plan.subscribers {
        let subscriber = Subscriber::open(&plan.remote, plan.door, &plan.topic).await?;
        let (counts, stop) = (counts.clone(), stop.clone());
        subscribers.spawn(async move {
            let settled =
                |count| _ = counts.settled.get(index as usize).map(|all| all.fetch_add(count, Ordering::Relaxed));
            subscriber.run(counts.started, settled, stop).await
        });
    }
    let begun = Instant::now();
    let mut publishers = JoinSet::new();
    for index in 0..plan.publishers {
        let publisher = Publisher::open(plan, index, counts.clone()).await?;
        publishers.spawn(publisher.run());
    }
    let bar = progress_bar(plan);
    let published_for = all_published(&mut publishers, &mut subscribers, &counts, &bar, begun).await?;
    arrived(plan, &counts, &bar).await;
    let delivered_for = begun.elapsed();
    stop.cancel();
    bar.finish_and_clear();
    let mut delivered = Delivered::default();
    while let Some(done) = subscribers.join_next().await {
        let done = done.map_err(|error| Problem::Failed(error.to_string()))?;
        delivered.add(done?);
    }
    Ok(Report {
        door: plan.door.name(),
        publishers: plan.publishers,
        subscribers: plan.subscribers,
        size: plan.size,
        published: counts.published.load(Ordering::Relaxed),
        published_for,
        delivered_for,
        delivered,
    })
}

/// Waits for the publishers. A subscriber does not end before them.
async fn all_published(
    publishers: &mut JoinSet<Result<(), Failure>>,
    subscribers: &mut JoinSet<Result<Delivered, Failure>>,
    counts: &Counts,
    bar: &ProgressBar,
    begun: Instant,
) -> Result<Duration, Problem> {
    let broken = |error: tokio::task::JoinError| Problem::Failed(error.to_string());
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            done = publishers.join_next() => match done {
                Some(done) => done.map_err(broken)??,
                None => return Ok(begun.elapsed()),
            },
            Some(ended) = subscribers.join_next() => {
                ended.map_err(broken)??;
                return Err(Problem::Failed("a subscription has ended".to_owned()));
            }
            _ = look.tick() => bar.set_position(counts.progress()),
        }
    }
}

/// Waits until every subscriber has everything, or nothing comes any more.
async fn arrived(plan: &Plan, counts: &Counts, bar: &ProgressBar) {
    let mut look = interval(LOOK);
    let (mut last, mut since) = (counts.progress(), Instant::now());
    while !counts.is_complete() && since.elapsed() < plan.wait {
        look.tick().await;
        let now = counts.progress();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        bar.set_position(now);
    }
}

/// Counts publishes and deliveries together, on a terminal alone.
fn progress_bar(plan: &Plan) -> ProgressBar {
    let all = plan.messages.saturating_mul(plan.subscribers.saturating_add(1));
    let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
    let style =
        ProgressStyle::with_template("{bar:40} {percent:>3} %  {human_pos} of {human_len}  {per_sec}  {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
