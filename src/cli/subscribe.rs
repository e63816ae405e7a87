//! `pub-sub sub`: prints the messages of a topic or pattern as they come.

mod connection;
mod follow;
mod frame;
mod gap;
mod request;
mod seen;
mod unacknowledged;

use std::time::Duration;

use clap::{Arg, ArgMatches, Command, builder::PossibleValuesParser, value_parser};

use self::{
    follow::{Ended, Follow, Form},
    request::Request,
};
use super::{
    Outcome, Problem, arguments,
    ending::{Ending, LastHeard, ending},
    notes::note,
    output,
};

/// Where a subscription may begin: at most one of them.
const STARTS: [&str; 4] = ["last", "after", "since", "state"];

const ABOUT: &str = "Print the messages of a topic or pattern as they come";

const MORE: &str = "By default, standard output has the data of each message as one line of JSON. With --json it has the whole\n\
    message, and a line for each gap. What was missed is also said on standard error: how many messages, which\n\
    offsets, and why.\n\n\
    With --state, standard error says when the state is complete, or with --json a line with the type \"state\".\n\n\
    A lost connection is made again, and the subscription goes on after the last message that was printed.\n\n\
    Exit codes:\n  \
    0  --count messages were printed; --timeout has passed (without --count); SIGINT, SIGTERM, or the reader of\n     \
    standard output has gone\n  \
    1  it failed, the topic was deleted, or --timeout has passed before --count messages had come\n  \
    2  wrong usage\n  \
    3  something was missed, with --fail-on-gap";

pub(super) fn command() -> Command {
    Command::new("sub")
        .about(ABOUT)
        .after_help(MORE)
        .disable_help_flag(true)
        .arg(
            Arg::new("topic")
                .value_name("TOPIC")
                .required(true)
                .help("A topic, or a pattern: * is any one segment, and > at the end is one or more (orders.>)"),
        )
        .args(starts())
        .args(choices())
        .args(ends())
        .arg(arguments::json("Print whole messages, and gaps, as JSON lines"))
        .args(arguments::server())
        .arg(arguments::help())
}

fn starts() -> [Arg; 4] {
    let start = |name: &'static str| {
        let others = STARTS.into_iter().filter(move |other| *other != name);
        Arg::new(name).long(name).conflicts_with_all(others)
    };
    [
        start("last").value_name("N").value_parser(value_parser!(u32)).help("Begin with the last N kept messages"),
        start("after").value_name("CURSOR").help("Begin after this position"),
        start("since")
            .value_name("TIME")
            .help("Begin with what was published since then: RFC 3339, or 10m for the last 10 minutes"),
        start("state")
            .action(clap::ArgAction::SetTrue)
            .help("Begin with the newest message of each key, without removed keys, and say when that is complete"),
    ]
}

fn choices() -> [Arg; 6] {
    let words = |words: &'static [&'static str]| PossibleValuesParser::new(words);
    [
        Arg::new("filter")
            .long("filter")
            .value_name("JSON")
            .help("Only messages that match, for example '{\"field\":\"total\",\"gt\":100}'"),
        Arg::new("key").long("key").value_name("KEY").conflicts_with("filter").help("Only messages with this key"),
        Arg::new("consumer")
            .long("consumer")
            .value_name("NAME")
            .help("Let the server keep the position under this name, also between runs"),
        Arg::new("ack")
            .long("ack")
            .value_name("WHEN")
            .requires("consumer")
            .ignore_case(true)
            .value_parser(words(&["auto", "explicit"]))
            .help("When that position moves: when messages have arrived, or when their lines were written [default: auto]"),
        Arg::new("consumer-ttl")
            .long("consumer-ttl")
            .value_name("TIME")
            .requires("consumer")
            .help("How long the server keeps the position while nobody uses it, like 15m"),
        Arg::new("overflow")
            .long("overflow")
            .value_name("HOW")
            .ignore_case(true)
            .value_parser(words(&["history", "latest", "latest_per_key", "disconnect"]))
            .help("What happens when this program reads too slowly [default: history]"),
    ]
}

fn ends() -> [Arg; 4] {
    let duration =
        |name: &'static str| Arg::new(name).long(name).value_name("TIME").value_parser(arguments::parse_duration);
    [
        Arg::new("count")
            .long("count")
            .value_name("N")
            .value_parser(value_parser!(u64).range(1..))
            .help("End after N messages"),
        duration("timeout").help("End when no message has come for this long, like 5s: the exit code is 0, or 1 if --count was not reached"),
        duration("retry-for").help(
            "How long to try to reach the server, also at the start; otherwise the first attempt decides, and later ones \
             never end",
        ),
        Arg::new("fail-on-gap")
            .long("fail-on-gap")
            .action(clap::ArgAction::SetTrue)
            .help("End with 3 as soon as something was missed"),
    ]
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Outcome, Problem> {
    let request = Request::of(matches)?;
    let remote = arguments::remote(matches)?;
    let count = matches.get_one::<u64>("count").copied();
    let timeout = matches.get_one::<Duration>("timeout").copied();
    let form = if matches.get_flag("json") { Form::Whole } else { Form::Data };
    let heard = LastHeard::now();
    let mut follow = Follow::new(remote, request, form, heard.clone());
    follow.left = count;
    follow.fail_on_gap = matches.get_flag("fail-on-gap");
    follow.retry_for = matches.get_one::<Duration>("retry-for").copied();
    let ended = tokio::select! {
        biased;
        ended = follow.run() => ended,
        ended = ending(heard, timeout) => ended.map(Ended::Outside).map_err(|error| output::failed(&error)),
    };
    // What was printed is acknowledged whatever has ended the command.
    follow.finish().await;
    let left = follow.left;
    Ok(match ended? {
        Ended::Count | Ended::Outside(Ending::Signal | Ending::OutputClosed) => Outcome::Done,
        Ended::Outside(Ending::Timeout) => timed_out(count, left, timeout),
        Ended::Missed => Outcome::Missed,
        Ended::Deleted(topic) => {
            note(&format!("the topic {topic:?} was deleted"));
            Outcome::Failed
        }
    })
}

fn timed_out(count: Option<u64>, left: Option<u64>, timeout: Option<Duration>) -> Outcome {
    let Some((count, left)) = count.zip(left) else { return Outcome::Done };
    let waited = jiff::SignedDuration::try_from(timeout.unwrap_or_default()).unwrap_or_default();
    note(&format!("{} of {count} messages have come, and then none for {waited:#}", count - left));
    Outcome::Failed
}
