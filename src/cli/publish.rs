//! `pub-sub pub`: publishes messages from arguments, a file or standard input.

mod batch;
mod input;
mod pace;
mod sender;

use std::{io::IsTerminal as _, num::NonZeroU32, time::Duration};

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use self::{
    input::{Defaults, Input},
    pace::Pace,
    sender::Sender,
};
use super::{Outcome, Problem, arguments, arguments::text};

const MORE: &str = "DATA that is JSON is published as that, and anything else as a string. Each DATA is one message.\n\
    Lines of a file or of standard input must be JSON, unless --text makes a string of each. With --json they are\n\
    objects with \"topic\", \"data\", \"key\", \"id\", \"headers\", \"ttl\" and \"remove\", of which only \"data\" is needed where TOPIC is\n\
    given; other fields are ignored, so what `pub-sub sub --json` prints can be published again. A message with \"remove\"\n\
    removes its key, and needs no data.\n\n\
    Messages are stored in the order of their lines. Each gets an id before it is sent, so that after a lost connection it\n\
    is sent again and stored once. A publish rate makes pub wait.\n\n\
    Exit codes:\n  \
    0  everything was published\n  \
    1  a message was refused (standard error has its line), or the server could not be reached\n  \
    2  wrong usage";

/// What makes a message that is not one of many lines.
const ONE_MESSAGE: &str = "one-message";

pub(super) fn command() -> Command {
    Command::new("pub")
        .about("Publish messages from arguments, a file or standard input")
        .after_help(MORE)
        .disable_help_flag(true)
        .args(input_arguments())
        .args(message_arguments())
        .group(ArgGroup::new(ONE_MESSAGE).args(["data", "remove"]))
        .arg(
            Arg::new("rate")
                .long("rate")
                .value_name("N")
                .value_parser(value_parser!(NonZeroU32))
                .help("Publish at most N messages a second"),
        )
        .arg(
            Arg::new("retry-for")
                .long("retry-for")
                .value_name("TIME")
                .value_parser(arguments::parse_duration)
                .help("How long to try to reach the server, also at the start; otherwise the first attempt decides, and later ones end after 30s"),
        )
        .arg(arguments::json("Lines are objects with topic, data, key, id and headers; print one for each message, with its offset and cursor"))
        .args(arguments::server())
        .arg(arguments::help())
}

fn input_arguments() -> [Arg; 4] {
    [
        Arg::new("topic").value_name("TOPIC").required_unless_present("json").help("The topic"),
        Arg::new("data")
            .value_name("DATA")
            .num_args(1..)
            .allow_negative_numbers(true)
            .help("The messages; without any, or with -, lines of standard input"),
        Arg::new("file")
            .long("file")
            .value_name("FILE")
            .conflicts_with("data")
            .help("Publish the lines of this file; - is standard input"),
        Arg::new("text")
            .long("text")
            .action(ArgAction::SetTrue)
            .help("Publish everything as strings, also what is JSON"),
    ]
}

fn message_arguments() -> [Arg; 7] {
    [
        Arg::new("remove")
            .long("remove")
            .action(ArgAction::SetTrue)
            .requires("key")
            .conflicts_with_all(["file", "text", "ttl"])
            .help("Remove the key: say that it has no value any more"),
        Arg::new("key").long("key").value_name("KEY").help("The key of every message that has none of its own"),
        Arg::new("id")
            .long("id")
            .value_name("ID")
            .requires(ONE_MESSAGE)
            .help("The id of the message; an id that is known is stored once"),
        Arg::new("expected-offset")
            .long("expected-offset")
            .value_name("N")
            .requires(ONE_MESSAGE)
            .value_parser(value_parser!(u64))
            .help("Publish only if this is the topic's newest offset; 0 if it has no message"),
        Arg::new("expected-key-offset")
            .long("expected-key-offset")
            .value_name("N")
            .requires_all([ONE_MESSAGE, "key"])
            .value_parser(value_parser!(u64))
            .help("Publish only if this is the newest offset of the key; 0 if the key has no value"),
        Arg::new("header")
            .long("header")
            .value_name("NAME=VALUE")
            .action(ArgAction::Append)
            .value_parser(header)
            .help("A header of every message that has none of its own; can be given several times"),
        Arg::new("ttl")
            .long("ttl")
            .value_name("TIME")
            .help("How long every message is kept at most that says nothing itself, like 90s or 24h"),
    ]
}

/// `NAME=VALUE`. What a header may be is the server's to say.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Outcome, Problem> {
    let json = matches.get_flag("json");
    let defaults = Defaults {
        topic: text(matches, "topic").map(str::to_owned),
        key: text(matches, "key").map(str::to_owned),
        id: text(matches, "id").map(str::to_owned),
        expected_offset: matches.get_one::<u64>("expected-offset").copied(),
        expected_key_offset: matches.get_one::<u64>("expected-key-offset").copied(),
        headers: matches.get_many("header").map(|headers| headers.cloned().collect()),
        ttl: text(matches, "ttl").map(str::to_owned),
        is_removal: matches.get_flag("remove"),
        is_text: matches.get_flag("text"),
        is_object: json,
    };
    let data: Vec<String> = matches.get_many("data").into_iter().flatten().cloned().collect();
    let input = match (data.as_slice(), text(matches, "file")) {
        _ if defaults.is_removal => Input::removal(defaults),
        ([], None) if std::io::stdin().is_terminal() => {
            return Err(Problem::Usage("pub: DATA is missing; with - it reads lines from the terminal".to_owned()));
        }
        ([], None | Some("-")) => Input::stdin(defaults),
        ([dash], None) if dash == "-" => Input::stdin(defaults),
        ([], Some(file)) => Input::file(file, defaults)?,
        _ => Input::arguments(data, defaults)?,
    };
    let mut sender = Sender::new(arguments::remote(matches)?, json);
    sender.retry_for = matches.get_one::<Duration>("retry-for").copied();
    sender.pace = matches.get_one::<NonZeroU32>("rate").map(|rate| Pace::new(*rate));
    sender.run(input).await
}
